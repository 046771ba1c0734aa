"""Streams whose task changes: tuned learners and baselines, and an oracle that knows when the task changes.

Source: Herbster, Warmuth 1998 (regret against the best sequence); the streams are this project's own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from gradatim.comparison.runs import Study, claim, normal_interval
from gradatim.learner import Learner
from gradatim.methods import build
from gradatim.metrics import bootstrap
from gradatim.refiners import Bank, Conjugate, Ridge, RunLength
from gradatim.regimes import linear
from gradatim.signal import CLOSED_FORM

from .streams import FAMILY, ROWS, Streams, excess_errors, river, river_excess_errors, sample_streams

if TYPE_CHECKING:
    from gradatim.comparison.experiment import Values
    from gradatim.refiner import Refiner

KINDS = ("abrupt", "rotating")
FACTORS = (1.0, 0.998, 0.995, 0.99, 0.98, 0.96, 0.92, 0.85)
PRECISIONS = (0.1, 0.3, 1.0)
"""Precisions of the prior: noise variance over prior variance. The true value is 0.25."""


@dataclass(frozen=True)
class Competitor:
    """One competitor.

    Attributes:
        make: `make(**setting)` returns a learner or a model of river.
        grid: the values its setting is tuned on.
        is_gradatim: whether it is a learner of this library.
        share: the share of the streams it is judged on, below 1 where it is slow.
    """

    make: Callable[..., Any]
    grid: dict[str, tuple[float, ...]] = field(default_factory=dict)
    is_gradatim: bool = False
    share: float = 1.0


def _head(precision: float, forget: float = 1.0) -> Conjugate:
    return Conjugate((FAMILY.dim,), 1, [[precision]], forgetting=forget)


def _learner(refiner: Refiner) -> Learner:
    return Learner(linear(FAMILY), refiner, CLOSED_FORM)


_PRIOR = {"precision": PRECISIONS}
COMPETITORS = {
    "conjugate": Competitor(lambda precision: _learner(_head(precision)), _PRIOR, True),
    "conjugate-forgets": Competitor(
        lambda precision, forget: _learner(_head(precision, forget)), _PRIOR | {"forget": FACTORS[1:]}, True
    ),
    "bank": Competitor(
        lambda precision, share: _learner(Bank(_head(precision), FACTORS, share)),
        _PRIOR | {"share": (0.003, 0.01, 0.03, 0.1)},
        True,
    ),
    "run-length": Competitor(
        lambda precision, hazard: _learner(RunLength(_head(precision), hazard, limit=16)),
        _PRIOR | {"hazard": (0.01, 0.02, 0.04, 0.08)},
        True,
    ),
    "sgd": Competitor(
        partial(build, "sgd", FAMILY), {"rate": (0.003, 0.01, 0.03, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4)}
    ),
    "river-linear": Competitor(
        partial(river, "linear"),
        {"smoothing": (0.85, 0.9, 0.93, 0.95, 0.96, 0.97, 0.98, 0.99, 1.0), "alpha": (1.0, 10.0, 100.0)},
    ),
    "river-restarted": Competitor(
        partial(river, "restarted"),
        {"threshold": (2.0, 5.0, 10.0, 20.0, 50.0), "alpha": (1.0, 4.0)},
    ),
    "river-tree": Competitor(
        partial(river, "tree"),
        {"grace_period": (50, 200), "drift_window_threshold": (30, 300)},
        share=0.5,
    ),
    "river-forest": Competitor(partial(river, "forest"), {"max_features": (3, 8)}, share=0.25),
}
"""All competitors. For river's linear model the noise parameter is 1: its mean depends only on alpha times beta."""

BESIDE = "river-restarted"
"""A competitor that the claim leaves out: it combines two models of river, a linear one and a drift detector.

The ratio against it is reported beside the claim. On abrupt streams it is by far the strongest of the others.
"""


