"""An ensemble of networks, whose output is the mean of theirs.

Source: Lakshminarayanan et al. 2017 (deep ensembles), section 2.4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..predictor import Predictor

if TYPE_CHECKING:
    from torch import Tensor

    from ..batch import Batch
    from .network import Network


class Ensemble(Predictor):
    """The mean of E networks of the same form with different weights.

        f(x, theta) = mean_e member(x, theta_e),   theta [B, E, S]

    Args:
        member: the network; all members have its form.
        size: E.

    Raises:
        ValueError: a size below 1.

    Example:
        >>> import torch
        >>> from gradatim.predictors import Ensemble, Network, SquaredError
        >>> f = Ensemble(Network(8, SquaredError(1), (32,)), 4)
        >>> f(torch.randn(2, 5, 8), f.initial().expand(2, -1, -1)).shape
        torch.Size([2, 5, 1])

    Source: Lakshminarayanan et al. 2017, section 2.4.
    """

    def __init__(self, member: Network, size: int) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"an ensemble needs at least one member; got {size}")
        self.member, self.size = member, size
        self.latent_shape = (size, *member.latent_shape)
        self.output_dim, self.x_dim = member.output_dim, member.x_dim

    def initial(self, generator: torch.Generator | None = None) -> Tensor:
        """Return initial weights of each member, `[E, S]`."""
        return torch.stack([self.member.initial(generator) for _ in range(self.size)])

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        """Return the mean outputs `[B, N, output_dim]` at x `[B, N, x_dim]` under theta `[B, E, S]`."""
        outputs = self.member(x.repeat_interleave(self.size, dim=0), latent.flatten(0, 1))
        return outputs.unflatten(0, (-1, self.size)).mean(1)

    def row_loss(self, batch: Batch, latent: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the likelihood's loss of each row, `[B, N]`."""
        return self.member.likelihood.row_loss(self(batch.x, latent), batch.y)

    def check(self, batch: Batch) -> None:
        """Raise ValueError where x has another width, or y cannot be scored."""
        self.member.check(batch)
