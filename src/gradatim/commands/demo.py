"""`gradatim demo`: a real table learnt in one pass, 32 rows at a time, by gradatim and by learners of scikit-learn.

Source: Alpaydin, Kaynak 1998 (the digits, from scikit-learn); Rahimi, Recht 2007 (the ridge's random features).
"""

from __future__ import annotations

import json
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .show import print_table, print_written

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace
    from rich.console import Console

SIZE = 32
MILESTONES = (32, 64, 128, 256, 512)
CLASSES = np.arange(10)
TIE = 1e-12
"""Probabilities that are nearer than this tie for the first place."""


class OnePass(Protocol):
    """A classifier that learns mini-batch by mini-batch."""

    def partial_fit(self, X: np.ndarray, y: np.ndarray, classes: np.ndarray) -> Any:
        """Learn the rows `[n, d]` of a mini-batch, with classes `[n]`."""

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return class probabilities `[n, C]` of rows `[n, d]`."""
        ...


class Standardized:
    """A classifier of scikit-learn on columns standardized by the rows so far.

    Args:
        model: with `partial_fit`.
        repeats: how often the model sees each mini-batch.
    """

    def __init__(self, model: Any, repeats: int = 1) -> None:
        from sklearn.preprocessing import StandardScaler

        self.model, self.repeats, self.scaler = model, repeats, StandardScaler()

    def partial_fit(self, X: np.ndarray, y: np.ndarray, classes: np.ndarray) -> None:
        """Learn the rows `[n, d]` of a mini-batch, with classes `[n]`."""
        self.scaler.partial_fit(X)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in range(self.repeats):
                self.model.partial_fit(self._scaled(X), y, classes=classes)

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return class probabilities `[n, C]` of rows `[n, d]`."""
        return self.model.predict_proba(self._scaled(X))

    def _scaled(self, X: np.ndarray) -> np.ndarray:
        return np.clip(self.scaler.transform(X), -5, 5)


class Ridge:
    """Recursive least squares on standardized columns, 512 random ReLU features and a one.

    theta = (F^T F + 2 I)^{-1} F^T Y,    p(y | x) = softmax(4 f(x) theta),    Y one-hot
    """

    def __init__(self, width: int, features: int = 512) -> None:
        from sklearn.preprocessing import StandardScaler

        rng = np.random.default_rng(0)
        self.scaler, self.size = StandardScaler(), width + features + 1
        self.weight = rng.standard_normal((width, features)) / np.sqrt(width)
        self.bias = 0.5 * rng.standard_normal(features)
        self.gram, self.moment = 2.0 * np.eye(self.size), np.zeros((self.size, len(CLASSES)))

    def partial_fit(self, X: np.ndarray, y: np.ndarray, classes: np.ndarray) -> None:
        """Add the rows `[n, d]`, with classes `[n]`, to the Gram matrix and the cross-moments."""
        self.scaler.partial_fit(X)
        f = self._features(X)
        self.gram += f.T @ f
        self.moment += f.T @ np.eye(len(classes))[y]

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return class probabilities `[n, C]` of rows `[n, d]`."""
        from scipy.linalg import solve
        from scipy.special import softmax

        theta = solve(self.gram, self.moment, assume_a="pos")
        return softmax(4.0 * self._features(X) @ theta, axis=1)

    def _features(self, X: np.ndarray) -> np.ndarray:
        z = self.scaler.transform(X)
        return np.hstack([z, np.maximum(z @ self.weight + self.bias, 0), np.ones((len(z), 1))])


def learners(width: int) -> dict[str, OnePass]:
    """Return the learners of one pass; settings of the others are those that `make study NAME=tables` chose."""
    from sklearn.linear_model import SGDClassifier
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neural_network import MLPClassifier

    from ..estimators import RefinedClassifier

    sgd = SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.1, random_state=0)
    mlp = MLPClassifier((64,), learning_rate_init=0.01, random_state=0)
    return {
        "gradatim": RefinedClassifier(random_state=0),
        "plain-ridge": Ridge(width),
        "sgd": Standardized(sgd, repeats=4),
        "mlp-64": Standardized(mlp, repeats=4),
        "gaussian-nb": Standardized(GaussianNB(var_smoothing=0.1)),
    }


def references() -> dict[str, Any]:
    """Return models of scikit-learn that learn all rows at once."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier

    return {
        "logistic regression": LogisticRegression(C=1.0, max_iter=1000),
        "MLP": MLPClassifier((64,), alpha=0.0001, max_iter=200, random_state=0),
        "random forest": RandomForestClassifier(200, random_state=0, n_jobs=1),
    }


def demo_options(parser: ArgumentParser, arguments: list[str]) -> None:
    """Add the options of `demo`."""
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: seconds, numbers without meaning")
    parser.add_argument("--out", type=str, default="runs/demo", help="folder to write to")


