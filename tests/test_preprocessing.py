"""Tables as they come: every container gives the same rows, and the map decided from the first rows stays."""

import copy
import json
import math
import pickle
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from gradatim.preprocessing import (
    MAX_CODES,
    MAX_LEVELS,
    SPARE_LEVELS,
    Category,
    Columns,
    Encoder,
    Number,
    read_columns,
)
from gradatim.preprocessing.number import FAR, GROWN, YOUNG

WORDS = ("red", "green", "blue", None)
NUMBERS = st.floats(-1e6, 1e6) | st.sampled_from([0.0, 1.0, 2.0, math.nan])


def mixed(rows: int = 40, seed: int = 0) -> Columns:
    """Two columns of numbers, the second with gaps, and one of words."""
    rng = np.random.default_rng(seed)
    gaps = np.where(rng.random(rows) < 0.3, np.nan, rng.integers(0, 5, rows))
    words = np.array(WORDS, dtype=object)[rng.integers(0, 4, rows)]
    return Columns(("size", "count", "colour"), (rng.normal(size=rows), gaps, words))


def words(*items: str | None, name: str = "word") -> Columns:
    return Columns((name,), (np.array(items, dtype=object),))


def numbers(*items: float, name: str = "size") -> Columns:
    return Columns((name,), (np.array(items, dtype=np.float64),))


def same(a: Columns, b: Columns) -> None:
    assert a.names == b.names and a.kinds == b.kinds and a.n_rows == b.n_rows
    for left, right in zip(a.values, b.values, strict=True):
        np.testing.assert_array_equal(left, right)


# Reading


DAYS = [datetime(2020, 1, 1, 12), datetime(2021, 6, 1), None]
TABLE = {
    "i": [3, -1, 7],
    "f": [1.5, None, -2.0],
    "b": [True, False, True],
    "s": ["a", None, "b"],
    "t": DAYS,
    "d": [timedelta(days=1), timedelta(hours=6), None],
}
READ = {
    "i": [3.0, -1.0, 7.0],
    "f": [1.5, np.nan, -2.0],
    "b": [1.0, 0.0, 1.0],
    "s": ["a", None, "b"],
    "t": [18262.5, 18779.0, np.nan],
    "d": [1.0, 0.25, np.nan],
}


def frames() -> list:
    def made(module: str, build) -> object:
        return pytest.param((module, build), id=module)

    def pandas_nullable(pd):
        return pd.DataFrame(TABLE).convert_dtypes()

    def arrow_batch(pa):
        return pa.RecordBatch.from_pydict(TABLE)

    return [
        made("pandas", lambda pd: pd.DataFrame(TABLE)),
        pytest.param(("pandas", pandas_nullable), id="pandas-nullable"),
        made("polars", lambda pl: pl.DataFrame(TABLE)),
        made("pyarrow", lambda pa: pa.table(TABLE)),
        pytest.param(("pyarrow", arrow_batch), id="pyarrow-batch"),
    ]


@pytest.mark.parametrize("frame", frames())
def test_every_frame_gives_the_same_rows(frame):
    module, build = frame
    columns = read_columns(build(pytest.importorskip(module)))
    assert columns.names == tuple(READ) and columns.named
    for name, values in zip(columns.names, columns.values, strict=True):
        dtype = object if name == "s" else np.float64
        assert values.dtype == dtype
        np.testing.assert_array_equal(values, np.array(READ[name], dtype=dtype))


def test_arrays_and_lists_give_the_rows_of_frames():
    rows = [list(row) for row in zip(*TABLE.values(), strict=True)]
    for X in (rows, np.array(rows, dtype=object)):
        columns = read_columns(X)
        assert columns.names == ("x0", "x1", "x2", "x3", "x4", "x5") and not columns.named
        for name, values in zip(READ, columns.values, strict=True):
            np.testing.assert_array_equal(values, np.array(READ[name], dtype=values.dtype))


@pytest.mark.parametrize("dtype", ["float64", "float32", "int8", "uint64", "bool", "object"])
def test_arrays_of_numbers_become_one_block(dtype):
    X = np.array([[1, 0], [0, 1], [1, 1]]).astype(dtype)
    columns = read_columns(X)
    assert columns.kinds == ("number", "number")
    np.testing.assert_array_equal(np.stack(columns.values, 1), X.astype(float))


def test_numeric_frames_sparse_and_masked_arrays_agree_with_arrays():
    X = np.random.default_rng(0).normal(size=(6, 3)).round(1)
    X[X < 0] = 0
    wanted = read_columns(X)
    same(read_columns(sparse.csr_matrix(X)), wanted)
    same(read_columns(sparse.coo_array(X)), wanted)
    same(read_columns(X.tolist()), wanted)
    same(read_columns(np.asfortranarray(X)), wanted)
    same(read_columns(pytest.importorskip("pandas").DataFrame(X)), wanted)  # names 0, 1, 2 only count
    polars = read_columns(pytest.importorskip("polars").DataFrame(X, schema=["a", "b", "c"]))
    np.testing.assert_array_equal(polars.matrix, X)
    masked = read_columns(np.ma.masked_array(X, mask=X == 0))
    np.testing.assert_array_equal(np.stack(masked.values, 1), np.where(X == 0, np.nan, X))


