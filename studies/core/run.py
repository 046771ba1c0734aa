"""`make study NAME=core`: does refining pay, in every regime; is training fast; does a killed run come back.

Source: Mittal et al. 2025, tables 2-4, on LinearRegression(8, 0.5) and on tasks of scikit-learn's digits.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gradatim.comparison.experiment import SIGNALS, Experiment, methods_by_name
from gradatim.comparison.panel import run_experiment, select_best
from gradatim.comparison.report import write_result
from gradatim.comparison.runs import Study, claim, one_step_recipe
from gradatim.families import ImageClassification, LinearRegression
from gradatim.methods import variant
from gradatim.metrics import bootstrap, error_rate, excess_risk, squared_error
from gradatim.provenance import commit
from gradatim.recipes import Recipe, recipe

from . import machine
from .page import PAGE

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from gradatim.metrics import Metric

ONCE = {
    "digits-parametric-one-step-observations": ("digits-observations", "parametric-observations"),
    "digits-parametric-one-step-gradients": ("digits-gradients", "parametric-gradients"),
    "digits-parametric-one-step": ("digits-both", "parametric-one-step"),
    "digits-explicit-one-step": ("digits-explicit", "explicit-one-step"),
    "digits-implicit-one-step": ("digits-implicit", "implicit-one-step"),
}
"""The one-step learners of the digits: the iterated twin of each, and the method."""


def run(out: Path, smoke: bool, seeds: int, workers: int, console: Console) -> list[Path]:
    """Run the benchmark; return core.json, core.md and the pictures written below `out`."""
    study = Study(out / "work" / ("core-smoke" if smoke else "core"), workers, console)
    records: list[dict[str, Any]] = []
    found: dict[str, dict[str, np.ndarray]] = {}
    parts = (_linear(smoke), _digits(smoke))
    for part in parts:
        values = run_experiment(study, part, seeds, records)
        found |= {n if n in part.recipes else f"{part.name}-{n}": value for n, value in values.items()}
    console.print("measuring throughput, then killing and resuming runs")
    claims = [
        *_linear_claims(found),
        *_digits_claims(study, found, seeds, smoke),
        machine.throughput(study, smoke),
        machine.kill_resume(study, smoke),
    ]
    result = {
        "benchmark": "core",
        "smoke": smoke,
        "seeds": seeds,
        "commit": commit(),
        "torch": torch.__version__,
        "recipes": {name: r.to_json() for part in parts for name, r in part.recipes.items()},
        "records": records,
        "claims": claims,
    }
    return write_result(out, "core", json.loads(json.dumps(result)), PAGE)


def _linear(smoke: bool) -> Experiment:
    """Return the linear regression part: the paper's learner, and the default gain under each signal."""
    base = recipe("linear")
    recipes = {"linear-constant": recipe("linear-constant")}
    recipes |= {
        f"linear-{signal}": replace(base, method=variant(base.method, f"parametric-{signal}"))
        for signal in SIGNALS
    }
    recipes["linear-one-step"] = one_step_recipe(base, "parametric-one-step")
    steps = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20, 50)
    family = LinearRegression(8, 0.5, support_rows=16 * steps[-1], query_rows=64 if smoke else 256)
    metrics: dict[str, Metric] = {"squared error": squared_error, "excess risk": excess_risk}
    baselines = methods_by_name("sgd", "momentum", "adam", "ridge")
    return Experiment(
        "linear", family, _sized(recipes, smoke), baselines, metrics, 16, steps, 32 if smoke else 512
    )


