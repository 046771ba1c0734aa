"""Boosted trees as arrays, and as what a memory that follows grows anew: outputs, moves, growth, files."""

import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from gradatim import RefinedClassifier, RefinedRegressor
from gradatim.memory.grown import FEWEST, MOST, Grown
from gradatim.memory.packing import pack, unpack
from gradatim.nn.carry import Change
from gradatim.nn.trees import SETTINGS, fit_trees


def rows(n=400, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, size=(n, 4))
    return x, (x[:, 0] > 0.1).astype(int) ^ (x[:, 1] > -0.2)


@pytest.mark.parametrize("classes", [None, 2, 3])
def test_outputs_are_those_of_the_library_that_fitted_them(classes):
    x, y = rows()
    y = {None: y + x[:, 2], 2: y, 3: y + (x[:, 3] > 0.5)}[classes]
    kind = HistGradientBoostingRegressor if classes is None else HistGradientBoostingClassifier
    model = kind(max_iter=20, random_state=0, **SETTINGS).fit(x, y)
    expected = model.predict(x) if classes is None else model.decision_function(x)
    trees = fit_trees(x, y, classes, 20)
    assert np.abs(trees.outputs(x) - expected.reshape(len(x), -1)).max() < 1e-12
    first, last = trees.stages(x, (5,))
    assert np.abs(first - trees.first(5).outputs(x)).max() < 1e-12
    assert np.abs(last - trees.outputs(x)).max() < 1e-12
    assert trees.outputs(x[:0]).shape == (0, len(trees.start))


def test_a_weight_of_two_is_a_row_twice():
    x, y = rows()
    weight = np.where(np.arange(len(x)) < 100, 2.0, 1.0)
    twice = np.concatenate([x, x[:100]]), np.concatenate([y, y[:100]])
    once, both = fit_trees(x, y, 2, 10, weight), fit_trees(*twice, 2, 10)
    assert np.abs(once.outputs(x) - both.outputs(x)).mean() < 0.1  # leaves are counted by rows


def test_trees_move_with_their_inputs():
    x, y = rows()
    trees = fit_trees(x, y, 2, 20)
    place, scale, shift = (
        np.array([2, 0, 4, 1]),
        np.array([2.0, 1.0, 0.5, 3.0]),
        np.array([0.0, 1.0, -1.0, 2.0]),
    )
    wider = np.zeros((len(x), 5))
    wider[:, place] = scale * x + shift
    moved = trees.moved(place, scale, shift)
    assert moved is not None and np.abs(moved.outputs(wider) - trees.outputs(x)).max() < 1e-12
    assert trees.moved(np.array([-1, 0, 1, 2]), scale, shift) is None


def grown(x, y, classes=2):
    trees = Grown()
    for start in range(0, len(x), 32):
        part = slice(start, start + 32)
        trees.learn(x[part], y[part], np.ones(len(x[part])))
        trees.turn(classes)
    return trees


def test_they_grow_when_there_are_half_as_many_rows_more_and_hold_few():
    x, y = rows(3 * MOST)
    trees = grown(x, y)
    assert trees.grown_on == MOST and trees.new < MOST
    assert sum(len(part[0]) for part in trees.past) <= 2 * MOST
    assert grown(x[: FEWEST - 32], y[: FEWEST - 32]).trees is None


def test_they_know_the_classes_that_they_have_seen():
    x, y = rows()
    trees = grown(x, y)
    before = trees.probabilities(x, np.full(2, 0.5))
    trees.widen(np.array([2, 0]))
    after = trees.probabilities(x, np.full(3, 1 / 3))
    assert np.array_equal(after[:, [2, 0]], before) and not after[:, 1].any()
    assert grown(x, np.zeros(len(x))).trees is None


def test_rows_that_are_held_move_with_their_inputs():
    x, y = rows()
    trees, kept = grown(x, y), grown(x, y)
    part = torch.tensor([1, 0, 3, 4])
    ones = torch.ones(4, dtype=torch.float64)
    trees.carry(Change(part, 2 * ones, ones, 5))
    wider = np.zeros((len(x), 5))
    wider[:, part.numpy()] = 2 * x + 1
    assert np.array_equal(trees.probabilities(wider, np.full(2, 0.5)), kept.probabilities(x, np.full(2, 0.5)))
    assert np.abs(trees.past[0][0][:100] - wider[:100]).max() < 1e-6


@pytest.mark.parametrize("kind", [RefinedClassifier, RefinedRegressor])
def test_rules_are_learnt_saved_and_hold_no_row(tmp_path, kind):
    x, y = rows(2000)
    all_rows, adaptive = kind(), kind(memory="adaptive")
    for start in range(0, 2000, 100):
        part = slice(start, start + 100)
        for model in (all_rows, adaptive):
            model.partial_fit(x[part], y[part])
    new, truth = rows(1000, seed=1)
    wrong = [np.abs(model.predict(new) - truth).mean() for model in (all_rows, adaptive)]
    assert wrong[1] < 0.5 * wrong[0]
    loaded = kind.load(adaptive.save(tmp_path / "state"))
    assert np.array_equal(loaded.predict(new), adaptive.predict(new))
    bank = loaded.task_.members.bank
    assert bank.grown.trees is not None and not bank.grown.past
    parts = pack(bank)
    parts["trees.feature"] = parts["trees.feature"] + 100
    with pytest.raises(ValueError, match="trees contradict"):
        unpack("adaptive", 2 if kind is RefinedClassifier else None, parts)


def test_a_change_of_the_task_begins_them_anew():
    x, y = rows(4000)
    y[2000:] = 1 - y[2000:]
    model, wrong = RefinedClassifier(memory="adaptive"), []
    for start in range(0, 4000, 32):
        part = slice(start, start + 32)
        if start:
            wrong.append(model.predict(x[part]) != y[part])
        model.partial_fit(x[part], y[part])
    late = np.concatenate(wrong)[-500:].mean()
    assert late < 0.1


def test_a_change_right_after_loading_is_followed(tmp_path):
    x, y = rows(1400)
    y = (x[:, 0] > 0).astype(int)
    y[700:] = 1 - y[700:]
    model = RefinedClassifier(memory="adaptive")
    for start in range(0, 1400, 32):
        model.partial_fit(x[start : start + 32], y[start : start + 32])
        model = RefinedClassifier.load(model.save(tmp_path / "state"))
    assert (model.predict(x[1000:]) == y[1000:]).mean() > 0.9


def test_numbers_that_are_missing_stay_so_in_rows_that_are_held():
    trees = Grown()
    trees.learn(np.array([[0.0, 1.0], [2.0, 0.0]]), np.array([0, 1]), np.ones(2))
    ones = torch.ones(2, dtype=torch.float64)
    change = Change(torch.tensor([0, 1]), ones, torch.tensor([5.0, 0.0]).double(), 2, torch.tensor([1, -1]))
    trees.carry(change)
    assert np.array_equal(trees.recent[0][0], [[0.0, 1.0], [7.0, 0.0]])
