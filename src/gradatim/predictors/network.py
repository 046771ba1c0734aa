"""Parametric f: a network of known form whose weights are the latent. Without hidden layers it is a linear model.

Source: Mittal et al. 2025, the parametric regime: f fixed, `theta_T = g_phi(D)`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..nn.functional import Layout, inputs, jacobian, network
from ..predictor import Predictor

if TYPE_CHECKING:
    from torch import Tensor

    from ..batch import Batch
    from ..likelihood import Likelihood


class Network(Predictor):
    """A tanh network `x_dim -> *hidden -> outputs`; the latent theta `[B, S]` holds all its weights.

    Args:
        x_dim: width of x.
        likelihood: gives the number of outputs and the loss.
        hidden: widths of the hidden layers. None makes a linear or softmax-linear model.
        bias: whether the layers have biases.

    Raises:
        ValueError: a width below 1.

    Example:
        >>> import torch
        >>> from gradatim.predictors import CrossEntropy, Network
        >>> f = Network(64, CrossEntropy(10))
        >>> f.latent_shape
        (650,)
        >>> f(torch.randn(2, 5, 64), torch.zeros(2, 650)).shape
        torch.Size([2, 5, 10])

    Source: Mittal et al. 2025, the parametric regime.
    """

    def __init__(
        self, x_dim: int, likelihood: Likelihood, hidden: tuple[int, ...] = (), bias: bool = True
    ) -> None:
        super().__init__()
        self.layout = Layout((x_dim, *hidden, likelihood.output_dim), bias)
        self.likelihood = likelihood
        self.latent_shape = (self.layout.size,)
        self.output_dim, self.x_dim = likelihood.output_dim, x_dim

    def initial(self, generator: torch.Generator | None = None) -> Tensor:
        """Return initial theta `[S]`: hidden weights ~ N(0, 1 / fan_in), biases and the last layer zero."""
        parts = [torch.zeros(shape) for shape in self.layout.shapes]
        for part in parts[:-1]:
            inner = part.shape[1] - self.layout.bias
            part[:, :inner] = torch.randn(part.shape[0], inner, generator=generator) / inner**0.5
        return torch.cat([part.flatten() for part in parts])

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        """Return outputs `[B, N, output_dim]` of the networks theta `[B, S]` at x `[B, N, x_dim]`."""
        return network(x, latent, self.layout)

    def inputs(self, x: Tensor, latent: Tensor) -> list[Tensor]:
        """Return the input of each layer `[B, N, inputs + bias]` at x `[B, N, x_dim]` under theta `[B, S]`."""
        return inputs(x, latent, self.layout)

    def jacobian(self, x: Tensor, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Return outputs `[B, N, output_dim]` at x, and their Jacobian in theta, `[B, N, output_dim, S]`."""
        return jacobian(x, latent, self.layout)

    def row_loss(self, batch: Batch, latent: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the likelihood's loss of each row, `[B, N]`."""
        return self.likelihood.row_loss(self(batch.x, latent), batch.y)

    def check(self, batch: Batch) -> None:
        """Raise ValueError where x has another width, or y cannot be scored."""
        self.check_x(batch.x)
        self.likelihood.check(batch)
