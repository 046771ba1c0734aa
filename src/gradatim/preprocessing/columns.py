"""The columns of a table: numbers or text, with missing values marked.

Source: Wickham 2014 (a column is a variable, a row is an observation).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

NUMBER, CATEGORY = "number", "category"

_MAX_NAMES = 10


@dataclass(frozen=True, eq=False)
class Columns:
    """Named columns of equal length: float64 with NaN for missing, or object arrays of str with None for missing.

    Fields:
        `names`: the names of the columns.
        `values`: one array `[rows]` per column.
        `named`: whether the table had names. Without names they count the columns (x0, x1, ...), which are matched by
            position.
        `matrix`: if all columns are numbers, the array `[rows, columns]` whose columns `values` are.

    The arrays may be views of the table that was read.

    Example:
        >>> import numpy as np
        >>> from gradatim.preprocessing import Columns
        >>> colour = np.array(["red", None], dtype=object)
        >>> columns = Columns(("size", "colour"), (np.array([1.5, np.nan]), colour))
        >>> columns.kinds, columns.n_rows
        (('number', 'category'), 2)
    """

    names: tuple[str, ...]
    values: tuple[np.ndarray, ...]
    named: bool = True
    matrix: np.ndarray | None = field(default=None, repr=False)

    @classmethod
    def from_matrix(cls, names: tuple[str, ...], matrix: np.ndarray, named: bool = True) -> Columns:
        """Return the columns of a float64 matrix `[rows, columns]`, as views.

        Example:
            >>> import numpy as np
            >>> from gradatim.preprocessing import Columns
            >>> Columns.from_matrix(("a", "b"), np.array([[1.0, 2.0], [3.0, 4.0]])).values[1]
            array([2., 4.])
        """
        return cls(names, tuple(matrix.T), named, matrix)

    @classmethod
    def concat(cls, parts: Sequence[Columns], owner: str = "the table") -> Columns:
        """Return the rows of several tables, one below the other, as a copy.

        The first table decides the order of the columns. `owner` is the name of the table in error messages.

        Raises:
            ValueError: there is no table; or as `reorder` and `convert_column`.

        Example:
            >>> import numpy as np
            >>> from gradatim.preprocessing import Columns
            >>> top, bottom = (Columns(("a",), (np.array([value]),)) for value in (1.0, 2.0))
            >>> Columns.concat([top, bottom]).values
            (array([1., 2.]),)
        """
        if not parts:
            raise ValueError("at least one table is needed to concatenate; got none")
        first = parts[0]
        parts = [part.reorder(first.names, first.named, owner) for part in parts]
        matrices = [part.matrix for part in parts if part.matrix is not None]
        if len(matrices) == len(parts):
            return cls.from_matrix(first.names, np.concatenate(matrices), first.named)
        chunks_by_column = zip(*(part.values for part in parts), strict=True)
        columns = (
            _concat_column(chunks, name, owner)
            for name, chunks in zip(first.names, chunks_by_column, strict=True)
        )
        return cls(first.names, tuple(columns), first.named)

    @property
    def n_rows(self) -> int:
        """Return the number of rows."""
        return len(self.values[0]) if self.values else 0

    @property
    def kinds(self) -> tuple[str, ...]:
        """Return the kind of each column: "number" or "category"."""
        return tuple(map(column_kind, self.values)) if self.matrix is None else (NUMBER,) * len(self.names)

    def take(self, index: slice | np.ndarray) -> Columns:
        """Return a subset of the rows: views for a slice, copies for an array of positions or of booleans `[rows]`.

        Example:
            >>> import numpy as np
            >>> from gradatim.preprocessing import Columns
            >>> Columns(("a",), (np.arange(4.0),)).take(np.array([0, 3])).values
            (array([0., 3.]),)
        """
        if self.matrix is not None:
            return Columns.from_matrix(self.names, self.matrix[index], self.named)
        return Columns(self.names, tuple(column[index] for column in self.values), self.named)

    def reorder(self, names: tuple[str, ...], named: bool, owner: str) -> Columns:
        """Return the columns in the order of `names`.

        Columns are matched by name if both tables have names, else by position. `named`: whether `names` came with
        a table.
        `owner`: the name of the model that expects these columns, for error messages.

        Raises:
            ValueError: a column is missing or unknown, or the number of columns differs.

        Example:
            >>> import numpy as np
            >>> from gradatim.preprocessing import Columns
            >>> columns = Columns(("a", "b"), (np.array([1.0]), np.array([2.0])))
            >>> columns.reorder(("b", "a"), named=True, owner="model").values
            (array([2.]), array([1.]))
        """
        if self.names == names:
            return self
        if not (named and self.named):
            if len(self.names) == len(names):
                return Columns(names, self.values, self.named, self.matrix)
            counts = (
                f"X has {len(self.names)} features, but {owner} is expecting {len(names)} features as input"
            )
            raise ValueError(f"{counts}: {quote_names(names)}")
        position_of = {name: position for position, name in enumerate(self.names)}
        for name in names:
            if name not in position_of:
                raise ValueError(
                    f"column {name!r} is missing: {owner} expects {quote_names(names)}; got {quote_names(self.names)}"
                )
        for name in self.names:
            if name not in names:
                raise ValueError(f"column {name!r} is unknown: {owner} expects only {quote_names(names)}")
        order = [position_of[name] for name in names]
        matrix = None if self.matrix is None else self.matrix[:, order]
        return Columns(names, tuple(self.values[j] for j in order), self.named, matrix)


def column_kind(values: np.ndarray) -> str:
    """Return the kind of a column `[rows]`: "number" or "category".

    Example:
        >>> import numpy as np
        >>> from gradatim.preprocessing.columns import column_kind
        >>> column_kind(np.array([1.5, np.nan])), column_kind(np.array(["red"], dtype=object))
        ('number', 'category')
    """
    return NUMBER if values.dtype.kind == "f" else CATEGORY


def convert_column(values: np.ndarray, kind: str, levels: Iterable[str], name: str, owner: str) -> np.ndarray:
    """Return a column `[rows]` as the kind that `owner` expects.

    - Text becomes numbers if all of it reads as numbers.
    - Numbers become text if some of the known `levels` read as numbers: then the column mixes types.
    - A column of missing values only can become either kind.

    Raises:
        ValueError: the type of the column has changed, or a number is infinite. The message names the column.

    Example:
        >>> import numpy as np
        >>> from gradatim.preprocessing.columns import convert_column
        >>> convert_column(np.array(["1", None], dtype=object), "number", (), "age", "model")
        array([ 1., nan])
    """
    if column_kind(values) == kind:
        return values
    if kind == NUMBER:
        try:
            parsed = np.array([np.nan if text is None else float(text) for text in values.tolist()])
        except ValueError:
            text = next(text for text in values.tolist() if text is not None and not _is_number(text))
            raise ValueError(
                f"column {name!r} changed its type: {owner} learned it as numbers (or dates); got the text {text!r}"
            ) from None
        return check_finite(parsed, (name,))
    missing = np.isnan(values)
    if not missing.all() and not any(map(_is_number, levels)):
        raise ValueError(
            f"column {name!r} changed its type: {owner} learned it as categories (text); got the number "
            f"{values[~missing][0]:g}: convert it to text first"
        )
    texts = [
        None if is_missing else format_number(x)
        for x, is_missing in zip(values.tolist(), missing, strict=True)
    ]
    return object_column(texts)


def format_number(number: float) -> str:
    """Return a finite number as text, the same for 1, 1.0 and True: an integer where it is one.

    Example:
        >>> from gradatim.preprocessing.columns import format_number
        >>> format_number(1.0), format_number(0.5)
        ('1', '0.5')
    """
    return str(int(number)) if number.is_integer() else repr(number)


def check_finite(numbers: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Return a column `[rows]` or a matrix `[rows, columns]` of numbers unchanged; NaN is allowed.

    Raises:
        ValueError: a number is infinite. The message names the column.

    Example:
        >>> import numpy as np
        >>> from gradatim.preprocessing.columns import check_finite
        >>> check_finite(np.array([1.0, np.inf]), ["age"])
        Traceback (most recent call last):
        ValueError: column 'age' contains infinity...
    """
    infinite = np.isinf(numbers)
    if infinite.any():
        name = names[int(infinite.reshape(len(numbers), -1).any(0).argmax())]
        raise ValueError(
            f"column {name!r} contains infinity or a value too large for float64: remove the row, cap the value, or "
            "mark it as missing (NaN)"
        )
    return numbers


