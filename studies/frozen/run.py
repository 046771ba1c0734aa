"""`make study NAME=frozen`: frozen models adapted, each way beside what could do without it.

Decision boundaries, reprogramming, guided dropout, and samplers of sequences. `parts.PARTS` says which parts there
are. Each stores its work, so that a run goes on.

Source: the bars are this project's own, fixed before the run.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from gradatim.provenance import on_threads
from studies.part import begin, run_parts
from studies.tables.verdicts import without_value

from .page import PAGE
from .parts import BARS, PARTS

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

PACKAGES = ("transformers", "peft")


def run(out: Path, smoke: bool, seeds: int, workers: int, console: Console) -> list[Path]:
    """Run the study. Return frozen.json, frozen.md and the picture, written below `out` anew after each part.

    `seeds`: of what is trained; a part that needs more has more. A smoke run has texts that are made up and a tiny
    random language model.

    Raises:
        ValueError: transformers or peft are not installed, or $GRADATIM_DATA is not set, which a smoke run does not
            need.
    """
    absent = [name for name in PACKAGES if find_spec(name) is None]
    if absent:
        raise ValueError(
            f"make study NAME=frozen needs {' and '.join(absent)}: pip install gradatim[language]"
        )
    study = begin("frozen", "images, texts and a language model", out, smoke, workers, console)
    with on_threads(1):
        return run_parts(
            PARTS, study, out, PAGE, lambda name, why: without_value(name, *BARS[name], why), smoke, seeds
        )
