"""Rows in groups: laws of states, and what users may do wrong."""

import numpy as np
import pytest
from sklearn import config_context
from sklearn.base import clone
from tests.grouped_tables import table

from gradatim import GroupedClassifier, GroupedRegressor


@pytest.fixture(scope="module")
def model():
    return GroupedRegressor().fit(*table())


@pytest.fixture(scope="module")
def classifier():
    X, y, group = table(seed=1)
    return GroupedClassifier().fit(X, np.where(y > 0, "yes", "no"), group)


def test_merged_parts_are_one_pass(model):
    X, y, group = table(seed=5)
    group = group + 1000
    whole = model.fork().partial_fit(X, y, group)
    parts = [model.fork().partial_fit(X[k::2], y[k::2], group[k::2]) for k in (0, 1)]
    merged = parts[0].merge(parts[1])
    np.testing.assert_allclose(merged.predict(X, group), whole.predict(X, group), atol=1e-9)
    assert sorted(merged.groups_) == sorted(whole.groups_)


def test_the_cut_into_calls_does_not_matter(model, classifier):
    X, y, group = table(seed=6)
    for base, target in ((model, y), (classifier, np.where(y > 0, "yes", "no"))):
        whole, cut = base.fork().partial_fit(X, target, group), base.fork()
        for start in range(0, len(y), 7):
            cut.partial_fit(X[start : start + 7], target[start : start + 7], group[start : start + 7])
        read = [m.predict(X, group) if target is y else m.predict_proba(X, group) for m in (whole, cut)]
        np.testing.assert_allclose(*read, atol=1e-9)


def test_a_forgotten_group_was_never_seen(model):
    X, y, group = table(seed=5)
    group = group + 1000
    mine = group == 1003
    seen = model.fork().partial_fit(X, y, group).forget_group(1003)
    never = model.fork().partial_fit(X[~mine], y[~mine], group[~mine])
    np.testing.assert_array_equal(seen.predict(X, group), never.predict(X, group))
    assert 1003 not in seen.groups_


def test_an_unseen_group_is_the_prior_and_improves_with_its_rows(model):
    rng = np.random.default_rng(3)
    X = rng.normal(size=(200, 3))
    y = 3 + 4 * X[:, 0] + 0.3 * rng.normal(size=200)
    one = model.fork()
    np.testing.assert_array_equal(one.predict(X, np.full(200, 77)), one.predict(X, np.full(200, 78)))
    misses = []
    for n in (0, 2, 8, 32):
        known = model.fork()
        if n:
            known.partial_fit(X[:n], y[:n], np.full(n, 77))
        misses.append(((known.predict(X[32:], np.full(168, 77)) - y[32:]) ** 2).mean())
    assert misses[0] > misses[1] > misses[2]
    assert misses[2:] == pytest.approx([0.09, 0.09], rel=0.3)  # the noise


def test_the_order_of_rows_of_different_groups_does_not_matter():
    X, y, group = table(n_groups=20)
    order = np.argsort(group, kind="stable")
    first, second = (
        GroupedRegressor().fit(X, y, group),
        GroupedRegressor().fit(X[order], y[order], group[order]),
    )
    np.testing.assert_allclose(first.predict(X, group), second.predict(X, group), atol=1e-6)


def test_intervals_cover():
    held = []
    for seed in range(3):
        model = GroupedRegressor().fit(*table(seed=seed, n_groups=60))
        X, y, group = table(seed=seed + 50, n_groups=60)
        new = group + 1000
        order = np.argsort(new, kind="stable")
        rank = np.empty(len(new), int)
        rank[order] = np.tile(np.arange(15), 60)
        first = rank < 6
        model.partial_fit(X[first], y[first], new[first])
        low, high = model.predict(X[~first], new[~first], quantiles=[0.1, 0.9]).T
        held.append(((y[~first] >= low) & (y[~first] <= high)).mean())
    assert 0.75 < np.mean(held) < 0.85


def test_quantiles_rise_and_deviations_belong_to_them(model):
    X, _y, group = table()
    low, middle, high = model.predict(X, group, quantiles=[0.1, 0.5, 0.9]).T
    mean, deviation = model.predict(X, group, return_std=True)
    assert (low < middle).all() and (middle < high).all()
    assert (abs(middle - mean) < deviation).all()


