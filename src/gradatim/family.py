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

    Fields:
        `support_rows`: the rows of each task's support.
        `query_rows`: the rows of each task's query.
        `min_support_rows`: if given, a support has a random number of rows from this one to `support_rows`. The places
            behind them are masked.

    A family of your own is a frozen, kw_only dataclass with these members.

    - `x_dim`: the width of x.
    - `likelihood`: what y is, such as `SquaredError(1)`, or `CrossEntropy(3)` for three classes.
    - `sample`: how tasks are drawn.
    - `intercept = False`, if a linear model of it needs no intercept.

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
        """Return n_tasks tasks drawn with `generator`, a CPU generator.

        Their support is x `[n_tasks, support_rows, x_dim]`, their query x `[n_tasks, query_rows, x_dim]`.
        """

    def on(self, split: str) -> Self:
        """Return the family over another pool: `train`, `validation` or `test`. A simulated family returns itself."""
        return self

    def oracle(self, task: Task, rows: int | None = None) -> torch.Tensor | None:
        """Return the best possible outputs `[B, Nq, Do]` at the query, from the first `rows` of the support.

        It is None if there is no closed form.
        """
        return None
