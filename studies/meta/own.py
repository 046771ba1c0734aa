"""One's own tasks: loss of a new task after its first rows, ours and what people use; coverage, few tasks, many groups.

`python -m studies.meta.own` judges on validation tasks, `--test` on test tasks, which chose nothing.

Source: Argyriou, Evgeniou, Pontil 2008 (the protocol of training and test tasks).
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from gradatim import GroupedRegressor

from .peers import PEERS, Answer, ours
from .tasks import TABLES, Tasks, divide, read

LENGTHS = (8, 16, 32)


def loss(tasks: Tasks, answer: Answer, judges: np.ndarray, known: int | float) -> float:
    """Return the loss on the rows behind the first `known` (a count or a share) of each task, the mean over tasks.

    Numbers: squared error over the variance of all rows. Classes: log-loss.
    """
    found = []
    for task in judges:
        rows = tasks.rows(int(task))
        n = known if isinstance(known, int) else int(known * len(rows))
        if len(rows) < n + 4:
            continue
        first, later = rows[:n], rows[n:]
        said, y = answer(tasks.x[first], tasks.y[first], tasks.x[later]), tasks.y[later]
        if tasks.classes:
            said = np.clip(said, 1e-4, 1 - 1e-4)
            found.append(-(y * np.log(said) + (1 - y) * np.log(1 - said)).mean())
        else:
            found.append(((said - y) ** 2).mean() / tasks.y.var())
    return float(np.mean(found))


def records(
    validation: bool, names: tuple[str, ...] = TABLES, peers: tuple[str, ...] = tuple(PEERS)
) -> list[dict[str, Any]]:
    """Return a record for each table, method and count of known rows: `table`, `method`, `rows`, `loss`, `seconds`."""
    found = []
    for name in names:
        tasks = read(name)
        training, judges = divide(tasks, validation)
        for peer in peers:
            start = time.perf_counter()
            try:
                answer = PEERS[peer](tasks, training)
            except ImportError:
                continue
            taught = time.perf_counter() - start
            for known in (*LENGTHS, 0.8):
                if peer == "refit with task id" and known == 0.8:
                    continue
                value = loss(tasks, answer, judges, known)
                found.append({"table": name, "method": peer, "rows": known, "loss": value, "seconds": taught})
    return found


def coverage(validation: bool, names: tuple[str, ...] = ("school", "parkinsons")) -> list[dict[str, Any]]:
    """Return how often 80% intervals hold the rows that come later, by table and count of known rows."""
    found = []
    for name in names:
        tasks = read(name)
        training, judges = divide(tasks, validation)
        rows = tasks.of(training)
        model = GroupedRegressor().fit(tasks.x[rows], tasks.y[rows], tasks.task[rows])
        for known in (1, 2, 4, 8, 16, 32):
            held = []
            for task in judges:
                rows = tasks.rows(int(task))
                if len(rows) < known + 4:
                    continue
                first, later = rows[:known], rows[known:]
                one = model.fork().partial_fit(tasks.x[first], tasks.y[first], np.zeros(known, int))
                low, high = one.predict(tasks.x[later], np.zeros(len(later), int), quantiles=[0.1, 0.9]).T
                held.append(((tasks.y[later] >= low) & (tasks.y[later] <= high)).mean())
            found.append({"table": name, "rows": known, "coverage": float(np.mean(held))})
    return found


def few_tasks(validation: bool, count: int = 5, draws: int = 4) -> list[dict[str, Any]]:
    """Return losses of ours and of boosted trees + effect that only `count` tasks have taught."""
    found = []
    for name in TABLES:
        tasks = read(name)
        training, judges = divide(tasks, validation)
        for draw in range(draws):
            some = np.random.default_rng(draw).permutation(training)[:count]
            pair = {
                "ours": ours(tasks, some),
                "boosted trees + effect": PEERS["boosted trees + effect"](tasks, some),
            }
            for known in LENGTHS:
                for peer, answer in pair.items():
                    value = loss(tasks, answer, judges[:20], known)
                    found.append({"table": name, "method": peer, "draw": draw, "rows": known, "loss": value})
    return found


def many_groups(count: int = 100_000, rows: int = 20, columns: int = 8) -> dict[str, float]:
    """Return rows a second in many groups over those in one group, and bytes a group."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count * rows, columns))
    group = rng.permutation(np.repeat(np.arange(count), rows))
    y = x[:, 0] + rng.normal(size=count)[group] + rng.normal(size=len(x))
    model = GroupedRegressor().fit(x[:20_000], y[:20_000], rng.integers(0, 200, 20_000))
    speed = []
    for names in (group, np.zeros_like(group)):
        one, start = model.fork(), time.perf_counter()
        for at in range(0, len(x), 100_000):
            one.partial_fit(x[at : at + 100_000], y[at : at + 100_000], names[at : at + 100_000])
        speed.append(len(x) / (time.perf_counter() - start))
        if names is group:
            state = one.state_
            size = state.compact()[1].bytes_per_group + 8 + sys.getsizeof(state.index) / len(state) + 2 * 32
    return {"rows_a_second": speed[0], "over_one_group": speed[0] / speed[1], "bytes_a_group": size}


def figures(found: list[dict[str, Any]]) -> dict[str, float]:
    """Return the claims: geometric means over tables and rows of ours over alone, and over each table's best peer."""
    by = {(r["table"], r["method"], r["rows"]): r["loss"] for r in found}
    tables, methods = sorted({r["table"] for r in found}), {r["method"] for r in found} - {"ours", "alone"}

    def mean(table: str, method: str) -> float:
        return float(np.exp(np.mean([np.log(by[table, method, n]) for n in LENGTHS])))

    best = {table: min(mean(table, method) for method in methods) for table in tables}
    long = [
        by[t, "ours", 0.8] / min(by[t, "alone", 0.8], by[t, "boosted trees + effect", 0.8]) for t in tables
    ]
    over = {"over_alone": [mean(t, "ours") / mean(t, "alone") for t in tables]}
    over |= {"over_best": [mean(t, "ours") / best[t] for t in tables], "long": long}
    return {f"meta.own.{name}": float(np.exp(np.mean(np.log(values)))) for name, values in over.items()}


def main(arguments: list[str]) -> None:
    """Measure, on test tasks with `--test`, and write what was found to the file that is named, as JSON."""
    validation = "--test" not in arguments
    found = records(validation)
    few = few_tasks(validation)
    both = [[np.log(r["loss"]) for r in few if r["method"] == m] for m in ("ours", "boosted trees + effect")]
    held = coverage(validation)
    claims = figures(found)
    claims["meta.own.few_tasks"] = float(np.exp(np.mean(both[0]) - np.mean(both[1])))
    claims["meta.own.coverage"] = float(np.mean([abs(r["coverage"] - 0.8) for r in held]))
    groups = many_groups()
    claims |= {"meta.groups": groups["over_one_group"], "meta.group_bytes": groups["bytes_a_group"]}
    whole = {
        "validation": validation,
        "claims": claims,
        "records": found,
        "few": few,
        "coverage": held,
        "groups": groups,
    }
    Path(next(a for a in arguments if not a.startswith("--"))).write_text(json.dumps(whole, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
