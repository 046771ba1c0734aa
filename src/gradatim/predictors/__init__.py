"""The three kinds of f_gamma: of known form, a learnt decoder, a readout."""

from .decoder import Decoder
from .ensemble import Ensemble
from .features import Features
from .likelihoods import CrossEntropy, Likelihood, SquaredError, likelihood
from .network import Network
from .readout import Readout

__all__ = [
    "CrossEntropy",
    "Decoder",
    "Ensemble",
    "Features",
    "Likelihood",
    "Network",
    "Readout",
    "SquaredError",
    "likelihood",
]
