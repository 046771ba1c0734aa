"""Generation tasks from real letters: points on the ink of Omniglot.

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
_CONTENTS = (
    "images [letters, drawers, height, width] uint8 (255 = ink), alphabet [letters], background [letters] bool; "
    "published at https://github.com/brendenlake/omniglot"
)


class _Glyphs(NamedTuple):
    """The glyphs of one split, `ink [glyphs, height, width]`, and the mean and deviation of training ink, in pixels."""

    ink: Tensor
    centre: Tensor
    scale: float


def glyph_file() -> Path:
    """Return the file of glyphs, `$GRADATIM_DATA/images/omniglot_28.npz`.

    Raises:
        ValueError: the variable is not set, or the file does not exist; the message says what it must hold.

    Example:
        >>> import os, pathlib
        >>> from unittest import mock
        >>> from gradatim.families.alphabets import glyph_file
        >>> pathlib.Path("images").mkdir(exist_ok=True)
        >>> pathlib.Path("images/omniglot_28.npz").touch()
        >>> with mock.patch.dict(os.environ, GRADATIM_DATA="."):
        ...     print(glyph_file())
        images/omniglot_28.npz
    """
    root = os.environ.get("GRADATIM_DATA")
    if not root:
        raise ValueError(
            f"alphabets are read from a file: set the environment variable GRADATIM_DATA to a folder that holds "
            f"images/{FILE} with {_CONTENTS}"
        )
    path = Path(root) / "images" / FILE
    if not path.is_file():
        raise ValueError(f"alphabets need {path} (below GRADATIM_DATA) with {_CONTENTS}")
    return path


def read_glyphs(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return images `[letters, drawers, height, width]`, alphabets `[letters]` and background flags `[letters]`.

    Raises:
        ValueError: a file that is damaged, lacks one of the arrays, or has a glyph without ink.

    Example:
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from gradatim.families.alphabets import read_glyphs
        >>> ink = np.full((2, 3, 4, 4), 255, np.uint8)
        >>> np.savez("glyphs.npz", images=ink, alphabet=[0, 1], background=[True, False])
        >>> read_glyphs(Path("glyphs.npz"))[0].shape
        (2, 3, 4, 4)
    """
    try:
        arrays = read_npz(path, ["images", "alphabet", "background"])
        images, alphabet, background = (arrays[key] for key in ("images", "alphabet", "background"))
    except KeyError as error:
        raise ValueError(f"{path} has no {error.args[0]}: it must be an npz of {_CONTENTS}") from error
    except ValueError as error:
        raise ValueError(f"{path} cannot be read ({error}): it must be an npz of {_CONTENTS}") from error
    paired = images.ndim == 4 and {alphabet.shape, background.shape} == {(len(images),)}
    if not paired or images.dtype != np.uint8 or not images.size:
        raise ValueError(f"{path} must hold {_CONTENTS}; got images {images.dtype} {images.shape}")
    without_ink = np.argwhere(images.max((2, 3)) == 0)
    if len(without_ink):
        letter, drawer = without_ink[0].tolist()
        raise ValueError(
            f"every glyph of {path} needs ink; letter {letter} by drawer {drawer} has none: leave it out"
        )
    return images, alphabet, background.astype(bool)


def _parts(alphabet: np.ndarray, background: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the letters of train, validation and test. Validation has a fifth of each background alphabet."""
    stream = np.random.RandomState(0)
    train, validation = [], []
    for name in np.unique(alphabet[background]):
        letters = stream.permutation(np.flatnonzero(background & (alphabet == name)))
        cut = max(1, len(letters) // 5)
        validation.append(letters[:cut])
        train.append(letters[cut:])
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(validation)), np.flatnonzero(~background)


@lru_cache(maxsize=4)
def _pools(path: Path, changed: int) -> dict[str, _Glyphs]:
    """Return the glyphs by split. The file is read again where its time of change `changed` differs."""
    images, alphabet, background = read_glyphs(path)
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
    share, positions = (total / total.sum()).flatten(), _positions(height, width).double()
    centre = share @ positions
    scale = (share @ (positions - centre).square()).mean().sqrt()
    return {
        split: _Glyphs(ink, centre.float(), float(scale)) for split, ink in zip(SPLITS, parts, strict=True)
    }


def _positions(height: int, width: int) -> Tensor:
    """Return the coordinates (right, up) of every pixel's centre, `[height * width, 2]`."""
    up, right = torch.meshgrid(-torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([right, up], dim=-1).flatten(0, 1).float()


@dataclass(frozen=True)
class Alphabets(FlowFamily):
    """Points on the ink of one handwritten letter, a new glyph for each task.

        p(point) = sum_k ink_k N(point; position_k, jitter^2 I) / sum_k ink_k

    The sums are over the pixels k of the glyph. Coordinates (right, up) are standardised over the ink of the training
    glyphs. The glyphs are read from `$GRADATIM_DATA/images/omniglot_28.npz`. The pools share no letter:

    - train: letters of the background alphabets;
    - validation: a fifth of the letters of each, held out;
    - test: the other alphabets.

    Shapes: x = [x_t, t] `[B, N, 3]`, y `[B, N, 2]`, `truth = E[y | x]` at the query `[B, Nq, 2]`.

    Fields: `jitter`: standard deviation about a pixel's centre, in pixels; `split`: the pool.

    Raises:
        ValueError: an unknown split, jitter not above 0, impossible rows. When sampling: a file that is missing or
            damaged, a glyph without ink.

    Example:
        >>> from gradatim.families import Alphabets
        >>> family = Alphabets(support_rows=320).on("test")
        >>> family.x_dim, family.support_rows, family.split
        (3, 320, 'test')

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
            ValueError: another name.
        """
        return replace(self, split=split)

    def glyphs(self) -> Tensor:
        """Return the ink of every glyph of the pool, `[glyphs, height, width]` uint8.

        Raises:
            ValueError: the file is missing or damaged.
        """
        return self._pool().ink

    def components(self, n_tasks: int, generator: torch.Generator) -> Components:
        """Return the glyphs of n_tasks tasks as mixtures.

        Each pixel with ink is a component. K is the largest number of them; further weights of a glyph are 0.

        Returns:
            `Components`: weights `[B, K]`, means and variances `[B, K, 2]`.
        """
        pool = self._pool()
        ink = pool.ink[torch.randint(len(pool.ink), (n_tasks,), generator=generator)].float()
        values, pixel = ink.flatten(1).sort(descending=True, stable=True)
        size = int((values > 0).sum(1).max())
        means = ((_positions(*ink.shape[1:]) - pool.centre) / pool.scale)[pixel[:, :size]]
        weights = values[:, :size] / values.sum(1, keepdim=True)
        return Components(weights, means, torch.full_like(means, (self.jitter / pool.scale) ** 2))

    def _pool(self) -> _Glyphs:
        path = glyph_file()
        return _pools(path, path.stat().st_mtime_ns)[self.split]