def test_files_give_the_same_numbers(model, classifier, tmp_path):
    X, _y, group = table()
    for one, kind in ((model, GroupedRegressor), (classifier, GroupedClassifier)):
        again = kind.load(one.save(tmp_path / "state.safetensors"))
        read = "predict" if kind is GroupedRegressor else "predict_proba"
        np.testing.assert_array_equal(getattr(one, read)(X, group), getattr(again, read)(X, group))
        assert again.groups_ == one.groups_
        again.save(tmp_path / "again.safetensors")
        assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "state.safetensors").read_bytes()


def test_a_prior_goes_to_another_machine(model, tmp_path):
    X, y, group = table(seed=9)
    path = model.save_prior(tmp_path / "prior.safetensors")
    here = model.fork().partial_fit(X, y, group)
    for there in (
        GroupedRegressor.from_prior(path),
        GroupedRegressor(prior=path),
        GroupedRegressor(prior=model),
    ):
        there.partial_fit(X, y, group)
        np.testing.assert_array_equal(here.predict(X, group), there.predict(X, group))
    assert GroupedRegressor.from_prior(path).groups_ == []


def test_probabilities_of_many_classes_add_up():
    X, y, group = table(seed=2)
    labels = np.digitize(y, [-1.0, 1.0])
    model = GroupedClassifier().fit(X, labels, group)
    found = model.predict_proba(X, group)
    np.testing.assert_allclose(found.sum(1), 1)
    assert (found > 0).all()
    assert model.score(X, labels, group) > 0.7
    assert model.classes_.tolist() == [0, 1, 2]


def test_words_missing_cells_and_frames_are_read():
    import pandas as pd

    X, y, group = table()
    frame = pd.DataFrame({"a": X[:, 0], "kind": np.where(X[:, 1] > 0, "red", None), "c": X[:, 2]})
    frame.loc[::7, "a"] = np.nan
    shops = pd.Series([f"shop {g}" for g in group])
    model = GroupedRegressor().fit(frame, y, shops)
    assert model.score(frame, y, shops) > 0.6
    assert {"group", "rows", "level", "level_std", "a", "pooled"} <= set(model.effects_)
    assert sorted(pd.DataFrame(model.effects_)["group"]) == sorted(set(shops))


def test_effects_are_those_of_the_groups(model):
    _X, _y, _group = table()
    effects = model.effects_
    rng = np.random.default_rng(0)
    rng.permutation(np.repeat(np.arange(40), 15))
    rng.normal(size=(600, 3))
    level = rng.normal(size=40)[np.array(effects["group"], int)]
    assert np.corrcoef(level, effects["level"])[0, 1] > 0.9
    assert effects["rows"].tolist() == [15.0] * 40


def test_first_rows_are_held_until_they_say_what_groups_share():
    X, y, group = table()
    model = GroupedRegressor()
    for at in range(100):
        model.partial_fit(X[at : at + 1], y[at : at + 1], group[at : at + 1])
    assert not hasattr(model, "prior_")
    early = GroupedRegressor().fit(X[:100], y[:100], group[:100])
    np.testing.assert_array_equal(model.predict(X, group), early.predict(X, group))
    model.partial_fit(X[100:], y[100:], group[100:])
    np.testing.assert_array_equal(
        model.predict(X, group), GroupedRegressor().fit(X, y, group).predict(X, group)
    )


