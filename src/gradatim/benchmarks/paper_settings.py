"""What `gradatim bench paper` trains: a family's sizes, and the recipes of a regime, a signal and a way of training.

Source: Mittal et al. 2025: greedy training with a constant gain over ten steps, beside a learner trained for one;
sizes are this project's own, the paper's are not public.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..families import (
    Alphabets,
    EmbeddingClassification,
    GaussianMixture,
    ImageClassification,
    LinearClassification,
    LinearRegression,
    StructuralCausalModel,
)
from ..generation import sample_curve
from ..metrics import accuracy, curve, error_rate, invalid_order, reversed_edges, squared_error
from ..recipes import Recipe
from ..refiners import CONSTANT, DECAYING, RowsConfig
from ..training.config import TrainConfig
from ..training.schemes import Greedy
from .panel import SIGNALS, Part
from .study import once

if TYPE_CHECKING:
    from ..batch import Task
    from ..family import TaskFamily
    from ..learner import Learner
    from ..metrics import Metric

STEPS = (1, 5, 10)
VARIANTS = ("greedy", "decaying", "one-step")
"""The paper's training, constant gain; the same with our default gain; a learner trained for one step alone."""

ERRORS: dict[str, Metric] = {"error": error_rate, "accuracy": accuracy}
SQUARES: dict[str, Metric] = {"squared error": squared_error}
ORDERS: dict[str, Metric] = {"reversed edges": reversed_edges, "invalid orders": invalid_order}
POINTS: dict[str, Metric] = {"energy distance": squared_error, "sliced Wasserstein": squared_error}
"""Names alone: `generated` says what they are."""

_FOUND = {"energy distance": "energy", "sliced Wasserstein": "sliced"}


@dataclass(frozen=True)
class Setting:
    """A family of the paper and how learners of it are trained and judged.

    Fields: `family`, its test tasks; `batch_size` rows a step; `metrics`, the first decides; `iterations` of `tasks`
    tasks at the rate `lr`; `judged`: test tasks; `relative`: steps count by the log of their loss; `settings` of the
    methods of a regime; `judge`: how the metrics come about.
    """

    family: TaskFamily
    batch_size: int
    metrics: dict[str, Metric]
    iterations: int
    tasks: int
    lr: float = 2e-3
    judged: int = 256
    relative: bool = False
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    judge: Callable[..., dict[str, np.ndarray]] = curve


def generated(
    learner: Learner, task: Task, batch_size: int, steps: Iterable[int], metrics: Mapping[str, Metric]
) -> dict[str, np.ndarray]:
    """Return how far generated points are from fresh ones of the task after each of `steps`, `[steps, B]`."""
    found = sample_curve(learner, task, batch_size, steps)
    return {name: found[_FOUND[name]] for name in metrics}


def settings(smoke: bool) -> dict[str, Setting]:
    """Return the families of the paper: linear, images, embeddings, causal models, points."""
    features: dict[str, dict[str, Any]] = {"explicit": {"features": 256}}
    linear = {"support_rows": 160, "query_rows": 64}
    made = {
        "linear-8": Setting(LinearRegression(8, 0.5, **linear), 16, SQUARES, 800, 16, relative=True),
        "linear-100": Setting(
            LinearRegression(100, 0.5, support_rows=1280, query_rows=64), 128, SQUARES, 300, 8, relative=True
        ),
        "linear-classes": Setting(LinearClassification(8, 4, **linear), 16, ERRORS, 800, 16),
        "mnist": _images("digits" if smoke else "mnist", features),
        "fashion-mnist": _images("digits" if smoke else "fashion_mnist", features),
        "order": Setting(StructuralCausalModel(10, 2.0, support_rows=200), 20, ORDERS, 1000, 16),
        "mixture": _points(GaussianMixture(2, support_rows=320, query_rows=128)),
    }
    if not smoke:
        embedded = EmbeddingClassification("banking77", 64, 10, "test", support_rows=500, query_rows=100)
        made["embeddings"] = Setting(embedded, 50, ERRORS, 500, 8, judged=128, settings=features)
        made["alphabets"] = _points(Alphabets(split="test", support_rows=320, query_rows=128))
    return {name: _small(setting) for name, setting in made.items()} if smoke else made


def _images(source: str, features: dict[str, dict[str, Any]]) -> Setting:
    family = ImageClassification(source, 64, 10, "test", support_rows=1000, query_rows=200)
    return Setting(family, 100, ERRORS, 500, 8, judged=64, settings=features)


def _points(family: TaskFamily) -> Setting:
    own: dict[str, dict[str, Any]] = {"parametric": {"hidden": (32, 32)}}
    return Setting(family, 32, POINTS, 800, 16, judged=128, settings=own, judge=generated)


def _small(setting: Setting) -> Setting:
    """Return a setting that takes seconds."""
    size = min(setting.batch_size, 16)
    family = replace(setting.family, support_rows=10 * size, query_rows=16)
    small = {"features": 16, "hidden": (4,)}
    own = {regime: {key: small[key] for key in given} for regime, given in setting.settings.items()}
    return replace(setting, family=family, batch_size=size, iterations=3, tasks=2, judged=8, settings=own)


def recipes(setting: Setting, regime: str, signal: str, smoke: bool) -> dict[str, Recipe]:
    """Return a recipe for each of `VARIANTS`; an implicit learner's `signal` is its state."""
    width = RowsConfig(width=16, layers=1) if smoke else RowsConfig()
    family = setting.family.on("train")
    family = replace(family, query_rows=min(family.query_rows, 64))
    training = TrainConfig(setting.iterations, setting.tasks, lr=setting.lr, accelerator="cpu")
    scheme = Greedy(setting.batch_size, STEPS[-1], relative=setting.relative)
    method = f"{regime}-{signal}"
    paper = Recipe(
        method, family, scheme, replace(width, gain=CONSTANT), training, setting.settings.get(regime, {})
    )
    return {
        "greedy": paper,
        "decaying": replace(paper, refiner=replace(width, gain=DECAYING)),
        "one-step": once(paper, method),
    }


def part(name: str, setting: Setting, chosen: dict[str, Recipe], validation: bool = False) -> Part:
    """Return the panel of a family: these learners after `STEPS` steps, on its test or its validation tasks."""
    family = setting.family.on("validation") if validation else setting.family
    title = f"{name}-validation" if validation else name
    return Part(
        title,
        family,
        chosen,
        (),
        setting.metrics,
        setting.batch_size,
        STEPS,
        setting.judged,
        judge=setting.judge,
    )


def learner(family: str, regime: str, signal: str, variant: str) -> str:
    """Return a learner's name in records, and that of its run."""
    return f"{family}-{regime}-{signal}" + ("" if variant == "greedy" else f"-{variant}")


def signals(family: str, regime: str) -> tuple[str, ...]:
    """Return what a regime's learners of a family are told apart by: signals, or an implicit learner's state."""
    if family == "order":
        return () if regime == "parametric" else ("order",)
    return ("logits",) if regime == "implicit" else SIGNALS
