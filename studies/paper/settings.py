"""The families of `make study NAME=paper`: the sizes at which learners are trained and judged.

Source: Mittal et al. 2025, the task families of tables 2-6; sizes are this project's own, the paper's are not
public.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gradatim.families import (
    Alphabets,
    EmbeddingClassification,
    GaussianMixture,
    ImageClassification,
    LinearClassification,
    LinearRegression,
    StructuralCausalModel,
)
from gradatim.generation import sample_curve
from gradatim.metrics import accuracy, curve, error_rate, invalid_order, reversed_edges, squared_error

from .continual import in_turn, rehearsed
from .encoders import cifar, omniglot

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from gradatim.batch import Task
    from gradatim.family import TaskFamily
    from gradatim.learner import Learner
    from gradatim.metrics import Metric

ERRORS: dict[str, Metric] = {"error": error_rate, "accuracy": accuracy}
SQUARES: dict[str, Metric] = {"squared error": squared_error}
ORDERS: dict[str, Metric] = {"reversed edges": reversed_edges, "invalid orders": invalid_order}
POINTS: dict[str, Metric] = {"energy distance": squared_error, "sliced Wasserstein": squared_error}
"""Only the names are used: `generated` computes both distances."""

_DISTANCES = {"energy distance": "energy", "sliced Wasserstein": "sliced"}
LENGTHS = (8, 16, 32, 64)
"""Rows of a mini-batch. One refiner for all of them is compared with one trained for each."""

POOLS = {"embeddings": None, "omniglot": omniglot, "cifar": cifar}
"""Pools of embeddings: banking77 from `$GRADATIM_DATA`, and functions that compute the others."""

GRAPHS: dict[str, dict[str, Any]] = {
    "scale-free": {"graph": "scale-free"},
    "linear": {"mechanism": "linear"},
    "gaussian": {"noise": "gaussian"},
}
"""Causal models that are not in the training of learners of orders, by the field that differs."""

VIEWS = ("-long", "-in-turn", "-rehearsed", "-stopped", "-stopped-rows", *(f"-{graph}" for graph in GRAPHS))
"""Other ways to judge the learners of a family.

- `long`: far past their horizon.
- `in-turn`, `rehearsed`: class by class, without and with rehearsal.
- `stopped`, `stopped-rows`: until an estimate of the loss stops them.
- `order-...`: on other causal models.
"""

LONG = {"linear-8": (100_000, 32), "mnist": (9_800, 64)}
"""Support rows and number of tasks of the long views."""


@dataclass(frozen=True)
class Setting:
    """A family of the paper, and how its learners are trained and judged.

    Attributes:
        family: with its test tasks.
        batch_size: rows a step.
        metrics: by name. The first one decides.
        iterations: of meta-training.
        tasks: of an iteration.
        lr: the learning rate.
        judged: the number of test tasks.
        relative: whether steps count by the log of their loss.
        settings: options of the methods, by regime.
        curvature: whether steps also see the gradient preconditioned by the mini-batch's second moments. The latent
            must be made of weight matrices.
        implicit: the factor on the iterations of implicit learners, which learn all of f.
        judge: computes the metrics.
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
    curvature: bool = False
    implicit: int = 1
    judge: Callable[..., dict[str, np.ndarray]] = curve


def generated(
    learner: Learner, task: Task, batch_size: int, steps: Iterable[int], metrics: Mapping[str, Metric]
) -> dict[str, np.ndarray]:
    """Return the distance of generated points to fresh ones of the task after each of `steps`, `[steps, B]`."""
    distances = sample_curve(learner, task, batch_size, steps)
    return {name: distances[_DISTANCES[name]] for name in metrics}


def origin(panel: str) -> str:
    """Return the family whose learners a panel judges. A panel is a family or a view of one."""
    return next((panel.removesuffix(view) for view in VIEWS if panel.endswith(view)), panel)


