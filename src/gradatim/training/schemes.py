"""Schemes that meta-train a learner: greedily, one step at a time, or through unrolled steps.

Source: Mittal et al. 2025, eq. 9 (greedy); Werbos 1990 and Sutskever 2013 (truncated backpropagation through steps).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch

from ..tree import detach, select, tree_map

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from ..batch import Batch, Task
    from ..learner import Learner
    from ..refiner import State


@runtime_checkable
class Penalty(Protocol):
    """A term that is added to a scheme's loss, computed from a meta-batch; a frozen dataclass.

    Example:
        >>> from dataclasses import dataclass
        >>> from gradatim import Greedy
        >>> @dataclass(frozen=True)
        ... class LastStep:
        ...     weight: float
        ...
        ...     def __call__(self, learner, task, losses):
        ...         return self.weight * losses[-1].mean()
        >>> Greedy(penalties=(LastStep(0.1),)).penalties
        (LastStep(weight=0.1),)
    """

    def __call__(self, learner: Learner, task: Task, losses: Tensor) -> Tensor:
        """Return the term `[]` for a meta-batch of B tasks, whose query losses are `[steps, B]`."""
        ...


@runtime_checkable
class StatePenalty(Protocol):
    """A penalty that reads what the tasks of a meta-batch have become, rather than their losses; a frozen dataclass.

    A scheme calls `of_states` of such a penalty, with the states after the last step.

    Example:
        >>> from dataclasses import dataclass
        >>> from gradatim import Greedy
        >>> @dataclass(frozen=True)
        ... class Small:
        ...     weight: float
        ...
        ...     def of_states(self, learner, task, state):
        ...         return self.weight * learner.refiner.latent(state).square().mean()
        >>> Greedy(penalties=(Small(0.1),)).penalties
        (Small(weight=0.1),)
    """

    def of_states(self, learner: Learner, task: Task, state: State) -> Tensor:
        """Return the term `[]` for a meta-batch of B tasks, whose states are `[B, ...]` after the last step."""
        ...


@dataclass(frozen=True)
class Scheme(ABC):
    """A loss of whole episodes: up to `horizon` mini-batches of `batch_size` rows.

    Fields:
        `batch_size`: rows of a mini-batch.
        `horizon`: the largest number of steps of an episode.
        `random_horizon`: draw the number of steps uniformly from 1 .. horizon. Else it is horizon.
        `prefixes`: train each step on this many prefixes of its mini-batch. 1: the complete mini-batch only.
        `relative`: average the logarithm of each step's loss.
        `penalties`: terms that are added to the loss.

    Prefix lengths are uniform in 1 .. batch_size - 1, and the whole mini-batch is always one of the prefixes. Each
    task continues from one of them.

    With `relative`, late steps with small losses count as much as early ones. For squared error this is the Gaussian
    log-likelihood with a variance for each step.

    Raises:
        ValueError: a number below 1, or more prefixes than rows in a mini-batch.

    Example:
        >>> from gradatim import Greedy
        >>> scheme = Greedy(batch_size=8, horizon=20, random_horizon=True)
        >>> scheme.horizon, scheme.prefixes
        (20, 1)
    """

    batch_size: int = 16
    horizon: int = 10
    random_horizon: bool = False
    prefixes: int = 1
    relative: bool = False
    penalties: tuple[Penalty | StatePenalty, ...] = field(default=(), metadata={"option": False})

    def __post_init__(self) -> None:
        if min(self.batch_size, self.horizon, self.prefixes) < 1 or self.prefixes > self.batch_size:
            raise ValueError(
                "a scheme needs batch_size, horizon and prefixes of at least 1, and at most batch_size prefixes; "
                f"got batch_size {self.batch_size}, horizon {self.horizon}, prefixes {self.prefixes}"
            )

    @abstractmethod
    def carry(self, state: State, step: int) -> State:
        """Return the state from which step number `step` (from 0) starts, given the state before it."""

    def loss(self, learner: Learner, task: Task, generator: torch.Generator) -> Tensor:
        """Return the loss of an episode, of shape `[]`.

        It is the mean over steps of the query losses `[steps, tasks]`, or of the logarithms of the steps' means. The
        penalties are added.

        Args:
            learner: the learner to train.
            task: the support rows `[B, N, ...]` and query rows `[B, Q, ...]` of B tasks.
            generator: the source of the random draws.

        Raises:
            ValueError: the learner cannot be trained by this scheme, or there are too few support rows for one step.
        """
        self.check(learner)
        last: list[State] = []
        losses = torch.stack(list(self._losses(learner, task, generator, last)))
        return self._of_steps(losses).mean() + self._penalty(learner, task, losses, last)

    def losses(self, learner: Learner, task: Task, generator: torch.Generator) -> Tensor:
        """Return the query loss of each task after each step, `[steps, tasks]`, a mean over prefixes.

        Raises:
            ValueError: too few support rows for one step.

        Example:
            >>> import torch
            >>> from gradatim import Greedy, LinearRegression, build
            >>> family = LinearRegression(2, support_rows=8)
            >>> generator = torch.Generator().manual_seed(0)
            >>> learner = build("parametric-both", family)
            >>> Greedy(batch_size=4, horizon=2).losses(learner, family.sample(5, generator), generator).shape
            torch.Size([2, 5])
        """
        return torch.stack(list(self._losses(learner, task, generator)))

    def _penalty(self, learner: Learner, task: Task, losses: Tensor, last: list[State]) -> Tensor:
        """Return the sum of the penalties `[]` of an episode: its losses `[steps, tasks]`, the states it ended with."""
        terms = (
            term.of_states(learner, task, last[-1])
            if isinstance(term, StatePenalty)
            else term(learner, task, losses)
            for term in self.penalties
        )
        return sum(terms, losses.new_zeros(()))

    def _losses(
        self, learner: Learner, task: Task, generator: torch.Generator, last: list[State] | None = None
    ) -> Iterator[Tensor]:
        """Yield each task's query loss after each step `[B]`; nothing is drawn or computed before it is needed.

        `last` is given the states `[B, ...]` after the last whole mini-batch.
        """
        batches = list(self._batches(task.support, generator))
        lengths = self._lengths(generator)
        query = task.query
        n_prefixes = 1 if lengths is None else len(lengths)
        steps = iter(range(len(batches)))

        def carry(state: State) -> State:
            step = next(steps)
            if n_prefixes > 1 and step:
                chosen = torch.randint(n_prefixes, (task.n_tasks,), generator=generator)
                state = select(state, (torch.arange(task.n_tasks) * n_prefixes + chosen).to(query.x.device))
            return self.carry(state, step)

        repeated_query = query.repeat(n_prefixes)
        states = learner.states(batches, query, carry, lengths, generator, differentiable=True)
        for state in islice(states, 1, None):
            yield learner.loss(repeated_query, state, generator).unflatten(0, (-1, n_prefixes)).mean(1)
        if last is not None:
            last.append(whole(state, n_prefixes))

    def _of_steps(self, losses: Tensor) -> Tensor:
        """Return what each step counts, `[steps]`: the mean of its losses `[steps, tasks]`, or the log of it."""
        means = losses.mean(1)
        return means.log() if self.relative else means

    def check(self, learner: Learner) -> None:
        """Check that this scheme can train the learner.

        Raises:
            ValueError: the learner has nothing to meta-train.

        Example:
            >>> from gradatim import Greedy, LinearRegression, build
            >>> Greedy().check(build("ridge", LinearRegression(3)))
            Traceback (most recent call last):
            ValueError: ...has nothing to meta-train: use it as it is
        """
        if not learner.refiner.capabilities.learnt:
            raise ValueError(f"{type(learner.refiner).__name__} has nothing to meta-train: use it as it is")

    def _batches(self, support: Batch, generator: torch.Generator) -> list[Batch]:
        """Return the episode's mini-batches."""
        steps = self.horizon
        if self.random_horizon:
            steps = int(torch.randint(1, self.horizon + 1, (), generator=generator))
        if steps * self.batch_size > support.n_rows:
            raise ValueError(
                f"{steps} mini-batches of {self.batch_size} rows need {steps * self.batch_size} support rows; the "
                f"family gives {support.n_rows}: raise its support_rows or lower the horizon"
            )
        return list(islice(support.split(self.batch_size), steps))

    def _lengths(self, generator: torch.Generator) -> Tensor | None:
        """Return the prefix lengths of this episode `[P]`, ascending, the whole mini-batch last."""
        if self.prefixes == 1:
            return None
        others = torch.randperm(self.batch_size - 1, generator=generator)[: self.prefixes - 1] + 1
        return torch.cat([others.sort().values, torch.tensor([self.batch_size])])


