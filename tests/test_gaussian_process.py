"""The Gaussian process against an independent one, its hyper-parameters, and what it refuses."""

import numpy as np
import pytest
import torch
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from gradatim import Batch, LinearClassification
from gradatim.families import Sinusoids
from gradatim.learner import Learner
from gradatim.methods import GaussianProcess as Method
from gradatim.methods import build
from gradatim.predictors import CrossEntropy, Readout, SquaredError
from gradatim.refiners import GaussianProcess
from gradatim.refiners.gaussian_process import Hyperparameters
from gradatim.signal import PLAIN


def learner(x_dim=2, y_dim=1, **options):
    return Learner(
        Readout(SquaredError(y_dim), x_dim=x_dim), GaussianProcess(x_dim, y_dim, **options), PLAIN
    ).double()


def smooth(n_tasks=3, n_rows=40, y_dim=1, noise=0.1, seed=0):
    """Return rows and queries of smooth functions of two columns, the last task five rows short."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n_tasks, n_rows + 20, 2, generator=generator, dtype=torch.float64)
    y = (2 * x + torch.arange(n_tasks).reshape(-1, 1, 1)).sin() @ torch.ones(2, y_dim, dtype=torch.float64)
    y = y * (1 + torch.arange(y_dim)) + noise * torch.randn(y.shape, generator=generator, dtype=torch.float64)
    weight = torch.ones(n_tasks, n_rows, dtype=torch.float64)
    weight[-1, -5:] = 0
    return Batch(x[:, :n_rows], y[:, :n_rows], weight), Batch(x[:, n_rows:], y[:, n_rows:])


def reference(batch, query, task, hyperparameters):
    """Return scikit-learn's mean, its variance and its log marginal likelihood of one task."""
    length, signal, noise = (float(part[task]) for part in hyperparameters)
    kernel = ConstantKernel(signal, "fixed") * RBF(length, "fixed") + WhiteKernel(noise, "fixed")
    present = batch.mask[task]
    model = GaussianProcessRegressor(kernel, alpha=0.0, optimizer=None)
    model.fit(batch.x[task, present].numpy(), batch.y[task, present].numpy())
    mean, std = model.predict(query.x[task].numpy(), return_std=True)
    variance = std.reshape(len(mean), -1)[:, 0] ** 2 - noise
    return mean.reshape(len(mean), -1), variance, model.log_marginal_likelihood_value_


@pytest.mark.parametrize("y_dim", [1, 2])
def test_posterior_and_marginal_likelihood_are_those_of_scikit_learn(y_dim):
    batch, query = smooth(y_dim=y_dim)
    model = learner(y_dim=y_dim)
    state = model.adapt(batch, 7, query)
    fixed = Hyperparameters(*torch.tensor([[0.5, 1.0, 2.0], [1.5, 0.7, 3.0], [0.01, 0.1, 0.3]]).double())
    mean, variance = model.refiner.posterior(state, fixed)
    evidence = model.refiner.log_marginal_likelihood(state, fixed)
    for task in range(3):
        wanted, spread, likelihood = reference(batch, query, task, fixed)
        np.testing.assert_allclose(mean[task].numpy(), wanted, rtol=0, atol=1e-8)
        np.testing.assert_allclose(variance[task].numpy(), spread, rtol=0, atol=1e-8)
        assert evidence[task].item() == pytest.approx(likelihood, rel=1e-9)


def test_hyperparameters_are_as_likely_as_those_that_scikit_learn_finds():
    batch, query = smooth()
    model = learner()
    state = model.adapt(batch, 40, query)
    chosen = model.refiner.hyperparameters(state)
    likelihood = model.refiner.log_marginal_likelihood(state, chosen)
    for task in range(3):
        present = batch.mask[task]
        kernel = ConstantKernel(1.0) * RBF(1.0) + WhiteKernel(0.1, (1e-7, 10.0))
        peer = GaussianProcessRegressor(kernel, alpha=0.0, n_restarts_optimizer=3, random_state=0)
        peer.fit(batch.x[task, present].numpy(), batch.y[task, present].numpy())
        assert likelihood[task].item() > peer.log_marginal_likelihood_value_ - 0.1


