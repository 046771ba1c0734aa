"""What both estimators share: rows in, states merged, saved and loaded.

Source: Pedregosa et al. 2011 (the estimator's interface).
"""

from __future__ import annotations

import copy
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import (
    _check_sample_weight,
    check_consistent_length,
    check_is_fitted,
    validate_data,
)

from ..files.contract import blamed
from ..files.table import TableState, device_here, read_table, write_table
from ..learner import Learner
from ..names import hint
from ..preprocessing import Columns, Encoder, labels, read_columns
from ..preprocessing.drift import warn_of_drift
from ..preprocessing.rows import Rows
from ..recipes import rebuild
from .table import ENCODED, TableTask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

SHIPPED = ("experts",)
"""Names of `model`: nothing meta-trained, no weights file."""

AHEAD = 1024
"""Rows at most that are predicted at once before they are learnt; fewer, an eighth of those learnt, at first."""


class Refined(BaseEstimator):
    """What `RefinedClassifier` and `RefinedRegressor` share."""

    n_features_in_: int
    feature_names_in_: np.ndarray
    classes_: np.ndarray
    task_: TableTask

    def __init__(
        self,
        model: str | Path | Learner = "experts",
        batch_size: int = 32,
        n_passes: int = 1,
        n_estimators: int = 1,
        device: str = "cpu",
        random_state: Any = 0,
    ) -> None:
        self.model = model
        self.batch_size = batch_size
        self.n_passes = n_passes
        self.n_estimators = n_estimators
        self.device = device
        self.random_state = random_state

    def merge(self, estimator: Self) -> Self:
        """Learn all that another estimator has learnt, and return self.

        Both must share one frozen map: make them with `fork()` from one that has seen the first rows. The statistics
        are those of one pass over both, exactly; the experts' weights are products of those that each pass has found.

        Raises:
            ValueError: another kind of estimator, other maps or classes, or a map that is not fixed yet.

        Example:
            >>> import numpy as np
            >>> from gradatim import RefinedRegressor
            >>> X = np.random.default_rng(0).normal(size=(600, 3))
            >>> base = RefinedRegressor().partial_fit(X[:300], X[:300, 0])
            >>> base.merge(base.fork().partial_fit(X[300:], X[300:, 0])).task_.rows
            600.0
        """
        check_is_fitted(self)
        if estimator is self:
            raise ValueError("an estimator does not merge with itself: its rows would count twice")
        if type(estimator) is not type(self):
            raise ValueError(f"a {type(self).__name__} merges with another; got a {type(estimator).__name__}")
        check_is_fitted(estimator)
        classes, more = (getattr(part, "classes_", np.empty(0)).tolist() for part in (self, estimator))
        if classes != more:
            raise ValueError(
                f"merging needs the same classes; got {classes[:8]} and {more[:8]}: name all at first"
            )
        task = copy.copy(self.task_)
        task.merge(estimator.task_)
        self.task_ = task
        return self

    def remap(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Begin again with rows X `[n, columns]`, y `[n]` of another range: with a new map, forgetting what was learnt.

        Raises:
            ValueError: as `partial_fit`.
        """
        check_is_fitted(self)
        fresh = type(self)(**self.get_params(deep=False))
        fresh._learn(fresh._rows(X, y, sample_weight), classes=self._labels())
        self.__dict__.update(fresh.__dict__)
        return self

    def fork(self) -> Self:
        """Return a copy with the same frozen map that has seen no rows: adapt copies to shards, then `merge`.

        Raises:
            ValueError: the map is not fixed yet.
        """
        check_is_fitted(self)
        if self.task_.encoder is None:
            raise ValueError("the map is not fixed yet: learn more rows before forking")
        fresh = copy.deepcopy(self)
        fresh.task_.reset()
        return fresh

    def save(self, path: Path | str, header: dict[str, Any] | None = None) -> Path:
        """Write the estimator and all that it knows to one file, without pickle; return its path.

        `header`: what else to remember, plain JSON. Moments are packed in float32: what is answered after `load`
        differs by rounding. Heads that score rows to come are solved anew, here and in the file: both go on alike.

        Raises:
            ValueError: the file cannot be written; what stood there stays.
        """
        check_is_fitted(self)
        seed = self.random_state if isinstance(self.random_state, int | None) else None
        params: dict[str, Any] = {
            name: int(getattr(self, name)) for name in ("batch_size", "n_passes", "n_estimators")
        }
        params["model"] = "given" if isinstance(self.model, Learner) else "checkpoint"
        params["model"] = self.model if self.model in SHIPPED else params["model"]
        about = {
            **(header or {}),
            "estimator": type(self).__name__,
            "params": {**params, "device": str(self.device), "random_state": seed},
            "n_features": self.n_features_in_,
            "feature_names": [str(name) for name in getattr(self, "feature_names_in_", [])] or None,
            "classes": labels.to_json(self._labels()),
        }
        task = copy.copy(self.task_)
        tensors, entries = task.pack()
        written = write_table(path, tensors, about | entries, lambda new: self.load(new, task.template))
        self.task_ = task
        return written

    @classmethod
    def load(cls, path: Path | str | TableState, model: Any = None, device: str | None = None) -> Self:
        """Return the estimator that `save` wrote.

        `model`: the learner, where one was given (a file holds what was learnt of a table, not the learner's weights);
        `device` in place of the one it was on.

        Raises:
            ValueError: a file that is missing, truncated, foreign, newer than this gradatim, of another estimator, or
                of another learner than `model`.
        """
        about, tensors, path = read_table(path, lambda value: Encoder.from_json(value).width)
        if about["estimator"] != cls.__name__:
            raise ValueError(f"{path} holds a {about['estimator']}: load it with {about['estimator']}.load")
        if about["params"]["model"] not in SHIPPED and model is None:
            raise ValueError(
                f"{path} was written with a learner as model: give it, load(path, model=learner)"
            )
        changes = {"model": model, "device": device_here(about["params"]["device"], path, device)}
        params = about["params"] | {name: value for name, value in changes.items() if value is not None}
        estimator, classes = cls(**params), labels.from_json(about["classes"])
        names = about["feature_names"] and np.array(about["feature_names"], dtype=object)
        attributes = {"n_features_in_": about["n_features"], "feature_names_in_": names, "classes_": classes}
        estimator.__dict__.update({k: value for k, value in attributes.items() if value is not None})
        estimator.task_ = estimator._new_task(None if classes is None else len(classes))
        with blamed(path):
            estimator.task_.unpack(tensors, about)
        return estimator

    def __sklearn_tags__(self) -> Any:
        """Return what kinds of tables are read."""
        tags = super().__sklearn_tags__()
        for kind in ("allow_nan", "sparse", "string", "categorical"):
            setattr(tags.input_tags, kind, True)
        return tags

    @contextmanager
    def _unharmed(self) -> Iterator[None]:
        """Put everything back as it was where something is raised."""
        before = dict(self.__dict__)
        try:
            yield
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def _labels(self) -> np.ndarray | None:
        return getattr(self, "classes_", None)

    def _new_task(self, outputs: int | None) -> TableTask:
        """Return a task of no rows, or raise ValueError for settings that cannot be."""
        for name in ("batch_size", "n_passes", "n_estimators"):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1; got {value!r}")
        template = self.model if isinstance(self.model, Learner) else None
        if not isinstance(self.model, Learner) and self.model not in SHIPPED:
            if not Path(name := str(self.model)).exists():
                near = f"{hint(name, SHIPPED)} (or give a checkpoint)"
                raise ValueError(f"no model or file is called {name!r}: {near}")
            template = rebuild(Path(name))[0]
        if template is None and self.n_passes != 1:
            raise ValueError("the shipped model counts every row once, exactly: n_passes must be 1")
        if template is not None and self.n_estimators != 1:
            raise ValueError("a learner given as model draws no features: n_estimators must be 1")
        first = int(check_random_state(self.random_state).randint(2**31 - self.n_estimators))
        seeds = tuple(range(first, first + self.n_estimators))
        return TableTask(outputs, seeds, template, str(self.device))

    def _columns(self, X: Any, reset: bool) -> Columns:
        """Return X by column, checked against the columns of before."""
        columns = read_columns(X)
        plain = isinstance(X, np.ndarray) and not hasattr(self, "feature_names_in_")
        if reset or not plain or len(columns.names) != self.n_features_in_:
            validate_data(self, X, skip_check_array=True, reset=reset)  # type: ignore[arg-type]
        return columns

    def _rows(self, X: Any, y: Any, sample_weight: Any, fit: bool = False) -> Rows:
        """Return checked rows, y `[n]` labels or numbers, to `fit` or to learn next, in a task that may change."""
        y, more = self._checked(y), hasattr(self, "task_") and not fit
        columns = self._columns(X, reset=not more)
        check_consistent_length(columns.values[0], y)
        weight = np.ones(len(y))
        if sample_weight is not None:
            weight = np.asarray(_check_sample_weight(sample_weight, X, dtype=np.float64, copy=True))
            if (weight < 0).any():
                raise ValueError("sample_weight must not be negative")
            if not (weight > 0).any():
                raise ValueError("sample_weight is zero for every row: there is nothing to learn")
        if more:
            self.task_ = copy.copy(self.task_)
            if self.task_.encoder is not None:
                self.task_.warned = warn_of_drift(self.task_.encoder, columns, self.task_.warned)
        return Rows(columns, y, weight)

    def _checked(self, y: Any) -> np.ndarray:
        """Return y `[n]`, labels or numbers."""
        raise NotImplementedError

    def _learn(self, rows: Rows, x: np.ndarray | None = None, classes: Any = None) -> None:
        """Learn rows, `x [n, d]` if they are encoded; begin a task where there is none."""
        raise NotImplementedError

    def _ahead(self, rows: Rows, classes: Any = None) -> Iterator[tuple[Any, np.ndarray]]:
        """Yield the classes so far (of a regression None) and what is predicted of the next rows `[n, ...]`.

        They are whole mini-batches, and more of them the more rows are learnt: heads are solved for each prediction.
        """
        while len(rows):
            task, classes_before = getattr(self, "task_", None), self._labels()
            batches = 0 if task is None else int(task.rows) // (8 * self.batch_size)
            size = self.batch_size * min(max(1, batches), max(1, AHEAD // self.batch_size))
            piece, rows = rows.take(slice(size)), rows.take(slice(size, None))
            # a task may be there that has not seen a row: those before were of weight 0
            if task is None or (task.encoder is None and task.warm is None):
                self._learn(piece, None, classes)
                classes_before, size = self._labels(), len(piece)
                if classes_before is None:
                    yield None, np.full(size, np.nan)
                else:
                    yield classes_before, np.full((size, len(classes_before)), 1 / len(classes_before))
                continue
            current = task.current(self.batch_size)
            x = current.encode(piece.columns)
            prediction = current.predict(x, TableTask.outputs_at)
            # while rows are held the map is not fixed: they are encoded once more
            self._learn(piece, x if current is task else None, classes)
            yield classes_before, prediction

    def _predict(self, columns: Columns, read: Callable[[TableTask, Tensor], Tensor]) -> np.ndarray:
        """Return what `read` returns of the task and of rows, encoded some at a time: `[n, ...]`."""
        task = self.task_.current(self.batch_size)
        starts = range(0, columns.n_rows, ENCODED)
        parts = (task.encode(columns.take(slice(start, start + ENCODED))) for start in starts)
        return np.concatenate([task.predict(part, read) for part in parts])

    def _learn_targets(self, rows: Rows, y: np.ndarray, x: np.ndarray | None) -> None:
        """Learn rows whose y is numbers or class indices `[n]`; those of weight 0 are left out."""
        x = x if x is None or rows.weight.all() else x[rows.weight > 0]
        rows = Rows(rows.columns, y.astype(np.float64), rows.weight).present()
        self.task_.partial_fit(rows, self.batch_size, x)

    def _fit(self, rows: Rows, y: np.ndarray, outputs: int | None) -> None:
        """Learn a whole table, y numbers or class indices `[n]`, forgetting what was learnt."""
        task, rows = self._new_task(outputs), Rows(rows.columns, y.astype(np.float64), rows.weight)
        task.fit(rows.present(), self.batch_size, self.n_passes)
        self.task_ = task
