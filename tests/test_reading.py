"""Reading: one meaning of a cell in every container, decided from the whole file, and a note for what is odd."""

import bz2
import datetime as dt
import gzip
import io
import json
import lzma
import os
import pickle
import random
import sys
import tarfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gradatim.files import containers, reading, sampling, text_table
from gradatim.files.cells import Cells
from gradatim.files.inference import as_spelt
from gradatim.files.reading import ReadOptions, open_table

pa = pytest.importorskip("pyarrow")
pytest.importorskip("pyarrow.parquet")

N = None


def day(*parts: int) -> dt.datetime:
    return dt.datetime(*parts)


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def columns(table_file: reading.TableFile, cells: dict[str, Cells] | None = None) -> dict[str, list]:
    wanted = cells or {name: how for name, how in table_file.cells.items() if how is not None}
    tables = [table for table, _ in table_file.stream(wanted)]
    return {name: [value for table in tables for value in table[name].to_pylist()] for name in wanted}


def write(content: str | bytes, name: str = "file.csv") -> str:
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return name


def read(content: str | bytes, name: str = "file.csv", **options) -> tuple[dict[str, list], str]:
    """Return the columns of a file, and its notes as one text."""
    table_file = open_table(write(content, name), ReadOptions(**options))
    values = columns(table_file)
    return values, "\n".join([*table_file.notes, *table_file.notes_after()])


def column(*words: str, filler: int = 0, start: str = "1") -> str:
    """A column x with these words, below `filler` cells that hold `start`, beside a column of row numbers."""
    cells = [start] * filler + list(words)
    return "x\tk\n" + "".join(f"{cell}\t{number}\n" for number, cell in enumerate(cells))


NUMBERS = {
    "plain": (["1", "-2.5", "+3", "1e3", ".5", "1."], [1.0, -2.5, 3.0, 1000.0, 0.5, 1.0]),
    "blanks around": ([" 1", "2 ", "  3  "], [1.0, 2.0, 3.0]),
    "decimal commas": (["-0,5", "0,75", "12,25"], [-0.5, 0.75, 12.25]),
    "decimal commas and thousands": (["1.234,56", "0,5", "1.234.567,0"], [1234.56, 0.5, 1234567.0]),
    "thousands": (["1,234,567", "12,345.5", "7"], [1234567.0, 12345.5, 7.0]),
    "thousands with blanks": (["1 234", "12 345 678", "5.5"], [1234.0, 12345678.0, 5.5]),
    "thousands with hard blanks": (["1\u00a0234,5", "7,25"], [1234.5, 7.25]),
    "thousands with apostrophes": (["1'234.50", "12", "1’000"], [1234.5, 12.0, 1000.0]),
    "Indian thousands": (["12,34,567", "1,00,000", "2.5"], [1234567.0, 100000.0, 2.5]),
    "dollars": (["$1,200.50", "-$3", "$-4", "$ 5"], [1200.5, -3.0, -4.0, 5.0]),
    "codes": (["EUR 5", "12.5 USD", "7 €"], [5.0, 12.5, 7.0]),
    "percent": (["12%", "3.5 %", "-1%"], [12.0, 3.5, -1.0]),
    "brackets of accounts": (["(1,234)", "($5.50)", "7"], [-1234.0, -5.5, 7.0]),
    "the minus of a typesetter": (["−3", "4"], [-3.0, 4.0]),
    "missing": (["1", "NA", "", "-", "?", "None", "n.a.", "#DIV/0!", "unknown", "2"], [1.0, *[N] * 8, 2.0]),
    "infinity": (["1", "2", "inf", "-Infinity", "3"], [1.0, 2.0, N, N, 3.0]),
    "beyond floating point": (["1", "2", "3", "4", "5", "1e400"], [1.0, 2.0, 3.0, 4.0, 5.0, N]),
    "zero": (["0", "0.5", "-0.25", "00.5"], [0.0, 0.5, -0.25, 0.5]),
}


@pytest.mark.parametrize(("words", "values"), NUMBERS.values(), ids=NUMBERS)
def test_numbers(words, values):
    found, _ = read(column(*words))
    assert found["x"] == values


DATES = {
    "ISO": (["2024-01-31", "2024-02-29"], [day(2024, 1, 31), day(2024, 2, 29)]),
    "any year": (
        ["0001-01-01", "1677-01-01", "2300-01-01", "9999-12-31"],
        [day(1, 1, 1), day(1677, 1, 1), day(2300, 1, 1), day(9999, 12, 31)],
    ),
    "seven decimals": (["2024-01-01T00:00:00.1234567"], [day(2024, 1, 1, 0, 0, 0, 123456)]),
    "twelve decimals": (["1900-01-01 05:00:00.999999999999Z"], [day(1900, 1, 1, 5, 0, 0, 999999)]),
    "zones": (
        ["2024-01-01T00:00:00Z", "2024-01-01T00:00:00+01:00", "2024-01-01 00:00-0330"],
        [day(2024, 1, 1), day(2023, 12, 31, 23), day(2024, 1, 1, 3, 30)],
    ),
    "with and without a zone": (["2024-01-01", "2024-01-01T05:00Z"], [day(2024, 1, 1), day(2024, 1, 1, 5)]),
    "dots": (["31.12.2024", "1.2.2024 13:05"], [day(2024, 12, 31), day(2024, 2, 1, 13, 5)]),
    "slashes, the day first": (["31/12/2024", "1/2/2024"], [day(2024, 12, 31), day(2024, 2, 1)]),
    "slashes, the month first": (["12/31/2024", "1/2/2024"], [day(2024, 12, 31), day(2024, 1, 2)]),
    "slashes, the year first": (["2024/12/31", "2024/1/2 3:04"], [day(2024, 12, 31), day(2024, 1, 2, 3, 4)]),
    "half days": (
        ["12/31/2024 12:05 AM", "1/2/2024 11:00 PM"],
        [day(2024, 12, 31, 0, 5), day(2024, 1, 2, 23)],
    ),
    "two digits of a year": (["12/31/24", "1/2/99"], [day(2024, 12, 31), day(1999, 1, 2)]),
    "dashes": (["31-12-2024", "1-2-2024"], [day(2024, 12, 31), day(2024, 2, 1)]),
    "months": (["2024-01", "1999-12"], [day(2024, 1, 1), day(1999, 12, 1)]),
    "the basic form": (
        ["20240105T101500", "20240105T1015", "20240105T10Z", "20240105T101500.5+0200"],
        [
            day(2024, 1, 5, 10, 15),
            day(2024, 1, 5, 10, 15),
            day(2024, 1, 5, 10),
            day(2024, 1, 5, 8, 15, 0, 500000),
        ],
    ),
    "zones of each form": (
        ["2024-01-05T10:00:00+02:00", "2024-01-05T10:00:00+0200", "2024-01-05T10:00:00 +02"],
        [day(2024, 1, 5, 8)] * 3,
    ),
    "the year nought": (
        ["0000-01-01", *(f"2024-01-0{d}" for d in range(1, 6))],
        [N, *(day(2024, 1, d) for d in range(1, 6))],
    ),
    "beyond the last year": (
        ["9999-12-31T23:00:00-05:00", *(f"2024-01-0{d}T00:00:00Z" for d in range(1, 6))],
        [N, *(day(2024, 1, d) for d in range(1, 6))],
    ),
    "impossible days": (
        ["2024-01-01", "2024-01-02", "2024-01-03", "2024-01-04", "2024-01-05", "2024-13-45", "2023-02-29"][
            :6
        ],
        [*(day(2024, 1, d) for d in range(1, 6)), N],
    ),
    "missing": (["2024-01-01", "", "NaT", "unknown"], [day(2024, 1, 1), N, N, N]),
}


