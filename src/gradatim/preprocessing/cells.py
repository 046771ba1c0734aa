"""One cell of a table: what it is as a number, and what it is as text.

A column is numbers or text only once a map is fitted. Until then a cell holds both, so that its answer depends on
the map and on no other cell.

Source: Wickham 2014 (a column is a variable, a row is an observation).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from numbers import Number as AnyNumber
from typing import Any

import numpy as np

NUMBER, DATE, DURATION, TEXT = "number", "date", "duration", "text"

EXACT = 2**53
"""Whole numbers beyond this have no float64 of their own: they are text, the text of their digits."""

_DAY = 86_400_000_000  # microseconds
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_NO_REAL = (np.complexfloating, np.datetime64, np.timedelta64)  # no numbers, though float() takes them
_NESTED = (dict, list, tuple, set, frozenset, np.ndarray)


class Days(np.ndarray):
    """Days `[rows]`, float64, NaN for missing: a column of dates (since 1970) or of durations.

    What is computed from them is a plain array.
    """

    family = DATE

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        plain = np.asarray(array)
        return plain[()] if plain.ndim == 0 else plain


class Durations(Days):
    """Days `[rows]`, float64, NaN for missing: a column of durations."""

    family = DURATION


class Cell(str):
    """The text of a cell that stood as a number, a date or a duration, with its number.

    Example:
        >>> from gradatim.preprocessing.cells import to_cell
        >>> cell = to_cell(2.0, "number")
        >>> cell, cell.number
        ('2', 2.0)
    """

    number: float
    family: str

    def __new__(cls, text: str, number: float, family: str) -> Cell:
        cell = super().__new__(cls, text)
        cell.number, cell.family = number, family
        return cell

    def __getnewargs__(self) -> tuple[str, float, str]:  # type: ignore[override]
        return str(self), self.number, self.family


def family_of(values: np.ndarray) -> str:
    """Return what a column `[rows]` of numbers stands for: "number", "date" or "duration"."""
    return getattr(values, "family", NUMBER)


def to_days(microseconds: np.ndarray, family: str) -> Days:
    """Return whole microseconds `[rows]`, int64 or datetime64 or timedelta64 with NaT, as days.

    Example:
        >>> import numpy as np
        >>> from gradatim.preprocessing.cells import to_days
        >>> np.asarray(to_days(np.array(["9999-12-31", "NaT"], dtype="M8[us]"), "date"))
        array([2932896.,      nan])
    """
    days = microseconds.astype(np.int64) / _DAY
    if microseconds.dtype.kind in "mM":
        days[np.isnat(microseconds)] = np.nan
    return days.view(Days if family == DATE else Durations)


def to_cell(number: float, family: str) -> Cell | None:
    """Return a number of a family as a cell; NaN is None, a missing one.

    Example:
        >>> from gradatim.preprocessing.cells import to_cell
        >>> to_cell(18262.5, "date")
        '2020-01-01 12:00:00'
    """
    if number != number:
        return None
    if family == DATE:
        return Cell(_date_text(number), number, family)
    text = format_number(number)
    return Cell(text if family == NUMBER else f"{text} days", number, family)


def _date_text(days: float) -> str:
    """Return a date as text, to the millisecond: a float64 has no more digits for every year."""
    milliseconds = round(days * 86_400_000)
    stamp = np.datetime64(milliseconds, "ms")
    if milliseconds % 86_400_000 == 0:
        return str(stamp.astype("M8[D]"))
    text = str(stamp).replace("T", " ")
    return text.removesuffix(".000")


def format_number(number: float) -> str:
    """Return a finite number as text, the same for 1, 1.0 and True: an integer where it is one.

    Example:
        >>> from gradatim.preprocessing.cells import format_number
        >>> format_number(1.0), format_number(0.5)
        ('1', '0.5')
    """
    return str(int(number)) if number.is_integer() else repr(number)


def from_objects(items: list[Any], name: str) -> np.ndarray:
    """Return a column `[rows]` of Python objects.

    - All numbers: float64. All dates, or all durations: `Days`, `Durations`. NaN where one is missing.
    - Everything else: an object array of str, None for missing. What stood as a number or a date is a `Cell`.
    - Whole numbers beyond 2^53 are text.

    Raises:
        TypeError: cells that hold more than one value. The message names the column.
        ValueError: complex numbers.

    Example:
        >>> from gradatim.preprocessing.cells import from_objects
        >>> from_objects([1, None, True], "age"), from_objects([1, "one"], "age")
        (array([ 1., nan,  1.]), array(['1', 'one'], dtype=object))
    """
    types = set(map(type, items))
    if str in types and types <= {str, type(None)}:
        return object_column(items)
    items, kinds = _replace_missing(items, name)
    families = {_family(kind) for kind in kinds}
    if families <= {NUMBER}:
        numbers = np.array([np.nan if item is None else _to_float(item) for item in items], dtype=np.float64)
        if not (np.abs(numbers) >= EXACT).any() or not any(map(_is_beyond, items)):
            return numbers
    elif len(families) == 1 and TEXT not in families:
        (family,) = families
        days = np.array([np.nan if item is None else _days(item) for item in items], dtype=np.float64)
        return days.view(Days if family == DATE else Durations)
    return object_column([None if item is None else _to_text(item) for item in items])


def as_text(items: Sequence[Any], name: str) -> np.ndarray:
    """Return categories `[rows]`, of any type, as text, None for missing."""
    if set(map(type, items)) <= {str, type(None)}:
        return object_column(items)
    items, _ = _replace_missing(list(items), name)
    return object_column([None if item is None else str(_to_text(item)) for item in items])


def is_missing(item: Any) -> bool:
    """Return whether an item is missing: None, pandas's NA, or what differs from itself, as NaN and NaT do.

    Example:
        >>> from gradatim.preprocessing.cells import is_missing
        >>> is_missing(None), is_missing(float("nan")), is_missing("nan")
        (True, True, False)
    """
    if item is None or type(item).__name__ == "NAType":
        return True
    if isinstance(item, Decimal):  # a signalling NaN raises where it is compared
        return item.is_nan()
    return type(item) is not str and not isinstance(item, _NESTED) and bool(item != item)


def shown(item: Any) -> str:
    """Return a user's item as a message names it: in plain Python, short, and of any size.

    Example:
        >>> import numpy as np
        >>> from gradatim.preprocessing.cells import shown
        >>> shown(np.str_("a")), shown(10**5000), shown([1]), shown(np.float32(0.5))
        ("'a'", 'a number beyond 1e308', 'a value of type list', '0.5')
    """
    if is_missing(item):
        return "a missing one"
    if isinstance(item, str | bytes):  # not NumPy's, which are printed with their type
        return repr(str(item) if isinstance(item, str) else bytes(item))[:60]
    if isinstance(item, AnyNumber) and not isinstance(item, complex | np.complexfloating):
        number = _to_float(item)
        return f"{number:g}" if abs(number) < np.inf else "a number beyond 1e308"
    return f"a value of type {type(item).__name__}"


def to_floats(values: np.ndarray) -> np.ndarray:
    """Return a copy of a user's numbers `[n]`, or of one, as float64.

    Raises:
        ValueError, TypeError, OverflowError: there is something else among them; `first_odd` names it.

    Example:
        >>> import numpy as np
        >>> from gradatim.preprocessing.cells import to_floats
        >>> to_floats(np.array([1, "2"], dtype=object))
        array([1., 2.])
    """
    types = set(map(type, values.ravel().tolist())) if values.dtype.kind == "O" else {values.dtype.type}
    if any(issubclass(kind, _NO_REAL) for kind in types):
        raise TypeError("no numbers")
    with np.errstate(over="ignore"):  # what overflows is infinite, which the caller refuses
        return values.astype(np.float64)


def first_odd(items: Iterable[Any]) -> str:
    """Return the first of a user's items that is no number a float64 holds, as a message names it.

    Example:
        >>> from gradatim.preprocessing.cells import first_odd
        >>> first_odd([1, "2", "red"])
        "'red' (row 2)"
    """
    for row, item in enumerate(items):
        try:
            odd = isinstance(item, _NO_REAL) or not isinstance(float(item), float)
        except (TypeError, ValueError, OverflowError):
            odd = True
        if odd:
            return f"{shown(item)} (row {row})"
    return "lists of several lengths"


def to_texts(values: np.ndarray) -> np.ndarray:
    """Return a column `[rows]` of numbers as an object array of cells, None for missing."""
    family = family_of(values)
    return object_column([to_cell(number, family) for number in values.tolist()])


def object_column(items: Iterable[str | None]) -> np.ndarray:
    """Return a column of text `[rows]`, None where it is missing.

    Example:
        >>> from gradatim.preprocessing.cells import object_column
        >>> object_column(["red", None])
        array(['red', None], dtype=object)
    """
    items = list(items)
    column = np.empty(len(items), dtype=object)
    column[:] = items
    return column


def _replace_missing(items: list[Any], name: str) -> tuple[list[Any], set[type]]:
    """Return the items, with None for those that are missing, and the types of the others."""
    for kind in set(map(type, items)):
        if issubclass(kind, _NESTED):
            raise TypeError(
                f"argument must be a string or a number: column {name!r} holds a {kind.__name__}: give each of its "
                "parts a column"
            )
        if _has_no_text(kind):
            raise TypeError(
                f"argument must be a string or a number: column {name!r} holds a value of type {kind.__name__}, whose "
                "text is its place in memory: give what it stands for"
            )
        if issubclass(kind, complex | np.complexfloating):
            raise ValueError(
                f"Complex data not supported: column {name!r}: give real and imaginary part a column each"
            )
    items = [None if is_missing(item) else item for item in items]
    return items, set(map(type, items)) - {type(None)}


def _has_no_text(kind: type) -> bool:
    """Return whether objects of a type are printed by their place in memory: plain objects, functions, classes."""
    if any("__call__" in vars(base) for base in kind.__mro__):
        return True
    return kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__


def _family(kind: type) -> str:
    if issubclass(kind, date | np.datetime64):
        return DATE
    if issubclass(kind, timedelta | np.timedelta64):
        return DURATION
    return NUMBER if issubclass(kind, AnyNumber | np.bool_) else TEXT


def _to_float(item: Any) -> float:
    try:
        return float(item)
    except OverflowError:
        return np.inf


def _is_beyond(item: Any) -> bool:
    """Return whether an item is a whole number without a float64 of its own; a float is what it is."""
    if item is None or not EXACT <= abs(_to_float(item)) < np.inf:
        return False
    if isinstance(item, Decimal):
        return item == item.to_integral_value() and abs(int(item)) > EXACT
    return isinstance(item, int | np.integer) and abs(int(item)) > EXACT


def _days(item: Any) -> float:
    """Return a date in days since 1970, UTC, or a duration in days."""
    if hasattr(item, "to_datetime64"):  # pandas: of any unit, and in UTC
        item = item.to_datetime64()
    elif hasattr(item, "to_timedelta64"):
        item = item.to_timedelta64()
    if isinstance(item, np.datetime64 | np.timedelta64):
        unit = "M8[us]" if isinstance(item, np.datetime64) else "m8[us]"
        return int(item.astype(unit).astype(np.int64)) / _DAY
    if isinstance(item, timedelta):
        return (item // _MICROSECOND) / _DAY
    if not isinstance(item, datetime):
        item = datetime(item.year, item.month, item.day)
    aware = item if item.tzinfo else item.replace(tzinfo=UTC)
    return ((aware - _EPOCH) // _MICROSECOND) / _DAY


def _to_text(item: Any) -> str | None:
    """Return an item that is not missing as text, with its number where it has one."""
    if isinstance(item, str):
        return str(item)
    if isinstance(item, bytes):
        return item.decode(errors="replace")
    family = _family(type(item))
    if family in (DATE, DURATION):
        return to_cell(_days(item), family)
    if family == NUMBER:
        if _is_beyond(item):
            return str(int(item))
        number = _to_float(item)
        if np.isfinite(number):
            return to_cell(number, NUMBER)
        # Python refuses to print a whole number of more than 4,300 digits; Decimal does not
        return Cell(str(Decimal(item) if isinstance(item, int) else item), number, NUMBER)
    return str(item)
