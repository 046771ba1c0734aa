"""Checks of an estimator: scikit-learn's own, its size, its speed, and a kill in the middle of an update.

Source: scikit-learn's `check_estimator`; the kill is that of the study `core`.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gradatim.comparison.runs import claim

from .peers import fingerprint
from .protocol import SIZE
from .river import build

if TYPE_CHECKING:
    from pathlib import Path

    from gradatim.comparison.experiment import Values
    from gradatim.comparison.runs import Study

FEATURES, REPEATS = 20, 3
COMMANDS = ("cli.py", "commands", "files")
"""Other source files that an update from the command line runs."""


def checks_failed(study: Study, smoke: bool) -> dict[str, Any]:
    """Return the claim `tables.checks_failed`. A smoke run checks only the regressor."""

    def compute() -> Values:
        from gradatim.estimators import RefinedClassifier, RefinedRegressor

        makers = (RefinedRegressor,) if smoke else (RefinedClassifier, RefinedRegressor)
        failed = [name for make in makers for name in _failed(make())]
        return {"failed": np.asarray(failed, dtype=np.str_)}

    failed = study.cached("checks", [fingerprint(), smoke], compute)["failed"].tolist()
    number = len(failed)
    return claim("tables.checks_failed", number, number, number, 0, "<=") | {"failed": failed}


def _failed(estimator: Any) -> list[str]:
    """Return the names of the checks that an estimator fails."""
    from sklearn.utils.estimator_checks import check_estimator

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(estimator, on_fail=None, on_skip=None)
    return [
        f"{type(estimator).__name__}: {f['check_name']}"
        for f in results
        if f["status"] in ("failed", "xfail")
    ]


def speeds(study: Study, smoke: bool) -> list[dict[str, Any]]:
    """Return the claims `tables.predict_speed` and `tables.update_speed`: ratios of rows a second.

    Each is the median of repeats, timed in turns, on two classes and 20 features.

    - Predicting: 100,000 rows, after one pass over 2,048. The peer is an MLP of scikit-learn.
    - Updating: one pass over 4,096 rows, ours in mini-batches of 32. The peer is river's adaptive random forest with
      its defaults, row by row, on dictionaries made before. Without river, which a smoke run does not need,
      this claim is missing.
    """
    n_queries, rows, repeats = (2_000, 256, 1) if smoke else (100_000, 4_096, REPEATS)
    seconds = study.cached(
        "speeds", [fingerprint(), n_queries, rows, repeats], lambda: _speeds(n_queries, rows, repeats)
    )
    bars = {"tables.predict_speed": ("predict", 0.3), "tables.update_speed": ("update", 15)}
    entries = []
    for name, (key, bar) in bars.items():
        if f"{key}_other" not in seconds:
            continue
        ratios = seconds[f"{key}_other"] / seconds[f"{key}_ours"]
        entry = claim(name, float(np.median(ratios)), float(ratios.min()), float(ratios.max()), bar, ">=")
        entry["range"] = "least and most of the repeats"
        count = n_queries if key == "predict" else rows
        entry["rows_per_second"] = {
            who: round(count / float(np.median(seconds[f"{key}_{who}"]))) for who in ("ours", "other")
        }
        entries.append(entry)
    if "update_other" in seconds:
        ratios = seconds["update_other"] / seconds["asked_ours"]
        three = [round(float(f(ratios)), 3) for f in (np.median, np.min, np.max)]
        entries[-1]["beside"] = {"ours predicting every mini-batch before it learns it": three}
    return entries


def _speeds(n_queries: int, rows: int, repeats: int) -> Values:
    """Return the seconds of each repeat. Ours and the other model are timed in turns."""
    from sklearn.datasets import make_classification
    from sklearn.neural_network import MLPClassifier

    from gradatim.estimators import RefinedClassifier

    data = make_classification(rows, FEATURES, n_informative=10, random_state=0)
    x, y = (np.asarray(part) for part in data)
    queries = np.random.default_rng(0).normal(size=(n_queries, FEATURES))
    first = slice(0, rows // 2)
    network = MLPClassifier(hidden_layer_sizes=(64,), max_iter=20, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network.fit(x[first], y[first])
    classifier = _learn(RefinedClassifier(random_state=0), x[first], y[first])
    named, answers = [dict(enumerate(row)) for row in x.tolist()], y.tolist()
    river = find_spec("river") is not None
    times: dict[str, list[float]] = {}

    def timed(key: str, work: Callable[[], object]) -> None:
        start = time.perf_counter()
        work()
        times.setdefault(key, []).append(time.perf_counter() - start)

    for _ in range(repeats):
        timed("predict_ours", lambda: classifier.predict_proba(queries))
        timed("predict_other", lambda: network.predict_proba(queries))
        timed("update_ours", lambda: _learn(RefinedClassifier(random_state=0), x, y))
        timed("asked_ours", lambda: _learn(RefinedClassifier(random_state=0), x, y, predict_first=True))
        if river:
            timed("update_other", lambda: _train_forest(named, answers))
    return {key: np.asarray(values) for key, values in times.items()}


def _learn(model: Any, x: np.ndarray, y: np.ndarray, predict_first: bool = False) -> Any:
    """Return a model after one pass in mini-batches. With `predict_first` each is predicted before it is learnt."""
    for start in range(0, len(x), SIZE):
        rows = slice(start, start + SIZE)
        if predict_first and start:
            model.predict_proba(x[rows])
        model.partial_fit(x[rows], y[rows], classes=[0, 1])
    return model


def _train_forest(rows: list[dict[int, float]], answers: list[int]) -> None:
    model = build("forest", "classification", 0)
    for row, answer in zip(rows, answers, strict=True):
        model.learn_one(row, answer)


def killed_updates(study: Study, smoke: bool) -> dict[str, Any]:
    """Return the claim `tables.killed_updates`: kills after which the state on disk is the old or the new one.

    The new one counts up to rounding. Two updates by the same rows may differ in their last digits, because the
    order of a sum depends on memory alignment.
    """
    times, rows = (1, 300) if smoke else (20, 6_000)
    outcomes = study.cached(
        "killed",
        [fingerprint(*COMMANDS), times, rows],
        lambda: _kill_updates(study.folder / "kill", times, rows),
    )
    intact = int(outcomes["whole"].sum())
    entry = claim("tables.killed_updates", intact, intact, intact, times, ">=")
    return entry | {"already_new": int(outcomes["new"].sum()), "of": times}


def _kill_updates(home: Path, times: int, rows: int) -> Values:
    """Kill `gradatim update` at random moments of the last two thirds of its time. Return whether the state is
    intact.

    A process that ends before its kill does not count. Another moment is sampled.
    """
    home.mkdir(parents=True, exist_ok=True)
    first, more, state = (home / name for name in ("first.csv", "more.csv", "state.safetensors"))
    rng, stream = np.random.default_rng(0), random.Random(0)
    _write(first, rng, 300)
    _write(more, rng, rows)
    state.unlink(missing_ok=True)
    _wait_for("fit", _gradatim("fit", str(first), "--target", "y", "--state", str(state)))
    old, start = state.read_bytes(), time.perf_counter()
    _wait_for("update", _gradatim("update", str(more), "--state", str(state)))
    seconds, new = time.perf_counter() - start, state.read_bytes()
    if new == old:
        raise ValueError("gradatim update left the state as it was: there is nothing to interrupt")
    intact, already = [], []
    for _ in range(10 * times):
        if len(intact) == times:
            break
        state.write_bytes(old)
        process = _gradatim("update", str(more), "--state", str(state))
        time.sleep(seconds * stream.uniform(1 / 3, 1))
        ended = process.poll() is not None
        if not ended:
            os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        if not ended:
            current = state.read_bytes()
            already.append(current != old)
            intact.append(_is_loadable(state) and (current in (old, new) or _same_tensors(current, new)))
    return {"whole": np.asarray(intact), "new": np.asarray(already)}


def _same_tensors(content: bytes, reference: bytes) -> bool:
    """Return whether two files of tensors are equal to rounding: names, shapes, dtypes, and numbers to 1e-9."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        first, second = load(content), load(reference)
    except SafetensorError:  # torn
        return False
    return first.keys() == second.keys() and all(
        part.dtype == second[name].dtype
        and part.shape == second[name].shape
        and bool(torch.isclose(part.double(), second[name].double(), rtol=1e-9, atol=0).all())
        for name, part in first.items()
    )


