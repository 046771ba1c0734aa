"""Rows as people have them, at the command line: roles of columns, labels as they stood, files of many kinds."""

import csv
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gradatim import cli
from gradatim.estimators import RefinedClassifier
from gradatim.files import reading, replace, streaming, target
from gradatim.files.cells import NUMBER, Cells
from gradatim.files.checkpoint import read
from gradatim.files.target import Labels
from gradatim.files.writing import TableWriter
from gradatim.preprocessing import labels, rows

pa = pytest.importorskip("pyarrow")
pytest.importorskip("pyarrow.parquet")


def gradatim(*arguments) -> int:
    return cli.main([str(argument) for argument in arguments])


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Run a command in a folder of its own; it must go well. Return what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments) -> str:
        capsys.readouterr()
        code = gradatim(*arguments)
        out, err = capsys.readouterr()
        assert (code, err) == (0, "")
        return out

    return run


@pytest.fixture
def refused(capsys, tmp_path, monkeypatch):
    """Run a command in a folder of its own; it must refuse in one line and leave nothing. Return the line."""
    monkeypatch.chdir(tmp_path)

    def refused(*arguments) -> str:
        capsys.readouterr()
        before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
        code = gradatim(*arguments)
        err = capsys.readouterr().err
        assert (code, err.count("\n")) == (2, 1), err
        assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before
        return err.removeprefix("gradatim: ")

    return refused


def csv_rows(path: str) -> list[list[str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def column(path: str, name: str) -> list[str]:
    names, *rows = csv_rows(path)
    return [row[names.index(name)] for row in rows]


def notes(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("note: ")]


def sorted_by_x(labels: list[str], rows: int = 60) -> str:
    """A file whose label follows from x, in equal parts."""
    n = len(labels)
    return "x,y\n" + "".join(f"{i % (2 * n)},{labels[i % (2 * n) // 2]}\n" for i in range(rows))


LABELS = {
    "leading zeros": ["007", "012", "120"],
    "postcodes": ["01067", "10115", "99084"],
    "points": ["1.0", "2.0"],
    "capitals": ["TRUE", "FALSE"],
    "as Python": ["True", "False"],
    "small": ["true", "false"],
    "words": ["Yes", "No"],
    "None": ["None", "Mild", "Severe"],
    "NA": ["NA", "EU", "AS"],
    "missing words": ["unknown", "n.a.", "-"],
    "numbers": ["0", "1", "2"],
    "signs": ["-1", "1"],
    "plus signs": ["+1", "-1"],
    "large": ["9007199254740993", "9007199254740995"],
    "with a comma": ['"a, b"', '"c, d"'],
    "with quotes": ['"say ""yes"""', "no"],
    "accents": ["é", "ü"],
    "dates in words": ["2024-W01", "2024-W02"],
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_labels_come_back_as_they_stood(run, labels):
    Path("f.csv").write_text(sorted_by_x(labels, 240), encoding="utf-8")
    out = run("fit", "f.csv", "--target", "y", "--state", "s")
    assert f"{len(labels)} classes" in out and "240 rows of" in out and "skipped" not in out
    run("predict", "f.csv", "--state", "s", "--out", "p.csv", "--proba")
    predicted, truth = column("p.csv", "prediction"), column("f.csv", "y")
    assert set(predicted) <= set(truth)
    assert np.mean([a == b for a, b in zip(predicted, truth, strict=True)]) > 0.9
    assert set(csv_rows("p.csv")[0]) == {"prediction", *(f"proba_{label}" for label in set(truth))}


def test_equal_numbers_are_one_class_spelt_as_it_came_first(run, refused):
    Path("f.csv").write_text("x,y\n" + "1,1.0\n2,2\n1,1\n2,2.0\n" * 10)
    assert "2 classes" in run("fit", "f.csv", "--target", "y", "--state", "s")
    run("predict", "f.csv", "--state", "s", "--out", "p.csv")
    assert column("p.csv", "prediction")[:2] == ["1.0", "2"]
    Path("g.csv").write_text("x,y\n3,3\n3,3.0\n")
    assert "of 3 classes" in run("update", "g.csv", "--state", "s")
    Path("h.csv").write_text("x,y\n3,03\n")
    line = refused("update", "h.csv", "--state", "s")
    assert "'03'" in line and "--text y" in line
    Path("all.csv").write_text(Path("f.csv").read_text() + "3,03\n" * 9)
    assert "5 classes" in run("fit", "all.csv", "--target", "y", "--text", "y", "--state", "s", "--force")


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([0, 1], "int64"),
        ([True, False], "bool"),
        (["a", "b"], "string"),
        ([1.0, 2.0], "int64"),
        ([7, 300], "int64"),
    ],
)
def test_labels_of_parquet_files_come_back_in_their_type(run, values, dtype):
    table = pd.DataFrame({"x": [0.0, 1.0] * 40, "y": values * 40})
    table.to_parquet("f.parquet", index=False)
    run("fit", "f.parquet", "--target", "y", "--state", "s")
    for out in ("p.parquet", "p.arrow"):
        run("predict", "f.parquet", "--state", "s", "--out", out)
    got = pa.parquet.read_table("p.parquet")
    assert str(got["prediction"].type) == dtype and got["prediction"].to_pylist() == values * 40
    with pa.ipc.open_file("p.arrow") as file:
        assert file.read_all().equals(got)


def test_labels_may_begin_late(run):
    lines = [f"{i % 7},{'p' * 60},{'' if i < 9000 else 'ab'[i % 7 > 3]}" for i in range(9500)]
    Path("f.csv").write_text("\n".join(["x,note,y", *lines]))
    out = run("fit", "f.csv", "--target", "y", "--drop", "note", "--state", "s")
    assert "2 classes" in out and "500 rows" in out and "9,000 rows without 'y' skipped" in out


def test_classes_named_twice_count_once(run):
    Path("f.csv").write_text(sorted_by_x(["0", "1"]))
    for words, count in (("0,0,1", 2), ("0,1,2", 3), ("1,0,1.0", 2)):
        out = run("fit", "f.csv", "--target", "y", "--state", "s", "--classes", words, "--force")
        assert f"{count} classes from --classes" in out


def test_many_labels_are_no_note(run):
    rows = "".join(f"{i % 7},l{i * 13 % 40}\n" for i in range(4000))
    Path("f.csv").write_text("x,y\n" + rows)
    assert notes(run("fit", "f.csv", "--target", "y", "--state", "s")) == []


def test_ids_are_carried_and_not_learned(run, refused):
    rows = [f"{i:03d},{i % 6},{'ab'[i % 6 // 3]}" for i in range(60)]
    Path("f.csv").write_text("\n".join(["who,x,y", *rows]))
    run("fit", "f.csv", "--target", "y", "--id", "who", "--state", "s")
    assert "who" in run("info", "s")
    assert [c["name"] for c in read("s")[1]["map"]["columns"]] == ["x"]
    run("predict", "f.csv", "--state", "s", "--out", "p.csv")
    assert csv_rows("p.csv")[0] == ["who", "prediction"]
    assert column("p.csv", "who") == [f"{i:03d}" for i in range(60)]
    Path("g.csv").write_text("x,y\n1,a\n5,b\n")
    run("update", "g.csv", "--state", "s")
    run("predict", "g.csv", "--state", "s", "--out", "p.csv")
    assert csv_rows("p.csv")[0] == ["prediction"]
    Path("h.csv").write_text("row,x\nA,1\nB,5\n")
    run("predict", "h.csv", "--state", "s", "--out", "p.csv", "--id", "row")
    assert column("p.csv", "row") == ["A", "B"]
    assert "no column 'rwo' (--id): did you mean 'row'?" in refused(
        "predict", "h.csv", "--state", "s", "--out", "q.csv", "--id", "rwo"
    )
    assert "is a feature of the state" in refused(
        "predict", "h.csv", "--state", "s", "--out", "q.csv", "--id", "x"
    )


def test_an_id_called_as_a_prediction_keeps_its_column(run):
    Path("f.csv").write_text("prediction,x,y\n1,1,a\n2,2,b\n")
    run("fit", "f.csv", "--target", "y", "--id", "prediction", "--state", "s")
    run("predict", "f.csv", "--state", "s", "--out", "p.csv")
    assert csv_rows("p.csv")[0] == ["prediction_id", "prediction"]


def test_a_row_of_weight_two_counts_as_two(run):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"x": rng.normal(size=400), "w": rng.integers(0, 4, 400)})
    table["y"] = 2 * table.x + 0.1 * rng.normal(size=400)
    table.to_csv("f.csv", index=False)
    table.loc[table.index.repeat(table.w)].drop(columns="w").to_csv("g.csv", index=False)
    out = run("fit", "f.csv", "--target", "y", "--weight", "w", "--state", "s")
    zero = int((table.w == 0).sum())
    assert f"{400 - zero} rows learned" in out and f"{zero} rows of weight 0 skipped" in out
    run("fit", "g.csv", "--target", "y", "--state", "t")
    assert read("s")[1]["rows"] == read("t")[1]["rows"] == table.w.sum()
    run("predict", "f.csv", "--state", "s", "--out", "p.csv")
    run("predict", "f.csv", "--state", "t", "--out", "q.csv")
    p, q = (np.array(column(name, "prediction"), dtype=float) for name in ("p.csv", "q.csv"))
    assert np.abs(p - q).max() < 0.05 * table.y.std()  # mini-batches are cut elsewhere
    run("update", "f.csv", "--state", "s")
    assert read("s")[1]["rows"] == 2 * table.w.sum()


