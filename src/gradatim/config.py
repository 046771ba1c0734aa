"""Dataclasses to and from JSON: each value is held against its field's type, and refused with a sentence.

Source: the config of a run as a Python value, after torchtitan (Liang et al. 2024).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import MISSING, Field, asdict, fields, is_dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from .names import hint


def to_json(value: Any) -> dict[str, Any]:
    """Return the fields of a dataclass value as an object that JSON can hold.

    Example:
        >>> from gradatim.config import to_json
        >>> from gradatim.training.schemes import Greedy
        >>> to_json(Greedy(batch_size=16))["batch_size"]
        16
    """
    values = asdict(value)
    return {field.name: values[field.name] for field in init_fields(type(value))}


def from_json(kind: type, value: Any, where: str) -> Any:
    """Return a dataclass made of a JSON object, each value held against its field's type; lists become tuples.

    Args:
        kind: the dataclass.
        value: the object.
        where: what it is called in error messages.

    Raises:
        ValueError: no object, an unknown field (the nearest is suggested), a missing one, or a value of another type.

    Example:
        >>> from gradatim.config import from_json
        >>> from gradatim.training.schemes import Greedy
        >>> from_json(Greedy, {"batch_size": 16}, "scheme").batch_size
        16
    """
    if not isinstance(value, dict):
        raise ValueError(f"{where} must be {_describe(kind)}; got {value!r}")
    valid = init_fields(kind)
    check_fields(kind.__name__, value, [field.name for field in valid])
    for field in valid:
        if field.name not in value and field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"{where} needs {field.name!r}; got {sorted(value)}")
    hints = get_type_hints(kind)
    return kind(**{key: convert(f"{where}.{key}", part, hints[key]) for key, part in value.items()})


def init_fields(kind: type) -> list[Field[Any]]:
    """Return the fields that a dataclass is made with.

    Example:
        >>> from gradatim.config import init_fields
        >>> from gradatim.training.schemes import Greedy
        >>> [field.name for field in init_fields(Greedy)][:2]
        ['batch_size', 'horizon']
    """
    assert is_dataclass(kind)
    return [field for field in fields(kind) if field.init]


def convert(where: str, value: Any, hint: Any) -> Any:
    """Return a JSON value as a field of this type takes it.

    Raises:
        ValueError: a value of another type.

    Example:
        >>> from gradatim.config import convert
        >>> convert("betas", [0.9, 0.95], tuple[float, float])
        (0.9, 0.95)
    """
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    for kind in kinds:
        if isinstance(kind, type) and is_dataclass(kind) and not isinstance(value, kind):
            if isinstance(value, dict) or len(kinds) == 1:
                return from_json(kind, value, where)
        elif _fits(value, kind):
            return _as_tuples(value)
    raise ValueError(f"{where} must be {' or '.join(map(_describe, kinds))}; got {value!r}")


def check_fields(what: str, value: Iterable[str], valid: Iterable[str]) -> None:
    """Check that all keys are fields.

    Args:
        what: the word for the object in error messages.
        value: the keys.
        valid: the fields.

    Raises:
        ValueError: an unknown key; the nearest field is suggested.

    Example:
        >>> from gradatim.config import check_fields
        >>> check_fields("scheme", ["batch"], ["batch_size", "horizon"])
        Traceback (most recent call last):
        ValueError: scheme has no field 'batch': ...
    """
    valid = list(valid)
    for key in value:
        if key not in valid:
            near = hint(key, sorted(valid), "it has") if valid else "it has none"
            raise ValueError(f"{what} has no field {key!r}: {near}")


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list | tuple) else value


def _fits(value: Any, kind: Any) -> bool:
    """Return whether a JSON value is of a type; a truth value is no number, a whole number is one."""
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        return any(_fits(value, part) for part in get_args(kind))
    if get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            return False
        inner = get_args(kind)
        inner = inner[:1] * len(value) if inner[1:] == (...,) else inner
        return len(value) == len(inner) and all(map(_fits, value, inner))
    if kind in (int, float):
        return isinstance(value, int | kind) and not isinstance(value, bool)
    base = get_origin(kind) or kind
    return not isinstance(base, type) or isinstance(value, base)


def _describe(kind: Any) -> str:
    """Return a type in words."""
    if is_dataclass(kind):
        return f"an object, the fields of {getattr(kind, '__name__', kind)}"
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, get_args(kind)))
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        return "a list of numbers" if inner[1:] == (...,) else f"a list of {len(inner)} numbers"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", dict: "an object"}
    return words.get(get_origin(kind) or kind, "null")
