"""The rows of a text file: bytes to UTF-8, blocks of whole rows, the delimiter, the names of the columns.

Source: RFC 4180 (CSV); the Unicode Standard, section 23.8 (byte order marks).
"""

from __future__ import annotations

import codecs
import csv
import re
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .foreign import is_binary

DELIMITERS = "\t;|,"
"""Delimiters that are recognised; where several fit, the first of them."""

FIELD_BYTES = 1 << 28
"""Most bytes of a row."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

SNIFF_ROWS = 5000
"""Most rows at the start of a file from which its delimiter is recognised."""

MOST_NOTES = 5
"""Most notes on the names of columns."""

_ONE_COLUMN = "\x1f"
"""The delimiter of a file of one column: the unit separator, which stands in no text."""

_SEPARATOR = re.compile(rb"sep=([^\x80-\xff])\r?\Z", re.IGNORECASE)
"""A line by which a spreadsheet program tells the delimiter."""

_NUMBER = re.compile(r"[+-]?[0-9]+([.,][0-9]+)*([eE][+-]?[0-9]+)?\Z")


class Decoder:
    """Turn the bytes of a file into UTF-8 with line feeds, piece by piece.

    Example:
        >>> from gradatim.files.text import Decoder
        >>> decoder = Decoder("small.csv", None)
        >>> decoder("é\\n".encode("utf-16")).decode()
        'é\\n'
    """

    def __init__(self, label: str, encoding: str | None, delimiter: str | None = None) -> None:
        self.label, self.given, self.name, self._delimiter = label, encoding, encoding, delimiter
        self._decoder: Any = None
        self._count, self._returns = 0, False
        if encoding is not None:
            try:
                is_text = codecs.lookup(encoding)._is_text_encoding
            except LookupError:
                is_text = False
            if not is_text:
                raise ValueError(
                    f"--encoding {encoding} is unknown: give one such as utf-8, cp1252, latin-1 or utf-16"
                )

    def __call__(self, data: bytes, final: bool = False) -> bytes:
        """Return a piece as UTF-8.

        Raises:
            ValueError: it is not text in this encoding.
        """
        if self._decoder is None:
            data = self._begin(data)
        decoder: Any = self._decoder
        plain = self.name == "utf-8"
        start, self._count = self._count, self._count + len(data)
        try:
            if not (plain and data.isascii() and not decoder.getstate()[0]):
                text = decoder.decode(data, final)
                data = data if plain else text.encode("utf-8", errors="replace")
        except UnicodeError as error:
            position = start + getattr(error, "start", 0) + 1
            raise ValueError(self._advice(position)) from error
        return data.replace(b"\r", b"\n") if self._returns else data

    def _begin(self, data: bytes) -> bytes:
        mark, name = next(((m, n) for m, n in _MARKS if data.startswith(m)), (b"", "utf-8"))
        codec = codecs.lookup(self.given or name).name
        if mark and codec.replace("-sig", "") in (name, name[:6], name[:5]):
            data, codec = data[len(mark) :], name
        elif self.given is None and is_binary(data, self._delimiter):
            raise ValueError(
                f"{self.label} is no text, and of no kind that is known: unpack it if it is an archive, export its "
                "table as CSV or Parquet, or say --encoding if it is text"
            )
        elif self.given is None and data[:4096].count(b"\0") > len(data[:4096]) // 8:
            raise ValueError(
                f"{self.label} is not UTF-8 text (it holds zero bytes): say --encoding utf-16, or save it as UTF-8"
            )
        if codec in ("utf-16", "utf-32"):  # no mark: the zero bytes tell the order
            codec += "-be" if data[:1] == b"\0" else "-le"
        self.name = codec.replace("utf-8-sig", "utf-8")
        self._decoder = codecs.getincrementaldecoder(self.name)()
        text = data.decode(self.name, errors="replace")
        self._returns = "\r" in text[:-1] and "\n" not in text
        return data

    def _advice(self, position: int) -> str:
        if self.given is None:
            return (
                f"{self.label} is not UTF-8 text (about byte {position:,}): say --encoding cp1252 if it comes from a "
                "Windows program, or save it as UTF-8"
            )
        return f"{self.label} is not text in --encoding {self.given} (about byte {position:,}): name another encoding"


@dataclass(frozen=True)
class Rows:
    """A block of whole rows.

    Fields: `data`: their bytes, in UTF-8; `starts`, `stops`: where rows begin and end `[rows]`; `first`: the number of
    the first line; `share`: the share of the file that has been read.

    `quoted` says whether a field is quoted, `unclosed` whether a quote is open at the end.
    """

    data: bytes
    starts: np.ndarray
    stops: np.ndarray
    first: int = 1
    share: float = 1.0
    quoted: bool = False
    unclosed: bool = False

    def lines(self, rows: Any) -> np.ndarray:
        """Return the numbers of the lines on which rows begin `[rows]`."""
        if not self.quoted:
            return self.first + np.asarray(rows)
        feeds = np.flatnonzero(np.frombuffer(self.data, np.uint8) == 10)
        return self.first + np.searchsorted(feeds, self.starts[np.asarray(rows)])

    def row(self, number: int) -> bytes:
        """Return the bytes of a row, without its end."""
        return self.data[self.starts[number] : self.stops[number]].rstrip(b"\r\n")


def split_rows(
    data: bytes, delimiters: str | None, final: bool, first: int = 1, share: float = 1.0
) -> tuple[Rows, bytes]:
    """Return the whole rows at the start of `data`, and what is left of it.

    A line feed inside a quoted field ends no row; a quote opens a field only at its start.

    Args:
        data: bytes that begin with a row.
        delimiters: characters of which each may end a field; None where quotes mean nothing.
        final: whether nothing follows, so that the last row needs no end.
        first, share: fields of the rows.

    Example:
        >>> from gradatim.files.text import split_rows
        >>> rows, rest = split_rows(b'a,"b\\nc"\\nd,', ",", final=False)
        >>> [rows.row(i) for i in range(len(rows.starts))], rest
        ([b'a,"b\\nc"'], b'd,')
    """
    codes = np.frombuffer(data, np.uint8)
    feeds = np.flatnonzero(codes == 10)
    starts, stops = _quoted(codes, delimiters) if delimiters and b'"' in data else (feeds[:0], feeds[:0])
    feeds = feeds[~_inside(feeds, starts, stops)]
    ends = feeds + 1
    if final and len(data) > (ends[-1] if len(ends) else 0):
        ends = np.append(ends, len(data))
    used = int(ends[-1]) if len(ends) else 0
    begins = np.concatenate([[0], ends[:-1]]).astype(np.int64) if len(ends) else ends
    return Rows(
        data[:used], begins, ends, first, share, len(starts) > 0, bool(len(stops) and stops[-1] >= used)
    ), data[used:]


def _inside(places: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """Return which places `[n]` lie in spans with these starts and stops `[spans]`."""
    if not len(starts):
        return np.zeros(len(places), bool)
    return np.searchsorted(starts, places, "right") > np.searchsorted(stops, places, "right")


def _quoted(codes: np.ndarray, delimiters: str) -> tuple[np.ndarray, np.ndarray]:
    """Return where quoted fields start and stop `[fields]` among bytes `[n]`."""
    quotes = np.flatnonzero(codes == 34)
    edges = np.frombuffer(b"\r\n" + delimiters.encode(), np.uint8)
    before = codes[np.maximum(quotes - 1, 0)]
    after = codes[np.minimum(quotes + 1, len(codes) - 1)]
    at_start = np.isin(before, edges) | (quotes == 0)
    at_end = np.isin(after, edges) | (quotes == len(codes) - 1)
    opens, closes = quotes[0::2], quotes[1::2]
    doubled = np.zeros(len(opens), bool)  # "": a quote closes, and the next, right after it, opens again
    doubled[1:] = opens[1:] == closes[: len(opens) - 1] + 1
    closed = at_end[1::2].copy()
    closed[: len(opens) - 1] |= doubled[1:]
    if (at_start[0::2] | doubled).all() and closed.all():
        return opens, closes if len(closes) == len(opens) else np.append(closes, len(codes))
    spans, place, count = [], 0, len(quotes)
    while place < count:
        if not at_start[place]:
            place += 1
            continue
        start = place
        place += 1
        while place + 1 < count and quotes[place + 1] == quotes[place] + 1:
            place += 2
        spans.append((quotes[start], quotes[place] if place < count else len(codes)))
        place += 1
    pairs = np.array(spans, np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


@dataclass(frozen=True)
class Layout:
    """How a text file is laid out.

    Fields: `delimiter`: between fields; `names`: of the columns; `skipped`: bytes before the first row; `lines`: lines
    before it; `notes`: for the user.
    """

    delimiter: str
    names: list[str]
    skipped: int
    lines: int
    notes: list[str] = field(default_factory=list)


def find_layout(data: bytes, final: bool, delimiter: str | None, header: bool) -> Layout | None:
    """Return the layout of a text file from its first bytes, or None if it has no line of names.

    Args:
        data: the first bytes, in UTF-8.
        final: whether they are all.
        delimiter: between fields; None to recognise it.
        header: whether the first line holds names.

    Example:
        >>> from gradatim.files.text import find_layout
        >>> layout = find_layout(b'"weight, kg";class\\n70;a\\n71;b\\n', True, None, True)
        >>> layout.delimiter, layout.names
        (';', ['weight, kg', 'class'])
    """
    rows, _ = split_rows(data, delimiter or DELIMITERS, final)
    lines = [rows.row(number) for number in range(min(len(rows.starts), SNIFF_ROWS))]
    full = [number for number, line in enumerate(lines) if line.strip(b" \t")]
    plain = next((number for number in full if not lines[number].startswith(b"#")), None)
    if plain is None:
        return None
    if delimiter is None and (match := _SEPARATOR.match(lines[full[0]])):
        skipped = int(rows.stops[full[0]])
        layout = find_layout(data[skipped:], final, match[1].decode(), header)
        return layout and replace(layout, skipped=layout.skipped + skipped, lines=layout.lines + full[0] + 1)
    notes: list[str] = []
    start, comments = plain, [number for number in full if number < plain]
    counts = {mark: _fields(rows, mark)[: len(lines)] for mark in delimiter or DELIMITERS}
    if comments:
        below = full[len(comments) :]
        mark = delimiter or _delimiter({m: fields[below] for m, fields in counts.items()}, lines[below[-1]])
        if header and _is_header(_split(lines[comments[-1]], mark), _split(lines[plain], mark)):
            start = comments.pop()
        if comments:
            notes.append(f"lines before the names that begin with # are skipped: {len(comments)}")
    full = [number for number in full if number >= start]
    mark = delimiter or _delimiter({m: fields[full] for m, fields in counts.items()}, lines[full[-1]])
    loose = _notes_of_blanks([lines[number] for number in full], mark)
    notes += loose
    cells = _split(lines[start].lstrip(b"#") if start != plain else lines[start], mark)
    first = start + header
    skipped = int(rows.starts[first]) if first < len(rows.starts) else len(rows.data)
    line = 1 + data.count(b"\n", 0, skipped)
    if not header:
        return Layout(mark, [f"x{number}" for number in range(len(cells))], skipped, line, notes)
    below = [lines[number] for number in full[1:]]
    if below and not loose and (counts.get(mark, np.ones(len(lines)))[full[1:]] == len(cells) + 1).all():
        # rows longer by one field: R leaves out the name of the first column, other programs that of the last
        cells = [*cells, ""] if all(line.rstrip().endswith(mark.encode()) for line in below) else ["", *cells]
    names, more = clean_names(cells)
    if all(_NUMBER.match(name.strip()) for name in cells):
        more = [
            "the first line holds numbers, which are taken for names: --header none if it is a row",
            *more,
        ]
    return Layout(mark, names, skipped, line, notes + more)


def _notes_of_blanks(lines: list[bytes], mark: str) -> list[str]:
    """Return a note where blanks stand before quotes in most lines."""
    loose = re.compile(rb"%b[ \t]+\"(?!\")" % re.escape(mark.encode()))
    if sum(loose.search(line) is not None for line in lines) <= len(lines) / 2:
        return []
    return [
        "quotes after a blank open no field: they are read as characters, and a delimiter between them separates; "
        f"take the blanks between {mark!r} and the quotes out"
    ]


def clean_names(names: list[str]) -> tuple[list[str], list[str]]:
    """Return names without blanks around them, none of them empty or twice, and notes for the user.

    Example:
        >>> from gradatim.files.text import clean_names
        >>> clean_names(["", "x ", "x"])[0]
        ['column 1', 'x', 'x_2']
    """
    stripped = [name.strip(" \t\r\n\ufeff") for name in names]
    stripped = [name[1:-1] if len(name) > 1 and name[0] == name[-1] == '"' else name for name in stripped]
    used, notes, clean = set(stripped), [], []
    seen: dict[str, int] = {}
    for position, name in enumerate(stripped, start=1):
        new, number = name or f"column {position}", seen.get(name, 0) + 1
        seen[name] = number
        if (name and number > 1) or (not name and new in used):
            number = max(number, 2)
            while (numbered := f"{new}_{number}") in used:
                number += 1
            new = numbered
            seen[name] = number
        if new != name and len(notes) < MOST_NOTES:
            what = f"is the second {name!r}" if name else "has no name"
            what = what.replace("second", "next") if seen[name] > 2 else what
            notes.append(f"the column at position {position} {what}: it is called {new!r}")
        used.add(new)
        clean.append(new)
    return clean, notes


def _fields(rows: Rows, mark: str) -> np.ndarray:
    """Return the number of fields of each row `[rows]` with this delimiter."""
    codes = np.frombuffer(rows.data, np.uint8)
    places = np.flatnonzero(codes == ord(mark))
    if rows.quoted:
        places = places[~_inside(places, *_quoted(codes, mark))]
    return 1 + np.bincount(np.searchsorted(rows.starts, places, "right") - 1, minlength=len(rows.starts))


def _delimiter(fields: dict[str, np.ndarray], last: bytes) -> str:
    """Return the delimiter that gives all rows the same number of fields, or else most rows that of the first.

    A first row of one field is the name of the only column; unless the rows have two, the first of them quoted.

    Args:
        fields: the number of fields of each row `[rows]` with each delimiter.
        last: the bytes of the last row.
    """
    usable = {mark: fields[mark] for mark in DELIMITERS if mark in fields and fields[mark][0] > 1}
    if not usable:
        pairs = [mark for mark in DELIMITERS if (fields[mark][1:] == 2).all() and len(fields[mark]) > 1]
        return pairs[0] if pairs and last.startswith(b'"') else _ONE_COLUMN
    for mark, counts in usable.items():
        if (counts == counts[0]).all():
            return mark
    shares = {m: np.mean(np.isin(counts[1:], [counts[0], counts[0] + 1])) for m, counts in usable.items()}
    return max(reversed(usable), key=lambda mark: shares[mark])


def _split(line: bytes, mark: str) -> list[str]:
    """Return the fields of one row."""
    try:
        return next(csv.reader([line.decode("utf-8", "replace")], delimiter=mark, strict=False), [""])
    except csv.Error:
        return line.decode("utf-8", "replace").split(mark)


def _is_header(comment: list[str], row: list[str]) -> bool:
    """Return whether a line that begins with # holds the names of the columns of a row."""
    numbers = [bool(_NUMBER.match(cell.strip("# "))) for cell in comment]
    return (
        len(comment) == len(row) > 1 and not any(numbers) and any(_NUMBER.match(cell.strip()) for cell in row)
    )
