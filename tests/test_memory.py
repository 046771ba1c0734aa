"""Memory that follows a stream: it finds changes, and what it knows is saved, carried, widened and merged."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch

from gradatim import RefinedClassifier, RefinedRegressor
from gradatim.memory import begin
from gradatim.memory.bank import Bank
from gradatim.memory.copies import FOREVER, Ridge, Softmax
from gradatim.memory.packing import pack, unpack
from gradatim.memory.weights import LogPool, Shares
from gradatim.preprocessing import Encoder, read_columns


def stream(n=3000, change=1500, seed=0):
    """Rows whose classes are turned round after a change."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 4))
    y = (X[:, 0] + X[:, 1] > 0).astype(int)
    y[change:] = 1 - y[change:]
    return X, y


def errors(model, X, y, size=32):
    """Errors of a strict pass."""
    wrong = []
    for start in range(0, len(y), size):
        part = slice(start, start + size)
        if start:
            wrong.append(model.predict(X[part]) != y[part])
        model.partial_fit(X[part], y[part])
    return np.concatenate(wrong)


def bank_of(X, outputs=2, memory="adaptive"):
    columns = read_columns(X)
    encoder = Encoder.fit(columns)
    return begin(memory, encoder, encoder.encode(columns), outputs, 0), encoder.encode(columns)


def taught(bank, x, y, said):
    start = 0
    while start < len(x):
        part = slice(start, start + bank.room)
        start = min(len(x), start + bank.room)
        bank.learn(x[part], y[part], np.ones(len(x[part])), bank.forecast(x[part], said[part]))
    return bank


def test_a_change_is_followed_and_named():
    X, y = stream()
    follows, stays = RefinedClassifier(memory="adaptive"), RefinedClassifier()
    wrong, frozen = errors(follows, X, y), errors(stays, X, y)
    assert wrong[1600:].mean() < 0.05 < 0.5 < frozen[1600:].mean()
    assert wrong[:1400].mean() <= frozen[:1400].mean() + 0.01
    changes = follows.task_.members.bank.changes
    assert len(changes) == 1 and 1500 < changes[0] <= 1500 + 4 * 32
    assert follows.memory_ < 1600 and stays.memory_ == 3000


def test_a_number_of_rows_is_remembered():
    X, y = stream()
    model = RefinedClassifier(memory=320)
    wrong = errors(model, X, y)
    assert wrong[2000:].mean() < 0.08 and 250 < model.memory_ <= 320


def test_a_regression_follows():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3000, 3))
    y = X @ [1.0, 2.0, 0.0] + rng.normal(size=3000)
    y[1500:] *= -1
    model, kept = RefinedRegressor(memory="adaptive"), []
    for start in range(0, 3000, 50):
        part = slice(start, start + 50)
        if start >= 2000:
            low, mean, high = model.predict(X[part], quantiles=[0.1, 0.5, 0.9]).T
            assert (low < mean).all() and (mean < high).all()
            kept.append(
                [
                    np.square(model.predict(X[part]) - y[part]).mean(),
                    ((low < y[part]) & (y[part] < high)).mean(),
                ]
            )
        model.partial_fit(X[part], y[part])
    square, covered = np.mean(kept, axis=0)
    assert square < 1.3 and 0.7 < covered < 0.9


@pytest.mark.parametrize("memory", ["adaptive", 500])
@pytest.mark.parametrize("kind", [RefinedClassifier, RefinedRegressor])
def test_a_saved_memory_goes_on_alike(tmp_path, kind, memory):
    X, y = stream(700, 400)
    target = y if kind is RefinedClassifier else X[:, 0] * (1 - 2 * y)
    model = kind(memory=memory).partial_fit(X[:605], target[:605])
    loaded = kind.load(model.save(tmp_path / "s"))
    assert loaded.memory == memory and loaded.memory_ == model.memory_
    for part in (slice(605, 610), slice(610, 700)):
        ask = "predict_proba" if kind is RefinedClassifier else "predict"
        assert np.array_equal(getattr(model, ask)(X), getattr(loaded, ask)(X))
        model.partial_fit(X[part], target[part])
        loaded.partial_fit(X[part], target[part])


def test_a_file_holds_no_row_of_the_context():
    X, y = stream(600)
    bank, x = bank_of(X)
    said = np.full((600, 2), 0.5)
    taught(bank, x, y, said)
    last = {float(value) for value in x[-1]}
    for name, part in pack(bank).items():
        assert not last & set(part.double().flatten().tolist()), name


