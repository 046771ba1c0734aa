"""What was rough or missing: encodings, compression, names, blanks, ids, pipes, folders, weights."""

import bz2
import gzip
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from gradatim import Greedy, LinearRegression, TrainConfig, build, train
from gradatim.estimators import RefinedClassifier
from gradatim.files.checkpoint import read

from .case_tools import (
    answers,
    call,
    cases_into,
    class_count,
    fit,
    good,
    kinds,
    learned,
    predict,
    raises,
    refused,
    rows_of,
    task,
    write,
)

ROUGH: dict[str, Callable[[Path], None]] = {}


case = cases_into(ROUGH)


ROWS = [f"{i % 9},{['né', 'œuf'][i % 9 > 4]}" for i in range(300)]
TABLE = "\n".join(["größe,y", *ROWS, ""])


@case("R encoding")
def encodings(folder: Path) -> None:
    for encoding, options in (
        ("utf-8", ()),
        ("utf-8-sig", ()),
        ("utf-16", ()),
        ("utf-16-le", ("--encoding", "utf-16-le")),
        ("utf-16-be", ("--encoding", "utf-16-be")),
        ("cp1252", ("--encoding", "cp1252")),
        ("latin-1", ("--encoding", "latin-1")),
    ):
        text = TABLE.replace("œ", "ö") if encoding == "latin-1" else TABLE
        out = fit(folder, text.encode(encoding), *options)
        assert learned(out) == 300 and set(kinds(folder)) == {"größe"}
        wanted = ["né", "öuf" if encoding == "latin-1" else "œuf"]
        assert answers(folder, "größe\n1\n8\n".encode(encoding), *options) == wanted
    write(folder / "w.csv", TABLE.encode("cp1252"))
    line = refused("fit", folder / "w.csv", "--target", "y", "--state", folder / "w")
    assert "--encoding" in line
    write(folder / "w.csv", TABLE)
    assert "klingon" in refused(
        "fit", folder / "w.csv", "--target", "y", "--state", folder / "w", "--encoding", "klingon"
    )


@case("R delimiter, decimal, missing")
def options_of_text(folder: Path) -> None:
    rows = [f"{i % 9},5@{'ab'[i % 9 > 4]}@w" for i in range(300)]
    rows[4], rows[5] = "ND@a@w", "-9@a@w"
    table = "\n".join(["x@y@w", *rows, ""])
    out = fit(folder, table, "--delimiter", "@", "--decimal", ",", "--missing", "ND,-9")
    assert learned(out) == 300 and kinds(folder) == {"x": "number", "w": "text"}
    assert answers(folder, "x@w\n0,5@w\n8,5@w\nND@w\n", "--delimiter", "@", "--decimal", ",")[:2] == [
        "a",
        "b",
    ]
    for words in (("--delimiter", "too long"), ("--decimal", "x"), ("--delimiter", "")):
        write(folder / "g.csv", table)
        refused("fit", folder / "g.csv", "--target", "y", "--state", folder / "new", *words)


