"""Tasks made of frozen embeddings: some classes of a pool, in the space of an encoder that is not touched.

A file holds `embeddings` and `labels`, npz or Parquet; nothing is downloaded.

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

KNOWN = {"banking77": "text/banking77_minilm_int8.npz"}
"""Names of files below `$GRADATIM_DATA`."""

SHARES = (0.6, 0.15)
"""Of the classes, those for meta-training and for validation, where the file does not say; the rest is test."""


class Embedded(NamedTuple):
    """A file of embeddings: `embeddings [n, d]` float32, `labels [n]` int64 in 0 .. classes - 1, `split [classes]`.

    `split`: the place in `SPLITS` of each class, or empty where the file does not say.
    """

    embeddings: np.ndarray
    labels: np.ndarray
    split: np.ndarray


class _Pool(NamedTuple):
    """The rows of one split's classes, sorted by class, standardised by the classes of meta-training."""

    rows: Tensor
    starts: Tensor
    counts: Tensor


def embedding_path(source: str) -> Path:
    """Return the file that a source names: one of `KNOWN`, a path, or a path below `$GRADATIM_DATA`.

    Raises:
        ValueError: there is no such file; says where it was looked for.

    Example:
        >>> embedding_path("banking77").name
        'banking77_minilm_int8.npz'
    """
    root = os.environ.get("GRADATIM_DATA")
    asked = KNOWN.get(source, source)
    places = [Path(asked), *([Path(root) / asked] if root else [])]
    for place in places:
        if place.is_file():
            return place
    hint = "" if root else "; set the environment variable GRADATIM_DATA to look there as well"
    raise ValueError(
        f"source must be {', '.join(KNOWN)} or an npz or Parquet file with embeddings and labels; {source!r} is not "
        f"at {' or '.join(map(str, places))}{hint}"
    )


