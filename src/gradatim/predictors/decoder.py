"""Explicit f: a learnt decoder of a task's embedding, which is one vector or several tokens.

Source: Mittal et al. 2025, the explicit regime: f and g both learnt; Ha, Dai, Le 2016, eq. 1, for weights made from z.
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
    from ..likelihood import Likelihood


class Decoder(Predictor):
    """A network whose hidden units are learnt functions of the tokens of an embedding z `[B, K, Wz]`.

        f_gamma(x, z) = sum_ku gelu(<query(x), key_u(z_k)> / sqrt(width)) value_u(z_k) / sqrt(K units)

    Rows of x do not interact.

    Args:
        x_dim: width of x.
        likelihood: gives the number of outputs and the loss.
        tokens: K; 1 makes z one vector.
        token_width: Wz.
        units: hidden units for each token.
        width: width of queries and keys.

    Raises:
        ValueError: a size below 1.

    Example:
        >>> import torch
        >>> from gradatim.predictors import CrossEntropy, Decoder
        >>> f = Decoder(64, CrossEntropy(10), tokens=16, token_width=32)
        >>> f(torch.randn(2, 5, 64), torch.zeros(2, 16, 32)).shape
        torch.Size([2, 5, 10])

    Source: Mittal et al. 2025, the explicit regime; Ha, Dai, Le 2016, eq. 1.
    """

    def __init__(
        self,
        x_dim: int,
        likelihood: Likelihood,
        tokens: int = 16,
        token_width: int = 32,
        units: int = 4,
        width: int = 64,
    ) -> None:
        super().__init__()
        if min(x_dim, tokens, token_width, units, width) < 1:
            raise ValueError(
                f"a decoder's sizes must be at least 1; got x_dim {x_dim}, tokens {tokens}, token_width {token_width}, "
                f"units {units}, width {width}"
            )
        self.likelihood, self.x_dim, self.units = likelihood, x_dim, units
        self.latent_shape = (tokens, token_width)
        self.output_dim = likelihood.output_dim
        self.linear = nn.Linear(x_dim, width)
        self.bend = mlp(x_dim, 2 * width, width)
        self.key = nn.Linear(token_width, units * width)
        self.value = nn.Linear(token_width, units * self.output_dim)

    def initial(self, generator: torch.Generator | None = None) -> Tensor:
        """Return z `[K, Wz]` ~ N(0, 1), so that tokens start different."""
        return torch.randn(self.latent_shape, generator=generator)

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        """Return outputs `[B, N, output_dim]` at x `[B, N, x_dim]` under z `[B, K, Wz]`."""
        query = self.linear(x) + self.bend(x)
        key = self.key(latent).unflatten(-1, (self.units, -1)).flatten(1, 2)
        value = self.value(latent).unflatten(-1, (self.units, -1)).flatten(1, 2)
        hidden = F.gelu(query @ key.mT / key.shape[-1] ** 0.5)
        return hidden @ value / value.shape[1] ** 0.5

    def row_loss(self, batch: Batch, latent: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the likelihood's loss of each row, `[B, N]`."""
        return self.likelihood.row_loss(self(batch.x, latent), batch.y)

    def check(self, batch: Batch) -> None:
        """Raise ValueError where x has another width, or y cannot be scored."""
        self.check_x(batch.x)
        self.likelihood.check(batch)
