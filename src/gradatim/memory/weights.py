"""How families of predictors that come and go are weighed: fixed share in two levels, and a pool of their logs.

Source: Herbster, Warmuth 1998, section 3 (fixed share); Genest, Zidek 1986, eq. 3.1 (the logarithmic pool); Duchi,
Hazan, Singer 2011, figure 1 (its step sizes).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from .copies import softmax

SHARE = 0.02
"""Of all weight, what is spread evenly after a block: a predictor that was wrong may be right again."""

RATES = (0.0005, 0.002)
"""Step sizes of the pools' weights."""

LEAST = 1e-4
"""A probability below it is taken as it."""

SMOOTH = np.array([0.02, 0.2])
"""Rates at which errors are averaged, a block."""

FREEDOM, LEAST_SQUARE = 8.0, 1e-6
"""Of the Student law that errors are taken to have; the least mean square of a predictor's errors."""

STACKED, STACK_STRENGTH = (0.9995, 0.998, 0.99), 30.0
"""Factors of the stacks, a row, and the strength of their ridge."""


@dataclass
class Shares:
    """Weights of V variants within their F families, and of the families.

    Fields: `sizes [F]`, variants of each family; `within [V]`, sums to 1 in each family; `family [F]`, sums to 1.

    Example:
        >>> import numpy as np
        >>> from gradatim.memory.weights import Shares
        >>> shares = Shares.even([1, 2])
        >>> shares.weigh(np.log([0.9, 0.5, 0.1]), np.log([0.9, 0.3]))
        >>> shares.within.round(2), shares.family.round(2)
        (array([1.  , 0.83, 0.17]), array([0.75, 0.25]))
    """

    sizes: np.ndarray
    within: np.ndarray
    family: np.ndarray

    @classmethod
    def even(cls, sizes: list[int]) -> Shares:
        """Return equal weights of families of these sizes."""
        counts = np.array(sizes)
        return cls(counts, np.repeat(1 / counts, counts), np.full(len(counts), 1 / len(counts)))

    @property
    def starts(self) -> np.ndarray:
        """Return the first variant of each family `[F]`."""
        return np.cumsum(self.sizes) - self.sizes

    def mixed(self, variants: np.ndarray) -> np.ndarray:
        """Return the mixtures `[n, F, ...]` of families of variants `[n, V, ...]`."""
        weighted = variants * self.within.reshape(-1, *[1] * (variants.ndim - 2))
        return np.add.reduceat(weighted, self.starts, axis=1)

    def weigh(self, variants: np.ndarray, families: np.ndarray) -> None:
        """Take in the log likelihoods of rows: of variants `[V]` and of families' mixtures `[F]`."""
        best = np.maximum.reduceat(variants, self.starts).repeat(self.sizes)
        weight = np.maximum(self.within * np.exp(variants - best), 1e-300)
        self.within = weight / np.add.reduceat(weight, self.starts).repeat(self.sizes)
        weight = np.maximum(self.family * np.exp(families - families.max()), 1e-300)
        self.family = weight / weight.sum()

    def averaged(self, shares: Shares, share: float) -> Shares:
        """Return the average of these weights and others, which have a share of it."""
        within = (1 - share) * self.within + share * shares.within
        return Shares(self.sizes, within, (1 - share) * self.family + share * shares.family)

    def turn(self, rows: float, block: int) -> None:
        """End a block of some rows: a share of the weight is spread evenly."""
        share = SHARE * min(1.0, rows / block)
        self.within = (1 - share) * self.within + share / self.sizes.repeat(self.sizes)
        self.family = (1 - share) * self.family + share / len(self.family)


