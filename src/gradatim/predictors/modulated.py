"""Explicit f: all tasks share one learnt network; each task scales and shifts its hidden units.

Source: Perez et al. 2018, eq. 2 (feature-wise modulation); Zintgraf et al. 2019, section 3.1 (a few weights per task).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from ..predictor import Predictor

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from ..batch import Batch
    from ..likelihood import Likelihood


class Modulated(Predictor):
    """A learnt network with feature-wise modulation (FiLM).

        h_l = gelu((1 + a_l) * (W_l h_{l-1} + b_l) + c_l),   f = W h_L + b

    W and b are learnt and shared. The scales a and shifts c are the task's: the latent `[B, S]` is a_1, c_1, a_2,
    c_2, ... in one flat vector. It starts at zero. Its size S = 2 sum(hidden) does not depend on the width of x.

    Args:
        x_dim: width of x.
        likelihood: gives the number of outputs and the loss.
        hidden: widths of the hidden layers.

    Raises:
        ValueError: no layer, or a width below 1.

    Example:
        >>> import torch
        >>> from gradatim.predictors import CrossEntropy, Modulated
        >>> f = Modulated(64, CrossEntropy(10), (128, 128))
        >>> f(torch.randn(2, 5, 64), torch.zeros(2, 512)).shape
        torch.Size([2, 5, 10])

    Source: Perez et al. 2018, eq. 2.
    """

    def __init__(self, x_dim: int, likelihood: Likelihood, hidden: Sequence[int] = (128, 128)) -> None:
        super().__init__()
        if not hidden or min(x_dim, *hidden) < 1:
            raise ValueError(
                f"a modulated network needs layers and widths of at least 1; got x_dim {x_dim}, hidden {tuple(hidden)}"
            )
        self.likelihood, self.x_dim, self.hidden = likelihood, x_dim, tuple(hidden)
        self.output_dim = likelihood.output_dim
        self.layers = nn.ModuleList(
            nn.Linear(inner, outer) for inner, outer in zip((x_dim, *hidden), hidden, strict=False)
        )
        self.head = nn.Linear(hidden[-1], self.output_dim)
        self.latent_shape = (2 * sum(hidden),)

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """Return (2, width) for each layer: the shape of its scales and shifts."""
        return tuple((2, width) for width in self.hidden)

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        """Return outputs `[B, N, output_dim]` at x `[B, N, x_dim]` under scales and shifts `[B, S]`."""
        parts = latent[:, None].split([width for width in self.hidden for _ in range(2)], dim=2)
        for layer, scale, shift in zip(self.layers, parts[::2], parts[1::2], strict=True):
            x = F.gelu((1 + scale) * layer(x) + shift)
        return self.head(x)

    def row_loss(self, batch: Batch, latent: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the likelihood's loss of each row, `[B, N]`."""
        return self.likelihood.row_loss(self(batch.x, latent), batch.y)

    def check(self, batch: Batch) -> None:
        """Raise ValueError where x has another width, or y cannot be scored."""
        self.check_x(batch.x)
        self.likelihood.check(batch)
