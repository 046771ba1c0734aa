"""Labels, weights and numbers of every size: what is learnt is exact, what is answered finite, a refusal harmless."""

import datetime
import math
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

from gradatim.estimators import RefinedClassifier, RefinedRegressor

from .judge import FAILED, REFUSED, Wrong, attempt, check_answers

SIZES = (0.0, 5e-324, 1e-310, 1e-200, 1e-30, 1.0, 3.0, 1e15, 1e100, 1e154, 1e160, 1e300, 1.7e308)


def labels_of(rng: np.random.Generator, n: int) -> tuple[list[Any], str]:
    """Return n labels of one type, and its name."""
    kinds: dict[str, list[Any]] = {
        "word": ["a", "b", "é", "007", "7", "nan", "", " a", "None", "🦉", "x" * 500, "A"],
        "whole": [0, 1, -1, 7, 2**31, 2**53, 2**53 + 1, 2**53 + 2, 2**62, -(2**60)],
        "large": [2**63, 2**63 + 1, 2**64 - 1, 2**53 + 1],
        "truth": [True, False],
    }
    kind = list(kinds)[rng.integers(len(kinds))]
    pool = kinds[kind]
    return [pool[i] for i in rng.integers(0, len(pool), n)], kind


def boxed(rng: np.random.Generator, labels: list[Any], kind: str) -> Any:
    """Return labels in a container."""
    dtype = {"word": object, "whole": np.int64, "large": np.uint64, "truth": np.bool_}[kind]
    form = int(rng.integers(7))
    if form == 0:
        return list(labels)
    if form == 1:
        return np.array(labels, dtype=dtype)
    if form == 2:
        return pd.Series(labels, dtype=None if kind != "large" else "uint64")
    if form == 3:
        return np.array(labels, dtype=object)
    if form == 4:
        return pl.Series(labels, dtype=pl.UInt64 if kind == "large" else None)
    if form == 5:
        if kind == "large":  # pandas rounds a list of them
            return pd.Series(np.array(labels, dtype=np.uint64)).astype("UInt64")
        return pd.Series(labels, dtype={"word": "string", "whole": "Int64", "truth": "boolean"}[kind])
    arrow = pa.array(labels, pa.uint64() if kind == "large" else None)
    return (
        pd.Series(pd.arrays.ArrowExtensionArray(arrow))
        if rng.random() < 0.5
        else pd.Series(labels, dtype=object)
    )


def learn_labels(rng: np.random.Generator, folder: Path) -> str:
    """Learn labels in one or two calls: the classes are exactly those that came."""
    n = int(rng.integers(1, 6))
    labels, kind = labels_of(rng, n)
    X = rng.normal(size=(n, 1))
    y = boxed(rng, labels, kind)
    model = RefinedClassifier()
    what = f"{type(y).__name__} of {getattr(y, 'dtype', kind)} {labels!r:.200}"
    result, fault = attempt(model.partial_fit, X, y)
    if fault:
        return f"{what}: {fault}"
    if result is REFUSED:
        return f"{what}: these labels are refused"
    wanted = sorted(set(labels))
    if [plain(c) for c in model.classes_] != wanted:
        return f"{what}: classes are {model.classes_!r}, not {wanted!r:.200}"
    if rng.random() < 0.6:
        same_kind = rng.random() < 0.7
        more, kind2 = labels_of(rng, n)
        while same_kind and kind2 != kind:
            more, kind2 = labels_of(rng, n)
        z = boxed(rng, more, kind2)
        before = model.classes_.tolist()
        result, fault = attempt(model.partial_fit, X, z)
        what = f"{what}, then {type(z).__name__} of {getattr(z, 'dtype', kind2)} {more!r:.200}"
        if fault:
            return f"{what}: {fault}"
        if result is REFUSED:
            if same_kind:
                return f"{what}: these labels are refused"
            return (
                "" if model.classes_.tolist() == before else f"{what}: refused, but the classes have changed"
            )
        numeric = {"whole", "large", "truth"}
        if {kind, kind2} <= numeric or kind == kind2:
            union = sorted(set(labels) | set(more))
            if [plain(c) for c in model.classes_] != union:
                return f"{what}: classes are {model.classes_!r}, not {union!r:.300}"
    return ""


