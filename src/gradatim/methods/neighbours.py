"""The neighbours of iterative amortized inference: learned optimizers and neural processes.

Source: Andrychowicz et al. 2016; Garnelo et al. 2018; Kim et al. 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..learner import Learner
from ..predictors import Decoder, Readout
from ..refiners import DECAYING, Gain, learned_optimizer, neural_processes
from ..regimes import linear, y_likelihood
from ..signal import GRADIENTS, PLAIN
from .base import Method

if TYPE_CHECKING:
    from ..family import TaskFamily


@dataclass(frozen=True, kw_only=True)
class LearnedOptimizer(Method):
    """Weights moved coordinate by coordinate by one small network that sees gradients alone.

    Fields:
        `hidden`: widths of the fitted network's hidden layers. Without any the model is linear.
        `width`: the width of the small network that proposes steps.
        `gain`: how far a step moves.
        `rate`: where the learnt rate starts.

    Example:
        >>> from gradatim import LinearRegression
        >>> from gradatim.methods import LearnedOptimizer
        >>> learner = LearnedOptimizer(width=16).build(LinearRegression(dim=3))
        >>> learner.signal.observations, learner.signal.gradients
        (False, True)

    Source: Andrychowicz et al. 2016, eq. 3.
    """

    summary: ClassVar[str] = (
        "weights moved coordinate by coordinate by one small network that sees gradients alone"
    )
    hidden: tuple[int, ...] = ()
    width: int = 64
    gain: Gain = DECAYING
    rate: float = 0.1

    def build(self, family: TaskFamily) -> Learner:
        """Return the learner for the tasks of a family."""
        predictor = linear(family, self.hidden)
        refiner = learned_optimizer.LearnedOptimizer(
            predictor.initial(), self.width, self.gain, rate=self.rate
        )
        return Learner(predictor, refiner, GRADIENTS)


@dataclass(frozen=True, kw_only=True)
class NeuralProcess(Method):
    """The mean of encoded rows and a learnt decoder.

    Fields:
        `width`: the width of the hidden layers.
        `tokens`: the mean is this number of vectors.
        `token_width`: the width of these vectors.

    Example:
        >>> from gradatim import LinearRegression
        >>> from gradatim.methods import NeuralProcess
        >>> learner = NeuralProcess(tokens=4, token_width=8).build(LinearRegression(dim=3))
        >>> learner.predictor.latent_shape
        (4, 8)

    Source: Garnelo et al. 2018, eqs. 2-4.
    """

    summary: ClassVar[str] = "the mean of encoded rows and a learnt decoder: a running sum"
    width: int = 64
    tokens: int = 16
    token_width: int = 32

    def build(self, family: TaskFamily) -> Learner:
        """Return the learner for the tasks of a family."""
        y = y_likelihood(family)
        predictor = Decoder(family.x_dim, y, self.tokens, self.token_width, width=self.width)
        widths = (family.x_dim, y.y_dim, y.classes, self.width)
        return Learner(predictor, neural_processes.NeuralProcess(predictor.latent_shape, *widths), PLAIN)


@dataclass(frozen=True, kw_only=True)
class AttentiveNeuralProcess(Method):
    """Each query's attention over encoded rows.

    Fields:
        `width`: the width of the hidden layers.
        `heads`: the number of attention heads.

    Example:
        >>> from gradatim import LinearRegression
        >>> from gradatim.methods import AttentiveNeuralProcess
        >>> learner = AttentiveNeuralProcess(width=32).build(LinearRegression(dim=3))
        >>> learner.refiner.capabilities.per_query
        True

    Source: Kim et al. 2019, section 3.
    """

    summary: ClassVar[str] = (
        "each query's attention over encoded rows, a running softmax (the deterministic path)"
    )
    width: int = 64
    heads: int = 4

    def build(self, family: TaskFamily) -> Learner:
        """Return the learner for the tasks of a family."""
        y = y_likelihood(family)
        predictor = Readout(y, "latents", self.width, family.x_dim)
        refiner = neural_processes.AttentiveProcess(family.x_dim, y.y_dim, y.classes, self.width, self.heads)
        return Learner(predictor, refiner, PLAIN)
