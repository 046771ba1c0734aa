"""What the command `gradatim fit` and the shipped estimator do for each row: encodings, and calls of the one loop."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from gradatim import Learner, RefinedClassifier, cli
from gradatim.preprocessing import Encoder

BATCH = 32
"""Rows of a mini-batch."""

WARM_UP = 4_000
"""Rows before the stream is steady: the encoder is fitted and the columns are known."""


@contextmanager
def counted(kind: type, method: str, weigh: Callable[..., int]) -> Iterator[list[int]]:
    """Count the calls of a method inside; the list that is returned gets `weigh(*arguments)` of each call.

    Example:
        >>> class Adder:
        ...     def add(self, x):
        ...         return x + 1
        >>> with counted(Adder, "add", lambda self, x: x) as calls:
        ...     Adder().add(4)
        5
        >>> calls
        [4]
    """
    original, calls = getattr(kind, method), []

    def wrapped(*arguments: Any, **options: Any) -> Any:
        calls.append(weigh(*arguments, **options))
        return original(*arguments, **options)

    setattr(kind, method, wrapped)
    try:
        yield calls
    finally:
        setattr(kind, method, original)


def table(n_rows: int, n_columns: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return numbers `[n_rows, n_columns]` and three classes `[n_rows]` that depend on them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n_rows, n_columns))
    return x, (x @ rng.normal(size=(n_columns, 3)) + rng.normal(size=(n_rows, 3))).argmax(1)


def encodes_per_row(n_rows: int = 20_000) -> float:
    """Return the rows that `gradatim fit` passes to the column encoder for each row that it learns, once steady.

    It is the difference between a file of `n_rows` rows and its beginning: what a start costs is in both.

    Args:
        n_rows: of the CSV file, numbers and one column of words; more than `WARM_UP`.
    """
    counts = [_encoded(rows) for rows in (WARM_UP, n_rows)]
    return (counts[1] - counts[0]) / (n_rows - WARM_UP)


def _encoded(n_rows: int) -> int:
    """Return the rows that were encoded while a CSV file of `n_rows` rows was fitted."""
    x, y = table(n_rows)
    with TemporaryDirectory() as folder, chdir(folder):
        with Path("train.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*(f"x{column}" for column in range(x.shape[1])), "word", "y"])
            words = ("red", "green", "blue")
            writer.writerows(
                [*row, words[place % 3], f"class {label}"]
                for place, (row, label) in enumerate(zip(x.round(4).tolist(), y.tolist(), strict=True))
            )
        weigh = lambda encoder, columns, *_, **__: columns.n_rows  # noqa: E731
        output = StringIO()
        with counted(Encoder, "encode", weigh) as calls, redirect_stdout(output), redirect_stderr(output):
            code = cli.main(["fit", "train.csv", "--target", "y", "--state", "task.safetensors"])
        if code:
            raise ValueError(f"gradatim fit failed: {output.getvalue().strip()}")
    return sum(calls)


def loop_calls(n_rows: int = 4_096) -> float:
    """Return the calls of `Learner.learn` for each mini-batch that the shipped estimator learns after a warm-up."""
    x, y = table(2 * n_rows)
    model = RefinedClassifier(batch_size=BATCH).partial_fit(x[:n_rows], y[:n_rows], classes=[0, 1, 2])
    with counted(Learner, "learn", lambda *_, **__: 1) as calls:
        model.partial_fit(x[n_rows:], y[n_rows:])
    return sum(calls) / (n_rows / BATCH)
