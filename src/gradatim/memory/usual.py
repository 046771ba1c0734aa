"""What the numbers of columns usually are, block by block, and whether they have moved.

Source: Page 1954 (a change of level).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from .copies import BLOCK
from .moves import Moments

if TYPE_CHECKING:
    from typing import Self

START = 256
"""Rows before no column is looked at: neither its usual numbers nor what they say is known."""

SHIFT, RATIO, USUAL = 1.5, 3.0, 4.0
"""A column has moved if a block's mean is so many deviations away, or its deviation so many times as large or small;
and if that is so many times what it usually is from block to block."""

DEPENDENT = 16.0
"""Where rows depend on those before, so that blocks' means usually differ, a mean must be so many times as far away as
they usually are, squared."""

RATE, FASTER = 0.03, 1.05
"""Of the running means of what is usual, a block; by how much it grows where a column moves."""

SPREAD = 3.0
"""A deviation that is within so many times the usual of what it was is taken to be what it was."""

WINDOWS, SURE = (4, 8, 16, BLOCK), 2.0
"""Of the last rows, how many are looked at; how many times as much the fewest must show."""

NEVER = 2.0**60
"""At how many rows a standardisation that is no guess is refined."""

LEAST, FURTHEST = 1e-12, 1e6
"""The least deviation that is told from none; the furthest that a mean is, in deviations."""

AGAIN, CALMER = 4.0, 0.999
"""Blocks for which a column that did not move after all is left alone; twice as many each time, fewer with time."""


@dataclass(frozen=True)
class Usual:
    """What is usual in p columns of standardised numbers. All fields are of shape `[p]`.

    Fields: `count`, `mean`, `var` of rows since a column moved; `level`, `spread`: what its mean and deviation are to
    be. `jumps`, `swings`: how its blocks' means and log deviations usually move, squared; `log`: the running mean of
    the latter. `mute`: blocks for which it is left alone; `back`: for how many it will be next. `due`: at how many rows
    its standardisation is refined, until when level and spread stay. `scaled`: whether its scale is to be, 0 or 1.

    Example:
        >>> import numpy as np
        >>> from gradatim.memory.usual import Usual
        >>> rng = np.random.default_rng(0)
        >>> usual = Usual.of_rows(rng.normal(size=(320, 2)))
        >>> usual.drifted(rng.normal(size=(32, 2)) + [0.0, 2.0])
        array([False,  True])
    """

    count: np.ndarray
    mean: np.ndarray
    var: np.ndarray
    level: np.ndarray
    spread: np.ndarray
    jumps: np.ndarray
    swings: np.ndarray
    log: np.ndarray
    mute: np.ndarray
    back: np.ndarray
    due: np.ndarray
    scaled: np.ndarray

    @classmethod
    def of(cls, moments: Moments) -> Self:
        """Return what is usual in columns of these moments."""
        ones, deviation = np.ones(len(moments.mean)), np.maximum(moments.deviation, LEAST)
        moving = (ones / BLOCK, 0.05 * ones, np.log(deviation))
        return cls(*moments, moments.mean, deviation, *moving, 0 * ones, AGAIN * ones, NEVER * ones, 0 * ones)

    @classmethod
    def of_rows(cls, z: np.ndarray) -> Self:
        """Return what is usual in rows `[n, p]`, NaN where missing, in their order."""
        usual = cls.of(Moments.of(z))
        blocks = [usual.apart(Moments.of(z[at : at + BLOCK])) for at in range(0, len(z) - BLOCK + 1, BLOCK)]
        if not blocks:
            return usual
        jumps, swings = (np.square(part).mean(0) for part in zip(*blocks, strict=True))
        return replace(usual, jumps=np.maximum(usual.jumps, jumps), swings=np.maximum(usual.swings, swings))

    @property
    def moments(self) -> Moments:
        """Return the moments of rows since each column moved."""
        return Moments(self.count, self.mean, self.var)

    def apart(self, block: Moments) -> tuple[np.ndarray, np.ndarray]:
        """Return by how many deviations a block's mean is away, and its log deviation from the running one, `[p]`."""
        apart = np.abs(block.mean - self.mean) / self.moments.deviation.clip(LEAST)
        return apart.clip(0, FURTHEST), np.abs(np.log(block.deviation.clip(LEAST)) - self.log)

    def drifted(self, z: np.ndarray) -> np.ndarray:
        """Return whether columns moved in rows `[n, p]`, `[p]`; fewer rows than a block must show more."""
        block = Moments.of(z)
        apart, swing = self.apart(block)
        sure = np.where(block.count < 2 * WINDOWS[0], SURE, 1.0)
        wide = sure * np.sqrt(BLOCK / block.count.clip(1, BLOCK))
        far = np.maximum(SHIFT * sure, np.maximum(USUAL * wide * np.sqrt(self.jumps), DEPENDENT * self.jumps))
        ratio = np.abs(np.log(block.deviation.clip(LEAST) / self.moments.deviation.clip(LEAST)))
        rescaled = (ratio > np.log(RATIO) * wide) & (swing > USUAL * wide * np.sqrt(self.swings))
        comparable = (block.count >= WINDOWS[0]) & (self.count >= BLOCK) & (self.mute <= 0)
        return ((apart > far) | (rescaled & (block.var > 0))) & comparable

    def rescaled(self, block: Moments) -> np.ndarray:
        """Return whether a block's deviation is another one, `[p]`."""
        return (self.apart(block)[1] > SPREAD * np.sqrt(self.swings)) & (block.var > 0)

    def after(self, z: np.ndarray, drifted: np.ndarray | None = None) -> Self:
        """Return what is usual after the rows of a block `[n, p]`, of which some columns `[p]` are no part."""
        block = Moments.of(z)
        excluded = np.zeros(len(self.mean), bool) if drifted is None else drifted
        stays = (block.count >= WINDOWS[0]) & ~excluded
        apart, swing = self.apart(block)

        def running(mean: np.ndarray, value: np.ndarray, otherwise: float) -> np.ndarray:
            grown = np.where(excluded, np.minimum(otherwise * mean, FURTHEST**2), mean)
            return np.where(stays, (1 - RATE) * mean + RATE * value, grown)

        return replace(
            self.joined(block, stays),
            jumps=running(self.jumps, apart**2, FASTER),
            swings=running(self.swings, swing**2, FASTER),
            log=running(self.log, np.log(block.deviation.clip(LEAST)), 1.0),
            mute=np.maximum(self.mute - 1, 0),
            back=np.maximum(AGAIN, CALMER * self.back),
        )

    def joined(self, block: Moments, stays: np.ndarray) -> Self:
        """Return what is usual with a block in the moments of columns `[p]`; what these are to be follows."""
        after = self.moments.plus(block).where(stays, self.moments)
        follows = self.due >= NEVER
        return replace(
            self,
            **after._asdict(),
            level=np.where(follows, after.mean, self.level),
            spread=np.where(follows, np.maximum(after.deviation, LEAST), self.spread),
        )

    def muted(self, drifted: np.ndarray) -> Self:
        """Return what leaves columns `[p]` alone for some blocks."""
        back = np.where(drifted, 2 * self.back, self.back)
        return replace(self, mute=np.where(drifted, self.back, self.mute), back=back)

    def restarted(self, last: Moments, drifted: np.ndarray) -> Self:
        """Return what is usual where columns `[p]` moved, but not by their unit: what they are now."""
        spread = np.where(last.var > 0, last.deviation, self.spread)
        return replace(
            self,
            **last.where(drifted, self.moments)._asdict(),
            level=np.where(drifted, last.mean, self.level),
            spread=np.where(drifted, spread, self.spread),
            log=np.where(drifted, np.log(spread), self.log),
            due=np.where(drifted, NEVER, self.due),
        )
