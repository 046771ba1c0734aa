"""The estimators: scikit-learn's own checks, one pass in any portions, merging, files, any kind of table, bad input."""

import ast
import copy
import json
import pickle
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from safetensors import safe_open
from scipy import sparse
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.utils.estimator_checks import parametrize_with_checks

from gradatim import LinearClassification, LinearRegression
from gradatim.estimators import DriftWarning, RefinedClassifier, RefinedRegressor, base
from gradatim.files.checkpoint import read, write
from gradatim.learner import Learner
from gradatim.methods import build
from gradatim.nn.mixture import cumulative
from gradatim.preprocessing import Encoder


@parametrize_with_checks([RefinedClassifier(), RefinedRegressor()])
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def cancer():
    x, y = load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    return x[order], y[order]


@pytest.fixture(scope="module")
def learnt(cancer):
    x, y = cancer
    return RefinedClassifier().partial_fit(x[:400], y[:400])


def test_a_pass_answers_better_than_the_majority_from_the_second_mini_batch(cancer):
    x, y = cancer
    model, wrong = RefinedClassifier(), 0
    for start in range(0, 400, 32):
        if start:
            wrong += (model.predict(x[start : start + 32]) != y[start : start + 32]).sum()
        model.partial_fit(x[start : start + 32], y[start : start + 32], classes=[0, 1])
    assert wrong <= 0.06 * 368
    assert model.score(x[400:], y[400:]) >= 0.95
    whole = RefinedClassifier().fit(x[:400], y[:400])
    assert whole.score(x[400:], y[400:]) >= 0.95


def test_portions_do_not_matter(cancer, learnt):
    x, y = cancer
    parts = RefinedClassifier()
    for start in range(0, 400, 32):
        part = slice(start, min(start + 32, 400))
        parts.partial_fit(x[part], y[part], classes=[0, 1])
    np.testing.assert_allclose(parts.predict_proba(x), learnt.predict_proba(x), atol=1e-10)


def test_answers_depend_on_nothing_but_their_row(cancer, learnt):
    x, _ = cancer
    whole = learnt.predict_proba(x)
    np.testing.assert_allclose(
        np.concatenate([learnt.predict_proba(x[s : s + 7]) for s in range(0, len(x), 7)]), whole, atol=1e-9
    )
    order = np.random.default_rng(1).permutation(len(x))
    np.testing.assert_allclose(learnt.predict_proba(x[order]), whole[order], atol=1e-9)
    np.testing.assert_allclose(whole.sum(1), 1, atol=1e-12)
    np.testing.assert_allclose(learnt.predict_log_proba(x), np.log(whole))


def test_names_of_classes_are_only_names(cancer, learnt):
    x, y = cancer
    renamed = RefinedClassifier().partial_fit(x[:400], np.array(["yes", "no"])[y[:400]])
    assert renamed.classes_.tolist() == ["no", "yes"]
    np.testing.assert_allclose(renamed.predict_proba(x)[:, ::-1], learnt.predict_proba(x), atol=1e-9)


def turned_features_change(x, y, members, rows):
    """Return by how much the order of features changes probabilities, on average."""
    turned = np.random.default_rng(1).permutation(x.shape[1])
    models = [
        RefinedClassifier(n_estimators=members).fit(part[:rows], y[:rows]) for part in (x, x[:, turned])
    ]
    one, other = models[0].predict_proba(x[rows:]), models[1].predict_proba(x[rows:][:, turned])
    return float(np.abs(one - other).mean())


