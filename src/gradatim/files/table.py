"""The file of a table's state: what its header and its tensors may be, checked before anything is built from them.

Source: the safetensors format, as in `checkpoint`.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from .checkpoint import read, write
from .container import to_text
from .contract import (
    blamed,
    check_entries,
    parse_json,
)
from .layout import Layout, check_finite
from .old_table import OLD_FEATURES, renewed_header, renewed_tensors
from .table_schema import (
    FEATURES,
    LONG,
    MODELS,
    WARM,
    check_header,
    check_numbers,
    check_tensors,
    missing_entry,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


class TableState(NamedTuple):
    """A table's state as it was read: the header, the tensors by name, and the file they came from."""

    header: dict[str, Any]
    tensors: dict[str, Tensor]
    path: Path


def write_table(
    path: Path | str,
    tensors: dict[str, Tensor],
    header: dict[str, Any],
    verify: Callable[[Path], object] | None = None,
) -> Path:
    """Write a table's state, tensors of any shape and the entries of its header, complete or not at all.

    `verify` loads the new file, at the path that it is given, before it replaces the previous one.

    Raises:
        ValueError: as `write`, or what could not be read again. What stood there stays.
    """
    try:
        header = parse_json(to_text({**header, "kind": "state", "features": FEATURES}))
        check_finite(tensors)
        check_header(header, MODELS)
        check_tensors(header, tensors)
        check_numbers(header, tensors)
    except ValueError as error:
        raise ValueError(f"{path} was not written, and what stood there stays: {error}") from error
    if header["warm"] is not None:
        rows = {name: value for name, value in header["warm"].items() if name in LONG}
        packed = torch.frombuffer(bytearray(to_text(rows).encode()), dtype=torch.uint8)
        tensors = {**tensors, "warm.text": packed}
        header["warm"] = {name: value for name, value in header["warm"].items() if name not in LONG}
    return write(path, tensors, header, verify)


def read_table(path: Path | str | TableState, width: Callable[[Any], int] | None = None) -> TableState:
    """Return the header and the tensors, of any shape, of a table's state. The file is opened and read once.

    Args:
        path: the file, or what was read of it.
        width: returns how many numbers the map in a header makes of a row, or raises ValueError.

    Raises:
        ValueError: a file that is missing, truncated, damaged, foreign or newer, of something else or of other
            features, or whose entries and tensors contradict each other.
    """
    state = path if isinstance(path, TableState) else _read(Path(path))
    if width is not None:
        with blamed(state.path):
            inputs = width(state.header["map"])
            for name, value in state.tensors.items():
                around = name.startswith("memory.around.")  # rows with their context are wider
                if name.endswith(".landmarks") and not around and value.shape[1] != inputs:
                    raise ValueError(
                        f"tensor {name!r} must have shape [K, {inputs}]; got {list(value.shape)}"
                    )
    return state


def device_here(name: str, path: Path, device: str | None = None) -> str:
    """Return the device that a state was on, or the CPU, with a warning, where this machine does not have it.

    Args:
        name: the device that it was on.
        path: its file, for the warning.
        device: the device that the caller wants in its place.

    Raises:
        ValueError: the wanted device is not there.

    Example:
        >>> from pathlib import Path
        >>> from gradatim.files.table import device_here
        >>> device_here("cpu", Path("task.safetensors"))
        'cpu'
    """
    try:
        torch.zeros(1, dtype=torch.float64, device=device or name)
    except (AssertionError, RuntimeError, TypeError, NotImplementedError) as error:
        if device is not None:
            raise ValueError(f"device {device!r} is not there: leave it out, or give device='cpu'") from error
        warnings.warn(f"{path} was on {name}, which is not there: it goes on on the CPU", stacklevel=3)
        return "cpu"
    return device or name


def read_any(path: Path | str) -> TableState:
    """Return the header and the tensors, of any shape, of a file of any kind, checked as far as they are a table's.

    Raises:
        ValueError: as `read_table`, but for files of something else.

    Example:
        >>> from gradatim.files.checkpoint import write
        >>> from gradatim.files.table import read_any
        >>> read_any(write("empty.safetensors", {}, {"kind": "state"})).header["kind"]
        'state'
    """
    return _read(Path(path), only_tables=False)


def _read(path: Path, only_tables: bool = True) -> TableState:
    """Return a table's state whose header and tensors agree with each other."""

    def check(header: dict[str, Any], layouts: dict[str, Layout]) -> None:
        if missing_entry(header) is None and header.get("features", 1) in (OLD_FEATURES, FEATURES):
            check_header(header, () if header["gradatim_format"] == 1 else MODELS, "warm.text" in layouts)
            check_tensors(header, {k: v for k, v in layouts.items() if k != "warm.text"})

    tensors, header = read(path, "state" if only_tables else None, check)
    if (missing := missing_entry(header)) is not None:
        if not only_tables and "estimator" not in header:
            return TableState(header, tensors, path)
        raise ValueError(
            f"{path} holds a state, but not one of a table ({missing!r} is missing): read it with load_state"
        )
    if header.get("features", 1) not in (OLD_FEATURES, FEATURES):
        raise ValueError(f"{path} holds moments of another gradatim's features: learn its table once more")
    with blamed(path):
        if (packed := tensors.pop("warm.text", None)) is not None:
            header["warm"] |= parse_json(packed.view(torch.uint8).numpy().tobytes())
            check_entries(header["warm"], WARM, "header.warm")
        check_numbers(header, tensors)
    if header["features"] == OLD_FEATURES:
        is_shipped = header["params"]["model"] == "experts" and header["warm"] is None
        tensors = (
            renewed_tensors(tensors, len(header["seeds"]), header["classes"] is not None)
            if is_shipped
            else tensors
        )
        header = renewed_header(header, is_shipped)
    if header["params"]["model"] not in MODELS:  # the path of a checkpoint, in files of version 0.1
        header["params"]["model"] = "checkpoint"
    return TableState(header, tensors, path)
