"""Fine-tuning of a small pretrained transformer under variants of dropout, several seeds at a time.

The same seed has the same rows, first head and batches under every variant.

Source: Sharma et al. 2024 (arXiv 2406.14005), as `gradatim.regularizers.fisher_dropout` says.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy

from gradatim.regularizers.dropout_sites import GaussianDropout
from gradatim.regularizers.fisher_dropout import guide_dropout, set_dropout
from studies.meta.sources import fingerprint

from .encoder import (
    LENGTH,
    PADDING,
    STEPS,
    WIDTH,
    Corpus,
    Encoder,
    Rows,
    corpus,
    made,
    masked,
    pretrained,
    trimmed,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from gradatim.comparison.runs import Study

CHOICE_ROWS = 400
"""Rows that settings are chosen on, of each set."""

BATCH, SCORED = 32, 512
READ = {"mpqa": 10}
"""Words of a sentence that are read in fine-tuning, where fewer than LENGTH: those of mpqa have 3.5 on average."""


@dataclass(frozen=True)
class Setting:
    """How a fine-tuning goes: the variant, the highest share of dropout, the learning rate, and epochs."""

    variant: str
    highest: float
    lr: float
    epochs: int


class Classifier(nn.Module):
    """The encoder, the mean over words, and a linear head."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.encoder, self.head = Encoder(words), nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        there = (x != PADDING)[..., None]
        return self.head((self.encoder(x) * there).sum(-2) / there.sum(-2).clamp_min(1))


