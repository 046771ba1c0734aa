"""What one new table begins with: a prior that groups taught, of which the table is a group of its own.

Source: Lindley, Smith 1972 (a new group under what others share).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import logsumexp

from ..preprocessing.features import MODEL
from . import file
from .experts import solve
from .prior import CHUNK
from .sharing import SCALES
from .state import GroupState

if TYPE_CHECKING:
    from ..preprocessing import Columns
    from .prior import GroupPrior
    from .sums import Sums

TABLE = "table"
"""The name of the one group."""


def taught(prior: Any, kind: Any) -> Any:
    """Return a grouped estimator of a kind that knows a prior and no group, from a file or a fitted estimator.

    Raises:
        ValueError: neither of them, or of another kind.
    """
    if isinstance(prior, str | Path):
        return kind.from_prior(prior)
    if not isinstance(prior, kind):
        raise ValueError(
            f"prior must be a file of save_prior or a fitted {kind.__name__}; got a {type(prior).__name__}: give one "
            "of them, or leave it out"
        )
    return prior.fork()


class Start:
    """A prior, and the sums of one table under it; it is replaced, never changed.

    Args:
        estimator: grouped, that knows the prior and no group but the table.

    Example:
        >>> import numpy as np
        >>> from gradatim import GroupedRegressor
        >>> from gradatim.groups.start import Start, taught
        >>> from gradatim.preprocessing import read_columns
        >>> rng = np.random.default_rng(0)
        >>> X, group = rng.normal(size=(300, 1)), np.repeat(np.arange(20), 15)
        >>> start = Start(taught(GroupedRegressor().fit(X, X[:, 0] + group % 3, group), GroupedRegressor))
        >>> start.learnt(read_columns(X[:30]), X[:30, 0] + 1, np.ones(30)).rows
        30.0
    """

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator

    @property
    def prior(self) -> GroupPrior:
        """Return what groups share."""
        return self.estimator.prior_

    @property
    def sums(self) -> Sums:
        """Return the sums of the table."""
        return self.estimator.state_.of([TABLE])

    @property
    def rows(self) -> float:
        """Return how many rows the table has, by weight."""
        return float(self.sums.count[0])

    @property
    def classes(self) -> np.ndarray | None:
        """Return the labels that the prior knows."""
        return getattr(self.estimator, "classes_", None)

    def check(self, columns: Columns) -> None:
        """Raise ValueError unless columns are those that taught the prior; with names, in any order."""
        known, count = getattr(self.estimator, "feature_names_in_", None), self.estimator.n_features_in_
        names = list(columns.names)
        if len(names) == count and (known is None or not columns.named or sorted(names) == sorted(known)):
            return
        wanted = f"{count} columns" + ("" if known is None else f", {', '.join(map(str, known[:8]))}")
        got = f"{len(names)}" + (f", {', '.join(names[:8])}" if columns.named else "")
        raise ValueError(
            f"the prior was taught by {wanted}; got {got}: give these columns, or leave prior out"
        )

    def learnt(self, columns: Columns, y: np.ndarray, weight: np.ndarray) -> Start:
        """Return the start of a table with more rows; y `[n]` is numbers, or indices of the prior's classes."""
        more = self._summed(columns, y, weight)
        return self._with(self.sums.plus(more))

    def without(self, columns: Columns, y: np.ndarray, weight: np.ndarray) -> Start:
        """Return the start of a table without some of its rows.

        Raises:
            ValueError: rows that were never learnt, as far as the sums show it.
        """
        state = self.estimator.state_.take_away([TABLE], self._summed(columns, y, weight))
        return self._with(state.of([TABLE]))

    def empty(self) -> Start:
        """Return the start of a table without rows."""
        return Start(self.estimator.fork())

    def merged(self, other: Start) -> Start:
        """Return the start of a table with the rows of both.

        Raises:
            ValueError: another prior.
        """
        if file.digest(self.estimator) != file.digest(other.estimator):
            raise ValueError("merging needs one prior; got two: begin both with fork()")
        return self._with(self.sums.plus(other.sums))

    def log_evidence(self) -> float:
        """Return the log evidence of the table's rows, averaged over the experts, in units of y or of classes."""
        prior, sums = self.prior, self.sums
        scales = None if prior.classes is not None else np.array(SCALES)
        weight = prior.weighing.log_prior - logsumexp(prior.weighing.log_prior)
        found = [
            logsumexp(weight + np.concatenate(part))
            for part in zip(
                *(solve(expert, sums, scales).log_evidence for expert in prior.experts), strict=True
            )
        ]
        return float(np.mean(found)) - (0.0 if scales is None else self.rows * float(np.log(prior.scale)))

    def numbers(self, columns: Columns) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return weights, means and deviations of normals `[n, E]` whose mixture is said of each row's y."""
        x, fold, group = self._asked(columns)
        weight, mean, variance, stretch = self.prior.answer(x, fold, group, self.sums)
        middle = (weight * mean).sum(1, keepdims=True)
        return weight, middle + stretch[:, None] * (mean - middle), stretch[:, None] * np.sqrt(variance)

    def probabilities(self, columns: Columns) -> np.ndarray:
        """Return the probabilities of classes `[n, C]`."""
        x, fold, group = self._asked(columns)
        starts = range(0, len(x), CHUNK)
        parts = [(x[at : at + CHUNK], fold[at : at + CHUNK], group[at : at + CHUNK]) for at in starts]
        return np.concatenate([self.prior.probabilities(*part, self.sums) for part in parts])

    def _asked(self, columns: Columns) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return rows as the prior encodes them `[n, width]`, their folds and the places of their group `[n]`."""
        encoder = self.prior.encoder
        x = encoder.encode(encoder.align(columns, MODEL), MODEL)
        return x, np.full(len(x), -1), np.zeros(len(x), dtype=np.int64)

    def _summed(self, columns: Columns, y: np.ndarray, weight: np.ndarray) -> Sums:
        x, fold, group = self._asked(columns)
        return self.prior.sums(x, fold, y, group, 1, weight)

    def _with(self, sums: Sums) -> Start:
        """Return the start of a table with these sums."""
        estimator, heads = self.estimator.fork(), self.prior.heads
        estimator.state_ = GroupState({TABLE: 0}, heads, np.full(1, -1), sums)
        return Start(estimator)

    def pack(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return all that is known, arrays of any shape and plain JSON."""
        return file.pack(self.estimator)

    @classmethod
    def unpack(cls, tensors: dict[str, Any], header: dict[str, Any], kind: Any) -> Start:
        """Return what `pack` returned, arrays of any shape and plain JSON, of a kind of grouped estimator.

        Raises:
            ValueError: they contradict each other.
        """
        estimator = kind()
        estimator.__dict__.update(file.unpack(tensors, header, kind.__name__))
        if set(estimator.state_.index) - {TABLE}:
            raise ValueError("its prior knows groups, which are no part of a table")
        return cls(estimator)
