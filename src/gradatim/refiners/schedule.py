"""When heads of experts that score rows are solved again: after counts of rows, wherever a mini-batch ends.

Source: Dawid 1984 (every row is predicted from rows before it); this project's own schedule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

GROWTH, LEAST = 0.25, 16.0
"""Heads that only score rows are solved again when the rows have grown by this share, and by so many."""

BEHIND = 12.0
"""Nats by which the best of an expert's variants may trail before its head waits until rows pass a power of four."""


def rows_enough(solved: Tensor) -> Tensor:
    """Return the rows `[B]` above which heads solved after `solved [B]` rows are solved again.

    Example:
        >>> import torch
        >>> from gradatim.refiners.schedule import rows_enough
        >>> rows_enough(torch.tensor([0.0, 400.0]))
        tensor([ 15., 500.])
    """
    return torch.maximum((1 + GROWTH) * solved, solved + LEAST - 1)


def due_experts(log_likelihood: Tensor, solved: Tensor, rows: Tensor) -> Tensor:
    """Return which experts `[B, E]` are solved: those not far behind, and all where a power of four has been passed.

    Args:
        log_likelihood: `[B, E, T]`.
        solved: rows `[B]` after which heads were solved last.
        rows: `[B]` now.

    Example:
        >>> import torch
        >>> from gradatim.refiners.schedule import due_experts
        >>> due_experts(torch.tensor([[[0.0], [-99.0]]]), torch.tensor([300.0]), torch.tensor([400.0]))
        tensor([[ True, False]])
    """
    best, power = log_likelihood.amax(2), rows.clamp(min=1).log2().div(2).floor()
    passed = power > solved.clamp(min=1).log2().div(2).floor()
    return (best >= best.amax(1, keepdim=True) - BEHIND) | passed[:, None]
