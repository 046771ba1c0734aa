"""A part of the study: what it measures, which claims it makes, and what it found.

Source: this project's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradatim.comparison.runs import Study


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
