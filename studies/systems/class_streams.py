"""Streams of classes: a few new classes at a time, which never come back.

Validation streams have rows of their own (of training files), those of Omniglot characters of their own.

Source: Lake et al. 2015 (Omniglot); LeCun et al. 1998 (MNIST); Xiao et al. 2017 (Fashion-MNIST); Casanueva et al. 2020
(banking77).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from gradatim.families.embeddings import embedding_path, read_embeddings
from gradatim.families.images import image_folder, load_images


@dataclass(frozen=True)
class Kind:
    """How a stream is cut: new classes a task, tasks, rows of a class to learn and to judge, passes over a task."""

    per_task: int
    tasks: int
    rows: int
    judged: int
    passes: int


STREAMS = {
    "mnist": Kind(2, 5, 1000, 100, 1),
    "fashion": Kind(2, 5, 1000, 100, 1),
    "banking77": Kind(7, 11, 60, 40, 2),
    "omniglot": Kind(5, 10, 15, 5, 10),
}
DIGITS = Kind(2, 5, 100, 60, 2)
"""The stream of a smoke run, of what scikit-learn brings along."""

VALIDATION_FROM = 1000
"""Seeds from here on are validation streams."""


@dataclass(frozen=True)
class Stream:
    """Rows `x [n, d]` in their order, classes `y [n]` numbered as they come, and rows to judge."""

    x: np.ndarray
    y: np.ndarray
    judged_x: np.ndarray
    judged_y: np.ndarray
    kind: Kind

    def task(self, t: int) -> slice:
        """Return the rows of a task; some classes have fewer than the others."""
        ends = np.searchsorted(self.y // self.kind.per_task, [t, t + 1])
        return slice(*ends.tolist())


def load_stream(name: str, seed: int) -> Stream:
    """Return a stream: the seed draws classes, their order and rows.

    Raises:
        ValueError: $GRADATIM_DATA lacks the files.
    """
    kind = DIGITS if name == "digits" else STREAMS[name]
    generator = np.random.default_rng([seed, len(name)])
    validation = seed >= VALIDATION_FROM
    x, y, part = _omniglot(validation) if name == "omniglot" else _table(name)
    labels = generator.permutation(np.unique(y))[: kind.per_task * kind.tasks]
    learn, judge = [], []
    for label in labels:
        of = {p: generator.permutation(np.flatnonzero((y == label) & (part == p))) for p in (0, 1)}
        learn.append(of[0][: kind.rows])
        # validation judges by training rows that are not learnt
        rest = of[1] if not validation or name == "omniglot" else of[0][kind.rows :]
        judge.append(rest[: kind.judged])
    order = []
    for t in range(kind.tasks):
        rows = np.concatenate(learn[t * kind.per_task : (t + 1) * kind.per_task])
        order.append(generator.permutation(rows))
    rows, judged = np.concatenate(order), np.concatenate(judge)
    place = np.empty(int(y.max()) + 1, dtype=np.int64)
    place[labels] = np.arange(len(labels))
    return Stream(x[rows], place[y[rows]], x[judged], place[y[judged]], kind)


@lru_cache(maxsize=2)
def _table(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows, their labels, and 0 for rows of the training file, 1 for those of the test file."""
    if name == "digits":
        digits: Any = load_digits()
        x, y = digits.data, digits.target
        return ((x - 4.9) / 6.0).astype(np.float32), y, (np.arange(len(y)) % 3 == 0).astype(int)
    if name == "banking77":
        table = read_embeddings(embedding_path("banking77"))
        x = table.embeddings * np.float32(table.embeddings.shape[1] ** 0.5)
        return x, table.labels, (np.arange(len(x)) >= 10003).astype(int)
    source = {"mnist": "mnist", "fashion": "fashion_mnist"}[name]
    train, test = load_images(source, image_folder(source))
    x = np.concatenate([train.images, test.images]).astype(np.float32) / 255
    mean, spread = x[: len(train.images)].mean(), x[: len(train.images)].std()
    part = np.repeat([0, 1], [len(train.images), len(test.images)])
    return (x - mean) / spread, np.concatenate([train.labels, test.labels]), part


@lru_cache(maxsize=2)
def _omniglot(validation: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return images of background characters (validation) or of evaluation characters: five drawers judge."""
    path = Path(os.environ.get("GRADATIM_DATA", "")) / "images" / "omniglot_28.npz"
    if not path.is_file():
        raise ValueError(
            f"{path} is not there: set GRADATIM_DATA to a folder that holds images/omniglot_28.npz"
        )
    with np.load(path, allow_pickle=False) as stored:
        images, labels = stored["images"], np.flatnonzero(stored["background"] == validation)
    x = images[labels].reshape(-1, 784).astype(np.float32) / 255
    part = np.tile((np.arange(20) >= 15).astype(int), len(labels))
    return (x - 0.084) / 0.239, np.repeat(np.arange(len(labels)), 20), part
