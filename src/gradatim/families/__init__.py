"""Task families: simulated tasks, and tasks made of real rows."""

from .datasets import ImageClassification
from .embeddings import EmbeddingClassification
from .simulators import LinearClassification, LinearRegression, RandomNetworkRegression

__all__ = [
    "EmbeddingClassification",
    "ImageClassification",
    "LinearClassification",
    "LinearRegression",
    "RandomNetworkRegression",
]
