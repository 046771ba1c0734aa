"""Learnt steps on top of a learnt prior: untrained they change nothing, sums stay exact, and only gains are kept."""

from dataclasses import replace

import pytest
import torch

from gradatim import (
    Batch,
    LinearClassification,
    LinearRegression,
    Prefixes,
    Recipe,
    Unrolled,
    load_state,
    save_state,
)
from gradatim.families import Sinusoids
from gradatim.files.checkpoint import load_weights
from gradatim.methods import RefinedALPaCA, RefinedPLDA, build
from gradatim.refiners.refined import OCTAVES, octave
from gradatim.testing import check_refiner, check_scheme
from gradatim.testing.tools import randomised
from gradatim.training.refining import begin_from, keep_where_better
from gradatim.training.train import TrainConfig, train

NUMBERS = LinearRegression(3, 0.5, support_rows=16, query_rows=6)
CLASSES = LinearClassification(3, 3, support_rows=16, query_rows=6)
PAIRS = {"refined-alpaca": ("alpaca", NUMBERS), "refined-plda": ("plda", CLASSES)}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pair(name, **options):
    """Return a start with random weights, a learner that begins from it, and tasks, in float64."""
    start_name, family = PAIRS[name]
    torch.manual_seed(0)
    start = randomised(build(start_name, family, keys=4, width=6))
    learner = build(name, family, keys=4, width=6, **options).double()
    begin_from(learner, start)
    return start, learner, family.sample(3, seeded()).to(torch.float64)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("name", PAIRS)
