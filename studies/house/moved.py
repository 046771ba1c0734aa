"""Whether measured results moved: figures recorded before a change, against those of the code as it is.

The figures are those of the smoke runs of all studies, of the validation tables, and the golden losses.
`python -m studies.house.record FOLDER` writes `before.json`, from the files that `measure` leaves in a folder.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gradatim.files.checkpoint import write_bytes

from .wording import ROOT

if TYPE_CHECKING:
    from rich.console import Console

STUDIES = ("core", "every_row", "images", "paper", "tables")
"""Studies whose smoke runs are compared."""

UNSTEADY = (
    "core.throughput",
    "paper.cost_exponent",
    "paper.cost_ratio",
    "tables.predict_speed",
    "tables.row_by_row",
    "tables.state_bytes",
    "tables.update_speed",
)
"""Claims about time or bytes, which are no results."""

BEFORE = Path(__file__).with_name("before.json")
"""The figures that were recorded."""

OURS, RIDGE = "gradatim", "plain-ridge"
RATIO = 0.002
"""Largest difference of an error over the ridge's on a validation table."""

RELATIVE, ABSOLUTE = 1e-4, 1e-6
"""Largest differences of everything else: float32, and figures that are rounding errors themselves."""

Figures = dict[str, float | None]
"""Numbers by their place, such as `core/claims/core.regimes/value`; None where a learner diverged."""


def measure(folder: Path, workers: int, console: Console, studies: tuple[str, ...] = STUDIES) -> None:
    """Run the smoke studies, the validation tables and the golden learners; leave JSON files in `folder`.

    What stands there is not run again.

    Raises:
        ValueError: $GRADATIM_DATA is not set.
    """
    from studies import run  # the studies' table holds this one, too

    for name in studies:
        if not (folder / f"{name}.json").exists():
            console.print(f"the smoke run of {name}")
            run(name, folder, True, 1, workers, console)
    if not (folder / "validation.json").exists():
        _write(folder / "validation.json", validation(folder, workers, console))
    _write(folder / "golden.json", golden())


def validation(folder: Path, workers: int, console: Console) -> dict[str, Any]:
    """Return by table and learner the mean metrics of one pass over each validation table.

    Raises:
        ValueError: $GRADATIM_DATA is not set.
    """
    from gradatim.comparison.runs import Study
    from studies.tables.data import names
    from studies.tables.run import passes

    settings = json.loads((ROOT / "docs" / "results" / "tables.json").read_text())["settings"]
    study = Study(folder / "work" / "validation", workers, console)
    result: dict[str, Any] = {}
    for kind in ("classification", "regression"):
        tables = names(kind, "validation")
        chosen = {name: settings[kind][name] for name in (OURS, RIDGE)}
        records = passes(study, chosen, tables, 1, f"validation, {kind}")
        for place, table in enumerate(tables):
            result[table] = {name: _metrics(records[name][place][0]) for name in chosen}
    return result


def _metrics(values: Mapping[str, np.ndarray]) -> dict[str, float]:
    metrics = ("error", "log_loss", "square", "final_error", "final_log_loss", "final_square")
    return {name: float(np.asarray(values[name], float).mean()) for name in metrics if name in values}


def golden() -> dict[str, Any]:
    """Return the losses of the golden learners, which `tests/golden/regenerate.py` computes in float64."""
    spec = spec_from_file_location("regenerate", ROOT / "tests" / "golden" / "regenerate.py")
    if spec is None or spec.loader is None:
        raise ValueError("tests/golden/regenerate.py is not there: run the study in a checkout")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.numbers()


def figures(folder: Path) -> dict[str, Any]:
    """Return the figures of the files in a folder as a tree of numbers, rounded to eight digits.

    Args:
        folder: with `core.json` and the JSON of other studies, `validation.json`, `golden.json`. Some may be missing.
    """
    tree: dict[str, Any] = {}
    for name in STUDIES:
        if (path := folder / f"{name}.json").exists():
            tree[name] = study_figures(json.loads(path.read_text(encoding="utf-8")))
    for name in ("validation", "golden"):
        if (path := folder / f"{name}.json").exists():
            tree[name] = json.loads(path.read_text(encoding="utf-8"))
    return rounded(tree)


