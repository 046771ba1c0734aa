"""The map from one column to numbers: a scale and quantiles, or a table of levels. Both are fitted once, to
weighted rows.

Source: Pedregosa et al. 2011 (standardisation, one-hot codes); Hyndman, Fan 1996, definition 1 (inverted cdf).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np

MAX_LEVELS, SPARE_LEVELS = 32, 4
"""Levels of a column that get a code of their own, and free codes for levels that appear later."""

MAX_CODES = 512
"""One-hot codes of all columns together; with more, each column of categories gets fewer levels, but at least one."""

QUANTILES = 15
"""Inner quantiles of a column of numbers, at equally spaced levels."""

_TIE_TOLERANCE = 1e-12  # sums of weights are compared up to rounding
_ROUNDING = 1e-15  # a spread below this share of the largest number is rounding


@dataclass(frozen=True)
class Number:
    """The map of a column of numbers, in the column's own units.

    Fields:
        `mean`: the weighted mean of the present rows.
        `std`: their standard deviation. It is 1 for a constant column.
        `low`: the smallest fitted value.
        `high`: the largest fitted value.
        `has_missing`: whether a value was missing. Then the encoded row has a flag.
        `quantiles`: distinct rising quantiles, at most `QUANTILES`.

    Raises:
        ValueError: numbers that are not finite, a std that is not positive, low above high, or quantiles that do
        not rise from low to high.

    Example:
        >>> import numpy as np
        >>> from gradatim.preprocessing import Number
        >>> Number.fit(np.array([1.0, 3.0, np.nan]), np.ones(3))
        Number(mean=2.0, std=1.0, low=1.0, high=3.0, has_missing=True, quantiles=(1.0, 3.0))
    """

    mean: float
    std: float
    low: float
    high: float
    has_missing: bool
    quantiles: tuple[float, ...]

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.mean, self.std, self.low, self.high))):
            raise ValueError(f"mean, std, low and high must be finite; got {self}")
        if not self.std > 0:
            raise ValueError(f"std must be positive; got {self.std}")
        if self.low > self.high:
            raise ValueError(f"low must not be above high; got {self.low} and {self.high}")
        rising = all(a < b for a, b in zip(self.quantiles, self.quantiles[1:], strict=False))
        if not rising or any(not self.low <= q <= self.high for q in self.quantiles):
            raise ValueError(f"quantiles must rise from low to high; got {self.quantiles}")

    @classmethod
    def fit(cls, values: np.ndarray, weight: np.ndarray) -> Number:
        """Return the map of a column `[rows]`, NaN for missing, with positive weights `[rows]`.

        A weight of 3 gives bit for bit the result of three equal rows, and the order of the rows does not matter:
        equal numbers are counted first, then summed in rising order. The numbers are scaled by a power of two
        before they are summed. That is exact, and no sum overflows.

        Source: Hyndman, Fan 1996, definition 1 (quantiles).
        """
        present = ~np.isnan(values)
        has_missing = not present.all()
        if not present.any():
            return cls(0.0, 1.0, 0.0, 0.0, has_missing, ())
        distinct, weights = _weight_by_value(values[present], weight[present])
        low, high = float(distinct[0]), float(distinct[-1])
        unit = inverse_unit(low, high)
        scaled, total_weight = distinct * unit, weights.sum()
        mean = min(max(float((scaled * weights).sum() / total_weight), low * unit), high * unit)
        deviation = math.sqrt(float(((scaled - mean) ** 2 * weights).sum() / total_weight))
        std = deviation / unit if deviation > _ROUNDING * max(-low, high) * unit else 1.0
        levels = np.arange(1, QUANTILES + 1) / (QUANTILES + 1)
        cumulative = np.cumsum(weights)
        index = np.unique(np.searchsorted(cumulative, levels * cumulative[-1] * (1 - _TIE_TOLERANCE)))
        return cls(mean / unit, std, low, high, has_missing, tuple(distinct[index].tolist()))


@dataclass(frozen=True)
class Category:
    """The map of a column of categories: a table of levels, with one code each.

    Fields:
        `levels`: the sorted levels of the fitted rows, then those that were added later.
        `slots`: the number of codes for levels.
        `has_other`: whether all further levels share one more code.
        `has_missing`: whether a value was missing. Then missing has a code.
        `truncated`: whether the fitted rows had more levels than codes.

    Raises:
        ValueError: a level occurs twice, or there are fewer slots than levels.

    Example:
        >>> from gradatim.preprocessing import Category
        >>> colour = Category(("blue", "red"), slots=6, has_other=True, has_missing=False, truncated=False)
        >>> colour.width, colour.codes()
        (7, {'blue': 0, 'red': 1})
    """

    levels: tuple[str, ...]
    slots: int
    has_other: bool
    has_missing: bool
    truncated: bool

    def __post_init__(self) -> None:
        if len(set(self.levels)) < len(self.levels):
            raise ValueError(f"levels must differ; got {self.levels}")
        if self.slots < len(self.levels):
            raise ValueError(f"slots must hold the {len(self.levels)} levels; got {self.slots}")

    @classmethod
    def from_tally(cls, tally: Tally, max_slots: int) -> Category:
        """Return the map of a counted column with at most `max_slots` slots; with 0, one code for the first level
        alone.
        """
        if max_slots == 0:
            truncated = tally.distinct > 1 or tally.has_missing
            return cls(tuple(tally.top[:1]), 1, has_other=False, has_missing=False, truncated=truncated)
        levels = tally.top[: max_slots - min(SPARE_LEVELS, max_slots // 8)]
        slots = min(tally.distinct + SPARE_LEVELS, max_slots)
        return cls(tuple(sorted(levels)), slots, True, tally.has_missing, tally.distinct > len(levels))

    @property
    def width(self) -> int:
        """Return the number of codes."""
        return self.slots + self.has_other + self.has_missing

    @property
    def other_code(self) -> int:
        """Return the code that all further levels share, or -1 if they have none."""
        return self.slots if self.has_other else -1

    def codes(self) -> dict[str | None, int]:
        """Return the code of each level, and of None if missing has one."""
        codes: dict[str | None, int] = {level: code for code, level in enumerate(self.levels)}
        return codes | {None: self.slots + self.has_other} if self.has_missing else codes

    def extend(self, values: np.ndarray) -> Category:
        """Return the map with the new levels of a column `[rows]` in its free slots: most frequent first, ties by
        name.

        Example:
            >>> import numpy as np
            >>> from gradatim.preprocessing import Category
            >>> colour = Category(("red",), slots=2, has_other=True, has_missing=False, truncated=False)
            >>> colour.extend(np.array(["blue", "green", "green", None], dtype=object)).levels
            ('red', 'green')
        """
        n_free = self.slots - len(self.levels)
        if not n_free or not (new := set(values.tolist()) - {None, *self.levels}):
            return self
        is_new = np.fromiter((value in new for value in values.tolist()), bool, len(values))
        top = Tally.from_column(values[is_new], np.ones(is_new.sum())).top
        return replace(self, levels=self.levels + tuple(top[:n_free]))

    def merge(self, category: Category) -> Category | None:
        """Return the map with more levels if its levels begin with those of the other map; None if the maps differ
        otherwise.

        Example:
            >>> from gradatim.preprocessing import Category
            >>> levels = (("a",), ("a", "b"), ("b",))
            >>> short, long, changed = (Category(names, 4, True, False, False) for names in levels)
            >>> short.merge(long).levels, long.merge(changed)
            (('a', 'b'), None)
        """
        short, long = sorted((self, category), key=lambda item: len(item.levels))
        compatible = short.levels == long.levels[: len(short.levels)] and (
            (short.slots, short.has_other, short.has_missing, short.truncated)
            == (long.slots, long.has_other, long.has_missing, long.truncated)
        )
        return long if compatible else None


class Tally(NamedTuple):
    """The counted levels of a column.

    Fields: `top`: its `MAX_LEVELS` heaviest levels, ties by name; `distinct`: the number of levels; `has_missing`:
    whether a value is missing.

    Example:
        >>> import numpy as np
        >>> from gradatim.preprocessing.maps import Category, Tally
        >>> tally = Tally.from_column(np.array(["b", "a", "a", None], dtype=object), np.ones(4))
        >>> tally
        Tally(top=['a', 'b'], distinct=2, has_missing=True)
        >>> Category.from_tally(tally, max_slots=8).levels
        ('a', 'b')
    """

    top: list[str]
    distinct: int
    has_missing: bool

    @classmethod
    def from_column(cls, values: np.ndarray, weight: np.ndarray) -> Tally:
        """Count the levels of a column `[rows]`, None for missing, with positive weights `[rows]`.

        Shares of the weight are rounded to twelve digits, so that rounding errors break no tie.
        """
        code_of: dict[str | None, int] = {}
        codes = np.fromiter(
            (code_of.setdefault(value, len(code_of)) for value in values.tolist()), np.int64, len(values)
        )
        counts = np.bincount(codes, weight, len(code_of))
        shares = np.round(counts / counts.max(), 12)
        has_missing = None in code_of
        if has_missing:
            shares[code_of[None]] = -1.0  # below every level
        n_top = min(MAX_LEVELS, len(shares))
        lowest_share = np.partition(shares, -n_top)[-n_top]
        pairs = list(zip(code_of, shares.tolist(), strict=True))
        above = sorted(
            (-share, level) for level, share in pairs if level is not None and share > lowest_share
        )
        tied = heapq.nsmallest(
            n_top, (level for level, share in pairs if level is not None and share == lowest_share)
        )
        return cls(
            [*(level for _, level in above), *tied][:MAX_LEVELS], len(code_of) - has_missing, has_missing
        )


def slots_per_column(tallies: list[Tally]) -> int:
    """Return how many slots a column of categories may have so that all codes fit in `MAX_CODES`."""
    for n_slots in range(MAX_LEVELS + SPARE_LEVELS, 0, -1):
        if sum(Category.from_tally(tally, n_slots).width for tally in tallies) <= MAX_CODES:
            return n_slots
    return 0


def merge_maps(first: Number | Category, second: Number | Category) -> Number | Category | None:
    """Return the map that serves the rows of both columns, or None."""
    if isinstance(first, Category) and isinstance(second, Category):
        return first.merge(second)
    return first if first == second else None


def describe_difference(first: Number | Category, second: Number | Category) -> str:
    """Return how the maps of two columns differ, for an error message."""
    if isinstance(first, Number) and isinstance(second, Number):
        return f"mean {first.mean:g} and std {first.std:g} in one, {second.mean:g} and {second.std:g} in the other"
    if isinstance(first, Category) and isinstance(second, Category):
        return f"levels {first.levels} in one, {second.levels} in the other"
    return "numbers in one, categories in the other"


def inverse_unit(*numbers: float) -> float:
    """Return the power of two that scales the largest of the numbers to about 1; at most 2^1000, at least 2^-1000.

    Example:
        >>> from gradatim.preprocessing.maps import inverse_unit
        >>> inverse_unit(-5.0, 3.0)
        0.125
    """
    exponent = math.frexp(max(map(abs, numbers)))[1]
    return math.ldexp(1.0, -min(max(exponent, -1000), 1000))


ColumnMap = TypeVar("ColumnMap", Number, Category)


def to_json(column_map: Number | Category) -> dict[str, Any]:
    """Return the map of a column as plain JSON."""
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in asdict(column_map).items()
    }


def from_json(kind: type[ColumnMap], value: dict[str, Any], where: str) -> ColumnMap:
    """Return the map that `to_json` wrote. `where` says in error messages where the map stands.

    Raises:
        ValueError: a field is missing, unknown or of another type, or its value is invalid.

    Example:
        >>> from gradatim.preprocessing.maps import Category, from_json, to_json
        >>> colour = Category(("red",), slots=5, has_other=True, has_missing=False, truncated=False)
        >>> from_json(Category, to_json(colour), "colour") == colour
        True
    """
    types = {f.name: str(f.type) for f in fields(kind)}
    for name in types:
        if name not in value:
            raise ValueError(
                f"{where}.{name} is missing: the file is damaged, or an encoder did not write it"
            )
    for name, entry in value.items():
        if name not in types:
            raise ValueError(f"{where}.{name} is unknown: {kind.__name__} has {', '.join(types)}")
        if not _CHECKS[types[name]](entry):
            raise ValueError(f"{where}.{name} must be {types[name]}; got {entry!r:.80}")
    try:
        return kind(**{name: _PARSERS[types[name]](entry) for name, entry in value.items()})
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{where}: {error}") from None


def _is_float(entry: Any) -> bool:
    return isinstance(entry, float | int) and not isinstance(entry, bool)


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "bool": lambda entry: isinstance(entry, bool),
    "int": lambda entry: isinstance(entry, int) and not isinstance(entry, bool),
    "float": _is_float,
    "tuple[float, ...]": lambda entry: isinstance(entry, list) and all(map(_is_float, entry)),
    "tuple[str, ...]": lambda entry: isinstance(entry, list) and all(isinstance(p, str) for p in entry),
}
_PARSERS: dict[str, Callable[[Any], Any]] = {
    "bool": bool,
    "int": int,
    "float": float,
    "tuple[float, ...]": lambda entry: tuple(map(float, entry)),
    "tuple[str, ...]": tuple,
}


def _weight_by_value(values: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct numbers `[k]` of a column `[rows]` in rising order, and the total weight of each `[k]`."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    return ordered[starts], np.add.reduceat(weight[order], starts)