def test_a_copy_has_the_parameters_and_not_what_was_learnt(model):
    assert not hasattr(clone(model), "prior_")
    assert GroupedRegressor(prior="p").get_params() == {"prior": "p"}
    X, y, group = table(seed=3)
    with config_context(enable_metadata_routing=True):
        again = clone(GroupedRegressor(prior=model).set_fit_request(groups=True, sample_weight=True))
        assert again.get_metadata_routing().fit.requests["groups"] is True
    assert again.prior is model  # a copy of a fitted prior would not be fitted
    there = model.fork().partial_fit(X, y, group).predict(X, group)
    np.testing.assert_array_equal(again.fit(X, y, group).predict(X, group), there)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda m, X, y, g: m.partial_fit(X, y, None), "every row needs a group"),
        (lambda m, X, y, g: m.partial_fit(X, y, [None, *g[1:]]), r"rows 0 have none \(1 in all\)"),
        (lambda m, X, y, g: m.partial_fit(X, y, [np.nan, *g[1:]]), "every row needs a group"),
        (lambda m, X, y, g: m.partial_fit(X, y, [1.5, *g[1:]]), "word or a whole number; got '1.5'"),
        (lambda m, X, y, g: m.partial_fit(X, y, g[1:]), "one name a row"),
        (lambda m, X, y, g: m.partial_fit(X[:, :2], y, g), "2 features"),
        (lambda m, X, y, g: m.partial_fit(X, np.append(y[1:], np.nan), g), "missing"),
        (lambda m, X, y, g: m.predict(X, [None, *g[1:]]), "every row needs a group"),
        (lambda m, X, y, g: m.predict(X, g, quantiles=[1.0]), "quantiles must lie"),
        (lambda m, X, y, g: m.forget_group("nobody"), "group 'nobody' is not known"),
        (lambda m, X, y, g: m.merge(GroupedRegressor().fit(X, y, g)), "merging needs one prior"),
        (
            lambda m, X, y, g: GroupedRegressor().fit(X, y, np.zeros(len(y))),
            "two groups at least; got 1 group",
        ),
        (lambda m, X, y, g: GroupedClassifier().fit(X, np.ones(len(y), int), g), "two classes at least"),
        (
            lambda m, X, y, g: GroupedRegressor(prior=m).fit(X[:, :2], y, g),
            "taught by 3 columns; got 2: give",
        ),
        (lambda m, X, y, g: m.partial_fit(X, y, g, sample_weight=-1.0), "sample_weight must be not negative"),
        (
            lambda m, X, y, g: m.partial_fit(X, y, g, sample_weight=[1.0]),
            "one number for each of the 600 rows",
        ),
        (lambda m, X, y, g: m.partial_fit(X, np.append(y[1:], np.inf), g), "y"),
        (lambda m, X, y, g: GroupedRegressor(prior=5).fit(X, y, g), "prior must be a file"),
        (lambda m, X, y, g: GroupedClassifier(prior=m).fit(X, g, g), "got a GroupedRegressor"),
        (lambda m, X, y, g: GroupedRegressor.load("nothing.safetensors"), "cannot be read"),
    ],
)
def test_bad_input_is_one_sentence_and_changes_nothing(model, call, said):
    X, y, group = table(seed=4)
    before = model.predict(X, group)
    with pytest.raises(ValueError, match=said) as error:
        call(model, X, y, group.tolist())
    assert "\n" not in str(error.value).strip() or "features" in str(error.value)
    np.testing.assert_array_equal(model.predict(X, group), before)


def test_groups_of_one_row_and_one_class_are_learnt(classifier):
    X, y, _group = table(seed=8)
    single = GroupedRegressor().fit(X, y, np.arange(len(y)))
    assert np.isfinite(single.predict(X, np.arange(len(y)))).all()
    known = classifier.fork().partial_fit(X[:50], np.full(50, "yes"), np.full(50, "sure"))
    fresh = classifier.predict_proba(X, np.full(len(X), "new"))[:, 1]
    assert (known.predict_proba(X, np.full(len(X), "sure"))[:, 1] > fresh).mean() > 0.95


def test_rows_without_noise_are_learnt():
    X = np.repeat([[1.0, 3.0], [2.0, 1.0], [3.0, 3.0], [4.0, 1.0]], 4, axis=0)
    y, group, weight = np.repeat([1.0, 2.0, 1.0, 2.0], 4), np.repeat([1, 0, 1, 0], 4), np.ones(16)
    weight[0] = (
        10  # one group alone fits without a miss: noise goes to 0, and what is divided by it to infinity
    )
    found = GroupedRegressor().fit(X, y, group, sample_weight=weight).predict(X, group)
    np.testing.assert_allclose(found, y, atol=0.1)


def test_constant_columns_and_constant_y_are_learnt():
    X, y, group = table(n_groups=8, per=8)
    model = GroupedRegressor().fit(X, np.full(64, 3.0), group)
    np.testing.assert_allclose(model.predict(X, group, quantiles=[0.1, 0.9]), 3.0, atol=1e-3)
    assert np.isfinite(GroupedRegressor().fit(0 * X, y, group).predict(X, group)).all()


def test_a_class_that_the_prior_does_not_know_is_refused(classifier):
    X, _y, _group = table(seed=8)
    with pytest.raises(ValueError, match="the prior knows the classes no, yes; got maybe"):
        classifier.fork().partial_fit(X[:1], ["maybe"], ["a"])


