"""What experts answer to rows that they have learnt, each as if it had been left out.

Source: Allen 1974 (rows left out); Raftery et al. 1997, eq. 1 (averaging).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ..nn.mixture import class_probabilities
from .heads import leave_out

if TYPE_CHECKING:
    from torch import Tensor

    from ..batch import Batch

PIECE = 2048
"""Rows whose features are held at a time."""


def answers_left_out(experts: Any, state: Any, batch: Batch) -> Tensor:
    """Return the averages of experts for rows `[B, N, ...]` among those learnt, each left out: `[B, N, C]`.

    Args:
        experts: the refiner (`Experts`).
        state: without rows that wait; heads are solved from all rows.
        batch: the rows.
    """
    weight, factors, parts = experts.weights(state), experts.factors(state), []
    for piece in batch.split(PIECE):
        a, total = experts.features(piece.x).to(state.theta), torch.zeros(())
        codes = experts.codes(piece.y, experts.outputs).to(a)
        for factor in factors:
            head = state.theta[:, factor.index][:, :, factor.seen]
            without = leave_out(state.moments, factor, head, a, codes, piece.weight.to(a))
            share = weight[:, factor.index]
            if experts.classes:
                total = total + torch.einsum("bnetc,bet->bnc", class_probabilities(without), share)
            else:
                total = total + torch.einsum("bnec,be->bnc", without, share.sum(2))
        parts.append(total)
    return torch.cat(parts, 1)
