"""Columns that come in another unit in mid-stream: they are read as before, and nothing else is taken for it."""

import copy
import warnings

import numpy as np
import pandas as pd
import pytest

from gradatim import RefinedClassifier, RefinedRegressor
from gradatim.estimators import DriftWarning
from gradatim.memory.moves import Move
from gradatim.memory.waiting import pack_units
from gradatim.preprocessing import Encoder, Number, read_columns
from gradatim.preprocessing.drift import UnitWarning

ROWS, LATE = 1504, 2000
"""Rows before a change, the end of a block; rows after it from which accuracy is compared."""


@pytest.fixture(autouse=True)
def _drift_is_no_matter():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DriftWarning)
        yield


def table(n=ROWS + LATE + 1000, seed=3):
    """Rows whose classes are Friedman's function, above or below its middle."""
    rng = np.random.default_rng(seed)
    X = rng.random((n, 10))
    v = 10 * np.sin(np.pi * X[:, 0] * X[:, 1]) + 20 * (X[:, 2] - 0.5) ** 2 + 10 * X[:, 3] + 5 * X[:, 4]
    return X, (v + rng.normal(size=n) > 14.4).astype(int)


def moved(X, kind, change):
    X = X.copy()
    if kind == "shift":
        X[change:, ::2] += 2 * X[:change, ::2].std(0)
    else:
        X[change:, ::2] *= kind
    return X


def errors(model, X, y, size=32):
    wrong = []
    for start in range(0, len(y), size):
        part = slice(start, start + size)
        if start or hasattr(model, "task_"):
            wrong.append(model.predict(X[part]) != y[part])
        model.partial_fit(X[part], y[part])
    return np.concatenate(wrong)


@pytest.fixture(scope="module")
def known():
    """A model that has learnt the rows before a change."""
    X, y = table()
    model = RefinedClassifier(memory="adaptive")
    errors(model, X[:ROWS], y[:ROWS])
    return model


@pytest.fixture(scope="module")
def anew():
    """The errors of a model that begins at the change."""
    X, y = table()
    return errors(RefinedClassifier(memory="adaptive"), X[ROWS:], y[ROWS:])[-1000:].mean()


@pytest.mark.parametrize("inside", [0, 10])
@pytest.mark.parametrize("kind", [1000, 0.001, 1e9, "shift"])
def test_columns_in_another_unit_are_read_as_before(known, anew, kind, inside):
    X, y = table()
    X, model = moved(X, kind, ROWS + inside), copy.deepcopy(known)
    with pytest.warns(UnitWarning, match=r"'x0' \((times|moved by)") as told:
        wrong = errors(model, X[ROWS:], y[ROWS:])
    assert wrong[-1000:].mean() < anew + 0.02
    assert sum(issubclass(each.category, UnitWarning) for each in told) == 1
    maps = model.task_.encoder.maps
    before = known.task_.encoder.maps
    for at in range(10):
        if kind == "shift":
            by = (maps[at].centre - before[at].centre) / before[at].scale
            assert by == pytest.approx(2 * (at % 2 == 0), abs=0.25) and maps[at].scale == before[at].scale
        else:
            factor = kind if at % 2 == 0 else 1
            assert maps[at].scale == pytest.approx(before[at].scale * factor)
            assert maps[at].centre == pytest.approx(before[at].centre * factor)


@pytest.mark.parametrize("size", [1, 7, 50, 400])
def test_however_rows_are_cut(known, size):
    X, y = table()
    X, model = moved(X, 1000, ROWS + 10), copy.deepcopy(known)
    with pytest.warns(UnitWarning):
        for start in range(ROWS, ROWS + 400, size):
            part = slice(start, min(start + size, ROWS + 400))
            model.partial_fit(X[part], y[part])
            assert model.task_.rows == model.task_.count == part.stop
    late = slice(ROWS + 400, ROWS + 1400)
    assert (model.predict(X[late]) != y[late]).mean() < (
        known.predict(table()[0][late]) != y[late]
    ).mean() + 0.01


