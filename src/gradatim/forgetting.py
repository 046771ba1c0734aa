"""Rows that are taken away from what an estimator has learnt, as if they had never been learnt.

Source: Cauwenberghs, Poggio 2000 (decremental learning); sums over rows are additive.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Self

import numpy as np

if TYPE_CHECKING:
    from .preprocessing.rows import Rows

NEVER = "some of these rows were never learnt, or with another target or weight"


class Forgetting:
    """What both estimators share of forgetting."""

    def forget(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Forget rows X `[n, columns]`, y `[n]` that were learnt, and return self.

        Sums over rows and heads become what they were without these rows, up to rounding. How much each head counts
        does not: its share stays. `reweigh` with some of the rows that remain makes that exact, too. The map from
        columns to numbers stays: the words, the lowest and highest numbers and the quantiles of its first rows. So do
        classes.

        Raises:
            ValueError: as `partial_fit`; rows that were never learnt, as far as the sums show it; a memory that fades
                by itself; a learner as model whose states do not forget. Nothing is changed then.

        Example:
            >>> import numpy as np
            >>> from gradatim import RefinedRegressor
            >>> X = np.random.default_rng(0).normal(size=(600, 3))
            >>> model = RefinedRegressor().fit(X[:300], X[:300, 0])
            >>> before = model.predict(X)
            >>> model.partial_fit(X[300:], X[300:, 1]).forget(X[300:], X[300:, 1]).task_.rows
            300.0

        Source: Cauwenberghs, Poggio 2000.
        """
        estimator: Any = self
        _ = estimator.memory_  # an estimator that is not fitted says so
        with estimator._unharmed():
            known = estimator._labels()
            rows = estimator._targets(estimator._rows(X, y, sample_weight).present())
            if known is not None and len(estimator.classes_) > len(known):
                raise ValueError(f"{NEVER}: their classes are new")
            estimator._start_forgets(rows)
            forget_rows(estimator.task_, rows)
        return self


def forget_rows(task: Any, rows: Rows) -> None:
    """Take rows, y numbers or class indices `[n]`, away from a task (`TableTask`).

    Raises:
        ValueError: as `Forgetting.forget`.
    """
    if task.memory != "all":
        raise ValueError(
            f"memory={task.memory!r} fades by itself, and what it holds of a row cannot be taken away: learn the "
            "remaining rows anew, or use memory='all'"
        )
    if task.count < len(rows):
        raise ValueError(f"{NEVER}: {task.count:,} were learnt, and {len(rows):,} are to be forgotten")
    if task.encoder is None and task.count == len(rows):
        raise ValueError("no row would be left, and the map is not fixed yet: begin a new estimator")
    if task.encoder is None:
        task.warm, task.early = _without(task.warm, rows), None
    else:
        batch = task._batch(task.encode(rows.columns), rows)
        task.members = task.members.forget(batch)
        if task.count == len(rows):
            task.members = task.members.empty()  # nothing of them remains, rounding neither
    task.rows, task.count = max(0.0, task.rows - float(rows.weight.sum())), task.count - len(rows)


def _without(held: Rows | None, rows: Rows) -> Rows:
    """Return rows that are held as they came, without some of them, each as often as it stands there."""
    absent = Counter(_names(rows))
    kept = []
    for at, name in enumerate(_names(held) if held is not None else ()):
        if absent[name]:
            absent[name] -= 1
        else:
            kept.append(at)
    if absent.total() or held is None:
        raise ValueError(NEVER)
    return held.take(np.array(kept, dtype=np.int64))


def _names(rows: Rows) -> list[tuple[Any, ...]]:
    """Return what tells rows apart: their cells, target and weight."""
    digests = rows.columns.digests()
    return [
        (*np.atleast_1d(d).tolist(), *more)
        for d, *more in zip(digests, rows.y.tolist(), rows.weight.tolist(), strict=True)
    ]
