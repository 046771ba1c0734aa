"""Rows of a table, checked, as an estimator hands them on.

Source: DESIGN.md, the words: rows of one task.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..preprocessing import Columns

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Rows:
    """Rows of a table: `columns`; `y [n]` float64, numbers or class indices; `weight [n]`."""

    columns: Columns
    y: np.ndarray
    weight: np.ndarray

    def __len__(self) -> int:
        return len(self.y)

    def pieces(self, size: int) -> Iterator[Rows]:
        """Yield the rows in order, `size` at a time."""
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            yield Rows(self.columns.take(part), self.y[part], self.weight[part])

    def copy(self) -> Rows:
        """Return the rows, no longer views of the table that they came from."""
        return Rows(Columns.concat([self.columns]), self.y.copy(), self.weight.copy())

    def and_then(self, more: Rows) -> Rows:
        """Return these rows and more behind them."""
        columns = Columns.concat([self.columns, more.columns])
        return Rows(columns, np.append(self.y, more.y), np.append(self.weight, more.weight))
