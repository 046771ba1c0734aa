from dataclasses import replace

import pytest
import torch

from gradatim.signal import BOTH, GRADIENTS, OBSERVATIONS, Signal
from gradatim.training.episode import Episode
from gradatim.training.schemes import Greedy, Unrolled
from gradatim.tree import detach
from tiny_run import FAMILY, make_learner

STEPS, ROWS = 3, 4
SIGNALS = {"observations": OBSERVATIONS, "gradients": GRADIENTS, "both": BOTH}


def setting(signal=BOTH):
    learner = make_learner(signal).double()
    return learner, FAMILY.sample(3, torch.Generator().manual_seed(5)).to(torch.float64)


def gradient_of(learner, scheme, task):
    loss = scheme.loss(learner, task, torch.Generator())
    return loss.item(), gradients(learner, loss)


def gradients(learner, loss):
    parameters = list(learner.parameters())
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def assert_equal(one, other, **tolerance):
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, **tolerance)


def distance(one, other):
    return sum((a - b).square().sum() for a, b in zip(one, other, strict=True)).sqrt().item()


def pieces(learner, task, length):
    """Return the mean loss and its gradient, from runs of `length` steps, each begun from the state as a number."""
    batches = list(task.support.split(ROWS))[:STEPS]
    with torch.no_grad():
        states = list(learner.states(batches, differentiable=True))
    value, total = 0.0, [torch.zeros_like(p) for p in learner.parameters()]
    for start in range(0, STEPS, length):
        state = detach(states[start]) if start else learner.refiner.init(task.n_tasks)
        for t in range(start, min(start + length, STEPS)):
            state = learner.step(state, batches[t], differentiable=True)
            share = learner.loss(task.query, state).mean() / STEPS
            # retained: the steps of one piece share their graph
            found = torch.autograd.grad(
                share, list(learner.parameters()), retain_graph=True, allow_unused=True
            )
            total = [a if g is None else a + g for a, g in zip(total, found, strict=True)]
            value += share.item()
    return value, total


@pytest.mark.parametrize("signal", SIGNALS.values(), ids=SIGNALS)
@pytest.mark.parametrize(
    ("scheme", "length"),
    [
        (Greedy(ROWS, STEPS), 1),
        (Unrolled(ROWS, STEPS, truncation=1), 1),
        (Unrolled(ROWS, STEPS, truncation=2), 2),
        (Unrolled(ROWS, STEPS), STEPS),
    ],
    ids=str,
)
def test_a_scheme_is_the_sum_of_its_pieces(signal, scheme, length):
    learner, task = setting(signal)
    value, wanted = pieces(learner, task, length)
    loss, found = gradient_of(learner, scheme, task)
    assert loss == pytest.approx(value, rel=1e-12)
    assert_equal(found, wanted, rtol=1e-9, atol=1e-12)
    assert all(g.abs().max() > 1e-9 for g in found if g.dim() > 1), "every matrix is trained"


def test_truncation_is_the_only_difference():
    learner, task = setting()
    schemes = [Greedy(ROWS, STEPS), *(Unrolled(ROWS, STEPS, truncation=k) for k in (1, 2, STEPS, None))]
    losses, found = zip(*(gradient_of(learner, scheme, task) for scheme in schemes), strict=True)
    assert len(set(losses)) == 1, "schemes differ in the graph, not in the loss"
    greedy, one, two, three, whole = found
    assert_equal(one, greedy, rtol=0, atol=0)
    assert_equal(three, whole, rtol=0, atol=0)
    size = distance(greedy, [torch.zeros_like(g) for g in greedy])
    assert distance(two, greedy) > 1e-3 * size
    assert distance(whole, two) > 1e-3 * size


@pytest.mark.parametrize("observations", [True, False])
def test_gradcheck_of_the_second_order_unrolled_loss(observations):
    second = Signal(observations=observations, gradients=True, keep_graph=True)
    learner, task = setting(second)
    shapes = {name: value.shape for name, value in learner.named_parameters("learner")}
    flat = torch.nn.utils.parameters_to_vector(learner.parameters()).detach().requires_grad_()

    def loss(flat):
        parts = flat.split([shape.numel() for shape in shapes.values()])
        named = {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
        episode, arguments = Episode(learner, Unrolled(ROWS, STEPS)), (task, torch.Generator())
        return torch.func.functional_call(episode, named, arguments)

    assert torch.autograd.gradcheck(loss, flat, fast_mode=True)
    # the same loss without the graph of its gradients: a first-order gradient, which gradcheck would refuse
    _, whole = gradient_of(learner, Unrolled(ROWS, STEPS), task)
    learner.signal = replace(second, keep_graph=False)
    _, first = gradient_of(learner, Unrolled(ROWS, STEPS), task)
    assert distance(first, whole) > 1e-2 * distance(whole, [torch.zeros_like(g) for g in whole])
