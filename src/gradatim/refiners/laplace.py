"""Bayesian softmax regression: the last rows as they came, and a Gaussian in place of all earlier ones.

Source: Moore 1973, Bell 1994 (fixed-lag smoothing, and its Newton form); Ritter et al. 2018 (online Laplace), eqs. 8-9;
Liu, Ihler 2014 (merging shards in natural parameters); Raftery et al. 1997 (averaging).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..refiner import Capabilities, Refiner
from .softmax_mode import LaplaceState, block_hessian, mode, objective, window_loss
from .statistics import check_inputs, checked_places, log_precisions
from .window import stays

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..batch import Batch
    from ..signal import StepInput


_STEP = (0.5, 4)
"""Tolerance in nats and steps of conjugate gradients in each Newton step, for a mini-batch. The last step is at most as
long as the posterior's standard deviation, and ends much nearer to the mode."""

_MERGE = (1e-20, 100, 15)
"""Tolerance (rounding), Newton steps at most, and steps of conjugate gradients in each, for a merge."""


class Laplace(Refiner):
    """`theta_t = argmin  sum over window and mini-batch of ce(y_n, theta a_n) + theta'P theta / 2 - h'theta + c`.

    Rows that leave the window are replaced by their quadratic at theta_t. Their loss is f, its gradient g. H is one
    block for each class (`block_hessian`).

        P += H,  h += H theta - g,  c += f - g'theta + theta'H theta / 2

    A row should not be linearised when it arrives. Theta is short then and the curvature large, which would hold theta
    back for good. After `lag` more rows it is safe. While all rows are in the window, theta is that of one fit to them.

    There is one posterior for each of K priors. Predictions use their mean, weighted by Laplace's evidence.

        log p_k - min (loss + theta'P theta / 2 - h'theta + c) + (C - 1) / 2C sum_c log |P_0| / |P_c + H_c|

    Args:
        blocks: how many inputs share a precision.
        classes: C.
        precisions: `[K, blocks]`, of the priors `theta ~ N(0, P_0^-1)`, where they start.
        learnt: whether precisions and the weights of the priors are meta-trained.
        lag: L, the length of the window in rows; mini-batches leave as a unit.
        iterations: Newton steps at most in a mini-batch.

    Raises:
        ValueError: a precision that is not positive or missing, fewer than two classes, no iteration, lag negative; in
            a step, inputs of another width.

    Example:
        >>> import torch
        >>> from gradatim import Learner, LinearClassification
        >>> from gradatim.predictors import CrossEntropy, Network
        >>> from gradatim.refiners import Laplace
        >>> from gradatim.signal import CLOSED_FORM
        >>> task = LinearClassification(3, 4).sample(2, torch.Generator().manual_seed(0))
        >>> refiner = Laplace((3, 1), 4, precisions=((1.0, 1.0),))
        >>> learner = Learner(Network(3, CrossEntropy(4)), refiner, CLOSED_FORM)
        >>> state = learner.adapt(task.support, 32)
        >>> learner.predict(task.query.x, state).shape
        torch.Size([2, 64, 4])

    Source: Bell 1994, eq. 2; Ritter et al. 2018, eqs. 8-9.
    """

    keeps_rows = True
    needs_observations = True
    needs_inputs = True
    like: Tensor

    def __init__(
        self,
        blocks: Sequence[int],
        classes: int,
        precisions: Sequence[Sequence[float]],
        learnt: bool = False,
        lag: int = 256,
        iterations: int = 20,
    ) -> None:
        super().__init__()
        if classes < 2 or iterations < 1 or lag < 0:
            raise ValueError(
                "a softmax head needs classes >= 2, iterations >= 1 and lag >= 0; got "
                f"classes {classes}, iterations {iterations}, lag {lag}"
            )
        start = log_precisions(blocks, precisions)
        self.blocks, self.classes, self.lag, self.iterations = tuple(blocks), classes, lag, iterations
        self.keeps_rows = lag > 0
        self.capabilities = Capabilities(
            merge=True, widen=True, weights=True, learnt=learnt, greedy=not learnt
        )
        self.log_precision = nn.Parameter(start, requires_grad=learnt)
        self.log_prior = nn.Parameter(torch.zeros(len(start)), requires_grad=learnt)
        self.register_buffer("like", torch.zeros(()))

    def init(self, n_tasks: int, query: Batch | None = None) -> LaplaceState:
        """Return the priors of `n_tasks` tasks, and a window without rows, which grows to L places."""
        precision = torch.diag_embed(self._prior())[None, :, None].expand(n_tasks, -1, self.classes, -1, -1)
        none = torch.zeros_like(precision[..., 0])
        window = none.new_zeros(n_tasks, 0)
        inputs = self.like.new_zeros(n_tasks, 0, none.shape[-1])
        floor, rows = none.new_zeros(none.shape[:2]), none.new_zeros(n_tasks)
        return LaplaceState(none, precision, none, floor, inputs, window.long(), window, window, rows)

    def step(self, state: LaplaceState, step_input: StepInput) -> LaplaceState:
        """Return the posteriors after one more mini-batch, and the window moved on."""
        inputs, batch = check_inputs(step_input, sum(self.blocks))
        seen = step_input.rows > 0
        with torch.autocast(inputs.device.type, enabled=False):
            after = _ordered(_joined(state, inputs, batch))
            theta = mode(after, _STEP[0], self.iterations, _STEP[1])
            after = after._replace(theta=torch.where(seen[:, None, None, None], theta, state.theta))
            return self._absorbed(after)._replace(rows=state.rows + step_input.rows)

    def latent(self, state: LaplaceState) -> Tensor:
        """Return theta, averaged over the priors, in the module's dtype, `[B, C D]`."""
        weight = (self.log_prior.double() + self.log_evidence(state)).softmax(1)[..., None, None]
        return (weight * state.theta).sum(1).flatten(1).to(self.like)

    def linearization_point(self, state: LaplaceState) -> Tensor:
        """Return zeros `[B, C D]`: the inputs of a linear head do not depend on it."""
        return self.like.new_zeros(len(state.rows), self.classes * sum(self.blocks))

    def merge(self, states: Sequence[LaplaceState]) -> LaplaceState:
        """Return the posterior of all rows: quadratics added, the prior counted once, windows side by side.

        It is exact where all rows are still in the windows, else as exact as the quadratics of those that left. The
        window is that of all states together, and the next step absorbs what exceeds the lag.
        """
        total = {
            name: torch.stack([getattr(s, name) for s in states]).sum(0)
            for name in ("precision", "shift", "floor", "rows")
        }
        window = {
            name: torch.cat([getattr(s, name) for s in states], dim=1)
            for name in ("inputs", "labels", "weight", "age")
        }
        with torch.autocast(self.like.device.type, enabled=False):
            pulled = torch.stack([s.precision @ s.theta[..., None] for s in states]).sum(0)
            start = torch.cholesky_solve(pulled, torch.linalg.cholesky(total["precision"]))[..., 0]
            surplus = (len(states) - 1) * torch.diag_embed(self._prior())[None, :, None]
            total["precision"] = total["precision"] - surplus
            merged = _ordered(LaplaceState(theta=start, **total, **window))
            return merged._replace(theta=mode(merged, *_MERGE), inputs=merged.inputs.to(self.like))

    def widen(self, state: LaplaceState, place: Tensor) -> LaplaceState:
        """Return the state of fewer classes as one of this refiner's: class c becomes `place[c]`.

        It is exact where all rows are still in the window. The quadratic of rows that left it holds no new class.

        Args:
            state: of as many classes as `place` has entries.
            place: `[C]` int64, all different.

        Raises:
            ValueError: places that are repeated or no classes.
        """
        checked_places(place, state.theta.shape[2], self.classes)
        place = place.to(state.labels.device)
        priors, n_tasks = self._prior(), len(state.rows)
        theta, shift = (
            priors.new_zeros(n_tasks, len(priors), self.classes, priors.shape[1]) for _ in range(2)
        )
        precision = torch.diag_embed(priors)[None, :, None].repeat(n_tasks, 1, self.classes, 1, 1)
        theta[:, :, place], shift[:, :, place] = state.theta, state.shift
        precision[:, :, place] = state.precision
        wide = state._replace(
            theta=theta, shift=shift, precision=precision, labels=place[state.labels] * (state.age > 0)
        )
        if len(place) == self.classes:
            return wide
        with torch.autocast(self.like.device.type, enabled=False):
            ordered = _ordered(wide)
            return wide._replace(theta=mode(ordered, *_MERGE))

    def log_evidence(self, state: LaplaceState) -> Tensor:
        """Return Laplace's `log p(rows | prior k)`, `[B, K]`.

        A common shift of all classes changes no probability, so C - 1 of C blocks count.
        """
        with torch.autocast(state.theta.device.type, enabled=False):
            value, _, probabilities = objective(state, state.theta)
            factor = torch.linalg.cholesky(state.precision + block_hessian(state, probabilities))
            volume = self._prior().log().sum(1) / 2 * self.classes
            volume = volume - factor.diagonal(dim1=-2, dim2=-1).log().sum((2, 3))
            return volume * (self.classes - 1) / self.classes - value

    def _absorbed(self, state: LaplaceState) -> LaplaceState:
        """Return the state with the rows beyond the lag in its quadratic, and a window of `lag`."""
        age, count = state.age, state.age.shape[1]
        recent = stays(age, state.weight, self.lag)
        leaving = (age > 0) & ~recent
        if bool(leaving.any()):
            oldest = int(leaving.any(0).nonzero().max()) + 1
            absorbed = _window(state, slice(oldest), leaving)
            losses, slope, probabilities = window_loss(absorbed, state.theta)
            curvature = block_hessian(absorbed, probabilities)
            pull = (curvature @ state.theta[..., None])[..., 0]
            state = state._replace(
                precision=state.precision + curvature,
                shift=state.shift + pull + slope,
                floor=state.floor + losses + (state.theta * (slope + pull / 2)).sum((2, 3)),
            )
        state = _window(state, slice(max(count - self.lag, 0), None), recent)
        short = self.lag - state.age.shape[1]
        pad = torch.nn.functional.pad
        return state._replace(
            inputs=pad(state.inputs, (0, 0, short, 0)).to(self.like),
            labels=pad(state.labels, (short, 0)),
            weight=pad(state.weight, (short, 0)),
            age=pad(state.age, (short, 0)),
        )

    def _prior(self) -> Tensor:
        """Return the diagonal of P_0 `[K, D]`."""
        counts = torch.tensor(self.blocks, device=self.like.device)
        return self.log_precision.double().exp().repeat_interleave(counts, dim=1)


