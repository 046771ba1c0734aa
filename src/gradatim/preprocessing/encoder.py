"""The fixed map from a table to rows of numbers: standardised numbers, flags for missing values, one-hot codes.

The map is fitted once and then stays: sums over rows add up only if all rows went through one map.

Source: Pedregosa et al. 2011 (standardisation, one-hot codes).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from .columns import CATEGORY, NUMBER, Columns, convert_column
from .maps import (
    QUANTILES,
    Category,
    Number,
    Tally,
    describe_difference,
    from_json,
    inverse_unit,
    merge_maps,
    slots_per_column,
    to_json,
)

SOFT = 6.0
"""Standardised numbers beyond this grow like their logarithm."""

FORMAT = 2
"""The format version of what `to_json` writes."""

_CHUNK_SIZE = 32_768  # numbers at a time
_MAP_TYPES = {NUMBER: Number, CATEGORY: Category}


@dataclass(frozen=True)
class Encoder:
    """A fixed map from columns to rows `[rows, width]`, float64. It is immutable, and equal maps compare equal.

    An encoded row holds, in this order:

    - Every column of numbers: z = (x - mean) / std, and 0 if missing. Beyond `SOFT` it grows like sign(z) (SOFT +
      log(1 + |z| - SOFT)).
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
            >>> Encoder.fit(read_columns([[1.0], [5.0]]), weight=np.array([3.0, 1.0])).maps[0].mean
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
    def width(self) -> int:
        """Return the width of an encoded row."""
        return (
            len(self._scales)
            + len(self._flag_index)
            + sum(column_map.width for _, column_map in self._category_maps)
        )

    @cached_property
    def _number_index(self) -> list[int]:
        """The positions of the columns of numbers."""
        return [j for j, kind in enumerate(self.kinds) if kind == NUMBER]

    @cached_property
    def _category_maps(self) -> list[tuple[int, Category]]:
        """The positions and maps of the columns of categories."""
        return [(j, column_map) for j, column_map in enumerate(self.maps) if isinstance(column_map, Category)]

    @cached_property
    def _scales(self) -> np.ndarray:
        """For each column of numbers `[p, 5]`: 1 / unit, then mean, std, low and high in that unit."""
        maps = [column_map for column_map in self.maps if isinstance(column_map, Number)]
        units = [inverse_unit(column_map.low, column_map.high) for column_map in maps]
        rows = [(1.0, t.mean, t.std, t.low, t.high) for t in maps]
        return np.array(rows).reshape(-1, 5) * np.array(units)[:, None]

    @cached_property
    def _flag_index(self) -> np.ndarray:
        """The columns of numbers that have a flag, by their position among the columns of numbers."""
        maps = [column_map for column_map in self.maps if isinstance(column_map, Number)]
        return np.flatnonzero(np.array([column_map.has_missing for column_map in maps], dtype=bool))

    @cached_property
    def _codes(self) -> list[dict[str | None, int]]:
        return [column_map.codes() for _, column_map in self._category_maps]

    def align(self, columns: Columns, owner: str = "Encoder") -> Columns:
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
            convert_column(column, kind, getattr(column_map, "levels", ()), name, owner)
            for column, kind, column_map, name in zip(
                columns.values, self.kinds, self.maps, self.names, strict=True
            )
        )
        return Columns(columns.names, values, columns.named)

    def encode(self, columns: Columns, owner: str = "Encoder") -> np.ndarray:
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
        start = len(self._number_index)
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

    def extend(self, columns: Columns, owner: str = "Encoder") -> Encoder:
        """Return the map with the new levels of these rows added, while there are free slots.

        Within one call the most frequent levels come first, ties by name. Existing codes stay as they are. If
        nothing is new, the map itself is returned.

        Raises:
            ValueError: as `align`.

        Example:
            >>> from gradatim.preprocessing import Encoder, read_columns
            >>> encoder = Encoder.fit(read_columns([["red"], ["blue"]]))
            >>> encoder.extend(read_columns([["green"]])).maps[0].levels
            ('blue', 'red', 'green')
        """
        if not self._category_maps:
            return self
        columns = self.align(columns, owner)
        maps = list(self.maps)
        for position, column_map in self._category_maps:
            maps[position] = column_map.extend(columns.values[position])
        if all(new is old for new, old in zip(maps, self.maps, strict=True)):
            return self
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
        maps = [number_map for number_map in self.maps if isinstance(number_map, Number)]
        usable = []
        for position, number_map in enumerate(maps):
            z = self._standard(np.array([*number_map.quantiles, number_map.high]), position)
            usable.append(np.unique(z[z < z[-1]]))
        sizes = range(QUANTILES, 0, -1)
        n_cuts = next((k for k in sizes if sum(min(len(cuts), k) for cuts in usable) <= budget), 1)
        chosen = [_thin(cuts, n_cuts) for cuts in usable]
        columns = np.repeat(np.arange(len(chosen)), [len(cuts) for cuts in chosen])
        return columns[:budget], np.concatenate([np.empty(0), *chosen])[:budget]

    def out_of_range(self, columns: Columns, owner: str = "Encoder") -> dict[str, float]:
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
        if self._number_index:
            unit, _, _, low, high = self._scales.T
            with np.errstate(over="ignore"):
                scaled = self._matrix(columns) * unit
            outside = (scaled < 2 * low - high) | (scaled > 2 * high - low)
            names = [self.names[j] for j in self._number_index]
            shares |= dict(zip(names, outside.mean(0).tolist(), strict=True))
        for (position, column_map), codes in zip(self._category_maps, self._codes, strict=True):
            if not column_map.truncated:
                unknown = sum(value not in codes for value in columns.values[position].tolist())
                shares[self.names[position]] = unknown / columns.n_rows
        return {name: share for name, share in shares.items() if share > 0}

    def is_compatible(self, encoder: Encoder) -> bool:
        """Return whether rows encoded by both maps mean the same: the maps differ at most in levels that only one
        has added.
        """
        return self.names == encoder.names and None not in map(merge_maps, self.maps, encoder.maps)

    def merge(self, encoder: Encoder) -> Encoder:
        """Return the map that has the longer table of levels of each column.

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
        merged_maps = list(map(merge_maps, self.maps, encoder.maps))
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
        if value["format"] != FORMAT:
            raise ValueError(
                f"encoder.format must be {FORMAT}; got {value['format']!r}: written by another version"
            )
        columns, named = value["columns"], value["named"]
        if not isinstance(named, bool) or not isinstance(columns, list) or not columns:
            raise ValueError("encoder.named must be a bool and encoder.columns a list of at least one column")
        names, maps = [], []
        for position, column in enumerate(columns):
            where = f"encoder.columns[{position}]"
            fields = dict(column) if isinstance(column, dict) else {}
            names.append(name := fields.pop("name", None))
            kind = fields.pop("kind", None)
            if not isinstance(name, str) or names.count(name) > 1:
                raise ValueError(f"{where}.name must be a unique name; got {name!r}")
            if not isinstance(kind, str) or kind not in _MAP_TYPES:
                raise ValueError(f"{where}.kind must be one of {', '.join(_MAP_TYPES)}; got {kind!r}")
            maps.append(from_json(_MAP_TYPES[kind], fields, where))
        return cls(tuple(names), tuple(maps), named)

    def _matrix(self, columns: Columns) -> np.ndarray:
        """Return the numbers of aligned columns as `[rows, p]`."""
        if columns.matrix is not None:
            return columns.matrix
        return np.stack([columns.values[j] for j in self._number_index], axis=1)

    def _write_numbers(self, out: np.ndarray, raw: np.ndarray) -> None:
        """Write numbers `[rows, p]`, standardised, and their flags into `out [rows, width]`, in chunks that fit the
        cache.
        """
        width = raw.shape[1]
        stride = 1 + _CHUNK_SIZE // width
        for first in range(0, len(raw), stride):
            rows = slice(first, first + stride)
            missing = np.isnan(raw[rows])
            z = self._standard(raw[rows])
            if missing.any():
                z[missing] = 0.0
                out[rows, width : width + len(self._flag_index)] = missing[:, self._flag_index]
            out[rows, :width] = z

    def _standard(self, raw: np.ndarray, position: int | slice = slice(None)) -> np.ndarray:
        """Return numbers `[rows, p]` (or of one column `[rows]`) standardised, with soft tails; NaN stays."""
        unit, mean, std = self._scales[position].T[:3]
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
