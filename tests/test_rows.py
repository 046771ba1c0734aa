"""Rows from any container, one cell at a time: what a cell means depends on the map, not on its company."""

import copy
import math
import pickle
import warnings
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import narwhals.stable.v2 as nw
import numpy as np
import pytest
from scipy import sparse

from gradatim.preprocessing import Columns, Encoder, labels, read_columns
from gradatim.preprocessing.cells import Cell, Days
from gradatim.preprocessing.columns import convert_column
from gradatim.preprocessing.rows import Rows, read_weights

pd, pl, pa = (pytest.importorskip(name) for name in ("pandas", "polars", "pyarrow"))

# Dates

YEARS = {
    "0001-01-01": -719162,
    "1677-01-01": -107015,
    "1970-01-01": 0,
    "2300-01-01": 120530,
    "9999-12-31": 2932896,
}
DAYS = [date.fromisoformat(text) for text in YEARS] + [None]
NIGHTS = [day and datetime(day.year, day.month, day.day) for day in DAYS]
DATED = {
    "lists of dates": lambda: [[day] for day in DAYS],
    "lists of datetimes": lambda: [[night] for night in NIGHTS],
    "dicts": lambda: [{"x0": day} for day in DAYS],
    "objects": lambda: pd.DataFrame({"x0": pd.Series(DAYS, dtype=object)}),
    "arrow dates": lambda: pa.table({"x0": pa.array(DAYS, pa.date32())}),
    "arrow date64": lambda: pa.table({"x0": pa.array(DAYS, pa.date64())}),
    "pandas arrow dates": lambda: pd.DataFrame({"x0": pd.Series(DAYS, dtype="date32[pyarrow]")}),
    "polars dates": lambda: pl.DataFrame({"x0": DAYS}),
    "narwhals": lambda: nw.from_native(pl.DataFrame({"x0": NIGHTS})),
}
for _unit in ("s", "ms", "us"):
    DATED |= {
        f"array {_unit}": lambda unit=_unit: np.array(NIGHTS, dtype=f"M8[{unit}]")[:, None],
        f"scalars {_unit}": lambda unit=_unit: np.array(NIGHTS, f"M8[{unit}]")[:, None].astype(object),
        f"arrow {_unit}": lambda unit=_unit: pa.table({"x0": pa.array(NIGHTS, pa.timestamp(unit))}),
        f"arrow zoned {_unit}": lambda unit=_unit: pa.table(
            {"x0": pa.array(NIGHTS, pa.timestamp(unit, "UTC"))}
        ),
        f"pandas {_unit}": lambda unit=_unit: pd.DataFrame({"x0": np.array(NIGHTS, dtype=f"M8[{unit}]")}),
        f"pandas arrow {_unit}": lambda unit=_unit: pd.DataFrame(
            {
                "x0": pd.Series(
                    pa.array(NIGHTS, pa.timestamp(unit)).to_pandas(), dtype=f"timestamp[{unit}][pyarrow]"
                )
            }
        ),
    }
DATED |= {
    "array D": lambda: np.array(DAYS, dtype="M8[D]")[:, None],
    "array Y": lambda: np.array(["1970", "NaT"], dtype="M8[Y]")[:, None],
    "polars ms": lambda: pl.DataFrame({"x0": pl.Series(NIGHTS, dtype=pl.Datetime("ms"))}),
}


@pytest.mark.parametrize("container", DATED)
def test_dates_of_every_year_are_the_same_days_in_every_container(container):
    columns = read_columns(DATED[container]())
    wanted = [0.0] if container == "array Y" else list(YEARS.values())
    np.testing.assert_array_equal(columns.values[0], [*wanted, math.nan])
    assert columns.kinds == ("number",)


