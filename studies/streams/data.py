"""The streams of `make study NAME=streams`: their source, their side of the split, and where they change.

Source: Harries 1999 (electricity); Losing et al. 2016 (weather, outdoor); Fanaee-T, Gama 2014 (bikes); the split is
our own.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from studies.tables import data as tables
from studies.tables.data import Table, side
from studies.tables.streams import permuted

from .generators import CHANGES, GENERATORS, STILL, generate
from .moved import KINDS, move

ROWS, SEEDS, MOVED_ROWS, MOVED_ORDERS = 20_000, 3, 12_000, 3
LONG_ENOUGH = 4500
"""Rows of a table at least, for a column of it to be moved in its middle: 2,000 rows are learnt after the change."""

REAL = ("electricity", "weather", "outdoor", "keystroke", "luxembourg", "phishing", "bikes")
NUMBERS = ("bikes", "friedman")
"""Streams and families whose target is a number."""

MOVABLE = ("agrawal", "rbf", "waveform", "mixed", "sine")
"""Generators whose streams without change have their columns moved, as tables have."""

SMOKE_ROWS = 600
TURNED = "turned-"
"""Begins the names of scikit-learn's tables whose labels are permuted in the middle: streams of a smoke run."""


@dataclass(frozen=True)
class Stream(Table):
    """A table whose rows come in their order.

    Attributes:
        changes: the rows at which it is known to change.
        absent: a column, and the first row and the row after the last one that lack it. There it is NaN.
        seed: of its making.
    """

    fixed: bool = True
    heldout: float = 0.0
    changes: tuple[int, ...] = ()
    absent: tuple[int, int, int] | None = None
    seed: int = 0

    @property
    def digest(self) -> str:
        """Return a fingerprint of all rows and of what is known about them."""
        sha = hashlib.sha256(repr((self.x.shape, self.classes, self.categorical, self.absent)).encode())
        sha.update(np.ascontiguousarray(self.x).tobytes())
        sha.update(np.ascontiguousarray(self.y).tobytes())
        return sha.hexdigest()[:16]


def kind_of(name: str) -> str:
    """Return `classification` or `regression`.

    Example:
        >>> kind_of("friedman-abrupt-0"), kind_of("sea-abrupt-0")
        ('regression', 'classification')
    """
    return "regression" if name.partition("-")[0] in NUMBERS else "classification"


def real(on: str) -> list[str]:
    """Return the real streams of one side."""
    return [name for name in REAL if side(name) == on]


def drifting(on: str, seeds: int = SEEDS) -> list[str]:
    """Return the generated streams of one side, seed by seed within each family and kind of change.

    Example:
        >>> drifting("validation", 1)[:3]
        ['mixed-abrupt-0', 'mixed-gradual-0', 'mixed-recurring-0']
    """
    families = [name for name in GENERATORS if side(name) == on]
    return [f"{name}-{change}-{seed}" for name in families for change in CHANGES for seed in range(seeds)]


def movable(on: str, smoke: bool = False) -> list[str]:
    """Return the stationary tables of one side whose columns are moved: long tables, and generators without change.

    Raises:
        ValueError: $GRADATIM_DATA is not set. A smoke run has one of scikit-learn's tables.
    """
    if smoke:
        return ["bundled-breast_cancer"]
    long = [name for name in tables.names("classification", on) if len(tables.load(name).x) >= LONG_ENOUGH]
    return [*long, *(f"{name}-{STILL}" for name in MOVABLE if side(name) == on)]


