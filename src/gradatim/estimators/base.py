"""What both estimators share: rows in, states merged, saved and loaded.

Source: Pedregosa et al. 2011 (the estimator's interface).
"""

from __future__ import annotations

import copy
import warnings
from contextlib import contextmanager
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

from ..learner import Learner
from ..names import hint
from ..preprocessing import Columns, read_columns
from .files import load_learner, read_table, restore, write_table
from .rows import Rows
from .table import Adapted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHIPPED = ("experts",)
"""What `model` can be called by name: nothing learnt, no weights file."""

STRAY = 0.2
"""The share of rows outside the range that a column's map was made for at which a warning says so."""


STRAYS = 16
"""Fewer rows at once than these are never warned of."""


class DriftWarning(UserWarning):
    """Rows lie outside the range that the map of their columns was made for."""


class Refined(BaseEstimator):
    """What `RefinedClassifier` and `RefinedRegressor` share."""

    n_features_in_: int
    feature_names_in_: np.ndarray
    classes_: np.ndarray
    task_: Adapted

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

    def merge(self, other: Self) -> Self:
        """Learn all that another estimator has learnt, and return self.

        Both must share one frozen map: make them with `fork()` from one that has seen the first rows. The statistics
        are those of one pass over both, exactly; the experts' weights are products of those that each pass has found.

        Raises:
            ValueError: another kind of estimator, other maps or classes, or a map that is not fixed yet.

        Example:
            >>> parts = [base.fork().partial_fit(X, y) for X, y in shards]
            >>> whole = base.merge(parts[0]).merge(parts[1])
        """
        check_is_fitted(self)
        if other is self:
            raise ValueError("an estimator does not merge with itself: its rows would count twice")
        if type(other) is not type(self):
            raise ValueError(f"a {type(self).__name__} merges with another; got a {type(other).__name__}")
        check_is_fitted(other)
        if _few(self._labels(), None) != _few(other._labels(), None):
            raise ValueError(
                f"merging needs the same classes; got {_few(self._labels())} and {_few(other._labels())}: name them "
                "all in the first partial_fit"
            )
        task = copy.copy(self.task_)
        task.merge(other.task_)
        self.task_ = task
        return self

    def fork(self) -> Self:
        """Return a copy with the same frozen map that has seen no rows: adapt copies to shards, then `merge`.

        Raises:
            ValueError: the map is not fixed yet.
        """
        check_is_fitted(self)
        if self.task_.warm is not None:
            raise ValueError("the map is not fixed yet: learn more rows before forking")
        made = copy.deepcopy(self)
        made.task_.forget()
        return made

    def save(self, path: Path | str, header: dict[str, Any] | None = None) -> Path:
        """Write the estimator and all that it knows to one file, without pickle; return its path.

        `header`: what else to remember, plain JSON. Moments are packed in float32: what is answered after `load`
        differs by rounding. Heads that score rows to come are solved anew, here and in the file: both go on alike.

        Raises:
            ValueError: the file cannot be written; what stood there stays.
        """
        check_is_fitted(self)
        about = {
            **(header or {}),
            "estimator": type(self).__name__,
            "params": self._plain_params(),
            "n_features": self.n_features_in_,
            "feature_names": [str(name) for name in getattr(self, "feature_names_in_", [])] or None,
            "classes": _plain_labels(self._labels()),
        }
        task = copy.copy(self.task_)
        task.settle()
        written = write_table(path, task, about)
        self.task_ = task
        return written

    @classmethod
    def load(
        cls, path: Path | str, model: str | Path | Learner | None = None, device: str | None = None
    ) -> Self:
        """Return the estimator that `save` wrote.

        `model`: the learner, where one was given (a file holds what was learnt of a table, not the learner's weights);
        `device` in place of the one it was on.

        Raises:
            ValueError: a file that is missing, truncated, foreign, newer than this gradatim, of another estimator, or
                of another learner than `model`.
        """
        about, tensors = read_table(path)
        if about["estimator"] != cls.__name__:
            raise ValueError(f"{path} holds a {about['estimator']}: load it with {about['estimator']}.load")
        if about["params"]["model"] == "given" and model is None:
            raise ValueError(
                f"{path} was written with a learner given as model: load(path, model=learner) wants it"
            )
        changes = {"model": model, "device": device}
        made = cls(**about["params"] | {name: value for name, value in changes.items() if value is not None})
        made.n_features_in_ = about["n_features"]
        if about["feature_names"] is not None:
            made.feature_names_in_ = np.array(about["feature_names"], dtype=object)
        if about["classes"] is not None:
            made.classes_ = np.array(about["classes"]["labels"], dtype=np.dtype(about["classes"]["dtype"]))
        made.task_ = made._new_task(None if about["classes"] is None else len(made.classes_))
        restore(made.task_, tensors, about, path)
        return made

    def __sklearn_tags__(self) -> Any:
        """Return what kinds of tables are read."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.sparse = True
        tags.input_tags.string = True
        tags.input_tags.categorical = True
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

    def _plain_params(self) -> dict[str, Any]:
        params = self.get_params(deep=False)
        if isinstance(params["model"], Learner):
            params["model"] = "given"
        params["model"], params["device"] = str(params["model"]), str(params["device"])
        params |= {name: int(params[name]) for name in ("batch_size", "n_passes", "n_estimators")}
        if not isinstance(params["random_state"], int | None):
            params["random_state"] = None
        return params

    def _new_task(self, outputs: int | None) -> Adapted:
        """Return a task of no rows, or raise ValueError for settings that cannot be."""
        for name in ("batch_size", "n_passes", "n_estimators"):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1; got {value!r}")
        given = self.model if isinstance(self.model, Learner) else None
        if not isinstance(self.model, Learner) and self.model not in SHIPPED:
            given = load_learner(self.model, hint(str(self.model), SHIPPED))
        if given is None and self.n_passes != 1:
            raise ValueError("the shipped model counts every row once, exactly: n_passes must be 1")
        if given is not None and self.n_estimators != 1:
            raise ValueError(
                "members differ by the features they draw, and a given learner draws none: n_estimators must be 1"
            )
        first = check_random_state(self.random_state).randint(2**31 - self.n_estimators)
        seeds = tuple(int(first) + member for member in range(self.n_estimators))
        return Adapted(outputs, seeds, given, str(self.device))

    def _columns(self, X: Any, reset: bool) -> Columns:
        """Return X by column, checked against the columns of before."""
        columns = read_columns(X)
        plain = isinstance(X, np.ndarray) and not hasattr(self, "feature_names_in_")
        if reset or not plain or len(columns.names) != self.n_features_in_:
            validate_data(self, X, skip_check_array=True, reset=reset)  # type: ignore[arg-type]
        return columns

    def _rows(self, X: Any, y: np.ndarray, sample_weight: Any, reset: bool) -> Rows:
        """Return checked rows, those of weight 0 left away."""
        columns = self._columns(X, reset)
        check_consistent_length(columns.values[0], y)
        if sample_weight is None:
            return Rows(columns, y.astype(np.float64), np.ones(len(y)))
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64, copy=True)
        if (weight < 0).any():
            raise ValueError("sample_weight must not be negative")
        rows = Rows(columns, y.astype(np.float64), np.asarray(weight, dtype=np.float64))
        if (weight > 0).all():
            return rows
        if not (weight > 0).any():
            raise ValueError("sample_weight is zero for every row: there is nothing to learn")
        kept = np.flatnonzero(weight > 0)
        return Rows(columns.take(kept), rows.y[kept], rows.weight[kept])

    def _warn_of_strays(self, columns: Columns) -> None:
        """Say once which columns have left the range that their map was made for."""
        if self.task_.encoder is None or self.task_.warm is not None or columns.n_rows < STRAYS:
            return
        shares = self.task_.encoder.out_of_range(columns)
        gone = [name for name, share in shares.items() if share > STRAY and name not in self.task_.told]
        if gone:
            self.task_.told = self.task_.told.union(gone)
            named = ", ".join(f"{name!r} ({shares[name]:.0%} of these rows)" for name in gone[:8])
            warnings.warn(
                f"columns have left the range that their map was made for, {len(gone)} in all: {named}; answers there "
                "are extrapolated. Call remap(X, y) to begin again with rows like these",
                DriftWarning,
                stacklevel=3,
            )


def _few(labels: np.ndarray | None, most: int | None = 8) -> str:
    return "none" if labels is None else str(labels[:most].tolist())


def _plain_labels(labels: np.ndarray | None) -> dict[str, Any] | None:
    if labels is None:
        return None
    dtype = "object" if labels.dtype == object else labels.dtype.str
    return {"labels": labels.tolist(), "dtype": dtype}
