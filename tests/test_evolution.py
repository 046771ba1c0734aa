"""Evolution gradients against autograd: expectation, cosine, bias, and what a run needs of a scheme."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.func import functional_call

from gradatim.batch import Batch
from gradatim.families import LinearClassification
from gradatim.learner import Learner
from gradatim.methods import METHODS, build
from gradatim.predictors import Network, SquaredError
from gradatim.recipes import from_json, recipe
from gradatim.refiner import Refiner
from gradatim.refiners import SGD, TransformerConfig
from gradatim.registry import SCHEMES
from gradatim.signal import BOTH, GRADIENTS, PLAIN
from gradatim.testing import check_scheme
from gradatim.testing.options import fitting
from gradatim.training.episode import Episode
from gradatim.training.evolution import Evolution, cosine_ratios, expected_cosine
from gradatim.training.schemes import Unrolled
from gradatim.training.train import train
from gradatim.tree import detach
from tiny_run import CONFIG, FAMILY, make_learner, run

DIM, ROWS, STEPS = 3, 2, 4
FULL = replace(FAMILY, min_support_rows=None)


class Pulled(Refiner):
    """theta = theta + exp(rate) * (mean y x - theta) from a learnt start: both are felt in every later step."""

    needs_observations = True

    def __init__(self, size=1):
        super().__init__()
        self.start = nn.Parameter(torch.linspace(0.5, 1.0, size))
        self.rate = nn.Parameter(torch.tensor([-1.0]))

    def init(self, n_tasks, query=None):
        return self.start.expand(n_tasks, DIM)

    def step(self, state, step_input):
        return state + self.rate.exp() * ((step_input.batch.x * step_input.batch.y).mean(1) - state)

    def latent(self, state):
        return state


class Constant(Pulled):
    """theta is the start and stays: the loss is quadratic in the parameters."""

    def step(self, state, step_input):
        return state


def small(kind=Pulled, size=1):
    return Learner(Network(DIM, SquaredError(), bias=False), kind(size), PLAIN).double()


def drawn(tasks=2, seed=5):
    return FULL.sample(tasks, torch.Generator().manual_seed(seed)).to(torch.float64)


def flat_gradient(learner, scheme, task, seed=0):
    loss = scheme.loss(learner, task, torch.Generator().manual_seed(seed))
    parameters = list(learner.parameters())
    found = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    return torch.cat([slope.flatten() for slope in found])


def distance(estimates, wanted):
    """Return Hotelling's T^2 of the estimates' mean [N, D] from a vector: chi-squared of D degrees if it is theirs."""
    gap = estimates.mean(0) - wanted
    covariance = torch.atleast_2d(estimates.T.cov()) / len(estimates)
    return (gap @ torch.linalg.solve(covariance, gap)).item()


CHI_2, CHI_3 = 13.8, 16.3  # the 99.9% quantiles of chi-squared


# --- the expectation, and the spread around it


def test_on_a_quadratic_the_estimate_converges_to_autograd_at_any_sigma():
    learner, task = small(Constant, DIM), drawn()
    learner.refiner.rate.requires_grad_(False)
    (wanted,) = torch.autograd.grad(
        Unrolled(ROWS, 1).loss(learner, task, torch.Generator()), learner.refiner.start
    )
    for pairs, draws in ((1, 300), (10, 100)):
        scheme = Evolution(ROWS, 1, pairs=pairs, sigma=3.0)
        found = torch.stack(
            [
                torch.autograd.grad(
                    scheme.loss(learner, task, torch.Generator().manual_seed(k)), learner.refiner.start
                )[0]
                for k in range(draws)
            ]
        )
        assert distance(found, wanted) < CHI_3
        # E|estimate - g|^2 = |g|^2 (D + 1) / P, exactly; the mean over draws is that within a fifth
        spread = (found - wanted).square().sum(1).mean() / wanted.square().sum()
        assert spread * pairs / (DIM + 1) == pytest.approx(1, abs=0.25)


# --- the cosine


def test_expected_cosine_is_that_of_gaussian_draws():
    generator = torch.Generator().manual_seed(0)
    for pairs, dimensions in ((1, 1), (1, 5), (3, 2), (8, 40), (50, 20)):
        e = torch.randn(4000, pairs, dimensions, generator=generator, dtype=torch.float64)
        estimate = (e[..., :1] * e).mean(1)
        cosine = estimate[:, 0] / estimate.norm(dim=1)
        error = cosine.std() / 4000**0.5
        assert abs(cosine.mean() - expected_cosine(pairs, dimensions)) <= 4 * error + 1e-12
        squared = estimate.square().sum(1)
        wanted = (pairs + dimensions + 1) / pairs
        assert abs(squared.mean() - wanted) <= 4 * squared.std() / 4000**0.5
    assert expected_cosine(1, 1) == pytest.approx(1)
    assert expected_cosine(10**4, 10**6) == pytest.approx((1e4 / 1.01e6) ** 0.5, rel=1e-3)


LEARNERS = {
    "few": lambda: small(size=DIM),
    "rows-gradients": lambda: make_learner(BOTH).double(),
    "implicit": lambda: build("implicit-logits", FULL, width=8, layers=1, heads=1).double(),
    "bayesian": lambda: build("bayesian", FULL, features=8).double(),
}


@pytest.mark.parametrize("make", LEARNERS.values(), ids=LEARNERS)
def test_the_cosine_with_autograd_is_what_theory_predicts(make):
    torch.manual_seed(0)
    learner = make()
    few = sum(p.numel() for p in learner.parameters()) < 10
    scheme, draws = Evolution(ROWS, 2, pairs=3 if few else 16, sigma=1e-4), 100 if few else 20
    ratios = cosine_ratios(scheme, learner, drawn(), torch.Generator().manual_seed(0), draws)
    assert abs(ratios.mean() - 1) < min(0.1, 4 * ratios.std() / draws**0.5)


# --- segments


def test_a_single_segment_is_plain_evolution():
    learner, task = small(), drawn()
    plain = flat_gradient(learner, Evolution(ROWS, STEPS, pairs=3), task)
    whole = flat_gradient(learner, Evolution(ROWS, STEPS, pairs=3, truncation=STEPS), task)
    longer = flat_gradient(learner, Evolution(ROWS, STEPS, pairs=3, truncation=99), task)
    assert torch.equal(plain, whole) and torch.equal(plain, longer)


class Piece:
    """Steps from a state that is a number, as a loss."""

    def __init__(self, state, batches, query):
        self.state, self.batches, self.query = state, batches, query

    def loss(self, learner, task, generator):
        state, total = self.state, 0.0
        if state is None:
            state = learner.refiner.init(task.n_tasks)
        for batch in self.batches:
            state = learner.step(state, batch, differentiable=True)
            total = total + learner.loss(self.query, state).mean() / STEPS
        return total


def forgetful(learner, task, length, sigma, generator):
    """Return truncated evolution: each segment perturbed by itself, from the state of the learner as it is."""
    batches = list(task.support.split(ROWS))[:STEPS]
    named, total = dict(learner.named_parameters()), 0.0
    with torch.no_grad():
        states = list(learner.states(batches, differentiable=True))
        for start in range(0, STEPS, length):
            piece = Piece(
                detach(states[start]) if start else None, batches[start : start + length], task.query
            )
            e = {n: torch.randn(p.shape, generator=generator, dtype=p.dtype) for n, p in named.items()}
            up, down = (
                functional_call(
                    Episode(learner, piece),
                    {f"learner.{n}": p + s * sigma * e[n] for n, p in named.items()},
                    (task, None),
                )
                for s in (1, -1)
            )
            total = total + (up - down) / (2 * sigma) * torch.cat(list(e.values()))
    return total


@pytest.mark.parametrize("length", [1, 2])
def test_persistent_evolution_is_unbiased_where_truncated_evolution_is_not(length):
    learner, task, draws = small(), drawn(), 300
    full = flat_gradient(learner, Unrolled(ROWS, STEPS), task)
    cut = flat_gradient(learner, Unrolled(ROWS, STEPS, truncation=length), task)
    assert (full - cut).norm() > 0.1 * full.norm(), "the setting must tell them apart"
    scheme = Evolution(ROWS, STEPS, pairs=1, sigma=1e-3, truncation=length)
    persistent = torch.stack([flat_gradient(learner, scheme, task, seed) for seed in range(draws)])
    generator = torch.Generator().manual_seed(1)
    truncated = torch.stack([forgetful(learner, task, length, 1e-3, generator) for _ in range(draws)])
    assert distance(persistent, full) < CHI_2
    assert distance(truncated, cut) < CHI_2
    assert distance(persistent, cut) > 2 * CHI_2
    assert distance(truncated, full) > 2 * CHI_2


# --- what a run needs of a scheme

TINY = TransformerConfig(width=8, layers=1, heads=1)


@pytest.mark.parametrize(
    "family",
    [FULL, LinearClassification(DIM, 3, support_rows=12, query_rows=5)],
    ids=["regression", "classes"],
)
@pytest.mark.parametrize("name", [name for name, row in METHODS.items() if row.learnt])
def test_every_learnt_method_is_trained(name, family):
    if name == "implicit-probabilities" and family.likelihood.classes is None:
        pytest.skip("a regression has no probabilities")
    if METHODS[name].orders:
        pytest.skip("it answers with an order of variables")
    if METHODS[name].regression and family.likelihood.classes is not None:
        pytest.skip("it knows no classes")
    if METHODS[name].classification and family.likelihood.classes is None:
        pytest.skip("it knows classes only")
    learner = build(
        name,
        family,
        **fitting(name, TINY),
        **({"features": 6} if METHODS[name].options.get("features") else {}),
    )
    check_scheme(Evolution(ROWS, 2, pairs=1, truncation=1), learner, family)


def test_the_value_is_the_loss_and_the_learner_stays_as_it_was():
    learner, task, scheme = make_learner().double(), drawn(), Evolution(ROWS, 3, pairs=2, relative=True)
    before = {name: (p, p.detach().clone()) for name, p in learner.named_parameters()}
    loss = scheme.loss(learner, task, torch.Generator().manual_seed(0))
    plain = Unrolled(ROWS, 3, relative=True).loss(learner, task, torch.Generator().manual_seed(0))
    assert torch.equal(loss, plain)
    after = dict(learner.named_parameters())
    assert all(after[name] is p and torch.equal(p, copy) for name, (p, copy) in before.items())
    assert all(p.grad is None for p in after.values())
    loss.backward(retain_graph=True)
    once = {name: p.grad.clone() for name, p in after.items()}
    loss.backward()
    assert all(torch.equal(p.grad, 2 * once[name]) for name, p in after.items())
    with torch.no_grad():
        assert torch.equal(scheme.loss(learner, task, torch.Generator().manual_seed(0)), plain)


def test_the_same_seed_gives_the_same_numbers_bit_for_bit():
    learner, task = make_learner().double(), drawn()
    scheme = Evolution(4, 3, random_horizon=True, prefixes=2, pairs=2, truncation=2)
    torch.manual_seed(3)
    one = flat_gradient(learner, scheme, task, seed=11)
    torch.manual_seed(4)
    assert torch.equal(one, flat_gradient(learner, scheme, task, seed=11))
    assert not torch.equal(one, flat_gradient(learner, scheme, task, seed=12))


def test_both_sides_of_a_pair_see_the_same_episode():
    """Were the drawn horizon or prefixes different, the difference over sigma would grow as sigma falls."""
    learner, task = make_learner().double(), drawn()
    found = [
        flat_gradient(learner, Evolution(3, 4, True, 3, pairs=2, truncation=2, sigma=sigma), task, seed=2)
        for sigma in (1e-4, 1e-6)
    ]
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-3)


def test_shards_of_tasks_average_to_the_whole():
    """Several processes draw the same perturbations, so their mean gradient is that of one process."""
    learner, task = small(), drawn(4)
    scheme = Evolution(ROWS, STEPS, pairs=3, truncation=2)
    shards = [
        replace(task, support=take(task.support, part), query=take(task.query, part), truth=None)
        for part in (slice(0, 2), slice(2, 4))
    ]
    mean = torch.stack([flat_gradient(learner, scheme, shard) for shard in shards]).mean(0)
    torch.testing.assert_close(mean, flat_gradient(learner, scheme, task), rtol=1e-9, atol=1e-12)


def take(batch, part):
    return Batch(batch.x[part], batch.y[part], batch.mask[part])


def test_no_graph_is_kept():
    learner, task = make_learner(PLAIN).double(), drawn()

    def packed(scheme):
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
            scheme.loss(learner, task, torch.Generator())
        return len(saved)

    assert packed(Unrolled(ROWS, 4)) > packed(Unrolled(ROWS, 2)) > 100
    parameters = len(list(learner.parameters()))
    assert packed(Evolution(ROWS, 4, pairs=1)) == packed(Evolution(ROWS, 2, pairs=2)) <= 2 * parameters


def test_a_frozen_parameter_is_not_perturbed():
    learner, task, scheme = small(), drawn(), Evolution(ROWS, STEPS, pairs=2)
    learner.refiner.rate.requires_grad_(False)
    scheme.loss(learner, task, torch.Generator().manual_seed(0)).backward()
    assert learner.refiner.rate.grad is None
    assert learner.refiner.start.grad.item() != 0
    learner.refiner.start.requires_grad_(False)
    with pytest.raises(ValueError, match="none that requires a gradient"):
        scheme.loss(learner, task, torch.Generator())


def test_a_run_is_resumed_bit_for_bit(tmp_path):
    scheme = Evolution(4, 3, random_horizon=True, pairs=1, truncation=2)
    config = replace(CONFIG, iterations=4)
    whole = run(tmp_path / "whole", config, scheme)

    def stop(record):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", replace(config, log_every=2), scheme, on_log=stop)
    resumed = run(tmp_path / "cut", config, scheme, resume=True)
    for one, other in zip(whole.learner.parameters(), resumed.learner.parameters(), strict=True):
        assert torch.equal(one, other)
    assert any(
        not torch.equal(a, b)
        for a, b in zip(whole.learner.parameters(), make_learner().parameters(), strict=True)
    )


def test_it_learns():
    """Two parameters, 60 iterations: the loss falls towards what backpropagation reaches."""
    config = replace(CONFIG, iterations=60, lr=0.05, checkpoint_every=100, precision="64-true")

    def after(scheme):
        learner = train(small(), FULL, scheme, config, progress=False).learner
        with torch.no_grad():
            return Unrolled(ROWS, STEPS).loss(learner, drawn(200, seed=9), torch.Generator()).item()

    with torch.no_grad():
        before = Unrolled(ROWS, STEPS).loss(small(), drawn(200, seed=9), torch.Generator()).item()
    best = after(Unrolled(ROWS, STEPS))
    assert best < 0.9 * before
    assert after(Evolution(ROWS, STEPS, pairs=4)) == pytest.approx(best, rel=0.02)


def test_a_recipe_names_it():
    run = replace(recipe("linear"), scheme=Evolution(16, 10, pairs=4, sigma=0.02, truncation=5))
    assert SCHEMES["Evolution"] is Evolution and from_json(run.to_json()) == run


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"pairs": 0}, "at least 1 pair"),
        ({"sigma": 0.0}, "positive, finite sigma"),
        ({"sigma": -1.0}, "positive, finite sigma"),
        ({"sigma": float("nan")}, "positive, finite sigma"),
        ({"sigma": float("inf")}, "positive, finite sigma"),
        ({"truncation": 0}, "truncation counts steps"),
        ({"horizon": 0}, "horizon"),
    ],
)
def test_bad_values_are_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        Evolution(**fields)


def test_what_cannot_be_trained_or_compared_is_refused():
    task, generator = drawn(), torch.Generator()
    unlearnt = Learner(small().predictor, SGD(torch.zeros(1), lr=0.1), GRADIENTS)
    with pytest.raises(ValueError, match="SGD has nothing to meta-train"):
        Evolution(ROWS, 2).loss(unlearnt, task, generator)
    with pytest.raises(ValueError, match="whole episodes"):
        cosine_ratios(Evolution(ROWS, 2, truncation=1), small(), task, generator)
    with pytest.raises(ValueError, match="at least 1 draw"):
        cosine_ratios(Evolution(ROWS, 2), small(), task, generator, draws=0)
    with pytest.raises(ValueError, match="at least 1 pair and 1 dimension"):
        expected_cosine(1, 0)
