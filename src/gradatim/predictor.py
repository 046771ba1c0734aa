"""f_gamma: how a query is answered, given what was learnt about its task.

Source: Mittal et al. 2025, eq. 5: `f_gamma(x, theta_T)`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable

    from .batch import Batch
    from .nn.mixture import Mixture


class Predictor(nn.Module, ABC):
    """`outputs = f_gamma(x, latent)`. A task reaches the predictor through the latent alone.

    A subclass defines `forward` and `row_loss`, and sets these attributes.

    Attributes:
        latent_shape: the latent's shape without tasks, such as `(S,)` or `(K, W)`. It is empty for a readout, whose
            latent belongs to the query rows.
        output_dim: the width of the outputs.
        x_dim: the width of x. None: any.

    Example:
        >>> import torch
        >>> from gradatim import Predictor
        >>> class Line(Predictor):
        ...     latent_shape, output_dim = (2,), 1
        ...
        ...     def forward(self, x, latent):
        ...         return x * latent[:, None, :1] + latent[:, None, 1:]
        ...
        ...     def row_loss(self, batch, latent, generator=None):
        ...         return (self(batch.x, latent) - batch.y).square().sum(-1)
        >>> Line()(torch.ones(1, 2, 1), latent=torch.tensor([[2.0, 1.0]]))
        tensor([[[3.],
                 [3.]]])
    """

    latent_shape: tuple[int, ...]
    output_dim: int
    x_dim: int | None = None

    @abstractmethod
    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        """Return outputs `[B, N, output_dim]` at x `[B, N, Dx]` under latent `[B, *latent_shape]`."""

    @abstractmethod
    def row_loss(self, batch: Batch, latent: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the loss of each row `[B, N]` under latent `[B, *latent_shape]`. Values at absent rows are ignored."""

    def at(self, latent: Tensor) -> Callable[[Tensor], Tensor]:
        """Return f under latent `[B, *latent_shape]`, to be asked at many x; what follows from it is done once."""
        return partial(self, latent=latent)

    def initial(self, generator: torch.Generator | None = None) -> Tensor:
        """Return a latent to start from, of shape `[*latent_shape]`: zeros, unless f needs its symmetry broken."""
        return torch.zeros(self.latent_shape)

    def loss(self, batch: Batch, latent: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the weighted mean loss over the rows of each task, `[B]`. It is 0 for a task without rows."""
        return weighted_mean(self.row_loss(batch, latent, generator), batch)

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

    def distribution(self, x: Tensor, latent: Tensor) -> Mixture:
        """Return the predictive distribution of a regression's answer at x `[B, N, Dx]`, a mixture for each row.

        Raises:
            ValueError: the predictor answers a mean only.
        """
        raise ValueError(
            f"{type(self).__name__} answers a mean only, not a distribution: use another learner"
        )

    def check_x(self, x: Tensor) -> None:
        """Check that x is numbers `[B, N, x_dim]`. A predictor of images or tokens overrides this.

        Raises:
            ValueError: no tensor, tokens, or another shape.
        """
        if not isinstance(x, Tensor):
            raise ValueError(
                f"x must be a tensor [tasks, rows, width]; got {type(x).__name__}: of a Batch give batch.x"
            )
        if not x.is_floating_point():
            raise ValueError(
                f"this learner wants numbers: x floating point; got tokens ({x.dtype}): embed them, or use a predictor "
                "that takes tokens"
            )
        if x.dim() != 3 or (self.x_dim is not None and x.shape[2] != self.x_dim):
            raise ValueError(
                f"this learner wants x of shape [tasks, rows, {self.x_dim}]; got {tuple(x.shape)}"
            )

    def check(self, batch: Batch) -> None:
        """Check that a batch fits this predictor; here every batch does.

        Raises:
            ValueError: in a subclass, unknown classes or other widths.
        """


def weighted_mean(values: Tensor, batch: Batch) -> Tensor:
    """Return the mean of `values [B, N]` over the rows of each task, `[B]`: each row counts its weight.

    Values at absent rows are ignored. A task without rows has the mean 0.

    Example:
        >>> import torch
        >>> from gradatim import Batch
        >>> from gradatim.predictor import weighted_mean
        >>> batch = Batch(torch.ones(1, 2, 1), torch.ones(1, 2, 1), torch.tensor([[1.0, 3.0]]))
        >>> weighted_mean(torch.tensor([[0.0, 4.0]]), batch)
        tensor([3.])
    """
    rows = batch.rows
    return (values * batch.weight).sum(1) / torch.where(rows > 0, rows, 1)
