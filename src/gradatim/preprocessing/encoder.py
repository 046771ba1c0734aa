"""The frozen map from a table to rows of numbers: standardised numbers, flags of what is missing, one-hot codes.

Source: Pedregosa et al. 2011 (standardisation, one-hot codes); what is fixed, and when, is this project's own: sums
over rows add up only where all rows went through one map.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from .columns import CATEGORY, NUMBER, Columns, as_kind
from .maps import LEVELS, QUANTILES, SPARE, Category, Number, Tally, from_json, inverse_unit, to_json

WIDTH = 512
"""One-hot codes of all columns together; beyond it each column of categories gets fewer levels, but at least one."""

SOFT = 6.0
"""Standardised numbers beyond it grow like their logarithm."""

FORMAT = 1
"""The version of what `to_json` writes."""

_CACHED = 32_768  # numbers at a time
_KINDS = {NUMBER: Number, CATEGORY: Category}


@dataclass(frozen=True)
class Encoder:
    """A frozen map from columns to rows `[rows, width]`, float64; a value: equal by content, never changed.

    The rows are, in this order: every column of numbers, (x - mean) / std, 0 where missing, beyond `SOFT` growing like
    sign(z) (SOFT + log(1 + |z| - SOFT)); a 0/1 flag for each of those in which a value was missing at gathering; the
    codes of each column of categories: its levels, free slots, one for all other levels, one for missing where seen.

    `names`, `tables`: the columns and the map of each; `named`: whether the names came with the table (see `Columns`).

    Example:
        >>> columns = read_columns([[1.0, "red"], [3.0, "blue"]])
        >>> Encoder.gather(columns).encode(columns)
        array([[-1.,  0.,  1.,  0.,  0.,  0.,  0.,  0.],
               [ 1.,  1.,  0.,  0.,  0.,  0.,  0.,  0.]])
    """

    names: tuple[str, ...]
    tables: tuple[Number | Category, ...]
    named: bool = True

    @classmethod
    def gather(cls, columns: Columns, weight: np.ndarray | None = None) -> Encoder:
        """Return the map that suits these rows; `weight [rows]`: nonnegative, 2 means two such rows, 0 none.

        Whole-number weights give exactly what repeated rows give; the order of rows does not matter.

        Raises:
            ValueError: weights of another shape, negative, not finite, or all zero.
        """
        if weight is None:
            weight = np.ones(columns.rows)
        weight = _checked(weight, columns.rows)
        if not weight.all():
            columns, weight = columns.take(weight > 0), weight[weight > 0]
        weight = weight * inverse_unit(float(weight.max()))
        pairs = zip(columns.kinds, columns.values, strict=True)
        found = [(Number.gather if kind == NUMBER else Tally.of)(values, weight) for kind, values in pairs]
        most = _most([tally for tally in found if isinstance(tally, Tally)])
        tables = (Category.of(part, most) if isinstance(part, Tally) else part for part in found)
        return cls(columns.names, tuple(tables), columns.named)

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """Return what each column holds: "number" or "category"."""
        return tuple(NUMBER if isinstance(table, Number) else CATEGORY for table in self.tables)

    @cached_property
    def width(self) -> int:
        """Return the width of an encoded row."""
        return len(self._scales) + len(self._flagged) + sum(table.width for _, table in self._categories)

    @cached_property
    def _numbers(self) -> list[int]:
        """The places of the columns of numbers."""
        return [j for j, kind in enumerate(self.kinds) if kind == NUMBER]

    @cached_property
    def _categories(self) -> list[tuple[int, Category]]:
        """The places and maps of the columns of categories."""
        return [(j, table) for j, table in enumerate(self.tables) if isinstance(table, Category)]

    @cached_property
    def _scales(self) -> np.ndarray:
        """For each column of numbers `[p, 5]`: 1 / unit, then mean, std, low and high in that unit."""
        tables = [table for table in self.tables if isinstance(table, Number)]
        units = [inverse_unit(table.low, table.high) for table in tables]
        rows = [(1.0, t.mean, t.std, t.low, t.high) for t in tables]
        return np.array(rows).reshape(-1, 5) * np.array(units)[:, None]

    @cached_property
    def _flagged(self) -> np.ndarray:
        """Which of the columns of numbers have a flag, by their place among them."""
        tables = [table for table in self.tables if isinstance(table, Number)]
        return np.flatnonzero(np.array([table.missing for table in tables], dtype=bool))

    @cached_property
    def _codes(self) -> list[dict[str | None, int]]:
        return [table.codes() for _, table in self._categories]

    def aligned(self, columns: Columns, owner: str = "Encoder") -> Columns:
        """Return the columns in this map's order and of its types; `encode`, `extend` and `strays` do so themselves.

        Text that reads as numbers is taken for numbers where numbers are known. `owner`: who speaks in messages.

        Raises:
            ValueError: a column missing, unknown, or of another type; another number of columns.
        """
        columns = columns.arranged(self.names, self.named, owner)
        if columns.kinds == self.kinds:
            return columns
        values = tuple(
            as_kind(v, kind, getattr(table, "levels", ()), name, owner)
            for v, kind, table, name in zip(columns.values, self.kinds, self.tables, self.names, strict=True)
        )
        return Columns(columns.names, values, columns.named)

    def encode(self, columns: Columns, owner: str = "Encoder") -> np.ndarray:
        """Return the rows of a table as float64 `[rows, width]`; each row depends on itself alone.

        Raises:
            ValueError: as `aligned`.
        """
        columns = self.aligned(columns, owner)
        out = np.zeros((columns.rows, self.width))
        start = len(self._numbers)
        if start:
            self._fill(out, self._matrix(columns))
            start += len(self._flagged)
        for (place, table), known in zip(self._categories, self._codes, strict=True):
            rest = table.rest
            codes = [known.get(value, rest) for value in columns.values[place].tolist()]
            hot = np.array(codes)
            there = np.flatnonzero(hot >= 0)
            out[there, start + hot[there]] = 1.0
            start += table.width
        return out

    def extend(self, columns: Columns, owner: str = "Encoder") -> Encoder:
        """Return the map whose tables of levels took in the new ones of these rows while there was room.

        First come; among those that come together the most frequent first, ties by name. Codes given stay as they are.
        Returns the map itself where nothing is new.

        Raises:
            ValueError: as `aligned`.
        """
        if not self._categories:
            return self
        columns = self.aligned(columns, owner)
        tables = list(self.tables)
        for place, table in self._categories:
            tables[place] = table.extended(columns.values[place])
        if all(new is old for new, old in zip(tables, self.tables, strict=True)):
            return self
        return replace(self, tables=tuple(tables))

    def steps(self, budget: int) -> tuple[np.ndarray, np.ndarray]:
        """Return features `z[:, column] > threshold` of encoded rows z: columns int64 `[m]`, thresholds `[m]`.

        Every column of numbers gets its quantiles, at most so many of each that m <= budget; where not even one of each
        fits, the first columns get their median. A threshold that no row was above is left out.
        """
        tables = [table for table in self.tables if isinstance(table, Number)]
        usable = []
        for place, table in enumerate(tables):
            z = self._standard(np.array([*table.quantiles, table.high]), place)
            usable.append(np.unique(z[z < z[-1]]))
        sizes = range(QUANTILES, 0, -1)
        most = next((k for k in sizes if sum(min(len(cuts), k) for cuts in usable) <= budget), 1)
        chosen = [_spread_out(cuts, most) for cuts in usable]
        columns = np.repeat(np.arange(len(chosen)), [len(cuts) for cuts in chosen])
        return columns[:budget], np.concatenate([np.empty(0), *chosen])[:budget]

    def strays(self, columns: Columns, owner: str = "Encoder") -> dict[str, float]:
        """Return, by name, the share of rows that this map was not made for; columns without such rows are left out.

        Numbers: outside the range seen at gathering stretched by its width on each side. Categories: without a code of
        their own, where at gathering every row had one.

        Raises:
            ValueError: as `aligned`.
        """
        columns = self.aligned(columns, owner)
        found = dict.fromkeys(self.names, 0.0)
        if self._numbers:
            unit, _, _, low, high = self._scales.T
            with np.errstate(over="ignore"):
                scaled = self._matrix(columns) * unit
            outside = (scaled < 2 * low - high) | (scaled > 2 * high - low)
            names = [self.names[j] for j in self._numbers]
            found |= dict(zip(names, outside.mean(0).tolist(), strict=True))
        for (place, table), known in zip(self._categories, self._codes, strict=True):
            if not table.crowded:
                strange = sum(value not in known for value in columns.values[place].tolist())
                found[self.names[place]] = strange / columns.rows
        return {name: share for name, share in found.items() if share > 0}

    def same_map(self, other: Encoder) -> bool:
        """Say whether rows encoded by either mean the same: all alike but levels that only one has taken in."""
        return self.names == other.names and None not in map(_joint, self.tables, other.tables)

    def merged(self, other: Encoder) -> Encoder:
        """Return the map that has the longer table of levels of each column.

        Raises:
            ValueError: the maps differ otherwise; the column is named.
        """
        if self.names != other.names:
            pairs = zip(self.names, other.names, strict=False)
            odd = next((f"{a!r} here, {b!r} there" for a, b in pairs if a != b), "")
            odd = odd or f"{len(self.names)} here, {len(other.names)} there"
            raise ValueError(f"the maps are of other columns ({odd}): learn both from the same columns")
        joint = list(map(_joint, self.tables, other.tables))
        for name, table, mine, theirs in zip(self.names, joint, self.tables, other.tables, strict=True):
            if table is None:
                raise ValueError(
                    f"column {name!r} is mapped in two ways, {_difference(mine, theirs)}: let both begin with one map, "
                    "gathered from the same rows"
                )
        return replace(self, tables=tuple(table for table in joint if table is not None))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON that `from_json` turns back into an equal map; floats are kept exactly."""
        rows = zip(self.names, self.kinds, self.tables, strict=True)
        columns = [{"name": name, "kind": kind, **to_json(table)} for name, kind, table in rows]
        return {"format": FORMAT, "named": self.named, "columns": columns}

    @classmethod
    def from_json(cls, value: Any) -> Encoder:
        """Return the map that `to_json` wrote.

        Raises:
            ValueError: another format, or something missing or out of place; it is named.
        """
        if not isinstance(value, dict) or not {"format", "named", "columns"} <= set(value):
            raise ValueError(f"encoder: format, named and columns are wanted; got {value!r:.80}")
        if value["format"] != FORMAT:
            raise ValueError(
                f"encoder.format must be {FORMAT}; got {value['format']!r}: written by another version"
            )
        columns, named = value["columns"], value["named"]
        if not isinstance(named, bool) or not isinstance(columns, list) or not columns:
            raise ValueError("encoder.named must be a bool and encoder.columns a list of at least one column")
        names, tables = [], []
        for place, column in enumerate(columns):
            where = f"encoder.columns[{place}]"
            fields = dict(column) if isinstance(column, dict) else {}
            names.append(name := fields.pop("name", None))
            kind = fields.pop("kind", None)
            if not isinstance(name, str) or names.count(name) > 1:
                raise ValueError(f"{where}.name must be a name that stands once; got {name!r}")
            if not isinstance(kind, str) or kind not in _KINDS:
                raise ValueError(f"{where}.kind must be one of {', '.join(_KINDS)}; got {kind!r}")
            tables.append(from_json(_KINDS[kind], fields, where))
        return cls(tuple(names), tuple(tables), named)

    def _matrix(self, columns: Columns) -> np.ndarray:
        """Return the numbers of aligned columns as `[rows, p]`."""
        if columns.block is not None:
            return columns.block
        return np.stack([columns.values[j] for j in self._numbers], axis=1)

    def _fill(self, out: np.ndarray, raw: np.ndarray) -> None:
        """Write numbers `[rows, p]`, standardised, and their flags, as many rows at a time as fit the cache."""
        width = raw.shape[1]
        stride = 1 + _CACHED // width
        for first in range(0, len(raw), stride):
            rows = slice(first, first + stride)
            missing = np.isnan(raw[rows])
            z = self._standard(raw[rows])
            if missing.any():
                z[missing] = 0.0
                out[rows, width : width + len(self._flagged)] = missing[:, self._flagged]
            out[rows, :width] = z

    def _standard(self, raw: np.ndarray, place: int | slice = slice(None)) -> np.ndarray:
        """Return numbers `[rows, p]` (or of one column) standardised, with soft tails; NaN stays."""
        unit, mean, std = self._scales[place].T[:3]
        with np.errstate(over="ignore", under="ignore"):
            z = raw * unit
            z -= mean
            z /= std
        size = np.abs(z)
        tail = size > SOFT
        if tail.any():
            far = np.minimum(size[tail], np.finfo(np.float64).max)
            z[tail] = np.copysign(SOFT + np.log1p(far - SOFT), z[tail])
        return z


