"""Rehearsal with information maximization: streams of classes, a small buffer, and what could win.

All settings are chosen on validation streams, for each stream and buffer and each method alike.

After the idea of: Alssum et al. 2025 (arXiv 2512.01818), as `gradatim.regularizers.information` says.

Source: Hayes, Kanan 2020 (streaming LDA); Chaudhry et al. 2018, eq. 3 (forgetting).
"""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import t as student

from gradatim.comparison.runs import Study, claim
from gradatim.provenance import commit

from .class_streams import STREAMS, VALIDATION_FROM, load_stream
from .rehearsal import Setting, final, forgetting, train
from .rowless import SHRINKAGE, lda, refined

if TYPE_CHECKING:
    from collections.abc import Sequence

PROTOCOL = 1
BUFFERS = (20, 50, 200, 500)
SMALL = (20, 50)
"""Buffers of the figures."""

RATES = (0.01, 0.03, 0.1)
GRID = {
    "er": ((0.0,), "both"),
    "ace": ((0.0,), "both"),
    "entropy": ((0.3, 1.0, 3.0), "both"),
    "adjusted": ((1.0, 2.0, 3.0), "both"),
    "marginal": ((0.3, 1.0, 3.0, 10.0), "both"),
    "marginal, replay only": ((1.0, 3.0), "replay"),
    "full": ((1.0, 3.0, 10.0), "both"),
    "marginal+ace": ((3.0,), "both"),
    "marginal+adjusted": ((3.0,), "both"),
}
"""Weights and target of each method."""

NAMES = {
    "er": "rehearsal alone",
    "ace": "ER-ACE",
    "entropy": "entropy minimisation",
    "adjusted": "logit adjustment",
    "marginal": "marginal",
    "marginal, replay only": "marginal, replay only",
    "full": "full",
    "marginal+ace": "marginal on ER-ACE",
    "marginal+adjusted": "marginal on logit adjustment",
    "lda": "streaming LDA, no buffer",
    "refined": "RefinedClassifier, no buffer",
}
ONE_FOR_ALL = ("er", "ace", "adjusted", "marginal")
"""Methods that are also judged under one setting for all streams and buffers."""

MORE_SEEDS = {"omniglot": 2}
"""Streams of few rows to judge: times as many seeds."""

VALIDATION_SEEDS = {"omniglot": 3}
Cell = tuple[str, int]


def part(study: Study, smoke: bool, seeds: int) -> dict[str, list[dict[str, Any]]]:
    """Return records, claims and listings: accuracy and forgetting of each method on each stream with each buffer.

    A smoke run learns the digits that scikit-learn brings along, with one buffer and one learning rate.
    """
    streams, buffers = (["digits"], (20,)) if smoke else (list(STREAMS), BUFFERS)
    scores = {
        (name, buffer): _validation(study, name, buffer, 1 if smoke else VALIDATION_SEEDS.get(name, 2), smoke)
        for name, buffer in product(streams, buffers)
    }
    chosen = {cell: _best(score) for cell, score in scores.items()}
    shared = _best({s: float(np.mean([score[s] for score in scores.values()])) for s in _settings(smoke)})
    shared = {method: shared[method] for method in ONE_FOR_ALL}
    results: dict[Cell, dict[str, np.ndarray]] = {}
    for name in streams:
        repeats = range(1 if smoke else seeds * MORE_SEEDS.get(name, 1))
        alone = _rowless(study, name, range(1 if smoke else seeds), smoke)
        for buffer in buffers:
            settings = [*chosen[name, buffer].values(), *shared.values()]
            values = np.stack([_trained(study, name, buffer, seed, settings) for seed in repeats])
            names = [*chosen[name, buffer], *(f"{method}, one setting" for method in shared)]
            results[name, buffer] = dict(zip(names, values.swapaxes(0, 1), strict=True)) | alone
        study.notify(f"information: {name} is done")
    return {
        "records": _records(results, chosen),
        "claims": _claims(results, streams, [b for b in buffers if b in SMALL]),
        "listings": [
            *_listings(results, streams, buffers),
            _settings_listing(chosen, shared),
        ],
    }