def _digits(smoke: bool) -> Experiment:
    """Return the digits part: every signal in the parametric regime, the other regimes, the one-step learners."""
    base = recipe("digits")
    recipes = {
        f"digits-{signal}": replace(base, method=variant(base.method, f"parametric-{signal}"))
        for signal in SIGNALS
    }
    recipes["digits-explicit"] = recipe("digits-explicit")
    recipes["digits-implicit"] = recipe("digits-implicit")
    recipes |= {name: one_step_recipe(recipes[twin], method) for name, (twin, method) in ONCE.items()}
    steps = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20, 50)
    family = ImageClassification("digits", 32, 10, "test", support_rows=50 * steps[-1], query_rows=100)
    metrics: dict[str, Metric] = {"error": error_rate}
    baselines = methods_by_name("sgd", "momentum", "adam", "ridge", "lbfgs")
    return Experiment(
        "digits", family, _sized(recipes, smoke), baselines, metrics, 50, steps, 16 if smoke else 256
    )


def _sized(recipes: dict[str, Recipe], smoke: bool) -> dict[str, Recipe]:
    if not smoke:
        return recipes
    return {
        name: replace(
            r,
            method=replace(r.method, width=16, layers=1),
            train=replace(r.train, iterations=8, tasks=4),
        )
        for name, r in recipes.items()
    }


def _linear_claims(found: dict[str, dict[str, np.ndarray]]) -> list[dict[str, Any]]:
    """Return `core.linear.ratio10` and `core.linear.falls`; step s stands at index s - 1."""
    ours = found["linear-constant"]["excess risk"][:, 9]
    best = found["linear-oracle"]["excess risk"][:, 9]
    ratio = bootstrap(lambda a, b: a.mean() / b.mean(), ours, best)
    curves = [found[f"linear-{signal}"]["excess risk"][:, :10].transpose(0, 2, 1) for signal in SIGNALS]

    def falls(*values: np.ndarray) -> float:
        means = np.stack([v.mean(axis=1) for v in values])  # [signals, seeds, steps]
        return float((np.diff(means, axis=-1) < 0).mean())

    return [
        claim("core.linear.ratio10", *ratio, 2.2, "<="),
        claim("core.linear.falls", *bootstrap(falls, *curves), 0.95, ">="),
    ]


def _digits_claims(
    study: Study, found: dict[str, dict[str, np.ndarray]], seeds: int, smoke: bool
) -> list[dict[str, Any]]:
    """Return `core.digits.over_onestep` and `core.regimes`; the signals of both sides chosen on validation tasks."""
    ours = _choose(study, [f"digits-{signal}" for signal in SIGNALS], 7, seeds, smoke)
    theirs = _choose(study, [name for name in ONCE if "parametric" in name], 1, seeds, smoke)
    study.console.print(f"on validation tasks of the digits the best were {ours} and {theirs}")

    def ratio(a: np.ndarray, b: np.ndarray) -> float:
        return float(a.mean() / b.mean())

    pairs = {
        "parametric": (ours, theirs),
        "explicit": ("digits-explicit", "digits-explicit-one-step"),
        "implicit": ("digits-implicit", "digits-implicit-one-step"),
    }
    ratios = {
        regime: bootstrap(ratio, found[iterated]["error"][:, 9], found[single]["error"][:, 0])
        for regime, (iterated, single) in pairs.items()
    }
    better = sum(high < 1 for _, _, high in ratios.values())
    regimes = claim("core.regimes", better, better, better, 3, ">=")
    regimes["ratios"] = {regime: [round(v, 4) for v in values] for regime, values in ratios.items()}
    over = claim("core.digits.over_onestep", *ratios["parametric"], 0.8, "<=")
    return [{**over, "chosen": ours, "against": theirs}, regimes]


def _choose(study: Study, names: list[str], step: int, seeds: int, smoke: bool) -> str:
    """Return the recipe with the lowest error on validation tasks: their pool has rows for 7 steps without a repeat."""
    part = _digits(smoke)
    family = replace(part.family.on("validation"), support_rows=7 * part.batch_size, query_rows=99)
    recipes = {name: part.recipes[name] for name in names}
    return select_best(
        study, replace(part, name="validation", family=family, recipes=recipes), names, step, seeds
    )
