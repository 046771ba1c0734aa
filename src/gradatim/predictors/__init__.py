"""The three kinds of f_gamma: of known form, a learnt decoder, a readout."""

from .committee import Committee, Widths, widths
from .decoder import Decoder
from .ensemble import Ensemble
from .features import Features
from .landmarks import Landmarks
from .likelihoods import CrossEntropy, Likelihood, SquaredError, likelihood
from .network import Network
from .readout import Readout
from .order import OrderScores

__all__ = [
    "Committee",
    "CrossEntropy",
    "Decoder",
    "Ensemble",
    "Features",
    "Landmarks",
    "Likelihood",
    "Network",
    "Readout",
    "SquaredError",
    "OrderScores",
    "Widths",
    "likelihood",
    "widths",
]
