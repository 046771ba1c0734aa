"""What to say of a name that is not known: the nearest one that is, or all of them.

Source: Ratcliff, Metzener 1988 (likeness of strings), by Python's difflib.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the known name most like `name`, or None where none is as like as `cutoff` (1: the same).

    Example:
        >>> nearest("adamm", ["sgd", "adam"])
        'adam'
    """
    near = get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return near[0] if near else None


def hint(
    name: str, known: Iterable[str], otherwise: str = "known are", shown: Callable[[str], str] = repr
) -> str:
    """Return the end of an error: a question after the nearest known name, `shown` so, or a list of all.

    Example:
        >>> hint("adamm", ["sgd", "adam"])
        "did you mean 'adam'?"
        >>> hint("ridge", ["sgd", "adam"])
        'known are sgd, adam'
    """
    known = list(known)
    near = nearest(name, known)
    return f"{otherwise} {', '.join(known)}" if near is None else f"did you mean {shown(near)}?"
