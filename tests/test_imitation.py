"""Memory imitation: its memory, its value predictor, and MAML at a share of nothing."""

import pytest
import torch

from gradatim.batch import Batch
from gradatim.families import LinearClassification, LinearRegression
from gradatim.methods import MAML, MemoryImitation
from gradatim.predictors import Imitation, SquaredError
from gradatim.testing import check_predictor, check_refiner
from gradatim.training.repeated import Repeated

SIZES = dict(support_rows=12, query_rows=6)
FAMILIES = {
    "regression": LinearRegression(3, 0.5, **SIZES),
    "classification": LinearClassification(3, 4, **SIZES),
}


def built(family, **options):
    torch.manual_seed(0)
    options = {"hidden": (5,), "rate": 0.2, "keys": 4, "width": 6, "kept_rows": 20, **options}
    return MemoryImitation(**options).build(family).double()


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize("kept_rows", [5, 20])
def test_it_keeps_the_laws(family, kept_rows):
    for share in (0.5, 1.0):
        check_refiner(built(family, kept_rows=kept_rows, share=share, encoder="tanh"), family)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_at_a_share_of_nothing_it_is_maml(family):
    task = family.sample(3, torch.Generator().manual_seed(0)).to(torch.float64)
    ours, maml = built(family, share=0.0), MAML(hidden=(5,), rate=0.2).build(family).double()
    with torch.no_grad():
        start = ours.refiner.maml.start
        start.copy_(torch.randn(start.shape, generator=torch.Generator().manual_seed(1), dtype=start.dtype))
        maml.refiner.start.copy_(start)
    losses = [Repeated(4, 4).loss(learner, task, torch.Generator()) for learner in (ours, maml)]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-12)
    one, other = (
        torch.autograd.grad(losses[0], ours.refiner.maml.start)[0],
        torch.autograd.grad(losses[1], maml.refiner.start)[0],
    )
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def test_what_is_remembered_is_the_locally_weighted_ridge_of_the_query():
    f = Imitation(3, SquaredError(1), keys=4, kept_rows=6, share=1.0).double()
    generator = torch.Generator().manual_seed(0)
    rows, y, x = (
        torch.randn(1, n, d, generator=generator, dtype=torch.float64) for n, d in ((6, 3), (6, 1), (5, 3))
    )
    present = torch.tensor([1.0, 1, 1, 1, 0, 0], dtype=torch.float64)[None, :, None]
    found = f.remembered(x, rows, y, present)
    keys, at = f.keys(rows)[0, :4], f.keys(x)[0]
    for q in range(5):
        near = (-(at[q] - keys).square().sum(1) / f.log_h.exp()).exp()
        gram = keys.T @ (near[:, None] * keys) + f.log_mu.exp() * torch.eye(5, dtype=torch.float64)
        head = torch.linalg.solve(gram, keys.T @ (near[:, None] * y[0, :4]))
        torch.testing.assert_close(found[0, q], at[q] @ head, rtol=1e-9, atol=1e-12)


def test_the_most_representative_rows_stay_in_turn_of_their_classes():
    """Two classes on a line with means 0 and 10; of each class the row nearest to its mean comes first."""
    learner = built(LinearClassification(1, 2, **SIZES), kept_rows=3, share=1.0)
    x = torch.tensor([-3.0, 1.0, 0.5, 1.5, 10.0, 11.0, 9.0, 0.0], dtype=torch.float64)[None, :, None]
    y = torch.tensor([0, 0, 0, 0, 1, 1, 1, 0])[None, :, None]
    state = learner.fit(Batch(x, y), 8)
    assert state.x[0, :2, 0].sort().values.tolist() == [0.0, 10.0]
    assert state.x[0, 2, 0].item() in (0.5, 9.0, 11.0)
    assert state.present[0].tolist() == [1.0, 1.0, 1.0]


def test_rows_that_come_again_are_remembered_once():
    family = FAMILIES["regression"]
    learner, task = built(family), family.sample(2, torch.Generator().manual_seed(0)).to(torch.float64)
    state = learner.fit(task.support, 5, passes=3)
    assert state.present.sum(1).tolist() == [12.0, 12.0]
    torch.testing.assert_close(state.x, learner.fit(task.support, 5).x)


def test_degenerate_supports_have_finite_answers():
    """One class, one row, and rows that are all alike."""
    classes, numbers = FAMILIES["classification"], FAMILIES["regression"]
    x = torch.randn(1, 4, 3, dtype=torch.float64)
    one_class = Batch(x, torch.full((1, 4, 1), 2))
    same = Batch(torch.ones(1, 4, 3, dtype=torch.float64), torch.ones(1, 4, 1, dtype=torch.float64))
    zero = Batch(torch.zeros(1, 4, 3, dtype=torch.float64), torch.ones(1, 4, 1, dtype=torch.float64))
    for family, rows in ((classes, one_class), (numbers, same), (numbers, same.slice(0, 1)), (numbers, zero)):
        learner = built(family, share=1.0)
        outputs = learner.predict(x, learner.fit(rows, 4))
        assert outputs.isfinite().all()
        if family is classes:
            assert (outputs.argmax(-1) == 2).all()


def test_predictor_laws():
    check_predictor(
        Imitation(FAMILIES["regression"].x_dim, SquaredError(1), (5,), "network", 4, 6, 7),
        FAMILIES["regression"],
    )


def test_bad_options_are_refused_with_a_sentence():
    family = FAMILIES["regression"]
    for options, said in (
        ({"share": 1.5}, "a share of 0 to 1; got kept_rows 20, share 1.5"),
        ({"kept_rows": 0}, "at least 1 place and a share of 0 to 1; got kept_rows 0"),
        ({"rate": 0.0}, "a rate is positive"),
        ({"keys": 0}, "an encoder needs sizes of at least 1"),
    ):
        with pytest.raises(ValueError, match=said):
            built(family, **options)
