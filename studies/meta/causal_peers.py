"""Causal orders that learn nothing across tasks: sorts, pairwise likelihood ratios, regressions, the score's Jacobian.

All take standardised columns `[B, N, d]` and return a number for each variable, `[B, d]`, the largest first.

Source: Reisach et al. 2023 (R2-sort); Hyvarinen, Smith 2013 (pairwise measures); Shimizu et al. 2011 (DirectLiNGAM);
Peters et al. 2014 (RESIT); Rolland et al. 2022 (SCORE); Hyvarinen 1998 (entropies).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product

import torch
from torch import Tensor

Peer = Callable[[Tensor], Tensor]
CENTRES = (-1.5, -0.75, 0.0, 0.75, 1.5)
"""Where the bumps of a nonlinear regression stand, in deviations."""


# --- sorts by one column alone


def shape(x: Tensor) -> Tensor:
    """Return how peaked each column is: minus the mean of its sizes."""
    return -x.abs().mean(1)


def skewness(x: Tensor) -> Tensor:
    """Return how skew each column is, its sign left out."""
    return (x**3).mean(1).abs()


def order_of_noise(x: Tensor) -> Tensor:
    """Return how far each column is from a Gaussian."""
    return -entropy(x)


def at_random(x: Tensor, seed: int = 0) -> Tensor:
    """Return random numbers."""
    return torch.rand(x.shape[0], x.shape[2], generator=torch.Generator().manual_seed(seed))


# --- sorts by regressions on all other columns


def explained(x: Tensor, strength: float, bumps: bool) -> Tensor:
    """Return minus the share of each column that a ridge regression on all others explains."""
    features = basis(x) if bumps else x[..., None]
    left = [
        residual(x, features, j, [i for i in range(x.shape[2]) if i != j], strength)
        for j in range(x.shape[2])
    ]
    return torch.stack(left, 2).square().mean(1)


def basis(x: Tensor) -> Tensor:
    """Return the features of each column `[B, N, d, F]`: itself and centred bumps."""
    bumps = (-(x[..., None] - x.new_tensor(CENTRES)).square()).exp()
    return torch.cat([x[..., None], bumps - bumps.mean(1, keepdim=True)], dim=3)


def residual(x: Tensor, features: Tensor, j: int, others: list[int], strength: float) -> Tensor:
    """Return what a ridge regression on features `[B, N, d, F]` of some columns leaves of column j, `[B, N]`."""
    if not others:
        return x[:, :, j]
    design = features[:, :, others].flatten(2)
    gram = design.mT @ design + strength * torch.eye(design.shape[2], dtype=x.dtype)
    return x[:, :, j] - (design @ torch.linalg.solve(gram, design.mT @ x[:, :, j, None]))[..., 0]


# --- pairs


def entropy(x: Tensor) -> Tensor:
    """Return an approximation of the entropy of standardised columns `[B, N, ...]`, up to a constant: `[B, ...]`.

    Source: Hyvarinen 1998, eq. 14 with the two functions of Hyvarinen, Smith 2013, section 3.3.
    """
    logcosh = (x.abs() + torch.log1p((-2 * x.abs()).exp()) - 0.6931472).mean(1)
    odd = (x * (-x.square() / 2).exp()).mean(1)
    return -79.047 * (logcosh - 0.37457).square() - 7.4129 * odd.square()


def ratios(x: Tensor, kind: str) -> Tensor:
    """Return how much more likely i causes j than j causes i, `[B, d, d]`, antisymmetric.

    `kind`: `entropy`, of variables and linear residuals; `tanh` or `skew`, one moment in place of entropies.

    Source: Hyvarinen, Smith 2013, eqs. 6, 12 and 24.
    """
    rho = x.mT @ x / x.shape[1]
    if kind == "entropy":
        left = x[:, :, None] - rho[:, None] * x[:, :, :, None]  # [B, N, i, j]: of j given i
        left = left / (1 - rho.square()).clamp(min=1e-6).sqrt()[:, None]
        given = entropy(x)[:, :, None] + entropy(left)
        return given.mT - given
    other = x.tanh() if kind == "tanh" else -x.square() * (x**3).mean(1, keepdim=True).sign()
    moment = rho * (x.mT @ other - other.mT @ x) / x.shape[1]
    return moment


def exogenous(x: Tensor, kind: str, repeated: bool) -> Tensor:
    """Return variables by how seldom another one causes them; `repeated` takes the first out of the rest each time.

    Source: Hyvarinen, Smith 2013, section 4.1; Shimizu et al. 2011, algorithm 1.
    """
    if not repeated:
        return -ratios(x, kind).clamp(max=0).square().sum(2)
    n, d = x.shape[0], x.shape[2]
    score, tasks, there = x.new_zeros(n, d), torch.arange(n), torch.ones(n, d, dtype=torch.bool)
    for place in range(d):
        ratio = ratios(x, kind).clamp(max=0).square() * (there[:, :, None] & there[:, None])
        first = (-ratio.sum(2)).masked_fill(~there, -torch.inf).argmax(1)
        score[tasks, first] = d - place
        there = there.clone()
        there[tasks, first] = False
        root = x[tasks, :, first]
        x = x - root[..., None] * (root[..., None] * x).mean(1, keepdim=True)
        x = x / x.square().mean(1, keepdim=True).clamp(min=1e-6).sqrt()
    return score


# --- leaves, one after the other


def leaves(x: Tensor, cost: Callable[[Tensor, list[int]], Tensor]) -> Tensor:
    """Return variables in the order in which they are no leaves: the one of least cost is taken off each time.

    `cost(x, columns)`: `[B, s]` of columns `[B, N, s]` that are left.
    """
    n, d = x.shape[0], x.shape[2]
    left = torch.arange(d).expand(n, d)
    score, tasks = x.new_zeros(n, d), torch.arange(n)
    for place in range(d - 1):
        rest = x.gather(2, left[:, None].expand(n, x.shape[1], -1))
        leaf = cost(rest, list(range(rest.shape[2]))).argmin(1)
        score[tasks, left[tasks, leaf]] = place - d
        keep = torch.ones_like(left, dtype=torch.bool)
        keep[tasks, leaf] = False
        left = left[keep].view(n, -1)
    return score


def dependence(x: Tensor, columns: list[int], strength: float) -> Tensor:
    """Return how much what a nonlinear regression leaves of each column depends on the others, by HSIC.

    Source: Peters et al. 2014, algorithm 1 (the first phase of RESIT).
    """
    features, kernels = basis(x), [centred(x[:, :, j]) for j in columns]
    total = []
    for j in columns:
        others = [i for i in columns if i != j]
        left = residual(x, features, j, others, strength)
        kernel = centred((left - left.mean(1, keepdim=True)) / left.std(1, keepdim=True).clamp(min=1e-6))
        total.append(torch.stack([(kernel * kernels[i]).mean((1, 2)) for i in others]).sum(0))
    return torch.stack(total, 1)


def centred(x: Tensor) -> Tensor:
    """Return the centred Gaussian kernel matrix `[B, N, N]` of one column `[B, N]`."""
    kernel = (-(x[:, :, None] - x[:, None]).square() / 2).exp()
    kernel = kernel - kernel.mean(1, keepdim=True)
    return kernel - kernel.mean(2, keepdim=True)


def jacobian(x: Tensor, columns: list[int], strength: float, width: float) -> Tensor:
    """Return the variance over rows of the diagonal of the Hessian of the log density: it is 0 at a leaf.

    Source: Rolland et al. 2022, algorithm 1 and eqs. 9, 13; the width is in units of the median distance.
    """
    apart = x[:, :, None] - x[:, None]
    square = apart.square().sum(3)
    size = width * square.sqrt().flatten(1).median(1).values[:, None, None]
    kernel = (-square / (2 * size.square())).exp()
    scale = size[..., None].square()
    first = -(apart * kernel[..., None] / scale).sum(2)
    second = ((apart.square() / scale - 1) / scale * kernel[..., None]).sum(2)
    solved = torch.linalg.solve(
        kernel + strength * torch.eye(x.shape[1], dtype=x.dtype), torch.cat([first, second], 2)
    )
    slope, curve = solved.split(len(columns), dim=2)
    return (curve - slope.square()).var(1)


def turned(peer: Peer, x: Tensor) -> Tensor:
    """Return the opposite order."""
    return -peer(x)


def peers() -> dict[str, dict[str, Peer]]:
    """Return the peers by name, each with the settings that it is tuned over."""
    strengths = (1.0, 10.0, 30.0)
    sorts = {"shape": shape, "skewness": skewness, "entropy": order_of_noise}
    return {
        "random": {"": at_random},
        **{f"sort by {name}": {"": sort} for name, sort in sorts.items()},
        **{f"sort by {name}, turned": {"": partial(turned, sort)} for name, sort in sorts.items()},
        "R2-sort": {str(s): partial(explained, strength=s, bumps=False) for s in strengths},
        "nonlinear R2-sort": {str(s): partial(explained, strength=s, bumps=True) for s in strengths},
        "pairwise ratios": {
            f"{kind}, {'repeated' if again else 'once'}": partial(exogenous, kind=kind, repeated=again)
            for kind, again in product(("entropy", "tanh", "skew"), (True, False))
        },
        "RESIT": {str(s): partial(leaves, cost=partial(dependence, strength=s)) for s in strengths},
        "SCORE": {
            f"{s}, {w}": partial(leaves, cost=partial(jacobian, strength=s, width=w))
            for s, w in product((0.001, 0.01), (0.5, 1.0))
        },
    }
