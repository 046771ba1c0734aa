"""Meta-training through steps that see the same rows again: the inner loop of few-shot learning.

Source: Finn, Abbeel, Levine 2017, algorithm 1 with several steps; Antoniou et al. 2019, section 4 (all steps).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count, cycle, islice
from typing import TYPE_CHECKING

import torch

from .schemes import Unrolled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from ..batch import Batch, Task
    from ..learner import Learner
    from ..refiner import State


@dataclass(frozen=True)
class Repeated(Unrolled):
    """Backpropagate through `horizon` steps, which go through the support again when it ends.

        loss = L(query, state_T),   or 1/T sum_t L(query, state_t)

    A task of five rows has one mini-batch of five rows. `Unrolled` takes one step on it, `Repeated` as many as are
    asked for. Adapt in the same way with `learner.fit(support, batch_size, passes)`.

    Fields:
        `every_step`: whether the loss counts the query after each step. Else it counts the last step alone.

    The other fields are those of `Unrolled`; `batch_size` may be larger than the support.

    Raises:
        ValueError: as `Unrolled`; prefixes where the last step alone counts.

    Example:
        >>> import torch
        >>> from gradatim import Repeated, Sinusoids, build
        >>> family, generator = Sinusoids(support_rows=5), torch.Generator().manual_seed(0)
        >>> learner, task = build("maml", family, hidden=(8,)), family.sample(4, generator)
        >>> Repeated(batch_size=5, horizon=3).losses(learner, task, generator).shape
        torch.Size([1, 4])

    Source: Finn, Abbeel, Levine 2017, algorithm 1; Antoniou et al. 2019, section 4.
    """

    every_step: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prefixes != 1 and not self.every_step:
            raise ValueError(
                f"the last step is trained on whole mini-batches; got {self.prefixes} prefixes: leave them out, or set "
                "every_step"
            )

    def _losses(
        self, learner: Learner, task: Task, generator: torch.Generator, last: list[State] | None = None
    ) -> Iterator[Tensor]:
        """Yield each task's query loss `[B]` after each step, or after the last one where that alone counts."""
        if self.every_step:
            yield from super()._losses(learner, task, generator, last)
            return
        steps, batches = count(), self._batches(task.support, generator)

        def carry(state: State) -> State:
            return self.carry(state, next(steps))

        *_, state = learner.states(batches, task.query, carry, None, generator, differentiable=True)
        if last is not None:
            last.append(state)
        yield learner.loss(task.query, state, generator)

    def _batches(self, support: Batch, generator: torch.Generator) -> list[Batch]:
        """Return the episode's mini-batches, the support again and again."""
        steps = self.horizon
        if self.random_horizon:
            steps = int(torch.randint(1, self.horizon + 1, (), generator=generator))
        return list(islice(cycle(list(support.split(self.batch_size))), steps))
