"""What is learnt of a table depends on its rows: however they are cut, saved between, shared out, or ordered."""

import copy
import itertools
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from gradatim.estimators import DriftWarning, RefinedClassifier, RefinedRegressor
from gradatim.files.checkpoint import read
from gradatim.nn.landmarks import POOL
from gradatim.preprocessing import Encoder, Number

SIZES = (1, 7, 50, 500)


@pytest.fixture(autouse=True)
def _drift_is_no_matter():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DriftWarning)
        yield


def late(n=700, seed=0):
    """Return a table whose words, whose numbers in two columns, and whose classes come late; and labels and numbers."""
    rng = np.random.default_rng(seed)
    place = np.arange(n)
    x = rng.normal(size=n)
    word = np.where(
        place < 300, rng.choice(["red", "blue"], n), rng.choice([f"late{j}" for j in range(9)], n)
    )
    frame = pd.DataFrame(
        {
            "x": x,
            "word": word,
            "constant": np.where(place < 330, 4.0, 4 + 2 * rng.normal(size=n)),
            "empty": np.where(place < 350, np.nan, 1e3 * rng.gamma(2.0, size=n)),
        }
    )
    labels = np.where(x > 0, "yes", "no").astype(object)
    labels[(place >= 290) & (word == "late1")] = "late"
    labels[5] = "rare"
    constant_at_first = np.where(place < 280, 3.0, 3 + 50 * x + 5 * rng.normal(size=n))
    return frame, labels, constant_at_first


def cut(model, X, y, size, **settings):
    for start in range(0, len(y), size):
        model.partial_fit(X[start : start + size], y[start : start + size], **settings)
    return model


def moments_of(model):
    """Return the sums over all rows that a model has learnt, those that wait included."""
    return model.task_.members.settle().states[0].moments


@pytest.mark.parametrize("members", [1, 2])
def test_a_classifier_does_not_depend_on_how_rows_are_cut(members):
    frame, labels, _ = late()
    first, *others = (
        cut(RefinedClassifier(n_estimators=members), frame, labels, size)
        for size in SIZES[2 * (members > 1) :]
    )
    assert first.classes_.tolist() == ["late", "no", "rare", "yes"]
    wanted = first.predict_proba(frame)
    assert np.isfinite(wanted).all()
    for model in others:
        np.testing.assert_allclose(model.predict_proba(frame), wanted, rtol=0, atol=1e-9)
        assert model.task_.encoder == first.task_.encoder


@pytest.mark.parametrize("constant", [False, True])
def test_a_regression_does_not_depend_on_how_rows_are_cut(constant):
    frame, _, y = late()
    y = y if constant else 7 * frame["x"].to_numpy() - 1
    first, *others = (cut(RefinedRegressor(), frame, y, size) for size in SIZES)
    wanted = first.predict(frame, quantiles=[0.1, 0.5, 0.9])
    assert first.score(frame[400:], y[400:]) > 0.9
    for model in others:
        given = model.predict(frame, quantiles=[0.1, 0.5, 0.9])
        np.testing.assert_allclose(given, wanted, rtol=1e-9, atol=1e-9 * np.ptp(y))
        assert model.task_.target == first.task_.target


@pytest.mark.parametrize("n", [40, 120])
def test_while_rows_are_held_answers_do_not_depend_on_cuts(n):
    frame, labels, _ = late()
    wanted = RefinedClassifier().partial_fit(frame[:n], labels[:n]).predict_proba(frame)
    for size in (1, 7):
        model = cut(RefinedClassifier(), frame[:n], labels[:n], size)
        np.testing.assert_allclose(model.predict_proba(frame), wanted, rtol=0, atol=1e-9)


def test_a_held_table_is_fitted_again_when_its_rows_have_grown_by_an_eighth():
    frame, labels, _ = late()
    model, counts = RefinedClassifier(), []
    for row in range(64):
        model.partial_fit(frame[row : row + 1], labels[row : row + 1])
        model.predict_proba(frame[:1])
        counts.append(model.task_.early.count)
    assert all(1.125 * count >= row - 1 for row, count in enumerate(counts, 1) if row != 6)
    assert len(set(counts)) < 40  # not for each of the rows
    assert set(model.classes_) == set(labels[:64])


