"""Learn many files at once: make the map, let workers learn the shards, merge what they send.

Source: Moritz et al. 2018 (Ray); Dean, Ghemawat 2008 (parts are learnt apart, and joined).
"""

from __future__ import annotations

import os
import warnings
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..commands.learning import learnable_sample, notes_of_empty, save
from ..commands.merge import merged, weigh_by
from ..commands.tables import check_output, count, count_rows, open_files
from ..files.choice import Choice
from ..files.progress import Bar
from ..files.schema import STORED_OPTIONS, Schema
from ..files.streaming import WEIGHED_ROWS, prepare, reweigh
from ..files.target import CLASSIFICATION, REGRESSION, TASKS, check_class_count
from ..names import hint
from .parts import join_samples, one_thread
from .shards import find_shards
from .workers import import_ray, in_this_process, on_ray

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ..files.reading import TableFile
    from .parts import Part
    from .shards import Shard

CHOICE = ("task", "columns", "drop", "text", "id", "weight")
READING = ("delimiter", "decimal", "missing", "header", "encoding")
OPTIONS = (*CHOICE, *READING, "classes")
"""What may be said of the files, as in `gradatim fit`."""

SHARD_ROWS = 100_000
"""Rows at least of a shard of row groups."""

NOTES = 8
"""Notes that are passed on, at most."""


def fit(
    files: str | Path | Sequence[str | Path],
    target: str,
    out: str | Path | None = None,
    model: Any = None,
    workers: int | None = None,
    weigh: str | Path | Sequence[str | Path] | None = None,
    *,
    map_files: int = 1,
    shard_rows: int = SHARD_ROWS,
    retries: int = 3,
    overwrite: bool = False,
    progress: bool = True,
    **options: Any,
) -> Any:
    """Learn files on the workers of Ray, and return one estimator of all their rows.

    Parts are merged in the order of the files: sums, predictions and rows are bit for bit those of `workers=0` on the
    same machine, whoever learnt what, and to rounding on others. A task whose worker dies starts again. It reads a
    shard and returns a state, and has no other effect. All workers must find the files under the same paths.

    Args:
        files: a file, a folder or a pattern, or several, as `gradatim fit` takes them.
        target: the column to predict.
        out: a file for the state, as `gradatim fit` writes it; None for none.
        model: an estimator whose settings are taken; None for the one that suits the target.
        workers: how many shards are learnt at a time; None for one on each CPU; 0 to learn here, without Ray.
        weigh: files of rows among those learnt, by which experts are weighed; None for a few rows of every shard.
        map_files: how many of the first files the map is made from.
        shard_rows: rows at least of a shard of row groups.
        retries: how often a task whose worker dies is started again.
        overwrite: whether a file at `out` may be replaced.
        progress: whether progress is shown, on stderr.
        options: `task`, `classes`, `columns`, `drop`, `text`, `id`, `weight`, `delimiter`, `decimal`, `missing`,
            `header`, `encoding`: as in `gradatim fit`, lists in place of words with commas.

    Raises:
        ValueError: there are no files, or files of other columns; a shard cannot be learnt: the message names the file
            and the line. Nothing is written then.
        ImportError: Ray is not installed.
        RuntimeError: a worker died more than `retries` times in a shard.

    Example:
        >>> from pathlib import Path
        >>> from gradatim.distributed import fit
        >>> for day in range(2):
        ...     _ = Path(f"day-{day}.csv").write_text("x,y\\n" + "".join(f"{x},{2 * x}\\n" for x in range(40)))
        >>> fit("day-*.csv", "y", workers=0, progress=False, task="regression").task_.rows
        80.0
    """
    request = Request(target, model, options, _listed(weigh), None if out is None else Path(out))
    _check_numbers(workers=(workers, 0), map_files=(map_files, 1), shard_rows=(shard_rows, 1))
    _check(_listed(files), request, overwrite)
    learn = _learner(workers, retries)
    paths, shards = find_shards(_listed(files), shard_rows)
    with Bar(progress, f"learning {count(len(paths), 'file', 'files')}") as bar:
        learned, notes = _learn(request, paths[:map_files], shards, learn, bar)
    _warn(notes)
    return learned


