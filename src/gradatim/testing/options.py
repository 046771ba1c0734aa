"""Options of methods: those that a method has of some values, and those that have no effect.

Source: the common tests over a table of methods, after optax (DeepMind 2020).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from ..families.causal import StructuralCausalModel
from ..families.simulators import LinearClassification, LinearRegression
from ..methods import METHODS, Method, method
from ..refiners import CONSTANT, Gain

if TYPE_CHECKING:
    from torch import Tensor

    from ..family import TaskFamily

SIZES = {
    "width": 8,
    "layers": 1,
    "heads": 2,
    "features": 6,
    "tokens": 2,
    "token_width": 4,
    "lag": 4,
    "keys": 3,
    "kept_rows": 4,
}
"""Sizes of the learners that options are tried on."""

NEEDED: dict[str, dict[str, Any]] = {
    "at_average": {"tail": 0.0},
    "steps": {"rates": "layer-step"},
    "encoder": {"encoder": "network"},
    "width": {"encoder": "tanh"},
    "curvature": {"features": 6},
    "proximal": {"curvature": CONSTANT, "features": 6},
}
"""Other options that an option needs before it can be changed."""

VALUES: dict[str, Any] = {
    "gain": Gain(power=0.5, value=0.7),
    "curvature": Gain(power=0.0),
    "tail": 0.5,
    "hidden": (5,),
    "modulated": (5,),
    "features": 7,
    "tokens": 3,
    "token_width": 6,
    "precisions": ((1.0, 0.5, 2.0),),
    "activation": "tanh",
    "power": 0.5,
    "momentum": 0.5,
    "seed": 1,
    "encoder": "linear",
    "rank": 1,
    "rates": "shared",
    "steps": 3,
    "clip": 0.1,
    "skip": 2,
}
"""Another value of an option, where double of its default is none."""


def fitting(name: str, values: Any) -> dict[str, Any]:
    """Return those of the values that are options of a method.

    Args:
        name: the name of the method.
        values: a dictionary, or a dataclass value whose fields are meant.

    Example:
        >>> from gradatim.testing.options import fitting
        >>> fitting("conditional-neural-process", {"width": 8, "heads": 2})
        {'width': 8}
    """
    if is_dataclass(values):
        values = {field.name: getattr(values, field.name) for field in fields(values)}
    defaults = METHODS[name].options
    # A kernel's width is no size: a size is a whole number, and so is its default.
    sizes = {
        key
        for key, value in values.items()
        if not (isinstance(value, int) and isinstance(defaults.get(key), float))
    }
    return {key: value for key, value in values.items() if key in defaults and key in sizes}


def ignored_options(names: Mapping[str, Any] = METHODS) -> list[str]:
    """Return the options without effect, as METHOD.OPTION. Other values of them change no prediction.

    Example:
        >>> from gradatim.testing.options import ignored_options
        >>> ignored_options({"adam": None})
        []
    """
    return [f"{name}.{option}" for name in names for option in METHODS[name].options if ignores(name, option)]


def ignores(name: str, option: str) -> bool:
    """Return whether another value of an option changes nothing, in each of a few families.

    Example:
        >>> from gradatim.testing.options import ignores
        >>> ignores("adam", "rate")
        False
    """
    return not any(_differs(*pair, family) for pair in _pairs(name, option) for family in _families(pair[0]))


def _pairs(name: str, option: str) -> Iterator[tuple[Method, Method]]:
    """Yield two methods that differ in the option alone."""
    sizes = {
        key: size for key, size in fitting(name, SIZES).items() if METHODS[name].options[key] is not None
    }
    base = method(name, **sizes)
    base = replace(base, **fitting(name, NEEDED.get(option, {})))
    now = getattr(base, option)
    yield base, replace(base, **{option: _another_value(option, now)})


def _another_value(option: str, now: Any) -> Any:
    """Return another value of an option."""
    if option in VALUES:
        return VALUES[option]
    if isinstance(now, bool):
        return not now
    return 2 * now or 1


def _families(kind: Method) -> list[TaskFamily]:
    """Return small families that a method can be built for."""
    rows = {"support_rows": 12, "query_rows": 5}
    if kind.orders:
        return [StructuralCausalModel(variables=3, support_rows=12)]
    regression = LinearRegression(2, 0.5, **rows)
    classification = LinearClassification(2, 3, **rows)
    if getattr(kind, "state", None) == "probabilities":
        return [classification]
    if kind.regression:
        return [regression]
    return [classification] if kind.classification else [regression, classification]


def _differs(base: Method, changed: Method, family: TaskFamily) -> bool:
    """Return whether two methods are built, or predict, otherwise."""
    first, outputs = _built(base, family)
    try:
        second, others = _built(changed, family)
    except ValueError:  # a value that this family has no use for, such as a prior of another length
        return False
    return (
        first != second
        or outputs.shape != others.shape
        or not torch.allclose(outputs, others, rtol=1e-6, atol=1e-9)
    )


def _built(kind: Method, family: TaskFamily) -> tuple[list[Any], Tensor]:
    """Return the shapes, signal and capabilities of a method's learner, and its predictions `[B, Nq, C]`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        learner = kind.build(family)
        learner = learner.double()
        for parameter in learner.parameters():  # so that a layer that starts at zero hides nothing
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    task = family.sample(2, torch.Generator().manual_seed(0)).to(torch.float64)
    with torch.no_grad():
        state = list(learner.states(task.support.split(4), task.query))[-1]
        outputs = learner.predictor(task.query.x, learner.refiner.latent(state))
    shapes = {key: list(value.shape) for key, value in learner.state_dict().items()}
    about = [shapes, str(learner.signal), asdict(learner.refiner.capabilities)]
    return about, outputs
