"""Strict passes over streams, computed by processes and stored. Learners see one row at a time.

Every row is predicted before it is learnt. A learner that sees one row at a time knows up to 31 rows more than one
that sees mini-batches: that matters where targets resemble the last one. Models that are refitted see mini-batches
of 32, which leaves their refits as they are. Ours and river's forest are also asked 32 rows at a time, beside.

Source: Dawid 1984 (prequential: predict, then learn).
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gradatim.comparison.runs import Study
from studies.tables.protocol import SIZE, compute, prequential_pass

from .data import Stream, kind_of, load
from .peers import peer_of, peers, row_by_row, version_of

if TYPE_CHECKING:
    from gradatim.comparison.experiment import Values
    from studies.tables.peer import OnePass

PROTOCOL = 1

Passes = dict[str, dict[str, "Values"]]
"""Records of strict passes by learner, then by stream."""


@dataclass(frozen=True)
class Job:
    """One record: a learner under a setting (JSON) on the first `limit` rows of a stream, or on all where it is 0."""

    learner: str
    stream: str
    setting: str = "{}"
    limit: int = 0

    @property
    def key(self) -> str:
        """Return the name of the record's file."""
        return f"{self.learner}-{self.stream}"


def job(learner: str, stream: str, setting: dict[str, Any], limit: int = 0) -> Job:
    """Return a job. Its setting is stored as JSON, so that jobs are hashable and can be sent to processes."""
    return Job(learner, stream, json.dumps(setting, sort_keys=True), limit)


def strict_pass(learner: OnePass, stream: Stream, size: int) -> Values:
    """Return what is kept of a strict pass in mini-batches of `size`.

    - `error`: of every row of a stream with classes, 0, 1, or between them where classes tie.
    - `log_loss`: its mean.
    - `square`: squared errors after the first 32 rows, which are the same rows for all sizes.
    - `seconds`: of the processor, which other work on the machine does not lengthen.
    """
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of drift, which is what the stream is about
        metrics = prequential_pass(learner, stream, 0, size)
    values = {"seconds": np.asarray(time.process_time() - start)}
    if stream.classes:
        return values | {
            "error": metrics["error"].astype(np.float32),
            "log_loss": np.asarray(metrics["log_loss"].mean()),
        }
    return values | {"square": metrics["square"][-(len(stream.y) - SIZE) :]}


def record(study: Study, job: Job) -> Values:
    """Return the record of a job. It is computed once: its key includes all that it depends on."""
    stream, setting = load(job.stream, study.folder, job.limit), json.loads(job.setting)
    peer = peer_of(job.learner, kind_of(job.stream))
    size = 1 if row_by_row(job.learner, kind_of(job.stream)) else SIZE
    depends = [PROTOCOL, size, stream.digest, stream.seed, setting, version_of(peer)]
    return study.cached(
        job.key, depends, lambda: strict_pass(peer.make(stream, stream.seed, **setting), stream, size)
    )


def passes(
    study: Study, settings: dict[str, dict[str, Any]], streams: Sequence[str], title: str, limit: int = 0
) -> Passes:
    """Return the records of learners under their settings on streams."""
    jobs = {
        name: [job(name, stream, setting, limit) for stream in streams] for name, setting in settings.items()
    }
    records = compute(study, [entry for row in jobs.values() for entry in row], title, record)
    return {name: {entry.stream: records[entry] for entry in row} for name, row in jobs.items()}


def loss(values: Values) -> float:
    """Return the error of a record: the share of wrong rows, or the RMSE.

    Example:
        >>> loss({"error": np.array([0.0, 1.0])}), loss({"square": np.array([4.0, 4.0])})
        (0.5, 2.0)
    """
    return (
        float(values["error"].mean(dtype=float))
        if "error" in values
        else float(values["square"].mean()) ** 0.5
    )


def tune(study: Study, name: str, streams: Sequence[str], limit: int = 0) -> dict[str, Any]:
    """Return the setting of a peer's grid with the lowest geometric mean of errors on validation streams."""
    grid = peers(kind_of(streams[0]))[name].grid
    if len(grid) == 1:
        return grid[0]
    scores = []
    for place, setting in enumerate(grid, 1):
        title = f"tuning {name}, setting {place} of {len(grid)}"
        records = passes(study, {name: setting}, streams, title, limit)[name]
        scores.append(np.mean([np.log(max(loss(values), 1e-6)) for values in records.values()]))
    return grid[int(np.nanargmin(scores))]
