"""A bank as tensors of a file, and back.

Source: the safetensors format (tensors by name).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..files.layout import check_parts, check_values
from ..files.table_schema import MEMBER
from ..nn.fixed_features import Draws, FixedFeatures
from ..nn.trees import Trees
from .classes import ClassBank
from .numbers import NumberBank

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from ..files.layout import Part
    from .bank import Bank
    from .grown import Grown

PARTS = ("shares", "pool", "context", "last", "stack", "laws", "grown")
"""Parts of a bank that have arrays of their own."""

SETTLED = ("sizes", "numbers", "factor", "share", "linear", "known")
"""Fields that follow from what the bank is made of, or are written beside."""


DRAWN = {name: MEMBER[name] for name in Draws._fields}
"""What the tensors of features must be."""

COUNTED = (
    "counted",
    "within",
    "family",
    "rows",
    "new",
    "sums",
    "blocks",
    "square",
    "seen",
    "total",
    "kept",
    "alarm",
    "use",
    "grown_on",
)
"""Arrays and numbers that are not negative."""

LARGEST = 1e20
"""No sum over rows is larger."""


def pack(bank: Bank) -> dict[str, Tensor]:
    """Return all that a bank knows as tensors by name, of any shape; nothing is rounded."""
    feature_maps = {"features": bank.features, "around": bank.around}
    tensors = {
        f"{name}.{part}": value
        for name, features in feature_maps.items()
        if features is not None
        for part, value in features.draws.packed()._asdict().items()
    }
    tensors["numbers"] = torch.from_numpy(bank.context.numbers.astype(np.int64))
    tensors["changes"] = torch.tensor(bank.changes, dtype=torch.int64)
    for name, value in _arrays(bank).items():
        tensors[name] = torch.from_numpy(_triangle(value) if name.endswith(".gram") else np.array(value))
    return tensors | _packed_trees(bank.grown)


def unpack(memory: str | int, outputs: int | None, tensors: dict[str, Tensor]) -> Bank:
    """Return the bank whose tensors `pack` returned, of C outputs, or of a number (None).

    Raises:
        ValueError: a tensor is missing, unknown, of another shape, or such as no bank has.
    """
    parts = dict(tensors)

    def features(name: str) -> FixedFeatures:
        packed = {part: taken(f"{name}.{part}") for part in Draws._fields}
        check_parts(packed, DRAWN, {}, f"memory.{name}.")
        check_values({f"memory.{name}.{part}": value for part, value in packed.items()}, _named(name))
        return FixedFeatures(Draws(**packed).unpacked()).double()

    def taken(name: str) -> Tensor:
        if name not in parts:
            raise ValueError(f"tensor 'memory.{name}' is missing")
        return parts.pop(name)

    small, around = features("features"), features("around") if "around.reach" in parts else None
    numbers, changes = taken("numbers"), taken("changes")
    if numbers.dtype != torch.int64 or bool(((numbers < 0) | (numbers >= small.x_dim)).any()):
        raise ValueError(f"tensor 'memory.numbers' must be inputs 0 .. {small.x_dim - 1}")
    kind = NumberBank if outputs is None else ClassBank
    bank = kind(memory, small, outputs or 1, numbers.numpy(), around)
    if changes.dtype != torch.int64 or changes.dim() != 1:
        raise ValueError("tensor 'memory.changes' must be whole numbers in a row")
    bank.changes = changes.tolist()
    if "trees.start" in parts:
        bank.grown.trees, bank.grown.known = _trees(taken, small.x_dim, bank.classes)
    for name, like in _arrays(bank).items():
        value, is_gram = taken(name), name.endswith(".gram")
        expected = _triangle(like) if is_gram else np.asarray(like)
        if tuple(value.shape) != expected.shape:
            raise ValueError(
                f"tensor 'memory.{name}' must have shape {list(expected.shape)}; got {list(value.shape)}"
            )
        array = value.numpy().astype(expected.dtype)
        _put(bank, name, _square(array, len(like)) if is_gram else array)
    if parts:
        raise ValueError(f"tensor 'memory.{min(parts)}' is unknown")
    _check(bank)
    return bank


def _packed_trees(grown: Grown) -> dict[str, Tensor]:
    """Return trees as tensors by name; no row is among them."""
    if grown.trees is None:
        return {}
    known = {} if grown.known is None else {"known": grown.known.astype(np.int64)}
    arrays = grown.trees._asdict() | {"depth": np.int64(grown.trees.depth)} | known
    return {f"trees.{name}": torch.from_numpy(np.array(value)) for name, value in arrays.items()}


def _trees(
    taken: Callable[[str], Tensor], width: int, classes: int | None
) -> tuple[Trees, np.ndarray | None]:
    """Return the trees of a file, and the classes that they tell apart.

    Raises:
        ValueError: a tensor is missing, or they are no trees.
    """
    arrays = {name: taken(f"trees.{name}").numpy() for name in Trees._fields}
    known = None if classes is None else taken("trees.known").numpy()
    if arrays["depth"].shape or arrays["depth"].dtype != np.int64:
        raise ValueError("tensor 'memory.trees.depth' must be a whole number")
    if known is not None:
        rising = known.dtype == np.int64 and known.ndim == 1 and len(known) == len(np.unique(known)) >= 2
        if not rising or bool(((known < 0) | (known >= (classes or 0))).any()):
            raise ValueError("tensor 'memory.trees.known' must be different classes, two at least")
    trees = Trees(
        **{name: value for name, value in arrays.items() if name != "depth"}, depth=int(arrays["depth"])
    )
    trees.check(width, 1 if known is None or len(known) == 2 else len(known))
    return trees, known


def _objects(bank: Bank) -> dict[str, Any]:
    """Return the parts of a bank that have arrays, by name."""
    parts = {name: getattr(bank, name) for name in PARTS if hasattr(bank, name)}
    parts |= {f"noise.{name}": noise for name, noise in getattr(bank, "noise", {}).items()}
    return {"": bank} | parts | {name.replace(" ", "."): copy for name, copy in bank.copies().items()}


def _arrays(bank: Bank) -> dict[str, Any]:
    """Return the arrays and numbers that a bank knows, by name."""
    arrays = {}
    for name, part in _objects(bank).items():
        for field, value in vars(part).items():
            is_number = isinstance(value, np.ndarray | float | int) and not isinstance(value, str)
            if is_number and field not in SETTLED and field not in ("memory", "outputs"):
                arrays[f"{name}.{field}".removeprefix(".")] = value
    return arrays


def _put(bank: Bank, name: str, value: np.ndarray) -> None:
    """Put an array or a number in its place."""
    part, _, field = name.rpartition(".")
    owner = _objects(bank)[part]
    old = getattr(owner, field)
    setattr(owner, field, value if isinstance(old, np.ndarray) else type(old)(value))


def _triangle(gram: np.ndarray) -> np.ndarray:
    """Return the lower triangle of a symmetric matrix, row by row."""
    return gram[np.tril_indices(len(gram))]


def _square(triangle: np.ndarray, width: int) -> np.ndarray:
    """Return the symmetric matrix of a lower triangle."""
    gram = np.zeros((width, width), triangle.dtype)
    gram[np.tril_indices(width)] = triangle
    return gram + np.tril(gram, -1).T


def _named(features: str) -> dict[str, Part]:
    """Return what the tensors of features must be, by their names in a file."""
    return {f"memory.{features}.{name}": part for name, part in DRAWN.items()}


def _check(bank: Bank) -> None:
    """Raise ValueError where a bank cannot be: weights that do not sum to 1, sums that no rows have."""
    for name, value in _arrays(bank).items():
        field, array = name.rpartition(".")[2], np.asarray(value)
        signed = field not in COUNTED and not (field == "counts" and isinstance(bank, ClassBank))
        if bool((np.abs(array) > LARGEST).any()) or not (signed or bool((array >= 0).all())):
            raise ValueError(f"tensor 'memory.{name}' must hold numbers that rows can have")
        if field == "squares" and not bool((array > 0).all()):
            raise ValueError(f"tensor 'memory.{name}' must have positive numbers")
    for name in ("shares", "last"):
        shares = getattr(bank, name, None)
        if shares is None:
            continue
        sums = (np.add.reduceat(shares.within, shares.starts), shares.family.sum())
        if any(bool((np.abs(total - 1) > 1e-6).any()) for total in sums):
            raise ValueError(f"tensors 'memory.{name}.within' and '.family' must be weights that sum to 1")
    if bank.kept > len(bank.past):
        raise ValueError("tensor 'memory.kept' must be a count of heads")
    rising = bank.changes == sorted(bank.changes)
    if not rising or any(not 0 <= change <= bank.total for change in bank.changes):
        raise ValueError("tensor 'memory.changes' must be counts of rows that rise")
    for name, copy in bank.copies().items():
        try:
            type(copy)(**vars(copy)).solve()
        except ArithmeticError as error:
            raise ValueError(
                f"tensor 'memory.{name.replace(' ', '.')}.gram' is of no rows: {error}"
            ) from None
