"""Streams: whether saving between mini-batches changes an answer, and whether the cut of rows into calls does.

Source: the bars are this project's own; Dawid 1984 (rows in one pass).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from studies.tables.data import Table, load, names

from .figure import Figure, Part, counted, rounded

CYCLES, LEARNT = 200, 8
"""How often a state is saved and loaded, and how many rows it learns each time."""

CUTS = (1, 7, 10, 32, 50, 100, 500)
"""Rows of a call. Calls of random sizes are tried as well."""

ROWS, PROBES = 800, 100
"""Rows that are cut, and rows that are answered."""

LATE = 300
"""Rows after which late classes, late words and the values of a column that was constant come."""


class Stream(NamedTuple):
    """Rows to learn `x [n, columns]`, `y [n]`; rows to answer, and the weights of the first rows or None."""

    x: Any
    y: np.ndarray
    probe: Any
    weight: np.ndarray | None = None


def answers(model: Any, x: Any) -> np.ndarray:
    """Return probabilities `[n, C]` of a classifier, or three quantiles `[n, 3]` of a regressor."""
    if hasattr(model, "predict_proba"):
        return model.predict_proba(x)
    return model.predict(x, quantiles=[0.1, 0.5, 0.9])


def change_by_cycles(
    model: Callable[[], Any], keep: Callable[[Any], Any], stream: Stream, first: int, cycles: int
) -> Part:
    """Return the greatest change of a probability if a model is saved and loaded again and again, against never.

    A model that cannot be saved, loaded or asked counts as a change of 1.

    Args:
        model: makes a classifier.
        keep: saves and loads one, and returns what was loaded.
        stream: the rows.
        first: rows learnt at once at the start.
        cycles: of save, load and `LEARNT` rows.
    """
    never, always = (_learn(model(), stream, slice(first)) for _ in range(2))
    greatest = 0.0
    for cycle in range(cycles):
        part = slice(first + LEARNT * cycle, first + LEARNT * (cycle + 1))
        try:
            always = _learn(keep(always), stream, part)
            never = _learn(never, stream, part)
            if cycle % 10 == 9 or cycle + 1 == cycles:
                greatest = max(
                    greatest, _distance(answers(always, stream.probe), answers(never, stream.probe))
                )
        except Exception as error:
            return {"change": 1.0, "fault": f"cycle {cycle + 1}: {type(error).__name__}: {str(error)[:80]}"}
    return {"change": greatest, "fault": None}


def change_by_cut(
    model: Callable[[], Any], stream: Stream, cuts: Sequence[int], rng: np.random.Generator
) -> dict[str, float]:
    """Return by cut the greatest change of an answer against one call that learns all rows.

    Probabilities are compared as they are, the quantiles of a regression in deviations of y. Where calls of a cut fail,
    the change is 1.

    Args:
        model: makes an estimator.
        stream: the rows.
        cuts: rows of a call; 0 stands for random sizes from 1 to 500.
        rng: draws those sizes.
    """
    unit = 1.0 if hasattr(model(), "predict_proba") else float(np.std(stream.y)) or 1.0
    expected = answers(_learn(model(), stream, slice(None)), stream.probe) / unit
    changes = {}
    for cut in cuts:
        cut_model = model()
        try:
            for part in _parts_of(len(stream.y), cut, rng):
                cut_model = _learn(cut_model, stream, part)
            changes[str(cut or "random")] = _distance(answers(cut_model, stream.probe) / unit, expected)
        except Exception:
            changes[str(cut or "random")] = 1.0
    return changes


def _learn(model: Any, stream: Stream, part: slice) -> Any:
    rows = stream.x.iloc[part] if hasattr(stream.x, "iloc") else stream.x[part]
    weight = {} if stream.weight is None else {"sample_weight": stream.weight[part]}
    return model.partial_fit(rows, stream.y[part], **weight)


def _distance(first: np.ndarray, second: np.ndarray) -> float:
    """Return the greatest distance of answers; 1 where they have other shapes or are not finite."""
    if first.shape != second.shape or not (np.isfinite(first).all() and np.isfinite(second).all()):
        return 1.0
    return float(np.abs(first - second).max())


def _parts_of(count: int, cut: int, rng: np.random.Generator) -> Iterator[slice]:
    start = 0
    while start < count:
        size = cut or int(rng.choice([rng.integers(1, 10), rng.integers(10, 100), rng.integers(100, 501)]))
        yield slice(start, start + size)
        start += size


def hard(first: int, cycles: int) -> Stream:
    """Return rows of columns that are nearly equal, the first of weight 1,000: drawn as a user drew them."""
    rng = np.random.default_rng(2)

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        z = rng.normal(size=(count, 8))
        x = np.hstack([z[:, :1], z[:, :1] + 1e-3 * z[:, 1:]])
        return x, (x.sum(1) + 0.1 * rng.normal(size=count) > 0).astype(int)

    portions = [draw(first), *(draw(LEARNT) for _ in range(cycles))]
    x, y = (np.concatenate(parts) for parts in zip(*portions, strict=True))
    weight = np.where(np.arange(len(y)) < first, 1e3, 1.0)
    return Stream(x, y, draw(PROBES)[0], weight)


def real(name: str, count: int) -> Stream:
    """Return rows of a table in a random order, again from the start where it has too few."""
    table = load(name)
    order = np.random.default_rng(0).permutation(len(table.x))
    probe, order = order[:PROBES], np.resize(order[PROBES:], count)
    return Stream(table.x[order], table.y[order], table.x[probe])


def late(table: Table) -> Stream:
    """Return rows of a table in which much comes late.

    Categories are words. Rows of the last class come last, a rare word and the values of a column of numbers come
    after `LATE` rows: that column is constant before.
    """
    import pandas as pd

    rng = np.random.default_rng(0)
    order = rng.permutation(len(table.x))[: ROWS + PROBES]
    probe, order = np.sort(order[:PROBES]), order[PROBES:]
    if table.classes:
        last = table.y[order] == table.y[order].max()
        order = np.concatenate([order[~last], order[last]])
    x, begin = table.x[order].copy(), min(LATE, len(order) // 2)
    numbers = [column for column in range(x.shape[1]) if column not in table.categorical]
    if len(numbers) > 1:
        x[:begin, numbers[-1]] = 1.0
    frames = [_frame(pd, part, table.categorical) for part in (x, table.x[probe])]
    if table.categorical:
        place = frames[0].columns.get_loc(f"c{table.categorical[0]}")
        chosen = begin + np.flatnonzero(rng.random(len(order) - begin) < 0.1)
        frames[0].iloc[chosen, place] = "late"
    return Stream(frames[0], table.y[order], frames[1])


def _frame(pd: Any, x: np.ndarray, categorical: Sequence[int]) -> Any:
    columns = {}
    for place, values in enumerate(x.T):
        columns[f"c{place}"] = values
        if place in categorical:
            words = np.array([None if np.isnan(v) else f"level {v:g}" for v in values], dtype=object)
            columns[f"c{place}"] = words
    return pd.DataFrame(columns)


def _measure_cycles(folder: Path, data: str, first: int, cycles: int) -> Part:
    from gradatim import RefinedClassifier

    stream = hard(first, cycles) if data == "hard" else real(data, first + LEARNT * cycles)

    def keep(model: Any) -> Any:
        return RefinedClassifier.load(model.save(folder / "s.safetensors"))

    result = change_by_cycles(RefinedClassifier, keep, stream, first, cycles)
    return {"data": f"{data}, from {first:,} rows", **result}


def _measure_cut(folder: Path, kind: str, table: str, cuts: Sequence[int]) -> Part:
    from gradatim import RefinedClassifier, RefinedRegressor

    model = RefinedClassifier if kind == "classification" else RefinedRegressor
    return {
        "table": table,
        "changes": change_by_cut(model, late(load(table)), cuts, np.random.default_rng(1)),
    }


def _cycles_claims(results: list[Part]) -> list[Part]:
    changes = {result["data"]: rounded(result["change"]) for result in results}
    faults = {result["data"]: result["fault"] for result in results if result["fault"]}
    return [counted("cycles", max(result["change"] for result in results), changes=changes, faults=faults)]


def _cut_claims(results: list[Part]) -> list[Part]:
    tables = {result["table"]: rounded(max(result["changes"].values())) for result in results}
    cuts = {cut: rounded(max(result["changes"][cut] for result in results)) for cut in results[0]["changes"]}
    greatest = max(max(result["changes"].values()) for result in results)
    return [counted("cut", greatest, cuts=cuts, tables=tables)]


def _cycles_parts(smoke: bool) -> list[Part]:
    if smoke:
        return [
            {"data": "hard", "first": 400, "cycles": 4},
            {"data": "bundled-wine", "first": 8, "cycles": 4},
        ]
    tables = ("hard", "pendigits", "mushroom")
    return [{"data": name, "first": first, "cycles": CYCLES} for first in (2_000, LEARNT) for name in tables]


def _cut_parts(smoke: bool) -> list[Part]:
    cuts = (10, 0) if smoke else (*CUTS, 0)
    kinds = ("classification", "regression")
    pairs = [(kind, name) for kind in kinds for name in names(kind, "validation", smoke)]
    return [{"kind": kind, "table": name, "cuts": cuts} for kind, name in pairs]


FIGURES = {
    "cycles": Figure(_cycles_parts, _measure_cycles, _cycles_claims, ("cycles",)),
    "cut": Figure(_cut_parts, _measure_cut, _cut_claims, ("cut",)),
}
