"""The problems of the study: numbers, names whose posterior is enumerated, and a middle sentence to be filled in.

Source: Hu et al. 2024, sections 2, 4.1 and 4.2, at the size of a model of 260,032 parameters; the texts are ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradatim.language.models import import_transformers
from gradatim.language.rewards import PosteriorReward, TextReward
from gradatim.language.sampling import Reward
from gradatim.language.sequences import Reader, Sequences, SequenceSpace, as_sequences, encode

from .models import stories, tiny
from .sampler_peers import CHUNK, finished, scored

INVALID = -8.0
"""log R of each symbol of a text that is no number from 0 to 99: long texts are many."""

GIRL = "Once upon a time, there was a girl named"
ENDINGS = {"validation": " She liked to play with Mia.", "test": " He was a big dog."}
RARE = 1e-6
"""Beginnings of names that are rarer are left out of the enumeration."""

STORIES = {
    "validation": (
        ("Tom had a red ball.", " He was very sad."),
        ("Lily saw a cat in a tree.", " The cat was happy."),
        ("It was a hot day.", " The water was cold."),
    ),
    "test": (
        ("Tim went to the park with his mom.", " He was happy to have a new friend."),
        ("Sue had a big box.", " She gave it to her mom."),
        ("One day, a dog was very hungry.", " Then the dog was full and happy."),
        ("Mia and Ben played in the garden.", " They were wet and cold."),
    ),
    "unseen": (
        ("Lucy found a little bird.", " The bird flew away."),
        ("Max wanted to eat a cake.", " His mom was not happy."),
    ),
}
"""A first and a last sentence; the middle one is sought."""


@dataclass(frozen=True)
class Problem:
    """What is sampled: a frozen model, its sequences, prompts and rewards."""

    model: Any
    tokenizer: Any
    space: SequenceSpace
    prompts: list[Any]
    log_reward: Reward

    def reader(self, model: Any = None) -> Reader:
        """Return a reader of the frozen model, or of another."""
        return Reader(self.model if model is None else model, self.tokenizer, self.space)


def language(smoke: bool) -> tuple[Any, Any]:
    """Return stories260k, frozen, or a tiny random model in a smoke run."""
    model, tokenizer = tiny() if smoke else stories()
    return model.requires_grad_(False), tokenizer


# --- numbers


def numbers(seed: int, smoke: bool) -> Problem:
    """Return a small model that says skewed numbers and junk; wanted are numbers 0 to 99, each as often."""
    transformers = import_transformers()
    _, tokenizer = tiny()
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        bos_token_id=0,
        eos_token_id=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.LlamaForCausalLM(config)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(seed)
    space = SequenceSpace(max_tokens=5)
    reader = Reader(model, tokenizer, space)
    for _ in range(5 if smoke else 250):
        batch = as_sequences([encode(tokenizer, text, False) for text in skewed(64, generator)], reader.stop)
        optimizer.zero_grad()
        (-reader.log_sequences([0], batch).mean()).backward()
        optimizer.step()
    model.eval().requires_grad_(False)
    reward = TextReward(tokenizer, lambda text: 0.0 if text in NUMBERS else INVALID * max(1, len(text)))
    return Problem(model, tokenizer, space, [[0]], reward)


NUMBERS = frozenset(map(str, range(100)))


def skewed(n: int, generator: torch.Generator) -> list[str]:
    """Return texts: in four of five cases a number 0 to 99, small ones more often (Benford), else junk of letters."""
    value = (100 ** torch.rand(n, generator=generator)).long() - 1
    junk = torch.rand(n, generator=generator) < 0.2
    size = torch.randint(1, 6, (n,), generator=generator)
    symbols = torch.randint(36, (n, 5), generator=generator).tolist()
    letters = "0123456789abcdefghijklmnopqrstuvwxyz"
    wrong = [
        "".join(letters[s] for s in row[:length]) for row, length in zip(symbols, size.tolist(), strict=True)
    ]
    return [w if bad else str(v) for w, bad, v in zip(wrong, junk.tolist(), value.tolist(), strict=True)]


@torch.no_grad()
def judged_numbers(problem: Problem, model: Any = None, temperature: float = 1.0) -> dict[str, float]:
    """Return exactly how often draws are valid, and the divergence of valid ones from uniform, in nats.

    The temperature is of the tokens.
    """
    reader = problem.reader(model)
    rows = as_sequences([encode(problem.tokenizer, str(v), False) for v in range(100)], reader.stop)
    log_q = tempered(reader, [0], rows, temperature)
    return {"valid": float(log_q.exp().sum()), "kl": divergence(log_q.log_softmax(0), torch.zeros(100))}


def tempered(reader: Reader, prompt: list[int], rows: Sequences, temperature: float) -> Tensor:
    """Return log-probabilities `[B]`, float64, of sequences drawn at a temperature of the tokens."""
    parts = []
    plain = reader.log_softmax
    try:
        if temperature != 1:
            reader.log_softmax = lambda logits: (plain(logits) / temperature).log_softmax(-1)  # type: ignore[method-assign]
        for first in range(0, len(rows.tokens), CHUNK):
            part = Sequences(rows.tokens[first : first + CHUNK], rows.lengths[first : first + CHUNK])
            parts.append(reader.log_sequences(prompt, part).double())
    finally:
        reader.log_softmax = plain  # type: ignore[method-assign]
    return torch.cat(parts)


def divergence(log_q: Tensor, log_p: Tensor) -> float:
    """Return KL(q | p) in nats of two tables of logs `[N]`, each normalised."""
    q, p = log_q.log_softmax(0), log_p.to(log_q).log_softmax(0)
    return float(torch.where(q.exp() > 0, q.exp() * (q - p), 0).sum())


# --- names


@dataclass(frozen=True)
class Names:
    """Names after a prompt, all that are likely, with their log R; `outside`: prior mass of the others."""

    problem: Problem
    rows: Sequences
    log_reward: Tensor
    outside: float

    def judged(self, log_q: Tensor, temperature: float = 1.0) -> dict[str, float]:
        """Return divergences of a table of log q `[N]` from the posterior at a temperature of rewards, both ways.

        Forward counts what is drawn outside the table as lost; reverse is among names of the table.
        """
        log_p = (self.log_reward / temperature).log_softmax(0)
        forward = float((log_p.exp() * (log_p - log_q.clamp(min=-60))).sum())
        return {"kl": divergence(log_q, log_p), "forward": forward, "outside": 1 - float(log_q.exp().sum())}

    def of(self, model: Any = None, temperature: float = 1.0) -> Tensor:
        """Return log q of every name `[N]`."""
        with torch.no_grad():
            return tempered(self.problem.reader(model), self.prompt, self.rows, temperature)

    @property
    def prompt(self) -> list[int]:
        """Return the ids of the prompt."""
        return encode(self.problem.tokenizer, self.problem.prompts[0])


def names(split: str, smoke: bool) -> Names:
    """Return the names of a girl before a sentence that follows, of up to four tokens and a full stop."""
    model, tokenizer = language(smoke)
    space = SequenceSpace(2 if smoke else 4, stop=".")
    reward = PosteriorReward(model, tokenizer, [GIRL], [ENDINGS[split]], space)
    problem = Problem(model, tokenizer, space, [GIRL], reward)
    reader = problem.reader()
    prompt = encode(tokenizer, GIRL)
    found, outside = enumerated(reader, prompt, 1e-2 if smoke else RARE)
    rows = as_sequences(found, reader.stop)
    scores = []
    for first in range(0, len(found), CHUNK):
        part = Sequences(rows.tokens[first : first + CHUNK], rows.lengths[first : first + CHUNK])
        scores.append(finished(reward, part).double())
    return Names(problem, rows, torch.cat(scores), outside)


@torch.no_grad()
def enumerated(reader: Reader, prompt: list[int], rare: float) -> tuple[list[list[int]], float]:
    """Return all sequences whose beginnings are as likely as `rare`, and the mass of those that are not."""
    front, log_p, found, outside = [[]], torch.zeros(1), [], 0.0
    for depth in range(reader.space.max_tokens + 1):
        found += front
        if depth == reader.space.max_tokens:
            break
        longer: list[list[int]] = []
        kept: list[Tensor] = []
        for first in range(0, len(front), CHUNK):
            some = front[first : first + CHUNK]
            logits = reader.model(torch.tensor([prompt + z for z in some])).logits[:, -1]
            log = log_p[first : first + CHUNK, None] + reader.log_softmax(logits)
            log[:, reader.stop] = -torch.inf
            likely = log > math.log(rare)
            outside += float(log[~likely].exp().sum())
            longer += [[*some[row], token] for row, token in likely.nonzero().tolist()]
            kept.append(log[likely])
        front, log_p = longer, torch.cat(kept)
        if not front:
            break
    return found, outside


# --- a middle sentence


def infilling(split: str, smoke: bool) -> Problem:
    """Return stories without their middle sentence. The sampler reads the last sentence, then the first."""
    model, tokenizer = language(smoke)
    space = SequenceSpace(3 if smoke else 12, stop=".")
    texts = STORIES[split][: 1 if smoke else None]
    starts, endings = [start for start, _ in texts], [ending for _, ending in texts]
    reward = PosteriorReward(model, tokenizer, starts, endings, space)
    prompts = [f"{ending.strip()} {start}" for start, ending in texts]
    return Problem(model, tokenizer, space, prompts, reward)


@torch.no_grad()
def bound(
    problem: Problem, model: Any, frozen: Any, n: int, seed: int, temperature: float = 1.0
) -> list[float]:
    """Return E[log R] + H of each prompt from n draws: the log of what R sums to, less the divergence.

    The temperature is of the tokens.
    """
    reader, generator = problem.reader(model), torch.Generator().manual_seed(seed)
    values = []
    for place, prompt in enumerate(problem.prompts):
        ids = encode(problem.tokenizer, prompt)
        drawn = reader.draw(ids, n, generator, temperature, place)
        with frozen():
            reward = finished(problem.log_reward, drawn)
        values.append(float((reward.double() - tempered(reader, ids, drawn, temperature)).mean()))
    return values


def resampled_bound(problem: Problem, starts: list[str], n: int, repeats: int, seed: int) -> list[float]:
    """Return E[log R] + H of one draw resampled of n of p(z | X), at least: the mean log of the mean weight.

    Source: Cremer et al. 2017 (arXiv 1704.02916): the bound of many samples is below that of what is resampled.
    """
    reader, generator = problem.reader(), torch.Generator().manual_seed(seed)
    values = []
    for place, start in enumerate(starts):
        ids = encode(problem.tokenizer, start)
        found = [
            scored(reader, ids, problem.log_reward, n, generator, place)[1].logsumexp(0) - math.log(n)
            for _ in range(repeats)
        ]
        values.append(float(torch.stack(found).mean()))
    return values
