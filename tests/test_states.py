"""States that carry their precision: exact posteriors and evidence, Laplace's, what merges and what is refused."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import multivariate_t

from gradatim import regimes
from gradatim.benchmarks.every_row import excess_loss
from gradatim.families import LinearClassification, LinearRegression, RandomNetworkRegression
from gradatim.learner import Learner
from gradatim.methods import build
from gradatim.metrics import curve, excess_risk
from gradatim.predictors import CrossEntropy, Network, SquaredError
from gradatim.refiners import CONSTANT, OFF, Conjugate, Gain, Laplace, RowsConfig
from gradatim.refiners.moments import MomentsState, pack, unpack
from gradatim.signal import CLOSED_FORM
from gradatim.testing import randomised

LINEAR = LinearRegression(4, 0.5, support_rows=48, query_rows=20)
CLASSES = LinearClassification(3, 3, support_rows=48, query_rows=20)
CONFIG = RowsConfig(width=16, layers=1, heads=2)


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
    found = refiner.posterior(MomentsState(a.mT @ a, a.mT @ y, y.square().sum(1), rows))
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
    task, learner = drawn(LINEAR), exact(forget=0.9)
    state = learner.adapt(task.support, 16)
    for b in range(3):
        weights = np.repeat([0.9**32, 0.9**16, 1.0], 16)[:, None]
        x = task.support.x[b].numpy()
        np.testing.assert_allclose(state.gram[b].numpy(), (weights * x).T @ x, rtol=1e-10)
    with pytest.raises(ValueError, match=r"forget \(factor 0.9\) depend on the order of rows"):
        learner.merge([state, state])
    for factor in (0.0, 1.5, -1.0):
        with pytest.raises(ValueError, match=r"lies in \(0, 1\], 1 forgets nothing; got"):
            exact(forget=factor)
    with pytest.raises(ValueError, match="positive precision for each of the 2 blocks"):
        Conjugate((2, 3), 1, ((1.0,),))


# --- Laplace


def heads(precisions=((1.0, 1.0),)):
    f = Network(3, CrossEntropy(3))
    return Learner(f, Laplace((3, 1), 3, precisions, iterations=300), CLOSED_FORM).double()


def test_a_first_mini_batch_is_answered_by_penalised_moderated_logistic_regression():
    task, learner = drawn(CLASSES), heads()
    state = learner.adapt(task.support, 48)
    for b in range(3):
        a = np.c_[task.support.x[b].numpy(), np.ones(48)]
        y = task.support.y[b, :, 0].numpy()
        halfway = np.eye(4) + 3 / 2 * (1 / 3 * 2 / 3) * a.T @ a / 2
        k = (1 + np.pi / 8 * np.einsum("ni,ni->n", a, np.linalg.solve(halfway, a.T).T)) ** -0.5

        def loss(flat, a=a, y=y, k=k):
            logits = k[:, None] * (a @ flat.reshape(3, 4).T)
            each = np.logaddexp.reduce(logits, axis=1) - logits[np.arange(48), y]
            return (each / k).sum() + flat @ flat / 2

        wanted = minimize(loss, np.zeros(12), options={"gtol": 1e-8}).x
        found = learner.refiner.read(state)[b].detach().numpy().reshape(3, 4)
        wanted = wanted.reshape(3, 4)  # what is common to all classes says nothing
        np.testing.assert_allclose(found - found.mean(0), wanted - wanted.mean(0), atol=1e-4)


def test_the_excess_loss_of_classes_falls_like_one_over_rows():
    family = LinearClassification(4, 3, support_rows=1600, query_rows=500)
    task = family.sample(32, torch.Generator().manual_seed(0))
    learner = Learner(Network(4, CrossEntropy(3)), Laplace((4, 1), 3, ((1.0, 1.0),)), CLOSED_FORM)
    early, late = curve(learner, task, 16, [10, 100], {"loss": excess_loss})["loss"].mean(1)
    assert 0.04 < late / early < 0.16  # 1/10 if every row counts


@pytest.mark.parametrize("classes", [2, 10, 50])
def test_newton_steps_never_raise_what_they_lower(classes):
    """Rows of two classes that x does not tell apart: a block for each class misses how the two pull on each other."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(1, 1, 500, 8, generator=generator).double()
    y = torch.randint(0, 2, (500,), generator=generator)
    codes = torch.nn.functional.one_hot(y, classes).double()[None, None]
    theta = torch.zeros(1, 1, classes, 8).double()
    precision = torch.eye(8).double().expand(1, 1, classes, 8, 8)
    lows = []
    for steps in (1, 2, 3, 10, 30):
        head = Laplace((8,), classes, ((1.0,),), iterations=steps)
        lows.append(head._mode(a, codes, torch.ones(1, 1, 500, 1).double(), theta, precision)[1].item())
    assert lows == sorted(lows, reverse=True)
    assert lows[2] < lows[-1] * (1 + 1e-3)  # three are enough


