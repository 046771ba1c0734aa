"""States that carry what they know: sufficient statistics, updated exactly, read out in closed form.

Source: Hoerl, Kennard 1970, eq. 2.1 (ridge); Bishop 2006, eqs. 3.50-3.51 (its posterior mean).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

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
    """`theta = (G + strength I)^-1 M`, G and M summed over all rows seen: exact, additive.

    The latent is the flat theta `[B, C width]` of a linear layer, one row of weights for each output; a bias is
    penalised like a weight. What multiplies it comes as the signal's inputs: x, or features of it. Classes are
    regressed one-hot.

    Args: `width` of the inputs, a bias's 1 included; `outputs` C; `strength` of the prior, in units of noise variance
    over prior variance; `classes`: whether y is a class index; `learnt`: whether the strength is meta-trained, and the
    features with it: then the statistics stay in the module's dtype, else they are kept in float64.

    Raises:
        ValueError: strength not positive.

    Example:
        >>> learner = Learner(Network(8, SquaredError(), bias=False), Ridge(8, 1, strength=0.25), CLOSED_FORM)

    Source: Hoerl, Kennard 1970, eq. 2.1; learnt: Bertinetto et al. 2019, eq. 4.
    """

    needs_observations = True
    needs_inputs = True
    like: Tensor

    def __init__(
        self, width: int, outputs: int, strength: float, classes: bool = False, learnt: bool = False
    ) -> None:
        super().__init__()
        if not strength > 0:
            raise ValueError(f"ridge needs strength > 0; got {strength}")
        self.width, self.outputs, self.classes, self.learnt = width, outputs, classes, learnt
        self.capabilities = Capabilities(mergeable=True, learnt=learnt, greedy=not learnt)
        self.strength = strength
        self.log_scale = nn.Parameter(torch.zeros(())) if learnt else None
        self.register_buffer("like", torch.zeros(()))

    def init(self, n_tasks: int, query: Batch | None = None) -> MomentsState:
        """Return the statistics of no rows."""
        dtype = self.like.dtype if self.learnt else torch.float64
        zeros = torch.zeros(n_tasks, self.width, self.width, dtype=dtype, device=self.like.device)
        return MomentsState(
            zeros, zeros.new_zeros(n_tasks, self.width, self.outputs), zeros.new_zeros(n_tasks)
        )

    def step(self, state: MomentsState, evidence: Evidence) -> MomentsState:
        """Return the statistics with one more mini-batch added."""
        if evidence.batch is None or evidence.inputs is None:
            raise ValueError(
                "ridge needs observations and inputs; got a signal without them: use CLOSED_FORM"
            )
        (a,), y = (part.to(state.gram) for part in evidence.inputs), evidence.batch.y
        if self.classes:
            y = torch.nn.functional.one_hot(y[..., 0], self.outputs)
        return MomentsState(state.gram + a.mT @ a, state.cross + a.mT @ y.to(a), state.rows + evidence.rows)

    def read(self, state: MomentsState) -> Tensor:
        """Return theta in the module's dtype."""
        prior = self.strength * torch.eye(self.width, dtype=state.gram.dtype, device=state.gram.device)
        if self.log_scale is not None:
            prior = self.log_scale.exp() * prior
        factor = torch.linalg.cholesky(state.gram + prior)
        return torch.cholesky_solve(state.cross, factor).mT.flatten(1).to(self.like)
