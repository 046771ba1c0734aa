"""`gradatim compare`: methods side by side on a family of tasks.

Source: Mittal et al. 2025, section 4, by `gradatim.compare`.
"""

from __future__ import annotations

from dataclasses import MISSING, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .judge import step_numbers
from .options import add_fields, escape_percent, first_line
from .show import print_written
from .train import part_name, registry_of

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace
    from rich.console import Console

FAMILY = "LinearRegression"


def compare_options(parser: ArgumentParser, arguments: list[str]) -> None:
    """Add the options of `compare`, among them one for each field of the family and of the scheme that are named."""
    parser.usage = "gradatim compare METHODS --family NAME [--FIELD VALUE ...] [--out DIR] [--plot FILE]"
    parser.add_argument(
        "methods", help="names or import paths with commas, such as ridge,adam,maml (gradatim list)"
    )
    parser.add_argument("--steps", type=str, default="1,2,5,10", help="mini-batches after which to judge")
    parser.add_argument(
        "--batch-size", type=int | None, help="rows in each (default: up to 16, as the support allows)"
    )
    parser.add_argument("--tasks", type=int, default=64, help="unseen tasks that all methods are judged on")
    parser.add_argument("--seeds", type=int, default=3, help="meta-training runs of each method")
    parser.add_argument("--workers", type=int, default=1, help="processes that meta-train at a time")
    parser.add_argument(
        "--out", type=str, default="runs/compare", help="folder; the same command goes on there"
    )
    parser.add_argument("--plot", type=str | None, help="picture to draw, such as curve.png")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    if not arguments:  # the list of all commands: nothing of torch is imported
        return
    from ..comparison.plan import TRAINING

    for part, default in (("family", FAMILY), ("scheme", None)):
        name = part_name(arguments, part) or default
        value = None if name is None else _defaults(registry_of(part)[name])
        about = "the default is chosen for each method" if value is None else first_line(type(value))
        group = parser.add_argument_group(f"{part}: {name or 'by method'}", escape_percent(about))
        text = f"another {part}, by name or import path; --{part} for short"
        group.add_argument(f"--{part}.name", type=str if name else str | None, default=name, help=text)
        if value is not None:
            add_fields(group, part, value)
    add_fields(
        parser.add_argument_group("train: TrainConfig", "settings of meta-training"), "train", TRAINING
    )


def compare(options: Namespace, console: Console) -> None:
    """Compare methods, show a table for each metric, and write the numbers and the picture.

    Raises:
        ValueError: what `gradatim.compare` refuses.
    """
    from ..comparison.compare import compare as run
    from ..config import from_json
    from ..training.train import TrainConfig

    family, scheme = (_value(options, part) for part in ("family", "scheme"))
    try:
        result = run(
            [name.strip() for name in options.methods.split(",") if name.strip()],
            family,
            steps=step_numbers(options.steps),
            batch_size=options.batch_size,
            tasks=options.tasks,
            seeds=options.seeds,
            train=from_json(TrainConfig, options.train.as_dict(), "train"),
            scheme=scheme,
            out=options.out,
            workers=options.workers,
            progress=not options.quiet,
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; the same command goes on") from None
    console.print(f"{result.tasks} tasks of {result.family}, {result.batch_size} rows a mini-batch")
    for metric in result.metrics:
        console.print(f"\n{result.table(metric)}", soft_wrap=True, markup=False)
    written = [result.save(Path(options.out) / "comparison.json")]
    if options.plot:
        notice = result.plot(options.plot)
        if notice is None:
            written.append(Path(options.plot))
        else:
            console.print(notice, soft_wrap=True, markup=False)
    print_written(console, written)


def _value(options: Namespace, part: str) -> Any:
    """Return the family or the scheme with the options' values, None where none is named."""
    from ..config import from_json

    value = options[part].as_dict()
    name = value.pop("name")
    return None if name is None else from_json(registry_of(part)[name], value, part)


def _defaults(kind: type) -> Any:
    """Return a value of a dataclass with all its defaults; fields without one are None."""
    value = object.__new__(kind)
    for field in fields(kind):
        factory = field.default_factory
        default = None if field.default is MISSING else field.default
        object.__setattr__(value, field.name, default if factory is MISSING else factory())
    return value
