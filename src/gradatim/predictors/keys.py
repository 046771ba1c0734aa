"""Heads on learnt keys of x: linear ones for classes, Gaussian ones for numbers. All tasks share the keys.

Source: Harrison et al. 2018, eqs. 5-6 (numbers); Snell et al. 2017, eq. 8 (a mean of classes is a linear head).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from ..predictor import Predictor

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..batch import Batch
    from ..likelihood import Likelihood


class Keys(Predictor):
    """Scores of classes, linear in the keys k of x and their squares; the head is the latent `[B, C (2 K + 1)]`.

        f(x, theta)_c = theta_c' [k, k^2, 1],   k = encoder(x)

    The log density of a key under a Gaussian of each class has this form.

    Args:
        x_dim: the width of x.
        likelihood: gives the number of outputs C and the loss.
        encoder: maps x `[..., x_dim]` to keys `[..., K]`.
        keys: K.

    Example:
        >>> import torch
        >>> from gradatim.predictors import CrossEntropy, Keys
        >>> f = Keys(4, CrossEntropy(3), torch.nn.Linear(4, 8), keys=8)
        >>> f(torch.randn(2, 5, 4), torch.zeros(2, 51)).shape
        torch.Size([2, 5, 3])

    Source: Snell et al. 2017, eq. 8.
    """

    def __init__(self, x_dim: int, likelihood: Likelihood, encoder: nn.Module, keys: int) -> None:
        super().__init__()
        self.x_dim, self.likelihood, self.output_dim = x_dim, likelihood, likelihood.output_dim
        self.encoder, self.keys = encoder, keys
        self.latent_shape = (self.output_dim * (2 * keys + 1),)

    def encode(self, x: Tensor) -> Tensor:
        """Return what multiplies the head, `[B, N, D]`, at x `[B, N, x_dim]`."""
        keys = self.encoder(x)
        return torch.cat([keys, keys.square(), torch.ones_like(keys[..., :1])], dim=-1)

    def read(self, encoded: Tensor, latent: Tensor) -> Tensor:
        """Return outputs `[B, N, C]` of heads `latent [B, S]` at encoded rows `[B, N, D]`."""
        return encoded @ latent.unflatten(1, (self.output_dim, -1)).mT

    def read_loss(self, encoded: Tensor, latent: Tensor, y: Tensor, density: bool = True) -> Tensor:
        """Return the loss of each row, `[B, N]`, of heads `latent [B, S]` at encoded rows `[B, N, D]`, y `[B, N, Dy]`.

        With `density` it is the negative log density that the head predicts, in nats, up to a constant. For classes
        the likelihood's loss is that already.
        """
        return self.likelihood.row_loss(self.read(encoded, latent), y)

    def inputs(self, x: Tensor, latent: Tensor) -> list[Tensor]:
        """Return what multiplies the head, `[B, N, D]`, at x `[B, N, x_dim]`."""
        return [self.encode(x)]

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        """Return outputs `[B, N, C]` of heads `latent [B, S]` at x `[B, N, x_dim]`."""
        return self.read(self.encode(x), latent)

    def row_loss(self, batch: Batch, latent: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the likelihood's loss of each row, `[B, N]`."""
        return self.likelihood.row_loss(self(batch.x, latent), batch.y)

    def check(self, batch: Batch) -> None:
        """Raise ValueError where x has another width, or y cannot be scored."""
        self.check_x(batch.x)
        self.likelihood.check(batch)


class GaussianKeys(Keys):
    """Numbers, linear in the keys k of x, with a Gaussian posterior of the head as the latent.

        f(x) = w' k,   variance(x)_c = noise_c (1 + |R k|^2 / level)

    The latent `[B, C K + K K + C]` holds w, R and the logs of the noise variances. `level` is their geometric mean.

    Args:
        x_dim: the width of x.
        likelihood: gives the number of outputs C and the loss.
        encoder: maps x `[..., x_dim]` to keys `[..., K]`.
        keys: K.

    Example:
        >>> import torch
        >>> from gradatim.predictors import GaussianKeys, SquaredError
        >>> f = GaussianKeys(1, SquaredError(), torch.nn.Linear(1, 8), keys=8)
        >>> f.moments(torch.zeros(2, 5, 1), torch.zeros(2, *f.latent_shape))[1].unique().tolist()
        [1.0]

    Source: Harrison et al. 2018, eqs. 5-6; Bishop 2006, eqs. 3.58-3.59.
    """

    def __init__(self, x_dim: int, likelihood: Likelihood, encoder: nn.Module, keys: int) -> None:
        super().__init__(x_dim, likelihood, encoder, keys)
        self.latent_shape = (self.output_dim * (keys + 1) + keys * keys,)

    def encode(self, x: Tensor) -> Tensor:
        """Return the keys `[B, N, K]` at x `[B, N, x_dim]`."""
        return self.encoder(x)

    def read(self, encoded: Tensor, latent: Tensor) -> Tensor:
        """Return outputs `[B, N, C]` of heads `latent [B, S]` at encoded rows `[B, N, K]`."""
        return encoded @ latent[:, : self.output_dim * self.keys].unflatten(1, (self.output_dim, -1)).mT

    def read_loss(self, encoded: Tensor, latent: Tensor, y: Tensor, density: bool = True) -> Tensor:
        """Return the loss of each row, `[B, N]`, of heads `latent [B, S]` at encoded rows `[B, N, K]`, y `[B, N, C]`.

        With `density` it is the negative log density that the posterior predicts, in nats.
        """
        if not density:
            return super().read_loss(encoded, latent, y)
        apart = (self.read(encoded, latent) - y).square()
        variance = self._variance(encoded, latent)
        return (variance.log() + apart / variance + math.log(2 * math.pi)).sum(-1) / 2

    def moments(self, x: Tensor, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Return the predictive mean and variance, noise included, `[B, N, C]` each, at x `[B, N, x_dim]`."""
        keys = self.encode(x)
        return self.read(keys, latent), self._variance(keys, latent)

    def _variance(self, keys: Tensor, latent: Tensor) -> Tensor:
        root = latent[:, self.output_dim * self.keys : -self.output_dim].unflatten(1, (self.keys, -1))
        log_noise = latent[:, None, -self.output_dim :]
        reach = (keys @ root.mT).square().sum(-1, keepdim=True)
        return log_noise.exp() * (1 + reach * (-log_noise.mean(-1, keepdim=True)).exp())
