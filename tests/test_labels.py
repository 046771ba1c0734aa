"""Labels, values and weights as people have them; forks, copies and pickles of what has learnt them."""

import copy
import pickle
import warnings
from datetime import date, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import numpy as np
import pytest
from scipy import sparse

from gradatim import RefinedClassifier, RefinedRegressor
from gradatim.preprocessing.labels import positions, read_labels, union

pd, pl, pa = (pytest.importorskip(name) for name in ("pandas", "polars", "pyarrow"))
X = np.random.default_rng(0).normal(size=(60, 3))
WIDE = np.random.default_rng(1).normal(size=(320, 3))


def containers(items: list) -> dict:
    """Return labels in every container that holds them."""
    plain = pd.Series(items).convert_dtypes(convert_integer=not isinstance(items[0], float))
    unsigned = items[0] == 2**63 + 1
    arrow = pa.array(items, pa.uint64() if unsigned else None)
    return {
        "list": items,
        "tuple": tuple(items),
        "objects": np.array(items, dtype=object),
        "pandas objects": pd.Series(items, dtype=object),
        "pandas": pd.Series(items),
        "pandas nullable": plain,
        "pandas category": pd.Series(items, dtype="category"),
        "pandas arrow": pd.Series(items, dtype=pd.ArrowDtype(arrow.type)),
        "index": pd.Index(items),
        "polars": pl.Series(items, dtype=pl.UInt64 if unsigned else None),
        "arrow": arrow,
        "chunked": pa.chunked_array([arrow[:1], arrow[1:]]),
    }


LABELS = {
    "words": ["a", "b", "c"] * 20,
    "bools": [True, False, True] * 20,
    "whole": [3, -1, 7] * 20,
    "floats": [3.0, -1.0, 7.0] * 20,
    "ids": [2**53 + 1, 2**53, 2**53 + 2] * 20,
    "unsigned": [2**63 + 1, 2**63, 2**63 + 2] * 20,
}
PLACES = [(what, where) for what, items in LABELS.items() for where in containers(items)]


@pytest.mark.parametrize(("what", "where"), PLACES)
def test_labels_of_every_container_come_back_as_they_were(what, where):
    y = LABELS[what]
    model = RefinedClassifier().partial_fit(X, containers(y)[where])
    assert model.classes_.tolist() == sorted(set(y))
    assert [type(label) for label in model.classes_.tolist()] == [type(label) for label in sorted(set(y))]
    assert set(model.predict(X).tolist()) <= set(y)
    assert union(model.classes_, read_labels(y)) is model.classes_


def test_labels_beyond_float64_stay_apart_over_calls_and_files(tmp_path):
    first, later = np.array([2**53, 2**53 + 1] * 30), np.array([2**63, 2**53 + 1] * 30, dtype=np.uint64)
    model = RefinedClassifier().partial_fit(X, first).partial_fit(X, later)
    assert model.classes_.tolist() == [2**53, 2**53 + 1, 2**63]
    model.partial_fit(X, np.array([-(2**60) - 1, 2**53] * 30))
    wanted = [-(2**60) - 1, 2**53, 2**53 + 1, 2**63]
    assert model.classes_.tolist() == wanted
    back = RefinedClassifier.load(model.save(tmp_path / "state"))
    assert back.classes_.tolist() == wanted and back.partial_fit(X, first).classes_.tolist() == wanted
    assert set(model.predict(X).tolist()) <= set(wanted)
    assert union(np.array([0, 1]), np.array([2], dtype=np.uint64)).tolist() == [0, 1, 2]
    assert union(np.array([0.0, 1.0]), np.array([2**53 + 1])).tolist() == [0, 1, 2**53 + 1]
    assert positions(np.array([2**53, 2**53 + 1]), np.array([2**53 + 1], dtype=np.uint64)).tolist() == [1]


