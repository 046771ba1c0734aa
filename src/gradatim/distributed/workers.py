"""Who learns shards: workers of Ray, or this process. Either yields the same parts in the same order.

Source: Moritz et al. 2018 (Ray; a task whose worker dies is started again).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from .parts import learn_shard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .parts import Part
    from .shards import Shard

MISSING = "gradatim.distributed needs Ray, which is not installed: pip install gradatim[distributed]"

AHEAD = 2
"""Shards that are given to Ray for each CPU that it has, where the user does not say how many workers there are."""


def in_this_process(
    shards: Sequence[Shard],
    base: bytes,
    reading: dict[str, Any],
    n_sampled: int,
    keep: Callable[[int, Part], None],
) -> Iterator[int]:
    """Learn shards one after the other, hand each part to `keep`, and yield its place."""
    for place, shard in enumerate(shards):
        keep(place, learn_shard(base, shard, reading, n_sampled))
        yield place


def on_ray(
    shards: Sequence[Shard],
    base: bytes,
    reading: dict[str, Any],
    n_sampled: int,
    keep: Callable[[int, Part], None],
    workers: int | None = None,
    retries: int = 3,
) -> Iterator[int]:
    """Learn shards on Ray, hand each part to `keep` as it comes, and yield the places of parts in order.

    Ray starts a task whose worker dies again, elsewhere if need be. Where it is not running it is started on this
    machine, and ended at the end.

    Args:
        shards, base, reading, n_sampled: as in `learn_shard`.
        keep: takes the place and the part of a shard.
        workers: how many shards at a time; None for as many as Ray has CPUs.
        retries: how often a task is started again.

    Raises:
        ImportError: Ray is not installed.
        RuntimeError: a worker died more often than that, or Ray itself.
    """
    ray = import_ray()
    is_ours = not ray.is_initialized()
    if is_ours:
        _start(ray, workers)
    running: dict[Any, int] = {}
    try:
        map_bytes = ray.put(base)
        task = ray.remote(num_cpus=1, max_retries=retries)(learn_shard)
        arrived: set[int] = set()
        places = iter(range(len(shards)))
        for place in range(len(shards)):
            while place not in arrived:
                room = workers or AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
                while len(running) < room and (new := next(places, None)) is not None:
                    running[task.remote(map_bytes, shards[new], reading, n_sampled)] = new
                ready, _ = ray.wait([*running], num_returns=1)
                number = running[ready[0]]
                keep(number, _result(ray, ready[0], shards[number], retries))
                arrived.add(running.pop(ready[0]))
            yield place
    finally:
        for task in running:
            ray.cancel(task, force=True)
        if is_ours:
            ray.shutdown()


def import_ray() -> Any:
    """Return the module ray.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError(MISSING) from error
    return ray


def _start(ray: Any, workers: int | None) -> None:
    """Start Ray on this machine, or join the cluster that RAY_ADDRESS names."""
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(**quiet)
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a Ray of ours reports to nobody
    ray.init(address="local", num_cpus=workers, include_dashboard=False, **quiet)


def _result(ray: Any, task: Any, shard: Shard, retries: int) -> Part:
    """Return what a task returned.

    Raises:
        RuntimeError: its worker died too often.
    """
    try:
        return ray.get(task)
    except ray.exceptions.RayTaskError:
        raise
    except ray.exceptions.RayError as error:
        reason = " ".join(str(error).split())[:300]
        raise RuntimeError(
            f"{shard} was not learned: its worker died {retries + 1} times ({reason}): give fewer workers, so that "
            "each has more memory, or smaller shards"
        ) from error
