"""Tasks of generation made of real letters: points on the ink of Omniglot.

Source: Lake, Salakhutdinov, Tenenbaum 2015 (Omniglot); letters as clouds of points after Atanackovic et al. 2024 (meta
flow matching).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from ..likelihood import Velocity
from .archives import read_npz
from .datasets import SPLITS
from .flows import Components, FlowFamily
from .sampling import check_amount, check_rows

if TYPE_CHECKING:
    from typing import Self

    from torch import Tensor

FILE = "omniglot_28.npz"
_WANTED = (
    "images [letters, drawers, height, width] uint8 (255 = ink), alphabet [letters], background [letters] bool; "
    "published at https://github.com/brendenlake/omniglot"
)


class _Glyphs(NamedTuple):
    """The glyphs of one split, and where ink lies on average in the training split, in pixels."""

    ink: Tensor
    centre: Tensor
    scale: float


def glyph_file() -> Path:
    """Return the file of glyphs, `$GRADATIM_DATA/images/omniglot_28.npz`.

    Raises:
        ValueError: the variable is not set, or the file is not there; says what it must hold.

    Example:
        >>> glyph_file().name
        'omniglot_28.npz'
    """
    root = os.environ.get("GRADATIM_DATA")
    if not root:
        raise ValueError(
            f"alphabets are read from a file: set the environment variable GRADATIM_DATA to a folder that holds "
            f"images/{FILE} with {_WANTED}"
        )
    path = Path(root) / "images" / FILE
    if not path.is_file():
        raise ValueError(f"alphabets need {path} (below GRADATIM_DATA) with {_WANTED}")
    return path


def _read(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return images, alphabets and which of them are background."""
    try:
        arrays = read_npz(path)
        images, alphabet, background = (arrays[key] for key in ("images", "alphabet", "background"))
    except KeyError as error:
        raise ValueError(f"{path} has no {error.args[0]}: it must be an npz of {_WANTED}") from error
    except ValueError as error:
        raise ValueError(f"{path} cannot be read ({error}): it must be an npz of {_WANTED}") from error
    paired = images.ndim == 4 and {alphabet.shape, background.shape} == {(len(images),)}
    if not paired or images.dtype != np.uint8 or not images.size:
        raise ValueError(f"{path} must hold {_WANTED}; got images {images.dtype} {images.shape}")
    bare = np.argwhere(images.max((2, 3)) == 0)
    if len(bare):
        letter, drawer = bare[0].tolist()
        raise ValueError(
            f"every glyph of {path} needs ink; letter {letter} by drawer {drawer} has none: leave it out"
        )
    return images, alphabet, background.astype(bool)


def _parts(alphabet: np.ndarray, background: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the letters of train, validation and test: of each background alphabet a fifth is held out."""
    stream = np.random.RandomState(0)
    kept, held = [], []
    for name in np.unique(alphabet[background]):
        letters = stream.permutation(np.flatnonzero(background & (alphabet == name)))
        cut = max(1, len(letters) // 5)
        held.append(letters[:cut])
        kept.append(letters[cut:])
    return np.sort(np.concatenate(kept)), np.sort(np.concatenate(held)), np.flatnonzero(~background)


@lru_cache(maxsize=4)
def _pools(path: Path, changed: int) -> dict[str, _Glyphs]:
    """Return the glyphs by split; read once per process as long as the file is not `changed`."""
    images, alphabet, background = _read(path)
    if not background.any() or background.all():
        raise ValueError(
            f"{path} needs background alphabets to train on and others to test on; it has one kind"
        )
    if (np.unique(alphabet[background], return_counts=True)[1] < 2).all():
        raise ValueError(
            f"{path} needs a background alphabet of two letters or more: of each a fifth, at least one, is held out"
        )
    parts = [torch.from_numpy(images[letters]).flatten(0, 1) for letters in _parts(alphabet, background)]
    height, width = parts[0].shape[1:]
    total = parts[0].double().sum(0)
    share, places = (total / total.sum()).flatten(), _places(height, width).double()
    centre = share @ places
    scale = (share @ (places - centre).square()).mean().sqrt()
    return {
        split: _Glyphs(ink, centre.float(), float(scale)) for split, ink in zip(SPLITS, parts, strict=True)
    }


def _places(height: int, width: int) -> Tensor:
    """Return (right, up) of every pixel's middle, `[height * width, 2]`."""
    up, right = torch.meshgrid(-torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([right, up], dim=-1).flatten(0, 1).float()


@dataclass(frozen=True)
class Alphabets(FlowFamily):
    """Points on the ink of a letter as one person drew it, a letter and a drawer for each task.

        p(point) = sum_k ink_k N(point; place_k, jitter^2 I) / sum_k ink_k        over the pixels k of one glyph

    Coordinates (right, up) are shifted and scaled alike for all glyphs, so that ink has mean 0 and variance 1 over the
    training glyphs; `jitter` is in pixels. Read from `$GRADATIM_DATA/images/omniglot_28.npz`. `split`: train, letters
    of background alphabets; validation, a fifth of the letters of each, held out; test, the other alphabets. Pools
    share no letter. Shapes: x = [x_t, t] `[B, N, 3]`, y `[B, N, 2]`; `truth = E[y | x]` at the query `[B, Nq, 2]`.

    Raises:
        ValueError: an unknown split, jitter not above 0, impossible rows. When sampling: a file that is missing or
            damaged, a glyph without ink.

    Example:
        >>> family = Alphabets(support_rows=320).on("test")
        >>> flow_points(family.sample(16, torch.Generator().manual_seed(0)).support).shape
        torch.Size([16, 320, 2])

    Source: Lake, Salakhutdinov, Tenenbaum 2015 (the glyphs); pools and jitter are this project's own.
    """

    jitter: float = 0.5
    split: str = "train"

    likelihood = Velocity(2)

    def __post_init__(self) -> None:
        check_rows(self)
        check_amount("jitter", self.jitter, above=0)
        if self.split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}; got {self.split!r}")

    def on(self, split: str) -> Self:
        """Return the family over another pool: `train`, `validation` (other letters) or `test` (other alphabets).

        Raises:
            ValueError: it is none of them.
        """
        return replace(self, split=split)

    def glyphs(self) -> Tensor:
        """Return the ink of every glyph of the pool, `[glyphs, height, width]` uint8.

        Raises:
            ValueError: what the class says of sampling.
        """
        return self._pool().ink

    def components(self, n_tasks: int, generator: torch.Generator) -> Components:
        """Return the glyphs of n_tasks tasks as mixtures, a component for each pixel with ink (weight 0: none)."""
        pool = self._pool()
        ink = pool.ink[torch.randint(len(pool.ink), (n_tasks,), generator=generator)].float()
        darkest, pixel = ink.flatten(1).sort(descending=True, stable=True)
        most = int((darkest > 0).sum(1).max())
        means = ((_places(*ink.shape[1:]) - pool.centre) / pool.scale)[pixel[:, :most]]
        weights = darkest[:, :most] / darkest.sum(1, keepdim=True)
        return Components(weights, means, torch.full_like(means, (self.jitter / pool.scale) ** 2))

    def _pool(self) -> _Glyphs:
        path = glyph_file()
        return _pools(path, path.stat().st_mtime_ns)[self.split]
