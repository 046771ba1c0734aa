"""`gradatim train-demo`: meta-train on digits, adapt to unseen tasks one mini-batch at a time, beside the baselines.

Source: Mittal et al. 2025, figure 1: one learner, many tasks, a better answer after every mini-batch.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from gradatim.comparison.plots import Curve, lines
from gradatim.comparison.runs import fresh, interval, once, sample, tune
from gradatim.files.checkpoint import write_bytes
from gradatim.methods import METHODS, build
from gradatim.metrics import curve, error_rate
from gradatim.provenance import provenance
from gradatim.recipes import Recipe, recipe
from gradatim.training.train import train

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from gradatim.batch import Task
    from gradatim.learner import Learner

STEPS = (1, 2, 5, 10, 20)
BASELINES = ("sgd", "momentum", "adam", "ridge", "lbfgs")


def run(out: Path, smoke: bool, console: Console) -> list[Path]:
    """Run the demonstration below `out`; return the checkpoint, the table as JSON and the picture."""
    base = recipe("digits")
    base = replace(
        base,
        scheme=replace(base.scheme, batch_size=25),
        family=replace(base.family, support_rows=250),
        method=recipe("mnist").method,
    )
    if smoke:
        base = replace(base, train=replace(base.train, iterations=20, tasks=4))
    ours = _meta_train(base, out / "gradatim", console)
    one_step = _meta_train(once(base, "parametric-one-step"), out / "one-step", console)
    batch = base.scheme.batch_size
    unseen = replace(base.family.on("test"), support_rows=batch * STEPS[-1], query_rows=100)
    task = sample(unseen, 8 if smoke else 64, seed=0)
    tuning = sample(replace(base.family, support_rows=10 * batch, query_rows=64), 8 if smoke else 32, seed=1)
    console.print(f"adapting to {task.n_tasks} unseen tasks of unseen images, {batch} rows a mini-batch")
    rows = {
        "gradatim": _accuracy(ours, task, batch),
        "one step, trained apart": _accuracy(one_step, task, batch),
    }
    for name in BASELINES:
        make = partial(build, name, base.family)
        setting = tune(make, METHODS[name].grid, tuning, batch, 10, error_rate)
        said = ", ".join(f"{key} {value:g}" for key, value in setting.items())
        rows[f"{name} ({said})"] = _accuracy(make(**setting), task, batch)
    about = {"recipe": base.to_json(), "tasks": task.n_tasks, **provenance()}
    return [out / "gradatim" / "learner.safetensors", *_show(rows, batch, about, out, console)]


def _meta_train(asked: Recipe, out: Path, console: Console) -> Learner:
    """Return the meta-trained learner of a recipe; a finished run in `out` is taken as it is."""
    console.print(
        f"meta-training {asked.name} on the training pool of the digits, {asked.train.iterations} iterations"
    )
    fresh(out, asked)
    header = {"recipe": asked.to_json(), **provenance()}
    return train(asked.learner(), asked.family, asked.scheme, asked.train, out, header, resume=True).learner


def _accuracy(learner: Learner, task: Task, batch: int) -> np.ndarray:
    """Return the accuracy of each task after each of STEPS, `[steps, B]`."""
    return 1 - curve(learner, task, batch, STEPS, {"error": error_rate})["error"]


def _show(
    rows: dict[str, np.ndarray], batch: int, about: dict[str, Any], out: Path, console: Console
) -> list[Path]:
    """Print the table, write it as JSON and draw the anytime curve."""
    table = Table(title="accuracy on unseen tasks (%, ± 95% over tasks)", title_justify="left")
    table.add_column("after")
    for step in STEPS:
        table.add_column(f"{step} step{'s' * (step > 1)}\n{step * batch} rows", justify="right")
    stored, curves = {}, []
    for name, values in rows.items():
        stats = [interval(row) for row in values]
        table.add_row(name, *(f"{100 * mean:.1f} ± {50 * (high - low):.1f}" for mean, low, high in stats))
        stored[name] = [
            {"steps": s, "mean": m, "low": lo, "high": hi}
            for s, (m, lo, hi) in zip(STEPS, stats, strict=True)
        ]
        mean, low, high = ([1 - s[k] for s in stats] for k in (0, 2, 1))
        curves.append(Curve(name, STEPS, mean, low, high))
    console.print(table)
    result = out / "train-demo.json"
    text = json.dumps({**about, "steps": STEPS, "rows": batch, "accuracy": stored}, indent=1) + "\n"
    write_bytes(result, text.encode())
    picture = out / "train-demo.png"
    notice = lines(picture, "unseen tasks of unseen digits", "mini-batches seen", "error", curves)
    if notice is not None:
        console.print(notice)
    return [result] if notice else [result, picture]