def test_excess_loss_is_zero_at_the_truth_and_positive_elsewhere():
    task = LinearClassification(3, 4, support_rows=4, query_rows=4000).sample(
        2, torch.Generator().manual_seed(0)
    )
    assert excess_loss(task.truth, task).abs().max() == 0
    assert excess_loss(task.truth + torch.randn_like(task.truth), task).min() > 0


# --- merging


@pytest.mark.parametrize("make", [exact, heads, lambda: randomised(regimes.bayesian(CLASSES, 8))])
def test_merging_does_not_depend_on_the_order_or_the_grouping_of_shards(make):
    learner = make()
    task = drawn(LINEAR if learner.predictor.output_dim == 1 else CLASSES)
    one, two, three = (learner.adapt(task.support.slice(at, at + 16), 8) for at in (0, 16, 32))
    wanted = learner.refiner.read(learner.merge([one, two, three]))
    for other in ([three, one, two], [learner.merge([one, two]), three], [one, learner.merge([two, three])]):
        torch.testing.assert_close(learner.refiner.read(learner.merge(other)), wanted, rtol=1e-8, atol=1e-9)


def test_a_merged_posterior_counts_the_prior_once():
    task, learner = drawn(CLASSES), heads(((1.0, 2.0), (10.0, 10.0)))
    one, two = (learner.adapt(task.support.slice(*part), 8) for part in ((0, 16), (16, 48)))
    merged = learner.merge([one, two])
    prior = torch.stack([torch.tensor([1.0, 1, 1, 2]), torch.full((4,), 10.0)]).double().diag_embed()
    torch.testing.assert_close(merged.precision, one.precision + two.precision - prior[None, :, None])
    pulled = sum(s.precision @ s.theta[..., None] for s in (one, two))
    torch.testing.assert_close(merged.precision @ merged.theta[..., None], pulled)
    torch.testing.assert_close(merged.rows, torch.full((3,), 48.0).double())
    for part, wanted in zip(learner.merge([one, learner.refiner.init(3)]), one, strict=True):
        torch.testing.assert_close(part, wanted)  # a shard without rows says nothing


def test_merged_classes_are_within_a_stated_factor_of_one_pass():
    family = LinearClassification(8, 4, support_rows=2560, query_rows=400)
    task = family.sample(32, torch.Generator().manual_seed(0))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        learner = regimes.bayesian(family, 16)
    with torch.no_grad():
        shards = [learner.adapt(task.support.slice(at, at + 320), 16) for at in range(0, 2560, 320)]
        merged, whole = learner.merge(shards), learner.adapt(task.support, 16)
    losses = [excess_loss(learner.predict(task.query.x, s), task).mean() for s in (merged, whole)]
    assert losses[0] < 1.5 * losses[1]
    assert (merged.log_weight.argmax(1) == whole.log_weight.argmax(1)).all()  # the same prior is believed


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
    adam = build("adam", CLASSES, lr=0.1).double()
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
    theta = learner.refiner.read(learner.adapt(task.support, 16))
    assert theta[:, 2:].abs().max() < 1e-6 < theta[:, :2].abs().min()
