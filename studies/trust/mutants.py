"""Damaged copies of a file: flipped bits, missing and foreign pieces, and headers that say something else.

A file is safetensors: 8 bytes of length, a JSON header with a table of tensors and our own header as text, the
numbers of all tensors. An edit of a header may bring a fresh checksum: then it is no damage that a checksum can tell.

Source: the safetensors format; DeMillo, Lipton, Sayward 1978 (mutants).
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

Values = dict[str, Any]

NUMBERS = (0, 1, -1, -5, 0.5, 1e9, 1e-320, 1e308, -1e308, 2**53 + 1, 2**63, 10**400, True, None)
WORDS = ("", "x", "/dev/zero", "..", "cuda", "nan", "é" * 3000, "\x00", "experts", "float16", "number")
BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "F16": 2, "BF16": 2, "I32": 4, "F32": 4, "I64": 8, "F64": 8}


@dataclass(frozen=True)
class Mutant:
    """A damaged file.

    Attributes:
        kind: how it was damaged.
        content: its bytes.
        stamped: whether its checksum was computed anew, so that only its header can contradict itself.
    """

    kind: str
    content: bytes
    stamped: bool = False


@dataclass(frozen=True)
class Layout:
    """A file in its parts: the table of tensors, our header, the bytes of the tensors, and a checksum or None."""

    table: Values
    header: Values
    data: bytes
    checksum: str | None = None

    @classmethod
    def of(cls, content: bytes) -> Layout:
        """Return the parts of a file that is whole.

        Raises:
            ValueError: its checksum is not that of `checksum`, so that none can be computed anew.
        """
        length = int.from_bytes(content[:8], "little")
        table, data = json.loads(content[8 : 8 + length]), content[8 + length :]
        metadata = table.pop("__metadata__")
        text, expected = metadata["gradatim"], metadata.get("sha256")
        if expected is not None and expected != checksum(text, table, data):
            raise ValueError("the checksum of the file is computed in another way: write that way here")
        return cls(table, json.loads(text), data, expected)

    def stamped(self) -> Layout:
        """Return the parts with their checksum computed anew, or as they are where there is none."""
        if self.checksum is None:
            return self
        return replace(self, checksum=checksum(json.dumps(self.header), self.table, self.data))

    def content(self) -> bytes:
        """Return the file of these parts."""
        metadata = {"gradatim": json.dumps(self.header)}
        metadata |= {} if self.checksum is None else {"sha256": self.checksum}
        entries = json.dumps({"__metadata__": metadata, **self.table}).encode()
        entries += b" " * (-len(entries) % 8)
        return len(entries).to_bytes(8, "little") + entries + self.data


def checksum(text: str, table: Values, data: bytes) -> str:
    """Return the checksum of a file: of its header as text, of its table of tensors, and of their bytes."""
    parts = (text.encode(), json.dumps(table, sort_keys=True, separators=(",", ":")).encode(), data)
    return hashlib.sha256(b"".join(parts)).hexdigest()


def mutants(content: bytes, foreign: bytes, count: int, rng: np.random.Generator) -> Iterator[Mutant]:
    """Yield `count` damaged copies of a file, all kinds by turns.

    Args:
        content: of a whole file.
        foreign: of another one, for pieces.
        count: how many.
        rng: draws places and values.
    """
    layout = Layout.of(content)
    for turn in range(count):
        name, damage = list(DAMAGES.items())[turn % len(DAMAGES)]
        if name in RAW:
            yield Mutant(name, damage(content, foreign, rng))
            continue
        changed = replace(layout, table=copy.deepcopy(layout.table), header=copy.deepcopy(layout.header))
        changed = damage(changed, rng)
        fresh = layout.checksum is not None and rng.random() < 0.5
        yield Mutant(name, (changed.stamped() if fresh else changed).content(), fresh)


def flipped(content: bytes, foreign: bytes, rng: np.random.Generator) -> bytes:
    """Return a file with a bit that is flipped: as often in its header as in its tensors."""
    length = 8 + int.from_bytes(content[:8], "little")
    first, last = (0, length) if rng.random() < 0.5 else (length, len(content))
    place = int(rng.integers(first, max(last, first + 1))) % len(content)
    return content[:place] + bytes([content[place] ^ 1 << int(rng.integers(8))]) + content[place + 1 :]


def overwritten(content: bytes, foreign: bytes, rng: np.random.Generator) -> bytes:
    """Return a file in which some bytes are random, or a block of them is zero."""
    size = int(rng.choice([1, 2, 8, 64, 512]))
    place = int(rng.integers(len(content)))
    block = bytes(size) if rng.random() < 0.5 else rng.bytes(size)
    return (content[:place] + block + content[place + size :])[: len(content)]


def truncated(content: bytes, foreign: bytes, rng: np.random.Generator) -> bytes:
    """Return the first bytes of a file: none, a few, or all but a few."""
    places = (
        0,
        int(rng.integers(16)),
        int(rng.integers(len(content))),
        len(content) - int(rng.integers(1, 64)),
    )
    return content[: places[int(rng.integers(4))]]


def extended(content: bytes, foreign: bytes, rng: np.random.Generator) -> bytes:
    """Return a file with bytes behind it, random, zero or its own."""
    size = int(rng.integers(1, 4096))
    return content + (bytes(size), rng.bytes(size), content[-size:], content)[int(rng.integers(4))]


def spliced(content: bytes, foreign: bytes, rng: np.random.Generator) -> bytes:
    """Return the beginning of a file and the end of another, at random places or behind the header."""
    if rng.random() < 0.5:
        first, second = (8 + int.from_bytes(part[:8], "little") for part in (content, foreign))
    else:
        first, second = int(rng.integers(len(content))), int(rng.integers(len(foreign)))
    return content[:first] + foreign[second:]


def header_value(layout: Layout, rng: np.random.Generator) -> Layout:
    """Return the parts with a value of our header that is another: of its type or of none that fits."""
    places = list(_places(layout.header))
    holder, key = places[int(rng.integers(len(places)))]
    holder[key] = _another(holder[key], rng)
    return layout


def header_entry(layout: Layout, rng: np.random.Generator) -> Layout:
    """Return the parts with an entry of our header that is missing, there twice or new."""
    holders = [holder for holder in _holders(layout.header) if holder]
    holder = holders[int(rng.integers(len(holders)))]
    if isinstance(holder, dict):
        key = list(holder)[int(rng.integers(len(holder)))]
        value = holder.pop(key)
        if rng.random() < 0.3:
            holder[f"{key}x"] = value
    elif rng.random() < 0.5:
        holder.pop(int(rng.integers(len(holder))))
    else:
        holder += copy.deepcopy(holder[: int(rng.integers(1, len(holder) + 1))])
    return layout


def tensor_table(layout: Layout, rng: np.random.Generator) -> Layout:
    """Return the parts with a tensor of another name, type, shape or place."""
    names = list(layout.table)
    name = names[int(rng.integers(len(names)))]
    entry, turn = layout.table[name], int(rng.integers(6))
    if turn == 0:
        layout.table[f"{name}x"] = layout.table.pop(name)
    elif turn == 1:
        near = names[int(rng.integers(len(names)))]
        layout.table[name], layout.table[near] = layout.table[near], layout.table[name]
    elif turn == 2:
        size = BYTES.get(entry["dtype"], 0)
        kinds = [kind for kind, width in BYTES.items() if width == size and kind != entry["dtype"]]
        entry["dtype"] = rng.choice(kinds or ["F128"]).item()
    elif turn == 3:
        entry["shape"] = entry["shape"][::-1] if rng.random() < 0.5 else [int(np.prod(entry["shape"])), 1]
    elif turn == 4:
        entry["shape"] = [*entry["shape"][:-1], int(rng.choice([0, 1, 2**31, 10**12]))]
    else:
        entry["data_offsets"] = [int(place + rng.integers(-8, 9)) for place in entry["data_offsets"]]
    return layout


def tensor_values(layout: Layout, rng: np.random.Generator) -> Layout:
    """Return the parts with numbers of a tensor that are not finite, negative, huge or another tensor's."""
    names = [
        name for name, entry in layout.table.items() if entry["dtype"] in ("F32", "F64") and _size(entry)
    ]
    if not names:
        return layout
    name = names[int(rng.integers(len(names)))]
    first, last = layout.table[name]["data_offsets"]
    kind = np.dtype("<f4" if layout.table[name]["dtype"] == "F32" else "<f8")
    values = np.frombuffer(layout.data[first:last], kind).copy()
    chosen = slice(None) if rng.random() < 0.3 else int(rng.integers(len(values)))
    turn = int(rng.integers(5))
    values[chosen] = (np.nan, np.inf, -values[chosen], 1e30, rng.permutation(values)[chosen])[turn]
    return replace(layout, data=layout.data[:first] + values.tobytes() + layout.data[last:])


