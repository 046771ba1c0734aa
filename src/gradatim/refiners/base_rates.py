"""How far the shares of classes are trusted, beside experts that look at x: wholly at first, hardly after many rows.

Source: Krichevsky, Trofimov 1981 (shares of few rows); Allen 1974 (rows left out).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

FADES = 16.0
"""Rows from which on the least share of the base rates falls with the square of the rows."""

MOST_ROWS = 64.0
"""Rows from which on all of it does: experts whom some rows have misled are heard again."""


def base_rates(counts: Tensor, log_likelihood: Tensor) -> Tensor:
    """Return what is added to the probabilities of classes, `[B, C]`, and taken from those of experts in all.

    The shares `(n_c + 1/2) / (n + C/2)` are one more expert, as likely beforehand as all others together. Each row of
    the `n_c` of class c was likely by `(n_c - 1/2) / (n - 1 + C/2)` without it. The share never falls below
    `2 / (n + 2)`, of more than `FADES` rows less. Of one class alone nothing else is known.

    Args:
        counts: rows of each class, `[B, C]`.
        log_likelihood: of the experts, `[B, E, T]`.

    Example:
        >>> import torch
        >>> from gradatim.refiners.base_rates import base_rates
        >>> base_rates(torch.tensor([[3.0, 0.0]]), torch.zeros(1, 4, 2))
        tensor([[0.8750, 0.1250]])

    Source: Krichevsky, Trofimov 1981.
    """
    rows, classes = counts.sum(1), counts.shape[1]
    rates = (counts + 0.5) / (rows[:, None] + classes / 2)
    without = (counts - 0.5).clamp(min=0.5) / (rows[:, None] - 1 + classes / 2).clamp(min=classes / 2)
    evidence = (counts * without.log()).sum(1)
    ahead = log_likelihood.flatten(1).logsumexp(1) - math.log(log_likelihood[0].numel()) - evidence
    floor = 2 / (rows + 2) * (FADES / rows.clamp(min=FADES))
    share = (floor + (1 - floor) * torch.sigmoid(-ahead)) * (MOST_ROWS / rows.clamp(min=MOST_ROWS)) ** 2
    share = torch.where((counts > 0).sum(1) > 1, share, 1.0)
    return share[:, None] * rates
