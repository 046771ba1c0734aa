"""A distribution over tasks.

Source: Mittal et al. 2025, eqs. 5-6: the expectation `E_T`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from typing import Self

    import torch

    from .batch import Task
    from .likelihood import Likelihood


@dataclass(frozen=True, kw_only=True)
class TaskFamily(ABC):
    """A distribution over tasks: same generator state, same tasks.

    Fields: `support_rows`, `query_rows`: rows of each task; `min_support_rows`: when given, each task's support
    keeps a random number of rows between it and `support_rows`, the others are masked.

    A family of your own is a frozen, kw_only dataclass with

    - `x_dim`: the width of x;
    - `likelihood`: what y is, such as `SquaredError(1)`, or `CrossEntropy(3)` for three classes;
    - `sample`: how tasks are drawn;
    - and, where a linear model of it needs no intercept, `intercept = False`.

    Example:
        >>> from dataclasses import dataclass
        >>> import torch
        >>> from gradatim import Batch, Task, TaskFamily
        >>> from gradatim.likelihood import SquaredError
        >>> @dataclass(frozen=True, kw_only=True)
        ... class Slopes(TaskFamily):
        ...     x_dim = 1
        ...     likelihood = SquaredError(1)
        ...
        ...     def sample(self, n_tasks, generator):
        ...         x = torch.randn(n_tasks, self.support_rows + self.query_rows, 1, generator=generator)
        ...         rows = Batch(x, x * torch.randn(n_tasks, 1, 1, generator=generator))
        ...         return Task(rows.slice(0, self.support_rows), rows.slice(self.support_rows, rows.n_rows))
        >>> Slopes().sample(4, torch.Generator().manual_seed(0)).support.x.shape
        torch.Size([4, 160, 1])
    """

    support_rows: int = 160
    query_rows: int = 64
    min_support_rows: int | None = None

    x_dim = 0
    intercept = True
    likelihood = cast("Likelihood", None)

    @abstractmethod
    def sample(self, n_tasks: int, generator: torch.Generator) -> Task:
        """Return n_tasks tasks drawn with `generator`, a CPU generator."""

    def on(self, split: str) -> Self:
        """Return the family over another pool, `train`, `validation` or `test`: itself where tasks are simulated."""
        return self

    def oracle(self, task: Task, rows: int | None = None) -> torch.Tensor | None:
        """Return the best possible outputs `[B, Nq, Do]` at the query, from the first `rows` of the support.

        None where no closed form exists.
        """
        return None
