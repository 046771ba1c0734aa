"""`gradatim forget`: take the rows of files away from a state, as if they had never been learned.

Source: Cauwenberghs, Poggio 2000 (decremental learning).
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files.progress import Bar
from ..files.streaming import CHUNK_ROWS, StreamReport, TargetReader, chunks
from .grouped import is_grouped
from .grouped_states import forget_groups
from .learning import check_free, lock_state, notes_of_rows, row_weights, save
from .show import print_written
from .tables import (
    FILES_HELP,
    add_examples,
    add_reading_options,
    check_output,
    count_rows,
    file_version,
    interruptible,
    is_any_of,
    load_estimator,
    open_known,
    reading_options,
    say,
    say_notes,
)

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace
    from rich.console import Console

    from ..files.reading import TableFile
    from ..files.schema import Schema
    from ..files.target import Labels


def forget_options(parser: ArgumentParser, arguments: list[str]) -> None:
    """Add the options of `forget`."""
    parser.add_argument("files", type=str, nargs="*", help=f"{FILES_HELP}; rows as they were learned")
    parser.add_argument(
        "--state", type=str, required=True, help="a state that gradatim fit wrote; saved at the end"
    )
    parser.add_argument("--out", type=str, help="save to another file and leave the state as it is")
    parser.add_argument(
        "--group", type=str, action="append", help="of a state of groups: forget all rows of this group"
    )
    add_reading_options(parser, stored=True)
    parser.add_argument("--force", action="store_true", help="overwrite an existing file at --out")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    add_examples(
        parser,
        [
            "gradatim forget withdrawn.csv --state task.safetensors",
            "gradatim forget --group 'shop 12' --state stores.safetensors",
        ],
    )


def forget(options: Namespace, console: Console) -> None:
    """Take the rows of files away from a state and save it; the previous state stays on disk until the end.

    Raises:
        ValueError: the state cannot be read or does not forget, the files have other columns, a row was never learned,
            or the state has changed in the meantime.
    """
    if is_grouped(Path(options.state)):
        forget_groups(options, console)
        return
    if not options.files or options.group:
        wanted = "holds no groups: leave --group out" if options.group else "forgets rows: give files of them"
        raise ValueError(f"{options.state} {wanted}")
    state = Path(options.state)
    out = state if options.out is None else Path(options.out)
    is_new = not is_any_of(out, [options.state])
    check_output(out, "--out" if is_new else "--state", options.files)
    with interruptible(out), lock_state(out, console):
        if is_new:
            check_free(out, options.force)
        version = file_version(state)
        model, schema, _ = load_estimator(state)
        table_file = open_known(options.files, schema, reading_options(options))
        note = schema.check_columns(table_file, state, learn=True)
        say_notes(console, [*table_file.notes, note])
        labels, started = schema.labels(), time.perf_counter()
        with Bar(not options.quiet, f"forgetting {table_file.path.name}") as bar:
            report = _forget_stream(model, table_file, schema, labels, bar)
        if file_version(state) != version:
            raise ValueError(
                f"{state} was changed by another process in the meantime: nothing was saved; forget again"
            )
        save(model, out, schema, labels)
        remaining = f"{count_rows(model.task_.count)} left"
        say(
            console,
            f"{count_rows(report.rows)} forgotten in {time.perf_counter() - started:.1f} s; {remaining}",
        )
        say_notes(console, [*table_file.notes_after(), *notes_of_rows(report, labels, None)])
        say(
            console,
            "the map stays: its words, and the lowest and highest numbers and quantiles of first rows",
        )
        print_written(console, [out])


def _forget_stream(
    model: Any, table_file: TableFile, schema: Schema, labels: Labels, bar: Bar
) -> StreamReport:
    """Let an estimator forget the rows of a file, some at a time."""
    report, share = StreamReport(schema.task), [0.0]
    reader = TargetReader(schema, labels, table_file.path, table_file.place)

    def tables() -> Any:
        for table, share[0] in table_file.stream(schema.cells_to_read(learn=True)):
            yield table

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of drift: these rows were learnt
        for X, y, weight in chunks(reader.learnable(tables(), report), lambda: CHUNK_ROWS):
            try:
                model.forget(X, y, **row_weights(schema, weight))
            except ValueError as error:
                place = f"rows {report.rows + 1:,} to {report.rows + len(y):,}"
                raise ValueError(f"{table_file.path}, {place}: {error}; nothing was saved") from error
            report.rows += len(y)
            bar.update(share[0], f"{report.rows:,} rows")
    if not report.rows:
        raise ValueError(f"{table_file.path}: no row with a target and a weight: nothing was forgotten")
    return report