TRUTHS = {
    "boolean": pd.Series([True, False] * 30, dtype="boolean"),
    "bool": np.array([True, False] * 30),
    "whole": np.array([1, 0] * 30),
    "floats": np.array([1.0, 0.0] * 30),
    "objects": np.array([True, False] * 30, dtype=object),
    "scalars": [np.True_, np.False_] * 30,
    "mixed": [True, 0] * 30,
    "arrow": pa.array([True, False] * 30),
    "polars": pl.Series([True, False] * 30),
}


@pytest.mark.parametrize("first", TRUTHS)
@pytest.mark.parametrize("second", TRUTHS)
def test_truth_values_of_every_type_are_one_set_of_classes(first, second):
    model = RefinedClassifier().partial_fit(X, TRUTHS[first])
    kind = model.classes_.dtype.kind
    assert (kind == "b") == (first not in ("whole", "floats"))
    model.partial_fit(X, TRUTHS[second])
    assert model.classes_.tolist() == [0, 1] and model.classes_.dtype.kind == kind
    assert model.predict(X).dtype.kind == kind
    with pytest.raises(ValueError, match=r"labels change type: classes so far are .*'True'"):
        model.partial_fit(X, ["True", "False"] * 30)
    if kind == "b":
        with pytest.raises(ValueError, match=r"labels change type: classes so far are truth values.*numbers"):
            model.partial_fit(X, [0, 2] * 30)


MISSING = [None, np.nan, pd.NaT, pd.NA, np.datetime64("NaT"), Decimal("NaN"), np.float32("nan")]


@pytest.mark.parametrize("gap", MISSING, ids=range(len(MISSING)))
@pytest.mark.parametrize(
    "labels", [["a", "b", "a"], [1, 0, 1], [True, False, True], [0.5, 1.5, 2.5]], ids=range(4)
)
def test_missing_labels_and_values_are_named_by_their_row(gap, labels):
    y = [labels[0], gap, *labels[1:]]
    series = [y, tuple(y), np.array(y, dtype=object), pd.Series(y, dtype=object)]
    if gap is None:
        series += [
            pd.Series(y).convert_dtypes(),
            pl.Series(y),
            pa.array(y),
            pa.chunked_array([y]),
            pd.Series(y),
        ]
        series += [pd.Series(y, dtype="category"), np.ma.masked_array(labels[:1] * 4, [0, 1, 0, 0])]
    for values in series:
        with pytest.raises(ValueError, match=r"^y has missing labels \(row 1\): leave those rows out$"):
            RefinedClassifier().fit(X[:4], values)
        if not isinstance(labels[0], str):
            with pytest.raises(ValueError, match=r"^y has missing values \(row 1\): leave those rows out$"):
                RefinedRegressor().partial_fit(X[:4], values)
    with pytest.raises(ValueError, match=r"missing labels \(row 0\), 2 in all: leave those rows out"):
        read_labels([gap, labels[0], gap])


@pytest.mark.parametrize(
    ("y", "said"),
    [
        ([0.5, 1.5], "Unknown label type: continuous.*got 0.5: use a regressor"),
        ([1.0, np.inf], r"contains infinity \(row 1\)"),
        (["a", 1], "labels must be of one type; got int, str: make words"),
        ([True, "True"], "labels must be of one type; got bool, str"),
        ([b"a", "a"], "labels must be of one type; got bytes, str"),
        ([date(2024, 1, 1)] * 2, "Unknown label type.*got date"),
        (np.array(["2024-01-01"] * 2, dtype="M8[D]"), "Unknown label type.*datetime64.*make words"),
        (pd.Series([datetime(2024, 1, 1)] * 2), "Unknown label type.*make words"),
        ([UUID(int=1)] * 2, "Unknown label type.*got UUID"),
        ([1j, 2j], "Unknown label type"),
        ([["a", "b"], ["c", "d"]], "1d array"),
        (np.zeros((2, 2)), "1d array"),
    ],
    ids=range(12),
)
def test_what_is_no_label_is_refused(y, said):
    with pytest.raises(ValueError, match=said):
        RefinedClassifier().fit(X[:2], y)


