"""Tasks as users have them: columns of Y, lists of tables, or rows with a group each; and their scales and folds.

Source: Pedregosa et al. 2011 (the estimator's interface).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from sklearn.utils.validation import check_array, check_consistent_length, validate_data

from ..preprocessing.cells import is_missing

VECTOR, MATRIX, LISTS, GROUPS = "vector", "matrix", "lists", "groups"


class Tasks(NamedTuple):
    """Rows of T tasks.

    Attributes:
        x: rows of each task, `[n, d]`.
        y: its targets, `[n]`.
        names: of the tasks.
        form: how they came: one vector y, a matrix Y, lists, or groups.

    Source: this project's own.
    """

    x: list[np.ndarray]
    y: list[np.ndarray]
    names: list[Any]
    form: str

    @property
    def n_rows(self) -> int:
        """Return the number of rows of all tasks."""
        return sum(len(y) for y in self.y)

    def part(self, kept: list[np.ndarray]) -> Tasks:
        """Return some rows of each task."""
        x = [rows[at] for rows, at in zip(self.x, kept, strict=True)]
        return self._replace(x=x, y=[y[at] for y, at in zip(self.y, kept, strict=True)])


class Scaled(NamedTuple):
    """Tasks with columns of deviation one, centred task by task, and the way back.

    Attributes:
        x: centred rows of each task.
        y: its targets, centred and scaled.
        middle: of the columns, in each task, `[T, d]`.
        width: of the columns, `[d]`.
        level: of the targets, `[T]`.
        scale: of the targets, `[T]`.

    Source: this project's own.
    """

    x: list[np.ndarray]
    y: list[np.ndarray]
    middle: np.ndarray
    width: np.ndarray
    level: np.ndarray
    scale: np.ndarray

    def back(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return weights `[T, d]` in the units of the rows, and intercepts `[T]`."""
        coef = weights * self.scale[:, None] / self.width
        return coef, self.level - (coef * self.middle).sum(1)


def scaled(tasks: Tasks) -> Scaled:
    """Return tasks on one scale. Columns of targets have a unit each; those of lists and groups share one."""
    rows = np.concatenate(tasks.x)
    middle, width = rows.mean(0), rows.std(0)
    width = np.where(width > 1e-12 * (1 + np.abs(middle)), width, 1.0)
    targets = np.concatenate(tasks.y)
    middles = np.stack([x.mean(0) if len(x) else middle for x in tasks.x])
    level = np.array([y.mean() if len(y) else targets.mean() for y in tasks.y])
    apart = [y - at for y, at in zip(tasks.y, level, strict=True)]
    if tasks.form in (VECTOR, MATRIX):
        scale = np.array([y.std() if len(y) else 0.0 for y in apart])
    else:
        scale = np.full(len(apart), np.concatenate(apart).std())
    scale = np.where(scale > 1e-12 * (1 + np.abs(level)), scale, 1.0)
    x = [(x - at) / width for x, at in zip(tasks.x, middles, strict=True)]
    y = [y / s for y, s in zip(apart, scale, strict=True)]
    return Scaled(x, y, middles, width, level, scale)


def folds(tasks: Tasks, n_folds: int, stratified: bool) -> list[tuple[Tasks, Tasks]]:
    """Return pairs of training and validation rows. Each task is divided by itself, classes alike where `stratified`.

    Tasks of equally many rows are divided alike, so rows that tasks share stay on one side.
    """
    places = []
    joined = (
        np.argmax(tasks.y, axis=0) if tasks.form == VECTOR and len(tasks.y) > 1 else None
    )  # classes of one y
    for y in tasks.y:
        order = np.random.default_rng(0).permutation(len(y))
        if stratified and tasks.form != MATRIX:
            order = order[np.argsort((y if joined is None else joined)[order], kind="stable")]
        place = np.empty(len(y), np.int64)
        place[order] = np.arange(len(y)) % n_folds
        places.append(place)
    pairs = []
    for fold in range(n_folds):
        held = [place == fold for place in places]
        pair = tasks.part([~h for h in held]), tasks.part(held)
        if pair[0].n_rows and pair[1].n_rows:
            pairs.append(pair)
    return pairs


