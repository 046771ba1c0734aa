"""gradatim: iterative amortized inference. Learners that refine their answer to a new task step by step.

    state_0     = refiner.init(tasks, query)
    state_{t+1} = refiner.step(state_t, signal(predictor, state_t, batch_t))
    prediction  = predictor(x, refiner.latent(state_T))

The names below are imported when they are first used: `import gradatim` itself is quick and changes nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import gradatim.families as families
    import gradatim.methods as methods
    import gradatim.metrics as metrics
    import gradatim.stopping as stopping

    from .batch import Batch, Task
    from .comparison.compare import compare
    from .comparison.result import Comparison
    from .estimators import (
        BlockedClassifier,
        BlockedRegressor,
        DriftWarning,
        GroupsWarning,
        RefinedClassifier,
        RefinedRegressor,
        RehearsalClassifier,
    )
    from .families import (
        Alphabets,
        EmbeddingClassification,
        GaussianMixture,
        ImageClassification,
        LatentSequences,
        LinearClassification,
        LinearRegression,
        OmniglotClassification,
        RandomNetworkRegression,
        Sinusoids,
        StructuralCausalModel,
    )
    from .family import TaskFamily
    from .files.checkpoint import load_weights
    from .groups import GroupedClassifier, GroupedRegressor
    from .learner import Learner
    from .likelihood import CrossEntropy, Likelihood, SquaredError
    from .methods import METHODS, Method, build, method
    from .predictor import Predictor
    from .progressive import progressive_validation
    from .recipes import RECIPES, Recipe, rebuild, recipe
    from .refiner import Capabilities, Refiner
    from .refiners import Gain
    from .signal import BOTH, GRADIENTS, OBSERVATIONS, PLAIN, Signal, StepInput
    from .stopping import LossEstimate, fit_estimate, stop_when
    from .training.evolution import Evolution
    from .training.prefixes import Prefixes
    from .training.repeated import Repeated
    from .training.schemes import Greedy, Scheme, Unrolled
    from .training.states import load_state, save_state
    from .training.train import TrainConfig, train

__version__ = "0.1.0"

_HOMES = {
    "": ("families", "methods", "metrics", "stopping"),
    "batch": ("Batch", "Task"),
    "comparison.compare": ("compare",),
    "comparison.result": ("Comparison",),
    "estimators": (
        "BlockedClassifier",
        "BlockedRegressor",
        "DriftWarning",
        "GroupsWarning",
        "RefinedClassifier",
        "RefinedRegressor",
        "RehearsalClassifier",
    ),
    "families": (
        "Alphabets",
        "EmbeddingClassification",
        "GaussianMixture",
        "ImageClassification",
        "LatentSequences",
        "LinearClassification",
        "LinearRegression",
        "OmniglotClassification",
        "RandomNetworkRegression",
        "Sinusoids",
        "StructuralCausalModel",
    ),
    "family": ("TaskFamily",),
    "groups": ("GroupedClassifier", "GroupedRegressor"),
    "learner": ("Learner",),
    "likelihood": ("CrossEntropy", "Likelihood", "SquaredError"),
    "methods": ("METHODS", "Method", "build", "method"),
    "predictor": ("Predictor",),
    "progressive": ("progressive_validation",),
    "recipes": ("RECIPES", "Recipe", "rebuild", "recipe"),
    "refiner": ("Capabilities", "Refiner"),
    "refiners": ("Gain",),
    "signal": ("BOTH", "GRADIENTS", "OBSERVATIONS", "PLAIN", "StepInput", "Signal"),
    "stopping": ("LossEstimate", "fit_estimate", "stop_when"),
    "files.checkpoint": ("load_weights",),
    "training.evolution": ("Evolution",),
    "training.prefixes": ("Prefixes",),
    "training.repeated": ("Repeated",),
    "training.schemes": ("Greedy", "Scheme", "Unrolled"),
    "training.states": ("load_state", "save_state"),
    "training.train": ("TrainConfig", "train"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

# In the order in which a reader needs them: tables; tasks; the parts of a learner; methods; training; judging.
__all__ = [  # noqa: RUF022
    "RefinedClassifier",
    "RefinedRegressor",
    "GroupedClassifier",
    "GroupedRegressor",
    "BlockedClassifier",
    "BlockedRegressor",
    "RehearsalClassifier",
    "DriftWarning",
    "GroupsWarning",
    "progressive_validation",
    "Batch",
    "Task",
    "TaskFamily",
    "Likelihood",
    "SquaredError",
    "CrossEntropy",
    "families",
    "LinearRegression",
    "LinearClassification",
    "RandomNetworkRegression",
    "Sinusoids",
    "ImageClassification",
    "LatentSequences",
    "EmbeddingClassification",
    "OmniglotClassification",
    "GaussianMixture",
    "Alphabets",
    "StructuralCausalModel",
    "Predictor",
    "Signal",
    "OBSERVATIONS",
    "GRADIENTS",
    "BOTH",
    "PLAIN",
    "StepInput",
    "Refiner",
    "Repeated",
    "Capabilities",
    "Learner",
    "methods",
    "METHODS",
    "Method",
    "method",
    "build",
    "Gain",
    "Scheme",
    "Greedy",
    "Unrolled",
    "Evolution",
    "Prefixes",
    "TrainConfig",
    "train",
    "Recipe",
    "RECIPES",
    "recipe",
    "compare",
    "Comparison",
    "rebuild",
    "save_state",
    "load_state",
    "load_weights",
    "metrics",
    "stopping",
    "LossEstimate",
    "fit_estimate",
    "stop_when",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOME[name]
    if not home:
        return import_module(f"{__name__}.{name}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
