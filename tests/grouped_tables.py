"""Tables in groups for the tests: levels and slopes of each group's own."""

import numpy as np


def table(n_groups=40, per=15, seed=0, slope=1.0):
    """Return X, y and groups whose levels and slopes differ."""
    rng = np.random.default_rng(seed)
    group = rng.permutation(np.repeat(np.arange(n_groups), per))
    X = rng.normal(size=(len(group), 3))
    level, slopes = rng.normal(size=n_groups), 1 + slope * rng.normal(size=n_groups)
    return X, level[group] + slopes[group] * X[:, 0] + 0.3 * rng.normal(size=len(group)), group
