"""Words to numbers, booleans and dates, whole columns at a time; what is none of them becomes a missing cell.

Source: Apache Arrow (kernels); ISO 8601 (dates); RE2 (patterns).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .cells import BOOLEAN, NUMBER, TEXT, arrow, kernels

if TYPE_CHECKING:
    from .cells import Cells

_SIGNS = r"\$€£¥₹₽₩₺₪₫₴₦฿¢%‰"
_CODES = (
    "US\\$|A\\$|C\\$|R\\$|HK\\$|NZ\\$|USD|EUR|GBP|JPY|CHF|CNY|RMB|INR|AUD|CAD|NZD|SEK|NOK|DKK|ISK|PLN|CZK|HUF|RON|BGN|RUB|"
    "UAH|TRY|ILS|AED|SAR|QAR|EGP|ZAR|NGN|KES|BRL|MXN|ARS|CLP|COP|PEN|KRW|SGD|HKD|TWD|THB|IDR|MYR|PHP|VND|PKR|BDT|"
    "Fr\\.|kr\\.?|zł|Kč|Ft|lei|Rs\\.?"
)
_UNIT = rf"(?:[{_SIGNS}]|{_CODES})"
_BLANKS = "\u00a0\u202f\u2009"
_EXPONENT = r"(?:[eE][+-]?[0-9]+)?"

_ZONE = r"(?P<zone>Z|z|UTC|GMT|[+-][0-9]{2}(?::?[0-9]{2})?)?"
_CLOCK = (
    r"(?:(?:[Tt]|,? +)(?P<hour>[0-9]{1,2})"
    r"(?::?(?P<minute>[0-9]{2})(?::?(?P<second>[0-9]{2})(?:[.,](?P<part>[0-9]+))?)?)?"
    rf" *(?P<half>[AaPp]\.?[Mm]\.?)? *{_ZONE})?$"
)
_YEAR_FIRST = r"^(?P<year>[0-9]{4})[-/.](?P<month>[0-9]{1,2})[-/.](?P<day>[0-9]{1,2})" + _CLOCK
_DOTTED = r"^(?P<day>[0-9]{1,2})\.(?P<month>[0-9]{1,2})\.(?P<year>[0-9]{4})" + _CLOCK
_SLASHED = r"^(?P<first>[0-9]{1,2})/(?P<second_>[0-9]{1,2})/(?P<year>[0-9]{4}|[0-9]{2})" + _CLOCK
_DASHED = r"^(?P<first>[0-9]{1,2})-(?P<second_>[0-9]{1,2})-(?P<year>[0-9]{4})" + _CLOCK
_DOTTED_SHORT = r"^(?P<day>[0-9]{1,2})\.(?P<month>[0-9]{2})\.(?P<year>[0-9]{2})" + _CLOCK

_BASIC = r"^([0-9]{4})([0-9]{2})([0-9]{2})([Tt][0-9]{2})"
_MONTH = r"^(1[5-9][0-9]{2}|2[01][0-9]{2})-(0[1-9]|1[0-2])$"

_MONTHS = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)

LAST_MICROSECOND = 253402300799999999
"""The end of the year 9999, in microseconds since 1970."""

FIRST_MICROSECOND = -62135596800000000
"""The start of the year 1, in microseconds since 1970."""


def parse(words: Any, cells: Cells) -> Any:
    """Return a column of text as its cells are read; a word that cannot be read so becomes null.

    Blanks around a word are no part of it.

    Args:
        words: an Arrow array of strings `[rows]`.
        cells: how they are read.

    Returns:
        An Arrow array `[rows]` of the type of these cells.

    Example:
        >>> import pyarrow
        >>> from gradatim.files.cells import Cells
        >>> from gradatim.files.parsing import parse
        >>> parse(pyarrow.array(["1.234,5", "12 €", "red"]), Cells("number", decimal=",")).to_pylist()
        [1234.5, 12.0, None]
    """
    words = trim(words)
    if cells.missing and cells.kind != NUMBER:
        words = without(words, cells.missing)
    if cells.kind == TEXT:
        return words
    if cells.kind == NUMBER:
        return without_numbers(_numbers(without(words, cells.missing), cells.decimal), cells.missing)
    return _booleans(words) if cells.kind == BOOLEAN else _dates(words, cells.day_first)


def trim(words: Any) -> Any:
    """Return words without the blanks around them; nothing but blanks is null.

    Example:
        >>> import pyarrow
        >>> from gradatim.files.parsing import trim
        >>> trim(pyarrow.array(["yes ", "  "])).to_pylist()
        ['yes', None]
    """
    compute = kernels()
    words = compute.utf8_trim_whitespace(words)
    return compute.if_else(compute.equal(words, ""), arrow().scalar(None, words.type), words)


def without(words: Any, missing: tuple[str, ...]) -> Any:
    """Return words, with null in place of those in `missing`.

    Example:
        >>> import pyarrow
        >>> from gradatim.files.parsing import without
        >>> without(pyarrow.array(["a", "?"]), ("?",)).to_pylist()
        ['a', None]
    """
    if not missing:
        return words
    compute = kernels()
    is_missing = compute.is_in(words, value_set=arrow().array(missing, words.type))
    return compute.if_else(is_missing, arrow().scalar(None, words.type), words)


def without_numbers(values: Any, missing: tuple[str, ...]) -> Any:
    """Return numbers, with null in place of infinity, NaN and those that `missing` spells, such as "-999".

    Example:
        >>> import pyarrow
        >>> from gradatim.files.parsing import without_numbers
        >>> without_numbers(pyarrow.array([1.0, -999.0, float("inf")]), ("-999",)).to_pylist()
        [1.0, None, None]
    """
    compute = kernels()
    present = compute.is_finite(values)
    if missing:
        codes = _numbers(arrow().array(missing, "string"), ".").drop_null()
        present = compute.and_(present, compute.invert(compute.is_in(values, value_set=codes)))
    if compute.all(present).as_py():
        return values
    return compute.if_else(present, values, arrow().scalar(None, values.type))


def _numbers(words: Any, decimal: str) -> Any:
    """Return words as numbers `[rows]`; first as plain ones, then the others with units, thousands and brackets."""
    compute = kernels()
    a = arrow()
    if decimal == ".":
        try:
            return words.cast("float64")
        except a.ArrowInvalid:
            pass
    mark = r"\." if decimal == "." else ","
    plain = rf"^[+-]?(?:[0-9]+(?:{mark}[0-9]*)?|{mark}[0-9]+){_EXPONENT}$"
    is_plain = compute.match_substring_regex(words, plain)
    values = _cast(compute.if_else(is_plain, words, a.scalar(None, words.type)), decimal)
    others = compute.invert(compute.fill_null(is_plain, True))
    if compute.any(others).as_py():
        values = compute.replace_with_mask(values, others, _decorated(words.filter(others), decimal))
    return values


def _cast(words: Any, decimal: str) -> Any:
    compute = kernels()
    return (words if decimal == "." else compute.replace_substring(words, ",", ".")).cast("float64")


def _decorated(words: Any, decimal: str) -> Any:
    """Return numbers that carry units, separators of thousands or brackets."""
    compute = kernels()
    a = arrow()
    words = compute.replace_substring_regex(words, pattern="^(?i:true)$", replacement="1")
    words = compute.replace_substring_regex(words, pattern="^(?i:false)$", replacement="0")
    words = compute.replace_substring_regex(words, pattern="[−–]([0-9.,])", replacement=r"-\1")
    words = compute.replace_substring_regex(words, pattern=f"[{_BLANKS}]", replacement=" ")
    words = compute.replace_substring_regex(
        words, pattern=rf"^\( *({_UNIT}? *[0-9][^()+-]*)\)$", replacement=r"-\1"
    )
    words = compute.replace_substring_regex(
        words, pattern=rf"^([+-]?) *{_UNIT} *([+-]?) *([0-9.,])", replacement=r"\1\2\3"
    )
    words = compute.replace_substring_regex(words, pattern=rf"([0-9.,]) *{_UNIT}$", replacement=r"\1")
    mark, dot = (r"\.", ",") if decimal == "." else (",", r"\.")
    groups = "|".join(
        rf"[1-9][0-9]{{0,2}}(?:{separator}[0-9]{{2,3}})*{separator}[0-9]{{3}}"
        if separator == dot
        else rf"[1-9][0-9]{{0,2}}(?:{separator}[0-9]{{3}})+"
        for separator in (dot, " ", "'", "’")
    )
    pattern = rf"^[+-]? *(?:(?:{groups}|[0-9]+)(?:{mark}[0-9]*)?|{mark}[0-9]+){_EXPONENT}$"
    is_number = compute.match_substring_regex(words, pattern)
    words = compute.if_else(is_number, words, a.scalar(None, words.type))
    return _cast(compute.replace_substring_regex(words, pattern=f"[ '’{dot}]", replacement=""), decimal)


def _booleans(words: Any) -> Any:
    """Return words as booleans `[rows]`: true and false in any case, 1 and 0."""
    compute = kernels()
    a = arrow()
    lower = compute.utf8_lower(words)
    is_true = compute.is_in(lower, value_set=a.array(["true", "1", "1.0"], words.type))
    is_known = compute.or_(
        is_true, compute.is_in(lower, value_set=a.array(["false", "0", "0.0"], words.type))
    )
    return compute.if_else(is_known, is_true, a.scalar(None, a.bool_()))


def _dates(words: Any, day_first: bool) -> Any:
    """Return words as moments `[rows]` in UTC; a word that names no zone is in UTC, and a month is its first day."""
    compute = kernels()
    a = arrow()
    for dtype in (a.timestamp("us"), a.timestamp("us", "UTC")):
        try:
            return within_years(naive(words.cast(dtype)))
        except a.ArrowInvalid:
            continue
    words = _with_numbered_months(words)
    for pattern, dashed in ((_BASIC, r"\1-\2-\3\4"), (_MONTH, r"\1-\2-01")):
        words = compute.replace_substring_regex(words, pattern=pattern, replacement=dashed)
    values = a.nulls(len(words), a.timestamp("us"))
    for pattern in (_YEAR_FIRST, _DOTTED, _SLASHED, _DASHED, _DOTTED_SHORT):
        matches = compute.fill_null(compute.match_substring_regex(words, pattern), False)
        if compute.any(matches).as_py():
            values = compute.replace_with_mask(
                values, matches, _moments(words.filter(matches), pattern, day_first)
            )
    return values


def _with_numbered_months(words: Any) -> Any:
    """Return words in which 5-Jan-2024, 5 January 2024 and Jan 5, 2024 are 5.1.2024."""
    compute = kernels()
    for number, month in enumerate(_MONTHS, start=1):
        name = rf"(?i:{month[:3]}(?:{month[3:]})?|{'sept' if month == 'september' else month[:3]})\.?"
        if not compute.any(compute.match_substring(words, month[:3], ignore_case=True)).as_py():
            continue
        for pattern, dotted in (
            (
                rf"^([0-9]{{1,2}})(?:st|nd|rd|th)?[- /.]*{name}[- /.,]*([0-9]{{4}}|[0-9]{{2}})($|[ ,T])",
                rf"\1.{number:02d}.\2\3",
            ),
            (rf"^{name} *([0-9]{{1,2}})(?:st|nd|rd|th)?[, ]+([0-9]{{4}})($|[ ,])", rf"\1.{number:02d}.\2\3"),
            (rf"^([0-9]{{4}})[- ]{name}[- ]([0-9]{{1,2}})($|[ ,T])", rf"\2.{number:02d}.\1\3"),
        ):
            words = compute.replace_substring_regex(words, pattern=pattern, replacement=dotted)
    return words


def are_months(words: Any) -> Any:
    """Return which words are a year and a month, such as 2024-01, an Arrow array of bool `[rows]`.

    Example:
        >>> import pyarrow
        >>> from gradatim.files.parsing import are_months
        >>> are_months(pyarrow.array(["2024-01", "2024-13", "2024-01-05"])).to_pylist()
        [True, False, False]
    """
    return kernels().match_substring_regex(words, _MONTH)


def within_years(moments: Any) -> Any:
    """Return moments, in microseconds, with null in place of those outside the years 1 to 9999.

    Example:
        >>> import pyarrow
        >>> from gradatim.files.parsing import LAST_MICROSECOND, within_years
        >>> moments = pyarrow.array([0, LAST_MICROSECOND + 1]).cast(pyarrow.timestamp("us"))
        >>> within_years(moments).null_count
        1
    """
    compute = kernels()
    ticks = moments.cast("int64")
    ends = compute.min_max(ticks).as_py()
    if ends["min"] is None or FIRST_MICROSECOND <= ends["min"] <= ends["max"] <= LAST_MICROSECOND:
        return moments
    low, high = compute.greater_equal(ticks, FIRST_MICROSECOND), compute.less_equal(ticks, LAST_MICROSECOND)
    return compute.if_else(compute.and_(low, high), moments, arrow().scalar(None, moments.type))


def naive(moments: Any) -> Any:
    """Return moments as microseconds in UTC, without a zone.

    Example:
        >>> import pyarrow
        >>> from gradatim.files.parsing import naive
        >>> naive(pyarrow.array([0], pyarrow.timestamp("us", "UTC"))).type
        TimestampType(timestamp[us])
    """
    a = arrow()
    return moments.cast(a.timestamp("us", moments.type.tz)).cast("int64").cast(a.timestamp("us"))


def _moments(words: Any, pattern: str, day_first: bool) -> Any:
    """Return words that match a pattern as moments; those that no calendar has are null."""
    compute = kernels()
    a = arrow()
    fields = compute.extract_regex(words, pattern=pattern)
    fields = dict(zip([f.name for f in fields.type], fields.flatten(), strict=True))
    if "first" in fields:
        day, month = ("first", "second_") if day_first else ("second_", "first")
        fields |= {"day": fields[day], "month": fields[month]}

    def number(name: str) -> np.ndarray:
        text = compute.if_else(compute.equal(fields[name], ""), "0", fields[name])
        return text.cast("int64").to_numpy(zero_copy_only=False)

    year, month, day, hour, minute, second = map(number, ("year", "month", "day", "hour", "minute", "second"))
    year = np.where(
        compute.utf8_length(fields["year"]).to_numpy() == 2, year + np.where(year < 69, 2000, 1900), year
    )
    micro = (
        compute.utf8_slice_codeunits(compute.utf8_rpad(fields["part"], 6, "0"), 0, 6).cast("int64").to_numpy()
    )
    half = compute.utf8_lower(compute.utf8_slice_codeunits(fields["half"], 0, 1)).to_numpy(
        zero_copy_only=False
    )
    valid = (half == "") | ((hour >= 1) & (hour <= 12))
    hour = np.where(half == "", hour, hour % 12 + 12 * (half == "p"))
    valid &= (year >= 1) & (month >= 1) & (month <= 12) & (hour <= 23) & (minute <= 59) & (second <= 59)
    months = np.where(valid, 12 * (year - 1970) + month - 1, 0)
    first, after = (
        m.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64) for m in (months, months + 1)
    )
    valid &= (day >= 1) & (day <= after - first)
    west = compute.starts_with(fields["zone"], "-").to_numpy(zero_copy_only=False)
    digits = compute.replace_substring_regex(fields["zone"], pattern="[^0-9]", replacement="")
    shift = compute.utf8_rpad(digits, 4, "0").cast("int64").to_numpy()  # hours and minutes: 130 is 1:30
    minutes = np.where(west, -1, 1) * (shift // 100 * 60 + shift % 100)
    total = (
        ((first + day - 1) * 1440 + hour * 60 + minute - minutes) * 60_000_000 + second * 1_000_000 + micro
    )
    valid &= (total >= FIRST_MICROSECOND) & (total <= LAST_MICROSECOND)
    return a.array(total, mask=~valid).cast(a.timestamp("us"))