def test_the_order_of_features_matters_little(cancer):
    x, y = load_wine(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    assert turned_features_change(x[order], y[order], 1, 90) < 2e-3  # ramps alone are drawn
    apart = [turned_features_change(*cancer, members, 400) for members in (1, 4)]
    assert max(apart) <= 0.02


def test_shards_learnt_apart_are_one_pass(cancer, learnt):
    x, y = cancer
    base = RefinedClassifier().partial_fit(x[:288], y[:288])
    one, two = (
        base.fork().partial_fit(x[288:336], y[288:336]),
        base.fork().partial_fit(x[336:400], y[336:400]),
    )
    merged = copy.deepcopy(base).merge(one).merge(two)
    assert merged.task_.rows == learnt.task_.rows == 400  # rows that waited are taken in
    moments, wanted = (model.task_.members.settle().states[0].moments for model in (merged, learnt))
    for name in moments._fields:
        torch.testing.assert_close(getattr(moments, name), getattr(wanted, name))
    assert np.abs(merged.predict_proba(x) - learnt.predict_proba(x)).mean() < 0.02
    other = copy.deepcopy(base).merge(two).merge(one)
    np.testing.assert_allclose(other.predict_proba(x), merged.predict_proba(x), atol=1e-8)


def test_merging_what_does_not_fit_is_refused_and_harms_nothing(cancer, learnt):
    x, y = cancer
    before = learnt.predict_proba(x)
    with pytest.raises(ValueError, match="two ways"):
        learnt.merge(RefinedClassifier().partial_fit(x[100:400], y[100:400]))
    with pytest.raises(ValueError, match="same classes"):
        learnt.merge(RefinedClassifier().partial_fit(x[:400], y[:400] + 5))
    with pytest.raises(ValueError, match="fixed after 256 rows"):
        learnt.merge(RefinedClassifier().partial_fit(x[:40], y[:40]))
    with pytest.raises(ValueError, match="merges with another"):
        learnt.merge(RefinedRegressor().partial_fit(x[:400], y[:400]))
    with pytest.raises(ValueError, match="not fixed yet"):
        RefinedClassifier().partial_fit(x[:40], y[:40]).fork()
    np.testing.assert_array_equal(learnt.predict_proba(x), before)


@pytest.mark.parametrize("rows", [1, 40, 400])
@pytest.mark.parametrize("kind", [RefinedClassifier, RefinedRegressor])
def test_saved_and_loaded_it_goes_on(kind, rows, cancer, tmp_path):
    x, y = cancer
    y = y if kind is RefinedClassifier else x[:, 0] + y
    answer = "predict_proba" if kind is RefinedClassifier else "predict"
    model = kind(n_estimators=1 + (rows == 40)).partial_fit(x[:rows], y[:rows])
    path = model.save(tmp_path / "task.safetensors")
    loaded = kind.load(path)
    assert loaded.get_params() == model.get_params()
    for made in (loaded, pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        np.testing.assert_allclose(
            getattr(made, answer)(x), getattr(model, answer)(x), rtol=1e-12, atol=1e-12
        )
        made.partial_fit(x[400:464], y[400:464])
    model.partial_fit(x[400:464], y[400:464])
    np.testing.assert_allclose(getattr(loaded, answer)(x), getattr(model, answer)(x), rtol=1e-12, atol=1e-12)


def test_words_categories_dates_and_gaps_survive_a_file(tmp_path):
    frame, y = mixed(400)
    model = RefinedClassifier().partial_fit(frame[:50], y[:50])
    loaded = RefinedClassifier.load(model.save(tmp_path / "warm.safetensors"))
    np.testing.assert_allclose(loaded.predict_proba(frame), model.predict_proba(frame), atol=1e-12)
    loaded.partial_fit(frame[50:], y[50:])
    again = RefinedClassifier.load(loaded.save(tmp_path / "cold.safetensors"))
    np.testing.assert_allclose(again.predict_proba(frame), loaded.predict_proba(frame), atol=1e-12)
    assert list(again.feature_names_in_) == list(frame.columns)


def test_files_that_are_not_ours_are_refused(cancer, learnt, tmp_path):
    path = learnt.save(tmp_path / "task.safetensors")
    assert path.stat().st_size < 2_000_000
    with pytest.raises(ValueError, match="RefinedClassifier"):
        RefinedRegressor.load(path)
    whole = path.read_bytes()
    (tmp_path / "cut").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "foreign").write_bytes(pickle.dumps(learnt))
    for name in ("cut", "foreign", "missing"):
        with pytest.raises(ValueError, match=name):
            RefinedClassifier.load(tmp_path / name)
    tensors, header = read(path)
    header.pop("gradatim_format")
    write(tmp_path / "other", tensors, {"kind": "state"})
    with pytest.raises(ValueError, match="not one of a table"):
        RefinedClassifier.load(tmp_path / "other")
    write(tmp_path / "short", {k: v for k, v in tensors.items() if "gram" not in k}, header)
    with pytest.raises(ValueError, match="contradicts itself"):
        RefinedClassifier.load(tmp_path / "short")
    write(tmp_path / "older", tensors, {k: v for k, v in header.items() if k != "features"})
    with pytest.raises(ValueError, match="learn its table once more"):
        RefinedClassifier.load(tmp_path / "older")
    with safe_open(path, "pt") as file:
        text = json.loads(file.metadata()["gradatim"])
    newer = whole.replace(b'gradatim_format\\": 2', b'gradatim_format\\": 9')
    assert newer != whole, text["gradatim_format"]
    (tmp_path / "newer").write_bytes(newer)
    with pytest.raises(ValueError, match="upgrade gradatim"):
        RefinedClassifier.load(tmp_path / "newer")


def mixed(n):
    rng = np.random.default_rng(0)
    word = rng.choice(["red", "green", "blue", None], n)
    number = np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n))
    day = pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 1000, n), "D")
    frame = pd.DataFrame(
        {
            "number": number,
            "word": word,
            "kind": pd.Categorical(rng.choice(["a", "b"], n)),
            "flag": rng.random(n) < 0.5,
            "day": day,
            "constant": 1.0,
            "empty": np.nan,
        }
    )
    return frame, ((word == "red") ^ (np.nan_to_num(number) > 0)).astype(int)


