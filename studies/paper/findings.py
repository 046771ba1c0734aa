"""The paper's five findings, and what was asked beside them, each judged by paired errors on the same tasks.

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
"""The family of which the paper says that history helps there."""

DEFAULT = "parametric-both-decaying"
"""The learner that others are said to cross as rows grow."""

FALLING = VARIANTS[1]
"""What the row of a learner with our default gain ends in."""

SMALL = 0.02
"""A gain below this share of the error is no gain: what `barely helps` is held to."""


def crossings(
    kept: Mapping[Cell, Mapping[str, Any] | None], chosen: Mapping[tuple[str, str], str]
) -> list[dict[str, Any]]:
    """Return where each learner of tables 11 and 12 has a lower mean error than our default, in mini-batches seen."""
    rows = []
    for number in (11, 12):
        for panel, own in TABLES[number].rows.items():
            curves = {
                row: {
                    c.column: r["mean"]
                    for c, r in kept.items()
                    if r and (c.table, c.panel, c.row) == (number, panel, row)
                }
                for row in own
            }
            ours = curves.pop(DEFAULT)
            for row, means in curves.items():
                shared = [column for column in means if column in ours]
                lower = [means[column] < ours[column] for column in shared]
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
    """Return the columns in which something holds, as ranges, and the last column there is."""
    said, begun = [], None
    for place, holds in enumerate([*lower, False]):
        if holds and begun is None:
            begun = place
        elif not holds and begun is not None:
            first, last = columns[begun], columns[place - 1]
            said.append(f"{first:,}" if first == last else f"{first:,} to {last:,}")
            begun = None
    return ", ".join(said) or "never", f"{columns[-1]:,}"


def verdict(gaps: Iterable[Gap]) -> str:
    """Return a verdict on differences that a finding says are negative.

    `reproduced`: every 95% interval lies below 0; `not reproduced`: none does; else `depends`.
    """
    below = [high < 0 for _, _, high in gaps]
    return VERDICTS[0] if all(below) else VERDICTS[1] if not any(below) else VERDICTS[2]


@dataclass(frozen=True)
class Compared:
    """What was found, `found`, under rows `chosen`: differences of errors of two rows of a panel, paired by task."""

    found: Mapping[str, Mapping[str, Values]]
    chosen: Mapping[tuple[str, str], str]

    def has(self, panel: str, row: str) -> bool:
        """Return whether a row was judged on a panel."""
        return self.name(panel, row) in self.found.get(panel, ())

    def name(self, panel: str, row: str) -> str:
        """Return the learner that stands for a row."""
        return learner(panel, self.chosen.get((panel, row), row))

    def gap(self, panel: str, row: str, other: str, place: int = -1, before: int = -1) -> Gap:
        """Return the error of `row` in column `place` less that of `other` in `before`, over the latter."""
        one, two = (
            next(iter(self.found[panel][self.name(panel, own)].values()))[:, at]
            for own, at in ((row, place), (other, before))
        )
        if row != other:
            return bootstrap(_relative, one, two, resamples=1000)
        both = np.stack([one, two], axis=-1)  # of the same runs: paired by seed, too
        return bootstrap(lambda v: _relative(v[..., 0], v[..., 1]), both, resamples=1000)


def _relative(one: np.ndarray, other: np.ndarray) -> float:
    return float((one.mean() - other.mean()) / abs(other.mean()))


def findings(
    found: Mapping[str, Mapping[str, Values]], chosen: Mapping[tuple[str, str], str]
) -> list[dict[str, Any]]:
    """Return for each finding what it says, the verdict, and the relative differences that it rests on."""
    own = Compared(found, chosen)
    said = (
        ("1. ten steps are better than one, in every regime, in distribution and out of it", _steps(own, 0)),
        ("1. and ten are better than five", _steps(own, 1)),
        (
            "2. in low dimension observations beat gradients",
            _signals(own, "observations", "gradients", ("linear-8",)),
        ),
        (
            "2. in high dimension gradients help more",
            _signals(own, "gradients", "observations", ("linear-100", "mnist")),
        ),
        (
            "2. both together are best",
            _signals(own, "both", "observations", EVERY_SIGNAL)
            | _signals(own, "both", "gradients", EVERY_SIGNAL),
        ),
        (
            "2. the same of the paper's own signals (table 22): observations in low dimension, gradients in high",
            _bare(own, "parametric-plain", "parametric-gradients", ("linear-8",))
            | _bare(own, f"parametric-gradients{UNCURVED}", "parametric-plain", ("linear-100", "mnist")),
        ),
        (
            "2. and both of them are best",
            _bare(own, f"parametric-both{UNCURVED}", "parametric-plain", ("linear-100", "mnist"))
            | _bare(
                own, f"parametric-both{UNCURVED}", f"parametric-gradients{UNCURVED}", ("linear-100", "mnist")
            ),
        ),
        ("3. history barely helps: without it the error is not higher by 2%", _history(own)),
        ("3. but trained on Fashion-MNIST it does", _helped(own)),
        ("4. parametric beats explicit", _regimes(own)),
        ("5. of implicit states logits are best", _states(own)),
        ("asked. ten mini-batches in turn beat one pass over the same rows (table 21)", _turns(own)),
        ("asked. after ten steps our falling gain beats the constant one (tables 2 to 8)", _gains(own)),
        ("asked. learnt generation beats a kernel density (table 5)", _kernels(own)),
        ("asked. learnt orders beat a sort by the shape of columns (tables 5, 9)", _shapes(own)),
    )
    return [
        {
            "finding": title,
            "verdict": verdict(gaps.values()),
            "holds": sum(high < 0 for _, _, high in gaps.values()),
            "of": len(gaps),
            "gaps": {key: [round(value, 4) for value in three] for key, three in gaps.items()},
        }
        for title, gaps in said
        if gaps
    ]


def _steps(own: Compared, before: int) -> dict[str, Gap]:
    """Return the last column less an earlier one, of all learners trained as the paper does."""
    return {
        f"{panel}: {row}, step {STEPS[-1]} less step {STEPS[before]}": own.gap(panel, row, row, -1, before)
        for number in (2, 3, 4, 5, 7, 8, 9)
        for panel, rows in TABLES[number].rows.items()
        for row in rows
        if _plain(row) and own.has(panel, row)
    }


def _signals(own: Compared, one: str, other: str, panels: Iterable[str]) -> dict[str, Gap]:
    return {
        f"{panel}, {regime}: {one} less {other}": own.gap(panel, f"{regime}-{one}", f"{regime}-{other}")
        for panel in panels
        for regime in ("parametric", "explicit")
    }


def _bare(own: Compared, one: str, other: str, panels: Iterable[str]) -> dict[str, Gap]:
    return {f"{panel}: {one} less {other}": own.gap(panel, one, other) for panel in panels}


def _history(own: Compared) -> dict[str, Gap]:
    return {
        f"{panel}: none less {row}, less {SMALL:.0%}": _less(own.gap(panel, "parametric-both", row))
        for panel, row in _windows(own)
        if panel != EXCEPTED
    }


def _helped(own: Compared) -> dict[str, Gap]:
    return {
        f"{panel}: {row} less none": own.gap(panel, row, "parametric-both")
        for panel, row in _windows(own)
        if panel == EXCEPTED
    }


def _windows(own: Compared) -> list[tuple[str, str]]:
    """Return the rows with a window of the past, and their panels."""
    rows = [(panel, row) for panel, rows in TABLES[18].rows.items() for row in rows if "history" in row]
    return [(panel, row) for panel, row in rows if own.has(panel, row)]


def _regimes(own: Compared) -> dict[str, Gap]:
    return {
        f"{panel}: parametric less explicit": own.gap(panel, f"parametric-{signal}", f"explicit-{signal}")
        for panel, rows in TABLES[2].rows.items()
        for signal in ("both" if "parametric-both" in rows else CHOSEN,)
        if panel in own.found
    } | _bare(own, f"parametric-both{UNCURVED}", "explicit-both-decoder", ("mnist",))


def _states(own: Compared) -> dict[str, Gap]:
    return {
        f"{panel}: logits less {row.partition('-')[2]}": own.gap(panel, "implicit-logits", row)
        for panel, rows in TABLES[6].rows.items()
        for row in rows
        if _plain(row)
    }


def _turns(own: Compared) -> dict[str, Gap]:
    return {
        f"{panel}: {row} less {whole}": own.gap(panel, row, whole)
        for panel, rows in TABLES[21].rows.items()
        for whole in rows
        if whole.endswith(WHOLE) and own.has(panel, whole)
        for row in (f"{whole.removesuffix(WHOLE)}{variant}" for variant in ("", FALLING))
        if own.has(panel, row)
    }


def _gains(own: Compared) -> dict[str, Gap]:
    return {
        f"{panel}: {row} less constant": own.gap(panel, row, row.removesuffix(FALLING))
        for number in range(2, 9)
        for panel, rows in TABLES[number].rows.items()
        for row in rows
        if row.endswith(FALLING) and own.has(panel, row)
    }


def _kernels(own: Compared) -> dict[str, Gap]:
    return {
        f"{panel}: {row} less kernel, step {STEPS[place]}": own.gap(panel, row, "kernel", place, place)
        for panel in GENERATED
        for row in ("implicit-logits", f"implicit-logits{FALLING}")
        for place in range(len(STEPS))
        if own.has(panel, row)
    }


def _shapes(own: Compared) -> dict[str, Gap]:
    return {
        f"{panel}: {row} less shape-order": own.gap(panel, row, "shape-order")
        for panel in own.found
        for row in (f"explicit-order{FALLING}", f"implicit-order{FALLING}")
        if own.has(panel, "shape-order")
    }


def _plain(row: str) -> bool:
    """Return whether a row is a learner that is trained as the paper does."""
    stem = row.partition("@")[0]
    return not unlearnt(stem) and not stem.endswith(VARIANTS[1:])


def _less(gap: Gap) -> Gap:
    """Return a difference less what counts as small."""
    value, low, high = gap
    return value - SMALL, low - SMALL, high - SMALL


def verdict_listing(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the findings as a page shows them: verdicts, then the differences that they rest on."""
    rows = [[own["finding"], own["verdict"], f"{own['holds']} of {own['of']}"] for own in found]
    heads = ["finding", "verdict", "intervals below 0"]
    gaps = [
        [own["finding"].partition(".")[0], key, f"{100 * value:+.1f}% [{100 * low:+.1f}, {100 * high:+.1f}]"]
        for own in found
        for key, (value, low, high) in own["gaps"].items()
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
