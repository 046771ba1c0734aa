"""MAML and Meta-SGD: gradient descent whose start, and whose rates, are learnt through the steps themselves.

Source: Finn, Abbeel, Levine 2017, eq. 1 and algorithm 1; Li et al. 2017 (Meta-SGD), eq. 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from ..refiner import Capabilities, Refiner
from .gain import move
from .optimizers import seen_gradient

if TYPE_CHECKING:
    from ..batch import Batch
    from ..signal import StepInput


class MAMLState(NamedTuple):
    """Parameters.

    Fields: `theta [B, ...]`, like the latent; `rows [B]`: how many were seen.
    """

    theta: Tensor
    rows: Tensor


class MAML(Refiner):
    """`theta_{t+1} = theta_t - rate * d loss(batch_t, theta_t) / d theta_t`, theta_0 learnt; one step a mini-batch.

    The signal chooses the order. Under `SECOND_ORDER` the meta-gradient goes through the gradients (MAML); under
    `GRADIENTS` they are constants (first-order MAML). With a learnt rate for each parameter it is Meta-SGD. It is
    trained by `Unrolled`, because `Greedy` would show the start no step but the first.

    Args:
        start: `[...]`, where the learnt theta_0 starts.
        rate: one number, or one for each parameter, `[...]` like start.
        learnt_rate: whether it is meta-trained. A learnt rate may become negative, as in Meta-SGD.

    Raises:
        ValueError: a rate that is not positive and finite, or of another shape.

    Example:
        >>> import torch
        >>> from gradatim import Learner, LinearRegression
        >>> from gradatim.predictors import Network, SquaredError
        >>> from gradatim.refiners import MAML
        >>> from gradatim.signal import GRADIENTS, SECOND_ORDER
        >>> f = Network(3, SquaredError(), hidden=(8,))
        >>> maml = Learner(f, MAML(f.initial(), 0.1), SECOND_ORDER)
        >>> first_order = Learner(f, MAML(f.initial(), 0.1), GRADIENTS)
        >>> rates = torch.full(f.latent_shape, 0.1)
        >>> meta_sgd = Learner(f, MAML(f.initial(), rates, learnt_rate=True), SECOND_ORDER)
        >>> task = LinearRegression(3).sample(2, torch.Generator().manual_seed(0))
        >>> maml.adapt(task.support, 32).theta.shape
        torch.Size([2, 41])

    Source: Finn, Abbeel, Levine 2017, eq. 1; Li et al. 2017, eq. 3.
    """

    capabilities = Capabilities(greedy=False, weights=True)
    needs_gradients = True
    rate: Tensor | float

    def __init__(self, start: Tensor, rate: float | Tensor, learnt_rate: bool = False) -> None:
        super().__init__()
        rates = torch.as_tensor(rate, dtype=start.dtype, device=start.device)
        if rates.shape not in (torch.Size(), start.shape):
            raise ValueError(
                f"a rate is one number, or one for each parameter of shape {tuple(start.shape)}; got shape "
                f"{tuple(rates.shape)}: give a number, or torch.full_like(start, number)"
            )
        if not bool(((rates > 0) & rates.isfinite()).all()):
            raise ValueError(
                f"a rate is positive and finite; got {rates.min().item():g} to {rates.max().item():g}"
            )
        self.learnt_rate = learnt_rate
        self.start = nn.Parameter(start.detach().clone())
        if learnt_rate:
            self.rate = nn.Parameter(rates.clone())
        elif isinstance(rate, Tensor):
            self.register_buffer("rate", rates.clone())
        else:
            self.rate = rate

    def init(self, n_tasks: int, query: Batch | None = None) -> MAMLState:
        """Return the learnt start for `n_tasks` tasks that have seen no row."""
        theta = self.start.expand(n_tasks, *self.start.shape)
        return MAMLState(theta, theta.new_zeros(n_tasks))

    def step(self, state: MAMLState, step_input: StepInput) -> MAMLState:
        """Return the state after one step down the gradient."""
        gradient, seen = seen_gradient(step_input)
        theta = move(state.theta, state.theta - self.rate * gradient, seen)
        return MAMLState(theta, state.rows + step_input.rows.to(state.rows.dtype))

    def latent(self, state: MAMLState) -> Tensor:
        """Return theta `[B, ...]`."""
        return state.theta
