"""Whose rows a state holds: training rows that can be read out of the file with nothing but the file.

Every array of a file is tried:

- tensors whose last or first dimension is that of the table or of the encoded table;
- columns that stand one by one;
- arrays in the header.

They are compared with the training rows as they are, and as the state's own map encodes them.

Source: Fredrikson, Jha, Ristenpart 2015 (what a model tells about its training rows).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from scipy.spatial import KDTree

from studies.tables.data import load

from .figure import Figure, Part, counted
from .mutants import Layout
from .processes import command, preload, run

NEAR = 1e-3
"""A row is recovered if each column is within this share of the column's deviation."""

MOST_ARRAYS = 64
"""Arrays of equal length among which columns are looked for, at most."""

ROWS, EARLY = 1_000, 200
"""Rows that are learnt, and rows before the map is fixed."""

TABLES = (
    "quake",
    "concrete_compressive_strength",
    "power_plant",
    "pendigits",
    "mfeat_morphological",
    "banknote_authentication",
)
"""Tables of several columns of numbers."""

WAYS = ("fit", "partial_fit", "command", "early")


def recovered(path: Path, x: np.ndarray, encoded: np.ndarray | None = None) -> int:
    """Return how many rows can be read out of a file.

    Args:
        path: a state.
        x: the training rows `[n, columns]`, numbers without missing values.
        encoded: the same rows as the state's map encodes them, `[n, width]`, already in deviations.
    """
    deviation = np.where(x.std(0) > 0, x.std(0), 1.0)
    standard = (x - x.mean(0)) / deviation
    forms = [(standard, x.mean(0), deviation)]  # a form of the rows, and what takes arrays of the file to it
    forms += [(form, np.zeros(1), np.ones(1)) for form in (standard, encoded) if form is not None]
    hit = np.zeros(len(x), dtype=bool)
    arrays = list(_arrays(path))
    for form, centre, scale in forms:
        for rows in _candidates(arrays, form.shape[1]):
            hit |= _near((rows - centre) / scale, form)
        hit |= _by_column(arrays, form, centre, scale)
    return int(hit.sum())


def alone(x: np.ndarray) -> np.ndarray:
    """Return which rows `[n]` of x `[n, columns]` no other row is near: the row of several is nobody's."""
    z = x / np.where(x.std(0) > 0, x.std(0), 1.0)
    distance, _ = KDTree(z).query(z, k=2, p=np.inf)
    return distance[:, 1] > NEAR


def _arrays(path: Path) -> Iterator[np.ndarray]:
    """Yield every array of numbers in a file, of its tensors and of its header."""
    content = path.read_bytes()
    for tensor in load_tensors(content).values():
        yield tensor.to(torch.float64).numpy()
    yield from _lists(Layout.of(content).header)


