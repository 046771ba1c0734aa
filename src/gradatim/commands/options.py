"""Commands and their options: parsers by jsonargparse, one option for each field of a dataclass, errors in one line.

Source: jsonargparse.
"""

from __future__ import annotations

import re
from argparse import ArgumentError
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from jsonargparse import ArgumentParser, Namespace

from ..names import hint, nearest

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Command:
    """One command.

    Fields: `summary`, `example`: its help; `options(parser, arguments)` adds its options, which may depend on the
    arguments; `run(options, console)`.
    """

    summary: str
    example: str
    options: Callable[[ArgumentParser, list[str]], None]
    run: Callable[[Namespace, Console], None]

    def parser(self, name: str, arguments: list[str]) -> ArgumentParser:
        """Return the command's parser for these arguments."""
        parser = ArgumentParser(
            prog=f"gradatim {name}",
            description=f"{self.summary[0].upper()}{self.summary[1:]}.",
            epilog=f"example: {self.example}",
            exit_on_error=False,
        )
        self.options(parser, arguments)
        return parser


def parse(parser: ArgumentParser, arguments: list[str]) -> Namespace:
    """Return the options; None may be written for null, and a field of an object that may be null by a dot.

    Raises:
        ValueError: an unknown option (the nearest is suggested), a missing argument or a value of another type.
    """
    arguments = _named_in_full(parser, arguments)
    refuse_unknown(parser, arguments)
    try:
        return parser.parse_args([re.sub(r"(\A|=)None\Z", r"\1null", argument) for argument in arguments])
    except ArgumentError as error:
        text = str(error)
        key, got = re.search(r'key "(.+?)"', text), re.search(r"[Vv]alue: (.*)\Z", text)
        inner = re.search(r"NestedArg\(key='(.+?)', val='?(.*?)'?\)\Z", text)
        if key and inner:
            expected = re.search(r"Expected a <class '(\w+)'>", text)
            text = (
                f"--{key[1]}.{inner[1]} wants {expected[1] if expected else 'another value'}; got {inner[2]}"
            )
        elif key and got:
            kinds = dict.fromkeys(re.findall(r"<class '([\w.]+)'>", text.partition("Given value type")[0]))
            named = (re.sub(r"[\w.]+\.", "an object with fields of ", kind) for kind in kinds)
            expected = " or ".join(named).replace("NoneType", "null") or "another value"
            text = f"--{key[1]} wants {expected}; got {got[1]}"
        raise ValueError(f"{text}: see {parser.prog} --help") from error


def refuse_unknown(parser: ArgumentParser, arguments: Iterable[str]) -> None:
    """Raise ValueError where an argument is an option that the parser does not have."""
    spellings = _known(parser)
    for argument in arguments:
        option = argument.split("=")[0]
        if re.match(r"--?[A-Za-z]", option) and option not in spellings:
            long = [text for text in spellings if text.startswith("--")]
            name = parser.prog.removeprefix("gradatim ")
            part, _, field = option.rpartition(".")
            inner = [text.removeprefix(f"{part}.") for text in long if text.startswith(f"{part}.")]
            if part and nearest(field, inner) is None:
                has = ", ".join(text for text in inner if text != "name") or "no options"
                called = parser.get_defaults().get(f"{part[2:]}.name") or part
                raise ValueError(f"{name} has no option {option}: {called} has {has}")
            raise ValueError(f"{name} has no option {option}: {hint(option, long, quote=str)}")


def _named_in_full(parser: ArgumentParser, arguments: Iterable[str]) -> list[str]:
    """Return the arguments with `--PART` written as `--PART.name` where the parser has that option alone."""
    spellings = parser._option_string_actions
    result = []
    for argument in arguments:
        option, equals, value = argument.partition("=")
        short = option.startswith("--") and option not in spellings and f"{option}.name" in spellings
        result.append(f"{option}.name{equals}{value}" if short else argument)
    return result


def _known(parser: ArgumentParser) -> list[str]:
    """Return the parser's options, and for an object that may be null one for each of its fields.

    jsonargparse takes those without being told: the object starts from its value, or where it is null its defaults.
    """
    spellings = []
    for option, action in parser._option_string_actions.items():
        kinds = get_args(getattr(action, "_typehint", None))
        spellings += [
            option,
            *(f"{option}.{f.name}" for kind in kinds if is_dataclass(kind) for f in fields(kind)),
        ]
    return spellings


def add_fields(group: Any, prefix: str, value: Any, fixed: Iterable[str] = ()) -> None:
    """Add an option for each field of a dataclass value, nested ones too; the value's own are the defaults.

    `fixed`: fields that are no options.
    """
    hints, texts = get_type_hints(type(value)), field_texts(type(value))
    for field in fields(value):
        if not (field.init and field.metadata.get("option", True)) or field.name in fixed:
            continue
        name, inner = f"{prefix}.{field.name}", getattr(value, field.name)
        if is_dataclass(hints[field.name]):
            add_fields(group, name, inner)
        else:
            text = escaped(texts.get(field.name, field.name.replace("_", " ")))
            default = asdict(inner) if is_dataclass(inner) and not isinstance(inner, type) else inner
            group.add_argument(f"--{name}", type=hints[field.name], default=default, help=text)


def field_texts(kind: type) -> dict[str, str]:
    """Return what the `Fields:` paragraphs in the docstrings of a class and its bases say of each field."""
    result: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        paragraph = re.search(r"Fields: (.*?)(?:(?<! \.)\.\s|\.?\Z|\n\s*\n)", base.__doc__ or "", re.DOTALL)
        for piece in re.split(r";\s+(?=`)", paragraph[1] if paragraph else ""):
            names, colon, text = " ".join(piece.split()).partition(": ")
            words = text if colon and not re.sub(r"`\w+`|, ", "", names) else f"{names}{colon}{text}"
            result |= dict.fromkeys(re.findall(r"`(\w+)`", names), words.replace("`", ""))
    return result


def positional(arguments: list[str], flags: Iterable[str]) -> str | None:
    """Return the first argument that is neither an option nor an option's value; `flags` are options without one."""
    remaining = iter(arguments)
    for argument in remaining:
        if not argument.startswith("-"):
            return argument
        if "=" not in argument and argument not in flags:
            next(remaining, None)
    return None


def value_of(arguments: list[str], option: str) -> str | None:
    """Return the last value the arguments give an option, or None."""
    result = None
    for argument, following in zip(arguments, [*arguments[1:], None], strict=False):
        if argument == option:
            result = following
        elif argument.startswith(f"{option}="):
            result = argument.partition("=")[2]
    return result


def first_line(value: Any) -> str:
    """Return the first line of a docstring, its formulae without marks."""
    return (value.__doc__ or "").strip().split("\n")[0].replace("`", "")


def escaped(text: str) -> str:
    """Return text that argparse prints as it is."""
    return text.replace("%", "%%")
