"""Models that see rows many times: fitted anew to all rows so far, whenever these have doubled.

Source: Ke et al. 2017 (LightGBM); the others are scikit-learn's own models.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .peer import Peer
from .rows import RowEncoder

if TYPE_CHECKING:
    from .data import Table

FIRST_FIT = 32
"""Rows of the first refit. The next ones follow whenever the rows have doubled."""


class Shares:
    """Answers the shares of the classes so far, whose largest is the majority, or the running mean."""

    def __init__(self, table: Table, seed: int) -> None:
        self.classes, self.rows = table.classes, 0
        self.total = np.zeros(max(table.classes, 1))

    def learn(self, x: np.ndarray, y: np.ndarray) -> None:
        """Count y `[n]`."""
        self.rows += len(y)
        self.total += np.bincount(y, minlength=self.classes) if self.classes else y.sum()

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return the shares or the mean for each row, `[n, classes]` or `[n]`."""
        shares = np.tile(self.total / self.rows, (len(x), 1))
        return shares if self.classes else shares[:, 0]


class Refits:
    """A model that is fitted anew to all rows so far: at 32 rows and whenever they have doubled.

    `make(seed, table, **setting)` builds it. `encoded` models take standardised numbers and one-hot codes, the others
    the columns as they are. Until it sees two classes it answers the shares.
    """

    def __init__(
        self, make: Callable[..., Any], encoded: bool, table: Table, seed: int, **setting: Any
    ) -> None:
        self.make, self.shares, self.classes = (
            partial(make, seed, table, **setting),
            Shares(table, seed),
            table.classes,
        )
        self.coded = self.seen = RowEncoder(table) if encoded else None
        self.kept: list[tuple[np.ndarray, np.ndarray]] = []
        self.due, self.model = FIRST_FIT, None

    def learn(self, x: np.ndarray, y: np.ndarray) -> None:
        """Keep the rows `[n, d]`, and fit the model where it is due."""
        self.kept.append((x, y))
        self.shares.learn(x, y)
        if self.coded:
            self.coded.learn(x)
        if self.shares.rows < self.due:
            return
        while self.due <= self.shares.rows:
            self.due *= 2
        rows, targets = (np.concatenate(part) for part in zip(*self.kept, strict=True))
        if self.classes and len(np.unique(targets)) < 2:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.seen = deepcopy(self.coded)  # the model answers rows as they were scaled when it was fitted
            self.model = self.make().fit(self._encoded(rows), targets)

    def _encoded(self, x: np.ndarray) -> np.ndarray:
        return x if self.seen is None else self.seen(x)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return class probabilities `[n, classes]`, or numbers `[n]`."""
        if self.model is None:
            return self.shares.predict(x)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not self.classes:
                return self.model.predict(self._encoded(x))
            probabilities = np.zeros((len(x), self.classes))
            probabilities[:, self.model.classes_.astype(int)] = self.model.predict_proba(self._encoded(x))
        return probabilities


def _boosted(seed: int, table: Table, **setting: Any) -> Any:
    import lightgbm

    make = lightgbm.LGBMClassifier if table.classes else lightgbm.LGBMRegressor
    columns = {"categorical_feature": list(table.categorical)} if table.categorical else {}
    return make(random_state=seed, n_jobs=1, verbose=-1, **columns, **setting)


def _forest(seed: int, table: Table, **setting: Any) -> Any:
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    make = RandomForestClassifier if table.classes else RandomForestRegressor
    return make(random_state=seed, n_jobs=1, **setting)


def _linear(seed: int, table: Table, strength: float) -> Any:
    from sklearn.linear_model import LogisticRegression, Ridge

    return LogisticRegression(C=1 / strength, max_iter=300) if table.classes else Ridge(alpha=strength)


LIGHTGBM = "refit-lightgbm"
_TREES = {
    LIGHTGBM: Peer(partial(Refits, _boosted, False), ({}, {"num_leaves": 7}), "lightgbm"),
    "refit-forest": Peer(partial(Refits, _forest, False), ({}, {"min_samples_leaf": 3})),
}
_LINEAR = Peer(partial(Refits, _linear, True), ({"strength": 1.0}, {"strength": 10.0}))
REFITS: dict[str, dict[str, Peer]] = {
    "classification": {**_TREES, "refit-logistic": _LINEAR},
    "regression": {**_TREES, "refit-ridge": _LINEAR},
}
"""Refitted models by kind of table."""
