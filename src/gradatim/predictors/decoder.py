"""Explicit f: a learnt decoder that reads a task's embedding, one vector or several tokens.

Source: Mittal et al. 2025, the explicit regime: f and g both learnt; Kim et al. 2019 for queries that attend to tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nn.mlp import mlp
from ..predictor import Predictor

if TYPE_CHECKING:
    from ..batch import Batch
    from .likelihoods import Likelihood


class Decoder(Predictor):
    """`f_gamma(x, z)`: x attends to the K tokens of z `[B, K, Wz]`, layer by layer; no x sees another.

    Args: `x_dim`; `likelihood`; `tokens` K (1: one vector); `token_width` Wz; `width`, `layers` of the decoder.

    Example:
        >>> f = Decoder(64, CrossEntropy(10), tokens=16, token_width=32)
        >>> f(torch.randn(2, 5, 64), torch.zeros(2, 16, 32)).shape
        torch.Size([2, 5, 10])
    """

    def __init__(
        self,
        x_dim: int,
        likelihood: Likelihood,
        tokens: int = 16,
        token_width: int = 32,
        width: int = 64,
        layers: int = 2,
        heads: int = 4,
    ) -> None:
        super().__init__()
        self.likelihood, self.heads, self.x_dim = likelihood, heads, x_dim
        self.latent_shape = (tokens, token_width)
        self.output_dim = likelihood.output_dim
        self.embed = nn.Linear(x_dim, width)
        self.query = nn.ModuleList(nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width)) for _ in range(layers))
        self.key_value = nn.ModuleList(nn.Linear(token_width, 2 * width) for _ in range(layers))
        self.out = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.forwards = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), mlp(width, 4 * width, width)) for _ in range(layers)
        )
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, self.output_dim))

    def initial(self, generator: torch.Generator | None = None) -> Tensor:
        """Return z `[K, Wz]` ~ N(0, 1): tokens start apart."""
        return torch.randn(self.latent_shape, generator=generator)

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        """Return outputs `[B, N, output_dim]` at x `[B, N, x_dim]` under z `[B, K, Wz]`."""
        hidden = self.embed(x)
        layers = zip(self.query, self.key_value, self.out, self.forwards, strict=True)
        for query, key_value, out, forward in layers:
            q = query(hidden).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            k, v = key_value(latent).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
            hidden = hidden + out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
            hidden = hidden + forward(hidden)
        return self.head(hidden)

    def row_loss(self, batch: Batch, latent: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the likelihood's loss of each row, `[B, N]`."""
        return self.likelihood.row_loss(self(batch.x, latent), batch.y)

    def check(self, batch: Batch) -> None:
        """Raise ValueError where x has another width, or y cannot be scored."""
        if batch.x.shape[2] != self.x_dim:
            raise ValueError(f"this learner wants x of width {self.x_dim}; got {batch.x.shape[2]}")
        self.likelihood.check(batch)
