"""Rehearsal over a stream of classes: scikit-learn's checks, the buffer's law, files, bad input, the study."""

import copy
import json

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.utils.estimator_checks import parametrize_with_checks
from studies.systems.class_streams import load_stream
from studies.systems.rehearsal import Setting, final, forgetting, train
from torch import nn

from gradatim.estimators import RehearsalClassifier
from gradatim.estimators.buffer import Moments, Reservoir
from gradatim.files.checkpoint import read, write


@parametrize_with_checks([RehearsalClassifier()])
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    return x[np.argsort(y, kind="stable")], np.sort(y)


def stream(model, x, y, size=60):
    for start in range(0, len(y), size):
        model.partial_fit(x[start : start + size], y[start : start + size])
    return model


def images():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())


def test_the_penalty_keeps_earlier_classes(digits):
    x, y = digits
    alone = stream(RehearsalClassifier(buffer=20, regularizer=None), x, y).score(x, y)
    ours = stream(RehearsalClassifier(buffer=20), x, y).score(x, y)
    assert ours > alone + 0.06


def test_every_row_is_kept_with_the_same_probability():
    kept = np.zeros(60)
    for seed in range(1000):
        buffer, inside = Reservoir(12, np.random.default_rng(seed)), {}
        for row in range(0, 60, 5):
            for at, slot in enumerate(buffer.place(5).tolist()):
                if slot >= 0:
                    inside[slot] = row + at
        kept[list(inside.values())] += 1
    # 200 of 1000 each, deviation 12.6: five of them
    assert np.abs(kept - 200).max() < 65


def test_moments_are_those_of_all_rows():
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) * 5 + 100
    moments = Moments((3,))
    for part in x.split(7):
        moments.add(part)
    torch.testing.assert_close(moments.mean, x.double().mean(0))
    torch.testing.assert_close(moments.square / 50, x.double().var(0, unbiased=False))
    assert Moments((2, 4, 4)).mean.shape == (1,)


