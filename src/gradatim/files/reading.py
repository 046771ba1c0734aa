"""Tables in CSV and Parquet files of any length, read in blocks; a column has one kind in the whole file.

Source: Apache Arrow (readers and types); RFC 4180 (CSV).
"""

from __future__ import annotations

import codecs
import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .cells import BOOLEAN, DATE, KIND_NAMES, NUMBER, TEXT, Cells

HEAD_BYTES = 1 << 20
"""Bytes at the start of a CSV file from which the kinds of its columns are inferred."""

BLOCK_BYTES = 1 << 18
"""Bytes of a CSV file per block; some blocks are read ahead."""

BATCH_ROWS = 8192
"""Rows of a Parquet file per batch; the memory is about that of one row group of the file."""

PARQUET_OPTIONS = {"pre_buffer": False, "buffer_size": 1 << 16}
"""Options to open a Parquet file without reading all of it ahead, which is Arrow's default."""

MISSING_VALUES = ("?", "None")
"""Missing values in a CSV file, besides those of Arrow (empty, NA, NaN, null, ...)."""

_INVALID_CELL = re.compile(r"In CSV column #(\d+): (?:Row #(\d+): )?.* invalid value '(.*)'", re.DOTALL)

Table = Any  # pyarrow.Table, an extra


@dataclass(frozen=True)
class TableFile:
    """A table in a file.

    Fields: `path`: of the file; `kinds`: the kind of each column, from its first rows, or None if these are empty;
    `head`: these first rows; `stream`: a function that reads the file.

    `stream(kinds)` reads the file from its start. It yields tables with these columns, in this order and of these
    kinds, each with the share of the file that has been read.

    Example:
        >>> from pathlib import Path
        >>> from gradatim.files.reading import open_table
        >>> _ = Path("small.csv").write_text("age,member\\n31,true\\n27,false\\n")
        >>> table_file = open_table("small.csv")
        >>> table_file.names, table_file.head.num_rows
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

    @property
    def names(self) -> list[str]:
        """Return the names of all columns."""
        return list(self.cells)

    @property
    def kinds(self) -> dict[str, str | None]:
        """Return the kind of each column, or None for a column that holds nothing."""
        return {name: cells and cells.kind for name, cells in self.cells.items()}


@dataclass(frozen=True)
class ReadOptions:
    """How a file is read, where the user says so.

    Fields: `delimiter`, `decimal`, `encoding`: None to recognise them; `missing`: the words that mean missing in
    every column; `header`: whether the first line holds names; `text`: columns of text; `columns`: how columns are
    read that a state knows.

    Example:
        >>> from gradatim.files.reading import ReadOptions
        >>> ReadOptions(decimal=",").delimiter is None
        True
    """

    delimiter: str | None = None
    decimal: str | None = None
    encoding: str | None = None
    missing: tuple[str, ...] | None = None
    header: bool = True
    text: tuple[str, ...] = ()
    columns: Mapping[str, Cells] | None = None


def open_table(path: Path | str, options: ReadOptions = ReadOptions()) -> TableFile:
    """Open the table in a CSV or Parquet file.

    The fields of a CSV file are separated by commas, semicolons or tabs; it may be compressed (`.gz`).

    Raises:
        ValueError: the file is missing, empty, has no rows or is of another format; a column name occurs twice;
        pyarrow is not installed.

    Example:
        >>> from pathlib import Path
        >>> from gradatim.files.reading import open_table
        >>> _ = Path("train.csv").write_text("age,city\\n31,Oslo\\n27,Bern\\n")
        >>> table_file = open_table("train.csv")
        >>> table_file.kinds
        {'age': 'number', 'city': 'text'}
        >>> [(table["age"].to_pylist(), share) for table, share in table_file.stream({"age": Cells("number")})]
        [([31.0, 27.0], 1.0)]
    """
    arrow()
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path} does not exist: check the path")
    if not path.is_file():
        raise ValueError(f"{path} is not a file: give a CSV or Parquet file")
    with path.open("rb") as file:
        magic = file.read(4)
    if not magic:
        raise ValueError(f"{path} is empty: expected a line of column names and rows below it")
    if magic == b"PAR1":
        return _open_parquet(path)
    if path.suffix in (".parquet", ".pq"):
        raise ValueError(f"{path} is not a Parquet file, despite its name: write it again, or rename it")
    return _open_csv(path)


def arrow() -> Any:
    """Return the module pyarrow.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise ValueError('reading tables needs pyarrow: pip install "gradatim[data]"') from error
    return pyarrow


