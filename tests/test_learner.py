"""The one loop: what it yields, where gradients flow, what it refuses and how it says so."""

import gc
from dataclasses import dataclass, replace
from itertools import count, pairwise

import numpy as np
import pytest
import torch

from gradatim import regimes
from gradatim.batch import Batch
from gradatim.families import LinearClassification, LinearRegression
from gradatim.learner import Learner
from gradatim.methods import METHODS, build
from gradatim.predictors import Decoder, SquaredError
from gradatim.refiners import SGD, TransformerConfig
from gradatim.signal import BOTH, GRADIENTS, OBSERVATIONS, PLAIN, Signal
from gradatim.testing import randomised
from gradatim.testing.options import fitting
from gradatim.training.episode import Episode
from gradatim.training.schemes import Greedy, Unrolled
from gradatim.tree import flatten

SIZES = dict(support_rows=12, query_rows=5)
REGRESSION = LinearRegression(3, 0.5, **SIZES)
CLASSES = LinearClassification(3, 3, **SIZES)
CONFIG = TransformerConfig(width=8, layers=1, heads=2)


def drawn(family=CLASSES, tasks=3):
    return family.sample(tasks, torch.Generator().manual_seed(0)).to(torch.float64)


def small(make=regimes.parametric, family=CLASSES, **options):
    torch.manual_seed(0)
    return randomised(make(family, config=CONFIG, **options))


# --- the loop


@pytest.mark.parametrize("make", [regimes.parametric, regimes.explicit, regimes.implicit])
def test_the_loop_is_init_then_steps(make):
    learner, task = small(make), drawn()
    batches = list(task.support.split(5))
    states = list(learner.states(iter(batches), task.query))
    assert len(states) == 4
    state = learner.refiner.init(3, task.query)
    for batch, wanted in zip([None, *batches], states, strict=True):
        if batch is not None:
            step_input = learner.signal(learner.predictor, learner.refiner.linearization_point(state), batch)
            state = learner.refiner.step(state, step_input)
        assert all(
            torch.equal(a, b) for a, b in zip(flatten(state).values(), flatten(wanted).values(), strict=True)
        )
    last = flatten(learner.adapt(task.support, 5, task.query))
    assert all(torch.equal(last[name], value) for name, value in flatten(states[-1]).items())
    outputs = learner.predict(task.query.x, states[-1])
    wanted = -outputs.log_softmax(-1).gather(-1, task.query.y).mean((1, 2))
    torch.testing.assert_close(learner.loss(task.query, states[-1]), wanted, rtol=1e-12, atol=1e-12)


def test_carry_is_what_a_step_starts_from():
    learner, task = small(), drawn()
    reset = learner.refiner.init(3)
    batches = list(task.support.split(4))
    states = list(learner.states(batches, carry=lambda state: reset))
    for batch, state in zip(batches, states[1:], strict=True):
        assert torch.equal(state.latent, learner.step(reset, batch).latent)


@pytest.mark.parametrize("prefixes", [False, True])
def test_with_lengths_each_step_yields_a_state_per_prefix(prefixes):
    torch.manual_seed(0)
    learner = randomised(regimes.parametric(CLASSES, BOTH, TransformerConfig(8, 1, 2, prefixes=prefixes)))
    task, lengths = drawn(), torch.tensor([2, 4])
    states = learner.states(
        list(task.support.split(4)),
        carry=lambda s: s if len(s.rows) == 3 else s._replace(**last(s)),
        lengths=lengths,
    )
    assert [state.rows.tolist() for state in states] == [
        [0.0] * 3,
        [2.0, 4.0] * 3,
        [6.0, 8.0] * 3,
        [10.0, 12.0] * 3,
    ]


def last(state):
    return {"latent": state.latent[1::2], "rows": state.rows[1::2]}


