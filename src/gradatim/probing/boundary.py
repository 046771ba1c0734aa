"""Decision boundaries over a plane: the labels of a grid, how rough their border is, and which rows to label next.

Source: Zhao, Nguyen, Grover 2024 (arXiv 2406.11233): the grid, entropy with spread; the measures are this project's.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import ndimage

from ..batch import Batch, check_count
from ..learner import Learner
from .planes import probabilities_of, read_labels, read_numbers, unfitted
from .plots import boundary_pictures

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

MARGIN = 0.01
"""How far the grid reaches beyond the rows, as a share of each column's range: 1 of 100, as published."""


MOST_CELLS = 1000
"""Cells along a side of a grid, at most: a million answers."""


@dataclass(frozen=True, eq=False)
class Boundary:
    """What a classifier answers on a grid of a plane.

    Fields: `labels`: of each cell, `[grid, grid]`, row i at `y_axis[i]`, column j at `x_axis[j]`; `probabilities`:
    `[grid, grid, C]`, in the order of `classes`; `roughness`: the share of neighbouring cells (above, below, beside)
    whose labels differ, over that of the reference where there is one; `regions`: connected pieces of one label;
    `odd`: the share of cells whose label is not the most frequent one of the nine cells around; `X` and `y`: the rows
    that it was learnt from.

    Example:
        >>> import numpy as np
        >>> from gradatim.probing import boundary
        >>> from sklearn.naive_bayes import GaussianNB
        >>> X = np.random.default_rng(0).normal(size=(60, 2))
        >>> found = boundary(GaussianNB(), X, X[:, 0] > 0, grid=20)
        >>> found.regions, found.labels.shape
        (2, (20, 20))
    """

    labels: np.ndarray
    probabilities: np.ndarray
    roughness: float
    regions: int
    odd: float
    classes: np.ndarray
    x_axis: np.ndarray
    y_axis: np.ndarray
    X: np.ndarray
    y: np.ndarray

    def plot(self, png: Path | str, names: Sequence[str] = ("first column", "second column")) -> str | None:
        """Draw the grid and the rows into a PNG file; return None, or why there is no picture."""
        return draw_boundaries([self], png, names=names)


def boundary(
    predictor: Any,
    X: Any,
    y: Any,
    grid: int = 50,
    *,
    reference: Any = None,
    margin: float = MARGIN,
    batch_size: int = 32,
) -> Boundary:
    """Return what a classifier of two columns answers on a grid around the rows X `[n, 2]`, y `[n]`.

    Args:
        predictor: a `Learner`, which reads the rows; or anything with `predict_proba`. One that has `classes_` is
            fitted and answers as it is. Of any other with `fit`, a copy is fitted to X and y.
        X: rows, `[n, 2]`. They say where the grid lies.
        y: their labels, `[n]`.
        grid: cells along each side.
        reference: what roughness is measured in: labels `[grid, grid]`, or anything with `predict`, such as the best
            classifier there is. None: the share of neighbours itself.
        margin: how far the grid reaches beyond the rows, as a share of their range.
        batch_size: rows of a learner's mini-batch.

    Raises:
        ValueError: other than two columns of finite numbers, rows of one class, no `predict_proba`, a grid below 2, a
            reference with one label on the whole grid.

    Example:
        >>> import numpy as np
        >>> from gradatim import RefinedClassifier
        >>> from gradatim.probing import boundary
        >>> X = np.random.default_rng(0).uniform(size=(100, 2))
        >>> half = boundary(RefinedClassifier(), X, X[:, 0] > 0.5, grid=10)
        >>> half.roughness < 0.2
        True
    """
    plane = _Plane(X, y, grid, margin, reference)
    if isinstance(predictor, Learner):
        *_, last = _after_steps(predictor, plane, batch_size)
        return last
    return plane.answered(_fitted(predictor, plane.X, plane.y))


