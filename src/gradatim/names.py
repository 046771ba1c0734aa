"""Suggestions for an unknown name: the nearest known one, or a list of all.

Source: Ratcliff, Metzener 1988 (similarity of strings), by Python's difflib.
"""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Callable, Iterable
from difflib import get_close_matches


def nearest(name: str, names: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the known name that is most similar to `name`, or None where none is similar enough.

    Args:
        name: the unknown name.
        names: the known names.
        cutoff: the least similarity that counts, from 0 to 1 (equal).

    Example:
        >>> from gradatim.names import nearest
        >>> nearest("adamm", ["sgd", "adam"])
        'adam'
    """
    matches = get_close_matches(name, list(names), n=1, cutoff=cutoff)
    return matches[0] if matches else None


def hint(
    name: str, names: Iterable[str], otherwise: str = "known are", quote: Callable[[str], str] = repr
) -> str:
    """Return the end of an error message: a question after the nearest known name, or a list of all.

    Args:
        name: the unknown name.
        names: the known names.
        otherwise: words before the list.
        quote: how the nearest name is written.

    Example:
        >>> from gradatim.names import hint
        >>> hint("adamm", ["sgd", "adam"])
        "did you mean 'adam'?"
        >>> hint("ridge", ["sgd", "adam"])
        'known are sgd, adam'
    """
    names = list(names)
    suggestion = nearest(name, names)
    return f"{otherwise} {', '.join(names)}" if suggestion is None else f"did you mean {quote(suggestion)}?"


def as_item(name: str) -> str:
    """Return a name as an item of an option that takes a list of names, ready for a shell.

    A name with a comma stands in quotes, and what a shell would split or change does so as well.

    Args:
        name: the name, of a column for example.

    Example:
        >>> from gradatim.names import as_item
        >>> print(as_item("zip"), as_item("sold at"), as_item("weight, kg"))
        zip 'sold at' '"weight, kg"'
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow([name])
    return shlex.quote(text.getvalue())
