"""The file of a reprogrammed model: what was learnt and how outputs are read, without the model.

Source: the safetensors format, as in `files.container`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..files.checkpoint import read, select_prefix, write
from ..files.contract import blamed, check_entries, choice, list_of, mapping, number, text, whole
from .alignment import from_tensors
from .cells import AXES, Reprogramming, check_built
from .kinds import kind_of

LARGEST = 10_000_000
HEADER = {
    "kind": choice("reprogramming"),
    "gradatim_format": whole(1, 99),
    "of": choice("module", "learner", "language"),
    "model": text(r"[0-9a-f]{64}", "a SHA-256"),
    "how": mapping(),
    "settings": mapping(),
    "label_kind": choice("i", "u", "b", "U"),
    "labels": list_of(text(), unique=True),
}
HOW = {axis: choice(*values) for axis, values in AXES.items()} | {
    "tokens": whole(1, LARGEST),
    "frame": whole(0, LARGEST),
    "rank": whole(0, LARGEST),
    "steps": whole(0, 2**53),
    "batch_size": whole(1, 2**53),
    "learning_rate": number(above=0),
    "layer": text(),
}
SETTINGS = {
    "seed": whole(0, 2**63),
    "ask": text(),
    "max_tokens": whole(1, LARGEST).or_none(),
    "shape": list_of(whole(1, LARGEST)),
    "x_shape": list_of(whole(1, LARGEST)),
}


def fingerprint(model: nn.Module) -> str:
    """Return a hash of a model's class and of all its weights, by name, type and shape.

    Example:
        >>> import torch
        >>> from gradatim.prompting.file import fingerprint
        >>> one, other = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
        >>> fingerprint(one) == fingerprint(one), fingerprint(one) == fingerprint(other)
        (True, False)
    """
    digest = hashlib.sha256(type(model).__name__.encode())
    for name, part in model.state_dict().items():
        part = part.detach().cpu().contiguous()
        digest.update(f"{name} {part.dtype} {[*part.shape]}".encode())
        digest.update(part.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def write_delta(path: Path | str, found: Any) -> Path:
    """Write a delta and an alignment, complete or not at all, read back before they take their place.

    Raises:
        ValueError: the file cannot be written.
    """
    parts = {"delta": found.adapter.delta, "kept": found.adapter.kept, "align": found.alignment.tensors()}
    tensors = {f"{part}.{name}": value for part, of in parts.items() for name, value in of.items()}
    header = {
        "kind": "reprogramming",
        "of": found.adapter.kind,
        "model": fingerprint(found.model),
        "how": found.how.to_json(),
        "settings": found.settings,
        "label_kind": found.classes_.dtype.kind,
        "labels": [str(label) for label in found.classes_.tolist()],
    }
    whole_model = found.model if found.adapter.kind != "language" else (found.model, found.adapter.tokenizer)
    return write(path, tensors, header, partial(type(found).load, model=whole_model))


Stored = tuple[Reprogramming, dict[str, Any], np.ndarray, dict[str, dict[str, Tensor]], Callable[[Any], Any]]


def read_delta(path: Path | str, model: Any) -> Stored:
    """Return the cell, settings, labels, tensors by part, and what makes the alignment for an adapter.

    Raises:
        ValueError: a file that is missing, damaged, foreign, or of a model with other weights.
    """
    path = Path(path)
    kind = kind_of(model)

    def check(header: dict[str, Any], layouts: dict[str, Any]) -> None:
        check_entries(header, HEADER, "header")
        check_entries(header["how"], HOW, "header.how")
        check_entries(header["settings"], SETTINGS, "header.settings")
        odd = [name for name in layouts if name.partition(".")[0] not in ("delta", "kept", "align")]
        if odd:
            raise ValueError(f"tensor {odd[0]!r:.60} is none of a reprogrammed model")

    tensors, header = read(path, "reprogramming", check)
    if header["of"] != kind:
        raise ValueError(f"{path} is of a {header['of']}; got a {kind}: give the model that it was learnt on")
    if header["model"] != fingerprint(model[0] if kind == "language" else model):
        raise ValueError(
            f"{path} was learnt on a model with other weights or shapes: give that model, or reprogram this one"
        )
    with blamed(path):
        how = Reprogramming(**{field.name: header["how"][field.name] for field in fields(Reprogramming)})
        check_built(kind, how)
        classes = _labels(header["labels"], header["label_kind"])
        parts = {part: select_prefix(tensors, part) for part in ("delta", "kept", "align")}
        if kind != "language" and not (header["settings"]["shape"] and header["settings"]["x_shape"]):
            raise ValueError("the shapes of x and of the input are missing")
        _check_kept(parts["kept"], kind, how, len(classes), header["settings"]["x_shape"])

    def make(adapter: Any) -> Any:
        with blamed(path):
            prompt = parts["kept"].get("prompt", torch.zeros(0))
            if bool((prompt < 0).any()) or bool((prompt >= adapter.n_outputs).any()):
                raise ValueError(f"tokens of the prompt must be below {adapter.n_outputs}")
            return from_tensors(parts["align"], len(classes), adapter.n_outputs, adapter.n_features)

    return how, header["settings"], classes, parts, make


def _labels(labels: list[str], kind: str) -> np.ndarray:
    """Return labels of a file as they were."""
    if kind == "U":
        return np.array(labels)
    if kind == "b":
        return np.array([label == "True" for label in labels])
    return np.array([int(label) for label in labels], dtype=np.int64 if kind == "i" else np.uint64)


def _check_kept(
    kept: dict[str, Tensor], kind: str, how: Reprogramming, classes: int, x_shape: list[int]
) -> None:
    """Check what a file keeps beside the delta: examples of a prompt, or the support of a learner."""
    shows = kind == "language" and how.configuration == "fixed"
    wanted = {"prompt"} if shows else set()
    if kind == "learner":
        learnt = how.configuration == "learnable" and how.operator == "concatenative"
        wanted = {"y"} if learnt else {"x", "y"}
    if set(kept) != wanted:
        raise ValueError(f"beside the delta it must keep {sorted(wanted)}; got {sorted(kept)}")
    y = kept.get("y", torch.zeros(1, dtype=torch.int64))
    if y.is_floating_point() or y.ndim != 1 or bool((y < 0).any()) or bool((y >= classes).any()):
        raise ValueError(f"kept classes must be whole numbers below {classes}, in a row")
    if "x" in kept and kept["x"].shape != (len(y), *x_shape):
        raise ValueError(f"kept rows must have shape {[len(y), *x_shape]}; got {[*kept['x'].shape]}")
    if "prompt" in kept and (kept["prompt"].ndim != 1 or kept["prompt"].is_floating_point()):
        raise ValueError("a prompt must be tokens in a row")
