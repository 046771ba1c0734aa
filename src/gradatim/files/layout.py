"""The tensors of a file: their names, shapes and types, checked before they are allocated, and their numbers.

Source: the safetensors format (types, shapes and offsets in a JSON header).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from .contract import brief, check_entries, choice, list_of, whole

if TYPE_CHECKING:
    from torch import Tensor

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""The types of tensors in a file, by their name there."""

FLOATS = (torch.float64, torch.float32)
INTEGERS = (torch.int64,)
_SLACK = 1e-5  # rounding leaves less, also where rows were taken away again
_LARGE = 2000  # features up to which factors of sums are computed to check them
TRIANGLE = "D(D+1)/2"
"""The width of a symmetric matrix `[D, D]` whose lower triangle is stored row by row."""

_MAX_DIMS = 16
_MISSING_CELLS = re.compile(r"warm\.\d+")
"""Columns of a table's first rows, as they came: NaN is a missing cell."""

_LOG_WEIGHTS = re.compile(r"(.*\.)?log_weight")
"""Logs of weights: -infinity is the weight of nothing."""


class Layout(NamedTuple):
    """The type and shape of a tensor, without its numbers."""

    dtype: torch.dtype
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Part:
    """What one tensor must be.

    Fields:
        `shape`: a number or a symbol for each axis; equal symbols are equal numbers, and `TRIANGLE` follows from D.
        `dtypes`: the types it may have.
        `sign`: "nonnegative" or "positive", if its numbers must be that.
        `required`: whether it must be there.

    Example:
        >>> import torch
        >>> from gradatim.files.layout import Layout, Part, check_parts
        >>> parts = {"scale": Part((1, "D")), "gram": Part((1, "D(D+1)/2"))}
        >>> scale, gram = Layout(torch.float64, (1, 3)), Layout(torch.float64, (1, 5))
        >>> check_parts({"scale": scale, "gram": gram}, parts, {})
        Traceback (most recent call last):
        ValueError: tensor 'gram' must have shape [1, 6]; got [1, 5]
    """

    shape: tuple[int | str, ...]
    dtypes: Sequence[torch.dtype] = FLOATS
    sign: str = ""
    required: bool = True


def check_parts(
    tensors: Mapping[str, Layout | Tensor], parts: Mapping[str, Part], sizes: dict[str, int], prefix: str = ""
) -> None:
    """Check the names, shapes and types of tensors.

    Args:
        tensors: by name, with their shapes and types.
        parts: what each must be.
        sizes: the symbols that are known; the others are added.
        prefix: what stands before the names in messages.

    Raises:
        ValueError: a tensor is missing, unknown, or of another shape or type. The message names it.
    """
    for name, part in parts.items():
        if name in tensors:
            _check_part(f"{prefix}{name}", tensors[name], part, sizes)
        elif part.required:
            raise ValueError(f"tensor '{prefix}{name}' is missing")
    if unknown := sorted(tensors.keys() - parts.keys()):
        raise ValueError(f"tensor {brief(prefix + unknown[0])} is unknown")


def _check_part(name: str, tensor: Layout | Tensor, part: Part, sizes: dict[str, int]) -> None:
    shape, dtype = list(tensor.shape), tensor.dtype
    if dtype not in part.dtypes:
        dtypes = " or ".join(str(kind).removeprefix("torch.") for kind in part.dtypes)
        raise ValueError(f"tensor {name!r} must be {dtypes}; got {str(dtype).removeprefix('torch.')}")
    expected: list[int | str] = list(part.shape)
    if len(shape) == len(expected):
        for axis, symbol in enumerate(part.shape):
            if symbol == TRIANGLE:
                expected[axis] = sizes["D"] * (sizes["D"] + 1) // 2
            elif isinstance(symbol, str):
                expected[axis] = sizes.setdefault(symbol, shape[axis])
    if shape != expected:
        raise ValueError(
            f"tensor {name!r} must have shape [{', '.join(map(str, expected))}]; got {brief(shape)}"
        )


def check_values(tensors: Mapping[str, Tensor], parts: Mapping[str, Part]) -> None:
    """Check that the numbers of tensors of any shape have the sign of `Part.sign`, up to rounding.

    Raises:
        ValueError: a number is out of range. The message names the tensor.
    """
    for name, part in parts.items():
        if name in tensors and part.sign:
            value = tensors[name]
            if bool((value <= 0 if part.sign == "positive" else value < -_slack(value)).any()):
                raise ValueError(f"tensor {name!r} must have {part.sign} numbers; got {value.min():g}")


