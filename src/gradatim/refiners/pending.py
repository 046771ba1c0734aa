"""Rows that wait as they came, until many of them are scored and learnt together.

Source: Golub, Van Loan 2013, section 1.5 (one product of large matrices costs less than many of small ones).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..batch import Batch


class Pending(NamedTuple):
    """L rows of B tasks, with two weights: how much each is to be scored, and how much it is to be learnt.

    Fields: `x [B, L, x_dim]`; `y [B, L, Dy]`; `scored [B, L]`; `weight [B, L]`, both float64.

    Example:
        >>> import torch
        >>> from gradatim import Batch
        >>> from gradatim.refiners.pending import Pending
        >>> batch = Batch(torch.ones(1, 4, 3), torch.ones(1, 4, 1))
        >>> pending = Pending.empty(1, batch.x.new_zeros(3), batch.y.new_zeros(1))
        >>> pending.score(batch).learn(batch).rows
        4
    """

    x: Tensor
    y: Tensor
    scored: Tensor
    weight: Tensor

    @classmethod
    def empty(cls, n_tasks: int, x: Tensor, y: Tensor) -> Pending:
        """Return no rows of `n_tasks` tasks; each would be like `x [x_dim]` and `y [Dy]`."""
        weight = x.new_zeros(n_tasks, 0, dtype=torch.float64)
        return cls(x.new_zeros(n_tasks, 0, len(x)), y.new_zeros(n_tasks, 0, len(y)), weight, weight)

    @property
    def rows(self) -> int:
        """Return L."""
        return self.weight.shape[1]

    def score(self, batch: Batch) -> Pending:
        """Return the rows with those of a mini-batch `[B, N, ...]` behind them, to be scored."""
        weight = batch.weight.double()
        return self._append(batch, weight, torch.zeros_like(weight))

    def learn(self, batch: Batch) -> Pending:
        """Return the rows with those of a mini-batch `[B, N, ...]` behind them, to be learnt.

        Where the mini-batch has just been added to be scored, its rows stay the same and are to be learnt as well.
        """
        weight, start = batch.weight.double(), self.rows - batch.n_rows
        last = Pending(*(part[:, max(0, start) :] for part in self))
        if torch.equal(last.x, batch.x) and torch.equal(last.y, batch.y) and not bool(last.weight.any()):
            return self._replace(weight=torch.cat([self.weight[:, :start], weight], dim=1))
        return self._append(batch, torch.zeros_like(weight), weight)

    def take(self, index: slice) -> Pending:
        """Return the rows at `index`, in order."""
        return Pending(*(part[:, index] for part in self))

    def split(self, size: int) -> Iterator[Pending]:
        """Yield the rows in order, `size` at a time: `[B, size, ...]`, the last fewer."""
        for start in range(0, self.rows, size):
            yield self.take(slice(start, start + size))

    def _append(self, batch: Batch, scored: Tensor, weight: Tensor) -> Pending:
        more = Pending(batch.x, batch.y, scored, weight)
        return Pending(*(torch.cat(parts, dim=1) for parts in zip(self, more, strict=True)))
