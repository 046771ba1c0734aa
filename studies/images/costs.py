"""What adapting costs: seconds a task, and the rise of memory in a separate process.

Source: Mittal et al. 2025, the cost of K steps of B rows; the measurement is this project's own.
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


def costs(study: Study, experiment: Experiment, *only: str) -> dict[str, dict[str, Any]]:
    """Return `adapt_seconds` and `adapt_memory` of each learner of an experiment.

    `adapt_seconds` is for one task over 10 mini-batches, prediction of the query rows included. `adapt_memory` is
    the peak, in bytes, above what the process used before. Each learner has its own process of one thread and 8
    tasks.

    `only`: the learners to measure. None given means all.
    """
    measured: dict[str, dict[str, Any]] = {}
    task = sample_tasks(experiment.family, TASKS, seed=1)
    task = Task(task.support.slice(0, STEPS * experiment.batch_size), task.query)

    def add(name: str, learner: Callable[[], Learner], about: Any) -> None:
        if only and name not in only:
            return
        size = STEPS * experiment.batch_size if name in experiment.full_batch else experiment.batch_size
        values = study.cached(
            f"{experiment.name}-{name}-cost",
            [about, repr(experiment.family), size, TASKS],
            lambda: _in_new_process(learner(), task, size),
        )
        seconds, memory = round(float(values["seconds"]), 4), int(values["memory"])
        measured[name] = {"adapt_seconds": seconds, "adapt_memory": memory}

    for name, (run, *_) in trained_runs(study, replace(experiment, votes={}), 1).items():
        add(name, lambda run=run: run.learner, run.recipe.to_json())
    for name in experiment.baselines:
        setting = tuned_setting(study, experiment, name)
        add(name, partial(build, replace(experiment.baselines[name], **setting), experiment.family), setting)
    return measured


def _in_new_process(learner: Learner, task: Task, batch_size: int) -> dict[str, np.ndarray]:
    """Return the seconds and memory of `_adaptation_cost`, measured in a new process."""
    with processes_on_threads(1), ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        seconds, memory = pool.submit(_adaptation_cost, learner, task, batch_size).result()
    return {"seconds": np.asarray(seconds), "memory": np.asarray(memory)}


def _adaptation_cost(learner: Learner, task: Task, batch_size: int) -> tuple[float, int]:
    """Return seconds a task, and the rise of memory in bytes, of adapting to the support and predicting the query."""
    torch.set_num_threads(1)
    with torch.no_grad():
        learner.adapt(task.support.slice(0, 2), batch_size, task.query)  # the first call loads code
        reset_peak_memory()
        before = peak_memory()
        start = time.perf_counter()
        state = learner.adapt(task.support, batch_size, task.query)
        learner.predict(task.query.x, state)
    seconds = (time.perf_counter() - start) / task.n_tasks
    return seconds, peak_memory() - before
