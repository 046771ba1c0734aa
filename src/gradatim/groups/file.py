"""The file of a grouped estimator: the prior, and the sums of its groups, checked before anything is built from them.

Source: the safetensors format, as in `files.container`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..files.checkpoint import read, write
from ..files.container import to_text
from ..files.contract import blamed, check_entries, choice, list_of, mapping, number, parse_json, text, whole
from ..nn.trees import NODES, Trees
from ..preprocessing import Encoder, labels
from .experts import Expert
from .features import Features
from .prior import GroupPrior
from .sharing import SCALES
from .state import GroupState
from .sums import LEVELS, Sums
from .weighing import Weighing

if TYPE_CHECKING:
    from collections.abc import Callable

HEADER = {
    "kind": choice("groups"),
    "gradatim_format": whole(1, 99),
    "estimator": choice("GroupedRegressor", "GroupedClassifier"),
    "n_features": whole(1, 10_000_000),
    "feature_names": list_of(text()).or_none(),
    "classes": mapping().or_none(),
    "map": mapping(),
    "n_classes": whole(2, 100_000).or_none(),
    "numbers": mapping(number()),
    "depths": list_of(whole(0, 100_000)),
    "experts": list_of(text()),
    "groups": whole(0, 10**9),
    "digest": text(r"[0-9a-f]{64}", "a SHA-256"),
    "merged": list_of(text(r"[0-9a-f]{32}", "the name of some rows"), unique=True).optional(),
    "table": mapping().optional(),
}
NUMBERS = {name: number() for name in ("centre", "offset", "power", "loss")}
NUMBERS |= {name: number(above=0) for name in ("scale", "feature_scale", "fence")}
NUMBERS |= {name: number(low=0) for name in ("rows", "taught")}

_TREES = (*NODES, "start")
_FEATURES = ("directions", "centre", "time", "low", "high")


def write_groups(path: Path | str, estimator: Any, load: Callable[[Path], Any]) -> Path:
    """Write a fitted estimator, complete or not at all; `load` reads the new file before it replaces the previous one.

    Raises:
        ValueError: the file cannot be written.
    """
    tensors, header = pack(estimator)
    if hasattr(estimator, "table_"):
        header["table"] = estimator.table_
    return write(
        path,
        {name: torch.from_numpy(np.ascontiguousarray(part)) for name, part in tensors.items()},
        header,
        load,
    )


def pack(estimator: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return what a fitted estimator knows: arrays of any shape by name, and plain JSON."""
    state: GroupState = estimator.state_
    fold, sums = state.compact()
    tensors = _prior_tensors(estimator.prior_)
    tensors |= {f"groups.{name}": part for name, part in sums._asdict().items()} | {"groups.fold": fold}
    names = to_text({"names": list(state.index)}).encode()
    tensors["groups.names"] = np.frombuffer(bytearray(names), dtype=np.uint8)
    header = _header(estimator) | {"groups": len(state), "digest": digest(estimator)}
    header["merged"] = sorted(estimator.merged_)
    return tensors, header


def digest(estimator: Any) -> str:
    """Return a SHA-256 of the prior, by which parts know that they have one."""
    header = {name: value for name, value in _header(estimator).items() if name != "feature_names"}
    sha = hashlib.sha256(to_text(header).encode())
    for name, part in sorted(_prior_tensors(estimator.prior_).items()):
        sha.update(name.encode() + np.ascontiguousarray(part).tobytes())
    return sha.hexdigest()


def read_groups_file(path: Path | str, estimator: str) -> dict[str, Any]:
    """Return the attributes of the estimator of that name which a file holds.

    Raises:
        ValueError: a file that is missing, damaged, foreign, newer, or of another estimator.
    """
    path = Path(path)
    tensors, header = read(path, "groups", lambda header, layouts: _check(header))
    if (found := header["estimator"]) != estimator:
        raise ValueError(f"{path} holds a {found}: load it with {found}.load")
    with blamed(path):
        attributes = _attributes(tensors, header)
        if "table" in header:
            attributes["table_"] = header["table"]
    return attributes


def unpack(tensors: dict[str, Any], header: dict[str, Any], estimator: str) -> dict[str, Any]:
    """Return the attributes of the estimator of that name which `pack` was given.

    Raises:
        ValueError: entries and tensors of any shape that contradict each other, or are of another estimator.
    """
    _check(header | {"gradatim_format": 1})
    if header["estimator"] != estimator:
        raise ValueError(f"its prior is of a {header['estimator']}; wanted a {estimator}")
    return _attributes(tensors, header)


def _check(header: dict[str, Any]) -> None:
    """Raise ValueError unless every entry is of its type and range."""
    check_entries(header, HEADER, "header")
    check_entries(header["numbers"], NUMBERS, "header.numbers")
    if (header["n_classes"] is None) != (header["classes"] is None):
        raise ValueError("its classes and the count of them do not belong together")