@pytest.mark.parametrize(
    ("y", "said"),
    [
        (["a", "b"], "y must be numbers; got"),
        ([1.0, -np.inf], r"contains infinity \(row 1\)"),
        ([1j, 2j], "y must be numbers; got .*complex"),
        (np.array([1j, 2j]), "Complex data not supported"),
        (np.array(["2024-01-01"] * 2, dtype="M8[D]"), "y must be numbers; got datetime64"),
        ([date(2024, 1, 1)] * 2, "y must be numbers"),
        ([1.0, 1e150], r"below 1e\+100 in size; got 1e\+150 \(row 1\): use another unit"),
        ([10**400, 1], "y must be numbers"),
        (np.zeros((2, 2)), "1d array"),
    ],
    ids=range(9),
)
def test_what_is_no_number_is_refused_as_a_target(y, said):
    with pytest.raises(ValueError, match=said):
        RefinedRegressor().fit(X[:2], y)


def test_targets_of_every_container_are_their_numbers():
    y = [1, 2, 3, 4] * 15
    wanted = RefinedRegressor().fit(X, np.array(y, dtype=float)).predict(X)
    for values in (
        *containers(y).values(),
        [Decimal(v) for v in y],
        [str(v) for v in y],
        np.array(y)[:, None],
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            np.testing.assert_array_equal(RefinedRegressor().fit(X, values).predict(X), wanted)


def test_many_classes_in_a_mini_batch_are_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = RefinedClassifier().partial_fit(X[:32], [f"l{j}" for j in range(32)])
        model.partial_fit(X[:32], [f"l{j + 9}" for j in range(32)]).predict(X)


# Weights


@pytest.mark.parametrize(
    ("weight", "said"),
    [
        (1e160, "at most 1e+15; got 1e+160 (row 0): divide all weights"),
        (1e300, "divide all weights"),
        (5e-324, "0, or at least 1e-15; got"),
        (1e-200, "multiply all weights by one number"),
        (np.nan, "finite; got nan (row 0)"),
        (np.inf, "finite; got inf (row 0)"),
        (-1.0, "not negative; got -1 (row 0)"),
        (0.0, "zero for every row"),
        ([1.0] * 59, "one number for each of the 60 rows, 1D; got shape (59,)"),
        (np.ones((60, 1)), "got shape (60, 1)"),
        ([], "got shape (0,)"),
        (["a"] * 60, "a number for each row"),
    ],
    ids=range(12),
)
@pytest.mark.parametrize("kind", [RefinedClassifier, RefinedRegressor])
def test_weights_that_cannot_add_up_are_refused(kind, weight, said):
    y = (X[:, 0] > 0).astype(int)
    model = kind().partial_fit(X, y)
    before = model.predict(X)
    weights = np.full(60, weight) if np.ndim(weight) == 0 else weight
    for learn in (model.partial_fit, model.fit, model.predict_then_learn):
        with pytest.raises(ValueError) as error:
            learn(X, y, sample_weight=weights)
        assert said in str(error.value) and "sample_weight" in str(error.value)
    np.testing.assert_array_equal(model.predict(X), before)


@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e15])
def test_weights_within_the_bounds_give_finite_answers(scale):
    y = 1e99 * WIDE[:, 0]
    some = np.where(np.arange(320) % 7 == 0, scale, 1.0)
    for weight in (np.full(320, scale), some, pd.Series(some), some.tolist()):
        model = RefinedRegressor().partial_fit(WIDE, y, sample_weight=weight)
        assert np.isfinite(model.predict(WIDE, quantiles=[0.1, 0.9])).all()
        labels = RefinedClassifier().partial_fit(WIDE, y > 0, sample_weight=weight)
        assert np.isfinite(labels.predict_proba(WIDE)).all()


# Columns, in estimators


