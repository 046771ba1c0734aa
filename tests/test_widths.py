"""Intervals hold the share of rows that they say, whatever is predicted."""

import numpy as np
import pytest
import torch

from gradatim import RefinedRegressor
from gradatim.nn.widths import GAIN, KNOTS, MOST, PRIOR, Widths


def noisy(rows, seed=0):
    """Return rows whose noise grows with what is predicted, from .1 to 2.1."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, size=(rows, 3))
    return x, 3 * x[:, 0] + (1.1 + x[:, 0]) * rng.normal(size=rows)


def off_by_fifths(model, x, y):
    """Return how far the coverage of the 80% intervals is off, the mean over fifths of the prediction."""
    low, high = model.predict(x, quantiles=[0.1, 0.9]).T
    inside = ((low <= y) & (y <= high))[model.predict(x).argsort()]
    return float(np.mean([abs(part.mean() - 0.8) for part in np.array_split(inside, 5)]))


@pytest.mark.parametrize("memory", ["all", "adaptive"])
def test_noise_that_grows_with_the_prediction_is_followed(memory):
    x, y = noisy(3000)
    model = RefinedRegressor(memory=memory)
    for start in range(0, 3000, 100):
        model.partial_fit(x[start : start + 100], y[start : start + 100])
    found = off_by_fifths(model, *noisy(5000, 1))
    assert found < 0.04
    if memory == "all":
        state = model.task_.members.states[0]
        flat = state.widths._replace(factor=torch.zeros_like(state.widths.factor))
        model.task_.members = model.task_.members.renewed()
        model.task_.members.states[0] = state._replace(widths=flat)
        assert off_by_fifths(model, *noisy(5000, 1)) > 0.08  # without them


@pytest.mark.parametrize("learn", ["fit", "partial_fit"])
def test_another_unit_of_the_target_changes_nothing(learn):
    x, y = noisy(700)
    one, other = (getattr(RefinedRegressor(), learn)(x, target) for target in (y, 1000 * y - 7))
    found = [model.predict(x[:50], quantiles=[0.1, 0.9]) for model in (one, other)]
    np.testing.assert_allclose(1000 * found[0] - 7, found[1], rtol=1e-7, atol=1e-6)


def test_factors_of_merged_states_are_averaged_by_rows_in_any_order():
    torch.manual_seed(0)
    parts = [
        Widths(torch.rand(1, KNOTS), 100 * torch.rand(1, KNOTS), torch.rand(1, KNOTS), torch.ones(1, 2))
        for _ in range(3)
    ]
    first, second, third = (Widths(*(part.double() for part in widths)) for widths in parts)
    merged = first.merged(second).merged(third)
    again = third.merged(first.merged(second))
    for one, other in zip(merged, again, strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(
        merged.factor, sum(part.rows * part.factor for part in (first, second, third)) / merged.rows
    )


def test_a_row_outside_widens_and_rows_inside_narrow_by_as_much_as_is_said():
    widths = Widths.empty(1, torch.zeros((), dtype=torch.float64)).turned(torch.tensor([[0.0, 1.0]]))
    ten, mean = torch.ones(1, 10, dtype=torch.float64), torch.zeros(1, 10, dtype=torch.float64)
    outside = torch.arange(10)[None] < 3  # one more than a fifth
    turned = widths.counted(mean, outside, ten).turned(torch.tensor([[0.0, 1.0]]))
    assert float(turned.factor[0, KNOTS // 2]) == pytest.approx(GAIN / (10 + PRIOR))
    assert float(turned.stretch(torch.zeros(1, 1).double())) == pytest.approx(np.exp(GAIN / (10 + PRIOR)))
    for _ in range(1000):
        turned = turned.counted(mean, torch.ones(1, 10, dtype=torch.bool), ten).turned(widths.scale)
    assert float(turned.factor.max()) == MOST
    turned.check()
    with pytest.raises(ValueError, match="widths"):
        turned._replace(rows=-turned.rows).check()


def test_widths_are_saved(tmp_path):
    x, y = noisy(900)
    model = RefinedRegressor().partial_fit(x[:700], y[:700])
    loaded = RefinedRegressor.load(model.save(tmp_path / "s.safetensors"))
    for each in (model, loaded):
        each.partial_fit(x[700:], y[700:])
    levels = [0.1, 0.9]
    assert np.array_equal(model.predict(x, quantiles=levels), loaded.predict(x, quantiles=levels))
