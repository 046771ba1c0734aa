"""What `make study NAME=every_row` claims: ratios to the best possible estimate, curves that never rise, merged states.

Source: DESIGN.md, Results: ratios are ratios of means.
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

Made = tuple[list[dict[str, Any]], list[dict[str, Any]]]
SHARDS = 8

FALLING = {"isotropic": 256, "classification": 64, "network": 16}
"""Tasks after every step of which a mean is taken: so many that its noise is below its fall.

With d parameters N tasks leave a relative noise of about 2 / sqrt(d t N) a step, against a fall of 1 / t: after 1,000
steps .14% (8 parameters, 256 tasks) and .16% (24 contrasts, 64 tasks). A network's features level off where tasks
differ by more than a step moves any.
"""


def excess_loss(outputs: Tensor, task: Task) -> Tensor:
    """Return the expected cross-entropy at the query rows above that of the true logits, `[B]`.

    The mean over present rows of `KL(softmax(truth) || softmax(outputs))`: what drawn labels give on average.
    """
    assert task.truth is not None
    true, said = task.truth.log_softmax(-1), outputs.log_softmax(-1)
    apart = (true.exp() * (true - said)).sum(-1)
    return (apart * task.query.mask).sum(1) / task.query.rows


def ratio(one: np.ndarray, other: np.ndarray) -> tuple[float, float, float]:
    """Return the ratio of means, and its interval."""
    return bootstrap(lambda a, b: float(a.mean() / b.mean()), one, other)


def claims(
    found: dict[str, dict[str, Values]], steps: dict[str, Sequence[int]], chosen: dict[str, str]
) -> list[dict[str, Any]]:
    """Return the claims that follow from the panels; smoke runs take the last step where one is missing."""

    def at(part: str, name: str, step: int) -> np.ndarray:
        own = found[part][name]
        index = list(steps[part]).index(step) if step in steps[part] else -1
        return next(iter(own.values()))[:, index]

    def over(part: str, name: str, step: int, best: str = "oracle") -> tuple[float, float, float]:
        return ratio(at(part, name, step), at(part, best, step))

    made = []
    for step, bar in ((10, 1.3), (160, 1.2), (1000, 1.2)):
        own = claim(f"gain.transformer.ratio{step}", *over("isotropic", chosen["isotropic"], step), bar, "<=")
        made.append({**own, "chosen": chosen["isotropic"]})
    own = claim("gain.transformer.correlated160", *over("correlated", chosen["correlated"], 160), 1.5, "<=")
    made.append({**own, "chosen": chosen["correlated"]})
    each = {part: over(part, f"{part}-bayesian", 1000) for part in ("isotropic", "correlated")}
    worse = max(each, key=lambda part: each[part][0])
    beside = {
        f"{part}, step {step}": over(part, f"{part}-bayesian", step) for part in each for step in (10, 160)
    }
    made.append(
        {**claim("gain.default.ratio1000", *each[worse], 1.05, "<="), "beside": beside, "worse": worse}
    )
    made.append(claim("gain.linear100.ratio160", *over("linear100", "linear100-bayesian", 160), 1.1, "<="))
    late, early = (at("classification", "classification-bayesian", step) for step in (160, 10))
    return [*made, claim("gain.classification.excess160", *ratio(late, early), 0.15, "<=")]


def networks(study: Study, part: Experiment, found: dict[str, Values], smoke: bool) -> Made:
    """Return the claims on random networks: against MLPs and boosted trees fitted to convergence on the same rows."""
    kinds = _fits(smoke)
    count = min(part.tasks, 2 if smoke else 8)
    validated = part.family.on("validation")
    validation = sample_tasks(validated, count, seed=5)
    task = sample_tasks(part.family, part.tasks, seed=1)
    about = [type(part.family).__name__, asdict(part.family), part.tasks, count]
    records: list[dict[str, Any]] = []
    errors: dict[str, tuple[float, np.ndarray]] = {}
    fours: dict[str, np.ndarray] = {}
    for kind, settings in kinds.items():
        study.console.print(f"fitting {kind} to convergence on the rows of {part.name}")

        def compute(settings: list[partial[Any]] = settings) -> Values:
            tuning = [_fitted(make, validation).mean() for make in settings]
            best = int(np.argmin(tuning))
            assert task.truth is not None
            few = Task(
                task.support.tasks(slice(count)), task.query.tasks(slice(count)), truth=task.truth[:count]
            )
            return {
                "error": _fitted(settings[best], task),
                "error of four": _fitted(settings[best], few, members=4),
                "tuning": np.asarray(tuning[best]),
                "best": np.asarray(best),
            }

        grid = [f"{made.keywords}" for made in settings]
        values = study.cached(f"network-fit-{kind}", [*about, grid], compute)
        fours[kind] = values["error of four"]
        errors[kind] = float(values["tuning"]), values["error"]
        records.append(_record(part, kind, "excess risk", part.steps[-1], values["error"], values, None))
    rival = min(errors, key=lambda kind: errors[kind][0])
    theirs = errors[rival][1][None]
    judged = replace(part, name="validation-network", family=validated, tasks=count, steps=(part.steps[-1],))
    groups = {
        "moments160": ["network-bayesian"],
        "ratio160": [*part.recipes],
    }
    settings = {name: tuned_setting(study, part, name) for name in part.baselines}
    made = []
    for (name, group), bar in zip(groups.items(), (1.1, 0.9), strict=True):
        who = select_best(study, judged, group, part.steps[-1], 1, settings)
        ours = found[who]["excess risk"][:, -1]
        beside = {f"over {kind}": ratio(ours, e[None]) for kind, (_, e) in errors.items() if kind != rival}
        beside[f"over the mean of four {rival}, on {count} tasks"] = ratio(
            ours[:, :count], fours[rival][None]
        )
        beside |= {
            f"{other} instead": ratio(found[other]["excess risk"][:, -1], theirs)
            for other in (*group, *settings)
            if other != who
        }
        value = claim(f"gain.network.{name}", *ratio(ours, theirs), bar, "<=")
        made.append({**value, "chosen": who, "against": rival, "beside": beside})
    return records, made


def _fits(smoke: bool) -> dict[str, list[partial[Any]]]:
    """Return the fits from scratch, and the settings that validation tasks choose from."""
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.neural_network import MLPRegressor

    widths, penalties = ((32,), (0.01,)) if smoke else ((32, 64), (0.01, 0.03, 0.1, 0.3, 1.0))
    most = {"max_iter": 20 if smoke else 3000}
    mlp = partial(MLPRegressor, solver="lbfgs", **most)
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


def _fitted(make: Callable[..., Any], task: Task, members: int = 1) -> np.ndarray:
    """Return the excess risk of a fit to all support rows of a task, or of the mean of several, `[T]`."""
    outputs = []
    for x, y, asked in zip(task.support.x, task.support.y, task.query.x, strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an unconverged setting loses on validation tasks
            fits = [make(random_state=seed).fit(x.numpy(), y[:, 0].numpy()) for seed in range(members)]
        outputs.append(np.mean([fit.predict(asked.numpy()) for fit in fits], axis=0))
    answers = torch.from_numpy(np.stack(outputs))[..., None].to(task.query.x.dtype)
    return excess_risk(answers, task).numpy()


def falling(study: Study, parts: dict[str, Experiment], seeds: int, smoke: bool) -> Made:
    """Return the claim that the default learner's mean excess risk does not rise: every step from 2 to 1000.

    The mean over all tasks of all seeds, as many as `FALLING` says: more than 1% up is a rise.
    """
    last, shares = 10 if smoke else 1000, {}
    for name, count in FALLING.items():
        part = parts[name]
        study.console.print(f"judging the default learner after every one of {last} steps of {name}")
        runs = trained_runs(study, replace(part, derived={}), seeds)[f"{name}-bayesian"]
        family = replace(part.family, support_rows=part.batch_size * last)
        task = sample_tasks(family, 4 if smoke else count, seed=7)
        risks = [
            study.cached(
                f"{name}-falling-{seed}",
                [type(family).__name__, asdict(family), last, task.n_tasks, run.description],
                lambda run=run, part=part, task=task: learning_curves(
                    run.learner, task, part.batch_size, tuple(range(1, last + 1)), part.metrics
                ),
            )
            for seed, run in enumerate(runs)
        ]
        metric = next(iter(part.metrics))
        means = np.mean([values[metric].mean(1) for values in risks], axis=0)
        shares[name] = rises(means)
    value = float(np.mean(list(shares.values())))
    made = claim("gain.never_worse", value, min(shares.values()), max(shares.values()), 0.01, "<=")
    return [], [{**made, "range": "least and most of the families", "families": shares}]


def rises(means: np.ndarray) -> float:
    """Return the share of steps at which a mean excess rises by more than 1% of its size."""
    return float((np.diff(means) > 0.01 * np.abs(means[:-1])).mean())


def merging(study: Study, parts: dict[str, Experiment], seeds: int, smoke: bool) -> Made:
    """Return the claim on the default learner: adapted to 8 shards apart and merged, over one pass in sequence.

    The worse of regression and classes.
    """
    measured: dict[str, tuple[float, float, float]] = {}
    for part_name, which in (
        ("isotropic", "bayesian"),
        ("classification", "bayesian"),
        ("isotropic", "decaying"),
    ):
        part = parts[part_name]
        runs = trained_runs(study, replace(part, derived={}), seeds)[f"{part_name}-{which}"]
        rows = part.batch_size * (SHARDS if smoke else 160)
        task = sample_tasks(replace(part.family, support_rows=rows), min(part.tasks, 64), seed=9)
        metric = next(iter(part.metrics.values()))
        values = [
            study.cached(
                f"{part_name}-{which}-merged-{seed}",
                [asdict(part.family), rows, task.n_tasks, run.description],
                lambda run=run, part=part, task=task, metric=metric: _merged(
                    run.learner, task, part.batch_size, metric
                ),
            )
            for seed, run in enumerate(runs)
        ]
        apart, together = (np.stack([v[key] for v in values]) for key in ("merged", "sequential"))
        measured[f"{part_name}, {which}"] = ratio(apart, together)
    worse = max((name for name in measured if "bayesian" in name), key=lambda name: measured[name])
    own = claim("gain.merge8", *measured.pop(worse), 1.02, "<=")
    return [], [{**own, "worse": worse, "beside": measured}]


def _merged(
    learner: Learner, task: Task, batch_size: int, metric: Callable[[Tensor, Task], Tensor]
) -> dict[str, np.ndarray]:
    """Return the metric after one pass, and after merging `SHARDS` passes over a part each."""
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
    part: Experiment, name: str, metric: str, step: int, values: np.ndarray, stored: Values, setting: Any
) -> dict[str, Any]:
    """Return the record of a fit from scratch."""
    mean, low, high = normal_interval(values)
    return {
        "name": name,
        "method": name,
        "family": part.name,
        "signal": None,
        "steps": step,
        "rows": step * part.batch_size,
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
