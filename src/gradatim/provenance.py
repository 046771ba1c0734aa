"""What a number depends on besides its recipe: versions, threads and the commit.

Source: DESIGN.md, Results: every record says the commit it was made at.
"""

from __future__ import annotations

import platform
import subprocess
import sys
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