def boundaries(
    predictor: Any,
    X: Any,
    y: Any,
    grid: int = 50,
    *,
    batch_size: int = 32,
    reference: Any = None,
    margin: float = MARGIN,
) -> list[Boundary]:
    """Return the boundary after every mini-batch of rows X `[n, 2]`, y `[n]`: the boundary that refines.

    A `Learner` takes a step each. An estimator with `partial_fit` learns each mini-batch. Anything else with `fit`,
    such as an `InContextReader`, is fitted anew to the rows so far. All grids are the same. The predictor is not
    changed: each begins with nothing learnt, under the same settings.

    Args, Raises: as `boundary`; the first mini-batch has rows of one class.

    Example:
        >>> import numpy as np
        >>> from gradatim import RefinedClassifier
        >>> from gradatim.probing import boundaries
        >>> X = np.random.default_rng(0).uniform(size=(64, 2))
        >>> [len(found.X) for found in boundaries(RefinedClassifier(), X, X[:, 0] > 0.5, 10, batch_size=32)]
        [32, 64]
    """
    check_count("batch_size", batch_size)
    plane = _Plane(X, y, grid, margin, reference)
    steps = _after_steps if isinstance(predictor, Learner) else _after_rows
    return [*steps(predictor, plane, batch_size)]


def draw_boundaries(
    found: Sequence[Boundary],
    path: Path | str,
    titles: Sequence[str] | None = None,
    names: Sequence[str] = ("first column", "second column"),
) -> str | None:
    """Draw boundaries side by side into a PNG file, or one after the other into a GIF if the path ends so.

    Returns:
        None, or why there is no picture.

    Raises:
        ValueError: no boundary.

    Example:
        >>> import numpy as np
        >>> from gradatim.probing.boundary import boundaries, draw_boundaries
        >>> from sklearn.naive_bayes import GaussianNB
        >>> X = np.random.default_rng(0).normal(size=(60, 2))
        >>> steps = boundaries(GaussianNB(), X, X[:, 0] > 0, grid=20, batch_size=20)
        >>> notice = draw_boundaries(steps, "steps.png")
    """
    if not found:
        raise ValueError("there is no boundary to draw: give one or more")
    titles = titles or [f"{len(each.X):,} rows, roughness {each.roughness:.2g}" for each in found]
    return boundary_pictures(found, titles, names, path)


def acquire(predictor: Any, pool: Any, k: int, *, spread: float = 1.0, labelled: Any = None) -> np.ndarray:
    """Return the places `[k]` of the rows of a pool that are best labelled next: uncertain, and far from one another.

    Rows are taken one after the other, that with the greatest `H d^spread`. H is the entropy of the predicted classes,
    d the distance to the nearest row taken or labelled before, columns in units of the pool's deviations.

    Args:
        predictor: a fitted classifier with `predict_proba`.
        pool: rows without labels, `[n, columns]`.
        k: how many.
        spread: 0: entropy alone.
        labelled: rows that have labels, `[m, columns]`. None: distances are to the rows taken now.

    Raises:
        ValueError: k not in 1 to n, a negative spread, a pool of other than finite numbers, no `predict_proba`.

    Example:
        >>> import numpy as np
        >>> from gradatim.probing import acquire
        >>> from sklearn.naive_bayes import GaussianNB
        >>> X = np.random.default_rng(0).normal(size=(60, 2))
        >>> model = GaussianNB().fit(X[:20], X[:20, 0] > 0)
        >>> places = acquire(model, X[20:], 4)
        >>> bool(np.abs(X[20:][places, 0]).mean() < np.abs(X[20:, 0]).mean())
        True
    """
    pool = read_numbers(pool, "the pool")
    check_count("k", k)
    if not 1 <= k <= len(pool) or not spread >= 0:
        raise ValueError(
            f"k is 1 to {len(pool)}, the rows of the pool, and spread at least 0; got k {k} and spread {spread}"
        )
    p = probabilities_of(predictor, pool)
    entropy = -(p * np.log(np.maximum(p, 1e-300))).sum(1)
    centre, scale = pool.mean(0), pool.std(0)
    scale = np.where(scale > 0, scale, 1.0)
    places = (pool - centre) / scale
    nearest = np.full(len(pool), np.inf)
    if labelled is not None:
        known = read_numbers(labelled, "labelled")
        if known.shape[1] != pool.shape[1]:
            raise ValueError(
                f"labelled rows have the columns of the pool, {pool.shape[1]}; got {known.shape[1]}: give the same"
            )
        for row in (known - centre) / scale:
            nearest = np.minimum(nearest, np.linalg.norm(places - row, axis=1))
    # entropies of 0 are told apart by distance
    entropy, taken = np.maximum(entropy, 1e-12), []
    free = np.ones(len(pool), dtype=bool)
    for _ in range(k):
        far = np.where(np.isinf(nearest), 1.0, nearest) ** spread
        taken.append(int(np.where(free, entropy * far, -1.0).argmax()))
        free[taken[-1]] = False
        nearest = np.minimum(nearest, np.linalg.norm(places - places[taken[-1]], axis=1))
    return np.array(taken)


