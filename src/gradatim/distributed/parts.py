"""What a worker does: learn one shard under a fixed map. Bytes in, bytes out, and nothing is kept between shards.

Source: Dean, Ghemawat 2008 (a task that fails is done again, since it has no other effect).
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

from ..commands.learning import notes_of_rows, save
from ..commands.tables import load_estimator, open_known
from ..files.cells import arrow, kernels
from ..files.progress import Bar
from ..files.reading import NoRowsError
from ..files.streaming import WEIGHED_ROWS, fit_stream

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..files.reading import Table
    from ..files.schema import Schema
    from .shards import Shard


class Part(NamedTuple):
    """What was learnt of a shard.

    Fields: `state`: the bytes of a state file, empty if no row was learnt; `sample`: rows of the shard, as an Arrow
    stream; `rows`: how many were learnt; `notes`: sentences for the user; `fault`: what was wrong, if anything was.
    """

    state: bytes = b""
    sample: bytes = b""
    rows: int = 0
    notes: tuple[str, ...] = ()
    fault: str | None = None


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread, so that sums are added in the same order everywhere.

    Example:
        >>> import torch
        >>> from gradatim.distributed.parts import one_thread
        >>> with one_thread():
        ...     torch.get_num_threads()
        1
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def learn_shard(base: bytes, shard: Shard, reading: dict[str, Any], n_sampled: int) -> Part:
    """Return what a shard says under the map in a state that has learnt no row.

    Args:
        base: the bytes of that state.
        shard: what to learn.
        reading: options of reading.
        n_sampled: how many rows of the shard to return, at most.
    """
    try:
        with TemporaryDirectory(prefix="gradatim-") as folder, one_thread():
            return _learn(base, shard, reading, n_sampled, Path(folder))
    except NoRowsError as error:
        return Part(notes=(str(error),))
    except ValueError as error:
        inside = "" if shard.row_groups is None else f" (in row groups {shard.row_groups[0]} to "
        return Part(fault=str(error) + (inside and f"{inside}{shard.row_groups[1] - 1})"))  # type: ignore[index]


def _learn(base: bytes, shard: Shard, reading: dict[str, Any], n_sampled: int, folder: Path) -> Part:
    """Return what a shard says, with files in a folder of its own."""
    path = folder / "map.safetensors"
    path.write_bytes(base)
    base_model, schema, _ = load_estimator(path)
    model = base_model.fork()
    table_file = open_known([shard.file], schema, {**reading, "row_groups": shard.row_groups}, sampled=True)
    note = schema.check_columns(table_file, "the map", learn=True)
    schema, notes = schema.with_filled(table_file)
    labels = schema.labels()
    report = fit_stream(model, table_file, schema, labels, 0, Bar(False, ""))
    save(model, folder / "part.safetensors", schema, labels)
    messages = [
        *table_file.notes,
        note,
        *notes,
        *table_file.notes_after(),
        *notes_of_rows(report, labels, None),
    ]
    messages = [note if shard.file in note else f"{shard}: {note}" for note in messages if note]
    return Part(
        (folder / "part.safetensors").read_bytes(),
        _pack(_sampled(table_file.sample, schema).slice(0, n_sampled)),
        report.rows,
        tuple(messages),
    )


def _sampled(sample: Table, schema: Schema) -> Table:
    """Return the rows of a sample that have a target and weigh something, with the columns that are learnt."""
    compute = kernels()
    table = sample.select(list(schema.cells_to_read(learn=True)))
    table = table.filter(compute.is_valid(table[schema.target]))
    if schema.weight is not None:
        table = table.filter(compute.greater(table[schema.weight], 0.0))
    return table


def _pack(table: Table) -> bytes:
    """Return rows as an Arrow stream."""
    sink = arrow().BufferOutputStream()
    with arrow().ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue().to_pybytes()


def join_samples(samples: Sequence[bytes], rows: Sequence[int]) -> Table:
    """Return rows of several shards, of each as its share of all that were learnt says.

    Args:
        samples: of each shard, an Arrow stream.
        rows: how many rows of each shard were learnt.

    Example:
        >>> import pyarrow
        >>> from gradatim.distributed.parts import _pack, join_samples
        >>> one, other = (_pack(pyarrow.table({"x": [x] * 900})) for x in (1.0, 2.0))
        >>> table = join_samples([one, other], [3000, 1000])
        >>> [table["x"].to_pylist().count(x) for x in (1.0, 2.0)]
        [900, 512]
    """
    total, tables = sum(rows), []
    for sample, count in zip(samples, rows, strict=True):
        with arrow().ipc.open_stream(sample) as stream:
            tables.append(stream.read_all().slice(0, -(-WEIGHED_ROWS * count // total)))
    table = arrow().concat_tables(tables, promote_options="default")
    if table.num_rows <= WEIGHED_ROWS:
        return table
    return table.take([row * table.num_rows // WEIGHED_ROWS for row in range(WEIGHED_ROWS)])