def test_a_row_is_answered_alone_as_in_company():
    cells = [date(2024, 1, 1) + timedelta(days=j % 9) if j % 3 else "soon" for j in range(300)]
    rows = [[cell, float(j % 7)] for j, cell in enumerate(cells)]
    y = [isinstance(cell, str) for cell in cells]
    whole = RefinedClassifier().partial_fit(rows, y)
    company = whole.predict_proba(rows[:30])
    for n, row in enumerate(rows[:30]):
        np.testing.assert_allclose(whole.predict_proba([row])[0], company[n], atol=1e-12)
    cut = RefinedClassifier()
    for start in range(0, 300, 32):
        cut.partial_fit(rows[start : start + 32], y[start : start + 32])
    np.testing.assert_allclose(cut.predict_proba(rows[:30]), company, atol=1e-9)
    early = RefinedClassifier().partial_fit(rows[:40], y[:40])
    again = pickle.loads(pickle.dumps(early))
    np.testing.assert_array_equal(again.predict_proba(rows[1:2]), early.predict_proba(rows[:2])[1:])


def test_rows_that_wait_keep_their_dates_and_numbers_in_a_file(tmp_path):
    rows = [[date(2024, 1, 1 + j % 9), j] for j in range(40)]
    model = RefinedRegressor().partial_fit(rows, np.arange(40.0))
    back = RefinedRegressor.load(model.save(tmp_path / "state"))
    words = [["soon", "one"], [date(2024, 1, 3), 3]] * 150
    y = np.arange(300.0)
    np.testing.assert_allclose(
        back.partial_fit(words, y).predict(words), model.partial_fit(words, y).predict(words), rtol=1e-9
    )


def test_dicts_are_rows_of_an_estimator(tmp_path):
    rows = [{"a": float(a), "b": "x" if a > 0 else "y"} for a in WIDE[:, 0]]
    frame, y = pd.DataFrame(rows), WIDE[:, 0] > 0
    model = RefinedClassifier().partial_fit(rows, y)
    assert model.feature_names_in_.tolist() == ["a", "b"] and model.n_features_in_ == 2
    wanted = RefinedClassifier().partial_fit(frame, y).predict_proba(frame)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(model.predict_proba(rows), wanted)
        np.testing.assert_allclose(model.predict_proba(frame), wanted)
        np.testing.assert_allclose(model.predict_proba(dict(reversed(rows[5].items()))), wanted[5:6])
        lacking = model.predict_proba([{"a": 1.0}, {"b": "x"}])
    np.testing.assert_allclose(lacking, model.predict_proba(pd.DataFrame({"a": [1, None], "b": [None, "x"]})))
    np.testing.assert_allclose(model.predict_proba({"a": 1.0}), lacking[:1])
    with pytest.raises(
        ValueError, match="column 'c' is unknown: the model expects only the columns 'a', 'b'"
    ):
        model.predict({"a": 1.0, "c": 2.0})
    counted = RefinedClassifier().partial_fit(WIDE[:, :2], y)
    with pytest.raises(ValueError, match="the model is expecting 2 features"):
        counted.predict({"a": 1.0})


def test_messages_about_columns_name_no_class_of_ours():
    rows = pd.DataFrame({"n": WIDE[:, 0], "w": np.where(WIDE[:, 1] > 0, "x", "y")})
    model = RefinedClassifier().partial_fit(rows, WIDE[:, 0] > 0)
    for frame, sentence in (
        (rows.assign(n="word"), "'n' holds numbers"),
        (rows.assign(w=7.0), "'w' holds words"),
    ):
        with pytest.warns(UserWarning, match=sentence):
            model.predict(frame)
    wrong = [rows.assign(n=np.inf), rows.drop(columns="w")]
    for frame in (*wrong, rows.values[:, :1]):
        for call in (lambda X=frame: model.predict(X), lambda X=frame: model.partial_fit(X, WIDE[:, 0] > 0)):
            with warnings.catch_warnings(), pytest.raises(ValueError) as error:
                warnings.simplefilter("ignore")
                call()
            assert "Encoder" not in str(error.value)


