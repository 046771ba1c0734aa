"""Relations of tasks: laws of their shares, a penalty that is none at weight 0, clusters that are found."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from rich.console import Console

from gradatim import Batch, GroupedRegressor, LinearClassification, LinearRegression, Sinusoids, Task, build
from gradatim.comparison.runs import Study
from gradatim.learner import Learner
from gradatim.probing.plots import relation_map
from gradatim.recipes import from_json, recipe
from gradatim.regularizers.clusters import clusters, order
from gradatim.regularizers.relations import Relations, all_rows, answers, consistency, related, relations
from gradatim.training.prefixes import Prefixes
from gradatim.training.schemes import Greedy, Unrolled

CENTRES = torch.tensor([[2.0, 0.0], [-1.0, 2.0], [0.0, -2.0]])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def tasks_around_centres(n_tasks=9, rows=12, seed=0, dtype=torch.float64):
    generator = seeded(seed)
    slopes = CENTRES[torch.arange(n_tasks) % 3] + 0.1 * torch.randn(n_tasks, 2, generator=generator)
    x = torch.randn(n_tasks, rows, 2, generator=generator)
    y = x @ slopes[..., None] + 0.2 * torch.randn(n_tasks, rows, 1, generator=generator)
    return Batch(x.to(dtype), y.to(dtype))


def ridge():
    return build("ridge", LinearRegression(2)).double()


# --- laws of the shares


@pytest.mark.parametrize("name", ["ridge", "maml", "parametric-both", "bayesian", "sgd"])
def test_rows_sum_to_one_and_no_task_helps_itself(name):
    learner = build(name, LinearRegression(2))
    shares = relations(learner, tasks_around_centres(dtype=torch.float32), batch_size=6)
    torch.testing.assert_close(shares.sum(1), torch.ones(9, dtype=shares.dtype))
    assert (shares >= 0).all()
    assert (shares.diagonal() == 0).all()


@pytest.mark.parametrize("heads", [1, 4])
def test_tasks_in_another_order_have_the_same_shares(heads):
    rows, places = tasks_around_centres(), torch.randperm(9, generator=seeded(3))
    shares = relations(ridge(), rows, heads)
    mixed = relations(ridge(), rows.tasks(places), heads)
    torch.testing.assert_close(mixed, shares[places][:, places], atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("factor", [1e-6, 1e4])
def test_units_of_y_do_not_matter(factor):
    rows = tasks_around_centres()
    scaled = relations(ridge(), Batch(rows.x, rows.y * factor))
    torch.testing.assert_close(scaled, relations(ridge(), rows), atol=1e-5, rtol=1e-4)


def test_rows_that_are_absent_do_not_matter():
    rows = tasks_around_centres()
    parts = [(x, y) for x, y in zip(rows.x, rows.y, strict=True)]
    longer = Batch.from_rows([*parts[:-1], (torch.cat([parts[-1][0]] * 2), torch.cat([parts[-1][1]] * 2))])
    cut = Batch(longer.x, longer.y, longer.mask & (torch.arange(24) < 12))
    torch.testing.assert_close(relations(ridge(), cut, batch_size=24), relations(ridge(), rows))


def test_tasks_of_a_cluster_help_each_other():
    rows = tasks_around_centres()
    shares = relations(ridge(), rows)
    home = torch.arange(9) % 3
    assert (shares * (home[:, None] == home)).sum(1).min() > 0.95
    assert torch.equal(clusters(shares, 3), home)
    in_order = home[order(shares)]
    assert (in_order[1:] != in_order[:-1]).sum() == 2


def test_a_task_is_judged_by_support_and_query():
    rows = tasks_around_centres()
    task = Task(rows.slice(0, 8), rows.slice(8, 12))
    learner = ridge()
    state = learner.adapt(task.support, 8)
    wanted = related(answers(learner, state, all_rows(task)), all_rows(task))
    torch.testing.assert_close(relations(learner, task), wanted)


def test_shares_of_classes_mix_probabilities():
    x = torch.randn(6, 30, 2, generator=seeded())
    sign = torch.tensor([1.0, -1.0]).repeat(3)[:, None, None]
    rows = Batch(x, (sign * x[..., :1] > 0).long())
    shares = relations(build("bayesian", LinearClassification(2, 2)), rows)
    assert torch.equal(clusters(shares, 2), torch.tensor([0, 1, 0, 1, 0, 1]))
    said = torch.tensor([[3.0, 0.0], [0.0, 0.0]])[:, None, None].expand(2, 2, 30, 2)
    even = consistency(said, rows.tasks(slice(2)), torch.full((2, 2), 0.5))
    p = (said[:, 0, 0].softmax(-1)).mean(0)
    y = rows.y[:2].float().mean()
    torch.testing.assert_close(even, -(y * p[1].log() + (1 - y) * p[0].log()))


def test_other_models_are_asked_through_their_answers():
    rows = tasks_around_centres(rows=30)
    group = np.repeat(np.arange(9), 30)
    model = GroupedRegressor().fit(rows.x.flatten(0, 1).numpy(), rows.y.flatten().numpy(), group)
    x = rows.x.flatten(0, 1).numpy()
    said = np.stack([model.predict(x, np.full(len(x), name)) for name in range(9)])
    shares = related(torch.tensor(said).reshape(9, 9, 30, 1), rows)
    assert torch.equal(clusters(shares, 3), torch.arange(9) % 3)


# --- hard input


def test_constant_tasks_have_shares_and_equal_answers_are_uniform():
    rows = Batch(torch.randn(4, 6, 2, generator=seeded()), torch.full((4, 6, 1), 3.0))
    shares = relations(build("maml", LinearRegression(2)), rows)
    torch.testing.assert_close(shares.sum(1), torch.ones(4, dtype=shares.dtype))
    same = related(torch.full((4, 4, 6, 1), 3.0), rows)
    torch.testing.assert_close(same, (1 - torch.eye(4, dtype=same.dtype)) / 3)


def test_tasks_of_one_row_have_relations():
    rows = tasks_around_centres(rows=1)
    shares = relations(ridge(), rows)
    assert shares.isfinite().all()
    torch.testing.assert_close(shares.sum(1), torch.ones(9, dtype=torch.float64))


def test_two_tasks_have_only_each_other():
    assert relations(ridge(), tasks_around_centres(2)).tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: relations(ridge(), tasks_around_centres(1)), "at least two are needed; got 1"),
        (lambda: relations(ridge(), [1, 2]), "tasks come as a Task or a Batch; got list"),
        (lambda: relations(GroupedRegressor(), tasks_around_centres()), "of other models give `related`"),
        (lambda: relations(ridge(), tasks_around_centres(), heads=0), "heads must be a whole number"),
        (
            lambda: relations(
                build("implicit-logits", LinearRegression(2)), tasks_around_centres(dtype=torch.float32)
            ),
            "answer their own queries alone",
        ),
        (
            lambda: related(torch.zeros(9, 9, 12, 2), tasks_around_centres()),
            r"shape \(9, 9, 12, 1\), numbers",
        ),
        (lambda: related(torch.full((9, 9, 12, 1), torch.nan), tasks_around_centres()), "not finite"),
        (lambda: Relations(weight=-1.0), "a weight of at least 0"),
        (lambda: Relations(rounds=0), "rounds must be a whole number"),
        (lambda: clusters(torch.zeros(3, 3), 4), "3 tasks make at most 3 clusters; got 4"),
        (lambda: order(torch.zeros(3, 2)), r"square matrix \[T, T\]; got shape \(3, 2\)"),
    ],
)
def test_what_has_no_relations_is_refused(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


# --- the penalty


def maml_and_tasks(n_tasks=6):
    learner = build("maml", LinearRegression(2, support_rows=8)).double()
    rows = tasks_around_centres(n_tasks, rows=14)
    return learner, Task(rows.slice(0, 8), rows.slice(8, 14))


def loss_and_gradient(learner, task, *penalties):
    scheme = Unrolled(batch_size=4, horizon=2, penalties=penalties)
    loss = scheme.loss(learner, task, seeded())
    return loss, torch.autograd.grad(loss, list(learner.parameters()))


def test_weight_0_is_no_penalty():
    learner, task = maml_and_tasks()
    plain, wanted = loss_and_gradient(learner, task)
    loss, gradient = loss_and_gradient(learner, task, Relations(weight=0.0))
    assert abs(loss - plain).item() < 1e-12
    for one, other in zip(gradient, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=0)


def test_the_penalty_is_the_loss_of_mixtures_and_linear_in_its_weight():
    learner, task = maml_and_tasks()
    plain, _ = loss_and_gradient(learner, task)
    one, _ = loss_and_gradient(learner, task, Relations(weight=1.0))
    half, gradient = loss_and_gradient(learner, task, Relations(weight=0.5))
    torch.testing.assert_close(half - plain, (one - plain) / 2)
    *_, state = learner.states(task.support.split(4))
    shares = related(answers(learner, state, all_rows(task)), all_rows(task), rounds=8)
    wanted = consistency(answers(learner, state, task.query), task.query, shares)
    torch.testing.assert_close(one - plain, wanted)
    assert all(part.abs().max() > 0 for part in gradient)


@dataclass(frozen=True)
class Seen:
    """Sums the latents that it is given, of so many tasks."""

    tasks: int

    def of_states(self, learner, task, state):
        latent = learner.refiner.latent(state)
        assert len(latent) == task.n_tasks == self.tasks
        return latent.sum()


@pytest.mark.parametrize("prefixes", [1, 3])
def test_a_scheme_gives_the_states_after_the_last_whole_mini_batch(prefixes):
    family = LinearRegression(2, support_rows=8)
    learner, task = build("parametric-both", family), family.sample(5, seeded())
    scheme = Greedy(batch_size=8, horizon=1, prefixes=prefixes)
    plain = scheme.loss(learner, task, seeded(1))
    held = replace(scheme, penalties=(Seen(5),)).loss(learner, task, seeded(1))
    *_, state = learner.states([task.support])
    torch.testing.assert_close(held - plain, learner.refiner.latent(state).sum(), atol=1e-4, rtol=1e-4)


def test_states_of_all_prefixes_end_with_the_whole_support():
    family = Sinusoids(support_rows=12)
    learner, task = build("alpaca", family, keys=8), family.sample(5, seeded())
    scheme = Prefixes(batch_size=4, horizon=3, density=False)
    plain = scheme.loss(learner, task, seeded(1))
    held = replace(scheme, penalties=(Seen(5),)).loss(learner, task, seeded(1))
    wanted = learner.refiner.latent(learner.adapt(task.support, 12)).sum()
    torch.testing.assert_close(held - plain, wanted, atol=1e-3, rtol=1e-3)
    replace(scheme, penalties=(Relations(),)).loss(learner, task, seeded(1)).backward()


def test_a_penalty_of_states_survives_json():
    run = recipe("linear")
    run = replace(run, scheme=replace(run.scheme, penalties=(Relations(0.2, heads=2),)))
    assert from_json(json.loads(json.dumps(run.to_json()))) == run


def test_a_meta_batch_of_one_task_is_refused():
    learner, task = maml_and_tasks(1)
    with pytest.raises(ValueError, match="at least two are needed"):
        loss_and_gradient(learner, task, Relations())


def test_training_with_relations_ends_elsewhere_and_is_finite():
    learner, task = maml_and_tasks()
    assert isinstance(learner, Learner)
    _, plain = loss_and_gradient(learner, task)
    _, held = loss_and_gradient(learner, task, Relations())
    assert any((a - b).abs().max() > 1e-6 for a, b in zip(plain, held, strict=True))


# --- the picture and the study


def test_relations_are_drawn(tmp_path):
    shares = relations(ridge(), tasks_around_centres())
    png = tmp_path / "relations.png"
    assert relation_map(shares, list("abcdefghi"), png, order(shares)) is None
    assert png.stat().st_size > 1000


def test_the_study_runs_and_goes_on_where_it_stopped(tmp_path, monkeypatch):
    from studies.systems import relations as study

    found = study.part(Study(tmp_path, 1, Console(quiet=True)), smoke=True, seeds=1)
    assert {claim["id"] for claim in found["claims"]} == {
        f"systems.relations.{name}"
        for name in ("recovered", "over_uniform", "over_none", "clusters_over_one")
    }
    assert {record["arm"] for record in found["records"]} == set(study.ARMS)
    monkeypatch.setattr(study, "run", lambda *_: pytest.fail("what was computed is computed again"))
    again = study.part(Study(tmp_path, 1, Console(quiet=True)), smoke=True, seeds=1)
    assert json.dumps(again) == json.dumps(found)
