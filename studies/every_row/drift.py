"""Streams whose task changes: what following it is worth, against tuned baselines and an oracle told of the changes.

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

from .streams import FAMILY, ROWS, Streams, draw, follow, follow_river, river

if TYPE_CHECKING:
    from gradatim.comparison.experiment import Values
    from gradatim.refiner import Refiner

KINDS = ("abrupt", "rotating")
FACTORS = (1.0, 0.998, 0.995, 0.99, 0.98, 0.96, 0.92, 0.85)
PRECISIONS = (0.1, 0.3, 1.0)
"""Of a prior, in units of noise variance over prior variance; the truth is 0.25."""


@dataclass(frozen=True)
class Entry:
    """One competitor: `make(**setting)`, a learner or a model of river; the `grid` its setting is tuned on; `ours`;
    `share` of the streams it is judged on, where it is slow; models of river are tuned on half as many."""

    make: Callable[..., Any]
    grid: dict[str, tuple[float, ...]] = field(default_factory=dict)
    ours: bool = False
    share: float = 1.0


def _head(precision: float, forget: float = 1.0) -> Conjugate:
    return Conjugate((FAMILY.dim,), 1, [[precision]], forgetting=forget)


def _learner(refiner: Refiner) -> Learner:
    return Learner(linear(FAMILY), refiner, CLOSED_FORM)


_PRIOR = {"precision": PRECISIONS}
ENTRIES = {
    "conjugate": Entry(lambda precision: _learner(_head(precision)), _PRIOR, True),
    "conjugate-forgets": Entry(
        lambda precision, forget: _learner(_head(precision, forget)), _PRIOR | {"forget": FACTORS[1:]}, True
    ),
    "bank": Entry(
        lambda precision, share: _learner(Bank(_head(precision), FACTORS, share)),
        _PRIOR | {"share": (0.003, 0.01, 0.03, 0.1)},
        True,
    ),
    "run-length": Entry(
        lambda precision, hazard: _learner(RunLength(_head(precision), hazard, limit=16)),
        _PRIOR | {"hazard": (0.01, 0.02, 0.04, 0.08)},
        True,
    ),
    "sgd": Entry(
        partial(build, "sgd", FAMILY), {"rate": (0.003, 0.01, 0.03, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4)}
    ),
    "river-linear": Entry(
        partial(river, "linear"),
        {"smoothing": (0.85, 0.9, 0.93, 0.95, 0.96, 0.97, 0.98, 0.99, 1.0), "alpha": (1.0, 10.0, 100.0)},
    ),
    "river-restarted": Entry(
        partial(river, "restarted"),
        {"threshold": (2.0, 5.0, 10.0, 20.0, 50.0), "alpha": (1.0, 4.0)},
    ),
    "river-tree": Entry(
        partial(river, "tree"),
        {"grace_period": (50, 200), "drift_window_threshold": (30, 300)},
        share=0.5,
    ),
    "river-forest": Entry(partial(river, "forest"), {"max_features": (3, 8)}, share=0.25),
}
"""All competitors. For river's linear model the noise parameter is 1: its mean depends on alpha times beta alone."""

BESIDE = "river-restarted"
"""Not one of river's models but made of two, a linear one and a detector: what the claim's ratio would be against it
stands beside the claim. On abrupt streams it is by far the strongest of the others."""


