"""Warn of columns that have left the range that their encoder was fitted to.

Source: Gama et al. 2014, section 2 (a change of the inputs' distribution).
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .columns import Columns
    from .encoder import Encoder

SHARE = 0.2
"""The share of rows out of range at which a column is warned of."""

ROWS = 16
"""Fewer rows at once than these are never warned of."""


class DriftWarning(UserWarning):
    """Rows lie outside the range that the map of their columns was made for."""


class UnitWarning(UserWarning):
    """Columns came in another unit, or moved, and are read by it from then on."""


def warn_of_units(named: list[str]) -> None:
    """Warn of columns, each with how it moved, that are read in another unit from here on."""
    more = f", ... ({len(named)} in all)" if len(named) > 8 else ""
    warnings.warn(
        f"columns came in another unit and are read by it from here on: {', '.join(named[:8])}{more}",
        UnitWarning,
        stacklevel=8,
    )


def warn_of_drift(encoder: Encoder, columns: Columns, warned: frozenset[str]) -> frozenset[str]:
    """Warn once of columns that have left their range; return their names, with those `warned` of before."""
    shares = encoder.out_of_range(columns) if columns.n_rows >= ROWS else {}
    names = [name for name, share in shares.items() if share > SHARE and name not in warned]
    if names:
        named = ", ".join(f"{name!r} ({shares[name]:.0%} of these rows)" for name in names[:8])
        warnings.warn(
            f"columns have left the range that their map was made for, {len(names)} in all: {named}; answers there "
            "are extrapolated. Call remap(X, y) to take the map from rows like these",
            DriftWarning,
            stacklevel=4,
        )
    return warned.union(names)
