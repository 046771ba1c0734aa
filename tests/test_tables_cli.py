"""Tables at the command line: a file in blocks is a table in memory, a kill leaves a whole state, a fault is a line."""

import json
import os
import random
import re
import signal
import struct
import subprocess
import sys
import time
import tracemalloc
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from gradatim import cli
from gradatim.commands import fit
from gradatim.estimators import RefinedClassifier, RefinedRegressor
from gradatim.files import predicting, reading, streaming
from gradatim.files.cells import Cells
from gradatim.files.checkpoint import read, write
from gradatim.files.choice import Choice
from gradatim.files.progress import Bar
from gradatim.files.schema import Schema

pa = pytest.importorskip("pyarrow")
pytest.importorskip("pyarrow.parquet")  # a module that pyarrow does not import by itself

FIRST, MORE = 320, 96  # whole mini-batches of 32


def frame(rows: int, seed: int) -> pd.DataFrame:
    """A table of every kind of column, with missing values."""
    rng = np.random.default_rng(seed)
    size, colour = rng.normal(size=rows), rng.choice(["red", "green", "blue"], rows).astype(object)
    value = 3 * size + (colour == "red")
    size[rng.random(rows) < 0.1] = np.nan
    colour[rng.random(rows) < 0.1] = None
    days = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 100, rows), unit="D")
    columns = {"size": size, "count": rng.integers(0, 9, rows), "colour": colour, "day": days}
    columns |= {"sold": rng.random(rows) > 0.5, "price": value, "kind": np.where(value > 0.3, "a", "b")}
    return pd.DataFrame(columns)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with files, and the states of a classification and a regression."""
    home = tmp_path_factory.mktemp("tables")
    first, more = frame(FIRST, 0), frame(MORE, 1)
    for name, table in (("first", first), ("more", more), ("both", pd.concat([first, more]))):
        table.to_csv(home / f"{name}.csv", index=False)
        table.to_parquet(home / f"{name}.parquet", index=False)
    for target, other, state in (("kind", "price", "kind"), ("price", "kind", "price")):
        words = ["--target", target, "--drop", other, "--state", home / f"{state}.safetensors"]
        assert gradatim("fit", home / "first.csv", *words) == 0
    return home


@pytest.fixture
def state(home, tmp_path) -> Path:
    """A classification's state that a test may spoil."""
    path = tmp_path / "state.safetensors"
    path.write_bytes((home / "kind.safetensors").read_bytes())
    return path


def gradatim(*arguments) -> int:
    return cli.main([str(argument) for argument in arguments])


def call(capsys, *arguments) -> str:
    """Run main, which must go well without a word on stderr; return what it said."""
    capsys.readouterr()
    code = gradatim(*arguments)
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    return out


def refusal(capsys, *arguments, code: int = 2) -> str:
    """Run main, which must refuse in one line on stderr; return the line."""
    capsys.readouterr()
    got = gradatim(*arguments)
    err = capsys.readouterr().err
    assert (got, err.count("\n")) == (code, 1), err
    assert err.startswith("gradatim: ") and "Traceback" not in err and len(err) < 400
    return err


def same(one: Path, other: Path) -> bool:
    """Return whether two states hold the same numbers, up to the order of sums in float32, and the same map."""
    (a, head), (b, tail) = read(one), read(other)
    if a.keys() != b.keys() or head["map"] != tail["map"]:
        return False
    return all(torch.allclose(a[k], b[k], rtol=1e-6, atol=1e-6) for k in a)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("target", ["kind", "price"])
