"""Generation by flow matching: rows and velocities against closed forms, the solver, distances against references."""

import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from gradatim.batch import Batch
from gradatim.comparison.plots import clouds
from gradatim.distances import energy_distance, sliced_wasserstein
from gradatim.families import Alphabets, GaussianMixture, LinearRegression
from gradatim.families.alphabets import FILE
from gradatim.families.flows import Components, flow_points, flow_rows
from gradatim.generation import generate, heun, sample_curve
from gradatim.learner import Learner
from gradatim.methods import METHODS, build
from gradatim.metrics import excess_risk
from gradatim.recipes import recipe
from gradatim.refiners import TransformerConfig
from gradatim.refiners.in_context import FlowVote
from gradatim.testing import check_family, check_refiner, check_scheme
from gradatim.testing.options import fitting
from gradatim.training.schemes import Greedy

SMALL = dict(support_rows=15, query_rows=6)
CONFIG = TransformerConfig(width=16, layers=2, heads=2)
REGIMES = {
    "parametric-both": {"hidden": (4,)},
    "parametric-plain": {},
    "explicit-both": {"tokens": 3, "token_width": 8},
    "implicit-logits": {},
    "implicit-latents": {},
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def gaussian():
    """Return one Gaussian with a tilted covariance, and that covariance."""
    angle = 0.6
    basis = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    variances = torch.tensor([0.5, 0.05])
    mixture = Components(
        torch.ones(1, 1), torch.tensor([[[1.5, -0.5]]]), variances[None, None], basis[None, None]
    )
    return mixture, basis @ variances.diag() @ basis.mT


# --- rows and velocities


def test_rows_lie_on_the_path_from_noise_to_the_point():
    points = torch.randn(3, 4000, 2, generator=seeded()).double()
    rows = flow_rows(points, seeded(1))
    t, noise = rows.x[..., 2:], points - rows.y
    torch.testing.assert_close(rows.x[..., :2], (1 - t) * noise + t * points)
    torch.testing.assert_close(flow_points(rows), points)
    assert rows.x.dtype == torch.float64
    assert noise.mean().item() == pytest.approx(0, abs=0.03) and noise.var().item() == pytest.approx(
        1, abs=0.03
    )
    assert stats.kstest(t.flatten().numpy(), "uniform").pvalue > 0.001
    again, other = flow_rows(points, seeded(1)), flow_rows(points, seeded(2))
    assert torch.equal(rows.x, again.x) and not torch.equal(rows.x, other.x)
    with pytest.raises(ValueError, match=r"points must be \[tasks, rows, coordinates\]; got shape \(5, 2\)"):
        flow_rows(torch.zeros(5, 2), seeded())


def test_the_velocity_of_a_gaussian_is_its_conditional_expectation():
    """For jointly Gaussian (x_t, y): E[y | x_t] = E y + Cov(y, x_t) Cov(x_t)^-1 (x_t - E x_t)."""
    mixture, covariance = gaussian()
    mean, eye = mixture.means[0, 0], torch.eye(2)
    for t in (0.0, 0.3, 0.9, 1.0):
        x = torch.randn(1, 5, 2, generator=seeded())
        slope = (t * covariance - (1 - t) * eye) @ torch.linalg.inv(t**2 * covariance + (1 - t) ** 2 * eye)
        wanted = mean + (x - t * mean) @ slope.mT
        found = mixture.velocity(torch.cat([x, torch.full((1, 5, 1), t)], -1))
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_the_loss_is_least_at_the_velocity():
    """Least squares on features that span the velocity at one time finds it: the regression's minimiser is E[y | x]."""
    mixture, covariance = gaussian()
    points, t = mixture.sample(200_000, seeded()).double(), 0.4
    noise = torch.randn(points.shape, generator=seeded(1), dtype=torch.float64)
    x, y = (1 - t) * noise + t * points, points - noise
    features = torch.cat([x, torch.ones_like(x[..., :1])], -1)[0]
    fitted = torch.linalg.lstsq(features, y[0]).solution
    eye = torch.eye(2, dtype=torch.float64)
    wide = t**2 * covariance.double() + (1 - t) ** 2 * eye
    slope = (t * covariance.double() - (1 - t) * eye) @ torch.linalg.inv(wide)
    torch.testing.assert_close(fitted[:2].mT, slope, rtol=0, atol=0.03)
    torch.testing.assert_close(
        features @ fitted,
        mixture.velocity(torch.cat([x, torch.full_like(x[..., :1], t)], -1))[0],
        rtol=0,
        atol=0.1,
    )


@pytest.mark.parametrize(
    "family", [GaussianMixture(2, 3), GaussianMixture(3, 4, 1, stretch=1.0)], ids=["2d", "3d"]
)
def test_truth_beats_every_change_of_it(family):
    """The mean of (f - y)^2 is least at f = E[y | x]: scaling it, shifting it or taking another task's costs."""
    task = replace(family, query_rows=4000).sample(6, seeded())
    y, truth = task.query.y, task.truth

    def loss(answer):
        return (answer - y).square().sum(-1).mean().item()

    best = loss(truth)
    for changed in (1.05 * truth, 0.95 * truth, truth + 0.05, truth.roll(1, 0)):
        assert loss(changed) > best
    # the residual is uncorrelated with the answer, as that of a conditional expectation is
    residual = ((y - truth) * truth).sum(-1)
    assert residual.mean().item() == pytest.approx(0, abs=5 * residual.std().item() / residual.numel() ** 0.5)
    assert excess_risk(truth, task).tolist() == [0.0] * 6


# --- the solver


def test_heun_reproduces_mean_and_covariance_of_a_gaussian():
    mixture, covariance = gaussian()
    noise = torch.randn(1, 100_000, 2, generator=seeded())
    points = heun(mixture.velocity, noise, 20)[0]
    torch.testing.assert_close(points.mean(0), mixture.means[0, 0], rtol=0, atol=0.01)
    torch.testing.assert_close(points.mT.cov(), covariance, rtol=0, atol=0.01)


def test_heun_is_of_second_order():
    """dx/dt = x from 1 ends at e; halving the step divides the error by 4."""
    errors = [
        abs(heun(lambda x: x[..., :1], torch.ones(1, 1, 1).double(), n).item() - math.e) for n in (10, 20, 40)
    ]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.1)
    # and sees the time: dx/dt = 2 t ends 1 further, exactly
    assert heun(lambda x: 2 * x[..., 1:], torch.zeros(1, 1, 1), 1).item() == 1.0
    with pytest.raises(ValueError, match="at least one step; got 0"):
        heun(lambda x: x[..., :1], torch.ones(1, 1, 1), 0)


