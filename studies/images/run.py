"""`make study NAME=images`: does iterating pay on real images, against baselines that could win.

Tasks of MNIST and Fashion-MNIST (10 ways, 64 random projections), 100 rows a step; all regimes and signals, transfer.

Source: Mittal et al. 2025, tables 2-5; the baselines and the comparison are this project's own.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gradatim.comparison.experiment import SIGNALS, Experiment, Values, methods_by_name
from gradatim.comparison.panel import run_experiment, select_best
from gradatim.comparison.report import write_result
from gradatim.comparison.runs import Study, claim, one_step_recipe
from gradatim.families import ImageClassification
from gradatim.learner import Learner
from gradatim.methods import Method, method, variant
from gradatim.metrics import accuracy, bootstrap, error_rate
from gradatim.provenance import commit
from gradatim.recipes import Recipe, recipe
from gradatim.refiners import Bagged

from . import processes
from .costs import costs
from .page import PAGE

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

SOURCES = ("mnist", "fashion_mnist")
STEPS = (1, 2, 5, 10, 20, 50, 98)
"""Mini-batches of 100 rows; 98 of them leave 200 of the 10,000 test images for the queries."""

BASELINES = ("sgd", "momentum", "adam", "newton", "ridge", "random-features", "lbfgs")
SMOKE_STEPS = (1, 2, 10)
"""A smoke run takes the digits, which come with scikit-learn, in the place of both sources."""

ITERATED = tuple(f"parametric-{signal}" for signal in SIGNALS)
SINGLE = (*(f"parametric-one-step-{signal}" for signal in SIGNALS), "hypernetwork")
BAGGED = tuple(f"bagged-{name}" for name in SINGLE)
VOTED = tuple(f"voted-{name}" for name in SINGLE)
"""Bagged one-step learners: the mean of their weights, and of the probabilities they say."""

ANY = (*ITERATED, *(f"explicit-{signal}" for signal in SIGNALS), "implicit", "closed-form")
"""Our iterated learners, any regime."""


def run(out: Path, smoke: bool, seeds: int, workers: int, console: Console) -> list[Path]:
    """Run the benchmark; return images.json, images.md and the pictures written below `out`."""
    study = Study(out / "work" / ("images-smoke" if smoke else "images"), workers, console, not smoke)
    records: list[dict[str, Any]] = []
    parts = {source: _part(source, smoke) for source in SOURCES}
    found = {source: run_experiment(study, part, seeds, records) for source, part in parts.items()}
    console.print(
        "choosing signals on validation tasks, timing adaptation, comparing gradients of two processes"
    )
    chosen = _chosen(study, parts["mnist"], seeds)
    spent = costs(study, parts["mnist"], *(("parametric-both", "sgd") if smoke else ()))
    records = [{**r, **spent.get(r["name"], {})} if r["family"] == "mnist" else r for r in records]
    result = {
        "benchmark": "images",
        "smoke": smoke,
        "seeds": seeds,
        "commit": commit(),
        "torch": torch.__version__,
        "recipes": {name: r.to_json() for name, r in parts["mnist"].recipes.items()},
        "chosen": chosen,
        "records": records,
        "claims": [*_claims(parts, found, chosen), processes.ddp(study, smoke)],
    }
    return write_result(out, "images", json.loads(json.dumps(result)), PAGE)


def _part(source: str, smoke: bool) -> Experiment:
    """Return the panel judged on test tasks of a source: every learner, whichever source it was trained on."""
    steps = SMOKE_STEPS if smoke else STEPS
    rows = 100 * steps[-1]
    return Experiment(
        source,
        ImageClassification(
            "digits" if smoke else source, 64, 10, "test", support_rows=rows, query_rows=50 if smoke else 200
        ),
        _sized(_recipes(), smoke),
        methods_by_name(*BASELINES),
        {"error": error_rate, "accuracy": accuracy},
        100,
        steps,
        8 if smoke else 64,
        derived={bag: (name, bagged) for bag, name in zip(BAGGED, SINGLE, strict=True)},
        votes=dict(zip(VOTED, SINGLE, strict=True)),
        full_batch={"parametric-one-step-all": 50, "implicit-one-step-all": 20},
        costly={"lbfgs": steps},
    )


def _twin(base: Recipe, method: str) -> Recipe:
    """Return the one-step twin of a recipe: as many iterations on five times the tasks, of about as much work."""
    made = one_step_recipe(base, method)
    return replace(made, train=replace(made.train, tasks=5 * base.train.tasks))


def _recipes() -> dict[str, Recipe]:
    """Return every recipe: trained on MNIST, and, under @fashion_mnist, on Fashion-MNIST."""
    base = recipe("mnist")
    longer = replace(base.train, iterations=250)
    made = {
        f"parametric-{signal}": replace(base, method=variant(base.method, f"parametric-{signal}"))
        for signal in SIGNALS
    }
    made |= {f"parametric-one-step-{s}": _twin(base, f"parametric-{s}") for s in SIGNALS}
    made["hypernetwork"] = _twin(base, "hypernetwork")
    made["parametric-one-step-all"] = replace(base, scheme=replace(base.scheme, batch_size=1000, horizon=1))
    explicit = replace(base, method=variant(base.method, "explicit-both", features=256))
    made |= {
        f"explicit-{signal}": replace(explicit, method=variant(explicit.method, f"explicit-{signal}"))
        for signal in SIGNALS
    }
    made["explicit-one-step"] = _twin(explicit, "explicit-one-step")
    implicit = replace(base, method=method("implicit-logits"), train=longer)
    made["implicit"] = implicit
    made["implicit-one-step"] = _twin(implicit, "implicit-one-step")
    made["implicit-one-step-all"] = replace(
        implicit, method=method("implicit-one-step"), scheme=made["parametric-one-step-all"].scheme
    )
    made["closed-form"] = recipe("mnist-closed-form")
    moved = ("parametric-both", "parametric-one-step-both", "closed-form")
    return made | {
        f"{name}@fashion_mnist": replace(
            made[name], family=replace(made[name].family, source="fashion_mnist")
        )
        for name in moved
    }


def _sized(recipes: dict[str, Recipe], smoke: bool) -> dict[str, Recipe]:
    if not smoke:
        return recipes
    return {
        name: replace(
            r,
            family=replace(r.family, source="digits", query_rows=16),
            method=smaller(r.method, width=16, layers=1, features=32),
            train=replace(r.train, iterations=3, tasks=2),
        )
        for name, r in recipes.items()
    }


def smaller(method: Method, **sizes: int) -> Method:
    """Return the method with these sizes, as far as it has them: an option that is None stays None."""
    return replace(method, **{k: v for k, v in sizes.items() if getattr(method, k, None) is not None})


def bagged(learner: Learner) -> Learner:
    """Return the learner that answers with the mean of single refinements, one for each mini-batch."""
    return Learner(learner.predictor, Bagged(learner.refiner), learner.signal)


def _chosen(study: Study, part: Experiment, seeds: int) -> dict[str, str]:
    """Return which of each group is best on validation tasks of MNIST, after as many steps as it is judged by."""
    family = replace(part.family.on("validation"), support_rows=1000)
    part = replace(part, name="validation", family=family)
    groups = {
        "ours": (ITERATED, 10),
        "single": (SINGLE, 1),
        "bagged": ((*BAGGED, *VOTED), 10),
        "any": (ANY, 10),
    }
    return {
        group: select_best(study, part, list(names), step, seeds) for group, (names, step) in groups.items()
    }


def _claims(
    parts: dict[str, Experiment], found: dict[str, dict[str, Values]], chosen: dict[str, str]
) -> list[dict[str, Any]]:
    """Return the figures on MNIST after 10 steps, and of transfer to Fashion-MNIST."""
    steps = parts["mnist"].steps
    first, tenth = steps.index(1), steps.index(10)

    def errors(name: str, at: int = tenth, source: str = "mnist") -> np.ndarray:
        return found[source][name]["error"][:, at]

    def ratio(name: str, ours: np.ndarray, theirs: np.ndarray, bar: float) -> dict[str, Any]:
        measured = bootstrap(lambda a, b: float(a.mean() / b.mean()), ours, theirs)
        return claim(f"images.{name}", *measured, bar, "<=")

    def beside(name: str, at: int = tenth) -> list[float]:
        """Return our error over another's: no claim, but what a reader should know with one."""
        measured = bootstrap(lambda a, b: float(a.mean() / b.mean()), mine, errors(name, at))
        return [round(value, 4) for value in measured]

    def points(better: np.ndarray, worse: np.ndarray) -> tuple[float, float, float]:
        return bootstrap(lambda a, b: 100 * float(b.mean() - a.mean()), better, worse)

    ours, single = chosen["ours"], chosen["single"]
    mine, fit = errors(ours), errors("lbfgs")
    return [
        {**claim("images.points_to_lbfgs", *points(fit, mine), 1.5, "<="), "chosen": ours},
        {
            **ratio("over_adam", mine, errors("adam"), 0.95),
            "beside": {
                "over a tuned damped Newton step, nothing learnt": beside("newton"),
                "over tuned momentum": beside("momentum"),
            },
        },
        {
            **ratio("over_onestep", mine, errors(single, first), 0.7),
            "against": single,
            "beside": {"over the same one-step learner, iterated ten times": beside(single)},
        },
        {**ratio("over_bagged", mine, errors(chosen["bagged"]), 0.97), "against": chosen["bagged"]},
        {
            **ratio("over_full", mine, errors("parametric-one-step-all"), 1.05),
            "beside": {"over the implicit one-shot learner, all 1,000 rows": beside("implicit-one-step-all")},
        },
        {
            **ratio("ood", errors(ours, tenth, "fashion_mnist"), errors(single, first, "fashion_mnist"), 0.8),
            "against": single,
        },
        {
            **claim("images.best_points", *points(errors(chosen["any"]), fit), 1, ">="),
            "chosen": chosen["any"],
            "beside": {"of tuned random features, nothing learnt": points(errors("random-features"), fit)},
        },
    ]
