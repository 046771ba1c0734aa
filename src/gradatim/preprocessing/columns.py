"""The columns of a table: numbers or text, with missing values marked.

Source: Wickham 2014 (a column is a variable, a row is an observation).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from zlib import crc32

import numpy as np

from .cells import NUMBER as PLAIN
from .cells import TEXT, Cell, Days, family_of, object_column, to_texts

NUMBER, CATEGORY = "number", "category"

_MAX_NAMES = 10

_NOTED_ROWS, _NOTED_SHARE = 16, 0.1
"""At least so many rows, of which at most this share is words, are read as words with a note."""


@dataclass(frozen=True, eq=False)
class Columns:
    """Named columns of equal length: float64 with NaN for missing, or object arrays of str with None for missing.

    A column of dates or durations is `Days`. What stood as a number or a date among text is a `Cell`, a str with its
    number: a map of numbers and a map of text both read it, whatever the other rows hold.

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

        The first table decides the order of the columns. `owner` is the name of the table in error messages. A column
        of numbers here and of text there is text whose numbers can still be read.

        Raises:
            ValueError: there is no table; or as `reorder`.

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
        return cls(first.names, tuple(map(_concat_column, chunks_by_column)), first.named)

    @property
    def n_rows(self) -> int:
        """Return the number of rows."""
        return len(self.values[0]) if self.values else 0

    @property
    def kinds(self) -> tuple[str, ...]:
        """Return the kind of each column: "number" or "category"."""
        return tuple(map(column_kind, self.values)) if self.matrix is None else (NUMBER,) * len(self.names)

    def digests(self) -> np.ndarray:
        """Return a float32 number for each cell, `[rows, columns]`: a number itself, of a word its checksum.

        Example:
            >>> import numpy as np
            >>> from gradatim.preprocessing import Columns
            >>> digests = Columns(("a", "b"), (np.array([1.5]), np.array(["red"], dtype=object))).digests()
            >>> digests.shape, float(digests[0, 0])
            ((1, 2), 1.5)
        """
        parts = []
        for values in self.values:
            if column_kind(values) == CATEGORY:
                words = [
                    -1 if cell is None else crc32(cell.encode(errors="replace")) for cell in values.tolist()
                ]
                values = np.array(words)
            with np.errstate(over="ignore"):
                parts.append(np.asarray(values).astype(np.float32))
        return np.nan_to_num(np.stack(parts, axis=1), nan=-np.pi)

    def decided(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yield the kind of each column and its plain values `[rows]`, decided by all of these rows together.

        - Numbers alone, dates alone or durations alone are numbers. So is a column with nothing in it.
        - Everything else is text. A column that is mostly numbers is warned of.

        Example:
            >>> from gradatim.preprocessing import Columns, read_columns
            >>> both = Columns.concat([read_columns([[1]]), read_columns([["one"]])])
            >>> [kind for kind, _ in both.decided()], [kind for kind, _ in both.take(slice(1)).decided()]
            (['category'], ['number'])
        """
        for name, values in zip(self.names, self.values, strict=True):
            if column_kind(values) == NUMBER:
                yield NUMBER, np.asarray(values)
                continue
            cells = [cell for cell in values.tolist() if cell is not None]
            families = (
                {getattr(cell, "family", TEXT) for cell in cells} if Cell in map(type, cells) else {TEXT}
            )
            if not cells or (len(families) == 1 and TEXT not in families):
                yield NUMBER, _parse(values.tolist())[0]
                continue
            if len(families) > 1:
                _note_words(cells, name)
                values = object_column(None if cell is None else str(cell) for cell in values.tolist())
            yield CATEGORY, values

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
        expected = set(names)
        for name in self.names:
            if name not in expected:
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


def convert_column(
    values: np.ndarray,
    kind: str,
    levels: Iterable[str],
    name: str,
    empty: bool = False,
    truncated: bool = False,
) -> np.ndarray:
    """Return a column `[rows]` as another kind, each cell by itself.

    - Text becomes numbers where it reads as one. A word is missing, with a warning.
    - Numbers become text: their digits, with a warning where no level reads as a number. Dates become their ISO text.
    - A column of missing values only can become either kind.

    `levels`: the known levels of a map of text. `empty`: the map has never seen a value; what is no number is missing
    without a warning. `truncated`: the map of text has more levels than it lists.

    Raises:
        ValueError: a number is infinite. The message names the column.

    Example:
        >>> import numpy as np
        >>> from gradatim.preprocessing.columns import convert_column
        >>> convert_column(np.array(["1", None], dtype=object), "number", (), "age")
        array([ 1., nan])
    """
    if column_kind(values) == kind:
        return values
    if kind == NUMBER:
        parsed, odd = _parse(values.tolist())
        if odd and not empty:
            _report(
                f"column {name!r} holds numbers (or dates); {len(odd)} of {len(values)} cells do not and count as "
                f"missing, the first in row {odd[0]}, {values[odd[0]]!r:.80}: correct it or leave it empty"
            )
        return check_finite(parsed, (name,))
    if family_of(values) == PLAIN and not truncated:
        numbers = np.flatnonzero(~np.isnan(values))
        if len(numbers) and not any(map(is_number, levels)):
            _report(
                f"column {name!r} holds words; {len(numbers)} of {len(values)} cells are numbers and count as words, "
                f"the first in row {numbers[0]}, {values[numbers[0]]:g}: give the words that were learnt"
            )
    return to_texts(values)


def _parse(cells: list[str | None]) -> tuple[np.ndarray, list[int]]:
    """Return cells as numbers `[rows]`, and the positions of those that are words."""
    if _is_plain("".join(cell for cell in cells if cell is not None)):
        with suppress(ValueError):
            return np.array([np.nan if cell is None else float(cell) for cell in cells], dtype=np.float64), []
    numbers, odd = np.full(len(cells), np.nan), []
    for row, cell in enumerate(cells):
        if isinstance(cell, Cell):
            numbers[row] = cell.number
        elif cell is not None and is_number(cell):
            numbers[row] = float(cell)
        elif cell is not None:
            odd.append(row)
    return numbers, odd


def _report(text: str) -> None:
    warnings.warn(text, UserWarning, stacklevel=5)


def _note_words(cells: list[str], name: str) -> None:
    """Warn of a column that is read as words because of a few of its cells."""
    words = [cell for cell in cells if not isinstance(cell, Cell)]
    if words and len(cells) >= _NOTED_ROWS and len(words) <= _NOTED_SHARE * len(cells):
        warnings.warn(
            f"column {name!r} is read as words because {len(words)} of its {len(cells)} cells are, such as "
            f"{words[0]!r:.80}: leave those empty (None) to read it as numbers",
            UserWarning,
            stacklevel=4,
        )


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


def quote_names(names: Sequence[str]) -> str:
    """Return column names for a message: the first ten, and how many there are in all.

    Example:
        >>> from gradatim.preprocessing.columns import quote_names
        >>> quote_names(["age", "size"])
        "the columns 'age', 'size'"
    """
    more = f", ... ({len(names)} in all)" if len(names) > _MAX_NAMES else ""
    return "the columns " + ", ".join(map(repr, names[:_MAX_NAMES])) + more


def is_number(text: str) -> bool:
    """Return whether a text reads as a number, as in a file: `1_0` and digits of other scripts are words.

    Example:
        >>> from gradatim.preprocessing.columns import is_number
        >>> [is_number(text) for text in ("-1.5e3", "1_0", "1 2")]
        [True, False, False]
    """
    try:
        float(text)
    except ValueError:
        return False
    return _is_plain(text)


def _is_plain(text: str) -> bool:
    return text.isascii() and "_" not in text


def _concat_column(chunks: Sequence[np.ndarray]) -> np.ndarray:
    """Return one column `[rows]` of several tables; of several kinds it is text that still has its numbers."""
    filled = [chunk for chunk in chunks if not _is_empty(chunk)] or chunks[:1]
    kinds = {(column_kind(chunk), family_of(chunk)) for chunk in filled}
    if len(kinds) == 1 and column_kind(filled[0]) == NUMBER:
        parts = [
            np.asarray(chunk) if column_kind(chunk) == NUMBER else np.full(len(chunk), np.nan)
            for chunk in chunks
        ]
        joined = np.concatenate(parts)
        return joined.view(type(filled[0])) if isinstance(filled[0], Days) else joined
    return np.concatenate([chunk if column_kind(chunk) == CATEGORY else to_texts(chunk) for chunk in chunks])


def _is_empty(chunk: np.ndarray) -> bool:
    """Return whether a column `[rows]` has nothing in it."""
    if column_kind(chunk) == NUMBER:
        return bool(np.isnan(chunk).all())
    return all(cell is None for cell in chunk.tolist())
