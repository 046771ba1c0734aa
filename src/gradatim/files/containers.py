"""What holds a table: a file, compressed or not, a folder, a pattern of names, or standard input.

Source: the signatures (first bytes) of these formats, as their specifications give them.
"""

from __future__ import annotations

import bz2
import glob
import gzip
import io
import lzma
import os
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .cells import arrow
from .foreign import is_text, refuse_archive, refuse_foreign

STANDARD_INPUT = "-"

SUFFIXES = (".csv", ".tsv", ".txt", ".tab", ".psv", ".json", ".jsonl", ".ndjson", ".parquet", ".pq", ".arrow")
SUFFIXES = (*SUFFIXES, ".feather", ".ipc", ".arrows")
"""Ends of the names of files that are tables; compression may follow."""

PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip")

_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    **{
        b"BZh%d%b" % (level, block): "bz2" for level in range(1, 10) for block in (b"1AY&SY", b"\x17rE8P\x90")
    },
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
}

_TYPED = {b"PAR1": "parquet", b"ARROW1": "arrow", b"\xff\xff\xff\xff": "arrow stream"}

_READ_ERRORS = (
    OSError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    RuntimeError,
    NotImplementedError,
)


@dataclass(frozen=True)
class Container:
    """One file, or a stream that is read once.

    Fields: `label`: its name in messages; `path`: of the file, None for standard input; `format`: "text", "json",
    "parquet", "arrow" or "arrow stream"; `compression`: of its bytes, or ""; `stream`: for what is read once.

    Example:
        >>> from pathlib import Path
        >>> from gradatim.files.containers import containers
        >>> _ = Path("small.csv").write_text("a,b\\n1,2\\n")
        >>> [(container.format, container.label) for container in containers("small.csv")]
        [('text', 'small.csv')]
    """

    label: str
    path: Path | None
    format: str
    compression: str = ""
    stream: ByteStream | None = None

    @property
    def rereadable(self) -> bool:
        """Whether it can be opened more than once."""
        return self.stream is None

    @contextmanager
    def open(self) -> Iterator[ByteStream]:
        """Open its bytes, decompressed.

        Raises:
            ValueError: on reading, if it cannot be decompressed.
        """
        if self.stream is not None:
            try:
                yield self.stream
            finally:
                self.stream.close()
            return
        stream = _open_file(self.path or Path(), self.label, self.compression)
        try:
            yield stream
        finally:
            stream.close()


