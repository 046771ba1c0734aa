"""What both estimators share: rows in, states merged, saved and loaded.

Source: Pedregosa et al. 2011 (the estimator's interface).
"""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d, validate_data

from ..committees import check_size
from ..files.contract import blamed
from ..files.table import TableState, device_here, read_table, write_table
from ..files.table_schema import MAX_MEMBERS
from ..forgetting import Forgetting
from ..interface import TableInterface
from ..learner import Learner
from ..memory import read_memory
from ..memory.waiting import bare
from ..names import hint
from ..one_row import OneRow
from ..preprocessing import Columns, Encoder, labels, read_columns
from ..preprocessing.drift import warn_of_drift
from ..preprocessing.features import MODEL, match_dicts
from ..preprocessing.labels import positions, union
from ..preprocessing.lineage import check_alike, join, lineage_of, new_lineage
from ..preprocessing.rows import Rows, read_weights
from ..recipes import rebuild
from ..table_task import ENCODED, TableTask
from .started import Started
from .weighed import Weighed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

SHIPPED = ("experts",)
"""Names of `model`: nothing meta-trained, no weights file."""

RAVEL = partial(column_or_1d, warn=True)
"""What makes a column of y, as scikit-learn does."""

MAPPED = 32
"""Rows at least that a new map is taken from: a scale shown by fewer does harm."""

AHEAD = 1024
"""Rows at most that are predicted at once before they are learnt; fewer, an eighth of those learnt, at first."""


