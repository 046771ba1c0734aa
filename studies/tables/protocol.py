"""One strict pass: every mini-batch is predicted before it is learnt. Records are computed by processes and stored.

Source: Dawid 1984 (prequential: predict, then learn); Guo et al. 2017, section 3 (the calibration error's
confidences).
"""

from __future__ import annotations

import hashlib
import inspect
import json
import time
from collections.abc import Callable, Iterable
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

from .batch import FOLDS, REFERENCES, evaluate_reference
from .data import Table, load
from .early import early_losses
from .long import over_heads
from .peer import OnePass
from .peers import CENTRAL, OURS, fingerprint, peers, version_of
from .scores import SIZE, errors, log_losses, macro_recall
from .states import forgotten, merged

if TYPE_CHECKING:
    from gradatim.comparison.experiment import Values

PROTOCOL = 2
EARLY, MERGED, FORGOTTEN, HEADS = "first-rows", "merged", "forgotten", "single-heads"
MEASURES: dict[str, Callable[[Table, int], Values]] = {
    EARLY: early_losses,
    MERGED: merged,
    FORGOTTEN: forgotten,
    HEADS: over_heads,
}
"""What is measured of ours alone, by the name that its records have in place of a learner's."""


@dataclass(frozen=True)
class Job:
    """One record: a learner under a setting, a batch reference or a measure, on one order of the rows of a table."""

    learner: str
    table: str
    order: int
    setting: str = "{}"

    @property
    def key(self) -> str:
        """Return the name of the record's file."""
        return f"{self.learner}-{self.table}-{self.order}"


def job(learner: str, table: str, order: int, setting: dict[str, Any] | None = None) -> Job:
    """Return a job. Its setting is stored as JSON, so that jobs are hashable and can be sent to processes."""
    return Job(learner, table, order, json.dumps(setting or {}, sort_keys=True))


def prequential_pass(learner: OnePass, table: Table, order: int, size: int = SIZE) -> Values:
    """Return the metrics of one strict pass over one order of a table's rows.

    Classification:

    - `error`, `log_loss`, `confidence`: of every row of the stream. Before the first rows are learnt the prediction is
      uniform.
    - `final_error`, `final_log_loss`, `final_recall`: means over the held-out rows after the pass, and macro recall.
    - `heldout`: their number.

    Regression:

    - `square`: squared errors from the second mini-batch on. Before the first the scale of the target is unknown.
    - `final_square`: the mean over the held-out rows.
    - `predicted [n]`, `inside [n, 2]`: the mean, and whether the 80% and 95% intervals contain y, if the learner
      predicts quantiles.
    """
    x, y, heldout_x, heldout_y = table.split(order)
    start_time, scores = time.perf_counter(), []
    for start in range(0, len(x), size):
        rows = slice(start, start + size)
        if start:
            scores.append(_scores(learner.predict(x[rows]), y[rows], table.classes))
        elif table.classes:
            even = np.full((len(x[rows]), table.classes), 1 / table.classes)
            scores.append(_scores(even, y[rows], table.classes))
        learner.learn(x[rows], y[rows])
    seconds = time.perf_counter() - start_time
    metrics = {name: np.concatenate([f[name] for f in scores]) for name in scores[0]}
    if len(heldout_x):
        final = _scores(learner.predict(heldout_x), heldout_y, table.classes)
        final.pop("predicted", None)
        metrics |= {f"final_{name}": np.asarray(values.mean(0)) for name, values in final.items()}
        metrics["heldout"] = np.asarray(len(heldout_y))
        if table.classes:
            metrics["final_recall"] = np.asarray(macro_recall(final["error"], heldout_y))
    return {**metrics, "seconds": np.asarray(seconds)}


