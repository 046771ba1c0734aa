"""The maps of columns, of either kind, and of all columns of a table: merged, joined, and as JSON.

Source: Pedregosa et al. 2011 (standardisation, one-hot codes).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import MISSING, asdict, fields, replace
from typing import Any, TypeVar

import numpy as np

from .category import SPARE_LEVELS, Category
from .cells import Cell
from .columns import CATEGORY, NUMBER, column_kind, is_number
from .number import YOUNG, Number

FORMAT = 3
"""The format version of what `table_to_json` writes."""

_MAP_TYPES = {NUMBER: Number, CATEGORY: Category}
_RENAMED = {"mean": "centre", "std": "scale"}  # of format 2


def merge_maps(
    first: Number | Category, second: Number | Category, max_slots: int
) -> Number | Category | None:
    """Return the map that serves the rows of both columns, or None."""
    if isinstance(first, Category) and isinstance(second, Category):
        return first.merge(second, max_slots)
    if isinstance(first, Number) and isinstance(second, Number):
        return first.merge(second)
    for number, words in ((first, second), (second, first)):  # one was empty where the other has found words
        if isinstance(number, Number) and not number.quantiles and isinstance(words, Category):
            return words if number.has_missing == words.has_missing else None
    return None


def words_begin(maps: Sequence[Number | Category], values: Sequence[np.ndarray]) -> list[Number | Category]:
    """Return the maps of columns, those of words for columns that were empty and whose first value is a word.

    Args:
        maps: one for each column.
        values: `[rows]` each.

    Example:
        >>> import numpy as np
        >>> from gradatim.preprocessing import Number
        >>> from gradatim.preprocessing.maps import words_begin
        >>> empty = Number.fit(np.array([np.nan]), np.ones(1))
        >>> words_begin([empty], [np.array([None, "red"], dtype=object)])[0].slots
        4
    """
    changed = list(maps)
    for place, (column, cells) in enumerate(zip(maps, values, strict=True)):
        if isinstance(column, Number) and not column.quantiles and column_kind(cells) == CATEGORY:
            first = next((cell for cell in cells.tolist() if cell is not None), None)
            if first is not None and not isinstance(first, Cell) and not is_number(first):
                changed[place] = Category((), SPARE_LEVELS, True, column.has_missing, False)
    return changed


def describe_difference(first: Number | Category, second: Number | Category) -> str:
    """Return how the maps of two columns differ, for an error message."""
    if isinstance(first, Number) and isinstance(second, Number):
        scales = f"centre {first.centre:g} and scale {first.scale:g} in one"
        return f"{scales}, {second.centre:g} and {second.scale:g} in the other"
    if isinstance(first, Category) and isinstance(second, Category):
        return f"levels {first.levels} in one, {second.levels} in the other"
    return "numbers in one, categories in the other"


def merge_tables(
    names: tuple[str, ...],
    maps: tuple[Number | Category, ...],
    more_names: tuple[str, ...],
    more_maps: tuple[Number | Category, ...],
    max_slots: int,
) -> tuple[Number | Category, ...]:
    """Return the maps that serve the rows of two tables.

    Raises:
        ValueError: columns have other names, or a column has two maps. The message names it.
    """
    if names != more_names:
        pairs = zip(names, more_names, strict=False)
        mismatch = next((f"{a!r} in one, {b!r} in the other" for a, b in pairs if a != b), "")
        mismatch = mismatch or f"{len(names)} in one, {len(more_names)} in the other"
        raise ValueError(f"the tables have different columns ({mismatch}): learn both from the same columns")
    merged_maps = []
    for name, first, second in zip(names, maps, more_maps, strict=True):
        merged_map = merge_maps(first, second, max_slots)
        if merged_map is None:
            raise ValueError(
                f"column {name!r} was encoded in two ways, {describe_difference(first, second)}: start both from "
                "one map, for example with fork()"
            )
        merged_maps.append(merged_map)
    return tuple(merged_maps)


def join_maps(old: Number | Category, new: Number | Category, max_slots: int) -> Number | Category:
    """Return the scale of a new map, or the old one where that is not settled; or the levels of both."""
    if isinstance(old, Category) and isinstance(new, Category):
        wider = old.extend(np.array(new.levels, dtype=object), max_slots)
        return replace(wider, has_missing=old.has_missing or new.has_missing)
    if isinstance(old, Number) and isinstance(new, Number):
        decided = old if new.stage == YOUNG else new
        return replace(decided, has_missing=old.has_missing or new.has_missing)
    return old


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


def table_to_json(names: tuple[str, ...], maps: tuple[Number | Category, ...], named: bool) -> dict[str, Any]:
    """Return the names and the maps of all columns as plain JSON; floats are exact."""
    columns = [
        {"name": name, "kind": NUMBER if isinstance(column_map, Number) else CATEGORY, **to_json(column_map)}
        for name, column_map in zip(names, maps, strict=True)
    ]
    return {"format": FORMAT, "named": named, "columns": columns}


def table_from_json(value: Any) -> tuple[tuple[str, ...], tuple[Number | Category, ...], bool]:
    """Return the names and the maps of all columns, and whether the table had names, as `table_to_json` wrote them.

    Raises:
        ValueError: another format version, or an entry that is missing or invalid. The message names it.
    """
    if not isinstance(value, dict) or not {"format", "named", "columns"} <= set(value):
        raise ValueError(f"encoder: expected format, named and columns; got {value!r:.80}")
    if value["format"] not in (2, FORMAT):  # 2 was written by version 0.1
        raise ValueError(
            f"encoder.format must be {FORMAT}; got {value['format']!r}: written by another version"
        )
    columns, named = value["columns"], value["named"]
    if not isinstance(named, bool) or not isinstance(columns, list) or not columns:
        raise ValueError("encoder.named must be a bool and encoder.columns a list of at least one column")
    names: dict[str, None] = {}
    maps = []
    for position, column in enumerate(columns):
        where = f"encoder.columns[{position}]"
        parts = dict(column) if isinstance(column, dict) else {}
        if value["format"] == 2:
            parts = _renamed(parts)
        name, kind = parts.pop("name", None), parts.pop("kind", None)
        if not isinstance(name, str) or name in names:
            raise ValueError(f"{where}.name must be a unique name; got {name!r}")
        if not isinstance(kind, str) or kind not in _MAP_TYPES:
            raise ValueError(f"{where}.kind must be one of {', '.join(_MAP_TYPES)}; got {kind!r}")
        names[name] = None
        maps.append(from_json(_MAP_TYPES[kind], parts, where))
    return tuple(names), tuple(maps), named


def _renamed(column: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON of a column as version 0.1 wrote it in the present format."""
    constant = {"stage": YOUNG} if "low" in column and column["low"] == column.get("high") else {}
    return {_RENAMED.get(name, name): entry for name, entry in column.items()} | constant


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
