"""What experts answer to rows that they have learnt, each as if it had been left out.

Source: Allen 1974 (rows left out); Raftery et al. 1997, eq. 1 (averaging).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ..nn.mixture import class_probabilities
from .heads import leave_out
from .stacking import without_negligible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from ..batch import Batch
    from .heads import Factor

PIECE = 2048
"""Rows whose features are held at a time."""


def scores_left_out(experts: Any, state: Any, factors: Sequence[Factor], piece: Batch) -> Tensor:
    """Return what each expert says of rows `[B, N, ...]` among those learnt, each left out: `[B, N, E, C]`.

    Args:
        experts: the refiner (`Experts`).
        state: without rows that wait; heads are solved from all rows.
        factors: of all experts, as they come.
        piece: the rows.
    """
    a, weight = experts.features(piece.x).to(state.theta), piece.weight.to(state.theta)
    codes = experts.codes(piece.y, experts.outputs).to(a)
    heads = [state.theta[:, factor.index][:, :, factor.seen] for factor in factors]
    pairs = zip(factors, heads, strict=True)
    return torch.cat([leave_out(state.moments, factor, head, a, codes, weight) for factor, head in pairs], 2)


def widths_left_out(experts: Any, state: Any, scores: Tensor, batch: Batch) -> Any:
    """Return the state of a regression with widths by rows `[B, N, ...]` of which experts said `[B, N, E, C]`."""
    state = state._replace(share=without_negligible(experts.weights(state)))
    y, weight = batch.y[..., 0].to(scores), batch.weight.to(scores)
    return state._replace(widths=state.widths.with_all(state.mixture(scores), y, weight))


def answers_left_out(experts: Any, state: Any, batch: Batch) -> Tensor:
    """Return the averages of experts for rows `[B, N, ...]` among those learnt, each left out: `[B, N, C]`.

    Args:
        experts: the refiner (`Experts`).
        state: without rows that wait; heads are solved from all rows.
        batch: the rows.
    """
    weight, factors, parts = experts.weights(state), experts.factors(state), []
    for piece in batch.split(PIECE):
        scores = scores_left_out(experts, state, factors, piece)
        if experts.classes:
            parts.append(torch.einsum("bnetc,bet->bnc", class_probabilities(scores), weight))
        else:
            parts.append(torch.einsum("bnec,be->bnc", scores, weight.sum(2)))
    return torch.cat(parts, 1)