def test_a_weight_that_is_none_is_named_with_its_row(refused, run):
    for cell, said in (("-1", "got -1"), ("", "got a cell that is empty or no number")):
        Path("f.csv").write_text(f"x,w,y\n1,1,a\n2,{cell},b\n1,1,a\n2,1,b\n")
        line = refused("fit", "f.csv", "--target", "y", "--weight", "w", "--state", "s")
        assert "line 3" in line and "'w'" in line and said in line
    Path("f.csv").write_text("x,w,y\n1,heavy,a\n2,light,b\n")
    assert "column 'w' holds text" in refused(
        "fit", "f.csv", "--target", "y", "--weight", "w", "--state", "s"
    )
    Path("f.csv").write_text("x,w,y\n1,1,a\n2,2,b\n")
    run("fit", "f.csv", "--target", "y", "--weight", "w", "--state", "s")
    Path("g.csv").write_text("x,y\n1,a\n")
    assert "column 'w', the row weights, is missing" in refused("update", "g.csv", "--state", "s")
    Path("g.csv").write_text("x,W,y\n1,2,a\n")
    run("update", "g.csv", "--state", "s", "--weight", "W")
    run("predict", "g.csv", "--state", "s", "--out", "p.csv")


def test_the_numbers_that_are_refused_are_those_that_estimators_refuse():
    assert (target.LARGEST, target.LIGHTEST, target.HEAVIEST) == (
        labels.LARGEST,
        rows.LIGHTEST,
        rows.HEAVIEST,
    )


