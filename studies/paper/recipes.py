"""What `make study NAME=paper` trains: a recipe for every row of its tables.

Source: Mittal et al. 2025: greedy training with a constant gain over ten steps, beside a learner trained for one;
the neighbours as their sources train them, sizes are this project's own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gradatim.comparison.experiment import SIGNALS
from gradatim.comparison.runs import one_step_recipe
from gradatim.methods import method, variant
from gradatim.recipes import Recipe
from gradatim.refiners import CONSTANT, DECAYING, Gain
from gradatim.training.config import TrainConfig
from gradatim.training.evolution import Evolution
from gradatim.training.schemes import Greedy, Unrolled

from .settings import LENGTHS

if TYPE_CHECKING:
    from .settings import Setting

HORIZON = 10
VARIANTS = ("", "-decaying", "-one-step")
"""The paper's training, constant gain; the same with our default gain; a learner trained for one step alone."""

RATES = (0.1, 0.3, 1.0)
RATED = ("maml", "first-order-maml", "meta-sgd")
"""Methods whose inner rate, or where it starts, is chosen from `RATES` on validation tasks."""

WHOLE = "-one-step-whole"
"""Ends the name of a learner that answers in one step over all rows so far, trained on ten mini-batches in one."""

UNCURVED = "-uncurved"
"""Ends the name of a learner whose steps see the gradient as it is, where others also see it preconditioned."""

SIZES = ((32, 2), (64, 1), (64, 4), (128, 2))
"""Width and layers of refiners beside 64 and 2, each trained for as many multiplications."""

EPISODES = (1, 5, 20)
"""Steps of an episode of meta-training beside ten."""

WINDOWS = (2, 5)
"""Past states and gradients that a step sees, beside none."""


def signals(family: str, regime: str) -> tuple[str, ...]:
    """Return what a regime's learners of a family are told apart by: signals, or an implicit learner's state."""
    if family == "order":
        return () if regime == "parametric" else ("order",)
    return ("logits",) if regime == "implicit" else SIGNALS


def recipes(name: str, setting: Setting, smoke: bool) -> dict[str, Recipe]:
    """Return the recipe of every row that a family `name` can have, by the row's name."""
    regimes = {regime: signals(name, regime) for regime in ("parametric", "explicit", "implicit")}
    if name != "order":
        regimes["implicit"] = (
            "logits",
            "latents",
            *(("probabilities",) if setting.family.likelihood.classes else ()),
        )
    made = {
        row: recipe
        for regime, own in regimes.items()
        for signal in own
        for row, recipe in _trained(setting, regime, signal, smoke).items()
    }
    if name != "order":
        made |= _variations(made) | _plainer(made) | _neighbours(made, setting)
    if name == "mnist-784":
        made |= _fed(made)
    return made


def _trained(setting: Setting, regime: str, signal: str, smoke: bool) -> dict[str, Recipe]:
    """Return a recipe for each of `VARIANTS`, and `WHOLE`; an implicit learner's `signal` is its state."""
    given = setting.settings.get(regime, {})
    sizes: dict[str, Any] = {"width": 16, "layers": 1} if smoke else {}
    if setting.curvature and (regime == "parametric" or "features" in given):
        sizes["curvature"] = Gain(power=0.0)
    asked = 32 if regime == "implicit" else 64
    family = setting.family.on("train")
    family = replace(family, query_rows=min(family.query_rows, asked))
    iterations = setting.iterations * (setting.implicit if regime == "implicit" else 1)
    training = _lasting(TrainConfig(tasks=setting.tasks, lr=setting.lr, accelerator="cpu"), iterations)
    scheme = Greedy(setting.batch_size, HORIZON, relative=setting.relative)
    family = replace(family, support_rows=HORIZON * setting.batch_size)
    name = f"{regime}-{signal}"
    paper = Recipe(method(name, gain=CONSTANT, **sizes, **given), family, scheme, training)
    single = one_step_recipe(paper, name)
    single = replace(single, family=replace(family, support_rows=setting.batch_size))
    decaying = _with(paper, gain=DECAYING)
    made = dict(zip((f"{name}{ending}" for ending in VARIANTS), (paper, decaying, single), strict=True))
    whole = Greedy(HORIZON * setting.batch_size, 1, relative=setting.relative)
    return {**made, f"{name}{WHOLE}": replace(paper, scheme=whole)}


def _with(recipe: Recipe, **options: Any) -> Recipe:
    """Return the recipe with other options of its method."""
    return replace(recipe, method=replace(recipe.method, **options))


