"""What people use for many linear tasks: lasso, ridge, rows of weights together, low rank, co-clustering and a refit.

Every peer has its strengths chosen by cross-validation over all tasks together. Numbers have squared loss, classes
logistic.

Source: Tibshirani 1996; Hoerl, Kennard 1970; Obozinski, Taskar, Jordan 2010 (L2,1); Argyriou, Evgeniou, Pontil 2008
(trace norm); Dhillon 2001 (co-clustering).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import expit
from sklearn.cluster import SpectralCoclustering

from .blocks_data import Problem

FOLDS = 4
STRENGTHS = np.geomspace(1.0, 1e-3, 13)
GROUPS = (2, 3, 4, 5, 6)
Weights = tuple[np.ndarray, np.ndarray]
"""Weights `[T, d]` and intercepts `[T]` in the units of the rows."""


class Standard:
    """Rows of all tasks on one scale, with an intercept each; the loss's gradient and its bound."""

    def __init__(self, x: list[np.ndarray], y: list[np.ndarray], classes: bool) -> None:
        rows = np.concatenate(x)
        self.middle, width = rows.mean(0), rows.std(0)
        self.width = np.where(width > 0, width, 1.0)
        self.classes = classes
        self.count = np.array([len(target) for target in y], dtype=float)
        longest, (tasks, features) = int(self.count.max()), (len(x), rows.shape[1])
        self.x, self.y = np.zeros((tasks, longest, features + 1)), np.zeros((tasks, longest))
        self.mask = np.arange(longest) < self.count[:, None]
        for t, (part, target) in enumerate(zip(x, y, strict=True)):
            self.x[t, : len(target), :-1] = (part - self.middle) / self.width
            self.x[t, : len(target), -1] = 1.0
            self.y[t, : len(target)] = target
        known = self.y[self.mask]
        self.scale = 1.0 if classes else known.std()
        self.level = 0.0 if classes else known.mean()
        self.y = np.where(self.mask, (self.y - self.level) / self.scale, 0.0)
        sizes = [
            np.linalg.norm(part[: int(n)], 2) ** 2 / n for part, n in zip(self.x, self.count, strict=True)
        ]
        self.bound = max(sizes) * (0.25 if classes else 1.0)

    def gradient(self, weights: np.ndarray) -> np.ndarray:
        """Return the gradient of each task's mean loss, `[T, d + 1]`."""
        outputs = (self.x @ weights[:, :, None])[:, :, 0]
        missed = np.where(self.mask, (expit(outputs) if self.classes else outputs) - self.y, 0.0)
        return (missed[:, None] @ self.x)[:, 0] / self.count[:, None]

    def back(self, weights: np.ndarray) -> Weights:
        """Return weights and intercepts in the units of the rows."""
        coef = weights[:, :-1] * self.scale / self.width
        return coef, weights[:, -1] * self.scale + self.level - coef @ self.middle


def sparse(weights: np.ndarray, size: float) -> np.ndarray:
    """Lasso: every weight by itself."""
    return np.sign(weights) * np.maximum(np.abs(weights) - size, 0)


def together(weights: np.ndarray, size: float) -> np.ndarray:
    """L2,1, as MultiTaskLasso: a feature serves all tasks or none."""
    norm = np.linalg.norm(weights, axis=0) / len(weights) ** 0.5
    return weights * np.maximum(1 - size / np.maximum(norm, 1e-300), 0)


def low_rank(weights: np.ndarray, size: float) -> np.ndarray:
    """Trace norm: singular values shrink."""
    u, values, v = np.linalg.svd(weights, full_matrices=False)
    return (u * np.maximum(values - size * len(weights) ** 0.5, 0)) @ v


def proximal_path(
    data: Standard, shrink: Callable[[np.ndarray, float], np.ndarray], steps: int
) -> list[np.ndarray]:
    """Return weights `[T, d + 1]` under falling strengths, each warm from the one before."""
    weights = np.zeros((len(data.x), data.x.shape[2]))
    for _ in range(50):  # intercepts alone
        weights[:, -1] -= data.gradient(weights)[:, -1] / data.bound
    largest = float(np.abs(data.gradient(weights)[:, :-1]).max())
    found = []
    for strength in largest * STRENGTHS:
        ahead, old = weights, 1.0
        for _ in range(steps):
            new = ahead - data.gradient(ahead) / data.bound
            new[:, :-1] = shrink(new[:, :-1], strength / data.bound)
            momentum = 0.5 * (1 + np.sqrt(1 + 4 * old * old))
            ahead, before = new + (old - 1) / momentum * (new - weights), weights
            weights, old = new, momentum
            if np.abs(new - before).max() < 1e-5 * (1e-3 + np.abs(new).max()):
                break
        found.append(weights)
    return found


