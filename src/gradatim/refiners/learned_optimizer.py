"""A learned optimizer: one small network moves every coordinate of the latent, given only its gradients.

Source: Andrychowicz et al. 2016, eq. 3 and appendix A; Metz et al. 2020 (2009.11243), section 3 and appendix B.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from ..nn.mlp import mlp
from ..refiner import Capabilities, Refiner
from .gain import DECAYING, Gain, LearntGain, move
from .optimizers import seen_gradient

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..batch import Batch
    from ..signal import StepInput

TINY = 1e-8
"""Added to the root mean square of a gradient, so that it can be divided by."""


class LearnedOptimizerState(NamedTuple):
    """Parameters and averages of their gradients.

    Fields: `theta [B, ...]`; `momenta [B, ..., K]`: the gradient averaged at K decays; `square [B, ...]`: its square
    averaged at the last of them; `steps [B]`: how many were taken; `rows [B]`: how many were seen.
    """

    theta: Tensor
    momenta: Tensor
    square: Tensor
    steps: Tensor
    rows: Tensor


def log_features(values: Tensor, span: float = 10.0) -> Tensor:
    """Return two features of each value, `[B, ..., 2]`: its size and its sign, both in [-1, 1] for values below 1.

        (log |v| / span, sign v)  where |v| >= exp(-span)
        (-1, exp(span) v)         where it is smaller

    Args:
        values: `[B, ...]`.
        span: values below exp(-span) count as small.

    Source: Andrychowicz et al. 2016, appendix A.

    Example:
        >>> import torch
        >>> from gradatim.refiners.learned_optimizer import log_features
        >>> log_features(torch.tensor([1.0, -1.0]))
        tensor([[ 0.,  1.],
                [ 0., -1.]])
    """
    size = values.abs().clamp(min=math.exp(-span)).log() / span
    return torch.stack([size, (math.exp(span) * values).clamp(-1, 1)], dim=-1)


class LearnedOptimizer(Refiner):
    """`theta_i = theta_i + g_t * rate * exp(s_i) * d_i,  (d_i, s_i) = mlp(features_i)`, the same mlp for all i.

    Features of a coordinate are:

    - size and sign (`log_features`) of theta, of its gradient, and of the gradient's averages m_k at `decays`;
    - `m_k / sqrt(v)`, with v the mean square at the slowest decay.

    Averages are corrected for their start at zero, as Adam's. No coordinate sees another, so an optimizer that was
    trained on one network moves any. g_t is the gain, and theta_0 is fixed, not learnt.

    Args:
        start: `[...]`, theta_0.
        width: of the two hidden layers.
        gain: how far a step moves, by rows.
        decays: of the averages, ascending.
        rate: where the learnt rate starts.

    Raises:
        ValueError: no decay, decays not ascending in [0, 1), a width below 1, or a rate not positive.

    Example:
        >>> import torch
        >>> from gradatim import Learner, LinearRegression
        >>> from gradatim.predictors import Network, SquaredError
        >>> from gradatim.refiners import LearnedOptimizer
        >>> from gradatim.signal import GRADIENTS
        >>> task = LinearRegression(3).sample(2, torch.Generator().manual_seed(0))
        >>> f = Network(3, SquaredError(), bias=False)
        >>> learner = Learner(f, LearnedOptimizer(f.initial()), GRADIENTS)
        >>> learner.adapt(task.support, 16).theta.shape
        torch.Size([2, 3])

    Source: Andrychowicz et al. 2016, eq. 3; Metz et al. 2020, section 3 (features).
    """

    capabilities = Capabilities(weights=True)
    needs_gradients = True
    start: Tensor

    def __init__(
        self,
        start: Tensor,
        width: int = 32,
        gain: Gain = DECAYING,
        decays: Sequence[float] = (0.5, 0.9, 0.99),
        rate: float = 0.1,
    ) -> None:
        super().__init__()
        fine = len(decays) > 0 and list(decays) == sorted(set(decays)) and 0 <= decays[0] and decays[-1] < 1
        if not (fine and width >= 1 and rate > 0):
            raise ValueError(
                "a learned optimizer needs ascending decays in [0, 1), width >= 1 and rate > 0; got decays "
                f"{tuple(decays)}, width {width}, rate {rate}"
            )
        self.decays = tuple(decays)
        self.register_buffer("start", start.detach().clone())
        self.gain = LearntGain(gain, tuple(start.shape)) if gain.learnt else gain
        self.log_rate = nn.Parameter(torch.tensor(math.log(rate)))
        self.network = mlp(2 * (2 + len(decays)) + len(decays), width, width, 2)

    def init(self, n_tasks: int, query: Batch | None = None) -> LearnedOptimizerState:
        """Return theta_0 of `n_tasks` tasks, with all averages zero."""
        theta = self.start.expand(n_tasks, *self.start.shape)
        momenta = theta.new_zeros(*theta.shape, len(self.decays))
        none = theta.new_zeros(n_tasks)
        return LearnedOptimizerState(theta, momenta, torch.zeros_like(theta), none, none)

    def step(self, state: LearnedOptimizerState, step_input: StepInput) -> LearnedOptimizerState:
        """Return the state after one step of every coordinate."""
        gradient, seen = seen_gradient(step_input)
        now, steps = step_input.rows.to(state.rows.dtype), state.steps + seen
        decays = gradient.new_tensor(self.decays)
        momenta = decays * state.momenta + (1 - decays) * gradient[..., None]
        square = decays[-1] * state.square + (1 - decays[-1]) * gradient.square()
        count = steps.clamp(min=1).reshape(-1, *[1] * gradient.dim())
        unbiased = momenta / (1 - decays**count)
        spread = (square / (1 - decays[-1] ** count[..., 0]) + TINY**2).sqrt()
        direction, size = self._features(state.theta, gradient, unbiased, spread).unbind(-1)
        target = state.theta + self.log_rate.exp() * size.clamp(-8, 4).exp() * direction
        return LearnedOptimizerState(
            move(state.theta, target, self.gain(now, state.rows)),
            move(state.momenta, momenta, seen),
            move(state.square, square, seen),
            steps,
            state.rows + now,
        )

    def latent(self, state: LearnedOptimizerState) -> Tensor:
        """Return theta `[B, ...]`."""
        return state.theta

    def _features(self, theta: Tensor, gradient: Tensor, momenta: Tensor, spread: Tensor) -> Tensor:
        """Return direction and log size `[B, ..., 2]` of every coordinate's step."""
        values = torch.cat([theta[..., None], gradient[..., None], momenta], dim=-1)
        features = [log_features(values).flatten(-2), momenta / spread[..., None]]
        return self.network(torch.cat(features, dim=-1))
