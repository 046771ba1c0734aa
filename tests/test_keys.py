"""Learnt keys with learnt priors: closed forms against dense Gaussians, prefixes at once, laws, gradients."""

import dataclasses
import math
from dataclasses import replace

import pytest
import torch

from gradatim import (
    Batch,
    Greedy,
    Learner,
    LinearClassification,
    LinearRegression,
    Prefixes,
    Recipe,
    Unrolled,
)
from gradatim.families import Sinusoids
from gradatim.methods import build, method, name_of
from gradatim.nn.encoders import encoder
from gradatim.predictors import CrossEntropy, GaussianKeys, Keys, SquaredError
from gradatim.recipes import from_json
from gradatim.refiners import PLDA, ALPaCA, Prototypical
from gradatim.signal import CLOSED_FORM
from gradatim.testing import check_predictor, check_refiner, check_scheme
from gradatim.testing.tools import randomised
from gradatim.training.prefixes import running_sums
from gradatim.training.train import TrainConfig, train

NUMBERS = LinearRegression(3, 0.5, support_rows=15, query_rows=6)
CLASSES = LinearClassification(3, 3, support_rows=15, query_rows=6)
IMAGES = LinearClassification(16, 3, support_rows=15, query_rows=6)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def numbers(rank=None, outputs=1):
    torch.manual_seed(1)
    f = GaussianKeys(3, SquaredError(outputs), encoder("tanh", 3, 4, 6), 4)
    return randomised(Learner(f, ALPaCA(4, outputs, rank), CLOSED_FORM))


def of_classes(kind, classes=3, name="network", x_dim=3):
    torch.manual_seed(1)
    f = Keys(x_dim, CrossEntropy(classes), encoder(name, x_dim, 4, 6), 4)
    return randomised(Learner(f, kind(4, classes), CLOSED_FORM))


def rows_of(outputs, seed=0):
    x = torch.randn(2, 12, 3, generator=seeded(seed), dtype=torch.float64)
    return Batch(x, torch.randn(2, 12, outputs, generator=seeded(seed + 1), dtype=torch.float64))


