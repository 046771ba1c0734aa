"""Ridge heads on blocks of features, of several strengths, averaged by how likely they found each row beforehand.

Source: Hoerl, Kennard 1970, eq. 2.1 (ridge); Dawid 1984 (prequential likelihood); Raftery et al. 1997, eq. 1;
Golub, Heath, Wahba 1979, eq. 1.4 (the noise); Allen 1974 (rows left out).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..nn.mixture import SHARPNESS, TAILS, chances, log_density
from ..refiner import Capabilities, Refiner
from ..tree import where
from .statistics import Statistics, add, check_inputs, empty

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..batch import Batch
    from ..signal import StepInput

VIEWS = ((0,), (0, 1), (0, 2), (0, 3), (0, 1, 2, 3, 4))
"""The blocks that an expert sees, those that are there: x; x and one family of features; everything."""

STRENGTHS = (0.1, 1.0, 8.0, 32.0)
GROWTH = 0.5
"""Heads that only score rows are solved again when the rows have grown by it."""

BEHIND = 12.0
"""Nats by which the best of an expert's variants may trail before its head is left as it is."""

NEGLIGIBLE = 1e-4
"""A weight below it is taken as none."""

EXACT = 10_000
"""Rows up to which each is left out by itself; of more, the mean is exact enough, and much faster."""

RESOLVED = 1e-7
"""Of the mean square of y: the least noise that moments rounded to float32 can tell from none."""

ROUNDING = 3e-6
"""Of a feature's own second moment, added to every strength: moments rounded to float32 stay positive definite."""


class Factor(NamedTuple):
    """Of the experts `index [S]` that see the features `seen [d]`: Cholesky factors `lower [B, S, d, d]` of G + s I."""

    index: Tensor
    seen: Tensor
    lower: Tensor


class ExpertsState(NamedTuple):
    """Sums over rows, `moments`; the heads that score the next rows, `theta [B, E, D, C]` with `noise [B, E, C]`,
    solved after `solved [B]` rows; `log_likelihood [B, E, T]` of all rows, each as it was before it was learnt."""

    moments: Statistics
    theta: Tensor
    noise: Tensor
    solved: Tensor
    log_likelihood: Tensor