@pytest.mark.parametrize("kind", [RefinedClassifier, RefinedRegressor])
def test_prepared_and_weighed_again_the_order_of_rows_is_nothing(kind):
    frame, labels, y = late(500)
    target = labels if kind is RefinedClassifier else y
    more = {"classes": np.unique(labels)} if kind is RefinedClassifier else {}
    answer = "predict_proba" if kind is RefinedClassifier else "predict"
    wanted = getattr(kind().fit(frame, target), answer)(frame)
    for order in (np.arange(500), np.argsort(target.astype(str)), np.random.default_rng(1).permutation(500)):
        model = kind().prepare(frame, target, **more)
        model.predict_then_learn(frame.iloc[order], target[order])
        model.reweigh(frame, target)
        np.testing.assert_allclose(getattr(model, answer)(frame), wanted, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", [RefinedClassifier, RefinedRegressor])
def test_saving_and_loading_between_changes_nothing(kind, tmp_path):
    frame, labels, y = late(480)
    target, answer = (labels, "predict_proba") if kind is RefinedClassifier else (y, "predict")
    never = saved = kind()
    never = kind()
    for start in range(0, 480, 40):
        part = slice(start, start + 40)
        never.partial_fit(frame[part], target[part])
        saved.partial_fit(frame[part], target[part])
        saved = kind.load(saved.save(tmp_path / "task"))
    np.testing.assert_allclose(
        getattr(saved, answer)(frame), getattr(never, answer)(frame), rtol=1e-10, atol=1e-11
    )


def test_forks_that_grew_apart_merge_into_one_pass():
    """Sums over rows are those of one pass; the experts' weights are products of those of each."""
    frame, labels, _ = late()
    frame["word"] = [f"{w}{i // 200}" if i > 300 else w for i, w in enumerate(frame["word"])]
    labels = np.where(frame["x"] > 0, "yes", "no")
    base = RefinedClassifier().partial_fit(frame[:280], labels[:280])
    forks = [
        base.fork().partial_fit(frame[part], labels[part]) for part in (slice(280, 480), slice(480, 700))
    ]
    merged = copy.deepcopy(base).merge(forks[0]).merge(forks[1])
    whole = RefinedClassifier().partial_fit(frame, labels)
    levels = [model.task_.encoder.maps[1].levels for model in (merged, whole)]
    assert set(levels[0]) == set(levels[1])
    assert merged.task_.rows == 700
    assert merged.score(frame, labels) > 0.95
    assert np.abs(merged.predict_proba(frame) - whole.predict_proba(frame)).mean() < 0.02


def test_forks_that_saw_different_new_words_have_the_sums_of_one_pass():
    rng = np.random.default_rng(0)
    words = np.concatenate([rng.choice(["a", "b"], 300), ["c", "d"] * 50, ["e", "f"] * 50]).astype(object)
    frame = pd.DataFrame({"x": rng.normal(size=500), "word": words, "constant": 2.0, "empty": np.nan})
    frame.loc[300:399, "constant"] = 2 + rng.normal(size=100)
    y = frame["x"].to_numpy() + (words == "c") + 0.1 * rng.normal(size=500)
    base = RefinedRegressor().partial_fit(frame[:300], y[:300])
    forks = [base.fork().partial_fit(frame[part], y[part]) for part in (slice(300, 400), slice(400, 500))]
    merged, whole = (
        copy.deepcopy(base).merge(forks[0]).merge(forks[1]),
        RefinedRegressor().partial_fit(frame, y),
    )
    maps = [model.task_.encoder.maps for model in (merged, whole)]
    assert maps[0][1].levels == maps[1][1].levels == ("a", "b", "c", "d", "e", "f")
    assert [(m.centre, m.scale) for m in maps[0] if isinstance(m, Number)] == [
        (m.centre, m.scale) for m in maps[1] if isinstance(m, Number)
    ]
    assert merged.task_.target == whole.task_.target
    sums, wanted = (moments_of(model) for model in (merged, whole))
    for name in sums._fields:
        torch.testing.assert_close(getattr(sums, name), getattr(wanted, name), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(merged.predict(frame), whole.predict(frame), atol=0.1)


def test_forks_whose_y_begins_to_vary_apart_have_the_sums_of_one_pass():
    frame, _, _ = late(900)
    y = np.where(np.arange(900) < 300, 2.0, 2 + 10 * frame["x"].to_numpy())
    base = RefinedRegressor().partial_fit(frame[:280], y[:280])
    parts = (slice(280, 500), slice(500, 700), slice(700, 900))
    merged, whole = copy.deepcopy(base), RefinedRegressor().partial_fit(frame, y)
    for part in parts:
        merged.merge(base.fork().partial_fit(frame[part], y[part]))
    assert merged.task_.target.scale == whole.task_.target.scale
    sums, wanted = (moments_of(model) for model in (merged, whole))
    torch.testing.assert_close(sums.squares, wanted.squares, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(sums.rows, wanted.rows)
    base.merge(base.fork().partial_fit(frame[parts[0]], y[parts[0]]).fork())  # one that learnt nothing since
    assert base.task_.rows == 280


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 12])
def test_intervals_of_few_rows_are_the_same_in_any_unit(rows):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3))
    y = x[:, 0] + rng.normal(size=40)
    levels = [0.1, 0.5, 0.9]
    plain = RefinedRegressor().partial_fit(x[:rows], y[:rows]).predict(x, quantiles=levels)
    for unit, shift in itertools.product((1e-9, 1e3, 1e12), (0.0, 5.0)):
        scaled = RefinedRegressor().partial_fit(x[:rows], unit * (y[:rows] + shift))
        given = scaled.predict(x, quantiles=levels) / unit - shift
        np.testing.assert_allclose(given, plain, rtol=1e-6, atol=1e-6)
    assert (np.diff(plain, axis=1) > 0).all()


