"""Blocks: scikit-learn's checks, groups recovered, never worse than the start, all forms of tasks, bad input, sums."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.stats import multivariate_normal
from sklearn.metrics import adjusted_rand_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from gradatim import BlockedClassifier, BlockedRegressor, GroupsWarning
from gradatim.blocks.graph import block_lasso, clusters, gap, spectrum
from gradatim.blocks.logistic import logistic_mode, logistic_tasks, sparse_path
from gradatim.blocks.moves import first_groups, refine
from gradatim.blocks.sums import change, evidence_terms, log_evidence, posterior, task_sums
from gradatim.blocks.weights import all_weights
from gradatim.estimators.blocked_tasks import MATRIX, VECTOR, Tasks, folds


@pytest.mark.filterwarnings("ignore::gradatim.GroupsWarning")
@parametrize_with_checks([BlockedClassifier(), BlockedRegressor()])
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def blocks(rows, seed=0, features=18, tasks=9, groups=3, shared=0.0):
    """Tasks with rows of their own, the true weights `[T, d]`, and the groups of features and tasks."""
    rng = np.random.default_rng(seed)
    feature, task = rng.permutation(np.arange(features) % groups), rng.permutation(np.arange(tasks) % groups)
    weights = rng.normal(size=(tasks, features)) * (task[:, None] == feature)
    weights += shared * rng.normal(size=features)
    x = rng.normal(size=(tasks, rows, features))
    y = np.einsum("tnd,td->tn", x, weights) + rng.normal(size=(tasks, rows))
    return list(x), list(y), weights, feature, task


def quiet(model, *data, **more):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GroupsWarning)
        return model.fit(*data, **more)


def table(x, y):
    """The same tasks as one table and the group of each row."""
    return np.concatenate(x), np.concatenate(y), np.repeat(np.arange(len(x)), [len(part) for part in y])


@pytest.fixture(scope="module")
def sums():
    x, y, *_ = blocks(7, features=4, tasks=3)
    return task_sums(x, y), x, y


def test_evidence_is_the_density_of_the_targets(sums):
    made, xs, ys = sums
    rng = np.random.default_rng(1)
    variance, noise = rng.uniform(0.1, 2, (3, 4)), np.array([0.5, 1.0, 2.0])
    variance[0, 1] = 0.0
    wanted = [
        multivariate_normal.logpdf(y, cov=x * v @ x.T + s * np.eye(7))
        for x, y, v, s in zip(xs, ys, variance, noise, strict=True)
    ]
    np.testing.assert_allclose(posterior(made, variance, noise).evidence, wanted, rtol=1e-12)
    np.testing.assert_allclose(log_evidence(made, variance, noise), wanted, rtol=1e-12)


def test_a_change_of_one_variance_changes_the_evidence_as_said(sums):
    made, xs, ys = sums
    variance, noise = np.full((3, 4), 0.7), np.ones(3)
    inner, target = evidence_terms(made, variance, noise)
    whole = xs[1] * 0.7 @ xs[1].T + np.eye(7)
    np.testing.assert_allclose(inner[1], xs[1].T @ np.linalg.solve(whole, xs[1]), rtol=1e-10)
    np.testing.assert_allclose(target[1], xs[1].T @ np.linalg.solve(whole, ys[1]), rtol=1e-10)
    for more in (-0.7, 0.4):
        moved = variance.copy()
        moved[:, 2] += more
        grown = log_evidence(made, moved, noise) - log_evidence(made, variance, noise)
        np.testing.assert_allclose(change(inner[:, 2, 2], target[:, 2], more), grown, rtol=1e-9)


def test_the_shared_part_leaves_the_sums_of_what_is_left(sums):
    made, xs, ys = sums
    shared = np.array([1.0, -2.0, 0.0, 0.5])
    left = task_sums(xs, [y - x @ shared for x, y in zip(xs, ys, strict=True)])
    for part, wanted in zip(made.without(shared), left, strict=True):
        np.testing.assert_allclose(part, wanted, rtol=1e-10)
    assert made.picked(np.array([True, False, True])).gram.shape == (2, 4, 4)


def test_a_graph_of_k_blocks_has_k_eigenvalues_of_zero():
    _, _, weights, feature, task = blocks(5)
    values = spectrum(weights, 3).values
    np.testing.assert_allclose(values[:3], 0, atol=1e-3)  # edges of 1e-6 join the blocks
    assert values[3] > 0.1 and gap(weights, 3) > 0.1 > gap(weights, 2)
    found = clusters(weights, 3)
    assert adjusted_rand_score(feature, found[0]) == adjusted_rand_score(task, found[1]) == 1


def test_the_penalty_on_the_graph_is_a_lasso_without_pull_and_empties_other_blocks_with_it():
    x, y, weights, feature, task = blocks(40)
    made = task_sums(x, y)
    start = posterior(made, np.ones(weights.shape), np.ones(len(x))).mean
    plain = block_lasso(made, start, 3, 0.1, pull=0.0, rounds=30)
    slope = (made.gram @ plain[:, :, None])[:, :, 0] / 40 - made.cross / 40
    np.testing.assert_allclose(slope[plain != 0], -0.1 * np.sign(plain[plain != 0]), atol=1e-6)
    assert (np.abs(slope[plain == 0]) <= 0.1 + 1e-6).all()
    outside = task[:, None] != feature
    assert np.abs(block_lasso(made, start, 3, 0.1)[outside]).sum() < 0.1 * np.abs(plain[outside]).sum()


def test_moves_raise_the_evidence_and_stay_at_the_truth():
    x, y, _, feature, task = blocks(30)
    made = task_sums(x, y)
    truth = refine(made, first_groups(made, feature, task), 3)
    np.testing.assert_array_equal(truth.features, feature)
    rng = np.random.default_rng(0)
    wrong = first_groups(made, np.where(rng.random(18) < 0.3, 0, feature), task)
    assert not np.array_equal(wrong.features, feature)
    found = refine(made, wrong, 3)
    assert found.score == pytest.approx(truth.score, rel=1e-3)
    assert adjusted_rand_score(feature, found.features) == 1
    assert found.inside == pytest.approx(1, abs=0.5) and found.noise.mean() == pytest.approx(1, abs=0.3)


def test_what_all_tasks_share_is_found():
    x, y, weights, _, _ = blocks(40, shared=2.0)
    found = all_weights(task_sums(x, y), np.zeros(weights.shape), 3, 0.05)
    shared = weights[:, :].mean(0)
    assert np.corrcoef(found.shared, shared)[0, 1] > 0.9
    assert ((found.weights - weights) ** 2).sum(1).mean() < 1.5


def test_logistic_weights_are_at_their_optimum():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 5))
    y = (x[:, 0] + rng.normal(size=80) > 0).astype(float)
    path = sparse_path(x, y, [0.3, 0.05], steps=5000)
    assert np.count_nonzero(path[0, :-1]) < np.count_nonzero(path[1, :-1])
    chance = 1 / (1 + np.exp(-(x @ path[1, :-1] + path[1, -1])))
    slope = x.T @ (chance - y) / 80
    used = path[1, :-1] != 0
    np.testing.assert_allclose(slope[used], -0.05 * np.sign(path[1, :-1][used]), atol=1e-4)
    variance = np.array([1.0, 0.5, 0.0, 2.0, 1.0])
    mode = logistic_mode(x, y, variance)
    chance = 1 / (1 + np.exp(-(x @ mode[:-1] + mode[-1])))
    at = variance > 0
    np.testing.assert_allclose((x.T @ (y - chance))[at], mode[:-1][at] / variance[at], atol=1e-4)
    assert mode[2] == 0
    both = logistic_tasks([x, x], [y, y], np.full((2, 5), 1e-9), spread=1.0)
    alone = logistic_mode(np.r_[x, x], np.r_[y, y], np.ones(5))
    np.testing.assert_allclose(both[0, :-1], alone[:-1], atol=1e-2)


@pytest.mark.parametrize("kind", [BlockedRegressor, BlockedClassifier])
@pytest.mark.parametrize("n_groups", ["auto", 3])
def test_groups_are_recovered_and_blocks_win(kind, n_groups):
    x, y, weights, feature, task = blocks(60 if kind is BlockedRegressor else 200)
    if kind is BlockedClassifier:
        y = [(part > 0).astype(int) for part in y]
    with warnings.catch_warnings():
        warnings.simplefilter("error", GroupsWarning)
        model = kind(n_groups=n_groups, parts="grouped").fit(x, y)
    assert adjusted_rand_score(feature, model.feature_groups_) == 1
    assert adjusted_rand_score(task, model.task_groups_) == 1
    assert model.chosen_ == "grouped" and model.n_groups_ == 3
    assert model.stability_ > 0.9 and model.inside_ == pytest.approx(1)
    assert model.coef_.shape == weights.shape
    if kind is BlockedRegressor:
        assert ((model.coef_ - weights) ** 2).sum(1).mean() < 0.35
        assert (model.coef_[task[:, None] != feature] == 0).all()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", [BlockedRegressor, BlockedClassifier])
@pytest.mark.parametrize("start", ["lasso", "ridge"])
def test_validation_rows_are_never_predicted_worse_than_by_the_start(kind, start, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(30, 5)), rng.normal(size=(30, 4))  # nothing to learn
    y[:, 0] += x[:, seed]
    y = y if kind is BlockedRegressor else (y > 0).astype(int)
    model = quiet(kind(start=start, cv=3), x, y)
    losses = model.validation_
    best = min(losses, key=lambda name: losses[name])
    assert losses[best] <= losses["start"]
    assert model.chosen_ == best.split()[0]


def test_the_loss_of_validation_is_what_folds_give_and_the_start_is_kept_where_it_wins():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 20))
    y = (
        3 * x[:, :1] + 3 * x[:, 1:7] + rng.normal(size=(30, 6))
    )  # a feature serves all tasks, one each: sparse, no blocks
    model = quiet(BlockedRegressor(n_groups=2, parts="grouped"), x, y)
    assert model.chosen_ == "start" and set(model.validation_) == {"start", "grouped"}
    with pytest.warns(GroupsWarning, match="lasso alone predicts validation rows better"):
        BlockedRegressor(n_groups=2, parts="grouped").fit(x, y)
    tasks = Tasks([x] * 6, list(y.T), list(range(6)), MATRIX)
    total = 0.0
    for training, held in folds(tasks, 4, False):
        made = quiet(BlockedRegressor(n_groups=2, parts="grouped"), training.x, training.y)
        total += ((np.stack(made.predict(held.x)) - np.stack(held.y)) ** 2 / y.var(0)[:, None]).sum()
    assert total / y.size == pytest.approx(
        model.validation_["start"], rel=0.15
    )  # strengths are chosen anew there


def test_rows_that_tasks_share_stay_in_one_fold():
    code = np.arange(12) % 3
    ys = [(code == c).astype(float) for c in range(3)]
    x = np.arange(12.0)[:, None]
    for form in (VECTOR, MATRIX):
        for training, held in folds(Tasks([x] * 3, ys, [0, 1, 2], form), 4, True):
            assert len({part.tobytes() for part in held.x}) == 1
            assert len(training.x[0]) + len(held.x[0]) == 12
            assert form == MATRIX or [y.sum() for y in held.y] == [1, 1, 1]


def test_lists_groups_and_a_matrix_are_one_problem():
    x, y, *_ = blocks(20, tasks=4, groups=2, features=6)
    lists = quiet(BlockedRegressor(n_groups=2), x, y)
    rows, targets, names = table(x, y)
    order = np.random.default_rng(0).permutation(len(rows))
    mixed = quiet(BlockedRegressor(n_groups=2), rows, targets, groups=names)
    np.testing.assert_allclose(mixed.coef_, lists.coef_)
    np.testing.assert_allclose(
        mixed.predict(rows[order], groups=names[order]), np.concatenate(lists.predict(x))[order]
    )
    assert mixed.predict(rows).shape == (80, 4)
    assert mixed.score(rows, targets, groups=names) == pytest.approx(lists.score(x, y))
    words = quiet(BlockedRegressor(n_groups=2), rows, targets, groups=[f"shop {n}" for n in names])
    assert words.tasks_.tolist() == ["shop 0", "shop 1", "shop 2", "shop 3"]
    with pytest.raises(ValueError, match=r"task 'shop 9' is not known"):
        words.predict(rows[:1], groups=["shop 9"])
    matrix = np.full((80, 4), np.nan)
    matrix[np.arange(80), names] = targets
    holes = quiet(BlockedRegressor(n_groups=2), rows, matrix)
    assert holes.predict(rows).shape == (80, 4)
    np.testing.assert_array_equal(holes.task_groups_, lists.task_groups_)


def test_units_and_names_change_nothing_else():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 6))
    y = x @ (rng.normal(size=(6, 4)) * (np.arange(6)[:, None] % 2 == np.arange(4) % 2)) + rng.normal(
        size=(40, 4)
    )
    model = quiet(BlockedRegressor(n_groups=2), x, y)
    frame = pd.DataFrame(1000 * x + 7, columns=list("abcdef"))
    targets = pd.DataFrame(y * [1, 1e6, 1e-6, 1] + 5, columns=list("wxyz"))
    other = quiet(BlockedRegressor(n_groups=2), frame, targets)
    assert other.tasks_.tolist() == list("wxyz") and list(other.feature_names_in_) == list("abcdef")
    np.testing.assert_array_equal(other.feature_groups_, model.feature_groups_)
    np.testing.assert_allclose((other.predict(frame) - 5) / [1, 1e6, 1e-6, 1], model.predict(x), rtol=1e-5)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict(x), model.predict(x))


def test_classes_columns_lists_and_groups_of_a_classifier():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 4))
    words = np.array(["a", "b", "c"])[np.argmax(x[:, :3], 1)]
    model = quiet(BlockedClassifier(), x, words)
    assert model.score(x, words) > 0.9 and model.tasks_.tolist() == ["a", "b", "c"]
    np.testing.assert_allclose(model.predict_proba(x).sum(1), 1)
    columns = (x[:, :3] > 0).astype(float)
    columns[0, 0] = np.nan
    several = quiet(BlockedClassifier(), x, columns)
    assert several.predict_proba(x).shape == (90, 3)
    assert (several.predict(x)[1:] == columns[1:]).mean() > 0.9
    halves, marks = [x[:45], x[45:]], [words[:45] == "a", words[45:] == "a"]
    lists = quiet(BlockedClassifier(), halves, marks)
    assert [part.shape for part in lists.predict_proba(halves)] == [(45, 2)] * 2
    groups = np.repeat([0, 1], 45)
    mixed = quiet(BlockedClassifier(), x, words == "a", groups=groups)
    np.testing.assert_array_equal(mixed.predict(x, groups=groups), np.concatenate(lists.predict(halves)))
    assert mixed.score(x, words == "a", groups=groups) == lists.score(halves, marks)
    with pytest.raises(ValueError, match="two classes, the same ones; got 3"):
        BlockedClassifier().fit(x, words, groups=groups)
    with pytest.raises(ValueError, match="0 or 1, NaN where there is no label"):
        BlockedClassifier().fit(x, columns * 2)


@pytest.mark.parametrize("kind", [BlockedRegressor, BlockedClassifier])
def test_constant_tasks_and_tasks_of_one_row(kind):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3))
    y = np.stack([x[:, 0], x[:, 1], np.zeros(40), np.ones(40)], 1)
    y[:, :2] = (y[:, :2] > 0) if kind is BlockedClassifier else y[:, :2]
    model = quiet(kind(), x, y)
    assert np.isfinite(model.coef_).all() and np.isfinite(model.intercept_).all()
    found = model.predict(x)
    np.testing.assert_allclose(found[:, 2:], y[:, 2:], atol=1e-12 if kind is BlockedClassifier else 0.05)
    rows, targets = [x[:20], x[20:39], x[39:]], [y[:20, 0], y[20:39, 1], y[39:, 0]]
    one = quiet(kind(), rows, targets)
    assert np.isfinite(one.predict(rows)[2]).all() and one.task_groups_.shape == (3,)


def test_bad_input_is_said_in_one_sentence():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 5)), rng.normal(size=(20, 3))
    hole = y.copy()
    hole[:, 1] = np.nan
    for made, data, sentence in (
        (
            BlockedRegressor(n_groups=4),
            (x, y),
            r"number of tasks \(3\) and of features \(5\); got 4: ask for fewer",
        ),
        (BlockedRegressor(n_groups=0), (x, y), "a whole number of groups; got 0"),
        (BlockedRegressor(n_groups="three"), (x, y), "a whole number of groups; got 'three'"),
        (BlockedRegressor(start="laso"), (x, y), "did you mean 'lasso'"),
        (BlockedRegressor(parts="personal"), (x, y), "known are auto, grouped, all|known are"),
        (BlockedRegressor(cv=1), (x, y), "2 or more; got 1"),
        (BlockedRegressor(), (x, hole), "column 1 of Y is NaN throughout"),
        (BlockedRegressor(), (x, hole[:, 1]), "NaN"),
        (BlockedRegressor(), (x, None), "requires y"),
        (BlockedRegressor(), (x, np.where(y > 1, np.inf, y)), "infinity"),
        (BlockedRegressor(), ([x, x[:, :4]], [y[:, 0], y[:, 0]]), "table 1 of X: .*4 features"),
        (BlockedRegressor(), ([x, x], [y[:, 0]]), "2 tables need a list of 2 targets; got 1"),
        (BlockedRegressor(), (x, y[:, 0], np.zeros(3)), "the task of each of the 20 rows"),
        (BlockedRegressor(), (x, y[:, 0], [None, *"a" * 19]), "every row needs a task; rows 0"),
        (BlockedRegressor(), ([x, x], [y[:, 0], y[:, 1]], np.zeros(20)), "leave groups out"),
        (BlockedClassifier(), (x, np.zeros(20)), "one class"),
    ):
        with pytest.raises(ValueError, match=sentence):
            made.fit(*data)
    model = quiet(BlockedRegressor(), [x, x], [y[:, 0], y[:, 1]])
    with pytest.raises(ValueError, match="2 tasks were learnt; got 1 tables"):
        model.predict([x])
    before = dict(model.__dict__)
    with pytest.raises(ValueError, match="infinity"):
        model.fit(x[:, :2], np.full(20, np.inf))
    assert model.__dict__.keys() == before.keys() and model.n_features_in_ == 5


def test_groups_that_other_rows_do_not_confirm_are_warned_of():
    x, y, *_ = blocks(14, seed=3, features=20, tasks=12)
    model = quiet(BlockedRegressor(n_groups=3, parts="grouped"), x, y)
    assert model.chosen_ == "start" or model.stability_ < 0.5
    with pytest.warns(GroupsWarning, match="are not recovered"):
        BlockedRegressor(n_groups=3, parts="grouped").fit(x, y)


def test_a_picture_of_the_blocks(tmp_path):
    pytest.importorskip("matplotlib")
    x, y, *_ = blocks(40, tasks=6)
    model = quiet(BlockedRegressor(parts="grouped"), x, y)
    assert model.plot_blocks(tmp_path / "blocks.png") is None
    assert (tmp_path / "blocks.png").stat().st_size > 5000


def test_labels_are_answered_for_one_table_too_and_groups_where_there_are_some():
    rng = np.random.default_rng(0)
    tables = [rng.normal(size=(30, 4)) for _ in range(2)]
    labels = [np.where(x[:, 0] > 0, "yes", "no") for x in tables]
    model = BlockedClassifier().fit(tables, labels)
    assert set(model.predict(tables[0]).ravel()) <= {"yes", "no"}
    three = BlockedClassifier().fit(tables[0], np.digitize(tables[0][:, 0], [-0.5, 0.5]))
    with pytest.raises(ValueError, match="leave out groups"):
        three.predict(tables[0], groups=np.zeros(30))
