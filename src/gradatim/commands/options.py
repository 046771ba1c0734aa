"""Commands and their options: parsers by jsonargparse, one option for each field of a dataclass, errors in one line.

Source: jsonargparse.
"""

from __future__ import annotations

import re
from argparse import ArgumentError
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields, is_dataclass
from inspect import cleandoc
from itertools import pairwise
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from jsonargparse import ArgumentParser, Namespace

from ..names import hint, nearest

if TYPE_CHECKING:
    from rich.console import Console

_WHOLE = re.compile(r"[+-]?[0-9]+|None|null")


@dataclass(frozen=True)
class Command:
    """One command.

    Fields:
        `summary`: what it does, in one line.
        `example`: a call of it.
        `options`: a function of the parser and the arguments, on which options may depend. It adds the options.
        `run`: a function of the options and the console.

    Example:
        >>> from gradatim.commands.options import Command, parse
        >>> def options(parser, arguments):
        ...     parser.add_argument("--rows", type=int, default=1)
        >>> count = Command("count rows", "count --rows 3", options, lambda options, console: None)
        >>> parse(count.parser("count", []), ["--rows", "3"]).rows
        3
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
    """Return the options. Arguments may write None for null, and `--part.field` for a field of an object.

    An option of text takes the word None as it is, and the argument behind it even if that begins with a dash.

    Raises:
        ValueError: an unknown option (the nearest is suggested), a missing argument or a value of another type.
    """
    arguments = _join_values(parser, _with_full_names(parser, arguments))
    refuse_unknown(parser, arguments)
    _check_whole(parser, arguments)
    try:
        return parser.parse_args([_with_null(parser, argument) for argument in arguments])
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
            if expected == "int":
                expected = "a whole number, such as 1000"
            option = key[1].replace("_", "-")
            received = got[1]
            for word, further in zip(arguments, [*arguments[1:], ""], strict=True):
                name, equals, value = word.partition("=")
                if name.replace("_", "-") == f"--{option}":
                    received = value if equals else further  # as it was written: 1e3 is read as 1000.0
            text = f"--{option} wants {expected}; got {received}"
        elif "are required: " in text:
            lead, _, missing = text.rpartition(": ")
            spellings = _spellings(parser)
            names = (f"--{name}" if f"--{name}" in spellings else name for name in missing.split(", "))
            text = f"{lead}: {', '.join(names)}"
        raise ValueError(f"{text}: see {parser.prog} --help") from error


def _check_whole(parser: ArgumentParser, arguments: list[str]) -> None:
    """Raise ValueError where a whole number is wanted and none stands: to YAML 1:30 is 90, and 1_0 is 10."""
    for word, further in pairwise([*arguments, ""]):
        option, equals, value = word.partition("=")
        value = value if equals else further
        action = parser._option_string_actions.get(option)
        kind = getattr(action, "_typehint", None) or getattr(action, "type", None)
        is_whole = kind is int or set(get_args(kind)) == {int, type(None)}
        if is_whole and not _WHOLE.fullmatch(value):
            raise ValueError(
                f"{option} wants a whole number, such as 1000; got {value}: see {parser.prog} --help"
            )


def _text_options(parser: ArgumentParser) -> list[str]:
    """Return the options whose value is text and nothing else."""
    actions = parser._option_string_actions.items()
    return [name for name, action in actions if str in (getattr(action, "_typehint", None), action.type)]


def _join_values(parser: ArgumentParser, arguments: Iterable[str]) -> list[str]:
    """Return the arguments with `--OPTION=VALUE` where an option of text is followed by a dash or by None.

    Python's argparse takes a value with a dash for an option. The parser's options stay what they are.
    """
    text_options, spellings = _text_options(parser), _spellings(parser)
    result: list[str] = []
    for argument in arguments:
        follows = bool(result) and result[-1] in text_options
        is_value = argument == "None" or (argument[:1] == "-" and argument.partition("=")[0] not in spellings)
        if follows and is_value:
            result[-1] = f"{result[-1]}={argument}"
        else:
            result.append(argument)
    return result


def _with_null(parser: ArgumentParser, argument: str) -> str:
    """Return an argument with null for None, unless it is a value of an option of text."""
    option, equals, value = argument.partition("=")
    if value == "None" and equals and option in _text_options(parser):
        return argument
    return re.sub(r"(\A|=)None\Z", r"\1null", argument)


def refuse_unknown(parser: ArgumentParser, arguments: Iterable[str]) -> None:
    """Check that the parser has all options among the arguments.

    Raises:
        ValueError: an unknown option; the nearest is suggested.
    """
    spellings = _spellings(parser)
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


def _with_full_names(parser: ArgumentParser, arguments: Iterable[str]) -> list[str]:
    """Return the arguments with `--PART` written as `--PART.name` where the parser has that option alone."""
    spellings = parser._option_string_actions
    result = []
    for argument in arguments:
        option, equals, value = argument.partition("=")
        short = option.startswith("--") and option not in spellings and f"{option}.name" in spellings
        result.append(f"{option}.name{equals}{value}" if short else argument)
    return result


def _spellings(parser: ArgumentParser) -> list[str]:
    """Return the parser's options, and for an object that may be null one for each of its fields.

    jsonargparse accepts those by itself. The object starts from its value, or if that is null from its defaults.
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
    """Add an option for each field of a dataclass value, nested ones too. The value's fields are the defaults.

    Args:
        group: a parser, or a group of it.
        prefix: the options are `--PREFIX.FIELD`.
        value: the dataclass value.
        fixed: fields that are no options.
    """
    hints, texts = get_type_hints(type(value)), field_texts(type(value))
    for field in fields(value):
        if not (field.init and field.metadata.get("option", True)) or field.name in fixed:
            continue
        name, inner = f"{prefix}.{field.name}", getattr(value, field.name)
        if is_dataclass(hints[field.name]):
            add_fields(group, name, inner)
        else:
            text = escape_percent(texts.get(field.name, field.name.replace("_", " ")))
            default = asdict(inner) if is_dataclass(inner) and not isinstance(inner, type) else inner
            group.add_argument(f"--{name}", type=hints[field.name], default=default, help=text)