class Experts(Refiner):
    """`theta_e = (G_e + s_e I)^-1 M_e`, `log w_e = sum_n log p_e(y_n | rows before n)`: exact moments, shared by all.

    Expert e sees some blocks of phi(x) (`VIEWS`) under a ridge of strength s_e (`STRENGTHS`), and answers in several
    ways: one-hot codes regressed and sharpened, or Student tails of several widths about the mean. Its weight is the
    likelihood it gave to rows before it had seen them, so scores so far decide: the average of E T of them is behind
    the best by log(E T) nats at most. G and M are the same for all, additive, and exact to merge.

    Args: `blocks`: widths of x with 1, and of up to four families of features; `outputs` C; `classes`: whether y is a
    class index.

    Raises:
        ValueError: no block, or more than five; in a step, inputs of another width.

    Example:
        >>> f = Committee(8, CrossEntropy(3), 20, torch.randn(16, 8), products=10)
        >>> learner = Learner(f, Experts(f.blocks, 3, classes=True), CLOSED_FORM)

    Source: Hoerl, Kennard 1970, eq. 2.1; Dawid 1984, eq. 1; Raftery et al. 1997, eq. 1.
    """

    capabilities = Capabilities(merge=True, learnt=False)
    needs_observations = True
    needs_inputs = True
    like: Tensor

    def __init__(self, blocks: Sequence[int], outputs: int, classes: bool = False) -> None:
        super().__init__()
        if not 1 <= len(blocks) <= 5 or min(blocks) < 0 or blocks[0] < 1:
            raise ValueError(f"experts see one to five blocks, the first not empty; got {tuple(blocks)}")
        self.blocks, self.outputs, self.classes = tuple(blocks), outputs, classes
        self.variants = len(SHARPNESS if classes else TAILS)
        there = (tuple(block for block in view if block < len(blocks)) for view in VIEWS)
        self.views = tuple(dict.fromkeys(there))
        self.register_buffer("like", torch.zeros(()))

    @property
    def count(self) -> int:
        """Return E, the number of experts."""
        return len(self.views) * len(STRENGTHS)

    def init(self, n_tasks: int, query: Batch | None = None) -> ExpertsState:
        """Return experts who know nothing: all answer 0, the noise has variance 1."""
        width, experts = sum(self.blocks), self.count
        moments = empty(n_tasks, width, self.outputs, self.like.double())
        theta = moments.gram.new_zeros(n_tasks, experts, width, self.outputs)
        noise = theta.new_ones(n_tasks, experts, self.outputs)
        none = theta.new_zeros(n_tasks)
        return ExpertsState(moments, theta, noise, none, theta.new_zeros(n_tasks, experts, self.variants))

    def step(self, state: ExpertsState, step_input: StepInput) -> ExpertsState:
        """Return the state after one more mini-batch: scored, then learnt."""
        inputs, batch = check_inputs(step_input, sum(self.blocks))
        a, weight = inputs.to(state.theta), batch.weight.to(state.theta)
        scored = state._replace(log_likelihood=state.log_likelihood + self.score(state, a, batch.y, weight))
        after = self.learn(scored, a, batch.y, weight)
        return _where(step_input.rows > 0, after, state)

    def score(self, state: ExpertsState, a: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        """Return the log likelihood `[B, E, T]` of rows phi `[B, N, D]`, y `[B, N, Dy]`, weights `[B, N]`."""
        scores = torch.einsum("bnd,bedc->bnec", a, state.theta)
        return self._weighed(scores, state.noise[:, None], y, weight)

    def learn(self, state: ExpertsState, a: Tensor, y: Tensor, weight: Tensor) -> ExpertsState:
        """Return the state with rows added to the moments; heads are solved again once the rows have grown."""
        state = self.add(state, a, y, weight)
        due = state.moments.rows > (1 + GROWTH) * state.solved
        if not bool(due.any()):
            return state
        return _where(due, self.solve(state), state)

    def add(self, state: ExpertsState, a: Tensor, y: Tensor, weight: Tensor) -> ExpertsState:
        """Return the state with rows added to the moments, its heads left as they are."""
        codes = self._codes(y).to(a)
        weighed = (a * weight[..., None]).mT
        gram, cross, squares, rows = state.moments
        moments = Statistics(
            torch.baddbmm(gram, weighed, a),
            torch.baddbmm(cross, weighed, codes),
            squares + (codes.square() * weight[..., None]).sum(1),
            rows + weight.sum(1),
        )
        return state._replace(moments=moments)

    def solve(self, state: ExpertsState, factors: Sequence[Factor] | None = None) -> ExpertsState:
        """Return the state with heads solved from all its rows, those of experts far behind left as they are.

        `factors`: what `factors(state)` returned, where it has been asked already.
        """
        alive = self._alive(state)
        theta, noise = state.theta.clone(), state.noise.clone()
        for index, seen, factor in self.factors(state) if factors is None else factors:
            head = torch.cholesky_solve(state.moments.cross[:, None, seen], factor)
            kept = alive[:, index, None, None]
            whole = torch.zeros_like(theta[:, index])
            whole[:, :, seen] = head
            theta[:, index] = torch.where(kept, whole, theta[:, index])
            if not self.classes:
                noise[:, index] = torch.where(
                    kept[..., 0], self._noise(state.moments, index, seen, head, factor), noise[:, index]
                )
        solved = state._replace(theta=theta, noise=noise, solved=state.moments.rows)
        return _where(state.moments.rows > 0, solved, state)

    def factors(self, state: ExpertsState) -> list[Factor]:
        """Return the Cholesky factors of every view's experts, those far behind in all tasks left out."""
        moments, alive = state.moments, self._alive(state)
        ends = torch.tensor(self.blocks).cumsum(0).tolist()
        place = torch.arange(ends[-1], device=alive.device).split(self.blocks)
        made = []
        for at, view in enumerate(self.views):
            index = at * len(STRENGTHS) + torch.arange(len(STRENGTHS), device=alive.device)
            index = index[alive[:, index].any(0)]
            if not len(index):
                continue
            seen = torch.cat([place[block] for block in view])
            gram = moments.gram if len(seen) == ends[-1] else moments.gram[:, seen][:, :, seen]
            gram = gram[:, None].repeat(1, len(index), 1, 1)
            gram.diagonal(dim1=-2, dim2=-1).add_(self._ridge(moments, index, seen))
            made.append(Factor(index, seen, torch.linalg.cholesky(gram)))
        return made

    def left_out(
        self, state: ExpertsState, factors: Sequence[Factor], a: Tensor, y: Tensor, weight: Tensor
    ) -> Tensor:
        """Return the log likelihood `[B, E, T]` of rows among those learnt, each scored as if it had not been.

        `y - (y - theta a) / (1 - h)`, `h = a' (G + s I)^-1 a` (Allen 1974), so that experts who remember are not
        preferred. Of a row of weight above 1 one is left out; of more than `EXACT` rows all have the mean h.
        """
        codes = self._codes(y).to(a)
        total = torch.zeros_like(state.log_likelihood)
        many = bool((state.moments.rows > EXACT).any())
        for index, seen, factor in factors:
            own = a[:, None, :, seen]
            if many:
                mean = self._hat(state.moments, index, seen, factor) / state.moments.rows[:, None]
                reach = mean[..., None].expand(-1, -1, a.shape[1])
            else:
                columns = own.mT.expand(-1, len(index), -1, -1)
                reach = torch.linalg.solve_triangular(factor, columns, upper=False).square().sum(-2)
            said = (own @ state.theta[:, index][:, :, seen]).transpose(1, 2)
            kept = 1 - reach * weight[:, None].clamp(max=1)
            left = codes[:, :, None] - (codes[:, :, None] - said) / kept.clamp(min=1e-6).mT[..., None]
            total[:, index] = self._weighed(left, state.noise[:, None, index], y, weight)
        return total

    def widened(self, state: ExpertsState, place: Tensor) -> ExpertsState:
        """Return a state of fewer outputs as one of these experts: its output c is now output `place [C]` of c."""

        def spread(part: Tensor, dim: int) -> Tensor:
            shape = [*part.shape[:dim], self.outputs, *part.shape[dim + 1 :]]
            return part.new_zeros(shape).index_copy(dim, place, part)

        gram, cross, squares, rows = state.moments
        moments = Statistics(gram, spread(cross, 2), spread(squares, 1), rows)
        noise = torch.ones_like(spread(state.noise, 2)).index_copy(2, place, state.noise)
        return state._replace(moments=moments, theta=spread(state.theta, 3), noise=noise)

    def latent(self, state: ExpertsState) -> Tensor:
        """Return theta, log weights (-inf where negligible) and noise of all rows, flat, in the module's dtype."""
        stale = state.solved < state.moments.rows
        if bool(stale.any()):
            state = _where(stale, self.solve(state), state)
        weight = state.log_likelihood.flatten(1).softmax(1)
        weight = torch.where(weight < NEGLIGIBLE, 0.0, weight)
        log_weight = (weight / weight.sum(1, keepdim=True)).log()
        return torch.cat([state.theta.flatten(1), log_weight, state.noise.flatten(1)], dim=1).to(self.like)

    def linearization_point(self, state: ExpertsState) -> Tensor:
        """Return zeros: what enters a linear head does not depend on it."""
        experts, outputs = self.count, self.outputs
        width = experts * (sum(self.blocks) * outputs + self.variants + outputs)
        return self.like.new_zeros(len(state.solved), width)

    def merge(self, states: Sequence[ExpertsState]) -> ExpertsState:
        """Return the moments of all rows, exact, and the likelihoods of all of them, each scored by its own experts."""
        merged = states[0]._replace(
            moments=add(*(state.moments for state in states)),
            log_likelihood=torch.stack([state.log_likelihood for state in states]).sum(0),
        )
        return self.solve(merged)

    def _weighed(self, scores: Tensor, noise: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        """Return the summed log likelihoods `[B, E, T]` of scores `[B, N, E, C]`; what absent rows say is dropped."""
        if self.classes:
            which = y[..., None, None, :].expand(*scores.shape[:3], self.variants, 1)
            each = chances(scores).gather(-1, which)[..., 0].log()
        else:
            each = log_density(y.to(scores), scores, noise.expand_as(scores))
        return (each * weight[..., None, None]).sum(1)

    def _codes(self, y: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(y[..., 0], self.outputs) if self.classes else y

    def _alive(self, state: ExpertsState) -> Tensor:
        """Return which experts `[B, E]` are not far behind the best."""
        best = state.log_likelihood.amax(2)
        return best >= best.amax(1, keepdim=True) - BEHIND

    def _noise(
        self, moments: Statistics, index: Tensor, seen: Tensor, head: Tensor, factor: Tensor
    ) -> Tensor:
        """Return variances `[B, S, C]` of what is left: `n RSS / (n - tr(H))^2`, generalised cross-validation."""
        gram = moments.gram[:, None, seen][:, :, :, seen]
        rest = moments.squares[:, None] - (2 * moments.cross[:, None, seen] * head).sum(2)
        rest = torch.maximum(rest + (head * (gram @ head)).sum(2), RESOLVED * moments.squares[:, None])
        hat, rows = self._hat(moments, index, seen, factor), moments.rows[:, None]
        free = (rows - hat).clamp(min=0.02 * rows.clamp(min=1))
        # of a few rows one estimate is as good as a prior row of variance 1
        return (rows[..., None] * rest + 1e-3) / (free.square()[..., None] + 1e-3)

    def _hat(self, moments: Statistics, index: Tensor, seen: Tensor, factor: Tensor) -> Tensor:
        """Return the degrees of freedom `[B, S]`: the trace of (G + R)^-1 G, d - tr (G + R)^-1 R, R diagonal."""
        inverse = torch.cholesky_inverse(factor).diagonal(dim1=-2, dim2=-1)
        return factor.shape[-1] - (self._ridge(moments, index, seen) * inverse).sum(-1)

    def _ridge(self, moments: Statistics, index: Tensor, seen: Tensor) -> Tensor:
        """Return the diagonal of R `[B, S, d]` for experts `index [S]`: their strength, and room for rounding."""
        own = moments.gram.diagonal(dim1=-2, dim2=-1)[:, None, seen]
        return own.new_tensor(STRENGTHS)[index % len(STRENGTHS)][:, None] + ROUNDING * own


def _where(mask: Tensor, one: ExpertsState, other: ExpertsState) -> ExpertsState:
    """Return one state where `mask [B]` is true, another where not; of one for all tasks nothing is copied."""
    return one if bool(mask.all()) else where(mask, one, other)