@pytest.mark.parametrize(("words", "values"), DATES.values(), ids=DATES)
def test_dates(words, values):
    found, _ = read(column(*words))
    assert found["x"] == values


TEXTS = {
    "leading zeros": (["007", "012", "120"], ["007", "012", "120"]),
    "a tenth with leading zeros": ([*["90210"] * 9, "02139"], [*["90210"] * 9, "02139"]),
    "identifiers beyond 2^53": (
        ["11898508762506083287", "11898508762506083288"],
        ["11898508762506083287", "11898508762506083288"],
    ),
    "negative identifiers": (
        ["-9007199254740993", "-9007199254740995"],
        ["-9007199254740993", "-9007199254740995"],
    ),
    "None among words": (
        ["None", "Mild", "Severe", "NA", "-", "?"],
        ["None", "Mild", "Severe", "NA", "-", "?"],
    ),
    "blanks around words": (["yes", "yes ", " no", ""], ["yes", "yes", "no", N]),
    "letters among digits": (["1", "2", "A", "B"], ["1", "2", "A", "B"]),
    "versions": (["1.2.3", "1.10.0", "10.1.24"], ["1.2.3", "1.10.0", "10.1.24"]),
    "codes with dashes": (["10-12-99", "11-10-98"], ["10-12-99", "11-10-98"]),
    "hexadecimal": (["0x10", "0xff"], ["0x10", "0xff"]),
    "clock times": (["10:30", "11:45:10"], ["10:30", "11:45:10"]),
    "weeks": (["2024-W03", "2024-W04-2"], ["2024-W03", "2024-W04-2"]),
    "numbers of two parts": (["4711-01", "0815-12"], ["4711-01", "0815-12"]),
    "numbers of a year": (["2024-17", "2024-42"], ["2024-17", "2024-42"]),
}


@pytest.mark.parametrize(("words", "values"), TEXTS.values(), ids=TEXTS)
def test_words(words, values):
    found, _ = read(column(*words))
    assert found["x"] == values


UNREAD = (
    *("2024-W03", "2024W03-2", "2024-Q1", "2024-005", "Jan 2024", "2024/01", "01/2024", "10:15", "9:30 pm"),
    *("Fri Jan 5 2024", "Friday, 5 January 2024", "20240105 101500", "2024-01-05T10:00:00[Europe/Oslo]"),
    *("2024-366", "1/2024", "Q4/2024", "January 2024", "SEPT-2024", "2024 Mar", "Sat 05/10/2024"),
)
NO_DATES = (
    *(
        "MAR1014",
        "DEC-1044",
        "DEC1985",
        "Monroe Street 1039",
        "Sunset Road 1985",
        "4006-106",
        "1/1021",
        "2024-367",
    ),
    *(
        "2024-000",
        "Marina 1999",
        "Maple 2010",
        "2024/13",
        "4711-W03",
        "Q1-4711",
        "40061069 101500",
        "2024-W54",
    ),
)


@pytest.mark.parametrize("word", UNREAD)
def test_dates_of_a_form_that_is_not_read_are_said(word):
    found, said = read(column(word, word, word))
    assert found["x"] == [word] * 3 and f"words such as {word!r} are dates or times" in said


@pytest.mark.parametrize("word", NO_DATES)
def test_names_that_resemble_dates_are_not_said_to_be_dates(word):
    found, said = read(column(word, word, word))
    assert found["x"] == [word] * 3 and "dates or times" not in said


def test_months_are_said_and_may_be_words():
    found, said = read(column("2024-01", "2024-02"))
    assert found["x"] == [day(2024, 1, 1), day(2024, 2, 1)] and "--text x if these are names" in said
    found, said = read(column("2024-01", "2024-02"), text=("x",))
    assert found["x"] == ["2024-01", "2024-02"] and said == ""
    for words in (["20240105", "20240106"], ["202401", "202402"]):
        assert read(column(*words))[0]["x"] == [float(word) for word in words]


NO_NUMBERS = (
    "1_0",
    "1_000.5",
    "١٢",
    "１２",
    "²",
    "½",
    "०",
    "0x10",
    "0b1",
    "1d5",
    "12L",
    "1e",
    "--5",
    "+-5",
    "٫5",
)


@pytest.mark.parametrize("word", NO_NUMBERS)
@pytest.mark.parametrize("name", ["f.csv", "f.jsonl"])
def test_words_that_python_alone_takes_for_numbers_are_none(word, name):
    def content(*words: str) -> str:
        return "".join(f'{{"x": "{w}"}}\n' for w in words) if "json" in name else "\n".join(["x", *words, ""])

    assert read(content(*[word] * 3), name)[0]["x"] == [word] * 3
    if name == "f.csv":
        found, said = read(content(*map(str, range(20)), word))
        assert found["x"] == [*map(float, range(20)), N] and word in said


def test_true_and_false():
    found, _ = read(column("true", "FALSE", "True", "", "NA"))
    assert found["x"] == [True, False, True, N, N]
    found, _ = read(column("0", "1", "-", "1"))
    assert found["x"] == [0.0, 1.0, N, 1.0]


@pytest.mark.parametrize(
    "word", ["-", "--", ".", "none", "n.a.", "missing", "Unknown", "#DIV/0!", "abc", "?", "12a"]
)
def test_an_odd_cell_is_missing_and_named(word):
    found, notes = read(column(word, filler=300, start="1.5"))
    assert found["x"] == [1.5] * 300 + [N]
    if word.lower() not in ("none", "n.a."):
        assert f"column 'x' is read as numbers; {word!r} in line 302 (1 cell) is taken as missing" in notes


