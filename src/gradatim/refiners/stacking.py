"""Weights of experts' means of a number: those whose average would have missed rows least, each as it was left out.

Source: Wolpert 1992 (stacking); Breiman 1996, section 2 (no weight is negative); Lawson, Hanson 1974, chapter 23.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

KNOWN = 20.0
"""Rows for which the weights by likelihood count."""

NEGLIGIBLE = 1e-4
"""A share below it is taken as none."""

FAR = 5.0
"""Deviations by which an expert misses a row at most: one absurd row must not decide."""

TOGETHER = 1e4
"""How much more than an error it counts that weights do not sum to 1; they are divided by their sum afterwards."""

ROUNDING, STEPS = 1e-9, 100
"""Of the largest ratio of two experts' errors, what keeps products positive definite; steps of the solver an expert."""


def residual_products(scores: Tensor, y: Tensor, weight: Tensor, noise: Tensor) -> Tensor:
    """Return the sums `[B, E + 1, E + 1]` of products of what experts miss by, and of 1, over rows of weights `[B, N]`.

    Args:
        scores: what they say, `[B, N, E, C]`.
        y: `[B, N, C]`.
        weight: `[B, N]`.
        noise: variances `[B, E, C]`. Nobody misses a row by more than `FAR` deviations of its own.

    Example:
        >>> import torch
        >>> from gradatim.refiners.stacking import residual_products
        >>> scores, noise = torch.tensor([[[[1.0]], [[3.0]]]]), torch.ones(1, 1, 1)
        >>> residual_products(scores, torch.zeros(1, 2, 1), torch.ones(1, 2), noise)
        tensor([[[10., -4.],
                 [-4.,  2.]]])
    """
    far = FAR * noise.sqrt()[:, None]
    missed = (y[:, :, None] - scores).clamp(-far, far).transpose(2, 3)
    one = torch.ones_like(missed[..., :1]) / missed.shape[2] ** 0.5
    missed = torch.cat([missed, one], dim=-1)
    return torch.einsum("bnce,bncf,bn->bef", missed, missed, weight)


def without_negligible(weight: Tensor) -> Tensor:
    """Return weights `[B, E, T]` that sum to 1, without experts, and ways of each expert, of a share below 1e-4.

    Ways are dropped apart, so that the weight of an expert's mean stays the same.

    Example:
        >>> import torch
        >>> from gradatim.refiners.stacking import without_negligible
        >>> without_negligible(torch.tensor([[[0.99999, 0.0], [0.00001, 0.0]]]))
        tensor([[[1., 0.],
                 [0., 0.]]])
    """
    share = weight.sum(2, keepdim=True)
    return _normalised(share, 1) * _normalised(weight / share.clamp(min=1e-300), 2)


def _normalised(weight: Tensor, dim: int) -> Tensor:
    weight = torch.where(weight < NEGLIGIBLE, 0.0, weight)
    return weight / weight.sum(dim, keepdim=True).clamp(min=1e-300)


def scaled(products: Tensor, scale: float) -> Tensor:
    """Return products `[B, E + 1, E + 1]` of residuals that are scaled.

    Example:
        >>> import torch
        >>> from gradatim.refiners.stacking import scaled
        >>> scaled(torch.ones(1, 2, 2), 3.0)
        tensor([[[9., 3.],
                 [3., 1.]]])
    """
    factor = torch.full_like(products[:, 0], scale)
    factor[:, -1:] = 1.0
    return products * factor[:, :, None] * factor[:, None]


def stacked(products: Tensor, likely: Tensor) -> Tensor:
    """Return weights `[B, E]` that sum to 1, none negative: `argmin w' H w + (20 h / n) |w - likely|^2`.

    H are the sums of products over n rows, and h is the least of its diagonal. Of no rows the weights are `likely`.

    Args:
        products: `[B, E + 1, E + 1]`, as `residual_products` returns them.
        likely: weights by likelihood, `[B, E]`.

    Example:
        >>> import torch
        >>> from gradatim.refiners.stacking import stacked
        >>> products = torch.tensor([[[30.0, -30.0, 0.0], [-30.0, 30.0, 0.0], [0.0, 0.0, 30.0]]]).double()
        >>> stacked(products, torch.tensor([[0.9, 0.1]]).double()).round(decimals=2)
        tensor([[0.6000, 0.4000]], dtype=torch.float64)

    Source: Breiman 1996, section 2.
    """
    found = []
    for product, start in zip(products.cpu().double().numpy(), likely.cpu().double().numpy(), strict=True):
        rows, of_all = product[-1, -1], product[:-1, :-1]
        least = of_all.diagonal().min()
        if not (rows > 0 and least > 0):
            found.append(start)
            continue
        ratios = of_all / least
        pull = max(KNOWN / rows, ROUNDING * ratios.diagonal().max())
        root = np.linalg.cholesky(ratios + pull * np.eye(len(start))).T
        wanted = np.linalg.solve(root.T, pull * start)
        together = TOGETHER * max(1.0, root.diagonal().max())
        system = np.vstack([root, np.full(len(start), together)])
        weights, _ = nnls(system, np.append(wanted, together), maxiter=STEPS * len(start))
        found.append(weights / weights.sum())
    return torch.from_numpy(np.stack(found)).to(likely)
