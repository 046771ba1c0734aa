"""Boundaries of classifiers in the plane: three shapes whose best boundary is known, roughness, and rows acquired.

Linear, circles and moons of scikit-learn. The best boundary of circles and moons is that of their density, a sum of
normal ones along their lines; classes of the linear shape are normal, with moments of 5,000 further rows.

Source: Zhao, Nguyen, Grover 2024 (the shapes, labels of a known rule); settings are this project's own.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.special import logsumexp
from sklearn.datasets import make_circles, make_classification, make_moons
from sklearn.exceptions import ConvergenceWarning
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from gradatim.batch import Batch
from gradatim.estimators import RefinedClassifier
from gradatim.families import LinearClassification
from gradatim.learner import Learner
from gradatim.methods import Experts
from gradatim.probing.boundary import Boundary, acquire, boundaries, boundary

if TYPE_CHECKING:
    from collections.abc import Callable

SHAPES = ("linear", "circles", "moons")
NOISE, LINES, FURTHER = 0.05, 2000, 5000
"""Noise of circles and moons, points on their lines, and further rows of the linear shape."""


class Normal:
    """The best classifier of classes that are normal mixtures: class c has `centres[c]`, of one covariance."""

    def __init__(self, centres: list[np.ndarray], covariances: list[np.ndarray]) -> None:
        self.centres, self.classes_ = centres, np.arange(len(centres))
        self.roots = [np.linalg.cholesky(np.linalg.inv(covariance)) for covariance in covariances]

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return probabilities `[n, C]`, classes equally likely beforehand."""
        logs = []
        for centres, root in zip(self.centres, self.roots, strict=True):
            moved, places = X @ root, centres @ root
            squares = (moved**2).sum(1)[:, None] - 2 * moved @ places.T + (places**2).sum(1)
            logs.append(logsumexp(-squares / 2, axis=1) - np.log(len(places)) + np.log(np.diag(root)).sum())
        return np.exp(np.stack(logs, 1) - logsumexp(np.stack(logs, 1), axis=1, keepdims=True))

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return the likeliest class of each row."""
        return self.predict_proba(np.asarray(X)).argmax(1)


def linear_rows(n: int, seed: int, separation: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of the linear shape X `[n, 2]`, y `[n]`."""
    made: Any = make_classification(
        n,
        n_features=2,
        n_informative=2,
        n_redundant=0,
        n_clusters_per_class=1,
        flip_y=0,
        class_sep=separation,
        random_state=seed,
    )
    return made