def study_figures(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the claims and the means of the records of a study's JSON; times and bytes are left out.

    Example:
        >>> record = {"name": "ridge", "family": "f", "metric": "error", "steps": 1, "seed": 0, "mean": 0.5}
        >>> study_figures({"claims": [], "records": [record]})["records"]
        {'f': {'ridge': {'error': {'0': {'1': 0.5}}}}}
    """
    claims = {
        claim["id"]: {key: claim[key] for key in ("value", "low", "high")}
        for claim in result["claims"]
        if claim["id"] not in UNSTEADY
    }
    records: dict[str, Any] = {}
    for record in (*result.get("records", ()), *result.get("cells", ())):
        if record["metric"] != "seconds":
            level = records
            for key in ("family", "name", "metric", "seed"):
                level = level.setdefault(str(record[key]), {})
            level[str(record["steps"])] = record["mean"]
    return {"claims": claims, "records": records}


def rounded(value: Any) -> Any:
    """Return a tree whose numbers have eight digits; lists become trees, and what is not finite None.

    Example:
        >>> rounded({"a": [1 / 3, float("inf")]})
        {'a': {'0': 0.33333333, '1': None}}
    """
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return {str(place): rounded(part) for place, part in enumerate(value)}
    if value is None or not math.isfinite(value):
        return None  # a learner that diverged
    return float(f"{value:.8g}")


def flat(tree: Mapping[str, Any], start: str = "") -> Iterator[tuple[str, float | None]]:
    """Yield the place and the value of every number of a tree.

    Example:
        >>> list(flat({"a": {"b": 1.0}}))
        [('a/b', 1.0)]
    """
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{start}{key}/")
        else:
            yield f"{start}{key}", value


def over_ridge(tables: Mapping[str, Any]) -> Figures:
    """Return by table and metric what the estimator has over what the ridge has; the root of squares.

    Where the ridge has no error, the ratio is that to one: both of zero are equal.
    """
    ratios: Figures = {}
    for table, learners in tables.items():
        for metric, ours in learners[OURS].items():
            ratio = ours / (learners[RIDGE][metric] or 1.0)
            ratios[f"{table}/{metric}"] = math.sqrt(ratio) if "square" in metric else ratio
    return ratios


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the figures that differ, with both values; one that is gone is a difference, a new one is none.

    Example:
        >>> differences({"golden": {"a": 1.0, "b": 2.0}}, {"golden": {"a": 1.0, "b": 2.1}})
        [{'figure': 'golden/b', 'before': 2.0, 'after': 2.1}]
    """
    pairs = [_pairs(dict(flat(_without(before))), dict(flat(_without(after))), _close)]
    if "validation" in before:
        first, second = (over_ridge(side.get("validation", {})) for side in (before, after))
        pairs.append(_pairs(first, second, _near, "validation, over the ridge: "))
    return [difference for part in pairs for difference in part]


def _without(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {name: part for name, part in tree.items() if name != "validation"}


def _pairs(before: Figures, after: Figures, same: Any, start: str = "") -> list[dict[str, Any]]:
    return [
        {"figure": f"{start}{place}", "before": value, "after": after.get(place, "missing")}
        for place, value in before.items()
        if place not in after or not same(value, after[place])
    ]


def _close(before: float | None, after: float | None) -> bool:
    """Return whether two figures are equal to rounding."""
    if before is None or after is None:
        return before is after
    return math.isclose(before, after, rel_tol=RELATIVE, abs_tol=ABSOLUTE)


def _near(before: float, after: float) -> bool:
    return abs(before - after) <= RATIO


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, (json.dumps(content, indent=1) + "\n").encode())
