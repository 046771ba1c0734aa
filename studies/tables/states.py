"""States that are merged and rows that are forgotten: does it come to the same as one pass?

Source: sums over rows are additive; the figures are this project's own.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from gradatim.metrics import bootstrap
from gradatim.table_task import WARM

from .peers import RefinedEstimator
from .scores import errors, log_losses
from .verdicts import measured, unmeasured

if TYPE_CHECKING:
    from gradatim.comparison.experiment import Values

    from .data import Table
    from .verdicts import Three

SHARDS = 32


def merged(table: Table, order: int) -> Values:
    """Return log-losses and errors on the held-out rows after `one` pass, and after merging 32 shards.

    The first 256 rows fix the map and are learnt by both. The others are cut into 32 shards, one after the other in
    the stream. Each is learnt by a fork, and the forks are merged into what has learnt the first rows. Experts are
    weighed by what merged sums say, `sums`, and then by the first 256 rows, kept for it, with `reweigh`, `merged`.
    """
    x, y, held_x, held_y = table.split(order)
    first = RefinedEstimator(table, 0)
    first.learn(x[:WARM], y[:WARM])
    one_pass, joined = copy.deepcopy(first), first
    one_pass.learn(x[WARM:], y[WARM:])
    forks = []
    for rows in np.array_split(np.arange(WARM, len(x)), SHARDS):
        fork = first.model.fork()
        forks.append(fork.partial_fit(first.frame(x[rows]), y[rows], classes=np.arange(table.classes)))
    for fork in forks:
        joined.model.merge(fork)
    predictions = {"one": one_pass.predict(held_x), "sums": joined.predict(held_x)}
    joined.model.reweigh(joined.frame(x[:WARM]), y[:WARM])
    predictions["merged"] = joined.predict(held_x)
    losses = {f"{name}_log_loss": np.asarray(log_losses(p, held_y).mean()) for name, p in predictions.items()}
    return losses | {f"{name}_error": np.asarray(errors(p, held_y).mean()) for name, p in predictions.items()}


def forgotten(table: Table, order: int) -> Values:
    """Return the greatest change of a probability of held-out rows between half the rows forgotten, or never learnt.

    Both are forks of one estimator whose map is fixed by the rows of the stream. The second half is forgotten.

    - `difference`: as both answer. The answers of the one that never learnt them may rest on heads that are a few
      rows old; after forgetting they are solved anew.
    - `solved`: heads of both solved anew from the rows that remain.
    - `reweighed`: experts of both weighed anew by these rows, with `reweigh`, too.
    """
    x, y, held_x, _ = table.split(order)
    half, base = len(x) // 2, RefinedEstimator(table, 0)
    base.model.prepare(base.frame(x), y, classes=np.arange(table.classes))
    both, never = base.model.fork(), base.model.fork()
    both.partial_fit(base.frame(x), y)
    both.forget(base.frame(x[half:]), y[half:])
    never.partial_fit(base.frame(x[:half]), y[:half])
    queries, differences = base.frame(held_x), {}

    def note(name: str) -> None:
        change = np.abs(both.predict_proba(queries) - never.predict_proba(queries)).max()
        differences[name] = np.asarray(change)

    note("difference")
    never.task_.members = never.task_.members.renewed()
    note("solved")
    for model in (both, never):
        model.reweigh(base.frame(x[:half]), y[:half])
    note("reweighed")
    return differences


def merge_claim(tables: list[list[Values]]) -> dict[str, Any]:
    """Return the claim on merging, from records by table and order: log-loss, weighed by kept rows, over one pass's."""
    if not tables:
        return unmeasured("merge32", "no table has so many rows")

    def means(key: str) -> np.ndarray:
        return np.array([np.mean([float(record[key]) for record in orders]) for orders in tables])

    def over_one(name: str) -> Three:
        logs = np.log(means(f"{name}_log_loss") / means("one_log_loss"))
        return bootstrap(lambda a: float(np.exp(a.mean())), logs[None])

    more = bootstrap(
        lambda a, b: float(a.mean() - b.mean()), means("merged_error")[None], means("one_error")[None]
    )
    beside = {"weighed by merged sums, without rows": over_one("sums"), "share of wrong rows more": more}
    return measured("merge32", over_one("merged"), beside, tables=len(tables))


def forget_claim(tables: dict[str, list[Values]]) -> dict[str, Any]:
    """Return the claim on forgetting, from records by table's name and order: the greatest difference of all."""

    def greatest(key: str) -> dict[str, float]:
        return {name: max(float(r[key]) for r in orders) for name, orders in tables.items()}

    differences = greatest("difference")
    worst, span = max(differences, key=lambda name: differences[name]), "least and greatest of the tables"
    beside = {}
    for key, title in (
        ("solved", "heads of both solved anew"),
        ("reweighed", "and experts of both weighed anew by the rows that remain"),
    ):
        values = [*greatest(key).values()]
        beside[title] = (max(values), min(values), max(values))
    three = (differences[worst], min(differences.values()), differences[worst])
    return measured("forget", three, beside, worst=worst, range=span)
