"""The mean of single refinements, one for each mini-batch: the baseline that iterating has to beat.

Source: Breiman 1996 (bagging), on disjoint mini-batches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from ..refiner import Capabilities, Refiner
from ..tree import tree_map
from .gain import DECAYING, move

if TYPE_CHECKING:
    from ..batch import Batch
    from ..signal import StepInput


class BaggedState(NamedTuple):
    """The mean of single refinements.

    Fields: `latent [B, ...]`: the mean, weighted by rows; `rows [B]`: how many were seen.
    """

    latent: Tensor
    rows: Tensor


class Bagged(Refiner):
    """`latent_t = mean over s <= t of read(step(init, batch_s))`, weighted by rows.

    Every mini-batch is refined on its own, from the same start. For a linear f the result is the mean of the
    predictions.

    Args:
        inner: the refiner of a single mini-batch.

    Raises:
        ValueError: an implicit refiner, whose state belongs to its queries.

    Example:
        >>> import torch
        >>> from gradatim import Learner, LinearRegression, build
        >>> from gradatim.refiners import Bagged
        >>> task = LinearRegression(4).sample(2, torch.Generator().manual_seed(0))
        >>> single = build("ridge", LinearRegression(4))
        >>> learner = Learner(single.predictor, Bagged(single.refiner), single.signal)
        >>> learner.adapt(task.support, 16).latent.shape
        torch.Size([2, 4])
    """

    def __init__(self, inner: Refiner) -> None:
        super().__init__()
        if inner.capabilities.per_query:
            raise ValueError(
                "bagging averages latents; an implicit state is a prediction for its own queries: wrap a parametric or "
                "explicit refiner"
            )
        self.inner = inner
        self.capabilities = Capabilities(
            prefixes=inner.capabilities.prefixes,
            weights=inner.capabilities.weights,
            learnt=inner.capabilities.learnt,
        )
        for need in ("needs_observations", "needs_gradients", "needs_inputs"):
            setattr(self, need, getattr(inner, need))

    def init(self, n_tasks: int, query: Batch | None = None) -> BaggedState:
        """Return the start of a single refinement."""
        latent = self.inner.latent(self.inner.init(n_tasks))
        return BaggedState(latent, latent.new_zeros(n_tasks))

    def step(self, state: BaggedState, step_input: StepInput) -> BaggedState:
        """Return the mean with one more refinement; with lengths, one state for each prefix, `[B * P, ...]`."""
        refined = self.inner.latent(self.inner.step(self.inner.init(len(state.rows)), step_input))
        if step_input.lengths is not None:
            times = len(step_input.lengths)
            state = tree_map(lambda part: part.repeat_interleave(times, dim=0), state)
        now = step_input.rows.to(state.rows.dtype)
        return BaggedState(move(state.latent, refined, DECAYING(now, state.rows)), state.rows + now)

    def latent(self, state: BaggedState) -> Tensor:
        """Return the mean `[B, ...]`."""
        return state.latent

    def linearization_point(self, state: BaggedState) -> Tensor:
        """Return the start `[B, ...]`: every mini-batch is refined from there."""
        return self.inner.linearization_point(self.inner.init(len(state.rows)))
