"""Stop where the learner's own estimate of its loss falls to a threshold: one task, or many, each in its own time.

Source: Dawid 1984, for judging a forecaster by its own past; the rule is this project's own.
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


class Stopped(NamedTuple):
    """Where a stream was left: `state`, after `steps` mini-batches, with the estimated `loss`; `reached`: in time."""

    state: Any
    steps: Any
    loss: Any
    reached: Any


def stop_when(
    learner: Learner, batches: Iterable[Batch], estimate: LossEstimate, threshold: float
) -> Stopped:
    """Learn one task's stream until the estimate falls to `threshold`, or it ends; no mini-batch is taken after that.

        tau = min {t >= 1: m_t <= threshold}

    Returns `Stopped(state [1, ...], steps: int, loss: float, reached: bool)`.

    Raises:
        ValueError: as `stopping_times`, or more than one task.

    Example:
        >>> stopped = stop_when(learner, support.split(16), estimate, threshold=0.3)
        >>> stopped.steps, stopped.loss, stopped.reached
        (12, 0.2981, True)
    """
    found = stopping_times(learner, batches, estimate, threshold)
    if len(found.steps) != 1:
        raise ValueError(f"stop_when stops one task; got {len(found.steps)}: use stopping_times")
    return Stopped(found.state, int(found.steps), float(found.loss), bool(found.reached))


@torch.no_grad()
def stopping_times(
    learner: Learner, batches: Iterable[Batch], estimate: LossEstimate, threshold: float
) -> Stopped:
    """Learn the streams of B tasks, each until its own estimate falls to `threshold`, or they end.

    Returns `Stopped(state [B, ...], steps [B] int64, loss [B], reached [B] bool)`, each task's own.

    Raises:
        ValueError: a threshold not above 0, no mini-batch, an estimate of another loss, a per-query learner, or states
            that grow with the rows and more than one task: they cannot be kept side by side.

    Example:
        >>> stopped = stopping_times(learner, task.support.split(16), estimate, threshold=0.3)
    """
    if not threshold > 0:
        raise ValueError(f"a threshold is a loss above 0; got {threshold}")
    estimate.check(learner)
    kept, running = None, estimate.init(1)
    for step, seen in enumerate(prequential(learner, batches), 1):
        if kept is None:
            running = estimate.init(len(seen.rows))
            if len(seen.rows) > 1 and not learner.refiner.capabilities.bounded:
                raise ValueError(
                    "states that grow with the rows cannot stop apart: stop each task with stop_when"
                )
        running = estimate.update(running, seen)
        loss = estimate(running)
        now = Stopped(seen.state, torch.full_like(seen.rows, step), loss, loss <= threshold)
        kept = now if kept is None else _keep(kept, now)
        if kept.reached.all():
            break
    assert kept is not None  # no mini-batch was refused
    return kept


def _keep(kept: Stopped, now: Stopped) -> Stopped:
    """Return what was kept where it had stopped, and the present elsewhere."""
    if len(kept.steps) == 1:
        return now
    return where(kept.reached, kept, now)
