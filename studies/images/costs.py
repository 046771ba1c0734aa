"""What adapting costs: seconds a task, and by how much memory rises in a process that does nothing else.

Source: DESIGN.md, Results: seconds and memory beside every figure.
"""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gradatim.batch import Task
from gradatim.comparison.panel import trained_runs, tuned_setting
from gradatim.comparison.runs import sample_tasks
from gradatim.methods import build
from gradatim.provenance import peak_memory, processes_on_threads, reset_peak_memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from gradatim.comparison.experiment import Experiment
    from gradatim.comparison.runs import Study
    from gradatim.learner import Learner

TASKS, STEPS = 8, 10


def costs(study: Study, part: Experiment, *only: str) -> dict[str, dict[str, Any]]:
    """Return for each learner of a part `adapt_seconds`, a task over 10 mini-batches, and `adapt_memory`, bytes.

    `only` these learners, all where none is named. One thread, 8 tasks side by side, prediction for the query rows
    included; a process of its own for each learner. Memory is the peak above what the process held before.
    """
    found: dict[str, dict[str, Any]] = {}
    task = sample_tasks(part.family, TASKS, seed=1)
    task = Task(task.support.slice(0, STEPS * part.batch_size), task.query)

    def add(name: str, learner: Callable[[], Learner], about: Any) -> None:
        if only and name not in only:
            return
        size = STEPS * part.batch_size if name in part.full_batch else part.batch_size
        values = study.cached(
            f"{part.name}-{name}-cost",
            [about, repr(part.family), size, TASKS],
            lambda: _apart(learner(), task, size),
        )
        seconds, memory = round(float(values["seconds"]), 4), int(values["memory"])
        found[name] = {"adapt_seconds": seconds, "adapt_memory": memory}

    for name, (run, *_) in trained_runs(study, replace(part, votes={}), 1).items():
        add(name, lambda run=run: run.learner, run.recipe.to_json())
    for name in part.baselines:
        setting = tuned_setting(study, part, name)
        add(name, partial(build, replace(part.baselines[name], **setting), part.family), setting)
    return found


def _apart(learner: Learner, task: Task, batch_size: int) -> dict[str, np.ndarray]:
    """Return `_spent` as measured in a fresh process."""
    with processes_on_threads(1), ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        seconds, memory = pool.submit(_spent, learner, task, batch_size).result()
    return {"seconds": np.asarray(seconds), "memory": np.asarray(memory)}


def _spent(learner: Learner, task: Task, batch_size: int) -> tuple[float, int]:
    """Return seconds a task and the rise of memory, bytes, of adapting to the support and answering the query."""
    torch.set_num_threads(1)
    with torch.no_grad():
        learner.adapt(task.support.slice(0, 2), batch_size, task.query)  # the first call loads code
        reset_peak_memory()
        held = peak_memory()
        begun = time.perf_counter()
        state = learner.adapt(task.support, batch_size, task.query)
        learner.predict(task.query.x, state)
    seconds = (time.perf_counter() - begun) / task.n_tasks
    return seconds, peak_memory() - held
