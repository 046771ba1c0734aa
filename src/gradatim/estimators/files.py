"""A table's state in a file: packed moments, the map of its columns, and nothing that could run.

Source: the safetensors format, as in `training.checkpoint`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..files.checkpoint import read, read_header, select_prefix, write
from ..preprocessing import Columns, Encoder
from ..recipes import rebuild
from ..training.states import fingerprint
from .rows import Rows

if TYPE_CHECKING:
    from torch import Tensor

    from ..learner import Learner
    from .table import TableTask

FEATURES = 3
"""The version of the shipped learner's features and of their files: moments of others mean something else."""

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


def write_table(path: Path | str, task: TableTask, about: dict[str, Any]) -> Path:
    """Write what is learnt of a table, whole or not at all; the task goes on as the file does.

    Raises:
        ValueError: as `write`.
    """
    tensors: dict[str, Tensor] = {}
    states = []
    for member, (learner, state) in enumerate(zip(task.learners, task.states, strict=True)):
        state, parts = learner.refiner.pack(state)
        states.append(state)
        tensors |= {f"{member}.{name}": part for name, part in parts.items()}
    task.states, task.latents = states, None
    tensors |= {f"{member}.landmarks": torch.from_numpy(rows) for member, rows in enumerate(task.landmarks)}
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
    encoder = task.encoder
    if encoder is None:
        assert task.warm is not None
        encoder = Encoder.fit(task.warm.columns, task.warm.weight)
    header = {
        **about,
        "kind": "state",
        "features": FEATURES,
        "map": encoder.to_json(),
        "target": [task.centre, task.scale],
        "warm": warm,
        "seeds": list(task.seeds),
        "learners": [] if task.template is None else [fingerprint(learner) for learner in task.learners],
        "rows": task.rows,
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


def restore(task: TableTask, tensors: dict[str, Tensor], header: dict[str, Any], path: Path | str) -> None:
    """Put what a file holds into a task that is as new.

    Raises:
        ValueError: the file contradicts itself, or was written with another learner.
    """
    task.seeds, (task.centre, task.scale) = tuple(header["seeds"]), header["target"]
    task.rows, task.warm = header["rows"], _warm(tensors, header["warm"])
    if task.warm is not None:
        return
    task.encoder = Encoder.from_json(header["map"])
    members = [select_prefix(tensors, str(member)) for member in range(len(task.seeds))]
    try:
        if task.template is None:
            task.landmarks = [parts.pop("landmarks").numpy() for parts in members]
        task.build()
        if task.template is not None and header["learners"] != [*map(fingerprint, task.learners)]:
            raise ValueError("it was written with another learner: give that one as model")
        pairs = zip(task.learners, members, strict=True)
        task.states = [learner.refiner.unpack(parts) for learner, parts in pairs]
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path} contradicts itself: {error}") from error


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
