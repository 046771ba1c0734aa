"""How far a step moves: the paper's constant gain, or one that falls with the rows seen, so that errors average out.

Source: Robbins, Monro 1951 for decaying gains; Shamir, Zhang 2013, eq. 4, for polynomial-decay averaging.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Gain:
    """`g = value * (n / (N + n + prior)) ** power`, n rows in this mini-batch, N seen before it; 0 where n = 0.

    Fields:
        `power`: how fast steps shrink. 0 is the paper's constant (Markov) update, 1 is stochastic approximation, by
            rows.
        `value`: the factor in front.
        `prior`: the number of rows that the start counts for.
        `learnt`: whether the other fields are the start of a `LearntGain`, with a prior of at least 1 and a power in
            .02 .. .98.

    Raises:
        ValueError: a value that is not positive, a power outside [0, 1], a negative prior.

    Example:
        >>> import torch
        >>> from gradatim import Gain
        >>> Gain()(torch.tensor([16.0]), torch.tensor([48.0]))
        tensor([0.2500])
    """

    power: float = 1.0
    value: float = 1.0
    prior: float = 0.0
    learnt: bool = False

    def __post_init__(self) -> None:
        if not (self.value > 0 and 0 <= self.power <= 1 and self.prior >= 0):
            raise ValueError(
                f"a gain needs value > 0, power in [0, 1] and prior >= 0; got value {self.value}, power {self.power}, "
                f"prior {self.prior}"
            )

    def __call__(self, now: Tensor, before: Tensor) -> Tensor:
        """Return g `[B]` for `now [B]` rows after `before [B]` rows."""
        share = now / positive(before + now + self.prior)
        return self.value * share.pow(self.power) * (now > 0)


class LearntGain(nn.Module):
    """`g_i = value_i * (n / (N + n + prior)) ** power`, one value for each coordinate; all three are meta-trained.

    Args:
        start: the gain at which they start.
        shape: of the latent, without tasks.

    Example:
        >>> import torch
        >>> from gradatim.refiners.gain import DECAYING, LearntGain
        >>> LearntGain(DECAYING, (3,))(torch.tensor([16.0]), torch.tensor([48.0])).shape
        torch.Size([1, 3])
    """

    def __init__(self, start: Gain, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.log_value = nn.Parameter(torch.full(shape, math.log(start.value)))
        self.log_prior = nn.Parameter(torch.tensor(math.log(max(start.prior, 1.0))))
        odds = min(max(start.power, 0.02), 0.98)
        self.logit_power = nn.Parameter(torch.tensor(math.log(odds / (1 - odds))))

    def forward(self, now: Tensor, before: Tensor) -> Tensor:
        """Return g `[B, *shape]` for `now [B]` rows after `before [B]` rows."""
        share = now / positive(before + now + self.log_prior.exp())
        size = share.clamp(min=1e-12).pow(self.logit_power.sigmoid()) * (now > 0)
        return size.reshape(-1, *[1] * self.log_value.dim()) * self.log_value.exp()


CONSTANT = Gain(power=0.0)
DECAYING = Gain(power=1.0)


def tail_weight(now: Tensor, before: Tensor, eta: float) -> Tensor:
    """Return the weight `[B]` of the newest iterate in the tail average: `(1 + eta) n / (N + n + eta n)`.

    eta = 0 averages all iterates alike. A larger eta discounts early ones: about the last `1 / (1 + eta)` of the rows
    count.

    Args:
        now: `[B]`, rows of this mini-batch.
        before: `[B]`, rows seen before it.
        eta: at least 0.

    Source: Shamir, Zhang 2013, eq. 4.
    """
    return (1 + eta) * now / positive(before + now + eta * now)


def positive(rows: Tensor) -> Tensor:
    """Return numbers of rows `[B, ...]` to divide by: 1 where there are none.

    Weights may sum to less than one row, so the count is not clamped.

    Example:
        >>> import torch
        >>> from gradatim.refiners.gain import positive
        >>> positive(torch.tensor([0.0, 0.5, 2.0]))
        tensor([1.0000, 0.5000, 2.0000])
    """
    return torch.where(rows > 0, rows, 1)


def move(old: Tensor, new: Tensor, gain: Tensor) -> Tensor:
    """Return `old + gain * (new - old)`, `[B, ...]`; old, bit for bit, where the gain is 0.

    Args:
        old: `[B, ...]`.
        new: like old.
        gain: `[B]`, or with more of old's dimensions.
    """
    gain = gain.reshape(*gain.shape, *[1] * (old.dim() - gain.dim())).to(old.dtype)
    return torch.where(gain == 0, old, old + gain * (new - old))


__all__ = ["CONSTANT", "DECAYING", "Gain", "LearntGain", "move", "positive", "tail_weight"]