def test_odd_cells_are_counted_in_the_whole_file(monkeypatch):
    monkeypatch.setattr(reading, "BLOCK_BYTES", 100)
    cells = ["oops" if number % 50 == 7 else str(number) for number in range(1000)]
    found, notes = read(column(*cells))
    assert found["x"].count(None) == 20
    assert "'oops' in line 9 (20 cells)" in notes


def test_many_words_make_a_column_of_words():
    """The first rows are numbers; the sample is of the whole file."""
    cells = [str(number % 50) for number in range(30_000)] + ["low", "high", "medium"] * 5000
    found, notes = read(column(*cells))
    assert found["x"] == cells
    assert "read as text because of words such as" in notes and "--missing" in notes


def test_missing_words_are_those_that_the_user_names():
    found, notes = read(
        column("1", "gone", "-999", "2", "3", "4", "5", "6", "7", "8"), missing=("gone", "-999")
    )
    assert found["x"] == [1.0, N, N, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0] and notes == ""
    found, _ = read(column("None", "Mild", "Severe"), missing=("Mild",))
    assert found["x"] == ["None", N, "Severe"]
    found, notes = read(column(*"123456789", "NA"), missing=("gone",))
    assert found["x"][-1] is None and "'NA' in line 11" in notes


AMBIGUOUS = {
    "decimal mark in a file with semicolons": ("x;y\n1,234;a\n2,345;b\n", [1.234, 2.345], "decimal mark"),
    "thousands in a file with commas": ('x,y\n"1,234",a\n"2,345",b\n', [1234.0, 2345.0], "thousands"),
    "as the other columns prove": ("x;y\n1.234;0,5\n2.345;1,25\n", [1234.0, 2345.0], "thousands"),
    "as the other columns prove again": ("x;y\n1,234;0.5\n2,345;1.25\n", [1234.0, 2345.0], "thousands"),
    "points among points": ("x;y\n1.234;0.5\n2.345;1.25\n", [1.234, 2.345], ""),
}


