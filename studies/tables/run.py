"""`make study NAME=tables`: our estimators on tables in one pass, against peers that also see each row once.

Strict passes are over real tables, split by family. Validation tables choose all settings, test tables are
reported. The study also has batch fits of the same rows, longer streams, drift, calibration, size, speed, and
killed updates.

Source: Dawid 1984 (prequential); the protocol and the split are this project's own.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gradatim.comparison.report import write_result
from gradatim.comparison.runs import Study, claim
from gradatim.provenance import commit

from .batch import REFERENCES
from .checks import checks_failed, killed_updates, speeds
from .data import ORDERS, load, names
from .figures import (
    Passes,
    chosen_reference,
    classification_claims,
    coverage,
    error_counts,
    log_error_ratio,
    mean_of,
    ranks,
    regression_claims,
    wins,
)
from .page import PAGE
from .peers import OURS, RIDGE, peers
from .protocol import SIZE, compute, job, tune
from .streams import STREAMS

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from gradatim.comparison.experiment import Values

KINDS = ("classification", "regression")
LARGEST_STATE = 5_000_000
"""Bytes of a state at most. It was 2,000,000 while sums were rounded to float32, until they added up (lab book)."""

FEW = {
    "classification": (OURS, RIDGE, "sgd", "gaussian-nb", "river-tree"),
    "regression": (OURS, RIDGE, "sgd"),
}
"""Learners of a smoke run."""

ABOUT = (
    "One strict pass: mini-batches of 32 rows, predicted before they are learnt; classes (and, for the peers, the "
    "codes of categories) known at the start; the uniform until a learner is fitted, a tie counts as a fair guess; "
    "RMSE and coverage from the second mini-batch on; 30% of the rows held out for *final*; {orders} orders of the "
    "rows, which decide both the stream and the held-out rows. No cap on rows. Tables of at least 300 rows, one of "
    "each pair of copies, split by family by a hash: settings (one for all tables) are chosen on {validation} "
    "validation tables, figures are of {test} test tables, intervals are 95% by bootstrap over tables. Numeric peers "
    "see numbers standardised as they run and one-hot codes; river's trees for classes see raw values and strings."
)


def run(out: Path, smoke: bool, seeds: int, workers: int, console: Console) -> list[Path]:
    """Run the study. Return tables.json, tables.md and the pictures, written below `out`.

    Nothing is meta-trained, so `seeds` has no effect. `workers` processes of one thread pass over the tables. A
    smoke run uses only this process, because starting others takes longer than the work.

    Raises:
        ValueError: $GRADATIM_DATA is not set, or river is not installed. A smoke run needs neither.
    """
    study = Study(out / "work" / ("tables-smoke" if smoke else "tables"), 1 if smoke else workers, console)
    orders = 1 if smoke else ORDERS
    chosen = {kind: settings(study, kind, smoke) for kind in KINDS}
    tested = {kind: names(kind, "test", smoke) for kind in KINDS}
    test = {kind: passes(study, chosen[kind], tested[kind], orders, f"test, {kind}") for kind in KINDS}
    validated = {kind: names(kind, "validation", smoke) for kind in KINDS}
    validation = {
        kind: passes(study, chosen[kind], validated[kind], orders, f"validation, {kind}") for kind in KINDS
    }
    reference_names = ("batch-logistic-1", "batch-boosting") if smoke else REFERENCES
    references = passes(
        study, {name: {} for name in reference_names}, tested["classification"], orders, "batch references"
    )
    claims = [
        *classification_claims(test["classification"], references),
        *regression_claims(test["regression"]),
        *_machine(
            study, smoke, [by_learner[OURS] for side in (test, validation) for by_learner in side.values()]
        ),
    ]
    records = [] if smoke else streams(study, chosen["classification"])
    out.mkdir(parents=True, exist_ok=True)
    sizes = [len(tables["classification"]) + len(tables["regression"]) for tables in (validated, tested)]
    result = {
        "benchmark": "tables",
        "smoke": smoke,
        "seeds": seeds,
        "commit": commit(),
        "torch": torch.__version__,
        "about": ABOUT.format(orders=orders, validation=sizes[0], test=sizes[1]),
        "settings": chosen,
        "sides": {"validation": validated, "test": tested},
        "records": records,
        "claims": claims,
        "listings": [
            *(_settings_listing(kind, chosen[kind]) for kind in KINDS),
            *_classes_listings("test", tested["classification"], test["classification"], references),
            *_numbers_listings("test", tested["regression"], test["regression"]),
            *_classes_listings("validation", validated["classification"], validation["classification"], {}),
            *_numbers_listings("validation", validated["regression"], validation["regression"]),
        ],
    }
    return write_result(out, "tables", json.loads(json.dumps(result)), PAGE)


def settings(study: Study, kind: str, smoke: bool) -> dict[str, dict[str, Any]]:
    """Return the learners of the study, and the setting of each, chosen on validation tables.

    Raises:
        ValueError: river is not installed. A smoke run skips its models.
    """
    taking = [name for name in peers(kind) if not smoke or name in FEW[kind]]
    if find_spec("river") is None:
        if not smoke:
            raise ValueError("make study NAME=tables needs river's peers: pip install gradatim[studies]")
        study.console.print(r"without river's models: pip install gradatim\[studies]")
        taking = [name for name in taking if not name.startswith("river")]
    if smoke:
        return {name: peers(kind)[name].grid[0] for name in taking}
    return {name: tune(study, kind, name, names(kind, "validation")) for name in taking}


def passes(
    study: Study, chosen: dict[str, dict[str, Any]], tables: list[str], orders: int, title: str
) -> Passes:
    """Return the records of all learners under their settings, on all tables and orders."""
    jobs = {
        name: [[job(name, table, order, setting) for order in range(orders)] for table in tables]
        for name, setting in chosen.items()
    }
    flat = [entry for by_table in jobs.values() for row in by_table for entry in row]
    records = compute(study, flat, title)
    return {name: [[records[entry] for entry in row] for row in by_table] for name, by_table in jobs.items()}


def streams(study: Study, chosen: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the records of long streams and of drift: the error so far of all learners but river's forest.

    At 64 features the forest takes half an hour a stream.
    """
    taking = {name: setting for name, setting in chosen.items() if name != "river-forest"}
    results = passes(study, taking, list(STREAMS), 1, "long streams and drift")
    records = []
    for name, by_stream in results.items():
        for stream, (values,) in zip(STREAMS, by_stream, strict=True):
            rows = len(values["error"])
            steps = [step for step in (10, 40, 160, 400, 625, 1000, 1875) if step * SIZE <= rows]
            records += [_record(name, stream, step, values, taking[name]) for step in steps]
    return records


