"""Complete runs: which tasks, which learner, how it is meta-trained. A run is a value that JSON can hold.

Source: the config of a run as a Python function, after torchtitan (Liang et al. 2024).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass, replace
from types import UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin, get_type_hints

import torch

from .families import (
    Alphabets,
    EmbeddingClassification,
    GaussianMixture,
    ImageClassification,
    LinearClassification,
    LinearRegression,
    RandomNetworkRegression,
    StructuralCausalModel,
)
from .family import TaskFamily
from .files.checkpoint import load_weights, read_header
from .methods import build, method
from .names import hint
from .refiners import Gain, TransformerConfig
from .training.evolution import Evolution
from .training.schemes import Greedy, Scheme, Unrolled
from .training.train import TrainConfig

if TYPE_CHECKING:
    from pathlib import Path

    from .learner import Learner

FAMILIES: dict[str, type[TaskFamily]] = {
    kind.__name__: kind
    for kind in (
        Alphabets,
        EmbeddingClassification,
        GaussianMixture,
        ImageClassification,
        LinearClassification,
        LinearRegression,
        RandomNetworkRegression,
        StructuralCausalModel,
    )
}
SCHEMES: dict[str, type[Scheme]] = {"Evolution": Evolution, "Greedy": Greedy, "Unrolled": Unrolled}


@dataclass(frozen=True)
class Recipe:
    """A whole run.

    Fields: `method`: a row of `methods.METHODS`; `family`: the tasks; `scheme`: how it is meta-trained; `refiner`: size
    and gain; `train`: iterations, rate, seed; `settings` of an unlearnt method (its learning rate).

    Raises:
        ValueError: an episode needs more support rows than the family gives.

    Example:
        >>> run = recipe("digits")
        >>> learner = run.learner()
    """

    method: str
    family: TaskFamily
    scheme: Scheme
    refiner: TransformerConfig = field(default_factory=TransformerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        needed = self.scheme.horizon * self.scheme.batch_size
        if needed > self.family.support_rows:
            raise ValueError(
                f"{self.scheme.horizon} steps of {self.scheme.batch_size} rows need {needed} support rows; the family "
                f"gives {self.family.support_rows}: raise its support_rows, or lower horizon or batch_size"
            )

    def learner(self) -> Learner:
        """Return the learner with its first weights, a pure function of `train.seed`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.train.seed)
            return build(self.method, self.family, self.refiner, **self.settings)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON value that `from_json` turns back into an equal recipe."""
        return {
            "method": self.method,
            "family": _named(self.family),
            "scheme": _named(self.scheme),
            "refiner": asdict(self.refiner),
            "train": asdict(self.train),
            "settings": self.settings,
        }


def from_json(value: dict[str, Any]) -> Recipe:
    """Return the recipe that `to_json` wrote.

    Raises:
        ValueError: an unknown family, scheme or field (the nearest name is suggested), a part that is missing, or a
            value of another type than its field's.
    """
    if not isinstance(value, dict):
        raise ValueError(f"a recipe must be an object; got {value!r}")
    known = {f.name for f in fields(Recipe)}
    _refuse_unknown("recipe", value, known)
    missing = sorted({"method", "family", "scheme"} - set(value))
    if missing:
        raise ValueError(f"a recipe needs {missing[0]!r}; got {sorted(value)}")
    method(_typed("method", value["method"], str))
    settings = _typed("settings", value.get("settings", {}), dict[str, Any])
    return Recipe(
        value["method"],
        _from_named(FAMILIES, "family", value["family"]),
        _from_named(SCHEMES, "scheme", value["scheme"]),
        _make(TransformerConfig, value.get("refiner", {}), "refiner"),
        _make(TrainConfig, value.get("train", {}), "train"),
        {key: tuple(part) if isinstance(part, list) else part for key, part in settings.items()},
    )


def unwrapped(value: Any, path: Path) -> dict[str, Any]:
    """Return the recipe's JSON in what a run.json or a checkpoint's header holds.

    Raises:
        ValueError: there is none.
    """
    value = value.get("recipe", value) if isinstance(value, dict) else value
    if not isinstance(value, dict) or not {"method", "family", "scheme"} <= value.keys():
        raise ValueError(f"{path} holds no recipe: give what gradatim train wrote")
    return value


def rebuild(path: Path) -> tuple[Learner, Recipe, dict[str, Any]]:
    """Return the learner of a checkpoint, in eval mode, with its recipe and header.

    Raises:
        ValueError: a file that is missing, truncated, foreign, or written without a recipe.
    """
    header = read_header(path, "checkpoint")
    recipe = from_json(unwrapped(header.get("recipe"), path))
    learner = recipe.learner()
    if recipe.train.precision == "64-true":
        learner = learner.to(torch.float64)
    load_weights(learner, path)
    return learner.eval(), recipe, header


def digits() -> Recipe:
    """Parametric softmax-linear classifiers of scikit-learn's digits, refined by rows and gradients."""
    return Recipe(
        "parametric-both",
        ImageClassification("digits", dim=32, ways=10, support_rows=500, query_rows=32),
        Greedy(batch_size=50, horizon=10),
        TransformerConfig(),
        TrainConfig(iterations=300, tasks=16, lr=3e-3),
    )


