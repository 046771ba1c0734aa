"""From a study's JSON to a page that answers a question. No number on a page is typed by hand.

Source: GitHub Flavored Markdown, its tables.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..files.checkpoint import write_bytes
from .plots import Curve

TextTable = tuple[Sequence[str], Sequence[Sequence[str]]]
"""Columns and rows of a table, as text."""


@dataclass(frozen=True)
class Result:
    """A study's JSON with the look-ups that a page needs. What was not run is NaN.

    Attributes:
        data: the JSON: `claims`, `records` (or `cells`), and what else a study writes.

    Example:
        >>> result = Result({"claims": [{"id": "a.b", "value": 0.5, "low": 0.4, "high": 0.6}], "records": []})
        >>> result.value("a.b"), result.interval("a.b")
        (0.5, '0.5 [0.4, 0.6]')
        >>> result.text("a.b"), result.text("a.c")
        ('0.5', 'an unmeasured number')
        >>> result.mean("digits", "ridge", 10)
        nan
    """

    data: Mapping[str, Any]
    _by_key: dict[tuple[str, str], list[Mapping[str, Any]]] = field(
        default_factory=dict, init=False, repr=False
    )

    def __post_init__(self) -> None:
        """Sort the records over all seeds by family and name."""
        for record in (*self.data.get("records", ()), *self.data.get("cells", ())):
            if record["seed"] in ("all", None):
                self._by_key.setdefault((record["family"], record["name"]), []).append(record)

    def claim(self, name: str) -> Mapping[str, Any]:
        """Return a claim by its id, empty where it was not run."""
        return next((claim for claim in self.data["claims"] if claim["id"] == name), {})

    def value(self, name: str) -> float:
        """Return a claim's value."""
        return _finite(self.claim(name).get("value"))

    def text(self, name: str, missing: str = "an unmeasured number") -> str:
        """Return a claim's value as text; `missing` where it was not measured."""
        value = self.claim(name).get("value")
        return missing if value is None else number(value)

    def interval(self, name: str) -> str:
        """Return a claim's value and its interval as text."""
        claim = self.claim(name)
        return measured_text(claim) if claim else number(math.nan)

    def beside(self, name: str, start: str) -> float:
        """Return what stands beside a claim under a title that begins with `start`."""
        texts = self.claim(name).get("beside", {})
        return next(
            (_finite(values[0]) for title, values in texts.items() if title.startswith(start)), math.nan
        )

    def records(self, family: str, name: str, metric: str = "") -> list[Mapping[str, Any]]:
        """Return the records of a learner on a family, over all seeds; of its first metric by default."""
        records = self._by_key.get((family, name), [])
        metric = metric or next((record["metric"] for record in records), "")
        return [record for record in records if record["metric"] == metric]

    def mean(self, family: str, name: str, steps: int, metric: str = "") -> float:
        """Return a learner's mean after so many mini-batches."""
        means = (r["mean"] for r in self.records(family, name, metric) if r["steps"] == steps)
        return _finite(next(means, None))

    def cell(self, family: str, name: str, steps: int, metric: str = "") -> str:
        """Return a learner's mean and half the width of its interval as text, empty where it was not run."""
        for record in self.records(family, name, metric):
            if record["steps"] == steps:
                if record["high"] is None or record["low"] is None:
                    return "diverged"
                return f"{record['mean']:.3g}\u00a0±\u00a0{(record['high'] - record['low']) / 2:.2g}"
        return ""

    def curve(
        self, family: str, name: str, metric: str = "", axis: str = "steps", method: str = "", label: str = ""
    ) -> list[Curve]:
        """Return a learner's curve against `axis` (steps or rows), or an empty list where it was not run.

        Args:
            family: that the learner was judged on.
            name: of the learner in records.
            metric: by default its first.
            axis: `steps` or `rows`.
            method: whose colour and words it has; by default `name`.
            label: what a legend says instead of the method's words.
        """
        records = self.records(family, name, metric)
        columns = ([_finite(record[key]) for record in records] for key in ("mean", "low", "high"))
        xs = [record[axis] for record in records]
        return [Curve(method or name, xs, *columns, label=label)] if records else []

    def listing(self, start: str) -> list[list[str]]:
        """Return the rows of the first listing whose title begins with `start`."""
        return next((x["rows"] for x in self.data.get("listings", ()) if x["title"].startswith(start)), [])


@dataclass(frozen=True)
class Question:
    """A question that a page answers.

    Attributes:
        name: of the picture, which is STUDY-NAME.png.
        title: the question, or the finding, in words.
        answer: sentences with numbers of the result in them.
        draw: draws the picture to a file and returns None, or why it did not.
        caption: what the picture shows.
        table: columns and rows of a small table.
    """

    name: str
    title: str
    answer: Callable[[Result], Iterable[str]]
    draw: Callable[[Result, Path], str | None] | None = None
    caption: str = ""
    table: Callable[[Result], TextTable] | None = None


@dataclass(frozen=True)
class Page:
    """The page of a study.

    Attributes:
        study: its name.
        questions: the first one is the page's title.
        claims: what each claim measures, in words, by its id.
        notes: how to read the numbers.
    """

    study: str
    questions: tuple[Question, ...] = ()
    claims: Mapping[str, str] = field(default_factory=dict)
    notes: str = ""


