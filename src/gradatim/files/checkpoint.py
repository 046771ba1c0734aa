"""Weights and task states in files: safetensors with a JSON header. A file is written completely or not at all.

No file holds pickled objects.

Source: the safetensors format (8 bytes of header length, a JSON header, the tensors).
"""

from __future__ import annotations

import json
import os
import re
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load, save

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    Contents = tuple[dict[str, Tensor], dict[str, Any]]

FORMAT = 1
KINDS = ("checkpoint", "state")
MAX_CHECKPOINTS = 2
READERS: dict[int, Callable[[dict[str, Tensor], dict[str, Any]], Contents]] = {
    1: lambda tensors, header: (tensors, header)
}
"""For each supported format version, the function that converts its contents to the present version."""

_STEP = re.compile(r"step-(\d{8,})\.safetensors")
_TEMPORARY = re.compile(rf"\.({_STEP.pattern}|learner\.safetensors|log\.jsonl|run\.json)\.\d+\.tmp")
_MAX_HEADER_BYTES = 100_000_000


def write(path: Path | str, tensors: dict[str, Tensor], header: dict[str, Any]) -> Path:
    """Write tensors (any shape) and a JSON header to one file, through a temporary file and a rename.

    Any reader of `path` finds either the previous file or the complete new one, even if the process is killed.

    Args:
        path: the file to write; its folder is made.
        tensors: named tensors of any shape, on any device.
        header: JSON values. `header["kind"]` is `"checkpoint"` or `"state"`; the format version is added.

    Returns:
        The path.

    Raises:
        ValueError: an unknown kind, a header that is not JSON, or a file that cannot be written (a full disk). Then no
        temporary file remains and the previous file at `path` is intact.

    Example:
        >>> import torch
        >>> from gradatim.files.checkpoint import write
        >>> write("w.safetensors", {"weight": torch.ones(2)}, {"kind": "checkpoint"}).name
        'w.safetensors'
    """
    path = Path(path)
    if header.get("kind") not in KINDS:
        raise ValueError(f"a file's kind must be one of {', '.join(KINDS)}; got {header.get('kind')!r}")
    try:
        text = json.dumps({"gradatim_format": FORMAT, **header})
    except TypeError as error:
        raise ValueError(f"a header must be JSON, plain values in lists and dicts; {error}") from error
    copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    write_bytes(path, save(copies, metadata={"gradatim": text}))
    return path


