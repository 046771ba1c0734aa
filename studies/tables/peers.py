"""The learners of `make study NAME=tables`: an adapter for ours, and its peers with their grids.

Source: Rahimi, Recht 2007 (the plain ridge's features); scikit-learn's and river's own references for their
models.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from functools import lru_cache, partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve

import gradatim

from .peer import Peer
from .refits import REFITS
from .river import RiverClassifier, RiverRegressor
from .rows import RowEncoder, RunningScaler

if TYPE_CHECKING:
    from .data import Table

OURS, RIDGE, ADAPTIVE = "gradatim", "plain-ridge", "gradatim-adaptive"
WIDTH, STRENGTH = 512, 2.0
CENTRAL = (0.8, 0.95)
"""Levels of the central intervals of a regressor."""

DIVERGED = ("overflow", "non-finite")
"""Words in the errors of scikit-learn's models when their weights have diverged."""

QUANTILES = tuple(q for level in CENTRAL for q in ((1 - level) / 2, (1 + level) / 2))


class PlainRidge:
    """Recursive least squares on standardised rows, 512 random ReLU features and a constant. Its settings are fixed.

        theta = (F^T F + 2 I)^{-1} F^T Y        classes: softmax(temperature * f(x) theta), Y one-hot

    The target of a regression is centred by its running mean.
    """

    def __init__(self, table: Table, seed: int, temperature: float = 6.0) -> None:
        self.coded, self.classes, self.temperature = RowEncoder(table), table.classes, temperature
        rng = np.random.default_rng(0)
        width = self.coded.width
        self.weight = rng.standard_normal((width, WIDTH)) / np.sqrt(width)
        self.bias = 0.5 * rng.standard_normal(WIDTH)
        size = width + WIDTH + 1
        self.gram, self.moment = np.zeros((size, size)), np.zeros((size, max(self.classes, 1)))
        self.total, self.rows = np.zeros(max(self.classes, 1)), 0
        self.theta: np.ndarray | None = None

    def features(self, x: np.ndarray) -> np.ndarray:
        """Return the features of rows `[n, d]`, `[n, width + 513]`."""
        z = self.coded(x)
        return np.hstack([z, np.maximum(z @ self.weight + self.bias, 0), np.ones((len(z), 1))])

    def learn(self, x: np.ndarray, y: np.ndarray) -> None:
        """Add the rows `[n, d]` to the Gram matrix and the cross-moments."""
        self.coded.learn(x)
        f = self.features(x)
        target = np.eye(self.classes)[y] if self.classes else y[:, None]
        self.gram += f.T @ f
        self.moment += f.T @ target
        self.total += target.sum(0)
        self.rows += len(x)
        self.theta = None

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return class probabilities `[n, classes]`, or means `[n]`."""
        mean = np.zeros_like(self.total) if self.classes else self.total / self.rows
        if self.theta is None:
            system = self.gram.copy()
            ones = system[-1].copy()  # the features summed over the rows: the last of them is one
            system[np.diag_indices_from(system)] += STRENGTH
            factor = cho_factor(system, check_finite=False, overwrite_a=True)
            self.theta = cho_solve(factor, self.moment - ones[:, None] * mean, check_finite=False)
        outputs = mean + self.features(x) @ self.theta
        return softmax(self.temperature * outputs) if self.classes else outputs[:, 0]


def softmax(x: np.ndarray) -> np.ndarray:
    """Return the softmax of each row of `[n, C]`."""
    exp = np.exp(x - x.max(1, keepdims=True))
    return exp / exp.sum(1, keepdims=True)


class PartialFit:
    """A model of scikit-learn with `partial_fit`, on encoded rows. The target of a regression is standardised online.

    `make(seed)` builds it. `repeats` is how often each mini-batch is used, all within the one pass. A diverged
    model predicts NaN from then on.
    """

    def __init__(
        self,
        make: Callable[..., Any],
        table: Table,
        seed: int,
        repeats: int = 1,
        clip: float = 5.0,
        **setting: Any,
    ) -> None:
        self.coded, self.classes, self.repeats = RowEncoder(table, clip), table.classes, repeats
        self.model, self.scale = make(seed, **setting), RunningScaler(1)
        self.first = {"classes": np.arange(table.classes)} if table.classes else {}
        self.broken = False

    def learn(self, x: np.ndarray, y: np.ndarray) -> None:
        """Fit the model to the rows `[n, d]`."""
        self.coded.learn(x)
        z = self.coded(x)
        if not self.classes:
            self.scale.learn(y[:, None])
            y = self.scale(y[:, None])[:, 0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in range(0 if self.broken else self.repeats):
                try:
                    self.model.partial_fit(z, y, **self.first)
                except ValueError as error:  # the model's own word for a diverged setting
                    if not any(word in str(error) for word in DIVERGED):
                        raise
                    self.broken = True
                    return
                self.first = {}

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return class probabilities `[n, classes]`, or numbers `[n]`."""
        z = self.coded(x)
        if self.broken:
            return np.full((len(x), self.classes) if self.classes else len(x), np.nan)
        if not self.classes:
            return self.model.predict(z) * self.scale.spread + self.scale.mean
        with np.errstate(all="ignore"):
            return self.model.predict_proba(z)


