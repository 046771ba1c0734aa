"""States learned apart and merged: the sums of one pass, no row twice, one line for what does not belong together."""

import copy
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from gradatim import cli
from gradatim.estimators import RefinedClassifier
from gradatim.files.cells import BOOLEAN, NUMBER, TEXT, Cells
from gradatim.files.joined_schema import join_schemas
from gradatim.files.schema import Schema

pytest.importorskip("pyarrow")

ROWS = 240
PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "several-machines.md"


def frame(rows: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    size, width, colour = rng.normal(size=rows), rng.normal(size=rows), rng.choice(["red", "green"], rows)
    y = np.where(size + width**2 + (colour == "red") > 1, "yes", "no")
    return pd.DataFrame({"size": size, "width": width, "colour": colour, "row": range(rows), "y": y})


def gradatim(*words) -> int:
    return cli.main([str(word) for word in words])


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with a map, two parts learned under it, and both merged."""
    home = tmp_path_factory.mktemp("parts")
    for number in range(2):
        frame(ROWS, number).to_csv(home / f"{number}.csv", index=False)
    words = ["--target", "y", "--drop", "row", "--quiet"]
    assert (
        gradatim("fit", home / "0.csv", home / "1.csv", *words, "--map-only", "--state", home / "base") == 0
    )
    for number in range(2):
        state = ["--state", home / f"part{number}"]
        assert gradatim("fit", home / f"{number}.csv", "--map", home / "base", *state, "--quiet") == 0
    assert gradatim("merge", home / "part0", home / "part1", "--out", home / "whole") == 0
    return home


@pytest.fixture
def refused(capsys, home):
    """Run a command that must be refused in one line and write nothing; return the line."""

    def call(*words) -> str:
        capsys.readouterr()
        before = {path: path.read_bytes() for path in home.iterdir()}
        assert gradatim(*words) == 2
        assert {path: path.read_bytes() for path in home.iterdir()} == before
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    return call


def moments(model: RefinedClassifier):
    return model.task_.members.settle().states[0].moments


def test_the_merged_state_has_the_sums_of_one_pass_under_the_map(home, capsys):
    whole, base = (RefinedClassifier.load(home / name) for name in ("whole", "base"))
    assert base.task_.rows == 0
    for number in range(2):
        rows = frame(ROWS, number)
        base.partial_fit(rows[["size", "width", "colour"]], rows["y"].to_numpy(dtype=object))
    for name in ("gram", "cross", "squares", "rows"):
        torch.testing.assert_close(getattr(moments(whole), name), getattr(moments(base), name))
    rows = frame(2000, 7)
    right = whole.predict(rows[["size", "width", "colour"]]) == rows["y"]
    assert right.mean() > 0.9
    capsys.readouterr()
    assert gradatim("info", home / "whole") == 0
    assert re.search(r"merged +2 states, no row twice", capsys.readouterr().out)


def test_rows_that_would_count_twice_are_refused(home, tmp_path, refused):
    (tmp_path / "link").symlink_to(home / "part0")
    shutil.copy(home / "part0", tmp_path / "copy")
    out = ["--out", tmp_path / "new"]
    assert "given twice" in refused("merge", home / "part0", home / "part0", *out)
    assert "the same file as" in refused("merge", home / "part0", tmp_path / "link", *out)
    assert "hold the same rows" in refused("merge", home / "part0", tmp_path / "copy", *out)
    assert "hold the same rows" in refused("merge", home / "whole", home / "part1", *out)
    assert "at least two states" in refused("merge", home / "part0", *out)
    assert not (tmp_path / "new").exists()


def test_a_copy_that_went_on_is_known_as_one(home, tmp_path, refused):
    """Both hold the rows of one fit; each has learned more since."""
    words = ["--target", "y", "--drop", "row", "--quiet", "--state"]
    assert gradatim("fit", home / "0.csv", *words, tmp_path / "one") == 0
    shutil.copy(tmp_path / "one", tmp_path / "two")
    frame(40, 5).to_csv(tmp_path / "more.csv", index=False)
    assert gradatim("update", tmp_path / "more.csv", "--state", tmp_path / "two", "--quiet") == 0
    assert "hold the same rows" in refused(
        "merge", tmp_path / "one", tmp_path / "two", "--out", tmp_path / "new"
    )
    # under the map of the one, no row is taken: both merge
    state = ["--state", tmp_path / "fork"]
    assert gradatim("fit", home / "1.csv", "--map", tmp_path / "one", *state, "--quiet") == 0
    assert RefinedClassifier.load(tmp_path / "fork").task_.rows == ROWS
    assert gradatim("merge", tmp_path / "one", tmp_path / "fork", "--out", tmp_path / "new") == 0
    assert RefinedClassifier.load(tmp_path / "new").task_.rows == 2 * ROWS


def test_states_that_do_not_belong_together_are_refused(home, tmp_path, refused):
    frame(ROWS, 9).to_csv(tmp_path / "9.csv", index=False)
    words = ["fit", tmp_path / "9.csv", "--quiet", "--target"]
    assert gradatim(*words, "y", "--drop", "row", "--state", tmp_path / "other") == 0
    assert gradatim(*words, "width", "--drop", "row", "--state", tmp_path / "width") == 0
    out = ["--out", tmp_path / "new"]
    assert "encoded in two ways" in refused("merge", home / "part0", tmp_path / "other", *out)
    assert "another target, 'width' and 'y'" in refused("merge", home / "part0", tmp_path / "width", *out)
    assert "holds a checkpoint" not in refused("merge", home / "part0", home / "0.csv", *out)
    assert "already exists" in refused("merge", home / "part0", home / "part1", "--out", home / "whole")
    line = refused("merge", home / "part0", home / "part1", "--out", home / "part1", "--force")
    assert "is an input file" in line
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--target", "size"], "--target size must be its target, 'y'"),
        (["--task", "regression"], "--task regression must be its task, classification"),
        (["--columns", "size"], "--columns must be its columns; 'colour' is in one alone"),
        (["--text", "size"], "--text size must be a column that it reads as words"),
        (["--classes", "yes,no,never"], "--classes names 'never'"),
        (["--seed", "3"], "--seed 3 must be its own, 0"),
        (["--drop", "size"], "the state needs this column"),
        (["--map-only"], "--map takes the map of a state"),
    ],
)
def test_options_that_contradict_the_map_are_refused(home, tmp_path, refused, words, said):
    line = refused("fit", home / "0.csv", "--map", home / "base", "--state", tmp_path / "new", *words)
    assert said in line


def test_options_that_agree_with_the_map_are_taken(home, tmp_path):
    words = ["--target", "y", "--columns", "colour,size,width", "--text", "colour", "--drop", "row"]
    more = ["--classes", "no", "--task", "classification", "--id", "row", "--quiet"]
    state = ["--state", tmp_path / "new"]
    assert gradatim("fit", home / "0.csv", "--map", home / "base", *words[:-2], *more, *state) == 0


def test_rows_of_a_file_weigh_as_reweigh_does(home, tmp_path):
    parts = [home / "part0", home / "part1"]
    assert gradatim("merge", *parts, "--weigh", home / "0.csv", "--out", tmp_path / "new") == 0
    model, rows = RefinedClassifier.load(home / "whole"), frame(ROWS, 0)
    model.reweigh(rows[["size", "width", "colour"]], rows["y"].to_numpy(dtype=object))
    x = frame(50, 3)[["size", "width", "colour"]]
    weighed = RefinedClassifier.load(tmp_path / "new").predict_proba(x)
    np.testing.assert_allclose(weighed, model.predict_proba(x), atol=1e-9)


def test_merged_parts_and_one_pass_answer_alike_once_the_same_rows_weigh_them():
    rows, x = frame(800, 0), frame(50, 3)[["size", "width"]].to_numpy()
    X, y = rows[["size", "width"]].to_numpy(), rows["y"].to_numpy(dtype=object)
    base = RefinedClassifier().partial_fit(X[:256], y[:256])
    parts = [base.fork().partial_fit(X[at : at + 68], y[at : at + 68]) for at in range(256, 800, 68)]
    whole = RefinedClassifier().partial_fit(X[:256], y[:256]).partial_fit(X[256:], y[256:])
    for part in parts:
        base.merge(part)
    answers = [model.reweigh(X[:256], y[:256]).predict_proba(x) for model in (base, whole)]
    np.testing.assert_allclose(*answers, atol=1e-9)


def test_rows_that_weigh_count_as_they_are_and_a_row_of_weight_two_as_two():
    rows = frame(800, 0)
    X, y = rows[["size", "width"]].to_numpy(), rows["y"].to_numpy(dtype=object)
    model = RefinedClassifier().partial_fit(X, y)

    def found(*arguments, **options) -> torch.Tensor:
        weighed = copy.deepcopy(model).reweigh(*arguments, **options)
        return weighed.task_.members.states[0].log_likelihood

    once = found(X[:64], y[:64])
    torch.testing.assert_close(found(X[:64], y[:64], n_rows=64), once)
    torch.testing.assert_close(found(X[:64], y[:64], n_rows=800), 800 / 64 * once)
    torch.testing.assert_close(found(X[:64], y[:64], np.full(64, 2.0)), 2 * once)


def test_a_class_that_one_part_finds_is_kept():
    rows = frame(ROWS, 0)
    x, y = rows[["size", "width"]].to_numpy(), rows["y"].to_numpy(dtype=object)
    base = RefinedClassifier().prepare(x, y, classes=["no", "yes"])
    late = y.copy()
    late[:40] = "maybe"
    one, two = base.fork().partial_fit(x[:120], late[:120]), base.fork().partial_fit(x[120:], y[120:])
    whole = base.fork().partial_fit(x, np.concatenate([late[:120], y[120:]]))
    two.merge(one)
    assert one.classes_.tolist() == two.classes_.tolist() == ["maybe", "no", "yes"]
    torch.testing.assert_close(moments(two).cross, moments(whole).cross)


SCHEMA = Schema("y", "classification", Cells(NUMBER), {"x": Cells(NUMBER), "z": Cells(NUMBER)}, ("z",))


def joined(first: Schema, second: Schema):
    return join_schemas([first, second], [Path("a"), Path("b")])


def test_schemas_are_joined():
    first = SCHEMA.__class__(**{**vars(SCHEMA), "dropped": ("row", "day"), "spelling": {"1": "1.0"}})
    more = {"columns": {"x": Cells(NUMBER), "z": Cells(BOOLEAN)}, "empty": (), "weight": "day"}
    second = SCHEMA.__class__(
        **{**vars(SCHEMA), **more, "dropped": ("note",), "spelling": {"1": "1", "2": "2"}}
    )
    schema, notes = joined(first, second)
    assert (schema.columns["z"].kind, schema.empty, notes) == (BOOLEAN, (), [])
    assert (schema.dropped, schema.weight) == (("row", "note"), "day")  # a weight is not dropped
    assert schema.spelling == {"1": "1.0", "2": "2"}
    _, notes = joined(second, SCHEMA.__class__(**{**vars(second), "weight": "count"}))
    assert notes == ["--weight was 'day' in a, 'count' in b: it stays 'day'"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"target": "w"}, "b and a have another target, 'w' and 'y'"),
        ({"task": "regression"}, "b and a have another task"),
        ({"columns": {"x": Cells(NUMBER)}, "empty": ()}, "have other columns; 'z' is in one alone"),
        ({"columns": {"z": Cells(NUMBER), "x": Cells(NUMBER)}}, "in another order"),
        ({"columns": {"x": Cells(TEXT), "z": Cells(NUMBER)}}, "read column 'x' as text and numbers"),
        ({"target_cells": Cells(TEXT)}, "read column 'y' as text and numbers"),
        ({"reading": {"decimal": ","}}, "have other options of reading"),
    ],
)
def test_schemas_of_other_tables_are_refused(change, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        joined(SCHEMA, SCHEMA.__class__(**{**vars(SCHEMA), **change}))


@pytest.mark.skipif(sys.platform == "win32", reason="the page's commands are those of a POSIX shell")
def test_the_commands_of_the_page_run_in_two_processes(tmp_path):
    (tmp_path / "days").mkdir()
    for number in range(3):
        frame(64, number).to_csv(tmp_path / "days" / f"{number}.csv", index=False)
    program = tmp_path / "bin" / "gradatim"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m gradatim "$@"\n')
    program.chmod(0o755)
    commands = PAGE.read_text(encoding="utf-8").partition("```bash\n")[2].partition("```")[0]
    assert "xargs -P 2" in commands
    env = {**os.environ, "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", "-ec", commands], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    assert "192 rows of 2 classes in 3 states merged" in done.stdout
    assert "3 states, no row twice" in done.stdout
