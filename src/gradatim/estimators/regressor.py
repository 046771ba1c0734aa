"""A regressor for tables: ridge heads averaged by their predictive likelihood, in one pass.

Source: Pedregosa et al. 2011 (the estimator's interface).
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils.validation import _check_y, check_is_fitted, column_or_1d

from .base import Refined

if TYPE_CHECKING:
    from collections.abc import Sequence


LARGEST = 1e100
"""Larger numbers have squares that overflow."""


class RefinedRegressor(RegressorMixin, Refined):
    """Predict numbers from rows of a table, from the first ones to any number, in one pass at bounded memory.

    `p(y | x) = sum_e w_e Student_e(y; theta_e phi(x), s_e)`: ridge heads on families of features, several strengths and
    tails of each, weighted by the likelihood they gave to rows before they saw them (`gradatim.refiners.Experts`).
    Tables, maps and arguments as in `RefinedClassifier`.

    Attributes: `n_features_in_`; `feature_names_in_` of named columns.

    Example:
        >>> model = RefinedRegressor().partial_fit(X, y)
        >>> model.predict(X_new, quantiles=[0.1, 0.5, 0.9])

    Source: Hoerl, Kennard 1970, eq. 2.1; Dawid 1984; Raftery et al. 1997, eq. 1.
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Learn a whole table, forgetting what was known; rows of weight k count as k rows.

        Raises:
            ValueError: no rows, infinity, a y that is no finite number, lengths that differ.
        """
        with self._unharmed():
            rows = self._rows(X, self._checked(y), sample_weight, reset=True)
            task = self._new_task(None)
            task.fit(rows, self.batch_size, self.n_passes)
            self.task_ = task
        return self

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Learn more rows.

        Raises:
            ValueError: as `fit`; other columns than before.
        """
        with self._unharmed():
            begun = hasattr(self, "task_")
            rows = self._rows(X, self._checked(y), sample_weight, reset=not begun)
            if begun:
                self._warn_of_strays(rows.columns)
            task = copy.copy(self.task_) if begun else self._new_task(None)
            task.partial_fit(rows, self.batch_size)
            self.task_ = task
        return self

    def remap(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Begin again with rows of another range: the map is gathered anew, what was learnt is forgotten."""
        check_is_fitted(self)
        fresh = type(self)(**self.get_params(deep=False))
        fresh.partial_fit(X, y, sample_weight=sample_weight)
        self.__dict__.update(fresh.__dict__)
        return self

    def predict(self, X: Any, quantiles: Sequence[float] | None = None, return_std: bool = False) -> Any:
        """Return means `[n]`; or quantiles `[n, Q]` of the predictive distribution; or means and deviations.

        Raises:
            ValueError: other columns than were learnt, a quantile outside (0, 1), both wanted.
        """
        check_is_fitted(self)
        columns = self._columns(X, reset=False)
        if quantiles is None:
            mean, variance = self.task_.outputs_of(columns, self.batch_size).T
            return (mean, np.sqrt(variance)) if return_std else mean
        levels = np.asarray(quantiles, dtype=np.float64)
        if return_std or levels.ndim != 1 or not ((levels > 0) & (levels < 1)).all():
            raise ValueError(f"quantiles must lie in (0, 1), without return_std; got {quantiles!r}")
        return self.task_.outputs_of(columns, self.batch_size, levels)

    def _checked(self, y: Any) -> np.ndarray:
        """Return finite numbers `[n]`."""
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        y = np.asarray(_check_y(column_or_1d(y, warn=True), y_numeric=True, estimator=self), dtype=np.float64)
        if np.abs(y).max(initial=0) > LARGEST:
            raise ValueError(
                f"y must be below {LARGEST:g} in size; got {np.abs(y).max():g}: use another unit"
            )
        return y
