"""`gradatim info`: what a file holds of single rows, and with --check whether files are whole."""

import numpy as np
import pandas as pd
import pytest
import torch

from gradatim import LinearRegression, RefinedClassifier, build, save_state
from gradatim.cli import main
from gradatim.files.checkpoint import read, write
from mutants import joined, parts_of, signed, unsigned
from test_damaged_files import table
from test_old_files import copied


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    RefinedClassifier().partial_fit(*table(40)).save(folder / "early")
    RefinedClassifier().partial_fit(*table(300)).save(folder / "table")
    family = LinearRegression(3)
    task = family.sample(2, torch.Generator().manual_seed(0))
    for name in ("ridge", "smoother"):
        learner = build(name, family)
        save_state(folder / name, learner.adapt(task.support, 16), learner)
    write(folder / "run", *read(copied("checkpoint", folder)))
    return folder


def call(capsys, *words):
    """Return the code, what was printed, and the one line of a refusal."""
    code = main([str(word) for word in words])
    printed = capsys.readouterr()
    return code, " ".join(printed.out.split()), printed.err


def test_it_says_how_many_rows_are_stored_as_they_came(capsys, home):
    for name, said in (
        (
            "early",
            "stored rows 40, as they came: they are dropped when the map is fixed stored values the lowest",
        ),
        (
            "table",
            "stored rows none as they came: sums over rows stored values the lowest, the highest and some",
        ),
        ("ridge", "stored rows none as they came"),
        ("smoother", "stored rows 1,024"),
    ):
        code, out, _ = call(capsys, "info", home / name)
        assert code == 0 and said in out, out
    assert "words of categories, the classes" in call(capsys, "info", home / "table")[1]


def test_check_says_of_each_file_whether_it_is_whole(capsys, home, tmp_path):
    names = ("early", "table", "ridge", "run")
    code = main(["info", "--check", *(str(home / name) for name in names)])
    lines = capsys.readouterr().out.splitlines()
    assert code == 0 and len(lines) == 4
    for name, line, end in zip(names, lines, ("it loads", "it loads", "load_state", "it loads"), strict=True):
        assert line.startswith(f"whole: {home / name} (") and end in line
    damaged = bytearray((home / "table").read_bytes())
    damaged[-100] ^= 1
    (tmp_path / "damaged").write_bytes(damaged)
    code = main(["info", "--check", str(tmp_path / "damaged"), str(home / "run"), str(tmp_path / "none")])
    lines = capsys.readouterr().out.splitlines()
    assert code == 2 and [line.split(":")[0] for line in lines] == ["not whole", "whole", "not whole"]
    assert f"{tmp_path / 'damaged'} is damaged: its checksum is not that of its contents" in lines[0]


