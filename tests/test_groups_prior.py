"""What groups share, in numbers: closed forms against dense Gaussians, laws of sums, and of the weights of rows."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from tests.grouped_tables import table

from gradatim import GroupedClassifier, GroupedRegressor
from gradatim.groups.experts import Expert, solve
from gradatim.groups.learning import learn
from gradatim.groups.sums import LEVELS, Sums


def rows(n_groups=12, n=300, d=4, seed=0):
    """Return features with a constant, y of random slopes, and groups."""
    rng = np.random.default_rng(seed)
    phi = rng.normal(size=(n, d))
    phi[:, 0] = 1
    group = rng.integers(0, n_groups, n)
    heads = rng.normal(size=(n_groups, d)) * [1, 0.5, 0, 0][:d] + [0, 1, 2, 0][:d]
    return phi, (phi * heads[group]).sum(1) + 0.5 * rng.normal(size=n), group


@pytest.fixture(scope="module")
def model():
    return GroupedRegressor().fit(*table())


@pytest.fixture(scope="module")
def classifier():
    X, y, group = table(seed=1)
    return GroupedClassifier().fit(X, np.where(y > 0, "yes", "no"), group)


def test_evidence_and_posterior_are_those_of_dense_gaussians():
    phi, y, group = rows()
    sums = Sums.of_numbers(phi, y, group, 12)
    rng = np.random.default_rng(1)
    expert = Expert("slopes", rng.normal(size=4), rng.normal(size=(4, 3)), 0.3)
    scales = np.array([0.5, 1.0])
    heads = solve(expert, sums, scales)
    for j, scale in enumerate(scales):
        for g in range(12):
            own, target = phi[group == g], y[group == g]
            cov = own @ expert.covariance @ own.T + 0.3 * scale * np.eye(len(own))
            dense = multivariate_normal.logpdf(target, own @ expert.mean, cov)
            assert abs(dense - heads.log_evidence[g, j]) < 1e-8
            query = rng.normal(size=(1, 4))
            cross = query @ expert.covariance @ own.T
            mean = query @ expert.mean + cross @ np.linalg.solve(cov, target - own @ expert.mean)
            variance = query @ expert.covariance @ query.T - cross @ np.linalg.solve(cov, cross.T)
            got = heads.at(query, np.array([g]))
            assert abs(got[0][0, j] - mean[0]) < 1e-8
            assert abs(got[1][0, j] - variance[0, 0]) < 1e-8


def test_the_log_evidence_with_the_common_mean_integrated_out_is_dense_too():
    phi, y, group = rows(n_groups=5, n=40)
    sums = Sums.of_numbers(phi, y, group, 5)
    varying, fixed = np.array([1, 0, 0, 0], bool), np.array([0, 1, 1, 0], bool)
    found = learn("level", sums, varying, fixed, np.arange(4), 0.0, steps=0)
    used = varying | fixed
    same = group[:, None] == group
    level = float(found.expert.root[0, 0]) ** 2
    cov = level * same + phi[:, used] @ phi[:, used].T + found.expert.noise * np.eye(40)
    assert abs(found.log_evidence[0] - multivariate_normal.logpdf(y, np.zeros(40), cov)) < 1e-8


@pytest.mark.parametrize("varying", [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]])
def test_em_never_lowers_the_evidence(varying):
    phi, y, group = rows()
    varying = np.array(varying, bool)
    found = learn(
        "x", Sums.of_numbers(phi, y, group, 12), varying, ~varying, np.array([0, 1, 1, 1]), 0.0, steps=30
    )
    rise = np.diff(found.log_evidence)
    # the floor that keeps a covariance positive costs this much where the best variance is 0
    assert rise.min() > -1e-5
    assert rise.sum() > 1


def test_the_curvature_of_classes_is_that_of_the_log_likelihood():
    rng = np.random.default_rng(0)
    phi, logit, y = np.ones((30, 1)), rng.normal(size=30), (rng.random(30) < 0.5).astype(float)
    sums = Sums.of_classes(phi, y, logit, np.zeros(30, int), 1)

    def value(shift):
        return (y * (logit + shift) - np.logaddexp(0, logit + shift)).sum()

    for at, shift in enumerate(LEVELS):
        step = 1e-4
        assert abs(sums.value[0, at] - value(shift)) < 1e-9
        assert abs(sums.linear[0, at, 0] - (value(shift + step) - value(shift - step)) / (2 * step)) < 1e-5
        bend = (value(shift + step) - 2 * value(shift) + value(shift - step)) / step**2
        assert abs(sums.square[0, at, 0] + bend) < 1e-4


def test_groups_together_are_groups_one_by_one():
    phi, y, group = rows()
    together = Sums.of_numbers(phi, y, group, 12)
    for g in range(12):
        alone = Sums.of_numbers(phi[group == g], y[group == g], np.zeros((group == g).sum(), int), 1)
        for mine, own in zip(together.take(slice(g, g + 1)), alone, strict=True):
            np.testing.assert_allclose(mine, own, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("classes", [False, True])
def test_a_weight_of_two_is_the_row_twice_and_of_zero_no_row(classes):
    phi, y, group = rows()
    weight = np.random.default_rng(1).integers(0, 4, len(y)).astype(float)
    again = np.repeat(np.arange(len(y)), weight.astype(int))

    def sums(at, *weights):
        if classes:
            return Sums.of_classes(phi[at], (y[at] > 0) * 1.0, phi[at, 1], group[at], 12, *weights)
        return Sums.of_numbers(phi[at], y[at], group[at], 12, *weights)

    for mine, own in zip(sums(np.arange(len(y)), weight), sums(again), strict=True):
        np.testing.assert_allclose(mine, own, atol=1e-10, rtol=0)


def test_weights_of_rows_are_counts_of_rows(model, classifier):
    X, y, group = table(seed=6)
    weight = np.random.default_rng(2).integers(0, 3, len(y))
    again = np.repeat(np.arange(len(y)), weight)
    for base, target in ((model, y), (classifier, np.where(y > 0, "yes", "no"))):
        weighed = base.fork().partial_fit(X, target, group, sample_weight=weight)
        repeated = base.fork().partial_fit(X[again], target[again], group[again])
        read = "predict" if target is y else "predict_proba"
        found = [getattr(one, read)(X, group) for one in (weighed, repeated)]
        np.testing.assert_allclose(*found, atol=1e-9)
        assert weighed.groups_ == repeated.groups_


def test_rows_of_weight_zero_teach_no_prior():
    X, y, group = table(n_groups=12)
    weight = (np.arange(len(y)) % 3 > 0).astype(float)
    there = weight > 0
    odd = np.where(there, y, 1e12)
    found = [
        GroupedRegressor().fit(X, odd, group, sample_weight=weight).predict(X, group),
        GroupedRegressor().fit(X[there], y[there], group[there]).predict(X, group),
        GroupedRegressor()
        .fit(X[there], y[there], group[there], sample_weight=np.ones(there.sum()))
        .predict(X, group),
    ]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[2], found[1])


def test_weights_teach_the_prior():
    X, y, group = table(n_groups=20, slope=0.0)
    heavy = X[:, 1] > 0
    y = np.where(heavy, y, y + 5)
    found = GroupedRegressor().fit(X, y, group, sample_weight=np.where(heavy, 1.0, 1e-6))
    new = found.predict(X[heavy], np.full(heavy.sum(), "new"))
    plain = GroupedRegressor().fit(X[heavy], y[heavy], group[heavy])
    other = plain.predict(X[heavy], np.full(heavy.sum(), "new"))
    # trees split by rows whatever they weigh, so the pooled models are near and not equal
    assert np.sqrt(np.mean((new - other) ** 2)) < 0.4


class TwoGroups:
    """Grouped estimators for scikit-learn's checks, which know no groups: the first column names one of two."""

    def fit(self, X, y, sample_weight=None):
        return super().fit(X, y, self.names(X), sample_weight)

    def predict(self, X):
        return super().predict(X, self.names(X))

    @staticmethod
    def names(X):
        return (7 * np.asarray(X, dtype=float)[:, 0]).astype(int) % 2


class TwoOfNumbers(TwoGroups, GroupedRegressor):
    """A regressor."""


class TwoOfClasses(TwoGroups, GroupedClassifier):
    """A classifier."""

    def predict_proba(self, X, groups=None):
        return super().predict_proba(X, self.names(X))


@pytest.mark.parametrize("kind", [TwoOfNumbers, TwoOfClasses])
@pytest.mark.parametrize(
    "name",
    ["list", "not_an_array", "pandas_series", "shape", "not_overwritten", "equivalence_on_dense_data"],
)
def test_scikit_learns_checks_of_weights(kind, name):
    from sklearn.utils import estimator_checks

    prior = None
    if name == "equivalence_on_dense_data":  # under one prior: trees split by rows, whatever they weigh
        rng = np.random.default_rng(0)
        X = rng.normal(size=(200, 30))
        y = rng.normal(size=200) if kind is TwoOfNumbers else rng.integers(0, 3, 200)
        prior = kind().fit(X, y)
    check = "check_sample_weight_" if prior is not None else "check_sample_weights_"
    getattr(estimator_checks, check + name)(kind.__name__, kind(prior))
