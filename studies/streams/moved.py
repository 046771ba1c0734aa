"""What moves in the columns of a stationary table: words, units, places, and which columns there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from studies.tables.data import Table

KINDS = ("words", "units-up", "units-down", "shift", "appears", "vanishes")
COUNTED = KINDS[:4]
"""What `streams.moved_columns` is about. Columns that appear or vanish stand beside it."""

UNIT, DEVIATIONS = 1000.0, 2.0


def move(
    table: Table, kind: str, change: int, rng: np.random.Generator
) -> tuple[np.ndarray, tuple[int, int, int] | None]:
    """Return the rows `[n, d]` with something moved from row `change` on, and which column lacks where.

    - words: the column of categories that says most about the target gets new words.
    - units-up, units-down: half the numbers are multiplied or divided by 1,000.
    - shift: half the numbers move by two deviations of the rows before.
    - appears, vanishes: a column, drawn at random, is there from the change on, or until then.

    Raises:
        ValueError: nothing is called so.
    """
    x, rows = table.x.copy(), len(table.x)
    numbers = [j for j in range(x.shape[1]) if j not in table.categorical][::2]
    if kind == "words":
        column = telling(table, change)
        x[change:, column] += np.nanmax(x[:, column]) + 1
    elif kind == "units-up":
        x[change:, numbers] *= UNIT
    elif kind == "units-down":
        x[change:, numbers] /= UNIT
    elif kind == "shift":
        x[change:, numbers] += DEVIATIONS * np.nanstd(x[:change, numbers], axis=0)
    elif kind in ("appears", "vanishes"):
        column = int(rng.integers(x.shape[1]))
        absent = (column, 0, change) if kind == "appears" else (column, change, rows)
        x[absent[1] : absent[2], column] = np.nan
        return x, absent
    else:
        raise ValueError(f"nothing that moves is called {kind!r}: there are {', '.join(KINDS)}")
    return x, None


def telling(table: Table, rows: int) -> int:
    """Return the column of categories with the most mutual information with the class, over the first rows."""
    from sklearn.metrics import mutual_info_score

    scores = {
        c: mutual_info_score(np.nan_to_num(table.x[:rows, c], nan=-1), table.y[:rows])
        for c in table.categorical
    }
    return max(scores, key=lambda c: scores[c])