@pytest.mark.parametrize(
    ("column", "cell", "said"),
    [
        ("y", "1e120", "the target 'y' must be at most 1e+100 in size; got 1e+120"),
        ("y", "-2e100", "got -2e+100"),
        ("w", "1e18", "the weight in column 'w' must be 0, or a number from 1e-15 to 1e+15; got 1e+18"),
        ("w", "1e-16", "got 1e-16"),
        ("w", "-3", "the weight in column 'w' must be a number of at least 0; got -3"),
    ],
)
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_number_that_cannot_be_learned_is_named_with_its_line(refused, run, column, cell, said, suffix):
    def write(name, cells):
        frame = pd.DataFrame({"x": np.arange(200.0), "w": 1.0, "y": np.arange(200.0) % 13 + 0.5}).astype(str)
        frame.loc[frame.index[-len(cells) :], column] = cells
        if suffix == "csv":
            frame.to_csv(name, index=False)
        else:
            lines = (
                ",".join(f'"{key}": {value}' for key, value in row.items())
                for row in frame.to_dict("records")
            )
            Path(name).write_text("".join(f"{{{line}}}\n" for line in lines))

    fit = ("--target", "y", "--weight", "w", "--state", "s", "--task", "regression")
    write("f", [cell, "1.5", "1.5"])
    line = 198 + (suffix == "csv")
    assert said in (sentence := refused("fit", "f", *fit)) and f"f, line {line}: " in sentence
    write("all", [cell] * 200)
    assert f"all, line {1 + (suffix == 'csv')}: " in refused("fit", "all", *fit)
    write("g", ["1.5"])
    run("fit", "g", *fit)
    for command in ("update", "remap"):
        assert said in (sentence := refused(command, "f", "--state", "s")) and f"f, line {line}: " in sentence


ROLES = {
    "target and weight": ("--weight y", "'y' has two roles, --target and --weight"),
    "id and weight": ("--id w --weight w", "'w' has two roles, --id and --weight"),
    "feature and id": ("--columns x,w --id w", "'w' has two roles, --id and --columns"),
    "target dropped": ("--drop y", "'y' has two roles, --target and --drop"),
    "no such id": ("--id W", "no column 'W' (--id): did you mean 'w'?"),
    "no such weight": ("--weight v", "no column 'v' (--weight)"),
    "no such feature": ("--columns z", "no column 'z' (--columns)"),
    "kept and dropped": ("--columns x --drop x", "no column besides the target"),
    "a mark too long": ("--delimiter ;;", "--delimiter needs one character"),
    "another decimal": ("--decimal x", "--decimal needs . or ,; got 'x'"),
    "a header": ("--header maybe", "--header needs none or first; got 'maybe'"),
    "an encoding": ("--encoding utf9", "--encoding utf9 is unknown"),
    "classes of words": ("--classes 1,c --task classification", "--classes names 'c'"),
}


@pytest.mark.parametrize(("words", "said"), ROLES.values(), ids=ROLES)
def test_an_option_that_cannot_be_is_named(refused, words, said):
    Path("f.csv").write_text("x,w,y\n1,1,0\n2,2,1\n")
    assert said in refused("fit", "f.csv", "--target", "y", "--state", "s", *words.split(" "))


def test_columns_are_chosen(run):
    Path("f.csv").write_text('a,"b, c",d,y\n' + "1,2,3,u\n2,1,3,v\n" * 9)
    for words, names in (
        (["--columns", 'a,"b, c"'], ["a", "b, c"]),
        (["--columns", "a", "--columns", "d"], ["a", "d"]),
        (["--drop", '"b, c"', "--drop", "d"], ["a"]),
    ):
        run("fit", "f.csv", "--target", "y", "--state", "s", "--force", *words)
        assert [c["name"] for c in read("s")[1]["map"]["columns"]] == names
        assert notes(run("predict", "f.csv", "--state", "s", "--out", "p.csv")) == []


def test_more_columns_are_ignored_with_one_note(run, refused):
    Path("f.csv").write_text("x,y\n1,a\n2,b\n" * 1)
    run("fit", "f.csv", "--target", "y", "--state", "s")
    Path("g.csv").write_text("u,x,y,v\n,1,a,z\n,2,b,z\n")
    for words in (
        ["predict", "g.csv", "--state", "s", "--out", "p.csv"],
        ["update", "g.csv", "--state", "s"],
    ):
        (note,) = notes(run(*words))
        assert "'u', 'v' are ignored" in note
        assert notes(run(*words, "--drop", "u,v")) == []
    assert "no column 'w' (--drop)" in refused(
        "predict", "g.csv", "--state", "s", "--out", "p.csv", "--drop", "w"
    )
    assert "the state needs this column" in refused("update", "g.csv", "--state", "s", "--drop", "x")
    Path("h.csv").write_text("X,y\n1,a\n")
    for words in (
        ["predict", "h.csv", "--state", "s", "--out", "q.csv"],
        ["update", "h.csv", "--state", "s"],
    ):
        assert "column 'x', which the state knows, is missing: did you mean 'X'?" in refused(*words)


@pytest.mark.parametrize("cell", ["word", "3.5", "2024-01-01", "true"])
def test_a_column_empty_at_fit_is_missing_until_it_is_learned(run, cell):
    Path("f.csv").write_text("x,m,y\n" + "1,,a\n2,,b\n" * 20)
    (note,) = notes(run("fit", "f.csv", "--target", "y", "--state", "s"))
    assert "'m' is empty" in note
    Path("h.csv").write_text("x\n1\n2\n")
    words = ["predict", "h.csv", "--state", "s", "--out"]
    assert notes(run(*words, "p.csv", "--proba")) == []
    Path("g.csv").write_text(f"x,m\n1,{cell}\n2,{cell}\n")
    (note,) = notes(run("predict", "g.csv", "--state", "s", "--out", "q.csv", "--proba"))
    assert "'m'" in note and csv_rows("q.csv") == csv_rows("p.csv")
    words = ["predict", "g.csv", "--state", "s", "--out", "q.csv", "--proba"]
    assert notes(run(*words, "--drop", "m")) == [] and csv_rows("q.csv") == csv_rows("p.csv")


FILLED = {
    "number": ([f"{2023 + i % 2}" for i in range(400)], "number", "2023", "2024"),
    "comma": ([f'"{i % 2},5"' for i in range(400)], "number", '"0,5"', '"1,5"'),
    "date": ([f"{13 + i % 2}/01/2024" for i in range(400)], "date", "13/01/2024", "14/01/2024"),
    "boolean": (["true" if i % 2 else "false" for i in range(400)], "boolean", "false", "true"),
}


