"""The recipes of `make study NAME=paper`: one for every row of its tables.

Source: Mittal et al. 2025: greedy training with a constant gain over ten steps, beside a learner trained for one;
other methods are trained as in their papers, sizes are this project's own.
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
"""Three ways of training: as the paper does, with a constant gain, then with our default gain, then for one step
only.
"""

RATES = (0.1, 0.3, 1.0)
RATED = ("maml", "first-order-maml", "meta-sgd")
"""Methods whose inner rate, or its initial value, is chosen from `RATES` on validation tasks."""

WHOLE = "-one-step-whole"
"""The ending of learners that predict in one step from all rows so far, trained on ten mini-batches in one."""

UNCURVED = "-uncurved"
"""The ending of learners whose steps see only the plain gradient. Others also see a preconditioned one."""

SIZES = ((32, 2), (64, 1), (64, 4), (128, 2))
"""Width and layers of refiners, beside 64 and 2. All are trained for as many multiplications."""

EPISODES = (1, 5, 20)
"""Steps of an episode of meta-training, beside ten."""

WINDOWS = (2, 5)
"""Number of past states and gradients that a step sees, beside none."""


def signals(family: str, regime: str) -> tuple[str, ...]:
    """Return what distinguishes the learners of a regime on a family: signals, or the state of an implicit learner."""
    if family == "order":
        return () if regime == "parametric" else ("order",)
    return ("logits",) if regime == "implicit" else SIGNALS


def recipes(name: str, setting: Setting, smoke: bool) -> dict[str, Recipe]:
    """Return the recipe of every row of the family `name`, by the name of the row."""
    regimes = {regime: signals(name, regime) for regime in ("parametric", "explicit", "implicit")}
    if name != "order":
        regimes["implicit"] = (
            "logits",
            "latents",
            *(("probabilities",) if setting.family.likelihood.classes else ()),
        )
    by_row = {
        row: recipe
        for regime, regime_signals in regimes.items()
        for signal in regime_signals
        for row, recipe in _training_variants(setting, regime, signal, smoke).items()
    }
    if name != "order":
        by_row |= _variations(by_row) | _ablations(by_row) | _neighbours(by_row, setting)
    if name == "mnist-784":
        by_row |= _weight_inputs(by_row)
    return by_row


def _training_variants(setting: Setting, regime: str, signal: str, smoke: bool) -> dict[str, Recipe]:
    """Return a recipe for each of `VARIANTS` and for `WHOLE`.

    The `signal` of an implicit learner is its state.
    """
    options = setting.settings.get(regime, {})
    sizes: dict[str, Any] = {"width": 16, "layers": 1} if smoke else {}
    if setting.curvature and (regime == "parametric" or "features" in options):
        sizes["curvature"] = Gain(power=0.0)
    queries = 32 if regime == "implicit" else 64
    family = setting.family.on("train")
    family = replace(family, query_rows=min(family.query_rows, queries))
    iterations = setting.iterations * (setting.implicit if regime == "implicit" else 1)
    training = _with_iterations(
        TrainConfig(tasks=setting.tasks, lr=setting.lr, accelerator="cpu"), iterations
    )
    scheme = Greedy(setting.batch_size, HORIZON, relative=setting.relative)
    family = replace(family, support_rows=HORIZON * setting.batch_size)
    name = f"{regime}-{signal}"
    paper = Recipe(method(name, gain=CONSTANT, **sizes, **options), family, scheme, training)
    single = one_step_recipe(paper, name)
    single = replace(single, family=replace(family, support_rows=setting.batch_size))
    decaying = _with_options(paper, gain=DECAYING)
    variants = dict(zip((f"{name}{ending}" for ending in VARIANTS), (paper, decaying, single), strict=True))
    one_pass = Greedy(HORIZON * setting.batch_size, 1, relative=setting.relative)
    return {**variants, f"{name}{WHOLE}": replace(paper, scheme=one_pass)}


def _with_options(recipe: Recipe, **options: Any) -> Recipe:
    """Return the recipe with other options of its method."""
    return replace(recipe, method=replace(recipe.method, **options))


def _with_method(recipe: Recipe, name: str, **options: Any) -> Recipe:
    """Return the recipe with another method. It keeps the options that both methods have."""
    return replace(recipe, method=variant(recipe.method, name, **options))


def _with_iterations(training: TrainConfig, iterations: float) -> TrainConfig:
    """Return the training with this number of iterations, at least one. At most a third of them are warmup."""
    iterations = max(1, round(iterations))
    return replace(training, iterations=iterations, warmup=min(training.warmup, iterations // 3))


def _variations(trained: dict[str, Recipe]) -> dict[str, Recipe]:
    """Return variations of the learner with both signals: sizes, windows, masks and episodes."""
    paper, default = trained["parametric-both"], trained["parametric-both-decaying"]
    variations = {}
    for width, layers in SIZES:
        work = 2 * 64**2 / (layers * width**2)
        sized = _with_options(default, width=width, layers=layers)
        variations[f"width-{width}-layers-{layers}"] = replace(
            sized, train=_with_iterations(default.train, work * default.train.iterations)
        )
    for window in WINDOWS:
        variations[f"parametric-both-history-{window}"] = _with_options(paper, history=window)
    masked = _with_options(paper, prefixes=True)
    variations["parametric-both-masked"] = masked
    size = paper.scheme.batch_size
    lengths = replace(paper.scheme, prefixes=min(len(LENGTHS), size))
    variations["parametric-both-prefixes"] = replace(masked, scheme=lengths)
    for steps in (*EPISODES, HORIZON):
        family = replace(paper.family, support_rows=steps * size)
        for scheme in (Greedy, Unrolled):
            how = scheme(size, steps, relative=paper.scheme.relative)
            variations[f"{scheme.__name__.lower()}-{steps}"] = replace(paper, family=family, scheme=how)
    return variations


def _ablations(trained: dict[str, Recipe]) -> dict[str, Recipe]:
    """Return learners without what ours add to the paper's: predictions at the rows, curvature, a head on features."""
    ablations = {}
    for signal in SIGNALS:
        recipe = trained[f"parametric-{signal}"]
        ablations[f"parametric-{signal}{UNCURVED}"] = _with_options(recipe, curvature=None)
    ablations["parametric-plain"] = _with_method(ablations[f"parametric-both{UNCURVED}"], "parametric-plain")
    recipe = trained["explicit-both"]
    ablations["explicit-both-decoder"] = _with_options(recipe, features=None, curvature=None)
    return ablations


