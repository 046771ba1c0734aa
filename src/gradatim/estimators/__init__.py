"""scikit-learn estimators: of tables by averaged ridge heads, in closed form; of streams of classes by rehearsal."""

from ..preprocessing.drift import DriftWarning
from .classifier import RefinedClassifier
from .regressor import RefinedRegressor
from .rehearsal import RehearsalClassifier

__all__ = ["DriftWarning", "RefinedClassifier", "RefinedRegressor", "RehearsalClassifier"]
