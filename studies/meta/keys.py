"""Trainings and curves for parts of the study that train and store learners by themselves.

Source: this project's own.
"""

from __future__ import annotations

from dataclasses import replace
from time import process_time
from typing import TYPE_CHECKING

import torch

from gradatim.training.train import train

from . import classes, learnt, references
from .learnt import Training, truth_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from gradatim.batch import Task
    from gradatim.families import OmniglotClassification, Sinusoids
    from gradatim.families.sampling import PooledClassification
    from gradatim.family import TaskFamily
    from gradatim.learner import Learner
    from gradatim.methods import Method

__all__ = [
    "INTENTS",
    "LETTERS",
    "ROWS",
    "SIZE",
    "Training",
    "classes_training",
    "curve",
    "drawn",
    "served",
    "trained",
    "truth_error",
    "waves_training",
]

ROWS = {"omniglot": classes.ROWS, "sinusoids": references.ROWS}
SIZE, LETTERS, INTENTS = classes.SIZE, classes.LETTERS, classes.SENTENCES


def classes_training(
    family: PooledClassification | OmniglotClassification, iterations: int, seed: int
) -> Training:
    """Return the training of a learner of classes with a seed; letters are turned."""
    turned = isinstance(family, classes.OmniglotClassification)
    return _on(learnt.classes_training(family, iterations, turned), seed)


def waves_training(family: Sinusoids, iterations: int, seed: int) -> Training:
    """Return the training of a learner of sinusoids with a seed."""
    return _on(learnt.waves_training(family, iterations), seed)


def _on(training: Training, seed: int) -> Training:
    return replace(training, config=replace(training.config, seed=seed))


def trained(method: Method, training: Training) -> tuple[Learner, float]:
    """Return a learner that was trained, and the seconds of one core that it took."""
    learner = learnt.drawn_learner(learnt.Setting(method, training), training.config.seed, training.family)
    begin = process_time()
    train(learner, training.family, training.scheme, training.config, progress=False)
    return learner, process_time() - begin


def served(learner: Learner, method: Method, family: TaskFamily) -> Learner:
    """Return a trained learner for a family of another number of ways."""
    other = method.build(family)
    other.load_state_dict(learner.state_dict())
    return other.eval()


def drawn(family: TaskFamily, n_tasks: int, seed: int, chunk: int = 40) -> Iterator[Task]:
    """Yield tasks of a family, `chunk` at a time."""
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, n_tasks, chunk):
        yield family.sample(min(chunk, n_tasks - start), generator)


@torch.no_grad()
def curve(
    learner: Learner,
    tasks: Iterator[Task],
    rows: tuple[int, ...],
    size: int,
    loss: Callable[[Tensor, Task], Tensor],
) -> list[float]:
    """Return the mean loss after each number of rows, learnt in mini-batches of `size`."""
    totals, count = torch.zeros(len(rows), dtype=torch.float64), 0
    for task in tasks:
        query = task.query if learner.refiner.capabilities.per_query else None
        wanted = dict(zip(rows, range(len(rows)), strict=True))
        states = learner.states(task.support.slice(0, rows[-1]).split(size), query)
        for step, state in enumerate(states):
            if step * size in wanted:
                outputs = learner.predict(task.query.x, state)
                totals[wanted[step * size]] += loss(outputs, task).double().sum()
        count += task.n_tasks
    return (totals / count).tolist()
