"""Methods that predict an order of x's columns.

Source: Mittal et al. 2025, topological order; Lorch et al. 2022 (AVICI), the attention.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..regimes import ordering
from .refined import TransformerMethod

if TYPE_CHECKING:
    from ..family import TaskFamily
    from ..learner import Learner


@dataclass(frozen=True, kw_only=True)
class ExplicitOrder(TransformerMethod):
    """An order of x's columns: a token for each, refined by rows, and a learnt score of tokens.

    Fields: `token_width` of the tokens.
    """

    summary: ClassVar[str] = (
        "an order of x's columns: a token for each, refined by rows, and a learnt score of tokens (as AVICI)"
    )
    orders: ClassVar[bool] = True
    token_width: int = 32

    def build(self, family: TaskFamily) -> Learner:
        """Return the learner for the tasks of a family."""
        return ordering(family, config=self.transformer(), token_width=self.token_width)


@dataclass(frozen=True, kw_only=True)
class ExplicitOrderOneStep(ExplicitOrder):
    """An order of x's columns from a single refinement."""

    summary: ClassVar[str] = "an order of x's columns from a single refinement"
    one_step: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class ImplicitOrder(TransformerMethod):
    """An order of x's columns: their scores, refined by rows."""

    summary: ClassVar[str] = "an order of x's columns: their scores, refined by rows"
    orders: ClassVar[bool] = True

    def build(self, family: TaskFamily) -> Learner:
        """Return the learner for the tasks of a family."""
        return ordering(family, config=self.transformer(), token_width=None)
