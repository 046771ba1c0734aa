"""Every way of refining a state: learnt, unlearnt, closed form. One file each."""

from .alpaca import ALPaCA
from .bagged import Bagged
from .class_means import PLDA, ClassMeans, Prototypical
from .conjugate import OFF, Conjugate
from .drift import Bank, RunLength
from .experts import Experts
from .gain import CONSTANT, DECAYING, Gain
from .gaussian_process import GaussianProcess
from .in_context import InContextRefiner
from .kernel import Kernel
from .laplace import Laplace
from .learned_optimizer import LearnedOptimizer
from .maml import MAML
from .memory import MemoryImitation
from .neural_processes import AttentiveProcess, NeuralProcess
from .optimizers import SGD, Adam, Newton
from .pairs import PairRefiner
from .refined import Refined
from .refined_alpaca import RefinedALPaCA
from .refined_plda import RefinedPLDA
from .refit import Refit
from .smoother import Smoother
from .statistics import Ridge
from .transformer import TransformerRefiner
from .transformer_config import TransformerConfig
from .variables import VariableRefiner

__all__ = [
    "CONSTANT",
    "DECAYING",
    "MAML",
    "OFF",
    "PLDA",
    "SGD",
    "ALPaCA",
    "Adam",
    "AttentiveProcess",
    "Bagged",
    "Bank",
    "ClassMeans",
    "Conjugate",
    "Experts",
    "Gain",
    "GaussianProcess",
    "InContextRefiner",
    "Kernel",
    "Laplace",
    "LearnedOptimizer",
    "MemoryImitation",
    "NeuralProcess",
    "Newton",
    "PairRefiner",
    "Prototypical",
    "Refined",
    "RefinedALPaCA",
    "RefinedPLDA",
    "Refit",
    "Ridge",
    "RunLength",
    "Smoother",
    "TransformerConfig",
    "TransformerRefiner",
    "VariableRefiner",
]
