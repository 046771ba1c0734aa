"""The estimate of a learner's own loss: what it is before it is fitted, what it may see, and whether it is honest."""

from dataclasses import asdict, dataclass, replace
from itertools import islice

import numpy as np
import pytest
import torch
from studies.every_row.reliability import BINS, bins, chance, error, worst

from gradatim import LossEstimate, fit_estimate, stop_when
from gradatim.batch import Batch, Task
from gradatim.families import LinearClassification, LinearRegression
from gradatim.family import TaskFamily
from gradatim.files.checkpoint import load_weights, write
from gradatim.methods import build
from gradatim.stopping import WINDOWS, hitting_times, prequential, stopping_times
from gradatim.tree import select

FAMILY = LinearRegression(4, 0.5, support_rows=12 * 8, query_rows=128)
RIDGE = build("ridge", FAMILY, strength=0.25)


def drawn(tasks, seed=0, family: TaskFamily = FAMILY):
    return family.sample(tasks, torch.Generator().manual_seed(seed))


def path(estimate, learner, support, size=8):
    running, made = estimate.init(support.n_tasks), []
    for seen in prequential(learner, support.split(size)):
        running = estimate.update(running, seen)
        made.append(estimate(running))
    return torch.stack(made, dim=1), running


def ragged(tasks=5):
    return drawn(tasks, family=replace(FAMILY, min_support_rows=3)).support


@pytest.fixture(scope="module")
def fitted():
    return fit_estimate(RIDGE, FAMILY, batch_size=8, steps=12, tasks=512, iterations=300)


def test_an_unfitted_estimate_is_the_averaged_prequential_loss():
    support = ragged()
    said, _ = path(LossEstimate(RIDGE), RIDGE, support)
    states = list(RIDGE.states(support.split(8)))
    total, rows = torch.zeros(5), torch.zeros(5)
    for step, (state, batch) in enumerate(zip(states, support.split(8), strict=False)):
        total, rows = total + batch.rows * RIDGE.loss(batch, state), rows + batch.rows
        torch.testing.assert_close(said[:, step], total / rows)


def test_the_memory_is_of_fixed_size_and_equals_the_windows_over_the_whole_history():
    estimate, support = LossEstimate(RIDGE), ragged()
    _, running = path(estimate, RIDGE, support)
    assert running.weight.shape == (5, len(WINDOWS))
    assert running.mean.shape == (5, len(WINDOWS), 4)
    seen = list(prequential(RIDGE, support.split(8)))
    for task in range(5):
        own = [(s.statistics[task], int(s.rows[task])) for s in seen if s.rows[task] > 0]
        for place, window in enumerate(WINDOWS):
            weights = [(1 - 1 / window) ** (len(own) - 1 - i) * rows for i, (_, rows) in enumerate(own)]
            mean = sum(w * signs for w, (signs, _) in zip(weights, own, strict=True)) / sum(weights)
            torch.testing.assert_close(running.weight[task, place], torch.tensor(float(sum(weights))))
            torch.testing.assert_close(running.mean[task, place], mean)


def test_the_statistics_are_what_their_names_say():
    family = LinearClassification(3, 3, support_rows=16)
    learner, support = build("newton", family), drawn(2, family=family).support
    states = list(learner.states(support.split(8)))
    seen = list(prequential(learner, support.split(8)))
    batch = support.slice(8, 16)
    for sign, state in enumerate((states[1], states[2], states[0])):
        torch.testing.assert_close(seen[1].statistics[:, sign], learner.loss(batch, state))
    entropy = torch.distributions.Categorical(logits=learner.predict(batch.x, states[2])).entropy().mean(1)
    torch.testing.assert_close(seen[1].statistics[:, 3], entropy)
    torch.testing.assert_close(seen[1].state, states[2])


@dataclass(frozen=True)
class OtherQueries(LinearRegression):
    """The same supports, and queries whose answers are thrice as large."""

    def sample(self, n_tasks, generator):
        task = super().sample(n_tasks, generator)
        return Task(task.support, Batch(task.query.x, 3 * task.query.y))


