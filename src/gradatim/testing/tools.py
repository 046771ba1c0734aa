"""Helpers that the checks share: randomised parameters, ragged tasks, comparisons that name what differs.

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
    """Return a float64 copy in eval mode, with noise added to every parameter.

        p = p + scale * e / sqrt(fan_in),  e ~ N(0, 1);  fan_in = 1 for vectors

    A head that starts at zero makes a learner that never changes its state, which obeys any law. Noise prevents that.

    Args:
        module: of any kind; it is not changed.
        seed: of the noise.
        scale: of the noise.

    Example:
        >>> import torch
        >>> from gradatim.testing import randomised
        >>> randomised(torch.nn.Linear(2, 1)).weight.dtype
        torch.float64
    """
    copy, generator = deepcopy(module).double().eval(), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in copy.parameters():
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 1
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter += noise.to(parameter.device) * (scale / fan_in**0.5)
    return copy


def assert_close(law: str, actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Raise where tensors of the same name differ.

    NaN differs from everything. An infinity differs from everything but itself.

    Args:
        law: the first half of the message.
        actual: tensors of any shape `[...]` by name.
        expected: tensors of the same names, shapes and dtypes.
        tolerance: largest difference, as a share of the largest value (of 1 where that is smaller). 0: bit for bit.

    Raises:
        AssertionError: they differ, with the law and what differs.

    Example:
        >>> import torch
        >>> from gradatim.testing.tools import assert_close
        >>> assert_close("sums must agree", {"y": torch.ones(2)}, {"y": torch.zeros(2)}, tolerance=0.1)
        Traceback (most recent call last):
        AssertionError: sums must agree; but y differs by 1
    """
    assert actual.keys() == expected.keys(), (
        f"{law}; but one has {sorted(actual)} and the other {sorted(expected)}"
    )
    for name, a in actual.items():
        b = expected[name]
        assert a.shape == b.shape, f"{law}; but {name} has shapes {tuple(a.shape)} and {tuple(b.shape)}"
        assert a.dtype == b.dtype, f"{law}; but {name} is {a.dtype} and {b.dtype}"
        if tolerance == 0 or not a.is_floating_point():
            assert torch.equal(a, b), f"{law}, bit for bit; but {name} differs"
        elif a.numel():
            gap = (a - b).where(a != b, 0).abs().max().item()
            scale = b.where(b.isfinite(), 0).abs().max().clamp(min=1).item()
            assert gap <= tolerance * scale, f"{law}; but {name} differs by {gap:.2g}"


def ragged_tasks(family: TaskFamily, seed: int) -> tuple[Batch, Batch, int]:
    """Return four ragged tasks of a family in float64.

    One task has a hole, one has no row in the first mini-batch, and one has rows there only.

    Args:
        family: of at least 6 support rows.
        seed: of the tasks.

    Returns:
        The support, x `[4, 3 * size, Dx]`: three mini-batches of `size` rows. The query, x `[4, 6, Dx]`. And `size`.

    Raises:
        AssertionError: fewer than 6 support rows.

    Example:
        >>> from gradatim import LinearRegression
        >>> from gradatim.testing.tools import ragged_tasks
        >>> support, query, size = ragged_tasks(LinearRegression(4), seed=0)
        >>> support.mask.sum(1).tolist(), size
        ([14, 10, 5, 14], 5)
    """
    full = replace(family, min_support_rows=None)
    task = full.sample(4, torch.Generator().manual_seed(seed)).to(torch.float64)
    size = min(5, task.support.n_rows // 3)
    assert size >= 2, f"the laws need a family with at least 6 support rows; got {task.support.n_rows}"
    mask = torch.ones(4, 3 * size, dtype=torch.bool)
    mask[0, 1] = mask[3, -1] = False
    mask[1, :size] = mask[2, size:] = False
    return (
        Batch(*take_rows(task.support, slice(3 * size)), mask),
        Batch(*take_rows(task.query, slice(6))),
        size,
    )


def take_rows(batch: Batch, index: slice | Tensor) -> tuple[Tensor, Tensor]:
    """Return x `[B, n, Dx]` and y `[B, n, Dy]` of the n rows of every task that `index` chooses.

    Example:
        >>> import torch
        >>> from gradatim import Batch
        >>> from gradatim.testing.tools import take_rows
        >>> x, y = take_rows(Batch(torch.ones(2, 5, 3), torch.ones(2, 5, 1)), slice(2))
        >>> x.shape, y.shape
        (torch.Size([2, 2, 3]), torch.Size([2, 2, 1]))
    """
    return batch.x[:, index], batch.y[:, index]


def assert_refused(law: str, call: Callable[[], Any]) -> None:
    """Check that a call raises ValueError with a sentence.

    Raises:
        AssertionError: it does not.

    Example:
        >>> from gradatim.testing.tools import assert_refused
        >>> assert_refused("words must be refused", lambda: int("word"))
    """
    try:
        call()
    except ValueError as refusal:
        assert str(refusal), f"{law}, with a sentence; it was empty"
        return
    raise AssertionError(f"{law} with a ValueError; it did not")
