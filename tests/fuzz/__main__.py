"""Run the fuzzer: `python -m tests.fuzz --cases 1000000 --seed 0 --workers 2`; 0 if nothing fails, else 1."""

import argparse
import multiprocessing
import queue
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

ROUND = 4000
"""Cases from one seed."""

ROUNDS_PER_PROCESS = 25
"""Then a new process begins."""


def main() -> int:
    """Read the options, run all rounds, print failures as they come and how many there are of each part."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--part", action="append", help="only this part; with --seed alone: the case of that seed"
    )
    parser.add_argument("--out", help="also write the failures to this file")
    options = parser.parse_args()
    from .fuzzer import PARTS, job, run_part

    if options.part and any(name not in PARTS for name in options.part):
        parser.error(f"parts are {', '.join(PARTS)}")
    if options.part and "--cases" not in " ".join(sys.argv):
        return one_case(options.part[0], options.seed, run_part)
    rounds: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()
    for i, start in enumerate(range(0, options.cases, ROUND)):
        rounds.put((options.seed + i, min(ROUND, options.cases - start)))
    done: queue.SimpleQueue[tuple[int, list[str]]] = queue.SimpleQueue()
    tried, failures, started = 0, [], time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        threads = [
            threading.Thread(
                target=work, args=[rounds, done, options.part, f"{folder}/{i}", job], daemon=True
            )
            for i in range(options.workers)
        ]
        for thread in threads:
            thread.start()
        for _ in range(0, options.cases, ROUND):
            count, sentences = done.get()
            tried += count
            for sentence in sentences:
                print(sentence, flush=True)
            failures += sentences
            seconds = time.monotonic() - started
            print(
                f"{tried:,} cases, {len(failures):,} failures, {seconds:.0f} s", file=sys.stderr, flush=True
            )
    if options.out:
        Path(options.out).write_text("".join(f"{sentence}\n" for sentence in failures))
    for name, count in Counter(sentence.split(":")[0] for sentence in failures).items():
        print(f"{name}: {count:,} failures")
    print(f"{tried:,} cases tried, {len(failures):,} failed, {time.monotonic() - started:.0f} s")
    return 1 if failures else 0


def work(
    rounds: "queue.SimpleQueue[tuple[int, int]]",
    done: "queue.SimpleQueue[tuple[int, list[str]]]",
    parts: list[str] | None,
    trace_file: str,
    job: Callable[..., tuple[int, list[str]]],
) -> None:
    """Run rounds in a process until none is left; one that dies is a failure, and another takes its place."""
    pool, left = None, 0
    while True:
        try:
            seed, cases = rounds.get_nowait()
        except queue.Empty:
            break
        if left == 0:
            if pool is not None:
                pool.shutdown()
            pool, left = ProcessPoolExecutor(1, multiprocessing.get_context("spawn")), ROUNDS_PER_PROCESS
        try:
            done.put(pool.submit(job, seed, cases, parts, trace_file).result())
            left -= 1
        except BrokenProcessPool:
            last = Path(trace_file).read_text() if Path(trace_file).exists() else ""
            again = last.partition(" ")[2].strip()
            name = again.partition("--part ")[2].partition(" ")[0] or "process"
            done.put((0, [f"{name}: the process dies [{again}]"]))
            pool, left = None, 0
    if pool is not None:
        pool.shutdown()


def one_case(name: str, seed: int, run_part: object) -> int:
    """Try again the case of a seed that a failure has named."""
    import numpy as np

    from .columns import COLUMNS, fuzz_columns
    from .fuzzer import PARTS

    rng = np.random.default_rng([seed, list(PARTS).index(name)])
    with tempfile.TemporaryDirectory() as folder:
        check = PARTS[name].check
        if check is None:
            sentences = fuzz_columns(rng, COLUMNS, Path(folder))[1]
        else:
            sentences = [sentence] if (sentence := check(rng, Path(folder))) else []
    print("\n".join(sentences) or "nothing fails")
    return 1 if sentences else 0


if __name__ == "__main__":
    sys.exit(main())
