"""What an experiment is: a family, the methods that are compared on it, and how they are judged.

Source: Mittal et al. 2025, section 4: one learner beside others on the same tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..methods import METHODS, Method, method
from ..metrics import curve as metric_curve
from ..training.snapshot import describe

if TYPE_CHECKING:
    from torch import Tensor

    from ..batch import Batch
    from ..family import TaskFamily
    from ..learner import Learner
    from ..metrics import Metric
    from ..recipes import Recipe

COSTLY = {"lbfgs": (1, 2, 5, 10)}
"""Methods that fit every task from scratch: judged after these steps only, tuned on a quarter of the tasks."""

SIGNALS = ("observations", "gradients", "both")

Values = dict[str, np.ndarray]
"""Arrays by the name of a metric: `[steps, T]` of a learner, `[S, steps, T]` of a method trained with S seeds."""


@dataclass(frozen=True)
class Experiment:
    """Methods that are compared on the tasks of one family.

    Attributes:
        name: of the family in records.
        family: whose tasks are judged.
        recipes: by name, meta-trained with each seed.
        baselines: by name, unlearnt methods; their grids are searched on meta-training tasks.
        metrics: by name. The first one tunes the baselines.
        batch_size: rows of a mini-batch.
        steps: numbers of mini-batches after which methods are judged.
        tasks: how many are judged.
        derived: learners made of trained ones, (recipe, function).
        votes: recipes whose single answers to each mini-batch vote.
        full_batch: recipes that predict in one step from all rows so far, up to the step given.
        costly: baselines judged after these steps only.
        peers: functions from the whole support to outputs, judged as if after the last step.
        learners: by name, used as they are.
        curve: computes the metrics, as `metrics.curve` does.
        tuning_step: the number of mini-batches after which the settings of baselines are compared.
        judgement: a hash of tasks, oracle and metrics, where their code may change between runs.
    """

    name: str
    family: TaskFamily
    recipes: dict[str, Recipe]
    baselines: dict[str, Method]
    metrics: dict[str, Metric]
    batch_size: int
    steps: tuple[int, ...]
    tasks: int
    derived: dict[str, tuple[str, Callable[[Learner], Learner]]] = field(default_factory=dict)
    votes: dict[str, str] = field(default_factory=dict)
    full_batch: dict[str, int] = field(default_factory=dict)
    costly: dict[str, tuple[int, ...]] = field(default_factory=lambda: COSTLY)
    peers: dict[str, Callable[[Batch], Tensor]] = field(default_factory=dict)
    learners: dict[str, Learner] = field(default_factory=dict)
    curve: Callable[..., Values] = metric_curve
    tuning_step: int = 10
    judgement: str = ""

    @property
    def inputs(self) -> list[Any]:
        """Return as JSON what every record depends on besides its method."""
        names = [describe(self.family), self.tasks, self.batch_size, list(self.metrics)]
        return [*names, self.judgement] if self.judgement else names


def methods_by_name(*names: str) -> dict[str, Method]:
    """Return methods with their default options by name.

    Example:
        >>> from gradatim.comparison.experiment import methods_by_name
        >>> methods_by_name("sgd", "ridge")["ridge"]
        Ridge(strength=1.0)
    """
    return {name: method(name) for name in names}


def label_of(value: Method) -> str:
    """Return the name of a method, or that of its class where no program can import it.

    Example:
        >>> from gradatim.comparison.experiment import label_of
        >>> from gradatim.methods import Parametric
        >>> label_of(Parametric(signal="gradients"))
        'parametric-gradients'
    """
    try:
        return METHODS.name_of(value)
    except ValueError:
        return type(value).__name__


def with_seeds(recipes: dict[str, Recipe], seeds: int) -> dict[str, Recipe]:
    """Return each recipe under each meta-training seed, as NAME-SEED."""
    return {
        f"{name}-{seed}": replace(recipe, train=replace(recipe.train, seed=seed))
        for seed in range(seeds)
        for name, recipe in recipes.items()
    }
