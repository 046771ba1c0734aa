"""Methods side by side on one family: the same tasks, the same mini-batches, a record for each method, step and seed.

Source: Mittal et al. 2025, tables 2-5: one learner beside others on the same tasks, tuned baselines included.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..batch import Task
from ..methods import METHODS, Method, Preset, build
from ..metrics import curve as metric_curve
from ..metrics import mean_interval, soft_vote
from ..training.snapshot import describe
from ..training.states import fingerprint
from .experiment import SIGNALS, Experiment, Values, label_of, with_seeds
from .runs import Study, TrainedRun, grid_search, normal_interval, sample_tasks

if TYPE_CHECKING:
    from ..family import TaskFamily
    from ..learner import Learner
    from ..metrics import Metric

CHUNK = 16
"""Tasks judged at a time: bounds the memory of learners that look at many rows at once."""


def run_experiment(
    study: Study, experiment: Experiment, seeds: int, records: list[dict[str, Any]]
) -> dict[str, Values]:
    """Meta-train, tune and judge the methods of an experiment, and append their records.

    Returns:
        by method, then by metric, an array `[S, steps, T]`. S is 1 where nothing is meta-trained.
    """
    task = sample_tasks(experiment.family, experiment.tasks, seed=1)
    results: dict[str, Values] = {}
    for name, runs in trained_runs(study, experiment, seeds).items():
        values = [
            evaluate(study, f"{experiment.name}-{name}-{seed}", name, run, experiment, task)
            for seed, run in enumerate(runs)
        ]
        study.notify(f"judged {name} on {experiment.name}")
        results[name] = {metric: np.stack([v[metric] for v in values]) for metric in experiment.metrics}
        for seed, (of_seed, run) in enumerate(zip(values, runs, strict=True)):
            records += _records(experiment, name, label_of(run.recipe.method), seed, of_seed, run)
        records += _pooled(records, results[name], experiment.name, name)
    for name, compute in _unlearnt(study, experiment, task).items():
        values = compute()
        study.notify(f"judged {name} on {experiment.name}")
        records += _records(experiment, name, name, None, values, None)
        results[name] = {metric: values[metric][None] for metric in experiment.metrics}
    return results


def _unlearnt(study: Study, experiment: Experiment, task: Task) -> dict[str, Callable[[], Values]]:
    """Return by name what computes the values of methods that are not meta-trained here."""
    compute: dict[str, Callable[[], Values]] = {
        name: partial(_evaluate_baseline, study, experiment, name, task) for name in experiment.baselines
    }
    compute |= {
        name: partial(_evaluate_learner, study, experiment, name, task) for name in experiment.learners
    }
    if experiment.family.oracle(task, 1) is not None:
        compute["oracle"] = partial(_evaluate_oracle, study, experiment, task)
    return compute | {
        name: partial(_evaluate_peer, study, experiment, task, name) for name in experiment.peers
    }


def select_best(
    study: Study,
    experiment: Experiment,
    names: list[str],
    step: int,
    seeds: int,
    settings: dict[str, dict[str, Any]] | None = None,
) -> str:
    """Return the learner with the lowest first metric after `step` mini-batches, a mean over seeds and tasks.

    `settings`: of baselines that are candidates too.
    """
    experiment = replace(experiment, steps=(step,))
    task = sample_tasks(experiment.family, experiment.tasks, seed=3)
    metric = next(iter(experiment.metrics))
    candidates = {
        name: runs for name, runs in trained_runs(study, experiment, seeds).items() if name in names
    }
    errors = {
        name: np.mean(
            [
                evaluate(study, f"{experiment.name}-{name}-{seed}", name, run, experiment, task)[metric]
                for seed, run in enumerate(runs)
            ]
        )
        for name, runs in candidates.items()
    }
    for name, setting in (settings or {}).items():
        errors[name] = _evaluate_baseline(study, experiment, name, task, setting)[metric].mean()
    return min(errors, key=lambda name: float(np.nan_to_num(errors[name], nan=np.inf)))


def trained_runs(study: Study, experiment: Experiment, seeds: int) -> dict[str, list[TrainedRun]]:
    """Return the runs of each recipe, seed by seed, and those derived from them."""
    trained = study.train(with_seeds(experiment.recipes, seeds))
    runs = {name: [trained[f"{name}-{seed}"] for seed in range(seeds)] for name in experiment.recipes}
    for name, (origin, change) in experiment.derived.items():
        runs[name] = [replace(run, change=change) for run in runs[origin]]
    return runs | {name: runs[origin] for name, origin in experiment.votes.items()}


def evaluate(
    study: Study, key: str, name: str, run: TrainedRun, experiment: Experiment, task: Task
) -> Values:
    """Return the metrics `[steps, T]` of one trained learner on T tasks, and the steps."""
    full_batch = name in experiment.full_batch
    steps = tuple(s for s in experiment.steps if s <= experiment.full_batch.get(name, s))
    inputs = [experiment.inputs, list(steps), full_batch, run.description, name]

    def compute() -> Values:
        curve = soft_vote if name in experiment.votes else experiment.curve
        of_steps = partial(learning_curves, run.learner, task, metrics=experiment.metrics, curve=curve)
        if not full_batch:
            values = of_steps(experiment.batch_size, steps)
        else:
            by_step = [of_steps(step * experiment.batch_size, (1,)) for step in steps]
            values = {metric: np.concatenate([v[metric] for v in by_step]) for metric in experiment.metrics}
        return {**values, "steps": np.asarray(steps)}

    return study.cached(key, inputs, compute)


def learning_curves(
    learner: Learner,
    task: Task,
    batch_size: int,
    steps: tuple[int, ...],
    metrics: dict[str, Metric],
    curve: Callable[..., Values] = metric_curve,
) -> Values:
    """Return the metrics `[steps, T]` of a learner on T tasks, a few tasks at a time.

    Args:
        learner: to be judged.
        task: T tasks, supports `[T, N, ...]`.
        batch_size: rows of a mini-batch.
        steps: numbers of mini-batches.
        metrics: by name.
        curve: computes them, as `metrics.curve` does.
    """
    chunks: list[Values] = []
    for start in range(0, task.n_tasks, CHUNK):
        rows = slice(start, start + CHUNK)
        truth = None if task.truth is None else task.truth[rows]
        chunk = Task(task.support.tasks(rows), task.query.tasks(rows), truth=truth)
        chunks.append(curve(learner, chunk, batch_size, steps, metrics))
    return {metric: np.concatenate([values[metric] for values in chunks], axis=1) for metric in metrics}


def tuned_setting(study: Study, experiment: Experiment, name: str) -> dict[str, Any]:
    """Return the setting of a baseline with the lowest first metric on meta-training tasks.

    Options that the method has away from their defaults are as they are; they are not searched.
    """
    baseline, step, size = experiment.baselines[name], experiment.tuning_step, experiment.batch_size
    grid = searched_grid(baseline)

    def compute() -> Values:
        family = replace(experiment.family.on("train"), support_rows=step * size)
        count = min(16 if name in experiment.costly else 64, experiment.tasks)
        task, (called, metric) = sample_tasks(family, count, seed=2), next(iter(experiment.metrics.items()))
        make = partial(_with_setting, baseline, experiment.family)
        setting = grid_search(make, grid, task, size, step, metric, called, experiment.curve)
        return {key: np.asarray(value) for key, value in setting.items()}

    inputs = [
        experiment.inputs,
        step,
        describe(baseline),
        {key: list(values) for key, values in grid.items()},
    ]
    stored = study.cached(f"{experiment.name}-{name}-setting", inputs, compute)
    return {key: stored[key].item() for key in grid}


def searched_grid(baseline: Method) -> dict[str, tuple[Any, ...]]:
    """Return the options of a method that are searched, with their values: those that have their defaults.

    Example:
        >>> from gradatim.comparison.panel import searched_grid
        >>> from gradatim.methods import Momentum
        >>> list(searched_grid(Momentum())), list(searched_grid(Momentum(rate=0.3)))
        (['rate', 'momentum'], ['momentum'])
    """
    try:
        preset = METHODS[METHODS.name_of(baseline)]
    except ValueError:  # a class of a notebook or of a function
        preset = Preset(type(baseline))
    defaults = preset.options
    return {key: values for key, values in preset.grid.items() if getattr(baseline, key) == defaults[key]}


def _with_setting(baseline: Method, family: TaskFamily, **setting: Any) -> Learner:
    """Return the learner of a method with other values of some options."""
    return build(replace(baseline, **setting), family)


def _evaluate_baseline(
    study: Study, experiment: Experiment, name: str, task: Task, setting: dict[str, Any] | None = None
) -> Values:
    """Return the metrics `[steps, T]` of a baseline, by default under its tuned setting; the steps; the setting."""
    setting = tuned_setting(study, experiment, name) if setting is None else setting
    steps = experiment.costly.get(name, experiment.steps)
    learner = _with_setting(experiment.baselines[name], experiment.family, **setting)
    values = study.cached(
        f"{experiment.name}-{name}",
        [experiment.inputs, setting, list(steps), fingerprint(learner)],
        lambda: learning_curves(
            learner, task, experiment.batch_size, steps, experiment.metrics, experiment.curve
        ),
    )
    settings = {f"setting {key}": np.asarray(value) for key, value in setting.items()}
    return {**values, "steps": np.asarray(steps), **settings}


def _evaluate_learner(study: Study, experiment: Experiment, name: str, task: Task) -> Values:
    """Return the metrics `[steps, T]` of a learner that is used as it is."""
    learner = experiment.learners[name]
    return study.cached(
        f"{experiment.name}-{name}",
        [experiment.inputs, list(experiment.steps), fingerprint(learner)],
        lambda: learning_curves(
            learner, task, experiment.batch_size, experiment.steps, experiment.metrics, experiment.curve
        ),
    )


def _evaluate_peer(study: Study, experiment: Experiment, task: Task, name: str) -> Values:
    """Return the metrics `[1, T]` of what a peer predicts from the whole support."""

    def compute() -> Values:
        outputs = experiment.peers[name](task.support)
        values = {metric: f(outputs, task).numpy()[None] for metric, f in experiment.metrics.items()}
        return {**values, "steps": np.asarray(experiment.steps[-1:])}

    return study.cached(f"{experiment.name}-{name}", [experiment.inputs], compute)


def _evaluate_oracle(study: Study, experiment: Experiment, task: Task) -> Values:
    """Return the metrics `[steps, T]` of the best possible prediction after each step."""

    def compute() -> Values:
        values: dict[str, list[np.ndarray]] = {name: [] for name in experiment.metrics}
        for step in experiment.steps:
            outputs = experiment.family.oracle(task, step * experiment.batch_size)
            assert outputs is not None
            for name, metric in experiment.metrics.items():
                values[name].append(metric(outputs, task).numpy())
        return {name: np.stack(rows) for name, rows in values.items()}

    return study.cached(f"{experiment.name}-oracle", [experiment.inputs, list(experiment.steps)], compute)


def _records(
    experiment: Experiment,
    name: str,
    method_name: str,
    seed: int | None,
    values: Values,
    run: TrainedRun | None,
) -> list[dict[str, Any]]:
    """Return one record for each metric and step."""
    setting = {k.removeprefix("setting "): v.item() for k, v in values.items() if k.startswith("setting ")}
    signal = method_name.rpartition("-")[2]
    records = []
    for metric in experiment.metrics:
        for step, per_task in zip(values.get("steps", experiment.steps), values[metric], strict=True):
            mean, low, high = normal_interval(per_task)
            records.append(
                {
                    "name": name,
                    "method": method_name,
                    "family": experiment.name,
                    "signal": signal if run and signal in SIGNALS else None,
                    "steps": int(step),
                    "rows": int(step) * experiment.batch_size,
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


def _pooled(records: list[dict[str, Any]], values: Values, family: str, name: str) -> list[dict[str, Any]]:
    """Return the records of all seeds of a method as a single one each: the mean, its interval over seeds and tasks.

    `values` are by metric `[S, steps, T]`.
    """
    of_method = [record for record in records if (record["name"], record["family"]) == (name, family)]
    pooled = []
    for metric, array in values.items():
        rows = [record for record in of_method if record["metric"] == metric and record["seed"] == 0]
        for row, at_step in zip(rows, np.moveaxis(array, 1, 0), strict=True):
            mean, low, high = mean_interval(at_step)
            bounds = {"mean": round(mean, 6), "low": round(low, 6), "high": round(high, 6)}
            similar = [r for r in of_method if r["metric"] == metric and r["steps"] == row["steps"]]
            seconds = round(float(np.mean([r["seconds"] for r in similar])), 1)
            peak = max(r["peak_memory"] for r in similar)
            pooled.append({**row, "seed": "all", **bounds, "seconds": seconds, "peak_memory": peak})
    return pooled
