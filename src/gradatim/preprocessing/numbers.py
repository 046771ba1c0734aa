"""All columns of numbers of a table together, standardised: soft tails, flags for missing numbers, thresholds.

Source: Pedregosa et al. 2011 (standardisation).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .number import FAR, QUANTILES, YOUNG, Number, inverse_unit

SOFT = 6.0
"""Standardised numbers beyond this grow like their logarithm."""

_CHUNK_SIZE = 32_768  # numbers at a time


@dataclass(frozen=True)
class Numbers:
    """The maps of the p columns of numbers of a table.

    Example:
        >>> import numpy as np
        >>> from gradatim.preprocessing import Number
        >>> from gradatim.preprocessing.numbers import Numbers
        >>> numbers = Numbers((Number.fit(np.array([1.0, 3.0, np.nan]), np.ones(3)),))
        >>> out = np.zeros((2, 2))
        >>> numbers.write(out, np.array([[5.0], [np.nan]]))
        >>> out
        array([[3., 0.],
               [0., 1.]])
    """

    maps: tuple[Number, ...]

    @cached_property
    def flags(self) -> np.ndarray:
        """Return the places `[f]` of the columns that have a flag for missing numbers."""
        return np.flatnonzero(np.array([column.has_missing for column in self.maps], dtype=bool))

    @cached_property
    def _scales(self) -> np.ndarray:
        """For each column `[p, 5]`: 1 / unit, then centre, scale, low and high in that unit."""
        units = [inverse_unit(column.low, column.high) for column in self.maps]
        rows = [(1.0, t.centre, t.scale, t.low, t.high) for t in self.maps]
        return np.array(rows).reshape(-1, 5) * np.array(units)[:, None]

    @cached_property
    def _coded(self) -> list[tuple[int, tuple[float, ...]]]:
        """The places of the columns that have codes for missing, and the codes."""
        return [(at, column.codes) for at, column in enumerate(self.maps) if column.codes]

    @cached_property
    def _empty(self) -> list[int]:
        """The places of the columns in which no number was seen."""
        return [at for at, column in enumerate(self.maps) if not column.quantiles]

    @cached_property
    def _constant(self) -> list[int]:
        """The places of the columns that have not varied."""
        return [at for at, column in enumerate(self.maps) if column.quantiles and column.low == column.high]

    def known(self, matrix: np.ndarray) -> np.ndarray:
        """Return numbers `[rows, p]`, NaN where they count as missing; those of a column that has not varied alike."""
        if not (self._coded or self._empty or self._constant):
            return matrix
        matrix = matrix.copy()  # a user's array may be read-only
        for at, codes in self._coded:
            matrix[np.isin(matrix[:, at], codes), at] = np.nan
        matrix[:, self._empty] = np.nan  # nothing is known of such numbers
        for at in self._constant:
            matrix[~np.isnan(matrix[:, at]), at] = self.maps[at].centre
        return matrix

    def write(self, out: np.ndarray, raw: np.ndarray) -> None:
        """Write numbers `[rows, p]`, standardised, and their flags into `out [rows, width]`, in chunks that fit the
        cache.
        """
        width = raw.shape[1]
        stride = 1 + _CHUNK_SIZE // width
        for first in range(0, len(raw), stride):
            rows = slice(first, first + stride)
            z = self.standard(raw[rows])
            missing = np.isnan(z)
            if missing.any():
                z[missing] = 0.0
                out[rows, width : width + len(self.flags)] = missing[:, self.flags]
            out[rows, :width] = z

    def outside(self, raw: np.ndarray) -> np.ndarray:
        """Return where numbers `[rows, p]` lie beyond the fitted range widened by its width on each side, bool.

        Columns whose scale is not settled are nowhere outside.
        """
        unit, _, _, low, high = self._scales.T
        with np.errstate(over="ignore"):
            scaled = raw * unit
        outside = (scaled < 2 * low - high) | (scaled > 2 * high - low)
        outside[:, [column.stage == YOUNG for column in self.maps]] = False
        return outside

    def thresholds(self, budget: int) -> tuple[np.ndarray, np.ndarray]:
        """Return at most `budget` places of columns `[m]` and thresholds of z `[m]`.

        They are as `Encoder.threshold_features` says.
        """
        usable = []
        for position, column in enumerate(self.maps):
            z = self.standard(np.array([*column.quantiles, column.high]), position)
            usable.append(np.unique(z[z < z[-1]]))
        sizes = range(QUANTILES, 0, -1)
        n_cuts = next((k for k in sizes if sum(min(len(cuts), k) for cuts in usable) <= budget), 1)
        chosen = [_thin(cuts, n_cuts) for cuts in usable]
        columns = np.repeat(np.arange(len(chosen)), [len(cuts) for cuts in chosen])
        return columns[:budget], np.concatenate([np.empty(0), *chosen])[:budget]

    def standard(self, raw: np.ndarray, position: int | slice = slice(None)) -> np.ndarray:
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


def _thin(cuts: np.ndarray, n_cuts: int) -> np.ndarray:
    """Return at most `n_cuts` of the cuts `[k]`, equally spaced."""
    if len(cuts) <= n_cuts:
        return cuts
    return cuts[np.round((len(cuts) + 1) * np.arange(1, n_cuts + 1) / (n_cuts + 1)).astype(np.int64) - 1]
