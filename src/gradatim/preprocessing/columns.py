"""A table by column: numbers, or text, with what is missing marked.

Source: Wickham 2014 (a column is a variable, a row an observation).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

NUMBER, CATEGORY = "number", "category"

_SHOWN = 10


@dataclass(frozen=True, eq=False)
class Columns:
    """Named columns of equal length: float64 with NaN for missing, or object arrays of str with None for missing.

    `named`: the names came with the table; else they only count the columns (x0, x1, ...), which are told apart by
    position. `block`: where all columns are numbers, the matrix `[rows, columns]` whose columns `values` are. The
    arrays may be views of the table that was read.

    Example:
        >>> Columns(("size", "colour"), (np.array([1.5, np.nan]), np.array(["red", None], dtype=object))).kinds
        ('number', 'category')
    """

    names: tuple[str, ...]
    values: tuple[np.ndarray, ...]
    named: bool = True
    block: np.ndarray | None = field(default=None, repr=False)

    @classmethod
    def of_block(cls, names: tuple[str, ...], block: np.ndarray, named: bool = True) -> Columns:
        """Return the columns of a float64 matrix `[rows, columns]`, as views."""
        return cls(names, tuple(block.T), named, block)

    @classmethod
    def joined(cls, parts: Sequence[Columns], owner: str = "the table") -> Columns:
        """Return the rows of several tables, one below the other, copied; the first says the order of the columns.

        Raises:
            ValueError: no parts; or as `arranged` and `as_kind`, under the name `owner`.
        """
        if not parts:
            raise ValueError("tables to join: at least one; got none")
        first = parts[0]
        parts = [part.arranged(first.names, first.named, owner) for part in parts]
        blocks = [part.block for part in parts if part.block is not None]
        if len(blocks) == len(parts):
            return cls.of_block(first.names, np.concatenate(blocks), first.named)
        values = zip(*(part.values for part in parts), strict=True)
        stacked = (_stacked(pieces, name, owner) for name, pieces in zip(first.names, values, strict=True))
        return cls(first.names, tuple(stacked), first.named)

    @property
    def rows(self) -> int:
        """Return the number of rows."""
        return len(self.values[0]) if self.values else 0

    @property
    def kinds(self) -> tuple[str, ...]:
        """Return what each column holds: "number" or "category"."""
        return tuple(map(kind_of, self.values)) if self.block is None else (NUMBER,) * len(self.names)

    def take(self, index: slice | np.ndarray) -> Columns:
        """Return some rows: views for a slice, copies for an array of positions or of booleans."""
        if self.block is not None:
            return Columns.of_block(self.names, self.block[index], self.named)
        return Columns(self.names, tuple(column[index] for column in self.values), self.named)

    def arranged(self, names: tuple[str, ...], named: bool, owner: str) -> Columns:
        """Return the columns under `names` and in their order: by name where both tables have names, else by position.

        Raises:
            ValueError: a column missing or unknown, or another number of columns than `owner` is expecting.
        """
        if self.names == names:
            return self
        if not (named and self.named):
            if len(self.names) == len(names):
                return Columns(names, self.values, self.named, self.block)
            counts = (
                f"X has {len(self.names)} features, but {owner} is expecting {len(names)} features as input"
            )
            raise ValueError(f"{counts}: {listed(names)}")
        place = {name: position for position, name in enumerate(self.names)}
        for name in names:
            if name not in place:
                raise ValueError(
                    f"column {name!r} is missing: {owner} wants {listed(names)}; got {listed(self.names)}"
                )
        for name in self.names:
            if name not in names:
                raise ValueError(f"column {name!r} is unknown: {owner} wants {listed(names)} and no other")
        order = [place[name] for name in names]
        block = None if self.block is None else self.block[:, order]
        return Columns(names, tuple(self.values[j] for j in order), self.named, block)


def kind_of(values: np.ndarray) -> str:
    """Return what a column holds: "number" or "category"."""
    return NUMBER if values.dtype.kind == "f" else CATEGORY


def as_kind(values: np.ndarray, kind: str, levels: Iterable[str], name: str, owner: str) -> np.ndarray:
    """Return a column as the kind that `owner` knows it as.

    Text becomes numbers where all of it reads as numbers. Numbers become text where some of the known `levels` read as
    numbers (a column of mixed types). A column with nothing in it is of any kind.

    Raises:
        ValueError: a column whose type changed, or infinite numbers; it is named.
    """
    if kind_of(values) == kind:
        return values
    if kind == NUMBER:
        try:
            parsed = np.array([np.nan if text is None else float(text) for text in values.tolist()])
        except ValueError:
            text = next(text for text in values.tolist() if text is not None and not _is_number(text))
            raise ValueError(
                f"column {name!r} changed its type: {owner} knows it as numbers (or dates); got the text {text!r}"
            ) from None
        return finite(parsed, (name,))
    missing = np.isnan(values)
    if not missing.all() and not any(map(_is_number, levels)):
        raise ValueError(
            f"column {name!r} changed its type: {owner} knows it as categories (text); got the number "
            f"{values[~missing][0]:g}: turn it into text first"
        )
    texts = [None if gone else number_text(x) for x, gone in zip(values.tolist(), missing, strict=True)]
    return objects(texts)


def number_text(number: float) -> str:
    """Return a finite number as text, the same for 1, 1.0 and True: that of an integer where it is one.

    Example:
        >>> number_text(1.0), number_text(0.5)
        ('1', '0.5')
    """
    return str(int(number)) if number.is_integer() else repr(number)


def finite(numbers: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Return a column or a matrix of numbers as it is; NaN is allowed.

    Raises:
        ValueError: a number is infinite; the column is named.
    """
    infinite = np.isinf(numbers)
    if infinite.any():
        name = names[int(infinite.reshape(len(numbers), -1).any(0).argmax())]
        raise ValueError(
            f"column {name!r} contains infinity or a value too large for float64: remove the row, cap the value, or "
            "mark it as missing (NaN)"
        )
    return numbers


def objects(items: list[str | None]) -> np.ndarray:
    """Return a column of text, None where it is missing."""
    column = np.empty(len(items), dtype=object)
    column[:] = items
    return column


def listed(names: Sequence[str]) -> str:
    """Return names for a message: the first ten, and how many more there are."""
    more = f", ... ({len(names)} in all)" if len(names) > _SHOWN else ""
    return "the columns " + ", ".join(map(repr, names[:_SHOWN])) + more


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _stacked(pieces: Sequence[np.ndarray], name: str, owner: str) -> np.ndarray:
    """Return the rows of a column in several tables; it is text where it is text anywhere."""
    texts = [text for piece in pieces if kind_of(piece) == CATEGORY for text in piece.tolist()]
    kind = NUMBER if all(kind_of(piece) == NUMBER for piece in pieces) else CATEGORY
    known = {text for text in texts if text is not None}
    if kind == CATEGORY and not known:
        full = any(kind_of(piece) == NUMBER and not np.isnan(piece).all() for piece in pieces)
        kind = NUMBER if full else CATEGORY
    return np.concatenate([as_kind(piece, kind, known, name, owner) for piece in pieces])
