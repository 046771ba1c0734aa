"""Checks of the laws that every learner, predictor, task family and scheme obeys. Run them on your own.

- `check_refiner(learner, family)`
- `check_predictor(predictor, family)`
- `check_family(family)`
- `check_scheme(scheme, learner, family)`

Each check computes in float64 and raises AssertionError with a sentence that names the broken law.
"""

from .learners import check_refiner
from .parts import check_family, check_predictor, check_scheme
from .references import meta_gradient_error
from .tools import randomised

__all__ = [
    "check_family",
    "check_predictor",
    "check_refiner",
    "check_scheme",
    "meta_gradient_error",
    "randomised",
]