def test_a_sparse_matrix_that_is_too_large_is_refused_before_anything_is_learnt():
    with pytest.raises(ValueError, match=r"1,000,000 inputs and one output would take"):
        RefinedClassifier().fit(sparse.csr_matrix((1000, 10**6)), np.arange(1000) % 2)


# Copies, pickles, forks


@pytest.mark.parametrize("kind", [RefinedClassifier, RefinedRegressor])
@pytest.mark.parametrize("rows", [40, 320])
def test_answers_at_hand_are_not_pickled(kind, rows):
    model = kind().partial_fit(WIDE[:rows], (WIDE[:rows, 0] > 0).astype(int))
    before = len(pickle.dumps(model))
    answers = model.predict(WIDE)
    assert len(pickle.dumps(model)) <= 1.2 * before + 4000
    assert len(pickle.dumps(copy.deepcopy(model))) <= 1.2 * before + 4000
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict(WIDE), answers)
    np.testing.assert_array_equal(model.predict(WIDE), answers)


def test_no_fork_is_merged_twice(tmp_path):
    y = WIDE[:, 0]
    base = RefinedRegressor().partial_fit(WIDE, y)
    a, b, c = (base.fork().partial_fit(WIDE[:64], y[:64]) for _ in range(3))

    def refused(into, what):
        rows = into.task_.rows
        with pytest.raises(ValueError, match=r"not counted yet.*fork\(\) afresh"):
            into.merge(what)
        assert into.task_.rows == rows

    a.merge(b)
    saved = RefinedRegressor.load(a.save(tmp_path / "a"))
    for merged in (a, saved, copy.deepcopy(a), pickle.loads(pickle.dumps(a))):
        for again in (b, copy.deepcopy(b), RefinedRegressor.load(b.save(tmp_path / "b"))):
            refused(merged, again)
        refused(c.merge(merged) if merged is a else c, b)
    refused(c, a)
    refused(b.partial_fit(WIDE[:64], y[:64]), copy.deepcopy(b))
    base.merge(c)
    for part in (a, b, c, copy.deepcopy(base)):
        refused(base, part)
    fresh = base.fork().partial_fit(WIDE[:8], y[:8])
    assert base.merge(fresh).task_.rows == 320 + 3 * 64 + 8
    before = base.merged_
    base.fit(WIDE, y)
    assert not base.merged_ & before


def test_what_never_forked_is_not_merged_twice_and_saves_the_same_bytes(tmp_path):
    y = WIDE[:, 0]
    one, two = (RefinedRegressor().partial_fit(WIDE, y) for _ in range(2))
    path = one.save(tmp_path / "one")
    assert path.read_bytes() == two.save(tmp_path / "two").read_bytes()
    for copied in (two, copy.deepcopy(one), RefinedRegressor.load(path)):
        with pytest.raises(ValueError, match="not counted yet"):
            one.merge(copied)
    one, two = (RefinedRegressor().prepare(WIDE, y) for _ in range(2))
    one.merge(two)  # of no rows: nothing counts twice
    one = RefinedRegressor().fit(WIDE, y)
    more = copy.deepcopy(one).partial_fit(WIDE[:50], y[:50])
    before = copy.deepcopy(one)
    one.merge(one.fork().partial_fit(WIDE[:50], y[:50]))
    for copied in (more, before):  # copies that went on, and copies of before a merge
        with pytest.raises(ValueError, match="not counted yet"):
            one.merge(copied)
    one, two = (RefinedRegressor().prepare(WIDE, y).partial_fit(WIDE[k::2], y[k::2]) for k in range(2))
    one.merge(two)
    with pytest.raises(ValueError, match="not counted yet"):
        one.merge(two)
    with pytest.raises(ValueError, match="not counted yet"):
        two.merge(one)
