"""How many threads a command computes with: one for tables, unless the user says otherwise.

The learners of tables work in many small steps, so threads would wait for one another longer than they compute. On a
machine that others use as well, a fit would take many times as long.

Source: the OpenMP 5.2 specification, sections 21.1.2 (OMP_NUM_THREADS) and 21.1.7 (OMP_WAIT_POLICY).
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from ..provenance import on_threads

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace
    from rich.console import Console

    from .options import Command


def wait_passively() -> None:
    """Let waiting threads sleep instead of spin, unless the environment sets OMP_WAIT_POLICY.

    It has an effect only before torch is imported, because OpenMP reads OMP_WAIT_POLICY once.

    Example:
        >>> from gradatim.commands.threads import wait_passively
        >>> wait_passively()
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def with_threads(command: Command) -> Command:
    """Return a command of tables with an option `--threads`, which runs on that number of threads.

    By default it runs on OMP_NUM_THREADS threads, or on one if the environment does not set that.

    Raises:
        ValueError: when it runs with fewer than 1 thread.

    Example:
        >>> from gradatim.cli import COMMANDS
        >>> print(COMMANDS["fit"].parser("fit", []).format_help())  # doctest: +ELLIPSIS
        usage: gradatim fit ...
          --threads THREADS     threads to compute with (default: ...
    """

    def options(parser: ArgumentParser, arguments: list[str]) -> None:
        command.options(parser, arguments)
        parser.add_argument(
            "--threads",
            type=int | None,
            help="threads to compute with (default: OMP_NUM_THREADS, or 1, which is quickest for most tables)",
        )

    def run(options: Namespace, console: Console) -> None:
        count = options.pop("threads")
        if count is not None and count < 1:
            raise ValueError(f"--threads must be at least 1; got {count}")
        if count is None and "OMP_NUM_THREADS" not in os.environ:
            count = 1
        with nullcontext() if count is None else on_threads(count):
            command.run(options, console)

    return replace(command, options=options, run=run)
