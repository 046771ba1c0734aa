"""The nested family of MAML: each member is the next with its extra parameters at rest; steps, skips, images."""

import pytest
import torch
import torch.nn.functional as F

from gradatim.batch import Batch, Task
from gradatim.families import LinearClassification, LinearRegression, Sinusoids
from gradatim.learner import Learner
from gradatim.likelihood import CrossEntropy
from gradatim.methods import MetaSGD, PathMAML, build
from gradatim.predictors import ConvolutionalNetwork, Network, SquaredError
from gradatim.refiners import MAML
from gradatim.refiners.maml import GEAR, SKIP_GEAR
from gradatim.signal import SECOND_ORDER
from gradatim.testing import check_refiner, meta_gradient_error
from gradatim.training.config import TrainConfig
from gradatim.training.episode import Episode
from gradatim.training.repeated import Repeated
from gradatim.training.schemes import Unrolled
from gradatim.training.train import train

SIZES = dict(support_rows=12, query_rows=6)
FAMILIES = {
    "regression": LinearRegression(3, 0.5, **SIZES),
    "classification": LinearClassification(3, 4, **SIZES),
}
ROWS, STEPS, HIDDEN, RATE = 4, 3, (5,), 0.2


def member(family, moves=True, seed=0, **options):
    """Return a float64 learner whose start is off zero and, with `moves`, whose rates and skips have moved."""
    learner = PathMAML(**{"hidden": HIDDEN, "rate": RATE, "steps": STEPS, **options}).build(family).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        start = learner.refiner.start
        start.copy_(
            0.5 * torch.randn(start.shape, generator=torch.Generator().manual_seed(9), dtype=start.dtype)
        )
        for name in ("moves", "skips") if moves else ():
            part = getattr(learner.refiner, name, torch.zeros(0))
            scale = 2.0 if name == "skips" else 0.05
            part.copy_(scale * torch.randn(part.shape, generator=generator, dtype=part.dtype))
    return learner


def episode(learner, task, steps=STEPS):
    """Return the loss of an episode and its gradient in the start."""
    loss = Unrolled(ROWS, steps).loss(learner, task, torch.Generator())
    return loss.detach(), torch.autograd.grad(loss, learner.refiner.start)[0]


def same(one, other, task):
    for mine, theirs in zip(episode(one, task), episode(other, task), strict=True):
        assert theirs.norm() > 1e-3
        assert (mine - theirs).norm() <= 1e-12 * theirs.norm()


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_each_member_is_the_next_with_its_extra_parameters_at_rest(family):
    task = family.sample(3, torch.Generator().manual_seed(0)).to(torch.float64)
    shared = member(family, rates="shared")
    for rates in ("weight", "layer-step", "weight-step"):
        same(shared, member(family, moves=False, rates=rates), task)
    weight, layer = member(family, rates="weight"), member(family, rates="layer-step")
    whole = member(family, moves=False, rates="weight-step")
    with torch.no_grad():  # Meta-SGD is the same rates at each step
        whole.refiner.moves.copy_(weight.refiner.moves.expand(STEPS, -1))
    same(weight, whole, task)
    with torch.no_grad():  # MAML++ is the same rate at each weight of a layer
        sizes = torch.tensor(layer.refiner.layers)
        whole.refiner.moves.copy_(layer.refiner.moves.repeat_interleave(sizes, dim=1))
    same(layer, whole, task)
    moved = member(family, rates="weight-step")
    for skip in (1, 2, 3):
        skipping = member(family, moves=False, rates="weight-step", skip=skip)
        with torch.no_grad():
            skipping.refiner.moves.copy_(moved.refiner.moves)
        same(moved, skipping, task)


def test_the_rates_of_a_weight_are_those_of_meta_sgd():
    family = FAMILIES["regression"]
    task = family.sample(3, torch.Generator().manual_seed(0)).to(torch.float64)
    ours, plain = member(family, rates="weight"), MetaSGD(hidden=HIDDEN).build(family).double()
    with torch.no_grad():
        plain.refiner.start.copy_(ours.refiner.start)
        plain.refiner.rate.copy_(RATE * (1 + GEAR * ours.refiner.moves[0]))
    same(ours, plain, task)


def plain_loss(theta, x, y):
    """Return the mean squared error of a tanh network with one hidden layer, from torch alone."""
    first, last = theta[:20].view(5, 4), theta[20:].view(1, 6)
    hidden = torch.tanh(x @ first[:, :-1].T + first[:, -1])
    return F.mse_loss(hidden @ last[:, :-1].T + last[:, -1], y)