def test_tables_as_they_come():
    frame, y = mixed(600)
    model = RefinedClassifier().partial_fit(frame[:400], y[:400])
    assert model.score(frame[400:], y[400:]) > 0.75
    want = model.predict_proba(frame)
    for other in (pl.from_pandas(frame), pa.Table.from_pandas(frame)):
        np.testing.assert_allclose(model.predict_proba(other), want, atol=1e-9)
    x = sparse.random(300, 40, 0.2, random_state=0, format="csr")
    target = (np.asarray(x.sum(1)).ravel() > 4).astype(int)
    one = RefinedClassifier().fit(x, target).predict_proba(x)
    np.testing.assert_allclose(RefinedClassifier().fit(x.toarray(), target).predict_proba(x.toarray()), one)


def test_words_and_classes_that_come_later():
    frame, y = mixed(500)
    model = RefinedClassifier().partial_fit(frame[:300], y[:300])
    later = frame[300:].copy()
    later["word"] = later["word"].where(later["word"] != "blue", "violet")
    target = np.where(later["word"] == "violet", 2, y[300:])
    model.partial_fit(later, target)
    assert model.classes_.tolist() == [0, 1, 2]
    assert model.predict_proba(later).shape == (200, 3)
    assert (model.predict(later)[later["word"] == "violet"] == 2).mean() > 0.8
    early = (
        RefinedClassifier().partial_fit(frame[:20], np.zeros(20, int)).partial_fit(frame[20:40], y[20:40] + 1)
    )
    assert early.predict_proba(frame).shape == (500, 3)


@pytest.mark.parametrize("kind", [RefinedClassifier, RefinedRegressor])
def test_the_first_rows_are_fitted_whole(kind, cancer):
    x, y = cancer
    y = y if kind is RefinedClassifier else 1000 + 7 * x[:, 0] + y
    answer = "predict_proba" if kind is RefinedClassifier else "predict"
    parts = kind()
    for start in range(0, 96, 32):
        parts.partial_fit(x[start : start + 32], y[start : start + 32])
    whole = kind().fit(x[:96], y[:96])
    np.testing.assert_allclose(getattr(parts, answer)(x), getattr(whole, answer)(x), rtol=1e-9)


