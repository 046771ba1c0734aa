"""What the header and the tensors of a table's state may be: names, types, ranges, counts and shapes.

Source: the safetensors format (names, types and shapes of tensors).
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .cells import BOOLEAN, DATE, KIND_NAMES, NUMBER, TEXT, Cells
from .contract import (
    Entry,
    brief,
    check_entries,
    choice,
    list_of,
    mapping,
    number,
    text,
    truth,
    whole,
)
from .layout import TRIANGLE, Layout, Part, check_moments, check_parts, check_values
from .old_table import OLD_MEMBER
from .target import LARGEST

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    Tensors = Mapping[str, Layout | Tensor]

FEATURES = 4
"""The version of the shipped learner's features and of their files: moments of others mean something else."""

MODELS = ("experts", "given", "checkpoint")
"""What a state says of its model: the shipped one, or a learner that `load` wants again. It names no file."""

MAX_MEMBERS = 64
_MAX_LABEL_BYTES = 2**26
_HASH = text(r"[0-9a-f]{64}", "a SHA-256")
_LABEL_TYPE = r"object|\|b1|[<>|]?[iuf][1248]|[<>|=]?[US]\d{1,7}"

ENTRIES = {
    "estimator": text(r"\w{1,100}", "the name of an estimator"),
    "params": mapping(),
    "n_features": whole(1, 10_000_000),
    "feature_names": list_of(text()).or_none(),
    "classes": mapping().or_none(),
    "class_weight": mapping().optional(),
    "map": mapping(),
    "prior": mapping().optional(),
    "target": mapping(),
    "warm": mapping().or_none(),
    "seeds": list_of(whole(0, 2**63 - 1), unique=True),
    "learners": list_of(_HASH),
    "rows": number(low=0),
    "count": whole(0, 2**62),
    "landmarks": choice("rows").optional(),
    "merged": list_of(text(r"[0-9a-f]{32}", "the name of some rows"), unique=True).optional(),
}
"""What the header of a table's state holds. Further entries are the user's."""

PARAMS = {
    "batch_size": whole(1, 2**31 - 1),
    "n_passes": whole(1, 1_000_000),
    "n_estimators": whole(1, MAX_MEMBERS),
    "model": choice(*MODELS),
    "device": text(r"(?!meta)[a-z]{2,20}(:\d{1,4})?", "a device, such as cpu or cuda:0"),
    "random_state": whole(0, 2**32 - 1).or_none(),
    "memory": Entry("a memory", lambda value: _is_memory(value)).optional(),
}
COLUMN = {"name": text(), "kind": choice("number", "category"), "slots": whole(0, 4096).optional()}
_MAX_SLOTS = 1_000_000  # of all columns
WARM = {
    "names": list_of(text(), unique=True),
    "named": truth(),
    "words": mapping(list_of(text().or_none())),
    "numbers": mapping(mapping(Entry("a family and a number", lambda value: _is_cell(value)))).optional(),
    "families": mapping(text()).optional(),
}
"""The first rows, as far as they are no numbers. What is as long as the rows stands in a tensor of its own."""

LONG = ("words", "numbers", "families")
_CELLS = Entry("how a column is read, as gradatim fit writes it", lambda value: _kind(value) is not None)
TABLE = {
    "target": text(),
    "task": choice("classification", "regression"),
    "target_cells": _CELLS.optional(),
    "target_kind": _CELLS.optional(),  # its name in version 0.1
    "columns": mapping(_CELLS),
    "dropped": list_of(text()).optional(),
    "empty": list_of(text()).optional(),
    "id": text().or_none().optional(),
    "weight": text().or_none().optional(),
    "weight_cells": _CELLS.or_none().optional(),
    "spelling": mapping(text()).optional(),
    "reading": mapping().optional(),
}
READING = {
    "decimal": choice(".", ",").optional(),
    "missing": list_of(text()).optional(),
    "delimiter": text(r"[\s\S]|tab|space|\\t", "one character").optional(),
    "header": truth().optional(),
}
"""Options of reading that a state may store."""
TARGET = {"centre": number(), "scale": number()}
OLD_ENTRIES = {name: entry for name, entry in ENTRIES.items() if name != "count"} | {
    "target": list_of(number())
}
"""What the header of a state of version 0.1 holds."""

