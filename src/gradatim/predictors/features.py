"""A linear head on learnt features. The head is the latent; all tasks share the features.

Source: Bertinetto et al. 2019 (R2-D2), eqs. 4-6; Harrison et al. 2018 (ALPaCA); Rahimi, Recht 2007, for the start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..predictor import Predictor

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..batch import Batch
    from ..likelihood import Likelihood

START = 4.0
"""Initial scale s: one-hot codes fitted by regression lie between 0 and 1, which is too flat for logits."""


class Features(Predictor):
    """A linear head theta `[B, C (D + 1)]` on D learnt features of x.

        f(x, theta) = s theta phi(x),   phi(x) = [sqrt(2 / D) relu(W x + b), 1]

    W, b and s are learnt. They start as random features: W ~ N(0, 1 / x_dim), b ~ N(0, 1 / 4). The scale s starts at
    4: it turns one-hot codes fitted by regression into logits. A regression needs none.

    Args:
        x_dim: width of x.
        likelihood: gives the number of outputs C and the loss.
        features: D.
        scaled: whether there is a scale s.
        skip: whether phi(x) begins with x.
        bias: whether phi(x) ends with 1.
        activation: in relu's place.

    Raises:
        ValueError: a size below 1.

    Example:
        >>> import torch
        >>> from gradatim.predictors import CrossEntropy, Features
        >>> f = Features(64, CrossEntropy(10), features=512)
        >>> f(torch.randn(2, 5, 64), torch.zeros(2, 5130)).shape
        torch.Size([2, 5, 10])

    Source: Bertinetto et al. 2019 (R2-D2), eqs. 4-6; Rahimi, Recht 2007 (random features).
    """

    def __init__(
        self,
        x_dim: int,
        likelihood: Likelihood,
        features: int = 512,
        scaled: bool = True,
        skip: bool = False,
        bias: bool = True,
        activation: Callable[[Tensor], Tensor] = torch.relu,
    ) -> None:
        super().__init__()
        if min(x_dim, features) < 1:
            raise ValueError(f"features need sizes of at least 1; got x_dim {x_dim}, features {features}")
        self.x_dim, self.likelihood = x_dim, likelihood
        self.output_dim = likelihood.output_dim
        self.skip, self.bias, self.activation = skip, bias, activation
        self.blocks = (x_dim,) * skip + (features,) + (1,) * bias
        self.latent_shape = (self.output_dim * sum(self.blocks),)
        self.first = nn.Linear(x_dim, features)
        nn.init.normal_(self.first.weight, std=x_dim**-0.5)
        nn.init.normal_(self.first.bias, std=0.5)
        self.log_scale = nn.Parameter(torch.tensor(START).log()) if scaled else None

    def inputs(self, x: Tensor, latent: Tensor) -> list[Tensor]:
        """Return phi(x) `[B, N, sum(blocks)]` at x `[B, N, x_dim]`: x with `skip`, D features, 1 with `bias`."""
        phi = self.activation(self.first(x)) * (2 / self.first.out_features) ** 0.5
        parts = [x] * self.skip + [phi] + [torch.ones_like(x[..., :1])] * self.bias
        return [torch.cat(parts, dim=-1)]

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        """Return outputs `[B, N, output_dim]` of heads theta `[B, S]` at x `[B, N, x_dim]`."""
        (phi,) = self.inputs(x, latent)
        outputs = phi @ latent.unflatten(1, (self.output_dim, -1)).mT
        return outputs if self.log_scale is None else self.log_scale.exp() * outputs

    def row_loss(self, batch: Batch, latent: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the likelihood's loss of each row, `[B, N]`."""
        return self.likelihood.row_loss(self(batch.x, latent), batch.y)

    def check(self, batch: Batch) -> None:
        """Raise ValueError where x has another width, or y cannot be scored."""
        self.check_x(batch.x)
        self.likelihood.check(batch)
