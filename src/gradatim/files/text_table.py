"""Tables in text: CSV and the like. Their cells come as words.

Source: RFC 4180 (CSV).
"""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .cells import arrow
from .sampling import hash_lines
from .text import FIELD_BYTES, Decoder, Rows, find_layout, split_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from .containers import Container
    from .options import ReadOptions
    from .sampling import Sampler

LAYOUT_BYTES = 1 << 18
"""Bytes at the start of a text file from which its delimiter and the names of its columns are recognised."""

ONCE_BYTES = 1 << 20
"""Bytes at the start of a stream that is read once from which the columns are inferred."""

MISSING_NUMBERS = (
    "NA",
    "N/A",
    "n/a",
    "na",
    "NaN",
    "nan",
    "NULL",
    "null",
    "None",
    "none",
    "#N/A",
    "nil",
    "NaT",
)
"""Words that Arrow may read as missing where a column is no text."""

WIDE_BYTES = 512
"""Bytes per block for each column, so that a block of many columns holds some rows."""


@dataclass(frozen=True)
class Block:
    """Some rows of a file, one after the other.

    Fields: `columns`: an Arrow array `[rows]` by name; `rows`: their number; `share`: the share of the file that has
    been read; `place`: returns where row `i` stands, such as "line 9"; `words`: returns a column `[rows]` as words.
    """

    columns: dict[str, Any]
    rows: int
    share: float
    place: Callable[[int], str]
    words: Callable[[str], Any] = str


