"""Cases D1 to D13, D18, D20 and D21: how a file is read."""

import datetime
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from gradatim.estimators import RefinedClassifier
from gradatim.preprocessing import read_columns

from .case_tools import (
    accuracy,
    answers,
    cases_into,
    class_count,
    fit,
    good,
    kinds,
    learned,
    predict,
    refused,
    rows_of,
    skipped,
    task,
    write,
)

READING: dict[str, Callable[[Path], None]] = {}


case = cases_into(READING)


def lines(header: str, rows: list[str]) -> str:
    """Return a CSV file of a header and rows."""
    return "\n".join([header, *rows, ""])


@case("D1")
def dates_of_any_year(folder: Path) -> None:
    for odd in ("9999-12-31", "2300-01-01", "1677-01-01", "0001-01-01", "1600-02-29"):
        assert learned(fit(folder, f"t,y\n2024-01-01,a\n{odd},b\n")) == 2
        assert kinds(folder) == {"t": "date"}
        day = datetime.date.fromisoformat(odd)
        wanted = day.toordinal() - datetime.date(1970, 1, 1).toordinal()
        arrow = pa.array([datetime.date(2024, 1, 1), day], pa.date32())
        pandas = pd.Series(arrow.to_pylist(), dtype=pd.ArrowDtype(pa.date32()))
        for X in (
            pa.table({"t": arrow}),
            pd.DataFrame({"t": pandas}),
            pd.DataFrame({"t": arrow.to_pylist()}),
        ):
            assert read_columns(X).values[0].tolist() == [19723.0, float(wanted)]
        fit(folder, lines("t,y", [f"2024-01-0{1 + i % 9},a\n{odd},b" for i in range(20)]))
        texts = answers(folder, f"t\n{odd}\n2024-01-05\n")
        parquet.write_table(pa.table({"t": arrow}), folder / "g.parquet")
        good("predict", folder / "g.parquet", "--state", folder / "s", "--out", folder / "o.csv", "--quiet")
        assert [row["prediction"] for row in rows_of(folder / "o.csv")][::-1] == texts == ["b", "a"]
    rows = [f"{2024 + 7000 * (i % 2)}-0{1 + i % 9}-15,{'ab'[i % 2]}" for i in range(300)]
    assert accuracy(fit(folder, lines("t,y", rows))) > 0.9


@case("D2")
def decimals_of_a_second(folder: Path) -> None:
    for text in ("T00:00:00.1234567", "T00:00:00.123456789", " 00:00:00.1234567", "T00:00:00.1234567Z"):
        table = f"t,y\n2024-01-01{text},a\n2024-01-02{text},b\n"
        assert learned(fit(folder, table)) == 2
        assert kinds(folder)["t"] in ("date", "zoned")
    rows = [
        f"2024-01-{1 + i % 28:02}T00:00:00{'.1234567' if i > 250 else ''},{'ab'[i % 28 > 13]}"
        for i in range(300)
    ]
    out = fit(folder, lines("t,y", rows))
    assert learned(out) == 300 and accuracy(out) > 0.9
    cells = "t\n2024-01-20T00:00:00.1234567\n2024-01-20T00:00:00.123456\n"
    first, second = predict(folder, cells, "--proba")
    # cut to microseconds; where a row stands in a batch may change the last bit
    assert abs(float(first["proba_a"]) - float(second["proba_a"])) < 1e-12


@case("D3")
def words_of_missing_are_words(folder: Path) -> None:
    for word in ("None", "NA", "null", "nan", "-", "?", "N/A"):
        grades = [word, "Mild", "Severe"]
        out = fit(
            folder, lines("x,grade", [f"{i % 6},{grades[i % 6 // 2]}" for i in range(60)]), target="grade"
        )
        assert (learned(out), class_count(out)) == (60, 3), word
        assert answers(folder, "x\n0\n3\n5\n") == grades
        out = fit(folder, lines("w,y", [f"{grades[i % 3]},{'ab'[i % 3 == 0]}" for i in range(320)]))
        assert accuracy(out) > 0.9 and kinds(folder) == {"w": "text"}
    rows = [f"{i % 6},{['None', 'Mild', 'Severe', ''][i % 4]}" for i in range(80)]
    out = fit(folder, lines("x,grade", rows), target="grade")
    assert (learned(out), class_count(out), skipped(out)) == (60, 3, 20)
    out = fit(folder, lines("x,grade", rows), "--missing", "None", target="grade")
    assert (learned(out), class_count(out), skipped(out)) == (40, 2, 40)