@pytest.mark.parametrize("method", ["er", "marginal", "full", "entropy", "marginal, replay only"])
def test_the_networks_of_the_study_take_the_same_steps(method):
    data = load_stream("digits", 0)
    target = "replay" if "replay" in method else "both"
    settings = [Setting("ace", 0.1), Setting(method, 0.05, 2.0, target), Setting("er", 0.2)]
    accuracy = train(data, settings, 20, seed=7)[1]
    model = RehearsalClassifier(
        buffer=20,
        regularizer=None if method == "er" else method.split(",")[0],
        target=target,
        weight=2.0,
        lr=0.05,
        n_passes=data.kind.passes,
        standardize=False,
        random_state=7,
    )
    for t in range(data.kind.tasks):
        model.partial_fit(data.x[data.task(t)], data.y[data.task(t)])
        right = model.predict(data.judged_x) == data.judged_y
        own = [right[data.judged_y // 2 == of].mean() for of in range(t + 1)]
        # float32 sums in another order: at most a row or two near a border
        np.testing.assert_allclose(own, accuracy[t, : t + 1], atol=0.03)


def test_accuracy_and_forgetting_of_a_table():
    table = np.array([[[0.9, np.nan, np.nan], [0.5, 0.8, np.nan], [0.4, 0.6, 1.0]]])
    assert final(table)[0] == pytest.approx(2 / 3)
    assert forgetting(table)[0] == pytest.approx((0.5 + 0.2) / 2)


@pytest.mark.parametrize("size", [10, 30])
def test_cuts_at_mini_batches_do_not_matter(digits, size):
    x, y = digits[0][:360], digits[1][:360]
    whole = RehearsalClassifier().partial_fit(x, y).predict_proba(x)
    np.testing.assert_array_equal(stream(RehearsalClassifier(), x, y, size).predict_proba(x), whole)


def test_a_class_that_returns_and_one_that_never_comes(digits):
    x, y = digits[0][:720], digits[1][:720]
    model = stream(RehearsalClassifier(buffer=50), x, y)
    back = model.partial_fit(x[:60], y[:60])
    assert back.classes_.tolist() == [0, 1, 2, 3]
    model = RehearsalClassifier().partial_fit(x, y, classes=range(7))
    assert model.classes_.tolist() == list(range(7))
    probabilities = model.predict_proba(x)
    assert (probabilities[:, 4:] == 0).all()
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-12)


def test_one_class_for_ever_is_named_and_no_buffer_learns(digits):
    x, y = digits[0][:170], digits[1][:170]
    for buffer in (0, 20):
        model = stream(RehearsalClassifier(buffer=buffer), x, y, 10)
        assert (model.predict(x) == 0).all() and model.predict_proba(x).shape == (170, 1)
    model = stream(RehearsalClassifier(buffer=0), digits[0][:500], digits[1][:500])
    assert len(model.buffer_.x) == 0
    assert set(model.classes_) == {0, 1, 2}


def test_images_by_a_network_of_ones_own(digits, tmp_path):
    x, y = digits[0][:360].reshape(-1, 1, 8, 8), digits[1][:360]
    net = images()
    before = copy.deepcopy(net.state_dict())
    model = RehearsalClassifier(net, n_passes=3).partial_fit(x, y)
    assert model.score(x, y) > 0.9
    for name, weight in net.state_dict().items():  # a copy is trained
        assert torch.equal(weight, before[name])
    path = model.save(tmp_path / "own.safetensors")
    loaded = RehearsalClassifier.load(path, images())
    np.testing.assert_array_equal(loaded.predict_proba(x), model.predict_proba(x))
    with pytest.raises(ValueError, match="give it as net="):
        RehearsalClassifier.load(path)
    with pytest.raises(ValueError, match="does not fit"):
        RehearsalClassifier.load(path, nn.Sequential(nn.Conv2d(1, 5, 3), nn.Flatten()))
    with pytest.raises(ValueError, match=r"shape \(1, 8, 8\)"):
        model.partial_fit(x[:, :, :7], y)


@pytest.mark.parametrize("words", [False, True])
def test_a_loaded_classifier_goes_on_to_the_last_bit(digits, tmp_path, words):
    x, y = digits[0][:720], digits[1][:720]
    y = np.array([f"digit {label}" for label in y]) if words else y
    model = stream(RehearsalClassifier(buffer=30), x[:400], y[:400])
    loaded = RehearsalClassifier.load(model.save(tmp_path / "state.safetensors"))
    assert loaded.get_params() == model.get_params()
    for each in (model, loaded):
        stream(each, x[400:], y[400:])
    np.testing.assert_array_equal(loaded.predict_proba(x), model.predict_proba(x))
    assert loaded.predict(x).dtype == model.predict(x).dtype


def test_files_that_contradict_themselves_are_refused(digits, tmp_path):
    path = stream(RehearsalClassifier(buffer=30), *digits).save(tmp_path / "state.safetensors")
    tensors, header = read(path)
    changes = {
        "codes": [0] * 10,
        "rows": 3,
        "shape": [63],
        "features": 127,
        "generator": {"bit_generator": "MT19937"},
        "settings": header["settings"] | {"target": "new"},
        "n_features": 0,
    }
    for name, value in changes.items():
        bad = write(tmp_path / f"{name}.safetensors", tensors, json.loads(json.dumps(header)) | {name: value})
        with pytest.raises(ValueError, match=name if name == "settings" else bad.name):
            RehearsalClassifier.load(bad)
    for name, value in (
        ("buffer.y", torch.full((30,), 99)),
        ("moments.square", -tensors["moments.square"] - 1),
    ):
        bad = write(tmp_path / "part.safetensors", tensors | {name: value}, header)
        with pytest.raises(ValueError, match=r"part\.safetensors"):
            RehearsalClassifier.load(bad)
    with pytest.raises(ValueError, match="default network"):
        RehearsalClassifier.load(path, images())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"buffer": -1}, "buffer must be a whole number of at least 0"),
        ({"buffer": 2.5}, "buffer must be"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"weight": -1}, "weight must be"),
        ({"lr": np.nan}, "lr must be"),
        ({"regularizer": "marginl"}, "did you mean 'marginal'"),
        ({"target": "new"}, "target must be"),
        ({"net": "mlp"}, "torch.nn.Module"),
        ({"buffer": 0, "target": "replay"}, "keep a buffer"),
        ({"net": nn.Unflatten(1, (8, 8))}, "features"),
    ],
)
def test_bad_arguments_are_one_sentence(digits, options, words):
    with pytest.raises(ValueError, match=words):
        RehearsalClassifier(**options).partial_fit(digits[0][:20], digits[1][:20])


def test_bad_rows_change_nothing(digits):
    x, y = digits[0][:360], digits[1][:360]
    model = stream(RehearsalClassifier(), x, y)
    before = model.predict_proba(x)
    hole = x[:20].copy()
    hole[3, 4] = np.nan
    for rows, labels, words in (
        (hole, y[:20], "NaN"),
        (x[:20, :5], y[:20], "features"),
        (x[:20], y[:19], "inconsistent"),
        (x[:20], ["a"] * 20, "labels change type"),
        (x[:20], [None] * 20, "missing labels"),
    ):
        with pytest.raises(ValueError, match=words):
            model.partial_fit(rows, labels)
    np.testing.assert_array_equal(model.predict_proba(x), before)
    with pytest.raises(ValueError, match="diverged"):
        RehearsalClassifier(lr=1e30).partial_fit(x, y)


def test_fit_forgets_names_and_a_buffer_keeps_its_size():
    import pandas as pd

    rng = np.random.default_rng(0)
    frame, y = pd.DataFrame(rng.normal(size=(40, 3)), columns=["a", "b", "c"]), rng.integers(0, 2, 40)
    model = RehearsalClassifier().fit(frame, y).fit(rng.normal(size=(40, 4)), y)
    assert not hasattr(model, "feature_names_in_")
    with pytest.raises(ValueError, match="buffer was 200 when learning began; got 5"):
        model.set_params(buffer=5).partial_fit(rng.normal(size=(40, 4)), y)
