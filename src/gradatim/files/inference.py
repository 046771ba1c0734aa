"""What the columns of a file hold: the same rules for each column, applied to rows of the whole file.

Source: RFC 4180 (CSV, which has no types).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..names import as_item
from .cells import BOOLEAN, DATE, NUMBER, TEXT, Cells, arrow, kernels
from .facts import EXACT, Facts, count_cells
from .parsing import are_months, parse, trim, without

if TYPE_CHECKING:
    from .options import ReadOptions

ODD_CELLS, ODD_WORDS, ODD_CELLS_OF_WORDS = 0.2, 0.2, 0.05
"""A column is text if more than 20% of its cells cannot be read, or 20% of its different words and 5% of its cells."""

PLAIN_MISSING = (
    *("na", "n/a", "n.a.", "nan", "-nan", "null", "none", "nil", "#n/a", "#na", "<na>", "nat", "\\n"),
    *("1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan"),
)
"""Words that mean missing in a column of numbers, dates, or true and false, in any case."""

LIKELY_MISSING = (
    *(
        "-",
        "--",
        "---",
        "–",
        "—",
        ".",
        "..",
        "...",
        "?",
        "??",
        "*",
        "missing",
        "unknown",
        "undefined",
        "empty",
    ),
    *(
        "not available",
        "not applicable",
        "n/d",
        "n.d.",
        "#div/0!",
        "#value!",
        "#ref!",
        "#name?",
        "#num!",
        "#null!",
    ),
    "#error!",
)
"""More such words, which a note names."""

MOST_NOTES = 10
"""Most notes on the columns of a file."""

PADDED_CELLS = 0.01
"""A column of whole numbers is text if this share of its cells begins with a zero that counts nothing."""


_MONTH = (
    "(?i:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|"
    "nov(?:ember)?|dec(?:ember)?)"
)
_WEEKDAY = "(?i:mon(?:day)?|tue(?:s(?:day)?)?|wed(?:nesday)?|thu(?:rs?(?:day)?)?|fri(?:day)?|sat(?:urday)?|sun(?:day)?)"
_YEAR = "(?:1[5-9]|2[01])[0-9]{2}"
_FORMS = (
    rf"{_YEAR}-?W(?:0[1-9]|[1-4][0-9]|5[0-3])(?:-?[1-7])?",
    rf"{_YEAR}[- /]?Q[1-4]|Q[1-4][- /]?{_YEAR}",
    rf"{_YEAR}-(?:00[1-9]|0[1-9][0-9]|[12][0-9]{{2}}|3[0-5][0-9]|36[0-6])",
    rf"{_YEAR}/(?:0?[1-9]|1[0-2])|(?:0?[1-9]|1[0-2])/{_YEAR}",
    rf"{_MONTH}[-./, ]+{_YEAR}|{_YEAR}[-./, ]+{_MONTH}",
    rf"{_WEEKDAY},? (?:[0-9]{{1,2}}[a-z]*[. ]+)?(?:of )?{_MONTH}\b.*{_YEAR}.*",
    rf"{_WEEKDAY},? (?:[0-9]{{1,2}}[-./][0-9]{{1,2}}[-./]{_YEAR}|{_YEAR}[-./][0-9]{{1,2}}[-./][0-9]{{1,2}})\b.*",
    rf"{_YEAR}-[0-9]{{2}}-[0-9]{{2}}[Tt ].*|{_YEAR}[01][0-9][0-3][0-9][ _][0-9]{{4,6}}",
    r"[0-2]?[0-9]:[0-5][0-9](:[0-5][0-9]([.,][0-9]+)?)?( ?[AaPp]\.?[Mm]\.?)?",
)
_LIKE_DATES = f"^(?:{'|'.join(_FORMS)})$"
"""Words that are dates or times, of forms that are not read."""


@dataclass
class _Guess:
    """What a column is taken for from its own words; `open` names what they leave undecided."""

    cells: Cells | None
    open: str = ""
    notes: list[str] = field(default_factory=list)
    decimal: str = ""  # the decimal mark that the words prove


def infer(
    columns: Mapping[str, Any], options: ReadOptions, places: Callable[[int], str], delimiter: str = ","
) -> tuple[dict[str, Cells | None], list[str]]:
    """Return how each column of words is read, None where it holds nothing, and notes for the user.

    Args:
        columns: an Arrow array of strings `[rows]` by name.
        options: what the user says of the file.
        places: returns where row `i` stands, such as "line 9".
        delimiter: between the fields of the file; where it is no comma, a decimal mark is likely to be one.

    Example:
        >>> import pyarrow
        >>> from gradatim.files.inference import infer
        >>> from gradatim.files.options import ReadOptions
        >>> columns = {"x": pyarrow.array(["0,5", "-"]), "grade": pyarrow.array(["None", "Mild"])}
        >>> cells, notes = infer(columns, ReadOptions(), str, delimiter=";")
        >>> cells["x"].kind, cells["grade"].kind
        ('number', 'text')
    """
    guesses = _guesses(columns, options, places)
    proofs = [guess.decimal for guess in guesses.values()]
    comma = proofs.count(",") > proofs.count(".") or (delimiter == ";" and "." not in proofs)
    day_first = [
        g.cells.day_first for g in guesses.values() if g.cells and g.cells.kind == DATE and not g.open
    ]
    for name, guess in guesses.items():
        if guess.open == "date" and guess.cells:
            first = bool(np.mean(day_first) > 0.5) if day_first else comma
            guess.cells = replace(guess.cells, day_first=first)
            order = "day/month/year" if first else "month/day/year"
            guess.notes.append(
                f"the dates of column {name!r} are read as {order}, which none of them decides"
            )
        if guess.open in (",", ".") and guess.cells:
            decimal = "," if comma and (guess.open == "," or "," in proofs) else "."
            guess.cells = replace(guess.cells, decimal=decimal)
            if decimal == guess.open == "." and "," not in proofs:
                continue  # 1.234 among points: nobody reads it otherwise
            role = "decimal mark" if decimal == guess.open else "separator of thousands"
            guess.notes.append(
                f"column {name!r}: {guess.open!r} is read as a {role} (--decimal says which it is)"
            )
    notes = [note for guess in guesses.values() for note in guess.notes]
    commas = [name for name, guess in guesses.items() if guess.decimal == "," and options.decimal is None]
    if commas:
        more = f" and {len(commas) - 5} more" if len(commas) > 5 else ""
        notes.insert(0, f"the decimal mark of {', '.join(map(repr, commas[:5]))}{more} is read as a comma")
    if len(notes) > MOST_NOTES:
        notes = [*notes[:MOST_NOTES], f"{len(notes) - MOST_NOTES} more notes of this kind"]
    return {name: guess.cells for name, guess in guesses.items()}, notes


def missing_words(options: ReadOptions) -> tuple[str, ...]:
    """Return the words, in lower case, that mean missing in a column of numbers without being odd.

    Example:
        >>> from gradatim.files.inference import missing_words
        >>> from gradatim.files.options import ReadOptions
        >>> missing_words(ReadOptions(missing=("Gone",)))
        ('gone',)
    """
    return PLAIN_MISSING if options.missing is None else tuple(word.lower() for word in options.missing)


def _guesses(
    columns: Mapping[str, Any], options: ReadOptions, places: Callable[[int], str]
) -> dict[str, _Guess]:
    """Return what each column's own words say of it."""
    missing = options.missing or ()
    likely = missing_words(options) + (LIKELY_MISSING if options.missing is None else ())
    guesses: dict[str, _Guess] = {}
    if not columns:
        return guesses
    facts = count_cells(list(columns.values()), likely)
    for number, (name, column) in enumerate(columns.items()):
        present, plain, others, legible = (
            int(counts[number]) for counts in (facts.present, facts.plain, facts.likely, facts.legible)
        )
        text = _Guess(Cells(TEXT, missing=missing))
        if name in options.text:
            guesses[name] = text
        elif not present:
            guesses[name] = _Guess(None)
        elif plain == present and options.decimal != ",":
            guesses[name] = _of_plain_numbers(name, column, facts, number, options, places)
        elif plain + legible < 0.5 * (present - others):
            guesses[name] = text
        else:
            guesses[name] = _of_words(name, trim(column), missing, options, places)
    return guesses


