"""Class labels: sorted, of one type, growing as new ones come.

Source: Pedregosa et al. 2011 (`classes_` of the estimator's interface).
"""

from __future__ import annotations

from typing import Any

import numpy as np

_TYPES = {"O": "words", "U": "words", "S": "words", "b": "truth values"}


def of_one_type(labels: np.ndarray) -> np.ndarray:
    """Return labels `[n]` as they are.

    Raises:
        ValueError: an array of objects of several types.
    """
    types = {type(label).__name__ for label in labels.tolist()} if labels.dtype == object else ()
    if len(types) > 1:
        raise ValueError(f"labels must be of one type; got {', '.join(sorted(types))}")
    return labels


def union(labels: np.ndarray, more: np.ndarray) -> np.ndarray:
    """Return all labels of two arrays `[C]` (sorted) and `[n]`, sorted; the first array itself if nothing is new.

    Raises:
        ValueError: words meet numbers or truth values.

    Example:
        >>> import numpy as np
        >>> from gradatim.preprocessing.labels import union
        >>> union(np.array(["a", "c"]), np.array(["b", "a"])).tolist()
        ['a', 'b', 'c']
    """
    types = [_TYPES.get(part.dtype.kind, "numbers") for part in (labels, more)]
    if types[0] != types[1]:
        raise ValueError(
            f"labels change type: classes so far are {types[0]}, {labels[:4].tolist()}, these are {types[1]}, "
            f"{np.unique(more)[:4].tolist()}: use one type"
        )
    place = np.searchsorted(labels, more).clip(max=len(labels) - 1)
    return labels if (labels[place] == more).all() else np.union1d(labels, more)


def align(probabilities: np.ndarray, labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return probabilities `[n, L]` of labels `[L]` as columns of all classes `[C]`, 0 where one is no label: `[n, C]`.

    Example:
        >>> import numpy as np
        >>> from gradatim.preprocessing.labels import align
        >>> align(np.array([[0.25, 0.75]]), np.array([1, 3]), np.array([1, 2, 3]))
        array([[0.25, 0.  , 0.75]])
    """
    wide = np.zeros((len(probabilities), len(classes)))
    wide[:, np.searchsorted(classes, labels)] = probabilities
    return wide


def to_json(labels: np.ndarray | None) -> dict[str, Any] | None:
    """Return labels `[C]` as plain JSON, with their type."""
    if labels is None:
        return None
    return {"labels": labels.tolist(), "dtype": "object" if labels.dtype == object else labels.dtype.str}


def from_json(value: dict[str, Any] | None) -> np.ndarray | None:
    """Return the labels `[C]` that `to_json` wrote."""
    return None if value is None else np.array(value["labels"], dtype=np.dtype(value["dtype"]))
