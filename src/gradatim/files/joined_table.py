"""Several files with the same columns as one table.

Source: Apache Hive (folders named COLUMN=VALUE).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .cells import arrow
from .json_table import JsonTable
from .options import listed
from .text_table import Block, TextTable
from .typed_table import TypedTable

AnyTable = TextTable | TypedTable

_INTEGER = re.compile(r"-?[0-9]{1,18}")
"""A whole number that 64 bits hold."""


class JoinedTable:
    """Files one after the other, in the order of their names; the columns may be in any order.

    A column that the names of the folders give, as in year=2024, is read from there, whatever the files hold.

    Attributes: `names`: of the columns; `types`: their Arrow types, None in text; `quoted`: the columns whose values
    are mostly strings; `leaves_out`: whether a row leaves out the columns that it lacks.
    """

    rereadable, is_open = True, False

    def __init__(self, tables: Sequence[AnyTable], folder: Path | None) -> None:
        first = tables[0]
        self.label = first.label
        self._tables, self._objects = tables, [table for table in tables if isinstance(table, JsonTable)]
        self.leaves_out = len(self._objects) == len(tables)
        self.quoted: set[str] | frozenset[str] = first.quoted
        self._folders = [_folder_values(table.label, folder) for table in tables]
        common = set(self._folders[0]).intersection(*self._folders)
        self._folder_names = [name for name in self._folders[0] if name in common or name not in first.names]
        if self.leaves_out:
            self._join_names()
        for table in tables[1:]:
            for name in dict.fromkeys([*first.names, *table.names]):
                if name in self._folder_names:
                    continue
                if name not in table.names or name not in first.names:
                    full, bare = (first, table) if name in first.names else (table, first)
                    raise ValueError(
                        f"{full.label} has a column {name!r} that {bare.label} does not have: files of one table have "
                        "the same columns"
                    )
            if (table.types is None) != (first.types is None):
                raise ValueError(
                    f"{first.label} and {table.label} are of different formats: give files of one format"
                )
        for table, values in zip(tables, self._folders, strict=True):
            if not set(self._folder_names) <= set(values):
                raise ValueError(
                    f"{table.label} lies in other folders than {first.label}: name them COLUMN=VALUE alike"
                )
        self.names = list(dict.fromkeys([*first.names, *self._folder_names]))
        self.delimiter = first.delimiter
        self.types = None if first.types is None else self._joined_types()

    @property
    def notes(self) -> list[str]:
        """Return sentences for the user."""
        inside = [name for name in self._folder_names if any(name in table.names for table in self._tables)]
        return [
            f"{len(self._tables)} files are read as one table",
            *([f"{listed(inside)}: as the folders say, whatever stands in the files"] if inside else []),
            *self._tables[0].notes,
        ]

    def _join_names(self) -> None:
        """Give all files of objects the names that stand in one of them."""
        counts = Counter[str]()
        for table in self._objects:
            for name, count in table.counts.items():
                counts[name] += count
        for table in self._objects:
            table.names = list(counts)
        self.quoted = {name for name, count in counts.items() if count > 0 and name not in self._folder_names}
        self.names = list(dict.fromkeys([*counts, *self._folder_names]))

    def read_names(self) -> None:
        """Learn the names that come later in files of objects."""
        for table in self._objects:
            table.read_names()
        self._join_names()

    def _joined_types(self) -> dict[str, Any]:
        a, types = arrow(), {}
        for name in self._tables[0].names:
            if name in self._folder_names:
                continue
            seen = [table.types[name] for table in self._tables if table.types is not None]
            try:
                types[name] = a.unify_schemas(
                    [a.schema([("c", t)]) for t in seen], promote_options="permissive"
                ).types[0]
            except a.ArrowException as error:
                raise ValueError(
                    f"{self.label}: column {name!r} is of different types in these files ({error}): write them alike"
                ) from error
        return types | {name: self._folder_type(name) for name in self._folder_names}

    def _folder_type(self, name: str) -> Any:
        digits = all(_INTEGER.fullmatch(values[name]) for values in self._folders)
        return arrow().int64() if digits and self._tables[0].types is not None else arrow().string()

    def _with_folders(self, number: int, block: Block, names: Sequence[str]) -> Block:
        a, table, values = arrow(), self._tables[number], self._folders[number]
        columns = dict(block.columns)
        for name in self._folder_names:
            if name in names:
                value = a.scalar(values[name], "string").cast(self._folder_type(name))
                columns[name] = a.repeat(value, block.rows)
        place = block.place
        return replace(block, columns=columns, place=lambda row: f"{place(row)} of {table.label}")

    def hash_rows(self, sampler: Any) -> None:
        """Show all rows to a sampler."""
        self._starts = [0]
        for table in self._tables:
            table.hash_rows(sampler)
            self._starts.append(sampler.count)
        if self.leaves_out:
            self._join_names()

    def pick(self, numbers: np.ndarray) -> Block:
        """Return the rows of these numbers `[rows]`, in increasing order."""
        blocks, ends = [], []
        for number, table in enumerate(self._tables):
            start, stop = self._starts[number : number + 2]
            inside = numbers[np.searchsorted(numbers, start) : np.searchsorted(numbers, stop)] - start
            if len(inside):
                blocks.append(self._with_folders(number, table.pick(inside), self.names))
                ends.append(blocks[-1].rows)
        return _join(blocks, self.names, np.cumsum(ends), self.types)

    def head(self) -> Block:
        """Return the first rows of the first file."""
        return self._with_folders(0, self._tables[0].head(), self.names)

    def blocks(self, names: Sequence[str], plain: dict[str, Any], decimal: str) -> Iterator[Block]:
        """Yield all rows, with these columns."""
        inner = [name for name in names if name not in self._folder_names]
        for number, table in enumerate(self._tables):
            for block in table.blocks(inner or self._tables[0].names[:1], plain, decimal):
                share = (number + block.share) / len(self._tables)
                yield replace(self._with_folders(number, block, names), share=share)


def _join(blocks: list[Block], names: list[str], ends: np.ndarray, types: Mapping[str, Any] | None) -> Block:
    """Return blocks one below the other."""
    a = arrow()

    def column(name: str) -> Any:
        arrays = [block.columns[name] for block in blocks]
        return a.concat_arrays(
            [array if types is None else array.cast(types[name], safe=False) for array in arrays]
        )

    def place(row: int) -> str:
        number = int(np.searchsorted(ends, row, "right"))
        return blocks[number].place(row - (int(ends[number - 1]) if number else 0))

    return Block({name: column(name) for name in names}, int(ends[-1]), 1.0, place)


def _folder_values(label: str, folder: Path | None) -> dict[str, str]:
    """Return the values that the folders between `folder` and a file name, such as year=2024."""
    if folder is None:
        return {}
    parts = Path(label).relative_to(folder).parts[:-1]
    return dict(part.split("=", 1) for part in parts if "=" in part)