class Refined(OneRow, Forgetting, Weighed, Started, TableInterface, BaseEstimator):
    """What `RefinedClassifier` and `RefinedRegressor` share."""

    n_features_in_: int
    feature_names_in_: np.ndarray
    classes_: np.ndarray
    task_: TableTask
    merged_: frozenset[str] = frozenset()

    def __init__(
        self,
        model: str | Path | Learner = "experts",
        batch_size: int = 32,
        n_passes: int = 1,
        n_estimators: int = 1,
        device: str = "cpu",
        random_state: Any = 0,
        memory: str | int = "all",
        prior: Any = None,
    ) -> None:
        self.model = model
        self.batch_size = batch_size
        self.n_passes = n_passes
        self.n_estimators = n_estimators
        self.device = device
        self.random_state = random_state
        self.memory = memory
        self.prior = prior

    @property
    def memory_(self) -> float:
        """Return how many rows the answers rest on; it falls where the stream has changed."""
        check_is_fitted(self)
        bank = self.task_.members.bank
        return self.task_.rows if bank is None else bank.remembers

    def merge(self, estimator: Self) -> Self:
        """Learn all that another estimator has learnt, and return self.

        Both must share one frozen map: make them with `fork()` from one that has seen the first rows. The sums are
        those of one pass over both, exactly. Experts are weighed anew, by what these sums say of each; `reweigh` with
        some of the rows does it better. Classes that only one of them knows are kept.

        Raises:
            ValueError: another kind of estimator, other maps or classes, a map that is not fixed yet, or rows that are
                merged already, also through a file or a third estimator.

        Example:
            >>> import numpy as np
            >>> from gradatim import RefinedRegressor
            >>> X = np.random.default_rng(0).normal(size=(600, 3))
            >>> base = RefinedRegressor().partial_fit(X[:300], X[:300, 0])
            >>> base.merge(base.fork().partial_fit(X[300:], X[300:, 0])).task_.rows
            600.0
        """
        check_is_fitted(self)
        check_alike(self, estimator)
        check_is_fitted(estimator)
        for part in (self, estimator):  # states of version 0.1 have no name
            part.merged_ = part.merged_ or lineage_of(part.task_)
        merged = join(self.merged_, estimator.merged_)
        task, more, classes = copy.copy(self.task_), copy.copy(estimator.task_), self._labels()
        if classes is not None:
            classes = union(classes, estimator.classes_)
            for part, fewer in ((task, self.classes_), (more, estimator.classes_)):
                if len(fewer) < len(classes):
                    part.widen(positions(classes, fewer), len(classes))
        start = self._start_merged(estimator)
        task.merge(more)
        self.task_, self.merged_, self.start_ = task, merged, start
        if classes is not None:
            self.classes_ = classes
        return self

    def remap(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Take the map from rows X `[n, columns]`, y `[n]` of another range, learn them, and return self.

        What was learnt is carried over: of a column whose scale changes, sums of numbers and of products exactly.

        Raises:
            ValueError: as `partial_fit`.
        """
        check_is_fitted(self)
        with self._unharmed():
            rows = self._targets(self._rows(X, y, sample_weight).present())
            if len(rows) < MAPPED:
                raise ValueError(
                    f"a map needs {MAPPED} rows at least; got {len(rows)}: give more, or use partial_fit"
                )
            self._start_learns(rows, rows.y)
            self.task_.remap(rows, self.batch_size)
        return self

    def reweigh(self, X: Any, y: Any, sample_weight: Any = None, n_rows: float | None = None) -> Self:
        """Weigh the experts by rows X `[n, columns]`, y `[n]` that were learnt, each scored as if it had been left out.

        After it, answers do not depend on the order in which rows were learnt. `n_rows`: how many rows these stand for
        (default: as many as they are, each by its weight).

        Raises:
            ValueError: as `partial_fit`; the map is not fixed yet.
        """
        check_is_fitted(self)
        with self._unharmed():
            rows = self._targets(self._rows(X, y, sample_weight).present())
            if self.task_.encoder is None:
                raise ValueError("the map is not fixed yet: learn more rows, or use fit")
            self.task_.reweigh(rows, float(rows.weight.sum()) if n_rows is None else n_rows)
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
        fresh.start_ = None if self.start_ is None else self.start_.empty()
        fresh.merged_ = new_lineage()
        return fresh

    def save(self, path: Path | str, header: dict[str, Any] | None = None) -> Path:
        """Write the estimator and all that it knows to one file, without pickle; return its path.

        `header`: what else to remember, plain JSON. Nothing is rounded: the file goes on as the estimator does. Before
        the map is fixed the file holds the first rows as they came; `fit` and `prepare` fix it at once.

        Raises:
            ValueError: the file cannot be written; what stood there stays.
        """
        check_is_fitted(self)
        seed = self.random_state if isinstance(self.random_state, int | None) else None
        names = ("batch_size", "n_passes", "n_estimators")
        params: dict[str, Any] = {name: int(getattr(self, name)) for name in names}
        params |= {} if self.task_.memory == "all" else {"memory": self.task_.memory}
        params["model"] = "given" if isinstance(self.model, Learner) else "checkpoint"
        params["model"] = self.model if self.model in SHIPPED else params["model"]
        about = {
            **((header or {}) | self._weights_to_json()),
            "estimator": type(self).__name__,
            "params": {**params, "device": str(self.device), "random_state": seed},
            "n_features": self.n_features_in_,
            "feature_names": [str(name) for name in getattr(self, "feature_names_in_", [])] or None,
            "classes": labels.to_json(self._labels()),
            "merged": sorted(self.merged_),
        }
        task = copy.copy(self.task_)
        tensors, entries = task.pack()
        tensors, entries = self._start_packed(tensors, entries)
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
        if (about["classes"] is None) == issubclass(cls, ClassifierMixin):
            raise ValueError(f"{path} contradicts itself: a classifier has classes, a regressor has none")
        changes = {"model": model, "device": device_here(about["params"]["device"], path, device)}
        params = about["params"] | {name: value for name, value in changes.items() if value is not None}
        estimator, classes = cls(**params), labels.from_json(about["classes"])
        names = about["feature_names"] and np.array(about["feature_names"], dtype=object)
        attributes = {"n_features_in_": about["n_features"], "feature_names_in_": names, "classes_": classes}
        attributes |= {"merged_": frozenset(about.get("merged", ())), **cls._weights_from_json(about)}
        estimator.__dict__.update({k: value for k, value in attributes.items() if value is not None})
        estimator.task_ = estimator._new_task(None if classes is None else len(classes))
        with blamed(path):
            estimator.task_.unpack(estimator._start_unpacked(tensors, about), about)
        return estimator

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled and copied: without the answers that are at hand until more rows are learnt."""
        state: dict[str, Any] = {**super().__getstate__()}  # type: ignore[dict-item]
        if "task_" in state:
            state["task_"] = bare(state["task_"])
        return state

    def _labels(self) -> np.ndarray | None:
        return getattr(self, "classes_", None)

    def _new_task(self, outputs: int | None) -> TableTask:
        """Return a task of no rows, or raise ValueError for settings that cannot be."""
        for name in ("batch_size", "n_passes", "n_estimators"):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1; got {value!r}")
        if self.n_estimators > MAX_MEMBERS:
            raise ValueError(f"n_estimators must be at most {MAX_MEMBERS}; got {self.n_estimators}")
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
        memory = read_memory(self.memory, template is not None, str(self.device))
        first = int(check_random_state(self.random_state).randint(2**31 - self.n_estimators))
        seeds = tuple(range(first, first + self.n_estimators))
        return TableTask(outputs, seeds, template, str(self.device), memory)

    def _columns(self, X: Any, reset: bool, weight: np.ndarray | None = None) -> Columns:
        """Return X by column, checked against the columns of before, and of their kinds once the map is fixed.

        `weight [n]`: of rows that are to be learnt; their words begin columns that were empty.
        """
        shape, task = getattr(X, "shape", ()), getattr(self, "task_", None)
        if reset and len(shape) == 2 and isinstance(self.model, str) and self.model in SHIPPED:
            check_size(int(shape[1]), None)  # before anything of that width is allocated
        columns = read_columns(X)
        plain = isinstance(X, np.ndarray) and not hasattr(self, "feature_names_in_")
        if reset or not plain or len(columns.names) != self.n_features_in_:
            by_name = match_dicts(self, X, columns, reset)
            if by_name is None:
                validate_data(self, X, skip_check_array=True, reset=reset)  # type: ignore[arg-type]
            columns = by_name or columns
        return columns if reset or task is None else self._aligned(columns, weight)

    def _aligned(self, columns: Columns, weight: np.ndarray | None = None) -> Columns:
        """Return columns of the known names with the kinds that the map has, once it is fixed; `weight` as above."""
        task = self.task_
        if task.encoder is None:
            return columns
        if weight is not None and columns.matrix is None:
            check_consistent_length(columns.values[0], weight)
            self.task_ = task = copy.copy(task)
            task.awaken(columns if weight.all() else columns.take(weight > 0))
        assert task.encoder is not None
        return task.encoder.align(columns, MODEL)

    def _rows(self, X: Any, y: Any, sample_weight: Any, fit: bool = False) -> Rows:
        """Return checked rows, y `[n]` labels or numbers, to `fit` or to learn next, in a task that may change."""
        y, more = self._checked(y), hasattr(self, "task_") and not fit
        weight = self._weighed(y, read_weights(sample_weight, len(y)), fit)
        columns = self._columns(X, not more, weight)
        check_consistent_length(columns.values[0], y)
        self._begun(columns, fit)
        if more:
            self.task_ = copy.copy(self.task_)
            if self.task_.encoder is not None:
                present = columns if weight.all() else columns.take(weight > 0)
                self.task_.warned = warn_of_drift(self.task_.encoder, present, self.task_.warned)
        return Rows(columns, y, weight)

    def _checked(self, y: Any) -> np.ndarray:
        """Return y `[n]`, labels or numbers."""
        raise NotImplementedError

    def _targets(self, rows: Rows, **options: Any) -> Rows:
        """Return rows whose y is numbers or class indices `[n]`; begin a task where there is none."""
        raise NotImplementedError

    def _prepare(self, X: Any, y: Any, sample_weight: Any, **options: Any) -> Self:
        with self._unharmed():
            if getattr(self, "task_", None) is not None and self.task_.count:
                raise ValueError("rows were learnt already, under a map of their own: call remap(X, y)")
            self.__dict__.pop("task_", None)
            rows = self._rows(X, y, sample_weight, fit=True).present()
            rows = self._targets(rows, **options)
            self.task_.prepare(rows)
        return self

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
            prediction = self._said(current, piece.columns, x, TableTask.outputs_at)
            # while rows are held the map is not fixed: they are encoded once more
            self._learn(piece, x if current is task else None, classes)
            yield classes_before, prediction

    def _predict(self, columns: Columns, read: Callable[[TableTask, Tensor], Tensor]) -> np.ndarray:
        """Return what `read` returns of the task and of rows, encoded some at a time: `[n, ...]`."""
        task = self.task_.current(self.batch_size)
        starts = range(0, columns.n_rows, ENCODED)
        parts = (columns.take(slice(start, start + ENCODED)) for start in starts)
        return np.concatenate([self._said(task, part, task.encode(part), read) for part in parts])

    def _learn_targets(self, rows: Rows, y: np.ndarray, x: np.ndarray | None) -> None:
        """Learn rows whose y is numbers or class indices `[n]`; those of weight 0 are left out."""
        self._start_learns(rows, y)
        x = x if x is None or rows.weight.all() else x[rows.weight > 0]
        rows = Rows(rows.columns, y.astype(np.float64), rows.weight).present()
        self.task_.partial_fit(rows, self.batch_size, x)
        self.merged_ = self.merged_ or lineage_of(self.task_)

    def _fit(self, rows: Rows, y: np.ndarray, outputs: int | None) -> None:
        """Learn a whole table, y numbers or class indices `[n]`, forgetting what was learnt."""
        self._start_learns(rows, y, anew=True)
        task, rows = self._new_task(outputs), Rows(rows.columns, y.astype(np.float64), rows.weight)
        task.fit(rows.present(), self.batch_size, self.n_passes)
        self.task_, self.merged_ = task, lineage_of(task)
