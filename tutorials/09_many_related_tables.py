"""For shops, patients, schools: what groups share is learnt, and a new one begins there. Then a whole table does.

python tutorials/09_many_related_tables.py    # about a minute; GRADATIM_SMOKE=1: seconds

The groups are 139 schools of London, if GRADATIM_DATA names a folder with multitask/school.npz. Else they are made.
"""

import os
import tempfile
from pathlib import Path

import numpy as np

from gradatim import GroupedRegressor, RefinedRegressor

smoke = os.environ.get("GRADATIM_SMOKE") == "1"


def schools():
    """Return what is known of pupils, their marks, and their schools."""
    file = Path(os.environ.get("GRADATIM_DATA", "")) / "multitask" / "school.npz"
    if os.environ.get("GRADATIM_DATA") and file.exists():
        with np.load(file) as data:
            return data["X"].astype(float), data["y"].astype(float), data["task"].astype(int)
    rng = np.random.default_rng(0)
    school = np.repeat(np.arange(60), 60)
    X = rng.normal(size=(len(school), 5))
    level, slope = rng.normal(size=60), 1 + 0.5 * rng.normal(size=60)
    return (
        X,
        level[school] + slope[school] * X[:, 0] + np.sin(2 * X[:, 1]) + rng.normal(size=len(school)),
        school,
    )


X, y, school = schools()
names = np.random.default_rng(1).permutation(np.unique(school))
known, new = (
    names[: 12 if smoke else len(names) * 2 // 3],
    names[len(names) * 2 // 3 :][: 3 if smoke else None],
)

# Schools that teach what schools share. What is kept of each are sums; no pupil is in the file.
rows = np.isin(school, known)
model = GroupedRegressor().fit(X[rows], y[rows], school[rows])
effects = model.effects_
best = np.argsort(-effects["level"])[:3]
for at in best:
    level, spread = effects["level"][at], effects["level_std"][at]
    print(
        f"school {effects['group'][at]}: {level:+.1f} marks beyond the pooled model, give or take {spread:.1f}"
    )

# New schools: with no pupil known, with 8, with 32. An estimator that knows this school alone stands beside.
with tempfile.TemporaryDirectory() as folder:
    prior = model.save_prior(Path(folder) / "prior.safetensors")
    print(
        "pupils known   as a group   a table with prior=   a table alone   (squared error over the variance)"
    )
    for count in (0, 8, 32):
        found = []
        for name in new:
            own = np.flatnonzero(school == name)
            if len(own) < 36:
                continue
            order = np.random.default_rng(int(name)).permutation(own)
            first, later = order[:count], order[32:]
            group = GroupedRegressor.from_prior(prior)
            said = []
            if count:
                group.partial_fit(X[first], y[first], [int(name)] * count)
                said = [RefinedRegressor(prior=prior), RefinedRegressor()]
                said = [table.partial_fit(X[first], y[first]).predict(X[later]) for table in said]
            said = [group.predict(X[later], [int(name)] * len(later)), *said]
            found.append([np.mean((y[later] - part) ** 2) / y.var() for part in said])
        means = np.mean(found, axis=0)
        print(f"{count:12}   {means[0]:10.3f}" + "".join(f"   {value:15.3f}" for value in means[1:]))