@dataclass(frozen=True)
class Greedy(Scheme):
    """Train each step on its own, with no gradient across steps, as in the paper.

        loss = 1/T sum_t L(query, step(stop_gradient(state_t), batch_t))

    Fields: as `Scheme`.

    Example:
        >>> import torch
        >>> from gradatim import Greedy, LinearRegression, build
        >>> family, generator = LinearRegression(3), torch.Generator().manual_seed(0)
        >>> learner = build("parametric-gradients", family)
        >>> Greedy(batch_size=8, horizon=2).loss(learner, family.sample(4, generator), generator).backward()
        >>> next(learner.refiner.parameters()).grad is None
        False

    Source: Mittal et al. 2025, eq. 9.
    """

    def carry(self, state: State, step: int) -> State:
        """Return the state without its graph, except the learned initial state."""
        return detach(state) if step else state

    def check(self, learner: Learner) -> None:
        """Check that each step alone gives every learned part a gradient.

        Raises:
            ValueError: the learner has nothing to meta-train, or parts of its state are only read by later steps.
        """
        super().check(learner)
        if not learner.refiner.capabilities.greedy:
            raise ValueError(
                f"{type(learner.refiner).__name__} writes parts of its state that only later steps read, so greedy "
                "training gives them no gradient: use Unrolled"
            )


