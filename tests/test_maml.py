"""MAML, first-order MAML and Meta-SGD beside nested loops written out by hand, in float64."""

import pytest
import torch
import torch.nn.functional as F

from gradatim.families import LinearClassification, LinearRegression
from gradatim.learner import Learner
from gradatim.methods import build
from gradatim.predictors import Decoder, SquaredError
from gradatim.refiners import MAML, SGD
from gradatim.refiners.optimizers import seen_gradient
from gradatim.signal import GRADIENTS, OBSERVATIONS, SECOND_ORDER
from gradatim.testing import meta_gradient_error
from gradatim.training.episode import Episode
from gradatim.training.schemes import Greedy, Unrolled

SIZES = dict(support_rows=12, query_rows=6)
FAMILIES = {
    "regression": LinearRegression(3, 0.5, **SIZES),
    "classification": LinearClassification(3, 4, **SIZES),
}
ROWS, STEPS, HIDDEN = 4, 3, 5


def setting(name, family, seed=0, **settings):
    """Return a float64 learner of a row whose start is off zero, and three tasks."""
    torch.manual_seed(seed)
    learner = build(name, family, **settings).double()
    with torch.no_grad():
        learner.refiner.start.add_(0.3 * torch.randn_like(learner.refiner.start))
        if learner.refiner.learnt_rate:
            learner.refiner.rate.mul_(1 + 0.5 * torch.rand_like(learner.refiner.rate))
    return learner, family.sample(3, torch.Generator().manual_seed(seed)).to(torch.float64)


def plain_loss(theta, x, y, classes):
    """Return the mean loss of a tanh network with one hidden layer at rows x `[N, 3]`, from torch alone."""
    first, last = theta[: HIDDEN * 4].view(HIDDEN, 4), theta[HIDDEN * 4 :].view(-1, HIDDEN + 1)
    hidden = torch.tanh(x @ first[:, :-1].T + first[:, -1])
    outputs = hidden @ last[:, :-1].T + last[:, -1]
    return F.cross_entropy(outputs, y[:, 0]) if classes else F.mse_loss(outputs, y)


def nested(start, rate, task, classes, second, last_only=False):
    """Return the mean query loss over tasks and steps (or after the last step alone) of gradient descent."""
    losses = []
    for x, y, query_x, query_y in zip(
        task.support.x, task.support.y, task.query.x, task.query.y, strict=True
    ):
        theta = start
        for t in range(STEPS):
            rows = slice(t * ROWS, (t + 1) * ROWS)
            inner = plain_loss(theta, x[rows], y[rows], classes)
            (slope,) = torch.autograd.grad(inner, theta, create_graph=second)
            theta = theta - rate * slope
            if not last_only or t == STEPS - 1:
                losses.append(plain_loss(theta, query_x, query_y, classes))
    return torch.stack(losses).mean()


def relative(ours, plain):
    one, other = (torch.cat([part.flatten() for part in parts]) for parts in (ours, plain))
    assert other.norm() > 1e-3
    return ((one - other).norm() / other.norm()).item()


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize(
    ("name", "learnt"), [("maml", False), ("maml", True), ("first-order-maml", True), ("meta-sgd", True)]
)
def test_the_meta_gradient_is_that_of_a_plain_nested_loop(name, learnt, family):
    extra = {} if name == "meta-sgd" else {"learnt_rate": learnt}
    learner, task = setting(name, family, hidden=(HIDDEN,), rate=0.2, **extra)
    refiner, second = learner.refiner, name != "first-order-maml"
    asked = [refiner.start, refiner.rate] if learnt else [refiner.start]
    start = refiner.start.detach().clone().requires_grad_()
    rate = refiner.rate.detach().clone().requires_grad_() if learnt else 0.2
    copies = [start, rate]
    plain = nested(*copies, task, family.likelihood.classes, second)
    loss = Unrolled(ROWS, STEPS).loss(learner, task, torch.Generator())
    assert loss.item() == pytest.approx(plain.item(), rel=1e-12)
    wanted = torch.autograd.grad(plain, copies[: len(asked)])
    assert relative(torch.autograd.grad(loss, asked), wanted) < 1e-10
    assert meta_gradient_error(learner, task, ROWS, STEPS) < 1e-10


def test_the_loss_after_the_last_step_has_the_gradient_of_the_paper():
    family = FAMILIES["regression"]
    learner, task = setting("maml", family, hidden=(HIDDEN,))
    start = learner.refiner.start.detach().clone().requires_grad_()
    plain = nested(start, learner.refiner.rate, task, None, second=True, last_only=True)
    *_, state = learner.states(list(task.support.split(ROWS)), differentiable=True)
    ours = torch.autograd.grad(learner.loss(task.query, state).mean(), [learner.refiner.start])
    assert relative(ours, torch.autograd.grad(plain, [start])) < 1e-10


def test_a_gradient_of_another_order_is_found():
    """The measure tells the orders apart: a first-order gradient is far from the second-order plain loop."""
    learner, task = setting("maml", FAMILIES["regression"], hidden=(HIDDEN,))
    loss = Unrolled(ROWS, STEPS).loss(learner, task, torch.Generator())
    (second,) = torch.autograd.grad(loss, learner.refiner.start)
    learner.signal = GRADIENTS
    loss = Unrolled(ROWS, STEPS).loss(learner, task, torch.Generator())
    (first,) = torch.autograd.grad(loss, learner.refiner.start)
    assert (first - second).norm() > 1e-2 * second.norm()
    with pytest.raises(ValueError, match="the plain loop is that of MAML; got SGD"):
        meta_gradient_error(Learner(learner.predictor, SGD(torch.zeros(1), 0.1), GRADIENTS), task, ROWS)


