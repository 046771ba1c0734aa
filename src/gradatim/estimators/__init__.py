"""scikit-learn estimators of tables: closed-form Bayesian model averaging of ridge heads, one pass, nothing meta-trained."""

from .base import DriftWarning
from .classifier import RefinedClassifier
from .regressor import RefinedRegressor

__all__ = ["DriftWarning", "RefinedClassifier", "RefinedRegressor"]