def test_blocks_of_a_file_are_one_partial_fit_in_memory(capsys, home, tmp_path, monkeypatch, suffix, target):
    monkeypatch.setattr(reading, "BLOCK_BYTES", 700)  # some ten rows
    monkeypatch.setattr(reading, "BATCH_ROWS", 10)
    classes = ["--classes", "b,a"] if target == "kind" else []
    other = {"kind": "price", "price": "kind"}[target]
    words = ["--target", target, "--drop", other, "--state", tmp_path / "file", *classes]
    out = call(capsys, "fit", home / f"both.{suffix}", *words)
    table = pd.read_parquet(home / "both.parquet")
    X, y = table.drop(columns=["kind", "price"]), table[target]
    model, y = (
        (RefinedClassifier(), y.to_numpy(dtype=object)) if target == "kind" else (RefinedRegressor(), y)
    )
    model.prepare(X, y).predict_then_learn(X, y)
    model.reweigh(X, y).save(tmp_path / "memory")
    assert same(tmp_path / "file", tmp_path / "memory")
    judged = FIRST + MORE - 32
    assert f"{FIRST + MORE} rows" in out and f": {judged} rows, each predicted before it was learned" in out


def test_what_is_said_is_the_prequential_accuracy(capsys, home, tmp_path):
    """While less than eight mini-batches are known a piece is one mini-batch: the score is that of `predict` before."""
    table = pd.read_csv(home / "first.csv", parse_dates=["day"])[:256]
    table.to_csv(tmp_path / "few.csv", index=False)
    out = call(capsys, "fit", tmp_path / "few.csv", "--target", "kind", "--state", tmp_path / "state")
    X, y = table.drop(columns="kind"), table["kind"].to_numpy(dtype=object)
    model, right = RefinedClassifier().prepare(X, y).partial_fit(X[:32], y[:32]), 0
    for start in range(32, 256, 32):
        part = slice(start, start + 32)
        right += int((model.predict(X[part]) == y[part]).sum())
        model.partial_fit(X[part], y[part])
    assert f"prequential accuracy {right / 224:.4f}: 224 rows" in out


@pytest.mark.parametrize("target", ["kind", "price"])
def test_fit_and_update_are_a_fit_on_both_files(capsys, home, tmp_path, target):
    """The mini-batches are the same; but saving solves for the heads once more, and those then score the next rows."""
    made, whole = tmp_path / "made", tmp_path / "whole"
    drop = {"kind": "price", "price": "kind"}[target]
    call(capsys, "update", home / "more.parquet", "--state", home / f"{target}.safetensors", "--out", made)
    call(capsys, "fit", home / "both.csv", "--target", target, "--drop", drop, "--state", whole)
    X, more = frame(50, 2).drop(columns=["kind", "price"]), frame(MORE, 1)
    estimator = {"kind": RefinedClassifier, "price": RefinedRegressor}[target]
    python = estimator.load(home / f"{target}.safetensors")
    python.partial_fit(more.drop(columns=["kind", "price"]), more[target].to_numpy()).save(
        tmp_path / "python"
    )
    one, two, three = (
        getattr(estimator.load(path), "predict_proba" if target == "kind" else "predict")(X)
        for path in (made, whole, tmp_path / "python")
    )
    np.testing.assert_allclose(one, three, atol=1e-6)
    # the map is that of the first file or of both, and the weights of the experts follow from one or the other
    assert np.abs(one - two).mean() < 0.1 * one.std()
    assert read(made)[1]["rows"] == FIRST + MORE
    assert "already exists" in refusal(capsys, "update", home / "more.csv", "--state", whole, "--out", made)


