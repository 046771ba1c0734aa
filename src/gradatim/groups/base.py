"""What both grouped estimators share: rows and their groups in, states of groups merged, forgotten and kept.

Source: Pedregosa et al. 2011 (the estimator's interface).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data

from ..interface import TableInterface
from ..preprocessing import read_columns
from ..preprocessing.features import MODEL, match_dicts
from ..preprocessing.lineage import join, new_lineage
from ..preprocessing.rows import Rows, read_weights
from ..probing.plots import group_effects
from . import file
from .describing import table_of_effects
from .names import as_name, codes, hashes, read_groups
from .prior import CHUNK, GroupPrior, learn_prior
from .start import Start, taught
from .state import GroupState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..preprocessing import Columns
    from .sums import Sums

HELD = 256
"""Rows that `partial_fit` holds, of two groups at least; then it learns what they share."""


class Grouped(TableInterface, BaseEstimator):
    """What `GroupedRegressor` and `GroupedClassifier` share."""

    n_features_in_: int
    feature_names_in_: np.ndarray
    classes_: np.ndarray
    prior_: GroupPrior
    state_: GroupState
    merged_: frozenset[str] = frozenset()

    def __init__(self, prior: Any = None) -> None:
        self.prior = prior

    @property
    def groups_(self) -> list[Any]:
        """Return the names of the groups that are known, in the order in which they came."""
        return list(self._now().state_.index)

    @property
    def effects_(self) -> dict[str, np.ndarray]:
        """Return how groups differ, a table as a dict of columns `[K]`; a data frame takes it as it is.

        `group`, `rows`; `level`: how much higher y is (or its logit) than the pooled model says; `level_std`: how sure
        that is; for each column its slope beyond what all groups share, per deviation of the column.
        """
        return table_of_effects(self._now())

    def plot_effects(self, png: Path | str, column: str = "level") -> str | None:
        """Draw how groups differ, by their effect on one column of `effects_`; return None, or why there is no picture.

        Raises:
            ValueError: a column that `effects_` does not have.
        """
        table = self.effects_
        if column not in table or column in ("group", "rows"):
            shown = ", ".join(name for name in table if name not in ("group", "rows"))
            raise ValueError(f"column must be one of {shown[:300]}; got {column!r}: choose one of them")
        spread = table.get(column.replace("level", "level_std", 1)) if column.startswith("level") else None
        return group_effects(table["group"], table[column], spread, column, png)

    def fit(self, X: Any, y: Any, groups: Any = None, sample_weight: Any = None) -> Self:
        """Learn what groups share, and each group, from rows X `[n, columns]`, y `[n]` and groups `[n]`.

        With `prior` given, only the groups are learnt. A row of weight k counts as k rows, one of weight 0 not at all.

        Raises:
            ValueError: no rows, fewer than two groups without a prior, a row without a group, other columns than the
                prior's; as `RefinedRegressor.fit` and `RefinedClassifier.fit`.
        """
        with self._unharmed():
            for name in (
                "prior_",
                "state_",
                "held_",
                "early_",
                "merged_",
                "classes_",
                "n_features_in_",
                "feature_names_in_",
            ):
                self.__dict__.pop(name, None)
            self._learn(X, y, groups, sample_weight, hold=False)
        return self

    def partial_fit(self, X: Any, y: Any, groups: Any = None, sample_weight: Any = None) -> Self:
        """Learn more rows X `[n, columns]`, y `[n]` of groups `[n]`; groups may be new or come back at any time.

        Without a prior the first 256 rows are held, and teach it; then each row changes its own group alone.

        Raises:
            ValueError: as `fit`; other columns than before.
        """
        with self._unharmed():
            self._learn(X, y, groups, sample_weight, hold=True)
        return self

    def forget(self, X: Any, y: Any, groups: Any = None, sample_weight: Any = None) -> Self:
        """Forget rows X `[n, columns]`, y `[n]` of groups `[n]` that were learnt; a group without rows is not known.

        The sums of their groups become what they were without these rows, up to rounding. What they taught the prior
        stays.

        Raises:
            ValueError: as `partial_fit`; rows that were never learnt, as far as the sums show it. Nothing is changed.
        """
        with self._unharmed():
            self._settle()
            rows, names = self._read(X, y, groups, sample_weight)
            known, sums = self._summed(rows, names)
            self.state_ = self.state_.take_away(known, sums)
        return self

    def forget_group(self, group: Any) -> Self:
        """Forget all rows of one group: it begins at the prior again. What it taught the prior stays.

        Raises:
            ValueError: a group that is not known.
        """
        with self._unharmed():
            self._settle()
            name = as_name(group)
            if name not in self.state_.index:
                raise ValueError(f"group {name!r} is not known: choose one of groups_")
            self.state_ = self.state_.without([name])
        return self

    def merge(self, other: Self) -> Self:
        """Learn all that another estimator has learnt of its groups under the same prior, and return self.

        Sums of a group that both know add up, exactly as in one pass over both.

        Raises:
            ValueError: another prior, another kind of estimator, or rows that are merged already.
        """
        if type(other) is not type(self):
            raise ValueError(f"a {type(self).__name__} merges with its like; got a {type(other).__name__}")
        with self._unharmed(), other._unharmed():
            self._settle()
            other._settle()
            self._add_groups(other)
        return self

    def _add_groups(self, other: Self) -> None:
        """Take in the groups of another estimator whose prior is settled, like this one's."""
        if file.digest(self) != file.digest(other):
            raise ValueError(
                "merging needs one prior; got two: save_prior on one machine, and from_prior on the others"
            )
        merged, names = join(self.merged_, other.merged_), list(other.state_.index)
        fold, sums = other.state_.compact()
        mine = self.state_.folds(names)
        apart = [
            name
            for name, here, there in zip(names, mine, fold, strict=True)
            if name in self.state_.index and here != there
        ]
        if apart:
            raise ValueError(
                f"group {apart[0]!r} taught the prior in one part, and is new in the other, under another pooled "
                "model: learn its rows where it was"
            )
        self.state_.add(names, sums, fold)
        self.merged_ = merged

    def fork(self) -> Self:
        """Return an estimator with the same prior that knows no group."""
        self._settle()
        fresh = type(self)(self.prior)
        for name in ("prior_", "classes_", "n_features_in_", "feature_names_in_"):
            if name in self.__dict__:
                fresh.__dict__[name] = self.__dict__[name]
        fresh.state_ = _empty(fresh.prior_)
        return fresh

    def save(self, path: Path | str) -> Path:
        """Write the prior and all groups to one file, without pickle and without a row; return its path.

        Raises:
            ValueError: the file cannot be written; what stood there stays.
        """
        self._settle()
        return file.write_groups(path, self, type(self).load)

    def save_prior(self, path: Path | str) -> Path:
        """Write what groups share, and no group, to one file; return its path.

        Raises:
            ValueError: as `save`.
        """
        return file.write_groups(path, self.fork(), type(self).load)

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Return the estimator that `save` wrote.

        Raises:
            ValueError: a file that is missing, damaged, foreign, newer, or of another estimator.
        """
        attributes = file.read_groups_file(path, cls.__name__)
        estimator = cls()
        estimator.__dict__.update(attributes)
        return estimator

    @classmethod
    def from_prior(cls, path: Path | str) -> Self:
        """Return an estimator that knows what groups share, from the file of `save_prior` or `save`, and no group.

        Raises:
            ValueError: as `load`.
        """
        return cls.load(path).fork()

    def _learn(self, X: Any, y: Any, groups: Any, weight: Any, hold: bool) -> None:
        """Learn rows, or with `hold` put the first ones aside; begin a prior where there is none."""
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        if not hasattr(self, "prior_") and self.prior is not None:
            start = Start(taught(self.prior, type(self)))
            if hasattr(X, "shape"):  # rows that are dicts have their names each
                start.check(read_columns(X))
            self.__dict__.update(start.estimator.__dict__ | {"prior": self.prior})
        rows, names = self._read(X, y, groups, weight)
        if hasattr(self, "prior_"):
            self._add(rows, names)
            return
        if hasattr(self, "held_"):
            rows, names = self.held_[0].concat(rows), _joined(self.held_[1], names)
        distinct = len(set(names.tolist()))
        if hold and (len(rows) < HELD or distinct < 2):
            self.held_, self.early_ = (rows, names), None
            return
        if distinct < 2:
            raise ValueError(
                f"what groups share is learnt from two groups at least; got {distinct} group: give more groups, a "
                "prior that others taught, or use RefinedRegressor or RefinedClassifier"
            )
        self._begin(rows, names)

    def _read(self, X: Any, y: Any, groups: Any, weight: Any) -> tuple[Rows, np.ndarray]:
        """Return checked rows of a weight above 0, and the names of their groups."""
        columns = self._columns(X, reset=not hasattr(self, "n_features_in_"))
        y = self._checked(y)
        check_consistent_length(columns.values[0], y)
        rows, names = Rows(columns, y, read_weights(weight, len(y))), read_groups(groups, len(y))
        return rows.present(), names[rows.weight > 0]

    def _begin(self, rows: Rows, names: np.ndarray) -> None:
        """Learn what groups share from the first rows, and then the groups themselves."""
        self.__dict__.pop("held_", None)
        self.__dict__.pop("early_", None)
        self._note_classes(rows.y)
        known, group = codes(names)
        target = self._coded(rows.y)
        parts = (rows.columns, target, group, hashes(known), self._n_classes(), rows.weight)
        self.prior_, fold = learn_prior(*parts)
        self.state_ = _empty(self.prior_)
        self.state_.places(known, fold)
        self.merged_ = frozenset([file.digest(self)[:32]])
        self._add(rows, names)

    def _add(self, rows: Rows, names: np.ndarray) -> None:
        """Add rows to the sums of their groups."""
        self.state_.add(*self._summed(rows, names))
        self.merged_ = self.merged_ or new_lineage()

    def _summed(self, rows: Rows, names: np.ndarray) -> tuple[list[Any], Sums]:
        """Return the different groups of rows, and their sums."""
        known, group = codes(names)
        x, y = self.prior_.encoder.encode(rows.columns, MODEL), self._coded(rows.y)
        fold = self.state_.folds(known)[group]
        return known, self.prior_.sums(x, fold, y, group, len(known), rows.weight)

    def _asked(self, X: Any, groups: Any) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, Sums]]:
        """Yield encoded rows, their folds and groups, and the sums of these groups, some rows at a time."""
        columns = self._columns(X, reset=False)
        names = read_groups(groups, columns.n_rows)
        x = self.prior_.encoder.encode(columns, MODEL)
        for start in range(0, len(x), CHUNK):
            known, group = codes(names[start : start + CHUNK])
            yield x[start : start + CHUNK], self.state_.folds(known)[group], group, self.state_.of(known)

    def _settle(self) -> None:
        """Learn from the rows that are held, for good."""
        if not hasattr(self, "prior_") and hasattr(self, "held_"):
            self.__dict__.update(self._now().__dict__)
            self.__dict__.pop("held_", None)
        check_is_fitted(self, "prior_")

    def _now(self) -> Self:
        """Return the estimator to predict with: this one, or while rows are held one that has learnt them."""
        if hasattr(self, "prior_") or not hasattr(self, "held_"):
            check_is_fitted(self, "prior_")
            return self
        if len(set(self.held_[1].tolist())) < 2:
            raise ValueError(
                "what groups share is learnt from two groups at least; got rows of one: learn rows of another, or "
                "give a prior that others taught"
            )
        if self.early_ is None or self.early_[0] != len(self.held_[0]):
            fitted = type(self)(self.prior)
            fitted.__dict__.update({k: v for k, v in self.__dict__.items() if k not in ("held_", "early_")})
            fitted._begin(*self.held_)
            self.early_ = (len(self.held_[0]), fitted)
        return self.early_[1]

    def _columns(self, X: Any, reset: bool) -> Columns:
        """Return X by column, checked against the columns of before."""
        columns = read_columns(X)
        by_name = match_dicts(self, X, columns, reset)
        if by_name is None:
            validate_data(self, X, skip_check_array=True, reset=reset)  # type: ignore[arg-type]
        columns = by_name or columns
        return self.prior_.encoder.align(columns, MODEL) if hasattr(self, "prior_") else columns

    def _checked(self, y: Any) -> np.ndarray:
        raise NotImplementedError

    def _coded(self, y: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _note_classes(self, y: np.ndarray) -> None:
        raise NotImplementedError

    def _n_classes(self) -> int | None:
        raise NotImplementedError


def _empty(prior: GroupPrior) -> GroupState:
    return GroupState.empty(len(prior.features.kinds), prior.heads, prior.classes is not None)


def _joined(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return two columns of names below each other; numbers become words beside words."""
    if first.dtype != second.dtype:
        first, second = (
            np.array([str(name) for name in part.tolist()], dtype=object) for part in (first, second)
        )
    return np.concatenate([first, second])