# --- numbers


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("rank", [None, 2])
def test_the_posterior_of_numbers_is_that_of_a_dense_gaussian(rank, outputs):
    learner, rows = numbers(rank, outputs), rows_of(outputs)
    query = torch.randn(2, 5, 3, generator=seeded(5), dtype=torch.float64)
    with torch.no_grad():
        state = learner.adapt(rows, 5)
        mean, variance = learner.predictor.moments(query, learner.refiner.latent(state))
        root, noise = learner.refiner.root(), learner.refiner.log_noise.exp()
        prior = root @ root.mT
        level = noise.log().mean().exp()
        for b in range(2):
            k, q = learner.predictor.encode(rows.x[b]), learner.predictor.encode(query[b])
            for c in range(outputs):
                # y = K w + e and the query's answer are jointly Gaussian; condition on y
                w0, cov = learner.refiner.mean[:, c], prior * noise[c] / level
                joint = k @ cov @ k.mT + noise[c] * torch.eye(12, dtype=k.dtype)
                gain = torch.linalg.solve(joint, k @ cov @ q.mT).mT
                wanted = q @ w0 + gain @ (rows.y[b, :, c] - k @ w0)
                spread = (q @ cov @ q.mT - gain @ k @ cov @ q.mT).diagonal() + noise[c]
                # 1e-8: both are float64, of matrices with condition numbers below 1e6
                torch.testing.assert_close(mean[b, :, c], wanted, rtol=1e-8, atol=1e-8)
                torch.testing.assert_close(variance[b, :, c], spread, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(learner.predict(query, state), mean)


def test_the_density_is_that_of_the_moments():
    learner, rows = numbers(outputs=2), rows_of(2)
    with torch.no_grad():
        latent = learner.refiner.latent(learner.adapt(rows, 4))
        f = learner.predictor
        mean, variance = f.moments(rows.x, latent)
        wanted = -torch.distributions.Normal(mean, variance.sqrt()).log_prob(rows.y).sum(-1)
        torch.testing.assert_close(f.read_loss(f.encode(rows.x), latent, rows.y), wanted)
        squared = f.read_loss(f.encode(rows.x), latent, rows.y, density=False)
        torch.testing.assert_close(squared, f.row_loss(rows, latent))


def test_a_covariance_of_low_rank_plus_diagonal_is_one():
    refiner = numbers(rank=2).refiner
    root = refiner.root()
    wanted = refiner.factor @ refiner.factor.mT + torch.diag((2 * refiner.log_diagonal).exp())
    torch.testing.assert_close(root @ root.mT, wanted)
    with pytest.raises(ValueError, match="rank of at least 1, or None for a full one; got 0"):
        ALPaCA(4, 1, rank=0)


# --- classes


def test_scores_of_classes_are_log_densities_under_their_posteriors():
    learner = of_classes(PLDA)
    task = CLASSES.sample(2, seeded()).to(torch.float64)
    with torch.no_grad():
        state = learner.adapt(task.support, 5)
        scores = learner.predict(task.query.x, state)
        r = learner.refiner
        between, within = r.log_between.exp(), r.log_within.exp()
        for b in range(2):
            keys = learner.predictor.encoder(task.support.x[b])
            asked = learner.predictor.encoder(task.query.x[b])
            sharp = torch.nn.functional.softplus(r.temperature[0] + r.temperature[1] * math.log(16))
            for c in range(3):
                own = keys[task.support.y[b, :, 0] == c]
                n = len(own)
                wanted = 0.0
                # a dense Gaussian of the class's rows and the query, coordinate by coordinate
                for d in range(4):
                    joint = between[d] * torch.ones(n + 1, n + 1, dtype=keys.dtype) + torch.diag(
                        within[d].expand(n + 1)
                    )
                    gain = torch.linalg.solve(joint[:n, :n], joint[:n, n])
                    mean = r.mean[d] + gain @ (own[:, d] - r.mean[d])
                    spread = joint[n, n] - gain @ joint[:n, n]
                    wanted = wanted - ((asked[:, d] - mean).square() / spread + spread.log()) / 2
                bias = r.bias[0] * (n == 0) + r.bias[1] * math.log(n + 1)
                wanted = sharp * wanted + bias
                # the square of the key is part of the score, so differences between classes are exact
                torch.testing.assert_close(scores[b, :, c], wanted, rtol=1e-8, atol=1e-8)


def test_prototypes_are_squared_distances_and_classes_not_seen_have_one_score():
    learner = of_classes(Prototypical, classes=4)
    task = CLASSES.sample(2, seeded()).to(torch.float64)
    with torch.no_grad():
        scores = learner.predict(task.query.x, learner.adapt(task.support, 5))
        keys, asked = (learner.predictor.encoder(part.x[0]) for part in (task.support, task.query))
        for c in range(3):
            mean = keys[task.support.y[0, :, 0] == c].mean(0)
            wanted = -learner.refiner.log_scale.exp() * (asked - mean).square().sum(-1)
            torch.testing.assert_close(scores[0, :, c], wanted)
        assert (scores[:, :, 3] == learner.refiner.unseen).all()


@pytest.mark.parametrize("kind", [PLDA, Prototypical])
def test_other_names_of_classes_give_the_same_scores_and_any_number_of_ways_is_served(kind):
    learner, wide = of_classes(kind), of_classes(kind, classes=7)
    wide.load_state_dict(learner.state_dict())
    task = CLASSES.sample(2, seeded()).to(torch.float64)
    place = torch.tensor([5, 0, 2])
    with torch.no_grad():
        scores = learner.predict(task.query.x, learner.adapt(task.support, 5))
        renamed = Batch(task.support.x, place[task.support.y])
        others = wide.predict(task.query.x, wide.adapt(renamed, 5))
        torch.testing.assert_close(others[..., place], scores)
        widened = wide.widen(learner.adapt(task.support, 5), place)
        torch.testing.assert_close(wide.predict(task.query.x, widened), others)
    with pytest.raises(ValueError, match="needs as many new indices"):
        wide.widen(learner.init(2), torch.tensor([0]))


@pytest.mark.parametrize("kind", [PLDA, Prototypical])
def test_a_class_whose_rows_are_all_forgotten_was_never_seen(kind):
    learner = of_classes(kind)
    task = CLASSES.sample(2, seeded()).to(torch.float64)
    weight = torch.rand(2, 15, generator=seeded(), dtype=torch.float64) + 0.1
    rows = Batch(task.support.x, task.support.y, weight)
    gone = Batch(rows.x, rows.y, rows.weight * (rows.y[..., 0] == 0))
    rest = Batch(rows.x, rows.y, rows.weight * (rows.y[..., 0] != 0))
    with torch.no_grad():
        left = learner.forget(learner.adapt(rows, 4), gone)
        assert (left.counts[:, 0] == 0).all() and (left.sums[:, 0] == 0).all()
        torch.testing.assert_close(
            learner.predict(task.query.x, left), learner.predict(task.query.x, learner.adapt(rest, 4))
        )
        with pytest.raises(ValueError, match="of a class more rows would go than were seen"):
            learner.forget(learner.adapt(rest, 4), gone)


# --- encoders


@pytest.mark.parametrize("name", ["network", "convolutions", "linear", "tanh"])
@pytest.mark.parametrize("kind", [PLDA, Prototypical])
def test_every_encoder_keeps_the_laws(kind, name):
    check_refiner(of_classes(kind, name=name, x_dim=16), IMAGES)


def test_predictors_keep_the_laws():
    check_predictor(numbers().predictor, NUMBERS)
    check_predictor(of_classes(PLDA).predictor, CLASSES)
    check_refiner(numbers(rank=2), NUMBERS)


@pytest.mark.parametrize(
    ("name", "options", "family", "said"),
    [
        ("plda", {"encoder": "convolutions"}, CLASSES, "convolutions read square images; got x of 3 numbers"),
        ("plda", {"keys": 0}, CLASSES, "sizes of at least 1; got 3 inputs, 0 keys"),
        ("plda", {}, NUMBERS, "plda tells classes apart; this family has numbers as y: choose 'alpaca'"),
        ("prototypical", {}, NUMBERS, "prototypical tells classes apart"),
        ("alpaca", {}, CLASSES, "alpaca fits squared loss; this family has classes"),
        ("alpaca", {"encoder": "wavelets"}, NUMBERS, "alpaca.encoder must be 'tanh' or"),
    ],
)
def test_what_does_not_fit_is_refused_by_a_sentence(name, options, family, said):
    with pytest.raises(ValueError, match=said):
        build(name, family, **options)


def test_names_of_the_field():
    assert name_of(method("protonet")) == "prototypical" and name_of(method("probabilistic-LDA")) == "plda"


# --- all prefixes at once


@pytest.mark.parametrize(
    "name", ["alpaca", "plda", "prototypical", "ridge", "closed-form", "bayesian-numbers"]
)
def test_states_of_all_prefixes_are_those_of_the_loop(name):
    family = NUMBERS if name in ("alpaca", "bayesian-numbers") else CLASSES
    learner = randomised(build(name.removesuffix("-numbers"), family))
    rows = family.sample(3, seeded()).support.to(torch.float64)
    weight = torch.ones(3, 15, dtype=torch.float64)
    weight[0, 4], weight[1, :5], weight[2, 7:] = 0, 0, 0
    if learner.refiner.capabilities.weights:
        weight[0, 1] = 2.5
    rows = Batch(rows.x, rows.y, weight)
    ends = torch.tensor([2, 3, 9, 15])
    with torch.no_grad():
        point = learner.refiner.linearization_point(learner.init(3))
        states = running_sums(learner.refiner, learner.signal(learner.predictor, point, rows), ends)
        for e, end in enumerate(ends.tolist()):
            state = learner.adapt(rows.slice(0, end), end)
            for one, many in zip(state, states, strict=True):
                torch.testing.assert_close(many[e :: len(ends)], one, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["alpaca", "plda", "prototypical", "closed-form", "bayesian"])
@pytest.mark.parametrize(
    "scheme",
    [
        Prefixes(4, 3, density=False),
        Prefixes(5, 3, prefixes=2, relative=True, density=False),
        Prefixes(3, 5, random_horizon=True, density=False),
    ],
    ids=str,
)
def test_the_scheme_keeps_the_laws(scheme, name):
    family = CLASSES if name in ("plda", "prototypical", "closed-form") else NUMBERS
    check_scheme(scheme, build(name, family), family)


def test_the_gradient_is_that_of_the_unrolled_loop():
    for name, family in (("plda", CLASSES), ("alpaca", NUMBERS), ("closed-form", CLASSES)):
        learner, task = randomised(build(name, family)), family.sample(4, seeded()).to(torch.float64)
        gradients = []
        for scheme in (Prefixes(5, 3, density=False), Unrolled(5, 3)):
            loss = scheme.loss(learner, task, seeded())
            parameters = [p for p in learner.parameters() if p.requires_grad]
            found = torch.autograd.grad(loss, parameters, allow_unused=True)
            gradients.append([torch.zeros(()) if part is None else part for part in found])
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("make", [numbers, lambda: of_classes(PLDA), lambda: of_classes(Prototypical)])
def test_the_meta_gradient_passes_through_the_closed_form(make):
    learner = make()
    family = NUMBERS if learner.predictor.likelihood.classes is None else CLASSES
    task = family.sample(2, seeded()).to(torch.float64)
    names = [name for name, _ in learner.refiner.named_parameters()]
    values = [p.detach().clone().requires_grad_() for p in learner.refiner.parameters()]

    def loss(*parts):
        with torch.nn.utils.parametrize.cached():
            state = {f"learner.refiner.{name}": part for name, part in zip(names, parts, strict=True)}
            return torch.func.functional_call(Shell(learner), state, (task,))

    assert torch.autograd.gradcheck(loss, values, eps=1e-6, atol=1e-6)


class Shell(torch.nn.Module):
    """A learner's loss over prefixes as a forward call, so that its parameters can be replaced."""

    def __init__(self, learner):
        super().__init__()
        self.learner = learner

    def forward(self, task):
        return Prefixes(5, 3).loss(self.learner, task, seeded())


def test_some_ends_are_drawn_and_the_density_learns_the_noise():
    scheme = Prefixes(1, 15, chosen=4)
    learner, task = numbers(), NUMBERS.sample(3, seeded()).to(torch.float64)
    ends = [tuple(scheme._ends(task.support, seeded(seed)).tolist()) for seed in range(20)]
    assert len(set(ends)) > 15 and all(list(e) == sorted(set(e)) and len(e) == 4 for e in ends)
    assert min(map(min, ends)) == 1 and max(map(max, ends)) == 15
    scheme.loss(learner, task, seeded()).backward()
    assert learner.refiner.scaled_log_noise.grad.abs().item() > 0
    learner.zero_grad()
    replace(scheme, density=False).loss(learner, task, seeded()).backward()
    assert learner.refiner.scaled_log_noise.grad.abs().item() >= 0


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Prefixes(1, 4, chosen=5), "chosen must lie in 1 .. horizon"),
        (lambda: Prefixes(1, 4, chosen=0), "at 0 of 4 ends"),
        (lambda: Prefixes().check(build("maml", NUMBERS)), "states of MAML are no plain sums over rows"),
        (lambda: Prefixes().check(build("bayesian", CLASSES)), "states of Laplace are no plain sums"),
        (lambda: Prefixes().check(build("ridge", NUMBERS)), "nothing to meta-train"),
        (lambda: Greedy().check(build("alpaca", NUMBERS)), "greedy training gives them no gradient"),
    ],
)
def test_misfits_of_the_scheme_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


