"""The log and the progress of a run: JSON lines, TensorBoard events on request, a progress bar.

Source: the JSON Lines format, one line for each logged iteration.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..files.checkpoint import write_bytes

if TYPE_CHECKING:
    from typing import Self

    Record = dict[str, Any]


class Log:
    """The log of a run: `log.jsonl` in its folder, whose lines are in `records`.

    Args:
        folder: the run's folder, or None to keep the records in memory only.
        start: the iteration at which the run resumes. Lines of later iterations, from a killed run, are removed.
        tensorboard: whether event files are written as well.

    Raises:
        ValueError: the file cannot be written, or tensorboard is not installed.

    Example:
        >>> from pathlib import Path
        >>> from gradatim.training.log import Log, read_log
        >>> log = Log(Path("."))
        >>> log.add({"iteration": 20, "loss": 0.5})
        >>> read_log("log.jsonl")
        [{'iteration': 20, 'loss': 0.5}]
    """

    def __init__(self, folder: Path | None, start: int = 0, tensorboard: bool = False) -> None:
        self.path = None if folder is None else folder / "log.jsonl"
        self.records: list[Record] = []
        self._board = None
        if tensorboard and folder is not None:
            self._board = _board(folder / "tensorboard", start)
        if self.path is not None:
            if start and self.path.exists():
                self.records = [r for r in read_log(self.path) if r["iteration"] <= start]
            write_bytes(self.path, "".join(map(_line, self.records)).encode())

    def add(self, record: Record) -> None:
        """Append one record.

        Raises:
            ValueError: the file cannot be written.
        """
        self.records.append(record)
        if self.path is not None:
            try:
                with self.path.open("a") as file:
                    file.write(_line(record))
            except OSError as error:
                raise ValueError(
                    f"{self.path} could not be written ({error.strerror}): make room, then resume"
                ) from error
        if self._board is not None:
            for name in record.keys() - {"iteration"}:
                self._board.add_scalar(name, record[name], record["iteration"])

    def close(self) -> None:
        """Close the TensorBoard writer, if there is one."""
        if self._board is not None:
            self._board.close()


def read_log(path: Path | str) -> list[Record]:
    """Return the records of a log, without a last line that a kill cut short.

    Example:
        >>> from pathlib import Path
        >>> from gradatim.training.log import read_log
        >>> _ = Path("log.jsonl").write_text('{"iteration": 20}\\n{"itera')
        >>> read_log("log.jsonl")
        [{'iteration': 20}]
    """
    lines = Path(path).read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("}\n")]


class Watch:
    """A progress bar with loss, tasks per second and remaining time. Without a terminal it prints ten lines.

    Args:
        visible: whether anything is shown.
        total: the iterations of the run.
        start: the iteration at which the run resumes.

    Example:
        >>> from gradatim.training.log import Watch
        >>> with Watch(visible=False, total=2000) as watch:
        ...     watch.advance()
    """

    def __init__(self, visible: bool, total: int, start: int = 0) -> None:
        self._console = Console(stderr=True, quiet=not visible)
        self._total, self._iteration, self._tenth = total, start, -1
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            TimeRemainingColumn(),
            console=self._console,
            refresh_per_second=4,
            disable=not (visible and self._console.is_terminal),
        )
        self._task = self._bar.add_task("training", total=total, completed=start, status="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def print(self, sentence: str) -> None:
        """Show a sentence."""
        self._console.print(sentence, highlight=False, soft_wrap=True, markup=False)

    def advance(self) -> None:
        """Count one iteration."""
        self._iteration += 1
        if not self._bar.disable:
            self._bar.advance(self._task)

    def show(self, record: Record) -> None:
        """Show a record of the log."""
        status = f"loss {record['loss']:.4g}  {record['tasks_per_second']:,.0f} tasks/s"
        self._bar.update(self._task, status=status)
        tenth = 10 * self._iteration // self._total
        if self._bar.disable and tenth != self._tenth:
            self._tenth = tenth
            self.print(f"{self._iteration}/{self._total}  {status}  {record['seconds']:.0f} s")


def _line(record: Record) -> str:
    return json.dumps(record) + "\n"


def _board(folder: Path, start: int) -> Any:
    """Return a TensorBoard writer that continues after `start` iterations."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError("tensorboard logging needs tensorboard: pip install gradatim[track]") from error
    return SummaryWriter(str(folder), purge_step=start + 1 if start else None)
