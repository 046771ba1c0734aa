"""Sequences of tokens that a language model continues a prompt by: which there are, draws, and their log-probabilities.

Source: Hu, Jain, Elmoznino et al. 2024 (arXiv 2310.04363), section 3.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .models import import_transformers

Texts = Sequence[str | Sequence[int]] | np.ndarray
"""Texts, or ids of each text, in a list or an array."""


@dataclass(frozen=True)
class SequenceSpace:
    """Which sequences there are: up to `max_tokens` tokens, ended by a stop token.

    Fields:
        `max_tokens`: after so many tokens a sequence stops in any case.
        `stop`: the token that ends a sequence, an id or a text that is one token, such as `"."`. None: the end token.
        `allowed`: ids that a sequence may hold. None: all but the stop token.

    Raises:
        ValueError: max_tokens below 1, no allowed id.

    Example:
        >>> from gradatim.language import SequenceSpace
        >>> SequenceSpace(max_tokens=4, stop=".").max_tokens
        4
    """

    max_tokens: int = 16
    stop: int | str | None = None
    allowed: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ValueError(f"a sequence may have at least one token; got max_tokens = {self.max_tokens}")
        if self.allowed is not None and not self.allowed:
            raise ValueError("allowed names no token: leave it None for all tokens")

    def stop_id(self, tokenizer: Any) -> int:
        """Return the id of the stop token.

        Raises:
            ValueError: the tokenizer has no end token and no other was chosen; a text that is not one token.
        """
        if self.stop is None:
            if tokenizer.eos_token_id is None:
                raise ValueError(
                    "the tokenizer has no end token, so no sequence would end: choose one, such as "
                    'SequenceSpace(stop=".")'
                )
            return int(tokenizer.eos_token_id)
        if not isinstance(self.stop, str):
            return int(self.stop)
        plain = tokenizer.convert_tokens_to_ids(self.stop)
        if plain is not None and plain != tokenizer.unk_token_id:
            return int(plain)
        ids = tokenizer(self.stop, add_special_tokens=False).input_ids
        if len(ids) != 1:
            raise ValueError(
                f"stop must be one token; the tokenizer cuts {self.stop!r} into {len(ids)}: give an id"
            )
        return int(ids[0])


class Sequences(NamedTuple):
    """Continuations of one prompt.

    Attributes:
        tokens: `[B, L]` int64, filled up by the stop token.
        lengths: tokens before the stop token, `[B]` int64.
        prompt: the place of their prompt among the prompts.
    """

    tokens: Tensor
    lengths: Tensor
    prompt: int = 0

    def lists(self) -> list[list[int]]:
        """Return the tokens of each sequence, without the stop token."""
        return [row[:n] for row, n in zip(self.tokens.tolist(), self.lengths.tolist(), strict=True)]


def as_sequences(rows: Sequence[Sequence[int]], stop: int, prompt: int = 0) -> Sequences:
    """Return lists of ids as `Sequences`, filled up by the stop token.

    Example:
        >>> from gradatim.language.sequences import as_sequences
        >>> as_sequences([[5], [6, 7]], stop=1).tokens
        tensor([[5, 1],
                [6, 7]])
    """
    longest = max([1, *map(len, rows)])
    tokens = torch.tensor([[*row, *[stop] * (longest - len(row))] for row in rows], dtype=torch.int64)
    return Sequences(tokens, torch.tensor([len(row) for row in rows], dtype=torch.int64), prompt)


def encode(tokenizer: Any, text: str | Sequence[int], special: bool = True) -> list[int]:
    """Return the ids of a text, with the tokenizer's first token where `special`; ids are returned as they are."""
    if not isinstance(text, str):
        return [int(token) for token in text]
    ids = list(tokenizer(text, add_special_tokens=special).input_ids)
    return ids[:-1] if special and len(ids) > 1 and ids[-1] == tokenizer.eos_token_id else ids


