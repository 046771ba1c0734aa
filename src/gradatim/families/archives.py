"""Arrays of a file that somebody hands us: npz, never a pickle.

Source: DESIGN.md, Bad input; the format is NumPy's (NEP 1).
"""

from __future__ import annotations

import zipfile
import zlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of an npz file by key.

    Raises:
        ValueError: a file that cannot be read so: truncated, foreign, a single array, pickled objects.

    Example:
        >>> read_npz(Path("mine.npz"))["embeddings"].shape
        (1000, 384)
    """
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            raise ValueError(f"it is a single array of shape {found.shape}")
        with found as archive:
            return {key: archive[key] for key in archive.files}
    except (EOFError, OSError, ValueError, zlib.error, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} cannot be read as npz without pickles ({error})") from error
