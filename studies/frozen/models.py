"""The language models of the study: stories260k from $GRADATIM_DATA, or a tiny random model made of a config.

Source: karpathy/tinyllamas (stories260k, 260,032 parameters).
"""

from __future__ import annotations

import os
import string
from pathlib import Path
from typing import Any

import torch

from gradatim.language.models import import_transformers, load_model


def stories() -> tuple[Any, Any]:
    """Return stories260k and its tokenizer.

    Raises:
        ValueError: $GRADATIM_DATA is not set.
    """
    root = os.environ.get("GRADATIM_DATA")
    if root is None:
        raise ValueError(
            "the language model lies below $GRADATIM_DATA/weights: set GRADATIM_DATA, or run with --smoke"
        )
    return load_model(Path(root) / "weights" / "stories260k")


def tiny(seed: int = 0) -> tuple[Any, Any]:
    """Return a random Llama of two layers and 16 numbers a token, and a tokenizer of single characters."""
    transformers = import_transformers()
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    special = ["<s>", "</s>", "<unk>"]
    characters = [*special, *string.printable]
    backend = Tokenizer(
        models.WordLevel({token: place for place, token in enumerate(characters)}, unk_token="<unk>")
    )
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.decoder = decoders.Fuse()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )
    config = transformers.LlamaConfig(
        vocab_size=len(characters),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return transformers.LlamaForCausalLM(config).eval(), tokenizer
