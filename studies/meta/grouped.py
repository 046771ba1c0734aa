"""The claims on one's own tasks: from losses of tasks, in several divisions, to ratios with intervals.

Source: Efron, Tibshirani 1993, chapter 13 (the bootstrap); the bars are this project's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from studies.part import Found, Part
from studies.tables.protocol import compute

from .own import COVERED, KNOWN, LENGTHS, Job, missing, peers, record, settings_of
from .peers import ALONE, OURS, PRIOR, TREES
from .tasks import TABLES
from .verdicts import geometric, measured

if TYPE_CHECKING:
    from gradatim.comparison.runs import Study
    from studies.tables.verdicts import Three

DIVISIONS, REPEATS = 5, 3
"""Random divisions of the tasks, and repeats of what is timed."""

NUMBERS = ("school", "parkinsons")
"""Tables whose y has intervals."""

Losses = dict[str, dict[str, np.ndarray]]
"""Losses of test tasks by table and method, `[divisions, tasks, counts of known rows]`; NaN where none was taken."""


def resampled(statistic: Callable[[Any], float], arrays: Any, resamples: int = 2000) -> Three:
    """Return a statistic of arrays by table and method, and its 95% interval over divisions and their tasks.

    Args:
        statistic: of mappings like `arrays`.
        arrays: by table, by method, `[divisions, tasks, ...]`. All methods of a table are drawn together.
        resamples: how often.
    """
    rng = np.random.default_rng(0)
    draws = np.empty(resamples)
    for draw in range(resamples):
        chosen = {}
        for table, by_method in arrays.items():
            count, n_tasks = next(iter(by_method.values())).shape[:2]
            divisions = rng.integers(count, size=count)[:, None]
            tasks = rng.integers(n_tasks, size=(count, n_tasks))
            chosen[table] = {name: values[divisions, tasks] for name, values in by_method.items()}
        draws[draw] = statistic(chosen)
    low, high = np.percentile(draws, [2.5, 97.5])
    return statistic(arrays), float(low), float(high)


def means(values: np.ndarray) -> np.ndarray:
    """Return the mean over divisions and tasks `[counts of known rows]`, of the losses that there are."""
    there = ~np.isnan(values)
    total = np.where(there, values, 0).sum((0, 1))
    return np.divide(total, there.sum((0, 1)), out=np.full(total.shape, np.nan), where=there.any((0, 1)))


def early(values: np.ndarray) -> float:
    """Return the geometric mean over 8, 16 and 32 rows of mean losses."""
    return geometric(means(values)[: len(LENGTHS)])


def late(values: np.ndarray) -> float:
    """Return the mean loss with 80% of the rows."""
    return float(means(values)[len(LENGTHS)])


def over(losses: Losses, other: Mapping[str, str], value: Callable[[np.ndarray], float] = early) -> Three:
    """Return the geometric mean over tables of our loss over that of another method, one for each table."""

    def statistic(arrays: Losses) -> float:
        return geometric(
            np.array([value(arrays[t][OURS]) / value(arrays[t][name]) for t, name in other.items()])
        )

    return resampled(statistic, {table: losses[table] for table in other})


def best(losses: Losses, names: list[str], value: Callable[[np.ndarray], float] = early) -> dict[str, str]:
    """Return which method is best on each table: an oracle's choice."""
    return {table: min(names, key=lambda name, table=table: value(losses[table][name])) for table in losses}


def loss_claims(losses: Losses) -> list[dict[str, Any]]:
    """Return the claims on losses after few rows and after most of them."""
    rivals = [name for name in next(iter(losses.values())) if name not in (OURS, ALONE, PRIOR)]
    chosen, alone = best(losses, rivals), dict.fromkeys(losses, ALONE)
    late_best = best(losses, [ALONE, TREES], late)

    def each(other: Mapping[str, str], value: Callable[[np.ndarray], float] = early) -> dict[str, Three]:
        return {f"{table}, over {name}": over(losses, {table: name}, value) for table, name in other.items()}

    return [
        measured("meta.own.over_alone", over(losses, alone), each(alone)),
        measured("meta.own.over_best", over(losses, chosen), each(chosen)),
        measured("meta.own.long", over(losses, late_best, late), each(late_best, late)),
    ]


