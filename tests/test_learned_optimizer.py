"""The learned optimizer beside a loop over single coordinates, and what its features are."""

import math

import pytest
import torch

from gradatim.families import LinearRegression
from gradatim.learner import Learner
from gradatim.predictors import Decoder, Network, SquaredError
from gradatim.refiners import CONSTANT, LearnedOptimizer, TransformerConfig
from gradatim.refiners.learned_optimizer import log_features
from gradatim.signal import GRADIENTS, StepInput
from gradatim.testing import check_refiner, randomised
from gradatim.training.schemes import Greedy, Unrolled

DECAYS = (0.5, 0.9, 0.99)


def optimizer(size=4, **changes):
    torch.manual_seed(0)
    return randomised(LearnedOptimizer(torch.linspace(-1, 1, size), width=6, **changes))


def slopes(size=4, steps=5, tasks=2):
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor(10.0) ** torch.arange(steps).neg()[:, None, None]
    return scale * torch.randn(steps, tasks, size, generator=generator, dtype=torch.float64)


def walk(refiner, gradients, rows=(4, 6)):
    state = refiner.init(gradients.shape[1])
    for gradient in gradients:
        state = refiner.step(state, StepInput(torch.tensor(rows), gradient=gradient))
    return state


def test_log_features_are_those_of_the_paper():
    values = torch.tensor([1.0, -math.exp(-5), math.exp(-10), 0.5 * math.exp(-10), 0.0], dtype=torch.float64)
    wanted = torch.tensor(
        [[0.0, 1.0], [-0.5, -1.0], [-1.0, 1.0], [-1.0, 0.5], [-1.0, 0.0]], dtype=torch.float64
    )
    torch.testing.assert_close(log_features(values), wanted, rtol=0, atol=1e-12)


def test_every_coordinate_walks_as_a_loop_over_numbers():
    """Adam's corrected averages, the network, and the 1/(1+t) gain by rows, one coordinate and task at a time."""
    refiner, gradients = optimizer(), slopes()
    state = walk(refiner, gradients)
    for b, n in enumerate((4, 6)):
        for i in range(4):
            theta, momenta, square, rows = refiner.start[i].item(), [0.0] * 3, 0.0, 0
            for t, g in enumerate(gradients[:, b, i].tolist(), start=1):
                momenta = [d * m + (1 - d) * g for d, m in zip(DECAYS, momenta, strict=True)]
                square = 0.99 * square + 0.01 * g * g
                averages = [m / (1 - d**t) for d, m in zip(DECAYS, momenta, strict=True)]
                spread = math.sqrt(square / (1 - 0.99**t) + 1e-16)
                told = []
                for v in (theta, g, *averages):
                    small = abs(v) < math.exp(-10)
                    told += (
                        [-1.0, math.exp(10) * v] if small else [math.log(abs(v)) / 10, math.copysign(1, v)]
                    )
                told += [m / spread for m in averages]
                d, s = refiner.network(torch.tensor(told, dtype=torch.float64)).tolist()
                rows += n
                theta += n / rows * math.exp(refiner.log_rate.item() + s) * d
            assert state.theta[b, i].item() == pytest.approx(theta, rel=1e-10)
    assert state.steps.tolist() == [5, 5] and state.rows.tolist() == [20, 30]


def test_coordinates_move_alike_and_apart():
    """A permutation of coordinates permutes the walk; a coordinate's walk does not depend on the others."""
    refiner, gradients = optimizer(), slopes()
    order = torch.tensor([2, 0, 3, 1])
    whole = walk(refiner, gradients).theta
    refiner.start = refiner.start[order]
    torch.testing.assert_close(walk(refiner, gradients[..., order]).theta, whole[:, order])
    refiner.start = refiner.start[:2]
    torch.testing.assert_close(walk(refiner, gradients[..., order[:2]]).theta, whole[:, order[:2]])


def test_one_optimizer_moves_networks_of_any_size():
    small, large = optimizer(4), LearnedOptimizer(torch.zeros(3, 7), width=6).double()
    shared = {name: value for name, value in small.state_dict().items() if name != "start"}
    assert large.load_state_dict(shared, strict=False).missing_keys == ["start"]
    moved = large.step(
        large.init(2), StepInput(torch.ones(2), gradient=torch.ones(2, 3, 7, dtype=torch.float64))
    )
    assert moved.theta.shape == (2, 3, 7)
    assert moved.theta.flatten().unique().numel() == 1, "equal coordinates take equal steps"


@pytest.mark.parametrize("kind", ["hidden", "embedding", "learnt-gain"])
def test_other_latents_and_gains_keep_the_laws(kind):
    torch.manual_seed(0)
    family = LinearRegression(3, 0.5, support_rows=15, query_rows=6)
    f = Network(3, SquaredError(), (4,))
    if kind == "embedding":
        f = Decoder(3, SquaredError(), tokens=2, token_width=3, units=2, width=4)
    gain = TransformerConfig(gain=CONSTANT).gain if kind != "learnt-gain" else type(CONSTANT)(learnt=True)
    check_refiner(Learner(f, LearnedOptimizer(f.initial(), 6, gain), GRADIENTS), family)


def test_meta_training_lowers_the_loss():
    family = LinearRegression(3, 0.1, support_rows=20, query_rows=10)
    torch.manual_seed(0)
    f = Network(3, SquaredError(), bias=False)
    learner = Learner(f, LearnedOptimizer(f.initial(), 8), GRADIENTS)
    adam, generator, losses = (
        torch.optim.Adam(learner.parameters(), 0.01),
        torch.Generator().manual_seed(0),
        [],
    )
    for _ in range(60):
        loss = Unrolled(5, 4).loss(learner, family.sample(8, generator), generator)
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    assert sum(losses[-20:]) < 0.6 * sum(losses[:20])
    assert Greedy(5, 4).loss(learner, family.sample(4, generator), generator).requires_grad


@pytest.mark.parametrize(
    "wrong", [{"decays": ()}, {"decays": (0.9, 0.5)}, {"decays": (0.5, 1.0)}, {"width": 0}]
)
def test_misuse_is_refused_with_a_sentence(wrong):
    with pytest.raises(ValueError, match=r"needs ascending decays in \[0, 1\), width >= 1 and rate > 0; got"):
        LearnedOptimizer(torch.zeros(3), **wrong)