def plain(label: Any) -> Any:
    """Return a label as Python has it."""
    return label.item() if isinstance(label, np.generic) else label


def hostile_labels(rng: np.random.Generator, folder: Path) -> str:
    """Give labels of mixed, missing or impossible kinds."""
    odd: list[Any] = [
        None, math.nan, pd.NA, pd.NaT, math.inf, 0.5, 1, "a", True, b"x", 1j, [1], {}, (1,), object(),
        10**30, np.float32(1),
        Decimal(1), datetime.date(2024, 1, 1), np.datetime64("2024"), "\ud800", -0.0, 1e308, 2**53 + 1,
        np.int8(1), type,
    ]  # fmt: skip
    n = int(rng.integers(0, 5))
    labels = [odd[i] for i in rng.integers(0, len(odd), n)]
    form = int(rng.integers(5))
    try:
        y: Any = (
            [labels, np.array(labels, dtype=object), pd.Series(labels, dtype=object)][form % 3]
            if form < 3
            else (
                np.zeros(
                    tuple(rng.integers(0, 4, int(rng.integers(0, 3)))),
                    dtype=["f8", "M8[D]", "c16", "U2", "?"][rng.integers(5)],
                )
                if form == 3
                else odd[rng.integers(len(odd))]
            )
        )
    except Exception:
        return ""
    X = rng.normal(size=(max(n, 1), 2))
    for model in (RefinedClassifier(), RefinedRegressor()):
        result, fault = attempt(model.partial_fit, X, y)
        if fault:
            return f"{type(model).__name__}, y = {type(y).__name__} {y!r:.200}: {fault}"
        if result is REFUSED and any(name.endswith("_") for name in vars(model)):
            return f"{type(model).__name__}, y = {y!r:.200}: refused, but it has learnt {sorted(vars(model))}"
    return ""


def weights(rng: np.random.Generator, folder: Path) -> str:
    """Give weights of any size or kind; what is learnt is finite."""
    n = int(rng.integers(1, 6))
    X, y = rng.normal(size=(n, 2)), rng.integers(0, 2, n)
    form = int(rng.integers(6))
    if form == 0:
        weight: Any = np.array([SIZES[i] for i in rng.integers(0, len(SIZES), n)])
    elif form == 1:
        weight = [(-1.0, math.nan, math.inf, 0.0, 1.0)[i] for i in rng.integers(0, 5, n)]
    elif form == 2:
        weight = [("a", None, 1, 2.5, 1j, [1], 10**400, True)[i] for i in rng.integers(0, 8, n)]
    elif form == 3:
        weight = np.ones(tuple(rng.integers(0, 6, int(rng.integers(0, 3)))))
    elif form == 4:
        weight = pd.Series(rng.random(n), dtype=("Float64", "float32", "object")[rng.integers(3)])
    else:
        weight = rng.integers(0, 3, n).astype(("i1", "u8", "?", "f2")[rng.integers(4)])
    for model in (RefinedClassifier(), RefinedRegressor()):
        result, fault = attempt(model.partial_fit, X, y, sample_weight=weight)
        if fault:
            return f"{type(model).__name__}, sample_weight {type(weight).__name__} {weight!r:.200}: {fault}"
        if result is REFUSED and hasattr(model, "task_"):
            return f"{type(model).__name__}, sample_weight {weight!r:.200}: refused, but rows are learnt"
        if result is not REFUSED and not np.isfinite(model.task_.rows):
            return f"{type(model).__name__}, sample_weight {weight!r:.200}: {model.task_.rows} rows"
    return ""


