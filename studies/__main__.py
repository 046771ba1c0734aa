"""`python -m studies NAME`: run a study, or go on with one that was interrupted, and show its claims."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from rich.console import Console

from gradatim.commands.show import print_table, print_written
from gradatim.comparison.report import measured_text

from . import STUDIES, UNPUBLISHED, run


def main(arguments: list[str] | None = None) -> int:
    """Run one study. Return 0, 2 after an error (one line on stderr), or 130 when interrupted."""
    listing = "\n".join(f"  {name:10} {what}" for name, what in (STUDIES | UNPUBLISHED).items())
    parser = argparse.ArgumentParser(
        prog="python -m studies",
        description="Run a study: its records, claims, page and pictures, below --out. A second call goes on.",
        epilog=f"studies:\n{listing}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    workers = min(4, os.cpu_count() or 1)
    parser.add_argument("name", help="which study, see below")
    parser.add_argument("--smoke", action="store_true", help="smallest size: does it run, not what comes out")
    parser.add_argument("--seeds", type=int, help="meta-training seeds (default: 3; with --smoke 1)")
    parser.add_argument("--table", type=int, help="of paper: this table alone (default: all)")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/studies"), help="folder (default: runs/studies)"
    )
    parser.add_argument(
        "--workers", type=int, default=workers, help=f"processes at a time (default: {workers})"
    )
    options = parser.parse_args(arguments)
    seeds = options.seeds if options.seeds is not None else 1 if options.smoke else 3
    console = Console(width=None if sys.stdout.isatty() else 100, highlight=False)
    try:
        for name, count in (("--seeds", seeds), ("--workers", options.workers)):
            if count < 1:
                raise ValueError(f"{name} must be at least 1; got {count}")
        written = run(
            options.name, options.out, options.smoke, seeds, options.workers, console, options.table
        )
    except (ValueError, OSError) as error:
        print(f"studies: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("studies: interrupted; the same command goes on from what is recorded", file=sys.stderr)
        return 130
    show_claims(console, written)
    print_written(console, written)
    return 0


def show_claims(console: Console, written: list[Path]) -> None:
    """Show the claims in the JSON files that a study wrote."""
    rows = []
    for path in (path for path in written if path.suffix == ".json"):
        for claim in json.loads(path.read_text(encoding="utf-8")).get("claims", []):
            bar = f"{claim['direction']} {claim['bar']:g}"
            rows.append([claim["id"], measured_text(claim), bar, "holds" if claim["holds"] else "fails"])
    if rows:
        print_table(console, "claims", ["claim", "value", "bar", "verdict"], rows)


if __name__ == "__main__":
    raise SystemExit(main())
