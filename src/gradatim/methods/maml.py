"""MAML, its nested family, and MAML with a memory: gradient descent whose start is learnt from other tasks.

Source: Finn, Abbeel, Levine 2017; Li et al. 2017; Antoniou et al. 2019; after the ideas of Rajasegaran
et al. 2020 and Zhao et al. 2022.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from ..learner import Learner
from ..predictors import Imitation
from ..refiners import maml, memory
from ..regimes import linear, y_likelihood
from ..signal import GRADIENTS, SECOND_ORDER, Signal
from .base import Method

if TYPE_CHECKING:
    from ..family import TaskFamily
    from ..predictor import Predictor


@dataclass(frozen=True, kw_only=True)
class MAML(Method):
    """Gradient descent from a learnt start, trained through the gradients.

    Fields:
        `hidden`: widths of the network's hidden layers. Without any the model is linear.
        `rate`: the learning rate of a step.
        `learnt_rate`: whether the rate is meta-trained as well.

    Example:
        >>> from gradatim import LinearRegression
        >>> from gradatim.methods import MAML
        >>> learner = MAML(hidden=(8,), rate=0.1).build(LinearRegression(dim=3))
        >>> learner.predictor.latent_shape
        (41,)

    Source: Finn, Abbeel, Levine 2017, eq. 1.
    """

    summary: ClassVar[str] = (
        "gradient descent from a learnt start, trained through the gradients (second order)"
    )
    signal: ClassVar[Signal] = SECOND_ORDER
    hidden: tuple[int, ...] = ()
    rate: float = 0.03
    learnt_rate: bool = False

    def build(self, family: TaskFamily) -> Learner:
        """Return the learner for the tasks of a family."""
        predictor = linear(family, self.hidden)
        refiner = maml.MAML(predictor.initial(), self.rate, self.learnt_rate)
        return Learner(predictor, refiner, self.signal)


@dataclass(frozen=True, kw_only=True)
class FirstOrderMAML(MAML):
    """Gradient descent from a learnt start, gradients taken as constants in training.

    Example:
        >>> from gradatim import LinearRegression
        >>> from gradatim.methods import FirstOrderMAML
        >>> FirstOrderMAML(rate=0.1).build(LinearRegression(dim=3)).signal.keep_graph
        False

    Source: Finn, Abbeel, Levine 2017, section 5.2.
    """

    summary: ClassVar[str] = "gradient descent from a learnt start, gradients taken as constants in training"
    signal: ClassVar[Signal] = GRADIENTS


@dataclass(frozen=True, kw_only=True)
class MetaSGD(Method):
    """Gradient descent from a learnt start, with a learnt rate for each parameter.

    Fields:
        `hidden`: widths of the network's hidden layers. Without any the model is linear.
        `rate`: where the rates start.

    Example:
        >>> from gradatim import LinearRegression
        >>> from gradatim.methods import MetaSGD
        >>> learner = MetaSGD(rate=0.1).build(LinearRegression(dim=3))
        >>> learner.refiner.rate.shape
        torch.Size([3])

    Source: Li et al. 2017, eq. 3.
    """

    summary: ClassVar[str] = (
        "gradient descent from a learnt start, with a learnt rate for each parameter (second order)"
    )
    hidden: tuple[int, ...] = ()
    rate: float = 0.03

    def build(self, family: TaskFamily) -> Learner:
        """Return the learner for the tasks of a family."""
        predictor = linear(family, self.hidden)
        rates = torch.full(predictor.latent_shape, self.rate)
        return Learner(predictor, maml.MAML(predictor.initial(), rates, True), SECOND_ORDER)


@dataclass(frozen=True, kw_only=True)
class PathMAML(Method):
    """Gradient descent from a learnt start whose steps differ: a learnt rate for each step, and skips over steps.

    Fields:
        `hidden`: widths of the network's hidden layers. Without any the model is linear.
        `rate`: where the rates start.
        `rates`: what has a rate of its own: `weight-step`, each weight at each step; `layer-step`, each layer at each
            step (MAML++); `weight`, each weight (Meta-SGD); `shared`, nothing (MAML).
        `steps`: how many steps have rates and skips of their own.
        `skip`: after how many steps a learnt share of the way is taken back. null: never.
        `clip`: the largest size of a coordinate of the gradient.
        `second_order`: whether training goes through the gradients.

    Example:
        >>> from gradatim import LinearRegression
        >>> from gradatim.methods import PathMAML
        >>> learner = PathMAML(rate=0.1, rates="layer-step", hidden=(8,)).build(LinearRegression(dim=3))
        >>> learner.refiner.moves.shape
        torch.Size([5, 2])

    Source: Antoniou et al. 2019, section 4; after the idea of Rajasegaran et al. 2020.
    """

    summary: ClassVar[str] = (
        "gradient descent from a learnt start, with a learnt rate for each weight and step"
    )
    hidden: tuple[int, ...] = ()
    rate: float = 0.03
    rates: Literal["shared", "weight", "layer-step", "weight-step"] = "weight-step"
    steps: int = 5
    skip: int | None = None
    clip: float = 10.0
    second_order: bool = True

    def build(self, family: TaskFamily) -> Learner:
        """Return the learner for the tasks of a family: of a linear model or a tanh network."""
        predictor = linear(family, self.hidden)
        layers = [rows * width for rows, width in predictor.layout.shapes]
        return self.learner(predictor, layers)

    def learner(self, predictor: Predictor, layers: list[int] | tuple[int, ...] | None = None) -> Learner:
        """Return the learner of any model f, such as a convolutional network.

        Args:
            predictor: f.
            layers: how many numbers of its flat latent each layer has. None: it is one layer.

        Raises:
            ValueError: layers that do not make up the latent, or what the refiner refuses.

        Example:
            >>> from gradatim import CrossEntropy
            >>> from gradatim.methods import PathMAML
            >>> from gradatim.predictors import ConvolutionalNetwork
            >>> f = ConvolutionalNetwork(28, CrossEntropy(5), channels=(8, 8))
            >>> PathMAML(rates="layer-step").learner(f, f.layers).refiner.moves.shape
            torch.Size([5, 3])
        """
        refiner = maml.MAML(
            predictor.initial(),
            self.rate,
            rates=self.rates,
            steps=self.steps,
            layers=layers,
            skip=self.skip,
            clip=self.clip,
        )
        return Learner(predictor, refiner, SECOND_ORDER if self.second_order else GRADIENTS)


@dataclass(frozen=True, kw_only=True)
class MemoryImitation(Method):
    """MAML whose answers imitate remembered rows of the support, so that the support is read.

    Fields:
        `hidden`: widths of the network's hidden layers. Without any it is linear.
        `rate`: the learning rate of a step of the network.
        `share`: of the memory in an answer, 0 to 1: at 0 it is MAML, at 1 the memory alone.
        `encoder`: how x becomes keys: `linear`, `network` or `tanh`.
        `keys`: the width of a key.
        `width`: units of the encoder's hidden layers.
        `kept_rows`: the largest number of rows that are remembered.

    Example:
        >>> from gradatim import LinearClassification
        >>> from gradatim.methods import MemoryImitation
        >>> learner = MemoryImitation(kept_rows=25).build(LinearClassification(dim=3, classes=5))
        >>> learner.init(n_tasks=2).x.shape
        torch.Size([2, 25, 3])

    Source: after the idea of Zhao et al. 2022.
    """

    summary: ClassVar[str] = "MAML whose answers imitate remembered rows, so that the support is read"
    hidden: tuple[int, ...] = ()
    rate: float = 0.03
    share: float = 0.5
    encoder: Literal["linear", "network", "tanh"] = "linear"
    keys: int = 64
    width: int = 64
    kept_rows: int = 64

    def build(self, family: TaskFamily) -> Learner:
        """Return the learner for the tasks of a family.

        Raises:
            ValueError: a share outside 0 .. 1, a size below 1.
        """
        y = y_likelihood(family)
        about = (self.hidden, self.encoder, self.keys, self.width, self.kept_rows, self.share)
        predictor = Imitation(family.x_dim, y, *about)
        classes = y.classes is not None
        sizes = (family.x_dim, y.output_dim, classes, self.kept_rows)
        refiner = memory.MemoryImitation(predictor.network.initial(), self.rate, *sizes)
        return Learner(predictor, refiner, Signal(gradients=True, outputs=False, keep_graph=True))
