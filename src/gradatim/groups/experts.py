"""Experts: priors over the heads of groups, and what the sums of a group make of them.

A head w of a group is normal with mean m and covariance `L L'`; an expert says which features vary from group to group.

Source: Lindley, Smith 1972, eq. 8 to 10; Tierney, Kadane 1986 (Laplace); Dawid 1984 (evidence of rows in their order).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .sums import LEVELS, Sums


class Expert(NamedTuple):
    """A prior over heads: w = `mean [d]` + `root [d, r]` u with u standard normal, and the variance of a row's noise.

    `name`: what varies by group. For classes the noise is 1.
    """

    name: str
    mean: np.ndarray
    root: np.ndarray
    noise: float = 1.0

    @property
    def covariance(self) -> np.ndarray:
        """Return the covariance of heads, `[d, d]`."""
        return self.root @ self.root.T


class Heads(NamedTuple):
    """Posteriors of K groups under one expert at J noise scales: `log_evidence [K, J]`.

    A head is `mean + axes u`, with u independent, of means `position [K, J, r]` and variances `spread [K, J, r]`;
    `axes [K, d, r]`.
    """

    log_evidence: np.ndarray
    mean: np.ndarray
    axes: np.ndarray
    position: np.ndarray
    spread: np.ndarray
    noise: np.ndarray

    def at(self, features: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return means and variances of `w' phi`, each `[n, J]`, at features `[n, d]` of groups `[n]`."""
        along = np.einsum("nd,ndr->nr", features, self.axes[group], optimize=False)
        mean = (features @ self.mean)[:, None] + np.einsum("nr,njr->nj", along, self.position[group])
        return mean, np.einsum("nr,njr->nj", along**2, self.spread[group])

    def effects(self) -> tuple[np.ndarray, np.ndarray]:
        """Return means and variances of heads, each `[K, J, d]`."""
        means = self.mean + np.einsum("kdr,kjr->kjd", self.axes, self.position)
        return means, np.einsum("kdr,kjr->kjd", self.axes**2, self.spread)


def solve(expert: Expert, sums: Sums, scales: np.ndarray | None = None) -> Heads:
    """Return the posteriors of all groups under an expert: numbers at noise scales `[J]`, or classes without scales.

    With G, b the sums, s the noise: covariance `L (L'GL / s + I)^-1 L'`, mean `m + covariance (b - G m) / s`.

    Example:
        >>> import numpy as np
        >>> from gradatim.groups.experts import Expert, solve
        >>> from gradatim.groups.sums import Sums
        >>> sums = Sums.of_numbers(np.ones((4, 1)), np.full(4, 2.0), np.zeros(4, int), 1)
        >>> heads = solve(Expert("level", np.zeros(1), np.eye(1)), sums, np.ones(1))
        >>> float(heads.at(np.ones((1, 1)), np.zeros(1, int))[0][0, 0].round(3))
        1.6
    """
    sums = sums.believed()
    square, linear, value = sums.matrices(), sums.linear, sums.value
    noise = np.ones(1) if scales is None else expert.noise * scales
    if scales is None:
        shift = np.array(LEVELS)[:, None]
        value = value - shift[:, 0] * linear[..., 0] - 0.5 * shift[:, 0] ** 2 * square[..., 0, 0]
        linear = linear + shift * square[..., 0]
        heads = [
            _solve(expert, square[:, p], linear[:, p], value[:, p], sums.count, noise, True)
            for p in range(len(LEVELS))
        ]
        distance = np.stack([abs(h.effects()[0][:, 0, 0] - p) for h, p in zip(heads, LEVELS, strict=True)])
        best, every = distance.argmin(0), np.arange(len(sums.count))
        names = ("log_evidence", "axes", "position", "spread")
        parts = {name: np.stack([getattr(part, name) for part in heads])[best, every] for name in names}
        return Heads(mean=expert.mean, noise=noise, **parts)
    return _solve(expert, square[:, 0], linear[:, 0], value[:, 0], sums.count, noise, False)


def _solve(
    expert: Expert,
    square: np.ndarray,
    linear: np.ndarray,
    value: np.ndarray,
    count: np.ndarray,
    noise: np.ndarray,
    classes: bool,
) -> Heads:
    """Return posteriors from a quadratic in the head: `square [K, d, d]`, `linear [K, d]`, `value [K]`."""
    mean, root = expert.mean, expert.root
    values, vectors = np.linalg.eigh(root.T @ square @ root)
    values = np.maximum(values, 0.0)[:, None]
    axes = root @ vectors
    pull = np.einsum("kdr,kd->kr", axes, linear - square @ mean)[:, None]
    s = noise[:, None]
    gained = (pull**2 / (values + s)).sum(-1) / noise - np.log1p(values / s).sum(-1)
    along = linear @ mean - 0.5 * np.einsum("d,kde,e->k", mean, square, mean)
    if classes:
        fit = value[:, None] + along[:, None]
    else:
        rest = value - 2 * along
        fit = -0.5 * (count[:, None] * np.log(2 * np.pi * noise) + rest[:, None] / noise)
    return Heads(fit + 0.5 * gained, mean, axes, pull / (values + s), s / (values + s), noise)