def few_rows(rng: np.random.Generator, folder: Path) -> str:
    """Learn a few rows of any size and weight, and answer: finite, normalised, alone as together."""
    n = int(rng.integers(1, 9))
    with np.errstate(over="ignore"):
        X = rng.normal(size=(n, 2)) * SIZES[rng.integers(len(SIZES))]
        y = rng.normal(size=n) * SIZES[rng.integers(len(SIZES))]
    X = np.where(np.isfinite(X), X, 1e308)
    X[rng.random(X.shape) < 0.2] = np.nan
    weight = np.array([SIZES[i] for i in rng.integers(1, len(SIZES), n)]) if rng.random() < 0.3 else None
    y = np.where(np.isfinite(y), y, 1.7e308)
    model, target = (
        (RefinedRegressor(), y) if rng.random() < 0.5 else (RefinedClassifier(), rng.integers(0, 3, n))
    )
    what = f"{type(model).__name__} of X = {X.tolist()}, y = {target.tolist()}, weight {weight}"
    result, fault = attempt(model.partial_fit, X, target, sample_weight=weight)
    if fault or result is REFUSED:
        return f"{what}: {fault}" if fault else ""

    def answer() -> str:
        p = check_answers(model, X, what)
        scale = max(np.abs(p).max(), 1e-300)
        if np.abs(check_answers(model, X[:1], what) - p[:1]).max() > 1e-9 * scale:
            return f"{what}: a row alone is answered otherwise"
        if isinstance(model, RefinedRegressor):
            levels = model.predict(X, quantiles=[0.1, 0.5, 0.9])
            if np.isnan(levels).any() or (np.diff(levels, axis=1) < 0).any():
                return f"{what}: quantiles {levels[0]}"
        return ""

    return judged(answer, what)


def judged(function: Any, what: str) -> str:
    """Return what is wrong with how a check ends, or nothing."""
    result, fault = attempt(function)
    if result is FAILED:
        return fault if what[:40] in fault else f"{what}: {fault}"
    return "" if result is REFUSED else result


@cache
def fitted(kind: str) -> Any:
    """Return an estimator that has learnt a table of numbers, words and dates, with a fixed map."""
    rng = np.random.default_rng(0)
    n = 300
    days = np.datetime64("2024-01-01") + rng.integers(0, 90, n)
    columns = {
        "x": rng.normal(size=n),
        "day": days.astype("M8[us]"),
        "word": rng.choice(["red", "green", "blue"], n),
    }
    frame = pd.DataFrame({**columns, "flag": rng.random(n) < 0.5, "k": rng.integers(0, 9, n)})
    frame.loc[rng.random(n) < 0.1, "x"] = np.nan
    if kind == "classifier":
        return RefinedClassifier().partial_fit(frame, np.where(frame["k"] > 4, "b", "a"))
    return RefinedRegressor().partial_fit(frame, frame["k"] + columns["x"])


CELLS: tuple[Any, ...] = (
    0.0, -1.5, 1e9, -9999, 1e300, -1.7e308, 5e-324, math.nan, None, math.inf, "red", "new", "", "12",
    "1e5", "nan", True,
    datetime.date(2024, 2, 3), datetime.datetime(9999, 12, 31, 23, 59), datetime.date(1, 1, 1), pd.NaT,
    pd.NA, "2024-02-03",
    2**53 + 1, 10**30, "x" * 10_000, "\0", pd.Timestamp("2024-01-05", tz="UTC"), Decimal("1.5"), b"red",
    1j, [1], "🦉",
    datetime.timedelta(3), np.float32(2.5), np.int8(-3), np.datetime64("2024-01-05T10"),
)  # fmt: skip


def answer_odd_rows(rng: np.random.Generator, folder: Path) -> str:
    """Ask a fitted estimator about rows of odd cells: alone as together, finite, or refused."""
    model = fitted(("classifier", "regressor")[rng.integers(2)])
    n = int(rng.integers(1, 5))
    columns = {}
    for name in ("x", "day", "word", "flag", "k"):
        cells = [CELLS[i] for i in rng.integers(0, len(CELLS), n)]
        if rng.random() < 0.6:
            cells = [cells[0]] * n
        columns[name] = pd.Series(cells, dtype=object) if rng.random() < 0.7 else cells
    try:
        X = pd.DataFrame(columns)
        if rng.random() < 0.1:
            X = X[[str(name) for name in rng.permutation(list(X))]]
        cells = [cell for column in columns.values() for cell in column]
        # Arrow crashes where an object of NumPy stands among others
        is_plain = all(type(cell) in (float, int, str, bool, type(None), datetime.date) for cell in cells)
        if is_plain and rng.random() < 0.7:
            X = pa.Table.from_pandas(X, preserve_index=False)
        elif is_plain and rng.random() < 0.3:
            X = pl.from_pandas(X)  # through Arrow
    except Exception:
        return ""
    what = f"{type(model).__name__} asked {type(X).__module__}.{type(X).__name__} {columns!r:.500}"

    def ask() -> np.ndarray:
        return check_answers(model, X, what)

    p, fault = attempt(ask)
    if fault:
        return f"{what}: {fault}"
    if p is REFUSED:
        return ""
    i = int(rng.integers(n))
    alone = X.slice(i, 1) if hasattr(X, "slice") and not isinstance(X, pd.DataFrame) else X.iloc[[i]]
    single, fault = attempt(check_answers, model, alone, what)
    if fault:
        return f"{what}, row {i} alone: {fault}"
    if single is REFUSED:
        return f"{what}: row {i} alone is refused, together it is answered"
    if np.abs(single[0] - p[i]).max() > 1e-9 * max(1.0, np.abs(p).max()):
        return f"{what}: row {i} alone is answered {single[0]}, together {p[i]}"
    return ""