INDEX = (torch.int64,)
MEMBER = {
    "cross": Part((1, "D", "C")),
    "gram": Part((1, TRIANGLE)),
    "squares": Part((1, "C"), sign="nonnegative"),
    "rows": Part((1,), sign="nonnegative"),
    "noise": Part((1, "E", "C"), sign="nonnegative"),
    "log_likelihood": Part((1, "E", "T")),
    "products": Part((1, "Q", "Q")),
    "share": Part((1, "e", "T"), sign="nonnegative"),
    "widths": Part((1, "W")),
    "solved": Part((1,), sign="nonnegative"),
    "alive": Part(("A",), INDEX, sign="nonnegative"),
    "heads": Part(("H",)),
    "answer_experts": Part(("a",), INDEX, sign="nonnegative", required=False),
    "answer_heads": Part(("h",), required=False),
    "answer_weight": Part(("a", "T"), sign="nonnegative", required=False),
    "answer_noise": Part(("E", "C"), sign="nonnegative", required=False),
    "answer_widths": Part(("W",), required=False),
    "landmarks": Part(("K", "d")),
    "reach": Part((1,), sign="positive"),
    "pairs": Part((2, "P"), INDEX, sign="nonnegative"),
    "column": Part(("S",), INDEX, sign="nonnegative"),
    "threshold": Part(("S",)),
    "direction": Part(("d", "R")),
    "bias": Part(("R",)),
}
"""What is stored of one member of the shipped learner: D features of d inputs, C outputs, E experts, and of the
features K landmarks, P products, S steps and R ramps."""
_FLAT = ("alive", "heads", *(name for name in MEMBER if name.startswith("answer_")))


def missing_entry(header: dict[str, Any]) -> str | None:
    """Return an entry that the header of every table's state has and this one lacks, or None."""
    entries = OLD_ENTRIES if _is_old(header) else ENTRIES
    return next((name for name, entry in entries.items() if entry.required and name not in header), None)


def _is_old(header: dict[str, Any]) -> bool:
    return header.get("features", 1) != FEATURES


def check_header(header: dict[str, Any], models: tuple[str, ...], is_packed: bool = False) -> None:
    """Raise ValueError unless every entry is of its type and range, and counts agree.

    Args:
        header: of the state.
        models: what its model may be; none: anything.
        is_packed: whether the texts of the first rows stand in a tensor.
    """
    check_entries(header, OLD_ENTRIES if _is_old(header) else ENTRIES, "header", further=True)
    params = PARAMS if models else PARAMS | {"model": text()}
    check_entries(header["params"], params, "header.params")
    check_entries(header["map"], {"columns": list_of(mapping())}, "header.map", further=True)
    columns, count = header["map"]["columns"], header["n_features"]
    for place, column in enumerate(columns):
        check_entries(column, COLUMN, f"header.map.columns[{place}]", further=True)
    if sum(column.get("slots", 0) for column in columns) > _MAX_SLOTS:
        raise ValueError(f"header.map must have at most {_MAX_SLOTS:,} slots for words")
    names = header["feature_names"]
    if len(columns) != count or (names is not None and len(names) != count):
        raise ValueError(f"header.n_features is {count:,}, but the map has {len(columns):,} columns")
    if len({column["name"] for column in columns}) < count:
        raise ValueError("header.map names a column twice")
    target, is_shipped = header["target"], header["params"]["model"] == "experts"
    if _is_old(header):
        target = dict(zip(("centre", "scale"), target, strict=False))
    check_entries(target, TARGET, "header.target", further=True)
    if (size := max(abs(target["centre"]), target["scale"])) > LARGEST:
        raise ValueError(f"header.target must be of numbers up to {LARGEST:g}, as targets are; got {size:g}")
    if not target["scale"] > 0:
        raise ValueError(f"header.target.scale must be positive; got {brief(target['scale'])}")
    if header["params"]["n_passes" if is_shipped else "n_estimators"] != 1:
        raise ValueError(
            "header.params: the shipped model takes one pass, and a learner that was given is one member"
        )
    if len(header["seeds"]) != header["params"]["n_estimators"]:
        raise ValueError("header.seeds must be one for each of n_estimators")
    if len(header["learners"]) != (0 if is_shipped else header["warm"] is None):
        raise ValueError(
            "header.learners must be one for a learner that was given, and none for the shipped one"
        )
    if header["classes"] is not None:
        _check_classes(header["classes"])
    if "class_weight" in header:
        _check_class_weight(header["class_weight"])
    if is_packed or header["warm"] is not None:
        entries = {name: entry for name, entry in WARM.items() if not (is_packed and name in LONG)}
        check_entries(header["warm"], entries, "header.warm")
    if header.get("table") is not None:
        check_entries(header["table"], TABLE, "header.table")
        check_entries(header["table"].get("reading", {}), READING, "header.table.reading")
        if not _is_old(header):
            _check_table(header, header["table"])


def _kind(cells: Any) -> str | None:
    """Return what the cells of a column are, None if that is of no form; version 0.1 wrote a word."""
    if isinstance(cells, str):
        return DATE if cells == "zoned" else cells if cells in KIND_NAMES else None
    try:
        return Cells.from_json(cells).kind
    except ValueError:
        return None


