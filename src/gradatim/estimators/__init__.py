"""scikit-learn estimators whose `partial_fit` is a learned update."""

from .base import DriftWarning
from .classifier import RefinedClassifier
from .regressor import RefinedRegressor

__all__ = ["DriftWarning", "RefinedClassifier", "RefinedRegressor"]
