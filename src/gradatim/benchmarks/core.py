"""`gradatim bench core`: does refining pay, in every regime; is training fast; does a killed run come back.

Source: Mittal et al. 2025, tables 2-4, on LinearRegression(8, 0.5) and on tasks of scikit-learn's digits.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..families import ImageClassification, LinearRegression
from ..methods import METHODS, build
from ..metrics import bootstrap, curve, error_rate, excess_risk, squared_error
from ..provenance import commit
from ..recipes import Recipe, recipe
from ..refiners import RowsConfig
from ..report import write_result
from . import machine
from .study import Study, Trained, claim, interval, once, sample, tune

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from ..batch import Task
    from ..family import TaskFamily
    from ..metrics import Metric

SIGNALS = ("observations", "gradients", "both")
ONCE = {
    "digits-parametric-one-step-observations": ("digits-observations", "parametric-observations"),
    "digits-parametric-one-step-gradients": ("digits-gradients", "parametric-gradients"),
    "digits-parametric-one-step": ("digits-both", "parametric-one-step"),
    "digits-explicit-one-step": ("digits-explicit", "explicit-one-step"),
    "digits-implicit-one-step": ("digits-implicit", "implicit-one-step"),
}
"""The one-step learners of the digits: the iterated twin of each, and the method."""


COSTLY = {"lbfgs": (1, 2, 5, 10)}
"""Methods that fit every task from scratch: judged after these steps only, tuned on a quarter of the tasks."""


@dataclass(frozen=True)
class Part:
    """One family of the study: its recipe by name, judged by `metrics`, the first of which tunes the baselines."""

    name: str
    family: TaskFamily
    recipes: dict[str, Recipe]
    baselines: tuple[str, ...]
    metrics: dict[str, Metric]
    batch_size: int
    steps: tuple[int, ...]
    tasks: int


def run(out: Path, smoke: bool, seeds: int, workers: int, console: Console) -> list[Path]:
    """Run the benchmark; return core.json, core.md and the pictures written below `out`."""
    study = Study(out / "work" / ("core-smoke" if smoke else "core"), workers, console)
    records: list[dict[str, Any]] = []
    found: dict[str, dict[str, np.ndarray]] = {}
    parts = (_linear(smoke), _digits(smoke))
    for part in parts:
        found |= _measure(study, part, seeds, records)
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
    return write_result(out, "core", json.loads(json.dumps(result)))


def _linear(smoke: bool) -> Part:
    """Return the linear regression part: the paper's learner, and the default gain under each signal."""
    base = recipe("linear")
    recipes = {"linear-constant": recipe("linear-constant")}
    recipes |= {f"linear-{signal}": replace(base, method=f"parametric-{signal}") for signal in SIGNALS}
    recipes["linear-one-step"] = once(base, "parametric-one-step")
    steps = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20, 50)
    family = LinearRegression(8, 0.5, support_rows=16 * steps[-1], query_rows=64 if smoke else 256)
    metrics: dict[str, Metric] = {"squared error": squared_error, "excess risk": excess_risk}
    baselines = ("sgd", "momentum", "adam", "ridge")
    return Part("linear", family, _sized(recipes, smoke), baselines, metrics, 16, steps, 32 if smoke else 512)


def _digits(smoke: bool) -> Part:
    """Return the digits part: every signal in the parametric regime, the other regimes, the one-step learners."""
    base = recipe("digits")
    recipes = {f"digits-{signal}": replace(base, method=f"parametric-{signal}") for signal in SIGNALS}
    recipes["digits-explicit"] = recipe("digits-explicit")
    recipes["digits-implicit"] = recipe("digits-implicit")
    recipes |= {name: once(recipes[twin], method) for name, (twin, method) in ONCE.items()}
    steps = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20, 50)
    family = ImageClassification("digits", 32, 10, "test", support_rows=50 * steps[-1], query_rows=100)
    metrics: dict[str, Metric] = {"error": error_rate}
    baselines = ("sgd", "momentum", "adam", "ridge", "lbfgs")
    return Part("digits", family, _sized(recipes, smoke), baselines, metrics, 50, steps, 16 if smoke else 256)


def _sized(recipes: dict[str, Recipe], smoke: bool) -> dict[str, Recipe]:
    if not smoke:
        return recipes
    small = RowsConfig(width=16, layers=1)
    return {
        name: replace(
            r,
            refiner=replace(small, gain=r.refiner.gain, prefixes=r.refiner.prefixes),
            train=replace(r.train, iterations=8, tasks=4),
        )
        for name, r in recipes.items()
    }


def _measure(
    study: Study, part: Part, seeds: int, records: list[dict[str, Any]]
) -> dict[str, dict[str, np.ndarray]]:
    """Meta-train, tune and judge one part; append its records; return values `[S, steps, T]` by method and metric."""
    trained = study.train(_by_seed(part.recipes, seeds))
    task = sample(part.family, part.tasks, seed=1)
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, made in part.recipes.items():
        runs = [trained[f"{name}-{seed}"] for seed in range(seeds)]
        values = [_judge(study, f"{name}-{seed}", run, part, task) for seed, run in enumerate(runs)]
        found[name] = {metric: np.stack([v[metric] for v in values]) for metric in part.metrics}
        for seed, (own, run) in enumerate(zip(values, runs, strict=True)):
            records += _records(part, name, made.method, seed, own, run)
        records += _together(records, found[name], name)
    others = {f"{part.name}-{name}": partial(_baseline, study, part, name, task) for name in part.baselines}
    if task.truth is not None:
        others[f"{part.name}-oracle"] = partial(_oracle, study, part, task)
    for name, judge in others.items():
        study.console.print(f"judging {name}")
        values = judge()
        records += _records(part, name, name.partition("-")[2], None, values, None)
        found[name] = {metric: values[metric][None] for metric in part.metrics}
    return found


