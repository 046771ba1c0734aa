"""Rewards of all prefixes of sequences: of a language model itself, or of a function of the finished text.

Source: Hu, Jain, Elmoznino et al. 2024 (arXiv 2310.04363), section 3.2 and table 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .sequences import Reader, Sequences, SequenceSpace, Texts, encode, encode_after, listed, prefixes

KEPT = 500_000
"""Rewards of prefixes that are kept, since the frozen model says the same of them every time."""


class PosteriorReward:
    """The posterior of a language model over z between a start and an ending: log p(z stop | X) + log p(Y | X z).

    The first part is read from one pass of the model for all prefixes. The second needs a pass for each new prefix;
    what was said of a prefix is kept. A stop token other than the end token is part of the text: Y follows it. Y has
    the tokens that it has after X and that stop token, not those of a text of its own.

    Args:
        model: the model whose posterior it is. While it is tuned, its adapter is off here.
        tokenizer: its tokenizer.
        starts: X of each prompt, texts or ids.
        endings: Y of each prompt. None: the reward is log p(z stop | X) alone.
        space: which sequences there are; that of tuning.
        batch_size: prefixes of a pass.

    Attributes:
        calls: sequences that have been scored with an ending.

    Raises:
        ValueError: no start; starts and endings that are not as many; an ending of which a token reaches into what
            stands before it; texts longer than the model reads; when called, sequences of another space or prompt.

    Example:
        >>> from gradatim.language import PosteriorReward, SequenceSpace, load_model, tune_sampler
        >>> model, tokenizer = load_model("stories260k")  # doctest: +SKIP
        >>> starts, space = ["a girl named"], SequenceSpace(4, stop=".")
        >>> reward = PosteriorReward(model, tokenizer, starts, [" She had a cat."], space)  # doctest: +SKIP
        >>> tuned = tune_sampler(model, tokenizer, reward, starts, space=space)  # doctest: +SKIP

    Source: Hu et al. 2024, table 1 (infilling, chains of thought).
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        starts: Texts,
        endings: Texts | None = None,
        space: SequenceSpace | None = None,
        batch_size: int = 256,
    ) -> None:
        space = space or SequenceSpace()
        # z is scored among all tokens, and its stop token at every length
        self._reader = Reader(model, tokenizer, SequenceSpace(space.max_tokens + 1, space.stop))
        self._longest = space.max_tokens
        self._batch_size, self.calls = batch_size, 0
        self._kept: dict[tuple[int, ...], float] = {}
        starts = listed(starts, "starts is a list of texts, one for each prompt")
        self._starts = [encode(tokenizer, start) for start in starts]
        self._endings = None
        if endings is not None:
            self._endings = self._encoded(tokenizer, starts, endings)
        for place, start in enumerate(self._starts):
            self._reader.check_prompt(
                start, f"start {place}", len(self._endings[place]) if self._endings else 0
            )

    def _encoded(self, tokenizer: Any, starts: list[Any], endings: Any) -> list[list[int]]:
        """Return the ids of endings where they stand, each after the stop token if that is part of the text.

        Raises:
            ValueError: there are not as many as starts, one has no token, or a token spans it and what is before.
        """
        endings = listed(endings, f"each of {len(starts)} starts needs its ending")
        if len(endings) != len(starts):
            raise ValueError(f"each of {len(starts)} starts needs its ending; got {len(endings)} endings")
        inside = [] if self._reader.stop == tokenizer.eos_token_id else [self._reader.stop]
        self._in_text, found = len(inside), []
        for place, (start, ending) in enumerate(zip(starts, endings, strict=True)):
            ids = None if isinstance(start, str) else self._starts[place]
            before = start if ids is None else tokenizer.decode(ids, skip_special_tokens=True)
            ids = encode_after(tokenizer, before + tokenizer.decode(inside), ending, f"ending {place}")
            if not ids:
                raise ValueError("an ending has no token: give endings=None for the model's own sequences")
            found.append(inside + ids)
        return found

    def check_fits(self, stop: int, max_tokens: int, prompts: int) -> None:
        """Raise ValueError where sequences of that stop token, length and number of prompts are not those here."""
        if (stop, max_tokens) != (self._reader.stop, self._longest):
            raise ValueError(
                f"the reward is of sequences of up to {self._longest} tokens that end with token {self._reader.stop}; "
                f"the sampler draws up to {max_tokens} that end with token {stop}: give both the same space"
            )
        if prompts > len(self._starts):
            raise ValueError(
                f"the reward has {len(self._starts)} starts and the sampler {prompts} prompts: give a start for each"
            )

    def _check(self, sequences: Sequences) -> None:
        """Raise ValueError where sequences are of a prompt or a space that the reward does not know."""
        if not 0 <= sequences.prompt < len(self._starts):
            raise ValueError(
                f"the reward has {len(self._starts)} starts, 0 to {len(self._starts) - 1}; got sequences of prompt "
                f"{sequences.prompt}: give a start for each prompt"
            )
        tokens, length = sequences.tokens, sequences.lengths
        ended = torch.arange(tokens.shape[1], device=tokens.device) >= length[:, None].to(tokens.device)
        if int(length.max()) > self._longest or not bool(((tokens == self._reader.stop) == ended).all()):
            raise ValueError(
                f"the reward is of sequences of up to {self._longest} tokens that end with token {self._reader.stop}; "
                "got longer ones, or ones that end otherwise: give the reward the space of the sampler"
            )

    @torch.no_grad()
    def __call__(self, sequences: Sequences) -> Tensor:
        """Return log R of stopping after each prefix, `[B, L + 1]`."""
        self._check(sequences)
        start = self._starts[sequences.prompt]
        reward = prefixes(*self._reader.log_probabilities(start, sequences))
        if self._endings is None:
            return reward
        rows = sequences.lists()
        wanted = {tuple(row[:n]) for row in rows for n in range(len(row) + 1)}
        self._score(sequences.prompt, [z for z in wanted if (sequences.prompt, *z) not in self._kept])
        said = torch.zeros_like(reward, device="cpu")
        for place, row in enumerate(rows):
            for n in range(len(row) + 1):
                said[place, n] = self._kept[(sequences.prompt, *row[:n])]
        return reward + said.to(reward)

    def finished(self, sequences: Sequences) -> Tensor:
        """Return log R of whole sequences `[B]`, without that of their prefixes: one call for each."""
        self._check(sequences)
        with torch.no_grad():
            start = self._starts[sequences.prompt]
            reward = self._reader.log_sequences(start, sequences)
            if self._endings is None:
                return reward
            keys = [(sequences.prompt, *row) for row in sequences.lists()]
            self._score(sequences.prompt, [key[1:] for key in {*keys} if key not in self._kept])
            return reward + torch.tensor([self._kept[key] for key in keys]).to(reward)

    @torch.no_grad()
    def _score(self, prompt: int, wanted: list[tuple[int, ...]]) -> None:
        """Keep log p(Y | X z) of each z."""
        if len(self._kept) + len(wanted) > KEPT:
            self._kept.clear()
        start, ending = self._starts[prompt], self._endings[prompt] if self._endings else []
        self.calls += len(wanted)
        wanted = sorted(wanted, key=len)  # those of a pass are about as long
        for first in range(0, len(wanted), self._batch_size):
            part = wanted[first : first + self._batch_size]
            texts = [[*start, *z, *ending] for z in part]
            longest = max(map(len, texts))
            # what stands to the right of a text changes nothing of it
            ids = torch.tensor(
                [text + [0] * (longest - len(text)) for text in texts], device=self._reader.device
            )
            log = self._reader.model(ids[:, :-1], use_cache=False).logits[:, len(start) - 1 :].float()
            log = log.log_softmax(-1).gather(2, ids[:, len(start) :, None])[..., 0]
            place = torch.arange(log.shape[1], device=log.device)
            length = torch.tensor([len(z) for z in part], device=log.device)[:, None]
            inside = (place >= length + self._in_text) & (place < length + len(ending))
            total = (log.double() * inside).sum(1)
            self._kept |= {(prompt, *z): value for z, value in zip(part, total.tolist(), strict=True)}