def _record(
    name: str, stream: str, step: int, values: dict[str, np.ndarray], setting: dict[str, Any]
) -> dict[str, Any]:
    """Return the mean error of the first mini-batches of a stream, with its interval over rows."""
    error = values["error"][: step * SIZE]
    mean, half = float(error.mean()), float(1.96 * error.std() / len(error) ** 0.5)
    return {
        "name": name,
        "method": name,
        "family": stream,
        "signal": None,
        "steps": step,
        "rows": len(error),
        "metric": "error so far",
        "seed": None,
        "mean": round(mean, 6),
        "low": round(mean - half, 6),
        "high": round(mean + half, 6),
        "tasks": 1,
        "setting": {key: value for key, value in setting.items() if not isinstance(value, str)} or None,
        "commit": str(values["commit"]),
        "seconds": 0.0,
        "stream_seconds": round(float(values["seconds"]), 1),
        "peak_memory": None,
        "threads": 1,
    }


def _machine(study: Study, smoke: bool, records: list[list[list[Values]]]) -> list[dict[str, Any]]:
    """Return the claims on checks, size, speed and killed updates."""
    study.console.print("scikit-learn's checks, speeds, and updates that are killed")
    largest = max(int(orders[0]["bytes"]) for tables in records for orders in tables)
    size = claim("tables.state_bytes", largest, largest, largest, LARGEST_STATE, "<=")
    return [checks_failed(study, smoke), size, *speeds(study, smoke), killed_updates(study, smoke)]