def test_the_mixtures_own_flow_ends_at_the_mixture():
    mixtures = GaussianMixture(2, 4, 2).components(8, seeded(3))
    ends = heun(mixtures.velocity, torch.randn(8, 1000, 2, generator=seeded()), 30)
    real = mixtures.sample(1000, seeded(1))
    assert energy_distance(ends, real).mean().item() == pytest.approx(0, abs=0.005)
    assert energy_distance(torch.randn(8, 1000, 2, generator=seeded(2)), real).mean().item() > 0.1


@pytest.mark.parametrize("name", REGIMES)
def test_every_regime_generates(name):
    family = GaussianMixture(2, 3, **SMALL)
    torch.manual_seed(0)
    learner = build(name, family, **fitting(name, CONFIG), **REGIMES[name])
    task = family.sample(3, seeded())
    points = generate(learner, task.support, 7, seeded(5), steps=2, batch_size=5)
    assert points.shape == (3, 7, 2) and points.dtype == torch.float32
    assert torch.equal(points, generate(learner, task.support, 7, seeded(5), steps=2, batch_size=5))
    assert not torch.equal(points, generate(learner, task.support, 7, seeded(6), steps=2, batch_size=5))
    # by hand: the loop of the learner at each velocity
    x = torch.randn(3, 7, 2, generator=seeded(5))

    def velocity(x, t):
        query = Batch(torch.cat([x, torch.full((3, 7, 1), t)], -1), torch.zeros(3, 7, 2))
        *_, state = learner.states(task.support.split(5), query)
        return learner.predict(query.x, state)

    for t in (0.0, 0.5):
        first = velocity(x, t)
        x = x + (first + velocity(x + first / 2, t + 0.5)) / 4
    torch.testing.assert_close(points, x.detach(), rtol=1e-4, atol=1e-5)