def _neighbours(trained: dict[str, Recipe], setting: Setting) -> dict[str, Recipe]:
    """Return related methods in the unified formula. Each is trained as in its paper, on as many tasks."""
    base = trained["parametric-gradients"]
    size, relative = setting.batch_size, setting.relative
    unrolled = Unrolled(size, HORIZON, relative=relative)
    plain = _with_options(base, curvature=None)
    through = replace(plain, scheme=unrolled)
    neighbours = {
        f"{name}-{rate:g}": _with_method(through, name, rate=rate) for name in RATED for rate in RATES
    }
    optimizer = _with_method(plain, "learned-optimizer")
    neighbours["learned-optimizer"] = optimizer
    neighbours["learned-optimizer-unrolled"] = replace(optimizer, scheme=unrolled)
    shorter = _with_iterations(plain.train, plain.train.iterations // 8)
    for name, truncation in (("evolution", None), ("persistent", 2)):
        scheme = Evolution(size, HORIZON, relative=relative, truncation=truncation)
        neighbours[f"learned-optimizer-{name}"] = replace(optimizer, scheme=scheme, train=shorter)
    neighbours["parametric-gradients-unrolled"] = replace(base, scheme=unrolled)
    neighbours["hypernetwork"] = _with_method(trained["parametric-observations-one-step"], "hypernetwork")
    for name in ("conditional-neural-process", "attentive-neural-process"):
        neighbours[name] = _with_method(through, name)
    fewer = _with_iterations(plain.train, plain.train.iterations // 4)
    closed = replace(through, train=fewer)
    neighbours["closed-form"] = _with_method(closed, "closed-form", features=256)
    neighbours["bayesian"] = _with_method(closed, "bayesian")
    return neighbours


def _weight_inputs(trained: dict[str, Recipe]) -> dict[str, Recipe]:
    """Return three ways for a refiner to take the weights of a network 784 x 100 x 10 as input."""
    default, embedded = trained["parametric-both-decaying"], trained["explicit-both-decaying"]
    return {
        "token-per-row": _with_options(default, hidden=(100,)),
        "one-token": _with_options(default, hidden=(100,), token_per_row=False),
        "modulated": _with_options(embedded, modulated=(100, 100)),
    }
