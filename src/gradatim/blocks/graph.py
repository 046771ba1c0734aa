"""The graph between features and tasks: its spectrum, its clusters, and the penalty that pulls weights into blocks.

The graph joins feature i and task t by `|W_it|`. Its Laplacian has k eigenvalues of zero exactly where W is
block-diagonal with k blocks, up to an order of rows and columns.

Source: after the idea of Yang et al. 2020 (TFCL; objective restated, not the authors' text); Dhillon 2001, eq. 9; Fan
1949 (sums of eigenvalues); Beck, Teboulle 2009, eq. 4.1; Arthur, Vassilvitskii 2007 (k-means++).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .sums import TaskSums

FLOOR = 1e-6
"""Weight of an edge at least, as a share of the heaviest."""
FULL = 6
"""Rounds in which the penalty reaches its full strength."""


class Spectrum(NamedTuple):
    """The lowest eigenvectors of a graph's normalised Laplacian, and its eigenvalues in ascending order.

    Source: Dhillon 2001, eq. 9.
    """

    features: np.ndarray
    tasks: np.ndarray
    values: np.ndarray


def spectrum(weights: np.ndarray, n_groups: int) -> Spectrum:
    """Return eigenvectors `[d, k]` and `[T, k]` and all eigenvalues of the graph with weights `[T, d]`."""
    edges = np.abs(weights).T
    edges = edges + FLOOR * max(edges.max(initial=0.0), 1e-300)
    left, right = edges.sum(1) ** -0.5, edges.sum(0) ** -0.5
    u, values, v = np.linalg.svd(left[:, None] * edges * right, full_matrices=False)
    return Spectrum(left[:, None] * u[:, :n_groups], right[:, None] * v[:n_groups].T, 1 - values)


def clusters(weights: np.ndarray, n_groups: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return groups of features `[d]` and tasks `[T]` of the graph with weights `[T, d]`.

    Rows of the lowest eigenvectors, brought to length one, are clustered by k-means.
    """
    found = spectrum(weights, n_groups)
    points = np.concatenate([found.features, found.tasks])
    points = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-300)
    labels = _k_means(points, n_groups, np.random.default_rng(seed))
    return labels[: len(found.features)], labels[len(found.features) :]


def gap(weights: np.ndarray, n_groups: int) -> float:
    """Return the eigengap of the graph with weights `[T, d]`: how far eigenvalue k + 1 lies above eigenvalue k."""
    values = spectrum(weights, n_groups).values
    return float(values[n_groups] - values[n_groups - 1]) if n_groups < len(values) else float(1 - values[-1])


def distances(weights: np.ndarray, n_groups: int) -> np.ndarray:
    """Return squared distances `[T, d]` of tasks and features in the graph's lowest eigenvectors; their mean is one."""
    found = spectrum(weights, n_groups)
    apart = ((found.tasks[:, None] - found.features) ** 2).sum(2)
    return apart / max(apart.mean(), 1e-300)


def block_lasso(
    sums: TaskSums, start: np.ndarray, n_groups: int, strength: float, pull: float = 6.0, rounds: int = 12
) -> np.ndarray:
    """Return weights `[T, d]` that are sparse, and the sparser between groups the nearer the graph is to k blocks.

    The penalty is `strength * (sum |W_it| + pull * sum of the k lowest eigenvalues)`. The latter is the least of
    `<Laplacian, U>` over projections U of rank k (Fan 1949). So rounds alternate: U from eigenvectors, then W by a
    lasso whose weights are the distances of tasks and features in U. `pull` grows over the first rounds.
    """
    weights, counts = start, np.maximum(sums.rows, 1.0)
    gram, cross = sums.gram / counts[:, None, None], sums.cross / counts[:, None]
    bound = np.maximum(np.linalg.eigvalsh(gram)[:, -1:], 1e-12)
    for at in range(rounds):
        apart = distances(weights, n_groups)
        penalty = strength * (1 + pull * min(1.0, (at + 1) / FULL) * apart) / bound
        weights = _weighted_lasso(gram / bound[:, :, None], cross / bound, weights, penalty)
    return weights


def _weighted_lasso(
    gram: np.ndarray, cross: np.ndarray, weights: np.ndarray, penalty: np.ndarray, steps: int = 60
) -> np.ndarray:
    """Return weights `[T, d]` of the least quadratic plus `penalty * |W|`, by accelerated proximal steps of size one.

    The quadratic's largest eigenvalue is one at most.
    """
    ahead, old = weights, 1.0
    for _ in range(steps):
        moved = ahead - (gram @ ahead[:, :, None])[:, :, 0] + cross
        new = np.sign(moved) * np.maximum(np.abs(moved) - penalty, 0.0)
        momentum = 0.5 * (1 + np.sqrt(1 + 4 * old * old))
        ahead = new + (old - 1) / momentum * (new - weights)
        weights, old = new, momentum
    return weights


def _k_means(points: np.ndarray, k: int, generator: np.random.Generator, starts: int = 8) -> np.ndarray:
    """Return the labels of the best of several runs of k-means, each from centres drawn far apart."""
    best, least = np.zeros(len(points), dtype=np.int64), np.inf
    for _ in range(starts):
        centres = points[generator.integers(len(points))][None]
        while len(centres) < k:
            far = ((points[:, None] - centres) ** 2).sum(2).min(1)
            chance = far / far.sum() if far.sum() > 0 else None
            centres = np.concatenate([centres, points[generator.choice(len(points), p=chance)][None]])
        labels = np.zeros(len(points), dtype=np.int64)
        for _ in range(50):
            apart = ((points[:, None] - centres) ** 2).sum(2)
            new = apart.argmin(1)
            if np.array_equal(new, labels):
                break
            labels = new
            centres = np.stack(
                [points[labels == g].mean(0) if (labels == g).any() else centres[g] for g in range(k)]
            )
        cost = ((points - centres[labels]) ** 2).sum()
        if cost < least - 1e-12:
            best, least = labels, cost
    return best