def write_result(out: Path, name: str, result: dict[str, Any], page: Page | None = None) -> list[Path]:
    """Write `name.json`, its page `name.md` and its pictures below `out`; return their paths."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.json"
    write_bytes(path, (json.dumps(result, indent=1) + "\n").encode())
    return [path, *render(path, page)]


def render(path: Path, page: Page | None = None) -> list[Path]:
    """Render the page and the pictures of a result's JSON beside it; return their paths.

    Example:
        >>> from pathlib import Path
        >>> about = {"benchmark": "mine", "smoke": False, "seeds": 1, "commit": "c", "torch": "t"}
        >>> paths = write_result(Path("."), "mine", {**about, "claims": []})
        >>> [path.name for path in paths]
        ['mine.json', 'mine.md']
    """
    result = Result(json.loads(path.read_text(encoding="utf-8")))
    page = page or Page(result.data["benchmark"])
    pictures: list[Path] = []
    lines = [] if page.questions else [f"# Study: {page.study}", ""]
    for place, question in enumerate(page.questions):
        lines += [f"{'##' if place else '#'} {question.title}", ""]
        if not place and result.data["smoke"]:
            lines += ["A smoke run: tiny sizes, numbers without meaning.", ""]
        lines += _answered(question, result, path, pictures)
    lines += _verdicts(result.data["claims"], page.claims)
    lines += _footer(result.data, page, path)
    text = path.with_suffix(".md")
    write_bytes(text, ("\n".join(lines) + "\n").encode())
    return [text, *pictures]


def _answered(question: Question, result: Result, path: Path, pictures: list[Path]) -> list[str]:
    """Return the lines of a question: its answer, its picture and its table. A picture drawn joins `pictures`."""
    lines = [" ".join(question.answer(result)), ""]
    if question.draw is not None:
        picture = path.with_name(f"{path.stem}-{question.name}.png")
        if question.draw(result, picture) is None:
            pictures.append(picture)
            lines += [f"![{question.caption or question.title}]({picture.name})", ""]
    columns, rows = question.table(result) if question.table else ((), ())
    if rows:
        lines += markdown_table(columns, rows)
    return lines


def _verdicts(claims: Sequence[Mapping[str, Any]], words: Mapping[str, str]) -> list[str]:
    """Return the table of claims: what each measures, its value, its bar and whether it holds."""
    if not claims:
        return []
    rows = []
    for claim in claims:
        span = f" ({claim['range']})" if "range" in claim and claim["value"] is not None else ""
        value = f"{measured_text(claim)}{span}"
        bar, holds = f"{claim['direction']} {claim['bar']:g}", "yes" if claim["holds"] else "**no**"
        rows.append([f"`{claim['id']}`", words.get(claim["id"], ""), value, bar, holds])
    count = sum(claim["holds"] for claim in claims)
    title = f"## Verdicts: {count} of {len(claims)} hold"
    note = "Each bar was fixed before the run. Brackets hold 95% intervals unless the cell says otherwise."
    columns = ("id", "what it measures", "value", "bar", "holds")
    return [title, "", note, "", *markdown_table(columns, rows)]


def measured_text(claim: Mapping[str, Any]) -> str:
    """Return the value of a claim and its interval as text, or why it was not measured.

    Example:
        >>> measured_text({"value": 0.5, "low": 0.25, "high": 1.0})
        '0.5 [0.25, 1]'
        >>> measured_text({"value": None, "low": None, "high": None, "range": "not built yet"})
        'not measured: not built yet'
    """
    if claim["value"] is None and "range" in claim:
        return f"not measured: {claim['range']}"
    return f"{number(claim['value'])} [{number(claim['low'])}, {number(claim['high'])}]"


def _footer(data: Mapping[str, Any], page: Page, path: Path) -> list[str]:
    """Return how to read the numbers, how to run the study, and where everything else is."""
    count = len(data.get("records", ())) + len(data.get("cells", ()))
    render_it = f"python -m studies.render {path.name}"
    width = max(len(render_it), len(f"make study NAME={page.study}"))
    return [
        "## How to run it",
        "",
        f"    {f'make study NAME={page.study}':<{width}}  # SMOKE=1: tiny sizes, does it run",
        f"    {render_it:<{width}}  # this page and its pictures, from the JSON alone",
        "",
        *([page.notes, ""] if page.notes else []),
        f"Everything else is in [{path.name}]({path.name}): {count:,} records with intervals, settings and costs, and "
        f"what stands beside each claim. Commit {data['commit']}, torch {data['torch']}, {data['seeds']} meta-training "
        f"seed{'s' * (data['seeds'] != 1)}.",
    ]


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table and an empty one.

    Example:
        >>> markdown_table(["method", "error"], [["ridge", "0.1"]])
        ['| method | error |', '|---|---|', '| ridge | 0.1 |', '']
    """
    head = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    return [*head, *(f"| {' | '.join(row)} |" for row in rows), ""]


def number(value: float | None) -> str:
    """Return a number of a result as text; JSON has none for that of a learner that diverged.

    Example:
        >>> number(0.123456), number(None), number(float("nan"))
        ('0.1235', 'diverged', 'not run')
    """
    if value is None:
        return "diverged"
    return "not run" if math.isnan(value) else f"{value:.4g}"


def _finite(value: float | None) -> float:
    """Return a number of JSON, in which null stands for what is not finite."""
    return math.nan if value is None else float(value)
