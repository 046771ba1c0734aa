"""`gradatim fit`, `update` and `predict`: fit an estimator to a table in a file, and predict the rows of another.

Source: Dawid 1984 (prequential evaluation: every row is predicted before it is learned).
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
from ..files.streaming import TableWriter, check_class_count, fit_stream, predict_stream
from .show import print_written

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from jsonargparse import ArgumentParser, Namespace
    from rich.console import Console

    from ..files.reading import TableFile
    from ..files.streaming import StreamReport

MAX_COLUMNS = 40
"""Columns that `info` describes one by one."""

FILE_HELP = "CSV (.gz as well) or Parquet file, of any length"


def fit_options(parser: ArgumentParser, arguments: list[str]) -> None:
    """Add the options of `fit`."""
    parser.add_argument("file", help=FILE_HELP)
    parser.add_argument(
        "--target", type=str, required=True, help="the column to predict; rows without it are skipped"
    )
    parser.add_argument("--state", type=str, required=True, help="file for what was learned (.safetensors)")
    parser.add_argument(
        "--task",
        type=str,
        default="auto",
        help="auto, classification or regression; auto: text, or at most 100 different whole numbers, are classes",
    )
    parser.add_argument("--batch-size", type=int, default=32, help="rows per mini-batch")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random features")
    parser.add_argument(
        "--classes",
        type=str | None,
        help="all classes, separated by commas (default: those of the first rows; more may follow)",
    )
    parser.add_argument(
        "--drop", type=str | None, help="columns to leave out, separated by commas, such as a row number"
    )
    parser.add_argument(
        "--text", type=str | None, help="columns of numbers to read as text, such as a zip code"
    )
    parser.add_argument("--force", action="store_true", help="overwrite an existing state")
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def update_options(parser: ArgumentParser, arguments: list[str]) -> None:
    """Add the options of `update`."""
    parser.add_argument("file", help=f"{FILE_HELP}, with the columns of the state, in any order")
    parser.add_argument(
        "--state", type=str, required=True, help="a state that gradatim fit wrote; saved at the end"
    )
    parser.add_argument("--out", type=str | None, help="save to another file and leave the state as it is")
    parser.add_argument("--force", action="store_true", help="overwrite an existing file at --out")
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def predict_options(parser: ArgumentParser, arguments: list[str]) -> None:
    """Add the options of `predict`."""
    parser.add_argument("file", help=f"{FILE_HELP}, with the columns of the state; the target is ignored")
    parser.add_argument("--state", type=str, required=True, help="a state that gradatim fit wrote")
    parser.add_argument(
        "--out", type=str, required=True, help="file to write to, .csv or .parquet, a row for each row"
    )
    parser.add_argument(
        "--proba", action="store_true", help="also write a probability for each class (proba_CLASS)"
    )
    parser.add_argument(
        "--quantiles",
        type=str | None,
        help="quantile levels of a regression, such as 0.1,0.5,0.9 (quantile_0.1, ...)",
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def fit(options: Namespace, console: Console) -> None:
    """Fit an estimator to a file and save its state.

    Raises:
        ValueError: invalid options, a file that cannot be learned, or a state that would be overwritten.
    """
    if options.task not in TASKS:
        raise ValueError(f"--task must be one of {', '.join(TASKS)}; got {options.task!r}")
    for name, minimum in (("batch_size", 1), ("seed", 0)):
        if options[name] < minimum:
            raise ValueError(f"--{name.replace('_', '-')} must be at least {minimum}; got {options[name]}")
    if options.seed >= 2**32:
        raise ValueError(f"--seed must be below 2**32; got {options.seed}")
    state = _check_new_file(options.state, "--state", options.force, options.file)
    table_file = open_table(options.file)
    text_columns, dropped = (_split_names(options[name]) for name in ("text", "drop"))
    schema = Schema.infer(table_file, options.target, options.task, dropped, text_columns)
    kinds = schema.columns_to_read(table_file, state, with_target=True)
    class_labels = (
        None
        if options.classes is None
        else schema.parse_classes(options.classes, _split_names(options.classes))
    )
    classes = None
    if schema.task == CLASSIFICATION:
        classes = _first_classes(table_file, schema, kinds) if class_labels is None else class_labels
        check_class_count(classes, schema, table_file.path)
    _print(console, _describe_task(schema, classes, options.task, class_labels is not None))
    for name in (name for name in schema.columns if table_file.kinds[name] is None):
        _print(console, f"note: column {name!r} is empty in the first rows; it is read as text")
    from ..estimators import RefinedClassifier, RefinedRegressor

    estimator = RefinedClassifier if schema.task == CLASSIFICATION else RefinedRegressor
    model = estimator(batch_size=options.batch_size, random_state=options.seed)
    with _interruptible(state):
        report, seconds = _fit_with_progress(model, table_file, schema, kinds, 0, options.quiet, classes)
        model.save(state, {"table": schema.to_json()})
    _report(console, report, seconds, schema, model)
    print_written(console, [state])


def update(options: Namespace, console: Console) -> None:
    """Learn one more file and save the state; the previous state stays on disk until the end.

    Raises:
        ValueError: the state cannot be read, the file has other columns, or the state has changed in the meantime.
    """
    state = Path(options.state)
    version = _file_version(state)
    model, schema, rows_before = load_estimator(state)
    out = state
    if options.out is not None and Path(options.out).resolve() != state.resolve():
        out = _check_new_file(options.out, "--out", options.force, options.file)
    table_file = open_table(options.file)
    kinds = schema.columns_to_read(table_file, state, with_target=True)
    with _interruptible(out):
        report, seconds = _fit_with_progress(model, table_file, schema, kinds, rows_before, options.quiet)
        if _file_version(state) != version:
            raise ValueError(
                f"{state} was changed by another process in the meantime: nothing was saved; update again"
            )
        model.save(out, {"table": schema.to_json()})
    _report(console, report, seconds, schema, model)
    print_written(console, [out])


def predict(options: Namespace, console: Console) -> None:
    """Write the predictions for the rows of a file, in their order, to another file.

    Raises:
        ValueError: the state cannot be read, the file has other columns, or the state cannot give this kind of
        prediction.
    """
    model, schema, _ = load_estimator(Path(options.state))
    levels = _parse_levels(options.quantiles)
    for value, option, task in (
        (levels, "--quantiles", REGRESSION),
        (options.proba, "--proba", CLASSIFICATION),
    ):
        if value and schema.task != task:
            raise ValueError(f"{option} is for a {task}; {options.state} holds a {schema.task}: leave it out")
    out = Path(options.out)
    if out.suffix not in (".csv", ".parquet"):
        raise ValueError(f"--out must end in .csv or .parquet; got {out}")
    for path in (options.file, options.state):
        if out.resolve() == Path(path).resolve():
            raise ValueError(f"--out {out} would overwrite an input file: choose another file")
    _check_folder(out, "--out")
    table_file = open_table(options.file)
    kinds = schema.columns_to_read(table_file, options.state, with_target=False)
    rows, started = 0, time.perf_counter()
    with (
        _interruptible(out),
        Bar(not options.quiet, f"predicting {table_file.path.name}") as bar,
        TableWriter(out) as file,
    ):
        for table, share in predict_stream(model, table_file, schema, kinds, options.proba, levels):
            file.write(table)
            rows += table.num_rows
            bar.update(share, f"{rows:,} rows")
    _print(console, f"{_count_rows(rows)} predicted in {time.perf_counter() - started:.1f} s")
    print_written(console, [out])


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


def _fit_with_progress(
    model: Any,
    table_file: TableFile,
    schema: Schema,
    kinds: dict[str, str],
    rows_before: float,
    quiet: bool,
    classes: Any = None,
) -> tuple[StreamReport, float]:
    """Fit an estimator to a file under a progress bar; return the report and the seconds."""
    started = time.perf_counter()
    with Bar(not quiet, f"learning {table_file.path.name}") as bar:
        report = fit_stream(model, table_file, schema, kinds, rows_before, bar, classes)
    return report, time.perf_counter() - started


def _report(console: Console, report: StreamReport, seconds: float, schema: Schema, model: Any) -> None:
    """Print what was learned."""
    count = f" of {_count(len(model.classes_), 'class', 'classes')}" if schema.task == CLASSIFICATION else ""
    skipped = f"; {_count_rows(report.skipped)} without {schema.target!r} skipped" if report.skipped else ""
    _print(console, f"{_count_rows(report.rows)}{count} learned in {seconds:.1f} s{skipped}")
    if report.scored:
        _print(
            console,
            f"prequential {report.metric}: {_count_rows(report.scored)}, each predicted before it was learned",
        )
    for note in report.notes:
        _print(console, f"note: {note}")


def _first_classes(table_file: TableFile, schema: Schema, kinds: dict[str, str]) -> np.ndarray:
    """Return the classes `[classes]` among the first rows of a file."""
    table, _ = next(table_file.stream(kinds))
    y, present = schema.target_values(table, table_file.path)
    return np.unique(y[present])


def _describe_task(schema: Schema, classes: np.ndarray | None, task: str, named: bool) -> str:
    """Return the task that was chosen for a target, and how to choose the other one."""
    if classes is None:
        hint = "" if task != "auto" else " (use --task classification if whole numbers are classes)"
        return f"regression: {schema.target!r} is a number{hint}"
    hint = (
        " (use --task regression if it is a number)" if task == "auto" and classes.dtype.kind == "i" else ""
    )
    where = "from --classes" if named else "in the first rows"
    return f"classification: {schema.target!r} has {_count(len(classes), 'class', 'classes')} {where}{hint}"


def _check_new_file(name: str, option: str, force: bool, input_file: str) -> Path:
    """Return the path of a state to be written, checked before the work begins.

    Raises:
        ValueError: the file exists, or it cannot be written there.
    """
    path = Path(name)
    if path.resolve() == Path(input_file).resolve():
        raise ValueError(f"{option} {path} is the input file: choose another file")
    _check_folder(path, option)
    if path.exists() and not force:
        raise ValueError(
            f"{path} already exists: learn more rows with gradatim update, or overwrite it with --force"
        )
    return path


def _check_folder(path: Path, option: str) -> None:
    """Raise ValueError if no file can be written at `path`."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{option} {path} is not a file: choose another path")
    folder = next(parent for parent in path.resolve().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ValueError(f"{option} {path}: nothing can be written in {folder}: choose another folder")


@contextmanager
def _interruptible(path: Path) -> Iterator[None]:
    """On an interruption, add to the message what is left at `path`."""
    before = _file_version(path)
    try:
        yield
    except KeyboardInterrupt:
        after = "is unchanged" if _file_version(path) == before else "was written and is complete"
        if not path.exists():
            after = "was not written"
        raise KeyboardInterrupt(f"interrupted; {path} {after}") from None


def _file_version(path: Path) -> tuple[int, ...] | None:
    """Return what changes when a file is written again, or None if there is no file."""
    if not path.exists():
        return None
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _split_names(text: str | None) -> list[str]:
    """Return names separated by commas; a name with a comma stands in quotes."""
    return [] if not text else [name.strip() for name in next(csv.reader([text], skipinitialspace=True))]


def _parse_levels(text: str | None) -> list[float]:
    """Return quantile levels.

    Raises:
        ValueError: a part is no number between 0 and 1.
    """
    try:
        levels = [float(part) for part in _split_names(text)]
    except ValueError:
        levels = [0.0]
    if not all(0 < level < 1 for level in levels):
        raise ValueError(
            f"--quantiles needs numbers between 0 and 1 separated by commas, such as 0.1,0.5,0.9; got {text!r}"
        )
    return levels


def _count(count: int, singular: str, plural: str) -> str:
    return f"{count:,} {singular if count == 1 else plural}"


def _count_rows(count: int) -> str:
    return _count(count, "row", "rows")


def _print(console: Console, sentence: str) -> None:
    console.print(sentence, soft_wrap=True, markup=False)
