"""`make study NAME=trust`: whether states can be trusted: cases, damage, kills, cuts, order, outliers, whose rows.

Every part of a figure is measured by a process and stored with the commit, so that a run that is interrupted goes on.

Source: the bars are this project's own, fixed before the run.
"""

from __future__ import annotations

import faulthandler
import json
import os
import re
import shutil
import signal
import tempfile
import time
import warnings
from collections import Counter
from contextlib import suppress
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
    from multiprocessing.process import BaseProcess

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

LONGEST, LONGEST_SMOKE = 3600.0, 300.0
"""Seconds that a part may take; then it hangs."""


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
    """Measure what is missing in the folder, `workers` parts at a time, each in a process of its own on one thread."""
    for path in folder.glob("*.failed"):
        path.unlink()
    jobs = [
        (name, place)
        for name in figures
        for place in range(len(figures[name].parts(smoke)))
        if not stored(folder, name, place).exists()
    ]
    missing = Counter(name for name, _ in jobs)
    seconds = dict.fromkeys(figures, 0.0)
    running: dict[tuple[str, int], tuple[BaseProcess, float]] = {}
    with processes_on_threads(1):
        try:
            while jobs or running:
                while jobs and len(running) < workers:
                    job = jobs.pop(0)
                    process = get_context("spawn").Process(target=work_alone, args=(folder, smoke, *job))
                    process.start()
                    running[job] = process, time.monotonic()
                time.sleep(0.02)
                for job, spent in _ended(folder, running, LONGEST_SMOKE if smoke else LONGEST, console):
                    name = job[0]
                    seconds[name] += spent
                    missing[name] -= 1
                    if not missing[name]:
                        console.print(f"measured {name} in {seconds[name]:.0f} s of a core")
        finally:
            for process, _ in running.values():
                _end(process)


def _ended(
    folder: Path, running: dict[tuple[str, int], tuple[BaseProcess, float]], longest: float, console: Console
) -> Iterator[tuple[tuple[str, int], float]]:
    """Take the parts out whose process has ended, or hangs and is ended now; yield each with its seconds."""
    for job, (process, begin) in [*running.items()]:
        spent = time.monotonic() - begin
        hangs = spent > longest and process.is_alive()
        if process.is_alive() and not hangs:
            continue
        _end(process, hangs)
        path, failed = _results(folder, *job)
        if not path.exists() and not failed.exists():
            reason = f"no end after {longest:.0f} s" if hangs else "the process died"
            console.print(f"[red]{failed.stem}: {reason}[/red]")
            failed.write_text(json.dumps({"failed": reason}), encoding="utf-8")
        del running[job]
        yield job, spent


def _end(process: BaseProcess, hangs: bool = False) -> None:
    """End a process and those that it began, if they are still there; where it `hangs` it prints where, first."""
    if process.pid is None:
        return
    if hangs:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGABRT)
        process.join(5)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # it leads a group, see `work_alone`
    process.kill()
    process.join()


def work_alone(folder: Path, smoke: bool, name: str, place: int) -> None:
    """Measure a part of a figure, as `work_on` does, in a process that leads a group of its own."""
    os.setpgid(0, 0)
    faulthandler.enable()
    work_on(folder, smoke, name, place)


def _results(folder: Path, name: str, place: int) -> tuple[Path, Path]:
    """Return where the result of a part is stored, and why there is none."""
    path = stored(folder, name, place)
    return path, path.with_suffix(".failed")


def stored(folder: Path, name: str, place: int) -> Path:
    """Return where the result of a part of a figure is stored."""
    return folder / f"{name}-{place:03d}.json"


def work_on(folder: Path, smoke: bool, name: str, place: int) -> None:
    """Measure a part of a figure and store its result.

    Where it cannot be measured the reason is stored, which is measured again when the study goes on.
    """
    torch.set_num_threads(1)
    figure = FIGURES[name]
    path, failed = _results(folder, name, place)
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = figure.measure(Path(scratch), **figure.parts(smoke)[place])
        except (Exception, SystemExit) as error:
            result = {"failed": f"{type(error).__name__}: {error}"[:500]}
            path = failed
    write_bytes(path, (without_folders(json.dumps(result)) + "\n").encode())


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
        [path for path, _ in results],
        [failed for path, failed in results if not path.exists()],
    )
    if failed:
        reason = "it was not measured"
        if failed[0].exists():
            reason = json.loads(failed[0].read_text(encoding="utf-8"))["failed"]
        return [counted(claim, float("nan"), failed=reason) for claim in FIGURES[name].names]
    return FIGURES[name].claims([json.loads(path.read_text(encoding="utf-8")) for path in paths])
