"""The map from a column of numbers to a standardised one, robust, and extended when a constant column varies.

Source: Pedregosa et al. 2011 (standardisation); Hyndman, Fan 1996, definition 1 (inverted cdf); Tukey 1962
(winsorised moments).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

QUANTILES = 15
"""Inner quantiles of a column of numbers, at equally spaced levels."""

FAR = 1e4
"""A number further from the centre, in units of the scale, is no measurement: it counts as missing."""

FENCE = 8.0
"""Numbers further from the median, in deviations as the quantiles show them, count as if they stood there."""

TAILS = ((0.25, 0.6745), (0.1, 1.2816), (0.05, 1.6449), (0.01, 2.3263), (0.002, 2.8782))
"""Quantiles that may show a deviation: the level of a pair, and the normal quantile there."""

JUMP = 1000.0
"""A pair of quantiles further out shows the deviation if it is larger, up to so many times: rare numbers count."""

APART, NINES_APART = 30.0, 3.0
"""A number that occurs more than once is a code for missing if it stands apart from all others by this many times
their range; by fewer if it is all nines, as -9999 is."""

FOREIGN = 100.0
"""A constant so many scales away from the numbers that follow it stood for missing, as 0 does before years."""

CHECKPOINTS = (4, 16, 64, 256)
"""Numbers since a constant column began to vary, after which its scale is looked at again; the last is for good."""

FITTED, YOUNG, GROWN = STAGES = ("fitted", "young", "grown")
"""How the map of a column of numbers came about."""

_TIE_TOLERANCE = 1e-12  # sums of weights are compared up to rounding
_ROUNDING = 1e-15  # a spread below this share of the largest number is rounding
_LARGEST = 1e300


@dataclass(frozen=True)
class Number:
    """The map of a column of numbers, in the column's own units: `z = (x - centre) / scale`.

    One wild number moves neither centre nor scale: they are a winsorised mean and deviation. The numbers beyond
    `FENCE` deviations from the median, which quartiles show, are moved there first.

    A column that was empty or constant has no scale yet. It gets one when it first varies (see `advance`).

    Fields:
        `centre`: the mean of the present rows.
        `scale`: their standard deviation. It is 1 for a constant column.
        `low`: the smallest number.
        `high`: the largest number. Numbers beyond `FAR` do not count in either.
        `has_missing`: whether a value was missing. Then the encoded row has a flag.
        `quantiles`: distinct rising quantiles, at most `QUANTILES`; none of a column without numbers.
        `codes`: numbers that stand for missing, such as -9999.
        `stage`: "fitted"; of a column that was empty or constant "young", or "grown" once its scale is for good.
        `recent`: of a young column the numbers since it began to vary, sorted: no row can be put together of them.

    Raises:
        ValueError: numbers that are not finite, a scale that is not positive, low above high, or quantiles that do
        not rise from low to high.

    Example:
        >>> import numpy as np
        >>> from gradatim.preprocessing import Number
        >>> column = Number.fit(np.array([1.0, 3.0, np.nan]), np.ones(3))
        >>> column.centre, column.scale, column.low, column.high, column.has_missing
        (2.0, 1.0, 1.0, 3.0, True)
        >>> Number.fit(np.array([1.0, 2.0, 2.0, 3.0, -9999.0, -9999.0]), np.ones(6)).codes
        (-9999.0,)
    """

    centre: float
    scale: float
    low: float
    high: float
    has_missing: bool
    quantiles: tuple[float, ...]
    codes: tuple[float, ...] = ()
    stage: str = FITTED
    recent: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not all(
            map(math.isfinite, (self.centre, self.scale, self.low, self.high, *self.codes, *self.recent))
        ):
            raise ValueError(f"centre, scale, low, high, codes and recent must be finite; got {self}")
        if not self.scale > 0:
            raise ValueError(f"scale must be positive; got {self.scale}")
        if self.low > self.high:
            raise ValueError(f"low must not be above high; got {self.low} and {self.high}")
        rising = all(a < b for a, b in zip(self.quantiles, self.quantiles[1:], strict=False))
        if not rising or any(not self.low <= q <= self.high for q in self.quantiles):
            raise ValueError(f"quantiles must rise from low to high; got {self.quantiles}")
        if self.stage not in STAGES:
            raise ValueError(f"stage must be one of {', '.join(STAGES)}; got {self.stage!r}")
        if len(self.recent) >= CHECKPOINTS[-1] or (self.stage != YOUNG and self.recent):
            raise ValueError(f"recent must hold fewer than {CHECKPOINTS[-1]} numbers, of a young column")

    @classmethod
    def fit(cls, values: np.ndarray, weight: np.ndarray, codes: bool = True) -> Number:
        """Return the map of a column `[rows]`, NaN for missing, with positive weights `[rows]`.

        A weight of 3 gives bit for bit the result of three equal rows, and the order of the rows does not matter:
        equal numbers are counted first, then summed in rising order. The numbers are scaled by a power of two
        before they are summed. That is exact, and no sum overflows. `codes`: whether to look for codes of missing.

        Source: Hyndman, Fan 1996, definition 1 (quantiles); Tukey 1962 (winsorised moments).
        """
        present = ~np.isnan(values)
        has_missing = not present.all()
        if not present.any():
            return cls(0.0, 1.0, 0.0, 0.0, bool(has_missing), (), stage=YOUNG)
        distinct, weights = _weight_by_value(values[present], weight[present])
        missing_codes: tuple[float, ...] = ()
        if codes:
            missing_codes, apart = _codes_of(distinct, weights)
            distinct, weights = distinct[~apart], weights[~apart]
            has_missing = bool(has_missing or apart.any())
        centre, scale = _winsorised(distinct, weights)
        near = np.abs(distinct / FAR - centre / FAR) <= scale
        inside = distinct[near] if near.any() else distinct
        low, high = float(inside[0]), float(inside[-1])
        levels = np.arange(1, QUANTILES + 1) / (QUANTILES + 1)
        quantiles = np.unique(_quantiles(distinct, weights, levels).clip(low, high))
        return cls(
            centre,
            scale,
            low,
            high,
            bool(has_missing),
            tuple(quantiles.tolist()),
            missing_codes,
            stage=FITTED if distinct[0] < distinct[-1] else YOUNG,
        )

    def advance(self, values: np.ndarray, at_once: bool = False) -> tuple[int, Number, Number]:
        """Return what more rows `[rows]` make of a column that was empty or constant.

        - A column that was empty takes its first number as centre. It is constant then.
        - A constant column begins to vary with its first other number. At the first of the `CHECKPOINTS` it gets a
          scale, or at the second if further numbers are one; until then z is 0. A constant far from all further
          numbers becomes a code for missing: its z stays 0.
        - At the other checkpoints the scale is looked at again.

        Args:
            values: NaN where missing.
            at_once: whether the first other number decides a scale, and the constant is never missing. So it is for y.

        Returns:
            n: how many rows come before a change of scale, or all.
            now: the map of these n rows.
            then: the map of the rows from n on.

        Example:
            >>> import numpy as np
            >>> from gradatim.preprocessing import Number
            >>> constant = Number.fit(np.full(9, 5.0), np.ones(9))
            >>> n, now, then = constant.advance(np.array([5.0, 7.0, 5.0, 6.0, 7.0, 7.0]))
            >>> n, now.scale, then.centre, round(then.scale, 2)
            (5, 1.0, 5.0, 1.5)
        """
        if self.stage != YOUNG:
            return len(values), self, self
        index = np.flatnonzero(~(np.isnan(values) | np.isin(values, self.codes)))
        present, column, start = values[index], self, 0
        if not self.quantiles and len(present):
            first = float(present[0])
            column = replace(self, centre=first, low=first, high=first, quantiles=(first,))
        if not column.recent:
            differing = np.flatnonzero(present != column.centre)
            if not len(differing):
                return len(values), column, column
            start = int(differing[0])
            if at_once:
                distance = abs(float(present[start]) / 2 - column.centre / 2) * 2
                column = column._reaching(present[start : start + 1], min(max(distance, 5e-324), _LARGEST))
        n_recent = len(column.recent)
        room = next(point for point in CHECKPOINTS if point > n_recent) - n_recent
        recent = tuple(sorted((*column.recent, *present[start : start + room].tolist())))
        if len(present) - start < room:
            return len(values), column, replace(column, recent=recent)
        return int(index[start + room - 1]) + 1, column, column._rescaled(np.array(recent))

    def _reaching(self, values: np.ndarray, scale: float) -> Number:
        """Return the map with another scale, and a range that holds further values."""
        low, high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        return replace(self, scale=scale, low=low, high=high)

    def _rescaled(self, recent: np.ndarray) -> Number:
        """Return the map with the scale that recent numbers show around the centre, where it differs much."""
        fitted = Number.fit(recent, np.ones(len(recent)), codes=False)
        apart = abs(fitted.centre / 2 - self.centre / 2) * 2
        if self.low == self.high and fitted.low == fitted.high and len(recent) == CHECKPOINTS[0]:
            return replace(self, recent=tuple(recent.tolist()))  # one further number: is it the last?
        if self.low == self.high and fitted.low < fitted.high and apart / FOREIGN > fitted.scale:
            far = {"codes": (*self.codes, self.centre), "low": fitted.low, "high": fitted.high}
            column = replace(
                self, centre=fitted.centre, scale=fitted.scale, quantiles=fitted.quantiles, **far
            )
        else:
            scale = min(math.hypot(fitted.scale * (fitted.low < fitted.high), apart), _LARGEST)
            if not scale > 0 or (self.low < self.high and 2 / 3 < scale / self.scale < 1.5):
                scale = self.scale
            column = self._reaching(np.array([fitted.low, fitted.high]), scale)
        if len(recent) >= CHECKPOINTS[-1]:
            return replace(column, stage=GROWN, recent=())
        return replace(column, recent=tuple(recent.tolist()))

    def moved(self, shift: float, factor: float) -> Number:
        """Return the map of the same numbers in another unit: what reads as z here reads as (z - shift) / factor there.

        Raises:
            ValueError: the scale is beyond the range of numbers, or nothing beside the centre.

        Example:
            >>> import numpy as np
            >>> from gradatim.preprocessing import Number
            >>> column = Number.fit(np.array([1.0, 3.0]), np.ones(2)).moved(1998.0, 1000.0)
            >>> column.centre, column.scale, column.quantiles
            (2000.0, 1000.0, (1000.0, 3000.0))
        """
        centre, scale = self.centre + shift * self.scale, self.scale * factor
        if not 1e-300 < scale < _LARGEST or scale < 1e-12 * abs(centre):
            raise ValueError(
                f"scale must be between 1e-300 and 1e300, and seen beside the centre; got {scale}"
            )
        low, high, *quantiles = (
            centre + factor * (number - self.centre) for number in (self.low, self.high, *self.quantiles)
        )
        inner = np.unique(np.clip(quantiles, low, high)).tolist()
        return replace(self, centre=centre, scale=scale, low=low, high=high, quantiles=tuple(inner))

    def merge(self, column: Number) -> Number | None:
        """Return the map that serves the rows of both columns, this one's scale if it has any; None if they differ.

        Maps may differ in what they have learnt since both were empty or constant.
        """
        if self == column:
            return self
        if FITTED in (self.stage, column.stage) or self.has_missing != column.has_missing:
            return None
        further = (column.low < column.high, bool(column.quantiles), len(column.recent))
        return column if further > (self.low < self.high, bool(self.quantiles), len(self.recent)) else self


def inverse_unit(*numbers: float) -> float:
    """Return the power of two that scales the largest of the numbers to about 1; at most 2^1000, at least 2^-1000.

    Example:
        >>> from gradatim.preprocessing.number import inverse_unit
        >>> inverse_unit(-5.0, 3.0)
        0.125
    """
    exponent = math.frexp(max(map(abs, numbers)))[1]
    return math.ldexp(1.0, -min(max(exponent, -1000), 1000))


def _quantiles(distinct: np.ndarray, weights: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Return the numbers `[k]` at cumulated shares of the weight, by the inverted cumulative distribution."""
    cumulative = np.cumsum(weights)
    return distinct[np.searchsorted(cumulative, levels * cumulative[-1] * (1 - _TIE_TOLERANCE))]


