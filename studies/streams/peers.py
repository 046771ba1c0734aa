"""The learners of `make study NAME=streams`: ours, river's row by row, refits at doublings, and the simplest guesses.

Source: Gomes et al. 2017 (adaptive random forests), 2019 (streaming random patches); Bifet, Gavalda 2009 (Hoeffding
adaptive trees); the others are scikit-learn's and LightGBM's own models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from studies.tables.peer import Peer
from studies.tables.peers import RefinedEstimator, fingerprint
from studies.tables.refits import REFITS, Shares
from studies.tables.river import RiverClassifier, RiverRegressor, Row, build
from studies.tables.rows import RowEncoder, RunningScaler

from .data import Stream

if TYPE_CHECKING:
    from studies.tables.data import Table

OURS, BY_32, ALL = "gradatim", "gradatim-32", "gradatim-all"
ARF, BATCHED = "river-forest", "river-forest-32"
ASIDE = (BY_32, ALL, BATCHED)
"""Learners that are shown and take no part in ranks: ours and river's forest in mini-batches of 32, ours without
forgetting."""


def ours() -> dict[str, dict[str, Any]]:
    """Return the settings of our estimators: adaptive memory, row by row and by 32, and all rows by 32."""
    return {OURS: {"memory": "adaptive"}, BY_32: {"memory": "adaptive"}, ALL: {"memory": "all"}}


class Ours(RefinedEstimator):
    """Our estimator on a stream. Columns that a mini-batch lacks are not in its frame.

    Where the estimator refuses such rows, its stream ends: from there on it answers what it knows of nothing.
    """

    def __init__(self, table: Table, seed: int, **setting: Any) -> None:
        super().__init__(table, seed, **setting)
        self.absent = table.absent if isinstance(table, Stream) else None
        self.rows, self.ended = 0, False

    def frame(self, x: np.ndarray) -> Any:
        """Return rows `[n, d]` in the format of a user, without the column that is absent."""
        if self.absent is None:
            return super().frame(x)
        import pandas

        rows = super().frame(x)
        if not self.columns:
            rows = pandas.DataFrame(x, columns=[f"x{j}" for j in range(x.shape[1])])
        column, first, last = self.absent
        return rows.drop(columns=f"x{column}") if first <= self.rows < last else rows

    def learn(self, x: np.ndarray, y: np.ndarray) -> None:
        """Learn rows `[n, d]`."""
        with self._refusal():
            super().learn(x, y)
        self.rows += len(x)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return class probabilities `[n, classes]`, or the mean and quantiles `[n, 1 + q]`."""
        with self._refusal():
            if not self.ended:
                return super().predict(x)
        return np.full((len(x), self.classes), 1 / self.classes)

    @contextmanager
    def _refusal(self) -> Iterator[None]:
        """Take the refusal of rows of a stream that lacks a column as its end. Elsewhere an error is one."""
        try:
            yield
        except ValueError:
            if self.absent is None:
                raise
            self.ended = True


class OneByOne(Ours):
    """Our estimator, told one row at a time, as a dict."""

    def learn(self, x: np.ndarray, y: np.ndarray) -> None:
        """Learn rows `[n, d]` one by one."""
        for row, answer in zip(x, y.tolist(), strict=True):
            self.model.learn_one(self.named(row), answer)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return class probabilities `[n, classes]`, or means `[n]`."""
        if not self.classes:
            return np.array([self.model.predict_one(self.named(row)) for row in x])
        probabilities = np.zeros((len(x), self.classes))
        for at, row in enumerate(x):
            for label, probability in self.model.predict_proba_one(self.named(row)).items():
                probabilities[at, label] = probability
        return probabilities

    def named(self, row: np.ndarray) -> dict[str, Any]:
        """Return a row `[d]` as a dict; a code of a category that is NaN is missing."""
        named: dict[str, Any] = {f"x{j}": value for j, value in enumerate(row.tolist())}
        for c in self.columns:
            named[f"x{c}"] = f"level {row[c]:g}" if row[c] == row[c] else None
        return named


class Rows(RiverClassifier):
    """A classifier of river on raw numbers and on words, row by row. `make(seed, **setting)` builds it."""

    def __init__(self, make: Callable[..., Any], table: Table, seed: int, **setting: Any) -> None:
        self.classes, self.columns = table.classes, list(table.categorical)
        self.numbers = [j for j in range(table.x.shape[1]) if j not in self.columns]
        self.running = RunningScaler(len(self.numbers))
        self.model = make(seed, **setting)


class EncodedRows(RiverClassifier):
    """A classifier of river that takes numbers alone: standardised ones, with categories one-hot."""

    def __init__(self, make: Callable[..., Any], table: Table, seed: int, **setting: Any) -> None:
        self.classes, self.coded, self.model = table.classes, RowEncoder(table), make(seed, **setting)

    def named(self, x: np.ndarray) -> list[Row]:
        """Return rows `[n, d]` as river's dictionaries."""
        return [{f"x{j}": value for j, value in enumerate(row)} for row in self.coded(x).tolist()]

    def learn(self, x: np.ndarray, y: np.ndarray) -> None:
        """Learn the rows `[n, d]` one by one."""
        self.coded.learn(x)
        for row, answer in zip(self.named(x), y.tolist(), strict=True):
            self.model.learn_one(row, answer)


