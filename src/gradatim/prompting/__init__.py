"""Frozen models made to answer another task: what is added to their input, and how their output is read."""

from .cells import (
    Reprogramming,
    cells,
    in_context_learning,
    model_reprogramming,
    prefix_tuning,
    prompt_tuning,
)
from .compare import Reprogrammings, compare_reprogramming
from .reprogram import Reprogrammed, reprogram

__all__ = [
    "Reprogrammed",
    "Reprogramming",
    "Reprogrammings",
    "cells",
    "compare_reprogramming",
    "in_context_learning",
    "model_reprogramming",
    "prefix_tuning",
    "prompt_tuning",
    "reprogram",
]
