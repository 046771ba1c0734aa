"""The table of methods: every learner gradatim can compare, each a row that fills the same slots.

Source: Mittal et al. 2025, section 2: supervised learning, learned optimizers, hypernetworks, in-context learners
are choices of f and g.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from .learner import Learner
from .names import hint
from .predictors import Decoder, Ensemble, Features, Readout, likelihood
from .refiners import (
    MAML,
    SGD,
    Adam,
    AttentiveProcess,
    Bagged,
    Kernel,
    LearnedOptimizer,
    NeuralProcess,
    Newton,
    Refit,
    Ridge,
    Smoother,
    TransformerConfig,
)
from .regimes import bayesian, closed_form, committee, explicit, implicit, linear, ordering, parametric
from .signal import BOTH, CLOSED_FORM, GRADIENTS, OBSERVATIONS, PLAIN, SECOND_ORDER, Signal

if TYPE_CHECKING:
    from .family import TaskFamily

Build = Callable[..., Learner]


@dataclass(frozen=True)
class Method:
    """One way of learning.

    Fields: `summary`; `build(family, config, **settings) -> Learner`; `learnt`: whether it is meta-trained; `one_step`:
    meta-trained to answer after a single mini-batch; `grid`: settings to be tuned on meta-training tasks, with the
    values to try; `settings`: what else `build` takes, e.g. the widths of hidden layers;
    `regression`: it knows no classes; `orders`: it answers with an order of x's columns, for families that ask for one.
    """

    summary: str
    build: Build
    learnt: bool = True
    one_step: bool = False
    grid: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    settings: tuple[str, ...] = ()
    regression: bool = False
    orders: bool = False


def _sgd(family: TaskFamily, config: TransformerConfig, lr: float = 0.1, momentum: float = 0.0) -> Learner:
    predictor = linear(family)
    return Learner(predictor, SGD(predictor.initial(), lr, momentum), GRADIENTS)


def _adam(family: TaskFamily, config: TransformerConfig, lr: float = 0.03) -> Learner:
    predictor = linear(family)
    return Learner(predictor, Adam(predictor.initial(), lr), GRADIENTS)


def _ridge(family: TaskFamily, config: TransformerConfig, strength: float = 1.0) -> Learner:
    predictor = linear(family)
    width = predictor.layout.shapes[-1][1]
    refiner = Ridge(width, predictor.output_dim, strength, family.classes is not None)
    return Learner(predictor, refiner, CLOSED_FORM)


def _newton(
    family: TaskFamily, config: TransformerConfig, lr: float = 1.0, damping: float = 1.0, power: float = 1.0
) -> Learner:
    predictor = linear(family)
    refiner = Newton(predictor.initial(), predictor.layout.shapes, lr, damping, power)
    return Learner(predictor, refiner, Signal(observations=False, gradients=True, inputs=True))


def _random_features(
    family: TaskFamily, config: TransformerConfig, strength: float = 1.0, features: int = 512
) -> Learner:
    classes = family.classes is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        predictor = Features(family.x_dim, likelihood(family.y_dim, family.classes), features, scaled=classes)
    predictor.requires_grad_(False)
    refiner = Ridge(features + 1, predictor.output_dim, strength, classes)
    return Learner(predictor, refiner, CLOSED_FORM)


def _lbfgs(family: TaskFamily, config: TransformerConfig, strength: float = 1.0) -> Learner:
    predictor = linear(family)
    refiner = Refit(predictor, family.x_dim, family.y_dim, family.classes is not None, strength)
    return Learner(predictor, refiner, PLAIN)


def _smoother(
    family: TaskFamily,
    config: TransformerConfig,
    strength: float = 0.1,
    hidden: Sequence[int] = (32,),
    members: int = 4,
    lag: int = 1024,
    damping: float = 0.1,
) -> Learner:
    predictor = Ensemble(linear(family, tuple(hidden)), members)
    start = predictor.initial(torch.Generator().manual_seed(0))
    shapes = predictor.member.layout.shapes
    refiner = Smoother(predictor.member, start, shapes, family.x_dim, lag, strength, damping)
    return Learner(predictor, refiner, PLAIN)


def _maml(
    family: TaskFamily,
    config: TransformerConfig,
    hidden: Sequence[int] = (),
    rate: float = 0.1,
    learnt_rate: bool = False,
    signal: Signal = SECOND_ORDER,
    each: bool = False,
) -> Learner:
    predictor = linear(family, tuple(hidden))
    rates = torch.full(predictor.latent_shape, rate) if each else rate
    return Learner(predictor, MAML(predictor.initial(), rates, learnt_rate), signal)


def _learned_optimizer(
    family: TaskFamily, config: TransformerConfig, hidden: Sequence[int] = (), rate: float = 0.1
) -> Learner:
    predictor = linear(family, tuple(hidden))
    refiner = LearnedOptimizer(predictor.initial(), config.width, config.gain, rate=rate)
    return Learner(predictor, refiner, GRADIENTS)


def _closed_form(family: TaskFamily, config: TransformerConfig, **settings: Any) -> Learner:
    return closed_form(family, **settings)


def _bayesian(
    family: TaskFamily, config: TransformerConfig, activation: str = "relu", **settings: Any
) -> Learner:
    if activation not in _ACTIVATIONS:
        raise ValueError(f"no activation is called {activation!r}: {hint(activation, _ACTIVATIONS)}")
    return bayesian(family, activation=_ACTIVATIONS[activation], **settings)


def _experts(family: TaskFamily, config: TransformerConfig, landmarks: int = 128, seed: int = 0) -> Learner:
    inner = torch.special.ndtri(torch.linspace(0, 1, 17)[1:-1]).tolist()
    steps = [(column, threshold) for threshold in inner for column in range(family.x_dim)]
    rows = torch.randn(landmarks, family.x_dim, generator=torch.Generator().manual_seed(seed))
    return committee(likelihood(family.y_dim, family.classes), rows, steps, seed=seed)


def _bagged(family: TaskFamily, config: TransformerConfig, **settings: Any) -> Learner:
    one = parametric(family, BOTH, config, **settings)
    return Learner(one.predictor, Bagged(one.refiner), one.signal)


def _parametric(signal: Any) -> Build:
    return lambda family, config, **settings: parametric(family, signal, config, **settings)


def _explicit(signal: Any) -> Build:
    return lambda family, config, **settings: explicit(family, signal, config, **settings)


def _neural_process(
    family: TaskFamily, config: TransformerConfig, tokens: int = 16, token_width: int = 32
) -> Learner:
    out = likelihood(family.y_dim, family.classes)
    predictor = Decoder(family.x_dim, out, tokens, token_width, width=config.width)
    widths = (family.x_dim, family.y_dim, family.classes, config.width)
    return Learner(predictor, NeuralProcess(predictor.latent_shape, *widths), PLAIN)


def _attentive_process(family: TaskFamily, config: TransformerConfig) -> Learner:
    out = likelihood(family.y_dim, family.classes)
    predictor = Readout(out, "latents", config.width, family.x_dim)
    refiner = AttentiveProcess(family.x_dim, family.y_dim, family.classes, config.width, config.heads)
    return Learner(predictor, refiner, PLAIN)


def _kernel(family: TaskFamily, config: TransformerConfig, width: float = 1.0) -> Learner:
    out, classes = likelihood(family.y_dim, family.classes), family.classes is not None
    predictor = Readout(out, "probabilities" if classes else "logits", x_dim=family.x_dim)
    return Learner(predictor, Kernel(width, predictor.output_dim, classes, family.flow), PLAIN)


def _order(family: TaskFamily, config: TransformerConfig, token_width: int | None = 32) -> Learner:
    return ordering(family, config=config, token_width=token_width)


def _implicit(state: str) -> Build:
    return lambda family, config: implicit(family, config=config, state=state)


_ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh}
_RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
_STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
_FORM = ("hidden", "token_per_row")
_TOKENS = ("tokens", "token_width", "features", "modulated")
_SIGNALS = {"observations": OBSERVATIONS, "gradients": GRADIENTS, "both": BOTH}

METHODS: dict[str, Method] = {
    **{
        f"parametric-{name}": Method(
            f"weights of a known form, refined by {name}", _parametric(signal), settings=_FORM
        )
        for name, signal in _SIGNALS.items()
    },
    "parametric-plain": Method(
        "weights of a known form, refined by rows (x, y) alone", _parametric(PLAIN), settings=_FORM
    ),
    **{
        f"explicit-{name}": Method(
            f"a task embedding and a learnt decoder, refined by {name}", _explicit(signal), settings=_TOKENS
        )
        for name, signal in _SIGNALS.items()
    },
    **{
        f"implicit-{name}": Method(f"the query's {name}, refined by rows", _implicit(name))
        for name in ("logits", "latents", "probabilities")
    },
    "explicit-order": Method(
        "an order of x's columns: a token for each, refined by rows, and a learnt score of tokens (as AVICI)",
        _order,
        settings=("token_width",),
        orders=True,
    ),
    "implicit-order": Method(
        "an order of x's columns: their scores, refined by rows",
        partial(_order, token_width=None),
        orders=True,
    ),
    "explicit-order-one-step": Method(
        "an order of x's columns from a single refinement",
        _order,
        one_step=True,
        settings=("token_width",),
        orders=True,
    ),
    "closed-form": Method(
        "a linear head on learnt features, from sufficient statistics (as R2-D2)",
        _closed_form,
        settings=("features", "strength"),
    ),
    "bayesian": Method(
        "the default: a Bayesian head on x and learnt features, priors averaged by what the task's rows say",
        _bayesian,
        settings=("features", "precisions", "activation"),
    ),
    "experts": Method(
        "ridge heads on families of fixed features, averaged by prequential likelihood: the estimators' learner",
        _experts,
        learnt=False,
        settings=("landmarks", "seed"),
    ),
    "parametric-one-step": Method(
        "weights from a single refinement", _parametric(BOTH), one_step=True, settings=_FORM
    ),
    "bagged-one-step": Method(
        "the mean of single refinements, one for each mini-batch", _bagged, one_step=True, settings=_FORM
    ),
    "explicit-one-step": Method(
        "a task embedding from a single refinement", _explicit(BOTH), one_step=True, settings=_TOKENS
    ),
    "implicit-one-step": Method(
        "one-shot in-context learning (as a PFN)", _implicit("logits"), one_step=True
    ),
    "hypernetwork": Method(
        "weights from the rows of one mini-batch", _parametric(PLAIN), one_step=True, settings=_FORM
    ),
    "maml": Method(
        "gradient descent from a learnt start, trained through the gradients (second order)",
        _maml,
        settings=("hidden", "rate", "learnt_rate"),
    ),
    "first-order-maml": Method(
        "gradient descent from a learnt start, gradients taken as constants in training",
        partial(_maml, signal=GRADIENTS),
        settings=("hidden", "rate", "learnt_rate"),
    ),
    "meta-sgd": Method(
        "gradient descent from a learnt start, with a learnt rate for each parameter (second order)",
        partial(_maml, learnt_rate=True, each=True),
        settings=("hidden", "rate"),
    ),
    "learned-optimizer": Method(
        "weights moved coordinate by coordinate by one small network that sees gradients alone",
        _learned_optimizer,
        settings=("hidden", "rate"),
    ),
    "conditional-neural-process": Method(
        "the mean of encoded rows and a learnt decoder: a running sum",
        _neural_process,
        settings=("tokens", "token_width"),
    ),
    "attentive-neural-process": Method(
        "each query's attention over encoded rows, a running softmax (the deterministic path)",
        _attentive_process,
    ),
    "sgd": Method("gradient descent, one step a mini-batch", _sgd, learnt=False, grid={"lr": _RATES}),
    "momentum": Method(
        "gradient descent with momentum", _sgd, learnt=False, grid={"lr": _RATES, "momentum": (0.5, 0.8, 0.9)}
    ),
    "adam": Method("Adam, one step a mini-batch", _adam, learnt=False, grid={"lr": _RATES}),
    "ridge": Method(
        "closed form on all rows seen, from sufficient statistics",
        _ridge,
        learnt=False,
        grid={"strength": _STRENGTHS},
    ),
    "random-features": Method(
        "closed form on random features of all rows seen",
        _random_features,
        learnt=False,
        grid={"strength": _STRENGTHS},
        settings=("features",),
    ),
    "kernel": Method(
        "the kernel average of all rows seen; of points, the flow to their kernel density",
        _kernel,
        learnt=False,
        grid={"width": (0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0)},
    ),
    "smoother": Method(
        "networks fitted to a window of rows, a Gaussian for those before (regression)",
        _smoother,
        learnt=False,
        grid={"strength": (0.003, 0.01, 0.03, 0.1)},
        settings=("hidden", "members", "lag"),
        regression=True,
    ),
    "kalman": Method(
        "an extended Kalman filter on the weights of networks (regression)",
        partial(_smoother, lag=0, damping=0.0),
        learnt=False,
        grid={"strength": (0.003, 0.01, 0.03, 0.1)},
        settings=("hidden", "members"),
        regression=True,
    ),
    "newton": Method(
        "damped Newton, one step a mini-batch",
        _newton,
        learnt=False,
        grid={"lr": (0.3, 1.0, 3.0, 10.0, 30.0), "damping": (0.1, 0.3, 1.0, 3.0), "power": (0.5, 0.7, 1.0)},
    ),
    "lbfgs": Method(
        "L-BFGS to convergence on all rows seen", _lbfgs, learnt=False, grid={"strength": _STRENGTHS[2:8]}
    ),
}


def method(name: str) -> Method:
    """Return a method by name.

    Raises:
        ValueError: an unknown name; the nearest known one is suggested.
    """
    if name not in METHODS:
        raise ValueError(f"no method is called {name!r}: {hint(name, METHODS)}")
    return METHODS[name]


def build(name: str, family: TaskFamily, config: TransformerConfig | None = None, **settings: Any) -> Learner:
    """Return the learner of a method for a family; `settings` are those of its row.

    Raises:
        ValueError: an unknown method, a setting it does not have, classes where it knows none, or a family that asks
            for an order of x's columns where it answers with y, or the other way round.

    Example:
        >>> learner = build("adam", LinearRegression(8), lr=0.1)
    """
    row = method(name)
    known = {*row.grid, *row.settings}
    unknown = sorted(set(settings) - known)
    if unknown:
        raise ValueError(f"{name} has no setting {unknown[0]!r}; it has {sorted(known) or 'none'}")
    if row.orders != family.orders:
        fitting = [other for other, its in METHODS.items() if its.orders == family.orders]
        raise ValueError(
            f"{name} answers with {'an order of the columns' if row.orders else 'y at x'}, which "
            f"{type(family).__name__} does not ask for: choose one of {', '.join(fitting)}"
        )
    if row.regression and family.classes is not None:
        raise ValueError(
            f"{name} fits squared loss; this family has classes: choose 'bayesian' or a parametric method"
        )
    return row.build(family, config or TransformerConfig(), **settings)
