"""What heads of groups read of a row: a constant, directions of encoded columns, slow waves of time, the pooled model.

Source: Pearson 1901 (principal directions); Wahba 1990, ch. 1 (cosines as a smooth function of time).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

WIDEST = 30
"""Directions of the encoded columns at most; wider tables use their principal ones."""

WAVES = 4
"""Cosines of each column of time."""

SORTED = 0.9
"""Share of groups in which a column never falls, from which on it is time."""

LEVEL, COLUMN, TIME, POOLED = 0, 1, 2, 3
"""Kinds of features: the constant, columns, waves of time, the pooled model's output."""


@dataclass(frozen=True)
class Features:
    """A map from encoded rows to features of heads.

    Fields: `directions [width, k]` and `centre [k]`: of columns; `time [t]`: encoded columns of time; `low`,
    `high [t]`: their range; `offset`, `scale`: of the pooled output.

    Example:
        >>> import numpy as np
        >>> from gradatim.groups.features import Features
        >>> x, group = np.random.default_rng(0).normal(size=(50, 2)), np.repeat(np.arange(5), 10)
        >>> features = Features.fit(x, group, np.zeros(50), np.ones(50))
        >>> features.of(x, np.zeros(50)).shape, features.kinds
        ((50, 4), array([0, 1, 1, 3]))
    """

    directions: np.ndarray
    centre: np.ndarray
    time: np.ndarray
    low: np.ndarray
    high: np.ndarray
    offset: float
    scale: float

    @classmethod
    def fit(cls, x: np.ndarray, group: np.ndarray, pooled: np.ndarray, weight: np.ndarray) -> Features:
        """Return the map for encoded rows x `[n, width]`, in their order; groups, pooled outputs, weights `[n]`."""
        centre = np.average(x, axis=0, weights=weight)
        spread = np.sqrt(np.average((x - centre) ** 2, axis=0, weights=weight))
        alive = np.flatnonzero(spread > 1e-6)
        if len(alive) <= WIDEST:
            directions = np.eye(x.shape[1])[:, alive]
        else:
            values, vectors = np.linalg.eigh(np.cov(x.T, aweights=weight))
            vectors = vectors[:, ::-1][:, :WIDEST]
            vectors *= np.sign(vectors[abs(vectors).argmax(0), np.arange(WIDEST)])
            directions = vectors / np.sqrt(np.maximum(values[::-1][:WIDEST], 1e-12))
        time = times(x, group)
        low, high = x[:, time].min(0, initial=np.inf), x[:, time].max(0, initial=-np.inf)
        offset, scale = moments(pooled, weight)
        return cls(directions, centre @ directions, time, low, high, offset, max(scale, 1e-6))

    @property
    def kinds(self) -> np.ndarray:
        """Return the kind of each feature, `[d]`."""
        waves = WAVES * len(self.time)
        return np.array([LEVEL] + [COLUMN] * self.directions.shape[1] + [TIME] * waves + [POOLED])

    def of(self, x: np.ndarray, pooled: np.ndarray) -> np.ndarray:
        """Return features `[n, d]` of encoded rows x `[n, width]` with pooled outputs `[n]`."""
        parts = [np.ones((len(x), 1)), x @ self.directions - self.centre]
        for at, low, high in zip(self.time, self.low, self.high, strict=True):
            place = np.clip((x[:, at] - low) / max(high - low, 1e-9), 0.0, 1.0)
            order = np.arange(1, WAVES + 1)
            parts.append(np.cos(np.pi * place[:, None] * order) / order)
        parts.append((pooled[:, None] - self.offset) / self.scale)
        return np.concatenate(parts, axis=1)


def moments(values: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Return the mean and the deviation of values `[n]` of weights `[n]`."""
    mean = float(np.average(values, weights=weight))
    return mean, float(np.sqrt(np.average((values - mean) ** 2, weights=weight)))


def times(x: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return the columns `[t]` of encoded rows that never fall within most groups, and are not constant there."""
    order = np.argsort(group, kind="stable")
    same = np.diff(group[order]) == 0
    step = np.diff(x[order], axis=0)[same]
    names = group[order][1:][same]
    if not len(names):
        return np.zeros(0, dtype=np.int64)
    first = np.unique(names, return_index=True)[1]
    long = np.diff(np.append(first, len(names))) >= 8
    if long.sum() < 2:
        return np.zeros(0, dtype=np.int64)
    rises = np.minimum.reduceat(step, first)[long] >= -1e-9
    moves = np.add.reduceat((step > 1e-9).astype(float), first)[long] >= 4
    return np.flatnonzero((rises & moves).mean(0) >= SORTED)