def test_generating_from_states():
    family = GaussianMixture(2, 3, **SMALL)
    learner, task = build("ridge", family), family.sample(3, seeded())
    state = learner.adapt(task.support, 5)
    one, other = (generate(learner, given, 7, seeded(), 3) for given in (state, task.support))
    torch.testing.assert_close(one, other)
    implicit = build("implicit-logits", family, **fitting("implicit-logits", CONFIG))
    state = implicit.adapt(task.support, 5, task.query)
    with pytest.raises(ValueError, match="an implicit learner's state answers its own queries alone"):
        generate(implicit, state, 7, seeded())
    with pytest.raises(ValueError, match="at least one point; got 0"):
        generate(learner, task.support, 0, seeded())
    regression = LinearRegression(3, **SMALL)
    with pytest.raises(
        ValueError, match="this one answers 1 outputs at x of width 3: train it on rows of flow_rows"
    ):
        generate(build("ridge", regression), regression.sample(3, seeded()).support, 5, seeded())


def test_ridge_on_one_gaussian_comes_near_it():
    """A closed form on random features of a thousand rows: the generated mean and spread are the task's."""
    family = GaussianMixture(2, 1, std=0.6, support_rows=2000)
    task = family.sample(4, seeded())
    learner = build("random-features", family, strength=0.1, features=256)
    points = generate(learner, task.support, 2000, seeded())
    real = flow_points(task.support)
    torch.testing.assert_close(points.mean(1), real.mean(1), rtol=0, atol=0.1)
    torch.testing.assert_close(points.std(1), real.std(1), rtol=0, atol=0.12)
    assert energy_distance(points, real).max().item() < 0.02


def test_sample_curve_judges_generated_points():
    family = GaussianMixture(2, 2, support_rows=60, query_rows=50)
    learner, task = build("random-features", family, features=64), family.sample(3, seeded())
    found = sample_curve(learner, task, 20, [3, 1], seed=4, solver_steps=5)
    assert {name: values.shape for name, values in found.items()} == {"energy": (2, 3), "sliced": (2, 3)}
    generator = seeded(4)
    points = generate(learner, task.support, 50, generator, 5, 20)
    real = flow_points(task.query)
    np.testing.assert_allclose(found["energy"][1], energy_distance(points, real).numpy())
    np.testing.assert_allclose(found["sliced"][1], sliced_wasserstein(points, real, generator).numpy())
    for steps in ([], [0, 1], [4]):
        with pytest.raises(ValueError, match="need 1 to 3 steps"):
            sample_curve(learner, task, 20, steps)


# --- what an implicit learner hears of rows of flow matching


def test_the_vote_of_points_is_the_velocity_of_their_density():
    task = GaussianMixture(2, 3, **SMALL).sample(3, seeded()).to(torch.float64)
    vote, points = FlowVote(0.3).double(), flow_points(task.support)
    votes = vote(task.query.x, task.support, torch.tensor([4, 15]))
    for place, n in enumerate((4, 15)):
        shape = (3, n, 2)
        density = Components(
            torch.full(shape[:2], 1 / n), points[:, :n], torch.full(shape, 0.09, dtype=torch.float64)
        )
        torch.testing.assert_close(votes[:, place], density.velocity(task.query.x), rtol=1e-6, atol=1e-6)
    # whatever stands in rows that are absent
    mask = torch.arange(15).expand(3, 15) < 4
    few = Batch(task.support.x, task.support.y, mask)
    torch.testing.assert_close(vote(task.query.x, few, torch.tensor([15])), votes[:, :1])


