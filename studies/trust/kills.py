"""Kills at random times: whether a state or a run is torn, and what is left beside it.

Source: the bars are this project's own; POSIX.1-2017, kill and rename.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .figure import Figure, Part, counted
from .processes import command, preload, run, start, wait
from .updates import SECOND, Update, fitted, update, write_rows

KILLS, TRAINED_KILLS = 500, 50
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)

Weights = dict[str, torch.Tensor]


def killed(
    call: Callable[[], Any], seconds: float, signals: Sequence[int], rng: np.random.Generator
) -> int | None:
    """Start a process for a call, send it a signal at a random time, and return how it ended.

    Args:
        call: what the process does.
        seconds: that it takes undisturbed. Half of the signals come in the last third, where it writes.
        signals: to choose from.
        rng: draws the signal and the time.
    """
    number = start(call)
    low = rng.choice([0.0, 0.67])
    time.sleep(seconds * rng.uniform(low, 1.05))
    os.kill(number, signals[int(rng.integers(len(signals)))])  # it is not waited for yet, so it is there
    return wait(number)


def torn(update: Update, folder: Path, old: bytes, file: Path, count: int, seed: int) -> Part:
    """Return how many killed updates leave a state that is neither old nor new, bit for bit, and what they leave.

    After each kill the same update is called once more, and must end as it does without a kill. Then the files beside
    the state are counted.

    Args:
        update: returns what a process does.
        folder: empty; the state is `s.safetensors` there.
        old: the bytes of the state.
        file: the rows that it learns.
        count: how many kills.
        seed: of signals and times.
    """
    state, rng = folder / "s.safetensors", np.random.default_rng(seed)
    new = _undisturbed(update, state, old, file)
    twice = _undisturbed(update, state, new, file)
    seconds = min(_seconds(update, state, old, file) for _ in range(5))
    result = {"kills": count, "torn": 0, "left": 0, "old": 0, "faults": []}
    for _ in range(count):
        state.write_bytes(old)
        killed(update(state, file), seconds, SIGNALS, rng)
        between = state.read_bytes() if state.exists() else b""
        result["old"] += between == old
        result["torn"] += between not in (old, new)
        code = run(update(state, file))
        expected = {old: new, new: twice}.get(between, b"")
        if code != 0 or state.read_bytes() != expected:
            result["torn"] += between in (old, new)
            result["faults"].append(f"code {code} after the kill")
        extra = [path for path in folder.iterdir() if path != state]
        result["left"] += len(extra)
        for path in extra:
            path.unlink()
    return result | {"faults": result["faults"][:5], "seconds": seconds}


def _undisturbed(update: Update, state: Path, before: bytes, file: Path) -> bytes:
    """Return the bytes of a state after an update that nothing disturbs; twice, since they must be the same."""
    contents = []
    for _ in range(2):
        state.write_bytes(before)
        if (code := run(update(state, file))) != 0:
            raise ValueError(f"an update that nothing disturbs ended with {code}")
        contents.append(state.read_bytes())
    if contents[0] != contents[1]:
        raise ValueError("an update writes other bytes when it is called again: nothing to compare with")
    return contents[0]


def _seconds(update: Update, state: Path, before: bytes, file: Path) -> float:
    state.write_bytes(before)
    begin = time.monotonic()
    run(update(state, file))
    return time.monotonic() - begin


def trained_torn(
    train: Callable[[Path, bool], Callable[[], Any]], folder: Path, count: int, seed: int
) -> Part:
    """Return how many killed runs of training are torn, and what they leave.

    After each kill every checkpoint must be whole. Then the run is resumed. Its weights must be those of a run that
    nothing disturbed, bit for bit, and so must the names of its files.

    Args:
        train: returns what a process does, which trains into a folder, or resumes.
        folder: empty.
        count: how many kills.
        seed: of signals and times.
    """
    rng = np.random.default_rng(seed)
    reference, path = folder / "undisturbed", folder / "run"
    seconds = min(_trained_seconds(train, target) for target in (path, reference))
    weights, names = _weights(reference), _names(reference)
    if not _equal(_weights(path), weights):
        raise ValueError("a training gives other weights when it is called again: nothing to compare with")
    result = {"kills": count, "torn": 0, "left": 0, "old": 0, "faults": []}
    for _ in range(count):
        shutil.rmtree(path, ignore_errors=True)
        killed(train(path, False), seconds, SIGNALS, rng)
        fault = _unreadable(path)
        code = run(train(path, True))
        if fault is None and code != 0:
            fault = f"resuming ended with {code}"
        if fault is None and not _equal(_weights(path), weights):
            fault = "the weights differ"
        result["torn"] += fault is not None
        result["faults"] += [] if fault is None else [fault]
        result["left"] += len(_names(path) - names)
    return result | {"faults": result["faults"][:5], "seconds": seconds}


def _trained_seconds(train: Callable[[Path, bool], Callable[[], Any]], folder: Path) -> float:
    """Return how long a training takes that nothing disturbs."""
    begin = time.monotonic()
    if (code := run(train(folder, False))) != 0:
        raise ValueError(f"a training that nothing disturbs ended with {code}")
    return time.monotonic() - begin


def _unreadable(folder: Path) -> str | None:
    """Return which checkpoint of a folder cannot be read, or None."""
    from gradatim.files.checkpoint import read

    for path in folder.glob("*.safetensors"):
        try:
            read(path, kind="checkpoint")
        except Exception as error:
            return f"{path.name}: {error}"
    return None


def _weights(folder: Path) -> Weights:
    from safetensors.torch import load

    return load((folder / "learner.safetensors").read_bytes())


def _equal(first: Weights, second: Weights) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _training(recipe: Path) -> Callable[[Path, bool], Callable[[], int]]:
    def train(folder: Path, resume: bool) -> Callable[[], int]:
        options = ["--resume"] if resume else []
        return command("train", str(recipe), "--out", str(folder), "--quiet", *options)

    return train


def _measure(folder: Path, kills: int, seed: int, training: bool) -> Part:
    preload()
    (folder / "here").mkdir()
    if training:
        from gradatim import Greedy, LinearRegression, Recipe, TrainConfig
        from gradatim.methods import method

        config = TrainConfig(iterations=30, tasks=4, warmup=1, checkpoint_every=1, log_every=5, threads=1)
        recipe = Recipe(
            method("parametric-gradients"), LinearRegression(3), Greedy(batch_size=8, horizon=2), config
        )
        (folder / "recipe.json").write_text(json.dumps(recipe.to_json()))
        return trained_torn(_training(folder / "recipe.json"), folder / "here", kills, seed)
    old, file = fitted(folder).read_bytes(), write_rows(folder / "more.csv", SECOND, 1)
    return torn(update, folder / "here", old, file, kills, seed)


def _claims(results: list[Part]) -> list[Part]:
    kills, count, left = (sum(result[name] for result in results) for name in ("kills", "torn", "left"))
    old, faults = sum(result["old"] for result in results), [f for r in results for f in r["faults"]]
    return [
        counted("torn", count, kills=kills, still_old=old, faults=faults[:10]),
        counted("leftovers", left, kills=kills),
    ]


def _parts(smoke: bool) -> list[Part]:
    """Return parts of kills, of updates and of trainings."""
    sizes = ((12, 1, False), (3, 1, True)) if smoke else ((KILLS, 10, False), (TRAINED_KILLS, 5, True))
    return [
        {"kills": kills // parts, "seed": seed, "training": training}
        for kills, parts, training in sizes
        for seed in range(parts)
    ]


FIGURES = {"kills": Figure(_parts, _measure, _claims, ("torn", "leftovers"))}
