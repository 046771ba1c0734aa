"""What both estimators of blocks share: tasks in, groups found, the better of start and blocks kept, a picture.

Source: after the idea of Yang et al. 2020 (TFCL); Stone 1974 (the choice by cross-validation).
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.metrics import adjusted_rand_score
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from ..blocks.graph import gap
from ..blocks.moves import Groups
from ..blocks.weights import Weights, all_weights, grouped_weights
from ..names import hint
from ..probing.plots import block_picture
from .blocked_tasks import (
    GROUPS,
    LISTS,
    VECTOR,
    Scaled,
    Tasks,
    folds,
    grouped_tasks,
    is_lists,
    read_groups,
    read_lists,
    read_rows,
    scaled,
)

if TYPE_CHECKING:
    from pathlib import Path

    from ..blocks.sums import TaskSums

STARTS = ("lasso", "ridge")
PARTS = ("auto", "grouped", "all")
START, GROUPED, ALL = "start", "grouped", "all"
PULLED = 0.3
"""Strength of the penalty on the graph, as a share of the start's lasso."""
STABLE = 0.5
"""Agreement of groups between folds, at least; below it a warning says that they are not recovered."""


class GroupsWarning(UserWarning):
    """Groups of features and tasks are not recovered: other rows would give others."""


class Fitted(NamedTuple):
    """One way of fitting tasks: weights and intercepts in the units of the rows, and what they come from.

    Source: this project's own.
    """

    coef: np.ndarray
    intercept: np.ndarray
    found: Weights | None = None


