"""A panel of methods side by side: the same tasks, the same mini-batches, one record for each method, step and seed.

Source: DESIGN.md, Results: same data, same budget, tuned baselines, seeds, intervals, side by side in one run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..batch import Task
from ..methods import METHODS, build
from ..metrics import curve, mean_interval, soft_vote
from ..training.states import fingerprint
from .runs import Costed, Study, interval, sample, tune

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
AT_ONCE = 16
"""Tasks judged at a time: bounds the memory of learners that look at many rows at once."""

Values = dict[str, np.ndarray]


@dataclass(frozen=True)
class Part:
    """One family of a study, judged by `metrics`, the first of which tunes the baselines.

    Fields: `recipes` by name, meta-trained; `baselines`: names of unlearnt methods; `steps` of `batch_size` rows;
    `tasks` judged; `derived`: learners made of the trained ones, (recipe, how); `votes`: recipe whose single answers to
    each mini-batch vote; `whole`: recipes that answer in one
    step over all rows so far, up to the step said; `costly`: baselines judged after these steps only; `peers`: what
    answers without mini-batches, a function from the whole support to outputs, judged as if after the last step;
    `judge`: how the metrics come about, as `metrics.curve` does it.
    """

    name: str
    family: TaskFamily
    recipes: dict[str, Recipe]
    baselines: tuple[str, ...]
    metrics: dict[str, Metric]
    batch_size: int
    steps: tuple[int, ...]
    tasks: int
    derived: dict[str, tuple[str, Callable[[Learner], Learner]]] = field(default_factory=dict)
    votes: dict[str, str] = field(default_factory=dict)
    whole: dict[str, int] = field(default_factory=dict)
    costly: dict[str, tuple[int, ...]] = field(default_factory=lambda: COSTLY)
    peers: dict[str, Callable[[Batch], Tensor]] = field(default_factory=dict)
    judge: Callable[..., Values] = curve


def by_seed(recipes: dict[str, Recipe], seeds: int) -> dict[str, Recipe]:
    """Return each recipe under each meta-training seed, as NAME-SEED."""
    return {
        f"{name}-{seed}": replace(made, train=replace(made.train, seed=seed))
        for seed in range(seeds)
        for name, made in recipes.items()
    }


def measure(study: Study, part: Part, seeds: int, records: list[dict[str, Any]]) -> dict[str, Values]:
    """Meta-train, tune and judge one part; append its records; return values `[S, steps, T]` by method and metric."""
    task = sample(part.family, part.tasks, seed=1)
    found: dict[str, Values] = {}
    for name, runs in runs_of(study, part, seeds).items():
        values = [
            judged(study, f"{part.name}-{name}-{seed}", name, run, part, task)
            for seed, run in enumerate(runs)
        ]
        found[name] = {metric: np.stack([v[metric] for v in values]) for metric in part.metrics}
        for seed, (own, run) in enumerate(zip(values, runs, strict=True)):
            records += _records(part, name, run.recipe.name, seed, own, run)
        records += _together(records, found[name], part.name, name)
    others: dict[str, Callable[[], Values]] = {
        name: partial(_baseline, study, part, name, task, tuned(study, part, name)) for name in part.baselines
    }
    if part.family.oracle(task, 1) is not None:
        others["oracle"] = partial(_oracle, study, part, task)
    others |= {name: partial(_peer, study, part, task, name) for name in part.peers}
    for name, judge in others.items():
        study.console.print(f"judging {name} on {part.name}")
        values = judge()
        records += _records(part, name, name, None, values, None)
        found[name] = {metric: values[metric][None] for metric in part.metrics}
    return found


def choose(
    study: Study,
    part: Part,
    names: list[str],
    step: int,
    seeds: int,
    settings: dict[str, dict[str, Any]] | None = None,
) -> str:
    """Return the learner with the lowest first metric over all seeds after `step` mini-batches of part's tasks.

    `settings`: of baselines that are candidates too.
    """
    part = replace(part, steps=(step,))
    task = sample(part.family, part.tasks, seed=3)
    metric = next(iter(part.metrics))
    runs = {name: made for name, made in runs_of(study, part, seeds).items() if name in names}
    errors = {
        name: np.mean(
            [
                judged(study, f"{part.name}-{name}-{seed}", name, run, part, task)[metric]
                for seed, run in enumerate(made)
            ]
        )
        for name, made in runs.items()
    }
    for name, setting in (settings or {}).items():
        errors[name] = _baseline(study, part, name, task, setting)[metric].mean()
    return min(errors, key=lambda name: float(np.nan_to_num(errors[name], nan=np.inf)))


def runs_of(study: Study, part: Part, seeds: int) -> dict[str, list[Costed]]:
    """Return the trained learners of each recipe, seed by seed, and those derived from them."""
    trained = study.train(by_seed(part.recipes, seeds))
    runs = {name: [trained[f"{name}-{seed}"] for seed in range(seeds)] for name in part.recipes}
    for name, (origin, change) in part.derived.items():
        runs[name] = [replace(run, change=change) for run in runs[origin]]
    return runs | {name: runs[origin] for name, origin in part.votes.items()}


def judged(study: Study, key: str, name: str, run: Costed, part: Part, task: Task) -> Values:
    """Return the record of one trained learner on a part's tasks."""
    steps = tuple(s for s in part.steps if s <= part.whole.get(name, s))
    about = [_about(part), list(steps), name in part.whole, run.about, name]

    def compute() -> Values:
        judge = soft_vote if name in part.votes else part.judge
        if name not in part.whole:
            found = curves(run.learner, task, part.batch_size, steps, part.metrics, judge)
        else:
            each = [
                curves(run.learner, task, step * part.batch_size, (1,), part.metrics, judge) for step in steps
            ]
            found = {metric: np.concatenate([values[metric] for values in each]) for metric in part.metrics}
        return {**found, "steps": np.asarray(steps)}

    return study.arrays(key, about, compute)


