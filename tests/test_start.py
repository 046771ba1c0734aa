"""Tables that begin at a prior which other tables taught: laws of sums, files, and what they are worth."""

import numpy as np
import pytest
from scipy.special import ndtr
from sklearn.base import clone

from gradatim import GroupedClassifier, GroupedRegressor, RefinedClassifier, RefinedRegressor
from gradatim.preprocessing import read_columns


def family(n_tables=40, per=25, seed=0):
    """Return X, y and tables that share a nonlinear function; each has a level and a slope of its own."""
    rng = np.random.default_rng(seed)
    table = np.repeat(np.arange(n_tables), per)
    X = rng.normal(size=(len(table), 3))
    level, slope = rng.normal(size=n_tables), 0.5 * rng.normal(size=n_tables)
    y = 2 * np.sin(2 * X[:, 0]) + level[table] + slope[table] * X[:, 1] + 0.3 * rng.normal(size=len(table))
    return X, y, table


def words(y):
    return np.where(y > 0.5, "high", np.where(y < -0.5, "low", "middle"))


@pytest.fixture(scope="module")
def numbers():
    return GroupedRegressor().fit(*family())


@pytest.fixture(scope="module")
def classes():
    X, y, table = family(seed=1)
    return GroupedClassifier().fit(X, words(y), table)


@pytest.fixture(params=["numbers", "classes"])
def kind(request):
    """Return a prior, an estimator's class, how y is made of numbers, and the method that answers."""
    prior = request.getfixturevalue(request.param)
    if request.param == "numbers":
        return prior, RefinedRegressor, lambda y: y, "predict"
    return prior, RefinedClassifier, words, "predict_proba"


def test_a_new_table_begins_at_the_prior_and_ends_as_its_own(numbers):
    misses = {4: [], 16: [], 400: []}
    for seed in range(100, 106):
        X, y, _table = family(1, 600, seed)
        for known, found in misses.items():
            told = []
            for prior in (numbers, None):
                model = RefinedRegressor(prior=prior).partial_fit(X[:known], y[:known])
                told.append(((model.predict(X[400:]) - y[400:]) ** 2).mean())
            group = numbers.fork().partial_fit(X[:known], y[:known], ["t"] * known)
            told.append(((group.predict(X[400:], ["t"] * 200) - y[400:]) ** 2).mean())
            found.append(told)
    four, sixteen, many = (np.mean(misses[known], axis=0) for known in (4, 16, 400))
    assert four[0] < 0.5 * four[1] and sixteen[0] < 0.6 * sixteen[1]
    assert four[0] < 1.1 * four[2] and sixteen[0] < 1.1 * sixteen[2]
    assert many[0] < 1.05 * min(many[1], many[2])


def test_a_prior_of_another_world_is_outvoted(numbers):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(900, 3))
    y = 20 * X[:, 0] * X[:, 2] - 50 + rng.normal(size=900)
    ours, alone = (RefinedRegressor(prior=p).partial_fit(X[:600], y[:600]) for p in (numbers, None))
    miss = [((model.predict(X[600:]) - y[600:]) ** 2).mean() for model in (ours, alone)]
    assert miss[0] < 1.01 * miss[1]


def test_the_cut_into_calls_and_rows_does_not_matter(kind):
    prior, estimator, target, read = kind
    X, y, _table = family(1, 300, seed=7)
    y = target(y)
    whole = estimator(prior=prior).partial_fit(X, y)
    cut, single = estimator(prior=prior), estimator(prior=prior)
    for at in range(0, 300, 13):
        cut.partial_fit(X[at : at + 13], y[at : at + 13])
    for row, label in zip(X[:40], y[:40], strict=True):
        single.learn_one({f"x{n}": value for n, value in enumerate(row)}, label)
    np.testing.assert_allclose(getattr(cut, read)(X), getattr(whole, read)(X), atol=1e-9)
    first = estimator(prior=prior).partial_fit(X[:40], y[:40])
    row = {f"x{n}": value for n, value in enumerate(X[50])}
    said = single.predict_one(row) if read == "predict" else [*single.predict_proba_one(row).values()]
    np.testing.assert_allclose(said, getattr(first, read)(X[50:51])[0], atol=1e-9)