def encode_after(tokenizer: Any, before: str, text: str | Sequence[int], name: str) -> list[int]:
    """Return the ids that a text has where it follows another; ids are returned as they are.

    A tokenizer may begin a text with a space of its own, so the ids of the text alone can be those of another text.

    Raises:
        ValueError: a token spans both; `name` says which text it is.
    """
    if not isinstance(text, str):
        return encode(tokenizer, text)
    first, both = encode(tokenizer, before, special=False), encode(tokenizer, before + text, special=False)
    if both[: len(first)] != first:
        raise ValueError(
            f"{name} can not be told apart from what stands before it: a token of {(before + text)[-40:]!r} spans "
            "both; begin it with a space, or give ids"
        )
    return both[len(first) :]


def listed(given: Any, wanted: str) -> list[Any]:
    """Return texts, or lists of ids, as a list.

    Raises:
        ValueError: there is none, one text alone, or entries that are neither; `wanted` says what is expected.
    """
    rows = [given] if isinstance(given, str) else given.tolist() if hasattr(given, "tolist") else list(given)
    if isinstance(given, str) or not isinstance(rows, list) or not rows:
        raise ValueError(f"{wanted}; got none, or one text alone: put it in a list")
    wrong = [row for row in rows if not isinstance(row, Iterable)]
    if wrong:
        raise ValueError(
            f"{wanted}, or lists of ids; got {wrong[0]!r:.40}: put the ids of one text in a list"
        )
    return rows


class Reader:
    """A model's logits after a prompt, over the tokens of a space alone.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer.
        space: which sequences there are.

    Raises:
        ValueError: no stop token; a stop token or allowed ids that the model does not have.
    """

    def __init__(self, model: Any, tokenizer: Any, space: SequenceSpace) -> None:
        self.model, self.space, self.stop = model, space, space.stop_id(tokenizer)
        size = int(model.config.vocab_size)
        if not 0 <= self.stop < size:
            raise ValueError(
                f"stop is {space.stop!r}, token {self.stop}, which a model of {size} tokens does not have: its ids "
                f"are 0 to {size - 1}"
            )
        self.banned = torch.zeros(size, dtype=torch.bool)
        if space.allowed is not None:
            outside = [token for token in space.allowed if not 0 <= token < size]
            if outside:
                raise ValueError(
                    f"allowed has ids that a model of {size} tokens does not have: {outside[:5]}"
                )
            self.banned[:] = True
            self.banned[list(space.allowed)] = False
        self.banned[self.stop] = False

    @property
    def device(self) -> torch.device:
        """Return where the model lies."""
        return next(self.model.parameters()).device

    def check_prompt(self, ids: Sequence[int], name: str, more: int = 0) -> None:
        """Raise ValueError where a prompt is empty, has ids that the model lacks, or is too long with what follows."""
        context = getattr(self.model.config, "max_position_embeddings", None)
        if not ids:
            raise ValueError(f"{name} has no token: give a text, or the id of the first token")
        outside = [token for token in ids if not 0 <= token < len(self.banned)]
        if outside:
            raise ValueError(
                f"{name} has ids that a model of {len(self.banned)} tokens does not have: {outside[:5]}"
            )
        if context is not None and len(ids) + self.space.max_tokens + more > context:
            raise ValueError(
                f"{name} has {len(ids)} tokens and what follows up to {self.space.max_tokens + more}, more than the "
                f"{context} that the model reads: shorten it, or lower max_tokens"
            )

    def log_softmax(self, logits: Tensor) -> Tensor:
        """Return log-probabilities over the tokens of the space."""
        return logits.float().masked_fill(self.banned.to(logits.device), -torch.inf).log_softmax(-1)

    @torch.no_grad()
    def draw(
        self,
        prompt: Sequence[int],
        n: int,
        generator: torch.Generator,
        temperature: float = 1.0,
        place: int = 0,
    ) -> Sequences:
        """Return n continuations of a prompt drawn with a CPU generator, at a temperature of the tokens."""
        ids = torch.tensor([list(prompt)], device=self.device)
        cache = import_transformers().DynamicCache(config=self.model.config)
        kept = {_cache_name(self.model): cache, "use_cache": True}
        logits = self.model(ids, **kept).logits[:, -1].expand(n, -1)
        cache.batch_repeat_interleave(n)
        drawn: list[Tensor] = []
        active = torch.ones(n, dtype=torch.bool)
        for step in range(self.space.max_tokens):
            chances = (self.log_softmax(logits) / temperature).softmax(-1).cpu()
            token = torch.multinomial(chances, 1, generator=generator)[:, 0]
            token = torch.where(active, token, self.stop)
            active &= token != self.stop
            drawn.append(token)
            if step + 1 == self.space.max_tokens or not bool(active.any()):
                break
            logits = self.model(token[:, None].to(self.device), **kept).logits[:, -1]
        tokens = torch.stack(drawn, dim=1)
        return Sequences(tokens, (tokens != self.stop).sum(1), place)

    def log_probabilities(self, prompt: Sequence[int], sequences: Sequences) -> tuple[Tensor, Tensor]:
        """Return log q of each token `[B, L]` and of the stop token after each prefix `[B, L + 1]`, from one pass."""
        tokens = sequences.tokens.to(self.device)
        ids = torch.cat([torch.tensor([list(prompt)], device=self.device).expand(len(tokens), -1), tokens], 1)
        log = self.log_softmax(self.model(ids, use_cache=False).logits[:, len(prompt) - 1 :])
        log_q = log[:, :-1].gather(2, tokens[..., None])[..., 0]
        last = torch.arange(log.shape[1], device=log.device) == self.space.max_tokens
        return log_q, log[..., self.stop].masked_fill(last, 0)

    def log_sequences(self, prompt: Sequence[int], sequences: Sequences) -> Tensor:
        """Return the log-probability of each whole sequence and its stop, `[B]`."""
        return whole(*self.log_probabilities(prompt, sequences), sequences.lengths)