def _joined(state: LaplaceState, inputs: Tensor, batch: Batch) -> LaplaceState:
    """Return the state with a mini-batch in its window."""
    latest = torch.nn.functional.pad(state.age, (1, 0)).amax(1, keepdim=True)
    absent = ~batch.mask
    return state._replace(
        inputs=torch.cat([state.inputs, inputs.to(state.inputs).masked_fill(absent[..., None], 0)], dim=1),
        labels=torch.cat([state.labels, batch.y[..., 0].masked_fill(absent, 0)], dim=1),
        weight=torch.cat([state.weight, batch.weight.to(state.weight)], dim=1),
        age=torch.cat([state.age, (latest + 1) * batch.mask], dim=1),
    )


def _ordered(state: LaplaceState) -> LaplaceState:
    """Return the state with its window in float64, oldest first, after no more absent rows than needed."""
    age, order = state.age.sort(dim=1, stable=True)
    first = int((age == 0).sum(1).min())
    order = order[:, first:]
    return state._replace(
        inputs=state.inputs.to(state.theta).gather(1, order[..., None].expand(-1, -1, state.inputs.shape[2])),
        labels=state.labels.gather(1, order),
        weight=state.weight.gather(1, order),
        age=age[:, first:].contiguous(),
    )


def _window(state: LaplaceState, part: slice, mask: Tensor) -> LaplaceState:
    """Return the state with a part of its window, in which only the rows in `mask` are present."""
    inputs, labels, weight, age = (
        rows[:, part] for rows in (state.inputs, state.labels, state.weight, state.age)
    )
    mask = mask[:, part]
    return state._replace(
        inputs=inputs * mask[..., None], labels=labels * mask, weight=weight * mask, age=age * mask
    )
