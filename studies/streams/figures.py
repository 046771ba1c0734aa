"""The claims of `make study NAME=streams`: from records of strict passes to numbers with intervals.

Source: Demsar 2006 (ranks with shared ties); the bars are this project's own, fixed before the run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gradatim.comparison.runs import claim
from gradatim.metrics import bootstrap
from studies.tables.figures import ranks
from studies.tables.verdicts import Three, without_value

from .data import moved_name
from .moved import COUNTED
from .peers import ALL, ARF, ASIDE, BATCHED, BY_32, OURS
from .protocol import Passes, loss

if TYPE_CHECKING:
    from gradatim.comparison.experiment import Values

BARS: dict[str, float] = {
    "drift.over_arf": 0.8,
    "real.over_arf": 0.7,
    "real.over_best": 1.0,
    "rank": 1.5,
    "stationary": 1.01,
    "moved_columns": 0.02,
    "time_over_all": 2.5,
}
"""The bar of each claim: at most."""

UNBUILT = "not built yet"
SETTLED, SCORED = 2000, 2000
"""Rows after a change that are not counted, and how many of the next ones are at most."""


def unmeasured(name: str, why: str) -> dict[str, Any]:
    """Return a claim that has no value, and fails.

    Example:
        >>> verdict = unmeasured("stationary", "river is not installed")
        >>> verdict["value"], verdict["holds"], verdict["range"]
        (None, False, 'not built yet')
    """
    return without_value(f"streams.{name}", "<=", BARS[name], why)


def measured(name: str, values: Three, **beside: Three) -> dict[str, Any]:
    """Return a claim with its interval, and what stands beside it in words."""
    verdict = claim(f"streams.{name}", *values, BARS[name], "<=")
    rounded = {
        title.replace("_", " "): [round(value, 5) for value in three] for title, three in beside.items()
    }
    return verdict | ({"beside": rounded} if rounded else {})


def log_ratio(ours: Values, other: Values) -> float:
    """Return the log of our errors over another's: of (errors + 0.5), or of the RMSEs.

    Example:
        >>> wrong = lambda count: {"error": np.arange(10) < count}
        >>> float(np.exp(log_ratio(wrong(2), wrong(4))).round(4))
        0.5556
    """
    if "error" in ours:
        counts = [values["error"].sum(dtype=float) + 0.5 for values in (ours, other)]
        return float(np.log(counts[0] / counts[1]))
    return float(np.log(loss(ours) / loss(other)))


def by_stream(streams: Sequence[str]) -> dict[str, list[str]]:
    """Return the names of all seeds of each stream. A real stream has one name.

    Example:
        >>> by_stream(["sea-abrupt-0", "sea-abrupt-1", "weather"])
        {'sea-abrupt': ['sea-abrupt-0', 'sea-abrupt-1'], 'weather': ['weather']}
    """
    names: dict[str, list[str]] = {}
    for stream in streams:
        stem, _, seed = stream.rpartition("-")
        names.setdefault(stem if seed.isdecimal() else stream, []).append(stream)
    return names


def over_seeds(streams: Sequence[str], value: Callable[[str], float]) -> np.ndarray:
    """Return a value of every stream, `[seeds, streams]`. All streams have the same number of seeds."""
    return np.array([[value(stream) for stream in row] for row in by_stream(streams).values()]).T


def geometric(logs: np.ndarray) -> Three:
    """Return the geometric mean of ratios from their logs `[seeds, streams]`, and its interval over both.

    Example:
        >>> geometric(np.log([[0.5, 2.0]]))[0]
        1.0
    """
    return bootstrap(lambda a: float(np.exp(a.mean())), logs)


def ratios(records: Passes, peer: str, streams: Sequence[str], name: str = OURS) -> np.ndarray:
    """Return the log of a learner's errors over those of another one, `[seeds, streams]`."""
    return over_seeds(streams, lambda stream: log_ratio(records[name][stream], records[peer][stream]))


