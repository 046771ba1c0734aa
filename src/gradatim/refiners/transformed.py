"""States of experts under other features or another unit of y: sums are carried exactly.

Source: Seber, Lee 2003, section 3.2 (sums under a linear map); this project's own form.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from .stacking import scaled
from .statistics import Statistics, congruent

if TYPE_CHECKING:
    from torch import Tensor


def carried(experts: Any, state: Any, matrix: Tensor) -> Any:
    """Return a state without rows that wait, as one of features `matrix phi`, `[D', D]`: see `Experts.carry`."""
    matrix = matrix.to(state.theta)
    moments = congruent(state.moments, matrix)
    inverse = torch.where(matrix != 0, 1 / matrix, 0.0)
    present = matrix != 0
    state = state._replace(moments=moments, theta=inverse @ state.theta)
    alone = bool((present.sum(0) <= 1).all()) and bool((present.sum(1) <= 1).all())
    return state if alone else experts.solve(state._replace(theta=torch.zeros_like(state.theta)))


def rescaled(experts: Any, state: Any, scale: float, shift: float) -> Any:
    """Return a state without rows that wait, of a regression of y, as one of `scale y + shift`."""
    gram, cross, squares, rows = state.moments
    one = experts.blocks[0] - 1  # the feature that is 1
    squares = scale**2 * squares + 2 * scale * shift * cross[:, one] + shift**2 * rows[:, None]
    moments = Statistics(gram, scale * cross + shift * gram[:, :, one, None], squares, rows)
    theta = scale * state.theta
    theta[:, :, one] += shift * state.theta.any(2)
    noise, products = scale**2 * state.noise, scaled(state.products, scale)
    widths = state.widths.moved(scale, shift)
    return state._replace(moments=moments, theta=theta, noise=noise, products=products, widths=widths)
