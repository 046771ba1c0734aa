"""Arrays from npz files, never from pickles. Sizes are known and checked before anything is unpacked.

Source: NumPy enhancement proposal 1 (the file format); RFC 1951 (deflate makes 1032 bytes of one at most).
"""

from __future__ import annotations

import math
import os
import stat
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable, Collection
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BYTES = 8 * 2**30
"""Bytes of one array, unpacked."""

MAX_RATIO = 1100
"""Bytes that deflate makes of one, at most; more is no array that was packed."""

FAULTS = (
    EOFError,
    OSError,
    ValueError,
    TypeError,
    LookupError,
    SyntaxError,
    ArithmeticError,
    MemoryError,
    RuntimeError,
    tokenize.TokenError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
)
"""What libraries raise at damaged files."""


@dataclass(frozen=True)
class Member:
    """An array in a file that is not read yet.

    Fields: `shape`; `read`: returns the array of that shape, or raises ValueError.

    Example:
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from gradatim.families.archives import list_npz
        >>> np.savez("mine.npz", embeddings=np.ones((10, 4)))
        >>> member = list_npz(Path("mine.npz"))["embeddings"]
        >>> member.shape, float(member.read().sum())
        ((10, 4), 40.0)
    """

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]

    @property
    def ndim(self) -> int:
        """Return the number of axes."""
        return len(self.shape)


def read_npz(path: Path, keys: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Return the arrays of an npz file by key, each of its own shape `[...]`.

    Args:
        path: the file.
        keys: those that are read, if the file has them; None: all.

    Raises:
        ValueError: a file that is truncated, of another format, a single array, or holds pickled objects; an array
            that would take more than `MAX_BYTES`, or more than the file can hold.

    Example:
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from gradatim.families.archives import read_npz
        >>> np.savez("mine.npz", embeddings=np.zeros((10, 4)), labels=np.zeros(10))
        >>> {key: array.shape for key, array in read_npz(Path("mine.npz"), ["embeddings"]).items()}
        {'embeddings': (10, 4)}
    """
    arrays = {}
    with _opened(path) as archive:
        for key, info in _members(archive).items():
            if keys is None or key in keys:
                with archive.open(info) as file:
                    shape, fortran, dtype = _header(file, info, key)
                    content = read_exactly(file, math.prod(shape) * dtype.itemsize)
                flat = np.frombuffer(content, dtype) if content else np.empty(0, dtype)
                arrays[key] = flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)
    return arrays


def list_npz(path: Path) -> dict[str, Member]:
    """Return what arrays an npz file holds, by key; only their headers are read.

    Raises:
        ValueError: as `read_npz`.
    """
    members = {}
    with _opened(path) as archive:
        for key, info in _members(archive).items():
            with archive.open(info) as file:
                shape, _, _ = _header(file, info, key)
            members[key] = Member(shape, lambda key=key: read_npz(path, [key])[key])
    return members


@contextmanager
def regular_file(path: Path) -> Iterator[IO[bytes]]:
    """Yield a regular file, open for reading. A pipe or a device is refused and not waited for.

    Raises:
        OSError: it is none, or cannot be read.

    Example:
        >>> from pathlib import Path
        >>> from gradatim.families.archives import regular_file
        >>> _ = Path("a.txt").write_text("abc")
        >>> with regular_file(Path("a.txt")) as file:
        ...     file.read()
        b'abc'
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError("it is no regular file")
        yield file


def read_exactly(file: IO[bytes], count: int) -> bytearray:
    """Return the bytes that are left in a file, which must be so many. Memory for them grows with what is there.

    Raises:
        ValueError: they are more, or fewer.

    Example:
        >>> import io
        >>> from gradatim.families.archives import read_exactly
        >>> read_exactly(io.BytesIO(b"abc"), 3)
        bytearray(b'abc')
    """
    content = bytearray()
    while len(content) < count:
        piece = file.read(min(count - len(content), 2**24))
        if not piece:
            raise ValueError(f"it is truncated: it has {len(content):,} bytes of {count:,}")
        content += piece
    if file.read(1):
        raise ValueError(f"it has more than the {count:,} bytes that it says")
    return content


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Yield an archive; whatever goes wrong with it becomes one sentence."""
    try:
        with regular_file(path) as file:
            if file.read(6) == b"\x93NUMPY":
                file.seek(0)
                raise ValueError(f"it is a single array of shape {_parse(file)[0]}"[:200])
            with zipfile.ZipFile(file) as archive:
                yield archive
    except FAULTS as error:
        raise ValueError(
            f"{path} cannot be read as npz without pickles ({reason_of(error)}): write it anew with np.savez"
        ) from error


def reason_of(error: BaseException) -> str:
    """Return what went wrong with a file in plain words.

    Example:
        >>> from gradatim.families.archives import reason_of
        >>> reason_of(IndexError("list index out of range"))
        'it is damaged'
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if type(error) in (ValueError, OSError, zipfile.BadZipFile) and str(error):
        return " ".join(str(error).split())[:200]
    return "it is damaged"


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return the members of an archive that are arrays, by key, their sizes checked."""
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        key = info.filename.removesuffix(".npy")
        if key in members:
            raise ValueError(f"it has two arrays called {key[:60]!r}")
        if info.file_size > MAX_BYTES or info.file_size > MAX_RATIO * (info.compress_size + 64):
            raise ValueError(
                f"{key[:60]!r} would take {info.file_size:,} bytes, packed in {info.compress_size:,}: that is no array"
            )
        if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{key[:60]!r} is encrypted, or packed in another way than by np.savez")
        members[key] = info
    return members


def _parse(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return shape, order and type in the header of an array."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"it has the format {version[0]}.{version[1]}; known are 1.0 and 2.0")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of headers that Python 2 wrote, and of damaged ones
        return read(file)


def _header(file: IO[bytes], info: zipfile.ZipInfo, key: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return shape, order and type of an array, which must take all bytes of its member."""
    shape, fortran, dtype = _parse(file)
    if dtype.hasobject:
        raise ValueError(f"{key[:60]!r} holds pickled objects")
    if dtype.kind == "V" or dtype.subdtype is not None or not dtype.itemsize:
        raise ValueError(f"{key[:60]!r} holds records or nothing: write each field as an array")
    needed, available = math.prod(shape) * dtype.itemsize, info.file_size - file.tell()
    if min(shape, default=0) < 0 or needed != available:
        raise ValueError(
            f"{key[:60]!r} needs {needed:,} bytes for shape {shape}, and has {available:,}"[:200]
        )
    return shape, fortran, dtype