def test_zoned_dates_are_in_utc_and_meet_those_without_a_zone():
    zone = timezone(timedelta(hours=5, minutes=30))
    noon = datetime(2024, 1, 5, 12, 0, 0, 250000)
    zoned = noon.replace(tzinfo=UTC).astimezone(zone)
    wanted = 19727 + 43200.25 / 86400
    for X in (
        [[noon]],
        [[zoned]],
        [{"t": zoned}],
        pd.DataFrame({"t": [pd.Timestamp(zoned)]}),
        pd.DataFrame({"t": pd.Series([zoned], dtype="timestamp[us, tz=Asia/Kolkata][pyarrow]")}),
        pl.DataFrame(
            {"t": pl.Series([noon]).dt.replace_time_zone("UTC").dt.convert_time_zone("Asia/Kolkata")}
        ),
        pa.table({"t": pa.array([zoned], pa.timestamp("ns", "Asia/Kolkata"))}),
        pd.DataFrame({"t": [pd.Timestamp("2024-01-05T12:00:00.25Z"), pd.NaT][:1]}, dtype=object),
    ):
        np.testing.assert_array_equal(read_columns(X).values[0], [wanted])
    first = datetime.min.replace(tzinfo=zone)
    assert read_columns([[first]]).values[0] == pytest.approx(-719162 - 5.5 / 24, abs=1e-9)


def test_durations_are_days_in_every_container():
    spans = [timedelta(days=400_000, hours=6), timedelta(hours=-12), None]
    for X in (
        [[span] for span in spans],
        np.array(spans, dtype="m8[s]")[:, None],
        pa.table({"d": pa.array(spans, pa.duration("s"))}),
        pd.DataFrame({"d": np.array(spans, dtype="m8[ms]")}),
        pd.DataFrame({"d": pd.Series(spans, dtype="duration[us][pyarrow]")}),
        pl.DataFrame({"d": spans}),
    ):
        np.testing.assert_array_equal(read_columns(X).values[0], [400_000.25, -0.5, math.nan])


# Whole numbers beyond 2^53

IDS = [11898508762506083287 + j for j in range(3)]
NEGATIVE = [-(2**53) - 1, -(2**53) - 2, 5]
WIDE = {
    "array": lambda: np.array(IDS, dtype=np.uint64)[:, None],
    "objects": lambda: np.array(IDS, dtype=object)[:, None],
    "decimals": lambda: [[Decimal(number)] for number in IDS],
    "lists": lambda: [[number] for number in IDS],
    "lists with floats": lambda: [[number, 0.5] for number in IDS],
    "dicts": lambda: [{"id": number} for number in IDS],
    "pandas": lambda: pd.DataFrame({"id": np.array(IDS, dtype=np.uint64)}),
    "pandas beside floats": lambda: pd.DataFrame({"id": np.array(IDS, dtype=np.uint64), "x": [0.5, 1, 2]}),
    "pandas nullable": lambda: pd.DataFrame({"id": pd.array(IDS, dtype="UInt64")}),
    "pandas arrow": lambda: pd.DataFrame({"id": pd.Series(IDS, dtype="uint64[pyarrow]")}),
    "polars": lambda: pl.DataFrame({"id": pl.Series(IDS, dtype=pl.UInt64)}),
    "polars of 128 bits": lambda: pl.DataFrame({"id": pl.Series(IDS, dtype=pl.Int128), "x": [1, 2, 3]}),
    "polars decimals": lambda: pl.DataFrame({"id": [Decimal(number) for number in IDS]}),
    "arrow": lambda: pa.table({"id": pa.array(IDS, pa.uint64())}),
    "arrow decimals": lambda: pa.table({"id": pa.array([Decimal(n) for n in IDS], pa.decimal128(25, 0))}),
    "sparse": lambda: sparse.csr_matrix(np.array(IDS, dtype=np.uint64)[:, None]),
}


@pytest.mark.parametrize("container", WIDE)
def test_whole_numbers_beyond_float64_are_the_text_of_their_digits(container):
    values = read_columns(WIDE[container]()).values
    assert values[0].tolist() == list(map(str, IDS))
    assert all(column.dtype == np.float64 for column in values[1:])


