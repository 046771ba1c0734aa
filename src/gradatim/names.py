"""Suggestions for an unknown name: the nearest known one, or a list of all.

Source: Ratcliff, Metzener 1988 (similarity of strings), by Python's difflib.
"""

from __future__ import annotations

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
