"""Rows one by one, as dicts: what partial_fit makes of them, and what is refused."""

import copy
import datetime
import warnings

import numpy as np
import pandas as pd
import pytest

from gradatim import RefinedClassifier, RefinedRegressor, progressive_validation
from gradatim.estimators import river as ours


def rows(n=300, seed=0):
    """Return dicts with numbers, words, truth values, dates and gaps; labels and numbers."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    made = [
        {
            "x": float(x[i]),
            "n": int(rng.integers(5)),
            "word": str(rng.choice(["red", "blue", "green"])),
            "truth": bool(i % 2),
            "day": datetime.date(2024, 1, 1) + datetime.timedelta(days=i),
            "gap": None if i % 4 else float(i),
        }
        for i in range(n)
    ]
    return made, ["yes" if value > 0 else "no" for value in x], (3 * x).tolist()


def same_state(one, other):
    for name, part in one.task_.pack()[0].items():
        np.testing.assert_array_equal(part.numpy(), other.task_.pack()[0][name].numpy())


@pytest.mark.parametrize("numbers", [False, True])
@pytest.mark.parametrize("kind", [RefinedClassifier, RefinedRegressor])
def test_learning_a_row_is_partial_fit_of_it(kind, numbers):
    made, labels, y = rows(270)
    made = [{name: row[name] for name in ("x", "n", "truth")} for row in made] if numbers else made
    target = labels if kind is RefinedClassifier else y
    one, table = kind(), kind()
    for i, row in enumerate(made):
        lacking = {name: cell for name, cell in row.items() if i == 0 or name != "n" or i % 7}
        weight = 1.0 + (i % 5 == 0)
        assert one.learn_one(lacking, target[i], weight) is one
        table.partial_fit([lacking], target[i : i + 1], sample_weight=[weight])
        if i % 60 and i < 262:
            continue
        if kind is RefinedRegressor:
            assert one.predict_one(made[i - 1]) == table.predict([made[i - 1]])[0]
        else:
            said = one.predict_proba_one(made[i - 1])
            assert list(said) == table.classes_.tolist()
            np.testing.assert_array_equal(list(said.values()), table.predict_proba([made[i - 1]])[0])
            assert one.predict_one(made[i - 1]) == table.predict([made[i - 1]])[0]
    same_state(one, table)
    assert one.feature_names_in_.tolist() == list(made[0])


def test_before_anything_is_learnt():
    made, _, _ = rows(1)
    assert RefinedClassifier().predict_one(made[0]) is None
    assert RefinedClassifier().predict_proba_one(made[0]) == {} and RefinedRegressor().predict_one({}) == 0.0
    with pytest.raises(ValueError, match="a row is a dict"):
        RefinedClassifier().predict_one([1.0])


def test_new_names_begin_columns_while_rows_are_held_and_are_left_out_later():
    made, labels, _ = rows(300)
    for row in made[10:]:
        row["late"] = row["x"]
    whole = [{**row, "late": row.get("late")} for row in made]
    one, filled = RefinedClassifier(), RefinedClassifier()
    for i, label in enumerate(labels):
        one.learn_one(made[i], label)
        filled.learn_one(whole[i], label)
    assert one.feature_names_in_.tolist()[-1] == "late"
    assert one.predict_proba_one(whole[3]) == filled.predict_proba_one(whole[3])
    with pytest.warns(UserWarning, match="names that no column has: 'odd', 'even'"):
        one.learn_one({**whole[0], "odd": 1, "even": 2}, "yes")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert one.predict_proba_one({**whole[3], "odd": 5}) == one.predict_proba_one(whole[3])
    with pytest.warns(UserWarning, match="has: 'more'"):
        one.learn_one({**whole[0], "odd": 1, "more": 2}, "yes")
    assert one.n_features_in_ == 7


@pytest.mark.parametrize("n", [0, 5, 280])
@pytest.mark.parametrize(
    ("x", "y", "sentence"),
    [
        ([1.0, 2.0], 1, "a row is a dict"),
        (None, 1, "a row is a dict"),
        ({"x": np.inf, "n": 1}, 1, "'x' contains infinity"),
        ({"x": 10**400, "n": 1}, 1, "infinity"),
        ({"x": 1.0, "n": 1}, None, "missing"),
        ({"x": 1.0, "n": 1}, float("nan"), "missing"),
        ({"x": 1.0, "n": 1}, float("inf"), "infinity"),
        ({"x": [1, 2], "n": 1}, 1, "'x' holds a list"),
        ({1: 1.0, "1": 2.0}, 1, "each name once"),
    ],
)
def test_what_cannot_be_learnt_is_refused_and_harms_nothing(n, x, y, sentence):
    made, _, numbers = rows(n)
    model = RefinedRegressor()
    for row, number in zip(made, numbers, strict=True):
        model.learn_one({"x": row["x"], "n": row["n"]}, number)
    before = copy.deepcopy(model.__dict__)
    with pytest.raises((ValueError, TypeError), match=sentence):
        model.learn_one(x, y)
    assert list(model.__dict__) == list(before) and model.predict_one({"x": 1.0}) == pytest.approx(
        3.0 if n == 280 else model.predict_one({"x": 1.0}), abs=0.2
    )
    model.learn_one({"x": 1.0, "n": 1}, 2.0)
    assert model.task_.count == n + 1


def test_a_row_of_weight_0_changes_nothing():
    model = RefinedRegressor().learn_one({"a": 1.0}, 2.0)
    assert model.learn_one({"a": 3.0}, 2.0, 0.0).task_.count == 1
    with pytest.raises(ValueError, match="negative"):
        model.learn_one({"a": 3.0}, 2.0, -1.0)


def test_progressive_validation_is_predicting_and_then_learning():
    made, labels, numbers = rows(40)
    by_hand, right, nats = RefinedClassifier(), [], []
    for row, label in zip(made, labels, strict=True):
        if said := by_hand.predict_proba_one(row):
            right.append(by_hand.predict_one(row) == label)
            nats.append(-np.log(max(said.get(label, 0), 1e-15)))
        by_hand.learn_one(row, label)
    result = progressive_validation(RefinedClassifier(), zip(made, labels, strict=True), every=10)
    assert (result.score, result.rows, result.skipped) == (np.mean(right), 39, 1)
    assert result.log_loss == pytest.approx(np.mean(nats))
    assert [n for n, _ in result.curve] == [10, 20, 30, 39] and result.curve[-1][1] == result.score
    assert repr(result).startswith("accuracy 0.") and "39 rows" in repr(result)
    frame = pd.DataFrame(made)
    for batch_size in (1, 7):
        table = progressive_validation(RefinedClassifier(), frame, np.array(labels), batch_size)
        assert table.rows == 40 - batch_size
        assert batch_size > 1 or table.score == pytest.approx(result.score)
    x = frame[["x", "n"]].to_numpy()
    absolute = progressive_validation(
        RefinedRegressor(), x, numbers, 8, metric=lambda y, said: np.abs(y - said).mean()
    )
    plain = progressive_validation(RefinedRegressor(), x, numbers, 8)
    assert plain.metric == "RMSE" and plain.log_loss is None and 0 < absolute.score <= plain.score


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"X": [], "y": []}, "needs rows"),
        ({"X": [1, 2]}, "pairs of a dict and its y"),
        ({"X": [({"a": 1}, 1)], "batch_size": 0}, "at least 1"),
        ({"X": [({"a": 1}, 1)], "batch_size": 2}, "one by one"),
    ],
)
def test_a_validation_that_cannot_be_is_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        progressive_validation(RefinedRegressor(), **settings)


def test_without_river_its_models_say_so(monkeypatch):
    monkeypatch.setattr(ours, "MiniBatchClassifier", object)
    with pytest.raises(ImportError, match="pip install river"):
        ours.RiverClassifier()


def test_models_of_river_are_evaluated_and_pass_its_checks():
    river = pytest.importorskip("river")
    from river import checks, evaluate, metrics

    made, labels, numbers = rows(60)
    for model, y, metric in (
        (ours.RiverClassifier(), labels, metrics.Accuracy()),
        (ours.RiverRegressor(), numbers, metrics.RMSE()),
    ):
        scored = evaluate.progressive_val_score(zip(made, y, strict=True), model, metric)
        kind = RefinedClassifier if y is labels else RefinedRegressor
        alone = progressive_validation(kind(), zip(made, y, strict=True))
        assert abs(scored.get() - alone.score) < 0.2
        tried = set()
        for check in checks.yield_checks(model):
            name = getattr(check, "__name__", None) or getattr(check, "func", check).__name__
            if name not in tried:  # of the data sets that it is tried on the first
                tried.add(name)
                check(model.clone())
        assert len(tried) > 20
    assert river.base.Classifier in ours.RiverClassifier.__mro__
    frame = pd.DataFrame([{"b": row["n"], "a": row["x"]} for row in made])
    many = ours.RiverClassifier()
    assert many.predict_many(frame).isna().all() and many.predict_proba_many(frame).shape == (60, 0)
    many.learn_many(frame, pd.Series(labels))
    assert list(many.predict_proba_many(frame[["a", "b"]]).columns) == ["no", "yes"]
    many.learn_many(frame.assign(late=1.0), pd.Series(labels), 2)
    assert many.estimator.feature_names_in_.tolist() == ["a", "b", "late"]
    assert many.predict_many(frame)[3] == many.predict_one({"a": made[3]["x"], "b": made[3]["n"]})
