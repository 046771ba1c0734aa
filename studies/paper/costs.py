"""What adapting costs as rows grow, iterated and in one pass, and the accuracy of a learner's stopping rule.

Source: Mittal et al. 2025, cost of K steps of B rows.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gradatim.comparison.runs import claim, sample_tasks
from gradatim.families import LinearRegression
from gradatim.methods import build
from gradatim.metrics import bootstrap, mean_interval, squared_error
from gradatim.provenance import on_threads
from gradatim.refiners import CONSTANT
from gradatim.stopping import fit_estimate, stopping_times
from gradatim.training.train import train

from .tables import ADAPTATIONS, STOPPED, TABLES, THRESHOLDS, TIMED, learner

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gradatim.batch import Batch, Task
    from gradatim.comparison.experiment import Values
    from gradatim.comparison.runs import Study, TrainedRun
    from gradatim.learner import Learner
    from gradatim.recipes import Recipe

SIZE, OTHERS, REPEATS, AT = 128, (16, 512), 5, 16_384


def adaptation_costs(study: Study, smoke: bool) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return records of the seconds to adapt to one task, and claims on their growth and on one pass over all rows.

    The model is an untrained transformer of width 64 and 2 layers that refines 8 weights, on one thread. It adapts
    in mini-batches of 128 rows, or to all rows at once. Both are timed in turns. Values are medians, intervals are
    over repeats. The claim on one pass also has its ratio to other sizes of mini-batches: shorter ones need more
    small operations.
    """
    timed = TIMED[:2] if smoke else TIMED
    last = timed[-1] if smoke else AT
    values = study.cached(
        "cost", [timed, SIZE, OTHERS, last, REPEATS], lambda: _seconds(timed, last, 1 if smoke else REPEATS)
    )
    records = [
        _record("cost", name, rows, "seconds", _middle(seconds), values)
        for name in ADAPTATIONS
        for rows, seconds in zip(timed, values[name].T, strict=False)
    ]
    iterated, place = values[ADAPTATIONS[0]], timed.index(last)
    slopes = np.polyfit(np.log(timed), np.log(iterated).T, 1)[0]
    once = values[ADAPTATIONS[1]][:, place]
    others = {f"mini-batches of {size} rows": _middle(once / values[f"of {size}"]) for size in OTHERS}
    exponent = claim("paper.cost_exponent", *_middle(slopes), 1.1, "<=")
    ratio = claim("paper.cost_ratio", *_middle(once / iterated[:, place]), 10, ">=")
    about = {"range": "least and most of the repeats"}
    return records, [exponent | about, ratio | about | {"beside": others}]


def stopping_records(
    study: Study, learners: dict[str, list[TrainedRun]], smoke: bool
) -> list[dict[str, Any]]:
    """Return records of squared errors and of rows used, where an estimate of the loss stops the stream.

    `learners`: by name, seed by seed, trained on linear regression. Thresholds are `THRESHOLDS` percent of the
    noise.
    """
    family = LinearRegression(8, 0.5, support_rows=160 if smoke else 1600, query_rows=64)
    task = sample_tasks(family, 8 if smoke else 256, seed=1)
    fit_options = {"steps": 10, "tasks": 32, "iterations": 5} if smoke else {"steps": 100, "tasks": 512}
    records = []
    for name, runs in learners.items():
        stored = [
            study.cached(
                f"stopped-{name}-{seed}",
                [repr(family), fit_options, THRESHOLDS, run.description],
                lambda run=run: _stops(run.learner, family, task, fit_options),
            )
            for seed, run in enumerate(runs)
        ]
        peak = max(run.peak_memory for run in runs)
        for place, percent in enumerate(THRESHOLDS):
            for panel, metric in STOPPED.items():
                stacked = np.stack([values[metric][place] for values in stored])
                three = mean_interval(stacked)
                records.append(_record(panel, name, percent, metric, three, stored[0], peak))
    return records


def training_seconds(study: Study, recipes: Mapping[str, Recipe]) -> dict[str, float]:
    """Return the seconds of meta-training of each recipe: its iterations times the seconds of one iteration.

    Recipes are timed one after another in this process, on one thread. Concurrent runs would distort the times.
    """
    seconds = {}
    for name, recipe in recipes.items():
        once = replace(recipe, train=replace(recipe.train, seed=0, threads=1))
        values = study.cached(
            f"pace-{name}", once.to_json(), lambda once=once: {"seconds": _iteration_seconds(once)}
        )
        seconds[name] = float(values["seconds"]) * recipe.train.iterations
    return seconds