def test_categoricals_are_text_whatever_their_categories():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"n": pd.Categorical([1, 2, None]), "s": pd.Categorical(["x", None, "y"])})
    same(
        read_columns(frame),
        Columns(("n", "s"), (words("1", "2", None).values[0], words("x", None, "y").values[0])),
    )
    pl = pytest.importorskip("polars")
    series = [
        pl.Series("n", ["1", "2", None], dtype=pl.Categorical),
        pl.Series("s", ["x", None, "y"], dtype=pl.Enum(["x", "y"])),
    ]
    same(read_columns(pl.DataFrame(series)), read_columns(frame))


def test_objects_are_numbers_only_where_all_of_them_are():
    cells = [
        [True, 1, b"raw", date(2020, 1, 2), "1.5", Decimal("0.5")],
        [None, "a", 2.0, datetime(2020, 1, 2, tzinfo=UTC), "2", 3],
        [False, 0.5, math.nan, np.datetime64("NaT"), None, np.float32(1)],
    ]
    columns = read_columns(np.array(cells, dtype=object))
    assert [v.tolist() for v in columns.values[1:3]] == [["1", "a", "0.5"], ["raw", "2", None]]
    np.testing.assert_array_equal(columns.values[0], [1, np.nan, 0])
    np.testing.assert_array_equal(columns.values[3], [18263, 18263, np.nan])
    assert columns.values[4].tolist() == ["1.5", "2", None]
    np.testing.assert_array_equal(columns.values[5], [0.5, 3, 1])


def test_a_column_with_nothing_in_it_is_of_any_kind():
    pl = pytest.importorskip("polars")
    empty = read_columns(pl.DataFrame({"word": [None, None]}, schema={"word": pl.String}))
    assert empty.kinds == ("category",) and empty.values[0].tolist() == [None, None]
    assert read_columns([[None], [math.nan]]).kinds == ("number",)
    assert np.isnan(read_columns(pl.DataFrame({"word": [None, None]})).values[0]).all()
    assert Encoder.fit(empty).kinds == ("number",)
    assert Encoder.fit(numbers(1, 3, name="word")).encode(empty).tolist() == [[0], [0]]


def test_dates_are_days_in_every_unit():
    for unit in ("D", "h", "s", "ms", "us", "ns"):
        X = np.array([["2020-01-02"], ["NaT"]], dtype=f"datetime64[{unit}]")
        np.testing.assert_array_equal(read_columns(X).values[0], [18263, np.nan])
    pd = pytest.importorskip("pandas")
    zoned = pd.DataFrame({"t": pd.to_datetime(["2020-01-02 01:00", None]).tz_localize("Europe/Paris")})
    np.testing.assert_array_equal(read_columns(zoned).values[0], [18263, np.nan])


BAD = [
    (np.zeros(3), "Reshape your data"),
    ([1.0, 2.0], "Reshape your data"),
    ([], "Reshape your data"),
    ("train.csv", "Expected 2D array, got scalar array.*Reshape your data"),
    (np.zeros((2, 2, 2)), "Found array with dim 3, while dim <= 2 is required"),
    (np.zeros((12, 0)), r"0 feature\(s\) \(shape=\(12, 0\)\) while a minimum of 1 is required"),
    (np.zeros((0, 3)), r"0 sample\(s\) \(shape=\(0, 3\)\) while a minimum of 1 is required"),
    (np.ones((2, 1)) * 1j, "Complex data not supported"),
    ([[1j, "a"], [2, "b"]], "Complex data not supported: column 'x0'"),
    ([[1, 2], [3]], "rows of equal length"),
    ([[0.0, math.inf]], "column 'x1' contains infinity"),
    ([[None, -math.inf], ["a", 0]], "column 'x1' contains infinity"),
    (np.array([[10**400]], dtype=object), "column 'x0' contains infinity"),
    (sparse.csr_matrix([[0.0, math.inf]]), "column 'x1' contains infinity"),
]


@pytest.mark.parametrize(("X", "said"), BAD, ids=range(len(BAD)))
def test_what_is_no_table_is_refused(X, said):
    with pytest.raises(ValueError, match=said):
        read_columns(X)


def test_frames_are_refused_by_the_name_of_the_column():
    pd = pytest.importorskip("pandas")
    with pytest.raises(ValueError, match="column 'a' occurs twice"):
        read_columns(pd.DataFrame([[1, 2]], columns=["a", "a"]))
    with pytest.raises(ValueError, match="column 'b' contains infinity"):
        read_columns(pd.DataFrame({"a": ["x"], "b": [math.inf]}))
    with pytest.raises(ValueError, match=r"0 sample\(s\)"):
        read_columns(pd.DataFrame({"a": []}))
    with pytest.raises(TypeError, match="argument must be a string or a number: column 'a' holds a dict"):
        read_columns(pd.DataFrame({"a": [{"b": 1}, 2]}))
    with pytest.raises(ValueError, match="Reshape your data"):
        read_columns(pd.Series([1, 2]))
    pa = pytest.importorskip("pyarrow")
    with pytest.raises(ValueError, match="column 'a' occurs twice"):
        read_columns(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]))
    pl = pytest.importorskip("polars")
    with pytest.raises(TypeError, match="column 'l' holds a"):
        read_columns(pl.DataFrame({"l": [[1], [2]]}))


