"""Predictive distributions of several experts, and the likelihood of an answer under each.

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
"""Factors that turn one-hot codes fitted by regression into logits. Each makes a variant of an expert."""

FLOOR = 1e-3
"""Share of every expert's probability that is spread evenly over the classes, so that none has probability 0."""

TAILS = tuple((scale, freedom) for freedom in (3.0, 8.0, 50.0) for scale in (0.6, 0.8, 1.0, 1.25, 1.6))
"""Student t distributions around a fitted mean: scale in units of the noise deviation, and degrees of freedom."""

_BISECTIONS = 50


class Mixture(NamedTuple):
    """A mixture of Student t distributions for each row, over E experts and the T entries of `TAILS`.

    Fields: `means [B, N, E]` of the experts; `noise [B, E]`, their variance estimates; `weight [B, E, T]`, sums to 1;
    `stretch [B, N]`, by which each row's mixture is wider about its mean, None for 1.

    Example:
        >>> import torch
        >>> from gradatim.nn.mixture import TAILS, Mixture
        >>> weight = torch.full((1, 2, len(TAILS)), 0.5 / len(TAILS))
        >>> mixture = Mixture(torch.tensor([[[0.0, 2.0]]]), torch.ones(1, 2), weight)
        >>> round(mixture.mean.item(), 4), round(mixture.quantiles(torch.tensor([0.5])).item(), 4)
        (1.0, 1.0)

    Source: Raftery et al. 1997, eq. 1.
    """

    means: Tensor
    noise: Tensor
    weight: Tensor
    stretch: Tensor | None = None

    @classmethod
    def joined(cls, members: Sequence[Mixture]) -> Mixture:
        """Return the mixture of several `[B, N, E]`, of equal weight."""
        means, noise, weight, stretch = zip(*members, strict=True)
        wider = None if stretch[0] is None else torch.stack(stretch).mean(0)
        return cls(torch.cat(means, 2), torch.cat(noise, 1), torch.cat(weight, 1) / len(members), wider)

    @property
    def mean(self) -> Tensor:
        """Return the mean of each row, `[B, N]`."""
        return (self.weight.sum(2)[:, None] * self.means).sum(2)

    @property
    def variance(self) -> Tensor:
        """Return the variance of each row, `[B, N]`: within the distributions, and between the experts' means."""
        between = (self.weight.sum(2)[:, None] * (self.means - self.mean[..., None]).square()).sum(2)
        within = self.weight * self.weight.new_tensor([s * s * v / (v - 2) for s, v in TAILS])
        variance = between + (within.sum(2) * self.noise).sum(1, keepdim=True)
        return variance if self.stretch is None else self.stretch.square() * variance

    @property
    def moments(self) -> Tensor:
        """Return the mean and the variance of each row, `[B, N, 2]`."""
        return torch.stack([self.mean, self.variance], dim=-1)

    def quantiles(self, levels: Tensor) -> Tensor:
        """Return the quantiles `[B, N, Q]` at `levels [Q]`."""
        # Bisection: a quantile of a mixture lies between those of its components.
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
        found = (low + high) / 2
        if self.stretch is None:
            return found
        centre = self.mean[..., None]
        return centre + self.stretch[..., None] * (found - centre)


def class_probabilities(scores: Tensor, variants: Tensor | None = None) -> Tensor:
    """Return the class probabilities of experts, for each factor in `SHARPNESS`.

    Args:
        scores: one-hot codes fitted by regression, of shape `[..., E, C]`.
        variants: bool `[T]`, the factors to use (default: all).

    Returns:
        Probabilities of shape `[..., E, T, C]`.

    Example:
        >>> import torch
        >>> from gradatim.nn.mixture import class_probabilities
        >>> class_probabilities(torch.tensor([[0.9, 0.1]]))[0, :3, 0]
        tensor([0.8317, 0.9164, 0.9604])

    Source: this project's own.
    """
    sharpness = torch.tensor(SHARPNESS, dtype=scores.dtype, device=scores.device)
    return sharpened(scores, sharpness if variants is None else sharpness[variants])


def sharpened(scores: Tensor, sharpness: Tensor) -> Tensor:
    """Return the class probabilities `[..., E, T, C]` of experts of `scores [..., E, C]`, for factors `sharpness [T]`.

    Source: this project's own.
    """
    behind = scores - scores.amax(-1, keepdim=True)
    odds = (behind[..., None, :] * sharpness[:, None]).exp_()
    # For a few classes the product is twice as fast as a sum.
    total = odds @ odds.new_ones(scores.shape[-1], 1)
    return odds.mul_((1 - FLOOR) / total).add_(FLOOR / scores.shape[-1])