def test_losses(study: Study, smoke: bool, divisions: int) -> tuple[Losses, dict[str, dict[str, Any]]]:
    """Return the losses of all methods on test tasks, and the setting that validation tasks chose, by table."""
    losses: Losses = {}
    chosen: dict[str, dict[str, Any]] = {}
    for table in TABLES:
        jobs = [
            Job("judged", table, division, peer, leaves, False, smoke)
            for division in range(divisions)
            for peer in peers()
            for leaves in settings_of(peer, smoke)
        ]
        found = compute(study, [job for job in jobs if len(settings_of(job.peer, smoke)) > 1], table, record)
        tests = [
            min(
                (job for job in jobs if (job.peer, job.division) == (peer, division)),
                key=lambda job: early(found[job]["losses"][None]) if job in found else 0.0,
            )._replace(test=True)
            for peer in peers()
            for division in range(divisions)
        ]
        judged = compute(study, tests, f"{table}, test tasks", record)
        losses[table] = {
            peer: np.stack([judged[job]["losses"] for job in tests if job.peer == peer]) for peer in peers()
        }
        chosen[table] = {peer: [job.leaves for job in tests if job.peer == peer] for peer in peers()}
    return losses, chosen


def few_claim(study: Study, smoke: bool, divisions: int, chosen: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the claim on five tasks that teach: our loss over that of boosted trees and an effect."""
    arrays: Losses = {}
    for table in TABLES:
        jobs = {
            peer: [
                Job("few", table, division, peer, chosen[table][peer][division], True, smoke)
                for division in range(divisions)
            ]
            for peer in (OURS, TREES)
        }
        found = compute(study, [j for row in jobs.values() for j in row], f"{table}, few tasks", record)
        # draws of teachers stand beside counts of rows: tasks are drawn with all that was measured on them
        arrays[table] = {
            peer: np.stack([np.moveaxis(found[job]["losses"], 0, 1) for job in row])
            for peer, row in jobs.items()
        }

    def each(values: np.ndarray) -> float:
        return geometric(means(values))

    beside = {table: over(arrays, {table: TREES}, each) for table in TABLES}
    return measured("meta.own.few_tasks", over(arrays, dict.fromkeys(TABLES, TREES), each), beside)


def coverage_claim(study: Study, smoke: bool, divisions: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the claim on how far 80% intervals are from 80%, and the listing of what they hold."""
    jobs = {
        table: [Job("covered", table, division, smoke=smoke) for division in range(divisions)]
        for table in NUMBERS
    }
    found = compute(study, [job for row in jobs.values() for job in row], "coverage", record)
    arrays = {table: {OURS: np.stack([found[job]["covered"] for job in row])} for table, row in jobs.items()}

    def miss(values: Losses) -> float:
        return float(np.mean([np.abs(means(values[table][OURS]) - 0.8).mean() for table in values]))

    single = [
        miss({table: {OURS: own[OURS][[division]]} for table, own in arrays.items()})
        for division in range(divisions)
    ]
    beside = {table: resampled(miss, {table: arrays[table]}) for table in NUMBERS}
    beside["of single divisions, mean and extremes"] = (float(np.mean(single)), min(single), max(single))
    rows = [[table, *(f"{value:.3f}" for value in means(arrays[table][OURS]))] for table in NUMBERS]
    columns = ["table", *(f"after {known} rows" for known in COVERED)]
    listing = {"title": "what 80% intervals hold", "columns": columns, "rows": rows}
    return measured("meta.own.coverage", resampled(miss, arrays), beside), listing


def group_claims(study: Study, smoke: bool) -> list[dict[str, Any]]:
    """Return the claims on many groups in one object. Intervals are the extremes of repeats."""
    jobs = [Job("groups", "made", repeat, smoke=smoke) for repeat in range(1 if smoke else REPEATS)]
    found = compute(study, jobs, "many groups", record)
    speed = np.array([found[job]["rows_a_second"] for job in jobs])
    ratio, size = speed[:, 0] / speed[:, 1], np.array([found[job]["bytes_a_group"] for job in jobs])

    def three(values: np.ndarray) -> Three:
        return float(np.median(values)), float(values.min()), float(values.max())

    beside = {"rows a second of the processor": three(speed[:, 0])}
    return [
        measured("meta.groups", three(ratio), beside, range="median and extremes of repeats"),
        measured("meta.group_bytes", three(size), range="median and extremes of repeats"),
    ]


def loss_entries(losses: Losses, chosen: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a record for each table, method and count of known rows, over all divisions."""
    found = []
    for table, by_method in losses.items():
        for name, values in by_method.items():
            for place, known in enumerate(KNOWN):
                part = {table: {name: values[..., [place]]}}
                if np.isnan(values[..., place]).all():
                    continue
                mean, low, high = resampled(
                    lambda a, t=table, n=name: float(means(a[t][n])[0]), part, resamples=500
                )
                found.append(
                    {
                        "name": name,
                        "method": name,
                        "family": table,
                        "seed": None,
                        "steps": place + 1,
                        "rows": known,
                        "metric": "loss",
                        "mean": float(f"{mean:.6g}"),
                        "low": float(f"{low:.6g}"),
                        "high": float(f"{high:.6g}"),
                        "tasks": values.shape[1],
                        "divisions": len(values),
                        "setting": chosen[table][name],
                    }
                )
    return found


def loss_listing(losses: Losses) -> dict[str, Any]:
    """Return the losses after 8 / 16 / 32 rows and 80% of the rows, by method."""

    def shown(values: np.ndarray) -> str:
        parts = ["" if np.isnan(value) else f"{value:.3f}" for value in means(values)]
        return " / ".join(parts).removesuffix(" / ")

    names = next(iter(losses.values()))
    rows = [[name, *(shown(losses[table][name]) for table in losses)] for name in names]
    title = "losses of test tasks after 8 / 16 / 32 rows and 80% of the rows"
    return {"title": title, "columns": ["method", *losses], "rows": rows}


def own(study: Study, smoke: bool, seeds: int) -> Found:
    """Return what is found on one's own tasks. Divisions of tasks stand in for seeds.

    Raises:
        ValueError: a package of the peers is not installed. A smoke run does without.
    """
    if missing() and not smoke:
        raise ValueError(f"make study NAME=meta needs {' and '.join(missing())}: pip install gpboost")
    divisions = 2 if smoke else DIVISIONS
    losses, chosen = test_losses(study, smoke, divisions)
    coverage, held = coverage_claim(study, smoke, divisions)
    claims = [*loss_claims(losses), coverage, few_claim(study, smoke, divisions, chosen)]
    listings = [loss_listing(losses), held]
    return Found(loss_entries(losses, chosen), [*claims, *group_claims(study, smoke)], listings)


OWN_PART = Part(
    "one's own tasks",
    {
        "meta.own.over_alone": "tables in groups, new groups: loss after 8, 16, 32 rows over the estimator's alone",
        "meta.own.over_best": "the same over the best of pooled boosted trees and an effect, refit with task id, mixed "
        "model, boosted trees and random slopes, GPBoost; an oracle's choice for each table",
        "meta.own.long": "with 80% of a group's rows: loss over the better of alone and boosted trees and an effect",
        "meta.own.coverage": "how far 80% intervals are from holding 80%, mean over tables and 1 to 32 rows",
        "meta.own.few_tasks": "five groups that teach: loss over boosted trees and an effect",
        "meta.groups": "100,000 groups of 20 rows: rows a second over the same rows in one group",
        "meta.group_bytes": "bytes of a group there",
    },
    own,
)
