"""Implicit f: the state is the prediction itself, one per query row, and f only reads it out.

Source: Mittal et al. 2025, eq. 8: `yhat^(k)`, and finding 5: the best recurrent state is the logits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..predictor import Predictor

if TYPE_CHECKING:
    from ..batch import Batch
    from ..likelihood import Likelihood


class Readout(Predictor):
    """`f(x, s) = read(s)`: s `[B, Nq, width]` belongs to the query rows; x is not looked at again.

    Kinds of s: `logits` (or a regression's outputs: read as it is), `latents` of `width` (read by a linear map),
    `probabilities` (read as their log).

    Raises:
        ValueError: an unknown kind.

    Example:
        >>> Readout(CrossEntropy(10))(torch.randn(2, 5, 64), torch.zeros(2, 5, 10)).shape
        torch.Size([2, 5, 10])
    """

    latent_shape = ()

    def __init__(
        self, likelihood: Likelihood, kind: str = "logits", width: int = 64, x_dim: int | None = None
    ) -> None:
        super().__init__()
        if kind not in ("logits", "latents", "probabilities"):
            raise ValueError(f"an implicit state is 'logits', 'latents' or 'probabilities'; got {kind!r}")
        self.likelihood, self.kind = likelihood, kind
        self.output_dim, self.x_dim = likelihood.output_dim, x_dim
        self.state_width = width if kind == "latents" else self.output_dim
        self.head = (
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, self.output_dim))
            if kind == "latents"
            else None
        )

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        """Return outputs `[B, Nq, output_dim]` of the query rows' states `[B, Nq, state_width]`."""
        if self.head is not None:
            return self.head(latent)
        return (
            latent.clamp(min=torch.finfo(latent.dtype).tiny).log() if self.kind == "probabilities" else latent
        )

    def row_loss(self, batch: Batch, latent: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the likelihood's loss of each query row, `[B, Nq]`."""
        return self.likelihood.row_loss(self(batch.x, latent), batch.y)

    def check(self, batch: Batch) -> None:
        """Raise ValueError where x has another width, or y cannot be scored."""
        self.check_x(batch.x)
        self.likelihood.check(batch)
