"""A bound on what is built from a file: a damaged number in it must not ask for all memory, or for hours.

Source: the function modes of torch.overrides.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_FACTORIES = {
    getattr(torch, name)
    for name in ("empty", "zeros", "ones", "full", "rand", "randn", "randperm", "eye", "arange")
} | {getattr(torch.Tensor, name) for name in ("new_zeros", "new_ones", "new_empty", "new_full")}
_SPARE_NUMBERS, _SPARE_CALLS = 20_000_000, 20_000


class Budget(TorchFunctionMode):
    """Inside this context torch makes new tensors of so many numbers in all, and no more.

    Args:
        numbers: how many numbers the result has; sixteen times as many may be made, and some to spare.
        tensors: how many tensors the result has, likewise.

    Raises:
        ValueError: more than that is asked for.

    Example:
        >>> import torch
        >>> from gradatim.training.budget import Budget
        >>> with Budget(numbers=100, tensors=2):
        ...     layer = torch.nn.Linear(10**6, 10**6)
        Traceback (most recent call last):
        ValueError: what the file describes is far larger than what it holds
    """

    def __init__(self, numbers: int, tensors: int) -> None:
        super().__init__()
        self._numbers = 16 * numbers + _SPARE_NUMBERS
        self._calls = 64 * tensors + _SPARE_CALLS

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count what a function makes, and call it."""
        kwargs = kwargs or {}
        self._calls -= 1
        if func in _FACTORIES:
            self._numbers -= _size(args, kwargs, square=func is torch.eye)
        if self._numbers < 0 or self._calls < 0:
            raise ValueError("what the file describes is far larger than what it holds")
        return func(*args, **kwargs)


def _size(args: tuple[Any, ...], kwargs: dict[str, Any], square: bool) -> int:
    """Return how many numbers a function that makes a tensor is asked for, at least."""
    sizes = [kwargs["size"]] if "size" in kwargs else [a for a in args if not isinstance(a, torch.Tensor)]
    lengths: list[int] = []
    for value in sizes:
        if isinstance(value, tuple | list):
            lengths += [part for part in value if isinstance(part, int)]
            break
        if isinstance(value, int):
            lengths.append(value)
    return math.prod(lengths) ** (2 if square and len(lengths) == 1 else 1)
