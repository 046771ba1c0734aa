"""What adapting costs as rows grow, iterated and in one shot, and how well a learner knows when to stop.

Source: Mittal et al. 2025, cost of K steps of B rows; DESIGN.md, Results.
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

from .tables import ASKED, SPENT, STOPPED, TABLES, TIMED, learner

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gradatim.batch import Batch, Task
    from gradatim.comparison.experiment import Values
    from gradatim.comparison.runs import Study, TrainedRun
    from gradatim.learner import Learner
    from gradatim.recipes import Recipe

SIZE, OTHERS, REPEATS, AT = 128, (16, 512), 5, 16_384


def spent(study: Study, smoke: bool) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return records of the seconds to adapt to one task, and the claims on their growth and on one shot.

    One model, a transformer of width 64 and 2 layers that refines 8 weights, untrained, one thread: mini-batches of 128
    rows in turn, or all rows at once. Repeats in turns, medians; intervals over repeats. Beside the claim on one shot
    stands what it is to other mini-batches: the shorter, the more small operations.
    """
    timed = TIMED[:2] if smoke else TIMED
    last = timed[-1] if smoke else AT
    values = study.cached(
        "cost", [timed, SIZE, OTHERS, last, REPEATS], lambda: _seconds(timed, last, 1 if smoke else REPEATS)
    )
    records = [
        _record("cost", name, rows, "seconds", _middle(seconds), values)
        for name in SPENT
        for rows, seconds in zip(timed, values[name].T, strict=False)
    ]
    iterated, place = values[SPENT[0]], timed.index(last)
    slopes = np.polyfit(np.log(timed), np.log(iterated).T, 1)[0]
    once = values[SPENT[1]][:, place]
    others = {f"mini-batches of {size} rows": _middle(once / values[f"of {size}"]) for size in OTHERS}
    exponent = claim("paper.cost_exponent", *_middle(slopes), 1.1, "<=")
    ratio = claim("paper.cost_ratio", *_middle(once / iterated[:, place]), 10, ">=")
    about = {"range": "least and most of the repeats"}
    return records, [exponent | about, ratio | about | {"beside": others}]


def stopped(study: Study, learners: dict[str, list[TrainedRun]], smoke: bool) -> list[dict[str, Any]]:
    """Return records of squared errors, and of rows used, where streams are left by an estimate of the loss.

    `learners`: by name, seed by seed, trained on linear regression. Thresholds are `ASKED` percent of the noise.
    """
    family = LinearRegression(8, 0.5, support_rows=160 if smoke else 1600, query_rows=64)
    task = sample_tasks(family, 8 if smoke else 256, seed=1)
    few = {"steps": 10, "tasks": 32, "iterations": 5} if smoke else {"steps": 100, "tasks": 512}
    records = []
    for name, runs in learners.items():
        found = [
            study.cached(
                f"stopped-{name}-{seed}",
                [repr(family), few, ASKED, run.description],
                lambda run=run: _stops(run.learner, family, task, few),
            )
            for seed, run in enumerate(runs)
        ]
        peak = max(run.peak_memory for run in runs)
        for place, percent in enumerate(ASKED):
            for panel, metric in STOPPED.items():
                own = np.stack([values[metric][place] for values in found])
                three = mean_interval(own)
                records.append(_record(panel, name, percent, metric, three, found[0], peak))
    return records


def paced(study: Study, recipes: Mapping[str, Recipe]) -> dict[str, float]:
    """Return the seconds of meta-training of each recipe: its iterations times the seconds of one of them.

    Timed one recipe after another in this process on one thread: seconds of runs beside other runs say little.
    """
    found = {}
    for name, recipe in recipes.items():
        once = replace(recipe, train=replace(recipe.train, seed=0, threads=1))
        values = study.cached(f"pace-{name}", once.to_json(), lambda once=once: {"seconds": _pace(once)})
        found[name] = float(values["seconds"]) * recipe.train.iterations
    return found


def _pace(recipe: Recipe, few: int = 4) -> np.ndarray:
    """Return the seconds of an iteration: of `few` more than one, so that what a run begins with does not count."""
    spent = []
    for count in (1, 1, 1 + few):  # the first call loads code
        begun = time.perf_counter()
        with on_threads(1):
            train(
                recipe.learner(),
                recipe.family,
                recipe.scheme,
                replace(recipe.train, iterations=count),
                progress=False,
            )
        spent.append(time.perf_counter() - begun)
    return np.asarray(max(0.0, spent[2] - spent[1]) / few)


def prefix(found: dict[str, dict[str, Values]]) -> dict[str, Any]:
    """Return the claim on one refiner for mini-batches of every length, over those trained for each alone."""
    beside = {}
    for panel, rows in TABLES[19].rows.items():
        alone, shared = (found[panel][learner(panel, row)]["squared error"][:, -1] for row in rows)
        beside[f"{panel}, after ten steps"] = bootstrap(
            lambda a, b: float(a.mean() / b.mean()), shared, alone
        )
    value, low, high = max(beside.values())
    return claim("paper.prefix", value, low, high, 1.15, "<=") | {"beside": beside}


def _seconds(timed: tuple[int, ...], last: int, repeats: int) -> Values:
    """Return seconds `[repeats, rows]` of adapting in turn, and at once up to `last` rows, these also by `OTHERS`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        own = build("parametric-observations", LinearRegression(8, 0.5), gain=CONSTANT).eval()
    support = (
        LinearRegression(8, 0.5, support_rows=timed[-1]).sample(1, torch.Generator().manual_seed(0)).support
    )
    found: dict[str, list[Any]] = {name: [] for name in (*SPENT, *(f"of {size}" for size in OTHERS))}
    with torch.no_grad(), on_threads(1):
        own.adapt(support.slice(0, 2 * SIZE), SIZE)  # the first call loads code
        for _ in range(repeats):
            found[SPENT[0]].append([_timed(own, support.slice(0, rows), SIZE) for rows in timed])
            few = [rows for rows in timed if rows <= last]
            found[SPENT[1]].append([_timed(own, support.slice(0, rows), rows) for rows in few])
            for size in OTHERS:
                found[f"of {size}"].append(_timed(own, support.slice(0, last), size))
    return {name: np.asarray(seconds) for name, seconds in found.items()}


def _timed(own: Learner, rows: Batch, size: int) -> float:
    begun = time.perf_counter()
    own.adapt(rows, size)
    return time.perf_counter() - begun


def _stops(own: Learner, family: LinearRegression, task: Task, few: dict[str, int]) -> Values:
    """Return squared errors and rows used `[thresholds, T]`."""
    estimate = fit_estimate(own, family, batch_size=16, **few)
    errors, rows = [], []
    for percent in ASKED:
        threshold = percent / 100 * family.noise_std**2
        left = stopping_times(own, task.support.split(16), estimate, threshold)
        with torch.no_grad():
            errors.append(squared_error(own.predict(task.query.x, left.state), task).numpy())
        rows.append(16.0 * left.steps.numpy())
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
    """Return a record as `panel.measure` makes them, of a value with its interval."""
    mean, low, high = (float(f"{value:.6g}") for value in three)
    about = {"name": name, "method": name, "family": panel, "signal": None, "steps": column, "metric": metric}
    numbers = {"seed": "all", "mean": mean, "low": low, "high": high, "setting": None}
    return {**about, **numbers, "commit": str(values["commit"]), "seconds": 0.0, "peak_memory": peak}