def test_predictions_are_those_of_python(capsys, home, tmp_path, monkeypatch):
    """Up to rounding: rows are answered 40 at a time here, and the last bit depends on how many."""
    monkeypatch.setattr(predicting, "PREDICT_ROWS", 40)
    table = frame(100, 3)
    X = table.drop(columns=["kind", "price"])
    table.to_csv(tmp_path / "test.csv", index=False)
    X.to_parquet(tmp_path / "test.parquet")
    model = RefinedClassifier.load(home / "kind.safetensors")
    words = ["--state", home / "kind.safetensors", "--out"]
    for suffix in ("csv", "parquet"):  # with the target and dropped columns, and without
        out = tmp_path / f"out.{suffix}"
        said = call(capsys, "predict", tmp_path / f"test.{suffix}", *words, out, "--proba")
        got = pd.read_csv(out) if suffix == "csv" else pd.read_parquet(out)
        assert list(got) == ["prediction", "proba_a", "proba_b"] and f"wrote {out}" in said
        np.testing.assert_allclose(got[["proba_a", "proba_b"]], model.predict_proba(X), rtol=1e-9)
        assert (got["prediction"] == model.predict(X)).all()
    call(capsys, "predict", tmp_path / "test.csv", *words, out)
    assert list(pd.read_parquet(out)) == ["prediction"]
    words = ["--state", home / "price.safetensors", "--out", tmp_path / "out.csv"]
    call(capsys, "predict", tmp_path / "test.csv", *words, "--quantiles", "0.1,0.9")
    got, regressor = pd.read_csv(tmp_path / "out.csv"), RefinedRegressor.load(home / "price.safetensors")
    assert list(got) == ["prediction", "quantile_0.1", "quantile_0.9"]
    np.testing.assert_allclose(got["prediction"], regressor.predict(X), rtol=1e-9)
    levels = regressor.predict(X, quantiles=[0.1, 0.9])
    np.testing.assert_allclose(got[["quantile_0.1", "quantile_0.9"]], levels, rtol=1e-6)


def test_columns_are_put_right_by_name(capsys, home, tmp_path):
    table, words = frame(64, 4), ["--state", home / "kind.safetensors", "--out"]
    answers = []
    for number, names in enumerate((list(table), sorted(table))):
        table[names].to_csv(tmp_path / "file.csv", index=False)
        call(capsys, "predict", tmp_path / "file.csv", *words, tmp_path / "out.csv", "--proba")
        call(capsys, "update", tmp_path / "file.csv", *words, tmp_path / f"{number}")
        answers.append((tmp_path / "out.csv").read_bytes())
    assert answers[0] == answers[1] and same(tmp_path / "0", tmp_path / "1")


