"""Learnt steps on top of a learnt prior of class means: classes see one another, and each gets a prior of its own.

Source: Mittal et al. 2025, eq. 7 (a state refined by learnt steps); Ye et al. 2020 (attention between classes).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nn.attention import Transformer
from .class_means import PLDA, ClassSums
from .refined import Refined
from .statistics import check_inputs

if TYPE_CHECKING:
    from ..batch import Batch
    from ..signal import StepInput

_SPREAD = 3.0
"""By how many nats a step moves the variances of a class at most."""


class RefinedPLDA(Refined, PLDA):
    """The posterior of `PLDA`, refined by a few learnt steps before it predicts.

        token_c = (mean_c - m) / sqrt(w), log variance of the rows of c, log(1 + n_c), log(1 + n)
        m_c, w_c, v_c, a_c = h(tokens)_c
        p_c = 1 / w_c + n_c / v_c,   mean_c = (m_c / w_c + sum_c / v_c) / p_c

    h is a transformer over classes. A class attends to itself and to those that have rows, so classes without rows
    change nothing for others, and any number of classes is served. a_c is added to its score.

    The state holds sums of keys and of their squares by class: merging, forgetting and widening stay exact, and
    `Prefixes` trains it. All steps share h. Its last layer starts at zero: untrained, it is `PLDA`.

    Args:
        keys: K, the width of a key.
        classes: C.
        steps: how many are taken.
        units: the width of a token, a multiple of 4.

    Raises:
        ValueError: no step, or units that are no multiple of 4.

    Example:
        >>> from gradatim.refiners import RefinedPLDA
        >>> RefinedPLDA(keys=8, classes=3).init(n_tasks=2).sums.shape
        torch.Size([2, 3, 16])

    Source: Mittal et al. 2025, eq. 7; Ye et al. 2020, section 3.3 (a set of prototypes through a transformer).
    """

    def __init__(self, keys: int, classes: int, steps: int = 1, units: int = 64) -> None:
        super().__init__(keys, classes)
        if steps < 1 or units < 4 or units % 4:
            raise ValueError(
                f"a refinement has at least one step, and units that 4 heads divide; got {steps} steps, {units} units"
            )
        self.steps = steps
        self.token = nn.Linear(2 * keys + 2, units)
        self.transformer = Transformer(units, layers=1, heads=4)
        self.last = nn.Linear(units, 3 * keys + 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.keep_all()

    def init(self, n_tasks: int, query: Batch | None = None) -> ClassSums:
        """Return the sums over no rows, of keys and their squares, of `n_tasks` tasks."""
        sums = self.like.double().new_zeros(n_tasks, self.classes, 2 * self.keys)
        return ClassSums(sums.new_zeros(n_tasks, self.classes), sums, sums.new_zeros(n_tasks))

    def heads(self, state: ClassSums) -> tuple[Tensor, Tensor, Tensor]:
        """Return what multiplies k and k^2 `[B, C, K]` in the score of each class, and what is added `[B, C]`."""
        gate = self.gate(state.rows)[:, None, None]
        center, log_between, log_within = self.mean, self.log_between, self.log_within
        mean, precision = self._posterior(state, center, log_between, log_within)
        score = state.counts.new_zeros(())
        for _ in range(self.steps):
            moved = self._moves(state, mean) * gate
            shift, wider, looser = moved[..., :-1].unflatten(-1, (3, self.keys)).unbind(-2)
            center = self.mean + shift * (self.log_between / 2).exp()
            log_between = self.log_between + _SPREAD * torch.tanh(wider / _SPREAD)
            log_within = self.log_within + _SPREAD * torch.tanh(looser / _SPREAD)
            mean, precision = self._posterior(state, center, log_between, log_within)
            score = moved[..., -1]
        variance = 1 / precision + log_within.exp()
        temperature = F.softplus(self.temperature[0] + self.temperature[1] * state.rows.log1p())[:, None]
        constant = -temperature / 2 * (mean.square() / variance + variance.log()).sum(-1)
        bias = self.bias[0] * (state.counts == 0) + self.bias[1] * state.counts.log1p()
        sharp = temperature[..., None] / variance
        return sharp * mean, -sharp / 2, constant + bias + score

    def _posterior(
        self, state: ClassSums, center: Tensor, log_between: Tensor, log_within: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return mean and precision `[B, C, K]` of the class means under a prior `[K]`, or one of each class."""
        between, within = log_between.exp(), log_within.exp()
        precision = 1 / between + state.counts[..., None] / within
        return (center / between + state.sums[..., : self.keys] / within) / precision, precision

    def _moves(self, state: ClassSums, mean: Tensor) -> Tensor:
        """Return what a step says of each class, `[B, C, 3 K + 1]`, given the means that it is at."""
        counts, within = state.counts[..., None], self.log_within.exp()
        own = state.sums[..., : self.keys] / counts.clamp(min=1)
        squares = (state.sums[..., self.keys :] - state.sums[..., : self.keys] * own).clamp(min=0)
        variance = ((squares + within) / (counts.clamp(min=1) * within)).log()
        rows = state.rows[:, None, None].expand_as(counts)
        standard = (mean - self.mean) * (-self.log_between / 2).exp()
        tokens = self.token(torch.cat([standard, variance, counts.log1p(), rows.log1p()], dim=-1))
        seen = (state.counts > 0)[:, None]
        itself = torch.eye(state.counts.shape[1], dtype=torch.bool, device=seen.device)
        return self.last(self.transformer(tokens, seen | itself))

    def _sums(self, step_input: StepInput) -> ClassSums:
        inputs, batch = check_inputs(step_input, 2 * self.keys + 1)
        with torch.autocast(inputs.device.type, enabled=False):
            keys = inputs[..., :-1].double()
            member = F.one_hot(batch.y[..., 0], self.classes).to(keys) * batch.weight[..., None]
            return ClassSums(member.sum(1), member.mT @ keys, step_input.rows.double())
