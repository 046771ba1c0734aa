"""Damaged and foreign files: states, tables, archives of arrays are refused in one sentence, or read as they are."""

import copy
import gzip
import json
import struct
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from gradatim.estimators import RefinedClassifier, RefinedRegressor
from gradatim.families.archives import read_npz
from gradatim.families.images import read_idx
from gradatim.files.checkpoint import read
from gradatim.files.reading import open_table

from ..case_tools import joined
from .judge import FAILED, REFUSED, attempt
from .rows import fitted

VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1, 2, 10**9, 10**30, -(2**63), 0.5, 1e308, -1e308, float("nan"), float("inf"), "",
    "a", "\ud800",
    "x" * 1000, "/dev/zero", "../..", "cuda", "experts", "given", [], [0], [None], ["a", "a"], {},
    {"a": 1}, [[]] * 3,
)  # fmt: skip


@cache
def sample(kind: str) -> tuple[bytes, Any, Any]:
    """Return a state as bytes, rows to ask about, and the answers of the loaded state."""
    import tempfile

    rng = np.random.default_rng(1)
    X = pd.DataFrame({"x": rng.normal(size=40), "w": rng.choice(["a", "b"], 40)})
    if kind == "early classifier":
        model: Any = RefinedClassifier().partial_fit(X, X.x > 0)
    elif kind == "early regressor":
        model = RefinedRegressor().partial_fit(X, X.x)
    else:
        model = fitted(kind.removeprefix("fixed "))
        X = pd.DataFrame(
            {
                "x": [0.3],
                "day": [np.datetime64("2024-02-01", "us")],
                "word": ["red"],
                "flag": [True],
                "k": [3],
            }
        )
    with tempfile.TemporaryDirectory() as folder:
        path = model.save(Path(folder) / "s")
        content = path.read_bytes()
        model = type(model).load(path)
    X = X.head(3)
    return content, X, (type(model), answers(model, X))


def answers(model: Any, X: Any) -> np.ndarray:
    """Return what a model says of rows."""
    return model.predict_proba(X) if hasattr(model, "predict_proba") else model.predict(X)


def load_and_answer(estimator: Any, path: Path, X: Any) -> np.ndarray:
    """Return the answers of a state in a file."""
    return answers(estimator.load(path), X)


def state_ends(path: Path, kind: str, what: str, ask: bool) -> str:
    """Load a damaged state: it is refused, or it answers as the whole one."""
    _, X, (estimator, wanted) = sample(kind)
    result, fault = attempt(
        load_and_answer if ask else estimator.load, *([estimator, path, X] if ask else [path])
    )
    if fault:
        return f"a state ({kind}) with {what}: {fault}"
    if ask and result is not REFUSED and not np.array_equal(result, wanted):
        return f"a state ({kind}) with {what} is loaded and answers otherwise"
    return ""


KINDS = ("early classifier", "early regressor", "fixed classifier", "fixed regressor")


def change(rng: np.random.Generator, value: Any) -> tuple[Any, str]:
    """Return a JSON value with one change somewhere, and which."""
    value = copy.deepcopy(value)
    place: list[Any] = []
    at: Any = value
    while True:
        keys = list(at) if isinstance(at, dict) else range(len(at))
        key = keys[int(rng.integers(len(keys)))]
        place.append(key)
        if not isinstance(at[key], dict | list) or not at[key] or rng.random() < 0.15:
            break
        at = at[key]
    how = int(rng.integers(4))
    if how == 0 and isinstance(at, dict):
        del at[key]
        return value, f"{place} removed"
    if how == 1 and isinstance(at, dict):
        at[f"{key}x"] = at[key]
        return value, f"{place} twice"
    if how == 2 and isinstance(at[key], int | float) and not isinstance(at[key], bool):
        at[key] = at[key] * float(rng.choice([-1, 0, 1e6, 1e-6])) + float(rng.choice([0, 1, 0.5]))
        return value, f"{place} = {at[key]!r}"
    at[key] = VALUES[rng.integers(len(VALUES))]
    return value, f"{place} = {at[key]!r:.60}"


