"""A language model that learns to read examples: LoRA on synthetic linear tasks, and its accuracy on unseen ones.

Columns are single digits, so that 64 examples take 192 tokens. The prompt is the digits and the label of each example,
nothing else; only labels are learnt, that of each example from those before. Contexts grow from 8 examples to 64.

Source: Zhao, Nguyen, Grover 2024 (tuning on linear tasks); Hu et al. 2021 (LoRA); the rest is this project's own.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from time import process_time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import make_classification

from gradatim.language.models import import_peft
from gradatim.language.reader import InContextReader

if TYPE_CHECKING:
    from collections.abc import Sequence

LABELS = ("A", "B")
DIGITS: dict[str, Any] = {"template": "{a}{b}{label}", "scale": 9}
"""The prompt: an example is two digits and a label."""

LINEAR_LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True)
class Tuning:
    """How LoRA learns.

    Fields: `layers`: those that are adapted, None for all; `rows`: examples of a step, over its tasks; `grown`: the
    share of the steps after which contexts have their full length.
    """

    steps: int = 600
    rows: int = 512
    rank: int = 64
    rate: float = 3e-3
    layers: tuple[int, ...] | None = None
    shortest: int = 8
    longest: int = 64
    grown: float = 0.6


def linear_task(n: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of a linear task X `[n, 2]`, y `[n]`, of both classes."""
    while True:
        made: Any = make_classification(
            n,
            n_features=2,
            n_informative=2,
            n_redundant=0,
            n_clusters_per_class=1,
            flip_y=0,
            class_sep=2.0,
            random_state=int(generator.integers(2**31)),
        )
        X, y = made
        if 0 < y.sum() < n:
            return X, y if generator.random() < 0.5 else 1 - y


def text(X: np.ndarray, y: np.ndarray) -> str:
    """Return the prompt of examples, scaled by their range, as the reader writes it."""
    whole = np.rint(DIGITS["scale"] * (X - X.min(0)) / (X.max(0) - X.min(0))).astype(int)
    return "".join(
        DIGITS["template"].format(a=a, b=b, label=LABELS[c]) for (a, b), c in zip(whole, y, strict=True)
    )


def tuned(model: Any, tokenizer: Any, tuning: Tuning, seed: int) -> tuple[Any, float]:
    """Return a model with LoRA that was tuned on linear tasks, and its CPU seconds; the model is changed in place."""
    peft, begin = import_peft(), process_time()
    generator = np.random.default_rng(10**6 + seed)
    torch.manual_seed(seed)
    config = peft.LoraConfig(
        r=tuning.rank,
        lora_alpha=tuning.rank,
        target_modules=LINEAR_LAYERS,
        layers_to_transform=None if tuning.layers is None else list(tuning.layers),
        task_type="CAUSAL_LM",
    )
    adapted = peft.get_peft_model(model, config)
    parameters = [part for part in adapted.parameters() if part.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=tuning.rate, betas=(0.9, 0.98), weight_decay=0.0)
    names = torch.tensor([tokenizer(text_end)["input_ids"][-1] for text_end in _ends()])
    for step in range(tuning.steps):
        share = step / tuning.steps
        for group in optimizer.param_groups:
            cooled = 1.0 if share < 0.7 else 0.5 * (1 + np.cos(np.pi * (share - 0.7) / 0.3)) + 0.02
            group["lr"] = tuning.rate * min(1.0, (step + 1) / 50) * cooled
        n = _length(tuning, share, step, generator)
        tasks = [linear_task(n, generator) for _ in range(max(1, tuning.rows // n))]
        loss = label_loss(adapted, tokenizer, [text(*task) for task in tasks], names)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    return adapted.eval(), process_time() - begin


def _ends() -> list[str]:
    """Return a prompt that ends in each label."""
    return [DIGITS["template"].format(a=1, b=2, label=label) for label in LABELS]


def _length(tuning: Tuning, share: float, step: int, generator: np.random.Generator) -> int:
    """Return how many examples the contexts of a step have: the longest so far in every other step."""
    grown = min(1.0, share / tuning.grown)
    most = round(tuning.shortest + (tuning.longest - tuning.shortest) * grown)
    return most if step % 2 else int(generator.integers(max(4, most // 4), most + 1))


def label_loss(model: Any, tokenizer: Any, texts: Sequence[str], names: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy, over all tokens, of each label but the first, texts being of equal length."""
    ids = torch.tensor(tokenizer(list(texts))["input_ids"])
    labels = torch.isin(ids, names)
    places = labels[0].nonzero()[1:, 0]  # the same in all texts, since every example has as many tokens
    logits = model(input_ids=ids[:, :-1]).logits[:, places - 1]
    return F.cross_entropy(logits.flatten(0, 1), ids[:, places].flatten())


def accuracy(model: Any, tokenizer: Any, n: int, tasks: int, seed: int = 0, queries: int = 20) -> float:
    """Return the share of right answers on unseen linear tasks of n examples, read by an `InContextReader`."""
    generator, right = np.random.default_rng(seed), []
    for _ in range(tasks):
        X, y = linear_task(n + queries, generator)
        if 0 < y[:n].sum() < n:
            reader = InContextReader(model, tokenizer, LABELS, **DIGITS).fit(X[:n], y[:n])
            right.append((reader.predict(X[n:]) == y[n:]).mean())
    return float(np.mean(right))


def described(tuning: Tuning) -> dict[str, Any]:
    """Return a tuning as JSON."""
    return asdict(tuning)
