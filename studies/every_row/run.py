"""`make study NAME=every_row`: does every row count, far past the horizon that a learner was trained on.

Gains and memories under one protocol; states that carry their precision, merge, follow drift and know their error.

Source: Mittal et al. 2025 for the constant gain; the comparison is this project's own.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from gradatim.comparison.experiment import Experiment, methods_by_name
from gradatim.comparison.panel import run_experiment, select_best
from gradatim.comparison.report import write_result
from gradatim.comparison.runs import Study
from gradatim.families import LinearClassification, LinearRegression, RandomNetworkRegression
from gradatim.learner import Learner
from gradatim.methods import Bayesian, Method, Parametric
from gradatim.metrics import excess_risk
from gradatim.provenance import commit
from gradatim.recipes import Recipe
from gradatim.refiners import CONSTANT, DECAYING, Gain, TransformerRefiner
from gradatim.training.config import TrainConfig
from gradatim.training.schemes import Greedy, Unrolled

from .calibration import calibration
from .claims import claims, excess_loss, falling, merging, networks
from .drift import drift
from .one_pass import mnist
from .page import PAGE

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from gradatim.family import TaskFamily

STEPS = (1, 2, 5, 10, 20, 40, 80, 160, 400, 1000)
SIZE = 16
CONDITIONS = {"isotropic": None, "correlated": 30.0}

SMALL = Parametric(signal="gradients", width=32, layers=1)
PROXIMAL = replace(SMALL, curvature=CONSTANT, proximal=True)
GAINS: dict[str, tuple[Method, type[Greedy] | type[Unrolled]]] = {
    "constant": (replace(SMALL, gain=CONSTANT), Greedy),
    "decaying": (SMALL, Greedy),
    "learnt-gain": (replace(SMALL, gain=Gain(0.95, 1.0, 8.0, learnt=True)), Greedy),
    "precision": (replace(SMALL, precision=True), Greedy),
    "at-average": (
        replace(SMALL, gain=CONSTANT, tail=0.0, at_average=True),
        Unrolled,
    ),
    "memory": (replace(SMALL, memory=4), Unrolled),
    "proximal": (PROXIMAL, Unrolled),
    "proximal-average": (replace(PROXIMAL, tail=0.0), Unrolled),
}
"""What a refiner of transformers may do about its gain, all without a Gram matrix in the state."""

AVERAGED = {
    "constant-averaged": ("constant", 0.0),
    "constant-averaged-late": ("constant", 3.0),
    "proximal-average-late": ("proximal-average", 1.0),
}
"""Tail averages at inference alone: of which trained learner, with which eta."""


def run(out: Path, smoke: bool, seeds: int, workers: int, console: Console) -> list[Path]:
    """Run the benchmark; return every_row.json, every_row.md and the pictures written below `out`."""
    study = Study(out / "work" / ("every_row-smoke" if smoke else "every_row"), workers, console, not smoke)
    records: list[dict[str, Any]] = []
    parts = {name: _linear(name, condition, smoke) for name, condition in CONDITIONS.items()}
    parts["linear100"] = _wide(smoke)
    parts["classification"] = _classification(smoke)
    parts["network"] = _network(smoke)
    found = {name: run_experiment(study, part, seeds, records) for name, part in parts.items()}
    console.print("choosing refiners on validation tasks")
    chosen = {name: _chosen(study, parts[name], seeds) for name in CONDITIONS}
    claimed = claims(found, {name: part.steps for name, part in parts.items()}, chosen)
    more = [networks(study, parts["network"], found["network"], smoke)]
    more += [mnist(study, smoke), falling(study, parts, seeds, smoke), merging(study, parts, seeds, smoke)]
    more += [drift(study, smoke), calibration(study, smoke)]
    for own, made in more:
        records += own
        claimed += made
    result = {
        "benchmark": "every_row",
        "smoke": smoke,
        "seeds": seeds,
        "commit": commit(),
        "torch": torch.__version__,
        "recipes": {name: r.to_json() for part in parts.values() for name, r in part.recipes.items()},
        "chosen": chosen,
        "records": records,
        "claims": claimed,
    }
    return write_result(out, "every_row", json.loads(json.dumps(result)), PAGE)


def _recipe(
    method: Method,
    family: TaskFamily,
    scheme: Greedy | Unrolled,
) -> Recipe:
    """Return a recipe: 200 iterations of 32 tasks for a transformer, 30 of 8 for a head on features."""
    rows = scheme.batch_size * scheme.horizon
    family = replace(family, support_rows=rows, query_rows=64)
    iterations, tasks = (30, 8) if isinstance(method, Bayesian) else (200, 32)
    training = TrainConfig(iterations=iterations, tasks=tasks, lr=2e-3, accelerator="cpu")
    return Recipe(method, family, scheme, training)


def _linear(name: str, condition: float | None, smoke: bool) -> Experiment:
    """Return linear regression in 8 dimensions with every gain, trained on ten steps, judged on a thousand."""
    family = LinearRegression(8, 0.5, condition)
    recipes = {
        made: _recipe(method, family, scheme(batch_size=SIZE, horizon=10))
        for made, (method, scheme) in GAINS.items()
    }
    recipes["bayesian"] = _recipe(Bayesian(), family, Unrolled(batch_size=SIZE, horizon=10))
    steps = (1, 2, 10) if smoke else STEPS
    return Experiment(
        name,
        replace(family, support_rows=SIZE * steps[-1], query_rows=200),
        _named(name, recipes, smoke),
        methods_by_name("sgd", "newton", "ridge"),
        {"excess risk": excess_risk},
        SIZE,
        steps,
        8 if smoke else 96,
        derived={
            f"{name}-{made}": (f"{name}-{origin}", partial(averaged, eta=eta))
            for made, (origin, eta) in AVERAGED.items()
        },
    )


def _wide(smoke: bool) -> Experiment:
    """Return linear regression in 100 dimensions, 128 rows a step."""
    family = LinearRegression(100, 0.5)
    steps = (1, 2) if smoke else (1, 2, 5, 10, 20, 40, 80, 160)
    made = _recipe(Bayesian(), family, Unrolled(batch_size=128, horizon=4))
    judged = replace(family, support_rows=128 * steps[-1], query_rows=200)
    recipes = _named("linear100", {"bayesian": made}, smoke)
    return Experiment(
        "linear100",
        judged,
        recipes,
        methods_by_name("ridge"),
        {"excess risk": excess_risk},
        128,
        steps,
        4 if smoke else 32,
    )


def _classification(smoke: bool) -> Experiment:
    """Return linear classification: 8 dimensions, 4 classes."""
    family = LinearClassification(8, 4)
    steps = (1, 2, 10) if smoke else STEPS[:8]
    scheme = Greedy(batch_size=SIZE, horizon=10)
    recipes = {
        "constant": _recipe(replace(SMALL, gain=CONSTANT), family, scheme),
        "decaying": _recipe(SMALL, family, scheme),
        "curvature": _recipe(replace(SMALL, curvature=DECAYING), family, scheme),
        "bayesian": _recipe(Bayesian(), family, Unrolled(batch_size=SIZE, horizon=10)),
    }
    return Experiment(
        "classification",
        replace(family, support_rows=SIZE * steps[-1], query_rows=400),
        _named("classification", recipes, smoke),
        methods_by_name("sgd", "adam", "newton"),
        {"excess loss": excess_loss},
        SIZE,
        steps,
        4 if smoke else 64,
    )


def _network(smoke: bool) -> Experiment:
    """Return regression on random networks; heads on features are trained on as many rows as they are judged on."""
    family = RandomNetworkRegression(8, 32, 0.1)
    steps = (1, 2, 10) if smoke else (1, 2, 5, 10, 20, 40, 80, 160)
    shorter = Greedy(batch_size=SIZE, horizon=10)
    whole = Unrolled(batch_size=16 if smoke else 1024, horizon=2)
    wide = replace(SMALL, hidden=(32,))
    recipes = {
        "decaying": _recipe(wide, family, shorter),
        "curvature": _recipe(replace(wide, curvature=DECAYING), family, shorter),
    }
    head = _recipe(Bayesian(), family, whole)
    recipes["bayesian"] = replace(head, train=replace(head.train, tasks=4))
    return Experiment(
        "network",
        replace(family, support_rows=SIZE * steps[-1], query_rows=500),
        _named("network", recipes, smoke),
        methods_by_name("random-features", "kalman", "smoother"),
        {"excess risk": excess_risk},
        SIZE,
        steps,
        4 if smoke else 32,
    )


def _named(part: str, recipes: dict[str, Recipe], smoke: bool) -> dict[str, Recipe]:
    """Return the recipes under names that tell the parts apart; for a smoke run with 3 iterations of 2 tasks."""
    return {
        f"{part}-{name}": replace(r, train=replace(r.train, iterations=3, tasks=2)) if smoke else r
        for name, r in recipes.items()
    }


def averaged(learner: Learner, eta: float) -> Learner:
    """Return the learner whose predictions read the tail average of the same iterates."""
    old = learner.refiner
    assert isinstance(old, TransformerRefiner)
    new = old.with_tail(eta)
    return Learner(learner.predictor, new, learner.signal)


def _chosen(study: Study, part: Experiment, seeds: int) -> str:
    """Return the transformer refiner that is best on validation tasks, after 160 steps."""
    step = min(160, part.steps[-1])
    names = [*part.recipes, *part.derived]
    names.remove(f"{part.name}-bayesian")
    validation = replace(part, name=f"validation-{part.name}", tasks=min(part.tasks, 64), steps=(step,))
    return select_best(study, validation, names, step, seeds)
