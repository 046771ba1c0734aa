"""Errors of predictions, task by task, and intervals of their means over tasks and seeds.

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
"""A function from outputs `[B, Nq, Do]` and the tasks to one number for each task, `[B]`."""


def _mean(rows: Tensor, query: Batch) -> Tensor:
    return weighted_mean(rows, query)


def error_rate(outputs: Tensor, task: Task) -> Tensor:
    """Return the share of query rows whose most likely class is wrong, `[B]`, from logits `[B, Nq, C]`.

    Example:
        >>> import torch
        >>> from gradatim import Batch, Task
        >>> from gradatim.metrics import error_rate
        >>> rows = Batch(torch.zeros(1, 2, 3), torch.tensor([[[0], [1]]]))
        >>> error_rate(torch.tensor([[[2.0, 0.0], [2.0, 0.0]]]), Task(rows, rows))
        tensor([0.5000])
    """
    wrong = outputs.argmax(-1) != task.query.y[..., 0]
    return _mean(wrong.to(outputs.dtype), task.query)


def accuracy(outputs: Tensor, task: Task) -> Tensor:
    """Return the share of query rows whose most likely class is right, `[B]`, from logits `[B, Nq, C]`.

    Example:
        >>> import torch
        >>> from gradatim import Batch, Task
        >>> from gradatim.metrics import accuracy
        >>> rows = Batch(torch.zeros(1, 2, 3), torch.tensor([[[0], [1]]]))
        >>> accuracy(torch.tensor([[[2.0, 0.0], [0.0, 2.0]]]), Task(rows, rows))
        tensor([1.])
    """
    right = outputs.argmax(-1) == task.query.y[..., 0]
    return _mean(right.to(outputs.dtype), task.query)


def squared_error(outputs: Tensor, task: Task) -> Tensor:
    """Return the mean squared error at the query rows, `[B]`, from outputs `[B, Nq, Dy]`.

    Example:
        >>> import torch
        >>> from gradatim import Batch, Task
        >>> from gradatim.metrics import squared_error
        >>> rows = Batch(torch.zeros(1, 2, 3), torch.ones(1, 2, 1))
        >>> squared_error(torch.full((1, 2, 1), 3.0), Task(rows, rows))
        tensor([4.])
    """
    return _mean((outputs - task.query.y).square().sum(-1), task.query)


def excess_risk(outputs: Tensor, task: Task) -> Tensor:
    """Return the squared error above the noise, `[B]`, from outputs `[B, Nq, Dy]`.

    It is the mean over query rows of `(f(x) - E[y | x])^2`.

    Raises:
        ValueError: the family does not know the noiseless answer.

    Example:
        >>> import torch
        >>> from gradatim import Batch, Task
        >>> from gradatim.metrics import excess_risk
        >>> rows = Batch(torch.zeros(1, 2, 3), torch.ones(1, 2, 1))
        >>> excess_risk(torch.full((1, 2, 1), 3.0), Task(rows, rows, truth=torch.full((1, 2, 1), 2.5)))
        tensor([0.2500])
    """
    if task.truth is None:
        raise ValueError(
            "the excess risk needs a family that knows the noiseless answer (Task.truth); this has none"
        )
    return _mean((outputs - task.truth).square().sum(-1), task.query)


def order_of(outputs: Tensor) -> Tensor:
    """Return the order of the variables that log odds support, int64 `[B, d]`, the earliest first.

    Args:
        outputs: log odds `[B, d, d]`. Entry `[b, i, j]` is for i before j, from the query of variable i.

    Equal sums are ordered by column.

    Example:
        >>> import torch
        >>> from gradatim.metrics import order_of
        >>> order_of(torch.tensor([[[0.0, -2.0], [2.0, 0.0]]]))
        tensor([[1, 0]])
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
    """Return the share of edges that point backwards in an order, `[B]`, and 0 without edges.

    Args:
        order: the variables, the earliest first, int64 `[B, d]`.
        edges: 1 at `[b, i, j]` for an edge from i to j, else 0, `[B, d, d]`.

    Example:
        >>> import torch
        >>> from gradatim.metrics import reversed_by
        >>> reversed_by(torch.tensor([[1, 0]]), torch.tensor([[[0.0, 1.0], [0.0, 0.0]]]))
        tensor([1.])
    """
    place = order.argsort(dim=1)
    backwards = place[:, :, None] > place[:, None]
    return (edges * backwards).sum((1, 2)) / edges.sum((1, 2)).clamp(min=1)


