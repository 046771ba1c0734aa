"""Learnt moments of pairs: sums that do not depend on the cut, a symmetric network, tasks under many laws of noise."""

from dataclasses import replace

import pytest
import torch

from gradatim.families import StructuralCausalModel
from gradatim.families.causal import LAWS, NOISES, gaussian_ranks, noise
from gradatim.methods import build
from gradatim.metrics import curve, reversed_by, reversed_edges
from gradatim.nn.pairs import PairLayer
from gradatim.refiners import PairRefiner
from gradatim.signal import StepInput
from gradatim.testing import randomised
from gradatim.training.schemes import Greedy, Unrolled

FAMILY = StructuralCausalModel(5, support_rows=40, noise="mixed")
SIZES = {"keys": 3, "width": 8, "layers": 2}
KURTOSIS = {
    "gaussian": 3.0,
    "laplace": 6.0,
    "uniform": 1.8,
    "exponential": 9.0,
    "student": 9.0,
    "bimodal": 1.69,
}
KURTOSIS["gumbel"] = 5.4
SKEWNESS = {"exponential": 2.0, "gumbel": 1.1395}


def drawn(family, tasks=8, seed=0):
    return family.sample(tasks, torch.Generator().manual_seed(seed)).to(torch.float64)


def learner():
    return randomised(build("pairwise-order", FAMILY, **SIZES), 0)


# --- laws of noise, and the scale of columns


@pytest.mark.parametrize("law", [law for law in NOISES if law != "mixed"])
def test_the_noise_has_the_moments_of_its_law(law):
    e = noise(law, (40, 20_000, 1), torch.Generator().manual_seed(0)).double().flatten()
    assert abs(e.mean()) < 0.01 and abs(e.var() - 1) < 0.02
    assert (e**3).mean().item() == pytest.approx(
        SKEWNESS.get(law, 0.0), abs=0.2 if law == "student" else 0.04
    )
    # the eighth moment of a Student law of 5 degrees is infinite, so its fourth settles slowly
    assert (e**4).mean().item() == pytest.approx(KURTOSIS[law], rel=0.3 if law == "student" else 0.03)


def test_mixed_tasks_draw_one_law_each():
    e = noise("mixed", (600, 400, 2), torch.Generator().manual_seed(0)).double()
    kurtosis = (e**4).mean((1, 2))
    flat, peaked = (kurtosis < 2.3).double().mean(), (kurtosis > 3.8).double().mean()
    assert abs(flat - 2 / 6) < 4 * (2 / 9 / 600) ** 0.5  # uniform and bimodal
    assert abs(peaked - 3 / 6) < 4 * (1 / 4 / 600) ** 0.5 + 0.05
    assert len(LAWS) == 6 and "gumbel" not in LAWS


def test_other_laws_leave_the_tasks_of_before_as_they_were():
    """Tasks of the paper's study, at a seed: the draws of Gaussian and Laplace noise have not moved."""
    for law, total in (("gaussian", 2552.720658445498), ("laplace", 2355.3811697150986)):
        family = StructuralCausalModel(5, noise=law, mechanism="linear")
        task = family.sample(4, torch.Generator().manual_seed(1))
        assert task.support.x.double().abs().sum().item() == pytest.approx(total, rel=1e-6)


def test_ranks_leave_nothing_of_single_columns():
    family = replace(FAMILY, columns="ranks", mechanism="linear", noise="exponential")
    x = drawn(family, 3).support.x
    wanted = x[0, :, 0].sort().values
    assert torch.equal(x.sort(1).values, wanted[None, :, None].expand_as(x))
    assert abs(wanted.mean()) < 1e-6 and wanted.std() == pytest.approx(1, abs=0.06)
    y = torch.randn(2, 9, 3)
    assert torch.equal(gaussian_ranks(y), gaussian_ranks(y.exp()))
    with pytest.raises(ValueError, match="no columns is called 'rank': did you mean 'ranks'"):
        replace(FAMILY, columns="rank")


# --- the learner


def test_any_cut_into_mini_batches_gives_one_answer():
    model, task = learner(), drawn(FAMILY)
    whole, *cut = (model.predict(task.query.x, model.adapt(task.support, size)) for size in (40, 1, 7))
    for other in cut:
        torch.testing.assert_close(other, whole, rtol=1e-8, atol=1e-9)
    assert whole.abs().max() > 1e-3


