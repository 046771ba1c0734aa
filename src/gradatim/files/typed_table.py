"""Tables whose columns have types: Parquet, and Arrow files and streams.

Source: Apache Arrow (formats and types).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from .cells import BOOLEAN, DATE, KIND_NAMES, NUMBER, TEXT, Cells, arrow, arrow_type, kernels
from .facts import EXACT
from .inference import ODD_CELLS
from .parsing import FIRST_MICROSECOND, LAST_MICROSECOND, parse, without, without_numbers
from .plain import plain_array, plain_type
from .sampling import hash_columns
from .text import clean_names
from .text_table import Block

if TYPE_CHECKING:
    from .containers import Container
    from .sampling import Sampler

PARQUET_OPTIONS = {"pre_buffer": False, "buffer_size": 1 << 16}
"""Options to open a Parquet file without reading all of it ahead, which is Arrow's default."""

_PER_DAY = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


class TypedTable:
    """The batches of a Parquet or Arrow file, or of some row groups of a Parquet file: the first and the stop.

    Attributes: `names`: of the columns; `types`: their Arrow types by name; `notes`: for the user.
    """

    delimiter = ","
    quoted: frozenset[str] = frozenset()
    leaves_out = is_open = False

    def __init__(
        self, container: Container, batch_rows: int, row_groups: tuple[int, int] | None = None
    ) -> None:
        self.label, self.rereadable = container.label, container.rereadable
        self._container, self._batch_rows = container, batch_rows
        self._row_groups, self._rows_before = row_groups, 0
        self._first: list[Any] = []
        self._stream: Any = None
        if not self.rereadable:
            with explain_arrow(self.label):
                self._stream = arrow().ipc.open_stream(_Readable(container.stream))
                schema = self._stream.schema
        else:
            with self._open() as (schema, _, _):
                pass
        self.names, self.notes = clean_names(schema.names)
        self.types = dict(zip(self.names, map(plain_type, schema.types), strict=True))
        self._originals = dict(zip(self.names, schema.names, strict=True))
        self._twice = len(set(schema.names)) < len(schema.names)

    @contextmanager
    def _open(self) -> Iterator[tuple[Any, Any, int]]:
        """Open the file; give its schema, a function that yields batches with some columns, and its rows."""
        a, path = arrow(), self._container.path
        with explain_arrow(self.label):
            if self._container.format == "parquet":
                from pyarrow import parquet

                with parquet.ParquetFile(path, **PARQUET_OPTIONS) as file:
                    first, stop = self._row_groups or (0, file.num_row_groups)
                    size, groups = self._batch_rows, [*range(first, stop)]
                    counts = [file.metadata.row_group(group).num_rows for group in range(stop)]
                    self._rows_before = sum(counts[:first])

                    def batches(columns: list[str] | None) -> Iterator[Any]:
                        return file.iter_batches(size, row_groups=groups, columns=columns, use_threads=False)

                    yield file.schema_arrow, batches, sum(counts[first:])
            elif self._container.format == "arrow":
                with a.memory_map(str(path)) as source, a.ipc.open_file(source) as file:

                    def batches(columns: list[str] | None) -> Iterator[Any]:
                        return (file.get_batch(number) for number in range(file.num_record_batches))

                    yield file.schema, batches, sum(batch.num_rows for batch in batches(None))
            else:
                with self._container.open() as source, a.ipc.open_stream(_Readable(source)) as file:
                    yield file.schema, lambda columns: iter(file), 0

    def _batches(self, names: Sequence[str]) -> Iterator[tuple[dict[str, Any], int, float]]:
        """Yield columns by name, the number of rows, and the share of the file that has been read."""
        if self._stream is not None:
            for batch in self._first:
                yield self._columns(batch, names), batch.num_rows, 0.0
            with explain_arrow(self.label):
                for batch in self._stream:
                    yield self._columns(batch, names), batch.num_rows, 0.0
            if self._container.stream is not None:
                self._container.stream.close()
            return
        count_read = 0
        with self._open() as (_, batches, total):
            for batch in batches(None if self._twice else [self._originals[name] for name in names]):
                for start in range(0, max(batch.num_rows, 1), self._batch_rows):
                    part = batch.slice(start, self._batch_rows)
                    count_read += part.num_rows
                    yield (
                        self._columns(part, names),
                        part.num_rows,
                        min(1.0, count_read / total) if total else 0.0,
                    )

    def _columns(self, batch: Any, names: Sequence[str]) -> dict[str, Any]:
        with explain_arrow(self.label):
            batch.validate(full=True)  # a damaged file may point beyond its memory
        if self._twice:
            return {name: plain_array(batch.column(self.names.index(name))) for name in names}
        return {
            name: plain_array(batch.column(batch.schema.get_field_index(self._originals[name])))
            for name in names
        }

    def hash_rows(self, sampler: Sampler) -> None:
        """Show all rows to a sampler."""
        for columns, _, _ in self._batches(self.names):
            arrays = list(columns.values())
            sampler.add(hash_columns(arrays), sum(array.nbytes for array in arrays))

    def pick(self, numbers: np.ndarray) -> Block:
        """Return the rows of these numbers `[rows]`, in increasing order."""
        a, parts, start = arrow(), [], 0
        for columns, count, _ in self._batches(self.names):
            inside = (
                numbers[np.searchsorted(numbers, start) : np.searchsorted(numbers, start + count)] - start
            )
            rows = a.array(inside)
            parts.append({name: column.take(rows) for name, column in columns.items()})
            start += count
        columns = {name: _concat([part[name] for part in parts], self.types[name]) for name in self.names}
        return Block(columns, len(numbers), 1.0, lambda row: self._place(int(numbers[row])))

    def _place(self, row: int) -> str:
        """Return where a row stands in the file."""
        return f"row {self._rows_before + row + 1:,}"

    def head(self, n_rows: int = 1) -> Block:
        """Return the first rows, for a stream that is read once: at least so many, if it has them."""
        count = 0
        with explain_arrow(self.label):
            while count < n_rows:
                try:
                    self._first.append(self._stream.read_next_batch())
                except StopIteration:
                    break
                count += self._first[-1].num_rows
        if not count:
            return Block({name: arrow().array([], dtype) for name, dtype in self.types.items()}, 0, 1.0, str)
        parts = [self._columns(batch, self.names) for batch in self._first]
        columns = {name: _concat([part[name] for part in parts], self.types[name]) for name in self.names}
        return Block(columns, count, 0.0, lambda row: f"row {row + 1:,}")

    def blocks(self, names: Sequence[str], plain: Mapping[str, Any], decimal: str) -> Iterator[Block]:
        """Yield all rows, with these columns."""
        start = 0
        for columns, count, share in self._batches(names):
            if count:
                yield Block(columns, count, share, lambda row, start=start: self._place(start + row))
            start += count


