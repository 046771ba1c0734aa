"""Files in some order: what is lost where rows come sorted by target, by a category or by time.

Source: the bars are this project's own; the tables are those of `$GRADATIM_DATA`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from studies.tables.data import load

from .figure import Figure, Part, geometric, ratio, rounded
from .processes import command, preload, run

ROWS = 12_000
"""The first rows of a table that are taken, in its own order."""

HELDOUT = 0.3
"""The share of rows that are held out, at random."""

TABLES: dict[str, tuple[str, ...]] = {
    "bikes": ("time", "target", "season"),
    "weather": ("time", "target"),
    "electricity": ("time", "target", "day"),
    "parkinsons": ("time", "target"),
    "pendigits": ("target",),
    "spambase": ("target",),
    "cmc": ("target", "category"),
    "student_performance_por": ("target", "category"),
    "power_plant": ("target",),
    "quake": ("target",),
}
"""Real tables, and what their rows are sorted by: time (as they come), the target, or a column."""

STREAMED = ("bikes", "weather", "electricity")


@dataclass(frozen=True)
class Frame:
    """Rows as a pandas table with the target `y`, in their own order, and whether y holds classes."""

    rows: Any
    classes: bool


Fit = Callable[[Any, Any, bool, Path], np.ndarray]
"""Learns rows with a target in their order, and returns what it predicts of others."""


def frame(name: str) -> Frame:
    """Return the rows of a table in their own order. Classes and categories are words.

    Raises:
        ValueError: $GRADATIM_DATA is not set.
    """
    import pandas as pd

    folder = os.environ.get("GRADATIM_DATA")
    if folder is None and not name.startswith("bundled-"):
        raise ValueError("the tables lie below $GRADATIM_DATA: set it, or run with --smoke, which needs none")
    if name in STREAMED:
        rows = pd.read_parquet(Path(str(folder)) / "streams" / f"{name}.parquet")[:ROWS]
        return Frame(rows, rows["y"].dtype.kind not in "fi")
    if name == "parkinsons":
        with np.load(Path(str(folder)) / "multitask" / "parkinsons.npz", allow_pickle=False) as stored:
            rows = pd.DataFrame(stored["X"], columns=stored["feature_names"]).assign(y=stored["y"])
        return Frame(rows[:ROWS], False)
    table = load(name)
    columns: dict[str, Any] = {}
    for place, values in enumerate(table.x[:ROWS].T):
        words = [None if np.isnan(value) else f"level {value:g}" for value in values]
        columns[f"c{place}"] = words if place in table.categorical else values
    y = table.y[:ROWS]
    columns["y"] = [f"class {label}" for label in y] if table.classes else y
    return Frame(pd.DataFrame(columns), bool(table.classes))


def arranged(rows: Any, by: str) -> Any:
    """Return rows sorted by the target, by a column (`category`: the first of words) or, by time, as they are."""
    if by == "time":
        return rows
    if by == "category":
        by = next(name for name in rows.columns if name != "y" and rows[name].dtype.kind not in "fiub")
    return rows.sort_values("y" if by == "target" else by, kind="stable")


def losses(table: Frame, orders: tuple[str, ...], fit: Fit, folder: Path, seed: int = 0) -> dict[str, float]:
    """Return by order the error after learning the rows so, over that after learning them shuffled.

    Errors are shares of wrong classes, or root mean squares, on rows held out at random.

    Args:
        table: the rows.
        orders: as `arranged` takes them.
        fit: learns and predicts.
        folder: for files.
        seed: which rows are held out, and how they are shuffled.
    """
    rng = np.random.default_rng(seed)
    heldout = rng.random(len(table.rows)) < HELDOUT
    learnt, new = table.rows[~heldout], table.rows[heldout]
    shuffled = learnt.iloc[rng.permutation(len(learnt))]
    reference = _error(fit(shuffled, new, table.classes, folder), new["y"], table.classes)
    errors = {
        by: _error(fit(arranged(learnt, by), new, table.classes, folder), new["y"], table.classes)
        for by in orders
    }
    return {by: error / reference for by, error in errors.items()}


def _error(predicted: np.ndarray, y: Any, classes: bool) -> float:
    """Return an error that is never zero: a table of n rows tells no error below half a row."""
    if classes:
        wrong = np.asarray(predicted, str) != np.asarray(y, str)
        return float((wrong.sum() + 0.5) / len(y))
    return float(np.sqrt(np.mean((np.asarray(predicted, float) - np.asarray(y, float)) ** 2)))


def fit_file(learnt: Any, new: Any, classes: bool, folder: Path) -> np.ndarray:
    """Return what `gradatim fit` of a CSV file and `gradatim predict` predict of new rows.

    Raises:
        ValueError: a command failed.
    """
    import pandas as pd

    state, out = folder / "s.safetensors", folder / "predictions.csv"
    learnt.to_csv(folder / "learnt.csv", index=False)
    new.drop(columns="y").to_csv(folder / "new.csv", index=False)
    task = "classification" if classes else "regression"
    fit = ["fit", str(folder / "learnt.csv"), "--target", "y", "--task", task, "--state", str(state)]
    predict = ["predict", str(folder / "new.csv"), "--state", str(state), "--out", str(out), "--quiet"]
    log = folder / "log.txt"
    for arguments in ([*fit, "--force", "--quiet"], predict):
        if (code := run(command(*arguments), log, 600.0)) != 0:
            raise ValueError(f"gradatim {arguments[0]} ended with {code}: {log.read_text()[-300:]}")
    return pd.read_csv(out, dtype=str if classes else None)["prediction"].to_numpy()


def _measure(folder: Path, table: str, orders: tuple[str, ...]) -> Part:
    preload()
    return {"table": table, "ratios": losses(frame(table), tuple(orders), fit_file, folder)}


def _claims(results: list[Part]) -> list[Part]:
    means = [geometric(list(result["ratios"].values())) for result in results]
    tables = {
        result["table"]: {by: rounded(value) for by, value in result["ratios"].items()} for result in results
    }
    return [ratio("order", means, tables=tables)]


def _parts(smoke: bool) -> list[Part]:
    tables = {"bundled-wine": ("target",), "bundled-diabetes": ("target",)} if smoke else TABLES
    return [{"table": name, "orders": orders} for name, orders in tables.items()]


FIGURES = {"order": Figure(_parts, _measure, _claims, ("order",))}
