"""What a number depends on besides its recipe: versions, threads, memory and the commit.

Source: Pineau et al. 2021, the checklist of reproducible machine learning.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def provenance() -> dict[str, Any]:
    """Return what numbers depend on besides the recipe: versions, threads, and the commit in a checkout.

    Returns:
        `gradatim`, `torch` and `python` (versions), `commit` (None outside a checkout) and `threads` (torch's).

    Example:
        >>> import gradatim
        >>> sorted(provenance())
        ['commit', 'gradatim', 'python', 'threads', 'torch']
    """
    import torch

    return {
        "gradatim": vars(sys.modules["gradatim"])["__version__"],
        "commit": commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
    }


def peak_memory() -> int:
    """Return the highest resident memory of this process so far in bytes, or 0 where the system does not report it.

    Example:
        >>> peak_memory() >= 0
        True
    """
    if sys.platform == "linux":  # not getrusage: a child starts with its parent's peak there
        lines = Path("/proc/self/status").read_text().splitlines()
        return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)
    if sys.platform == "win32":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def reset_peak_memory() -> None:
    """Let `peak_memory` count from now on. Only Linux can do that; elsewhere nothing happens.

    Example:
        >>> reset_peak_memory()
    """
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    """Let torch compute with `count` threads inside, and with as many as before afterwards.

    Example:
        >>> import torch
        >>> with on_threads(1):
        ...     torch.get_num_threads()
        1
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def process_environment(threads: int) -> dict[str, str]:
    """Return the environment for a new process that computes with `threads` threads.

    Its threads sleep while they wait, unless OMP_WAIT_POLICY says otherwise: spinning threads of several processes
    take the cores from one another.

    Example:
        >>> process_environment(2)["OMP_NUM_THREADS"]
        '2'

    Source: the OpenMP 5.2 specification, sections 21.1.2 (OMP_NUM_THREADS) and 21.1.7 (OMP_WAIT_POLICY).
    """
    return {"OMP_WAIT_POLICY": "passive", **os.environ, "OMP_NUM_THREADS": str(threads)}


@contextmanager
def processes_on_threads(count: int) -> Iterator[None]:
    """Let processes that are started inside compute with `count` threads each, as in `process_environment`.

    It changes `os.environ` inside, for pools that take no environment of their own.

    Example:
        >>> import os
        >>> with processes_on_threads(1):
        ...     os.environ["OMP_NUM_THREADS"]
        '1'
    """
    before = dict(os.environ)
    os.environ.update(process_environment(count))
    try:
        yield
    finally:
        for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY"):
            os.environ.pop(name)
            if name in before:
                os.environ[name] = before[name]


def commit() -> str | None:
    """Return the commit of the checkout that holds this file, or None outside of a checkout.

    A + behind it says that files differ from the commit.

    Example:
        >>> commit() is None or len(commit()) >= 7
        True
    """
    package = Path(__file__).with_name("__init__.py")
    describe = ["describe", "--always", "--dirty=+", "--abbrev=10", "--exclude=*"]
    for arguments in (["ls-files", "--error-unmatch", package.name], describe):
        try:
            result = subprocess.run(
                ["git", *arguments], cwd=package.parent, capture_output=True, text=True, check=False
            )
        except FileNotFoundError:
            return None
        if result.returncode:
            return None
    return result.stdout.strip()
