"""The states of a learner in a file, which only the same learner can load again.

The header holds a hash of the learner's settings and weights.

Source: the safetensors format, as in `files.checkpoint`.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import torch

from ..files.checkpoint import read, write
from ..files.contract import blamed, brief, check_entries, text
from ..files.layout import Part, check_moments, check_values
from ..tree import flatten, unflatten
from .snapshot import describe_learner

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from ..files.layout import Layout
    from ..learner import Learner
    from ..refiner import State

HASH = text(r"[0-9a-f]{64}", "a SHA-256")

_COUNTS = ("rows", "squares", "weight", "steps", "square", "second", "age")
"""Fields of states that count, or sum squares: never negative."""


def fingerprint(learner: Learner) -> str:
    """Return a hash of a learner's settings and of all its weights. Equal hashes mean that states are interchangeable.

    Example:
        >>> from gradatim import LinearRegression, build
        >>> from gradatim.training.states import fingerprint
        >>> family = LinearRegression(3)
        >>> weak, strong = (build("ridge", family, strength=strength) for strength in (1.0, 2.0))
        >>> fingerprint(weak) == fingerprint(weak), fingerprint(weak) == fingerprint(strong)
        (True, False)
    """
    digest = hashlib.sha256(json.dumps(describe_learner(learner), sort_keys=True).encode())
    for tensor in learner.state_dict().values():
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_state(
    path: Path | str, state: State, learner: Learner, header: dict[str, Any] | None = None
) -> Path:
    """Write the state of tasks to a file. Loaded again, it continues exactly, and merges with states of the same
    learner.

    Args:
        path: the file to write.
        state: a state of `learner`, tensors `[B, ...]` for B tasks.
        learner: the learner that made the state.
        header: further plain JSON to store.

    Returns:
        The path.

    Raises:
        ValueError: the states of this learner belong to their queries; the value is no state of this learner, such as
            None or the pair that `Learner.learn` returns; or as `files.checkpoint.write`.

    Example:
        >>> import torch
        >>> from gradatim import LinearRegression, build, load_state, save_state
        >>> learner = build("ridge", LinearRegression(3))
        >>> task = LinearRegression(3).sample(1, torch.Generator().manual_seed(0))
        >>> state = learner.adapt(task.support, batch_size=16)
        >>> loaded = load_state(save_state("task.safetensors", state, learner), learner)
        >>> torch.equal(learner.refiner.latent(loaded), learner.refiner.latent(state))
        True
    """
    if learner.refiner.capabilities.per_query:
        raise ValueError(
            "an implicit learner's state belongs to the queries it was made for and cannot be saved: save the rows, "
            "or use a parametric or explicit learner"
        )
    _check_structure(state, learner.refiner.init(1), "state")
    identity = {"kind": "state", "learner": fingerprint(learner)}
    return write(path, flatten(state), {**(header or {}), **identity}, lambda new: load_state(new, learner))


def load_state(path: Path | str, learner: Learner) -> State:
    """Return the state in a file, tensors `[B, ...]` for the B tasks that were saved.

    Raises:
        ValueError: as `files.checkpoint.read`; a state of another structure or dtype; a state of a learner with other
        settings or weights, in which the same numbers mean something else.

    Example:
        >>> from gradatim import LinearRegression, build, load_state, save_state
        >>> family = LinearRegression(3)
        >>> learner, other_learner = (build("ridge", family, strength=strength) for strength in (1.0, 2.0))
        >>> path = save_state("task.safetensors", learner.refiner.init(1), learner)
        >>> load_state(path, other_learner)
        Traceback (most recent call last):
        ValueError: task.safetensors was saved by a learner with other settings or weights...
    """
    template = learner.refiner.init(1)
    expected = flatten(template)

    def check(header: dict[str, Any], layouts: dict[str, Layout]) -> None:
        if "estimator" in header:
            raise ValueError(f"it is the state of a table: read it with {brief(header['estimator'])}.load")
        check_entries(header, {"learner": HASH}, "header", further=True)
        if len({layout.shape[:1] for layout in layouts.values()}) > 1:
            raise ValueError("its tensors must have one number of tasks, the first axis of each")

    tensors, header = read(path, "state", check)
    if unknown := sorted(tensors.keys() - expected.keys()):
        raise ValueError(
            f"{path} holds {unknown[0]!r}, which this learner's state lacks: load it with the "
            "learner that made it"
        )
    for name, tensor in tensors.items():
        if tensor.dtype != expected[name].dtype:
            raise ValueError(
                f"{path}: {name!r} is {tensor.dtype}, this learner's state is {expected[name].dtype}: convert "
                "the learner"
            )
    if header["learner"] != fingerprint(learner):
        raise ValueError(
            f"{path} was saved by a learner with other settings or weights, so its numbers mean something else here: "
            "load it with the learner that made it"
        )
    with blamed(path):
        state = unflatten(template, tensors)
        _check_numbers(tensors)
        if any(name.endswith("gram") for name in tensors):
            with torch.no_grad():  # one solution of linear equations: numbers that have none are refused here
                latent = learner.refiner.latent(state)
                if bool((latent.isnan() | (latent == torch.inf)).any()):  # the log of a weight may be -inf
                    raise ValueError("its sums have no finite solution")
    return state


def _check_numbers(tensors: dict[str, Tensor]) -> None:
    """Raise ValueError where counts or sums of squares are negative, or sums over rows `[B, ...]` are none."""
    counts = {name: Part((), sign="nonnegative") for name in tensors if name.rpartition(".")[2] in _COUNTS}
    check_values(tensors, counts)
    for prefix in (name.removesuffix("gram") for name in tensors if name.endswith(".gram")):
        names = [f"{prefix}{part}" for part in ("gram", "cross", "squares")]
        if all(name in tensors for name in names) and tensors[names[0]].dim() == 3:
            check_moments(*((name, tensors[name]) for name in names))


def _check_structure(state: object, template: State, name: str) -> None:
    """Raise ValueError where a value has not the structure of a learner's state: the same named tuples and tensors."""
    expected = torch.Tensor if isinstance(template, torch.Tensor) else type(template)
    if not isinstance(state, expected):
        raise ValueError(
            f"the {name} of this learner is a {expected.__name__}; got {type(state).__name__}: give what learner.adapt "
            "or learner.step returned"
        )
    for field in getattr(template, "_fields", ()):
        _check_structure(getattr(state, field), getattr(template, field), f"{name}.{field}")
