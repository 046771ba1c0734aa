"""Complete runs: which tasks, which learner, how it is meta-trained. A run is a value that JSON can hold.

Source: the config of a run as a Python function, after torchtitan (Liang et al. 2024).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from .config import check_fields, to_json
from .config import from_json as dataclass_from_json
from .families import (
    Alphabets,
    GaussianMixture,
    ImageClassification,
    LinearRegression,
    RandomNetworkRegression,
    Sinusoids,
    StructuralCausalModel,
)
from .family import TaskFamily
from .files.checkpoint import put_weights, read
from .files.contract import blamed
from .methods import METHODS, ClosedForm, ExplicitOrder, Method, Parametric, build, method, name_of
from .names import hint
from .refiners import CONSTANT, Gain
from .registry import FAMILIES, SCHEMES, Registry, import_class, import_path
from .training.budget import Budget
from .training.prefixes import Prefixes
from .training.schemes import Greedy, Penalty, Scheme, StatePenalty, Unrolled
from .training.train import TrainConfig

if TYPE_CHECKING:
    from pathlib import Path

    from .learner import Learner


@dataclass(frozen=True)
class Recipe:
    """A whole run.

    Fields:
        `method`: what is trained, a `Method` or the name of one.
        `family`: the tasks.
        `scheme`: the loss that it is meta-trained on.
        `train`: iterations, learning rate, seed and the like.

    Raises:
        ValueError: an unknown method, or an episode that needs more support rows than the family gives.

    Example:
        >>> from gradatim import Recipe
        >>> from gradatim.families import LinearRegression
        >>> from gradatim.training.schemes import Unrolled
        >>> run = Recipe("maml", LinearRegression(dim=8), Unrolled(batch_size=16, horizon=5))
        >>> run.method
        MAML(hidden=(), rate=..., learnt_rate=False)
        >>> learner = run.learner()
    """

    method: Method
    family: TaskFamily
    scheme: Scheme
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        object.__setattr__(self, "method", method(self.method))
        needed = self.scheme.horizon * self.scheme.batch_size
        if needed > self.family.support_rows:
            raise ValueError(
                f"{self.scheme.horizon} steps of {self.scheme.batch_size} rows need {needed} support rows; the family "
                f"gives {self.family.support_rows}: raise its support_rows, or lower horizon or batch_size"
            )

    @property
    def name(self) -> str:
        """Return the name of the method, or its import path."""
        return name_of(self.method)

    def learner(self) -> Learner:
        """Return the learner with its first weights, a pure function of `train.seed`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.train.seed)
            return build(self.method, self.family)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON value that `from_json` turns back into an equal recipe.

        Raises:
            ValueError: a method, family, scheme or penalty of a class that no other program can import.
        """
        return {
            "method": method_to_json(self.method),
            "family": _to_named(FAMILIES, self.family),
            "scheme": _to_named(SCHEMES, self.scheme),
            "train": asdict(self.train),
        }


def from_json(value: dict[str, Any]) -> Recipe:
    """Return the recipe that `to_json` wrote.

    Raises:
        ValueError: an unknown method, family, scheme or field (the nearest name is suggested), a part that is missing,
            or a value of another type than its field's.

    Example:
        >>> from gradatim.recipes import from_json, recipe
        >>> from_json(recipe("linear").to_json()) == recipe("linear")
        True
    """
    if not isinstance(value, dict):
        raise ValueError(f"a recipe must be an object; got {value!r}")
    check_fields("recipe", value, [f.name for f in fields(Recipe)])
    missing = sorted({"method", "family", "scheme"} - set(value))
    if missing:
        raise ValueError(f"a recipe needs {missing[0]!r}; got {sorted(value)}")
    return Recipe(
        method_from_json(value["method"]),
        _from_named(FAMILIES, "family", value["family"]),
        _from_named(SCHEMES, "scheme", value["scheme"]),
        dataclass_from_json(TrainConfig, value.get("train", {}), "train"),
    )


def method_to_json(value: Method) -> dict[str, Any]:
    """Return a method as JSON: its name and its options.

    Raises:
        ValueError: a method of a class that no other program can import.

    Example:
        >>> from gradatim.methods import Adam
        >>> from gradatim.recipes import method_to_json
        >>> method_to_json(Adam(rate=0.1))
        {'name': 'adam', 'hidden': (), 'rate': 0.1}
    """
    name = name_of(value)
    fixed = METHODS[name].fixed
    return {"name": name, **{key: part for key, part in to_json(value).items() if key not in fixed}}


def method_from_json(value: Any) -> Method:
    """Return the method that `method_to_json` wrote, or of a name alone.

    Raises:
        ValueError: an unknown method, an option that it does not have, or a value of another type.

    Example:
        >>> from gradatim.recipes import method_from_json
        >>> method_from_json({"name": "adam", "rate": 0.1}).rate
        0.1
    """
    if isinstance(value, str):
        return method(value)
    name = _name("method", value)
    return METHODS[name]("method", **{key: part for key, part in value.items() if key != "name"})


def recipe_json(value: Any, path: Path) -> dict[str, Any]:
    """Return the recipe's JSON in what a run.json or a checkpoint's header holds.

    Raises:
        ValueError: there is none.

    Example:
        >>> from pathlib import Path
        >>> from gradatim.recipes import recipe, recipe_json
        >>> record = {"recipe": recipe("linear").to_json(), "torch": "2.13.0"}
        >>> recipe_json(record, Path("run.json"))["method"]["name"]
        'parametric-both'
    """
    value = value.get("recipe", value) if isinstance(value, dict) else value
    if not isinstance(value, dict) or not {"method", "family", "scheme"} <= value.keys():
        raise ValueError(f"{path} holds no recipe: give what gradatim train wrote")
    return value


def rebuild(path: Path) -> tuple[Learner, Recipe, dict[str, Any]]:
    """Return the learner of a checkpoint, in eval mode, with its recipe and header.

    Raises:
        ValueError: a file that is missing, truncated, foreign, or written without a recipe.

    Example:
        >>> from pathlib import Path
        >>> from gradatim import Greedy, LinearRegression, Recipe, TrainConfig, rebuild, train
        >>> config = TrainConfig(iterations=1, tasks=2, warmup=1)
        >>> run = Recipe("parametric-gradients", LinearRegression(3), Greedy(batch_size=8, horizon=2), config)
        >>> record = {"recipe": run.to_json()}
        >>> _ = train(run.learner(), run.family, run.scheme, config, "run", record, progress=False)
        >>> learner, recipe, header = rebuild(Path("run/learner.safetensors"))
        >>> recipe == run, header["iteration"]
        (True, 1)
    """
    tensors, header = read(path, "checkpoint")
    value = recipe_json(header.get("recipe"), path)
    with blamed(path, "describes no learner"):
        recipe = from_json(value)
        with Budget(sum(tensor.numel() for tensor in tensors.values()), len(tensors)):
            learner = recipe.learner()
        if recipe.train.precision == "64-true":
            learner = learner.to(torch.float64)
    put_weights(learner, tensors, path)
    return learner.eval(), recipe, header


def digits() -> Recipe:
    """Parametric softmax-linear classifiers of scikit-learn's digits, refined by rows and gradients."""
    return Recipe(
        method("parametric-both"),
        ImageClassification("digits", dim=32, ways=10, support_rows=500, query_rows=32),
        Greedy(batch_size=50, horizon=10),
        TrainConfig(iterations=300, tasks=16, lr=3e-3),
    )


