"""How experts of merged states are weighed: by what sums over all rows say of each, and by what its parts have found.

Source: Golub, Heath, Wahba 1979, eq. 1.4 (cross-validation); Bishop 2006, eqs. 4.64-4.65 (Gaussian classes).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..nn.mixture import class_probabilities
from .heads import degrees_of_freedom, noise_variance, solve_heads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .heads import Factor
    from .statistics import Statistics

TRUST = 30.0
"""Rows for which the estimate from sums counts: it is off by some hundredths of a nat a row."""

ALIKE = {True: 2.0, False: 1.0}
"""The power of its share of the rows by which the likelihood that a part has found counts: of classes, of numbers."""

HALFWAY = 0.5
"""How far the sums decide how much experts of a number miss by: 0 as the parts have found, 1 as the sums say."""

DRAWS = 64
"""Scores that are drawn for each class."""


def merged_weights(experts: Any, states: Sequence[Any], moments: Statistics) -> tuple[Tensor, Tensor]:
    """Return what weighs experts on the rows of several states: log likelihood `[B, E, T]`, products of residuals.

    A part's likelihood is that of heads on the part's rows: it prefers simple experts. The fewer of the rows are in the
    part, the less it counts. In its place stands what the sums over all rows say, for `TRUST` rows:

        log w - TRUST f(moments) = sum_parts (rows of the part / rows)^ALIKE (log w - TRUST f(moments))_part

    Heads of a part miss by more, too, and some experts by far more than others. How the misses of two experts go
    together is known from the parts, each by its share of the rows. How large each is, `d^2`, the sums say as well, and
    halfway between the two is taken:

        products / (d d')^(1/2) = sum_parts (rows of the part / rows) (products / (d d')^(1/2))_part,  d = exp(-f)

    With products go the rows they stand for. So the order in which states are merged, and in which groups, changes
    nothing.

    Args:
        experts: the refiner (`Experts`).
        states: of the parts (`ExpertsState`), without rows that wait.
        moments: the sums over the rows of all parts.
    """
    foreseen = _foreseen(experts, states[0]._replace(moments=moments))
    found, together = TRUST * foreseen, torch.zeros_like(states[0].products)
    for state in states:
        of_part = _foreseen(experts, state)
        share = (state.moments.rows / moments.rows.clamp(min=1e-300)).clamp(max=1)[:, None, None]
        found = found + share ** ALIKE[experts.classes] * (state.log_likelihood - TRUST * of_part)
        if not experts.classes:
            together = together + share * state.products / _misses(experts, of_part)
    return found, together if experts.classes else together * _misses(experts, foreseen)


def _misses(experts: Any, foreseen: Tensor) -> Tensor:
    """Return `(d d')^(1/2)`, `[B, E + 1, E + 1]`, of what experts are foreseen to miss a row by, and of 1."""
    root = (-HALFWAY * foreseen[:, :, 0] / experts.outputs).exp()
    root = torch.cat([root, torch.ones_like(root[:, :1])], 1)
    return root[:, :, None] * root[:, None]


def _foreseen(experts: Any, state: Any) -> Tensor:
    """Return the mean log likelihood of a row that was left out, `[B, E, T]`, as far as sums over rows say it."""
    result = torch.zeros_like(state.log_likelihood)
    for factor in experts.factors(state):
        head = solve_heads(state.moments, factor)
        if experts.classes:
            result[:, factor.index] = class_log_likelihood(state.moments, factor, head)
        else:
            noise = noise_variance(state.moments, factor, head, experts.blocks[0] - 1)
            result[:, factor.index] = -noise.log().sum(-1, keepdim=True) / 2
    return result


def class_log_likelihood(moments: Statistics, factor: Factor, head: Tensor) -> Tensor:
    """Return the mean log likelihood `[B, S, T]` of the class of a row that was left out, were scores Gaussian.

    The sums hold the mean score of each class exactly, and the covariance of scores within classes. What a row that was
    left out scores is further from its code by `1 / (1 - h)`, h the mean of all rows.

    Args:
        moments: the sums over rows, of C classes regressed one-hot.
        factor: of S heads.
        head: `[B, S, d, C]`.

    Example:
        >>> import torch
        >>> from gradatim.refiners.foresight import class_log_likelihood
        >>> from gradatim.refiners.heads import factorise, solve_heads
        >>> from gradatim.refiners.statistics import Statistics
        >>> a = torch.eye(2).repeat(50, 1)  # a feature for each of two classes
        >>> moments = Statistics((a.T @ a)[None], (a.T @ a)[None], a.square().sum(0)[None], torch.full((1,), 100.0))
        >>> factor = factorise(moments, torch.arange(1), torch.arange(2), torch.ones(1))
        >>> class_log_likelihood(moments, factor, solve_heads(moments, factor)).shape
        torch.Size([1, 1, 7])

    Source: Bishop 2006, eqs. 4.64-4.65.
    """
    seen, counts, rows = factor.seen, moments.squares, moments.rows.clamp(min=1)
    classes = counts.shape[1]
    gram = moments.gram[:, None, seen][:, :, :, seen]
    means = (head.mT @ moments.cross[:, None, seen]) / counts.clamp(min=1e-300)[:, None, None]
    between = (means * counts[:, None, None]) @ means.mT
    within = (head.mT @ (gram @ head) - between) / rows[:, None, None, None]
    values, vectors = torch.linalg.eigh((within + within.mT) / 2)
    root = vectors * values.clamp(min=0).sqrt()[..., None, :]
    further = 1 / (1 - degrees_of_freedom(factor) / rows[:, None]).clamp(min=0.02)[..., None]
    spread = further[..., None] * (_normal(classes).to(head) @ root.mT)
    total = head.new_zeros(())
    for place, code in enumerate(torch.eye(classes).to(head)):
        scores = (code + further * (means[..., place] - code))[:, :, None] + spread
        mean = class_probabilities(scores)[..., place].log().mean(2)
        total = total + (counts[:, place] / rows)[:, None, None] * mean
    return total


def _normal(dim: int) -> Tensor:
    """Return the same normal numbers each time, evenly spread, `[DRAWS, dim]` float64."""
    even = torch.quasirandom.SobolEngine(dim, scramble=True, seed=0).draw(DRAWS, dtype=torch.float64)
    return torch.special.ndtri(even.clamp(1e-6, 1 - 1e-6))