def _iteration_seconds(recipe: Recipe, extra: int = 4) -> np.ndarray:
    """Return the seconds of an iteration, measured on `extra` iterations more than one. The start of a run does not
    count.
    """
    spent = []
    for count in (1, 1, 1 + extra):  # the first call loads code
        start = time.perf_counter()
        with on_threads(1):
            train(
                recipe.learner(),
                recipe.family,
                recipe.scheme,
                replace(recipe.train, iterations=count),
                progress=False,
            )
        spent.append(time.perf_counter() - start)
    return np.asarray(max(0.0, spent[2] - spent[1]) / extra)


def prefix_claim(results: dict[str, dict[str, Values]]) -> dict[str, Any]:
    """Return the claim on one refiner for mini-batches of every length, over refiners trained for each length."""
    beside = {}
    for panel, rows in TABLES[19].rows.items():
        alone, shared = (results[panel][learner(panel, row)]["squared error"][:, -1] for row in rows)
        beside[f"{panel}, after ten steps"] = bootstrap(
            lambda a, b: float(a.mean() / b.mean()), shared, alone
        )
    value, low, high = max(beside.values())
    return claim("paper.prefix", value, low, high, 1.15, "<=") | {"beside": beside}


def _seconds(timed: tuple[int, ...], last: int, repeats: int) -> Values:
    """Return seconds `[repeats, rows]` of adapting in mini-batches and at once, by `ADAPTATIONS`.

    Adapting at once stops at `last` rows. There the sizes in `OTHERS` are timed too.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build("parametric-observations", LinearRegression(8, 0.5), gain=CONSTANT).eval()
    support = (
        LinearRegression(8, 0.5, support_rows=timed[-1]).sample(1, torch.Generator().manual_seed(0)).support
    )
    timings: dict[str, list[Any]] = {name: [] for name in (*ADAPTATIONS, *(f"of {size}" for size in OTHERS))}
    with torch.no_grad(), on_threads(1):
        model.adapt(support.slice(0, 2 * SIZE), SIZE)  # the first call loads code
        for _ in range(repeats):
            timings[ADAPTATIONS[0]].append([_timed(model, support.slice(0, rows), SIZE) for rows in timed])
            shorter = [rows for rows in timed if rows <= last]
            timings[ADAPTATIONS[1]].append([_timed(model, support.slice(0, rows), rows) for rows in shorter])
            for size in OTHERS:
                timings[f"of {size}"].append(_timed(model, support.slice(0, last), size))
    return {name: np.asarray(seconds) for name, seconds in timings.items()}


def _timed(model: Learner, rows: Batch, size: int) -> float:
    start = time.perf_counter()
    model.adapt(rows, size)
    return time.perf_counter() - start


def _stops(model: Learner, family: LinearRegression, task: Task, fit_options: dict[str, int]) -> Values:
    """Return squared errors and rows used, each `[thresholds, T]`."""
    estimate = fit_estimate(model, family, batch_size=16, **fit_options)
    errors, rows = [], []
    for percent in THRESHOLDS:
        threshold = percent / 100 * family.noise_std**2
        stop = stopping_times(model, task.support.split(16), estimate, threshold)
        with torch.no_grad():
            errors.append(squared_error(model.predict(task.query.x, stop.state), task).numpy())
        rows.append(16.0 * stop.steps.numpy())
    return {"squared error": np.stack(errors), "rows used": np.stack(rows)}


def _middle(values: Any) -> tuple[float, float, float]:
    return float(np.median(values)), float(np.min(values)), float(np.max(values))


def _record(
    panel: str,
    name: str,
    column: int,
    metric: str,
    three: tuple[float, float, float],
    values: Values,
    peak: int | None = None,
) -> dict[str, Any]:
    """Return a record of a value with its interval, in the format of the other records."""
    mean, low, high = (float(f"{value:.6g}") for value in three)
    about = {"name": name, "method": name, "family": panel, "signal": None, "steps": column, "metric": metric}
    numbers = {"seed": "all", "mean": mean, "low": low, "high": high, "setting": None}
    return {**about, **numbers, "commit": str(values["commit"]), "seconds": 0.0, "peak_memory": peak}
