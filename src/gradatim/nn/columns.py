"""Attention over a table whose columns are alike: over its columns, over its rows, and between tokens of the columns.

Source: Lorch et al. 2022 (AVICI), section 4.2 (both directions in turn); Rao et al. 2021, eq. 1 (tied attention).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ColumnLayer(nn.Module):
    """One layer on cells `[B, N, d, W]` of N rows and d columns, and on tokens `[B, d, W]`, one for each column.

        m_ij = a mean_n <q_ni, k_nj> / sqrt(W / heads)             for each head: learnt cross-moments of two columns
        cell_ni += sum_j softmax_j(m_ij) v_nj + A token_i;         cell += feed_forward(cell)
        token_i += attend(token_i, {cell_ni}_n) + mean_j B gelu(C token_i + D token_j + E [m_ij, m_ji]);
        token += feed_forward(token)

    Over columns the weights are tied over rows: one `[d, d]` matrix a head for the whole table, which is what tells of
    causes, at a cost of N d^2. No weight knows a place, of rows or of columns. Norms stand before every part.

    Raises:
        ValueError: width not divisible by heads, or a size below 1.

    Example:
        >>> layer = ColumnLayer(32, 4)
        >>> cells, tokens = layer(torch.randn(2, 9, 5, 32), torch.zeros(2, 5, 32), torch.ones(2, 9, dtype=torch.bool))
        >>> cells.shape, tokens.shape
        (torch.Size([2, 9, 5, 32]), torch.Size([2, 5, 32]))
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
        self.told = nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.norm_rows, self.norm_asked = nn.LayerNorm(width), nn.LayerNorm(width)
        self.ask, self.shown, self.heard = (nn.Linear(width, size) for size in (width, 2 * width, width))
        self.norm_pairs, self.norm_tokens = nn.LayerNorm(width), nn.LayerNorm(width)
        self.pairs = nn.Linear(width, 4 * width)
        self.moments, self.message = nn.Linear(2 * heads, 2 * width, bias=False), nn.Linear(2 * width, width)
        self.token_up, self.token_down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, cells: Tensor, tokens: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """Return cells and tokens refined; `there [B, N]`: rows that are, no other is seen."""
        q, k, v = (self._tied(part) for part in self.qkv(self.norm_columns(cells)).chunk(3, dim=-1))
        present = there.repeat_interleave(q.shape[-1] // there.shape[1], dim=1)[:, None, None]
        share = there.sum(1).clamp(min=1)[:, None, None, None] * (cells.shape[-1] / self.heads) ** 0.5
        moments = self.log_scale.exp() * ((q * present) @ k.mT) / share  # [B, heads, d, d]
        mixed = (moments.softmax(-1) @ v).unflatten(-1, (cells.shape[1], -1))
        cells = cells + self.out(mixed.permute(0, 3, 2, 1, 4).flatten(3)) + self.told(tokens)[:, None]
        cells = cells + self.down(F.gelu(self.up(self.norm_cells(cells))))
        tokens = tokens + self._over_rows(cells, tokens, there)
        both = torch.cat([moments, moments.mT], dim=1).permute(0, 2, 3, 1)
        here, other = self.pairs(self.norm_pairs(tokens)).chunk(2, dim=-1)
        messages = F.gelu(here[:, :, None] + other[:, None] + self.moments(both)).mean(dim=2)
        tokens = tokens + self.message(messages)
        return cells, tokens + self.token_down(F.gelu(self.token_up(self.norm_tokens(tokens))))

    def _tied(self, part: Tensor) -> Tensor:
        """Return `[B, heads, d, N * W / heads]` of `[B, N, d, W]`: a column's rows one after the other."""
        return part.unflatten(-1, (self.heads, -1)).permute(0, 3, 2, 1, 4).flatten(3)

    def _over_rows(self, cells: Tensor, tokens: Tensor, there: Tensor) -> Tensor:
        """Return what each token hears of the cells of its own column, `[B, d, W]`."""
        asked = self.ask(self.norm_asked(tokens)).unflatten(-1, (self.heads, -1))  # [B, d, heads, W / heads]
        k, v = self.shown(self.norm_rows(cells)).unflatten(-1, (2, self.heads, -1)).unbind(-3)
        logits = torch.einsum("bdhe,bndhe->bdhn", asked, k) / asked.shape[-1] ** 0.5
        weights = logits.masked_fill(~there[:, None, None], -1e9).softmax(-1)
        return self.heard(torch.einsum("bdhn,bndhe->bdhe", weights, v).flatten(2))
