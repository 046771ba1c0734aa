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
from .category import MAX_CODES, MAX_LEVELS, SPARE_LEVELS, Category, Tally, shortened, slots_per_column
from .columns import CATEGORY, NUMBER, Columns, convert_column
from .maps import join_maps, merge_tables, table_from_json, table_to_json, words_begin
from .number import YOUNG, Number, inverse_unit
from .numbers import Numbers


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
            Number.fit(values, weight) if kind == NUMBER else Tally.from_column(shortened(values), weight)
            for kind, values in pairs
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
        flags = [("missing number", self._number_names[j], None) for j in self._numbers.flags]
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
    def _numbers(self) -> Numbers:
        """The columns of numbers, standardised together."""
        return Numbers(tuple(column_map for _, column_map in self._number_maps))

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
        values = columns.values
        if columns.matrix is not None and not self._category_maps:
            return columns
        if columns.kinds != self.kinds:
            values = tuple(
                convert_column(
                    column,
                    kind,
                    getattr(column_map, "levels", ()),
                    name,
                    empty=isinstance(column_map, Number) and not column_map.quantiles,
                    truncated=getattr(column_map, "truncated", False),
                )
                for column, kind, column_map, name in zip(
                    values, self.kinds, self.maps, self.names, strict=True
                )
            )
        short = tuple(
            shortened(column) if kind == CATEGORY else column
            for column, kind in zip(values, self.kinds, strict=True)
        )
        same = all(new is old for new, old in zip(short, columns.values, strict=True))
        return columns if same else Columns(columns.names, short, columns.named)

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
            self._numbers.write(out, self._matrix(columns))
            start += len(self._numbers.flags)
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
            advanced = grown[j] if count == n else self.maps[j].advance(columns.values[j][:n])  # type: ignore[union-attr]
            _, now[j], then[j] = advanced
        for j, column_map in self._category_maps:
            now[j] = then[j] = column_map.extend(columns.values[j][:n], self._max_slots if growing else 0)
        return n, self._replaced(now), self._replaced(then)

    def _replaced(self, maps: list[Number | Category]) -> Encoder:
        same = all(new is old for new, old in zip(maps, self.maps, strict=True))
        return self if same else replace(self, maps=tuple(maps))

    def awakened(self, columns: Columns) -> Encoder:
        """Return the map where a column that was empty is one of words if its first value in these rows is a word."""
        columns = columns.reorder(self.names, self.named, "the model")
        return self._replaced(words_begin(self.maps, columns.values))

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
        index |= {
            ("missing number", name, None): at for (kind, name, _), at in index.items() if kind == "missing"
        }
        place = torch.tensor([index.get(entry, -1) for entry in self.inputs], dtype=torch.int64)
        scale, shift = np.ones(self.width), np.zeros(self.width)
        flag = np.full(self.width, -1)
        flag[self._numbers.flags] = len(self._number_maps) + np.arange(len(self._numbers.flags))
        numbers = {encoder.names[j]: column_map for j, column_map in encoder._number_maps}
        for at, (j, old) in enumerate(self._number_maps):
            new = numbers.get(self.names[j], old)
            if not old.quantiles:  # of an empty column every z is 0
                continue
            if old.low < old.high:
                scale[at] = old.scale / new.scale
                shift[at] = (
                    old.centre / new.scale - new.centre / new.scale if old.centre != new.centre else 0.0
                )
            elif old.centre != new.centre and old.centre not in new.codes:  # one number: tails are no matter
                place_of = encoder._number_names.index(self.names[j])
                shift[at] = np.nan_to_num(encoder._numbers.standard(np.array([old.centre]), place_of))[0]
            elif old.has_missing and old.centre in new.codes:  # all rows seen are missing now
                scale[flag[at]], shift[flag[at]] = 0.0, 1.0
        return Change(
            place, torch.from_numpy(scale), torch.from_numpy(shift), encoder.width, torch.from_numpy(flag)
        )

    def joined(self, encoder: Encoder) -> Encoder:
        """Return a map with the scales of another and the levels of both; of a column that is empty there, this map's.

        Example:
            >>> from gradatim.preprocessing import Encoder, read_columns
            >>> first, second = (Encoder.fit(read_columns([[word]])) for word in ("red", "blue"))
            >>> first.joined(second).maps[0].levels
            ('red', 'blue')
        """
        pairs = zip(self.maps, encoder.maps, strict=True)
        return replace(self, maps=tuple(join_maps(*pair, self._max_slots) for pair in pairs))

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
        return self._numbers.thresholds(budget)

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
            outside = self._numbers.outside(self._matrix(columns))
            shares |= dict(zip(self._number_names, outside.mean(0).tolist(), strict=True))
        for (position, column_map), codes in zip(self._category_maps, self._codes, strict=True):
            if not column_map.truncated:
                unknown = sum(value not in codes for value in columns.values[position].tolist())
                shares[self.names[position]] = unknown / columns.n_rows
        return {name: share for name, share in shares.items() if share > 0}

    def merge(self, encoder: Encoder) -> Encoder:
        """Return the map of both: with the levels of both, and scales that either has settled.

        Raises:
            ValueError: the maps differ otherwise. The message names the column.
        """
        maps = merge_tables(self.names, self.maps, encoder.names, encoder.maps, self._max_slots)
        return replace(self, maps=maps)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON that `from_json` turns back into an equal map; floats are exact.

        Example:
            >>> from gradatim.preprocessing import Encoder, read_columns
            >>> encoder = Encoder.fit(read_columns([[1.0, "red"], [3.0, "blue"]]))
            >>> Encoder.from_json(encoder.to_json()) == encoder
            True
        """
        return table_to_json(self.names, self.maps, self.named)

    @classmethod
    def from_json(cls, value: Any) -> Encoder:
        """Return the map that `to_json` wrote.

        Raises:
            ValueError: another format version, or an entry that is missing or invalid. The message names it.
        """
        return cls(*table_from_json(value))

    def _matrix(self, columns: Columns) -> np.ndarray:
        """Return the numbers of aligned columns as `[rows, p]`, NaN where they count as missing."""
        matrix = columns.matrix
        if matrix is None:
            matrix = np.stack([columns.values[j] for j, _ in self._number_maps], axis=1)
        return self._numbers.known(matrix)


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
