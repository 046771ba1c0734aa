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


@dataclass(frozen=True, kw_only=True)
class TaskFamily(ABC):
    """A distribution over tasks: same generator state, same tasks.

    Fields: `support_rows`, `query_rows`: rows of each task; `min_support_rows`: when given, each task's support
    keeps a random number of rows between it and `support_rows`, the others are masked.
    A family says `x_dim`, and `classes` (classification) or `y_dim` (regression; `classes` is None), and `intercept`:
    whether a linear model of it needs one; `orders`: the answer is an order of x's columns, and support rows have no y;
    `flow`: its rows are those of flow matching.
    """

    support_rows: int = 160
    query_rows: int = 64
    min_support_rows: int | None = None

    x_dim = 0
    y_dim = 1
    intercept = True
    orders = False
    flow = False
    classes = cast("int | None", None)

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
