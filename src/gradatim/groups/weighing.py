"""How much each expert counts in a group: a prior over experts and a power of the evidence, chosen by cross-fitting.

Source: Yao et al. 2018, eq. 5 (stacking of predictive distributions); Grünwald 2012 (a power of the likelihood).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import ndtr

POWERS = (0.03, 0.1, 0.3, 1.0)
"""Powers of the evidence that are tried: rows of a group depend on each other, so the evidence is too sure."""

PULL = 0.002
"""How strongly the prior over experts is held near the first guess."""


CALIBRATING = 12_000
"""Rows at most that say how wide intervals are."""


class Trials(NamedTuple):
    """What experts said of rows of groups that did not teach them, for each first part of a group.

    Fields: `evidence [m, E]`: of each part, the log evidence of the experts; `part [n]`: of each later row; `mean` and
    `variance [n, E]`: of each row (classes: probability, and none); `y [n]`; `count [m]`: rows of the part; `weight
    [n]`: so that every part counts alike.
    """

    evidence: np.ndarray
    part: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    y: np.ndarray
    count: np.ndarray
    weight: np.ndarray


class Weighing(NamedTuple):
    """The prior over experts `log_prior [E]`, the power of the evidence, and how wide intervals are by rows known.

    `counts [s]` and `stretch [s]`: factors of the deviations after so many rows; `loss`: what cross-fitting found.
    """

    log_prior: np.ndarray
    power: float
    counts: np.ndarray
    stretch: np.ndarray
    loss: float = 0.0

    def weights(self, evidence: np.ndarray) -> np.ndarray:
        """Return the weights of experts `[m, E]` from their log evidence `[m, E]`."""
        log_weight = self.log_prior + self.power * evidence
        log_weight = log_weight - log_weight.max(-1, keepdims=True)
        weight = np.exp(log_weight)
        return weight / weight.sum(-1, keepdims=True)

    def stretched(self, count: np.ndarray) -> np.ndarray:
        """Return factors of the deviations `[m]` of groups with `count [m]` rows."""
        return np.interp(np.log1p(count), np.log1p(self.counts), self.stretch)


def choose(trials: Trials, guess: np.ndarray, classes: bool) -> Weighing:
    """Return the weighing that loses least: squared error of numbers, log-loss of classes.

    `guess [E]`: log prior over experts to stay near to.
    """
    best = None
    counts = np.unique(trials.count)
    for power in POWERS:
        loss, log_prior = _fit(trials, power, guess, classes)
        found = Weighing(log_prior, power, counts, np.ones(len(counts)), loss)
        best = found if best is None or loss < best.loss else best
    assert best is not None
    return best if classes else best._replace(stretch=_stretch(trials, best, counts))


def _fit(trials: Trials, power: float, guess: np.ndarray, classes: bool) -> tuple[float, np.ndarray]:
    """Return the loss, and the log prior over experts that minimises it under a power."""
    evidence = power * (trials.evidence - trials.evidence.max(1, keepdims=True))
    scale = np.zeros(int(trials.count.max()) + 1)
    if not classes:  # parts of equally many rows share one scale: a mean of log losses, about its start
        start = _softmax(guess + evidence)[trials.part]
        miss = trials.weight * (trials.y - (start * trials.mean).sum(1)) ** 2
        np.add.at(scale, trials.count[trials.part].astype(int), miss)
        scale /= np.maximum(
            np.bincount(trials.count[trials.part].astype(int), trials.weight, len(scale)), 1e-12
        )
        unit = 1 / np.maximum(scale[trials.count[trials.part].astype(int)], 1e-12)
    weight = trials.weight / trials.weight.sum()

    def objective(log_prior: np.ndarray) -> tuple[float, np.ndarray]:
        share = _softmax(log_prior + evidence)[trials.part]
        mixed = (share * trials.mean).sum(1)
        if classes:
            right = np.where(trials.y > 0, mixed, 1 - mixed)
            loss = -(weight * np.log(np.maximum(right, 1e-12))).sum()
            slope = -weight * np.where(trials.y > 0, 1.0, -1.0) / np.maximum(right, 1e-12)
        else:
            loss = (weight * unit * (trials.y - mixed) ** 2).sum()
            slope = -2 * weight * unit * (trials.y - mixed)
        gradient = ((slope[:, None] * share) * (trials.mean - mixed[:, None])).sum(0)
        away = log_prior - guess
        return loss + PULL * (away**2).mean(), gradient + 2 * PULL * away / len(away)

    found = minimize(objective, guess, jac=True, method="L-BFGS-B", options={"maxiter": 60})
    loss = objective(found.x)[0]
    if not classes:  # the unit depends on the power: compare on the scale of y
        loss = float(
            np.log(np.maximum(scale[np.unique(trials.count)], 1e-12)).mean() + np.log(max(loss, 1e-12))
        )
    return float(loss), found.x


def _stretch(trials: Trials, weighing: Weighing, counts: np.ndarray) -> np.ndarray:
    """Return, for each count of rows known, by how much deviations grow so that 80% intervals hold 80%."""
    every = np.arange(0, len(trials.y), max(1, len(trials.y) // CALIBRATING))
    share = weighing.weights(trials.evidence)[trials.part[every]]
    mean, y = trials.mean[every], trials.y[every]
    centre = (share * mean).sum(1)
    low, high = mixture_quantiles(share, mean, np.sqrt(trials.variance[every]), np.array([0.1, 0.9]), 30).T
    width = np.where(y > centre, high - centre, centre - low)
    ratio = abs(y - centre) / np.maximum(width, 1e-12)
    known, weight, found = trials.count[trials.part[every]], trials.weight[every], []
    for count in counts:
        # parts of a neighbouring count help where groups are few: a quarter of the weight
        near = np.where(known == count, 1.0, 0.25 * (abs(np.log2((known + 1) / (count + 1))) < 1.1))
        order = np.argsort(ratio)
        total = np.cumsum((near * weight)[order])
        found.append(float(ratio[order][np.searchsorted(total, 0.8 * total[-1])]))
    return np.maximum(np.array(found), 0.05)


def mixture_quantiles(
    weight: np.ndarray, mean: np.ndarray, deviation: np.ndarray, levels: np.ndarray, steps: int = 60
) -> np.ndarray:
    """Return quantiles `[n, Q]` of mixtures of normals with weights, means and deviations `[n, E]`, by bisection.

    Example:
        >>> import numpy as np
        >>> from gradatim.groups.weighing import mixture_quantiles
        >>> one = np.ones((1, 1))
        >>> mixture_quantiles(one, 0 * one, one, np.array([0.1, 0.9])).round(3)
        array([[-1.282,  1.282]])
    """
    out = np.empty((len(weight), len(levels)))
    far = 9.0 * deviation
    for at, level in enumerate(levels):
        low, high = (mean - far).min(1), (mean + far).max(1)
        for _ in range(steps):
            middle = 0.5 * (low + high)
            below = (weight * ndtr((middle[:, None] - mean) / deviation)).sum(1) < level
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        out[:, at] = 0.5 * (low + high)
    return out


def _softmax(logits: np.ndarray) -> np.ndarray:
    weight = np.exp(logits - logits.max(1, keepdims=True))
    return weight / weight.sum(1, keepdims=True)
