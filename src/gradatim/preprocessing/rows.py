"""Rows of a table with their targets and weights, as an estimator passes them to its learner.

Source: Wickham 2014 (tidy data: a row is an observation).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .cells import DURATION, Cell, Days, Durations, family_of, first_odd, to_floats
from .columns import Columns

LIGHTEST, HEAVIEST = 1e-15, 1e15
"""Positive weights between these add up in float64, whatever weights and numbers they stand beside."""

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor


def read_weights(weight: Any, n_rows: int) -> np.ndarray:
    """Return a weight for each of `n_rows` rows, float64 `[n]`; one number is that of every row, None is 1.

    Raises:
        ValueError: another number of them, weights that are missing, infinite, negative, all zero, or positive and
            beyond `LIGHTEST` or `HEAVIEST`.

    Example:
        >>> from gradatim.preprocessing.rows import read_weights
        >>> read_weights([1, 0, 2], 3), read_weights(None, 2)
        (array([1., 0., 2.]), array([1., 1.]))
    """
    if weight is None or (type(weight) is float and weight == 1.0):
        return np.ones(n_rows)
    try:
        weights = to_floats(np.asarray(weight))
    except (TypeError, ValueError, OverflowError):
        odd = first_odd(weight if np.iterable(weight) and not isinstance(weight, str | bytes) else [weight])
        raise ValueError(
            f"sample_weight must hold a number for each row, at most {HEAVIEST:g}; got {odd}: correct it"
        ) from None
    weights = np.full(n_rows, weights) if weights.ndim == 0 else weights
    if weights.shape != (n_rows,):
        raise ValueError(
            f"sample_weight must hold one number for each of the {n_rows} rows, 1D; got shape {weights.shape}"
        )
    for wrong, what, remedy in (
        (~np.isfinite(weights), "finite", "give that row weight 0"),
        (weights < 0, "not negative", "give that row weight 0"),
        (weights > HEAVIEST, f"at most {HEAVIEST:g}", "divide all weights by one number"),
        (
            (weights > 0) & (weights < LIGHTEST),
            f"0, or at least {LIGHTEST:g}",
            "multiply all weights by one number",
        ),
    ):
        if wrong.any():
            row = int(wrong.argmax())
            raise ValueError(f"sample_weight must be {what}; got {weights[row]:g} (row {row}): {remedy}")
    if n_rows and not weights.any():
        raise ValueError("sample_weight is zero for every row: there is nothing to learn")
    return weights


@dataclass(frozen=True)
class Rows:
    """Rows of a table: `columns`; `y [n]`, numbers, labels or class indices; `weight [n]` float64.

    Example:
        >>> import numpy as np
        >>> from gradatim.preprocessing.rows import Rows
        >>> from gradatim.preprocessing import read_columns
        >>> rows = Rows(read_columns(np.ones((5, 2))), np.zeros(5), np.ones(5))
        >>> [len(part) for part in rows.split(2)]
        [2, 2, 1]
    """

    columns: Columns
    y: np.ndarray
    weight: np.ndarray

    def __len__(self) -> int:
        return len(self.y)

    def take(self, index: slice | np.ndarray) -> Rows:
        """Return the rows at `index`, a slice or an array `[k]`."""
        return Rows(self.columns.take(index), self.y[index], self.weight[index])

    def present(self) -> Rows:
        """Return the rows of a weight above 0."""
        present = self.weight > 0
        return self if present.all() else self.take(present)

    def split(self, size: int) -> Iterator[Rows]:
        """Yield the rows in order, `size` at a time."""
        for start in range(0, len(self), size):
            yield self if size >= len(self) else self.take(slice(start, start + size))

    def concat(self, *more: Rows) -> Rows:
        """Return a copy of these rows with more behind them."""
        parts = (self, *more)
        columns = Columns.concat([part.columns for part in parts])
        return Rows(columns, *(np.concatenate([getattr(p, name) for p in parts]) for name in ("y", "weight")))

    def pack(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the rows as tensors `[n]` by name, and what they do not hold as plain JSON: names and words.

        By the place of a column, `words` holds its words. `numbers` holds, by row, family and number of its cells that
        stood as numbers. `families` says what a column of dates or durations stands for.
        """
        tensors = {"y": torch.from_numpy(self.y), "weight": torch.from_numpy(self.weight)}
        header: dict[str, Any] = {"names": list(self.columns.names), "named": self.columns.named}
        words, numbers, families = {}, {}, {}
        for place, values in enumerate(self.columns.values):
            if values.dtype == object:
                words[str(place)] = [cell and str(cell) for cell in values.tolist()]
                cells = {str(n): cell for n, cell in enumerate(values.tolist()) if isinstance(cell, Cell)}
                if cells:
                    numbers[str(place)] = {row: [cell.family, cell.number] for row, cell in cells.items()}
                continue
            tensors[str(place)] = torch.from_numpy(np.array(values))
            if isinstance(values, Days):
                families[str(place)] = family_of(values)
        return tensors, header | {"words": words, "numbers": numbers, "families": families}

    @classmethod
    def unpack(cls, tensors: dict[str, Tensor], header: dict[str, Any]) -> Rows:
        """Return the rows whose tensors `[n]` and names `pack` returned."""
        values = []
        numbers, families = header.get("numbers", {}), header.get("families", {})
        for place in map(str, range(len(header["names"]))):
            if (words := header["words"].get(place)) is None:
                column = tensors[place].numpy()
                if place in families:
                    column = column.view(Durations if families[place] == DURATION else Days)
            else:
                column = np.empty(len(words), dtype=object)
                column[:] = words
                for row, (family, number) in numbers.get(place, {}).items():
                    column[int(row)] = Cell(words[int(row)], number, family)
            values.append(column)
        columns = Columns(tuple(header["names"]), tuple(values), header["named"])
        return cls(columns, tensors["y"].numpy(), tensors["weight"].numpy())
