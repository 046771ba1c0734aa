"""`gradatim train`: a recipe, changed by options, meta-trained in a folder that says all it takes to do it again.

Source: Mittal et al. 2025, eq. 6, by `gradatim.training`.
"""

from __future__ import annotations

import json
import os
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..provenance import provenance
from .options import add_fields, escaped, first_line, positional, value_of
from .show import print_written

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace
    from rich.console import Console

    from ..recipes import Recipe

FLAGS = ("--resume", "--quiet", "--help", "-h")
PARTS = ("family", "scheme", "refiner", "train")


def options(parser: ArgumentParser, arguments: list[str]) -> None:
    """Add the options of `train`: where the arguments name a recipe, one for each of its fields as well."""
    parser.add_argument(
        "recipe", help="name (gradatim list) or JSON file of a recipe, or a run's folder or run.json"
    )
    parser.add_argument("--out", type=str | None, help="folder to write to (default: runs/RECIPE)")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in the folder")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.add_argument(
        "--devices", type=int | None, help="processes to train with, short for --train.devices"
    )
    name = positional(arguments, FLAGS)
    if name is None:
        parser.epilog = f"{parser.epilog}. gradatim train RECIPE --help shows the fields of a recipe."
        return
    parser.usage = "gradatim train RECIPE [--out DIR] [--resume] [--quiet] [--devices N] [--FIELD VALUE ...]"
    base = chosen(name, *(value_of(arguments, f"--{part}.name") for part in ("family", "scheme")))
    parser.add_argument(
        "--method", type=str, default=base.method, help="what is trained, a row of gradatim list"
    )
    for part in PARTS:
        value = getattr(base, part)
        kind = type(value).__name__
        group = parser.add_argument_group(f"{part}: {kind}", escaped(first_line(type(value))))
        if part in ("family", "scheme"):
            group.add_argument(f"--{part}.name", type=str, default=kind, help=f"another kind of {part}")
        add_fields(group, part, value)


def run(options: Namespace, console: Console) -> None:
    """Write run.json, meta-train, and say what was written.

    Raises:
        ValueError: an impossible recipe, a folder that holds another run, or what `gradatim.training.train` refuses.
    """
    import torch

    from ..files.checkpoint import latest, step_files, write_bytes
    from ..training.engine import check_processes
    from ..training.train import train

    recipe = overridden(options)
    check_processes(recipe.train.devices)
    out = Path(options.out or default_out(options.recipe, options.resume))
    log = out / "log.jsonl"
    if not options.resume and (step_files(out) or (log.exists() and log.stat().st_size)):
        raise ValueError(f"{out} already holds a run: resume it with --resume, or choose another folder")
    if recipe.train.threads is None:  # the last bits depend on it, so the record says it
        begun = options.resume and (out / "run.json").exists()
        threads = stored(out / "run.json").get("train", {}).get("threads") if begun else None
        recipe = replace(recipe, train=replace(recipe.train, threads=threads or torch.get_num_threads()))
    learner, quiet = recipe.learner(), options.quiet
    record = {"recipe": recipe.to_json(), **provenance(), "threads": recipe.train.threads}
    written = []
    if is_first() and not (options.resume and latest(out)):
        written.append(out / "run.json")
        write_bytes(out / "run.json", (json.dumps(record, indent=1) + "\n").encode())
    done = train(
        learner, recipe.family, recipe.scheme, recipe.train, out, record, options.resume, progress=not quiet
    )
    loss = f"loss {done.log[-1]['loss']:.4g} after " if done.log else ""
    told = f"{recipe.method} on {type(recipe.family).__name__}: {loss}{done.iterations} iterations"
    console.print(
        f"{told}, {done.seconds:.1f} s, peak memory {done.peak_memory / 2**20:,.0f} MB", soft_wrap=True
    )
    if quiet:
        for notice in done.notices:
            console.print(notice, soft_wrap=True, markup=False)
    print_written(console, [*written, *done.written])


def chosen(name: str, family: str | None = None, scheme: str | None = None) -> Recipe:
    """Return the recipe of a name or path, its family or scheme of another kind if one is named; common fields stay.

    Raises:
        ValueError: an unknown recipe, kind or field (the nearest is suggested), or a file that holds no recipe.
    """
    from ..recipes import FAMILIES, SCHEMES, from_json, recipe

    path = Path(name) / "run.json" if (Path(name) / "run.json").exists() else Path(name)
    value = stored(path) if path.suffix == ".json" else recipe(name).to_json()
    for part, kind, table in (("family", family, FAMILIES), ("scheme", scheme, SCHEMES)):
        came = value[part]
        if kind is not None and isinstance(came, dict) and kind != came.get("name"):
            shared = {f.name for f in fields(table[kind])} if kind in table else set()
            value[part] = {"name": kind} | {k: v for k, v in came.items() if k in shared}
    return from_json(value)


def stored(path: Path) -> dict[str, Any]:
    """Return the recipe's JSON in a file: of `Recipe.to_json()`, or in a run.json.

    Raises:
        ValueError: a file that cannot be read or holds no recipe.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(
            f"{path} cannot be read ({error.strerror}): give a recipe's name or JSON file"
        ) from error
    except ValueError as error:
        raise ValueError(
            f"{path} must hold a recipe in JSON ({error}): give one that gradatim wrote"
        ) from error
    from ..recipes import unwrapped

    return unwrapped(value, path)


def overridden(options: Namespace) -> Recipe:
    """Return the recipe with the options' values.

    Raises:
        ValueError: values that a part of the recipe refuses, or a method that cannot be trained so.
    """
    from ..methods import METHODS
    from ..recipes import from_json

    value = chosen(options.recipe, options.family.name, options.scheme.name).to_json()
    value |= {part: options[part].as_dict() for part in PARTS} | {"method": options.method}
    if options.devices is not None:
        value["train"]["devices"] = options.devices
    recipe = from_json(value)
    row = METHODS[recipe.method]
    if not row.learnt:
        raise ValueError(f"{recipe.method} has nothing to meta-train: choose another method (gradatim list)")
    if row.one_step and recipe.scheme.horizon != 1:
        horizon = recipe.scheme.horizon
        raise ValueError(
            f"{recipe.method} takes one step; got a horizon of {horizon}: add --scheme.horizon 1"
        )
    return recipe


def default_out(name: str, resume: bool) -> Path:
    """Return where a recipe is trained when nobody says: runs/NAME; a resumed run.json goes on in its folder."""
    path = Path(name)
    folder = path if (path / "run.json").exists() else path.parent if path.name == "run.json" else None
    if folder is not None and resume:
        return folder
    return Path("runs") / (path.stem if folder is None else folder.resolve().name)


def is_first() -> bool:
    """Return whether this process is the one of a distributed run that writes and shows."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "NODE_RANK"))
