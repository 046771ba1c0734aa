"""The claims of `make study NAME=every_row`: ratios to the best possible estimate, curves that never rise, merged
states.

Ratios are ratios of means over tasks and seeds.

Source: Efron, Tibshirani 1993, chapter 13 (their bootstrap intervals).
"""

from __future__ import annotations

import warnings
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gradatim.batch import Task
from gradatim.comparison.panel import learning_curves, select_best, trained_runs, tuned_setting
from gradatim.comparison.runs import Study, claim, normal_interval, sample_tasks
from gradatim.metrics import bootstrap, excess_risk

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from gradatim.comparison.experiment import Experiment, Values
    from gradatim.learner import Learner

RecordsAndClaims = tuple[list[dict[str, Any]], list[dict[str, Any]]]
SHARDS = 8

FALLING = {"isotropic": 256, "classification": 64, "network": 16}
"""Number of tasks whose mean is taken after every step. The noise of that mean is below its fall.

With d parameters N tasks leave a relative noise of about 2 / sqrt(d t N) a step, against a fall of 1 / t. After
1,000 steps that is .14% (8 parameters, 256 tasks) and .16% (24 contrasts, 64 tasks). On networks the features
level off: tasks differ by more than a step changes any of them.
"""


def excess_loss(outputs: Tensor, task: Task) -> Tensor:
    """Return the expected cross-entropy at the query rows above that of the true logits, `[B]`.

    It is the mean over present rows of `KL(softmax(truth) || softmax(outputs))`. Sampled labels give this on
    average. `outputs` are logits `[B, Nq, C]`.
    """
    assert task.truth is not None
    true, predicted = task.truth.log_softmax(-1), outputs.log_softmax(-1)
    apart = (true.exp() * (true - predicted)).sum(-1)
    return (apart * task.query.mask).sum(1) / task.query.rows


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> tuple[float, float, float]:
    """Return the ratio of means of two arrays `[S, T]`, and its interval."""
    return bootstrap(lambda a, b: float(a.mean() / b.mean()), numerator, denominator)


def claims(
    results: dict[str, dict[str, Values]], steps: dict[str, Sequence[int]], chosen: dict[str, str]
) -> list[dict[str, Any]]:
    """Return the claims that follow from the experiments. A smoke run takes the last step where one is missing."""

    def at(family: str, name: str, step: int) -> np.ndarray:
        by_metric = results[family][name]
        index = list(steps[family]).index(step) if step in steps[family] else -1
        return next(iter(by_metric.values()))[:, index]

    def over(family: str, name: str, step: int, best: str = "oracle") -> tuple[float, float, float]:
        return ratio(at(family, name, step), at(family, best, step))

    entries = []
    for step, bar in ((10, 1.3), (160, 1.2), (1000, 1.2)):
        entry = claim(
            f"gain.transformer.ratio{step}", *over("isotropic", chosen["isotropic"], step), bar, "<="
        )
        entries.append({**entry, "chosen": chosen["isotropic"]})
    entry = claim("gain.transformer.correlated160", *over("correlated", chosen["correlated"], 160), 1.5, "<=")
    entries.append({**entry, "chosen": chosen["correlated"]})
    ratios = {family: over(family, f"{family}-bayesian", 1000) for family in ("isotropic", "correlated")}
    worse = max(ratios, key=lambda family: ratios[family][0])
    beside = {
        f"{family}, step {step}": over(family, f"{family}-bayesian", step)
        for family in ratios
        for step in (10, 160)
    }
    entries.append(
        {**claim("gain.default.ratio1000", *ratios[worse], 1.05, "<="), "beside": beside, "worse": worse}
    )
    entries.append(claim("gain.linear100.ratio160", *over("linear100", "linear100-bayesian", 160), 1.1, "<="))
    late, early = (at("classification", "classification-bayesian", step) for step in (160, 10))
    return [*entries, claim("gain.classification.excess160", *ratio(late, early), 0.15, "<=")]