@case("D4")
def labels_that_begin_late(folder: Path) -> None:
    for labels in ("ab", "01"):
        rows = [f"{i % 7},{'p' * 30},{'' if i < 9000 else labels[i % 7 > 3]}" for i in range(9500)]
        out = fit(folder, lines("x,note,y", rows))
        assert (learned(out), class_count(out), skipped(out)) == (500, 2, 9000)
        assert answers(folder, f"x,note\n1,{'p' * 30}\n6,{'p' * 30}\n") == list(labels)
    rows = [f"{i % 7},{'p' * 30},{'' if i < 9000 else i % 7 + 0.25}" for i in range(9500)]
    out = fit(folder, lines("x,note,y", rows))
    assert (learned(out), skipped(out), task(folder)) == (500, 9000, "regression")


@case("D5")
def delimiters(folder: Path) -> None:
    tables = {
        '"weight, kg";c;y\n70;red;a\n71;blue;b\n': {"weight, kg", "c"},
        '"weight; kg",c,y\n70,red,a\n71,blue,b\n': {"weight; kg", "c"},
        "weight, kg;c;y\n70;red;a\n71;blue;b\n": {"weight, kg", "c"},
        "weight|c|y\n70|red|a\n71|blue|b\n": {"weight", "c"},
        "weight\tc, d\ty\n70\tred\ta\n71\tblue\tb\n": {"weight", "c, d"},
        'weight,"c\nd",y\n70,"red;x;y;z",a\n71,blue,b\n': {"weight", "c\nd"},
    }
    for text, names in tables.items():
        assert learned(fit(folder, text)) == 2 and set(kinds(folder)) == names
    fit(folder, "weight:c:y\n70:red:a\n71:blue:b\n", "--delimiter", ":")
    assert set(kinds(folder)) == {"weight", "c"}


@case("D6")
def one_odd_cell(folder: Path) -> None:
    def table(cell: str) -> str:
        return lines(
            "x,y",
            [f"{cell if i == 7 else round(i * 1.37 % 10, 2)},{'ab'[i * 1.37 % 10 > 5]}" for i in range(600)],
        )

    wanted = accuracy(fit(folder, table("")))
    assert wanted > 0.96
    words = ["-", "--", ".", "none", "n.a.", "missing", "Unknown", "#DIV/0!", "N/A", "***", "tbd", "<5", "ND"]
    for word in words:
        out = fit(folder, table(word))
        assert abs(accuracy(out) - wanted) <= 0.02 and kinds(folder) == {"x": "number"}, word
        if word not in ("none", "N/A", "-", "--", "n.a."):  # usual words for missing need no note
            assert word in out and "line 9" in out and "'x'" in out, out
    rng = np.random.default_rng(0)
    x = rng.normal(size=600).round(3)
    rows = [f"{str(value).replace('.', ',')};{'ab'[value > 0]}" for value in x.tolist()]
    for options in ((), ("--decimal", ",")):
        assert accuracy(fit(folder, lines("x;y", rows), *options)) > 0.97
        assert kinds(folder) == {"x": "number"}
    rows = [f"{i % 17};{str(3 * (i % 17) + 0.5).replace('.', ',')}" for i in range(300)]
    fit(folder, lines("x;y", rows))
    assert task(folder) == "regression"
    assert abs(float(answers(folder, "x\n5\n")[0].replace(",", ".")) - 15.5) < 1


@case("D6 formats")
def numbers_and_dates_as_people_write_them(folder: Path) -> None:
    writers: dict[str, tuple[Callable[[int], str], str]] = {
        "thousands": (lambda v: f'"{v * 1000 + 7:,}"', "number"),
        "currency": (lambda v: f"${v}.50", "number"),
        "euro": (lambda v: f"{v}.50 €", "number"),
        "percent": (lambda v: f"{v}%", "number"),
        "american dates": (lambda v: f"{1 + v // 28:02}/{1 + v % 28:02}/2024", "date"),
        "dotted dates": (lambda v: f"{1 + v % 28:02}.{1 + v // 28:02}.2024", "date"),
    }
    for name, (text, kind) in writers.items():
        values = [i * 37 % 100 for i in range(400)]
        out = fit(folder, lines("v,y", [f"{text(v)},{'ab'[v > 50]}" for v in values]))
        assert kinds(folder) == {"v": kind} or "'v'" in out, name
        assert accuracy(out) > 0.9, name


