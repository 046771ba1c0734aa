"""River's models on the rows of a table. Rows are dictionaries. A mini-batch is predicted, then learnt row by row.

Source: Gomes et al. 2017 (adaptive random forests); Bifet, Gavalda 2009 (Hoeffding adaptive trees).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .rows import RowEncoder, RunningScaler

if TYPE_CHECKING:
    from .data import Table

Row = dict[str, float | str]


class RiverClassifier:
    """An adaptive random `forest`, or a Hoeffding adaptive `tree`, of river.

    Numbers are not scaled, and a missing one is replaced by the running mean. Categories are strings, and a
    missing one is a category.

    Raises:
        ValueError: river is not installed.
    """

    def __init__(self, name: str, table: Table, seed: int, **setting: Any) -> None:
        self.classes, self.columns = table.classes, list(table.categorical)
        self.numbers = [j for j in range(table.x.shape[1]) if j not in self.columns]
        self.running = RunningScaler(len(self.numbers))
        self.model = build(name, "classification", seed, **setting)

    def named(self, x: np.ndarray) -> list[Row]:
        """Return rows `[n, d]` as river's dictionaries."""
        filled = np.where(np.isnan(x[:, self.numbers]), self.running.mean, x[:, self.numbers])
        rows: list[Row] = [
            {f"x{j}": value for j, value in zip(self.numbers, row, strict=True)} for row in filled.tolist()
        ]
        for c in self.columns:
            for row, code in zip(rows, x[:, c].tolist(), strict=True):
                row[f"x{c}"] = "missing" if code != code else f"level {code:g}"
        return rows

    def learn(self, x: np.ndarray, y: np.ndarray) -> None:
        """Learn the rows `[n, d]` one by one."""
        self.running.learn(x[:, self.numbers])
        for row, answer in zip(self.named(x), y.tolist(), strict=True):
            self.model.learn_one(row, answer)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return class probabilities `[n, classes]`. They are uniform where the model has none."""
        probabilities = np.zeros((len(x), self.classes))
        for probability, row in zip(probabilities, self.named(x), strict=True):
            for label, share in self.model.predict_proba_one(row).items():
                probability[label] = share
        total = probabilities.sum(1, keepdims=True)
        return np.where(total > 0, probabilities / np.where(total > 0, total, 1.0), 1 / self.classes)


class RiverRegressor:
    """An adaptive random forest of river for regression, on encoded rows. The target is standardised online.

    The linear models in its leaves need both.

    Raises:
        ValueError: river is not installed.
    """

    def __init__(self, table: Table, seed: int, **setting: Any) -> None:
        self.coded, self.target = RowEncoder(table), RunningScaler(1)
        self.model = build("forest", "regression", seed, **setting)

    def learn(self, x: np.ndarray, y: np.ndarray) -> None:
        """Learn the rows `[n, d]` one by one."""
        self.coded.learn(x)
        self.target.learn(y[:, None])
        answers = self.target(y[:, None])[:, 0].tolist()
        for row, answer in zip(self.coded(x).tolist(), answers, strict=True):
            self.model.learn_one(dict(enumerate(row)), answer)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return numbers `[n]`."""
        predictions = [float(self.model.predict_one(dict(enumerate(row)))) for row in self.coded(x).tolist()]
        return np.asarray(predictions) * self.target.spread + self.target.mean


def build(name: str, kind: str, seed: int, **setting: Any) -> Any:
    """Return a model of river.

    Raises:
        ValueError: river is not installed.
    """
    try:
        from river import forest, tree  # type: ignore[reportAttributeAccessIssue]
    except ImportError as error:
        raise ValueError("river's peers are not installed: pip install gradatim[studies]") from error
    if name == "tree":
        return tree.HoeffdingAdaptiveTreeClassifier(seed=seed, **setting)
    make = forest.ARFClassifier if kind == "classification" else forest.ARFRegressor
    return make(seed=seed, **setting)