@dataclass(frozen=True)
class Unrolled(Scheme):
    """Backpropagate through steps, and cut the graph every `truncation` steps.

        loss = 1/T sum_t L(query, state_t),  state_t differentiable in up to `truncation` steps before it

    Fields:
        `truncation`: the number of steps between cuts. None: no cut.

    The other fields are those of `Scheme`.

    Raises:
        ValueError: as `Scheme`, or truncation below 1.

    Example:
        >>> import torch
        >>> from gradatim import LinearRegression, Unrolled, build
        >>> family, generator = LinearRegression(3), torch.Generator().manual_seed(0)
        >>> learner = build("parametric-gradients", family)
        >>> scheme = Unrolled(batch_size=8, horizon=4, truncation=2)
        >>> scheme.loss(learner, family.sample(4, generator), generator).backward()

    Source: Werbos 1990; Sutskever 2013, section 2.8.1.
    """

    truncation: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.truncation is not None and self.truncation < 1:
            raise ValueError(f"truncation counts steps: None or at least 1; got {self.truncation}")

    def carry(self, state: State, step: int) -> State:
        """Return the state, without its graph at every truncation-th step."""
        cut = self.truncation is not None and step > 0 and step % self.truncation == 0
        return detach(state) if cut else state


def whole(states: State, count: int) -> State:
    """Return the last of the `count` states of each task, `[B, ...]`, of states `[B * count, ...]` side by side.

    Example:
        >>> import torch
        >>> from gradatim.training.schemes import whole
        >>> whole(torch.arange(6), 3)
        tensor([2, 5])
    """
    return tree_map(lambda part: part[count - 1 :: count], states) if count > 1 else states
