"""scikit-learn estimators: of tables by averaged ridge heads, in closed form; of streams of classes by rehearsal."""

from ..preprocessing.drift import DriftWarning
from .blocked import BlockedClassifier, BlockedRegressor
from .blocked_base import GroupsWarning
from .classifier import RefinedClassifier
from .regressor import RefinedRegressor
from .rehearsal import RehearsalClassifier

__all__ = [
    "BlockedClassifier",
    "BlockedRegressor",
    "DriftWarning",
    "GroupsWarning",
    "RefinedClassifier",
    "RefinedRegressor",
    "RehearsalClassifier",
]