class TextTable:
    """The lines of a text file as rows of words; the classes below say what a line is.

    Attributes: `names`: of the columns; `notes`: for the user; `types`: none, since all cells are words; `leaves_out`:
    whether a row leaves out the columns that it lacks; `is_open`: whether rows to come may have more columns.
    """

    leaves_out = is_open = False

    types: Mapping[str, Any] | None = None
    quotes = False

    def __init__(self, container: Container, options: ReadOptions, block_bytes: int) -> None:
        self.label, self.rereadable = container.label, container.rereadable
        self._container, self._options, self._block = container, options, block_bytes
        self.names: list[str] = []
        self.notes: list[str] = []
        self.delimiter = ","
        self._skipped, self._first = 0, 1
        self._pieces: Iterator[tuple[bytes, bool, float]] | None = None
        self._head: list[tuple[bytes, bool, float]] = []
        self._read_layout()

    @property
    def quoted(self) -> set[str]:
        """The columns whose values are mostly marked as words."""
        return set()

    def _layout(self, data: bytes, final: bool) -> bool:
        """Learn the layout from the first bytes; return whether they suffice."""
        raise NotImplementedError

    def parse(
        self,
        rows: Rows,
        names: Sequence[str],
        plain: Mapping[str, Any],
        decimal: str,
        lines: np.ndarray | None = None,
    ) -> dict[str, Any]:
        """Return columns of words `[rows]`; those in `plain` may be of these Arrow types already.

        `lines` are the numbers of the lines on which the rows begin `[rows]`, where they do not follow one another.
        """
        raise NotImplementedError

    def _read_layout(self) -> None:
        enough = LAYOUT_BYTES
        if not self.rereadable:
            is_known = self._options.columns is not None and not self._options.sampled
            enough = 1 if is_known else ONCE_BYTES
        pieces, size, complete = self._open_pieces(), 0, False
        for piece in pieces:
            self._head.append(piece)
            size += len(piece[0])
            if piece[1] or (size >= enough and not complete):
                data = self._first_bytes()
                complete = self._layout(data, piece[1])
                enough = 2 * size
            if piece[1] or complete:
                break
            if size > FIELD_BYTES:
                raise ValueError(
                    f"{self.label} has no line of names in its first {size:,} bytes: check the file"
                )
        if not complete:
            raise ValueError(f"{self.label} holds no rows: expected a line of column names and rows below it")
        if self._head[-1][1]:
            self._pieces = iter(())  # all of it is in memory
            pieces.close()
        elif self.rereadable:
            self._head = []
            pieces.close()
        else:
            self._pieces = pieces

    def _first_bytes(self) -> bytes:
        return b"".join(data for data, _, _ in self._head)

    def _open_pieces(self) -> Generator[tuple[bytes, bool, float]]:
        """Yield the file in pieces of UTF-8, each with whether it is the last, and the share that has been read."""
        decode = Decoder(self.label, self._options.encoding, self._options.delimiter)
        with self._container.open() as stream:
            while data := stream.read(self._block):
                yield decode(data), False, stream.share
            yield decode(b"", final=True), True, 1.0

    def _all_pieces(self) -> Iterator[tuple[bytes, bool, float]]:
        if self._pieces is None:
            yield from self._open_pieces()
            return
        if not self._head:
            raise ValueError(f"{self.label} is read once, and it has been read: write it to a file first")
        head, self._head = self._head, self._head if self._head[-1][1] else []
        yield from head
        if not head[-1][1]:
            yield from self._pieces

    def rows(self) -> Iterator[Rows]:
        """Yield blocks of rows, without the line of names.

        Raises:
            ValueError: the file is damaged, or a row is too long.
        """
        tail, skip, line, wait = b"", self._skipped, self._first, 0
        for piece, final, share in self._all_pieces():
            tail = tail + piece if tail else piece
            if skip:
                cut = min(skip, len(tail))
                tail, skip = tail[cut:], skip - cut
            if len(tail) < wait and not final:
                continue  # a long field: look again when twice as much has come
            rows, tail = split_rows(tail, self.delimiter if self.quotes else None, final, line, share)
            line += rows.data.count(b"\n")
            wait = 2 * len(tail) if len(tail) > self._block else 0
            if len(tail) > FIELD_BYTES:
                raise ValueError(
                    f"{self.label}, line {line:,}: no row ends within {FIELD_BYTES >> 20} MiB: is a quote left open?"
                )
            if final and rows.unclosed:
                where = rows.lines([len(rows.starts) - 1])[0]
                raise ValueError(
                    f"{self.label}, line {where:,}: a quote opens a field and is never closed: correct it"
                )
            if len(rows.starts):
                yield rows

    def hash_rows(self, sampler: Sampler) -> None:
        """Show all rows to a sampler."""
        for rows in self.rows():
            hashes, present = hash_lines(rows, self._blanks)
            sampler.add(hashes, len(rows.data), None if self._is_row(b"") else present)

    def pick(self, numbers: np.ndarray) -> Block:
        """Return the rows of these numbers `[rows]`, in increasing order, as words."""
        parts, lines, start = [], [], 0
        for rows in self.rows():
            inside = numbers[
                np.searchsorted(numbers, start) : np.searchsorted(numbers, start + len(rows.starts))
            ]
            parts += [rows.row(row) for row in (inside - start).tolist()]
            lines.append(rows.lines(inside - start))
            start += len(rows.starts)
        rows, _ = split_rows(
            b"".join(part + b"\n" for part in parts), self.delimiter if self.quotes else None, True
        )
        places = np.concatenate(lines) if lines else np.empty(0, int)
        return self._block_of(
            rows, self.parse(rows, self.names, {}, ".", places), lambda row: f"line {places[row]:,}"
        )

    def _marked(self, data: bytes) -> bytes:
        """Return lines as Arrow reads them: it would drop a byte-order mark that begins their first cell."""
        return BOM_UTF8 + data if data.startswith(BOM_UTF8) else data

    def head(self) -> Block:
        """Return the first rows as words, for a stream that is read once."""
        data = self._first_bytes()[self._skipped :]
        rows, _ = split_rows(data, self.delimiter if self.quotes else None, self._head[-1][1], self._first)
        return self._block_of(rows, self.parse(rows, self.names, {}, "."), self._places(rows))

    def blocks(self, names: Sequence[str], plain: Mapping[str, Any], decimal: str) -> Iterator[Block]:
        """Yield all rows, with these columns; those in `plain` may be of these Arrow types already."""
        for rows in self.rows():
            columns = self.parse(rows, names, plain, decimal)
            block = self._block_of(rows, columns, self._places(rows))
            if block.rows:
                yield block

    def _block_of(self, rows: Rows, columns: dict[str, Any], place: Callable[[int], str]) -> Block:
        count = len(next(iter(columns.values()))) if columns else len(rows.starts)
        return Block(columns, count, rows.share, place, lambda name: self.parse(rows, [name], {}, ".")[name])

    def _places(self, rows: Rows) -> Callable[[int], str]:
        def place(row: int) -> str:
            full = [i for i in range(len(rows.starts)) if self._is_row(rows.row(i))]
            return f"line {rows.lines([full[row]])[0]:,}"

        return place

    @property
    def _blanks(self) -> bytes:
        return b" \r\n" if self.delimiter == "\t" else b" \t\r\n"

    def _is_row(self, line: bytes) -> bool:
        """Return whether a line is a row: an empty one is, where there is one column."""
        return bool(line.strip(self._blanks)) or (len(self.names) == 1 and self.quotes)


