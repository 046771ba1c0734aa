"""Sub-trajectory balance: zero exactly at the posterior of an enumerated tree; its gradient leads there."""

from itertools import product

import pytest
import torch
from torch import Tensor

from gradatim.language.replay import Replay, edits, near
from gradatim.language.subtb import subtb_loss

SYMBOLS, DEPTH = 3, 3


def tree(seed: int) -> tuple[dict[tuple[int, ...], float], dict[tuple[int, ...], float]]:
    """Return random rewards of all sequences of up to DEPTH symbols, and of each prefix what lies below it."""
    generator = torch.Generator().manual_seed(seed)
    every = [z for n in range(DEPTH + 1) for z in product(range(SYMBOLS), repeat=n)]
    reward = {z: float(torch.rand((), generator=generator)) + 0.05 for z in every}
    flow = {z: sum(reward[s] for s in every if s[: len(z)] == z) for z in every}
    return reward, flow


def of_posterior(
    rows: list[tuple[int, ...]], seed: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return log q, log of stopping, log R and lengths of sequences, for the sampler that is the posterior."""
    reward, flow = tree(seed)
    log_q, log_stop, log_reward = (
        torch.full((len(rows), width), 7.0, dtype=dtype) for width in (DEPTH, DEPTH + 1, DEPTH + 1)
    )
    for place, z in enumerate(rows):
        for n in range(len(z) + 1):
            log_stop[place, n] = torch.tensor(reward[z[:n]] / flow[z[:n]], dtype=dtype).log()
            log_reward[place, n] = torch.tensor(reward[z[:n]], dtype=dtype).log()
            if n < len(z):
                log_q[place, n] = torch.tensor(flow[z[: n + 1]] / flow[z[:n]], dtype=dtype).log()
    return log_q, log_stop, log_reward, torch.tensor([len(z) for z in rows])


EVERY = [z for n in range(DEPTH + 1) for z in product(range(SYMBOLS), repeat=n)]


@pytest.mark.parametrize("decay", [1.0, 0.5])
def test_the_loss_is_zero_at_the_posterior_and_nowhere_near(decay: float) -> None:
    log_q, log_stop, log_reward, lengths = of_posterior(EVERY, 0, torch.float64)
    assert float(subtb_loss(log_q, log_stop, log_reward, lengths, decay)) < 1e-25
    # a factor of all rewards is no matter
    assert float(subtb_loss(log_q, log_stop, log_reward + 3, lengths, decay)) < 1e-25
    for part in (log_q, log_stop, log_reward):
        part[EVERY.index((1, 2))] += 0.1 * torch.arange(part.shape[1])
        assert float(subtb_loss(log_q, log_stop, log_reward, lengths, decay)) > 1e-5
        part[EVERY.index((1, 2))] -= 0.1 * torch.arange(part.shape[1])


def test_a_table_trained_by_it_becomes_the_posterior() -> None:
    reward, flow = tree(1)
    inner = [z for z in EVERY if len(z) < DEPTH]
    logits = {z: torch.zeros(SYMBOLS + 1, dtype=torch.float64, requires_grad=True) for z in inner}
    optimizer = torch.optim.Adam(logits.values(), 0.1)
    _, _, log_reward, lengths = of_posterior(EVERY, 1, torch.float64)
    zero = torch.zeros((), dtype=torch.float64)
    for _ in range(300):
        log = {z: value.log_softmax(0) for z, value in logits.items()}
        rows = [[log[z[:n]][z[n]] if n < len(z) else zero for n in range(DEPTH)] for z in EVERY]
        stops = [
            [log[z[:n]][-1] if n <= len(z) and n < DEPTH else zero for n in range(DEPTH + 1)] for z in EVERY
        ]
        loss = subtb_loss(
            torch.stack([torch.stack(row) for row in rows]),
            torch.stack([torch.stack(row) for row in stops]),
            log_reward,
            lengths,
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for z in inner:
        found = logits[z].softmax(0)
        wanted = [*(flow[(*z, s)] / flow[z] for s in range(SYMBOLS)), reward[z] / flow[z]]
        torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), atol=1e-3, rtol=0)


def test_gradients_are_those_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    parts = [
        torch.randn(4, width, generator=generator, dtype=torch.float64, requires_grad=True)
        for width in (3, 4, 4)
    ]
    lengths = torch.tensor([0, 1, 2, 3])
    assert torch.autograd.gradcheck(lambda q, s, r: subtb_loss(q, s, r, lengths, 0.7), parts)


def test_what_lies_behind_the_end_counts_for_nothing() -> None:
    log_q, log_stop, log_reward, lengths = (
        part.clone() for part in of_posterior([(0, 1), (2,)], 0, torch.float64)
    )
    log_q[1, 1:], log_stop[:, 3:], log_reward[1, 2:] = -torch.inf, -torch.inf, -torch.inf
    log_q.requires_grad_(True)
    loss = subtb_loss(log_q, log_stop, log_reward, lengths)
    assert float(loss.detach()) < 1e-25
    loss.backward()
    assert log_q.grad is not None and bool(log_q.grad.isfinite().all())


def test_sequences_that_stop_at_once_have_no_loss() -> None:
    assert subtb_loss(torch.randn(2, 3), torch.randn(2, 4), torch.randn(2, 4), torch.tensor([0, 0])) == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"log_stop": torch.zeros(2, 3)}, "log_stop has one number for each prefix"),
        ({"log_reward": torch.zeros(3, 4)}, "log_reward has one number for each prefix"),
        ({"log_q": torch.zeros(3)}, "one number for each token"),
        ({"lengths": torch.tensor([1])}, "one number for each of 2 sequences"),
        ({"lengths": torch.tensor([1, 4])}, r"lie in 0 \.\. 3"),
        ({"decay": 0.0}, "decay must be above 0"),
    ],
)
def test_wrong_shapes_are_refused(change: dict[str, object], words: str) -> None:
    right = {
        "log_q": torch.zeros(2, 3),
        "log_stop": torch.zeros(2, 4),
        "log_reward": torch.zeros(2, 4),
        "lengths": torch.tensor([1, 2]),
    }
    with pytest.raises(ValueError, match=words):
        subtb_loss(**(right | change))  # type: ignore[arg-type]


def test_replay_keeps_the_better_of_near_duplicates() -> None:
    replay = Replay(size=3)
    assert replay.add([1, 2, 3, 4], -2.0)
    assert not replay.add([1, 2, 3, 5], -2.5)  # one edit of eight tokens, and worse
    assert replay.add([1, 2, 3, 6], -1.0)  # near too, and better: it takes the place
    assert replay.rows == [[1, 2, 3, 6]]
    assert not replay.add([1, 2, 3, 6], -1.0)
    assert replay.add([7, 8, 9], -3.0) and replay.add([5, 5], -4.0)
    assert not replay.add([9, 9, 9, 9], -5.0)  # it is full of better ones
    assert replay.add([], 0.0)
    assert replay.rows == [[], [1, 2, 3, 6], [7, 8, 9]]
    drawn = replay.draw(50, torch.Generator().manual_seed(0))
    assert {tuple(row) for row in drawn} == {(), (1, 2, 3, 6), (7, 8, 9)}


def test_an_empty_replay_says_so() -> None:
    with pytest.raises(ValueError, match="nothing is kept yet"):
        Replay().draw(1, torch.Generator())


@pytest.mark.parametrize(
    ("one", "other", "distance"), [([], [], 0), ([1], [], 1), ([1, 2, 3], [1, 3], 1), ([1, 2], [2, 1], 2)]
)
def test_edits_are_counted(one: list[int], other: list[int], distance: int) -> None:
    assert edits(one, other) == edits(other, one) == distance
    assert near(one, other) == (distance == 0 or distance < 0.25 * (len(one) + len(other)))
