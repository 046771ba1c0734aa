"""h_phi: a transformer over tokens of the state, the rows of a mini-batch and the gradient, which moves the state.

Source: Mittal et al. 2025, eq. 7: `theta^(i+1) = h_phi(theta^(i), B^(i))`.
"""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from ..nn.attention import Transformer
from ..nn.sets import RowEmbedding, prefix_mask
from ..refiner import Capabilities, Refiner
from ..tree import tree_map
from .curvature import Preconditioner, RowSlopes, second_moments
from .gain import LearntGain, move, tail_weight
from .tokens import StateTokens, Trust

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..batch import Batch
    from ..signal import Signal, StepInput
    from .transformer_config import TransformerConfig


STEEPEST = 0.1
"""Largest root mean square of the gradient that a step sees of a network with hidden layers. Squared losses of such
networks are so curved that a few steps along steeper gradients overflow before a rate could be learnt."""


class TransformerState(NamedTuple):
    """The latent and what is carried beside it; fields that the config does not use are None.

    Fields: `latent [B, ...]`. `rows [B]`: how many were seen. `average [B, ...]` of the latents. `curvature [B, Q]`:
    second moments. `precision [B, ...]` of the latent. `memory [B, M, W]`: tokens. `past [B, history, 1 or 2, ...]`:
    the last latents and gradients, the newest first.
    """

    latent: Tensor
    rows: Tensor
    average: Tensor | None = None
    curvature: Tensor | None = None
    precision: Tensor | None = None
    memory: Tensor | None = None
    past: Tensor | None = None


