"""The paper's findings, and open questions beside them, each judged by paired errors on the same tasks.

Source: Mittal et al. 2025, the findings of its experiments; the verdicts are of this project's own runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gradatim.metrics import bootstrap

from .recipes import UNCURVED, VARIANTS, WHOLE
from .tables import CHOSEN, EVERY_SIGNAL, GENERATED, STEPS, TABLES, Cell, learner, unlearnt

if TYPE_CHECKING:
    from gradatim.comparison.experiment import Values

Gap = tuple[float, float, float]
VERDICTS = ("reproduced", "not reproduced", "depends")
EXCEPTED = "fashion-mnist"
"""The family where the paper finds that history helps."""

DEFAULT = "parametric-both-decaying"
"""The learner that the others are compared with as rows grow."""

FALLING = VARIANTS[1]
"""The ending of the rows that have our default gain."""

SMALL = 0.02
"""A gain below this share of the error does not count. It defines `barely helps`."""


def crossings(
    filled: Mapping[Cell, Mapping[str, Any] | None], chosen: Mapping[tuple[str, str], str]
) -> list[dict[str, Any]]:
    """Return after which mini-batches each learner of tables 11 and 12 has a lower mean error than our default."""
    rows = []
    for number in (11, 12):
        for panel, panel_rows in TABLES[number].rows.items():
            curves = {
                row: {
                    c.column: r["mean"]
                    for c, r in filled.items()
                    if r and (c.table, c.panel, c.row) == (number, panel, row)
                }
                for row in panel_rows
            }
            default = curves.pop(DEFAULT)
            for row, means in curves.items():
                shared = [column for column in means if column in default]
                lower = [means[column] < default[column] for column in shared]
                if shared:
                    rows.append([panel, chosen.get((panel, row), row), *_ranges(shared, lower)])
    heads = ["judged on", "learner", "better after", "judged up to"]
    return (
        [
            {
                "title": f"Where others cross {DEFAULT} (tables 11, 12; mini-batches)",
                "columns": heads,
                "rows": rows,
            }
        ]
        if rows
        else []
    )


def _ranges(columns: Sequence[int], lower: Sequence[bool]) -> tuple[str, str]:
    """Return the columns where `lower` is true, as ranges, and the last column."""
    ranges, start = [], None
    for place, holds in enumerate([*lower, False]):
        if holds and start is None:
            start = place
        elif not holds and start is not None:
            first, last = columns[start], columns[place - 1]
            ranges.append(f"{first:,}" if first == last else f"{first:,} to {last:,}")
            start = None
    return ", ".join(ranges) or "never", f"{columns[-1]:,}"


def verdict(gaps: Iterable[Gap]) -> str:
    """Return a verdict on differences that are negative if a finding is true.

    - `reproduced`: every 95% interval is below 0.
    - `not reproduced`: no interval is below 0.
    - `depends`: some are.
    """
    below = [high < 0 for _, _, high in gaps]
    return VERDICTS[0] if all(below) else VERDICTS[1] if not any(below) else VERDICTS[2]


@dataclass(frozen=True)
class PairedErrors:
    """Differences of the errors of two rows of a panel, paired by task.

    Attributes:
        results: by panel, then by learner, the values of each metric.
        chosen: the row that stands for each row with alternatives, by (panel, row).
    """

    results: Mapping[str, Mapping[str, Values]]
    chosen: Mapping[tuple[str, str], str]

    def has(self, panel: str, row: str) -> bool:
        """Return whether a row was judged on a panel."""
        return self.name(panel, row) in self.results.get(panel, ())

    def name(self, panel: str, row: str) -> str:
        """Return the learner that stands for a row."""
        return learner(panel, self.chosen.get((panel, row), row))

    def gap(self, panel: str, row: str, reference: str, place: int = -1, before: int = -1) -> Gap:
        """Return the relative difference of two errors, with its interval.

        It is the error of `row` in column `place` less that of `reference` in column `before`, over the latter.
        """
        first, second = (
            next(iter(self.results[panel][self.name(panel, key)].values()))[:, at]
            for key, at in ((row, place), (reference, before))
        )
        if row != reference:
            return bootstrap(_relative, first, second, resamples=1000)
        both = np.stack([first, second], axis=-1)  # of the same runs: paired by seed, too
        return bootstrap(lambda v: _relative(v[..., 0], v[..., 1]), both, resamples=1000)


def _relative(first: np.ndarray, second: np.ndarray) -> float:
    return float((first.mean() - second.mean()) / abs(second.mean()))


def findings(
    results: Mapping[str, Mapping[str, Values]], chosen: Mapping[tuple[str, str], str]
) -> list[dict[str, Any]]:
    """Return for each finding its text, its verdict, and the relative differences that the verdict is based on."""
    errors = PairedErrors(results, chosen)
    statements = (
        (
            "1. ten steps are better than one, in every regime, in distribution and out of it",
            _steps(errors, 0),
        ),
        ("1. and ten are better than five", _steps(errors, 1)),
        (
            "2. in low dimension observations beat gradients",
            _signals(errors, "observations", "gradients", ("linear-8",)),
        ),
        (
            "2. in high dimension gradients help more",
            _signals(errors, "gradients", "observations", ("linear-100", "mnist")),
        ),
        (
            "2. both together are best",
            _signals(errors, "both", "observations", EVERY_SIGNAL)
            | _signals(errors, "both", "gradients", EVERY_SIGNAL),
        ),
        (
            "2. the same of the paper's own signals (table 22): observations in low dimension, gradients in high",
            _row_gaps(errors, "parametric-plain", "parametric-gradients", ("linear-8",))
            | _row_gaps(
                errors, f"parametric-gradients{UNCURVED}", "parametric-plain", ("linear-100", "mnist")
            ),
        ),
        (
            "2. and both of them are best",
            _row_gaps(errors, f"parametric-both{UNCURVED}", "parametric-plain", ("linear-100", "mnist"))
            | _row_gaps(
                errors,
                f"parametric-both{UNCURVED}",
                f"parametric-gradients{UNCURVED}",
                ("linear-100", "mnist"),
            ),
        ),
        ("3. history barely helps: without it the error is not higher by 2%", _history(errors)),
        ("3. but trained on Fashion-MNIST it does", _history_helps(errors)),
        ("4. parametric beats explicit", _regimes(errors)),
        ("5. of implicit states logits are best", _states(errors)),
        ("asked. ten mini-batches in turn beat one pass over the same rows (table 21)", _turns(errors)),
        ("asked. after ten steps our falling gain beats the constant one (tables 2 to 8)", _gains(errors)),
        ("asked. learnt generation beats a kernel density (table 5)", _kernels(errors)),
        ("asked. learnt orders beat a sort by the shape of columns (tables 5, 9)", _shapes(errors)),
    )
    return [
        {
            "finding": title,
            "verdict": verdict(gaps.values()),
            "holds": sum(high < 0 for _, _, high in gaps.values()),
            "of": len(gaps),
            "gaps": {key: [round(value, 4) for value in three] for key, three in gaps.items()},
        }
        for title, gaps in statements
        if gaps
    ]


def _steps(errors: PairedErrors, before: int) -> dict[str, Gap]:
    """Return the last column less an earlier one, for all learners trained as in the paper."""
    return {
        f"{panel}: {row}, step {STEPS[-1]} less step {STEPS[before]}": errors.gap(panel, row, row, -1, before)
        for number in (2, 3, 4, 5, 7, 8, 9)
        for panel, rows in TABLES[number].rows.items()
        for row in rows
        if _plain(row) and errors.has(panel, row)
    }


def _signals(errors: PairedErrors, signal: str, reference: str, panels: Iterable[str]) -> dict[str, Gap]:
    return {
        f"{panel}, {regime}: {signal} less {reference}": errors.gap(
            panel, f"{regime}-{signal}", f"{regime}-{reference}"
        )
        for panel in panels
        for regime in ("parametric", "explicit")
    }


def _row_gaps(errors: PairedErrors, row: str, reference: str, panels: Iterable[str]) -> dict[str, Gap]:
    return {f"{panel}: {row} less {reference}": errors.gap(panel, row, reference) for panel in panels}


def _history(errors: PairedErrors) -> dict[str, Gap]:
    return {
        f"{panel}: none less {row}, less {SMALL:.0%}": _above_small(errors.gap(panel, "parametric-both", row))
        for panel, row in _windows(errors)
        if panel != EXCEPTED
    }


def _history_helps(errors: PairedErrors) -> dict[str, Gap]:
    return {
        f"{panel}: {row} less none": errors.gap(panel, row, "parametric-both")
        for panel, row in _windows(errors)
        if panel == EXCEPTED
    }


def _windows(errors: PairedErrors) -> list[tuple[str, str]]:
    """Return the rows with a window of the past, and their panels."""
    rows = [(panel, row) for panel, rows in TABLES[18].rows.items() for row in rows if "history" in row]
    return [(panel, row) for panel, row in rows if errors.has(panel, row)]


def _regimes(errors: PairedErrors) -> dict[str, Gap]:
    return {
        f"{panel}: parametric less explicit": errors.gap(panel, f"parametric-{signal}", f"explicit-{signal}")
        for panel, rows in TABLES[2].rows.items()
        for signal in ("both" if "parametric-both" in rows else CHOSEN,)
        if panel in errors.results
    } | _row_gaps(errors, f"parametric-both{UNCURVED}", "explicit-both-decoder", ("mnist",))


def _states(errors: PairedErrors) -> dict[str, Gap]:
    return {
        f"{panel}: logits less {row.partition('-')[2]}": errors.gap(panel, "implicit-logits", row)
        for panel, rows in TABLES[6].rows.items()
        for row in rows
        if _plain(row)
    }


def _turns(errors: PairedErrors) -> dict[str, Gap]:
    return {
        f"{panel}: {row} less {one_pass}": errors.gap(panel, row, one_pass)
        for panel, rows in TABLES[21].rows.items()
        for one_pass in rows
        if one_pass.endswith(WHOLE) and errors.has(panel, one_pass)
        for row in (f"{one_pass.removesuffix(WHOLE)}{variant}" for variant in ("", FALLING))
        if errors.has(panel, row)
    }


def _gains(errors: PairedErrors) -> dict[str, Gap]:
    return {
        f"{panel}: {row} less constant": errors.gap(panel, row, row.removesuffix(FALLING))
        for number in range(2, 9)
        for panel, rows in TABLES[number].rows.items()
        for row in rows
        if row.endswith(FALLING) and errors.has(panel, row)
    }


def _kernels(errors: PairedErrors) -> dict[str, Gap]:
    return {
        f"{panel}: {row} less kernel, step {STEPS[place]}": errors.gap(panel, row, "kernel", place, place)
        for panel in GENERATED
        for row in ("implicit-logits", f"implicit-logits{FALLING}")
        for place in range(len(STEPS))
        if errors.has(panel, row)
    }


def _shapes(errors: PairedErrors) -> dict[str, Gap]:
    return {
        f"{panel}: {row} less shape-order": errors.gap(panel, row, "shape-order")
        for panel in errors.results
        for row in (f"explicit-order{FALLING}", f"implicit-order{FALLING}")
        if errors.has(panel, "shape-order")
    }


def _plain(row: str) -> bool:
    """Return whether a row is a learner trained as in the paper."""
    stem = row.partition("@")[0]
    return not unlearnt(stem) and not stem.endswith(VARIANTS[1:])


def _above_small(gap: Gap) -> Gap:
    """Return a difference less `SMALL`."""
    value, low, high = gap
    return value - SMALL, low - SMALL, high - SMALL


def verdict_listing(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the findings as tables of a page: the verdicts, then the differences that they are based on."""
    rows = [[entry["finding"], entry["verdict"], f"{entry['holds']} of {entry['of']}"] for entry in entries]
    heads = ["finding", "verdict", "intervals below 0"]
    gaps = [
        [
            entry["finding"].partition(".")[0],
            key,
            f"{100 * value:+.1f}% [{100 * low:+.1f}, {100 * high:+.1f}]",
        ]
        for entry in entries
        for key, (value, low, high) in entry["gaps"].items()
    ]
    if not rows:
        return []
    return [
        {"title": "The paper's findings, and what was asked beside them", "columns": heads, "rows": rows},
        {
            "title": "Differences of errors that the verdicts rest on, of the second's error, paired by task",
            "columns": ["finding", "difference", "value [95%]"],
            "rows": gaps,
        },
    ]
