"""Tasks of the study of blocks: made ones whose groups are known, schools, fields of mines, and 77 intents.

Source: Argyriou, Evgeniou, Pontil 2008 (school); Xue et al. 2007 (landmine); Casanueva et al. 2020 (banking77).
"""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from studies.meta.tasks import read

FEATURES, TASKS, GROUPS = 60, 30, 3
KNOWN = {"school": 20, "landmine": 100, "banking77": 5}
"""Rows that teach: of each school and field; of each intent."""
COMPONENTS = 32
"""Principal components of the sentences' embeddings."""


class Problem(NamedTuple):
    """Rows of T tasks that teach, rows that judge, and the truth where it is known.

    Attributes:
        x: rows of each task, `[n, d]`.
        y: targets, `[n]`.
        later: rows that judge.
        answers: their targets.
        classes: whether targets are 0 and 1.
        truth: weights `[T, d]` of made tasks, whose rows have independent features of variance one.
        groups: of features and tasks of made tasks.
        labels: where tasks are the classes of shared rows: the class of each row that teaches.
    """

    x: list[np.ndarray]
    y: list[np.ndarray]
    later: list[np.ndarray]
    answers: list[np.ndarray]
    classes: bool
    truth: np.ndarray | None = None
    groups: tuple[np.ndarray, np.ndarray] | None = None
    labels: np.ndarray | None = None


def made(rows: int, seed: int, small: bool = False) -> Problem:
    """Return tasks in blocks: Gaussian weights where feature and task are in one group, else 0; noise of one."""
    features, tasks = (12, 6) if small else (FEATURES, TASKS)
    rng = np.random.default_rng([seed, rows])
    groups = rng.permutation(np.arange(features) % GROUPS), rng.permutation(np.arange(tasks) % GROUPS)
    weights = rng.normal(size=(tasks, features)) * (groups[1][:, None] == groups[0])
    x = rng.normal(size=(tasks, rows, features))
    y = np.einsum("tnd,td->tn", x, weights) + rng.normal(size=(tasks, rows))
    return Problem(list(x), list(y), [], [], False, weights, groups)


def real(name: str, seed: int) -> Problem:
    """Return schools, fields of mines, or intents one against the rest, under one division of rows."""
    rng = np.random.default_rng([seed, 77])
    return _intents(rng) if name == "banking77" else _related(name, rng)


def _related(name: str, rng: np.random.Generator) -> Problem:
    table = read(name)
    x, y, later, answers = [], [], [], []
    for task in np.unique(table.task):
        at = rng.permutation(np.flatnonzero(table.task == task))
        first, rest = at[: KNOWN[name]], at[KNOWN[name] :]
        x.append(table.x[first])
        y.append(table.y[first])
        later.append(table.x[rest])
        answers.append(table.y[rest])
    return Problem(x, y, later, answers, table.classes)


def _intents(rng: np.random.Generator) -> Problem:
    """Return 77 tasks on shared rows: a few sentences of each intent teach, the test sentences judge."""
    folder = Path(os.environ["GRADATIM_DATA"]) / "text"
    with np.load(folder / "banking77_minilm_int8.npz") as file:
        x = file["emb_q"].astype(np.float64) * np.asarray(file["scale"], np.float64)
    with gzip.open(folder / "banking77.jsonl.gz", "rt", encoding="utf-8") as lines:
        next(lines)
        rows = [json.loads(line) for line in lines]
    test = np.array([row["split"] == "test" for row in rows])
    label = np.array([row["label"] for row in rows])
    places = [np.flatnonzero(~test & (label == c)) for c in np.unique(label)]
    known = np.concatenate([rng.permutation(at)[: KNOWN["banking77"]] for at in places])
    middle = x[known].mean(0)
    axes = np.linalg.svd(x[known] - middle, full_matrices=False)[2][:COMPONENTS]
    rows_x, later = (x[known] - middle) @ axes.T, (x[test] - middle) @ axes.T
    ys = [(label[known] == c).astype(float) for c in np.unique(label)]
    answers = [(label[test] == c).astype(float) for c in np.unique(label)]
    return Problem([rows_x] * len(ys), ys, [later] * len(ys), answers, True, labels=label[known])
