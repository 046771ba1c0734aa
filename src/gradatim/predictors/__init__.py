"""The three kinds of f_gamma.

- Known form (parametric): `Network`, `ConvolutionalNetwork`, `Ensemble`, `Features`, `Keys`, `GaussianKeys`,
  `Landmarks`, `Committee`, `Imitation`. The latent is its weights.
- Learnt decoder (explicit): `Decoder`, `Modulated`, `OrderScores`. The latent is an embedding of the task.
- Readout (implicit): `Readout`. The latent is the prediction for the query rows.
"""

from ..likelihood import CrossEntropy, Likelihood, Order, SquaredError, Velocity
from .committee import Committee
from .convolutional import ConvolutionalNetwork
from .decoder import Decoder
from .ensemble import Ensemble
from .features import Features
from .imitation import Imitation
from .keys import GaussianKeys, Keys
from .landmarks import Landmarks
from .modulated import Modulated
from .network import Network
from .order import OrderScores
from .readout import Readout

__all__ = [
    "Committee",
    "ConvolutionalNetwork",
    "CrossEntropy",
    "Decoder",
    "Ensemble",
    "Features",
    "GaussianKeys",
    "Imitation",
    "Keys",
    "Landmarks",
    "Likelihood",
    "Modulated",
    "Network",
    "Order",
    "OrderScores",
    "Readout",
    "SquaredError",
    "Velocity",
]
