"""Learn a real table as its rows come in. Save it, merge shards of it, and predict intervals.

python tutorials/04_tables.py        # under a minute; GRADATIM_SMOKE=1: seconds
"""

import os
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from sklearn.datasets import load_breast_cancer, load_diabetes

from gradatim import RefinedClassifier, RefinedRegressor

smoke = os.environ.get("GRADATIM_SMOKE") == "1"
console = Console()

# A table with named columns, in random order, and a quarter of it held out.
x, y = load_breast_cancer(return_X_y=True, as_frame=True)
order = np.random.default_rng(0).permutation(len(y))[: 320 if smoke else None]
x, y = x.iloc[order], y.iloc[order]
quarter = len(y) // 4
x_new, y_new, x, y = x[:quarter], y[:quarter], x[quarter:], y[quarter:]

# One pass in mini-batches of 32: predict, then learn. No row is read twice.
model, correct, count = RefinedClassifier(), 0, 0
for start in range(0, len(y), 32):
    rows, labels = x[start : start + 32], y[start : start + 32]
    if start:
        correct += (model.predict(rows) == labels).sum()
        count += len(labels)
    model.partial_fit(rows, labels, classes=[0, 1])
console.print(
    f"before each mini-batch was learnt: {correct / count:.3f} correct; held out: {model.score(x_new, y_new):.3f}"
)

# The model fits in a small file without pickle, and learning goes on from there.
with tempfile.TemporaryDirectory() as folder:
    path = model.save(Path(folder) / "task.safetensors")
    console.print(
        f"{path.stat().st_size / 1e6:.2f} MB on disk; {RefinedClassifier.load(path).score(x_new, y_new):.3f} again"
    )

# The map from columns to numbers is fixed after 256 rows. From then on, shards can be learnt apart and merged.
if not smoke:
    base = RefinedClassifier().partial_fit(x[:288], y[:288])
    shards = [base.fork().partial_fit(x[a : a + 64], y[a : a + 64]) for a in (288, 352)]
    console.print(f"merged from two shards: {base.merge(shards[0]).merge(shards[1]).score(x_new, y_new):.3f}")

# A regressor predicts quantiles. 80% of unseen rows should lie between the first and the last.
x, y = load_diabetes(return_X_y=True)
regressor = RefinedRegressor().partial_fit(x[:320], y[:320])
low, middle, high = regressor.predict(x[320:], quantiles=[0.1, 0.5, 0.9]).T
console.print(
    f"80% intervals hold {np.mean((low < y[320:]) & (y[320:] < high)):.2f} of unseen rows; the first: "
    f"{low[0]:.0f} to {high[0]:.0f}, {y[320]:.0f} is true"
)
