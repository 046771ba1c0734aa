"""The mode of a softmax head's posterior, and its curvature there: Newton steps by conjugate gradients.

Source: Bishop 2006, section 4.3.4 (softmax regression by Newton's method); Nocedal, Wright 2006, section 7.1.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from collections.abc import Callable

_HALVINGS = 12
"""Of a Newton step at most: far from the mode a full step can overshoot."""

_ROUNDING = 1e-12
"""Share of a sum of losses by which rounding can raise it."""

_TINY = 1e-200
"""Smallest denominator."""

_IMPLICIT = 15
"""Steps of conjugate gradients for the gradient of a mode."""


class LaplaceState(NamedTuple):
    """The posterior of a softmax head of C classes under each of K priors, and a window of the last L rows.

    The quadratic `theta' P theta / 2 - h' theta + c` holds the prior and the rows that left the window.

    Fields: `theta [B, K, C, D]`: the mode. `precision [B, K, C, D, D]`, `shift [B, K, C, D]`, `floor [B, K]`: P, h, c,
    float64. `inputs [B, L, D]`, `labels [B, L]` (int64), `weight [B, L]`: rows in the window, oldest first. `age
    [B, L]`: the number of the mini-batch that each came with, 0 where there is no row. `rows [B]`: how many were seen.
    """

    theta: Tensor
    precision: Tensor
    shift: Tensor
    floor: Tensor
    inputs: Tensor
    labels: Tensor
    weight: Tensor
    age: Tensor
    rows: Tensor


def mode(state: LaplaceState, tolerance: float, iterations: int, conjugate: int) -> Tensor:
    """Return the theta `[B, K, C, D]` that minimises quadratic and losses of the window, from the state's theta on.

    Newton steps are halved until they do not raise the objective. The gradient is that of the minimum,
    `d theta = H^-1 d slope`, not of the iterations; it is exact where the tolerance is 0.

    Args:
        state: tensors `[B, ...]`, its window in float64.
        tolerance: in nats. The last Newton step is one that promises no more.
        iterations: Newton steps at most.
        conjugate: steps of conjugate gradients in each.
    """
    with torch.no_grad():
        theta, inverse = _minimum(state, tolerance, iterations, conjugate)
    if not (torch.is_grad_enabled() and (state.precision.requires_grad or state.inputs.requires_grad)):
        return theta
    _, slope, probabilities = objective(state, theta)
    fixed = LaplaceState(*(part.detach() for part in state))
    solve = partial(_solve, fixed, probabilities.detach(), inverse=inverse, steps=_IMPLICIT)
    result: Tensor = _Implicit.apply(theta, slope, solve)  # type: ignore[assignment]
    return result


def objective(state: LaplaceState, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return quadratic and losses of the window at theta `[B, K, C, D]`, minus their gradient, and probabilities.

    Returns:
        The objective `[B, K]`, its negative gradient `[B, K, C, D]`, and the probabilities of the window's rows
        `[B, L, K, C]`, zero where there is no row.
    """
    losses, slope, probabilities = window_loss(state, theta)
    pull = (state.precision @ theta[..., None])[..., 0]
    value = (theta * (pull / 2 - state.shift)).sum((2, 3)) + state.floor + losses
    return value, slope + state.shift - pull, probabilities