@pytest.mark.parametrize("command", ["update", "remap"])
@pytest.mark.parametrize("name", FILLED)
@pytest.mark.parametrize("late", [0, 20_000])
def test_a_column_empty_at_fit_is_learned_when_it_is_filled(run, name, command, late):
    cells, kind, first, second = FILLED[name]
    rows = [f",{i % 5},,{'ab'[i % 2]}" for i in range(400)]
    Path("f.csv").write_text("\n".join(["m,x,k,y", *rows]) + "\n")
    run("fit", "f.csv", "--target", "y", "--state", "s")
    filled = [f",,{i % 5},{'ab'[i % 2]}" for i in range(late)]
    filled += [f"{cell},,{i % 5},{'ab'[i % 2]}" for i, cell in enumerate(cells)] * (1 + late // 400)
    Path("more.csv").write_text("\n".join(["k,m,x,y", *filled]) + "\n")
    assert "'k'" in " ".join(notes(run(command, "more.csv", "--state", "s")))
    schema = read("s")[1]["table"]
    assert list(schema["columns"]) == ["m", "x", "k"] and schema["empty"] == ["m"]
    assert schema["columns"]["k"]["kind"] == kind
    Path("g.csv").write_text(f"x,k\n1,{first}\n1,{second}\n")
    assert notes(run("predict", "g.csv", "--state", "s", "--out", "p.csv")) == []
    assert column("p.csv", "prediction") == ["a", "b"]
    Path("more.csv").write_text("\n".join(["k,m,x,y", f"{first},7,1,a", f"{second},8,1,b"]) + "\n")
    assert "'m'" in " ".join(notes(run("update", "more.csv", "--state", "s")))
    assert read("s")[1]["table"]["empty"] == []


def test_a_column_empty_at_fit_stays_empty_where_words_or_nothing_follow(run, refused):
    frame = pd.DataFrame({"x": np.arange(60.0) % 7, "m": None, "y": np.arange(60) % 7 + 0.25})
    frame.to_parquet("f.parquet")
    run("fit", "f.parquet", "--target", "y", "--state", "s")
    assert "empty so far" in run("info", "s")
    frame.assign(m="word").to_parquet("words.parquet")
    (note,) = notes(run("update", "words.parquet", "--state", "s"))
    assert "'m'" in note and "words count as missing" in note
    frame.drop(columns="m").to_parquet("without.parquet")
    assert notes(run("update", "without.parquet", "--state", "s")) == []
    assert notes(run("update", "f.parquet", "--state", "s")) == []
    frame.assign(m=frame.x).to_parquet("filled.parquet")
    assert notes(run("update", "filled.parquet", "--state", "s", "--drop", "m")) == []
    assert notes(run("predict", "filled.parquet", "--state", "s", "--out", "p.csv", "--id", "m")) == []
    assert read("s")[1]["table"]["empty"] == ["m"]
    (note,) = notes(run("update", "filled.parquet", "--state", "s"))
    assert "numbers are learned" in note and read("s")[1]["table"]["empty"] == []
    assert "which the state knows, is missing" in refused("update", "without.parquet", "--state", "s")
    frame[["m", "y"]].to_parquet("all.parquet")
    assert "every column besides the target is empty" in refused(
        "fit", "all.parquet", "--target", "y", "--state", "t"
    )


def test_levels_have_names_that_differ(run, refused):
    Path("f.csv").write_text("x,y\n" + "".join(f"{i % 9},{i % 9 + 0.5}\n" for i in range(60)))
    run("fit", "f.csv", "--target", "y", "--state", "s")
    words = ["predict", "f.csv", "--state", "s", "--out"]
    run(*words, "p.csv", "--quantiles", "0.9999999,0.99999999,.5,1e-7")
    names = ["prediction", "quantile_0.9999999", "quantile_0.99999999", "quantile_0.5", "quantile_1e-07"]
    assert csv_rows("p.csv")[0] == names
    for levels, said in (
        ("0.5,.50", "twice"),
        ("0.1,1", "between 0 and 1"),
        *((word, "between 0 and 1") for word in ("a", ".1_0", "٠.٥", "０.５", "nan", "0x1", "-.5")),
        ("", "between"),
    ):
        assert said in refused(*words, "q.csv", "--quantiles", levels)


def test_several_files_are_one_table(run, refused):
    whole = sorted_by_x(["a", "b"], 90)
    names, *lines = whole.splitlines()
    Path("all.csv").write_text(whole)
    Path("days").mkdir()
    for number in range(3):
        Path(f"days/day-{number}.csv").write_text("\n".join([names, *lines[30 * number : 30 * number + 30]]))
    Path("days/notes.md").write_text("no table")
    run("fit", "all.csv", "--target", "y", "--state", "s")
    for number, files in enumerate((["days"], ["days/day-*.csv"], [f"days/day-{i}.csv" for i in range(3)])):
        assert "90 rows" in run("fit", *files, "--target", "y", "--state", f"s{number}")
        run("predict", *files, "--state", f"s{number}", "--out", f"p{number}.csv", "--proba")
        assert len(csv_rows(f"p{number}.csv")) == 91
    assert Path("p0.csv").read_bytes() == Path("p1.csv").read_bytes() == Path("p2.csv").read_bytes()
    run("predict", "all.csv", "--state", "s", "--out", "p.csv", "--proba")
    np.testing.assert_allclose(pd.read_csv("p.csv").proba_a, pd.read_csv("p0.csv").proba_a, atol=1e-6)
    run("update", "days/day-0.csv", "days/day-1.csv", "--state", "s")
    assert read("s")[1]["rows"] == 150
    fit = ["--target", "y", "--state", "t"]
    assert "no file fits d*.csv" in refused("fit", "d*.csv", *fit)
    assert "given twice" in refused("fit", "all.csv", "./all.csv", *fit)
    assert "all.csv is given twice, so" in refused("fit", "all.csv", "all.csv", *fit)
    Path("again.csv").hardlink_to("all.csv")
    Path("soft.csv").symlink_to("all.csv")
    for files in (
        ("all.csv", "again.csv"),
        ("again.csv", "soft.csv"),
        ("all.csv", "a??.csv", "s*.csv"),
        ("days", "days/day-1.csv"),
    ):
        assert re.search("is given twice(, also as .*)?, so", refused("fit", *files, *fit)), files
    assert "given twice" in refused("predict", "all.csv", "again.csv", "--state", "s", "--out", "p.csv")
    for name in ("again.csv", "soft.csv"):
        Path(name).unlink()
    Path("empty").mkdir()
    assert "empty" in refused("fit", "empty", *fit)
    for number in ("٣", "--5", "9" * 30):  # names of folders that are no whole numbers of 64 bits are words
        Path(f"years/year={number}").mkdir(parents=True)
        pd.read_csv("all.csv").to_parquet(f"years/year={number}/all.parquet")
    run("fit", "years", "--target", "y", "--state", "years.s")
    assert read("years.s")[1]["table"]["columns"]["year"]["kind"] == "text"
    Path("other.csv").write_text("z,y\n1,a\n")
    assert "column 'x'" in refused("fit", "all.csv", "other.csv", *fit)


def test_a_column_of_two_kinds_in_two_files_holds_words(run):
    Path("a.csv").write_text("x,y\n" + "1,u\n2,v\n" * 10)
    Path("b.csv").write_text("x,y\n" + "one,u\ntwo,v\n" * 10)
    run("fit", "a.csv", "b.csv", "--target", "y", "--state", "s")
    (levels,) = (c["levels"] for c in read("s")[1]["map"]["columns"])
    assert sorted(levels) == ["1", "2", "one", "two"]


def streamed(folder: Path, words: list[str], text: str) -> tuple[int, str, str]:
    """Run a command in a process, with text on its standard input."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-m", "gradatim", *words],
        cwd=folder, env=environment, input=text, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_standard_input_and_output(tmp_path):
    text = sorted_by_x(["a", "b"], 400)
    code, out, err = streamed(tmp_path, ["fit", "-", "--target", "y", "--state", "s"], text)
    assert (code, err) == (0, "") and "400 rows of 2 classes" in out
    words = ["predict", "-", "--state", "s", "--out", "-", "--proba"]
    code, out, err = streamed(tmp_path, words, text)
    rows = list(csv.reader(io.StringIO(out)))
    assert code == 0 and rows[0] == ["prediction", "proba_a", "proba_b"] and len(rows) == 401
    assert "400 rows predicted" in err and "predicted" not in out
    code, out, _ = streamed(tmp_path, words, "x\n0\n2\n")
    assert [row[0] for row in csv.reader(io.StringIO(out))] == ["prediction", "a", "b"]
    code, out, err = streamed(tmp_path, words, "z\n0\n")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert {path.name for path in tmp_path.iterdir()} == {"s"}


def test_rows_as_json_lines(run):
    Path("f.csv").write_text(sorted_by_x(["007", "012"]))
    run("fit", "f.csv", "--target", "y", "--state", "s")
    run("predict", "f.csv", "--state", "s", "--out", "p.jsonl", "--proba")
    rows = [json.loads(line) for line in Path("p.jsonl").read_text().splitlines()]
    assert len(rows) == 60 and list(rows[0]) == ["prediction", "proba_007", "proba_012"]
    assert rows[0]["prediction"] == "007" and isinstance(rows[0]["proba_007"], float)


SIZES = {"small": 40, "large": 6000}


def objects(count: int, **columns) -> list[dict]:
    """Return rows of about 60 bytes, each column a function of the row's number; None is no key."""
    rows = [{"pad": "p" * 40} | {name: cell(i) for name, cell in columns.items()} for i in range(count)]
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


def write_objects(path: str, rows: list[dict], array: bool = False) -> None:
    Path(path).write_text(json.dumps(rows) if array else "".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("array", [False, True])
@pytest.mark.parametrize("count", SIZES.values(), ids=SIZES)
def test_a_key_that_is_absent_is_a_missing_cell_whatever_the_size(run, refused, count, array):
    def predictions(*more):
        run("predict", *more, "--state", "s", "--out", "p.csv")
        return column("p.csv", "prediction")

    table = {"a": lambda i: i % 9, "b": lambda i: "rs"[i % 2], "y": lambda i: "uv"[i % 9 > 4]}
    write_objects("f.jsonl", objects(count, **table, w=lambda i: 1 + i % 2), array)
    run("fit", "f.jsonl", "--target", "y", "--weight", "w", "--state", "s")
    for late in (count - 1, count):  # in the last row alone, or in none
        write_objects("g.jsonl", objects(count, a=table["a"], b={late: "r"}.get), array)
        null = [{"b": None} | row for row in objects(count, a=table["a"])]
        null[-1] |= {"b": "r"} if late < count else {}
        write_objects("null.jsonl", null, array)
        out = run("predict", "g.jsonl", "--state", "s", "--out", "p.csv")
        assert ("column 'b' stood in no row: every cell is missing" in out) == (late == count)
        assert column("p.csv", "prediction") == predictions("null.jsonl")
    for command in ("update", "remap"):
        write_objects("h.jsonl", objects(count, b=table["b"], y=table["y"], w=lambda i: 1), array)
        out = run(command, "h.jsonl", "--state", "s", "--out", f"{command}.s")
        assert f"{count:,} rows of 2 classes learned" in out and "column 'a' stood in no row" in out
    # what no row has and no state knows, and what every row needs, is refused
    for words, said in (
        ("predict g.jsonl --state s --out q.csv --id row", "no column 'row' (--id)"),
        (
            "predict g.jsonl --state s --out q.csv --drop padd",
            "no column 'padd' (--drop): did you mean 'pad'?",
        ),
        ("update f.jsonl --state s --weight v", "column 'v', the row weights, is missing"),
        ("update g.jsonl --state s", "column 'y', the target, is missing (2 columns are missing)"),
        ("fit f.jsonl --target yy --state t", "no column 'yy' (--target)"),
        ("fit f.jsonl --target y --columns a,bb --state t", "no column 'bb' (--columns)"),
    ):
        assert said in refused(*words.split()), words
    write_objects("other.jsonl", [{"A": 1, "z": row} for row in range(count)], array)
    assert "'pad', which the state knows, is missing (3 columns are missing)" in refused(
        "predict", "other.jsonl", "--state", "s", "--out", "q.csv"
    )


def test_rows_without_any_key_are_refused(refused):
    Path("f.jsonl").write_text("{}\n{}\n")
    assert "its rows name no column" in refused("fit", "f.jsonl", "--target", "y", "--state", "s")


def test_keys_of_later_rows_count_in_every_file(run, tmp_path):
    rows = objects(
        6000, a=lambda i: i % 9, zip=lambda i: str(10 + i % 9) if i > 5000 else None, y=lambda i: i % 2
    )
    write_objects("f.jsonl", rows)
    write_objects("g.jsonl", objects(6000, a=lambda i: i % 9, y=lambda i: i % 2))
    for files in (["f.jsonl"], ["g.jsonl", "f.jsonl"]):
        run("fit", *files, "--target", "y", "--state", "s", "--force")
        assert read("s")[1]["table"]["columns"]["zip"]["kind"] == "text"
    write_objects("h.jsonl", rows)
    run("predict", "h.jsonl", "g.jsonl", "--state", "s", "--out", "p.csv")
    assert len(column("p.csv", "prediction")) == 12000


@pytest.mark.parametrize("count", [3, 6000])
def test_keys_of_a_stream_are_known_at_its_end(run, count):
    def piped(*arguments, rows):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        done = subprocess.run(
            [sys.executable, "-m", "gradatim", *arguments], input=text, capture_output=True, text=True
        )
        assert "Traceback" not in done.stderr
        return done

    write_objects("f.jsonl", objects(300, a=lambda i: i % 9, b=lambda i: i % 2, y=lambda i: i % 9 > 4))
    run("fit", "f.jsonl", "--target", "y", "--state", "s")
    done = piped("predict", "-", "--state", "s", "--out", "p.csv", rows=objects(count, a=lambda i: i % 9))
    assert done.returncode == 0 and "column 'b' stood in no row" in done.stdout
    assert len(column("p.csv", "prediction")) == count
    other = piped("predict", "-", "--state", "s", "--out", "q.csv", rows=[{"z": i} for i in range(count)])
    assert other.returncode == 2 and not Path("q.csv").exists()
    assert "is missing" in other.stderr or "no row of standard input has" in other.stderr
    late = objects(count, a=lambda i: i % 9, b={count - 1: 1}.get)
    assert "stood in no row" not in piped("predict", "-", "--state", "s", "--out", "p.csv", rows=late).stdout
    # the target, an id or a weight makes no row of the features that the state knows
    kept = Path("s").read_bytes()
    rows = [{"A": i, "B": i, "PAD": "p" * 40, "y": i % 2, "row": i} for i in range(count)]
    for command in ("update - --state s", "remap - --state s", "predict - --state s --out q.csv --id row"):
        other = piped(*command.split(), rows=rows)
        assert other.returncode == 2 and "did you mean" in other.stderr, (other.stdout, other.stderr)
        assert Path("s").read_bytes() == kept and not Path("q.csv").exists()


@pytest.mark.parametrize("columns", ["x", "x,late"])
def test_remap_of_a_pipe_has_a_sample_of_its_first_rows(run, tmp_path, columns):
    rows = [{"x": i % 9, "late": None, "y": "ab"[i % 9 > 4]} for i in range(400)]
    write_objects("f.jsonl", rows)
    run("fit", "f.jsonl", "--target", "y", "--columns", columns, "--state", "s")
    far = "".join(json.dumps(row | {"x": row["x"] + 1000}) + "\n" for row in rows)
    code = (
        "import sys, time\nfor line in sys.stdin:\n    print(line, end='', flush=True)\n    time.sleep(.001)"
    )
    words = [sys.executable, "-m", "gradatim", "remap", "-", "--state", "s", "--out", "t"]
    Path("far.jsonl").write_text(far)
    with (
        open("far.jsonl", "rb") as file,
        subprocess.Popen([sys.executable, "-c", code], stdin=file, stdout=subprocess.PIPE) as slow,
        subprocess.Popen(words, stdin=slow.stdout, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as done,
    ):
        out, err = done.communicate()
    assert (done.returncode, err) == (0, b"") and b"400 rows of 2 classes learned" in out


def test_cells_stand_in_quotes_where_they_must(tmp_path):
    table = pa.table({"id": ["1,5", 'a"b', None, "plain"], "p": [0.5, 1e-7, 1.0, 0.25]})
    for name, part in (("quoted", table), ("plain", table.slice(3)), ("empty", table.slice(2, 1))):
        path = tmp_path / f"{name}.csv"
        with TableWriter(path) as file:
            file.write(part)
        names, *rows = csv_rows(path)
        assert names == ["id", "p"]
        assert [[cell or None, float(p)] for cell, p in rows] == [
            list(row.values()) for row in part.to_pylist()
        ]
    assert (tmp_path / "plain.csv").read_text() == "id,p\nplain,0.25\n"


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".arrow", ".jsonl"])
def test_a_full_disk_leaves_no_file_and_names_the_path(run, refused, monkeypatch, suffix):
    Path("f.csv").write_text(sorted_by_x(["a", "b"]))
    run("fit", "f.csv", "--target", "y", "--state", "s")
    create = replace._create

    def on_a_full_disk(target: Path):
        temporary, file = create(target)
        file.close()
        return temporary, os.fdopen(os.open("/dev/full", os.O_WRONLY), "wb")

    monkeypatch.setattr(replace, "_create", on_a_full_disk)
    line = refused("predict", "f.csv", "--state", "s", "--out", f"p{suffix}")
    assert line.startswith(f"p{suffix} could not be written (No space left on device)")
    monkeypatch.setattr(replace, "_create", create)
    assert "/dev/full is not a file" in refused("predict", "f.csv", "--state", "s", "--out", "/dev/full")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_predictions_that_a_killed_process_left_are_swept(tmp_path):
    script = (
        "import os, sys, pyarrow; from pathlib import Path; from gradatim.files.writing import TableWriter\n"
        "with TableWriter(Path(sys.argv[1])) as file: file.write(pyarrow.table({'p': [1]})); os.kill(os.getpid(), 9)"
    )
    for suffix in (".csv", ".parquet", ".jsonl", ".arrow"):
        path = tmp_path / f"p{suffix}"
        ended = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
        assert ended.returncode == -signal.SIGKILL and len(list(tmp_path.iterdir())) == 1
        with TableWriter(path) as file:
            file.write(pa.table({"p": [2]}))
        assert list(tmp_path.iterdir()) == [path]
        path.unlink()


def test_standard_output_that_is_full_or_closed(tmp_path):
    (tmp_path / "f.csv").write_text(sorted_by_x(["a", "b"], 20_000))
    code, _, err = streamed(tmp_path, ["fit", "f.csv", "--target", "y", "--state", "s"], "")
    assert (code, err) == (0, "")
    command = f"{sys.executable} -m gradatim predict f.csv --state s --out - "
    for sink, code, said in ((">/dev/full", 2, "standard output could not be written"), ("| head -1", 0, "")):
        done = subprocess.run(
            ["bash", "-c", f"{command}{sink}"], cwd=tmp_path, capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        assert done.returncode == code and said in done.stderr
        assert "Traceback" not in done.stderr and "Broken pipe" not in done.stderr


def test_an_interruption_does_not_speak_of_training(run, capsys, monkeypatch):
    Path("f.csv").write_text(sorted_by_x(["a", "b"]))
    run("fit", "f.csv", "--target", "y", "--state", "s")

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(RefinedClassifier, "load", interrupted)
    for words in (
        ["update", "f.csv", "--state", "s"],
        ["predict", "f.csv", "--state", "s", "--out", "p.csv"],
    ):
        assert gradatim(*words) == 130
        err = capsys.readouterr().err
        assert err.startswith("gradatim: interrupted") and "train" not in err and err.count("\n") == 1


def test_two_updates_at_once_both_count(run, tmp_path):
    Path("f.csv").write_text(sorted_by_x(["a", "b"], 320))
    run("fit", "f.csv", "--target", "y", "--state", "s")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "gradatim", "update", "f.csv", "--state", "s", "--quiet"]
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert read("s")[1]["rows"] == 960
    assert {path.name for path in tmp_path.iterdir()} == {"f.csv", "s"}


def test_a_table_too_large_is_refused_before_it_is_read(refused, monkeypatch):
    Path("f.csv").write_text(sorted_by_x(["a", "b"], 400))

    def too_wide(self, X, y, sample_weight=None, classes=None):
        raise ValueError("a table of 12,000 columns would take 9 GB: choose fewer with --columns")

    def read_on(*arguments, **options):
        raise AssertionError

    monkeypatch.setattr(RefinedClassifier, "prepare", too_wide)
    monkeypatch.setattr(streaming, "chunks", read_on)
    assert "f.csv: a table of 12,000 columns" in refused("fit", "f.csv", "--target", "y", "--state", "s")


@pytest.mark.parametrize("advice", ["--drop", "--text", "--task", "--weight"])
def test_help_teaches(capsys, advice):
    assert gradatim("fit", "--help") == 0
    out = capsys.readouterr().out
    assert advice in out and "examples:\n  gradatim fit train.csv --target y" in out


def test_words_and_dashes_as_values(run):
    Path("f.csv").write_text("x,None,y\n" + "-,1,a\nnone!,2,b\n3,1,a\n4,2,b\n" * 9)
    for words in (["--missing", "-,none!"], ["--missing=-,none!"], ["--missing", "-", "--missing", "none!"]):
        run("fit", "f.csv", "--target", "y", "--drop", "None", "--state", "s", "--force", *words)
        (x,) = read("s")[1]["map"]["columns"]
        assert (x["name"], x["kind"], x["has_missing"]) == ("x", "number", True)
    run("fit", "f.csv", "--target", "None", "--state", "s", "--force")
    Path("g.csv").write_text("x,None,y\n-,1,a\n5,2,b\n")
    run("update", "g.csv", "--state", "s", "--missing", "None")


def test_labels_beyond_what_is_exact_are_refused():
    labels = Labels("y", Cells(NUMBER))
    for word in ("0.5", "9007199254740993", "1e300"):
        with pytest.raises(ValueError, match=r"--task regression, or with --text y"):
            labels.read(pa.array([word]))
    y, present = labels.read(pa.array(["3", "x", "NA", None, " 4 "]))
    assert (y[present].tolist(), labels.odd) == ([3, 4], {"x": 1})


def test_the_page_of_files_names_options_that_there_are():
    page = (Path(__file__).parents[1] / "docs" / "how-to" / "files.md").read_text(encoding="utf-8")
    has = {
        option
        for name in ("fit", "update", "remap", "predict", "info")
        for option in cli.COMMANDS[name].parser(name, [])._option_string_actions
    }
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", page)) <= has


def test_what_is_said_of_the_task_can_be_followed(run):
    tables = {
        "whole.csv": ("x,y\n" + "".join(f"{i % 50},{i % 50 + 7}\n" for i in range(240)), "regression"),
        "fractions.csv": ("x,y\n" + "".join(f"{i % 9},{i % 9 / 2}\n" for i in range(90)), "regression"),
        "digits.csv": (sorted_by_x(["0", "1", "2"]), "classification"),
    }
    for number, (path, (text, task)) in enumerate(tables.items()):
        Path(path).write_text(text)
        out = run("fit", path, "--target", "y", "--state", f"s{number}")
        assert out.startswith(f"{task}: ")
        option = re.search(r"\(use (--\w+ \w+) if", out)[1]
        changed = run("fit", path, "--target", "y", "--state", f"t{number}", *option.split())
        assert not changed.startswith(task) and "(use" not in changed.splitlines()[0]


def test_what_a_refusal_advises_can_be_followed(refused, run):
    rows = "".join(f"{i % 6},{i % 6 / 4},{i % 3}\n" for i in range(60))
    Path("f.csv").write_text('x,"y, z",k\n' + rows)
    words = ["fit", "f.csv", "--target", "y, z", "--state"]
    line = refused(*words, "s", "--task", "classification")
    for number, advice in enumerate(re.findall(r"(--task regression|--text '.*?')", line)):
        run(*words, f"s{number}", *shlex.split(advice))
    assert number == 1
    line = refused("update", "f.csv", "--state", "s0", "--drop", "x")
    run(*words, "t0", *shlex.split(re.search(r"fit (--drop x)", line)[1]))
    line = refused("predict", "f.csv", "--state", "s0", "--out", "p.csv", "--id", "k")
    run(*words, "t1", *shlex.split(re.search(r"fit (--id k)", line)[1]))
    run("predict", "f.csv", "--state", "t1", "--out", "p.csv")
    table = pd.DataFrame({"x": [1, 2] * 9, "a b": [[1], [2]] * 9, "y": ["u", "v"] * 9})
    table.to_parquet("f.parquet", index=False)
    line = refused("fit", "f.parquet", "--target", "y", "--state", "t2")
    assert "column 'a b' is of type list" in line and "--drop" in line
    run("fit", "f.parquet", "--target", "y", "--state", "t2", "--drop", "a b")
    Path("many.csv").write_text("x,y\n" + "".join(f"{i % 9},{i}\n" for i in range(1200)))
    line = refused("fit", "many.csv", "--target", "y", "--state", "t3", "--task", "classification")
    assert "1,200 classes" in line
    run(
        "fit",
        "many.csv",
        "--target",
        "y",
        "--state",
        "t3",
        *re.search(r"(--task regression)", line)[1].split(),
    )
    Path("words.csv").write_text("x,y\n" + "".join(f"{i % 9},w{i}\n" for i in range(1200)))
    assert "--task" not in refused("fit", "words.csv", "--target", "y", "--state", "t4")


def test_the_note_of_drift_names_a_command_that_works(run):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"x": rng.normal(size=320), "y": rng.choice(["a", "b"], 320)})
    table.to_csv("f.csv", index=False)
    table.assign(x=table.x + 1e4).to_csv("g.csv", index=False)
    assert notes(run("fit", "f.csv", "--target", "y", "--state", "s")) == []
    (note,) = notes(run("update", "g.csv", "--state", "s", "--out", "t"))
    assert "'x'" in note and "(X, y)" not in note
    command = re.search(r"gradatim (remap FILE --state s)", note)[1].replace("FILE", "g.csv")
    assert "320 rows" in run(*command.split())
    assert notes(run("update", "g.csv", "--state", "s")) == []