def drift(study: Study, smoke: bool) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return records of every competitor on both kinds of stream, and the claim `gain.drift.regret`.

    The excess error is prequential: the mean over all mini-batches so far of the error above the noiseless answer.
    On abrupt streams the regret is the excess error minus that of the oracle, the Bayes posterior that knows every
    change. A rotating task has no such oracle, so there the excess error is the regret.

    Settings are chosen on streams of another seed. So are the learner and the rival that the claim compares. The
    claim is the ratio of our best regret to that of the best rival, `BESIDE` excepted.

    Raises:
        ValueError: river is not installed. A smoke run skips its models.
    """
    streams, steps = (2, (10, 30)) if smoke else (16, (10, 20, 50, 100, 200, 400))
    entries = {n: replace(e, grid=_shorter(e.grid)) if smoke else e for n, e in COMPETITORS.items()}
    if smoke and find_spec("river") is None:
        study.console.print(r"without river's models: pip install gradatim\[studies]")
        entries = {name: entry for name, entry in entries.items() if not name.startswith("river")}
    records: list[dict[str, Any]] = []
    measured: list[tuple[str, str, tuple[float, float, float]]] = []
    beside: dict[str, tuple[float, float, float]] = {}
    for kind in KINDS:
        judge = partial(_evaluate, study, kind, streams, steps[-1])
        results = {name: judge(name, entry) for name, entry in entries.items()}
        if kind == "abrupt":
            best = judge(
                "oracle", Competitor(lambda: _learner(Ridge(FAMILY.dim, 1, FAMILY.noise_std**2))), oracle=True
            )
            for name, values in {**results, "oracle": best}.items():
                records += _records(kind, name, "excess error", values, steps)
            results = {name: _excess_over_oracle(values, best) for name, values in results.items()}
        metric = "regret" if kind == "abrupt" else "excess error"
        for name, values in results.items():
            records += _records(kind, name, metric, values, steps)
        best_learner = _select_best(results, [name for name in results if entries[name].is_gradatim])
        best_rival = _select_best(
            results, [name for name in results if not entries[name].is_gradatim and name != BESIDE]
        )
        measured.append((best_learner, best_rival, _ratio(results, best_learner, best_rival)))
        if BESIDE in results:
            beside[f"{metric} of {best_learner} over {BESIDE}, {kind}"] = _ratio(
                results, best_learner, BESIDE
            )
    (best_learner, best_rival, ratio), (slow, slow_rival, rotating) = measured
    beside[f"excess error of {slow} over {slow_rival}, rotating"] = rotating
    entry = {**claim("gain.drift.regret", *ratio, 0.7, "<="), "chosen": best_learner, "against": best_rival}
    rounded = {about: [round(value, 4) for value in values] for about, values in beside.items()}
    return records, [{**entry, "beside": rounded}]


def _shorter(grid: dict[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
    return {key: values[:2] for key, values in grid.items()}


def _excess_over_oracle(values: Values, best: Values) -> Values:
    """Return the record with the oracle's errors on the same streams subtracted."""
    both = {key: values[key] - best[key][:, : values[key].shape[1]] for key in ("error", "tuning")}
    return {**values, **both}


def _select_best(results: dict[str, Values], names: list[str]) -> str:
    """Return the best of some competitors on the tuning streams."""
    return min(names, key=lambda name: float(results[name]["tuning"].mean()))


def _ratio(results: dict[str, Values], numerator: str, denominator: str) -> tuple[float, float, float]:
    """Return the ratio of two mean errors on the streams that both were judged on, with its interval over streams."""
    count = min(results[name]["error"].shape[1] for name in (numerator, denominator))
    first, second = (results[name]["error"].mean(0)[None, :count] for name in (numerator, denominator))
    return bootstrap(lambda a, b: float(a.mean() / b.mean()), first, second)


def _evaluate(
    study: Study, kind: str, streams: int, steps: int, name: str, entry: Competitor, oracle: bool = False
) -> Values:
    """Return the record of one competitor, tuned on streams of seed 2 and judged on those of seed 1."""
    count = max(2, round(streams * entry.share))
    n_tuning = max(2, count // 2) if name.startswith("river") else count
    grid = {key: list(values) for key, values in entry.grid.items()}

    def run(setting: dict[str, float], data: Streams) -> np.ndarray:
        if name.startswith("river"):
            return river_excess_errors(partial(entry.make, **setting), data)
        return excess_errors(entry.make(**setting), data, oracle)

    def compute() -> Values:
        study.console.print(f"{name} on {kind} streams")
        settings = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
        tuning = sample_streams(kind, streams, steps, seed=2).first(n_tuning)
        tried = [np.nan_to_num(run(setting, tuning), nan=np.inf, posinf=np.inf) for setting in settings]
        best = min(range(len(settings)), key=lambda i: float(tried[i].mean()))
        data, start = sample_streams(kind, streams, steps, seed=1).first(count), time.perf_counter()
        values = {"error": run(settings[best], data), "tuning": tried[best]}
        values["seconds"] = np.asarray((time.perf_counter() - start) / count)
        return values | {f"setting {key}": np.asarray(value) for key, value in settings[best].items()}

    return study.cached(
        f"drift-{kind}-{name}", [kind, streams, count, n_tuning, steps, grid, FACTORS], compute
    )


def _records(
    kind: str, name: str, metric: str, values: Values, steps: tuple[int, ...]
) -> list[dict[str, Any]]:
    """Return a record for each of `steps`: the mean of the mini-batches so far, with its interval over streams."""
    setting = {k.removeprefix("setting "): v.item() for k, v in values.items() if k.startswith("setting ")}
    records = []
    for step in steps:
        mean, low, high = normal_interval(values["error"][:step].mean(0))
        records.append(
            {
                "name": name,
                "method": name,
                "family": f"drift-{kind}",
                "signal": None,
                "steps": step,
                "rows": step * ROWS,
                "metric": metric,
                "seed": None,
                "mean": round(mean, 6),
                "low": round(low, 6),
                "high": round(high, 6),
                "tasks": values["error"].shape[1],
                "setting": setting or None,
                "commit": str(values["commit"]),
                "seconds": 0.0,
                "stream_seconds": round(float(values["seconds"]), 3),
                "peak_memory": None,
                "threads": None,
            }
        )
    return records
