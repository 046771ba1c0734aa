"""Task families: simulated tasks, and tasks made of real images."""

from .datasets import ImageClassification
from .simulators import LinearClassification, LinearRegression, RandomNetworkRegression

__all__ = ["ImageClassification", "LinearClassification", "LinearRegression", "RandomNetworkRegression"]