def _scores(predictions: np.ndarray, y: np.ndarray, classes: int) -> Values:
    """Return the scores of predictions `[n, ...]`, row by row."""
    if classes:
        predictions = np.nan_to_num(predictions)
        confidence = predictions.max(1).astype(np.float32)
        return {
            "error": errors(predictions, y),
            "log_loss": log_losses(predictions, y),
            "confidence": confidence,
        }
    mean = predictions if predictions.ndim == 1 else predictions[:, 0]
    with np.errstate(over="ignore"):
        scores = {"square": np.nan_to_num((mean - y) ** 2, nan=np.inf, posinf=np.inf)}
    if predictions.ndim == 2:
        low, high = predictions[:, 1::2], predictions[:, 2::2]
        assert low.shape[1] == len(CENTRAL)
        scores |= {"inside": (low <= y[:, None]) & (y[:, None] <= high), "predicted": mean}
    return scores


def record(study: Study, job: Job) -> Values:
    """Return the record of a job. It is computed once: its key includes all that it depends on."""
    table, setting = load(job.table), json.loads(job.setting)
    depends = [PROTOCOL, SIZE, table.digest, job.order, setting]
    if job.learner in REFERENCES:
        depends += [FOLDS, f"scikit-learn {version('scikit-learn')}"]
        return study.cached(job.key, depends, lambda: evaluate_reference(job.learner, table, job.order))
    if job.learner in MEASURES:
        measure = MEASURES[job.learner]
        depends += [fingerprint(), text_of(measure)]
        return study.cached(job.key, depends, lambda: measure(table, job.order))
    peer = peers(table.kind)[job.learner]

    def compute() -> Values:
        learner = peer.make(table, job.order, **setting)
        metrics = prequential_pass(learner, table, job.order)
        if job.learner == OURS and not job.order:
            metrics["bytes"] = np.asarray(saved_bytes(learner, study.folder / "states", job.table))
        return metrics

    return study.cached(job.key, [*depends, version_of(job.learner, table.kind)], compute)


def text_of(measure: Callable[..., Any]) -> str:
    """Return a hash of the source file of a measure."""
    file = Path(str(inspect.getsourcefile(measure)))
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]


def saved_bytes(learner: Any, folder: Path, name: str) -> int:
    """Return the bytes of a learner's saved state."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.safetensors"
    learner.model.save(path)
    return path.stat().st_size


def compute(
    study: Study, jobs: Iterable[Any], title: str, of: Callable[[Study, Any], Values] = record
) -> dict[Any, Values]:
    """Return the records `of` all jobs. Missing ones are computed by `study.workers` processes of one thread each."""
    jobs = list(dict.fromkeys(jobs))
    quiet = not study.console.is_terminal
    with Progress(console=study.console, transient=True, disable=quiet) as bar:
        task = bar.add_task(title, total=len(jobs))
        if study.workers == 1:
            for job in jobs:
                of(study, job)
                bar.advance(task)
        else:
            pool = ProcessPoolExecutor(study.workers, get_context("spawn"))
            with processes_on_threads(1), pool:
                for future in as_completed([pool.submit(_work, study.folder, job, of) for job in jobs]):
                    future.result()
                    bar.advance(task)
    study.console.print(f"{title}: {len(jobs)} records")
    return {job: of(study, job) for job in jobs}


def _work(folder: Path, job: Any, of: Callable[[Study, Any], Values]) -> None:
    of(Study(folder, 1, Console(quiet=True)), job)


def tune(study: Study, kind: str, name: str, tables: list[str]) -> dict[str, Any]:
    """Return the setting of a peer's grid that is best on the validation tables. It is the same for all tables.

    - Classification: the highest mean prequential accuracy. Settings that tie are compared by mean log-loss.
    - Regression: the lowest mean log of the prequential RMSE, which does not depend on units.
    """
    grid, orders = peers(kind)[name].grid, peers(kind)[name].tuning
    if len(grid) == 1:
        return grid[0]
    jobs = [[job(name, table, o, setting) for table in tables for o in range(orders)] for setting in grid]
    records = compute(study, [entry for row in jobs for entry in row], f"tuning {name} ({kind})")

    def score(place: int) -> tuple[float, ...]:
        values = [records[entry] for entry in jobs[place]]
        if kind == "regression":
            return (float(np.mean([np.log(v["square"].mean()) / 2 for v in values])),)
        means = [np.mean([v[metric].mean() for v in values]) for metric in ("error", "log_loss")]
        return float(means[0].round(12)), float(means[1])

    return grid[min(range(len(grid)), key=score)]
