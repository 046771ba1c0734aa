"""Ridge heads on blocks of features, of several strengths, averaged by how likely they found each row beforehand.

Source: Hoerl, Kennard 1970, eq. 2.1 (ridge); Dawid 1984 (prequential likelihood); Raftery et al. 1997, eq. 1.
"""

from __future__ import annotations

import math
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..nn.mixture import SHARPNESS, TAILS, class_probabilities, log_density
from ..nn.widths import Widths
from ..refiner import Capabilities, Refiner
from ..tree import where
from .base_rates import base_rates
from .experts_state import ExpertsState
from .foresight import merged_weights
from .heads import Factor, factorise, noise_variance, solve_heads
from .left_out import PIECE, answers_left_out, scores_left_out, widths_left_out
from .pending import Pending
from .schedule import due_experts, rows_enough
from .stacking import residual_products, stacked, without_negligible
from .statistics import Statistics, add, check_remainder, empty, mean_and_deviation, spread_classes
from .stored import pack_experts, unpack_experts
from .transformed import carried, rescaled
from .triangular import added_gram

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..batch import Batch
    from ..nn.fixed_features import FixedFeatures
    from ..signal import StepInput

VIEWS = ((0,), (0, 1), (0, 2), (0, 3), (0, 1, 2, 3, 4))
"""The families of features that an expert sees: x; x and one family; everything."""

STRENGTHS = (0.1, 1.0, 8.0, 32.0)
"""The strengths of an expert's ridge."""

STRONGER = (128.0, 512.0, 1e12)
"""Further strengths of experts that see x alone. The last one's answer is a constant."""

LATE = 512
"""Rows that wait at most before they are scored and added together: moments of many rows are cheaper."""


