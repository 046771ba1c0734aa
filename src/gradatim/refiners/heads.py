"""Ridge heads solved from sums over rows: factors, heads, the noise they leave, rows scored as if left out.

Source: Hoerl, Kennard 1970, eq. 2.1 (ridge); Golub, Heath, Wahba 1979, eq. 1.4 (the noise); Allen 1974 (rows left out).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from .triangular import cholesky, inverse_diagonal, solve

if TYPE_CHECKING:
    from .statistics import Statistics

FEW = 12.0
"""Rows up to which a regression is as unsure of y as if x said nothing."""

EXACT = 10_000
"""Rows up to which each is left out by itself; of more, the mean is exact enough, and much faster."""

RESOLVED = 1e-7
"""Of the mean square of y: the least noise that is told from none."""

ROUNDING = 3e-6
"""Of a feature's own second moment, added to every strength: second moments stay positive definite."""


EMPTY = 1e-9
"""The least of R: of no rows the mean is 0."""


class Factor(NamedTuple):
    """S heads that see the same features, before they are solved.

    Fields: `index [S]`, of the heads; `seen [d]`, of the features; `ridge [B, S, d]`, the diagonal of R;
    `lower [B, S, d, d]`, Cholesky factors of G + R.
    """

    index: Tensor
    seen: Tensor
    ridge: Tensor
    lower: Tensor


def factorise(
    moments: Statistics, index: Tensor, seen: Tensor, strengths: Tensor, intercept: int | None = None
) -> Factor:
    """Return the factors of heads `index [S]` that see features `seen [d]` under ridges of `strengths [S]`.

    R is a head's strength, and room for rounding. The feature that is 1, the `intercept`-th of all, has the latter
    alone: so heads are of features and answers less their means.

    Example:
        >>> import torch
        >>> from gradatim.refiners.heads import factorise, solve_heads
        >>> from gradatim.refiners.statistics import Statistics
        >>> moments = Statistics(torch.ones(1, 1, 1), torch.ones(1, 1, 1), torch.ones(1, 1), torch.ones(1))
        >>> factor = factorise(moments, torch.arange(2), torch.arange(1), torch.tensor([1.0, 3.0]))
        >>> solve_heads(moments, factor).flatten()
        tensor([0.5000, 0.2500])
    """
    second = moments.gram.diagonal(dim1=-2, dim2=-1)[:, None, seen]
    ridge = strengths.to(second)[:, None] + ROUNDING * second
    if intercept is not None:
        ridge = torch.where(seen == intercept, (ROUNDING * second).clamp(min=EMPTY), ridge)
    everything = len(seen) == moments.gram.shape[-1]
    gram = moments.gram if everything else moments.gram[:, seen][:, :, seen]
    gram = gram[:, None].repeat(1, len(index), 1, 1)
    gram.diagonal(dim1=-2, dim2=-1).add_(ridge)
    return Factor(index, seen, ridge, cholesky(gram))


def solve_heads(moments: Statistics, factor: Factor) -> Tensor:
    """Return the heads `[B, S, d, C]`: (G + R)^-1 M."""
    return solve(factor.lower, moments.cross[:, None, factor.seen])


def degrees_of_freedom(factor: Factor) -> Tensor:
    """Return the traces `[B, S]` of (G + R)^-1 G: d - tr (G + R)^-1 R, R diagonal."""
    return len(factor.seen) - (factor.ridge * inverse_diagonal(factor.lower)).sum(-1)


def noise_variance(moments: Statistics, factor: Factor, head: Tensor, intercept: int) -> Tensor:
    """Return variances `[B, S, C]` of what is left: `n RSS / (n - tr(H))^2`, generalised cross-validation.

    While rows are few, a doubt is added: the variance of y, less with each row.

    Args:
        moments: the sums over all rows.
        factor: of S heads.
        head: `[B, S, d, C]`.
        intercept: the place of the feature that is 1.
    """
    seen, squares = factor.seen, moments.squares[:, None]
    gram = moments.gram[:, None, seen][:, :, :, seen]
    residual = squares - (2 * moments.cross[:, None, seen] * head).sum(2)
    residual = torch.maximum(residual + (head * (gram @ head)).sum(2), RESOLVED * squares)
    rows = moments.rows[:, None]
    free = (rows - degrees_of_freedom(factor)).clamp(min=0.02 * rows.clamp(min=1))
    # of a few rows one estimate is as good as a prior row of variance 1
    noise = (rows[..., None] * residual + 1e-3) / (free.square()[..., None] + 1e-3)
    mean = moments.cross[:, intercept] / rows.clamp(min=1)
    variance = (moments.squares / rows.clamp(min=1) - mean.square()).clamp(min=0)
    doubt = variance * (rows + 1) / (rows - 1).clamp(min=0.5) * (FEW / rows.clamp(min=FEW)) ** 4
    return noise + doubt[:, None]


def leave_out(
    moments: Statistics, factor: Factor, head: Tensor, a: Tensor, y: Tensor, weight: Tensor
) -> Tensor:
    """Return what heads would say of rows among those learnt had each been left out, `[B, N, S, C]`.

    `y - (y - theta a) / (1 - h)`, `h = a' (G + R)^-1 a`, so that heads that remember are not preferred. Of a row of
    weight above 1 one is left out; of more than `EXACT` rows all have the mean h.

    Args:
        moments: the sums over all rows.
        factor: of S heads.
        head: `[B, S, d, C]`.
        a: features `[B, N, D]`.
        y: `[B, N, C]`.
        weight: `[B, N]`.

    Source: Allen 1974.
    """
    visible = a[:, None, :, factor.seen]
    if bool((moments.rows > EXACT).any()):
        mean = degrees_of_freedom(factor) / moments.rows[:, None]
        reach = mean[..., None].expand(-1, -1, a.shape[1])
    else:
        columns = visible.mT.expand(-1, len(factor.index), -1, -1)
        reach = torch.linalg.solve_triangular(factor.lower, columns, upper=False).square().sum(-2)
    fitted = (visible @ head).transpose(1, 2)
    remainder = (1 - reach * weight[:, None].clamp(max=1)).clamp(min=1e-6)
    return y[:, :, None] - (y[:, :, None] - fitted) / remainder.mT[..., None]