def demo(options: Namespace, console: Console) -> None:
    """Learn the digits as a table, show the accuracies, and write them as JSON and as a picture."""
    from rich.progress import Progress

    from ..files.checkpoint import write_bytes
    from ..provenance import provenance

    x, y, test_x, test_y = digits(300 if options.smoke else None)
    milestones = [n for n in MILESTONES if n < len(x)] + [len(x)]
    console.print(
        f"{len(x) + len(test_x)} images of digits as a table of {x.shape[1]} columns: {len(x)} rows to learn, once, "
        f"{SIZE} at a time; {len(test_x)} held out",
        soft_wrap=True,
    )
    one_pass: dict[str, dict[str, Any]] = {}
    batch: dict[str, float] = {}
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        contestants, models = learners(x.shape[1]), references()
        job = bar.add_task("learning", total=len(contestants) + len(models))
        for name, learner in contestants.items():
            one_pass[name] = follow(learner, (x, y), (test_x, test_y), milestones)
            bar.advance(job)
        for name, model in models.items():
            batch[name] = fit_all(model, (x, y), (test_x, test_y))
            bar.advance(job)
    result = {"rows": milestones, "one pass": one_pass, "batch": batch}
    show(result, console)
    path, picture = Path(options.out) / "demo.json", Path(options.out) / "demo.png"
    write_bytes(path, (json.dumps({**provenance(), **result}, indent=1) + "\n").encode())
    notice = draw(result, picture)
    if notice is not None:
        console.print(notice, soft_wrap=True, markup=False)
    print_written(console, [path] if notice else [path, picture])


def digits(rows: int | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the digits in a fixed random order: x `[n, 64]` and y `[n]` to learn, and the 30% that are held out.

    `rows`: use only these many.

    Example:
        >>> from gradatim.commands.demo import digits
        >>> [part.shape for part in digits(100)]
        [(70, 64), (70,), (30, 64), (30,)]
    """
    from sklearn.datasets import load_digits

    x, y = (np.asarray(part)[:rows] for part in load_digits(return_X_y=True))
    order = np.random.default_rng(1000).permutation(len(x))
    train, test = np.split(order, [int(0.7 * len(x))])
    x = x.astype(np.float64)
    return x[train], y[train], x[test], y[test]


def errors(probabilities: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return how wrong class probabilities `[n, C]` are, `[n]`: 0, 1, or 1 - 1/k where k classes tie and one is right.

    Example:
        >>> import numpy as np
        >>> from gradatim.commands.demo import errors
        >>> errors(np.array([[0.9, 0.1], [0.5, 0.5]]), np.array([0, 0]))
        array([0. , 0.5])
    """
    best = probabilities >= probabilities.max(1, keepdims=True) - TIE
    return 1 - best[np.arange(len(y)), y] / best.sum(1)


def follow(
    learner: OnePass,
    rows: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    milestones: list[int],
) -> dict[str, Any]:
    """Learn rows in one pass and return the errors.

    Args:
        learner: of one pass.
        rows: x `[n, d]` and y `[n]`.
        test: rows that are held out, likewise.
        milestones: numbers of rows after which they are.

    Returns:
        `held`, the error at each milestone; `prequential`, the error on mini-batches before they were learnt; and
        `seconds`, of predicting and learning.
    """
    (x, y), at_milestones, before, seconds = rows, [], [], 0.0
    for start in range(0, len(x), SIZE):
        batch = slice(start, start + SIZE)
        begin = time.perf_counter()
        if start:
            probabilities = learner.predict_proba(x[batch])
        else:
            probabilities = np.full((len(x[batch]), len(CLASSES)), 1 / len(CLASSES))
        learner.partial_fit(x[batch], y[batch], classes=CLASSES)
        seconds += time.perf_counter() - begin
        before.append(errors(probabilities, y[batch]))
        if min(start + SIZE, len(x)) in milestones:
            at_milestones.append(float(errors(learner.predict_proba(test[0]), test[1]).mean()))
    return {
        "held": at_milestones,
        "prequential": float(np.concatenate(before).mean()),
        "seconds": seconds,
    }


def fit_all(model: Any, rows: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]) -> float:
    """Return the error on held-out rows, x `[n, d]` and y `[n]`, of a model that learns all rows at once."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(rows[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(scaler.transform(rows[0]), rows[1])
    return 1 - float((model.predict(scaler.transform(test[0])) == test[1]).sum()) / len(test[1])


def show(result: dict[str, Any], console: Console) -> None:
    """Show the accuracies as a table."""
    rows = []
    for name, run in result["one pass"].items():
        accuracies = [f"{100 * (1 - error):.1f}" for error in (*run["held"], run["prequential"])]
        rows.append([name, *accuracies, f"{run['seconds']:.1f}"])
    for name, error in result["batch"].items():
        blank = [""] * (len(result["rows"]) - 1)
        rows.append([f"batch {name}", *blank, f"{100 * (1 - error):.1f}", "", ""])
    columns = ["one pass", *map(str, result["rows"]), "before each mini-batch", "seconds"]
    print_table(console, "accuracy on held-out rows (%), after so many rows", columns, rows, align_right=True)


def draw(result: dict[str, Any], picture: Path) -> str | None:
    """Draw the error on held-out rows as rows come in, from the numbers of demo.json; return None, or why not."""
    from ..comparison.plots import Curve, lines

    rows = result["rows"]
    curves = [Curve(name, rows, *[run["held"]] * 3) for name, run in result["one pass"].items()]
    curves += [
        Curve(name, rows[-1:], *[[error]] * 3, label=f"{name}, all rows at once")
        for name, error in result["batch"].items()
    ]
    title = "Digits as a table: one pass, 32 rows at a time"
    return lines(picture, title, "rows learnt, each once", "error on held-out rows", curves)
