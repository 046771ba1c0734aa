"""The study of learnt steps on top of a learnt prior: its figures, and a run at its smallest size that goes on."""

import numpy as np
import pytest
from rich.console import Console
from studies.meta import refined
from studies.meta.refined import ONE, REFINED, STARTS, interval, over_start, part

from gradatim.comparison.runs import Study


def record(**errors):
    """Return the record of a seed: validation and test errors by learner, the same at each number of rows."""
    names = {
        **dict(zip(("start", "longer"), STARTS, strict=True)),
        **dict(zip(("frozen", "joint"), REFINED, strict=True)),
    }
    learners = {
        names[key]: {
            "validation": np.full(4, value[0]),
            "test": np.full(4, value[1]),
            "seconds": 1.0,
            "kept": np.ones(4),
        }
        for key, value in errors.items()
    }
    return {"learners": learners, "commit": ""}


def test_validation_chooses_and_the_better_start_is_the_measure():
    one = record(start=(2.0, 4.0), longer=(1.0, 5.0), frozen=(0.5, 4.0), joint=(0.6, 1.0))
    assert over_start(one) == pytest.approx(4 / 5)
    assert over_start(one, "validation") == pytest.approx(0.5)


def test_the_interval_is_that_of_logs_over_seeds():
    value, low, high = interval([0.5, 0.25, 0.125])
    assert value == pytest.approx(0.25)
    # the deviation of the logs is log 2, over three seeds
    assert low == pytest.approx(0.25 * 2 ** (-4.303 / 3**0.5)) and low * high == pytest.approx(value**2)
    assert interval([0.3]) == pytest.approx((0.3, 0.3, 0.3))


def test_records_have_the_same_names_in_every_process():
    # a function's own text holds its address
    assert all("0x" not in str(stage.inputs()) for stage in refined.stages().values())


def test_a_smoke_run_has_a_claim_and_is_not_run_again(tmp_path, monkeypatch):
    few = {name: stage for name, stage in refined.stages().items() if name in ("hidden", "network")}
    monkeypatch.setattr(refined, "stages", lambda: few)
    study = Study(tmp_path, 1, Console(quiet=True))
    result = part(study, smoke=True, seeds=1)
    (claim,) = result["claims"]
    assert (
        claim["id"] == "meta.refined.over_start"
        and claim["family"] in few
        and set(claim["beside"]) == set(few)
    )
    assert [row[0] for row in result["listings"][0]["rows"]][:-1] == [*STARTS, *REFINED, ONE]
    assert len(result["records"]) == 2 * 5 * 4 and all(entry["mean"] > 0 for entry in result["records"])
    monkeypatch.setattr(refined, "measure", lambda *_: pytest.fail("a stored record must be read"))
    assert part(study, smoke=True, seeds=1) == result