class TextReward:
    """The reward of a finished text: a function of it, asked for every prefix once.

    Args:
        tokenizer: of the model that is tuned.
        function: takes the text of z without its stop token, and returns log R; minus infinity for what must not be.

    Example:
        >>> from gradatim.language import TextReward, load_model
        >>> _, tokenizer = load_model("stories260k")  # doctest: +SKIP
        >>> reward = TextReward(tokenizer, lambda text: 0.0 if text.isdigit() else -8.0)  # doctest: +SKIP
    """

    def __init__(self, tokenizer: Any, function: Callable[[str], float]) -> None:
        self._tokenizer, self._function = tokenizer, function
        self._kept: dict[tuple[int, ...], float] = {}

    def __call__(self, sequences: Sequences) -> Tensor:
        """Return log R of stopping after each prefix, `[B, L + 1]`; 0 behind the end of a sequence."""
        reward = torch.zeros(len(sequences.tokens), sequences.tokens.shape[1] + 1)
        for place, row in enumerate(sequences.lists()):
            for n in range(len(row) + 1):
                reward[place, n] = self._said(tuple(row[:n]))
        return reward

    def _said(self, z: tuple[int, ...]) -> float:
        if z not in self._kept:
            if len(self._kept) >= KEPT:
                self._kept.clear()
            self._kept[z] = float(self._function(self._tokenizer.decode(list(z))))
        return self._kept[z]