class Experts(Refiner):
    """`theta_e = (G_e + s_e I)^-1 M_e`, `log w_e = sum_n log p_e(y_n | rows before n)`: exact moments, shared by all.

    Expert e sees some families of phi(x) (`VIEWS`) under a ridge of strength s_e (`STRENGTHS`), which spares the weight
    of the feature that is 1. It answers in several ways: one-hot codes regressed and sharpened, or Student laws of
    several widths about the mean. Its weight is the likelihood that it gave to rows before it had learnt them. So the
    average of E T of them is behind the best by log(E T) nats at most. Means of a number are weighed so that their
    average would have missed these rows least (see `stacked`). G and M are the same for all, additive, and exact to
    merge. Of a few rows the mean of y says most, and of classes their shares (see `base_rates`).

    The heads that score rows change only when rows have grown by a quarter: before the first row at which they have.
    So what is learnt depends on the rows and their order, not on how they were cut into mini-batches. Until then rows
    wait as they came, at most `LATE` of them, and are scored and added together.

    Args:
        features: the map phi; a predictor that has the same one registers its buffers.
        outputs: C.
        classes: whether y is a class index.

    Raises:
        ValueError: in a step, rows of another width or none.

    Example:
        >>> import torch
        >>> from gradatim import Batch, Learner
        >>> from gradatim.nn.fixed_features import FixedFeatures
        >>> from gradatim.predictors import Committee, SquaredError
        >>> from gradatim.refiners import Experts
        >>> from gradatim.signal import PLAIN
        >>> features = FixedFeatures.draw(torch.randn(16, 2, generator=torch.Generator().manual_seed(0)))
        >>> experts = Experts(features, outputs=1)
        >>> learner = Learner(Committee(features, SquaredError(1), experts.count), experts, PLAIN)
        >>> x = torch.linspace(-1, 1, 100).repeat(2, 1).T[None]
        >>> state = learner.adapt(Batch(x, x.sum(2, keepdim=True)), batch_size=20)
        >>> round(learner.predict(torch.tensor([[[0.3, 0.3]]]), state).item(), 2)
        0.6

    Source: Hoerl, Kennard 1970, eq. 2.1; Dawid 1984, eq. 1; Raftery et al. 1997, eq. 1.
    """

    needs_observations = True
    keeps_rows = True
    like: Tensor

    def __init__(self, features: FixedFeatures, outputs: int, classes: bool = False) -> None:
        super().__init__()
        self._shared = (features,)  # in a tuple: registered, the state_dict would hold its buffers twice
        self.blocks = features.blocks if any(features.blocks[1:]) else features.blocks[:1]
        self.outputs, self.classes = outputs, classes
        self.capabilities = Capabilities(merge=True, widen=classes, score=True, weights=True, learnt=False)
        self.variants = len(SHARPNESS if classes else TAILS)
        views = (tuple(block for block in view if block < len(self.blocks)) for view in VIEWS)
        self.views = (*dict.fromkeys(views), VIEWS[0])
        self.strengths = (*[STRENGTHS] * (len(self.views) - 1), STRONGER)
        self.register_buffer("like", torch.zeros(()))

    @property
    def features(self) -> FixedFeatures:
        """Return the map phi."""
        return self._shared[0]

    @property
    def count(self) -> int:
        """Return E, the number of experts."""
        return sum(map(len, self.strengths))

    def init(self, n_tasks: int, query: Batch | None = None) -> ExpertsState:
        """Return experts who know nothing: all answer 0, the noise has variance 1."""
        width, experts = sum(self.blocks), self.count
        moments = empty(n_tasks, width, self.outputs, self.like.double())
        theta = moments.gram.new_zeros(n_tasks, experts, width, self.outputs)
        noise = theta.new_ones(n_tasks, experts, self.outputs)
        log_likelihood = theta.new_zeros(n_tasks, experts, self.variants)
        solved, size = theta.new_zeros(n_tasks), 0 if self.classes else experts + 1
        widths, products = (
            Widths.empty(n_tasks, theta, not self.classes),
            theta.new_zeros(n_tasks, size, size),
        )
        share, nothing = torch.zeros_like(log_likelihood[:, : max(0, size - 1)]), self._nothing(n_tasks)
        return ExpertsState(moments, theta, noise, solved, log_likelihood, products, share, widths, nothing)

    def step(self, state: ExpertsState, step_input: StepInput) -> ExpertsState:
        """Return the state after one more mini-batch `[B, N, x_dim]`: its rows wait, with those before them."""
        state = state._replace(pending=state.pending.learn(self._checked(step_input)))
        return self._absorbed(state) if state.pending.rows >= LATE else state

    def score(self, state: ExpertsState, step_input: StepInput, learnt: bool = False) -> ExpertsState:
        """Return the state with experts weighed by the rows `[B, N, x_dim]` of a mini-batch that is not learnt yet.

        With `learnt` the rows are among those learnt: heads are solved from all, and each row is scored as if it had
        been left out.
        """
        batch = self._checked(step_input)
        if not learnt:
            return state._replace(pending=state.pending.score(batch))
        state, scores = self.solve(state := self._absorbed(state), factors := self.factors(state)), []
        for piece in batch.split(PIECE):
            scores.append(scores_left_out(self, state, factors, piece))
            state = self._weighed(state, scores[-1], piece.y, piece.weight.to(state.theta))
        return state if self.classes else widths_left_out(self, state, torch.cat(scores, 1), batch)

    def left_out(self, state: ExpertsState, batch: Batch) -> Tensor:
        """Return what experts answer to rows `[B, N, ...]` among those learnt, each left out: `[B, N, C]`."""
        return answers_left_out(self, self._absorbed(state), batch)

    def settle(self, state: ExpertsState) -> ExpertsState:
        """Return the state with the rows that wait scored and learnt."""
        return self._absorbed(state)

    def solve(self, state: ExpertsState, factors: Sequence[Factor] | None = None) -> ExpertsState:
        """Return the state with heads solved from all its rows.

        `factors`: what `factors(state)` returned, where it has been computed already; other heads stay.
        """
        theta, noise = state.theta.clone(), state.noise.clone()
        for factor in self.factors(state) if factors is None else factors:
            index, head = factor.index, solve_heads(state.moments, factor)
            theta[:, index[:, None], factor.seen] = head
            if not self.classes:
                noise[:, index] = noise_variance(state.moments, factor, head, self.blocks[0] - 1)
        solved = state._replace(theta=theta, noise=noise, solved=state.moments.rows)
        if not self.classes:
            widths = state.widths.turned(mean_and_deviation(state.moments, self.blocks[0] - 1))
            solved = solved._replace(share=without_negligible(self.weights(state)), widths=widths)
        return _where(state.moments.rows > 0, solved, state)

    def factors(self, state: ExpertsState, wanted: Tensor | None = None) -> list[Factor]:
        """Return the Cholesky factors of every view's experts, or of those `wanted [B, E]`."""
        moments, factors, first = state.moments, [], 0
        for strengths in self.strengths:
            index = first + torch.arange(len(strengths), device=moments.gram.device)
            values = moments.gram.new_tensor(strengths)
            if wanted is not None:
                chosen = wanted[:, index].any(0)
                index, values = index[chosen], values[chosen]
            if len(index):
                factors.append(factorise(moments, index, self.seen(first), values, self.blocks[0] - 1))
            first += len(strengths)
        return factors

    def widen(self, state: ExpertsState, place: Tensor) -> ExpertsState:
        """Return the state of fewer classes as one of this refiner's: class c becomes `place[c]`, `place [C]`.

        Raises:
            ValueError: y is no class index, or places that are repeated or no classes.
        """
        if not self.classes:
            return super().widen(state, place)
        state, place = self._absorbed(state), place.to(state.theta.device)
        moments, theta = spread_classes(state.moments, place, self.outputs), state.theta
        theta = theta.new_zeros(*theta.shape[:3], self.outputs).index_copy(3, place, theta)
        noise = theta.new_ones(*theta.shape[:2], self.outputs).index_copy(2, place, state.noise)
        return state._replace(moments=moments, theta=theta, noise=noise)

    def weights(self, state: ExpertsState) -> Tensor:
        """Return the weights of the variants of experts without rows that wait, `[B, E, T]`: they sum to 1."""
        total = state.log_likelihood.clone()
        # the constant, which is last: as likely beforehand as all others together; of classes `base_rates` says it
        total[:, -1] += -torch.inf if self.classes else math.log(self.count - 1)
        weight = total.flatten(1).softmax(1).unflatten(1, (self.count, self.variants))
        if self.classes:
            return weight
        return stacked(state.products, weight.sum(2))[..., None] * total.softmax(2)

    def latent(self, state: ExpertsState) -> Tensor:
        """Return theta (0 without a weight), log weights (-inf where negligible) and noise, flat: `[B, S]`.

        In place of noise there is for classes what is added to their probabilities: see `base_rates`. Of a regression
        widths are the last.
        """
        state = self._absorbed(state)
        weight = without_negligible(self.weights(state))
        heard, stale = weight.any(2), state.solved < state.moments.rows
        if bool(stale.any()):
            state = _where(stale, self.solve(state, self.factors(state, heard)), state)
        theta, noise = torch.where(heard[..., None, None], state.theta, 0.0), state.noise
        if self.classes:
            noise = torch.zeros_like(noise)
            noise[:, 0] = base_rates(state.moments.squares, state.log_likelihood)
        parts = (theta.flatten(1), weight.log().flatten(1), noise.flatten(1), state.widths.joined)
        return torch.cat(parts, dim=1).to(self.like)

    def linearization_point(self, state: ExpertsState) -> Tensor:
        """Return zeros `[B, S]`: what enters a linear head does not depend on it."""
        width = self.count * ((sum(self.blocks) + 1) * self.outputs + self.variants)
        return self.like.expand(len(state.solved), width + state.widths.joined.shape[1])

    def merge(self, states: Sequence[ExpertsState]) -> ExpertsState:
        """Return the moments of all rows, exact, and experts weighed anew: see `merged_weights`."""
        states = [self._absorbed(state) for state in states]
        moments = add(*(state.moments for state in states))
        weights, products = merged_weights(self, states, moments)
        widths = reduce(Widths.merged, [state.widths for state in states])
        state = states[0]._replace(moments=moments, log_likelihood=weights, products=products, widths=widths)
        return self.solve(state)

    def without(self, state: ExpertsState, step_input: StepInput) -> ExpertsState:
        """Return the state without rows `[B, N, x_dim]` that were learnt: exact moments and heads.

        Of the weights the share stays that the rows left are of all: what the others have said of experts is not known.
        So this is not the capability `forget`, whose law is exactness.

        Raises:
            ValueError: the sums show that some of the rows are not in them.
        """
        moments = (state := self._absorbed(state)).moments
        for piece in self._checked(step_input).split(PIECE):
            weight = -piece.weight.to(state.theta)
            moments = self._added(moments, self.features(piece.x).to(weight), piece.y, weight)
        check_remainder(moments, self.classes or self.outputs == 1)
        share = (moments.rows / state.moments.rows.clamp(min=1e-300)).clamp(0, 1)
        return self.solve(state.counting(share)._replace(moments=moments))

    def carry(self, state: ExpertsState, matrix: Tensor) -> ExpertsState:
        """Return the state of rows whose features are `matrix phi`, `[D', D]`: exact moments.

        The state is of an `Experts` on D features, without rows that wait; this one has D'. Heads predict the same
        where every new feature is a multiple of an old one. Otherwise they are solved anew.
        """
        return carried(self, state._replace(pending=self._nothing(len(state.solved))), matrix)

    def rescale(self, state: ExpertsState, scale: float, shift: float) -> ExpertsState:
        """Return the state of a regression of `scale y + shift`: exact moments, heads and noise."""
        return rescaled(self, self._absorbed(state), scale, shift)

    def reweigh(self, state: ExpertsState, step_input: StepInput, factor: float) -> ExpertsState:
        """Return the state with experts weighed by rows among those learnt alone, each left out, times a factor."""
        state = self._absorbed(state)
        begun = self.init(len(state.solved))
        names = ("log_likelihood", "products", "widths")
        state = state._replace(**{name: getattr(begun, name) for name in names})
        return self.score(state, step_input, learnt=True).counting(state.solved.new_tensor([factor]))

    def pack(self, state: ExpertsState) -> tuple[ExpertsState, dict[str, Tensor]]:
        """Return the state without rows that wait, and its tensors by name: see `pack_experts`."""
        state = self._absorbed(state)
        return state, pack_experts(self, state)

    def unpack(self, tensors: dict[str, Tensor]) -> ExpertsState:
        """Return the state whose tensors `pack` returned.

        Raises:
            ValueError: a tensor is missing or has another shape.
        """
        return unpack_experts(self, tensors)

    def seen(self, expert: int) -> Tensor:
        """Return the features `[d]` that an expert sees."""
        place = torch.arange(sum(self.blocks), device=self.like.device).split(self.blocks)
        view = np.repeat(range(len(self.views)), [*map(len, self.strengths)])[expert]
        return torch.cat([place[block] for block in self.views[view]])

    def _checked(self, step_input: StepInput) -> Batch:
        """Return the rows of a mini-batch."""
        batch = step_input.batch
        if batch is None or batch.x.shape[2:] != (self.features.x_dim,):
            got = "no rows" if batch is None else f"x {tuple(batch.x.shape)}"
            raise ValueError(f"experts need observations, x [tasks, rows, {self.features.x_dim}]; got {got}")
        return batch

    def _nothing(self, n_tasks: int) -> Pending:
        """Return no rows that wait."""
        y = self.like.new_zeros(1, dtype=torch.int64) if self.classes else self.like.new_zeros(self.outputs)
        return Pending.empty(n_tasks, self.like.new_zeros(self.features.x_dim), y)

    def _absorbed(self, state: ExpertsState) -> ExpertsState:
        """Return the state with the rows that wait scored and then added to the moments.

        Where a row is to be scored and the rows before it have grown enough, heads are solved from these first.
        """
        waiting = state.pending
        while waiting.rows:
            before = state.moments.rows[:, None] + waiting.weight.cumsum(1) - waiting.weight
            due = (before > rows_enough(state.solved)[:, None]) & (waiting.scored > 0)
            first = int(due.any(0).nonzero()[0, 0]) if bool(due.any()) else waiting.rows
            if first == 0:
                wanted = due_experts(state.log_likelihood, state.solved, state.moments.rows)
                state = _where(due[:, 0], self.solve(state, self.factors(state, wanted)), state)
                continue
            for x, y, scored, weight in waiting.take(slice(first)).split(PIECE):
                a = self.features(x).to(state.theta)
                if bool(scored.any()):
                    scores = torch.einsum("bnd,bedc->bnec", a, state.theta)
                    state = self._widened(self._weighed(state, scores, y, scored), scores, y, scored)
                state = state._replace(moments=self._added(state.moments, a, y, weight))
            waiting = waiting.take(slice(first, None))
        return state._replace(pending=self._nothing(len(state.solved)))

    def _added(self, moments: Statistics, a: Tensor, y: Tensor, weight: Tensor) -> Statistics:
        """Return the moments with rows phi `[B, N, D]`, y `[B, N, Dy]` of weights `[B, N]` added."""
        gram, cross, squares, rows = moments
        codes = self.codes(y, cross.shape[2]).to(a)
        weighted = (a * weight[..., None]).mT
        return Statistics(
            added_gram(gram, a, weight),
            torch.baddbmm(cross, weighted, codes),
            squares + (codes.square() * weight[..., None]).sum(1),
            rows + weight.sum(1),
        )

    def _weighed(self, state: ExpertsState, scores: Tensor, y: Tensor, weight: Tensor) -> ExpertsState:
        """Return the state with experts weighed by scores `[B, N, E, C]`; what is at absent rows is dropped."""
        if self.classes:
            which = y[..., None, None, :].expand(*scores.shape[:3], self.variants, 1)
            density = class_probabilities(scores).gather(-1, which)[..., 0].log()
        else:
            density = log_density(y.to(scores), scores, state.noise[:, None].expand_as(scores))
            products = state.products + residual_products(scores, y.to(scores), weight, state.noise)
            state = state._replace(products=products)
        found = (density * weight[..., None, None]).sum(1)
        return state._replace(log_likelihood=state.log_likelihood + found)

    def _widened(self, state: ExpertsState, scores: Tensor, y: Tensor, weight: Tensor) -> ExpertsState:
        """Return the state whose widths have seen rows of scores `[B, N, E, C]`, beforehand; of classes as it is."""
        if self.classes:
            return state
        weight = weight * (state.solved > 0)[:, None]
        return state._replace(
            widths=state.widths.with_rows(state.mixture(scores), y[..., 0].to(scores), weight)
        )

    def codes(self, y: Tensor, outputs: int) -> Tensor:
        """Return y `[B, N, Dy]` as it is regressed: one-hot codes of classes, or numbers as they are."""
        return torch.nn.functional.one_hot(y[..., 0], outputs) if self.classes else y


def _where(mask: Tensor, new: ExpertsState, old: ExpertsState) -> ExpertsState:
    """Return the new state where `mask [B]` is true, the old where not; new for all tasks, nothing is copied."""
    return new if bool(mask.all()) else where(mask, new, old)
