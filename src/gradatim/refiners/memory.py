"""MAML with a memory of its support: queries imitate what is remembered, so the support is read.

Source: after the idea of Zhao et al. 2022 (MemIML); the formulation is this project's own, see `MemoryImitation`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..refiner import Capabilities, Refiner
from .gain import move
from .maml import MAML, MAMLState

if TYPE_CHECKING:
    from ..batch import Batch
    from ..signal import StepInput


class MemoryState(NamedTuple):
    """Weights of a network, and rows that are remembered.

    Fields: `adapted`: the state of MAML; `x [B, M, Dx]`; `y [B, M, V]`, one-hot where it is a class; `present [B, M]`:
    1 at a remembered row, 0 at a free place, which holds zeros.
    """

    adapted: MAMLState
    x: Tensor
    y: Tensor
    present: Tensor


class MemoryImitation(Refiner):
    """MAML's step on the weights of a network, and a memory of representative rows of the support.

        theta_{t+1} = theta_t - rate * d loss(batch_t, theta_t) / d theta_t
        memory_{t+1} = representative rows of memory_t and batch_t

    The gradient is that of the network alone, as if nothing were remembered. The latent is theta and the memory in
    one flat vector; the predictor `Imitation` retrieves from it. Of more rows than there are places, those stay that
    are nearest to the mean of their class, the classes in turn; without classes, to the mean of all. A row that is in
    memory already is not added again, so a support may be gone through several times.

    Args:
        start: `[S]`, where the learnt theta_0 starts.
        rate: the learning rate, one number.
        x_dim: the width of x.
        values: the width of y, or the number of classes.
        classes: whether y is a class index.
        kept_rows: M, the largest number of rows that are remembered.

    Raises:
        ValueError: a rate that is not positive and finite, a size below 1.

    Example:
        >>> import torch
        >>> from gradatim import Learner, LinearRegression, Signal
        >>> from gradatim.predictors import Imitation, SquaredError
        >>> from gradatim.refiners import MemoryImitation
        >>> f = Imitation(3, SquaredError(), hidden=(8,), kept_rows=20)
        >>> refiner = MemoryImitation(f.network.initial(), 0.1, 3, 1, kept_rows=20)
        >>> learner = Learner(f, refiner, Signal(gradients=True, outputs=False, keep_graph=True))
        >>> task = LinearRegression(3).sample(2, torch.Generator().manual_seed(0))
        >>> learner.adapt(task.support, 32).present.sum(1)
        tensor([20., 20.])

    Source: after the idea of Zhao et al. 2022. Only their abstract is known to us: an imitation module with a memory
    of representative rows and a value predictor that is adapted in the neighbourhood of each query.
    """

    capabilities = Capabilities(greedy=False)
    needs_observations = True
    needs_gradients = True
    keeps_rows = True

    def __init__(
        self,
        start: Tensor,
        rate: float,
        x_dim: int,
        values: int,
        classes: bool = False,
        kept_rows: int = 64,
    ) -> None:
        super().__init__()
        if min(x_dim, values, kept_rows) < 1:
            raise ValueError(
                f"a memory needs sizes of at least 1; got x_dim {x_dim}, values {values}, kept_rows {kept_rows}"
            )
        self.maml = MAML(start, rate)
        self.x_dim, self.values, self.classes, self.kept_rows = x_dim, values, classes, kept_rows

    def init(self, n_tasks: int, query: Batch | None = None) -> MemoryState:
        """Return the learnt start and an empty memory for `n_tasks` tasks."""
        adapted = self.maml.init(n_tasks)
        assert isinstance(adapted, MAMLState)
        like = self.maml.start
        places = n_tasks, self.kept_rows
        return MemoryState(
            adapted,
            like.new_zeros(*places, self.x_dim),
            like.new_zeros(*places, self.values),
            like.new_zeros(*places),
        )

    def step(self, state: MemoryState, step_input: StepInput) -> MemoryState:
        """Return the state after one step of the network, with the mini-batch remembered."""
        batch, gradient = step_input.batch, step_input.gradient
        if batch is None or gradient is None:
            raise ValueError("memory imitation needs rows and gradients; got a signal without: use BOTH")
        size = self.maml.start.numel()
        adapted = self.maml.step(state.adapted, step_input._replace(gradient=gradient[:, :size]))
        assert isinstance(adapted, MAMLState)
        y = F.one_hot(batch.y[..., 0], self.values).to(batch.x.dtype) if self.classes else batch.y
        fresh = batch.mask & ~_remembered(state, batch.x, y)
        whole = torch.cat([state.present, fresh.to(state.present.dtype)], 1)
        parts = torch.cat([state.x, batch.x], 1), torch.cat([state.y, y], 1), whole
        order = self._order(*parts)[:, : self.kept_rows]
        places = torch.arange(len(order), device=order.device)[:, None], order
        x, y, present = (part[places] for part in parts)
        mask, new = present[..., None], fresh.any(1)
        return MemoryState(
            adapted,
            move(state.x, x * mask, new),
            move(state.y, y * mask, new),
            move(state.present, present, new),
        )

    def _order(self, x: Tensor, y: Tensor, present: Tensor) -> Tensor:
        """Return the places `[B, N]` of rows, the most representative first, absent ones last."""
        as_they_came = (1 - present).argsort(dim=1, stable=True)
        fits = present.sum(1, keepdim=True) <= self.kept_rows
        if bool(fits.all()):
            return as_they_came
        groups = (y if self.classes else torch.ones_like(y[..., :1])) * present[..., None]
        means = groups.mT @ x / groups.sum(1)[..., None].clamp(min=1)
        apart = (x - groups @ means).square().sum(-1)
        nearer = (apart[:, None] < apart[..., None]) * present[:, None]
        rank = (nearer * (groups @ groups.mT)).sum(-1)
        share = apart / apart.amax(1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny) / 2
        score = torch.where(present > 0, rank + share, torch.inf)
        return torch.where(fits, as_they_came, score.argsort(dim=1, stable=True))

    def latent(self, state: MemoryState) -> Tensor:
        """Return theta and the memory, `[B, S + M (Dx + V + 1)]`."""
        parts = state.x, state.y, state.present
        return torch.cat([state.adapted.theta, *(part.flatten(1) for part in parts)], dim=1)

    def linearization_point(self, state: MemoryState) -> Tensor:
        """Return theta and an empty memory, `[B, S + M (Dx + V + 1)]`."""
        theta = state.adapted.theta
        return F.pad(theta, (0, self.kept_rows * (self.x_dim + self.values + 1)))


def _remembered(state: MemoryState, x: Tensor, y: Tensor) -> Tensor:
    """Return which rows x `[B, N, Dx]`, y `[B, N, V]` are in memory, `[B, N]`."""
    rows, memory = torch.cat([x, y], 2), torch.cat([state.x, state.y], 2)
    same = (rows[:, :, None] == memory[:, None]).all(-1)
    return (same & (state.present > 0)[:, None]).any(-1)
