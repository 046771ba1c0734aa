"""Blocks of features and tasks: `BlockedRegressor` and `BlockedClassifier` against what could win, made tasks and real.

Made tasks: 60 features, 30 tasks, 3 groups, rows of each task's own. Excess error is the distance of the weights from
the true ones, because features are independent. Settings of all come from cross-validation on the rows that teach.

Source: after the idea of Yang et al. 2020 (TFCL); the protocol is this project's own.
"""

from __future__ import annotations

import os
import time
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.metrics import adjusted_rand_score

from gradatim import BlockedClassifier, BlockedRegressor
from gradatim.comparison.runs import claim
from studies.tables.checks import _failed

from .blocks_data import Problem, made, real
from .blocks_peers import PEERS, Weights, coclustering, known_blocks, losses, one_for_all

if TYPE_CHECKING:
    from gradatim.comparison.experiment import Values
    from gradatim.comparison.runs import Study

PROTOCOL = 1
"""Changes where a record would."""
OURS, TRUE, TOLD = "blocks", "ridge in the true blocks", "co-clustering, told 3 groups"
COCLUSTERED, POOLED = "lasso, co-clustering, ridge in blocks", "one ridge for all"
ROWS = (25, 40, 60)
FIRST_SEED = 1000
"""Seeds of the study. Settings of ours were chosen on seeds below 400."""
REAL = ("school", "landmine", "banking77")
REAL_SEEDS = 3
BARS = {
    "over_lasso": 0.4,
    "early": 1.0,
    "over_coclustering": 0.9,
    "checks_failed": 0.0,
}


def part(study: Study, smoke: bool, seeds: int) -> dict[str, Any]:
    """Return the records, claims and listings of blocks. A smoke run has two seeds of tiny made tasks, no real ones.

    Args:
        study: keeps the records.
        smoke: whether to run at the smallest size, which needs no data.
        seeds: of made tasks; at least 8 are run.
    """
    count = 2 if smoke else max(seeds, 8)
    rows = (25, 60) if smoke else ROWS
    table = {n: [_made(study, n, FIRST_SEED + seed, smoke) for seed in range(count)] for n in rows}
    judged = {} if smoke or "GRADATIM_DATA" not in os.environ else {n: _real_runs(study, n) for n in REAL}
    claims = [
        _ratio("over_lasso", table[60], "lasso"),
        _ratio("early", table[25], "lasso"),
        _ratio("over_coclustering", table[60], COCLUSTERED),
        _checks(study, smoke),
    ]
    records = [record for n in rows for record in _records(f"blocks, {n} rows", "excess error", table[n])]
    for name, runs in judged.items():
        records += _records(name, METRICS[name][0], runs)
    return {"records": records, "claims": claims, "listings": _listings(table, judged)}


METRICS = {
    "school": ("squared error over variance",),
    "landmine": ("log-loss", "1 - AUC"),
    "banking77": ("log-loss", "error"),
}
"""What is measured of real tasks, the first of which is judged."""


def _made(study: Study, rows: int, seed: int, small: bool) -> Values:
    """Return the excess errors of all methods on one made problem, the groups found, and seconds."""

    def compute() -> Values:
        problem = made(rows, seed, small)
        assert problem.truth is not None and problem.groups is not None
        methods = PEERS | {TRUE: known_blocks, TOLD: lambda p: coclustering(p, (3,))}
        values: dict[str, Any] = {}
        for name, fit in methods.items():
            start = time.process_time()
            coef = fit(problem)[0]
            values[name] = ((coef - problem.truth) ** 2).sum(1).mean()
            values[f"seconds: {name}"] = time.process_time() - start
        start = time.process_time()
        model = _fit(BlockedRegressor(), problem)
        values[f"seconds: {OURS}"] = time.process_time() - start
        values[OURS] = ((model.coef_ - problem.truth) ** 2).sum(1).mean()
        found = (model.feature_groups_, model.task_groups_)
        for what, labels, true in zip(("features", "tasks"), found, problem.groups, strict=True):
            values[f"agreement: {what}"] = adjusted_rand_score(true, labels)
        values |= _said(model)
        return {name: np.asarray(value) for name, value in values.items()}

    return study.cached(f"blocks-made-{rows}-{seed}", [PROTOCOL, rows, seed, small], compute)


def _said(model: Any) -> dict[str, Any]:
    """Return what a fitted model says of itself."""
    chosen = {"start": 0, "grouped": 1, "all": 2}[model.chosen_]
    return {
        "chosen": chosen,
        "groups": model.n_groups_,
        "stability": model.stability_,
        "inside": model.inside_,
        "eigengap": model.eigengap_,
    }


def _fit(model: Any, problem: Problem) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if problem.labels is not None:
            return model.fit(problem.x[0], problem.labels)
        return model.fit(list(problem.x), list(problem.y))


def _real_runs(study: Study, name: str) -> list[Values]:
    return [_real(study, name, seed) for seed in range(REAL_SEEDS)]


