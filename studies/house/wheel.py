"""The wheel as a user has it: built, installed into a folder of its own, and used from another one."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from gradatim.provenance import process_environment

from .wording import ROOT, lines

SCRIPT = Path(__file__).with_name("own_family.py")
"""A user's file: a family of her own that is trained, saved, shown, evaluated and compared."""

EXPECTED = ("parameters", "test tasks", "explicit-both", "maml", "ridge", "adam")
"""Words of what `info` and `eval` print, and the methods that are compared."""


@dataclass(frozen=True)
class Wheel:
    """A wheel that was built, and the folder that it was installed into.

    Attributes:
        folder: holds the package `gradatim` and nothing of the checkout.
        kilobytes: size of the file.
    """

    folder: Path
    kilobytes: float

    def run(self, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run Python with the installed package, in a folder, on one thread."""
        environment = process_environment(1) | {"PYTHONPATH": str(self.folder), "MPLBACKEND": "Agg"}
        return subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, cwd=cwd, env=environment
        )


def install(folder: Path) -> Wheel:
    """Build the wheel and install it, without dependencies, below a folder that is empty or not there.

    Raises:
        ValueError: pip failed, or Python imports gradatim from elsewhere.
    """
    folder = folder.resolve()
    target = folder / "installed"
    _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT))
    (file,) = folder.glob("gradatim-*.whl")
    _pip("install", "--no-deps", "--target", str(target), str(file))
    wheel = Wheel(target, file.stat().st_size / 1000)
    place = wheel.run("-c", "import gradatim; print(gradatim.__file__)", cwd=folder).stdout.strip()
    if target not in Path(place).parents:
        raise ValueError(f"Python must import gradatim from {target}; got {place or 'nothing'}")
    return wheel


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments, "-qq"]
    process = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PIP_NO_INDEX": "1"})
    if process.returncode:
        raise ValueError(f"pip {arguments[0]} failed: {process.stderr.strip()[-500:]}")


def own_family(wheel: Wheel, folder: Path) -> tuple[float, str]:
    """Return the lines of a user's file that works with the installed wheel from a folder, and why it does not.

    It works where it ends without an error, leaves weights behind and prints what was shown, evaluated and compared.
    The lines are infinite where it does not.
    """
    if not SCRIPT.exists():
        return float("inf"), f"{SCRIPT.name} is not there"
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / SCRIPT.name
    script.write_bytes(SCRIPT.read_bytes())
    process = wheel.run(script.name, cwd=folder)
    reason = problem(process, folder)
    return (float("inf") if reason else lines(script)), reason


def problem(process: subprocess.CompletedProcess[str], folder: Path) -> str:
    """Return what is missing of what a user's file should have done in a folder, or an empty text."""
    if process.returncode:
        return (process.stderr.strip() or process.stdout.strip())[-300:]
    if not list(folder.rglob("*.safetensors")):
        return "no weights were saved"
    missing = [word for word in EXPECTED if word not in process.stdout]
    return f"the output does not name {', '.join(missing)}" if missing else ""


def import_seconds(wheel: Wheel, repeats: int = 3) -> float:
    """Return the seconds that importing `Learner` adds to starting Python, the median of a few.

    `import gradatim` alone loads nothing: names are imported when they are used.
    """
    code = "from gradatim import Learner"
    times: dict[str, list[float]] = {code: [], "pass": []}
    for _ in range(repeats):
        for command, seconds in times.items():
            start = time.perf_counter()
            wheel.run("-c", command, cwd=wheel.folder)
            seconds.append(time.perf_counter() - start)
    return statistics.median(times[code]) - statistics.median(times["pass"])
