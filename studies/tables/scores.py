"""Scores of class probabilities, row by row.

Source: Guo et al. 2017, section 3 (confidences); Sokolova, Lapalme 2009, table 3 (macro recall).
"""

from __future__ import annotations

import numpy as np

SIZE, FLOOR, TIE = 32, 1e-6, 1e-12
"""Rows of a mini-batch; the least probability; and the difference of two that tie."""


def errors(probabilities: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the errors `[n]` of class probabilities `[n, C]`: 0 or 1.

    Where k classes tie for the first place and y is one of them, the error is 1 - 1/k, that of a fair guess.
    """
    first = probabilities >= probabilities.max(1, keepdims=True) - TIE
    return 1 - first[np.arange(len(y)), y] / first.sum(1)


def log_losses(probabilities: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return `-log p(y)`, `[n]`, of class probabilities `[n, C]` clipped at 1e-6."""
    return -np.log(np.clip(probabilities[np.arange(len(y)), y], FLOOR, 1.0))


def macro_recall(error: np.ndarray, y: np.ndarray) -> float:
    """Return the share of right rows of each class, averaged over the classes in y, from errors `[n]`.

    Example:
        >>> macro_recall(np.array([0.0, 0.0, 1.0, 0.0]), np.array([0, 0, 0, 2]))
        0.8333333333333334
    """
    return float(np.mean([1 - error[y == label].mean() for label in np.unique(y)]))
