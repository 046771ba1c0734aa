"""How wrong an answer is, task by task, and how sure a mean over tasks and seeds is.

Source: Efron, Tibshirani 1993, chapter 13 (percentile bootstrap), resampling seeds and tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .batch import Task

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .batch import Batch
    from .learner import Learner

Metric = Callable[[Tensor, Task], Tensor]
"""From outputs `[B, Nq, Do]` and the tasks to one number a task, `[B]`."""


def _mean(rows: Tensor, query: Batch) -> Tensor:
    return (rows * query.mask).sum(1) / query.rows.clamp(min=1)


def error_rate(outputs: Tensor, task: Task) -> Tensor:
    """Return the share of query rows whose most likely class is wrong, `[B]`, from logits `[B, Nq, C]`."""
    wrong = outputs.argmax(-1) != task.query.y[..., 0]
    return _mean(wrong.to(outputs.dtype), task.query)


def accuracy(outputs: Tensor, task: Task) -> Tensor:
    """Return the share of query rows whose most likely class is right, `[B]`, from logits `[B, Nq, C]`."""
    right = outputs.argmax(-1) == task.query.y[..., 0]
    return _mean(right.to(outputs.dtype), task.query)


def squared_error(outputs: Tensor, task: Task) -> Tensor:
    """Return the mean squared error at the query rows, `[B]`, from outputs `[B, Nq, Dy]`."""
    return _mean((outputs - task.query.y).square().sum(-1), task.query)


def excess_risk(outputs: Tensor, task: Task) -> Tensor:
    """Return the mean over query rows of `(f(x) - E[y | x])^2`, `[B]`: the squared error above the noise.

    Raises:
        ValueError: the family does not know the noiseless answer.
    """
    if task.truth is None:
        raise ValueError(
            "the excess risk needs a family that knows the noiseless answer (Task.truth); this has none"
        )
    return _mean((outputs - task.truth).square().sum(-1), task.query)


def curve(
    learner: Learner, task: Task, batch_size: int, steps: Iterable[int], metrics: Mapping[str, Metric]
) -> dict[str, np.ndarray]:
    """Return each metric after each of `steps` mini-batches, `[steps, B]`: one pass over the support.

    Raises:
        ValueError: the support has too few rows for the last of the steps.
    """
    wanted = sorted(set(steps))
    if not wanted or wanted[0] < 0 or wanted[-1] * batch_size > task.support.n_rows:
        raise ValueError(
            f"steps {wanted} of {batch_size} rows need up to {max(wanted, default=0) * batch_size} support rows; "
            f"the tasks have {task.support.n_rows}"
        )
    found: dict[str, list[np.ndarray]] = {name: [] for name in metrics}
    batches = islice(task.support.split(batch_size), max(wanted[-1], 1))
    with torch.no_grad():
        for step, state in enumerate(learner.states(batches, task.query)):
            if step in wanted:
                outputs = learner.predict(task.query.x, state)
                for name, metric in metrics.items():
                    found[name].append(metric(outputs, task).cpu().numpy())
    return {name: np.stack(values) for name, values in found.items()}


def soft_vote(
    learner: Learner, task: Task, batch_size: int, steps: Iterable[int], metrics: Mapping[str, Metric]
) -> dict[str, np.ndarray]:
    """Return each metric of the mean class probabilities of single refinements, `[steps, B]`.

    Every mini-batch is answered for itself, from the start; after step s the mean is over the first s of them. Unlike
    `Bagged`, which averages latents, it averages what they say.
    """
    wanted = sorted(set(steps))
    found: dict[str, list[np.ndarray]] = {name: [] for name in metrics}
    with torch.no_grad():
        start, said = learner.refiner.init(task.n_tasks, task.query), torch.zeros(())
        for step, batch in enumerate(islice(task.support.split(batch_size), wanted[-1]), 1):
            said = said + learner.predict(task.query.x, learner.step(start, batch)).softmax(-1)
            if step in wanted:
                for name, metric in metrics.items():
                    found[name].append(metric((said / step).log(), task).cpu().numpy())
    return {name: np.stack(values) for name, values in found.items()}


def bootstrap(
    statistic: Callable[..., float],
    *values: np.ndarray,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Return (statistic, low, high): the percentile interval over meta-training seeds and tasks together.

    Each of `values` is `[S, T, ...]`, S seeds by T tasks, paired by task; a method without meta-training has S = 1.
    `statistic` gets arrays of the same shapes. Seeds are drawn anew for each array, tasks once for all.

    Raises:
        ValueError: arrays of different numbers of tasks.

    Example:
        >>> bootstrap(lambda a, b: a.mean() / b.mean(), ours, theirs)
    """
    tasks = {array.shape[1] for array in values}
    if len(tasks) != 1:
        raise ValueError(f"values paired by task need one number of tasks; got {sorted(tasks)}")
    count = tasks.pop()
    rng = np.random.default_rng(seed)
    draws = np.empty(resamples)
    for i in range(resamples):
        chosen = rng.integers(count, size=count)
        drawn = [array[rng.integers(len(array), size=len(array))][:, chosen] for array in values]
        draws[i] = statistic(*drawn)
    tail = 50 * (1 - level)
    low, high = np.percentile(draws, [tail, 100 - tail])
    return float(statistic(*values)), float(low), float(high)
