"""The study of findings with converged learners: when a learner is flat, who votes, and a run at its smallest size."""

import numpy as np
import pytest
from rich.console import Console
from studies.meta import converged
from studies.meta.converged import CAP, FIRST, FLAT, judge_findings, part, rounds

from gradatim.comparison.runs import Study


def test_each_round_is_the_last_quarter():
    lengths = list(rounds(FIRST, CAP))
    total = np.cumsum(lengths)
    assert total[-1] <= CAP < total[-1] + total[-1] // 3
    np.testing.assert_allclose(np.array(lengths[1:]) / total[1:], 0.25, atol=0.002)


def test_only_learners_that_are_flat_vote():
    rng = np.random.default_rng(0)
    names = sorted({row for _, family, *pair in converged.FINDINGS if family == "linear-8" for row in pair})
    results = {"linear-8": {name: {"error": rng.uniform(1, 2, (2, 3, 50))} for name in names}}
    results["linear-8"]["parametric-both"]["error"] /= 4
    votes = {("linear-8", name): name != "explicit-both" for name in names}
    found = judge_findings(results, votes)
    assert not found["4. parametric beats explicit"]
    _, _, high = found["1. ten steps are better than one"][
        "linear-8: parametric-both over parametric-both-one-step"
    ]
    assert high < 0


def test_findings_name_rows_that_are_trained():
    trained = {(cell.family, cell.row) for cell in converged.cells(False)}
    assert {(family, row) for _, family, *pair in converged.FINDINGS for row in pair} <= trained
    assert len(trained) == sum(map(len, converged.ROWS.values()))


def test_a_small_run_goes_on_from_its_records(tmp_path, monkeypatch):
    monkeypatch.setattr(converged, "ROWS", {"linear-8": ("parametric-gradients",), "sinusoids": ()})
    monkeypatch.setattr(converged, "UNLEARNT", {"linear-8": ("ridge",), "sinusoids": ()})
    study = Study(tmp_path, 1, Console(quiet=True))
    first = part(study, True, 1)
    monkeypatch.setattr(converged, "measure", None)  # a second run trains nothing
    assert part(study, True, 1) == first
    assert first["claims"][0]["id"] == "meta.findings_converged" and first["claims"][0]["value"] in (0, 1)
    fall = float(first["listings"][0]["rows"][0][4].rstrip("%")) / 100
    assert (abs(fall) < FLAT) == (first["listings"][0]["rows"][0][5] == "yes")
    with pytest.raises(TypeError):
        part(Study(tmp_path / "other", 1, Console(quiet=True)), True, 1)