def test_states_merge_and_forget_exactly():
    model, task = learner(), drawn(FAMILY)
    first, second = task.support.slice(0, 15), task.support.slice(15, 40)
    wanted = model.predict(task.query.x, model.adapt(task.support, 8))
    merged = model.merge([model.adapt(part, 8) for part in (first, second)])
    torch.testing.assert_close(model.predict(task.query.x, merged), wanted, rtol=1e-8, atol=1e-9)
    left = model.forget(merged, second)
    torch.testing.assert_close(
        model.predict(task.query.x, left),
        model.predict(task.query.x, model.adapt(first, 8)),
        rtol=1e-7,
        atol=1e-8,
    )
    with pytest.raises(ValueError, match="only rows that were learnt can be forgotten"):
        model.forget(model.adapt(first, 8), second)


def test_a_row_of_weight_two_counts_twice():
    model, task = learner(), drawn(FAMILY, 2)
    rows = task.support.slice(0, 20)
    heavy = replace(rows, weight=torch.full_like(rows.weight, 2.0))
    twice = model.adapt(rows, 20)
    for _ in range(1):
        twice = model.step(twice, rows)
    torch.testing.assert_close(model.adapt(heavy, 20).products, twice.products)


def test_moments_are_those_of_the_definition():
    """A loop over pairs: correlations, regressions of one column's features on all others', what they leave."""
    refiner = randomised(PairRefiner(4, keys=2, width=8, layers=1), 0)
    x = torch.randn(1, 30, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    task = drawn(StructuralCausalModel(4, support_rows=30), 1)
    batch = replace(task.support, x=x)
    state = refiner.step(refiner.init(1), StepInput(batch.rows, batch))
    pairs, alone = refiner._moments(state)
    cells = x[0, :, :, None]
    u = torch.cat([refiner.features(cells)[..., :-1], cells], dim=-1).flatten(1)
    u = (u - u.mean(0)) / u.std(0, correction=0)
    r = u.T @ u / 30
    ridged = r + refiner.log_ridge.exp() / 30**0.5 * torch.eye(8)
    for i in range(4):
        own, others = [2 * i, 2 * i + 1], [a for a in range(8) if a // 2 != i]
        slopes = ridged[own][:, others] @ ridged[others][:, others].inverse()
        left = ridged[own][:, own] - slopes @ ridged[others][:, own]
        torch.testing.assert_close(alone[0, i, 2:6], r[own][:, own].flatten())
        torch.testing.assert_close(alone[0, i, 6:], 3 * left.flatten())
        for at, j in enumerate(j for j in range(4) if j != i):
            torch.testing.assert_close(pairs[0, i, j, :4], r[own][:, [2 * j, 2 * j + 1]].flatten())
            # the precision holds minus the slopes
            torch.testing.assert_close(pairs[0, i, j, 4:8], -slopes[:, 2 * at : 2 * at + 2].flatten())
        assert not pairs[0, i, i].any()


def test_layers_do_not_see_the_order_of_variables():
    layer = randomised(PairLayer(6), 0)
    order = torch.tensor([2, 0, 3, 1])
    pairs, variables = torch.randn(2, 4, 4, 6).double(), torch.randn(2, 4, 6).double()
    one = layer(pairs, variables)
    other = layer(pairs[:, order][:, :, order], variables[:, order])
    torch.testing.assert_close(one[0][:, order][:, :, order], other[0])
    torch.testing.assert_close(one[1][:, order], other[1])


def test_it_learns_orders_that_no_sort_of_columns_shows():
    """Half a minute of a small one, ranked columns: below chance by far; a sort of single columns is at chance."""
    family = StructuralCausalModel(4, support_rows=100, mechanism="linear", noise="mixed", columns="ranks")
    torch.manual_seed(0)
    model = build("pairwise-order", family, keys=4, width=16, layers=2)
    optimiser = torch.optim.AdamW(model.parameters(), 5e-3)
    generator = torch.Generator().manual_seed(1)
    for _ in range(80):
        optimiser.zero_grad()
        Unrolled(100, 1).loss(model, family.sample(32, generator), generator).backward()
        optimiser.step()
    judged = family.sample(256, torch.Generator().manual_seed(0))
    found = curve(model, judged, 50, [0, 2], {"reversed": reversed_edges})["reversed"].mean(1)
    sort = reversed_by(judged.support.x.abs().mean(1).argsort(1), judged.query.y).mean()
    assert abs(found[0] - 0.5) < 0.1 and abs(sort - 0.5) < 0.1
    assert found[1] < 0.4


def test_misuse_is_refused_with_a_sentence():
    with pytest.raises(
        ValueError, match="moments of pairs need sizes of at least 1; got variables 4, keys 0"
    ):
        PairRefiner(4, keys=0)
    with pytest.raises(ValueError, match="greedy training gives them no gradient: use Unrolled"):
        Greedy(10, 2).check(build("pairwise-order", FAMILY, **SIZES))
    with pytest.raises(ValueError, match="got a signal without observations: use PLAIN"):
        refiner = PairRefiner(4)
        refiner.step(refiner.init(1), StepInput(torch.ones(1)))
