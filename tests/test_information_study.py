"""The study of rehearsal: its losses against direct formulas, streaming LDA against scikit-learn's, a smoke run."""

import numpy as np
import pytest
import torch
from rich.console import Console
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from studies.systems.class_streams import load_stream
from studies.systems.information import GRID, _best, _claims, part
from studies.systems.rehearsal import Setting, losses
from studies.systems.rowless import lda
from torch.nn.functional import cross_entropy

from gradatim.comparison.runs import Study
from gradatim.regularizers.information import information_loss

Y = torch.tensor([3, 2, 3, 0, 1, 3])


def loss(method, logits, weight, counts=None):
    counts = torch.ones(4) if counts is None else counts
    return losses(method, "both", logits[None], Y, 3, torch.tensor([weight]), counts)[0]


def test_losses_are_their_formulas():
    z = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    plain = cross_entropy(z[:3], Y[:3]) + cross_entropy(z[3:], Y[3:])
    torch.testing.assert_close(loss("er", z, 0.0), plain)
    torch.testing.assert_close(loss("marginal", z, 2.0), plain + information_loss(z, weight=2.0))
    present = cross_entropy(z[:3, 2:], Y[:3] - 2) + cross_entropy(z[3:], Y[3:])
    torch.testing.assert_close(loss("ace", z, 0.0), present)
    torch.testing.assert_close(loss("marginal+ace", z, 2.0), present + information_loss(z, weight=2.0))
    counts = torch.tensor([1.0, 2.0, 4.0, 8.0])
    moved = z + 1.5 * (counts / 15).log()
    adjusted = cross_entropy(moved[:3], Y[:3]) + cross_entropy(moved[3:], Y[3:])
    torch.testing.assert_close(loss("adjusted", z, 1.5, counts), adjusted)


def test_streaming_lda_is_that_of_all_rows():
    stream = load_stream("digits", 0)
    whole = LinearDiscriminantAnalysis(solver="lsqr").fit(stream.x, stream.y)
    right = whole.predict(stream.judged_x) == stream.judged_y
    wanted = [right[stream.judged_y // 2 == of].mean() for of in range(5)]
    np.testing.assert_allclose(lda(stream, 1e-6)[-1], wanted, atol=0.02)


def test_rows_that_are_judged_are_not_learnt_and_streams_are_repeatable():
    for seed in (0, 1000):
        stream, again = load_stream("digits", seed), load_stream("digits", seed)
        np.testing.assert_array_equal(stream.x, again.x)
        learnt = {row.tobytes() for row in stream.x}
        assert not any(row.tobytes() in learnt for row in stream.judged_x)
        assert (np.diff(stream.y // 2) >= 0).all()
        assert [len(stream.y[stream.task(t)]) for t in range(5)] == [200] * 5


def test_the_best_setting_is_chosen_for_each_method():
    scores = {Setting(method, lr): -abs(lr - at) for at, method in enumerate(GRID) for lr in range(9)}
    assert {method: setting.lr for method, setting in _best(scores).items()} == {
        method: at for at, method in enumerate(GRID)
    }


def test_claims_are_points_over_cells():
    def table(value):
        return np.full((2, 1, 1), value)

    results = {
        ("a", 20): {"marginal": table(0.8), "er": table(0.7), "ace": table(0.75)},
        ("a", 50): {"marginal": table(0.8), "er": table(0.6), "ace": table(0.79)},
        ("a", 500): {"marginal": table(0.8), "er": table(0.81), "ace": table(0.5)},
    }
    values = {entry["id"].split(".")[-1]: entry["value"] for entry in _claims(results, ["a"], [20, 50])}
    assert values == pytest.approx({"over_er": 15, "over_ace": 3, "never_worse": 1})


def test_a_smoke_run_ends_and_goes_on_from_its_records(tmp_path):
    study = Study(tmp_path, 1, Console(quiet=True))
    result = part(study, True, 1)
    assert [entry["id"] for entry in result["claims"]] == [
        f"systems.information.{name}" for name in ("over_er", "over_ace", "never_worse")
    ]
    assert result["records"] and all(len(row) == 2 for row in result["listings"][0]["rows"])
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "records").iterdir()}
    assert part(study, True, 1) == result
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "records").iterdir()} == files