def _real(study: Study, name: str, seed: int) -> Values:
    """Return the measures of all methods on one division of real tasks, `[metrics]` each, and seconds."""

    def compute() -> Values:
        problem = real(name, FIRST_SEED + seed)
        methods = dict(PEERS) if problem.labels is not None else PEERS | {POOLED: one_for_all}
        values: dict[str, Any] = {}
        for method, fit in methods.items():
            start = time.process_time()
            values[method] = _measure(problem, fit(problem))
            values[f"seconds: {method}"] = time.process_time() - start
        start = time.process_time()
        model = _fit(BlockedClassifier() if problem.classes else BlockedRegressor(), problem)
        values[OURS] = _measure(problem, (model.coef_, model.intercept_))
        values[f"seconds: {OURS}"] = time.process_time() - start
        values |= _said(model) | {f"validation: {kind}": v for kind, v in model.validation_.items()}
        return {key: np.asarray(value) for key, value in values.items()}

    return study.cached(f"blocks-{name}-{seed}", [PROTOCOL, name, seed], compute)


def _measure(problem: Problem, weights: Weights) -> list[float]:
    """Return the loss on the rows that judge, the mean over tasks, and of classes a second measure."""
    loss = losses(problem, problem.later, problem.answers, weights).mean()
    if not problem.classes:
        return [float(loss / np.concatenate(problem.answers).var())]
    logits = [x @ w + b for x, w, b in zip(problem.later, *weights, strict=True)]
    if problem.labels is not None:
        right = np.argmax(logits, 0) == np.argmax(problem.answers, 0)
        return [float(loss), float(1 - right.mean())]
    return [
        float(loss),
        float(np.mean([1 - _auc(y, s) for y, s in zip(problem.answers, logits, strict=True)])),
    ]


def _auc(y: np.ndarray, score: np.ndarray) -> float:
    """Return the chance that a 1 has a higher score than a 0; ties count half."""
    ones, zeros = score[y == 1], score[y == 0]
    if not len(ones) or not len(zeros):
        return 0.5
    return float((np.sign(ones[:, None] - zeros) / 2 + 0.5).mean())


def _ratio(name: str, runs: list[Values], peer: str) -> dict[str, Any]:
    """Return the claim on our error over a peer's: the geometric mean over paired seeds, and its normal interval."""
    logs = np.log([float(run[OURS]) / float(run[peer]) for run in runs])
    half = 1.96 * logs.std(ddof=1) / len(logs) ** 0.5
    value, low, high = (float(np.exp(logs.mean() + shift)) for shift in (0.0, -half, half))
    return claim(f"systems.blocks.{name}", value, low, high, BARS[name], "<=")


def _checks(study: Study, smoke: bool) -> dict[str, Any]:
    """Return the claim on scikit-learn's checks that fail. A smoke run checks the regressor only."""

    def compute() -> Values:
        models = (BlockedRegressor(),) if smoke else (BlockedRegressor(), BlockedClassifier())
        return {"failed": np.asarray([name for model in models for name in _failed(model)], dtype=np.str_)}

    failed = study.cached("blocks-checks", [PROTOCOL, smoke], compute)["failed"].tolist()
    count = float(len(failed))
    return claim("systems.blocks.checks_failed", count, count, count, BARS["checks_failed"], "<=") | {
        "failed": failed
    }


def _methods(runs: list[Values]) -> list[str]:
    return [name.removeprefix("seconds: ") for name in runs[0] if name.startswith("seconds: ")]


def _records(family: str, metric: str, runs: list[Values]) -> list[dict[str, Any]]:
    """Return the mean of each method over seeds, with its interval."""
    entries = []
    for name in _methods(runs):
        values = np.array([np.atleast_1d(run[name])[0] for run in runs], dtype=float)
        half = 1.96 * values.std(ddof=1) / len(values) ** 0.5
        entries.append(
            {
                "name": name,
                "method": name,
                "family": family,
                "signal": None,
                "metric": metric,
                "mean": round(float(values.mean()), 6),
                "low": round(float(values.mean() - half), 6),
                "high": round(float(values.mean() + half), 6),
                "seeds": len(values),
                "commit": str(runs[0]["commit"]),
                "seconds": round(float(np.mean([run[f"seconds: {name}"] for run in runs])), 2),
                "threads": 1,
            }
        )
    return entries


def _listings(table: dict[int, list[Values]], judged: dict[str, list[Values]]) -> list[dict[str, Any]]:
    """Return the excess errors by rows, how well groups are found, and the measures of real tasks."""
    rows = list(table)
    methods = _methods(table[rows[0]])
    errors = [[name, *(f"{np.mean([r[name] for r in table[n]]):.3f}" for n in rows)] for name in methods]
    said = ("agreement: features", "agreement: tasks", "groups", "stability", "inside", "eigengap")
    found = [[what, *(f"{np.mean([r[what] for r in table[n]]):.2f}" for n in rows)] for what in said]
    listings = [
        {
            "title": "blocks: excess error by rows of a task",
            "columns": ["method", *map(str, rows)],
            "rows": errors,
        },
        {"title": "blocks: groups by rows of a task", "columns": ["", *map(str, rows)], "rows": found},
    ]
    for name, runs in judged.items():
        columns = ["method", *METRICS[name], "seconds of one core"]
        lines = []
        for method in _methods(runs):
            measures = np.mean([run[method] for run in runs], 0)
            seconds = np.mean([run[f"seconds: {method}"] for run in runs])
            lines.append([method, *(f"{v:.4f}" for v in measures), f"{seconds:.1f}"])
        kinds = ("its start", "grouped", "all parts")
        chosen = ", ".join(kinds[int(run["chosen"])] for run in runs)
        listings.append({"title": f"blocks: {name} (ours chose {chosen})", "columns": columns, "rows": lines})
    return listings
