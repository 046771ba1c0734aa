"""Topological order of causal models: the tasks, the answers' score, the learner's symmetry, the classical peers."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch

from gradatim import regimes
from gradatim.batch import Batch, Task
from gradatim.families import LinearRegression, StructuralCausalModel
from gradatim.families.causal import topological_order
from gradatim.learner import Learner
from gradatim.methods import METHODS, build
from gradatim.metrics import curve, invalid_order, order_of, reversed_by, reversed_edges
from gradatim.predictors import OrderScores
from gradatim.refiners import CONSTANT, Bagged, Gain, TransformerConfig, VariableRefiner
from gradatim.signal import BOTH, PLAIN
from gradatim.testing import check_family, check_predictor, check_refiner, check_scheme, randomised
from gradatim.testing.options import fitting
from gradatim.training.schemes import Greedy, Unrolled

SMALL = StructuralCausalModel(6, support_rows=15)
CONFIG = TransformerConfig(width=16, layers=2, heads=2)
ORDERS = [name for name, row in METHODS.items() if row.orders]


def drawn(family, tasks=64, seed=0):
    return family.sample(tasks, torch.Generator().manual_seed(seed))


# --- the family


@pytest.mark.parametrize("noise", ["gaussian", "laplace"])
@pytest.mark.parametrize("mechanism", ["linear", "network"])
@pytest.mark.parametrize("graph", ["erdos-renyi", "scale-free"])
def test_the_family_keeps_the_laws(graph, mechanism, noise):
    family = StructuralCausalModel(5, 2.0, graph, mechanism, noise, support_rows=20, min_support_rows=4)
    check_family(family)
    task = drawn(family)
    assert (task.target.sort(1).values == torch.arange(5)).all()
    assert (reversed_by(task.target, task.query.y) == 0).all()
    assert (reversed_by(topological_order(task.query.y), task.query.y) == 0).all()
    assert (task.query.x == torch.eye(5)).all() and not task.support.y.any()
    whole = drawn(replace(family, min_support_rows=None)).support.x
    assert torch.allclose(whole.mean(1), torch.zeros(()), atol=1e-5)
    assert torch.allclose(whole.square().mean(1), torch.ones(()), atol=1e-4)


def test_the_number_of_edges_is_the_degree_asked_for():
    edges = drawn(StructuralCausalModel(10, 3.0, support_rows=2), 2000).query.y.sum((1, 2))
    assert abs(edges.mean().item() - 15) < 4 * (45 * (1 / 3) * (2 / 3) / 2000) ** 0.5
    edges = drawn(StructuralCausalModel(10, 4, "scale-free", support_rows=2)).query.y
    assert (edges.sum((1, 2)) == 1 + 2 * 8).all()
    neighbours = lambda graph, degree: (  # noqa: E731
        lambda y: (y.sum(1) + y.sum(2)).max(1).values.mean().item()
    )(drawn(StructuralCausalModel(30, degree, graph, support_rows=2)).query.y)
    assert neighbours("scale-free", 2) > 1.3 * neighbours("erdos-renyi", 2)  # hubs


def test_every_label_is_as_often_a_cause():
    y = drawn(StructuralCausalModel(3, 2.0, support_rows=2), 6000).query.y.mean(0)
    off = y[~torch.eye(3, dtype=torch.bool)]
    assert abs(off - 0.5).max() < 4 * (0.25 / 6000) ** 0.5  # every pair has an edge, either way round
    orders = drawn(StructuralCausalModel(3, 2.0, support_rows=2), 6000).target
    shares = torch.stack([(orders == torch.tensor(p)).all(1).double().mean() for p in permutations(range(3))])
    assert (shares - 1 / 6).abs().max() < 4 * (5 / 36 / 6000) ** 0.5


def test_variances_give_nothing_away_once_standardised():
    family = StructuralCausalModel(10, mechanism="linear", support_rows=200)
    generator = torch.Generator().manual_seed(0)
    edges = family.edges(200, generator)
    raw = family.rows(edges, generator).var(1).argsort(1)
    assert reversed_by(raw, edges.float()).mean() < 0.25  # they would give much away
    task = drawn(family, 1000)
    shown = reversed_by(task.support.x.var(1).argsort(1), task.query.y)
    assert abs(shown.mean().item() - 0.5) < 4 * shown.std().item() / 1000**0.5


def test_linear_rows_have_the_weights_of_their_graph():
    family = StructuralCausalModel(3, 2.0, mechanism="linear", noise="gaussian", support_rows=20_000)
    x = family.rows(torch.ones(2, 3, 3, dtype=torch.bool).triu(1), torch.Generator().manual_seed(0)).double()
    fit = torch.linalg.lstsq(x[:, :, :2], x[:, :, 2:]).solution.abs()
    assert ((fit > 0.45) & (fit < 2.05)).all()
    left = (x[:, :, 2:] - x[:, :, :2] @ torch.linalg.lstsq(x[:, :, :2], x[:, :, 2:]).solution).std(1)
    assert ((left > 0.29) & (left < 1.02)).all()


@pytest.mark.parametrize(
    ("noise", "kurtosis"), [("gaussian", 3.0), ("laplace", 6.0)], ids=["gaussian", "laplace"]
)
def test_the_noise_is_of_its_kind(noise, kurtosis):
    family = StructuralCausalModel(2, 0, noise=noise, noise_scale=(0.5, 0.5), support_rows=100_000)
    x = family.rows(torch.zeros(4, 2, 2, dtype=torch.bool), torch.Generator().manual_seed(0))[:, :, 0]
    assert torch.allclose(x.std(1), torch.tensor(0.5), rtol=0.02)
    assert abs(((x / 0.5) ** 4).mean().item() - kurtosis) < 0.3


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"variables": 1}, "variables must be an integer of at least 2; got 1"),
        ({"degree": 10.0}, "degree must be at most 9, the other variables; got 10"),
        ({"degree": -1.0}, "degree must be a finite number of at least 0"),
        ({"graph": "scale-fre"}, "no graph is called 'scale-fre': did you mean 'scale-free'"),
        ({"mechanism": "cubic"}, "no mechanism is called 'cubic'"),
        ({"noise": "cauchy"}, "no noise is called 'cauchy'"),
        ({"graph": "scale-free", "degree": 3.0}, "degree must be 2, 4, "),
        ({"hidden": 0}, "hidden must be an integer of at least 1"),
        ({"noise_scale": (0.0, 1.0)}, r"noise_scale\[0\] must be a finite number above 0"),
        ({"noise_scale": (2.0, 1.0)}, r"noise_scale\[1\] must be a finite number of at least 2"),
        ({"support_rows": 0}, "support_rows must be an integer of at least 1"),
    ],
    ids=str,
)
def test_impossible_families_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        StructuralCausalModel(**settings)


def test_a_graph_with_a_cycle_has_no_order():
    chain = torch.tensor([[[0, 0, 0], [1, 0, 0], [0, 1, 0]]])
    assert topological_order(chain).tolist() == [[2, 1, 0]]
    ring = torch.tensor([[[0, 0, 0, 0], [1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0]]])
    with pytest.raises(ValueError, match=r"cycle has no order: task 0, among variables \[0, 1, 2, 3\]"):
        topological_order(ring)
    with pytest.raises(ValueError, match="cycle has no order: task 1"):
        topological_order(torch.stack([torch.zeros(2, 2), torch.eye(2)]))
    with pytest.raises(ValueError, match=r"shape \[tasks, d, d\]; got \(2, 2\)"):
        topological_order(torch.zeros(2, 2))
    with pytest.raises(ValueError, match=r"of one task and variable or more; got shape \(1, 0, 0\)"):
        topological_order(torch.zeros(1, 0, 0))
    with pytest.raises(ValueError, match="some are NaN"):
        topological_order(torch.tensor([[[0, float("nan")], [0, 0]]]))


# --- the metrics


def test_the_metrics_count_reversed_edges():
    edges = torch.tensor([[[0.0, 1, 1], [0, 0, 1], [0, 0, 0]], [[0, 0, 0], [0, 0, 0], [0, 0, 0]]])
    task = Task(Batch(torch.zeros(2, 1, 3), torch.zeros(2, 1, 3)), Batch(torch.eye(3).expand(2, 3, 3), edges))
    for order, share in (([0, 1, 2], 0.0), ([0, 2, 1], 1 / 3), ([1, 2, 0], 2 / 3), ([2, 1, 0], 1.0)):
        place = torch.tensor(order).argsort().float()
        odds = (place[None] - place[:, None]).expand(2, 3, 3)
        assert order_of(odds).tolist() == [order, order]
        assert reversed_edges(odds, task).tolist() == pytest.approx([share, 0.0])
        assert invalid_order(odds, task).tolist() == [float(share > 0), 0.0]


def test_the_loss_is_the_logistic_one_of_every_edge():
    f, scores = OrderScores(3), torch.tensor([[[2.0], [0.5], [-1.0]]])
    edges = torch.tensor([[[0.0, 1, 0], [0, 0, 0], [1, 0, 0]]])
    row = f.row_loss(Batch(torch.eye(3)[None], edges), scores)
    wanted = torch.tensor([-torch.tensor(1.5).sigmoid().log(), 0, -torch.tensor(-3.0).sigmoid().log()])
    assert torch.allclose(row, wanted[None])
    check_predictor(f, StructuralCausalModel(3, support_rows=15))
    check_predictor(OrderScores(6, 8), SMALL)
    for sizes in ((1, 8), (3, 0)):
        with pytest.raises(ValueError, match="an order needs at least 2 variables"):
            OrderScores(*sizes)


# --- the learner


@pytest.mark.parametrize("name", ORDERS)
def test_every_method_of_orders_keeps_the_laws(name):
    check_refiner(build(name, SMALL, **fitting(name, CONFIG)), SMALL)


@pytest.mark.parametrize("gain", [CONSTANT, Gain(power=0.5, learnt=True)], ids=str)
def test_gains_keep_the_laws(gain):
    check_refiner(regimes.ordering(SMALL, config=replace(CONFIG, gain=gain), token_width=6), SMALL)


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("scheme", [Greedy(4, 3), Unrolled(3, 4, truncation=2, prefixes=3)], ids=str)
def test_schemes_train_orders(scheme, name):
    learner = build(name, SMALL, **fitting(name, CONFIG))
    if isinstance(scheme, Greedy) and not learner.refiner.capabilities.greedy:
        with pytest.raises(ValueError, match="use Unrolled"):
            scheme.check(learner)
    else:
        check_scheme(scheme, learner, SMALL)


@pytest.mark.parametrize("name", ORDERS)
def test_columns_in_another_order_give_scores_in_that_order(name):
    learner, task = (
        randomised(build(name, SMALL, **fitting(name, CONFIG)), 0),
        drawn(SMALL, 3).to(torch.float64),
    )
    order = torch.tensor([2, 0, 5, 3, 1, 4])
    shuffled = Batch(task.support.x[..., order], task.support.y)
    for one, other in zip(
        learner.states(task.support.split(5)), learner.states(shuffled.split(5)), strict=True
    ):
        said, said_there = (learner.predict(task.query.x, state) for state in (one, other))
        assert torch.allclose(said[:, order][:, :, order], said_there, atol=1e-9)
    assert said.abs().max() > 1e-3


def test_weights_serve_any_number_of_variables():
    few, many = (StructuralCausalModel(d, support_rows=15) for d in (6, 9))
    learner = build("explicit-order", few, **fitting("explicit-order", CONFIG))
    wider = build("explicit-order", many, **fitting("explicit-order", CONFIG))
    wider.load_state_dict(learner.state_dict())
    assert curve(wider, drawn(many, 2), 5, [1, 3], {"reversed": reversed_edges})["reversed"].shape == (2, 2)


def test_a_learner_of_orders_beats_chance_soon():
    torch.manual_seed(0)
    family = StructuralCausalModel(4, support_rows=100, mechanism="linear")
    learner = build("explicit-order", family, width=32, layers=2, heads=8)
    optimiser = torch.optim.AdamW(learner.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(1)
    for _ in range(60):
        optimiser.zero_grad()
        Greedy(50, 2).loss(learner, family.sample(32, generator), generator).backward()
        optimiser.step()
    found = curve(learner, drawn(family, 256), 50, [0, 2], {"reversed": reversed_edges})["reversed"].mean(1)
    assert abs(found[0] - 0.5) < 0.1
    assert found[1] < 0.4


def test_misfits_are_refused():
    for name in METHODS:
        if name not in ORDERS:
            with pytest.raises(ValueError, match=f"{name} answers with y at x, which StructuralCausalModel"):
                build(name, SMALL, **fitting(name, CONFIG))
    with pytest.raises(ValueError, match="explicit-order answers with an order of the columns"):
        build("explicit-order", LinearRegression(3))
    with pytest.raises(ValueError, match="an order is asked of families whose answer is one"):
        regimes.ordering(LinearRegression(3))
    with pytest.raises(ValueError, match="an order is learnt from observations only"):
        regimes.ordering(SMALL, BOTH)
    for regime in (regimes.parametric, regimes.explicit, regimes.implicit, regimes.bayesian):
        with pytest.raises(ValueError, match="support rows of StructuralCausalModel have no y"):
            regime(SMALL)
    for settings in ({"tail": 0.0}, {"curvature": Gain()}, {"prefixes": True}, {"memory": 1}, {"history": 1}):
        with pytest.raises(ValueError, match=f"have no {next(iter(settings))}"):
            VariableRefiner(replace(CONFIG, **settings), 4, 8)
    with pytest.raises(ValueError, match="sizes of at least 1"):
        VariableRefiner(replace(CONFIG, layers=0), 4, 8)
    with pytest.raises(ValueError, match="heads that divide the width"):
        VariableRefiner(replace(CONFIG, heads=3), 4, 8)
    learner = build("explicit-order", SMALL, **fitting("explicit-order", CONFIG))
    with pytest.raises(ValueError, match="an order of 6 variables wants y floating point of that width"):
        learner.adapt(Batch(torch.zeros(1, 5, 6), torch.zeros(1, 5, 1)), 5)
    one = Learner(learner.predictor, Bagged(learner.refiner), PLAIN)
    assert one.adapt(drawn(SMALL, 2).support, 5).latent.shape == (2, 6, 32)


# --- the classical peers


def test_peers_beat_chance_on_linear_laplace_tasks():
    pytest.importorskip("causallearn")
    from studies.paper.causal_peers import ges_orders, lingam_orders, random_orders

    task = drawn(StructuralCausalModel(5, 2.0, mechanism="linear", support_rows=300), 10)
    chance = reversed_by(random_orders(task.support), task.query.y).mean()
    assert 0.2 < chance < 0.8
    assert reversed_by(lingam_orders(task.support), task.query.y).mean() < 0.1
    assert reversed_by(ges_orders(task.support), task.query.y).mean() < chance - 0.1


def test_shapes_of_single_columns_tell_of_laplace_noise_only():
    from studies.paper.causal_peers import shape_orders

    shares = {}
    for noise in ("laplace", "gaussian"):
        task = drawn(StructuralCausalModel(10, mechanism="linear", noise=noise, support_rows=200), 128)
        shares[noise] = reversed_by(shape_orders(task.support), task.query.y).mean()
    assert shares["laplace"] < 0.35
    assert abs(shares["gaussian"] - 0.5) < 0.06


def test_an_extension_keeps_the_arrows_and_makes_no_new_collider():
    from studies.paper.causal_peers import extension_order

    edges = np.zeros((4, 4), dtype=bool)
    edges[0, 1] = edges[1, 0] = edges[1, 2] = edges[2, 1] = edges[2, 3] = edges[3, 2] = True  # 0 - 1 - 2 - 3
    found = set()
    for seed in range(200):
        order = extension_order(edges, np.random.default_rng(seed))
        place = np.argsort(order)
        assert sorted(order) == [0, 1, 2, 3]
        assert not place[1] > max(place[0], place[2]) and not place[2] > max(place[1], place[3])
        found.add(tuple(order))
    assert len(found) > 4
    edges = np.zeros((3, 3), dtype=bool)
    edges[0, 2] = edges[1, 2] = True
    assert {extension_order(edges, np.random.default_rng(s))[-1] for s in range(20)} == {2}
