"""Tables in files, a block at a time: CSV and Parquet of any length, each column of one kind from first row to last.

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NUMBER, BOOLEAN, DATE, ZONED, TEXT = "number", "boolean", "date", "zoned", "text"

SHOWN = {
    NUMBER: "numbers",
    BOOLEAN: "true or false",
    DATE: "dates",
    ZONED: "dates with a time zone",
    TEXT: "text",
}
"""What a column of each kind holds, in words."""

HEAD = 1 << 20
"""The first bytes of a CSV file, from which its columns' kinds are taken."""

BLOCK = 1 << 18
"""Bytes of a CSV file that are read at a time; some blocks are read ahead."""

ROWS = 8192
"""Rows of a Parquet file that are read at a time; memory is that of about one of its row groups."""

LEAN = {"pre_buffer": False, "buffer_size": 1 << 16}
"""How a Parquet file is opened: by default Arrow reads all of it ahead."""

MISSING = ("?", "None")
"""Cells of a CSV file that are missing, beside those that Arrow takes for it (empty, NA, NaN, null, ...)."""

_CELL = re.compile(r"In CSV column #(\d+): (?:Row #(\d+): )?.* invalid value '(.*)'", re.DOTALL)

Table = Any  # pyarrow.Table, an extra


@dataclass(frozen=True)
class Source:
    """A table in a file. `kinds`: of each column, by its first rows, None where these are empty; `head`: these rows.

    `stream(kinds)` reads the file from its start: it yields tables of these columns, in this order and of these kinds,
    each with the share of the file that is done.
    """

    path: Path
    kinds: dict[str, str | None]
    head: Table
    stream: Callable[[Mapping[str, str]], Iterator[tuple[Table, float]]]

    @property
    def names(self) -> list[str]:
        """Return the names of all columns."""
        return list(self.kinds)


def open_table(path: Path | str) -> Source:
    """Return a table in a CSV file (fields parted by commas, semicolons or tabs; `.gz` as well) or a Parquet file.

    Raises:
        ValueError: a file that is missing, empty, has no rows or is neither; a name that stands twice; no pyarrow.

    Example:
        >>> source = open_table("train.csv")
        >>> rows = sum(table.num_rows for table, _ in source.stream({"age": "number"}))
    """
    arrow()
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path} does not exist: check the path")
    if not path.is_file():
        raise ValueError(f"{path} is not a file: give a CSV or Parquet file")
    with path.open("rb") as file:
        start = file.read(4)
    if not start:
        raise ValueError(f"{path} is empty: a line of names and rows below it are wanted")
    if start == b"PAR1":
        return _open_parquet(path)
    if path.suffix in (".parquet", ".pq"):
        raise ValueError(f"{path} is not Parquet, whatever its name says: write it again")
    return _open_csv(path)


def arrow() -> Any:
    """Return pyarrow.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise ValueError('reading tables needs pyarrow: pip install "gradatim[data]"') from error
    return pyarrow


def kind_of(kind: Any) -> str | None:
    """Return the kind of an Arrow type; None for one that holds nothing, the type's own name for one not read."""
    is_ = arrow().types
    if is_.is_dictionary(kind):
        return kind_of(kind.value_type)
    if is_.is_null(kind):
        return None
    if is_.is_boolean(kind):
        return BOOLEAN
    if is_.is_integer(kind) or is_.is_floating(kind) or is_.is_decimal(kind):
        return NUMBER
    if is_.is_date(kind) or is_.is_timestamp(kind):
        return ZONED if is_.is_timestamp(kind) and kind.tz else DATE
    if is_.is_string(kind) or is_.is_large_string(kind) or is_.is_time(kind):
        return TEXT
    return str(kind)


def arrow_type(kind: str) -> Any:
    """Return the Arrow type that columns of a kind are read as."""
    a = arrow()
    types = {NUMBER: a.float64(), BOOLEAN: a.bool_(), DATE: a.timestamp("us"), TEXT: a.string()}
    return types[kind] if kind in types else a.timestamp("us", "UTC")


def _kinds(path: Path, names: Sequence[str], types: Sequence[Any]) -> dict[str, str | None]:
    """Return the kind of each column, whose names must differ."""
    for place, name in enumerate(names):
        if name in names[:place]:
            raise ValueError(f"{path}: column {name!r} stands twice: rename one of the two")
    return dict(zip(names, map(kind_of, types), strict=True))


def refuse_unread(source: Source, names: Sequence[str]) -> None:
    """Raise ValueError where a column is of a type that is not read."""
    for name in names:
        kind = source.kinds[name]
        if kind is not None and kind not in SHOWN:
            raise ValueError(
                f"{source.path}: column {name!r} is of type {kind}, which is not read: --drop {name}, or write it as "
                "numbers or text"
            )