def test_tables_are_joined_by_name_and_kind():
    table = mixed(30)
    same(Columns.concat([table.take(slice(0, 10)), table.take(np.arange(10, 30))]), table)
    matrix = read_columns(np.arange(12.0).reshape(6, 2))
    concat = Columns.concat([matrix.take(slice(0, 2)), matrix.take(np.arange(6) >= 2)])
    np.testing.assert_array_equal(concat.matrix, matrix.matrix)
    turned = Columns(table.names[::-1], table.values[::-1])
    same(Columns.concat([table, turned]).take(slice(30, None)), table)
    gaps = Columns.concat([numbers(math.nan, name="word"), words("a", "2"), numbers(1.0, name="word")])
    assert gaps.values[0].tolist() == [None, "a", "2", "1"]
    both = Columns.concat([numbers(1.0, name="word"), words("a")])
    assert both.values[0].tolist() == ["1", "a"] and Encoder.fit(both).maps[0].levels == ("1", "a")
    assert Encoder.fit(both.take(slice(0, 1))) == Encoder.fit(numbers(1.0, name="word"))
    with pytest.raises(ValueError, match="at least one"):
        Columns.concat([])


# Gathering


@settings(deadline=None)  # no timing in tests
@given(
    st.lists(st.tuples(NUMBERS, st.sampled_from(WORDS), st.integers(0, 5)), min_size=1, max_size=30),
    st.randoms(),
)
def test_whole_weights_are_repeated_rows_and_order_does_not_matter(rows, random):
    if not any(weight for *_, weight in rows):
        return
    values = np.array([row[0] for row in rows]), np.array([row[1] for row in rows], dtype=object)
    columns, weight = Columns(("n", "w"), values), np.array([row[2] for row in rows])
    encoder = Encoder.fit(columns, weight)
    repeated = np.repeat(np.arange(len(rows)), weight)
    assert Encoder.fit(columns.take(repeated)) == encoder  # bit for bit
    random.shuffle(repeated)
    assert Encoder.fit(columns.take(repeated)) == encoder
    order = np.array(random.sample(range(len(rows)), len(rows)))
    assert Encoder.fit(columns.take(order), weight[order] * 8.0) == encoder


def test_statistics_are_numpys():
    rng = np.random.default_rng(1)
    x, weight = rng.gamma(9.0, size=200), rng.random(200)
    table = Encoder.fit(numbers(*x), weight).maps[0]
    mean = np.average(x, weights=weight)
    assert table.centre == pytest.approx(mean, rel=1e-13)
    assert table.scale == pytest.approx(np.sqrt(np.average((x - mean) ** 2, weights=weight)), rel=1e-13)
    if np.lib.NumpyVersion(np.__version__) >= "2.0.0":  # before, its quantiles know no weights
        wanted = np.quantile(x, np.arange(1, 16) / 16, weights=weight, method="inverted_cdf")
        np.testing.assert_array_equal(table.quantiles, wanted)
    assert (table.low, table.high, table.has_missing) == (x.min(), x.max(), False)


def test_weights_are_checked():
    for weight, said in [
        ([1.0], "shape"),
        ([1, -1], "nonnegative"),
        ([1, math.nan], "finite"),
        ([0, 0], "zero"),
    ]:
        with pytest.raises(ValueError, match=said):
            Encoder.fit(numbers(1, 2), np.array(weight))


def test_levels_are_the_most_frequent_in_sorted_order():
    many = [f"l{j:03d}" for j in range(50) for _ in range(2)] + ["z"] * 3
    table = Encoder.fit(words(*many)).maps[0]
    assert table.levels == (*(f"l{j:03d}" for j in range(MAX_LEVELS - 1)), "z")  # ties by name
    assert (table.slots, table.truncated, table.has_missing) == (MAX_LEVELS + SPARE_LEVELS, True, False)
    assert Encoder.fit(words("b", "a", None)).maps[0] == Category(
        ("a", "b"), 2 + SPARE_LEVELS, True, True, False
    )


def test_a_million_words_make_a_small_table():
    items = np.array([f"id{j}" for j in range(10**6)], dtype=object)
    encoder = Encoder.fit(read_columns(items[:, None]))
    assert encoder.maps[0].levels == tuple(sorted(sorted(items)[:MAX_LEVELS]))
    assert encoder.width == MAX_LEVELS + SPARE_LEVELS + 1 and len(json.dumps(encoder.to_json())) < 2000
    hot = encoder.encode(read_columns(items[:1000, None]))
    assert (hot.sum(1) == 1).all()