def differing(labels: Any) -> float:
    """Return the share of neighbouring cells, above or beside each other, whose labels `[m, n]` differ.

    Example:
        >>> from gradatim.probing.boundary import differing
        >>> differing([["left", "right"], ["left", "right"]])
        0.5
    """
    labels = np.asarray(labels)
    across, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    return float((across.sum() + down.sum()) / (across.size + down.size))


class _Plane:
    """Rows of two columns, and a grid around them."""

    def __init__(self, X: Any, y: Any, grid: int, margin: float, reference: Any) -> None:
        self.X, self.y = read_numbers(X, "X"), read_labels(y)
        if self.X.shape[1] != 2:
            raise ValueError(
                f"a boundary is drawn over two columns; got X of shape {self.X.shape}: choose two columns"
            )
        if self.y.shape != (len(self.X),):
            raise ValueError(f"y has one label for each row; got y {self.y.shape} for X {self.X.shape}")
        self.classes = np.unique(self.y)
        if len(self.classes) < 2:
            raise ValueError("all rows have the same label: there is no boundary; give rows of two classes")
        check_count("grid", grid)
        if not 2 <= grid <= MOST_CELLS or not margin >= 0:
            raise ValueError(
                f"a grid has 2 to {MOST_CELLS} cells along a side, and margin is 0 or more; got {grid}, {margin}"
            )
        low, high = self.X.min(0), self.X.max(0)
        beyond = margin * np.where(high > low, high - low, 1.0)
        self.axes = [np.linspace(low[c] - beyond[c], high[c] + beyond[c], grid) for c in range(2)]
        self.points = np.stack(np.meshgrid(*self.axes), -1).reshape(-1, 2)
        self.grid = grid
        self.unit = 1.0 if reference is None else self._unit(reference)

    def _unit(self, reference: Any) -> float:
        """Return the share of differing neighbours of a reference."""
        if hasattr(reference, "predict"):
            labels = np.asarray(reference.predict(self.points)).reshape(self.grid, self.grid)
        else:
            labels = np.asarray(reference)
        if labels.shape != (self.grid, self.grid):
            raise ValueError(
                f"a reference has a label for each of {self.grid} by {self.grid} cells, or predict; got "
                f"{type(reference).__name__} of shape {labels.shape}"
            )
        share = differing(labels)
        if not share:
            raise ValueError(
                "the reference has one label on the whole grid, so nothing can be measured in its roughness: leave "
                "reference out, or take another"
            )
        return share

    def answered(self, predictor: Any, rows: int | None = None) -> Boundary:
        """Return the boundary of a classifier that is fitted to the first rows."""
        classes = np.asarray(getattr(predictor, "classes_", self.classes))
        return self.of(probabilities_of(predictor, self.points), classes, rows)

    def of(self, probabilities: np.ndarray, classes: np.ndarray, rows: int | None = None) -> Boundary:
        """Return the boundary of probabilities `[grid * grid, C]`, learnt from the first rows."""
        if probabilities.shape != (len(self.points), len(classes)):
            raise ValueError(
                f"predict_proba has a column for each of {len(classes)} classes; got {probabilities.shape} for "
                f"{len(self.points)} points"
            )
        chosen = probabilities.argmax(1).reshape(self.grid, self.grid)
        masks = [chosen == c for c in range(len(classes))]
        around = np.stack(
            [ndimage.convolve(mask.astype(int), np.ones((3, 3)), mode="constant") for mask in masks]
        )
        own = np.take_along_axis(around, chosen[None], 0)[0]
        return Boundary(
            labels=classes[chosen],
            probabilities=probabilities.reshape(self.grid, self.grid, -1),
            roughness=differing(chosen) / self.unit,
            regions=sum(int(ndimage.label(mask)[1]) for mask in masks),  # pyright: ignore
            odd=float((own < around.max(0)).mean()),
            classes=classes,
            x_axis=self.axes[0],
            y_axis=self.axes[1],
            X=self.X[:rows],
            y=self.y[:rows],
        )