def is_lists(X: Any) -> bool:
    """Return whether X is a list of tables, one for each task."""
    return isinstance(X, list | tuple) and len(X) > 0 and all(_is_table(x) for x in X)


def _is_table(x: Any) -> bool:
    shape = getattr(x, "shape", None)
    if shape is not None:
        return len(shape) == 2
    return isinstance(x, list | tuple) and len(x) > 0 and isinstance(x[0], list | tuple)


def read_rows(estimator: Any, X: Any, reset: bool) -> np.ndarray:
    """Return finite rows `[n, d]` of a table."""
    return np.asarray(validate_data(estimator, X, reset=reset, dtype=np.float64))


def read_lists(estimator: Any, X: Any, reset: bool) -> list[np.ndarray]:
    """Return the rows of each table of a list.

    Raises:
        ValueError: tables of different columns.
    """
    rows = []
    for at, table in enumerate(X):
        try:
            rows.append(read_rows(estimator, table, reset and at == 0))
        except ValueError as error:
            raise ValueError(f"table {at} of X: {error}") from error
    return rows


def read_groups(groups: Any, n_rows: int) -> np.ndarray:
    """Return the name of each row's task `[n]`.

    Raises:
        ValueError: another length, a row without a name.
    """
    names = np.asarray(groups.to_numpy() if hasattr(groups, "to_numpy") else groups)
    if names.shape != (n_rows,):
        raise ValueError(
            f"groups must name the task of each of the {n_rows} rows; got shape {list(names.shape)}: give one name a "
            "row"
        )
    without = [row for row, name in enumerate(names.tolist()) if is_missing(name)]
    if without:
        raise ValueError(
            f"every row needs a task; rows {', '.join(map(str, without[:5]))} have none ({len(without)} in all): name "
            "it in groups, or leave them out"
        )
    if names.dtype.kind in "iub":
        return names
    if all(isinstance(name, int | np.integer) for name in names.tolist()):
        return names.astype(np.int64)
    return names.astype(str)


def read_numbers(y: Any, several: bool) -> np.ndarray:
    """Return targets as finite numbers `[n]`, or where `several` tasks may come `[n, T]`, with NaN where there is none.

    Raises:
        ValueError: no numbers, infinity, NaN in a single column.
    """
    y = check_array(
        y,
        ensure_2d=False,
        dtype=np.float64,  # type: ignore[arg-type]
        ensure_all_finite="allow-nan",  # type: ignore[arg-type]
        input_name="y",
    )
    if y.ndim > 2 or (y.ndim == 2 and not several):
        raise ValueError(f"y must be one column here; got shape {y.shape}: give one target a row")
    if y.ndim == 1 or y.shape[1] == 1:
        check_array(y, ensure_2d=False, input_name="y")
    return y


def matrix_tasks(x: np.ndarray, y: np.ndarray, names: list[Any]) -> Tasks:
    """Return the tasks of a matrix `[n, T]`; a row whose target is NaN is no row of that task.

    Raises:
        ValueError: a task without a target.
    """
    known = ~np.isnan(y)
    empty = np.flatnonzero(~known.any(0))
    if len(empty):
        raise ValueError(
            f"every task needs a target; column {names[empty[0]]!r} of Y is NaN throughout ({len(empty)} such "
            "columns): leave it out"
        )
    columns = range(y.shape[1])
    return Tasks([x[known[:, t]] for t in columns], [y[known[:, t], t] for t in columns], names, MATRIX)


def grouped_tasks(x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> Tasks:
    """Return the tasks of rows with a group each, in the order of the groups' names."""
    check_consistent_length(x, y)
    names, code = np.unique(groups, return_inverse=True)
    places = [code == at for at in range(len(names))]
    return Tasks([x[at] for at in places], [y[at] for at in places], names.tolist(), GROUPS)
