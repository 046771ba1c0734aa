"""Turn plain-text docstrings into reStructuredText that can raise no warning, whatever mathematics they hold.

Understood: paragraphs, `code` in backticks, lists with `-`, indented blocks (equations and code, kept as they are), and
sections: a line such as `Raises:` with an indented block of entries below it, or `Source: text` in one line. Every
other character stands for itself.
"""

import re
from collections.abc import Iterator
from textwrap import dedent

_VERBATIM = {"Example", "Examples", "Equation", "Equations"}
_HEADING = re.compile(
    r"(Args|Attributes|Equations?|Examples?|Fields|Notes?|Raises|Returns|Shapes?|Sources?|Yields):(?:\s+(.*))?"
)
_ENTRY = re.compile(r"(`\w+`(?:, `\w+`)+|`*\**\w[\w.\[\], |]*`*): +(\S.*)")
_BULLET = re.compile(r"(?:[-*]|\d+[.)]) +(\S.*)")


def to_rst(lines: list[str]) -> list[str]:
    """Render the lines of a docstring."""
    out: list[str] = []
    section = ""
    for block in _blocks(_joined(dedent("\n".join(lines).expandtabs(4)).split("\n"))):
        if block[0].startswith(" "):
            out += _entries(block, named=True) if section and section not in _VERBATIM else _verbatim(block)
            continue
        heading = _HEADING.fullmatch(block[-1].rstrip())
        section = heading[1] if heading else ""
        out += _entries(block[:-1] if heading else block)
        if heading:
            out += [f"**{section}**" + (f": {_escape(heading[2])}" if heading[2] else ""), ""]
    return out


def _joined(lines: list[str]) -> list[str]:
    """Put the lines that continue a heading with text, such as `Source: text`, into its line."""
    out: list[str] = []
    open_heading = False
    for line in lines:
        heading = _HEADING.fullmatch(line.rstrip())
        if (
            open_heading
            and line.strip()
            and not line.startswith(" ")
            and not heading
            and not _BULLET.match(line)
        ):
            out[-1] = f"{out[-1].rstrip()} {line}"
            continue
        open_heading = bool(heading and heading[2])
        out.append(line)
    return out


def _blocks(lines: list[str]) -> Iterator[list[str]]:
    """Yield runs of lines; a blank line, a heading and a change of indentation (but in a list) end a run."""
    run: list[str] = []
    for line in [*lines, ""]:
        if run and not _continues(run, line):
            yield run
            run = []
        if line.strip():
            run.append(line)


def _continues(run: list[str], line: str) -> bool:
    if not line.strip() or _HEADING.fullmatch(run[-1].rstrip()):
        return False
    return line.startswith(" ") == run[0].startswith(" ") or bool(_BULLET.match(run[0]))


def _verbatim(block: list[str]) -> list[str]:
    """Render a block as it stands."""
    return ["::", "", *("    " + line for line in dedent("\n".join(block)).split("\n")), ""]


def _entries(block: list[str], named: bool = False) -> list[str]:
    """Render running text, in which `- text` (and, where named, `name: text`) at the outer indentation is an item."""
    out: list[str] = []
    text, item = "", False
    for line in dedent("\n".join(block)).split("\n"):
        bullet = _BULLET.fullmatch(line)
        entry = _ENTRY.fullmatch(line) if named else None
        if bullet or entry:
            out += _paragraph(text, item)
            text, item = (f"`{entry[1].strip('`')}`: {entry[2]}" if entry else bullet[1]), True
        else:
            text = f"{text} {line.strip()}".strip()
    return out + _paragraph(text, item)


def _paragraph(text: str, item: bool) -> list[str]:
    """Render text as one paragraph or list item; the escaped blank keeps its start from being read as markup."""
    return [("* " if item else "") + "\\ " + _escape(text), ""] if text.strip() else []


def _escape(text: str) -> str:
    """Set spans in backticks as literals and let every other character stand for itself."""
    parts = re.split(r"(``[^`]+``|`[^`]+`)", text)
    return "".join(_literal(part.strip("`")) if i % 2 else _plain(part) for i, part in enumerate(parts))


def _literal(text: str) -> str:
    return f"\\ ``{text.strip()}``\\ " if text.strip() and "\\" not in text else _plain(text)


def _plain(text: str) -> str:
    return re.sub(r"([\\*`|_<>:])", r"\\\1", text)
