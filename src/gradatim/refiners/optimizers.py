"""SGD, momentum, Adam and a damped Newton step: one step for each mini-batch, nothing is learnt.

Source: Robbins, Monro 1951; Polyak 1964; Kingma, Ba 2015, algorithm 1; Martens, Grosse 2015, section 6.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..refiner import Capabilities, Refiner
from .curvature import natural, second_moments
from .gain import DECAYING, Gain, move

if TYPE_CHECKING:
    from ..batch import Batch
    from ..signal import StepInput


class _Optimizer(Refiner):
    """A refiner that sees gradients and starts from a fixed latent."""

    capabilities = Capabilities(learnt=False, weights=True)
    needs_gradients = True
    start: Tensor

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.register_buffer("start", start.clone())

    def _begin(self, n_tasks: int) -> Tensor:
        return self.start.expand(n_tasks, *self.start.shape)


def seen_gradient(step_input: StepInput) -> tuple[Tensor, Tensor]:
    """Return the gradient `[B, ...]`, and `[B]` with 1 where a task has rows in the mini-batch, 0 elsewhere.

    Raises:
        ValueError: a signal without gradients.
    """
    if step_input.gradient is None:
        raise ValueError("an optimizer needs gradients; got a signal without them: use GRADIENTS")
    return step_input.gradient, (step_input.rows > 0).to(step_input.gradient.dtype)


class MomentumState(NamedTuple):
    """Parameters and their velocity.

    Fields: `theta [B, S]`; `velocity [B, S]`; `steps [B]`: how many were taken.
    """

    theta: Tensor
    velocity: Tensor
    steps: Tensor


class SGD(_Optimizer):
    """`v = momentum v + gradient;  theta = theta - lr * decay_t * v`, as torch.optim.SGD.

    Args:
        start: `[S]`, theta_0.
        lr: the learning rate.
        momentum: in [0, 1).
        decay: a gain that scales lr by the steps taken. None: lr is constant.

    Raises:
        ValueError: lr not positive, momentum outside [0, 1); in a step, a signal without gradients.

    Example:
        >>> import torch
        >>> from gradatim import Learner, LinearRegression
        >>> from gradatim.predictors import Network, SquaredError
        >>> from gradatim.refiners import SGD
        >>> from gradatim.signal import GRADIENTS
        >>> task = LinearRegression(3).sample(2, torch.Generator().manual_seed(0))
        >>> f = Network(3, SquaredError(), bias=False)
        >>> learner = Learner(f, SGD(f.initial(), lr=0.1, momentum=0.5), GRADIENTS)
        >>> learner.adapt(task.support, 16).steps
        tensor([10., 10.])

    Source: Robbins, Monro 1951; Polyak 1964.
    """

    def __init__(self, start: Tensor, lr: float, momentum: float = 0.0, decay: Gain | None = None) -> None:
        super().__init__(start)
        if not (lr > 0 and 0 <= momentum < 1):
            raise ValueError(f"SGD needs lr > 0 and momentum in [0, 1); got lr {lr}, momentum {momentum}")
        self.lr, self.momentum, self.decay = lr, momentum, decay

    def init(self, n_tasks: int, query: Batch | None = None) -> MomentumState:
        """Return theta_0 of `n_tasks` tasks, with velocity zero."""
        theta = self._begin(n_tasks)
        return MomentumState(theta, torch.zeros_like(theta), theta.new_zeros(n_tasks))

    def step(self, state: MomentumState, step_input: StepInput) -> MomentumState:
        """Return the state after one step down the gradient."""
        gradient, seen = seen_gradient(step_input)
        velocity = self.momentum * state.velocity + gradient
        rate = self.lr * (seen if self.decay is None else self.decay(seen, state.steps))
        theta = state.theta - rate.reshape(-1, *[1] * (gradient.dim() - 1)) * velocity
        return MomentumState(
            move(state.theta, theta, seen), move(state.velocity, velocity, seen), state.steps + seen
        )

    def latent(self, state: MomentumState) -> Tensor:
        """Return theta `[B, S]`."""
        return state.theta


class AdamState(NamedTuple):
    """Parameters and moments of their gradients.

    Fields: `theta [B, S]`; `first [B, S]`, `second [B, S]`: moments of the gradient; `steps [B]`: how many were taken.
    """

    theta: Tensor
    first: Tensor
    second: Tensor
    steps: Tensor


class Adam(_Optimizer):
    """`theta = theta - lr * m_hat / (sqrt(v_hat) + eps)`, as torch.optim.Adam.

    Args:
        start: `[S]`, theta_0.
        lr: the learning rate.
        betas: decays of the two moments, in [0, 1).
        eps: added to the denominator.

    Raises:
        ValueError: lr not positive, betas outside [0, 1); in a step, a signal without gradients.

    Example:
        >>> import torch
        >>> from gradatim import Learner, LinearRegression
        >>> from gradatim.predictors import Network, SquaredError
        >>> from gradatim.refiners import Adam
        >>> from gradatim.signal import GRADIENTS
        >>> task = LinearRegression(3).sample(2, torch.Generator().manual_seed(0))
        >>> f = Network(3, SquaredError(), bias=False)
        >>> learner = Learner(f, Adam(f.initial(), lr=0.1), GRADIENTS)
        >>> learner.adapt(task.support, 16).theta.shape
        torch.Size([2, 3])

    Source: Kingma, Ba 2015, algorithm 1.
    """

    def __init__(
        self, start: Tensor, lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        super().__init__(start)
        if not (lr > 0 and all(0 <= beta < 1 for beta in betas)):
            raise ValueError(f"Adam needs lr > 0 and betas in [0, 1); got lr {lr}, betas {betas}")
        self.lr, self.betas, self.eps = lr, betas, eps

    def init(self, n_tasks: int, query: Batch | None = None) -> AdamState:
        """Return theta_0 of `n_tasks` tasks, with both moments zero."""
        theta = self._begin(n_tasks)
        return AdamState(theta, torch.zeros_like(theta), torch.zeros_like(theta), theta.new_zeros(n_tasks))

    def step(self, state: AdamState, step_input: StepInput) -> AdamState:
        """Return the state after one step of Adam."""
        gradient, seen = seen_gradient(step_input)
        beta1, beta2 = self.betas
        steps = state.steps + seen
        count = steps.clamp(min=1).reshape(-1, *[1] * (gradient.dim() - 1))
        first = beta1 * state.first + (1 - beta1) * gradient
        second = beta2 * state.second + (1 - beta2) * gradient.square()
        scale = (second / (1 - beta2**count)).sqrt() + self.eps
        theta = state.theta - self.lr * first / (1 - beta1**count) / scale
        return AdamState(
            move(state.theta, theta, seen),
            move(state.first, first, seen),
            move(state.second, second, seen),
            steps,
        )

    def latent(self, state: AdamState) -> Tensor:
        """Return theta `[B, S]`."""
        return state.theta


class NewtonState(NamedTuple):
    """Parameters and their curvature.

    Fields: `theta [B, S]`; `curvature [B, Q]`: second moments of what multiplies each weight matrix; `rows [B]`: how
    many were seen.
    """

    theta: Tensor
    curvature: Tensor
    rows: Tensor


class Newton(_Optimizer):
    """`theta = theta - lr * decay_t * G (A + damping tr(A) / width I)^-1` for each weight matrix, G its gradient.

    A are the second moments of what multiplies the matrix, over all rows seen. A transformer refiner sees the same
    direction through `TransformerConfig.curvature`.

    Args:
        start: `[S]`, theta_0.
        shapes: (rows, width) of the weight matrices.
        lr: the learning rate.
        damping: in units of the mean of A's diagonal.
        power: of the gain that scales lr by rows.

    Raises:
        ValueError: lr or damping not positive; in a step, a signal without gradients or inputs.

    Example:
        >>> import torch
        >>> from gradatim import Learner, LinearRegression
        >>> from gradatim.predictors import Network, SquaredError
        >>> from gradatim.refiners import Newton
        >>> from gradatim.signal import Signal
        >>> task = LinearRegression(3).sample(2, torch.Generator().manual_seed(0))
        >>> f = Network(3, SquaredError(), bias=False)
        >>> signal = Signal(observations=False, gradients=True, inputs=True)
        >>> learner = Learner(f, Newton(f.initial(), f.layout.shapes, lr=0.5), signal)
        >>> learner.adapt(task.support, 16).theta.shape
        torch.Size([2, 3])

    Source: Martens, Grosse 2015, section 6.2, the input factor alone.
    """

    needs_inputs = True

    def __init__(
        self,
        start: Tensor,
        shapes: tuple[tuple[int, int], ...],
        lr: float,
        damping: float = 1.0,
        power: float = 1.0,
    ) -> None:
        super().__init__(start)
        if not (lr > 0 and damping > 0):
            raise ValueError(f"Newton needs lr > 0 and damping > 0; got lr {lr}, damping {damping}")
        self.shapes, self.lr, self.damping, self.power = shapes, lr, damping, power
        self.decay = Gain(power)

    def init(self, n_tasks: int, query: Batch | None = None) -> NewtonState:
        """Return theta_0 of `n_tasks` tasks, with no curvature."""
        theta = self._begin(n_tasks)
        size = sum(width * width for _, width in self.shapes)
        return NewtonState(theta, theta.new_zeros(n_tasks, size), theta.new_zeros(n_tasks))

    def step(self, state: NewtonState, step_input: StepInput) -> NewtonState:
        """Return the state after one damped Newton step.

        Raises:
            ValueError: a signal without gradients or inputs.
        """
        gradient, _ = seen_gradient(step_input)
        if step_input.inputs is None:
            raise ValueError("Newton needs the rows' inputs; got a signal without them: set inputs=True")
        now = step_input.rows.to(gradient.dtype)
        moments = second_moments(step_input.inputs, now, step_input.weight)
        curvature = move(state.curvature, moments, DECAYING(now, state.rows))
        step = self.lr * natural(gradient, curvature, self.shapes, [self.damping] * len(self.shapes))
        theta = move(state.theta, state.theta - step, self.decay(now, state.rows))
        return NewtonState(theta, curvature, state.rows + now)

    def latent(self, state: NewtonState) -> Tensor:
        """Return theta `[B, S]`."""
        return state.theta
