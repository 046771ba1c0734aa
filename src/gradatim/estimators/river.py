"""The estimators as models of river, for its pipelines and its evaluation.

Source: Montiel et al. 2021 (River: `base.Classifier`, `base.Regressor` and their mini-batches).
"""

from __future__ import annotations

from typing import Any

from .classifier import RefinedClassifier
from .regressor import RefinedRegressor

try:
    from river.base import MiniBatchClassifier, MiniBatchRegressor
except ImportError:  # said where a model is made
    MiniBatchClassifier = MiniBatchRegressor = object


class _River:
    """What both models share. `n_estimators`, `device` and `random_state` as in the estimators."""

    _kind: Any
    _predict_many: str

    def __init__(self, n_estimators: int = 1, device: str = "cpu", random_state: int | None = 0) -> None:
        if MiniBatchClassifier is object:
            raise ImportError("models of river need river, which is not installed: pip install river")
        self.n_estimators, self.device, self.random_state = n_estimators, device, random_state
        self.estimator = self._kind(n_estimators=n_estimators, device=device, random_state=random_state)

    def learn_one(self, x: dict[Any, Any], y: Any, w: float = 1.0) -> None:
        """Learn one row x, a dict, and its y; w is its weight."""
        if not hasattr(self.estimator, "n_features_in_"):  # in river the order of names says nothing
            x = dict(sorted(x.items(), key=lambda item: str(item[0])))
        self.estimator.learn_one(x, y, w)

    def predict_one(self, x: dict[Any, Any], **settings: Any) -> Any:
        """Return the label of a row, None while nothing is learnt; or its number, 0.0 then."""
        return self.estimator.predict_one(x)

    def learn_many(self, X: Any, y: Any, w: Any = None) -> None:
        """Learn the rows of a data frame X `[n, columns]`, y `[n]`."""
        names = getattr(self.estimator, "feature_names_in_", None)
        if names is None or set(map(str, X.columns)) <= set(names):
            self.estimator.partial_fit(self._frame(X), y, sample_weight=w)
            return
        weights = [1.0 if w is None else w] * len(X) if w is None or isinstance(w, int | float) else w
        for row, target, weight in zip(X.to_dict("records"), y, weights, strict=True):  # new names
            self.learn_one(row, target, weight)

    def _frame(self, X: Any) -> Any:
        """Return a data frame with the columns that were learnt, in their order."""
        names = getattr(self.estimator, "feature_names_in_", sorted(X.columns, key=str))
        return X.rename(columns=str).reindex(columns=[str(name) for name in names])

    def predict_many(self, X: Any) -> Any:
        """Return labels or numbers `[n]`, a pandas Series."""
        import pandas as pd

        if not hasattr(self.estimator, "task_"):
            return pd.Series([self.estimator.predict_one({})] * len(X), index=X.index)
        return pd.Series(self.estimator.predict(self._frame(X)), index=X.index)


class RiverClassifier(_River, MiniBatchClassifier):  # type: ignore[misc]
    """A `RefinedClassifier` as a model of river.

    Example:
        >>> from gradatim.estimators.river import RiverClassifier  # doctest: +SKIP
        >>> model = RiverClassifier()  # doctest: +SKIP
        >>> for n in range(60):  # doctest: +SKIP
        ...     model.learn_one({"a": n % 7}, n % 7 > 3)
        >>> model.predict_one({"a": 6})  # doctest: +SKIP
        True
    """

    _kind = RefinedClassifier

    @property
    def _multiclass(self) -> bool:
        return True

    def predict_proba_one(self, x: dict[Any, Any], **settings: Any) -> dict[Any, float]:
        """Return the probability of each label; {} while nothing is learnt."""
        return self.estimator.predict_proba_one(x)

    def _probabilities(self, X: Any) -> Any:
        return self.estimator.predict_proba(self._frame(X))

    def predict_proba_many(self, X: Any) -> Any:
        """Return probabilities `[n, C]`, a pandas DataFrame with a column for each label."""
        import pandas as pd

        if not hasattr(self.estimator, "task_"):
            return pd.DataFrame(index=X.index)
        return pd.DataFrame(self._probabilities(X), index=X.index, columns=self.estimator.classes_)


class RiverRegressor(_River, MiniBatchRegressor):  # type: ignore[misc]
    """A `RefinedRegressor` as a model of river."""

    _kind = RefinedRegressor
