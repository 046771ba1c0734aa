"""A fixed-lag smoother: slopes against autograd, exactness where f is linear, and what a window is worth where not."""

import pytest
import torch
from torch.func import jacrev, vmap

from gradatim import Batch, Learner, LinearClassification, LinearRegression, RandomNetworkRegression
from gradatim.methods import build
from gradatim.metrics import excess_risk
from gradatim.predictors import Decoder, Ensemble, Network, SquaredError
from gradatim.refiners import Smoother
from gradatim.signal import PLAIN


@pytest.mark.parametrize(("hidden", "bias", "outputs"), [((), True, 1), ((5,), True, 2), ((4, 3), False, 3)])
def test_slopes_are_those_of_autograd(hidden, bias, outputs):
    f = Network(3, SquaredError(outputs), hidden, bias)
    x, theta = torch.randn(2, 6, 3).double(), torch.randn(2, f.layout.size).double()
    said, slopes = f.jacobian(x, theta)
    expected = vmap(jacrev(lambda weights, rows: f(rows[None], weights[None])[0]))(theta, x)
    assert torch.allclose(slopes, expected, atol=1e-12)
    assert torch.allclose(said, f(x, theta), atol=1e-12)
    with pytest.raises(ValueError, match="no slopes"):
        Decoder(3, SquaredError(1)).jacobian(x, theta)


def _linear(lag, members=1, damping=0.0):
    f = Ensemble(Network(3, SquaredError(2)), members)
    shapes = f.member.layout.shapes
    return Learner(f, Smoother(f.member, f.initial(), shapes, 3, lag, 0.5, damping), PLAIN).double()


@pytest.mark.parametrize("lag", [0, 7, 64])
def test_a_linear_f_is_fitted_exactly_whatever_the_window(lag):
    x, y = torch.randn(2, 30, 3).double(), torch.randn(2, 30, 2).double()
    state = _linear(lag).adapt(Batch(x, y), 5)
    a = torch.cat([x, torch.ones_like(x[..., :1])], dim=-1)
    ridge = torch.linalg.solve(a.mT @ a + 0.5 * 4 * torch.eye(4).double(), a.mT @ y).mT
    assert torch.allclose(state.theta[:, 0], ridge.flatten(1), atol=1e-10)


def test_whole_mini_batches_leave_the_window():
    learner, rows = _linear(lag=7), Batch(torch.randn(1, 12, 3).double(), torch.randn(1, 12, 2).double())
    ages = [state.age[0].tolist() for state in learner.states(rows.split(4))]
    assert ages == [[0] * 7, [0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 2, 2, 2, 2], [0, 0, 0, 3, 3, 3, 3]]


def test_a_window_and_members_pay_on_networks():
    task = RandomNetworkRegression(4, 8, 0.1, support_rows=480, query_rows=200).sample(
        8, torch.Generator().manual_seed(0)
    )

    def risk(**settings):
        learner = build("smoother", RandomNetworkRegression(4, 8, 0.1), hidden=(16,), **settings)
        return excess_risk(learner.predict(task.query.x, learner.adapt(task.support, 16)), task).mean()

    kalman, window, four = risk(lag=0, members=1), risk(lag=256, members=1), risk(lag=256, members=4)
    assert window < 0.7 * kalman
    assert four < 0.95 * window


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="lag -1"):
        _linear(lag=-1)
    with pytest.raises(ValueError, match="damping nan"):
        _linear(lag=1, damping=float("nan"))
    with pytest.raises(ValueError, match="at least one member; got 0"):
        build("smoother", LinearRegression(3), members=0)
    with pytest.raises(ValueError, match="this family has classes"):
        build("smoother", LinearClassification(3, 3))
