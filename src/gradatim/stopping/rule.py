"""Stop a stream where the estimate of the learner's loss falls to a threshold: for one task, or for many.

Source: Dawid 1984 (prequential assessment); the rule is this project's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ..tree import where
from .estimate import prequential

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..batch import Batch
    from ..learner import Learner
    from .estimate import LossEstimate


class StoppingResult(NamedTuple):
    """Where a stream was stopped.

    Fields: `state`: the learner's state there; `steps`: mini-batches learnt; `loss`: the estimated loss; `reached`:
    whether the threshold was met before the stream ended.
    """

    state: Any
    steps: Any
    loss: Any
    reached: Any


def stop_when(
    learner: Learner, batches: Iterable[Batch], estimate: LossEstimate, threshold: float
) -> StoppingResult:
    """Learn the stream of one task until the estimated loss falls to a threshold, or the stream ends.

        tau = min {t >= 1: m_t <= threshold}

    No mini-batch is taken from `batches` after that.

    Args:
        learner: of the parametric or explicit regime.
        batches: mini-batches of one task, x `[1, N, Dx]`.
        estimate: fitted for this kind of learner; see `fit_estimate`.
        threshold: a loss above 0.

    Returns:
        `StoppingResult(state [1, ...], steps: int, loss: float, reached: bool)`.

    Raises:
        ValueError: more than one task, or what `stopping_times` raises.

    Example:
        >>> import torch
        >>> from gradatim import LinearRegression, LossEstimate, build, stop_when
        >>> family = LinearRegression(4, noise_std=0.1)
        >>> ridge = build("ridge", family)
        >>> stream = family.sample(1, torch.Generator().manual_seed(0)).support.split(8)
        >>> result = stop_when(ridge, stream, LossEstimate(ridge), threshold=1.0)
        >>> result.steps, result.reached, result.loss <= 1.0
        (6, True, True)

    Source: Dawid 1984 (prequential assessment); the rule is this project's own.
    """
    result = stopping_times(learner, batches, estimate, threshold)
    if len(result.steps) != 1:
        raise ValueError(f"stop_when stops one task; got {len(result.steps)}: use stopping_times")
    return StoppingResult(result.state, int(result.steps), float(result.loss), bool(result.reached))


@torch.no_grad()
def stopping_times(
    learner: Learner, batches: Iterable[Batch], estimate: LossEstimate, threshold: float
) -> StoppingResult:
    """Learn the streams of B tasks; each stops where its own estimated loss falls to a threshold.

    Args:
        learner: of the parametric or explicit regime.
        batches: mini-batches of B tasks, x `[B, N, Dx]`.
        estimate: fitted for this kind of learner; see `fit_estimate`.
        threshold: a loss above 0.

    Returns:
        `StoppingResult(state [B, ...], steps [B] int64, loss [B], reached [B] bool)`. Tasks that never reach the
        threshold have the state at the end of the stream.

    Raises:
        ValueError: a threshold not above 0, no mini-batch, an estimate of another loss, a per-query learner, or
            several tasks whose states grow with the rows: such states cannot be stored side by side.

    Example:
        >>> import torch
        >>> from gradatim import LinearRegression, LossEstimate, build
        >>> from gradatim.stopping import stopping_times
        >>> family = LinearRegression(4, noise_std=0.1)
        >>> ridge = build("ridge", family)
        >>> stream = family.sample(3, torch.Generator().manual_seed(0)).support.split(8)
        >>> stopping_times(ridge, stream, LossEstimate(ridge), threshold=1.0).steps
        tensor([8, 4, 2])

    Source: Dawid 1984 (prequential assessment); the rule is this project's own.
    """
    if not threshold > 0:
        raise ValueError(f"a threshold is a loss above 0; got {threshold}")
    estimate.check(learner)
    result, means = None, estimate.init(1)
    for steps, step in enumerate(prequential(learner, batches), 1):
        if result is None:
            means = estimate.init(len(step.rows))
            if len(step.rows) > 1 and not learner.refiner.capabilities.bounded:
                raise ValueError(
                    "states that grow with the rows cannot stop apart: stop each task with stop_when"
                )
        means = estimate.update(means, step)
        loss = estimate(means)
        count = torch.full_like(step.rows, steps, dtype=torch.int64)
        current = StoppingResult(step.state, count, loss, loss <= threshold)
        result = current if result is None else _freeze_stopped(result, current)
        if result.reached.all():
            break
    # `prequential` refuses a stream without mini-batches.
    assert result is not None
    return result


def _freeze_stopped(previous: StoppingResult, current: StoppingResult) -> StoppingResult:
    """Return the previous result of tasks that had stopped, and the current result of the others."""
    if len(previous.steps) == 1:
        return current
    return where(previous.reached, previous, current)
