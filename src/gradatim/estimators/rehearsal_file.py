"""The file of a rehearsal classifier: network, buffer and classes, checked before anything is built from them.

Source: the safetensors format, as in `files.container`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..files.checkpoint import put_weights, read, write
from ..files.contract import blamed, check_entries, choice, list_of, mapping, number, text, truth, whole
from ..preprocessing import labels
from .buffer import Buffer, Moments

HIDDEN = 128
"""Units of the default network."""

SETTINGS = {
    "buffer": whole(0, 10**9),
    "regularizer": choice("marginal", "full", "entropy").or_none(),
    "target": choice("both", "replay"),
    "weight": number(low=0),
    "lr": number(low=0),
    "batch_size": whole(1, 10**9),
    "n_passes": whole(1, 10**9),
    "standardize": truth(),
    "random_state": whole(0, 2**63).or_none(),
}
HEADER = {
    "kind": choice("rehearsal"),
    "gradatim_format": whole(1, 99),
    "settings": mapping(),
    "own_net": truth(),
    "n_features": whole(1, 10_000_000),
    "feature_names": list_of(text()).or_none(),
    "shape": list_of(whole(1, 10_000_000)),
    "features": whole(1, 10_000_000),
    "classes": mapping(),
    "codes": list_of(whole(-1, 10_000_000)),
    "rows": whole(0, 2**53),
    "counted": whole(0, 2**62),
    "generator": mapping(),
}


def head(features: int, classes: int) -> nn.Linear:
    """Return a linear head that is zero, so that no class is preferred."""
    layer = _linear(features, classes)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
    return layer


def default_net(shape: tuple[int, ...], seed: int) -> nn.Module:
    """Return one hidden layer on flat x, its weights drawn by a generator of that seed."""
    width = int(np.prod(shape))
    layer, bound = _linear(width, HIDDEN), width**-0.5
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.uniform_(-bound, bound, generator=generator)
    return nn.Sequential(nn.Flatten(), layer, nn.ReLU())


def _linear(inputs: int, outputs: int) -> nn.Linear:
    """Return a layer whose weights are yet to be set; no global generator draws."""
    return nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")


def write_rehearsal(path: Path | str, model: Any) -> Path:
    """Write a fitted `RehearsalClassifier`, complete or not at all, read back before it takes its place.

    Raises:
        ValueError: the file cannot be written.
    """
    buffer, moments = model.buffer_, model.moments_
    tensors = {f"weights.{name}": part for name, part in model.module_.state_dict().items()}
    tensors |= {"buffer.x": buffer.x, "buffer.y": buffer.y}
    tensors |= {"moments.mean": moments.mean, "moments.square": moments.square}
    settings = {name: getattr(model, name) for name in SETTINGS}
    state = settings["random_state"]
    settings["random_state"] = int(state) if isinstance(state, int | np.integer) else None
    header = {
        "kind": "rehearsal",
        "settings": {name: v.item() if isinstance(v, np.generic) else v for name, v in settings.items()},
        "own_net": model.net is not None,
        "n_features": int(model.n_features_in_),
        "feature_names": [str(name) for name in getattr(model, "feature_names_in_", [])] or None,
        "shape": list(model.shape_),
        "features": model.module_["head"].in_features,
        "classes": labels.to_json(model.classes_),
        "codes": model.codes_.tolist(),
        "rows": buffer.count,
        "counted": moments.count,
        "generator": buffer.generator.bit_generator.state,
    }
    return write(path, tensors, header, partial(read_rehearsal, kind=type(model), net=model.net))


def read_rehearsal(path: Path | str, kind: Any, net: nn.Module | None) -> Any:
    """Return the classifier of a file; `net` is the network that it was made with, where it was not the default one.

    Raises:
        ValueError: a file that is missing, damaged, foreign, newer, or of another network.
    """
    path = Path(path)

    def check(header: dict[str, Any], layouts: dict[str, Any]) -> None:
        check_entries(header, HEADER, "header")
        check_entries(header["settings"], SETTINGS, "header.settings")

    tensors, header = read(path, "rehearsal", check)
    if header["own_net"] != (net is not None):
        wanted = (
            "a network of its own: give it as net=" if net is None else "the default network: leave out net"
        )
        raise ValueError(f"{path} holds {wanted}")
    with blamed(path):
        model = kind(net=net, **header["settings"])
        model.classes_ = np.asarray(labels.from_json(header["classes"]))
        model.codes_ = np.array(header["codes"], dtype=np.int64)
        model.shape_ = tuple(header["shape"])
        seen = np.sort(model.codes_[model.codes_ >= 0])
        if len(model.codes_) != len(model.classes_) or (seen != np.arange(len(seen))).any() or not len(seen):
            raise ValueError("its classes and their places do not belong together")
        model.n_features_in_ = header["n_features"]
        if header["feature_names"] is not None:
            model.feature_names_in_ = np.array(header["feature_names"], dtype=object)
        model._check_arguments()
        model.buffer_ = _buffer(header, tensors, len(seen))
        model.moments_ = _moments(header, tensors)
    model.module_ = nn.ModuleDict(
        {"net": model._network(model.shape_, 0), "head": head(header["features"], len(seen))}
    )
    put_weights(model.module_, tensors, path)
    return model


def _buffer(header: dict[str, Any], tensors: dict[str, torch.Tensor], classes: int) -> Buffer:
    """Return the buffer of a file."""
    shape, generator = tuple(header["shape"]), np.random.default_rng(0)
    generator.bit_generator.state = header["generator"]
    buffer = Buffer(header["settings"]["buffer"], shape, generator)
    buffer.count = header["rows"]
    x, y = tensors["buffer.x"], tensors["buffer.y"]
    fits = x.shape == (buffer.filled, *shape) and y.shape == (buffer.filled,)
    if not fits or x.dtype != torch.float32 or y.dtype != torch.int64 or not ((y >= 0) & (y < classes)).all():
        raise ValueError("its buffer does not hold the rows that it says")
    buffer.x, buffer.y = x, y
    return buffer


def _moments(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Moments:
    """Return the moments of a file."""
    moments = Moments(tuple(header["shape"]))
    moments.count = header["counted"]
    for name in ("mean", "square"):
        part = tensors[f"moments.{name}"]
        if part.shape != moments.mean.shape or part.dtype != torch.float64:
            raise ValueError(f"its moments have the shape {tuple(part.shape)}, not that of its columns")
        setattr(moments, name, part)
    if bool((moments.square < 0).any()):
        raise ValueError("its moments have a square below 0")
    return moments