def _settings(smoke: bool) -> list[Setting]:
    """Return all settings of the grid."""
    return [
        Setting(method, lr, weight, target)
        for method, (weights, target) in GRID.items()
        for lr in (RATES[2:] if smoke else RATES)
        for weight in (weights[-2:] if smoke else weights)
    ]


def _validation(study: Study, name: str, buffer: int, seeds: int, smoke: bool) -> dict[Setting, float]:
    """Return the final accuracy of each setting on validation streams."""
    settings = _settings(smoke)
    runs = [final(_trained(study, name, buffer, VALIDATION_FROM + seed, settings)) for seed in range(seeds)]
    return dict(zip(settings, np.mean(runs, 0).tolist(), strict=True))


def _best(scores: dict[Setting, float]) -> dict[str, Setting]:
    """Return the best setting of each method."""
    return {method: max((s for s in scores if s.method == method), key=scores.__getitem__) for method in GRID}


def _trained(study: Study, name: str, buffer: int, seed: int, settings: Sequence[Setting]) -> np.ndarray:
    """Return the accuracies `[settings, after, of]` of one stream, from the record where there is one."""
    inputs = [PROTOCOL, name, buffer, seed, [asdict(setting) for setting in settings]]
    key = f"information-{name}-{buffer}-{seed}"
    record = study.cached(
        key, inputs, lambda: {"accuracy": train(_stream(name, seed), settings, buffer, seed)}
    )
    return record["accuracy"]


@cache
def _stream(name: str, seed: int) -> Any:
    return load_stream(name, seed)


def _rowless(study: Study, name: str, seeds: range, smoke: bool) -> dict[str, np.ndarray]:
    """Return the accuracies `[seeds, after, of]` of what keeps no rows."""

    def run(kind: str, seed: int, *options: float) -> np.ndarray:
        compute = {"lda": lda, "refined": refined}[kind]
        return study.cached(
            f"information-{name}-{kind}-{seed}",
            [PROTOCOL, name, seed, *options],
            lambda: {"accuracy": compute(load_stream(name, seed), *options)},
        )["accuracy"]

    checks = range(VALIDATION_FROM, VALIDATION_FROM + (1 if smoke else 2))
    score = {s: np.mean([final(run("lda", seed, s)) for seed in checks]) for s in SHRINKAGE}
    shrinkage = max(score, key=lambda s: float(score[s]))
    return {
        "lda": np.stack([run("lda", seed, shrinkage) for seed in seeds]),
        "refined": np.stack([run("refined", seed) for seed in seeds]),
    }


def _interval(values: Sequence[np.ndarray]) -> tuple[float, float, float]:
    """Return the mean of streams, each with values of its seeds `[n]`, and its 95% interval by Student's t."""
    means = [float(v.mean()) for v in values]
    error = float(np.sqrt(sum(v.var(ddof=1) / len(v) if len(v) > 1 else 0.0 for v in values))) / len(values)
    half = float(student.ppf(0.975, max(min(map(len, values)) - 1, 1))) * error
    return float(np.mean(means)), float(np.mean(means)) - half, float(np.mean(means)) + half


def _claims(
    results: dict[Cell, dict[str, np.ndarray]], streams: Sequence[str], small: Sequence[int]
) -> list[dict[str, Any]]:
    """Return the figures: points of accuracy over rehearsal alone, over ER-ACE, and the worst stream and buffer."""

    def gain(cell: Cell, over: str) -> np.ndarray:
        return 100 * (final(results[cell]["marginal"]) - final(results[cell][over]))

    def over(name: str) -> tuple[float, float, float]:
        return _interval([np.mean([gain((s, b), name) for b in small], 0) for s in streams])

    worst = max((_interval([-gain(cell, "er")]) for cell in results), key=lambda part: part[0])
    return [
        claim("systems.information.over_er", *over("er"), 6, ">="),
        claim("systems.information.over_ace", *over("ace"), 2, ">="),
        claim("systems.information.never_worse", *worst, 0.5, "<="),
    ]