def best_ratios(records: Passes, streams: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """Return the log of our errors over those of the best of some peers on each stream, an oracle's choice."""
    return over_seeds(
        streams,
        lambda stream: max(log_ratio(records[OURS][stream], records[name][stream]) for name in names),
    )


def ranks_of(records: Passes, streams: Sequence[str]) -> dict[str, np.ndarray]:
    """Return each learner's rank on each stream, by the mean error over its seeds. Ties are shared.

    Of our own settings and of the ways to ask river's forest the first alone takes part.
    """
    return ranks(
        {
            name: over_seeds(streams, lambda stream, by_stream=by_stream: loss(by_stream[stream]))
            for name, by_stream in records.items()
            if name not in ASIDE
        }
    )


def drift_claims(records: Passes, drifting: Sequence[str], real: Sequence[str]) -> list[dict[str, Any]]:
    """Return the claims on streams of one side with classes: against river's forest, the best peer, and all of them."""
    lacking = "river is not installed" if ARF not in records else "a smoke run has no such stream"
    claims = []
    for name, streams in (("drift", drifting), ("real", real)):
        if ARF in records and streams:
            beside = {}
            if BATCHED in records:
                beside["both_asked_32_rows_at_a_time"] = geometric(ratios(records, BATCHED, streams, BY_32))
            claims.append(measured(f"{name}.over_arf", geometric(ratios(records, ARF, streams)), **beside))
        else:
            claims.append(unmeasured(f"{name}.over_arf", lacking))
    peers = [name for name in records if name not in (OURS, *ASIDE)]
    rivals = [name for name in peers if not name.startswith("refit-")]
    if real:
        best = geometric(best_ratios(records, real, peers))
        stream_peers = geometric(best_ratios(records, real, rivals))
        claims.append(measured("real.over_best", best, over_the_best_peer_that_is_not_refitted=stream_peers))
    else:
        claims.append(unmeasured("real.over_best", "a smoke run has no such stream"))
    groups = [ranks_of(records, streams) for streams in (drifting, real) if streams]
    together = {name: np.concatenate([group[name] for group in groups]) for name in groups[0]}
    means = {name: bootstrap(lambda a: float(a.mean()), values[None]) for name, values in together.items()}
    return [*claims, measured("rank", means.pop(OURS), **{f"rank_of_{name}": v for name, v in means.items()})]


def stationary(on: Mapping[str, Sequence[Values]], off: Mapping[str, Sequence[Values]]) -> dict[str, Any]:
    """Return the claim on stationary tables: errors that adapt over errors that do not, by table, then by order."""
    logs = np.array([[log_ratio(a, b) for a, b in zip(on[table], off[table], strict=True)] for table in on]).T
    return measured("stationary", geometric(logs))


def accuracy_lost(moved: Values, anew: Values, change: int) -> float:
    """Return by how much accuracy is lower than that of a learner that began at the change, from 2,000 rows after it.

    The next 2,000 rows are counted, or as many as there are. In a smoke run it is the second half of what follows.

    Example:
        >>> errors = np.zeros(5000, np.float32)
        >>> errors[-300:] = 1
        >>> accuracy_lost({"error": errors}, {"error": np.zeros(2600, np.float32)}, 2400)
        0.5
    """
    after = len(anew["error"])
    start = SETTLED if after >= SETTLED + 100 else after // 2
    late = [error[start : start + SCORED] for error in (moved["error"][change:], anew["error"])]
    return float(late[0].mean(dtype=float) - late[1].mean(dtype=float))


def moved_claim(
    records: Passes, kinds: Mapping[str, Sequence[str]], orders: int, changes: Mapping[str, int]
) -> dict[str, Any]:
    """Return the claim on columns that move: accuracy lost, the mean over tables and what moves in them.

    Args:
        records: of the streams and of their second halves alone.
        kinds: what moves, by table.
        orders: of the rows of each table.
        changes: the row of the change, by stream.
    """

    def lost(table: str, kind: str) -> list[float]:
        names = [(moved_name(table, kind, o), moved_name(table, kind, o, "after")) for o in range(orders)]
        by_stream = records[BY_32]
        return [
            accuracy_lost(by_stream[whole_stream], by_stream[anew], changes[whole_stream])
            for whole_stream, anew in names
        ]

    by_kind: dict[str, list[list[float]]] = {}
    for table, moving in kinds.items():
        for kind in moving:
            by_kind.setdefault(kind, []).append(lost(table, kind))
    means = {kind: bootstrap(lambda a: float(a.mean()), np.array(rows).T) for kind, rows in by_kind.items()}
    counted = [row for kind, rows in by_kind.items() if kind in COUNTED for row in rows]
    return measured("moved_columns", bootstrap(lambda a: float(a.mean()), np.array(counted).T), **means)


def time_claim(records: Passes, streams: Sequence[str]) -> dict[str, Any]:
    """Return the claim on seconds of a pass by 32 rows, adaptive over all rows, the geometric mean over streams."""
    logs = {
        stream: np.log(records[BY_32][stream]["seconds"] / records[ALL][stream]["seconds"])
        for stream in streams
    }
    means = [np.mean([logs[stream] for stream in row]) for row in by_stream(streams).values()]
    return measured("time_over_all", geometric(np.array([means])))
