"""Refiners: parity with references, closed forms, plain loops; what gains and averages are; what regimes refuse."""

from dataclasses import replace
from itertools import islice, product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special
from sklearn.linear_model import LogisticRegression

from gradatim import regimes
from gradatim.batch import Batch
from gradatim.families import GaussianMixture, LinearClassification, LinearRegression
from gradatim.learner import Learner
from gradatim.nn.sets import prefix_mask, query_mask
from gradatim.predictors import CrossEntropy, Features, Network, SquaredError
from gradatim.refiners import (
    CONSTANT,
    DECAYING,
    SGD,
    Adam,
    Bagged,
    Gain,
    Newton,
    Refit,
    Ridge,
    TransformerConfig,
    TransformerRefiner,
)
from gradatim.refiners.curvature import Preconditioner, RowSlopes, natural, second_moments
from gradatim.refiners.gain import move, tail_weight
from gradatim.refiners.in_context import Vote
from gradatim.refiners.transformer import bounded
from gradatim.signal import BOTH, CLOSED_FORM, GRADIENTS, OBSERVATIONS, PLAIN, Signal, StepInput
from gradatim.testing import randomised
from gradatim.training.schemes import Greedy, Unrolled
from gradatim.tree import tree_map

SIZES = dict(support_rows=15, query_rows=6)
REGRESSION = LinearRegression(3, 0.5, **SIZES)
CLASSES = LinearClassification(3, 3, **SIZES)
CONFIG = TransformerConfig(width=12, layers=2, heads=2)


def drawn(family, tasks=3, seed=0):
    return family.sample(tasks, torch.Generator().manual_seed(seed)).to(torch.float64)


def ragged(task):
    """Return mini-batches of 5 rows; task 1 has none in the second, task 2 has a hole in the first."""
    mask = torch.ones(3, 15, dtype=torch.bool)
    mask[1, 5:10] = mask[2, 3] = False
    return list(Batch(task.support.x, task.support.y, mask).split(5))


def linear(family, bias=True):
    out = SquaredError() if family.likelihood.classes is None else CrossEntropy(family.likelihood.classes)
    return Network(family.x_dim, out, bias=bias)


# --- optimizers: torch.optim on each task separately

OPTIMIZERS = {
    "sgd": (lambda p: SGD(p, 0.1), lambda p: torch.optim.SGD(p, 0.1)),
    "momentum": (lambda p: SGD(p, 0.05, 0.9), lambda p: torch.optim.SGD(p, 0.05, momentum=0.9)),
    "adam": (lambda p: Adam(p, 0.03), lambda p: torch.optim.Adam(p, 0.03)),
    "adam-betas": (
        lambda p: Adam(p, 0.1, (0.5, 0.7), 1e-3),
        lambda p: torch.optim.Adam(p, 0.1, (0.5, 0.7), 1e-3),
    ),
}


def plain_loss(family, theta, x, y):
    """Return the mean loss of a linear model with bias over rows x `[N, D]`, from torch alone."""
    weight = theta.view(family.likelihood.classes or 1, -1)
    outputs = x @ weight[:, :-1].T + weight[:, -1]
    return F.mse_loss(outputs, y) if family.likelihood.classes is None else F.cross_entropy(outputs, y[:, 0])


