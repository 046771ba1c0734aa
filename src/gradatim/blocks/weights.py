"""Weights of tasks in blocks: groups from several graphs, the best kept; what all tasks share; what one task has alone.

`W = shared + grouped + personal`: one vector for all tasks, weights inside the blocks, and small weights anywhere.

Source: after the idea of Yang et al. 2020 (TFCL); Lindley, Smith 1972, eq. 8 (the shared part).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .graph import block_lasso, clusters
from .moves import Groups, first_groups, learn_variances, refine
from .sums import TaskSums, evidence_terms, posterior

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST = 8
"""Groups that are tried where nobody says how many."""
PATIENCE = 2
"""Counts of groups in a row that may be worse before no more are tried."""
LEAK = 0.1
"""First guess of a personal weight's variance, as a share of a grouped one's."""


class Weights(NamedTuple):
    """Weights of tasks, their groups, and the share of all.

    Attributes:
        weights: shared, grouped and personal together, `[T, d]`.
        groups: the groups, with the prior variances of what is not shared.
        shared: what all tasks have, `[d]`.
        spread: prior variance of the shared part; 0 without one.

    Source: this project's own.
    """

    weights: np.ndarray
    groups: Groups
    shared: np.ndarray
    spread: float


def find_groups(
    sums: TaskSums, start: np.ndarray, n_groups: int | None, strength: float, leak: float = 0.0
) -> Groups:
    """Return the likeliest groups that moves reach from clusters of several graphs.

    Args:
        sums: of the tasks.
        start: weights of the tasks by themselves, `[T, d]`.
        n_groups: None tries one group, then more, until the evidence says that there are enough.
        strength: of the penalty of `block_lasso`.
        leak: variance of weights outside the blocks, as a share of that inside, at the start; 0 for none.
    """
    tasks, features = start.shape
    counts = range(1, min(MOST, tasks, features) + 1) if n_groups is None else [n_groups]
    best: Groups | None = None
    since = 0
    for k in counts:
        found = max(
            (
                refine(sums, first_groups(sums, *labels, leak), k)
                for labels in _starts(sums, start, k, strength)
            ),
            key=lambda groups: groups.score,
        )
        better = best is None or found.score > best.score
        best, since = (found, 0) if better else (best, since + 1)
        if since == PATIENCE:
            break
    assert best is not None
    return best


def grouped_weights(sums: TaskSums, start: np.ndarray, n_groups: int | None, strength: float) -> Weights:
    """Return weights inside blocks only; arguments as in `find_groups`."""
    groups = find_groups(sums, start, n_groups, strength)
    mean = posterior(sums, groups.variance(), groups.noise).mean
    return Weights(mean, groups, np.zeros(start.shape[1]), 0.0)


def all_weights(sums: TaskSums, start: np.ndarray, n_groups: int | None, strength: float) -> Weights:
    """Return weights that are shared, grouped and personal; arguments as in `find_groups`."""
    tasks, features = start.shape
    one = first_groups(sums, np.zeros(features, np.int64), np.zeros(tasks, np.int64))
    shared, spread = _share(sums, learn_variances(sums, one, 5), one.inside, 3)
    left = sums.without(shared)
    groups = find_groups(left, start - shared, n_groups, strength, LEAK)
    for _ in range(5):
        shared, spread = _share(sums, groups, max(spread, 1e-12), 2)
        left = sums.without(shared)
        groups = learn_variances(left, groups, 3)
    mean = posterior(left, groups.variance(), groups.noise).mean
    return Weights(mean + shared, groups, shared, spread)


def _starts(
    sums: TaskSums, start: np.ndarray, k: int, strength: float
) -> Sequence[tuple[np.ndarray, np.ndarray]]:
    """Return the distinct clusters of the start's graph, of its squares, and of weights pulled into blocks."""
    if k == 1:
        return [(np.zeros(start.shape[1], np.int64), np.zeros(len(start), np.int64))]
    found: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}
    for graph in (start, start**2, block_lasso(sums, start, k, strength)):
        features, tasks = clusters(graph, k)
        found[_same(np.concatenate([features, tasks]))] = features, tasks
    return list(found.values())


def _same(labels: np.ndarray) -> bytes:
    """Return what two labellings have in common where they differ in the names of groups only."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].tobytes()


def _share(sums: TaskSums, groups: Groups, spread: float, steps: int) -> tuple[np.ndarray, float]:
    """Return what all tasks share `[d]` and its prior variance, given the spread of what they do not."""
    inner, target = evidence_terms(sums, groups.variance(), groups.noise)
    inner, target = inner.sum(0), target.sum(0)
    shared = np.zeros(len(target))
    for _ in range(steps):
        covariance = np.linalg.inv(inner + np.eye(len(target)) / spread)
        shared = covariance @ target
        spread = max(float((shared**2 + np.diag(covariance)).mean()), 1e-12)
    return shared, spread