def _settings_listing(kind: str, chosen: dict[str, dict[str, Any]]) -> dict[str, Any]:
    rows = [
        [name, ", ".join(f"{key} {value}" for key, value in setting.items())]
        for name, setting in chosen.items()
    ]
    return {"title": f"settings, {kind}", "columns": ["learner", "setting"], "rows": rows}


def _classes_listings(
    side: str, tables: list[str], by_learner: Passes, references: Passes
) -> list[dict[str, Any]]:
    """Return the results of a side's tables with classes: learner by learner, then table by table."""
    error, loss, final = (mean_of(by_learner, metric) for metric in ("error", "log_loss", "final_error"))
    ranking, logs = (
        ranks(error),
        {
            name: log_error_ratio(error_counts(by_learner, name), error_counts(by_learner, RIDGE))
            for name in by_learner
        },
    )
    rows = [
        [
            name,
            *(f"{1 - v.mean():.4f}" for v in (error[name], final[name])),
            f"{loss[name].mean():.4f}",
            f"{np.exp(logs[name].mean()):.3f}",
            f"{ranking[name].mean():.2f}",
            f"{np.mean([[float(v['seconds']) for v in orders] for orders in by_learner[name]]):.1f}",
        ]
        for name in by_learner
    ]
    if references:
        picked, best = (accuracy.mean() for accuracy in chosen_reference(references))
        rows += [
            ["batch, chosen by cross-validation", "", f"{picked:.4f}", *[""] * 4],
            ["batch, best on the held-out rows", "", f"{best:.4f}", *[""] * 4],
        ]
    columns = ["learner", "prequential accuracy", "final accuracy", "log-loss", "errors over ridge's"]
    title = f"{side}: {len(tables)} tables with classes"
    listings = [{"title": title, "columns": [*columns, "rank", "seconds a pass"], "rows": rows}]
    won = wins(error) if OURS in by_learner else np.full(len(tables), False)
    table_rows = [
        [
            f"{table} ({len(load(table).x)} x {load(table).x.shape[1]}, {load(table).classes})",
            *(f"{100 * error[name][:, place].mean():.2f}" for name in by_learner),
            "yes" if won[place] else "no",
        ]
        for place, table in enumerate(tables)
    ]
    columns = ["table (rows x columns, classes)", *by_learner, "none better"]
    return [*listings, {"title": f"{side}: prequential error (%)", "columns": columns, "rows": table_rows}]


def _numbers_listings(side: str, tables: list[str], by_learner: Passes) -> list[dict[str, Any]]:
    """Return the results of a side's regression tables, table by table."""
    rmse = mean_of(by_learner, "square")
    ranking = ranks(rmse)
    inside = coverage(by_learner, OURS) if OURS in by_learner else np.full((len(tables), 2), np.nan)
    rows = [
        [
            f"{table} ({len(load(table).x)} x {load(table).x.shape[1]})",
            *(f"{rmse[name][:, place].mean() / load(table).y.std():.4f}" for name in by_learner),
            *(f"{share:.3f}" for share in inside[place]),
        ]
        for place, table in enumerate(tables)
    ]
    rows.append(["mean rank", *(f"{ranking[name].mean():.2f}" for name in by_learner), "", ""])
    columns = ["table (rows x columns)", *by_learner, "inside 80%", "inside 95%"]
    title = f"{side}: prequential RMSE over the standard deviation"
    return [{"title": title, "columns": columns, "rows": rows}]