def test_no_query_row_is_looked_at_but_as_the_target_of_the_fit():
    settings = {"batch_size": 8, "steps": 4, "tasks": 16, "iterations": 3}
    one = fit_estimate(RIDGE, FAMILY, **settings)
    other = fit_estimate(RIDGE, OtherQueries(**asdict(FAMILY)), **settings)
    assert torch.equal(one.center, other.center)
    assert torch.equal(one.scale, other.scale)
    assert not torch.equal(one.direct.weight, other.direct.weight)


def test_no_later_row_is_looked_at(fitted):
    support = drawn(3).support
    said, _ = path(fitted, RIDGE, support)
    early, _ = path(fitted, RIDGE, support.slice(0, 40))
    torch.testing.assert_close(early, said[:, :5], rtol=0, atol=0)


def test_tasks_do_not_see_each_other(fitted):
    support = drawn(4).support
    together, _ = path(fitted, RIDGE, support)
    alone, _ = path(fitted, RIDGE, support.tasks(slice(2, 3)))
    torch.testing.assert_close(alone, together[2:3])


def test_stopping_is_at_the_first_crossing_alone_and_together(fitted):
    task = drawn(16)
    said, _ = path(fitted, RIDGE, task.support)
    middle = said[:, 5].sort().values[7:9]  # between two tasks, so that rounding does not decide
    threshold = float(middle.mean())
    stopped = stopping_times(RIDGE, task.support.split(8), fitted, threshold)
    places, reached = hitting_times(said, torch.tensor([threshold]))
    assert torch.equal(stopped.steps, places[:, 0] + 1)
    assert torch.equal(stopped.reached, reached[:, 0])
    assert 1 < len(set(stopped.steps.tolist()))
    for index in range(16):
        below = [step for step, m in enumerate(said[index].tolist(), 1) if m <= threshold]
        batches = list(task.support.tasks(slice(index, index + 1)).split(8))
        left = iter(batches)
        one = stop_when(RIDGE, left, fitted, threshold)
        assert one.steps == int(stopped.steps[index]) == (below[0] if below else 12)
        assert one.reached == bool(below) == bool(stopped.reached[index])
        assert len(list(left)) == 12 - one.steps  # nothing is taken after the stop
        assert one.loss == pytest.approx(float(stopped.loss[index]), rel=1e-4)
        *_, own = RIDGE.states(islice(batches, one.steps))
        torch.testing.assert_close(one.state, own, rtol=0, atol=0)
        torch.testing.assert_close(select(stopped.state, torch.tensor([index])), own)


def test_a_threshold_that_is_never_reached_leaves_the_last_state(fitted):
    support = drawn(1).support
    stopped = stop_when(RIDGE, support.split(8), fitted, 1e-6)
    assert (stopped.steps, stopped.reached) == (12, False)
    torch.testing.assert_close(stopped.state, RIDGE.adapt(support, 8))


def test_a_learner_in_float64_has_its_estimate_too():
    learner = build("ridge", FAMILY, strength=0.25).double()
    estimate = fit_estimate(learner, FAMILY, 8, 4, 4, iterations=2)
    seen = list(prequential(learner, drawn(2).to(torch.float64).support.split(8)))
    assert estimate(estimate.update(estimate.init(2), seen[0])).isfinite().all()


