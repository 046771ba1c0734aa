"""Rows that stand for a file of any length: those whose content hashes lowest, whatever the order of the rows.

Source: Broder 1997 (the rows with the lowest hashes are a random sample); Steele, Lea and Flood 2014 (splitmix64).
"""

from __future__ import annotations

import zlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from .cells import arrow

if TYPE_CHECKING:
    from .text import Rows

MOST_HASHES = 1 << 20
"""Most hashes in memory; of a longer file, rows with the lower hashes go on."""

SAMPLE_BYTES = 1 << 24
"""About the most bytes of a sample: of very wide rows there are fewer."""

_WITHOUT_ENDS = np.where(np.isin(np.arange(256), [10, 13]), 0, np.arange(256)).astype(np.uint64)

_STEP = np.uint64(0x9E3779B97F4A7C15)


class Sampler:
    """Choose rows from their hashes. Rows of equal content are told apart by their count, not by their order.

    Example:
        >>> import numpy as np
        >>> from gradatim.files.sampling import Sampler
        >>> sampler = Sampler(2)
        >>> sampler.add(np.array([7, 8, 7], np.uint64), n_bytes=30)
        >>> len(sampler.rows())
        2
    """

    def __init__(self, size: int) -> None:
        self._size, self._hashes, self._numbers = size, [], []
        self._held, self._limit = 0, np.uint64(2**64 - 1)
        self.count, self._bytes = 0, 0

    def add(self, hashes: np.ndarray, n_bytes: int, present: np.ndarray | None = None) -> None:
        """Add the hashes `[rows]` of the next rows, which take `n_bytes`; rows that are not `present` do not count."""
        numbers = np.arange(self.count, self.count + len(hashes))
        self.count, self._bytes = self.count + len(hashes), self._bytes + n_bytes
        keep = hashes <= self._limit
        if present is not None:
            keep &= present
        self._hashes.append(hashes[keep])
        self._numbers.append(numbers[keep])
        self._held += int(keep.sum())
        while self._held > MOST_HASHES and self._limit > 1:
            self._limit >>= np.uint64(1)
            hashes, numbers = np.concatenate(self._hashes), np.concatenate(self._numbers)
            keep = hashes <= self._limit
            self._hashes, self._numbers, self._held = [hashes[keep]], [numbers[keep]], int(keep.sum())

    def rows(self) -> np.ndarray:
        """Return the numbers of the chosen rows `[rows]`, in an order that depends on their content alone."""
        if not self._hashes:
            return np.empty(0, np.int64)
        hashes, numbers = np.concatenate(self._hashes), np.concatenate(self._numbers)
        order = np.lexsort((numbers, hashes))
        hashes, numbers = hashes[order], numbers[order]
        places = np.arange(len(hashes))
        first = np.maximum.accumulate(np.where(np.append(True, hashes[1:] != hashes[:-1]), places, 0))
        mixed = mix(hashes + (places - first).astype(np.uint64) * _STEP)
        size = min(self._size, max(1, SAMPLE_BYTES * max(self.count, 1) // max(self._bytes, 1)))
        return numbers[np.argsort(mixed, kind="stable")[:size]]


def mix(values: np.ndarray) -> np.ndarray:
    """Return 64-bit numbers `[n]` whose bits all depend on all bits of those given `[n]`.

    Example:
        >>> import numpy as np
        >>> from gradatim.files.sampling import mix
        >>> mix(np.array([0, 1], np.uint64)).tolist()
        [16294208416658607535, 10451216379200822465]
    """
    values = values + _STEP
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@lru_cache(maxsize=1)
def _weights(length: int) -> np.ndarray:
    return mix(np.arange(length, dtype=np.uint64))


def hash_lines(rows: Rows, blanks: bytes = b"\r\n") -> tuple[np.ndarray, np.ndarray]:
    """Return a hash of the bytes of each row `[rows]`, line ends left out, and which rows hold something `[rows]`.

    Rows of `blanks` alone hold nothing.

    Example:
        >>> from gradatim.files.sampling import hash_lines
        >>> from gradatim.files.text import split_rows
        >>> hashes, present = hash_lines(split_rows(b"a\\n\\na\\r\\n", ",", True)[0])
        >>> len(set(hashes.tolist())), present.tolist()
        (2, [True, False, True])
    """
    codes = np.frombuffer(rows.data, np.uint8)
    lengths = rows.stops - rows.starts
    places = np.arange(len(codes), dtype=np.int32)
    places -= np.repeat(rows.starts.astype(np.int32), lengths)
    longest = int(lengths.max(initial=1)) - 1
    weighted = _weights(max(1 << longest.bit_length(), 1024))[places]
    weighted *= _WITHOUT_ENDS[codes]
    sums = np.add.reduceat(weighted, rows.starts) if len(lengths) else np.empty(0, np.uint64)
    full = np.isin(np.arange(256), list(blanks), invert=True)[codes]
    return mix(sums), np.logical_or.reduceat(full, rows.starts) if len(lengths) else np.empty(0, bool)


def hash_columns(columns: list[Any]) -> np.ndarray:
    """Return a hash of each row `[rows]` of Arrow arrays `[rows]`; columns of lists and the like do not count.

    Example:
        >>> import pyarrow
        >>> from gradatim.files.sampling import hash_columns
        >>> hashes = hash_columns([pyarrow.array([1.5, 2.5, 1.5]), pyarrow.array(["a", None, "a"])])
        >>> len(set(hashes.tolist()))
        2
    """
    total = np.zeros(len(columns[0]) if columns else 0, np.uint64)
    for position, column in enumerate(columns):
        codes = _codes(column)
        if codes is not None:
            total = total + mix(codes + mix(np.array([position], np.uint64)))
    return mix(total)


def _codes(column: Any) -> np.ndarray | None:
    """Return a code of each cell `[rows]`, or None for a type that has no order of its own."""
    a = arrow()
    types, dtype = a.types, column.type
    if types.is_integer(dtype) or types.is_floating(dtype) or types.is_decimal(dtype):
        values = column.cast("float64", safe=False)
    elif types.is_boolean(dtype):
        values = column.cast("int64").cast("float64")
    elif types.is_temporal(dtype) and not types.is_interval(dtype):
        width = "int32" if dtype.bit_width == 32 else "int64"
        values = column.cast(width).cast("float64", safe=False)
    elif types.is_null(dtype):
        return np.zeros(len(column), np.uint64)
    elif types.is_nested(dtype):
        return None
    else:
        coded = column if types.is_dictionary(dtype) else column.dictionary_encode()
        words = [str(word).encode("utf-8", "replace") for word in coded.dictionary.to_pylist()]
        table = np.array([zlib.crc32(word) | zlib.adler32(word) << 32 for word in words] + [0], np.uint64)
        places = coded.indices.cast("int64").fill_null(len(words))
        return table[places.to_numpy(zero_copy_only=False)]
    return values.to_numpy(zero_copy_only=False).astype(np.float64).view(np.uint64)
