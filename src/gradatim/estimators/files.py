"""A table's state in a file: packed moments, the map of its columns, and nothing that could run.

Source: the safetensors format, as in `training.checkpoint`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..files.checkpoint import read, read_header, write
from ..preprocessing import Columns, Encoder
from ..recipes import rebuild
from ..refiners import Experts
from ..refiners.statistics import Packed, pack, unpack
from ..training.states import fingerprint
from ..tree import flatten, unflatten
from .rows import Rows

if TYPE_CHECKING:
    from torch import Tensor

    from ..learner import Learner
    from ..refiners.experts import ExpertsState
    from .table import Adapted

FEATURES = 2
"""The version of the shipped learner's features: moments of others mean something else."""

WANTED = (
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


def load_learner(path: Path | str, shipped: str) -> Learner:
    """Return the learner of a checkpoint.

    Raises:
        ValueError: there is no such file, and no shipped model of that name.
    """
    if not Path(path).exists():
        raise ValueError(
            f"no model is called {str(path)!r} and no file has that name: {shipped} or give a checkpoint"
        )
    return rebuild(Path(path))[0]


def write_table(path: Path | str, task: Adapted, about: dict[str, Any]) -> Path:
    """Write what is known of a table, whole or not at all.

    Raises:
        ValueError: as `write`.
    """
    tensors: dict[str, Tensor] = {}
    for at, (learner, state) in enumerate(zip(task.learners, task.states, strict=True)):
        if isinstance(learner.refiner, Experts):
            parts = _packed(state) | {"landmarks": learner.predictor.get_buffer("landmarks").float()}
        else:
            parts = flatten(state)
        tensors |= {f"{at}.{name}": part for name, part in parts.items()}
    warm = None
    if task.warm is not None:
        tensors |= {
            "warm.y": torch.from_numpy(task.warm.y),
            "warm.weight": torch.from_numpy(task.warm.weight),
        }
        warm = {"names": list(task.warm.columns.names), "named": task.warm.columns.named, "words": {}}
        for at, values in enumerate(task.warm.columns.values):
            if values.dtype == object:
                warm["words"][str(at)] = values.tolist()
            else:
                tensors[f"warm.{at}"] = torch.from_numpy(np.array(values))
    header = {
        **about,
        "kind": "state",
        "features": FEATURES,
        "map": task.map_so_far().to_json(),
        "target": [task.centre, task.scale],
        "warm": warm,
        "seeds": list(task.seeds),
        "learners": [] if task.given is None else [fingerprint(learner) for learner in task.learners],
        "rows": float(task.rows),
    }
    return write(path, tensors, header)


def read_table(path: Path | str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the header and the tensors of a table's state.

    Raises:
        ValueError: a file that is missing, truncated, foreign or newer, of something else or of other features.
    """
    header = read_header(path, "state")
    if missing := [name for name in WANTED if name not in header]:
        raise ValueError(
            f"{path} holds a state, but not one of a table ({missing[0]!r} is missing): read it with load_state"
        )
    if header.get("features", 1) != FEATURES:
        raise ValueError(f"{path} holds moments of another gradatim's features: learn its table once more")
    return header, read(path, "state")[0]


def restore(task: Adapted, tensors: dict[str, Tensor], header: dict[str, Any], path: Path | str) -> None:
    """Put what a file holds into a task that is as new.

    Raises:
        ValueError: the file contradicts itself, or was written with another learner.
    """
    task.seeds, (task.centre, task.scale) = tuple(header["seeds"]), header["target"]
    task.warm = _warm(tensors, header["warm"])
    if task.warm is not None:
        return
    task.encoder = Encoder.from_json(header["map"])
    none = torch.zeros(0, task.encoder.width)
    task.learners = [
        task.make(seed, tensors.get(f"{at}.landmarks", none)) for at, seed in enumerate(task.seeds)
    ]
    task.states = [
        _state(
            learner,
            {name.partition(".")[2]: part for name, part in tensors.items() if name.startswith(f"{at}.")},
            path,
        )
        for at, learner in enumerate(task.learners)
    ]
    if task.given is not None and header["learners"] != [fingerprint(learner) for learner in task.learners]:
        raise ValueError(f"{path} was written with another learner: give that one as model")


def _state(learner: Learner, parts: dict[str, Tensor], path: Path | str) -> Any:
    """Return one member's state."""
    refiner = learner.refiner
    like = refiner.init(1)
    if not isinstance(refiner, Experts):
        return unflatten(like, parts)
    wanted = {name: part.shape for name, part in _packed(like).items()}
    for name, shape in wanted.items():
        if name not in parts or parts[name].shape != shape:
            came = list(parts[name].shape) if name in parts else "nothing"
            raise ValueError(
                f"{path} contradicts itself: its map wants {name!r} of {list(shape)}; it holds {came}"
            )
    scale = parts["scale"].to(like.theta)
    moments = unpack(Packed(*(parts[name] for name in Packed._fields)), like.moments.gram)
    moments = moments._replace(
        gram=moments.gram * scale[:, :, None] * scale[:, None],
        cross=moments.cross * scale[:, :, None],
        squares=parts["squares"].to(like.theta),
        rows=parts["rows"].to(like.theta),
    )
    state = like._replace(moments=moments, log_likelihood=parts["log_likelihood"].to(like.theta))
    return refiner.solve(state)._replace(noise=parts["noise"].to(like.theta))


def _packed(state: ExpertsState) -> dict[str, Tensor]:
    """Return moments of features brought to a mean square of 1 / rows, in float32, and the rest as it is."""
    scale = state.moments.gram.diagonal(dim1=-2, dim2=-1).sqrt()
    safe = torch.where(scale > 0, scale, 1.0)
    moments = state.moments._replace(
        gram=state.moments.gram / (safe[:, :, None] * safe[:, None]),
        cross=state.moments.cross / safe[:, :, None],
    )
    exact = {
        "squares": state.moments.squares,
        "rows": state.moments.rows,
        "scale": safe,
        "noise": state.noise,
    }
    return pack(moments)._asdict() | exact | {"log_likelihood": state.log_likelihood}


def _warm(tensors: dict[str, Tensor], header: dict[str, Any] | None) -> Rows | None:
    """Return the rows that were kept as they came."""
    if header is None:
        return None
    values = []
    for at in range(len(header["names"])):
        if (words := header["words"].get(str(at))) is not None:
            column = np.empty(len(words), dtype=object)
            column[:] = words
        else:
            column = tensors[f"warm.{at}"].numpy()
        values.append(column)
    columns = Columns(tuple(header["names"]), tuple(values), header["named"])
    return Rows(columns, tensors["warm.y"].numpy(), tensors["warm.weight"].numpy())
