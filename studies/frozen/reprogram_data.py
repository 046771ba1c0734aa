"""The targets and the frozen models of the study of reprogramming.

Source: LeCun et al. 1998 (MNIST); Xiao et al. 2017 (Fashion-MNIST); karpathy/tinyllamas (stories260k).
"""

from __future__ import annotations

import gzip
import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from torch import nn

from gradatim import LinearClassification, TrainConfig, Unrolled, build, train
from gradatim.families.images import image_folder, load_images
from gradatim.learner import Learner
from gradatim.prompting.compare import random_twin

TEXTS = ("sst2", "mpqa", "ag_news", "subj")


@dataclass(frozen=True)
class Data:
    """Training and test rows of a target."""

    X: Any
    y: np.ndarray
    X_test: Any
    y_test: np.ndarray


def kind_of_target(target: str) -> str:
    """Return the kind of model that answers a target."""
    if target in (*TEXTS, "intents"):
        return "language"
    return "learner" if target == "moved" else "module"


# --- targets


@cache
def rows_of(target: str, smoke: bool) -> tuple[Any, np.ndarray]:
    """Return all rows and labels of a target; a smoke run reads only what scikit-learn has."""
    if kind_of_target(target) == "language":
        return _texts(target, smoke)
    if target == "fashion" and not smoke:
        data = load_images("fashion_mnist", image_folder("fashion_mnist"))[0]
        return data.images.reshape(-1, 28, 28).astype(np.float32) / 255, data.labels
    if target in ("fashion", "digits"):
        digits: Any = load_digits()
        X, y = digits.data, digits.target
        return (X.reshape(-1, 8, 8) / 16).astype(np.float32), y
    load: Any = {"wine": load_wine, "cancer": load_breast_cancer, "iris": load_iris}[target]
    return load(return_X_y=True)


def _texts(target: str, smoke: bool) -> tuple[list[str], np.ndarray]:
    if smoke:
        return [f"a {word} day" for word in ("good", "bad") * 12], np.array([1, 0] * 12)
    name = {"ag_news": "ag_news_test", "intents": "banking77"}.get(target, target)
    path = Path(os.environ["GRADATIM_DATA"]) / "text" / f"{name}.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        lines = [json.loads(line) for line in file][1:]
    if target == "intents":
        lines = [line for line in lines if line["label"] < 5]
    return [line["text"] for line in lines], np.array([line["label"] for line in lines])


def data_of(target: str, seed: int, smoke: bool) -> Data:
    """Return the rows of a target that a seed draws: at most 500 of images, 150 texts, half of a table to learn."""
    if target == "moved":
        return moved(seed)
    X, y = rows_of(target, smoke)
    order = np.random.default_rng([seed, 7]).permutation(len(y))
    most = 150 if kind_of_target(target) == "language" else 500
    cut = min(most, len(y) // 2)
    learn, test = order[:cut], order[cut : 2 * cut]
    if isinstance(X, list):
        return Data([X[i] for i in learn], y[learn], [X[i] for i in test], y[test])
    if X.ndim == 2:
        mean, deviation = X[learn].mean(0), X[learn].std(0) + 1e-6
        X = np.clip((X - mean) / deviation, -5, 5).astype(np.float32)
    return Data(X[learn], y[learn], X[test], y[test])


def moved(seed: int) -> Data:
    """Return a task of two classes whose x is stretched and moved, off what the learner was trained on."""
    task = FAMILY.sample(1, torch.Generator().manual_seed(10**6 + seed))
    shift = torch.tensor([6.0, -3.0, 0.0, 2.0])
    parts = [(4 * part.x[0] + shift, part.y[0, :, 0].numpy()) for part in (task.support, task.query)]
    return Data(*parts[0], *parts[1])


@cache
def embeddings() -> dict[str, np.ndarray]:
    """Return the vector of MiniLM for each sentence of banking77."""
    folder = Path(os.environ["GRADATIM_DATA"]) / "text"
    with gzip.open(folder / "banking77.jsonl.gz", "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file.readlines()[1:]]
    with np.load(folder / "banking77_minilm_int8.npz", allow_pickle=False) as stored:
        vectors = stored["emb_q"] * stored["scale"]
    return dict(zip(texts, vectors, strict=True))


# --- frozen models

FAMILY = LinearClassification(4, 2, support_rows=64, query_rows=200)


@cache
def network(seed: int, smoke: bool) -> nn.Module:
    """Return a network of two hidden layers, trained on MNIST; in a smoke run on small digits."""
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)
    )
    for part in model:
        if isinstance(part, nn.Linear):
            part.reset_parameters()
    if smoke:
        X, y = load_digits(return_X_y=True)
        x = F.interpolate(torch.tensor(X, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16, (28, 28))
    else:
        X, y = load_images("mnist", image_folder("mnist"))[0]
        x = torch.tensor(X, dtype=torch.float32).reshape(-1, 1, 28, 28) / 255
    target = torch.as_tensor(y, dtype=torch.int64)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(1 if smoke else 2):
        for index in torch.randperm(len(x), generator=generator).split(128):
            optimizer.zero_grad()
            F.cross_entropy(model(x[index]), target[index]).backward()
            optimizer.step()
    return model.eval()


@cache
def learner(trained: bool, smoke: bool) -> Learner:
    """Return a learner that refines predictions in context, on two classes that a line divides."""
    torch.manual_seed(0 if trained else 1)
    model = build("implicit-logits", FAMILY)
    if trained:
        config = TrainConfig(iterations=2 if smoke else 200, tasks=4 if smoke else 16, seed=0)
        train(model, FAMILY, Unrolled(batch_size=64, horizon=1), config, progress=False)
    return model.eval()


def pretrained(kind: str, seed: int, smoke: bool) -> Any:
    """Return the frozen model of a kind."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "module":
            return network(seed, smoke)
        if kind == "learner":
            return learner(True, smoke)
        from .models import stories, tiny

        return tiny() if smoke else stories()


def random_network(kind: str, seed: int, model: Any, smoke: bool) -> Any:
    """Return the random frozen model of the same shape."""
    return learner(False, smoke) if kind == "learner" else random_twin(model, seed)