def test_one_class_and_many_classes():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 4))
    assert (RefinedClassifier().partial_fit(x, np.full(400, 3)).predict(x) == 3).all()
    y = (np.argsort(np.argsort(x[:, 0])) // 4).astype(int)
    model = RefinedClassifier().partial_fit(x, y, classes=np.arange(120))
    chances = model.predict_proba(x)
    assert chances.shape == (400, 120)
    assert (np.abs(chances.argmax(1) - y) <= 10).mean() > 0.5


def test_five_hundred_features_and_one():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 500)) * 10.0 ** rng.uniform(-6, 6, 500)
    y = (x[:, 3] > 0).astype(int)
    assert RefinedClassifier().fit(x, y).predict_proba(x).shape == (300, 2)
    assert RefinedClassifier().fit(x[:, 3:4], y).score(x[:, 3:4], y) > 0.97


def test_a_stage_is_what_partial_fit_would_answer(cancer, learnt):
    x, y = cancer
    before = learnt.predict_proba(x)
    stages = list(learnt.staged_predict_proba(x, (x[400:], y[400:])))
    np.testing.assert_array_equal(stages[0], before)
    np.testing.assert_array_equal(learnt.predict_proba(x), before)
    wanted = copy.deepcopy(learnt).partial_fit(x[400:], y[400:]).predict_proba(x)
    np.testing.assert_allclose(stages[-1], wanted, atol=1e-10)
    fresh = list(RefinedClassifier().staged_predict_proba(x, (x[:64], y[:64])))
    assert np.all(fresh[0] == 0.5)
    assert len(fresh) == 3


def test_stages_of_sparse_rows_and_of_a_class_that_is_new(cancer):
    x, y = cancer
    begun = RefinedClassifier().partial_fit(x[:300], y[:300])
    before = begun.predict_proba(x)
    thin = sparse.csr_matrix(x[300:364])
    first, *rest = begun.staged_predict_proba(thin, (thin, np.full(64, 7)))
    assert [stage.shape for stage in (first, *rest)] == [(64, 3)] * 3
    np.testing.assert_allclose(first[:, :2], before[300:364], atol=1e-12)
    assert not first[:, 2].any()
    assert rest[-1][:, 2].mean() > 0.2


def test_quantiles_of_several_members_are_those_of_their_mixture():
    x, y = load_diabetes(return_X_y=True)
    model = RefinedRegressor(n_estimators=3).fit(x[:200], y[:200])
    found = model.predict(x[200:210], quantiles=[0.05, 0.5])
    task = model.task_
    rows = torch.from_numpy(task.encode(model._columns(x[200:210], reset=False)))[None]
    at = torch.from_numpy((found - task.target.centre) / task.target.scale)[None]
    whole = task.answers.distribution(rows)
    centre = whole.mean[..., None]
    at, total = centre + (at - centre) / whole.stretch[..., None], torch.zeros_like(at)
    for learner, latent in zip(task.members.learners, task.answers.latents, strict=True):
        mixture = learner.predictor.distribution(rows, latent)
        below = cumulative(at, mixture.means[:, :, None], mixture.noise[:, None, None])
        total += (mixture.weight[:, None, None] * below).sum((3, 4)) / 3
    torch.testing.assert_close(total[0], torch.tensor([0.05, 0.5]).double().expand(10, 2), atol=1e-8, rtol=0)