def networks(
    study: Study, experiment: Experiment, results: dict[str, Values], smoke: bool
) -> RecordsAndClaims:
    """Return records and claims on random networks, against MLPs and boosted trees fitted to convergence on the same
    rows.
    """
    count = min(experiment.tasks, 2 if smoke else 8)
    validated = experiment.family.on("validation")
    validation = sample_tasks(validated, count, seed=5)
    task = sample_tasks(experiment.family, experiment.tasks, seed=1)
    about = [type(experiment.family).__name__, asdict(experiment.family), experiment.tasks, count]
    records: list[dict[str, Any]] = []
    errors: dict[str, tuple[float, np.ndarray]] = {}
    fours: dict[str, np.ndarray] = {}
    for kind, settings in _fits(smoke).items():
        study.console.print(f"fitting {kind} to convergence on the rows of {experiment.name}")

        def compute(settings: list[partial[Any]] = settings) -> Values:
            tuning = [_fit_risk(make, validation).mean() for make in settings]
            best = int(np.argmin(tuning))
            assert task.truth is not None
            subset = Task(
                task.support.tasks(slice(count)), task.query.tasks(slice(count)), truth=task.truth[:count]
            )
            return {
                "error": _fit_risk(settings[best], task),
                "error of four": _fit_risk(settings[best], subset, members=4),
                "tuning": np.asarray(tuning[best]),
                "best": np.asarray(best),
            }

        grid = [f"{setting.keywords}" for setting in settings]
        values = study.cached(f"network-fit-{kind}", [*about, grid], compute)
        fours[kind] = values["error of four"]
        errors[kind] = float(values["tuning"]), values["error"]
        records.append(
            _record(experiment, kind, "excess risk", experiment.steps[-1], values["error"], values, None)
        )
    rival = min(errors, key=lambda kind: errors[kind][0])
    rival_risk = errors[rival][1][None]
    judged = replace(
        experiment, name="validation-network", family=validated, tasks=count, steps=(experiment.steps[-1],)
    )
    groups = {"moments160": ["network-bayesian"], "ratio160": [*experiment.recipes]}
    settings = {name: tuned_setting(study, experiment, name) for name in experiment.baselines}
    entries = []
    for (name, group), bar in zip(groups.items(), (1.1, 0.9), strict=True):
        who = select_best(study, judged, group, experiment.steps[-1], 1, settings)
        risk = results[who]["excess risk"][:, -1]
        beside = {f"over {kind}": ratio(risk, e[None]) for kind, (_, e) in errors.items() if kind != rival}
        beside[f"over the mean of four {rival}, on {count} tasks"] = ratio(
            risk[:, :count], fours[rival][None]
        )
        beside |= {
            f"{candidate} instead": ratio(results[candidate]["excess risk"][:, -1], rival_risk)
            for candidate in (*group, *settings)
            if candidate != who
        }
        value = claim(f"gain.network.{name}", *ratio(risk, rival_risk), bar, "<=")
        entries.append({**value, "chosen": who, "against": rival, "beside": beside})
    return records, entries


def _fits(smoke: bool) -> dict[str, list[partial[Any]]]:
    """Return the models fitted from scratch, with the settings that validation tasks choose from."""
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.neural_network import MLPRegressor

    widths, penalties = ((32,), (0.01,)) if smoke else ((32, 64), (0.01, 0.03, 0.1, 0.3, 1.0))
    limits = {"max_iter": 20 if smoke else 3000}
    mlp = partial(MLPRegressor, solver="lbfgs", **limits)
    return {
        "mlp-relu": [
            partial(mlp, hidden_layer_sizes=(w,), activation="relu", alpha=a)
            for w in widths
            for a in penalties
        ],
        "mlp-tanh": [
            partial(mlp, hidden_layer_sizes=(w,), activation="tanh", alpha=a)
            for w in widths
            for a in penalties
        ],
        "boosted-trees": [
            partial(HistGradientBoostingRegressor, learning_rate=rate, max_iter=trees)
            for rate, trees in (((0.1, 10),) if smoke else ((0.1, 100), (0.1, 300), (0.05, 600)))
        ],
    }


