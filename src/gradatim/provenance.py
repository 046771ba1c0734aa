"""What a number depends on besides its recipe: versions, threads and the commit.

Source: DESIGN.md, Results: every record says the commit it was made at.
"""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def provenance() -> dict[str, Any]:
    """Return what the numbers depend on besides the recipe: versions, threads, and the commit in a checkout."""
    import torch

    return {
        "gradatim": vars(sys.modules["gradatim"])["__version__"],
        "commit": commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
    }


def peak_memory() -> int:
    """Return the most resident memory this process has held, bytes; 0 where the system does not say."""
    if sys.platform == "linux":  # not getrusage: a child starts with its parent's peak there
        lines = Path("/proc/self/status").read_text().splitlines()
        return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)
    if sys.platform == "win32":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def forget_peak() -> None:
    """Let `peak_memory` count from here, where the system can (Linux)."""
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    """Let torch compute with `count` threads inside, as many as before after it."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def commit() -> str | None:
    """Return the commit of the checkout this file is tracked in, a + behind it where files differ; None outside one."""
    here = Path(__file__).with_name("__init__.py")
    describe = ["describe", "--always", "--dirty=+", "--abbrev=10", "--exclude=*"]
    for arguments in (["ls-files", "--error-unmatch", here.name], describe):
        try:
            said = subprocess.run(
                ["git", *arguments], cwd=here.parent, capture_output=True, text=True, check=False
            )
        except FileNotFoundError:
            return None
        if said.returncode:
            return None
    return said.stdout.strip()