def test_a_regression_says_how_sure_it_is():
    x, y = load_diabetes(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    x, y = x[order], y[order]
    model = RefinedRegressor().partial_fit(x[:300], y[:300])
    mean, deviation = model.predict(x[300:], return_std=True)
    assert model.score(x[300:], y[300:]) > 0.38
    levels = [0.025, 0.1, 0.5, 0.9, 0.975]
    found = model.predict(x[300:], quantiles=levels)
    assert (np.diff(found, axis=1) > 0).all()
    inside = ((y[300:] > found[:, 1]) & (y[300:] < found[:, 3])).mean()
    assert inside == pytest.approx(0.8, abs=0.08)
    np.testing.assert_allclose(mean, model.predict(x[300:]))
    assert np.median(deviation) == pytest.approx(np.sqrt(np.mean((mean - y[300:]) ** 2)), rel=0.25)
    scaled = RefinedRegressor().partial_fit(x[:300], 1e6 * y[:300] - 7)
    np.testing.assert_allclose(scaled.predict(x[300:]), 1e6 * mean - 7, rtol=1e-6)
    with pytest.raises(ValueError, match=r"\(0, 1\)"):
        model.predict(x, quantiles=[0.5, 1.0])


@pytest.mark.parametrize("given", ["learner", "checkpoint"])
def test_a_learner_takes_the_place_of_the_shipped_one(given, tmp_path):
    family = LinearClassification(4, 3)
    learner = build("ridge", family, strength=1.0)
    model = learner
    if given == "checkpoint":
        pytest.skip("written by test_cli through gradatim train")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 4))
    y = x[:, :3].argmax(1)
    made = RefinedClassifier(model=model).fit(x, y)
    assert made.score(x, y) > 0.85
    path = made.save(tmp_path / "task.safetensors")
    loaded = RefinedClassifier.load(path, model=learner)
    np.testing.assert_allclose(loaded.predict_proba(x), made.predict_proba(x))
    with pytest.raises(ValueError, match="another learner"):
        RefinedClassifier.load(path, model=build("ridge", family, strength=2.0))
    with pytest.raises(ValueError, match="wants 4 inputs"):
        RefinedClassifier(model=learner).fit(x[:, :3], y)
    twice = RefinedClassifier(model=learner).fit(x, y, sample_weight=np.full(300, 2.0))
    repeated = RefinedClassifier(model=learner).fit(np.tile(x, (2, 1)), np.tile(y, 2))
    np.testing.assert_allclose(twice.predict_proba(x), repeated.predict_proba(x))
    regressor = RefinedRegressor(model=build("ridge", LinearRegression(4, 0.5), strength=1.0)).fit(x, x[:, 0])
    assert regressor.score(x, x[:, 0]) > 0.99


def test_settings_that_cannot_be_are_refused(cancer):
    x, y = cancer
    for settings, sentence in (
        ({"batch_size": 0}, "batch_size"),
        ({"n_passes": 2}, "counts every row once"),
        ({"n_estimators": 1.5}, "n_estimators"),
        ({"model": "experst"}, "did you mean 'experts'"),
    ):
        with pytest.raises(ValueError, match=sentence):
            RefinedClassifier(**settings).fit(x, y)


def test_bad_rows_change_nothing(cancer, learnt):
    x, y = cancer
    before = learnt.predict_proba(x)
    broken = x[:64].copy()
    broken[40, 3] = np.inf
    cases = [
        (broken, y[:64], "infinity"),
        (x[:64, :5], y[:64], "features"),
        (x[:64], np.array(["a"] * 64), "change type"),
        (x[:64], y[:60], "inconsistent"),
        (x[:0], y[:0], "0 sample"),
    ]
    for rows, target, sentence in cases:
        with pytest.raises(ValueError, match=sentence):
            learnt.partial_fit(rows, target)
        np.testing.assert_array_equal(learnt.predict_proba(x), before)
    with pytest.raises(ValueError, match="one type"):
        RefinedClassifier().fit(x[:4], np.array(["a", 1, "b", 2], dtype=object))
    with pytest.raises(ValueError, match="negative"):
        RefinedClassifier().fit(x, y, sample_weight=-np.ones(len(y)))


def drifted(n, seed):
    """Return rows whose columns are nearly equal and far outside the range of the first ones."""
    rng = np.random.default_rng(seed)
    return 30 * (rng.normal(size=(n, 1)) + 1e-3 * rng.normal(size=(n, 8)))


