"""For streams: learn and predict row by row through a change, with a memory that follows and with one that does not.

python tutorials/08_streams_that_change.py    # half a minute; GRADATIM_SMOKE=1: seconds

The stream is real: prices of electricity, if GRADATIM_DATA names a folder with streams/electricity.parquet. Else it is
the handwritten digits of scikit-learn, whose labels change places halfway.
"""

import os
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from gradatim import RefinedClassifier

smoke = os.environ.get("GRADATIM_SMOKE") == "1"


def stream():
    """Return X and y in the order of time, and what they are."""
    file = Path(os.environ.get("GRADATIM_DATA", "")) / "streams" / "electricity.parquet"
    if os.environ.get("GRADATIM_DATA") and file.exists():
        import pandas as pd

        rows = pd.read_parquet(file).iloc[: 1_000 if smoke else 10_000]
        return rows.drop(columns="y"), rows["y"].to_numpy(), "prices of electricity: up or down"
    X, y = load_digits(return_X_y=True)
    half = len(y) // 2
    return X, np.append(y[:half], (y[half:] + 3) % 10), "digits, whose labels change places halfway"


X, y, name = stream()
if smoke:
    X, y = X[:900:3], y[:900:3]
print(f"{name}; {len(y):,} rows, each predicted before it is learnt")
models = {"memory='all'": RefinedClassifier(), "memory='adaptive'": RefinedClassifier(memory="adaptive")}
for title, model in models.items():
    right = []
    for start in range(0, len(y), 32):
        rows, labels = X[start : start + 32], y[start : start + 32]
        right += [*(model.predict_then_learn(rows, labels) == labels)]
    quarters = [np.mean(part) for part in np.array_split(right, 4)]
    shares = ", ".join(f"{share:.3f}" for share in quarters)
    print(f"{title:18} right in each quarter: {shares}; answers rest on {model.memory_:,.0f} rows")
print(f"always the label before: {np.mean(y[1:] == y[:-1]):.3f}")
