"""One row at a time, as dicts by name: what streams of rows are learnt and predicted with.

Source: Montiel et al. 2021 (River: `learn_one`, `predict_one` and `predict_proba_one` of a row that is a dict).
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from .preprocessing.columns import Columns
from .preprocessing.features import read_row, warn_of_names
from .preprocessing.rows import Rows, read_weights
from .table_task import TableTask

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from torch import Tensor


class OneRow:
    """What both estimators learn of rows that come one by one."""

    batch_size: int
    task_: TableTask
    n_features_in_: int
    feature_names_in_: np.ndarray
    _others: frozenset[str] = frozenset()
    _unharmed: Callable[[], AbstractContextManager[None]]
    _aligned: Callable[..., Columns]
    _checked: Callable[[Any], np.ndarray]
    _weighed: Callable[..., np.ndarray]
    _said: Callable[..., np.ndarray]
    _begun: Callable[..., None]
    _learn: Callable[[Rows], None]

    def learn_one(self, x: dict[Any, Any], y: Any, weight: float = 1.0) -> Self:
        """Learn one row: x, its values by name, and its label or number y. The result is that of `partial_fit`.

        - A name that a row lacks is a missing cell.
        - Until the map is fixed, after 256 rows, new names begin columns. Later they are left out, with one warning.
        - Values are numbers, words, truth values, dates or None. A row of weight 0 changes nothing.

        Raises:
            ValueError: x is no dict, or holds an infinite number; y is missing or infinite. Nothing is changed then.

        Example:
            >>> from gradatim import RefinedClassifier
            >>> model = RefinedClassifier()
            >>> for n in range(40):
            ...     model = model.learn_one({"size": n % 8, "colour": "red"}, n % 8 > 3)
            >>> model.predict_one({"size": 7}), model.predict_one({"size": 0, "colour": "red"})
            (True, False)
        """
        with self._unharmed():
            target = self._checked([y])
            weights = self._weighed(target, read_weights(weight or 1.0, 1))
            columns = self._one(x, weights)
            self._begun(columns)
            if weight:
                if hasattr(self, "task_"):
                    self.task_ = copy.copy(self.task_)
                self._learn(Rows(columns, target, weights))
        return self

    def _names(self) -> tuple[str, ...] | None:
        """Return the names of the columns; None before the first row."""
        if (names := getattr(self, "feature_names_in_", None)) is not None:
            return tuple(names.tolist())
        width = getattr(self, "n_features_in_", None)
        return None if width is None else tuple(f"x{place}" for place in range(width))

    def _one(self, x: Any, weight: np.ndarray | None = None) -> Columns:
        """Return a row as columns like those learnt; with `weight [1]` as one to be learnt next."""
        names, task = self._names(), getattr(self, "task_", None)
        columns, others = read_row(x, names)
        is_open = (task is None or task.encoder is None) and (
            names is None or hasattr(self, "feature_names_in_")
        )
        if is_open and weight is not None and (names is None or others):
            columns, _ = read_row(x, (*(names or columns.names), *others))
            self._begin_columns(columns.names)
        elif others and not is_open:
            self._others = warn_of_names(others, self._others)
        return columns if task is None else self._aligned(columns, weight)

    def _begin_columns(self, names: tuple[str, ...]) -> None:
        """Note the names of columns, more than before; they are missing in the rows that are held."""
        self.n_features_in_, self.feature_names_in_ = len(names), np.array(names, dtype=object)
        task = getattr(self, "task_", None)
        if task is not None and task.warm is not None:
            columns = task.warm.columns
            gaps = tuple(np.full(len(task.warm), np.nan) for _ in names[len(columns.names) :])
            wider = Columns(names, (*columns.values, *gaps), columns.named)
            self.task_ = replace(task, warm=replace(task.warm, columns=wider), early=None)

    def _predict_row(self, x: Any, read: Callable[[TableTask, Tensor], Tensor]) -> np.ndarray | None:
        """Return what `read` returns of the task and of one row; None while nothing is learnt."""
        if not getattr(self, "task_", None) or not self.task_.count:
            read_row(x or {"": None}, self._names())  # what is no row is refused all the same
            return None
        columns = self._one(x)
        task = self.task_.current(self.batch_size)
        return self._said(task, columns, task.encode(columns), read)[0]


class OneLabel(OneRow):
    """What a classifier says of one row."""

    classes_: np.ndarray

    def predict_proba_one(self, x: dict[Any, Any]) -> dict[Any, float]:
        """Return the probability of each label for a row x, by name; {} while nothing is learnt.

        Raises:
            ValueError: x is no dict, or holds an infinite number.
        """
        probabilities = self._predict_row(x, TableTask.outputs_at)
        if probabilities is None:
            return {}
        return dict(zip(self.classes_.tolist(), probabilities.tolist(), strict=True))

    def predict_one(self, x: dict[Any, Any]) -> Any:
        """Return the most likely label of a row x; None while nothing is learnt.

        Raises:
            ValueError: as `predict_proba_one`.
        """
        probabilities = self._predict_row(x, TableTask.outputs_at)
        return None if probabilities is None else self.classes_.tolist()[int(probabilities.argmax())]


class OneNumber(OneRow):
    """What a regressor says of one row."""

    def predict_one(self, x: dict[Any, Any]) -> float:
        """Return the mean of a row x; 0.0 while nothing is learnt.

        Raises:
            ValueError: x is no dict, or holds an infinite number.

        Example:
            >>> from gradatim import RefinedRegressor
            >>> model = RefinedRegressor()
            >>> for n in range(60):
            ...     model = model.learn_one({"a": n % 7, "b": n % 5}, 2 * (n % 7))
            >>> round(model.predict_one({"a": 3, "b": 1}), 1)
            6.0
        """
        mean = self._predict_row(x, TableTask.outputs_at)
        return 0.0 if mean is None else float(mean)
