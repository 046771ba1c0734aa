"""Layers on variables and on pairs of them: a vector for each variable and for each ordered pair.

Source: Jumper et al. 2021, algorithms 11 and 12 (triangles); the pairing with variables is this project's own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .mlp import mlp


class PairLayer(nn.Module):
    """One layer on pairs e `[B, d, d, W]` and variables h `[B, d, W]`, equivariant to the order of variables.

        e_ij += A [sum_k a_ik b_kj, sum_k a_ki b_kj] / d        a and b gated maps of e
        e_ij += mlp(e_ij, e_ji, C h_i + D h_j)
        h_i  += mlp(mean_j e_ij, h_i)

    Args:
        width: W.

    Example:
        >>> import torch
        >>> from gradatim.nn.pairs import PairLayer
        >>> pairs, variables = PairLayer(width=8)(torch.randn(2, 5, 5, 8), torch.randn(2, 5, 8))
        >>> pairs.shape, variables.shape
        (torch.Size([2, 5, 5, 8]), torch.Size([2, 5, 8]))

    Source: Jumper et al. 2021, algorithms 11 and 12.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_triangles, self.norm_pairs = nn.LayerNorm(width), nn.LayerNorm(width)
        self.norm_products, self.norm_variables = nn.LayerNorm(2 * width), nn.LayerNorm(width)
        self.norm_message = nn.LayerNorm(width)
        self.gated, self.triangles = nn.Linear(width, 4 * width), nn.Linear(2 * width, width)
        self.of_pairs = nn.Linear(2 * width, 2 * width)
        self.of_variables = nn.Linear(width, 4 * width, bias=False)
        self.to_pairs = nn.Linear(2 * width, width)
        self.to_variables = mlp(2 * width, 2 * width, width)

    def forward(self, pairs: Tensor, variables: Tensor) -> tuple[Tensor, Tensor]:
        """Return refined pairs `[B, d, d, W]` and variables `[B, d, W]`."""
        d = pairs.shape[1]
        a, b, gate_a, gate_b = self.gated(self.norm_triangles(pairs)).chunk(4, dim=-1)
        # channels first: both products are then batched matrix products
        a, b = ((part * gate.sigmoid()).permute(0, 3, 1, 2) for part, gate in ((a, gate_a), (b, gate_b)))
        products = torch.cat([a @ b, a.mT @ b], dim=1).permute(0, 2, 3, 1) / d
        pairs = pairs + self.triangles(self.norm_products(products))
        seen = self.norm_pairs(pairs)
        sender, receiver = self.of_variables(self.norm_variables(variables)).chunk(2, dim=-1)
        mixed = self.of_pairs(torch.cat([seen, seen.transpose(1, 2)], dim=-1))
        pairs = pairs + self.to_pairs(F.gelu(mixed + sender[:, :, None] + receiver[:, None]))
        message = self.norm_message(pairs).mean(dim=2)
        return pairs, variables + self.to_variables(
            torch.cat([message, self.norm_variables(variables)], dim=-1)
        )
