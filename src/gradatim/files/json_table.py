"""Tables in JSON: one object a line, or one array of objects. Their cells come as words.

Source: RFC 8259 (JSON); jsonlines.org (one object a line).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .cells import arrow
from .sampling import hash_lines
from .text import Rows, split_rows
from .text_table import TextTable

if TYPE_CHECKING:
    import numpy as np

    from .containers import Container
    from .options import ReadOptions
    from .sampling import Sampler

JSON_BYTES = 1 << 28
"""Most bytes of a JSON file that is one array, since it is read whole."""


class JsonTable(TextTable):
    """A file with one JSON object a line, or one array of objects. A key that an object lacks is a missing cell.

    Attributes: `counts`: of each name that an object has, how many more strings than other values it has; `is_open`:
    whether names may still come, since only the first rows of a stream have been read.
    """

    leaves_out = True

    def __init__(self, container: Container, options: ReadOptions, block_bytes: int) -> None:
        self.counts: Counter[str] = Counter()
        self.is_open = False
        super().__init__(container, options, block_bytes)

    @property
    def quoted(self) -> set[str]:
        """The columns whose values are mostly strings."""
        return {name for name, count in self.counts.items() if count > 0}

    def _layout(self, data: bytes, final: bool) -> bool:
        if data.lstrip().startswith(b"["):
            if not final:
                if len(data) > JSON_BYTES:
                    raise ValueError(
                        f"{self.label} is one long JSON array: write it with one object a line (.jsonl)"
                    )
                return False
            data = b"".join(json.dumps(item).encode() + b"\n" for item in self._array(data))
            self._head = [(data, True, 1.0)]
        rows, tail = split_rows(data, None, final)
        item: dict[str, Any] = {}
        self.counts.clear()
        for number in range(len(rows.starts)):
            item = self._object(rows, number)
            self._count(item)
        if tail.lstrip().startswith(b"{") and not len(rows.starts) and not final:
            return False
        if (
            len(rows.starts) == 1
            and final
            and item
            and all(isinstance(v, dict | list) for v in item.values())
        ):
            raise ValueError(
                f"{self.label} holds one object of columns: write one object a line (pandas: to_json(..., "
                "orient='records', lines=True))"
            )
        self.is_open = not (final or self.rereadable)
        self.names = list(
            dict.fromkeys([*self.counts, *((self._options.columns or ()) if self.is_open else ())])
        )
        return len(rows.starts) > 0

    def _count(self, item: Mapping[str, Any]) -> None:
        for name, value in item.items():
            self.counts[name] += 0 if value is None else 1 if isinstance(value, str) else -1

    def _array(self, data: bytes) -> list[Any]:
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{self.label} is not JSON ({error}): write it again") from error

    def _object(self, rows: Rows, number: int) -> dict[str, Any]:
        """Return one row: numbers as they are spelt, in a class that tells them from strings."""
        line = rows.row(number)
        if not self._is_row(line):
            return {}
        try:
            value = json.loads(line, parse_float=_Spelt, parse_int=_Spelt, parse_constant=_Spelt)
        except (ValueError, RecursionError) as error:
            where = rows.lines([number])[0]
            raise ValueError(
                f"{self.label}, line {where:,}: not JSON ({error}): write one object a line, or one array of objects"
            ) from error
        if b"\\u" in line and not _is_text(value):
            where = rows.lines([number])[0]
            raise ValueError(
                f"{self.label}, line {where:,}: it holds half a character (\\ud800 or the like): correct it"
            )
        if not isinstance(value, dict):
            where = rows.lines([number])[0]
            raise ValueError(
                f'{self.label}, line {where:,}: expected an object such as {{"x": 1}}, got '
                f"{line[:50].decode(errors='replace')}"
            )
        return value

    def hash_rows(self, sampler: Sampler) -> None:
        """Show all rows to a sampler, and learn the names that come later."""
        for rows in self._counted_rows():
            hashes, present = hash_lines(rows, self._blanks)
            sampler.add(hashes, len(rows.data), present)

    def read_names(self) -> None:
        """Learn the names that come later, unless the file is in memory, or read once."""
        if self._pieces is None:
            for _ in self._counted_rows():
                pass

    def _counted_rows(self) -> Iterator[Rows]:
        self.counts.clear()
        for rows in self.rows():
            for number in range(len(rows.starts)):
                self._count(self._object(rows, number))
            yield rows
        self.names = list(self.counts)

    def parse(
        self,
        rows: Rows,
        names: Sequence[str],
        plain: Mapping[str, Any],
        decimal: str,
        lines: np.ndarray | None = None,
    ) -> dict[str, Any]:
        """Return columns of words `[rows]`."""
        objects = [self._object(rows, number) for number in range(len(rows.starts))]
        for item in objects if self.is_open else ():
            self._count(item)
        objects = [item for number, item in enumerate(objects) if item or self._is_row(rows.row(number))]
        return {name: arrow().array([_word(item.get(name)) for item in objects], "string") for name in names}


class _Spelt:
    """A number of a JSON file, as it is spelt."""

    def __init__(self, text: str) -> None:
        self.text = text


def _is_text(value: Any) -> bool:
    """Return whether a value holds no half of a character."""
    try:
        json.dumps(value, ensure_ascii=False, default=lambda number: number.text).encode()
    except UnicodeEncodeError:
        return False
    return True


def _word(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, _Spelt):
        return value.text
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, default=lambda number: number.text)