def test_rows_alike_are_left_as_they_are():
    X, y = table(6000)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnitWarning)
        errors(RefinedClassifier(memory="adaptive"), X, y)


def test_a_change_of_the_concept_is_none_of_the_unit(known):
    X, y = table()
    y[ROWS:] = X[ROWS:, 5] > X[ROWS:, 6]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnitWarning)
        wrong = errors(copy.deepcopy(known), X[ROWS:], y[ROWS:])
    assert wrong[-1000:].mean() < 0.06


def test_a_mean_that_creeps_is_no_change():
    X, y = table(4000)
    X[:, ::2] += np.linspace(0, 3, 4000)[:, None] * X[:, ::2].std(0)
    model = RefinedClassifier(memory="adaptive")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnitWarning)
        wrong = errors(model, X, y)
    off = RefinedClassifier(memory="adaptive").partial_fit(X[:256], y[:256])
    off.task_.units = None
    assert wrong[224:].mean() < errors(off, X[256:], y[256:]).mean() + 0.005


@pytest.mark.parametrize("ahead", [8, 20, 32, 45, 60, 64, 90, 300])
def test_a_file_in_between_goes_on_alike(tmp_path, known, ahead, monkeypatch):
    monkeypatch.setattr("gradatim.memory.grown.FEWEST", 10**9)  # rows that trees grow on are in no file
    X, y = table()
    X, model = moved(X, 1000, ROWS), copy.deepcopy(known)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnitWarning)
        model.partial_fit(X[ROWS : ROWS + ahead], y[ROWS : ROWS + ahead])
        loaded = RefinedClassifier.load(model.save(tmp_path / "s"))
        assert model.task_.units.pending is None and model.task_.count == ROWS + ahead
        for size in (10, 100, 333):
            part = slice(model.task_.count, model.task_.count + size)
            for each in (model, loaded):
                each.partial_fit(X[part], y[part])
            assert np.array_equal(model.predict_proba(X[part]), loaded.predict_proba(X[part]))


def test_a_file_holds_no_row_that_waits(known, tmp_path):
    X, y = table()
    X, model = moved(X, 1000, ROWS), copy.deepcopy(known)
    model.partial_fit(X[ROWS : ROWS + 32], y[ROWS : ROWS + 32])
    assert len(model.task_.units.pending) == 32
    for number in (1, 3, 20, 32):
        model = copy.deepcopy(known)
        model.partial_fit(X[ROWS : ROWS + number], y[ROWS : ROWS + number])
        model.save(tmp_path / "s")
        z = Move(np.arange(10), np.zeros(10), np.ones(10)).applied(known.task_.encoder)
        cells = {round(v, 9) for v in z.encode(read_columns(X[ROWS : ROWS + number])).ravel().tolist()}
        cells |= {round(v, 9) for v in X[ROWS : ROWS + number].ravel().tolist()}
        for name, part in pack_units(model.task_.units).items():
            assert name.endswith("places") or not cells & {
                round(v, 9) for v in part.double().ravel().tolist()
            } - {0.0, 1.0}, name


def test_rows_that_wait_are_not_lost(known):
    X, y = table()
    X, model = moved(X, 1000, ROWS), copy.deepcopy(known)
    model.partial_fit(X[ROWS : ROWS + 32], y[ROWS : ROWS + 32])
    other = copy.deepcopy(model)
    assert other.fork().task_.units is None and model.task_.rows == ROWS + 32
    other.partial_fit(X[ROWS + 32 : ROWS + 33], np.array([7]))  # a class begins while rows wait
    assert other.task_.count == ROWS + 33 and list(other.classes_) == [0, 1, 7]
    base, (first, second) = known, (slice(0, 300), slice(300, 600))
    shards = [base.fork().partial_fit(X[part], y[part]) for part in (first, second)]
    assert shards[0].merge(shards[1]).task_.rows == 600


def test_forks_follow_no_units_so_that_they_merge(known):
    X, y = table()
    Z, shards = moved(X, 1000, 0), [known.fork(), known.fork()]
    shards[0].partial_fit(X[:300], y[:300])
    shards[1].partial_fit(X[300:400], y[300:400]).partial_fit(Z[400:600], y[400:600])
    assert shards[0].merge(shards[1]).task_.rows == 600


