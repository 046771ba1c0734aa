"""Processes that cost milliseconds: a process that has imported everything forks one for each command.

Source: POSIX.1-2017, fork and waitpid.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

SECONDS = 60.0
"""The longest time that a command may take; then it hangs."""

MEMORY = 6 * 2**30
"""Bytes of address space that a process may ask for when it reads files that may lie about their size."""

_PRELOADED = (
    "gradatim.cli",
    "gradatim.estimators",
    "gradatim.recipes",
    "lightning_fabric",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "pandas",
    "pyarrow.csv",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "rich.progress",
    "safetensors.torch",
)


def preload() -> None:
    """Import what commands import, so that a forked process begins at once."""
    for name in _PRELOADED:
        import_module(name)


def command(*arguments: str) -> Callable[[], int]:
    """Return a call of `gradatim ARGUMENTS`, as its process makes it."""

    def call() -> int:
        from gradatim.cli import main

        sys.argv = ["gradatim", *arguments]
        return main()

    return call


def start(call: Callable[[], Any], log: Path | None = None) -> int:
    """Fork a process that calls `call` with signals as a new process has them; return its number.

    Args:
        call: returns the exit code, or None for 0.
        log: where stdout and stderr go; by default nowhere.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    number = os.fork()
    if number:
        return number
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        output = os.open(log or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        code = call() or 0
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def wait(number: int, seconds: float = SECONDS) -> int | None:
    """Return how a process ended, its exit code or minus its signal; None where it hangs and was killed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pid, status = os.waitpid(number, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.kill(number, signal.SIGKILL)
    os.waitpid(number, 0)
    return None


def run(call: Callable[[], Any], log: Path | None = None, seconds: float = SECONDS) -> int | None:
    """Fork a process for a call, wait for it and return how it ended."""
    return wait(start(call, log), seconds)


def isolated(
    function: Callable[[Any], Any], items: Sequence[Any], seconds: float = 5.0, memory: int | None = MEMORY
) -> list[Any]:
    """Return what `function` returns of each item as plain JSON, computed in forked processes.

    An item whose process hangs or crashes has `{"outcome": "hang"}` or `{"outcome": "crash"}`, and the next item gets
    a new process.

    Args:
        function: returns plain JSON of an item.
        items: of any kind.
        seconds: that an item may take.
        memory: bytes of address space of a process; None: as many as there are.

    Example:
        >>> isolated(lambda item: 2 * item, [1, 2], memory=None)
        [2, 4]
    """
    results: list[Any] = []
    while len(results) < len(items):
        results += _portion(function, items[len(results) :], seconds, memory)
    return results


def _portion(
    function: Callable[[Any], Any], items: Sequence[Any], seconds: float, memory: int | None
) -> list[Any]:
    """Return the results of the first items, up to one whose process ended."""
    read_end, write_end = os.pipe()

    def work() -> None:
        os.close(read_end)
        if memory is not None:
            import resource

            resource.setrlimit(resource.RLIMIT_AS, (memory, resource.getrlimit(resource.RLIMIT_AS)[1]))
        with os.fdopen(write_end, "w") as answers:
            for item in items:
                answers.write(json.dumps(function(item)) + "\n")
                answers.flush()

    number = start(work)
    os.close(write_end)
    lines, outcome = _lines(read_end, len(items), seconds)
    os.close(read_end)
    results = [json.loads(line) for line in lines]
    if len(results) < len(items):
        results.append({"outcome": outcome})
    wait(number, 0.0 if outcome == "hang" else seconds)
    return results


def _lines(read_end: int, count: int, seconds: float) -> tuple[list[bytes], str]:
    """Return the lines that come through a pipe, and why there are no more."""
    lines: list[bytes] = []
    tail = b""
    while len(lines) < count:
        if not select.select([read_end], [], [], seconds)[0]:
            return lines, "hang"
        if not (content := os.read(read_end, 65_536)):
            return lines, "crash"
        *more, tail = (tail + content).split(b"\n")
        lines += more
    return lines, "end"
