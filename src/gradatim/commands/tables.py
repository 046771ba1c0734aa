"""What the commands on tables share: options of reading, states and their schemas, checks, sentences.

Source: RFC 4180 (names with commas stand in quotes).
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jsonargparse import DefaultHelpFormatter

from ..files.cells import DATE
from ..files.reading import ReadOptions, open_table
from ..files.schema import Schema
from ..files.target import CLASSIFICATION, REGRESSION

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from jsonargparse import ArgumentParser, Namespace
    from rich.console import Console

    from ..files.reading import TableFile

MAX_COLUMNS = 40
"""Columns that `info` describes one by one."""

FILES_HELP = (
    "tables of any length: CSV (also .gz, .zip, .bz2, .zst), Parquet, Arrow or JSON lines; several files, a folder, "
    "a pattern such as 'day-*.csv', or - for standard input"
)

LOCK_SECONDS = 3600.0
"""Seconds to wait for another process that changes the same state."""


class ExampleFormatter(DefaultHelpFormatter):
    """A help page whose examples stand on lines of their own."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(
            line if line.startswith("  ") else super(ExampleFormatter, self)._fill_text(line, width, indent)
            for line in text.splitlines()
        )


def add_examples(parser: ArgumentParser, examples: Iterable[str]) -> None:
    """Show examples, a line each, at the end of a command's help.

    Example:
        >>> from jsonargparse import ArgumentParser
        >>> from gradatim.commands.tables import add_examples
        >>> parser = ArgumentParser(prog="x")
        >>> add_examples(parser, ["x 1  # one", "x 2"])
        >>> print(parser.format_help().partition("\\n\\n")[2].partition("message and exit.")[2].strip())
        examples:
          x 1  # one
          x 2
    """
    parser.formatter_class = ExampleFormatter
    parser.epilog = "\n".join(["examples:", *(f"  {example}" for example in examples)])


def add_reading_options(parser: ArgumentParser, stored: bool) -> None:
    """Add the options that say how text files are read; `stored`: those of the state are the defaults."""
    default = " (default: as in fit)" if stored else ""
    parser.add_argument(
        "--delimiter",
        type=str,
        help=f"what separates cells, such as ';' or tab (default: from the rows){default}",
    )
    parser.add_argument("--decimal", type=str, help=f"the decimal mark of numbers, '.' or ','{default}")
    parser.add_argument(
        "--missing",
        type=str,
        action="append",
        help=f"words that mean a missing cell in every column, separated by commas, such as 'NA,-'{default}",
    )
    parser.add_argument(
        "--header",
        type=str,
        help=f"none, if the first line holds cells instead of names, else first{default}",
    )
    parser.add_argument("--encoding", type=str, help="how text is encoded (default: utf-8), such as cp1252")


def reading_options(options: Namespace) -> dict[str, Any]:
    """Return the options of reading that were given, checked.

    Raises:
        ValueError: the message names the option.
    """
    reading: dict[str, Any] = {
        name: options[name] for name in ("delimiter", "decimal", "encoding") if options[name] is not None
    }
    if options.header is not None:
        if options.header not in ("none", "first"):
            raise ValueError(f"--header needs none or first; got {options.header!r}")
        reading["header"] = options.header == "first"
    if options.missing is not None:
        reading["missing"] = split_names(options.missing)
    ReadOptions(**reading)  # refuses what cannot be
    return reading


def open_files(files: Sequence[str], reading: Mapping[str, Any], **more: Any) -> TableFile:
    """Open the tables in files as one, with options of reading by name.

    Raises:
        ValueError: as `open_table`.
    """
    options = {name: tuple(value) if name == "missing" else value for name, value in reading.items()}
    return open_table(files, ReadOptions(**options, **more))


def open_known(
    files: Sequence[str], schema: Schema, explicit: Mapping[str, Any], sampled: bool = False
) -> TableFile:
    """Open the tables in files as one, whose columns a state knows.

    Args:
        files: their paths.
        schema: what the state knows.
        explicit: options of reading that are given now.
        sampled: whether the sample is to be of all rows.

    Raises:
        ValueError: as `open_table`.
    """
    changes = {name: explicit[name] for name in ("decimal", "missing") if name in explicit}
    if "missing" in changes:
        changes["missing"] = tuple(changes["missing"])
    cells = {name: replace(value, **changes) for name, value in schema.known_cells().items()}
    features = tuple(name for name in schema.columns if name not in schema.empty)
    options = {"columns": cells, "features": features}
    return open_files(files, {**schema.reading, **explicit}, **options, sampled=sampled)


