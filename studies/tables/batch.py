"""Batch references: fitted to all rows of the stream at once, and chosen by cross-validation on the same rows.

Source: scikit-learn's estimators; the candidates and the choice are this project's own.
"""

from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from .data import levels
from .rows import RowEncoder
from .scores import macro_recall

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


def evaluate_reference(name: str, table: Table, order: int) -> Values:
    """Return the accuracy of a reference by cross-validation on the stream's rows, and its error and macro recall on
    the held-out rows.

    The latter are those of a fit to all rows of the stream.
    """
    from sklearn.model_selection import KFold

    x, y, heldout_x, heldout_y = table.split(order)
    start, right = time.perf_counter(), 0.0
    for rows, others in KFold(FOLDS, shuffle=True, random_state=order).split(x):
        right += float((_predicted(name, table, order, (x[rows], y[rows]), x[others]) == y[others]).sum())
    wrong = (_predicted(name, table, order, (x, y), heldout_x) != heldout_y).astype(float)
    return {
        "cross_validated": np.asarray(right / len(y)),
        "final_error": np.asarray(wrong.mean()),
        "final_recall": np.asarray(macro_recall(wrong, heldout_y)),
        "seconds": np.asarray(time.perf_counter() - start),
    }


def _predicted(
    name: str, table: Table, order: int, rows: tuple[np.ndarray, np.ndarray], queries: np.ndarray
) -> np.ndarray:
    """Return the classes of queries `[n, d]` after a fit to rows x, y."""
    x, y = rows
    if len(np.unique(y)) == 1:
        return np.full(len(queries), y[0])
    if name == "batch-boosting":
        empty = np.isnan(x).all(0)  # has no bins: a constant in its place tells nothing either
        prepared, seen = (np.where(empty, 0.0, _native(table, rows)) for rows in (x, queries))
    else:
        coded = RowEncoder(table)
        coded.learn(x)
        prepared, seen = coded(x), coded(queries)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _model(name, table, order).fit(prepared, y).predict(seen)


def _native(table: Table, x: np.ndarray) -> np.ndarray:
    """Return rows `[n, d]` with categories numbered from 0, as boosting takes them. Missing values stay NaN."""
    x = x.copy()
    for c, codes in levels(table).items():
        x[:, c] = np.where(np.isnan(x[:, c]), np.nan, np.searchsorted(codes, np.nan_to_num(x[:, c])))
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
    columns: Any = [c for c, codes in levels(table).items() if len(codes) <= 255] or None
    return HistGradientBoostingClassifier(categorical_features=columns, random_state=order)
