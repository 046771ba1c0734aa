"""`gradatim fit`, `update` and `predict`: tables in files, learnt in one pass and answered; what a state knows of one.

Source: Dawid 1984 (every row is predicted before it is learnt).
"""

from __future__ import annotations

import csv
import os
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..files.progress import Bar
from ..files.reading import DATE, ZONED, open_table
from ..files.schema import CLASSIFICATION, REGRESSION, TASKS, Schema
from ..files.streaming import Written, answer, learn, refuse_many
from .show import wrote

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from jsonargparse import ArgumentParser, Namespace
    from rich.console import Console

    from ..files.reading import Source
    from ..files.streaming import Told

SHOWN = 40
"""Columns of which `info` says something each."""

FILE = "CSV (.gz as well) or Parquet file, of any length"


def fit_options(parser: ArgumentParser, arguments: list[str]) -> None:
    """Add the options of `fit`."""
    parser.add_argument("file", help=FILE)
    parser.add_argument(
        "--target", type=str, required=True, help="the column to predict; rows without it are skipped"
    )
    parser.add_argument(
        "--state", type=str, required=True, help="file to keep what was learnt in (.safetensors)"
    )
    parser.add_argument(
        "--task",
        type=str,
        default="auto",
        help="auto, classification or regression; auto: a target of words, or of at most 100 whole numbers, is classes",
    )
    parser.add_argument("--batch-size", type=int, default=32, help="rows that are learnt at a time")
    parser.add_argument("--seed", type=int, default=0, help="which random features are drawn")
    parser.add_argument(
        "--classes",
        type=str | None,
        help="all classes, with commas (default: those of the first rows; more may come)",
    )
    parser.add_argument(
        "--drop", type=str | None, help="columns to leave away, with commas, such as a row's number"
    )
    parser.add_argument(
        "--text", type=str | None, help="columns of numbers that are names, such as a zip code"
    )
    parser.add_argument("--force", action="store_true", help="overwrite a state")
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def update_options(parser: ArgumentParser, arguments: list[str]) -> None:
    """Add the options of `update`."""
    parser.add_argument("file", help=f"{FILE}, with the columns that the state knows, in any order")
    parser.add_argument(
        "--state", type=str, required=True, help="a state that gradatim fit wrote; saved at the end"
    )
    parser.add_argument(
        "--out", type=str | None, help="another file to save to; the state then stays as it is"
    )
    parser.add_argument("--force", action="store_true", help="overwrite what stands at --out")
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def predict_options(parser: ArgumentParser, arguments: list[str]) -> None:
    """Add the options of `predict`."""
    parser.add_argument("file", help=f"{FILE}, with the columns that the state knows; the target is ignored")
    parser.add_argument("--state", type=str, required=True, help="a state that gradatim fit wrote")
    parser.add_argument(
        "--out", type=str, required=True, help="file to write to, .csv or .parquet, a row for each row"
    )
    parser.add_argument(
        "--proba", action="store_true", help="a probability for each class as well (proba_CLASS)"
    )
    parser.add_argument(
        "--quantiles", type=str | None, help="of a regression, such as 0.1,0.5,0.9 (quantile_0.1, ...)"
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def fit(options: Namespace, console: Console) -> None:
    """Learn a file from nothing and save what is known.

    Raises:
        ValueError: impossible options, a file that cannot be learnt, a state that would be overwritten.
    """
    if options.task not in TASKS:
        raise ValueError(f"--task must be one of {', '.join(TASKS)}; got {options.task!r}")
    for name, least in (("batch_size", 1), ("seed", 0)):
        if options[name] < least:
            raise ValueError(f"--{name.replace('_', '-')} must be at least {least}; got {options[name]}")
    if options.seed >= 2**32:
        raise ValueError(f"--seed must be below 2**32; got {options.seed}")
    state = _writable(options.state, "--state", options.force, options.file)
    source = open_table(options.file)
    texts, dropped = (_listed(options[name]) for name in ("text", "drop"))
    layout = Schema.of(source, options.target, options.task, dropped, texts)
    kinds = layout.wanted(source, state, labelled=True)
    given = None if options.classes is None else layout.classes(options.classes, _listed(options.classes))
    classes = None
    if layout.task == CLASSIFICATION:
        classes = _first_classes(source, layout, kinds) if given is None else given
        refuse_many(classes, layout, source.path)
    _say(console, _chosen(layout, classes, options.task, given is not None))
    for name in (name for name in layout.columns if source.kinds[name] is None):
        _say(console, f"note: column {name!r} is empty in the first rows; it is read as text")
    from ..estimators import RefinedClassifier, RefinedRegressor

    kind = RefinedClassifier if layout.task == CLASSIFICATION else RefinedRegressor
    model = kind(batch_size=options.batch_size, random_state=options.seed)
    with _interruptible(state):
        told, seconds = _learnt(model, source, layout, kinds, 0, options.quiet, classes)
        model.save(state, {"table": layout.to_json()})
    _report(console, told, seconds, layout, model)
    wrote(console, [state])


def update(options: Namespace, console: Console) -> None:
    """Learn one more file and save what is known; until the end the state on disk stays as it was.

    Raises:
        ValueError: a state that cannot be read, a file of other columns, a state that was changed meanwhile.
    """
    state = Path(options.state)
    mark = _mark(state)
    model, layout, known = opened(state)
    out = state
    if options.out is not None and Path(options.out).resolve() != state.resolve():
        out = _writable(options.out, "--out", options.force, options.file)
    source = open_table(options.file)
    kinds = layout.wanted(source, state, labelled=True)
    with _interruptible(out):
        told, seconds = _learnt(model, source, layout, kinds, known, options.quiet)
        if _mark(state) != mark:
            raise ValueError(
                f"{state} was changed by someone else meanwhile: nothing was saved; update again"
            )
        model.save(out, {"table": layout.to_json()})
    _report(console, told, seconds, layout, model)
    wrote(console, [out])


def predict(options: Namespace, console: Console) -> None:
    """Answer the rows of a file, in their order, into another file.

    Raises:
        ValueError: a state that cannot be read, a file of other columns, an answer the state cannot give.
    """
    model, layout, _ = opened(Path(options.state))
    levels = _levels(options.quantiles)
    for asked, option, task in (
        (levels, "--quantiles", REGRESSION),
        (options.proba, "--proba", CLASSIFICATION),
    ):
        if asked and layout.task != task:
            raise ValueError(
                f"{option} is for a {task}; {options.state} holds a {layout.task}: leave it away"
            )
    out = Path(options.out)
    if out.suffix not in (".csv", ".parquet"):
        raise ValueError(f"--out must end in .csv or .parquet; got {out}")
    for other in (options.file, options.state):
        if out.resolve() == Path(other).resolve():
            raise ValueError(f"--out {out} would overwrite what is read: choose another file")
    _refuse_folder(out, "--out")
    source = open_table(options.file)
    kinds = layout.wanted(source, options.state, labelled=False)
    rows, begun = 0, time.perf_counter()
    with (
        _interruptible(out),
        Bar(not options.quiet, f"predicting {source.path.name}") as watch,
        Written(out) as file,
    ):
        for table, done in answer(model, source, layout, kinds, options.proba, levels):
            file.add(table)
            rows += table.num_rows
            watch.at(done, f"{rows:,} rows")
    _say(console, f"{_rows(rows)} answered in {time.perf_counter() - begun:.1f} s")
    wrote(console, [out])


def opened(state: Path) -> tuple[Any, Schema, float]:
    """Return the estimator in a state, the columns of its files, and the rows that it knows.

    Raises:
        ValueError: a file that is missing, truncated, foreign, newer, or not made by `gradatim fit`.
    """
    from ..estimators import RefinedClassifier, RefinedRegressor
    from ..estimators.files import read_table

    header, _ = read_table(state)
    layout = Schema.from_json(header, state)
    kinds = {kind.__name__: kind for kind in (RefinedClassifier, RefinedRegressor)}
    if header["estimator"] not in kinds:
        raise ValueError(f"{state} holds a {header['estimator']}, which is not known here: upgrade gradatim")
    return kinds[header["estimator"]].load(state), layout, header["rows"]


def described(header: Mapping[str, Any]) -> list[list[str]]:
    """Return what a table's state knows, lines for `gradatim info`."""
    lines = [["estimator", str(header["estimator"])], ["rows", f"{header['rows']:,.0f}"]]
    lines += [
        [name, str(value)] for name, value in header["params"].items() if name in ("model", "batch_size")
    ]
    if header["classes"] is not None:
        labels = header["classes"]["labels"]
        more = ", ..." if len(labels) > 20 else ""
        lines.append(["classes", f"{len(labels)}: {', '.join(map(str, labels[:20]))}{more}"])
    if (table := header.get("table")) is not None:
        lines.append(["target", f"{table['target']} ({table['task']})"])
        lines += [["dropped", ", ".join(table["dropped"])]] if table["dropped"] else []
    columns = header["map"]["columns"]
    kinds = {column["name"]: column["kind"] for column in columns} | (table or {}).get("columns", {})
    counts = Counter(kinds.values())
    lines.append(["columns", f"{len(columns)}: {', '.join(f'{kind} ({n})' for kind, n in counts.items())}"])
    fixed = "fixed" if header["warm"] is None else "not fixed yet, rows are still kept"
    lines.append(["map", f"format version {header['map']['format']}, {fixed}"])
    lines += [[f"  {column['name']}", _mapped(column, kinds[column["name"]])] for column in columns[:SHOWN]]
    if len(columns) > SHOWN:
        lines.append(["  ...", f"and {len(columns) - SHOWN} more"])
    return lines


def _mapped(column: Mapping[str, Any], kind: str) -> str:
    """Return what the map knows of a column."""
    if "levels" not in column:
        missing = ", some missing" if column["has_missing"] else ""
        if kind in (DATE, ZONED):
            first, last = (np.datetime64(round(86_400 * column[end]), "s") for end in ("low", "high"))
            return f"{kind}: {first} to {last}{missing}"
        spread = f"mean {column['mean']:.4g}, std {column['std']:.4g}"
        return f"{kind}: {spread}, {column['low']:.4g} to {column['high']:.4g}{missing}"
    levels = column["levels"]
    more = ", ..." if len(levels) > 5 else ""
    return f"{kind}: {len(levels)} levels of {column['slots']} ({', '.join(levels[:5])}{more})"


def _learnt(
    model: Any,
    source: Source,
    layout: Schema,
    kinds: dict[str, str],
    known: float,
    quiet: bool,
    classes: Any = None,
) -> tuple[Told, float]:
    """Learn a file under a progress bar; return what was found and the seconds it took."""
    begun = time.perf_counter()
    with Bar(not quiet, f"learning {source.path.name}") as watch:
        told = learn(model, source, layout, kinds, known, watch, classes)
    return told, time.perf_counter() - begun


def _report(console: Console, told: Told, seconds: float, layout: Schema, model: Any) -> None:
    """Say what was learnt."""
    count = f" of {_count(len(model.classes_), 'class', 'classes')}" if layout.task == CLASSIFICATION else ""
    skipped = f"; {_rows(told.skipped)} without {layout.target!r} skipped" if told.skipped else ""
    _say(console, f"{_rows(told.rows)}{count} learnt in {seconds:.1f} s{skipped}")
    if told.judged:
        _say(console, f"prequential {told.score}: {_rows(told.judged)}, each predicted before it was learnt")
    for note in told.notes:
        _say(console, f"note: {note}")


def _first_classes(source: Source, layout: Schema, kinds: dict[str, str]) -> np.ndarray:
    """Return the classes among the first rows of a file."""
    table, _ = next(source.stream(kinds))
    y, there = layout.labels(table, source.path)
    return np.unique(y[there])


def _chosen(layout: Schema, classes: np.ndarray | None, asked: str, given: bool) -> str:
    """Return what kind of task a target makes, and how to say otherwise."""
    if classes is None:
        change = "" if asked != "auto" else " (by --task classification whole numbers are classes)"
        return f"regression: {layout.target!r} is a number{change}"
    change = " (--task regression: it is a number)" if asked == "auto" and classes.dtype.kind == "i" else ""
    where = "by --classes" if given else "in the first rows"
    return f"classification: {layout.target!r} has {_count(len(classes), 'class', 'classes')} {where}{change}"


def _writable(name: str, option: str, force: bool, source: str) -> Path:
    """Return the path of a state that is to be written, before an hour is spent on what it will hold.

    Raises:
        ValueError: something stands there, or nothing can.
    """
    path = Path(name)
    if path.resolve() == Path(source).resolve():
        raise ValueError(f"{option} {path} is the file that is read: choose another file")
    _refuse_folder(path, option)
    if path.exists() and not force:
        raise ValueError(
            f"{path} already exists: learn more with gradatim update, or overwrite it with --force"
        )
    return path


def _refuse_folder(path: Path, option: str) -> None:
    """Raise ValueError where no file can be written at path."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{option} {path} is not a file: choose another path")
    home = next(parent for parent in path.resolve().parents if parent.exists())
    if not home.is_dir() or not os.access(home, os.W_OK):
        raise ValueError(f"{option} {path}: nothing can be written in {home}: choose another folder")


@contextmanager
def _interruptible(path: Path) -> Iterator[None]:
    """Let an interruption say what it has left at path."""
    before = _mark(path)
    try:
        yield
    except KeyboardInterrupt:
        after = "is as it was" if _mark(path) == before else "was written before, and is whole"
        if not path.exists():
            after = "was not written"
        raise KeyboardInterrupt(f"interrupted; {path} {after}") from None


def _mark(path: Path) -> tuple[int, ...] | None:
    """Return what changes when a file is written anew."""
    if not path.exists():
        return None
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _listed(text: str | None) -> list[str]:
    """Return names with commas between them; one that holds a comma stands in quotes."""
    return [] if not text else [name.strip() for name in next(csv.reader([text], skipinitialspace=True))]


def _levels(text: str | None) -> list[float]:
    """Return quantile levels.

    Raises:
        ValueError: something that is none.
    """
    try:
        levels = [float(part) for part in _listed(text)]
    except ValueError:
        levels = [0.0]
    if not all(0 < level < 1 for level in levels):
        raise ValueError(
            f"--quantiles wants numbers between 0 and 1 with commas, such as 0.1,0.5,0.9; got {text!r}"
        )
    return levels


def _count(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"


def _rows(count: int) -> str:
    return _count(count, "row", "rows")


def _say(console: Console, sentence: str) -> None:
    console.print(sentence, soft_wrap=True, markup=False)