@pytest.mark.parametrize(("content", "values", "note"), AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_what_a_mark_means_is_decided_and_said(content, values, note):
    found, notes = read(content)
    assert found["x"] == values
    assert note in notes and ("x" in notes if note else "x" not in notes)


def test_options_decide():
    content = "x;y\n1,234;a\n2,345;b\n"
    assert read(content, decimal=".")[0]["x"] == [1234.0, 2345.0]
    assert read(content, decimal=",")[0]["x"] == [1.234, 2.345]
    assert read(content, text=("x",))[0]["x"] == ["1,234", "2,345"]
    assert read("a:b\n1:2\n", delimiter=":")[0] == {"a": [1.0], "b": [2.0]}
    assert read("a\tb\n1\t2\n", delimiter="tab")[0] == {"a": [1.0], "b": [2.0]}
    assert read("1,a\n2,b\n", header=False)[0] == {"x0": [1.0, 2.0], "x1": ["a", "b"]}
    for wrong in ({"delimiter": ";;"}, {"decimal": "x"}, {"encoding": "no-such"}, {"encoding": "hex"}):
        with pytest.raises(ValueError, match=f"--{next(iter(wrong))}"):
            read("a,b\n1,2\n", **wrong)


def test_the_order_of_days_and_months_is_decided_and_said():
    found, notes = read("t,u\n1/2/2024,31/12/2024\n3/4/2024,30/12/2024\n")
    assert found["t"] == [day(2024, 2, 1), day(2024, 4, 3)] and "'t' are read as day/month/year" in notes
    found, notes = read("t\n1/2/2024\n3/4/2024\n")
    assert found["t"] == [day(2024, 1, 2), day(2024, 3, 4)] and "month/day/year" in notes
    assert "month/day" not in read("t\n1/2/2024\n3/14/2024\n")[1]


LAYOUTS = {
    "a delimiter in quotes": ('"weight, kg";c;y\n70;red;a\n71;blue;b\n', ["weight, kg", "c", "y"]),
    "a bar": ("a|b\n1|x, y\n2|z\n", ["a", "b"]),
    "a line that names the delimiter": ("sep=;\r\nx;y\r\n1,5;2\r\n", ["x", "y"]),
    "words with commas alone": ("note\nhello, world\nfoo; bar\n", ["note"]),
    "decimal commas alone": ("x\n1,5\n2,25\n", ["x"]),
    "quotes behind a blank": ('x, "y"\n1,2\n', ["x", "y"]),
    "tabs and a lone quote": ('a\tb\n5" pipe\tx,y\n3\tz\n', ["a", "b"]),
    "words with commas in one column": ('note\n"hello, world"\nfoo\n', ["note"]),
    "decimal commas between semicolons": ("x;y\n1,5;2,5\n3,5;4,5\n", ["x", "y"]),
    "a line of names with a line feed": ('x,"y\nz"\n1,2\n', ["x", "y\nz"]),
    "comments": ("# made by hand, in a hurry\n#\na,b\n1,2\n", ["a", "b"]),
    "names behind a #": ("# made by hand\n#a,b\n1,2\n3,4\n", ["a", "b"]),
    "empty lines first": ("\n\na,b\n1,2\n", ["a", "b"]),
    "the index of pandas": (",x,y\n0,1,2\n1,3,4\n", ["column 1", "x", "y"]),
    "the row names of R": ('"x","y"\n"1",5,6\n"2",7,8\n', ["column 1", "x", "y"]),
    "a delimiter at the end": ("a,b,\n1,2,\n", ["a", "b", "column 3"]),
    "names twice": ("x,x,x_2,x\n1,2,3,4\n", ["x", "x_3", "x_2", "x_4"]),
    "blanks around names": ("x , y\n1,2\n", ["x", "y"]),
    "returns": ("a,b\r\n1,2\r\n3,4\r\n", ["a", "b"]),
    "returns alone": ("a,b\r1,2\r3,4\r", ["a", "b"]),
}


@pytest.mark.parametrize(("content", "names"), LAYOUTS.values(), ids=LAYOUTS)
def test_layout(content, names):
    assert open_table(write(content)).names == names


def test_names_that_change_are_noted():
    notes = open_table(write(",x,x\n0,1,2\n")).notes
    assert any("'column 1'" in note for note in notes) and any("'x_2'" in note for note in notes)
    assert any("# are skipped: 1" in note for note in open_table(write("# hi\na,b\n1,2\n")).notes)
    assert any("--header none" in note for note in open_table(write("1,2\n3,4\n")).notes)


def test_lines_without_anything():
    assert read("x,y\n1,a\n\n2,b\n   \n\t\n3,c\n")[0] == {"x": [1.0, 2.0, 3.0], "y": ["a", "b", "c"]}
    assert read("x\n1\n\n5")[0] == {"x": [1.0, N, 5.0]}
    assert read("x\n1\n  \n5\n\n")[0] == {"x": [1.0, N, 5.0, N]}
    assert read("x,y\n1,a\n,\n")[0] == {"x": [1.0, N], "y": ["a", N]}
    _, notes = read("x,y\n\n1,a\n   \noops,b\n2,c\n3,d\n4,e\n5,f\n")
    assert "'oops' in line 5" in notes
    _, notes = read('x,y\n1,"a\nb"\noops,b\n2,c\n3,d\n4,e\n5,f\n')
    assert "'oops' in line 4" in notes


@pytest.mark.parametrize("size", [300_000, 1_200_000, 20_000_000])
@pytest.mark.parametrize("quote", ["", '"'])
def test_a_field_of_any_length(size, quote):
    field = quote + "z" * (size - 1) + ("\n" if quote else "z") + quote
    rows = [f"{i % 7},{field if i == 5 else 'zzz'},{'ab'[i % 7 > 3]}" for i in range(60)]
    found, _ = read("x,note,y\n" + "\n".join(rows) + "\n")
    assert found["x"] == [float(i % 7) for i in range(60)]
    assert [len(word) for word in found["note"]] == [size - bool(quote) if i == 5 else 3 for i in range(60)]


@pytest.mark.parametrize("block", [1, 7, 64, 1000])
def test_blocks_of_any_size_give_the_same_rows(monkeypatch, block):
    rng = random.Random(0)
    words = ["a", '"b, c"', '"d\ne"', '"f ""g"" h"', "", '5" pipe']
    expected = ["a", "b, c", "d\ne", 'f "g" h', None, '5" pipe']
    picks = [rng.randrange(6) for _ in range(200)]
    content = "k,w\r\n" + "".join(f"{number},{words[pick]}\r\n" for number, pick in enumerate(picks))
    monkeypatch.setattr(reading, "BLOCK_BYTES", block)
    monkeypatch.setattr(text_table, "WIDE_BYTES", 1)
    found, _ = read(content)
    assert found == {"k": [float(n) for n in range(200)], "w": [expected[pick] for pick in picks]}


ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-32"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_byte_order_mark_is_understood(monkeypatch, encoding):
    monkeypatch.setattr(reading, "BLOCK_BYTES", 5)
    assert read("näme,y\n1,é€\n2,x\n".encode(encoding))[0] == {"näme": [1.0, 2.0], "y": ["é€", "x"]}


@pytest.mark.parametrize(
    "encoding", ["cp1252", "latin-1", "utf-16", "utf-16-le", "utf-32", "utf-8-sig", "shift_jis", "cp1251"]
)
def test_the_user_names_the_encoding(encoding):
    word = {"shift_jis": "日本", "cp1251": "Привет"}.get(encoding, "é")
    assert read(f"x,y\n1,{word}\n".encode(encoding), encoding=encoding)[0]["y"] == [word]


def test_advice_on_an_encoding_can_be_followed():
    content = "x,y\r\n1,é\r\n"
    for encoding in ("utf-16-le", "utf-16-be", "cp1252"):
        with pytest.raises(ValueError, match="--encoding") as caught:
            read(content.encode(encoding))
        said = str(caught.value).split("--encoding ")[1].split()[0].strip(",")
        assert read(content.encode(encoding), encoding=said)[0] == {"x": [1.0], "y": ["é"]}
    for encoding in ("utf-16", "utf-8", "ascii", "shift_jis", "utf-32", "utf-7"):
        with pytest.raises(ValueError, match=f"file.csv is not text in --encoding {encoding}"):
            read(b"x,y\n1,\xe9\xff\n", encoding=encoding)


def test_control_characters_make_no_binary_file():
    hive = "x\x01y\n1\x01a\n2\x01b\n"
    assert read(hive, delimiter="\x01")[0] == {"x": [1.0, 2.0], "y": ["a", "b"]}
    assert read(hive.encode("latin-1") * 1, delimiter="\x01", encoding="latin-1")[0]["y"] == ["a", "b"]
    for sign in ("\x01", "\x07", "\x19"):
        for rows in (1, 1000):
            assert read("x,y\n" + f"1,a{sign}\n" * rows)[0]["y"] == [f"a{sign}"] * rows
    with pytest.raises(ValueError, match="say --encoding cp1252"):
        read(b"x,y\n1,\xe9\x01\n")
    with pytest.raises(ValueError, match=r"no text, and of no kind that is known: .*--encoding"):
        read(b"\xe9\x01\x02\x03" * 9)


FAULTS = {
    "cp1252": ("x,y\n1,é\n".encode("cp1252"), r"not UTF-8 text \(about byte 7\): say --encoding cp1252"),
    "UTF-16 without a mark": ("x,y\n1,2\n3,4\n".encode("utf-16-le"), "--encoding utf-16"),
    "a line too short": ("a,b,c\n1,2,3\n1,2\n", "line 3: expected 3 columns, got 2"),
    "a line too long": ("a,b\n1,2\n\n1,2,3\n", "line 4: expected 2 columns, got 3"),
    "an open quote": ('a,b\n1,"2\n3,4\n', "line 2: a quote opens a field"),
    "nothing": ("", "is empty"),
    "names alone": ("a,b\n", "no rows"),
    "line feeds alone": ("\n\n", "holds no rows"),
    "JSON with a fault": ('{"a": 1}\n{"a": \n', "line 2: not JSON"),
    "JSON of columns": ('{"a": {"0": 1}, "b": {"0": 2}}', "orient='records'"),
    "JSON of numbers": ('{"a": 1}\n[1, 2]\n', "line 2: expected an object"),
    "a web page": ("<!DOCTYPE html><html><table></table></html>", "web page.*read_html"),
    "a pickle": (pickle.dumps([1, 2]), "pickle, which is never opened"),
    "an Excel workbook of 1997": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "Excel workbook.*read_excel"),
    "an array": (b"\x93NUMPY\x01\x00v", "NumPy array"),
}


@pytest.mark.parametrize(("content", "message"), FAULTS.values(), ids=FAULTS)
def test_faults_are_named(content, message):
    with pytest.raises(ValueError, match=message) as caught:
        read(content)
    assert "file.csv" in str(caught.value) and len(str(caught.value)) < 300


def test_a_ragged_line_late_in_a_long_file_is_named():
    lines = ["1,2"] * 40_000
    lines[39_000] = "1"
    table_file = open_table(write("a,b\n" + "\n".join(lines)))
    with pytest.raises(ValueError, match="line 39,002: expected 2 columns, got 1"):
        columns(table_file)