class _Readable:
    """The bytes of a stream as Arrow reads them."""

    closed = False

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        parts = []
        while size and (data := self._stream.read(min(size, 1 << 20) if size > 0 else 1 << 20)):
            parts.append(data)
            size -= len(data) if size > 0 else 0
        return b"".join(parts)

    def close(self) -> None:
        self.closed = True


def _concat(arrays: list[Any], dtype: Any) -> Any:
    arrays = [array for array in arrays if len(array)]
    return arrow().concat_arrays(arrays) if arrays else arrow().array([], dtype)


def column_kind(dtype: Any) -> str | None:
    """Return the kind of an Arrow type: None if it holds nothing, the type's own name if it is not supported.

    Example:
        >>> import pyarrow
        >>> from gradatim.files.typed_table import column_kind
        >>> column_kind(pyarrow.int32()), column_kind(pyarrow.null()), column_kind(pyarrow.binary())
        ('number', None, 'binary')
    """
    types, dtype = arrow().types, plain_type(dtype)
    if types.is_null(dtype):
        return None
    if types.is_boolean(dtype):
        return BOOLEAN
    if (
        types.is_integer(dtype)
        or types.is_floating(dtype)
        or types.is_decimal(dtype)
        or types.is_duration(dtype)
    ):
        return NUMBER
    if types.is_date(dtype) or types.is_timestamp(dtype):
        return DATE
    return TEXT if _is_words(dtype) or types.is_time(dtype) else str(dtype)


