"""Arrays from npz files, never from pickles.

Source: NumPy enhancement proposal 1 (the file format).
"""

from __future__ import annotations

import zipfile
import zlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of an npz file by key, each of its own shape `[...]`.

    Raises:
        ValueError: a file that is truncated, of another format, a single array, or holds pickled objects.

    Example:
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from gradatim.families.archives import read_npz
        >>> np.savez("mine.npz", embeddings=np.zeros((10, 4)))
        >>> read_npz(Path("mine.npz"))["embeddings"].shape
        (10, 4)
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise ValueError(f"it is a single array of shape {loaded.shape}")
        with loaded as archive:
            return {key: archive[key] for key in archive.files}
    except (EOFError, OSError, ValueError, zlib.error, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} cannot be read as npz without pickles ({error})") from error