@pytest.mark.parametrize(
    ("columns", "levels"), [(1, 40), (14, 40), (20, 40), (60, 40), (200, 3), (300, 2), (500, 9)]
)
def test_the_codes_of_all_columns_fit_the_budget(columns, levels):
    rng = np.random.default_rng(0)
    cells = np.array([f"l{j}" for j in range(levels)], dtype=object)[rng.integers(0, levels, (300, columns))]
    cells[0] = "l0"
    encoder = Encoder.fit(read_columns(cells))
    assert columns <= encoder.width <= MAX_CODES
    assert all(len(table.levels) >= 1 for table in encoder.maps)
    assert encoder.encode(read_columns(cells)).any(0).sum() >= columns


# Encoding


def test_numbers_are_standardised_with_flags_and_codes():
    columns = Columns(("n", "w"), (np.array([1.0, 3.0, np.nan]), np.array(["b", "a", "a"], dtype=object)))
    rows = Encoder.fit(columns).encode(columns)
    code = np.zeros((3, 7))
    code[[0, 1, 2], [1, 0, 0]] = 1
    np.testing.assert_array_equal(rows, np.hstack([[[-1, 0], [1, 0], [0, 1]], code]))


def test_tails_grow_like_the_logarithm():
    encoder = Encoder.fit(numbers(-1, 1))  # centre 0, scale 1
    z = encoder.encode(numbers(6, -6, 7, -13, FAR, -FAR))[:, 0]
    wanted = [6, -6, 6 + math.log(2), -6 - math.log(8), 6 + math.log(FAR - 5), -6 - math.log(FAR - 5)]
    np.testing.assert_allclose(z, wanted, rtol=1e-15)


def test_a_number_that_is_no_measurement_is_missing():
    encoder = Encoder.fit(numbers(-1, 1, math.nan))
    beyond = encoder.encode(numbers(1.0001 * FAR, 1e300, -1.7e308))
    np.testing.assert_array_equal(beyond, encoder.encode(numbers(*[math.nan] * 3)))
    np.testing.assert_array_equal(Encoder.fit(numbers(-1, 1)).encode(numbers(1e300)), [[0]])


@pytest.mark.parametrize("scale", [1e-320, 1e-300, 1e-5, 1.0, 1e9, 1e300, 1.7e308])
def test_wild_scales_stay_finite(scale):
    x = np.array([-1.0, -0.5, 0.0, 0.25, 1.0]) * scale
    encoder = Encoder.fit(numbers(*x))
    rows = encoder.encode(numbers(*x))
    plain = Encoder.fit(numbers(*x / scale)).encode(numbers(*x / scale))
    np.testing.assert_allclose(
        rows, plain, rtol=1e-12 if scale > 1e-310 else 1e-2
    )  # subnormal numbers have few digits
    assert np.isfinite(encoder.encode(numbers(1e-320, 1e300, -1.7e308))).all()
    assert Encoder.from_json(json.loads(json.dumps(encoder.to_json()))) == encoder


@pytest.mark.parametrize("value", [0.0, 0.1, -7.0, 1e300, 1e-300])
def test_constant_columns_are_zero(value):
    encoder = Encoder.fit(numbers(*[value] * 7, math.nan))
    assert encoder.maps[0] == Number(value, 1.0, value, value, True, (value,), stage=YOUNG)
    np.testing.assert_array_equal(
        encoder.encode(numbers(value, math.nan, value + 1e9)), [[0, 0], [0, 1], [0, 0]]
    )  # of what another number means nothing is known
    assert len(encoder.threshold_features(10)[0]) == 0


def test_a_column_without_a_number_is_zero_and_flagged():
    encoder = Encoder.fit(numbers(math.nan, math.nan))
    np.testing.assert_array_equal(encoder.encode(numbers(math.nan, 2.0)), [[0, 1], [0, 1]])
    assert len(encoder.threshold_features(10)[0]) == 0


def test_rows_do_not_depend_on_each_other():
    columns = mixed(5000)
    encoder = Encoder.fit(columns.take(slice(0, 100)))
    rows = encoder.encode(columns)
    pieces = [encoder.encode(columns.take(slice(j, j + 7))) for j in range(0, 5000, 7)]
    np.testing.assert_array_equal(np.concatenate(pieces), rows)
    matrix = read_columns(np.stack(columns.values[:2], 1).astype(float))
    np.testing.assert_array_equal(Encoder.fit(matrix.take(slice(0, 100))).encode(matrix), rows[:, :3])


def test_unseen_levels_and_unseen_missing_are_other():
    encoder = Encoder.fit(words("a", "b"))
    hot = encoder.encode(words("a", "b", "c", None))
    assert hot.argmax(1).tolist() == [0, 1, 2 + SPARE_LEVELS, 2 + SPARE_LEVELS] and (hot.sum(1) == 1).all()
    hot = Encoder.fit(words("a", None)).encode(words("c", None))
    assert hot.argmax(1).tolist() == [1 + SPARE_LEVELS, 2 + SPARE_LEVELS]


