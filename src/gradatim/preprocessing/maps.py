"""The maps of columns, of either kind: merged, and as JSON.

Source: Pedregosa et al. 2011 (standardisation, one-hot codes).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, asdict, fields
from typing import Any, TypeVar

from .category import Category
from .number import Number


def merge_maps(
    first: Number | Category, second: Number | Category, max_slots: int
) -> Number | Category | None:
    """Return the map that serves the rows of both columns, or None."""
    if isinstance(first, Category) and isinstance(second, Category):
        return first.merge(second, max_slots)
    if isinstance(first, Number) and isinstance(second, Number):
        return first.merge(second)
    return None


def describe_difference(first: Number | Category, second: Number | Category) -> str:
    """Return how the maps of two columns differ, for an error message."""
    if isinstance(first, Number) and isinstance(second, Number):
        scales = f"centre {first.centre:g} and scale {first.scale:g} in one"
        return f"{scales}, {second.centre:g} and {second.scale:g} in the other"
    if isinstance(first, Category) and isinstance(second, Category):
        return f"levels {first.levels} in one, {second.levels} in the other"
    return "numbers in one, categories in the other"


ColumnMap = TypeVar("ColumnMap", Number, Category)


def to_json(column_map: Number | Category) -> dict[str, Any]:
    """Return the map of a column as plain JSON."""
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in asdict(column_map).items()
    }


def from_json(kind: type[ColumnMap], value: dict[str, Any], where: str) -> ColumnMap:
    """Return the map that `to_json` wrote. `where` says in error messages where the map stands.

    Raises:
        ValueError: a field is missing, unknown or of another type, or its value is invalid.

    Example:
        >>> from gradatim.preprocessing.maps import Category, from_json, to_json
        >>> colour = Category(("red",), slots=5, has_other=True, has_missing=False, truncated=False)
        >>> from_json(Category, to_json(colour), "colour") == colour
        True
    """
    types = {f.name: str(f.type) for f in fields(kind)}
    for name in (f.name for f in fields(kind) if f.default is MISSING):
        if name not in value:
            raise ValueError(
                f"{where}.{name} is missing: the file is damaged, or an encoder did not write it"
            )
    for name, entry in value.items():
        if name not in types:
            raise ValueError(f"{where}.{name} is unknown: {kind.__name__} has {', '.join(types)}")
        if not _CHECKS[types[name]](entry):
            raise ValueError(f"{where}.{name} must be {types[name]}; got {entry!r:.80}")
    try:
        return kind(**{name: _PARSERS[types[name]](entry) for name, entry in value.items()})
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{where}: {error}") from None


def _is_float(entry: Any) -> bool:
    return isinstance(entry, float | int) and not isinstance(entry, bool)


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "bool": lambda entry: isinstance(entry, bool),
    "int": lambda entry: isinstance(entry, int) and not isinstance(entry, bool),
    "float": _is_float,
    "str": lambda entry: isinstance(entry, str),
    "tuple[float, ...]": lambda entry: isinstance(entry, list) and all(map(_is_float, entry)),
    "tuple[str, ...]": lambda entry: isinstance(entry, list) and all(isinstance(p, str) for p in entry),
}
_PARSERS: dict[str, Callable[[Any], Any]] = {
    "bool": bool,
    "int": int,
    "float": float,
    "str": str,
    "tuple[float, ...]": lambda entry: tuple(map(float, entry)),
    "tuple[str, ...]": tuple,
}
