"""`gradatim info`: what checkpoints and saved states hold, and whether they are whole.

Source: FIPS 180-4 (SHA-256, the checksum of a file).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .grouped import is_grouped
from .grouped_states import describe_groups, plot_groups
from .judge import checkpoint_path
from .show import format_bytes, print_table
from .tables import describe_state

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace
    from rich.console import Console


SHOWN, TIMELINE = 8, 28
"""Changes of a stream that are named, the last ones, and the characters of the line that shows all."""


def info_options(parser: ArgumentParser, arguments: list[str]) -> None:
    """Add the options of `info`."""
    parser.add_argument("checkpoint", nargs="+", help="checkpoints, saved states, or runs' folders")
    parser.add_argument(
        "--check", action="store_true", help="only say, in a line for each, whether it is whole and loads"
    )
    parser.add_argument("--plot", type=str, metavar="PNG", help="of a state of groups: draw how they differ")
    parser.add_argument("--column", type=str, help="with --plot: whose slope (default: the level)")


def info(options: Namespace, console: Console) -> None:
    """Print what checkpoints or saved states hold, or whether they are whole.

    Raises:
        ValueError: a file that is missing, truncated, damaged or foreign.
        SystemExit: with `--check`, of code 2, if one of the files is that.
    """
    if options.column and not options.plot:
        raise ValueError("--column says what --plot draws: give --plot PNG as well")
    if options.plot:
        if len(options.checkpoint) > 1 or options.check:
            raise ValueError("--plot draws one state: give that one alone")
        plot_groups(Path(options.checkpoint[0]), Path(options.plot), options.column, console)
        return
    if not options.check:
        for name in options.checkpoint:
            print_table(console, "", ["", ""], info_lines(checkpoint_path(name)))
        return
    damaged = 0
    for name in options.checkpoint:
        try:
            sentence = check_file(checkpoint_path(name))
        except ValueError as error:
            sentence, damaged = f"not whole: {error}", damaged + 1
        console.print(sentence, soft_wrap=True, markup=False)
    if damaged:
        raise SystemExit(2)


def check_file(path: Path) -> str:
    """Return a sentence on a file that is whole: its checksum is right, its entries agree, and it loads.

    Code that a checkpoint names by an import path is not run.

    Raises:
        ValueError: it is missing, truncated, damaged or foreign, or does not load.

    Example:
        >>> from pathlib import Path
        >>> from gradatim.commands.info import check_file
        >>> from gradatim.files.checkpoint import write
        >>> check_file(write(Path("w.safetensors"), {}, {"kind": "checkpoint"}))
        'whole: w.safetensors (a checkpoint, format version 2; without a recipe it is loaded by load_weights)'
    """
    from ..files.schema import Schema
    from ..files.table import read_any
    from ..recipes import rebuild

    if is_grouped(path):
        describe_groups(path)
        return f"whole: {path} (a state of groups; it loads)"
    contents = read_any(path)
    header, run = contents.header, contents.header.get("recipe") or {}
    what, end = f"a {header['kind']}", "it loads"
    if "estimator" in header:
        if header.get("table") is not None:
            Schema.from_json(header, path)
        what = f"a state of a table, {header['rows']:,.0f} rows"
        if header["params"]["model"] == "experts":
            _estimator(header["estimator"], path).load(contents)
        else:
            end = "it loads with its learner, load(path, model=learner)"
    elif header["kind"] == "state":
        end = "it loads with its learner, load_state(path, learner)"
    elif not run:
        end = "without a recipe it is loaded by load_weights"
    elif paths := sorted(import_paths(run)):
        end = f"{paths[0]}, which it names, was not imported"
    else:
        rebuild(path)
    version = header["gradatim_format"]
    unsure = "" if version > 1 else ", which has no checksum"
    return f"whole: {path} ({what}, format version {version}{unsure}; {end})"


def import_paths(value: Any) -> set[str]:
    """Return the import paths, `module:Class`, that are names in the JSON of a run's recipe.

    Example:
        >>> from gradatim.commands.info import import_paths
        >>> import_paths({"method": {"name": "adam"}, "family": {"name": "mine:Family", "source": "a:b"}})
        {'mine:Family'}
    """
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    paths = set().union(*map(import_paths, parts)) if parts else set()
    name = value.get("name") if isinstance(value, dict) else None
    return paths | {name} if isinstance(name, str) and ":" in name else paths


def info_lines(path: Path) -> list[list[str]]:
    """Return what a checkpoint or saved state holds, as lines of two columns.

    Raises:
        ValueError: a file that is missing, truncated, damaged or foreign.

    Example:
        >>> from pathlib import Path
        >>> from gradatim.commands.info import info_lines
        >>> from gradatim.files.checkpoint import write
        >>> info_lines(write(Path("w.safetensors"), {}, {"kind": "checkpoint"}))[:2]
        [['file', 'w.safetensors'], ['kind', 'checkpoint, format version 2']]
    """
    from ..files.checkpoint import select_prefix
    from ..files.contract import blamed
    from ..files.table import read_any
    from ..recipes import recipe_json

    if is_grouped(path):
        return describe_groups(path)

    header, tensors, _ = read_any(path)
    run = header.get("recipe") or {}
    recipe = recipe_json(run, path) if "recipe" in run or "method" in run else None
    lines = [["file", str(path)], ["kind", f"{header['kind']}, format version {header['gradatim_format']}"]]
    lines.append(["size", format_bytes(path.stat().st_size)])
    with blamed(path):
        if "estimator" in header:
            lines += [*describe_state(header), *describe_memory(tensors)]
        elif header["kind"] == "state":
            lines += [[name or "state", f"{part.dtype} {list(part.shape)}"] for name, part in tensors.items()]
        if header["kind"] == "state":
            lines += describe_people(header, {name: list(part.shape) for name, part in tensors.items()})
        if weights := select_prefix(tensors, "weights"):
            count = sum(value.numel() for value in weights.values())
            lines.append(["parameters", f"{count:,} in {len(weights)} tensors"])
        lines += [] if recipe is None else recipe_lines(recipe)
    names = ("gradatim", "commit", "torch", "python", "threads")
    lines += [[name, str(run[name])] for name in names if name in run]
    if {"iteration", "seconds", "peak_memory"} <= header.keys():
        lines.append(["iterations", f"{header['iteration']:,}"])
        lines.append(["seconds", f"{header['seconds']:.1f}"])
        lines.append(["peak memory", format_bytes(header["peak_memory"])])
    return lines


def describe_memory(tensors: dict[str, Any]) -> list[list[str]]:
    """Return what a state that follows a stream says of changes, as lines of two columns; nothing of another.

    Args:
        tensors: of the state, by name.

    Example:
        >>> import torch
        >>> from gradatim.commands.info import describe_memory
        >>> describe_memory({"memory.changes": torch.tensor([640, 1920]), "memory.total": torch.tensor(2560)})
        [['changes', '2 found, after 640, 1,920 of 2,560 rows'], ['', '·······x·············x······']]
    """
    if "memory.changes" not in tensors:
        return []
    changes, total = tensors["memory.changes"].tolist(), int(tensors["memory.total"])
    if not changes:
        return [["changes", f"none found in {total:,} rows"]]
    last = ", ".join(f"{change:,}" for change in changes[-SHOWN:])
    more = "... " if len(changes) > SHOWN else ""
    line = ["·"] * TIMELINE
    for change in changes:
        line[min(TIMELINE - 1, change * TIMELINE // max(1, total))] = "x"
    return [["changes", f"{len(changes):,} found, after {more}{last} of {total:,} rows"], ["", "".join(line)]]


def describe_people(header: dict[str, Any], shapes: dict[str, list[int]]) -> list[list[str]]:
    """Return what a state holds of single rows, as lines of two columns.

    Args:
        header: of the state.
        shapes: of its tensors, by name.

    Example:
        >>> from gradatim.commands.info import describe_people
        >>> describe_people({}, {"state.gram": [1, 3, 3]})
        [['stored rows', 'none as they came: sums over rows']]
        >>> describe_people({}, {"state.x": [1, 40, 3]})
        [['stored rows', '40']]
    """
    count = max(
        (shape[1] for name, shape in shapes.items() if name.endswith((".x", ".inputs")) and len(shape) > 2),
        default=0,
    )
    rows = f"{count:,}" if count else "none as they came: sums over rows"
    if "estimator" not in header:
        return [["stored rows", rows]]
    if header["warm"] is not None:
        count = shapes["warm.y"][0]
        rows = f"{count:,}, as they came: they are dropped when the map is fixed"
    elif header.get("landmarks") == "rows":
        count = shapes.get("0.landmarks", [0])[0]
        rows = f"{count:,}, as landmarks: gradatim 0.1 chose them, and they stay until gradatim remap or a new fit"
    values = ["the lowest, the highest and some numbers between of each column"]
    values += ["words of categories"] if any("levels" in c for c in header["map"]["columns"]) else []
    values += ["the classes"] if header["classes"] is not None else []
    return [["stored rows", rows], ["stored values", ", ".join(values)]]


def recipe_lines(value: dict[str, Any]) -> list[list[str]]:
    """Return two lines for each part of a recipe's JSON: its name, and its fields.

    Example:
        >>> from gradatim.commands.info import recipe_lines
        >>> recipe_lines({"method": {"name": "adam", "rate": 0.1}})[:2]
        [['method', 'adam'], ['', 'rate 0.1']]
    """
    lines = []
    for part in ("method", "family", "scheme", "train"):
        fields = value.get(part, {})
        named = {"name": fields} if isinstance(fields, str) else dict(fields)
        words = ", ".join(f"{key} {json.dumps(inner)}" for key, inner in named.items() if key != "name")
        lines += [[part, str(named["name"])], ["", words]] if "name" in named else [[part, words]]
    return lines


def _estimator(name: str, path: Path) -> Any:
    """Return the estimator whose name stands in a state."""
    from ..estimators import RefinedClassifier, RefinedRegressor

    kinds = {kind.__name__: kind for kind in (RefinedClassifier, RefinedRegressor)}
    if name not in kinds:
        raise ValueError(f"{path} holds a {name}, which this version does not have: upgrade gradatim")
    return kinds[name]