def test_columns_are_put_right_by_name_and_refused_by_name():
    table = mixed()
    encoder = Encoder.fit(table)
    turned = Columns(table.names[::-1], table.values[::-1])
    np.testing.assert_array_equal(encoder.encode(turned), encoder.encode(table))
    with pytest.raises(
        ValueError, match="column 'colour' is missing: Model expects the columns 'size', 'count', 'colour'"
    ):
        encoder.encode(Columns(table.names[:2], table.values[:2]), "Model")
    with pytest.raises(ValueError, match="column 'word' is unknown: the model expects only"):
        encoder.encode(Columns((*table.names, "word"), (*table.values, table.values[2])))


def test_columns_without_names_are_counted():
    X = np.random.default_rng(0).normal(size=(9, 4))
    encoder = Encoder.fit(read_columns(X))
    with pytest.raises(ValueError, match="X has 1 features, but Model is expecting 4 features as input"):
        encoder.encode(read_columns(X[:, [1]]), "Model")
    frame = Columns.from_matrix(tuple("dcba"), X)
    np.testing.assert_array_equal(encoder.encode(frame), encoder.encode(read_columns(X)))
    np.testing.assert_array_equal(Encoder.fit(frame).encode(read_columns(X)), encoder.encode(frame))


def test_a_column_keeps_its_kind_and_says_which_cells_are_of_another():
    known = Encoder.fit(numbers(1, 3))
    np.testing.assert_array_equal(
        known.encode(words("1", None, "3", name="size")), known.encode(numbers(1, math.nan, 3))
    )
    with pytest.warns(UserWarning, match=r"column 'size' holds numbers.* 2 of 2 cells .* row 0, 'large'"):
        np.testing.assert_array_equal(known.encode(words("large", "big", name="size")), [[0], [0]])
    with pytest.warns(UserWarning, match=r"3 of 4 cells .* row 1, '1_0'"):
        np.testing.assert_array_equal(
            known.encode(words("1", "1_0", "\u0661", "\uff11", name="size")), [[-1], [0], [0], [0]]
        )
    with pytest.warns(UserWarning, match="column 'size' .* 1 of 2 cells .* row 1, 'big'"):
        np.testing.assert_array_equal(known.encode(words("1", "big", name="size")), [[-1], [0]])
    with pytest.raises(ValueError, match="column 'size' contains infinity"):
        known.encode(words("1", "inf", name="size"))
    named = Encoder.fit(words("a", "b"))
    with pytest.warns(UserWarning, match=r"column 'word' holds words; 2 of 3 cells are numbers.* row 1, 7"):
        several = named.encode(numbers(math.nan, 7, 8, name="word"))
    assert several.argmax(1).tolist() == [2 + SPARE_LEVELS] * 3
    assert named.encode(numbers(math.nan, name="word")).argmax() == 2 + SPARE_LEVELS
    either = Encoder.fit(read_columns([[1], ["a"], [2.5]]))
    np.testing.assert_array_equal(either.encode(read_columns([[2.5], [1.0]])).argmax(1), [1, 0])


# What comes later


def test_new_levels_take_free_slots_and_move_nothing():
    columns = mixed()
    encoder = Encoder.fit(columns)
    n, now, then = encoder.extend(columns)
    assert n == 40 and now is encoder and then is encoder
    before = encoder.encode(columns)

    def late(*items: str | None) -> Columns:
        gaps = np.zeros(len(items))
        return Columns(columns.names, (gaps, gaps, np.array(items, dtype=object)))

    _, grown, after = encoder.extend(late("q", "p", "z", "z", "red", None))
    assert grown == after and grown.maps[2].levels == (
        "blue",
        "green",
        "red",
        "q",
        "p",
        "z",
    )  # as they appear
    assert grown.maps[:2] == encoder.maps[:2] and grown.width == encoder.width
    np.testing.assert_array_equal(grown.encode(columns), before)
    _, full, _ = grown.extend(late("x"))
    assert full.maps[2].levels[6:] == ("x",) and full.width == encoder.width
    _, wider, _ = full.extend(late("w"))
    assert wider.maps[2].slots == 2 * full.maps[2].slots
    change = full.change_to(wider)
    moved = np.zeros((40, wider.width))
    moved[:, change.place[change.place >= 0]] = full.encode(columns)[:, change.place >= 0]
    np.testing.assert_array_equal(wider.encode(columns), moved)
    _, most, _ = wider.extend(late(*(f"l{j}" for j in range(99))))
    assert most.maps[2].slots == len(most.maps[2].levels) == MAX_LEVELS + SPARE_LEVELS
    assert most.extend(late("last"))[1] is most
    assert encoder.extend(late("q"), growing=False)[1].maps[2].levels[3:] == ("q",)
    assert full.extend(late("w"), growing=False)[1] is full
    fixed = Encoder.fit(numbers(1, 2))
    assert fixed.extend(numbers(9))[1:] == (fixed, fixed)