def test_a_kernel_density_goes_on_exactly_from_one_mini_batch_to_the_next():
    task = GaussianMixture(2, 3, **SMALL).sample(3, seeded()).to(torch.float64)
    learner = build("kernel", GaussianMixture(2, 3, **SMALL), width=0.3).double()
    vote = FlowVote(0.3).double()(task.query.x, task.support, torch.tensor([15]))[:, 0]
    for size in (4, 15):
        state = learner.adapt(task.support, size, task.query)
        torch.testing.assert_close(learner.predict(task.query.x, state), vote, rtol=1e-6, atol=1e-6)


def test_an_implicit_learner_starts_at_the_mean_vote():
    """Its head silenced, the decaying gain makes of three mini-batches' votes their mean; more say more."""
    family = GaussianMixture(2, 3, support_rows=96, query_rows=200)
    learner, task = (
        build("implicit-logits", family, **fitting("implicit-logits", CONFIG)),
        family.sample(20, seeded()),
    )
    torch.nn.init.zeros_(learner.refiner.head.weight)
    torch.nn.init.zeros_(learner.refiner.head.bias)
    states = list(learner.states(task.support.split(32), task.query))
    votes = [FlowVote()(task.query.x, rows, torch.tensor([32]))[:, 0] for rows in task.support.split(32)]
    answers = [learner.predict(task.query.x, state) for state in states]
    torch.testing.assert_close(answers[3], sum(votes) / 3, rtol=1e-4, atol=1e-4)
    risk = [excess_risk(answer, task).mean().item() for answer in answers]
    assert risk[0] > 5 * risk[1] > 5 * risk[3]


# --- distances


def test_energy_distance_against_loops_and_scipy():
    a, b = (
        torch.randn(2, 5, 1, generator=seeded()).double(),
        torch.randn(2, 7, 1, generator=seeded(1)).double(),
    )
    for task in range(2):
        p, q = a[task, :, 0].tolist(), b[task, :, 0].tolist()
        between = sum(abs(x - y) for x in p for y in q) / 35
        within = [sum(abs(x - y) for x in s for y in s) for s in (p, q)]
        assert energy_distance(a, b)[task].item() == pytest.approx(
            2 * between - within[0] / 20 - within[1] / 42
        )
        # scipy counts the pairs of a point with itself, and takes the root
        biased = 2 * between - within[0] / 25 - within[1] / 49
        assert math.sqrt(biased) == pytest.approx(stats.energy_distance(p, q))


def test_energy_distance_is_unbiased():
    """Two samples of one distribution: 0 on average, though of two points each; of shifted Gaussians: by quadrature."""
    many = energy_distance(
        torch.randn(40_000, 2, 2, generator=seeded()), torch.randn(40_000, 2, 2, generator=seeded(1))
    )
    assert many.mean().item() == pytest.approx(0, abs=4 * many.std().item() / 200)
    shift = 1.5
    apart = energy_distance(
        torch.randn(20_000, 3, 1, generator=seeded()), shift + torch.randn(20_000, 3, 1, generator=seeded(1))
    )
    # E|N(m, 2)| = 2 phi(m / sqrt 2) sqrt 2 + m (2 Phi(m / sqrt 2) - 1)
    z = shift / 2**0.5
    far = 2 * 2**0.5 * stats.norm.pdf(z) + shift * (2 * stats.norm.cdf(z) - 1)
    wanted = 2 * far - 4 / math.pi**0.5
    assert apart.mean().item() == pytest.approx(wanted, abs=4 * apart.std().item() / 20_000**0.5)