def test_the_signal_shows_the_gradient_of_each_tasks_own_mean_loss():
    learner, task = small(), drawn()
    theta = torch.randn(3, 12, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    mask = torch.ones(3, 12, dtype=torch.bool)
    mask[1, 4:] = False
    batch = Batch(task.support.x, task.support.y, mask)
    step_input = BOTH(learner.predictor, theta, batch, torch.tensor([3, 12]))
    assert step_input.rows.tolist() == [3, 12, 3, 4, 3, 12]
    for b in range(3):
        for p, length in enumerate((3, 12)):
            x, y = batch.x[b, :length][mask[b, :length]], batch.y[b, :length][mask[b, :length]]
            residual = (x @ theta[b].view(3, 4)[:, :3].T + theta[b].view(3, 4)[:, 3]).softmax(-1)
            residual = residual - torch.eye(3, dtype=torch.float64)[y[:, 0]]
            wanted = residual.T @ torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1) / len(x)
            found = step_input.gradient[2 * b + p].view(3, 4)
            torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(step_input.outputs, learner.predictor(batch.x, theta), rtol=0, atol=0)
    assert not step_input.outputs.requires_grad
    assert PLAIN(learner.predictor, theta, batch).outputs is None
    assert OBSERVATIONS(learner.predictor, theta, batch).gradient is None
    assert GRADIENTS(learner.predictor, theta, batch).batch is None
    with pytest.raises(ValueError, match="observations, gradients or both; got neither"):
        Signal(observations=False)


# --- where gradients flow


@pytest.mark.parametrize("make", [regimes.parametric, regimes.explicit, regimes.implicit])
@pytest.mark.parametrize("scheme", [Greedy(4, 3), Unrolled(4, 3), Unrolled(4, 3, truncation=2)], ids=str)
def test_a_loss_reaches_back_as_far_as_its_scheme_says(scheme, make):
    """An offset of zero is added to the state after each step: a later loss feels it only through the graph."""
    learner, task = small(make), drawn()
    steps, offsets, states = iter(range(4)), [], []

    def carry(state):
        step = next(steps)
        if step:
            name = state._fields[0]
            offsets.append(torch.zeros_like(state[0]).requires_grad_())
            state = state._replace(**{name: state[0].detach() + offsets[-1]})
        return scheme.carry(state, step)

    losses = []
    for state in learner.states(task.support.split(4), task.query, carry, differentiable=True):
        states.append(state)
        losses.append(learner.loss(task.query, state).mean())
    felt = {}
    for t, loss in enumerate(losses[2:], start=2):
        slopes = torch.autograd.grad(loss, offsets, allow_unused=True, retain_graph=True)
        felt[t] = [slope is not None and bool(slope.any()) for slope in slopes]
    # offsets[0] enters step 2, offsets[1] step 3; offsets cut the path between them, so each is felt by its own step
    truncation = getattr(scheme, "truncation", None)
    cut = [
        isinstance(scheme, Greedy) or (truncation is not None and step % truncation == 0) for step in (1, 2)
    ]
    assert felt == {2: [not cut[0], False], 3: [False, not cut[1]]}


def counted(scheme):
    """Return the scheme's carry for the steps of one episode, in order."""
    steps = count()
    return lambda state: scheme.carry(state, next(steps))


@pytest.mark.parametrize("make", [regimes.parametric, regimes.explicit, regimes.implicit])
def test_the_last_loss_reaches_the_first_step_only_unrolled(make):
    """The first mini-batch's rows, as numbers to differentiate in, are seen by step 1 alone."""
    for scheme, reached in (
        (Unrolled(4, 3), True),
        (Greedy(4, 3), False),
        (Unrolled(4, 3, truncation=2), False),
    ):
        learner, task = small(make), drawn()
        batches = list(task.support.split(4))
        x = batches[0].x.clone().requires_grad_()
        first = Batch._trusted(x, batches[0].y, batches[0].weight)
        states = learner.states([first, *batches[1:]], task.query, counted(scheme), differentiable=True)
        losses = [learner.loss(task.query, state).mean() for state in states]
        (own,) = torch.autograd.grad(losses[1], x, retain_graph=True)
        assert own.abs().max() > 1e-9
        slope = torch.autograd.grad(losses[3], x, allow_unused=True)[0] if losses[3].requires_grad else None
        assert (slope is not None and slope.abs().max().item() > 1e-12) == reached


def test_an_episodes_forward_is_the_schemes_loss():
    learner, task, scheme = small(), drawn(), Greedy(3, 4, random_horizon=True)
    losses = [
        call(task, torch.Generator().manual_seed(7))
        for call in (Episode(learner, scheme), lambda task, g: scheme.loss(learner, task, g))
    ]
    assert torch.equal(*losses)


