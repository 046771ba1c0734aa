"""Tables of any length in files, folders and streams, read in blocks; one meaning of a cell in all formats.

Source: Apache Arrow (readers and types); RFC 4180 (CSV).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .cells import BOOLEAN, DATE, NUMBER, TEXT, Cells, arrow, arrow_type
from .containers import Container, containers
from .inference import infer, missing_words
from .joined_table import JoinedTable
from .json_table import JsonTable
from .odd import OddCells
from .options import ReadOptions, listed, suggest
from .parsing import parse, within_years, without_numbers
from .sampling import Sampler
from .text_table import Block, CsvTable, TextTable
from .typed_table import TypedTable, check_convertible, column_kind, convert, infer_typed

BLOCK_BYTES = 1 << 18
"""Bytes of a text file per block; a longer row makes a longer block."""

BATCH_ROWS = 8192
"""Rows of a Parquet file per batch; the memory is about that of one row group of the file."""

SAMPLE_ROWS = 10_000
"""Most rows of a file from which it is decided how its columns are read."""

Table = Any  # pyarrow.Table, an extra
AnyTable = TextTable | TypedTable | JoinedTable


class NoRowsError(ValueError):
    """A file has no rows, or none that can be learned."""


@dataclass(frozen=True)
class TableFile:
    """A table in a file, in several files, or in a stream.

    Fields: `path`: as given; `cells`: how each column is read, None for a column that holds nothing; `stream`: a
    function that reads the file; `unreadable`: columns of a type that is not supported, with its name.

    `sample` holds rows of the whole file; the first rows where `rereadable` is false or a state knows the columns.
    `notes` are sentences for the user; `notes_after()` gives more of them, once the file has been read. `place(row)`
    says where a row stands. `leaves_out`: whether a row leaves out the columns that it lacks, as objects of JSON do.
    What a state knows and no row has is then missing, in the sample too.

    `stream(cells)` reads the file from its start. It yields tables with these columns, in this order, each with the
    share of the file that has been read; there is a row for each row of the file.

    Example:
        >>> from pathlib import Path
        >>> from gradatim.files.reading import open_table
        >>> _ = Path("small.csv").write_text("age,member\\n31,true\\n27,false\\n")
        >>> table_file = open_table("small.csv")
        >>> table_file.names, table_file.sample.num_rows
        (['age', 'member'], 2)
    """

    path: Path
    cells: dict[str, Cells | None]
    sample: Table
    stream: Callable[[Mapping[str, Cells]], Iterator[tuple[Table, float]]]
    unreadable: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    rereadable: bool = True
    notes_after: Callable[[], list[str]] = list
    place: Callable[[int], str] = str
    leaves_out: bool = False

    @property
    def names(self) -> list[str]:
        """Return the names of all columns."""
        return list(self.cells)

    @property
    def kinds(self) -> dict[str, str | None]:
        """Return the kind of each column, or None for a column that holds nothing."""
        return {name: cells and cells.kind for name, cells in self.cells.items()}


def open_table(path: Path | str | Sequence[str], options: ReadOptions | None = None) -> TableFile:
    """Open the table in a file, in several, in the files of a folder or of a pattern, or in standard input ("-").

    Text may be CSV, with any usual delimiter, or JSON with an object a line; it may be compressed. Parquet and Arrow
    files are recognised by their first bytes.

    Args:
        path: of the file, the folder or the pattern, or several of them; "-" for standard input.
        options: what the user says of the file.

    Raises:
        ValueError: the file is missing, empty, has no rows or is of another format; pyarrow is not installed.

    Example:
        >>> from pathlib import Path
        >>> from gradatim.files.reading import open_table
        >>> _ = Path("train.csv").write_text("age,city\\n31,Oslo\\n27,Bern\\n")
        >>> table_file = open_table("train.csv")
        >>> table_file.kinds
        {'age': 'number', 'city': 'text'}
        >>> [(table["age"].to_pylist(), share) for table, share in table_file.stream({"age": table_file.cells["age"]})]
        [([31.0, 27.0], 1.0)]
    """
    arrow()
    options = options or ReadOptions()
    paths = [path] if isinstance(path, str | Path) else list(path)
    path = paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
    tables = [_table(file, options) for file in given_files(paths)]
    folder = Path(path) if Path(path).is_dir() else None
    table = tables[0] if len(tables) == 1 and folder is None else JoinedTable(tables, folder)
    sample = _sample(table, options)
    if not sample.rows:
        raise NoRowsError(f"{path} holds column names and no rows: add rows")
    cells, notes = _infer(table, sample, options)
    cells = {name: (options.columns or {}).get(name, cells[name]) for name in table.names}
    columns = {
        name: arrow().nulls(sample.rows) if how is None else _values(table, sample.columns[name], how, name)
        for name, how in cells.items()
    }
    columns = _absent(table, options, sample.rows) | columns
    odd, last = OddCells(), dict[str, Cells]()

    def stream(chosen: Mapping[str, Cells]) -> Iterator[tuple[Table, float]]:
        odd.clear()
        last.update(chosen)
        return _stream(table, chosen, options, odd)

    return TableFile(
        Path(path),
        cells,
        arrow().table(columns),
        stream,
        _unreadable(table),
        tuple([*table.notes, *notes]),
        table.rereadable,
        lambda: [*odd.notes(), *_notes_of_names(table, last)],
        lambda row: _place(table, row),
        table.leaves_out,
    )


def _absent(table: AnyTable, options: ReadOptions, n_rows: int) -> dict[str, Any]:
    """Return the columns that a state knows and rows may leave out, with missing cells `[n_rows]`."""
    if not table.leaves_out:
        return {}
    types = {name: arrow_type(how.kind) for name, how in (options.columns or {}).items()}
    return {name: arrow().nulls(n_rows, kind) for name, kind in types.items()}


def _unreadable(table: AnyTable) -> dict[str, str]:
    """Return the columns of a type that is not supported, with its name."""
    kinds = {name: column_kind(dtype) for name, dtype in (table.types or {}).items()}
    return {name: kind for name, kind in kinds.items() if kind is not None and kind not in _SUPPORTED}


def given_files(paths: Sequence[Path | str]) -> list[Container]:
    """Return the files that paths name, in order.

    Raises:
        ValueError: as `containers`; a file is named twice, or a stream is not alone.

    Example:
        >>> from pathlib import Path
        >>> from gradatim.files.reading import given_files
        >>> _ = Path("small.csv").write_text("age\\n31\\n")
        >>> given_files(["small.csv", "./small.csv"])
        Traceback (most recent call last):
        ValueError: small.csv is given twice, so that its rows would count twice: name it once
    """
    files = [file for path in paths for file in containers(path)]
    if len(files) > 1 and not all(file.rereadable for file in files):
        raise ValueError(
            "standard input and pipes are read alone: learn the other files with gradatim update"
        )
    seen = dict[object, str]()
    for file in files:
        if file.path is None:
            continue
        about = file.path.stat()  # a file may have several names, by links or on disks that ignore capitals
        key = (about.st_dev, about.st_ino) if about.st_ino else file.path.resolve()
        if key in seen:
            alias = "" if seen[key] == file.label else f", also as {seen[key]}"
            raise ValueError(
                f"{file.label} is given twice{alias}, so that its rows would count twice: name it once"
            )
        seen[key] = file.label
    return files


def _place(table: AnyTable, row: int) -> str:
    """Return where a row stands, which for a stream that is read once is its number."""
    start = 0
    for block in table.blocks(table.names[:1], {}, ".") if table.rereadable else ():
        if row < start + block.rows:
            return block.place(row - start)
        start += block.rows
    return f"row {row + 1:,}"


def _notes_of_names(table: AnyTable, chosen: Mapping[str, Cells]) -> list[str]:
    """Return notes of the names in a stream of objects, once it has been read."""
    if not (table.is_open and isinstance(table, JsonTable)):
        return []
    absent = [name for name in chosen if name not in table.counts]
    late = [name for name in table.counts if name not in table.names]
    return [
        *([f"{listed(absent)} stood in no row of {table.label}: every cell is missing"] if absent else []),
        *([f"{listed(late)} came after the first rows of {table.label}: ignored"] if late else []),
    ]


_SUPPORTED = (NUMBER, BOOLEAN, DATE, TEXT)


def check_readable(source: TableFile, names: Sequence[str]) -> None:
    """Raise ValueError if a column is of a type that is not supported.

    Raises:
        ValueError: the message names the column.

    Example:
        >>> from pathlib import Path
        >>> from gradatim.files.reading import check_readable, open_table
        >>> _ = Path("small.csv").write_text("age\\n31\\n")
        >>> check_readable(open_table("small.csv"), ["age"])
    """
    for name in names:
        if name in source.unreadable:
            raise ValueError(
                f"{source.path}: column {name!r} is of type {source.unreadable[name]}, which is not supported: leave "
                f"it out with --drop {name}, or write it as numbers or text"
            )


def _table(file: Container, options: ReadOptions) -> TextTable | TypedTable:
    """Return the table in one file."""
    if file.format in ("text", "json"):
        return (CsvTable if file.format == "text" else JsonTable)(file, options, BLOCK_BYTES)
    return TypedTable(file, BATCH_ROWS, options.row_groups)


def _sample(table: AnyTable, options: ReadOptions) -> Block:
    """Return rows of the whole file, or its first rows if it is read once or a state knows its columns."""
    if not table.rereadable:
        is_known = options.columns is not None and not options.sampled
        return table.head(1 if is_known else BATCH_ROWS) if isinstance(table, TypedTable) else table.head()
    if options.columns is not None and not options.sampled:
        if table.leaves_out and isinstance(table, JsonTable | JoinedTable):
            table.read_names()
        return next(
            table.blocks(table.names, {}, "."), Block({name: [] for name in table.names}, 0, 1.0, str)
        )
    sampler = Sampler(SAMPLE_ROWS)
    table.hash_rows(sampler)
    numbers = sampler.rows()
    order = numbers.argsort()
    block = table.pick(numbers[order])
    ranks, place = order.argsort(), block.place
    rows = arrow().array(ranks)
    columns = {name: column.take(rows) for name, column in block.columns.items()}
    return Block(columns, block.rows, 1.0, lambda row: place(int(ranks[row])))


def _infer(table: AnyTable, sample: Block, options: ReadOptions) -> tuple[dict[str, Cells | None], list[str]]:
    """Return how the columns are read that no state knows, and notes for the user."""
    fixed = options.columns or {}
    columns = {name: column for name, column in sample.columns.items() if name not in fixed}
    if table.types is None:
        cells, notes = infer(columns, options, sample.place, table.delimiter)
        for name in table.quoted:
            if (how := cells.get(name)) and how.kind in (NUMBER, BOOLEAN):
                cells[name] = Cells(TEXT, missing=options.missing or ())
    else:
        pairs = {n: infer_typed(c, n, options.missing or (), n in options.text) for n, c in columns.items()}
        cells, notes = (
            {n: pair[0] for n, pair in pairs.items()},
            [note for pair in pairs.values() for note in pair[1]],
        )
    return {**cells, **fixed}, notes


def _plain_values(column: Any, cells: Cells) -> Any:
    """Return a column that Arrow has read itself, with null in place of what no cell holds."""
    if cells.kind == NUMBER:
        return without_numbers(column, cells.missing)
    return within_years(column) if cells.kind == DATE else column


def _values(table: AnyTable, column: Any, cells: Cells, name: str) -> Any:
    """Return a column as its cells are read; nothing, if its type cannot be: reading the file will say so."""
    if table.types is None:
        return parse(column, cells)
    try:
        check_convertible(table.types[name], cells, name, table.label)
    except ValueError:
        return arrow().nulls(len(column), arrow_type(cells.kind))
    return convert(column, cells)


def _stream(
    table: AnyTable, chosen: Mapping[str, Cells], options: ReadOptions, odd: OddCells
) -> Iterator[tuple[Table, float]]:
    """Yield the columns of a file as these cells say, with the share that has been read."""
    a, silent = arrow(), missing_words(options)
    for name, cells in chosen.items():
        if table.types is not None:
            check_convertible(table.types[name], cells, name, table.label)
    marks = [cells.decimal for cells in chosen.values() if cells.kind == NUMBER]
    decimal = "," if marks.count(",") > marks.count(".") else "."
    plain = {
        name: arrow_type(cells.kind)
        for name, cells in chosen.items()
        if cells.kind != TEXT and (cells.kind != NUMBER or cells.decimal == decimal)
    }
    for block in table.blocks(list(chosen), plain, decimal):
        columns = {}
        for name, cells in chosen.items():
            column = block.columns[name]
            if table.types is None and not a.types.is_string(column.type):
                values = _plain_values(column, cells)
                if values.null_count == column.null_count:
                    columns[name] = values
                    continue
                column = block.words(name)
            elif name in plain and table.types is None:
                try:
                    column.cast(plain[name])
                except a.ArrowInvalid:
                    del plain[name]
            columns[name] = values = _values(table, column, cells, name)
            if cells.kind != TEXT and values.null_count > column.null_count:
                words = column if a.types.is_string(column.type) else column.cast("string")
                odd.add(name, cells, words, values, silent, block.place)
        yield a.table(columns), block.share
    needed = list(options.features or chosen)
    if isinstance(table, JsonTable) and table.is_open and needed and not table.counts.keys() & set(needed):
        others = [name for name in table.counts if name not in chosen]
        raise ValueError(
            f"no row of {table.label} has {listed(needed)}: {suggest(needed[0], others or list(table.counts))}"
        )