def read_embeddings(path: Path) -> Embedded:
    """Return the embeddings of a file: `embeddings [n, d]`, `labels [n]`, and if it is there `split [n]`.

    In an npz the embeddings may be int8, `emb_q` with their `scale`, and the labels called `label`. In a Parquet file
    `embeddings` is a column of lists. `split`: train, validation or test, the same for all rows of a class.

    Raises:
        ValueError: another kind of file, one that cannot be read, parts that are missing or do not pair up, numbers
            that are not finite, a single class, a class in two splits.

    Example:
        >>> read_embeddings(embedding_path("banking77")).embeddings.shape
        (13083, 384)
    """
    arrays = _arrays(path)
    vectors, labels = arrays.get("embeddings"), arrays.get("labels", arrays.get("label"))
    if vectors is None and {"emb_q", "scale"} <= arrays.keys():
        vectors = arrays["emb_q"].astype(np.float32) * arrays["scale"]
    if vectors is None or labels is None:
        raise ValueError(
            f"{path} must hold embeddings and labels; it holds {', '.join(sorted(arrays)) or 'nothing'}"
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
    return Embedded(vectors, codes.astype(np.int64), _splits(path, arrays.get("split"), codes, values))


def _absent(values: np.ndarray) -> np.ndarray:
    """Return where a value is missing: None, or a number that is not one."""
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
    return read_npz(path)


def _splits(path: Path, said: np.ndarray | None, codes: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the place in `SPLITS` of each class, as the rows say; empty where they say nothing."""
    if said is None:
        return np.empty(0, dtype=np.int64)
    unknown = sorted(set(map(str, said.tolist())) - set(SPLITS))
    if unknown or said.shape != codes.shape:
        raise ValueError(
            f"{path}: split must say {', '.join(SPLITS)} for each row; got {unknown or said.shape}"
        )
    place = np.array([SPLITS.index(str(split)) for split in said.tolist()])
    first = np.zeros(len(values), dtype=np.int64)
    first[codes] = place
    if (torn := np.flatnonzero(np.bincount(codes, place != first[codes]))).size:
        raise ValueError(
            f"{path}: all rows of a class belong to one split; those of {values.tolist()[torn[0]]!r} do not"
        )
    return first


@lru_cache(maxsize=8)
def _pools(path: Path, changed: int) -> dict[str, _Pool]:
    """Return the pools of a file by split; read once per process as long as the file is not `changed`."""
    data = read_embeddings(path)
    split, classes = data.split, int(data.labels.max()) + 1
    if not split.size:
        order = np.random.RandomState(0).permutation(classes)
        split = np.empty(classes, dtype=np.int64)
        for place, part in enumerate(np.split(order, np.rint(np.cumsum(SHARES) * classes).astype(int))):
            split[part] = place
    learnt = split[data.labels] == 0
    known = data.embeddings[learnt] if learnt.any() else data.embeddings
    mean, std = known.mean(0), known.std(0).clip(min=1e-6)
    pools = {}
    for place, name in enumerate(SPLITS):
        mine = np.flatnonzero(split[data.labels] == place)
        mine = mine[np.argsort(data.labels[mine], kind="stable")]
        counts = torch.from_numpy(np.bincount(data.labels[mine], minlength=classes))
        counts = counts[counts > 0]
        rows = torch.from_numpy((data.embeddings[mine] - mean) / std)
        pools[name] = _Pool(rows, counts.cumsum(0) - counts, counts)
    return pools


@dataclass(frozen=True)
class EmbeddingClassification(PooledClassification):
    """Classification in the space of a frozen encoder: `ways` classes of a pool, numbered anew for each task.

        x = P'z / |P_j|,   z = (e - mu) / sigma,   P_ij ~ N(0, 1) anew for each task; without `dim` x = z

    `e` are the embeddings; `mu`, `sigma` their mean and deviation over the classes for meta-training (over all rows of
    a file that has none). Pools share no class: those of `validation` and `test` are never met in meta-training. Rows
    are drawn without replacement, support and query share none; where the support asks for more rows than there are,
    it repeats them.

    `source`: `banking77`, or an npz or Parquet file with `embeddings` and `labels` (`read_embeddings`), below
    `$GRADATIM_DATA` or anywhere. `dim`: features of a random projection, so that a learner may be taken to another
    space; None: all of them. Shapes: x `[B, N, dim]` float32, y `[B, N, 1]` int64.

    Raises:
        ValueError: an unknown split, dim below 1, ways below 2, impossible rows. When sampling: a file that is missing
            or damaged, more ways than the pool has classes, a query that leaves no row for the support.

    Example:
        >>> family = EmbeddingClassification("banking77", ways=10, dim=64)
        >>> family.on("test").sample(4, torch.Generator().manual_seed(0)).support.x.shape
        torch.Size([4, 160, 64])

    Source: Mittal et al. 2025 (embeddings of images); Vinyals et al. 2016, section 4; the pools are this project's own.
    """

    source: str = "banking77"
    dim: int | None = 64

    @property
    def x_dim(self) -> int:
        """Return the number of features: `dim`, or the width of the embeddings."""
        return self.dim or self._pool().rows.shape[1]

    def _features(self, pool: _Pool, index: Tensor, generator: torch.Generator) -> Tensor:
        """Return the rows at `index [B, N]`, each task's projected at random where `dim` is given."""
        x = pool.rows[index]
        if self.dim is None:
            return x
        gaussian = torch.randn(len(x), x.shape[2], self.dim, generator=generator)
        return x @ (gaussian / gaussian.norm(dim=1, keepdim=True))

    def _pool(self) -> _Pool:
        """Return the pool of this split, with as many classes as a task takes."""
        path = embedding_path(self.source)
        pool = _pools(path, path.stat().st_mtime_ns)[self.split]
        if self.ways > len(pool.counts):
            raise ValueError(
                f"ways must be at most the {len(pool.counts)} classes of {path.name} for {self.split}; got {self.ways} "
                "(where a file names no split, train has 60% of its classes, validation 15%, test the rest)"
            )
        return pool
