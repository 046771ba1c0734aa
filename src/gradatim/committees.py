"""Committees of experts on fixed features, nothing learnt, averaged by likelihood: the shipped learner of tables.

Source: Broomhead, Lowe 1988; Rahimi, Recht 2007; Raftery et al. 1997 (averaging).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .batch import Batch
from .files.checkpoint import select_prefix
from .learner import Learner
from .nn.carry import Change, carry_matrix
from .nn.fixed_features import Draws, FixedFeatures, widths
from .nn.mixture import Mixture
from .predictors import Committee, CrossEntropy, SquaredError
from .refiners import Experts
from .refiners.answers import carry_answer, pack_answer, rows_due, unpack_answer
from .refiners.experts import LATE, STRENGTHS, STRONGER, VIEWS
from .signal import PLAIN, StepInput

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self

    from torch import Tensor

    from .likelihood import Likelihood
    from .refiner import State

MOST_BYTES = 2e9
"""Memory that the committees of a table may take."""

REACH = 0.4
"""Of several committees: the standard deviation of the log of the distance at which nearness fades."""


@dataclass(frozen=True)
class Answers:
    """What learners of one task predict with: `latents`, one of each, `[1, S]`."""

    learners: list[Learner]
    latents: list[Tensor]

    @cached_property
    def _functions(self) -> list[Callable[[Tensor], Tensor]]:
        pairs = zip(self.learners, self.latents, strict=True)
        return [learner.predictor.at(latent) for learner, latent in pairs]

    def outputs_at(self, x: Tensor, classes: bool) -> Tensor:
        """Return the average of the members' probabilities `[n, C]`, or of their means `[n, 1]`, at x `[1, n, d]`."""
        outputs = [function(x)[0] for function in self._functions]
        if len(outputs) == 1:
            return outputs[0].softmax(-1) if classes else outputs[0]
        return torch.stack([part.softmax(-1) for part in outputs] if classes else outputs).mean(0)

    def distribution(self, x: Tensor) -> Mixture:
        """Return the predictive distribution of all members, of equal weight, at x of shape `[1, n, d]`.

        Raises:
            ValueError: a learner answers a mean only.
        """
        pairs = zip(self.learners, self.latents, strict=True)
        return Mixture.joined([learner.predictor.distribution(x, latent) for learner, latent in pairs])