def header_of(rng: np.random.Generator, folder: Path) -> str:
    """Change one entry of the header of a state: it is loaded, or refused in a sentence that names it."""
    kind = KINDS[rng.integers(2)] if rng.random() < 0.97 else KINDS[2 + rng.integers(2)]
    content, _, (estimator, _) = sample(kind)
    length = int.from_bytes(content[:8], "little")
    entries = json.loads(content[8 : 8 + length])
    text = entries["__metadata__"]["gradatim"]
    if rng.random() < 0.7:
        header, what = change(rng, json.loads(text))
        text = json.dumps(header)
        changed = joined(entries, text, content[8 + length :], fresh=rng.random() < 0.8)
    else:
        entries, what = change(rng, entries)
        kept = entries.get("__metadata__")
        if isinstance(kept, dict) and kept.get("gradatim") == text:
            changed = joined(entries, text, content[8 + length :], fresh=rng.random() < 0.8)
        else:
            head = json.dumps(entries).encode()
            changed = struct.pack("<Q", len(head)) + head + content[8 + length :]
    path = folder / "state"
    path.write_bytes(changed)
    if rng.random() < 0.05:
        p, fault = attempt(load_and_answer, estimator, path, sample(kind)[1])
        if fault or (p is not REFUSED and not np.isfinite(p).all()):
            return f"a state ({kind}) with {what}: {fault or f'answers {p}'}"
    result, fault = attempt(estimator.load, path)
    if not fault and result is REFUSED:
        return _names(path, estimator)
    return f"a state ({kind}) with {what}: {fault}" if fault else ""


def _names(path: Path, estimator: Any) -> str:
    try:
        estimator.load(path)
    except ValueError as error:
        return "" if str(path) in str(error) else f"a damaged state is refused without its path: {error}"
    return ""


def bytes_of(rng: np.random.Generator, content: bytes) -> tuple[bytes, str]:
    """Return bytes with some damage, and which."""
    how, n = int(rng.integers(6)), len(content)
    place = int(rng.integers(n)) if rng.random() < 0.5 else min(int(rng.exponential(60)), n - 1)
    damaged = bytearray(content)
    if how == 0:
        damaged[place] ^= 1 << int(rng.integers(8))
        return bytes(damaged), f"a bit of byte {place} flipped"
    if how == 1:
        return content[:place], f"{place} bytes of {n}"
    if how == 2:
        damaged[place : place + 8] = rng.bytes(8)
        return bytes(damaged), f"8 bytes at {place} replaced"
    if how == 3:
        return bytes(damaged[:place] + rng.bytes(5) + damaged[place:]), f"5 bytes put in at {place}"
    if how == 4:
        end = min(n, place + int(rng.integers(1, 50)))
        return bytes(damaged[:place] + damaged[end:]), f"bytes {place} to {end} cut out"
    damaged[place : place + 40] = b"\0" * len(damaged[place : place + 40])
    return bytes(damaged), f"zeros at {place}"


def state_of(rng: np.random.Generator, folder: Path) -> str:
    """Damage the bytes of a state."""
    kind = KINDS[rng.integers(2)] if rng.random() < 0.97 else KINDS[2 + rng.integers(2)]
    content, what = bytes_of(rng, sample(kind)[0])
    path = folder / "state"
    path.write_bytes(content)
    return state_ends(path, kind, what, ask=content != sample(kind)[0] and rng.random() < 0.2)


@cache
def tables() -> dict[str, bytes]:
    """Return small tables in files of every kind."""
    frame = pd.DataFrame(
        {
            "x": [1.5, 2, None] * 4,
            "w": ["red", "é, b", 'q"'] * 4,
            "d": pd.Timestamp("2024-01-01"),
            "k": range(12),
        }
    )
    arrow = pa.Table.from_pandas(frame, preserve_index=False)
    text = frame.to_csv(index=False).encode()
    sink, sunk, packed = pa.BufferOutputStream(), pa.BufferOutputStream(), pa.BufferOutputStream()
    parquet.write_table(arrow, sink)
    parquet.write_table(arrow, packed, compression="zstd", row_group_size=5)
    with pa.ipc.new_file(sunk, arrow.schema) as writer:
        writer.write_table(arrow)
    lines = "".join(json.dumps({"x": i, "w": "a", "n": None}) + "\n" for i in range(9)).encode()
    import bz2
    import io

    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("t.csv", text)
    return {
        "t.csv": text,
        "u.csv": frame.to_csv(index=False, sep=";", decimal=",").encode("utf-16"),
        "t.csv.gz": gzip.compress(text),
        "t.csv.bz2": bz2.compress(text),
        "t.parquet": sink.getvalue().to_pybytes(),
        "u.parquet": packed.getvalue().to_pybytes(),
        "t.arrow": sunk.getvalue().to_pybytes(),
        "t.jsonl": lines,
        "t.zip": archive.getvalue(),
        "none.csv": b"",
        "odd.csv": b'a,b\n"x,1\n2,3\n\0,\xff\n',
        "text.csv": "\ufeffa,b,a,,b \r\n1,2\r\n3,4,5,6,7\r\n\r\n'x','y'\r\n\"un\"closed,1\n".encode(),
    }