def test_the_meta_gradient_is_that_of_a_plain_nested_loop_with_skips():
    """Steps 1 to 5 of a learner with three steps of its own, window 2: later steps take the last rate and skip."""
    family, taken = LinearRegression(3, 0.5, support_rows=20, query_rows=6), 5
    learner = member(family, rates="weight-step", skip=2)
    task = family.sample(2, torch.Generator().manual_seed(1)).to(torch.float64)
    refiner = learner.refiner
    copies = [
        part.detach().clone().requires_grad_() for part in (refiner.start, refiner.moves, refiner.skips)
    ]
    start, moves, skips = copies
    assert skips.shape == (1, 26) and moves.shape == (3, 26)
    losses = []
    for x, y, query_x, query_y in zip(
        task.support.x, task.support.y, task.query.x, task.query.y, strict=True
    ):
        theta = anchor = start
        for t in range(taken):
            rows = slice(t * ROWS, (t + 1) * ROWS)
            (slope,) = torch.autograd.grad(plain_loss(theta, x[rows], y[rows]), theta, create_graph=True)
            theta = theta - RATE * (1 + GEAR * moves[min(t, 2)]) * slope
            if t in (1, 3):
                back = SKIP_GEAR * skips[0]
                theta = anchor = (1 - back) * theta + back * anchor
            losses.append(plain_loss(theta, query_x, query_y))
    plain = torch.stack(losses).mean()
    loss = Unrolled(ROWS, taken).loss(learner, task, torch.Generator())
    assert loss.item() == pytest.approx(plain.item(), rel=1e-12)
    ours = torch.autograd.grad(loss, [refiner.start, refiner.moves, refiner.skips])
    for mine, theirs in zip(ours, torch.autograd.grad(plain, copies), strict=True):
        assert theirs.norm() > 1e-4 and (mine - theirs).norm() <= 1e-10 * theirs.norm()


def test_a_clip_bounds_each_coordinate_of_the_gradient():
    f = Network(1, SquaredError(1), bias=False)
    learner = Learner(f, MAML(torch.zeros(1), 1.0, clip=10.0), SECOND_ORDER)
    rows = Batch(torch.tensor([[[1.0]], [[1.0]]]), torch.tensor([[[-3.0]], [[50.0]]]))
    assert learner.fit(rows, 1).theta.flatten().tolist() == [-6.0, 10.0]


@pytest.mark.parametrize("rates", ["shared", "weight", "layer-step", "weight-step"])
@pytest.mark.parametrize("skip", [None, 1, 2])
def test_members_keep_the_laws(rates, skip):
    family = FAMILIES["classification"]
    check_refiner(member(family, rates=rates, skip=skip), family)


def test_the_network_of_images_is_that_of_torch():
    """Convolutions, norms and the head beside torch's own, of 7 pixels (odd) and 8 (even), in two colours."""
    for side in (7, 8):
        f = ConvolutionalNetwork(side, CrossEntropy(3), channels=(4, 6), colours=2)
        generator = torch.Generator().manual_seed(0)
        theta = torch.randn(2, *f.latent_shape, generator=generator, dtype=torch.float64)
        x = torch.randn(2, 5, side, side, 2, generator=generator, dtype=torch.float64)
        ours = f(x, theta)
        assert torch.equal(f(x.flatten(2), theta), ours)
        for b in range(2):
            parts = theta[b].split(f.layers)
            hidden = x[b].permute(0, 3, 1, 2)
            for part, (out, width) in zip(parts[:-1], f.shapes[:-1], strict=True):
                matrix = part.view(out, width)
                kernel = matrix[:, :-1].view(out, 3, 3, -1).permute(0, 3, 1, 2)
                hidden = F.conv2d(hidden, kernel, matrix[:, -1], stride=2, padding=1)
                hidden = F.relu(F.group_norm(hidden, 1))
            head = parts[-1].view(*f.shapes[-1])
            outputs = hidden.permute(0, 2, 3, 1).flatten(1) @ head[:, :-1].T + head[:, -1]
            torch.testing.assert_close(ours[b], outputs, rtol=1e-10, atol=1e-10)


def test_images_pass_through_a_batch_and_their_meta_gradient_is_exact():
    generator = torch.Generator().manual_seed(0)
    f = ConvolutionalNetwork(6, CrossEntropy(2), channels=(2, 3))
    learner = PathMAML(rates="layer-step", steps=2, skip=1).learner(f, f.layers).double()
    with torch.no_grad():
        for part in learner.parameters():
            part.add_(0.1 * torch.randn(part.shape, generator=generator, dtype=part.dtype))
    x = torch.randn(2, 8, 6, 6, 1, generator=generator, dtype=torch.float64)
    y = torch.randint(2, (2, 8, 1), generator=generator)
    rows = Batch(x, y)
    names, values = zip(*learner.named_parameters("learner"), strict=True)
    task = Task(rows.slice(0, 4), rows.slice(4, 8))

    def loss(*values):
        whole, arguments = Episode(learner, Repeated(4, 2)), (task, torch.Generator())
        return torch.func.functional_call(whole, dict(zip(names, values, strict=True)), arguments)

    assert torch.autograd.gradcheck(loss, tuple(v.detach().requires_grad_() for v in values), fast_mode=True)
    with pytest.raises(ValueError, match=r"wants images: x floating point, \[tasks, rows, 6, 6, 1\]"):
        learner.fit(Batch(x[:, :, :5], y), 2)


