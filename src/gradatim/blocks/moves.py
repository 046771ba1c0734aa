"""Groups of features and tasks by evidence: one feature or one task moves at a time, while the rows want it.

Source: Tipping, Faul 2003, eqs. 18 to 22 (evidence as one variance changes); this project's own for whole groups.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .sums import TaskSums, change, evidence_terms, log_evidence, posterior

INERTIA = 10.0
"""Rows of common noise that each task's own is drawn to."""
LEAST = 1e-6
"""Noise and variances, at least, as shares of the targets' variance."""


class Groups(NamedTuple):
    """Features and tasks in groups, and the variances of weights inside and outside the blocks.

    Attributes:
        features: the group of each feature, `[d]`.
        tasks: the group of each task, `[T]`.
        inside: prior variance of a weight whose feature and task are in one group.
        outside: of any other weight.
        noise: variance of the noise, `[T]`.
        score: log evidence of the targets, less the nats that it takes to name the groups.

    Source: this project's own.
    """

    features: np.ndarray
    tasks: np.ndarray
    inside: float
    outside: float
    noise: np.ndarray
    score: float

    @property
    def n_groups(self) -> int:
        """Return the number of groups that have a feature or a task."""
        return len(np.unique(np.concatenate([self.features, self.tasks])))

    def variance(self) -> np.ndarray:
        """Return the prior variance of each weight, `[T, d]`."""
        return np.where(self.tasks[:, None] == self.features, self.inside, self.outside)


def first_groups(sums: TaskSums, features: np.ndarray, tasks: np.ndarray, leak: float = 0.0) -> Groups:
    """Return groups with variances guessed from the targets: four fifths of their variance is explained."""
    rows = np.maximum(sums.rows.sum(), 1.0)
    total = max(sums.square.sum() / rows, 1e-12)
    scale = max(np.einsum("tii->i", sums.gram).sum() / rows / sums.gram.shape[1], 1e-12)
    share = (tasks[:, None] == features).mean()
    inside = 0.8 * total / (scale * sums.gram.shape[1] * max(share, 1e-3))
    noise = np.full(len(tasks), 0.2 * total)
    return Groups(features, tasks, float(inside), float(leak * inside), noise, -np.inf)


def refine(sums: TaskSums, groups: Groups, n_groups: int, sweeps: int = 20) -> Groups:
    """Return the groups after moves of single tasks and features, each of which raises the evidence of all targets."""
    groups = learn_variances(sums, groups, 5)
    for _ in range(sweeps):
        tasks = _move_tasks(sums, groups, n_groups)
        features = _move_features(sums, groups._replace(tasks=tasks), n_groups)
        still = np.array_equal(tasks, groups.tasks) and np.array_equal(features, groups.features)
        groups = learn_variances(sums, groups._replace(tasks=tasks, features=features), 10 if still else 2)
        if still:
            break
    names = (len(groups.features) + len(groups.tasks)) * np.log(n_groups)
    found = log_evidence(sums, groups.variance(), groups.noise).sum()
    return groups._replace(score=float(found - names))


def learn_variances(sums: TaskSums, groups: Groups, steps: int) -> Groups:
    """Return the groups with the variances of weights and noise after steps of expectation maximisation."""
    block = groups.tasks[:, None] == groups.features
    least = LEAST * max(sums.square.sum() / max(sums.rows.sum(), 1.0), 1e-12)
    for _ in range(steps):
        variance = groups.variance()
        found = posterior(sums, variance, groups.noise)
        second = found.mean**2 + found.spread
        inside = second[block].mean() if block.any() else groups.inside
        outside = second[~block].mean() if groups.outside and not block.all() else groups.outside
        used = np.where(variance > 0, 1 - found.spread / np.maximum(variance, 1e-300), 0.0).sum(1)
        fitted = (sums.gram @ found.mean[:, :, None])[:, :, 0]
        missed = sums.square - 2 * (sums.cross * found.mean).sum(1) + (fitted * found.mean).sum(1)
        missed = np.maximum(missed, 0) + used * groups.noise  # the expected squared misses
        common = missed.sum() / max(sums.rows.sum(), 1.0)
        noise = (missed + INERTIA * common) / (sums.rows + INERTIA)
        groups = groups._replace(
            inside=max(float(inside), least),
            outside=min(float(outside), 0.5 * float(inside)),
            noise=np.maximum(noise, least),
        )
    return groups


def _move_tasks(sums: TaskSums, groups: Groups, n_groups: int) -> np.ndarray:
    """Return the group of each task under which its own targets are likeliest; a tie stays."""
    found = np.stack(
        [
            log_evidence(sums, groups._replace(tasks=np.full_like(groups.tasks, g)).variance(), groups.noise)
            for g in range(n_groups)
        ],
        axis=1,
    )
    found[np.arange(len(found)), groups.tasks] += 1e-9 * (1 + np.abs(found).max(1))
    return found.argmax(1)


def _move_features(sums: TaskSums, groups: Groups, n_groups: int) -> np.ndarray:
    """Return the group of each feature, after moves of the feature that gains most, until none gains."""
    member = (groups.tasks[:, None] == np.arange(n_groups)).astype(np.float64)  # [T, k]
    step, features = groups.inside - groups.outside, groups.features.copy()
    inner, target = evidence_terms(sums, groups.variance(), groups.noise)
    place = np.arange(len(features))
    for _ in range(4 * len(features)):
        inside = groups.tasks[:, None] == features
        diagonal = np.einsum("tii->ti", inner)
        gains = change(diagonal, target, np.where(inside, -step, step))  # of joining, or of leaving
        worth = (
            np.where(inside, -gains, gains).T
        ) @ member  # [d, k]: of being in a group, over being in none
        better = worth - worth[place, features][:, None]
        i, to = np.unravel_index(better.argmax(), better.shape)
        if better[i, to] <= 1e-6:
            break
        for group, more in ((features[i], -step), (to, step)):
            at = np.flatnonzero(groups.tasks == group)
            column = inner[at, :, i]
            scale = more / np.maximum(1 + more * column[:, i], 1e-12)
            target[at] -= (scale * target[at, i])[:, None] * column
            inner[at] -= scale[:, None, None] * column[:, :, None] * column[:, None, :]
        features[i] = to
    return features
