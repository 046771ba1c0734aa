"""`gradatim train`: a recipe, changed by options, is meta-trained in a folder that records how to repeat it.

Source: Mittal et al. 2025, eq. 6, by `gradatim.training`.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..provenance import provenance
from .options import add_fields, escape_percent, first_line, first_positional, option_value
from .show import print_written

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace
    from rich.console import Console

    from ..recipes import Recipe
    from ..registry import Registry

FLAGS = ("--resume", "--quiet", "--help", "-h")
PARTS = ("method", "family", "scheme", "train")
NAMED = PARTS[:3]
"""Parts of a recipe that have a name."""


def options(parser: ArgumentParser, arguments: list[str]) -> None:
    """Add the options of `train`. If the arguments name a recipe, each of its fields is an option as well."""
    parser.add_argument(
        "recipe", help="name (gradatim list) or JSON file of a recipe, or a run's folder or run.json"
    )
    parser.add_argument("--out", type=str | None, help="folder to write to (default: runs/RECIPE)")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in the folder")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.add_argument(
        "--devices", type=int | None, help="processes to train with, short for --train.devices"
    )
    name = first_positional(arguments, FLAGS)
    if name is None:
        parser.epilog = f"{parser.epilog}. gradatim train RECIPE --help shows the fields of a recipe."
        return
    parser.usage = "gradatim train RECIPE [--out DIR] [--resume] [--quiet] [--devices N] [--FIELD VALUE ...]"
    base = select_recipe(name, *(part_name(arguments, part) for part in NAMED))
    for part in PARTS:
        value = getattr(base, part)
        kind, fixed = type(value).__name__, ()
        if part in NAMED:
            kind = registry_of(part).name_of(value)
            fixed = registry_of(part)[kind].fixed if part == "method" else ()
        group = parser.add_argument_group(f"{part}: {kind}", escape_percent(first_line(type(value))))
        if part in NAMED:
            text = f"another {part}, by name or import path; --{part} for short"
            group.add_argument(f"--{part}.name", type=str, default=kind, help=text)
        add_fields(group, part, value, fixed)


def run(options: Namespace, console: Console) -> None:
    """Write run.json, meta-train, and print which files were written.

    Raises:
        ValueError: an impossible recipe, a folder that holds another run, or what `gradatim.training.train` refuses.
    """
    import torch

    from ..files.checkpoint import latest, step_files, write_bytes
    from ..training.engine import check_processes
    from ..training.train import train

    recipe = recipe_from_options(options)
    check_processes(recipe.train.devices)
    out = Path(options.out or default_folder(options.recipe, options.resume))
    log = out / "log.jsonl"
    if not options.resume and (step_files(out) or (log.exists() and log.stat().st_size)):
        raise ValueError(
            f"{out} already holds a run: resume it (resume=True, on the command line --resume), or choose another "
            "folder"
        )
    if recipe.train.threads is None:  # the last bits depend on it, so the record says it
        resumed = options.resume and (out / "run.json").exists()
        threads = read_recipe(out / "run.json").get("train", {}).get("threads") if resumed else None
        recipe = replace(recipe, train=replace(recipe.train, threads=threads or torch.get_num_threads()))
    learner, quiet = recipe.learner(), options.quiet
    record = {"recipe": recipe.to_json(), **provenance(), "threads": recipe.train.threads}
    written = []
    if is_first() and not (options.resume and latest(out)):
        written.append(out / "run.json")
        write_bytes(out / "run.json", (json.dumps(record, indent=1) + "\n").encode())
    trained = train(
        learner, recipe.family, recipe.scheme, recipe.train, out, record, options.resume, progress=not quiet
    )
    loss = f"loss {trained.log[-1]['loss']:.4g} after " if trained.log else ""
    summary = f"{recipe.name} on {type(recipe.family).__name__}: {loss}{trained.iterations} iterations"
    console.print(
        f"{summary}, {trained.seconds:.1f} s, peak memory {trained.peak_memory / 2**20:,.0f} MB",
        soft_wrap=True,
    )
    if quiet:
        for notice in trained.notices:
            console.print(notice, soft_wrap=True, markup=False)
    print_written(console, [*written, *trained.files])


def part_name(arguments: list[str], part: str) -> str | None:
    """Return the name that the arguments give a part of the recipe, or None.

    Example:
        >>> from gradatim.commands.train import part_name
        >>> part_name(["linear", "--method", "maml"], "method")
        'maml'
    """
    return option_value(arguments, f"--{part}.name") or option_value(arguments, f"--{part}")


def registry_of(part: str) -> Registry[Any]:
    """Return the table that the names of a part of the recipe are taken from.

    Example:
        >>> from gradatim.commands.train import registry_of
        >>> list(registry_of("scheme"))
        ['Evolution', 'Greedy', 'Prefixes', 'Repeated', 'Unrolled']
    """
    from ..methods import METHODS
    from ..registry import FAMILIES, SCHEMES

    return {"method": METHODS, "family": FAMILIES, "scheme": SCHEMES}[part]


def select_recipe(
    name: str, method: str | None = None, family: str | None = None, scheme: str | None = None
) -> Recipe:
    """Return the recipe of a name or path, with another method, family or scheme if one is named.

    Fields of a family or scheme that the new one has too keep their values. So do options of a method that the recipe
    changed from their defaults.

    Raises:
        ValueError: an unknown recipe, name or field (the nearest is suggested), or a file that holds no recipe.

    Example:
        >>> from gradatim.commands.train import select_recipe
        >>> select_recipe("linear", method="maml").name
        'maml'
    """
    from ..recipes import from_json, method_from_json, method_to_json, recipe

    path = Path(name) / "run.json" if (Path(name) / "run.json").exists() else Path(name)
    value = read_recipe(path) if path.suffix == ".json" else recipe(name).to_json()
    if method is not None:
        old, preset = method_from_json(value["method"]), registry_of("method")[method]
        before = registry_of("method")[registry_of("method").name_of(old)].options
        if type(old) is not preset.kind or any(getattr(old, key) != v for key, v in preset.fixed.items()):
            changed = {
                k: v for k, v in method_to_json(old).items() if k in before and v != as_json(before[k])
            }
            shared_options = {k: v for k, v in changed.items() if k in preset.options}
            value["method"] = {"name": method} | shared_options
    for part, new_name in (("family", family), ("scheme", scheme)):
        stored_part = value[part]
        if new_name is not None and isinstance(stored_part, dict) and new_name != stored_part.get("name"):
            shared = {field.name for field in fields(registry_of(part)[new_name])}
            value[part] = {"name": new_name} | {k: v for k, v in stored_part.items() if k in shared}
    return from_json(value)


def as_json(value: Any) -> Any:
    """Return a dataclass as a dictionary, and any other value as it is.

    Example:
        >>> from gradatim import Gain
        >>> from gradatim.commands.train import as_json
        >>> as_json(Gain())["power"], as_json(3)
        (1.0, 3)
    """
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def read_recipe(path: Path) -> dict[str, Any]:
    """Return the recipe's JSON in a file that holds `Recipe.to_json()`, or in a run.json.

    Raises:
        ValueError: a file that cannot be read or holds no recipe.

    Example:
        >>> import json
        >>> from pathlib import Path
        >>> from gradatim import recipe
        >>> from gradatim.commands.train import read_recipe
        >>> _ = Path("mine.json").write_text(json.dumps(recipe("linear").to_json()))
        >>> read_recipe(Path("mine.json"))["method"]["name"]
        'parametric-both'
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
    from ..recipes import recipe_json

    return recipe_json(value, path)


