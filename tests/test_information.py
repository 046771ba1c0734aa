"""Information maximization: the penalty's numbers and gradients, on one batch and on many."""

import math

import pytest
import torch

from gradatim.regularizers.information import information_loss

LOGITS = torch.tensor(
    [[2.0, -1.0, 0.5], [0.0, 0.3, -2.0], [1.0, 1.0, 1.0], [-3.0, 0.0, 4.0]], dtype=torch.float64
)


def entropy(p):
    return -(p * p.log()).sum(-1)


def test_the_three_kinds_are_the_formulas():
    p = LOGITS.softmax(-1)
    marginal, sure = entropy(p.mean(0)), entropy(p).mean()
    torch.testing.assert_close(information_loss(LOGITS), -marginal)
    torch.testing.assert_close(information_loss(LOGITS, kind="entropy"), sure)
    torch.testing.assert_close(information_loss(LOGITS, kind="full", weight=2.0), 2 * (sure - marginal))


def test_bounds():
    even = torch.zeros(4, 5)
    assert float(information_loss(even)) == pytest.approx(-math.log(5), abs=1e-6)
    assert float(information_loss(even, kind="full")) == pytest.approx(0, abs=1e-6)
    sharp = 100 * torch.eye(5)
    assert float(information_loss(sharp, kind="full")) == pytest.approx(-math.log(5), abs=1e-6)
    assert float(information_loss(torch.randn(3, 1))) == 0  # one class: nothing to spread


@pytest.mark.parametrize("kind", ["marginal", "full", "entropy"])
def test_gradients_agree_with_differences_and_extreme_logits_are_finite(kind):
    assert torch.autograd.gradcheck(lambda z: information_loss(z, kind=kind), LOGITS.clone().requires_grad_())
    far = torch.tensor([[1e4, 0.0], [1e4, -1e4]], requires_grad=True)
    loss = information_loss(far, kind=kind)
    (slope,) = torch.autograd.grad(loss, far)
    assert bool(torch.isfinite(loss)) and bool(torch.isfinite(slope).all())


def test_only_classes_seen_count_and_batches_are_apart():
    wanted = information_loss(LOGITS[:, [0, 2]])
    for seen in ([2, 0], torch.tensor([True, False, True])):
        torch.testing.assert_close(information_loss(LOGITS, seen), wanted)
    both = torch.stack([LOGITS, -LOGITS])
    weight = torch.tensor([1.0, 3.0], dtype=torch.float64)
    torch.testing.assert_close(
        information_loss(both, weight=weight),
        torch.stack([information_loss(LOGITS), 3 * information_loss(-LOGITS)]),
    )


@pytest.mark.parametrize(
    ("logits", "seen", "kind", "words"),
    [
        (torch.zeros(3), None, "marginal", "logits must be"),
        (torch.zeros(0, 3), None, "marginal", "logits must be"),
        (torch.zeros(2, 3), None, "margin", "kind must be one of"),
        (torch.zeros(2, 3), [], "full", "seen must be"),
        (torch.zeros(2, 3), [3], "full", "seen must be"),
        (torch.zeros(2, 3), [-1], "full", "seen must be"),
        (torch.zeros(2, 3), [False, False, False], "full", "seen must be"),
    ],
)
def test_bad_input_is_one_sentence(logits, seen, kind, words):
    with pytest.raises(ValueError, match=words):
        information_loss(logits, seen, kind)
