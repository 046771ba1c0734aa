"""Rows that are learnt on Ray while a worker is killed: none is lost or counted twice, and answers do not change.

Source: Moritz et al. 2018 (Ray; a task whose worker dies is started again).
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gradatim.distributed import fit

if TYPE_CHECKING:
    from typing import Self

RUNS = 5
FILES, ROWS = 4, 6000
TASK = "ray::learn_shard"
"""What a process of Ray calls itself while it learns a shard."""

SECONDS = 0.2
"""How long a worker has learnt when it is killed, at least."""


class Killer:
    """While it is open, kill processes that learn a shard for this one, at most so many.

    Attributes: `killed`: how many.
    """

    def __init__(self, limit: int = 1) -> None:
        self._limit, self.killed = limit, 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while self.killed < self._limit and not self._end.wait(0.02):
            for process in learners(os.getpid()):
                if not self._end.wait(SECONDS) and process in learners(os.getpid()):
                    os.kill(process, signal.SIGKILL)
                    self.killed += 1
                    break


def learners(ancestor: int) -> list[int]:
    """Return the processes below one that learn a shard."""
    names, parents = dict[int, bytes](), dict[int, int]()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            names[int(folder.name)] = (folder / "cmdline").read_bytes()
            # the name of a process, in brackets, may hold blanks
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended
            continue

    def is_below(process: int) -> bool:
        return process == ancestor or (process in parents and is_below(parents[process]))

    return sorted(p for p, name in names.items() if name.startswith(TASK.encode()) and is_below(p))


def write_files(folder: Path, seed: int) -> Any:
    """Write files of rows, and return others `[n, columns]`."""
    import pandas as pd

    rng = np.random.default_rng(seed)
    tables = []
    for number in range(FILES + 1):
        x = rng.normal(size=(ROWS, 6))
        word = rng.choice(["a", "b", "c"], ROWS)
        y = np.where(x[:, 0] * x[:, 1] + (word == "a") + 0.3 * rng.normal(size=ROWS) > 0.5, "yes", "no")
        table = pd.DataFrame(x, columns=[*"uvwxyz"]).assign(word=word, target=y)
        tables.append(table)
        if number < FILES:
            table.to_csv(folder / f"{number}.csv", index=False)
    return tables[-1].drop(columns="target")


def measure(folder: Path, runs: int = RUNS) -> dict[str, float]:
    """Return the figures of runs with two workers, one of which is killed in each.

    `tables.ray`: rows that were lost or counted twice, in all runs; `tables.ray_difference`: the largest difference of
    a probability from one process; `tables.ray_killed`: how many workers were killed.

    Args:
        folder: a folder for files.
        runs: how many.
    """
    wrong, killed, difference = 0.0, 0, 0.0
    for run in range(runs):
        files = folder / f"run-{run}"
        files.mkdir(parents=True)
        queries = write_files(files, run)
        alone = fit(files, "target", workers=0, progress=False)
        with Killer() as killer:
            parallel = fit(files, "target", workers=2, progress=False)
        killed += killer.killed
        wrong += abs(parallel.task_.rows - FILES * ROWS)
        difference = max(
            difference, float(np.abs(parallel.predict_proba(queries) - alone.predict_proba(queries)).max())
        )
    return {"tables.ray": wrong, "tables.ray_difference": difference, "tables.ray_killed": float(killed)}