def test_sliced_wasserstein_against_closed_forms_and_scipy():
    a, b = torch.randn(2, 9, 1, generator=seeded()), torch.randn(2, 9, 1, generator=seeded(1)) + 1
    wanted = [
        stats.wasserstein_distance(p, q) for p, q in zip(a[..., 0].numpy(), b[..., 0].numpy(), strict=True)
    ]
    assert sliced_wasserstein(a, b, seeded(), 3).tolist() == pytest.approx(wanted, rel=1e-5)
    # a shift by d in the plane: the mean of |u'd| is 2 |d| / pi
    a = torch.randn(1, 50, 2, generator=seeded())
    moved = sliced_wasserstein(a, a + torch.tensor([3.0, 4.0]), seeded(), 20_000)
    assert moved.item() == pytest.approx(10 / math.pi, rel=0.02)
    assert sliced_wasserstein(a, a.flip(1), seeded()).item() == pytest.approx(0, abs=1e-6)


def test_distances_refuse_what_they_cannot_compare():
    a = torch.zeros(2, 5, 2)
    for other in (torch.zeros(1, 5, 2), torch.zeros(2, 5, 3), torch.zeros(5, 2)):
        with pytest.raises(ValueError, match="of the same tasks and width"):
            energy_distance(a, other)
        with pytest.raises(ValueError, match="of the same tasks and width"):
            sliced_wasserstein(a, other, seeded())
    with pytest.raises(ValueError, match="at least 2 points"):
        energy_distance(a, a[:, :1])
    with pytest.raises(ValueError, match="got 5 points and 4: draw as many"):
        sliced_wasserstein(a, a[:, :4], seeded())
    with pytest.raises(ValueError, match="at least one direction; got projections 0"):
        sliced_wasserstein(a, a, seeded(), 0)


# --- families


def test_mixtures_are_as_they_say():
    family = GaussianMixture(2, 5, 2, std=0.3, stretch=3.0)
    mixtures = family.components(3000, seeded())
    counts = (mixtures.weights > 0).sum(1)
    assert torch.allclose(mixtures.weights.sum(1), torch.ones(3000))
    assert counts.unique().tolist() == [2, 3, 4, 5]
    assert stats.chisquare(counts.bincount()[2:].numpy()).pvalue > 0.001
    low, high = (end.item() for end in mixtures.variances.aminmax())
    assert 0.09 / 3 <= low < 0.031 and 0.26 < high <= 0.27 + 1e-6
    torch.testing.assert_close(
        mixtures.bases.mT @ mixtures.bases, torch.eye(2).expand(3000, 5, 2, 2), atol=1e-5, rtol=0
    )
    # points have the moments of the mixture
    one = Components(*(part[:1] for part in mixtures))
    points = one.sample(100_000, seeded(1))[0]
    mean = (one.weights[0, :, None] * one.means[0]).sum(0)
    inner = one.bases[0] @ torch.diag_embed(one.variances[0]) @ one.bases[0].mT
    outer = (one.means[0] - mean)[:, :, None] * (one.means[0] - mean)[:, None]
    covariance = (one.weights[0, :, None, None] * (inner + outer)).sum(0)
    torch.testing.assert_close(points.mean(0), mean, rtol=0, atol=0.02)
    torch.testing.assert_close(points.mT.cov(), covariance, rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dim": 0}, "dim must be an integer of at least 1"),
        ({"components_max": 0}, "components_max must be an integer"),
        ({"components_min": 0}, "components_min must be an integer"),
        ({"components_min": 5}, "components_min must be at most components_max = 4; got 5"),
        ({"std": 0.0}, "std must be a finite number above 0"),
        ({"stretch": 0.5}, "stretch must be a finite number of at least 1"),
        ({"query_rows": 0}, "query_rows must be"),
    ],
)
def test_impossible_mixtures_are_refused(change, said):
    with pytest.raises(ValueError, match=said):
        GaussianMixture(**change)


