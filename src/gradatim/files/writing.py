"""Write tables to files of several kinds, complete or not at all.

Source: RFC 4180 (CSV); Apache Arrow (Parquet, Arrow IPC).
"""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .lock import hidden_name
from .reading import arrow

if TYPE_CHECKING:
    from collections.abc import Iterable
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
        self._temporary: Path | None = None
        self._writer: Any = None

    def __enter__(self) -> Self:
        if self._is_stdout:
            self._file: Any = sys.stdout.buffer
            return self
        try:
            self._target = _regular_target(self.path)
            self._target.parent.mkdir(parents=True, exist_ok=True)
            prefix = hidden_name(self._target.name, "")
            handle, name = tempfile.mkstemp(".tmp", prefix, self._target.parent)
            self._temporary = Path(name)
            self._file = os.fdopen(handle, "wb")
            _set_usual_mode(handle)
        except OSError as error:
            self._clean()
            raise ValueError(
                f"{self.path} cannot be written ({error.strerror or error}): choose another path"
            ) from error
        return self

    def write(self, table: Table) -> None:
        """Write more rows.

        Raises:
            ValueError: the disk is full, or takes nothing for another reason.
        """
        try:
            if self._writer is None:
                self._writer = _writer(self._file, "" if self._is_stdout else self.path.suffix, table)
            self._writer.write_table(table)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise self._failure(error) from error

    def __exit__(self, kind: Any, *error: object) -> None:
        try:
            if kind is None:
                if self._writer is not None:
                    self._writer.close()
                self._file.flush()
                if not self._is_stdout:
                    os.fsync(self._file.fileno())
                    self._file.close()
                    os.replace(self._temporary, self._target)  # type: ignore[arg-type]
                    self._temporary = None
        except BrokenPipeError:
            raise
        except OSError as failure:
            raise self._failure(failure) from failure
        finally:
            self._clean()

    def _failure(self, error: OSError) -> ValueError:
        named = "standard output" if self._is_stdout else str(self.path)
        reason = os.strerror(error.errno) if error.errno else str(error)
        return ValueError(f"{named} could not be written ({reason}): make room or choose another folder")

    def _clean(self) -> None:
        """Close the file, and remove it if it was not renamed."""
        if self._is_stdout:
            return
        with suppress(Exception):  # a full disk refuses what is buffered
            self._writer.close()
        with suppress(OSError, AttributeError):  # likewise; or nothing was opened
            self._file.close()
        if self._temporary is not None:
            with suppress(OSError):
                self._temporary.unlink()


def _regular_target(path: Path) -> Path:
    """Return where a path leads, which must be a file or nothing."""
    target = Path(os.path.realpath(path))
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(target.lstat().st_mode):
            raise OSError(errno.EINVAL, "it is a folder, a device or a loop of links")
    return target


def _set_usual_mode(handle: int) -> None:
    """Give a temporary file, which is its user's alone, the mode of a new file."""
    if hasattr(os, "fchmod"):
        mask = os.umask(0)
        os.umask(mask)
        os.fchmod(handle, 0o666 & ~mask)


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
        special = (compute.match_substring_regex(column, '[",\\r\\n]') for column in texts)
        if any(compute.any(found).as_py() for found in special):
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


class _JsonLines:
    """Write tables as JSON, an object on a line for each row."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write_table(self, table: Table) -> None:
        lines = (json.dumps(row, ensure_ascii=False) for row in table.to_pylist())
        self._file.write("".join(f"{line}\n" for line in lines).encode())

    def close(self) -> None:
        """Do nothing: all rows are written."""
