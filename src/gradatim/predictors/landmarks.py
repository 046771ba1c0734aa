"""A linear head on radial basis functions around landmarks. The head is the latent.

Source: Broomhead, Lowe 1988, eq. 3 (radial basis functions); Williams, Seeger 2001 (rows as centres).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..predictor import Predictor

if TYPE_CHECKING:
    from ..batch import Batch
    from ..likelihood import Likelihood


class Landmarks(Predictor):
    """A linear head theta `[B, C (Dx + K + 1)]` on x and on radial basis functions around K landmarks.

        f(x, theta) = theta phi(x),   phi(x) = [x, s_k exp(-|x - c_k|^2 / (spread Dx)), 1]

    The scales s_k give every radial feature mean square 1 on `rows`.

    Args:
        centres: the landmarks c_k `[K, Dx]`, for example rows of other tasks.
        rows: standardised rows `[n, Dx]` that set the scales.
        likelihood: gives the number of outputs C and the loss.
        spread: squared width of the radial functions, in units of Dx.

    Raises:
        ValueError: no centres or rows, widths that differ, spread not positive.

    Example:
        >>> import torch
        >>> from gradatim.predictors import CrossEntropy, Landmarks
        >>> x = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
        >>> f = Landmarks(centres=x[:20], rows=x, likelihood=CrossEntropy(3))
        >>> f.latent_shape
        (75,)
        >>> f(x[None], torch.zeros(1, 75)).shape
        torch.Size([1, 200, 3])

    Source: Broomhead, Lowe 1988, eq. 3; Williams, Seeger 2001 (rows as centres).
    """

    centres: Tensor
    scale: Tensor

    def __init__(self, centres: Tensor, rows: Tensor, likelihood: Likelihood, spread: float = 1.0) -> None:
        super().__init__()
        if centres.dim() != 2 or centres.shape[1:] != rows.shape[1:] or 0 in (*centres.shape, *rows.shape):
            raise ValueError(
                "landmarks need centres [K, Dx] and rows [n, Dx] of one width, at least one of each; got "
                f"{tuple(centres.shape)} and {tuple(rows.shape)}"
            )
        if not spread > 0:
            raise ValueError(f"landmarks need spread > 0; got {spread}")
        self.x_dim, self.likelihood, self.spread = centres.shape[1], likelihood, spread
        self.output_dim = likelihood.output_dim
        self.blocks = (self.x_dim, len(centres), 1)
        self.latent_shape = (self.output_dim * sum(self.blocks),)
        self.register_buffer("centres", centres.clone())
        self.register_buffer("scale", torch.ones(len(centres), dtype=centres.dtype))
        self.scale = self._radial(rows).square().mean(0).clamp(min=1e-12).rsqrt()

    def inputs(self, x: Tensor, latent: Tensor) -> list[Tensor]:
        """Return phi(x) `[B, N, Dx + K + 1]` at x `[B, N, Dx]`."""
        return [torch.cat([x, self._radial(x) * self.scale, torch.ones_like(x[..., :1])], dim=-1)]

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        """Return outputs `[B, N, output_dim]` of heads theta `[B, S]` at x `[B, N, x_dim]`."""
        (phi,) = self.inputs(x, latent)
        return phi @ latent.unflatten(1, (self.output_dim, -1)).mT

    def row_loss(self, batch: Batch, latent: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the likelihood's loss of each row, `[B, N]`."""
        return self.likelihood.row_loss(self(batch.x, latent), batch.y)

    def check(self, batch: Batch) -> None:
        """Raise ValueError where x has another width, or y cannot be scored."""
        self.check_x(batch.x)
        self.likelihood.check(batch)

    def _radial(self, x: Tensor) -> Tensor:
        """Return the radial functions `[..., K]` at x `[..., Dx]`, not scaled."""
        return (-torch.cdist(x, self.centres).square() / (self.spread * x.shape[-1])).exp()
