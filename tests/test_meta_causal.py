"""The study of causal orders: peers that learn nothing, the figure, and a run at its smallest size."""

import io
import json

import numpy as np
import pytest
import torch
from rich.console import Console
from studies.meta.causal import over_best, part
from studies.meta.causal_peers import dependence, explained, leaves, peers, ratios, residual

from gradatim.comparison.runs import Study
from gradatim.families import StructuralCausalModel
from gradatim.families.causal import LAWS
from gradatim.metrics import reversed_by


def reversed_share(name, setting, **fields):
    family = StructuralCausalModel(4, 2.0, support_rows=300, **fields)
    task = family.sample(48, torch.Generator().manual_seed(0))
    score = peers()[name][setting](task.support.x)
    return reversed_by(score.argsort(1, descending=True), task.query.y).mean().item()


@pytest.mark.parametrize(
    ("name", "setting", "fields", "most"),
    [
        ("sort by shape", "", {"mechanism": "linear", "noise": "laplace"}, 0.3),
        ("sort by shape, turned", "", {"mechanism": "linear", "noise": "uniform"}, 0.3),
        ("sort by skewness", "", {"mechanism": "linear", "noise": "exponential"}, 0.3),
        ("sort by entropy", "", {"mechanism": "linear", "noise": "bimodal"}, 0.3),
        ("R2-sort", "1.0", {"mechanism": "linear", "noise": "gaussian"}, 0.45),
        ("pairwise ratios", "entropy, repeated", {"mechanism": "linear", "noise": "uniform"}, 0.05),
        ("pairwise ratios", "tanh, repeated", {"mechanism": "linear", "noise": "laplace"}, 0.1),
        ("pairwise ratios", "skew, repeated", {"mechanism": "linear", "noise": "exponential"}, 0.05),
        ("pairwise ratios", "tanh, once", {"mechanism": "linear", "noise": "laplace"}, 0.25),
        ("RESIT", "1.0", {"noise": "uniform"}, 0.3),
    ],
    ids=str,
)
def test_peers_find_what_they_are_made_for(name, setting, fields, most):
    assert reversed_share(name, setting, **fields) < most


def test_score_finds_a_chain_of_waves():
    """Each variable a wave of the one before: leaves have a constant second derivative, and no other variable has."""
    e = torch.randn(16, 200, 3, generator=torch.Generator().manual_seed(0))
    x = e.clone()
    x[:, :, 1] = 2 * torch.sin(1.5 * x[:, :, 0]) + 0.5 * e[:, :, 1]
    x[:, :, 2] = 2 * torch.cos(1.5 * x[:, :, 1]) + 0.5 * e[:, :, 2]
    x = (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True)
    order = peers()["SCORE"]["0.01, 0.5"](x).argsort(1, descending=True)
    edges = torch.tensor([[0.0, 1, 0], [0, 0, 1], [0, 0, 0]]).expand(16, 3, 3)
    assert reversed_by(order, edges).mean() < 0.05


def test_peers_do_not_see_the_order_of_columns():
    x = (
        StructuralCausalModel(4, support_rows=60)
        .sample(3, torch.Generator().manual_seed(0))
        .support.x.double()
    )
    order = torch.tensor([2, 0, 3, 1])
    for name, settings in peers().items():
        for peer in settings.values() if name != "random" else ():
            torch.testing.assert_close(peer(x)[:, order], peer(x[:, :, order]), rtol=1e-6, atol=1e-8)


def test_what_a_regression_leaves_is_that_of_least_squares():
    x = torch.randn(2, 50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True, correction=0)
    share = -explained(x, 0.0, bumps=False)
    inverse = torch.linalg.inv(x.mT @ x / 50)
    torch.testing.assert_close(-share, 1 / inverse.diagonal(dim1=1, dim2=2))
    left = residual(x, x[..., None], 1, [0, 2, 3], 0.0)
    assert (x[:, :, [0, 2, 3]].mT @ left[..., None]).abs().max() < 1e-9
    for kind in ("entropy", "tanh", "skew"):
        ratio = ratios(x, kind)
        torch.testing.assert_close(ratio, -ratio.mT, atol=1e-9, rtol=0)


def test_the_last_leaf_is_taken_off_first():
    x = torch.randn(2, 80, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[:, :, 2] = x[:, :, 0].abs() + x[:, :, 1] ** 2 + 0.1 * x[:, :, 2]
    score = leaves(x, lambda rest, columns: dependence(rest, columns, 1.0))
    assert (score.argmin(1) == 2).all() and (score.amax(1) == 0).all()


def test_the_figure_is_a_ratio_of_geometric_means():
    ours = {"a": np.array([[0.1, 0.3], [0.2, 0.2]]), "b": np.full((2, 2), 0.4)}
    best = {"a": np.array([0.4, 0.4]), "b": np.array([0.1, 0.3])}
    value, low, high = over_best(ours, best)
    assert value == pytest.approx((0.5 * 2.0) ** 0.5) and low <= value <= high


def test_a_smallest_run_can_be_read_and_goes_on(tmp_path):
    study = Study(tmp_path, 1, Console(file=io.StringIO()), isolated=False)
    result = part(study, smoke=True, seeds=3)
    json.dumps(result)
    (verdict,) = result["claims"]
    assert verdict["id"] == "meta.causal.over_best" and verdict["bar"] == 0.8
    assert {record["family"] for record in result["records"]} == {f"order-{law}" for law in LAWS}
    assert [listing["columns"][1:] for listing in result["listings"][:2]] == [list(LAWS)] * 2
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")}
    again = part(Study(tmp_path, 1, Console(file=io.StringIO()), isolated=False), smoke=True, seeds=3)
    assert again["claims"] == result["claims"]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")} == files