class _Text(io.RawIOBase):
    """The bytes of a text file, unpacked and known to be UTF-8. `count`: those read; `taken`: as a share of the file.

    Raises:
        ValueError: on reading, where the file is not UTF-8 or cannot be unpacked.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.count = path, 0
        self._raw = path.open("rb")
        self._bytes = gzip.GzipFile(fileobj=self._raw) if path.suffix == ".gz" else self._raw
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._size = path.stat().st_size

    @property
    def taken(self) -> float:
        return self._raw.tell() / self._size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._bytes.read(len(buffer))
            self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            place = self.count + error.start + 1
            raise ValueError(
                f"{self.path} is not UTF-8 text (about byte {place:,}): save it as UTF-8, or as Parquet"
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


def _open_csv(path: Path) -> Source:
    """Return the table in a CSV file, the kinds of its columns inferred from its first bytes."""
    with closing(_Text(path)) as text, io.BufferedReader(text) as lines:
        first = next((line for line in lines if line.strip()), b"").decode("utf-8-sig", errors="replace")
    delimiter = next((mark for mark in (",", ";", "\t") if mark in first), ",")
    with closing(_Text(path)) as text, _told(path, (), {}):
        reader = _reader(text, delimiter, HEAD)
        names, types = reader.schema.names, reader.schema.types
        head = next((batch for batch in reader if batch.num_rows), None)
    kinds = _kinds(path, names, types)
    if head is None:
        raise ValueError(f"{path} holds names and no rows: rows are wanted")

    def stream(wanted: Mapping[str, str]) -> Iterator[tuple[Table, float]]:
        types = {name: arrow_type(kind) for name, kind in wanted.items()}
        with closing(_Text(path)) as text, _told(path, names, wanted):
            for number, batch in enumerate(_reader(text, delimiter, BLOCK, types), start=1):
                share = min(1.0, number * BLOCK / max(text.count, 1))  # blocks are read ahead
                if batch.num_rows:
                    yield arrow().Table.from_batches([batch]), share * text.taken

    return Source(path, kinds, arrow().Table.from_batches([head]), stream)


def _reader(text: _Text, delimiter: str, block: int, types: Mapping[str, Any] | None = None) -> Any:
    """Return Arrow's reader of batches: of columns of given types, or of all with types inferred."""
    arrow()
    from pyarrow import csv

    convert = csv.ConvertOptions(
        column_types=types, include_columns=list(types or ()), strings_can_be_null=True
    )
    convert.null_values = [*convert.null_values, *MISSING]
    return csv.open_csv(
        text,
        read_options=csv.ReadOptions(use_threads=False, block_size=block),
        parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=convert,
    )


@contextmanager
def _told(path: Path, names: Sequence[str], kinds: Mapping[str, str]) -> Iterator[None]:
    """Turn what Arrow finds wrong with a file into a sentence that names the file, the line and the column."""
    try:
        yield
    except (arrow().ArrowException, OSError) as error:  # a damaged Parquet file raises either
        said = str(error)
        if "Empty CSV" in said:
            raise ValueError(f"{path} holds no rows: a line of names and rows below it are wanted") from error
        if (cell := _CELL.search(said)) and int(cell[1]) < len(names):
            name = names[int(cell[1])]
            raise ValueError(_misfit(path, name, kinds[name], repr(cell[3]), cell[2])) from error
        said = re.sub(r"^CSV parse error: Row #(\d+): E", r"line \1: e", said)
        raise ValueError(f"{path}: {said[:200]}") from error


def _misfit(path: Path, name: str, kind: str, came: str, line: str | None = None) -> str:
    where = f"{path}, line {line}" if line else str(path)
    return (
        f"{where}: column {name!r} holds {SHOWN[kind]} so far; got {came}: correct it or leave it empty, or begin anew "
        f"with fit --text {name}"
    )


def _open_parquet(path: Path) -> Source:
    """Return the table in a Parquet file."""
    from pyarrow import parquet

    with _told(path, (), {}), parquet.ParquetFile(path, **LEAN) as file:
        schema, rows = file.schema_arrow, file.metadata.num_rows
        kinds = _kinds(path, schema.names, schema.types)
        head = next((batch for batch in file.iter_batches(ROWS, use_threads=False) if batch.num_rows), None)
    if head is None:
        raise ValueError(f"{path} holds names and no rows: rows are wanted")

    def stream(wanted: Mapping[str, str]) -> Iterator[tuple[Table, float]]:
        done = 0
        with _told(path, (), {}), parquet.ParquetFile(path, **LEAN) as file:
            for batch in file.iter_batches(ROWS, columns=list(wanted), use_threads=False):
                done += batch.num_rows
                columns = {
                    name: _as_kind(batch.column(name), kinds[name], kind, path, name)
                    for name, kind in wanted.items()
                }
                yield arrow().table(columns), done / rows

    return Source(path, kinds, arrow().Table.from_batches([head]), stream)


def _as_kind(column: Any, came: str | None, kind: str, path: Path, name: str) -> Any:
    """Return a column of a Parquet file as the kind that is wanted, where that loses nothing.

    Raises:
        ValueError: it is of another kind; the column is named.
    """
    a = arrow()
    if (kind, came) == (BOOLEAN, NUMBER):  # both become numbers
        return column.cast(a.float64(), safe=False)
    whole = came == BOOLEAN or a.types.is_integer(column.type)
    same = came in (kind, None) or {kind, came} == {DATE, ZONED}
    if not (same or came == TEXT or (kind == NUMBER and came == BOOLEAN) or (kind == TEXT and whole)):
        raise ValueError(_misfit(path, name, kind, SHOWN.get(came or "", f"type {came}")))
    try:
        return column.cast(arrow_type(kind), safe=False)
    except a.ArrowException as error:
        text = re.search(r"'(.*?)'", str(error))
        raise ValueError(_misfit(path, name, kind, repr(text[1]) if text else SHOWN[came or kind])) from error
