"""Classification tasks from frozen embeddings, read from npz or Parquet files. Nothing is downloaded.

Source: Mittal et al. 2025 (classification of ImageNet embeddings); Vinyals et al. 2016, section 4 (disjoint classes).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from .archives import read_npz
from .sampling import SPLITS, PooledClassification

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

EMBEDDING_FILES = {"banking77": "text/banking77_minilm_int8.npz"}
"""Sources by name: their files below `$GRADATIM_DATA`."""

PARTS = ("embeddings", "emb_q", "scale", "labels", "label", "split")
"""The arrays of a file that are read."""

SHARES = (0.6, 0.15)
"""Shares of the classes in train and validation, where a file names no split. The remainder is test."""


class EmbeddingTable(NamedTuple):
    """The contents of a file of embeddings.

    Fields: `embeddings`: `[n, d]` float32; `labels`: `[n]` int64 in 0 .. classes - 1; `split`: `[classes]`, the index
    in `SPLITS` of each class, or empty where the file names no split.
    """

    embeddings: np.ndarray
    labels: np.ndarray
    split: np.ndarray


class _Pool(NamedTuple):
    """The rows `[n, d]` of one split, sorted by class, standardised by the rows of the training classes.

    `spread [d]`: the deviations of the coordinates there, as multiples of their root mean square.
    """

    rows: Tensor
    spread: Tensor
    starts: Tensor
    counts: Tensor


def embedding_path(source: str) -> Path:
    """Return the file of a source: a name in `EMBEDDING_FILES`, a path, or a path below `$GRADATIM_DATA`.

    Raises:
        ValueError: there is no such file; the message says where it was looked for.

    Example:
        >>> from pathlib import Path
        >>> from gradatim.families.embeddings import embedding_path
        >>> Path("mine.npz").touch()
        >>> str(embedding_path("mine.npz"))
        'mine.npz'
    """
    root = os.environ.get("GRADATIM_DATA")
    relative = EMBEDDING_FILES.get(source, source)
    candidates = [Path(relative), *([Path(root) / relative] if root else [])]
    for path in candidates:
        if path.is_file():
            return path
    hint = "" if root else "; set the environment variable GRADATIM_DATA to look there as well"
    raise ValueError(
        f"source must be {', '.join(EMBEDDING_FILES)} or an npz or Parquet file with embeddings and labels; {source!r} "
        f"is not at {' or '.join(map(str, candidates))}{hint}"
    )


def read_embeddings(path: Path) -> EmbeddingTable:
    """Return the embeddings and labels of an npz or Parquet file.

    The file holds `embeddings [n, d]` and `labels [n]`. It may hold `split [n]`: train, validation or test, the same
    for all rows of a class. In an npz the embeddings may be int8, as `emb_q` with `scale`, and the labels may be
    called `label`. In a Parquet file `embeddings` is a column of lists.

    Returns:
        `EmbeddingTable` with embeddings `[n, d]` and labels `[n]`.

    Raises:
        ValueError: another kind of file, one that cannot be read, missing parts or parts of different lengths,
            numbers that are not finite, a single class, a class in two splits.

    Example:
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from gradatim.families.embeddings import read_embeddings
        >>> np.savez("mine.npz", embeddings=np.eye(4), labels=["cat", "cat", "dog", "dog"])
        >>> read_embeddings(Path("mine.npz")).labels
        array([0, 0, 1, 1])
    """
    arrays = _arrays(path)
    vectors, labels = arrays.get("embeddings"), arrays.get("labels", arrays.get("label"))
    if vectors is None and {"emb_q", "scale"} <= arrays.keys():
        vectors = arrays["emb_q"].astype(np.float32) * arrays["scale"]
    if vectors is None or labels is None:
        raise ValueError(
            f"{path} must hold embeddings and labels; it holds {', '.join(sorted(arrays)) or 'neither'}"
        )
    if vectors.ndim != 2 or labels.shape != vectors.shape[:1] or not vectors.size:
        raise ValueError(
            f"{path} must hold embeddings [rows, width] and labels [rows]; got {vectors.shape} and {labels.shape}"
        )
    absent = bool(_absent(vectors).any())
    if not absent and vectors.dtype.kind not in "fiu":
        raise ValueError(f"{path} must hold embeddings that are real numbers; got {vectors.dtype}")
    if absent or not np.isfinite(vectors := vectors.astype(np.float32)).all():
        raise ValueError(f"{path} has embeddings that are not finite: leave those rows out")
    if _absent(labels).any():
        raise ValueError(
            f"{path} has {int(_absent(labels).sum())} rows without a label: leave those rows out"
        )
    values, codes = np.unique(labels, return_inverse=True)
    if len(values) < 2:
        raise ValueError(f"{path} has the one class {values.tolist()[0]!r}: tasks are made of at least two")
    return EmbeddingTable(vectors, codes.astype(np.int64), _splits(path, arrays.get("split"), codes, values))


def _absent(values: np.ndarray) -> np.ndarray:
    """Return where a value is missing, bool of the same shape: None, or NaN."""
    return values == None if values.dtype == object else values != values  # noqa: E711


def _arrays(path: Path) -> Mapping[str, np.ndarray]:
    """Return the arrays of an npz file, or the columns of a Parquet file."""
    if path.suffix == ".parquet":
        try:
            from pyarrow import ArrowException
            from pyarrow.parquet import read_table
        except ImportError as error:
            raise ValueError(f"{path} is read by pyarrow: pip install 'gradatim[data]'") from error
        try:
            columns = read_table(path).to_pydict()
            return {name: np.array(values) for name, values in columns.items()}
        except (ArrowException, OSError, ValueError) as error:
            raise ValueError(f"{path} cannot be read as Parquet ({error})") from error
    return read_npz(path, PARTS)


def _splits(path: Path, names: np.ndarray | None, codes: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the index in `SPLITS` of each class, from the split `names` of the rows; empty without names."""
    if names is None:
        return np.empty(0, dtype=np.int64)
    unknown = sorted(set(map(str, names.tolist())) - set(SPLITS))
    if unknown or names.shape != codes.shape:
        raise ValueError(
            f"{path}: split must say {', '.join(SPLITS)} for each row; got {unknown or names.shape}"
        )
    place = np.array([SPLITS.index(str(split)) for split in names.tolist()])
    first = np.zeros(len(values), dtype=np.int64)
    first[codes] = place
    if (torn := np.flatnonzero(np.bincount(codes, place != first[codes]))).size:
        raise ValueError(
            f"{path}: all rows of a class belong to one split; those of {values.tolist()[torn[0]]!r} do not"
        )
    return first


