"""The command line: odd words, odd files; processes that read, write and are killed."""

import os
import signal
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from gradatim.estimators import RefinedClassifier

from ..case_tools import call, child, fault_of, leftovers
from .damaged import MARKS, bytes_of, tables
from .judge import FAILED, attempt

WORDS = (
    "0", "-1", "1e3", "1.5", "nan", "inf", "a", "a,b", ",", '"', "x,x", "", " ", "/", "/dev/null", ".",
    "none", "\0", "é",
    "auto", "regression", "classification", "999999999999999999999", "0.1,0.5", "0.5,0.5", "y", "x", "w",
    "--", "{}", "[1]",
    "true", "null", "\t", ";", "utf-16", "cp1252", "latin-1", "rot13", "zip", "*", "**", "?", "~", "$HOME",
)  # fmt: skip
OPTIONS = {
    "fit": ("--task", "--batch-size", "--seed", "--classes", "--drop", "--text", "--delimiter",
    "--decimal", "--missing",
            "--encoding", "--columns", "--id", "--weight", "--header", "--target", "--threads"),
    "update": ("--out", "--delimiter", "--missing", "--encoding", "--weight", "--id", "--header", "--drop",
    "--threads"),
    "predict": ("--quantiles", "--proba", "--id", "--drop", "--delimiter", "--decimal", "--encoding",
    "--out", "--threads"),
    "info": ("--check",),
}  # fmt: skip


@cache
def good_state() -> bytes:
    """Return the state of a small table."""
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "f.csv").write_text(
            "x,w,y\n" + "".join(f"{i % 9},{'ab'[i % 2]},{'uv'[i % 9 > 4]}\n" for i in range(40))
        )
        call("fit", folder / "f.csv", "--target", "y", "--state", folder / "s")
        return (folder / "s").read_bytes()


def words_of(rng: np.random.Generator, folder: Path) -> str:
    """Call a command with odd options and an odd file: it ends with 0, or with 2 and one helpful line."""
    name = list(OPTIONS)[rng.integers(len(OPTIONS))]
    (folder / "s").write_bytes(good_state())
    (folder / "g.csv").write_text("x,w,y\n1,a,u\n2,b,v\n3,a,u\n")
    file = folder / "g.csv"
    if rng.random() < 0.3:
        file = folder / "odd.csv"
        file.write_bytes(bytes_of(rng, b"x,w,y\n1,a,u\n2,b,v\n3,a,u\n")[0])
    elif rng.random() < 0.2:
        file = folder / "text.csv"
        text = "x,w,y\n" + "".join(MARKS[i] for i in rng.integers(0, len(MARKS), 30))
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
    elif rng.random() < 0.1:
        file = folder / list(tables())[rng.integers(len(tables()))]
        file.write_bytes(tables()[file.name])
    words: list[Any] = [name, file if name != "info" else folder / "s"]
    if name == "fit":
        words += ["--target", "y", "--state", folder / "new"]
    elif name != "info":
        words += ["--state", folder / "s"]
    words += ["--out", folder / "out.csv"] if name == "predict" else []
    for _ in range(int(rng.integers(0, 3))):
        option = OPTIONS[name][rng.integers(len(OPTIONS[name]))]
        value = WORDS[rng.integers(len(WORDS))]
        if option in ("--out",) and value not in ("", " ", "/", ".", "/dev/null"):
            continue
        words += [option] if option in ("--proba", "--check") else [option, value]
    before = (folder / "s").read_bytes()
    done, fault = attempt(call, *words, stdin=b"")
    shown = " ".join(str(word).replace(str(folder), "DIR") for word in words)
    shown = f"gradatim {shown} ({file.read_bytes()[:100] if file.exists() else ''!r})"
    if fault:
        return f"{shown}: {fault}"
    if done.code not in (0, 2):
        return f"{shown}: exit {done.code}"
    if done.code == 2:
        if done.err.count("\n") != 1 or not done.err.startswith("gradatim: "):
            return f"{shown}: not one line but {done.err[:200]!r}"
        if fault := fault_of(done.err):
            return f"{shown}: {fault}: {done.err[:300]!r}"
        if name == "update" and (folder / "s").read_bytes() != before:
            return f"{shown}: refused, but the state has changed"
    if (
        done.code == 0 and "nan" in (folder / "out.csv").read_text()
        if (folder / "out.csv").exists()
        else False
    ):
        return f"{shown}: nan is written"
    return f"{shown}: {leftovers(folder)} is left" if leftovers(folder) else ""


def readers_and_writers(rng: np.random.Generator, folder: Path) -> str:
    """Load a state again and again while two threads save others there."""
    models = []
    for seed in range(2):
        X = np.random.default_rng(seed).normal(size=(20 + seed, 2))
        models.append(RefinedClassifier().partial_fit(X, np.where(X[:, 0] > 0, f"a{seed}", f"b{seed}")))
    path = models[0].save(folder / "s")
    done, faults = threading.Event(), []

    def save(model: Any) -> None:
        while not done.is_set():
            try:
                model.save(path)
            except ValueError as error:
                if fault := fault_of(str(error)):
                    faults.append(f"{fault}: {error}")
            except BaseException as error:
                faults.append(repr(error))
                return

    threads = [threading.Thread(target=save, args=[model]) for model in models]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            loaded, fault = attempt(RefinedClassifier.load, path)
            if fault or loaded is FAILED:
                return f"a state that is being replaced: {fault}"
            seed = int(loaded.task_.rows) - 20
            if loaded.classes_.tolist() != [f"a{seed}", f"b{seed}"]:
                return f"a state that is being replaced: {loaded.task_.rows} rows and the classes {loaded.classes_}"
    finally:
        done.set()
        for thread in threads:
            thread.join()
    return f"two threads save one state: {faults[0]}" if faults else ""


def save_for_ever(path: str, started: str, rows: int) -> None:
    """Save a state again and again, to be killed without a word."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    X = np.random.default_rng(0).normal(size=(rows, 2))
    model = RefinedClassifier().partial_fit(X, X[:, 0] > 0)
    Path(started).touch()
    while True:
        model.save(path)


def kill(rng: np.random.Generator, folder: Path) -> str:
    """Kill a process that saves: a whole state is there, and after the next save nothing else."""
    path, started = folder / "s", folder / "started"
    number = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)[rng.integers(3)]
    model = RefinedClassifier().partial_fit([[0.0], [1.0]], [0, 1])
    model.save(path)
    process = child(save_for_ever, str(path), str(started), int(rng.choice([20, 280])))
    deadline = time.monotonic() + 60
    while not started.exists():
        if time.monotonic() > deadline:
            process.kill()
            return "a process that saves does not start"
        time.sleep(0.005)
    time.sleep(float(rng.random() * 0.1))
    os.kill(process.pid, number)
    process.join(20)
    loaded, fault = attempt(RefinedClassifier.load, path)
    if fault:
        return f"a state after {number.name}: {fault}"
    loaded.save(path)
    return f"{leftovers(folder)} is left after {number.name} and the next save" if leftovers(folder) else ""
