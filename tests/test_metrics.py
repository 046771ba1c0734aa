"""Metrics: against loops over rows, the loop of the learner, and the coverage that an interval promises."""

import math

import numpy as np
import pytest
import torch

from gradatim.batch import Batch, Task
from gradatim.families import LinearClassification, LinearRegression
from gradatim.methods import build
from gradatim.metrics import accuracy, bootstrap, curve, error_rate, excess_risk, soft_vote, squared_error
from gradatim.refiners import TransformerConfig
from gradatim.regimes import parametric
from gradatim.testing import randomised
from gradatim.testing.options import fitting

ROWS = dict(support_rows=12, query_rows=7)


def masked(family):
    """Return three tasks whose queries have 7, 1 and 4 rows, and outputs to judge."""
    task = family.sample(3, torch.Generator().manual_seed(0)).to(torch.float64)
    mask = torch.arange(7) < torch.tensor([[7], [1], [4]])
    mask[2, 0] = False
    query = Batch(task.query.x, task.query.y, mask)
    width = family.likelihood.classes or 1
    outputs = torch.randn(3, 7, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return Task(task.support, query, truth=task.truth), outputs


def loop(task, number):
    """Return the mean of number(b, n) over the query rows that are there."""
    rows = [[number(b, n) for n in range(7) if task.query.mask[b, n]] for b in range(3)]
    return [sum(row) / len(row) for row in rows]


def test_error_rate_counts_present_rows():
    task, outputs = masked(LinearClassification(3, 3, **ROWS))
    wanted = loop(
        task, lambda b, n: float(max(range(3), key=outputs[b, n].tolist().__getitem__) != task.query.y[b, n])
    )
    assert error_rate(outputs, task).tolist() == pytest.approx(wanted)
    assert 0 < wanted[0] < 1
    # whatever is said at absent rows
    outputs[~task.query.mask] = torch.tensor([9.0, -9.0, 0.0]).double()
    assert error_rate(outputs, task).tolist() == pytest.approx(wanted)


def test_squared_error_and_excess_risk_are_means_over_present_rows():
    task, outputs = masked(LinearRegression(3, 0.5, **ROWS))
    for metric, answer in ((squared_error, task.query.y), (excess_risk, task.truth)):
        wanted = loop(task, lambda b, n, answer=answer: (outputs[b, n, 0] - answer[b, n, 0]).item() ** 2)
        assert metric(outputs, task).tolist() == pytest.approx(wanted, rel=1e-12)
    assert excess_risk(task.truth, task).tolist() == [0.0] * 3
    with pytest.raises(ValueError, match=r"needs a family that knows the noiseless answer \(Task.truth\)"):
        excess_risk(outputs, Task(task.support, task.query))


@pytest.mark.parametrize("name", ["adam", "parametric-both", "implicit-logits"])
@pytest.mark.parametrize("steps", [[0, 1, 3], [3], (2, 0)])
def test_a_curve_is_the_loop(name, steps):
    family = LinearClassification(3, 3, **ROWS)
    learner, (task, _) = (
        build(name, family, **fitting(name, TransformerConfig(8, 1, 2))).double(),
        masked(family),
    )
    found = curve(learner, task, 4, steps, {"error": error_rate, "loss": lambda o, t: -o.mean((1, 2))})
    state, wanted = learner.refiner.init(3, task.query), {}
    for step in range(4):
        if step:
            state = learner.step(state, task.support.slice(4 * step - 4, 4 * step))
        outputs = learner.predict(task.query.x, state).detach()
        wanted[step] = (error_rate(outputs, task).numpy(), -outputs.mean((1, 2)).numpy())
    assert found["error"].shape == (len(steps), 3)
    for place, step in enumerate(sorted(steps)):
        for name, value in zip(("error", "loss"), wanted[step], strict=True):
            np.testing.assert_allclose(found[name][place], value, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("steps", "said"),
    [([1, 4], "need up to 16 support rows; the tasks have 12"), ([], "need up"), ([-1, 1], "need up")],
)
@pytest.mark.parametrize("judge", [curve, soft_vote])
def test_curves_beyond_the_support_are_refused(judge, steps, said):
    family = LinearClassification(3, 3, **ROWS)
    with pytest.raises(ValueError, match=said):
        judge(build("sgd", family), masked(family)[0], 4, steps, {"error": error_rate})


def test_the_interval_of_a_mean_is_the_normal_one():
    values = np.random.default_rng(0).normal(3, 2, size=(1, 400))
    mean, low, high = bootstrap(np.mean, values, resamples=4000)
    half = 1.96 * values.std() / math.sqrt(400)
    assert mean == pytest.approx(values.mean())
    assert low == pytest.approx(mean - half, abs=0.1 * half)
    assert high == pytest.approx(mean + half, abs=0.1 * half)
    _, low90, high90 = bootstrap(np.mean, values, resamples=4000, level=0.9)
    assert (high90 - low90) / (high - low) == pytest.approx(1.645 / 1.96, rel=0.05)
    assert bootstrap(np.mean, values, resamples=50) == bootstrap(np.mean, values, resamples=50)


def test_an_interval_covers_as_often_as_it_says():
    """Seeds and tasks both vary, the mean is 0: of 200 intervals at 90%, about 180 hold it, binomially."""
    rng = np.random.default_rng(1)
    inside = 0
    for trial in range(200):
        values = 0.3 * rng.normal(size=(12, 1)) + rng.normal(size=(1, 40)) + rng.normal(size=(12, 40))
        _, low, high = bootstrap(np.mean, values, resamples=200, level=0.9, seed=trial)
        inside += low <= 0 <= high
    assert 165 <= inside <= 195


def test_differences_are_paired_by_task():
    """Tasks of very different difficulty, a method better by 0.1 on each: only paired draws see it."""
    difficulty = np.random.default_rng(2).normal(0, 10, size=50)
    one, other = np.tile(difficulty, (3, 1)) + 0.1, difficulty[None]
    value, low, high = bootstrap(lambda a, b: a.mean() - b.mean(), one, other, resamples=200)
    assert (value, low, high) == pytest.approx((0.1, 0.1, 0.1))
    ratio, low, high = bootstrap(
        lambda a, b: a.mean() / b.mean(), 2 * np.abs(other), np.abs(other), resamples=200
    )
    assert (ratio, low, high) == pytest.approx((2, 2, 2))
    with pytest.raises(ValueError, match=r"one number of tasks; got \[49, 50\]"):
        bootstrap(lambda a, b: a.mean() - b.mean(), one, other[:, :49])


def test_seeds_count_as_much_as_they_vary():
    """Without variation over tasks the interval is that of drawing 4 seeds anew."""
    seeds = np.array([0.0, 0.0, 0.0, 4.0])
    _, low, high = bootstrap(np.mean, np.tile(seeds[:, None], (1, 30)), resamples=4000, level=0.5)
    counts = np.random.default_rng(3).binomial(4, 0.25, size=100_000)
    assert (low, high) == pytest.approx(tuple(np.percentile(counts, [25, 75])))


def test_a_soft_vote_is_the_mean_probability_of_single_answers():
    family = LinearClassification(3, 3, support_rows=12, query_rows=5)
    task = family.sample(2, torch.Generator().manual_seed(0)).to(torch.float64)
    torch.manual_seed(0)
    learner = randomised(parametric(family, config=TransformerConfig(width=16, layers=1)))
    seen = []

    def kept(outputs, task):
        seen.append(outputs.exp())
        return error_rate(outputs, task)

    found = soft_vote(learner, task, 4, [1, 3], {"error": kept})["error"]
    with torch.no_grad():
        single = [
            learner.predict(task.query.x, learner.step(learner.refiner.init(2), batch)).softmax(-1)
            for batch in task.support.split(4)
        ]
    torch.testing.assert_close(seen[0], single[0])
    torch.testing.assert_close(seen[1], torch.stack(single).mean(0))
    assert found.shape == (2, 2)
    right = soft_vote(learner, task, 4, [1, 3], {"accuracy": accuracy})["accuracy"]
    np.testing.assert_allclose(found + right, 1)


@pytest.mark.parametrize("name", ["parametric-both", "implicit-logits", "implicit-probabilities"])
def test_a_soft_vote_counts_rows_and_begins_with_the_start(name):
    """Task 1 has no rows in the second mini-batch, task 2 one in the first and none in the third."""
    family = LinearClassification(3, 3, **ROWS)
    torch.manual_seed(0)
    learner = randomised(build(name, family, **fitting(name, TransformerConfig(8, 1, 2))))
    learner.requires_grad_(False)
    task = masked(family)[0]
    mask = torch.ones(3, 12, dtype=torch.bool)
    mask[1, 4:8] = mask[2, 1:4] = mask[2, 8:] = False
    task = Task(Batch(task.support.x, task.support.y, mask), task.query)
    seen = []

    def kept(outputs, task):
        seen.append(outputs.exp().numpy())
        return error_rate(outputs, task)

    found = soft_vote(learner, task, 4, [3, 0, 2], {"error": kept})["error"]
    start = learner.refiner.init(3, task.query)
    single = [learner.predict(task.query.x, start).softmax(-1).numpy()]
    single += [
        learner.predict(task.query.x, learner.step(start, batch)).softmax(-1).numpy()
        for batch in task.support.split(4)
    ]
    assert found.shape == (3, 3)
    rows = np.array([[4, 4, 4], [4, 0, 4], [1, 4, 0]])
    for b in range(3):
        np.testing.assert_allclose(seen[0][b], single[0][b], rtol=1e-12)
        for place, step in ((1, 2), (2, 3)):
            weights = rows[b, :step] / rows[b, :step].sum()
            wanted = sum(w * p[b] for w, p in zip(weights, single[1:], strict=False))
            np.testing.assert_allclose(seen[place][b], wanted, rtol=1e-12)


def test_a_regression_is_not_voted_on():
    family = LinearRegression(3, 0.5, **ROWS)
    with pytest.raises(ValueError, match=r"needs classes, int64 in y; got torch.float64: judge"):
        soft_vote(build("sgd", family).double(), masked(family)[0], 4, [1], {"error": squared_error})
