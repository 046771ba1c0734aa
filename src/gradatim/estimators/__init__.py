"""scikit-learn estimators of tables: Bayesian model averaging of ridge heads, in closed form, nothing meta-trained."""

from ..preprocessing.drift import DriftWarning
from .blocked import BlockedClassifier, BlockedRegressor
from .blocked_base import GroupsWarning
from .classifier import RefinedClassifier
from .regressor import RefinedRegressor

__all__ = [
    "BlockedClassifier",
    "BlockedRegressor",
    "DriftWarning",
    "GroupsWarning",
    "RefinedClassifier",
    "RefinedRegressor",
]
