"""Which of the last rows a fixed-lag smoother still holds as they came.

Source: Moore 1973 (fixed-lag smoothing).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def stays(age: Tensor, weight: Tensor, lag: int) -> Tensor:
    """Return which rows stay in a window of `lag` rows, `[B, N]` bool.

    A mini-batch stays while it and all later ones are at most `lag` rows. Rows count by their weight, but no
    window holds more than `lag` places. The order of rows inside a mini-batch plays no part.

    Args:
        age: `[B, N]`, the number of the mini-batch that a row came with, ascending. 0: no row.
        weight: `[B, N]`, how often each row counts.
        lag: the length of the window, in rows.

    Example:
        >>> import torch
        >>> from gradatim.refiners.window import stays
        >>> stays(torch.tensor([[1, 1, 2, 3]]), torch.ones(1, 4), lag=3)
        tensor([[False, False,  True,  True]])
        >>> stays(torch.tensor([[1, 1, 2, 3]]), torch.tensor([[1.0, 1.0, 1.0, 3.0]]), lag=3)
        tensor([[False, False, False,  True]])
    """
    first = torch.searchsorted(age, age.contiguous())
    before = torch.nn.functional.pad(weight.double().cumsum(1), (1, 0))
    rows = before[:, -1:] - before.gather(1, first)
    return (age > 0) & (age.shape[1] - first <= lag) & (rows <= lag)
