"""`gradatim boundary`: draw the decision boundary of a table of two columns, whole or step by step.

Source: Zhao, Nguyen, Grover 2024 (boundaries as a probe).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..files.cells import NUMBER
from ..files.options import suggest
from .show import print_table, print_written
from .tables import (
    FILES_HELP,
    add_examples,
    add_reading_options,
    check_output,
    column_name,
    column_names,
    count,
    count_rows,
    open_files,
    reading_options,
    say,
    say_notes,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jsonargparse import ArgumentParser, Namespace
    from rich.console import Console

    from ..files.reading import TableFile

PICTURES, MOST_PICTURES, MOST_CLASSES = 8, 40, 20
"""Steps that are drawn by default, the most that are, and the most classes."""


def boundary_options(parser: ArgumentParser, arguments: list[str]) -> None:
    """Add the options of `boundary`."""
    parser.add_argument("files", type=str, nargs="+", help=f"{FILES_HELP}; with two columns of numbers")
    parser.add_argument(
        "--target", type=str, required=True, help="the column of classes; rows without one are left out"
    )
    parser.add_argument(
        "--columns", type=str, help="the two columns of numbers, separated by a comma (default: the only two)"
    )
    parser.add_argument(
        "--out",
        type=str,
        default="boundary.png",
        help="the picture; with --steps a name that ends in .gif is an animation",
    )
    parser.add_argument(
        "--steps",
        action="store_true",
        help="draw the boundary after every mini-batch, in the order of the rows: is it still moving, or are there "
        "rows enough?",
    )
    parser.add_argument(
        "--batch-size", type=int | None, help=f"rows of a step (default: an even share of {PICTURES} steps)"
    )
    parser.add_argument("--grid", type=int, default=50, help="cells along each side")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random features")
    add_reading_options(parser, stored=False)
    add_examples(
        parser,
        [
            "gradatim boundary flowers.csv --target species --columns width,length",
            "gradatim boundary moons.csv --target y --steps --out steps.gif",
            "# roughness: the share of neighbouring cells whose labels differ. Twice as many regions as classes, or a",
            "# roughness that grows with more rows, mean that single rows are followed: noise, or too few rows.",
        ],
    )


def boundary(options: Namespace, console: Console) -> None:
    """Fit a `RefinedClassifier` to a table of two columns, draw its boundary, and say how rough it is.

    Raises:
        ValueError: other than two columns of numbers, one class or too many, a picture that cannot be written.
    """
    from ..estimators import RefinedClassifier
    from ..probing import boundaries, draw_boundaries
    from ..probing import boundary as whole

    out = Path(options.out)
    check_output(out, "--out", options.files)
    X, y, names = _rows(options, console)
    model = RefinedClassifier(random_state=options.seed)
    if options.steps:
        size = -(-len(y) // PICTURES) if options.batch_size is None else options.batch_size
        if size >= 1 and len(y) > size * MOST_PICTURES:
            raise ValueError(
                f"--batch-size {size} makes {-(-len(y) // size):,} pictures of {count_rows(len(y))}, and at most "
                f"{MOST_PICTURES} are drawn: choose {-(-len(y) // MOST_PICTURES)} or more"
            )
        found = boundaries(model, X, y, options.grid, batch_size=size)
    else:
        if options.batch_size is not None:
            raise ValueError("--batch-size is for --steps: add --steps, or leave it out")
        found = [whole(model, X, y, options.grid)]
    columns = ("rows", "roughness", "regions", "odd cells")
    lines = [
        [f"{len(each.X):,}", f"{each.roughness:.4f}", str(each.regions), f"{each.odd:.2%}"] for each in found
    ]
    print_table(console, f"boundary of {count(len(found[-1].classes), 'class', 'classes')}", columns, lines)
    notice = draw_boundaries(found, out, names=names)
    if notice is None:
        print_written(console, [out])
    else:
        say(console, notice)


def _rows(options: Namespace, console: Console) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return the whole rows of the files: two columns `[n, 2]`, their labels `[n]`, and the columns' names."""
    table_file = open_files(options.files, reading_options(options), text=(options.target,))
    target = column_name(options.target, table_file.names) or ""
    if target not in table_file.names:
        raise ValueError(f"{table_file.path} has no column {target!r}: {suggest(target, table_file.names)}")
    chosen = _two_columns(options, table_file, target)
    cells = {name: table_file.cells[name] for name in (*chosen, target)}
    parts = [table for table, _ in table_file.stream(cells)]  # type: ignore[arg-type]
    X = np.concatenate(
        [np.stack([table[name].cast("float64").to_numpy() for name in chosen], 1) for table in parts]
    )
    labels = [label for table in parts for label in table[target].cast("string").to_pylist()]
    sound = np.isfinite(X).all(1) & np.array([label is not None for label in labels])
    y = np.array([label for label, is_sound in zip(labels, sound, strict=True) if is_sound], dtype=str)
    left = int((~sound).sum())
    note = f"{count_rows(left)} with missing cells left out" if left else None
    say_notes(console, [*table_file.notes, *table_file.notes_after(), note])
    n_classes = len(set(y.tolist()))
    if not 2 <= n_classes <= MOST_CLASSES:
        raise ValueError(
            f"{target!r} has {count(n_classes, 'class', 'classes')} in {count_rows(len(y))}: a boundary needs 2 to "
            f"{MOST_CLASSES}; choose another --target"
        )
    return X[sound], y, chosen


def _two_columns(options: Namespace, table_file: TableFile, target: str) -> list[str]:
    """Return the two columns that are drawn."""
    numeric = [name for name, kind in table_file.kinds.items() if kind == NUMBER and name != target]
    wanted: Sequence[Any] = numeric
    if options.columns is not None:
        wanted = column_names([options.columns], table_file.names)
        for name in wanted:
            if name not in numeric:
                kind = table_file.kinds.get(name, None)
                reason = "is the target" if name == target else f"holds {kind or 'nothing'}, not numbers"
                if name not in table_file.names:
                    raise ValueError(
                        f"{table_file.path} has no column {name!r}: {suggest(name, table_file.names)}"
                    )
                raise ValueError(
                    f"--columns {name}: it {reason}; choose from {', '.join(numeric) or 'no column'}"
                )
    if len(wanted) != 2:
        raise ValueError(
            f"a boundary is drawn over two columns of numbers; {table_file.path} has {len(numeric)} beside the target "
            f"({', '.join(numeric) or 'none'}): choose two with --columns A,B"
            if options.columns is None
            else f"--columns names {count(len(wanted), 'column', 'columns')}; a boundary needs two"
        )
    return list(wanted)
