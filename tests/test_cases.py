"""The table of cases from users' reports: the file as pandas would read it, accuracy within .02."""

import warnings

import pytest
from tests.cases import CASES


@pytest.mark.parametrize("name", CASES)
def test_the_case_gives_the_right_value(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "case"
    folder.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a note is no fault here
        CASES[name](folder)
