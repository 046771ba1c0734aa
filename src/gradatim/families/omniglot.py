"""Classification of handwritten letters by their pixels: tasks that share a space, with other alphabets for each pool.

Source: Lake, Salakhutdinov, Tenenbaum 2015 (Omniglot); Vinyals et al. 2016, section 4.1.1 (rotated letters).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from .alphabets import glyph_file, read_glyphs
from .sampling import SPLITS, PooledClassification, permutations

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

VALIDATION = 5
"""Background alphabets that are kept for validation: the first of a permutation with seed 0, of as many of them."""

_SOURCE = "omniglot"


class _Pool(NamedTuple):
    """The images of one split `[n, pixels]` uint8, sorted by letter, and mean and deviation of all training pixels."""

    images: Tensor
    starts: Tensor
    counts: Tensor
    centre: float
    scale: float


def split_alphabets(alphabet: np.ndarray, background: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the letters of train, validation and test, from alphabets `[letters]` and background flags `[letters]`.

    Validation has `VALIDATION` whole background alphabets, at most half of them. Test has the other alphabets.

    Example:
        >>> import numpy as np
        >>> from gradatim.families.omniglot import split_alphabets
        >>> [part.tolist() for part in split_alphabets(np.array([0, 0, 1, 2]), np.array([True, True, True, False]))]
        [[0, 1], [2], [3]]
    """
    names = np.random.RandomState(0).permutation(np.unique(alphabet[background]))
    held_out = background & np.isin(alphabet, names[: min(VALIDATION, len(names) // 2)])
    return np.flatnonzero(background & ~held_out), np.flatnonzero(held_out), np.flatnonzero(~background)


@lru_cache(maxsize=4)
def _pools(path: Path, changed: int, turned: bool) -> dict[str, _Pool]:
    """Return the pools by split. The file is read again where its time of change `changed` differs."""
    images, alphabet, background = read_glyphs(path)
    parts = split_alphabets(alphabet, background)
    if not all(map(len, parts)):
        raise ValueError(
            f"{path} needs two background alphabets or more, to train and validate on, and others to test on"
        )
    train = images[parts[0]].astype(np.float32) / 255
    centre, scale = float(train.mean(dtype=np.float64)), float(train.std(dtype=np.float64))
    pools = {}
    for split, letters in zip(SPLITS, parts, strict=True):
        ink = torch.from_numpy(images[letters])
        if turned and split == "train":
            ink = torch.cat([ink.rot90(turns, (2, 3)) for turns in range(4)])
        counts = torch.full((len(ink),), ink.shape[1])
        rows = ink.flatten(2).flatten(0, 1)
        pools[split] = _Pool(rows, counts.cumsum(0) - counts, counts, centre, scale)
    return pools


@dataclass(frozen=True)
class OmniglotClassification(PooledClassification):
    """Classification of handwritten letters, `ways` letters a task, numbered in random order.

        x = (u - mu) / sigma,   u the pixels, mu and sigma one number each, over all pixels of the training letters

    The images are read from `$GRADATIM_DATA/images/omniglot_28.npz`. Pools share no alphabet:

    - train: 25 of the 30 background alphabets; validation: the other 5;
    - test: the 20 evaluation alphabets.

    Support and query share no image. A support larger than what the query leaves repeats images.

    Shapes: x `[B, N, pixels]`, or `[B, N, dim]` after a random projection of each task; y `[B, N, 1]` int64.

    Fields:
        `dim`: features of a random projection. Then tasks share nothing but the family: it is the control.
        `ways`: letters of a task.
        `split`: the pool.
        `turned`: training letters turned by one, two and three right angles are letters of their own.
        `shots`: the support has this many rows of each letter. None: rows are drawn from all letters together.

    Raises:
        ValueError: an unknown split, dim below 1, ways below 2, impossible rows, shots that do not make up the rows of
            support and query. When sampling: a file that is missing or damaged, more ways than the pool has letters,
            a query that leaves no row for the support.

    Example:
        >>> from gradatim.families import OmniglotClassification
        >>> family = OmniglotClassification(ways=5, support_rows=5, query_rows=25, shots=1)
        >>> family.on("test").split
        'test'

    Source: Lake, Salakhutdinov, Tenenbaum 2015; Vinyals et al. 2016, section 4.1.1 (turned letters). The division
    of the background alphabets is this project's own.
    """

    source: str = _SOURCE
    turned: bool = False
    shots: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.source != _SOURCE:
            raise ValueError(f"this family reads {_SOURCE!r}; got source {self.source!r}: leave it out")
        if self.shots is None:
            return
        if self.shots * self.ways != self.support_rows or self.query_rows % self.ways:
            raise ValueError(
                f"{self.shots} rows of each of {self.ways} letters make {self.shots * self.ways} support rows, and "
                f"query rows are a multiple of the letters; got {self.support_rows} and {self.query_rows}"
            )

    @property
    def x_dim(self) -> int:
        """Return the number of features: `dim`, or that of the pixels."""
        return self.dim or self._pool().images.shape[1]

    def _draw(self, pool: _Pool, n_tasks: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return places in the pool and labels, `[B, support_rows + query_rows]` each, the support first."""
        if self.shots is None:
            return super()._draw(pool, n_tasks, generator)
        per_class = (self.support_rows + self.query_rows) // self.ways
        letters = permutations(torch.full((n_tasks,), len(pool.counts)), self.ways, generator)
        sizes = pool.counts[letters]
        if per_class > int(sizes.min()):
            raise ValueError(
                f"{self.shots} rows of a letter and {per_class - self.shots} to predict are more than the "
                f"{int(sizes.min())} that there are: ask for fewer shots or query rows"
            )
        rows = permutations(sizes.flatten(), per_class, generator).unflatten(0, (n_tasks, -1))
        place = (rows + pool.starts[letters][..., None]).split([self.shots, per_class - self.shots], dim=2)
        label = torch.arange(self.ways)[:, None].expand(n_tasks, -1, per_class)
        label = label.split([self.shots, per_class - self.shots], dim=2)
        parts = [_shuffled(*part, generator) for part in zip(place, label, strict=True)]
        return torch.cat([index for index, _ in parts], 1), torch.cat([names for _, names in parts], 1)

    def _features(self, pool: _Pool, index: Tensor, generator: torch.Generator) -> Tensor:
        """Return the rows at `index [B, N]` as features `[B, N, x_dim]`, projected at random where `dim` is given."""
        x = (pool.images[index].float() / 255 - pool.centre) / pool.scale
        if self.dim is None:
            return x
        gaussian = torch.randn(len(x), x.shape[2], self.dim, generator=generator)
        return x @ (gaussian / gaussian.norm(dim=1, keepdim=True))

    def _pool(self) -> _Pool:
        """Return the pool of this split; it has at least `ways` letters."""
        path = glyph_file()
        pool = _pools(path, path.stat().st_mtime_ns, self.turned)[self.split]
        if self.ways > len(pool.counts):
            raise ValueError(
                f"ways must be at most the {len(pool.counts)} letters of {self.split}; got {self.ways}"
            )
        return pool


def _shuffled(place: Tensor, label: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return places and labels `[B, ways, n]` as `[B, ways * n]`, in one random order."""
    place, label = place.flatten(1), label.flatten(1)
    order = torch.rand(place.shape, generator=generator).argsort(1)
    return place.gather(1, order), label.gather(1, order)