def test_what_was_refused_changes_nothing():
    X, y = stream(600)
    model = RefinedClassifier(memory="adaptive").partial_fit(X, y)
    before, state = model.predict_proba(X), pack(model.task_.members.bank)
    with pytest.raises(ValueError):
        model.partial_fit(np.full((40, 4), np.inf), y[:40])
    assert np.array_equal(before, model.predict_proba(X))
    after = pack(model.task_.members.bank)
    assert all(np.array_equal(state[name].numpy(), after[name].numpy()) for name in state)


def test_a_copy_goes_on_by_itself():
    X, y = stream(900)
    model = RefinedClassifier(memory="adaptive").partial_fit(X[:600], y[:600])
    other = copy.deepcopy(model)
    before = model.predict_proba(X)
    other.partial_fit(X[600:], y[600:])
    assert np.array_equal(before, model.predict_proba(X)) and not np.array_equal(
        before, other.predict_proba(X)
    )
    learnt = model.task_.members.bank.copied()
    kept = {name: part.clone() for name, part in pack(model.task_.members.bank).items()}
    taught(learnt, learnt.context.rows(np.zeros((64, 4)))[:, :4], np.zeros(64, int), np.full((64, 2), 0.5))
    assert all(np.array_equal(kept[n].numpy(), p.numpy()) for n, p in pack(model.task_.members.bank).items())


def test_new_words_and_classes_are_taken_in():
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"a": rng.normal(size=900), "word": rng.choice(["x", "y"], 900)})
    frame.loc[600:, "word"] = rng.choice(["x", "new"], 300)
    y = np.where(frame["word"] == "x", "one", "two").astype(object)
    y[700:] = np.where(frame["a"][700:] > 0, "three", "one")
    model = RefinedClassifier(memory="adaptive")
    for start in range(0, 900, 30):
        model.partial_fit(frame[start : start + 30], y[start : start + 30])
    assert list(model.classes_) == ["one", "three", "two"]
    assert (model.predict(frame[800:]) == y[800:]).mean() > 0.9


def test_columns_that_awaken_are_taken_in():
    rng = np.random.default_rng(1)
    X = np.c_[rng.normal(size=600), np.zeros(600)]
    X[300:, 1] = 5 * rng.normal(size=300)
    y = (X[:, 0] > 0).astype(int)
    y[300:] = X[300:, 1] > 0
    for kind in (RefinedClassifier, RefinedRegressor):
        model = kind(memory="adaptive")
        for start in range(0, 600, 20):
            model.partial_fit(X[start : start + 20], y[start : start + 20])
        assert ((model.predict(X[500:]) > 0.5) == y[500:]).mean() > 0.85


def test_banks_merge_and_begin_anew():
    X, y = stream(1400, 1400)
    base = RefinedClassifier(memory="adaptive").partial_fit(X[:300], y[:300])
    first = base.fork().partial_fit(X[:800], y[:800])
    assert base.fork().task_.members.bank.total == 0
    whole = first.merge(base.fork().partial_fit(X[800:], y[800:]))
    assert whole.task_.members.bank.total == 1400 and (whole.predict(X) == y).mean() > 0.93
    assert 0 < whole.memory_ <= 1400
    with pytest.raises(ValueError, match="merging needs one memory"):
        whole.merge(RefinedClassifier().partial_fit(X, y))


def test_remap_begins_the_memory_anew():
    X, y = stream(1200, 1200)
    model = RefinedClassifier(memory="adaptive").partial_fit(X[:600], y[:600]).remap(1000 * X[600:], y[600:])
    assert (model.predict(1000 * X[600:]) == y[600:]).mean() > 0.9


@pytest.mark.parametrize("memory", ["adaptve", 10, 0, -5, 1.5, None, True])
def test_what_is_no_memory_is_refused(memory):
    with pytest.raises(ValueError, match='memory must be "all", "adaptive" or a number of rows'):
        RefinedClassifier(memory=memory).fit(*stream(50))