def curves(
    learner: Learner,
    task: Task,
    batch_size: int,
    steps: tuple[int, ...],
    metrics: dict[str, Metric],
    judge: Callable[..., Values] = curve,
) -> Values:
    """Return `metrics.curve`, or what else judges so, `[steps, T]`, a few tasks at a time."""
    found: list[Values] = []
    for start in range(0, task.n_tasks, AT_ONCE):
        some = slice(start, start + AT_ONCE)
        truth = None if task.truth is None else task.truth[some]
        few = Task(task.support.tasks(some), task.query.tasks(some), truth=truth)
        found.append(judge(learner, few, batch_size, steps, metrics))
    return {metric: np.concatenate([f[metric] for f in found], axis=1) for metric in metrics}


def _about(part: Part) -> list[Any]:
    """Return what every record of a part depends on besides its method."""
    family = {"name": type(part.family).__name__, **asdict(part.family)}
    return [family, part.tasks, part.batch_size, list(part.metrics)]


def tuned(study: Study, part: Part, name: str) -> dict[str, Any]:
    """Return the setting of a baseline with the lowest first metric on meta-training tasks, after 10 steps."""
    row = METHODS[name]

    def compute() -> Values:
        family = replace(part.family.on("train"), support_rows=10 * part.batch_size)
        tuning = sample(family, min(16 if name in part.costly else 64, part.tasks), seed=2)
        make, (called, metric) = partial(build, name, part.family), next(iter(part.metrics.items()))
        setting = tune(make, row.grid, tuning, part.batch_size, 10, metric, called, part.judge)
        return {key: np.asarray(value) for key, value in setting.items()}

    grid = {key: list(values) for key, values in row.grid.items()}
    found = study.arrays(f"{part.name}-{name}-setting", [_about(part), grid], compute)
    return {key: found[key].item() for key in grid}


def _baseline(study: Study, part: Part, name: str, task: Task, setting: dict[str, Any]) -> Values:
    """Judge a baseline under a setting."""
    steps, learner = part.costly.get(name, part.steps), build(name, part.family, **setting)
    values = study.arrays(
        f"{part.name}-{name}",
        [_about(part), setting, list(steps), fingerprint(learner)],
        lambda: curves(learner, task, part.batch_size, steps, part.metrics, part.judge),
    )
    settings = {f"setting {key}": np.asarray(value) for key, value in setting.items()}
    return {**values, "steps": np.asarray(steps), **settings}


def _peer(study: Study, part: Part, task: Task, name: str) -> Values:
    """Return the metrics of what a peer says of the whole support."""

    def compute() -> Values:
        outputs = part.peers[name](task.support)
        found = {called: metric(outputs, task).numpy()[None] for called, metric in part.metrics.items()}
        return {**found, "steps": np.asarray(part.steps[-1:])}

    return study.arrays(f"{part.name}-{name}", [_about(part)], compute)


def _oracle(study: Study, part: Part, task: Task) -> Values:
    """Return the metrics of the best possible answer after each step."""

    def compute() -> Values:
        values: dict[str, list[np.ndarray]] = {name: [] for name in part.metrics}
        for step in part.steps:
            outputs = part.family.oracle(task, step * part.batch_size)
            assert outputs is not None
            for name, metric in part.metrics.items():
                values[name].append(metric(outputs, task).numpy())
        return {name: np.stack(rows) for name, rows in values.items()}

    return study.arrays(f"{part.name}-oracle", [_about(part), list(part.steps)], compute)


def _records(
    part: Part, name: str, method: str, seed: int | None, values: Values, run: Costed | None
) -> list[dict[str, Any]]:
    """Return one record for each metric and step."""
    setting = {k.removeprefix("setting "): v.item() for k, v in values.items() if k.startswith("setting ")}
    signal = method.rpartition("-")[2]
    records = []
    for metric in part.metrics:
        for step, per_task in zip(values.get("steps", part.steps), values[metric], strict=True):
            mean, low, high = interval(per_task)
            records.append(
                {
                    "name": name,
                    "method": method,
                    "family": part.name,
                    "signal": signal if run and signal in SIGNALS else None,
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


def _together(records: list[dict[str, Any]], values: Values, family: str, name: str) -> list[dict[str, Any]]:
    """Return the records of all seeds of a method as one each: the mean, its interval over seeds and tasks."""
    own = [record for record in records if (record["name"], record["family"]) == (name, family)]
    made = []
    for metric, array in values.items():
        rows = [record for record in own if record["metric"] == metric and record["seed"] == 0]
        for row, at in zip(rows, np.moveaxis(array, 1, 0), strict=True):
            mean, low, high = mean_interval(at)
            bounds = {"mean": round(mean, 6), "low": round(low, 6), "high": round(high, 6)}
            like = [r for r in own if r["metric"] == metric and r["steps"] == row["steps"]]
            seconds = round(float(np.mean([r["seconds"] for r in like])), 1)
            peak = max(r["peak_memory"] for r in like)
            made.append({**row, "seed": "all", **bounds, "seconds": seconds, "peak_memory": peak})
    return made