def refuse_without_harm(rng: np.random.Generator, folder: Path) -> str:
    """Give a fitted estimator rows to learn that it may refuse: then it answers bitwise as before."""
    kind = ("classifier", "regressor")[rng.integers(2)]
    model, asked = fitted(kind), _asked()
    before = check_answers(model, asked)
    n = int(rng.integers(1, 4))
    columns = {
        name: [CELLS[i] for i in rng.integers(0, len(CELLS), n)] for name in ("x", "day", "word", "flag", "k")
    }
    columns |= {"x": [math.inf] * n} if rng.random() < 0.5 else {"x": [1j] * n}
    y: Any = ["a"] * n if kind == "classifier" else [1.0] * n
    if rng.random() < 0.3:
        y = [1, "a", None, 2.5, math.nan][:n]
    weight = None if rng.random() < 0.7 else [-1.0] * n
    call = (model.partial_fit, model.predict_then_learn)[rng.integers(2)]
    what = f"{type(model).__name__} learns {columns!r:.400}, y {y!r}, weight {weight}"
    try:
        X = pd.DataFrame({name: pd.Series(cells, dtype=object) for name, cells in columns.items()})
    except Exception:
        return ""
    result, fault = attempt(call, X, y, sample_weight=weight)
    if fault:
        fitted.cache_clear()
        return f"{what}: {fault}"
    if result is not REFUSED:
        fitted.cache_clear()
        return f"{what}: infinity, complex numbers or odd labels are learnt"
    if not np.array_equal(check_answers(model, asked), before):
        fitted.cache_clear()
        return f"{what}: refused, but answers have changed"
    return ""


@cache
def _asked() -> pd.DataFrame:
    """Return a row to ask about."""
    return pd.DataFrame(
        {"x": [0.3], "day": [np.datetime64("2024-02-01", "us")], "word": ["red"], "flag": [True], "k": [3]}
    )


def regression_of(rng: np.random.Generator, folder: Path) -> str:
    """Give numbers as y in every container: they are learnt exactly or refused."""
    n = int(rng.integers(1, 6))
    size = SIZES[rng.integers(len(SIZES))]
    with np.errstate(all="ignore"):
        values = np.nan_to_num(rng.normal(size=n) * size, posinf=1e99, neginf=-1e99)
        single = values.astype(np.float32)
    forms = (
        values.tolist(), values, pd.Series(values), pl.Series(values), pd.Series(values, dtype="Float64"), single,
        [Decimal(v) for v in values], values.astype(object), values[:, None], [str(v) for v in values],
        pd.Series(pd.arrays.ArrowExtensionArray(pa.array(values))),
    )  # fmt: skip
    y = forms[rng.integers(len(forms))]
    model = RefinedRegressor()
    what = f"y = {type(y).__name__} of {getattr(y, 'dtype', '')} {y!r:.200}"
    result, fault = attempt(model.partial_fit, rng.normal(size=(n, 1)), y)
    if fault and "column-vector" not in fault:
        return f"{what}: {fault}"
    if result is not REFUSED and model.task_.rows != n if hasattr(model, "task_") else False:
        raise Wrong(f"{what}: {model.task_.rows} rows of {n}")
    return ""
