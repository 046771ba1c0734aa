"""What the header of a file may hold: strict JSON, whose entries have types and ranges.

Source: RFC 8259 (JSON).
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MAX_DIGITS = 400
_MISFIT = "its numbers and entries do not belong together"
_FAULTS = (
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RuntimeError,
    MemoryError,
)


@dataclass(frozen=True)
class Entry:
    """What one entry of a JSON object must be.

    Fields: `what`: in words, for messages; `fits`: whether a value is that; `required`: whether it must be there.

    Example:
        >>> from gradatim.files.contract import whole
        >>> size = whole(1, 64)
        >>> size.what, size.fits(12), size.fits(65), size.fits(True), size.fits(2.0)
        ('a whole number from 1 to 64', True, False, False, False)
    """

    what: str
    fits: Callable[[Any], bool]
    required: bool = True

    def optional(self) -> Entry:
        """Return the same entry, which may be absent."""
        return Entry(self.what, self.fits, required=False)

    def or_none(self) -> Entry:
        """Return an entry that may be null instead."""
        return Entry(f"{self.what}, or null", lambda value: value is None or self.fits(value), self.required)


def whole(low: int, high: int) -> Entry:
    """Return the entry of a whole number within bounds."""
    return Entry(
        f"a whole number from {low:,} to {high:,}",
        lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high,
    )


def number(low: float = -math.inf, above: float = -math.inf) -> Entry:
    """Return the entry of a finite number, at least `low` and greater than `above`.

    Example:
        >>> from gradatim.files.contract import number
        >>> [number(above=0).fits(value) for value in (1e-9, 0, float("inf"), "1")]
        [True, False, False, False]
    """
    bound = f" above {above:g}" if above > -math.inf else f" of at least {low:g}" if low > -math.inf else ""
    return Entry(
        f"a finite number{bound}", lambda value: _is_finite(value) and value >= low and value > above
    )


def text(pattern: str = r"[\s\S]*", what: str = "text") -> Entry:
    """Return the entry of a text that matches a pattern from end to end."""
    return Entry(what, lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None)


def choice(*values: str) -> Entry:
    """Return the entry of one of some words."""
    return Entry(f"one of {', '.join(values)}", lambda value: isinstance(value, str) and value in values)


def truth() -> Entry:
    """Return the entry of a truth value."""
    return Entry("true or false", lambda value: isinstance(value, bool))


def list_of(entry: Entry, unique: bool = False) -> Entry:
    """Return the entry of a list whose items are all alike.

    Example:
        >>> from gradatim.files.contract import list_of, text
        >>> list_of(text(), unique=True).fits(["a", "a"]), list_of(text()).fits([])
        (False, True)
    """

    def fits(value: Any) -> bool:
        is_list = isinstance(value, list) and all(map(entry.fits, value))
        return is_list and (not unique or len(set(value)) == len(value))

    return Entry(f"a list, each item {entry.what}{', all different' if unique else ''}", fits)


def mapping(value: Entry | None = None) -> Entry:
    """Return the entry of an object, whose values are all alike if `value` is given."""
    what = "an object" if value is None else f"an object, each value {value.what}"
    return Entry(
        what,
        lambda entry: isinstance(entry, dict) and (value is None or all(map(value.fits, entry.values()))),
    )


def check_entries(value: Any, entries: Mapping[str, Entry], where: str, further: bool = False) -> None:
    """Check the entries of a JSON object; with `further` it may have more of them.

    Raises:
        ValueError: an entry is missing, unknown or of another type or range. The message names it.

    Example:
        >>> from gradatim.files.contract import check_entries, whole
        >>> check_entries({"rows": -5}, {"rows": whole(0, 10)}, "header")
        Traceback (most recent call last):
        ValueError: header.rows must be a whole number from 0 to 10; got -5
    """
    if not isinstance(value, dict):
        raise ValueError(f"{where} must be an object; got {brief(value)}")
    for name, entry in entries.items():
        if name not in value:
            if entry.required:
                raise ValueError(f"{where}.{name} is missing; it must be {entry.what}")
        elif not entry.fits(value[name]):
            raise ValueError(f"{where}.{name} must be {entry.what}; got {brief(value[name])}")
    if not further and (unknown := sorted(value.keys() - entries.keys())):
        raise ValueError(f"{where} has the unknown entry {brief(unknown[0])}")


def brief(value: Any) -> str:
    """Return a value for a message: on one line, and short.

    Example:
        >>> from gradatim.files.contract import brief
        >>> brief("a" * 100)
        "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa..."
    """
    excerpt = ascii(value[:20] if isinstance(value, list | str) and len(value) > 200 else value)
    return excerpt if len(excerpt) <= 60 else f"{excerpt[:60]}..."


def parse_json(content: bytes | str) -> Any:
    """Return the value of a JSON text in UTF-8.

    Raises:
        ValueError: it is no JSON, names an entry twice, or holds NaN, infinity, half a character or too deep a nest.

    Example:
        >>> from gradatim.files.contract import parse_json
        >>> parse_json('{"rows": 1, "rows": 2}')
        Traceback (most recent call last):
        ValueError: the entry 'rows' stands twice
    """
    try:
        content = content if isinstance(content, str) else content.decode("utf-8")
        value = json.loads(
            content,
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_float=_parse_float,
            parse_int=_parse_int,
        )
        if "\\u" in content:
            json.dumps(value, ensure_ascii=False).encode()  # half of a character, such as \\ud800, is no text
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeEncodeError:
        raise ValueError("it holds half a character") from None
    except UnicodeDecodeError:
        raise ValueError("it is not in UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON: {error}") from None
    return value


@contextmanager
def blamed(path: Path | str, verb: str = "contradicts itself") -> Iterator[None]:
    """Turn what goes wrong with the contents of a file into one sentence that names the file.

    `verb`: what the file does, in that sentence.

    Raises:
        ValueError: anything was raised inside.

    Example:
        >>> from gradatim.files.contract import blamed
        >>> with blamed("task.safetensors"):
        ...     raise ValueError("rows must not be negative; got -5")
        Traceback (most recent call last):
        ValueError: task.safetensors contradicts itself: rows must not be negative; got -5: take an earlier copy, ...
    """
    try:
        yield
    except _FAULTS as error:
        # only a ValueError of ours is a sentence: a library's words say nothing of the file
        is_sentence = type(error) is ValueError and str(error)
        reason = " ".join(str(error).split())[:400] if is_sentence else _MISFIT
        advice = ": take an earlier copy, or write it again" if verb == "contradicts itself" else ""
        raise ValueError(f"{path} {verb}: {reason}{advice}") from error


def _is_finite(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= 1.7976931348623157e308


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        name, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"the entry {brief(name)} stands twice")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"it holds {name}, which JSON has not")


def _parse_float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"it holds the number {brief(digits)}, which is not finite")
    return value


def _parse_int(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"it holds a number of {len(digits):,} digits")
    return int(digits)
