"""`make study NAME=house`: what can be counted of the library's structure, words, examples and costs.

Source: the bars are this project's own, fixed before the run.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gradatim.comparison.report import write_result
from gradatim.comparison.runs import claim
from gradatim.methods import METHODS
from gradatim.provenance import commit
from gradatim.testing.examples import module_names, run_examples
from gradatim.testing.options import ignored_options

from . import loop, moved, streams, wording
from .page import PAGE
from .wheel import import_seconds, install, own_family

if TYPE_CHECKING:
    from rich.console import Console

    from .wheel import Wheel

SECONDS = "TEST_SECONDS"
"""The environment variable that says how long `make test` took; it is not run here."""

SMOKE_METHODS = ("ridge", "adam", "maml")
SMOKE_MODULES = ("gradatim.batch", "gradatim.names", "gradatim.tree")
DIFFERENCES = 200
"""Most differences that the JSON lists."""


def run(out: Path, smoke: bool, seeds: int, workers: int, console: Console) -> list[Path]:
    """Run the study; return house.json and house.md, written below `out`.

    A smoke run leaves out the smoke runs of other studies and the validation tables. Nothing is meta-trained for
    claims, so `seeds` changes nothing.

    Raises:
        ValueError: $GRADATIM_DATA is not set (a smoke run does not need it), or a wheel cannot be built.
    """
    work = out / "work" / ("house-smoke" if smoke else "house")
    console.print("counting names, shapes and lines")
    claims = _words()
    console.print("counting encodings and calls of the loop")
    claims += _loop(smoke)
    console.print("running examples and options")
    claims += _examples(smoke)
    console.print("building a wheel and using it from another folder")
    shutil.rmtree(work / "wheel", ignore_errors=True)
    wheel = install(work / "wheel")
    claims.append(_own_family(wheel, work))
    console.print("measuring memory and ragged tasks")
    claims += _costs(smoke)
    console.print("measuring again what was recorded before")
    claims.insert(0, _moved(_figures(work), smoke, workers, console))
    result = {
        "benchmark": "house",
        "smoke": smoke,
        "seeds": seeds,
        "commit": commit(),
        "torch": torch.__version__,
        "records": [],
        "claims": claims,
        "sizes": _sizes(wheel),
    }
    return write_result(out, "house", json.loads(json.dumps(result)), PAGE)


def _claim(name: str, value: float, bar: float, direction: str, **beside: Any) -> dict[str, Any]:
    """Return a claim about a count: its interval is the value. A value that is infinite is null in JSON."""
    verdict = claim(f"house.{name}", value, value, value, bar, direction) | {"range": "no interval"}
    if not math.isfinite(value):
        verdict |= {"value": None, "low": None, "high": None}
    return verdict | beside


def _words() -> list[dict[str, Any]]:
    tests = wording.private_paths()
    estimators = wording.lines(wording.PACKAGE / "estimators")
    return [
        _claim("private_paths", len(tests), 0, "<=", classes=tests),
        _claim("vague_names", wording.vague_names(), 1, "<="),
        _claim("shapes", wording.shapes(), 0.95, ">="),
        _claim("readme_lines", wording.lines(wording.ROOT / "README.md"), 130, "<="),
        _claim("fit_lines", estimators, 900, "<="),
    ]


def _loop(smoke: bool) -> list[dict[str, Any]]:
    encodings = streams.encodes_per_row(6_000 if smoke else 20_000)
    calls = streams.loop_calls(320 if smoke else 4_096)
    return [
        _claim("encodes_per_row", encodings, 1.05, "<="),
        _claim("loop_calls", calls, 1, ">="),
    ]


def _examples(smoke: bool) -> list[dict[str, Any]]:
    """Return the claims about options without effect and about docstrings with examples."""
    names = SMOKE_METHODS if smoke else METHODS
    ignored = ignored_options({name: METHODS[name] for name in names})
    modules = SMOKE_MODULES if smoke else module_names()
    counts = {module: run_examples(module, lambda text: None) for module in modules}
    attempted, failed = (sum(column) for column in zip(*counts.values(), strict=True))
    failing = [module for module, (_, count) in counts.items() if count]
    return [
        _claim("options_ignored", len(ignored), 0, "<=", options=ignored),
        _claim("doctests_failed", failed, 0, "<=", modules=failing),
        _claim("doctests", attempted - failed, 150, ">="),
    ]


def _own_family(wheel: Wheel, work: Path) -> dict[str, Any]:
    folder = work / "elsewhere"
    shutil.rmtree(folder, ignore_errors=True)
    count, reason = own_family(wheel, folder)
    return _claim("own_family_lines", count, 25, "<=", **({"failed": reason} if reason else {}))


def _costs(smoke: bool) -> list[dict[str, Any]]:
    """Return the claims about memory and time; the figure is that of the worst method."""
    growth = loop.graph_mb(*((100,) if smoke else ()))
    ratios = loop.ragged(*((20, 512, 1) if smoke else ()))
    return [
        _claim("graph_mb", max(growth.values()), 5, "<=", methods=growth),
        _claim("ragged", max(ratios.values()), 1.5, "<=", methods=ratios),
    ]


def _figures(work: Path) -> Path:
    """Return the folder of this commit's figures: an interrupted run goes on there, other code begins anew."""
    at = commit()
    folder = work / f"figures-{at}"
    if at is None or at.endswith("+"):  # changed since: no name for what it is
        shutil.rmtree(folder, ignore_errors=True)
    return folder


def _moved(folder: Path, smoke: bool, workers: int, console: Console) -> dict[str, Any]:
    """Return the claim about figures that were recorded before, with those that differ."""
    before = json.loads(moved.BEFORE.read_text(encoding="utf-8"))
    if smoke:
        before, after = {"golden": before["golden"]}, {"golden": moved.rounded(moved.golden())}
    else:
        moved.measure(folder, workers, console)
        after = moved.figures(folder)
    differing = moved.differences(before, after)
    compared = sum(1 for _ in moved.flat(before))
    return _claim(
        "results_moved", len(differing), 0, "<=", compared=compared, differing=differing[:DIFFERENCES]
    )


def _sizes(wheel: Wheel) -> dict[str, float]:
    """Return what is measured without a bar."""
    sizes = {
        "lines of src": wording.lines(wording.ROOT / "src"),
        "lines of studies": wording.lines(wording.ROOT / "studies"),
        "seconds to import gradatim's Learner": round(import_seconds(wheel), 2),
        "kilobytes of the wheel": round(wheel.kilobytes),
    }
    if SECONDS in os.environ:
        sizes["seconds of make test"] = float(os.environ[SECONDS])
    return sizes