def curve(
    learner: Learner, task: Task, batch_size: int, steps: Iterable[int], metrics: Mapping[str, Metric]
) -> dict[str, np.ndarray]:
    """Return each metric after some numbers of mini-batches, in one pass over the support.

    Args:
        learner: the learner that is judged.
        task: B tasks.
        batch_size: rows of a mini-batch.
        steps: numbers of mini-batches; 0 is the start.
        metrics: metrics by name.

    Returns:
        an array `[steps, B]` for each name, its steps in rising order.

    Raises:
        ValueError: the support has too few rows for the last step.

    Example:
        >>> import torch
        >>> from gradatim import LinearRegression, build, metrics
        >>> family = LinearRegression(2, support_rows=16, query_rows=8)
        >>> task = family.sample(3, torch.Generator().manual_seed(0))
        >>> errors = metrics.curve(build("ridge", family), task, 8, [0, 1, 2], {"risk": metrics.excess_risk})
        >>> errors["risk"].shape
        (3, 3)
    """
    judged = _judged_steps(steps, batch_size, task)
    values: dict[str, list[np.ndarray]] = {name: [] for name in metrics}
    batches = islice(task.support.split(batch_size), max(judged[-1], 1))
    with torch.no_grad():
        for step, state in enumerate(learner.states(batches, task.query)):
            if step in judged:
                outputs = learner.predict(task.query.x, state)
                for name, metric in metrics.items():
                    values[name].append(metric(outputs, task).cpu().numpy())
    return {name: np.stack(arrays) for name, arrays in values.items()}


def soft_vote(
    learner: Learner, task: Task, batch_size: int, steps: Iterable[int], metrics: Mapping[str, Metric]
) -> dict[str, np.ndarray]:
    """Return each metric of the mean class probabilities of single refinements.

        p_s(y | x) = sum_{t <= s} n_t softmax(f(x, latent(step(init, batch_t))))_y / sum_{t <= s} n_t

    Each mini-batch refines the start by itself. After step s the mean is over the first s mini-batches, weighted by
    rows n_t. After step 0 it is the prediction of the start. `Bagged` averages latents instead.

    Args:
        learner: the learner that is judged.
        task: B tasks with classes.
        batch_size: rows of a mini-batch.
        steps: numbers of mini-batches; 0 is the start.
        metrics: metrics by name, of log-probabilities `[B, Nq, C]`.

    Returns:
        an array `[steps, B]` for each name, its steps in rising order.

    Raises:
        ValueError: tasks without classes, or a support with too few rows for the last step.

    Example:
        >>> import torch
        >>> from gradatim import LinearClassification, build, metrics
        >>> family = LinearClassification(2, 3, support_rows=16, query_rows=8)
        >>> task = family.sample(3, torch.Generator().manual_seed(0))
        >>> metrics.soft_vote(build("sgd", family), task, 8, [1, 2], {"error": metrics.error_rate})["error"].shape
        (2, 3)
    """
    if task.query.y.is_floating_point():
        raise ValueError(
            f"a vote averages class probabilities, so it needs classes, int64 in y; got {task.query.y.dtype}: "
            "judge a regression with curve, or average its latents with Bagged"
        )
    judged = _judged_steps(steps, batch_size, task)
    values: dict[str, list[np.ndarray]] = {name: [] for name in metrics}
    with torch.no_grad():
        for step, mean in enumerate(_votes(learner, task, batch_size, judged[-1])):
            if step in judged:
                for name, metric in metrics.items():
                    values[name].append(metric(mean.log(), task).cpu().numpy())
    return {name: np.stack(arrays) for name, arrays in values.items()}


