"""The rows of a table as the peers see them: numbers standardised online, categories one-hot.

Source: Chan, Golub, LeVeque 1983 (updating means and sums of squares).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .data import levels

if TYPE_CHECKING:
    from .data import Table


class RunningScaler:
    """Standardises columns by the mean and standard deviation of the rows so far.

    Source: Chan, Golub, LeVeque 1983, equation 2.1 (merging sums of squares).
    """

    def __init__(self, width: int) -> None:
        self.count, self.mean, self.square = np.zeros(width), np.zeros(width), np.zeros(width)

    def learn(self, x: np.ndarray) -> None:
        """Update the statistics with rows `[n, width]`. NaN is ignored."""
        present = ~np.isnan(x)
        rows = present.sum(0)
        seen = np.maximum(rows, 1)
        mean = np.where(present, x, 0.0).sum(0) / seen
        square = (np.where(present, x - mean, 0.0) ** 2).sum(0)
        total = np.maximum(self.count + rows, 1)
        gap = mean - self.mean
        self.square += square + gap**2 * self.count * rows / total
        self.mean += gap * rows / total
        self.count += rows

    @property
    def spread(self) -> np.ndarray:
        """Return the standard deviation of each column `[width]`, 1 where it is constant."""
        deviation = np.sqrt(self.square / np.maximum(self.count, 1))
        return np.where(deviation < 1e-9, 1.0, deviation)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return standardised rows `[n, width]`. Missing values are 0, the mean."""
        return np.nan_to_num((x - self.mean) / self.spread)


class RowEncoder:
    """Encodes the rows of a table as numbers: standardised online, with categories one-hot. A missing category is all
    0.

    The codes are known at the start, as classes are. Standardised numbers are clipped at `clip`.
    """

    def __init__(self, table: Table, clip: float = np.inf) -> None:
        self.levels, self.clip = levels(table), clip
        self.numbers = [j for j in range(table.x.shape[1]) if j not in self.levels]
        self.scale = RunningScaler(len(self.numbers))
        self.width = len(self.numbers) + sum(len(codes) for codes in self.levels.values())

    def learn(self, x: np.ndarray) -> None:
        """Update the running statistics with rows `[n, d]`."""
        self.scale.learn(x[:, self.numbers])

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return rows `[n, d]` as numbers `[n, width]`."""
        z = self.scale(x[:, self.numbers]).clip(-self.clip, self.clip)
        return np.hstack([z, *((x[:, c, None] == codes).astype(float) for c, codes in self.levels.items())])
