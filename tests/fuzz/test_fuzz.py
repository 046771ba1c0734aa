"""A share of the fuzzer that every run of the tests tries, and laws of reading over all inputs of a kind."""

import math

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.case_tools import fault_of
from tests.fuzz.fuzzer import PARTS, fuzz, run_part
from tests.fuzz.judge import FAILED, REFUSED, Hang, attempt

from gradatim.estimators import RefinedClassifier
from gradatim.preprocessing import read_columns

SHARE = {
    "columns": 600,
    "few-rows": 12,
    "refused": 40,
    "sequences": 2,
    "cuts": 2,
    "disk": 25,
    "commands": 40,
    "threads": 1,
    "kills": 1,
}
NUMBERS = st.one_of(st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False), st.none())
WORDS = st.one_of(st.text(st.characters(codec="utf-8"), max_size=20), st.none())
QUICK = settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("part", PARTS)
def test_a_share_of_each_part_does_not_fail(part, tmp_path):
    tried, failures = run_part(part, 0, SHARE.get(part, 150), tmp_path)
    assert tried >= SHARE.get(part, 150)
    assert not failures, "\n".join(failures[:5])


def test_cases_are_counted_and_repeat_by_their_seed():
    names = ["containers", "labels"]
    first, second = (fuzz(3, 40, names) for _ in range(2))
    assert first == second and first[0] >= 40
    assert sum(part.share for part in PARTS.values()) == pytest.approx(1, abs=0.02)


@QUICK
@given(st.lists(NUMBERS, min_size=1, max_size=8))
def test_numbers_are_the_same_in_every_container(cells):
    wanted = [math.nan if cell is None else float(cell) for cell in cells]
    floats = pa.array([None if cell is None else float(cell) for cell in cells], pa.float64())
    for X in (
        [[cell] for cell in cells],
        pd.DataFrame({"c": pd.Series(cells, dtype=object)}),
        pd.DataFrame({"c": wanted}),
        pl.DataFrame({"c": pl.from_arrow(floats)}),
        pa.table({"c": floats}),
    ):
        np.testing.assert_array_equal(np.asarray(read_columns(X).values[0], dtype=float), wanted)


@QUICK
@given(st.lists(WORDS, min_size=1, max_size=8).filter(lambda cells: any(cells)))
def test_words_are_the_same_in_every_container(cells):
    for X in (
        [[cell] for cell in cells],
        pd.DataFrame({"c": pd.Series(cells, dtype=object)}),
        pl.DataFrame({"c": pl.Series("c", cells, dtype=pl.String)}),
        pa.table({"c": pa.array(cells, pa.string())}),
    ):
        assert read_columns(X).values[0].tolist() == cells


@QUICK
@given(
    st.lists(
        st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(2**63, 2**64 - 1)), min_size=1, max_size=5
    )
)
def test_whole_numbers_are_exact_as_labels(labels):
    X = np.zeros((len(labels), 1))
    model, fault = attempt(RefinedClassifier().partial_fit, X, labels)
    assert not fault
    assert model is REFUSED or [int(label) for label in model.classes_] == sorted(set(labels))


def test_the_judge_tells_help_from_noise():
    def fail(error):
        raise error

    for error in (
        KeyError("a"),
        MemoryError(),
        IndexError("index -1 is out of bounds for axis 0"),
        RecursionError(),
    ):
        assert attempt(fail, error)[0] is FAILED
    for text in ("", "Encoder learned it", "no ufunc for this", "got NAType, str"):
        assert fault_of(text) and attempt(fail, ValueError(text))[0] is FAILED
    assert attempt(fail, ValueError("y must be below 1e100: use another unit")) == (REFUSED, "")
    assert attempt(fail, Hang("no end"))[1].startswith("Hang")
    assert attempt(lambda: 5) == (5, "")