class ByteStream:
    """Bytes that are read in pieces; `share` is the share of them that has been read.

    Example:
        >>> import io
        >>> from gradatim.files.containers import ByteStream
        >>> ByteStream("file", io.BytesIO(b"abc"), 3).read(2)
        b'ab'
    """

    def __init__(self, label: str, raw: Any, size: int = 0, unpacked: Any = None) -> None:
        self.label, self._raw, self._size = label, raw, size
        self._bytes = raw if unpacked is None else unpacked
        self._ahead = b""
        self.member = ""  # its name in an archive

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes; none at the end.

        Raises:
            ValueError: the file cannot be read or decompressed.
        """
        if self._ahead:
            data, self._ahead = self._ahead[:size], self._ahead[size:]
            return data
        try:
            return self._bytes.read(size) or b""
        except _READ_ERRORS as error:
            raise ValueError(f"{self.label} cannot be read ({error}): write it again") from error

    def peek(self, size: int, minimum: int = 1) -> bytes:
        """Return the next bytes, which are read again later: at most `size`, and `minimum` unless the file ends."""
        data = b""
        while len(data) < minimum and (more := self.read(size - len(data))):
            data += more
        self._ahead = data + self._ahead
        return data

    @property
    def share(self) -> float:
        """The share of the file that has been read."""
        return min(1.0, self._raw.tell() / self._size) if self._size else 0.0

    def close(self) -> None:
        """Close the file; standard input stays open."""
        if self._raw is not getattr(sys.stdin, "buffer", None):
            self._bytes.close()
            self._raw.close()


def containers(path: Path | str) -> list[Container]:
    """Return the files that a path names: itself, those of a folder, or those that fit a pattern such as data/*.csv.

    Raises:
        ValueError: there is none, or one is empty or of a format that is not read; the message names it.

    Example:
        >>> from pathlib import Path
        >>> from gradatim.files.containers import containers
        >>> for name in ("part-1.csv", "part-2.csv"):
        ...     _ = Path(name).write_text("a,b\\n1,2\\n")
        >>> [container.label for container in containers("part-*.csv")]
        ['part-1.csv', 'part-2.csv']
    """
    name = os.fspath(path)
    if name == STANDARD_INPUT:
        return [_once("standard input", _standard_input())]
    if not name:
        raise ValueError(
            "the name of the file is empty: give a file, a folder, a pattern, or - for standard input"
        )
    path = Path(path)
    try:
        exists = path.exists()
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({error}): check the path") from error
    if path.is_dir():
        files = _folder_files(path)
        if not files:
            raise ValueError(
                f"{path} is a folder without tables: give a file, or a folder with CSV or Parquet files"
            )
        return [_container(file) for file in files]
    if not exists and glob.has_magic(name):
        files = sorted(Path(match) for match in glob.glob(name, recursive=True) if Path(match).is_file())
        if not files:
            raise ValueError(f"no file fits {name}: check the pattern")
        return [_container(file) for file in files]
    if not exists:
        raise ValueError(f"{path} does not exist: check the path")
    if not path.is_file():
        if not (path.is_fifo() or path.is_char_device()):
            raise ValueError(f"{path} is not a file: give a CSV or Parquet file")
        return [_once(str(path), path.open("rb", buffering=0))]
    return [_container(path)]


def _standard_input() -> Any:
    """Return the bytes of standard input, which come as they are written."""
    try:
        return io.FileIO(sys.stdin.fileno(), closefd=False)
    except (AttributeError, OSError, ValueError):  # none, or one that a program has put in its place
        buffer = getattr(sys.stdin, "buffer", None)
        if buffer is None:
            raise ValueError("there is no standard input: give a file") from None
        return buffer


def _folder_files(folder: Path) -> list[Path]:
    """Return the tables in a folder and the folders in it, in order of their names; hidden ones are left out."""
    files = []
    for file in sorted(folder.rglob("*")):
        parts = file.relative_to(folder).parts
        suffixes = [suffix for suffix in file.suffixes if suffix not in PACKED]
        hidden = any(part.startswith((".", "_")) for part in parts)
        if (
            file.is_file()
            and not hidden
            and (not file.suffix or (suffixes[-1:] and suffixes[-1] in SUFFIXES))
        ):
            files.append(file)
    return files


def _compression(start: bytes) -> str:
    """Return how the bytes of a file are compressed, by the first of them, which begin no text; or nothing."""
    return next((name for magic, name in _COMPRESSED.items() if start.startswith(magic)), "")


def _container(path: Path) -> Container:
    """Return a file, after a look at its first bytes."""
    try:
        with path.open("rb") as file:
            start = file.read(1024)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): check the path") from error
    if not start:
        raise ValueError(f"{path} is empty: expected a line of column names and rows below it")
    compression = _compression(start)
    if not compression and path.suffix in PACKED:
        raise ValueError(
            f"{path} is not compressed, despite its name, and cannot be read: write it again, or rename it"
        )
    if not compression:
        return Container(str(path), path, _format(str(path), path.suffix, start))
    stream = _open_file(path, str(path), compression)
    try:
        start = stream.peek(1024, 1024)
        inner = stream.member or path.stem
    finally:
        stream.close()
    if not start:
        raise ValueError(f"{path} is empty: expected a line of column names and rows below it")
    kind = _format(str(path), Path(inner).suffix, start)
    if kind in ("parquet", "arrow"):
        raise ValueError(
            f"{path} holds a compressed {kind.title()} file: unpack it, since these compress themselves"
        )
    return Container(str(path), path, kind, compression)


def _once(label: str, raw: Any) -> Container:
    """Return a stream that is read once, after a look at its first bytes."""
    stream = ByteStream(label, raw)
    start = stream.peek(1024)
    if not start:
        raise ValueError(f"{label} is empty: expected a line of column names and rows below it")
    if len(start) < 10 and any(magic.startswith(start) for magic in (*_COMPRESSED, *_TYPED)):
        start = stream.peek(1024, 10)
    compression = _compression(start)
    if compression == "zip" or (start.startswith((b"PAR1", b"ARROW1")) and not is_text(start)):
        raise ValueError(f"{label} holds a file that is not read from its start: give the file itself")
    if compression:
        reader = _Reader(stream)
        stream = ByteStream(label, reader, 0, _unpack(reader, compression))
        start = stream.peek(1024)
    return Container(label, None, _format(label, Path(label).suffix, start), compression, stream)


class _Reader(io.RawIOBase):
    """The bytes of a stream as a file, for what decompresses them."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _open_file(path: Path, label: str, compression: str) -> ByteStream:
    """Return the bytes of a file, decompressed."""
    raw = path.open("rb", buffering=0 if not compression else -1)
    size = path.stat().st_size
    if compression != "zip":
        return ByteStream(label, raw, size, _unpack(raw, compression) if compression else None)
    try:
        archive = zipfile.ZipFile(raw)
        member = _member(archive, label)
        stream = ByteStream(label, raw, size, archive.open(member))
    except _READ_ERRORS as error:
        raw.close()
        raise ValueError(f"{label} cannot be read ({error}): write it again") from error
    except ValueError:
        raw.close()
        raise
    stream.member = member
    return stream


def _member(archive: zipfile.ZipFile, label: str) -> str:
    """Return the name of the one table in an archive."""
    names = [name for name in archive.namelist() if not name.endswith("/")]
    refuse_archive(label, names)
    names = [
        name for name in names if not name.startswith("__MACOSX/") and not Path(name).name.startswith(".")
    ]
    tables = [name for name in names if Path(name).suffix.lower() in SUFFIXES] or names
    if len(tables) != 1:
        what = (
            f"{len(tables)} tables ({', '.join(tables[:5])}{', ...' if len(tables) > 5 else ''})"
            if tables
            else "no file"
        )
        raise ValueError(
            f"{label} holds {what}: unpack it and give one table, or a folder of tables with the same columns"
        )
    return tables[0]


def _unpack(raw: Any, compression: str) -> Any:
    """Return the decompressed bytes of a file."""
    if compression == "gzip":
        return gzip.GzipFile(fileobj=raw)
    if compression == "bz2":
        return bz2.BZ2File(raw)
    if compression == "xz":
        return lzma.LZMAFile(raw)
    return arrow().CompressedInputStream(raw, "zstd")


def _format(label: str, suffix: str, start: bytes) -> str:
    """Return the format of a file from its first bytes, and its suffix where they are text.

    Raises:
        ValueError: it is not read; the message says how to convert it.
    """
    for magic, name in _TYPED.items():
        if start.startswith(magic) and not is_text(start):
            return name
    refuse_foreign(label, suffix, start)
    for suffixes, name in (
        ((".parquet", ".pq"), "a Parquet"),
        ((".arrow", ".feather", ".ipc", ".arrows"), "an Arrow"),
    ):
        if suffix.lower() in suffixes:
            raise ValueError(f"{label} is not {name} file, despite its name: write it again, or rename it")
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<table", b"<?xml")):
        raise ValueError(
            f"{label} is a web page or XML: save its table as CSV (pandas: pandas.read_html(...)[0].to_csv)"
        )
    is_object = text.startswith(
        (b'{"', b"{ ", b"{}", b"{\n", b"{\r", b"[{", b"[\n", b"[\r", b"[ ")
    ) or text in (b"{", b"[")
    return "json" if is_object or suffix.lower() in (".json", ".jsonl", ".ndjson") else "text"
