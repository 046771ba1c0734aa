"""Columns of cells through the reader of files, each against what was written: one case is one column."""

import bz2
import csv
import gzip
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from gradatim.files.reading import open_table

from .judge import FAILED, REFUSED, attempt

ROWS = 120
COLUMNS = 60
MISSING = ("NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "-", "?", "")
RESERVED = ("None", "NA", "null", "nan", "-", "?", "N/A", "NaN", "true", "inf")
ODD = ("***", "tbd", "unknown", "#DIV/0!", "<5", "see note", "ND", "err", "missing", "--", ".")
WORDS = (
    "red", "Øst", "naïve", "日本", "a b", 'a "b"', "a,b", "a;b", "it's", "x\ty", "two\nlines", "emoji 🦉",
    "e10x", "0x1F",
    "1.2.3", "12-b", "A1", "x" * 300, "\u200bz", "ﬁ", "Ω", "%", "$", "1/2/x", "+", "a|b", "#1", "'q'",
    "\\n", "ß",
)  # fmt: skip
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16")


class Column(NamedTuple):
    """Cells as they are written and what they are: the kinds that are right, and the values, None for missing."""

    texts: list[str]
    kinds: tuple[str, ...]
    values: list[Any]
    name: str
    may_be_said: bool = False
    """Whether a note about the column is as good as its values."""


Maker = Callable[[np.random.Generator, str], Column]


def numbers(rng: np.random.Generator, decimal: str) -> Column:
    """Numbers of one size, as Python writes them."""
    power = int(rng.integers(-320, 309)) if rng.random() < 0.2 else int(rng.integers(-6, 9))
    with np.errstate(over="ignore", under="ignore"):
        values = (
            rng.normal(size=ROWS) * 10.0**power if power > -308 else rng.normal(size=ROWS) * 5e-324 * 1000
        )
    values = np.where(np.isfinite(values), values, 1e308).tolist()
    forms = (repr, "{:.17g}".format, "{:.16E}".format, "{:+.17e}".format)
    form = forms[rng.integers(len(forms))]
    return Column([form(v) for v in values], ("number",), values, "numbers")


def whole(rng: np.random.Generator, decimal: str) -> Column:
    """Whole numbers up to 2^53."""
    bound = 2 ** int(rng.integers(2, 54))
    values = rng.integers(-bound if rng.random() < 0.5 else 0, bound, ROWS, endpoint=True).tolist()
    return Column([str(v) for v in values], ("number",), [float(v) for v in values], "whole numbers")


def with_missing(rng: np.random.Generator, decimal: str) -> Column:
    """Numbers or dates, with words that mean missing."""
    makers = (whole, days, fixed)
    base = makers[rng.integers(len(makers))](rng, decimal)
    word = MISSING[rng.integers(len(MISSING))]
    gone = (rng.random(ROWS) < rng.choice([0.02, 0.3])).tolist()
    texts = [word if g else t for g, t in zip(gone, base.texts, strict=True)]
    values = [None if g else v for g, v in zip(gone, base.values, strict=True)]
    return base._replace(texts=texts, values=values, name=f"{base.name} with {word!r} for missing")


def with_odd(rng: np.random.Generator, decimal: str) -> Column:
    """Numbers or dates with one odd word."""
    makers = (whole, days, fixed)
    base = makers[rng.integers(len(makers))](rng, decimal)
    word, place = ODD[rng.integers(len(ODD))], int(rng.integers(ROWS))
    texts, values = list(base.texts), list(base.values)
    texts[place], values[place] = word, None
    return base._replace(texts=texts, values=values, name=f"{base.name} with one {word!r}")


def fixed(rng: np.random.Generator, decimal: str) -> Column:
    """Numbers of two decimals, with the file's decimal mark."""
    values = rng.normal(0, 100, ROWS).round(2).tolist()
    return Column(
        [f"{v:.2f}".replace(".", decimal) for v in values], ("number",), values, f"decimal {decimal!r}"
    )


def grouped(rng: np.random.Generator, decimal: str) -> Column:
    """Numbers with thousands in groups."""
    values = (rng.random(ROWS) * 10 ** rng.integers(4, 9) + 1000).round(2).tolist()
    swap = str.maketrans(",.", ".,") if decimal == "," else {}
    return Column([f"{v:,.2f}".translate(swap) for v in values], ("number",), values, "thousands", True)


def money(rng: np.random.Generator, decimal: str) -> Column:
    """Amounts with a currency."""
    form = ("${}", "€{}", "£{}", "{} €", "€ {}", "{} EUR", "USD {}")[rng.integers(7)]
    values = (rng.random(ROWS) * 99).round(2).tolist()
    return Column(
        [form.format(f"{v:.2f}".replace(".", decimal)) for v in values], ("number",), values, form, True
    )


def percent(rng: np.random.Generator, decimal: str) -> Column:
    """Percentages."""
    values = (rng.random(ROWS) * 99).round(1).tolist()
    texts = [f"{v:.1f}%".replace(".", decimal) for v in values]
    return Column(texts, ("number",), values, "percent", True)


def _stamps(rng: np.random.Generator, unit: str) -> np.ndarray:
    low, high = [(-719162, 2932896), (-719162 * 86_400_000_000, 2932896 * 86_400_000_000)][unit == "us"]
    if rng.random() < 0.7:  # years around ours
        low, high = [(0, 30_000), (0, 30_000 * 86_400_000_000)][unit == "us"]
    return rng.integers(low, high, ROWS).astype(f"M8[{unit}]")


def days(rng: np.random.Generator, decimal: str) -> Column:
    """Days as ISO 8601 writes them."""
    stamps = _stamps(rng, "D")
    values = stamps.astype("M8[us]").astype(np.int64).tolist()
    return Column(np.datetime_as_string(stamps).tolist(), ("date",), values, "days")


def times(rng: np.random.Generator, decimal: str) -> Column:
    """Days with a time, to the second, millisecond, microsecond or beyond, in UTC, elsewhere or nowhere."""
    stamps = _stamps(rng, "us")
    digits = int(rng.choice([0, 3, 6, 7, 9]))
    stamps = stamps.astype(f"M8[{'s' if digits == 0 else 'ms' if digits == 3 else 'us'}]").astype("M8[us]")
    texts = np.datetime_as_string(stamps).tolist()
    if digits == 0:
        texts = [text[:-7] for text in texts]
    elif digits == 3:
        texts = [text[:-3] for text in texts]
    texts = [text + "7" * (digits - 6) for text in texts] if digits > 6 else texts
    values = stamps.astype(np.int64)
    zone, shift = (("", 0), ("Z", 0), ("+02:00", 2), ("-05:00", -5))[rng.integers(4)]
    values = values - shift * 3_600_000_000
    texts = [(text.replace("T", " ") if rng.random() < 0.5 else text) + zone for text in texts]
    return Column(texts, ("date",), values.tolist(), f"times with {digits} digits and {zone or 'no zone'}")


def foreign_days(rng: np.random.Generator, decimal: str) -> Column:
    """Days in the order of the United States or with dots."""
    stamps = rng.integers(0, 30_000, ROWS).astype("M8[D]")
    parts = [text.split("-") for text in np.datetime_as_string(stamps).tolist()]
    values = stamps.astype("M8[us]").astype(np.int64).tolist()
    if rng.random() < 0.5:
        return Column([f"{m}/{d}/{y}" for y, m, d in parts], ("date",), values, "month/day/year", True)
    return Column([f"{d}.{m}.{y}" for y, m, d in parts], ("date",), values, "day.month.year", True)


def words(rng: np.random.Generator, decimal: str) -> Column:
    """Words, those that mean missing elsewhere among them."""
    levels = rng.choice(len(WORDS), int(rng.integers(3, 12)), replace=False).tolist()
    pool = [WORDS[i] for i in levels]
    pool += [RESERVED[rng.integers(len(RESERVED))]] if rng.random() < 0.5 else []
    chosen = rng.integers(0, len(pool), ROWS).tolist()
    empty = (rng.random(ROWS) < 0.1).tolist()
    texts = ["" if e else pool[i] for e, i in zip(empty, chosen, strict=True)]
    return Column(texts, ("text",), [t or None for t in texts], "words")


def codes(rng: np.random.Generator, decimal: str) -> Column:
    """Names made of digits: with leading zeros."""
    width = int(rng.integers(2, 12))
    texts = [f"{v:0{width}}" for v in rng.integers(0, 10 ** (width - 1), ROWS).tolist()]
    return Column(texts, ("text",), texts, "leading zeros")


def large(rng: np.random.Generator, decimal: str) -> Column:
    """Whole numbers beyond 2^53, which are names."""
    first = int(rng.choice([2**53, 2**60, 2**63, 11898508762506083287 - 2**20])) + int(rng.integers(1, 2**20))
    texts = [str(first + v) for v in rng.integers(0, 50, ROWS).tolist()]
    return Column(texts, ("text",), texts, "whole numbers beyond 2^53", True)


def truth(rng: np.random.Generator, decimal: str) -> Column:
    """Truth values."""
    pair = (("true", "false"), ("True", "False"), ("TRUE", "FALSE"))[rng.integers(3)]
    texts = [pair[i] for i in rng.integers(0, 2, ROWS).tolist()]
    return Column(texts, ("boolean", "text"), texts, "truth values")


def mixture(rng: np.random.Generator, decimal: str) -> Column:
    """Words and numbers, half and half: words."""
    pool = [w for w in WORDS[:12] if w] + [str(v) for v in rng.integers(0, 99, 12).tolist()]
    texts = [pool[i] for i in rng.integers(0, len(pool), ROWS).tolist()]
    return Column(texts, ("text",), texts, "words and numbers")


def empty(rng: np.random.Generator, decimal: str) -> Column:
    """Nothing."""
    return Column([""] * ROWS, ("text", "number", "date", "boolean", "None"), [None] * ROWS, "nothing")


MAKERS: tuple[Maker, ...] = (
    numbers, whole, with_missing, with_odd, fixed, grouped, money, percent, days, times, foreign_days,
    words, codes,
    large, truth, mixture, empty,
)  # fmt: skip


def render(columns: dict[str, Column], delimiter: str, encoding: str, end: str, blanks: bool) -> bytes:
    """Return the bytes of a CSV file."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator=end)
    writer.writerow(columns)
    rows = zip(*(column.texts for column in columns.values()), strict=True)
    if blanks:
        rows = ([f" {cell} " if cell and "\n" not in cell else cell for cell in row] for row in rows)
    writer.writerows(rows)
    return text.getvalue().encode(encoding)


def read_all(path: Path) -> tuple[dict[str, str], dict[str, Any], str]:
    """Return the kind of each column, its cells, and all notes."""
    file = open_table(path)
    cells = {name: cell for name, cell in file.cells.items() if cell is not None}
    tables = [table for table, _ in file.stream(cells)]
    columns = {name: pa.chunked_array([chunk for t in tables for chunk in t[name].chunks]) for name in cells}
    notes = " ".join([*file.notes, *file.notes_after()])
    return {name: cell.kind for name, cell in cells.items()}, columns, notes


def differences(column: Column, kind: str, cells: Any) -> str:
    """Return how cells differ from those that were written, or nothing."""
    if kind not in column.kinds:
        return f"it is read as {kind}, not {' or '.join(column.kinds)}"
    got = cells.to_pylist() if kind in ("text", "boolean") else None
    wanted = column.values
    if kind == "boolean":
        wanted = [text.lower() == "true" for text in column.values]
    elif kind == "number":
        values = np.array([np.nan if v is None else v for v in wanted], dtype=np.float64)
        numbers = cells.cast("float64").to_numpy(zero_copy_only=False).astype(np.float64)
        same = np.isclose(numbers, values, rtol=1e-14, atol=0, equal_nan=True)
        if column.name == "percent" and not same.all():
            same = np.isclose(numbers, values / 100, rtol=1e-14, atol=0, equal_nan=True)
        got, wanted = numbers.tolist(), values.tolist()
    elif kind == "date":
        if pa.types.is_floating(cells.type):
            numbers = cells.to_numpy(zero_copy_only=False)
            got = [None if v != v else round(v * 86_400_000_000) for v in numbers.tolist()]
        else:
            got = (
                cells.cast(pa.timestamp("us", getattr(cells.type, "tz", None)), safe=False)
                .cast("int64")
                .to_pylist()
            )
    if kind != "number":
        wanted = [v.strip() if isinstance(v, str) else v for v in wanted]
        got = [v.strip() if isinstance(v, str) else v for v in got]
        if len(got) != len(wanted):
            return f"{len(got)} rows came of {len(wanted)}"
        same = np.array([a == b for a, b in zip(got, wanted, strict=True)])
    if same.all():
        return ""
    place = int(np.argmin(same))
    return f"cell {column.texts[place]!r} in row {place} is read as {got[place]!r}, not {wanted[place]!r}"


def fuzz_columns(rng: np.random.Generator, cases: int, folder: Path) -> tuple[int, list[str]]:
    """Write one file of many columns and read it: each column is a case."""
    n = min(cases, COLUMNS)
    delimiter = (",", ";", "\t", "|")[rng.integers(4)]
    decimal = "," if delimiter in (";", "\t", "|") and rng.random() < 0.4 else "."
    row_numbers = Column(
        [f"r{i}" for i in range(ROWS)], ("text",), [f"r{i}" for i in range(ROWS)], "names of rows"
    )
    columns = {"row": row_numbers}
    for j in range(n):
        maker = MAKERS[rng.integers(len(MAKERS))]
        if decimal == "," and maker in (numbers,):
            maker = fixed
        columns[f"c{j}"] = maker(rng, decimal)
    encoding, end = ENCODINGS[rng.choice(3, p=[0.8, 0.1, 0.1])], ("\n", "\r\n")[rng.integers(2)]
    blanks = bool(rng.random() < 0.1)
    content = render(columns, delimiter, encoding, end, blanks)
    suffix, pack = (("", bytes), (".gz", gzip.compress), (".bz2", bz2.compress))[
        rng.choice(3, p=[0.9, 0.05, 0.05])
    ]
    path = folder / f"table.csv{suffix}"
    path.write_bytes(pack(content))
    about = f"delimiter {delimiter!r}, decimal {decimal!r}, {encoding}{', blanks' if blanks else ''}{suffix}"
    result, fault = attempt(read_all, path)
    if result is REFUSED or result is FAILED:
        message = fault or _sentence(path)
        return n, [f"a file of {n} columns ({about}) is not read: {message}"]
    kinds, cells, notes = result
    faults = [fault] if fault else []
    if missing := set(columns) - set(kinds) - {name for name, c in columns.items() if c.name == "nothing"}:
        return n, [f"columns {sorted(missing)[:5]} are lost ({about})"]
    for name, column in columns.items():
        if name not in kinds:
            continue
        fault = differences(column, kinds[name], cells[name])
        if fault and not (column.may_be_said and f"'{name}'" in notes):
            faults.append(f"a column of {column.name} ({about}): {fault}")
    return n, faults


def _sentence(path: Path) -> str:
    try:
        read_all(path)
    except Exception as error:
        return str(error)[:300]
    return ""
