"""Following a task that changes: parity with plain loops and other formulas, limits, changes found, what is refused."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_t

from gradatim.batch import Batch
from gradatim.families import LinearClassification, LinearRegression
from gradatim.learner import Learner
from gradatim.predictors import CrossEntropy, Network, SquaredError
from gradatim.refiners import Bank, Conjugate, Ridge, RunLength
from gradatim.signal import CLOSED_FORM
from gradatim.testing import check_refiner
from gradatim.testing.tools import assert_close
from gradatim.tree import flatten, select, tree_map, unflatten

WIDTH, SIZE = 3, 8


def conjugate(**changes):
    return Conjugate((WIDTH,), 1, [[1.0]], **changes).double()


def learner(refiner):
    return Learner(Network(WIDTH, SquaredError(), bias=False), refiner, CLOSED_FORM).double()


def stream(steps, tasks=2, change=None, seed=0, size=SIZE, noise=0.3, width=WIDTH):
    """Return mini-batches of a linear task, theta before and after `change` (a mini-batch; None: never)."""
    g = torch.Generator().manual_seed(seed)
    thetas = torch.randn(2, tasks, width, 1, generator=g, dtype=torch.float64)
    batches = []
    for t in range(steps):
        x = torch.randn(tasks, size, width, generator=g, dtype=torch.float64)
        clean = x @ thetas[int(change is not None and t >= change)]
        batches.append(Batch(x, clean + noise * torch.randn(clean.shape, generator=g, dtype=torch.float64)))
    return batches, thetas


def run(refiner, batches):
    with torch.no_grad():
        return list(learner(refiner).states(batches))


def ragged(batches):
    """Return the mini-batches; task 1 has no rows in the third, task 0 a hole in the second."""
    masks = [torch.ones_like(batch.weight) for batch in batches]
    masks[2][1] = masks[1][0, 3] = 0.0
    return [Batch._trusted(b.x, b.y * m[..., None], m) for b, m in zip(batches, masks, strict=True)]


def close(one, other, tolerance=1e-9):
    torch.testing.assert_close(torch.as_tensor(one), torch.as_tensor(other), rtol=tolerance, atol=tolerance)


# --- plain loops: each copy from its rows and their weights, evidence as the density of a multivariate t


def log_density(x, y, weights=None):
    """Return log p(y | x) with theta and the noise variance integrated out; a row of weight w counts w times."""
    weights = np.ones(len(x)) if weights is None else weights
    shape = scale = math.exp(-1)
    if (weights == 1).all():
        if not len(x):
            return 0.0
        cover = scale / shape * (np.eye(len(x)) + x @ x.T)
        return multivariate_t.logpdf(y, np.zeros(len(x)), cover, df=2 * shape)
    rows, gram, cross = weights.sum(), (x.T * weights) @ x, (x.T * weights) @ y
    left = (weights * y**2).sum() - cross @ np.linalg.solve(gram + np.eye(WIDTH), cross)
    determinant = np.linalg.slogdet(gram + np.eye(WIDTH))[1]
    return (
        math.lgamma(shape + rows / 2)
        - math.lgamma(shape)
        - (rows * math.log(2 * math.pi) + determinant) / 2
        + shape * math.log(scale)
        - (shape + rows / 2) * math.log(scale + left / 2)
    )


def solve(x, y, weights):
    return np.linalg.solve((x.T * weights) @ x + np.eye(WIDTH), (x.T * weights) @ y)


def rows_of(batches, task):
    """Return the present rows of a task, mini-batch by mini-batch, those without rows left out."""
    parts = [(b.x[task][b.mask[task]].numpy(), b.y[task][b.mask[task], 0].numpy()) for b in batches]
    return [part for part in parts if len(part[0])]


def test_a_weighted_density_of_unit_weights_is_the_multivariate_t():
    ((x, y), *_) = rows_of(stream(1)[0], 0)
    nearly = np.full(len(x), 1 - 1e-12)
    assert log_density(x, y, nearly) == pytest.approx(log_density(x, y), abs=1e-8)


@pytest.mark.parametrize("share", [0.0, 0.05])
def test_a_bank_weighs_by_prequential_likelihood(share):
    factors = (1.0, 0.97, 0.8)
    batches = ragged(stream(6, change=3)[0])
    refiner = Bank(conjugate(), factors, share)
    state = run(refiner, batches)[-1]
    for task in range(2):
        likely = np.ones(3) / 3
        x, y, ages = np.zeros((0, WIDTH)), np.zeros(0), np.zeros(0)
        for new_x, new_y in rows_of(batches, task):
            n = len(new_x)
            x, y = np.concatenate([x, new_x]), np.concatenate([y, new_y])
            ages = np.concatenate([ages + n, np.zeros(n)])
            for k, factor in enumerate(factors):
                with_new = factor**ages
                without = with_new[:-n]
                old = log_density(x[:-n], y[:-n], without)
                likely[k] *= math.exp(log_density(x, y, with_new) - old)
            likely = (1 - share) * likely / likely.sum() + share / 3
        close(state.log_weight[task].exp(), likely)
        theta = sum(w * solve(x, y, factor**ages) for w, factor in zip(likely, factors, strict=True))
        close(refiner.latent(state)[task], theta)


@pytest.mark.parametrize("hazard", [0.02, 0.4])
def test_run_length_is_the_loop_of_adams_and_mackay(hazard):
    batches = ragged(stream(7, change=4)[0])
    refiner = RunLength(conjugate(), hazard, limit=8)
    states = run(refiner, batches)[1:]
    for task in range(2):
        parts = rows_of(batches, task)
        joint = {}  # by the first mini-batch of the run: p(run, rows so far)
        for t in range(len(parts)):
            total = sum(joint.values())
            joint = {s: p * (1 - hazard) for s, p in joint.items()}
            joint[t] = hazard * total if t else 1.0
            for s in joint:
                x, y = (np.concatenate(part) for part in zip(*parts[s : t + 1], strict=True))
                seen = len(x) - len(parts[t][0])
                joint[s] *= math.exp(log_density(x, y) - log_density(x[:seen], y[:seen]))
        weights = np.array(list(joint.values())) / sum(joint.values())
        runs = [tuple(np.concatenate(part) for part in zip(*parts[s:], strict=True)) for s in joint]
        theta = sum(w * solve(x, y, np.ones(len(x))) for w, (x, y) in zip(weights, runs, strict=True))
        close(refiner.latent(states[-1])[task], theta)
        close(
            refiner.run_length(states[-1])[task],
            sum(w * len(x) for w, (x, _) in zip(weights, runs, strict=True)),
        )
        ours = sorted(states[-1].log_weight[task].exp().tolist())[-len(weights) :]
        close(torch.tensor(ours, dtype=torch.float64), np.array(sorted(weights)))


# --- limits in which they are simpler things


def test_a_bank_of_one_that_forgets_nothing_is_the_head_itself():
    batches = ragged(stream(5)[0])
    head, bank = conjugate(), Bank(conjugate(), (1.0,))
    for one, many in zip(run(head, batches), run(bank, batches), strict=True):
        assert torch.equal(head.latent(one), bank.latent(many))


def test_a_bank_of_one_factor_is_the_head_that_forgets():
    batches = ragged(stream(5)[0])
    head, bank = conjugate(forgetting=0.9), Bank(conjugate(), (0.9,), share=0.0)
    close(head.latent(run(head, batches)[-1]), bank.latent(run(bank, batches)[-1]), 1e-12)


def test_without_changes_a_tiny_hazard_is_the_head_itself():
    batches = stream(40)[0]
    head, follower = conjugate(), RunLength(conjugate(), 1e-9, limit=6)
    for one, many in zip(run(head, batches), run(follower, batches), strict=True):
        close(head.latent(one), follower.latent(many), 1e-8)  # hazard 1e-9 a mini-batch
    close(follower.run_length(many), torch.full((2,), 40.0 * SIZE, dtype=torch.float64), 1e-7)


def test_without_changes_a_larger_hazard_costs_little():
    batches, thetas = stream(60, tasks=8)
    head, follower = conjugate(), RunLength(conjugate(), 0.05, limit=6)
    errors = [
        (refiner.latent(run(refiner, batches)[-1]) - thetas[0, ..., 0]).square().sum(1).mean()
        for refiner in (head, follower)
    ]
    assert errors[1] < 2 * errors[0]


# --- a change


def test_one_abrupt_change_is_found_and_followed():
    tasks, change = 16, 30
    batches, thetas = stream(50, tasks, change)
    follower, head = RunLength(conjugate(), 0.02, limit=16), conjugate()
    states = run(follower, batches)
    lengths = torch.stack([follower.run_length(state) for state in states])
    assert (lengths[change] > 0.9 * SIZE * change).all(), "no change is seen where there is none"
    assert (lengths[change + 2] < 2.5 * SIZE).all(), "two mini-batches later the change is known"
    oracle = run(head, batches[change:])
    stuck = run(head, batches)

    def errors(refiner, some):
        return torch.stack([(refiner.latent(s) - thetas[1, ..., 0]).square().sum(1) for s in some]).mean()

    after = slice(change + 3, None)
    ours, best, never = (
        errors(follower, states[after]),
        errors(head, oracle[3:]),
        errors(head, stuck[after]),
    )
    assert ours < 1.1 * best
    assert ours < 0.01 * never


def test_a_bank_comes_back_after_a_change():
    batches, thetas = stream(50, 8, 30)
    bank, head = Bank(conjugate(), (1.0, 0.99, 0.95, 0.8)), conjugate()
    states = run(bank, batches)
    assert (states[30].log_weight.argmax(1) == 0).all(), "before the change nothing is worth forgetting"
    assert (states[33].log_weight.argmax(1) == 3).all(), "after it, everything is"
    ours, never = (
        (refiner.latent(run(refiner, batches)[-1]) - thetas[1, ..., 0]).square().sum(1).mean()
        for refiner in (bank, head)
    )
    assert ours < 0.05 * never


# --- what is kept


@pytest.mark.parametrize("limit", [2, 3, 5])
def test_no_more_copies_than_the_limit_are_kept_and_the_newest_is(limit):
    refiner = RunLength(conjugate(), 0.02, limit)
    states = run(refiner, stream(12, tasks=3, change=6)[0])
    for t, (before, after) in enumerate(pairwise(states), 1):
        assert after.moments.gram.shape == (3, limit, WIDTH, WIDTH)
        used = after.log_weight.isfinite()
        assert (used.sum(1) == min(t, limit)).all()
        close(after.log_weight.exp().sum(1), torch.ones(3, dtype=torch.float64), 1e-12)
        lengths = [rows[there].tolist() for rows, there in zip(after.moments.rows, used, strict=True)]
        assert all(SIZE in found for found in lengths), "the copy that begins here is kept"
        assert all(len(set(found)) == min(t, limit) for found in lengths), "each begins elsewhere"
        assert ((after.moments.rows <= t * SIZE) & (before.rows + SIZE == after.rows)[:, None]).all()


def test_the_least_probable_copy_goes():
    refiner = RunLength(conjugate(), 0.02, 3)
    whole = RunLength(conjugate(), 0.02, 4)
    batches = stream(4, change=2)[0]
    pruned, state = run(refiner, batches)[-1], run(whole, batches)[-1]
    for task in range(2):
        old = state.moments.rows[task] > SIZE
        least = state.log_weight[task].where(old, math.inf).argmin()
        kept = torch.arange(4) != least
        left = dict(zip(pruned.moments.rows[task].tolist(), pruned.log_weight[task], strict=True))
        wanted = state.log_weight[task][kept].log_softmax(0)
        for rows, log_weight in zip(state.moments.rows[task][kept].tolist(), wanted, strict=True):
            close(left[rows], log_weight)


FOLLOWERS = {
    "bank": lambda head: Bank(head, (1.0, 0.98, 0.9)),
    "bank-unshared": lambda head: Bank(head, (1.0, 0.9), share=0.0),
    "run-length": lambda head: RunLength(head, 0.05, limit=4),
    "run-length-long": lambda head: RunLength(head, 0.05, limit=40),
}
follows = pytest.mark.parametrize("make", FOLLOWERS.values(), ids=FOLLOWERS)


@follows
@pytest.mark.parametrize("classes", [None, 3])
def test_they_keep_the_laws(make, classes):
    sizes = dict(support_rows=15, query_rows=6)
    family = LinearClassification(3, classes, **sizes) if classes else LinearRegression(3, 0.5, **sizes)
    out = CrossEntropy(classes) if classes else SquaredError()
    head = Conjugate((3, 1), classes or 1, [[1.0, 4.0], [9.0, 0.1]], classes=bool(classes))
    check_refiner(Learner(Network(3, out), make(head), CLOSED_FORM), family)


def test_the_laws_compare_weights_of_nothing():
    one = torch.tensor([0.0, -torch.inf])
    assert_close("a law", {"w": one}, {"w": one.clone()}, 1e-9)
    for other in (
        torch.tensor([0.0, -1e9]),
        torch.tensor([0.0, torch.inf]),
        torch.tensor([1e-8, -torch.inf]),
    ):
        with pytest.raises(AssertionError, match="a law; but w differs"):
            assert_close("a law", {"w": one}, {"w": other}, 1e-9)
        with pytest.raises(AssertionError, match="a law; but w differs"):
            assert_close("a law", {"w": other}, {"w": one}, 1e-9)
    with pytest.raises(AssertionError, match="w differs by nan"):
        assert_close("a law", {"w": torch.tensor([torch.nan])}, {"w": torch.tensor([torch.nan])}, 1e-9)


@follows
def test_a_task_without_rows_stays_while_others_move(make):
    batches = ragged(stream(4)[0])
    refiner = make(conjugate())
    states = run(refiner, batches)
    for task, moved in ((0, True), (1, False)):
        before, after = (flatten(select(state, torch.tensor([task]))) for state in states[2:4])
        assert moved != all(torch.equal(before[name], after[name]) for name in before)


@follows
def test_tasks_do_not_see_each_other_and_rows_have_no_order(make):
    batches = ragged(stream(8, tasks=3, change=4)[0])
    refiner = make(conjugate())
    states = run(refiner, batches)
    order = torch.tensor([5, 2, 0, 7, 1, 3, 4, 6])
    turned = [Batch._trusted(b.x[:, order], b.y[:, order], b.weight[:, order]) for b in batches]
    for one, other in zip(states, run(refiner, turned), strict=True):
        tree_map(close, one, other)
    for task in torch.arange(3).split(1):
        alone = run(refiner, [batch.tasks(task) for batch in batches])
        for one, other in zip(states, alone, strict=True):
            tree_map(close, select(one, task), other)


@follows
def test_a_state_taken_apart_and_put_together_goes_on_bit_for_bit(make):
    batches = stream(9, change=4)[0]
    refiner = make(conjugate())
    states = run(refiner, batches)
    tensors = {name: part.numpy().copy() for name, part in flatten(states[5]).items()}
    state = unflatten(refiner.init(1), {name: torch.from_numpy(part) for name, part in tensors.items()})
    with torch.no_grad():
        for batch, wanted in zip(batches[5:], states[6:], strict=True):
            state = learner(refiner).step(state, batch)
            assert all(map(torch.equal, flatten(state).values(), flatten(wanted).values()))


@follows
def test_what_the_head_learns_is_learnt_through_them(make):
    head = conjugate(learnt=True)
    follower = learner(make(head))
    assert follower.refiner.capabilities.learnt
    assert not follower.refiner.capabilities.greedy
    batches = ragged(stream(5, change=2)[0])
    *_, state = follower.states(batches, differentiable=True)
    follower.loss(batches[-1], state).mean().backward()
    for parameter in (head.log_precision, head.log_noise):
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
        assert parameter.grad.abs().max() > 0


# --- what is refused


@follows
def test_they_say_what_they_can_and_do_not_merge(make):
    refiner = make(conjugate())
    assert refiner.capabilities.discounts
    assert not refiner.capabilities.merge
    assert not refiner.capabilities.learnt
    state = run(refiner, stream(2)[0])[-1]
    with pytest.raises(ValueError, match=r"do not merge: they forget, so they depend on the order of rows"):
        learner(refiner).merge([state, state])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Bank(conjugate(), (1.0, 0.0)), r"factors in \(0, 1\], .*got \[1.0, 0.0\]: 0.99"),
        (lambda: Bank(conjugate(), (1.1,)), r"got \[1.1\]"),
        (lambda: Bank(conjugate(), ()), r"got \[\]"),
        (lambda: Bank(conjugate(), (0.9,), share=1.0), r"lies in \[0, 1\); got 1.0: with 0 a copy"),
        (lambda: RunLength(conjugate(), 0.0), r"in \(0, 1\); got 0.0: take 1 over"),
        (lambda: RunLength(conjugate(), 1.0), r"got 1.0"),
        (lambda: RunLength(conjugate(), float("nan")), r"got nan"),
        (lambda: RunLength(conjugate(), 0.1, limit=1), r"at least 2 copies, .*got limit=1: take 32"),
        (
            lambda: Bank(conjugate(forgetting=0.9), (1.0,)),
            r"forgets nothing; got one with forgetting=0.9: leave",
        ),
        (lambda: RunLength(conjugate(forgetting=0.9), 0.1), r"forgets nothing; got one with forgetting=0.9"),
        (lambda: RunLength(Ridge(3, 1, 1.0), 0.1), r"needs a Conjugate; got Ridge: wrap"),
    ],
)
def test_misfits_are_refused_with_a_sentence(make, said):
    with pytest.raises(ValueError, match=said):
        make()
