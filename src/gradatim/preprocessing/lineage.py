"""Whose rows an estimator has counted, so that none is merged twice.

Source: Pedregosa et al. 2011 (the estimator's interface).
"""

from __future__ import annotations

import copy
from hashlib import sha256
from typing import Any
from uuid import uuid4

_SUMS = ("gram", "cross", "squares", "rows")


def new_lineage() -> frozenset[str]:
    """Return the lineage of rows that nobody else has: one random name, of 32 hexadecimal digits.

    Example:
        >>> from gradatim.preprocessing.lineage import new_lineage
        >>> len(new_lineage()), new_lineage() == new_lineage()
        (1, False)
    """
    return frozenset([uuid4().hex])


def join(first: frozenset[str], second: frozenset[str]) -> frozenset[str]:
    """Return the lineage of two estimators together.

    Raises:
        ValueError: some rows are in both.

    Example:
        >>> from gradatim.preprocessing.lineage import join
        >>> sorted(join(frozenset(["a"]), frozenset(["b", "c"])))
        ['a', 'b', 'c']
    """
    if first & second:
        raise ValueError(
            "merging needs rows that are not counted yet; got some that are, merged before or copied: fork() afresh "
            "for more rows, and merge each fork once"
        )
    return first | second


def lineage_of(task: Any) -> frozenset[str]:
    """Return the lineage of all rows that a task (`TableTask`) has learnt under its map: copies have the same.

    The name is a digest of the sums over these rows, and says nothing of one row; without rows there is none.

    Example:
        >>> import copy
        >>> import numpy as np
        >>> from gradatim import RefinedRegressor
        >>> from gradatim.preprocessing.lineage import lineage_of
        >>> task = RefinedRegressor().fit(np.eye(40), np.arange(40.0)).task_
        >>> lineage_of(task) == lineage_of(copy.deepcopy(task))
        True
    """
    if not task.count or task.encoder is None:
        return frozenset()
    tensors = copy.copy(task).pack()[0]
    sums = {name: part for name, part in tensors.items() if name.partition(".")[2] in _SUMS} or tensors
    digest = sha256(b"".join(sums[name].cpu().numpy().tobytes() for name in sorted(sums)))
    return frozenset([digest.hexdigest()[:32]])


def check_alike(first: Any, second: Any) -> None:
    """Check that two estimators can be merged, as far as their classes say.

    Raises:
        ValueError: they are one, of two kinds, of two memories, or of other classes or weights of them.

    Example:
        >>> from gradatim import RefinedClassifier, RefinedRegressor
        >>> from gradatim.preprocessing.lineage import check_alike
        >>> check_alike(RefinedClassifier(), RefinedRegressor())
        Traceback (most recent call last):
        ValueError: a RefinedClassifier merges with another; got a RefinedRegressor
    """
    if second is first:
        raise ValueError("an estimator does not merge with itself: its rows would count twice")
    if type(second) is not type(first):
        raise ValueError(f"a {type(first).__name__} merges with another; got a {type(second).__name__}")
    if first.memory != second.memory:
        raise ValueError(
            f"merging needs one memory; got {first.memory!r} and {second.memory!r}: begin both with fork()"
        )
    weights = [
        (getattr(part, "class_weight", None), getattr(part, "class_weight_", None))
        for part in (first, second)
    ]
    if weights[0] != weights[1]:
        raise ValueError(
            f"merging needs one class_weight; got {weights[0][0]!r} and {weights[1][0]!r}, or classes that were "
            "counted apart: begin both with fork()"
        )
    labels = [part.classes_.tolist() for part in (first, second) if hasattr(part, "classes_")]
    if len(labels) == 2 and not set(labels[0]) & set(labels[1]):
        raise ValueError(
            f"merging needs the same classes, but for some that are new; got {labels[0][:8]} and {labels[1][:8]}: "
            "begin both with fork()"
        )
