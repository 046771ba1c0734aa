"""One strict pass: every mini-batch is predicted before it is learnt; records of it, kept and computed by processes.

Source: Dawid 1984 (prequential: predict, then learn); Guo et al. 2017, section 3 (the calibration error's confidences).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from gradatim.comparison.runs import Study
from gradatim.provenance import processes_on_threads

from .batch import FOLDS, REFERENCES, fitted
from .data import Table, load
from .peers import CENTRAL, OURS, OnePass, about, peers

if TYPE_CHECKING:
    from gradatim.comparison.experiment import Values

SIZE, FLOOR, PROTOCOL = 32, 1e-6, 1
TIE = 1e-12


@dataclass(frozen=True)
class Job:
    """One record: a one-pass learner under a setting, or a batch reference, on one order of the rows of a table."""

    learner: str
    table: str
    order: int
    setting: str = "{}"

    @property
    def key(self) -> str:
        """Return what the record's file is called."""
        return f"{self.learner}-{self.table}-{self.order}"


def job(learner: str, table: str, order: int, setting: dict[str, Any] | None = None) -> Job:
    """Return a job; its setting is kept as JSON, so that jobs are hashable and travel between processes."""
    return Job(learner, table, order, json.dumps(setting or {}, sort_keys=True))


def errors(said: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return how wrong class probabilities `[n, C]` are, `[n]`: 1, 0, or where k classes tie for the first place,
    1 - 1/k if y is one of them: a fair guess."""
    first = said >= said.max(1, keepdims=True) - TIE
    return 1 - first[np.arange(len(y)), y] / first.sum(1)


def log_losses(said: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return `-log p(y)`, the probability clipped at 1e-6, `[n]`."""
    return -np.log(np.clip(said[np.arange(len(y)), y], FLOOR, 1.0))


def follow(learner: OnePass, table: Table, order: int, size: int = SIZE) -> Values:
    """Return what one strict pass over one order of a table's rows measures.

    Classification: `error`, `log_loss` and `confidence` of every row of the stream, the uniform before the first rows
    are learnt, and `final_error`, `final_log_loss`, means over the held-out rows after the last. Regression: `square`,
    the squared errors from the second mini-batch on (before the first nobody knows a target's place or scale),
    `final_square`, and, if the learner says quantiles, `inside [n, 2]`: whether the 80% and 95% intervals hold y.
    """
    x, y, held_x, held_y = table.split(order)
    begun, found = time.perf_counter(), []
    for start in range(0, len(x), size):
        rows = slice(start, start + size)
        if start:
            found.append(_scores(learner.say(x[rows]), y[rows], table.classes))
        elif table.classes:
            even = np.full((len(x[rows]), table.classes), 1 / table.classes)
            found.append(_scores(even, y[rows], table.classes))
        learner.learn(x[rows], y[rows])
    seconds = time.perf_counter() - begun
    made = {name: np.concatenate([f[name] for f in found]) for name in found[0]}
    if len(held_x):
        final = _scores(learner.say(held_x), held_y, table.classes)
        made |= {f"final_{name}": np.asarray(values.mean(0)) for name, values in final.items()}
    return {**made, "seconds": np.asarray(seconds)}


def _scores(said: np.ndarray, y: np.ndarray, classes: int) -> Values:
    """Return the scores of predictions, row by row."""
    if classes:
        said = np.nan_to_num(said)
        confidence = said.max(1).astype(np.float32)
        return {"error": errors(said, y), "log_loss": log_losses(said, y), "confidence": confidence}
    mean = said if said.ndim == 1 else said[:, 0]
    with np.errstate(over="ignore"):
        made = {"square": np.nan_to_num((mean - y) ** 2, nan=np.inf, posinf=np.inf)}
    if said.ndim == 2:
        low, high = said[:, 1::2], said[:, 2::2]
        assert low.shape[1] == len(CENTRAL)
        made["inside"] = (low <= y[:, None]) & (y[:, None] <= high)
    return made


def record(study: Study, made: Job) -> Values:
    """Return the record of a job, computed once; its key says all that it depends on."""
    table, setting = load(made.table), json.loads(made.setting)
    depends = [PROTOCOL, SIZE, table.digest, made.order, setting]
    if made.learner in REFERENCES:
        depends += [FOLDS, f"scikit-learn {version('scikit-learn')}"]
        return study.cached(made.key, depends, lambda: fitted(made.learner, table, made.order))
    peer = peers(table.kind)[made.learner]

    def compute() -> Values:
        learner = peer.make(table, made.order, **setting)
        found = follow(learner, table, made.order)
        if made.learner == OURS and not made.order:
            found["bytes"] = np.asarray(saved(learner, study.folder / "states", made.table))
        return found

    return study.cached(made.key, [*depends, about(made.learner, table.kind)], compute)


def saved(learner: Any, folder: Path, name: str) -> int:
    """Return the bytes of a learner's saved state."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.safetensors"
    learner.model.save(path)
    return path.stat().st_size


def compute(study: Study, jobs: Iterable[Job], title: str) -> dict[Job, Values]:
    """Return the records of all jobs; what is missing is computed by `study.workers` processes of one thread each."""
    jobs = list(dict.fromkeys(jobs))
    quiet = not study.console.is_terminal
    with Progress(console=study.console, transient=True, disable=quiet) as bar:
        task = bar.add_task(title, total=len(jobs))
        if study.workers == 1:
            for made in jobs:
                record(study, made)
                bar.advance(task)
        else:
            pool = ProcessPoolExecutor(study.workers, get_context("spawn"))
            with processes_on_threads(1), pool:
                for done in as_completed([pool.submit(_work, study.folder, made) for made in jobs]):
                    done.result()
                    bar.advance(task)
    study.console.print(f"{title}: {len(jobs)} records")
    return {made: record(study, made) for made in jobs}


def _work(folder: Path, made: Job) -> None:
    record(Study(folder, 1, Console(quiet=True)), made)


def tune(study: Study, kind: str, name: str, tables: list[str]) -> dict[str, Any]:
    """Return the setting of a peer's grid that is best on validation tables, one for all tables.

    Classification: the highest mean prequential accuracy, then, where settings answer alike (a temperature), the lowest
    mean log-loss. Regression: the lowest mean log of the prequential RMSE, which knows no units.
    """
    grid, orders = peers(kind)[name].grid, peers(kind)[name].tuning
    if len(grid) == 1:
        return grid[0]
    jobs = [[job(name, table, o, setting) for table in tables for o in range(orders)] for setting in grid]
    found = compute(study, [made for own in jobs for made in own], f"tuning {name} ({kind})")

    def score(place: int) -> tuple[float, ...]:
        values = [found[made] for made in jobs[place]]
        if kind == "regression":
            return (float(np.mean([np.log(v["square"].mean()) / 2 for v in values])),)
        means = [np.mean([v[metric].mean() for v in values]) for metric in ("error", "log_loss")]
        return float(means[0].round(12)), float(means[1])

    return grid[min(range(len(grid)), key=score)]