def _is_words(dtype: Any) -> bool:
    types = arrow().types
    is_view = getattr(types, "is_string_view", lambda _: False)
    return types.is_string(dtype) or types.is_large_string(dtype) or is_view(dtype)


def infer_typed(
    column: Any, name: str, missing: tuple[str, ...], is_text: bool
) -> tuple[Cells | None, list[str]]:
    """Return how a column with a type is read, None where it holds nothing or is not supported, and notes.

    Args:
        column: an Arrow array `[rows]`.
        name: of the column.
        missing: words that mean missing.
        is_text: whether the user wants text.

    Example:
        >>> import pyarrow
        >>> from gradatim.files.typed_table import infer_typed
        >>> infer_typed(pyarrow.array([2**60, 2**60 + 1]), "id", (), False)[0].kind
        'text'
    """
    compute = kernels()
    kind = column_kind(column.type)
    if kind not in KIND_NAMES or column.null_count == len(column):
        return None, []
    if is_text:
        return Cells(TEXT, missing=missing), []
    if _is_whole(column.type):
        limit = arrow().scalar(EXACT, column.type)
        large = compute.greater(column, limit)
        if not arrow().types.is_unsigned_integer(column.type):
            large = compute.or_kleene(large, compute.less(column, arrow().scalar(-EXACT, column.type)))
        if (compute.sum(large).as_py() or 0) > ODD_CELLS * (len(column) - column.null_count):
            word = column.filter(large)[0]
            note = f"column {name!r} is read as text, since whole numbers such as {word} are not exact as numbers"
            return Cells(TEXT, missing=missing), [note]
    return Cells(kind, missing=missing), []


def _is_whole(dtype: Any) -> bool:
    """Return whether a type holds whole numbers that may be beyond 2^53."""
    types = arrow().types
    if types.is_decimal(dtype):
        return dtype.scale == 0 and dtype.precision > 15
    return types.is_integer(dtype) and dtype.bit_width == 64


def check_convertible(dtype: Any, cells: Cells, name: str, label: str) -> None:
    """Raise ValueError if a column of this type cannot be read as a state wants it.

    Raises:
        ValueError: numbers where dates are wanted, and the like. The message names the column.

    Example:
        >>> import pyarrow
        >>> from gradatim.files.cells import Cells
        >>> from gradatim.files.typed_table import check_convertible
        >>> check_convertible(pyarrow.int8(), Cells("text"), "code", "rows.parquet")
    """
    kind = column_kind(dtype)
    numbers = kind in (NUMBER, BOOLEAN) and cells.kind in (NUMBER, BOOLEAN)
    words = kind in KIND_NAMES and TEXT in (kind, cells.kind)
    if kind in (None, cells.kind) or words or numbers:
        return
    got = KIND_NAMES.get(kind or "", f"type {kind}")
    raise ValueError(
        f"{label}: column {name!r} holds {KIND_NAMES[cells.kind]} so far; got {got}: correct it, or start again with "
        f"fit --text {name}"
    )


