"""Files that are written completely or not at all: beside their place, checked there, and then renamed.

Source: rename(2), which is atomic; flock(2), which tells a temporary file that is being written from one left over.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from .lock import hidden_name, is_at, make_folders, real_path, try_lock, unlock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_TOKEN = r"(\d+|[0-9a-f]{16})"  # a process's number, up to version 0.1


def write_bytes(path: Path, *parts: bytes | memoryview, verify: Callable[[Path], None] | None = None) -> None:
    """Write content to a file, completely or not at all. If `path` is a link, its target is written.

    Args:
        path: the file to write; its folder is made.
        parts: the content.
        verify: reads the new file before it takes its place, and raises ValueError if it is not as it should be.

    Raises:
        ValueError: the path is a folder, a device or another special file, it cannot be written, or `verify` raised.
            What stood there stays, and no temporary file remains.

    Example:
        >>> from pathlib import Path
        >>> from gradatim.files.replace import write_bytes
        >>> write_bytes(Path("note.txt"), b"hello")
        >>> Path("note.txt").read_bytes()
        b'hello'
    """
    new = Replacement(path, f"{sum(map(len, parts)):,} bytes needed")
    try:
        with new.refusing():
            for part in parts:
                new.file.write(part)
        new.commit(verify)
    finally:
        new.discard()


class Replacement:
    """A new file that takes the place of another when it is complete.

    It has an unpredictable name beside the target, and the permissions of the file that it replaces. Files that killed
    processes have left for the same target are removed.

    Args:
        path: the file to replace; a link's target is replaced.
        needed: how much is written, for the message of a full disk.

    Attributes:
        file: what to write to.

    Raises:
        ValueError: the path is a folder or another special file, or nothing can be written there.

    Example:
        >>> from pathlib import Path
        >>> from gradatim.files.replace import Replacement
        >>> new = Replacement(Path("rows.txt"))
        >>> _ = new.file.write(b"1 2 3")
        >>> Path("rows.txt").exists(), new.commit(), new.discard(), Path("rows.txt").read_text()
        (False, None, None, '1 2 3')
    """

    file: IO[bytes]

    def __init__(self, path: Path, needed: str = "") -> None:
        self.path, self._needed = path, needed
        self._temporary: Path | None = None
        self._new_folders: list[Path] = []
        with self.refusing():
            self._target = real_path(path)
            _check_regular_file(path, self._target)
            self._new_folders = make_folders(self._target.parent)
            sweep(self._target.parent, re.escape(hidden_name(self._target.name, "")[:-1]))
            try:
                self._temporary, self.file = _create(self._target)
            except BaseException:
                _remove(self._new_folders)
                raise

    def commit(self, verify: Callable[[Path], None] | None = None) -> None:
        """Put the file in its place, after `verify` has read it there where it is.

        Raises:
            ValueError: it cannot be written, or `verify` raised. What stood there stays.
        """
        assert self._temporary is not None
        with self.refusing():
            self.file.flush()
            os.fsync(self.file.fileno())
            if verify is not None:
                _verify(verify, self._temporary, self.path)
            if sys.platform == "win32":  # an open file cannot be renamed there
                self.file.close()
            os.replace(self._temporary, self._target)
            self._temporary = None
            _sync_folder(self._target.parent)

    def discard(self) -> None:
        """Close the file, and remove it unless it is in its place."""
        if self._temporary is not None:
            _remove([*self._new_folders], self._temporary)
            self._temporary = None
        with suppress(OSError, ValueError):  # what is still buffered finds no room
            self.file.close()

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Turn an error of the system into a sentence that names the file.

        Raises:
            ValueError: there was one.
        """
        try:
            yield
        except OSError as error:
            more = f"; {self._needed}" if self._needed else ""
            raise ValueError(
                f"{self.path} could not be written ({error.strerror or error}{more}): make room or choose another "
                "folder; earlier files are intact"
            ) from error


def sweep(folder: Path, names: str) -> None:
    """Remove temporary files that no living process writes.

    Args:
        folder: where they lie.
        names: a pattern of what stands before the random part of their names.

    Example:
        >>> from pathlib import Path
        >>> from gradatim.files.replace import sweep
        >>> for name in (".a.txt.0123456789abcdef.tmp", ".a.txt.mine.tmp"):
        ...     Path(name).touch()
        >>> sweep(Path("."), r"\\.a\\.txt")
        >>> [path.name for path in Path(".").glob(".a*")]
        ['.a.txt.mine.tmp']
    """
    pattern = re.compile(rf"{names}\.{_TOKEN}\.tmp")
    with suppress(OSError):  # a folder that cannot be listed, or that another process removes
        for name in os.listdir(folder):
            if pattern.fullmatch(name):
                _remove_abandoned(folder / name)


def _remove_abandoned(path: Path) -> None:
    """Remove a temporary file if its lock is free: whoever wrote it has ended."""
    with suppress(OSError):  # it is gone, another user's, a link, or on a file system without locks
        if not stat.S_ISREG(path.lstat().st_mode):
            return
        handle = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        try:
            if try_lock(handle) and is_at(handle, path):
                path.unlink()
        finally:
            unlock(handle)


def _create(target: Path) -> tuple[Path, IO[bytes]]:
    """Return a new temporary file for a target, locked, with the permissions of the target."""
    try:
        mode = stat.S_IMODE(target.lstat().st_mode) & 0o777
    except FileNotFoundError:
        mode = None
    while True:
        temporary = target.with_name(hidden_name(target.name, f"{secrets.token_hex(8)}.tmp"))
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        handle = os.open(temporary, flags, 0o666 if mode is None else mode)
        file = os.fdopen(handle, "w+b")
        locked = True
        try:
            if sys.platform != "win32":
                with suppress(OSError):  # a file system without locks, where nothing is swept either
                    locked = try_lock(handle)
                if mode is not None:
                    os.fchmod(handle, mode)
            if locked and is_at(handle, temporary):
                return temporary, file
        except BaseException:
            _remove([], temporary)
            file.close()
            raise
        file.close()  # a sweep took it, or has locked it to do so, in the moment before the lock


def _verify(verify: Callable[[Path], None], temporary: Path, path: Path) -> None:
    """Call `verify` on a temporary file, and let its message name the file that is meant."""
    try:
        verify(temporary)
    except ValueError as error:
        reason = str(error).replace(str(temporary), "what was written")
        raise ValueError(f"{path} was not written, and what stood there stays: {reason}") from error


def _remove(folders: list[Path], temporary: Path | None = None) -> None:
    """Remove what a write leaves that did not end: its file, and the folders made for it."""
    if temporary is not None:
        with suppress(OSError):
            temporary.unlink()
    for folder in folders:
        with suppress(OSError):  # it is in use by now
            folder.rmdir()


def _check_regular_file(path: Path, target: Path) -> None:
    """Raise ValueError if `target`, to which `path` leads, is something that a rename must not replace."""
    try:
        mode = target.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        leads = "" if target == path.absolute() else f" leads to {target}, which"
        raise ValueError(
            f"{path}{leads} is not a regular file (it is a folder, a device, a pipe or a loop of links): "
            "give another path"
        )


def _sync_folder(folder: Path) -> None:
    """Flush a folder to disk, so that a rename survives a power failure, where the system allows it."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    with suppress(OSError):  # the file is in its place already, and complete
        handle = os.open(folder, os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
