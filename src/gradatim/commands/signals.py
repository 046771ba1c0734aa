"""Signals that end a command, SIGTERM and SIGHUP, are handled like Ctrl-C: what is half written is removed.

Source: POSIX.1-2024, signal.h; exit codes of 128 and the signal's number as in shells.
"""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

ENDING = ("SIGTERM", "SIGHUP")


@contextmanager
def ended_by_signals() -> Iterator[list[int]]:
    """Raise KeyboardInterrupt in this block when a signal wants the process to end; yield the signals that came.

    A second signal does not interrupt what cleans up after the first. A signal that is ignored, such as SIGHUP under
    nohup, stays ignored. Outside the main thread nothing changes.

    Example:
        >>> import signal
        >>> from gradatim.commands.signals import ended_by_signals
        >>> with ended_by_signals() as received:
        ...     try:
        ...         signal.raise_signal(signal.SIGTERM)
        ...     except KeyboardInterrupt:
        ...         print(received == [signal.SIGTERM])
        True
    """
    received: list[int] = []

    def end(number: int, frame: Any) -> None:
        received.append(number)
        if len(received) == 1:
            raise KeyboardInterrupt

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (getattr(signal, name) for name in ENDING if hasattr(signal, name)):
            if signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, end)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def exit_code(received: list[int]) -> int:
    """Return the exit code of a command that signals have ended; without any it was Ctrl-C.

    Example:
        >>> from gradatim.commands.signals import exit_code
        >>> exit_code([]), exit_code([15])
        (130, 143)
    """
    return 128 + int(received[0] if received else signal.SIGINT)
