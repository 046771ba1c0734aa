"""Damaged states and checkpoints: how many are loaded with other answers, and how many end without a clear line.

What counts:

- *accepted*: the file was damaged, its checksum was not computed anew, and it answers otherwise than before.
- *traceback*: reading it or asking it does not end in a `ValueError` of one line that names the file. It may as well
  hang, crash, or answer what is not finite. A fresh checksum is no excuse.

An edit of the header with a fresh checksum that is consistent is no damage that a reader can tell; it may answer
otherwise.

Source: DeMillo, Lipton, Sayward 1978 (mutants).
"""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .figure import Figure, Part, counted
from .mutants import Mutant, mutants
from .processes import isolated
from .sources import SOURCES, Reader

MUTANTS = 20_000
"""Damaged files in a full run."""

CHUNK = 250
"""Damaged files of a part."""

SECONDS = 10.0
"""That reading a file and asking it may take."""

Answers = list[Any]


@dataclass(frozen=True)
class Source:
    """A file that is damaged, and what reads it.

    Attributes:
        name: of the file's kind.
        path: of the whole file.
        read: loads a file and returns what asks it: arrays, and lists of plain values.
    """

    name: str
    path: Path
    read: Reader


def judge(source: Source, mutant: Mutant, expected: Answers, folder: Path) -> str:
    """Return how reading a damaged file ends.

    - `refused`: one clear line;
    - `same`: the answers of before;
    - `edited`: other answers, of a file whose checksum is fresh;
    - `accepted`: other answers;
    - anything else: what came in place of a clear line.
    """
    path = folder / source.path.name
    path.write_bytes(mutant.content)
    loaded = False
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            ask = source.read(path)
            loaded = True
            answers = ask()
    except Exception as error:
        if clear(error, path):
            return "refused"
        if loaded and mutant.stamped and isinstance(error, ValueError):
            return "edited"  # a consistent file, of columns that are not those of the rows
        return f"{type(error).__name__}: {str(error)[:120]}"
    if not all(np.isfinite(part).all() for part in answers if isinstance(part, np.ndarray)):
        return "not finite"
    if same(answers, expected):
        return "same"
    return "edited" if mutant.stamped else "accepted"


def clear(error: Exception, path: Path) -> bool:
    """Return whether an error is a line for a user: a plain ValueError that names the file.

    Example:
        >>> clear(ValueError("s.safetensors is damaged: take a copy"), Path("s.safetensors"))
        True
        >>> clear(ValueError("could not convert string to float"), Path("s.safetensors"))
        False
    """
    text = str(error)
    return type(error) is ValueError and path.name in text and "\n" not in text.strip()


def same(answers: Answers, expected: Answers) -> bool:
    """Return whether two lists of answers are equal, bit for bit."""
    if len(answers) != len(expected):
        return False
    pairs = zip(answers, expected, strict=True)
    return all(
        np.array_equal(*pair) if isinstance(pair[1], np.ndarray) else pair[0] == pair[1] for pair in pairs
    )


def tally(outcomes: Iterable[tuple[str, str]]) -> Part:
    """Return counts of pairs (kind of damage, outcome): accepted and tracebacks, with their kinds."""
    pairs = list(outcomes)
    accepted = Counter(kind for kind, outcome in pairs if outcome == "accepted")
    ends = ("refused", "same", "edited", "accepted")
    tracebacks = Counter(f"{kind}: {outcome}" for kind, outcome in pairs if outcome not in ends)
    counts = Counter(outcome for _, outcome in pairs if outcome in ends)
    return {
        "files": len(pairs),
        "outcomes": dict(counts),
        "accepted": dict(accepted),
        "tracebacks": sum(tracebacks.values()),
        "texts": dict(tracebacks.most_common(12)),
    }


def damaged(source: Source, foreign: bytes, count: int, seed: int, folder: Path) -> Part:
    """Return the tally of `count` damaged copies of a source; `foreign` is another file, for pieces."""
    rng = np.random.default_rng(seed)
    copies = list(mutants(source.path.read_bytes(), foreign, count, rng))
    expected = source.read(source.path)()
    if not same(source.read(source.path)(), expected):
        raise ValueError(f"{source.name} answers otherwise when it is read twice")
    results = isolated(lambda mutant: judge(source, mutant, expected, folder), copies, SECONDS)
    texts = [text if isinstance(text, str) else text["outcome"] for text in results]
    return tally((f"{source.name}, {mutant.kind}", text) for mutant, text in zip(copies, texts, strict=True))


def _measure(folder: Path, source: str, count: int, seed: int) -> Part:
    names = list(SOURCES)
    for name in (source, beside := names[names.index(source) - 1]):
        (folder / name).mkdir()
    path, read = SOURCES[source].build(folder / source)
    foreign, _ = SOURCES[beside].build(folder / beside)
    damaged_folder = folder / "damaged"
    damaged_folder.mkdir()
    return damaged(Source(source, path, read), foreign.read_bytes(), count, seed, damaged_folder)


def _claims(results: list[Part]) -> list[Part]:
    files = sum(result["files"] for result in results)
    totals: dict[str, Counter[str]] = {name: Counter() for name in ("accepted", "outcomes", "texts")}
    for result in results:
        for name, counter in totals.items():
            counter.update(result[name])
    accepted, tracebacks = totals["accepted"], sum(result["tracebacks"] for result in results)
    return [
        counted("damaged_accepted", accepted.total(), files=files, kinds=dict(accepted.most_common(20))),
        counted(
            "tracebacks",
            tracebacks,
            files=files,
            outcomes=dict(totals["outcomes"]),
            ends=dict(totals["texts"].most_common(20)),
        ),
    ]


def _parts(smoke: bool) -> list[Part]:
    parts = []
    for source, about in SOURCES.items():
        count = 18 if smoke else round(MUTANTS * about.share)
        for seed, first in enumerate(range(0, count, CHUNK)):
            parts.append({"source": source, "count": min(CHUNK, count - first), "seed": seed})
    return parts


FIGURES = {"damage": Figure(_parts, _measure, _claims, ("damaged_accepted", "tracebacks"))}