@lru_cache(maxsize=8)
def _pools(path: Path, changed: int) -> dict[str, _Pool]:
    """Return the pools of a file by split. The file is read again where its time of change `changed` differs."""
    data = read_embeddings(path)
    split, classes = data.split, int(data.labels.max()) + 1
    if not split.size:
        order = np.random.RandomState(0).permutation(classes)
        split = np.empty(classes, dtype=np.int64)
        for place, part in enumerate(np.split(order, np.rint(np.cumsum(SHARES) * classes).astype(int))):
            split[part] = place
    in_train = split[data.labels] == 0
    train = data.embeddings[in_train] if in_train.any() else data.embeddings
    mean, std = train.mean(0), train.std(0).clip(min=1e-6)
    spread = torch.from_numpy(std / np.sqrt(np.square(std).mean()))
    pools = {}
    for place, name in enumerate(SPLITS):
        index = np.flatnonzero(split[data.labels] == place)
        index = index[np.argsort(data.labels[index], kind="stable")]
        counts = torch.from_numpy(np.bincount(data.labels[index], minlength=classes))
        counts = counts[counts > 0]
        rows = torch.from_numpy((data.embeddings[index] - mean) / std)
        pools[name] = _Pool(rows, spread, counts.cumsum(0) - counts, counts)
    return pools


@dataclass(frozen=True)
class EmbeddingClassification(PooledClassification):
    """Classification of frozen embeddings; each task has `ways` classes of a pool, numbered in random order.

        x = P'z / |P_j|,   z = (e - mu) / sigma,   P_ij ~ N(0, 1), drawn for each task

    `e` are the embeddings. `mu` and `sigma` are their mean and deviation over the training classes, or over all rows of
    a file without classes for training. Pools share no class. Rows are drawn without replacement, and support and query
    share none. A support larger than the pool repeats rows.

    Without `dim` tasks share the space of the embeddings: x = (e - mu) / s, with one number s for all coordinates, the
    root mean square of sigma. Scaling each would blow up the coordinates in which embeddings hardly differ.

    Shapes: x `[B, N, dim]` float32, y `[B, N, 1]` int64.

    Fields:
        `source`: `banking77`, or an npz or Parquet file as in `read_embeddings`. Its path may begin below
            `$GRADATIM_DATA`.
        `dim`: features of a random projection, so that a learner fits embeddings of any width. None: their own space.
        `ways`: classes of a task.
        `split`: the pool.

    Raises:
        ValueError: an unknown split, dim below 1, ways below 2, impossible rows. When sampling: a file that is missing
            or damaged, more ways than the pool has classes, a query that leaves no row for the support.

    Example:
        >>> import numpy as np, torch
        >>> from gradatim.families import EmbeddingClassification
        >>> vectors = np.random.default_rng(0).normal(size=(600, 16))
        >>> np.savez("mine.npz", embeddings=vectors, labels=np.repeat(range(20), 30))
        >>> family = EmbeddingClassification("mine.npz", dim=8, ways=3, support_rows=30, query_rows=30)
        >>> family.on("test").sample(4, torch.Generator().manual_seed(0)).support.x.shape
        torch.Size([4, 30, 8])

    Source: Mittal et al. 2025 (embeddings of images); Vinyals et al. 2016, section 4; the pools are this project's own.
    """

    source: str = "banking77"
    dim: int | None = 64

    @property
    def x_dim(self) -> int:
        """Return the number of features: `dim`, or the width of the embeddings."""
        return self.dim or self._pool().rows.shape[1]

    def _features(self, pool: _Pool, index: Tensor, generator: torch.Generator) -> Tensor:
        """Return the rows at `index [B, N]` as features `[B, N, x_dim]`, projected at random where `dim` is given."""
        x = pool.rows[index]
        if self.dim is None:
            return x * pool.spread
        gaussian = torch.randn(len(x), x.shape[2], self.dim, generator=generator)
        return x @ (gaussian / gaussian.norm(dim=1, keepdim=True))

    def _pool(self) -> _Pool:
        """Return the pool of this split; it has at least `ways` classes."""
        path = embedding_path(self.source)
        pool = _pools(path, path.stat().st_mtime_ns)[self.split]
        if self.ways > len(pool.counts):
            raise ValueError(
                f"ways must be at most the {len(pool.counts)} classes of {path.name} for {self.split}; got {self.ways} "
                "(where a file names no split, train has 60% of its classes, validation 15%, test the rest)"
            )
        return pool
