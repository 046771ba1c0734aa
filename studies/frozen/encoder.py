"""A small transformer of ours for sentences: texts, words, masked-word pretraining on what no one is judged on.

Texts of $GRADATIM_DATA/text: sst2, sst5, mr, subj, mpqa, ag_news. The rows that judge or choose on sst2, subj and mpqa
are left out of pretraining, also where another set holds the same sentence.

Source: Devlin et al. 2019 (masked words); Socher et al. 2013 (sst); Pang, Lee 2004, 2005 (subj, mr); Wiebe et al. 2005
(mpqa); Zhang et al. 2015 (ag_news).
"""

from __future__ import annotations

import gzip
import json
import os
import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

PADDING, UNKNOWN, MASK = 0, 1, 2
WORD = re.compile(r"[a-z0-9']+|[^\sa-z0-9']")
TARGETS = ("sst2", "subj", "mpqa")
SETS = (*TARGETS, "sst5", "mr", "ag_news_test")
LENGTH = 24
"""Words of a sentence that are read."""

JUDGED, CHOOSING = 1000, 800
"""Rows of a target that are judged, and rows that settings are chosen on."""

WIDTH, HEADS, LAYERS, HIDDEN = 64, 4, 4, 128
WORDS, STEPS, BATCH, RATE, PRETRAINED_DROPOUT = 5000, 6000, 64, 2e-3, 0.1


@dataclass(frozen=True)
class Rows:
    """Sentences as words `x [n, LENGTH]`, padded behind, and classes `y [n]`."""

    x: Tensor
    y: Tensor

    def __getitem__(self, index: Tensor | slice) -> Rows:
        return Rows(self.x[index], self.y[index])


@dataclass(frozen=True)
class Corpus:
    """Sentences to pretrain on, `x [n, LENGTH]`, and of each target its rows to learn from, to choose on, to judge."""

    words: int
    x: Tensor
    targets: dict[str, dict[str, Rows]]


