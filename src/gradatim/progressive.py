"""Predict, then learn, row by row or in mini-batches, and say how well it went.

Source: Dawid 1984 (prequential evaluation); Montiel et al. 2021 (River: `progressive_val_score`).
"""

from __future__ import annotations

import math
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .files.progress import Bar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

LEAST = 1e-15
"""The probability that a label counts with at least, also one that was never seen before."""

PATIENCE = 3.0
"""Seconds after which progress is shown, where there is a terminal."""

GROWTH = 1.1
"""A point of the curve is taken when the rows have grown by this factor."""


@dataclass(frozen=True, repr=False)
class Progress:
    """How well rows were predicted, each before it was learnt.

    Fields: `metric`: its name; `score`; `log_loss`: nats a row, None for numbers; `rows`: how many were scored;
    `skipped`: how many came before anything was learnt; `seconds`; `curve`: (rows, score so far), more at the start.
    """

    metric: str
    score: float
    log_loss: float | None
    rows: int
    skipped: int
    seconds: float
    curve: list[tuple[int, float]] = field(default_factory=list)

    def __repr__(self) -> str:
        """Return it in a sentence."""
        nats = "" if self.log_loss is None else f", log-loss {self.log_loss:.4g}"
        return (
            f"{self.metric} {self.score:.4g}{nats}; {self.rows:,} rows, each predicted before it was learnt"
        )


def progressive_validation(
    model: Any,
    X: Any,
    y: Any = None,
    batch_size: int = 1,
    metric: Callable[[np.ndarray, np.ndarray], float] | None = None,
    every: int | None = None,
) -> Progress:
    """Predict rows and then learn them, and return how well they were predicted.

    Rows that come before anything is learnt are not scored. The model is changed: it has learnt all rows.

    Args:
        model: a `RefinedClassifier` or `RefinedRegressor`; of dicts any model with their methods for one row.
        X: an array or data frame `[n, columns]`; or, without y, pairs (dict, y) one by one.
        y: labels or numbers `[n]`.
        batch_size: rows that are predicted and learnt at a time; of dicts one.
        metric: of y and predictions `[n]` (default: accuracy, or the root of the mean squared error).
        every: rows between two points of the curve (default: when they have grown by a tenth).

    Raises:
        ValueError: no rows, a batch_size or `every` below 1, or rows that the model refuses.

    Example:
        >>> from gradatim import RefinedClassifier, progressive_validation
        >>> rows = (({"a": n % 7, "b": n % 3}, n % 7 > 3) for n in range(100))
        >>> result = progressive_validation(RefinedClassifier(), rows)
        >>> result.rows, result.score > 0.9
        (99, True)
    """
    if batch_size < 1 or (every is not None and every < 1):
        raise ValueError(f"batch_size and every must be at least 1; got {batch_size} and {every}")
    if y is None and batch_size > 1:
        raise ValueError("rows that are dicts are learnt one by one: leave batch_size 1, or give X and y")
    tally, began, seen = _Tally(metric, every), time.monotonic(), 0
    parts = _of_pairs(model, X) if y is None else _of_table(model, X, y, batch_size)
    total = (len(X) if hasattr(X, "__len__") else 0) if y is None else len(y)
    with ExitStack() as stack:
        bar = None
        for truth, predicted, likely in parts:
            seen += len(truth)
            tally.add(truth, predicted, likely)
            if bar is None and time.monotonic() - began > PATIENCE:
                bar = stack.enter_context(Bar(sys.stderr.isatty(), "predicting, then learning"))
            if bar is not None:
                bar.update(seen / total if total else 0.0, f"{seen:,} rows, {tally.name} {tally.score:.4g}")
    if not seen:
        raise ValueError("progressive validation needs rows; got none")
    return tally.result(seen, time.monotonic() - began)


