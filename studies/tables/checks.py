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
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gradatim.estimators import RefinedClassifier, RefinedRegressor
from gradatim.provenance import on_threads

from .peers import fingerprint
from .river import build
from .scores import SIZE
from .verdicts import Three, constant, measured, unmeasured

if TYPE_CHECKING:
    from pathlib import Path

    from gradatim.comparison.experiment import Values
    from gradatim.comparison.runs import Study

FEATURES, REPEATS, SPEEDS = 20, 3, 2
REPEATED = "least and most of the repeats"
COMMANDS = ("cli.py", "commands", "files")
"""Other source files that an update from the command line runs."""


def checks_failed(study: Study, smoke: bool) -> dict[str, Any]:
    """Return the claim `tables.checks_failed`. A smoke run checks only the regressor."""

    def compute() -> Values:
        makers = (RefinedRegressor,) if smoke else (RefinedClassifier, RefinedRegressor)
        failed = [name for make in makers for name in _failed(make())]
        return {"failed": np.asarray(failed, dtype=np.str_)}

    failed = study.cached("checks", [fingerprint(), smoke], compute)["failed"].tolist()
    return constant("checks_failed", len(failed), failed=failed)


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
    """Return the claims `tables.predict_speed`, `tables.update_speed` and `tables.row_by_row`: medians of repeats.

    Ours and the other model are timed in turns, on two classes and 20 columns, by one thread.

    - Predicting: rows a second of 100,000 rows, after one pass over 2,048. The peer is an MLP of scikit-learn.
    - Updating: rows a second of one pass over 4,096 rows, each mini-batch of 32 predicted before it is learnt. The
      peer is river's adaptive random forest with its defaults, which predicts and learns row by row, on dictionaries
      made before.
    - Row by row: seconds of the processor for predicting and then learning a row, after 1,000 rows, up to 3,000. The
      peer is the same.

    Without river, which a smoke run does not need, the latter two are unmeasured.
    """
    sizes = (2_000, 256, 60, 90, 1) if smoke else (100_000, 4_096, 1_000, 3_000, REPEATS)
    river = find_spec("river") is not None
    depends = [SPEEDS, fingerprint(), version("river") if river else "", sizes]
    with on_threads(1):
        seconds = study.cached("speeds", depends, lambda: _speeds(*sizes))
    per_row = {
        key: values / (sizes[3] - sizes[2]) for key, values in seconds.items() if key.startswith("row_")
    }
    claims = [_faster("predict_speed", seconds["predict_other"], seconds["predict_ours"], sizes[0])]
    if not river:
        why = "river is not installed"
        return [*claims, unmeasured("update_speed", why), unmeasured("row_by_row", why)]
    alone = three_of(seconds["learn_other"] / seconds["learn_ours"])
    claims.append(_faster("update_speed", seconds["update_other"], seconds["update_ours"], sizes[1]))
    claims[-1]["beside"] = {"learning alone, without a prediction": [round(value, 3) for value in alone]}
    microseconds = {who: round(1e6 * float(np.median(per_row[f"row_{who}"]))) for who in ("ours", "other")}
    ratios = three_of(per_row["row_ours"] / per_row["row_other"])
    claims.append(measured("row_by_row", ratios, range=REPEATED, microseconds=microseconds))
    return claims


def _faster(name: str, other: np.ndarray, ours: np.ndarray, rows: int) -> dict[str, Any]:
    """Return a claim on how many times as many rows a second are ours, from the seconds of each repeat."""
    speed = {who: round(rows / float(np.median(s))) for who, s in (("ours", ours), ("other", other))}
    return measured(name, three_of(other / ours), range=REPEATED, rows_per_second=speed)


def three_of(ratios: np.ndarray) -> Three:
    """Return the median, the least and the most of repeats."""
    return float(np.median(ratios)), float(ratios.min()), float(ratios.max())


def _speeds(n_queries: int, rows: int, first: int, last: int, repeats: int) -> Values:
    """Return the seconds of each repeat. Ours and the other model are timed in turns."""
    from sklearn.datasets import make_classification

    data = make_classification(max(rows, last), FEATURES, n_informative=10, random_state=0)
    x, y = (np.asarray(part) for part in data)
    queries = np.random.default_rng(0).normal(size=(n_queries, FEATURES))
    network, half = _network(x[: rows // 2], y[: rows // 2]), slice(0, rows // 2)
    classifier = _learn(RefinedClassifier(random_state=0), x[half], y[half])
    named = [{f"x{place}": value for place, value in enumerate(row)} for row in x.tolist()]
    answers = y.tolist()
    work: dict[str, Callable[[], object]] = {
        "predict_ours": lambda: classifier.predict_proba(queries),
        "predict_other": lambda: network.predict_proba(queries),
        "learn_ours": lambda: _learn(RefinedClassifier(random_state=0), x[:rows], y[:rows]),
        "update_ours": lambda: _learn(RefinedClassifier(random_state=0), x[:rows], y[:rows], True),
    }
    makers: dict[str, Callable[[], Any]] = {"row_ours": lambda: RefinedClassifier(random_state=0)}
    if find_spec("river"):
        makers["row_other"] = partial(build, "forest", "classification", 0)
        work["learn_other"] = lambda: one_by_one(makers["row_other"](), named[:rows], answers, False)
        work["update_other"] = lambda: one_by_one(makers["row_other"](), named[:rows], answers)
    times: dict[str, list[float]] = {key: [] for key in (*work, *makers)}
    for _ in range(repeats):
        for key, call in work.items():
            start = time.perf_counter()
            call()
            times[key].append(time.perf_counter() - start)
        for key, make in makers.items():
            model = make()
            one_by_one(model, named[:first], answers, False)
            start = time.process_time()
            one_by_one(model, named[first:last], answers[first:])
            times[key].append(time.process_time() - start)
    return {key: np.asarray(values) for key, values in times.items()}


def _network(x: np.ndarray, y: np.ndarray) -> Any:
    """Return an MLP of scikit-learn after a fit."""
    from sklearn.neural_network import MLPClassifier

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return MLPClassifier(hidden_layer_sizes=(64,), max_iter=20, random_state=0).fit(x, y)


def _learn(model: Any, x: np.ndarray, y: np.ndarray, predict_first: bool = False) -> Any:
    """Return a model after one pass in mini-batches. With `predict_first` each is predicted before it is learnt."""
    for start in range(0, len(x), SIZE):
        rows = slice(start, start + SIZE)
        if predict_first and start:
            model.predict_proba(x[rows])
        model.partial_fit(x[rows], y[rows], classes=[0, 1])
    return model


def one_by_one(model: Any, rows: list[dict[str, float]], answers: list[int], predict: bool = True) -> None:
    """Teach a model, ours or river's, rows one by one, each predicted first. There may be more answers than rows."""
    for row, answer in zip(rows, answers, strict=False):
        if predict:
            model.predict_proba_one(row)
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
    intact, already = (int(outcomes[key].sum()) for key in ("whole", "new"))
    entry = constant("killed_updates", intact, already_new=already, of=times)
    return entry | {"bar": times, "holds": intact >= times}


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
