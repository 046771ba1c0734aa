"""Small language models: read from a folder, asked, and tuned to sample from a posterior. The `[language]` extra."""

from .models import load_model
from .reader import InContextReader

__all__ = ["InContextReader", "load_model"]
