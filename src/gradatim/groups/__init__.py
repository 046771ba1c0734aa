"""One's own tasks: estimators that learn what groups of rows share, and begin each new group there."""

from .classifier import GroupedClassifier
from .regressor import GroupedRegressor

__all__ = ["GroupedClassifier", "GroupedRegressor"]
