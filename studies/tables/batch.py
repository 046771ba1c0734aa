"""Batch references: fitted on all rows of the stream at once, chosen by cross-validation on the same rows.

Source: scikit-learn's estimators; the candidates and the choice are this project's own.
"""

from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from .data import levels
from .rows import Coded

if TYPE_CHECKING:
    from gradatim.comparison.experiment import Values

    from .data import Table

FOLDS = 5
REFERENCES = (
    "batch-logistic-0.1",
    "batch-logistic-1",
    "batch-logistic-10",
    "batch-mlp-0.0001",
    "batch-mlp-0.1",
    "batch-forest",
    "batch-boosting",
)
"""Candidates: logistic regressions by C, networks by their penalty, a random forest, boosted trees."""


def fitted(name: str, table: Table, order: int) -> Values:
    """Return the accuracy of a reference by cross-validation on the stream's rows, and of its fit to all of them on
    the held-out ones."""
    from sklearn.model_selection import KFold

    x, y, _, _ = table.split(order)
    begun, right = time.perf_counter(), 0.0
    for rows, rest in KFold(FOLDS, shuffle=True, random_state=order).split(x):
        right += _right(name, table, order, (x[rows], y[rows]), (x[rest], y[rest]))
    return {
        "cross_validated": np.asarray(right / len(y)),
        "final_error": np.asarray(final_error(name, table, order)),
        "seconds": np.asarray(time.perf_counter() - begun),
    }


def final_error(name: str, table: Table, order: int) -> float:
    """Return the error on the held-out rows of a reference fitted to all rows of the stream."""
    x, y, held_x, held_y = table.split(order)
    return 1 - _right(name, table, order, (x, y), (held_x, held_y)) / len(held_y)


def _right(
    name: str,
    table: Table,
    order: int,
    rows: tuple[np.ndarray, np.ndarray],
    asked: tuple[np.ndarray, np.ndarray],
) -> float:
    """Return how many of the rows asked are classified rightly after a fit."""
    (x, y), (queries, answers) = rows, asked
    if len(np.unique(y)) == 1:
        return float((answers == y[0]).sum())
    if name == "batch-boosting":
        empty = np.isnan(x).all(0)  # has no bins: a constant in its place tells nothing either
        prepared, seen = (np.where(empty, 0.0, _native(table, rows)) for rows in (x, queries))
    else:
        coded = Coded(table)
        coded.learn(x)
        prepared, seen = coded(x), coded(queries)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = _model(name, table, order).fit(prepared, y)
    return float((model.predict(seen) == answers).sum())


def _native(table: Table, x: np.ndarray) -> np.ndarray:
    """Return rows with categories numbered from 0, as boosting takes them; what is missing stays NaN."""
    x = x.copy()
    for c, own in levels(table).items():
        x[:, c] = np.where(np.isnan(x[:, c]), np.nan, np.searchsorted(own, np.nan_to_num(x[:, c])))
    return x


def _model(name: str, table: Table, order: int) -> Any:
    """Return an unfitted reference."""
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier

    if name.startswith("batch-logistic"):
        return LogisticRegression(C=float(name.rpartition("-")[2]), max_iter=1000)
    if name.startswith("batch-mlp"):
        return MLPClassifier((64,), alpha=float(name.rpartition("-")[2]), max_iter=200, random_state=order)
    if name == "batch-forest":
        return RandomForestClassifier(200, random_state=order, n_jobs=1)
    columns: Any = [c for c, own in levels(table).items() if len(own) <= 255] or None
    return HistGradientBoostingClassifier(categorical_features=columns, random_state=order)
