"""Classification tasks from real images, by random projections of the pixels and permutations of the labels.

Source: Kirsch et al. 2022, General-purpose in-context learning (tasks by random projection and label permutation);
the disjoint pools and the analytic standardisation are this project's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from .images import LabelledImages, check_source, image_folder, load_images
from .sampling import SPLITS, PooledClassification

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

_CHUNK_PIXELS = 2**20


class _Pool(NamedTuple):
    """The images of one split `[n, pixels]`, sorted by class, with the pixel statistics of the training split."""

    images: Tensor
    starts: Tensor
    counts: Tensor
    mean: Tensor
    covariance: Tensor


def _digits() -> LabelledImages:
    """Return the 1797 digits of scikit-learn, 8x8, grey levels 0 to 16 stretched to 0 to 255."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return LabelledImages(
        np.rint(np.asarray(pixels) * (255 / 16)).astype(np.uint8), np.asarray(labels, dtype=np.int64)
    )


def _divide(data: LabelledImages, shares: tuple[float, ...]) -> list[LabelledImages]:
    """Divide images by class into parts of the given shares, always in the same way. The remainder is the last part."""
    stream = np.random.RandomState(0)
    parts: list[list[np.ndarray]] = [[] for _ in range(len(shares) + 1)]
    for label in np.unique(data.labels):
        index = stream.permutation(np.flatnonzero(data.labels == label))
        cuts = np.rint(np.cumsum(shares) * len(index)).astype(int)
        for part, piece in zip(parts, np.split(index, cuts), strict=True):
            part.append(piece)
    chosen = [np.concatenate(part) for part in parts]
    return [LabelledImages(data.images[index], data.labels[index]) for index in chosen]


@lru_cache(maxsize=8)
def _pools(source: str, folder: Path | None) -> dict[str, _Pool]:
    """Return the pools of a source by split. The files are read once per process."""
    if folder is None:
        parts = _divide(_digits(), (0.4, 0.25))
    else:
        official, test = load_images(source, folder)
        parts = [*_divide(official, (0.9,)), test]
    train = torch.from_numpy(parts[0].images)
    total, moment = torch.zeros(train.shape[1]).double(), torch.zeros(train.shape[1], train.shape[1]).double()
    for chunk in train.split(4096):
        pixels = chunk.float() / 255
        total += pixels.sum(dim=0)
        moment += pixels.mT @ pixels
    mean = total / len(train)
    covariance = moment / len(train) - mean[:, None] * mean
    classes = int(parts[0].labels.max()) + 1
    pools = {}
    for split, part in zip(SPLITS, parts, strict=True):
        order = np.argsort(part.labels, kind="stable")
        counts = torch.from_numpy(np.bincount(part.labels, minlength=classes))
        images = torch.from_numpy(part.images[order])
        pools[split] = _Pool(images, counts.cumsum(0) - counts, counts, mean.float(), covariance.float())
    return pools


@dataclass(frozen=True)
class ImageClassification(PooledClassification):
    """Classification of real images by random projections of their pixels.

        x = (P'u - P'mu) / sqrt(diag(P' Sigma P)),   P_ij ~ N(0, 1), drawn for each task

    `u` are the pixels; `mu` and `Sigma` are their mean and covariance over the training pool of the source. So
    features have mean 0 and variance 1 there, and nothing of the other pools is used.

    Without `dim` tasks share the space of the pixels: x = (u - mean mu) / sqrt(mean diag Sigma), one number each for
    all pixels.

    Each task has `ways` random classes, numbered in random order. Support and query rows are drawn without
    replacement and share no image. A support larger than the pool repeats images, in reshuffled passes.

    - `digits` comes with scikit-learn: 1797 images, by class 40% train, 25% validation, 35% test.
    - `mnist`, `fashion_mnist`, `kmnist`, `emnist` and `notmnist` are read from `$GRADATIM_DATA/images/<source>/`.
      Train has 90% of the official training images, validation 10%. Test has the official test images.

    Shapes: x `[B, N, dim]` float32, y `[B, N, 1]` int64. There is no `oracle` and no `truth`.

    Fields: `source`: of the images; `dim`: features of a random projection, or None for the pixels themselves; `ways`:
    classes of a task; `split`: the pool, which shares no image with the others.

    Raises:
        ValueError: unknown source or split, dim below 1, ways below 2, impossible rows. When sampling: files
            missing or damaged, more ways than classes, a query that leaves no image for the support.

    Example:
        >>> import torch
        >>> from gradatim.families import ImageClassification
        >>> family = ImageClassification("digits", dim=32, ways=10, split="test")
        >>> task = family.sample(16, torch.Generator().manual_seed(0))
        >>> task.support.x.shape, task.query.y.shape
        (torch.Size([16, 160, 32]), torch.Size([16, 64, 1]))

    Source: Kirsch et al. 2022 (random projections, permuted labels); the standardisation is this project's own.
    """

    source: str = "digits"
    dim: int | None = 32

    def __post_init__(self) -> None:
        check_source(self.source)
        super().__post_init__()

    @property
    def x_dim(self) -> int:
        """Return the number of features: `dim`, or that of the pixels."""
        return self.dim or self._pool().images.shape[1]

    def _pool(self) -> _Pool:
        """Return the pool of this split; it has at least `ways` classes."""
        folder = None if self.source == "digits" else image_folder(self.source)
        pool = _pools(self.source, folder)[self.split]
        if self.ways > len(pool.counts):
            raise ValueError(
                f"ways must be at most the {len(pool.counts)} classes of {self.source}; got {self.ways}"
            )
        return pool

    def _features(self, pool: _Pool, index: Tensor, generator: torch.Generator) -> Tensor:
        """Project the images at `index [B, N]` to features `[B, N, dim]`, by a new Gaussian projection a task."""
        if self.dim is None:
            scale = pool.covariance.diagonal().mean().sqrt()
            return (pool.images[index].float() / 255 - pool.mean.mean()) / scale
        n_tasks, pixels = len(index), pool.images.shape[1]
        gaussian = torch.randn(pixels, n_tasks * self.dim, generator=generator)
        variance = (gaussian * (pool.covariance @ gaussian)).sum(dim=0)
        scaled = (
            (gaussian / variance.clamp(min=1e-12).sqrt()).unflatten(1, (n_tasks, self.dim)).transpose(0, 1)
        )
        shift = -(pool.mean @ scaled)[:, None]
        chunks = []
        for part in index.split(max(1, _CHUNK_PIXELS // (n_tasks * pixels)), dim=1):
            rows = pool.images.index_select(0, part.flatten()).view(n_tasks, -1, pixels)
            chunks.append(torch.baddbmm(shift, rows.float(), scaled, alpha=1 / 255))
        return torch.cat(chunks, dim=1)
