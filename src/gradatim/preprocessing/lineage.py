"""Whose rows an estimator has counted, so that none is merged twice.

Source: Pedregosa et al. 2011 (the estimator's interface).
"""

from __future__ import annotations

from uuid import uuid4


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
