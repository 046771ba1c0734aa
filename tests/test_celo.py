"""Celo beside its published code: losses and parameters that the code gave under JAX stand in `tests/data/celo.json`.

Made by celo/optimizers/celo.py and celo_adam.py of amoudgl/celo at 66d9761, float32, with the published weights
(`published`) and with drawn ones (`drawn`).
"""

import copy
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from gradatim.batch import Batch
from gradatim.comparison.compare import compare
from gradatim.families import LinearClassification, LinearRegression
from gradatim.methods import METHODS, build
from gradatim.methods.celo import Celo, CeloOptimizer, read_celo
from gradatim.nn.celo import CeloRule, factored
from gradatim.signal import StepInput
from gradatim.testing import check_refiner

PUBLISHED = json.loads((Path(__file__).parent / "data" / "celo.json").read_text())
NEEDS_WEIGHTS = pytest.mark.skipif(
    not Path(os.environ.get("GRADATIM_DATA", ""), "weights", "celo.npz").exists(),
    reason="the published weights of Celo lie in $GRADATIM_DATA/weights, which is not set or has none",
)
PATH_OF = "gradatim.methods.celo:Celo"


def drawn(adam=False):
    """Weights of the published shapes, drawn as they were drawn for the published code."""
    seen, width, stack = 18, 64, "ff_mod_stack|~|"
    blocks = (1, 1, 1, 3, 1, 3, 1, 3, 1, 3, 3, 3, 3, 3)
    shapes = {f"{stack}w0__{i}": (1, n, 4) for i, n in enumerate(blocks)}
    shapes |= {f"{stack}w1": (1, 4, 4), f"{stack}w2": (1, 4, 3)}
    shapes |= {f"{stack}b0": (1, 4), f"{stack}b1": (1, 4), f"{stack}b2": (1, 3)}
    shapes = {} if adam else shapes
    shapes |= {f"lstm_init_state|{part}": (1, width) for part in ("hidden", "cell")}
    for name, shape in (
        ("linear_1", (seen, width)),
        ("linear_2", (seen, width)),
        ("rnn/linear", (2 * width, 4 * width)),
        ("step_size", (width, 1)),
    ):
        shapes |= {f"rnn_params|{name}|w": shape, f"rnn_params|{name}|b": shape[1:]}
    rng = np.random.default_rng(1)
    return {
        name: torch.tensor(0.3 * rng.standard_normal(shape), dtype=torch.float32)
        for name, shape in sorted(shapes.items())
    }


def as_torch(array):
    """Axes as torch has them: the published code has the output last."""
    axes = (3, 2, 0, 1) if array.ndim == 4 else tuple(range(array.ndim))[::-1]
    return torch.tensor(np.ascontiguousarray(array.transpose(axes)), dtype=torch.float32)


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "drawn.npz"
    np.savez(path, **{name: part.numpy() for name, part in drawn().items()})  # type: ignore[arg-type]
    return str(path)


# --- beside the published code


@NEEDS_WEIGHTS
@pytest.mark.parametrize("name", ["celo", "celo_adam"])
def test_losses_of_two_hundred_steps_are_those_of_the_published_code(name):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((256, 5)), rng.standard_normal((5, 3))
    y = torch.tensor(np.argmax(np.tanh(x @ w) + 0.3 * rng.standard_normal((256, 3)), 1))
    x = torch.tensor(x, dtype=torch.float32)
    layers = [torch.nn.Linear(*sizes) for sizes in ((5, 8), (8, 8), (8, 3))]
    with torch.no_grad():
        for layer in layers:
            fan_in = layer.in_features
            layer.weight.copy_(as_torch(rng.standard_normal((fan_in, layer.out_features)) / fan_in**0.5))
            layer.bias.zero_()
    model = torch.nn.Sequential(layers[0], torch.nn.Tanh(), layers[1], torch.nn.Tanh(), layers[2])
    optimizer, losses = CeloOptimizer(model.parameters(), steps=200, weights=name), []
    for step in range(200):
        at = (torch.arange(32) + 32 * step) % 256
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x[at]), y[at])
        loss.backward()
        optimizer.step(loss=loss)
        losses.append(loss.item())
    # float32 in another order of sums, over 200 steps
    assert losses == pytest.approx(PUBLISHED["published"][name], abs=2e-5)
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("adam", [False, True], ids=["celo", "celo-adam"])
def test_tensors_of_any_rank_move_as_in_the_published_code(adam):
    """A kernel of a convolution, a square matrix (equal axes), a vector and a number; a loss that jumps."""
    rng, shapes = (
        np.random.default_rng(2),
        {"kernel": (2, 2, 3, 4), "square": (3, 3), "vector": (4,), "number": ()},
    )
    parameters = [as_torch(rng.standard_normal(shape)).requires_grad_() for shape in shapes.values()]
    optimizer = CeloOptimizer(parameters, steps=20, weights=drawn(adam))
    for loss in (2.0, 1.5, 3.0, 9.0, 1.2, 1.0):
        for part, shape in zip(parameters, shapes.values(), strict=True):
            part.grad = as_torch(np.asarray(rng.standard_normal(shape)))
        optimizer.step(loss=loss)
    for part, (name, shape) in zip(parameters, shapes.items(), strict=True):
        wanted = np.array(PUBLISHED["drawn_adam" if adam else "drawn"][name]).reshape(shape)
        torch.testing.assert_close(part.detach(), as_torch(wanted), rtol=2e-5, atol=2e-5)


def test_the_larger_axis_is_the_output_of_equal_ones():
    assert factored((64, 3, 5, 5)) == (2, 0) and factored((8, 8)) == (1, 0) and factored((3, 9)) == (0, 1)
    assert factored((8,)) is None