def drawn(shape: str, n: int, seed: int) -> tuple[np.ndarray, np.ndarray, Normal]:
    """Return rows of a shape X `[n, 2]`, y `[n]`, whose classes alternate, and the best classifier."""
    if shape == "linear":
        X, y = linear_rows(n + FURTHER, seed)
        rest = X[n:], y[n:]
        classes = [rest[0][rest[1] == c] for c in range(2)]
        best = Normal([part.mean(0)[None] for part in classes], [np.cov(part.T) for part in classes])
    else:
        make: Callable[..., Any] = make_circles if shape == "circles" else make_moons
        more = {"factor": 0.5} if shape == "circles" else {}
        X, y = make(2 * n, noise=NOISE, random_state=seed, **more)
        lines, sides = make(LINES, noise=None, **more)
        best = Normal([lines[sides == c] for c in range(2)], [NOISE**2 * np.eye(2)] * 2)
    places = [np.flatnonzero(y == c)[: -(-n // 2)] for c in range(2)]
    order = np.stack([each[: min(map(len, places))] for each in places], 1).ravel()[:n]
    return X[order], y[order], best


class Margin:
    """A support vector machine whose probabilities are the logistic function of its margin."""

    def __init__(self, C: float) -> None:
        self.model = make_pipeline(StandardScaler(), SVC(C=C, gamma="scale"))

    def fit(self, X: np.ndarray, y: np.ndarray) -> Margin:
        """Fit to rows X `[n, 2]`, y `[n]`."""
        self.classes_ = self.model.fit(X, y).classes_
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return probabilities `[n, 2]`."""
        second = 1 / (1 + np.exp(-np.clip(2 * self.model.decision_function(X), -500, 500)))
        return np.stack([1 - second, second], 1)


class Scaled:
    """A `Learner` of ours on columns that are standardised by the rows, as an estimator that is fitted."""

    def __init__(self) -> None:
        self.learner: Learner = Experts().build(LinearClassification(2, 2))

    def fit(self, X: np.ndarray, y: np.ndarray) -> Scaled:
        """Learn rows X `[n, 2]`, y `[n]`, 32 at a time."""
        self.centre, self.scale, self.classes_ = X.mean(0), X.std(0), np.unique(y)
        places = torch.as_tensor(np.searchsorted(self.classes_, y))[None, :, None]
        self.state = self.learner.fit(Batch(self._scaled(X), places), 32)
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return probabilities `[n, C]`."""
        return self.learner.predict(self._scaled(X), self.state)[0].detach().double().softmax(-1).numpy()

    def _scaled(self, X: np.ndarray) -> torch.Tensor:
        return torch.as_tensor((X - self.centre) / self.scale, dtype=torch.float32)[None]


def mlp(alpha: float) -> Any:
    """Return a network of two hidden layers, as published."""
    return make_pipeline(
        StandardScaler(),
        MLPClassifier((32, 32), solver="lbfgs", alpha=alpha, max_iter=200, random_state=0),
    )


GRIDS: dict[str, list[tuple[str, Callable[[], Any]]]] = {
    "RBF-SVM": [(f"C {C:g}", lambda C=C: Margin(C)) for C in (1.0, 10.0, 100.0)],
    "k-NN": [
        (f"{k} neighbours", lambda k=k: make_pipeline(StandardScaler(), KNeighborsClassifier(k)))
        for k in (1, 3, 5)
    ],
    "MLP": [(f"alpha {alpha:g}", lambda alpha=alpha: mlp(alpha)) for alpha in (1e-4, 1e-2, 1.0)],
    "tree": [
        (f"leaves of {n}", lambda n=n: DecisionTreeClassifier(min_samples_leaf=n, random_state=0))
        for n in (1, 3)
    ],
}
"""Settings of each peer; seeds of their own choose one of each."""

OURS: dict[str, Callable[[], Any]] = {
    "RefinedClassifier": RefinedClassifier,
    "RefinedClassifier, four committees": lambda: RefinedClassifier(n_estimators=4),
    "experts, a learner": Scaled,
}
SPREADS = (0.25, 0.5, 1.0, 2.0)


def by_size(make: Callable[[], Any], shape: str, seed: int, sizes: tuple[int, ...], grid: int) -> np.ndarray:
    """Return error on new rows, disagreement with the best, roughness, regions and odd cells, `[sizes, 5]`."""
    n = max(sizes)
    X, y, best = drawn(shape, n + 1000, seed)
    new = X[n:], y[n:]
    found: list[list[float]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for size in sizes:
            model = make()
            if isinstance(model, RefinedClassifier):
                for start in range(0, size, 32):
                    part = slice(start, min(start + 32, size))
                    model.partial_fit(X[part], y[part])
            else:
                model.fit(X[:size], y[:size])
            shown = boundary(model, X[:n], y[:n], grid, reference=best)
            wrong = (model.predict_proba(new[0]).argmax(1) != new[1]).mean()
            found.append([float(wrong), apart(shown, best), shown.roughness, shown.regions, shown.odd])
    return np.array(found)


def apart(shown: Boundary, best: Any) -> float:
    """Return the share of cells whose label is not that of the best classifier."""
    points = np.stack(np.meshgrid(shown.x_axis, shown.y_axis), -1).reshape(-1, 2)
    return float((best.predict(points) != shown.labels.ravel()).mean())


def moved_by_order(
    make: Callable[[], Any], shape: str, seed: int, n: int, grid: int, orders: int = 4
) -> float:
    """Return the share of cells whose label differs between two orders of the same rows, a mean over pairs."""
    X, y, _ = drawn(shape, n, seed)
    generator = np.random.default_rng(seed)
    shown = []
    for _ in range(orders):
        order = generator.permutation(n)
        shown.append(boundaries(make(), X[order], y[order], grid, batch_size=n)[-1].labels)
    return mean_difference(shown)


def mean_difference(shown: list[np.ndarray]) -> float:
    """Return the share of cells in which two grids differ, a mean over pairs."""
    pairs = [(i, j) for i in range(len(shown)) for j in range(i)]
    return float(np.mean([(shown[i] != shown[j]).mean() for i, j in pairs]))


def acquired(
    make: Callable[[], Any],
    shape: str,
    seed: int,
    how: str,
    spread: float = 1.0,
    sizes: tuple[int, int] = (16, 64),
    each: int = 8,
    pool_rows: int = 1000,
) -> float:
    """Return the error at the last size, of rows of a pool that are labelled a few at a time, by the best classifier.

    The pool, and the points of the error, are uniform over the box of 256 rows. `how`: random, entropy or spread.
    All begin with the same rows. Errors of none count as half a point.
    """
    X, _, best = drawn(shape, 256, seed)
    generator = np.random.default_rng(seed)
    pool, points = (generator.uniform(X.min(0), X.max(0), (n, 2)) for n in (pool_rows, 4000))
    labels, wanted = best.predict(pool), best.predict(points)
    order = generator.permutation(pool_rows)
    while len(np.unique(labels[order[: sizes[0]]])) < 2:
        order = generator.permutation(pool_rows)
    chosen, rest = order[: sizes[0]], order[sizes[0] :]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = make().fit(pool[chosen], labels[chosen])
        while len(chosen) < sizes[1]:
            k = min(each, sizes[1] - len(chosen))
            places = np.arange(k)  # of a random order
            if how != "random":
                width = spread if how == "spread" else 0.0
                places = acquire(model, pool[rest], k, spread=width, labelled=pool[chosen])
            chosen, rest = np.append(chosen, rest[places]), np.delete(rest, places)
            model = make().fit(pool[chosen], labels[chosen])
    wrong = int((model.predict_proba(points).argmax(1) != wanted).sum())
    return max(wrong, 0.5) / len(points)