def _check_table(header: dict[str, Any], table: dict[str, Any]) -> None:
    """Raise ValueError unless the columns of a file and the estimator that learnt them belong together."""
    columns, empty, names = table["columns"], table.get("empty", []), header["feature_names"] or []
    in_map = {column["name"]: column for column in header["map"]["columns"]}
    for where, listed in (("header.feature_names", names), ("header.map", in_map)):
        if odd := sorted(set(columns) ^ set(listed)):
            raise ValueError(
                f"header.table.columns and {where} must be the same; {brief(odd[0])} is in one alone"
            )
    if odd := sorted(set(empty) - set(columns)):
        raise ValueError(f"header.table.empty must be among its columns; got {brief(odd[0])}")
    learnt = set(columns) - set(empty)
    roles = {name: table.get(name) for name in ("target", "id", "weight") if table.get(name) is not None}
    for role, name in roles.items():
        if name in learnt or (role == "target" and name in {*columns, *table.get("dropped", [])}):
            raise ValueError(f"header.table.{role} must be no feature and not dropped; got {brief(name)}")
        if list(roles.values()).count(name) > 1:
            raise ValueError(f"header.table must give a column one role; {brief(name)} has two")
    if odd := sorted(learnt & set(table.get("dropped", []))):
        raise ValueError(f"header.table.dropped must be no features; got {brief(odd[0])}")
    for name in sorted(learnt):
        kind, column = _kind(columns[name]), in_map[name]
        if (kind == TEXT) != (column["kind"] == "category") and column.get("quantiles") != []:
            raise ValueError(
                f"header.table.columns: {brief(name)} is {kind}, but the map has a {column['kind']}"
            )
    _check_task(header, table)


def _check_task(header: dict[str, Any], table: dict[str, Any]) -> None:
    """Raise ValueError unless the target of a file is such as the estimator learns."""
    task, labels = table["task"], None if header["classes"] is None else header["classes"]["labels"]
    kind = _kind(table.get("target_cells", table.get("target_kind")))
    tasks = {"RefinedClassifier": "classification", "RefinedRegressor": "regression"}
    if task != tasks.get(header["estimator"], task) or (task == "regression") != (labels is None):
        classes = "no classes" if labels is None else f"{len(labels):,} classes"
        raise ValueError(
            f"header.table.task is {task}, but the state is a {header['estimator']} of {classes}"
        )
    types = {TEXT: (str,), BOOLEAN: (bool,), NUMBER: (int, float)}
    fits = kind in types and (kind != TEXT if labels is None else type(labels[0]) in types[kind])
    if not fits:
        raise ValueError(f"header.table.target_cells is {kind}, which is no target of this {task}")
    if table.get("weight_cells") is not None and _kind(table["weight_cells"]) != NUMBER:
        raise ValueError(f"header.table.weight_cells must be numbers; got {_kind(table['weight_cells'])}")


def _member(header: dict[str, Any]) -> dict[str, Part]:
    return OLD_MEMBER if _is_old(header) else MEMBER


def _check_class_weight(weights: dict[str, Any]) -> None:
    """Raise ValueError unless there is a positive number for each of some labels."""
    entries = {"labels": mapping(), "weights": list_of(number(above=0)), "balanced": truth()}
    check_entries(weights, entries, "header.class_weight")
    _check_classes(weights["labels"], "header.class_weight.labels")
    labels, numbers = weights["labels"]["labels"], weights["weights"]
    if len(labels) != len(numbers):
        raise ValueError(f"header.class_weight must have {len(labels):,} weights; got {len(numbers):,}")


def _check_classes(classes: dict[str, Any], where: str = "header.classes") -> None:
    """Raise ValueError unless classes are different, sorted, and of one type that their dtype can hold."""
    check_entries(
        classes,
        {"labels": Entry("a list", _is_list), "dtype": text(_LABEL_TYPE, "a NumPy type")},
        where,
    )
    labels, kind = classes["labels"], classes["dtype"]
    types = {type(label) for label in labels}
    if len(types) != 1 or not types <= {bool, int, float, str}:
        raise ValueError(f"{where}.labels must be labels of one type; got {brief(labels)}")
    if any(second <= first for first, second in pairwise(labels)):
        raise ValueError(f"{where}.labels must be different and sorted; got {brief(labels)}")
    if kind == "object":
        return
    dtype, label_type = np.dtype(kind), types.pop()
    if dtype.kind not in {bool: "b", int: "iu", float: "f", str: "US"}[label_type]:
        raise ValueError(f"{where}.dtype must hold {label_type.__name__}; got {kind!r}")
    if dtype.itemsize * len(labels) > _MAX_LABEL_BYTES:
        raise ValueError(f"{where} must take at most {_MAX_LABEL_BYTES:,} bytes; got {kind!r}")
    if label_type is str and max(map(len, labels)) > dtype.itemsize // (4 if dtype.kind == "U" else 1):
        raise ValueError(f"{where}.dtype must hold the longest label; got {kind!r}")
    if label_type is int and not np.iinfo(dtype).min <= labels[0] <= labels[-1] <= np.iinfo(dtype).max:
        raise ValueError(f"{where}.dtype must hold {labels[0]} to {labels[-1]}; got {kind!r}")


