"""The schema of states that are merged: what must be the same in all, and how the rest is joined.

Source: Apache Arrow (the schema of a table).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .cells import KIND_NAMES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .schema import Schema


def join_schemas(schemas: Sequence[Schema], paths: Sequence[Path]) -> tuple[Schema, list[str]]:
    """Return the schema of the rows of several states, and notes for the user.

    Target, task, columns and options of reading must be the same. A column is empty where it is in all. Labels are
    spelt as the first state spells them. The names of ids and weights are those of the first state that has one.

    Args:
        schemas: of the states.
        paths: their files, for messages.

    Raises:
        ValueError: something differs that must be the same. The message names it and both files.

    Example:
        >>> from pathlib import Path
        >>> from gradatim.files.cells import NUMBER, Cells
        >>> from gradatim.files.joined_schema import join_schemas
        >>> from gradatim.files.schema import Schema
        >>> one = Schema("y", "regression", Cells(NUMBER), {"x": Cells(NUMBER)}, dropped=("row",))
        >>> join_schemas([one, one], [Path("a"), Path("b")])[0].dropped
        ('row',)
    """
    joined, notes = schemas[0], []
    for schema, path in zip(schemas[1:], paths[1:], strict=True):
        _check_alike(joined, schema, f"{path} and {paths[0]}")
        columns = {n: schema.columns[n] if n in joined.empty else how for n, how in joined.columns.items()}
        empty = tuple(name for name in joined.empty if name in schema.empty)
        for role in ("id", "weight"):
            first, second = getattr(joined, role), getattr(schema, role)
            if None not in (first, second) and first != second:
                notes.append(
                    f"--{role} was {first!r} in {paths[0]}, {second!r} in {path}: it stays {first!r}"
                )
        joined = replace(
            joined,
            columns=columns,
            empty=empty,
            dropped=tuple(dict.fromkeys((*joined.dropped, *schema.dropped))),
            id=schema.id if joined.id is None else joined.id,
            weight=schema.weight if joined.weight is None else joined.weight,
            weight_cells=schema.weight_cells if joined.weight is None else joined.weight_cells,
            spelling={**schema.spelling, **joined.spelling},
        )
    roles = {joined.target, joined.id, joined.weight}
    used = roles | {name for name in joined.columns if name not in joined.empty}
    return replace(joined, dropped=tuple(name for name in joined.dropped if name not in used)), notes


def _check_alike(first: Schema, second: Schema, which: str) -> None:
    """Raise ValueError if two schemas are not those of one table; `which` names their files."""
    advice = "merge states that were learned under one map, gradatim fit --map"
    for what in ("target", "task"):
        values = getattr(first, what), getattr(second, what)
        if values[0] != values[1]:
            raise ValueError(f"{which} have another {what}, {values[1]!r} and {values[0]!r}: {advice}")
    if odd := sorted(set(first.columns) ^ set(second.columns)):
        raise ValueError(f"{which} have other columns; {odd[0]!r} is in one alone: {advice}")
    if list(first.columns) != list(second.columns):
        raise ValueError(f"{which} have their columns in another order: {advice}")
    pairs = [(first.target, first.target_cells, second.target_cells)]
    empty = {*first.empty, *second.empty}
    pairs += [(n, how, second.columns[n]) for n, how in first.columns.items() if n not in empty]
    for name, cells, more_cells in pairs:
        if cells != more_cells:
            kinds = f"{KIND_NAMES[more_cells.kind]} and {KIND_NAMES[cells.kind]}"
            kinds = kinds if cells.kind != more_cells.kind else f"{KIND_NAMES[cells.kind]} in two ways"
            raise ValueError(f"{which} read column {name!r} as {kinds}: {advice}")
    if first.reading != second.reading:
        raise ValueError(
            f"{which} have other options of reading, {second.reading} and {first.reading}: {advice}"
        )
