"""Weights and task states in files: safetensors with a JSON header, whole or not there at all, never pickle.

Source: the safetensors format (8 bytes of header length, a JSON header, the tensors); this project's header in it.
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
KEPT = 2
READERS: dict[int, Callable[[dict[str, Tensor], dict[str, Any]], Contents]] = {
    1: lambda tensors, header: (tensors, header)
}
"""How each format version still read becomes the present one; a new version keeps the one before it here."""

_STEP = re.compile(r"step-(\d{8,})\.safetensors")
_LEFTOVER = re.compile(rf"\.({_STEP.pattern}|learner\.safetensors|log\.jsonl|run\.json)\.\d+\.tmp")
_LARGEST_HEADER = 100_000_000


def write(path: Path | str, tensors: dict[str, Tensor], header: dict[str, Any]) -> Path:
    """Write tensors and a JSON header to one file, through a temporary file beside it and a rename.

    Who reads `path` at any moment, a kill included, finds the file that was there before or the whole new one.
    `header["kind"]` is `"checkpoint"` or `"state"`; the format version is added.

    Raises:
        ValueError: an unknown kind, a header that is not JSON, or a file that cannot be written (a full disk): nothing
            is left behind, and what stood at `path` stays.

    Example:
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
    """Put content at path, whole or not at all; a link stays, the file it leads to is written.

    Raises:
        ValueError: what stands there is a folder, a device or anything else but a regular file, or it cannot be
            written; the temporary file is removed.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        _refuse_special(path, target)
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
        _sync_folder(target.parent)
    except OSError as error:
        raise ValueError(
            f"{path} could not be written ({error.strerror or error}; {len(content):,} bytes wanted): make room or "
            "choose another folder; files written before are intact"
        ) from error
    finally:
        with suppress(OSError):  # it is gone, or its folder never was
            temporary.unlink()


def read(path: Path | str, kind: str | None = None) -> Contents:
    """Return the tensors (on the CPU) and the header of a file that `write` wrote, of one `kind` if given.

    Raises:
        ValueError: a file that is missing, truncated, foreign, of another kind, or of a format version not read here.

    Example:
        >>> tensors, header = read("w.safetensors", kind="checkpoint")
        >>> tensors["weight"], header["gradatim_format"]
        (tensor([1., 1.]), 1)
    """
    path = Path(path)
    header = read_header(path, kind)
    with path.open("rb") as file:
        tensors = load(file.read())
    return READERS[header["gradatim_format"]](tensors, header)


def read_header(path: Path | str, kind: str | None = None) -> dict[str, Any]:
    """Return the header alone, once the file is known to be whole and readable here.

    Raises:
        ValueError: as `read`.
    """
    header = _header(Path(path))
    version = header["gradatim_format"]
    if version not in READERS:
        newer = isinstance(version, int) and version > FORMAT
        advice = "upgrade gradatim" if newer else "read it with an older gradatim, or train anew"
        raise ValueError(
            f"{path} has format version {version}; this gradatim reads {', '.join(map(str, READERS))}: {advice}"
        )
    if kind is not None and header["kind"] != kind:
        raise ValueError(f"{path} holds a {header['kind']}; a {kind} was wanted: choose another file")
    return header


def save_run(folder: Path | str, step: int, tensors: dict[str, Tensor], header: dict[str, Any]) -> Path:
    """Write `step-00000123.safetensors` into a run's folder and keep the last two; leftovers of a kill are removed.

    Raises:
        ValueError: as `write`; earlier checkpoints are intact then.
    """
    folder = Path(folder)
    for leftover in folder.glob(".*.tmp"):
        if _LEFTOVER.fullmatch(leftover.name) and leftover.is_file():
            leftover.unlink(missing_ok=True)
    path = write(folder / f"step-{step:08d}.safetensors", tensors, header)
    present = steps(folder)
    kept = [number for number in present if number <= step][-KEPT:]
    for number, file in present.items():
        if number not in kept:
            file.unlink(missing_ok=True)
    return path


def steps(folder: Path | str) -> dict[int, Path]:
    """Return the step files of a run's folder by their step, ascending, readable or not."""
    folder = Path(folder)
    found = folder.iterdir() if folder.is_dir() else ()
    matches = ((_STEP.fullmatch(file.name), file) for file in found)
    return dict(sorted((int(match[1]), file) for match, file in matches if match))


def latest(folder: Path | str) -> Path | None:
    """Return the newest step file that is whole, or None; damaged ones are passed over."""
    for file in reversed(steps(folder).values()):
        try:
            _header(file)
        except ValueError:
            continue
        return file
    return None


def load_weights(module: nn.Module, path: Path | str) -> dict[str, Any]:
    """Load a checkpoint's weights (the averaged ones, where it holds both) into a module, and return its header.

    Raises:
        ValueError: as `read`, or weights of another architecture, naming the first that differs.
    """
    tensors, header = read(path, kind="checkpoint")
    weights = part(tensors, "weights") | part(tensors, "ema")
    wanted = module.state_dict()
    for name in sorted(wanted.keys() | weights.keys()):
        came = tuple(weights[name].shape) if name in weights else "nothing"
        want = tuple(wanted[name].shape) if name in wanted else "nothing"
        if came != want:
            raise ValueError(f"{path} does not fit this learner: {name} wants {want}, the file has {came}")
    module.load_state_dict(weights)
    return header


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with `prefix` and a dot, named without them."""
    return {
        name[len(prefix) + 1 :]: value for name, value in tensors.items() if name.startswith(prefix + ".")
    }


def _header(path: Path) -> dict[str, Any]:
    """Return the header of a whole file of this project, of whatever version."""
    foreign = f"{path} is not a file of gradatim"
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            text = file.read(min(length, _LARGEST_HEADER))
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): check the path") from error
    if size >= 8 and (length > _LARGEST_HEADER or text[:1] not in (b"", b"{")):
        raise ValueError(f"{foreign}: it is not safetensors; give a file that gradatim wrote")
    truncated = f"{path} is truncated: it has {size:,} bytes"
    advice = "take an earlier checkpoint, or write it again"
    if size < 8 or len(text) < length:
        raise ValueError(f"{truncated}, its header alone needs {length + 8:,}: {advice}")
    try:
        entries = json.loads(text)
        header = json.loads(entries.pop("__metadata__", {}).get("gradatim", "null"))
        needed = 8 + length + max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{foreign}: it is not safetensors; give a file that gradatim wrote") from error
    if not isinstance(header, dict) or not {"gradatim_format", "kind"} <= header.keys():
        raise ValueError(f"{foreign}: safetensors without its header; give a file that gradatim wrote")
    if size != needed:
        raise ValueError(f"{truncated}, {needed:,} were written: {advice}")
    return header


def _refuse_special(path: Path, target: Path) -> None:
    """Raise ValueError where something stands at target, which path leads to, that a rename must not replace."""
    try:
        mode = target.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        leads = "" if target == path.absolute() else f" leads to {target}, which"
        raise ValueError(
            f"{path}{leads} is not a regular file (but a folder, a device, a pipe or a circle of links): "
            "give another path"
        )


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power failure, where folders can be synced."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
