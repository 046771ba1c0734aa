"""Sums over the rows of each group: all that is kept of a group, added, merged and taken away exactly.

Source: Gelman, Hill 2006, ch. 12 (the sums a hierarchical linear model needs); Raudenbush, Bryk 2002, eq. 3.52.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

LEVELS = (-3.0, -1.5, 0.0, 1.5, 3.0)
"""Shifts of a logit at which the likelihood of classes is expanded; a group uses the one nearest to its own shift."""

ROWS = 8192
"""Rows whose products are held at a time."""


MOST, SEVERAL = 0.5, 3.0
"""Rows beyond the fence are believed as they are once they are more than this share, and this many, of a group."""

REMAINDER = 1e-7
"""Sums from which rows were taken away are off by so much at most, of those before: rounding."""

NEVER = "some of these rows were never learnt, or with another target, group or weight"


class Sums(NamedTuple):
    """Sums of K groups over their rows, at each of P levels (numbers: one level), with d features.

    Fields: `count [K]`: the weights of rows; `value [K, P]`: of numbers the sum of squares, of classes the
    log-likelihood; `linear [K, P, d]`: features times residuals; `square [K, P, d (d + 1) / 2]`: lower
    triangles of weighted products. `far [K]`: the weights of rows whose residual lies beyond a fence: the sums have it
    at the fence, and `beyond [K, d + 1]` what it adds to `value` and `linear` (none of classes).

    Example:
        >>> import numpy as np
        >>> from gradatim.groups.sums import Sums
        >>> sums = Sums.of_numbers(np.ones((3, 1)), np.array([1.0, 2.0, 4.0]), np.array([0, 0, 1]), 2)
        >>> sums.count, sums.linear[:, 0, 0]
        (array([2., 1.]), array([3., 4.]))
    """

    count: np.ndarray
    value: np.ndarray
    linear: np.ndarray
    square: np.ndarray
    far: np.ndarray
    beyond: np.ndarray

    @classmethod
    def zeros(cls, n_groups: int, width: int, levels: int = 1) -> Sums:
        """Return the sums of groups that have no rows."""
        shape = (n_groups, levels)
        triangle = width * (width + 1) // 2
        beyond = width + 1 if levels == 1 else 0
        return cls(
            np.zeros(n_groups),
            np.zeros(shape),
            np.zeros((*shape, width)),
            np.zeros((*shape, triangle)),
            np.zeros(n_groups),
            np.zeros((n_groups, beyond)),
        )

    @classmethod
    def of_numbers(
        cls,
        features: np.ndarray,
        residual: np.ndarray,
        group: np.ndarray,
        n_groups: int,
        weight: np.ndarray | None = None,
        fence: float = np.inf,
    ) -> Sums:
        """Return the sums of rows: features `[n, d]`, residuals `[n]`, groups `[n]` below `n_groups`, weights.

        Residuals beyond the `fence` are drawn in to it.
        """
        near = np.clip(residual, -fence, fence)[:, None]
        sums = _gather(features, np.ones_like(near), near, near**2, group, n_groups, weight)
        if len(far := np.flatnonzero(near[:, 0] != residual)):
            heavy = np.ones(len(far)) if weight is None else weight[far]
            more = residual[far] - near[far, 0]
            np.add.at(sums.far, group[far], heavy)
            np.add.at(sums.beyond[:, 0], group[far], heavy * more * (residual[far] + near[far, 0]))
            np.add.at(sums.beyond[:, 1:], group[far], (heavy * more)[:, None] * features[far])
        return sums

    @classmethod
    def of_classes(
        cls,
        features: np.ndarray,
        y: np.ndarray,
        logit: np.ndarray,
        group: np.ndarray,
        n_groups: int,
        weight: np.ndarray | None = None,
    ) -> Sums:
        """Return the sums of rows whose y `[n]` is 0 or 1, with features `[n, d]`, pooled logits and weights `[n]`.

        They are the log-likelihood, its gradient and its curvature where the logit is shifted by each of `LEVELS`.
        """
        shifted = logit[:, None] + np.array(LEVELS)
        probability = 0.5 + 0.5 * np.tanh(0.5 * shifted)
        value = y[:, None] * shifted - np.logaddexp(0.0, shifted)
        curvature = probability * (1 - probability)
        return _gather(features, curvature, y[:, None] - probability, value, group, n_groups, weight)

    def plus(self, other: Sums, sign: float = 1.0) -> Sums:
        """Return these sums and others of the same groups, or these less the others with `sign` -1."""
        return Sums(*(mine + sign * theirs for mine, theirs in zip(self, other, strict=True)))

    def take(self, rows: np.ndarray | slice) -> Sums:
        """Return the sums of some groups `[k]`."""
        return Sums(*(part[rows] for part in self))

    def grown(self, n_groups: int) -> Sums:
        """Return the sums with room for more groups, `n_groups` in all."""
        more = n_groups - len(self.count)
        return Sums(*(np.concatenate([part, np.zeros((more, *part.shape[1:]))]) for part in self))

    def add_at(self, index: np.ndarray, other: Sums) -> None:
        """Add the sums of other groups to the groups at `index [k]`, all different, in place."""
        for mine, theirs in zip(self, other, strict=True):
            mine[index] += theirs

    def believed(self) -> Sums:
        """Return the sums with all residuals as they came, of groups most of whose rows lie beyond the fence."""
        apart = (self.far >= SEVERAL) & (self.far > MOST * self.count)
        if not apart.any():
            return self
        value, linear = self.value.copy(), self.linear.copy()
        value[apart, 0] += self.beyond[apart, 0]
        linear[apart, 0] += self.beyond[apart, 1:]
        return self._replace(value=value, linear=linear)

    def matrices(self) -> np.ndarray:
        """Return the products as full matrices `[K, P, d, d]`."""
        width = self.linear.shape[-1]
        rows, columns = np.tril_indices(width)
        full = np.zeros((*self.linear.shape, width))
        full[..., rows, columns] = self.square
        full[..., columns, rows] = self.square
        return full

    @property
    def bytes_per_group(self) -> float:
        """Return how many bytes the sums of one group take."""
        return sum(part.nbytes for part in self) / max(1, len(self.count))


def check_remainder(left: Sums, before: Sums) -> None:
    """Raise ValueError where sums from which rows were taken away are such as no rows have.

    Example:
        >>> import numpy as np
        >>> from gradatim.groups.sums import Sums, check_remainder
        >>> one = Sums.of_numbers(np.ones((1, 1)), np.ones(1), np.zeros(1, int), 1)
        >>> check_remainder(one.plus(one, -1), one)
        >>> check_remainder(one.plus(Sums.of_numbers(np.ones((1, 1)), 2 * np.ones(1), np.zeros(1, int), 1), -1), one)
        Traceback (most recent call last):
        ValueError: some of these rows were never learnt, or with another target, group or weight
    """
    if len(before.count) == 0:
        return
    slack = REMAINDER * np.maximum(before.count, 1e-300)
    second, whole = left.matrices(), before.matrices()
    if left.value.shape[1] == 1:  # of numbers the squares belong to the products
        second, whole = _bordered(second, left), _bordered(whole, before)
        wrong = np.zeros(len(slack), dtype=bool)
    else:  # of classes a log-likelihood is negative
        wrong = (left.value > REMAINDER * abs(before.value)).any(1)
    size = np.trace(whole, axis1=-2, axis2=-1).max(-1)
    lowest = np.linalg.eigvalsh(second)[..., 0].min(-1)
    if (wrong | (left.count < -slack) | (left.far < -slack) | (lowest < -REMAINDER * size)).any():
        raise ValueError(NEVER)


def _bordered(matrices: np.ndarray, sums: Sums) -> np.ndarray:
    """Return products `[K, 1, d, d]` of numbers with those of their residuals: `[K, 1, d + 1, d + 1]`."""
    side = np.concatenate([matrices, sums.linear[:, :, None]], axis=2)
    last = np.concatenate([sums.linear, sums.value[..., None]], axis=2)[..., None]
    return np.concatenate([side, last], axis=3)


def _gather(
    features: np.ndarray,
    curvature: np.ndarray,
    residual: np.ndarray,
    value: np.ndarray,
    group: np.ndarray,
    n_groups: int,
    weight: np.ndarray | None,
) -> Sums:
    """Return sums of rows of weights `[n]`: features `[n, d]` times `residual`, products times `curvature [n, P]`."""
    weight = np.ones(len(group)) if weight is None else weight
    if (weight != 1).any():
        curvature, residual, value = (part * weight[:, None] for part in (curvature, residual, value))
    sums = Sums.zeros(n_groups, features.shape[1], residual.shape[1])
    rows, columns = np.tril_indices(features.shape[1])
    order = np.argsort(group, kind="stable")
    for start in range(0, len(order), ROWS):
        part = order[start : start + ROWS]
        names, first = np.unique(group[part], return_index=True)
        phi = features[part]
        products = phi[:, rows] * phi[:, columns]
        sums.count[names] += np.add.reduceat(weight[part], first)
        sums.value[names] += np.add.reduceat(value[part], first)
        for level in range(residual.shape[1]):
            sums.linear[names, level] += np.add.reduceat(phi * residual[part, level, None], first)
            bend = curvature[part, level, None]
            weighted = products if (bend == 1).all() else products * bend
            sums.square[names, level] += np.add.reduceat(weighted, first)
    return sums