def _checked(weight: np.ndarray, rows: int) -> np.ndarray:
    weight = np.asarray(weight, dtype=np.float64)
    if weight.shape != (rows,):
        raise ValueError(f"weights: one for each of the {rows} rows is wanted; got the shape {weight.shape}")
    if not np.isfinite(weight).all() or (weight < 0).any():
        raise ValueError("weights must be finite and nonnegative")
    if not weight.any():
        raise ValueError("all sample weights are zero: at least one row must count")
    return weight


def _most(tallies: list[Tally]) -> int:
    """Return how many slots each column of categories may have so that all codes fit `WIDTH`."""
    for most in range(LEVELS + SPARE, 0, -1):
        if sum(Category.of(tally, most).width for tally in tallies) <= WIDTH:
            return most
    return 0


def _spread_out(cuts: np.ndarray, most: int) -> np.ndarray:
    """Return at most so many of some cuts, at equal distances."""
    if len(cuts) <= most:
        return cuts
    return cuts[np.round((len(cuts) + 1) * np.arange(1, most + 1) / (most + 1)).astype(np.int64) - 1]


def _joint(mine: Number | Category, theirs: Number | Category) -> Number | Category | None:
    """Return the map that serves both columns' rows, or None."""
    if isinstance(mine, Category) and isinstance(theirs, Category):
        return mine.longer(theirs)
    return mine if mine == theirs else None


def _difference(mine: Number | Category, theirs: Number | Category) -> str:
    if isinstance(mine, Number) and isinstance(theirs, Number):
        return f"mean {mine.mean:g} and std {mine.std:g} here, {theirs.mean:g} and {theirs.std:g} there"
    if isinstance(mine, Category) and isinstance(theirs, Category):
        return f"levels {mine.levels} here, {theirs.levels} there"
    return "numbers in one, categories in the other"
