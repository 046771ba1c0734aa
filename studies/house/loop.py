"""What the loop costs: memory over many mini-batches, and time for tasks of unequal length.

`python -m studies.house.loop METHOD STEPS` prints the growth of resident memory in MB, for a process of its own.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from gradatim import Batch, LinearRegression, build
from gradatim.provenance import on_threads, process_environment

from .wording import ROOT

METHODS = ("ridge", "bayesian", "parametric-both")
"""Learners in closed form, and one with a learnt update."""

SIZE = 16
"""Rows of a mini-batch."""

FIRST = 100
"""Steps before memory is measured: what is loaded once and reused is there by then."""


def graph_mb(steps: int = 2_000) -> dict[str, float]:
    """Return by method the growth of resident memory in MB over so many mini-batches, each in a process of its own.

    Raises:
        ValueError: the process failed.
    """
    return {method: _apart(method, steps) for method in METHODS}


def _apart(method: str, steps: int) -> float:
    environment = process_environment(1)
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(ROOT), str(ROOT / "src"), environment.get("PYTHONPATH", "")]
    )
    process = subprocess.run(
        [sys.executable, "-m", "studies.house.loop", method, str(steps)],
        capture_output=True,
        text=True,
        env=environment,
    )
    if process.returncode:
        raise ValueError(f"the loop of {method} failed: {process.stderr.strip()[-500:]}")
    return float(process.stdout)


def growth(method: str, steps: int) -> float:
    """Return the growth of this process's resident memory in MB over the loop that the README shows.

    Sixteen tasks of 20 columns; a prediction after every mini-batch. The learner is not put into eval mode.
    """
    torch.set_num_threads(1)
    family = LinearRegression(20, noise_std=1.0, support_rows=64)
    generator = torch.Generator().manual_seed(0)
    learner = build(method, family)
    x = family.sample(16, generator).query.x
    before = 0.0
    for step, state in enumerate(learner.states(_stream(family, FIRST + steps, generator))):
        learner.predict(x, state)
        if step == FIRST:
            before = resident_mb()
    return resident_mb() - before


def _stream(family: LinearRegression, steps: int, generator: torch.Generator) -> Iterator[Batch]:
    """Yield mini-batches of 16 tasks; every few of them are of fresh rows."""
    batches: list[Batch] = []
    for _ in range(steps):
        batches = batches or list(family.sample(16, generator).support.split(8))
        yield batches.pop()


def resident_mb() -> float:
    """Return the resident memory of this process in MB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def ragged(n_tasks: int = 200, longest: int = 4_096, repeats: int = 5) -> dict[str, float]:
    """Return by method the time of short tasks and a long one in one call over that of two calls.

    All tasks but one have 40 rows, the last has `longest`. The two are timed in turn, on one thread; the ratio is the
    median over `repeats`.
    """
    family = LinearRegression(8, noise_std=0.5, support_rows=longest)
    generator = torch.Generator().manual_seed(0)
    tasks = [_rows(family, 40, generator) for _ in range(n_tasks - 1)]
    tasks.append(_rows(family, longest, generator))
    mixed = [Batch.from_rows(tasks)]
    buckets = [Batch.from_rows(tasks[:-1]), Batch.from_rows(tasks[-1:])]
    ratios = {}
    with on_threads(1):
        for method in METHODS:
            learner = build(method, family)
            pairs = [[_seconds(learner, batches) for batches in (mixed, buckets)] for _ in range(repeats + 1)]
            # the first pair warms up
            ratios[method] = statistics.median(single / double for single, double in pairs[1:])
    return ratios


def _rows(family: LinearRegression, n_rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return the first rows of one task: x `[n_rows, 8]` and y `[n_rows, 1]`."""
    support = family.sample(1, generator).support
    return support.x[0, :n_rows], support.y[0, :n_rows]


def _seconds(learner, batches: list[Batch]) -> float:
    start = time.perf_counter()
    for batch in batches:
        learner.adapt(batch, SIZE)
    return time.perf_counter() - start


if __name__ == "__main__":
    print(growth(sys.argv[1], int(sys.argv[2])))
