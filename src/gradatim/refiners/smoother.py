"""Gauss-Newton on the last rows, and a Gaussian in place of all earlier ones: one pass for the weights of a network.

Source: Moore 1973 (fixed-lag smoothing); Bell 1994 (its Gauss-Newton form); Pearce et al. 2020 (anchored ensembles).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..refiner import Capabilities, Refiner
from .window import stays

if TYPE_CHECKING:
    from ..batch import Batch
    from ..predictor import Predictor
    from ..signal import StepInput


class SmootherState(NamedTuple):
    """E networks and a window of the last L rows.

    The quadratic `|theta|^2_P / 2 - q' theta` holds the prior and the rows that left the window.

    Fields: `theta [B, E, S]`. `precision [B, E, S, S]`, `shift [B, E, S]`: P and q, float64. `x [B, L, Dx]`,
    `y [B, L, Dy]`, `weight [B, L]`: rows in the window, oldest first. `age [B, L]`: the number of the mini-batch that
    each came with, 0 where there is no row. `steps [B]`: how many were taken. `rows [B]`: how many were seen.
    """

    theta: Tensor
    precision: Tensor
    shift: Tensor
    x: Tensor
    y: Tensor
    weight: Tensor
    age: Tensor
    steps: Tensor
    rows: Tensor


class Smoother(Refiner):
    """`theta_t ~ argmin  sum over the window |y - f(x, theta)|^2 / 2 + |theta|^2_P / 2 - q' theta`, a step at a time.

    Each mini-batch takes one damped Gauss-Newton step d. Rows that leave the window are replaced by their
    linearisation:

        (P + J'J + damping diag) d = J'(y - f) + q - P theta
        P += J'J,  q += J'(y - f + J theta).

    The later a row leaves, the closer theta is to its final value. Without window and damping (both 0) this is the
    extended Kalman filter. Members differ by their start, to which a prior of precision `strength * fan_in` ties them.
    Their predictions are averaged.

    Args:
        member: f, under squared loss, with a `jacobian`.
        start: `[E, S]`, of the members.
        shapes: (rows, width) of the weight matrices in theta.
        x_dim: width of x.
        lag: L, the length of the window in rows; mini-batches leave as a unit.
        strength: of the prior.
        damping: of the step.

    Raises:
        ValueError: lag negative, strength not positive, damping negative; in a step, a signal without rows, or classes.

    Example:
        >>> import torch
        >>> from gradatim import Learner, LinearRegression
        >>> from gradatim.predictors import Ensemble, Network, SquaredError
        >>> from gradatim.refiners import Smoother
        >>> from gradatim.signal import PLAIN
        >>> task = LinearRegression(3).sample(2, torch.Generator().manual_seed(0))
        >>> f = Ensemble(Network(3, SquaredError(1), (8,)), 4)
        >>> learner = Learner(f, Smoother(f.member, f.initial(), f.member.layout.shapes, 3), PLAIN)
        >>> learner.adapt(task.support, 32).theta.shape
        torch.Size([2, 4, 41])

    Source: Bell 1994, eq. 2; Pearce et al. 2020, eq. 8.
    """

    capabilities = Capabilities(weights=True, learnt=False)
    keeps_rows = True
    needs_observations = True
    start: Tensor
    prior: Tensor

    def __init__(
        self,
        member: Predictor,
        start: Tensor,
        shapes: tuple[tuple[int, int], ...],
        x_dim: int,
        lag: int = 1024,
        strength: float = 0.1,
        damping: float = 0.1,
    ) -> None:
        super().__init__()
        if lag < 0 or not strength > 0 or not damping >= 0:
            raise ValueError(
                "a smoother needs lag >= 0, strength > 0 and damping >= 0; got "
                f"lag {lag}, strength {strength}, damping {damping}"
            )
        self.member, self.x_dim = member, x_dim
        self.lag, self.strength, self.damping = lag, strength, damping
        fan_in = torch.cat([torch.full((rows * width,), width) for rows, width in shapes])
        self.register_buffer("start", start.clone())
        self.register_buffer("prior", strength * fan_in.to(start))

    def init(self, n_tasks: int, query: Batch | None = None) -> SmootherState:
        """Return every member of `n_tasks` tasks at its start, and an empty window."""
        theta = self.start.double().expand(n_tasks, -1, -1)
        prior, none = self.prior.double(), theta.new_zeros(n_tasks)
        x = self.start.new_zeros(n_tasks, self.lag, self.x_dim)
        y = x.new_zeros(n_tasks, self.lag, self.member.output_dim)
        precision = torch.diag_embed(prior.expand_as(theta))
        age = none[:, None].expand(-1, self.lag)
        return SmootherState(theta, precision, prior * theta, x, y, age.to(x), age, none, none)

    def step(self, state: SmootherState, step_input: StepInput) -> SmootherState:
        """Return the state after one Gauss-Newton step on window and mini-batch, the window moved on.

        Raises:
            ValueError: a signal without rows, or classes.
        """
        if step_input.batch is None:
            raise ValueError("a smoother needs observations; got a signal without them: use PLAIN")
        if not step_input.batch.y.is_floating_point():
            raise ValueError(
                f"a smoother fits squared loss: y must be floating point; got {step_input.batch.y.dtype}"
            )
        seen = step_input.rows > 0
        steps = state.steps + seen
        x, y, weight, age = self._joined(state, step_input.batch, steps)
        recent = stays(age, weight, self.lag)
        with torch.autocast(x.device.type, enabled=False):
            slopes, residuals = self._linearised(state.theta, x, y, weight)
            # undamped, what is solved for must not be rounded to float32
            slopes, residuals = (part if self.damping else part.double() for part in (slopes, residuals))
            curvature = state.precision + (slopes.mT @ slopes).double()
            pull = (state.precision @ state.theta[..., None])[..., 0]
            downhill = (slopes.mT @ residuals[..., None])[..., 0].double() + state.shift - pull
            damped = curvature + self.damping * torch.diag_embed(curvature.diagonal(dim1=-2, dim2=-1))
            move = torch.cholesky_solve(downhill[..., None], torch.linalg.cholesky(damped))[..., 0]
            precision, shift = self._absorbed(state, slopes, residuals, recent)
        theta = torch.where(seen[:, None, None], state.theta + move, state.theta)
        window = slice(x.shape[1] - self.lag, None)
        x, y, weight, age = (
            part[:, window]
            for part in (x * recent[..., None], y * recent[..., None], weight * recent, age * recent)
        )
        return SmootherState(theta, precision, shift, x, y, weight, age, steps, state.rows + step_input.rows)

    def latent(self, state: SmootherState) -> Tensor:
        """Return the members' theta `[B, E, S]`, in the module's dtype."""
        return state.theta.to(self.start)

    def _joined(
        self, state: SmootherState, batch: Batch, steps: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return x, y, weight and age of the window and the mini-batch, oldest first, absent rows before them."""
        absent = ~batch.mask[..., None]
        age = torch.cat([state.age, steps[:, None] * batch.mask], dim=1)
        age, order = age.sort(dim=1, stable=True)
        rows = [
            torch.cat([old, new.masked_fill(absent, 0)], dim=1)
            for old, new in ((state.x, batch.x), (state.y, batch.y))
        ]
        x, y = (part.gather(1, order[..., None].expand_as(part)) for part in rows)
        weight = torch.cat([state.weight, batch.weight.to(state.weight)], dim=1).gather(1, order)
        return x, y, weight, age

    def _linearised(self, theta: Tensor, x: Tensor, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return J `[B, E, N Do, S]` and y - f `[B, E, N Do]` at theta, each row times the root of its weight.

        Products of two then count a row by its weight; absent rows are zero.
        """
        members = theta.shape[1]
        repeated = x.repeat_interleave(members, dim=0)
        outputs, slopes = self.member.jacobian(repeated, theta.flatten(0, 1).to(x))
        root = weight.sqrt()[:, None, :, None]
        residuals = (y[:, None] - outputs.unflatten(0, (-1, members))) * root
        slopes = slopes.unflatten(0, (-1, members)) * root[..., None]
        return slopes.flatten(2, 3), residuals.flatten(2)

    def _absorbed(
        self, state: SmootherState, slopes: Tensor, residuals: Tensor, recent: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return precision and shift with the rows that leave the window, which are among the oldest."""
        outputs = self.member.output_dim
        oldest = int((~recent).sum(1).max())
        leaving = (~recent[:, :oldest]).repeat_interleave(outputs, dim=1)[:, None]
        residuals = (residuals[:, :, : oldest * outputs] * leaving).double()
        slopes = (slopes[:, :, : oldest * outputs] * leaving[..., None]).double()
        targets = residuals + (slopes @ state.theta[..., None])[..., 0]
        return state.precision + slopes.mT @ slopes, state.shift + (slopes.mT @ targets[..., None])[..., 0]