RAW = ("flipped", "overwritten", "truncated", "extended", "spliced")
"""Damage to the bytes, whatever they mean."""

DAMAGES: dict[str, Callable[..., Any]] = {
    "flipped": flipped,
    "header_value": header_value,
    "overwritten": overwritten,
    "tensor_table": tensor_table,
    "truncated": truncated,
    "header_entry": header_entry,
    "spliced": spliced,
    "tensor_values": tensor_values,
    "extended": extended,
}
"""All kinds of damage by name."""


def _another(value: Any, rng: np.random.Generator) -> Any:
    """Return a value in place of a value of JSON."""
    if rng.random() < 0.25:
        return (None, [], {}, "x", 1, [[]], {"a": 1}, True)[int(rng.integers(8))]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        near = (value + 1, -value, value * 1.5, value * (1 + 1e-7), float("nan"), float("inf"))
        choices = (*near, *NUMBERS)
        return choices[int(rng.integers(len(choices)))]
    if isinstance(value, str):
        choices = (*WORDS, value[::-1], f"{value}x", value.upper())
        return choices[int(rng.integers(len(choices)))]
    if isinstance(value, list) and value:
        return (value[::-1], value[:-1], value + value, [value], value[:1])[int(rng.integers(5))]
    return (1, "x", [1], [None])[int(rng.integers(4))]


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the holder and the key of every value inside a value of JSON."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from _places(inner)


def _holders(value: Any) -> Iterator[Any]:
    yield value
    for holder, key in _places(value):
        if isinstance(holder[key], dict | list):
            yield holder[key]


def _size(entry: Values) -> int:
    return int(entry["data_offsets"][1] - entry["data_offsets"][0])