def _together(
    records: list[dict[str, Any]], values: dict[str, np.ndarray], name: str
) -> list[dict[str, Any]]:
    """Return the records of all seeds of a method as one each: the mean, its interval over seeds and tasks."""
    own = [record for record in records if record["name"] == name]
    made = []
    for metric, array in values.items():
        rows = [record for record in own if record["metric"] == metric and record["seed"] == 0]
        for row, at in zip(rows, np.moveaxis(array, 1, 0), strict=True):
            mean, low, high = bootstrap(lambda a: float(a.mean()), at, resamples=500)
            bounds = {"mean": round(mean, 6), "low": round(low, 6), "high": round(high, 6)}
            like = [r for r in own if r["metric"] == metric and r["steps"] == row["steps"]]
            seconds = round(float(np.mean([r["seconds"] for r in like])), 1)
            peak = max(r["peak_memory"] for r in like)
            made.append({**row, "seed": "all", **bounds, "seconds": seconds, "peak_memory": peak})
    return made


def _about(part: Part) -> list[Any]:
    """Return what every record of a part depends on besides its method."""
    family = {"name": type(part.family).__name__, **asdict(part.family)}
    return [family, part.tasks, part.batch_size, list(part.steps), list(part.metrics)]


def _judge(study: Study, key: str, run: Trained, part: Part, task: Task) -> dict[str, np.ndarray]:
    return study.arrays(
        key,
        [_about(part), run.recipe.to_json()],
        lambda: curve(run.learner, task, part.batch_size, part.steps, part.metrics),
    )


def _baseline(study: Study, part: Part, name: str, task: Task) -> dict[str, np.ndarray]:
    """Tune a baseline on meta-training tasks, at 10 steps, and judge it."""
    row = METHODS[name]
    make = partial(build, name, part.family)
    steps = COSTLY.get(name, part.steps)

    def compute() -> dict[str, np.ndarray]:
        family = replace(part.family.on("train"), support_rows=10 * part.batch_size)
        tuning = sample(family, min(16 if name in COSTLY else 64, part.tasks), seed=2)
        setting = tune(make, row.grid, tuning, part.batch_size, 10, next(iter(part.metrics.values())))
        values = curve(make(**setting), task, part.batch_size, steps, part.metrics)
        settings = {f"setting {key}": np.asarray(value) for key, value in setting.items()}
        return {**values, "steps": np.asarray(steps), **settings}

    grid = {key: list(values) for key, values in row.grid.items()}
    return study.arrays(f"{part.name}-{name}", [_about(part), grid, list(steps)], compute)


def _oracle(study: Study, part: Part, task: Task) -> dict[str, np.ndarray]:
    """Return the metrics of the best possible answer after each step."""

    def compute() -> dict[str, np.ndarray]:
        values: dict[str, list[np.ndarray]] = {name: [] for name in part.metrics}
        for step in part.steps:
            outputs = part.family.oracle(task, step * part.batch_size)
            assert outputs is not None
            for name, metric in part.metrics.items():
                values[name].append(metric(outputs, task).numpy())
        return {name: np.stack(rows) for name, rows in values.items()}

    return study.arrays(f"{part.name}-oracle", _about(part), compute)


def _records(
    part: Part, name: str, method: str, seed: int | None, values: dict[str, np.ndarray], run: Trained | None
) -> list[dict[str, Any]]:
    """Return one record for each metric and step."""
    setting = {k.removeprefix("setting "): v.item() for k, v in values.items() if k.startswith("setting ")}
    records = []
    for metric in part.metrics:
        for step, per_task in zip(values.get("steps", part.steps), values[metric], strict=True):
            mean, low, high = interval(per_task)
            records.append(
                {
                    "name": name,
                    "method": method,
                    "family": part.name,
                    "signal": method.rpartition("-")[2]
                    if run and method.rpartition("-")[2] in SIGNALS
                    else None,
                    "steps": int(step),
                    "rows": int(step) * part.batch_size,
                    "metric": metric,
                    "seed": seed,
                    "mean": round(mean, 6),
                    "low": round(low, 6),
                    "high": round(high, 6),
                    "tasks": len(per_task),
                    "setting": setting or None,
                    "commit": str(values["commit"]),
                    "seconds": round(run.seconds, 1) if run else 0.0,
                    "peak_memory": run.peak_memory if run else None,
                    "threads": run.threads if run else None,
                }
            )
    return records


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
    """Return the recipe with the lowest error on validation tasks, over all seeds, after `step` mini-batches.

    The validation pool has rows for 7 steps without a repeat.
    """
    part = _digits(smoke)
    family = replace(part.family.on("validation"), support_rows=7 * part.batch_size, query_rows=99)
    task = sample(family, part.tasks, seed=3)
    part = replace(part, family=family, steps=(step,))
    trained = study.train(_by_seed({name: part.recipes[name] for name in names}, seeds))
    errors: dict[str, float] = {}
    for name in names:
        keys = [f"{name}-{seed}" for seed in range(seeds)]
        judged = [_judge(study, f"validation-{key}", trained[key], part, task)["error"] for key in keys]
        errors[name] = float(np.mean(judged))
    return min(errors, key=lambda name: errors[name])


def _by_seed(recipes: dict[str, Recipe], seeds: int) -> dict[str, Recipe]:
    """Return each recipe under each meta-training seed, as NAME-SEED."""
    return {
        f"{name}-{seed}": replace(made, train=replace(made.train, seed=seed))
        for seed in range(seeds)
        for name, made in recipes.items()
    }
