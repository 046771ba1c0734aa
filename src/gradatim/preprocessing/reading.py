"""Read a table from any container: NumPy, lists, SciPy sparse, pandas, polars, Arrow.

Source: narwhals (one interface to data frames); scikit-learn's `check_array` (which input is refused, and its
messages).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from numbers import Number as AnyNumber
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
from scipy import sparse

from .columns import Columns, check_finite, format_number, object_column

_DAY = 86_400_000_000  # microseconds
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_NESTED = (dict, list, tuple, set, frozenset, np.ndarray)
_NUMBER, _DATE, _DURATION, _TEXT = "number", "date", "span", "text"


def read_columns(X: Any) -> Columns:
    """Return a table by column.

    Args:
        X: a NumPy array `[rows, columns]` or what becomes one (lists of lists), a SciPy sparse matrix (made dense),
            a pandas, polars or narwhals data frame, or an Arrow table or record batch.

    Returns:
        Columns of float64 or text, chosen column by column:

        - Numbers and booleans become float64.
        - Dates and times become days since 1970, in UTC. Durations become days.
        - Everything else becomes text, mixed types and categoricals included. Among text, 1, 1.0 and True are the same.
        - None, NaN, NaT and NA are missing.
        - Without names in the container, or with names that pandas counted, they are x0, x1, ...

    Raises:
        ValueError: the table has not two dimensions, has no rows or no columns, infinite or complex numbers, or a
        name twice.
        TypeError: cells that hold more than one value.

    Example:
        >>> from gradatim.preprocessing import read_columns
        >>> read_columns([[1, "red"], [None, "blue"]]).values
        (array([ 1., nan]), array(['red', 'blue'], dtype=object))
    """
    if sparse.issparse(X):
        return _columns_of_array(X.toarray())
    if isinstance(X, np.ma.MaskedArray):
        cells = np.ma.getdata(X).astype(object)
        cells[np.ma.getmaskarray(X)] = None
        return _columns_of_array(cells)
    if isinstance(X, np.ndarray):
        return _columns_of_array(np.asarray(X))
    arrow = sys.modules.get("pyarrow")
    if arrow is not None and isinstance(X, arrow.RecordBatch):
        X = arrow.Table.from_batches([X])
    if isinstance(X, nw.DataFrame) or nw.dependencies.is_into_dataframe(X):
        return _columns_of_frame(X)
    return _columns_of_array(_as_array(X))


def _as_array(X: Any) -> np.ndarray:
    """Return lists, or whatever NumPy can read, as an array; of objects if numbers and text are mixed."""
    try:
        array = np.asarray(X)
        return np.asarray(X, dtype=object) if array.dtype.kind in "US" else array
    except ValueError as error:
        raise ValueError(
            f"a table has rows of equal length with one value in each cell; got a "
            f"{type(X).__name__} that is not: {error}"
        ) from None


def _columns_of_array(array: np.ndarray) -> Columns:
    """Return the columns of an array `[rows, columns]`."""
    kind = array.dtype.kind
    if kind == "c":
        raise ValueError(f"Complex data not supported; got an array of {array.dtype}")
    if array.ndim != 2:
        _refuse_dimensions(array)
    _refuse_empty(array.shape)
    names = _default_names(array.shape[1])
    if kind in "biuf":
        with np.errstate(over="ignore"):  # what overflows is refused below
            matrix = array.astype(np.float64, copy=False)
        return Columns.from_matrix(names, check_finite(matrix, names), named=False)
    columns = array.astype(object).T if kind not in "mM" else array.T
    return Columns(
        names, tuple(_array_column(column, name) for column, name in zip(columns, names, strict=True)), False
    )


def _refuse_dimensions(array: np.ndarray) -> None:
    if array.ndim > 2:
        raise ValueError(f"Found array with dim {array.ndim}, while dim <= 2 is required: rows and columns")
    dimensions = "scalar array" if array.ndim == 0 else "1D array"
    raise ValueError(
        f"Expected 2D array, got {dimensions} instead (shape={array.shape}, dtype={array.dtype}). Reshape your data "
        "either using array.reshape(-1, 1) if your data has a single feature or array.reshape(1, -1) if it contains a "
        "single sample."
    )


def _refuse_empty(shape: tuple[int, ...]) -> None:
    for size, item in zip(shape[::-1], ("feature", "sample"), strict=True):
        if size == 0:
            raise ValueError(
                f"Found array with 0 {item}(s) (shape={shape}) while a minimum of 1 is required."
            )


@lru_cache(maxsize=64)
def _default_names(n_columns: int) -> tuple[str, ...]:
    return tuple(f"x{j}" for j in range(n_columns))


def _columns_of_frame(X: Any) -> Columns:
    """Return the columns of a data frame."""
    native = X.to_native() if isinstance(X, nw.DataFrame) else X
    headers = list(native.column_names if hasattr(native, "column_names") else native.columns)
    named = headers != list(range(len(headers)))
    names = tuple(map(str, headers)) if named else _default_names(len(headers))
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"column {name!r} occurs twice: rename one of the two")
    plain = [isinstance(kind, np.dtype) and kind.kind in "iuf" for kind in getattr(native, "dtypes", (None,))]
    frame = native if all(plain) else nw.from_native(X, eager_only=True, pass_through=False)
    _refuse_empty(frame.shape)
    if all(plain) or all(kind.is_numeric() for kind in frame.schema.values()):
        matrix = frame.to_numpy()
        if matrix.dtype.kind in "iuf":
            return Columns.from_matrix(
                names, check_finite(matrix.astype(np.float64, copy=False), names), named
            )
    series = zip(frame.iter_columns(), names, strict=True)
    return Columns(names, tuple(_series_values(column, name) for column, name in series), named)


def _series_values(series: Any, name: str) -> np.ndarray:
    """Return one column `[rows]` of a data frame."""
    kind = series.dtype
    if kind.is_numeric() or kind == nw.Boolean:
        return check_finite(_series_to_floats(series), (name,))
    if kind == nw.Duration:
        return _series_to_floats(series.dt.total_microseconds()) / _DAY
    if kind == nw.Date or kind == nw.Datetime:
        return _series_to_floats(series.dt.timestamp("us")) / _DAY
    items = series.to_list()
    text = kind == nw.String or kind == nw.Categorical or kind == nw.Enum
    return _text_column(items, name) if text else _objects_to_column(items, name)


def _series_to_floats(series: Any) -> np.ndarray:
    return series.cast(nw.Float64).to_numpy().astype(np.float64, copy=False)


def _array_column(values: np.ndarray, name: str) -> np.ndarray:
    """Return one column `[rows]` of an array of dates, durations or objects."""
    if values.dtype.kind == "O":
        return _objects_to_column(values.tolist(), name)
    unit = "datetime64[us]" if values.dtype.kind == "M" else "timedelta64[us]"
    return np.where(np.isnat(values), np.nan, values.astype(unit).astype(np.int64) / _DAY)


def _objects_to_column(items: list[Any], name: str) -> np.ndarray:
    """Return a column `[rows]` of Python objects: float64 if all are numbers, all dates or all durations, else
    text.
    """
    if str in set(map(type, items)):
        return _text_column(items, name)
    items, kinds = _replace_missing(items, name)
    families = {_family(kind) for kind in kinds}
    if families <= {_NUMBER}:
        return check_finite(_to_floats(items, _to_float), (name,))
    if families == {_DATE}:
        return _to_floats(items, _date_to_days)
    if families == {_DURATION}:
        return _to_floats(items, _duration_to_days)
    return _text_column(items, name)


def _replace_missing(items: list[Any], name: str) -> tuple[list[Any], set[type]]:
    """Return the items, with None for those that are missing, and the types of the others."""
    for kind in set(map(type, items)):
        if issubclass(kind, _NESTED):
            raise TypeError(f"argument must be a string or a number: column {name!r} holds a {kind.__name__}")
        if issubclass(kind, complex | np.complexfloating):
            raise ValueError(f"Complex data not supported: column {name!r}")
    items = [None if _is_missing(item) else item for item in items]
    return items, set(map(type, items)) - {type(None)}


def _is_missing(item: Any) -> bool:
    """Return whether an item is missing: None, pandas's NA, or what differs from itself, as NaN and NaT do."""
    return item is None or type(item).__name__ == "NAType" or (type(item) is not str and bool(item != item))


