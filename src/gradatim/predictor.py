"""f_gamma: how a query is answered, given what was learnt about its task.

Source: Mittal et al. 2025, eq. 5: `f_gamma(x, theta_T)`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from .batch import Batch


class Predictor(nn.Module, ABC):
    """`outputs = f_gamma(x, latent)`; a task reaches it through the latent alone.

    A subclass sets `latent_shape` (the latent's shape without tasks, e.g. `(S,)` or `(K, W)`; empty for a readout,
    whose latent belongs to the query rows), `output_dim`, and `x_dim` where only one width of x will do.
    """

    latent_shape: tuple[int, ...]
    output_dim: int
    x_dim: int | None = None

    @abstractmethod
    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        """Return outputs `[B, N, output_dim]` at x `[B, N, Dx]` under latent `[B, *latent_shape]`."""

    @abstractmethod
    def row_loss(self, batch: Batch, latent: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the loss of each row `[B, N]`; what stands at absent rows is ignored."""

    def initial(self, generator: torch.Generator | None = None) -> Tensor:
        """Return a latent to start from, `latent_shape`: zeros unless the form of f needs symmetry broken."""
        return torch.zeros(self.latent_shape)

    def loss(self, batch: Batch, latent: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the mean loss over the present rows of each task, `[B]`; 0 for a task without rows."""
        rows = self.row_loss(batch, latent, generator)
        return (rows * batch.mask).sum(1) / batch.rows.clamp(min=1)

    def inputs(self, x: Tensor, latent: Tensor) -> list[Tensor]:
        """Return what multiplies each weight matrix of the latent, `[B, N, width]`.

        Raises:
            ValueError: the latent is no sequence of weight matrices.
        """
        raise ValueError(
            f"the latent of {type(self).__name__} is no sequence of weight matrices, so it shows no inputs: "
            "use the parametric regime"
        )

    def jacobian(self, x: Tensor, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Return outputs `[B, N, output_dim]` at x, and their slopes in the latent, `[B, N, output_dim, S]`.

        Raises:
            ValueError: the predictor does not say.
        """
        raise ValueError(f"{type(self).__name__} gives no slopes of its outputs: use a Network")

    def check_x(self, x: Tensor) -> None:
        """Raise ValueError where x is not `[B, N, x_dim]`."""
        if x.dim() != 3 or (self.x_dim is not None and x.shape[2] != self.x_dim):
            raise ValueError(
                f"this learner wants x of shape [tasks, rows, {self.x_dim}]; got {tuple(x.shape)}"
            )

    def check(self, batch: Batch) -> None:
        """Raise ValueError where the batch cannot be this predictor's: unknown classes, other widths."""