class Embedding(nn.Module):
    """Words and their places, then dropout."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.word = nn.Embedding(words, WIDTH, padding_idx=PADDING)
        self.place = nn.Embedding(LENGTH, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.dropout = nn.Dropout(PRETRAINED_DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        places = torch.arange(x.shape[1], device=x.device)
        return self.dropout(self.norm(self.word(x) + self.place(places)))


class Attention(nn.Module):
    """What a word takes from the others, then dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.inward, self.outward = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.dropout = nn.Dropout(PRETRAINED_DROPOUT)

    def forward(self, h: Tensor, there: Tensor) -> Tensor:
        q, k, v = self.inward(self.norm(h)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        mixed = scaled_dot_product_attention(q, k, v, there[:, None, None])
        return self.dropout(self.outward(mixed.transpose(1, 2).flatten(2)))


class FeedForward(nn.Module):
    """Two layers for each word by itself, then dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)
        self.dropout = nn.Dropout(PRETRAINED_DROPOUT)

    def forward(self, h: Tensor) -> Tensor:
        return self.dropout(self.down(torch.relu(self.up(self.norm(h)))))


class Encoder(nn.Module):
    """A transformer of nine sites of dropout: after the embedding, and in each layer after both of its blocks."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.embedding = Embedding(words)
        self.layers = nn.ModuleList(
            nn.ModuleDict({"attention": Attention(), "feedforward": FeedForward()}) for _ in range(LAYERS)
        )
        self.norm = nn.LayerNorm(WIDTH)
        nn.init.normal_(self.embedding.word.weight, std=0.1)
        nn.init.normal_(self.embedding.place.weight, std=0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Return hidden states `[B, T, WIDTH]` of words `[B, T]`."""
        h, there = self.embedding(x), x != PADDING
        for layer in self.layers:
            h = h + layer["attention"](h, there)  # type: ignore[index]
            h = h + layer["feedforward"](h)  # type: ignore[index]
        return self.norm(h)

    def words(self, h: Tensor) -> Tensor:
        """Return scores of all words `[..., words]` of hidden states, by the embedding itself."""
        return h @ self.embedding.word.weight.T


def split(text: str) -> list[str]:
    """Return the words of a text, cut after the first LENGTH."""
    return WORD.findall(text.lower())[:LENGTH]


def read(name: str) -> list[tuple[str, int, tuple[str, ...]]]:
    """Return the part, class and words of each sentence of a set, each sentence once."""
    path = Path(os.environ["GRADATIM_DATA"]) / "text" / f"{name}.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    rows: dict[tuple[str, ...], tuple[str, int, tuple[str, ...]]] = {}
    for row in lines[1:]:
        words = tuple(split(row["text"]))
        if words:
            rows.setdefault(words, (row["split"], row["label"], words))
    return list(rows.values())


@lru_cache
def made() -> Corpus:
    """Return a corpus of made sentences, for a smoke run: the class is which of two groups of words is there more."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 600)
    groups = rng.random((600, 8)) < np.where(y, 0.7, 0.3)[:, None]
    x = np.pad(3 + rng.integers(0, 20, (600, 8)) + 20 * groups, ((0, 0), (0, LENGTH - 8)))
    rows = Rows(torch.from_numpy(x), torch.from_numpy(y))
    parts = {"learn": rows[:300], "choose": rows[300:400], "judge": rows[400:]}
    return Corpus(43, rows.x[:400], {name: parts for name in TARGETS})


@lru_cache
def corpus() -> Corpus:
    """Return the sentences of all sets; those that choose and judge are in no other part."""
    targets, apart = {}, set()
    for name in TARGETS:
        rows = read(name)
        order = np.random.default_rng(0).permutation(len(rows))
        fixed = {part: [i for i in order if rows[i][0] == part] for part in ("test", "val", "train")}
        parts = list(fixed.values())
        if not fixed["test"]:
            parts = np.split(order, [JUDGED, JUDGED + CHOOSING])
        judge, choose = parts[0][:JUDGED], parts[1][:CHOOSING]
        targets[name] = {"judge": judge, "choose": choose, "learn": parts[2]}
        targets[name] = {part: [rows[i] for i in chosen] for part, chosen in targets[name].items()}
        apart |= {rows[i][2] for i in (*parts[0], *parts[1])}
    learnt = dict.fromkeys(words for name in SETS for *_, words in read(name) if words not in apart)
    counts = Counter(word for words in learnt for word in words)
    index = {word: place for place, (word, _) in enumerate(counts.most_common(WORDS - 3), 3)}
    return Corpus(
        WORDS,
        numbered(list(learnt), index),
        {
            name: {
                part: Rows(numbered([r[2] for r in rows], index), torch.tensor([r[1] for r in rows]))
                for part, rows in parts.items()
            }
            for name, parts in targets.items()
        },
    )


def numbered(sentences: Sequence[Sequence[str]], index: dict[str, int]) -> Tensor:
    """Return the numbers of words `[n, LENGTH]`."""
    x = np.zeros((len(sentences), LENGTH), np.int64)
    for row, words in zip(x, sentences, strict=True):
        row[: len(words)] = [index.get(word, UNKNOWN) for word in words]
    return torch.from_numpy(x)


def trimmed(x: Tensor) -> Tensor:
    """Return rows without the columns that all of them lack."""
    return x[:, : max(int((x != PADDING).sum(1).max()), 1)]


def masked(x: Tensor, words: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return rows with 15% of the words hidden, one at least, and which ones; a tenth is swapped, a tenth is left."""
    noise = torch.rand(x.shape, generator=generator).masked_fill(x == PADDING, 2.0)
    chosen = (noise < 0.15) | (noise == noise.min(1, keepdim=True).values)
    way = torch.rand(x.shape, generator=generator)
    other = torch.randint(3, words, x.shape, generator=generator)
    hidden = torch.where(way < 0.8, MASK, torch.where(way < 0.9, other, x))
    return torch.where(chosen, hidden, x), chosen


def masked_loss(model: Encoder, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Return the mean loss of the hidden words of rows: what is seen `[B, T]`, which are hidden, and all words."""
    seen, chosen, x = batch
    return cross_entropy(model.words(model(seen)[chosen]), x[chosen])


def pretrained(data: Corpus, steps: int) -> tuple[Encoder, float, float]:
    """Return an encoder trained by masked words, and its loss in the first and the last twentieth of the steps."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Encoder(data.words)
        optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps, pct_start=0.05)
        losses = []
        while len(losses) < steps:
            order = torch.randperm(len(data.x), generator=generator)
            for big in order.split(16 * BATCH):  # sentences of like length stand together
                big = big[(data.x[big] != PADDING).sum(1).argsort()]
                pieces = big.split(BATCH)
                for place in torch.randperm(len(pieces), generator=generator).tolist():
                    if len(losses) == steps:
                        break
                    x = trimmed(data.x[pieces[place]])
                    loss = masked_loss(model, (*masked(x, data.words, generator), x))
                    optimizer.zero_grad()
                    loss.backward()
                    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                    optimizer.step()
                    schedule.step()
                    losses.append(float(loss.detach()))
    part = max(steps // 20, 1)
    return model.eval(), float(np.mean(losses[:part])), float(np.mean(losses[-part:]))
