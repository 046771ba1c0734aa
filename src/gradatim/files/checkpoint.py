"""Weights and task states in files: safetensors with a JSON header. A file is written completely or not at all.

No file holds pickled objects, and none names another file that is opened.

Source: the safetensors format (8 bytes of header length, a JSON header, the tensors).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load

from .container import KINDS, encode, read_content
from .contract import blamed, brief, check_entries, mapping, number, whole
from .layout import check_finite
from .replace import sweep, write_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from .layout import Layout

    Contents = tuple[dict[str, Tensor], dict[str, Any]]

__all__ = [
    "latest",
    "load_weights",
    "put_weights",
    "read",
    "read_header",
    "save_checkpoint",
    "select_prefix",
    "step_files",
    "write",
    "write_bytes",
]

LARGEST = 1e10
"""No trained weight is larger: answers of such would overflow."""

MAX_CHECKPOINTS = 2

_STEP = re.compile(r"step-(\d{8,})\.safetensors")
_RUN_FILES = rf"\.({_STEP.pattern}|learner\.safetensors|log\.jsonl|run\.json)"
_RUN = {
    "recipe": mapping().or_none().optional(),
    "config": mapping().optional(),
    "family": mapping().optional(),
    "scheme": mapping().optional(),
    "learner": mapping().optional(),
    "iteration": whole(0, 2**53).optional(),
    "seconds": number(low=0).optional(),
    "peak_memory": whole(0, 2**62).optional(),
    "window": mapping(number(low=0)).optional(),
}
"""What the header of a checkpoint may hold of its run."""


def write(
    path: Path | str,
    tensors: dict[str, Tensor],
    header: dict[str, Any],
    verify: Callable[[Path], object] | None = None,
) -> Path:
    """Write tensors (any shape) and a JSON header to one file, through a temporary file and a rename.

    Any reader of `path` finds either the previous file or the complete new one, even if the process is killed. The new
    one is read back before it takes its place.

    Args:
        path: the file to write; its folder is made.
        tensors: named tensors of any shape, on any device; their numbers are written as they are.
        header: JSON values. `header["kind"]` is `"checkpoint"` or `"state"`; the format version is added.
        verify: loads the new file, at the path that it is given, before it replaces the previous one.

    Returns:
        The path.

    Raises:
        ValueError: an unknown kind, a header that is not JSON, numbers that are not finite, a file that cannot be
            written (a full disk), or what `verify` raises. Then no temporary file remains and the previous file at
            `path` is intact.

    Example:
        >>> import torch
        >>> from gradatim.files.checkpoint import write
        >>> write("w.safetensors", {"weight": torch.ones(2)}, {"kind": "checkpoint"}).name
        'w.safetensors'
    """
    path = Path(path)
    if header.get("kind") not in KINDS:
        raise ValueError(f"a file's kind must be one of {', '.join(KINDS)}; got {header.get('kind')!r}")
    copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    try:
        check_finite(copies)
        parts = encode(copies, header)
    except ValueError as error:
        raise ValueError(f"{path} was not written, and what stood there stays: {error}") from error

    def check(temporary: Path) -> None:
        read_content(temporary)
        if verify is not None:
            verify(temporary)

    write_bytes(path, *parts, verify=check)
    return path


def read(
    path: Path | str,
    kind: str | None = None,
    check: Callable[[dict[str, Any], dict[str, Layout]], None] | None = None,
) -> Contents:
    """Return the tensors (on the CPU, of the written shapes) and the header of a file that `write` wrote.

    The file is opened and read once, so that both are of one file even if it is replaced meanwhile.

    Args:
        path: the file.
        kind: the required kind of the file, or None for any.
        check: called with the header and the types and shapes, before the tensors are allocated; raises ValueError.

    Raises:
        ValueError: the file is missing, truncated, damaged, foreign, of another kind, or of a format version that is
            not supported. One line, which names the file.

    Example:
        >>> import torch
        >>> from gradatim.files.checkpoint import read, write
        >>> path = write("w.safetensors", {"weight": torch.ones(2)}, {"kind": "checkpoint"})
        >>> tensors, header = read(path, kind="checkpoint")
        >>> tensors["weight"], header["kind"]
        (tensor([1., 1.]), 'checkpoint')
    """
    path = Path(path)

    def check_all(header: dict[str, Any], layouts: dict[str, Layout]) -> None:
        if header["kind"] == "checkpoint":
            _check_checkpoint(header, layouts)
        if check is not None:
            check(header, layouts)

    content, header = read_content(path, kind, check_all)
    with blamed(path):
        try:
            tensors = load(content)
        except SafetensorError as error:
            raise ValueError(str(error)) from error
        check_finite(tensors)
    return tensors, header


def read_header(path: Path | str, kind: str | None = None) -> dict[str, Any]:
    """Return the header alone, after checking that the file is complete and of a supported version.

    Raises:
        ValueError: as `read`.

    Example:
        >>> from gradatim.files.checkpoint import read_header, write
        >>> read_header(write("empty.safetensors", {}, {"kind": "state", "note": "no rows"}))["note"]
        'no rows'
    """
    return read_content(Path(path), kind)[1]


def save_checkpoint(
    folder: Path | str, step: int, tensors: dict[str, Tensor], header: dict[str, Any]
) -> Path:
    """Write tensors (any shape) to `step-00000123.safetensors` in the folder of a run, and delete all but the last
    two.

    Temporary files of a killed process are removed as well.

    Raises:
        ValueError: as `write`; earlier checkpoints are intact then.

    Example:
        >>> import torch
        >>> from gradatim.files.checkpoint import save_checkpoint, step_files
        >>> for step in (10, 20, 30):
        ...     path = save_checkpoint("run", step, {"weight": torch.zeros(2)}, {"kind": "checkpoint"})
        >>> list(step_files("run"))
        [20, 30]
    """
    path = write(Path(folder) / f"step-{step:08d}.safetensors", tensors, header)
    tidy(folder, step)
    return path


def tidy(folder: Path | str, step: int) -> None:
    """Delete what is no longer needed in the folder of a run at `step`: all checkpoints but the last two, and temporary
    files of killed processes.

    Example:
        >>> from pathlib import Path
        >>> from gradatim.files.checkpoint import step_files, tidy
        >>> for name in ("step-00000001", "step-00000002", "step-00000003", "step-00000009"):
        ...     Path("steps").mkdir(exist_ok=True)
        ...     Path(f"steps/{name}.safetensors").touch()
        >>> tidy("steps", 3)
        >>> list(step_files("steps"))
        [2, 3]
    """
    folder = Path(folder)
    sweep(folder, _RUN_FILES)
    files = step_files(folder)
    recent = [file_step for file_step in files if file_step <= step][-MAX_CHECKPOINTS:]
    for file_step, file in files.items():
        if file_step not in recent:
            file.unlink(missing_ok=True)


def step_files(folder: Path | str) -> dict[int, Path]:
    """Return the checkpoints in the folder of a run by their step, ascending, readable or not.

    Example:
        >>> from gradatim.files.checkpoint import save_checkpoint, step_files
        >>> path = save_checkpoint("steps", 10, {}, {"kind": "checkpoint"})
        >>> step_files("steps") == {10: path}
        True
    """
    folder = Path(folder)
    files = folder.iterdir() if folder.is_dir() else ()
    matches = ((_STEP.fullmatch(file.name), file) for file in files)
    return dict(sorted((int(match[1]), file) for match, file in matches if match))


def latest(folder: Path | str) -> Path | None:
    """Return the newest complete checkpoint in the folder of a run, or None; damaged files are skipped.

    Example:
        >>> from gradatim.files.checkpoint import latest
        >>> latest("no-such-run") is None
        True
    """
    for file in reversed(step_files(folder).values()):
        try:
            read_header(file)
        except ValueError:
            continue
        return file
    return None


def load_weights(module: nn.Module, path: Path | str) -> dict[str, Any]:
    """Load the weights of a checkpoint into a module and return the header.

    If the checkpoint holds averaged weights as well, the averaged ones are loaded.

    Raises:
        ValueError: as `read`, or the weights have another architecture; the message names the first difference.

    Example:
        >>> import torch
        >>> from gradatim import load_weights
        >>> from gradatim.files.checkpoint import write
        >>> path = write("linear.safetensors", {"weights.weight": torch.ones(1, 2)}, {"kind": "checkpoint"})
        >>> module = torch.nn.Linear(2, 1, bias=False)
        >>> load_weights(module, path)["kind"], module.weight.tolist()
        ('checkpoint', [[1.0, 1.0]])
    """
    tensors, header = read(path, kind="checkpoint")
    put_weights(module, tensors, path)
    return header


def put_weights(module: nn.Module, tensors: dict[str, Tensor], path: Path | str) -> None:
    """Load the weights among the tensors (any shape) of a checkpoint, which was read at `path`, into a module.

    Raises:
        ValueError: the weights have another architecture, and the message names the first difference; or a weight is
            beyond `LARGEST`.

    Example:
        >>> import torch
        >>> from gradatim.files.checkpoint import put_weights
        >>> module = torch.nn.Linear(2, 1, bias=False)
        >>> put_weights(module, {"weights.weight": torch.ones(1, 2)}, "linear.safetensors")
        >>> module.weight.tolist()
        [[1.0, 1.0]]
    """
    weights = select_prefix(tensors, "weights") | select_prefix(tensors, "ema")
    expected = module.state_dict()
    for name in sorted(expected.keys() | weights.keys()):
        shape = tuple(weights[name].shape) if name in weights else "nothing"
        expected_shape = tuple(expected[name].shape) if name in expected else "nothing"
        label = name if name in expected else brief(name)
        if shape != expected_shape:
            raise ValueError(
                f"{path} does not fit this learner: {label} has shape {expected_shape} in the learner and "
                f"{shape} in the file"
            )
        kinds = [_kind(part[name]) for part in (expected, weights)]
        if kinds[0] != kinds[1]:
            raise ValueError(
                f"{path} does not fit this learner: {label} holds {kinds[0]} in the learner and {kinds[1]} in the file"
            )
        if weights[name].is_floating_point() and bool((weights[name].abs() > LARGEST).any()):
            raise ValueError(f"{path} is no trained learner: {label} has weights beyond {LARGEST:g}")
    module.load_state_dict(weights)


def select_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors (any shape) whose names begin with `prefix` and a dot, under their names without it.

    Example:
        >>> import torch
        >>> from gradatim.files.checkpoint import select_prefix
        >>> select_prefix({"weights.a": torch.ones(1), "ema.a": torch.zeros(1)}, "weights")
        {'a': tensor([1.])}
    """
    return {
        name[len(prefix) + 1 :]: value for name, value in tensors.items() if name.startswith(prefix + ".")
    }


def _check_checkpoint(header: dict[str, Any], layouts: dict[str, Layout]) -> None:
    """Raise ValueError if the header of a checkpoint, or its weights, averages and optimizer contradict each other."""
    check_entries(header, _RUN, "header", further=True)
    weights = {name[8:]: layout.shape for name, layout in layouts.items() if name.startswith("weights.")}
    for name, layout in layouts.items() if weights else ():
        part, _, inner = name.partition(".")
        if part == "optimizer":
            inner, _, key = inner.rpartition(".")
        if part not in ("weights", "ema", "optimizer") or inner not in weights:
            raise ValueError(f"tensor {brief(name)} is none of weights., ema. and optimizer. of its weights")
        expected = () if part == "optimizer" and key == "step" else weights[inner]
        if layout.shape != expected:
            raise ValueError(
                f"tensor {brief(name)} must have shape {list(expected)}; got {list(layout.shape)}"
            )


def _kind(tensor: Tensor) -> str:
    return "numbers" if tensor.is_floating_point() else "whole numbers or truth values"