@pytest.fixture
def glyphs(tmp_path, monkeypatch):
    """A small file of glyphs: 3 background alphabets of 5 letters, 2 others of 4, 3 drawers, 6 by 8 pixels."""
    rng = np.random.default_rng(0)
    images = (rng.random((23, 3, 6, 8)) < 0.2) * rng.integers(1, 256, (23, 3, 6, 8))
    images[:, :, 0, 0] = 7
    alphabet = np.repeat([0, 1, 2, 3, 4], [5, 5, 5, 4, 4])
    (tmp_path / "images").mkdir()
    path = tmp_path / "images" / FILE

    def write(**changes):
        arrays = {"images": images.astype(np.uint8), "alphabet": alphabet, "background": alphabet < 3}
        np.savez(path, **(arrays | changes))
        return arrays

    monkeypatch.setenv("GRADATIM_DATA", str(tmp_path))
    write()
    return write


def test_pools_of_letters_are_disjoint(glyphs):
    images = glyphs()["images"]
    pools = {split: Alphabets(split=split).glyphs() for split in ("train", "validation", "test")}
    assert {split: len(pool) for split, pool in pools.items()} == {"train": 36, "validation": 9, "test": 24}
    as_rows = {split: {glyph.numpy().tobytes() for glyph in pool} for split, pool in pools.items()}
    everything = {glyph.tobytes() for letter in images for glyph in letter}
    assert as_rows["train"] | as_rows["validation"] | as_rows["test"] == everything
    assert sum(map(len, as_rows.values())) == len(everything)
    assert as_rows["test"] == {glyph.tobytes() for letter in images[15:] for glyph in letter}
    # one letter of each alphabet is held out, with all its drawers
    held = [{k for k in range(15) if images[k, d].tobytes() in as_rows["validation"]} for d in range(3)]
    assert held[0] == held[1] == held[2] and sorted(k // 5 for k in held[0]) == [0, 1, 2]
    assert Alphabets().on("test").split == "test"


def test_points_lie_on_the_ink(glyphs):
    glyphs()
    family = Alphabets(jitter=0.05, support_rows=4000, query_rows=5)
    task, pool = family.sample(5, seeded(2)), family._pool()
    pixels = flow_points(task.support) * pool.scale + pool.centre
    column, row = pixels[..., 0].round().long(), -pixels[..., 1].round().long()
    for b in range(5):
        counts = torch.zeros(6, 8).index_put((row[b], column[b]), torch.ones(4000), accumulate=True)
        matches = [
            bool((counts[glyph == 0] == 0).all())
            and torch.allclose(counts / 4000, glyph / glyph.float().sum(), atol=0.03)
            for glyph in pool.ink
        ]
        assert sum(matches) == 1
    assert (pixels - pixels.round()).std().item() == pytest.approx(0.05, abs=0.003)
    # ink has mean 0 and variance 1 over the training glyphs
    ink = pool.ink.sum(0).double() / pool.ink.sum()
    right = (torch.arange(8) - pool.centre[0]) / pool.scale
    up = (-torch.arange(6) - pool.centre[1]) / pool.scale
    assert (ink.sum(0) * right).sum().item() == pytest.approx(0, abs=1e-5)
    variance = (ink.sum(0) * right.square()).sum() + (ink.sum(1) * up.square()).sum()
    assert variance.item() / 2 == pytest.approx(1, rel=1e-5)


def test_alphabets_keep_the_laws(glyphs):
    glyphs()
    for family in (Alphabets(**SMALL), Alphabets(min_support_rows=3, split="validation", **SMALL)):
        check_family(family)
        check_family(family.on("test"))


def test_glyphs_that_are_missing_or_bare_are_refused(glyphs, monkeypatch, tmp_path):
    images = glyphs()["images"].copy()
    images[4, 1] = 0
    glyphs(images=images)
    with pytest.raises(ValueError, match="letter 4 by drawer 1 has none"):
        Alphabets().sample(1, seeded())
    glyphs(alphabet=np.zeros(3))
    with pytest.raises(ValueError, match="must hold images"):
        Alphabets().sample(1, seeded())
    for empty in ((0, 3, 6, 8), (23, 0, 6, 8), (23, 3, 0, 8)):
        few = empty[0]
        glyphs(images=np.zeros(empty, np.uint8), alphabet=np.zeros(few), background=np.zeros(few, dtype=bool))
        with pytest.raises(ValueError, match=r"must hold images .* got images uint8 \("):
            Alphabets().sample(1, seeded())
    glyphs(alphabet=np.arange(23), background=np.arange(23) < 3)
    with pytest.raises(ValueError, match="needs a background alphabet of two letters or more"):
        Alphabets().sample(1, seeded())
    np.savez(tmp_path / "images" / FILE, images=images)
    with pytest.raises(ValueError, match=r"omniglot_28.npz has no alphabet: it must be"):
        Alphabets().sample(1, seeded())
    glyphs(background=np.ones(23, dtype=bool))
    with pytest.raises(ValueError, match="others to test on; it has one kind"):
        Alphabets().sample(1, seeded())
    (tmp_path / "images" / FILE).write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"omniglot_28.npz cannot be read"):
        Alphabets().sample(1, seeded())
    (tmp_path / "images" / FILE).unlink()
    with pytest.raises(ValueError, match=r"alphabets need .*omniglot_28.npz .*published at"):
        Alphabets().sample(1, seeded())
    monkeypatch.delenv("GRADATIM_DATA")
    with pytest.raises(ValueError, match="set the environment variable GRADATIM_DATA"):
        Alphabets().sample(1, seeded())
    with pytest.raises(ValueError, match="split must be one of train, validation, test; got 'dev'"):
        Alphabets(split="dev")
    with pytest.raises(ValueError, match="jitter must be a finite number above 0"):
        Alphabets(jitter=0)