def window_loss(state: LaplaceState, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the same three as `objective` for the losses of the window alone, at theta `[B, K, C, D]`."""
    a, weight, shape = state.inputs.to(theta), state.weight[..., None, None], theta.shape[1:3]
    logs = (a @ theta.flatten(1, 2).mT).unflatten(2, shape).log_softmax(-1)
    codes = torch.nn.functional.one_hot(state.labels, theta.shape[2])[:, :, None] * weight
    probabilities = logs.exp() * (weight > 0)
    slope = ((codes - probabilities * weight).flatten(2).mT @ a).unflatten(1, shape)
    return -(codes * logs).sum((1, 3)), slope, probabilities


def block_hessian(state: LaplaceState, probabilities: Tensor) -> Tensor:
    """Return one block of the window's Hessian for each class, `[B, K, C, D, D]`.

        H_c = C / (C - 1) sum_n p_c (1 - p_c) a a'

    The factor makes the blocks equal to the full Hessian on contrasts of equally likely classes. They are summed class
    by class, so that no tensor `[B, L, K, C, D]` is made.

    Args:
        state: tensors `[B, ...]`.
        probabilities: `[B, L, K, C]` of the window's rows.
    """
    a, classes = state.inputs.to(probabilities), probabilities.shape[3]
    spread = probabilities * (1 - probabilities) * (classes / (classes - 1))
    spread = spread * state.weight[..., None, None]
    blocks = [
        (a.mT @ (a[:, :, None] * s[..., None]).flatten(2)).unflatten(2, (s.shape[2], -1)).transpose(1, 2)
        for s in spread.unbind(3)
    ]
    return torch.stack(blocks, dim=2)


def _minimum(state: LaplaceState, tolerance: float, iterations: int, conjugate: int) -> tuple[Tensor, Tensor]:
    """Return the minimum `[B, K, C, D]`, and the inverse of the blocks of H at the start `[B, K, C, D, D]`."""
    theta = state.theta
    lowest, slope, probabilities = objective(state, theta)
    factor = torch.linalg.cholesky(state.precision + block_hessian(state, probabilities))
    inverse = torch.cholesky_inverse(factor)
    converged = torch.zeros_like(lowest, dtype=torch.bool)
    for _ in range(iterations):
        move = _solve(state, probabilities, slope, inverse, conjugate)
        decrease = (slope * move).sum((2, 3)) / 2
        move = torch.where(converged[..., None, None], 0, move)
        for _ in range(_HALVINGS):
            value, slope, probabilities = objective(state, theta + move)
            higher = value > lowest + _ROUNDING * lowest.abs()
            if not bool(higher.any()):
                break
            move = torch.where(higher[..., None, None], move / 2, move)
        else:
            move = torch.where(higher[..., None, None], 0, move)
            value, slope, probabilities = objective(state, theta + move)
        theta, lowest, converged = theta + move, value, converged | (decrease <= tolerance)
        if bool(converged.all()):
            break
    return theta, inverse


def _solve(state: LaplaceState, probabilities: Tensor, slope: Tensor, inverse: Tensor, steps: int) -> Tensor:
    """Return the full Hessian's inverse times a slope, `[B, K, C, D]`, by conjugate gradients.

    `inverse [B, K, C, D, D]` of the blocks, somewhere near, is the preconditioner.
    """
    a, shape, weight = state.inputs.to(slope), slope.shape[1:3], state.weight[..., None, None]
    solution, residual = torch.zeros_like(slope), slope
    preconditioned = (inverse @ residual[..., None])[..., 0]
    along, size = preconditioned, (residual * preconditioned).sum((2, 3), keepdim=True)
    for _ in range(steps):
        logits = (a @ along.flatten(1, 2).mT).unflatten(2, shape)
        bent = probabilities * (logits - (probabilities * logits).sum(-1, keepdim=True)) * weight
        product = (bent.flatten(2).mT @ a).unflatten(1, shape) + (state.precision @ along[..., None])[..., 0]
        share = size / (along * product).sum((2, 3), keepdim=True).clamp(min=_TINY)
        solution, residual = solution + share * along, residual - share * product
        preconditioned = (inverse @ residual[..., None])[..., 0]
        before, size = size, (residual * preconditioned).sum((2, 3), keepdim=True)
        along = preconditioned + size / before.clamp(min=_TINY) * along
    return solution


class _Implicit(torch.autograd.Function):
    """theta at which a slope vanishes, with the implicit gradient `d theta = H^-1 d slope`.

    `solve` multiplies by H^-1; H is symmetric.
    """

    @staticmethod
    def forward(ctx: Any, theta: Tensor, slope: Tensor, solve: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.solve = solve
        return theta.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None]:
        return None, ctx.solve(grad), None
