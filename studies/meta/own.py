"""One's own tasks: loss of a new task after its first rows, ours and what people use; coverage, few tasks, many groups.

Source: Argyriou, Evgeniou, Pontil 2008 (the protocol of training and test tasks).
"""

from __future__ import annotations

import sys
import time
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gradatim import GroupedRegressor

from .peers import GPBOOST, GRIDS, OURS, PEERS, REFIT, Answer
from .sources import fingerprint
from .tasks import Tasks, divide, read

if TYPE_CHECKING:
    from gradatim.comparison.experiment import Values
    from gradatim.comparison.runs import Study

LENGTHS = (8, 16, 32)
KNOWN: tuple[int | float, ...] = (*LENGTHS, 0.8)
"""Rows of a task that are known, or their share."""

COVERED = (1, 2, 4, 8, 16, 32)
"""Rows of a task that are known where intervals are counted."""

FEW, DRAWS = 5, 4
"""Tasks that teach where there are few, and draws of them."""


class Job(NamedTuple):
    """A job: a measure, the table, the division of its tasks, and what else it takes."""

    measure: str
    table: str
    division: int
    peer: str = OURS
    leaves: int | None = None
    test: bool = True
    smoke: bool = False


def missing() -> list[str]:
    """Return the packages of peers that are not installed."""
    return [] if find_spec("gpboost") else ["gpboost"]


def task_losses(tasks: Tasks, answer: Answer, judges: np.ndarray, known: int | float) -> np.ndarray:
    """Return the loss on the rows behind the first `known` (a count or a share) of each task, `[n]`.

    It is NaN for a task of fewer than four rows behind them. Numbers: squared error over the variance of all rows.
    Classes: log-loss.
    """
    found = np.full(len(judges), np.nan)
    for place, task in enumerate(judges):
        rows = tasks.rows(int(task))
        n = known if isinstance(known, int) else int(known * len(rows))
        if len(rows) < n + 4:
            continue
        first, later = rows[:n], rows[n:]
        said, y = answer(tasks.x[first], tasks.y[first], tasks.x[later]), tasks.y[later]
        if tasks.classes:
            said = np.clip(said, 1e-4, 1 - 1e-4)
            found[place] = -(y * np.log(said) + (1 - y) * np.log(1 - said)).mean()
        else:
            found[place] = ((said - y) ** 2).mean() / tasks.y.var()
    return found


def judged(job: Job) -> Values:
    """Return the losses `[n, 4]` of a peer on validation or test tasks, and the seconds in which it was taught."""
    tasks = read(job.table)
    division = divide(tasks, job.division)
    teachers = np.concatenate(division[:2]) if job.test else division.training
    judges = (division.test if job.test else division.validation)[: 3 if job.smoke else None]
    begin = time.process_time()
    answer = PEERS[job.peer](tasks, teachers, **({} if job.leaves is None else {"leaves": job.leaves}))
    seconds = time.process_time() - begin
    losses = [
        np.full(len(judges), np.nan)  # a refit at 80% of the rows of each task would cost most of the study
        if job.peer == REFIT and isinstance(known, float)
        else task_losses(tasks, answer, judges, known)
        for known in KNOWN
    ]
    return {"losses": np.stack(losses, 1), "cpu_seconds": np.asarray(seconds)}


def covered(job: Job) -> Values:
    """Return which share of the rows that come later 80% intervals hold, by task and count of known rows `[n, 6]`."""
    tasks = read(job.table)
    division = divide(tasks, job.division)
    rows = tasks.of(np.concatenate(division[:2]))
    model = GroupedRegressor().fit(tasks.x[rows], tasks.y[rows], tasks.task[rows])
    judges = division.test[: 3 if job.smoke else None]
    found = np.full((len(judges), len(COVERED)), np.nan)
    for place, task in enumerate(judges):
        rows = tasks.rows(int(task))
        for column, known in enumerate(COVERED):
            if len(rows) < known + 4:
                continue
            first, later = rows[:known], rows[known:]
            one = model.fork().partial_fit(tasks.x[first], tasks.y[first], np.zeros(known, int))
            low, high = one.predict(tasks.x[later], np.zeros(len(later), int), quantiles=[0.1, 0.9]).T
            found[place, column] = ((tasks.y[later] >= low) & (tasks.y[later] <= high)).mean()
    return {"covered": found}


def few_tasks(job: Job) -> Values:
    """Return losses `[draws, n, 3]` of a peer that only a few tasks have taught."""
    tasks = read(job.table)
    division = divide(tasks, job.division)
    teachers, judges = np.concatenate(division[:2]), division.test[: 3 if job.smoke else 20]
    found = []
    for draw in range(1 if job.smoke else DRAWS):
        some = np.random.default_rng(draw).permutation(teachers)[:FEW]
        answer = PEERS[job.peer](tasks, some, **({} if job.leaves is None else {"leaves": job.leaves}))
        found.append(np.stack([task_losses(tasks, answer, judges, known) for known in LENGTHS], 1))
    return {"losses": np.stack(found)}


def many_groups(job: Job) -> Values:
    """Return rows a second of the processor in many groups and in one group, and bytes a group."""
    count, rows, columns = (2_000 if job.smoke else 100_000), 20, 8
    rng = np.random.default_rng(job.division)
    x = rng.normal(size=(count * rows, columns))
    group = rng.permutation(np.repeat(np.arange(count), rows))
    y = x[:, 0] + rng.normal(size=count)[group] + rng.normal(size=len(x))
    model = GroupedRegressor().fit(x[:20_000], y[:20_000], rng.integers(0, 200, len(x[:20_000])))
    speed, size = [], 0.0
    for names in (group, np.zeros_like(group)):
        one, begin = model.fork(), time.process_time()
        for at in range(0, len(x), 100_000):
            one.partial_fit(x[at : at + 100_000], y[at : at + 100_000], names[at : at + 100_000])
        speed.append(len(x) / (time.process_time() - begin))
        if names is group:
            state: Any = one.state_
            size = state.compact()[1].bytes_per_group + 8 + sys.getsizeof(state.index) / len(state) + 2 * 32
    return {"rows_a_second": np.array(speed), "bytes_a_group": np.asarray(size)}


MEASURES = {"judged": judged, "covered": covered, "few": few_tasks, "groups": many_groups}


def record(study: Study, job: Job) -> Values:
    """Return the arrays of a job, computed once."""
    depends = [fingerprint(__name__), list(job), version("gpboost") if job.peer == GPBOOST else ""]
    key = f"{job.measure}-{job.table}-{job.division}"
    return study.cached(key, depends, lambda: MEASURES[job.measure](job))


def settings_of(peer: str, smoke: bool) -> list[int | None]:
    """Return the settings of a peer, as leaves of its trees; None where it has no such setting."""
    grid: list[int | None] = [setting["leaves"] for setting in GRIDS.get(peer, ())]
    return (grid or [None])[: 1 if smoke else None]


def peers() -> list[str]:
    """Return the methods that can run here."""
    return [name for name in PEERS if name != GPBOOST or not missing()]
