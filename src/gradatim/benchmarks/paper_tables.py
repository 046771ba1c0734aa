"""The fixed list of `gradatim bench paper`: which tables there are, and every cell of them, before anything is run.

Source: Mittal et al. 2025, tables 2 (parametric), 3 (explicit), 4 (implicit).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from .paper_settings import STEPS, VARIANTS, learner, signals

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

EVERY_SIGNAL = ("linear-8", "mnist")
"""Families in which every signal has its rows; elsewhere there is one, chosen on validation tasks."""

CHOSEN = "chosen"
TITLES = {"greedy": "constant gain", "decaying": "default gain", "one-step": "trained for one step"}


@dataclass(frozen=True)
class PaperTable:
    """One table of the list: a regime on some families.

    Its rows are each signal (or of `signals`, an implicit learner's states, those that a family has) under each way of
    training (`VARIANTS`), its columns the steps.
    """

    title: str
    regime: str
    families: tuple[str, ...]
    states: tuple[str, ...] = ()

    def signals(self, family: str) -> tuple[str, ...]:
        """Return the signals, or states, of a family's rows; `CHOSEN` for the one chosen on validation tasks."""
        if self.states:
            return tuple(state for state in self.states if state != "probabilities" or family != "linear-8")
        own = signals(family, self.regime)
        return own if len(own) < 2 or family in EVERY_SIGNAL else (CHOSEN,)

    def rows(self, family: str) -> Iterator[tuple[str, str]]:
        """Yield (signal, variant) of a family's rows."""
        yield from product(self.signals(family), VARIANTS)


@dataclass(frozen=True)
class Cell:
    """One number of the list: what a learner's error is after `steps` mini-batches."""

    table: int
    family: str
    signal: str
    variant: str
    steps: int


SUPERVISED = ("linear-8", "linear-100", "linear-classes", "mnist", "fashion-mnist", "embeddings")
GENERATED = ("mixture", "alphabets")
TABLES: dict[int, PaperTable] = {
    2: PaperTable("Parametric: f of known form, its weights refined", "parametric", SUPERVISED),
    3: PaperTable("Explicit: f learnt, a task embedding refined", "explicit", (*SUPERVISED, "order")),
    4: PaperTable("Implicit: the query's prediction refined", "implicit", SUPERVISED),
    5: PaperTable("Implicit: topological order and generation", "implicit", ("order", *GENERATED)),
    6: PaperTable(
        "Implicit: which state is carried, beside the logits of table 4",
        "implicit",
        ("linear-8", "linear-classes", "mnist"),
        ("latents", "probabilities"),
    ),
    7: PaperTable("Asked by reviewers: generation by a parametric learner", "parametric", GENERATED),
    8: PaperTable("Asked by reviewers: generation by an explicit learner", "explicit", GENERATED),
}


def cells(tables: Iterable[int] = tuple(TABLES)) -> list[Cell]:
    """Return every cell of some tables, all by default, in order."""
    return [
        Cell(number, family, signal, variant, steps)
        for number in tables
        for family in TABLES[number].families
        for signal, variant in TABLES[number].rows(family)
        for steps in ((1,) if variant == "one-step" else STEPS)
    ]


def listed() -> str:
    """Return the fixed list as docs/paper.md holds it."""
    lines = []
    for number, table in TABLES.items():
        count = len(cells([number]))
        lines += [f"**Table {number}.** {table.title}: {count} cells.", ""]
        for family in table.families:
            lines.append(f"- {family}: {', '.join(table.signals(family))}; {', '.join(TITLES.values())}")
        lines.append("")
    return "\n".join(lines)


def filled(
    wanted: Iterable[Cell],
    records: Iterable[Mapping[str, Any]],
    chosen: Mapping[tuple[str, str], str],
    metrics: Mapping[str, str],
) -> dict[Cell, Mapping[str, Any] | None]:
    """Return the record of each cell, over all seeds, or None where there is none.

    `chosen`: the signal of (family, regime); `metrics`: the deciding metric of each family.
    """
    known = {
        (r["family"], r["name"], r["steps"]): r
        for r in records
        if r["seed"] == "all" and r["metric"] == metrics.get(r["family"])
    }
    found = {}
    for cell in wanted:
        regime = TABLES[cell.table].regime
        signal = chosen.get((cell.family, regime)) if cell.signal == CHOSEN else cell.signal
        name = learner(cell.family, regime, signal or "", cell.variant)
        found[cell] = known.get((cell.family, name, cell.steps))
    return found


def listings(
    found: Mapping[Cell, Mapping[str, Any] | None], chosen: Mapping[tuple[str, str], str]
) -> list[dict[str, Any]]:
    """Return the tables as a page shows them: a row for each learner, a column for each step, and what it cost."""
    made = []
    for number in sorted({cell.table for cell in found}):
        table = TABLES[number]
        rows = []
        for family in table.families:
            for signal, variant in table.rows(family):
                own = {
                    c.steps: r
                    for c, r in found.items()
                    if (c.table, c.family, c.signal, c.variant) == (number, family, signal, variant)
                }
                if not own:
                    continue
                said = f"{chosen.get((family, table.regime), '?')} (chosen)" if signal == CHOSEN else signal
                rows.append(
                    [family, said, TITLES[variant], *(_number(own.get(s)) for s in STEPS), *_cost(own)]
                )
        head = ["family", "signal", "training", *(f"step {s}" for s in STEPS), "meta-training s", "peak MB"]
        made.append({"title": f"Table {number}. {table.title}", "columns": head, "rows": rows})
    return made


def _number(record: Mapping[str, Any] | None) -> str:
    return "" if record is None else f"{record['mean']:.4f} ± {(record['high'] - record['low']) / 2:.4f}"


def _cost(own: Mapping[int, Mapping[str, Any] | None]) -> list[str]:
    record = next((r for r in own.values() if r), None)
    if record is None or not record["peak_memory"]:
        return ["", ""]
    return [f"{record['seconds']:.0f}", f"{record['peak_memory'] / 2**20:.0f}"]
