"""States that carry their precision: exact posteriors and evidence, Laplace's, what merges and what is refused."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import multivariate_t
from studies.every_row.claims import excess_loss

from gradatim import regimes
from gradatim.batch import Batch
from gradatim.families import LinearClassification, LinearRegression, RandomNetworkRegression
from gradatim.learner import Learner
from gradatim.methods import build
from gradatim.metrics import curve, excess_risk
from gradatim.predictors import CrossEntropy, Network, SquaredError
from gradatim.refiners import CONSTANT, OFF, Conjugate, Gain, Laplace, TransformerConfig
from gradatim.refiners.softmax_mode import objective
from gradatim.refiners.statistics import Statistics, pack, unpack
from gradatim.signal import CLOSED_FORM
from gradatim.testing import randomised
from gradatim.training.states import load_state, save_state

LINEAR = LinearRegression(4, 0.5, support_rows=48, query_rows=20)
CLASSES = LinearClassification(3, 3, support_rows=48, query_rows=20)
CONFIG = TransformerConfig(width=16, layers=1, heads=2)


def drawn(family, tasks=3, seed=0):
    return family.sample(tasks, torch.Generator().manual_seed(seed)).to(torch.float64)


def exact(blocks=(4,), precisions=((0.25,),), **settings):
    f = Network(sum(blocks), SquaredError(), bias=False)
    return Learner(f, Conjugate(blocks, 1, precisions, **settings), CLOSED_FORM).double()


# --- Conjugate


def test_one_prior_of_the_right_size_is_the_bayes_oracle():
    task = drawn(LINEAR)
    state = exact().adapt(task.support, 7)
    torch.testing.assert_close(
        exact().predict(task.query.x, state), LINEAR.oracle(task), rtol=1e-8, atol=1e-10
    )


def test_evidence_and_weights_of_priors_are_those_of_student_densities():
    torch.manual_seed(0)
    refiner = Conjugate((2, 3), 2, ((1.0, 30.0), (0.5, 2.0))).double()
    a, y = torch.randn(1, 7, 5, dtype=torch.float64), torch.randn(1, 7, 2, dtype=torch.float64)
    rows = torch.tensor([7.0], dtype=torch.float64)
    found = refiner.posterior(Statistics(a.mT @ a, a.mT @ y, y.square().sum(1), rows))
    shape, scale = refiner.log_noise.exp().tolist()
    each = []
    for precision in refiner.log_precision.detach().exp().numpy():
        design = a[0].numpy()
        cover = np.eye(7) + design / np.repeat(precision, [2, 3]) @ design.T
        density = multivariate_t(np.zeros(7), scale / shape * cover, df=2 * shape)
        each.append(sum(density.logpdf(y[0, :, c].numpy()) for c in range(2)))
    total = np.logaddexp(*each) - math.log(2)
    assert found.log_evidence.item() == pytest.approx(total, rel=1e-8)
    np.testing.assert_allclose(
        found.log_weight[0].detach().numpy(), np.array(each) - math.log(2) - total, rtol=1e-6
    )


def test_the_variance_is_that_of_the_posterior_predictive():
    """With one prior: noise (1 + a' (G + P)^-1 a), the noise its posterior mean."""
    task, learner = drawn(LINEAR), exact()
    state = learner.adapt(task.support, 16)
    found = learner.refiner.variance(state, task.query.x)
    for b in range(3):
        x, y, asked = (part[b].numpy() for part in (task.support.x, task.support.y, task.query.x))
        inverse = np.linalg.inv(x.T @ x + 0.25 * np.eye(4))
        rest = (y.T @ y - y.T @ x @ inverse @ x.T @ y).item()
        shape, scale = learner.refiner.log_noise.exp().tolist()
        noise = (scale + rest / 2) / (shape + len(x) / 2 - 1)
        reach = np.einsum("ni,ij,nj->n", asked, inverse, asked)
        np.testing.assert_allclose(found[b, :, 0].detach().numpy(), noise * (1 + reach), rtol=1e-6)


def test_features_that_do_not_help_are_averaged_away():
    """A linear task with 64 random features beside x: after many rows, no worse than the oracle by more than 2%."""
    family = replace(LINEAR, support_rows=4000)
    task = family.sample(16, torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    learner = regimes.bayesian(family, features=64, learnt=False)
    ours = curve(learner, task, 100, [40], {"risk": excess_risk})["risk"].mean()
    assert ours < 1.02 * excess_risk(family.oracle(task), task).mean().item()


def test_features_that_help_are_used():
    family = RandomNetworkRegression(4, 16, 0.1, support_rows=1000, query_rows=100)
    task = family.sample(8, torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    risks = [
        curve(learner, task, 100, [10], {"risk": excess_risk})["risk"].mean()
        for learner in (regimes.bayesian(family, 128, learnt=False), build("ridge", family, strength=1.0))
    ]
    assert risks[0] < 0.5 * risks[1]


def test_forgetting_counts_rows_by_their_age_and_stays_finite():
    task, learner = drawn(LINEAR), exact(forgetting=0.9)
    state = learner.adapt(task.support, 16)
    for b in range(3):
        weights = np.repeat([0.9**32, 0.9**16, 1.0], 16)[:, None]
        x = task.support.x[b].numpy()
        np.testing.assert_allclose(state.gram[b].numpy(), (weights * x).T @ x, rtol=1e-10)
    with pytest.raises(ValueError, match=r"forget \(factor 0.9\) depend on the order of rows"):
        learner.merge([state, state])
    for factor in (0.0, 1.5, -1.0):
        with pytest.raises(ValueError, match=r"lies in \(0, 1\], 1 forgets nothing; got"):
            exact(forgetting=factor)
    with pytest.raises(ValueError, match="positive precision for each of the 2 blocks"):
        Conjugate((2, 3), 1, ((1.0,),))


# --- Laplace


def heads(precisions=((1.0, 1.0),), classes=3, **settings):
    f = Network(3, CrossEntropy(classes))
    return Learner(f, Laplace((3, 1), classes, precisions, **settings), CLOSED_FORM).double()


def inputs(rows):
    return torch.cat([rows.x, torch.ones_like(rows.x[..., :1])], dim=-1)


def cost(theta, a, y, prior):
    """Return cross-entropy and prior of one task at theta `[C, D]`, precisions `prior [D]`."""
    return torch.nn.functional.cross_entropy(a @ theta.T, y, reduction="sum") + (prior * theta**2).sum() / 2


def fitted(a, y, prior, classes=3):
    """Return the theta that minimises `cost`, by scipy."""

    def both(flat):
        theta = torch.from_numpy(flat).view(classes, -1).requires_grad_()
        loss = cost(theta, a, y, prior)
        return loss.item(), torch.autograd.grad(loss, theta)[0].flatten().numpy()

    wanted = minimize(both, np.zeros(classes * a.shape[1]), jac=True, options={"gtol": 1e-9}).x
    return torch.from_numpy(wanted).view(classes, -1)


def test_rows_in_the_window_are_answered_by_one_penalised_logistic_regression():
    """In one mini-batch, in six, and in three shards merged: to a tenth of a nat, and once converged to 1e-6."""
    task, learner = drawn(CLASSES), heads()
    prior = torch.ones(4).double()
    shards = [learner.adapt(task.support.slice(at, at + 16), 8) for at in (0, 16, 32)]
    states = [learner.adapt(task.support, size) for size in (48, 8)]
    found = [learner.merge(group) for group in ([states[0]], [states[1]], shards)]  # a merge of one converges
    for b in range(3):
        a, y = inputs(task.support)[b], task.support.y[b, :, 0]
        wanted = fitted(a, y, prior)
        for state in states:
            assert cost(state.theta[b, 0], a, y, prior) < cost(wanted, a, y, prior) + 0.1
        for state in found:
            torch.testing.assert_close(state.theta[b, 0], wanted, rtol=1e-6, atol=1e-6)


def test_the_slope_of_an_answer_is_that_of_the_minimum_not_of_the_way_there():
    """In the precisions of the prior, against differences of converged answers."""
    task, learner = drawn(CLASSES), heads(((1.0, 2.0),), learnt=True)
    precision = learner.refiner.log_precision
    weights = torch.randn(3, 1, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def said():
        *_, state = learner.states(task.support.split(8), differentiable=True)
        state = learner.refiner.merge([state])  # a merge of one converges
        return (weights * state.theta).sum()

    said().backward()
    with torch.no_grad():
        for block in range(2):
            ends = []
            for move in (1e-4, -2e-4):
                precision[0, block] += move
                ends.append(said())
            precision[0, block] += 1e-4
            slope = (ends[0] - ends[1]) / 2e-4
            torch.testing.assert_close(precision.grad[0, block], slope, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("lag", [0, 20, 32])
def test_rows_that_leave_are_replaced_by_their_expansion(lag):
    """Height, slope and blocks of the Hessian where they left, C / (C - 1) times; whole mini-batches leave."""
    task, learner = drawn(CLASSES), heads(((1.0, 2.0),), lag=lag)
    prior = torch.tensor([1.0, 1, 1, 2]).double()
    first = learner.adapt(task.support.slice(0, 32), 32)  # absorbed at once where it does not fit
    state = learner.step(first, task.support.slice(32, 40))
    gone = 40 if lag < 8 else 32  # at lag 32 the first has to leave for the second
    assert (state.age > 0).sum(1).tolist() == [40 - gone] * 3 and state.age.shape == (3, lag)
    assert (first.age > 0).sum(1).tolist() == [32 if lag == 32 else 0] * 3
    for b in range(3):
        a, y = inputs(task.support)[b], task.support.y[b, :, 0]
        at = [(first.theta if lag < 32 else state.theta, slice(0, 32))]
        at += [(state.theta, slice(32, 40))] if lag < 8 else []
        precision, shift, floor = torch.diag(prior).expand(3, 4, 4), 0.0, 0.0
        for theta, rows in at:
            theta = theta[b, 0]
            part = (a[rows], y[rows], 0 * prior)
            whole = torch.autograd.functional.hessian(lambda t, part=part: cost(t, *part), theta)
            blocks = torch.stack([whole[c, :, c] for c in range(3)]) * 3 / 2
            slope = torch.autograd.functional.jacobian(lambda t, part=part: cost(t, *part), theta)
            pull = torch.einsum("cij,cj->ci", blocks, theta)
            precision, shift = precision + blocks, shift + pull - slope
            floor = floor + cost(theta, *part) - (slope * theta).sum() + (theta * pull).sum() / 2
        torch.testing.assert_close(state.precision[b, 0], precision)
        torch.testing.assert_close(state.shift[b, 0], shift)
        torch.testing.assert_close(state.floor[b, 0], floor)


def test_evidence_of_two_classes_is_that_of_logistic_regression():
    """Brute force on the contrast of the two: its prior has half the precision, `log Z` from its whole Hessian."""
    family = LinearClassification(3, 2, support_rows=40)
    task, precisions = drawn(family), ((1.0, 2.0), (10.0, 0.5))
    learner = heads(precisions, classes=2)
    state = learner.merge([learner.adapt(task.support, 8)])  # a merge of one converges
    found = learner.refiner.log_evidence(state)
    for b in range(3):
        a, y = inputs(task.support)[b].numpy(), task.support.y[b, :, 0].numpy()
        for k, (slope, bias) in enumerate(precisions):
            prior = np.array([slope] * 3 + [bias]) / 2

            def loss(w, a=a, y=y, prior=prior):
                return np.logaddexp(0, (1 - 2 * y) * (a @ w)).sum() + (prior * w * w).sum() / 2

            w = minimize(loss, np.zeros(4), options={"gtol": 1e-8}).x
            p = 1 / (1 + np.exp(-a @ w))
            hessian = (a.T * (p * (1 - p))) @ a + np.diag(prior)
            wanted = -loss(w) + (np.log(prior).sum() - np.linalg.slogdet(hessian)[1]) / 2
            assert found[b, k].item() == pytest.approx(wanted, abs=1e-5)
    weight = found.softmax(1)[..., None, None]  # the priors are alike likely
    torch.testing.assert_close(learner.refiner.latent(state), (weight * state.theta).sum(1).flatten(1))


def test_evidence_hardly_changes_when_rows_leave_the_window():
    task, precisions = drawn(replace(CLASSES, support_rows=480)), ((1.0, 1.0), (0.1, 0.1))
    found = []
    for lag in (480, 160):
        learner = heads(precisions, lag=lag)
        found.append(learner.refiner.log_evidence(learner.adapt(task.support, 16)))
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1.0)
    torch.testing.assert_close(found[1].diff(), found[0].diff(), rtol=0, atol=0.3)


def test_the_excess_loss_of_classes_falls_like_one_over_rows():
    family = LinearClassification(4, 3, support_rows=1600, query_rows=500)
    task = family.sample(32, torch.Generator().manual_seed(0))
    learner = Learner(Network(4, CrossEntropy(3)), Laplace((4, 1), 3, ((1.0, 1.0),)), CLOSED_FORM)
    early, late = curve(learner, task, 16, [10, 100], {"loss": excess_loss})["loss"].mean(1)
    assert 0.04 < late / early < 0.16  # 1/10 if every row counts


def test_one_pass_is_nearly_as_good_as_one_fit_to_all_rows():
    """2,560 rows, of which 256 are in the window: excess loss .0058 against .0055 on 64 tasks (lab book)."""
    family = LinearClassification(8, 4, support_rows=2560, query_rows=400)
    task = family.sample(16, torch.Generator().manual_seed(0))
    losses = []
    for lag, size in ((256, 16), (2560, 2560)):
        refiner = Laplace((8, 1), 4, ((1.0, 1.0),), lag=lag)
        learner = Learner(Network(8, CrossEntropy(4)), refiner, CLOSED_FORM)
        losses.append(
            excess_loss(learner.predict(task.query.x, learner.adapt(task.support, size)), task).mean()
        )
    assert losses[0] < 1.15 * losses[1]


@pytest.mark.parametrize("classes", [2, 10, 50])
def test_newton_steps_never_raise_what_they_lower(classes):
    """Rows of two classes that x does not tell apart: a block for each class misses how the two pull on each other."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 500, 3, generator=generator).double()
    y = torch.randint(0, 2, (1, 500, 1), generator=generator)
    prior, lows = torch.ones(4).double(), []
    for steps in (1, 2, 3, 10, 30):
        learner = heads(classes=classes, lag=500, iterations=steps)
        state = learner.adapt(Batch(x, y), 500)
        lows.append(cost(state.theta[0, 0], inputs(Batch(x, y))[0], y[0, :, 0], prior).item())
    best = learner.merge([state])
    lows.append(cost(best.theta[0, 0], inputs(Batch(x, y))[0], y[0, :, 0], prior).item())
    assert all(late < early + 1e-9 for early, late in pairwise(lows))
    assert lows[-2] < lows[-1] + 0.2


def test_excess_loss_is_zero_at_the_truth_and_positive_elsewhere():
    task = LinearClassification(3, 4, support_rows=4, query_rows=4000).sample(
        2, torch.Generator().manual_seed(0)
    )
    assert excess_loss(task.truth, task).abs().max() == 0
    assert excess_loss(task.truth + torch.randn_like(task.truth), task).min() > 0
    shifted = task.truth + torch.randn_like(task.truth[..., :1])
    assert excess_loss(shifted, task).abs().max() < 1e-6  # float32; the same distribution


def test_excess_loss_is_what_losses_on_drawn_labels_have_on_average():
    task = LinearClassification(3, 4, support_rows=4, query_rows=100_000).sample(
        2, torch.Generator().manual_seed(0)
    )
    outputs = 0.5 * task.truth
    y = task.query.y[..., 0]
    drawn_loss = [torch.nn.functional.cross_entropy(o.mT, y, reduction="none") for o in (outputs, task.truth)]
    torch.testing.assert_close(
        excess_loss(outputs, task), (drawn_loss[0] - drawn_loss[1]).mean(1), rtol=0, atol=0.01
    )  # three standard errors of 100,000 rows


# --- merging


@pytest.mark.parametrize(
    "make", [exact, heads, lambda: heads(lag=8), lambda: randomised(regimes.bayesian(CLASSES, 8))]
)
def test_merging_does_not_depend_on_the_order_or_the_grouping_of_shards(make):
    learner = make()
    task = drawn(LINEAR if learner.predictor.output_dim == 1 else CLASSES)
    one, two, three = (learner.adapt(task.support.slice(at, at + 16), 8) for at in (0, 16, 32))
    wanted = learner.refiner.latent(learner.merge([one, two, three]))
    for other in ([three, one, two], [learner.merge([one, two]), three], [one, learner.merge([two, three])]):
        torch.testing.assert_close(learner.refiner.latent(learner.merge(other)), wanted, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("lag", [0, 16, 256])
def test_a_merged_posterior_counts_the_prior_once(lag):
    """Quadratics add but for the prior, windows stand side by side, and theta is where slope and shift balance."""
    task, learner = drawn(CLASSES), heads(((1.0, 2.0), (10.0, 10.0)), lag=lag)
    one, two = (learner.adapt(task.support.slice(*part), 8) for part in ((0, 16), (16, 48)))
    merged = learner.merge([one, two])
    prior = torch.stack([torch.tensor([1.0, 1, 1, 2]), torch.full((4,), 10.0)]).double().diag_embed()
    torch.testing.assert_close(merged.precision, one.precision + two.precision - prior[None, :, None])
    torch.testing.assert_close(merged.shift, one.shift + two.shift)
    torch.testing.assert_close(merged.floor, one.floor + two.floor)
    torch.testing.assert_close(merged.rows, torch.full((3,), 48.0).double())
    present = [(state.age > 0).sum(1) for state in (one, two, merged)]
    assert torch.equal(present[0] + present[1], present[2])
    assert (merged.age.diff() >= 0).all()
    assert objective(merged, merged.theta)[1].abs().max() < 1e-8
    alone, beside = learner.merge([one]), learner.merge([one, learner.refiner.init(3)])
    for part, wanted in zip(beside, alone, strict=True):
        torch.testing.assert_close(part, wanted)  # a shard without rows says nothing


def test_a_merged_window_is_cut_by_the_next_step_also_where_it_brings_no_rows(tmp_path):
    task, learner = drawn(CLASSES), heads(lag=16)
    shards = [learner.adapt(task.support.slice(at, at + 16), 8) for at in (0, 16)]
    merged = learner.merge(shards)
    assert (merged.age > 0).sum(1).tolist() == [32] * 3
    save_state(tmp_path / "merged", merged, learner)
    kept = load_state(tmp_path / "merged", learner)  # longer than the lag
    batch = task.support.slice(32, 40)
    mask = batch.weight.clone()
    mask[0] = 0.0
    state = learner.step(kept, Batch._trusted(batch.x, batch.y, mask))
    assert (state.age > 0).sum(1).tolist() == [16, 8, 8]  # the last mini-batches of both shards count 16 rows
    assert torch.equal(state.theta[0], merged.theta[0])
    assert state.rows.tolist() == [32, 40, 40]
    whole = learner.merge([learner.adapt(task.support.slice(0, 32), 16)])
    assert (
        learner.merge([state]).theta[0] - whole.theta[0]
    ).abs().max() < 0.2  # a row linearised near the answer


def test_merged_classes_are_as_good_as_one_pass():
    """8 shards of 320 rows; the bar of `make study NAME=every_row` is 1.02, on more tasks."""
    family = LinearClassification(8, 4, support_rows=2560, query_rows=400)
    task = family.sample(16, torch.Generator().manual_seed(0))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        learner = regimes.bayesian(family, 8)
    with torch.no_grad():
        shards = [learner.adapt(task.support.slice(at, at + 320), 16) for at in range(0, 2560, 320)]
        merged, whole = learner.merge(shards), learner.adapt(task.support, 16)
    losses = [excess_loss(learner.predict(task.query.x, s), task).mean() for s in (merged, whole)]
    assert losses[0] < 1.05 * losses[1]
    believed = [learner.refiner.log_evidence(state).argmax(1) for state in (merged, whole)]
    assert torch.equal(*believed)  # the same prior


def test_merged_statistics_are_those_of_one_pass():
    task, learner = drawn(LINEAR), exact()
    shards = [learner.adapt(task.support.slice(at, at + 16), 5) for at in (0, 16, 32)]
    merged, whole = learner.merge(shards), learner.adapt(task.support, 48)
    for one, other in zip(merged, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("change", [{}, dict(precision=True), dict(tail=0.0, gain=CONSTANT)])
def test_latents_merge_by_rows_or_precision(change):
    """Shards of 16 and of 32 rows: a third and two thirds, or Gaussians multiplied, the prior counted once."""
    learner = randomised(regimes.parametric(LINEAR, config=replace(CONFIG, **change)))
    task = drawn(LINEAR)
    one, two = (learner.adapt(task.support.slice(*part), 8) for part in ((0, 16), (16, 48)))
    merged = learner.merge([one, two])
    torch.testing.assert_close(merged.rows, one.rows + two.rows)
    if "precision" in change:
        prior = learner.refiner.trust.prior.exp()
        torch.testing.assert_close(merged.precision, one.precision + two.precision - prior)
        pulled = one.precision * one.latent + two.precision * two.latent
        wanted = (pulled - prior * learner.refiner.start) / merged.precision
    else:
        wanted = (one.latent + 2 * two.latent) / 3
    torch.testing.assert_close(merged.latent, wanted)
    if "tail" in change:
        torch.testing.assert_close(merged.average, (one.average + 2 * two.average) / 3)


def test_what_does_not_merge_is_refused_with_a_reason():
    task = drawn(CLASSES)
    implicit = randomised(regimes.implicit(CLASSES, config=CONFIG))
    state = implicit.adapt(task.support, 16, task.query)
    with pytest.raises(ValueError, match="do not merge: its state is a prediction for its own queries"):
        implicit.merge([state, state])
    memory = randomised(regimes.parametric(CLASSES, config=replace(CONFIG, memory=2)))
    state = memory.adapt(task.support, 16)
    with pytest.raises(ValueError, match="do not merge: its steps depend on the order of rows"):
        memory.merge([state, state])
    past = randomised(regimes.parametric(CLASSES, config=replace(CONFIG, history=1)))
    with pytest.raises(ValueError, match="do not merge: its steps depend on the order of rows"):
        past.merge([past.adapt(task.support, 16)] * 2)
    adam = build("adam", CLASSES, rate=0.1).double()
    with pytest.raises(ValueError, match="states of Adam do not merge"):
        adam.merge([adam.adapt(task.support, 16)] * 2)
    with pytest.raises(ValueError, match="at least one state; got none"):
        heads().merge([])
    narrow, wide = exact(), exact((4, 2), ((1.0, 1.0),))
    other = wide.refiner.init(3)
    with pytest.raises(
        ValueError, match=r"state.gram is \[3, 4, 4\] in the first and \[3, 6, 6\] in another"
    ):
        narrow.merge([narrow.refiner.init(3), other])


def test_packed_statistics_are_half_as_wide_and_come_back():
    task, learner = drawn(LINEAR), exact()
    state = learner.adapt(task.support, 16)
    kept = pack(state)
    assert kept.gram.shape == (3, 10) and kept.gram.dtype == torch.float32
    for one, other in zip(unpack(kept, state.gram), state, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


# --- proximal steps


def test_a_proximal_step_needs_curvature_and_shrinks_as_rows_are_seen():
    with pytest.raises(ValueError, match="a proximal step needs curvature; got None"):
        replace(CONFIG, proximal=True)
    config = replace(CONFIG, curvature=Gain(0.0), proximal=True)
    learner = randomised(regimes.parametric(LINEAR, config=config), scale=0.01)
    batch = drawn(LINEAR).support.slice(0, 16)
    fresh = learner.refiner.init(3)
    late = fresh._replace(rows=fresh.rows + 16_000)
    first, last = (learner.step(state, batch).latent - fresh.latent for state in (fresh, late))
    assert last.norm() < 0.02 * first.norm()
    assert learner.step(fresh, batch).curvature is None  # no Gram matrix is carried


def test_a_prior_that_is_off_gives_its_inputs_no_weight():
    task = drawn(LINEAR)
    learner = exact((2, 2), ((1.0, OFF),))
    theta = learner.refiner.latent(learner.adapt(task.support, 16))
    assert theta[:, 2:].abs().max() < 1e-6 < theta[:, :2].abs().min()
