"""Cells in containers of every kind: what lists, NumPy, pandas, polars and Arrow say of a cell agrees."""

import datetime
import math
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
from scipy import sparse

from gradatim.preprocessing import read_columns

from .judge import FAILED, REFUSED, attempt

EPOCH = datetime.datetime(1970, 1, 1)
WORDS = (
    "red",
    "Øst",
    "1",
    "007",
    "",
    " ",
    "nan",
    "None",
    "NA",
    "日本",
    "a\0b",
    "\ufeffx",
    "true",
    "2024-01-01",
    "🦉" * 9,
)


def cells_of(rng: np.random.Generator, family: str, n: int) -> list[Any]:
    """Return n cells of a family, a tenth of them missing."""
    if family == "whole":
        bound = 2 ** int(rng.integers(1, 53))
        cells: list[Any] = rng.integers(-bound, bound, n).tolist()
    elif family == "large":
        cells = [2**53 + int(v) for v in rng.integers(1, 2**55, n)]
    elif family == "float":
        cells = (rng.normal(size=n) * 10.0 ** int(rng.integers(-300, 300))).tolist()
    elif family == "truth":
        cells = (rng.random(n) < 0.5).tolist()
    elif family == "date":
        cells = [datetime.date.fromordinal(int(v)) for v in rng.integers(1, 3652059, n, endpoint=True)]
    elif family == "stamp":
        micro = rng.integers(-62135596800000000, 253402300799000000, n)
        if rng.random() < 0.7:
            micro = rng.integers(-(2**52), 2**52, n)
        cells = [EPOCH + datetime.timedelta(microseconds=int(v)) for v in micro]
    elif family == "span":
        cells = [datetime.timedelta(microseconds=int(v)) for v in rng.integers(-(2**50), 2**50, n)]
    elif family == "decimal":
        cells = [Decimal(int(v)) / 100 for v in rng.integers(-(10**9), 10**9, n)]
    else:
        cells = [WORDS[i] for i in rng.integers(0, len(WORDS), n)]
    if rng.random() < 0.5:
        cells = [None if g else c for g, c in zip(rng.random(n) < 0.2, cells, strict=True)]
    return cells


def oracle(cell: Any, family: str) -> Any:
    """Return the float or the text of a cell, None where it is missing."""
    if cell is None:
        return None
    if family in ("whole", "float", "truth", "decimal"):
        return float(cell)
    if family == "large":
        return str(cell)
    if family == "date":
        return float(cell.toordinal() - EPOCH.toordinal())
    if family == "stamp":
        return (cell - EPOCH) / datetime.timedelta(days=1)
    if family == "span":
        return cell / datetime.timedelta(days=1)
    return cell


def as_list(cells: list[Any]) -> Any:
    return [[cell] for cell in cells]


def as_objects(cells: list[Any]) -> Any:
    array = np.empty((len(cells), 1), dtype=object)
    array[:, 0] = cells
    return array


def as_pandas(cells: list[Any]) -> Any:
    return pd.DataFrame({"c": cells})


def as_pandas_objects(cells: list[Any]) -> Any:
    return pd.DataFrame({"c": pd.Series(cells, dtype=object)})


def as_pandas_arrow(cells: list[Any]) -> Any:
    array = pa.array(cells)
    return pd.DataFrame({"c": pd.Series(pd.arrays.ArrowExtensionArray(array))})


def as_pandas_nullable(cells: list[Any]) -> Any:
    kind = next((type(cell) for cell in cells if cell is not None), str)
    dtype = {int: "Int64", float: "Float64", bool: "boolean", str: "string"}[kind]  # of others there is none
    return pd.DataFrame({"c": pd.array(cells, dtype=dtype)})


def as_pandas_category(cells: list[Any]) -> Any:
    return pd.DataFrame({"c": pd.Categorical(cells)})


def as_polars(cells: list[Any]) -> Any:
    return pl.DataFrame({"c": pl.Series("c", cells)})


def as_arrow(cells: list[Any]) -> Any:
    return pa.table({"c": pa.array(cells)})


def as_batch(cells: list[Any]) -> Any:
    return pa.record_batch({"c": pa.array(cells)})


def as_dictionary(cells: list[Any]) -> Any:
    return pa.table({"c": pa.array(cells).dictionary_encode()})


CONTAINERS: tuple[Callable[[list[Any]], Any], ...] = (
    as_list, as_objects, as_pandas, as_pandas_objects, as_pandas_arrow, as_pandas_nullable, as_polars,
    as_arrow,
    as_batch, as_dictionary, as_pandas_category,
)  # fmt: skip
FAMILIES = ("whole", "large", "float", "truth", "date", "stamp", "span", "decimal", "word")


def same(value: Any, wanted: Any, family: str) -> bool:
    """Return whether a cell was read as it should: numbers to rounding, words exactly."""
    if wanted is None or value is None:
        return (value is None or value != value) and wanted is None
    if isinstance(wanted, str):
        return str(value) == wanted
    if isinstance(value, str):
        return False
    return value == wanted or math.isclose(
        value, wanted, rel_tol=1e-12, abs_tol=2e-11 if family in ("stamp", "span") else 0
    )


