"""Processes that share a state: updates at once, and readers while it is replaced.

Source: the bars are this project's own; POSIX.1-2017, rename and fork.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .figure import Figure, Part, counted
from .processes import command, preload, run, start, wait
from .sources import rows

PAIRS, READS = 200, 10_000
BEFORE, FIRST, SECOND = 300, 64, 65
"""Rows of the state, and of the two files that update it, which take equally long."""

AHEAD = 0.02
"""Seconds until two processes begin at once."""

Update = Callable[[Path, Path], Callable[[], Any]]
"""Returns a call that learns a file into a state."""


def update(state: Path, file: Path) -> Callable[[], int]:
    """Return the command that learns a file into a state."""
    return command("update", str(file), "--state", str(state), "--quiet")


def write_rows(path: Path, count: int, seed: int) -> Path:
    """Write rows with a target `y` as CSV; return the path."""
    table = rows(count, seed)
    table.x.assign(y=table.labels).to_csv(path, index=False)
    return path


def learnt_rows(state: Path) -> float:
    """Return how many rows a state says that it has learnt, or NaN where it cannot be read."""
    from gradatim import RefinedClassifier

    try:
        return float(RefinedClassifier.load(state).task_.rows)
    except Exception:
        return float("nan")


def lost_rows(
    update: Update,
    state: Path,
    files: Sequence[Path],
    sizes: Sequence[int],
    count: Callable[[Path], float],
    apart: float = 0.0,
) -> Part:
    """Return how many rows are lost where several processes update a state at once, and how many were refused.

    A process that does not end with code 0 refused its rows, which is no loss.

    Args:
        update: returns what each process does.
        state: that all processes change.
        files: a file for each process.
        sizes: its rows.
        count: returns how many rows a state has learnt.
        apart: seconds between the first process and the second.
    """
    before, begin = count(state), time.monotonic() + AHEAD

    def at(moment: float, call: Callable[[], Any]) -> Callable[[], Any]:
        def wait_and_call() -> Any:
            time.sleep(max(0.0, moment - time.monotonic()))
            return call()

        return wait_and_call

    moments = [begin + apart * place for place in range(len(files))]
    calls = [update(state, file) for file in files]
    numbers = [start(at(*pair)) for pair in zip(moments, calls, strict=True)]
    codes = [wait(number) for number in numbers]
    learnt = sum(size for size, code in zip(sizes, codes, strict=True) if code == 0)
    after = count(state)
    lost = sum(sizes) if np.isnan(after) else max(0.0, before + learnt - after)
    return {"lost": lost, "refused": sum(code != 0 for code in codes), "hung": codes.count(None)}


def mixed(
    read: Callable[[Path], Any], states: Sequence[Path], path: Path, count: int, expected: Sequence[Any]
) -> Part:
    """Return how many reads of a path were of no single state, while a process puts states there by turns.

    Args:
        read: returns what identifies a state: of everything in it.
        states: whole files.
        path: where they are put.
        count: how many reads.
        expected: what `read` returns of each state.
    """
    shutil.copy(states[0], path)
    number = start(lambda: _replace(states, path))
    try:
        answers = [_attempt(read, path) for _ in range(count)]
    finally:
        os.kill(number, signal.SIGKILL)
        os.waitpid(number, 0)
    counts = [answers.count(answer) for answer in expected]
    faults = sorted({str(answer)[:120] for answer in answers if answer not in expected})
    return {"mixed": count - sum(counts), "reads": count, "of_state": counts, "faults": faults[:5]}


def _replace(states: Sequence[Path], path: Path) -> None:
    temporary = path.with_name("next")
    while True:
        for state in states:
            os.link(state, temporary)
            os.replace(temporary, path)
            time.sleep(0.0005)


def _attempt(read: Callable[[Path], Any], path: Path) -> Any:
    try:
        return read(path)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def fitted(folder: Path, name: str = "s.safetensors", seed: int = 0, count: int = BEFORE) -> Path:
    """Return a state that `gradatim fit` wrote."""
    state, file = folder / name, write_rows(folder / f"{name}.csv", count, seed)
    code = run(command("fit", str(file), "--target", "y", "--state", str(state), "--quiet"))
    if code != 0:
        raise ValueError(f"gradatim fit ended with {code}")
    file.unlink()
    return state


def _measure_lost(folder: Path, pairs: int) -> Part:
    preload()
    origin, state = fitted(folder), folder / "shared.safetensors"
    files = [write_rows(folder / f"{size}.csv", size, size) for size in (FIRST, SECOND)]
    results = []
    for pair in range(pairs):
        shutil.copy(origin, state)
        apart = 0.002 * (pair % 5)  # the moment of writing is short
        results.append(lost_rows(update, state, files, (FIRST, SECOND), learnt_rows, apart))
    return {name: sum(result[name] for result in results) for name in results[0]} | {"pairs": pairs}


def _measure_mixed(folder: Path, reads: int, early: bool) -> Part:
    from gradatim import RefinedClassifier

    preload()
    counts = (60, 90) if early else (300, 340)
    states = [fitted(folder, f"{count}.safetensors", count, count) for count in counts]
    probe = rows(3, 9).x

    def read(path: Path) -> Any:
        model = RefinedClassifier.load(path)
        if early:  # what is held is answered slowly, but written quickly
            return model.save(folder / "again.safetensors").read_bytes()
        return model.task_.rows, model.predict_proba(probe).tolist()

    return mixed(read, states, folder / "s.safetensors", reads, [read(state) for state in states])


def _lost_claims(results: list[Part]) -> list[Part]:
    sums = {name: sum(result[name] for result in results) for name in results[0]}
    beside = {name: sums[name] for name in ("pairs", "refused", "hung")}
    return [counted("lost_updates", sums["lost"], **beside)]


def _mixed_claims(results: list[Part]) -> list[Part]:
    reads, faults = sum(result["reads"] for result in results), [f for r in results for f in r["faults"]]
    states = [result["of_state"] for result in results]
    count = sum(result["mixed"] for result in results)
    return [counted("mixed_reads", count, reads=reads, of_state=states, faults=faults)]


def _lost_parts(smoke: bool) -> list[Part]:
    return [{"pairs": 4}] if smoke else [{"pairs": PAIRS // 4}] * 4


def _mixed_parts(smoke: bool) -> list[Part]:
    """Return parts of reads: of states that answer slowly a few, of those that hold their rows more."""
    counts = ((40, False), (160, True)) if smoke else ((1_500, False), (1_500, False), (READS - 3_000, True))
    return [{"reads": count, "early": early} for count, early in counts]


FIGURES = {
    "lost": Figure(_lost_parts, _measure_lost, _lost_claims, ("lost_updates",)),
    "mixed": Figure(_mixed_parts, _measure_mixed, _mixed_claims, ("mixed_reads",)),
}
