"""Small made files in the forms of the real ones, on which a smoke run runs: their numbers mean nothing.

Source: this project's own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from .tasks import TABLES

ALPHABETS, LETTERS, DRAWERS, SIDE = 8, 20, 20, 28
CLASSES, EACH, WIDTH = 77, 30, 16
TASKS, ROWS, COLUMNS = 20, 50, 3


def letters(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return letters: an image of each, and noise for each drawer."""
    count = ALPHABETS * LETTERS
    shape = 0.1 * rng.random((count, 1, SIDE, SIDE)) + rng.random((count, DRAWERS, SIDE, SIDE))
    alphabet = np.repeat(np.arange(ALPHABETS, dtype=np.uint8), LETTERS)
    return {"images": (127 * shape).astype(np.uint8), "alphabet": alphabet, "background": alphabet < 6}


def sentences(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return embeddings around a mean of each class."""
    label = np.repeat(np.arange(CLASSES, dtype=np.uint8), EACH)
    rows = 20 * rng.normal(size=(CLASSES, WIDTH))[label] + 20 * rng.normal(size=(len(label), WIDTH))
    return {
        "emb_q": rows.clip(-127, 127).astype(np.int8),
        "scale": np.ones(WIDTH, np.float32),
        "label": label,
    }


def table(rng: np.random.Generator, classes: bool) -> dict[str, np.ndarray]:
    """Return rows of tasks, each of which has a level of its own."""
    task = np.repeat(np.arange(TASKS, dtype=np.int32), ROWS)
    x = rng.normal(size=(len(task), COLUMNS)).astype(np.float32)
    y = x[:, 0] + rng.normal(size=TASKS)[task] + rng.normal(size=len(task))
    return {"X": x, "y": (y > 0).astype(np.int64) if classes else y, "task": task}


@contextmanager
def data(folder: Path) -> Iterator[None]:
    """Let `$GRADATIM_DATA` name a folder of made files inside; they are written where they are missing."""
    rng = np.random.default_rng(0)
    files = {"images/omniglot_28": letters(rng), "text/banking77_minilm_int8": sentences(rng)}
    files |= {f"multitask/{name}": table(rng, name == "landmine") for name in TABLES}
    for name, arrays in files.items():
        path = folder / f"{name}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            np.savez(path, **arrays)  # type: ignore[arg-type]
    before = os.environ.get("GRADATIM_DATA")
    os.environ["GRADATIM_DATA"] = str(folder.resolve())
    try:
        yield
    finally:
        os.environ.pop("GRADATIM_DATA")
        if before is not None:
            os.environ["GRADATIM_DATA"] = before
