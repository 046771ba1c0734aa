"""`python -m studies.render [FILE.json ...]`: write pages and pictures from the JSON of studies. Nothing is run
again.
"""

from __future__ import annotations

import argparse
import json
from importlib import import_module
from pathlib import Path

from gradatim.comparison.report import Page, render

from . import STUDIES, UNPUBLISHED

RESULTS = Path(__file__).parents[1] / "docs" / "results"


def page_of(study: str) -> Page:
    """Return the page of a study.

    Raises:
        ValueError: no study has this name.
    """
    if study not in STUDIES | UNPUBLISHED:
        raise ValueError(f"no study is called {study!r}; studies: {', '.join(STUDIES | UNPUBLISHED)}")
    page: Page = import_module(f"studies.{study}.page").PAGE
    return page


def main(arguments: list[str] | None = None) -> int:
    """Render the files, by default those of all studies in docs/results. Return 0."""
    parser = argparse.ArgumentParser(prog="python -m studies.render", description=__doc__)
    parser.add_argument("files", nargs="*", type=Path, help="JSON of studies (default: docs/results)")
    options = parser.parse_args(arguments)
    for path in options.files or [RESULTS / f"{study}.json" for study in STUDIES]:
        path = path if path.exists() else RESULTS / path.name
        data = json.loads(path.read_text(encoding="utf-8"))
        for written in render(path, page_of(data["benchmark"])):
            print(written)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