def convert(column: Any, cells: Cells) -> Any:
    """Return a column with a type as its cells are read; what cannot be read so is null.

    Args:
        column: an Arrow array `[rows]` of a type that `check_convertible` allows.
        cells: how they are read.

    Example:
        >>> import pyarrow
        >>> from gradatim.files.cells import Cells
        >>> from gradatim.files.typed_table import convert
        >>> convert(pyarrow.array([True, None]), Cells("number")).to_pylist()
        [1.0, None]
    """
    compute = kernels()
    a, dtype = arrow(), column.type
    types = a.types
    if types.is_null(dtype):
        return a.nulls(len(column), arrow_type(cells.kind))
    if _is_words(dtype):
        return parse(column.cast("string"), cells)
    if cells.kind == TEXT:
        return without(_spelt(column), cells.missing)
    if cells.kind == DATE:
        return _moments(column)
    if types.is_duration(dtype):
        column = compute.divide(column.cast("int64").cast("float64", safe=False), float(_PER_DAY[dtype.unit]))
    numbers = (column.cast("uint8") if types.is_boolean(dtype) else column).cast("float64", safe=False)
    numbers = without_numbers(numbers, cells.missing)
    if cells.kind == NUMBER:
        return numbers
    is_truth = compute.is_in(numbers, value_set=a.array([0.0, 1.0]))
    return compute.if_else(is_truth, compute.equal(numbers, 1.0), a.scalar(None, a.bool_()))


def _spelt(column: Any) -> Any:
    """Return values as text; a is_whole number has no decimals."""
    compute = kernels()
    if arrow().types.is_timestamp(column.type) or arrow().types.is_time(column.type):
        return compute.replace_substring_regex(
            column.cast("string"), pattern=r"\.?0*(Z?)$", replacement=r"\1"
        )
    if not arrow().types.is_floating(column.type):
        return column.cast("string")
    numbers = column.cast("float64")
    numbers = compute.if_else(compute.is_nan(numbers), arrow().scalar(None, "float64"), numbers)
    is_whole = compute.and_(
        compute.equal(compute.round(numbers), numbers), compute.less_equal(compute.abs(numbers), EXACT)
    )
    integers = compute.if_else(is_whole, numbers, 0.0).cast("int64").cast("string")
    return compute.if_else(is_whole, integers, numbers.cast("string"))


def _moments(column: Any) -> Any:
    """Return dates or moments `[rows]` of any unit and zone as microseconds in UTC; years beyond 1 to 9999 are null."""
    compute = kernels()
    a = arrow()
    if a.types.is_date(column.type):
        column = column.cast(a.date32())
        ticks, per_tick = column.cast("int32").cast("int64"), 86_400_000_000
    else:
        ticks, per_tick = column.cast("int64"), 10**6 // _PER_DAY[column.type.unit]
    if not per_tick:  # nanoseconds; the floor, since before 1970 they are negative
        values = np.floor_divide(ticks.fill_null(0).to_numpy(zero_copy_only=False), 1000)
        return a.array(values, mask=column.is_null().to_numpy(zero_copy_only=False)).cast(a.timestamp("us"))
    low, high = -(-FIRST_MICROSECOND // per_tick), LAST_MICROSECOND // per_tick
    valid = compute.and_(compute.greater_equal(ticks, low), compute.less_equal(ticks, high))
    ticks = compute.if_else(valid, ticks, a.scalar(None, "int64"))
    return compute.multiply(ticks, per_tick).cast(a.timestamp("us"))


@contextmanager
def explain_arrow(label: str) -> Iterator[None]:
    """Turn Arrow's errors into a message that names the file.

    Raises:
        ValueError: in place of an error of Arrow, or of the operating system.

    Example:
        >>> from gradatim.files.typed_table import explain_arrow
        >>> with explain_arrow("rows.parquet"):
        ...     raise OSError("no more data")
        Traceback (most recent call last):
        ValueError: rows.parquet cannot be read, it is damaged or of a form that is not known: write it again
    """
    try:
        yield
    except (arrow().ArrowException, OSError, UnicodeDecodeError) as error:  # a damaged file raises any
        reason = "it is damaged or of a form that is not known: write it again"
        if isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        raise ValueError(f"{label} cannot be read, {reason}") from error
