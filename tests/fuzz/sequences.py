"""Sequences of learn, refuse, save, load, fork, merge beside an estimator never saved; faults of the disk."""

import contextlib
import copy
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gradatim.estimators import RefinedClassifier, RefinedRegressor
from gradatim.files.checkpoint import read

from .judge import REFUSED, attempt, check_answers

CLOSE = 1e-6
"""How far an answer may move by saving and loading."""


def frame(rng: np.random.Generator, rows: int) -> pd.DataFrame:
    """Return rows of numbers and words, some missing."""
    words = rng.choice(["red", "green", "blue", None], rows)
    return pd.DataFrame({"a": rng.normal(size=rows) * 3, "b": rng.integers(0, 5, rows), "w": words})


def target(rng: np.random.Generator, X: pd.DataFrame, kind: str) -> Any:
    """Return classes or numbers for rows."""
    score = X["a"].fillna(0) + X["b"] + rng.normal(size=len(X))
    return np.where(score > 2, "yes", "no") if kind == "classifier" else score.to_numpy()


def run(rng: np.random.Generator, folder: Path) -> str:
    """Run a short sequence of steps on two estimators, of which one is saved and loaded."""
    kind = ("classifier", "regressor")[rng.integers(2)]
    estimator: Any = RefinedClassifier if kind == "classifier" else RefinedRegressor
    X = frame(rng, int(rng.choice([3, 40, 300])))
    steps, asked = [f"{kind}, learn {len(X)}"], frame(rng, 4)
    saved = estimator().partial_fit(X, target(rng, X, kind))
    never = copy.deepcopy(saved)
    for _ in range(int(rng.integers(2, 6))):
        step = ("learn", "refuse", "save", "save", "ask", "merge")[rng.integers(6)]
        steps.append(step)
        if step == "learn":
            X = frame(rng, int(rng.integers(1, 9)))
            y = target(rng, X, kind)
            for model in (saved, never):
                model.partial_fit(X, y)
        elif step == "refuse":
            before = check_answers(saved, asked)
            bad = frame(rng, 3).assign(a=np.inf)
            if attempt(saved.partial_fit, bad, target(rng, bad.assign(a=0.0), kind))[0] is not REFUSED:
                return f"{steps}: infinity is learnt"
            if not np.array_equal(check_answers(saved, asked), before):
                return f"{steps}: a refused batch has changed the answers"
        elif step == "save":
            saved = estimator.load(saved.save(folder / "s"))
        elif step == "merge" and saved.task_.encoder is not None:
            X = frame(rng, 5)
            y = target(rng, X, kind)
            fork = saved.fork().partial_fit(X, y)
            saved.merge(fork)
            never.merge(never.fork().partial_fit(X, y))
            if attempt(saved.merge, fork)[0] is not REFUSED:
                return f"{steps}: a fork is merged twice"
        else:
            check_answers(saved, asked)
    p, q = (check_answers(model, asked, str(steps)) for model in (saved, never))
    scale = 1.0 if kind == "classifier" else max(np.abs(q).max(), 1.0)
    if np.abs(p - q).max() > CLOSE * scale:
        return f"{steps}: answers differ by {np.abs(p - q).max():.2g} from those of one never saved"
    if saved.task_.rows != never.task_.rows:
        return f"{steps}: {saved.task_.rows} rows, not {never.task_.rows}"
    return ""


def cut(rng: np.random.Generator, folder: Path) -> str:
    """Learn a table in one call and in calls of any sizes: the answers are the same."""
    kind = ("classifier", "regressor")[rng.integers(2)]
    n = int(rng.choice([20, 100, 280]))
    X = frame(rng, n)
    y, asked = target(rng, X, kind), frame(rng, 4)
    more = {"classes": ["no", "yes"]} if kind == "classifier" else {}
    estimator: Any = RefinedClassifier if kind == "classifier" else RefinedRegressor
    whole = estimator().partial_fit(X, y, **more)
    pieces, start, sizes = estimator(), 0, []
    while start < n:
        sizes.append(int(rng.integers(1, max(2, n // 2))))
        part = slice(start, start + sizes[-1])
        pieces.partial_fit(X.iloc[part], y[part], **more)
        start += sizes[-1]
    p, q = check_answers(whole, asked), check_answers(pieces, asked)
    gap = np.abs(p - q).max() / max(1.0, np.abs(p).max())
    return f"{kind} of {n} rows in calls of {sizes}: answers differ by {gap:.2g}" if gap > 1e-9 else ""


@contextlib.contextmanager
def broken_disk(rng: np.random.Generator) -> Iterator[list[str]]:
    """Let the k-th call of the system that writes, flushes or renames fail; yield the name of the one that did."""
    left = [int(rng.integers(1, 12))]
    failed: list[str] = []
    number = (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS, errno.EDQUOT)[rng.integers(5)]
    names = ("replace", "rename", "fsync", "write", "open", "unlink", "link", "mkdir", "fdopen")
    before = {name: getattr(os, name) for name in names}

    def failing(name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            if name != "open" or (
                len(arguments) > 1 and isinstance(arguments[1], int) and arguments[1] & os.O_CREAT
            ):
                left[0] -= 1
                if left[0] == 0:
                    failed.append(name)
                    raise OSError(number, os.strerror(number), str(arguments[0]))
            return before[name](*arguments, **options)

        return call

    for name in names:
        setattr(os, name, failing(name))
    try:
        yield failed
    finally:
        for name, function in before.items():
            setattr(os, name, function)


def disk(rng: np.random.Generator, folder: Path) -> str:
    """Save over a good state while a call of the system fails: the old state or the new one is there, and no rest."""
    from ..case_tools import leftovers

    X = frame(rng, 6)
    path = folder / "s"
    first = RefinedRegressor().partial_fit(X, X["b"])
    second = RefinedRegressor().partial_fit(X.head(4), X["b"].head(4))
    old = first.save(path).read_bytes()
    with broken_disk(rng) as failed:
        result, fault = attempt(second.save, path)
    what = f"os.{failed[0]} fails during save" if failed else "save"
    if fault:
        return f"{what}: {fault}"
    content = path.read_bytes() if path.exists() else b""
    rows = read(path)[1]["rows"]  # refuses a file that is not whole
    if (rows == 6 and content != old) or rows not in (4, 6):
        return f"{what}: neither the old state nor the new one is there"
    if result is not REFUSED and rows != 4:
        return f"{what}: it went well, but the old state is there"
    first.save(path)
    if rest := leftovers(folder):
        return f"{what}: {rest} is left after the next save"
    return ""