@pytest.mark.parametrize("rows", [40, 300])
def test_files_give_the_same_numbers_and_go_on(kind, rows, tmp_path):
    prior, estimator, target, read = kind
    X, y, _table = family(1, 400, seed=7)
    model = estimator(prior=prior.save_prior(tmp_path / "prior.safetensors"))
    model.partial_fit(X[:rows], target(y)[:rows])
    again = estimator.load(model.save(tmp_path / "state.safetensors"))
    np.testing.assert_array_equal(getattr(again, read)(X), getattr(model, read)(X))
    for one in (model, again):
        one.partial_fit(X[rows:], target(y)[rows:])
    np.testing.assert_array_equal(getattr(again, read)(X), getattr(model, read)(X))
    fresh, there = clone(again).fit(X[:50], target(y)[:50]), clone(model).fit(X[:50], target(y)[:50])
    np.testing.assert_array_equal(getattr(fresh, read)(X), getattr(there, read)(X))


def test_merged_and_forgotten_rows_are_sums(kind, numbers):
    prior, estimator, target, read = kind
    X, y, _table = family(1, 900, seed=7)
    y = target(y)
    base = estimator(prior=prior).partial_fit(X[:300], y[:300])
    whole = base.fork().partial_fit(X[:600], y[:600])
    merged = base.fork().partial_fit(X[:300], y[:300]).merge(base.fork().partial_fit(X[300:600], y[300:600]))
    assert merged.start_.rows == whole.start_.rows == 600
    np.testing.assert_allclose(merged.start_.sums.square, whole.start_.sums.square, atol=1e-9)
    for one in (merged, whole):
        one.reweigh(X[:600], y[:600])
    np.testing.assert_allclose(getattr(merged, read)(X), getattr(whole, read)(X), atol=1e-6)
    whole.partial_fit(X[600:], y[600:]).forget(X[600:], y[600:])
    np.testing.assert_allclose(whole.start_.sums.square, merged.start_.sums.square, atol=1e-8)
    with pytest.raises(ValueError, match="one of the two has none"):
        base.merge(estimator().partial_fit(X, y))


def test_quantiles_hold_what_they_say_and_belong_to_deviations(numbers):
    held = []
    for seed in range(200, 212):
        X, y, _table = family(1, 200, seed)
        for known in (1, 8, 32):
            model = RefinedRegressor(prior=numbers).partial_fit(X[:known], y[:known])
            low, middle, high = model.predict(X[100:], quantiles=[0.1, 0.5, 0.9]).T
            mean, deviation = model.predict(X[100:], return_std=True)
            assert (low < middle).all() and (middle < high).all() and np.isfinite([low, high]).all()
            np.testing.assert_allclose(mean, model.predict(X[100:]), atol=1e-12)
            assert (abs(middle - mean) < deviation).all()
            held.append(((y[100:] > low) & (y[100:] < high)).mean())
    assert 0.7 < np.mean(held) < 0.9


def test_quantiles_far_out_go_on(numbers):
    """A committee's tails are wide: at 1e-12 they lie hundreds of deviations away, and are not cut off."""
    X, y, _table = family(1, 40, seed=7)
    for n in (1, 4, 40):
        model = RefinedRegressor(prior=numbers).partial_fit(X[:n], y[:n])
        found = model.predict(X, quantiles=[1e-12, 1e-11, 1e-10, 1e-9, 1e-8])
        assert (np.diff(found, axis=1) > 1e-3).all()
    alone = RefinedRegressor(prior=numbers).partial_fit(X[:1], y[:1])
    weight, mean, deviation = alone.start_.numbers(read_columns(X))
    at = alone.predict(X, quantiles=[1e-12])
    np.testing.assert_allclose((weight * ndtr((at - mean) / deviation)).sum(1), 1e-12, rtol=1e-4)