def _nulls(column: Any) -> np.ndarray:
    return column.is_null().to_numpy(zero_copy_only=False)


def _of_plain_numbers(
    name: str, column: Any, facts: Facts, number: int, options: ReadOptions, places: Callable[[int], str]
) -> _Guess:
    """Return a column of plain numbers, or of names made of digits."""
    missing = options.missing or ()
    if facts.padded[number] or facts.large[number]:
        words = trim(column)
        values = words.cast("float64").to_numpy(zero_copy_only=False)
        if note := _names_of_digits(name, words, values, places):
            return _Guess(Cells(TEXT, missing=missing), notes=[note])
        huge = np.abs(values) >= EXACT
        if huge.any() and not facts.dotted[number]:
            row = int(np.nanargmax(np.where(huge, np.abs(values), np.nan)))
            note = (
                f"column {name!r} is read as numbers, of which {int(huge.sum()):,} such as {words[row].as_py()!r} in "
                f"{places(row)} are not exact: --text {name} if they are names"
            )
            return _Guess(Cells(NUMBER, missing=missing), notes=[note])
    numbers = Cells(NUMBER, missing=missing)
    if options.decimal is not None or not facts.dotted[number]:
        return _Guess(numbers, decimal=options.decimal or "")
    is_open = facts.grouped[number] == facts.dotted[number]
    return _Guess(numbers, open=".") if is_open else _Guess(numbers, decimal=".")


