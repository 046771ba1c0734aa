"""The map from a table to rows of numbers: standardised numbers, flags for missing values, one-hot codes.

A map is fitted once. It is extended where a constant column begins to vary or a new word appears, in such a way that
rows encoded before keep their meaning: sums over rows add up only if all rows went through one map.

Source: Pedregosa et al. 2011 (standardisation, one-hot codes).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from ..nn.carry import Change
from .category import MAX_CODES, MAX_LEVELS, SPARE_LEVELS, Category, Tally, slots_per_column
from .columns import CATEGORY, NUMBER, Columns, convert_column
from .maps import describe_difference, from_json, merge_maps, to_json
from .number import FAR, QUANTILES, YOUNG, Number, inverse_unit

SOFT = 6.0
"""Standardised numbers beyond this grow like their logarithm."""

FORMAT = 3
"""The format version of what `to_json` writes."""

_CHUNK_SIZE = 32_768  # numbers at a time
_MAP_TYPES = {NUMBER: Number, CATEGORY: Category}
_RENAMED = {"mean": "centre", "std": "scale"}  # of format 2


@dataclass(frozen=True)
class Encoder:
    """A map from columns to rows `[rows, width]`, float64. It is immutable, and equal maps compare equal.

    An encoded row holds, in this order:

    - Every column of numbers: z = (x - centre) / scale, and 0 if missing. Beyond `SOFT` it grows like
      sign(z) (SOFT + log(1 + |z| - SOFT)); beyond `FAR` the number counts as missing.
    - A 0/1 flag for every column of numbers that had a missing value when the map was fitted.
    - The codes of each column of categories: its levels, free slots, one code for all further levels, and one for
      missing if missing values were seen.

    Fields: `names`: of the columns; `maps`: the map of each column; `named`: whether the table had names (see
    `Columns`).

    Example:
        >>> from gradatim.preprocessing import Encoder, read_columns
        >>> columns = read_columns([[1.0, "red"], [3.0, "blue"]])
        >>> Encoder.fit(columns).encode(columns)
        array([[-1.,  0.,  1.,  0.,  0.,  0.,  0.,  0.],
               [ 1.,  1.,  0.,  0.,  0.,  0.,  0.,  0.]])
    """

    names: tuple[str, ...]
    maps: tuple[Number | Category, ...]
    named: bool = True

    @classmethod
    def fit(cls, columns: Columns, weight: np.ndarray | None = None) -> Encoder:
        """Return the map fitted to these rows.

        `weight [rows]` is nonnegative: 2 counts a row twice, 0 ignores it. Whole-number weights give exactly the
        result of repeated rows. The order of rows does not matter.

        Raises:
            ValueError: the weights have another shape, are negative, not finite, or all zero.

        Example:
            >>> import numpy as np
            >>> from gradatim.preprocessing import Encoder, read_columns
            >>> Encoder.fit(read_columns([[1.0], [5.0]]), weight=np.array([3.0, 1.0])).maps[0].centre
            2.0
        """
        if weight is None:
            weight = np.ones(columns.n_rows)
        weight = _check_weight(weight, columns.n_rows)
        if not weight.all():
            columns, weight = columns.take(weight > 0), weight[weight > 0]
        weight = weight * inverse_unit(float(weight.max()))
        pairs = columns.decided()
        fitted = [
            (Number.fit if kind == NUMBER else Tally.from_column)(values, weight) for kind, values in pairs
        ]
        max_slots = slots_per_column([tally for tally in fitted if isinstance(tally, Tally)])
        maps = (
            Category.from_tally(column_map, max_slots) if isinstance(column_map, Tally) else column_map
            for column_map in fitted
        )
        return cls(columns.names, tuple(maps), columns.named)

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """Return the kind of each column: "number" or "category"."""
        return tuple(NUMBER if isinstance(column_map, Number) else CATEGORY for column_map in self.maps)

    @cached_property
    def inputs(self) -> tuple[tuple[str, Any, Any], ...]:
        """Return what each entry of an encoded row is: (its family, its column, its level or None)."""
        numbers = [("number", name, None) for name in self._number_names]
        flags = [("missing number", self._number_names[j], None) for j in self._flag_index]
        codes = []
        for position, column_map in self._category_maps:
            name = self.names[position]
            free = range(column_map.slots - len(column_map.levels))
            codes += [("level", name, level) for level in column_map.levels]
            codes += [("free", name, slot) for slot in free]
            codes += [("other", name, None)] * column_map.has_other
            codes += [("missing", name, None)] * column_map.has_missing
        return (*numbers, *flags, *codes)

    @property
    def width(self) -> int:
        """Return the width of an encoded row."""
        return len(self.inputs)

    @cached_property
    def _number_maps(self) -> list[tuple[int, Number]]:
        """The positions and maps of the columns of numbers."""
        return [(j, column_map) for j, column_map in enumerate(self.maps) if isinstance(column_map, Number)]

    @cached_property
    def _number_names(self) -> list[str]:
        return [self.names[j] for j, _ in self._number_maps]

    @cached_property
    def _category_maps(self) -> list[tuple[int, Category]]:
        """The positions and maps of the columns of categories."""
        return [(j, column_map) for j, column_map in enumerate(self.maps) if isinstance(column_map, Category)]

    @cached_property
    def _scales(self) -> np.ndarray:
        """For each column of numbers `[p, 5]`: 1 / unit, then centre, scale, low and high in that unit."""
        maps = [column_map for _, column_map in self._number_maps]
        units = [inverse_unit(column_map.low, column_map.high) for column_map in maps]
        rows = [(1.0, t.centre, t.scale, t.low, t.high) for t in maps]
        return np.array(rows).reshape(-1, 5) * np.array(units)[:, None]

    @cached_property
    def _flag_index(self) -> np.ndarray:
        """The columns of numbers that have a flag, by their position among the columns of numbers."""
        has_missing = [column_map.has_missing for _, column_map in self._number_maps]
        return np.flatnonzero(np.array(has_missing, dtype=bool))

    @cached_property
    def _coded(self) -> list[tuple[int, tuple[float, ...]]]:
        """The columns of numbers that have codes for missing, by their position among these, and the codes."""
        return [(at, t.codes) for at, (_, t) in enumerate(self._number_maps) if t.codes]

    @cached_property
    def _empty(self) -> list[int]:
        """The columns of numbers in which no number was seen, by their position among these."""
        return [at for at, (_, t) in enumerate(self._number_maps) if not t.quantiles]

    @cached_property
    def _constant(self) -> list[int]:
        """The columns of numbers that have not varied, by their position among these."""
        return [at for at, (_, t) in enumerate(self._number_maps) if t.quantiles and t.low == t.high]

    @cached_property
    def _young(self) -> list[int]:
        """The positions of the columns whose scale is not settled."""
        return [j for j, column_map in self._number_maps if column_map.stage == YOUNG]

    @cached_property
    def _codes(self) -> list[dict[str | None, int]]:
        return [column_map.codes() for _, column_map in self._category_maps]

    @property
    def _max_slots(self) -> int:
        """The slots up to which a column of categories grows."""
        share = MAX_CODES // max(1, len(self._category_maps)) - 2
        return min(MAX_LEVELS + SPARE_LEVELS, share)

    def align(self, columns: Columns, owner: str = "the model") -> Columns:
        """Return the columns in this map's order and with its kinds. `encode`, `extend` and `out_of_range` call
        this themselves.

        Text that reads as numbers becomes numbers where the map has numbers. `owner` is the name of the model in
        error messages.

        Raises:
            ValueError: a column is missing, unknown or of another type, or the number of columns differs.
        """
        columns = columns.reorder(self.names, self.named, owner)
        if columns.kinds == self.kinds:
            return columns
        values = tuple(
            convert_column(
                column,
                kind,
                getattr(column_map, "levels", ()),
                name,
                owner,
                empty=isinstance(column_map, Number) and not column_map.quantiles,
                truncated=getattr(column_map, "truncated", False),
            )
            for column, kind, column_map, name in zip(
                columns.values, self.kinds, self.maps, self.names, strict=True
            )
        )
        return Columns(columns.names, values, columns.named)

    def encode(self, columns: Columns, owner: str = "the model") -> np.ndarray:
        """Return the rows of a table as float64 `[rows, width]`; each row depends on itself alone.

        Raises:
            ValueError: as `align`.

        Example:
            >>> from gradatim.preprocessing import Encoder, read_columns
            >>> encoder = Encoder.fit(read_columns([[1.0], [3.0]]))
            >>> encoder.encode(read_columns([[2.0], [None]]))
            array([[0.],
                   [0.]])
        """
        columns = self.align(columns, owner)
        out = np.zeros((columns.n_rows, self.width))
        start = len(self._number_maps)
        if start:
            self._write_numbers(out, self._matrix(columns))
            start += len(self._flag_index)
        for (position, column_map), codes in zip(self._category_maps, self._codes, strict=True):
            other_code = column_map.other_code
            row_codes = [codes.get(value, other_code) for value in columns.values[position].tolist()]
            code = np.array(row_codes)
            has_code = np.flatnonzero(code >= 0)
            out[has_code, start + code[has_code]] = 1.0
            start += column_map.width
        return out

    def extend(
        self, columns: Columns, owner: str = "the model", growing: bool = True
    ) -> tuple[int, Encoder, Encoder]:
        """Return what these rows make of the map, whichever way they are cut.

        - New levels get codes in the order in which they appear, more slots where none is free, if `growing`.
        - A column of numbers that was empty or constant gets a scale when it first varies (`Number.advance`).

        Returns:
            n: how many rows come before a column's scale changes, or all.
            now: the map of these n rows. Rows encoded before mean the same under it (`change_to`).
            then: the map of the rows from n on.

        Raises:
            ValueError: as `align`.

        Example:
            >>> from gradatim.preprocessing import Encoder, read_columns
            >>> encoder = Encoder.fit(read_columns([["red"], ["blue"]]))
            >>> n, now, then = encoder.extend(read_columns([["green"], ["red"]]))
            >>> n, now.maps[0].levels
            (2, ('blue', 'red', 'green'))
        """
        if not self._category_maps and not self._young:
            return columns.n_rows, self, self
        columns = self.align(columns, owner)
        n, now, then = columns.n_rows, list(self.maps), list(self.maps)
        grown = {}
        for j in self._young:
            grown[j] = self.maps[j].advance(columns.values[j])  # type: ignore[union-attr]
            n = min(n, grown[j][0])
        for j, (count, *_) in grown.items():
            # a change that comes later than another is left to the next call
            taken = grown[j] if count == n else self.maps[j].advance(columns.values[j][:n])  # type: ignore[union-attr]
            _, now[j], then[j] = taken
        for j, column_map in self._category_maps:
            now[j] = then[j] = column_map.extend(columns.values[j][:n], self._max_slots if growing else 0)
        return n, self._replaced(now), self._replaced(then)

    def _replaced(self, maps: list[Number | Category]) -> Encoder:
        same = all(new is old for new, old in zip(maps, self.maps, strict=True))
        return self if same else replace(self, maps=tuple(maps))

    def change_to(self, encoder: Encoder) -> Change:
        """Return how rows encoded by this map become those that another map of the same columns encodes.

        It is exact for numbers within `SOFT` scales of the centre under both maps, and for levels with a code in both.

        Example:
            >>> from gradatim.preprocessing import Encoder, read_columns
            >>> first, second = (Encoder.fit(read_columns([[low], [low + 2.0]])) for low in (0.0, 3.0))
            >>> first.change_to(second).shift
            tensor([-3.], dtype=torch.float64)
        """
        index = {entry: at for at, entry in enumerate(encoder.inputs) if entry[0] != "free"}
        place = torch.tensor([index.get(entry, -1) for entry in self.inputs], dtype=torch.int64)
        scale, shift = np.ones(self.width), np.zeros(self.width)
        numbers = {encoder.names[j]: column_map for j, column_map in encoder._number_maps}
        for at, (j, old) in enumerate(self._number_maps):
            new = numbers.get(self.names[j], old)
            if not old.quantiles:  # of an empty column every z is 0
                continue
            if old.low < old.high:  # of a constant too
                scale[at] = old.scale / new.scale
            if old.centre != new.centre:
                shift[at] = old.centre / new.scale - new.centre / new.scale
        return Change(place, torch.from_numpy(scale), torch.from_numpy(shift), encoder.width)

    def joined(self, encoder: Encoder) -> Encoder:
        """Return a map with the scales of another and the levels of both; of a column that is empty there, this map's.

        Example:
            >>> from gradatim.preprocessing import Encoder, read_columns
            >>> first, second = (Encoder.fit(read_columns([[word]])) for word in ("red", "blue"))
            >>> first.joined(second).maps[0].levels
            ('red', 'blue')
        """
        maps: list[Number | Category] = []
        for old, new in zip(self.maps, encoder.maps, strict=True):
            if isinstance(old, Category) and isinstance(new, Category):
                wider = old.extend(np.array(new.levels, dtype=object), self._max_slots)
                maps.append(replace(wider, has_missing=old.has_missing or new.has_missing))
            elif isinstance(old, Number) and isinstance(new, Number):
                decided = old if new.stage == YOUNG else new
                maps.append(replace(decided, has_missing=old.has_missing or new.has_missing))
            else:
                maps.append(old)
        return replace(self, maps=tuple(maps))

    def threshold_features(self, budget: int) -> tuple[np.ndarray, np.ndarray]:
        """Return features `z[:, column] > threshold` of encoded rows z: columns int64 `[m]` and thresholds float64
        `[m]`.

        The thresholds of a column of numbers are its quantiles, equally many for each column, so that m <= budget.
        If not even one per column fits, the first columns get their median. A threshold that no row exceeded is
        left out.

        Example:
            >>> import numpy as np
            >>> from gradatim.preprocessing import Encoder, read_columns
            >>> encoder = Encoder.fit(read_columns(np.array([[1.0], [2.0], [3.0]])))
            >>> columns, thresholds = encoder.threshold_features(budget=1)
            >>> columns, thresholds
            (array([0]), array([0.]))
        """
        usable = []
        for position, (_, number_map) in enumerate(self._number_maps):
            z = self._standard(np.array([*number_map.quantiles, number_map.high]), position)
            usable.append(np.unique(z[z < z[-1]]))
        sizes = range(QUANTILES, 0, -1)
        n_cuts = next((k for k in sizes if sum(min(len(cuts), k) for cuts in usable) <= budget), 1)
        chosen = [_thin(cuts, n_cuts) for cuts in usable]
        columns = np.repeat(np.arange(len(chosen)), [len(cuts) for cuts in chosen])
        return columns[:budget], np.concatenate([np.empty(0), *chosen])[:budget]

    def out_of_range(self, columns: Columns, owner: str = "the model") -> dict[str, float]:
        """Return, by column name, the share of rows outside the range of the fitted rows; columns without such rows
        are left out.

        - Numbers are outside if they lie beyond the fitted range widened by its width on each side.
        - Categories are outside if they have no code of their own, in a column where every fitted row had one.

        Raises:
            ValueError: as `align`.

        Example:
            >>> from gradatim.preprocessing import Encoder, read_columns
            >>> encoder = Encoder.fit(read_columns([[0.0], [1.0]]))
            >>> encoder.out_of_range(read_columns([[0.5], [1.5], [9.0], [-9.0]]))
            {'x0': 0.5}
        """
        columns = self.align(columns, owner)
        shares = dict.fromkeys(self.names, 0.0)
        if self._number_maps:
            unit, _, _, low, high = self._scales.T
            with np.errstate(over="ignore"):
                scaled = self._matrix(columns) * unit
            outside = (scaled < 2 * low - high) | (scaled > 2 * high - low)
            outside[:, [self.maps[j].stage == YOUNG for j, _ in self._number_maps]] = False  # type: ignore[union-attr]
            shares |= dict(zip(self._number_names, outside.mean(0).tolist(), strict=True))
        for (position, column_map), codes in zip(self._category_maps, self._codes, strict=True):
            if not column_map.truncated:
                unknown = sum(value not in codes for value in columns.values[position].tolist())
                shares[self.names[position]] = unknown / columns.n_rows
        return {name: share for name, share in shares.items() if share > 0}

    def is_compatible(self, encoder: Encoder) -> bool:
        """Return whether rows encoded by both maps mean the same: the maps differ at most in what was added
        since both were one.
        """
        merged = (merge_maps(*pair, self._max_slots) for pair in zip(self.maps, encoder.maps, strict=True))
        return self.names == encoder.names and None not in merged

    def merge(self, encoder: Encoder) -> Encoder:
        """Return the map of both: with the levels of both, and scales that either has settled.

        Raises:
            ValueError: the maps differ otherwise. The message names the column.
        """
        if self.names != encoder.names:
            pairs = zip(self.names, encoder.names, strict=False)
            mismatch = next((f"{a!r} in one, {b!r} in the other" for a, b in pairs if a != b), "")
            mismatch = mismatch or f"{len(self.names)} in one, {len(encoder.names)} in the other"
            raise ValueError(
                f"the tables have different columns ({mismatch}): learn both from the same columns"
            )
        pairs = zip(self.maps, encoder.maps, strict=True)
        merged_maps = [merge_maps(*pair, self._max_slots) for pair in pairs]
        for name, merged_map, own_map, other_map in zip(
            self.names, merged_maps, self.maps, encoder.maps, strict=True
        ):
            if merged_map is None:
                raise ValueError(
                    f"column {name!r} was encoded in two ways, {describe_difference(own_map, other_map)}: start "
                    "both from one map, for example with fork()"
                )
        return replace(self, maps=tuple(merged_map for merged_map in merged_maps if merged_map is not None))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON that `from_json` turns back into an equal map; floats are exact.

        Example:
            >>> from gradatim.preprocessing import Encoder, read_columns
            >>> encoder = Encoder.fit(read_columns([[1.0, "red"], [3.0, "blue"]]))
            >>> Encoder.from_json(encoder.to_json()) == encoder
            True
        """
        rows = zip(self.names, self.kinds, self.maps, strict=True)
        columns = [{"name": name, "kind": kind, **to_json(table)} for name, kind, table in rows]
        return {"format": FORMAT, "named": self.named, "columns": columns}

    @classmethod
    def from_json(cls, value: Any) -> Encoder:
        """Return the map that `to_json` wrote.

        Raises:
            ValueError: another format version, or an entry that is missing or invalid. The message names it.
        """
        if not isinstance(value, dict) or not {"format", "named", "columns"} <= set(value):
            raise ValueError(f"encoder: expected format, named and columns; got {value!r:.80}")
        if value["format"] == 2:  # written by version 0.1
            value = _renamed(value)
        if value["format"] != FORMAT:
            raise ValueError(
                f"encoder.format must be {FORMAT}; got {value['format']!r}: written by another version"
            )
        columns, named = value["columns"], value["named"]
        if not isinstance(named, bool) or not isinstance(columns, list) or not columns:
            raise ValueError("encoder.named must be a bool and encoder.columns a list of at least one column")
        names, maps, seen = [], [], set()
        for position, column in enumerate(columns):
            where = f"encoder.columns[{position}]"
            fields = dict(column) if isinstance(column, dict) else {}
            names.append(name := fields.pop("name", None))
            kind = fields.pop("kind", None)
            if not isinstance(name, str) or name in seen:
                raise ValueError(f"{where}.name must be a unique name; got {name!r}")
            seen.add(name)
            if not isinstance(kind, str) or kind not in _MAP_TYPES:
                raise ValueError(f"{where}.kind must be one of {', '.join(_MAP_TYPES)}; got {kind!r}")
            maps.append(from_json(_MAP_TYPES[kind], fields, where))
        return cls(tuple(names), tuple(maps), named)

    def _matrix(self, columns: Columns) -> np.ndarray:
        """Return the numbers of aligned columns as `[rows, p]`, NaN where they count as missing."""
        if columns.matrix is not None:
            matrix = columns.matrix
        else:
            matrix = np.stack([columns.values[j] for j, _ in self._number_maps], axis=1)
        if not (self._coded or self._empty or self._constant):
            return matrix
        matrix = matrix.copy()
        for at, codes in self._coded:
            matrix[np.isin(matrix[:, at], codes), at] = np.nan
        matrix[:, self._empty] = np.nan  # nothing is known of such numbers
        for at in self._constant:
            matrix[~np.isnan(matrix[:, at]), at] = self._number_maps[at][1].centre
        return matrix

    def _write_numbers(self, out: np.ndarray, raw: np.ndarray) -> None:
        """Write numbers `[rows, p]`, standardised, and their flags into `out [rows, width]`, in chunks that fit the
        cache.
        """
        width = raw.shape[1]
        stride = 1 + _CHUNK_SIZE // width
        for first in range(0, len(raw), stride):
            rows = slice(first, first + stride)
            z = self._standard(raw[rows])
            missing = np.isnan(z)
            if missing.any():
                z[missing] = 0.0
                out[rows, width : width + len(self._flag_index)] = missing[:, self._flag_index]
            out[rows, :width] = z

    def _standard(self, raw: np.ndarray, position: int | slice = slice(None)) -> np.ndarray:
        """Return numbers `[rows, p]` (or of one column `[rows]`) standardised, with soft tails; NaN where missing."""
        unit, centre, scale = self._scales[position].T[:3]
        with np.errstate(over="ignore", under="ignore"):
            z = raw * unit
            z -= centre
            z /= scale
        size = np.abs(z)
        tail = size > SOFT
        if tail.any():
            far = size[tail]
            z[tail] = np.copysign(SOFT + np.log1p(np.minimum(far, FAR) - SOFT), z[tail])
            z[size > FAR] = np.nan
        return z