def word_loss(model: Encoder, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Return the mean loss of hidden words, of rows as `masked_loss` takes them, in fixed shapes."""
    seen, chosen, x = batch
    losses = cross_entropy(model.words(model(seen)).flatten(0, 1), x.flatten(), reduction="none")
    return (losses * chosen.flatten()).sum() / chosen.sum()


def start(study: Study, smoke: bool) -> dict[str, np.ndarray]:
    """Return the weights of the pretrained encoder and its losses, from the study's folder where they are there."""
    data, steps = (made(), 40) if smoke else (corpus(), STEPS)

    def compute() -> dict[str, np.ndarray]:
        model, first, last = pretrained(data, steps)
        weights = {name: value.numpy() for name, value in model.state_dict().items()}
        return weights | {"losses": np.array([first, last])}

    inputs = [fingerprint("studies.frozen.encoder", alone=True), steps]
    return study.cached("dropout-pretrained", inputs, compute)


@dataclass(frozen=True)
class Bench:
    """What fine-tuning starts from: the corpus, the pretrained weights, and the sites from lowest to highest Fisher."""

    data: Corpus
    weights: dict[str, np.ndarray]
    ranked: tuple[str, ...]
    fisher: tuple[float, ...]
    smoke: bool

    def shares(self, setting: Setting) -> dict[str, float]:
        """Return the dropout of each site under a variant."""
        steps = np.linspace(setting.highest, 0, len(self.ranked))
        flat = {"uniform": setting.highest / 2, "gaussian": setting.highest / 2, "maximum": setting.highest}
        if setting.variant in ("guided", "reversed"):
            values = steps if setting.variant == "guided" else steps[::-1]
            return dict(zip(self.ranked, values.tolist(), strict=True))
        return dict.fromkeys(self.ranked, flat.get(setting.variant, 0.0))

    def encoder(self) -> Encoder:
        """Return the pretrained encoder."""
        model = Encoder(self.data.words)
        model.load_state_dict({name: torch.from_numpy(self.weights[name]) for name in model.state_dict()})
        return model.eval()


def bench(study: Study, smoke: bool) -> Bench:
    """Return what fine-tuning starts from."""
    data, weights = made() if smoke else corpus(), start(study, smoke)
    bare = Bench(data, weights, (), (), smoke)
    generator = torch.Generator().manual_seed(1)
    x = data.x[torch.randperm(len(data.x), generator=generator)[: 32 if smoke else SCORED]]
    sites = guide_dropout(bare.encoder(), word_loss, [(*masked(x, data.words, generator), x)])
    ranked = sorted(sites.fisher, key=sites.fisher.__getitem__)
    study.notify(f"dropout: {sites}")
    return replace(bare, ranked=tuple(ranked), fisher=tuple(sites.fisher[name] for name in ranked))


def drawn(data: Corpus, name: str, size: int, seed: int, epochs: int) -> tuple[Rows, Tensor]:
    """Return a seed's rows to learn from, and its batches `[steps, BATCH]` as places in them."""
    generator = torch.Generator().manual_seed(seed)
    rows = data.targets[name]["learn"]
    chosen = rows[torch.randperm(len(rows.y), generator=generator)[:size]]
    count = max(size // BATCH, 1) * BATCH
    orders = [torch.randperm(size, generator=generator).repeat(2)[:count] for _ in range(epochs)]
    return chosen, torch.cat(orders).view(-1, min(BATCH, count))


def prepared(begin: Bench, setting: Setting) -> Classifier:
    """Return a classifier with the dropout of a variant."""
    model = Classifier(begin.data.words)
    if setting.variant == "gaussian":
        for module in model.encoder.modules():
            if hasattr(module, "dropout"):
                module.dropout = GaussianDropout()
    set_dropout(model.encoder, begin.shares(setting))
    return model


def first_weights(begin: Bench, model: Classifier, seeds: Sequence[int]) -> dict[str, Tensor]:
    """Return the weights of all seeds `[seeds, ...]`: the pretrained encoder, and a head drawn by each seed."""
    found = {
        name: value.expand(len(seeds), *value.shape).clone()
        for name, value in {f"encoder.{k}": v for k, v in begin.encoder().state_dict().items()}.items()
    }
    draws = [torch.Generator().manual_seed(10**6 + seed) for seed in seeds]
    found["head.weight"] = torch.stack([torch.randn(2, WIDTH, generator=draw) for draw in draws]) / WIDTH**0.5
    found["head.bias"] = torch.zeros(len(seeds), 2)
    return {name: found[name].requires_grad_() for name, _ in model.named_parameters()}


def tuned(
    begin: Bench, name: str, size: int, seeds: Sequence[int], setting: Setting, stops: Sequence[int], on: str
) -> np.ndarray:
    """Return the share of right answers `[stops, seeds]` after some epochs, on the rows that choose or judge.

    Early stopping learns from four fifths of the rows, and is judged after the epoch that is best on the others.
    """
    cut = READ.get(name, LENGTH)
    early = setting.variant == "early"
    size = size * 4 // 5 if early else size
    draws = [drawn(begin.data, name, size, seed, setting.epochs) for seed in seeds]
    model = prepared(begin, setting)
    given = first_weights(begin, model, seeds)
    optimizer = torch.optim.AdamW(given.values(), setting.lr, weight_decay=0.01, fused=True)
    each = draws[0][1].shape[0] // setting.epochs
    rows = begin.data.targets[name][on]
    rows = rows[: CHOICE_ROWS if on == "choose" else len(rows.y)]
    others = [held_out(begin.data, name, size, seed) for seed in seeds] if early else []
    found, best = [], np.full(len(seeds), -1.0)
    kept: np.ndarray = np.zeros(len(seeds))

    def loss(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(functional_call(model, weights, (x,)), y)

    with sdpa_kernel(SDPBackend.MATH), torch.random.fork_rng():
        torch.manual_seed(seeds[0])
        for step in range(len(draws[0][1])):
            x = torch.stack([chosen.x[batches[step], :cut] for chosen, batches in draws])
            y = torch.stack([chosen.y[batches[step]] for chosen, batches in draws])
            x = x[..., : max(int((x != PADDING).sum(-1).max()), 1)]
            model.train()
            total = vmap(loss, randomness="different")(given, x, y).sum()
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            epoch, over = divmod(step + 1, each)
            if over or not (early or epoch in stops):
                continue
            right = None if early else accuracy(model, given, [rows] * len(seeds), cut)
            if early:
                score = accuracy(model, given, others, cut)
                if (score > best).any():
                    now = accuracy(model, given, [rows] * len(seeds), cut)
                    kept, best = np.where(score > best, now, kept), np.maximum(score, best)
            else:
                found.append(right)
    return np.stack([kept] if early else found)


def held_out(data: Corpus, name: str, size: int, seed: int) -> Rows:
    """Return the rows after the first `size`, a quarter as many, in a seed's order."""
    rows = data.targets[name]["learn"]
    order = torch.randperm(len(rows.y), generator=torch.Generator().manual_seed(seed))
    return rows[order[size : size + max(size // 4, 1)]]


@torch.no_grad()
def accuracy(model: Classifier, given: dict[str, Tensor], rows: Sequence[Rows], cut: int) -> np.ndarray:
    """Return the share of right answers of each seed on its rows."""
    model.eval()
    found = []
    for place, own in enumerate(rows):
        weights = {name: value[place] for name, value in given.items()}
        order = (own.x != PADDING).sum(1).argsort()
        right = [
            (functional_call(model, weights, (trimmed(own.x[part, :cut]),)).argmax(-1) == own.y[part]).sum()
            for part in order.split(250)
        ]
        found.append(float(sum(right)) / len(own.y))
    return np.array(found)
