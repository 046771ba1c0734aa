"""The fixed list of `make study NAME=paper`: its tables and every cell of them, before anything is run.

Names by example: the row `parametric-both@fashion-mnist` of the panel `mnist-long`.

- `origin` gives the family of the panel, `mnist`.
- After the @ is another family, on which the learner was trained.
- `learner` gives its name in records, fashion-mnist-parametric-both. Its recipe is one of `recipes`.
- A row `parametric-chosen` stands for one of its `alternatives`.

Source: Mittal et al. 2025, tables 2 (parametric), 3 (explicit), 4 (implicit), and what its reviewers asked.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from gradatim.comparison.experiment import SIGNALS
from gradatim.methods import METHODS

from .causal_peers import PEERS
from .recipes import EPISODES, HORIZON, RATED, RATES, SIZES, UNCURVED, VARIANTS, WHOLE, WINDOWS, signals
from .settings import GRAPHS, LENGTHS, origin

STEPS = (1, 5, HORIZON)
FAR = (1, 5, 10, 20, 50, 98)
FURTHER = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 6250)
MAX_BATCHES = 50
"""Limit on the mini-batches that a one-shot learner takes in one pass. Its work grows with their square."""

EVERY_SIGNAL = ("linear-8", "linear-100", "mnist")
"""Families with a row for every signal. Others have one, chosen on validation tasks."""

CHOSEN, ORACLE = "chosen", "oracle"
ADAPTATIONS = ("iterative", "one-shot")
TIMED, ONE_SHOT_ROWS = (1_000, 2_000, 4_000, 8_000, 16_384, 32_000, 64_000, 100_000), 16_384
"""Rows at which `ADAPTATIONS` are timed, and the limit for one pass over all rows."""

THRESHOLDS = (150, 120, 110)
"""Thresholds of the loss, in percent of the noise, at which a stream is stopped."""

STOPPED = {"linear-8-stopped": "squared error", "linear-8-stopped-rows": "rows used"}
"""Metrics of stopped streams, by panel."""


@dataclass(frozen=True)
class PaperTable:
    """One table of the list.

    Attributes:
        title: of the table.
        rows: for each panel, a family or a view of it, the learners that are judged. A row is a name in `recipes`, the
            name of an unlearnt method, or ROW@FAMILY for a learner trained on another family.
        columns: numbers of mini-batches, or of `unit`, by panel.
        unit: of the columns.
    """

    title: str
    rows: Mapping[str, tuple[str, ...]]
    columns: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    unit: str = "step"

    def of(self, panel: str, row: str) -> tuple[int, ...]:
        """Return the columns of a row.

        A learner for one step has the first column, one of `PEERS` the last. A one-shot learner has the columns up
        to `MAX_BATCHES` or `ONE_SHOT_ROWS`. Others have all columns.
        """
        columns = self.columns.get(panel, STEPS)
        stem = row.partition("@")[0]
        if stem == "hypernetwork" or (stem.endswith("-one-step") and not row.startswith("bagged")):
            return columns[:1]
        if row in PEERS:
            return columns[-1:]
        limit = MAX_BATCHES if row.endswith(WHOLE) else ONE_SHOT_ROWS if row == "one-shot" else max(columns)
        return tuple(column for column in columns if column <= limit)


@dataclass(frozen=True)
class Cell:
    """One number of the list: the error of a learner on a panel in one column."""

    table: int
    panel: str
    row: str
    column: int


def _regime(regime: str, families: Iterable[str], states: tuple[str, ...] = ()) -> dict[str, tuple[str, ...]]:
    """Return the rows of a regime: every signal (or state) of a family, or the chosen one, under each training."""
    rows = {}
    for family in families:
        choices = states or signals(family, regime)
        if not states and len(choices) > 1 and family not in EVERY_SIGNAL:
            choices = (CHOSEN,)
        if family.startswith("linear-8"):
            choices = tuple(state for state in choices if state != "probabilities")
        rows[family] = tuple(f"{regime}-{choice}{variant}" for choice, variant in product(choices, VARIANTS))
    return rows


SUPERVISED = ("linear-8", "linear-100", "linear-classes", "mnist", "fashion-mnist", "embeddings")
GENERATED = ("mixture", "alphabets")
UNLEARNT = ("sgd", "momentum", "adam", "newton", "ridge")
OURS = ("parametric-both", "parametric-both-decaying", "explicit-both-decaying", "implicit-logits-decaying")
NEIGHBOURS = (
    "maml",
    "first-order-maml",
    "meta-sgd",
    "learned-optimizer",
    "learned-optimizer-unrolled",
    "parametric-gradients-decaying",
    "parametric-gradients-unrolled",
    "hypernetwork",
    "conditional-neural-process",
    "attentive-neural-process",
    "implicit-latents",
    "parametric-both-one-step-whole",
    "implicit-logits-one-step-whole",
    "bagged-parametric-both-one-step",
    "closed-form",
    "bayesian",
    *UNLEARNT,
)
EVOLVED = ("learned-optimizer-evolution", "learned-optimizer-persistent")
MOVED = tuple(
    f"{regime}{variant}"
    for regime, variant in product(("parametric-both", "explicit-both", "implicit-logits"), VARIANTS)
)
_LONG = (
    "maml",
    "meta-sgd",
    "learned-optimizer",
    "conditional-neural-process",
    "attentive-neural-process",
    "parametric-both-one-step-whole",
    "implicit-logits-one-step-whole",
    "bagged-parametric-both-one-step",
    "closed-form",
    "bayesian",
)
_ONE_PASS = tuple(f"{row}{end}" for row, end in product(("parametric-both", "implicit-logits"), ("", WHOLE)))
_AS_THE_PAPER = ("parametric-plain", *(f"parametric-{signal}{UNCURVED}" for signal in SIGNALS))

TABLES: dict[int, PaperTable] = {
    2: PaperTable("Parametric: f of known form, its weights refined", _regime("parametric", SUPERVISED)),
    3: PaperTable(
        "Explicit: f learnt, a task embedding refined", _regime("explicit", (*SUPERVISED, "order"))
    ),
    4: PaperTable("Implicit: the query's prediction refined", _regime("implicit", SUPERVISED)),
    5: PaperTable(
        "Implicit: topological order and generation, beside a kernel density",
        {
            name: (*rows, *(("kernel",) if name in GENERATED else PEERS))
            for name, rows in _regime("implicit", ("order", *GENERATED)).items()
        },
    ),
    6: PaperTable(
        "Implicit: which state is carried, beside the logits of table 4",
        _regime("implicit", ("linear-8", "linear-classes", "mnist"), ("latents", "probabilities")),
    ),
    7: PaperTable("Asked: generation by a parametric learner", _regime("parametric", GENERATED)),
    8: PaperTable("Asked: generation by an explicit learner", _regime("explicit", GENERATED)),
    9: PaperTable(
        "Transfer: learners of one family on another",
        {
            "mnist": tuple(f"{row}@fashion-mnist" for row in MOVED),
            "fashion-mnist": tuple(f"{row}@mnist" for row in MOVED),
            "omniglot": (*MOVED, *(f"{row}@embeddings" for row in MOVED)),
            "cifar": tuple(f"{row}@{pool}" for pool in ("embeddings", "omniglot") for row in MOVED),
            **{
                f"order-{graph}": (
                    *(
                        f"{regime}-order{variant}"
                        for regime, variant in product(("explicit", "implicit"), VARIANTS)
                    ),
                    *PEERS,
                )
                for graph in GRAPHS
            },
        },
    ),
    10: PaperTable(
        "Asked: beside every neighbour, not one-step amortization alone",
        {"linear-8": (*OURS, *NEIGHBOURS, *EVOLVED, ORACLE), "mnist": (*OURS, *NEIGHBOURS)},
    ),
    11: PaperTable(
        "Asked: error against rows, 16 to 100,000, and how many steps there should be",
        {"linear-8-long": (*OURS, "explicit-both", "implicit-logits", *_LONG, *UNLEARNT, ORACLE)},
        {"linear-8-long": FURTHER},
    ),
    12: PaperTable(
        "Asked: error against steps far past the trained ten, MNIST",
        {"mnist-long": (*OURS, "explicit-both", "implicit-logits", *_LONG, *UNLEARNT)},
        {"mnist-long": FAR},
    ),
    13: PaperTable(
        "Asked: steps chosen by the learner's own estimate of its loss (mean squared error, rows used)",
        dict.fromkeys(STOPPED, ("parametric-both-decaying", "bayesian")),
        dict.fromkeys(STOPPED, THRESHOLDS),
        "noise %",
    ),
    14: PaperTable(
        "Asked: width and depth of the refiner, for as many multiplications",
        dict.fromkeys(
            ("linear-8", "mnist"),
            ("parametric-both-decaying", *(f"width-{width}-layers-{layers}" for width, layers in SIZES)),
        ),
    ),
    15: PaperTable(
        "Asked: a network 784 x 100 x 10 as tokens of its rows, as one token, or modulated",
        {"mnist-784": ("token-per-row", "one-token", "modulated")},
    ),
    16: PaperTable(
        "Asked: what training for k steps costs, greedy and unrolled",
        {
            "linear-8": tuple(
                f"{how}-{k}" for how, k in product(("greedy", "unrolled"), sorted((*EPISODES, HORIZON)))
            )
        },
    ),
    17: PaperTable(
        "Asked: a stream of classes, two after two, without and with rehearsal",
        dict.fromkeys(
            ("mnist-in-turn", "mnist-rehearsed"), (*OURS, "closed-form", "bayesian", "sgd", "ridge")
        ),
        dict.fromkeys(("mnist-in-turn", "mnist-rehearsed"), (2, 4, 6, 8, 10)),
    ),
    18: PaperTable(
        "Ablation: history windows, and rows that do not see each other",
        {
            name: (
                "parametric-both",
                *(f"parametric-both-history-{window}" for window in WINDOWS),
                *(("parametric-both-masked",) if name != "fashion-mnist" else ()),
            )
            for name in ("linear-8", "mnist", "fashion-mnist")
        },
    ),
    19: PaperTable(
        "One refiner for mini-batches of every length, beside one trained for each",
        {
            f"lengths-{rows}": ("parametric-both", f"parametric-both-prefixes@lengths-{LENGTHS[-1]}")
            for rows in LENGTHS
        },
    ),
    20: PaperTable("Seconds to adapt to one task", {"cost": ADAPTATIONS}, {"cost": TIMED}, "rows"),
    21: PaperTable(
        "Asked: ten mini-batches in one pass, at equal rows",
        {
            **dict.fromkeys(("linear-8", "linear-100", "linear-classes", "mnist", "mixture"), _ONE_PASS),
            "order": ("explicit-order", f"explicit-order{WHOLE}"),
        },
    ),
    22: PaperTable(
        "Signals and states without what ours add to the paper's",
        {
            "linear-8": _AS_THE_PAPER[:1],
            "linear-100": _AS_THE_PAPER,
            "mnist": (*_AS_THE_PAPER, "explicit-both-decoder"),
        },
    ),
}


def alternatives(panel: str, row: str) -> tuple[str, ...]:
    """Return the candidates for a row, of which validation tasks choose one: signals, inner rates, or only the row."""
    if CHOSEN in row:
        candidates = signals(origin(panel), row.partition("-")[0])
        return tuple(row.replace(CHOSEN, signal) for signal in candidates)
    if row in RATED:
        return tuple(f"{row}-{rate:g}" for rate in RATES)
    return (row,)


def learner(panel: str, row: str) -> str:
    """Return the name of a learner in records and of its run: FAMILY-ROW. An unlearnt method has its own name."""
    stem, _, home = row.partition("@")
    if unlearnt(stem) or panel == "cost":
        return stem
    return f"{home or origin(panel)}-{stem}"


def unlearnt(row: str) -> bool:
    """Return whether a row is a method without meta-training, a causal peer, or the oracle."""
    return row == ORACLE or row in PEERS or (row in METHODS and not METHODS[row].learnt)


def cells(tables: Iterable[int] = tuple(TABLES)) -> list[Cell]:
    """Return every cell of some tables, all by default, in order."""
    return [
        Cell(number, panel, row, column)
        for number in tables
        for panel, rows in TABLES[number].rows.items()
        for row in rows
        for column in TABLES[number].of(panel, row)
    ]


def listed() -> str:
    """Return the fixed list as Markdown. docs/paper-details.md includes it."""
    lines = []
    for number, table in TABLES.items():
        lines += [f"**Table {number}.** {table.title}: {len(cells([number]))} cells.", ""]
        for panel, rows in table.rows.items():
            head = ", ".join(f"{column:,}" for column in columns(panel))
            lines.append(f"- {panel} ({table.unit} {head}): {', '.join(_group_variants(rows))}")
        lines.append("")
    return "\n".join(lines)


def _group_variants(rows: Sequence[str]) -> list[str]:
    """Return rows with the three ways of training grouped: ROW[-decaying, -one-step]@FAMILY."""
    grouped, folded = [], set()
    for row in rows:
        stem, at, home = row.partition("@")
        others = {f"{stem}{variant}{at}{home}" for variant in VARIANTS[1:]}
        if others <= set(rows):
            grouped.append(f"{stem}[{', '.join(VARIANTS[1:])}]{at}{home}")
            folded |= others
        elif row not in folded:
            grouped.append(row)
    return grouped


def table_title(number: int) -> str:
    """Return the title of a table and of its pictures."""
    return f"Table {number}. {TABLES[number].title}"


def columns(panel: str) -> tuple[int, ...]:
    """Return the columns of a panel. They are the same in every table."""
    return next((table.columns[panel] for table in TABLES.values() if panel in table.columns), STEPS)


def filled(
    targets: Iterable[Cell],
    records: Iterable[Mapping[str, Any]],
    chosen: Mapping[tuple[str, str], str],
    metrics: Mapping[str, str],
) -> dict[Cell, Mapping[str, Any] | None]:
    """Return the record of each cell of `targets` over all seeds, or None where there is none.

    `chosen`: the row that stands for each row with `alternatives`. `metrics`: the deciding metric of each panel.
    """
    by_key = {
        (r["family"], r["name"], r["steps"]): r
        for r in records
        if r["seed"] in ("all", None) and r["metric"] == metrics.get(r["family"])
    }
    return {
        cell: by_key.get(
            (cell.panel, learner(cell.panel, chosen.get((cell.panel, cell.row), cell.row)), cell.column)
        )
        for cell in targets
    }


def listings(
    filled: Mapping[Cell, Mapping[str, Any] | None], chosen: Mapping[tuple[str, str], str]
) -> list[dict[str, Any]]:
    """Return the tables of a page: a row for each learner, a column for each step, and its cost."""
    tables: dict[tuple[int, tuple[int, ...]], dict[str, Any]] = {}
    by_row: dict[tuple[int, str, str], dict[int, Mapping[str, Any] | None]] = {}
    for cell, record in filled.items():
        by_row.setdefault((cell.table, cell.panel, cell.row), {})[cell.column] = record
    for (number, panel, row), by_column in by_row.items():
        table, heads = TABLES[number], columns(panel)
        head = ["judged on", "learner", *(f"{table.unit} {head:,}" for head in heads)]
        listing = {
            "title": table_title(number),
            "columns": [*head, "meta-training s", "peak MB"],
            "rows": [],
        }
        label = chosen.get((panel, row), row)
        label = label if label == row else f"{label} (chosen)"
        tables.setdefault((number, heads), listing)["rows"].append(
            [panel, label, *(_number(by_column.get(head)) for head in heads), *_cost(by_column)]
        )
    return list(tables.values())


def _number(record: Mapping[str, Any] | None) -> str:
    if record is None:
        return ""
    if not math.isfinite(record["high"]):
        return "diverged"
    return f"{record['mean']:.4g} ± {(record['high'] - record['low']) / 2:.2g}"


def _cost(by_column: Mapping[int, Mapping[str, Any] | None]) -> list[str]:
    record = next((r for r in by_column.values() if r), None)
    if record is None or not record["peak_memory"]:
        return ["", ""]
    spent = f"{record['seconds']:.0f}" if record["seconds"] else ""
    return [spent, f"{record['peak_memory'] / 2**20:.0f}"]