def digits_explicit() -> Recipe:
    """The digits tasks with a learnt decoder on a learnt task embedding."""
    return _of_digits("explicit-both", 500)


def digits_implicit() -> Recipe:
    """The digits tasks with the query's logits refined by rows."""
    return _of_digits("implicit-logits", 500)


def _of_digits(method: str, iterations: int) -> Recipe:
    base = digits()
    training = TrainConfig(iterations=iterations, tasks=16, lr=2e-3)
    return replace(base, method=method, scheme=replace(base.scheme, horizon=5), train=training)


def mnist() -> Recipe:
    """Parametric softmax-linear classifiers of MNIST, 100 rows a step; reads $GRADATIM_DATA/images/mnist."""
    return Recipe(
        "parametric-both",
        ImageClassification("mnist", dim=64, ways=10, support_rows=1000),
        Greedy(batch_size=100, horizon=10),
        TransformerConfig(gain=Gain(power=0.7), curvature=Gain()),
        TrainConfig(iterations=200, tasks=8, lr=2e-3),
    )


def mnist_closed_form() -> Recipe:
    """MNIST by a linear head on meta-learnt features, solved from sufficient statistics."""
    base = mnist()
    return replace(
        base,
        method="closed-form",
        scheme=Unrolled(batch_size=250, horizon=4),
        refiner=TransformerConfig(),
        train=replace(base.train, iterations=100, tasks=4, lr=3e-3),
        settings={"features": 512, "strength": 0.3},
    )


def linear() -> Recipe:
    """Linear regression in 8 dimensions, 16 rows a step, rows and gradients, decaying gain."""
    return Recipe(
        "parametric-both",
        LinearRegression(8, 0.5, support_rows=160),
        Greedy(batch_size=16, horizon=10, relative=True),
        TransformerConfig(),
        TrainConfig(iterations=1200, tasks=16, lr=3e-3),
    )


def linear_constant() -> Recipe:
    """Linear regression with the paper's constant gain, greedily, by observations.

    Beyond the paper, rows come with the predictions that stand at them, and steps are weighted alike (`relative`).
    """
    base = linear()
    training = replace(base.train, iterations=2800)
    return replace(
        base,
        method="parametric-observations",
        refiner=TransformerConfig(gain=Gain(power=0.0)),
        train=training,
    )


def network() -> Recipe:
    """Regression on random networks: f a tanh network of 32 units, a token for each row of its weights."""
    return Recipe(
        "parametric-both",
        RandomNetworkRegression(8, 32, 0.1, support_rows=320),
        Greedy(batch_size=32, horizon=10, relative=True),
        TransformerConfig(),
        TrainConfig(iterations=1200, tasks=16, lr=1e-3),
        {"hidden": (32,)},
    )


def causal_order() -> Recipe:
    """The topological order of 10 variables, random networks with Laplace noise, 50 rows a step."""
    return Recipe(
        "explicit-order",
        StructuralCausalModel(10, support_rows=200),
        Greedy(batch_size=50, horizon=4),
        TransformerConfig(width=64, layers=2, heads=8),
        TrainConfig(iterations=1000, tasks=32, lr=2e-3),
    )


