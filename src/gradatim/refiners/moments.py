"""States that carry what they know: sufficient statistics, updated exactly, read out in closed form.

Source: Hoerl, Kennard 1970, eq. 2.1 (ridge); Bishop 2006, eqs. 3.50-3.51 (its posterior mean).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..refiner import Capabilities, Refiner

if TYPE_CHECKING:
    from ..batch import Batch
    from ..signal import Evidence


class MomentsState(NamedTuple):
    """`gram [B, D, D]` = sum of x x', `cross [B, D, C]` = sum of x y', `rows [B]`."""

    gram: Tensor
    cross: Tensor
    rows: Tensor


class Ridge(Refiner):
    """`theta = (G + strength I)^-1 M`, G and M summed over all rows seen: exact, additive, nothing learnt.

    The latent is a linear predictor's flat theta `[B, C (D + bias)]`, one row of weights for each output; the bias is
    penalised like a weight. Classes are regressed one-hot.

    Args: `x_dim`; `outputs` C; `classes`: whether y is a class index; `strength` of the prior, in units of noise
    variance over prior variance; `bias`.

    Raises:
        ValueError: strength not positive.

    Example:
        >>> learner = Learner(Network(8, SquaredError(), bias=False), Ridge(8, 1, strength=0.25), OBSERVATIONS)
    """

    capabilities = Capabilities(mergeable=True, learnt=False)
    needs_observations = True
    like: Tensor

    def __init__(
        self, x_dim: int, outputs: int, strength: float, classes: bool = False, bias: bool = False
    ) -> None:
        super().__init__()
        if not strength > 0:
            raise ValueError(f"ridge needs strength > 0; got {strength}")
        self.width, self.outputs, self.strength = x_dim + bias, outputs, strength
        self.classes, self.bias = classes, bias
        self.register_buffer("like", torch.zeros(()))

    def init(self, n_tasks: int, query: Batch | None = None) -> MomentsState:
        """Return the statistics of no rows."""
        zeros = torch.zeros(n_tasks, self.width, self.width, dtype=torch.float64, device=self.like.device)
        return MomentsState(
            zeros, zeros.new_zeros(n_tasks, self.width, self.outputs), zeros.new_zeros(n_tasks)
        )

    def step(self, state: MomentsState, evidence: Evidence) -> MomentsState:
        """Return the statistics with one more mini-batch added."""
        if evidence.batch is None:
            raise ValueError("ridge needs observations; got a signal without them")
        batch = evidence.batch
        x = batch.x.double()
        if self.bias:
            x = torch.cat([x, torch.ones_like(x[..., :1])], dim=-1)
        x = x * batch.mask[..., None]
        y = torch.nn.functional.one_hot(batch.y[..., 0], self.outputs) if self.classes else batch.y
        return MomentsState(
            state.gram + x.mT @ x, state.cross + x.mT @ y.double(), state.rows + evidence.rows
        )

    def read(self, state: MomentsState) -> Tensor:
        """Return theta, solved in float64, in the module's dtype."""
        prior = self.strength * torch.eye(self.width, dtype=torch.float64, device=state.gram.device)
        factor = torch.linalg.cholesky(state.gram + prior)
        return torch.cholesky_solve(state.cross, factor).mT.flatten(1).to(self.like.dtype)