def _is_loadable(state: Path) -> bool:
    """Return whether a state can be loaded."""
    from gradatim.estimators import RefinedClassifier

    try:
        RefinedClassifier.load(state)
    except (ValueError, OSError):
        return False
    return True


def _write(path: Path, rng: np.random.Generator, rows: int) -> None:
    """Write a CSV of numbers and one column of categories."""
    x = rng.normal(size=(rows, 8))
    kinds = rng.integers(3, size=rows)
    y = x[:, 0] + x[:, 1] * (kinds - 1) > 0
    lines = [",".join([*(f"x{j}" for j in range(8)), "kind", "y"])]
    for row, kind, answer in zip(x, kinds, y, strict=True):
        lines.append(",".join([*(f"{value:.6g}" for value in row), "abc"[kind], "yes" if answer else "no"]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _gradatim(*arguments: str) -> subprocess.Popen[str]:
    """Start a command of gradatim in a process of its own."""
    command = [sys.executable, "-m", "gradatim", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def _wait_for(name: str, process: subprocess.Popen[str]) -> None:
    """Wait for a process. Raise ValueError with the end of its stderr if it fails."""
    _, stderr = process.communicate()
    if process.returncode:
        raise ValueError(f"gradatim {name} failed: {stderr[-1000:].strip()}")
