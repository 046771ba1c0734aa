"""Result pages: rendered from the JSON alone, short, and every picture of the repository is shown on a page."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from studies import STUDIES
from studies.render import RESULTS, main, page_of

from gradatim.comparison.report import Page, Question, Result, render, write_result

DOCS = RESULTS.parent
CLAIM = {
    "id": "mine.ratio",
    "value": 0.5,
    "low": 0.4,
    "high": 0.6,
    "bar": 0.4,
    "direction": "<=",
    "holds": False,
}
ABOUT = {
    "benchmark": "mine",
    "smoke": False,
    "seeds": 1,
    "commit": "c",
    "torch": "t",
    "records": [],
    "claims": [CLAIM],
}


def undrawn(page):
    """The page, its pictures taken as drawn."""
    questions = tuple(replace(q, draw=q.draw and (lambda result, png: None)) for q in page.questions)
    return replace(page, questions=questions)


@pytest.mark.parametrize("study", STUDIES)
def test_a_committed_page_is_that_of_its_json(study, tmp_path):
    path = tmp_path / f"{study}.json"
    path.write_bytes((RESULTS / path.name).read_bytes())
    text = render(path, undrawn(page_of(study)))[0].read_text()
    assert text == (RESULTS / f"{study}.md").read_text(), "out of date: run python -m studies.render"
    assert "nan" not in text and "not run" not in text


@pytest.mark.parametrize("study", STUDIES)
def test_a_page_says_what_each_claim_measures_and_has_small_tables(study):
    page = page_of(study)
    claims = json.loads((RESULTS / f"{study}.json").read_text())["claims"]
    assert {claim["id"] for claim in claims} == set(page.claims)
    result = Result(json.loads((RESULTS / f"{study}.json").read_text()))
    for question in page.questions:
        assert len(list(question.answer(result))) == 3
        if question.table is not None:
            columns, rows = question.table(result)
            assert 0 < len(rows) <= 12 and all(len(row) == len(columns) for row in rows)


@pytest.mark.parametrize("study", STUDIES)
def test_a_page_of_a_study_that_measured_nothing_is_written_all_the_same(study, tmp_path):
    """A smoke run has fewer families, steps and claims than the page asks for."""
    paths = write_result(tmp_path, study, {**ABOUT, "benchmark": study, "smoke": True}, page_of(study))
    assert [path.suffix for path in paths] == [".json", ".md"]
    assert "A smoke run" in paths[1].read_text()


def test_every_picture_is_shown_on_a_page():
    pages = [DOCS.parent / "README.md", *DOCS.rglob("*.md")]
    shown = {
        Path(name).name
        for page in pages
        for name in re.findall(r"!\[[^\]]*\]\(([^)]+\.png)\)", page.read_text())
    }
    assert {path.name for path in RESULTS.glob("*.png")} <= shown
    assert {name for name in shown if not (RESULTS / name).exists()} == set()


def test_a_page_answers_with_numbers_of_the_json_and_prints_a_negative_verdict(tmp_path):
    question = Question(
        "ratio",
        "Is it better?",
        lambda result: [f"The ratio is {result.value('mine.ratio')}."],
        lambda result, png: png.write_text("x") and None,
        "A picture",
        lambda result: (["a"], [["1"]]),
    )
    page = Page("mine", (question,), {"mine.ratio": "errors over those of ridge"}, "Read so.")
    paths = write_result(tmp_path, "mine", dict(ABOUT), page)
    assert [path.name for path in paths] == ["mine.json", "mine.md", "mine-ratio.png"]
    text = paths[1].read_text()
    assert text.startswith(
        "# Is it better?\n\nThe ratio is 0.5.\n\n![A picture](mine-ratio.png)\n\n| a |\n|---|\n| 1 |\n"
    )
    assert "| `mine.ratio` | errors over those of ridge | 0.5 [0.4, 0.6] | <= 0.4 | **no** |" in text
    assert "## Verdicts: 0 of 1 hold" in text and "Read so." in text


def test_what_was_not_run_is_said(tmp_path):
    result = Result(ABOUT)
    assert result.interval("mine.other") == "not run"
    assert result.cell("digits", "ridge", 10) == "" and result.curve("digits", "ridge") == []
    with pytest.raises(ValueError, match="no study is called 'mine'"):
        page_of("mine")


def test_a_page_is_rendered_by_a_command(tmp_path, capsys):
    path = tmp_path / "core.json"
    path.write_bytes((RESULTS / "core.json").read_bytes())
    assert main([str(path)]) == 0
    assert (tmp_path / "core.md").exists() and str(tmp_path / "core.md") in capsys.readouterr().out