def test_the_chosen_signal_is_the_most_likely_one():
    batch, query = smooth()
    model = learner()
    state = model.adapt(batch, 40, query)
    length, signal, noise = model.refiner.hyperparameters(state)
    best = model.refiner.log_marginal_likelihood(state, Hyperparameters(length, signal, noise))
    for factor in (0.9, 1.1):
        scaled = Hyperparameters(length, factor * signal, factor * noise)
        assert (model.refiner.log_marginal_likelihood(state, scaled) < best).all()


def test_copies_of_a_row_have_the_marginal_likelihood_of_its_weight():
    batch, query = smooth()
    counts = 1 + torch.arange(40).remainder(3).expand(3, -1) * batch.mask
    weighted = Batch(batch.x, batch.y, counts * batch.weight)
    copies = [
        (x[n > 0].repeat_interleave(n[n > 0].long(), 0), y[n > 0].repeat_interleave(n[n > 0].long(), 0))
        for x, y, n in zip(weighted.x, weighted.y, weighted.weight, strict=True)
    ]
    model = learner()
    fixed = Hyperparameters(*torch.tensor([[0.5], [1.5], [0.05]]).double().expand(3, 3))
    first, second = (model.adapt(rows, 200, query) for rows in (weighted, Batch.from_rows(copies)))
    torch.testing.assert_close(
        *(model.refiner.log_marginal_likelihood(state, fixed) for state in (first, second)),
        rtol=1e-10,
        atol=0,
    )
    torch.testing.assert_close(model(query.x, first), model(query.x, second), rtol=0, atol=1e-7)


def test_it_interpolates_noiseless_sinusoids_which_no_line_does():
    family = Sinusoids(support_rows=20, query_rows=50)
    task = family.sample(16, torch.Generator().manual_seed(0))
    errors = {}
    for name in ("gaussian-process", "ridge", "random-features"):
        model = build(name, family)
        outputs = model.predict(task.query.x, model.adapt(task.support, 5, task.query))
        errors[name] = (outputs - task.truth).square().mean((1, 2)).median()
    assert errors["gaussian-process"] < 0.001 * errors["ridge"]
    assert errors["gaussian-process"] < 0.1 * errors["random-features"]


def test_constant_tasks_and_tasks_without_rows_are_predicted_by_finite_numbers():
    x = torch.randn(2, 6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    model = learner()
    for y in (torch.zeros(2, 6, 1), torch.ones(2, 6, 1)):
        state = model.adapt(Batch(x, y.double()), 6, Batch(x, y.double()))
        assert (model(x, state) - y).abs().max() < 1e-3
    assert torch.equal(model(x, model.init(2, Batch(x, y.double()))), torch.zeros(2, 6, 1).double())


def test_refusals():
    family = LinearClassification(3, 3, support_rows=9)
    task = family.sample(2, torch.Generator().manual_seed(0))
    model = Learner(Readout(CrossEntropy(3), x_dim=3), GaussianProcess(3, 3), PLAIN)
    with pytest.raises(ValueError, match=r"fits regressions: y must be floating point; got torch\.int64"):
        model.adapt(task.support, 9, task.query)
    with pytest.raises(ValueError, match="this family has classes: choose 'bayesian'"):
        build("gaussian-process", family)
    with pytest.raises(ValueError, match="this family has classes: choose 'bayesian' or 'kernel'"):
        Method().build(family)
    with pytest.raises(ValueError, match="got no query"):
        model.init(2)
    for options, sentence in (
        ({"lengths": (1.0, 1.0)}, "increasing range of lengths; got 1.0 to 1.0"),
        ({"noises": (0.0, 1.0)}, "increasing range of noises; got 0.0"),
        ({"points": 2}, "points >= 3 and refinements >= 0; got points 2"),
        ({"refinements": -1}, "got points 8, refinements -1"),
    ):
        with pytest.raises(ValueError, match=sentence):
            GaussianProcess(1, **options)
