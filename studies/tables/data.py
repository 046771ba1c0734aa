"""The tables of `make study NAME=tables`: their source, their side of the split, and the order of their rows.

Source: UCI, OpenML-CC18 and other public tables, as they are in `$GRADATIM_DATA/tabular`; the split is our own.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .streams import STREAM_SETTINGS, STREAMS, stream

if TYPE_CHECKING:
    from collections.abc import Sequence

MIN_ROWS, HELDOUT, ORDERS = 300, 0.3, 5
FAMILIES = {
    "mfeat": "mfeat",
    "energy": "energy",
    "concrete": "concrete",
    "red_wine": "wine_red",
    "wine_quality_red": "wine_red",
    "solar": "solar",
}
"""Families by prefix. Tables whose names begin with the prefix are on one side of the split."""

COPIES = {
    "concrete_gal": "concrete_compressive_strength",
    "energy_gal": "energy_efficiency",
    "solar": "solar_flare",
    "wine_quality_red_gal": "red_wine",
}
"""Tables with the same rows as another one, shuffled, rounded or encoded otherwise. They are left out."""

COLLECTIONS = ("school", "landmine", "parkinsons")
"""Collections of many small tables alike, called `school-task-0` and so on, in `$GRADATIM_DATA/multitask`."""

BUNDLED = {"classification": ("bundled-breast_cancer", "bundled-wine"), "regression": ("bundled-diabetes",)}
"""Tables that scikit-learn includes. A smoke run uses only these."""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        name: of the table.
        x: `[n, d]` float64. Missing values are NaN, categories are codes.
        y: `[n]`, int64 in 0 .. classes - 1, or float64.
        categorical: columns of categories.
        classes: their number, 0 for a regression.
        heldout: the share of held-out rows.
        fixed: whether the rows keep their order, as in a stream.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    categorical: tuple[int, ...] = ()
    classes: int = 0
    heldout: float = HELDOUT
    fixed: bool = False

    @property
    def kind(self) -> str:
        """Return `classification` or `regression`."""
        return "classification" if self.classes else "regression"

    @property
    def digest(self) -> str:
        """Return a fingerprint of all data of the table.

        For a stream it covers the name and the labels. The last digits of projections depend on the number of
        threads.
        """
        x = (
            np.frombuffer(repr((self.name, self.x.shape, STREAM_SETTINGS)).encode(), np.uint8)
            if self.fixed
            else self.x
        )
        parts = (x, self.y, np.asarray(self.categorical, dtype=np.int64))
        sha = hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts))
        sha.update(repr((self.classes, self.heldout, self.fixed)).encode())
        return sha.hexdigest()[:16]

    def split(self, order: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return x and y of the stream and of the held-out rows, `[n, d]` and `[n]`, under one order of the rows."""
        count = int((1 - self.heldout) * len(self.x))
        rows = np.arange(len(self.x))
        if not self.fixed:
            rows = np.random.default_rng(1000 + order).permutation(len(self.x))
        first, heldout = rows[:count], rows[count:]
        return self.x[first], self.y[first], self.x[heldout], self.y[heldout]


def family(name: str) -> str:
    """Return the family of a table. A table without relatives is its own family."""
    return next((root for begin, root in FAMILIES.items() if name.startswith(begin)), name)


def side(name: str) -> str:
    """Return `validation` or `test`, by the hash of the family's name.

    Example:
        >>> side("mfeat_fourier") == side("mfeat_karhunen")
        True
    """
    number = int(hashlib.sha256(family(name).encode()).hexdigest(), 16)
    return "test" if number % 2 else "validation"


def names(kind: str, on: str, smoke: bool = False) -> list[str]:
    """Return the tables of a kind on one side, the smallest first. A smoke run has scikit-learn's tables on both
    sides.

    Raises:
        ValueError: $GRADATIM_DATA is not set or has no tables.
    """
    if smoke:
        return list(BUNDLED[kind])
    rows = [r for r in _index() if r["task"] == kind and r["n"] >= MIN_ROWS and r["name"] not in COPIES]
    rows = [r for r in rows if side(r["name"]) == on]
    return [r["name"] for r in sorted(rows, key=lambda r: (r["n"], r["name"]))]