def test_before_training_the_answers_are_those_of_the_start(name, steps):
    start, learner, task = pair(name, steps=steps)
    for rows in (0, 1, 7, 16):
        with torch.no_grad():
            states = [
                one.adapt(task.support.slice(0, rows), 5) if rows else one.init(3) for one in (start, learner)
            ]
            latents = [one.refiner.latent(state) for one, state in zip((start, learner), states, strict=True)]
        torch.testing.assert_close(*latents, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", PAIRS)
def test_where_steps_are_not_kept_the_answers_are_those_of_the_start(name):
    start, learner, task = pair(name)
    learner = randomised(learner)
    begin_from(learner, start)
    learner.refiner.kept[octave(torch.tensor(6.0))] = False
    with torch.no_grad():
        for rows, same in ((3, False), (4, True), (7, True), (8, False)):
            support = task.support.slice(0, rows)
            first, second = (one.predict(task.query.x, one.adapt(support, rows)) for one in (start, learner))
            assert torch.allclose(first, second, rtol=1e-12, atol=1e-12) == same


def test_a_step_is_the_posterior_under_the_prior_that_it_puts():
    _, learner, task = pair("refined-alpaca", steps=1)
    learner = randomised(learner)
    r = learner.refiner
    with torch.no_grad():
        state = learner.adapt(task.support, 16)
        evidence = r._evidence(state)
        mean, variance = learner.predictor.moments(task.query.x, r.latent(state))
        first = torch.linalg.inv(evidence.precision + torch.eye(4, dtype=torch.float64))
        head, factor = first @ evidence.pull, torch.linalg.cholesky(torch.linalg.inv(first))
        local = r._local(evidence, head, factor, torch.ones(3, 1, dtype=torch.float64))
        for b in range(3):
            # y = K w + e with w ~ N(m + L c, L diag(1 / p) L'), as one dense Gaussian
            k, q = (learner.predictor.encode(part.x[b]) for part in (task.support, task.query))
            prior = r.root() @ torch.diag((-local.log_precision[b]).exp()) @ r.root().mT
            center = r.mean + r.root() @ local.center[b]
            noise = (r.log_noise + local.log_noise[b]).exp()
            joint = k @ prior @ k.mT + noise * torch.eye(16, dtype=k.dtype)
            gain = torch.linalg.solve(joint, k @ prior @ q.mT).mT
            wanted = q @ center + gain @ (task.support.y[b] - k @ center)
            spread = (q @ prior @ q.mT - gain @ k @ prior @ q.mT).diagonal() + noise
            # 1e-8: both are float64, of matrices with condition numbers below 1e6
            torch.testing.assert_close(mean[b], wanted, rtol=1e-8, atol=1e-8)
            torch.testing.assert_close(variance[b, :, 0], spread, rtol=1e-8, atol=1e-8)


def test_a_step_sees_the_gradient_of_the_loss_of_all_rows():
    _, learner, task = pair("refined-alpaca")
    r = learner.refiner
    with torch.no_grad():
        evidence = r._evidence(learner.adapt(task.support, 5))
        keys = learner.predictor.encode(task.support.x)
    u = torch.randn(3, 4, 1, dtype=torch.float64, generator=seeded()).requires_grad_()
    left = task.support.y - keys @ (r.mean + r.root() @ u)
    (gradient,) = torch.autograd.grad((left.square().sum() / r.log_noise.exp() / 2).sum(), u)
    torch.testing.assert_close(evidence.precision @ u - evidence.pull, gradient, rtol=1e-9, atol=1e-9)
    misfit = evidence.misfit + (u * (evidence.precision @ u - 2 * evidence.pull)).sum(1)
    torch.testing.assert_close(misfit, left.square().sum(1) / r.log_noise.exp(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", PAIRS)
def test_shards_merge_to_one_pass_and_the_cut_into_mini_batches_does_not_matter(name):
    _, learner, task = pair(name)
    learner = randomised(learner)
    with torch.no_grad():
        whole = learner.adapt(task.support, 16)
        shards = [learner.adapt(task.support.slice(*ends), 3) for ends in ((0, 5), (5, 16))]
        answers = [learner.predict(task.query.x, state) for state in (learner.merge(shards), whole)]
    torch.testing.assert_close(*answers, rtol=1e-10, atol=1e-10)


def test_classes_without_rows_change_nothing_for_others():
    torch.manual_seed(0)
    learner = randomised(RefinedPLDA(keys=4, width=6, steps=2).build(CLASSES))
    wide = RefinedPLDA(keys=4, width=6, steps=2).build(replace(CLASSES, classes=7)).double()
    wide.load_state_dict(learner.state_dict())
    task, place = CLASSES.sample(2, seeded()).to(torch.float64), torch.tensor([5, 0, 2])
    with torch.no_grad():
        state = learner.adapt(task.support, 5)
        renamed = wide.adapt(Batch(task.support.x, place[task.support.y]), 5)
        scores = wide.predict(task.query.x, renamed)
        torch.testing.assert_close(scores[..., place], learner.predict(task.query.x, state))
        torch.testing.assert_close(wide.predict(task.query.x, wide.widen(state, place)), scores)


def test_several_outputs_keep_the_laws():
    wide = RandomOutputs(3, 0.5, support_rows=15, query_rows=6)
    check_refiner(RefinedALPaCA(keys=4, width=6, units=8, rank=2).build(wide), wide)


class RandomOutputs(LinearRegression):
    """Linear regression with two outputs: y and minus y plus x."""

    likelihood = replace(LinearRegression.likelihood, output_dim=2)

    def sample(self, n_tasks, generator):
        task = super().sample(n_tasks, generator)
        double = lambda rows: Batch(rows.x, torch.cat([rows.y, rows.x[..., :1] - rows.y], 2), rows.weight)  # noqa: E731
        return replace(task, support=double(task.support), query=double(task.query), truth=None)


@pytest.mark.parametrize("name", PAIRS)
def test_the_scheme_of_sums_trains_it(name):
    family = PAIRS[name][1]
    check_scheme(Prefixes(4, 4, density=False), build(name, family), family)
    _, learner, task = pair(name)
    learner, gradients = randomised(learner), []
    for scheme in (Prefixes(4, 4, density=False), Unrolled(4, 4)):
        loss = scheme.loss(learner, task, seeded())
        parts = torch.autograd.grad(loss, list(learner.parameters()), allow_unused=True)
        gradients.append([torch.zeros(()) if part is None else part for part in parts])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", PAIRS)
def test_a_frozen_start_stays_as_it_is_and_steps_are_learnt(name):
    start_name, family = PAIRS[name]
    torch.manual_seed(0)
    start, learner = build(start_name, family, keys=4), build(name, family, keys=4)
    begin_from(learner, start, frozen=True)
    train(learner, family, Prefixes(4, 4), TrainConfig(iterations=3, tasks=4, warmup=1), progress=False)
    weights = start.state_dict()
    moved = [n for n, value in learner.state_dict().items() if n in weights and not value.equal(weights[n])]
    assert not moved
    last = learner.refiner.last if name == "refined-plda" else learner.refiner.move[-1]
    assert last.weight.abs().max().item() > 0


@pytest.mark.parametrize("name", PAIRS)
def test_what_is_kept_is_saved_with_the_weights(name, tmp_path):
    family, config = PAIRS[name][1], TrainConfig(iterations=2, tasks=4, warmup=1, checkpoint_every=1)
    recipe = Recipe(name, family, Prefixes(4, 4), config)
    learner = recipe.learner()
    learner.refiner.kept[2:5] = False
    train(learner, family, recipe.scheme, config, tmp_path, progress=False)
    again = recipe.learner()
    load_weights(again, tmp_path / "learner.safetensors")
    assert again.refiner.kept.tolist() == [not 2 <= place < 5 for place in range(OCTAVES)]
    task = family.sample(2, seeded())
    save_state(tmp_path / "state.safetensors", learner.adapt(task.support, 4), learner)
    state = load_state(tmp_path / "state.safetensors", again)
    assert torch.equal(*(one.predict(task.query.x, state) for one in (learner, again)))


def test_steps_are_kept_where_they_beat_the_start():
    """With a center that is right after no row and wrong later, steps are kept after none alone."""
    family = LinearRegression(2, 0.1, support_rows=8)
    torch.manual_seed(0)
    learner = RefinedALPaCA(keys=2, encoder="linear").build(family)
    with torch.no_grad():
        learner.predictor.encoder.weight.copy_(torch.eye(2))
        learner.predictor.encoder.bias.zero_()
        learner.refiner.mean.fill_(5.0)
        learner.refiner.scaled_log_noise.fill_(-0.46)
        learner.refiner.move[-1].bias[:2] = -5.0
        learner.refiner.move[-1].bias[2:4] = 20.0
    ratios = keep_where_better(learner, family.sample(50, seeded()), 4)
    assert [rows for rows, _ in ratios] == [0, 4, 8]
    assert ratios[0][1] < 0.2 and ratios[2][1] > 2
    assert learner.refiner.kept[:2].all() and not learner.refiner.kept[3:].any()


def test_steps_that_change_nothing_are_not_kept_and_no_sum_is_touched():
    _, learner, task = pair("refined-plda")
    ratios = keep_where_better(learner, task, 8)
    assert [ratio for _, ratio in ratios] == [1.0, 1.0, 1.0] and not learner.refiner.kept.any()
    again = build("refined-plda", CLASSES, keys=4, width=6).double()
    again.load_state_dict(learner.state_dict())
    assert not again.refiner.kept.any()


def test_powers_of_two_are_told_apart_exactly():
    rows = torch.arange(1, 5000, dtype=torch.float64)
    assert octave(rows).tolist() == [int(n).bit_length() for n in rows.tolist()]
    assert octave(torch.tensor([0.0, 0.5, 2.0**60], dtype=torch.float64)).tolist() == [0, 0, 39]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: RefinedALPaCA(steps=0).build(NUMBERS), "at least one step and one unit; got 0 steps"),
        (lambda: RefinedPLDA(units=6).build(CLASSES), "units that 4 heads divide; got 1 steps, 6 units"),
        (
            lambda: begin_from(build("alpaca", NUMBERS), build("alpaca", NUMBERS)),
            "ALPaCA has no learnt steps on top",
        ),
        (
            lambda: begin_from(build("refined-alpaca", NUMBERS), build("alpaca", NUMBERS, keys=3)),
            "build both of one family, with the same options",
        ),
        (
            lambda: begin_from(build("refined-alpaca", NUMBERS), build("plda", CLASSES)),
            "the start's .* the learner's is missing",
        ),
        (
            lambda: begin_from(build("refined-alpaca", NUMBERS), build("refined-alpaca", NUMBERS)),
            "the start has learnt steps already",
        ),
        (
            lambda: keep_where_better(build("refined-alpaca", NUMBERS), NUMBERS.sample(1, seeded()), 4),
            "judged by at least two tasks; got 1",
        ),
        (lambda: build("refined-plda", NUMBERS), "refined-plda tells classes apart"),
        (lambda: build("refined-alpaca", CLASSES), "refined-alpaca fits squared loss"),
    ],
)
def test_what_does_not_fit_is_refused_by_a_sentence(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_steps_learn_frequencies_that_no_key_knows():
    family = Sinusoids(0.3, (0.5, 2.0), support_rows=20, query_rows=20)
    torch.manual_seed(0)
    start = build("alpaca", family, keys=16)
    scheme, config = Prefixes(1, 20, chosen=2), TrainConfig(iterations=150, tasks=16, lr=5e-3, warmup=10)
    train(start, family, scheme, config, progress=False)
    learner = build("refined-alpaca", family, keys=16, units=32)
    begin_from(learner, start, frozen=True)
    train(learner, family, scheme, config, progress=False)
    task = family.sample(300, seeded(9))
    with torch.no_grad():
        errors = [one.loss(task.query, one.adapt(task.support, 20)).mean() for one in (start, learner)]
    # five seeds have .72 to .81
    assert float(errors[1] / errors[0]) < 0.9
