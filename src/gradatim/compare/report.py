"""From a benchmark's JSON to a page and pictures; nothing in them is typed by hand.

Source: DESIGN.md, Results.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from ..files.checkpoint import write_bytes
from .plots import Curve, curves

SHOWN = (1, 2, 5, 10, 20, 40, 50, 80, 98, 100, 160, 200, 400, 500, 625, 1000, 1875)
AXES = {"steps": "mini-batches seen", "rows": "rows seen"}


def write_result(out: Path, name: str, result: dict[str, Any]) -> list[Path]:
    """Write `name.json`, its page `name.md` and its pictures below `out`; return their paths."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.json"
    write_bytes(path, (json.dumps(result, indent=1) + "\n").encode())
    return [path, *render(path)]


def render(path: Path) -> list[Path]:
    """Render the page and the pictures of a result JSON beside it; return their paths.

    Example:
        >>> render(Path("docs/results/core.json"))
    """
    result = json.loads(path.read_text())
    pictures: list[Path] = []
    lines = [f"# Study: {result['benchmark']}", ""]
    if result["smoke"]:
        lines += ["A smoke run: tiny sizes, numbers without meaning.", ""]
    lines += [
        f"Rendered from `{path.name}`; commit {result['commit']}, torch {result['torch']}{_about(result)}",
        "",
        *_claims(result["claims"]),
    ]
    listings, placed = result.get("listings", []), defaultdict(list)
    for title, name in result.get("pictures", []):
        pictures.append(path.with_name(name))
        owner = next((own["title"] for own in listings if f"{title}: ".startswith(f"{own['title']}: ")), "")
        placed[owner] += [f"![{title}]({name})", ""]
    lines += placed.pop("", [])
    for listing in listings:
        lines += _listing(**listing, pictures=placed.pop(listing["title"], []))
    panels: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for record in result["records"]:
        if record["seed"] not in ("all", None):
            continue
        panels[record["family"], record["metric"]].append(record)
    for (family, metric), records in panels.items():
        lines += [f"## {family}: {metric}", ""]
        for axis in result.get("axes", ["steps"]):
            title = f"{family}: {metric} against {axis}"
            name = f"{path.stem}-{family}-{metric}" + ("" if axis == "steps" else f"-{axis}")
            picture = path.with_name(f"{name.replace(' ', '-')}.png")
            drawn = curves(picture, title, AXES[axis], metric, _curves(records, axis), metric != "accuracy")
            if drawn is None:
                pictures.append(picture)
                lines += [f"![{title}]({picture.name})", ""]
        lines += _table(records)
    page = path.with_suffix(".md")
    write_bytes(page, ("\n".join(lines) + "\n").encode())
    return [page, *pictures]


def _about(result: dict[str, Any]) -> str:
    """Return how to read the numbers: the benchmark's own words, or those of benchmarks that meta-train."""
    if "about" in result:
        return f". {result['about']}"
    return (
        f", {result['seeds']} meta-training seeds. Intervals are 95%: over seeds and tasks together, or over tasks "
        "where nothing is meta-trained. Settings of baselines are tuned on meta-training tasks, to be best after 10 "
        "steps."
    )


def _listing(title: str, columns: list[str], rows: list[list[str]], pictures: list[str]) -> list[str]:
    """Return a table of a benchmark's own under its title and the pictures called TITLE or TITLE: WHAT."""
    head = [f"## {title}", "", *pictures, f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    return [*head, *(f"| {' | '.join(row)} |" for row in rows), ""]


def _claims(claims: list[dict[str, Any]]) -> list[str]:
    """Return the table of claims; below each, what it is fair to read beside it, without a bar."""
    lines = ["| id | value | 95% interval | bar | holds |", "|---|---|---|---|---|"]
    for c in claims:
        interval = f"{number(c['low'])} to {number(c['high'])}" + (f" ({c['range']})" if "range" in c else "")
        holds = "yes" if c["holds"] else "**no**"
        lines.append(
            f"| `{c['id']}` | {number(c['value'])} | {interval} | {c['direction']} {c['bar']:g} | {holds} |"
        )
        for name, (value, low, high) in c.get("beside", {}).items():
            lines.append(f"| beside it: {name} | {number(value)} | {number(low)} to {number(high)} | | |")
    return [*lines, ""]


def number(value: float | None) -> str:
    """Return a number of a result as text; JSON has none for that of a learner that diverged.

    Example:
        >>> number(0.123456), number(None)
        ('0.1235', 'diverged')
    """
    return "diverged" if value is None else f"{value:.4g}"


def _by_name(records: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    grouped: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        grouped[record["name"]].append(record)
    return grouped


def _curves(records: list[dict[str, Any]], axis: str) -> list[Curve]:
    """Return one curve a method, its mean and its interval against `axis`, the highest at its end first."""
    found = [
        Curve(name, *([r[key] for r in own] for key in (axis, "mean", "low", "high")))
        for name, own in _by_name(records).items()
    ]
    return sorted(found, key=lambda line: -line.end)


def _table(records: list[dict[str, Any]]) -> list[str]:
    """Return the table of one family and metric: methods by steps, with cost."""
    steps = [s for s in SHOWN if any(r["steps"] == s for r in records)]
    costs = ["meta-training s", "peak MB", "threads"]
    timed = any("adapt_seconds" in r for r in records)
    costs += ["adapting ms a task", "adapting extra MB"] if timed else []
    lines = [
        f"| method | {' | '.join(f'step {s}' for s in steps)} | setting | {' | '.join(costs)} |",
        "|---" * (len(steps) + len(costs) + 2) + "|",
    ]
    for name, own in _by_name(records).items():
        at = {r["steps"]: f"{r['mean']:.4f} ± {(r['high'] - r['low']) / 2:.4f}" for r in own}
        first = own[0]
        setting = ", ".join(f"{key} {value:g}" for key, value in (first["setting"] or {}).items())
        cost = ["0", "", ""]
        if first["peak_memory"]:
            cost = [f"{first['seconds']:.0f}", f"{first['peak_memory'] / 2**20:.0f}", str(first["threads"])]
        if "adapt_seconds" in first:
            cost += [f"{1000 * first['adapt_seconds']:.1f}", f"{first['adapt_memory'] / 2**20:.1f}"]
        elif timed:
            cost += ["", ""]
        lines.append(
            f"| {name} | {' | '.join(at.get(step, '') for step in steps)} | {setting} | {' | '.join(cost)} |"
        )
    return [*lines, ""]
