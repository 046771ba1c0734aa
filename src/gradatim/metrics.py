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
from .predictor import weighted_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from .batch import Batch
    from .learner import Learner
    from .refiner import State

Metric = Callable[[Tensor, Task], Tensor]
"""From outputs `[B, Nq, Do]` and the tasks to one number a task, `[B]`."""


def _mean(rows: Tensor, query: Batch) -> Tensor:
    return weighted_mean(rows, query)


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


def order_of(outputs: Tensor) -> Tensor:
    """Return the order of the variables `[B, d]` int64, earliest first, that log odds `[B, d, d]` speak for.

    `outputs[b, i, j]`: the log odds that i stands before j, at the query of variable i. Ties go by column.
    """
    return outputs.sum(-1).argsort(dim=1, descending=True, stable=True)


def reversed_edges(outputs: Tensor, task: Task) -> Tensor:
    """Return the share of true edges that the predicted order reverses, `[B]`, from log odds `[B, d, d]`.

    sum_ij y_ij [place(i) > place(j)] / sum_ij y_ij,     0 where a graph has no edge
    """
    return reversed_by(order_of(outputs), task.query.y)


def invalid_order(outputs: Tensor, task: Task) -> Tensor:
    """Return 1 where the predicted order reverses any true edge, else 0, `[B]`, from log odds `[B, d, d]`."""
    return (reversed_by(order_of(outputs), task.query.y) > 0).to(outputs.dtype)


def reversed_by(order: Tensor, edges: Tensor) -> Tensor:
    """Return the share of `edges [B, d, d]` that point backwards in `order [B, d]`, `[B]`; 0 without edges.

    Example:
        >>> reversed_by(torch.tensor([[1, 0]]), torch.tensor([[[0.0, 1.0], [0.0, 0.0]]]))
        tensor([1.])
    """
    place = order.argsort(dim=1)
    backwards = place[:, :, None] > place[:, None]
    return (edges * backwards).sum((1, 2)) / edges.sum((1, 2)).clamp(min=1)


def curve(
    learner: Learner, task: Task, batch_size: int, steps: Iterable[int], metrics: Mapping[str, Metric]
) -> dict[str, np.ndarray]:
    """Return each metric after each of `steps` mini-batches, `[steps, B]`: one pass over the support.

    Raises:
        ValueError: the support has too few rows for the last of the steps.
    """
    wanted = _judged_steps(steps, batch_size, task)
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

    Every mini-batch is answered for itself, from the start; after step s the mean is over the first s of them, weighted
    by rows, after step 0 it is the start's answer. Unlike `Bagged`, which averages latents, it averages what they say.

        p_s(y | x) = sum_{t <= s} n_t softmax(f(x, read(step(init, batch_t))))_y / sum_{t <= s} n_t

    Raises:
        ValueError: tasks without classes, or a support with too few rows for the last of the steps.
    """
    if task.query.y.is_floating_point():
        raise ValueError(
            f"a vote averages class probabilities, so it needs classes, int64 in y; got {task.query.y.dtype}: "
            "judge a regression with curve, or average its latents with Bagged"
        )
    wanted = _judged_steps(steps, batch_size, task)
    found: dict[str, list[np.ndarray]] = {name: [] for name in metrics}
    with torch.no_grad():
        for step, mean in enumerate(_votes(learner, task, batch_size, wanted[-1])):
            if step in wanted:
                for name, metric in metrics.items():
                    found[name].append(metric(mean.log(), task).cpu().numpy())
    return {name: np.stack(values) for name, values in found.items()}


def _votes(learner: Learner, task: Task, batch_size: int, last: int) -> Iterator[Tensor]:
    """Yield the mean class probabilities `[B, Nq, C]` of no mini-batch (the start's), of the first, of two, ..."""
    query = task.query

    def said(state: State) -> Tensor:
        return learner.predict(query.x, state).softmax(-1)

    start = said(learner.refiner.init(task.n_tasks, query))
    total, seen = torch.zeros_like(start), start.new_zeros(task.n_tasks, 1, 1)
    yield start
    for batch in islice(task.support.split(batch_size), last):
        *_, state = learner.states([batch], query)
        rows = batch.rows.to(start.dtype)[:, None, None]
        total, seen = total + rows * said(state), seen + rows
        yield torch.where(seen > 0, total / seen.clamp(min=1), start)


def _judged_steps(steps: Iterable[int], batch_size: int, task: Task) -> list[int]:
    """Return the steps in order, each once, or raise ValueError where the support has too few rows for them."""
    wanted = sorted(set(steps))
    if not wanted or wanted[0] < 0 or wanted[-1] * batch_size > task.support.n_rows:
        raise ValueError(
            f"steps {wanted} of {batch_size} rows need up to {max(wanted, default=0) * batch_size} support rows; "
            f"the tasks have {task.support.n_rows}"
        )
    return wanted


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


def mean_interval(
    values: np.ndarray, resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> tuple[float, float, float]:
    """Return (mean, low, high): `bootstrap` of the mean of `values [S, T]`, all resamples at once.

        m_r = sum_st n_rs v_st k_rt / (S T),     n_r, k_r: how often seeds and tasks are drawn in resample r

    Example:
        >>> mean_interval(np.array([[0.1, 0.2], [0.3, 0.2]]))
    """
    seeds, tasks = values.shape
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(seeds, np.full(seeds, 1 / seeds), resamples)
    chosen = rng.multinomial(tasks, np.full(tasks, 1 / tasks), resamples)
    draws = ((drawn @ values) * chosen).sum(1) / (seeds * tasks)
    tail = 50 * (1 - level)
    low, high = np.percentile(draws, [tail, 100 - tail])
    return float(values.mean()), float(low), float(high)
