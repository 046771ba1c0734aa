"""Task families: distributions of tasks.

- Simulated: `LinearRegression`, `LinearClassification`, `RandomNetworkRegression`, `GaussianMixture`,
  `StructuralCausalModel`.
- From real rows: `ImageClassification`, `EmbeddingClassification`, `Alphabets`.
"""

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
