"""Tables and sentences for a terminal of any width, or for a file.

Source: rich.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console


def table(
    console: Console, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: bool = False
) -> None:
    """Show rows of text under their columns, aligned to the right for `numbers`."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    justify = "right" if numbers else "left"
    shown = Table(box=SIMPLE_HEAD, title=title or None, title_justify="left", show_header=any(columns))
    for number, column in enumerate(columns):
        shown.add_column(column, justify=justify, no_wrap=number == 0, overflow="fold")
    for row in rows:
        shown.add_row(*map(Text, row))
    console.print(shown)


def wrote(console: Console, paths: Iterable[Path]) -> None:
    """Say what was written and where, a line for each file."""
    for path in paths:
        console.print(f"wrote {path}", soft_wrap=True, markup=False)


def size(count: float) -> str:
    """Return a number of bytes for people: `12.3 kB`, powers of 1000."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            break
        count /= 1000
    return f"{count:,.0f} bytes" if unit == "bytes" else f"{count:,.1f} {unit}"
