"""Shards: whole files, or row groups of Parquet files. They follow from the files alone, not from who learns them.

Source: Apache Parquet (row groups).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..files.reading import given_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..files.containers import Container


class Shard(NamedTuple):
    """Rows that are learnt together: a file, or some of its row groups, the first and the one after the last.

    Example:
        >>> from gradatim.distributed.shards import Shard
        >>> str(Shard("/data/a.csv")), str(Shard("/data/b.parquet", (2, 4)))
        ('/data/a.csv', '/data/b.parquet, row groups 2 to 3')
    """

    file: str
    row_groups: tuple[int, int] | None = None

    def __str__(self) -> str:
        if self.row_groups is None:
            return self.file
        return f"{self.file}, row groups {self.row_groups[0]} to {self.row_groups[1] - 1}"


def find_shards(paths: Sequence[Path | str], rows: int) -> tuple[list[str], list[Shard]]:
    """Return the files that paths name, and their shards in order; a shard of row groups has `rows` at least.

    Raises:
        ValueError: a path names no file, or a stream, or folders whose names are columns.

    Example:
        >>> from pathlib import Path
        >>> from gradatim.distributed.shards import find_shards
        >>> _ = Path("a.csv").write_text("x,y\\n1,2\\n")
        >>> files, shards = find_shards(["*.csv"], 100_000)
        >>> [Path(shard.file).name for shard in shards]
        ['a.csv']
    """
    containers = given_files(paths)
    for container in containers:
        if container.path is None:
            raise ValueError(
                f"{container.label} is read once, so it cannot be sent to workers: give files that all of them can read"
            )
    for folder in filter(os.path.isdir, paths):
        for container in containers:
            inner = os.path.relpath(container.label, folder)
            if "=" in os.path.dirname(inner) and not inner.startswith(os.pardir):
                raise ValueError(
                    f"{container.label} lies in a folder named COLUMN=VALUE, which is no column here: write the column "
                    "into the files, or learn the folder with gradatim fit"
                )
    return [container.label for container in containers], [
        shard for container in containers for shard in _shards(container, rows)
    ]


def _shards(container: Container, rows: int) -> Iterator[Shard]:
    """Yield the shards of a file."""
    file = os.path.abspath(container.label)
    if container.format != "parquet":
        yield Shard(file)
        return
    from pyarrow import parquet

    from ..files.typed_table import explain_arrow

    with explain_arrow(container.label), parquet.ParquetFile(file) as opened:
        counts = [opened.metadata.row_group(group).num_rows for group in range(opened.num_row_groups)]
    first, n_rows = 0, 0
    for group, count in enumerate(counts):
        n_rows += count
        # what is left at the end of a file goes with the last shard
        if n_rows >= rows and sum(counts[group + 1 :]) >= rows:
            yield Shard(file, (first, group + 1))
            first, n_rows = group + 1, 0
    yield Shard(file, (first, len(counts)) if first else None)
