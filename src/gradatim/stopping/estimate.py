"""An estimate of a learner's present query loss from the stream that it learns. It uses no query row.

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
"""Lengths of the exponential windows, in mini-batches. The last is the whole stream."""

STATISTICS = 4
FEATURES = len(WINDOWS) * STATISTICS + 1


class PrequentialStep(NamedTuple):
    """One step of a stream: the state after a mini-batch, and statistics of the mini-batch.

    The columns of `statistics`, for each task:

    - The loss of the mini-batch before it was learnt (the prequential loss).
    - Its loss after it was learnt.
    - Its loss under the initial state.
    - The mean entropy of the predicted classes. In a regression, the mean squared change of the predictions.

    They are zero for a task without rows.

    Fields:
        `state`: the state after the mini-batch.
        `statistics`: four numbers of each task, `[B, 4]`.
        `rows`: the sum of each task's row weights, `[B]`.
    """

    state: Any
    statistics: Tensor
    rows: Tensor


class RunningMeans(NamedTuple):
    """Running means of a stream's statistics over W exponential windows; its size does not grow with the stream.

    Fields: `weight`: `[B, W]`, in rows; `mean`: `[B, W, 4]`.
    """

    weight: Tensor
    mean: Tensor


@torch.no_grad()
def prequential(learner: Learner, batches: Iterable[Batch]) -> Iterator[PrequentialStep]:
    """Learn a stream, and yield the state and the statistics of each mini-batch.

        statistics[:, 0] = L(batch_t, state_{t-1})

    A loss measured before the mini-batch is learnt is unbiased, and needs no rows held out.

    Args:
        learner: of the parametric or explicit regime.
        batches: mini-batches of B tasks, x `[B, N, Dx]`.

    Yields:
        A `PrequentialStep` for each mini-batch, with `statistics [B, 4]`.

    Raises:
        ValueError: no mini-batch, or a per-query (implicit) learner: it has no prediction for rows of the support.

    Example:
        >>> import torch
        >>> from gradatim import LinearRegression, build
        >>> from gradatim.stopping import prequential
        >>> family = LinearRegression(4, noise_std=0.1)
        >>> support = family.sample(1, torch.Generator().manual_seed(0)).support
        >>> steps = list(prequential(build("ridge", family), support.split(40)))
        >>> losses = [step.statistics[0, 0].item() for step in steps]
        >>> len(losses), losses[-1] < losses[0]
        (4, True)

    Source: Dawid 1984.
    """
    if learner.refiner.capabilities.per_query:
        raise ValueError(
            "a per-query (implicit) learner answers its queries only, so it has no loss on new mini-batches: use a "
            "parametric or explicit learner"
        )
    initial, (learnt, scored) = None, tee(batches)
    for (before, after), batch in zip(pairwise(learner.states(learnt)), scored, strict=False):
        initial = before if initial is None else initial
        losses = [learner.loss(batch, state) for state in (before, after, initial)]
        change = _entropy_or_change(learner, batch, before, after)
        yield PrequentialStep(after, torch.stack([*losses, change], dim=-1), batch.rows)


class LossEstimate(nn.Module):
    """An estimate m_t of the query loss of state_t, given the statistics of the stream so far.

        m_t = mean_t exp(MLP(log features_t))
        mean_t = sum_{s <= t} n_s L(batch_s, state_{s-1}) / sum_{s <= t} n_s.

    The features are the logs of `mean_t` and of the number of rows, and the logs of the statistics' means over
    exponential windows (`WINDOWS`) relative to `mean_t`. The MLP starts at 0. An estimate that is not fitted is
    therefore the averaged prequential loss.

    Args:
        learner: whose loss is estimated; its name is stored in `loss`.
        width: of the two hidden layers of the MLP.

    Example:
        >>> import torch
        >>> from gradatim import LinearRegression, LossEstimate, build
        >>> from gradatim.stopping import prequential
        >>> family = LinearRegression(4, noise_std=0.1)
        >>> learner = build("ridge", family)
        >>> estimate = LossEstimate(learner)
        >>> means = estimate.init(n_tasks=16)
        >>> support = family.sample(16, torch.Generator().manual_seed(0)).support
        >>> for step in prequential(learner, support.split(40)):
        ...     means = estimate.update(means, step)
        >>> estimate(means).shape
        torch.Size([16])

    Source: Dawid 1984, for the running mean; the correction is this project's own.
    """

    center: Tensor
    scale: Tensor
    decay: Tensor

    def __init__(self, learner: Learner, width: int = 32) -> None:
        super().__init__()
        self.loss = _loss_name(learner)
        self.head = mlp(FEATURES, width, width, 1)
        self.direct = nn.Linear(FEATURES, 1)
        for part in (*self.head[-1].parameters(), *self.direct.parameters()):
            nn.init.zeros_(part)
        self.register_buffer("center", torch.zeros(FEATURES))
        self.register_buffer("scale", torch.eye(FEATURES))
        self.register_buffer("decay", torch.tensor([1 - 1 / window for window in WINDOWS]), persistent=False)

    def init(self, n_tasks: int) -> RunningMeans:
        """Return the running means before the first mini-batch: `weight [B, W]` and `mean [B, W, 4]`, all zero."""
        weight = self.center.new_zeros(n_tasks, len(WINDOWS))
        return RunningMeans(weight, weight[..., None].repeat(1, 1, STATISTICS))

    def update(self, means: RunningMeans, step: PrequentialStep) -> RunningMeans:
        """Return the running means after one more mini-batch; those of tasks without rows in it do not change."""
        rows = step.rows.to(means.weight)[:, None]
        weight = means.weight * self.decay + rows
        gain = (rows / weight.clamp(min=1e-12))[..., None]
        mean = means.mean + gain * (step.statistics.to(means.mean)[:, None] - means.mean)
        return where(step.rows > 0, RunningMeans(weight, mean), means)

    def features(self, means: RunningMeans) -> Tensor:
        """Return features `[B, F]`: the logs of `mean_t`, of 1 + rows, and of the other means over `mean_t`."""
        base = means.mean[:, -1:, 0].clamp(min=1e-12)
        ratios = (means.mean.flatten(1) / base).clamp(1e-4, 1e4)
        ratios = torch.cat([ratios[:, :-STATISTICS], ratios[:, 1 - STATISTICS :]], dim=1)
        return torch.cat([base.log(), means.weight[:, -1:].log1p(), ratios.log()], dim=1)

    def correction(self, features: Tensor) -> Tensor:
        """Return `log m_t - log mean_t` of shape `[...]` from features `[..., F]`."""
        inputs = (features - self.center) @ self.scale
        return (self.head(inputs) + self.direct(inputs)).squeeze(-1)

    def forward(self, means: RunningMeans) -> Tensor:
        """Return the estimated loss of a query row under the present state, `[B]`."""
        return means.mean[:, -1, 0] * self.correction(self.features(means)).exp()

    def check(self, learner: Learner) -> None:
        """Check that the estimate was made for this kind of learner.

        Raises:
            ValueError: the learner has another loss or another kind of refiner.
        """
        if self.loss != _loss_name(learner):
            raise ValueError(
                f"this estimate is of {self.loss}; the learner has {_loss_name(learner)}: fit one for this learner"
            )


def _loss_name(learner: Learner) -> str:
    """Return a name of the learner's loss and refiner."""
    predictor = learner.predictor
    likelihood = type(getattr(predictor, "likelihood", predictor)).__name__
    return f"{likelihood} of {predictor.output_dim} outputs under {type(learner.refiner).__name__}"


def _entropy_or_change(learner: Learner, batch: Batch, before: Any, after: Any) -> Tensor:
    """Return the mean entropy of predicted classes, or the mean squared change of a regression's outputs, `[B]`."""
    outputs = learner.predict(batch.x, after)
    if batch.y.is_floating_point():
        rows = (outputs - learner.predict(batch.x, before)).square().sum(-1)
    else:
        rows = -(outputs.softmax(-1) * outputs.log_softmax(-1)).sum(-1)
    return weighted_mean(rows, batch)