def test_after_one_row_nothing_is_known_of_the_spread():
    model = RefinedRegressor().partial_fit([[1.0, 2.0]], [7.0])
    given = model.predict([[1.0, 2.0], [5.0, 5.0]], quantiles=[0.01, 0.5, 0.99])
    np.testing.assert_allclose(given, [[-np.inf, 7, np.inf]] * 2, rtol=1e-12)
    mean, deviation = model.predict([[1.0, 2.0]], return_std=True)
    assert abs(mean[0] - 7.0) < 1e-12 and np.isinf(deviation).all()
    assert np.isfinite(
        model.partial_fit([[1.0, 2.5]], [8.0]).predict([[1.0, 2.0]], quantiles=[0.1, 0.9])
    ).all()


@pytest.mark.parametrize("words", [False, True])
def test_no_landmark_in_a_saved_state_is_a_row(words, tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(900, 4)), columns=list("abcd"))
    if words:
        frame["word"] = rng.choice(["red", "green"], 900)
    model = RefinedRegressor().partial_fit(frame, frame["a"])
    tensors, _ = read(model.save(tmp_path / "task"))
    landmarks = next(value for name, value in tensors.items() if name.endswith("landmarks")).double().numpy()
    rows = model.task_.encoder.encode(model._columns(frame, reset=False))
    assert len(landmarks) > 20
    assert np.abs(rows[:, None] - landmarks).max(2).min() > 1e-3


@pytest.mark.parametrize("value", [4.0, 5.0, -1e6, np.nan])
def test_a_column_that_was_constant_says_nothing_at_prediction(value):
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.normal(size=300), np.full(300, 4.0)])
    model = RefinedRegressor().fit(x, x[:, 0])
    other = x.copy()
    other[:, 1] = value
    np.testing.assert_array_equal(model.predict(other), model.predict(x))


def test_rows_of_weight_0_do_not_decide_what_an_empty_column_holds():
    rows = np.array([[float(j), None] for j in range(40)], dtype=object)
    more = np.array([[1.0, "word"], [2.0, 7.0]], dtype=object)
    kinds = [
        RefinedRegressor().fit(rows, np.arange(40.0)).partial_fit(more, [1, 2], weight).task_.encoder.kinds
        for weight in ([0, 1], [1, 1])
    ]
    assert kinds == [("number", "number"), ("number", "category")]


def test_a_map_from_many_rows_does_not_depend_on_their_order_and_counts_different_ones():
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"x": rng.normal(size=5_000), "word": rng.choice(["a", "b", "c"], 5_000), "z": 0.0})
    rows.iloc[200:] = rows.iloc[0]  # one row, most of the time
    rows.loc[:199, "z"] = rng.normal(size=200)
    y = rows["x"].to_numpy()
    order = rng.permutation(5_000)
    one = RefinedRegressor().prepare(rows, y)
    two = RefinedRegressor().prepare(rows.iloc[order].reset_index(drop=True), y[order])
    draws = [model.task_.members.draws[0] for model in (one, two)]
    assert len(draws[0].landmarks) == 192
    for first, second in zip(*draws, strict=True):
        torch.testing.assert_close(first, second)
    assert one.partial_fit(rows, y).merge(two.partial_fit(rows[:500], y[:500])).task_.rows == 5_500


