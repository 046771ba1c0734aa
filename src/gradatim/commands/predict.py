"""`gradatim predict`: answer the rows of files from a state.

Source: Koenker, Bassett 1978 (quantiles of a regression).
"""

from __future__ import annotations

import re
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ..files.choice import check_has
from ..files.predicting import predict_stream
from ..files.progress import Bar
from ..files.writing import STDOUT, SUFFIXES, TableWriter
from .grouped import is_grouped, predict_groups
from .show import print_written
from .tables import (
    FILES_HELP,
    add_examples,
    add_reading_options,
    check_answers,
    check_output,
    column_names,
    count_rows,
    interruptible,
    load_estimator,
    open_known,
    reading_options,
    say,
    say_notes,
)

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


MIN_LEVEL = 1e-12
"""The least quantile level, and the least distance from 1: beyond it rounding decides."""

_NUMBER = re.compile(r"\+?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def predict_options(parser: ArgumentParser, arguments: list[str]) -> None:
    """Add the options of `predict`."""
    parser.add_argument(
        "files", type=str, nargs="+", help=f"{FILES_HELP}; with the columns of the state; a target is ignored"
    )
    parser.add_argument("--state", type=str, required=True, help="a state that gradatim fit wrote")
    parser.add_argument(
        "--out",
        type=str,
        required=True,
        help=f"file to write to, a row for each row ({', '.join(SUFFIXES)}), or - for CSV on standard output",
    )
    parser.add_argument(
        "--proba", action="store_true", help="also write a probability for each class (proba_CLASS)"
    )
    parser.add_argument(
        "--quantiles",
        type=str,
        help="quantile levels of a regression, such as 0.1,0.5,0.9 (quantile_0.1, ...)",
    )
    parser.add_argument(
        "--id",
        type=str,
        help="a column that names each row, written first (default: as in fit, where it is there)",
    )
    parser.add_argument(
        "--drop", type=str, action="append", help="columns of the files that the state does not know"
    )
    add_reading_options(parser, stored=True)
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    add_examples(
        parser,
        [
            "gradatim predict test.csv --state task.safetensors --out predictions.csv --proba",
            "gradatim predict test.parquet --state price.safetensors --out out.parquet --quantiles 0.1,0.5,0.9",
            "cat test.csv | gradatim predict - --state task.safetensors --id customer --out - | sort",
        ],
    )


def predict(options: Namespace, console: Console) -> None:
    """Write the predictions for the rows of files, in their order, to another file.

    Raises:
        ValueError: the state cannot be read, the files have other columns, or the state cannot give this kind of
        prediction.
    """
    out = Path(options.out)
    if options.out == STDOUT:
        console = Console(stderr=True, width=console.width, highlight=False, quiet=console.quiet)
    else:
        check_output(out, "--out", [*options.files, options.state])
        if out.suffix not in SUFFIXES:
            raise ValueError(f"--out must end in {', '.join(SUFFIXES)}, or be -; got {out}")
    levels = parse_levels(options.quantiles)
    if is_grouped(Path(options.state)):
        predict_groups(options, levels, console)
        return
    model, schema, _ = load_estimator(Path(options.state))
    check_answers(levels, options.proba, schema.task, options.state)
    if options.id is not None:
        schema = schema.with_id(options.id)
    n_rows, started = 0, time.perf_counter()
    with nullcontext() if options.out == STDOUT else interruptible(out):
        table_file = open_known(options.files, schema, reading_options(options))
        if options.id is not None:
            check_has(table_file, [options.id], "--id")
        checked = schema.with_dropped(column_names(options.drop, table_file.names), table_file)
        note = checked.check_columns(table_file, options.state, learn=False)
        say_notes(console, [*table_file.notes, note])
        with (
            Bar(not options.quiet, f"predicting {table_file.path.name}") as bar,
            TableWriter(out) as file,
        ):
            for table, share in predict_stream(model, table_file, schema, options.proba, levels):
                file.write(table)
                n_rows += table.num_rows
                bar.update(share, f"{n_rows:,} rows")
    say_notes(console, table_file.notes_after())
    say(console, f"{count_rows(n_rows)} predicted in {time.perf_counter() - started:.1f} s")
    if options.out != STDOUT:
        print_written(console, [out])


def parse_levels(text: str | None) -> list[float]:
    """Return quantile levels.

    Raises:
        ValueError: a part is no number between 0 and 1, or a level is given twice.

    Example:
        >>> from gradatim.commands.predict import parse_levels
        >>> parse_levels("0.1, 0.5,.9")
        [0.1, 0.5, 0.9]
    """
    message = (
        f"--quantiles wants numbers between 0 and 1 separated by commas, such as 0.1,0.5,0.9; got {text!r}"
    )
    parts = [] if text is None else text.split(",")
    if not all(_NUMBER.fullmatch(part.strip(" ")) for part in parts):
        raise ValueError(message)
    levels = [float(part) for part in parts]
    if not all(0 < level < 1 for level in levels):
        raise ValueError(message)
    if not all(MIN_LEVEL <= level <= 1 - MIN_LEVEL for level in levels):
        raise ValueError(
            f"--quantiles wants levels from {MIN_LEVEL:g} to 1 - {MIN_LEVEL:g}, further out is rounding; "
            f"got {text!r}"
        )
    for place, level in enumerate(levels):
        if level in levels[:place]:
            raise ValueError(f"--quantiles names {level!r} twice; got {text!r}: leave one of them out")
    return levels
