"""Several files, folders and patterns of names, read as one table.

Source: Apache Arrow (a dataset of files with one schema); glob(7) (patterns).
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .cells import TEXT, Cells
from .reading import ReadOptions, TableFile, arrow, open_table

if TYPE_CHECKING:
    from .reading import Table

STDIN = "-"
"""The path that stands for standard input."""

SAMPLE_ROWS = 10_000
"""Rows of the sample of all files, at most."""

SUFFIXES = (
    *(".csv", ".tsv", ".txt", ".gz", ".zip", ".bz2", ".zst", ".xz"),
    *(".parquet", ".pq", ".arrow", ".feather", ".ipc", ".jsonl", ".ndjson", ".json"),
)
"""Endings of the files in a folder that are read."""


def open_tables(paths: Sequence[str], options: ReadOptions | None = None) -> TableFile:
    """Open the tables in files, folders and patterns of names as one table.

    All files have the columns of the first one, in any order. A column is of one kind in all files: words, where its
    kinds differ. The sample has rows of every file, in proportion to their sizes.

    Raises:
        ValueError: as `open_table`; nothing is there, or a file lacks a column.

    Example:
        >>> from pathlib import Path
        >>> from gradatim.files.several import open_tables
        >>> for day in (1, 2):
        ...     _ = Path(f"day-{day}.csv").write_text(f"day,shop\\n{day},Oslo\\n{day},Bern\\n")
        >>> table_file = open_tables(["day-*.csv"])
        >>> table_file.sample["day"].to_pylist()
        [1, 1, 2, 2]
    """
    options = ReadOptions() if options is None else options
    files = expand(paths)
    first = open_table(files[0], options)
    if len(files) == 1:
        return first
    parts = [first, *(open_table(file, options) for file in files[1:])]
    for part in parts[1:]:
        if missing := [name for name in first.cells if name not in part.cells]:
            raise ValueError(
                f"{part.path} has no column {missing[0]!r}, which {first.path} has: all files need the same columns"
            )
    names = list(first.cells)
    mixed = [name for name in names if len({c.kind for p in parts if (c := p.cells[name])}) > 1]
    if mixed and options.columns is None:
        options = replace(options, text=(*options.text, *mixed))
        parts = [open_table(file, options) for file in files]
    cells = {name: _common(parts, name) for name in names}
    notes = [f"column {name!r} is read as words, because files differ in what stands in it" for name in mixed]
    every = [note for part in parts for note in part.notes]
    return TableFile(
        path=Path(f"{parts[0].path} and {len(parts) - 1} more"),
        cells=cells,
        sample=_sample(parts, cells),
        stream=lambda columns: _stream(parts, columns),
        unreadable={name: kind for part in parts for name, kind in part.unreadable.items()},
        notes=tuple(dict.fromkeys([*every, *notes])),
        rereadable=all(part.rereadable for part in parts),
        notes_after=lambda: list(dict.fromkeys(note for part in parts for note in part.notes_after())),
    )


def expand(paths: Sequence[str]) -> list[str]:
    """Return the files that paths name: those in a folder, those that a pattern fits, or the path itself.

    Files of a folder or a pattern are sorted by name; hidden ones are left out.

    Raises:
        ValueError: a folder without tables, a pattern that fits no file, or standard input beside files.

    Example:
        >>> from pathlib import Path
        >>> from gradatim.files.several import expand
        >>> Path("days").mkdir()
        >>> for name in ("b.csv", "a.csv", "notes.md"):
        ...     Path("days", name).touch()
        >>> [Path(file).name for file in expand(["days"])]
        ['a.csv', 'b.csv']
    """
    files: list[str] = []
    for path in map(os.fspath, paths):
        if path == STDIN or (os.path.lexists(path) and not os.path.isdir(path)):
            files.append(path)
        elif os.path.isdir(path):
            listed = sorted(os.path.join(root, name) for root, _, names in os.walk(path) for name in names)
            tables = [file for file in listed if _is_table(os.path.relpath(file, path))]
            if not tables:
                raise ValueError(f"{path} is a folder without tables ({', '.join(SUFFIXES)}): name its files")
            files += tables
        elif glob.has_magic(path):
            fitting = [file for file in sorted(glob.glob(path, recursive=True)) if os.path.isfile(file)]
            if not fitting:
                raise ValueError(f"no file is called like {path}: check the pattern")
            files += fitting
        else:
            files.append(path)
    if STDIN in files and len(files) > 1:
        raise ValueError(
            "standard input (-) is read alone: leave the other files out, or learn them with update"
        )
    real = [os.path.realpath(file) for file in files]
    if twice := [file for place, file in enumerate(files) if real[place] in real[:place]]:
        raise ValueError(f"{twice[0]} is given twice: its rows would count twice; leave it out once")
    return files


def _is_table(path: str) -> bool:
    """Return whether a file in a folder is read: its name ends as tables do, and nothing on its path is hidden."""
    is_hidden = any(part.startswith((".", "_")) for part in Path(path).parts)
    return path.lower().endswith(tuple(SUFFIXES)) and not is_hidden


def _common(parts: Sequence[TableFile], name: str) -> Cells | None:
    """Return what stands in a column of all files."""
    present = [cells for part in parts if (cells := part.cells[name]) is not None]
    if not present:
        return None
    missing = tuple(dict.fromkeys(word for cells in present for word in cells.missing))
    kinds = {cells.kind for cells in present}
    return replace(present[0], kind=present[0].kind if len(kinds) == 1 else TEXT, missing=missing)


def _sizes(parts: Sequence[TableFile]) -> np.ndarray:
    """Return the share `[files]` of each file in the bytes of all."""
    sizes = np.array([max(1, os.path.getsize(part.path)) for part in parts], dtype=np.float64)
    return sizes / sizes.sum()


def _sample(parts: Sequence[TableFile], cells: Mapping[str, Cells | None]) -> Table:
    """Return rows of every file, in proportion to their sizes where they are too many."""
    from .reading import arrow_type

    n_rows = np.array([part.sample.num_rows for part in parts])
    quotas = n_rows
    if n_rows.sum() > SAMPLE_ROWS:
        quotas = np.minimum(n_rows, np.maximum(1, SAMPLE_ROWS * _sizes(parts))).astype(int)
    tables = []
    for part, quota in zip(parts, quotas, strict=True):
        rows = np.linspace(0, part.sample.num_rows - 1, quota).round().astype(int)
        columns: dict[str, Any] = {}
        table = part.sample.take(rows)
        for name, cell in cells.items():
            columns[name] = table[name] if cell is None else table[name].cast(arrow_type(cell.kind))
        tables.append(arrow().table(columns))
    return arrow().concat_tables(tables, promote_options="permissive")


def _stream(parts: Sequence[TableFile], columns: Mapping[str, Cells]) -> Iterator[tuple[Table, float]]:
    """Yield the rows of all files, each with the share of all that has been read."""
    done = 0.0
    for part, size in zip(parts, _sizes(parts), strict=True):
        # decimal marks may differ from file to file
        its = {
            n: replace(c, decimal=p.decimal) if (p := part.cells[n]) and p.kind == c.kind else c
            for n, c in columns.items()
        }
        for table, share in part.stream(its):
            yield table, done + size * share
        done += size
