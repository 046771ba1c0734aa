"""What the checks share: learners off their start, ragged tasks, comparisons that say what differs.

Source: the tests that optax runs over its whole table of methods (`optax/contrib/_common_test.py`); the laws are
this project's own.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from ..batch import Batch

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..family import TaskFamily

_Module = TypeVar("_Module", bound=nn.Module)


def randomised(module: _Module, seed: int = 0, scale: float = 0.5) -> _Module:
    """Return a float64 copy in eval mode with every parameter moved by noise.

        p = p + scale * e / sqrt(fan_in),  e ~ N(0, 1);  fan_in = 1 for vectors

    Heads that start at zero make a learner that does not move, and that one keeps any law.

    Example:
        >>> check = randomised(learner, seed=1)
    """
    copy, generator = deepcopy(module).double().eval(), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in copy.parameters():
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 1
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter += noise.to(parameter.device) * (scale / fan_in**0.5)
    return copy


def same(law: str, one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float) -> None:
    """Raise where tensors of the same names differ; NaN differs from everything, an infinity from all but itself."""
    assert one.keys() == other.keys(), f"{law}; but one has {sorted(one)} and the other {sorted(other)}"
    for name, a in one.items():
        b = other[name]
        assert a.shape == b.shape, f"{law}; but {name} has shapes {tuple(a.shape)} and {tuple(b.shape)}"
        assert a.dtype == b.dtype, f"{law}; but {name} is {a.dtype} and {b.dtype}"
        if tolerance == 0 or not a.is_floating_point():
            assert torch.equal(a, b), f"{law}, bit for bit; but {name} differs"
        elif a.numel():
            gap = (a - b).where(a != b, 0).abs().max().item()
            scale = b.where(b.isfinite(), 0).abs().max().clamp(min=1).item()
            assert gap <= tolerance * scale, f"{law}; but {name} differs by {gap:.2g}"


def ragged(family: TaskFamily, seed: int) -> tuple[Batch, Batch, int]:
    """Return the support of four ragged tasks (three mini-batches), their query, and the size of a mini-batch."""
    whole = replace(family, min_support_rows=None)
    task = whole.sample(4, torch.Generator().manual_seed(seed)).to(torch.float64)
    size = min(5, task.support.n_rows // 3)
    assert size >= 2, f"the laws need a family with at least 6 support rows; got {task.support.n_rows}"
    mask = torch.ones(4, 3 * size, dtype=torch.bool)
    mask[0, 1] = mask[3, -1] = False
    mask[1, :size] = mask[2, size:] = False
    return Batch(*rows(task.support, slice(3 * size)), mask), Batch(*rows(task.query, slice(6))), size


def rows(batch: Batch, index: slice | Tensor) -> tuple[Tensor, Tensor]:
    """Return x and y of every task's rows chosen by `index`."""
    return batch.x[:, index], batch.y[:, index]


def refuses(law: str, call: Callable[[], Any]) -> None:
    """Raise where a call is not refused by a ValueError with a sentence."""
    try:
        call()
    except ValueError as refusal:
        assert str(refusal), f"{law}, with a sentence; it was empty"
        return
    raise AssertionError(f"{law} with a ValueError; it did not")