def test_damaged_memories_are_refused():
    X, y = stream(400)
    bank, x = bank_of(X)
    taught(bank, x, y, np.full((400, 2), 0.5))
    tensors = pack(bank)
    assert isinstance(unpack("adaptive", 2, tensors), Bank)
    for name, wrong in {
        "shares.within": tensors["shares.within"] * 2,
        "ridge.640.gram": -tensors["ridge.640.gram"],
        "past": tensors["past"][:, :-1],
        "numbers": tensors["numbers"] + 9,
        "changes": torch.zeros(1, 1, dtype=torch.int64),
        "features.pairs": tensors["features.pairs"].double(),
        "features.reach": 0 * tensors["features.reach"],
        "pool.square": tensors["pool.square"] - 1,
        "counts": tensors["counts"] - 1e6,
        "softmax.640.heads": tensors["softmax.640.heads"] + 1e30,
    }.items():
        with pytest.raises(ValueError, match=name.split(".")[0]):
            unpack("adaptive", 2, {**tensors, name: wrong})
    with pytest.raises(ValueError, match=r"memory\.counts"):
        unpack("adaptive", 2, {name: part for name, part in tensors.items() if name != "counts"})
    with pytest.raises(ValueError, match="unknown"):
        unpack("adaptive", 2, {**tensors, "more": tensors["counts"]})


def test_a_ridge_copy_is_discounted_least_squares():
    rng = np.random.default_rng(0)
    phi = rng.normal(size=(96, 3)).astype(np.float32)
    y = rng.normal(size=(96, 1)).astype(np.float32)
    copies = Ridge.empty(3, 1, 0.5, 3, share=0.0)
    for start in (0, 32, 64):
        part = phi[start : start + 32]
        copies.add(part.T @ part, part.T @ y[start : start + 32], 32.0)
        heads = copies.turn(32) or copies.heads
    weight = np.repeat([0.25, 0.5, 1.0], 32)[:, None]
    gram = (weight * phi).T @ phi
    exact = np.linalg.solve(gram + np.eye(3), (weight * phi).T @ y)
    assert np.allclose(heads[:, :1], exact, atol=1e-4) and abs(copies.rows - 28.0) < 1e-4


def test_a_softmax_copy_comes_near_to_maximum_likelihood():
    rng = np.random.default_rng(0)
    phi = np.c_[rng.normal(size=(6000, 2)), np.ones(6000)].astype(np.float32)
    theta = np.array([[1.0, -1.0, 0.0], [0.0, 1.0, -1.0], [0.3, 0.0, -0.3]])
    logits = phi @ theta
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    y = (rng.random((6000, 1)) < p.cumsum(1)).argmax(1)
    head = Softmax.empty(3, 3, FOREVER)
    for start in range(0, 6000, 32):
        part = slice(start, start + 32)
        head.learn(phi[part], np.eye(3, dtype=np.float32)[y[part]], np.ones(len(phi[part]), np.float32))
        head.turn(32)
    assert np.abs(head.heads - head.heads.mean(1, keepdims=True) - theta).max() < 0.15


def test_fixed_share_returns_to_what_is_right_again():
    shares = Shares.even([2])
    for right in [0] * 50 + [1] * 50 + [0] * 5:
        said = np.log(np.where(np.arange(2) == right, 0.9, 0.1))
        shares.weigh(said, np.zeros(1))
        shares.turn(32, 32)
    assert shares.within[0] > 0.9 and abs(shares.within.sum() - 1) < 1e-12


def test_a_pool_learns_whom_to_trust():
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=4000)
    right = np.where(rng.random(4000) < 0.8, y, 1 - y)
    said = np.stack([np.full((4000, 2), 0.5), np.eye(2)[right] * 0.2 + 0.4], axis=1)
    pool = LogPool.of_first(2)
    pool.learn(pool.inputs(said), y)
    answer = pool.answer(pool.inputs(said[:10]))
    assert (answer.argmax(1) == right[:10]).all() and 0.6 < answer.max(1).min() < 0.86
    assert np.allclose(answer.sum(1), 1)


@pytest.mark.parametrize("memory", ["adaptive", 640])
def test_absurd_targets_do_not_last(tmp_path, memory):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3600, 3))
    y = 5 * X[:, 0] + 0.1 * rng.normal(size=3600)
    y[300:303] = 9.97e36  # what some files write for missing
    model = RefinedRegressor(memory=memory)
    for start in range(0, 3600, 25):
        model.partial_fit(X[start : start + 25], y[start : start + 25])
    model.save(tmp_path / "s")
    assert np.isfinite(model.predict(X)).all()


def test_a_prediction_before_reweigh_changes_nothing():
    X, y = stream(900, 900)
    first, second = (RefinedClassifier(memory="adaptive").partial_fit(X[:600], y[:600]) for _ in range(2))
    first.predict_proba(X[600:620])
    for model in (first, second):
        model.reweigh(X[:100], y[:100]).partial_fit(X[600:620], y[600:620])
    assert np.array_equal(first.predict_proba(X), second.predict_proba(X))
