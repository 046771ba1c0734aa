"""A new table that begins at a prior: loss after its first rows beside the estimator alone and the prior alone.

`python -m studies.meta.start FILE.json` judges on validation tasks, which chose `estimators.started.POWER` and `ODDS`.

Source: Argyriou, Evgeniou, Pontil 2008 (the protocol of training and test tasks).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from gradatim import GroupedClassifier, GroupedRegressor, RefinedClassifier, RefinedRegressor

from .own import KNOWN, task_losses
from .peers import Answer, alone
from .tasks import TABLES, Tasks, divide_by_hash, read


def started(tasks: Tasks, prior: Any) -> Answer:
    """Return what an estimator says of a task that begins at a prior."""

    def answer(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
        if tasks.classes:
            return RefinedClassifier(prior=prior).partial_fit(x, y.astype(int)).predict_proba(new)[:, 1]
        return RefinedRegressor(prior=prior).partial_fit(x, y).predict(new)

    return answer


def as_group(tasks: Tasks, prior: Any) -> Answer:
    """Return what the prior says of a task that is a group of it."""

    def answer(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
        target, group = y.astype(int) if tasks.classes else y, np.zeros(len(new), int)
        one: Any = prior.fork().partial_fit(x, target, np.zeros(len(y), int))
        return one.predict_proba(new, group)[:, 1] if tasks.classes else one.predict(new, group)

    return answer


def records(names: tuple[str, ...] = TABLES, judged: int | None = None) -> list[dict[str, Any]]:
    """Return a record for each table, method and count of known rows; `judged`: validation tasks at most."""
    found = []
    for name in names:
        tasks = read(name)
        training, judges = divide_by_hash(tasks, validation=True)
        rows = tasks.of(training)
        y = tasks.y[rows].astype(int) if tasks.classes else tasks.y[rows]
        prior: Any = (GroupedClassifier if tasks.classes else GroupedRegressor)()
        prior.fit(tasks.x[rows], y, tasks.task[rows])
        methods = {
            "with prior": started(tasks, prior),
            "alone": alone(tasks, training),
            "as a group": as_group(tasks, prior),
        }
        for method, answer in methods.items():
            for known in KNOWN:
                value = float(np.nanmean(task_losses(tasks, answer, judges[:judged], known)))
                found.append({"table": name, "method": method, "rows": known, "loss": value})
    return found


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(records(), indent=1) + "\n")
