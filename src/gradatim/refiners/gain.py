"""How far a step moves: the paper's constant gain, or one that falls as rows are seen, so that errors average out.

Source: Robbins, Monro 1951 for decaying gains; Shamir, Zhang 2013, eq. 4, for polynomial-decay averaging.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Gain:
    """`g = value * (n / (N + n)) ** power`, n rows in this mini-batch, N rows seen before it; 0 where n = 0.

    power 0 is the paper's constant (Markov) update, power 1 the 1/(1+t) of stochastic approximation, weighted by rows.

    Raises:
        ValueError: a value that is not positive, or a power outside [0, 1].

    Example:
        >>> Gain()(torch.tensor([16.0]), torch.tensor([48.0]))
        tensor([0.2500])
    """

    power: float = 1.0
    value: float = 1.0

    def __post_init__(self) -> None:
        if not (self.value > 0 and 0 <= self.power <= 1):
            raise ValueError(
                f"a gain needs value > 0 and power in [0, 1]; got value {self.value}, power {self.power}"
            )

    def __call__(self, now: Tensor, before: Tensor) -> Tensor:
        """Return g `[B]` for `now [B]` rows after `before [B]` rows."""
        share = now / (before + now).clamp(min=1)
        return self.value * share.pow(self.power) * (now > 0)


CONSTANT = Gain(power=0.0)
DECAYING = Gain(power=1.0)


def tail_weight(now: Tensor, before: Tensor, eta: float) -> Tensor:
    """Return the weight `[B]` of the newest iterate in the tail average: `(1 + eta) n / (N + n + eta n)`.

    eta = 0 averages all iterates alike; a larger eta forgets early ones: about the last `1 / (1 + eta)` of the rows
    count.
    """
    return (1 + eta) * now / (before + now + eta * now).clamp(min=1)


def move(old: Tensor, new: Tensor, gain: Tensor) -> Tensor:
    """Return `old + gain * (new - old)`, gain `[B]` against tasks-first tensors; exactly old where gain is 0."""
    gain = gain.reshape(-1, *[1] * (old.dim() - 1)).to(old.dtype)
    return torch.where(gain == 0, old, old + gain * (new - old))


__all__ = ["CONSTANT", "DECAYING", "Gain", "move", "tail_weight"]
