"""What a stream shows of its learner's present loss, and the estimate made of it: bounded memory, no query row.

Source: Dawid 1984 (the prequential loss); the correction of its running mean is this project's own.
"""

from __future__ import annotations

import math
from itertools import pairwise, tee
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from ..nn.mlp import mlp
from ..predictor import weighted_mean
from ..tree import where

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..batch import Batch
    from ..learner import Learner

WINDOWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, math.inf)
"""Lengths, in mini-batches, of the exponential windows that are averaged over; the last is the whole stream."""

SIGNS = 4
FEATURES = len(WINDOWS) * SIGNS + 1


class Seen(NamedTuple):
    """What one mini-batch showed: the `state` after it, `signs [B, 4]`, and the `rows [B]` it had.

    Signs, none of them from a query row: the mini-batch's loss before it was learnt (the prequential loss), its loss
    after, its loss under the state that had seen nothing, and the mean entropy of the classes (a regression: the mean
    squared move of the answers). A task without rows has zeros.
    """

    state: Any
    signs: Tensor
    rows: Tensor


class Running(NamedTuple):
    """All an estimate remembers of a stream, of fixed size: `weight [B, W]` in rows, the signs' `mean [B, W, 4]`."""

    weight: Tensor
    mean: Tensor


@torch.no_grad()
def prequential(learner: Learner, batches: Iterable[Batch]) -> Iterator[Seen]:
    """Learn a stream, and yield what each mini-batch showed: its loss before it is learnt is an honest one, for free.

        signs[:, 0] = L(batch_t, state_{t-1})

    Raises:
        ValueError: no mini-batch, or a per-query (implicit) learner: it has no answer for rows of the support.

    Example:
        >>> for seen in prequential(learner, support.split(16)):
        ...     losses.append(seen.signs[:, 0])

    Source: Dawid 1984.
    """
    if learner.refiner.capabilities.per_query:
        raise ValueError(
            "a per-query (implicit) learner answers its queries only, so it has no loss on new mini-batches: use a "
            "parametric or explicit learner"
        )
    first, (fed, told) = None, tee(batches)
    for (old, new), batch in zip(pairwise(learner.states(fed)), told, strict=False):
        first = old if first is None else first
        losses = [learner.loss(batch, state) for state in (old, new, first)]
        yield Seen(new, torch.stack([*losses, _said(learner, batch, old, new)], dim=-1), batch.rows)


class LossEstimate(nn.Module):
    """`m_t = E[query loss of state_t | what the stream showed]`, from running means of the signs alone.

        m_t = mean_t exp(MLP(log features_t)),   mean_t = sum_{s <= t} n_s L(batch_s, state_{s-1}) / sum_{s <= t} n_s

    Features: the logs of the signs' means over exponential windows (`WINDOWS`), relative to `mean_t`, and the logs of
    `mean_t` and of the rows. Untrained, the MLP says 0 and the estimate is the averaged prequential loss.

    Args: `learner`: whose loss it is, kept by name in `loss`; `width` of the MLP's two hidden layers.

    Example:
        >>> estimate = LossEstimate(learner)
        >>> running = estimate.update(estimate.init(16), seen)
        >>> estimate(running).shape
        torch.Size([16])

    Source: Dawid 1984, for the running mean; the correction is this project's own.
    """

    center: Tensor
    scale: Tensor
    keep: Tensor

    def __init__(self, learner: Learner, width: int = 32) -> None:
        super().__init__()
        self.loss = _loss_name(learner)
        self.head = mlp(FEATURES, width, width, 1)
        self.direct = nn.Linear(FEATURES, 1)
        for part in (*self.head[-1].parameters(), *self.direct.parameters()):
            nn.init.zeros_(part)
        self.register_buffer("center", torch.zeros(FEATURES))
        self.register_buffer("scale", torch.eye(FEATURES))
        self.register_buffer("keep", torch.tensor([1 - 1 / window for window in WINDOWS]), persistent=False)

    def init(self, n_tasks: int) -> Running:
        """Return the memory of a stream that has shown nothing."""
        weight = self.center.new_zeros(n_tasks, len(WINDOWS))
        return Running(weight, weight[..., None].repeat(1, 1, SIGNS))

    def update(self, running: Running, seen: Seen) -> Running:
        """Return the memory after one more mini-batch; a task without rows in it keeps its own."""
        rows = seen.rows.to(running.weight)[:, None]
        weight = running.weight * self.keep + rows
        gain = (rows / weight.clamp(min=1e-12))[..., None]
        mean = running.mean + gain * (seen.signs.to(running.mean)[:, None] - running.mean)
        return where(seen.rows > 0, Running(weight, mean), running)

    def features(self, running: Running) -> Tensor:
        """Return `[B, F]`: the logs of `mean_t` and of 1 + rows, then of the other means over `mean_t`."""
        base = running.mean[:, -1:, 0].clamp(min=1e-12)
        ratios = (running.mean.flatten(1) / base).clamp(1e-4, 1e4)
        ratios = torch.cat([ratios[:, :-SIGNS], ratios[:, 1 - SIGNS :]], dim=1)
        return torch.cat([base.log(), running.weight[:, -1:].log1p(), ratios.log()], dim=1)

    def correction(self, features: Tensor) -> Tensor:
        """Return `log m_t - log mean_t`, `[...]`, from features `[..., F]`."""
        inputs = (features - self.center) @ self.scale
        return (self.head(inputs) + self.direct(inputs)).squeeze(-1)

    def forward(self, running: Running) -> Tensor:
        """Return the estimated loss of a query row under the present state, `[B]`."""
        return running.mean[:, -1, 0] * self.correction(self.features(running)).exp()

    def check(self, learner: Learner) -> None:
        """Raise ValueError where the learner has another loss or kind of refiner than this estimate is of."""
        if self.loss != _loss_name(learner):
            raise ValueError(
                f"this estimate is of {self.loss}; the learner has {_loss_name(learner)}: fit one for this learner"
            )


def _loss_name(learner: Learner) -> str:
    predictor = learner.predictor
    likelihood = type(getattr(predictor, "likelihood", predictor)).__name__
    return f"{likelihood} of {predictor.output_dim} outputs under {type(learner.refiner).__name__}"


def _said(learner: Learner, batch: Batch, old: Any, new: Any) -> Tensor:
    """Return the mean entropy of the classes at the rows, or the mean squared move of a regression's answers."""
    after = learner.predict(batch.x, new)
    if batch.y.is_floating_point():
        rows = (after - learner.predict(batch.x, old)).square().sum(-1)
    else:
        rows = -(after.softmax(-1) * after.log_softmax(-1)).sum(-1)
    return weighted_mean(rows, batch)
