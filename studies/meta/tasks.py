"""Related tables: schools, fields of mines, patients; their tasks divided by a hash, their rows in an order.

Source: Argyriou, Evgeniou, Pontil 2008 (school); Xue et al. 2007 (landmine); Tsanas et al. 2010 (parkinsons).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import numpy as np

TABLES = ("school", "landmine", "parkinsons")
TRAINING = 0.6


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


def divide(tasks: Tasks, validation: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the tasks that teach and those that judge; for validation both are among the training tasks."""
    names = np.unique(tasks.task)
    names = names[np.argsort([crc32(f"{tasks.name}:{name}".encode()) for name in names])]
    count = round(TRAINING * len(names))
    training, test = names[:count], names[count:]
    inner = round(TRAINING * count)
    return (training[:inner], training[inner:]) if validation else (training, test)
