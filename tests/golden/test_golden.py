"""The golden numbers hold: nothing that is computed has changed by accident."""

import json

import pytest
from regenerate import FILE, LEARNERS, numbers

GOLDEN = json.loads(FILE.read_text())


def test_losses_are_the_golden_ones():
    found = numbers()
    assert found.keys() == GOLDEN["losses"].keys() == LEARNERS.keys()
    for name, parts in GOLDEN["losses"].items():
        for part, wanted in parts.items():
            assert found[name][part] == pytest.approx(wanted, rel=GOLDEN["tolerance"], abs=0), (
                f"{name}, {part}: if this was meant, python tests/golden/regenerate.py"
            )


def test_the_golden_numbers_are_of_learners_that_have_moved():
    for name, parts in GOLDEN["losses"].items():
        assert parts["start"] != parts["trained"], name
        assert len(parts["trained"]) == 4
