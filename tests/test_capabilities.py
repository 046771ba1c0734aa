"""What states can do beside learning: rows by weight, rows forgotten, new classes."""

import pytest
import torch

from gradatim import Batch, Learner, LinearClassification, LinearRegression
from gradatim.methods import build
from gradatim.predictors import CrossEntropy, Ensemble, Network, SquaredError
from gradatim.refiners import Conjugate, Laplace, Ridge, Smoother
from gradatim.signal import CLOSED_FORM, PLAIN

LINEAR = LinearRegression(3, 0.5, support_rows=24, query_rows=6)
CLASSES = LinearClassification(3, 3, support_rows=24, query_rows=6)


def sample(family, n_tasks=2):
    return family.sample(n_tasks, torch.Generator().manual_seed(0)).to(torch.float64)


def weighted(batch, weight):
    return Batch(batch.x, batch.y, torch.as_tensor(weight, dtype=batch.x.dtype).expand(batch.x.shape[:2]))


@pytest.mark.parametrize(
    "name", ["conditional-neural-process", "attentive-neural-process", "kernel", "newton", "maml", "sgd"]
)
def test_in_a_mean_weights_that_are_all_alike_change_nothing_however_small(name):
    torch.manual_seed(0)
    learner, task = build(name, LINEAR).double(), sample(LINEAR)
    light = weighted(task.support, 0.01)
    states = [learner.adapt(rows, 6, task.query) for rows in (task.support, light)]
    torch.testing.assert_close(
        *(learner.predict(task.query.x, state) for state in states), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("family", [LINEAR, CLASSES], ids=["regression", "classification"])
def test_a_learner_with_rows_as_tokens_refuses_weights_by_a_sentence(family):
    learner, task = build("parametric-both", family).double(), sample(family)
    with pytest.raises(ValueError, match=r"counts every row once: weights must be 0 or 1"):
        learner.adapt(weighted(task.support, 2.0), 8)
    learner.adapt(task.support, 8)


def heads(kind, classes):
    f = Network(3, CrossEntropy(classes) if kind == "laplace" else SquaredError(classes), bias=False)
    refiner = {
        "ridge": lambda: Ridge(3, classes, 0.5, classes=True),
        "conjugate": lambda: Conjugate((3,), classes, ((0.5,), (2.0,)), classes=True),
        "laplace": lambda: Laplace((3,), classes, ((0.5,), (2.0,))),
    }[kind]()
    return Learner(f, refiner, CLOSED_FORM).double()


@pytest.mark.parametrize("kind", ["ridge", "conjugate", "laplace"])
def test_a_wider_state_is_that_of_a_learner_that_knew_all_classes(kind):
    small, large = heads(kind, 3), heads(kind, 5)
    task, place = sample(CLASSES), torch.tensor([4, 0, 2])
    # squared loss of one-hot codes knows no likelihood of y, so its own check refuses classes
    small.check = large.check = lambda batch: None
    renamed = Batch(task.support.x, place[task.support.y])
    wide, wanted = large.widen(small.adapt(task.support, 6), place), large.adapt(renamed, 6)
    if kind == "laplace":
        wanted = large.merge([wanted])  # a merge of one converges
    outputs = large.predict(task.query.x, wide)
    torch.testing.assert_close(outputs, large.predict(task.query.x, wanted), rtol=1e-6, atol=1e-7)
    if kind == "ridge":
        torch.testing.assert_close(
            outputs[..., place], small.predict(task.query.x, small.adapt(task.support, 6))
        )
    if kind != "laplace":
        assert (outputs[..., [1, 3]] == 0).all()
    after = large.step(wide, renamed.slice(0, 6))
    assert large.predict(task.query.x, after).isfinite().all()
    for wrong, sentence in (
        (torch.tensor([0, 1]), r"3 classes needs as many new indices, int64; got torch.int64 \(2,\)"),
        (torch.tensor([0, 1, 1]), r"different and lie in 0 \.\. 4; got \[0, 1, 1\]"),
        (torch.tensor([0, 1, 5]), r"lie in 0 \.\. 4; got \[0, 1, 5\]"),
        (torch.tensor([0.0, 1.0, 2.0]), r"got torch\.float32"),
    ):
        with pytest.raises(ValueError, match=sentence):
            large.widen(small.init(2), wrong)


def test_regressions_do_not_widen():
    for refiner in (Ridge(3, 1, 0.5), Conjugate((3,), 1, ((1.0,),))):
        learner = Learner(Network(3, SquaredError(), bias=False), refiner, CLOSED_FORM)
        with pytest.raises(ValueError, match="fixed number of outputs"):
            learner.widen(learner.init(1), torch.tensor([0]))


def smoother(lag):
    f = Ensemble(Network(3, SquaredError(1), (4,)), 2)
    return Learner(f, Smoother(f.member, f.initial(), f.member.layout.shapes, 3, lag), PLAIN).double()


def laplace(lag):
    return Learner(
        Network(3, CrossEntropy(3)), Laplace((3, 1), 3, ((1.0, 1.0),), lag=lag), CLOSED_FORM
    ).double()


@pytest.mark.parametrize("lag", [0, 7, 20])
@pytest.mark.parametrize(
    ("make", "family"), [(smoother, LINEAR), (laplace, CLASSES)], ids=["smoother", "laplace"]
)
def test_rows_leave_a_window_by_their_weight(make, family, lag):
    learner, task = make(lag), sample(family)
    rows = weighted(task.support, torch.arange(24).remainder(3) + 1.0)
    states = [learner.init(2), learner.init(2)]
    for part in rows.split(3):
        counts = part.weight[0].long()
        copies = Batch(part.x.repeat_interleave(counts, 1), part.y.repeat_interleave(counts, 1))
        states = [learner.step(state, batch) for state, batch in zip(states, (part, copies), strict=True)]
        torch.testing.assert_close(
            *(learner.predict(task.query.x, state) for state in states), rtol=0, atol=1e-9
        )
    assert torch.equal(states[0].weight.sum(1), states[1].weight.sum(1))
    light = make(lag).adapt(weighted(task.support, 0.1), 3)
    assert light.age.shape[1] == lag
    assert light.weight.sum() == pytest.approx(0.2 * (lag // 3 * 3), rel=1e-6)


@pytest.mark.parametrize("name", ["ridge", "bayesian", "conditional-neural-process"])
def test_rows_that_were_never_learnt_are_not_forgotten(name):
    torch.manual_seed(0)
    learner, task = build(name, LINEAR).double(), sample(LINEAR)
    state = learner.adapt(task.support.slice(0, 12), 6)
    remaining = learner.forget(state, task.support.slice(0, 12))
    torch.testing.assert_close(
        learner.predict(task.query.x, remaining),
        learner.predict(task.query.x, learner.init(2)),
        rtol=0,
        atol=1e-9,
    )
    with pytest.raises(ValueError, match="task 0 has seen 12 rows, and 24 should go"):
        learner.forget(state, task.support)
    for wrong in (Batch(10 * task.support.x[:, :12], task.support.y[:, :12]),):
        if name != "conditional-neural-process":
            with pytest.raises(
                ValueError, match="only rows that were learnt can be forgotten; without these"
            ):
                learner.forget(state, wrong)


def test_a_head_that_discounts_old_rows_does_not_subtract_them():
    f = Network(3, SquaredError(), bias=False)
    learner = Learner(f, Conjugate((3,), 1, ((1.0,),), forgetting=0.9), CLOSED_FORM).double()
    rows = sample(LINEAR).support
    with pytest.raises(ValueError, match=r"discount old rows \(factor 0\.9\)"):
        learner.forget(learner.adapt(rows, 6), rows.slice(0, 6))
