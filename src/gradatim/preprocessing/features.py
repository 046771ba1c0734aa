"""The columns of an estimator: how many, of which names, the same at every call.

Source: Pedregosa et al. 2011 (`n_features_in_` and `feature_names_in_` of the estimator's interface).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .columns import Columns

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
