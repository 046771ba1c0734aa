"""A classifier for tables: ridge heads averaged by their predictive likelihood, in one pass.

Source: Pedregosa et al. 2011 (the estimator's interface).
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.validation import _num_samples, check_is_fitted

from ..groups import GroupedClassifier
from ..one_row import OneLabel
from ..preprocessing.labels import align, positions, read_labels, union
from ..table_task import TableTask
from .base import RAVEL, SHIPPED, Refined

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ..learner import Learner
    from ..preprocessing.rows import Rows


class RefinedClassifier(ClassifierMixin, OneLabel, Refined):
    """Classify rows of a table, from the first ones to any number, in one pass at bounded memory.

    `p(y | x) = sum_e w_e softmax_e(theta_e phi(x))`: ridge heads on families of features, several strengths and
    sharpnesses of each, weighted by the likelihood they gave to rows before they saw them (`refiners.Experts`).

    Tables may be NumPy arrays, SciPy sparse matrices, pandas, polars or Arrow tables, of numbers, booleans, strings,
    categories and dates, with missing values. `partial_fit` takes the map from columns to numbers from the first
    256 rows; new words, and columns that vary only later, extend it. `fit` takes it from all rows.

    Args:
        model: `"experts"`, the path of a checkpoint, or a `Learner` whose inputs are as wide as the encoded table.
        batch_size: rows that are learnt at a time.
        n_passes: over the rows in `fit`, of a learner that does not count every row once.
        n_estimators: members that draw other features, averaged.
        device: where PyTorch computes.
        random_state: of the features.
        memory: `"all"` rows count alike; `"adaptive"`, or a number of rows: answers follow a stream that changes.
        class_weight: what a row of each class counts, times its `sample_weight`: a dict of positive numbers by label,
            1 where it names none; or `"balanced"`, by which classes count alike. `fit` counts them for that, and
            `prepare` in its sample. Rows that come later count by the same numbers. `partial_fit` does not begin so.
        prior: what tables of the same columns share: a file of `GroupedClassifier.save_prior`, or a fitted one. The
            table begins there, and its rows decide how much the prior says.

    Attributes:
        classes_: the labels, sorted.
        class_weight_: what `"balanced"` stands for, a dict.
        n_features_in_: how many columns.
        feature_names_in_: the names of named columns.

    Example:
        >>> import numpy as np
        >>> from gradatim import RefinedClassifier
        >>> X = np.random.default_rng(0).normal(size=(640, 3))
        >>> y = np.where(X[:, 0] * X[:, 1] > 0, "same", "different")
        >>> model = RefinedClassifier()
        >>> for start in range(0, 640, 64):
        ...     model = model.partial_fit(X[start : start + 64], y[start : start + 64])
        >>> model.predict([[1.0, 1.0, 0.0], [1.0, -1.0, 0.0]]).tolist()
        ['same', 'different']

    Source: Hoerl, Kennard 1970, eq. 2.1; Dawid 1984; Raftery et al. 1997, eq. 1.
    """

    def __init__(
        self,
        model: str | Path | Learner = "experts",
        batch_size: int = 32,
        n_passes: int = 1,
        n_estimators: int = 1,
        device: str = "cpu",
        random_state: Any = 0,
        memory: str | int = "all",
        class_weight: Any = None,
        prior: Any = None,
    ) -> None:
        super().__init__(model, batch_size, n_passes, n_estimators, device, random_state, memory, prior)
        self.class_weight = class_weight

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Learn a whole table, forgetting what was known; rows of weight k count as k rows.

        Raises:
            ValueError: no rows, infinity, a y that is no class, lengths that differ, a `class_weight` of other labels.
        """
        with self._unharmed():
            rows = self._rows(X, y, sample_weight, fit=True)
            labels = self._all_labels(np.unique(rows.y))
            self._check_weights(labels)
            self._fit(rows, positions(labels, rows.y), len(labels))
            self.classes_ = labels
        return self

    def prepare(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> Self:
        """Fix the map from columns to numbers by a sample of rows to come, X `[n, columns]`, y `[n]`; learn none.

        Raises:
            ValueError: as `fit`; rows were learnt already.
        """
        return self._prepare(X, y, sample_weight, classes=classes)

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Learn more rows X `[n, columns]`, y `[n]`.

        `classes`: all that there are, as far as they are known; new ones may come at any time.

        Raises:
            ValueError: as `fit`; other columns than before, labels of another type; `class_weight="balanced"` where
                neither `fit` nor `prepare` has counted the classes.
        """
        with self._unharmed():
            self._learn(self._rows(X, y, sample_weight), classes=classes)
        return self

    def predict_then_learn(
        self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None, proba: bool = False
    ) -> np.ndarray:
        """Learn rows and return their labels `[n]`, each predicted before its mini-batch is learnt.

        Many rows are predicted a few mini-batches at a time, at most an eighth of those learnt. Before anything is
        learnt, all classes are equally likely. Each row is read and encoded once. `proba`: probabilities `[n, C]`
        instead, columns as in `classes_` afterwards; that of a class before its first row is 0.

        Raises:
            ValueError: as `partial_fit`.

        Example:
            >>> import numpy as np
            >>> from gradatim import RefinedClassifier
            >>> X = np.random.default_rng(0).normal(size=(600, 3))
            >>> labels = RefinedClassifier().predict_then_learn(X, X[:, 0] > 0)
            >>> bool((labels == (X[:, 0] > 0))[300:].mean() > 0.95)
            True
        """
        with self._unharmed():
            parts = [*self._ahead(self._rows(X, y, sample_weight), classes)]
        if proba:
            return np.concatenate([align(part, labels, self.classes_) for labels, part in parts])
        return np.concatenate([labels[part.argmax(1)] for labels, part in parts])

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return probabilities `[n, C]`, float64, columns as in `classes_`.

        Raises:
            ValueError: other columns than were learnt.
        """
        check_is_fitted(self)
        return self._predict(self._columns(X, reset=False), TableTask.outputs_at)

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Return the logs of `predict_proba`, `[n, C]`."""
        return np.log(self.predict_proba(X))

    def predict(self, X: Any) -> np.ndarray:
        """Return the most likely class of each row, `[n]`."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(1)]

    def staged_predict_proba(self, X: Any, more: tuple[Any, Any]) -> Iterator[np.ndarray]:
        """Yield probabilities of X, `[n, C]`, after each further mini-batch of rows `more = (X, y)`.

        A copy learns them; the estimator stays as it is. Columns are for all classes, known or in y; of those that are
        not yet known the first answer is 0, and one that is not fitted yields the uniform first.
        """
        learner, (rows, y) = copy.deepcopy(self), more
        y = self._checked(y)
        fitted = hasattr(self, "task_")
        labels = union(self.classes_, y) if fitted else np.unique(y)
        uniform = np.full((_num_samples(X), len(labels)), 1 / len(labels))
        yield align(self.predict_proba(X), self.classes_, labels) if fitted else uniform
        for start in range(0, len(y), self.batch_size):
            part = slice(start, start + self.batch_size)
            batch = rows.iloc[part] if hasattr(rows, "iloc") else rows[part]
            yield learner.partial_fit(batch, y[part], classes=labels).predict_proba(X)

    def _learn(self, rows: Rows, x: np.ndarray | None = None, classes: Any = None) -> None:
        if not hasattr(self, "task_"):
            # a learner that is given has so many outputs as there are classes in the first call
            first = rows.y[:1] if isinstance(self.model, str) and self.model in SHIPPED else rows.y
            self._begin(first if classes is None else self._checked(classes))
        elif classes is not None and not np.array_equal(self.classes_, classes):
            self._widen(union(self.classes_, self._checked(classes)))
        while len(rows):
            # a class is known from its first row on, however rows are cut into calls
            seen = union(self.classes_, rows.y) is self.classes_
            new = (
                [] if seen else np.flatnonzero(~np.isin(rows.y.astype(object), self.classes_.astype(object)))
            )
            n = int(new[0]) if len(new) else len(rows)
            piece = rows.take(slice(n)) if n < len(rows) else rows
            self._learn_targets(piece, positions(self.classes_, piece.y), x if x is None else x[:n])
            if len(new):
                self._widen(union(self.classes_, rows.y[n : n + 1]))
            rows, x = rows.take(slice(n, None)), None

    def _begin(self, labels: np.ndarray) -> None:
        """Begin a task whose classes are these labels `[n]`, as far as is known."""
        self.classes_ = self._all_labels(np.unique(labels))
        self.task_ = self._new_task(len(self.classes_))

    def _all_labels(self, labels: np.ndarray) -> np.ndarray:
        """Return the labels `[C]` of a table: of one that begins at a prior, those of the prior."""
        known = None if self.start_ is None else self.start_.classes
        if known is None:
            return labels
        if len(union(known, labels)) > len(known):
            new = next(label for label in labels.tolist() if label not in set(known.tolist()))
            raise ValueError(
                f"the prior knows the classes {', '.join(map(str, known[:8]))}; got {new}: leave those rows out, or "
                "leave prior out"
            )
        return known

    def _kind(self) -> Any:
        return GroupedClassifier

    def _widen(self, labels: np.ndarray) -> None:
        """Go on with all these labels `[C]`, sorted."""
        labels = self._all_labels(labels)
        if len(labels) > len(self.classes_):
            self.task_.widen(positions(labels, self.classes_), len(labels))
        self.classes_ = labels

    def _targets(self, rows: Rows, classes: Any = None) -> Rows:
        labels = union(np.unique(rows.y), rows.y if classes is None else self._checked(classes))
        if not hasattr(self, "task_"):
            self._begin(labels)
        self._widen(union(self.classes_, labels))
        return replace(rows, y=positions(self.classes_, rows.y).astype(np.float64))

    def _checked(self, y: Any) -> np.ndarray:
        """Return labels `[n]`, of one type."""
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        return read_labels(y, RAVEL)