def test_whole_numbers_may_get_fractions_and_cells_may_be_missing(capsys, tmp_path):
    rows = "".join(f"{i % 7},{'xyz'[i % 3]},{i % 2}\n" for i in range(64))
    (tmp_path / "first.csv").write_text("n,word,y\n" + rows)
    (tmp_path / "more.csv").write_text("y;word;n\n1;x;0.5\n0;?;\n1;new;1e3\n0;NA;3\n")
    state = tmp_path / "state"
    call(capsys, "fit", tmp_path / "first.csv", "--target", "y", "--state", state)
    before = state.read_bytes()
    assert "4 rows of 2 classes" in call(capsys, "update", tmp_path / "more.csv", "--state", state)
    assert state.read_bytes() != before
    assert RefinedClassifier.load(state).classes_.tolist() == [0, 1]
    arrow_table = pa.table({"n": pa.array([1], pa.int8()), "word": pa.array(["x"]).dictionary_encode()})
    pa.parquet.write_table(arrow_table, tmp_path / "one.parquet")
    call(capsys, "predict", tmp_path / "one.parquet", "--state", state, "--out", tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() in ("prediction\n0\n", "prediction\n1\n")


def test_zipped_files_and_new_classes(capsys, tmp_path):
    rows = pd.DataFrame({"x": np.arange(64) % 5, "y": ["no", "yes"] * 32})
    rows.to_csv(tmp_path / "first.csv.gz", index=False)
    rows.assign(y="perhaps").to_csv(tmp_path / "more.csv", index=False)
    state = tmp_path / "state"
    call(capsys, "fit", tmp_path / "first.csv.gz", "--target", "y", "--state", state)
    assert "of 3 classes" in call(capsys, "update", tmp_path / "more.csv", "--state", state)
    assert RefinedClassifier.load(state).classes_.tolist() == ["no", "perhaps", "yes"]


def test_rows_without_a_target_are_skipped_and_counted(capsys, tmp_path):
    rows = [f"{i % 7},{i % 3},{i * i % 11 / 4}" for i in range(70)]
    full = [f"{i}.5,{i},NA" if i % 10 == 4 else row for i, row in enumerate(rows)]
    for name, lines in (("full", full), ("kept", [r for i, r in enumerate(rows) if i % 10 != 4])):
        (tmp_path / f"{name}.csv").write_text("\n".join(["a,b,y", *lines]))
        out = call(capsys, "fit", tmp_path / f"{name}.csv", "--target", "y", "--state", tmp_path / name)
        assert out.startswith("regression: 'y' is a number") and "63 rows learned" in out
        assert ("7 rows without 'y' skipped" in out) == (name == "full")
    assert same(tmp_path / "full", tmp_path / "kept")


def steps(first: int, step: int, n_values: int, rows: int) -> list[int]:
    return [first + step * (i % n_values) for i in range(rows)]


TARGETS = {
    "words": (["a", "b"], "auto", ["a", "b"]),
    "two whole numbers": ([3, 1], "auto", [1, 3]),
    "two whole numbers with points": ([1.0, 2.0], "auto", [1, 2]),
    "truth": ([True, False], "auto", [False, True]),
    "fractions": ([0.5, 1.0], "auto", None),
    "digits": (steps(0, 1, 10, 40), "auto", list(range(10))),
    "stars": ([1, 2, 3, 4, 5, 3, 2, 1, 4, 5], "auto", [1, 2, 3, 4, 5]),
    "grades with a gap": ([3, 5, 7, 8] * 3, "auto", [3, 5, 7, 8]),
    "negative and positive": ([-1, 0, 1] * 3, "auto", [-1, 0, 1]),
    "letters by number": (steps(1, 1, 26, 26 * 20), "auto", list(range(1, 27))),
    "each number once": (list(range(9)), "auto", None),
    "masses in steps": (steps(2700, 25, 52, 240), "auto", None),
    "few masses in steps": (steps(2700, 25, 8, 240), "auto", None),
    "years": (steps(1970, 1, 40, 4000), "auto", None),
    "few years": (steps(2015, 1, 6, 600), "auto", None),
    "ages": (steps(18, 1, 60, 6000), "auto", None),
    "prices": ([99, 149, 199, 249, 499, 999, 1299, 1499, 1999, 2499, 2999, 3999] * 9, "auto", None),
    "counts with a tail": ([0] * 50 + [1] * 30 + [2] * 9 + [3] * 4 + [4, 7], "auto", None),
    "many numbers": (list(range(101)), "auto", None),
    "many numbers as classes": (list(range(101)), "classification", list(range(101))),
    "two numbers as numbers": ([1, 2], "regression", None),
}


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize(("values", "task", "classes"), TARGETS.values(), ids=TARGETS)
def test_the_task_follows_from_the_target(tmp_path, values, task, classes, suffix):
    table = pd.DataFrame({"x": 0, "y": list(values)})
    path = tmp_path / f"file.{suffix}"
    table.to_csv(path, index=False) if suffix == "csv" else table.to_parquet(path, index=False)
    source = reading.open_table(path)
    schema = Schema.infer(source, Choice("y", task))
    assert schema.task == ("regression" if classes is None else "classification")
    if classes is not None:
        labels = np.unique(fit.learnable_sample(source, schema)[1])
        kind = {str: "O", int: "i", bool: "b"}[type(classes[0])]
        assert labels.tolist() == classes and labels.dtype.kind == kind


GOOD = "a,b,y\n1,red,0\n2,blue,1\n"
TOLD = {
    "a file that is not there": (None, "fit FILE", "does not exist"),
    "an empty file": (b"", "fit FILE", "is empty"),
    "names alone": (b"a,b,y\n", "fit FILE", "no rows"),
    "names alone, unended": (b"a,b,y", "fit FILE", "no rows"),
    "bytes that are no text": (b"a,b,y\n1,\xff\xfe,0\n", "fit FILE", "is not UTF-8 text (about byte 9)"),
    "a line too short": (b"a,b,y\n1,red,0\n2,blue\n", "fit FILE", "line 3: expected 3 columns, got 2"),
    "no such target": (b"a,b,Y\n1,2,0\n", "fit FILE", "no column 'y' (--target): did you mean 'Y'?"),
    "no such column": (GOOD.encode(), "fit FILE --drop c", "no column 'c' (--drop): it has 'a', 'b', 'y'"),
    "nothing to learn from": (GOOD.encode(), "fit FILE --drop a,b", "no column besides the target"),
    "a target never there": (b"a,b,y\n1,2,\n", "fit FILE", "the target 'y' is missing in every row"),
    "dates to predict": (b"a,y\n1,2024-01-01\n", "fit FILE", "the target 'y' holds dates"),
    "words as numbers": (b"a,y\n1,x\n", "fit FILE --task regression", "holds words"),
    "fractions as classes": (b"a,y\n1,0.5\n", "fit FILE --task classification", "whole numbers; got 0.5"),
    "names as classes": (
        b"a,y\n" + b"".join(b"1,n%d\n" % i for i in range(1001)),
        "fit FILE",
        "has 1,001 classes, more than 1,000",
    ),
    "an unknown task": (GOOD.encode(), "fit FILE --task rank", "auto, classification, regression"),
    "no batch": (GOOD.encode(), "fit FILE --batch-size 0", "--batch-size must be at least 1"),
    "classes of words": (GOOD.encode(), "fit FILE --classes x,z", "the target 'y' holds numbers"),
    "a zip that is none": (b"a,y\n1,2\n", "fit FILE.gz", "cannot be read"),
    "Parquet that is none": (b"a,y\n1,2\n", "fit FILE.parquet", "is not a Parquet file"),
    "a missing column": (
        b"size,count,colour,day,kind\n1,1,red,2024-01-01,a\n",
        "update FILE",
        "column 'sold', which",
    ),
    "no target": (
        b"size,count,colour,day,sold\n1,1,red,2024-01-01,true\n",
        "update FILE",
        "column 'kind', the target, is missing",
    ),
    "quantiles of classes": (
        GOOD.encode(),
        "predict FILE --quantiles 0.5",
        "--quantiles is for a regression",
    ),
    "no quantile": (GOOD.encode(), "predict FILE --quantiles 50", "numbers between 0 and 1"),
    "no known suffix": (
        GOOD.encode(),
        "predict FILE --out out.txt",
        ".csv, .parquet, .jsonl, .arrow, or be -",
    ),
    "itself": (GOOD.encode(), "predict FILE --out FILE", "is an input file"),
}


@pytest.mark.parametrize(("content", "words", "said"), TOLD.values(), ids=TOLD)
def test_a_fault_is_one_line_and_nothing_is_lost(capsys, state, monkeypatch, content, words, said):
    monkeypatch.chdir(state.parent)
    suffix = next((s for s in (".gz", ".parquet") if f"FILE{s}" in words), "")
    if content is not None:
        Path(f"file.csv{suffix}").write_bytes(content)
    before = {path.name: path.read_bytes() for path in Path().iterdir()}
    command, *rest = words.replace("FILE", "file.csv").split()
    rest += ["--target", "y", "--state", "new"] if command == "fit" else ["--state", state.name]
    rest += ["--out", "out.csv"] if command == "predict" and "--out" not in rest else []
    assert said in refusal(capsys, command, *rest)
    assert {path.name: path.read_bytes() for path in Path().iterdir()} == before


def test_odd_cells_of_later_files_are_missing_and_noted(capsys, home, state, tmp_path):
    rows = "size,count,colour,day,sold,kind\n1,1,red,2024-01-01,true,a\nbig,1,red,soon,perhaps,b\n"
    (tmp_path / "file.csv").write_text(rows)
    (tmp_path / "empty.csv").write_text(re.sub("big|soon|perhaps", "", rows))
    answers = []
    for name, count in (("file", 3), ("empty", 0)):
        words = [tmp_path / f"{name}.csv", "--state", state, "--out"]
        out = call(capsys, "predict", *words, tmp_path / "out.csv", "--proba")
        assert [f"{word!r} in line 3" in out for word in ("big", "soon", "perhaps")] == [count > 0] * 3
        assert out.count("note: ") == count
        call(capsys, "update", *words, tmp_path / name)
        answers.append((tmp_path / "out.csv").read_bytes())
    assert answers[0] == answers[1] and same(tmp_path / "file", tmp_path / "empty")


def test_a_parquet_column_of_another_type_is_named(capsys, state, tmp_path):
    table = frame(5, 0).drop(columns=["price"])
    for column, values, said in (
        ("day", range(5), "column 'day' holds dates so far; got numbers"),
        ("size", pd.to_datetime(["2024-01-01"] * 5), "column 'size' holds numbers so far; got dates"),
        ("count", [[1, 2]] * 5, "column 'count' is of type list"),
    ):
        table.assign(**{column: values}).to_parquet(tmp_path / "file.parquet")
        before = state.read_bytes()
        assert said in refusal(capsys, "update", tmp_path / "file.parquet", "--state", state)
        assert state.read_bytes() == before


def test_a_damaged_parquet_file_is_named(capsys, home, tmp_path):
    whole = (home / "first.parquet").read_bytes()
    for content in (whole[:-100], whole[:4] + bytes(60) + whole[64:]):
        (tmp_path / "file.parquet").write_bytes(content)
        words = ["--target", "kind", "--state", tmp_path / "state"]
        assert "file.parquet cannot be read, " in refusal(capsys, "fit", tmp_path / "file.parquet", *words)
    assert not (tmp_path / "state").exists()


def test_a_state_that_cannot_be_used_is_refused(capsys, home, state, tmp_path):
    whole = state.read_bytes()
    tensors, header = read(state)
    length = struct.unpack("<Q", whole[:8])[0]
    newer = whole[8 : 8 + length].replace(b'\\"gradatim_format\\": 2', b'\\"gradatim_format\\": 9')
    other = {**header, "estimator": "RefinedRanker"}
    for content, said in (
        (b"a,b\n1,2\n", "is not a file of gradatim"),
        (whole[: len(whole) // 2], "is truncated"),
        (whole[:8] + newer + whole[8 + length :], "format version 9; this gradatim reads 1, 2: upgrade"),
        (write(tmp_path / "w", tensors, {"kind": "state"}).read_bytes(), "not one of a table"),
        (write(tmp_path / "w", tensors, other).read_bytes(), "RefinedRanker"),
        (RefinedClassifier.load(state).save(tmp_path / "w").read_bytes(), "gradatim fit did not make it"),
    ):
        state.write_bytes(content)
        assert said in refusal(capsys, "update", home / "more.csv", "--state", state)
        out = tmp_path / "out.csv"
        assert said in refusal(capsys, "predict", home / "more.csv", "--state", state, "--out", out)
        assert state.read_bytes() == content and not out.exists()
    assert "cannot be read" in refusal(capsys, "update", home / "more.csv", "--state", tmp_path / "none")


def test_a_state_is_not_overwritten_unasked(capsys, home, state):
    words = ["fit", home / "first.csv", "--target", "kind", "--state", state]
    before = state.read_bytes()
    assert "gradatim update" in refusal(capsys, *words) and state.read_bytes() == before
    call(capsys, *words, "--force")
    assert state.read_bytes() != before
    line = refusal(capsys, "fit", state, "--target", "kind", "--state", state, "--force")
    assert "is an input file" in line


def test_an_interruption_says_what_it_left(capsys, home, state, tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    before = state.read_bytes()
    monkeypatch.setattr(RefinedClassifier, "predict_then_learn", interrupted)
    line = refusal(capsys, "update", home / "more.csv", "--state", state, code=130)
    assert "is unchanged" in line and state.read_bytes() == before
    words = ["--target", "kind", "--state", tmp_path / "new"]
    assert "was not written" in refusal(capsys, "fit", home / "first.csv", *words, code=130)
    monkeypatch.setattr(RefinedClassifier, "predict_proba", interrupted)
    words = ["--state", state, "--out", tmp_path / "out.csv"]
    assert "was not written" in refusal(capsys, "predict", home / "more.csv", *words, code=130)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state.safetensors"]


def test_a_state_that_changes_meanwhile_is_left_alone(capsys, home, state, monkeypatch):
    learn = fit.fit_stream

    def slow(*arguments, **options):
        told = learn(*arguments, **options)
        state.write_bytes(b"another's")
        return told

    monkeypatch.setattr(fit, "fit_stream", slow)
    assert "changed by another process" in refusal(capsys, "update", home / "more.csv", "--state", state)
    assert state.read_bytes() == b"another's"


def test_rows_out_of_range_are_noted(capsys, home, state, tmp_path):
    far = frame(64, 5).assign(size=1e6)
    far.to_csv(tmp_path / "far.csv", index=False)
    out = call(capsys, "update", tmp_path / "far.csv", "--state", state)
    assert out.count("note: ") == 1 and "'size'" in out


def test_info_says_what_is_known_of_a_table(capsys, home):
    out = call(capsys, "info", home / "kind.safetensors")
    said = {}
    for line in filter(str.strip, out.splitlines()):
        said.setdefault(line.split()[0], " ".join(line.split()[1:]))
    assert said["estimator"] == "RefinedClassifier" and said["rows"] == str(FIRST)
    assert said["classes"] == "2: a, b" and said["target"] == "kind (classification)"
    assert said["dropped"] == "price" and re.search(r"[kM]B", out) and "state, format version" in out
    assert said["columns"] == "5: number (2), text (1), date (1), boolean (1)" and "fixed" in said["map"]
    assert said["colour"] == "text: 3 levels of 7 (blue, green, red)"
    assert said["day"].startswith("date: 2024-01-01T00:00:00 to 2024-04-")
    assert "centre" in out


def test_without_pyarrow_the_line_says_what_to_install(capsys, home, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    words = ["--target", "kind", "--state", home / "none"]
    assert 'pip install "gradatim[data]"' in refusal(capsys, "fit", home / "first.csv", *words)


class Counter:
    """An estimator that counts rows: what is left is the memory of reading."""

    batch_size, rows = 32, 0

    def predict_then_learn(self, X, y, classes=None):
        assert len(X) == len(y) <= streaming.CHUNK_ROWS
        self.rows += len(y)
        return np.zeros(len(X))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_memory_does_not_grow_with_the_file(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(reading, "BLOCK_BYTES", 1 << 16)  # 32 of them are read ahead
    rows = 200_000
    x = np.random.default_rng(0).normal(size=(rows, 8)).round(6)
    table = pa.table({**{f"x{j}": x[:, j] for j in range(8)}, "y": x[:, 0]})
    path = tmp_path / f"file.{suffix}"
    if suffix == "csv":
        pa.csv.write_csv(table, path)
    else:
        pa.parquet.write_table(table, path, row_group_size=10_000)
    del table
    source = reading.open_table(path)
    schema, model = Schema.infer(source, Choice("y")), Counter()
    pool, most = pa.default_memory_pool(), [0]
    resting = pool.bytes_allocated()

    class Gauge(Bar):
        def update(self, share, status):
            most[0] = max(most[0], pool.bytes_allocated() - resting)

    tracemalloc.start()
    told = streaming.fit_stream(model, source, schema, schema.labels(), 0, Gauge(False, "learning"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert told.rows == model.rows == rows and told.scored == rows - 32
    np.testing.assert_allclose(told.total_loss, np.square(x[32:, 0]).sum())
    assert most[0] < 0.4 * x.nbytes and peak < 0.4 * x.nbytes  # 12.8 MB whole


SERVER = """
import os, sys
import gradatim.estimators, pyarrow.csv, pyarrow.parquet
from gradatim import cli
print("ready", flush=True)
for line in sys.stdin:
    moment, *words = line.split()
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        replace = os.replace
        def killed(*paths):
            if moment == "after":
                replace(*paths)
            os.kill(os.getpid(), 9)
        if moment != "random":
            os.replace = killed
        os._exit(cli.main(words))
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


def test_a_killed_update_leaves_the_old_state_or_the_new_one(state, tmp_path):
    """Kills at random moments, and just before and after the new state takes its place."""
    old, more = state.read_bytes(), tmp_path / "more.csv"
    frame(600, 6).to_csv(more, index=False)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    with subprocess.Popen([sys.executable, "-c", SERVER], **pipes) as server:

        def update(moment: str, seconds: float | None = None) -> int:
            state.write_bytes(old)
            server.stdin.write(f"{moment} update {more} --state {state} --quiet\n")
            server.stdin.flush()
            child = int(server.stdout.readline())
            if seconds is not None:
                time.sleep(seconds)
                with suppress(ProcessLookupError):  # it has ended
                    os.kill(child, signal.SIGKILL)
            return int(server.stdout.readline())

        assert server.stdout.readline() == "ready\n"
        begun = time.perf_counter()
        assert update("random") == 0
        whole, new = time.perf_counter() - begun, state.read_bytes()
        assert new != old
        assert update("before") == signal.SIGKILL and state.read_bytes() == old
        assert update("after") == signal.SIGKILL and state.read_bytes() == new
        stream, ends = random.Random(0), []
        for _ in range(5):
            ends.append(update("random", whole * stream.uniform(0.05, 1)))
            assert state.read_bytes() in (old, new)
        server.stdin.close()
    assert ends.count(signal.SIGKILL) >= 1  # how many are in time depends on the machine


def test_a_layout_is_plain_json(home):
    header = read(home / "kind.safetensors")[1]
    schema = Schema.from_json(header, "state")
    assert Schema.from_json({"table": json.loads(json.dumps(schema.to_json()))}, "state") == schema
    assert (schema.target, schema.task, schema.target_cells) == ("kind", "classification", Cells("text"))
    kinds = {"size": "number", "count": "number", "colour": "text", "day": "date", "sold": "boolean"}
    assert {name: cells.kind for name, cells in schema.columns.items()} == kinds
    assert (schema.dropped, schema.empty, schema.id, schema.weight) == (("price",), (), None, None)


def test_layouts_of_older_states_are_read():
    columns = {"size": "number", "day": "zoned", "colour": "text", "sold": "boolean"}
    table = {
        "target": "kind",
        "task": "classification",
        "target_kind": "text",
        "columns": columns,
        "dropped": ["a"],
    }
    schema = Schema.from_json({"table": table}, "state")
    assert schema.columns == {**{n: Cells(k) for n, k in columns.items()}, "day": Cells("date")}
    assert (schema.target_cells, schema.dropped, schema.id) == (Cells("text"), ("a",), None)
    for name, value in (("columns", {"a": "colour"}), ("task", "auto"), ("columns", None), ("id", 3)):
        with pytest.raises(ValueError, match="gradatim fit did not make it"):
            Schema.from_json({"table": {**table, name: value}}, "state")