def tasks(collection: str) -> list[str]:
    """Return the names of the small tables of a collection.

    Raises:
        ValueError: $GRADATIM_DATA is not set.
    """
    return [f"{collection}-task-{task}" for task in np.unique(_collection(collection)["task"])]


@lru_cache(maxsize=4)
def load(name: str) -> Table:
    """Return a table, a small one of a collection, or a long stream by its name.

    Raises:
        ValueError: the name is unknown, or $GRADATIM_DATA is not set.
    """
    if name.startswith("bundled-"):
        return _bundled(name)
    if name in STREAMS:
        x, y, classes = stream(name)
        return Table(name, x, y, classes=classes, heldout=0.0, fixed=True)
    collection, _, task = name.partition("-task-")
    if task and collection in COLLECTIONS:
        return _task(name, collection, int(task))
    row = next((r for r in _index() if r["name"] == name), None)
    if row is None:
        raise ValueError(f"no table is called {name!r} in {_folder()}")
    with np.load(_folder() / row["file"], allow_pickle=False) as stored:
        x, y = stored["X"].astype(np.float64), stored["y"]
        columns = tuple(int(c) for c in stored["cat_idx"])
    if row["task"] == "regression":
        return Table(name, x, y.astype(np.float64), columns)
    return Table(name, x, y.astype(np.int64), columns, int(row["n_classes"]))


def levels(table: Table) -> dict[int, np.ndarray]:
    """Return the codes of each categorical column. They are known at the start, as classes are."""
    columns: Sequence[int] = table.categorical
    return {c: np.unique(table.x[:, c][~np.isnan(table.x[:, c])]) for c in columns}


def _task(name: str, collection: str, task: int) -> Table:
    """Return one table of a collection. It has no held-out rows: only its first ones are used."""
    stored = _collection(collection)
    of_task = stored["task"] == task
    x, y = stored["X"][of_task].astype(np.float64), stored["y"][of_task]
    classes = 0 if y.dtype.kind == "f" else int(stored["y"].max()) + 1
    return Table(name, x, y.astype(np.int64 if classes else np.float64), classes=classes, heldout=0.0)


@lru_cache(maxsize=1)
def _collection(name: str) -> dict[str, np.ndarray]:
    path = _folder().with_name("multitask") / f"{name}.npz"
    if not path.exists():
        raise ValueError(f"{path} is not there: $GRADATIM_DATA has it below multitask/")
    with np.load(path, allow_pickle=False) as stored:
        return dict(stored)


def _folder() -> Path:
    root = os.environ.get("GRADATIM_DATA")
    if root is None:
        raise ValueError(
            "the tables lie below $GRADATIM_DATA/tabular: set GRADATIM_DATA, or run with --smoke, which needs none"
        )
    return Path(root) / "tabular"


@lru_cache(maxsize=1)
def _index() -> list[dict]:
    path = _folder() / "index.json"
    if not path.exists():
        raise ValueError(f"{path} is not there: it lists the tables of $GRADATIM_DATA")
    return json.loads(path.read_text(encoding="utf-8"))


def _bundled(name: str) -> Table:
    from sklearn import datasets

    makers = {f"bundled-{kind}": f"load_{kind}" for kind in ("breast_cancer", "wine", "diabetes")}
    if name not in makers:
        raise ValueError(f"no bundled table is called {name!r}: there are {', '.join(makers)}")
    x, y = getattr(datasets, makers[name])(return_X_y=True)
    if name == "bundled-diabetes":
        return Table(name, x.astype(np.float64), y.astype(np.float64))
    return Table(name, x.astype(np.float64), y.astype(np.int64), classes=int(y.max()) + 1)