def _records(
    results: dict[Cell, dict[str, np.ndarray]], chosen: dict[Cell, dict[str, Setting]]
) -> list[dict[str, Any]]:
    """Return a record of each method, stream, buffer and metric, over seeds."""
    records = []
    for (name, buffer), methods in results.items():
        for method, accuracy in methods.items():
            if method in ("lda", "refined") and buffer != next(b for n, b in results if n == name):
                continue
            setting = chosen[name, buffer].get(method)
            for metric, measure in (("accuracy", final), ("forgetting", forgetting)):
                mean, low, high = _interval([measure(accuracy)])
                records.append(
                    {
                        "name": f"information-{method}",
                        "method": method,
                        "family": name,
                        "signal": None,
                        "steps": accuracy.shape[-1],
                        "rows": 0 if method in ("lda", "refined") else buffer,
                        "metric": metric,
                        "seed": None,
                        "mean": round(mean, 6),
                        "low": round(low, 6),
                        "high": round(high, 6),
                        "tasks": len(accuracy),
                        "setting": None if setting is None else asdict(setting),
                        "commit": commit(),
                        "seconds": 0.0,
                        "peak_memory": None,
                        "threads": 1,
                    }
                )
    return json.loads(json.dumps(records))


def _listings(
    results: dict[Cell, dict[str, np.ndarray]], streams: Sequence[str], buffers: Sequence[int]
) -> list[dict[str, Any]]:
    """Return tables: accuracy and forgetting by buffer, one setting for all, and accuracy over time."""
    listings = []
    columns = ["method", *(str(buffer) for buffer in buffers)]
    for name in streams:
        for title, measure in (("accuracy", final), ("forgetting", forgetting)):
            rows = [
                [label, *(_shown(100 * measure(results[name, b][method])) for b in buffers)]
                for method, label in NAMES.items()
            ]
            listings.append({"title": f"{name}: final {title} by buffer", "columns": columns, "rows": rows})
    rows = [
        [NAMES[m], *(f"{_mean(results, streams, b, f'{m}, one setting'):.1f}" for b in buffers)]
        for m in ONE_FOR_ALL
    ]
    listings.append(
        {"title": "one setting for all streams and buffers: final accuracy", "columns": columns, "rows": rows}
    )
    for name, buffer in product(streams, buffers[:1]):
        over_time = {m: 100 * np.nanmean(results[name, buffer][m].mean(0), -1) for m in NAMES}
        tasks = [str(t + 1) for t in range(len(over_time["er"]))]
        rows = [[NAMES[m], *(f"{value:.1f}" for value in values)] for m, values in over_time.items()]
        title = f"{name}, buffer {buffer}: accuracy on classes so far, after each task"
        listings.append({"title": title, "columns": ["method", *tasks], "rows": rows})
    return listings


def _mean(
    results: dict[Cell, dict[str, np.ndarray]], streams: Sequence[str], buffer: int, method: str
) -> float:
    return float(np.mean([100 * final(results[name, buffer][method]).mean() for name in streams]))


def _shown(values: np.ndarray) -> str:
    return f"{values.mean():.1f} ± {_interval([values])[2] - values.mean():.1f}"


def _settings_listing(chosen: dict[Cell, dict[str, Setting]], shared: dict[str, Setting]) -> dict[str, Any]:
    """Return which setting each method has, chosen on validation streams."""
    rows = [
        [name, str(buffer), NAMES[s.method], f"{s.lr:g}", f"{s.weight:g}"]
        for (name, buffer), settings in chosen.items()
        for s in settings.values()
    ]
    rows += [["all", "all", NAMES[method], f"{s.lr:g}", f"{s.weight:g}"] for method, s in shared.items()]
    return {
        "title": "settings, chosen on validation streams",
        "columns": ["stream", "buffer", "method", "rate", "weight"],
        "rows": rows,
    }
