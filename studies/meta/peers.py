"""What people use for rows in groups: a pooled model and an effect, a refit, mixed models, boosted mixed models.

Each peer is taught by training tasks, and returns a function of a task's first rows and of the rows to predict.

Source: Laird, Ware 1982 (mixed models); Hajjem et al. 2014 (MERF); Sigrist 2022 (GPBoost).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.model_selection import GroupKFold

from gradatim import GroupedClassifier, GroupedRegressor, RefinedClassifier, RefinedRegressor
from gradatim.groups.experts import solve
from gradatim.groups.learning import learn
from gradatim.groups.sharing import probability
from gradatim.groups.sums import Sums

from .tasks import Tasks

OURS, ALONE, PRIOR = "ours", "alone", "ours, no row learnt"
TREES, REFIT, MIXED = "boosted trees + effect", "refit with task id", "mixed model, random slopes"
SLOPES, GPBOOST = "boosted trees + random slopes", "GPBoost"

Answer = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""x `[m, d]` and y `[m]` of a task's first rows, and x `[n, d]`, become means or probabilities of 1, `[n]`."""


def ours(tasks: Tasks, training: np.ndarray) -> Answer:
    """Return what `GroupedRegressor` or `GroupedClassifier` says."""
    model = (GroupedClassifier if tasks.classes else GroupedRegressor)()
    rows = tasks.of(training)
    model.fit(tasks.x[rows], tasks.y[rows], tasks.task[rows])

    def answer(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
        one: Any = model.fork()
        if len(y):
            one.partial_fit(x, y, np.zeros(len(y), int))
        group = np.zeros(len(new), int)
        return one.predict_proba(new, group)[:, 1] if tasks.classes else one.predict(new, group)

    return answer


def alone(tasks: Tasks, training: np.ndarray) -> Answer:
    """Return what our estimator says that sees the task alone."""

    def answer(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
        if tasks.classes:
            return RefinedClassifier().partial_fit(x, y.astype(int), classes=[0, 1]).predict_proba(new)[:, 1]
        return RefinedRegressor().partial_fit(x, y).predict(new)

    return answer


def _boosted(classes: bool, leaves: int) -> Any:
    options: dict[str, Any] = {
        "learning_rate": 0.06,
        "max_leaf_nodes": leaves,
        "min_samples_leaf": 15,
        "l2_regularization": 2.0,
    }
    kind = HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor
    return kind(**options, early_stopping=False, random_state=0)  # type: ignore[arg-type]


def _outputs(model: Any, x: np.ndarray, classes: bool) -> np.ndarray:
    return model.decision_function(x) if classes else model.predict(x)


def _pooled(tasks: Tasks, training: np.ndarray, leaves: int) -> tuple[Any, np.ndarray, np.ndarray]:
    """Return boosted trees of as many rounds as other tasks like best, their rows, and outputs out of fold."""
    rows = tasks.of(training)
    x, y, group = tasks.x[rows], tasks.y[rows], tasks.task[rows]
    best: tuple[float, int, np.ndarray] | None = None
    for count in (10, 20, 40, 80, 160):
        out = np.zeros(len(y))
        for fit, left in GroupKFold(min(5, len(training))).split(x, y, group):
            out[left] = _outputs(
                _boosted(tasks.classes, leaves).set_params(max_iter=count).fit(x[fit], y[fit]),
                x[left],
                tasks.classes,
            )
        loss = float(
            np.logaddexp(0, np.where(y > 0, -out, out)).mean() if tasks.classes else ((y - out) ** 2).mean()
        )
        best = (loss, count, out) if best is None or loss < best[0] else best
    assert best is not None
    return _boosted(tasks.classes, leaves).set_params(max_iter=best[1]).fit(x, y), rows, best[2]


def _random(
    tasks: Tasks,
    rows: np.ndarray,
    offset: np.ndarray,
    slopes: bool,
    later: Callable[[np.ndarray], np.ndarray],
) -> Answer:
    """Return a mixed model around offsets `[n]` of training rows: random levels, or slopes with full covariance."""
    x, y, names = tasks.x[rows], tasks.y[rows], np.unique(tasks.task[rows])
    centre, spread = x.mean(0), np.maximum(x.std(0), 1e-9)
    scale = 1.0 if tasks.classes else float((y - offset).std())

    def features(values: np.ndarray) -> np.ndarray:
        one = np.ones((len(values), 1))
        return np.concatenate([one, np.clip((values - centre) / spread, -5, 5)], axis=1) if slopes else one

    def sums(
        values: np.ndarray, target: np.ndarray, around: np.ndarray, group: np.ndarray, count: int
    ) -> Sums:
        if tasks.classes:
            return Sums.of_classes(features(values), target, around, group, count)
        return Sums.of_numbers(features(values), (target - around) / scale, group, count)

    taught = sums(x, y, offset, np.searchsorted(names, tasks.task[rows]), len(names))
    width = x.shape[1] + 1 if slopes else 1
    varying, blocks = np.ones(width, dtype=bool), np.minimum(np.arange(width), 1)
    expert = learn("mixed", taught, varying, ~varying, blocks, 1.0, 40, tasks.classes).expert

    def answer(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
        own = sums(x, y, later(x), np.zeros(len(y), int), 1)
        heads = solve(expert, own, None if tasks.classes else np.ones(1))
        mean, variance = (part[:, 0] for part in heads.at(features(new), np.zeros(len(new), int)))
        return probability(later(new) + mean, variance) if tasks.classes else later(new) + scale * mean

    return answer


def trees_and_effect(tasks: Tasks, training: np.ndarray, leaves: int = 12) -> Answer:
    """Return boosted trees on all other tasks, and a shrunken level of the task."""
    model, rows, out = _pooled(tasks, training, leaves)
    return _random(tasks, rows, out, False, lambda x: _outputs(model, x, tasks.classes))


def trees_and_slopes(tasks: Tasks, training: np.ndarray, leaves: int = 12) -> Answer:
    """Return boosted trees and random slopes of all columns, as MERF has them."""
    model, rows, out = _pooled(tasks, training, leaves)
    return _random(tasks, rows, out, True, lambda x: _outputs(model, x, tasks.classes))


def mixed(tasks: Tasks, training: np.ndarray) -> Answer:
    """Return a linear or logistic mixed model: random slopes, full covariance, by EM."""
    rows = tasks.of(training)
    mean = tasks.y[rows].mean()
    start = float(np.log(mean / (1 - mean))) if tasks.classes else float(mean)
    return _random(tasks, rows, np.full(len(rows), start), True, lambda x: np.full(len(x), start))


def refit(tasks: Tasks, training: np.ndarray, leaves: int = 12) -> Answer:
    """Return boosted trees fitted anew with the task's rows and a column that names the task."""
    rows = tasks.of(training)
    x, y, names = tasks.x[rows], tasks.y[rows], np.unique(tasks.task[rows])
    code = np.searchsorted(names, tasks.task[rows])
    count = max(10, _pooled(tasks, training, leaves)[0].n_iter_)

    def answer(own: np.ndarray, target: np.ndarray, new: np.ndarray) -> np.ndarray:
        model = _boosted(tasks.classes, leaves).set_params(
            max_iter=count, categorical_features=[x.shape[1]], min_samples_leaf=5
        )
        every = np.concatenate([x, own])
        column = np.concatenate([code, np.full(len(own), len(names))])
        model.fit(np.column_stack([every, column]), np.concatenate([y, target]))
        new = np.column_stack([new, np.full(len(new), len(names))])
        return model.predict_proba(new)[:, 1] if tasks.classes else model.predict(new)

    return answer


def gpboost(tasks: Tasks, training: np.ndarray, leaves: int = 12) -> Answer:
    """Return boosted trees and random levels fitted together, where the package is installed.

    Raises:
        ImportError: it is not installed.
    """
    import gpboost as gpb  # type: ignore[import-not-found]

    rows = tasks.of(training)
    x, y, group = tasks.x[rows], tasks.y[rows], tasks.task[rows]
    # its steps are over the variance of the noise: y of variance 142 would stay where it is
    centre, scale = (0.0, 1.0) if tasks.classes else (float(y.mean()), float(y.std()))
    options: dict[str, Any] = {
        "learning_rate": 0.05,
        "num_leaves": leaves,
        "min_data_in_leaf": 15,
        "verbose": -1,
    }

    def fitted(part: np.ndarray, count: int) -> tuple[Any, Any]:
        kind = "bernoulli_logit" if tasks.classes else "gaussian"
        effects = gpb.GPModel(group_data=group[part], likelihood=kind)
        table = gpb.Dataset(x[part], label=(y[part] - centre) / scale)
        return gpb.train(options, table, gp_model=effects, num_boost_round=count), effects

    def fixed_by(model: Any, values: np.ndarray) -> np.ndarray:
        return np.ravel(model.predict(values, ignore_gp_model=True, pred_latent=True))

    best: tuple[float, int] | None = None
    for count in (20, 60, 180):
        out = np.zeros(len(y))
        for fit, left in GroupKFold(3).split(x, y, group):
            out[left] = fixed_by(fitted(fit, count)[0], x[left])
        miss = (
            np.logaddexp(0, np.where(y > 0, -out, out))
            if tasks.classes
            else ((y - centre) / scale - out) ** 2
        )
        best = (float(miss.mean()), count) if best is None or miss.mean() < best[0] else best
    assert best is not None
    model, effects = fitted(np.arange(len(y)), best[1])
    found = np.ravel(np.asarray(effects.get_cov_pars()))
    level, noise = (float(found[0]), 1.0) if tasks.classes else (float(found[1]), float(found[0]))

    def fixed(values: np.ndarray) -> np.ndarray:
        return centre + scale * fixed_by(model, values)

    def answer(own: np.ndarray, target: np.ndarray, new: np.ndarray) -> np.ndarray:
        if not tasks.classes:
            miss = target - fixed(own)
            return fixed(new) + level * miss.sum() / (noise + level * len(miss))
        grid = np.linspace(-4, 4, 81)[:, None] * np.sqrt(level)
        logit = fixed(own) + grid
        log_weight = (target * logit - np.logaddexp(0, logit)).sum(1) - 0.5 * grid[:, 0] ** 2 / level
        weight = np.exp(log_weight - log_weight.max())
        return (weight / weight.sum()) @ (1 / (1 + np.exp(-(fixed(new) + grid))))

    return answer


def unmoved(tasks: Tasks, training: np.ndarray) -> Answer:
    """Return what ours says of a group of which it learns no row: the learnt prior alone."""
    with_rows = ours(tasks, training)
    return lambda x, y, new: with_rows(x[:0], y[:0], new)


PEERS: dict[str, Callable[..., Answer]] = {
    OURS: ours,
    PRIOR: unmoved,
    ALONE: alone,
    TREES: trees_and_effect,
    REFIT: refit,
    MIXED: mixed,
    SLOPES: trees_and_slopes,
    GPBOOST: gpboost,
}

LEAVES = ({"leaves": 4}, {"leaves": 12}, {"leaves": 31})
GRIDS: dict[str, tuple[dict[str, int], ...]] = dict.fromkeys((TREES, REFIT, SLOPES, GPBOOST), LEAVES)
"""Settings that validation tasks choose among. Rounds of trees are chosen inside, by folds of the tasks that teach."""
