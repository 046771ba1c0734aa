"""Rows are forgotten as if they had never been learnt; rows that were never learnt are refused, and nothing changes."""

import numpy as np
import pandas as pd
import pytest
from tests.case_tools import call, good
from tests.cases_damage import rows_in

from gradatim import RefinedClassifier, RefinedRegressor


def rows(n=900, seed=0):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.normal(size=(n, 3)), columns=list("abc"))
    frame["word"] = rng.choice(["x", "y", "z"], n)
    return frame, frame["a"] * frame["b"] + (frame["word"] == "x")


def target_of(kind, y):
    return (y > 0.3).to_numpy() if kind is RefinedClassifier else y.to_numpy()


def asked(model, X):
    return model.predict_proba(X) if isinstance(model, RefinedClassifier) else model.predict(X)


@pytest.mark.parametrize("kind", [RefinedClassifier, RefinedRegressor])
def test_sums_are_those_of_the_rows_that_remain(kind):
    X, y = rows()
    y = target_of(kind, y)
    base = kind().partial_fit(X[:300], y[:300])
    weight = np.arange(900) % 3 + 1.0
    never = base.fork().partial_fit(X[:500], y[:500], sample_weight=weight[:500])
    model = base.fork().partial_fit(X, y, sample_weight=weight)
    model.forget(X[500:], y[500:], sample_weight=weight[500:])
    assert model.task_.count == never.task_.count == 500
    assert model.task_.rows == pytest.approx(never.task_.rows)
    ours, theirs = (part.task_.members.settle().states[0].moments for part in (model, never))
    for name in ours._fields:
        a, b = getattr(ours, name), getattr(theirs, name)
        assert (a - b).abs().max() <= 1e-9 * b.abs().max()
    heads = [part.task_.members.renewed() for part in (model, never)]
    heads = [m.learners[0].refiner.solve(m.states[0]).theta for m in heads]
    seen = (heads[0] != 0) & (heads[1] != 0)
    assert seen.any() and (heads[0] - heads[1])[seen].abs().max() < 1e-6


@pytest.mark.parametrize("kind", [RefinedClassifier, RefinedRegressor])
def test_rows_that_were_never_learnt_are_refused(kind):
    X, y = rows()
    y = target_of(kind, y)
    model = kind().partial_fit(X[:600], y[:600])
    before = asked(model, X)
    other = X[600:].copy()
    other["a"] += 4
    for wrong, target in (
        (other, y[600:]),
        (X, y),
        (X[:300], 1 - y[:300] if kind is RefinedClassifier else y[:300] + 9),
    ):
        with pytest.raises(ValueError, match="never learnt"):
            model.forget(wrong, target)
        assert np.array_equal(before, asked(model, X)) and model.task_.count == 600
    with pytest.raises(ValueError):
        model.forget(X[:10].drop(columns="a"), y[:10])
    assert np.array_equal(before, asked(model, X))


def test_a_class_that_is_new_was_never_learnt():
    X, y = rows(400)
    model = RefinedClassifier().partial_fit(X, np.where(y > 0.3, "a", "b"))
    with pytest.raises(ValueError, match="classes are new"):
        model.forget(X[:5], ["new"] * 5)
    assert list(model.classes_) == ["a", "b"]


@pytest.mark.parametrize("kind", [RefinedClassifier, RefinedRegressor])
def test_rows_that_are_held_are_forgotten(kind):
    X, y = rows(120)
    y = target_of(kind, y)
    model, never = kind().partial_fit(X, y), kind().partial_fit(X[:100], y[:100])
    assert np.allclose(asked(model.forget(X[100:], y[100:]), X), asked(never, X))
    with pytest.raises(ValueError, match="never learnt"):
        model.forget(X[100:], y[100:])
    with pytest.raises(ValueError, match="begin a new estimator"):
        model.forget(X[:100], y[:100])


def test_of_all_rows_nothing_remains():
    X, y = rows(600)
    model = RefinedRegressor().partial_fit(X, y).forget(X, y)
    assert model.task_.count == 0 and np.ptp(model.predict(X)) == 0
    members = model.task_.members
    assert not members.states[0].theta.any() and not members.states[0].moments.gram.any()
    assert np.corrcoef(model.partial_fit(X, y).predict(X), y)[0, 1] > 0.9


def test_a_memory_that_fades_does_not_forget():
    X, y = rows(400)
    model = RefinedClassifier(memory="adaptive").partial_fit(X, y > 0)
    with pytest.raises(ValueError, match="fades by itself"):
        model.forget(X[:9], y[:9] > 0)


def test_the_command_forgets_and_refuses(tmp_path):
    X, y = rows()
    frame = X.assign(y=np.where(y > 0.3, "p", "q"))
    for name, part in (("all", frame), ("gone", frame[600:]), ("kept", frame[:600])):
        frame_file = tmp_path / f"{name}.csv"
        part.to_csv(frame_file, index=False)
    good("fit", tmp_path / "all.csv", "--target", "y", "--state", tmp_path / "s", "--quiet")
    said = good(
        "forget", tmp_path / "gone.csv", "--state", tmp_path / "s", "--quiet", "--out", tmp_path / "t"
    )
    assert "300 rows forgotten" in said and "600 rows left" in said
    assert rows_in(tmp_path / "t") == 600 and rows_in(tmp_path / "s") == 900
    state = (tmp_path / "t").read_bytes()
    done = call("forget", tmp_path / "all.csv", "--state", tmp_path / "t", "--quiet")
    assert done.code == 2 and "never learnt" in done.err and (tmp_path / "t").read_bytes() == state
    good("forget", tmp_path / "kept.csv", "--state", tmp_path / "t", "--quiet")
    assert rows_in(tmp_path / "t") == 0


def test_after_reweigh_answers_are_those_of_rows_that_were_never_learnt():
    X, y = rows()
    y = target_of(RefinedClassifier, y)
    base = RefinedClassifier().partial_fit(X[:300], y[:300])
    never = base.fork().partial_fit(X[:500], y[:500]).reweigh(X[:500], y[:500])
    model = base.fork().partial_fit(X, y).forget(X[500:], y[500:]).reweigh(X[:500], y[:500])
    assert np.abs(model.predict_proba(X) - never.predict_proba(X)).max() < 1e-6