def _votes(learner: Learner, task: Task, batch_size: int, last: int) -> Iterator[Tensor]:
    """Yield the mean class probabilities `[B, Nq, C]` of no mini-batch (the start's), of the first, of two, ..."""
    query = task.query

    def probabilities(state: State) -> Tensor:
        return learner.predict(query.x, state).softmax(-1)

    start = probabilities(learner.refiner.init(task.n_tasks, query))
    total, seen = torch.zeros_like(start), start.new_zeros(task.n_tasks, 1, 1)
    yield start
    for batch in islice(task.support.split(batch_size), last):
        *_, state = learner.states([batch], query)
        rows = batch.rows.to(start.dtype)[:, None, None]
        total, seen = total + rows * probabilities(state), seen + rows
        yield torch.where(seen > 0, total / seen.clamp(min=1), start)


def _judged_steps(steps: Iterable[int], batch_size: int, task: Task) -> list[int]:
    """Return the steps in order, each once, or raise ValueError where the support has too few rows for them."""
    judged = sorted(set(steps))
    if not judged or judged[0] < 0 or judged[-1] * batch_size > task.support.n_rows:
        raise ValueError(
            f"steps {judged} of {batch_size} rows need up to {max(judged, default=0) * batch_size} support rows; "
            f"the tasks have {task.support.n_rows}"
        )
    return judged


def bootstrap(
    statistic: Callable[..., float],
    *values: np.ndarray,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Return a statistic and its percentile interval over meta-training seeds and tasks together.

    Args:
        statistic: a function of arrays with the shapes of `values`.
        values: arrays `[S, T, ...]` of S seeds by T tasks, paired by task. A method without meta-training has S = 1.
            Seeds are resampled for each array, tasks once for all arrays.
        resamples: the number of resamples.
        level: the coverage of the interval.
        seed: the seed of the resamples.

    Returns:
        (statistic, low, high).

    Raises:
        ValueError: arrays of different numbers of tasks.

    Example:
        >>> import numpy as np
        >>> from gradatim.metrics import bootstrap
        >>> a, b = np.array([[1.0, 2.0, 3.0]]), np.array([[2.0, 4.0, 6.0]])
        >>> bootstrap(lambda a, b: a.mean() / b.mean(), a, b)
        (0.5, 0.5, 0.5)

    Source: Efron, Tibshirani 1993, chapter 13.
    """
    tasks = {array.shape[1] for array in values}
    if len(tasks) != 1:
        raise ValueError(f"values paired by task need one number of tasks; got {sorted(tasks)}")
    count = tasks.pop()
    rng = np.random.default_rng(seed)
    draws = np.empty(resamples)
    for i in range(resamples):
        chosen = rng.integers(count, size=count)
        resampled = [array[rng.integers(len(array), size=len(array))][:, chosen] for array in values]
        draws[i] = statistic(*resampled)
    tail = 50 * (1 - level)
    low, high = np.percentile(draws, [tail, 100 - tail])
    return float(statistic(*values)), float(low), float(high)


def mean_interval(
    values: np.ndarray, resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> tuple[float, float, float]:
    """Return the mean and its percentile interval over seeds and tasks, `bootstrap` with all resamples at once.

        m_r = sum_st n_rs v_st k_rt / (S T),     n_r, k_r: how often seeds and tasks are drawn in resample r

    Args:
        values: `[S, T]`, S seeds by T tasks.
        resamples: the number of resamples.
        level: the coverage of the interval.
        seed: the seed of the resamples.

    Returns:
        (mean, low, high).

    Example:
        >>> import numpy as np
        >>> from gradatim.metrics import mean_interval
        >>> mean, low, high = mean_interval(np.array([[1.0, 2.0], [4.0, 3.0]]))
        >>> mean, 1 <= low < mean < high <= 4
        (2.5, True)
    """
    seeds, tasks = values.shape
    rng = np.random.default_rng(seed)
    seed_counts = rng.multinomial(seeds, np.full(seeds, 1 / seeds), resamples)
    task_counts = rng.multinomial(tasks, np.full(tasks, 1 / tasks), resamples)
    draws = ((seed_counts @ values) * task_counts).sum(1) / (seeds * tasks)
    tail = 50 * (1 - level)
    low, high = np.percentile(draws, [tail, 100 - tail])
    return float(values.mean()), float(low), float(high)
