"""The study of the house: what it counts, and that a result that moves is noticed."""

import ast
import json

import pytest
from studies.house import moved, record, streams, wheel, wording
from studies.house.page import PAGE

from gradatim.comparison.report import Result


def test_a_figure_that_moves_is_a_difference_and_rounding_is_none():
    before = {"core": {"records": {"a": 1.0, "b": None, "c": 0.0, "d": 2.0}}}
    after = {"core": {"records": {"a": 1.00005, "b": None, "c": 1e-7, "d": 2.001, "e": 1.0}}}
    assert [d["figure"] for d in moved.differences(before, after)] == ["core/records/d"]
    assert [d["after"] for d in moved.differences(before, {})] == ["missing"] * 4
    diverged = {"core": {"records": {"a": 1.0, "b": 1.0, "c": 0.0, "d": None}}}
    assert [d["figure"][-1] for d in moved.differences(before, diverged)] == ["b", "d"]


@pytest.mark.parametrize(("error", "count"), [(0.1001, 0), (0.103, 1)])
def test_validation_tables_are_compared_over_the_ridge(error, count):
    def tables(ours):
        return {"validation": {"t": {"gradatim": {"error": ours}, "plain-ridge": {"error": 0.2}}}}

    assert len(moved.differences(tables(0.1), tables(error))) == count
    squares = {"t": {"gradatim": {"square": 1.0}, "plain-ridge": {"square": 4.0}}}
    assert moved.over_ridge(squares) == {"t/square": 0.5}


def test_times_and_bytes_are_no_results():
    claims = [
        {"id": name, "value": 1.0, "low": 1.0, "high": 1.0} for name in ("core.regimes", "core.throughput")
    ]
    cell = {"name": "r", "family": "f", "seed": None, "steps": 2, "mean": 3.0}
    cells = [cell | {"metric": "seconds"}, cell | {"metric": "error"}]
    figures = moved.study_figures({"claims": claims, "cells": cells})
    assert list(figures["claims"]) == ["core.regimes"]
    assert figures["records"] == {"f": {"r": {"error": {"None": {"2": 3.0}}}}}


def test_the_recorded_figures_are_all_there_and_a_command_writes_them(tmp_path, capsys):
    before = json.loads(moved.BEFORE.read_text())
    assert set(before) == {*moved.STUDIES, "validation", "golden"}
    assert moved.BEFORE.stat().st_size < 300_000
    (tmp_path / "golden.json").write_text('{"a": {"start": [0.123456789]}}')
    assert record.main([str(tmp_path), "--out", str(tmp_path / "out.json")]) == 0
    assert json.loads((tmp_path / "out.json").read_text()) == {"golden": {"a": {"start": {"0": 0.12345679}}}}
    assert record.main([str(tmp_path / "none"), "--out", str(tmp_path / "out.json")]) == 2
    assert "no JSON of a study" in capsys.readouterr().out


def test_names_shapes_and_type_tests_are_counted(tmp_path):
    (tmp_path / "a.py").write_text(
        "def f(x: Tensor):\n"
        '    """Take x `[B, N]`."""\n'
        "    found = isinstance(x, Experts | int) or isinstance(x, Ridge)\n"
        "def g(x: Tensor): ...\n"
        "def _h(x: Tensor): ...\n"
    )
    assert wording.vague_names(tmp_path) == 25
    assert wording.shapes(tmp_path) == 0.5
    assert wording.lines(tmp_path) == 5
    assert wording.private_paths(tmp_path) == ["Experts", "Ridge"]
    code = "type(x) is refiners.Experts\nmatch x:\n    case Ridge(): pass\n"
    assert sorted(wording.tested_classes(ast.parse(code))) == ["Experts", "Ridge"]


def test_calls_are_counted_and_methods_put_back():
    class Adder:
        def add(self, x):
            return x + 1

    before = Adder.add
    with streams.counted(Adder, "add", lambda self, x: x) as calls:
        assert Adder().add(2) == 3
    assert calls == [2] and Adder.add is before


def test_a_users_file_that_does_less_than_it_should_is_a_failure(tmp_path):
    def ends(code, text):
        return type("Done", (), {"returncode": code, "stdout": text, "stderr": ""})()

    assert wheel.problem(ends(1, "an error"), tmp_path) == "an error"
    assert wheel.problem(ends(0, ""), tmp_path) == "no weights were saved"
    (tmp_path / "a.safetensors").touch()
    assert "does not name" in wheel.problem(ends(0, "parameters"), tmp_path)
    assert wheel.problem(ends(0, " ".join(wheel.EXPECTED)), tmp_path) == ""


def test_the_page_says_what_failed():
    claims = [{"id": name, "value": None, "low": None, "high": None} for name in PAGE.claims]
    text = " ".join(PAGE.questions[2].answer(Result({"claims": claims})))
    assert "does not yet work" in text and "nan" not in text
