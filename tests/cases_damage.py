"""Cases E1 to E16: files, processes, damage, and what a state holds about people."""

import copy
import datetime
import errno
import gzip
import json
import os
import resource
import signal
import struct
import threading
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import sparse

from gradatim import LinearRegression, build
from gradatim.cli import main
from gradatim.estimators import RefinedClassifier, RefinedRegressor
from gradatim.families.archives import read_npz
from gradatim.families.images import read_idx
from gradatim.files.checkpoint import read
from gradatim.preprocessing import read_columns
from gradatim.training.states import load_state, save_state

from .case_tools import call, cases_into, child, fit, joined, leftovers, quiet_main, raises, refused, write

DAMAGE: dict[str, Callable[[Path], None]] = {}
DAMAGED = (ValueError,)
"""What reading a damaged file may raise."""


case = cases_into(DAMAGE)


def table(rows: int, seed: int = 0, columns: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of numbers and their classes."""
    X = np.random.default_rng(seed).normal(size=(rows, columns))
    return X, np.where(X[:, 0] + X[:, 1] > 0, "yes", "no")


def rows_in(state: Path) -> float:
    """Return how many rows a state has learnt."""
    return read(state)[1]["rows"]


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """End what hangs."""

    def stop(*_: Any) -> None:
        raise AssertionError(f"it hangs: no end after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@case("E1")
def no_update_is_lost(folder: Path) -> None:
    X, y = table(300)
    fit(folder, pd.DataFrame(X, columns=list("abc")).assign(y=y))
    total = rows_in(folder / "s")
    for pair in range(4):
        jobs = []
        for side in range(2):
            X, y = table(40 + side, seed=pair)
            file = write(folder / f"more{side}.csv", pd.DataFrame(X, columns=list("abc")).assign(y=y))
            words = ["update", str(file), "--state", str(folder / "s"), "--quiet"]
            jobs.append((folder / f"code{side}", child(quiet_main, folder / f"code{side}", words), 40 + side))
        for code, process, more in jobs:
            process.join(60)
            said = code.read_text()
            assert said.startswith(("0\n", "2\n")), said
            total += more * said.startswith("0\n")
    assert rows_in(folder / "s") == total and total > 300
    assert not leftovers(folder)


@case("E2")
def a_state_bears_its_updates(folder: Path) -> None:
    rng = np.random.default_rng(2)

    def rows(n: int) -> np.ndarray:
        Z = rng.normal(size=(n, 8))
        return np.hstack([Z[:, :1], Z[:, :1] + 1e-3 * Z[:, 1:]])

    def labels(X: np.ndarray) -> np.ndarray:
        return (X.sum(1) + 0.1 * rng.normal(size=len(X)) > 0).astype(int)

    X, new = rows(2000), rows(50)
    model = RefinedClassifier().partial_fit(X, labels(X), sample_weight=np.full(2000, 1e3))
    never = copy.deepcopy(model)
    for _ in range(40):
        model = RefinedClassifier.load(model.save(folder / "s"))
        more = rows(8)
        y = labels(more)
        model.partial_fit(more, y)
        never.partial_fit(more, y)
    assert np.abs(model.predict_proba(new) - never.predict_proba(new)).max() <= 1e-6
    mean = RefinedRegressor().partial_fit(X, X.sum(1), sample_weight=np.full(2000, 1e4))
    unsaved = copy.deepcopy(mean)
    for _ in range(20):
        mean = RefinedRegressor.load(mean.save(folder / "r"))
        more = rows(8)
        mean.partial_fit(more, more.sum(1))
        unsaved.partial_fit(more, more.sum(1))
    np.testing.assert_allclose(mean.predict(new), unsaved.predict(new), rtol=1e-6, atol=1e-6)


@case("E3")
def what_is_saved_is_finite(folder: Path) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(512, 3))
    zeros, spike = np.zeros(256), np.zeros(512)
    spike[300] = 1e60
    for early, late in (
        (zeros, 1e45 * X[256:, 0]),
        (np.full(256, 1e99), np.full(256, 1e99)),
        (spike[:256], spike[256:]),
        (X[:256, 0], 1e90 * X[256:, 0]),
        (1e-300 * X[:256, 0], 1e-300 * X[256:, 0]),
        (1e-60 * X[:256, 0], 1e40 * X[256:, 0]),
    ):
        model = RefinedRegressor().partial_fit(X[:256], early)
        try:
            model.partial_fit(X[256:], late)
            path = model.save(folder / "s")
        except ValueError:
            assert np.isfinite(model.predict(X)).all()
            continue
        again = RefinedRegressor.load(path)
        assert np.isfinite(model.predict(X)).all()
        np.testing.assert_allclose(again.predict(X), model.predict(X), rtol=1e-6)
        assert not np.isnan(again.predict(X, quantiles=[0.1, 0.9])).any()


@case("E4")
def weights_of_any_size(folder: Path) -> None:
    X, y = table(300)
    for weight in (1e160, 1e300, 1e-160, 1e-300, 5e-324, 1.7e308):
        for weights in (np.full(300, weight), np.where(np.arange(300) % 2, 1.0, weight)):
            for start in (None, 260):
                model = RefinedClassifier() if start is None else RefinedClassifier().fit(X, y)
                wanted = None if start is None else model.predict_proba(X)
                try:
                    call = model.fit if start is None else model.partial_fit
                    call(X, y, sample_weight=weights)
                except ValueError as error:
                    assert "sample_weight" in str(error) or "weight" in str(error), str(error)
                    if wanted is not None:
                        np.testing.assert_array_equal(model.predict_proba(X), wanted)
                    continue
                p = model.predict_proba(X)
                assert np.isfinite(p).all() and np.abs(p.sum(1) - 1).max() < 1e-9
                again = RefinedClassifier.load(model.save(folder / "s"))
                np.testing.assert_allclose(again.predict_proba(X), p, atol=1e-6)
    with raises("sample_weight"):
        RefinedRegressor().fit(X, X[:, 0], sample_weight=np.full(300, np.inf))


@case("E5")
def cuts_of_a_stream_change_nothing(folder: Path) -> None:
    rng = np.random.default_rng(0)
    n = 400
    X, y = table(n)
    days = np.array([datetime.date(2024, 1, 1) + datetime.timedelta(int(d)) for d in rng.integers(0, 90, n)])
    words = rng.choice(["red", "green", "blue", None, *(f"w{i}" for i in range(30))], n)
    frame = pd.DataFrame({"a": X[:, 0], "b": X[:, 1], "day": days, "word": words})
    frame.loc[rng.random(n) < 0.1, "a"] = np.nan
    for table_of, estimator, target in (
        (frame, RefinedClassifier, y),
        (frame, RefinedRegressor, X[:, 0] * 3 + X[:, 1]),
        (pd.DataFrame(X), RefinedClassifier, y),
    ):
        extra = {"classes": ["no", "yes"]} if estimator is RefinedClassifier else {}
        results = {}
        for size in (n, 500, 1, 7, 10, 32, 50, 100, 257, 399):
            model = estimator()
            for start in range(0, n, size):
                part = slice(start, start + size)
                model.partial_fit(table_of.iloc[part], target[part], **extra)
            results[size] = (
                model.predict_proba(frame_like(table_of)) if extra else model.predict(frame_like(table_of))
            )
        for size, result in results.items():
            scale = np.abs(results[n]).max()
            assert np.abs(result - results[n]).max() <= 1e-9 * scale, f"calls of {size} rows: other answers"


def frame_like(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the first rows, to be predicted."""
    return frame.iloc[:60]


@case("E6")
def a_row_is_answered_by_itself(folder: Path) -> None:
    rng = np.random.default_rng(0)
    n = 320
    day = datetime.date(2024, 1, 1)
    mixtures: dict[str, list[Any]] = {
        "dates and words": [day, "unknown", datetime.date(2024, 5, 5), "late"],
        "numbers and words": [1, "x", 2.5, "3"],
        "truth values and words": [True, "x", False, "True"],
        "dates and numbers": [day, 3, datetime.date(2024, 5, 5), 4.5],
        "stamps and words": [pd.Timestamp("2024-01-01 10:00"), "x", pd.Timestamp("2024-05-05"), "y"],
    }
    for name, cells in mixtures.items():
        code = rng.integers(0, 4, n)
        column = np.empty(n, dtype=object)
        column[:] = [cells[c] for c in code]
        frame = pd.DataFrame({"c": column, "x": rng.normal(size=n)})
        model = RefinedClassifier().partial_fit(frame, code > 1)
        every = np.empty(8, dtype=object)
        every[:] = [*cells, *cells]
        asked = pd.DataFrame({"c": every, "x": np.linspace(-1, 1, 8)})
        together = model.predict_proba(asked)
        for row in range(8):
            alone = model.predict_proba(asked.iloc[[row]])
            np.testing.assert_allclose(alone[0], together[row], atol=1e-12, err_msg=name)
        np.testing.assert_allclose(
            model.predict_proba(asked.iloc[:4:2]), together[:4:2], atol=1e-12, err_msg=name
        )


@case("E7")
def labels_and_ids_beyond_two_to_the_53(folder: Path) -> None:
    big = 2**53
    X = np.arange(40.0)[:, None] % 4
    signed = np.array([big + 1, big + 2] * 20, dtype=np.int64)
    unsigned = np.array([big + 2, big + 3] * 20, dtype=np.uint64)
    for first, second in ((signed, unsigned), (unsigned, signed), (signed, unsigned.astype(np.int64))):
        model = RefinedClassifier().partial_fit(X, first).partial_fit(X, second)
        assert [int(label) for label in model.classes_] == [big + 1, big + 2, big + 3]
    top = np.array([2**63, 2**63 + 1] * 20, dtype=np.uint64)
    assert [int(c) for c in RefinedClassifier().fit(X, top).classes_] == [2**63, 2**63 + 1]
    again = RefinedClassifier.load(RefinedClassifier().fit(X, top).save(folder / "s"))
    assert [int(c) for c in again.classes_] == [2**63, 2**63 + 1]
    for first_id in (2**53 + 1, 2**60):
        ids = np.array([first_id + i % 4 for i in range(400)])
        y = np.arange(400) % 4 > 1
        for X in (pd.DataFrame({"id": ids}), pd.DataFrame({"id": ids.astype(np.uint64)}), ids[:, None]):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                model = RefinedClassifier().fit(X, y)
                right = np.mean(model.predict(X) == y)
            assert right > 0.98 or any("id" in str(w.message) or "x0" in str(w.message) for w in caught)


@case("E8")
def a_read_is_of_one_state(folder: Path) -> None:
    path, states = folder / "s", {}
    for rows, seed in ((260, 0), (320, 1)):
        X, y = table(rows, seed)
        model = RefinedClassifier().fit(X, y if seed else np.where(y == "yes", "ja", "nein"))
        model.save(folder / str(seed))
        states[float(rows)] = ((folder / str(seed)).read_bytes(), RefinedClassifier.load(folder / str(seed)))
    X, done = table(5, 9)[0], threading.Event()
    wanted = {rows: (model.classes_.tolist(), model.predict_proba(X)) for rows, (_, model) in states.items()}

    def swap() -> None:
        while not done.is_set():
            for content, _ in states.values():
                (folder / "next").write_bytes(content)
                os.replace(folder / "next", path)

    path.write_bytes(states[260.0][0])
    writer = threading.Thread(target=swap)
    writer.start()
    try:
        for _ in range(60):
            model = RefinedClassifier.load(path)
            labels, p = wanted[model.task_.rows]
            assert model.classes_.tolist() == labels
            np.testing.assert_array_equal(model.predict_proba(X), p)
    finally:
        done.set()
        writer.join()


def parts_of(content: bytes) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """Return the entries, our header and the tensors of a file."""
    length = int.from_bytes(content[:8], "little")
    entries = json.loads(content[8 : 8 + length])
    return entries, json.loads(entries["__metadata__"]["gradatim"]), content[8 + length :]


def still_right(estimator: Any, path: Path, X: np.ndarray, wanted: np.ndarray) -> None:
    """Load a damaged state, which is refused or answers as before."""
    with at_most(5), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a note, such as of a device that is not there
        try:
            model = estimator.load(path)
            p = model.predict_proba(X) if hasattr(model, "predict_proba") else model.predict(X)
        except DAMAGED as error:
            assert str(path) in str(error), str(error)
            return
    assert np.array_equal(p, wanted), "a damaged state was loaded and answers otherwise"


@case("E9")
def flipped_bits_are_noticed(folder: Path) -> None:
    X, y = table(300)
    rng = np.random.default_rng(0)
    early = RefinedClassifier().partial_fit(X[:40], y[:40])
    for model in (RefinedClassifier().fit(X, y), RefinedRegressor().fit(X, X[:, 0]), early):
        path = model.save(folder / "s")
        again = type(model).load(path)
        content = path.read_bytes()
        wanted = again.predict_proba(X) if hasattr(again, "predict_proba") else again.predict(X)
        start = 8 + int.from_bytes(content[:8], "little")
        for place in rng.integers(start, len(content), 25).tolist():
            damaged = bytearray(content)
            damaged[place] ^= 1 << rng.integers(8)
            path.write_bytes(damaged)
            still_right(type(model), path, X, wanted)
    family = LinearRegression(3)
    learner = build("ridge", family)
    task = family.sample(1, torch.Generator().manual_seed(0))
    path = save_state(folder / "l", learner.adapt(task.support, 16), learner)
    content = path.read_bytes()
    for place in rng.integers(8 + int.from_bytes(content[:8], "little"), len(content), 20).tolist():
        damaged = bytearray(content)
        damaged[place] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        with raises(str(path)):
            load_state(path, learner)


@case("E10")
def a_header_is_checked_before_it_is_used(folder: Path) -> None:
    X, y = table(300)
    path = RefinedClassifier().fit(X, y).save(folder / "s")
    wanted = RefinedClassifier.load(path).predict_proba(X)
    entries, header, tensors = parts_of(path.read_bytes())
    os.mkfifo(folder / "fifo")
    changes: list[tuple[str, Any]] = [
        ("params.model", str(folder / "fifo")),
        ("params.model", str(folder)),
        ("params.model", 5),
        ("params.n_estimators", 10**9),
        ("params.n_estimators", "many"),
        ("params.batch_size", -1),
        ("params.batch_size", 10**30),
        ("params.device", "nowhere"),
        ("params.random_state", [1]),
        ("params.more", 1),
        ("params", None),
        ("classes.labels", [f"{i:07}" for i in range(10**5)]),
        ("classes.labels", ["yes", "no"]),
        ("classes.labels", ["a", "a"]),
        ("classes.labels", [1, "a"]),
        ("classes.dtype", "V1000000000"),
        ("rows", -5),
        ("rows", "many"),
        ("rows", float("nan")),
        ("target", [0.0, 0.0]),
        ("target", [float("nan"), 1.0]),
        ("seeds", [0] * 1000),
        ("seeds", []),
        ("n_features", 10**9),
        ("feature_names", ["a"]),
        ("map", None),
        ("map.columns", []),
        ("map.columns.0.std", 0.0),
        ("map.columns.0.std", float("inf")),
        ("map.columns.0.mean", None),
        ("map.columns.0.kind", "thing"),
        ("warm", {"names": ["a"], "named": False, "words": {}}),
        ("features", 99),
        ("estimator", "os.system"),
        ("kind", "checkpoint"),
        ("gradatim_format", 10**9),
        ("gradatim_format", [1]),
    ]
    for name, value in changes:
        changed = copy.deepcopy(header)
        place, *path_of = [int(part) if part.isdigit() else part for part in name.split(".")][::-1]
        at: Any = changed
        for part in path_of[::-1]:
            at = at[part]
        at[place] = value
        path.write_bytes(joined(entries, json.dumps(changed), tensors))
        still_right(RefinedClassifier, path, X, wanted)
        assert call("info", path).code in (0, 2)
    for name, value in (("shape", [10**12]), ("dtype", "F128"), ("data_offsets", [0, 10**15])):
        changed = copy.deepcopy(entries)
        changed[next(key for key in changed if key != "__metadata__")][name] = value
        path.write_bytes(joined(changed, json.dumps(header), tensors))
        still_right(RefinedClassifier, path, X, wanted)
    path.write_bytes(joined(entries, json.dumps(header | {"note": "x" * 20_000_000}), tensors))
    with raises(str(path)):
        RefinedClassifier.load(path)
    changed = copy.deepcopy(header)
    changed["params"]["device"] = "cuda"  # a state of another machine
    path.write_bytes(joined(entries, json.dumps(changed), tensors))
    if not torch.cuda.is_available():
        np.testing.assert_array_equal(RefinedClassifier.load(path).predict_proba(X), wanted)


def save_for_ever(path: Path, started: Path) -> None:
    """Save a state again and again, to be killed."""
    X, y = table(260)
    model = RefinedClassifier().fit(X, y)
    started.touch()
    while True:
        model.save(path)


@case("E11")
def temporary_files(folder: Path) -> None:
    X, y = table(260)
    model = RefinedClassifier().fit(X, y)
    victim = write(folder / "victim", "precious")
    os.symlink(victim, folder / f".s.{os.getpid()}.tmp")
    model.save(folder / "s")
    assert victim.read_text() == "precious" and (folder / "s").is_file() and not (folder / "s").is_symlink()
    with suppress(FileNotFoundError):
        os.unlink(folder / f".s.{os.getpid()}.tmp")
    for number in range(3):
        process = child(save_for_ever, folder / "s", folder / f"started{number}")
        with at_most(30):
            while not (folder / f"started{number}").exists():
                time.sleep(0.01)
        time.sleep(0.02 + 0.013 * number)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        RefinedClassifier.load(folder / "s").save(folder / "s")
        assert not leftovers(folder), leftovers(folder)
    faults: list[str] = []

    def save() -> None:
        for _ in range(8):
            try:
                model.save(folder / "s")
            except ValueError as error:
                faults.append("" if "process" in str(error) or "lock" in str(error) else str(error))
            except BaseException as error:
                faults.append(repr(error))

    threads = [threading.Thread(target=save) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not any(faults), faults
    RefinedClassifier.load(folder / "s")
    assert not leftovers(folder)


def in_little_memory(function_name: str, report: Path) -> None:
    """Run a function of this module with 3 GB more than now, and write how it ended."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + 3 * 10**9, resource.RLIM_INFINITY))
    try:
        globals()[function_name]()
    except (ValueError, TypeError) as error:
        report.write_text(f"refused\n{error}")
    except BaseException as error:
        report.write_text(f"failed\n{error!r}")
    else:
        report.write_text("learned\n")


def wide_table() -> None:
    """Learn 12,000 columns."""
    X = np.random.default_rng(0).normal(size=(300, 12_000))
    model = RefinedClassifier().partial_fit(X, X[:, 0] > 0)
    assert np.isfinite(model.predict_proba(X[:5])).all()


def many_classes() -> None:
    """Learn 10,000 classes."""
    X = np.random.default_rng(0).normal(size=(10_000, 2))
    model = RefinedClassifier().partial_fit(X[:400], np.arange(400), classes=np.arange(10_000))
    assert np.isfinite(model.predict_proba(X[:5])).all()


def sparse_columns() -> None:
    """Learn 10^6 sparse columns."""
    X = sparse.random_array((300, 10**6), density=1e-6, format="csr", rng=np.random.default_rng(0))
    model = RefinedRegressor().partial_fit(X, np.arange(300.0))
    assert np.isfinite(model.predict(X[:5])).all()


@case("E12")
def sizes_are_said_before_they_are_tried(folder: Path) -> None:
    frame = pd.DataFrame(np.zeros((3, 20_000)), columns=[f"column {i}" for i in range(20_000)])
    started = time.process_time()
    read_columns(frame)
    read_columns(frame.astype({"column 5": object}))
    assert time.process_time() - started < 8  # quadratic in columns took 23 s
    for name, numbers in (("wide_table", "12"), ("many_classes", "10"), ("sparse_columns", "1")):
        report = folder / name
        process = child(in_little_memory, name, report)
        process.join(15)
        if process.is_alive():
            process.kill()
            process.join()
            raise AssertionError(f"{name}: no word after 15 s")
        assert report.exists(), f"{name}: the process ended without a word ({process.exitcode})"
        how, _, sentence = report.read_text().partition("\n")
        assert how in ("learned", "refused"), f"{name}: {sentence}"
        assert how == "learned" or numbers in sentence, sentence


@case("E13")
def archives_of_arrays(folder: Path) -> None:
    def npy(header: str, data: bytes = b"") -> bytes:
        text = header.encode() + b"\n"
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data

    good_one = npy("{'descr': '<f8', 'fortran_order': False, 'shape': (2,)}", b"\0" * 16)
    members = {
        "huge": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}"),
        "wraps": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (4294967296, 4294967296)}"),
        "negative": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}"),
        "token": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (2,"),
        "type": npy("{'descr': 'V999999999', 'fortran_order': False, 'shape': (2,)}"),
        "object": npy("{'descr': '|O', 'fortran_order': False, 'shape': (2,)}", b"\0" * 16),
        "short": good_one[:-3],
        "empty": b"",
        "text": b"hello",
    }
    for content in members.values():
        with zipfile.ZipFile(folder / "a.npz", "w") as archive:
            archive.writestr("x.npy", content)
        with at_most(5), raises("a.npz"):
            read_npz(folder / "a.npz")
    whole = (folder / "a.npz").read_bytes()
    write(folder / "b.npz", whole[:-10])
    with raises("b.npz"):
        read_npz(folder / "b.npz")
    with zipfile.ZipFile(folder / "e.npz", "w") as archive:
        archive.writestr("x.npy", good_one)
    content = bytearray((folder / "e.npz").read_bytes())
    content[content.find(b"PK\x01\x02") + 8] |= 1  # "encrypted"
    write(folder / "e.npz", bytes(content))
    with raises("e.npz"):
        read_npz(folder / "e.npz")
    idx = {
        "wraps": b"\0\0\x08\x03" + struct.pack(">3I", 2**31, 2**31, 4) + b"\0" * 8,
        "big": b"\0\0\x08\x03" + struct.pack(">3I", 2**32 - 1, 2**32 - 1, 2**32 - 1),
        "short": b"\0\0\x08\x01" + struct.pack(">I", 5) + b"\0\0",
        "dimensions": b"\0\0\x08\xff" + b"\0\0\0\1" * 255,
        "type": b"\0\0\x77\x01" + struct.pack(">I", 1) + b"\0",
        "empty": b"",
    }
    for name, content in idx.items():
        for file in (
            write(folder / f"{name}.idx", content),
            write(folder / f"{name}.idx.gz", gzip.compress(content)),
        ):
            with at_most(5), raises(name):
                read_idx(file)


@contextmanager
def interrupted(number: int, seconds: float) -> Iterator[None]:
    """Send a signal to this process after some time."""
    before = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(number))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@case("E14")
def messages_of_what_happened(folder: Path) -> None:
    X, y = table(3000)
    frame = pd.DataFrame(X, columns=list("abc")).assign(y=y)
    fit(folder, frame.head(300))
    write(folder / "more.csv", frame)
    words = ["more.csv", "--state", folder / "s", "--quiet"]
    words[0] = folder / "more.csv"
    for number, seconds in (
        (signal.SIGINT, 0.002),
        (signal.SIGINT, 0.02),
        (signal.SIGINT, 0.08),
        (signal.SIGTERM, 0.05),
    ):
        before = (folder / "s").read_bytes()
        done = None
        with suppress(KeyboardInterrupt), interrupted(number, seconds):
            done = copy_context().run(
                call, "update", *words
            )  # a parser that is cut off leaves its settings changed
        assert done is not None, "a traceback instead of a line"
        if done.code:
            assert done.code in (130, 143) and "--resume" not in done.err and done.err.count("\n") == 1, done
            assert (folder / "s").read_bytes() == before
        assert not leftovers(folder)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))  # as a full disk does, a write fails
    try:
        for name in ("out.csv", "out.parquet"):
            line = refused(
                "predict", words[0], "--state", folder / "s", "--out", folder / name, "--quiet", "--proba"
            )
            assert str(folder / name) in line and not (folder / name).exists()
        before = (folder / "s").read_bytes()
        assert str(folder / "s") in refused("update", *words)
        assert (folder / "s").read_bytes() == before
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not leftovers(folder)
    os.symlink("b.csv", folder / "a.csv")
    os.symlink("a.csv", folder / "b.csv")
    assert "a.csv" in refused("update", folder / "a.csv", "--state", folder / "s")
    assert "a.csv" in refused("fit", folder / "a.csv", "--target", "y", "--state", folder / "new")
    assert "a.csv" in refused("predict", folder / "a.csv", "--state", folder / "s", "--out", folder / "o.csv")
    assert "a.csv" in refused("info", folder / "a.csv")
    assert "a.csv" in refused("predict", words[0], "--state", folder / "a.csv", "--out", folder / "o.csv")
    assert call("predict", words[0], "--state", folder / "s", "--out", folder / "a.csv").code == 2
    assert errno.ELOOP and main(["list", "maml"]) == 0


@case("E15")
def a_fork_merges_once(folder: Path) -> None:
    X, y = table(900)
    base = RefinedClassifier().partial_fit(X[:300], y[:300])
    fork, second = base.fork().partial_fit(X[300:600], y[300:600]), base.fork().partial_fit(X[600:], y[600:])
    fork.save(folder / "fork")
    base.merge(fork)
    rows, p = base.task_.rows, base.predict_proba(X)
    for twin in (fork, RefinedClassifier.load(folder / "fork"), copy.deepcopy(fork)):
        with raises("once"):
            base.merge(twin)
        assert base.task_.rows == rows and np.array_equal(base.predict_proba(X), p)
    reloaded = RefinedClassifier.load(base.save(folder / "base"))
    with raises("once"):
        reloaded.merge(fork)
    base.merge(second)
    assert base.task_.rows == 900
    with raises("once"):
        second.merge(base)


@case("E16")
def landmarks_are_nobodys_row(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for rows in (300, 1200):
        X = rng.normal(size=(rows, 4))
        frame = pd.DataFrame(X, columns=list("abcd")).assign(word=rng.choice(["x", "y", "z"], rows))
        for data in (X, frame):
            for model in (
                RefinedClassifier().fit(data, X[:, 0] > 0),
                RefinedClassifier().partial_fit(data, X[:, 0] > 0),
                RefinedRegressor(n_estimators=2).fit(data, X[:, 0]),
            ):
                tensors, _ = read(model.save(folder / "s"))
                encoded = model.task_.encode(read_columns(data))
                for name, tensor in tensors.items():
                    if (
                        tensor.ndim < 1
                        or tensor.shape[-1] != encoded.shape[1]
                        or not tensor.is_floating_point()
                    ):
                        continue
                    candidates = tensor.double().reshape(-1, encoded.shape[1]).numpy()
                    for candidate in candidates[:4000]:
                        gap = np.abs(encoded - candidate).max(1).min()
                        assert gap > 1e-3, f"{name} of the state holds a row of training"
