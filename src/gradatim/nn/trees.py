"""Boosted trees as plain arrays, so that files hold them without pickle and give the same numbers.

Source: Friedman 2001, alg. 1; Ke et al. 2017 (histograms); Pedregosa et al. 2011 (the implementation that fits them).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

NODES = ("feature", "threshold", "left", "right", "leaf")
"""The arrays of trees that have an entry for every node."""

STAGES = (10, 20, 40, 80, 160)
"""Counts of trees among which other rows may choose."""

SETTINGS: dict[str, Any] = {
    "learning_rate": 0.06,
    "max_leaf_nodes": 12,
    "min_samples_leaf": 15,
    "l2_regularization": 2.0,
    "early_stopping": False,
}

PLACES = 2_000_000
"""Rows times trees that are followed at a time, at most."""


class Trees(NamedTuple):
    """Boosted trees of C outputs (numbers, two classes: one): `feature`, `left`, `right`, `threshold` `[m, C, nodes]`.

    A row goes left where its feature is at most the threshold; a leaf leads to itself. `leaf [m, C, nodes]`: what it
    adds; `start [C]`: the output without trees; `depth`: of the deepest tree.

    Example:
        >>> import numpy as np
        >>> from gradatim.nn.trees import fit_trees
        >>> x = np.linspace(-1, 1, 200)[:, None]
        >>> trees = fit_trees(x, np.sign(x[:, 0]), None, 40)
        >>> trees.outputs(np.array([[-0.5], [0.5]])).round(1)[:, 0]
        array([-0.9,  0.9])
    """

    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    leaf: np.ndarray
    start: np.ndarray
    depth: int

    def outputs(self, x: np.ndarray) -> np.ndarray:
        """Return the outputs of encoded rows `[n, C]` at x `[n, width]`: numbers or logits."""
        parts = [self.start + leaves.sum(1) for leaves in self._leaves(x)]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.start)))

    def stages(self, x: np.ndarray, counts: tuple[int, ...]) -> list[np.ndarray]:
        """Return the outputs `[n, C]` of the first trees, for each of some counts in ascending order, and of all."""
        parts = []
        for leaves in self._leaves(x):
            sums = np.concatenate([np.zeros((len(leaves), 1, len(self.start))), leaves.cumsum(1)], axis=1)
            parts.append(self.start + sums[:, [*counts, len(self.feature)]])
        return [*np.concatenate(parts).swapaxes(0, 1)]

    def first(self, count: int) -> Trees:
        """Return the model of the first trees alone."""
        return self._replace(**{name: getattr(self, name)[:count] for name in NODES})

    def moved(self, place: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> Trees | None:
        """Return the model of rows whose input j is now `place[j]`, was scaled and shifted; None where one is gone.

        Numbers that were missing, and stayed 0, count as 0.
        """
        # nodes that fill up smaller trees lead to the first one, and are no more reached than those behind a leaf
        leaves = (self.left == np.arange(self.left.shape[2])) | ((self.left == 0) & (self.right == 0))
        if (place[self.feature][~leaves] < 0).any() or (scale <= 0).any():
            return None
        threshold = np.where(leaves, 0.0, scale[self.feature] * self.threshold + shift[self.feature])
        feature = np.where(leaves, 0, place[self.feature]).astype(np.int32)
        return self._replace(feature=feature, threshold=threshold)

    def check(self, width: int, outputs: int) -> None:
        """Check trees that a file holds.

        Raises:
            ValueError: they have other outputs, lead outside of themselves, or ask for columns that are not there.
        """
        if self.start.shape != (outputs,) or self.leaf.ndim != 3 or self.leaf.shape[1] != outputs:
            raise ValueError("its trees have other outputs than its classes")
        ways = (self.feature, self.left, self.right)
        whole = all(part.dtype == np.int32 and part.shape == self.leaf.shape for part in ways)
        nodes = self.leaf.shape[2]
        inside = whole and all(((part >= 0) & (part < nodes)).all() for part in ways[1:])
        within = inside and bool(((self.feature >= 0) & (self.feature < width)).all())
        if not within or self.threshold.shape != self.leaf.shape or not 0 <= self.depth <= nodes:
            raise ValueError("its trees contradict themselves")

    def _leaves(self, x: np.ndarray) -> Iterator[np.ndarray]:
        """Yield what each tree adds, `[n, m, C]`, of some rows at a time."""
        shape, nodes = self.leaf.shape[:2], self.leaf.shape[2]
        offset = np.arange(shape[0] * shape[1]) * nodes
        feature, threshold, leaf = self.feature.ravel(), self.threshold.ravel(), self.leaf.ravel()
        left, right = ((way.reshape(-1, nodes) + offset[:, None]).ravel() for way in (self.left, self.right))
        x = np.ascontiguousarray(x, dtype=np.float64)
        for start in range(0, len(x), size := max(1, PLACES // max(1, len(offset)))):
            part = x[start : start + size]
            row = (np.arange(len(part)) * part.shape[1])[:, None]
            node = np.repeat(offset[None], len(part), axis=0)
            for _ in range(self.depth):
                goes = part.ravel()[row + feature[node]] <= threshold[node]
                node = np.where(goes, left[node], right[node])
            yield leaf[node].reshape(len(part), *shape)


def fit_trees(
    x: np.ndarray,
    y: np.ndarray,
    classes: int | None,
    count: int,
    weight: np.ndarray | None = None,
    **settings: Any,
) -> Trees:
    """Return boosted trees of encoded rows x `[n, width]` and y `[n]`, numbers, or indices of that many classes.

    `weight [n]`: of rows, by default 1; `settings`: of scikit-learn's estimator, in place of `SETTINGS`.
    """
    # a second to load, and most who use tables have no need of it
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    kind = HistGradientBoostingRegressor if classes is None else HistGradientBoostingClassifier
    outputs = classes if classes is not None and classes > 2 else 1
    if len(y) < 2 or len(np.unique(y)) < 2 or (classes is not None and len(np.unique(y)) < classes):
        return _constant(y, classes, outputs, np.ones(len(y)) if weight is None else weight)
    weighed = None if weight is None or (weight == 1).all() else weight
    model = kind(max_iter=count, random_state=0, **(SETTINGS | settings)).fit(x, y, weighed)
    forest = [[tree.nodes for tree in trees] for trees in model._predictors]  # type: ignore[attr-defined]
    start = np.ravel(model._baseline_prediction)  # type: ignore[attr-defined]
    return _packed(forest, np.asarray(start, dtype=np.float64))


def _packed(forest: list[list[np.ndarray]], start: np.ndarray) -> Trees:
    """Return trees as arrays, padded to the size of the largest."""
    size = max(len(nodes) for trees in forest for nodes in trees)
    shape = (len(forest), len(start), size)
    feature, left, right = (np.zeros(shape, dtype=np.int32) for _ in range(3))
    threshold, leaf, depth = np.zeros(shape), np.zeros(shape), 0
    for i, trees in enumerate(forest):
        for j, nodes in enumerate(trees):
            part, own, is_leaf = (i, j, slice(len(nodes))), np.arange(len(nodes)), nodes["is_leaf"] > 0
            feature[part] = np.where(is_leaf, 0, nodes["feature_idx"])
            threshold[part] = np.where(is_leaf, 0.0, nodes["num_threshold"])
            left[part], right[part] = (np.where(is_leaf, own, nodes[side]) for side in ("left", "right"))
            leaf[part] = np.where(is_leaf, nodes["value"], 0.0)
            depth = max(depth, int(nodes["depth"].max()))
    # a split at infinity sends all known numbers left, which the largest finite number does as well
    return Trees(feature, np.nan_to_num(threshold), left, right, leaf, start, depth)


def _constant(y: np.ndarray, classes: int | None, outputs: int, weight: np.ndarray) -> Trees:
    """Return a model of no trees, for rows that do not show every class."""
    if classes is None:
        start = np.array([np.average(y, weights=weight) if len(y) else 0.0])
    else:
        total = np.bincount(y.astype(int), weight, minlength=classes)
        share = (total + 0.5) / (weight.sum() + 0.5 * classes)
        start = np.log(share) if outputs > 1 else np.log(share[1:] / share[:1])
    empty = np.zeros((0, outputs, 1))
    whole = empty.astype(np.int32)
    return Trees(whole, empty, whole, whole, empty, start, 0)