def zipped(**members: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in members.items():
            archive.writestr(name.replace("_", ".").replace("SLASH", "/").replace("LINE", "_"), data)
    return content.getvalue()


PLAIN = b"x,y\n1,a\n2,b\n"
PACKED = {
    "file.csv.gz": gzip.compress(PLAIN),
    "two-parts.csv.gz": gzip.compress(PLAIN[:8]) + gzip.compress(PLAIN[8:]),
    "file.csv.bz2": bz2.compress(PLAIN),
    "file.csv.xz": lzma.compress(PLAIN),
    "file.csv.zst": pa.compress(PLAIN, "zstd", asbytes=True),
    "file.zip": zipped(file_csv=PLAIN),
    "with-more.zip": zipped(file_csv=PLAIN, README=b"hello", **{"MACOSXSLASH.hidden.csv": b"?"}),
    "known-by-its-bytes": gzip.compress(PLAIN),
    "rows.jsonl": b'{"x": 1, "y": "a"}\n\n{"y": "b", "x": 2}\n',
    "rows.ndjson.gz": gzip.compress(b'{"x": 1, "y": "a"}\n{"x": 2.0, "y": "b"}'),
    "rows.json": b'[{"x": 1, "y": "a"},\n {"x": 2, "y": "b"}]\n',
}


@pytest.mark.parametrize(("name", "content"), PACKED.items(), ids=PACKED)
def test_containers_of_text(name, content):
    table_file = open_table(write(content, name))
    assert columns(table_file) == {"x": [1.0, 2.0], "y": ["a", "b"]}
    assert columns(table_file) == {"x": [1.0, 2.0], "y": ["a", "b"]}


def test_containers_that_cannot_be_read_say_what_to_do():
    for name, content, message in (
        ("two.zip", zipped(a_csv=PLAIN, b_csv=PLAIN), r"2 tables \(a.csv, b.csv\)"),
        ("arrays.npz", zipped(a_npy=b"1", b_npy=b"2"), "NumPy arrays"),
        ("none.zip", zipped(), "no|cannot be read|not compressed"),
        ("half.csv.gz", gzip.compress(PLAIN * 1000)[:-20], "cannot be read"),
        ("text.gz", PLAIN, "not compressed, despite its name"),
        ("text.parquet", PLAIN, "not a Parquet file"),
        ("text.feather", PLAIN, "not an Arrow file"),
    ):
        with pytest.raises(ValueError, match=message):
            columns(open_table(write(content, name)))
    book = io.BytesIO()
    with zipfile.ZipFile(book, "w") as archive:
        archive.writestr("[Content_Types].xml", "")
    with pytest.raises(ValueError, match=r"Excel workbook.*read_excel"):
        open_table(write(book.getvalue(), "book.xlsx"))


def tarred(content: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        about = tarfile.TarInfo("table.csv")
        about.size = len(content)
        archive.addfile(about, io.BytesIO(content))
    return packed.getvalue()


FRAME = pd.DataFrame({"x": [1.0, 2.0], "y": ["a", "b"]})
NOISE = np.random.default_rng(0).integers(0, 256, 4000, dtype=np.uint8).tobytes()
FOREIGN = {
    "t.tar": (tarred(PLAIN), "is a tar archive: unpack it"),
    "t.tar.gz": (gzip.compress(tarred(PLAIN)), "is a tar archive: unpack it"),
    "t.tgz": (gzip.compress(tarred(PLAIN)), "is a tar archive: unpack it"),
    "t.tar.xz": (lzma.compress(tarred(PLAIN)), "is a tar archive: unpack it"),
    "t.rds": (gzip.compress(b"X\n\0\0\0\3\0\4\1\2" + NOISE), "is a file of R: .*write.csv"),
    "t.RData": (bz2.compress(b"RDX3\nX\n\0\0\0\3" + NOISE), "is a file of R"),
    "t.pkl": (pickle.dumps(FRAME), "is a pickle, which is never opened"),
    "old.pkl": (pickle.dumps(FRAME.to_dict(), protocol=0), "is a pickle"),
    "t.pkl.gz": (gzip.compress(pickle.dumps(FRAME)), "is a pickle"),
    "t.sav": (b"$FL2@(#) SPSS DATA FILE" + NOISE, "is an SPSS file: .*read_spss"),
    "t.dta": (b"<stata_dta><header><release>118" + NOISE, "is a Stata file: .*read_stata"),
    "old.dta": (b"\x72\x02\x01\0" + NOISE, "is a Stata file"),
    "t.sas7bdat": (bytes(12) + b"\xc2\xea\x81\x60" + NOISE, "is a SAS file: .*read_sas"),
    "t.xpt": (b"HEADER RECORD*******LIBRARY HEADER RECORD!!!!!!!" + b"0" * 200, "is a SAS file"),
    "t.xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + NOISE, "is an Excel workbook"),
    "t.docx": (zipped(**{"[ContentLINETypes]_xml": b"", "wordSLASHdocument.xml": b""}), "document of Word"),
    "t.ods": (zipped(mimetype=b"", content_xml=b""), "OpenDocument"),
    "t.pt": (zipped(archiveSLASHdata_pkl=b"", archiveSLASHversion=b""), "is a pickle"),
    "t.7z": (b"7z\xbc\xaf\x27\x1c" + NOISE, "is a 7z archive: unpack it"),
    "t.rar": (b"Rar!\x1a\x07\1\0" + NOISE, "is a RAR archive: unpack it"),
    "t.csv.lz4": (b"\x04\x22\x4d\x18" + NOISE, "compressed by lz4"),
    "t.mat": (b"MATLAB 5.0 MAT-file, Platform: GLNXA64, Created on: Mon" + NOISE, "is a MATLAB file"),
    "t.dbf": (b"\x03\x5f\x07\x1a" + NOISE, "is a dBase file"),
    "t.png": (b"\x89PNG\r\n\x1a\n" + NOISE, "is a picture"),
    "t.arff": (b"@RELATION t\n@ATTRIBUTE x NUMERIC\n@DATA\n1\n", "is an ARFF file"),
    "t.safetensors": (b"\x40\0\0\0\0\0\0\0" + b'{"a":1}' + NOISE, "safetensors file, such as a state"),
    "t.pdf": (b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<< /Type /Catalog >>\n", "is a PDF document"),
    "letters.rds": (b"A\n3\n262657\n197888\n5\nUTF-8\n787\n", "is a file of R"),
    "letters.RData": (b"RDA3\nA\n3\n262657\n197888\n5\nUTF-8\n1026\n", "is a file of R"),
    "t.bin": (NOISE, "is no text, and of no kind that is known"),
    "counts": (np.arange(5000, dtype=np.int32).tobytes(), "is no text, and of no kind that is known"),
    "t.csv": (PLAIN.decode().encode("utf-16-le"), "say --encoding utf-16"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_of_another_kind_is_called_by_its_kind(name):
    content, said = FOREIGN[name]
    with pytest.raises(ValueError, match=said):
        columns(open_table(write(content, name)))


@pytest.mark.parametrize(
    "name", ["ORC", "PAR1", "ARROW1", "BZh", "FEA1", "%PDF", "GIF8", "MATLAB ", "Obj", "$FL2"]
)
@pytest.mark.parametrize("suffix", ["csv", "dta"])
def test_names_that_begin_as_another_format_are_names(name, suffix):
    table_file = open_table(write(f"{name},y\n1,a\n2,b\n".encode(), f"t.{suffix}"))
    assert columns(table_file) == {name.strip(): [1.0, 2.0], "y": ["a", "b"]}
    assert columns(open_table(write(f"{name}\n1\n2\n", f"t.{suffix}"))) == {name.strip(): [1.0, 2.0]}


NOT_FOREIGN = {
    "the letters of DuckDB": ("t.csv", "species,DUCK,GOOSE\nx,1,2\n", "DUCK", [1.0]),
    "the letters of DuckDB in one column": ("t.csv", "species DUCK\n1\n2\n", "species DUCK", [1.0, 2.0]),
    "the letters of tar": ("t.csv", f"x,y\n1,{'-' * 250}mustard\n", "x", [1.0]),
    "the letters of tar in one column": ("t.csv", f"x\n{'-' * 254}mustard\n", "x", [f"{'-' * 254}mustard"]),
    "the letters of ARFF": ("t.csv", "@relation,y\n1,a\n", "@relation", [1.0]),
    "the letters of ARFF in one column": ("t.csv", "@relations\n1\n", "@relations", [1.0]),
    "one column, called a pickle": ("t.pkl", "x\n1\n2\n", "x", [1.0, 2.0]),
    "one column, called a workbook": ("t.xls", "größe\n1\n2\n", "größe", [1.0, 2.0]),
}


@pytest.mark.parametrize("case", NOT_FOREIGN)
def test_letters_of_another_kind_make_no_file_of_that_kind(case):
    name, content, header, cells = NOT_FOREIGN[case]
    assert columns(open_table(write(content, name)))[header] == cells


@pytest.mark.parametrize("more", ["metadata_pkl", "archiveSLASHdata_pkl", "mimetype", "index_iwa"])
def test_a_table_in_an_archive_is_read_whatever_lies_beside_it(more):
    table_file = open_table(write(zipped(table_csv=PLAIN, **{more: b"\x80\4"}), "t.zip"))
    assert columns(table_file) == {"x": [1.0, 2.0], "y": ["a", "b"]}


def test_what_is_compressed_is_never_taken_for_text():
    for size in range(2800, 2960, 5):
        content = ("x,y\n" + "1,a\n" * size)[: size - 1] + "\n"
        start = pa.compress(content.encode(), "zstd", asbytes=True)
        assert containers._compression(start) == "zstd", size
    # the size of the contents may spell a delimiter and a line feed
    write(b"\x28\xb5\x2f\xfd`,\n" + pa.compress(PLAIN, "zstd", asbytes=True)[6:], "t.csv.zst")
    with pytest.raises(ValueError, match="cannot be read"):
        columns(open_table("t.csv.zst"))
    for level in range(1, 10):
        for content in (PLAIN, b""):
            # the checksum may spell them too
            start = bz2.compress(content, level)[:10] + b",\n"
            assert containers._compression(start) == "bz2"
    write(bz2.compress(b"") + bz2.compress(PLAIN), "t.csv.bz2")
    assert columns(open_table("t.csv.bz2")) == {"x": [1.0, 2.0], "y": ["a", "b"]}


def test_objects_may_leave_out_what_they_lack():
    write('{"a": 1, "b": 2}\n' * 3, "part-1.jsonl")
    write('{"a": 1, "c": "x"}\n', "part-2.jsonl")
    found = columns(open_table("part-*.jsonl"))
    assert found == {"a": [1.0] * 4, "b": [2.0, 2.0, 2.0, N], "c": [N, N, N, "x"]}
    cells = {"a": Cells("number"), "b": Cells("text")}
    late = '{"a": 1}\n' * 40_000 + '{"a": 2, "b": "late"}\n'
    for options in (ReadOptions(), ReadOptions(columns=cells)):
        table_file = open_table(write(late, "late.jsonl"), options)
        assert table_file.names == ["a", "b"] and columns(table_file, cells)["b"][-1] == "late"


def test_json_strings_of_digits_stay_words():
    content = '{"a": "12", "b": 7, "c": true, "d": "2024-01-01", "e": null}\n'
    content += '{"a": "13", "b": 8.5, "c": null, "d": null}\n'
    table_file = open_table(write(content, "rows.jsonl"))
    assert table_file.kinds == {"a": "text", "b": "number", "c": "boolean", "d": "date", "e": None}
    assert columns(table_file)["d"] == [day(2024, 1, 1), N]


TYPED = {
    "whole numbers": (pa.array([1, N, 3], pa.int8()), [1.0, N, 3.0]),
    "NaN and infinity": (pa.array([1.5, np.nan, np.inf]), [1.5, N, N]),
    "decimals": (pa.array([1, 2, N]).cast(pa.decimal128(25, 2)), [1.0, 2.0, N]),
    "identifiers": (pa.array([2**60, 2**60 + 1, N], pa.uint64()), [str(2**60), str(2**60 + 1), N]),
    "words": (pa.array(["007", " a ", ""]), ["007", "a", N]),
    "None among words": (pa.array(["None", "NA", N]), ["None", "NA", N]),
    "long words": (pa.array(["a", N, "b"], pa.large_string()), ["a", N, "b"]),
    "codes": (pa.array(["a", "b", N]).dictionary_encode(), ["a", "b", N]),
    "true": (pa.array([True, N, False]), [True, N, False]),
    "seconds": (pa.array([0, -(2**40), 2**40], pa.timestamp("s")), [day(1970, 1, 1), N, N]),
    "milliseconds": (
        pa.array([1, N, -1], pa.timestamp("ms")),
        [day(1970, 1, 1, 0, 0, 0, 1000), N, day(1969, 12, 31, 23, 59, 59, 999000)],
    ),
    "nanoseconds": (
        pa.array([1999, N, -1], pa.timestamp("ns")),
        [day(1970, 1, 1, 0, 0, 0, 1), N, day(1969, 12, 31, 23, 59, 59, 999999)],
    ),
    "a zone": (
        pa.array([0, N, 10**6], pa.timestamp("us", "Europe/Berlin")),
        [day(1970, 1, 1), N, day(1970, 1, 1, 0, 0, 1)],
    ),
    "days": (pa.array([dt.date(1, 1, 1), dt.date(9999, 12, 31), N]), [day(1, 1, 1), day(9999, 12, 31), N]),
}


@pytest.mark.parametrize("name", ["f.parquet", "f.arrow", "f.arrows"])
@pytest.mark.parametrize(("array", "values"), TYPED.values(), ids=TYPED)
def test_columns_with_types(name, array, values):
    table = pa.table({"x": array, "k": pa.array(range(len(array)))})
    save(table, name)
    assert columns(open_table(name)) == {"x": values, "k": [0.0, 1.0, 2.0]}


def save(table: pa.Table, name: str) -> str:
    if name.endswith(".parquet"):
        pa.parquet.write_table(table, name)
    elif name.endswith(".csv"):
        table.to_pandas().to_csv(name, index=False)
    else:
        new = pa.ipc.new_file if name.endswith(".arrow") else pa.ipc.new_stream
        with pa.OSFile(name, "wb") as file, new(file, table.schema) as writer:
            writer.write_table(table)
    return name


def test_all_containers_agree():
    rows = 50
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "number": rng.normal(size=rows).round(3),
            "whole": rng.integers(0, 9, rows),
            "word": rng.choice(["None", "NA!", "a b"], rows),
            "day": pd.Timestamp("1650-01-01").as_unit("us")
            + pd.to_timedelta(rng.integers(0, 10**5, rows), unit="D"),
            "moment": pd.Timestamp("2024-01-01 10:00:00.123456", tz="UTC").as_unit("us")
            + pd.to_timedelta(rng.integers(0, 99, rows), unit="h"),
            "truth": rng.random(rows) > 0.5,
            "id": rng.integers(2**60, 2**61, rows),
        }
    )
    frame.loc[3, "number"] = np.nan
    frame.loc[4, "word"] = None
    frame.to_csv("f.csv", index=False)
    frame.to_csv("g.csv", index=False, sep=";", decimal=",")
    frame.to_json("f.jsonl", orient="records", lines=True, date_format="iso", date_unit="us")
    table = pa.Table.from_pandas(frame, preserve_index=False)
    names = [save(table, name) for name in ("f.parquet", "f.arrow", "f.arrows")]
    first = columns(open_table("f.csv"))
    assert open_table("f.csv").kinds == open_table("f.parquet").kinds
    for name in (*names, "g.csv", "f.jsonl"):
        assert columns(open_table(name)) == first, name


@pytest.mark.parametrize("name", ["f.parquet", "f.csv"])
def test_a_state_decides_how_columns_are_read(name):
    table = pa.table(
        {"n": ["1,5", "x"], "t": ["2024-01-01", "2024-01-02T00:00Z"], "b": [True, N], "w": [7, 8]}
    )
    save(table, name)
    cells = {"n": Cells("number", decimal=","), "t": Cells("date"), "b": Cells("number"), "w": Cells("text")}
    table_file = open_table(name, ReadOptions(columns=cells))
    assert table_file.cells == cells
    found = columns(table_file)
    assert found == {"n": [1.5, N], "t": [day(2024, 1, 1), day(2024, 1, 2)], "b": [1.0, N], "w": ["7", "8"]}
    assert "'x'" in table_file.notes_after()[0] and len(table_file.notes_after()) == 1
    assert table_file.sample.num_rows == 2


def test_text_of_columns_with_types():
    moment = pa.array([dt.datetime(2024, 1, 1, 10), N])
    table = pa.table(
        {"i": [1, N], "f": [2.0, 0.1], "b": [True, False], "t": moment, "d": moment.cast("date32")}
    )
    table_file = open_table(save(table, "f.parquet"))
    found = columns(table_file, {name: Cells("text") for name in table.column_names})
    assert found["i"] == ["1", N] and found["f"] == ["2", "0.1"] and found["b"] == ["true", "false"]
    assert found["t"] == ["2024-01-01 10:00:00", N] and found["d"] == ["2024-01-01", N]


def test_a_column_of_numbers_as_it_is_spelt():
    content = column("1", "2", "NA", "", "1", "01", "?", "2.50")
    table_file = open_table(write(content))
    found = columns(table_file, {"x": as_spelt(Cells("number"))})
    assert found["x"] == ["1", "2", N, N, "1", "01", N, "2.50"]


def test_types_that_do_not_fit_are_named():
    table_file = open_table(save(pa.table({"x": [1, 2], "l": [[1], [2]]}), "f.parquet"))
    with pytest.raises(ValueError, match="column 'x' holds dates so far; got numbers"):
        columns(table_file, {"x": Cells("date")})
    with pytest.raises(ValueError, match="column 'l' is of type list"):
        reading.check_readable(table_file, ["x", "l"])
    assert table_file.cells["l"] is None


def test_columns_of_one_name_in_parquet():
    table = pa.Table.from_arrays([pa.array([1, 2]), pa.array(["a", "b"])], names=["x", "x"])
    assert columns(open_table(save(table, "f.parquet"))) == {"x": [1.0, 2.0], "x_2": ["a", "b"]}


def test_folders_and_patterns():
    for folder, content in (("year=2023", "x,y\n1,a\n2,b\n"), ("year=2024", "y,x\nc,3\nd,4\n")):
        Path("data", folder).mkdir(parents=True)
        Path("data", folder, "part.csv").write_text(content)
    Path("data/_SUCCESS").touch()
    rows = {"x": [1.0, 2.0, 3.0, 4.0], "y": ["a", "b", "c", "d"]}
    assert columns(open_table("data")) == {**rows, "year": [2023.0] * 2 + [2024.0] * 2}
    assert columns(open_table("data/*/*.csv")) == rows
    Path("data/year=2024/part.csv").write_text("x,z\n1,2\n")
    with pytest.raises(ValueError, match=r"year=2023/part.csv has a column 'y' that .*year=2024/part.csv"):
        open_table("data/*/*.csv")
    for name, message in (
        ("none", "does not exist"),
        ("", "name of the file is empty"),
        ("loop", "does not exist"),
        ("no*.csv", "no file fits"),
        ("empty", "folder without tables"),
    ):
        Path("empty").mkdir(exist_ok=True)
        if not Path("loop").is_symlink():
            Path("loop").symlink_to("loop")
        with pytest.raises(ValueError, match=message):
            open_table(name)


def test_a_stream_of_small_batches_gives_a_sample(monkeypatch):
    table = pa.table({"x": pa.array(["a", "b"] * 50).dictionary_encode(), "y": np.arange(100.0)})
    known = {"x": Cells("text"), "y": Cells("number")}
    for options, count in (
        (ReadOptions(), 100),
        (ReadOptions(columns=known, sampled=True), 100),
        (ReadOptions(columns=known), 8),
    ):
        content = io.BytesIO()
        with pa.ipc.new_stream(content, table.schema) as file:
            file.write_table(table, max_chunksize=8)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.getvalue())))
        table_file = open_table("-", options)
        assert table_file.sample.num_rows == count
        assert columns(table_file) == {"x": ["a", "b"] * 50, "y": list(range(100))}


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("rows", [3, 6000])
def test_the_value_of_a_folder_stands_before_that_in_its_files(rows, suffix):
    for year in (2023, 2024):
        Path("data", f"year={year}").mkdir(parents=True)
        lines = [{"x": i, "pad": "p" * 50} for i in range(rows)]
        lines[-1]["year"] = "old"
        frame = pd.DataFrame(lines)
        path = f"data/year={year}/part.{suffix}"
        if suffix == "csv":
            frame.to_csv(path, index=False)
        elif suffix == "parquet":
            frame.to_parquet(path, index=False)
        else:
            write("".join(json.dumps(line) + "\n" for line in lines), path)
    for options in (ReadOptions(), ReadOptions(columns={"year": Cells("number"), "x": Cells("number")})):
        table_file = open_table("data", options)
        found = columns(table_file, {name: Cells("number") for name in ("x", "year")})
        assert found["year"] == [2023.0] * rows + [2024.0] * rows and len(found["x"]) == 2 * rows
        assert table_file.kinds["year"] == "number"
        said = [note for note in table_file.notes if "'year'" in note]
        assert said == ["column 'year': as the folders say, whatever stands in the files"]