def _sgd_classifier(seed: int, **setting: Any) -> Any:
    from sklearn.linear_model import SGDClassifier

    return SGDClassifier(loss="log_loss", random_state=seed, **setting)


def _sgd_regressor(seed: int, **setting: Any) -> Any:
    from sklearn.linear_model import SGDRegressor

    return SGDRegressor(random_state=seed, **setting)


def _mlp_classifier(seed: int, **setting: Any) -> Any:
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier(hidden_layer_sizes=(64,), random_state=seed, **setting)


def _mlp_regressor(seed: int, **setting: Any) -> Any:
    from sklearn.neural_network import MLPRegressor

    return MLPRegressor(hidden_layer_sizes=(64,), random_state=seed, **setting)


def _naive_bayes(seed: int, **setting: Any) -> Any:
    from sklearn.naive_bayes import GaussianNB

    return GaussianNB(**setting)


class RefinedEstimator:
    """`RefinedClassifier` or `RefinedRegressor`, called as a user does.

    A table with categories is passed as a data frame. Its category columns are strings, all others are numbers.
    """

    def __init__(self, table: Table, seed: int, **setting: Any) -> None:
        from gradatim.estimators import RefinedClassifier, RefinedRegressor

        self.classes, self.columns = table.classes, table.categorical
        make = RefinedClassifier if table.classes else RefinedRegressor
        self.model: Any = make(random_state=0, **setting)

    def frame(self, x: np.ndarray) -> Any:
        """Return rows `[n, d]` in the format of a user."""
        if not self.columns:
            return x
        import pandas

        table = pandas.DataFrame(x, columns=[f"x{j}" for j in range(x.shape[1])])
        for c in self.columns:
            table[f"x{c}"] = [None if code != code else f"level {code:g}" for code in x[:, c]]
        return table

    def learn(self, x: np.ndarray, y: np.ndarray) -> None:
        """Learn rows `[n, d]`. The classes are known at the start."""
        if self.classes:
            self.model.partial_fit(self.frame(x), y, classes=np.arange(self.classes))
        else:
            self.model.partial_fit(self.frame(x), y)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return class probabilities `[n, classes]`, or the mean and `QUANTILES`, `[n, 1 + q]`."""
        rows = self.frame(x)
        if not self.classes:
            quantiles = self.model.predict(rows, quantiles=list(QUANTILES))
            return np.column_stack([self.model.predict(rows), quantiles])
        probabilities = np.zeros((len(x), self.classes))
        probabilities[:, np.asarray(self.model.classes_, dtype=int)] = self.model.predict_proba(rows)
        return probabilities


_RATES = tuple({"learning_rate_init": r, "repeats": k} for r in (3e-3, 1e-2, 3e-2) for k in (1, 4, 10))
_LONGER = (*_RATES, *({"learning_rate_init": r, "repeats": 20} for r in (3e-3, 1e-2)))
_SGD = (
    *({"learning_rate": "optimal", "alpha": alpha} for alpha in (1e-4, 1e-3, 1e-2)),
    *({"learning_rate": "constant", "eta0": r, "repeats": k} for r in (0.01, 0.03, 0.1, 0.3) for k in (1, 4)),
    *({"learning_rate": "constant", "eta0": r, "repeats": 10} for r in (0.03, 0.1)),
)
_STEPS = tuple(
    {"learning_rate": schedule, "eta0": rate, "repeats": k}
    for schedule in ("invscaling", "constant")
    for rate in (0.003, 0.01, 0.03, 0.1)
    for k in (1, 4)
)
_FOREST = tuple({"grace_period": g, "delta": d} for g in (10, 50) for d in (0.01, 0.1))
_TREE = tuple({"grace_period": g, "delta": d} for g in (50, 200) for d in (1e-7, 1e-3))
_LEAVES = (
    {"grace_period": 50, "leaf_prediction": "mean"},
    {"grace_period": 50, "leaf_prediction": "adaptive"},
    {"grace_period": 10, "delta": 0.1, "leaf_prediction": "mean"},
    {"grace_period": 10, "delta": 0.1, "leaf_prediction": "adaptive"},
)
_ADAPTIVE = Peer(RefinedEstimator, ({"memory": "adaptive"},), "gradatim")
CLASSIFIERS: dict[str, Peer] = {
    OURS: Peer(RefinedEstimator, package="gradatim"),
    RIDGE: Peer(PlainRidge, tuple({"temperature": t} for t in (2.0, 3.0, 4.0, 6.0, 8.0, 12.0)), "scipy"),
    "sgd": Peer(partial(PartialFit, _sgd_classifier), _SGD),
    "mlp-64": Peer(partial(PartialFit, _mlp_classifier), _RATES),
    "gaussian-nb": Peer(
        partial(PartialFit, _naive_bayes), tuple({"var_smoothing": v} for v in (1e-9, 1e-3, 1e-2, 1e-1, 1.0))
    ),
    "river-forest": Peer(partial(RiverClassifier, "forest"), _FOREST, "river", 1),
    "river-tree": Peer(partial(RiverClassifier, "tree"), _TREE, "river", 1),
    ADAPTIVE: _ADAPTIVE,
    **REFITS["classification"],
}
REGRESSORS: dict[str, Peer] = {
    OURS: Peer(RefinedEstimator, package="gradatim"),
    RIDGE: Peer(PlainRidge, package="scipy"),
    "sgd": Peer(partial(PartialFit, _sgd_regressor), _STEPS),
    "mlp-64": Peer(partial(PartialFit, _mlp_regressor), _LONGER),
    "river-forest": Peer(RiverRegressor, _LEAVES, "river", 1),
    ADAPTIVE: _ADAPTIVE,
    **REFITS["regression"],
}
"""All learners, by kind of table. A grid of one setting is fixed."""

ASIDE = (ADAPTIVE, *dict.fromkeys([*REFITS["classification"], *REFITS["regression"]]))
"""Learners that are shown and take no part in ranks: our other setting, and models that see rows many times."""

PACKAGES = ("river", "lightgbm")
"""What a full study needs, and a smoke run does without."""

SOURCES = (
    "estimators",
    "preprocessing",
    "memory",
    "batch.py",
    "committees.py",
    "forgetting.py",
    "interface.py",
    "learner.py",
    "likelihood.py",
    "one_row.py",
    "predictor.py",
    "refiner.py",
    "regimes.py",
    "signal.py",
    "table_features.py",
    "table_spread.py",
    "table_task.py",
    "tree.py",
    "predictors/committee.py",
    "refiners/answers.py",
    "refiners/base_rates.py",
    "refiners/experts.py",
    "refiners/experts_state.py",
    "refiners/foresight.py",
    "refiners/heads.py",
    "refiners/left_out.py",
    "refiners/pending.py",
    "refiners/schedule.py",
    "refiners/stacking.py",
    "refiners/statistics.py",
    "refiners/stored.py",
    "refiners/transformed.py",
    "refiners/triangular.py",
    "nn/carry.py",
    "nn/fixed_features.py",
    "nn/landmarks.py",
    "nn/mixture.py",
    "nn/trees.py",
    "nn/widths.py",
)
"""Source files and folders in gradatim that decide the predictions of our estimators; a test looks for others."""


def peers(kind: str) -> dict[str, Peer]:
    """Return the learners of a kind of table, ours first."""
    return CLASSIFIERS if kind == "classification" else REGRESSORS


def missing() -> list[str]:
    """Return the packages of peers that are not installed."""
    return [name for name in PACKAGES if find_spec(name) is None]


@lru_cache(maxsize=4)
def fingerprint(*more: str) -> str:
    """Return the version, and a hash of the source text of the estimators and of `more`."""
    paths = [Path(gradatim.__file__).parent / name for name in (*SOURCES, *more)]
    files = [file for path in paths for file in (sorted(path.rglob("*.py")) if path.is_dir() else [path])]
    text = b"".join(file.read_bytes() for file in files)
    return f"{version('gradatim')}-{hashlib.sha256(text).hexdigest()[:12]}"


def version_of(name: str, kind: str) -> str:
    """Return what a learner's records depend on besides its setting: the version of its package, or our fingerprint."""
    package = peers(kind)[name].package
    return fingerprint() if package == "gradatim" else f"{package} {version(package)}"
