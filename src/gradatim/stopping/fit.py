"""Fit the estimate of a loss so that it is right on average, where one stops too.

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

_AT_ONCE, _BATCH, _THRESHOLDS = 128, 64, 8


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
    """Return the estimate for a learner, fitted on streams of `steps` mini-batches of meta-training tasks.

        sum_t D(y_t, m_t) + sum_c D(y_tau(c), m_tau(c)),   D(y, m) = y / m + log m,   tau(c) = min {t: m_t <= c}

    `y_t`: the query loss. The thresholds c are drawn anew in every iteration, alike over the logarithm of the step.
    D is least at the conditional mean, so that y is neither above nor below m on average, whenever one stops.

    Raises:
        ValueError: a number below 1 (2 tasks), a per-query learner, or losses that are negative or not finite.

    Example:
        >>> family = LinearRegression(8, 0.5)
        >>> estimate = fit_estimate(build("ridge", family, strength=0.25), family, tasks=256)
        >>> state, steps, loss, reached = stop_when(learner, support.split(16), estimate, threshold=0.3)

    Source: McCullagh, Nelder 1989, chapter 8 (the gamma deviance).
    """
    for name, value, least in (("batch_size", batch_size, 1), ("steps", steps, 1), ("tasks", tasks, 2)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}; got {value}")
    own = (t for t in chain(learner.parameters(), learner.buffers()) if t.is_floating_point())
    like = next(own, torch.zeros(()))
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        estimate = LossEstimate(learner).to(like.device)
    family = replace(family.on("train"), support_rows=batch_size * steps, min_support_rows=None)
    counts = [min(_AT_ONCE, tasks - start) for start in range(0, tasks, _AT_ONCE)]
    parts = [_streams(estimate, learner, family, batch_size, count, generator, like) for count in counts]
    features, losses = (torch.cat(part) for part in zip(*parts, strict=True))
    if not (features.isfinite().all() and losses.isfinite().all() and losses.min() >= 0):
        raise ValueError("an estimate needs losses that are finite and not negative; this learner has others")
    estimate.center.copy_(features.mean((0, 1)))
    values, axes = torch.linalg.eigh(features.flatten(0, 1).T.cov())
    estimate.scale.copy_(axes / (values.clamp(min=0) + 1e-3).sqrt())
    optimizer = torch.optim.AdamW(estimate.parameters(), lr, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(iterations, 1))
    for _ in range(iterations):
        some = torch.randint(tasks, (_BATCH,), generator=generator)
        log_m = features[some, :, 0] + estimate.correction(features[some])
        deviance = losses[some] * (-log_m).exp() + log_m
        places = _drawn_stops(log_m.detach(), generator)
        optimizer.zero_grad()
        (deviance.mean() + deviance.gather(1, places).mean()).backward()
        optimizer.step()
        schedule.step()
    return estimate.requires_grad_(False).eval()


def crossings(path: Tensor, thresholds: Tensor) -> tuple[Tensor, Tensor]:
    """Return where a `path [B, T]` of estimates first falls to each of `thresholds [K]`, and whether it does.

    `[B, K]` int64, the last place where it never does, and `[B, K]` bool.
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
    """Return features `[B, T, F]` and query losses `[B, T]` of the streams of fresh tasks, computed like `like`."""
    task = family.sample(tasks, generator).to(like.device).to(like.dtype)
    running, features, losses = estimate.init(tasks), [], []
    for seen in prequential(learner, task.support.split(batch_size)):
        running = estimate.update(running, seen)
        features.append(estimate.features(running))
        losses.append(learner.loss(task.query, seen.state))
    return torch.stack(features, dim=1), torch.stack(losses, dim=1).to(estimate.center)


def _drawn_stops(log_m: Tensor, generator: torch.Generator) -> Tensor:
    """Return where the estimates `[B, T]` first cross thresholds drawn from them, alike over log steps, `[B, K]`."""
    tasks, steps = log_m.shape
    places = (steps ** torch.rand(_THRESHOLDS, generator=generator)).long().clamp(max=steps) - 1
    whose = torch.randint(tasks, (_THRESHOLDS,), generator=generator)
    return crossings(log_m, log_m.cummin(1).values[whose, places])[0]