def column_kind(dtype: Any) -> str | None:
    """Return the kind of an Arrow type: None if it holds nothing, the type's own name if it is not supported.

    Example:
        >>> import pyarrow
        >>> from gradatim.files.reading import column_kind
        >>> column_kind(pyarrow.int32()), column_kind(pyarrow.null()), column_kind(pyarrow.binary())
        ('number', None, 'binary')
    """
    types = arrow().types
    if types.is_dictionary(dtype):
        return column_kind(dtype.value_type)
    if types.is_null(dtype):
        return None
    if types.is_boolean(dtype):
        return BOOLEAN
    if types.is_integer(dtype) or types.is_floating(dtype) or types.is_decimal(dtype):
        return NUMBER
    if types.is_date(dtype) or types.is_timestamp(dtype):
        return DATE
    if types.is_string(dtype) or types.is_large_string(dtype) or types.is_time(dtype):
        return TEXT
    return str(dtype)


def arrow_type(kind: str) -> Any:
    """Return the Arrow type of a column of a given kind.

    Example:
        >>> from gradatim.files.reading import arrow_type
        >>> arrow_type("number"), arrow_type("text")
        (DataType(double), DataType(string))
    """
    a = arrow()
    types = {NUMBER: a.float64(), BOOLEAN: a.bool_(), DATE: a.timestamp("us"), TEXT: a.string()}
    return types[kind]


def _kinds_by_name(path: Path, names: Sequence[str], types: Sequence[Any]) -> dict[str, str | None]:
    """Return the kind of each column; the names must differ."""
    for position, name in enumerate(names):
        if name in names[:position]:
            raise ValueError(f"{path}: column {name!r} occurs twice: rename one of the two")
    return dict(zip(names, map(column_kind, types), strict=True))


def check_readable(source: TableFile, names: Sequence[str]) -> None:
    """Raise ValueError if a column is of a type that is not supported.

    Raises:
        ValueError: the message names the column.
    """
    for name in names:
        kind = source.kinds[name]
        if kind is not None and kind not in KIND_NAMES:
            raise ValueError(
                f"{source.path}: column {name!r} is of type {kind}, which is not supported: leave it out with "
                f"--drop {name}, or write it as numbers or text"
            )


class _TextFile(io.RawIOBase):
    """The bytes of a text file, decompressed and checked to be UTF-8.

    Attributes: `count`: the number of bytes read; `share_read`: the share of the file that has been read.

    Raises:
        ValueError: on reading, if the file is not UTF-8 or cannot be decompressed.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.count = path, 0
        self._raw = path.open("rb")
        self._bytes = gzip.GzipFile(fileobj=self._raw) if path.suffix == ".gz" else self._raw
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._size = path.stat().st_size

    @property
    def share_read(self) -> float:
        return self._raw.tell() / self._size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._bytes.read(len(buffer))
            self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            position = self.count + error.start + 1
            raise ValueError(
                f"{self.path} is not UTF-8 text (about byte {position:,}): save it as UTF-8, or as Parquet"
            ) from error
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{self.path} cannot be read ({error}): write it again") from error
        buffer[: len(data)] = data
        self.count += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._bytes.close()
            self._raw.close()
        super().close()


def _open_csv(path: Path) -> TableFile:
    """Return the table in a CSV file, with the kinds of its columns inferred from its first bytes."""
    with closing(_TextFile(path)) as text, io.BufferedReader(text) as lines:
        first = next((line for line in lines if line.strip()), b"").decode("utf-8-sig", errors="replace")
    delimiter = next((mark for mark in (",", ";", "\t") if mark in first), ",")
    with closing(_TextFile(path)) as text, _explain_errors(path, (), {}):
        reader = _reader(text, delimiter, HEAD_BYTES)
        names, types = reader.schema.names, reader.schema.types
        head = next((batch for batch in reader if batch.num_rows), None)
    kinds = _kinds_by_name(path, names, types)
    if head is None:
        raise ValueError(f"{path} holds column names and no rows: add rows")

    def stream(columns: Mapping[str, Cells]) -> Iterator[tuple[Table, float]]:
        kinds = {name: cells.kind for name, cells in columns.items()}
        types = {name: arrow_type(kind) for name, kind in kinds.items()}
        with closing(_TextFile(path)) as text, _explain_errors(path, names, kinds):
            for number, batch in enumerate(_reader(text, delimiter, BLOCK_BYTES, types), start=1):
                share = min(1.0, number * BLOCK_BYTES / max(text.count, 1))  # blocks are read ahead
                if batch.num_rows:
                    yield arrow().Table.from_batches([batch]), share * text.share_read

    return TableFile(path, _cells(kinds), arrow().Table.from_batches([head]), stream)


def _cells(kinds):
    return {n: Cells(k) if k else None for n, k in kinds.items()}


def _reader(text: _TextFile, delimiter: str, block: int, types: Mapping[str, Any] | None = None) -> Any:
    """Return Arrow's reader of batches, with the columns of `types`, or all columns with inferred types."""
    arrow()
    from pyarrow import csv

    convert = csv.ConvertOptions(
        column_types=types, include_columns=list(types or ()), strings_can_be_null=True
    )
    convert.null_values = [*convert.null_values, *MISSING_VALUES]
    return csv.open_csv(
        text,
        read_options=csv.ReadOptions(use_threads=False, block_size=block),
        parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=convert,
    )