def agree(rng: np.random.Generator, folder: Path) -> str:
    """Read the same cells from a container and compare them with what they are."""
    family = FAMILIES[rng.integers(len(FAMILIES))]
    cells = cells_of(rng, family, int(rng.integers(1, 7)))
    build = CONTAINERS[rng.integers(len(CONTAINERS))]
    if build is as_list and len(cells) and family == "word":
        cells = [None if cell is None else cell for cell in cells]
    try:
        X = build(cells)
    except Exception:
        return ""  # the container itself does not take these cells
    if (
        build is as_pandas
        and family in ("whole", "large")
        and None in cells
        and max(abs(c or 0) for c in cells) > 2**53
    ):
        return ""  # pandas has rounded them already
    columns, fault = attempt(read_columns, X)
    what = f"{build.__name__[3:]} of {family} {cells!r:.200}"
    if fault:
        return f"{what}: {fault}"
    if columns is REFUSED:
        return f"{what}: refused: {_sentence(X)}"
    values = columns.values[0]
    if all(cell is None for cell in cells):
        return "" if all(v is None or v != v for v in values.tolist()) else f"{what}: {values.tolist()}"
    is_words = build in (as_pandas_category, as_dictionary) and family not in ("word", "large")
    for cell, value in zip(cells, values.tolist(), strict=True):
        if is_words and isinstance(value, str):
            continue  # a category is a name
        if not same(value, oracle(cell, family), family):
            return f"{what}: {cell!r} is read as {value!r}, not {oracle(cell, family)!r}"
    return ""


def _sentence(X: Any) -> str:
    try:
        read_columns(X)
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    return ""


def hostile(rng: np.random.Generator, folder: Path) -> str:
    """Give what is no table, or a table of odd cells: it is read as finite numbers and words, or refused."""
    odd: list[Any] = [
        math.inf, -math.inf, math.nan, 1e308, -1e308, 5e-324, 2**53 + 1, 10**400, -(10**30), None, pd.NA,
        pd.NaT, "a",
        "\ud800", "x" * 100_000, b"\xff", 1j, [], [1], {}, {"a": 1}, (1, 2), set(), object(),
        np.float16(1.5), np.nan,
        np.float32(3.3), np.longdouble(1) / 3, np.datetime64("NaT"), np.datetime64("2024"),
        np.timedelta64(5, "D"),
        np.datetime64(2**62, "s"), Decimal("NaN"), Decimal("Infinity"), Decimal("1e999"), Decimal(1) / 3,
        True,
        datetime.date.min, datetime.date.max, datetime.time(3), datetime.datetime.now(datetime.UTC),
        range(3), type,
        np.array([1, 2]), np.array(3), float, "1e5", " 7 ", "٣", "1_000", "nan", "inf", "", "\0",
    ]  # fmt: skip
    rows, width = int(rng.integers(0, 5)), int(rng.integers(0, 4))
    table = [[odd[i] for i in rng.integers(0, len(odd), width)] for _ in range(rows)]
    form = int(rng.integers(8))
    if form == 0:
        X: Any = table
    elif form == 1:
        X = np.empty((rows, width), dtype=object)
        for i, row in enumerate(table):
            for j, cell in enumerate(row):
                X[i, j] = cell
    elif form == 2:
        names = [("a", "", "a ", 0, None, "é", "\0", ("t", 1))[i] for i in rng.integers(0, 8, width)]
        try:
            X = pd.DataFrame(table, columns=names)
        except Exception:
            return ""
    elif form == 3:
        X = odd[rng.integers(len(odd))]
    elif form == 4:
        shape = tuple(rng.integers(0, 3, int(rng.integers(0, 4))).tolist())
        kinds = ["f2", "f4", "f8", "i1", "u8", "c16", "M8[D]", "M8[Y]", "m8[ns]", "U3", "S2", "?", "O", "V3"]
        X = np.zeros(shape, dtype=kinds[rng.integers(len(kinds))])
    elif form == 5:
        X = sparse.random(max(rows, 1), max(width, 1), 0.5, format=("csr", "coo", "dok")[rng.integers(3)])
    elif form == 6:
        X = [{"a": cell} for row in table for cell in row]
    else:
        X = np.ma.MaskedArray(rng.normal(size=(rows, width)), rng.random((rows, width)) < 0.3)
    columns, fault = attempt(read_columns, X)
    if fault:
        return f"{type(X).__name__} {X!r:.300}: {fault}"
    if columns is REFUSED or columns is FAILED:
        return ""
    for values in columns.values:
        plain = np.asarray(values)
        if plain.dtype == object:
            bad = [v for v in plain.tolist() if not (v is None or isinstance(v, str))]
            if bad:
                return f"{type(X).__name__} {X!r:.300}: a cell is {bad[0]!r}"
        elif plain.dtype != np.float64 or np.isinf(plain).any():
            return f"{type(X).__name__} {X!r:.300}: a column of {plain.dtype}: {plain!r:.100}"
    return ""
