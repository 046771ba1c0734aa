"""What boundaries are made of: rows, labels and probabilities, checked; and classifiers that have learnt nothing.

Source: this project's own.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np


def unfitted(predictor: Any) -> Any:
    """Return a copy that has learnt no row, as far as its settings can be asked; else a copy as it is.

    Example:
        >>> from gradatim.probing.planes import unfitted
        >>> from sklearn.naive_bayes import GaussianNB
        >>> hasattr(unfitted(GaussianNB().fit([[0.0], [1.0]], [0, 1])), "classes_")
        False
    """
    if hasattr(predictor, "get_params") and not isinstance(predictor, type):
        return type(predictor)(**deepcopy(predictor.get_params(deep=False)))
    return deepcopy(predictor)


def read_labels(y: Any) -> np.ndarray:
    """Return labels `[n]` that can be sorted.

    Raises:
        ValueError: labels that are missing, or of several types.

    Example:
        >>> from gradatim.probing.planes import read_labels
        >>> read_labels(["b", "a"])
        array(['b', 'a'], dtype='<U1')
    """
    labels = np.asarray(y)
    missing = labels != labels if labels.dtype.kind in "fO" else np.zeros(labels.shape, dtype=bool)
    if labels.dtype == object:
        missing |= np.array([label is None for label in labels.ravel()]).reshape(labels.shape)
    if np.asarray(missing).any():
        raise ValueError("y has missing labels: leave those rows out")
    if len({type(label) for label in labels.ravel().tolist()}) > 1:
        raise ValueError("y has labels of several types: make words or numbers of all")
    return labels


def read_numbers(X: Any, name: str) -> np.ndarray:
    """Return rows `[n, columns]` as float64; `name` is what they are called in messages.

    Raises:
        ValueError: no rows, cells that are no numbers, missing or infinite ones.

    Example:
        >>> from gradatim.probing.planes import read_numbers
        >>> read_numbers([[1, 2]], "X")
        array([[1., 2.]])
    """
    try:
        values = np.asarray(X, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} has cells that are no numbers: choose columns of numbers") from error
    if values.ndim != 2 or not len(values):
        raise ValueError(f"{name} is a table of rows; got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} has missing or infinite cells: leave those rows out")
    return values


def probabilities_of(predictor: Any, X: np.ndarray) -> np.ndarray:
    """Return what a classifier answers to rows X `[n, columns]`, `[n, C]`.

    Raises:
        ValueError: it has no `predict_proba`.

    Example:
        >>> from gradatim.probing.planes import probabilities_of
        >>> from sklearn.naive_bayes import GaussianNB
        >>> probabilities_of(GaussianNB().fit([[0.0], [1.0]], [0, 1]), [[0.0]]).round(2)
        array([[1., 0.]])
    """
    if not hasattr(predictor, "predict_proba"):
        raise ValueError(
            f"a boundary is drawn of a Learner, or of anything with predict_proba; got {type(predictor).__name__}"
        )
    return np.asarray(predictor.predict_proba(X), dtype=np.float64)
