"""Methods that predict an order of x's columns.

Source: Mittal et al. 2025, topological order; Lorch et al. 2022 (AVICI), the attention.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..learner import Learner
from ..predictors import OrderScores
from ..refiners.pairs import PairRefiner
from ..regimes import check_order, ordering
from ..signal import PLAIN
from .base import Method
from .refined import TransformerMethod

if TYPE_CHECKING:
    from ..family import TaskFamily


@dataclass(frozen=True, kw_only=True)
class ExplicitOrder(TransformerMethod):
    """An order of x's columns: a token for each, refined by rows, and a learnt score of tokens.

    Fields:
        `token_width`: the width of the tokens.

    Example:
        >>> from gradatim.families import StructuralCausalModel
        >>> from gradatim.methods import ExplicitOrder
        >>> learner = ExplicitOrder(token_width=8).build(StructuralCausalModel(variables=5))
        >>> learner.init(n_tasks=2).latent.shape
        torch.Size([2, 5, 8])
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
    """An order of x's columns from a single refinement.

    Example:
        >>> from gradatim.methods import ExplicitOrderOneStep
        >>> ExplicitOrderOneStep(width=32).one_step
        True
    """

    summary: ClassVar[str] = "an order of x's columns from a single refinement"
    one_step: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class ImplicitOrder(TransformerMethod):
    """An order of x's columns: their scores, refined by rows.

    Example:
        >>> from gradatim.families import StructuralCausalModel
        >>> from gradatim.methods import ImplicitOrder
        >>> learner = ImplicitOrder(width=32).build(StructuralCausalModel(variables=5))
        >>> learner.init(n_tasks=2).latent.shape
        torch.Size([2, 5, 1])
    """

    summary: ClassVar[str] = "an order of x's columns: their scores, refined by rows"
    orders: ClassVar[bool] = True

    def build(self, family: TaskFamily) -> Learner:
        """Return the learner for the tasks of a family."""
        return ordering(family, config=self.transformer(), token_width=None)


@dataclass(frozen=True, kw_only=True)
class PairwiseOrder(Method):
    """An order of x's columns from learnt moments of every two of them: a running sum, exact to merge and to forget.

    Train it by `Unrolled`. States are sums, so one step with all rows trains for every cut into mini-batches.

    Fields:
        `keys`: learnt features of a cell, whose products are the moments.
        `width`: of the vectors of variables and pairs that read the moments.
        `layers`: that read them.

    Example:
        >>> from gradatim.families import StructuralCausalModel
        >>> from gradatim.methods import PairwiseOrder
        >>> learner = PairwiseOrder(keys=4).build(StructuralCausalModel(variables=5))
        >>> learner.refiner.capabilities.merge, learner.refiner.capabilities.forget
        (True, True)

    Source: this project's own; Hyvarinen, Smith 2013, for fixed moments of pairs.
    """

    summary: ClassVar[str] = "an order of x's columns from learnt moments of every two: a running sum"
    orders: ClassVar[bool] = True
    keys: int = 12
    width: int = 48
    layers: int = 3

    def build(self, family: TaskFamily) -> Learner:
        """Return the learner for the tasks of a family."""
        check_order(family)
        refiner = PairRefiner(family.x_dim, self.keys, self.width, self.layers)
        return Learner(OrderScores(family.x_dim), refiner, PLAIN)