def test_one_step_on_a_linear_model_has_the_hessian_in_its_gradient():
    """`d L_query(theta_1) / d theta_0 = (I - rate H) grad L_query(theta_1)`, H that of the support's loss."""
    family = LinearRegression(3, 0.5, **SIZES)
    learner, task = setting("maml", family, rate=0.05)
    one = [part.tasks(slice(0, 1)) for part in (task.support, task.query)]
    (_, state) = learner.states([one[0]], differentiable=True)
    (ours,) = torch.autograd.grad(learner.loss(one[1], state).sum(), learner.refiner.start)
    x, y = one[0].x[0], one[0].y[0, :, 0]
    query_x, query_y = one[1].x[0], one[1].y[0, :, 0]
    theta, count = learner.refiner.start.detach(), len(x)
    moved = theta - 0.05 * 2 * x.T @ (x @ theta - y) / count
    outer = 2 * query_x.T @ (query_x @ moved - query_y) / len(query_x)
    wanted = (torch.eye(3, dtype=torch.float64) - 0.05 * 2 * x.T @ x / count) @ outer
    torch.testing.assert_close(ours, wanted, rtol=1e-10, atol=1e-13)


def test_from_one_start_maml_walks_as_sgd():
    family = FAMILIES["classification"]
    learner, task = setting("maml", family, rate=0.1)
    plain = Learner(learner.predictor, SGD(learner.refiner.start.detach(), 0.1), GRADIENTS)
    batches = list(task.support.split(ROWS))
    for one, other in zip(learner.states(batches), plain.states(batches), strict=True):
        torch.testing.assert_close(one.theta, other.theta, rtol=1e-12, atol=1e-13)


def test_a_rate_for_each_parameter_equal_in_all_is_one_rate():
    family = FAMILIES["regression"]
    learner, task = setting("maml", family, rate=0.1, learnt_rate=True)
    start, rate = learner.refiner.start.detach(), learner.refiner.rate.detach()
    each = MAML(start, torch.full_like(start, rate.item()), learnt_rate=True).double()
    other = Learner(learner.predictor, each, SECOND_ORDER)
    losses = [Unrolled(ROWS, STEPS).loss(part, task, torch.Generator()) for part in (learner, other)]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-12)
    (whole,), (parts,) = (
        torch.autograd.grad(loss, part.refiner.rate)
        for loss, part in zip(losses, (learner, other), strict=True)
    )
    assert parts.sum().item() == pytest.approx(whole.item(), rel=1e-10)


def test_the_graph_is_kept_for_an_embedding_too():
    """MAML on z of a learnt decoder: the gradient of every parameter of f is that of finite differences."""
    task = FAMILIES["regression"].sample(2, torch.Generator().manual_seed(0)).to(torch.float64)
    torch.manual_seed(0)
    f = Decoder(3, SquaredError(), tokens=2, token_width=3, units=2, width=4)
    learner = Learner(f, MAML(f.initial(), 0.1, learnt_rate=True), SECOND_ORDER).double()
    names, values = zip(*learner.named_parameters("learner"), strict=True)

    def loss(*values):
        episode, arguments = Episode(learner, Unrolled(ROWS, STEPS)), (task, torch.Generator())
        return torch.func.functional_call(episode, dict(zip(names, values, strict=True)), arguments)

    assert torch.autograd.gradcheck(
        loss, tuple(value.detach().requires_grad_() for value in values), fast_mode=True
    )


def test_meta_training_lowers_the_loss():
    """Tasks whose weights lie about one point: after training the start is near it."""
    family = LinearRegression(3, 0.1, **SIZES)
    shift = torch.tensor([2.0, -1.0, 3.0])
    learner = build("meta-sgd", family, rate=0.05)
    optimizer = torch.optim.Adam(learner.parameters(), 0.1)
    generator = torch.Generator().manual_seed(0)
    for _ in range(120):
        task = family.sample(8, generator)
        for batch in (task.support, task.query):
            batch.y.add_((batch.x @ shift)[..., None])
        optimizer.zero_grad()
        Unrolled(ROWS, STEPS).loss(learner, task, generator).backward()
        optimizer.step()
    torch.testing.assert_close(learner.refiner.start.detach(), shift, rtol=0, atol=0.3)


def test_misuse_is_refused_with_a_sentence():
    start = torch.zeros(4)
    for rate, said in (
        (0.0, "a rate is positive and finite; got 0"),
        (float("nan"), "positive and finite; got nan"),
        (torch.ones(3), r"parameter of shape \(4,\); got shape \(3,\): give a number"),
    ):
        with pytest.raises(ValueError, match=said):
            MAML(start, rate)
    learner, task = setting("maml", FAMILIES["regression"])
    with pytest.raises(ValueError, match="MAML writes parts of its state that only later steps read"):
        Greedy(ROWS, STEPS).loss(learner, task, torch.Generator())
    with pytest.raises(ValueError, match="MAML needs gradients"):
        Learner(learner.predictor, learner.refiner, OBSERVATIONS)
    with pytest.raises(ValueError, match="an optimizer needs gradients"):
        seen_gradient(OBSERVATIONS(learner.predictor, learner.refiner.start.expand(3, -1), task.support))
