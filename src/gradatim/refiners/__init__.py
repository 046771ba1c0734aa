"""Every way of refining a state: learnt, unlearnt, closed form. One file each."""

from .bagged import Bagged
from .conjugate import OFF, Conjugate
from .drift import Bank, RunLength
from .experts import Experts
from .gain import CONSTANT, DECAYING, Gain
from .kernel import Kernel
from .laplace import Laplace
from .learned_optimizer import LearnedOptimizer
from .maml import MAML
from .moments import Ridge
from .optimizers import SGD, Adam, Newton
from .processes import AttentiveProcess, NeuralProcess
from .query import QueryRefiner
from .refit import Refit
from .rows import RowsConfig, RowsRefiner
from .smoother import Smoother
from .variables import VariableRefiner

__all__ = [
    "CONSTANT",
    "DECAYING",
    "MAML",
    "OFF",
    "SGD",
    "Adam",
    "AttentiveProcess",
    "Bagged",
    "Bank",
    "Conjugate",
    "Experts",
    "Gain",
    "Kernel",
    "Laplace",
    "LearnedOptimizer",
    "NeuralProcess",
    "Newton",
    "QueryRefiner",
    "Refit",
    "Ridge",
    "RowsConfig",
    "RowsRefiner",
    "RunLength",
    "Smoother",
    "VariableRefiner",
]
