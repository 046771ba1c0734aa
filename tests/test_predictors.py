"""Predictors and likelihoods: their formulas against plain loops, what they start from, what they refuse."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gradatim.batch import Batch
from gradatim.nn.functional import Layout
from gradatim.predictors import (
    CrossEntropy,
    Decoder,
    Modulated,
    Network,
    Readout,
    SquaredError,
)
from gradatim.testing import randomised


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def classes(*shape, count=3, seed=0):
    return torch.randint(count, shape, generator=torch.Generator().manual_seed(seed))


def test_likelihoods_are_those_of_torch():
    outputs, y = 5 * normal(2, 4, 3), classes(2, 4, 1)
    wanted = F.cross_entropy(outputs.flatten(0, 1), y.flatten(), reduction="none").view(2, 4)
    torch.testing.assert_close(CrossEntropy(3).row_loss(outputs, y), wanted, rtol=1e-12, atol=1e-12)
    targets = normal(2, 4, 3, seed=1)
    wanted = 3 * F.mse_loss(outputs, targets, reduction="none").mean(-1)
    torch.testing.assert_close(SquaredError(3).row_loss(outputs, targets), wanted, rtol=1e-12, atol=1e-12)
    far = CrossEntropy(2).row_loss(
        torch.tensor([[[1000.0, -1000.0]]]), torch.ones(1, 1, 1, dtype=torch.int64)
    )
    assert far.item() == 2000.0


@pytest.mark.parametrize("hidden", [(), (4,), (4, 2)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_network_is_torchs_linear_layers_task_by_task(hidden, bias):
    f = Network(3, CrossEntropy(5), hidden, bias)
    theta, x = normal(2, *f.latent_shape), normal(2, 6, 3, seed=1)
    outputs = f(x, theta)
    for b in range(2):
        sizes, place, h = (3, *hidden, 5), 0, x[b]
        for depth, (inner, out) in enumerate(pairwise(sizes)):
            matrix = theta[b, place : place + out * (inner + bias)].view(out, inner + bias)
            place += matrix.numel()
            h = F.linear(
                h if depth == 0 else torch.tanh(h), matrix[:, :inner], matrix[:, inner] if bias else None
            )
        assert place == theta.shape[1]
        torch.testing.assert_close(outputs[b], h, rtol=1e-12, atol=1e-12)


def test_a_network_starts_silent_with_its_symmetry_broken():
    f = Network(50, SquaredError(), (400, 300))
    theta = f.initial(torch.Generator().manual_seed(0))
    first, second, last = theta.split([rows * width for rows, width in f.layout.shapes])
    for part, inner, out in ((first, 50, 400), (second, 400, 300)):
        matrix = part.view(out, inner + 1)
        assert matrix[:, :-1].std().item() == pytest.approx(1 / math.sqrt(inner), rel=0.02)
        assert matrix[:, :-1].mean().abs() < 0.01 / math.sqrt(inner) * 5
        assert not matrix[:, -1].any()
    assert not last.any()
    assert f(torch.randn(1, 4, 50), theta[None]).eq(0).all()
    assert not Network(3, CrossEntropy(3)).initial().any()


@pytest.mark.parametrize("tokens", [1, 3])
def test_a_decoder_is_the_sum_over_its_tokens_units(tokens):
    torch.manual_seed(0)
    f = randomised(Decoder(3, CrossEntropy(5), tokens=tokens, token_width=4, units=2, width=6))
    f.requires_grad_(False)
    z, x = normal(2, tokens, 4), normal(2, 7, 3, seed=1)
    outputs = f(x, z)
    for b, n in np.ndindex(2, 7):
        query, total = f.linear(x[b, n]) + f.bend(x[b, n]), torch.zeros(5, dtype=torch.float64)
        for k in range(tokens):
            keys, values = f.key(z[b, k]).view(2, 6), f.value(z[b, k]).view(2, 5)
            for u in range(2):
                s = (query @ keys[u]).item() / math.sqrt(6)
                fired = s * (1 + math.erf(s / math.sqrt(2))) / 2
                total += fired * values[u] / math.sqrt(2 * tokens)
        torch.testing.assert_close(outputs[b, n], total, rtol=1e-12, atol=1e-12)
    start = f.initial(torch.Generator().manual_seed(1))
    assert start.shape == (tokens, 4)
    assert start.abs().min() > 0


def test_a_modulated_network_scales_and_shifts_the_hidden_units_of_each_task():
    f = randomised(Modulated(3, CrossEntropy(4), (5, 2)))
    x, z = normal(2, 6, 3), normal(2, 14, seed=1)
    assert f.latent_shape == (14,) and f.shapes == ((2, 5), (2, 2))
    for b in range(2):
        (a1, c1), (a2, c2) = z[b, :10].view(2, 5), z[b, 10:].view(2, 2)
        hidden = F.gelu((1 + a1) * (x[b] @ f.layers[0].weight.T + f.layers[0].bias) + c1)
        hidden = F.gelu((1 + a2) * (hidden @ f.layers[1].weight.T + f.layers[1].bias) + c2)
        torch.testing.assert_close(f(x, z)[b], f.head(hidden))
    with pytest.raises(ValueError, match="layers and widths"):
        Modulated(3, CrossEntropy(4), ())


def test_readouts_read_what_they_say():
    s, x, y = normal(2, 4, 3).softmax(-1), normal(2, 4, 9), classes(2, 4, 1)
    assert Readout(CrossEntropy(3))(x, s) is s
    batch = Batch(x, y)
    loss = Readout(CrossEntropy(3), "probabilities").loss(batch, s)
    wanted = -s.gather(-1, y).log().mean((1, 2))
    torch.testing.assert_close(loss, wanted, rtol=1e-12, atol=1e-12)
    sure = torch.eye(3, dtype=torch.float64)[y[..., 0]]
    assert Readout(CrossEntropy(3), "probabilities").loss(batch, sure).eq(0).all(), (
        "a sure answer stays finite"
    )
    assert Readout(CrossEntropy(3), "probabilities").loss(batch, sure.roll(1, -1)).isfinite().all()
    latents = Readout(CrossEntropy(3), "latents", 8).double()
    z = normal(2, 4, 8, seed=2)
    centred = (z - z.mean(-1, keepdim=True)) / (z.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    wanted = centred @ latents.head[1].weight.T + latents.head[1].bias
    torch.testing.assert_close(latents(x, z), wanted, rtol=1e-12, atol=1e-12)
    assert [Readout(CrossEntropy(3), kind, 8).state_width for kind in ("logits", "latents")] == [3, 8]


F32, I64 = torch.zeros(1, 2, 3), torch.zeros(1, 2, 1, dtype=torch.int64)
MAKE = {
    "network": lambda out: Network(3, out),
    "decoder": lambda out: Decoder(3, out),
    "readout": lambda out: Readout(out),
}


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
@pytest.mark.parametrize(
    ("out", "y", "said"),
    [
        (CrossEntropy(3), I64 + 3, r"class indices must lie in 0 \.\. 2; got 3: recode the labels"),
        (CrossEntropy(3), I64 - 1, r"class indices must lie in 0 \.\. 2; got -1"),
        (CrossEntropy(3), I64.float(), r"wants y as int64 class indices; got torch.float32: use y.long\(\)"),
        (SquaredError(), I64, "a regression wants y floating point of width 1; got torch.int64 of width 1"),
        (SquaredError(), torch.zeros(1, 2, 2), "of width 1; got torch.float32 of width 2"),
    ],
)
def test_what_cannot_be_scored_is_refused(make, out, y, said):
    with pytest.raises(ValueError, match=said):
        make(out).check(Batch(F32, y))


@pytest.mark.parametrize("kind", ["network", "decoder"])
def test_other_widths_are_refused(kind):
    with pytest.raises(ValueError, match=r"this learner wants x of shape \[tasks, rows, 3\]; got \(.*4\)"):
        MAKE[kind](CrossEntropy(3)).check(Batch(torch.zeros(1, 2, 4), I64))


@pytest.mark.parametrize("sizes", [(3,), (3, 0)])
def test_impossible_layouts_are_refused(sizes):
    with pytest.raises(ValueError, match="needs an input and an output width, each at least 1"):
        Layout(sizes)
