"""Hidden sequences: the oracle is the enumerated posterior, a linear predictor holds it, and a learner nears it."""

from itertools import product

import pytest
import torch

from gradatim import TrainConfig, Unrolled, build, train
from gradatim.families import LatentSequences


def test_the_oracle_is_the_posterior_enumerated() -> None:
    family = LatentSequences(support_rows=7, length=3, symbols=3, min_support_rows=2)
    task = family.sample(5, torch.Generator().manual_seed(0))
    every = torch.tensor(list(product(range(3), repeat=3)))
    chain = torch.full((3, 3), (1 - family.stay) / 3) + family.stay * torch.eye(3)
    place = task.support.x[..., :3].argmax(-1)
    assert task.target is not None
    for b in range(5):
        joint = chain[every[:, 0], every[:, 1]] * chain[every[:, 1], every[:, 2]] / 3
        for n in range(7):
            same = every[:, place[b, n]] == task.support.y[b, n, 0]
            said = family.clear * same + (1 - family.clear) / 3
            joint = joint * (said if bool(task.support.mask[b, n]) else 1)
        known = task.target[b]
        for i in range(3):
            fits = (every[:, :i] == known[:i]).all(1)
            mass = torch.stack([joint[fits & (every[:, i] == a)].sum() for a in range(3)])
            torch.testing.assert_close(family.oracle(task)[b, i].exp(), mass / mass.sum())


def test_truth_is_the_oracle_and_fewer_rows_say_less() -> None:
    family = LatentSequences()
    task = family.sample(400, torch.Generator().manual_seed(1))
    assert task.truth is not None and torch.equal(task.truth, family.oracle(task))
    losses = [family.likelihood.row_loss(family.oracle(task, n), task.query.y).mean() for n in (0, 8, 32)]
    assert losses[0] > losses[1] > losses[2]


def test_what_cannot_be_is_finite() -> None:
    task = LatentSequences(stay=1.0, clear=1.0).sample(2, torch.Generator().manual_seed(0))
    assert task.truth is not None
    torch.testing.assert_close(task.truth.argmax(-1), task.target)


@pytest.mark.parametrize("wrong", [{"length": 0}, {"symbols": 1}, {"stay": 1.5}, {"clear": -0.1}])
def test_impossible_fields_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LatentSequences(**wrong)  # type: ignore[arg-type]


def test_a_learner_nears_the_oracle_step_by_step() -> None:
    family = LatentSequences(support_rows=32)
    learner = build("parametric-both", family)
    task = family.sample(128, torch.Generator().manual_seed(10**6))

    def regret(rows: int) -> float:
        with torch.no_grad():
            outputs = learner.predict(task.query.x, learner.fit(task.support.slice(0, rows), 8))
        losses = [
            family.likelihood.row_loss(said, task.query.y).mean()
            for said in (outputs, family.oracle(task, rows))
        ]
        return float(losses[0] - losses[1])

    before = regret(32)
    config = TrainConfig(iterations=150, tasks=16, lr=3e-3, warmup=10)
    train(learner, family, Unrolled(batch_size=8, horizon=2), config, progress=False)
    learner.eval()
    assert regret(32) < 0.5 * before
