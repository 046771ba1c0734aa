"""One file: tensors and a JSON header as bytes, with a checksum, and back again.

A file is opened and read once. Its layout, its checksum and its entries are checked before anything is allocated.

Source: the safetensors format (8 bytes of header length, a JSON header, the tensors); FIPS 180-4 (SHA-256).
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from safetensors.torch import save

from .contract import blamed, brief, check_entries, parse_json, text
from .layout import Layout, Truncated, parse_layouts
from .lock import real_path

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO

    from torch import Tensor

    Check = Callable[[dict[str, Any], dict[str, Layout]], None]

FORMAT = 2
SUPPORTED = (1, 2)
"""Versions that are read. Version 1, of gradatim 0.1, has no checksum; whatever is read is written as `FORMAT`."""

KINDS = ("checkpoint", "state", "groups", "rehearsal", "reprogramming")
_SPOKEN = {
    "groups": "a state of groups",
    "rehearsal": "a rehearsal classifier",
    "reprogramming": "a reprogrammed model",
}
MAX_HEADER_BYTES = 5_000_000

_METADATA = {"gradatim": text().optional(), "sha256": text(r"[0-9a-f]{64}", "a SHA-256").optional()}
_MADE = "take an earlier checkpoint, or write it again"


class _Head(NamedTuple):
    """What stands before the tensors of a file: its bytes, the header, the layouts, and the sum or None."""

    content: bytes
    text: str
    header: dict[str, Any]
    layouts: dict[str, Layout]
    checksum: str | None


def encode(tensors: dict[str, Tensor], header: dict[str, Any]) -> tuple[bytes, memoryview]:
    """Return the bytes of a file, those before the tensors first: tensors of any shape on the CPU, and JSON values.

    Raises:
        ValueError: a header that is not JSON, or too long.

    Example:
        >>> import torch
        >>> from gradatim.files.container import encode
        >>> head, body = encode({"weight": torch.ones(2)}, {"kind": "state"})
        >>> len(body), b"sha256" in head
        (8, True)
    """
    text = to_text({**header, "gradatim_format": FORMAT})
    content = save(tensors)
    start = 8 + int.from_bytes(content[:8], "little")
    entries, body = json.loads(content[8:start]), memoryview(content)[start:]
    # written anew: the library has no order of metadata, and equal states must be equal files
    metadata = {"gradatim": text, "sha256": _checksum(text, entries, body)}
    head = json.dumps({"__metadata__": metadata, **entries}, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    if len(head) > MAX_HEADER_BYTES:
        raise ValueError(
            f"the header would take {len(head):,} bytes, of {MAX_HEADER_BYTES:,} at most: leave out columns of long "
            "texts, or columns that say nothing"
        )
    return len(head).to_bytes(8, "little") + head, body


def to_text(header: dict[str, Any]) -> str:
    """Return a header as JSON.

    Raises:
        ValueError: it holds something else than plain values and finite numbers.

    Example:
        >>> from gradatim.files.container import to_text
        >>> to_text({"seeds": (1, 2)})
        '{"seeds": [1, 2]}'
    """
    try:
        return json.dumps(header, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"a header must be JSON, plain values in lists and dicts, finite numbers; {error}"
        ) from error


def read_content(
    path: Path,
    kind: str | None = None,
    check: Check | None = None,
) -> tuple[bytes, dict[str, Any]]:
    """Return all bytes of a file, read once and checked, and its header.

    Args:
        path: the file.
        kind: the required kind of the file, or None for any.
        check: called with the header and the types and shapes, before the tensors are read; raises ValueError.

    Raises:
        ValueError: the file is missing, truncated, damaged, foreign, of another kind, or of a format version that is
            not supported. One line, which names the file.

    Example:
        >>> from gradatim.files.checkpoint import write
        >>> from gradatim.files.container import read_content
        >>> content, header = read_content(write("empty.safetensors", {}, {"kind": "state"}))
        >>> header["gradatim_format"]
        2
    """
    with closing(_open(path)) as file:
        size = os.fstat(file.fileno()).st_size
        head = _read_head(path, file, size)
        header = _check_head(path, head, kind)
        with blamed(path):
            if check is not None:
                check(header, head.layouts)
        try:
            body = file.read(size - len(head.content))
        except (OSError, MemoryError) as error:
            raise ValueError(f"{path} cannot be read ({_reason(error)}): {_MADE}") from error
    if len(head.content) + len(body) < size:
        raise ValueError(f"{path} is truncated: it became shorter while it was read: {_MADE}")
    if head.checksum is not None:
        layouts = parse_json(head.content[8:])
        layouts.pop("__metadata__")
        if _checksum(head.text, layouts, body) != head.checksum:
            raise ValueError(
                f"{path} is damaged: its checksum is not that of its contents: take an earlier copy, or write it again"
            )
    return head.content + body, header


def _open(path: Path) -> IO[bytes]:
    """Return a regular file, open for reading. Anything else is refused without waiting for it."""
    real_path(path)
    try:
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        file = os.fdopen(os.open(path, flags), "rb")
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({_reason(error)}): check the path") from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise ValueError(f"{path} cannot be read (it is no regular file): check the path")
    return file


def _read_head(path: Path, file: IO[bytes], size: int) -> _Head:
    """Return what stands before the tensors of a complete file of this project, of any version."""
    foreign = f"{path} is not a file of gradatim"
    try:
        first = file.read(8)
        length = int.from_bytes(first, "little")
        raw = file.read(min(length, MAX_HEADER_BYTES))
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({_reason(error)}): check the path") from error
    if size >= 8 and (length > MAX_HEADER_BYTES or raw[:1] not in (b"", b"{")):
        raise ValueError(f"{foreign}: it is not safetensors; give a file that gradatim wrote")
    truncation = f"{path} is truncated: it has {size:,} bytes"
    if size < 8 or len(raw) < length:
        raise ValueError(f"{truncation}, its header alone needs {length + 8:,}: {_MADE}")
    try:
        entries = parse_json(raw)
        check_entries(entries, {}, "header", further=True)
        metadata = entries.pop("__metadata__", {})
        check_entries(metadata, _METADATA, "metadata", further=True)
        text, checksum = metadata.get("gradatim", "null"), metadata.get("sha256")
        header = parse_json(text)
        layouts = parse_layouts(entries, size - 8 - length)
    except Truncated as error:
        needed = 8 + length + error.needed
        raise ValueError(f"{truncation}, expected {needed:,}: {_MADE}") from error
    except ValueError as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{foreign}: it is not safetensors, or damaged ({reason}); give a file that gradatim wrote"
        ) from error
    if not isinstance(header, dict) or not {"gradatim_format", "kind"} <= header.keys():
        raise ValueError(f"{foreign}: safetensors without its header; give a file that gradatim wrote")
    if unknown := sorted(metadata.keys() - {"gradatim", "sha256"}):
        raise ValueError(f"{foreign}: its metadata has {brief(unknown[0])}; give a file that gradatim wrote")
    return _Head(first + raw, text, header, layouts, checksum)


def _check_head(path: Path, head: _Head, kind: str | None) -> dict[str, Any]:
    """Return the header of a file, of a supported version and of the kind that is wanted."""
    version, stored = head.header["gradatim_format"], head.header["kind"]
    if isinstance(version, bool) or not isinstance(version, int) or version not in SUPPORTED:
        newer = isinstance(version, int) and version > FORMAT
        advice = "upgrade gradatim" if newer else "read it with an older gradatim, or train again"
        readable = ", ".join(map(str, SUPPORTED))
        raise ValueError(
            f"{path} has format version {brief(version)}; this gradatim reads {readable}: {advice}"
        )
    if stored not in KINDS:
        raise ValueError(
            f"{path} holds a {brief(stored)}, which this gradatim does not have: upgrade gradatim"
        )
    if (head.checksum is None) != (version == 1):
        raise ValueError(f"{path} is damaged: it must have a checksum from format version 2 on: {_MADE}")
    if kind is not None and stored != kind:
        found, wanted = (_SPOKEN.get(word, f"a {word}") for word in (stored, kind))
        raise ValueError(f"{path} holds {found}, expected {wanted}: choose another file")
    return head.header


def _checksum(text: str, layouts: dict[str, Any], body: bytes | memoryview) -> str:
    """Return the SHA-256 of a header, of the layouts as JSON, and of all tensors."""
    digest = hashlib.sha256(text.encode())
    digest.update(json.dumps(layouts, sort_keys=True, separators=(",", ":")).encode())
    digest.update(body)
    return digest.hexdigest()


def _reason(error: Exception) -> str:
    """Return what went wrong, in the system's words."""
    if isinstance(error, MemoryError):
        return "it does not fit into memory"
    return getattr(error, "strerror", None) or str(error)
