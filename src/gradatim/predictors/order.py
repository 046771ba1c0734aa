"""f_gamma of an order: a score for each variable; the earlier has the higher one.

Source: Bradley, Terry 1952 (pairwise logistic); Mittal et al. 2025, topological order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..likelihood import Order
from ..nn.mlp import mlp
from ..predictor import Predictor

if TYPE_CHECKING:
    from ..batch import Batch


class OrderScores(Predictor):
    """`f(x, z)_j = <x, s(z)> - s(z)_j`: at the unit vector of variable i, the log odds that i stands before j.

    z `[B, d, W]` are tokens, one for each variable, and `s_i` a network of `z_i`; or, without `width`, z `[B, d, 1]`
    are the scores themselves, and f has no parameters. No variable is told from another by its place.

    The loss of a row is `sum_j y_j softplus(-f_j)`, y the children of variable i: nothing is asked of pairs without an
    edge, whose order may be free.

    Args: `variables` d; `width` W of the tokens, None: the scores.

    Raises:
        ValueError: fewer than 2 variables, a width below 1.

    Example:
        >>> OrderScores(3)(torch.eye(3)[None], torch.tensor([[[2.0], [0.0], [1.0]]]))[0, 0]
        tensor([0., 2., 1.])
    """

    def __init__(self, variables: int, width: int | None = None) -> None:
        super().__init__()
        if variables < 2 or (width is not None and width < 1):
            raise ValueError(
                f"an order needs at least 2 variables and tokens of width at least 1; got variables {variables}, "
                f"width {width}"
            )
        self.x_dim = self.output_dim = variables
        self.likelihood = Order(variables)
        self.latent_shape = (variables, width or 1)
        self.score = None if width is None else nn.Sequential(nn.LayerNorm(width), mlp(width, 2 * width, 1))

    def scores(self, latent: Tensor) -> Tensor:
        """Return the score of each variable `[B, d]` under z `[B, d, W]`."""
        return (latent if self.score is None else self.score(latent))[..., 0]

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        """Return the log odds `[B, N, d]` at x `[B, N, d]` under z `[B, d, W]`."""
        scores = self.scores(latent)
        return x @ scores[..., None] - scores[:, None]

    def row_loss(self, batch: Batch, latent: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the loss of each row `[B, N]`, in nats."""
        return self.likelihood.row_loss(self(batch.x, latent), batch.y)

    def check(self, batch: Batch) -> None:
        """Raise ValueError where x or y has another width, or y is not floating point."""
        self.check_x(batch.x)
        self.likelihood.check(batch)