def digits_explicit() -> Recipe:
    """The digits tasks with a learnt decoder on a learnt task embedding."""
    return _of_digits("explicit-both", 500)


def digits_implicit() -> Recipe:
    """The digits tasks with the query's logits refined by rows."""
    return _of_digits("implicit-logits", 500)


def _of_digits(name: str, iterations: int) -> Recipe:
    base = digits()
    training = TrainConfig(iterations=iterations, tasks=16, lr=2e-3)
    return replace(base, method=method(name), scheme=replace(base.scheme, horizon=5), train=training)


def mnist() -> Recipe:
    """Parametric softmax-linear classifiers of MNIST, 100 rows a step; reads $GRADATIM_DATA/images/mnist."""
    return Recipe(
        Parametric(gain=Gain(power=0.7), curvature=Gain()),
        ImageClassification("mnist", dim=64, ways=10, support_rows=1000),
        Greedy(batch_size=100, horizon=10),
        TrainConfig(iterations=200, tasks=8, lr=2e-3),
    )


def mnist_closed_form() -> Recipe:
    """MNIST by a linear head on meta-learnt features, solved from sufficient statistics."""
    base = mnist()
    return replace(
        base,
        method=ClosedForm(features=512, strength=0.3),
        scheme=Unrolled(batch_size=250, horizon=4),
        train=replace(base.train, iterations=100, tasks=4, lr=3e-3),
    )


