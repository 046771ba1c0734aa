"""What experts answer with, apart from what they know: how old it may be, and how it is packed and carried over.

Source: Dawid 1984 (every row is predicted from rows before it); this project's own schedule.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from .experts import Experts

AGE = 0.02
"""Answers rest on all rows but this share of them at most; of up to 50 rows on all."""

SLOW = 25_600.0
"""From so many rows on answers are solved anew at even steps, of about 507 rows, and no longer at longer ones."""

PARTS = ("answer_experts", "answer_heads", "answer_weight", "answer_noise", "answer_widths")
"""What `pack_answer` returns, by name."""


def rows_due(before: float, weight: np.ndarray) -> int:
    """Return after how many of the next rows, of weights `[n]`, answers were due last; 0 if they were not.

    They are due where the sum of the weights passes a step of a fixed schedule. So when depends on the rows alone.

    Example:
        >>> import numpy as np
        >>> from gradatim.refiners.answers import rows_due
        >>> rows_due(0.0, np.ones(30)), rows_due(1000.0, np.ones(30)), rows_due(1009.0, np.ones(2))
        (30, 24, 0)
    """
    total = before + np.concatenate([[0.0], weight.cumsum()])
    if len(weight) == 0 or _level(total[-1:]) == _level(total[:1]):
        return 0
    level = _level(total)
    return int(np.flatnonzero(level[1:] > level[:-1])[-1]) + 1


def _level(total: np.ndarray) -> np.ndarray:
    """Return how many steps of the schedule sums of weights `[n]` have passed."""
    steps = np.log(np.clip(total, 1e-300, SLOW)) + np.maximum(total / SLOW, 1.0) - 1.0
    return np.floor(steps / math.log1p(AGE))


def pack_answer(experts: Experts, latent: Tensor) -> dict[str, Tensor]:
    """Return a latent of experts, of shape `[1, S]`, as tensors by name: of those that have a weight what they see."""
    theta, log_weight, noise, widths = _parts(experts, latent)
    chosen = (log_weight > -torch.inf).any(1).nonzero()[:, 0]
    heads = [theta[expert, experts.seen(int(expert))].flatten() for expert in chosen]
    parts = (chosen, torch.cat(heads), log_weight[chosen].exp(), noise, widths)
    return dict(zip(PARTS, parts, strict=True))


def unpack_answer(experts: Experts, tensors: dict[str, Tensor]) -> Tensor:
    """Return the latent `[1, S]` that `pack_answer` packed.

    Raises:
        ValueError: a tensor is missing or has another shape.
    """
    latent = experts.linearization_point(experts.init(1)).clone()
    theta, log_weight, noise, widths = _parts(experts, latent)
    chosen = tensors["answer_experts"].tolist()
    sizes = [experts.outputs * len(experts.seen(expert)) for expert in chosen if 0 <= expert < experts.count]
    shapes = (
        (len(sizes),),
        (sum(sizes),),
        (len(sizes), experts.variants),
        tuple(noise.shape),
        tuple(widths.shape),
    )
    for name, shape in zip(PARTS, shapes, strict=True):
        if name not in tensors or tensors[name].shape != shape:
            got = list(tensors[name].shape) if name in tensors else "nothing"
            raise ValueError(f"{name!r} must have shape {list(shape)}; got {got}")
    log_weight.fill_(-torch.inf)
    for at, head in enumerate(tensors["answer_heads"].to(theta).split(sizes)):
        theta[chosen[at], experts.seen(chosen[at])] = head.reshape(-1, experts.outputs)
        log_weight[chosen[at]] = tensors["answer_weight"][at].to(theta).log()
    noise.copy_(tensors["answer_noise"])
    widths.copy_(tensors["answer_widths"])
    return latent


def carry_answer(experts: Experts, wider: Experts, latent: Tensor, matrix: Tensor) -> Tensor:
    """Return a latent of experts, of shape `[1, S]`, as one of others, with these features and more: `matrix phi`."""
    theta, log_weight, noise, widths = _parts(experts, latent)
    theta = (matrix != 0).to(theta) @ theta  # every new feature is an old one, or new
    return torch.cat([theta.flatten(), log_weight.flatten(), noise.flatten(), widths])[None]


def _parts(experts: Experts, latent: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return views of a latent `[1, S]`: theta `[E, D, C]`, log weights `[E, T]`, noise `[E, C]`, widths."""
    count, width = experts.count, sum(experts.blocks)
    sizes = [count * width * experts.outputs, count * experts.variants, count * experts.outputs]
    theta, log_weight, noise, widths = latent[0].split([*sizes, latent.shape[1] - sum(sizes)])
    return (
        theta.view(count, width, experts.outputs),
        log_weight.view(count, -1),
        noise.view(count, -1),
        widths,
    )