class Blocked(BaseEstimator):
    """What `BlockedRegressor` and `BlockedClassifier` share."""

    n_features_in_: int
    _stratified = False

    def __init__(
        self, n_groups: int | str = "auto", start: str = "lasso", parts: str = "auto", cv: int = 4
    ) -> None:
        self.n_groups = n_groups
        self.start = start
        self.parts = parts
        self.cv = cv

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        """Learn tasks: a matrix Y `[n, T]` with NaN where a task has no target; lists of tables; or rows with `groups`.

        Args:
            X: rows `[n, d]`, or a list of tables, one for each task.
            y: targets `[n]` or `[n, T]`, or a list of targets.
            groups: the task of each row, `[n]`, where X is one table and tasks have rows of their own.

        Raises:
            ValueError: more groups than tasks or features, a task without a target, NaN in X, infinity, lengths that
                differ, a setting that is not known.
        """
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        before = dict(self.__dict__)
        try:
            tasks = self._read(X, y, groups)
            self._fit(tasks, self._checked(tasks))
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise
        return self

    def plot_blocks(self, png: Path | str) -> str | None:
        """Draw the weights, features and tasks ordered by their groups; return None, or why there is no picture."""
        check_is_fitted(self)
        width = self._width * np.atleast_2d(self.coef_)
        names = getattr(self, "feature_names_in_", np.arange(self.n_features_in_))
        return block_picture(width, self.feature_groups_, self.task_groups_, names, self.tasks_, png)

    def _read(self, X: Any, y: Any, groups: Any) -> Tasks:
        """Return the tasks of any form."""
        if is_lists(X):
            if groups is not None:
                raise ValueError("a list of tables has a task each; got groups as well: leave groups out")
            if not isinstance(y, list | tuple) or len(y) != len(X):
                count = len(y) if hasattr(y, "__len__") else type(y).__name__
                raise ValueError(
                    f"{len(X)} tables need a list of {len(X)} targets; got {count}: give one y for each table"
                )
            rows = read_lists(self, X, reset=True)
            for x, target in zip(rows, y, strict=True):
                check_consistent_length(x, target)
            return self._with_targets(rows, list(y), list(range(len(X))), LISTS)
        x = read_rows(self, X, reset=True)
        if groups is None:
            return self._alike(x, y)
        names = read_groups(groups, len(x))
        check_consistent_length(x, y)
        split = grouped_tasks(x, np.arange(len(x)), names)
        y = np.asarray(y)
        return self._with_targets(split.x, [y[at] for at in split.y], split.names, GROUPS)

    def _checked(self, tasks: Tasks) -> int | None:
        """Return the number of groups, None where it is to be found, once all settings are seen to be possible."""
        for name, known in (("start", STARTS), ("parts", PARTS)):
            value = getattr(self, name)
            if not isinstance(value, str) or value not in known:
                raise ValueError(f"{name}={value!r} is not known: {hint(str(value), known)}")
        if isinstance(self.cv, bool) or not isinstance(self.cv, int | np.integer) or self.cv < 2:
            raise ValueError(f"cv must be a whole number of folds, 2 or more; got {self.cv!r}: 4 is usual")
        if tasks.n_rows < 2:
            raise ValueError("at least 2 rows are needed, some to learn and some to judge; got 1 sample")
        if self.n_groups == "auto":
            return None
        wanted, tasks_, features = self.n_groups, len(tasks.x), self.n_features_in_
        if isinstance(wanted, bool) or not isinstance(wanted, int | np.integer) or wanted < 1:
            raise ValueError(f"n_groups must be 'auto' or a whole number of groups; got {wanted!r}")
        if wanted > min(tasks_, features):
            raise ValueError(
                f"n_groups must be at most the number of tasks ({tasks_}) and of features ({features}); got {wanted}: "
                "ask for fewer groups, or for 'auto'"
            )
        return int(wanted)

    def _fit(self, tasks: Tasks, n_groups: int | None) -> None:
        """Fit start and blocks, on folds and on all rows, and keep what predicts the rows of the folds best."""
        pairs = folds(tasks, min(self.cv, max(len(y) for y in tasks.y)), self._stratified)
        parts = [scaled(training) for training, _ in pairs]
        whole = scaled(tasks)
        strengths = self._strengths(whole)
        paths = [self._path(part, strengths) for part in parts]
        losses = np.zeros(len(strengths))
        for path, part, (_, held) in zip(paths, parts, pairs, strict=True):
            losses += [self._loss(self._of_start(part, weights), held, whole) for weights in path]
        best = int(losses.argmin())
        table = {START: losses[best]}
        labels: list[dict[str, Groups]] = []
        for path, part, (_, held) in zip(paths, parts, pairs, strict=True):
            made = self._candidates(part, path[best], strengths[best], n_groups, None)
            for name, fitted in made.items():
                table[name] = table.get(name, 0.0) + self._loss(fitted, held, whole)
            labels.append(
                {name.split()[0]: fitted.found.groups for name, fitted in made.items() if fitted.found}
            )
        self._keep(tasks, whole, n_groups, self._path(whole, strengths)[best], strengths[best], table, labels)

    def _keep(
        self,
        tasks: Tasks,
        whole: Scaled,
        n_groups: int | None,
        start: np.ndarray,
        strength: float,
        table: dict[str, float],
        labels: list[dict[str, Groups]],
    ) -> None:
        """Set the attributes of the fit whose validation loss in `table` is least; a tie is the start's."""
        self.validation_ = {name: float(loss / tasks.n_rows) for name, loss in table.items()}
        chosen = min(self.validation_, key=lambda name: self.validation_[name])
        others = [name for name in table if name != START]
        used = chosen if chosen != START else min(others, key=lambda name: self.validation_[name])
        fitted = self._candidates(whole, start, strength, n_groups, used)[used]
        assert fitted.found is not None
        groups, kind = fitted.found.groups, used.split()[0]
        self.chosen_, self.tasks_ = chosen.split()[0], np.asarray(tasks.names)
        both = _ordered(np.concatenate([groups.features, groups.tasks]))
        self.feature_groups_, self.task_groups_ = both[: self.n_features_in_], both[self.n_features_in_ :]
        self.n_groups_ = int(both.max()) + 1
        self.stability_ = _agreement(groups, [label[kind] for label in labels])
        block = groups.tasks[:, None] == groups.features
        weights = np.abs(fitted.found.weights - fitted.found.shared)
        self.inside_ = float(weights[block].sum() / weights.sum()) if weights.any() else 1.0
        self.eigengap_ = gap(weights, self.n_groups_)
        final = self._of_start(whole, start) if chosen == START else fitted
        shared = fitted.found.shared * whole.scale.mean() / whole.width
        self.shared_ = shared if self.chosen_ == ALL else np.zeros_like(shared)
        self._width, self._form = whole.width, tasks.form
        self.coef_, self.intercept_ = self._shaped(final.coef, final.intercept)
        self._warn(len(tasks.x))

    def _warn(self, n_tasks: int) -> None:
        """Warn where groups were found that other rows do not confirm."""
        if n_tasks < 2 or self.n_groups_ < 2 or (self.chosen_ != START and self.stability_ >= STABLE):
            return
        why = (
            f"{self.start} alone predicts validation rows better, and was kept"
            if self.chosen_ == START
            else f"fits to other rows find other groups (agreement {self.stability_:.2f} of 1)"
        )
        warnings.warn(
            f"the {self.n_groups_} groups of features and tasks are not recovered: {why}. Do not read feature_groups_ "
            "and task_groups_ as facts: give more rows, or another n_groups",
            GroupsWarning,
            stacklevel=5,
        )

    def _candidates(
        self, part: Scaled, start: np.ndarray, strength: float, n_groups: int | None, only: str | None
    ) -> dict[str, Fitted]:
        """Return the fits in blocks by name, from the weights of a start; all that `parts` allows, or one."""
        wanted = [GROUPED, ALL] if self.parts == "auto" else [self.parts]
        if only is not None:
            wanted = [only.split()[0]]
        sums, weights = self._sums(part, start)
        made: dict[str, Fitted] = {}
        for kind in wanted:
            find = grouped_weights if kind == GROUPED else all_weights
            found = find(sums, weights, n_groups, PULLED * strength)
            for name, fitted in self._in_blocks(part, found, kind).items():
                if only in (None, name):
                    made[name] = fitted
        return made

    def _outputs(self, X: Any, groups: Any) -> Any:
        """Return `x @ coef + intercept`: of rows `[n, T]`, of rows of groups `[n]`, of lists a list of `[n]`."""
        check_is_fitted(self)
        coef, intercept = np.atleast_2d(self.coef_), np.atleast_1d(self.intercept_)
        if is_lists(X):
            if len(X) != len(coef):
                raise ValueError(
                    f"{len(coef)} tasks were learnt; got {len(X)} tables: give one for each task, in their order, or "
                    "one table for all"
                )
            rows = read_lists(self, X, reset=False)
            return [x @ w + b for x, w, b in zip(rows, coef, intercept, strict=True)]
        x = read_rows(self, X, reset=False)
        if groups is None:
            return x @ coef.T + intercept
        names = read_groups(groups, len(x))
        index = {name: at for at, name in enumerate(self.tasks_.tolist())}
        unknown = next((name for name in names.tolist() if name not in index), None)
        if unknown is not None:
            raise ValueError(f"task {unknown!r} is not known: {hint(str(unknown), list(map(str, index)))}")
        at = np.array([index[name] for name in names.tolist()])
        return (x * coef[at]).sum(1) + intercept[at]

    def __sklearn_tags__(self) -> Any:
        """Return that several targets are welcome."""
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags

    def _is_vector(self) -> bool:
        return self._form == VECTOR

    def _alike(self, x: np.ndarray, y: Any) -> Tasks:
        """Return the tasks of one y or a matrix Y on shared rows."""
        raise NotImplementedError

    def _with_targets(self, xs: list[np.ndarray], ys: list[Any], names: list[Any], form: str) -> Tasks:
        """Return tasks with rows of their own."""
        raise NotImplementedError

    def _strengths(self, whole: Scaled) -> np.ndarray:
        """Return the strengths of the start that are tried, falling."""
        raise NotImplementedError

    def _path(self, part: Scaled, strengths: np.ndarray) -> np.ndarray:
        """Return the start's weights under each strength."""
        raise NotImplementedError

    def _sums(self, part: Scaled, start: np.ndarray) -> tuple[TaskSums, np.ndarray]:
        """Return sums of least squares, and the start's weights `[T, d]` on their scale."""
        raise NotImplementedError

    def _of_start(self, part: Scaled, weights: np.ndarray) -> Fitted:
        """Return the start's fit in the units of the rows."""
        raise NotImplementedError

    def _in_blocks(self, part: Scaled, found: Weights, kind: str) -> dict[str, Fitted]:
        """Return the fits in the groups that were found, by name."""
        raise NotImplementedError

    def _loss(self, fitted: Fitted, held: Tasks, whole: Scaled) -> float:
        """Return the loss on held rows, their sum."""
        raise NotImplementedError

    def _shaped(self, coef: np.ndarray, intercept: np.ndarray) -> tuple[np.ndarray, Any]:
        """Return weights and intercepts as the estimator shows them."""
        raise NotImplementedError


def _ordered(labels: np.ndarray) -> np.ndarray:
    """Return labels with groups named 0, 1, ... in the order in which they first appear."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


def _agreement(groups: Groups, others: list[Groups]) -> float:
    """Return the mean adjusted Rand index of groups with those found on other rows; features and tasks count alike."""
    pairs = [
        (adjusted_rand_score(groups.features, o.features) + adjusted_rand_score(groups.tasks, o.tasks)) / 2
        for o in others
    ]
    return float(np.mean(pairs)) if pairs else 1.0
