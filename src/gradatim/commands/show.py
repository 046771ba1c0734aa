"""Print tables and sentences to a terminal of any width, or to a file.

Source: rich.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console


def print_table(
    console: Console,
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    align_right: bool = False,
) -> None:
    """Print rows of text under their column names, aligned to the right if `align_right`.

    Example:
        >>> from rich.console import Console
        >>> from gradatim.commands.show import print_table
        >>> print_table(Console(width=40), "", ["method", "error"], [["ridge", "0.12"]], align_right=True)
        <BLANKLINE>
          method   error
         ────────────────
           ridge    0.12
        <BLANKLINE>
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    justify = "right" if align_right else "left"
    grid = Table(box=SIMPLE_HEAD, title=title or None, title_justify="left", show_header=any(columns))
    for number, column in enumerate(columns):
        grid.add_column(column, justify=justify, no_wrap=number == 0, overflow="fold")
    for row in rows:
        grid.add_row(*map(Text, row))
    console.print(grid)


def print_written(console: Console, paths: Iterable[Path]) -> None:
    """Print which files were written, one line for each.

    Example:
        >>> from pathlib import Path
        >>> from rich.console import Console
        >>> from gradatim.commands.show import print_written
        >>> print_written(Console(), [Path("loss.png")])
        wrote loss.png
    """
    for path in paths:
        console.print(f"wrote {path}", soft_wrap=True, markup=False)


def format_bytes(n_bytes: float) -> str:
    """Return a number of bytes for people, in powers of 1000.

    Example:
        >>> from gradatim.commands.show import format_bytes
        >>> format_bytes(12_345), format_bytes(12)
        ('12.3 kB', '12 bytes')
    """
    for unit in ("bytes", "kB", "MB", "GB"):
        if n_bytes < 1000 or unit == "GB":
            break
        n_bytes /= 1000
    return f"{n_bytes:,.0f} bytes" if unit == "bytes" else f"{n_bytes:,.1f} {unit}"
