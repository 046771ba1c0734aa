"""Methods that learn a space of keys and a prior in it; the state of a task is sums over its rows.

Source: Harrison et al. 2018 (ALPaCA); Ioffe 2006 (PLDA); Snell et al. 2017 (prototypical networks); Mittal et al.
2025 (learnt steps on top).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ..learner import Learner
from ..nn.encoders import encoder
from ..predictors import GaussianKeys, Keys
from ..refiners import alpaca, class_means, refined_alpaca, refined_plda
from ..regimes import y_likelihood
from ..signal import CLOSED_FORM
from .base import Method

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..family import TaskFamily


@dataclass(frozen=True, kw_only=True)
class ALPaCA(Method):
    """A Bayesian linear head on learnt keys, with a prior mean, covariance and noise learnt from other tasks.

    Train it by `Prefixes`, which learns the noise too. Trained on squared errors its variances mean nothing.

    Fields:
        `encoder`: how x becomes keys: `tanh`, a network of three layers; `network`, a linear map plus a network;
            `convolutions`, for square images; `linear`.
        `keys`: the width of a key.
        `width`: units of hidden layers, or channels of convolutions.
        `rank`: the prior covariance is a matrix of this rank plus a diagonal. null: a full one.

    Example:
        >>> from gradatim import Sinusoids
        >>> from gradatim.methods import ALPaCA
        >>> learner = ALPaCA(keys=16).build(Sinusoids())
        >>> learner.refiner.capabilities.merge, learner.refiner.capabilities.forget
        (True, True)

    Source: Harrison, Sharma, Pavone 2018, algorithms 1 and 2. The noise is learnt here and known there.
    """

    summary: ClassVar[str] = "a Bayesian linear head on learnt keys; its prior and noise are learnt too"
    regression: ClassVar[bool] = True
    encoder: Literal["tanh", "network", "convolutions", "linear"] = "tanh"
    keys: int = 32
    width: int = 64
    rank: int | None = None

    def build(self, family: TaskFamily) -> Learner:
        """Return the learner for the tasks of a family.

        Raises:
            ValueError: classes; sizes below 1; convolutions of x that is no square image.
        """
        return _of_numbers(self, family, lambda outputs: alpaca.ALPaCA(self.keys, outputs, self.rank))


@dataclass(frozen=True, kw_only=True)
class RefinedALPaCA(ALPaCA):
    """The posterior of `ALPaCA`, moved by learnt steps: for tasks that are not linear in any few keys.

    Train `ALPaCA` first, begin from it by `begin_from`, and train on. Trained from scratch it works too.

    Fields:
        `steps`: how many steps are taken before a prediction. They share their weights.
        `units`: of the two hidden layers of a step.

    The other fields are those of `ALPaCA`.

    Example:
        >>> from gradatim import Sinusoids
        >>> from gradatim.methods import RefinedALPaCA
        >>> RefinedALPaCA(keys=16, steps=3).build(Sinusoids()).refiner.steps
        3

    Source: Mittal et al. 2025, eq. 7, with the posterior of Harrison et al. 2018 as the start.
    """

    summary: ClassVar[str] = "the posterior of alpaca, moved by a few learnt steps on its gradient"
    steps: int = 2
    units: int = 128

    def build(self, family: TaskFamily) -> Learner:
        """Return the learner for the tasks of a family.

        Raises:
            ValueError: what `ALPaCA` refuses; steps or units below 1.
        """
        kind = refined_alpaca.RefinedALPaCA
        return _of_numbers(
            self, family, lambda outputs: kind(self.keys, outputs, self.rank, self.steps, self.units)
        )


@dataclass(frozen=True, kw_only=True)
class PLDA(Method):
    """Class means with a learnt Gaussian prior in a learnt space: probabilistic LDA. Any number of classes.

    Fields:
        `encoder`: how x becomes keys: `network`, a linear map plus a network; `convolutions`, for square images;
            `linear`; `tanh`, a network of three layers.
        `keys`: the width of a key.
        `width`: units of hidden layers, or channels of convolutions.

    Example:
        >>> from gradatim import LinearClassification
        >>> from gradatim.methods import PLDA
        >>> learner = PLDA(keys=16).build(LinearClassification(dim=3, classes=5))
        >>> learner.init(n_tasks=2).counts.shape
        torch.Size([2, 5])

    Source: Ioffe 2006, section 2; in a learnt space this project's own.
    """

    summary: ClassVar[str] = "class means with a learnt prior in a learnt space (probabilistic LDA)"
    classification: ClassVar[bool] = True
    encoder: Literal["network", "convolutions", "linear", "tanh"] = "network"
    keys: int = 64
    width: int = 128

    def build(self, family: TaskFamily) -> Learner:
        """Return the learner for the tasks of a family.

        Raises:
            ValueError: a family without classes; sizes below 1; convolutions of x that is no square image.
        """
        return _of_classes(self, family, lambda classes: class_means.PLDA(self.keys, classes))


@dataclass(frozen=True, kw_only=True)
class RefinedPLDA(PLDA):
    """The posterior of `PLDA`, moved by learnt steps in which classes see one another.

    Train `PLDA` first, begin from it by `begin_from`, and train on. With few training classes it overfits: see
    `keep_where_better`.

    Fields:
        `steps`: how many steps are taken before a prediction. They share their weights.
        `units`: the width of a class's token, a multiple of 4.

    The other fields are those of `PLDA`.

    Example:
        >>> from gradatim import LinearClassification
        >>> from gradatim.methods import RefinedPLDA
        >>> RefinedPLDA(keys=16, steps=3).build(LinearClassification(dim=3, classes=5)).refiner.steps
        3

    Source: Mittal et al. 2025, eq. 7, with the posterior of Ioffe 2006 as the start; Ye et al. 2020.
    """

    summary: ClassVar[str] = (
        "the posterior of plda, moved by a few learnt steps in which classes see one another"
    )
    steps: int = 1
    units: int = 64

    def build(self, family: TaskFamily) -> Learner:
        """Return the learner for the tasks of a family.

        Raises:
            ValueError: what `PLDA` refuses; no step, units that are no multiple of 4.
        """
        kind = refined_plda.RefinedPLDA
        return _of_classes(self, family, lambda classes: kind(self.keys, classes, self.steps, self.units))


@dataclass(frozen=True, kw_only=True)
class Prototypical(Method):
    """A prototypical network: the nearest class mean in a learnt space, and a learnt score for classes not yet seen.

    Fields:
        `encoder`: how x becomes keys: `network`, a linear map plus a network; `convolutions`, for square images;
            `linear`; `tanh`, a network of three layers.
        `keys`: the width of a key.
        `width`: units of hidden layers, or channels of convolutions.

    Example:
        >>> from gradatim import LinearClassification
        >>> from gradatim.methods import Prototypical
        >>> learner = Prototypical(keys=16).build(LinearClassification(dim=3, classes=5))
        >>> learner.refiner.capabilities.widen
        True

    Source: Snell et al. 2017, algorithm 1.
    """

    summary: ClassVar[str] = "the nearest class mean in a learnt space (prototypical networks)"
    classification: ClassVar[bool] = True
    encoder: Literal["network", "convolutions", "linear", "tanh"] = "network"
    keys: int = 64
    width: int = 128

    def build(self, family: TaskFamily) -> Learner:
        """Return the learner for the tasks of a family.

        Raises:
            ValueError: a family without classes; sizes below 1; convolutions of x that is no square image.
        """
        return _of_classes(self, family, lambda classes: class_means.Prototypical(self.keys, classes))


def _of_numbers(method: ALPaCA, family: TaskFamily, refiner: Callable[[int], alpaca.ALPaCA]) -> Learner:
    """Return a learner of numbers in the space of a method's keys; the refiner is given the width of y."""
    y = y_likelihood(family)
    if y.classes is not None:
        raise ValueError("a Gaussian head fits numbers; this family has classes: choose 'plda'")
    network = encoder(method.encoder, family.x_dim, method.keys, method.width)
    predictor = GaussianKeys(family.x_dim, y, network, method.keys)
    return Learner(predictor, refiner(y.output_dim), CLOSED_FORM)


def _of_classes(
    method: PLDA | Prototypical, family: TaskFamily, refiner: Callable[[int], class_means.ClassMeans]
) -> Learner:
    """Return a learner of class means in the space of a method's keys; the refiner is given the number of classes."""
    y = y_likelihood(family)
    if y.classes is None:
        raise ValueError("means of classes need classes; this family has numbers as y: choose 'alpaca'")
    network = encoder(method.encoder, family.x_dim, method.keys, method.width)
    predictor = Keys(family.x_dim, y, network, method.keys)
    return Learner(predictor, refiner(y.classes), CLOSED_FORM)