class CsvTable(TextTable):
    """A file of fields between delimiters."""

    quotes = True

    def _layout(self, data: bytes, final: bool) -> bool:
        layout = find_layout(data, final, self._options.delimiter, self._options.header)
        if layout is None:
            return False
        self.names, self.notes, self.delimiter = layout.names, layout.notes, layout.delimiter
        self._skipped, self._first = layout.skipped, layout.lines
        self._index = {name: str(number) for number, name in enumerate(self.names)}
        self._block = max(self._block, WIDE_BYTES * len(self.names))
        if self.rereadable or final:
            return True
        return len(split_rows(data[self._skipped :], self.delimiter, final)[0].starts) > 0

    def parse(
        self,
        rows: Rows,
        names: Sequence[str],
        plain: Mapping[str, Any],
        decimal: str,
        lines: np.ndarray | None = None,
    ) -> dict[str, Any]:
        """Return columns of words `[rows]`; those in `plain` may be of these Arrow types already.

        Raises:
            ValueError: a row has more or fewer fields than there are names.
        """
        a = arrow()
        from pyarrow import csv

        columns = {self._index[name]: plain.get(name, a.string()) for name in names}
        ragged: list[Any] = []

        def on_ragged(row: Any) -> str:
            if not row.text.strip(self._blanks.decode()):
                return "skip"
            ragged.append(row)
            return "error"

        convert = csv.ConvertOptions(
            column_types=columns,
            include_columns=list(columns) or ["0"],
            null_values=["", *(() if self._options.missing is not None else MISSING_NUMBERS)],
            strings_can_be_null=False,
            check_utf8=False,
            decimal_point=decimal,
        )
        if not columns:
            convert.column_types = {"0": a.string()}
        try:
            table = csv.read_csv(
                a.BufferReader(data := self._marked(rows.data)),
                read_options=csv.ReadOptions(
                    use_threads=False, block_size=len(data) + 1, column_names=list(self._index.values())
                ),
                parse_options=csv.ParseOptions(
                    delimiter=self.delimiter,
                    newlines_in_values=rows.quoted,
                    invalid_row_handler=on_ragged,
                    ignore_empty_lines=len(self.names) > 1,
                ),
                convert_options=convert,
            )
        except a.ArrowInvalid as error:
            if ragged:
                raise ValueError(self._ragged(rows, ragged[0], lines)) from error
            if "Empty CSV" in str(error) or not len(rows.starts):
                return {name: a.array([], columns[self._index[name]]) for name in names}
            if plain and "conversion error" in str(error):
                return self.parse(rows, names, {}, ".")
            raise ValueError(f"{self.label}, line {rows.first:,} and later: {str(error)[:200]}") from error
        return {name: _one_chunk(table[self._index[name]]) for name in names}

    def _ragged(self, rows: Rows, row: Any, lines: np.ndarray | None) -> str:
        """Return the message about a row that has more or fewer fields than there are names."""
        text = row.text.encode().rstrip(b"\r\n")
        number = next((i for i in range(len(rows.starts)) if rows.row(i) == text), 0)
        line = rows.lines([number])[0] if lines is None else lines[number]
        more = row.actual_columns > row.expected_columns
        hint = "quote a field that holds the delimiter" if more else "complete it"
        expected = f"{row.expected_columns} column{'s' * (row.expected_columns != 1)}"
        return f"{self.label}, line {line:,}: expected {expected}, got {row.actual_columns}: {hint}"


def _one_chunk(column: Any) -> Any:
    return (
        column.chunk(0)
        if column.num_chunks == 1
        else arrow().concat_arrays(column.chunks)
        if column.num_chunks
        else arrow().array([], column.type)
    )
