"""How the cells of a column are read: as numbers, booleans, dates or text.

Source: Apache Arrow (types); ISO 8601 (dates).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

NUMBER, BOOLEAN, DATE, TEXT = "number", "boolean", "date", "text"

KIND_NAMES = {NUMBER: "numbers", BOOLEAN: "true or false", DATE: "dates", TEXT: "text"}
"""What a column of each kind holds, for messages."""


def arrow() -> Any:
    """Return the module pyarrow.

    Raises:
        ValueError: it is not installed.

    Example:
        >>> from gradatim.files.cells import arrow
        >>> arrow().__name__
        'pyarrow'
    """
    try:
        import pyarrow
    except ImportError as error:
        raise ValueError('reading tables needs pyarrow: pip install "gradatim[data]"') from error
    return pyarrow


def kernels() -> Any:
    """Return the module pyarrow.compute.

    Example:
        >>> from gradatim.files.cells import kernels
        >>> kernels().sum([1, 2]).as_py()
        3
    """
    from pyarrow import compute

    return compute


def arrow_type(kind: str) -> Any:
    """Return the Arrow type of a column of a given kind.

    Example:
        >>> from gradatim.files.cells import arrow_type
        >>> arrow_type("number"), arrow_type("text")
        (DataType(double), DataType(string))
    """
    a = arrow()
    return {NUMBER: a.float64(), BOOLEAN: a.bool_(), DATE: a.timestamp("us"), TEXT: a.string()}[kind]


@dataclass(frozen=True)
class Cells:
    """How the cells of a column are read.

    Fields: `kind`: "number", "boolean", "date" or "text"; `decimal`: the decimal mark, "." or ","; `day_first`:
    whether 1/2/2024 is the first of February; `missing`: words that mean missing, besides the empty cell.

    Example:
        >>> from gradatim.files.cells import Cells
        >>> Cells.from_json(Cells("number", decimal=",").to_json())
        Cells(kind='number', decimal=',', day_first=False, missing=())
    """

    kind: str
    decimal: str = "."
    day_first: bool = False
    missing: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON."""
        return {**asdict(self), "missing": list(self.missing)}

    @classmethod
    def from_json(cls, value: Any) -> Cells:
        """Return the cells that `to_json` wrote.

        Raises:
            ValueError: a field is absent, unknown or of another type.
        """
        if not isinstance(value, Mapping) or set(value) != {"kind", "decimal", "day_first", "missing"}:
            raise ValueError(f"a column has kind, decimal, day_first and missing; got {value!r:.200}")
        words = value["missing"]
        if not (
            isinstance(value["kind"], str)
            and value["kind"] in KIND_NAMES
            and value["decimal"] in (".", ",")
            and isinstance(value["day_first"], bool)
            and isinstance(words, list)
            and all(isinstance(word, str) for word in words)
        ):
            raise ValueError(f"a column is of another form than gradatim writes: got {value!r:.200}")
        return cls(value["kind"], value["decimal"], value["day_first"], tuple(words))
