"""`make study NAME=tables`: our estimators on tables in one pass, against peers that also see each row once.

Strict passes are over real tables, split by family. Validation tables choose all settings, test tables are
reported. The study also has batch fits of the same rows, longer streams, drift, calibration, size, speed, and
killed updates.

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

from .batch import REFERENCES
from .checks import checks_failed, killed_updates, speeds
from .data import COLLECTIONS, ORDERS, load, names, tasks
from .distributed import ray_claims
from .early import early_claim
from .figures import Passes, classification_claims, refit_claims, regression_claims
from .listings import classes_listings, numbers_listings, settings_listing
from .long import LONG, long_claim
from .page import PAGE
from .peers import ADAPTIVE, OURS, RIDGE, missing, peers
from .protocol import EARLY, FORGOTTEN, HEADS, MERGED, compute, job, tune
from .refits import LIGHTGBM
from .scores import SIZE
from .states import forget_claim, merge_claim
from .streams import STREAMS
from .verdicts import constant

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import Console

    from gradatim.comparison.experiment import Values

KINDS = ("classification", "regression")
LARGE, LATE = 2_000, 1_000
"""Rows of a large table at least; and the row of its stream from which on learners are compared with refits."""

SMOKE_LARGE, SMOKE_LATE = 400, 200
"""The same of a smoke run."""

FEW = {
    "classification": (OURS, RIDGE, "sgd", "gaussian-nb", "river-tree", ADAPTIVE, LIGHTGBM, "refit-logistic"),
    "regression": (OURS, RIDGE, "sgd", ADAPTIVE, LIGHTGBM, "refit-ridge"),
}
"""Learners of a smoke run."""

SLOW = ("river-forest", "refit-forest")
"""Learners that take half an hour on a long stream of 64 columns, and are left out there."""

ABOUT = (
    "One strict pass: mini-batches of 32 rows, predicted before they are learnt; classes (and, for the peers, the "
    "codes of categories) known at the start; the uniform until a learner is fitted, a tie counts as a fair guess; "
    "RMSE and coverage from the second mini-batch on; 30% of the rows held out for *final*; {orders} orders of the "
    "rows, which decide both the stream and the held-out rows. No cap on rows. Tables of at least 300 rows, one of "
    "each pair of copies, split by family by a hash: settings (one for all tables) are chosen on {validation} "
    "validation tables, figures are of {test} test tables, intervals are 95% by bootstrap over tables. Numeric peers "
    "see numbers standardised as they run and one-hot codes; river's trees for classes and trees refitted at "
    "doublings see raw values. Refits (at 32 rows, 64, 128, ...) see rows many times: they are listed and take no part "
    "in ranks, nor does gradatim-adaptive, our estimator with memory='adaptive'. Errors are compared as (errors + 0.5) "
    "over (errors + 0.5) of a table, so that 0 errors make no ratio infinite."
)


def run(out: Path, smoke: bool, seeds: int, workers: int, console: Console) -> list[Path]:
    """Run the study. Return tables.json, tables.md and the pictures, written below `out`.

    Nothing is meta-trained, so `seeds` has no effect. `workers` processes of one thread pass over the tables. A
    smoke run uses only this process, because starting others takes longer than the work.

    Raises:
        ValueError: $GRADATIM_DATA is not set, or river or LightGBM is not installed. A smoke run needs none of them.
    """
    study = Study(out / "work" / ("tables-smoke" if smoke else "tables"), 1 if smoke else workers, console)
    orders = 1 if smoke else ORDERS
    chosen = {kind: settings(study, kind, smoke) for kind in KINDS}
    sides = {on: {kind: names(kind, on, smoke) for kind in KINDS} for on in ("test", "validation")}
    by_side = {
        on: {kind: passes(study, chosen[kind], tables[kind], orders, f"{on}, {kind}") for kind in KINDS}
        for on, tables in sides.items()
    }
    test, tested, validated = by_side["test"], sides["test"], sides["validation"]
    reference_names = ("batch-logistic-1", "batch-boosting") if smoke else REFERENCES
    references = passes(
        study, {name: {} for name in reference_names}, tested["classification"], orders, "batch references"
    )
    large = {kind: large_ones(tested[kind], SMOKE_LARGE if smoke else LARGE) for kind in KINDS}
    classes, numbers = (test[kind] for kind in KINDS)
    claims = [
        *classification_claims(classes, references),
        *regression_claims(numbers),
        *refit_claims(classes, numbers, (large[KINDS[0]], large[KINDS[1]]), SMOKE_LATE if smoke else LATE),
        first_rows(study, tested, orders, smoke),
        *states(study, tested["classification"], large["classification"], orders),
        long_streams(study, smoke),
        *_machine(study, smoke, [ours[OURS] for side in by_side.values() for ours in side.values()]),
        *ray_claims(study, smoke),
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
            *(settings_listing(kind, chosen[kind]) for kind in KINDS),
            *(
                listing
                for on, side in by_side.items()
                for listing in (
                    *classes_listings(
                        on,
                        sides[on]["classification"],
                        side["classification"],
                        references if on == "test" else {},
                    ),
                    *numbers_listings(on, sides[on]["regression"], side["regression"]),
                )
            ),
        ],
    }
    return write_result(out, "tables", json.loads(json.dumps(result)), PAGE)


def settings(study: Study, kind: str, smoke: bool) -> dict[str, dict[str, Any]]:
    """Return the learners of the study, and the setting of each, chosen on validation tables.

    Raises:
        ValueError: river or LightGBM is not installed. A smoke run skips their models.
    """
    absent, of_kind = missing(), peers(kind)
    if absent and not smoke:
        raise ValueError(
            f"make study NAME=tables needs {' and '.join(absent)}: pip install gradatim[studies]"
        )
    if absent:
        study.console.print(rf"without models of {' and '.join(absent)}: pip install gradatim\[studies]")
    taking = [name for name in of_kind if of_kind[name].package not in absent]
    if smoke:
        return {name: of_kind[name].grid[0] for name in taking if name in FEW[kind]}
    return {name: tune(study, kind, name, names(kind, "validation")) for name in taking}


def large_ones(tables: Sequence[str], rows: int) -> list[int]:
    """Return the places of the tables that have so many rows, held-out ones among them."""
    return [place for place, table in enumerate(tables) if len(load(table).x) >= rows]


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


def first_rows(study: Study, tables: dict[str, list[str]], orders: int, smoke: bool) -> dict[str, Any]:
    """Return the claim on the first 32 rows of tables of both kinds, and of collections of small tables."""
    collections = {
        "tables with classes": tables["classification"],
        "tables with numbers": tables["regression"],
        **({} if smoke else {name: tasks(name) for name in COLLECTIONS}),
    }
    records = {
        title: passes(study, {EARLY: {}}, collection, orders, f"first rows, {title}")[EARLY]
        for title, collection in collections.items()
    }
    return early_claim(records, COLLECTIONS)


def states(study: Study, tables: list[str], large: Sequence[int], orders: int) -> list[dict[str, Any]]:
    """Return the claims on states that are merged, of large tables with classes, and on rows that are forgotten."""
    joined = passes(study, {MERGED: {}}, [tables[place] for place in large], orders, "shards that are merged")
    forgotten = passes(study, {FORGOTTEN: {}}, tables, orders, "rows that are forgotten")
    return [
        merge_claim(joined[MERGED]),
        forget_claim(dict(zip(tables, forgotten[FORGOTTEN], strict=True))),
    ]


def long_streams(study: Study, smoke: bool) -> dict[str, Any]:
    """Return the claim on long streams against single heads. A smoke run has a small table in their place."""
    names: list[str] = ["bundled-breast_cancer"] if smoke else [*LONG]
    records = passes(study, {HEADS: {}}, names, 1, "single heads on long streams")[HEADS]
    return long_claim({name: values for name, (values,) in zip(names, records, strict=True)})


def streams(study: Study, chosen: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the records of long streams and of drift: the error so far of all learners but `SLOW` ones."""
    taking = {name: setting for name, setting in chosen.items() if name not in SLOW}
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
    size = constant("state_bytes", largest)
    return [checks_failed(study, smoke), size, *speeds(study, smoke), killed_updates(study, smoke)]
