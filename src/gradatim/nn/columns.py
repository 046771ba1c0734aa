"""Attention over a table with exchangeable columns: over its columns, over its rows, and between column tokens.

Source: Lorch et al. 2022 (AVICI), section 4.2 (both directions in turn); Rao et al. 2021, eq. 1 (tied attention).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ColumnLayer(nn.Module):
    """One layer on the cells of a table `[B, N, d, W]` and on one token for each column, `[B, d, W]`.

    N is the number of rows and d the number of columns. For each head, m holds learnt cross-moments of two columns.

        m_ij = a mean_n <q_ni, k_nj> / sqrt(W / heads)
        cell_ni += sum_j softmax_j(m_ij) v_nj + A token_i
        cell += feed_forward(cell)
        token_i += attention(token_i, {cell_ni}_n) + mean_j B gelu(C token_i + D token_j + E [m_ij, m_ji])
        token += feed_forward(token).

    Attention over columns is tied over rows: each head has one `[d, d]` matrix for the table. It costs O(N d^2).
    The layer is equivariant to the order of rows and of columns. It is pre-norm throughout.

    Args:
        width: W of cells and tokens, a multiple of `heads`.
        heads: number of attention heads.

    Raises:
        ValueError: width not divisible by heads, or a size below 1.

    Example:
        >>> import torch
        >>> from gradatim.nn.columns import ColumnLayer
        >>> layer, present = ColumnLayer(width=32, heads=4), torch.ones(2, 9, dtype=torch.bool)
        >>> _, tokens = layer(torch.randn(2, 9, 5, 32), torch.zeros(2, 5, 32), present)
        >>> tokens.shape
        torch.Size([2, 5, 32])

    Source: Lorch et al. 2022 (AVICI), section 4.2; Rao et al. 2021, eq. 1 (tied attention).
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if min(width, heads) < 1 or width % heads:
            raise ValueError(
                f"attention needs width, heads >= 1 and heads that divide the width; got width {width}, heads {heads}"
            )
        self.heads = heads
        self.norm_columns, self.norm_cells = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.log_scale = nn.Parameter(torch.full((heads, 1, 1), math.log(4.0)))
        self.token_to_cells = nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.norm_rows, self.norm_query = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key_value, self.token_out = (
            nn.Linear(width, size) for size in (width, 2 * width, width)
        )
        self.norm_pairs, self.norm_tokens = nn.LayerNorm(width), nn.LayerNorm(width)
        self.pairs = nn.Linear(width, 4 * width)
        self.moments, self.message = nn.Linear(2 * heads, 2 * width, bias=False), nn.Linear(2 * width, width)
        self.token_up, self.token_down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, cells: Tensor, tokens: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Return refined cells and tokens.

        Args:
            cells: `[B, N, d, W]`.
            tokens: `[B, d, W]`.
            present: bool `[B, N]`. Rows where it is False are ignored.

        Returns:
            Cells `[B, N, d, W]` and tokens `[B, d, W]`.
        """
        q, k, v = (self._tied(part) for part in self.qkv(self.norm_columns(cells)).chunk(3, dim=-1))
        mask = present.repeat_interleave(q.shape[-1] // present.shape[1], dim=1)[:, None, None]
        normalizer = present.sum(1).clamp(min=1)[:, None, None, None] * (cells.shape[-1] / self.heads) ** 0.5
        moments = self.log_scale.exp() * ((q * mask) @ k.mT) / normalizer  # [B, heads, d, d]
        mixed = (moments.softmax(-1) @ v).unflatten(-1, (cells.shape[1], -1))
        cells = (
            cells + self.out(mixed.permute(0, 3, 2, 1, 4).flatten(3)) + self.token_to_cells(tokens)[:, None]
        )
        cells = cells + self.down(F.gelu(self.up(self.norm_cells(cells))))
        tokens = tokens + self._over_rows(cells, tokens, present)
        pair_moments = torch.cat([moments, moments.mT], dim=1).permute(0, 2, 3, 1)
        receiver, sender = self.pairs(self.norm_pairs(tokens)).chunk(2, dim=-1)
        messages = F.gelu(receiver[:, :, None] + sender[:, None] + self.moments(pair_moments)).mean(dim=2)
        tokens = tokens + self.message(messages)
        return cells, tokens + self.token_down(F.gelu(self.token_up(self.norm_tokens(tokens))))

    def _tied(self, part: Tensor) -> Tensor:
        """Return `[B, heads, d, N * W / heads]` of `[B, N, d, W]`: the rows of a column, concatenated."""
        return part.unflatten(-1, (self.heads, -1)).permute(0, 3, 2, 1, 4).flatten(3)

    def _over_rows(self, cells: Tensor, tokens: Tensor, present: Tensor) -> Tensor:
        """Return the attention of each token over the cells of its column, `[B, d, W]`."""
        q = self.query(self.norm_query(tokens)).unflatten(-1, (self.heads, -1))  # [B, d, heads, W / heads]
        k, v = self.key_value(self.norm_rows(cells)).unflatten(-1, (2, self.heads, -1)).unbind(-3)
        logits = torch.einsum("bdhe,bndhe->bdhn", q, k) / q.shape[-1] ** 0.5
        weights = logits.masked_fill(~present[:, None, None], -1e9).softmax(-1)
        return self.token_out(torch.einsum("bdhn,bndhe->bdhe", weights, v).flatten(2))