def _as(recipe: Recipe, name: str, **options: Any) -> Recipe:
    """Return the recipe of another method, with those options of the old that it has too."""
    return replace(recipe, method=variant(recipe.method, name, **options))


def _lasting(training: TrainConfig, iterations: float) -> TrainConfig:
    """Return the training in so many iterations, at least one, no more than a third of them warming up."""
    iterations = max(1, round(iterations))
    return replace(training, iterations=iterations, warmup=min(training.warmup, iterations // 3))


def _variations(made: dict[str, Recipe]) -> dict[str, Recipe]:
    """Return both signals trained otherwise: other sizes, windows, masks and episodes."""
    paper, default = made["parametric-both"], made["parametric-both-decaying"]
    found = {}
    for width, layers in SIZES:
        work = 2 * 64**2 / (layers * width**2)
        sized = _with(default, width=width, layers=layers)
        found[f"width-{width}-layers-{layers}"] = replace(
            sized, train=_lasting(default.train, work * default.train.iterations)
        )
    for window in WINDOWS:
        found[f"parametric-both-history-{window}"] = _with(paper, history=window)
    masked = _with(paper, prefixes=True)
    found["parametric-both-masked"] = masked
    size = paper.scheme.batch_size
    lengths = replace(paper.scheme, prefixes=min(len(LENGTHS), size))
    found["parametric-both-prefixes"] = replace(masked, scheme=lengths)
    for steps in (*EPISODES, HORIZON):
        family = replace(paper.family, support_rows=steps * size)
        for scheme in (Greedy, Unrolled):
            how = scheme(size, steps, relative=paper.scheme.relative)
            found[f"{scheme.__name__.lower()}-{steps}"] = replace(paper, family=family, scheme=how)
    return found


def _plainer(made: dict[str, Recipe]) -> dict[str, Recipe]:
    """Return learners without what ours add to the paper's: predictions at the rows, curvature, a head on features."""
    found = {}
    for signal in SIGNALS:
        own = made[f"parametric-{signal}"]
        found[f"parametric-{signal}{UNCURVED}"] = _with(own, curvature=None)
    found["parametric-plain"] = _as(found[f"parametric-both{UNCURVED}"], "parametric-plain")
    own = made["explicit-both"]
    found["explicit-both-decoder"] = _with(own, features=None, curvature=None)
    return found


def _neighbours(made: dict[str, Recipe], setting: Setting) -> dict[str, Recipe]:
    """Return the neighbours in the unified formula, each trained as its source does, on as many tasks."""
    base = made["parametric-gradients"]
    size, relative = setting.batch_size, setting.relative
    unrolled = Unrolled(size, HORIZON, relative=relative)
    plain = _with(base, curvature=None)
    through = replace(plain, scheme=unrolled)
    found = {f"{name}-{rate:g}": _as(through, name, rate=rate) for name in RATED for rate in RATES}
    optimizer = _as(plain, "learned-optimizer")
    found["learned-optimizer"] = optimizer
    found["learned-optimizer-unrolled"] = replace(optimizer, scheme=unrolled)
    few = _lasting(plain.train, plain.train.iterations // 8)
    for name, truncation in (("evolution", None), ("persistent", 2)):
        scheme = Evolution(size, HORIZON, relative=relative, truncation=truncation)
        found[f"learned-optimizer-{name}"] = replace(optimizer, scheme=scheme, train=few)
    found["parametric-gradients-unrolled"] = replace(base, scheme=unrolled)
    found["hypernetwork"] = _as(made["parametric-observations-one-step"], "hypernetwork")
    for name in ("conditional-neural-process", "attentive-neural-process"):
        found[name] = _as(through, name)
    fewer = _lasting(plain.train, plain.train.iterations // 4)
    closed = replace(through, train=fewer)
    found["closed-form"] = _as(closed, "closed-form", features=256)
    found["bayesian"] = _as(closed, "bayesian")
    return found


def _fed(made: dict[str, Recipe]) -> dict[str, Recipe]:
    """Return three ways of giving a refiner the weights of a network 784 x 100 x 10."""
    default, embedded = made["parametric-both-decaying"], made["explicit-both-decaying"]
    return {
        "token-per-row": _with(default, hidden=(100,)),
        "one-token": _with(default, hidden=(100,), token_per_row=False),
        "modulated": _with(embedded, modulated=(100, 100)),
    }
