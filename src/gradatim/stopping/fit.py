"""Fit the estimate of a loss so that it is unbiased, also at the step where the stream is stopped.

Source: McCullagh, Nelder 1989, chapter 8: the gamma deviance, least at the conditional mean.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

import torch

from .estimate import LossEstimate, prequential

if TYPE_CHECKING:
    from torch import Tensor

    from ..family import TaskFamily
    from ..learner import Learner

_SAMPLE_TASKS, _FIT_TASKS, _THRESHOLDS = 128, 64, 8


def fit_estimate(
    learner: Learner,
    family: TaskFamily,
    batch_size: int = 16,
    steps: int = 160,
    tasks: int = 2048,
    seed: int = 0,
    iterations: int = 1000,
    lr: float = 1e-2,
) -> LossEstimate:
    """Return an estimate of the learner's query loss, fitted on streams of meta-training tasks.

        sum_t D(y_t, m_t) + sum_c D(y_tau(c), m_tau(c))
        D(y, m) = y / m + log m,   tau(c) = min {t: m_t <= c}

    `y_t` is the query loss and `m_t` its estimate. The thresholds c are drawn anew in every iteration, so that the
    steps where they are met are uniform over the logarithm of the step. D is minimal at the conditional mean, so the
    estimate is unbiased at every step, also where a threshold stops the stream.

    Args:
        learner: of the parametric or explicit regime.
        family: the tasks; those of its split `train` are used.
        batch_size: rows of each mini-batch; a stream has `steps` of them.
        tasks: number of streams.
        seed: of the tasks, the initial weights and the thresholds.
        iterations: steps of AdamW, whose learning rate starts at `lr`.

    Raises:
        ValueError: a number below 1 (2 tasks), a per-query learner, or losses that are negative or not finite.

    Example:
        >>> import torch
        >>> from gradatim import LinearRegression, build, fit_estimate, stop_when
        >>> family = LinearRegression(4, noise_std=0.5)
        >>> ridge = build("ridge", family, strength=0.25)
        >>> estimate = fit_estimate(ridge, family, batch_size=8, steps=12, tasks=16, iterations=20)
        >>> stream = family.sample(1, torch.Generator().manual_seed(0)).support.split(8)
        >>> stop_when(ridge, stream, estimate, threshold=0.4).reached
        True

    Source: McCullagh, Nelder 1989, chapter 8 (the gamma deviance).
    """
    for name, value, minimum in (("batch_size", batch_size, 1), ("steps", steps, 1), ("tasks", tasks, 2)):
        if value < minimum:
            raise ValueError(f"{name} must be at least {minimum}; got {value}")
    floating = (t for t in chain(learner.parameters(), learner.buffers()) if t.is_floating_point())
    like = next(floating, torch.zeros(()))
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        estimate = LossEstimate(learner).to(like.device)
    family = replace(family.on("train"), support_rows=batch_size * steps, min_support_rows=None)
    counts = [min(_SAMPLE_TASKS, tasks - start) for start in range(0, tasks, _SAMPLE_TASKS)]
    parts = [_streams(estimate, learner, family, batch_size, count, generator, like) for count in counts]
    features, losses = (torch.cat(part) for part in zip(*parts, strict=True))
    if not (features.isfinite().all() and losses.isfinite().all() and losses.min() >= 0):
        raise ValueError("an estimate needs losses that are finite and not negative; this learner has others")
    _train(estimate, features, losses, generator, iterations, lr)
    return estimate.requires_grad_(False).eval()


def hitting_times(path: Tensor, thresholds: Tensor) -> tuple[Tensor, Tensor]:
    """Return the index where a path first falls to each threshold, and whether it does.

    Args:
        path: estimates `[B, T]`.
        thresholds: `[K]`.

    Returns:
        Index `[B, K]` int64, T - 1 where the path stays above, and reached `[B, K]` bool.

    Example:
        >>> import torch
        >>> from gradatim.stopping import hitting_times
        >>> hitting_times(torch.tensor([[3.0, 2.0, 1.0]]), torch.tensor([2.5, 0.5]))
        (tensor([[1, 2]]), tensor([[ True, False]]))
    """
    below = path[:, None] <= thresholds[:, None]
    reached = below.any(-1)
    return torch.where(reached, below.int().argmax(-1), path.shape[1] - 1), reached


@torch.no_grad()
def _streams(
    estimate: LossEstimate,
    learner: Learner,
    family: TaskFamily,
    batch_size: int,
    tasks: int,
    generator: torch.Generator,
    like: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return features `[B, T, F]` and query losses `[B, T]` of new tasks, on the device and in the dtype of `like`."""
    task = family.sample(tasks, generator).to(like.device).to(like.dtype)
    means, features, losses = estimate.init(tasks), [], []
    for step in prequential(learner, task.support.split(batch_size)):
        means = estimate.update(means, step)
        features.append(estimate.features(means))
        losses.append(learner.loss(task.query, step.state))
    return torch.stack(features, dim=1), torch.stack(losses, dim=1).to(estimate.center)


def _train(
    estimate: LossEstimate,
    features: Tensor,
    losses: Tensor,
    generator: torch.Generator,
    iterations: int,
    lr: float,
) -> None:
    """Whiten features `[B, T, F]`, and fit the estimate to query losses `[B, T]` with AdamW."""
    estimate.center.copy_(features.mean((0, 1)))
    values, axes = torch.linalg.eigh(features.flatten(0, 1).T.cov())
    estimate.scale.copy_(axes / (values.clamp(min=0) + 1e-3).sqrt())
    optimizer = torch.optim.AdamW(estimate.parameters(), lr, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(iterations, 1))
    for _ in range(iterations):
        index = torch.randint(len(features), (_FIT_TASKS,), generator=generator)
        log_m = features[index, :, 0] + estimate.correction(features[index])
        deviance = losses[index] * (-log_m).exp() + log_m
        stops = _random_stops(log_m.detach(), generator)
        optimizer.zero_grad()
        (deviance.mean() + deviance.gather(1, stops).mean()).backward()
        optimizer.step()
        schedule.step()


def _random_stops(log_m: Tensor, generator: torch.Generator) -> Tensor:
    """Return the steps `[B, K]` where log estimates `[B, T]` first fall to K thresholds drawn from them."""
    tasks, steps = log_m.shape
    # Uniform over the logarithm of the step: early and late stops weigh the same.
    index = (steps ** torch.rand(_THRESHOLDS, generator=generator)).long().clamp(max=steps) - 1
    task = torch.randint(tasks, (_THRESHOLDS,), generator=generator)
    return hitting_times(log_m, log_m.cummin(1).values[task, index])[0]
