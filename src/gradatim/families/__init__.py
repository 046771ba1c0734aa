"""Task families: distributions of tasks.

- Simulated: `LinearRegression`, `LinearClassification`, `RandomNetworkRegression`, `Sinusoids`, `GaussianMixture`,
  `StructuralCausalModel`, `LatentSequences`.
- From real rows: `ImageClassification`, `EmbeddingClassification`, `OmniglotClassification`, `Alphabets`.
"""

from .alphabets import Alphabets
from .causal import StructuralCausalModel
from .datasets import ImageClassification
from .embeddings import EmbeddingClassification
from .generation import GaussianMixture
from .latent_sequences import LatentSequences
from .omniglot import OmniglotClassification
from .simulators import LinearClassification, LinearRegression, RandomNetworkRegression
from .sinusoids import Sinusoids

__all__ = [
    "Alphabets",
    "EmbeddingClassification",
    "GaussianMixture",
    "ImageClassification",
    "LatentSequences",
    "LinearClassification",
    "LinearRegression",
    "OmniglotClassification",
    "RandomNetworkRegression",
    "Sinusoids",
    "StructuralCausalModel",
]