def test_a_map_from_many_rows_encodes_few_of_them(monkeypatch):
    x = np.random.default_rng(0).normal(size=(5_000, 2))
    encoded, encode = [], Encoder.encode
    monkeypatch.setattr(
        Encoder, "encode", lambda self, columns: encoded.append(columns.n_rows) or encode(self, columns)
    )
    model = RefinedRegressor().prepare(x, x[:, 0])
    assert sum(encoded) == POOL
    assert model.partial_fit(x, x[:, 0]).score(x, x[:, 0]) > 0.999


def asked(model, answer, frame, y, sizes, rng, store=None):
    """Return a model that learnt rows in calls of random sizes, with questions and files between some of them."""
    start = 0
    while start < len(y):
        size = int(rng.choice(sizes))
        model.partial_fit(frame[start : start + size], y[start : start + size])
        if rng.random() < 0.3:
            getattr(model, answer)(frame[:3])
        if store and rng.random() < 0.15:
            model = type(model).load(model.save(store))
        if rng.random() < 0.1:
            model = copy.deepcopy(model)
        start += size
    return model


@pytest.mark.parametrize("kind", [RefinedClassifier, RefinedRegressor])
@pytest.mark.parametrize("n", [300, 613])
def test_when_a_model_is_asked_or_saved_changes_no_answer(kind, n, tmp_path):
    frame, labels, y = late(n)
    y, answer = (labels, "predict_proba") if kind is RefinedClassifier else (y, "predict")
    wanted = getattr(kind().partial_fit(frame, y), answer)(frame)
    for seed in range(3):
        model = asked(kind(), answer, frame, y, (1, 3, 20), np.random.default_rng(seed), tmp_path / "task")
        np.testing.assert_allclose(
            getattr(model, answer)(frame), wanted, rtol=1e-9, atol=1e-9 * np.ptp(wanted)
        )


def test_answers_rest_on_all_rows_but_two_in_a_hundred():
    """Every answer is that of a model that learnt the rows up to a step of the schedule, and no others."""
    x = np.random.default_rng(0).normal(size=(700, 3))
    y = x[:, 0] + x[:, 1] ** 2
    model, steps = RefinedRegressor().partial_fit(x[:256], y[:256]), []
    last = model.predict(x[:2])
    for n in range(256, 700):
        given = model.partial_fit(x[n : n + 1], y[n : n + 1]).predict(x[:2])
        if not np.array_equal(given, last):
            steps.append(n + 1)
            now = RefinedRegressor().partial_fit(x[: n + 1], y[: n + 1])
            assert now.task_.members.pending is None
            np.testing.assert_allclose(given, now.predict(x[:2]), rtol=1e-9)
        last = given
    gaps = np.diff(steps)
    assert 2 <= gaps.min() and (gaps <= 0.02 * np.array(steps[1:]) + 1).all()


def test_a_state_whose_answers_are_older_than_its_rows_goes_on_through_new_words(tmp_path):
    frame, labels, _ = late(800)
    n, never = 270, RefinedClassifier().partial_fit(frame[:270], labels[:270])
    while never.task_.members.pending is None:
        never.partial_fit(frame[n : n + 1], labels[n : n + 1])
        n += 1
    saved = copy.deepcopy(never)
    saved.task_.members = saved.task_.members.settle()
    assert saved.task_.members.beyond and never.task_.members.pending is not None
    path = saved.save(tmp_path / "task")
    assert any("answer_heads" in name for name in read(path)[0])
    saved = RefinedClassifier.load(path)
    np.testing.assert_allclose(saved.predict_proba(frame), never.predict_proba(frame), rtol=0, atol=1e-11)
    for model in (never, saved):
        model.partial_fit(frame[n : n + 1].assign(word="never seen"), ["yes"])
    assert saved.task_.members.beyond and saved.task_.encoder.width == never.task_.encoder.width
    np.testing.assert_allclose(saved.predict_proba(frame), never.predict_proba(frame), rtol=0, atol=1e-11)


def test_a_class_is_answered_from_its_first_row_on():
    x = np.random.default_rng(0).normal(size=(3000, 3))
    model = RefinedClassifier().partial_fit(x, np.where(x[:, 0] > 0, "yes", "no"))
    assert model.partial_fit(x[:5], ["yes"] * 5).task_.members.pending is not None
    model.partial_fit(x[:1], ["new"])
    assert model.task_.members.pending is None
    first, none = model.predict_proba(x[:1])[0, 0], 1e-3 / 3
    assert model.classes_.tolist() == ["new", "no", "yes"] and first > 1.001 * none
