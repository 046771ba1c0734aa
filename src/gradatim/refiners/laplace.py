"""A softmax head that knows how sure it is: the last rows as they came, a Gaussian in place of all before them.

Source: Moore 1973, Bell 1994 (fixed-lag smoothing, and its Newton form); Ritter et al. 2018 (online Laplace), eqs. 8-9;
Liu, Ihler 2014 (merging shards in natural parameters); Raftery et al. 1997 (averaging).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..refiner import Capabilities, Refiner
from .statistics import check_inputs, checked_places, log_precisions
from .window import stays

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..batch import Batch
    from ..signal import StepInput


_HALVINGS = 12
"""Of a Newton step at most: far from the answer a whole step can overshoot."""

_ROUNDING, _TINY = 1e-12, 1e-200
"""By this share of itself a sum of losses may seem to rise where it does not; in place of nothing in a denominator."""

_STEP = (0.5, 4)
"""Of a mini-batch: in nats, what the last Newton step promises at most (it is as long as the posterior's standard
deviation, and ends much nearer); steps of conjugate gradients in each."""

_MERGE = (1e-20, 100, 15)
"""Of a merge: the same, down to rounding; Newton steps at most; steps of conjugate gradients in each."""


_IMPLICIT = 15
"""Steps of conjugate gradients behind the slope of an answer."""


class LaplaceState(NamedTuple):
    """Of K priors: `theta [B, K, C, D]`; of the prior and the rows that left the window, `theta' P theta / 2 -
    h' theta + c`: `precision [B, K, C, D, D]`, `shift [B, K, C, D]`, `floor [B, K]`; all float64. The window, oldest
    first: `inputs [B, L, D]`, `labels [B, L]` (int64), `weight [B, L]`,
    `age [B, L]`: of which mini-batch (0: no row). `rows [B]`.
    """

    theta: Tensor
    precision: Tensor
    shift: Tensor
    floor: Tensor
    inputs: Tensor
    labels: Tensor
    weight: Tensor
    age: Tensor
    rows: Tensor


class Laplace(Refiner):
    """`theta_t = argmin  sum over window and mini-batch of ce(y_n, theta a_n) + theta'P theta / 2 - h'theta + c`.

    Rows beyond the window are replaced by their quadratic at theta_t: `P += H`, `h += H theta - g`,
    `c += f - g'theta + theta'H theta / 2`, with f their loss, g its slope and H one block for each class,
    `H_c = C / (C - 1) sum_n p_c (1 - p_c) a a'` (equal to the whole one on contrasts of equally likely classes). A row
    that is linearised when it is met, where theta is short and curvature large, holds it back for good; after `lag`
    more rows it does not. While all rows are in the window the answer is that of one fit to them.

    One posterior for each of K priors; the answer is their mean, weighted by Laplace's evidence of all rows so far,
    `log p_k - min (loss + theta'P theta / 2 - h'theta + c) + (C - 1) / 2C sum_c log |P_0| / |P_c + H_c|`.

    Args: `blocks`: how many inputs share a precision; `classes` C; `precisions [K, blocks]`: of the priors
    `theta ~ N(0, P_0^-1)`, where they start; `learnt`: whether these, and the weights of the priors, are meta-trained;
    `lag` L, in rows: whole mini-batches leave together; `iterations` of Newton's method at most a mini-batch.

    Raises:
        ValueError: a precision that is not positive or missing, fewer than two classes, no iteration, lag negative; in
            a step, inputs of another width.

    Example:
        >>> refiner = Laplace((8, 1), 4, precisions=((1.0, 1.0),))

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
        """Return the priors, and a window of no rows (`L = 0`: it grows)."""
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
            moved = self._mode(after, _STEP[0], self.iterations, _STEP[1])
            after = after._replace(theta=torch.where(seen[:, None, None, None], moved, state.theta))
            return self._absorbed(after)._replace(rows=state.rows + step_input.rows)

    def latent(self, state: LaplaceState) -> Tensor:
        """Return theta, averaged over the priors, in the module's dtype, `[B, C D]`."""
        weight = (self.log_prior.double() + self.log_evidence(state)).softmax(1)[..., None, None]
        return (weight * state.theta).sum(1).flatten(1).to(self.like)

    def linearization_point(self, state: LaplaceState) -> Tensor:
        """Return zeros: what enters a linear head does not depend on it."""
        return self.like.new_zeros(len(state.rows), self.classes * sum(self.blocks))

    def merge(self, states: Sequence[LaplaceState]) -> LaplaceState:
        """Return the posterior of all rows: quadratics added, the prior counted once, windows side by side.

        Exact where all rows are still in the windows; as exact as the quadratics that stand for those that left where
        not. The window is that of all states together; the next step absorbs what exceeds the lag.
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
            return merged._replace(theta=self._mode(merged, *_MERGE), inputs=merged.inputs.to(self.like))

    def widen(self, state: LaplaceState, place: Tensor) -> LaplaceState:
        """Return the state of fewer classes as one of this refiner's: class c becomes `place[c]`.

        Exact where all rows are still in the window. Rows that left it say nothing of new classes.

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
            return wide._replace(theta=self._mode(ordered, *_MERGE))

    def log_evidence(self, state: LaplaceState) -> Tensor:
        """Return Laplace's `log p(rows | prior k)`, `[B, K]`.

        A shift of all classes alike changes nothing that is said: of C blocks C - 1 count.
        """
        with torch.autocast(state.theta.device.type, enabled=False):
            height, _, chances = self._said(state, state.theta)
            factor = torch.linalg.cholesky(state.precision + self._blocks(state, chances))
            volume = self._prior().log().sum(1) / 2 * self.classes
            volume = volume - factor.diagonal(dim1=-2, dim2=-1).log().sum((2, 3))
            return volume * (self.classes - 1) / self.classes - height

    def _mode(self, state: LaplaceState, least: float, iterations: int, conjugate: int) -> Tensor:
        """Return the theta at which Q and the losses of the window are lowest, `[B, K, C, D]`, from the state's own.

        By Newton steps, each from so many of conjugate gradients, halved until they do not raise it; the last is one
        that promises less than `least`. The slope is that of the answer, `d theta = H^-1 d slope`, not of the way,
        exact where `least` is nothing.
        """
        with torch.no_grad():
            theta, inverse = self._lowest(state, least, iterations, conjugate)
        if not (torch.is_grad_enabled() and (state.precision.requires_grad or state.inputs.requires_grad)):
            return theta
        _, slope, chances = self._said(state, theta)
        fixed = LaplaceState(*(part.detach() for part in state))
        solve = partial(_solved, fixed, chances.detach(), inverse=inverse, steps=_IMPLICIT)
        moved: Tensor = _Answer.apply(theta, slope, solve)  # type: ignore[assignment]
        return moved

    def _lowest(
        self, state: LaplaceState, least: float, iterations: int, conjugate: int
    ) -> tuple[Tensor, Tensor]:
        """Return where `_mode` is, and the inverse of the blocks of H where it began."""
        theta = state.theta
        low, slope, chances = self._said(state, theta)
        factor = torch.linalg.cholesky(state.precision + self._blocks(state, chances))
        inverse = torch.cholesky_inverse(factor)
        there = torch.zeros_like(low, dtype=torch.bool)
        for _ in range(iterations):
            move = _solved(state, chances, slope, inverse, conjugate)
            promised = (slope * move).sum((2, 3)) / 2
            move = torch.where(there[..., None, None], 0, move)
            for _ in range(_HALVINGS):
                now, slope, chances = self._said(state, theta + move)
                higher = now > low + _ROUNDING * low.abs()
                if not bool(higher.any()):
                    break
                move = torch.where(higher[..., None, None], move / 2, move)
            else:
                move = torch.where(higher[..., None, None], 0, move)
                now, slope, chances = self._said(state, theta + move)
            theta, low, there = theta + move, now, there | (promised <= least)
            if bool(there.all()):
                break
        return theta, inverse

    def _said(self, state: LaplaceState, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return Q and the losses of the window at theta `[B, K]`, minus their slope there `[B, K, C, D]`, and the
        probabilities `[B, L, K, C]`, zero where no row is.
        """
        losses, slope, chances = self._rows_say(state, theta)
        pull = (state.precision @ theta[..., None])[..., 0]
        height = (theta * (pull / 2 - state.shift)).sum((2, 3)) + state.floor + losses
        return height, slope + state.shift - pull, chances

    def _rows_say(self, state: LaplaceState, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what `_said` does, of the losses of the window alone."""
        a, weight, shape = state.inputs.to(theta), state.weight[..., None, None], theta.shape[1:3]
        logs = (a @ theta.flatten(1, 2).mT).unflatten(2, shape).log_softmax(-1)
        codes = torch.nn.functional.one_hot(state.labels, self.classes)[:, :, None] * weight
        chances = logs.exp() * (weight > 0)
        slope = ((codes - chances * weight).flatten(2).mT @ a).unflatten(1, shape)
        return -(codes * logs).sum((1, 3)), slope, chances

    def _blocks(self, state: LaplaceState, chances: Tensor) -> Tensor:
        """Return H of the window `[B, K, C, D, D]`, class by class: of `[B, L, K, C, D]` no tensor is made."""
        a = state.inputs.to(chances)
        spread = chances * (1 - chances) * (self.classes / (self.classes - 1))
        spread = spread * state.weight[..., None, None]
        each = [
            (a.mT @ (a[:, :, None] * s[..., None]).flatten(2)).unflatten(2, (s.shape[2], -1)).transpose(1, 2)
            for s in spread.unbind(3)
        ]
        return torch.stack(each, dim=2)

    def _absorbed(self, state: LaplaceState) -> LaplaceState:
        """Return the state with the rows beyond the lag in its quadratic, and a window of `lag`.

        A mini-batch stays while it and all after it are at most `lag` rows: the order inside one plays no part.
        """
        age, count = state.age, state.age.shape[1]
        kept = stays(age, state.weight, self.lag)
        leaving = (age > 0) & ~kept
        if bool(leaving.any()):
            oldest = int(leaving.any(0).nonzero().max()) + 1
            gone = _window(state, slice(oldest), leaving)
            losses, slope, chances = self._rows_say(gone, state.theta)
            curvature = self._blocks(gone, chances)
            pull = (curvature @ state.theta[..., None])[..., 0]
            state = state._replace(
                precision=state.precision + curvature,
                shift=state.shift + pull + slope,
                floor=state.floor + losses + (state.theta * (slope + pull / 2)).sum((2, 3)),
            )
        state = _window(state, slice(max(count - self.lag, 0), None), kept)
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


def _solved(state: LaplaceState, chances: Tensor, slope: Tensor, inverse: Tensor, steps: int) -> Tensor:
    """Return the whole Hessian's inverse times a slope, `[B, K, C, D]`, by conjugate gradients.

    `inverse [B, K, C, D, D]`: of the blocks, somewhere near; the metric they take.
    """
    a, shape, weight = state.inputs.to(slope), slope.shape[1:3], state.weight[..., None, None]
    move, rest = torch.zeros_like(slope), slope
    toward = (inverse @ rest[..., None])[..., 0]
    along, size = toward, (rest * toward).sum((2, 3), keepdim=True)
    for _ in range(steps):
        logits = (a @ along.flatten(1, 2).mT).unflatten(2, shape)
        bent = chances * (logits - (chances * logits).sum(-1, keepdim=True)) * weight
        pushed = (bent.flatten(2).mT @ a).unflatten(1, shape) + (state.precision @ along[..., None])[..., 0]
        share = size / (along * pushed).sum((2, 3), keepdim=True).clamp(min=_TINY)
        move, rest = move + share * along, rest - share * pushed
        toward = (inverse @ rest[..., None])[..., 0]
        before, size = size, (rest * toward).sum((2, 3), keepdim=True)
        along = toward + size / before.clamp(min=_TINY) * along
    return move


class _Answer(torch.autograd.Function):
    """theta, where a slope vanishes, as a function of what the slope is made of: `d theta = H^-1 d slope`.

    `solve`: H^-1 times something; H is symmetric.
    """

    @staticmethod
    def forward(ctx: Any, theta: Tensor, slope: Tensor, solve: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.solve = solve
        return theta.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None]:
        return None, ctx.solve(grad), None


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
    """Return the state with its window oldest first, absent rows before, as few as may be; in float64."""
    age, order = state.age.sort(dim=1, stable=True)
    few = slice(int((age == 0).sum(1).min()), None)
    order = order[:, few]
    return state._replace(
        inputs=state.inputs.to(state.theta).gather(1, order[..., None].expand(-1, -1, state.inputs.shape[2])),
        labels=state.labels.gather(1, order),
        weight=state.weight.gather(1, order),
        age=age[:, few].contiguous(),
    )


def _window(state: LaplaceState, part: slice, mask: Tensor) -> LaplaceState:
    """Return the state with a part of its window, of which only the rows in `mask` are there."""
    inputs, labels, weight, age = (
        rows[:, part] for rows in (state.inputs, state.labels, state.weight, state.age)
    )
    mask = mask[:, part]
    return state._replace(
        inputs=inputs * mask[..., None], labels=labels * mask, weight=weight * mask, age=age * mask
    )