@lru_cache(maxsize=4)
def load(name: str, folder: Path, limit: int = 0) -> Stream:
    """Return a stream by its name, its first `limit` rows alone where that is not 0.

    - `electricity`: a real stream.
    - `sea-abrupt-0`: a generator, its kind of change, its seed.
    - `moved-mushroom~words~0`: a table, what moves in the middle, the order of its rows.
    - `after-mushroom~words~0`: the same from the change on, as a learner sees it that begins there.
    - `turned-bundled-wine`: a table with labels that are permuted in the middle.

    Raises:
        ValueError: the name is unknown, $GRADATIM_DATA is not set, or what reads or makes the stream is not installed.
    """
    first, _, details = name.partition("-")
    if name in REAL:
        return _real(name, limit)
    if first in GENERATORS:
        change, _, seed = details.partition("-")
        return _generated(first, change, int(seed), limit or ROWS, folder)
    if first in ("moved", "after"):
        table, kind, order = details.rsplit("~", 2)
        moved_table = _moved(table, kind, int(order), folder, limit)
        return moved_table if first == "moved" else after(moved_table)
    if name.startswith(TURNED):
        table = _shuffled(tables.load(name.removeprefix(TURNED)), 0, limit)
        y = permuted(table.y, table.classes, np.random.default_rng(0))
        return replace(table, name=name, y=y, changes=(len(y) // 2,))
    raise ValueError(f"no stream is called {name!r}: there are {', '.join((*REAL, *GENERATORS))}")


def moved_name(table: str, kind: str, order: int, first: str = "moved") -> str:
    """Return the name of a stream whose columns move.

    Example:
        >>> moved_name("mushroom", "words", 0)
        'moved-mushroom~words~0'
    """
    return f"{first}-{table}~{kind}~{order}"


def after(stream: Stream) -> Stream:
    """Return the rows from the first change on, as a stream of their own."""
    start = stream.changes[0]
    absent = stream.absent and (
        stream.absent[0],
        max(stream.absent[1] - start, 0),
        max(stream.absent[2] - start, 0),
    )
    return replace(stream, x=stream.x[start:], y=stream.y[start:], changes=(), absent=absent)


def kinds_of(name: str, folder: Path) -> list[str]:
    """Return what can move in a stationary table: words need categories, units and shifts need numbers."""
    table = _stationary(name, 0, folder, 0)
    without = set() if table.categorical else {"words"}
    if len(table.categorical) == table.x.shape[1]:
        without = {"units-up", "units-down", "shift"}
    return [kind for kind in KINDS if kind not in without]


def _stationary(name: str, order: int, folder: Path, limit: int) -> Stream:
    if name.endswith(f"-{STILL}"):
        return _generated(name.removesuffix(f"-{STILL}"), STILL, order, limit or MOVED_ROWS, folder)
    return _shuffled(tables.load(name), order, limit or MOVED_ROWS)


def _shuffled(table: Table, order: int, limit: int) -> Stream:
    """Return a table's rows under an order, as a stream."""
    rows = np.random.default_rng(1000 + order).permutation(len(table.x))[: limit or None]
    return Stream(table.name, table.x[rows], table.y[rows], table.categorical, table.classes, seed=order)


def _moved(table: str, kind: str, order: int, folder: Path, limit: int) -> Stream:
    """Return a stationary table in which something moves after half the rows."""
    still = _stationary(table, order, folder, limit)
    change = len(still.x) // 2
    x, absent = move(still, kind, change, np.random.default_rng(order))
    return replace(still, name=moved_name(table, kind, order), x=x, changes=(change,), absent=absent)


def _real(name: str, limit: int) -> Stream:
    root = os.environ.get("GRADATIM_DATA")
    if root is None:
        raise ValueError(
            "the streams lie below $GRADATIM_DATA/streams: set GRADATIM_DATA, or run with --smoke, which needs none"
        )
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError("Parquet is not read without pyarrow: pip install gradatim[data]") from error
    path = Path(root) / "streams" / f"{name}.parquet"
    if not path.exists():
        raise ValueError(f"{path} is not there: it holds the stream {name}")
    columns = {key: np.asarray(values) for key, values in parquet.read_table(path).to_pydict().items()}
    target = columns.pop("y")
    categorical = tuple(place for place, values in enumerate(columns.values()) if values.dtype.kind in "UO")
    x = np.column_stack([codes(values) for values in columns.values()])
    rows = slice(limit or None)
    if name in NUMBERS:
        return Stream(name, x[rows], target[rows].astype(np.float64), categorical)
    labels, y = np.unique(target, return_inverse=True)  # classes are known at the start
    return Stream(name, x[rows], y[rows].astype(np.int64), categorical, len(labels))


def codes(values: np.ndarray) -> np.ndarray:
    """Return a column as float64: numbers as they are, words as places among its sorted words.

    Example:
        >>> codes(np.array(["b", "a", "b"]))
        array([1., 0., 1.])
    """
    if values.dtype.kind not in "UO":
        return values.astype(np.float64)
    return np.unique(values, return_inverse=True)[1].astype(np.float64)


def _generated(family: str, change: str, seed: int, rows: int, folder: Path) -> Stream:
    """Return a generated stream, from the study's folder where it was made before and is whole."""
    name, generator = f"{family}-{change}-{seed}", GENERATORS[family]
    try:
        path = folder / "streams" / f"{name}-{rows}-river-{version('river')}.npz"
    except PackageNotFoundError as error:
        raise ValueError("river's generators are not installed: pip install gradatim[studies]") from error

    def stream(x: np.ndarray, y: np.ndarray, changes: tuple[int, ...]) -> Stream:
        return Stream(name, x, y, generator.categorical, generator.classes, changes=changes, seed=seed)

    if path.exists():
        with np.load(path, allow_pickle=False) as stored:
            cached = stream(stored["x"], stored["y"], tuple(stored["changes"].tolist()))
            if cached.digest == str(stored["digest"]):
                return cached
    generated = stream(*generate(family, change, seed, rows))
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.npz")  # two processes may make the same stream
    np.savez(
        unfinished,
        x=generated.x,
        y=generated.y,
        changes=np.asarray(generated.changes),
        digest=np.asarray(generated.digest),
    )
    unfinished.replace(path)
    return generated
