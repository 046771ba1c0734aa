"""Whose rows an estimator has counted, so that none is merged twice.

Source: Pedregosa et al. 2011 (the estimator's interface).
"""

from __future__ import annotations

import copy
from typing import Any
from uuid import uuid4

import torch

_COUNTED = (
    "merging needs rows that are not counted yet; got some that are, merged before or copied: fork() afresh for more "
    "rows, and merge each fork once"
)


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
        raise ValueError(_COUNTED)
    return first | second


def check_apart(first: Any, second: Any) -> None:
    """Check that two tasks (`TableTask`) whose rows have no names hold different rows: copies have the same sums.

    Raises:
        ValueError: they have learnt the same rows.

    Example:
        >>> import copy
        >>> import numpy as np
        >>> from gradatim import RefinedRegressor
        >>> from gradatim.preprocessing.lineage import check_apart
        >>> task = RefinedRegressor().fit(np.eye(40), np.arange(40.0)).task_
        >>> check_apart(task, copy.deepcopy(task))
        Traceback (most recent call last):
        ValueError: merging needs rows that are not counted yet; got some that are...
    """
    if not first.count or first.count != second.count:
        return
    packed = (copy.copy(task).pack()[0] for task in (first, second))
    # what is answered with follows from the rows, and only one of two copies may hold it
    tensors, more = ({name: part for name, part in p.items() if ".answer_" not in name} for p in packed)
    if tensors.keys() == more.keys() and all(torch.equal(part, more[name]) for name, part in tensors.items()):
        raise ValueError(_COUNTED)


def check_alike(first: Any, second: Any) -> None:
    """Check that two estimators can be merged, as far as their classes say.

    Raises:
        ValueError: they are one, of two kinds, or of other classes.

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
    labels = [part.classes_.tolist() for part in (first, second) if hasattr(part, "classes_")]
    if len(labels) == 2 and labels[0] != labels[1]:
        raise ValueError(
            f"merging needs the same classes; got {labels[0][:8]} and {labels[1][:8]}: name all at first"
        )