@case("D7")
def columns_that_show_themselves_late(folder: Path) -> None:
    random.seed(0)
    years = [random.choice([2023, 2024]) for _ in range(3000)]
    for early in ("", "2023", "0"):
        rows = [f"{early if i < 300 else r},{i % 5},{'ab'[r - 2023]}" for i, r in enumerate(years)]
        fit(folder, lines("k,x,y", rows))
        wanted = ["ab"[r - 2023] for r in years[300:]]
        got = answers(folder, lines("k,x", [f"{r},{i % 5}" for i, r in enumerate(years[300:])]))
        assert np.mean(np.array(got) == np.array(wanted)) >= 0.99, early
    fit(folder, lines("k,x,y", [f",{i % 5},{'ab'[r - 2023]}" for i, r in enumerate(years[:400])]))
    write(folder / "more.csv", lines("k,x,y", [f"{r},{i % 5},{'ab'[r - 2023]}" for i, r in enumerate(years)]))
    good("update", folder / "more.csv", "--state", folder / "s", "--quiet")
    got = answers(folder, "k,x\n2023,1\n2024,1\n")
    assert got == ["a", "b"]


@case("D7 in a stream")
def streams_of_columns_that_show_themselves_late(folder: Path) -> None:
    rng = np.random.default_rng(0)
    year, x = rng.choice([2023.0, 2024.0], 3000), rng.normal(size=3000)
    y = year > 2023.5
    for early in (np.nan, 0.0, 2023.0):
        k = np.where(np.arange(3000) < 300, early, year)
        model = RefinedClassifier()
        for start in range(0, 3000, 100):
            part = slice(start, start + 100)
            model.partial_fit(np.column_stack([k, x])[part], y[part])
        assert np.mean(model.predict(np.column_stack([year, x])) == y) >= 0.99, early
    words = np.array(["red", "blue"], dtype=object)[y.astype(int)]
    for early in (None, "red"):
        k = words.copy()
        k[:300] = early
        frame = pd.DataFrame({"k": k, "x": x})
        model = RefinedClassifier()
        for start in range(0, 3000, 100):
            model.partial_fit(frame.iloc[start : start + 100], y[start : start + 100])
        assert np.mean(model.predict(frame.assign(k=words)) == y) >= 0.99, early


@case("D8")
def quantities_are_no_classes(folder: Path) -> None:
    rows = [f"{i % 50},{2700 + 25 * (i % 50) + 25 * (i * 7 % 3)}" for i in range(240)]
    fit(folder, lines("h,mass", rows), target="mass")
    assert task(folder) == "regression"
    fit(folder, lines("h,w", [f"{i % 60},{150 + 3 * (i % 60)}" for i in range(240)]), target="w")
    assert task(folder) == "regression"
    fit(folder, lines("h,w", [f"{i % 60},{1.5 * (i % 60)}" for i in range(240)]), target="w")
    assert task(folder) == "regression"
    for labels in (range(10), (1, 2), (0, 1), (5, 7, 9)):
        out = fit(
            folder, lines("h,c", [f"{i % 60},{labels[i % len(labels)]}" for i in range(600)]), target="c"
        )
        assert task(folder) == "classification" and class_count(out) == len(labels)


@case("D9")
def labels_come_back_as_they_stood(folder: Path) -> None:
    for labels in (
        ["007", "012", "120"],
        ["01", "1", "10"],
        ["1.0", "2.0", "3.0"],
        ["TRUE", "FALSE"],
        ["True", "False"],
        ["yes", "no"],
        ["+1", "-1"],
        ["00", "01"],
    ):
        n = len(labels)
        table = lines("x,code", [f"{i % (2 * n)},{labels[i % (2 * n) // 2]}" for i in range(120)])
        out = fit(folder, table, "--task", "classification", target="code")
        assert class_count(out) == n
        row = predict(folder, lines("x", [str(2 * i) for i in range(n)]), "--proba")
        assert [part["prediction"] for part in row] == labels
        assert {f"proba_{label}" for label in labels} <= set(row[0])


@case("D10")
def whole_numbers_beyond_two_to_the_53(folder: Path) -> None:
    for first in (11898508762506083287, 2**53 + 1, -(2**60) - 5, 10**25):
        ids = [first + i % 4 for i in range(400)]
        rows = [f"{v},{'ab'[i % 4 > 1]}" for i, v in enumerate(ids)]
        out = fit(folder, lines("id,y", rows))
        assert accuracy(out) > 0.9 or "'id'" in out, out
        if accuracy(out) > 0.9:
            assert answers(folder, lines("id", [str(first + i) for i in range(4)])) == ["a", "a", "b", "b"]
    frame = pd.DataFrame({"id": np.array([2**60 + i % 4 for i in range(400)]), "y": list("aabb") * 100})
    out = fit(folder, frame, name="f.parquet")
    assert accuracy(out) > 0.9 or "'id'" in out


