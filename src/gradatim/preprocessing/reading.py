"""Read a table from any container: NumPy, lists, SciPy sparse, pandas, polars, Arrow.

Source: narwhals (one interface to data frames); scikit-learn's `check_array` (which input is refused, and its
messages).
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
from scipy import sparse

from .cells import DATE, DURATION, EXACT, as_text, from_objects, is_missing, to_days
from .columns import Columns, check_finite

DENSE_BYTES = 2**32
"""A sparse matrix that takes more than this as a dense table is refused."""

_WIDER = (nw.Int128, nw.UInt128, nw.Decimal)
_WIDE = (nw.Int64, nw.UInt64, *_WIDER)


def read_columns(X: Any) -> Columns:
    """Return a table by column.

    Args:
        X: a NumPy array `[rows, columns]` or what becomes one (lists of lists), or a SciPy sparse matrix (made dense).
            A pandas, polars or narwhals data frame, an Arrow table or record batch. A list of dicts (rows by name), or
            one dict of single values (one row).

    Returns:
        Columns of float64 or text, chosen column by column:

        - Numbers and booleans become float64.
        - Dates and times become days since 1970, in UTC. Durations become days.
        - A column with a whole number beyond 2^53 becomes text, the digits of its numbers: a float64 would merge them.
        - Everything else becomes text, mixed types and categoricals included. Among text, 1, 1.0 and True are the same.
          Numbers and dates among text are still known: see `Columns`.
        - None, NaN, NaT and NA are missing.
        - Without names in the container, or with names that pandas counted, they are x0, x1, ...
        - A name that a dict lacks is missing in its row.

    Raises:
        ValueError: the table has not two dimensions, has no rows or no columns, infinite or complex numbers, or a
        name twice; a sparse matrix that is too large for a dense table.
        TypeError: cells that hold more than one value.

    Example:
        >>> from gradatim.preprocessing import read_columns
        >>> read_columns([[1, "red"], [None, "blue"]]).values
        (array([ 1., nan]), array(['red', 'blue'], dtype=object))
    """
    if sparse.issparse(X):
        _refuse_dense(X.shape)
        return _columns_of_array(X.toarray())
    if isinstance(X, Mapping) or (isinstance(X, list) and X and isinstance(X[0], Mapping)):
        return _columns_of_dicts(X)
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
        try:
            array = np.asarray(X)
        except UnicodeDecodeError:  # bytes beside text
            array = np.asarray(X, dtype=object)
        lost = array.dtype.kind in "USmM" or (
            array.dtype.kind == "f" and _is_beyond(array[np.isfinite(array)])
        )
        return np.asarray(X, dtype=object) if lost and array.ndim == 2 else array
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
    if kind in "biuf" and not (_is_wide(array.dtype) and _is_beyond(array)):
        with np.errstate(over="ignore"):  # what overflows is refused below
            matrix = array.astype(np.float64, copy=False)
        return Columns.from_matrix(names, check_finite(matrix, names), named=False)
    columns = array.astype(object).T if kind not in "mM" else array.T
    return Columns(
        names, tuple(_array_column(column, name) for column, name in zip(columns, names, strict=True)), False
    )


def _columns_of_dicts(X: Any) -> Columns:
    """Return the columns of rows that are dicts, in the order in which their names come."""
    rows = [X] if isinstance(X, Mapping) else X
    for place, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise ValueError(
                f"rows must all be dicts where the first is; row {place} is a {type(row).__name__}"
            )
    if isinstance(X, Mapping) and (name := next((n for n in X if np.ndim(X[n])), None)) is not None:
        raise ValueError(
            f"a dict is one row, a single value for each name; got a {type(X[name]).__name__} for {name!r}: give "
            "columns as a data frame, for example pandas.DataFrame(X)"
        )
    keys = [*dict.fromkeys(key for row in rows for key in row)]
    names = tuple(map(str, keys))
    _refuse_twice(names)
    _refuse_empty((len(rows), len(names)))
    cells = ([row.get(key) for row in rows] for key in keys)
    return Columns(
        names, tuple(object_column_of(items, name) for items, name in zip(cells, names, strict=True))
    )


def _refuse_dense(shape: tuple[int, ...]) -> None:
    size = 8 * int(np.prod(shape, dtype=np.float64))
    if size > DENSE_BYTES:
        raise ValueError(
            f"a sparse matrix is read as a dense table; {' x '.join(f'{n:,}' for n in shape)} cells would take "
            f"{size / 1e9:,.1f} GB: choose fewer columns (feature hashing, a truncated SVD), or fewer rows at a time"
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
    _refuse_twice(names)
    dtypes = [*getattr(native, "dtypes", (None,))]
    plain = all(isinstance(kind, np.dtype) and kind.kind in "iuf" for kind in dtypes)
    frame = native if plain else nw.from_native(X, eager_only=True, pass_through=False)
    _refuse_empty(frame.shape)
    kinds: list[Any] = dtypes if plain else [*frame.schema.values()]
    if plain or all(kind.is_numeric() and not any(kind == wider for wider in _WIDER) for kind in kinds):
        matrix = frame.to_numpy()
        if matrix.dtype.kind in "iuf":
            matrix = check_finite(matrix.astype(np.float64, copy=False), names)
            wide = [place for place, kind in enumerate(kinds) if _is_wide(kind)]
            if not wide or not _is_beyond(matrix if len(wide) == len(kinds) else matrix[:, wide]):
                return Columns.from_matrix(names, matrix, named)
    frame = nw.from_native(X, eager_only=True, pass_through=False)
    series = zip(frame.iter_columns(), names, strict=True)
    return Columns(names, tuple(_series_values(column, name) for column, name in series), named)


def _refuse_twice(names: tuple[str, ...]) -> None:
    if len(set(names)) < len(names):
        name, times = Counter(names).most_common(1)[0]
        places = [place for place, twin in enumerate(names) if twin == name]
        raise ValueError(
            f"column {name!r} occurs {'twice' if times == 2 else f'{times} times'}, at positions "
            f"{', '.join(map(str, places[:8]))}: give each column a name that differs"
        )


def _is_wide(kind: Any) -> bool:
    """Return whether a type holds whole numbers that float64 does not."""
    if isinstance(kind, np.dtype):
        return kind.kind in "iu" and kind.itemsize >= 8
    return any(kind == wide for wide in _WIDE)


def _is_beyond(numbers: np.ndarray) -> bool:
    """Return whether a number may have lost digits as a float64."""
    if numbers.dtype == np.float16:  # to which 2^53 is infinity
        return False
    return bool((numbers >= EXACT).any() or (numbers <= -EXACT).any())


def _series_values(series: Any, name: str) -> np.ndarray:
    """Return one column `[rows]` of a data frame."""
    kind = series.dtype
    if kind.is_numeric() or kind == nw.Boolean:
        if isinstance(getattr(series.to_native(), "dtype", None), np.dtype):
            numbers = series.to_numpy()
            beyond = _is_wide(numbers.dtype) and _is_beyond(numbers)
        else:
            # Arrow's cast refuses what float64 would round
            ends = (series.min(), series.max()) if _is_wide(kind) else ()
            beyond = any(not is_missing(end) and abs(end) >= EXACT for end in ends)
        if beyond:
            return object_column_of(series.to_list(), name)
        numbers = series.cast(nw.Float64).to_numpy().astype(np.float64, copy=False)
        return check_finite(numbers, (name,))
    if kind == nw.Duration:
        return to_days(_microseconds(series, "m8[us]"), DURATION)
    if kind == nw.Date or kind == nw.Datetime:
        return to_days(_microseconds(series, "M8[us]"), DATE)
    items = series.to_list()
    text = kind == nw.String or kind == nw.Categorical or kind == nw.Enum
    return as_text(items, name) if text else object_column_of(items, name)


def _microseconds(series: Any, unit: str) -> np.ndarray:
    """Return dates or durations `[rows]` of a data frame in a unit, UTC, with NaT; of any year."""
    native = series.to_native()
    if hasattr(native, "array") and not str(native.dtype).endswith("[pyarrow]"):  # pandas, of its own types
        return native.to_numpy(dtype=unit)
    if nw.get_native_namespace(series).__name__ == "polars":
        stamps = series.dt.timestamp("us") if unit[0] == "M" else series.dt.total_microseconds()
        result = stamps.fill_null(0).to_numpy()
    else:
        import pyarrow

        stamps = series.to_arrow()
        zone = getattr(stamps.type, "tz", None)
        dtype = pyarrow.timestamp("us", zone) if unit[0] == "M" else pyarrow.duration("us")
        result = stamps.cast(dtype, safe=False).cast(pyarrow.int64()).fill_null(0).to_numpy()
    return np.where(series.is_null().to_numpy(), np.array("NaT", dtype=unit), result.astype(unit))


def _array_column(values: np.ndarray, name: str) -> np.ndarray:
    """Return one column `[rows]` of an array of dates, durations or objects."""
    if values.dtype.kind == "O":
        return object_column_of(values.tolist(), name)
    is_date = values.dtype.kind == "M"
    return to_days(values.astype("M8[us]" if is_date else "m8[us]"), DATE if is_date else DURATION)


def object_column_of(items: list[Any], name: str) -> np.ndarray:
    """Return a column `[rows]` of Python objects, numbers or text.

    Raises:
        ValueError: an infinite number. The message names the column.
        TypeError: a cell that holds more than one value.
    """
    values = from_objects(items, name)
    if values.dtype.kind == "f":
        return check_finite(values, (name,))
    # infinity is refused beside words as it is alone
    check_finite(np.array([getattr(cell, "number", 0.0) for cell in values.tolist()]), (name,))
    return values
