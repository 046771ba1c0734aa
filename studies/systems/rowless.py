"""What learns a stream of classes and keeps no row of it.

Source: Hayes, Kanan 2020, eq. 1 to 4 (streaming LDA).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gradatim import RefinedClassifier

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .class_streams import Stream

SHRINKAGE = (1e-4, 1e-3, 1e-2, 1e-1, 0.5)


def lda(stream: Stream, shrinkage: float) -> np.ndarray:
    """Return the accuracy on each task after each, `[after, of]`, of class means under one covariance."""
    classes, width = int(stream.y.max()) + 1, stream.x.shape[1]
    sums, counts, square = np.zeros((classes, width)), np.zeros(classes), np.zeros((width, width))

    def predictions() -> Iterator[np.ndarray]:
        for t in range(stream.kind.tasks):
            x, y = stream.x[stream.task(t)].astype(np.float64), stream.y[stream.task(t)]
            np.add.at(sums, y, x)
            counts[:] += np.bincount(y, minlength=classes)
            square[:] += x.T @ x
            seen = counts > 0
            means = sums[seen] / counts[seen, None]
            within = (square - (means * counts[seen, None]).T @ means) / counts.sum()
            head = np.linalg.solve((1 - shrinkage) * within + shrinkage * np.eye(width), means.T)
            yield (stream.judged_x @ head - 0.5 * (means.T * head).sum(0)).argmax(1)

    return _accuracy(stream, predictions())


def refined(stream: Stream) -> np.ndarray:
    """Return the accuracy on each task after each, `[after, of]`, of `RefinedClassifier` in one pass."""
    model: Any = RefinedClassifier()

    def predictions() -> Iterator[np.ndarray]:
        for t in range(stream.kind.tasks):
            model.partial_fit(stream.x[stream.task(t)], stream.y[stream.task(t)])
            yield model.predict(stream.judged_x)

    return _accuracy(stream, predictions())


def _accuracy(stream: Stream, predictions: Iterator[np.ndarray]) -> np.ndarray:
    """Return `[after, of]` of the predictions `[n]` after each task, NaN for tasks that are to come."""
    tasks, judged = stream.kind.tasks, stream.judged_y // stream.kind.per_task
    accuracy = np.full((tasks, tasks), np.nan)
    for t, guess in enumerate(predictions):
        right = guess == stream.judged_y
        accuracy[t, : t + 1] = [right[judged == of].mean() for of in range(t + 1)]
    return accuracy
