"""The pooled model: boosted trees as plain arrays, so that files hold them without pickle and give the same numbers.

Source: Friedman 2001, alg. 1; Ke et al. 2017 (histograms); Pedregosa et al. 2011 (the implementation that fits them).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

STAGES = (10, 20, 40, 80, 160)
"""Counts of trees among which rows of other groups choose."""

SETTINGS = {
    "learning_rate": 0.06,
    "max_leaf_nodes": 12,
    "min_samples_leaf": 15,
    "l2_regularization": 2.0,
    "early_stopping": False,
}


class Trees(NamedTuple):
    """Boosted trees of C outputs (numbers, two classes: one): `feature`, `left`, `right`, `threshold` `[m, C, nodes]`.

    A row goes left where its feature is at most the threshold; a leaf leads to itself. `leaf [m, C, nodes]`: what it
    adds; `start [C]`: the output without trees; `depth`: of the deepest tree.

    Example:
        >>> import numpy as np
        >>> from gradatim.groups.trees import fit_trees
        >>> x = np.linspace(-1, 1, 200)[:, None]
        >>> trees = fit_trees(x, np.sign(x[:, 0]), None, 40, np.ones(200))
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
        return self.stages(x, (len(self.feature),))[-1]

    def first(self, count: int) -> Trees:
        """Return the model of the first trees alone."""
        names = ("feature", "threshold", "left", "right", "leaf")
        return self._replace(**{name: getattr(self, name)[:count] for name in names})

    def stages(self, x: np.ndarray, counts: tuple[int, ...]) -> list[np.ndarray]:
        """Return the outputs `[n, C]` of the first trees, for each of some counts in ascending order."""
        x = np.ascontiguousarray(x, dtype=np.float64)
        flat, base = x.ravel(), np.arange(len(x)) * x.shape[1]
        total, found = np.repeat(self.start[None], len(x), axis=0), []
        for tree in range(max(counts)):
            if tree in counts:
                found.append(total.copy())
            for output in range(len(self.start)):
                arrays = (self.feature, self.threshold, self.left, self.right)
                feature, threshold, left, right = (array[tree, output] for array in arrays)
                node = np.zeros(len(x), dtype=np.int32)
                for _ in range(self.depth):
                    goes = flat[base + feature[node]] <= threshold[node]
                    node = np.where(goes, left[node], right[node])
                total[:, output] += self.leaf[tree, output][node]
        return [*found, total]


def fit_trees(x: np.ndarray, y: np.ndarray, classes: int | None, count: int, weight: np.ndarray) -> Trees:
    """Return boosted trees of encoded rows x `[n, width]`, weights and y `[n]`: numbers, or indices of classes."""
    kind = HistGradientBoostingRegressor if classes is None else HistGradientBoostingClassifier
    outputs = classes if classes is not None and classes > 2 else 1
    if len(y) < 2 or len(np.unique(y)) < 2 or (classes is not None and len(np.unique(y)) < classes):
        return _constant(y, classes, outputs, weight)
    weighed = {} if (weight == 1).all() else {"sample_weight": weight}
    model = kind(max_iter=count, random_state=0, **SETTINGS).fit(x, y, **weighed)
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