def test_repeated_steps_are_those_of_fit():
    family = Sinusoids(support_rows=5, query_rows=4)
    learner = member(family, rates="weight-step", skip=2)
    task = family.sample(3, torch.Generator().manual_seed(0)).to(torch.float64)
    state = learner.fit(task.support, 5, passes=STEPS)
    (last,) = Repeated(5, STEPS).losses(learner, task, torch.Generator())
    torch.testing.assert_close(last, learner.loss(task.query, state), rtol=1e-12, atol=0)
    every = Repeated(5, STEPS, every_step=True).losses(learner, task, torch.Generator())
    assert every.shape == (STEPS, 3)
    torch.testing.assert_close(every[-1], last, rtol=1e-12, atol=0)
    with pytest.raises(ValueError, match="the last step is trained on whole mini-batches; got 2 prefixes"):
        Repeated(5, STEPS, prefixes=2)


def test_steps_through_the_support_once_are_those_of_unrolled():
    family = FAMILIES["regression"]
    learner, generator = member(family, rates="layer-step"), torch.Generator().manual_seed(0)
    task = family.sample(3, generator).to(torch.float64)
    for options in ({}, {"truncation": 1}, {"prefixes": 2}):
        generators = [torch.Generator().manual_seed(1) for _ in range(2)]
        schemes = [Repeated(ROWS, STEPS, every_step=True, **options), Unrolled(ROWS, STEPS, **options)]
        one, other = (scheme.losses(learner, task, g) for scheme, g in zip(schemes, generators, strict=True))
        assert torch.equal(one, other)


def test_training_is_stable_and_lowers_the_loss_by_default():
    """Rates that moved by the optimizer's own step sizes diverged here."""
    family = Sinusoids(support_rows=5, query_rows=10)
    learner = PathMAML(hidden=(16,), rate=0.01, skip=2).build(family)
    config = TrainConfig(iterations=150, tasks=16, lr=3e-3, clip=10.0, log_every=25)
    log = train(learner, family, Repeated(5, 5), config, progress=False).log
    assert log[-1]["loss"] < 0.95 * log[0]["loss"]
    assert learner.refiner.moves.abs().max() > 0.01 and learner.refiner.skips.abs().max() > 0.01


def test_bad_options_are_refused_with_a_sentence():
    start = torch.zeros(4)
    for options, said in (
        ({"rates": "step"}, "rates must be one of shared, weight, layer-step, weight-step; got 'step'"),
        ({"steps": 0}, "steps that have rates of their own are at least 1; got 0"),
        ({"skip": 6}, "a skip goes back 1 to 5 steps, the steps of this learner; got 6"),
        ({"skip": 0}, "a skip goes back 1 to 5 steps"),
        ({"clip": 0.0}, "a clip is positive, or None; got 0"),
        ({"layers": (1, 2)}, r"layers make up the start of 4 numbers; got layers of \(1, 2\)"),
    ):
        with pytest.raises(ValueError, match=said):
            MAML(start, 0.1, **options)
    with pytest.raises(ValueError, match="shared rates and no skips; got rates 'weight-step'"):
        family = FAMILIES["regression"]
        meta_gradient_error(member(family), family.sample(1, torch.Generator()), ROWS)
    with pytest.raises(ValueError, match="convolutions and sizes of at least 1; got side 0"):
        ConvolutionalNetwork(0, CrossEntropy(2))


@pytest.mark.parametrize("every_step", [True, False])
def test_the_loss_of_an_episode_is_the_mean_of_its_losses(every_step):
    family = Sinusoids(support_rows=5)
    learner, task = build("maml", family, hidden=(8,)), family.sample(4, torch.Generator().manual_seed(0))
    scheme = Repeated(batch_size=5, horizon=3, every_step=every_step)
    losses = scheme.losses(learner, task, torch.Generator().manual_seed(1))
    assert losses.shape == (3 if every_step else 1, 4)
    whole = scheme.loss(learner, task, torch.Generator().manual_seed(1))
    assert float(whole) == pytest.approx(float(losses.mean()), rel=1e-5)
