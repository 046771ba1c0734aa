"""Streams of a linear task that changes, and the prequential errors of learners and of river's models on them.

Source: Dawid 1984 (prequential: predict, then learn); Gama et al. 2014, section 4 (abrupt and gradual drift).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gradatim.batch import Batch
from gradatim.families import LinearRegression
from gradatim.tree import where

if TYPE_CHECKING:
    from torch import Tensor

    from gradatim.learner import Learner

FAMILY = LinearRegression(8, 0.5)
ROWS, HAZARD, DEGREES = 16, 1 / 25, 2.0


@dataclass(frozen=True)
class Streams:
    """S streams of T mini-batches.

    Attributes:
        x: `[S, T, 16, 8]`, float64.
        y: `[S, T, 16, 1]`, float64.
        clean: y without noise, `[S, T, 16, 1]`.
        changed: whether theta is sampled anew before the mini-batch, `[S, T]` bool.
    """

    x: Tensor
    y: Tensor
    clean: Tensor
    changed: Tensor

    def first(self, streams: int) -> Streams:
        """Return the first streams, x `[streams, T, 16, 8]`."""
        return Streams(*(part[:streams] for part in (self.x, self.y, self.clean, self.changed)))


def sample_streams(kind: str, streams: int, steps: int, seed: int) -> Streams:
    """Return streams of a linear task: theta ~ N(0, I), x ~ N(0, I), noise 0.5.

    - `abrupt`: theta is sampled anew with probability 1/25 before each mini-batch.
    - `rotating`: theta turns by 2 degrees a mini-batch, in a plane through it and a random direction.
    """
    g, width = torch.Generator().manual_seed(seed), FAMILY.dim
    normal = partial(torch.randn, generator=g, dtype=torch.float64)
    changed = torch.rand(streams, steps, generator=g) < (HAZARD if kind == "abrupt" else 0.0)
    changed[:, 0] = True
    thetas, direction = normal(streams, steps, width), normal(streams, 1, width)
    if kind == "abrupt":
        latest = torch.where(changed, torch.arange(steps), 0).cummax(1).values
        theta = thetas.gather(1, latest[..., None].expand_as(thetas))
    else:
        start = thetas[:, :1]
        length = start.norm(dim=2, keepdim=True)
        across = direction - (direction * start).sum(2, keepdim=True) / length**2 * start
        across = across / across.norm(dim=2, keepdim=True) * length
        angle = torch.arange(steps, dtype=torch.float64)[:, None] * math.radians(DEGREES)
        theta = angle.cos() * start + angle.sin() * across
    x = normal(streams, steps, ROWS, width)
    clean = x @ theta[..., None]
    return Streams(x, clean + FAMILY.noise_std * normal(clean.shape), clean, changed)


@torch.no_grad()
def excess_errors(learner: Learner, data: Streams, oracle: bool = False) -> np.ndarray:
    """Return the mean of `(f(x) - E[y | x])^2` over each mini-batch, predicted before it is learnt, `[T, S]`.

    `oracle`: reset the learner where theta is sampled anew.
    """
    learner = learner.double()
    fresh = state = learner.refiner.init(len(data.x))
    errors = []
    for t in range(data.x.shape[1]):
        if oracle:
            state = where(data.changed[:, t], fresh, state)
        batch = Batch(data.x[:, t], data.y[:, t])
        errors.append((learner.predict(batch.x, state) - data.clean[:, t]).square().mean((1, 2)))
        state = learner.step(state, batch)
    return torch.stack(errors).numpy()


def river_excess_errors(make: Callable[[], Any], data: Streams) -> np.ndarray:
    """Return what `excess_errors` does, `[T, S]`, for a model of river.

    All rows of a mini-batch are predicted, then learnt one by one.
    """
    errors = np.empty((data.x.shape[1], len(data.x)))
    for s, (xs, ys, cleans) in enumerate(zip(data.x.tolist(), data.y.tolist(), data.clean, strict=True)):
        model = make()
        for t, (rows, answers) in enumerate(zip(xs, ys, strict=True)):
            named = [dict(enumerate(row)) for row in rows]
            predicted = np.array([model.predict_one(row) for row in named])
            errors[t, s] = np.square(predicted - cleans[t, :, 0].numpy()).mean()
            for row, (answer,) in zip(named, answers, strict=True):
                model.learn_one(row, answer)
    return errors


def river(name: str, **settings: Any) -> Any:
    """Return a model of river.

    - `linear`: Bayesian linear regression.
    - `restarted`: a linear model that is reset when Page-Hinkley detects a rise of its error.
    - `tree`: a Hoeffding adaptive tree.
    - `forest`: an adaptive random forest.

    Raises:
        ValueError: river is not installed.
    """
    try:
        from river import drift, forest, linear_model, tree
    except ImportError as error:
        raise ValueError(
            "the baselines of streams that change come from river: pip install gradatim[studies]"
        ) from error
    if name == "linear":
        smoothing = settings["smoothing"]
        return linear_model.BayesianLinearRegression(
            settings["alpha"], smoothing=None if smoothing == 1 else smoothing
        )
    if name == "restarted":
        begin = partial(river, "linear", alpha=settings["alpha"], smoothing=1)
        watch = partial(drift.PageHinkley, min_instances=ROWS, threshold=settings["threshold"], mode="up")
        return Restarted(begin, watch)
    if name == "tree":
        return tree.HoeffdingAdaptiveTreeRegressor(seed=0, leaf_prediction="model", **settings)
    return forest.ARFRegressor(seed=0, leaf_prediction="model", **settings)


class Restarted:
    """A model of river that is reset, with its detector, when the detector finds that the squared error has risen."""

    def __init__(self, begin: Callable[[], Any], watch: Callable[[], Any]) -> None:
        self.begin, self.watch = begin, watch
        self.model, self.detector = begin(), watch()

    def predict_one(self, x: dict[int, float]) -> float:
        """Return the prediction at one row."""
        return self.model.predict_one(x)

    def learn_one(self, x: dict[int, float], y: float) -> None:
        """Learn one row."""
        self.detector.update((self.model.predict_one(x) - y) ** 2)
        if self.detector.drift_detected:
            self.model, self.detector = self.begin(), self.watch()
        self.model.learn_one(x, y)