def _names_of_digits(name: str, words: Any, values: np.ndarray, places: Callable[[int], str]) -> str:
    """Return a note if numbers are names: they begin with zeros that count nothing, or need more than 53 bits."""
    compute = kernels()
    present = words.drop_null()
    padded = compute.fill_null(compute.match_substring_regex(words, r"^[+-]?0[0-9]+$"), False)
    n_padded = compute.sum(padded).as_py() or 0
    if n_padded:
        widths = compute.min_max(compute.utf8_length(present)).as_py()
        if n_padded >= PADDED_CELLS * len(present) or widths["min"] == widths["max"]:
            row = compute.index(padded, True).as_py()
            return f"column {name!r} is read as text, since {words[row].as_py()!r} in {places(row)} begins with a zero"
    with np.errstate(invalid="ignore"):
        large = np.abs(values) >= EXACT  # 2^53 + 1 is read as 2^53
    if large.any():
        is_whole = compute.fill_null(compute.match_substring_regex(words, r"^[+-]?[0-9]+$"), False)
        large &= is_whole.to_numpy(zero_copy_only=False)
        if large.sum() > ODD_CELLS * len(present):
            word = words[int(large.argmax())].as_py()
            return f"column {name!r} is read as text, since whole numbers such as {word} are not exact as numbers"
    return ""


def _of_words(
    name: str, plain: Any, missing: tuple[str, ...], options: ReadOptions, places: Callable[[int], str]
) -> _Guess:
    """Return a column that holds words: perhaps numbers, dates or booleans with some odd cells."""
    compute = kernels()
    a, text = arrow(), _Guess(Cells(TEXT, missing=missing))
    usual = without(plain, missing)
    if options.missing is None:
        lower = compute.utf8_lower(plain)
        likely = a.array((*PLAIN_MISSING, *LIKELY_MISSING), plain.type)
        usual = compute.if_else(compute.is_in(lower, value_set=likely), a.scalar(None, plain.type), plain)
    counted = usual.drop_null().value_counts()
    words, counts = counted.field("values"), counted.field("counts").to_numpy()
    if not len(words):
        standard = a.array(missing_words(options), plain.type)
        is_empty = compute.all(
            compute.is_in(compute.utf8_lower(plain.drop_null()), value_set=standard)
        ).as_py()
        return _Guess(None) if is_empty or options.missing is not None else text
    trials = _trials(missing, options.decimal)
    read = [parse(words, cells) for cells in trials]
    odd = [_nulls(values) & ~_infinite(words) for values in read]
    odd[0] |= (
        compute.match_substring(words, "e", ignore_case=True).to_numpy(zero_copy_only=False) == 0
    )  # 1 is a number
    best = min(range(len(trials)), key=lambda trial: counts[odd[trial]].sum())
    share, share_words = counts[odd[best]].sum() / counts.sum(), odd[best].mean()
    if share > ODD_CELLS or (share_words > ODD_WORDS and share > ODD_CELLS_OF_WORDS):
        if share < 0.5:
            word = words[int(np.argmax(counts * odd[best]))].as_py()
            what = {NUMBER: "numbers", DATE: "dates", BOOLEAN: "true or false"}[trials[best].kind]
            text.notes.append(
                f"column {name!r} is read as text because of words such as {word!r} in {places(_row(plain, word))}, "
                f"{share:.0%} of its cells; the others are {what}: "
                f"--missing {word} makes it missing"
            )
        elif note := _note_of_dates(name, words, counts):
            text.notes.append(note)
        return text
    guess, rival = _Guess(trials[best]), _rival(best)
    if trials[best].kind == NUMBER:
        padding = _names_of_digits(name, plain, _values(plain, trials[best]), places)
        if padding:
            return _Guess(Cells(TEXT, missing=missing), notes=[padding])
    if trials[best].kind == DATE and compute.all(are_months(words)).as_py():
        guess.notes.append(
            f"column {name!r} is read as dates: a month such as {words[0].as_py()!r} as its first day; --text "
            f"{as_item(name)} if these are names"
        )
    if rival is not None and rival < len(trials):
        differs = not read[best].equals(read[rival])
        if differs and (odd[best] == odd[rival]).all():
            guess.open = "date" if trials[best].kind == DATE else _open_mark(words)
        elif differs and trials[best].kind == NUMBER:
            guess.decimal = trials[best].decimal
    return guess


