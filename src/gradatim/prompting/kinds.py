"""The kinds of frozen models that are reprogrammed, and how they are met.

Source: Ye et al. 2025 (arXiv 2506.04650).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from ..learner import Learner
from .cells import Reprogramming
from .learners import LearnerAdapter
from .modules import ModuleAdapter


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Put a model in eval mode and switch gradients of its weights off; as it was afterwards."""
    modes = [(part, part.training) for part in model.modules()]
    flags = [(part, part.requires_grad) for part in model.parameters()]
    model.eval()
    for part, _ in flags:
        part.requires_grad_(False)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for part, flag in flags:
            part.requires_grad_(flag)


def kind_of(model: Any) -> str:
    """Return `module`, `learner`, or `language` for a pair of a model and its tokenizer.

    Raises:
        ValueError: something else.
    """
    if isinstance(model, tuple) and len(model) == 2 and isinstance(model[0], nn.Module):
        return "language"
    if isinstance(model, Learner):
        return "learner"
    if isinstance(model, nn.Module):
        return "module"
    raise ValueError(
        "a model is a torch module from tensors to logits, a Learner, or a pair (language model, tokenizer); got "
        f"{type(model).__name__}"
    )


def make_adapter(model: Any, how: Reprogramming, settings: dict[str, Any]) -> Any:
    """Return the frozen model with a delta that is yet to be learnt."""
    kind, seed = kind_of(model), settings["seed"]
    if kind == "language":
        from ..language.prompts import LanguageAdapter

        asked = {name: settings[name] for name in ("ask", "max_tokens")}
        return LanguageAdapter(
            model[0], model[1], how.location, how.operator, how.tokens, how.rank, seed=seed, **asked
        )
    shape, x_shape = (tuple(settings[name]) for name in ("shape", "x_shape"))
    if kind == "learner":
        with frozen(model):
            return LearnerAdapter(model, how, x_shape[0], shape[0], seed)
    with frozen(model):
        return ModuleAdapter(model, how, shape, x_shape, seed)
