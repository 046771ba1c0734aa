"""What the user says of a file that is read: its delimiter, its decimal mark, its encoding, its missing values.

Source: RFC 4180 (CSV, which leaves these open).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..names import nearest

if TYPE_CHECKING:
    from .cells import Cells

NAMED = 8
"""Columns that a note names, at most."""


@dataclass(frozen=True)
class ReadOptions:
    """How a file is read, where the user says so.

    Fields: `delimiter`, `decimal`, `encoding`: None to recognise them. `missing`: the words that mean missing in
    every column; `header`: whether the first line holds names; `text`: columns of text. `columns`: how columns are
    read that a state knows; `features`: those of them of which some row must have one. `sampled`: whether the sample is
    of all rows even so, or of as many as a stream gives before it is read. `row_groups`: of a Parquet file, the
    first that is read and the one after the last, None for all.

    Example:
        >>> from gradatim.files.options import ReadOptions
        >>> ReadOptions(decimal=",").delimiter is None
        True
    """

    delimiter: str | None = None
    decimal: str | None = None
    encoding: str | None = None
    missing: tuple[str, ...] | None = None
    header: bool = True
    text: tuple[str, ...] = ()
    columns: Mapping[str, Cells] | None = None
    features: tuple[str, ...] = ()
    sampled: bool = False
    row_groups: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        mark = {"tab": "\t", "\\t": "\t", "space": " "}.get(self.delimiter or "", self.delimiter)
        if mark is not None and (len(mark) != 1 or not mark.isascii() or mark in '"\r\n'):
            raise ValueError(f"--delimiter needs one character, or tab; got {self.delimiter!r}")
        object.__setattr__(self, "delimiter", mark)
        if self.decimal not in (None, ".", ","):
            raise ValueError(f"--decimal needs . or ,; got {self.decimal!r}")


def listed(names: Sequence[str]) -> str:
    """Return columns for a note: the first of them, and how many there are.

    Example:
        >>> from gradatim.files.options import listed
        >>> listed(["a"]), listed(["a", "b"])
        ("column 'a'", "columns 'a', 'b'")
    """
    more = f", ... ({len(names)} in all)" if len(names) > NAMED else ""
    return f"column{'s' if len(names) > 1 else ''} {', '.join(map(repr, names[:NAMED]))}{more}"


def suggest(name: str, names: Sequence[str]) -> str:
    """Return the end of a message about a column that does not exist: a similar name, or all names.

    Example:
        >>> from gradatim.files.options import suggest
        >>> suggest("Price", ["price", "size"]), suggest("x", ["price", "size"])
        ("did you mean 'price'?", "it has 'price', 'size'")
    """
    near = nearest(name, names) or nearest(name.lower(), [candidate.lower() for candidate in names])
    if near is not None:
        return f"did you mean {next(candidate for candidate in names if near in (candidate, candidate.lower()))!r}?"
    if not names:
        return "its rows name no column"
    more = f", ... ({len(names)} in all)" if len(names) > 10 else ""
    return f"it has {', '.join(map(repr, names[:10]))}{more}"