def _after_steps(learner: Learner, plane: _Plane, batch_size: int) -> Iterator[Boundary]:
    """Yield the boundary of a learner after each step."""
    check_count("batch_size", batch_size)
    known = learner.predictor.output_dim
    if len(plane.classes) > known:
        raise ValueError(f"y has {len(plane.classes)} classes, and this learner has {known} outputs")
    dtype = next((part.dtype for part in learner.parameters() if part.is_floating_point()), torch.float32)
    x = torch.as_tensor(plane.X, dtype=dtype)[None]
    y = torch.as_tensor(np.searchsorted(plane.classes, plane.y))[None, :, None]
    points = torch.as_tensor(plane.points, dtype=dtype)[None]
    query = Batch(points, torch.zeros(1, len(plane.points), 1, dtype=torch.int64))
    state = learner.init(1, query)
    for start in range(0, len(plane.X), batch_size):
        part = slice(start, start + batch_size)
        with torch.no_grad():
            state = learner.step(state, Batch(x[:, part], y[:, part]))
            outputs = learner.predict(points, state)[0, :, : len(plane.classes)]
        p = outputs.double().softmax(-1).numpy()
        yield plane.of(p, plane.classes, min(start + batch_size, len(plane.X)))


def _after_rows(predictor: Any, plane: _Plane, batch_size: int) -> Iterator[Boundary]:
    """Yield the boundary of an estimator after each mini-batch."""
    n = len(plane.X)
    incremental = hasattr(predictor, "partial_fit")
    if len(np.unique(plane.y[:batch_size])) < 2 and not incremental:
        raise ValueError(
            f"the first {batch_size} rows have the same label: shuffle the rows, or take a larger batch_size"
        )
    model = unfitted(predictor) if incremental else predictor
    for start, end in pairwise([*range(0, n, batch_size), n]):
        part = slice(start, end)
        if incremental:
            model.partial_fit(plane.X[part], plane.y[part], classes=plane.classes)
            yield plane.answered(model, end)
        else:
            yield plane.answered(_refitted(predictor, plane.X[:end], plane.y[:end]), end)


def _fitted(predictor: Any, X: np.ndarray, y: np.ndarray) -> Any:
    """Return a classifier as it is if it has classes_, else a copy that is fitted."""
    if hasattr(predictor, "classes_") or not hasattr(predictor, "fit"):
        return predictor
    return _refitted(predictor, X, y)


def _refitted(predictor: Any, X: np.ndarray, y: np.ndarray) -> Any:
    if not hasattr(predictor, "fit"):
        raise ValueError(
            f"steps are those of a Learner, of partial_fit or of fit; {type(predictor).__name__} has none of them"
        )
    model = unfitted(predictor)
    model.fit(X, y)
    return model
