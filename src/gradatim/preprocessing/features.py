"""The columns of an estimator: how many, of which names, the same at every call.

Source: Pedregosa et al. 2011 (`n_features_in_` and `feature_names_in_` of the estimator's interface).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .cells import EXACT
from .columns import Columns
from .reading import object_column_of

_PLAIN = {float, int, bool, type(None), np.float64, np.float32, np.int64, np.int32, np.bool_}

MODEL = "the model"
"""What error messages call an estimator."""


def match_dicts(estimator: Any, X: Any, columns: Columns, reset: bool) -> Columns | None:
    """Return the columns of rows X that are dicts, as an estimator has learnt them; None if X is something else.

    A row may lack a name: its cell is missing, even where no row has it. With `reset` the names are noted.

    Raises:
        ValueError: other names, or another number of them.

    Example:
        >>> from gradatim import RefinedRegressor
        >>> from gradatim.preprocessing import read_columns
        >>> from gradatim.preprocessing.features import match_dicts
        >>> X, estimator = [{"a": 1, "b": 2}], RefinedRegressor()
        >>> match_dicts(estimator, X, read_columns(X), reset=True).names, estimator.n_features_in_
        (('a', 'b'), 2)
    """
    if not (isinstance(X, Mapping) or (isinstance(X, list) and isinstance(X[0], Mapping))):
        return None
    if reset:
        estimator.n_features_in_ = len(columns.names)
        estimator.feature_names_in_ = np.array(columns.names, dtype=object)
        return columns
    names = [str(name) for name in getattr(estimator, "feature_names_in_", columns.names)]
    present = set(columns.names)
    absent = [name for name in names if name not in present]
    gaps = tuple(np.full(columns.n_rows, np.nan) for _ in absent)
    return Columns((*columns.names, *absent), (*columns.values, *gaps)).reorder(tuple(names), True, MODEL)


def read_row(x: Any, names: tuple[str, ...] | None = None) -> tuple[Columns, list[str]]:
    """Return one row, a dict of its values by name, as the columns `names`, and the names that are not among them.

    A name that the row lacks is missing. Without `names` the columns are those of the row.

    Raises:
        ValueError: no dict, a name twice (as 1 and "1"), an infinite number, no name at all.
        TypeError: a cell that holds more than one value.

    Example:
        >>> from gradatim.preprocessing.features import read_row
        >>> columns, others = read_row({"a": 1, "c": 3}, ("a", "b"))
        >>> columns.matrix, others
        (array([[ 1., nan]]), ['c'])
    """
    if not isinstance(x, Mapping):
        raise ValueError(
            f"a row is a dict, a value for each name of a column; got a {type(x).__name__}: give "
            "dict(zip(names, row)), or use partial_fit and predict for tables"
        )
    cells: Sequence[Any] = [x[name] for name in names if name in x] if names else []
    others: list[str] = []
    if not names or len(cells) < len(names) or len(x) > len(names):
        by_name = {str(name): cell for name, cell in x.items()}
        if len(by_name) < len(x):
            raise ValueError(
                f"a row has each name once; got {', '.join(map(repr, x))[:200]}: two read the same"
            )
        if not by_name and not names:
            raise ValueError(
                "the first row says which columns there are; got a dict of none: give one with names"
            )
        names = names or tuple(by_name)
        cells, column_names = [by_name.get(name) for name in names], set(names)
        others = [name for name in by_name if name not in column_names]
    if _PLAIN.issuperset(map(type, cells)):
        try:
            matrix = np.array([cells], dtype=np.float64)
        except OverflowError:
            matrix = np.full((1, 1), np.inf)  # a whole number that no float64 holds
        if not (np.abs(matrix) >= EXACT).any():
            return Columns.from_matrix(names, matrix), others
    columns = (object_column_of([cell], name) for cell, name in zip(cells, names, strict=True))
    return Columns(names, tuple(columns)), others


def warn_of_names(others: Sequence[str], warned: frozenset[str]) -> frozenset[str]:
    """Warn once of names that no column has; return them, with those `warned` of before."""
    if new := [name for name in others if name not in warned]:
        more = f" and {len(new) - 8} more" if len(new) > 8 else ""
        warnings.warn(
            f"rows bring names that no column has: {', '.join(map(repr, new[:8]))}{more}; they are left out, now and "
            "later. To learn them begin anew, with rows that have them among the first",
            UserWarning,
            stacklevel=5,
        )
    return warned.union(new)