def test_a_group_comes_back_after_many_rows(model):
    X, y, group = table(seed=3)
    one = model.fork().partial_fit(X[:5], y[:5], np.full(5, "back"))
    one.partial_fit(X[5:], y[5:], group[5:] + 500).partial_fit(X[:3], y[:3], np.full(3, "back"))
    at = one.groups_.index("back")
    assert one.effects_["rows"][at] == 8


def test_a_group_comes_back_after_a_million_rows(model):
    X, y, group = table(seed=3)
    one = model.fork().partial_fit(X[:5], y[:5], np.full(5, "back"))
    for at in range(5, 600, 119):  # each row stands for 2,000
        part = slice(at, at + 119)
        one.partial_fit(X[part], y[part], group[part] + 500, sample_weight=2000.0)
    before, there = (
        one.predict(X, np.full(600, "back")),
        model.fork().partial_fit(X[:5], y[:5], np.full(5, "back")),
    )
    np.testing.assert_array_equal(before, there.predict(X, np.full(600, "back")))
    assert one.state_.rows().sum() == 1_190_005
    # the same group goes on for a million rows, and its last ones are as exact as its first
    long = model.fork().partial_fit(X[:50], y[:50], np.full(50, "long"), sample_weight=20_000.0)
    long.partial_fit(X[50:60], y[50:60], np.full(10, "long"))
    long.forget(X[:50], y[:50], np.full(50, "long"), sample_weight=20_000.0)
    short = model.fork().partial_fit(X[50:60], y[50:60], np.full(10, "long"))
    np.testing.assert_allclose(long.state_.sums.linear[0], short.state_.sums.linear[0], atol=1e-6)


def test_a_prior_of_other_names_is_one_sentence():
    import pandas as pd

    X, y, group = table(n_groups=12)
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    prior = GroupedRegressor().fit(frame, y, group)
    with pytest.raises(
        ValueError, match="the prior was taught by 3 columns, a, b, c; got 3, a, b, z"
    ) as error:
        GroupedRegressor(prior=prior).fit(frame.rename(columns={"c": "z"}), y, group)
    assert "\n" not in str(error.value)


def test_states_are_small():
    X = np.random.default_rng(0).normal(size=(2000, 8))
    group = np.repeat(np.arange(100), 20)
    for one, y in ((GroupedRegressor(), X[:, 0]), (GroupedClassifier(), X[:, 0] > 0)):
        one.fit(X, y, group)
        assert one.state_.compact()[1].bytes_per_group < 4000


def test_one_absurd_number_does_not_pull_its_group():
    X, y, group = table(n_groups=30)
    model, odd = GroupedRegressor().fit(X, y, group), y.copy()
    odd[7] = 1e9
    spoilt, new = GroupedRegressor().fit(X, odd, group), np.full(len(X), "new")
    # it counts as a number twelve deviations off, for the trees and for its group
    fence = model.prior_.fence * model.prior_.scale
    assert np.sqrt(np.mean((spoilt.predict(X, new) - model.predict(X, new)) ** 2)) < 0.25
    assert abs(spoilt.predict(X, group) - model.predict(X, group))[group != group[7]].max() < fence / 3
    one = model.fork().partial_fit(X[:12], y[:12], new[:12])
    clean = one.predict(X, new)
    one.partial_fit(X[12:13], [1e9], new[:1])
    pooled = model.prior_.scale * model.prior_.pooled(
        model.prior_.encoder.encode(_columns(X[12:13])), np.array([-1])
    )
    at_fence = model.fork().partial_fit(X[:12], y[:12], new[:12])
    at_fence.partial_fit(X[12:13], model.prior_.centre + pooled[:, 0] + 0.999999 * fence, new[:1])
    np.testing.assert_allclose(one.predict(X, new), at_fence.predict(X, new), atol=1e-3)
    one.forget(X[12:13], [1e9], new[:1])
    np.testing.assert_allclose(one.predict(X, new), clean, atol=1e-8)
    parts = [
        model.fork().partial_fit(X[12:13], [1e9], new[:1]),
        model.fork().partial_fit(X[:12], y[:12], new[:12]),
    ]
    np.testing.assert_allclose(parts[0].merge(parts[1]).predict(X, new), at_fence.predict(X, new), atol=1e-3)