def _lists(value: Any) -> Iterator[np.ndarray]:
    """Yield the arrays of numbers in JSON, in texts of JSON as well."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from _lists(inner)
    elif isinstance(value, list):
        try:
            array = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError):
            array = None
        if array is not None and array.size:
            yield array
        elif array is None:
            for inner in value:
                yield from _lists(inner)
    elif isinstance(value, str) and value[:1] in ("[", "{"):
        try:
            yield from _lists(json.loads(value))
        except ValueError:
            return


def _near(candidates: np.ndarray, form: np.ndarray) -> np.ndarray:
    """Return which rows `[n]` of a form `[n, width]` are near one of the candidates `[k, width]`."""
    candidates = candidates[np.isfinite(candidates).all(1)]
    if not len(candidates):
        return np.zeros(len(form), dtype=bool)
    distance, _ = KDTree(candidates).query(form, p=np.inf, distance_upper_bound=NEAR)
    return np.isfinite(distance)


def _candidates(arrays: list[np.ndarray], width: int) -> Iterator[np.ndarray]:
    """Yield what could be rows `[k, width]`: arrays whose last or first dimension, or a part of it, is that wide."""
    for array in arrays:
        if array.ndim and array.shape[-1] >= width and array.shape[-1] < width + 3:
            yield array.reshape(-1, array.shape[-1])[:, :width]
        if array.ndim == 2 and array.shape[0] == width:
            yield array.T
        if array.ndim == 1 and array.size > width and array.size % width == 0:
            yield array.reshape(-1, width)
            yield array.reshape(width, -1).T


def _by_column(
    arrays: list[np.ndarray], form: np.ndarray, centre: np.ndarray, scale: np.ndarray
) -> np.ndarray:
    """Return which rows `[n]` stand in arrays of equal length, a column in each: all at one place.

    Among many arrays some numbers are near by chance. So each column is looked for in the array that has most of it,
    and rows must stand at a tenth of the places.
    """
    hit = np.zeros(len(form), dtype=bool)
    flat = [array.reshape(-1) for array in arrays if array.size and max(array.shape) == array.size]
    for size in {len(array) for array in flat}:
        group = np.stack([array for array in flat if len(array) == size])
        if not form.shape[1] <= len(group) <= MOST_ARRAYS:
            continue
        votes = np.zeros((form.shape[1], len(group)))  # how often an array holds a column of a row
        for place in range(size):
            with np.errstate(over="ignore", invalid="ignore"):
                values = (group[:, place][:, None] - centre) / scale
            near = np.abs(form[:, None, :] - values[None]) < NEAR
            votes += near[np.asarray(near.any(axis=1)).all(axis=1)].sum(0).T
        with np.errstate(over="ignore", invalid="ignore"):
            rows = (group[votes.argmax(1)].T - centre) / scale
        if _near(form, rows).sum() >= max(1, size // 10):
            hit |= _near(rows, form)
    return hit


def _state(folder: Path, way: str, x: np.ndarray, y: np.ndarray, classes: int) -> Path:
    """Return a state that has learnt rows in some way."""
    from gradatim import RefinedClassifier, RefinedRegressor

    kind = RefinedClassifier if classes else RefinedRegressor
    path = folder / f"{way}.safetensors"
    if way == "fit":
        return kind().fit(x, y).save(path)
    if way != "command":
        return kind().partial_fit(x, y).save(path)
    np.savetxt(
        folder / "rows.csv",
        np.column_stack([x, y]),
        delimiter=",",
        header=",".join([*(f"c{place}" for place in range(x.shape[1])), "y"]),
        comments="",
        fmt="%.17g",
    )
    task = "classification" if classes else "regression"
    fit = ["fit", str(folder / "rows.csv"), "--target", "y", "--task", task, "--state", str(path), "--quiet"]
    if (code := run(command(*fit))) != 0:
        raise ValueError(f"gradatim fit ended with {code}")
    return path


def _measure(folder: Path, table: str) -> Part:
    from gradatim import RefinedClassifier, RefinedRegressor
    from gradatim.preprocessing import read_columns

    preload()
    data = load(table)
    order = np.random.default_rng(0).permutation(len(data.x))
    order = order[alone(data.x[order])][:ROWS]
    x, y = data.x[order], data.y[order]
    kind = RefinedClassifier if data.classes else RefinedRegressor
    result: Part = {"table": table, "rows": len(x)}
    for way in WAYS:
        count = EARLY if way == "early" else len(x)
        path = _state(folder, way, x[:count], y[:count], data.classes)
        encoder = kind.load(path).task_.encoder
        encoded = None
        if encoder is not None:
            columns = read_columns(x[:count])
            if way == "command":
                columns = type(columns)(encoder.names, columns.values, True)
            encoded = encoder.encode(columns)
        result[way] = recovered(path, x[:count], encoded)
    return result


def _claims(results: list[Part]) -> list[Part]:
    fixed = sum(result[way] for result in results for way in WAYS[:-1])
    tables = {
        result["table"]: {name: value for name, value in result.items() if name != "table"}
        for result in results
    }
    early = {"rows": EARLY, "recovered": [result["early"] for result in results]}
    return [counted("rows_in_state", fixed, tables=tables, before_the_map=early)]


def _parts(smoke: bool) -> list[Part]:
    return [{"table": name} for name in (("bundled-diabetes", "bundled-breast_cancer") if smoke else TABLES)]


FIGURES = {"rows_in_state": Figure(_parts, _measure, _claims, ("rows_in_state",))}