@case("R compressed and other containers")
def containers(folder: Path) -> None:
    frame = pd.DataFrame({"x": np.arange(300) % 9, "y": np.where(np.arange(300) % 9 > 4, "b", "a")})
    text, arrow = frame.to_csv(index=False).encode(), pa.Table.from_pandas(frame, preserve_index=False)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("f.csv", text)
    excel = io.BytesIO()
    with zipfile.ZipFile(excel, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("xl/workbook.xml", "<workbook/>")
    sinks = {}
    for name, new in (
        ("f.arrow", pa.ipc.new_file),
        ("f.feather", pa.ipc.new_file),
        ("s.arrow", pa.ipc.new_stream),
    ):
        sinks[name] = io.BytesIO()
        with new(sinks[name], arrow.schema) as writer:
            writer.write_table(arrow)
    files = {
        "f.csv.gz": gzip.compress(text),
        "f.csv.bz2": bz2.compress(text),
        "f.zip": buffer.getvalue(),
        "f.csv.zip": buffer.getvalue(),
        "f.csv.zst": pa.compress(text, codec="zstd", asbytes=True),
        "f.jsonl": "".join(json.dumps(row) + "\n" for row in frame.to_dict("records")).encode(),
        "f.ndjson": "".join(json.dumps(row) + "\n" for row in frame.to_dict("records")).encode(),
        **{name: sink.getvalue() for name, sink in sinks.items()},
    }
    for name, content in files.items():
        assert learned(fit(folder, content, name=name)) == 300, name
        assert set(kinds(folder)) == {"x"}
        got = answers(folder, content, name=f"g{name}")
        assert got == frame["y"].tolist(), name
    for name, content in (
        ("f.xlsx", excel.getvalue()),
        ("f.xls", bytes.fromhex("d0cf11e0a1b11ae1") + b"\0" * 40),
        ("f.csv.gz", files["f.csv.gz"][:-9]),
        ("f.csv.bz2", files["f.csv.bz2"][:-9]),
        ("f.zip", files["f.zip"][:-9]),
        ("f.arrow", files["f.arrow"][:-9]),
    ):
        line = refused("fit", write(folder / name, content), "--target", "y", "--state", folder / "new")
        assert name in line and ("xls" not in name or "CSV" in line or "csv" in line), line


@case("R names")
def names_that_stand_twice(folder: Path) -> None:
    rows = [f"{i % 9},5,{'ab'[i % 9 > 4]},{i % 2}" for i in range(300)]
    out = fit(folder, "\n".join(["x,x,y,", *rows, ""]))
    names = list(kinds(folder))
    assert learned(out) == 300 and len(names) == len(set(names)) == 3 and "x" in names and all(names)
    assert answers(folder, "\n".join(["x,x,y,", *rows, ""])) == [row.split(",")[2] for row in rows]
    second = next(name for name in names if name.startswith("x") and name != "x")
    fit(folder, "\n".join(["x,x,y,", *rows, ""]), "--drop", second)
    assert second not in kinds(folder) and "x" in kinds(folder)


@case("R no header")
def files_without_a_header(folder: Path) -> None:
    rows = [f"{i % 9},{i % 2},{'ab'[i % 9 > 4]}" for i in range(300)]
    file = write(folder / "f.csv", "\n".join([*rows, ""]))
    words = ["fit", file, "--state", folder / "s", "--header", "none", "--quiet", "--target"]
    line = refused(*words, "no such column")
    last = line.rstrip(" ?\n").split("'")[-2]
    assert learned(good(*words, last)) == 300
    assert answers(folder, "\n".join([*rows, ""]), "--header", "none") == [row[-1] for row in rows]


@case("R lines of comments")
def lines_of_comments(folder: Path) -> None:
    rows = [f"{i % 9},{'ab'[i % 9 > 4]}" for i in range(300)]
    out = fit(folder, "\n".join(["# exported by hand", "# unit: kg, m", "x,y", *rows, ""]))
    assert learned(out) == 300 and set(kinds(folder)) == {"x"}
    assert answers(folder, "# a note\nx\n1\n8\n") == ["a", "b"]


@case("R rows as dicts")
def rows_as_dicts(folder: Path) -> None:
    rows = [{"x": float(i % 9), "w": "red"} for i in range(300)]
    y = ["ab"[i % 9 > 4] for i in range(300)]
    try:
        model = RefinedClassifier().partial_fit(rows, y)
        assert model.predict([{"w": "red", "x": 1.0}, {"x": 8.0, "w": "red"}]).tolist() == ["a", "b"]
    except (ValueError, TypeError) as error:
        assert "DataFrame" in str(error), str(error)


@case("R blanks")
def blanks_around_names_and_labels(folder: Path) -> None:
    rows = [f" {i % 9} , {'yes ' if i % 9 > 4 else 'no'}" for i in range(300)]
    rows[8] = "8,yes"
    out = fit(folder, "\n".join(["x, y ", *rows, ""]))
    assert (learned(out), class_count(out)) == (300, 2) and kinds(folder) == {"x": "number"}
    assert answers(folder, " x\n1\n 8\n") == ["no", "yes"]


@case("R train on a used folder")
def training_into_a_used_folder(folder: Path) -> None:
    family = LinearRegression(3)
    config = TrainConfig(iterations=1, tasks=2, warmup=1, log_every=1)
    scheme = Greedy(batch_size=8, horizon=1)
    train(build("parametric-gradients", family), family, scheme, config, out=folder / "run", progress=False)
    with raises("resume=True"):
        train(
            build("parametric-gradients", family), family, scheme, config, out=folder / "run", progress=False
        )


@case("R options")
def options_as_people_write_them(folder: Path) -> None:
    rows = [f"{i % 9},{i % 9 % 2}" for i in range(300)]
    table = "\n".join(["x,y", *rows, ""])
    write(folder / "f.csv", table)
    words = ["fit", folder / "f.csv", "--target", "y", "--state", folder / "s", "--force", "--quiet"]
    done = call(*words, "--batch-size", "1e3")
    if done.code == 0:
        assert read(folder / "s")[1]["params"]["batch_size"] == 1000
    else:
        assert "1e3" in done.err and "whole number" in done.err
    done = call(*words, "--classes", "0,0,1")
    assert class_count(done.out) == 2 if done.code == 0 else "0" in done.err and "twice" in done.err
    fit(folder, table, "--text", "x")
    assert kinds(folder) == {"x": "text"}
    wide = "\n".join(["x,z,w,y", *(f"{row.split(',')[0]},1,v,{row.split(',')[1]}" for row in rows), ""])
    fit(folder, wide, "--columns", "x,w")
    assert set(kinds(folder)) == {"x", "w"}
    assert len(answers(folder, "x,w\n1,v\n")) == 1


@case("R numbers seen late")
def targets_whose_numbers_come_late(folder: Path) -> None:
    values = [*(i % 5 for i in range(6000)), *range(6000)]
    fit(folder, "\n".join(["x,y", *(f"{value % 700},{value}" for value in values), ""]))
    assert task(folder) == "regression"


@case("R id")
def an_id_is_carried_into_the_predictions(folder: Path) -> None:
    ids = [f"{i:05}" for i in range(300)]
    rows = [f"{name},{i % 9},{'ab'[i % 9 > 4]}" for i, name in enumerate(ids)]
    table = "\n".join(["id,x,y", *rows, ""])
    fit(folder, table, "--id", "id")
    assert set(kinds(folder)) == {"x"}
    got = predict(folder, table, "--id", "id")
    assert [row["id"] for row in got] == ids
    assert [row["prediction"] for row in got] == [row[-1] for row in rows]
    big = [str(11898508762506083287 + i) for i in range(9)]
    got = predict(
        folder, "\n".join(["id,x", *(f"{name},{i}" for i, name in enumerate(big)), ""]), "--id", "id"
    )
    assert [row["id"] for row in got] == big


@case("R stdin and stdout")
def pipes(folder: Path) -> None:
    table = "\n".join(["x,y", *(f"{i % 9},{'ab'[i % 9 > 4]}" for i in range(300)), ""])
    python = [sys.executable, "-m", "gradatim"]
    words = ["fit", "-", "--target", "y", "--state", str(folder / "s"), "--quiet"]
    done = subprocess.run([*python, *words], input=table.encode(), capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    words = ["predict", "-", "--state", str(folder / "s"), "--out", "-"]
    done = subprocess.run([*python, *words], input=b"x\n1\n8\n", capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().splitlines() == ["prediction", "a", "b"]


@case("R several files")
def several_files_in_one_call(folder: Path) -> None:
    (folder / "parts").mkdir()
    rows = [f"{i % 9},{'ab'[i % 9 > 4]}" for i in range(300)]
    for part in range(3):
        write(folder / "parts" / f"{part}.csv", "\n".join(["x,y", *rows[part::3], ""]))
    for words in (
        [folder / "parts" / f"{part}.csv" for part in range(3)],
        [folder / "parts"],
        [folder / "parts" / "*.csv"],
    ):
        words = ["fit", *words, "--target", "y", "--state", folder / "s", "--force", "--quiet"]
        assert learned(good(*words)) == 300
    out = folder / "out.csv"
    good("predict", folder / "parts" / "*.csv", "--state", folder / "s", "--out", out, "--quiet")
    assert [row["prediction"] for row in rows_of(out)] == [
        row[-1] for part in range(3) for row in rows[part::3]
    ]
    line = refused("fit", folder / "none" / "*.csv", "--target", "y", "--state", folder / "new")
    assert "*.csv" in line


@case("R weight")
def a_column_of_weights(folder: Path) -> None:
    rng = np.random.default_rng(0)
    x, count = rng.normal(size=300).round(3), rng.integers(1, 4, 300)
    y = np.where(x + 0.5 * rng.normal(size=300) > 0, "b", "a")
    frame = pd.DataFrame({"x": x, "w": count, "y": y})
    fit(folder, frame, "--weight", "w")
    assert set(kinds(folder)) == {"x"} and read(folder / "s")[1]["rows"] == count.sum()
    weighted = predict(folder, "x\n-0.1\n0.3\n", "--proba")
    fit(folder, frame.loc[frame.index.repeat(count), ["x", "y"]])
    for row, other in zip(weighted, predict(folder, "x\n-0.1\n0.3\n", "--proba"), strict=True):
        assert abs(float(row["proba_a"]) - float(other["proba_a"])) < 0.02
    bad = write(folder / "g.csv", "x,w,y\n1,-2,a\n2,1,b\n")
    assert "'w'" in refused("fit", bad, "--target", "y", "--state", folder / "new", "--weight", "w")


@case("R order")
def sorted_files(folder: Path) -> None:
    rng = np.random.default_rng(0)
    n = 3000
    frame = pd.DataFrame(
        {"time": np.arange(n) / n, "a": rng.normal(size=n), "g": rng.choice(list("uvwxyz"), n)}
    )
    signal = 2 * frame["a"] + frame["g"].map(dict(zip("uvwxyz", range(6), strict=True))) + 3 * frame["time"]
    frame["y"] = signal + 0.3 * rng.normal(size=n)
    held = rng.random(n) < 0.3
    errors = {}
    for name, table in (
        ("shuffled", frame[~held].sample(frac=1, random_state=0)),
        ("by target", frame[~held].sort_values("y")),
        ("by a word", frame[~held].sort_values("g")),
        ("by time", frame[~held]),
    ):
        fit(folder, table)
        got = np.array([float(text) for text in answers(folder, frame.loc[held, ["time", "a", "g"]])])
        errors[name] = np.sqrt(np.mean((got - frame.loc[held, "y"]) ** 2))
    assert max(errors.values()) <= 1.05 * errors["shuffled"], errors


@case("R remap and check")
def remap_and_check(folder: Path) -> None:
    rows = [f"{i % 9},{'ab'[i % 9 > 4]}" for i in range(300)]
    fit(folder, "\n".join(["x,y", *rows, ""]))
    before = read(folder / "s")[1]["rows"]
    more = write(
        folder / "more.csv", "\n".join(["x,y", *(f"{50 + i % 9},{'ab'[i % 9 > 4]}" for i in range(300)), ""])
    )
    good("remap", more, "--state", folder / "s", "--quiet")
    assert read(folder / "s")[1]["rows"] >= before
    good("info", "--check", folder / "s")
    content = bytearray((folder / "s").read_bytes())
    content[-5] ^= 4
    damaged = write(folder / "damaged", bytes(content))
    done = call("info", "--check", damaged)
    assert done.code == 2 and str(damaged) in done.out + done.err
    assert os.path.exists(folder / "s")
