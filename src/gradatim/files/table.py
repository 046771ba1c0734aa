"""The file of a table's state: its header, checked.

Source: the safetensors format, as in `checkpoint`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .checkpoint import read, read_header, write

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

FEATURES = 3
"""The version of the shipped learner's features and of their files: moments of others mean something else."""

ENTRIES = (
    "estimator",
    "params",
    "n_features",
    "feature_names",
    "classes",
    "map",
    "target",
    "warm",
    "seeds",
    "learners",
)
"""What the header of a table's state holds."""


def write_table(path: Path | str, tensors: dict[str, Tensor], header: dict[str, Any]) -> Path:
    """Write a table's state, tensors of any shape and the entries of its header, complete or not at all.

    Raises:
        ValueError: as `write`.
    """
    return write(path, tensors, {**header, "kind": "state", "features": FEATURES})


def read_table(path: Path | str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the header and the tensors, of any shape, of a table's state.

    Raises:
        ValueError: a file that is missing, truncated, foreign or newer, of something else or of other features.
    """
    header = read_header(path, "state")
    if missing := [name for name in ENTRIES if name not in header]:
        raise ValueError(
            f"{path} holds a state, but not one of a table ({missing[0]!r} is missing): read it with load_state"
        )
    if header.get("features", 1) != FEATURES:
        raise ValueError(f"{path} holds moments of another gradatim's features: learn its table once more")
    return header, read(path, "state")[0]