def test_a_group_that_lies_far_away_is_believed(tmp_path):
    X, y, group = table(n_groups=30)
    model, new = GroupedRegressor().fit(X, y, group), np.full(len(X), "far")
    one = model.fork().partial_fit(X[:20], y[:20] + 500, new[:20])
    found = GroupedRegressor.load(one.save(tmp_path / "far.safetensors")).predict(X, new)
    assert found.mean() > 400  # of levels of deviation 1, none was ever near
    few = model.fork().partial_fit(X[:2], y[:2] + 500, new[:2]).predict(X, new)
    assert few.mean() < model.prior_.fence * model.prior_.scale + 2
    taught = GroupedRegressor().fit(X, y + 500 * (group == 3), group)
    assert abs(taught.predict(X, np.full(len(X), 3)).mean() - 500) < 10


def _columns(X):
    from gradatim.preprocessing import read_columns

    return read_columns(X)


def test_forgotten_rows_were_never_learnt(model, classifier):
    X, y, group = table(seed=6)
    X, y, group = X[:90], y[:90], group[:90] % 7 + 500
    for base, target in ((model, y), (classifier, np.where(y > 0, "yes", "no"))):
        read = "predict" if target is y else "predict_proba"
        there = base.fork().partial_fit(X[:50], target[:50], group[:50])
        both = base.fork().partial_fit(X, target, group, sample_weight=2.0)
        both.forget(X, target, group).forget(X[50:], target[50:], group[50:])
        found = [getattr(one, read)(X, group) for one in (both, there)]
        np.testing.assert_allclose(*found, atol=1e-8)
        both.forget(X[:50], target[:50], group[:50])
        assert both.groups_ == []


@pytest.mark.parametrize("change", ["group", "y", "weight", "x"])
def test_rows_that_were_never_learnt_are_not_forgotten(model, change):
    X, y, group = table(seed=6)
    X, y, group = X[:20], y[:20], group[:20] + 500
    one = model.fork().partial_fit(X, y, group)
    before = one.predict(X, group)
    with pytest.raises(ValueError, match="some of these rows were never learnt"):
        one.forget(
            X + 9 * (change == "x"),
            y + 9 * (change == "y"),
            group + 9000 * (change == "group"),
            sample_weight=1.0 + (change == "weight"),
        )
    np.testing.assert_array_equal(one.predict(X, group), before)


def test_no_row_is_merged_twice(model, tmp_path):
    X, y, group = table(seed=6)
    one = model.fork().partial_fit(X[:50], y[:50], group[:50])
    other = model.fork().partial_fit(X[50:], y[50:], group[50:])
    again = GroupedRegressor.load(other.save(tmp_path / "other.safetensors"))
    one.merge(other)
    for part in (other, again, one):
        with pytest.raises(ValueError, match="rows that are not counted yet"):
            one.merge(part)
    assert one.state_.rows().sum() == 600


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("groups.fold", lambda part: part + 50),
        ("groups.count", lambda part: part - 1000),
        ("groups.linear", lambda part: part[:-1]),
        ("trees.0.left", lambda part: part + 10_000),
        ("trees.1.feature", lambda part: part - 7),
        ("trees.0.start", lambda part: part.repeat(2)),
        ("features.directions", lambda part: part[:-1]),
        ("experts.0.mean", lambda part: part[:-1]),
        ("experts.noise", lambda part: -part),
        ("weighing.log_prior", lambda part: part[:-1]),
        ("weighing.counts", lambda part: part[:-1]),
    ],
)
def test_files_that_contradict_themselves_are_refused(model, tmp_path, name, change):
    from gradatim.files.checkpoint import read, write

    tensors, header = read(model.save(tmp_path / "state.safetensors"), "groups")
    tensors[name] = change(tensors[name])
    header.pop("gradatim_format")
    with pytest.raises(ValueError, match=r"state\.safetensors"):
        GroupedRegressor.load(write(tmp_path / "state.safetensors", tensors, header))


def test_a_refused_forget_or_merge_settles_nothing():
    rng = np.random.default_rng(0)
    X, y, groups = rng.normal(size=(60, 2)), rng.normal(size=60), rng.integers(0, 6, 60)
    model = GroupedRegressor().partial_fit(X, y, groups)
    with pytest.raises(ValueError, match=r"."):
        model.forget(X[:1], y[:1], ["unknown"])
    with pytest.raises(ValueError, match="merges with its like"):
        model.merge(GroupedClassifier())
    assert hasattr(model, "held_") and not hasattr(model, "prior_")
