"""What a comparison will do, checked before anything is trained.

Source: Mittal et al. 2025, section 4: which learners are trained how, and judged on which tasks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..family import TaskFamily
from ..learner import Learner
from ..likelihood import Order
from ..methods import Method, build, method
from ..metrics import accuracy, error_rate, excess_risk, invalid_order, reversed_edges, squared_error
from ..recipes import Recipe
from ..registry import FAMILIES
from ..training.schemes import Greedy, Scheme, Unrolled
from ..training.train import TrainConfig
from .experiment import Experiment, label_of
from .result import ORACLE
from .runs import sample_tasks

if TYPE_CHECKING:
    from ..batch import Task
    from ..metrics import Metric

TRAINING = TrainConfig(iterations=500, tasks=16, lr=3e-3)
"""How methods are meta-trained where nothing else is given."""


@dataclass(frozen=True)
class Plan:
    """What a comparison does.

    Attributes:
        family: as it was given.
        experiment: its methods, and how they are trained, tuned and judged.
        parameters: by method in the order of the comparison, how many numbers are meta-trained.
    """

    family: TaskFamily
    experiment: Experiment
    parameters: dict[str, int]


def make_plan(
    methods: Sequence[str | Method] | Mapping[str, str | Method | Learner],
    family: TaskFamily | str,
    steps: Iterable[int],
    batch_size: int | None,
    tasks: int,
    metrics: Mapping[str, Metric] | None,
    train: TrainConfig | None,
    scheme: Scheme | None,
) -> Plan:
    """Return what `compare` does with these arguments.

    Raises:
        ValueError: arguments that `compare` refuses.
    """
    family, entries = _family(family), _entries(methods)
    steps = _ascending(steps)
    if batch_size is None:
        batch_size = scheme.batch_size if scheme else max(1, min(16, family.support_rows // steps[-1]))
    check_count("batch_size", batch_size)
    judged = replace(family.on("test"), support_rows=steps[-1] * batch_size, min_support_rows=None)
    task = _first_task(judged, steps[-1], batch_size)
    metrics = dict(metrics or default_metrics(family, task))
    if next(iter(metrics.values())) is accuracy:
        raise ValueError(
            "the first metric tunes methods and must be an error: put error_rate before accuracy"
        )
    built = {
        name: entry if isinstance(entry, Learner) else build(entry, family) for name, entry in entries.items()
    }
    recipes, baselines, learners = {}, {}, {}
    for name, entry in entries.items():
        if isinstance(entry, Learner):
            learners[name] = entry.eval()
            entry.predictor.check(task.query)
        elif built[name].refiner.capabilities.learnt:
            chosen = scheme or _scheme(built[name], family.on("train"), batch_size, steps[-1])
            recipes[name] = _recipe(name, entry, built[name], family.on("train"), chosen, train or TRAINING)
        else:
            baselines[name] = entry
    experiment = Experiment(
        type(family).__name__,
        judged,
        recipes,
        baselines,
        metrics,
        batch_size,
        steps,
        tasks,
        costly={},
        learners=learners,
        tuning_step=min(10, steps[-1]),
    )
    counts = {name: sum(part.numel() for part in learner.parameters()) for name, learner in built.items()}
    return Plan(family, experiment, counts)


def check_count(name: str, count: int) -> None:
    """Raise ValueError where a number is not a whole one of at least 1."""
    if not isinstance(count, int) or count < 1:
        raise ValueError(f"{name} must be a whole number of at least 1; got {count!r}")


def _ascending(steps: Iterable[int]) -> tuple[int, ...]:
    """Return the steps in order, each once, or raise ValueError."""
    numbers = sorted(set(steps))
    if not numbers or not all(isinstance(step, int) and step >= 1 for step in numbers):
        raise ValueError(f"steps must be whole numbers of at least 1, such as (1, 2, 5, 10); got {steps!r}")
    return tuple(numbers)


def _family(family: TaskFamily | str) -> TaskFamily:
    """Return the family, or that of a name, or raise ValueError."""
    if isinstance(family, TaskFamily):
        return family
    if not isinstance(family, str):
        of_class = isinstance(family, type) and issubclass(family, TaskFamily)
        hint = f": make a value of it, {family.__name__}(...)" if of_class else ""
        raise ValueError(f"a family is a TaskFamily or the name of one; got {family!r}{hint}")
    try:
        return FAMILIES[family]()
    except TypeError as error:
        raise ValueError(
            f"{family} has fields without defaults ({error}): give a value of the class"
        ) from error


def _entries(
    methods: Sequence[str | Method] | Mapping[str, str | Method | Learner],
) -> dict[str, Method | Learner]:
    """Return methods and learners by name, or raise ValueError."""
    if isinstance(methods, str | Method | Learner):
        raise ValueError(f"methods is a list, or a dictionary by name; got {methods!r}: write [{methods!r}]")
    if isinstance(methods, Mapping):
        pairs = [
            (str(name), value if isinstance(value, Learner) else method(value))
            for name, value in methods.items()
        ]
    else:
        pairs = [(label_of(value).rpartition(":")[2], value) for value in map(_method, methods)]
    if not pairs:
        raise ValueError("there is nothing to compare: give at least one method (gradatim list shows them)")
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                f"two methods are called {name!r}: give them names, such as {{'first': ..., 'second': ...}}"
            )
        if not re.fullmatch(r"\w[\w .+-]*", name):
            raise ValueError(f"a name is made of letters, digits, spaces and . + - _; got {name!r}")
        if name == ORACLE:
            raise ValueError("the name 'oracle' is that of the best possible answer: choose another name")
    return dict(pairs)


def _method(value: str | Method) -> Method:
    """Return a method of a list, or raise ValueError."""
    if isinstance(value, Learner):
        raise ValueError("a learner has no name of its own: give a dictionary, such as {'mine': learner}")
    return method(value)


def _first_task(family: TaskFamily, steps: int, batch_size: int) -> Task:
    """Return a task of the family that is judged, or raise ValueError where it has too few rows."""
    task = sample_tasks(family, 1, seed=1)
    if task.support.n_rows < steps * batch_size:
        raise ValueError(
            f"{steps} mini-batches of {batch_size} rows need {steps * batch_size} support rows; tasks of "
            f"{type(family).__name__} have {task.support.n_rows}: lower steps or batch_size"
        )
    return task


def default_metrics(family: TaskFamily, task: Task) -> dict[str, Metric]:
    """Return the metrics by which predictions of a family are judged, the main one first.

    Args:
        family: of the tasks.
        task: some of its tasks; supports `[B, N, ...]`.

    Example:
        >>> import torch
        >>> from gradatim import LinearRegression
        >>> from gradatim.comparison.plan import default_metrics
        >>> family = LinearRegression(2)
        >>> list(default_metrics(family, family.sample(1, torch.Generator())))
        ['squared error', 'excess risk']
    """
    if isinstance(family.likelihood, Order):
        return {"reversed edges": reversed_edges, "invalid order": invalid_order}
    if family.likelihood.classes is not None:
        return {"error": error_rate}
    metrics: dict[str, Metric] = {"squared error": squared_error}
    return metrics if task.truth is None else metrics | {"excess risk": excess_risk}


def _scheme(learner: Learner, family: TaskFamily, batch_size: int, last_step: int) -> Scheme:
    """Return how a learner is meta-trained where nothing else is given."""
    kind = Greedy if learner.refiner.capabilities.greedy else Unrolled
    horizon = max(1, min(last_step, family.support_rows // batch_size))
    return kind(batch_size=min(batch_size, family.support_rows), horizon=horizon)


def _recipe(
    name: str, entry: Method, learner: Learner, family: TaskFamily, scheme: Scheme, train: TrainConfig
) -> Recipe:
    """Return how a method is meta-trained, or raise ValueError where its scheme cannot train it."""
    if entry.one_step:
        # as many refinements as the others make
        train = replace(train, tasks=train.tasks * scheme.horizon)
        scheme = replace(scheme, horizon=1)
    try:
        scheme.check(learner)
    except ValueError as error:
        raise ValueError(f"{name} cannot be trained by {type(scheme).__name__}: {error}") from error
    return Recipe(entry, family, scheme, train)


def refuse_unimportable(recipes: Mapping[str, Recipe]) -> None:
    """Raise ValueError where another process could not import a class of a recipe."""
    for name, recipe in recipes.items():
        for value in (recipe.method, recipe.family, recipe.scheme):
            if type(value).__module__ == "__main__":
                raise ValueError(
                    f"{type(value).__name__} is defined in the script that is run, which processes of their own do "
                    "not run again: move the class into a module, or compare with workers=1"
                )
        try:
            recipe.to_json()
        except ValueError as error:
            raise ValueError(
                f"{name} cannot be trained in a process of its own: {error}, or workers=1"
            ) from error