def test_check_runs_no_code_of_a_checkpoint(capsys, home, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("raise SystemExit('this ran')\n")
    monkeypatch.syspath_prepend(tmp_path)
    header, layouts, body = parts_of((home / "run").read_bytes())
    header["recipe"]["recipe"]["family"]["name"] = "mine:Family"
    (tmp_path / "w").write_bytes(joined(header, layouts, body))
    code, out, _ = call(capsys, "info", "--check", tmp_path / "w")
    assert code == 0 and "mine:Family, which it names, was not imported" in out


@pytest.mark.parametrize("name", ["early", "ridge", "run"])
def test_damaged_files_end_in_one_line(capsys, home, tmp_path, name):
    whole, path = (home / name).read_bytes(), tmp_path / "odd"
    for content in (*unsigned(whole, 30, seed=5), *signed(whole, 120, seed=5)):
        path.write_bytes(content)
        for words in (["info"], ["info", "--check"]):
            code, _, err = call(capsys, *words, path)
            assert code in (0, 2)
            assert err == "" or (err.count("\n") == 1 and str(path) in err), err


CONTRADICTIONS = {
    "more features": (lambda t, h: t["columns"].update(z=t["columns"]["x"]), "'z' is in one alone"),
    "fewer features": (lambda t, h: t["columns"].pop("x"), "'x' is in one alone"),
    "no names": (lambda t, h: h.update(feature_names=None), "is in one alone"),
    "names of another map": (
        lambda t, h: h["map"]["columns"][0].update(name="X"),
        "header.map must be the same",
    ),
    "another task": (
        lambda t, h: t.update(task="regression"),
        "table.task is regression, but the state is a",
    ),
    "a task that is none": (lambda t, h: t.update(task="auto"), "table.task must be one of"),
    "an unknown option": (
        lambda t, h: t["reading"].update(quote="'"),
        "reading has the unknown entry 'quote'",
    ),
    "an odd delimiter": (lambda t, h: t["reading"].update(delimiter=";;"), "delimiter must be one character"),
    "an odd mark": (lambda t, h: t["reading"].update(decimal="x"), "decimal must be one of"),
    "words of another form": (lambda t, h: t["reading"].update(missing="NA"), "missing must be a list"),
    "a header that is none": (
        lambda t, h: t["reading"].update(header="none"),
        "header must be true or false",
    ),
    "an unknown entry": (lambda t, h: t.update(more=1), "table has the unknown entry 'more'"),
    "a target that is a feature": (lambda t, h: t.update(target="x"), "target must be no feature"),
    "a target that is dropped": (
        lambda t, h: t.update(dropped=["y"]),
        "target must be no feature and not dropped",
    ),
    "an id that is a feature": (lambda t, h: t.update(id="x"), "id must be no feature"),
    "a weight that is a feature": (lambda t, h: t.update(weight="word"), "weight must be no feature"),
    "a weight that is the target": (lambda t, h: t.update(weight="y"), "'y' has two"),
    "a feature that is dropped": (lambda t, h: t["dropped"].append("x"), "dropped must be no features"),
    "an empty column that is none": (lambda t, h: t["empty"].append("z"), "empty must be among its columns"),
    "words as numbers": (
        lambda t, h: t["columns"]["word"].update(kind="number"),
        "'word' is number, but the map",
    ),
    "numbers as words": (lambda t, h: t["columns"]["x"].update(kind="text"), "'x' is text, but the map"),
    "cells of no form": (
        lambda t, h: t["columns"]["x"].update(kind="int"),
        "columns must be an object, each",
    ),
    "labels of another type": (
        lambda t, h: t["target_cells"].update(kind="number"),
        "target_cells is number",
    ),
    "a target of dates": (lambda t, h: t["target_cells"].update(kind="date"), "target_cells is date"),
    "no target": (lambda t, h: t.pop("target_cells"), "target_cells is None"),
    "weights of words": (
        lambda t, h: t.update(weight_cells=t["columns"]["word"]),
        "must be numbers; got text",
    ),
    "a spelling that is none": (lambda t, h: t.update(spelling={"1": 1}), "spelling must be an object"),
}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """States that `gradatim fit` wrote, with a fixed map and without one, and a file of rows."""
    folder = tmp_path_factory.mktemp("fitted")
    rows = [f"{i % 9},{'rs'[i % 2]},,{1 + i % 2},{'uv'[i % 9 > 4]}\n" for i in range(300)]
    (folder / "f.csv").write_text("x,word,none,w,y\n" + "".join(rows))
    (folder / "few.csv").write_text("x,word,none,w,y\n" + "".join(rows[:40]))
    fit = ["--target", "y", "--drop", "w", "--decimal", ".", "--missing", "-", "--delimiter", ",", "--quiet"]
    for file in ("f", "few"):
        assert main(["fit", str(folder / f"{file}.csv"), *fit, "--state", str(folder / file)]) == 0
    model = RefinedClassifier.load(folder / "few")
    early = (
        RefinedClassifier()
        .partial_fit(*_frame(40))
        .save(folder / "early", {"table": read(folder / "f")[1]["table"]})
    )
    assert model is not None and read(early)[1]["warm"] is not None
    return folder


def _frame(rows):
    frame = pd.DataFrame({"x": np.arange(rows) % 9 + 0.5, "word": np.array(["r", "s"])[np.arange(rows) % 2]})
    return frame.assign(none=np.nan), np.where(np.arange(rows) % 9 > 4, "v", "u")


@pytest.mark.parametrize("state", ["f", "few", "early"])
def test_a_state_of_a_file_that_contradicts_itself_is_refused_by_all(capsys, fitted, tmp_path, state):
    path, file, out = tmp_path / "odd", fitted / "f.csv", tmp_path / "out.csv"
    for content in ("f", "few", "early"):
        assert call(capsys, "info", "--check", fitted / content)[0] == 0
        assert call(capsys, "predict", file, "--state", fitted / content, "--out", out)[0] == 0
    out.unlink()
    for name, (change, said) in CONTRADICTIONS.items():
        header, layouts, body = parts_of((fitted / state).read_bytes())
        change(header["table"], header)
        path.write_bytes(joined(header, layouts, body))
        code, printed, _ = call(capsys, "info", "--check", path)
        assert code == 2 and said in printed and "contradicts itself" in printed, (name, printed)
        for words in (["predict", file, "--out", out], ["update", file], ["remap", file]):
            code, _, err = call(capsys, *words, "--state", path)
            assert code == 2 and said in err and err.count("\n") == 1 and not out.exists(), (name, err)


@pytest.mark.parametrize("entry", ["feature_names", "params", "map", "classes"])
def test_a_state_of_an_estimator_without_an_entry_is_refused(capsys, home, tmp_path, entry):
    tensors, header = read(home / "table")
    path = write(tmp_path / "state", tensors, {name: part for name, part in header.items() if name != entry})
    code, out, _ = call(capsys, "info", path, "--check")
    assert code == 2 and f"{entry!r} is missing" in out


def test_a_state_whose_target_is_beyond_any_is_refused(capsys, home, tmp_path):
    tensors, header = read(home / "table")
    path = write(tmp_path / "state", tensors, header | {"target": header["target"] | {"centre": -1e308}})
    code, out, _ = call(capsys, "info", path, "--check")
    assert code == 2 and "header.target must be of numbers up to 1e+100" in out