def test_whole_numbers_on_both_sides_of_the_bound_meet():
    text = read_columns(np.array(NEGATIVE)[:, None])
    assert text.values[0].tolist() == list(map(str, NEGATIVE))
    assert read_columns([[None], [2**60 + 1], [math.nan]]).values[0].tolist() == [None, str(2**60 + 1), None]
    assert read_columns(np.array([[2**53], [-(2**53)]])).kinds == ("number",)
    assert read_columns([[1e300], [2.0**60]]).kinds == ("number",)
    small = read_columns(np.array([[5], [6]]))
    encoder = Encoder.fit(text)
    np.testing.assert_array_equal(encoder.encode(small)[0], encoder.encode(text)[2])
    assert Encoder.fit(Columns.concat([small, text])).kinds == ("category",)
    number = Encoder.fit(small).encode(text)
    assert np.isfinite(number).all()
    with_gap = pd.DataFrame({"id": pd.array([2**53 + 1, None], dtype="Int64")})
    assert read_columns(with_gap).values[0].tolist() == [str(2**53 + 1), None]


# A cell by itself

MIXED = {
    "dates and words": [date(2024, 1, 5), "soon", datetime(2024, 1, 6, 12), None, "late"],
    "numbers and words": [1, "a", 2.5, True, None, "b", 1.0],
    "numbers and digits": [1, "1", "2", 2.0, None],
    "dates and numbers": [date(2024, 1, 5), 7, 19727.0, None],
    "durations and words": [timedelta(days=1), "long", None, timedelta(hours=6)],
    "numbers": [1, 2.5, None, Decimal("0.1"), np.float32(0.1), True],
    "dates": [date(2024, 1, 5), pd.Timestamp("2024-01-06 12:00"), np.datetime64("2024-01-07"), pd.NaT],
    "words": ["a", "b", None],
    "bytes and words": [b"a", "b", None],
    "ids and words": [2**60 + 1, "a", 2**60 + 2, 3],
}


