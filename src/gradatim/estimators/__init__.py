"""scikit-learn estimators of tables: Bayesian model averaging of ridge heads, in closed form, nothing meta-trained."""

from ..preprocessing.drift import DriftWarning
from .classifier import RefinedClassifier
from .regressor import RefinedRegressor

__all__ = ["DriftWarning", "RefinedClassifier", "RefinedRegressor"]
