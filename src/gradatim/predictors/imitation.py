"""Parametric f with a memory: a network's answer mixed with what rows in memory say of the query.

Source: after the idea of Zhao et al. 2022 (MemIML); locally weighted ridge regression: Cleveland, Devlin 1988.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nn.encoders import encoder as make_encoder
from ..predictor import Predictor
from .network import Network

if TYPE_CHECKING:
    from ..batch import Batch
    from ..likelihood import Likelihood

SCALE = 8.0
"""Where the scale starts that turns remembered shares of classes into logits."""


class Imitation(Predictor):
    """A network theta, and a value predictor on the rows in memory that is fitted anew for each query.

        f(x) = (1 - share) network_theta(x) + share * scale * W_x k(x),   k(x) = [encoder(x) / |encoder(x)|, 1]
        W_x = argmin_W sum_m a_m(x) |W k(x_m) - v_m|^2 + mu |W|^2,   a_m(x) = exp(-|k(x) - k(x_m)|^2 / h)

    Encoder, mu, h and, of classes, the scale are learnt from all tasks. W_x is of one query: the value predictor is
    global in its keys and local in its weights. v_m is y; of classes, one-hot codes less their mean. With nothing in
    memory f is the network.

    Args:
        x_dim: the width of x.
        likelihood: gives the number of outputs and the loss.
        hidden: widths of the network's hidden layers.
        encoder: how x becomes keys: `linear`, `network` or `tanh`.
        keys: the width of a key.
        width: units of the encoder's hidden layers.
        kept_rows: M, the places of the memory.
        share: of the memory in an answer, 0 to 1. At 0 it is the network alone, at 1 the memory alone.

    Raises:
        ValueError: a size below 1, a share outside 0 .. 1, an unknown encoder.

    Example:
        >>> import torch
        >>> from gradatim.predictors import Imitation, SquaredError
        >>> f = Imitation(3, SquaredError(), hidden=(8,), kept_rows=20)
        >>> f.latent_shape
        (141,)
        >>> f(torch.ones(2, 5, 3), torch.zeros(2, 141)).shape
        torch.Size([2, 5, 1])

    Source: after the idea of Zhao et al. 2022; Cleveland, Devlin 1988, section 2.
    """

    def __init__(
        self,
        x_dim: int,
        likelihood: Likelihood,
        hidden: tuple[int, ...] = (),
        encoder: Literal["linear", "network", "tanh"] = "linear",
        keys: int = 64,
        width: int = 64,
        kept_rows: int = 64,
        share: float = 0.5,
    ) -> None:
        super().__init__()
        if kept_rows < 1 or not 0 <= share <= 1:
            raise ValueError(
                f"a memory has at least 1 place and a share of 0 to 1; got kept_rows {kept_rows}, share {share}"
            )
        self.network = Network(x_dim, likelihood, hidden)
        self.encoder = make_encoder(encoder, x_dim, keys, width)
        self.likelihood, self.x_dim, self.output_dim = likelihood, x_dim, likelihood.output_dim
        self.kept_rows, self.share = kept_rows, share
        self.sizes = (
            self.network.layout.size,
            *(kept_rows * part for part in (x_dim, self.output_dim, 1)),
        )
        self.latent_shape = (sum(self.sizes),)
        self.log_mu = nn.Parameter(torch.tensor(math.log(0.1)))
        self.log_h = nn.Parameter(torch.tensor(0.0))
        self.log_scale = None if likelihood.classes is None else nn.Parameter(torch.tensor(math.log(SCALE)))

    def initial(self, generator: torch.Generator | None = None) -> Tensor:
        """Return the network's initial theta and an empty memory, `[S + M (Dx + V + 1)]`."""
        return F.pad(self.network.initial(generator), (0, sum(self.sizes[1:])))

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        """Return outputs `[B, N, output_dim]` at x `[B, N, x_dim]`."""
        theta, *memory = latent.split(self.sizes, dim=1)
        present = memory[2]
        if self.share == 0 or not bool((present > 0).any()):
            return self.network(x, theta)
        remembered = self.remembered(x, *(part.unflatten(1, (self.kept_rows, -1)) for part in memory))
        if self.share == 1:
            mixed = remembered
        else:
            mixed = (1 - self.share) * self.network(x, theta) + self.share * remembered
        empty = (present > 0).any(1)[:, None, None]
        return torch.where(empty, mixed, self.network(x, theta)) if not bool(empty.all()) else mixed

    def remembered(self, x: Tensor, rows: Tensor, values: Tensor, present: Tensor) -> Tensor:
        """Return what memory says at x `[B, N, x_dim]`: `[B, N, V]`, of classes logits.

        Args:
            x: the queries.
            rows: remembered x `[B, M, x_dim]`.
            values: their y `[B, M, V]`.
            present: `[B, M, 1]`, 1 at a remembered row.
        """
        keys, at = self.keys(rows), self.keys(x)
        if self.log_scale is not None:
            values = values - 1 / self.output_dim
        gram, across = keys @ keys.mT, at @ keys.mT
        # the roots of a_m, [B, N, M]: |k - k'|^2 = 4 - 2 k'k, and absent rows are rows of zeros
        weight = ((across - 2) / self.log_h.exp()).exp() * present.mT
        system = weight[..., None] * gram[:, None] * weight[..., None, :]
        eye = torch.eye(gram.shape[1], dtype=x.dtype, device=x.device)
        factor = torch.linalg.cholesky(system + self.log_mu.exp() * eye)
        dual = torch.cholesky_solve((across * weight)[..., None], factor)[..., 0] * weight
        answer = dual @ values
        return answer if self.log_scale is None else self.log_scale.exp() * answer

    def keys(self, x: Tensor) -> Tensor:
        """Return keys `[B, N, K + 1]` of length 1, and a 1, at x `[B, N, x_dim]`."""
        keys = F.normalize(self.encoder(x), dim=-1)
        return torch.cat([keys, torch.ones_like(keys[..., :1])], dim=-1)

    def row_loss(self, batch: Batch, latent: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the likelihood's loss of each row, `[B, N]`."""
        return self.likelihood.row_loss(self(batch.x, latent), batch.y)

    def check(self, batch: Batch) -> None:
        """Raise ValueError where x has another width, or y cannot be scored."""
        self.check_x(batch.x)
        self.likelihood.check(batch)