def _note_of_dates(name: str, words: Any, counts: np.ndarray) -> str:
    """Return a note if the words `[words]`, which stand so often, are mostly dates or times that are not read."""
    flags = kernels().match_substring_regex(words, _LIKE_DATES).to_numpy(zero_copy_only=False)
    if counts[flags].sum() < (1 - ODD_CELLS) * counts.sum():
        return ""
    word = words[int(np.argmax(counts * flags))].as_py()
    return (
        f"column {name!r} is read as text: words such as {word!r} are dates or times of a form that is not read; write "
        "dates as 2024-01-31 and times as numbers to learn their order"
    )


def _trials(missing: tuple[str, ...], decimal: str | None) -> list[Cells]:
    """Return the ways in which a column of words may be read; 1 and 2, and 3 and 4, are rivals."""
    marks = (".", ",") if decimal is None else (decimal, decimal)
    return [
        Cells(BOOLEAN, missing=missing),
        *(Cells(NUMBER, decimal=mark, missing=missing) for mark in marks),
        *(Cells(DATE, day_first=first, missing=missing) for first in (False, True)),
    ]


def _rival(trial: int) -> int | None:
    return {1: 2, 2: 1, 3: 4, 4: 3}.get(trial)


def _open_mark(words: Any) -> str:
    """Return the mark that may be a decimal mark or a separator of thousands, "," or "."."""
    compute = kernels()
    return "," if compute.any(compute.match_substring(words, ",")).as_py() else "."


def _infinite(words: Any) -> np.ndarray:
    """Return which words `[words]` spell infinity: it is a number, though no cell of a table."""
    compute = kernels()
    return compute.match_substring_regex(words, r"^[+-]?(?i:inf|infinity)$").to_numpy(zero_copy_only=False)


def _values(words: Any, cells: Cells) -> np.ndarray:
    return parse(words, cells).to_numpy(zero_copy_only=False)


def _row(column: Any, word: str) -> int:
    compute = kernels()
    return compute.index(column, word).as_py()


def as_spelt(cells: Cells) -> Cells:
    """Return how a column is read as text, cell by cell as it is spelt; its missing words stay missing.

    Example:
        >>> from gradatim.files.cells import Cells
        >>> from gradatim.files.inference import as_spelt
        >>> "NA" in as_spelt(Cells("number")).missing, as_spelt(Cells("text")).missing
        (True, ())
    """
    if cells.kind == TEXT:
        return cells
    words = (*PLAIN_MISSING, *LIKELY_MISSING, "NaN", "NaT", "-NaN")
    spellings = [form for word in words for form in (word, word.upper(), word.capitalize(), word.title())]
    return Cells(TEXT, missing=tuple(dict.fromkeys([*cells.missing, *spellings])))


def odd_cells(words: Any, values: Any, silent: Sequence[str]) -> np.ndarray:
    """Return the rows of words that are neither read nor among the words (in lower case) that mean missing.

    Args:
        words: an Arrow array of strings `[rows]`.
        values: what `parse` made of them `[rows]`.
        silent: words that mean missing.

    Returns:
        Row numbers `[odd]`.

    Example:
        >>> import pyarrow
        >>> from gradatim.files.inference import odd_cells
        >>> odd_cells(pyarrow.array(["1", "x", "NA"]), pyarrow.array([1.0, None, None]), ["na"])
        array([1])
    """
    compute = kernels()
    if values.null_count == words.null_count:
        return np.empty(0, np.int64)
    rows = np.flatnonzero(_nulls(values) & ~_nulls(words))
    lower = compute.utf8_lower(trim(words.take(arrow().array(rows))))
    usual = compute.is_in(lower, value_set=arrow().array(silent, lower.type)).to_numpy(zero_copy_only=False)
    return rows[~usual & ~_nulls(lower)]
