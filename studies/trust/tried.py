"""The cases that users reported, and random and hostile inputs: how many end wrong.

Source: Claessen, Hughes 2000 (random inputs against properties).
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from .figure import BARS, ROOT, Figure, Part, counted
from .processes import isolated

CASES = int(BARS["fuzz_cases"][0])
"""Random inputs that are tried, at least."""

LISTED = 40
"""Failures that the JSON lists at most."""


def module_of_tests(name: str, root: Path = ROOT) -> ModuleType:
    """Return a module of the tests folder, such as `cases` or `fuzz.fuzzer`.

    Raises:
        ValueError: it is not there.
    """
    path = root / "tests" / Path(*name.split(".")).with_suffix(".py")
    if not path.exists():
        raise ValueError(f"tests/{path.name} is not there: run the study in a checkout")
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    return import_module(f"tests.{name}")


def wrong_cases(cases: Mapping[str, Callable[[Path], Any]], seconds: float = 120.0) -> dict[str, str]:
    """Return the cases that do not give the right value, by name, with what came.

    Args:
        cases: checks by name, which raise where the value is wrong. Each gets an empty folder.
        seconds: that a case may take.
    """

    def check(name: str) -> str:
        with tempfile.TemporaryDirectory() as folder:
            try:
                cases[name](Path(folder))
            except BaseException as error:
                return f"{type(error).__name__}: {error}"[:200]
        return ""

    names = list(cases)
    results = isolated(check, names, seconds, memory=None)
    texts = [text if isinstance(text, str) else text["outcome"] for text in results]
    return {name: text for name, text in zip(names, texts, strict=True) if text}


def fuzzed(fuzz: Callable[[int, int], tuple[int, list[str]]], seed: int, cases: int) -> Part:
    """Return how many random inputs were tried, at least `cases`, and the sentences about those that failed.

    Args:
        fuzz: takes a seed and a number of cases; returns how many it tried and its failures.
        seed: of the first call; further calls have seeds of their own.
        cases: to be tried at least.
    """
    tried, failures, turn = 0, [], 0
    while tried < cases:
        count, sentences = fuzz(seed + 1_000_000 * turn, cases - tried)
        if count < 1:
            raise ValueError(f"the fuzzer tried {count} of {cases - tried} cases")
        tried, turn, failures = tried + count, turn + 1, [*failures, *sentences]
    return {"tried": tried, "failures": len(failures), "sentences": failures[:LISTED]}


def _measure_cases(folder: Path) -> Part:
    cases = module_of_tests("cases").CASES
    return {"cases": list(cases), "wrong": wrong_cases(cases)}


def _cases_claims(results: list[Part]) -> list[Part]:
    """Return the claim about cases by letters: D of rows, E of files and processes, R of what was rough or missing."""
    cases = [name for name in results[0]["cases"] if not name.startswith("R")]
    wrong = results[0]["wrong"]
    reported = {name: text for name, text in wrong.items() if not name.startswith("R")}
    rough = sorted(wrong.keys() - reported.keys())
    return [counted("cases_wrong", len(reported), cases=len(cases), wrong=reported, rough_wrong=rough)]


def _measure_fuzz(folder: Path, seed: int, cases: int) -> Part:
    return fuzzed(module_of_tests("fuzz.fuzzer").fuzz, seed, cases)


def _fuzz_claims(results: list[Part]) -> list[Part]:
    tried, failures = (sum(result[name] for result in results) for name in ("tried", "failures"))
    sentences = [sentence for result in results for sentence in result["sentences"]]
    return [
        counted("fuzz_failures", failures, failures=sentences[:LISTED]),
        counted("fuzz_cases", tried),
    ]


def _fuzz_parts(smoke: bool) -> list[Part]:
    parts, cases = (2, 200) if smoke else (100, CASES // 100)
    return [{"seed": seed, "cases": cases} for seed in range(parts)]


FIGURES = {
    "cases": Figure(lambda smoke: [{}], _measure_cases, _cases_claims, ("cases_wrong",)),
    "fuzz": Figure(_fuzz_parts, _measure_fuzz, _fuzz_claims, ("fuzz_failures", "fuzz_cases")),
}
