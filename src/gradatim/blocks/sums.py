"""Sums over the rows of tasks, all that a linear model of them needs; and what a Gaussian prior makes of them.

Source: Rasmussen, Williams 2006, eqs. 2.8 and 2.30 (posterior and evidence of a linear model).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence


class TaskSums(NamedTuple):
    """Sums over centred rows of T tasks with d features.

    Attributes:
        rows: how many each task has, `[T]`.
        gram: products of features, `[T, d, d]`.
        cross: products of features and target, `[T, d]`.
        square: of the target, `[T]`.

    Source: Rasmussen, Williams 2006, eq. 2.8.
    """

    rows: np.ndarray
    gram: np.ndarray
    cross: np.ndarray
    square: np.ndarray

    def without(self, shared: np.ndarray) -> TaskSums:
        """Return the sums of what is left of the targets once `x @ shared` is taken away, shared `[d]`."""
        moved = self.gram @ shared
        return self._replace(
            cross=self.cross - moved, square=self.square - 2 * self.cross @ shared + moved @ shared
        )

    def picked(self, tasks: np.ndarray) -> TaskSums:
        """Return the sums of some of the tasks."""
        return TaskSums(*(part[tasks] for part in self))


class Posterior(NamedTuple):
    """What a prior N(0, diag(variance)) and noise make of sums.

    Attributes:
        mean: of the weights, `[T, d]`.
        spread: their posterior variances, `[T, d]`.
        evidence: the log density of the targets, `[T]`.

    Source: Rasmussen, Williams 2006, eqs. 2.8 and 2.30.
    """

    mean: np.ndarray
    spread: np.ndarray
    evidence: np.ndarray


def task_sums(xs: Sequence[np.ndarray], ys: Sequence[np.ndarray]) -> TaskSums:
    """Return the sums of tasks, each with centred rows `[n, d]` and targets `[n]`."""
    return TaskSums(
        np.array([len(y) for y in ys], dtype=np.float64),
        np.stack([x.T @ x for x in xs]),
        np.stack([x.T @ y for x, y in zip(xs, ys, strict=True)]),
        np.array([y @ y for y in ys]),
    )


def log_evidence(sums: TaskSums, variance: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Return the log density of each task's targets `[T]` under prior variances `[T, d]` and noise variances `[T]`."""
    scaled = np.sqrt(variance) * sums.cross / noise[:, None]
    inner = _inner(sums, variance, noise)
    return _evidence(
        sums, noise, inner, (scaled * np.linalg.solve(inner, scaled[:, :, None])[:, :, 0]).sum(1)
    )


def _inner(sums: TaskSums, variance: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Return `1 + V^1/2 X'X V^1/2 / noise`, `[T, d, d]`."""
    root = np.sqrt(variance)
    inner = root[:, :, None] * sums.gram * (root / noise[:, None])[:, None, :]
    inner[:, np.arange(inner.shape[-1]), np.arange(inner.shape[-1])] += 1
    return inner


def _evidence(sums: TaskSums, noise: np.ndarray, inner: np.ndarray, explained: np.ndarray) -> np.ndarray:
    diagonal = np.diagonal(np.linalg.cholesky(inner), axis1=1, axis2=2)
    spread = sums.rows * np.log(2 * np.pi * noise) + 2 * np.log(diagonal).sum(1)
    return -0.5 * (spread + sums.square / noise - explained)


def posterior(sums: TaskSums, variance: np.ndarray, noise: np.ndarray) -> Posterior:
    """Return the posterior under prior variances `[T, d]` and noise variances `[T]`."""
    root, inner = np.sqrt(variance), _inner(sums, variance, noise)
    inverse = np.linalg.inv(inner)
    scaled = root * sums.cross / noise[:, None]
    half = (inverse @ scaled[:, :, None])[:, :, 0]
    evidence = _evidence(sums, noise, inner, (scaled * half).sum(1))
    return Posterior(root * half, variance * np.einsum("tii->ti", inverse), evidence)


def evidence_terms(sums: TaskSums, variance: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return `X' K^-1 X` `[T, d, d]` and `X' K^-1 y` `[T, d]` for the covariance K of a task's targets.

    A change of one feature's prior variance changes the evidence by a function of these (see `change`).
    """
    root, inner = np.sqrt(variance), _inner(sums, variance, noise)
    right = np.concatenate([sums.gram, sums.cross[:, :, None]], 2) / noise[:, None, None]
    solved = np.linalg.solve(inner, root[:, :, None] * right)
    left = right - (sums.gram * root[:, None, :] / noise[:, None, None]) @ solved
    return left[:, :, :-1], left[:, :, -1]


def change(inside: np.ndarray, target: np.ndarray, more: float | np.ndarray) -> np.ndarray:
    """Return by how much the evidence grows where one feature's prior variance grows by `more`.

    Args:
        inside: `x' K^-1 x` of the feature, any shape.
        target: `x' K^-1 y`, the same shape.
        more: may be negative.
    """
    grown = np.maximum(1 + more * inside, 1e-12)
    return 0.5 * (more * target**2 / grown - np.log(grown))