@pytest.mark.parametrize("family", [REGRESSION, CLASSES], ids=["regression", "classification"])
@pytest.mark.parametrize(("ours", "theirs"), OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_optimizers_are_those_of_torch(ours, theirs, family):
    f, batches = linear(family), ragged(drawn(family)) * 3
    start = torch.randn(f.latent_shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    states = list(Learner(f, ours(start), GRADIENTS).states(batches))
    for b in range(3):
        theta = start.clone().requires_grad_()
        optimizer = theirs([theta])
        for batch, state in zip(batches, states[1:], strict=True):
            mask = batch.mask[b]
            if mask.any():
                optimizer.zero_grad()
                plain_loss(family, theta, batch.x[b][mask], batch.y[b][mask]).backward()
                optimizer.step()
            torch.testing.assert_close(state.theta[b], theta.detach(), rtol=1e-12, atol=1e-12)
    assert (states[-1].theta - start).abs().min() > 1e-3, "every weight has moved"


def test_a_decaying_rate_falls_with_steps_taken():
    f, batches = linear(REGRESSION), ragged(drawn(REGRESSION))
    decaying = Learner(f, SGD(f.initial().double(), 0.1, decay=DECAYING), GRADIENTS)
    states = list(decaying.states(batches))
    for b, rates in enumerate(([0.1, 0.05, 0.1 / 3], [0.1, 0.0, 0.05], [0.1, 0.05, 0.1 / 3])):
        for t, rate in enumerate(rates):
            slope = GRADIENTS(f, states[t].theta, batches[t]).gradient[b]
            torch.testing.assert_close(
                states[t + 1].theta[b], states[t].theta[b] - rate * slope, rtol=1e-12, atol=1e-12
            )


# --- closed forms


@pytest.mark.parametrize("family", [REGRESSION, CLASSES], ids=["regression", "classification"])
@pytest.mark.parametrize("bias", [False, True])
def test_ridge_solves_the_normal_equations(family, bias):
    f, task = linear(family, bias), drawn(family)
    outputs = family.likelihood.classes or 1
    refiner = Ridge(3 + bias, outputs, strength=0.7, classes=family.likelihood.classes is not None).double()
    batches = ragged(task)
    for t, state in enumerate(Learner(f, refiner, CLOSED_FORM).states(batches)):
        for b in range(3):
            mask = torch.cat([torch.zeros(0, dtype=torch.bool), *(part.mask[b] for part in batches[:t])])
            x, y = (part[b, : 5 * t][mask].numpy() for part in (task.support.x, task.support.y))
            x = np.c_[x, np.ones(len(x))] if bias else x
            y = np.eye(outputs)[y[:, 0]] if family.likelihood.classes else y
            wanted = np.linalg.solve(x.T @ x + 0.7 * np.eye(x.shape[1]), x.T @ y).T.ravel()
            np.testing.assert_allclose(refiner.latent(state)[b].numpy(), wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("condition", [None, 50.0])
def test_ridge_with_the_noise_variance_is_the_oracle(condition):
    family = replace(REGRESSION, condition=condition, min_support_rows=2)
    task = drawn(family, tasks=6)
    learner = Learner(linear(family, bias=False), Ridge(3, 1, strength=0.5**2).double(), CLOSED_FORM)
    for t, state in enumerate(learner.states(task.support.split(5))):
        answers = learner.predict(task.query.x, state), family.oracle(task, 5 * t)
        torch.testing.assert_close(*answers, rtol=1e-10, atol=1e-12)


@given(order=st.permutations(range(5)))
@settings(max_examples=10, deadline=None)
def test_sufficient_statistics_add_up_in_any_order(order):
    learner = Learner(linear(CLASSES), Ridge(4, 3, 1.0, classes=True).double(), CLOSED_FORM)
    assert learner.refiner.capabilities.merge
    batches = list(drawn(CLASSES).support.split(3))
    *_, one = learner.states(batches)
    *_, other = learner.states([batches[i] for i in order])
    parts = [list(learner.states(half))[-1] for half in (batches[:2], batches[2:])]
    for state in (other, tree_map(torch.add, *parts)):
        for a, b in zip(one, state, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("family", [REGRESSION, CLASSES], ids=["regression", "classification"])
def test_a_learnt_closed_form_is_ridge_on_its_features(family):
    torch.manual_seed(0)
    learner = regimes.closed_form(family, features=7, strength=0.4).double()
    f, task = learner.predictor, drawn(family)
    batches = ragged(task)
    for t, state in enumerate(learner.states(batches)):
        theta = learner.refiner.latent(state)
        for b in range(3):
            mask = torch.cat([torch.zeros(0, dtype=torch.bool), *(part.mask[b] for part in batches[:t])])
            x, y = (part[b, : 5 * t][mask].detach().numpy() for part in (task.support.x, task.support.y))
            phi = np.maximum(x @ f.first.weight.detach().numpy().T + f.first.bias.detach().numpy(), 0)
            phi = np.c_[phi * (2 / 7) ** 0.5, np.ones(len(x))]
            y = np.eye(family.likelihood.classes)[y[:, 0]] if family.likelihood.classes else y
            wanted = np.linalg.solve(phi.T @ phi + 0.4 * np.eye(8), phi.T @ y).T.ravel()
            np.testing.assert_allclose(theta[b].detach().numpy(), wanted, rtol=1e-9, atol=1e-11)


def test_the_features_of_a_closed_form_are_trained_through_its_solution():
    torch.manual_seed(0)
    learner = regimes.closed_form(CLASSES, features=5).double()
    task, generator = drawn(CLASSES), torch.Generator().manual_seed(0)
    Unrolled(batch_size=5, horizon=2).loss(learner, task, generator).backward()
    slopes = {name: parameter.grad for name, parameter in learner.named_parameters()}
    assert all(slope is not None and slope.abs().sum() > 0 for slope in slopes.values())
    weight, step = learner.predictor.first.weight, 1e-6

    def loss(shift):
        with torch.no_grad():
            weight[0, 0] += shift
            value = Unrolled(batch_size=5, horizon=2).loss(learner, task, generator).item()
            weight[0, 0] -= shift
        return value

    assert (loss(step) - loss(-step)) / (2 * step) == pytest.approx(weight.grad[0, 0].item(), rel=1e-5)
    with pytest.raises(ValueError, match="use Unrolled"):
        Greedy(batch_size=5, horizon=2).check(learner)


@pytest.mark.parametrize("scale", [-50.0, 50.0])
def test_a_learnt_penalty_stays_in_bounds(scale):
    """Beyond them a Gram matrix of fewer rows than features has no Cholesky factor, or theta is zero."""
    torch.manual_seed(0)
    learner = regimes.closed_form(CLASSES, features=64).double()
    with torch.no_grad():
        learner.refiner.log_scale.fill_(scale)
        state = learner.adapt(drawn(CLASSES).support, 5)
        theta, strength = learner.refiner.latent(state), np.exp(np.clip(scale, -8, 4))
    eye = torch.eye(65, dtype=torch.float64)
    wanted = torch.linalg.solve(state.gram + strength * eye, state.cross).mT.flatten(1)
    torch.testing.assert_close(theta, wanted, rtol=1e-7, atol=1e-9)
    assert wanted.abs().max() > 1e-3


def test_statistics_are_summed_in_the_state_s_dtype_under_autocast():
    """Sums rounded to bfloat16 need not be positive definite: Cholesky failed."""
    torch.manual_seed(0)
    task = CLASSES.sample(3, torch.Generator().manual_seed(0))
    learner = regimes.closed_form(CLASSES, features=64, strength=1e-3)
    inputs = tuple(part.bfloat16() for part in learner.predictor.inputs(task.support.x, torch.zeros(3, 195)))
    step_input = StepInput(task.support.rows, task.support, inputs=inputs)
    refiner, curved = learner.refiner, regimes.parametric(CLASSES, BOTH, replace(CONFIG, curvature=DECAYING))
    wanted = refiner.step(refiner.init(3), step_input)
    moments = second_moments(inputs, task.support.rows.float())
    assert wanted.gram.dtype == moments.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        for one, other in zip(refiner.step(refiner.init(3), step_input), wanted, strict=True):
            assert torch.equal(one, other)
        assert torch.equal(second_moments(inputs, task.support.rows.float()), moments)
        assert learner.refiner.latent(learner.adapt(task.support, 5)).isfinite().all()
        *_, state = curved.states(task.support.split(5))
    x = torch.cat([task.support.x, torch.ones_like(task.support.x[..., :1])], dim=-1)
    seen = (x.mT @ x / 15).flatten(1)
    assert state.curvature.dtype == torch.float32
    torch.testing.assert_close(state.curvature, seen, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("f", "width", "said"),
    [
        (Network(3, CrossEntropy(3)), 3, r"flat vector of 12 numbers a task; got 9: give the refiner"),
        (Network(3, CrossEntropy(3), (5,)), 4, r"flat vector of 38 numbers a task; got 12: give the refiner"),
        (
            Features(3, CrossEntropy(3), 7),
            7,
            r"one weight matrix .*whose inputs have width 7; got .* widths \[8\]",
        ),
        (Network(3, CrossEntropy(3), (6,)), 15, r"whose inputs have width 15; got .* widths \[4, 7\]"),
    ],
)
def test_ridge_wants_the_width_of_one_linear_layer(f, width, said):
    with pytest.raises(ValueError, match=said):
        list(
            Learner(f.double(), Ridge(width, 3, 1.0, True).double(), CLOSED_FORM).states(
                ragged(drawn(CLASSES))
            )
        )


# --- curvature, bagging, votes


def test_the_preconditioned_gradient_is_a_damped_newton_direction():
    """For a linear f and squared error it is the Newton step of the mini-batch, up to damping and the factor 2."""
    task = drawn(REGRESSION)
    f, batch = linear(REGRESSION, bias=True), task.support
    theta = torch.randn(3, 4, dtype=torch.float64)
    step_input = replace(BOTH, inputs=True)(f, theta, batch)
    precondition = Preconditioner(f.layout.shapes).double()
    moments = second_moments(step_input.inputs, step_input.rows.double())
    direction = precondition(step_input.gradient, moments, step_input.rows.double(), torch.zeros(3))
    for b in range(3):
        a = np.c_[batch.x[b].numpy(), np.ones(15)][batch.mask[b].numpy()]
        moment = a.T @ a / len(a)
        damped = moment + (np.exp(-1) * np.trace(moment) / 4 + 1e-6) * np.eye(4)
        wanted = np.linalg.solve(damped, step_input.gradient[b].numpy())
        np.testing.assert_allclose(direction[b].detach().numpy(), wanted, rtol=1e-10, atol=1e-12)


def test_the_preconditioned_gradient_has_the_slopes_of_its_formula():
    """They are written by hand: in the gradient, in the inputs through their moments, and in the damping."""
    generator = torch.Generator().manual_seed(0)
    inputs, slope, rate = (
        torch.randn(shape, dtype=torch.float64, generator=generator, requires_grad=True)
        for shape in ((2, 3, 4), (2, 8), (2, 1))
    )

    def of(inputs, slope, rate):
        moments = second_moments((inputs,), torch.full((2,), 3.0, dtype=torch.float64))
        return natural(slope, moments, ((2, 4),), [rate.exp()])

    assert torch.autograd.gradcheck(of, (inputs, slope, rate))


def test_a_network_with_hidden_layers_is_not_left_behind_by_steep_gradients():
    """Ten steps of an untrained learner on squared losses: weights were 3e11, and losses of training not finite."""
    family = GaussianMixture(2, support_rows=320)
    torch.manual_seed(0)
    config = replace(CONFIG, gain=CONSTANT)
    learner = regimes.parametric(family, GRADIENTS, config, hidden=(32, 32))
    task = family.sample(8, torch.Generator().manual_seed(0))
    *_, state = learner.states(task.support.split(32))
    assert state.latent.abs().max() < 10
    steep = torch.tensor([[3.0, -4.0], [0.03, 0.04]])
    wanted = torch.stack([steep[0] / 12.5**0.5 / 2, steep[1]])  # 3, 4: a root mean square of sqrt(12.5)
    torch.testing.assert_close(bounded(steep, 0.5), wanted)
    size = bounded(torch.tensor([[1e25, 0.0], [3e38, float("-inf")]]), 0.5).square().mean(dim=1).sqrt()
    torch.testing.assert_close(size, torch.full((2,), 0.5))


def test_second_moments_are_those_of_the_rows_seen():
    batches = ragged(drawn(CLASSES))
    learner = regimes.parametric(CLASSES, BOTH, replace(CONFIG, curvature=DECAYING), hidden=(2,)).double()
    for t, state in enumerate(islice(learner.states(batches), 1, None)):
        for b in range(3):
            x = torch.cat([part.x[b][part.mask[b]] for part in batches[: t + 1]])
            a = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
            torch.testing.assert_close(state.curvature[b, :16].view(4, 4), a.T @ a / len(a))


def test_curvature_of_the_newest_mini_batch_alone_is_not_carried():
    batches = ragged(drawn(CLASSES))
    learner = randomised(regimes.parametric(CLASSES, BOTH, replace(CONFIG, curvature=CONSTANT)))
    *_, state = learner.states(batches)
    assert state.curvature is None
    carried = randomised(regimes.parametric(CLASSES, BOTH, replace(CONFIG, curvature=DECAYING)))
    carried.load_state_dict(learner.state_dict())
    first, *_ = (list(islice(made.states(batches), 2))[1].latent for made in (learner, carried))
    torch.testing.assert_close(first, list(islice(carried.states(batches), 2))[1].latent)


@pytest.mark.parametrize(
    "change",
    [dict(gain=Gain(0.8, 1.5, 4.0, learnt=True)), dict(tail=0.0, at_average=True), dict(precision=True)],
    ids=["learnt gain", "signals at the average", "precision"],
)
def test_gains_and_memories_are_what_their_formulas_say(change):
    """A step's gain, read off from the proposal, against the formula from the rows seen."""
    batches = ragged(drawn(REGRESSION))
    learner = randomised(regimes.parametric(REGRESSION, BOTH, replace(CONFIG, **change)))
    refiner = learner.refiner
    states = list(learner.states(batches))
    total = torch.ones_like(states[0].latent) * (refiner.trust.prior.exp() if refiner.trust else 1)
    for before, after, batch in zip(states, states[1:], batches, strict=False):
        now = batch.rows.double()
        at = refiner.linearization_point(before)
        torch.testing.assert_close(at, before.average if "tail" in change else before.latent)
        step_input = learner.signal(learner.predictor, at, batch)
        rows = refiner.rows(batch.x, batch.y, step_input.outputs)
        tokens = refiner._refine(before, step_input, rows, (step_input.gradient,))
        if "gain" in change:
            prior, power = refiner.gain.log_prior.exp(), refiner.gain.logit_power.sigmoid()
            gain = ((now / (before.rows + now + prior)) ** power)[:, None] * refiner.gain.log_value.exp()
        elif "precision" in change:
            own = refiner.trust(tokens, (step_input.gradient,), now)
            total = total + own
            gain = own / total
        else:
            gain = (now / (before.rows + now))[:, None].expand_as(at)
        moved = before.latent + gain * refiner.tokens.move(tokens, (step_input.gradient,))
        torch.testing.assert_close(after.latent[[0, 2]], moved[[0, 2]], rtol=1e-10, atol=1e-12)
        seen = now > 0
        torch.testing.assert_close(after.latent[~seen], before.latent[~seen], rtol=0, atol=0)


def test_memory_tokens_are_carried_and_need_unrolled_training():
    learner = randomised(regimes.parametric(REGRESSION, BOTH, replace(CONFIG, memory=2)))
    batches = ragged(drawn(REGRESSION))
    states = list(learner.states(batches))
    assert states[0].memory.shape == (3, 2, CONFIG.width)
    torch.testing.assert_close(states[2].memory[1], states[1].memory[1], rtol=0, atol=0)  # no rows
    assert (states[1].memory - states[0].memory).abs().min() > 0
    forgot = states[1]._replace(memory=states[0].memory)
    assert not torch.allclose(learner.step(forgot, batches[1]).latent, states[2].latent)
    with pytest.raises(ValueError, match="greed"):
        Greedy(5, 3).loss(learner, drawn(REGRESSION), torch.Generator().manual_seed(0))


def test_history_holds_the_last_latents_and_gradients_and_contains_momentum():
    learner = randomised(regimes.parametric(REGRESSION, GRADIENTS, replace(CONFIG, gain=CONSTANT, history=2)))
    batches = ragged(drawn(REGRESSION))
    states = list(learner.states(batches))
    step_input = [
        learner.signal(learner.predictor, s.latent, b) for s, b in zip(states[:3], batches, strict=True)
    ]
    assert states[0].past.shape == (3, 2, 2, 3)
    for lag in (0, 1):
        torch.testing.assert_close(states[3].past[0, lag, 0], states[2 - lag].latent[0], rtol=0, atol=0)
        torch.testing.assert_close(states[3].past[0, lag, 1], step_input[2 - lag].gradient[0], rtol=0, atol=0)
    torch.testing.assert_close(states[2].past[1], states[1].past[1], rtol=0, atol=0)  # no rows
    forgot = states[2]._replace(past=states[0].past)
    assert not torch.allclose(learner.step(forgot, batches[2]).latent, states[3].latent)
    tokens = learner.refiner.tokens
    with torch.no_grad():
        tokens.head[0].weight.zero_()
        tokens.head[0].bias.zero_()
        for rate, log in zip(tokens.rate, (np.log(0.1), np.log(0.7), -np.inf, -np.inf, -np.inf), strict=True):
            rate[0].weight.zero_()
            rate[0].bias.fill_(max(log, -8.0))
    at, before = learner.refiner.init(3), None
    gain, least = learner.refiner.gain.value, np.exp(-8.0)
    for batch in batches:
        gradient = learner.signal(learner.predictor, at.latent, batch).gradient[0]
        after = learner.step(at, batch)
        want = at.latent[0] - gain * 0.1 * gradient
        want = want if before is None else want + gain * 0.7 * (at.latent[0] - before)
        torch.testing.assert_close(after.latent[0], want, rtol=0, atol=20 * least)
        at, before = after, at.latent[0]


def test_rows_propose_the_gradient_where_their_cotangents_are_its():
    task = drawn(CLASSES)
    f, batch, theta = linear(CLASSES), task.support, torch.randn(3, 12, dtype=torch.float64)
    step_input = replace(BOTH, inputs=True)(f, theta, batch)
    propose = RowSlopes(f.layout.shapes, 3).double()
    with torch.no_grad():
        propose.back.weight.copy_(torch.eye(3))
    residual = f(batch.x, theta).softmax(-1) - torch.nn.functional.one_hot(batch.y[..., 0], 3)
    torch.testing.assert_close(
        propose(residual, step_input.inputs, step_input.rows.double()),
        step_input.gradient,
        rtol=1e-10,
        atol=1e-12,
    )


def test_bagging_is_the_mean_of_single_answers_weighted_by_rows():
    torch.manual_seed(0)
    one = regimes.parametric(CLASSES, BOTH, CONFIG).double()
    bag = Learner(one.predictor, Bagged(one.refiner), one.signal)
    batches = ragged(drawn(CLASSES))
    *_, state = bag.states(batches)
    single = [one.refiner.latent(one.step(one.refiner.init(3), batch)) for batch in batches]
    rows = torch.stack([batch.rows for batch in batches]).double()
    wanted = (torch.stack(single) * rows[..., None]).sum(0) / rows.sum(0)[:, None]
    torch.testing.assert_close(bag.refiner.latent(state), wanted, rtol=1e-10, atol=1e-12)


def test_a_vote_is_a_kernel_regression_on_the_rows_present():
    torch.manual_seed(0)
    vote, task = Vote(3, 4, 3).double(), drawn(CLASSES)
    lengths = torch.tensor([4, 15])
    heard = vote(task.query.x, task.support, lengths).detach().numpy()
    sharpness, metric = vote.log_sharpness.exp().item(), vote.metric.weight.detach().numpy()
    for b, (p, length) in product(range(3), enumerate(lengths)):
        present = task.support.mask[b, :length].numpy()
        x, y = (part[b, :length].numpy()[present] for part in (task.support.x, task.support.y))
        for q, asked in enumerate(task.query.x[b].numpy()):
            kernel = np.exp(-sharpness * (((asked - x) @ metric.T) ** 2).sum(-1))
            wanted = kernel @ np.eye(3)[y[:, 0]] / kernel.sum()
            np.testing.assert_allclose(heard[b, p, q], wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("strength", [0.1, 3.0])
def test_refit_is_logistic_regression_of_scikit_learn(strength):
    """Ours penalises the bias like a weight: scikit-learn's is given a column of ones and no intercept."""
    f, task = linear(CLASSES), drawn(CLASSES)
    refiner = Refit(f, 3, 1, classes=True, strength=strength).double()
    batches = ragged(task)
    *_, state = Learner(f, refiner, CLOSED_FORM).states(batches)
    mask = torch.cat([batch.mask for batch in batches], dim=1)
    for b in range(3):
        x, y = task.support.x[b][mask[b]].numpy(), task.support.y[b][mask[b]].numpy()[:, 0]
        assert set(y) == {0, 1, 2}
        model = LogisticRegression(C=1 / strength, fit_intercept=False, tol=1e-10, max_iter=10_000)
        wanted = model.fit(np.c_[x, np.ones(len(x))], y).coef_
        np.testing.assert_allclose(refiner.latent(state)[b].numpy().reshape(3, 4), wanted, atol=2e-4)


def test_refit_of_a_regression_is_its_closed_form():
    f, task = linear(REGRESSION), drawn(REGRESSION)
    refiner = Refit(f, 3, 1, classes=False, strength=0.8).double()
    *_, state = Learner(f, refiner, PLAIN).states(task.support.split(4))
    x = torch.cat([task.support.x, torch.ones_like(task.support.y)], dim=-1)
    wanted = torch.linalg.solve(x.mT @ x + 0.4 * torch.eye(4, dtype=x.dtype), x.mT @ task.support.y)
    torch.testing.assert_close(refiner.latent(state), wanted[..., 0], rtol=0, atol=2e-4)
    assert torch.equal(refiner.latent(refiner.init(2)), torch.zeros(2, 4, dtype=torch.float64))


# --- gains and averages

COUNTS = st.lists(st.integers(0, 9), min_size=1, max_size=8)


@given(now=st.integers(0, 50), before=st.integers(0, 500), power=st.floats(0, 1), value=st.floats(0.01, 2))
@settings(max_examples=40, deadline=None)
def test_a_gain_is_its_formula_and_bounded(now, before, power, value):
    pair = (torch.tensor([float(n)], dtype=torch.float64) for n in (now, before))
    gain = Gain(power, value)(*pair).item()
    assert gain == pytest.approx(value * (now / (now + before)) ** power if now else 0.0, rel=1e-12)
    assert 0 <= gain <= value


@given(counts=COUNTS)
@settings(max_examples=30, deadline=None)
def test_the_decaying_gain_is_the_mean_over_rows(counts):
    rows, seen = np.random.default_rng(0).normal(size=sum(counts)), 0
    mean = torch.full((1, 1), 7.0, dtype=torch.float64)
    for count in counts:
        batch = rows[seen : seen + count]
        gain = DECAYING(torch.tensor([count]).double(), torch.tensor([seen]).double())
        mean = move(mean, torch.full_like(mean, batch.mean() if count else np.nan), gain)
        seen += count
    assert mean.item() == pytest.approx(rows.mean() if seen else 7.0, rel=1e-10, abs=1e-12)


@given(counts=COUNTS.filter(any), eta=st.sampled_from([0.0, 1.0, 3.0]))
@settings(max_examples=30, deadline=None)
def test_tail_weights_are_polynomial_decay_averaging(counts, eta):
    """For mini-batches of one row, (1 + eta) / (t + eta), Shamir and Zhang's eq. 4; for eta = 0 the mean over rows."""
    one = torch.ones(1).double()
    for t in range(1, 5):
        assert tail_weight(one, one * (t - 1), eta).item() == pytest.approx((1 + eta) / (t + eta))
    seen, shares = 0, []
    for count in counts:
        weight = tail_weight(one * count, one * seen, eta).item()
        shares = [*(share * (1 - weight) for share in shares), weight]
        seen += count
    assert sum(shares) == pytest.approx(1)
    if eta == 0:
        assert shares == pytest.approx([count / seen for count in counts])


@pytest.mark.parametrize(("value", "power"), [(0.0, 1.0), (-1.0, 0.5), (1.0, 1.1), (1.0, -0.1)])
def test_impossible_gains_are_refused(value, power):
    with pytest.raises(ValueError, match=rf"value > 0, .*; got value {value}"):
        Gain(power, value)


@pytest.mark.parametrize("gain", [CONSTANT, DECAYING], ids=["constant", "decaying"])
@pytest.mark.parametrize("eta", [0.0, 2.0])
def test_the_tail_average_is_a_plain_loop(eta, gain):
    torch.manual_seed(0)
    averaged = randomised(regimes.parametric(REGRESSION, BOTH, replace(CONFIG, gain=gain, tail=eta)))
    torch.manual_seed(0)
    plain = randomised(regimes.parametric(REGRESSION, BOTH, replace(CONFIG, gain=gain)))
    batches = ragged(drawn(REGRESSION))
    states = zip(averaged.states(batches), plain.states(batches), strict=True)
    mean, seen = next(states)[1].latent, torch.zeros(3).double()
    for batch, (state, iterate) in zip(batches, states, strict=True):
        torch.testing.assert_close(state.latent, iterate.latent, rtol=0, atol=0)
        now = batch.rows.double()
        weight = ((1 + eta) * now / (seen + now + eta * now).clamp(min=1))[:, None]
        mean, seen = mean + weight * (iterate.latent - mean), seen + now
        torch.testing.assert_close(averaged.refiner.latent(state), mean, rtol=1e-12, atol=1e-12)
        assert averaged.refiner.linearization_point(state) is state.latent


# --- the transformer refiners


@pytest.mark.parametrize("prefixes", [False, True])
@pytest.mark.parametrize("gain", [CONSTANT, DECAYING], ids=["constant", "decaying"])
def test_at_the_start_a_refiner_of_gradients_is_gradient_descent(gain, prefixes):
    f, config = linear(CLASSES), replace(CONFIG, gain=gain, prefixes=prefixes)
    start = torch.randn(f.latent_shape, generator=torch.Generator().manual_seed(2))
    refiner = TransformerRefiner(config, GRADIENTS, start, f.layout.shapes, 3, 1, 3, 3).double()
    batches = list(drawn(CLASSES).support.split(5))
    states = list(Learner(f, refiner, GRADIENTS).states(batches))
    for t, share in enumerate((1.0, 1 / 2, 1 / 3)):
        slope = GRADIENTS(f, states[t].latent, batches[t]).gradient
        moved = (1.0 if gain is CONSTANT else share) * np.exp(-1.0) * slope
        torch.testing.assert_close(states[t + 1].latent, states[t].latent - moved, rtol=1e-12, atol=1e-13)


def test_probabilities_stay_on_the_simplex():
    torch.manual_seed(0)
    learner = randomised(regimes.implicit(CLASSES, config=CONFIG, state="probabilities"), scale=2.0)
    task = drawn(CLASSES)
    last = None
    for state in learner.states(ragged(task), task.query):
        assert state.prediction.min() > 0
        torch.testing.assert_close(
            state.prediction.sum(-1), torch.ones(3, 6).double(), rtol=1e-12, atol=1e-12
        )
        assert last is None or (state.prediction - last).abs().max() > 1e-3
        last = state.prediction
        outputs = learner.predict(task.query.x, state)
        torch.testing.assert_close(outputs.softmax(-1), last, rtol=1e-12, atol=1e-12)


def layer_norm(v, module):
    v = (v - v.mean()) / np.sqrt(v.var() + 1e-5)
    return v * module.weight.numpy() + module.bias.numpy()


def affine(v, module):
    return module.weight.numpy() @ v + (0 if module.bias is None else module.bias.numpy())


def gelu(v):
    return v * special.ndtr(v)


def plain_transformer(module, tokens, sees):
    """Return refined tokens, one at a time and head by head: `sees[i]` lists the tokens that token i attends to."""
    for block in module.blocks:
        parts = [affine(layer_norm(v, block.norm_attention), block.qkv) for v in tokens]
        width, size = len(tokens[0]), len(tokens[0]) // block.heads
        refined = []
        for i, v in enumerate(tokens):
            mixed = np.zeros(width)
            for h in range(block.heads):
                q, k, value = (slice(j * width + h * size, j * width + (h + 1) * size) for j in range(3))
                scores = np.array([parts[i][q] @ parts[j][k] / np.sqrt(size) for j in sees[i]])
                weights = np.exp(scores - scores.max())
                weights /= weights.sum()
                mixed[h * size : (h + 1) * size] = weights @ np.array([parts[j][value] for j in sees[i]])
            v = v + affine(mixed, block.out)
            hidden = gelu(affine(layer_norm(v, block.norm_forward), block.up))
            refined.append(v + affine(hidden, block.down))
        tokens = refined
    return [layer_norm(v, module.norm) for v in tokens]


def plain_rows(embedding, x, y, classes):
    answers = np.eye(classes)[y[:, 0]] if classes else y
    tokens = []
    for row, answer in zip(x, answers, strict=True):
        shift, scale = np.split(affine(answer, embedding.answer), 2)
        tokens.append(affine(row, embedding.x) + shift + affine(row, embedding.scale) * scale)
    return tokens


@pytest.mark.parametrize("prefixes", [False, True])
@pytest.mark.parametrize("family", [REGRESSION, CLASSES], ids=["regression", "classification"])
def test_a_one_step_implicit_learner_is_a_plain_loop_over_queries(family, prefixes):
    torch.manual_seed(0)
    learner = randomised(regimes.implicit(family, config=replace(CONFIG, prefixes=prefixes)))
    learner.requires_grad_(False)
    task, r = drawn(family), learner.refiner
    support = Batch(task.support.x, task.support.y, torch.arange(15) < torch.tensor([[15], [4], [9]]))
    answers = learner.predict(task.query.x, learner.adapt(support, 15, task.query))
    for b, count in enumerate((15, 4, 9)):
        x, y = support.x[b, :count].numpy(), support.y[b, :count].numpy()
        rows, start = plain_rows(r.rows, x, y, family.likelihood.classes), r.start.numpy()
        among = [[i] if prefixes else list(range(count)) for i in range(count)]
        for q in range(3):
            asked = affine(task.query.x[b, q].numpy(), r.rows.x) + affine(start, r.state)
            asked = asked + affine(np.log1p([count]), r.count)
            near = ((task.query.x[b, q].numpy() - x) @ r.vote.metric.weight.numpy().T) ** 2
            kernel = special.softmax(-np.exp(r.vote.log_sharpness.item()) * near.sum(-1))
            heard = np.eye(family.likelihood.classes)[y[:, 0]] if family.likelihood.classes else y
            asked = asked + affine(kernel @ heard, r.heard)
            sees = [*among, list(range(count + 1))]
            refined = plain_transformer(r.transformer, [*rows, asked], sees)[-1]
            wanted = start + affine(refined, r.head)
            np.testing.assert_allclose(answers[b, q].numpy(), wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("prefixes", [False, True])
def test_a_hypernetwork_is_a_plain_loop_over_tokens(prefixes):
    torch.manual_seed(0)
    learner = randomised(regimes.parametric(CLASSES, PLAIN, replace(CONFIG, prefixes=prefixes)))
    learner.requires_grad_(False)
    support, r = drawn(CLASSES, tasks=1).support.slice(0, 7), learner.refiner
    theta = learner.refiner.latent(learner.adapt(support, 7))[0].numpy().reshape(3, 4)
    rows = plain_rows(r.rows, support.x[0].numpy(), support.y[0].numpy(), 3)
    start = r.start.numpy().reshape(3, 4)
    bare = [affine(start[k], r.tokens.embed[0]) + r.tokens.identity[k].numpy() for k in range(3)]
    state = [token + affine(np.log1p([7]), r.count) for token in bare]
    if prefixes:  # the state and each row apart, then the summary that reads them
        first, own = [0, 1, 2], [[0, 1, 2, 3 + n] for n in range(7)]
        sees = [first] * 3 + own + [list(range(13))] * 3
        refined = plain_transformer(r.transformer, [*bare, *rows, *state], sees)[10:]
    else:
        refined = plain_transformer(r.transformer, [*state, *rows], [list(range(10))] * 10)[:3]
    size = np.exp(affine(np.mean(refined, axis=0), r.tokens.size))
    wanted = [start[k] + size * affine(refined[k], r.tokens.head[0]) for k in range(3)]
    np.testing.assert_allclose(theta, wanted, rtol=1e-10, atol=1e-10)


@given(seed=st.integers(0, 99), lengths=st.lists(st.integers(1, 4), min_size=1, max_size=3))
@settings(max_examples=15, deadline=None)
def test_masks_say_who_sees_whom(seed, lengths):
    n, k, queries = 4, 2, 3
    present = torch.rand(2, n, generator=torch.Generator().manual_seed(seed)) > 0.3

    def kind(i, width):
        """Return what token i is: a token of the state or a row (its index), or of prefix p."""
        if i < width + n:
            return ("state", i) if i < width else ("row", i - width)
        return ("prefix", (i - width - n) // (k if width else queries))

    prefix, query = (prefix_mask(present, torch.tensor(lengths), k), None)
    query = query_mask(present, torch.tensor(lengths), queries, mixing=False)
    whole = query_mask(present, torch.tensor([n]), queries, mixing=True)
    for visible, width in ((prefix, k), (query, 0), (whole, 0)):
        for b, i, j in np.ndindex(*visible.shape):
            (one, a), (other, c) = kind(i, width), kind(j, width)
            if other == "state":
                wanted = True
            elif other == "row" and one == "prefix":
                length = n if visible is whole else lengths[a]
                wanted = bool(present[b, c]) and c < length
            elif one == other == "row" and visible is whole:
                wanted = bool(present[b, c]) or i == j
            elif one == other == "prefix" and width:
                wanted = a == c
            else:
                wanted = i == j
            assert bool(visible[b, i, j]) == wanted, (one, a, other, c)
    with pytest.raises(ValueError, match="serve one length at a time"):
        query_mask(present, torch.tensor([n, n]), queries, mixing=True)


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [({}, (16, 32)), ({"tokens": 3}, (3, 32)), ({"token_width": 8}, (16, 8)), ({"features": 6}, (21,))],
)
def test_an_embedding_is_16_tokens_of_32_unless_told(sizes, shape):
    assert regimes.explicit(CLASSES, **sizes).predictor.latent_shape == shape


# --- refusals


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: regimes.implicit(CLASSES, BOTH), "takes observations only; got Signal"),
        (lambda: regimes.implicit(CLASSES, GRADIENTS), "exposes no parameters to take gradients at"),
        (lambda: regimes.implicit(REGRESSION, state="probabilities"), "probabilities need classes"),
        (
            lambda: regimes.implicit(CLASSES, state="logit"),
            "'logits', 'latents' or 'probabilities'; got 'logit'",
        ),
        (lambda: regimes.implicit(CLASSES, config=TransformerConfig(tail=1.0)), "keeps no tail average"),
        (
            lambda: regimes.parametric(CLASSES, BOTH, TransformerConfig(width=10, heads=4)),
            "heads that divide the width",
        ),
        (lambda: regimes.explicit(CLASSES, tokens=0), "sizes must be at least 1; got x_dim 3, tokens 0"),
        (
            lambda: regimes.explicit(CLASSES, features=8, tokens=4),
            "got features 8, modulated None with tokens 4, token_width None: give one",
        ),
        (lambda: regimes.explicit(CLASSES, features=8, token_width=32), "with tokens None, token_width 32"),
        (lambda: regimes.parametric(REGRESSION, hidden=(0,)), "each at least 1; got"),
        (lambda: SGD(torch.zeros(2), 0.0), "SGD needs lr > 0"),
        (lambda: SGD(torch.zeros(2), 0.1, 1.0), r"momentum in \[0, 1\)"),
        (lambda: Adam(torch.zeros(2), 0.1, (0.9, 1.0)), r"betas in \[0, 1\)"),
        (lambda: Ridge(3, 1, 0.0), "ridge needs strength > 0; got 0.0"),
        (lambda: Refit(linear(CLASSES), 3, 1, True, -1.0), "strength >= 0; got -1.0"),
        (
            lambda: TransformerRefiner(CONFIG, BOTH, torch.zeros(5), ((2, 3),), 3, 1, None, 1),
            r"\(\(2, 3\),\) do not make up a latent of shape \(5,\)",
        ),
        (
            lambda: Learner(linear(CLASSES), SGD(torch.zeros(12), 0.1), PLAIN),
            "SGD needs gradients; got Signal",
        ),
        (
            lambda: Learner(linear(CLASSES), Ridge(4, 3, 1.0, True), GRADIENTS),
            "Ridge needs observations; got Signal",
        ),
        (
            lambda: Learner(linear(CLASSES), regimes.parametric(CLASSES, BOTH).refiner, OBSERVATIONS),
            "TransformerRefiner needs gradients",
        ),
    ],
)
def test_misfits_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_a_newton_step_solves_the_least_squares_of_a_first_mini_batch():
    """From zero, with lr = 1 / 2 (a squared error's gradient is 2 A (theta - theta*)): ridge of the damping's size."""
    f, (batch, *_) = linear(REGRESSION), ragged(drawn(REGRESSION))
    signal = Signal(observations=False, gradients=True, inputs=True)
    refiner = Newton(f.initial().double(), f.layout.shapes, lr=0.5, damping=0.1)
    *_, state = Learner(f, refiner.double(), signal).states([batch])
    for b in range(3):
        a = torch.cat([batch.x[b], torch.ones(5, 1, dtype=torch.float64)], dim=1)[batch.mask[b]]
        gram = a.T @ a / len(a)
        strength = 0.1 * gram.diagonal().mean() + 1e-6
        wanted = torch.linalg.solve(
            gram + strength * torch.eye(len(gram)).double(), a.T @ batch.y[b][batch.mask[b]] / len(a)
        )
        torch.testing.assert_close(state.theta[b], wanted[:, 0], rtol=1e-6, atol=1e-9)