@pytest.mark.parametrize("learnt", MIXED)
@pytest.mark.parametrize("asked", MIXED)
def test_a_row_means_the_same_alone_and_in_company(learnt, asked):
    encoder = Encoder.fit(read_columns([[cell] for cell in MIXED[learnt]]))
    rows = [[cell] for cell in MIXED[asked]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        alone = np.concatenate([encoder.encode(read_columns([row])) for row in rows])
        np.testing.assert_array_equal(encoder.encode(read_columns(rows)), alone)
        for frame in (
            pd.DataFrame({"x0": pd.Series(MIXED[asked], dtype=object)}),
            [{"x0": r[0]} for r in rows],
        ):
            np.testing.assert_array_equal(encoder.encode(read_columns(frame)), alone)


@pytest.mark.parametrize("kind", MIXED)
def test_the_map_does_not_depend_on_how_rows_were_cut(kind):
    rows = [[cell] for cell in MIXED[kind]]
    whole = Encoder.fit(read_columns(rows))
    for cut in range(1, len(rows)):
        parts = [rows[:cut], *([row] for row in rows[cut:])]
        joined = Columns.concat([read_columns(part) for part in parts])
        assert Encoder.fit(joined) == whole
        tensors, header = Rows(joined, np.zeros(len(rows)), np.ones(len(rows))).pack()
        back = Rows.unpack(tensors, header).columns
        assert Encoder.fit(back) == whole
        again = pickle.loads(pickle.dumps(copy.deepcopy(back)))
        np.testing.assert_array_equal(whole.encode(again), whole.encode(read_columns(rows)))


def test_dates_that_are_typed_meet_words():
    mixed = Encoder.fit(read_columns([[date(2024, 1, 5)], ["soon"], [datetime(2024, 1, 6, 12)]]))
    stamps = np.array(["2024-01-05", "2024-01-06T12"], dtype="M8[s]")
    wanted = mixed.encode(read_columns([["2024-01-05"], ["2024-01-06 12:00:00"]]))
    assert wanted.sum() == 2 and wanted.argmax(1).tolist() == [0, 1]
    for X in (
        stamps[:, None],
        pd.DataFrame({"x0": stamps}),
        pl.DataFrame({"x0": stamps.astype("M8[us]")}),
        pa.table({"x0": stamps}),
    ):
        np.testing.assert_array_equal(mixed.encode(read_columns(X)), wanted)


def test_a_mostly_numeric_column_that_is_read_as_words_is_said():
    column = [[float(j)] for j in range(40)]
    column[7] = ["-"]
    with pytest.warns(
        UserWarning, match="column 'x0' is read as words because 1 of its 40 cells are, such as '-'"
    ):
        Encoder.fit(read_columns(column))


def test_a_column_with_nothing_in_it_takes_anything():
    for values in (
        np.array(["word", "other"], dtype=object),
        np.array([Cell("2024-01-05", 19727.0, "date"), None], dtype=object),
        np.array([1.0, 2.0]).view(Days),
    ):
        converted = convert_column(values, "number", (), "m", empty=True)
        assert converted.dtype == np.float64 and len(converted) == 2
    assert np.isnan(
        convert_column(np.array(["word", "x"], dtype=object), "number", (), "m", empty=True)
    ).all()
    assert convert_column(np.array([7.0, 8.0]), "category", ["a"], "m", truncated=True).tolist() == [
        "7",
        "8",
    ]


def test_a_cell_that_says_infinity_is_refused():
    encoder = Encoder.fit(read_columns([[1.0], [2.0]]))
    for cell in ("inf", "-Infinity", "1e999"):
        with pytest.raises(ValueError, match="column 'x0' contains infinity"):
            encoder.encode(read_columns([[cell]]))
    with pytest.raises(ValueError, match="column 'x0' contains infinity"):
        read_columns([[Decimal("Infinity")], [1]])


# Rows as dicts, wide rows


def test_dicts_are_rows_with_names():
    rows = [{"a": 1, "b": "x"}, {"b": "y", "c": True}, {}]
    columns = read_columns(rows)
    assert columns.names == ("a", "b", "c") and columns.named
    np.testing.assert_array_equal(columns.values[0], [1, math.nan, math.nan])
    assert columns.values[1].tolist() == ["x", "y", None]
    assert read_columns({"a": 1, "b": "x"}).n_rows == 1
    for X, said in (
        ([{"a": 1}, [2]], "row 1 is a list"),
        ([{}], r"0 feature\(s\)"),
        ({}, r"0 feature\(s\)"),
        ({"a": [1, 2]}, "one row, a single value for each name; got a list for 'a'"),
        ({"a": np.ones(3)}, r"pandas\.DataFrame\(X\)"),
        ([{1: 1, "1": 2}], "column '1' occurs twice"),
    ):
        with pytest.raises(ValueError, match=said):
            read_columns(X)


def test_blanks_around_names_stay_and_a_name_that_stands_twice_is_named():
    assert read_columns(pd.DataFrame({" a": [1], "a ": [2], "": ["x"]})).names == (" a", "a ", "")
    twice = pd.DataFrame(np.ones((1, 4)), columns=["a", "b", "a", "a"])
    with pytest.raises(ValueError, match="column 'a' occurs 3 times, at positions 0, 2, 3"):
        read_columns(twice)
    with pytest.raises(ValueError, match="column 'nan' occurs twice"):
        read_columns(pd.DataFrame(np.ones((1, 2)), columns=["nan", math.nan]))


def test_a_sparse_matrix_that_is_too_large_is_refused_with_its_size():
    for shape in ((1000, 10**6), (10**6, 10**4), (10**9, 10**9)):
        with pytest.raises(ValueError, match=r"sparse matrix .* would take [\d,.]+ GB: choose fewer columns"):
            read_columns(sparse.coo_matrix(shape))


@pytest.mark.parametrize(
    "dtype", ["Int64", "boolean", "Float64", "string", "int64[pyarrow]", "date32[pyarrow]"]
)
def test_a_typed_column_with_nothing_in_it_is_missing(dtype):
    columns = read_columns(pd.DataFrame({"a": pd.array([None, None], dtype=dtype), "b": ["x", "y"]}))
    assert Encoder.fit(columns).kinds == ("number", "category")
    assert all(cell is None or math.isnan(cell) for cell in columns.values[0].tolist())


@pytest.mark.parametrize(
    "item", [math.inf, Decimal("-Infinity"), 10**400, 10**5000, np.float32("inf")], ids=range(5)
)
def test_infinity_is_refused_beside_words_as_alone(item):
    for cells in ([item], [item, "red"], [item, date(2024, 1, 1)], [item, 2**60 + 1], [item, None, b"x"]):
        column = np.empty((len(cells), 1), dtype=object)
        column[:, 0] = cells
        for X in (column, pd.DataFrame({"x0": column[:, 0]}), [{"x0": cell} for cell in cells]):
            with pytest.raises(ValueError, match="column 'x0' contains infinity"):
                read_columns(X)


def test_small_floats_and_bytes_beside_text_are_read_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="scalar"):
            read_columns(np.float16(1.5))
        assert read_columns([[np.float16(1.5)], [np.float16(-2)]]).values[0].tolist() == [1.5, -2]
        assert read_columns([[b"\xff"], ["7"]]).values[0].tolist() == ["\ufffd", "7"]
        halves = np.array([1.0], dtype=np.float16)
        assert labels.union(halves, np.array([2**53 + 1])).tolist() == [1, 2**53 + 1]
        assert labels.read_labels([[b"a"], [b"b"]]).tolist() == [b"a", b"b"]
    for y in ([[b"\xff"], ["a"]], [10**5000, 1]):
        with pytest.raises(ValueError, match="labels"):
            labels.read_labels(y)


