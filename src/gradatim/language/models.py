"""Language models of transformers and their tokenizers, from a folder or by a name of the hub.

Source: Wolf et al. 2020 (transformers).
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

MISSING = "{need} needs transformers and peft, which are not installed: pip install gradatim[language]"


def import_transformers(need: str = "gradatim.language") -> Any:
    """Return the module transformers.

    Args:
        need: what needs it, for the message.

    Raises:
        ImportError: it is not installed.
    """
    return _imported("transformers", need)


def import_peft(need: str = "gradatim.language") -> Any:
    """Return the module peft.

    Args:
        need: what needs it, for the message.

    Raises:
        ImportError: it is not installed.
    """
    return _imported("peft", need)


def _imported(name: str, need: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(MISSING.format(need=need)) from error


def load_model(name: str | Path) -> tuple[Any, Any]:
    """Return a causal language model in eval mode and its tokenizer, from a folder or by a name of the hub.

    A folder is read as it is, and nothing is downloaded. Weights are read from safetensors only. A tokenizer without a
    padding token gets its end token as one.

    Raises:
        ImportError: transformers is not installed.
        ValueError: the folder has no model, its tokenizer has neither padding nor end token, or the name is unknown.
    """
    transformers = import_transformers()
    options: dict[str, Any] = {"local_files_only": True} if Path(name).is_dir() else {}
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(str(name), use_safetensors=True, **options)
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(name), **options)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{name} holds no language model that can be read: give a folder with config.json, model.safetensors and "
            f"tokenizer.json, or a name of the hub ({str(error).splitlines()[0]})"
        ) from error
    return model.eval(), with_padding(tokenizer)


def with_padding(tokenizer: Any) -> Any:
    """Return a tokenizer that has a padding token: its own, or its end token.

    Raises:
        ValueError: it has neither.
    """
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise ValueError(
                "the tokenizer has neither a padding nor an end token: set tokenizer.pad_token to a token of its own"
            )
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
