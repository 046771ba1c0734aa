"""Methods that fit each task from a fixed start: nothing is meta-trained.

Source: Robbins, Monro 1951; Polyak 1964; Kingma, Ba 2015; Martens, Grosse 2015; Liu, Nocedal 1989; Bell 1994.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from ..learner import Learner
from ..predictors import Ensemble, Network
from ..refiners import optimizers
from ..refiners.refit import Refit
from ..refiners.smoother import Smoother as SmootherRefiner
from ..regimes import linear
from ..signal import GRADIENTS, PLAIN, Signal
from .base import RATES, STRENGTHS, Method

if TYPE_CHECKING:
    from torch import Tensor

    from ..family import TaskFamily


@dataclass(frozen=True, kw_only=True)
class WeightsMethod(Method):
    """A method that fits a linear model, or a tanh network, to each task by itself.

    Fields:
        `hidden`: widths of the network's hidden layers. Without any the model is linear.

    Example:
        >>> from gradatim import LinearRegression
        >>> from gradatim.methods import SGD
        >>> predictor, start = SGD(hidden=(8,)).start(LinearRegression(dim=3))
        >>> start.shape
        torch.Size([41])
    """

    learnt: ClassVar[bool] = False
    hidden: tuple[int, ...] = ()

    def start(self, family: TaskFamily) -> tuple[Network, Tensor]:
        """Return the model f and its first weights `[S]`, the same at every call."""
        predictor = linear(family, self.hidden)
        return predictor, predictor.initial(torch.Generator().manual_seed(0))


@dataclass(frozen=True, kw_only=True)
class SGD(WeightsMethod):
    """Gradient descent, one step a mini-batch.

    Fields:
        `rate`: the learning rate.

    Example:
        >>> from gradatim import LinearRegression
        >>> from gradatim.methods import SGD
        >>> SGD(rate=0.3).build(LinearRegression(dim=3)).refiner.lr
        0.3
    """

    summary: ClassVar[str] = "gradient descent, one step a mini-batch"
    grid: ClassVar[Mapping[str, tuple[Any, ...]]] = {"rate": RATES}
    rate: float = 0.1

    def build(self, family: TaskFamily) -> Learner:
        """Return the learner for the tasks of a family."""
        predictor, start = self.start(family)
        return Learner(predictor, optimizers.SGD(start, self.rate), GRADIENTS)


@dataclass(frozen=True, kw_only=True)
class Momentum(WeightsMethod):
    """Gradient descent with momentum, one step a mini-batch.

    Fields:
        `rate`: the learning rate.
        `momentum`: the share of the last velocity that stays, in [0, 1).

    Example:
        >>> from gradatim import LinearRegression
        >>> from gradatim.methods import Momentum
        >>> Momentum().build(LinearRegression(dim=3)).refiner.momentum
        0.9
    """

    summary: ClassVar[str] = "gradient descent with momentum"
    grid: ClassVar[Mapping[str, tuple[Any, ...]]] = {"rate": RATES, "momentum": (0.5, 0.8, 0.9)}
    rate: float = 0.1
    momentum: float = 0.9

    def build(self, family: TaskFamily) -> Learner:
        """Return the learner for the tasks of a family."""
        predictor, start = self.start(family)
        return Learner(predictor, optimizers.SGD(start, self.rate, self.momentum), GRADIENTS)


@dataclass(frozen=True, kw_only=True)
class Adam(WeightsMethod):
    """Adam, one step a mini-batch.

    Fields:
        `rate`: the learning rate.

    Example:
        >>> from gradatim import LinearRegression
        >>> from gradatim.methods import Adam
        >>> Adam(rate=0.1).build(LinearRegression(dim=3)).refiner.lr
        0.1
    """

    summary: ClassVar[str] = "Adam, one step a mini-batch"
    grid: ClassVar[Mapping[str, tuple[Any, ...]]] = {"rate": RATES}
    rate: float = 0.03

    def build(self, family: TaskFamily) -> Learner:
        """Return the learner for the tasks of a family."""
        predictor, start = self.start(family)
        return Learner(predictor, optimizers.Adam(start, self.rate), GRADIENTS)


@dataclass(frozen=True, kw_only=True)
class Newton(WeightsMethod):
    """Damped Newton, one step a mini-batch; of a network, a block for each weight matrix.

    Fields:
        `rate`: the length of a step.
        `damping`: the damping, in units of the mean curvature.
        `power`: the power of the gain by which steps shrink as rows are seen.

    Example:
        >>> from gradatim import LinearRegression
        >>> from gradatim.methods import Newton
        >>> Newton(rate=0.5).build(LinearRegression(dim=3)).signal.inputs
        True
    """

    summary: ClassVar[str] = "damped Newton, one step a mini-batch"
    grid: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "rate": (0.3, 1.0, 3.0, 10.0, 30.0),
        "damping": (0.1, 0.3, 1.0, 3.0),
        "power": (0.5, 0.7, 1.0),
    }
    rate: float = 1.0
    damping: float = 1.0
    power: float = 1.0

    def build(self, family: TaskFamily) -> Learner:
        """Return the learner for the tasks of a family."""
        predictor, start = self.start(family)
        shapes = predictor.layout.shapes
        refiner = optimizers.Newton(start, shapes, self.rate, self.damping, self.power)
        return Learner(predictor, refiner, Signal(observations=False, gradients=True, inputs=True))


@dataclass(frozen=True, kw_only=True)
class LBFGS(WeightsMethod):
    """L-BFGS to convergence on all rows seen.

    Fields:
        `strength`: the L2 penalty.

    Example:
        >>> from gradatim import LinearRegression
        >>> from gradatim.methods import LBFGS
        >>> LBFGS(strength=0.1).build(LinearRegression(dim=3)).refiner.keeps_rows
        True
    """

    summary: ClassVar[str] = "L-BFGS to convergence on all rows seen"
    grid: ClassVar[Mapping[str, tuple[Any, ...]]] = {"strength": STRENGTHS[2:8]}
    strength: float = 1.0

    def build(self, family: TaskFamily) -> Learner:
        """Return the learner for the tasks of a family."""
        predictor, start = self.start(family)
        y = family.likelihood
        refiner = Refit(predictor, family.x_dim, y.y_dim, y.classes is not None, self.strength)
        refiner.start.copy_(start)
        return Learner(predictor, refiner, PLAIN)


@dataclass(frozen=True, kw_only=True)
class Kalman(Method):
    """An extended Kalman filter on the weights of tanh networks, whose predictions are averaged.

    Fields:
        `strength`: the precision of the prior on the weights.
        `hidden`: widths of the networks' hidden layers.
        `members`: the number of networks.

    Raises:
        ValueError: when it is built for a family with classes.

    Example:
        >>> from gradatim import LinearRegression
        >>> from gradatim.methods import Kalman
        >>> Kalman(hidden=(8,), members=2).build(LinearRegression(dim=3)).predictor.latent_shape
        (2, 41)
    """

    summary: ClassVar[str] = "an extended Kalman filter on the weights of networks (regression)"
    learnt: ClassVar[bool] = False
    regression: ClassVar[bool] = True
    grid: ClassVar[Mapping[str, tuple[Any, ...]]] = {"strength": (0.003, 0.01, 0.03, 0.1)}
    strength: float = 0.1
    hidden: tuple[int, ...] = (32,)
    members: int = 4

    def build(self, family: TaskFamily) -> Learner:
        """Return the learner for the tasks of a family."""
        return self.smoother(family, 0, 0.0)

    def smoother(self, family: TaskFamily, lag: int, damping: float) -> Learner:
        """Return a learner with a window of `lag` rows and damped steps.

        Raises:
            ValueError: a family with classes.
        """
        if family.likelihood.classes is not None:
            raise ValueError(
                "networks under a filter fit squared loss; this family has classes: choose 'bayesian' or a parametric "
                "method"
            )
        predictor = Ensemble(linear(family, self.hidden), self.members)
        start = predictor.initial(torch.Generator().manual_seed(0))
        shapes = predictor.member.layout.shapes
        about = (predictor.member, start, shapes, family.x_dim, lag, self.strength, damping)
        return Learner(predictor, SmootherRefiner(*about), PLAIN)


@dataclass(frozen=True, kw_only=True)
class Smoother(Kalman):
    """Tanh networks fitted to a window of rows, with a Gaussian for those before.

    Fields:
        `lag`: the number of rows in the window.
        `damping`: the damping of a step.

    Example:
        >>> from gradatim import LinearRegression
        >>> from gradatim.methods import Smoother
        >>> Smoother(lag=64, hidden=(8,)).build(LinearRegression(dim=3)).refiner.keeps_rows
        True
    """

    summary: ClassVar[str] = "networks fitted to a window of rows, a Gaussian for those before (regression)"
    lag: int = 1024
    damping: float = 0.1

    def build(self, family: TaskFamily) -> Learner:
        """Return the learner for the tasks of a family."""
        return self.smoother(family, self.lag, self.damping)
