"""Predictive distributions of several experts, and how likely they find an answer.

Source: Raftery et al. 1997, eq. 1 (averaging); Cesa-Bianchi, Lugosi 2006, section 3.3 (regret).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from scipy.special import stdtrit
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

SHARPNESS = (2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
"""What regressed one-hot codes are multiplied by to make logits: an expert for each."""

FLOOR = 1e-3
"""Of every expert's probability a share that goes to all classes alike: nothing is impossible."""

TAILS = tuple((scale, freedom) for freedom in (3.0, 8.0, 50.0) for scale in (0.6, 0.8, 1.0, 1.25, 1.6))
"""Student laws about a regressed mean, an expert for each: width over the noise's deviation, degrees of freedom."""

_BISECTIONS = 50


class Mixture(NamedTuple):
    """A mixture of Student laws for each row: of E experts, in T widths of each (`TAILS`).

    Fields: `means [B, N, E]` of the experts; `noise [B, E]`, their variance estimates; `weight [B, E, T]`, sums to 1.

    Example:
        >>> import torch
        >>> from gradatim.nn.mixture import TAILS, Mixture
        >>> weight = torch.full((1, 2, len(TAILS)), 0.5 / len(TAILS))
        >>> mixture = Mixture(torch.tensor([[[0.0, 2.0]]]), torch.ones(1, 2), weight)
        >>> round(mixture.mean.item(), 4), round(mixture.quantiles(torch.tensor([0.5])).item(), 4)
        (1.0, 1.0)
    """

    means: Tensor
    noise: Tensor
    weight: Tensor

    @classmethod
    def joined(cls, members: Sequence[Mixture]) -> Mixture:
        """Return the mixture of several `[B, N, E]`, of equal weight."""
        means, noise, weight = zip(*members, strict=True)
        return cls(torch.cat(means, 2), torch.cat(noise, 1), torch.cat(weight, 1) / len(members))

    @property
    def mean(self) -> Tensor:
        """Return the mean of each row, `[B, N]`."""
        return (self.weight.sum(2)[:, None] * self.means).sum(2)

    @property
    def variance(self) -> Tensor:
        """Return the variance of each row, `[B, N]`: that of each law, and that between the experts' means."""
        between = (self.weight.sum(2)[:, None] * (self.means - self.mean[..., None]).square()).sum(2)
        within = self.weight * self.weight.new_tensor([s * s * v / (v - 2) for s, v in TAILS])
        return between + (within.sum(2) * self.noise).sum(1, keepdim=True)

    @property
    def moments(self) -> Tensor:
        """Return the mean and the variance of each row, `[B, N, 2]`."""
        return torch.stack([self.mean, self.variance], dim=-1)

    def quantiles(self, levels: Tensor) -> Tensor:
        """Return the quantiles `[B, N, Q]` at `levels [Q]`, by bisection between those of the laws with a weight."""
        expert, tail = (self.weight > 0).any(0).nonzero(as_tuple=True)
        scale, freedom = _tails(levels).unbind(1)
        weight, freedom = self.weight[:, None, None, expert, tail], freedom[tail]
        mean = self.means[:, :, None, expert]
        width = (scale[tail] * self.noise[:, expert].sqrt())[:, None, None]
        at = torch.from_numpy(stdtrit(freedom.cpu().numpy(), levels.cpu().numpy()[:, None])).to(levels)
        low, high = (mean + width * at).aminmax(dim=3)
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            below = (weight * _student((middle[..., None] - mean) / width, freedom)).sum(3) < levels
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2


def class_probabilities(scores: Tensor, variants: Tensor | None = None) -> Tensor:
    """Return probabilities `[..., E, T, C]` of experts' scores `[..., E, C]`, one for each sharpness.

    `variants [T]` bool: which of them (default: all).
    """
    sharpness = torch.tensor(SHARPNESS).to(scores)
    behind = scores - scores.amax(-1, keepdim=True)
    odds = (behind[..., None, :] * (sharpness if variants is None else sharpness[variants])[:, None]).exp_()
    total = odds @ odds.new_ones(scores.shape[-1], 1)  # of few classes twice as fast as sum
    return odds.mul_((1 - FLOOR) / total).add_(FLOOR / scores.shape[-1])


def log_density(y: Tensor, mean: Tensor, noise: Tensor) -> Tensor:
    """Return log densities `[..., E, T]` of y `[..., C]` under Student tails about `mean [..., E, C]`, summed over C.

    `noise [..., E, C]`: variance estimates, positive.
    """
    scale, freedom = _tails(mean).unbind(1)
    width = scale[:, None] * noise.sqrt()[..., None, :]
    apart = ((y[..., None, :] - mean)[..., None, :] / width).square()
    freedom = freedom[:, None]
    constant = torch.lgamma((freedom + 1) / 2) - torch.lgamma(freedom / 2) - (freedom * math.pi).log() / 2
    return (constant - width.log() - (freedom + 1) / 2 * (apart / freedom).log1p()).sum(-1)


def cumulative(y: Tensor, mean: Tensor, noise: Tensor) -> Tensor:
    """Return the probabilities `[..., E, T]` of at most y `[...]` under Student tails about `mean [..., E]`."""
    scale, freedom = _tails(mean).unbind(1)
    return _student((y[..., None] - mean)[..., None] / (scale * noise.sqrt()[..., None]), freedom)


def _tails(like: Tensor) -> Tensor:
    """Return `TAILS` as a tensor `[T, 2]`."""
    return torch.tensor(TAILS, dtype=like.dtype, device=like.device)


def _student(t: Tensor, freedom: Tensor) -> Tensor:
    """Return the cumulative probability of Student's t `[..., T]`, `freedom [T]` 3 or even (Abramowitz 26.7.3-4)."""
    probability = torch.empty_like(t)
    for degrees in freedom.unique().tolist():
        chosen = freedom == degrees
        angle = (t[..., chosen] / degrees**0.5).atan()
        sine, square = angle.sin(), angle.cos().square()
        if degrees == 3:
            inside = (angle + sine * angle.cos()) * 2 / math.pi
        else:
            term = total = torch.ones_like(sine)
            for k in range(2, int(degrees) - 1, 2):
                term = term * square * ((k - 1) / k)
                total = total + term
            inside = sine * total
        probability[..., chosen] = (1 + inside) / 2
    return probability
