"""`fuzz(seed, cases)`: random and hostile inputs, each with its own check. A failure is a sentence with its seed.

One case is one input whose answer is checked: a column of a file, a container, a state, a sequence, a call.
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from . import commands, containers, damaged, rows, sequences
from .columns import COLUMNS, fuzz_columns
from .judge import Hang


class Part(NamedTuple):
    """A kind of case: its share of all cases, and a check that returns a failure or nothing."""

    share: float
    check: Callable[[np.random.Generator, Path], str] | None


PARTS: dict[str, Part] = {
    "columns": Part(0.13, None),
    "containers": Part(0.31, containers.agree),
    "odd-containers": Part(0.16, containers.hostile),
    "labels": Part(0.1, rows.learn_labels),
    "odd-labels": Part(0.06, rows.hostile_labels),
    "weights": Part(0.05, rows.weights),
    "regression": Part(0.04, rows.regression_of),
    "few-rows": Part(0.003, rows.few_rows),
    "odd-rows": Part(0.02, rows.answer_odd_rows),
    "refused": Part(0.005, rows.refuse_without_harm),
    "headers": Part(0.03, damaged.header_of),
    "states": Part(0.03, damaged.state_of),
    "tables": Part(0.012, damaged.table_of),
    "texts": Part(0.01, damaged.text_of),
    "arrays": Part(0.03, damaged.array_of),
    "foreign": Part(0.015, damaged.foreign),
    "sequences": Part(0.0002, sequences.run),
    "cuts": Part(0.0002, sequences.cut),
    "disk": Part(0.002, sequences.disk),
    "commands": Part(0.0015, commands.words_of),
    "threads": Part(0.00003, commands.readers_and_writers),
    "kills": Part(0.00002, commands.kill),
}


TRACE: dict[str, int] = {}
"""The open file in which a process says what it tries, so that a crash of the interpreter is found: `file`."""


def trace(text: str) -> None:
    """Say what is tried next."""
    if TRACE:
        os.pwrite(TRACE["file"], text.ljust(200).encode(), 0)


def shortened(text: str, length: int = 700) -> str:
    """Return a text without its middle where it is long: an input stands at its start, what is wrong at its end."""
    return text if len(text) <= length else f"{text[: length // 3]} ... {text[-2 * length // 3 :]}"


def run_part(name: str, seed: int, cases: int, folder: Path) -> tuple[int, list[str]]:
    """Try cases of one part from one seed; return how many, and the failures."""
    tried, failures = 0, []
    while tried < cases:
        # a case has a seed of its own, so that it can be tried alone
        case_seed = seed * 1_000_003 + tried
        rng = np.random.default_rng([case_seed, list(PARTS).index(name)])
        again = f"python -m tests.fuzz --part {name} --seed {case_seed}"
        trace(f"{tried} {again}")
        work = Path(tempfile.mkdtemp(dir=folder))
        try:
            check = PARTS[name].check
            if check is None:
                count, sentences = fuzz_columns(rng, COLUMNS, work)
            else:
                sentence = check(rng, work)
                count, sentences = 1, [sentence] if sentence else []
        except (Exception, Hang) as error:
            count, sentences = 1, [f"{type(error).__name__}: {str(error)[:400]}"]
        finally:
            shutil.rmtree(work, ignore_errors=True)
        tried += count
        texts = [shortened(" ".join(sentence.split())) for sentence in sentences]
        failures += [
            f"{name}: {text} [{again}]".encode("utf-8", "backslashreplace").decode() for text in texts
        ]
    return tried, failures


def fuzz(seed: int, cases: int, parts: list[str] | None = None) -> tuple[int, list[str]]:
    """Try at least so many cases, of every part by its share; return how many, and the failures as sentences."""
    tried, failures = 0, []
    names = parts or list(PARTS)
    total = sum(PARTS[name].share for name in names)
    draw = np.random.default_rng(seed)
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        for name in names:
            # a part of few cases gets its share on average
            count = int(cases * PARTS[name].share / total + draw.random())
            more, sentences = run_part(name, seed, count, Path(folder))
            tried, failures = tried + more, failures + sentences
        if tried < cases:
            more, sentences = run_part(names[0], seed + 500_000_000, cases - tried, Path(folder))
            tried, failures = tried + more, failures + sentences
    return tried, failures


def job(seed: int, cases: int, parts: list[str] | None, trace_file: str) -> tuple[int, list[str]]:
    """Run one round of `fuzz` in a process of its own, on one thread."""
    torch.set_num_threads(1)
    if "file" not in TRACE:
        TRACE["file"] = os.open(trace_file, os.O_RDWR | os.O_CREAT)
    return fuzz(seed, cases, parts)
