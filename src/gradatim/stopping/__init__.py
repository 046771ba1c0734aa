"""A stopping rule and an honest error bar: the learner's own estimate of its present query loss.

Source: Dawid 1984 (the prequential loss); McCullagh, Nelder 1989, chapter 8 (the gamma deviance).
"""

from .estimate import WINDOWS, LossEstimate, Running, Seen, prequential
from .fit import crossings, fit_estimate
from .rule import Stopped, stop_when, stopping_times

__all__ = [
    "WINDOWS",
    "LossEstimate",
    "Running",
    "Seen",
    "Stopped",
    "crossings",
    "fit_estimate",
    "prequential",
    "stop_when",
    "stopping_times",
]
