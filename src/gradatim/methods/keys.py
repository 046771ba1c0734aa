"""Methods that learn a space of keys and a prior in it; the state of a task is sums over its rows.

Source: Harrison et al. 2018 (ALPaCA); Ioffe 2006 (PLDA); Snell et al. 2017 (prototypical networks).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ..learner import Learner
from ..nn.encoders import encoder
from ..predictors import GaussianKeys, Keys
from ..refiners import alpaca, class_means
from ..regimes import y_likelihood
from ..signal import CLOSED_FORM
from .base import Method

if TYPE_CHECKING:
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
        y = y_likelihood(family)
        if y.classes is not None:
            raise ValueError("a Gaussian head fits numbers; this family has classes: choose 'plda'")
        network = encoder(self.encoder, family.x_dim, self.keys, self.width)
        predictor = GaussianKeys(family.x_dim, y, network, self.keys)
        return Learner(predictor, alpaca.ALPaCA(self.keys, y.output_dim, self.rank), CLOSED_FORM)


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
        return _of_classes(self, family, class_means.PLDA)


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
        return _of_classes(self, family, class_means.Prototypical)


def _of_classes(
    method: PLDA | Prototypical, family: TaskFamily, kind: type[class_means.ClassMeans]
) -> Learner:
    """Return a learner of class means in the space of a method's keys."""
    y = y_likelihood(family)
    if y.classes is None:
        raise ValueError("means of classes need classes; this family has numbers as y: choose 'alpaca'")
    network = encoder(method.encoder, family.x_dim, method.keys, method.width)
    predictor = Keys(family.x_dim, y, network, method.keys)
    return Learner(predictor, kind(method.keys, y.classes), CLOSED_FORM)
