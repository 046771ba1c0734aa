"""Class labels: sorted, of one type, growing as new ones come.

Source: Pedregosa et al. 2011 (`classes_` of the estimator's interface).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np

from .cells import EXACT, first_odd, is_missing, to_floats

LARGEST = 1e100
"""Larger numbers of a regression have squares that overflow."""

MOST_DIGITS = 4000
"""Python writes and reads whole numbers up to a little more."""

Ravel = Callable[[Any], np.ndarray]

_WORDS, _TRUTHS, _NUMBERS = "words", "truth values", "numbers"


def as_column(y: Any) -> np.ndarray:
    """Return y as an array `[n]`.

    Raises:
        ValueError: it is no column.

    Example:
        >>> from gradatim.preprocessing.labels import as_column
        >>> as_column([[1], [2]])
        array([1, 2])
    """
    y = np.asarray(y)
    if y.ndim == 2 and y.shape[1] == 1:
        return y[:, 0]
    if y.ndim != 1:
        raise ValueError(f"y should be a 1d array, one label or value for each row; got shape {y.shape}")
    return y


def read_labels(y: Any, ravel: Ravel = as_column) -> np.ndarray:
    """Return labels `[n]` of any container as a plain array: words (object), bool, or numbers.

    `ravel`: what turns lists of lists and arrays into a column.

    Whole numbers beyond 2^53 stay exact. Truth values of any type are bool. Truth values beside 0 and 1 are bool too.

    Raises:
        ValueError: missing labels, labels of several types, numbers that are no classes, or a y that is no column.

    Example:
        >>> from gradatim.preprocessing.labels import read_labels
        >>> read_labels([True, False, 1]), read_labels(["a", "b"]).tolist()
        (array([ True, False,  True]), ['a', 'b'])
    """
    if isinstance(y, list) and len(y) == 1 and type(y[0]) in (bool, int) and abs(y[0]) <= EXACT:
        return np.array(y)  # one row at a time is read often
    y = flatten(y, ravel)
    if y.dtype.kind in "iub":
        return y
    refuse_missing(y, "labels")
    if y.dtype.kind == "O":
        y = _plain(y)
    if y.dtype.kind == "f":
        if np.isinf(y).any():
            raise ValueError(
                f"Input y contains infinity (row {int(np.isinf(y).argmax())}): labels must be finite, leave those out"
            )
        fractions = y != np.floor(y)
        if fractions.any():
            raise ValueError(
                f"Unknown label type: continuous. Labels are words, truth values or whole numbers; got "
                f"{y[fractions][0]:g}: use a regressor, or make words of them"
            )
        y = y if y.itemsize <= 8 else y.astype(np.float64)
    elif y.dtype.kind not in "iubOUS":
        raise ValueError(
            f"Unknown label type: labels are words, truth values or whole numbers; got {y.dtype}: make words of them"
        )
    return y


def read_targets(y: Any, ravel: Ravel = as_column) -> np.ndarray:
    """Return the numbers of a regression `[n]`, of any container, as float64; `ravel` as in `read_labels`.

    Raises:
        ValueError: missing values, infinity, numbers beyond `LARGEST`, words, or a y that is no column.

    Example:
        >>> from gradatim.preprocessing.labels import read_targets
        >>> read_targets([1, 2.5, True])
        array([1. , 2.5, 1. ])
    """
    y = flatten(y, ravel)
    if y.dtype.kind not in "iub":
        refuse_missing(y, "values")
    if y.dtype.kind in "cmM":
        raise ValueError(
            f"Complex data not supported: y must be numbers; got {y.dtype}: convert it to numbers"
        )
    try:
        numbers = to_floats(y)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            f"y must be numbers; got {first_odd(y.tolist())}: use a classifier, or convert it"
        ) from None
    size = np.abs(numbers)
    if np.isinf(size).any():
        raise ValueError(
            f"Input y contains infinity (row {int(size.argmax())}): leave that row out, or cap it"
        )
    if size.max(initial=0) > LARGEST:
        raise ValueError(
            f"y must be below {LARGEST:g} in size; got {size.max():g} (row {int(size.argmax())}): use another unit"
        )
    return numbers


def flatten(y: Any, ravel: Ravel = as_column) -> np.ndarray:
    """Return one column `[n]` of any container (lists, arrays, pandas, polars or Arrow) as an array.

    `ravel`: as in `read_labels`.

    Raises:
        ValueError: it has more than one column, or none.
    """
    if isinstance(y, list | tuple):
        nested = any(isinstance(item, list | tuple | np.ndarray) for item in y)
        return _raveled(y, ravel) if nested else _objects(y)
    if isinstance(y, nw.Series) or nw.dependencies.is_into_series(y):
        y = nw.from_native(y, series_only=True, pass_through=True)
        numpy_type = isinstance(getattr(y.to_native(), "dtype", None), np.dtype)
        if not numpy_type or y.dtype == nw.Object:
            return _objects(y.to_list())
        return y.to_numpy()
    if type(y).__module__.split(".")[0] == "pyarrow" and hasattr(y, "to_pylist"):
        return ravel(y) if hasattr(y, "column_names") else _objects(y.to_pylist())
    if isinstance(y, np.ma.MaskedArray):
        cells = np.ma.getdata(y).astype(object)
        cells[np.ma.getmaskarray(y)] = None
        y = cells
    return _raveled(y, ravel)


def _raveled(y: Any, ravel: Ravel) -> np.ndarray:
    try:
        return np.asarray(ravel(y))
    except UnicodeDecodeError:  # bytes beside text
        return np.asarray(ravel(np.asarray(y, dtype=object)))


def refuse_missing(y: np.ndarray, what: str) -> None:
    """Raise ValueError where a label or value of y `[n]` is missing: None, NaN, NaT or NA.

    Raises:
        ValueError: the message names the first row.

    Example:
        >>> import numpy as np
        >>> from gradatim.preprocessing.labels import refuse_missing
        >>> refuse_missing(np.array([1.0, np.nan]), "values")
        Traceback (most recent call last):
        ValueError: y has missing values (row 1): leave those rows out
    """
    if y.dtype.kind == "O":
        missing = np.fromiter(map(is_missing, y.tolist()), bool, len(y))
    else:
        missing = y != y
    if missing.any():
        count = int(missing.sum())
        more = f", {count} in all" if count > 1 else ""
        raise ValueError(f"y has missing {what} (row {int(missing.argmax())}){more}: leave those rows out")


def union(labels: np.ndarray, more: np.ndarray) -> np.ndarray:
    """Return all labels of two arrays `[C]` (sorted) and `[n]`, sorted; the first array itself if nothing is new.

    Truth values and the numbers 0 and 1 are the same labels, as the first of them were.

    Raises:
        ValueError: words meet numbers or truth values.

    Example:
        >>> import numpy as np
        >>> from gradatim.preprocessing.labels import union
        >>> union(np.array(["a", "c"]), np.array(["b", "a"])).tolist()
        ['a', 'b', 'c']
    """
    first, second = _together(labels, more)
    place = np.searchsorted(first, second).clip(max=len(first) - 1)
    return labels if (first[place] == second).all() else np.unique(np.concatenate([first, second]))


def positions(labels: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the position `[n]` of each label of y in sorted labels `[C]`, all of which are there.

    Example:
        >>> import numpy as np
        >>> from gradatim.preprocessing.labels import positions
        >>> positions(np.array([2**63 - 1, 2**63], dtype=np.uint64), np.array([2**63 - 1]))
        array([0])
    """
    return np.searchsorted(*_together(labels, y))