def object_column(items: list[str | None]) -> np.ndarray:
    """Return a column of text `[rows]`, None where it is missing.

    Example:
        >>> from gradatim.preprocessing.columns import object_column
        >>> object_column(["red", None])
        array(['red', None], dtype=object)
    """
    column = np.empty(len(items), dtype=object)
    column[:] = items
    return column


def quote_names(names: Sequence[str]) -> str:
    """Return column names for a message: the first ten, and how many there are in all.

    Example:
        >>> from gradatim.preprocessing.columns import quote_names
        >>> quote_names(["age", "size"])
        "the columns 'age', 'size'"
    """
    more = f", ... ({len(names)} in all)" if len(names) > _MAX_NAMES else ""
    return "the columns " + ", ".join(map(repr, names[:_MAX_NAMES])) + more


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _concat_column(chunks: Sequence[np.ndarray], name: str, owner: str) -> np.ndarray:
    """Return one column `[rows]` of several tables; it is text if it is text in any of them."""
    texts = [text for chunk in chunks if column_kind(chunk) == CATEGORY for text in chunk.tolist()]
    kind = NUMBER if all(column_kind(chunk) == NUMBER for chunk in chunks) else CATEGORY
    levels = {text for text in texts if text is not None}
    if kind == CATEGORY and not levels:
        has_numbers = any(column_kind(chunk) == NUMBER and not np.isnan(chunk).all() for chunk in chunks)
        kind = NUMBER if has_numbers else CATEGORY
    return np.concatenate([convert_column(chunk, kind, levels, name, owner) for chunk in chunks])
