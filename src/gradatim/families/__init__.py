"""Task families: simulated tasks, and tasks made of real rows."""

from .alphabets import Alphabets
from .causal import StructuralCausalModel
from .datasets import ImageClassification
from .embeddings import EmbeddingClassification
from .generation import GaussianMixture
from .simulators import LinearClassification, LinearRegression, RandomNetworkRegression, Sinusoids

__all__ = [
    "Alphabets",
    "EmbeddingClassification",
    "GaussianMixture",
    "ImageClassification",
    "LinearClassification",
    "LinearRegression",
    "RandomNetworkRegression",
    "Sinusoids",
    "StructuralCausalModel",
]
