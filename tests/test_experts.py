"""Experts on shared moments: closed forms, likelihoods of rows before they are learnt, rows left out, mixtures."""

import copy
import pickle

import numpy as np
import pytest
import torch
from scipy import stats

from gradatim.batch import Batch
from gradatim.learner import Learner
from gradatim.nn.carry import Change, carry_matrix
from gradatim.nn.fixed_features import FILLED, FixedFeatures, widths
from gradatim.nn.landmarks import MIXED, choose_landmarks
from gradatim.nn.mixture import SHARPNESS, TAILS, class_probabilities, cumulative, log_density
from gradatim.predictors import Committee, CrossEntropy, SquaredError
from gradatim.refiners import Experts
from gradatim.refiners.base_rates import base_rates
from gradatim.refiners.experts import LATE, STRENGTHS, STRONGER, VIEWS
from gradatim.refiners.foresight import class_log_likelihood
from gradatim.refiners.heads import FEW, ROUNDING, solve_heads
from gradatim.refiners.schedule import GROWTH, LEAST
from gradatim.refiners.stacking import KNOWN, residual_products, stacked
from gradatim.signal import PLAIN, StepInput

STEPS = [(0, -0.5), (1, 0.0), (2, 0.5)]


def learner(classes=None, landmarks=5):
    points = torch.randn(landmarks, 3, generator=torch.Generator().manual_seed(7))
    features = FixedFeatures.draw(points, 4, STEPS, ramps=6)
    likelihood = SquaredError(1) if classes is None else CrossEntropy(classes)
    refiner = Experts(features, classes or 1, classes is not None)
    return Learner(Committee(features, likelihood, refiner.count), refiner, PLAIN).double()


def solved(made, state):
    """Return the state with all rows learnt and all heads solved."""
    return made.refiner.solve(made.refiner.settle(state))


def learnt_unscored(made, batch):
    """Return the state with rows learnt, none scored, so that no expert is behind, and all heads solved."""
    return solved(made, made.refiner.step(made.init(batch.n_tasks), StepInput(batch.rows, batch)))