@dataclass
class LogPool:
    """`q ~ prod_f p_f^v_f`, v learnt row by row, by several rates whose answers are averaged.

    Fields: `weight [R, F]` v; `square [R, F]`, running means of squared slopes; `seen`: how far these are full.

    Source: Genest, Zidek 1986, eq. 3.1; Duchi, Hazan, Singer 2011, figure 1.
    """

    weight: np.ndarray
    square: np.ndarray
    seen: float = 0.0

    @classmethod
    def of_first(cls, count: int) -> LogPool:
        """Return pools that answer as the first of `count` predictors."""
        weight = np.zeros((len(RATES), count))
        weight[:, 0] = 1.0
        return cls(weight, np.zeros_like(weight))

    def inputs(self, p: np.ndarray) -> np.ndarray:
        """Return what is pooled of probabilities `[n, F, C]`: their logs, centred over classes."""
        logs = np.log(p.clip(LEAST))
        return logs - logs.mean(2, keepdims=True)

    def answer(self, inputs: np.ndarray) -> np.ndarray:
        """Return probabilities `[n, C]`."""
        return softmax(self.weight @ inputs).mean(1)

    def learn(self, inputs: np.ndarray, y: np.ndarray) -> None:
        """Take a step for each row, in order: inputs `[n, F, C]`, classes `[n]`."""
        rates = np.array(RATES)[:, None]
        for z, answer in zip(inputs, y.tolist(), strict=True):
            odds = self.weight @ z
            odds = np.exp(odds - odds.max(1, keepdims=True))
            slope = z[:, answer] - (odds / odds.sum(1, keepdims=True)) @ z.T
            self.seen += 0.001 * (1 - self.seen)
            self.square = self.square + 0.001 * (slope * slope - self.square)
            self.weight = self.weight + rates * slope / np.sqrt(self.square / self.seen + 1e-4)


@dataclass
class Noise:
    """Running means of the squared errors of N predictors, by a slow and a fast rate, and the likelihoods they imply.

    Fields: `squares [2, N]`; `sums [N]` and `rows`: of this block; `blocks`: how many there were.

    Source: Brown 1956 (exponential smoothing); Student 1908.
    """

    squares: np.ndarray
    sums: np.ndarray
    rows: float = 0.0
    blocks: int = 0

    @classmethod
    def of(cls, count: int) -> Noise:
        """Return those of predictors that have predicted nothing: variances of 1."""
        return cls(np.ones((len(SMOOTH), count)), np.zeros(count))

    def log_likelihoods(self, errors: np.ndarray) -> np.ndarray:
        """Return the log densities `[n, N]` of errors `[n, N]` under Student's t, averaged over both rates."""
        spread = np.sqrt(self.squares)[:, None]
        log_densities = stats.t.logpdf(errors / spread, FREEDOM) - np.log(spread)
        return np.logaddexp(log_densities[0], log_densities[1]) - np.log(2)

    def learn(self, errors: np.ndarray, weight: np.ndarray) -> None:
        """Take in errors `[n, N]` of rows of weights `[n]`."""
        self.sums = self.sums + weight @ np.square(errors)
        self.rows += float(weight.sum())

    def turn(self) -> None:
        """End a block."""
        rates = np.maximum(SMOOTH, 1 / (self.blocks + 2))[:, None]
        now = self.sums / max(self.rows, 1e-300)
        self.squares = np.maximum(self.squares + rates * (now - self.squares), LEAST_SQUARE)
        self.sums, self.rows, self.blocks = np.zeros_like(self.sums), 0.0, self.blocks + 1


@dataclass
class Stack:
    """`mean + u' z`, u by discounted ridge regressions of what the mean leaves on what predictors say beyond it.

    Fields: `second [R, N, N]`, `cross [R, N]` and `weight [R, N]` u of several rates of discounting.

    Source: Wolpert 1992 (stacking).
    """

    second: np.ndarray
    cross: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(cls, count: int) -> Stack:
        """Return stacks that say what the mean says, of `count` predictors and a constant."""
        r, n = len(STACKED), count + 1
        return cls(np.zeros((r, n, n)), np.zeros((r, n)), np.zeros((r, n)))

    def answer(self, inputs: np.ndarray) -> np.ndarray:
        """Return what each says beyond the mean `[n, R]` at inputs `[n, N]`."""
        return inputs @ self.weight.T

    def learn(self, inputs: np.ndarray, residual: np.ndarray, weight: np.ndarray) -> None:
        """Take in what the mean left `[n]` at inputs `[n, N]`; weights `[n]` count inversely to the noise."""
        weighted = inputs.T * weight
        self.second = self.second + weighted @ inputs
        self.cross = self.cross + weighted @ residual

    def turn(self, rows: float) -> None:
        """End a block of some rows."""
        ridge = STACK_STRENGTH * np.eye(self.second.shape[1])
        self.weight = np.linalg.solve(self.second + ridge, self.cross[..., None])[..., 0]
        faded = np.array(STACKED) ** rows
        self.second, self.cross = faded[:, None, None] * self.second, faded[:, None] * self.cross
