"""Small language models: read from a folder, asked, and tuned to sample from a posterior. The `[language]` extra."""

from .models import load_model

__all__ = ["load_model"]
