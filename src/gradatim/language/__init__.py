"""Small language models: read from a folder, asked, and tuned to sample from a posterior. The `[language]` extra."""

from .models import load_model
from .reader import InContextReader
from .rewards import PosteriorReward, TextReward
from .sampling import SamplerConfig, tune_sampler
from .sequences import Sequences, SequenceSpace, sample
from .subtb import subtb_loss

__all__ = [
    "InContextReader",
    "PosteriorReward",
    "SamplerConfig",
    "SequenceSpace",
    "Sequences",
    "TextReward",
    "load_model",
    "sample",
    "subtb_loss",
    "tune_sampler",
]
