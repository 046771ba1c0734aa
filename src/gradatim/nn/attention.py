"""A transformer over a set of tokens. A mask says which token attends to which; True means attends.

Source: Vaswani et al. 2017, eq. 1; pre-norm after Xiong et al. 2020.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """One pre-norm transformer layer on tokens `[B, L, W]`.

        t += attention(norm(t));  t += feed_forward(norm(t))

    The weights of the keys start equal to those of the queries, so attention starts as a similarity kernel.

    Args:
        width: W, a multiple of `heads`.
        heads: number of attention heads.
        sharpness: factor on the initial weights of queries and keys.

    Example:
        >>> import torch
        >>> from gradatim.nn.attention import Block
        >>> block = Block(width=8, heads=2)
        >>> block(torch.randn(3, 5, 8), bias=torch.zeros(1, 1, 1, 5)).shape
        torch.Size([3, 5, 8])

    Source: Xiong et al. 2020, figure 1b (pre-norm); Vaswani et al. 2017, eq. 1.
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
        """Return the refined tokens at the positions `read`.

        Args:
            tokens: `[B, L, W]`.
            bias: added to the attention logits; broadcasts to `[B, heads, R, L]`.
            read: the R positions to compute. The others serve as keys and values only.

        Returns:
            Tokens `[B, R, W]`.
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
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        tokens = tokens + self.out(attended.transpose(1, 2).flatten(2))
        return tokens + self.down(F.gelu(self.up(self.norm_forward(tokens))))

    def _heads(self, projected: Tensor, parts: int) -> tuple[Tensor, ...]:
        """Return the parts of `[B, L, parts * W]`, each as a view `[B, heads, L, W / heads]`."""
        split = projected.view(
            *projected.shape[:2], parts, self.heads, projected.shape[2] // (parts * self.heads)
        )
        return split.permute(2, 0, 3, 1, 4).unbind()


class Transformer(nn.Module):
    """Layers of attention over tokens without positional encoding, so that it maps sets to sets.

    Args:
        width: W of the tokens, a multiple of `heads`.
        layers: number of layers.
        heads: number of attention heads.
        sharpness: factor on the initial weights of queries and keys; see `Block`.

    Raises:
        ValueError: width not divisible by heads, or a size below 1.

    Example:
        >>> import torch
        >>> from gradatim.nn.attention import Transformer
        >>> net = Transformer(width=32, layers=2, heads=4)
        >>> net(torch.randn(3, 7, 32), visible=torch.ones(3, 1, 7, dtype=torch.bool)).shape
        torch.Size([3, 7, 32])

    Source: Vaswani et al. 2017, eq. 1; pre-norm after Xiong et al. 2020.
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
        """Return the refined tokens at the positions `read`.

        Args:
            tokens: `[B, L, W]`.
            visible: bool `[B, L, L]`, where `visible[b, q, k]` means that token q attends to token k.
                The first two sizes may be 1. Every token must attend to at least one.
            read: the R positions to return. The last layer computes no others.

        Returns:
            Tokens `[B, R, W]`.
        """
        bias = torch.zeros(visible.shape, dtype=tokens.dtype, device=tokens.device)
        bias = bias.masked_fill(~visible, float("-inf"))[:, None]
        *first, last = self.blocks
        for block in first:
            tokens = block(tokens, bias)
        bias = bias if bias.shape[2] == 1 else bias[:, :, read]
        return self.norm(last(tokens, bias, read))