def _fit_risk(make: Callable[..., Any], task: Task, members: int = 1) -> np.ndarray:
    """Return the excess risk `[T]` of a fit to all support rows of each task, or of the mean of several fits."""
    outputs = []
    for x, y, queries in zip(task.support.x, task.support.y, task.query.x, strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an unconverged setting loses on validation tasks
            fits = [make(random_state=seed).fit(x.numpy(), y[:, 0].numpy()) for seed in range(members)]
        outputs.append(np.mean([fit.predict(queries.numpy()) for fit in fits], axis=0))
    answers = torch.from_numpy(np.stack(outputs))[..., None].to(task.query.x.dtype)
    return excess_risk(answers, task).numpy()


def falling(study: Study, experiments: dict[str, Experiment], seeds: int, smoke: bool) -> RecordsAndClaims:
    """Return the claim that the default learner's mean excess risk does not rise at any step from 2 to 1000.

    The mean is over all tasks of all seeds. `FALLING` gives their number. An increase of more than 1% is a rise.
    """
    last, shares = 10 if smoke else 1000, {}
    for name, count in FALLING.items():
        experiment = experiments[name]
        study.console.print(f"judging the default learner after every one of {last} steps of {name}")
        runs = trained_runs(study, replace(experiment, derived={}), seeds)[f"{name}-bayesian"]
        family = replace(experiment.family, support_rows=experiment.batch_size * last)
        task = sample_tasks(family, 4 if smoke else count, seed=7)
        risks = [
            study.cached(
                f"{name}-falling-{seed}",
                [type(family).__name__, asdict(family), last, task.n_tasks, run.description],
                lambda run=run, experiment=experiment, task=task: learning_curves(
                    run.learner, task, experiment.batch_size, tuple(range(1, last + 1)), experiment.metrics
                ),
            )
            for seed, run in enumerate(runs)
        ]
        metric = next(iter(experiment.metrics))
        means = np.mean([values[metric].mean(1) for values in risks], axis=0)
        shares[name] = rises(means)
    value = float(np.mean(list(shares.values())))
    entry = claim("gain.never_worse", value, min(shares.values()), max(shares.values()), 0.01, "<=")
    return [], [{**entry, "range": "least and most of the families", "families": shares}]


def rises(means: np.ndarray) -> float:
    """Return the share of steps at which a mean excess `[steps]` rises by more than 1% of its size."""
    return float((np.diff(means) > 0.01 * np.abs(means[:-1])).mean())


def merging(study: Study, experiments: dict[str, Experiment], seeds: int, smoke: bool) -> RecordsAndClaims:
    """Return the claim on merged states of the default learner.

    It is the error after adapting to 8 shards apart and merging, over the error after one pass. The worse of
    regression and classification counts.
    """
    measured: dict[str, tuple[float, float, float]] = {}
    for name, which in (
        ("isotropic", "bayesian"),
        ("classification", "bayesian"),
        ("isotropic", "decaying"),
    ):
        experiment = experiments[name]
        runs = trained_runs(study, replace(experiment, derived={}), seeds)[f"{name}-{which}"]
        rows = experiment.batch_size * (SHARDS if smoke else 160)
        task = sample_tasks(replace(experiment.family, support_rows=rows), min(experiment.tasks, 64), seed=9)
        metric = next(iter(experiment.metrics.values()))
        values = [
            study.cached(
                f"{name}-{which}-merged-{seed}",
                [asdict(experiment.family), rows, task.n_tasks, run.description],
                lambda run=run, experiment=experiment, task=task, metric=metric: _merged(
                    run.learner, task, experiment.batch_size, metric
                ),
            )
            for seed, run in enumerate(runs)
        ]
        apart, together = (np.stack([v[key] for v in values]) for key in ("merged", "sequential"))
        measured[f"{name}, {which}"] = ratio(apart, together)
    worse = max((name for name in measured if "bayesian" in name), key=lambda name: measured[name])
    entry = claim("gain.merge8", *measured.pop(worse), 1.02, "<=")
    return [], [{**entry, "worse": worse, "beside": measured}]


def _merged(
    learner: Learner, task: Task, batch_size: int, metric: Callable[[Tensor, Task], Tensor]
) -> dict[str, np.ndarray]:
    """Return the metric after one pass, and after merging `SHARDS` passes over one shard each."""
    size = task.support.n_rows // SHARDS
    with torch.no_grad():
        shards = [
            learner.adapt(task.support.slice(start, start + size), batch_size)
            for start in range(0, SHARDS * size, size)
        ]
        states = {"merged": learner.merge(shards), "sequential": learner.adapt(task.support, batch_size)}
        return {
            name: metric(learner.predict(task.query.x, state), task).numpy() for name, state in states.items()
        }


def _record(
    experiment: Experiment,
    name: str,
    metric: str,
    step: int,
    values: np.ndarray,
    stored: Values,
    setting: Any,
) -> dict[str, Any]:
    """Return the record of a fit from scratch."""
    mean, low, high = normal_interval(values)
    return {
        "name": name,
        "method": name,
        "family": experiment.name,
        "signal": None,
        "steps": step,
        "rows": step * experiment.batch_size,
        "metric": metric,
        "seed": None,
        "mean": round(mean, 6),
        "low": round(low, 6),
        "high": round(high, 6),
        "tasks": len(values),
        "setting": setting,
        "commit": str(stored["commit"]),
        "seconds": 0.0,
        "peak_memory": None,
        "threads": None,
    }