def check_moments(gram: tuple[str, Tensor], cross: tuple[str, Tensor], squares: tuple[str, Tensor]) -> None:
    """Check that sums over rows are such as rows have.

    Args:
        gram: its name, and the Gram matrix of features `[B, D, D]` or its lower triangle row by row.
        cross: likewise of products of features and y, `[B, D, C]`.
        squares: likewise of squares of y, `[B, C]`.

    Raises:
        ValueError: a Gram matrix that is not symmetric, or has a negative eigenvalue; products that are larger than
            squares allow. The message names the tensor.

    Example:
        >>> import torch
        >>> from gradatim.files.layout import check_moments
        >>> one = torch.ones(1, 1)
        >>> check_moments(("gram", one[None]), ("cross", 2 * one[None]), ("squares", one))
        Traceback (most recent call last):
        ValueError: tensor 'cross' must be products of rows with those squares

    Source: the inequality of Cauchy and Schwarz.
    """
    matrix = _full(gram[1]).double()
    if bool(((matrix - matrix.mT).abs() > _slack(matrix)).any()):
        raise ValueError(f"tensor {gram[0]!r} must be symmetric")
    diagonal = matrix.diagonal(dim1=1, dim2=2)
    if bool((diagonal < -_slack(matrix)).any()):
        raise ValueError(f"tensor {gram[0]!r} must have no negative number on its diagonal")
    root = diagonal.clamp(min=0).sqrt()
    bound = root[:, :, None] * squares[1].double().clamp(min=0).sqrt()[:, None]
    if bool((cross[1].abs() > 1.01 * bound + _slack(bound)).any()):
        raise ValueError(f"tensor {cross[0]!r} must be products of rows with those squares")
    if matrix.shape[1] <= _LARGE:
        scale = (diagonal.clamp(min=0) + _slack(matrix)).sqrt()
        unit = matrix / scale[:, :, None] / scale[:, None] + torch.eye(matrix.shape[1]) * 10 * _SLACK
        if bool(torch.linalg.cholesky_ex(unit)[1].any()):
            raise ValueError(f"tensor {gram[0]!r} must be positive semidefinite, as sums of squares are")


def _full(gram: Tensor) -> Tensor:
    """Return a Gram matrix `[B, D, D]`, of its lower triangle if that is all there is."""
    if gram.dim() == 3:
        return gram
    width = (math.isqrt(8 * gram.shape[1] + 1) - 1) // 2
    below = torch.tril_indices(width, width)
    matrix = gram.new_zeros(len(gram), width, width)
    matrix[:, below[0], below[1]] = gram
    matrix[:, below[1], below[0]] = gram
    return matrix


def _slack(value: Tensor) -> float:
    return _SLACK * max(1.0, float(value.abs().max())) if value.numel() else 0.0


def check_finite(tensors: Mapping[str, Tensor]) -> None:
    """Check that tensors of any shape hold neither NaN nor infinity. Cells of a table's first rows may be missing.

    Logs of weights may be -infinity.

    Raises:
        ValueError: one does. The message names it.

    Example:
        >>> import torch
        >>> from gradatim.files.layout import check_finite
        >>> check_finite({"cross": torch.tensor([1.0, float("nan")])})
        Traceback (most recent call last):
        ValueError: tensor 'cross' holds 1 number that is not finite
    """
    for name, value in tensors.items():
        if not value.is_floating_point():
            continue
        bad = value.isinf() if _MISSING_CELLS.fullmatch(name) else ~value.isfinite()
        if _LOG_WEIGHTS.fullmatch(name):
            bad &= ~value.isneginf()
        if count := int(bad.sum()):
            numbers = "1 number that is" if count == 1 else f"{count:,} numbers that are"
            raise ValueError(f"tensor {name!r} holds {numbers} not finite")


def parse_layouts(entries: Any, size: int) -> dict[str, Layout]:
    """Return the layouts in the header of a safetensors file, whose tensors fill `size` bytes without gap or overlap.

    Raises:
        ValueError: an entry is no layout, of a type that is not supported, or its bytes are not those of its shape.
            `Truncated` if only the end is missing.

    Example:
        >>> from gradatim.files.layout import parse_layouts
        >>> parse_layouts({"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}, 24)["a"].shape
        (2, 3)
    """
    if not isinstance(entries, dict):
        raise ValueError("its header must be an object")
    layouts, spans = {}, []
    natural = whole(0, 2**62)
    for name, entry in entries.items():
        check_entries(
            entry,
            {"dtype": choice(*DTYPES), "shape": list_of(natural), "data_offsets": list_of(natural)},
            f"tensor {brief(name)}",
        )
        dtype, shape, span = DTYPES[entry["dtype"]], tuple(entry["shape"]), entry["data_offsets"]
        if len(shape) > _MAX_DIMS or len(span) != 2 or span[1] - span[0] != math.prod(shape) * dtype.itemsize:
            raise ValueError(
                f"tensor {brief(name)} has shape {brief(entry['shape'])} and the bytes {brief(span)}"
            )
        layouts[name] = Layout(dtype, shape)
        spans.append((span[0], span[1], name))
    end = 0
    for start, stop, name in sorted(spans):
        if start != end:
            raise ValueError(f"tensor {brief(name)} begins at byte {start:,}, where {end:,} comes next")
        end = stop
    if end != size:
        raise Truncated(end)
    return layouts


class Truncated(ValueError):
    """A file is shorter or longer than its header says; `needed` are the bytes that its tensors take."""

    def __init__(self, needed: int) -> None:
        super().__init__(f"its tensors take {needed:,} bytes")
        self.needed = needed
