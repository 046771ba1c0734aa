"""A run as tensors and JSON values for a checkpoint, and the first difference between two descriptions of runs.

Source: Loshchilov, Hutter 2019 (AdamW's state: two moments and a step count for each parameter).
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
    """Return the tensors of a run by name: `weights.NAME`, `ema.NAME` and `optimizer.NAME.KEY`.

    Args:
        learner: the learner in training.
        average: its averaged weights, each of the shape of its parameter, in their order.
        optimizer: the optimizer of its parameters.

    Example:
        >>> import torch
        >>> from gradatim.training.snapshot import pack
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> sorted(pack(model, [torch.zeros(1, 2)], torch.optim.AdamW(model.parameters())))
        ['ema.weight', 'weights.weight']
    """
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
    """Copy the tensors of `pack` into a learner, its averaged weights and its optimizer, in place.

    Args:
        tensors: the result of `pack`.
        learner: a learner of the same architecture.
        average: its averaged weights, each of the shape of its parameter, in their order.
        optimizer: the optimizer of its parameters.

    Example:
        >>> import torch
        >>> from gradatim.training.snapshot import pack, unpack
        >>> model, copy = torch.nn.PReLU(init=0.5), torch.nn.PReLU()
        >>> average = [torch.zeros(1)]
        >>> optimizers = [torch.optim.AdamW(module.parameters()) for module in (model, copy)]
        >>> unpack(pack(model, average, optimizers[0]), copy, average, optimizers[1])
        >>> copy.weight.item()
        0.5
    """
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
    """Return a configuration as JSON values.

    - A dataclass becomes `{"type": its name, field: ...}`.
    - A function becomes its name.
    - A value of any other type that JSON does not have becomes the name of that type.

    Example:
        >>> from gradatim import Greedy
        >>> from gradatim.training.snapshot import describe
        >>> describe(Greedy(batch_size=16))["type"]
        'Greedy'
    """
    if is_dataclass(value) and not isinstance(value, type):
        described = {field.name: describe(getattr(value, field.name)) for field in fields(value)}
        return {"type": type(value).__name__, **described}
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
    """Return a learner's architecture as JSON values: its parts with their settings, and the shape of every tensor.

    Example:
        >>> from gradatim import LinearRegression, build
        >>> from gradatim.training.snapshot import describe_learner
        >>> sorted(describe_learner(build("ridge", LinearRegression(2))))
        ['predictor', 'refiner', 'signal', 'tensors']
    """
    tensors = {name: f"{list(value.shape)}" for name, value in learner.state_dict().items()}
    parts = {"predictor": learner.predictor, "refiner": learner.refiner}
    plain = {
        name: {"type": type(module).__name__}
        | {k: describe(v) for k, v in vars(module).items() if _is_setting(k)}
        for name, module in parts.items()
    }
    return {**plain, "signal": describe(learner.signal), "tensors": tensors}


def difference(stored: Any, current: Any, name: str = "") -> str | None:
    """Return a sentence on the first place where two descriptions differ, or None. Lists equal tuples.

    Example:
        >>> from gradatim.training.snapshot import difference
        >>> difference({"config": {"lr": 0.1}}, {"config": {"lr": 0.2}})
        'config.lr is 0.1 there and 0.2 here'
    """
    if isinstance(stored, dict) and isinstance(current, dict):
        for key in sorted(stored.keys() | current.keys()):
            inner = f"{name}.{key}" if name else key
            if sentence := difference(stored.get(key, "nothing"), current.get(key, "nothing"), inner):
                return sentence
        return None
    if json.dumps(stored) == json.dumps(current):
        return None
    return f"{name} is {stored!r} there and {current!r} here"


def _is_setting(name: str) -> bool:
    """Return whether an attribute of a module is a setting of its class, and none of nn.Module."""
    return not name.startswith("_") and name not in (
        "training",
        "T_destination",
        "call_super_init",
        "dump_patches",
    )
