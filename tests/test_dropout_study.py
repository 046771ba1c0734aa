"""The study of guided dropout: its variants, a corpus that keeps judged rows apart, and a run at its smallest size."""

import os

import numpy as np
import pytest
import torch
from rich.console import Console
from studies.frozen.dropout import VARIANTS, part, points
from studies.frozen.encoder import MASK, PADDING, corpus, made, masked
from studies.frozen.fine_tuning import Bench, Setting, drawn, prepared

from gradatim.comparison.runs import Study
from gradatim.regularizers.dropout_sites import GaussianDropout, own_sites


def begin():
    ranked = ("embedding.dropout", "layers.0.attention.dropout", "layers.1.attention.dropout")
    return Bench(made(), {}, ranked, (1.0, 2.0, 3.0), True)


def test_variants_have_the_shares_that_their_names_say():
    shares = {v: [*begin().shares(Setting(v, 0.4, 0.0, 1)).values()] for v in VARIANTS}
    assert shares["guided"] == pytest.approx([0.4, 0.2, 0]) and shares["reversed"] == pytest.approx(
        [0, 0.2, 0.4]
    )
    assert shares["uniform"] == shares["gaussian"] == [0.2] * 3
    assert shares["maximum"] == [0.4] * 3 and shares["none"] == shares["early"] == [0.0] * 3
    sites = own_sites(prepared(begin(), Setting("gaussian", 0.4, 0.0, 1)))
    assert len(sites) == 9 and all(isinstance(site, GaussianDropout) for site in sites.values())


def test_batches_of_a_seed_are_its_rows_each_once_an_epoch():
    rows, batches = drawn(made(), "sst2", 64, 3, 2)
    assert batches.shape == (4, 32) and len(rows.y) == 64
    assert [sorted(epoch.flatten().tolist()) for epoch in batches.split(2)] == [[*range(64)]] * 2
    assert torch.equal(drawn(made(), "sst2", 64, 3, 1)[0].x, rows.x)


def test_a_word_of_each_row_is_hidden_and_no_padding_is():
    x = made().x[:50]
    seen, chosen = masked(x, made().words, torch.Generator().manual_seed(0))
    assert bool(chosen.any(1).all()) and not bool(chosen[x == PADDING].any())
    assert torch.equal(seen[~chosen], x[~chosen]) and float((seen[chosen] == MASK).float().mean()) > 0.6


def test_points_are_over_paired_seeds():
    scores = {(n, 100): {"guided": np.array([0.8, 0.7]), "uniform": np.array([0.7, 0.7])} for n in ("a", "b")}
    mean, low, high = points(scores, "uniform", [100])
    assert mean == pytest.approx(5) and low == pytest.approx(5 - 12.706 * 5, abs=0.01) and high > 60


@pytest.mark.skipif("GRADATIM_DATA" not in os.environ, reason="needs GRADATIM_DATA")
def test_rows_that_choose_or_judge_are_not_pretrained_on():
    data = corpus()
    learnt = {row.numpy().tobytes() for row in data.x}
    for parts in data.targets.values():
        assert [len(parts[name].y) for name in ("choose", "judge")] == [800, 1000]
        known = (parts["judge"].x > 2).sum(1) == (parts["judge"].x != PADDING).sum(
            1
        )  # unknown words are all one
        assert not any(row.numpy().tobytes() in learnt for row in parts["judge"].x[known])


def test_a_smoke_run_ends_and_goes_on_from_its_records(tmp_path):
    study = Study(tmp_path, 1, Console(quiet=True))
    found = part(study, True, 1)
    assert [claim["id"] for claim in found["claims"]] == [
        "frozen.dropout.over_uniform",
        "frozen.dropout.over_reversed",
    ]
    assert len(found["records"]) == 2 * 3 * len(VARIANTS) and len(found["listings"]) == 4
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "records").iterdir()}
    assert part(study, True, 1) == found
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "records").iterdir()} == times