@pytest.mark.parametrize("step", [1, 3])
def test_rows_that_come_one_by_one_do_not_spoil_the_judge(step):
    rng = np.random.default_rng(100)
    X = rng.normal(size=(1000, 3))
    y = 5 * X[:, 0] + 0.1 * rng.normal(size=1000)
    X[600:, 0] *= 1000
    model = RefinedRegressor(memory="adaptive").partial_fit(X[:600], y[:600])
    with pytest.warns(UnitWarning):
        for start in range(600, 720, step):
            part = slice(start, min(720, start + step))
            model.partial_fit(X[part], y[part])
    assert np.abs(model.predict(X[720:]) - y[720:]).mean() < 1.5


def test_reweigh_learns_rows_that_wait_first(known):
    X, y = table()
    Z, model = moved(X, 1000, 0), copy.deepcopy(known)
    model.partial_fit(Z[ROWS : ROWS + 20], y[ROWS : ROWS + 20]).reweigh(X[:100], y[:100])
    assert model.task_.units.pending is None
    assert float(model.task_.members.settle().states[0].moments.rows) == model.task_.rows


def test_a_column_that_is_gone_is_no_matter(tmp_path, known):
    X, y = table()
    X[ROWS:, 0] = np.nan
    model = copy.deepcopy(known).partial_fit(X[ROWS:], y[ROWS:])
    assert RefinedClassifier.load(model.save(tmp_path / "s")).task_.count == len(X)


def test_a_regression_is_followed():
    X, _ = table(4000)
    y = X @ np.arange(10.0) + np.random.default_rng(0).normal(size=4000) / 10
    model = RefinedRegressor(memory="adaptive")
    with pytest.warns(UnitWarning):
        Z = moved(X, 1000, 2000)
        for start in range(0, 3000, 32):
            model.partial_fit(Z[start : start + 32], y[start : start + 32])
    assert np.square(model.predict(Z[3000:]) - y[3000:]).mean() < 0.02


def test_new_words_are_followed():
    rng = np.random.default_rng(0)
    words, n = np.array([f"w{at}" for at in range(12)]), 4500
    code, a = rng.integers(12, size=n), rng.normal(size=n)
    y = (np.sin(code * 2.0) + a > 0).astype(int)
    names = np.where(np.arange(n) < ROWS, words[code], np.char.add("new-", words[code]))
    frame = pd.DataFrame({"a": a, "word": names})
    model, fresh = RefinedClassifier(memory="adaptive"), RefinedClassifier(memory="adaptive")

    def run(model, rows):
        wrong = []
        for start in range(0, len(rows), 32):
            part = rows.iloc[start : start + 32]
            if start:
                wrong.append(model.predict(part) != y[part.index])
            model.partial_fit(part, y[part.index])
        return np.concatenate(wrong)[-1000:].mean()

    assert run(model, frame) < run(fresh, frame.iloc[ROWS:]) + 0.02


def test_other_memories_follow_no_unit():
    X, y = table(400)
    for memory in ("all", 320):
        assert RefinedClassifier(memory=memory).partial_fit(X, y).task_.units is None


def test_a_moved_map_reads_what_it_read():
    X = np.random.default_rng(0).normal(5, 2, size=(300, 2))
    encoder = Encoder.fit(read_columns(X))
    first, second = (column for column in encoder.maps if isinstance(column, Number))
    factor = np.array([1000.0, 1.0])
    shift = np.array([999 * first.centre / first.scale, 2.0])
    move = Move(np.array([0, 1]), shift, factor).applied(encoder)
    Z = X * factor + [0, 2 * second.scale]
    assert np.allclose(move.encode(read_columns(Z)), encoder.encode(read_columns(X)))
    before, after = encoder.threshold_features(20), move.threshold_features(20)
    assert np.array_equal(before[0], after[0]) and np.allclose(before[1], after[1])
