"""Related tables: schools, fields of mines, patients; their tasks divided at random, their rows in an order.

Source: Argyriou, Evgeniou, Pontil 2008 (school); Xue et al. 2007 (landmine); Tsanas et al. 2010 (parkinsons).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import numpy as np

TABLES = ("school", "landmine", "parkinsons")
TRAINING, JUDGES = 0.6, 2 / 3
"""The share of tasks on which settings were chosen, and of the remaining ones that judge in a division."""


class Tasks(NamedTuple):
    """A table whose rows belong to tasks: `x [n, d]`, `y [n]`, `task [n]`; whether y are classes, 0 and 1."""

    name: str
    x: np.ndarray
    y: np.ndarray
    task: np.ndarray
    classes: bool

    def rows(self, task: int) -> np.ndarray:
        """Return the rows of a task in the order in which they come: of patients by time, of others by a hash."""
        rows = np.flatnonzero(self.task == task)
        if self.name == "parkinsons":
            return rows
        return rows[np.argsort([crc32(f"{self.name}:{task}:{at}".encode()) for at in range(len(rows))])]

    def of(self, tasks: np.ndarray) -> np.ndarray:
        """Return the rows of some tasks, below each other, each in its order."""
        return np.concatenate([self.rows(int(task)) for task in tasks])


def read(name: str) -> Tasks:
    """Return one of `TABLES` from the folder that GRADATIM_DATA names."""
    with np.load(Path(os.environ["GRADATIM_DATA"]) / "multitask" / f"{name}.npz") as file:
        x, y, task = file["X"].astype(float), file["y"].astype(float), file["task"].astype(int)
    return Tasks(name, x, y, task, name == "landmine")


class Division(NamedTuple):
    """Tasks that teach, tasks that choose settings, and tasks that judge, each `[n]`."""

    training: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def divide_by_hash(tasks: Tasks, validation: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the tasks that teach and those that judge; for validation both are among those that a hash puts first."""
    names = _hashed(tasks)
    count = round(TRAINING * len(names))
    training, test = names[:count], names[count:]
    inner = round(TRAINING * count)
    return (training[:inner], training[inner:]) if validation else (training, test)


def divide(tasks: Tasks, seed: int) -> Division:
    """Return a random division of the tasks.

    Settings of the library were chosen on tasks that a hash put first. No such task ever judges: test tasks are drawn
    from the others, two of three.
    """
    names = _hashed(tasks)
    rng = np.random.default_rng([seed, crc32(tasks.name.encode())])
    unseen = rng.permutation(names[round(TRAINING * len(names)) :])
    test = unseen[: round(JUDGES * len(unseen))]
    rest = rng.permutation(np.setdiff1d(names, test))
    count = round(TRAINING * len(rest))
    return Division(rest[:count], rest[count:], test)


def _hashed(tasks: Tasks) -> np.ndarray:
    """Return the tasks in an order by hash."""
    names = np.unique(tasks.task)
    return names[np.argsort([crc32(f"{tasks.name}:{name}".encode()) for name in names])]
