"""The result of a comparison: records, a table, a picture, a file.

Source: records in long form, a row for each measurement (Wickham 2014).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files.checkpoint import write_bytes
from .plots import Curve, lines
from .report import number

ORACLE = "oracle"
_KEYS = ("family", "batch_size", "tasks", "seeds", "records")


@dataclass(frozen=True, repr=False)
class Comparison:
    """What `compare` measured.

    A record is a dictionary with these keys.

    - `method`: its name. `learnt` says whether it was meta-trained, `parameters` how many numbers were.
    - `setting`: the options that were tuned on meta-training tasks. `seconds`: of meta-training.
    - `seed`: of meta-training. `"all"` pools the seeds; None stands where nothing was meta-trained.
    - `step`, `rows`: mini-batches and rows seen.
    - `metric`, `mean`, `low`, `high`: the mean over tasks and seeds and its 95% interval.

    Attributes:
        family: the name of the tasks' class.
        batch_size: rows of a mini-batch.
        tasks: how many were judged.
        seeds: of meta-training.
        records: a dictionary for each method, seed, step and metric.

    Example:
        >>> from gradatim import LinearRegression, compare
        >>> result = compare(["ridge", "sgd"], LinearRegression(2), steps=(1, 5), tasks=8, progress=False)
        >>> result
        Comparison(ridge, sgd, oracle on LinearRegression: 8 tasks, steps 1, 5)
        >>> result.save("comparison.json").name
        'comparison.json'
        >>> Comparison.load("comparison.json") == result
        True
    """

    family: str
    batch_size: int
    tasks: int
    seeds: int
    records: list[dict[str, Any]]

    def __repr__(self) -> str:
        steps = ", ".join(map(str, self.steps))
        return f"Comparison({', '.join(self.methods)} on {self.family}: {self.tasks} tasks, steps {steps})"

    @property
    def methods(self) -> list[str]:
        """Return the names of the methods, in the order in which they were judged."""
        return list(dict.fromkeys(record["method"] for record in self.records))

    @property
    def metrics(self) -> list[str]:
        """Return the names of the metrics; the first one tuned the methods that are not meta-trained."""
        return list(dict.fromkeys(record["metric"] for record in self.records))

    @property
    def steps(self) -> list[int]:
        """Return the numbers of mini-batches after which the methods were judged."""
        return sorted({record["step"] for record in self.records})

    def pooled(self, metric: str | None = None) -> dict[str, list[dict[str, Any]]]:
        """Return by method the records of a metric over all seeds, by rising step; by default of the first metric.

        Raises:
            ValueError: a metric that was not measured.
        """
        metric = self.metrics[0] if metric is None else metric
        if metric not in self.metrics:
            raise ValueError(f"no metric is called {metric!r}: measured were {', '.join(self.metrics)}")
        records = [r for r in self.records if r["metric"] == metric and r["seed"] in (None, "all")]
        return {
            name: sorted((r for r in records if r["method"] == name), key=lambda r: r["step"])
            for name in self.methods
        }

    def table(self, metric: str | None = None) -> str:
        """Return a metric as a Markdown table that reads well as plain text: a row a method, a column a step.

        Each cell is a mean with half the width of its 95% interval. The best method of a column is bold. Methods with a
        star are not meta-trained; their options were tuned on meta-training tasks. The oracle is no method.

        Args:
            metric: by default the first one.

        Raises:
            ValueError: a metric that was not measured.

        Example:
            >>> from gradatim import LinearRegression, compare
            >>> result = compare(["ridge", "sgd"], LinearRegression(2), steps=(1, 5), tasks=8, progress=False)
            >>> print(result.table("excess risk"))
            | excess risk | 1 (16 rows)... | 5 (80 rows)... |
            |---...
            | ridge * ...
        """
        metric = self.metrics[0] if metric is None else metric
        pooled = self.pooled(metric)
        sign = -1 if "accuracy" in metric else 1
        best = {}
        for step in self.steps:
            means = {
                name: sign * record["mean"]
                for name, records in pooled.items()
                for record in records
                if name != ORACLE and record["step"] == step and math.isfinite(record["mean"])
            }
            best[step] = min(means.values(), default=math.nan) * sign
        rows = [[metric, *(f"{step} ({step * self.batch_size} rows)" for step in self.steps)]]
        for name, records in pooled.items():
            star = "" if name == ORACLE or records[0]["learnt"] else " *"
            rows.append(
                [
                    f"{name}{star}",
                    *(_cell(r, name != ORACLE and r["mean"] == best[r["step"]]) for r in records),
                ]
            )
        return "\n".join([*_aligned(rows), "", self._legend()])

    def to_frame(self) -> Any:
        """Return the records as a data frame: of pandas where it is installed, else of polars.

        Raises:
            ValueError: neither is installed.

        Example:
            >>> from gradatim import LinearRegression, compare
            >>> result = compare(["ridge"], LinearRegression(2), steps=(1, 5), tasks=8, progress=False)
            >>> result.to_frame().columns.tolist()[:4]
            ['method', 'learnt', 'seed', 'step']
        """
        import narwhals.stable.v2 as nw

        columns = {key: [record[key] for record in self.records] for key in self.records[0]}
        columns["seed"] = [None if seed is None else str(seed) for seed in columns["seed"]]
        columns["setting"] = [json.dumps(setting) for setting in columns["setting"]]
        for backend in ("pandas", "polars"):
            try:
                return nw.from_dict(columns, backend=backend).to_native()
            except ModuleNotFoundError:
                continue
        raise ValueError(
            "a data frame needs pandas or polars: pip install pandas, or use .records, a list of dictionaries"
        )

    def plot(self, path: Path | str, metric: str | None = None) -> str | None:
        """Draw a metric after each step, a line a method in its colour, with its interval.

        Args:
            path: the picture's file.
            metric: by default the first one.

        Returns:
            None, or why there is no picture.

        Raises:
            ValueError: a metric that was not measured.

        Example:
            >>> from gradatim import LinearRegression, compare
            >>> result = compare(["ridge"], LinearRegression(2), steps=(1, 5), tasks=8, progress=False)
            >>> notice = result.plot("curve.png", "excess risk")
        """
        metric = self.metrics[0] if metric is None else metric
        curves = []
        for name, records in self.pooled(metric).items():
            x, y, low, high = ([record[key] for record in records] for key in ("step", "mean", "low", "high"))
            curves.append(Curve(name, x, y, low, high))
        title = f"{self.tasks} tasks of {self.family}, {self.batch_size} rows a mini-batch"
        return lines(path, title, "mini-batches seen", metric, curves)

    def save(self, path: Path | str) -> Path:
        """Write the comparison to a JSON file, and return its path; a number that is not finite becomes null."""
        value = {key: getattr(self, key) for key in _KEYS}
        value["records"] = [
            {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
            for record in self.records
        ]
        write_bytes(Path(path), (json.dumps(value, indent=1) + "\n").encode())
        return Path(path)

    @classmethod
    def load(cls, path: Path | str) -> Comparison:
        """Return the comparison that `save` wrote.

        Raises:
            ValueError: a file that cannot be read, or that holds no comparison.
        """
        try:
            value = json.loads(Path(path).read_text(encoding="utf-8"))
            records = [
                record | {key: math.nan for key in ("mean", "low", "high") if record[key] is None}
                for record in value["records"]
            ]
            fields: dict[str, Any] = {key: value[key] for key in _KEYS}
            fields["records"] = records
            return cls(**fields)
        except OSError as error:
            raise ValueError(
                f"{path} cannot be read ({error.strerror}): give a file that Comparison.save wrote"
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} holds no comparison: give a file that Comparison.save wrote") from error

    def _legend(self) -> str:
        trained = any(record["seed"] == "all" for record in self.records)
        seeds = f" and {self.seeds} seeds" if trained and self.seeds > 1 else ""
        legend = f"Means over {self.tasks} tasks{seeds} with 95% intervals; bold: the best."
        if any(not r["learnt"] and r["method"] != ORACLE for r in self.records):
            legend += " *: not meta-trained, tuned on meta-training tasks."
        return legend


def _cell(record: dict[str, Any], bold: bool) -> str:
    """Return a mean and half the width of its interval."""
    if not math.isfinite(record["mean"]):
        return number(None)
    text = f"{record['mean']:.3g} ± {(record['high'] - record['low']) / 2:.2g}"
    return f"**{text}**" if bold else text


def _aligned(rows: list[list[str]]) -> list[str]:
    """Return the lines of a Markdown table whose first row is its head, all columns of one width."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = [
        f"| {' | '.join(text.ljust(width) for text, width in zip(row, widths, strict=True))} |"
        for row in rows
    ]
    return [lines[0], f"|{'|'.join('-' * (width + 2) for width in widths)}|", *lines[1:]]