# --- on tasks, and on a module of one's own


@pytest.mark.parametrize("hidden", [(), (4,)], ids=["linear", "network"])
def test_it_keeps_the_laws_of_refiners(weights, hidden):
    family = LinearRegression(3, 0.5, support_rows=15, query_rows=6)
    check_refiner(build(PATH_OF, family, weights=weights, steps=4, hidden=hidden), family)


def test_a_task_and_a_module_walk_alike(weights):
    family = LinearClassification(3, 4, support_rows=40)
    learner = Celo(weights=weights, steps=5, hidden=(6,)).build(family)
    support = family.sample(2, torch.Generator().manual_seed(0)).support
    into, out = torch.nn.Linear(3, 6), torch.nn.Linear(6, 4)
    model = torch.nn.Sequential(into, torch.nn.Tanh(), out)
    first, last = learner.init(1).theta[0].split((24, 28))
    with torch.no_grad():
        for layer, theta in ((into, first.view(6, 4)), (out, last.view(4, 7))):
            layer.weight.copy_(theta[:, :-1])
            layer.bias.copy_(theta[:, -1])
    optimizer = CeloOptimizer(model.parameters(), steps=5, weights=weights)
    for batch in support.split(8):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(batch.x[1]), batch.y[1, :, 0])
        loss.backward()
        optimizer.step(loss=loss)
    state = learner.adapt(support, 8)
    torch.testing.assert_close(
        learner.predict(support.x, state)[1], model(support.x[1]), rtol=1e-4, atol=1e-5
    )
    assert state.memory.steps.tolist() == [5, 5]


def test_a_run_goes_on_from_its_saved_state():
    def run(optimizer, parameter, steps):
        for _ in range(steps):
            optimizer.zero_grad()
            optimizer.step(closure=lambda: _backward((parameter - 3).square().mean()))
        return parameter.detach().clone()

    def _backward(loss):
        loss.backward()
        return loss

    whole = torch.ones(3, 2, requires_grad=True)
    wanted = run(CeloOptimizer([whole], 10, drawn()), whole, 6)
    part = torch.ones(3, 2, requires_grad=True)
    first = CeloOptimizer([part], 10, drawn())
    run(first, part, 3)
    other = part.detach().clone().requires_grad_()
    second = CeloOptimizer([other], 10, drawn())
    second.load_state_dict(first.state_dict())
    assert torch.equal(run(second, other, 3), wanted)


def test_a_copy_walks_alone_from_where_it_was_made():
    weight = torch.ones(3, 2, requires_grad=True)
    optimizer = CeloOptimizer([weight], 10, drawn())
    weight.grad = weight.detach().clone()
    optimizer.step(loss=1.0)
    twin = copy.deepcopy(optimizer)
    (other,) = twin.param_groups[0]["params"]
    assert other is not weight and torch.equal(other, weight)
    other.grad = weight.grad.clone()
    before = weight.detach().clone()
    twin.step(loss=0.5)
    assert torch.equal(weight, before)
    optimizer.step(loss=0.5)
    assert torch.equal(weight, other)


@NEEDS_WEIGHTS
def test_it_stands_beside_adam_in_a_comparison(tmp_path):
    """Untuned, at a tenth of where it starts; 200 steps, because Celo moves little in few."""
    family = LinearRegression(4, 0.3, support_rows=1600, query_rows=16)
    methods = {"adam": "adam", "celo": Celo(steps=200)}
    result = compare(methods, family, batch_size=8, steps=[200], tasks=8, out=tmp_path, progress=False)
    error = {record["method"]: record["mean"] for record in result.records if record["step"] == 200}
    assert error["adam"] < 0.3 and error["celo"] < 0.6


# --- what is refused


def test_misuse_is_refused_with_a_sentence(tmp_path, monkeypatch):
    assert "celo" not in METHODS  # it needs weights, so it has no short name
    with pytest.raises(ValueError, match=r"there is no file nowhere\.npz"):
        read_celo("nowhere.npz")
    monkeypatch.delenv("GRADATIM_DATA", raising=False)
    with pytest.raises(
        ValueError, match=r"weights 'celo' are read from \$GRADATIM_DATA/weights: set that variable"
    ):
        Celo().build(LinearRegression(2))
    broken = drawn()
    del broken["rnn_params|step_size|w"]
    with pytest.raises(ValueError, match=r"hold rnn_params\|step_size\|w of shape \(64, 1\); got none"):
        CeloRule(broken, [(2,)], 10)
    with pytest.raises(ValueError, match="a tensor to move and at least 2 steps; got 1 tensors, 1 steps"):
        CeloRule(drawn(), [(2,)], 1)
    optimizer = CeloOptimizer([torch.ones(2, requires_grad=True)], 10, drawn())
    with pytest.raises(ValueError, match=r"Celo follows the loss; got none: call step\(loss=loss\)"):
        optimizer.step()
    groups: list = [{"params": [torch.ones(2, requires_grad=True)]} for _ in range(2)]
    with pytest.raises(ValueError, match="give another group its own optimizer"):
        CeloOptimizer(groups, 10, drawn())
    with pytest.raises(ValueError, match="give another group its own optimizer"):
        optimizer.add_param_group(groups[0])
    path = tmp_path / "drawn.npz"
    np.savez(path, **{name: part.numpy() for name, part in drawn().items()})  # type: ignore[arg-type]
    learner = Celo(weights=str(path), steps=4).build(LinearRegression(2))
    batch = Batch(torch.ones(1, 3, 2), torch.ones(1, 3, 1))
    with pytest.raises(ValueError, match="Celo needs the loss of a mini-batch"):
        learner.refiner.step(learner.init(1), StepInput(batch.rows, gradient=torch.ones(1, 3)))
