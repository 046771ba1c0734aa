"""A regressor for tables: ridge heads averaged by their predictive likelihood, in one pass.

Source: Pedregosa et al. 2011 (the estimator's interface).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils.validation import check_is_fitted

from ..groups import GroupedRegressor
from ..one_row import OneNumber
from ..preprocessing.labels import read_targets
from ..table_task import TableTask
from .base import RAVEL, Refined

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..preprocessing.rows import Rows


class RefinedRegressor(RegressorMixin, OneNumber, Refined):
    """Predict numbers from rows of a table, from the first ones to any number, in one pass at bounded memory.

    `p(y | x) = sum_e w_e Student_e(y; theta_e phi(x), s_e)`: ridge heads on families of features, several strengths and
    tails of each, weighted by the likelihood they gave to rows before they saw them (`gradatim.refiners.Experts`).
    Tables, maps and arguments as in `RefinedClassifier`; `prior` is of a `GroupedRegressor`.

    Attributes: `n_features_in_`; `feature_names_in_` of named columns.

    Example:
        >>> import numpy as np
        >>> from gradatim import RefinedRegressor
        >>> X = np.random.default_rng(0).normal(size=(500, 3))
        >>> model = RefinedRegressor().partial_fit(X, X[:, 0] + X[:, 1])
        >>> model.predict([[1.0, 1.0, 0.0]], quantiles=[0.1, 0.5, 0.9]).round(1)
        array([[2., 2., 2.]])

    Source: Hoerl, Kennard 1970, eq. 2.1; Dawid 1984; Raftery et al. 1997, eq. 1.
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Learn a whole table, forgetting what was known; rows of weight k count as k rows.

        Raises:
            ValueError: no rows, infinity, a y that is no finite number, lengths that differ.
        """
        with self._unharmed():
            rows = self._rows(X, y, sample_weight, fit=True)
            self._fit(rows, rows.y, None)
        return self

    def prepare(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fix the map from columns to numbers by a sample of rows to come, X `[n, columns]`, y `[n]`; learn none.

        Raises:
            ValueError: as `fit`; rows were learnt already.
        """
        return self._prepare(X, y, sample_weight)

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Learn more rows X `[n, columns]`, y `[n]`.

        Raises:
            ValueError: as `fit`; other columns than before.
        """
        with self._unharmed():
            self._learn(self._rows(X, y, sample_weight))
        return self

    def predict_then_learn(self, X: Any, y: Any, sample_weight: Any = None) -> np.ndarray:
        """Learn rows and return their means `[n]`, each predicted before its mini-batch is learnt; NaN at the start.

        Rows are predicted a few mini-batches at a time, at most an eighth of those learnt, and encoded once.

        Raises:
            ValueError: as `partial_fit`.
        """
        with self._unharmed():
            rows = self._rows(X, y, sample_weight)
            return np.concatenate([means for _, means in self._ahead(rows)])

    def predict(self, X: Any, quantiles: Sequence[float] | None = None, return_std: bool = False) -> Any:
        """Return means `[n]`; or quantiles `[n, Q]` of the predictive distribution; or `(means, deviations)`.

        After one row nothing is known of the spread of y: quantiles but the median are infinite, and deviations.

        Raises:
            ValueError: other columns than were learnt, a quantile outside (0, 1), both wanted, a learner as model that
                answers a mean only.
        """
        check_is_fitted(self)
        columns = self._columns(X, reset=False)
        if quantiles is None:
            if not return_std:
                return self._predict(columns, TableTask.outputs_at)
            mean, deviation = self._predict(columns, TableTask.deviations).T
            return mean, deviation
        levels = np.asarray(quantiles, dtype=np.float64)
        if return_std or levels.ndim != 1 or not ((levels >= 1e-12) & (levels <= 1 - 1e-12)).all():
            raise ValueError(
                f"quantiles must lie in (0, 1), 1e-12 from its ends, without return_std; got {quantiles!r}"
            )
        return self._predict(columns, partial(TableTask.quantiles, levels=levels))

    def _kind(self) -> Any:
        return GroupedRegressor

    def _learn(self, rows: Rows, x: np.ndarray | None = None, classes: Any = None) -> None:
        if not hasattr(self, "task_"):
            self.task_ = self._new_task(None)
        self._learn_targets(rows, rows.y, x)

    def _targets(self, rows: Rows) -> Rows:
        if not hasattr(self, "task_"):
            self.task_ = self._new_task(None)
        return rows

    def _checked(self, y: Any) -> np.ndarray:
        """Return finite numbers `[n]`."""
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        return read_targets(y, RAVEL)
