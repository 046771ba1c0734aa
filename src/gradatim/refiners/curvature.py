"""Gradients preconditioned by the curvature of their mini-batch: a learnt, damped Newton direction.

Source: Martens, Grosse 2015, section 6.2 (K-FAC with Tikhonov damping), its input factor alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..nn.functional import split_rows
from .gain import positive

if TYPE_CHECKING:
    from collections.abc import Sequence


FAST = 5.0
"""Factor on the learning rate of a proximal step's pull: its logarithm has further to go than a weight."""


class Preconditioner(nn.Module):
    """`natural = G (A + lambda_t tr(A) / width I)^-1` for each weight matrix, G its gradient `[rows, width]`.

    A `[width, width]` are the second moments of what multiplies the matrix. `lambda_t = lambda` is learnt, one for
    each matrix. With `proximal` it grows with the number s of mini-batches seen, which is N / n by rows.

        lambda_t = lambda + rho s^2 / (s + delta),  rho and delta learnt

    A step then solves `min  loss(mini-batch) + lambda_t / 2 |theta - theta_t|^2`, and steps shrink by themselves. The
    latent pulls like the rows that it stands for, and less at first, when some directions are still unseen. This is a
    Kalman filter with a scalar precision.

    Args:
        shapes: (rows, width) of the matrices that lie one after the other in the flat latent.
        proximal: whether the damping grows with the rows seen.

    Example:
        >>> import torch
        >>> from gradatim.refiners.curvature import Preconditioner
        >>> gradient, curvature = torch.ones(1, 6), torch.eye(3).flatten()[None]
        >>> precondition = Preconditioner(((2, 3),))
        >>> precondition(gradient, curvature, now=torch.ones(1), before=torch.zeros(1)).detach()
        tensor([[0.7311, 0.7311, 0.7311, 0.7311, 0.7311, 0.7311]])
    """

    def __init__(self, shapes: tuple[tuple[int, int], ...], proximal: bool = False) -> None:
        super().__init__()
        self.shapes = shapes
        self.damping = nn.Parameter(torch.full((len(shapes),), -3.0 if proximal else -1.0))
        self.pull = nn.Parameter(torch.full((len(shapes),), -1.0 / FAST)) if proximal else None
        self.late = nn.Parameter(torch.zeros(len(shapes))) if proximal else None

    @property
    def size(self) -> int:
        """Return the length of the flat second moments of one task."""
        return sum(width * width for _, width in self.shapes)

    def forward(self, gradient: Tensor, curvature: Tensor, now: Tensor, before: Tensor) -> Tensor:
        """Return the direction, like gradient `[B, ...]`, under curvature `[B, size]`; rows `now [B]`, `before [B]`."""
        damping = self.damping.clamp(-8, 4).exp()
        if self.pull is not None and self.late is not None:
            pull, late = ((FAST * part).clamp(-8, 4).exp() for part in (self.pull, self.late))
            steps = (before / positive(now))[:, None, None]
            damping = damping + pull * steps.square() / (steps + late)
        return natural(gradient, curvature, self.shapes, damping.unbind(-1))


def natural(
    gradient: Tensor,
    curvature: Tensor,
    shapes: tuple[tuple[int, int], ...],
    damping: Sequence[float | Tensor] | Tensor,
) -> Tensor:
    """Return `G (A + lambda tr(A) / width I)^-1` for each weight matrix of the flat gradient, `[B, ...]` like it.

    Args:
        gradient: `[B, ...]`, flat `[B, S]` the matrices one after the other.
        curvature: `[B, Q]`, the flat second moments A of each matrix.
        shapes: (rows, width) of the matrices.
        damping: a lambda for each matrix: a number, or `[B, 1]` with one for each task.
    """
    squares = tuple((width, width) for _, width in shapes)
    slopes, moments = split_rows(gradient.flatten(1), shapes), split_rows(curvature, squares)
    parts = []
    for slope, moment, strength in zip(slopes, moments, damping, strict=True):
        floor = strength * moment.diagonal(dim1=1, dim2=2).mean(dim=1, keepdim=True) + 1e-6
        solved: Tensor = _Damped.apply(slope, moment, floor)  # type: ignore[assignment]
        parts.append(solved.flatten(1))
    return torch.cat(parts, dim=1).view_as(gradient)


class _Damped(torch.autograd.Function):
    """`S = G M^-1, M = A + floor I`, of symmetric A.

        dG = dS M^-1,  dA = -S' dG,  dfloor = -sum S dG

    These gradients need M's factor and no more. Those through a factorisation take several products of its size.
    """

    @staticmethod
    def forward(ctx: Any, slope: Tensor, moment: Tensor, floor: Tensor) -> Tensor:
        shifted = moment.clone()
        shifted.diagonal(dim1=1, dim2=2).add_(floor)
        factor = torch.linalg.cholesky(shifted)
        solved = torch.cholesky_solve(slope.mT, factor).mT
        ctx.save_for_backward(factor, solved)
        return solved

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        factor, solved = ctx.saved_tensors
        back = torch.cholesky_solve(grad.mT, factor).mT
        moment = -(solved.mT @ back) if ctx.needs_input_grad[1] else None
        return back, moment, -(solved * back).sum((1, 2))[:, None]


class RowSlopes(nn.Module):
    """`G = mean_n beta_n a_n'` for each weight matrix: a learnt descent direction from row tokens.

    Every gradient of a weight matrix has this form: a multiplies the matrix, beta came back through f. Here
    `beta_n = L token_n` is learnt, and L starts at zero.

    Args:
        shapes: (rows, width) of the matrices in the flat latent.
        width: of the tokens.

    Example:
        >>> import torch
        >>> from gradatim.refiners.curvature import RowSlopes
        >>> slopes = RowSlopes(((2, 3),), width=8)
        >>> slopes(torch.randn(4, 5, 8), (torch.randn(4, 5, 3),), torch.full((4,), 5.0)).shape
        torch.Size([4, 6])
    """

    def __init__(self, shapes: tuple[tuple[int, int], ...], width: int) -> None:
        super().__init__()
        self.sizes = [rows for rows, _ in shapes]
        self.back = nn.Linear(width, sum(self.sizes))
        nn.init.zeros_(self.back.weight)
        nn.init.zeros_(self.back.bias)

    def forward(self, tokens: Tensor, inputs: tuple[Tensor, ...], rows: Tensor) -> Tensor:
        """Return the direction `[B, S]` of row tokens `[B, N, W]` and inputs `[B, N, width]`.

        Inputs are zero at absent rows; `rows [B]` counts the present ones.
        """
        count = positive(rows).reshape(-1, 1, 1)
        backs = self.back(tokens).split(self.sizes, dim=-1)
        parts = (back.mT @ a / count for back, a in zip(backs, inputs, strict=True))
        return torch.cat([part.flatten(1) for part in parts], dim=1)


def second_moments(inputs: tuple[Tensor, ...], rows: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the mean over rows of `a a'`, flat, for each of inputs `[B, N, width]`: `[B, sum width^2]`.

    Args:
        inputs: what multiplies each weight matrix, zero at absent rows.
        rows: `[B]`, the number of rows, in the dtype to compute in, under autocast too.
        weight: `[B, N]`, how often each row counts. None: once.
    """
    count = positive(rows).reshape(-1, 1, 1)
    with torch.autocast(rows.device.type, enabled=False):
        parts = []
        for a in (part.to(rows) for part in inputs):
            weighted = a if weight is None else a * weight[..., None].to(rows)
            parts.append((weighted.mT @ a / count).flatten(1))
        return torch.cat(parts, dim=1)