def load_estimator(state: Path) -> tuple[Any, Schema, float]:
    """Return the estimator in a state, the schema of its files, and the number of rows learned.

    Raises:
        ValueError: a file that is missing, truncated, foreign, newer, or not made by `gradatim fit`.
    """
    from ..estimators import RefinedClassifier, RefinedRegressor
    from ..files.table import read_table

    contents = read_table(state)
    header = contents.header
    schema = Schema.from_json(header, state)
    kinds = {kind.__name__: kind for kind in (RefinedClassifier, RefinedRegressor)}
    if header["estimator"] not in kinds:
        raise ValueError(
            f"{state} holds a {header['estimator']}, which this version does not have: upgrade gradatim"
        )
    return kinds[header["estimator"]].load(contents), schema, header["rows"]


def describe_state(header: Mapping[str, Any]) -> list[list[str]]:
    """Return the contents of the state of a table as lines for `gradatim info`."""
    lines = [["estimator", str(header["estimator"])], ["rows", f"{header['rows']:,.0f}"]]
    if (parts := len(header.get("merged") or ())) > 1:
        lines.append(["merged", f"{parts} states, no row twice"])
    lines += [
        [name, str(value)] for name, value in header["params"].items() if name in ("model", "batch_size")
    ]
    lines.append(["memory", str(header["params"].get("memory", "all"))])
    if header["classes"] is not None:
        labels = header["classes"]["labels"]
        more = ", ..." if len(labels) > 20 else ""
        lines.append(["classes", f"{len(labels)}: {', '.join(map(str, labels[:20]))}{more}"])
    if (weights := header.get("class_weight")) is not None:
        pairs = zip(weights["labels"]["labels"][:20], weights["weights"], strict=False)
        more = ", ..." if len(weights["weights"]) > 20 else ""
        lines.append(["class weight", ", ".join(f"{label}: {weight:.4g}" for label, weight in pairs) + more])
    if (table := header.get("table")) is not None:
        lines.append(["target", f"{table['target']} ({table['task']})"])
        lines += [["dropped", ", ".join(table["dropped"])]] if table["dropped"] else []
        lines += [[name, str(table[name])] for name in ("id", "weight") if table.get(name) is not None]
        lines += [["empty", ", ".join(table["empty"])]] if table.get("empty") else []
    columns = header["map"]["columns"]
    kinds = {column["name"]: column["kind"] for column in columns}
    for name, cells in (table or {}).get("columns", {}).items():
        kinds[name] = cells if isinstance(cells, str) else cells["kind"]
    counts = Counter(kinds.values())
    lines.append(["columns", f"{len(columns)}: {', '.join(f'{kind} ({n})' for kind, n in counts.items())}"])
    fixed = "fixed" if header["warm"] is None else "not fixed yet; the first rows are stored"
    lines.append(["map", f"format version {header['map']['format']}, {fixed}"])
    lines += [
        [f"  {column['name']}", _describe_column(column, kinds[column["name"]])]
        for column in columns[:MAX_COLUMNS]
    ]
    if len(columns) > MAX_COLUMNS:
        lines.append(["  ...", f"and {len(columns) - MAX_COLUMNS} more"])
    return lines


def _describe_column(column: Mapping[str, Any], kind: str) -> str:
    """Return what the encoder stores of a column."""
    if column.get("quantiles") == []:
        return f"{kind}: empty so far"
    if "levels" not in column:
        missing = ", some missing" if column["has_missing"] else ""
        if kind in (DATE, "zoned"):
            first, last = (np.datetime64(round(86_400 * column[end]), "s") for end in ("low", "high"))
            return f"{kind}: {first} to {last}{missing}"
        # version 0.1 called them mean and std
        centre, scale = (
            column.get(new, column.get(old)) for new, old in (("centre", "mean"), ("scale", "std"))
        )
        spread = f"centre {centre:.4g}, scale {scale:.4g}"
        return f"{kind}: {spread}, {column['low']:.4g} to {column['high']:.4g}{missing}"
    levels = column["levels"]
    more = ", ..." if len(levels) > 5 else ""
    return f"{kind}: {len(levels)} levels of {column['slots']} ({', '.join(levels[:5])}{more})"


