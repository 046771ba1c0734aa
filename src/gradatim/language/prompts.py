"""Soft prompts, prefixes and examples before the text of a frozen causal language model, read by its next token.

Source: Lester et al. 2021 (prompt tuning); Li, Liang 2021 (prefixes); Hu et al. 2022 (LoRA), by peft; Brown et al.
2020 (examples in the prompt).
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .models import import_peft, import_transformers, with_padding

RANK = 4
"""Of a low-rank change where none is asked for."""


class LanguageAdapter:
    """A frozen causal language model: what stands before the text is learnt or fixed.

    Args:
        model: of transformers, with logits of tokens.
        tokenizer: its tokenizer.
        location: `input` (examples in the prompt, fixed), `embedding` or `hidden`.
        operator: `concatenative` (examples, soft tokens, a prefix), `additive` (one vector for all tokens) or
            `parametric` (a low-rank change of every linear layer).
        tokens: soft tokens, tokens of the prefix, or examples.
        rank: of a low-rank change; 0 is `RANK`.
        ask: what stands after each text, before the answer.
        max_tokens: longer texts are cut to so many tokens. None: longer ones are refused.
        seed: of where the delta starts, and of the choice of examples.

    Raises:
        ImportError: transformers or peft is not installed.
        ValueError: a tokenizer with neither padding nor end token.
    """

    kind, centred = "language", True

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        location: str,
        operator: str,
        tokens: int = 8,
        rank: int = 0,
        ask: str = "",
        max_tokens: int | None = None,
        seed: int = 0,
    ) -> None:
        import_transformers("reprogramming a language model")
        self.tokenizer, self.base = with_padding(tokenizer), model
        self.location, self.operator, self.tokens = location, operator, tokens
        self.ask, self.max_tokens, self.seed = ask, max_tokens, seed
        self.n_outputs = model.get_input_embeddings().num_embeddings
        self.n_features = model.config.get_text_config().hidden_size
        self.context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self.kept: dict[str, Tensor] = {}
        self.delta: dict[str, Tensor] = {}
        self.model = model
        if location != "input":
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self._wrap(rank or RANK)

    def _wrap(self, rank: int) -> None:
        """Make what is learnt, around a copy of the model's structure that shares its weights."""
        shared = copy.deepcopy(self.base, {id(p): p for p in (*self.base.parameters(), *self.base.buffers())})
        embedding = shared.get_input_embeddings()
        if self.operator == "additive":
            self.delta["shift"] = torch.zeros_like(embedding.weight[0]).requires_grad_()
            embedding.register_forward_hook(lambda m, given, out: out + self.delta["shift"])
            self.model = shared
            return
        peft = import_peft("reprogramming a language model")
        if self.operator == "parametric":
            config = peft.LoraConfig(
                r=rank, target_modules="all-linear", lora_dropout=0.0, task_type="CAUSAL_LM"
            )
        else:
            soft = peft.PromptTuningConfig if self.location == "embedding" else peft.PrefixTuningConfig
            config = soft(task_type="CAUSAL_LM", num_virtual_tokens=self.tokens)
        flags = [(part, part.requires_grad) for part in self.base.parameters()]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.model = peft.get_peft_model(shared, config)
        if self.location == "embedding":
            known = torch.tensor(ordinary(self.tokenizer, self.n_outputs))
            chosen = known[torch.randint(len(known), (self.tokens,))]
            with torch.no_grad():
                self.model.prompt_encoder["default"].embedding.weight.copy_(embedding.weight[chosen])
        self.delta = {name: part for name, part in self.model.named_parameters() if part.requires_grad}
        for part, flag in flags:
            part.requires_grad_(flag)

    def show(self, rows: list[list[int]], y: Tensor, answers: Sequence[int]) -> None:
        """Choose the examples of a fixed prompt: as many of each class as there is room for, in a mixed order.

        Args:
            rows: token lists of the texts.
            y: their classes `[N]`.
            answers: the token that says each class.
        """
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(len(rows), generator=generator)
        turn = [order[y[order] == c] for c in range(len(answers))]
        chosen = [int(of[i]) for i in range(self.tokens) for of in turn if i < len(of)][: self.tokens]
        chosen = [chosen[place] for place in torch.randperm(len(chosen), generator=generator).tolist()]
        line = self._tokens("\n")
        start = [self.tokenizer.bos_token_id] if self.tokenizer.bos_token_id is not None else []
        prompt = start + [
            token for row in chosen for token in (*self._body(rows[row]), answers[int(y[row])], *line)
        ]
        self.kept["prompt"] = torch.tensor(prompt, dtype=torch.int64)
        self._check_length(max(map(len, rows)) + len(prompt), "the examples and the longest text")

    def _body(self, tokens: list[int]) -> list[int]:
        """Return a text's tokens without the one that begins a text."""
        begins = tokens[:1] == [self.tokenizer.bos_token_id]
        return tokens[1:] if begins else tokens

    def _tokens(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _check_length(self, length: int, what: str) -> None:
        if self.context is not None and length > self.context:
            raise ValueError(
                f"{what} take {length} tokens, and the model reads {self.context}: give max_tokens= to cut texts, or "
                "fewer tokens"
            )

    def encode(self, X: Any) -> list[list[int]]:
        """Return the tokens of each text, cut where `max_tokens` says so, with the question after it.

        Raises:
            ValueError: no texts, an empty one, or one that is longer than the model reads.
        """
        texts = X.tolist() if isinstance(X, np.ndarray) else list(X) if not isinstance(X, str) else [X]
        for row, text in enumerate(texts):
            if not isinstance(text, str) or not text.strip():
                raise ValueError(f"X must be texts; row {row} is {str(text)!r:.40}: drop or fill it")
        if not texts:
            raise ValueError("X must hold at least one text; got none")
        ask = self._tokens(self.ask) if self.ask else []
        beside = self.tokens if self.operator == "concatenative" and self.location != "input" else 0
        prompt = len(self.kept.get("prompt", ()))
        found = []
        for row, tokens in enumerate(self.tokenizer(texts)["input_ids"]):
            if tokens and tokens[-1] == self.tokenizer.eos_token_id:
                tokens = tokens[:-1]
            cut = tokens[: self.max_tokens] + ask
            self._check_length(len(cut) + beside + prompt, f"text {row} and what stands before it")
            found.append(cut)
        return found

    def check(self, rows: list[list[int]]) -> None:
        """Texts of any length are read, once they are encoded."""

    def take(self, rows: list[list[int]], index: Tensor) -> list[list[int]]:
        """Return some texts."""
        return [rows[place] for place in index.tolist()]

    def outputs(self, rows: list[list[int]], without: Tensor | None = None) -> Tensor:
        """Return logits of the next token `[n, V]`."""
        return self._read(rows, self.model, hidden=False)

    def features(self, rows: list[list[int]], without: Tensor | None = None) -> Tensor:
        """Return the last hidden state at the last token `[n, F]`."""
        return self._read(rows, self.model, hidden=True)

    def plain(self, rows: list[list[int]]) -> Tensor:
        """Return the mean of the frozen model's last hidden states over the text `[n, F]`, for a linear probe."""
        ids, mask = self._padded(rows)
        out = self.base(input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False)
        weight = mask[..., None].to(out.hidden_states[-1])
        return (out.hidden_states[-1] * weight).sum(1) / weight.sum(1)

    def _padded(self, rows: list[list[int]]) -> tuple[Tensor, Tensor]:
        """Return tokens and their mask `[n, L]`; padding comes last, where no token of a text sees it."""
        if "prompt" in self.kept:
            prompt = self.kept["prompt"].tolist()
            rows = [prompt + self._body(row) for row in rows]
        longest = max(map(len, rows))
        device = self.base.get_input_embeddings().weight.device
        ids = torch.full((len(rows), longest), self.tokenizer.pad_token_id, device=device)
        mask = torch.zeros_like(ids)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = torch.tensor(row, device=device)
            mask[place, : len(row)] = 1
        return ids, mask

    def _read(self, rows: list[list[int]], model: Any, hidden: bool) -> Tensor:
        ids, mask = self._padded(rows)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            out = model(input_ids=ids, attention_mask=mask, output_hidden_states=hidden, use_cache=None)
        read = out.hidden_states[-1] if hidden else out.logits
        last = read.shape[1] - ids.shape[1] + mask.sum(1) - 1  # soft tokens stand before the text
        return read[torch.arange(len(ids), device=ids.device), last]


def ordinary(tokenizer: Any, n_outputs: int) -> list[int]:
    """Return the tokens that are letters, in their order; where there are none, all that are not special."""
    special = set(tokenizer.all_special_ids)
    plain = [token for token in range(min(n_outputs, len(tokenizer))) if token not in special]
    words = tokenizer.convert_ids_to_tokens(plain)
    letters = [token for token, word in zip(plain, words, strict=True) if word.strip("▁Ġ ").isalpha()]
    return letters or plain


def answer_token(tokenizer: Any, word: Any) -> int:
    """Return the one token of a word, or a token that is given by its number.

    Raises:
        ValueError: several tokens, or none.
    """
    if isinstance(word, int | np.integer) and not isinstance(word, bool):
        if not 0 <= word < len(tokenizer):
            raise ValueError(f"labels are tokens below {len(tokenizer)}; got {word}")
        return int(word)
    if not isinstance(word, str):
        raise ValueError(f"labels are words, or tokens by number; got {word!r}")
    for text in (word, f" {word}"):
        tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(tokens) == 1 and tokens[0] != tokenizer.unk_token_id:
            return tokens[0]
    raise ValueError(
        f"a label is one token; {word!r} is {len(tokens)} or an unknown one: choose a shorter word, or give the "
        "number of a token"
    )


def random_model(model: Any, seed: int) -> Any:
    """Return a model of the same configuration whose weights are drawn anew."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return type(model)(copy.deepcopy(model.config)).to(next(model.parameters())).eval()
