"""What a learner knows about its tasks, in a file that only the same learner takes up again.

Source: the safetensors format, as in `checkpoint`; the header names the learner by a hash of its form and its weights.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import torch

from ..files.checkpoint import read, write
from ..tree import flatten, unflatten
from .snapshot import describe_learner

if TYPE_CHECKING:
    from pathlib import Path

    from ..learner import Learner
    from ..refiner import State


def fingerprint(learner: Learner) -> str:
    """Return a hash of a learner's settings and of every weight: equal where its states mean the same.

    Example:
        >>> fingerprint(build("ridge", family, strength=1.0)) == fingerprint(build("ridge", family, strength=2.0))
        False
    """
    digest = hashlib.sha256(json.dumps(describe_learner(learner), sort_keys=True).encode())
    for tensor in learner.state_dict().values():
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_state(
    path: Path | str, state: State, learner: Learner, header: dict[str, Any] | None = None
) -> Path:
    """Write a task state to a file. It resumes exactly, and merges with others of the same learner.

    Args: `learner`: who made the state; `header`: what else to remember, plain JSON.

    Raises:
        ValueError: a learner whose states belong to their queries; or as `write`.

    Example:
        >>> save_state("task.safetensors", state, learner)
        >>> state = load_state("task.safetensors", learner)
    """
    if learner.refiner.capabilities.per_query:
        raise ValueError(
            "an implicit learner's state belongs to the queries it was made for and cannot be saved: save the rows, "
            "or use a parametric or explicit learner"
        )
    own = {"kind": "state", "learner": fingerprint(learner)}
    return write(path, flatten(state), {**(header or {}), **own})


def load_state(path: Path | str, learner: Learner) -> State:
    """Return the state in a file, for as many tasks as were saved.

    Raises:
        ValueError: as `read`; a state of another structure or dtype, or of a learner with other settings or weights,
            to which the same numbers would mean something else.
    """
    tensors, header = read(path, kind="state")
    like = learner.refiner.init(1)
    wanted = flatten(like)
    if surplus := sorted(tensors.keys() - wanted.keys()):
        raise ValueError(
            f"{path} holds {surplus[0]!r}, which this learner's state lacks: was another learner's saved?"
        )
    for name, tensor in tensors.items():
        if tensor.dtype != wanted[name].dtype:
            raise ValueError(
                f"{path}: {name!r} is {tensor.dtype}, this learner's state is {wanted[name].dtype}: convert the learner"
            )
    if header.get("learner") != fingerprint(learner):
        raise ValueError(
            f"{path} was saved by a learner with other settings or weights, so its numbers mean something else here: "
            "load it with the learner that made it"
        )
    return unflatten(like, tensors)