def extended(encoder: Encoder, columns: Columns) -> Encoder:
    """Return the map after all these rows."""
    while columns.n_rows:
        n, _, encoder = encoder.extend(columns)
        columns = columns.take(slice(n, None))
    return encoder


def test_maps_merge_where_they_differ_by_what_was_added():
    base = Encoder.fit(Columns(("a", "b"), (words("x", "y").values[0], words("u", "v").values[0])))

    def later(encoder: Encoder, a: str, b: str) -> Encoder:
        return extended(encoder, Columns(("a", "b"), (words(a).values[0], words(b).values[0])))

    left, right = later(base, "new", "u"), later(base, "x", "late")
    assert left != right and base.merge(left) == left
    assert left.merge(right) == right.merge(left) == later(left, "x", "late")
    odd = later(base, "odd", "u")
    assert (
        left.merge(odd).maps[0].levels == ("x", "y", "new", "odd") == later(left, "odd", "u").maps[0].levels
    )
    constant = Encoder.fit(numbers(5, 5, 5))
    varied = extended(constant, numbers(5, 7, 8))
    for pair in ((constant, varied), (varied, constant)):
        assert pair[0].merge(pair[1]) == varied
    gaps = Encoder.fit(Columns(("a", "b"), (words("k", None).values[0], words("u", "v").values[0])))
    with pytest.raises(ValueError, match=r"column 'a' was encoded in two ways, levels .*'x'.* in one, .*'k'"):
        left.merge(gaps)
    with pytest.raises(
        ValueError,
        match="column 'size' was encoded in two ways, centre 2 and scale 1 in one, 3 and 2 in the other",
    ):
        Encoder.fit(numbers(1, 3)).merge(Encoder.fit(numbers(1, 5)))
    with pytest.raises(ValueError, match="different columns \\('size' in one, 'word' in the other\\)"):
        Encoder.fit(numbers(1)).merge(Encoder.fit(words("a")))
    with pytest.raises(ValueError, match="numbers in one, categories in the other"):
        Encoder.fit(numbers(1)).merge(Encoder.fit(words("a", name="size")))


BEFORE = st.sampled_from([(), (math.nan, math.nan), (5.0, 5.0), (5.0, math.nan)])
LATER = st.lists(st.sampled_from([math.nan, 5.0, 5.0]) | st.floats(-1e3, 1e3), max_size=30)


@settings(deadline=None)
@given(BEFORE, LATER, st.integers(0, 300), st.floats(1e-3, 1e3), st.lists(st.integers(1, 40), max_size=8))
def test_a_young_column_grows_alike_however_it_is_cut(before, first, count, unit, cuts):
    """The rest of the column is wide enough to pass every checkpoint."""
    start = Number.fit(np.array([math.nan, *before]), np.ones(1 + len(before)))
    more = unit * np.random.default_rng(count).normal(size=count)
    values = np.concatenate([first, more])
    grown = {
        advanced(start, np.split(values, places))
        for places in (cut_at(len(values), size) for size in (1, 7, 100))
    }
    grown.add(advanced(start, [values]))
    grown.add(advanced(start, np.split(values, np.cumsum(cuts))))
    assert len(grown) == 1
    (column,) = grown
    if column.stage == GROWN:
        assert np.isfinite([column.centre, column.scale]).all() and not column.recent


def cut_at(n: int, size: int) -> list[int]:
    return list(range(size, n, size))


def advanced(column: Number, parts: list[np.ndarray]) -> Number:
    for part in parts:
        while len(part):
            n, _, column = column.advance(part)
            part = part[n:]
    return column


def test_a_column_that_begins_to_vary_is_scaled_by_what_it_shows():
    rng = np.random.default_rng(0)
    for before in ([], [7.0] * 5):
        start = Number.fit(np.array([math.nan, *before]), np.ones(1 + len(before)))
        values = 7 + 3 * rng.normal(size=400)
        column = advanced(start, [values])
        assert column.stage == GROWN
        about = np.sqrt(np.mean((values[:256] - column.centre) ** 2))
        assert 2 / 3 <= column.scale / about <= 1.5
    n, now, then = Number.fit(np.full(9, 5.0), np.ones(9)).advance(np.full(20, 5.0))
    assert n == 20 and now == then == Number.fit(np.full(9, 5.0), np.ones(9))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.lists(st.integers(1, 60), max_size=9))