# --- training


@pytest.mark.parametrize("name", ["alpaca", "plda", "prototypical"])
def test_a_killed_run_goes_on_bit_for_bit(name, tmp_path):
    family = NUMBERS if name == "alpaca" else CLASSES
    run = Recipe(
        name, family, Prefixes(1, 15, chosen=3), TrainConfig(iterations=6, tasks=4, checkpoint_every=2)
    )
    assert from_json(run.to_json()) == run

    class Killed(Exception):
        pass

    def kill(record):
        if record["iteration"] == 4:
            raise Killed

    config = replace(run.train, log_every=1)
    whole = train(run.learner(), family, run.scheme, config, progress=False)
    with pytest.raises(Killed):
        train(run.learner(), family, run.scheme, config, tmp_path, progress=False, on_log=kill)
    again = train(run.learner(), family, run.scheme, config, tmp_path, resume=True, progress=False)
    for one, other in zip(whole.learner.parameters(), again.learner.parameters(), strict=True):
        assert torch.equal(one, other)


def test_keys_learn_sinusoids_from_few_rows():
    family = Sinusoids(support_rows=20, query_rows=20)
    torch.manual_seed(0)
    learner = build("alpaca", family)
    config = TrainConfig(iterations=150, tasks=16, lr=5e-3, warmup=10)
    train(learner, family, Prefixes(1, 20, chosen=3), config, progress=False)
    task = family.sample(100, seeded(9))
    with torch.no_grad():
        error = learner.loss(task.query, learner.adapt(task.support, 20)).mean()
    # the variance of y is 4.4; ten seeds have .003 to .02
    assert float(error) < 0.3


def test_fields_of_methods_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        method("plda").keys = 3