def write_bytes(path: Path, content: bytes) -> None:
    """Write content to a file, completely or not at all. If `path` is a link, its target is written.

    Raises:
        ValueError: the path is a folder, a device or another special file, or it cannot be written; the temporary file
        is removed.

    Example:
        >>> from pathlib import Path
        >>> from gradatim.files.checkpoint import write_bytes
        >>> write_bytes(Path("note.txt"), b"hello")
        >>> Path("note.txt").read_bytes()
        b'hello'
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        _check_regular_file(path, target)
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
        _sync_folder(target.parent)
    except OSError as error:
        raise ValueError(
            f"{path} could not be written ({error.strerror or error}; {len(content):,} bytes needed): make room or "
            "choose another folder; earlier files are intact"
        ) from error
    finally:
        with suppress(OSError):  # it was renamed, or its folder does not exist
            temporary.unlink()


def read(path: Path | str, kind: str | None = None) -> Contents:
    """Return the tensors (on the CPU, of the written shapes) and the header of a file that `write` wrote.

    `kind`: the required kind of the file, or None for any.

    Raises:
        ValueError: the file is missing, truncated, foreign, of another kind, or of a format version that is not
        supported.

    Example:
        >>> import torch
        >>> from gradatim.files.checkpoint import read, write
        >>> path = write("w.safetensors", {"weight": torch.ones(2)}, {"kind": "checkpoint"})
        >>> tensors, header = read(path, kind="checkpoint")
        >>> tensors["weight"], header["kind"]
        (tensor([1., 1.]), 'checkpoint')
    """
    path = Path(path)
    header = read_header(path, kind)
    with path.open("rb") as file:
        tensors = load(file.read())
    return READERS[header["gradatim_format"]](tensors, header)


def read_header(path: Path | str, kind: str | None = None) -> dict[str, Any]:
    """Return the header alone, after checking that the file is complete and of a supported version.

    Raises:
        ValueError: as `read`.

    Example:
        >>> from gradatim.files.checkpoint import read_header, write
        >>> read_header(write("empty.safetensors", {}, {"kind": "state", "note": "no rows"}))["note"]
        'no rows'
    """
    header = _read_own_header(Path(path))
    version = header["gradatim_format"]
    if version not in READERS:
        newer = isinstance(version, int) and version > FORMAT
        advice = "upgrade gradatim" if newer else "read it with an older gradatim, or train again"
        raise ValueError(
            f"{path} has format version {version}; this gradatim reads {', '.join(map(str, READERS))}: {advice}"
        )
    if kind is not None and header["kind"] != kind:
        raise ValueError(f"{path} holds a {header['kind']}, expected a {kind}: choose another file")
    return header


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
    folder = Path(folder)
    for temporary in folder.glob(".*.tmp"):
        if _TEMPORARY.fullmatch(temporary.name) and temporary.is_file():
            temporary.unlink(missing_ok=True)
    path = write(folder / f"step-{step:08d}.safetensors", tensors, header)
    files = step_files(folder)
    recent = [file_step for file_step in files if file_step <= step][-MAX_CHECKPOINTS:]
    for file_step, file in files.items():
        if file_step not in recent:
            file.unlink(missing_ok=True)
    return path


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
            _read_own_header(file)
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
        >>> weights = {"weights.weight": torch.ones(1, 2), "weights.bias": torch.zeros(1)}
        >>> path = write("linear.safetensors", weights, {"kind": "checkpoint"})
        >>> module = torch.nn.Linear(2, 1)
        >>> load_weights(module, path)["kind"], module.weight.tolist()
        ('checkpoint', [[1.0, 1.0]])
    """
    tensors, header = read(path, kind="checkpoint")
    weights = select_prefix(tensors, "weights") | select_prefix(tensors, "ema")
    expected = module.state_dict()
    for name in sorted(expected.keys() | weights.keys()):
        shape = tuple(weights[name].shape) if name in weights else "nothing"
        expected_shape = tuple(expected[name].shape) if name in expected else "nothing"
        if shape != expected_shape:
            raise ValueError(
                f"{path} does not fit this learner: {name} has shape {expected_shape} in the learner and {shape} in "
                "the file"
            )
    module.load_state_dict(weights)
    return header


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


def _read_own_header(path: Path) -> dict[str, Any]:
    """Return the header of a complete file of this project, of any version."""
    foreign = f"{path} is not a file of gradatim"
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            text = file.read(min(length, _MAX_HEADER_BYTES))
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): check the path") from error
    if size >= 8 and (length > _MAX_HEADER_BYTES or text[:1] not in (b"", b"{")):
        raise ValueError(f"{foreign}: it is not safetensors; give a file that gradatim wrote")
    truncation = f"{path} is truncated: it has {size:,} bytes"
    advice = "take an earlier checkpoint, or write it again"
    if size < 8 or len(text) < length:
        raise ValueError(f"{truncation}, its header alone needs {length + 8:,}: {advice}")
    try:
        entries = json.loads(text)
        header = json.loads(entries.pop("__metadata__", {}).get("gradatim", "null"))
        needed = 8 + length + max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{foreign}: it is not safetensors; give a file that gradatim wrote") from error
    if not isinstance(header, dict) or not {"gradatim_format", "kind"} <= header.keys():
        raise ValueError(f"{foreign}: safetensors without its header; give a file that gradatim wrote")
    if size != needed:
        raise ValueError(f"{truncation}, expected {needed:,}: {advice}")
    return header


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
    handle = os.open(folder, os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
