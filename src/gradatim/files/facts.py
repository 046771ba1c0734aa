"""What is counted of the cells of many columns at once, so that wide files take no longer than long ones.

Source: RE2 (patterns); Apache Arrow (kernels).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .cells import arrow, kernels
from .parsing import trim

EXACT = 2**53
"""Whole numbers beyond this are not exact as floating-point numbers."""

BATCH_CELLS = 1 << 20
"""About the number of cells that are looked at together."""

_PLAIN = r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$"
_LEGIBLE = r"[0-9]|^[+-]?(?i:true|false|inf|infinity)$"


@dataclass(frozen=True)
class Facts:
    """How many cells of each column are of some form.

    Fields, each `[columns]`: `present`: cells that are not empty; `plain`: finite numbers with a decimal point or none.

    Of the plain ones: `padded`: whole numbers that begin with a needless zero; `large`: those beyond 2^53; `dotted`:
    those with a point; `grouped`: those whose point may separate thousands.

    `likely` are words that mean missing, and `legible` other words that may be a number, a date, or true or false.
    """

    present: np.ndarray
    plain: np.ndarray
    padded: np.ndarray
    large: np.ndarray
    dotted: np.ndarray
    grouped: np.ndarray
    likely: np.ndarray
    legible: np.ndarray


def count_cells(columns: Sequence[Any], missing: Sequence[str]) -> Facts:
    """Return the facts of columns of words.

    Args:
        columns: Arrow arrays of strings `[rows]`.
        missing: words, in lower case, that mean missing.

    Example:
        >>> import pyarrow
        >>> from gradatim.files.facts import count_cells
        >>> facts = count_cells([pyarrow.array(["1.5", "07"]), pyarrow.array(["a", "NA"])], ["na"])
        >>> facts.plain.tolist(), facts.padded.tolist(), facts.likely.tolist()
        ([2, 0], [1, 0], [0, 1])
    """
    rows = len(columns[0]) if columns else 0
    step = max(1, BATCH_CELLS // max(rows, 1))
    parts = [_count(columns[start : start + step], rows, missing) for start in range(0, len(columns), step)]
    return Facts(*(np.concatenate(counts) for counts in zip(*parts, strict=True)))


def _count(columns: Sequence[Any], rows: int, missing: Sequence[str]) -> list[np.ndarray]:
    """Return the facts of some columns, in the order of the fields."""
    a, compute = arrow(), kernels()
    words = trim(a.concat_arrays(columns))

    def flags(array: Any) -> np.ndarray:
        return compute.fill_null(array, False).to_numpy(zero_copy_only=False)

    present = flags(words.is_valid())
    try:
        values = words.cast("float64")
    except a.ArrowInvalid:
        is_plain = compute.match_substring_regex(words, _PLAIN)
        values = compute.if_else(is_plain, words, a.scalar(None, words.type)).cast("float64")
    plain = flags(compute.is_finite(values))
    large = flags(compute.greater_equal(compute.abs(values), float(EXACT)))
    padded = flags(compute.match_substring_regex(words, "^[+-]?0[0-9]")) & plain
    dotted = flags(compute.match_substring(words, ".")) & plain
    grouped = dotted.copy()
    places = a.array(np.flatnonzero(dotted))
    pattern = r"^[+-]?[1-9][0-9]{0,2}(?:\.[0-9]{3})+$"
    grouped[dotted] = flags(compute.match_substring_regex(words.take(places), pattern))
    likely, legible = np.zeros(len(plain), bool), np.zeros(len(plain), bool)
    others = present & ~plain
    words = words.take(a.array(np.flatnonzero(others)))
    likely[others] = flags(compute.is_in(compute.utf8_lower(words), value_set=a.array(missing, words.type)))
    legible[others] = flags(compute.match_substring_regex(words, _LEGIBLE))
    legible &= ~likely
    fields = (present, plain, padded & ~dotted, large, dotted, grouped, likely, legible)
    return [field.reshape(len(columns), rows).sum(1) for field in fields]
