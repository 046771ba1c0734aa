"""What the table of cases and the fuzzer share: calls of the command line, and what counts as a helpful refusal."""

import contextlib
import csv
import hashlib
import io
import json
import multiprocessing
import re
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from gradatim.cli import main
from gradatim.files.table import read_table

OURS = re.compile(
    r"\b(Encoder|TableTask|Tally|TableFile|TableWriter|StreamReport|Refined|NAType|NoneType)\b"
    r"|(?<=[a-z,(] )(Number|Category|Columns|Rows|Target|Schema|Experts)\b"
)
"""Names of our classes, and of NumPy's and pandas' insides, which no user knows."""

RAW = re.compile(
    r"ufunc|broadcast|linalg|_LinAlg|object at 0x|<class|Traceback|torch\.|numpy\.|pyarrow\.|pa\.lib|ArrowInvalid"
    r"|np\.(?:str_|bytes_|bool|nan|float|int|object|array)"
    r"|CSV conversion error|CSV parse error|straddling|searchsorted|Integer value \d+ not in range"
    r"|has no attribute|out of bounds for axis|not supported between instances|positional argument"
    r"|allocat|stack expects|size mismatch|expected scalar type|invalid literal for|^could not convert"
    r"|embedded null|codec can't"
)
"""Words of dependencies that say nothing to a user."""


REASON = re.compile(r"\('[\w-]+' codec [^()]*\)")
"""The reason of a decoder in brackets, behind a sentence of ours."""


class Outcome(NamedTuple):
    """What a call of the command line did."""

    code: int
    out: str
    err: str


def fault_of(message: str) -> str:
    """Return what is wrong with the sentence of a refusal, or nothing."""
    if len(message.strip()) < 12:
        return "no sentence"
    if match := OURS.search(message) or RAW.search(REASON.sub("", message)):
        return f"the sentence names {match[0]!r}"
    return ""


def call(*words: Any, stdin: bytes | None = None) -> Outcome:
    """Run one command in this process and return what it printed."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True, newline="") for _ in range(2))
    before = sys.stdin
    if stdin is not None:
        sys.stdin = io.TextIOWrapper(io.BytesIO(stdin), "utf-8")
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([str(word) for word in words])
    finally:
        sys.stdin = before
    texts = [stream.buffer.getvalue().decode("utf-8", "replace") for stream in (out, err)]  # type: ignore[attr-defined]
    return Outcome(code, *texts)


def good(*words: Any, stdin: bytes | None = None) -> str:
    """Run a command that must go well; return all that it printed."""
    done = call(*words, stdin=stdin)
    assert done.code == 0, f"{' '.join(map(str, words))}: exit {done.code}: {done.err}"
    assert "Traceback" not in done.err
    return done.out + done.err


def refused(*words: Any, stdin: bytes | None = None) -> str:
    """Run a command that must be refused in one helpful line; return the line."""
    done = call(*words, stdin=stdin)
    assert done.code == 2, f"{' '.join(map(str, words))}: exit {done.code}, not 2: {done.out}{done.err}"
    assert done.err.startswith("gradatim: ") and done.err.count("\n") == 1, done.err
    assert not fault_of(done.err), f"{fault_of(done.err)}: {done.err}"
    return done.err


def write(path: Path, table: Any) -> Path:
    """Write text, bytes or a data frame to a file; a frame by the file's suffix."""
    if isinstance(table, pd.DataFrame):
        if path.suffix == ".parquet":
            table.to_parquet(path, index=False)
        else:
            table.to_csv(path, index=False)
    else:
        path.write_bytes(table if isinstance(table, bytes) else table.encode())
    return path


def fit(folder: Path, table: Any, *options: Any, target: str = "y", name: str = "f.csv") -> str:
    """Learn a table that is written to `folder / name`; the state is `folder / "s"`. Return what was printed."""
    file = write(folder / name, table)
    return good("fit", file, "--target", target, "--state", folder / "s", "--force", "--quiet", *options)


def predict(folder: Path, table: Any, *options: Any, name: str = "g.csv") -> list[dict[str, str]]:
    """Return the rows of the predictions for a table, cells as text."""
    file, out = write(folder / name, table), folder / "out.csv"
    good("predict", file, "--state", folder / "s", "--out", out, "--quiet", *options)
    return rows_of(out)