@dataclass(frozen=True)
class Members:
    """Learners of one task, and the state of each: committees that differ by what is drawn, or one given learner.

    Heads of experts are solved for answers when these are due (`refiners.answers.rows_due`), so that what is answered
    depends on the rows alone, not on when it was asked. Rows that came since then wait.

    Fields: `learners`; `states`; `pending`: rows that no state holds yet. `answers`: what predictions are made with,
    None if it is to be solved from the states. `beyond`: whether the states have rows that answers do not rest on, as
    those of a saved task may. `new`: whether the next row begins a class, after which answers are due.

    Example:
        >>> import torch
        >>> from gradatim import Batch
        >>> from gradatim.committees import Members
        >>> from gradatim.nn.fixed_features import FixedFeatures
        >>> draws = FixedFeatures.draw(torch.randn(8, 2).double()).draws
        >>> batch = Batch(torch.zeros(1, 5, 2).double(), torch.ones(1, 5, 1).double())
        >>> Members.of_draws([draws], None, "cpu").learn(batch, 32).answering().answers.latents[0].shape
        torch.Size([1, 644])
    """

    bank = None  # of `memory.Following`

    learners: list[Learner]
    states: list[State]
    pending: Batch | None = None
    answers: Answers | None = None
    beyond: bool = False
    new: bool = False

    @classmethod
    def of_draws(cls, draws: Sequence[Draws], outputs: int | None, device: str) -> Self:
        """Return committees on features as drawn, for `outputs` classes or (None) a number; no row is learnt."""
        likelihood = SquaredError(1) if outputs is None else CrossEntropy(outputs)
        learners = [committee(likelihood, FixedFeatures(draw)).double().to(device) for draw in draws]
        return cls.of_learners(learners)

    @classmethod
    def of_learners(cls, learners: list[Learner]) -> Self:
        """Return learners that have learnt no row."""
        return cls(learners, [learner.init(1) for learner in learners])

    @property
    def draws(self) -> list[Draws]:
        """Return what the features of each committee are made of."""
        return [learner.refiner.features.draws for learner in self.learners]  # type: ignore[attr-defined]

    def fit(self, batch: Batch, batch_size: int, passes: int) -> Self:
        """Return the members after all rows of a task `[1, n, ...]`, begun anew."""
        return type(self)(self.learners, [f.fit(batch, batch_size, passes) for f in self.learners])

    def learn(self, batch: Batch, batch_size: int, before: float = 0.0) -> Self:
        """Return the members after more rows `[1, n, ...]`, in mini-batches; the weights before sum to `before`."""
        if not self._lag:
            return self._learnt(batch, batch_size)
        n = max(rows_due(before, batch.weight[0].double().cpu().numpy()), int(self.new))
        if n == 0:
            members = replace(self, pending=_joined(self.pending, batch))
            return members.settle() if members.pending.n_rows >= LATE else members  # type: ignore[union-attr]
        now = batch if n == batch.n_rows else batch.slice(0, n)
        members = self._learnt(_joined(self.pending, now), max(LATE, batch_size))
        later = None if n == batch.n_rows else batch.slice(n, batch.n_rows)
        return (
            replace(members, pending=later).settle()
            if batch.n_rows - n >= LATE
            else replace(members, pending=later)
        )

    def _learnt(self, batch: Batch, batch_size: int) -> Self:
        """Return the members whose states hold rows `[1, n, ...]` as well, and whose answers rest on them."""
        states = self.states
        for part in batch.split(batch_size):
            pairs = zip(self.learners, states, strict=True)
            states = [learner.learn(state, part, predict=False)[1] for learner, state in pairs]
        return replace(self, states=states, pending=None, answers=None, beyond=False, new=False)

    @property
    def _lag(self) -> bool:
        """Whether answers may be older than states: solving them is the work."""
        return all(learner.refiner.capabilities.score for learner in self.learners)

    def answering(self) -> Self:
        """Return the members with their answers solved."""
        if self.answers is not None:
            return self
        states = [f.refiner.settle(state) for f, state in self]
        with torch.no_grad():
            latents = [f.refiner.latent(state) for f, state in zip(self.learners, states, strict=True)]
        return replace(self, states=states, answers=Answers(self.learners, latents))

    def at_hand(self) -> Answers:
        """Return what predictions are made with, once it has been solved."""
        assert self.answers is not None
        return self.answers

    def empty(self) -> Self:
        """Return the members on the same features, that have learnt no row."""
        return type(self).of_learners(self.learners)

    def settle(self) -> Self:
        """Return the members without rows that wait; they answer the same."""
        if self.pending is None:
            return replace(self, states=[f.refiner.settle(state) for f, state in self])
        members = self.answering()
        return replace(
            members._learnt(self.pending, LATE).settle(), answers=members.answers, beyond=True, new=self.new
        )

    def renewed(self) -> Self:
        """Return the members without rows that wait; their answers rest on all rows."""
        return replace(self.settle(), answers=None, beyond=False)

    def bare(self) -> Self:
        """Return the members without what can be solved again."""
        answers = self.answers if self.beyond else None
        return replace(self, answers=answers and Answers(answers.learners, answers.latents))

    def carry(self, draws: Sequence[Draws], change: Change, outputs: int | None, same_draws: bool) -> Self:
        """Return committees on other features, of rows whose inputs changed; see `carry_matrix` for what is exact.

        Where inputs are new and the others stay, answers do too. Else they rest on all rows afterwards.
        """
        device = self.states[0].solved.device
        after, same = type(self).of_draws(draws, outputs, str(device)), same_draws and change.only_wider
        before = self if same else self.renewed()
        states, latents = [], []
        for at, (old, new) in enumerate(zip(before.learners, after.learners, strict=True)):
            matrix = carry_matrix(old.refiner.features, new.refiner.features, change, same_draws)  # type: ignore[attr-defined]
            state = new.refiner.carry(old.refiner.settle(before.states[at]), matrix)  # type: ignore[attr-defined]
            states.append(state if same_draws else new.refiner.solve(state))  # type: ignore[attr-defined]
            if before.beyond and before.answers is not None:
                latents.append(
                    carry_answer(old.refiner, new.refiner, before.answers.latents[at], matrix)  # type: ignore[arg-type]
                )
        answers = Answers(after.learners, latents) if before.beyond else None
        pending = None if before.pending is None else _wider(before.pending, change)
        return replace(after, states=states, pending=pending, answers=answers, beyond=before.beyond)

    def rescale(self, scale: float, shift: float) -> Self:
        """Return committees of `scale y + shift`."""
        members = self.renewed()
        return replace(members, states=[f.refiner.rescale(state, scale, shift) for f, state in members])  # type: ignore[attr-defined]

    def reweigh(self, batch: Batch, factor: float) -> Self:
        """Return committees weighed by rows among those learnt `[1, n, ...]`, each left out, times a factor."""
        if not all(f.refiner.capabilities.score for f in self.learners):
            return self
        seen, members = StepInput(batch.rows, batch), self.renewed()
        return replace(members, states=[f.refiner.reweigh(state, seen, factor) for f, state in members])  # type: ignore[attr-defined]

    def widen(self, wider: Self, place: np.ndarray) -> Self:
        """Return `wider`, members of more classes, with what these have learnt: class c is `place[c]`, `place [C]`."""
        states = []
        for learner, state in zip(wider.learners, self.renewed().states, strict=True):
            states.append(learner.widen(state, torch.from_numpy(place.astype(np.int64))))
        return replace(wider, states=states, new=True)

    def forget(self, batch: Batch) -> Self:
        """Return the members without rows `[1, n, ...]` that were learnt."""
        members, seen = self.renewed(), StepInput(batch.rows, batch)
        if not all(isinstance(learner.refiner, Experts) for learner in self.learners):
            return replace(members, states=[f.forget(state, batch) for f, state in members])
        with torch.no_grad():
            states = [f.refiner.without(state, seen) for f, state in members]
        return replace(members, states=states)

    def merge(self, members: Self) -> Self:
        """Return the members that have learnt the rows of both."""
        both, more = self.renewed(), members.renewed()
        pairs = zip(both, more.states, strict=True)
        return replace(both, states=[f.merge([state, second]) for (f, state), second in pairs])

    def pack(self, with_draws: bool = True) -> tuple[Self, dict[str, Tensor]]:
        """Return the members, and all that they know as tensors of any shape; nothing is rounded."""
        members = self.settle()
        packed = [learner.refiner.pack(state) for learner, state in members]
        tensors = {f"{m}.{name}": t for m, (_, parts) in enumerate(packed) for name, t in parts.items()}
        if with_draws:
            draws = [draw.packed()._asdict() for draw in self.draws]
            tensors |= {f"{m}.{name}": t for m, parts in enumerate(draws) for name, t in parts.items()}
        if members.beyond and members.answers is not None:
            for at, latent in enumerate(members.answers.latents):
                parts = pack_answer(self.learners[at].refiner, latent)  # type: ignore[arg-type]
                tensors |= {f"{at}.{name}": part for name, part in parts.items()}
        return replace(members, states=[state for state, _ in packed]), tensors

    @classmethod
    def unpack(
        cls, tensors: dict[str, Tensor], count: int, outputs: int | None, device: str, learners: list[Learner]
    ) -> Self:
        """Return `count` members of what `pack` returned, tensors of any shape; with the given `learners`, if any.

        Raises:
            ValueError: a tensor is missing or has another shape.
        """
        parts = [select_prefix(tensors, str(member)) for member in range(count)]
        if learners:
            members = cls.of_learners(learners)
        else:
            draws = [Draws(*(part.pop(name) for name in Draws._fields)).unpacked() for part in parts]
            members = cls.of_draws(draws, outputs, device)
        pairs = [*zip(members.learners, parts, strict=True)]
        members = replace(members, states=[learner.refiner.unpack(part) for learner, part in pairs])
        if not parts or "answer_experts" not in parts[0]:
            return members
        latents = [unpack_answer(learner.refiner, part) for learner, part in pairs]  # type: ignore[arg-type]
        return replace(members, answers=Answers(members.learners, latents), beyond=True)

    def __iter__(self) -> Any:
        return zip(self.learners, self.states, strict=True)