def drift(study: Study, smoke: bool) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return records of every competitor on both kinds of stream, and the claim `gain.drift.regret`.

    Excess error: prequential, above the noiseless answer, the mean of all mini-batches so far. Regret, on abrupt
    streams: minus that of the Bayes posterior told of every change; a rotating theta has no such oracle but itself,
    so there the excess error is the regret. Settings, and which competitor stands for its side, are chosen on streams
    of another seed. The claim: the best of ours over the best of the others less `BESIDE`, all mini-batches.

    Raises:
        ValueError: river is not installed; a smoke run leaves its models out.
    """
    streams, steps = (2, (10, 30)) if smoke else (16, (10, 20, 50, 100, 200, 400))
    entries = {n: replace(e, grid=_shorter(e.grid)) if smoke else e for n, e in ENTRIES.items()}
    if smoke and find_spec("river") is None:
        study.console.print("without river's models: pip install gradatim[studies]")
        entries = {name: entry for name, entry in entries.items() if not name.startswith("river")}
    records: list[dict[str, Any]] = []
    measured: list[tuple[str, str, tuple[float, float, float]]] = []
    beside: dict[str, tuple[float, float, float]] = {}
    for kind in KINDS:
        judge = partial(_judged, study, kind, streams, steps[-1])
        found = {name: judge(name, entry) for name, entry in entries.items()}
        if kind == "abrupt":
            best = judge(
                "oracle", Entry(lambda: _learner(Ridge(FAMILY.dim, 1, FAMILY.noise_std**2))), told=True
            )
            for name, values in {**found, "oracle": best}.items():
                records += _records(kind, name, "excess error", values, steps)
            found = {name: _above(values, best) for name, values in found.items()}
        metric = "regret" if kind == "abrupt" else "excess error"
        for name, values in found.items():
            records += _records(kind, name, metric, values, steps)
        ours = _chosen(found, [name for name in found if entries[name].ours])
        theirs = _chosen(found, [name for name in found if not entries[name].ours and name != BESIDE])
        measured.append((ours, theirs, _ratio(found, ours, theirs)))
        if BESIDE in found:
            beside[f"{metric} of {ours} over {BESIDE}, {kind}"] = _ratio(found, ours, BESIDE)
    (ours, theirs, ratio), (slow, rest, rotating) = measured
    beside[f"excess error of {slow} over {rest}, rotating"] = rotating
    made = {**claim("gain.drift.regret", *ratio, 0.7, "<="), "chosen": ours, "against": theirs}
    rounded = {about: [round(value, 4) for value in values] for about, values in beside.items()}
    return records, [{**made, "beside": rounded}]


def _shorter(grid: dict[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
    return {key: values[:2] for key, values in grid.items()}


def _above(values: Values, best: Values) -> Values:
    """Return the record with the oracle's errors on the same streams taken off."""
    both = {key: values[key] - best[key][:, : values[key].shape[1]] for key in ("error", "tuning")}
    return {**values, **both}


def _chosen(found: dict[str, Values], names: list[str]) -> str:
    """Return the best of some competitors on the tuning streams."""
    return min(names, key=lambda name: float(found[name]["tuning"].mean()))


def _ratio(found: dict[str, Values], ours: str, theirs: str) -> tuple[float, float, float]:
    """Return the ratio of two mean errors on the streams that both are judged on, with its interval over streams."""
    count = min(found[name]["error"].shape[1] for name in (ours, theirs))
    one, other = (found[name]["error"].mean(0)[None, :count] for name in (ours, theirs))
    return bootstrap(lambda a, b: float(a.mean() / b.mean()), one, other)


def _judged(
    study: Study, kind: str, streams: int, steps: int, name: str, entry: Entry, told: bool = False
) -> Values:
    """Return the record of one competitor: tuned on streams of seed 2, judged on those of seed 1."""
    count = max(2, round(streams * entry.share))
    few = max(2, count // 2) if name.startswith("river") else count
    grid = {key: list(values) for key, values in entry.grid.items()}

    def run(setting: dict[str, float], data: Streams) -> np.ndarray:
        if name.startswith("river"):
            return follow_river(partial(entry.make, **setting), data)
        return follow(entry.make(**setting), data, told)

    def compute() -> Values:
        study.console.print(f"{name} on {kind} streams")
        settings = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
        tuning = draw(kind, streams, steps, seed=2).first(few)
        tried = [np.nan_to_num(run(setting, tuning), nan=np.inf, posinf=np.inf) for setting in settings]
        best = min(range(len(settings)), key=lambda i: float(tried[i].mean()))
        data, start = draw(kind, streams, steps, seed=1).first(count), time.perf_counter()
        found = {"error": run(settings[best], data), "tuning": tried[best]}
        found["seconds"] = np.asarray((time.perf_counter() - start) / count)
        return found | {f"setting {key}": np.asarray(value) for key, value in settings[best].items()}

    return study.cached(f"drift-{kind}-{name}", [kind, streams, count, few, steps, grid, FACTORS], compute)


def _records(
    kind: str, name: str, metric: str, values: Values, steps: tuple[int, ...]
) -> list[dict[str, Any]]:
    """Return one record for each of `steps`: the mean of the mini-batches so far, its interval over streams."""
    setting = {k.removeprefix("setting "): v.item() for k, v in values.items() if k.startswith("setting ")}
    made = []
    for step in steps:
        mean, low, high = normal_interval(values["error"][:step].mean(0))
        made.append(
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
    return made