ODD_NUMBERS = [
    np.array(["", "1"]), [np.str_("a"), 1], [10**400, 1], [10**5000, 1], [np.complex64(1j), 1],
    [np.datetime64("2024"), 1], [b"\xff", 1], [object(), 1], [{}, 1],
]  # fmt: skip


@pytest.mark.parametrize("values", ODD_NUMBERS, ids=range(len(ODD_NUMBERS)))
def test_what_is_no_number_is_named_in_plain_words(values):
    with pytest.raises(ValueError, match=r"^y must be numbers; got .* \(row 0\)") as refused:
        labels.read_targets(values)
    with pytest.raises(ValueError, match=r"^sample_weight must hold a number .* \(row 0\)") as weighed:
        read_weights(values, 2)
    for error in (refused, weighed):
        assert "np." not in str(error.value) and "<" not in str(error.value)


def test_what_is_no_cell_is_refused_or_missing_whatever_stands_beside_it():
    for item in (object(), print, float, lambda: 1):
        for cells in ([item], [item, "red"], [1.0, item]):
            with pytest.raises(
                TypeError, match=r"column 'x' holds a value of type .*: give what it stands for"
            ):
                read_columns([{"x": cell} for cell in cells])
    assert read_columns([{"x": Decimal("sNaN")}, {"x": "red"}]).values[0].tolist() == [None, "red"]
    with pytest.raises(ValueError, match=r"y has missing values \(row 0\)"):
        labels.read_targets([Decimal("sNaN"), 1])
    with pytest.raises(ValueError, match=r"got a missing one \(row 0\)"):
        read_weights([Decimal("sNaN"), 1], 2)


def test_labels_that_are_durations_or_beyond_float64_are_refused_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for first in (1, 0.5, np.timedelta64(2, "D")):
            with pytest.raises(ValueError, match="label"):
                labels.read_labels([np.timedelta64(3, "D"), first])
        for y in ([10**400, 1.0, np.float16(2)], [np.longdouble("1e400"), 1]):
            with pytest.raises(ValueError, match=r"infinity \(row 0\): labels must be finite"):
                labels.read_labels(y)
        with pytest.raises(ValueError, match=r"infinity \(row 0\)"):
            labels.read_targets([np.longdouble("1e400"), 1])
