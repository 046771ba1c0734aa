"""A run as tensors and plain values: what a checkpoint holds, and whether two runs are the same run.

Source: AdamW's state after Loshchilov, Hutter 2019: two moments and a step count for each parameter.
"""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from types import BuiltinFunctionType, FunctionType
from typing import TYPE_CHECKING, Any

import torch

from ..files.checkpoint import select_prefix

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..learner import Learner


def pack(learner: nn.Module, average: list[Tensor], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return `weights.NAME`, `ema.NAME` and `optimizer.NAME.KEY` of a run; `average` is ordered like the parameters."""
    tensors = {f"weights.{name}": value for name, value in learner.state_dict().items()}
    for (name, parameter), mean in zip(learner.named_parameters(), average, strict=True):
        tensors[f"ema.{name}"] = mean
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{name}.{key}"] = value
    return tensors


@torch.no_grad()
def unpack(
    tensors: dict[str, Tensor], learner: nn.Module, average: list[Tensor], optimizer: torch.optim.Optimizer
) -> None:
    """Copy what `pack` returned into a learner, its averaged weights and its optimizer, in place."""
    learner.load_state_dict(select_prefix(tensors, "weights"))
    for (name, parameter), mean in zip(learner.named_parameters(), average, strict=True):
        mean.copy_(tensors[f"ema.{name}"])
        # clone: memory of torch's own alignment, so that kernels round as they did before
        moments = {
            k: v.clone().to(parameter.device) for k, v in select_prefix(tensors, f"optimizer.{name}").items()
        }
        if moments:
            optimizer.state[parameter] = moments


def describe(value: Any) -> Any:
    """Return plain JSON for a configuration: dataclasses as `{"type": ..., field: ...}`, functions by their
    name, what is not plain by its type.

    Example:
        >>> describe(Greedy(batch_size=16))["type"]
        'Greedy'
    """
    if is_dataclass(value) and not isinstance(value, type):
        named = {field.name: describe(getattr(value, field.name)) for field in fields(value)}
        return {"type": type(value).__name__, **named}
    if isinstance(value, dict):
        return {str(key): describe(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [describe(inner) for inner in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, FunctionType | BuiltinFunctionType):
        return value.__name__
    return type(value).__name__


def describe_learner(learner: Learner) -> dict[str, Any]:
    """Return plain JSON for a learner's architecture: its parts with their settings, and the shape of every tensor."""
    tensors = {name: f"{list(value.shape)}" for name, value in learner.state_dict().items()}
    parts = {"predictor": learner.predictor, "refiner": learner.refiner}
    plain = {
        name: {"type": type(module).__name__}
        | {k: describe(v) for k, v in vars(module).items() if _setting(k)}
        for name, module in parts.items()
    }
    return {**plain, "signal": describe(learner.signal), "tensors": tensors}


def difference(stored: Any, asked: Any, name: str = "") -> str | None:
    """Return a sentence on the first place where two descriptions differ, or None; JSON's lists equal tuples.

    Example:
        >>> difference({"config": {"lr": 0.1}}, {"config": {"lr": 0.2}})
        'config.lr is 0.1 there and 0.2 here'
    """
    if isinstance(stored, dict) and isinstance(asked, dict):
        for key in sorted(stored.keys() | asked.keys()):
            inner = f"{name}.{key}" if name else key
            if found := difference(stored.get(key, "nothing"), asked.get(key, "nothing"), inner):
                return found
        return None
    if json.dumps(stored) == json.dumps(asked):
        return None
    return f"{name} is {stored!r} there and {asked!r} here"


def _setting(name: str) -> bool:
    """Say whether an attribute of a module is its own setting, not the machinery of nn.Module."""
    return not name.startswith("_") and name not in (
        "training",
        "T_destination",
        "call_super_init",
        "dump_patches",
    )