@case("D11")
def columns_that_the_state_does_not_know(folder: Path) -> None:
    fit(folder, lines("x,y", [f"{i % 9},{'ab'[i % 9 > 4]}" for i in range(300)]))
    plain = answers(folder, "x\n1\n8\n")
    write(folder / "g.csv", "extra,x\n5,1\nw,8\n")
    out = good("predict", folder / "g.csv", "--state", folder / "s", "--out", folder / "out.csv", "--quiet")
    assert "'extra'" in out and [row["prediction"] for row in rows_of(folder / "out.csv")] == plain == [
        "a",
        "b",
    ]
    assert answers(folder, "extra,x\n5,1\nw,8\n", "--drop", "extra") == plain
    write(folder / "more.csv", "extra,x,y,z\n5,1,a,\nw,8,b,\n")
    out = good("update", folder / "more.csv", "--state", folder / "s", "--quiet")
    assert learned(out) == 2 and "'extra'" in out
    write(folder / "few.csv", "extra\n5\n")
    line = refused("predict", folder / "few.csv", "--state", folder / "s", "--out", folder / "o.csv")
    assert "'x'" in line


@case("D12")
def levels_of_quantiles(folder: Path) -> None:
    fit(folder, lines("x,y", [f"{i % 9},{i % 9 + 0.5}" for i in range(100)]))
    for levels in ("0.9999999,0.99999999,0.5", "0.1234567,0.12345671", "1e-9,2e-9,0.5"):
        row = predict(folder, "x\n1\n", "--quantiles", levels)[0]
        assert len(row) == 2 + levels.count(",") and all(value for value in row.values())
    write(folder / "g.csv", "x\n1\n")
    words = ["--state", folder / "s", "--out", folder / "o.csv", "--quantiles"]
    assert "0.5" in refused("predict", folder / "g.csv", *words, "0.5,0.1,0.50")


@case("D13")
def fields_of_any_length(folder: Path) -> None:
    for place in (0, 5, 40):
        rows = [f"{i % 7},{'z' * (1200000 if i == place else 3)},{'ab'[i % 7 > 3]}" for i in range(60)]
        assert learned(fit(folder, lines("x,note,y", rows), "--drop", "note")) == 60
    notes = ["z, \n" * (300_000 if i == 50 else 1) for i in range(60)]
    rows = [f'{i % 7},"{note}",{"ab"[i % 7 > 3]}' for i, note in enumerate(notes)]
    assert learned(fit(folder, lines("x,note,y", rows))) == 60
    assert answers(folder, f"x,note\n1,{'q' * 2_000_000}\n6,z\n") == ["a", "b"]


@case("D18")
def containers_agree_on_time_zones(folder: Path) -> None:
    naive = [f"2024-01-{1 + i % 28:02}" for i in range(300)]
    zoned = [f"{day}T00:00:00Z" for day in naive]
    for days in (naive, zoned):
        fit(folder, lines("t,x,y", [f"{day},{i % 5},{'ab'[i % 28 > 13]}" for i, day in enumerate(days)]))
        for utc, texts in (
            (True, ("2024-01-05T00:00:00Z", "2024-01-05 00:00:00Z", "2024-01-05T02:00:00+02:00")),
            (False, ("2024-01-05", "2024-01-05T00:00:00", "2024-01-05 00:00:00.000")),
        ):
            stamp = pd.Timestamp("2024-01-05", tz="UTC" if utc else None)
            wanted = predict(folder, pd.DataFrame({"t": [stamp], "x": [1]}), "--proba", name="g.parquet")
            for text in texts:
                assert predict(folder, f"t,x\n{text},1\n", "--proba") == wanted


@case("D20")
def the_unnamed_column_of_an_index(folder: Path) -> None:
    frame = pd.DataFrame({"x": np.arange(60) % 7, "y": np.where(np.arange(60) % 7 > 3, "b", "a")})
    text = frame.to_csv()
    out = fit(folder, text)
    assert "note" in out and len(kinds(folder)) in (1, 2)
    assert all(name.strip() for name in kinds(folder)) or "name" in out
    fit(folder, text, "--drop", "")
    assert set(kinds(folder)) == {"x"}
    assert answers(folder, text.replace(",y", ",unused")) == frame["y"].tolist()


@case("D21")
def lines_of_blanks(folder: Path) -> None:
    for blank in ("  ", "", "\t", " \n\n "):
        assert learned(fit(folder, f"x,y\n1,a\n2,b\n{blank}\n")) == 2
        assert learned(fit(folder, f"x,y\n1,a\n{blank}\n2,b\n")) == 2
    fit(folder, lines("x,y", [f"{i % 5},{'ab'[i % 5 > 2]}" for i in range(300)]))
    write(folder / "g.csv", "x\n1\n\n5\n")
    out = good("predict", folder / "g.csv", "--state", folder / "s", "--out", folder / "out.csv", "--quiet")
    assert len(rows_of(folder / "out.csv")) == 3 or "note" in out
