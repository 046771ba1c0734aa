"""Evaluation on a stream whose classes come one after another, with and without rehearsal of earlier rows.

Source: van de Ven, Tolias 2019 (class-incremental learning); Vitter 1985, algorithm R (the reservoir).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

from gradatim.batch import Batch, Task

if TYPE_CHECKING:
    from torch import Tensor

    from gradatim.learner import Learner
    from gradatim.metrics import Metric

RESERVOIR = 200
"""Number of rows that rehearsal stores."""


def in_turn(
    learner: Learner, task: Task, batch_size: int, steps: Iterable[int], metrics: Mapping[str, Metric]
) -> dict[str, np.ndarray]:
    """Return each metric after each of `steps` mini-batches `[steps, B]`, on the query rows of classes seen
    completely.

    The support is sorted by class: the rows of class 0, then those of class 1, and so on.
    """
    return _class_curve(learner, task, batch_size, steps, metrics, rehearse=False)


def rehearsed(
    learner: Learner, task: Task, batch_size: int, steps: Iterable[int], metrics: Mapping[str, Metric]
) -> dict[str, np.ndarray]:
    """Return the metrics `[steps, B]` as `in_turn` does, of a learner that rehearses rows from a reservoir.

    A step has as many new rows, in two mini-batches. Each has half of the new rows, and as many of the `RESERVOIR`
    stored rows.
    """
    return _class_curve(learner, task, batch_size, steps, metrics, rehearse=True)


def _class_curve(
    learner: Learner,
    task: Task,
    batch_size: int,
    steps: Iterable[int],
    metrics: Mapping[str, Metric],
    rehearse: bool,
) -> dict[str, np.ndarray]:
    judged, query = sorted(set(steps)), task.query
    support = _by_class(task.support)
    batches = support.slice(0, judged[-1] * batch_size).split(batch_size)
    stream = _rehearsal_batches(support, batch_size, judged[-1]) if rehearse else batches
    passes = 2 if rehearse else 1
    curves: dict[str, list[np.ndarray]] = {name: [] for name in metrics}
    with torch.no_grad():
        for count, state in enumerate(learner.states(stream, query)):
            step, remainder = divmod(count, passes)
            if remainder or step not in judged:
                continue
            ahead = support.y[:, step * batch_size :, 0]  # in the order of classes
            coming = ahead[:, 0].clamp(min=1) if ahead.shape[1] else support.y.amax((1, 2)) + 1
            seen = query.mask & (query.y < coming[:, None, None])[..., 0]
            seen_task = Task(support, Batch(query.x, query.y, seen))
            outputs = learner.predict(query.x, state)
            for name, metric in metrics.items():
                curves[name].append(metric(outputs, seen_task).cpu().numpy())
    return {name: np.stack(values) for name, values in curves.items()}


def _by_class(rows: Batch) -> Batch:
    """Return every task's rows sorted by class. The order within a class stays."""
    order = rows.y[..., 0].argsort(dim=1, stable=True)
    return Batch(_gather_rows(rows.x, order), _gather_rows(rows.y, order))


def _gather_rows(part: Tensor, places: Tensor) -> Tensor:
    return part.gather(1, places[..., None].expand(-1, -1, part.shape[2]))


def _rehearsal_batches(support: Batch, batch_size: int, steps: int) -> Iterator[Batch]:
    """Yield mini-batches of half new rows and half rows from a reservoir of earlier ones. The first has only new
    rows.

    The reservoir has the same places of every task's stream.
    """
    half, rng, reservoir = batch_size // 2, np.random.default_rng(0), np.zeros(0, dtype=np.int64)
    for seen in range(0, steps * batch_size, half):
        new = np.arange(seen, seen + half)
        old = reservoir[rng.integers(len(reservoir), size=half)] if len(reservoir) else new
        places = torch.from_numpy(np.concatenate([new, old])).expand(support.n_tasks, -1)
        yield Batch(_gather_rows(support.x, places), _gather_rows(support.y, places))
        for row in new:
            if len(reservoir) < RESERVOIR:
                reservoir = np.append(reservoir, row)
            elif (place := int(rng.integers(row + 1))) < RESERVOIR:
                reservoir[place] = row
