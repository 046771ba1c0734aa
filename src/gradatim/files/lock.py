"""A lock on a file, between processes and threads: read, change and write it without losing what others write.

Source: flock(2); the check of the inode after locking, as in lckpwdf and in pip's cache.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE = 1.0
"""Seconds of waiting after which the user is told."""

_PAUSE = 0.02
_LONG_NAME = 200  # bytes; file systems allow 255
_ADVICE = "use a folder that can be written to, on a disk with file locks"
_BUSY = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)


@contextmanager
def locked(
    path: Path | str, wait: float = 60.0, notify: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Hold the lock of a file. Only one thread of one process holds it at a time.

    The lock is that of the file `.NAME.lock` beside `path`, or beside the target if `path` is a link. The system
    releases it when a process ends, however it ends. The lock file is removed at the end. A thread that holds a lock
    must not ask for it a second time.

    Args:
        path: the file that is read, changed and written; it need not exist.
        wait: the seconds to wait for another holder, at most.
        notify: called once with a sentence, after a second of waiting.

    Raises:
        ValueError: another process held the lock for all of `wait`, or nothing can be locked in that folder.

    Example:
        >>> from pathlib import Path
        >>> from gradatim.files.lock import locked
        >>> with locked("count.txt"):
        ...     _ = Path("count.txt").write_text("1")
        >>> Path(".count.txt.lock").exists()
        False
    """
    target = real_path(path)
    lock_path = target.with_name(hidden_name(target.name, "lock"))
    try:
        new_folders = make_folders(target.parent)
    except OSError as error:
        raise ValueError(f"{path} cannot be locked ({error.strerror}): {_ADVICE}") from error
    try:
        handle = _acquire(lock_path, Path(path), wait, notify)
        try:
            yield
        finally:
            with suppress(OSError):  # a folder of others with the sticky bit, or Windows: an empty file stays
                lock_path.unlink()
            unlock(handle)
    finally:
        for folder in new_folders:
            with suppress(OSError):  # it holds the file by now
                folder.rmdir()


def real_path(path: Path | str) -> Path:
    r"""Return where a path leads, through links.

    Raises:
        ValueError: it holds a character that no path has.

    Example:
        >>> from gradatim.files.lock import real_path
        >>> real_path("a\0b")
        Traceback (most recent call last):
        ValueError: 'a\x00b' is no path: it holds a null character
    """
    if "\0" in os.fspath(path):
        raise ValueError(f"{os.fspath(path)!r} is no path: it holds a null character")
    return Path(os.path.realpath(path))


def hidden_name(name: str, suffix: str) -> str:
    """Return the name of a helper file beside a file: hidden, and no longer than file systems allow.

    Example:
        >>> from gradatim.files.lock import hidden_name
        >>> hidden_name("task.safetensors", "lock")
        '.task.safetensors.lock'
    """
    encoded = os.fsencode(name)
    stem = name if len(encoded) <= _LONG_NAME else hashlib.sha256(encoded).hexdigest()[:32]
    return f".{stem}.{suffix}"


def try_lock(handle: int) -> bool:
    """Lock an open file, and return whether that succeeded: not if another handle holds the lock.

    Raises:
        OSError: the file system has no locks.

    Example:
        >>> from gradatim.files.lock import try_lock
        >>> with open("a.txt", "w") as first, open("a.txt") as second:
        ...     try_lock(first.fileno()), try_lock(second.fileno())
        (True, False)
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(handle, 0, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _BUSY:
            return False
        raise
    return True


def unlock(handle: int) -> None:
    """Release the lock of an open file, in children that inherited it as well, and close the file.

    Example:
        >>> import os
        >>> from gradatim.files.lock import try_lock, unlock
        >>> handle = os.open("b.txt", os.O_RDWR | os.O_CREAT)
        >>> try_lock(handle)
        True
        >>> unlock(handle)
    """
    with suppress(OSError):
        if sys.platform == "win32":
            import msvcrt

            os.lseek(handle, 0, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_UNLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_UN)
    os.close(handle)


def is_at(handle: int, path: Path) -> bool:
    """Return whether an open file still is the one at a path.

    Example:
        >>> from pathlib import Path
        >>> from gradatim.files.lock import is_at
        >>> with open("c.txt", "w") as file:
        ...     before = is_at(file.fileno(), Path("c.txt"))
        ...     Path("c.txt").unlink()
        ...     before, is_at(file.fileno(), Path("c.txt"))
        (True, False)
    """
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    return os.path.samestat(status, os.fstat(handle))


def make_folders(folder: Path) -> list[Path]:
    """Make a folder and those above it that are missing; return what was made, the innermost first.

    Raises:
        OSError: it cannot be made.

    Example:
        >>> from pathlib import Path
        >>> from gradatim.files.lock import make_folders
        >>> [new.as_posix() for new in make_folders(Path("outer/inner"))], make_folders(Path("outer"))
        (['outer/inner', 'outer'], [])
    """
    missing = [part for part in (folder, *folder.parents) if not part.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _acquire(lock_path: Path, path: Path, wait: float, notify: Callable[[str], None] | None) -> int:
    """Return a handle that holds the lock at `lock_path`."""
    started = time.monotonic()
    while True:
        handle = None
        try:
            handle = _open(lock_path)
            if try_lock(handle):
                if is_at(handle, lock_path):
                    return handle
                # the holder before has removed this file: whoever comes now would lock a new one
                os.close(handle)
                continue
        except OSError as error:
            if handle is not None:
                os.close(handle)
            raise ValueError(
                f"{path} cannot be locked against other processes ({lock_path.name}: {error.strerror or error}): "
                f"{_ADVICE}"
            ) from error
        except BaseException:
            if handle is not None:
                os.close(handle)
            raise
        os.close(handle)
        waited = time.monotonic() - started
        if waited >= wait:
            raise ValueError(
                f"{path} is in use by another process, for {wait:g} s by now: try again when it has finished"
            )
        if notify is not None and waited >= PATIENCE:
            notify(f"{path} is in use by another process: waiting for it, up to {wait:g} s")
            notify = None
        time.sleep(min(_PAUSE, max(0.0, wait - waited)))


def _open(lock_path: Path) -> int:
    """Return a handle of the lock file, which is made if it does not exist. A link is not followed."""
    flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        handle = os.open(lock_path, os.O_RDWR | os.O_CREAT | flags, 0o666)
    except PermissionError:
        if not lock_path.exists():
            raise
        handle = os.open(lock_path, os.O_RDONLY | flags)  # another user's: it can be locked all the same
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is not a regular file")
    return handle
