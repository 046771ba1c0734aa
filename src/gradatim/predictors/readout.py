"""Implicit f: the state is the prediction itself, one for each query row. f reads it out.

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
    """Outputs computed from the states s `[B, Nq, width]` of the query rows; x is not used.

    Args:
        likelihood: gives the number of outputs and the loss.
        kind: what s is. `logits` (or the outputs of a regression) are the outputs. `latents` are mapped linearly.
            Of `probabilities` the outputs are the logarithm.
        width: of `latents`.
        x_dim: width of x, where it must be checked.

    Raises:
        ValueError: an unknown kind.

    Example:
        >>> import torch
        >>> from gradatim.predictors import CrossEntropy, Readout
        >>> Readout(CrossEntropy(10))(torch.randn(2, 5, 64), torch.zeros(2, 5, 10)).shape
        torch.Size([2, 5, 10])

    Source: Mittal et al. 2025, eq. 8 and finding 5.
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
        """Return outputs `[B, Nq, output_dim]` of the states `[B, Nq, state_width]` of the query rows."""
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