def linear() -> Recipe:
    """Linear regression in 8 dimensions, 16 rows a step, rows and gradients, decaying gain."""
    return Recipe(
        method("parametric-both"),
        LinearRegression(8, 0.5, support_rows=160),
        Greedy(batch_size=16, horizon=10, relative=True),
        TrainConfig(iterations=1200, tasks=16, lr=3e-3),
    )


def linear_constant() -> Recipe:
    """Linear regression with the paper's constant gain, greedily, by observations.

    Beyond the paper, rows come with the predictions at them, and all steps have the same weight (`relative`).
    """
    base = linear()
    training = replace(base.train, iterations=2800)
    return replace(
        base,
        method=Parametric(signal="observations", gain=CONSTANT),
        train=training,
    )


def network() -> Recipe:
    """Regression on random networks: f a tanh network of 32 units, a token for each row of its weights."""
    return Recipe(
        Parametric(hidden=(32,)),
        RandomNetworkRegression(8, 32, 0.1, support_rows=320),
        Greedy(batch_size=32, horizon=10, relative=True),
        TrainConfig(iterations=1200, tasks=16, lr=1e-3),
    )


def sinusoids() -> Recipe:
    """Sine curves from five rows: learnt keys and a learnt prior, four prefixes of random length an iteration."""
    return Recipe(
        method("alpaca"),
        Sinusoids(support_rows=40, query_rows=20),
        Prefixes(batch_size=1, horizon=40, chosen=4),
        TrainConfig(iterations=1500, tasks=64, lr=5e-3),
    )


def causal_order() -> Recipe:
    """The topological order of 10 variables, random networks with Laplace noise, 50 rows a step."""
    return Recipe(
        ExplicitOrder(width=64, layers=2, heads=8),
        StructuralCausalModel(10, support_rows=200),
        Greedy(batch_size=50, horizon=4),
        TrainConfig(iterations=1000, tasks=32, lr=2e-3),
    )


def mixture() -> Recipe:
    """Generation: mixtures of four Gaussians in the plane, by flow matching, 32 points a step."""
    return Recipe(
        method("implicit-logits"),
        GaussianMixture(2, support_rows=320),
        Greedy(batch_size=32, horizon=10),
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
    "sinusoids": sinusoids,
    "causal-order": causal_order,
    "mixture": mixture,
    "alphabets": alphabets,
}


def recipe(name: str) -> Recipe:
    """Return a shipped recipe by name.

    Raises:
        ValueError: an unknown name; the nearest known one is suggested.

    Example:
        >>> from gradatim import recipe
        >>> recipe("linear").scheme.horizon
        10
    """
    if name not in RECIPES:
        raise ValueError(f"no recipe is called {name!r}: {hint(name, RECIPES)}")
    return RECIPES[name]()


def _to_named(table: Registry[Any], value: Any) -> dict[str, Any]:
    named = {"name": table.name_of(value), **to_json(value)}
    if penalties := getattr(value, "penalties", ()):
        named["penalties"] = [_penalty_to_json(penalty) for penalty in penalties]
    return named


def _from_named(table: Registry[type[Any]], what: str, value: Any) -> Any:
    kind, options = table[_name(what, value)], {key: part for key, part in value.items() if key != "name"}
    if isinstance(options.get("penalties"), list | tuple):
        options["penalties"] = [_penalty_from_json(part) for part in options["penalties"]]
    return dataclass_from_json(kind, options, what)


def _penalty_to_json(value: Any) -> dict[str, Any]:
    """Return a penalty as JSON: its import path, since there is no table of penalties, and its fields."""
    path = import_path(type(value), "penalty")
    if not is_dataclass(value):
        raise ValueError(f"the penalty {path} must be a frozen dataclass, whose fields JSON can hold")
    return {"name": path, **to_json(value)}


def _penalty_from_json(value: Any) -> Any:
    name = _name("penalty", value)
    kind = import_class(name, "penalty", object)
    if not (is_dataclass(kind) and issubclass(kind, Penalty | StatePenalty)):
        raise ValueError(
            f"{name} must be a penalty, a frozen dataclass with __call__(learner, task, losses) or "
            "of_states(learner, task, state)"
        )
    return dataclass_from_json(kind, {key: part for key, part in value.items() if key != "name"}, "penalty")


def _name(what: str, value: Any) -> str:
    name = value.get("name") if isinstance(value, dict) else None
    if not isinstance(name, str):
        raise ValueError(f"{what} must be an object with a name; got {value!r}")
    return name