def mixture() -> Recipe:
    """Generation: mixtures of four Gaussians in the plane, by flow matching, 32 points a step."""
    return Recipe(
        "implicit-logits",
        GaussianMixture(2, support_rows=320),
        Greedy(batch_size=32, horizon=10),
        TransformerConfig(),
        TrainConfig(iterations=1000, tasks=16, lr=2e-3),
    )


def alphabets() -> Recipe:
    """Generation: points on the ink of letters, 32 a step; reads $GRADATIM_DATA/images/omniglot_28.npz."""
    return replace(mixture(), family=Alphabets(support_rows=320))


RECIPES: dict[str, Callable[[], Recipe]] = {
    "digits": digits,
    "digits-explicit": digits_explicit,
    "digits-implicit": digits_implicit,
    "mnist": mnist,
    "mnist-closed-form": mnist_closed_form,
    "linear": linear,
    "linear-constant": linear_constant,
    "network": network,
    "causal-order": causal_order,
    "mixture": mixture,
    "alphabets": alphabets,
}


def recipe(name: str) -> Recipe:
    """Return a shipped recipe by name.

    Raises:
        ValueError: an unknown name; the nearest known one is suggested.
    """
    if name not in RECIPES:
        raise ValueError(f"no recipe is called {name!r}: {hint(name, RECIPES)}")
    return RECIPES[name]()


def _named(value: Any) -> dict[str, Any]:
    return {"name": type(value).__name__, **asdict(value)}


def _from_named(table: dict[str, type], what: str, value: Any) -> Any:
    name = value.get("name") if isinstance(value, dict) else None
    if not isinstance(name, str):
        raise ValueError(f"{what} must be an object with a name; got {value!r}")
    if name not in table:
        raise ValueError(f"no {what} is called {name!r}: {hint(name, table)}")
    return _make(table[name], {key: part for key, part in value.items() if key != "name"}, what)


def _make(kind: type, value: Any, where: str) -> Any:
    """Return a dataclass made of a JSON object, each value held against its field's type; lists become tuples."""
    assert is_dataclass(kind)
    if not isinstance(value, dict):
        raise ValueError(f"{where} must be {_wanted(kind)}; got {value!r}")
    _refuse_unknown(kind.__name__, value, {f.name for f in fields(kind)})
    for f in fields(kind):
        if f.name not in value and f.default is MISSING and f.default_factory is MISSING:
            raise ValueError(f"{where} needs {f.name!r}; got {sorted(value)}")
    hints = get_type_hints(kind)
    return kind(**{key: _typed(f"{where}.{key}", part, hints[key]) for key, part in value.items()})


def _typed(where: str, value: Any, hint: Any) -> Any:
    """Return a JSON value as a field of this type takes it, or raise ValueError."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    for kind in kinds:
        if isinstance(kind, type) and is_dataclass(kind) and (isinstance(value, dict) or len(kinds) == 1):
            return _make(kind, value, where)
        if _fits(value, kind):
            return tuple(value) if isinstance(value, list) else value
    raise ValueError(f"{where} must be {' or '.join(map(_wanted, kinds))}; got {value!r}")


def _fits(value: Any, kind: Any) -> bool:
    """Return whether a JSON value is of a type; a truth value is no number, a whole number is one."""
    if get_origin(kind) is tuple:
        if not isinstance(value, (list, tuple)):
            return False
        inner = get_args(kind)
        inner = inner[:1] * len(value) if inner[1:] == (...,) else inner
        return len(value) == len(inner) and all(map(_fits, value, inner))
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    base = get_origin(kind) or kind
    return not isinstance(base, type) or isinstance(value, base)


def _wanted(kind: Any) -> str:
    """Return a type in words."""
    if is_dataclass(kind):
        return f"an object, the fields of {getattr(kind, '__name__', kind)}"
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        return "a list of numbers" if inner[1:] == (...,) else f"a list of {len(inner)} numbers"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", dict: "an object"}
    return words.get(get_origin(kind) or kind, "null")


def _refuse_unknown(what: str, value: dict[str, Any], known: set[str]) -> None:
    for key in value:
        if key not in known:
            raise ValueError(f"{what} has no field {key!r}: {hint(key, sorted(known), 'it has')}")