def ridge_path(data: Standard, allowed: np.ndarray | None = None) -> list[np.ndarray]:
    """Return weights under falling ridges, only where `allowed` `[T, d]`; logistic by Newton's steps."""
    tasks, _, width = data.x.shape
    mask = np.ones((tasks, width)) if allowed is None else np.c_[allowed, np.ones(tasks)]
    x = data.x * mask[:, None]
    gram, found, weights = np.swapaxes(x, 1, 2) @ x, [], np.zeros((tasks, width))
    for strength in 10 * STRENGTHS:
        # Rows that teach times `strength`: strengths between 10 and .01 a row; the intercept is free.
        penalty = np.full((tasks, width), strength) * data.count[:, None] * 0.1 + 1e-6
        penalty[:, -1] = 1e-2 if data.classes else 1e-6
        if not data.classes:
            right = (data.y[:, None] @ x)[:, 0]
            weights = np.linalg.solve(gram + penalty[:, :, None] * np.eye(width), right[:, :, None])[:, :, 0]
        for _ in range(12 if data.classes else 0):
            outputs = (x @ weights[:, :, None])[:, :, 0]
            chance = expit(outputs)
            slope = (np.where(data.mask, chance - data.y, 0.0)[:, None] @ x)[:, 0] + penalty * weights
            curved = x * np.where(data.mask, np.maximum(chance * (1 - chance), 1e-4), 0.0)[:, :, None]
            curve = np.swapaxes(x, 1, 2) @ curved + penalty[:, :, None] * np.eye(width)
            step = np.linalg.solve(curve, slope[:, :, None])[:, :, 0]
            weights = weights - step
            if np.abs(step).max() < 1e-6:
                break
        found.append(weights * mask)
    return found


def losses(
    problem: Problem, rows: list[np.ndarray], answers: list[np.ndarray], weights: Weights
) -> np.ndarray:
    """Return the mean loss of each task `[T]`: squared error, or log-loss."""
    found = []
    for x, y, w, b in zip(rows, answers, *weights, strict=True):
        out = x @ w + b
        found.append(np.mean(np.logaddexp(0, out) - y * out if problem.classes else (y - out) ** 2))
    return np.array(found)


Path = Callable[[Standard], list[np.ndarray]]


def cross_validated(problem: Problem, path: Path) -> tuple[Weights, int, float]:
    """Return the weights of the best strength, its place and its validation loss. Classes are divided alike."""
    places = [_places(y, problem) for y in problem.y]
    total: Any = 0.0
    for fold in range(FOLDS):
        held = [place == fold for place in places]
        data = Standard(
            [x[~h] for x, h in zip(problem.x, held, strict=True)],
            [y[~h] for y, h in zip(problem.y, held, strict=True)],
            problem.classes,
        )
        rows = [x[h] for x, h in zip(problem.x, held, strict=True)]
        answers = [y[h] for y, h in zip(problem.y, held, strict=True)]
        total = total + np.array([losses(problem, rows, answers, data.back(w)).mean() for w in path(data)])
    whole, best = Standard(problem.x, problem.y, problem.classes), int(np.argmin(total))
    return whole.back(path(whole)[best]), best, float(total[best])


def _places(y: np.ndarray, problem: Problem) -> np.ndarray:
    order = np.random.default_rng(1).permutation(len(y))
    key = problem.labels if problem.labels is not None else y
    order = order[np.argsort(key[order], kind="stable")] if problem.classes else order
    place = np.empty(len(y), int)
    place[order] = np.arange(len(y)) % FOLDS
    return place


def lasso(problem: Problem) -> Weights:
    """Return a lasso of each task."""
    return cross_validated(problem, lambda data: proximal_path(data, sparse, 150))[0]


def ridge(problem: Problem) -> Weights:
    """Return a ridge of each task."""
    return cross_validated(problem, ridge_path)[0]


def multi_task_lasso(problem: Problem) -> Weights:
    """Return weights with a common support."""
    return cross_validated(problem, lambda data: proximal_path(data, together, 150))[0]


def trace_norm(problem: Problem) -> Weights:
    """Return weights of low rank."""
    return cross_validated(problem, lambda data: proximal_path(data, low_rank, 150))[0]


def coclustering(problem: Problem, counts: tuple[int, ...] = GROUPS) -> Weights:
    """Return a ridge inside the blocks that SpectralCoclustering finds in a lasso; their number by cross-validation."""
    first = lasso(problem)[0] * np.concatenate(problem.x).std(0)
    tries = []
    for k in counts:
        if k <= min(first.shape):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model = SpectralCoclustering(k, random_state=0).fit(np.abs(first) + 1e-9)
            allowed = model.row_labels_[:, None] == model.column_labels_
            found, _, loss = cross_validated(problem, lambda data, allowed=allowed: ridge_path(data, allowed))
            tries.append((loss, k, found))
    return min(tries, key=lambda made: made[:2])[2]


def known_blocks(problem: Problem) -> Weights:
    """Return a ridge inside the true blocks: what no search for them can beat."""
    assert problem.groups is not None
    allowed = problem.groups[1][:, None] == problem.groups[0]
    return cross_validated(problem, lambda data: ridge_path(data, allowed))[0]


def one_for_all(problem: Problem) -> Weights:
    """Return one ridge on the rows of all tasks, with one intercept."""
    pooled = problem._replace(x=[np.concatenate(problem.x)], y=[np.concatenate(problem.y)], labels=None)
    coef, intercept = cross_validated(pooled, ridge_path)[0]
    return np.repeat(coef, len(problem.x), 0), np.repeat(intercept, len(problem.x))


PEERS: dict[str, Callable[[Problem], Weights]] = {
    "lasso": lasso,
    "ridge": ridge,
    "multi-task lasso": multi_task_lasso,
    "trace norm": trace_norm,
    "lasso, co-clustering, ridge in blocks": coclustering,
}