def test_moments_of_wild_rows_are_read_again(tmp_path):
    rng = np.random.default_rng(0)
    first = rng.normal(size=(256, 8))
    model = RefinedRegressor().partial_fit(first, first[:, 0] > 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DriftWarning)
        rows = drifted(20_000, 1)
        model.partial_fit(rows, rows[:, 0] > 0)
    loaded = RefinedRegressor.load(model.save(tmp_path / "task"))
    np.testing.assert_allclose(loaded.predict(rows[:50]), model.predict(rows[:50]), rtol=1e-12)


@pytest.mark.parametrize("noise", [1e-1, 1e-4])
def test_the_noise_survives_a_file(noise, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 5))
    model = RefinedRegressor().partial_fit(x, x.sum(1) + noise * rng.normal(size=2000))
    before = model.predict(x[:20], return_std=True)[1]
    after = RefinedRegressor.load(model.save(tmp_path / "task")).predict(x[:20], return_std=True)[1]
    np.testing.assert_allclose(after, before, rtol=1e-12)


def test_rows_that_wait_are_nobody_elses(cancer):
    x, y = cancer
    model, weight, rows, labels = (
        RefinedClassifier().partial_fit(x[:256], y[:256]),
        np.ones(20),
        x[:20].copy(),
        y[:20].copy(),
    )
    model.partial_fit(rows, labels, sample_weight=weight)
    same = copy.deepcopy(model)
    weight[:], rows[:], labels[:] = 50, 0, 1 - labels
    assert model.task_.rows == 276
    np.testing.assert_array_equal(model.predict_proba(x), same.predict_proba(x))


def test_what_is_interrupted_loses_nothing(cancer, monkeypatch):
    x, y = cancer
    model = RefinedClassifier().partial_fit(x[:256], y[:256]).partial_fit(x[256:276], y[256:276])

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("gradatim.refiners.Experts._absorbed", interrupt)
        with pytest.raises(KeyboardInterrupt):
            model.predict_proba(x)
    assert model.task_.rows == 276
    before = model.predict_proba(x)
    with pytest.raises(ValueError):
        model.fit(x[:, :3], y[:10])
    np.testing.assert_array_equal(model.predict_proba(x), before)


def test_rows_of_little_weight_do_not_pile_up(cancer):
    x, y = cancer
    model = RefinedClassifier().partial_fit(x[:300], y[:300])
    for _ in range(20):
        model.partial_fit(x[300:332], y[300:332], sample_weight=np.full(32, 1e-6))
    members = model.task_.members
    assert members.states[0].pending.rows + (members.pending.n_rows if members.pending else 0) < 600


@pytest.mark.parametrize("unit", [1e-13, 1.0, 1e12])
def test_the_unit_of_y_is_only_a_unit(unit):
    x, y = load_diabetes(return_X_y=True)
    plain = RefinedRegressor().fit(x[:100], y[:100]).predict(x[100:], quantiles=[0.1, 0.9])
    scaled = RefinedRegressor().fit(x[:100], unit * y[:100]).predict(x[100:], quantiles=[0.1, 0.9])
    np.testing.assert_allclose(scaled / unit, plain, rtol=1e-6)


def test_odd_calls_are_refused_in_a_sentence(cancer, learnt, tmp_path):
    x, y = cancer
    with pytest.raises(ValueError, match="with itself"):
        learnt.merge(learnt)
    with pytest.raises(ValueError, match="change type"):
        learnt.partial_fit(x[:32], y[:32].astype(str))
    with pytest.raises(ValueError, match="use another unit"):
        RefinedRegressor().partial_fit(x[:32], np.full(32, 1e160))
    given = RefinedClassifier(model=build("ridge", LinearClassification(30, 2), strength=1.0))
    unweighted = RefinedClassifier(model=build("parametric-both", LinearClassification(30, 2)))
    with pytest.raises(ValueError, match="every row once"):
        unweighted.partial_fit(x[:50], y[:50], sample_weight=np.full(50, 2.0))
    path = given.partial_fit(x[:50], y[:50]).save(tmp_path / "given")
    with pytest.raises(ValueError, match="model=learner"):
        RefinedClassifier.load(path)
    fork = copy.deepcopy(learnt).fork()
    before = fork.predict_proba(x)
    fork.save(tmp_path / "fork")
    np.testing.assert_array_equal(fork.predict_proba(x), before)