def _attributes(tensors: dict[str, Any], header: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes of an estimator, checked against each other."""
    parts = {name: tensor.numpy().copy() for name, tensor in tensors.items()}
    prior = _prior_of(header, parts)
    state = _state_of(prior, header, parts)
    wanted = _prior_tensors(prior).keys() | {f"groups.{name}" for name in (*Sums._fields, "fold", "names")}
    if unknown := parts.keys() - wanted:
        raise ValueError(f"tensor {min(unknown)!r} is unknown")
    attributes: dict[str, Any] = {"prior_": prior, "state_": state, "n_features_in_": header["n_features"]}
    attributes["merged_"] = frozenset(header.get("merged", ()))
    if header["feature_names"] is not None:
        attributes["feature_names_in_"] = np.array(header["feature_names"], dtype=object)
    if (classes := labels.from_json(header["classes"])) is not None:
        if len(classes) != prior.classes:
            raise ValueError("its classes and the count of them do not belong together")
        attributes["classes_"] = classes
    return attributes


def _header(estimator: Any) -> dict[str, Any]:
    prior: GroupPrior = estimator.prior_
    numbers = {
        "centre": prior.centre,
        "scale": prior.scale,
        "offset": prior.features.offset,
        "feature_scale": prior.features.scale,
        "power": prior.weighing.power,
        "loss": prior.weighing.loss,
        "rows": prior.rows,
        "taught": prior.groups,
        "fence": prior.fence,
    }
    return {
        "kind": "groups",
        "estimator": type(estimator).__name__,
        "n_features": int(estimator.n_features_in_),
        "feature_names": [str(name) for name in getattr(estimator, "feature_names_in_", [])] or None,
        "classes": labels.to_json(getattr(estimator, "classes_", None)),
        "map": prior.encoder.to_json(),
        "n_classes": prior.classes,
        "numbers": numbers,
        "depths": [trees.depth for trees in prior.trees],
        "experts": [expert.name for expert in prior.experts],
    }


def _prior_tensors(prior: GroupPrior) -> dict[str, np.ndarray]:
    tensors = {}
    for at, trees in enumerate(prior.trees):
        tensors |= {f"trees.{at}.{name}": getattr(trees, name) for name in _TREES}
    tensors |= {f"features.{name}": getattr(prior.features, name) for name in _FEATURES}
    for at, expert in enumerate(prior.experts):
        tensors |= {f"experts.{at}.mean": expert.mean, f"experts.{at}.root": expert.root}
    tensors["experts.noise"] = np.array([expert.noise for expert in prior.experts])
    weighing = prior.weighing
    return tensors | {
        "weighing.log_prior": weighing.log_prior,
        "weighing.counts": np.asarray(weighing.counts, dtype=np.float64),
        "weighing.stretch": weighing.stretch,
    }


def _prior_of(header: dict[str, Any], parts: dict[str, np.ndarray]) -> GroupPrior:
    numbers, encoder = header["numbers"], Encoder.from_json(header["map"])
    trees = tuple(
        Trees(**{name: parts[f"trees.{at}.{name}"] for name in _TREES}, depth=depth)
        for at, depth in enumerate(header["depths"])
    )
    outputs = header["n_classes"] if (header["n_classes"] or 0) > 2 else 1
    for model in trees:
        model.check(encoder.width, outputs)
    chosen = {name: parts[f"features.{name}"] for name in _FEATURES}
    features = Features(**chosen, offset=numbers["offset"], scale=numbers["feature_scale"])
    width = len(features.kinds)
    if features.directions.shape[0] != encoder.width or (features.time >= encoder.width).any():
        raise ValueError("its features and its map of columns do not belong together")
    experts = tuple(
        Expert(
            name, parts[f"experts.{at}.mean"], parts[f"experts.{at}.root"], float(parts["experts.noise"][at])
        )
        for at, name in enumerate(header["experts"])
    )
    if any(e.mean.shape != (width,) or len(e.root) != width or not e.noise > 0 for e in experts):
        raise ValueError("its experts and its features do not belong together")
    weighing = Weighing(
        parts["weighing.log_prior"],
        numbers["power"],
        parts["weighing.counts"],
        parts["weighing.stretch"],
        numbers["loss"],
    )
    scales = len(SCALES) if header["n_classes"] is None else 1
    shapes = weighing.log_prior.shape, weighing.counts.shape
    if shapes[0] != (len(experts) * scales,) or shapes[1] != weighing.stretch.shape or len(shapes[1]) != 1:
        raise ValueError("its experts and their weights do not belong together")
    return GroupPrior(
        encoder,
        header["n_classes"],
        numbers["centre"],
        numbers["scale"],
        trees,
        features,
        experts,
        weighing,
        int(numbers["rows"]),
        int(numbers["taught"]),
        numbers["fence"],
    )


def _state_of(prior: GroupPrior, header: dict[str, Any], parts: dict[str, np.ndarray]) -> GroupState:
    names = parse_json(parts["groups.names"].tobytes())["names"]
    sums = Sums(*(parts[f"groups.{name}"] for name in Sums._fields))
    levels = 1 if prior.classes is None else len(LEVELS)
    wanted = Sums.zeros(0, len(prior.features.kinds), levels)
    count, fold = len(names) * prior.heads, parts["groups.fold"]
    fits = all(part.shape == (count, *like.shape[1:]) for part, like in zip(sums, wanted, strict=True))
    plain = all(isinstance(name, str | int) and not isinstance(name, bool) for name in names)
    if (
        not fits
        or not plain
        or len(set(names)) != len(names)
        or len(names) != header["groups"]
        or fold.shape != (len(names),)
    ):
        raise ValueError("its groups and their sums do not belong together")
    if ((fold < -1) | (fold >= len(prior.trees) - 1)).any() or (sums.count < 0).any():
        raise ValueError("its groups and its pooled models do not belong together")
    return GroupState(dict(zip(names, range(len(names)), strict=True)), prior.heads, fold, sums)
