"""`python -m studies.house.record FOLDER`: record the figures that later changes must not move, in `before.json`.

FOLDER holds the files of `studies.house.moved.measure`, such as `work/house/figures-COMMIT` below a study's output.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from gradatim.files.checkpoint import write_bytes

from .moved import BEFORE, figures, flat


def main(arguments: list[str] | None = None) -> int:
    """Write the figures of a folder and return 0, or 2 where the folder has none."""
    parser = argparse.ArgumentParser(prog="python -m studies.house.record", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--out", type=Path, default=BEFORE, help=f"file (default: {BEFORE.name} of the study)"
    )
    options = parser.parse_args(arguments)
    tree = figures(options.folder)
    if not tree:
        print(f"{options.folder} holds no JSON of a study: run make study NAME=house first")
        return 2
    write_bytes(options.out, (json.dumps(tree, separators=(",", ":")) + "\n").encode())
    print(f"wrote {sum(1 for _ in flat(tree))} figures to {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