def _together(labels: np.ndarray, more: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return two arrays of labels `[C]` and `[n]` in one dtype that keeps every one of them exact."""
    if labels.dtype == more.dtype and labels.dtype.kind in "iub":
        return labels, more
    types = [_type(part) for part in (labels, more)]
    if _WORDS not in types and _TRUTHS in types and types[0] != types[1]:
        numbers = more if types[0] == _TRUTHS else labels
        if types[0] == _NUMBERS:
            return labels, more.astype(labels.dtype)
        if set(np.unique(numbers).tolist()) <= {0, 1}:
            return labels, more.astype(bool)
    if types[0] != types[1]:
        raise ValueError(
            f"labels change type: classes so far are {types[0]}, {labels[:4].tolist()}, these are {types[1]}, "
            f"{np.unique(more)[:4].tolist()}: use one type"
        )
    if types[0] != _NUMBERS or labels.dtype == more.dtype:
        return labels, more
    return _one_dtype(labels, more)


def _one_dtype(labels: np.ndarray, more: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return two arrays of numbers in one dtype: that of NumPy, or of whole numbers where float64 would merge them."""
    dtype = np.result_type(labels, more)
    floating = "f" in (labels.dtype.kind, more.dtype.kind) and all(map(_is_exact, (labels, more)))
    if floating or dtype.kind in "iu":
        return labels.astype(dtype), more.astype(dtype)
    integers = [int(label) for part in (labels, more) for label in np.unique(part).tolist()]
    fits = [kind for kind in (np.int64, np.uint64) if _fits(integers, kind)]
    kind: Any = fits[0] if fits else object
    return tuple(_whole(part, kind) for part in (labels, more))  # type: ignore[return-value]


def _whole(numbers: np.ndarray, kind: Any) -> np.ndarray:
    cells = np.array([int(number) for number in numbers.tolist()], dtype=object)
    return cells.astype(kind)


def _fits(numbers: list[int], kind: Any) -> bool:
    bounds = np.iinfo(kind)
    return min(numbers) >= bounds.min and max(numbers) <= bounds.max


def _is_exact(numbers: np.ndarray) -> bool:
    """Return whether float64 holds all of these numbers `[n]`."""
    if numbers.dtype.kind == "O":
        return all(abs(number) <= EXACT for number in numbers.tolist())
    return numbers.dtype.kind == "f" or bool(((numbers <= EXACT) & (numbers >= -EXACT)).all())


def _type(labels: np.ndarray) -> str:
    kind = labels.dtype.kind
    if kind == "O":
        return _NUMBERS if len(labels) and isinstance(labels[0], int) else _WORDS
    return _WORDS if kind in "US" else _TRUTHS if kind == "b" else _NUMBERS


def _objects(items: Any) -> np.ndarray:
    column = np.empty(len(items), dtype=object)
    column[:] = items
    return column


def _plain(y: np.ndarray) -> np.ndarray:
    """Return labels `[n]`, an array of objects, as words (object), bool or numbers.

    Raises:
        ValueError: they are of several types, or of none that is a label.
    """
    items = y.tolist()
    types = {type(item) for item in items}
    if all(issubclass(kind, str) for kind in types):
        return y
    if all(issubclass(kind, bool | np.bool_) for kind in types):
        return y.astype(bool)
    numbers = (bool, np.bool_, int, float, np.integer, np.floating)
    # NumPy counts durations among whole numbers
    if all(issubclass(kind, numbers) and not issubclass(kind, np.timedelta64) for kind in types):
        return _plain_numbers(items, types)
    if len(types) > 1:
        raise ValueError(
            f"labels must be of one type; got {', '.join(sorted(kind.__name__ for kind in types))}: make words of "
            "all of them"
        )
    raise ValueError(
        f"Unknown label type: labels are words, truth values or whole numbers; got {next(iter(types)).__name__}"
    )


def _plain_numbers(items: list[Any], types: set[type]) -> np.ndarray:
    if any(issubclass(kind, bool | np.bool_) for kind in types) and set(items) <= {0, 1}:
        return np.array(items).astype(bool)
    if any(issubclass(kind, float | np.floating) for kind in types):
        return _floats(items)
    integers = [int(item) for item in items]
    if any(abs(integer) >= 10**MOST_DIGITS for integer in integers):
        raise ValueError(
            f"labels that are numbers have at most {MOST_DIGITS:,} digits: make words of them, such as their hashes"
        )
    kind: Any = next((kind for kind in (np.int64, np.uint64) if _fits(integers, kind)), object)
    return np.array(integers, dtype=kind)


def _floats(items: list[Any]) -> np.ndarray:
    """Return numbers `[n]` as float64; whole numbers that it does not hold are infinite, and so refused."""
    try:
        return to_floats(_objects(items))
    except OverflowError:
        with np.errstate(over="ignore"):  # to a half float 2^1023 is infinite
            return np.array([float(item) if abs(item) < 2**1023 else np.inf for item in items])


def align(probabilities: np.ndarray, labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return probabilities `[n, L]` of labels `[L]` as columns of all classes `[C]`, 0 where one is no label: `[n, C]`.

    Example:
        >>> import numpy as np
        >>> from gradatim.preprocessing.labels import align
        >>> align(np.array([[0.25, 0.75]]), np.array([1, 3]), np.array([1, 2, 3]))
        array([[0.25, 0.  , 0.75]])
    """
    wide = np.zeros((len(probabilities), len(classes)))
    wide[:, positions(classes, labels)] = probabilities
    return wide


def to_json(labels: np.ndarray | None) -> dict[str, Any] | None:
    """Return labels `[C]` as plain JSON, with their type."""
    if labels is None:
        return None
    plain = (
        labels.tolist()
        if labels.dtype.kind != "S"
        else [label.decode("latin-1") for label in labels.tolist()]
    )
    return {"labels": plain, "dtype": "object" if labels.dtype == object else labels.dtype.str}


def from_json(value: dict[str, Any] | None) -> np.ndarray | None:
    """Return the labels `[C]` that `to_json` wrote."""
    if value is None:
        return None
    dtype = np.dtype(value["dtype"])
    labels = value["labels"] if dtype.kind != "S" else [label.encode("latin-1") for label in value["labels"]]
    return np.array(labels, dtype=dtype)