def test_a_scale_that_leaves_its_range_is_reported_once_and_can_be_mapped_anew(cancer):
    x, y = cancer
    model = RefinedClassifier().partial_fit(x[:400], y[:400])
    with pytest.warns(DriftWarning, match="30 in all"):
        model.partial_fit(x[400:464] * 100, y[400:464])
    with warnings.catch_warnings():
        warnings.simplefilter("error", DriftWarning)
        model.partial_fit(x[464:528] * 100, y[464:528])
    model.remap(x[:464] * 100, y[:464])
    assert model.score(x[464:] * 100, y[464:]) > 0.93


@pytest.fixture
def encoded(monkeypatch):
    """Count the rows that are read and those that are encoded."""
    counts = {"read": 0, "encoded": 0}
    encode, read_columns = Encoder.encode, base.read_columns

    def counted_encode(self, columns, *rest):
        counts["encoded"] += columns.n_rows
        return encode(self, columns, *rest)

    def counted_read(X):
        columns = read_columns(X)
        counts["read"] += columns.n_rows
        return columns

    monkeypatch.setattr(Encoder, "encode", counted_encode)
    monkeypatch.setattr(base, "read_columns", counted_read)
    return counts


@pytest.mark.parametrize("kind", [RefinedClassifier, RefinedRegressor])
def test_a_row_is_read_and_encoded_once(kind, encoded):
    frame, y = mixed(2000)
    model = kind().partial_fit(frame[:600], y[:600])
    for call, rows in (
        (lambda: model.partial_fit(frame[600:700], y[600:700]), 100),
        (lambda: model.predict(frame), 2000),
        (lambda: model.predict_then_learn(frame[700:], y[700:]), 1300),
        (lambda: kind(n_estimators=2).fit(frame, y), 2000),
    ):
        encoded.update(read=0, encoded=0)
        call()
        assert encoded == {"read": rows, "encoded": rows}


