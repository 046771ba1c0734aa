"""Methods: every learner gradatim can compare, a frozen dataclass for each, and the table of their names.

Source: Mittal et al. 2025, section 2: supervised learning, learned optimizers, hypernetworks, in-context learners
are choices of f and g.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..family import TaskFamily
from ..likelihood import Order
from .base import Method, MethodRegistry, Preset
from .closed_form import Bayesian, ClosedForm, Experts, GaussianProcess, Kernel, RandomFeatures, Ridge
from .keys import PLDA, ALPaCA, Prototypical, RefinedALPaCA, RefinedPLDA
from .maml import MAML, FirstOrderMAML, MemoryImitation, MetaSGD, PathMAML
from .neighbours import AttentiveNeuralProcess, LearnedOptimizer, NeuralProcess
from .optimizers import LBFGS, SGD, Adam, Kalman, Momentum, Newton, Smoother
from .orders import ExplicitOrder, ExplicitOrderOneStep, ImplicitOrder, PairwiseOrder
from .refined import (
    BaggedOneStep,
    Explicit,
    ExplicitOneStep,
    Implicit,
    ImplicitOneStep,
    Parametric,
    ParametricOneStep,
    preset_summaries,
)

if TYPE_CHECKING:
    from ..learner import Learner

# Rows alone are the same wherever they are looked at: where signals are taken has no effect.
_PLAIN = {"signal": "plain", "at_average": False}
_REFINED = {
    **{
        f"parametric-{signal}": Preset(Parametric, _PLAIN if signal == "plain" else {"signal": signal}, text)
        for signal, text in preset_summaries("parametric").items()
    },
    **{
        f"explicit-{signal}": Preset(Explicit, {"signal": signal}, text)
        for signal, text in preset_summaries("explicit").items()
        if signal != "plain"
    },
    **{
        f"implicit-{state}": Preset(Implicit, {"state": state}, text)
        for state, text in preset_summaries("implicit").items()
    },
    "explicit-order": Preset(ExplicitOrder),
    "implicit-order": Preset(ImplicitOrder),
    "explicit-order-one-step": Preset(ExplicitOrderOneStep),
    "pairwise-order": Preset(PairwiseOrder),
    "parametric-one-step": Preset(ParametricOneStep, {"signal": "both"}),
    "bagged-one-step": Preset(
        BaggedOneStep, {"signal": "both", "tail": None, "at_average": False, "history": 0}
    ),
    "explicit-one-step": Preset(ExplicitOneStep, {"signal": "both"}),
    "implicit-one-step": Preset(ImplicitOneStep, {"state": "logits"}),
}
_NEIGHBOURS = {
    "closed-form": Preset(ClosedForm),
    "bayesian": Preset(Bayesian),
    "experts": Preset(Experts),
    "alpaca": Preset(ALPaCA),
    "plda": Preset(PLDA),
    "refined-alpaca": Preset(RefinedALPaCA),
    "refined-plda": Preset(RefinedPLDA),
    "prototypical": Preset(Prototypical),
    "hypernetwork": Preset(ParametricOneStep, _PLAIN, "weights from the rows of one mini-batch"),
    "maml": Preset(MAML),
    "first-order-maml": Preset(FirstOrderMAML),
    "meta-sgd": Preset(MetaSGD),
    "path-maml": Preset(PathMAML),
    "memory-imitation": Preset(MemoryImitation),
    "learned-optimizer": Preset(LearnedOptimizer),
    "conditional-neural-process": Preset(NeuralProcess),
    "attentive-neural-process": Preset(AttentiveNeuralProcess),
}
_UNLEARNT = {
    "sgd": Preset(SGD),
    "momentum": Preset(Momentum),
    "adam": Preset(Adam),
    "ridge": Preset(Ridge),
    "random-features": Preset(RandomFeatures),
    "kernel": Preset(Kernel),
    "gaussian-process": Preset(GaussianProcess),
    "smoother": Preset(Smoother),
    "kalman": Preset(Kalman),
    "newton": Preset(Newton),
    "lbfgs": Preset(LBFGS),
}
_ALIASES = {
    "cnp": "conditional-neural-process",
    "neural-process": "conditional-neural-process",
    "anp": "attentive-neural-process",
    "pfn": "implicit-one-step",
    "prior-fitted-network": "implicit-one-step",
    "r2d2": "closed-form",
    "protonet": "prototypical",
    "prototypical-network": "prototypical",
    "probabilistic-lda": "plda",
    "avici": "explicit-order",
    "fomaml": "first-order-maml",
    "learned-optimiser": "learned-optimizer",
    "hypernet": "hypernetwork",
    "gradient-descent": "sgd",
    "nadaraya-watson": "kernel",
    "gp": "gaussian-process",
    "extended-kalman-filter": "kalman",
    "ekf": "kalman",
}
METHODS = MethodRegistry("method", Method, {**_REFINED, **_NEIGHBOURS, **_UNLEARNT}, _ALIASES)
"""The table of methods, by name: presets, to be called with options."""


def method(name: str | Method, **options: Any) -> Method:
    """Return a method by name, alias or import path `module:Class`, with these options; a method stays as it is.

    Raises:
        ValueError: an unknown name (the nearest is suggested), an option that the method does not have, a value of
            another type, or options beside a method.

    Example:
        >>> from gradatim.methods import method
        >>> method("MAML", hidden=(40, 40)).hidden
        (40, 40)
    """
    if not isinstance(name, str):
        if not isinstance(name, Method):
            raise ValueError(f"a method is a name, an import path or a Method; got {name!r}")
        if options:
            raise ValueError(
                f"options go with a name; got {sorted(options)} beside {name}: use dataclasses.replace"
            )
        return name
    return METHODS[name](name, **options)


def variant(source: Method, name: str, **options: Any) -> Method:
    """Return the method of a name with these options, and with those of another method that it has too.

    Raises:
        ValueError: what `method` refuses.

    Example:
        >>> from gradatim.methods import Parametric, variant
        >>> variant(Parametric(width=32, tail=0.0), "learned-optimizer", rate=0.3).width
        32
    """
    shared = set(METHODS[METHODS.name_of(source)].options) & set(METHODS[name].options)
    return method(name, **{key: getattr(source, key) for key in shared} | options)


def name_of(value: Method) -> str:
    """Return the name of a method, or its import path where it is in no table.

    Raises:
        ValueError: a class that no other program can import.

    Example:
        >>> from gradatim.methods import Parametric, name_of
        >>> name_of(Parametric(signal="gradients", width=32))
        'parametric-gradients'
    """
    return METHODS.name_of(value)


def build(name: str | Method, family: TaskFamily, **options: Any) -> Learner:
    """Return the learner of a method for a family.

    Raises:
        ValueError: what `method` refuses; a family that is no value of a `TaskFamily`; classes where the method knows
            none, or numbers where it knows only classes. Or a family that asks for an order of x's columns where the
            method predicts y, or the other way round.

    Example:
        >>> from gradatim.families import LinearRegression
        >>> from gradatim.methods import build
        >>> learner = build("adam", LinearRegression(dim=8), rate=0.1)
    """
    chosen = method(name, **options)
    if not isinstance(family, TaskFamily):
        raise ValueError(
            f"a family is a value of a TaskFamily; got {family!r}: make one, such as LinearRegression(dim=8)"
        )
    wants_order = isinstance(family.likelihood, Order)
    label = name if isinstance(name, str) else type(chosen).__name__
    if chosen.orders != wants_order:
        fitting = [preset_name for preset_name, preset in METHODS.items() if preset.orders == wants_order]
        raise ValueError(
            f"{label} answers with {'an order of the columns' if chosen.orders else 'y at x'}, which "
            f"{type(family).__name__} does not ask for: choose one of {', '.join(fitting)}"
        )
    if chosen.regression and family.likelihood.classes is not None:
        raise ValueError(
            f"{label} fits squared loss; this family has classes: choose 'bayesian' or a parametric method"
        )
    if chosen.classification and family.likelihood.classes is None:
        raise ValueError(
            f"{label} tells classes apart; this family has numbers as y: choose 'alpaca' or 'bayesian'"
        )
    return chosen.build(family)


__all__ = [
    "LBFGS",
    "MAML",
    "METHODS",
    "PLDA",
    "SGD",
    "ALPaCA",
    "Adam",
    "AttentiveNeuralProcess",
    "BaggedOneStep",
    "Bayesian",
    "ClosedForm",
    "Experts",
    "Explicit",
    "ExplicitOneStep",
    "ExplicitOrder",
    "ExplicitOrderOneStep",
    "FirstOrderMAML",
    "GaussianProcess",
    "Implicit",
    "ImplicitOneStep",
    "ImplicitOrder",
    "Kalman",
    "Kernel",
    "LearnedOptimizer",
    "MemoryImitation",
    "MetaSGD",
    "Method",
    "Momentum",
    "NeuralProcess",
    "Newton",
    "PairwiseOrder",
    "Parametric",
    "ParametricOneStep",
    "PathMAML",
    "Preset",
    "Prototypical",
    "RandomFeatures",
    "RefinedALPaCA",
    "RefinedPLDA",
    "Ridge",
    "Smoother",
    "build",
    "method",
    "name_of",
    "variant",
]
