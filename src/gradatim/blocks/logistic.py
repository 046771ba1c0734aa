"""Logistic weights of binary tasks: sparse ones for a start, and those under a Gaussian prior for each weight.

Source: Beck, Teboulle 2009, eq. 4.1; Bishop 2006, eqs. 4.96 to 4.99 (Newton's steps).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit

if TYPE_CHECKING:
    from collections.abc import Sequence

INTERCEPT = 0.01
"""Prior precision of an intercept: a task of one class has an answer, too."""


def sparse_path(x: np.ndarray, y: np.ndarray, strengths: Sequence[float], steps: int = 150) -> np.ndarray:
    """Return weights and intercepts `[S, d + 1]` of one task under falling penalties `strength * |w|`.

    Args:
        x: centred rows `[n, d]`.
        y: 0 or 1, `[n]`.
        strengths: from the largest, each warm from the one before.
        steps: of accelerated proximal gradient, each strength.
    """
    rows, found = max(len(y), 1), []
    wide = np.concatenate([x, np.ones((len(y), 1))], 1)
    bound = 0.25 * np.linalg.norm(wide, 2) ** 2 / rows + INTERCEPT / rows if len(y) else 1.0
    weights = np.zeros(wide.shape[1])
    ridge = np.append(np.zeros(x.shape[1]), INTERCEPT / rows)
    for strength in strengths:
        penalty = np.append(np.full(x.shape[1], strength), 0.0) / bound
        ahead, old = weights, 1.0
        for _ in range(steps):
            moved = ahead - (wide.T @ (expit(wide @ ahead) - y) / rows + ridge * ahead) / bound
            new = np.sign(moved) * np.maximum(np.abs(moved) - penalty, 0.0)
            momentum = 0.5 * (1 + np.sqrt(1 + 4 * old * old))
            ahead, before = new + (old - 1) / momentum * (new - weights), weights
            weights, old = new, momentum
            if np.abs(new - before).max() <= 1e-5 * (1e-3 + np.abs(new).max()):
                break
        found.append(weights)
    return np.stack(found)


def logistic_mode(
    x: np.ndarray, y: np.ndarray, variance: np.ndarray, offset: np.ndarray | float = 0.0, steps: int = 25
) -> np.ndarray:
    """Return the likeliest weights and intercept `[d + 1]` of one task by Newton's steps.

    Args:
        x: rows `[n, d]`.
        y: 0 or 1, `[n]`.
        variance: of each weight's prior, `[d]`; a weight without variance is 0.
        offset: added to the logits.
        steps: at most.
    """
    free = np.append(variance > 0, True)
    wide = np.concatenate([x, np.ones((len(y), 1))], 1)[:, free]
    precision = np.append(1 / variance[variance > 0], INTERCEPT)
    weights = np.zeros(len(precision))

    def loss(w: np.ndarray) -> float:
        logits = wide @ w + offset
        return float((np.logaddexp(0.0, logits) - y * logits).sum() + 0.5 * precision @ w**2)

    now = loss(weights)
    for _ in range(steps):
        chance = expit(wide @ weights + offset)
        slope = wide.T @ (chance - y) + precision * weights
        curve = (wide * (chance * (1 - chance))[:, None]).T @ wide + np.diag(precision)
        step = np.linalg.solve(curve, slope)
        size = 1.0
        while (new := loss(weights - size * step)) > now and size > 1e-4:
            size *= 0.5
        if new > now:
            break
        weights, before, now = weights - size * step, now, new
        if before - now < 1e-9 * (1 + abs(now)):
            break
    out = np.zeros(len(free))
    out[free] = weights
    return out


def logistic_tasks(
    xs: Sequence[np.ndarray],
    ys: Sequence[np.ndarray],
    variance: np.ndarray,
    spread: float = 0.0,
    rounds: int = 3,
) -> np.ndarray:
    """Return weights and intercepts `[T, d + 1]` of tasks, each with prior variances `[T, d]`.

    With `spread` above 0 all tasks share a vector under that variance; steps for it and for what tasks have alone take
    turns.
    """
    shared = np.zeros(variance.shape[1])
    joined = np.concatenate(list(xs)), np.concatenate(list(ys))
    own = np.zeros((len(xs), variance.shape[1] + 1))
    for _ in range(rounds if spread > 0 else 1):
        own = np.stack([logistic_mode(x, y, v, x @ shared) for x, y, v in zip(xs, ys, variance, strict=True)])
        if spread > 0:
            offset = np.concatenate([x @ w[:-1] + w[-1] for x, w in zip(xs, own, strict=True)])
            shared = logistic_mode(*joined, np.full(len(shared), spread), offset)[:-1]
    own[:, :-1] += shared
    return own
