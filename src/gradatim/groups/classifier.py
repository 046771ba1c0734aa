"""A classifier for rows in groups: what groups share, and what each of them says of itself.

Source: Lindley, Smith 1972; Rifkin, Klautau 2004 (one class against the others); Pedregosa et al. 2011.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score

from ..preprocessing.labels import positions, read_labels
from .base import Grouped


class GroupedClassifier(ClassifierMixin, Grouped):
    """Classify rows in groups (shops, patients, machines): a new group begins at what all groups share.

    `logit p(y | x) = pooled(x) + w_g' phi(x)`, w_g ~ N(m, S), by Laplace's method around five shifts of the logit. So
    of a group sums are kept here too. With more than two classes each has a head against the others, under one prior
    for all of them, and their probabilities are divided by their sum. `GroupedRegressor` has the rest.

    Args:
        prior: what groups share, from elsewhere: the file of `save_prior` or `save`, or a fitted estimator.

    Attributes:
        classes_: the labels, sorted.
        groups_: the names of the groups that are known.
        effects_: how they differ, a dict of columns, in logits.
        n_features_in_: how many columns.
        feature_names_in_: the names of named columns.

    Example:
        >>> import numpy as np
        >>> from gradatim import GroupedClassifier
        >>> rng = np.random.default_rng(0)
        >>> group = np.repeat(np.arange(30), 10)
        >>> X = rng.normal(size=(300, 1))
        >>> y = np.where(3 * rng.normal(size=30)[group] + X[:, 0] > 0, "yes", "no")
        >>> model = GroupedClassifier().fit(X, y, group)
        >>> model.score(X, y, group) > 0.85
        True

    Source: Lindley, Smith 1972, eq. 8; Tierney, Kadane 1986, eq. 2.2; MacKay 1992, eq. 10; Rifkin, Klautau 2004.
    """

    def predict_proba(self, X: Any, groups: Any = None) -> np.ndarray:
        """Return probabilities `[n, C]` of rows X `[n, columns]` of groups `[n]`, columns as in `classes_`.

        Raises:
            ValueError: other columns than were learnt, a row without a group.
        """
        now = self._now()
        return np.concatenate([now.prior_.probabilities(*asked) for asked in now._asked(X, groups)])

    def predict(self, X: Any, groups: Any = None) -> np.ndarray:
        """Return the most likely class of each row, `[n]`."""
        best = self.predict_proba(X, groups).argmax(1)
        return self._now().classes_[best]

    def score(self, X: Any, y: Any, groups: Any = None, sample_weight: Any = None) -> float:  # type: ignore[override]
        """Return the share of rows X `[n, columns]` with y `[n]` of groups `[n]` that are classified right."""
        return float(accuracy_score(y, self.predict(X, groups), sample_weight=sample_weight))

    def _checked(self, y: Any) -> np.ndarray:
        return read_labels(y)

    def _coded(self, y: np.ndarray) -> np.ndarray:
        known = self.classes_.astype(object)
        new = ~np.isin(y.astype(object), known)
        if new.any():
            raise ValueError(
                f"the prior knows the classes {', '.join(map(str, known[:8]))}; got {y[new][0]}: leave those rows "
                "out, or fit again with rows of that class"
            )
        return positions(self.classes_, y).astype(np.float64)

    def _note_classes(self, y: np.ndarray) -> None:
        self.classes_ = np.unique(y)
        if len(self.classes_) < 2:
            raise ValueError(
                f"a classifier needs rows of two classes at least; got one class, {self.classes_[0]}: give rows of "
                "another"
            )

    def _n_classes(self) -> int:
        return len(self.classes_)
