"""The transformer over a set of tokens; who sees whom is said by a mask, True = sees.

Source: Vaswani et al. 2017, eq. 1; pre-norm after Xiong et al. 2020.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """One layer: `t += attend(norm(t));  t += feed_forward(norm(t))`, on tokens `[B, L, W]`.

    The weights of keys start equal to those of queries, and both `sharpness` times the usual: attention starts as a
    similarity kernel between tokens.
    """

    def __init__(self, width: int, heads: int, sharpness: float = 1.0) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        with torch.no_grad():
            self.qkv.weight[:width] *= sharpness
            self.qkv.weight[width : 2 * width] = self.qkv.weight[:width]
        self.out = nn.Linear(width, width)
        self.norm_forward = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor, bias: Tensor, read: slice = slice(None)) -> Tensor:
        """Return the tokens in `read`, `[B, R, W]`, of tokens `[B, L, W]`; no other is computed.

        bias, broadcast to `[B, heads, R, L]`, is added to the attention logits.
        """
        width = tokens.shape[-1]
        normed = self.norm_attention(tokens)
        weight, shift = self.qkv.weight, self.qkv.bias
        if read == slice(None):
            q, k, v = self._heads(self.qkv(normed), 3)
        else:
            tokens = tokens[:, read]
            (q,) = self._heads(F.linear(normed[:, read], weight[:width], shift[:width]), 1)
            k, v = self._heads(F.linear(normed, weight[width:], shift[width:]), 2)
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        tokens = tokens + self.out(seen.transpose(1, 2).flatten(2))
        return tokens + self.down(F.gelu(self.up(self.norm_forward(tokens))))

    def _heads(self, projected: Tensor, parts: int) -> tuple[Tensor, ...]:
        """Return each of the `parts` of `[B, L, parts * W]` as `[B, heads, L, W / heads]`, a view."""
        split = projected.view(
            *projected.shape[:2], parts, self.heads, projected.shape[2] // (parts * self.heads)
        )
        return split.permute(2, 0, 3, 1, 4).unbind()


class Transformer(nn.Module):
    """Layers of attention over tokens without positions: a map of sets. `sharpness`: see `Block`.

    Raises:
        ValueError: width not divisible by heads, or a size below 1.

    Example:
        >>> net = Transformer(width=32, layers=2, heads=4)
        >>> net(torch.randn(3, 7, 32), torch.ones(3, 1, 7, dtype=torch.bool)).shape
        torch.Size([3, 7, 32])
    """

    def __init__(self, width: int, layers: int, heads: int, sharpness: float = 1.0) -> None:
        super().__init__()
        if min(width, layers, heads) < 1 or width % heads:
            raise ValueError(
                f"a transformer needs width, layers, heads >= 1 and heads that divide the width; got width {width}, "
                f"layers {layers}, heads {heads}"
            )
        self.blocks = nn.ModuleList(Block(width, heads, sharpness) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor, visible: Tensor, read: slice = slice(None)) -> Tensor:
        """Return the tokens in `read`, `[B, R, W]`; `visible[b, q, k]` (`[B or 1, L or 1, L]`): q sees k.

        Every token must see at least one. The last layer computes only what is read.
        """
        bias = torch.zeros(visible.shape, dtype=tokens.dtype, device=tokens.device)
        bias = bias.masked_fill(~visible, float("-inf"))[:, None]
        *first, last = self.blocks
        for block in first:
            tokens = block(tokens, bias)
        bias = bias if bias.shape[2] == 1 else bias[:, :, read]
        return self.norm(last(tokens, bias, read))