def rows(n, classes=None, tasks=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(tasks, n, 3, generator=generator, dtype=torch.float64)
    signal = (
        x[..., :1]
        + x[..., 1:2].abs()
        + 0.3 * torch.randn(tasks, n, 1, generator=generator, dtype=torch.float64)
    )
    return Batch(
        x, signal if classes is None else (signal > 0.5).long() + (signal > 1.5).long() * (classes > 2)
    )


def codes_of(y, classes):
    return torch.nn.functional.one_hot(y[..., 0], classes).double() if classes else y


def seen(blocks, view):
    ends = np.cumsum([0, *blocks])
    return np.concatenate([np.arange(ends[b], ends[b + 1]) for b in view])


def heads(phi, codes, view, strength, blocks):
    """Return the ridge of features and codes less their means."""
    kept = seen(blocks, view)
    a = phi[:, kept]
    theta = np.zeros((phi.shape[1], codes.shape[1]))
    ridge = np.full(len(kept), strength)
    ridge[blocks[0] - 1] = 0.0
    theta[kept] = np.linalg.solve(a.T @ a + np.diag(ridge + ROUNDING * (a**2).sum(0)), a.T @ codes)
    return theta


@pytest.mark.parametrize("classes", [None, 3])
def test_every_head_is_the_ridge_of_its_view(classes):
    made, batch = learner(classes), rows(60, classes)
    state = learnt_unscored(made, batch)
    phi = made.predictor.features(batch.x)[0].numpy()
    codes = codes_of(batch.y, classes)[0].numpy()
    pairs = [*((view, strength) for view in VIEWS for strength in STRENGTHS), *(((0,), s) for s in STRONGER)]
    assert made.refiner.count == len(pairs)
    for at, (view, strength) in enumerate(pairs):
        want = heads(phi, codes, view, strength, made.refiner.blocks)
        np.testing.assert_allclose(state.theta[0, at].numpy(), want, atol=1e-9)
    constant = torch.zeros_like(state.theta[0, -1])
    constant[3] = torch.from_numpy(codes.mean(0))
    torch.testing.assert_close(state.theta[0, -1], constant, rtol=1e-5, atol=1e-5)
    if not classes:  # y that is moved moves what all say by as much
        moved = learnt_unscored(made, Batch(batch.x, batch.y + 5)).theta[0] - state.theta[0]
        want = torch.zeros_like(moved)
        want[:, 3] = 5
        torch.testing.assert_close(moved, want, rtol=0, atol=5e-3)  # but for `ROUNDING`


def test_features_are_x_one_nearness_products_steps_and_ramps():
    f, x = learner().predictor.features, rows(7).x
    phi = f(x)
    assert f.blocks == (4, 5, 4, 3, 6)
    assert torch.equal(phi[..., :3], x)
    assert bool((phi[..., 3] == 1).all())
    landmarks = f.draws.landmarks.double()
    size = landmarks.var(0, correction=0).sum()
    near = (-torch.cdist(landmarks, landmarks).square() / size).exp()
    want = (-torch.cdist(x, landmarks).square() / size).exp() / near.square().mean(0).sqrt()
    torch.testing.assert_close(phi[..., 4:9], want, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(phi[..., 9:13], x[..., f.pairs[0]] * x[..., f.pairs[1]] / 2)
    torch.testing.assert_close(phi[..., 13], (x[..., 0] > -0.5).double() / 2)
    torch.testing.assert_close(phi[..., 16:], (x @ f.direction + f.bias).clamp(min=0))


def test_ramps_are_of_one_size_whatever_the_scale_of_x():
    landmarks = 0.01 * torch.randn(400, 5, generator=torch.Generator().manual_seed(0))
    f = FixedFeatures.draw(landmarks, ramps=3000).double()
    x = landmarks.double()
    assert float((x @ f.direction).var()) == pytest.approx(1, abs=0.05)
    assert float(f.bias.var()) == pytest.approx(0.25, abs=0.02)
    alone = FixedFeatures.draw(landmarks[:1], ramps=3000)
    assert float(alone.direction.var()) == pytest.approx(1 / 5, abs=0.01)


def test_products_that_say_nothing_come_last():
    kind = torch.randint(3, (60,), generator=torch.Generator().manual_seed(0))
    codes = torch.nn.functional.one_hot(kind, 4).double()  # no row has the last
    number = torch.randn(60, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = torch.cat([codes, number], dim=1)
    useful = {(0, 4), (1, 4), (2, 4), (4, 4)}
    for seed in range(5):
        pairs = FixedFeatures.draw(x, 4, seed=seed).pairs
        assert {(int(i), int(j)) for i, j in pairs.mT} == useful
        assert FixedFeatures.draw(x, 99, seed=seed).pairs.shape[1] == 15


@pytest.mark.parametrize("products", [2, 3, 6])
def test_scores_are_those_of_the_features_whichever_way_they_are_made(products):
    f = FixedFeatures.draw(torch.randn(5, 3), products, STEPS, ramps=4).double()
    x = rows(9).x
    theta = torch.randn(1, 2, sum(f.blocks), 2, dtype=torch.float64)
    torch.testing.assert_close(f.scores(x, theta), torch.einsum("bnd,bedc->bnec", f(x), theta))


def test_thresholds_are_kept_to_the_last_bit_whatever_their_order():
    steps = [(1, 0.1), (0, 0.3), (1, -0.2)]
    f = FixedFeatures.draw(torch.zeros(0, 2, dtype=torch.float64), 0, steps).double()
    x = torch.tensor([[[0.3, 0.1], [np.nextafter(0.3, 1), np.nextafter(0.1, 1)]]], dtype=torch.float64)
    want = torch.tensor([[[0, 0, 0.5], [0.5, 0.5, 0.5]]], dtype=torch.float64)
    assert torch.equal(f(x)[..., 3:], want)
    theta = torch.randn(1, 2, f(x).shape[2], 2, dtype=torch.float64)
    torch.testing.assert_close(f.scores(x, theta), torch.einsum("bnd,bedc->bnec", f(x), theta))


def test_rows_are_scored_before_they_are_learnt():
    """Against a loop over rows, whose heads are solved before the first row at which rows have grown enough."""
    made, batch = learner(3), rows(48, 3)
    refiner, state, want, solved_after = made.refiner, made.init(), 0, 0
    for n in range(48):
        if n > max((1 + GROWTH) * solved_after, solved_after + LEAST - 1):
            state, solved_after = refiner.solve(refiner.settle(state)), n
        part = batch.slice(n, n + 1)
        scores = torch.einsum("bnd,bedc->bnec", made.predictor.features(part.x), state.theta)
        which = part.y[..., None, None, :].expand(-1, -1, *scores.shape[2:3], len(SHARPNESS), 1)
        want = want + class_probabilities(scores).gather(-1, which)[..., 0].log().sum(1)
        state = refiner.settle(refiner.step(state, StepInput(part.rows, part)))
    for size in (1, 7, 16, 48):
        settled = refiner.settle(made.adapt(batch, size))
        torch.testing.assert_close(settled.log_likelihood, want)
        assert float(settled.solved) == solved_after
    first = refiner.settle(made.adapt(batch.slice(0, 16), 16)).log_likelihood
    torch.testing.assert_close(first, torch.full_like(first, -16 * np.log(3)))


@pytest.mark.parametrize("sizes", [[1] * 12, [700, 700], [32] * 40])
def test_rows_that_wait_make_no_difference(sizes):
    """Against a pass that scores and adds every mini-batch at once."""
    made, start = learner(3), 0
    batch = rows(sum(sizes), 3)
    waiting = at_once = made.init()
    for size in sizes:
        part = batch.slice(start, start + size)
        waiting, at_once = made.step(waiting, part), made.refiner.settle(made.step(at_once, part))
        assert waiting.pending.rows < LATE + size and not at_once.pending.rows
        start += size
    settled = made.refiner.settle(waiting)
    torch.testing.assert_close(settled.log_likelihood, at_once.log_likelihood)
    torch.testing.assert_close(settled.moments, at_once.moments)
    torch.testing.assert_close(settled.theta, at_once.theta)
    torch.testing.assert_close(made.refiner.latent(waiting), made.refiner.latent(at_once))


def test_scoring_and_learning_are_apart():
    made, batch = learner(3), rows(63, 3)
    first, second = batch.slice(0, 50), batch.slice(50, 63)  # no heads are solved within the second
    refiner, seen = made.refiner, lambda batch: StepInput(batch.rows, batch)
    state = made.step(made.init(), first)
    scored, learnt = refiner.score(state, seen(second)), refiner.step(state, seen(second))
    before, scored, learnt = (refiner.settle(part) for part in (state, scored, learnt))
    torch.testing.assert_close(scored.moments.gram, before.moments.gram)
    torch.testing.assert_close(learnt.log_likelihood, before.log_likelihood)
    both = refiner.settle(made.step(state, second))
    torch.testing.assert_close(both.log_likelihood, scored.log_likelihood)
    torch.testing.assert_close(both.moments, learnt.moments)


def test_a_fitted_table_is_learnt_whole_and_scored_with_each_row_left_out():
    made, batch = learner(3), rows(90, 3)
    state = made.fit(batch, 20)
    seen = StepInput(batch.rows, batch)
    learnt = made.refiner.step(made.init(), seen)
    torch.testing.assert_close(
        state.log_likelihood, made.refiner.score(learnt, seen, learnt=True).log_likelihood
    )
    torch.testing.assert_close(state.theta, solved(made, learnt).theta)
    with pytest.raises(ValueError, match="every row once"):
        made.fit(batch, 20, passes=2)


@pytest.mark.parametrize("classes", [None, 3])
def test_a_packed_state_goes_on_to_the_last_bit(classes):
    made, batch = learner(classes), rows(900, classes)
    state, tensors = made.refiner.pack(made.adapt(batch.slice(0, 600), 20))
    assert tensors["gram"].dtype == torch.float64
    restored, further = made.refiner.unpack(tensors), batch.slice(600, 900)
    for before, after in ((state, restored), (made.step(state, further), made.step(restored, further))):
        assert torch.equal(made.predict(batch.x, after), made.predict(batch.x, before))
    with pytest.raises(ValueError, match="'gram'"):
        made.refiner.unpack({name: part for name, part in tensors.items() if name != "gram"})
    with pytest.raises(ValueError, match="'alive'"):
        made.refiner.unpack(tensors | {"alive": torch.tensor([99])})


def test_an_affine_change_of_inputs_is_carried_exactly():
    """Sums over rows under the new inputs, against those carried over."""
    features = FixedFeatures.draw(torch.randn(0, 3).double(), 6)
    made = Experts(features, 1).double()
    batch, change = (
        rows(60),
        Change(torch.tensor([2, 0, 1]), torch.tensor([2.0, 0.5, -1.0]), torch.tensor([0.3, 0.0, 1.0]), 3),
    )
    x = torch.empty_like(batch.x)
    x[..., change.place] = change.scale * batch.x + change.shift
    old = made.settle(made.step(made.init(1), StepInput(batch.rows, batch)))
    new = made.settle(made.step(made.init(1), StepInput(batch.rows, Batch(x, batch.y))))
    matrix = carry_matrix(features, features, change, same_draws=False)
    torch.testing.assert_close(made.carry(old, matrix).moments, new.moments)
    scaled = made.settle(made.step(made.init(1), StepInput(batch.rows, Batch(batch.x, 3 * batch.y - 2))))
    torch.testing.assert_close(made.rescale(old, 3.0, -2.0).moments, scaled.moments)


def test_a_wider_map_predicts_the_same():
    made, batch = learner(), rows(60)
    state, draws = made.adapt(batch, 20), made.predictor.features.draws
    place = torch.tensor([3, 0, 2])
    change = Change(place, torch.ones(3), torch.zeros(3), 4)
    features = FixedFeatures(draws.widened(place, 4))
    refiner = Experts(features, 1)
    wider = Learner(Committee(features, SquaredError(1), refiner.count), refiner, PLAIN).double()
    matrix = carry_matrix(made.refiner.features, refiner.features, change, same_draws=True)
    carried = wider.refiner.carry(made.refiner.settle(state), matrix)
    x = torch.zeros(1, 60, 4, dtype=torch.float64)
    x[..., place] = batch.x
    torch.testing.assert_close(wider.predict(x, carried), made.predict(batch.x, state))
    torch.testing.assert_close(carried.theta.square().sum(), made.refiner.settle(state).theta.square().sum())


def test_the_map_is_in_the_file_of_weights_once_and_moves_with_the_learner():
    made = learner(3)
    assert not any(name.startswith("refiner.features") for name in made.state_dict())
    for other in (copy.deepcopy(made), pickle.loads(pickle.dumps(made)), made.float()):
        assert other.refiner.features is other.predictor.features
    assert made.refiner.features.slope.dtype == torch.float32


def test_landmarks_are_the_same_in_whatever_order_and_nobodys_row():
    x = np.random.default_rng(0).normal(size=(5000, 3))
    landmarks = choose_landmarks(x, 20, seed=1)
    assert landmarks.shape == (20, 3) and landmarks.dtype == np.float32
    np.testing.assert_array_equal(choose_landmarks(np.concatenate([x[2500:], x]), 20, seed=1), landmarks)
    assert not np.array_equal(choose_landmarks(x, 20, seed=2), landmarks)
    assert np.abs(landmarks[:, None] - x).max(2).min() > 1e-3
    spread = np.sqrt(choose_landmarks(x, 1000, seed=1).var(0).sum() / x.var(0).sum())
    assert spread == pytest.approx(1, abs=0.05)
    # of fewer rows than a landmark is a mean of there are none; equal rows are one row
    assert len(choose_landmarks(np.repeat(x[: MIXED - 1], 9, axis=0), 20, seed=1)) == 0


@pytest.mark.parametrize("classes", [None, 2])
def test_leaving_a_row_out_is_learning_the_others(classes):
    made, batch = learner(classes), rows(25, classes)
    phi = made.predictor.features(batch.x)
    state = made.fit(batch, 25)
    found = state.log_likelihood
    codes = codes_of(batch.y, classes)[0].numpy()
    expert = 4 * len(STRENGTHS) + 1
    want = torch.zeros(made.refiner.variants, dtype=torch.float64)
    for n in range(25):
        others = np.arange(25) != n
        a = phi[0].numpy()
        ridge = np.full(a.shape[1], STRENGTHS[1])
        ridge[3] = 0
        ridge = ridge + ROUNDING * (a**2).sum(0)  # the slack counts all 25 rows
        kept = a[others]
        theta = np.linalg.solve(kept.T @ kept + np.diag(ridge), kept.T @ codes[others])
        said = torch.from_numpy(a[n] @ theta)
        if classes:
            want += class_probabilities(said[None])[0, :, int(batch.y[0, n, 0])].log()
        else:
            want += log_density(batch.y[0, n], said[None], state.noise[0, expert][None])[0]
    torch.testing.assert_close(found[0, expert], want, rtol=1e-8, atol=1e-8)


def test_a_row_of_weight_two_is_two_rows():
    made, batch = learner(3), rows(30, 3)
    weight = torch.ones(1, 30, dtype=torch.float64)
    weight[:, :10] = 2
    weighted = Batch(batch.x, batch.y, weight)
    repeated = Batch(*(torch.cat([part, part[:, :10]], dim=1) for part in (batch.x, batch.y)))
    one, two = made.fit(weighted, 30), made.fit(repeated, 40)
    torch.testing.assert_close(one.theta, two.theta)
    torch.testing.assert_close(one.log_likelihood, two.log_likelihood, rtol=1e-9, atol=1e-9)
    one, two = (made.refiner.settle(made.adapt(part, 30)) for part in (weighted, repeated))
    torch.testing.assert_close(one.moments, two.moments)


def test_the_noise_is_that_of_generalised_cross_validation():
    made, batch = learner(), rows(50)
    state = learnt_unscored(made, batch)
    a = made.predictor.features(batch.x)[0].numpy()
    y = batch.y[0].numpy()
    for s, strength in enumerate(STRENGTHS):
        ridge = np.where(np.arange(a.shape[1]) == 3, 0.0, strength) + ROUNDING * (a**2).sum(0)
        hat = a @ np.linalg.solve(a.T @ a + np.diag(ridge), a.T)
        want = 50 * ((y - hat @ y) ** 2).sum() / (50 - np.trace(hat)) ** 2
        want += y.var() * 51 / 49 * (FEW / 50) ** 4  # rows are few
        assert float(state.noise[0, 4 * len(STRENGTHS) + s, 0]) == pytest.approx(want, rel=1e-4)


@pytest.mark.parametrize("outputs", [None, 3])
def test_merged_states_hold_the_moments_of_all_and_groups_change_nothing(outputs):
    made, batch = learner(outputs), rows(64, outputs)
    parts = [made.adapt(batch.slice(at, at + 16), 16) for at in range(0, 64, 16)]
    whole, merged = made.adapt(batch, 16), made.merge(parts)
    torch.testing.assert_close(merged.moments, made.refiner.settle(whole).moments)
    nested = made.merge([parts[3], made.merge([parts[1], made.merge([parts[2], parts[0]])])])
    torch.testing.assert_close(nested.log_likelihood, merged.log_likelihood)
    torch.testing.assert_close(nested.products, merged.products)
    torch.testing.assert_close(made.refiner.latent(nested), made.refiner.latent(merged))


@pytest.mark.parametrize("outputs", [None, 3])
def test_merging_with_a_state_of_no_rows_changes_nothing(outputs):
    made = learner(outputs)
    state = made.refiner.settle(made.adapt(rows(64, outputs), 16))
    for merged in (made.merge([made.init(1), state]), made.merge([state, made.init(1)])):
        torch.testing.assert_close(merged.log_likelihood, state.log_likelihood)
        x = rows(9, outputs, seed=1).x
        torch.testing.assert_close(made.predict(x, merged), made.predict(x, state))


def test_parts_of_few_rows_do_not_decide_how_means_are_weighed():
    """y is linear in the features, without noise: heads of 24 rows miss it, heads of all rows do not."""
    made, batch, fresh = learner(landmarks=40), rows(32 * 24), rows(400, seed=1)
    theta = torch.randn(
        sum(made.refiner.features.blocks), 1, generator=torch.Generator().manual_seed(0)
    ).double()
    batch, y = Batch(batch.x, made.refiner.features(batch.x) @ theta), made.refiner.features(fresh.x) @ theta
    parts = [made.adapt(batch.slice(at, at + 24), 24) for at in range(0, 32 * 24, 24)]
    merged, one = (
        (made.predict(fresh.x, state) - y).square().mean().sqrt()
        for state in (made.merge(parts), made.adapt(batch, 24))
    )
    assert merged < one


def test_what_sums_say_of_rows_left_out_is_what_is_found_where_scores_are_gaussian():
    """Two classes of one variance, x alone: the estimate from sums is near the mean over rows, each left out."""
    made = learner(2)
    y = torch.arange(400)[None, :, None] % 2
    x = torch.randn(1, 400, 3, generator=torch.Generator().manual_seed(5)).double() + 1.5 * y - 0.75
    batch = Batch(x, y)
    state = made.refiner.settle(made.adapt(batch, 32))
    everyone = state._replace(log_likelihood=torch.zeros_like(state.log_likelihood))
    found = made.refiner.score(everyone, StepInput(batch.rows, batch), learnt=True).log_likelihood / 400
    factor = made.refiner.factors(everyone)[0]
    said = class_log_likelihood(state.moments, factor, solve_heads(state.moments, factor))
    assert (said - found[:, factor.index]).abs().max() < 0.02  # 64 draws, 400 rows


def test_the_average_is_hardly_behind_the_best_expert():
    made, batch = learner(3), rows(320, 3, seed=3)
    lost, before = 0.0, made.refiner.settle(made.init()).log_likelihood
    for state in made.states(batch.split(1)):
        after = made.refiner.settle(state).log_likelihood
        # the average's likelihood of a row: experts weighed by the rows before it
        lost -= float((before.flatten(1).log_softmax(1) + (after - before).flatten(1)).logsumexp(1))
        before = after
    best = float(-before.max())
    assert lost <= best + np.log(made.refiner.count * len(SHARPNESS)) + 1e-6


def test_means_are_weighed_to_miss_rows_least():
    """Against a search over the simplex; of experts that miss alike, each its own way, half and half."""
    generator = torch.Generator().manual_seed(3)
    scores = torch.randn(1, 400, 3, 1, generator=generator, dtype=torch.float64)
    y = scores[:, :, :1].mean(2) * 0.3 + scores[:, :, 1] * 0.5 + 0.1 * scores[:, :, 2]
    likely = torch.tensor([[0.2, 0.3, 0.5]], dtype=torch.float64)
    products = residual_products(scores, y, *(torch.ones(shape).double() for shape in ((1, 400), (1, 3, 1))))
    found, of_all = stacked(products, likely)[0], products[0, :3, :3]
    assert float(found.sum()) == pytest.approx(1) and float(found.min()) >= 0

    def missed(w):
        return float(w @ of_all @ w + KNOWN / 400 * of_all.diagonal().min() * (w - likely[0]).square().sum())

    others = torch.distributions.Dirichlet(torch.ones(3).double()).sample((2000,))
    assert missed(found) <= min(map(missed, others)) * (1 + 1e-6)
    assert torch.equal(stacked(torch.zeros_like(products), likely), likely)


@pytest.mark.parametrize("classes", [None, 2])
def test_no_head_is_ever_left_behind(classes):
    """One that is far behind is solved from all rows where they pass a power of four: here 1,024."""
    made, batch = learner(classes), rows(1300, classes)
    state = made.refiner.settle(made.adapt(batch.slice(0, 500), 50))
    against, best = (
        state._replace(log_likelihood=state.log_likelihood.clone()),
        state.log_likelihood.amax(2).argmax(),
    )
    against.log_likelihood[:, best] -= 1e3
    heads = [[], []]
    for part in batch.slice(500, 1300).split(20):
        state, against = (made.refiner.settle(made.step(each, part)) for each in (state, against))
        for kept, each in zip(heads, (state, against), strict=True):
            kept.append(each.theta[:, best])
    assert float(state.solved) == 1217
    same = [torch.equal(one, other) for one, other in zip(*heads, strict=True)]
    assert same[0] and not same[20] and same[-1]


def test_of_few_rows_the_shares_of_classes_are_believed():
    """Half beforehand against experts that say nothing; all where one class is known; less and less after many rows."""
    counts = torch.tensor([[3.0, 0.0, 0.0], [2.0, 1.0, 0.0], [2e3, 1e3, 0.0]], dtype=torch.float64)
    likely = torch.zeros(3, 4, 2, dtype=torch.float64)
    likely[1] = 2 * np.log(1.5 / 3.5) + np.log(0.5 / 3.5)
    found = base_rates(counts, likely)
    share, rates = found.sum(1), (counts + 0.5) / (counts.sum(1, keepdim=True) + 1.5)
    torch.testing.assert_close(found, share[:, None] * rates)
    assert share[0] == 1 and float(share[1]) == pytest.approx(0.4 + 0.6 / 2) and share[2] < 1e-5


def test_experts_of_few_rows_are_hardly_behind_the_running_mean():
    """Of y that x says nothing about: loss of rows 2 to 32 over that of the mean or the shares of the rows before."""
    for classes, bar in ((None, 1.2), (2, 1.02)):
        ours = known = 0.0
        for seed in range(30):
            generator = torch.Generator().manual_seed(seed)
            x = torch.randn(1, 32, 3, generator=generator, dtype=torch.float64)
            y = torch.randn(1, 32, 1, generator=generator, dtype=torch.float64)
            batch, made = Batch(x, y if classes is None else (y > 1).long()), learner(classes)
            for n in (2, 4, 8, 16):
                said = made.predict(x[:, n : 2 * n], made.fit(batch.slice(0, n), n))
                then = batch.y[:, n : 2 * n]
                if classes is None:
                    mean = batch.y[:, :n].mean(1, keepdim=True)
                    ours, known = ours + (said - then).square().sum(), known + (mean - then).square().sum()
                else:
                    ours = ours - said.gather(2, then).sum()
                    rate = (batch.y[:, :n].sum() + 0.5) / (n + 1)
                    known = known - torch.where(then == 1, rate.log(), (1 - rate).log()).sum()
        assert float(ours / known) < bar


def test_heads_that_only_score_are_solved_when_rows_have_grown():
    made, batch = learner(2), rows(1504, 2)
    after = {float(made.refiner.settle(state).solved) for state in made.states(batch.split(16))}
    assert after == {0, 16, 32, 48, 64, 81, 102, 128, 161, 202, 253, 317, 397, 497, 622, 778, 973, 1217}
    state = made.adapt(batch, 16)
    torch.testing.assert_close(made.refiner.latent(state), made.refiner.latent(solved(made, state)))


def test_tails_are_student_distributions():
    y, mean, noise = (torch.tensor(v, dtype=torch.float64) for v in ([[0.7]], [[[0.2]]], [[[0.5]]]))
    found = log_density(y, mean, noise)[0, 0]
    below = cumulative(y[:, 0], mean[..., 0], noise[..., 0])[0, 0]
    for t, (scale, freedom) in enumerate(TAILS):
        law = stats.t(freedom, 0.2, scale * 0.5**0.5)
        assert float(found[t]) == pytest.approx(law.logpdf(0.7))
        assert float(below[t]) == pytest.approx(law.cdf(0.7), abs=1e-12)
        far = cumulative(y[:, 0] - 1e3, mean[..., 0], noise[..., 0])[0, 0]
        assert float(far[t]) == pytest.approx(law.cdf(0.7 - 1e3), abs=1e-14)
    three = class_probabilities(torch.tensor([[0.1, 0.9, 0.0]], dtype=torch.float64))
    torch.testing.assert_close(three.sum(-1), torch.ones(1, len(SHARPNESS), dtype=torch.float64))


def test_quantiles_and_variance_are_the_mixtures():
    made, batch = learner(), rows(200)
    latent = made.refiner.latent(made.adapt(batch, 20))
    f, x = made.predictor, batch.x[:, :3]
    theta, log_weight, noise, _ = f._parts(latent)
    means = torch.einsum("bnd,bedc->bnec", f.features(x), theta)[..., 0]
    levels = torch.tensor([0.025, 0.1, 0.5, 0.9, 0.975], dtype=torch.float64)
    mixture = f.distribution(x, latent)
    found, stretch, mean = mixture.quantiles(levels), mixture.stretch[..., None], mixture.mean[..., None]
    assert float((stretch - 1).abs().max()) > 0.01
    at = mean + (found - mean) / stretch
    at = at[..., None].expand(-1, -1, -1, means.shape[2])
    for q in range(5):
        below = cumulative(at[:, :, q, 0], means, noise[:, None, :, 0])
        torch.testing.assert_close(
            (below * log_weight.exp()[:, None]).sum((2, 3)), levels[q].expand(1, 3), atol=1e-8, rtol=0
        )
    rng = np.random.default_rng(0)
    weight = log_weight.exp()[0].flatten().numpy()
    draws = rng.choice(len(weight), size=200_000, p=weight / weight.sum())
    expert, tail = np.divmod(draws, len(TAILS))
    scale, freedom = np.array(TAILS)[tail].T
    sample = means[0, 0].numpy()[expert] + scale * noise[0, :, 0].sqrt().numpy()[expert] * rng.standard_t(
        freedom
    )
    variance = float((mixture.variance / mixture.stretch.square())[0, 0])
    assert variance == pytest.approx(np.var(sample), rel=0.08)
    assert float(f(x, latent)[0, 0, 0]) == pytest.approx(np.mean(sample), abs=0.01)
    torch.testing.assert_close(f.distribution(x, latent).mean, f(x, latent)[..., 0])
    with pytest.raises(ValueError, match="mean only"):
        learner(2).predictor.distribution(x, learner(2).refiner.latent(learner(2).init()))


def test_new_classes_find_room():
    two, four, batch = learner(2), learner(4), rows(100, 2)
    state = two.adapt(batch, 10)
    wider = four.widen(state, torch.tensor([1, 3]))
    torch.testing.assert_close(wider.theta[..., [1, 3]], two.refiner.settle(state).theta)
    torch.testing.assert_close(wider.log_likelihood, two.refiner.settle(state).log_likelihood)
    assert not bool(wider.theta[..., [0, 2]].any())
    probabilities = four.predict(batch.x, wider).exp()[0]
    same = two.predict(batch.x, state).argmax(-1)[0]
    assert float((probabilities.argmax(-1) == torch.tensor([1, 3])[same]).double().mean()) > 0.95


def test_features_fit_the_room():
    for x_dim in (1, 8, 64, 200, 500, 959, 2000):
        found = widths(x_dim)
        assert min(found.landmarks, found.products, found.steps, found.ramps) >= 0
        others = x_dim + 1 + found.landmarks + found.products + found.steps
        assert x_dim > 899 or others <= 900
        assert others + found.ramps == max(others, FILLED)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"steps": [(3, 0.0)]}, r"0 \.\. 2"),
        ({"products": -1}, "products"),
        ({"spread": 0.0}, "spread"),
        ({"landmarks": torch.zeros(2)}, "landmarks"),
    ],
)
def test_features_that_cannot_be_are_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        FixedFeatures.draw(**{"landmarks": torch.zeros(2, 3), **settings})


def test_experts_without_rows_are_refused():
    made = learner()
    for batch in (None, Batch(torch.zeros(1, 2, 4), torch.zeros(1, 2, 1))):
        with pytest.raises(ValueError, match="observations"):
            made.refiner.step(made.init(), StepInput(torch.ones(1), batch))
    with pytest.raises(ValueError, match="experts >= 1"):
        Committee(made.predictor.features, SquaredError(1), 0)


def test_steps_of_columns_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match=r"0 \.\. 2"):
        FixedFeatures.draw(torch.zeros(2, 3), steps=[(3, 0.0)])