def check_tensors(header: dict[str, Any], tensors: Tensors) -> None:
    """Raise ValueError unless every tensor has a name, a type and a shape that the header says.

    Tensors of a prior are checked by those who read it.
    """
    tensors = _own(header, tensors)
    if header["warm"] is not None:
        _check_warm(header, tensors)
        return
    outputs = 1 if header["classes"] is None else len(header["classes"]["labels"])
    members = [f"{member}." for member in range(len(header["seeds"]))]
    prefixes = (*members, *(["memory."] if "memory" in header["params"] else []))
    for name in tensors:
        if not name.startswith(prefixes):
            raise ValueError(f"tensor {brief(name)} is unknown")
    for prefix in members:
        parts = {name.removeprefix(prefix): part for name, part in tensors.items() if name.startswith(prefix)}
        if header["params"]["model"] == "experts":
            sizes = {"C": outputs}
            check_parts(parts, _member(header), sizes, prefix)
            width = sizes["d"] + 1 + sum(sizes.get(family, 0) for family in "KPSR")
            if sizes["D"] < width or (sizes["D"] > width and not _is_old(header)):
                raise ValueError(f"tensor '{prefix}gram' must be of {width} features; got {sizes['D']}")
        elif any(part.shape[:1] != (1,) for name, part in parts.items() if name not in _FLAT):
            raise ValueError("tensors of a learner must be those of one task, [1, ...]")


def _check_warm(header: dict[str, Any], tensors: Tensors) -> None:
    """Raise ValueError unless there is one tensor [rows] for y, the weights, and every column that is not in words."""
    column = Part(("rows",), (torch.float64,))
    count = header["n_features"]
    stored = {int(name[5:]) for name in tensors if re.fullmatch(r"warm\.(0|[1-9]\d{0,7})", name)}
    if len(header["warm"]["names"]) != count or max(stored, default=0) >= count:
        raise ValueError(f"header.warm must have {count:,} columns")
    names = {f"warm.{name}": column for name in ("y", "weight", *sorted(stored))}
    check_parts(tensors, names, {})


def _own(header: dict[str, Any], tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tensors of the table itself."""
    is_own = lambda name: "prior" not in header or not name.startswith("prior.")  # noqa: E731
    return {name: part for name, part in tensors.items() if is_own(name)}


def check_numbers(header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Raise ValueError if a number in a tensor of any shape is out of range, or first rows and words differ in size."""
    tensors = _own(header, tensors)
    if header["warm"] is None:
        for member in range(len(header["seeds"])):
            parts = {f"{member}.{name}": part for name, part in _member(header).items()}
            check_values(tensors, parts)
            if header["params"]["model"] == "experts":
                names = (f"{member}.{name}" for name in ("gram", "cross", "squares"))
                check_moments(*((name, tensors[name]) for name in names))
        return
    words, y, weight = header["warm"]["words"], tensors["warm.y"], tensors["warm.weight"]
    columns = {str(place) for place in range(header["n_features"])}
    if words.keys() | {name[5:] for name in tensors} != columns | {"y", "weight"}:
        raise ValueError("header.warm.words and the tensors must have every column once")
    if not len(y) or any(len(column) != len(y) for column in words.values()):
        raise ValueError(f"header.warm.words must have {len(y)} rows in each column")
    rows = {str(row) for row in range(len(y))}
    for place, cells in header["warm"].get("numbers", {}).items():
        if place not in words or not cells.keys() <= rows:
            raise ValueError("header.warm.numbers must be cells of columns of words")
    if not header["warm"].get("families", {}).keys() <= columns - words.keys():
        raise ValueError("header.warm.families must be of columns of numbers")
    if not bool((weight > 0).all()):
        raise ValueError("tensor 'warm.weight' must have positive numbers")
    if header["classes"] is not None:
        labels = header["classes"]["labels"]
        if not bool(((y == y.round()) & (y >= 0) & (y < len(labels))).all()):
            raise ValueError(f"tensor 'warm.y' must have places of the {len(labels)} classes")


def _is_cell(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and text().fits(value[0]) and number().fits(value[1])


def _is_memory(value: Any) -> bool:
    return value == "adaptive" or whole(64, 2**53).fits(value)


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value)
