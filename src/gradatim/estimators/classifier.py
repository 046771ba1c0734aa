"""A classifier for tables: ridge heads averaged by their predictive likelihood, in one pass.

Source: Pedregosa et al. 2011 (the estimator's interface).
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _num_samples, check_is_fitted, column_or_1d

from .base import Refined

if TYPE_CHECKING:
    from collections.abc import Iterator


KINDS = {"O": "words", "U": "words", "S": "words", "b": "truth values"}


class RefinedClassifier(ClassifierMixin, Refined):
    """Classify rows of a table, from the first ones to any number, in one pass at bounded memory.

    `p(y | x) = sum_e w_e softmax_e(theta_e phi(x))`: ridge heads on families of features, several strengths and
    sharpnesses of each, weighted by the likelihood they gave to rows before they saw them (`refiners.Experts`).

    Tables may be NumPy arrays, SciPy sparse matrices, pandas, polars or Arrow tables, of numbers, booleans, strings,
    categories and dates, with missing values. `partial_fit` gathers how columns are mapped to numbers from the first
    256 rows and then keeps that map; `fit` takes it from all rows.

    Args: `model`: `"experts"`, the path of a checkpoint, or a `Learner` (its inputs must be as wide as the encoded
    table); `batch_size`: rows that are learnt at a time; `n_passes` over the rows in `fit`, of a given learner;
    `n_estimators`: members that draw other features, averaged; `device`; `random_state`.

    Attributes: `classes_`; `n_features_in_`; `feature_names_in_` of named columns.

    Example:
        >>> model = RefinedClassifier()
        >>> for X, y in stream:
        ...     model.partial_fit(X, y)
        >>> model.predict_proba(X_new)

    Source: Hoerl, Kennard 1970, eq. 2.1; Dawid 1984; Raftery et al. 1997, eq. 1.
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Learn a whole table, forgetting what was known; rows of weight k count as k rows.

        Raises:
            ValueError: no rows, infinity, a y that is no class, lengths that differ.
        """
        with self._unharmed():
            y = self._checked(y)
            labels, codes = np.unique(y, return_inverse=True)
            rows = self._rows(X, codes, sample_weight, reset=True)
            task = self._new_task(len(labels))
            task.fit(rows, self.batch_size, self.n_passes)
            self.classes_, self.task_ = labels, task
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Learn more rows. `classes`: all that there are, as far as they are known; new ones may come at any time.

        Raises:
            ValueError: as `fit`; other columns than before, labels of another type.
        """
        with self._unharmed():
            y = self._checked(y)
            begun = hasattr(self, "task_")
            known = self.classes_ if begun else np.unique(y if classes is None else self._checked(classes))
            if classes is not None and begun and not _same(known, np.asarray(classes)):
                known = _union(known, self._checked(classes))
            labels = _union(known, y)
            rows = self._rows(X, np.searchsorted(labels, y), sample_weight, reset=not begun)
            if begun:
                self._warn_of_strays(rows.columns)
            task = copy.copy(self.task_) if begun else self._new_task(len(labels))
            if begun and len(labels) > len(self.classes_):
                task.widen(np.searchsorted(labels, self.classes_), len(labels))
            task.partial_fit(rows, self.batch_size)
            self.classes_, self.task_ = labels, task
        return self

    def remap(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Begin again with rows of another range: the map is gathered anew, what was learnt is forgotten."""
        check_is_fitted(self)
        fresh = type(self)(**self.get_params(deep=False))
        fresh.partial_fit(X, y, classes=self.classes_, sample_weight=sample_weight)
        self.__dict__.update(fresh.__dict__)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return probabilities `[n, C]`, float64, columns as in `classes_`.

        Raises:
            ValueError: other columns than were learnt.
        """
        check_is_fitted(self)
        columns = self._columns(X, reset=False)
        chances = self.task_.outputs_of(columns, self.batch_size)
        return chances / chances.sum(1, keepdims=True)

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Return the logs of `predict_proba`."""
        return np.log(self.predict_proba(X))

    def predict(self, X: Any) -> np.ndarray:
        """Return the most likely class of each row, `[n]`."""
        chances = self.predict_proba(X)
        return self.classes_[chances.argmax(1)]

    def staged_predict_proba(self, X: Any, more: tuple[Any, Any]) -> Iterator[np.ndarray]:
        """Yield the probabilities of X after each further mini-batch of rows `more = (X, y)`: the anytime curve.

        A copy learns them; the estimator stays as it is. Columns are for all classes, known or in y; of those that are
        not yet known the first answer is 0, and one that has not begun yields the uniform first.
        """
        made = copy.deepcopy(self)
        rows, y = more
        y = self._checked(y)
        known = self.classes_ if hasattr(self, "task_") else np.unique(y)
        labels = _union(known, y)
        if hasattr(self, "task_"):
            first = np.zeros((_num_samples(X), len(labels)))
            first[:, np.searchsorted(labels, known)] = self.predict_proba(X)
        else:
            first = np.full((_num_samples(X), len(labels)), 1 / len(labels))
        yield first
        for start in range(0, len(y), self.batch_size):
            part = slice(start, start + self.batch_size)
            taken = rows.iloc[part] if hasattr(rows, "iloc") else rows[part]
            yield made.partial_fit(taken, y[part], classes=labels).predict_proba(X)

    def _checked(self, y: Any) -> np.ndarray:
        """Return labels `[n]`, of one type."""
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        if isinstance(y, np.ndarray) and y.ndim == 1 and y.dtype.kind in "iub":
            return y  # what there is most, and needs no look
        y = column_or_1d(y, warn=True)
        if y.dtype == object:
            kinds = {type(label).__name__ for label in y.tolist()}
            if len(kinds) > 1:
                raise ValueError(f"labels must be of one type; got {', '.join(sorted(kinds))}")
        check_classification_targets(y)
        return y


def _same(known: np.ndarray, more: np.ndarray) -> bool:
    """Say whether labels are the very ones that are known."""
    return known.dtype.kind == more.dtype.kind and np.array_equal(known, more)


def _union(known: np.ndarray, more: np.ndarray) -> np.ndarray:
    """Return all labels, sorted; raise ValueError where words meet numbers."""
    kinds = [KINDS.get(part.dtype.kind, "numbers") for part in (known, more)]
    if kinds[0] != kinds[1]:
        raise ValueError(
            f"labels change type: classes so far are {kinds[0]}, {known[:4].tolist()}, these are {kinds[1]}, "
            f"{np.unique(more)[:4].tolist()}: use one type"
        )
    place = np.searchsorted(known, more).clip(max=len(known) - 1)
    return known if (known[place] == more).all() else np.union1d(known, more)
