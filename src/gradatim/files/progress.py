"""How far a file is, for whoever watches: a bar in a terminal, elsewhere a line now and then; on stderr.

Source: rich.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Self

SECONDS = 10.0
"""The least time between two lines where there is no terminal."""


class Bar:
    """A progress bar of one file, with what is found so far and the time left.

    Example:
        >>> with Bar(shown=True, what="learning train.csv") as watch:
        ...     watch.at(0.5, "20,000 rows, accuracy 0.871")
    """

    def __init__(self, shown: bool, what: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        self._console, self._what = Console(stderr=True, quiet=not shown), what
        self._said = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.fields[status]}", markup=False),
            TimeRemainingColumn(),
            console=self._console,
            refresh_per_second=4,
            transient=True,
            disable=not (shown and self._console.is_terminal),
        )
        self._task = self._bar.add_task(what, total=1.0, status="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def at(self, share: float, status: str) -> None:
        """Show the share that is done, and what is found so far."""
        self._bar.update(self._task, completed=share, status=status)
        if self._bar.disable and time.monotonic() - self._said >= SECONDS:
            self._said = time.monotonic()
            line = f"{self._what}: {share:.0%}, {status}"
            self._console.print(line, highlight=False, soft_wrap=True, markup=False)