def check_answers(levels: Sequence[float], probabilities: bool, task: str, state: Path | str) -> None:
    """Check that a state of this task can give the quantiles, or probabilities, that are wanted.

    Raises:
        ValueError: quantiles of classes, or probabilities of a number.
    """
    for wanted, option, needed in (
        (levels, "--quantiles", REGRESSION),
        (probabilities, "--proba", CLASSIFICATION),
    ):
        if wanted and task != needed:
            raise ValueError(f"{option} is for a {needed}; {state} holds a {task}: leave it out")


def check_output(path: Path, option: str, files: Iterable[str]) -> None:
    """Check that a file can be written at a path, and that it is none of the input files.

    Raises:
        ValueError: the message names the option.
    """
    if is_any_of(path, files):
        raise ValueError(f"{option} {path} is an input file, which it would overwrite: choose another file")
    target = Path(os.path.realpath(path))
    if os.path.lexists(target) and not target.is_file():
        raise ValueError(f"{option} {path} is not a file: choose another path")
    folder = next(parent for parent in target.parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ValueError(f"{option} {path}: nothing can be written in {folder}: choose another folder")


def is_any_of(path: Path, files: Iterable[str]) -> bool:
    """Return whether a path leads to one of these files.

    Example:
        >>> from pathlib import Path
        >>> from gradatim.commands.tables import is_any_of
        >>> is_any_of(Path("a/../x.csv"), ["x.csv"]), is_any_of(Path("y.csv"), ["x.csv", "-"])
        (True, False)
    """
    real = os.path.realpath(path)
    return any(real == os.path.realpath(file) for file in files)


@contextmanager
def interruptible(path: Path) -> Iterator[None]:
    """On an interruption, add to the message what is left at `path`."""
    before = file_version(path)
    try:
        yield
    except KeyboardInterrupt:
        after = "is unchanged" if file_version(path) == before else "was written and is complete"
        if not path.exists():
            after = "was not written"
        raise KeyboardInterrupt(f"interrupted; {path} {after}") from None


def file_version(path: Path) -> tuple[int, ...] | None:
    """Return what changes when a file is written again, or None if there is no file."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def split_names(text: str | Sequence[str] | None) -> list[str]:
    """Return names separated by commas, of one text or of several; a name with a comma stands in quotes.

    Example:
        >>> from gradatim.commands.tables import split_names
        >>> split_names(['size, "weight, kg"', "day"]), split_names("")
        (['size', 'weight, kg', 'day'], [''])
    """
    texts = [] if text is None else [text] if isinstance(text, str) else [part or "--" for part in text]
    rows = (next(csv.reader([part], skipinitialspace=True), []) or [""] for part in texts)
    return list(dict.fromkeys(name.strip() for row in rows for name in row))


def column_names(texts: Sequence[str] | None, names: Sequence[str]) -> list[str]:
    """Return the columns that an option lists. A text that is a column's whole name is that name, commas and all.

    An empty name stands for every column without a name, which is called after its place.

    Example:
        >>> from gradatim.commands.tables import column_names
        >>> column_names(["weight, kg", ""], ["column 1", "weight, kg", "y"])
        ['weight, kg', 'column 1']
    """
    listed: dict[str, None] = {}
    for text in texts or ():
        for name in [text] if text in names else split_names(text):
            numbered = (f"column {place}" for place in range(1, len(names) + 1))
            unnamed = [new for old, new in zip(numbered, names, strict=True) if new in (old, f"{old}_2")]
            listed |= dict.fromkeys(unnamed if name == "" and unnamed else [name])
    return list(listed)


def column_name(text: str | None, names: Sequence[str]) -> str | None:
    """Return the column that an option names; an empty name stands for the first column without a name."""
    return column_names([text], names)[0] if text == "" else text


def count(number: int, singular: str, plural: str) -> str:
    """Return a number with its noun.

    Example:
        >>> from gradatim.commands.tables import count
        >>> count(1, "class", "classes"), count(1200, "row", "rows")
        ('1 class', '1,200 rows')
    """
    return f"{number:,} {singular if number == 1 else plural}"


def count_rows(number: int) -> str:
    """Return a number of rows as text."""
    return count(number, "row", "rows")


def say(console: Console, sentence: str) -> None:
    """Print a sentence on one line."""
    console.print(sentence, soft_wrap=True, markup=False)


def say_notes(console: Console, notes: Iterable[str | None]) -> None:
    """Print notes, each on a line."""
    for note in notes:
        if note:
            say(console, f"note: {note}")
