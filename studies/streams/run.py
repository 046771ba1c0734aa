"""`make study NAME=streams`: our estimators on streams that change, in one pass, against river's learners and refits.

Real streams, river's generators under seeds of ours, and stationary tables whose columns move, split by family.
Validation streams choose all settings, test streams are reported.

Source: Dawid 1984 (prequential); the protocol and the split are this project's own.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gradatim.comparison.report import write_result
from gradatim.comparison.runs import Study
from gradatim.provenance import commit
from studies.tables import protocol as tables
from studies.tables.data import names as table_names
from studies.tables.peers import missing
from studies.tables.protocol import SIZE

from . import data
from .data import ROWS, SEEDS, SMOKE_ROWS, kind_of, kinds_of, load, moved_name
from .figures import (
    by_stream,
    drift_claims,
    geometric,
    moved_claim,
    ranks_of,
    ratios,
    stationary,
    time_claim,
)
from .page import PAGE
from .peers import ALL, ARF, BATCHED, BY_32, ours, peers
from .protocol import Passes, loss, passes, tune

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import Console

    from gradatim.comparison.experiment import Values

Settings = dict[str, dict[str, Any]]
KINDS = ("classification", "regression")
SMOKE = {"river": ["sine-abrupt-0", "mixed-recurring-0"], "": ["turned-bundled-breast_cancer"]}
"""Streams of a smoke run, which are no test streams. The first ones need river."""

SMOKE_MOVES = ("units-up", "shift")
FEW = (ARF, "river-tree", "no-change", "majority", "refit-logistic")
"""Peers of a smoke run."""

ABOUT = (
    "One strict pass: every row is predicted before it is learnt, one at a time, and by models refitted at doublings "
    "in mini-batches of 32; ours and river's forest also by 32, beside. Of ours classes are not known at the start, of "
    "peers they are, and codes of categories; "
    "a tie counts as a fair guess; RMSE is from row 32 on. Generated streams have {rows} rows and "
    "{seeds} seeds for each kind of change. Settings of the peers are chosen on validation streams, figures are of "
    "test streams; intervals are 95% by bootstrap over streams and seeds."
)


def run(out: Path, smoke: bool, seeds: int, workers: int, console: Console) -> list[Path]:
    """Run the study. Return streams.json, streams.md and the picture, written below `out`.

    Nothing is meta-trained, so `seeds` has no effect. A smoke run uses only this process, and what is installed.

    Raises:
        ValueError: $GRADATIM_DATA is not set, or a package of the peers is not installed. A smoke run needs neither.
    """
    absent = missing()
    if absent and not smoke:
        raise ValueError(
            f"make study NAME=streams needs {' and '.join(absent)}: pip install gradatim[studies]"
        )
    study = Study(out / "work" / ("streams-smoke" if smoke else "streams"), 1 if smoke else workers, console)
    limit = SMOKE_ROWS if smoke else 0
    chosen = {kind: settings(study, kind, smoke) for kind in KINDS}
    drifting, real = (smoke_streams(), []) if smoke else (data.drifting("test"), data.real("test"))
    test = passes(study, chosen["classification"], [*drifting, *real], "test streams", limit)
    validation = {} if smoke else {kind: validate(study, kind, chosen[kind]) for kind in KINDS}
    claims = [
        *drift_claims(test, drifting, real),
        stationary_claim(study, smoke),
        moves(study, smoke),
        time_claim(test, [*drifting, *real]),
    ]
    listings = [
        *(settings_listing(kind, chosen[kind]) for kind in KINDS),
        learners_listing(test, drifting, real),
        *stream_listings("test", test, [*drifting, *real]),
    ]
    for kind, records in validation.items():
        listings += stream_listings(f"validation, {kind}", records, validation_streams(kind))
    result = {
        "benchmark": "streams",
        "smoke": smoke,
        "seeds": seeds,
        "commit": commit(),
        "torch": torch.__version__,
        "about": ABOUT.format(rows=SMOKE_ROWS if smoke else ROWS, seeds=1 if smoke else SEEDS),
        "settings": chosen,
        "records": stream_records(test, [*drifting, *real], chosen["classification"]),
        "claims": claims,
        "listings": listings,
    }
    return write_result(out, "streams", json.loads(json.dumps(result)), PAGE)


def smoke_streams() -> list[str]:
    """Return the streams of a smoke run: those that can be made of what is installed."""
    return [name for needs, names in SMOKE.items() if needs not in missing() for name in names]


def validation_streams(kind: str, seeds: int = SEEDS) -> list[str]:
    """Return the validation streams of a kind."""
    streams = [*data.drifting("validation", seeds), *data.real("validation")]
    return [name for name in streams if kind_of(name) == kind]


def settings(study: Study, kind: str, smoke: bool, limit: int = 0) -> Settings:
    """Return our settings, and for each peer the one chosen on validation streams of one seed.

    A smoke run takes the first setting of few peers.
    """
    if smoke:
        available = [n for n in FEW if n in peers(kind) and peers(kind)[n].package not in missing()]
        chosen = {**ours(), **{name: peers(kind)[name].grid[0] for name in available}}
    else:
        streams = validation_streams(kind, 1)
        chosen = {**ours(), **{name: tune(study, name, streams, limit) for name in peers(kind)}}
    return chosen | ({BATCHED: chosen[ARF]} if ARF in chosen else {})


def validate(study: Study, kind: str, chosen: Settings, limit: int = 0) -> Passes:
    """Return the records of all learners on the validation streams of a kind."""
    return passes(study, chosen, validation_streams(kind), f"validation streams, {kind}", limit)


def stationary_claim(study: Study, smoke: bool) -> dict[str, Any]:
    """Return the claim on stationary tables: the same passes with adaptive memory and with all rows."""
    by_setting: dict[str, dict[str, list[Values]]] = {}
    names = [name for kind in KINDS for name in table_names(kind, "test", smoke)]
    orders = 1 if smoke else SEEDS
    for name, setting in ours().items():
        if name not in (BY_32, ALL):
            continue
        jobs = {t: [tables.job(tables.OURS, t, order, setting) for order in range(orders)] for t in names}
        records = tables.compute(
            study, [j for row in jobs.values() for j in row], f"stationary tables, {name}"
        )
        by_setting[name] = {t: [records[j] for j in row] for t, row in jobs.items()}
    return stationary(by_setting[BY_32], by_setting[ALL])


def moves(study: Study, smoke: bool, on: str = "test", limit: int = 0) -> dict[str, Any]:
    """Return the claim on columns that move in stationary tables."""
    orders, limit = (1, SMOKE_ROWS) if smoke else (data.MOVED_ORDERS, limit)
    kinds = {
        name: [kind for kind in kinds_of(name, study.folder) if not smoke or kind in SMOKE_MOVES]
        for name in data.movable(on, smoke)
    }
    pairs = [
        (name, kind, order) for name, moving in kinds.items() for kind in moving for order in range(orders)
    ]
    streams = [moved_name(*pair, first) for pair in pairs for first in ("moved", "after")]
    records = passes(study, {BY_32: ours()[BY_32]}, streams, "columns that move", limit)
    changes = {moved_name(*pair): load(moved_name(*pair), study.folder, limit).changes[0] for pair in pairs}
    return moved_claim(records, kinds, orders, changes)


def settings_listing(kind: str, chosen: Settings) -> dict[str, Any]:
    """Return which setting each learner has."""
    rows = [[name, ", ".join(f"{k} {v}" for k, v in setting.items())] for name, setting in chosen.items()]
    return {"title": f"settings, {kind}", "columns": ["learner", "setting"], "rows": rows}


def learners_listing(records: Passes, drifting: Sequence[str], real: Sequence[str]) -> dict[str, Any]:
    """Return each learner's errors over those of river's forest, its mean rank and its seconds a pass."""
    groups = [ranks_of(records, streams) for streams in (drifting, real) if streams]
    rows = []
    for name, values_of in records.items():
        over = [
            f"{geometric(ratios(records, ARF, streams, name))[0]:.3f}" if streams and ARF in records else ""
            for streams in (drifting, real)
        ]
        rank = [group[name] for group in groups if name in group]
        seconds = np.mean([float(values["seconds"]) for values in values_of.values()])
        rows.append([name, *over, f"{np.concatenate(rank).mean():.2f}" if rank else "", f"{seconds:.1f}"])
    rows.sort(key=lambda row: float(row[3] or "inf"))
    columns = ["learner", "errors over river's forest, drifting", "real", "mean rank", "seconds a pass"]
    return {"title": "learners", "columns": columns, "rows": rows}


def stream_listings(title: str, records: Passes, streams: Sequence[str]) -> list[dict[str, Any]]:
    """Return the learners' errors and, where river's forest ran, their ratios to its errors, stream by stream."""
    names = by_stream(streams)
    errors = [
        [stem, *(f"{np.mean([loss(values_of[name]) for name in row]):.4f}" for values_of in records.values())]
        for stem, row in names.items()
    ]
    listings = [{"title": f"{title}: errors", "columns": ["stream", *records], "rows": errors}]
    if ARF in records:
        over = [
            [stem, *(f"{np.exp(ratios(records, ARF, row, name).mean()):.4f}" for name in records)]
            for stem, row in names.items()
        ]
        listings.append(
            {"title": f"{title}: over river's forest", "columns": ["stream", *records], "rows": over}
        )
    return listings


def stream_records(records: Passes, streams: Sequence[str], chosen: Settings) -> list[dict[str, Any]]:
    """Return each learner's error on each stream with classes, and its interval: over seeds, or over rows."""
    entries = []
    for name, values_of in records.items():
        for stem, row in by_stream(streams).items():
            repeats = [values_of[stream] for stream in row]
            values = (
                np.array([loss(v) for v in repeats])
                if len(repeats) > 1
                else repeats[0]["error"].astype(float)
            )
            half = 1.96 * values.std(ddof=1) / len(values) ** 0.5
            entries.append(
                {
                    "name": name,
                    "method": name,
                    "family": stem,
                    "signal": None,
                    "steps": -(-len(repeats[0]["error"]) // SIZE),
                    "rows": len(repeats[0]["error"]),
                    "metric": "error",
                    "seed": None,
                    "mean": round(float(values.mean()), 6),
                    "low": round(float(values.mean() - half), 6),
                    "high": round(float(values.mean() + half), 6),
                    "tasks": len(repeats),
                    "setting": chosen[name] or None,
                    "commit": str(repeats[0]["commit"]),
                    "seconds": 0.0,
                    "stream_seconds": round(float(np.mean([v["seconds"] for v in repeats])), 1),
                    "peak_memory": None,
                    "threads": 1,
                }
            )
    return entries