def test_predicted_before_learnt_is_what_would_be_predicted(kind):
    prior, estimator, target, read = kind
    X, y, _table = family(1, 96, seed=7)
    model, more = estimator(prior=prior), {} if read == "predict" else {"proba": True}
    found = model.predict_then_learn(X, target(y), **more)
    there = estimator(prior=prior).partial_fit(X[:64], target(y)[:64])
    np.testing.assert_allclose(found[64:], getattr(there, read)(X[64:]), atol=1e-9)


def test_a_table_knows_the_classes_of_its_prior(classes):
    X, y, _table = family(1, 60, seed=7)
    model = RefinedClassifier(prior=classes).partial_fit(X[:3], ["high"] * 3)
    assert model.classes_.tolist() == ["high", "low", "middle"]
    assert (model.predict_proba(X) > 0).all()
    with pytest.raises(ValueError, match="the prior knows the classes high, low, middle; got odd"):
        model.partial_fit(X[:1], ["odd"])
    assert model.fit(X, words(y)).score(X, words(y)) > 0.6


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"X": 2}, "the prior was taught by 3 columns; got 2"),
        ({"prior": 5}, "prior must be a file of save_prior or a fitted GroupedRegressor; got a int"),
        ({"prior": "nothing.safetensors"}, "cannot be read"),
        ({"memory": "adaptive"}, "prior goes with memory='all'"),
        ({"prior": "classifier"}, "got a GroupedClassifier"),
    ],
)
def test_what_does_not_fit_is_one_sentence(numbers, classes, change, said):
    X, y, _table = family(1, 60, seed=7)
    prior = classes if change.get("prior") == "classifier" else change.get("prior", numbers)
    model = RefinedRegressor(prior=prior, memory=change.get("memory", "all"))
    with pytest.raises(ValueError, match=said) as error:
        model.partial_fit(X[:, : change.get("X", 3)], y)
    assert "\n" not in str(error.value)
    assert not hasattr(model, "task_") and not hasattr(model, "n_features_in_")


def test_columns_by_name_are_those_of_the_prior():
    import pandas as pd

    X, y, table = family(12)
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    prior = GroupedRegressor().fit(frame, y, table)
    RefinedRegressor(prior=prior).partial_fit(frame[:40], y[:40])
    other = RefinedRegressor(prior=prior).partial_fit(frame[["c", "a", "b"]], y)
    rows = frame.to_dict("records")
    named = RefinedRegressor(prior=prior).partial_fit([dict(reversed(row.items())) for row in rows], y)
    wanted = RefinedRegressor(prior=prior).partial_fit(frame, y).predict(frame)
    np.testing.assert_allclose(other.predict(frame[["c", "a", "b"]]), wanted, atol=1e-6)
    np.testing.assert_allclose(named.predict(rows), wanted, atol=1e-6)
    with pytest.raises(ValueError, match="taught by 3 columns, a, b, c; got 3, a, b, z"):
        RefinedRegressor(prior=prior).partial_fit(frame.rename(columns={"c": "z"}), y)


@pytest.mark.parametrize(
    "name", ["prior.groups.count", "prior.trees.0.left", "prior.experts.noise", "prior.odd"]
)
def test_files_whose_prior_contradicts_itself_are_refused(numbers, tmp_path, name):
    from gradatim.files.checkpoint import read, write

    X, y, _table = family(1, 60, seed=7)
    path = RefinedRegressor(prior=numbers).fit(X, y).save(tmp_path / "state.safetensors")
    tensors, header = read(path, "state")
    tensors[name] = -tensors.get(name, tensors["prior.groups.count"]) - 1
    header.pop("gradatim_format")
    with pytest.raises(ValueError, match=r"state\.safetensors"):
        RefinedRegressor.load(write(path, tensors, header))


def test_a_prior_begins_a_table_and_comes_not_later(numbers):
    X, y, _table = family(1, 60, seed=7)
    model = RefinedRegressor().partial_fit(X[:30], y[:30])
    with pytest.raises(ValueError, match="a prior begins a table, and 30 rows were learnt without one"):
        model.set_params(prior=numbers).partial_fit(X[30:], y[30:])