def _renamed(value: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON of a map as version 0.1 wrote it in the present format."""
    columns = [
        {_RENAMED.get(name, name): entry for name, entry in column.items()}
        | ({"stage": YOUNG} if "low" in column and column["low"] == column["high"] else {})
        for column in value["columns"]
        if isinstance(column, dict)
    ]
    return {**value, "format": FORMAT, "columns": columns}


def _check_weight(weight: np.ndarray, n_rows: int) -> np.ndarray:
    weight = np.asarray(weight, dtype=np.float64)
    if weight.shape != (n_rows,):
        raise ValueError(
            f"expected one weight for each of the {n_rows} rows, shape ({n_rows},); got shape {weight.shape}"
        )
    if not np.isfinite(weight).all() or (weight < 0).any():
        raise ValueError("weights must be finite and nonnegative: check sample_weight")
    if not weight.any():
        raise ValueError("all sample weights are zero: at least one row must count")
    return weight


def _thin(cuts: np.ndarray, n_cuts: int) -> np.ndarray:
    """Return at most `n_cuts` of the cuts `[k]`, equally spaced."""
    if len(cuts) <= n_cuts:
        return cuts
    return cuts[np.round((len(cuts) + 1) * np.arange(1, n_cuts + 1) / (n_cuts + 1)).astype(np.int64) - 1]
