"""The names of groups: checked, of one kind, and found again in tables of any size.

Source: Python's data model (a name that is equal and hashes alike is the same name).
"""

from __future__ import annotations

from typing import Any
from zlib import crc32

import numpy as np

from ..preprocessing.cells import is_missing

KINDS = (str, int)


def read_groups(groups: Any, n_rows: int) -> np.ndarray:
    """Return the group of each row `[n]`, words (object) or int64.

    Raises:
        ValueError: no groups, another length, a row without a group, names that are neither words nor whole numbers.

    Example:
        >>> from gradatim.groups.names import read_groups
        >>> read_groups(["b", "a"], 2).tolist(), read_groups([1.0, 2.0], 2).tolist()
        (['b', 'a'], [1, 2])
    """
    if groups is None:
        raise ValueError(
            "every row needs a group; got groups=None: give one name for each row, or use RefinedRegressor or "
            "RefinedClassifier for rows without groups"
        )
    array = np.asarray(groups.to_numpy() if hasattr(groups, "to_numpy") else groups)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or len(array) != n_rows:
        raise ValueError(
            f"groups must name the group of each of the {n_rows} rows; got shape {list(array.shape)}: give one name a "
            "row"
        )
    if array.dtype.kind in "iu" and array.max(initial=0) < 2**62:
        return array.astype(np.int64)
    if array.dtype.kind in "US":
        return np.array([str(name) for name in array.tolist()], dtype=object)
    return _plain(array.tolist())


def _plain(items: list[Any]) -> np.ndarray:
    """Return names of mixed Python values `[n]` as words or int64."""
    missing = [row for row, item in enumerate(items) if is_missing(item)]
    if missing:
        shown = ", ".join(map(str, missing[:5]))
        raise ValueError(
            f"every row needs a group; rows {shown} have none ({len(missing)} in all): name their groups, or "
            "leave them out"
        )
    for item in items:
        is_whole = isinstance(item, float | np.floating) and float(item).is_integer()
        if not isinstance(item, str | int | np.integer | bool | np.bool_) and not is_whole:
            raise ValueError(
                f"the name of a group is a word or a whole number; got {str(item)[:60]!r}: make words of them "
                "with str()"
            )
    if any(isinstance(item, str) for item in items):
        return np.array([item if isinstance(item, str) else str(int(item)) for item in items], dtype=object)
    return np.array([int(item) for item in items], dtype=np.int64)


def as_name(group: Any) -> str | int:
    """Return the name of one group as a state holds it."""
    return read_groups([group], 1).tolist()[0]


def hashes(names: list[Any]) -> np.ndarray:
    """Return a number for each name `[T]`, the same on every machine."""
    return np.array([crc32(repr(name).encode(errors="replace")) for name in names], dtype=np.int64)


def codes(groups: np.ndarray) -> tuple[list[Any], np.ndarray]:
    """Return the different names in the order of their first rows, and the place of each row's name `[n]`.

    Example:
        >>> import numpy as np
        >>> from gradatim.groups.names import codes
        >>> codes(np.array([5, 3, 5]))
        ([5, 3], array([0, 1, 0]))
    """
    if groups.dtype.kind == "O":
        place: dict[Any, int] = {}
        found = np.fromiter(
            (place.setdefault(name, len(place)) for name in groups.tolist()), np.int64, len(groups)
        )
        return list(place), found
    names, first, code = np.unique(groups, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return names[order].tolist(), rank[code]