def test_losses_are_by_step_and_task_and_penalties_are_added():
    learner, task = small(), drawn()
    scheme = Greedy(3, 4, prefixes=2)
    losses = scheme.losses(learner, task, torch.Generator().manual_seed(7))
    assert losses.shape == (4, task.n_tasks)
    plain = scheme.loss(learner, task, torch.Generator().manual_seed(7))
    torch.testing.assert_close(plain, losses.mean())
    held = replace(scheme, penalties=(Spread(2.0),)).loss(learner, task, torch.Generator().manual_seed(7))
    torch.testing.assert_close(held, losses.mean() + 2 * losses.var())


@dataclass(frozen=True)
class Spread:
    weight: float

    def __call__(self, learner, task, losses):
        return self.weight * losses.var()


# --- no graph unless asked, predict then learn, tasks that end


@pytest.mark.parametrize("name", ["parametric-both", "maml", "bayesian", "implicit-logits", "sgd", "lbfgs"])
def test_adapting_builds_no_graph_unless_asked(name):
    family = LinearRegression(3, support_rows=12)
    learner, task = build(name, family), family.sample(2, torch.Generator().manual_seed(0))
    query = task.query if learner.refiner.capabilities.per_query else None
    for state in learner.states(task.support.split(4), query):
        assert not any(part.requires_grad for part in flatten(state).values())
    wanted = learner.adapt(task.support, 4, query)
    with torch.inference_mode():
        state = learner.adapt(task.support.slice(0, 12), 4, query)
        prediction = learner(task.query.x, state)
    for one, other in zip(flatten(state).values(), flatten(wanted).values(), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(prediction, learner.predict(task.query.x, wanted).detach())
    if learner.refiner.capabilities.learnt:
        *_, state = learner.states(task.support.split(4), query, differentiable=True)
        assert learner.loss(task.query, state).requires_grad


def test_learn_predicts_before_it_learns():
    family = LinearRegression(3, support_rows=12)
    learner, task = build("ridge", family), family.sample(2, torch.Generator().manual_seed(0))
    state = learner.init(2)
    for batch in task.support.split(4):
        wanted = learner.predict(batch.x, state)
        prediction, state = learner.learn(state, batch)
        assert torch.equal(prediction, wanted)
    alone = learner.init(2)
    for batch in task.support.split(4):
        prediction, alone = learner.learn(alone, batch, predict=False)
        assert prediction is None
    assert all(
        torch.equal(a, b) for a, b in zip(flatten(alone).values(), flatten(state).values(), strict=True)
    )
    assert torch.equal(learner.refiner.latent(state), learner.refiner.latent(learner.adapt(task.support, 4)))


@pytest.mark.parametrize(
    "name", ["ridge", "parametric-both", "bayesian", "sgd", "lbfgs", "kernel", "experts"]
)
def test_tasks_that_have_ended_keep_their_state(name):
    family = LinearRegression(3, support_rows=24)
    learner, task = build(name, family).double(), family.sample(5, torch.Generator().manual_seed(0))
    task = task.to(torch.float64)
    lengths = (4, 24, 6, 9, 1)
    parts = [(task.support.x[b, :n], task.support.y[b, :n]) for b, n in enumerate(lengths)]
    query = task.query if learner.refiner.capabilities.per_query else None
    ragged = learner.adapt(Batch.from_rows(parts), 4, query)
    for b, (x, y) in enumerate(parts):
        own = None if query is None else query.tasks(slice(b, b + 1))
        alone = learner.adapt(Batch(x[None], y[None]), 4, own)
        x = task.query.x[b : b + 1]
        together = learner.predict(task.query.x, ragged)[b : b + 1]
        torch.testing.assert_close(together, learner.predict(x, alone), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["ridge", "experts"])
def test_tasks_that_have_ended_cost_no_steps(name, monkeypatch):
    family = LinearRegression(3, support_rows=24)
    learner, task = build(name, family), family.sample(5, torch.Generator().manual_seed(0))
    lengths = torch.tensor([4, 24, 6, 9, 1])
    step, sizes = learner.refiner.step, []

    def counted(state, step_input):
        sizes.append(len(step_input.rows))
        return step(state, step_input)

    monkeypatch.setattr(learner.refiner, "step", counted)
    present = torch.arange(24) < lengths[:, None]
    learner.adapt(Batch(task.support.x, task.support.y, present), 4)
    assert sizes == [5, 5, 2, 1, 1, 1]


def test_a_state_of_other_tasks_is_refused():
    family = LinearRegression(3, support_rows=12)
    learner, task = build("ridge", family), family.sample(4, torch.Generator().manual_seed(0))
    state = learner.adapt(task.support.tasks(slice(0, 2)), 4)
    with pytest.raises(ValueError, match="same tasks; got x of 4 and a state of 2"):
        learner.predict(task.query.x, state)
    with pytest.raises(ValueError, match="same tasks; got x of 4 and a state of 2"):
        learner.loss(task.query, state)


@pytest.mark.parametrize("rows", [(torch.ones(2, 3, 3), torch.ones(2, 3, 1)), [1.0], None])
def test_rows_that_are_no_batch_are_refused(rows):
    learner = build("ridge", LinearRegression(3, support_rows=12))
    for call in (
        lambda: list(learner.states([rows])),
        lambda: learner.step(learner.init(2), rows),
        lambda: learner.learn(learner.init(2), rows),
        lambda: learner.adapt(rows, 4),
        lambda: learner.loss(rows, learner.init(2)),
    ):
        with pytest.raises(ValueError, match=r"rows must come as a Batch; got \w+: make one, Batch\(x, y\)"):
            call()


def test_a_batch_in_place_of_mini_batches_is_refused():
    family = LinearRegression(3, support_rows=12)
    task = family.sample(2, torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=r"support\.split\(batch_size\)"):
        list(build("ridge", family).states(task.support))


def test_weights_where_a_learner_has_no_place_for_them_are_refused():
    family = LinearRegression(3, support_rows=12)
    task = family.sample(2, torch.Generator().manual_seed(0))
    heavy = Batch(task.support.x, task.support.y, 2 * task.support.weight)
    with pytest.raises(ValueError, match="counts every row once: weights must be 0 or 1"):
        build("parametric-observations", family).adapt(heavy, 4)


def test_tokens_for_a_predictor_of_numbers_are_refused():
    rows = Batch(torch.ones(2, 3, 3, dtype=torch.int64), torch.ones(2, 3, 1))
    with pytest.raises(ValueError, match=r"wants numbers: x floating point; got tokens \(torch.int64\)"):
        build("ridge", LinearRegression(3, support_rows=12)).adapt(rows, 4)


# --- refusals


def test_no_mini_batch_is_refused():
    with pytest.raises(ValueError, match="needs at least one mini-batch; got none"):
        next(small().states([]))


def test_an_implicit_learner_needs_its_query():
    learner, task = small(regimes.implicit), drawn()
    with pytest.raises(ValueError, match=r"refines the answers to given queries; got no query: pass query="):
        learner.adapt(task.support, 4)
    with pytest.raises(ValueError, match="the same 3 tasks as the mini-batches; got 2"):
        learner.adapt(task.support, 4, drawn(tasks=2).query)


ON_ROWS = {name: row for name, row in METHODS.items() if not row.orders}
LEARNT = [
    name for name, row in METHODS.items() if row.learnt and not (row.one_step or row.orders or row.regression)
]


@pytest.mark.parametrize("name", [*LEARNT, "sgd", "adam", "ridge", "lbfgs"])
def test_rows_of_other_widths_and_classes_are_refused(name):
    learner = build(name, CLASSES, **fitting(name, CONFIG)).double()
    task, wide, many = (
        drawn(LinearClassification(dim, count, **SIZES)) for dim, count in ((3, 3), (4, 3), (3, 9))
    )
    with pytest.raises(ValueError, match=r"this learner wants x of shape \[tasks, rows, 3\]; got \(.*4\)"):
        learner.adapt(wide.support, 4, wide.query)
    with pytest.raises(ValueError, match=r"class indices must lie in 0 \.\. 2; got \d: recode the labels"):
        learner.adapt(many.support, 12, many.query)
    with pytest.raises(ValueError, match=r"wants y as int64 class indices; got torch.float64"):
        learner.adapt(Batch(task.support.x, task.support.y.double()), 4, task.query)


@pytest.mark.parametrize("name", [*LEARNT, "sgd", "adam", "ridge", "lbfgs"])
def test_rows_of_another_dtype_are_refused(name):
    learner, task = build(name, CLASSES, **fitting(name, CONFIG)), drawn()
    said = r"computes in torch.float32; got rows in torch.float64: convert the rows with batch.to\(torch.float32\)"
    with pytest.raises(ValueError, match=said):
        learner.adapt(task.support, 4, task.to(torch.float32).query)
    rows = drawn(REGRESSION).to(torch.float32).support
    regression = build("parametric-both", REGRESSION, **fitting("parametric-both", CONFIG))
    with pytest.raises(ValueError, match=r"got rows in torch\.float64"):
        regression.adapt(Batch(rows.x, rows.y.double()), 4)


def test_unknown_methods_and_settings_are_refused():
    with pytest.raises(ValueError, match=r"no method is called 'adamm': did you mean 'adam'\?"):
        build("adamm", CLASSES)
    with pytest.raises(ValueError, match=r"no method is called 'zzz': known are parametric-observations"):
        build("zzz", CLASSES)
    with pytest.raises(ValueError, match=r"adam has no option 'momentum'; it has hidden, rate"):
        build("adam", CLASSES, momentum=0.9)
    assert build("momentum", CLASSES, momentum=0.8, rate=0.3).refiner.momentum == 0.8
    for name, row in ON_ROWS.items():
        family = REGRESSION if row.regression else CLASSES
        for setting, values in row.grid.items():
            assert all(a < b for a, b in pairwise(values)), name
            refiner, field = (
                build(name, family, **{setting: values[0]}).refiner,
                {"rate": "lr"}.get(setting, setting),
            )
            assert getattr(refiner, field) == values[0]
        if row.regression:
            with pytest.raises(ValueError, match=f"{name} fits squared loss; this family has classes"):
                build(name, CLASSES)


@pytest.mark.parametrize("scheme", [Greedy(4, 3), Unrolled(4, 3)], ids=str)
def test_there_is_nothing_to_meta_train_in_an_unlearnt_method(scheme):
    for name, row in ON_ROWS.items():
        learner = build(name, REGRESSION if row.regression else CLASSES, **fitting(name, CONFIG))
        assert bool(list(learner.refiner.parameters())) == row.learnt == learner.refiner.capabilities.learnt
        if not row.learnt:
            with pytest.raises(ValueError, match="has nothing to meta-train: use it as it is"):
                scheme.loss(learner, drawn(), torch.Generator())


def test_an_implicit_state_refuses_other_queries():
    learner = build("implicit-logits", CLASSES, **fitting("implicit-logits", CONFIG)).double()
    task = drawn()
    state = learner.adapt(task.support, 4, task.query)
    assert learner.predict(task.query.x, state).shape == (task.n_tasks, task.query.n_rows, 3)
    with pytest.raises(ValueError, match="answers the queries it was made for"):
        learner.predict(task.query.x + 1, state)
    with pytest.raises(ValueError, match="answers the queries it was made for"):
        learner.loss(Batch(task.query.x + 1, task.query.y), state)


def test_queries_and_mini_batches_of_another_kind_are_refused():
    learner, task = build("parametric-both", CLASSES, **fitting("parametric-both", CONFIG)).double(), drawn()
    state = learner.adapt(task.support, 4)
    with pytest.raises(ValueError, match=r"class indices must lie in 0 \.\. 2"):
        learner.loss(Batch(task.query.x, task.query.y + 4), state)
    with pytest.raises(ValueError, match="wants x of shape"):
        learner.predict(task.query.x[..., :2], state)
    with pytest.raises(ValueError, match=r"computes in torch\.float64"):
        learner.predict(task.query.x.float(), state)
    first, second = task.support.slice(0, 4), task.support.slice(4, 8).tasks(slice(0, 1))
    with pytest.raises(ValueError, match=r"of the same .* tasks; got one of 1"):
        list(learner.states([first, second]))


def test_a_kept_graph_reaches_the_predictor_from_a_fixed_start():
    """Second order through one inner step of SGD on z, with respect to a learnt decoder: a plain nested loop agrees."""
    task = drawn(REGRESSION)
    f = Decoder(3, SquaredError(), tokens=2, token_width=4, units=2, width=5).double()
    start = f.initial(torch.Generator().manual_seed(0)).double()
    signal = Signal(observations=False, gradients=True, keep_graph=True)
    learner = Learner(f, SGD(start, lr=0.3), signal)
    state = list(learner.states([task.support], differentiable=True))[-1]
    ours = torch.autograd.grad(learner.loss(task.query, state).sum(), list(f.parameters()))
    z = start.expand(task.n_tasks, *start.shape).clone().requires_grad_()
    (slope,) = torch.autograd.grad(f.loss(task.support, z).sum(), z, create_graph=True)
    plain = torch.autograd.grad(f.loss(task.query, z - 0.3 * slope).sum(), list(f.parameters()))
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    assert any(part.abs().max() > 1e-6 for part in plain)


@pytest.mark.parametrize("size", [0, -1])
def test_adapting_refuses_mini_batches_without_rows(size):
    with pytest.raises(ValueError, match=f"a mini-batch needs at least one row; got size {size}"):
        build("sgd", REGRESSION).double().adapt(drawn(REGRESSION).support, size)


@pytest.mark.parametrize("name", ["sgd", "implicit-logits"])
def test_predicting_refuses_a_batch(name):
    learner, task = build(name, REGRESSION).double(), drawn(REGRESSION)
    with pytest.raises(ValueError, match=r"x must be a tensor .* got Batch: of a Batch give batch.x"):
        learner.predict(task.query, learner.init(3, task.query))


ROWS = (torch.ones(3, 8, 2), torch.ones(3, 8, 1))


@pytest.mark.parametrize(
    "rows", [ROWS, [*ROWS], tuple(map(np.asarray, ROWS)), ROWS[0], {"x": 1}, None, "rows"], ids=range(7)
)
def test_rows_that_are_no_batch_are_refused_with_the_way_to_make_one(rows):
    learner = build("ridge", REGRESSION)
    state = learner.init(3)
    for call in (
        lambda: next(learner.states([rows])),
        lambda: learner.learn(state, rows),
        lambda: learner.step(state, rows),
        lambda: learner.adapt(rows, 4),
        lambda: learner.fit(rows, 4),
        lambda: learner.forget(state, rows),
        lambda: learner.loss(rows, state),
        lambda: learner.check(rows),
    ):
        with pytest.raises(ValueError, match=r"rows must come as a Batch; got .*: make one, Batch\(x, y\)"):
            call()
    if rows is not ROWS[0]:
        with pytest.raises(ValueError, match="x must be a tensor"):
            learner.predict(rows, state)


@pytest.mark.parametrize("value", ["a", -1, 0, 1.5, None, True, [1]])
def test_counts_that_are_none_are_refused(value):
    learner, support = build("parametric-both", REGRESSION).double(), drawn(REGRESSION).support
    for call, said in (
        (lambda: learner.init(value), "n_tasks must be a whole number of at least 1"),
        (lambda: learner.adapt(support, value), "a mini-batch needs at least one row; got size"),
        (lambda: list(support.split(value)), "a mini-batch needs at least one row; got size"),
        (lambda: learner.fit(support, 4, value), "passes must be a whole number of at least 1"),
    ):
        with pytest.raises(ValueError, match=said):
            call()
    assert learner.init(np.int64(2)) is not None


@pytest.mark.parametrize("state", ["a", None, np.ones(3), ROWS, {}, 3], ids=range(6))
def test_what_is_no_state_is_refused(state):
    learner, support = build("ridge", REGRESSION).double(), drawn(REGRESSION).support
    for call in (
        lambda: learner.predict(support.x, state),
        lambda: learner.learn(state, support),
        lambda: learner.step(state, support),
        lambda: learner.forget(state, support),
        lambda: learner.merge([state]),
        lambda: learner.loss(support, state),
    ):
        with pytest.raises(ValueError, match="a state is what init, adapt or learn returned; got"):
            call()
    for batches in (3, None, drawn(REGRESSION)):
        with pytest.raises(ValueError, match="mini-batches must come one by one"):
            next(learner.states(batches))
    with pytest.raises(ValueError, match="merging needs a list of at least one state"):
        learner.merge(learner.init(3))


@pytest.mark.parametrize("name", ["bayesian", "parametric-both", "ridge", "sgd"])
def test_by_default_no_graph_grows_with_the_steps(name):
    """Each state is without a graph, and the tensors alive do not grow with the mini-batches."""
    learner, support = build(name, REGRESSION).double(), drawn(REGRESSION).support
    counts = []
    for number, state in enumerate(learner.states(support for _ in range(24))):
        assert all(part.grad_fn is None and not part.requires_grad for part in flatten(state).values())
        if number in (4, 23):
            gc.collect()
            counts.append(sum(issubclass(type(item), torch.Tensor) for item in gc.get_objects()))
    assert counts[1] <= counts[0]
    _, state = learner.learn(learner.init(3), support)
    assert all(part.grad_fn is None for part in flatten(state).values())
    assert all(part.grad_fn is None for part in flatten(learner.adapt(support, 4)).values())