def recipe_from_options(options: Namespace) -> Recipe:
    """Return the recipe with the options' values.

    Raises:
        ValueError: values that a part of the recipe refuses, or a method that cannot be trained by them.
    """
    from ..recipes import from_json

    value = select_recipe(options.recipe, *(options[part].name for part in NAMED)).to_json()
    penalties = value["scheme"]["penalties"]  # no option says them
    value |= {part: options[part].as_dict() for part in PARTS}
    value["scheme"]["penalties"] = penalties
    if options.devices is not None:
        value["train"]["devices"] = options.devices
    recipe = from_json(value)
    if not recipe.method.learnt:
        raise ValueError(f"{recipe.name} has nothing to meta-train: choose another method (gradatim list)")
    if recipe.method.one_step and recipe.scheme.horizon != 1:
        horizon = recipe.scheme.horizon
        raise ValueError(f"{recipe.name} takes one step; got a horizon of {horizon}: add --scheme.horizon 1")
    return recipe


def default_folder(name: str, resume: bool) -> Path:
    """Return the folder that a recipe is trained in by default: runs/NAME. A resumed run.json keeps its folder.

    Example:
        >>> from gradatim.commands.train import default_folder
        >>> default_folder("linear", resume=False).as_posix()
        'runs/linear'
    """
    path = Path(name)
    folder = path if (path / "run.json").exists() else path.parent if path.name == "run.json" else None
    if folder is not None and resume:
        return folder
    return Path("runs") / (path.stem if folder is None else folder.resolve().name)


def is_first() -> bool:
    """Return whether this process is the first of a distributed run, which writes and prints.

    Example:
        >>> from gradatim.commands.train import is_first
        >>> is_first()
        True
    """
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "NODE_RANK"))