class TransformerRefiner(Refiner):
    """`latent_{t+1} = latent_t + g_t * move(transformer([state, rows, slopes]))`, g_t the gain.

    With `config.precision`, `g_t = r_t / (p_0 + r_1 + ... + r_t)`, r_t the precision that comes with a proposal.
    Gradients of a network with hidden layers are scaled down to `STEEPEST` before they are seen or followed.

    Args:
        config: size and options.
        signal: what its steps will see.
        start: `[*latent_shape]`, where the learnt latent_0 starts.
        shapes: the latent's tokens, see `StateTokens`.
        x_dim: width of x.
        y_dim: width of y.
        classes: the number of classes, None where y is not one.
        output_dim: width of f's outputs.
        matrices: (rows, width) of the weight matrices in the latent, for its curvature.

    Raises:
        ValueError: shapes that do not make up the latent; in a step, a signal without inputs where they are needed;
            in a merge, states with memory tokens or a history.

    Example:
        >>> import torch
        >>> from gradatim import BOTH, Learner, LinearRegression
        >>> from gradatim.predictors import Network, SquaredError
        >>> from gradatim.refiners import TransformerConfig, TransformerRefiner
        >>> task = LinearRegression(3).sample(2, torch.Generator().manual_seed(0))
        >>> f = Network(3, SquaredError(), bias=False)
        >>> config, shapes = TransformerConfig(width=16), f.layout.shapes
        >>> refiner = TransformerRefiner(config, BOTH, f.initial(), shapes, 3, 1, None, f.output_dim)
        >>> Learner(f, refiner, BOTH).adapt(task.support, 32).latent.shape
        torch.Size([2, 3])

    Source: Mittal et al. 2025, eq. 7.
    """

    # set only where it applies, so that stored descriptions of other learners stay valid
    steepest: float | None = None

    def __init__(
        self,
        config: TransformerConfig,
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
        if len(matrices) > 1:
            self.steepest = STEEPEST
        self.needs_observations, self.needs_gradients = signal.observations, signal.gradients
        self.capabilities = Capabilities(
            prefixes=config.prefixes,
            merge=not (config.memory or config.history),
            greedy=not config.memory,
            # rows as tokens all count once; a gradient is a mean by weight
            weights=not signal.observations,
        )
        self.start = nn.Parameter(start.clone())
        self.gain = LearntGain(config.gain, tuple(start.shape)) if config.gain.learnt else config.gain
        self.needs_inputs = config.curvature is not None
        self.precondition = Preconditioner(matrices, config.proximal) if self.needs_inputs else None
        self.propose = None
        if self.needs_inputs and not signal.gradients:
            self.propose = RowSlopes(matrices, config.width)
        slopes = max(signal.gradients, self.needs_inputs) + (self.needs_inputs and not config.proximal)
        self.past = (1 + signal.gradients) * config.history
        self.tokens = StateTokens(shapes, tuple(start.shape), config.width, slopes + self.past, self.past)
        self.trust = Trust(self.tokens) if config.precision else None
        self.memory = None
        if config.memory:
            self.memory = nn.Parameter(torch.randn(config.memory, config.width) / config.width**0.5)
        self.count = nn.Linear(1, config.width, bias=False)
        self.rows = None
        if signal.observations:
            outputs = output_dim if signal.sees_outputs else 0
            self.rows = RowEmbedding(x_dim, y_dim, classes, config.width, outputs)
        self.transformer = Transformer(config.width, config.layers, config.heads)

    def init(self, n_tasks: int, query: Batch | None = None) -> TransformerState:
        """Return latent_0, the learnt start `[n_tasks, ...]`, of tasks that have seen no row."""
        latent = self.start.expand(n_tasks, *self.start.shape)
        average = None if self.config.tail is None else latent
        moments = None
        if self.precondition is not None and self._keeps_moments:
            moments = latent.new_zeros(n_tasks, self.precondition.size)
        precision = None if self.trust is None else self.trust.prior.exp() * torch.ones_like(latent)
        memory = None if self.memory is None else self.memory.expand(n_tasks, *self.memory.shape)
        past = None
        if self.config.history:
            past = torch.stack([latent, *[torch.zeros_like(latent)] * self.needs_gradients], dim=1)
            past = torch.stack([past] * self.config.history, dim=1)
        return TransformerState(latent, latent.new_zeros(n_tasks), average, moments, precision, memory, past)

    def step(self, state: TransformerState, step_input: StepInput) -> TransformerState:
        """Return the state moved by one mini-batch; with lengths, one state for each prefix, `[B * P, ...]`.

        Raises:
            ValueError: a signal without inputs where curvature needs them.
        """
        origin = state
        if self.steepest is not None and step_input.gradient is not None:
            step_input = step_input._replace(gradient=bounded(step_input.gradient, self.steepest))
        if step_input.lengths is not None:
            times = len(step_input.lengths)
            state = tree_map(lambda part: part.repeat_interleave(times, dim=0), state)
        latent, before, average, moments, precision, memory, past = state
        now = step_input.rows.to(latent.dtype)
        rows = None
        if self.rows is not None and step_input.batch is not None:
            rows = self.rows(step_input.batch.x, step_input.batch.y, step_input.outputs)
        slopes = () if step_input.gradient is None else (step_input.gradient,)
        if self.precondition is not None:
            descent = self._descent(state, step_input, rows)
            averaged = self._moments(state, step_input)
            moments = averaged if self._keeps_moments else None
            natural = self.precondition(descent, averaged, now, before)
            slopes = (natural,) if self.config.proximal else (descent, natural)
        along_past = self._along_past(state)
        refined = self._refine(origin, step_input, rows, (*slopes, *along_past))
        tokens = refined[:, : self.tokens.count]
        gain = self.gain(now, before)
        if self.trust is not None:
            trusted = self.trust(tokens, slopes, now)
            precision = precision + trusted
            gain = self.config.gain.value * trusted / precision
        if memory is not None:
            memory = move(memory, refined[:, self.tokens.count :], (now > 0).to(latent.dtype))
        freely, along = (gain**2, (now > 0).to(latent.dtype)) if self.config.proximal else (gain, gain)
        target = move(latent, latent + self.tokens.free(tokens), freely)
        if directions := (*slopes, *along_past):
            target = target - move(torch.zeros_like(latent), self.tokens.along(tokens, directions), along)
        if past is not None:
            newest = torch.stack(
                [latent, *([] if step_input.gradient is None else [step_input.gradient])], dim=1
            )
            seen = (now > 0).reshape(-1, *[1] * (past.dim() - 1))
            past = torch.where(seen, torch.cat([newest[:, None], past[:, :-1]], dim=1), past)
        if average is not None:
            average = move(average, target, tail_weight(now, before, self.config.tail or 0.0))
        return TransformerState(target, before + now, average, moments, precision, memory, past)

    def latent(self, state: TransformerState) -> Tensor:
        """Return the tail average `[B, ...]` where there is one, else the last iterate."""
        return state.latent if state.average is None else state.average

    def linearization_point(self, state: TransformerState) -> Tensor:
        """Return where signals are taken, `[B, ...]`: the last iterate, or with `at_average` what predictions read."""
        return self.latent(state) if self.config.at_average else state.latent

    def merge(self, states: Sequence[TransformerState]) -> TransformerState:
        """Return the mean of the states, weighted by rows; the product of Gaussians where there is a precision.

        It is close to the sequential pass once every shard is past its first steps, but not exact.

        Raises:
            ValueError: states with memory tokens or a history, whose mean has no meaning.
        """
        if self.config.memory or self.config.history:
            return super().merge(states)
        fields = {name: [getattr(state, name) for state in states] for name in TransformerState._fields}
        rows = torch.stack(fields["rows"])
        latent, precision = _mean(fields["latent"], rows), None
        if self.trust is not None:
            prior = self.trust.prior.exp()
            extra = (len(states) - 1) * prior
            precision = torch.stack(fields["precision"]).sum(0) - extra
            pulled = (torch.stack(fields["precision"]) * torch.stack(fields["latent"])).sum(0)
            latent = (pulled - extra * self.start) / precision
        average, curvature = (
            None if fields[name][0] is None else _mean(fields[name], rows)
            for name in ("average", "curvature")
        )
        return TransformerState(latent, rows.sum(0), average, curvature, precision)

    def with_tail(self, eta: float) -> TransformerRefiner:
        """Return this refiner, its weights shared, with predictions that read the tail average of the same iterates."""
        refiner = copy(self)
        refiner.config = replace(self.config, tail=eta)
        return refiner

    @property
    def _keeps_moments(self) -> bool:
        return self.config.curvature is not None and self.config.curvature.power > 0

    def _along_past(self, state: TransformerState) -> list[Tensor]:
        """Return the last latents minus the present one, and the last gradients, the newest first."""
        if state.past is None:
            return []
        latents, *gradients = state.past.unbind(2)
        differences = [earlier - state.latent for earlier in latents.unbind(1)]
        return differences + [gradient for part in gradients for gradient in part.unbind(1)]

    def _descent(self, state: TransformerState, step_input: StepInput, rows: Tensor | None) -> Tensor:
        """Return the gradient, or the direction that the rows propose in its place."""
        if self.propose is None or rows is None or step_input.inputs is None:
            assert step_input.gradient is not None
            return step_input.gradient
        rows = self._tile(rows, state.latent)
        return self.propose(rows, step_input.inputs, step_input.rows).view_as(state.latent)

    def _moments(self, state: TransformerState, step_input: StepInput) -> Tensor:
        """Return the second moments with those of the mini-batch averaged in."""
        if step_input.inputs is None:
            raise ValueError("this refiner needs the rows' inputs; got a signal without them")
        now = step_input.rows.to(state.rows.dtype)
        moments = second_moments(step_input.inputs, now, step_input.weight)
        if state.curvature is None or self.config.curvature is None:
            return moments
        return move(state.curvature, moments, self.config.curvature(now, state.rows))

    def _refine(
        self, state: TransformerState, step_input: StepInput, rows: Tensor | None, slopes: tuple[Tensor, ...]
    ) -> Tensor:
        """Return the refined tokens of state and memory `[B, K + M, W]`, or `[B * P, K + M, W]` with prefixes."""
        latent, n_tasks = state.latent, state.latent.shape[0]
        states = self.tokens.count + self.config.memory
        count = self.count(torch.log1p(step_input.rows.to(latent.dtype))[:, None, None])
        if rows is None or step_input.batch is None:
            tokens = self._embed(state, count, slopes) + count
            visible = torch.ones(1, 1, states, dtype=torch.bool, device=latent.device)
            return self.transformer(tokens, visible)
        batch = step_input.batch
        if not self.config.prefixes:
            tokens = torch.cat([self._embed(state, latent, slopes) + count, rows], dim=1)
            everywhere = torch.ones(n_tasks, states, dtype=torch.bool, device=latent.device)
            visible = torch.cat([everywhere, batch.mask], dim=1)[:, None]
            return self.transformer(tokens, visible, slice(states))
        lengths = step_input.lengths
        if lengths is None:
            lengths = torch.tensor([batch.n_rows])
        summaries = self._embed(state, count, slopes) + count
        summaries = summaries.reshape(n_tasks, -1, self.config.width)
        tokens = torch.cat([self._embed(state, latent), rows, summaries], dim=1)
        visible = prefix_mask(batch.mask, lengths, states)
        refined = self.transformer(tokens, visible, slice(states + batch.n_rows, None))
        return refined.reshape(-1, states, self.config.width)

    def _embed(self, state: TransformerState, like: Tensor, slopes: tuple[Tensor, ...] = ()) -> Tensor:
        """Return the tokens of latent and memory, repeated to `like`'s tasks."""
        tokens = self.tokens(self._tile(state.latent, like), slopes)
        return tokens if state.memory is None else torch.cat([tokens, self._tile(state.memory, like)], dim=1)

    @staticmethod
    def _tile(latent: Tensor, like: Tensor) -> Tensor:
        """Return latent `[B, ...]` repeated to `like`'s `[B * P]` tasks."""
        return latent.repeat_interleave(like.shape[0] // latent.shape[0], dim=0)


def bounded(gradient: Tensor, limit: float) -> Tensor:
    """Return each task's gradient `[B, ...]`, scaled to a root mean square of at most `limit`.

    Example:
        >>> import torch
        >>> from gradatim.refiners.transformer import bounded
        >>> bounded(torch.tensor([[3.0, 3.0], [0.5, 0.5]]), 1.0)
        tensor([[1.0000, 1.0000],
                [0.5000, 0.5000]])

    Source: Pascanu et al. 2013, algorithm 1.
    """
    # squares stay finite
    gradient = gradient.clamp(-1e15, 1e15)
    # clamped before the root, so that a gradient of zero has a finite slope
    size = gradient.flatten(1).square().mean(dim=1).clamp(min=limit**2).sqrt()
    return gradient * (limit / size).reshape(-1, *[1] * (gradient.dim() - 1))


def _mean(parts: list[Tensor], weights: Tensor) -> Tensor:
    """Return the mean of parts `[B, ...]` by weights `[S, B]` or `[S, B, ...]`, a plain one where all are zero."""
    total = weights.sum(0)
    share = torch.where(total > 0, weights / total.clamp(min=1e-12), 1 / len(parts))
    stacked = torch.stack(parts)
    return (share.reshape(*share.shape, *[1] * (stacked.dim() - share.dim())) * stacked).sum(0)