def test_a_folder_of_parquet():
    from pyarrow import dataset

    table = pa.table({"a": [1, 2, 3], "k": ["u", "v", "v"]})
    dataset.write_dataset(table, "parts", format="parquet", partitioning=["k"], partitioning_flavor="hive")
    assert columns(open_table("parts")) == {"a": [1.0, 2.0, 3.0], "k": ["u", "v", "v"]}


def test_notes_of_several_files_name_the_file():
    for number in range(3):
        write("x\n1\n2\n3\noops\n4\n5\n", f"part-{number}.csv")
    table_file = open_table("part-*.csv")
    columns(table_file)
    assert "'oops' in line 5 of part-0.csv (3 cells)" in table_file.notes_after()[0]


@pytest.mark.parametrize("most", [1 << 20, 500])
@pytest.mark.parametrize("shuffle", [1, 2])
@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_the_sample_is_that_of_any_order(suffix, shuffle, most, monkeypatch):
    monkeypatch.setattr(sampling, "MOST_HASHES", most)
    monkeypatch.setattr(reading, "SAMPLE_ROWS", 200)
    frame = pd.DataFrame({"x": np.arange(3000) // 2, "y": ["a", "b", "c"] * 1000})
    samples = []
    for order in (frame, frame.sample(frac=1, random_state=shuffle)):
        if suffix == "csv":
            order.to_csv("f.csv", index=False)
        elif suffix == "parquet":
            order.to_parquet("f.parquet", index=False, row_group_size=700)
        else:
            order.to_json("f.jsonl", orient="records", lines=True)
        samples.append(open_table(f"f.{suffix}").sample)
    assert samples[0].equals(samples[1]) and samples[0].num_rows == 200
    x = samples[0]["x"].to_numpy()
    assert abs(x.mean() - 750) < 5 * 433 / 200**0.5 and x.max() > 1350


def test_a_sample_counts_rows_that_stand_many_times(monkeypatch):
    monkeypatch.setattr(reading, "SAMPLE_ROWS", 1000)
    content = "x,y\n" + "".join(f"{number if number % 2 else 0},{number % 2}\n" for number in range(20_000))
    sample = open_table(write(content)).sample
    assert abs(sample["y"].to_numpy().mean() - 0.5) < 0.08


def test_a_stream_is_read_once_and_gives_its_first_rows_early(monkeypatch):
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as source, os.fdopen(writer, "wb", buffering=0) as sink:
        monkeypatch.setattr(sys, "stdin", source)
        sink.write(b"x,y\n1,a\n2,b\n")
        cells = {"x": Cells("number"), "y": Cells("text")}
        table_file = open_table("-", ReadOptions(columns=cells))  # nothing else has been written yet
        assert not table_file.rereadable and table_file.sample.num_rows == 2
        stream = table_file.stream(cells)
        assert next(stream)[0]["x"].to_pylist() == [1.0, 2.0]
        sink.write(b"3,c\n4,")
        assert next(stream)[0]["y"].to_pylist() == ["c"]
        sink.write(b"d")
        sink.close()
        assert next(stream)[0].to_pydict() == {"x": [4.0], "y": ["d"]}
        with pytest.raises(ValueError, match="read once"):
            columns(table_file)


@pytest.mark.parametrize(
    "content", [PLAIN, gzip.compress(PLAIN, mtime=0), b'{"x": 1, "y": "a"}\n{"x": 2, "y": "b"}\n', "arrow"]
)
def test_a_pipe_with_a_name(content):
    if content == "arrow":
        content = Path(save(pa.table({"x": [1, 2], "y": ["a", "b"]}), "f.arrows")).read_bytes()
    os.mkfifo("pipe")
    thread = threading.Thread(target=lambda: Path("pipe").write_bytes(content))
    thread.start()
    table_file = open_table("pipe")
    assert columns(table_file) == {"x": [1.0, 2.0], "y": ["a", "b"]}
    thread.join()


def test_standard_input_that_a_program_has_replaced(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(PLAIN)))
    assert columns(open_table("-")) == {"x": [1.0, 2.0], "y": ["a", "b"]}
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    with pytest.raises(ValueError, match="standard input is empty"):
        open_table("-")


def test_wide_files_take_linear_time():
    n = 4000
    content = (
        ",".join(f"c{j}" for j in range(n)) + "\n" + "\n".join(",".join(["0.5"] * n) for _ in range(3)) + "\n"
    )
    found, _ = read(content)
    assert len(found) == n and found["c3999"] == [0.5] * 3


def test_cells_are_plain_json():
    cells = Cells("date", ".", True, ("gone",))
    assert Cells.from_json(cells.to_json()) == cells
    good = cells.to_json()
    for wrong in (
        None,
        [],
        {},
        {**good, "kind": "list"},
        {**good, "kind": []},
        {**good, "decimal": ""},
        {**good, "day_first": 1},
        {**good, "missing": "gone"},
        {**good, "missing": [1]},
        {**good, "more": 1},
    ):
        with pytest.raises(ValueError, match="column"):
            Cells.from_json(wrong)


def test_a_byte_order_mark_amid_a_file_is_a_cell(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes("|true\x1aé1\n\ufeff".encode())
    with pytest.raises(ValueError, match="line 2: expected 2 columns, got 1"):
        open_table(path)
    path.write_bytes("a,b\n\ufeffx,1\ny,2\n".encode())
    assert sorted(open_table(path).sample["a"].to_pylist()) == ["y", "\ufeffx"]
