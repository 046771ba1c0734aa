"""The columns of an estimator: how many, of which names, the same at every call.

Source: Pedregosa et al. 2011 (`n_features_in_` and `feature_names_in_` of the estimator's interface).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.utils.validation import validate_data

from .columns import Columns

MODEL = "the model"
"""What error messages call an estimator."""


def check_features(estimator: Any, X: Any, columns: Columns, reset: bool) -> Columns:
    """Return the columns of a table X, checked against those that an estimator has learnt, or noted by it (`reset`).

    A row that is a dict may lack a name: its cell is missing, even where no row has it.

    Raises:
        ValueError: another number of columns, or other names.

    Example:
        >>> import numpy as np
        >>> from gradatim import RefinedRegressor
        >>> from gradatim.preprocessing import read_columns
        >>> from gradatim.preprocessing.features import check_features
        >>> X, estimator = np.ones((2, 3)), RefinedRegressor()
        >>> columns = check_features(estimator, X, read_columns(X), reset=True)
        >>> estimator.n_features_in_
        3
    """
    if not (isinstance(X, Mapping) or (isinstance(X, list) and isinstance(X[0], Mapping))):
        validate_data(estimator, X, skip_check_array=True, reset=reset)
        return columns
    if reset:
        estimator.n_features_in_ = len(columns.names)
        estimator.feature_names_in_ = np.array(columns.names, dtype=object)
        return columns
    known = [str(name) for name in getattr(estimator, "feature_names_in_", columns.names)]
    absent = [name for name in known if name not in columns.names]
    gaps = tuple(np.full(columns.n_rows, np.nan) for _ in absent)
    return Columns((*columns.names, *absent), (*columns.values, *gaps)).reorder(tuple(known), True, MODEL)