def log_density(y: Tensor, mean: Tensor, noise: Tensor) -> Tensor:
    """Return the log density of y under each expert and each of the Student distributions `TAILS`.

    Args:
        y: of shape `[..., C]`; the densities of its C columns are summed.
        mean: of shape `[..., E, C]`.
        noise: variances of shape `[..., E, C]`, positive.

    Returns:
        Log densities of shape `[..., E, T]`.

    Example:
        >>> import torch
        >>> from gradatim.nn.mixture import log_density
        >>> log_density(torch.zeros(1), torch.zeros(2, 1), torch.ones(2, 1)).shape
        torch.Size([2, 15])

    Source: Student 1908.
    """
    scale, freedom = _tails(mean).unbind(1)
    width = scale[:, None] * noise.sqrt()[..., None, :]
    apart = ((y[..., None, :] - mean)[..., None, :] / width).square()
    freedom = freedom[:, None]
    constant = torch.lgamma((freedom + 1) / 2) - torch.lgamma(freedom / 2) - (freedom * math.pi).log() / 2
    return (constant - width.log() - (freedom + 1) / 2 * (apart / freedom).log1p()).sum(-1)


def cumulative(y: Tensor, mean: Tensor, noise: Tensor) -> Tensor:
    """Return the cumulative probability of y under each expert and each of the Student distributions `TAILS`.

    Args:
        y: of shape `[...]`.
        mean: of shape `[..., E]`.
        noise: variances of shape `[..., E]`, positive.

    Returns:
        Probabilities of shape `[..., E, T]`.

    Example:
        >>> import torch
        >>> from gradatim.nn.mixture import cumulative
        >>> cumulative(torch.tensor(0.0), torch.zeros(1), torch.ones(1)).unique()
        tensor([0.5000])

    Source: Abramowitz, Stegun 1964, 26.7.3-4.
    """
    scale, freedom = _tails(mean).unbind(1)
    return _student((y[..., None] - mean)[..., None] / (scale * noise.sqrt()[..., None]), freedom)


def cumulative_at(y: Tensor, means: Tensor, noise: Tensor, weight: Tensor) -> Tensor:
    """Return the cumulative probability of y `[B, N]` under the mixtures of its rows, `[B, N]`.

    Args:
        y: `[B, N]`.
        means: `[B, N, E]`.
        noise: variances `[B, E]`, positive.
        weight: `[B, E, T]`, sums to 1.

    Example:
        >>> import torch
        >>> from gradatim.nn.mixture import TAILS, cumulative_at
        >>> weight = torch.full((1, 2, len(TAILS)), 0.5 / len(TAILS))
        >>> cumulative_at(torch.ones(1, 1), torch.tensor([[[0.0, 2.0]]]), torch.ones(1, 2), weight).round(decimals=4)
        tensor([[0.5000]])

    Source: Raftery et al. 1997, eq. 1.
    """
    expert, tail = (weight > 0).any(0).nonzero(as_tuple=True)
    scale, freedom = _tails(means).unbind(1)
    width = (scale[tail] * noise[:, expert].sqrt())[:, None]
    below = _student((y[..., None] - means[..., expert]) / width, freedom[tail])
    return (weight[:, None, expert, tail] * below).sum(2)


def _tails(like: Tensor) -> Tensor:
    """Return `TAILS` as a tensor `[T, 2]`."""
    return torch.tensor(TAILS, dtype=like.dtype, device=like.device)


def _student(t: Tensor, freedom: Tensor) -> Tensor:
    """Return the cumulative probability of Student's t `[..., T]`, `freedom [T]` 3 or even (Abramowitz 26.7.3-4)."""
    probability = torch.empty_like(t)
    for degrees in freedom.unique().tolist():
        index = freedom == degrees
        angle = (t[..., index] / degrees**0.5).atan()
        sine, square = angle.sin(), angle.cos().square()
        if degrees == 3:
            inside = (angle + sine * angle.cos()) * 2 / math.pi
        else:
            term = total = torch.ones_like(sine)
            for k in range(2, int(degrees) - 1, 2):
                term = term * square * ((k - 1) / k)
                total = total + term
            inside = sine * total
        probability[..., index] = (1 + inside) / 2
    return probability