def _learner(workers: int | None, retries: int) -> Callable[..., Any]:
    """Return who learns shards: this process, or Ray, which must be installed."""
    if workers == 0:
        return in_this_process
    import_ray()
    return partial(on_ray, workers=workers, retries=retries)


class Request(NamedTuple):
    """What is wanted of files: the arguments of `fit` of these names."""

    target: str
    model: Any
    options: dict[str, Any]
    weigh: list[str]
    out: Path | None

    @property
    def reading(self) -> dict[str, Any]:
        """Return the options of reading that were given."""
        options = {name: self.options[name] for name in READING if self.options.get(name) is not None}
        return options | ({"missing": list(_names(options["missing"]))} if "missing" in options else {})


def _learn(
    request: Request, first: list[str], shards: Sequence[Shard], learn: Callable[..., Any], bar: Bar
) -> tuple[Any, list[str]]:
    """Return an estimator of the rows of shards, under a map of the first files, and notes for the user."""
    reading, out = request.reading, request.out
    encoding = {name: reading[name] for name in ("encoding",) if name in reading}
    n_sampled = max(32, min(WEIGHED_ROWS, 4 * WEIGHED_ROWS // len(shards)))
    with TemporaryDirectory(prefix="gradatim-") as folder, one_thread():
        base, table_file, map_notes = _make_map(request, first, Path(folder))
        parts = Parts(Path(folder), shards, bar)
        with closing(learn(shards, base, encoding, n_sampled, parts.keep)) as places:
            merged_model, schema, notes = merged(parts.states(places))
        if request.weigh:
            weigh_by(request.weigh, merged_model, schema, reading, out or Path("the map"))
        else:
            sample = replace(table_file, sample=join_samples(parts.samples, parts.rows))
            reweigh(merged_model, learnable_sample(sample, schema), schema.weight is not None)
        if out is not None:
            save(merged_model, out, schema, schema.labels())
    return merged_model, [*map_notes, *parts.notes, *notes]


class Parts:
    """The parts of the shards, as files in a folder, and what is said of them.

    Fields: `rows`: of each shard that has some; `samples`: of these; `notes`: for the user.
    """

    def __init__(self, folder: Path, shards: Sequence[Shard], bar: Bar) -> None:
        self._folder, self._shards, self._bar = folder, shards, bar
        self._parts: dict[int, Part] = {}
        self._learned = 0

    def keep(self, place: int, part: Part) -> None:
        """Put a part aside.

        Raises:
            ValueError: its shard could not be learnt.
        """
        if part.fault is not None:
            raise ValueError(part.fault)
        if part.rows:
            self._path(place).write_bytes(part.state)
        self._parts[place], self._learned = part._replace(state=b""), self._learned + part.rows
        progress = f"{len(self._parts)} of {count(len(self._shards), 'shard', 'shards')}"
        self._bar.update(len(self._parts) / len(self._shards), f"{progress}, {count_rows(self._learned)}")

    def states(self, places: Iterator[int]) -> Iterator[Path]:
        """Yield the files of parts that hold rows, as their places come.

        Raises:
            ValueError: no part does.
        """
        for place in places:
            if self._parts[place].rows:
                yield self._path(place)
                self._path(place).unlink()
        if not self._learned:
            raise ValueError(
                f"no row of {count(len(self._shards), 'shard', 'shards')} can be learned: {self.notes[0]}"
            )

    @property
    def rows(self) -> list[int]:
        """How many rows of each shard were learnt, where some were."""
        return [part.rows for _, part in sorted(self._parts.items()) if part.rows]

    @property
    def samples(self) -> list[bytes]:
        """Rows of each shard of which rows were learnt."""
        return [part.sample for _, part in sorted(self._parts.items()) if part.rows]

    @property
    def notes(self) -> list[str]:
        """What is said of the shards, each once."""
        return list(dict.fromkeys(note for _, part in sorted(self._parts.items()) for note in part.notes))

    def _path(self, place: int) -> Path:
        return self._folder / f"part {place + 1}"


def _check_numbers(**minima: tuple[int | None, int]) -> None:
    """Raise ValueError for numbers that are none, or below their minimum."""
    for name, (value, minimum) in minima.items():
        if value is not None and (not isinstance(value, int) or value < minimum):
            raise ValueError(f"{name} must be a whole number of at least {minimum}; got {value!r}")


def _check(paths: list[str], request: Request, overwrite: bool) -> None:
    """Raise ValueError for arguments that cannot be."""
    from ..estimators import RefinedClassifier, RefinedRegressor

    options, model, out = request.options, request.model, request.out
    if not paths:
        raise ValueError(
            "files names no file: give a file, a folder, a pattern such as 'days/*.csv', or several"
        )
    for name in options:
        if name not in OPTIONS:
            raise ValueError(f"fit has no option {name!r}: {hint(name, OPTIONS)}")
    task = options.get("task", "auto")
    if task not in TASKS:
        raise ValueError(f"task must be one of {', '.join(TASKS)}; got {task!r}")
    if out is not None:
        check_output(out, "out", paths)
        if out.exists() and not overwrite:
            raise ValueError(f"{out} already exists: choose another file, or overwrite=True")
    if model is None:
        return
    if type(model) not in (RefinedClassifier, RefinedRegressor):
        raise ValueError(f"model must be a RefinedClassifier or a RefinedRegressor; got {model!r}")
    if model.model != "experts":
        raise ValueError(
            "the model must have the shipped learner, model='experts': a state does not hold one that is given, and "
            "none is sent by pickle"
        )
    if getattr(model, "class_weight", None) == "balanced":
        raise ValueError(
            "class_weight='balanced' needs the number of rows of each class, which is not known before shards are "
            "learnt: give a dict with a weight for each label"
        )
    suits = CLASSIFICATION if type(model) is RefinedClassifier else REGRESSION
    if task not in ("auto", suits):
        raise ValueError(f"a {type(model).__name__} learns a {suits}; got task={task!r}")


def _make_map(request: Request, files: Sequence[str], folder: Path) -> tuple[bytes, TableFile, list[str]]:
    """Return a state with a map of files and no row, as bytes, these files as they were opened, and notes."""
    from ..estimators import RefinedClassifier, RefinedRegressor

    options, reading, model = request.options, request.reading, request.model
    columns, drop, text = (_names(options.get(name)) for name in ("columns", "drop", "text"))
    table_file = open_files(files, reading, text=text)
    task = options.get("task", "auto")
    if model is not None:
        task = CLASSIFICATION if type(model) is RefinedClassifier else REGRESSION
    choice = Choice(request.target, task, columns, drop, text, options.get("id"), options.get("weight"))
    schema = Schema.infer(
        table_file, choice, {name: reading[name] for name in STORED_OPTIONS if name in reading}
    )
    labels, classes = schema.labels(), None
    sample = learnable_sample(table_file, schema)
    if schema.task == CLASSIFICATION:
        named = labels.from_words([*map(str, _names(options.get("classes")))])
        classes = np.union1d(named, sample[1]) if len(named) else np.unique(sample[1])
        check_class_count(len(classes), schema.target, schema.target_cells, table_file.path)
    elif options.get("classes"):
        raise ValueError(f"classes: {request.target!r} is a number, which has none: leave classes out")
    kind = RefinedClassifier if schema.task == CLASSIFICATION else RefinedRegressor
    base = kind(**({} if model is None else model.get_params(deep=False)))
    prepare(base, sample, table_file.path, schema.weight is not None, classes)
    save(base, folder / "map", schema, labels)
    return (folder / "map").read_bytes(), table_file, [*table_file.notes, *notes_of_empty(schema)]


def _listed(paths: Any) -> list[str]:
    """Return paths that are given as one, as several or as None."""
    return [os.fspath(paths)] if isinstance(paths, str | Path) else [os.fspath(path) for path in paths or ()]


def _names(names: Any) -> tuple[str, ...]:
    """Return names that are given as one or as several."""
    return (names,) if isinstance(names, str) else tuple(names or ())


def _warn(notes: Sequence[str]) -> None:
    """Pass notes on as warnings, the first of them."""
    for note in notes[:NOTES]:
        warnings.warn(note, stacklevel=3)
    if len(notes) > NOTES:
        warnings.warn(f"and {len(notes) - NOTES} more notes of this kind", stacklevel=3)
