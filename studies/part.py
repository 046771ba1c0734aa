"""A part of the study: what it measures, which claims it makes, and what it found.

Source: this project's own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from gradatim.comparison.report import write_result
from gradatim.comparison.runs import Study
from gradatim.provenance import commit

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from gradatim.comparison.report import Page


@dataclass(frozen=True)
class Found:
    """What a part found: records, claims and listings of the study's JSON."""

    records: list[dict[str, Any]] = field(default_factory=list)
    claims: list[dict[str, Any]] = field(default_factory=list)
    listings: list[dict[str, Any]] = field(default_factory=list)

    def __add__(self, other: Found) -> Found:
        """Return what both found."""
        return Found(self.records + other.records, self.claims + other.claims, self.listings + other.listings)


@dataclass(frozen=True)
class Part:
    """A part of the study.

    Attributes:
        name: what a run says of its progress.
        claims: what each of its claims measures, in words, by its id. Each has a bar in `verdicts.BARS`.
        measure: takes the study's folder, whether it is a smoke run, and the number of meta-training seeds. It stores
            its work by `Study.cached`, under `sources.fingerprint` of what it depends on, so that it goes on.
    """

    name: str
    claims: Mapping[str, str]
    measure: Callable[[Study, bool, int], Found]


def part_of(
    name: str,
    claims: Mapping[str, str],
    measure: Callable[[Study, bool, int], Mapping[str, Any]],
    fewest: int = 1,
) -> Part:
    """Return a part of a function that returns `records`, `claims` and `listings`; it runs at least `fewest` seeds.

    Example:
        >>> whole = part_of("mine", {}, lambda study, smoke, seeds: {"records": [{}], "claims": [], "listings": []})
        >>> whole.measure(None, True, 1).records
        [{'metric': 'error', 'steps': 0, 'seed': None}]
    """

    def found(study: Study, smoke: bool, seeds: int) -> Found:
        values = measure(study, smoke, 1 if smoke else max(seeds, fewest))
        # a record without a seed is over all of them
        records = [{"metric": "error", "steps": 0, "seed": None} | record for record in values["records"]]
        return Found(records, [*values["claims"]], [*values["listings"]])

    return Part(name, claims, found)


def begin(name: str, reads: str, out: Path, smoke: bool, workers: int, console: Console) -> Study:
    """Return the study in its folder below `out`; `reads` says what it reads of $GRADATIM_DATA.

    Raises:
        ValueError: $GRADATIM_DATA is not set. A smoke run does not need it.
    """
    if not smoke and not os.environ.get("GRADATIM_DATA"):
        raise ValueError(f"make study NAME={name} reads {reads}: set GRADATIM_DATA, or run with --smoke")
    return Study(out / "work" / (f"{name}-smoke" if smoke else name), 1 if smoke else workers, console)


def run_parts(
    parts: Sequence[Part],
    study: Study,
    out: Path,
    page: Page,
    unmeasured: Callable[[str, str], dict[str, Any]],
    smoke: bool,
    seeds: int,
) -> list[Path]:
    """Run parts in order, and write the study's JSON, page and picture below `out` anew after each; return the files.

    `unmeasured` makes the claim of a part that is still to run, of its id and why it has no value.
    """
    found, written = Found(), []
    for place, part in enumerate(parts):
        study.console.print(f"{part.name}: part {place + 1} of {len(parts)}")
        found = found + part.measure(study, smoke, seeds)
        later = [unmeasured(name, "not reached yet") for rest in parts[place + 1 :] for name in rest.claims]
        written = write_result(out, page.study, result(page.study, found, later, smoke, seeds), page)
    return written


def result(study: str, found: Found, later: list[dict[str, Any]], smoke: bool, seeds: int) -> dict[str, Any]:
    """Return a study's JSON: what was found, and the claims of parts that are still to run."""
    whole = {
        "benchmark": study,
        "smoke": smoke,
        "seeds": seeds,
        "commit": commit(),
        "torch": torch.__version__,
        "records": found.records,
        "claims": [*found.claims, *later],
        "listings": found.listings,
    }
    return json.loads(json.dumps(whole))