@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("kind", [RefinedClassifier, RefinedRegressor])
def test_predicting_then_learning_is_predict_and_partial_fit(kind, members):
    """Pieces are an eighth of the rows learnt; levels and classes come up on the way."""
    frame, y = mixed(1200)
    frame.loc[700:, "word"] = frame.loc[700:, "word"].where(frame.loc[700:, "word"] != "blue", "violet")
    y = y + (np.arange(1200) > 800) if kind is RefinedClassifier else y + 0.5
    apart, together, start, expected = kind(n_estimators=members), kind(n_estimators=members), 0, []
    while start < 1200:
        part = slice(start, start + 32 * max(1, start // 256))
        if start:
            expected.append(apart.predict(frame[part]))
        apart.partial_fit(frame[part], y[part])
        start = part.stop
    predictions = together.predict_then_learn(frame, y)
    np.testing.assert_allclose(predictions[32:], np.concatenate(expected), rtol=1e-9)
    assert (predictions[:32] == 0).all() if kind is RefinedClassifier else np.isnan(predictions[:32]).all()
    answer = "predict_proba" if kind is RefinedClassifier else "predict"
    np.testing.assert_allclose(getattr(together, answer)(frame), getattr(apart, answer)(frame), rtol=1e-9)


def test_probabilities_before_learning_have_a_column_for_every_class():
    frame, y = mixed(400)
    y = y + 5 * (np.arange(400) > 340)
    probabilities = RefinedClassifier().predict_then_learn(frame, y, proba=True, classes=[0, 1])
    np.testing.assert_allclose(probabilities.sum(1), 1)
    assert probabilities.shape == (400, 4) and (probabilities[:32, :2] == 0.5).all()
    assert not probabilities[:340, 2:].any() and probabilities[-1, 2:].sum() > 0.3


def test_rows_of_weight_zero_are_predicted_and_not_learnt():
    frame, y = mixed(600)
    weight = (np.arange(600) % 3 > 0).astype(float)
    model, same = RefinedClassifier().partial_fit(frame[:300], y[:300]), None
    same = copy.deepcopy(model).partial_fit(frame[300:332], y[300:332], sample_weight=weight[:32])
    assert len(model.predict_then_learn(frame[300:332], y[300:332], sample_weight=weight[:32])) == 32
    np.testing.assert_allclose(model.predict_proba(frame), same.predict_proba(frame))


@pytest.mark.parametrize("model", ["experts", "given"])
def test_every_mini_batch_is_a_step_of_the_loop(model, monkeypatch):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(960, 4))
    learner = build("ridge", LinearRegression(4, 0.5), strength=1.0) if model == "given" else model
    estimator = RefinedRegressor(model=learner).partial_fit(x[:320], x[:320, 0])
    steps, learn = [], Learner.learn
    before = estimator.task_.members.pending

    def counted(self, state, batch, *rest, **settings):
        steps.append(batch.n_rows)
        return learn(self, state, batch, *rest, **settings)

    monkeypatch.setattr(Learner, "learn", counted)
    estimator.partial_fit(x[320:640], x[320:640, 0])
    estimator.predict_then_learn(x[640:], x[640:, 0])
    # experts are given rows when answers are due, whatever the mini-batch
    pending = estimator.task_.members.pending
    assert steps == [32] * 20 if model == "given" else sum(steps) + pending.n_rows == 640 + before.n_rows


def test_the_shipped_learner_given_is_the_shipped_one():
    """One path: experts made by hand are a learner like any."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(700, 3))
    y = x[:, 0] + np.abs(x[:, 1])
    shipped = RefinedRegressor().partial_fit(x, y)
    by_hand = RefinedRegressor(model=copy.deepcopy(shipped.task_.members.learners[0])).partial_fit(x, y)
    np.testing.assert_array_equal(by_hand.predict(x), shipped.predict(x))
    weight = 1.0 + np.arange(700) % 2
    for model in (shipped, by_hand):
        model.partial_fit(x, y, sample_weight=weight)
    levels = [0.1, 0.9]
    np.testing.assert_array_equal(by_hand.predict(x, quantiles=levels), shipped.predict(x, quantiles=levels))


def test_learners_that_cannot_serve_a_table_are_refused(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 4))
    ridge = RefinedRegressor(model=build("ridge", LinearRegression(4, 0.5), strength=1.0)).fit(x, x[:, 0])
    for question in ({"return_std": True}, {"quantiles": [0.5]}):
        with pytest.raises(ValueError, match="mean only"):
            ridge.predict(x, **question)
    with pytest.raises(ValueError, match="implicit"):
        RefinedRegressor(model=build("implicit", LinearRegression(4, 0.5))).partial_fit(x, x[:, 0])
    with pytest.raises(ValueError, match="n_passes"):
        RefinedRegressor(n_passes=2).fit(x, x[:, 0])


def test_no_estimator_knows_a_concrete_refiner_or_predictor():
    for path in Path(base.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                names = {name.name for name in node.names}
                assert not (node.module or "").startswith("refiners"), path
                assert not (node.module or "").startswith("predictors") or names <= {
                    "CrossEntropy",
                    "SquaredError",
                }


@pytest.mark.parametrize("kind", [RefinedClassifier, RefinedRegressor])
def test_a_stream_may_begin_with_rows_of_weight_zero(cancer, kind):
    x, y = cancer
    weight = np.ones(200)
    weight[:70] = 0
    model, plain = kind(), kind()
    assert len(model.predict_then_learn(x[:200], y[:200], sample_weight=weight)) == 200
    plain.partial_fit(x[70:200], y[70:200])
    assert model.task_.rows == 130
    np.testing.assert_allclose(model.predict(x), plain.predict(x))