def answers(folder: Path, table: Any, *options: Any, name: str = "g.csv") -> list[str]:
    """Return the column `prediction`."""
    return [row["prediction"] for row in predict(folder, table, *options, name=name)]


def rows_of(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file, cells as text."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def number_in(text: str, pattern: str) -> float:
    """Return the number that the one group of a pattern holds."""
    match = re.search(pattern, text)
    assert match, f"nothing like {pattern!r} in: {text}"
    return float(match[1].replace(",", ""))


def learned(text: str) -> int:
    """Return the number of rows that a call says it learned."""
    return int(number_in(text, r"([\d,]+) rows?(?: of [\d,]+ class(?:es)?)? learned"))


def class_count(text: str) -> int:
    """Return the number of classes that a call says it learned."""
    return int(number_in(text, r"rows? of ([\d,]+) class(?:es)? learned"))


def skipped(text: str) -> int:
    """Return the number of rows that a call says it skipped."""
    return int(number_in(text, r"([\d,]+) rows? without '[^']*' skipped"))


def accuracy(text: str) -> float:
    """Return the prequential accuracy that a call printed."""
    return number_in(text, r"accuracy ([\d.]+)")


def kinds(folder: Path, state: str = "s") -> dict[str, str]:
    """Return the kind of each column by name, as a state has it."""
    columns = read_table(folder / state)[0]["table"]["columns"]
    return {name: cells["kind"] for name, cells in columns.items()}


def task(folder: Path) -> str:
    """Return the task of a state."""
    return read_table(folder / "s")[0]["table"]["task"]


def leftovers(folder: Path) -> list[str]:
    """Return the temporary files in a folder; the file of a lock is none."""
    names = [path.name for path in folder.rglob(".*") if path.is_file()]
    return [name for name in names if not name.endswith(".lock")]


def joined(entries: dict[str, Any], text: str, tensors: bytes, fresh: bool = True) -> bytes:
    """Return the file of a table of tensors, our header as text and the tensors; `fresh`: with a checksum of these."""
    metadata = entries.get("__metadata__")
    layouts = {name: entry for name, entry in entries.items() if name != "__metadata__"}
    if isinstance(metadata, dict):
        metadata = {**metadata, "gradatim": text}
        if fresh and "sha256" in metadata:
            digest = hashlib.sha256(text.encode())
            digest.update(json.dumps(layouts, sort_keys=True, separators=(",", ":")).encode())
            digest.update(tensors)
            metadata["sha256"] = digest.hexdigest()
    if "__metadata__" in entries:
        layouts = {"__metadata__": metadata, **layouts}
    content = json.dumps(layouts).encode()
    content += b" " * (-len(content) % 8)
    return struct.pack("<Q", len(content)) + content + tensors


@contextlib.contextmanager
def raises(*parts: str, types: tuple[type[BaseException], ...] = (ValueError, TypeError)) -> Iterator[None]:
    """Expect a helpful refusal whose sentence has these parts."""
    try:
        yield
    except types as error:
        sentence = str(error)
        assert not fault_of(sentence), f"{fault_of(sentence)}: {sentence}"
        for part in parts:
            assert part in sentence, f"{part!r} is not in: {sentence}"
    else:
        raise AssertionError(f"nothing was refused ({', '.join(parts)})")


_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["tests.case_tools", "gradatim.cli", "gradatim.estimators"])


def child(function: Callable[..., Any], *arguments: Any) -> Any:
    """Start a function of a module in a process that has gradatim imported already; return the process."""
    process = _SERVER.Process(target=function, args=arguments)
    process.start()
    return process


def quiet_main(code_file: Path, words: list[str]) -> None:
    """Run one command in a child and leave its exit code and what it printed in a file."""
    done = call(*words)
    code_file.write_text(f"{done.code}\n{done.out}{done.err}")


def cases_into(table: dict[str, Callable[[Path], None]]) -> Callable[[str], Callable[[Any], Any]]:
    """Return a decorator that puts a function into a table of cases under a name."""

    def case(name: str) -> Callable[[Any], Any]:
        return lambda function: table.setdefault(name, function)

    return case