def test_clouds_are_drawn_beside_the_truth(tmp_path, monkeypatch):
    real = GaussianMixture(2, 3).components(3, seeded()).sample(40, seeded())
    png = tmp_path / "pictures" / "clouds.png"
    if clouds(png, "mixtures", {"truth": real, "noise": torch.randn(3, 40, 2)}) is None:
        assert png.read_bytes()[:4] == b"\x89PNG"
    assert "no clouds" in clouds(png, "nothing", {})
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "gradatim[viz]" in clouds(png, "mixtures", {"truth": real})


def test_recipes_of_generation():
    assert [type(recipe(name).family) for name in ("mixture", "alphabets")] == [GaussianMixture, Alphabets]
    assert recipe("mixture").learner().predictor.x_dim == 3


# --- the table of methods serves these families as it is


@pytest.mark.parametrize(
    "family", [GaussianMixture(2, 3, **SMALL), GaussianMixture(3, 4, 1, min_support_rows=3)], ids=str
)
def test_mixtures_keep_the_laws(family):
    check_family(family)


@pytest.mark.parametrize("name", [*REGIMES, "bayesian", "adam", "closed-form"])
def test_learners_of_velocities_keep_the_laws(name):
    family = GaussianMixture(2, 3, **SMALL)
    check_refiner(build(name, family, **fitting(name, CONFIG), **REGIMES.get(name, {})), family)


@pytest.mark.parametrize("name", ["implicit-logits", "implicit-latents"])
def test_votes_of_prefixes_keep_the_laws(name):
    family = GaussianMixture(2, 3, **SMALL)
    check_refiner(build(name, family, **fitting(name, replace(CONFIG, prefixes=True))), family)


@pytest.mark.parametrize("name", REGIMES)
def test_learners_of_velocities_are_trained(name):
    family = GaussianMixture(2, 3, **SMALL)
    check_scheme(Greedy(5, 3), build(name, family, **fitting(name, CONFIG), **REGIMES[name]), family)


def test_methods_that_cannot_serve_say_so():
    family = GaussianMixture(2, 3, **SMALL)
    with pytest.raises(ValueError, match="probabilities need classes"):
        build("implicit-probabilities", family)
    assert isinstance(build("lbfgs", family), Learner) and "lbfgs" in METHODS