class EncodedNumbers(RiverRegressor):
    """A regressor of river on encoded rows. The target is standardised online."""

    def __init__(self, make: Callable[..., Any], table: Table, seed: int, **setting: Any) -> None:
        self.coded, self.target, self.model = RowEncoder(table), RunningScaler(1), make(seed, **setting)


class NoChange:
    """Answers the last class or number that it saw."""

    def __init__(self, table: Table, seed: int) -> None:
        self.classes, self.last = table.classes, 0.0

    def learn(self, x: np.ndarray, y: np.ndarray) -> None:
        """Keep the last target of y `[n]`."""
        self.last = y[-1]

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return it for each row, as probabilities `[n, classes]` or numbers `[n]`."""
        if self.classes:
            return np.tile(np.eye(self.classes)[int(self.last)], (len(x), 1))
        return np.full(len(x), float(self.last))


def _patches(seed: int, **setting: Any) -> Any:
    from river import ensemble  # type: ignore[reportMissingImports]

    return ensemble.SRPClassifier(n_models=10, seed=seed, **setting)


def _stepped(seed: int, rate: float, numbers: bool = False) -> Any:
    """Return river's linear model for classes, one against the rest where there are several, or for numbers."""
    from river import linear_model, multiclass, optim, preprocessing  # type: ignore[reportMissingImports]

    if numbers:
        return preprocessing.StandardScaler() | linear_model.LinearRegression(optimizer=optim.SGD(rate))
    logistic = linear_model.LogisticRegression(optimizer=optim.SGD(rate))
    return preprocessing.StandardScaler() | multiclass.OneVsRestClassifier(logistic)


def _bayes(seed: int) -> Any:
    from river import naive_bayes  # type: ignore[reportMissingImports]

    return naive_bayes.GaussianNB()


def _neighbours(seed: int, window: int) -> Any:
    from river import neighbors  # type: ignore[reportMissingImports]

    return neighbors.KNNClassifier(n_neighbors=5, engine=neighbors.LazySearch(window_size=window))


_FOREST = ({}, {"grace_period": 10, "delta": 0.1})
_RATES = ({"rate": 0.01}, {"rate": 0.1}, {"rate": 1.0})
CLASSIFIERS: dict[str, Peer] = {
    ARF: Peer(partial(Rows, partial(build, "forest", "classification")), _FOREST, "river"),
    "river-patches": Peer(partial(Rows, _patches), ({}, {"subspace_size": 0.8}), "river"),
    "river-tree": Peer(
        partial(Rows, partial(build, "tree", "classification")),
        ({}, {"grace_period": 50}, {"grace_period": 50, "delta": 1e-3}),
        "river",
    ),
    "river-linear": Peer(partial(EncodedRows, _stepped), _RATES, "river"),
    "river-bayes": Peer(partial(EncodedRows, _bayes), package="river"),
    "river-neighbours": Peer(
        partial(EncodedRows, _neighbours), ({"window": 100}, {"window": 500}, {"window": 1000}), "river"
    ),
    "no-change": Peer(NoChange, package="numpy"),
    "majority": Peer(Shares, package="numpy"),
    **REFITS["classification"],
}
REGRESSORS: dict[str, Peer] = {
    ARF: Peer(
        partial(EncodedNumbers, partial(build, "forest", "regression")),
        ({}, {"grace_period": 10, "delta": 0.1}, {"leaf_prediction": "mean"}),
        "river",
    ),
    "river-linear": Peer(
        partial(EncodedNumbers, partial(_stepped, numbers=True)), ({"rate": 0.001}, {"rate": 0.01}), "river"
    ),
    "no-change": Peer(NoChange, package="numpy"),
    "majority": Peer(Shares, package="numpy"),
    **REFITS["regression"],
}
"""Peers by kind of stream. Of numbers `no-change` is the last value and `majority` the running mean."""


def peers(kind: str) -> dict[str, Peer]:
    """Return the peers of a kind of stream, river's forest first."""
    return CLASSIFIERS if kind == "classification" else REGRESSORS


def peer_of(name: str, kind: str) -> Peer:
    """Return a learner: ours under any of its names, or a peer."""
    if name in (OURS, BY_32, ALL):
        return Peer(OneByOne if name == OURS else Ours, package="gradatim")
    return peers(kind)[ARF if name == BATCHED else name]


def version_of(peer: Peer) -> str:
    """Return what a learner's records depend on besides its setting: its package's version, or our fingerprint."""
    return fingerprint() if peer.package == "gradatim" else f"{peer.package} {version(peer.package)}"


def row_by_row(name: str, kind: str) -> bool:
    """Return whether a learner is asked and taught one row at a time: ours, river's, and the simplest guesses."""
    return name == OURS or (name not in ASIDE and peer_of(name, kind).package in ("river", "numpy"))
