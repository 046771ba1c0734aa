"""Methods whose update is a formula: linear heads from sufficient statistics, kernel averages, Gaussian processes.

Source: Bertinetto et al. 2019 (R2-D2); Harrison et al. 2018 (ALPaCA); Rahimi, Recht 2007; Nadaraya 1964; Rasmussen,
Williams 2006.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from ..committees import committee, committee_features
from ..learner import Learner
from ..likelihood import Velocity
from ..predictors import Features, Readout
from ..refiners import gaussian_process, kernel, statistics
from ..regimes import bayesian, closed_form, linear, y_likelihood
from ..signal import CLOSED_FORM, PLAIN
from .base import STRENGTHS, Method

if TYPE_CHECKING:
    from ..family import TaskFamily

LARGEST_NOISE = 10.0
"""Largest noise variance of a Gaussian process, as a multiple of the signal's."""

ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh}


@dataclass(frozen=True, kw_only=True)
class Ridge(Method):
    """Ridge regression on all rows seen, from sufficient statistics.

    Fields:
        `strength`: the ridge penalty.

    Example:
        >>> from gradatim import LinearRegression
        >>> from gradatim.methods import Ridge
        >>> learner = Ridge(strength=0.1).build(LinearRegression(dim=3))
        >>> learner.refiner.capabilities.forget
        True
    """

    summary: ClassVar[str] = "closed form on all rows seen, from sufficient statistics"
    learnt: ClassVar[bool] = False
    grid: ClassVar[Mapping[str, tuple[Any, ...]]] = {"strength": STRENGTHS}
    strength: float = 1.0

    def build(self, family: TaskFamily) -> Learner:
        """Return the learner for the tasks of a family."""
        predictor = linear(family)
        classes = family.likelihood.classes is not None
        width = predictor.layout.shapes[-1][1]
        refiner = statistics.Ridge(width, predictor.output_dim, self.strength, classes)
        return Learner(predictor, refiner, CLOSED_FORM)


@dataclass(frozen=True, kw_only=True)
class RandomFeatures(Method):
    """Ridge regression on fixed random features of all rows seen.

    Fields:
        `strength`: the ridge penalty.
        `features`: the number of random features.

    Example:
        >>> from gradatim import LinearRegression
        >>> from gradatim.methods import RandomFeatures
        >>> learner = RandomFeatures(features=16).build(LinearRegression(dim=3))
        >>> learner.predictor.latent_shape
        (17,)
    """

    summary: ClassVar[str] = "closed form on random features of all rows seen"
    learnt: ClassVar[bool] = False
    grid: ClassVar[Mapping[str, tuple[Any, ...]]] = {"strength": STRENGTHS}
    strength: float = 1.0
    features: int = 512

    def build(self, family: TaskFamily) -> Learner:
        """Return the learner for the tasks of a family."""
        y = y_likelihood(family)
        classes = y.classes is not None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            predictor = Features(family.x_dim, y, self.features, scaled=classes)
        predictor.requires_grad_(False)
        refiner = statistics.Ridge(self.features + 1, predictor.output_dim, self.strength, classes)
        return Learner(predictor, refiner, CLOSED_FORM)


@dataclass(frozen=True, kw_only=True)
class Kernel(Method):
    """The kernel average of all rows seen; of points, the flow to their kernel density.

    Fields:
        `width`: the kernel's width, in units of x, or of points.

    Example:
        >>> from gradatim import LinearRegression
        >>> from gradatim.methods import Kernel
        >>> learner = Kernel(width=0.5).build(LinearRegression(dim=3))
        >>> learner.refiner.capabilities.per_query
        True
    """

    summary: ClassVar[str] = (
        "the kernel average of all rows seen; of points, the flow to their kernel density"
    )
    learnt: ClassVar[bool] = False
    grid: ClassVar[Mapping[str, tuple[Any, ...]]] = {"width": (0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0)}
    width: float = 1.0

    def build(self, family: TaskFamily) -> Learner:
        """Return the learner for the tasks of a family."""
        y = y_likelihood(family)
        classes = y.classes is not None
        predictor = Readout(y, "probabilities" if classes else "logits", x_dim=family.x_dim)
        refiner = kernel.Kernel(self.width, predictor.output_dim, classes, isinstance(y, Velocity))
        return Learner(predictor, refiner, PLAIN)


