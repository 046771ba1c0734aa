"""`class_weight`: scikit-learn's numbers times the row weights, in every way of learning, in files and in merges."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight

from gradatim import RefinedClassifier, cli
from gradatim.files.table import read_any, write_table

WEIGHTS = {"yes": 6.0, "no": 0.5}


def table(rows: int = 600, seed: int = 0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 3))
    y = np.where(x[:, 0] + 0.8 * rng.normal(size=rows) > 1.6, "yes", "no").astype(object)
    return x, y, rng.uniform(0.5, 2, rows)


def equal(one, other) -> bool:
    x = table(200, 9)[0]
    return np.array_equal(one.predict_proba(x), other.predict_proba(x)) and one.task_.rows == other.task_.rows


@pytest.mark.parametrize("rows", [100, 600])  # while the map is open, and after it is fixed
@pytest.mark.parametrize("row_weight", [False, True])
def test_it_is_what_row_weights_say_in_every_way_of_learning(rows, row_weight):
    x, y, weight = table(rows)
    weight = weight if row_weight else np.ones(rows)
    weighed = weight * compute_sample_weight(WEIGHTS, y)
    for way in ("fit", "partial_fit", "predict_then_learn"):
        one, other = RefinedClassifier(class_weight=WEIGHTS), RefinedClassifier()
        first = getattr(one, way)(x, y, sample_weight=weight)
        second = getattr(other, way)(x, y, sample_weight=weighed)
        assert equal(one, other) and one.task_.count == rows
        assert way != "predict_then_learn" or np.array_equal(first, second)
    one, other = RefinedClassifier(class_weight=WEIGHTS), RefinedClassifier()
    for row, label, alone, both in zip(x[:90], y, weight, weighed, strict=False):
        row = dict(enumerate(row))
        one.learn_one(row, label, float(alone))
        other.learn_one(row, label, float(both))
    assert one.predict_proba_one(row) == other.predict_proba_one(row)
    before = one.task_.rows
    assert one.learn_one(row, "yes", 0).task_.rows == before  # a row of weight 0 changes nothing


def test_a_label_that_it_does_not_name_counts_one():
    x, y, _ = table()
    assert equal(
        RefinedClassifier(class_weight={"yes": 6}).fit(x, y),
        RefinedClassifier(class_weight={"yes": 6, "no": 1}).fit(x, y),
    )
    none = [RefinedClassifier(class_weight=nothing).fit(x, y) for nothing in (None, {})]
    assert equal(none[0], none[1])


def test_balanced_is_scikit_learns_and_kept_for_rows_that_come_later(tmp_path):
    x, y, weight = table()
    for row_weight in (None, weight):
        model = RefinedClassifier(class_weight="balanced").fit(x, y, sample_weight=row_weight)
        wanted = compute_class_weight("balanced", classes=model.classes_, y=y, sample_weight=row_weight)
        assert list(model.class_weight_) == ["no", "yes"]
        np.testing.assert_allclose(
            [*model.class_weight_.values()], wanted, rtol=1e-14
        )  # another order of sums
    x_more, y_more, _ = table(300, 1)
    known = model.class_weight_
    same = RefinedClassifier(class_weight=known).fit(x, y, sample_weight=weight)
    assert equal(model.partial_fit(x_more, y_more), same.partial_fit(x_more, y_more))
    assert equal(copy.deepcopy(model).reweigh(x, y), copy.deepcopy(same).reweigh(x, y))
    loaded = RefinedClassifier.load(model.save(tmp_path / "state"))
    assert loaded.class_weight == "balanced" and loaded.class_weight_ == known and equal(loaded, model)
    assert equal(loaded.partial_fit(x, y), model.partial_fit(x, y))
    # a fit with another setting forgets them
    assert not hasattr(model.set_params(class_weight=None).fit(x, y), "class_weight_")


def test_balanced_counts_rows_of_weight_k_as_k_rows():
    x, y, _ = table(400)
    times = np.arange(400) % 4
    weighed = RefinedClassifier(class_weight="balanced").fit(x, y, sample_weight=times)
    repeated = RefinedClassifier(class_weight="balanced").fit(x.repeat(times, 0), y.repeat(times))
    assert weighed.class_weight_ == repeated.class_weight_
    # random features are drawn for the rows that are there
    np.testing.assert_allclose(weighed.task_.rows, repeated.task_.rows)


@pytest.mark.parametrize("way", ["partial_fit", "predict_then_learn", "learn_one"])
def test_balanced_is_refused_where_classes_are_not_counted(way):
    x, y, _ = table()
    model = RefinedClassifier(class_weight="balanced")
    rows = ({0: 1.0, 1: 0.0, 2: 0.0}, "yes") if way == "learn_one" else (x, y)
    with pytest.raises(ValueError, match="call fit or prepare first, or give a dict"):
        getattr(model, way)(*rows)
    assert not hasattr(model, "task_")
    model.prepare(x, y)
    getattr(model, way)(*rows)
    assert model.task_.count and [*model.class_weight_] == ["no", "yes"]


def test_rows_are_forgotten_with_the_weight_that_they_had():
    x, y, _ = table(900)
    model = RefinedClassifier(class_weight="balanced").fit(x[:600], y[:600])
    before, rows = model.task_.members.settle().states[0].moments, model.task_.rows
    model.partial_fit(x[600:], y[600:]).forget(x[600:], y[600:])
    after = model.task_.members.settle().states[0].moments
    for name in ("gram", "cross", "squares", "rows"):  # taken away up to rounding
        torch.testing.assert_close(getattr(after, name), getattr(before, name), rtol=1e-10, atol=1e-9)
    np.testing.assert_allclose(model.task_.rows, rows)


def test_the_rare_class_is_found_more_often():
    (x, y, _), (queries, answers, _) = table(2000), table(2000, 5)
    rare = answers == "yes"
    found = [
        (RefinedClassifier(class_weight=weights).fit(x, y).predict(queries)[rare] == "yes").mean()
        for weights in (None, {"yes": 3}, "balanced")
    ]
    assert found[0] + 0.1 < found[1] < found[2]


def test_parts_have_the_sums_of_one_pass_in_any_order(tmp_path):
    x, y, _ = table(900)
    base = RefinedClassifier(class_weight="balanced").fit(x[:300], y[:300])
    parts = [base.fork().partial_fit(x[at : at + 200], y[at : at + 200]) for at in (300, 500, 700)]
    RefinedClassifier.load(parts[1].save(tmp_path / "part"))
    one = base.fork().partial_fit(x[300:], y[300:])
    for order in ((0, 1, 2), (2, 0, 1)):
        whole = base.fork()
        for number in order:
            whole.merge(RefinedClassifier.load(parts[number].save(tmp_path / "part")))
        sums = [model.task_.members.settle().states[0].moments for model in (whole, one)]
        for name in ("gram", "cross", "squares", "rows"):
            pair = [getattr(moments, name) for moments in sums]
            torch.testing.assert_close(*pair, rtol=1e-12, atol=1e-9)
    for other in (None, {"yes": 2}, base.class_weight_):
        part = base.fork().set_params(class_weight=other).partial_fit(x, y)
        with pytest.raises(ValueError, match="merging needs one class_weight"):
            base.merge(part)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ("even", "must be None, 'balanced' or a dict"),
        ([1, 2], "must be None, 'balanced' or a dict"),
        (np.ones(2), "must be None, 'balanced' or a dict"),
        ({"yes": 0}, "got 0 for 'yes': leave the rows of that class out"),
        ({"yes": -1}, "positive numbers; got -1 for 'yes'"),
        ({"yes": np.nan}, "positive numbers; got nan for 'yes'"),
        ({"yes": "2"}, "positive numbers; got '2' for 'yes'"),
        ({"yes": 1, 3: 1}, "labels must be of one type"),
        ({1: 2}, r"names \[1\], which are of another type than the labels \['no', 'yes'\]"),
        ({"yse": 2}, "names 'yse', which is no class of y, and not 'no'"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(weights, said):
    x, y, _ = table(60)
    with pytest.raises(ValueError, match=said):
        RefinedClassifier(class_weight=weights).fit(x, y)


@pytest.mark.parametrize(
    "labels",
    [
        np.array([0, 1]),
        np.array([False, True]),
        np.array([2.0, 5.0]),
        np.array(["a", "b"]),
        np.array([b"a", b"b"]),
    ],
    ids=lambda labels: labels.dtype.str,
)
def test_files_hold_labels_of_every_type(labels, tmp_path):
    x, y, _ = table()
    y = labels[(y == "yes").astype(int)]
    model = RefinedClassifier(class_weight=dict(zip(labels.tolist(), (0.5, 6.0), strict=True))).fit(x, y)
    assert model.task_.rows == np.where(y == labels[1], 6.0, 0.5).sum()
    loaded = RefinedClassifier.load(model.save(tmp_path / "state"))
    assert loaded.class_weight == model.class_weight and equal(
        loaded.partial_fit(x, y), model.partial_fit(x, y)
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"weights": [1.0]}, "must have 2 weights; got 1"),
        ({"weights": [1.0, -1.0]}, "header.class_weight.weights must be"),
        ({"balanced": "yes"}, "header.class_weight.balanced must be true or false"),
        ({"labels": {"labels": ["b", "a"], "dtype": "object"}}, "must be different and sorted"),
        ({"more": 1}, "unknown entry"),
    ],
)
def test_a_file_of_other_weights_is_refused(change, said, tmp_path):
    x, y, _ = table(40)
    state = read_any(RefinedClassifier(class_weight=WEIGHTS).fit(x, y).save(tmp_path / "state"))
    header = {**state.header, "class_weight": state.header["class_weight"] | change}
    with pytest.raises(ValueError, match=said):
        write_table(tmp_path / "other", state.tensors, header)


# --- the command line


@pytest.fixture
def files(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    monkeypatch.chdir(tmp_path)
    for number, rows in enumerate((300, 500)):
        x, y, weight = table(rows, number)
        frame = pd.DataFrame(x, columns=[*"uvw"]).assign(count=weight.round(2), y=y)
        frame.to_csv(f"{number}.csv", index=False)


def gradatim(*words, code: int = 0) -> None:
    assert cli.main([*words, *(["--quiet"] if words[0] in ("fit", "update") else [])]) == code


def test_commands_take_weights_and_keep_them(files, capsys):
    fit = ["fit", "0.csv", "1.csv", "--target", "y"]
    gradatim(*fit, "--weight", "count", "--class-weight", "balanced", "--state", "s")
    frame = pd.concat([pd.read_csv(f"{number}.csv") for number in range(2)])
    wanted = compute_class_weight(
        "balanced", classes=np.array(["no", "yes"]), y=frame["y"], sample_weight=frame["count"]
    )
    model = RefinedClassifier.load("s")
    np.testing.assert_allclose([model.class_weight[label] for label in ("no", "yes")], wanted, rtol=1e-12)
    np.testing.assert_allclose(model.task_.rows, frame["count"].sum(), rtol=1e-12)
    gradatim("update", "0.csv", "--state", "s")
    more = frame["count"][:300] * frame["y"][:300].map(model.class_weight)
    np.testing.assert_allclose(
        RefinedClassifier.load("s").task_.rows - model.task_.rows, more.sum(), rtol=1e-9
    )
    capsys.readouterr()
    gradatim("info", "s")
    assert f"no: {wanted[0]:.4g}, yes: {wanted[1]:.4g}" in capsys.readouterr().out
    gradatim(*fit, "--class-weight", "yes:3, no:.5,yse:2", "--map-only", "--state", "base")
    assert "note: --class-weight names 'yse', of which no row was seen so far" in capsys.readouterr().out
    for number in range(2):
        gradatim("fit", f"{number}.csv", "--map", "base", "--state", f"part{number}")
    gradatim("merge", "part0", "part1", "--out", "whole")
    whole = RefinedClassifier.load("whole")
    assert whole.class_weight == {"yes": 3, "no": 0.5, "yse": 2}
    assert whole.task_.rows == np.where(frame["y"] == "yes", 3, 0.5).sum()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--class-weight", "even"], "--class-weight needs balanced, or LABEL:NUMBER,...; got 'even'"),
        (["--class-weight", "yes:0"], "got 0.0 for 'yes'"),
        (["--class-weight", "yes:1,yes:2"], "names 'yes' twice"),
        (["--class-weight", "balanced", "--target", "u"], "'u' is a number, which has no classes"),
        (["--class-weight", "balanced", "--map", "base"], "--class-weight is said when it is made"),
    ],
)
def test_options_that_cannot_be_are_refused(files, capsys, words, said):
    gradatim("fit", "0.csv", "--target", "y", "--map-only", "--state", "base")
    capsys.readouterr()
    gradatim(
        "fit", "0.csv", *([] if "--target" in words else ["--target", "y"]), "--state", "s", *words, code=2
    )
    assert said in capsys.readouterr().err


def test_a_stream_that_is_read_once_cannot_be_balanced(files, capsys, monkeypatch):
    with open("0.csv") as rows:
        monkeypatch.setattr("sys.stdin", rows)
        gradatim("fit", "-", "--target", "y", "--class-weight", "balanced", "--state", "s", code=2)
    assert (
        "standard input and pipes are read once: give the weights, such as yes:3,no:1"
        in capsys.readouterr().err
    )