def test_what_cannot_be_is_refused_with_a_sentence(fitted):
    support = drawn(2).support
    for threshold in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="above 0"):
            stop_when(RIDGE, support.split(8), fitted, threshold)
    with pytest.raises(ValueError, match="at least one mini-batch"):
        stop_when(RIDGE, [], fitted, 0.3)
    with pytest.raises(ValueError, match="use stopping_times"):
        stop_when(RIDGE, support.split(8), fitted, 0.3)
    with pytest.raises(ValueError, match="the learner has SquaredError of 1 outputs under SGD"):
        stop_when(build("sgd", FAMILY), drawn(1).support.split(8), fitted, 0.3)
    classes = LinearClassification(4, 3)
    with pytest.raises(
        ValueError, match="SquaredError of 1 outputs under Ridge; the learner has CrossEntropy of 3"
    ):
        stop_when(build("newton", classes), drawn(1, family=classes).support.split(8), fitted, 0.3)
    with pytest.raises(ValueError, match="per-query"):
        next(prequential(build("implicit-logits", FAMILY), support.split(8)))
    with pytest.raises(ValueError, match="tasks must be at least 2"):
        fit_estimate(RIDGE, FAMILY, tasks=0)
    with pytest.raises(ValueError, match="grow with the rows"):
        growing = build("lbfgs", FAMILY)
        stopping_times(growing, support.split(8), LossEstimate(growing), 0.3)


def test_fitting_is_deterministic_and_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    one, same, other = (
        fit_estimate(RIDGE, FAMILY, batch_size=8, steps=4, tasks=16, iterations=3, seed=seed)
        for seed in (1, 1, 2)
    )
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.center, other.center)


def test_a_saved_estimate_says_the_same(fitted, tmp_path):
    tensors = {f"weights.{name}": value for name, value in fitted.state_dict().items()}
    file = write(tmp_path / "estimate.safetensors", tensors, {"kind": "checkpoint", "loss": fitted.loss})
    loaded, support = LossEstimate(RIDGE), drawn(3).support
    assert load_weights(loaded, file)["loss"] == loaded.loss
    torch.testing.assert_close(
        path(loaded, RIDGE, support)[0], path(fitted, RIDGE, support)[0], rtol=0, atol=0
    )


def test_it_is_honest_where_it_stops_and_the_prequential_average_is_not(fitted):
    """Tolerance 0.05: four standard errors of a mean over 256 tasks, whose losses differ by a fifth, is 0.05."""
    task = drawn(256, seed=7)
    realised = torch.stack(
        [RIDGE.loss(task.query, s.state) for s in prequential(RIDGE, task.support.split(8))], 1
    )
    bias = {}
    for name, estimate in (("fitted", fitted), ("average", LossEstimate(RIDGE))):
        said, _ = path(estimate, RIDGE, task.support)
        thresholds = said.cummin(1).values[:, [1, 4, 9]].median(0).values
        places, _ = hitting_times(said, thresholds)
        bias[name] = (said.gather(1, places).mean(0) / realised.gather(1, places).mean(0) - 1).abs()
    assert (bias["fitted"] < 0.05).all(), bias
    assert (bias["fitted"] < bias["average"]).all(), bias


def test_rows_that_are_not_there_change_nothing(fitted):
    support = drawn(2).support
    x, y = torch.cat([support.x, support.x]), torch.cat([support.y, support.y])
    mask = torch.ones(4, support.n_rows, dtype=torch.bool)
    mask[2:, 40:] = False
    said, _ = path(fitted, RIDGE, Batch(x, y, mask))
    torch.testing.assert_close(said[2:, -1], said[2:, 4], rtol=0, atol=0)
    torch.testing.assert_close(said[2:, 4], said[:2, 4])


def test_the_bins_say_how_far_predicted_and_realised_are_apart():
    predicted = np.random.default_rng(0).uniform(0.5, 1.5, (2, 64, 3))
    exact = np.stack([predicted, predicted, predicted], axis=-1)  # [S, T, K, (predicted, realised, step)]
    above = exact * [1.1, 1.0, 1.0]
    assert bins(exact[0, :, 0]).shape == (BINS, 3)
    assert (error(exact), worst(exact), chance(exact)) == (0, 0, 0)
    assert error(above, above) == pytest.approx(0.1)
    assert worst(exact, above) == pytest.approx(0.1)
    assert error(exact, above) == pytest.approx(0.05)
