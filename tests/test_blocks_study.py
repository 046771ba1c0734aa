"""The study of blocks: its peers are at their optima, its part runs small, and goes on where it stopped."""

import numpy as np
import pytest
from rich.console import Console
from sklearn.linear_model import Lasso, LogisticRegression, MultiTaskLasso, Ridge
from studies.systems import blocks
from studies.systems.blocks_data import made
from studies.systems.blocks_peers import (
    STRENGTHS,
    Standard,
    coclustering,
    known_blocks,
    low_rank,
    one_for_all,
    proximal_path,
    ridge_path,
    sparse,
    together,
)

from gradatim.comparison.runs import Study


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 5))
    return x, x @ rng.normal(size=(5, 3)) + rng.normal(size=(30, 3))


def test_penalised_peers_are_those_of_scikit_learn(rows):
    x, y = rows
    data = Standard([x] * 3, list(y.T), False)
    z, largest = (x - x.mean(0)) / x.std(0), np.abs(data.gradient(np.array(np.zeros((3, 6))))).max()
    for shrink in (sparse, together):
        found = proximal_path(data, shrink, 2000)[4]
        # Ours averages over tasks where scikit-learn sums: its norm of a feature's weights is sqrt(T) of ours.
        start = proximal_path(data, shrink, 1)
        assert len(start) == len(STRENGTHS)
        target = (y - y.mean(0)) / data.scale
        size = np.abs(z.T @ target / 30).max() * STRENGTHS[4]
        model = (
            Lasso(size, tol=1e-10) if shrink is sparse else MultiTaskLasso(size * 3**0.5, tol=1e-10)
        ).fit(z, target)
        np.testing.assert_allclose(found[:, :-1], model.coef_, atol=2e-3)
    assert largest > 0


def test_ridge_and_its_logistic_twin_are_those_of_scikit_learn(rows):
    x, y = rows
    data = Standard([x] * 3, list(y.T), False)
    z = (x - x.mean(0)) / x.std(0)
    model = Ridge(30 * STRENGTHS[3]).fit(z, (y - y.mean()) / data.scale)
    np.testing.assert_allclose(ridge_path(data)[3][:, :-1], model.coef_, atol=1e-3)
    marks = (y > 0).astype(float)
    twin = ridge_path(Standard([x] * 3, list(marks.T), True))[3]
    logistic = LogisticRegression(C=1 / (30 * STRENGTHS[3]), tol=1e-10).fit(z, marks[:, 1])
    np.testing.assert_allclose(twin[1, :-1], logistic.coef_[0], atol=5e-3)


def test_low_rank_shrinks_singular_values_and_blocks_stay_inside():
    weights = np.random.default_rng(0).normal(size=(4, 6))
    before, after = (np.linalg.svd(w, compute_uv=False) for w in (weights, low_rank(weights, 0.5)))
    np.testing.assert_allclose(after, np.maximum(before - 1.0, 0), atol=1e-12)
    problem = made(60, 0, small=True)
    outside = problem.groups[1][:, None] != problem.groups[0]
    assert (known_blocks(problem)[0][outside] == 0).all()
    error = ((coclustering(problem)[0] - problem.truth) ** 2).sum(1).mean()
    assert error < ((one_for_all(problem)[0] - problem.truth) ** 2).sum(1).mean()


def test_the_part_runs_small_and_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "_failed", lambda model: [])
    monkeypatch.setattr(blocks, "PEERS", {n: blocks.PEERS[n] for n in ("lasso", blocks.COCLUSTERED)})
    study = Study(tmp_path, 1, Console(quiet=True))
    first = blocks.part(study, True, 1)
    assert [c["id"].rpartition(".")[2] for c in first["claims"]] == list(blocks.BARS)
    assert {r["family"] for r in first["records"]} == {"blocks, 25 rows", "blocks, 60 rows"}
    monkeypatch.setattr(blocks, "made", lambda *given: pytest.fail("computed again"))
    assert blocks.part(study, True, 1) == first


def test_a_ratio_is_the_geometric_mean_over_paired_seeds():
    runs = [{blocks.OURS: np.array(a), "lasso": np.array(b)} for a, b in ((1, 2), (2, 16))]
    found = blocks._ratio("over_lasso", runs, "lasso")
    assert found["value"] == 0.25 and found["holds"] and found["low"] < 0.25 < found["high"]
    assert blocks._auc(np.array([1, 0, 0]), np.array([1.0, 1.0, 0.0])) == 0.75