@contextmanager
def _explain_errors(path: Path, names: Sequence[str], kinds: Mapping[str, str]) -> Iterator[None]:
    """Turn Arrow's errors into a message that names the file, the line and the column."""
    try:
        yield
    except (arrow().ArrowException, OSError) as error:  # a damaged Parquet file raises either
        message = str(error)
        if "Empty CSV" in message:
            raise ValueError(
                f"{path} holds no rows: expected a line of column names and rows below it"
            ) from error
        if (cell := _INVALID_CELL.search(message)) and int(cell[1]) < len(names):
            name = names[int(cell[1])]
            raise ValueError(_type_error_message(path, name, kinds[name], repr(cell[3]), cell[2])) from error
        message = re.sub(r"^CSV parse error: Row #(\d+): E", r"line \1: e", message)
        raise ValueError(f"{path}: {message[:200]}") from error


def _type_error_message(path: Path, name: str, kind: str, actual: str, line: str | None = None) -> str:
    where = f"{path}, line {line}" if line else str(path)
    return (
        f"{where}: column {name!r} holds {KIND_NAMES[kind]} so far; got {actual}: correct it or leave it empty, or "
        f"start again with fit --text {name}"
    )


def _open_parquet(path: Path) -> TableFile:
    """Return the table in a Parquet file."""
    from pyarrow import parquet

    with _explain_errors(path, (), {}), parquet.ParquetFile(path, **PARQUET_OPTIONS) as file:
        schema, rows = file.schema_arrow, file.metadata.num_rows
        kinds = _kinds_by_name(path, schema.names, schema.types)
        head = next(
            (batch for batch in file.iter_batches(BATCH_ROWS, use_threads=False) if batch.num_rows), None
        )
    if head is None:
        raise ValueError(f"{path} holds column names and no rows: add rows")

    def stream(columns: Mapping[str, Cells]) -> Iterator[tuple[Table, float]]:
        n_read = 0
        with _explain_errors(path, (), {}), parquet.ParquetFile(path, **PARQUET_OPTIONS) as file:
            for batch in file.iter_batches(BATCH_ROWS, columns=list(columns), use_threads=False):
                n_read += batch.num_rows
                converted = {
                    name: _convert_column(batch.column(name), kinds[name], cells.kind, path, name)
                    for name, cells in columns.items()
                }
                yield arrow().table(converted), n_read / rows

    return TableFile(path, _cells(kinds), arrow().Table.from_batches([head]), stream)


def _convert_column(column: Any, file_kind: str | None, kind: str, path: Path, name: str) -> Any:
    """Return a column of a Parquet file as the expected kind, if that loses nothing.

    Raises:
        ValueError: it is of another kind. The message names the column.
    """
    a = arrow()
    if (kind, file_kind) == (BOOLEAN, NUMBER):  # both become numbers
        return column.cast(a.float64(), safe=False)
    is_discrete = file_kind == BOOLEAN or a.types.is_integer(column.type)
    is_same = file_kind in (kind, None)
    if not (
        is_same
        or file_kind == TEXT
        or (kind == NUMBER and file_kind == BOOLEAN)
        or (kind == TEXT and is_discrete)
    ):
        raise ValueError(
            _type_error_message(path, name, kind, KIND_NAMES.get(file_kind or "", f"type {file_kind}"))
        )
    try:
        return column.cast(arrow_type(kind), safe=False)
    except a.ArrowException as error:
        text = re.search(r"'(.*?)'", str(error))
        raise ValueError(
            _type_error_message(path, name, kind, repr(text[1]) if text else KIND_NAMES[file_kind or kind])
        ) from error
