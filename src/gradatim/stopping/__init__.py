"""A stopping rule, from an estimate of the learner's present query loss.

- `prequential` learns a stream and scores each mini-batch before it is learnt;
- `LossEstimate` predicts the query loss from running means of those scores; `fit_estimate` fits it;
- `stop_when` and `stopping_times` stop where the estimate falls to a threshold.

Source: Dawid 1984 (the prequential loss); McCullagh, Nelder 1989, chapter 8 (the gamma deviance).
"""

from .estimate import WINDOWS, LossEstimate, PrequentialStep, RunningMeans, prequential
from .fit import fit_estimate, hitting_times
from .rule import StoppingResult, stop_when, stopping_times

__all__ = [
    "WINDOWS",
    "LossEstimate",
    "PrequentialStep",
    "RunningMeans",
    "StoppingResult",
    "fit_estimate",
    "hitting_times",
    "prequential",
    "stop_when",
    "stopping_times",
]