def _family(kind: type) -> str:
    if issubclass(kind, date | np.datetime64):
        return _DATE
    if issubclass(kind, timedelta | np.timedelta64):
        return _DURATION
    return _NUMBER if issubclass(kind, AnyNumber | np.bool_) else _TEXT


def _to_floats(items: Sequence[Any], number: Callable[[Any], float]) -> np.ndarray:
    return np.array([np.nan if item is None else number(item) for item in items], dtype=np.float64)


def _to_float(item: Any) -> float:
    try:
        return float(item)
    except OverflowError:
        return np.inf


def _date_to_days(item: Any) -> float:
    if isinstance(item, np.datetime64):
        return int(item.astype("datetime64[us]").astype(np.int64)) / _DAY
    if not isinstance(item, datetime):
        item = datetime(item.year, item.month, item.day)
    aware = item if item.tzinfo else item.replace(tzinfo=UTC)
    return ((aware - _EPOCH) // _MICROSECOND) / _DAY


def _duration_to_days(item: Any) -> float:
    if isinstance(item, np.timedelta64):
        return int(item.astype("timedelta64[us]").astype(np.int64)) / _DAY
    return (item // _MICROSECOND) / _DAY


def _text_column(items: list[Any], name: str) -> np.ndarray:
    if set(map(type, items)) <= {str, type(None)}:
        return object_column(items)
    items, _ = _replace_missing(items, name)
    return object_column([None if item is None else _to_text(item) for item in items])


def _to_text(item: Any) -> str:
    if isinstance(item, bytes):
        return item.decode(errors="replace")
    if isinstance(item, float | np.floating | Decimal | bool | np.bool_) and np.isfinite(
        number := _to_float(item)
    ):
        return format_number(number)
    return str(item)
