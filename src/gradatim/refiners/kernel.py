"""Kernel regression: the average of y at a query, weighted by a kernel; nothing is learnt.

Source: Nadaraya 1964, eq. 2; Watson 1964; of points: Rosenblatt 1956, eq. 1.3 (their density), Lipman et al. 2023,
eqs. 8 and 22 (its velocity).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..refiner import Capabilities, Refiner
from .gain import positive
from .in_context import flow_scores, flow_velocity
from .neural_processes import AttentionState, attended, rows_of, unattended

if TYPE_CHECKING:
    from ..batch import Batch
    from ..signal import StepInput


class Kernel(Refiner):
    """`m(x) = sum_n softmax_n(-|x - x_n|^2 / 2 h^2) y_n` over all rows seen, y one-hot where it is a class.

    Of rows of flow matching it is the velocity of the flow to the points' kernel density: `FlowVote` of all rows.
    Numerator and denominator of the softmax are running sums for every query. So mini-batches give the same as one pass
    over all rows, and no row is stored.

    Args:
        width: h of the kernel, in units of x, or of points.
        outputs: width of y, or the number of classes.
        classes: whether y is a class index.
        flow: whether rows are those of flow matching.

    Raises:
        ValueError: a width that is not positive; in `init`, no query, or one of other tasks.

    Example:
        >>> import torch
        >>> from gradatim import Learner, LinearRegression
        >>> from gradatim.predictors import Readout, SquaredError
        >>> from gradatim.refiners import Kernel
        >>> from gradatim.signal import PLAIN
        >>> task = LinearRegression(3).sample(2, torch.Generator().manual_seed(0))
        >>> learner = Learner(Readout(SquaredError(1), x_dim=3), Kernel(1.0, 1), PLAIN)
        >>> state = learner.adapt(task.support, 32, task.query)
        >>> learner.predict(task.query.x, state).shape
        torch.Size([2, 64, 1])

    Source: Nadaraya 1964, eq. 2; Watson 1964; Lipman et al. 2023, eqs. 8 and 22.
    """

    capabilities = Capabilities(per_query=True, weights=True, learnt=False)
    needs_observations = True
    width: Tensor

    def __init__(self, width: float, outputs: int, classes: bool = False, flow: bool = False) -> None:
        super().__init__()
        if not width > 0:
            raise ValueError(f"a kernel needs width > 0; got {width}")
        self.outputs, self.classes, self.flow = outputs, classes, flow
        self.register_buffer("width", torch.tensor(width))

    def init(self, n_tasks: int, query: Batch | None = None) -> AttentionState:
        """Return sums of no rows, for every query row of `query.x [n_tasks, Nq, Dx]`."""
        return unattended(n_tasks, query, 1, self.outputs)

    def step(self, state: AttentionState, step_input: StepInput) -> AttentionState:
        """Return the sums with one more mini-batch."""
        batch = rows_of(step_input)
        if self.flow:
            scores, values = flow_scores(state.x, batch, self.width)
        else:
            near = state.x @ batch.x.mT - batch.x.square().sum(-1)[:, None] / 2
            scores = near / self.width.square()
            values = F.one_hot(batch.y[..., 0], self.outputs).to(scores.dtype) if self.classes else batch.y
        return attended(state, scores[:, :, None], values[:, :, None], step_input)

    def serves(self, state: AttentionState, x: Tensor) -> bool:
        """Return whether x `[B, Nq, Dx]` are the queries of the state."""
        return torch.equal(state.x, x)

    def latent(self, state: AttentionState) -> Tensor:
        """Return the average at every query row, `[B, Nq, outputs]`; of flow matching, the velocity there."""
        mean = (state.values / positive(state.weights)[..., None]).squeeze(-2)
        return flow_velocity(state.x, mean, self.width) if self.flow else mean
