"""Estimators of many linear tasks whose features and tasks come in blocks: which features serve which tasks is learnt.

Source: after the idea of Yang et al. 2020 (TFCL, arXiv 2004.13930); Pedregosa et al. 2011 (the interface).
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from scipy.special import expit
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import lasso_path
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, column_or_1d

from ..blocks.logistic import logistic_tasks, sparse_path
from ..blocks.sums import TaskSums, posterior, task_sums
from ..blocks.weights import Weights
from .blocked_base import ALL, Blocked, Fitted
from .blocked_tasks import LISTS, VECTOR, Scaled, Tasks, matrix_tasks, read_numbers

SPARSE = np.geomspace(1.0, 1e-3, 15)
"""Strengths of a lasso, as shares of the one that leaves no weight."""
DENSE = np.geomspace(10.0, 1e-4, 13)
"""Strengths of a ridge, for each row."""
FACTORS = (0.1, 0.3, 1.0, 3.0)
"""Variances of logistic weights that are tried, over those that least squares say."""


class BlockedRegressor(RegressorMixin, Blocked):
    """Predict many numbers from the same features, where a group of features serves a group of tasks.

    Weights are those of the start (a lasso of each task), or lie in blocks: features and tasks in groups, weights
    inside them under one variance, others zero or small. Groups come from the spectrum of the graph between features
    and tasks, under a penalty that pulls it into blocks. Then single features and tasks move where the evidence of all
    targets grows. Cross-validation decides between start and blocks: validation rows are never predicted worse.

    Args:
        n_groups: the number of groups; `"auto"` finds it by evidence, up to 8.
        start: `"lasso"` or `"ridge"`: what each task is fitted by first, strength by cross-validation.
        parts: `"grouped"`: weights inside blocks only; `"all"`: a vector shared by all tasks, weights in blocks, and
            small personal ones anywhere; `"auto"`: the better one on validation rows.
        cv: folds.

    Attributes:
        coef_: weights `[T, d]`; `[d]` for a single y.
        intercept_: `[T]`, or a number.
        feature_groups_: the group of each feature, `[d]`.
        task_groups_: the group of each task, `[T]`.
        n_groups_: how many groups there are.
        chosen_: `"start"`, `"grouped"` or `"all"`: what predicted validation rows best.
        validation_: the loss of each on validation rows.
        stability_: how far groups found on the folds agree with these, 1 for the same.
        inside_: the share of absolute weights, beyond the shared ones, that lies inside blocks.
        eigengap_: of the graph between features and tasks, behind the last group.
        shared_: what all tasks share, `[d]`.
        tasks_: the names of the tasks.

    Example:
        >>> import numpy as np
        >>> from gradatim import BlockedRegressor
        >>> rng = np.random.default_rng(0)
        >>> features, tasks = np.arange(12) % 2, np.arange(8) % 2
        >>> W = rng.normal(size=(12, 8)) * (features[:, None] == tasks)
        >>> X = rng.normal(size=(40, 12))
        >>> model = BlockedRegressor().fit(X, X @ W + rng.normal(size=(40, 8)))
        >>> model.feature_groups_, model.task_groups_
        (array([0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1]), array([0, 1, 0, 1, 0, 1, 0, 1]))

    Source: after the idea of Yang et al. 2020 (TFCL); the formulation stands in docs/how-to/blocks.md.
    """

    def predict(self, X: Any, groups: Any = None) -> Any:
        """Return predictions: of a table `[n, T]`, or `[n]` for a single y; `[n]` where `groups` names the tasks.

        For a list of tables, one for each task, a list.

        Raises:
            ValueError: other columns than were learnt, a task that is not known, NaN.
        """
        found = self._outputs(X, groups)
        return found[:, 0] if self._is_vector() and groups is None and not isinstance(found, list) else found

    def score(self, X: Any, y: Any, groups: Any = None, sample_weight: Any = None) -> float:  # type: ignore[override]
        """Return R squared of rows; of lists that of all rows together."""
        found = self.predict(X, groups)
        if isinstance(found, list):
            found, y = np.concatenate(found), np.concatenate([np.asarray(part) for part in y])
        return float(r2_score(y, found, sample_weight=sample_weight))

    def _alike(self, x: np.ndarray, y: Any) -> Tasks:
        names = _column_names(y)
        y = read_numbers(y, several=True)
        check_consistent_length(x, y)
        if y.ndim == 1:
            return Tasks([x], [y], [0], VECTOR)
        return matrix_tasks(x, y, names or list(range(y.shape[1])))

    def _with_targets(self, xs: list[np.ndarray], ys: list[Any], names: list[Any], form: str) -> Tasks:
        return Tasks(xs, [read_numbers(y, several=False) for y in ys], names, form)

    def _strengths(self, whole: Scaled) -> np.ndarray:
        if self.start == "ridge":
            return DENSE
        most = max(np.abs(x.T @ y).max() / max(len(y), 1) for x, y in zip(whole.x, whole.y, strict=True))
        return max(most, 1e-12) * SPARSE

    def _path(self, part: Scaled, strengths: np.ndarray) -> np.ndarray:
        """Return the start's weights under each strength, `[S, T, d]`."""
        if self.start == "ridge":
            sums, noise = task_sums(part.x, part.y), np.ones(len(part.x))
            rows = np.maximum(sums.rows, 1.0)[:, None]
            shape = sums.cross.shape
            return np.stack(
                [posterior(sums, np.broadcast_to(1 / (s * rows), shape), noise).mean for s in strengths]
            )
        return np.stack([_lasso(x, y, strengths) for x, y in zip(part.x, part.y, strict=True)], 1)

    def _sums(self, part: Scaled, start: np.ndarray) -> tuple[TaskSums, np.ndarray]:
        return task_sums(part.x, part.y), start

    def _of_start(self, part: Scaled, weights: np.ndarray) -> Fitted:
        return Fitted(*part.back(weights))

    def _in_blocks(self, part: Scaled, found: Weights, kind: str) -> dict[str, Fitted]:
        return {kind: Fitted(*part.back(found.weights), found)}

    def _loss(self, fitted: Fitted, held: Tasks, whole: Scaled) -> float:
        """Return the sum of squared errors on held rows, in the units of the scaled targets."""
        rows = zip(held.x, held.y, fitted.coef, fitted.intercept, whole.scale, strict=True)
        return float(sum((((y - x @ w - b) / s) ** 2).sum() for x, y, w, b, s in rows))

    def _shaped(self, coef: np.ndarray, intercept: np.ndarray) -> tuple[np.ndarray, Any]:
        return (coef[0], float(intercept[0])) if self._is_vector() else (coef, intercept)

    def __sklearn_tags__(self) -> Any:
        """Return that several targets are welcome."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


class BlockedClassifier(ClassifierMixin, Blocked):
    """Classify by many yes-or-no tasks on the same features, where a group of features serves a group of tasks.

    Tasks are the classes of y, one against the rest; or the columns of Y, each 0 or 1; or lists; or `groups`. As
    `BlockedRegressor`: groups come from least squares, weights are logistic, and cross-validation of the log-loss
    decides between the start and the blocks.

    Args:
        n_groups: as in `BlockedRegressor`.
        start: `"lasso"`: a sparse logistic regression of each task; `"ridge"`: a dense one.
        parts: as in `BlockedRegressor`.
        cv: folds.

    Attributes: those of `BlockedRegressor`, `coef_` always `[T, d]`, and `classes_`.

    Example:
        >>> import numpy as np
        >>> from gradatim import BlockedClassifier
        >>> rng = np.random.default_rng(0)
        >>> X = rng.normal(size=(120, 6))
        >>> Y = np.stack([X[:, t % 2 :: 2].sum(1) > 0 for t in range(4)], 1).astype(int)
        >>> model = BlockedClassifier(n_groups=2).fit(X, Y)
        >>> model.task_groups_, model.predict_proba(X).shape
        (array([0, 1, 0, 1]), (120, 4))

    Source: after the idea of Yang et al. 2020 (TFCL); Bishop 2006, eq. 4.99.
    """

    _stratified = True
    classes_: np.ndarray

    def decision_function(self, X: Any, groups: Any = None) -> Any:
        """Return logits: `[n, T]`, `[n]` for two classes or with `groups`, of lists a list."""
        if groups is not None and self._is_vector() and len(self.classes_) > 2:
            raise ValueError("y was one column of classes, whose tasks are classes: leave out groups")
        found = self._outputs(X, groups)
        single = self._is_vector() and len(self.classes_) == 2 and groups is None
        return found[:, 0] if single and not isinstance(found, list) else found

    def predict_proba(self, X: Any, groups: Any = None) -> Any:
        """Return probabilities: of the classes of y `[n, C]`; of a 1 in each column of Y `[n, T]`.

        Of rows of groups, or of each table of a list, `[n, 2]`.
        """
        found = self.decision_function(X, groups)
        if isinstance(found, list):
            return [_both(logits) for logits in found]
        if found.ndim == 1:
            return _both(found)
        chances = expit(found)
        if self._form != VECTOR:
            return chances
        return chances / np.maximum(chances.sum(1, keepdims=True), 1e-300)

    def predict(self, X: Any, groups: Any = None) -> Any:
        """Return classes `[n]`, of a matrix Y 0 or 1 `[n, T]`, of lists a list."""
        found = self.decision_function(X, groups)
        if isinstance(found, list):
            return [self.classes_[(logits > 0).astype(int)] for logits in found]
        if found.ndim == 1:
            return self.classes_[(found > 0).astype(int)]
        return self.classes_[found.argmax(1) if self._form == VECTOR else (found > 0).astype(int)]

    def score(self, X: Any, y: Any, groups: Any = None, sample_weight: Any = None) -> float:  # type: ignore[override]
        """Return the share of rows that are right; of a matrix Y those right in all columns."""
        found = self.predict(X, groups)
        if isinstance(found, list):
            found, y = np.concatenate(found), np.concatenate([np.asarray(part) for part in y])
        return float(accuracy_score(y, found, sample_weight=sample_weight))

    def _alike(self, x: np.ndarray, y: Any) -> Tasks:
        shape = np.asarray(y).shape
        several = len(shape) == 2 and shape[1] > 1
        names = _column_names(y)
        if several:
            y = read_numbers(y, several=True)
            check_consistent_length(x, y)
            if not np.isin(y[~np.isnan(y)], (0, 1)).all():
                raise ValueError(
                    "a matrix Y has a task in each column, 0 or 1, NaN where there is no label; it holds other "
                    "values: give classes as one column y, or code them as 0 and 1"
                )
            self.classes_ = np.array([0, 1])
            return matrix_tasks(x, y, names or list(range(y.shape[1])))
        y = column_or_1d(y, warn=True)
        check_consistent_length(x, y)
        code = self._coded([y])[0]
        if len(self.classes_) == 2:
            return Tasks([x], [code.astype(np.float64)], [self.classes_[1]], VECTOR)
        ys = [(code == c).astype(np.float64) for c in range(len(self.classes_))]
        return Tasks([x] * len(ys), ys, self.classes_.tolist(), VECTOR)

    def _with_targets(self, xs: list[np.ndarray], ys: list[Any], names: list[Any], form: str) -> Tasks:
        codes = self._coded([column_or_1d(y) for y in ys])
        if len(self.classes_) > 2:
            what = "lists" if form == LISTS else "groups"
            raise ValueError(
                f"tasks of {what} have two classes, the same ones; got {len(self.classes_)} in all: code each as one "
                "class against the rest"
            )
        return Tasks(xs, [code.astype(np.float64) for code in codes], names, form)

    def _coded(self, ys: list[np.ndarray]) -> list[np.ndarray]:
        """Return the place of each label among the classes, which are set."""
        joined = np.concatenate(ys)
        check_classification_targets(joined)
        self.classes_, code = np.unique(joined, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"at least two classes are needed; got one class, {self.classes_[0]!r}: add rows of another"
            )
        return np.split(code, np.cumsum([len(y) for y in ys])[:-1])

    def _strengths(self, whole: Scaled) -> np.ndarray:
        if self.start == "ridge":
            return DENSE
        pairs = zip(whole.x, self._targets(whole), strict=True)
        return max(max(np.abs(x.T @ (y - y.mean())).max() / max(len(y), 1) for x, y in pairs), 1e-12) * SPARSE

    def _targets(self, part: Scaled) -> list[np.ndarray]:
        """Return the targets as 0 and 1."""
        pairs = zip(part.y, part.scale, part.level, strict=True)
        return [np.clip(np.rint(y * s + level), 0.0, 1.0) for y, s, level in pairs]

    def _path(self, part: Scaled, strengths: np.ndarray) -> np.ndarray:
        """Return the start's weights and intercepts under each strength, `[S, T, d + 1]`."""
        ys = self._targets(part)
        if self.start == "lasso":
            return np.stack([sparse_path(x, y, list(strengths)) for x, y in zip(part.x, ys, strict=True)], 1)
        rows = np.array([[max(len(y), 1)] for y in ys]) * np.ones(part.middle.shape)
        return np.stack([logistic_tasks(part.x, ys, 1 / (s * rows)) for s in strengths])

    def _sums(self, part: Scaled, start: np.ndarray) -> tuple[TaskSums, np.ndarray]:
        """Return sums of least squares, and the start's weights on their scale."""
        return task_sums(part.x, part.y), start[:, :-1] / _per_logit(part)[:, None]

    def _of_start(self, part: Scaled, weights: np.ndarray) -> Fitted:
        coef = weights[:, :-1] / part.width
        return Fitted(coef, weights[:, -1] - (coef * part.middle).sum(1))

    def _in_blocks(self, part: Scaled, found: Weights, kind: str) -> dict[str, Fitted]:
        """Return logistic weights under the variances that least squares say, times each factor."""
        ys, more = self._targets(part), _per_logit(part)
        variance = found.groups.variance() * more[:, None] ** 2
        spread = found.spread * float(np.median(more)) ** 2 if kind == ALL else 0.0
        made = {}
        for factor in FACTORS:
            weights = logistic_tasks(part.x, ys, factor * variance, factor * spread)
            made[f"{kind} {factor}"] = self._of_start(part, weights)._replace(found=found)
        return made

    def _loss(self, fitted: Fitted, held: Tasks, whole: Scaled) -> float:
        """Return the sum of log-losses on held rows."""
        total = 0.0
        for x, y, w, b in zip(held.x, held.y, fitted.coef, fitted.intercept, strict=True):
            logits = x @ w + b
            total += float((np.logaddexp(0.0, logits) - y * logits).sum())
        return total

    def _shaped(self, coef: np.ndarray, intercept: np.ndarray) -> tuple[np.ndarray, Any]:
        return coef, intercept

    def __sklearn_tags__(self) -> Any:
        """Return that several labels are welcome."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


def _per_logit(part: Scaled) -> np.ndarray:
    """Return how many logits a unit of the scaled targets is in each task, `[T]`: `dp = p (1 - p) dlogit`."""
    chance = np.clip(part.level, 0.0, 1.0)
    return part.scale / np.maximum(chance * (1 - chance), 0.02)


def _both(logits: np.ndarray) -> np.ndarray:
    return np.stack([expit(-logits), expit(logits)], 1)


def _lasso(x: np.ndarray, y: np.ndarray, strengths: np.ndarray) -> np.ndarray:
    """Return the weights `[S, d]` of a lasso under falling strengths."""
    if len(y) < 2 or not y.any() or not x.any():
        return np.zeros((len(strengths), x.shape[1]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        path = lasso_path(x, y, alphas=strengths)[1]  # type: ignore[arg-type]
    return np.asarray(path).T


def _column_names(y: Any) -> list[Any] | None:
    """Return the names of a data frame's columns, or None."""
    columns = getattr(y, "columns", None)
    return list(columns) if columns is not None else None
