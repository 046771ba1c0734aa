"""What an estimator has to stand: scikit-learn's checks, a size, a speed, and a kill in the middle of an update.

Source: scikit-learn's `check_estimator`; the kill follows `machine.kill_resume`.
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
"""What else an update from the command line goes through."""


def checks_failed(study: Study, smoke: bool) -> dict[str, Any]:
    """Return `tables.checks_failed`; a smoke run checks the regressor alone."""

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
        found = check_estimator(estimator, on_fail=None, on_skip=None)
    return [
        f"{type(estimator).__name__}: {f['check_name']}" for f in found if f["status"] in ("failed", "xfail")
    ]


def speeds(study: Study, smoke: bool) -> list[dict[str, Any]]:
    """Return `tables.predict_speed` and `tables.update_speed`: ratios of rows a second, median of repeats side by side.

    Two classes, 20 features. Predicting: 100,000 rows, after one pass over 2,048. Updating: one pass over 4,096 rows,
    ours in mini-batches of 32, river's adaptive random forest (its defaults) row by row on dictionaries made before;
    without river, which a smoke run does not need, that figure is left out.
    """
    asked, rows, repeats = (2_000, 256, 1) if smoke else (100_000, 4_096, REPEATS)
    found = study.cached(
        "speeds", [fingerprint(), asked, rows, repeats], lambda: _speeds(asked, rows, repeats)
    )
    bars = {"tables.predict_speed": ("predict", 0.3), "tables.update_speed": ("update", 15)}
    made = []
    for name, (key, bar) in bars.items():
        if f"{key}_other" not in found:
            continue
        ratios = found[f"{key}_other"] / found[f"{key}_ours"]
        own = claim(name, float(np.median(ratios)), float(ratios.min()), float(ratios.max()), bar, ">=")
        own["range"] = "least and most of the repeats"
        count = asked if key == "predict" else rows
        own["rows_per_second"] = {
            who: round(count / float(np.median(found[f"{key}_{who}"]))) for who in ("ours", "other")
        }
        made.append(own)
    if "update_other" in found:
        ratios = found["update_other"] / found["asked_ours"]
        three = [round(float(f(ratios)), 3) for f in (np.median, np.min, np.max)]
        made[-1]["beside"] = {"ours predicting every mini-batch before it learns it": three}
    return made


def _speeds(asked: int, rows: int, repeats: int) -> Values:
    """Return seconds of each repeat, ours and the other's in turns."""
    from sklearn.datasets import make_classification
    from sklearn.neural_network import MLPClassifier

    from gradatim.estimators import RefinedClassifier

    made = make_classification(rows, FEATURES, n_informative=10, random_state=0)
    x, y = (np.asarray(part) for part in made)
    queries = np.random.default_rng(0).normal(size=(asked, FEATURES))
    first = slice(0, rows // 2)
    network = MLPClassifier(hidden_layer_sizes=(64,), max_iter=20, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network.fit(x[first], y[first])
    ours = _learn(RefinedClassifier(random_state=0), x[first], y[first])
    named, answers = [dict(enumerate(row)) for row in x.tolist()], y.tolist()
    river = find_spec("river") is not None
    times: dict[str, list[float]] = {}

    def timed(key: str, work: Callable[[], object]) -> None:
        begun = time.perf_counter()
        work()
        times.setdefault(key, []).append(time.perf_counter() - begun)

    for _ in range(repeats):
        timed("predict_ours", lambda: ours.predict_proba(queries))
        timed("predict_other", lambda: network.predict_proba(queries))
        timed("update_ours", lambda: _learn(RefinedClassifier(random_state=0), x, y))
        timed("asked_ours", lambda: _learn(RefinedClassifier(random_state=0), x, y, ask=True))
        if river:
            timed("update_other", lambda: _grow(named, answers))
    return {key: np.asarray(values) for key, values in times.items()}


def _learn(model: Any, x: np.ndarray, y: np.ndarray, ask: bool = False) -> Any:
    """Return a model after one pass in mini-batches, each predicted before if `ask`."""
    for start in range(0, len(x), SIZE):
        rows = slice(start, start + SIZE)
        if ask and start:
            model.predict_proba(x[rows])
        model.partial_fit(x[rows], y[rows], classes=[0, 1])
    return model


def _grow(rows: list[dict[int, float]], answers: list[int]) -> None:
    model = build("forest", "classification", 0)
    for row, answer in zip(rows, answers, strict=True):
        model.learn_one(row, answer)


def killed_updates(study: Study, smoke: bool) -> dict[str, Any]:
    """Return `tables.killed_updates`: kills after which the state on disk is the old one, or the new one to rounding.

    Two updates by the same rows differ in the last digits now and then: sums are added up as memory lies.
    """
    times, rows = (1, 300) if smoke else (20, 6_000)
    found = study.cached(
        "killed", [fingerprint(*COMMANDS), times, rows], lambda: _killed(study.folder / "kill", times, rows)
    )
    whole = int(found["whole"].sum())
    made = claim("tables.killed_updates", whole, whole, whole, times, ">=")
    return made | {"already_new": int(found["new"].sum()), "of": times}


def _killed(home: Path, times: int, rows: int) -> Values:
    """Kill `gradatim update` at random moments of the last two thirds of its time; return whether the state is whole.

    A process that ends before its kill does not count: another moment is drawn.
    """
    home.mkdir(parents=True, exist_ok=True)
    first, more, state = (home / name for name in ("first.csv", "more.csv", "state.safetensors"))
    rng, stream = np.random.default_rng(0), random.Random(0)
    _write(first, rng, 300)
    _write(more, rng, rows)
    state.unlink(missing_ok=True)
    _finish("fit", _gradatim("fit", str(first), "--target", "y", "--state", str(state)))
    old, begun = state.read_bytes(), time.perf_counter()
    _finish("update", _gradatim("update", str(more), "--state", str(state)))
    seconds, new = time.perf_counter() - begun, state.read_bytes()
    if new == old:
        raise ValueError("gradatim update left the state as it was: there is nothing to interrupt")
    whole, already = [], []
    for _ in range(10 * times):
        if len(whole) == times:
            break
        state.write_bytes(old)
        process = _gradatim("update", str(more), "--state", str(state))
        time.sleep(seconds * stream.uniform(1 / 3, 1))
        ended = process.poll() is not None
        if not ended:
            os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        if not ended:
            held = state.read_bytes()
            already.append(held != old)
            whole.append(_loads(state) and (held in (old, new) or _alike(held, new)))
    return {"whole": np.asarray(whole), "new": np.asarray(already)}


def _alike(one: bytes, other: bytes) -> bool:
    """Return whether two files of tensors hold the same to rounding: names, shapes, kinds, numbers to 1e-9."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        first, second = load(one), load(other)
    except SafetensorError:  # torn
        return False
    return first.keys() == second.keys() and all(
        part.dtype == second[name].dtype
        and part.shape == second[name].shape
        and bool(torch.isclose(part.double(), second[name].double(), rtol=1e-9, atol=0).all())
        for name, part in first.items()
    )


def _loads(state: Path) -> bool:
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


def _finish(name: str, process: subprocess.Popen[str]) -> None:
    """Wait for a process; raise ValueError with its last words where it fails."""
    _, said = process.communicate()
    if process.returncode:
        raise ValueError(f"gradatim {name} failed: {said[-1000:].strip()}")