def _of_pairs(model: Any, pairs: Iterable[Any]) -> Iterator[tuple[list[Any], Any, list[float] | None]]:
    """Yield the y of each row, what was predicted of it (None: nothing), and the probability of its label."""
    classifies = hasattr(model, "predict_proba_one")
    for pair in pairs:
        try:
            x, y = pair
        except (TypeError, ValueError):
            raise ValueError(
                f"without y, X must yield pairs of a dict and its y; got a {type(pair).__name__}: give X and y"
            ) from None
        if classifies:
            probabilities = model.predict_proba_one(x)
            predicted = [max(probabilities, key=probabilities.__getitem__)] if probabilities else None
            likely = [probabilities.get(y, 0.0)] if probabilities else None
        else:
            is_new = hasattr(model, "partial_fit") and not hasattr(model, "task_")
            predicted, likely = (None if is_new else [model.predict_one(x)]), None
        model.learn_one(x, y)
        yield [y], predicted, likely


def _of_table(model: Any, X: Any, y: Any, size: int) -> Iterator[tuple[list[Any], Any, list[float] | None]]:
    """Yield the same of mini-batches of a table."""
    y = y if hasattr(y, "iloc") or isinstance(y, np.ndarray) else np.asarray(y)
    for start in range(0, len(y), size):
        part = slice(start, start + size)
        rows, truth = (table.iloc[part] if hasattr(table, "iloc") else table[part] for table in (X, y))
        predicted, likely = None, None
        if hasattr(model, "task_") and hasattr(model, "predict_proba"):
            probabilities, labels = model.predict_proba(rows), model.classes_.tolist()
            predicted = [labels[place] for place in probabilities.argmax(1)]
            place = {label: at for at, label in enumerate(labels)}
            pairs = zip(probabilities, truth, strict=True)
            likely = [float(row[place[label]]) if label in place else 0.0 for row, label in pairs]
        elif hasattr(model, "task_"):
            predicted = model.predict(rows)
        model.partial_fit(rows, truth)
        yield list(truth), predicted, likely


class _Tally:
    """What is counted of rows."""

    def __init__(self, metric: Callable[[np.ndarray, np.ndarray], float] | None, every: int | None) -> None:
        self.metric, self.every = metric, every
        self.name = getattr(metric, "__name__", "metric") if metric else "accuracy"
        self.rows, self.total, self.nats, self.next = 0, 0.0, 0.0, every or 1
        self.classifies = False
        self.kept: list[tuple[Any, Any]] = []
        self.curve: list[tuple[int, float]] = []

    def add(self, truth: list[Any], predicted: Any, likely: list[float] | None) -> None:
        """Count rows."""
        if predicted is None:
            return
        self.classifies = likely is not None
        if not self.metric and not self.classifies:
            self.name = "RMSE"
        for place, (y, answer) in enumerate(zip(truth, predicted, strict=True)):
            self.rows += 1
            if self.metric:
                self.kept.append((y, answer))
            if likely is None:
                self.total += (float(y) - float(answer)) ** 2 if not self.metric else 0.0
            else:
                self.total += y == answer
                self.nats -= math.log(max(likely[place], LEAST))
            if self.rows >= self.next:
                self.curve.append((self.rows, self.score))
                self.next = self.rows + (self.every or max(1, int(self.rows * (GROWTH - 1))))

    @property
    def score(self) -> float:
        """Return the score so far."""
        if not self.rows:
            return math.nan
        if self.metric:
            truth, predicted = zip(*self.kept, strict=True)
            return float(self.metric(np.array(truth), np.array(predicted)))
        mean = self.total / self.rows
        return mean if self.classifies else math.sqrt(mean)

    def result(self, seen: int, seconds: float) -> Progress:
        """Return the result."""
        if self.rows and (not self.curve or self.curve[-1][0] < self.rows):
            self.curve.append((self.rows, self.score))
        log_loss = self.nats / self.rows if self.classifies else None
        return Progress(self.name, self.score, log_loss, self.rows, seen - self.rows, seconds, self.curve)
