"""Write tables to files of several kinds, complete or not at all.

Source: RFC 4180 (CSV); Apache Arrow (Parquet, Arrow IPC).
"""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cells import arrow
from .replace import Replacement

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Self

    from .reading import Table

SUFFIXES = (".csv", ".parquet", ".jsonl", ".arrow")
"""Endings of files that can be written."""

STDOUT = "-"
"""The path that stands for standard output, to which CSV is written."""


class TableWriter:
    """Write tables to one file, whose kind its suffix says, or as CSV to standard output if the path is `-`.

    The file appears at its path when it is complete.

    Raises:
        ValueError: the file cannot be written. No temporary file remains.

    Example:
        >>> from pathlib import Path
        >>> import pyarrow
        >>> from gradatim.files.writing import TableWriter
        >>> with TableWriter(Path("predictions.csv")) as file:
        ...     file.write(pyarrow.table({"prediction": [0, 1]}))
        >>> Path("predictions.csv").read_text().split()
        ['prediction', '0', '1']
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._is_stdout = str(path) == STDOUT
        self._new: Replacement | None = None
        self._writer: Any = None

    def __enter__(self) -> Self:
        if self._is_stdout:
            self._file: Any = sys.stdout.buffer
        else:
            self._new = Replacement(self.path)
            self._file = self._new.file
        return self

    def write(self, table: Table) -> None:
        """Write more rows.

        Raises:
            ValueError: the disk is full, or takes nothing for another reason.
        """
        with self._refusing():
            if self._writer is None:
                self._writer = _writer(self._file, "" if self._is_stdout else self.path.suffix, table)
            self._writer.write_table(table)

    def __exit__(self, kind: Any, *error: object) -> None:
        try:
            if kind is None:
                with self._refusing():
                    if self._writer is not None:
                        self._writer.close()
                        self._writer = None
                    self._file.flush()
                if self._new is not None:
                    self._new.commit()
        finally:
            if self._new is not None:
                if self._writer is not None:
                    with suppress(Exception):  # a full disk refuses what the writer still holds
                        self._writer.close()
                self._new.discard()

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """Turn an error of the system into a sentence that names the file."""
        if self._new is not None:
            with self._new.refusing():
                yield
            return
        try:
            yield
        except BrokenPipeError:  # nobody reads on: no fault
            raise
        except OSError as error:
            reason = error.strerror or error
            raise ValueError(f"standard output could not be written ({reason}): make room") from error


def _writer(file: Any, suffix: str, table: Table) -> Any:
    """Return a writer of tables like this one."""
    pa = arrow()
    if suffix == ".parquet":
        from pyarrow import parquet

        return parquet.ParquetWriter(file, table.schema)
    if suffix == ".arrow":
        return pa.ipc.new_file(file, table.schema)
    return _JsonLines(file) if suffix == ".jsonl" else _Csv(file, table.column_names)


class _Csv:
    """Write tables as CSV. A cell stands in quotes where it must."""

    def __init__(self, file: Any, names: Iterable[str]) -> None:
        self._file = file
        self._write_rows([list(names)])

    def write_table(self, table: Table) -> None:
        pa = arrow()
        from pyarrow import compute
        from pyarrow import csv as arrow_csv

        texts = [column for column in table.columns if pa.types.is_string(column.type)]
        special = compute.match_substring_regex  # type: ignore[attr-defined]
        if any(True in special(column, '[",\\r\\n]').unique().to_pylist() for column in texts):
            plain = (c if pa.types.is_floating(c.type) else c.cast("string") for c in table.columns)
            self._write_rows(zip(*(column.to_pylist() for column in plain), strict=True))
            return
        options = arrow_csv.WriteOptions(include_header=False, quoting_style="none" if texts else "needed")
        buffer = pa.BufferOutputStream()
        arrow_csv.write_csv(table, buffer, options)
        self._file.write(buffer.getvalue())

    def _write_rows(self, rows: Iterable[Iterable[Any]]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        self._file.write(text.getvalue().encode())

    def close(self) -> None:
        """Do nothing: all rows are written."""


def _finite(value: Any) -> Any:
    """Return a value that JSON has: an infinite number is null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


class _JsonLines:
    """Write tables as JSON, an object on a line for each row."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write_table(self, table: Table) -> None:
        rows = ({name: _finite(value) for name, value in row.items()} for row in table.to_pylist())
        lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows)
        self._file.write("".join(f"{line}\n" for line in lines).encode())

    def close(self) -> None:
        """Do nothing: all rows are written."""