def _cache_name(model: Any) -> str:
    """Return what this version of transformers calls the argument that keeps what was read."""
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    return "cache" if "cache" in inspect.signature(base.forward).parameters else "past_key_values"


def prefixes(log_q: Tensor, log_stop: Tensor) -> Tensor:
    """Return log q(z_1:i stop) of stopping after each prefix, `[B, L + 1]`, of `[B, L]` and `[B, L + 1]`."""
    begun = torch.cat([log_q.new_zeros(len(log_q), 1), log_q.cumsum(1)], dim=1)
    return begun + log_stop


def whole(log_q: Tensor, log_stop: Tensor, lengths: Tensor) -> Tensor:
    """Return log q(z stop) of sequences of these lengths, `[B]`, of `[B, L]` and `[B, L + 1]`."""
    return prefixes(log_q, log_stop).gather(1, lengths.to(log_q.device)[:, None])[:, 0]


def sample(
    model: Any,
    tokenizer: Any,
    prompt: str | Sequence[int],
    n: int,
    space: SequenceSpace | None = None,
    temperature: float = 1.0,
    seed: int = 0,
) -> list[str]:
    """Return n texts, of length n, that a model continues a prompt by, without their stop token.

    Args:
        model: a causal language model, tuned or not.
        tokenizer: its tokenizer.
        prompt: a text, or ids.
        n: how many are drawn.
        space: which sequences there are; that of tuning.
        temperature: of the tokens; below 1 likely ones are likelier still.
        seed: of the draws.

    Raises:
        ValueError: n below 1, a temperature that is not positive, a tokenizer without an end token, a prompt that is
            empty or too long.

    Example:
        >>> from gradatim.language import SequenceSpace, load_model, sample
        >>> model, tokenizer = load_model("stories260k")  # doctest: +SKIP
        >>> sample(model, tokenizer, "a girl named", 3, SequenceSpace(4, stop="."))  # doctest: +SKIP
        ['Lily', 'Lily', 'Mia']
    """
    if n < 1:
        raise ValueError(f"at least one sequence is drawn; got n = {n}")
    if not temperature > 0:
        raise ValueError(f"a temperature is above 0; got {temperature}")
    reader = Reader(model, tokenizer, space or SequenceSpace())
    ids = encode(tokenizer, prompt)
    reader.check_prompt(ids, "the prompt")
    drawn = reader.draw(ids, n, torch.Generator().manual_seed(seed), temperature)
    return [tokenizer.decode(row) for row in drawn.lists()]