def _joined(first: Batch | None, second: Batch) -> Batch:
    """Return rows `[1, n, ...]` with more behind them."""
    if first is None:
        return second
    x, y = torch.cat([first.x, second.x], dim=1), torch.cat([first.y, second.y], dim=1)
    weight = torch.cat([first.weight, second.weight], dim=1)
    return Batch._trusted(x, y, weight, first.is_weighted or second.is_weighted)


def _wider(batch: Batch, change: Change) -> Batch:
    """Return rows `[1, n, d]` with their inputs where a wider map has them."""
    present = change.place >= 0
    x = batch.x.new_zeros(*batch.x.shape[:2], change.width)
    x[..., change.place[present]] = batch.x[..., present]
    return Batch._trusted(x, batch.y, batch.weight, batch.is_weighted)


def committee(likelihood: Likelihood, features: FixedFeatures) -> Learner:
    """Return experts on families of fixed features. States are exact and additive."""
    refiner = Experts(features, likelihood.output_dim, likelihood.classes is not None)
    return Learner(Committee(features, likelihood, refiner.count), refiner, PLAIN)


def committee_features(
    landmarks: Sequence[Tensor], rows: Tensor, steps: Sequence[tuple[int, float]], seeds: Sequence[int]
) -> list[FixedFeatures]:
    """Return the features of several committees, as many of each family as there is room (`widths`).

    Nearness of the first has the reach 1; that of later ones is drawn, its log with the deviation `REACH`.

    Args:
        landmarks: of each committee, `[K, x_dim]`.
        rows: `[n, x_dim]`, over which products should vary.
        steps: (column of x, threshold) of step features.
        seeds: of the pairs that are multiplied and of random ramps.
    """
    room = widths(rows.shape[1])
    draws = [float(np.random.default_rng(seed).standard_normal()) for seed in seeds]
    reaches = [float(np.exp(REACH * draw)) if member else 1.0 for member, draw in enumerate(draws)]
    return [
        FixedFeatures.draw(
            points[: room.landmarks], room.products, steps[: room.steps], reach, seed, room.ramps, rows
        )
        for points, reach, seed in zip(landmarks, reaches, seeds, strict=True)
    ]


