"""h_phi: a transformer over tokens of the state, the rows of a mini-batch and the gradient moves the state.

Source: Mittal et al. 2025, eq. 7: `theta^(i+1) = h_phi(theta^(i), B^(i))`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from ..nn.attention import Transformer
from ..nn.sets import RowEmbedding, prefix_mask
from ..refiner import Capabilities, Refiner
from ..tree import tree_map
from .curvature import Preconditioner, RowSlopes, second_moments
from .gain import DECAYING, Gain, move, tail_weight
from .tokens import StateTokens

if TYPE_CHECKING:
    from ..batch import Batch
    from ..signal import Evidence, Signal


@dataclass(frozen=True)
class RowsConfig:
    """Size and habits of the transformer refiner.

    Fields: `width`, `layers`, `heads` of the transformer; `gain`: how far a step moves; `prefixes`: True, one pass
    answers for many prefix lengths, and rows see only themselves and the state; False, rows see each other, and every
    length is a pass of its own; `tail`: eta of the tail average that predictions read (None: the last iterate);
    `curvature`: where the latent is made of weight matrices, the gradient, or a direction that the rows propose where
    no gradient is seen, is seen preconditioned as well, by second moments of what multiplies the weights, averaged over
    mini-batches with this gain (power 0: of the newest mini-batch, 1: of all rows seen; None: no such thing).
    """

    width: int = 64
    layers: int = 2
    heads: int = 4
    gain: Gain = DECAYING
    prefixes: bool = False
    tail: float | None = None
    curvature: Gain | None = None


class RowsState(NamedTuple):
    """`latent [B, ...]`, `rows [B]`: how many it has seen, `average [B, ...]` of the latents, or None, and the second
    moments `curvature [B, Q]`, or None."""

    latent: Tensor
    rows: Tensor
    average: Tensor | None
    curvature: Tensor | None


class RowsRefiner(Refiner):
    """`latent_{t+1} = latent_t + g_t * move(transformer([state, rows, slopes]))`, g_t the gain.

    Args: `config`; `signal`: what its steps will see; `start [*latent_shape]`: the learnt latent_0 starts there;
    `shapes`: the latent's tokens, see `StateTokens`; `x_dim`, `y_dim`, `classes`, `output_dim`: widths of the rows;
    `matrices`: shapes of the weight matrices in the latent, for its curvature.

    Raises:
        ValueError: shapes that do not make up the latent.
    """

    def __init__(
        self,
        config: RowsConfig,
        signal: Signal,
        start: Tensor,
        shapes: tuple[tuple[int, int], ...],
        x_dim: int,
        y_dim: int,
        classes: int | None,
        output_dim: int,
        matrices: tuple[tuple[int, int], ...] = (),
    ) -> None:
        super().__init__()
        if sum(rows * width for rows, width in shapes) != start.numel():
            raise ValueError(
                f"tokens of shapes {shapes} do not make up a latent of shape {tuple(start.shape)}"
            )
        self.config = config
        self.needs_observations, self.needs_gradients = signal.observations, signal.gradients
        self.capabilities = Capabilities(prefixes=config.prefixes)
        self.start = nn.Parameter(start.clone())
        self.needs_inputs = config.curvature is not None
        self.precondition = Preconditioner(matrices) if self.needs_inputs else None
        self.propose = None
        if self.needs_inputs and not signal.gradients:
            self.propose = RowSlopes(matrices, config.width)
        slopes = max(signal.gradients, self.needs_inputs) + self.needs_inputs
        self.tokens = StateTokens(shapes, tuple(start.shape), config.width, slopes)
        self.count = nn.Linear(1, config.width, bias=False)
        self.rows = None
        if signal.observations:
            outputs = output_dim if signal.sees_outputs else 0
            self.rows = RowEmbedding(x_dim, y_dim, classes, config.width, outputs)
        self.transformer = Transformer(config.width, config.layers, config.heads)

    def init(self, n_tasks: int, query: Batch | None = None) -> RowsState:
        """Return latent_0, the learnt start, for n_tasks tasks that have seen no row."""
        latent = self.start.expand(n_tasks, *self.start.shape)
        average = None if self.config.tail is None else latent
        moments = self.precondition and latent.new_zeros(n_tasks, self.precondition.size)
        return RowsState(latent, latent.new_zeros(n_tasks), average, moments)

    def step(self, state: RowsState, evidence: Evidence) -> RowsState:
        """Return the state moved by one mini-batch; with lengths, one state for each prefix, `[B * P, ...]`."""
        origin = state.latent
        if evidence.lengths is not None:
            times = len(evidence.lengths)
            state = tree_map(lambda part: part.repeat_interleave(times, dim=0), state)
        latent, before, average, moments = state
        now = evidence.rows.to(latent.dtype)
        rows = None
        if self.rows is not None and evidence.batch is not None:
            rows = self.rows(evidence.batch.x, evidence.batch.y, evidence.outputs)
        slopes = () if evidence.gradient is None else (evidence.gradient,)
        if self.precondition is not None:
            descent = self._descent(state, evidence, rows)
            moments = self._moments(state, evidence)
            slopes = (descent, self.precondition(descent, moments))
        tokens = self._refine(origin, evidence, rows, slopes)
        proposal = latent + self.tokens.move(tokens, slopes)
        moved = move(latent, proposal, self.config.gain(now, before))
        if average is not None:
            average = move(average, moved, tail_weight(now, before, self.config.tail or 0.0))
        return RowsState(moved, before + now, average, moments)

    def read(self, state: RowsState) -> Tensor:
        """Return the tail average where one is kept, else the last iterate."""
        return state.latent if state.average is None else state.average

    def at(self, state: RowsState) -> Tensor:
        """Return the last iterate: signals are taken there."""
        return state.latent

    def _descent(self, state: RowsState, evidence: Evidence, rows: Tensor | None) -> Tensor:
        """Return the gradient, or the direction that the rows propose in its place."""
        if self.propose is None or rows is None or evidence.inputs is None:
            assert evidence.gradient is not None
            return evidence.gradient
        rows = self._tile(rows, state.latent)
        return self.propose(rows, evidence.inputs, evidence.rows).view_as(state.latent)

    def _moments(self, state: RowsState, evidence: Evidence) -> Tensor:
        """Return the second moments with those of the mini-batch averaged in."""
        if evidence.inputs is None:
            raise ValueError("this refiner needs the rows' inputs; got a signal without them")
        assert state.curvature is not None and self.config.curvature is not None
        now = evidence.rows.to(state.rows.dtype)
        moments = second_moments(evidence.inputs, now)
        return move(state.curvature, moments, self.config.curvature(now, state.rows))

    def _refine(
        self, latent: Tensor, evidence: Evidence, rows: Tensor | None, slopes: tuple[Tensor, ...]
    ) -> Tensor:
        """Return the refined tokens of the state `[B, K, W]`, or `[B * P, K, W]` with prefixes."""
        n_tasks, states = latent.shape[0], self.tokens.count
        count = self.count(torch.log1p(evidence.rows.to(latent.dtype))[:, None, None])
        if rows is None or evidence.batch is None:
            tokens = self.tokens(self._tile(latent, count), slopes) + count
            visible = torch.ones(1, 1, states, dtype=torch.bool, device=latent.device)
            return self.transformer(tokens, visible)
        batch = evidence.batch
        if not self.config.prefixes:
            tokens = torch.cat([self.tokens(latent, slopes) + count, rows], dim=1)
            everywhere = torch.ones(n_tasks, states, dtype=torch.bool, device=latent.device)
            visible = torch.cat([everywhere, batch.mask], dim=1)[:, None]
            return self.transformer(tokens, visible, slice(states))
        lengths = evidence.lengths
        if lengths is None:
            lengths = torch.tensor([batch.n_rows])
        summaries = self.tokens(self._tile(latent, count), slopes) + count
        summaries = summaries.reshape(n_tasks, -1, self.config.width)
        tokens = torch.cat([self.tokens(latent), rows, summaries], dim=1)
        visible = prefix_mask(batch.mask, lengths, states)
        refined = self.transformer(tokens, visible, slice(states + batch.n_rows, None))
        return refined.reshape(-1, states, self.config.width)

    @staticmethod
    def _tile(latent: Tensor, like: Tensor) -> Tensor:
        """Return latent `[B, ...]` repeated to `like`'s `[B * P]` tasks."""
        return latent.repeat_interleave(like.shape[0] // latent.shape[0], dim=0)
