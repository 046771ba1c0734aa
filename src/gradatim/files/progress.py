"""The progress through a file, on stderr: a bar in a terminal, a line from time to time elsewhere.

Source: rich.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Self

MIN_SECONDS = 10.0
"""The shortest time between two lines if there is no terminal."""


class Bar:
    """A progress bar for one file, with a status text and the remaining time.

    Args:
        visible: whether anything is printed.
        description: the text before the bar.

    Example:
        >>> from gradatim.files.progress import Bar
        >>> with Bar(visible=False, description="learning train.csv") as bar:
        ...     bar.update(0.5, "20,000 rows, accuracy 0.871")
    """

    def __init__(self, visible: bool, description: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        self._console, self._description = Console(stderr=True, quiet=not visible), description
        self._last_line = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.fields[status]}", markup=False),
            TimeRemainingColumn(),
            console=self._console,
            refresh_per_second=4,
            transient=True,
            disable=not (visible and self._console.is_terminal),
        )
        self._task = self._bar.add_task(description, total=1.0, status="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def update(self, share: float, status: str) -> None:
        """Show a share between 0 and 1 as done, and a status text."""
        self._bar.update(self._task, completed=share, status=status)
        if self._bar.disable and time.monotonic() - self._last_line >= MIN_SECONDS:
            self._last_line = time.monotonic()
            line = f"{self._description}: {share:.0%}, {status}"
            self._console.print(line, highlight=False, soft_wrap=True, markup=False)
