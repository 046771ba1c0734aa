"""How one column becomes numbers: a scale and thresholds, or a table of levels; decided once, from weighted rows.

Source: Pedregosa et al. 2011 (standardisation, one-hot codes); Hyndman, Fan 1996, definition 1 (inverted cdf).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np

LEVELS, SPARE = 32, 4
"""Categories of a column that get a code of their own, and codes kept free for those that come later."""

QUANTILES = 15
"""Inner quantiles that are kept of a column of numbers, at equally spaced levels."""

_SAME = 1e-12  # sums of weights are compared up to rounding
_FLAT = 1e-15  # a spread below this share of the largest number is rounding


@dataclass(frozen=True)
class Number:
    """The map of a column of numbers, in the column's own units.

    `mean`, `std`: over present rows, weighted; the std of a constant column is 1. `low`, `high`: the range seen.
    `missing`: whether a value was missing, then the column has a flag. `quantiles`: distinct, rising, at most
    `QUANTILES`.

    Raises:
        ValueError: numbers that are not finite, std not positive, low above high, quantiles that do not rise from low
            to high.

    Example:
        >>> Number.gather(np.array([1.0, 3.0, np.nan]), np.ones(3)).mean
        2.0
    """

    mean: float
    std: float
    low: float
    high: float
    missing: bool
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
    def gather(cls, values: np.ndarray, weight: np.ndarray) -> Number:
        """Return the map of a column `[rows]`, NaN for missing, with positive weights `[rows]`.

        Equal numbers are counted first and summed in rising order: a weight of 3 gives bit for bit what three rows
        give, and the order of the rows does not matter. Sums are of numbers scaled by a power of two, which is exact,
        so that none overflows.
        """
        there = ~np.isnan(values)
        missing = not there.all()
        if not there.any():
            return cls(0.0, 1.0, 0.0, 0.0, missing, ())
        seen, counts = _totals(values[there], weight[there])
        low, high = float(seen[0]), float(seen[-1])
        unit = inverse_unit(low, high)
        scaled, total = seen * unit, counts.sum()
        mean = min(max(float((scaled * counts).sum() / total), low * unit), high * unit)
        spread = math.sqrt(float(((scaled - mean) ** 2 * counts).sum() / total))
        std = spread / unit if spread > _FLAT * max(-low, high) * unit else 1.0
        levels = np.arange(1, QUANTILES + 1) / (QUANTILES + 1)
        cumulative = np.cumsum(counts)
        places = np.unique(np.searchsorted(cumulative, levels * cumulative[-1] * (1 - _SAME)))
        return cls(mean / unit, std, low, high, missing, tuple(seen[places].tolist()))


@dataclass(frozen=True)
class Category:
    """The map of a column of categories: a table of levels, one code each.

    `levels`: those of the first rows, sorted, then those taken in later. `slots`: room for levels. `other`: whether all
    other levels share one more code. `missing`: whether a value was missing, then missing has a code of its own.
    `crowded`: whether even the first rows had levels without a code of their own.

    Raises:
        ValueError: a level that stands twice, or fewer slots than levels.

    Example:
        >>> Category(("blue", "red"), slots=6, other=True, missing=False, crowded=False).width
        7
    """

    levels: tuple[str, ...]
    slots: int
    other: bool
    missing: bool
    crowded: bool

    def __post_init__(self) -> None:
        if len(set(self.levels)) < len(self.levels):
            raise ValueError(f"levels must differ; got {self.levels}")
        if self.slots < len(self.levels):
            raise ValueError(f"slots must hold the {len(self.levels)} levels; got {self.slots}")

    @classmethod
    def of(cls, tally: Tally, most: int) -> Category:
        """Return the map of a counted column in at most `most` slots; with 0, one code for the first level alone."""
        if most == 0:
            rest = tally.distinct > 1 or tally.missing
            return cls(tuple(tally.top[:1]), 1, other=False, missing=False, crowded=rest)
        levels = tally.top[: most - min(SPARE, most // 8)]
        slots = min(tally.distinct + SPARE, most)
        return cls(tuple(sorted(levels)), slots, True, tally.missing, tally.distinct > len(levels))

    @property
    def width(self) -> int:
        """Return how many codes there are."""
        return self.slots + self.other + self.missing

    @property
    def rest(self) -> int:
        """Return the code that all other levels share; -1, no code, where there is none."""
        return self.slots if self.other else -1

    def codes(self) -> dict[str | None, int]:
        """Return the code of each level, and of None where missing has one."""
        known: dict[str | None, int] = {level: code for code, level in enumerate(self.levels)}
        return known | {None: self.slots + self.other} if self.missing else known

    def extended(self, values: np.ndarray) -> Category:
        """Return the map with new levels of a column in its free slots: most frequent first, ties by name."""
        room = self.slots - len(self.levels)
        if not room or not (new := set(values.tolist()) - {None, *self.levels}):
            return self
        fresh = np.fromiter((value in new for value in values.tolist()), bool, len(values))
        top = Tally.of(values[fresh], np.ones(fresh.sum())).top
        return replace(self, levels=self.levels + tuple(top[:room]))

    def longer(self, other: Category) -> Category | None:
        """Return whichever has more levels where that is all they differ in; None where they differ otherwise."""
        short, long = sorted((self, other), key=lambda table: len(table.levels))
        alike = short.levels == long.levels[: len(short.levels)] and (
            (short.slots, short.other, short.missing, short.crowded)
            == (long.slots, long.other, long.missing, long.crowded)
        )
        return long if alike else None


class Tally(NamedTuple):
    """A counted column: its `LEVELS` heaviest levels (ties by name), how many there are, whether any is missing."""

    top: list[str]
    distinct: int
    missing: bool

    @classmethod
    def of(cls, values: np.ndarray, weight: np.ndarray) -> Tally:
        """Count the levels of a column `[rows]`, None for missing, with positive weights `[rows]`.

        Shares are compared to twelve digits, so that rounding breaks no tie.
        """
        place: dict[str | None, int] = {}
        codes = np.fromiter((place.setdefault(v, len(place)) for v in values.tolist()), np.int64, len(values))
        counts = np.bincount(codes, weight, len(place))
        shares = np.round(counts / counts.max(), 12)
        missing = None in place
        if missing:
            shares[place[None]] = -1.0  # below every level
        most = min(LEVELS, len(shares))
        least = np.partition(shares, -most)[-most]
        pairs = list(zip(place, shares.tolist(), strict=True))
        above = sorted((-share, level) for level, share in pairs if level is not None and share > least)
        tied = heapq.nsmallest(
            most, (level for level, share in pairs if level is not None and share == least)
        )
        return cls([*(level for _, level in above), *tied][:LEVELS], len(place) - missing, missing)


def inverse_unit(*numbers: float) -> float:
    """Return the power of two that scales the largest of some numbers to about 1; at most 2^1000, at least 2^-1000.

    Example:
        >>> inverse_unit(-5.0, 3.0)
        0.125
    """
    exponent = math.frexp(max(map(abs, numbers)))[1]
    return math.ldexp(1.0, -min(max(exponent, -1000), 1000))


Table = TypeVar("Table", Number, Category)


def to_json(table: Number | Category) -> dict[str, Any]:
    """Return a map as plain JSON."""
    return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(table).items()}


def from_json(kind: type[Table], value: dict[str, Any], where: str) -> Table:
    """Return the map that `to_json` wrote.

    Raises:
        ValueError: a field missing, unknown or of another type, or values that no map has; `where` stands before it.
    """
    types = {f.name: str(f.type) for f in fields(kind)}
    for name in types:
        if name not in value:
            raise ValueError(f"{where}.{name} is missing: truncated, or not written by an encoder")
    for name, part in value.items():
        if name not in types:
            raise ValueError(f"{where}.{name} is unknown: {kind.__name__} has {', '.join(types)}")
        if not _IS[types[name]](part):
            raise ValueError(f"{where}.{name} must be {types[name]}; got {part!r:.80}")
    try:
        return kind(**{name: _MADE[types[name]](part) for name, part in value.items()})
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{where}: {error}") from None


def _is_float(part: Any) -> bool:
    return isinstance(part, float | int) and not isinstance(part, bool)


_IS: dict[str, Callable[[Any], bool]] = {
    "bool": lambda part: isinstance(part, bool),
    "int": lambda part: isinstance(part, int) and not isinstance(part, bool),
    "float": _is_float,
    "tuple[float, ...]": lambda part: isinstance(part, list) and all(map(_is_float, part)),
    "tuple[str, ...]": lambda part: isinstance(part, list) and all(isinstance(p, str) for p in part),
}
_MADE: dict[str, Callable[[Any], Any]] = {
    "bool": bool,
    "int": int,
    "float": float,
    "tuple[float, ...]": lambda part: tuple(map(float, part)),
    "tuple[str, ...]": tuple,
}


def _totals(values: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct numbers in rising order and the summed weight of each."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    return ordered[starts], np.add.reduceat(weight[order], starts)
