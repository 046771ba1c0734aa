"""`gradatim demo`: a real table, one pass, mini-batches of 32; what each learner answers as rows come in.

Source: Alpaydin, Kaynak 1998 (the digits, from scikit-learn); the protocol is that of `tables_protocol`.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.progress import Progress
from rich.table import Table as Shown

from gradatim.comparison.plots import Curve, lines
from gradatim.files.checkpoint import write_bytes
from gradatim.provenance import provenance

from .batch import final_error
from .data import Table
from .peers import CLASSIFIERS, OURS, RIDGE, OnePass
from .protocol import SIZE, errors

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

LEARNERS = (OURS, RIDGE, "sgd", "mlp-64", "gaussian-nb")
BATCH = {
    "logistic regression": "batch-logistic-1",
    "MLP": "batch-mlp-0.0001",
    "random forest": "batch-forest",
}
SETTINGS: dict[str, dict[str, Any]] = {
    RIDGE: {"temperature": 4.0},
    "mlp-64": {"learning_rate_init": 0.01, "repeats": 4},
    "sgd": {"learning_rate": "constant", "eta0": 0.1, "repeats": 4},
    "gaussian-nb": {"var_smoothing": 0.1},
}
"""As `make study NAME=tables` chose them, on other tables."""

ASKED = (32, 64, 128, 256, 512)


def run(out: Path, smoke: bool, console: Console) -> list[Path]:
    """Run the demonstration below `out`; return the numbers as JSON and the picture."""
    table = _digits(300 if smoke else None)
    rows = int((1 - table.held) * len(table.x))
    asked = [n for n in ASKED if n < rows] + [rows]
    console.print(
        f"{len(table.x)} images of digits as a table of {table.x.shape[1]} columns: {rows} rows to learn, once, {SIZE} "
        f"at a time; {len(table.x) - rows} held out"
    )
    found: dict[str, dict[str, Any]] = {}
    whole: dict[str, float] = {}
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("learning", total=len(LEARNERS) + len(BATCH))
        for name in LEARNERS:
            learner = CLASSIFIERS[name].make(table, 0, **SETTINGS.get(name, {}))
            found[name] = _follow(learner, table, asked)
            bar.advance(task)
        for name, reference in BATCH.items():
            whole[name] = final_error(reference, table, 0)
            bar.advance(task)
    return _show(found, whole, asked, out, console)


def _digits(rows: int | None) -> Table:
    from sklearn.datasets import load_digits

    x, y = map(np.asarray, load_digits(return_X_y=True))
    return Table("digits", x[:rows].astype(np.float64), y[:rows].astype(np.int64), classes=10)


def _follow(learner: OnePass, table: Table, asked: list[int]) -> dict[str, Any]:
    """Return the error on held-out rows after each of `asked`, on mini-batches before they were learnt, and seconds."""
    x, y, held_x, held_y = table.split(0)
    held, before, spent = [], [], 0.0
    for start in range(0, len(x), SIZE):
        part = slice(start, start + SIZE)
        begun = time.perf_counter()
        said = learner.say(x[part]) if start else np.full((len(x[part]), table.classes), 1 / table.classes)
        learner.learn(x[part], y[part])
        spent += time.perf_counter() - begun
        before.append(errors(said, y[part]))
        if min(start + SIZE, len(x)) in asked:
            held.append(float(errors(learner.say(held_x), held_y).mean()))
    return {"held": held, "prequential": float(np.concatenate(before).mean()), "seconds": spent}


def _show(
    found: dict[str, dict[str, Any]], whole: dict[str, float], asked: list[int], out: Path, console: Console
) -> list[Path]:
    """Print the table, write it as JSON and draw the anytime curve."""
    shown = Shown(title="accuracy on held-out rows (%), after so many rows", title_justify="left")
    shown.add_column("one pass")
    for n in asked:
        shown.add_column(str(n), justify="right")
    shown.add_column("before each\nmini-batch", justify="right")
    shown.add_column("seconds", justify="right")
    for name, run in found.items():
        accuracies = [f"{100 * (1 - error):.1f}" for error in (*run["held"], run["prequential"])]
        shown.add_row(name, *accuracies, f"{run['seconds']:.1f}")
    for name, error in whole.items():
        shown.add_row(f"batch {name}", *[""] * (len(asked) - 1), f"{100 * (1 - error):.1f}", "", "")
    console.print(shown)
    result, picture = out / "demo.json", out / "demo.png"
    stored = {"rows": asked, "one pass": found, "batch": whole}
    write_bytes(result, (json.dumps({**provenance(), **stored}, indent=1) + "\n").encode())
    notice = draw(stored, picture)
    if notice is not None:
        console.print(notice)
    return [result] if notice else [result, picture]


def draw(result: dict[str, Any], picture: Path) -> str | None:
    """Draw the error on held-out rows as rows come in, from the numbers of demo.json; return None, or why not."""
    rows = result["rows"]
    curves = [Curve(name, rows, *[run["held"]] * 3) for name, run in result["one pass"].items()]
    curves += [
        Curve(name, rows[-1:], *[[error]] * 3, label=f"{name}, all rows at once")
        for name, error in result["batch"].items()
    ]
    title = "Digits as a table: one pass, 32 rows at a time"
    return lines(picture, title, "rows learnt, each once", "error on held-out rows", curves)