def read_table(path: Path) -> int:
    """Read all of a table and return its rows."""
    file = open_table(path)
    cells = {name: cell for name, cell in file.cells.items() if cell is not None}
    rows = 0
    for table, share in file.stream(cells):
        if not 0 <= share <= 1:
            raise RuntimeError(f"a share of {share}")
        rows += table.num_rows
    return rows


def table_of(rng: np.random.Generator, folder: Path) -> str:
    """Damage the bytes of a table: it is read, or refused in a sentence that names the file."""
    name = list(tables())[rng.integers(len(tables()))]
    content, what = bytes_of(rng, tables()[name]) if tables()[name] else (rng.bytes(9), "random bytes")
    path = folder / name
    path.write_bytes(content)
    result, fault = attempt(read_table, path)
    if not fault and result is REFUSED and rng.random() < 0.2:
        try:
            read_table(path)
        except (ValueError, TypeError) as error:
            fault = "" if str(path) in str(error) else f"refused without its path: {error}"
    return f"{name} with {what} ({content[:80]!r}): {fault}" if fault else ""


MARKS = (",", ";", "\t", "|", "\n", "\r\n", '"', '""', "'", " ", "#",
    "\\", "\0", "\ufeff", "1", "2.5", "1,5", "a", "é", "NA",
         "", "-", "2024-01-01", "true", "x" * 3000, "1e999", "=1+1", "🦉", "\u2028", "$3", "5%", "0x1", "١",
         "\x1a")  # fmt: skip


def text_of(rng: np.random.Generator, folder: Path) -> str:
    """Read a text of random cells and marks: it is a table, or refused."""
    content = "".join(MARKS[i] for i in rng.integers(0, len(MARKS), int(rng.integers(1, 60))))
    path = folder / "text.csv"
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    _, fault = attempt(read_table, path)
    return f"the text {content!r:.300}: {fault}" if fault else ""


@cache
def arrays() -> dict[str, bytes]:
    """Return small npz and IDX files."""
    import io

    out = {}
    for name, save in (("a.npz", np.savez), ("c.npz", np.savez_compressed)):
        file = io.BytesIO()
        save(file, images=np.zeros((3, 4), dtype=np.uint8), labels=np.arange(3))
        out[name] = file.getvalue()
    out["i.idx"] = b"\0\0\x08\x03" + struct.pack(">3I", 2, 3, 4) + bytes(24)
    out["i.idx.gz"] = gzip.compress(out["i.idx"])
    return out


def array_of(rng: np.random.Generator, folder: Path) -> str:
    """Damage an archive of arrays."""
    name = list(arrays())[rng.integers(len(arrays()))]
    content, what = bytes_of(rng, arrays()[name])
    path = folder / name
    path.write_bytes(content)
    _, fault = attempt(read_npz if name.endswith("npz") else read_idx, path)
    return f"{name} with {what}: {fault}" if fault else ""


def foreign(rng: np.random.Generator, folder: Path) -> str:
    """Read what is no state at all."""
    path = folder / "foreign"
    path.write_bytes(
        rng.bytes(int(rng.integers(0, 200)))
        if rng.random() < 0.5
        else struct.pack("<Q", 2) + b"{}" + bytes(3)
    )
    result, fault = attempt(read, path)
    return f"{path.read_bytes()[:60]!r}: {fault}" if fault or result is FAILED else ""