def test_extending_over_cuts_gives_equal_maps(seed, cuts):
    """Two young columns, one that varies, and words that are new, in the same rows."""
    rng = np.random.default_rng(seed)
    start, varies = rng.integers(0, 100, 2)
    late = np.where(np.arange(200) >= start, rng.normal(size=200), math.nan)
    constant = np.where(np.arange(200) >= varies, rng.gamma(1.0, size=200), 2.0)
    word = np.array([f"w{j}" for j in rng.integers(0, 2 + np.arange(200) // 8)], dtype=object)
    columns = Columns(("late", "constant", "free", "word"), (late, constant, rng.normal(size=200), word))
    base = Encoder.fit(
        Columns(
            columns.names,
            (np.full(9, np.nan), np.full(9, 2.0), rng.normal(size=9), np.array(["w0"] * 9, dtype=object)),
        )
    )
    once = extended(base, columns)
    for places in (cut_at(200, 1), cut_at(200, 7), np.cumsum(cuts).tolist()):
        encoder = base
        for first, last in pairwise([0, *[place for place in places if place < 200], 200]):
            encoder = extended(encoder, columns.take(slice(first, last)))
        assert encoder == once


@pytest.mark.parametrize("rare", [False, True])
def test_moments_are_winsorised_by_the_pair_of_quantiles_that_shows_most(rare):
    rng = np.random.default_rng(0)
    x = (
        np.where(rng.random(400) < 0.03, rng.normal(50, 9, 400), rng.random(400))
        if rare
        else rng.normal(size=400)
    )
    x[7] = 1e9
    inner = np.sort(x)[1:-1]
    pairs = {0.25: 0.6745, 0.1: 1.2816, 0.05: 1.6449, 0.01: 2.3263, 0.002: 2.8782}
    ends = [np.quantile(inner, [p, 1 - p], method="inverted_cdf") for p in pairs]
    shown = max((high - low) / (2 * z) for (low, high), z in zip(ends, pairs.values(), strict=True))
    median = np.quantile(inner, 0.5, method="inverted_cdf")
    near = x.clip(median - 8 * shown, median + 8 * shown)
    assert (near != x).sum() == 1
    table = Number.fit(x, np.ones(400))
    assert (table.centre, table.scale) == pytest.approx((near.mean(), near.std()), rel=1e-12)
    assert not rare or table.scale > 5


@pytest.mark.parametrize("absurd", [1e9, -1e9, 1e300, -1.7e308])
def test_an_absurd_cell_moves_nothing(absurd):
    x = np.random.default_rng(0).normal(10.0, 2.0, size=2000)
    clean, spoilt = Number.fit(x, np.ones(2000)), Number.fit(np.append(x, absurd), np.ones(2001))
    assert abs(spoilt.centre - clean.centre) < 0.01 * clean.scale
    assert spoilt.scale == pytest.approx(clean.scale, rel=0.02)
    assert (spoilt.low, spoilt.high) == (clean.low, clean.high)
    few = Number.fit(np.append(x[:12], absurd), np.ones(13))
    assert few.high < 30 and few.low > -20


@pytest.mark.parametrize("codes", [(-9999.0,), (9999.0,), (-9999.0, 9999.0), (-9999.0, 99999.0)])
def test_codes_of_missing_are_missing(codes):
    x = np.random.default_rng(0).normal(10.0, 2.0, size=400)
    values = np.concatenate([x, np.repeat(codes, 20)])
    encoder = Encoder.fit(numbers(*values))
    clean = Encoder.fit(numbers(*x, math.nan))
    assert encoder.maps[0].codes == codes
    assert (encoder.maps[0].centre, encoder.maps[0].scale) == (clean.maps[0].centre, clean.maps[0].scale)
    np.testing.assert_array_equal(
        encoder.encode(numbers(*codes, 10.0)), clean.encode(numbers(*[math.nan] * len(codes), 10.0))
    )
    assert not Number.fit(np.append(x, codes[0]), np.ones(401)).codes  # what occurs once is no code
    assert not Number.fit(x.round(), np.ones(400)).codes


def test_strays_are_rows_that_the_map_was_not_made_for():
    columns = mixed()
    encoder = Encoder.fit(columns)
    assert encoder.out_of_range(columns) == {}
    low, high = encoder.maps[0].low, encoder.maps[0].high
    size = np.array([2 * high - low - 0.01, 2 * high - low + 0.01, 2 * low - high - 0.01, np.nan])
    late = Columns(columns.names, (size, np.zeros(4), np.array(["red", "new", "old", None], dtype=object)))
    assert encoder.out_of_range(late) == {"size": 0.5, "colour": 0.5}
    assert extended(encoder, late).out_of_range(late) == {"size": 0.5}
    truncated = Encoder.fit(words(*(f"l{j}" for j in range(40))))
    assert truncated.out_of_range(words("new")) == {}
    assert Encoder.fit(numbers(-1.7e308, 1e300)).out_of_range(numbers(1.7e308)) == {}
    assert Encoder.fit(numbers(1e-300, 2e-300)).out_of_range(numbers(1e300)) == {"size": 1.0}


def test_steps_split_the_rows_at_quantiles():
    x = np.random.default_rng(0).gamma(1.0, size=(1600, 1))
    columns = read_columns(x)
    encoder = Encoder.fit(columns)
    place, cut = encoder.threshold_features(100)
    assert place.tolist() == [0] * 15 and place.dtype == np.int64
    above = (encoder.encode(columns)[:, place] > cut).mean(0)
    np.testing.assert_allclose(above, 1 - np.arange(1, 16) / 16, atol=1e-12)  # exact: inverted cdf, no ties
    np.testing.assert_array_equal(encoder.threshold_features(3)[1], cut[[3, 7, 11]])
    np.testing.assert_array_equal(encoder.threshold_features(1)[1], cut[[7]])


def test_steps_stay_within_their_budget():
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.normal(size=(200, 3)), rng.integers(0, 2, (200, 2)), np.ones(200)])
    encoder = Encoder.fit(read_columns(X))
    for budget in range(60):
        place, cut = encoder.threshold_features(budget)
        assert len(place) == len(cut) <= budget and (np.diff(place) >= 0).all()
        assert len(set(zip(place.tolist(), cut.tolist(), strict=True))) == len(cut)
    assert np.bincount(encoder.threshold_features(47)[0]).tolist() == [15, 15, 15, 1, 1]
    assert np.bincount(encoder.threshold_features(20)[0]).tolist() == [6, 6, 6, 1, 1]
    assert encoder.threshold_features(2)[0].tolist() == [0, 1]
    assert len(Encoder.fit(words("a")).threshold_features(9)[0]) == 0


# Files


def test_json_gives_the_same_map_back():
    columns = mixed()
    late = Columns(columns.names, (np.zeros(1), np.zeros(1), np.array(["\u2603 new"], dtype=object)))
    encoder = extended(Encoder.fit(columns, np.random.default_rng(2).random(columns.n_rows)), late)
    young = extended(Encoder.fit(numbers(5, 5)), numbers(5, 7.1, 8.3))
    assert young.maps[0].recent == (7.1, 8.3) and Encoder.from_json(young.to_json()) == young
    back = Encoder.from_json(json.loads(json.dumps(encoder.to_json(), allow_nan=False)))
    assert back == encoder and back.to_json() == encoder.to_json()
    np.testing.assert_array_equal(back.encode(columns), encoder.encode(columns))
    assert pickle.loads(pickle.dumps(encoder)) == encoder == copy.deepcopy(encoder)
    assert hash(back) == hash(encoder)


def spoilt(change) -> dict:
    value = Encoder.fit(mixed()).to_json()
    change(value)
    return value


SPOILT = [
    (lambda v: v.pop("columns"), "format, named and columns"),
    (lambda v: v.update(format=9), r"encoder\.format must be 3; got 9"),
    (lambda v: v.update(columns=[]), "at least one column"),
    (lambda v: v["columns"].append(3), r"encoder\.columns\[3\]\.name"),
    (
        lambda v: v["columns"][1].update(name="size"),
        r"encoder\.columns\[1\]\.name .* unique name; got 'size'",
    ),
    (
        lambda v: v["columns"][0].update(kind="image"),
        r"encoder\.columns\[0\]\.kind must be one of number, category",
    ),
    (lambda v: v["columns"][0].update(kind=[]), r"encoder\.columns\[0\]\.kind must be one of"),
    (lambda v: v["columns"][0].pop("scale"), r"encoder\.columns\[0\]\.scale is missing"),
    (lambda v: v["columns"][0].update(scale=0.0), r"encoder\.columns\[0\]: scale must be positive"),
    (
        lambda v: v["columns"][0].update(centre=math.nan),
        r"encoder\.columns\[0\]: centre, scale, low, high, codes and recent must be finite",
    ),
    (lambda v: v["columns"][0].update(centre=10**400), r"encoder\.columns\[0\]"),
    (lambda v: v["columns"][0].update(centre="1"), r"encoder\.columns\[0\]\.centre must be float; got '1'"),
    (lambda v: v["columns"][0].update(stage="old"), r"encoder\.columns\[0\]: stage must be one of"),
    (lambda v: v["columns"][0].update(recent=[1.0]), r"encoder\.columns\[0\]: recent must hold"),
    (lambda v: v["columns"][0].update(codes=["-9999"]), r"encoder\.columns\[0\]\.codes must be"),
    (lambda v: v["columns"][0].update(low=9e9), r"encoder\.columns\[0\]: low must not be above high"),
    (lambda v: v["columns"][0]["quantiles"].reverse(), r"encoder\.columns\[0\]: quantiles must rise"),
    (lambda v: v["columns"][0].update(color=1), r"encoder\.columns\[0\]\.color is unknown"),
    (lambda v: v["columns"][2].update(slots=1), r"encoder\.columns\[2\]: slots must hold"),
    (lambda v: v["columns"][2].update(slots=True), r"encoder\.columns\[2\]\.slots must be int"),
    (lambda v: v["columns"][2]["levels"].append("red"), r"encoder\.columns\[2\]: levels must differ"),
    (lambda v: v["columns"][2]["levels"].append(None), r"encoder\.columns\[2\]\.levels must be"),
]


@pytest.mark.parametrize(("change", "said"), SPOILT, ids=range(len(SPOILT)))
def test_spoilt_json_is_refused_by_its_field(change, said):
    with pytest.raises(ValueError, match=said):
        Encoder.from_json(spoilt(change))
    with pytest.raises(ValueError, match="format, named and columns"):
        Encoder.from_json([])