def settings(smoke: bool, panels: Collection[str], folder: Path, console: Console) -> dict[str, Setting]:
    """Return the settings of `panels`, and of the families they are views of.

    `folder` stores the embeddings that are computed here. A smoke run skips those, large networks, and a second
    set of images.

    Raises:
        ValueError: data are missing. This is checked before training.
    """
    needed = {name for panel in panels for name in (panel, origin(panel))}
    features: dict[str, dict[str, Any]] = {"explicit": {"features": 256}}
    linear = {"support_rows": 160, "query_rows": 64}
    wide = LinearRegression(100, 0.5, support_rows=1280, query_rows=64)
    by_name = {
        "linear-8": Setting(
            LinearRegression(8, 0.5, **linear), 16, SQUARES, 400, 8, relative=True, implicit=3
        ),
        "linear-100": Setting(wide, 128, SQUARES, 150, 8, relative=True, curvature=True),
        "linear-classes": Setting(LinearClassification(8, 4, **linear), 16, ERRORS, 300, 8, implicit=3),
        "mnist": _images("digits" if smoke else "mnist", features),
        "order": Setting(StructuralCausalModel(10, 2.0, support_rows=200), 20, ORDERS, 300, 8),
        "mixture": _points(GaussianMixture(2, support_rows=320, query_rows=128)),
    }
    for rows in LENGTHS:
        family = LinearRegression(8, 0.5, support_rows=10 * rows, query_rows=64)
        by_name[f"lengths-{rows}"] = replace(by_name["linear-8"], family=family, batch_size=rows)
    if not smoke:
        by_name["fashion-mnist"] = _images("fashion_mnist", features)
        by_name["alphabets"] = _points(Alphabets(split="test", support_rows=320, query_rows=128))
        pixels = _images("mnist", {})
        family = replace(pixels.family, dim=784)
        by_name["mnist-784"] = replace(pixels, family=family, iterations=100, tasks=4, curvature=False)
        for family in (setting.family for name, setting in by_name.items() if name in needed):
            family.sample(1, torch.Generator().manual_seed(0))  # data that is missing is said here
        by_name |= {name: _pool(name, features, folder, console) for name in POOLS if name in panels}
    by_name = {name: _small(setting) if smoke else setting for name, setting in by_name.items()}
    by_name |= _views(by_name, smoke)
    return {name: setting for name, setting in by_name.items() if name in needed}


def _pool(name: str, features: dict[str, dict[str, Any]], folder: Path, console: Console) -> Setting:
    maker = POOLS[name]
    source = maker(folder, console) if maker else "banking77"
    size, queries = (16, 40) if name == "omniglot" else (50, 100)  # twenty drew each of its characters
    pool = EmbeddingClassification(str(source), 64, 10, "test", support_rows=10 * size, query_rows=queries)
    return Setting(pool, size, ERRORS, 150, 8, judged=128, settings=features, curvature=True)


def _images(source: str, features: dict[str, dict[str, Any]]) -> Setting:
    family = ImageClassification(source, 64, 10, "test", support_rows=1000, query_rows=200)
    return Setting(family, 100, ERRORS, 150, 8, judged=64, settings=features, curvature=True)


def _points(family: TaskFamily) -> Setting:
    options: dict[str, dict[str, Any]] = {"parametric": {"hidden": (32, 32)}}
    return Setting(family, 32, POINTS, 400, 8, judged=128, settings=options, judge=generated)


def _views(by_name: dict[str, Setting], smoke: bool) -> dict[str, Setting]:
    """Return the views: far past the horizon, class by class, and on other causal models."""
    views: dict[str, Setting] = {}
    for name, (rows, tasks) in LONG.items():
        setting = by_name[name]
        family = replace(setting.family, support_rows=20 * setting.batch_size if smoke else rows)
        views[f"{name}-long"] = replace(setting, family=family, judged=min(setting.judged, tasks))
    for graph, changed in GRAPHS.items():
        setting = by_name["order"]
        views[f"order-{graph}"] = replace(setting, family=replace(setting.family, **changed))
    for view, judge in (("in-turn", in_turn), ("rehearsed", rehearsed)):
        views[f"mnist-{view}"] = replace(by_name["mnist"], judge=judge)
    return views


def _small(setting: Setting) -> Setting:
    """Return a setting that takes seconds."""
    size = min(setting.batch_size, 16)
    family = replace(setting.family, support_rows=10 * size, query_rows=16)
    if isinstance(family, ImageClassification):
        family = replace(family, dim=16)
    small = {"features": 16, "hidden": (4,)}
    options_by_regime = {
        regime: {key: small[key] for key in options} for regime, options in setting.settings.items()
    }
    return replace(
        setting, family=family, batch_size=size, iterations=1, tasks=2, judged=8, settings=options_by_regime
    )