def _winsorised(distinct: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Return centre and scale of rising numbers `[k]` with weights `[k]`; of a constant the scale is 1."""
    inner = slice(1, -1) if len(distinct) > 4 else slice(None)  # one wild number shows nothing
    levels = np.array([0.5, *(share for tail, _ in TAILS for share in (tail, 1 - tail))])
    median, *ends = _quantiles(distinct[inner], weights[inner], levels).tolist()
    typical = math.inf
    for lower, upper, (_, normal) in zip(ends[::2], ends[1::2], TAILS, strict=True):
        deviation = (upper / 2 - lower / 2) / normal  # halves: no difference overflows
        # rounding is a share of the two alone, however far another number is
        varies = deviation > _ROUNDING * max(-lower, upper)
        if varies and (typical == math.inf or typical < deviation <= JUMP * typical):
            typical = deviation
    with np.errstate(over="ignore"):
        winsorised = distinct.clip(median - FENCE * typical, median + FENCE * typical)
    low, high = float(winsorised[0]), float(winsorised[-1])
    unit = inverse_unit(low, high)
    winsorised, rounding = winsorised * unit, _ROUNDING * max(-low, high) * unit
    total = weights.sum()
    centre = min(max(float((winsorised * weights).sum() / total), low * unit), high * unit)
    deviation = math.sqrt(float(((winsorised - centre) ** 2 * weights).sum() / total))
    return centre / unit, max(deviation / unit, 5e-324) if deviation > rounding else 1.0


def _codes_of(distinct: np.ndarray, weights: np.ndarray) -> tuple[tuple[float, ...], np.ndarray]:
    """Return the codes of missing among rising numbers `[k]`, and where they stand, bool `[k]`.

    The lowest and the highest may be one, or both: if each occurs more than once, and there are three others at least.
    """
    apart = np.zeros(len(distinct), dtype=bool)
    for places in ((0, -1), (0,), (-1,)):
        index = np.flatnonzero(~apart)
        others = np.delete(index, places)
        if len(others) < 3:
            continue
        low, high = distinct[others[0]] / 8, distinct[others[-1]] / 8
        far = [place for place in index[list(places)] if weights[place] > 1.5 * weights.min()]
        gaps = [max(low - distinct[place] / 8, distinct[place] / 8 - high) for place in far]
        enough = [NINES_APART if _is_nines(float(distinct[place])) else APART for place in far]
        ranges = [gap / times > high - low for gap, times in zip(gaps, enough, strict=True)]
        if len(far) == len(places) and all(ranges):
            apart[far] = True
    return tuple(distinct[apart].tolist()), apart


def _is_nines(number: float) -> bool:
    """Return whether a number is written with nines alone, two at least, whatever its sign and fraction of nines."""
    digits = format(abs(number), ".15g").replace(".", "")
    return len(digits) > 1 and set(digits) == {"9"}


def _weight_by_value(values: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct numbers `[k]` of a column `[rows]` in rising order, and the total weight of each `[k]`."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    return ordered[starts], np.add.reduceat(weight[order], starts)
