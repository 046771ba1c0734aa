"""Damaged files: copies of a file of ours with flipped bits, cut ends, and edited headers, layouts and numbers.

With `sign` an edited file gets the checksum of its contents, as someone would give it who writes such files on purpose.
"""

import copy
import hashlib
import json
import random
import struct
from collections.abc import Iterator
from typing import Any

ODD_VALUES: list[Any] = [
    None, True, False, 0, 1, -1, -5, 2, 63, 65, 10**6, 10**9, 2**31, 2**63, 2**64, 10**40, -(10**9),
    0.0, 0.5, -0.5, 1e-320, 1e308, -1e308, "", "x", "experts", "given", "checkpoint", "cuda", "cuda:99", "mps", "meta",
    "/dev/zero", "os:system", "\n", "ä" * 300, "0", "1e5", "<U1000000000", "(1000000,1000000)f8", "object", "|V8",
    [], [[]], [0], [None], [1, 1], ["a", "a"], ["b", "a"], list(range(3000)), {}, {"a": 1}, {"name": "x"}, {"": {}},
]  # fmt: skip
TOKENS = [
    "NaN",
    "Infinity",
    "-Infinity",
    "1e999",
    "[" * 5000 + "]" * 5000,
    '{"a": 1, "a": 2}',
    '"\\ud800"',
    "1" * 5000,
]
"""Texts in place of a value that are no JSON, or not JSON of ours."""


def parts_of(content: bytes) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """Return the header, the layouts and the bytes of the tensors."""
    (length,) = struct.unpack("<Q", content[:8])
    layouts = json.loads(content[8 : 8 + length])
    header = json.loads(layouts.pop("__metadata__")["gradatim"])
    return header, layouts, content[8 + length :]


def joined(header: dict[str, Any] | str, layouts: dict[str, Any], body: bytes, sign: bool = True) -> bytes:
    """Return a file of these parts."""
    text = header if isinstance(header, str) else json.dumps(header)
    digest = hashlib.sha256(text.encode())
    digest.update(json.dumps(layouts, sort_keys=True, separators=(",", ":")).encode())
    digest.update(body)
    metadata = {"gradatim": text, "sha256": digest.hexdigest() if sign else "0" * 64}
    raw = json.dumps({"__metadata__": metadata, **layouts}).encode()
    raw += b" " * (-len(raw) % 8)
    return struct.pack("<Q", len(raw)) + raw + body


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value in JSON; of long lists the first and the last."""
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list):
        for index in sorted({0, len(value) - 1}) if value else ():
            yield from places(value[index], (*path, index))


def edited(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """Return JSON with another value at a path; `...` deletes it."""
    value = copy.deepcopy(value)
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    if new is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = new
    return value


def unsigned(content: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Yield files with flipped bits, changed bytes and cut ends."""
    stream = random.Random(seed)
    (length,) = struct.unpack("<Q", content[:8])
    for turn in range(count):
        changed = bytearray(content)
        place = stream.randrange(8 + length if turn % 2 else len(content))
        if turn % 5 == 4:
            changed = changed[:place] if turn % 10 == 4 else changed + bytes(stream.randrange(1, 99))
        else:
            changed[place] ^= 1 << stream.randrange(8)
        yield bytes(changed)


def signed(content: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Yield files with one edit of the header, of the layouts or of the numbers, and the right checksum."""
    stream = random.Random(seed)
    header, layouts, body = parts_of(content)
    header_places = [path for path in places(header) if path]
    layout_places = [path for path in places(layouts) if path]
    for turn in range(count):
        kind = turn % 8
        if kind < 4:
            path, new = stream.choice(header_places), stream.choice([*ODD_VALUES, ...])
            yield joined(edited(header, path, new), layouts, body)
        elif kind == 4:
            marked = json.dumps(edited(header, stream.choice(header_places), "HERE"))
            yield joined(marked.replace('"HERE"', stream.choice(TOKENS)), layouts, body)
        elif kind == 5:
            path, new = stream.choice(layout_places), stream.choice([*ODD_VALUES, ...])
            yield joined(header, edited(layouts, path, new), body)
        elif kind == 6:
            yield joined(header, reshaped(layouts, stream), body)
        else:
            changed = bytearray(body)
            if name := next(iter(stream.sample(sorted(layouts), 1)), None):
                start, end = layouts[name]["data_offsets"]
                size = 8 if "64" in layouts[name]["dtype"] else 4
                if end - start >= size:
                    number = stream.choice(
                        [float("nan"), float("inf"), -1.0, 0.0, 1e300 if size == 8 else 1e38]
                    )
                    place = start + size * stream.randrange((end - start) // size)
                    changed[place : place + size] = struct.pack("<d" if size == 8 else "<f", number)
            yield joined(header, layouts, bytes(changed))


def reshaped(layouts: dict[str, Any], stream: random.Random) -> dict[str, Any]:
    """Return layouts with one tensor of another shape, type or place; its bytes stay those of its shape, or not."""
    layouts = copy.deepcopy(layouts)
    first, second = stream.choice(sorted(layouts)), stream.choice(sorted(layouts))
    entry = layouts[first]
    change = stream.randrange(6)
    if change == 0:
        entry["shape"] = entry["shape"][::-1]
    elif change == 1:
        entry["shape"] = [*entry["shape"], 1]
    elif change == 2:
        entry["shape"] = [10**9, *entry["shape"][1:]]
    elif change == 3:
        layouts[first], layouts[second] = layouts[second], layouts[first]
    elif change == 4:
        entry["data_offsets"] = list(layouts[second]["data_offsets"])
    else:
        entry["dtype"] = stream.choice(["F64", "F32", "F16", "I64", "I32", "BOOL", "U8", "F8_E4M3", "C64"])
    return layouts