@dataclass(frozen=True, kw_only=True)
class GaussianProcess(Method):
    """Gaussian process regression on all rows seen, its hyper-parameters by marginal likelihood.

    Fields:
        `shortest`: the smallest length scale of the kernel, in units of x.
        `longest`: the largest length scale.
        `noise`: the smallest noise variance, as a share of the signal's.

    Example:
        >>> import torch
        >>> from gradatim import LinearRegression
        >>> from gradatim.methods import GaussianProcess
        >>> family = LinearRegression(dim=1, noise_std=0.1, support_rows=16)
        >>> learner, task = GaussianProcess().build(family), family.sample(2, torch.Generator().manual_seed(0))
        >>> state = learner.adapt(task.support, batch_size=16, query=task.query)
        >>> bool((learner.predict(task.query.x, state) - task.truth).abs().mean() < 0.2)
        True

    Source: Rasmussen, Williams 2006, algorithm 2.1 and section 5.4.1.
    """

    summary: ClassVar[str] = (
        "a Gaussian process on all rows, which it stores; hyper-parameters by each task's marginal likelihood"
    )
    learnt: ClassVar[bool] = False
    regression: ClassVar[bool] = True
    shortest: float = 0.05
    longest: float = 20.0
    noise: float = 1e-6

    def build(self, family: TaskFamily) -> Learner:
        """Return the learner for the tasks of a family.

        Raises:
            ValueError: classes, or an empty range.
        """
        y = y_likelihood(family)
        if y.classes is not None:
            raise ValueError(
                "a Gaussian process fits squared loss; this family has classes: choose 'bayesian' or 'kernel'"
            )
        predictor = Readout(y, x_dim=family.x_dim)
        lengths, noises = (self.shortest, self.longest), (self.noise, LARGEST_NOISE)
        refiner = gaussian_process.GaussianProcess(family.x_dim, y.y_dim, lengths, noises)
        return Learner(predictor, refiner, PLAIN)


@dataclass(frozen=True, kw_only=True)
class Experts(Method):
    """Ridge heads on families of fixed features, averaged by prequential likelihood.

    Fields:
        `landmarks`: the number of rows that nearness is measured to.
        `seed`: the seed of these rows and of the random features.

    Example:
        >>> from gradatim import LinearClassification
        >>> from gradatim.methods import Experts
        >>> learner = Experts(landmarks=16).build(LinearClassification(2, 3))
        >>> sum(part.numel() for part in learner.parameters())
        0
    """

    summary: ClassVar[str] = (
        "ridge heads on families of fixed features, averaged by prequential likelihood: the estimators' learner"
    )
    learnt: ClassVar[bool] = False
    landmarks: int = 128
    seed: int = 0

    def build(self, family: TaskFamily) -> Learner:
        """Return the learner for the tasks of a family."""
        inner = torch.special.ndtri(torch.linspace(0, 1, 17)[1:-1]).tolist()
        steps = [(column, threshold) for threshold in inner for column in range(family.x_dim)]
        generator = torch.Generator().manual_seed(self.seed)
        rows = torch.randn(self.landmarks, family.x_dim, generator=generator)
        features = committee_features([rows], rows, steps, [self.seed])[0]
        return committee(y_likelihood(family), features)


@dataclass(frozen=True, kw_only=True)
class ClosedForm(Method):
    """A linear head on learnt features, solved from sufficient statistics.

    Fields:
        `features`: the number of learnt features.
        `strength`: where the learnt penalty starts.

    Example:
        >>> from gradatim import LinearRegression
        >>> from gradatim.methods import ClosedForm
        >>> learner = ClosedForm(features=16).build(LinearRegression(dim=3))
        >>> learner.refiner.capabilities.learnt
        True

    Source: Bertinetto et al. 2019 (R2-D2), eqs. 4-6.
    """

    summary: ClassVar[str] = "a linear head on learnt features, from sufficient statistics (as R2-D2)"
    features: int = 512
    strength: float = 1.0

    def build(self, family: TaskFamily) -> Learner:
        """Return the learner for the tasks of a family."""
        return closed_form(family, self.features, self.strength)


@dataclass(frozen=True, kw_only=True)
class Bayesian(Method):
    """A Bayesian head on x and learnt features, its priors averaged by the likelihood of the task's rows.

    Fields:
        `features`: the number of learnt features.
        `precisions`: where the priors start, each for (x, features, 1). null: priors with and without features.
        `activation`: the activation of the features.

    Example:
        >>> from gradatim import LinearRegression
        >>> from gradatim.methods import Bayesian
        >>> learner = Bayesian(features=16).build(LinearRegression(dim=3))
        >>> learner.refiner.capabilities.merge
        True

    Source: Harrison et al. 2018 (ALPaCA); Raftery et al. 1997 (averaging).
    """

    summary: ClassVar[str] = (
        "a Bayesian head on x and learnt features, priors averaged by the likelihood of the task's rows"
    )
    features: int = 64
    precisions: tuple[tuple[float, ...], ...] | None = None
    activation: Literal["relu", "tanh"] = "relu"

    def build(self, family: TaskFamily) -> Learner:
        """Return the learner for the tasks of a family."""
        return bayesian(family, self.features, self.precisions, activation=ACTIVATIONS[self.activation])
