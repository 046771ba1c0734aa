"""`make study NAME=trust`: whether states can be trusted: cases, damage, kills, cuts, order, outliers, whose rows.

Every part of a figure is measured by a process and stored with the commit, so that a run that is interrupted goes on.

Source: the bars are this project's own, fixed before the run.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import time
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gradatim.comparison.report import write_result
from gradatim.files.checkpoint import write_bytes
from gradatim.provenance import commit, processes_on_threads
from studies.house.moved import validation

from . import damage, early, kills, landmarks, order, outliers, regression, streams, tried, updates
from .figure import Figure, Part, counted
from .page import PAGE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

FIGURES: dict[str, Figure] = {
    **tried.FIGURES,
    **damage.FIGURES,
    **updates.FIGURES,
    **kills.FIGURES,
    **streams.FIGURES,
    **order.FIGURES,
    **landmarks.FIGURES,
    **outliers.FIGURES,
    **early.FIGURES,
}
"""What is measured, in the order of the claims."""


def run(out: Path, smoke: bool, seeds: int, workers: int, console: Console) -> list[Path]:
    """Run the study; return trust.json and trust.md, written below `out`.

    A smoke run leaves out the validation tables. Nothing is meta-trained, so `seeds` changes nothing.

    Raises:
        ValueError: $GRADATIM_DATA is not set (a smoke run does not need it).
    """
    work = out / "work" / ("trust-smoke" if smoke else "trust")
    folder = parts_folder(work)
    measure(folder, smoke, workers, console)
    claims = [verdict for name in FIGURES for verdict in claims_of(name, folder, smoke)]
    if not smoke:
        console.print("one pass over each validation table, beside the ridge")
        now = validation(folder, workers, console)
        claims += regression.claims(regression.before()["validation"], now)
    before = regression.before()
    for verdict in claims:
        verdict["before"] = before["figures"].get(verdict["id"])
    result = {
        "benchmark": "trust",
        "smoke": smoke,
        "seeds": seeds,
        "commit": commit(),
        "torch": torch.__version__,
        "before": before["commit"],
        "records": [],
        "claims": claims,
    }
    return write_result(out, "trust", json.loads(json.dumps(result)), PAGE)


def parts_folder(work: Path) -> Path:
    """Return the folder of what this commit's code has measured; other code begins anew."""
    at = commit()
    folder = work / f"parts-{at}"
    if at is None or at.endswith("+"):  # changed since: no name for what it is
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def measure(folder: Path, smoke: bool, workers: int, console: Console, figures: Any = FIGURES) -> None:
    """Measure what is missing in the folder, `workers` parts at a time, each on one thread."""
    jobs = [
        (name, place)
        for name in figures
        for place in range(len(figures[name].parts(smoke)))
        if not stored(folder, name, place).exists()
    ]
    missing = Counter(name for name, _ in jobs)
    seconds = dict.fromkeys(figures, 0.0)
    deaths = Counter[tuple[str, int]]()
    for path in folder.glob("*.failed"):
        path.unlink()
    with processes_on_threads(1):
        while jobs:
            # a part beside which a process died is measured alone: which of them it was is not known
            chosen = [job for job in jobs if not deaths[job]] or jobs[:1]
            try:
                for (name, _), spent in _done(folder, smoke, workers, chosen):
                    seconds[name] += spent
                    missing[name] -= 1
                    if not missing[name]:
                        console.print(f"measured {name} in {seconds[name]:.0f} s of a core")
            except BrokenProcessPool as error:
                if not any(path.exists() for job in chosen for path in _results(folder, *job)):
                    raise ValueError("processes die before they measure anything: see above") from error
                for job in chosen:
                    _, failed, started = _results(folder, *job)
                    deaths[job] += started.exists() * (1 if len(chosen) > 1 else 2)
                    if deaths[job] > 1:
                        console.print(f"[red]the process that measured {failed.stem} died[/red]")
                        failed.write_text('{"failed": "the process died"}', encoding="utf-8")
                    started.unlink(missing_ok=True)
            jobs = [job for job in jobs if not any(path.exists() for path in _results(folder, *job))]


def _done(
    folder: Path, smoke: bool, workers: int, jobs: list[tuple[str, int]]
) -> Iterator[tuple[tuple[str, int], float]]:
    """Measure parts of figures, and yield each with its seconds."""
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        futures = {pool.submit(work_on, folder, smoke, *job): job for job in jobs}
        for future in as_completed(futures):
            yield futures[future], future.result()


def _results(folder: Path, name: str, place: int) -> tuple[Path, Path, Path]:
    """Return where the result of a part is stored, why there is none, and that it is being measured."""
    path = stored(folder, name, place)
    return path, path.with_suffix(".failed"), path.with_suffix(".begun")


def stored(folder: Path, name: str, place: int) -> Path:
    """Return where the result of a part of a figure is stored."""
    return folder / f"{name}-{place:03d}.json"


def work_on(folder: Path, smoke: bool, name: str, place: int) -> float:
    """Measure a part of a figure, store its result and return the seconds.

    Where it cannot be measured the reason is stored, which is measured again when the study goes on.
    """
    torch.set_num_threads(1)
    figure, begin = FIGURES[name], time.monotonic()
    path, failed, started = _results(folder, name, place)
    started.touch()
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = figure.measure(Path(scratch), **figure.parts(smoke)[place])
        except (Exception, SystemExit) as error:
            result = {"failed": f"{type(error).__name__}: {error}"[:500]}
            path = failed
    write_bytes(path, (without_folders(json.dumps(result)) + "\n").encode())
    started.unlink()
    return time.monotonic() - begin


def without_folders(text: str) -> str:
    """Return a text in which files of temporary folders have their names alone.

    Example:
        >>> without_folders("/tmp/tmp84lw1hm1/s.safetensors is damaged, /var/x/tmpab_c12de is there")
        's.safetensors is damaged, a folder is there'
    """
    text = re.sub(r"(?:/[\w.-]+)*/tmp[a-z0-9_]{8}/", "", text)
    return re.sub(r"(?:/[\w.-]+)*/tmp[a-z0-9_]{8}\b", "a folder", text)


def claims_of(name: str, folder: Path, smoke: bool) -> list[Part]:
    """Return the claims of a figure. Where a part could not be measured they have no value, and fail."""
    results = [_results(folder, name, place) for place in range(len(FIGURES[name].parts(smoke)))]
    paths, failed = (
        [path for path, *_ in results],
        [failed for path, failed, _ in results if not path.exists()],
    )
    if failed:
        reason = "it was not measured"
        if failed[0].exists():
            reason = json.loads(failed[0].read_text(encoding="utf-8"))["failed"]
        return [counted(claim, float("nan"), failed=reason) for claim in FIGURES[name].names]
    return FIGURES[name].claims([json.loads(path.read_text(encoding="utf-8")) for path in paths])