@pytest.mark.parametrize("names", [",x,y", "x,,y", '"",x,y', "x,y,", ",x,,y"])
def test_a_column_without_a_name_can_be_dropped(run, names):
    cells = [name if name == "y" else "x" for name in names.split(",")]
    lines = (",".join("ab"[i % 2] if cell == "y" else str(i % 2) for cell in cells) for i in range(40))
    Path("f.csv").write_text("\n".join([names, *lines]))
    words = ["fit", "f.csv", "--target", "y", "--state", "s", "--force"]
    assert "has no name" in run(*words)
    for word in ("", '""'):
        run(*words, "--drop", word)
        assert [c["name"] for c in read("s")[1]["map"]["columns"]] == ["x"]
    run(*words, "--id", "", "--columns", "x")
    run("predict", "f.csv", "--state", "s", "--out", "p.csv")
    assert csv_rows("p.csv")[0][0].startswith("column ")


def test_the_whole_name_of_a_column_needs_no_quotes(run):
    Path("f.csv").write_text('"weight, kg";c;y\n' + "70;red;a\n71;blue;b\n" * 9)
    for word in ("weight, kg", '"weight, kg"'):
        run("fit", "f.csv", "--target", "y", "--drop", word, "--state", "s", "--force")
        assert [c["name"] for c in read("s")[1]["map"]["columns"]] == ["c"]


@pytest.mark.parametrize("source", ["g.csv", "g.parquet"])
@pytest.mark.parametrize("target", ["y", "z"])
def test_remap_learns_each_row_once(run, monkeypatch, source, target):
    monkeypatch.setattr(reading, "SAMPLE_ROWS", 64)
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"x": rng.integers(0, 9, 400), "k": rng.choice(["u", "v", None], 400)})
    table["y"], table["z"], table["w"] = rng.choice(["a", "b"], 400), rng.integers(0, 5, 400) / 4, 2.0
    table.to_csv("f.csv", index=False)
    far = table.assign(x=table.x + 1000, w=1.0)
    far.to_csv("g.csv", index=False)
    far.to_parquet("g.parquet", index=False)
    run("fit", "f.csv", "--target", target, "--columns", "x,k", "--weight", "w", "--state", "s")
    assert read("s")[1]["rows"] == 800
    assert "400 rows" in run("remap", source, "--state", "s", "--out", "t")
    assert read("t")[1]["rows"] == 1200
    assert notes(run("update", "g.csv", "--state", "t")) == []
