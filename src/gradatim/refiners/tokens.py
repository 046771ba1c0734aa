"""The state as tokens: one for all of theta, one per row of each weight matrix, or one per vector of z.

Source: Mittal et al. 2025 (theta as one token); a token per weight row is ours, for theta of many rows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..nn.functional import split_rows


class StateTokens(nn.Module):
    """Tokens `[B, K, W]` of a latent, and from the refined tokens back to a move of the latent.

        token_k = A [latent_k, gradient_k] + identity_k
        move_k  = exp(s) C token_k - exp(D token_k) * gradient_k,     s = d . mean_k token_k

    the last term where gradients are seen. So a preconditioned gradient step is contained in it, at the start a plain
    small one; and s lets the size of a move, which falls a hundredfold as theta settles, be learnt apart from its
    shape.

    Args: `shapes`: (rows, width) of the matrices that lie one after the other in the flat latent, e.g. `Layout.shapes`
    for a token per weight row, `((1, S),)` for one token, `((K, Wz),)` for tokens of z; `latent_shape`; `width` W;
    `gradients`: whether they are seen.
    """

    def __init__(
        self, shapes: tuple[tuple[int, int], ...], latent_shape: tuple[int, ...], width: int, gradients: bool
    ) -> None:
        super().__init__()
        self.shapes, self.latent_shape, self.gradients = shapes, latent_shape, gradients
        self.count = sum(rows for rows, _ in shapes)
        self.identity = nn.Parameter(torch.randn(self.count, width) / width**0.5)
        self.embed = nn.ModuleList(nn.Linear((1 + gradients) * inner, width) for _, inner in shapes)
        self.head = nn.ModuleList(_constant(width, inner, 0.0) for _, inner in shapes)
        self.rate = nn.ModuleList(_constant(width, inner, -1.0) for _, inner in shapes if gradients)
        self.size = _constant(width, 1, 0.0)

    def forward(self, latent: Tensor, gradient: Tensor | None = None) -> Tensor:
        """Return tokens `[B, K, W]` of latent (and gradient) `[B, *latent_shape]`."""
        values = split_rows(latent.flatten(1), self.shapes)
        if self.gradients:
            slopes = torch.zeros_like(latent) if gradient is None else gradient
            pairs = zip(values, split_rows(slopes.flatten(1), self.shapes), strict=True)
            values = [torch.cat(pair, dim=-1) for pair in pairs]
        tokens = [embed(value) for embed, value in zip(self.embed, values, strict=True)]
        return torch.cat(tokens, dim=1) + self.identity

    def move(self, tokens: Tensor, gradient: Tensor | None = None) -> Tensor:
        """Return the move `[B, *latent_shape]` that refined tokens `[B, K, W]` propose."""
        parts = tokens.split([rows for rows, _ in self.shapes], dim=1)
        size = self.size(tokens.mean(dim=1, keepdim=True)).clamp(-8, 4).exp()
        moves = [size * head(part) for head, part in zip(self.head, parts, strict=True)]
        if self.gradients and gradient is not None:
            slopes = split_rows(gradient.flatten(1), self.shapes)
            rates = [rate(part).clamp(-8, 4).exp() for rate, part in zip(self.rate, parts, strict=True)]
            moves = [m - r * s for m, r, s in zip(moves, rates, slopes, strict=True)]
        flat = torch.cat([m.flatten(1) for m in moves], dim=1)
        return flat.unflatten(1, self.latent_shape)


def _constant(width: int, out: int, value: float) -> nn.Linear:
    """Return a linear layer that starts as a constant."""
    layer = nn.Linear(width, out)
    nn.init.zeros_(layer.weight)
    nn.init.constant_(layer.bias, value)
    return layer