def field_texts(kind: type) -> dict[str, str]:
    """Return what the `Fields:` sections in the docstrings of a class and its bases say of each field.

    A section is one sentence, such as "Fields: `low`: text; `high`: text.", or a list, one "`low`: text." on a line.

    Example:
        >>> from gradatim import Greedy
        >>> from gradatim.commands.options import field_texts
        >>> field_texts(Greedy)["batch_size"]
        'rows of a mini-batch'
    """
    result: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        for piece in _field_entries(cleandoc(base.__doc__ or "")):
            names, colon, text = " ".join(piece.split()).partition(": ")
            words = text if colon and not re.sub(r"`\w+`|, ", "", names) else f"{names}{colon}{text}"
            result |= dict.fromkeys(re.findall(r"`(\w+)`", names), words.replace("`", ""))
    return result


def _field_entries(docstring: str) -> list[str]:
    """Return the entries of the `Fields:` section of a docstring."""
    if items := re.search(r"^Fields:\n((?: +\S.*(?:\n|\Z))+)", docstring, re.MULTILINE):
        return [entry.strip().removesuffix(".") for entry in re.split(r"\n *(?=`)", items[1])]
    paragraph = re.search(r"Fields: (.*?)(?:(?<! \.)\.\s|\.?\Z|\n\s*\n)", docstring, re.DOTALL)
    return re.split(r";\s+(?=`)", paragraph[1]) if paragraph else []


def first_positional(arguments: list[str], flags: Iterable[str]) -> str | None:
    """Return the first argument that is neither an option nor an option's value, or None.

    `flags`: options without a value.

    Example:
        >>> from gradatim.commands.options import first_positional
        >>> first_positional(["--resume", "--out", "runs/a", "digits"], flags=["--resume"])
        'digits'
    """
    remaining = iter(arguments)
    for argument in remaining:
        if not argument.startswith("-"):
            return argument
        if "=" not in argument and argument not in flags:
            next(remaining, None)
    return None


def option_value(arguments: list[str], option: str) -> str | None:
    """Return the last value that the arguments give an option, or None.

    Example:
        >>> from gradatim.commands.options import option_value
        >>> option_value(["--out", "a", "--out=b"], "--out")
        'b'
    """
    result = None
    for argument, following in zip(arguments, [*arguments[1:], None], strict=False):
        if argument == option:
            result = following
        elif argument.startswith(f"{option}="):
            result = argument.partition("=")[2]
    return result


def first_line(value: Any) -> str:
    """Return the first line of a docstring, without backticks.

    Example:
        >>> from gradatim import Greedy
        >>> from gradatim.commands.options import first_line
        >>> first_line(Greedy)
        'Train each step on its own, with no gradient across steps, as in the paper.'
    """
    text = (value.__doc__ or "").strip().split("\n")[0].replace("`", "")
    # a dataclass without a docstring gets its signature as one
    return "" if text.startswith(f"{getattr(value, '__name__', '')}(") else text


def escape_percent(text: str) -> str:
    """Return text that argparse prints as it is.

    Example:
        >>> from gradatim.commands.options import escape_percent
        >>> escape_percent("95% intervals")
        '95%% intervals'
    """
    return text.replace("%", "%%")