def check_size(x_dim: int, classes: int | None, members: int = 1) -> None:
    """Check what committees for x of width x_dim would take before anything is allocated.

    Raises:
        ValueError: more than `MOST_BYTES`. The message says what takes them.

    Example:
        >>> from gradatim.committees import check_size
        >>> check_size(20_000, None)
        Traceback (most recent call last):
        ValueError: a table of 20,000 inputs and one output would take 16.0 GB...
    """
    room = widths(x_dim)
    width = 1 + x_dim + sum((room.landmarks, room.products, room.steps, room.ramps))
    outputs, heads = classes or 1, len(VIEWS) * len(STRENGTHS) + len(STRONGER)
    # sums of each member; while heads are solved, those of one view under all strengths, and three copies of the heads
    size = 8 * (members * width * (width + outputs) + len(STRENGTHS) * width**2 + 3 * heads * width * outputs)
    if size > MOST_BYTES:
        answers = "one output" if classes is None else f"{classes:,} classes"
        raise ValueError(
            f"a table of {x_dim:,} inputs and {answers} would take {size / 1e9:.1f} GB, more than "
            f"{MOST_BYTES / 1e9:.0f} GB (an input is a column, or a word of one): choose columns, or join rare classes"
        )


def fitting(template: Learner, inputs: int, classes: int | None) -> Learner:
    """Return a copy of a learner for x of width `inputs` and `classes`, or one output, in float64.

    Raises:
        ValueError: the learner is of another size, or implicit.
    """
    learner = copy.deepcopy(template).double()
    if learner.refiner.capabilities.per_query:
        raise ValueError(
            "an implicit learner answers only its own queries: give a parametric or explicit one as model"
        )
    width, outputs = learner.predictor.x_dim, learner.predictor.output_dim
    if width not in (None, inputs) or outputs != (classes or 1):
        raise ValueError(
            f"the learner given as model wants {width} inputs and gives {outputs} outputs; this table makes "
            f"{inputs} inputs (categories a code each) and wants {classes or 1} outputs: give one of that size"
        )
    return learner
