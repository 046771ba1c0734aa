"""Every way of refining a state: learnt, unlearnt, closed form. One file each."""

from .bagged import Bagged
from .gain import CONSTANT, DECAYING, Gain
from .moments import Ridge
from .optimizers import SGD, Adam, Newton
from .query import QueryRefiner
from .refit import Refit
from .rows import RowsConfig, RowsRefiner

__all__ = [
    "CONSTANT",
    "DECAYING",
    "SGD",
    "Adam",
    "Bagged",
    "Gain",
    "Newton",
    "QueryRefiner",
    "Refit",
    "Ridge",
    "RowsConfig",
    "RowsRefiner",
]
