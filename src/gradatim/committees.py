"""Committees of experts on fixed features, nothing learnt, averaged by likelihood: the shipped learner of tables.

Source: Broomhead, Lowe 1988; Rahimi, Recht 2007; Raftery et al. 1997 (averaging).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .files.checkpoint import select_prefix
from .learner import Learner
from .nn.carry import Change, carry_matrix
from .nn.fixed_features import Draws, FixedFeatures, widths
from .nn.mixture import Mixture
from .predictors import Committee, CrossEntropy, SquaredError
from .refiners import Experts
from .refiners.experts import STRENGTHS, VIEWS
from .signal import PLAIN, StepInput

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from torch import Tensor

    from .batch import Batch
    from .likelihood import Likelihood
    from .refiner import State

MOST_BYTES = 2e9
"""Memory that the committees of a table may take."""

REACH = 0.4
"""Of several committees: the standard deviation of the log of the distance at which nearness fades."""


@dataclass(frozen=True)
class Members:
    """Learners of one task, and the state of each: committees that differ by what is drawn, or one given learner.

    Example:
        >>> import torch
        >>> from gradatim import Batch
        >>> from gradatim.committees import Members
        >>> from gradatim.nn.fixed_features import FixedFeatures
        >>> draws = FixedFeatures.draw(torch.randn(8, 2).double()).draws
        >>> members = Members.of_draws([draws], outputs=None, device="cpu")
        >>> members.learn(Batch(torch.zeros(1, 5, 2).double(), torch.ones(1, 5, 1).double()), 32).latents()[0].shape
        torch.Size([1, 540])
    """

    learners: list[Learner]
    states: list[State]

    @classmethod
    def of_draws(cls, drawn: Sequence[Draws], outputs: int | None, device: str) -> Self:
        """Return committees on features as drawn, for `outputs` classes or (None) a number; no row is learnt."""
        likelihood = SquaredError(1) if outputs is None else CrossEntropy(outputs)
        learners = [committee(likelihood, FixedFeatures(draws)).double().to(device) for draws in drawn]
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
        return replace(self, states=[f.fit(batch, batch_size, passes) for f in self.learners])

    def learn(self, batch: Batch, batch_size: int) -> Self:
        """Return the members after more rows `[1, n, ...]`, in mini-batches."""
        states = self.states
        for part in batch.split(batch_size):
            pairs = zip(self.learners, states, strict=True)
            states = [learner.learn(state, part, predict=False)[1] for learner, state in pairs]
        return replace(self, states=states)

    def settle(self) -> Self:
        """Return the members without rows that wait."""
        return replace(self, states=[f.refiner.settle(state) for f, state in self])

    def latents(self) -> list[Tensor]:
        """Return what each predicts with."""
        with torch.no_grad():
            return [f.refiner.latent(state) for f, state in self]

    def outputs_at(self, latents: Sequence[Tensor], x: Tensor, classes: bool) -> Tensor:
        """Return the average of the members' probabilities `[n, C]`, or of their means `[n, 1]`, at x `[1, n, d]`."""
        pairs = zip(self.learners, latents, strict=True)
        outputs = [learner.predictor(x, latent)[0] for learner, latent in pairs]
        return torch.stack([part.softmax(-1) for part in outputs] if classes else outputs).mean(0)

    def distribution(self, latents: Sequence[Tensor], x: Tensor) -> Mixture:
        """Return the predictive distribution of all members, of equal weight, at x `[1, n, d]`.

        Raises:
            ValueError: a learner answers a mean only.
        """
        pairs = zip(self.learners, latents, strict=True)
        return Mixture.joined([learner.predictor.distribution(x, latent) for learner, latent in pairs])

    def carry(self, drawn: Sequence[Draws], change: Change, outputs: int | None, alike: bool) -> Self:
        """Return committees on other features, of rows whose inputs changed; see `carry_matrix` for what is exact."""
        device = self.states[0].solved.device
        after = type(self).of_draws(drawn, outputs, str(device))
        states = []
        for (old, state), new in zip(self.settle(), after.learners, strict=True):
            matrix = carry_matrix(old.refiner.features, new.refiner.features, change, alike)  # type: ignore[attr-defined]
            state = new.refiner.carry(state, matrix)  # type: ignore[attr-defined]
            states.append(state if alike else new.refiner.solve(state))  # type: ignore[attr-defined]
        return replace(after, states=states)

    def rescale(self, scale: float, shift: float) -> Self:
        """Return committees of `scale y + shift`."""
        return replace(self, states=[f.refiner.rescale(state, scale, shift) for f, state in self])  # type: ignore[attr-defined]

    def reweigh(self, batch: Batch, factor: float) -> Self:
        """Return committees weighed by rows among those learnt `[1, n, ...]`, each left out, times a factor."""
        if not all(f.refiner.capabilities.score for f in self.learners):
            return self
        seen = StepInput(batch.rows, batch)
        return replace(self, states=[f.refiner.reweigh(state, seen, factor) for f, state in self])  # type: ignore[attr-defined]

    def widen(self, wider: Self, place: np.ndarray) -> Self:
        """Return `wider`, members of more classes, with what these have learnt: class c is `place[c]`, `place [C]`."""
        states = []
        for learner, state in zip(wider.learners, self.states, strict=True):
            states.append(learner.widen(state, torch.from_numpy(place.astype(np.int64))))
        return replace(wider, states=states)

    def merge(self, members: Self) -> Self:
        """Return the members that have learnt the rows of both."""
        pairs = zip(self, members.states, strict=True)
        return replace(self, states=[f.merge([state, more]) for (f, state), more in pairs])

    def pack(self, given: bool = False) -> tuple[Self, dict[str, Tensor]]:
        """Return the members, and all that they know as tensors of any shape; nothing is rounded."""
        packed = [learner.refiner.pack(state) for learner, state in self]
        tensors = {f"{m}.{name}": t for m, (_, parts) in enumerate(packed) for name, t in parts.items()}
        if not given:
            drawn = [draws.packed()._asdict() for draws in self.draws]
            tensors |= {f"{m}.{name}": t for m, parts in enumerate(drawn) for name, t in parts.items()}
        return replace(self, states=[state for state, _ in packed]), tensors

    @classmethod
    def unpack(
        cls, tensors: dict[str, Tensor], count: int, outputs: int | None, device: str, given: list[Learner]
    ) -> Self:
        """Return `count` members of what `pack` returned, tensors of any shape; learners that were `given`, if any.

        Raises:
            ValueError: a tensor is missing or has another shape.
        """
        parts = [select_prefix(tensors, str(member)) for member in range(count)]
        if given:
            members = cls.of_learners(given)
        else:
            drawn = [Draws(*(part.pop(name) for name in Draws._fields)).unpacked() for part in parts]
            members = cls.of_draws(drawn, outputs, device)
        pairs = zip(members.learners, parts, strict=True)
        return replace(members, states=[learner.refiner.unpack(part) for learner, part in pairs])

    def __iter__(self) -> Any:
        return zip(self.learners, self.states, strict=True)


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
    outputs, heads = classes or 1, len(VIEWS) * len(STRENGTHS)
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
