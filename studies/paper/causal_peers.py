"""Classical estimates of a causal order: DirectLiNGAM and GES (the [studies] extra), and two simple heuristics.

Source: Shimizu et al. 2011 (DirectLiNGAM); Chickering 2002 (GES); Dor, Tarsi 1992 (extensions of a CPDAG).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from gradatim.batch import Batch

_PIP = "causal-learn's orders are not installed: pip install gradatim[studies]"


def lingam_orders(support: Batch) -> Tensor:
    """Return DirectLiNGAM's order of each task's variables, causes first, `[B, d]` int64.

    `support`: x is `[B, N, d]`. Absent rows are ignored.

    Raises:
        ValueError: causal-learn is not installed.

    Example:
        >>> orders = lingam_orders(task.support)
    """
    try:
        from causallearn.search.FCMBased.lingam import DirectLiNGAM
    except ImportError as error:
        raise ValueError(_PIP) from error

    def order(rows: np.ndarray) -> list[int]:
        fitted = DirectLiNGAM()
        fitted.fit(rows)
        return [int(j) for j in fitted.causal_order_ or ()]

    return _order_tasks(support, order)


def ges_orders(support: Batch, seed: int = 0) -> Tensor:
    """Return an order `[B, d]` of a consistent extension of the CPDAG that GES estimates by BIC.

    Ties are broken at random.

    Raises:
        ValueError: causal-learn is not installed.

    Example:
        >>> orders = ges_orders(task.support)
    """
    try:
        from causallearn.search.ScoreBased.GES import ges
    except ImportError as error:
        raise ValueError(_PIP) from error
    rng = np.random.default_rng(seed)

    def order(rows: np.ndarray) -> list[int]:
        marks = ges(rows)["G"].graph  # [i, j] = -1 and [j, i] = 1: i -> j; both -1: i - j
        return extension_order(marks == -1, rng)

    return _order_tasks(support, order)


def random_orders(support: Batch, seed: int = 0) -> Tensor:
    """Return a random order `[B, d]`, independent of the rows.

    Example:
        >>> orders = random_orders(task.support)
    """
    rng = np.random.default_rng(seed)
    return _order_tasks(support, lambda rows: rng.permutation(rows.shape[1]).tolist())


def shape_orders(support: Batch) -> Tensor:
    """Return the variables sorted by `mean |x_j|` of standardised columns, the most peaked first, `[B, d]`.

    Nothing in this rule is causal: sums of heavy-tailed noises are less peaked than each of them. A better learner
    uses more than each column alone.

    Example:
        >>> orders = shape_orders(task.support)
    """
    return _order_tasks(support, lambda rows: np.abs(rows / rows.std(axis=0)).mean(axis=0).argsort().tolist())


CLASSICAL = ("direct-lingam", "ges")
PEERS: dict[str, Callable[[Batch], Tensor]] = {
    "direct-lingam": lingam_orders,
    "ges": ges_orders,
    "shape-order": shape_orders,
    "random-order": random_orders,
}
"""Orders by name. Those in `CLASSICAL` need causal-learn."""


def peers() -> dict[str, Callable[[Batch], Tensor]]:
    """Return the `PEERS` that are installed, as functions from the support to log odds `[B, d, d]`."""
    installed = find_spec("causallearn") is not None
    return {
        name: partial(_log_odds, orders)
        for name, orders in PEERS.items()
        if installed or name not in CLASSICAL
    }


def _log_odds(orders: Callable[[Batch], Tensor], support: Batch) -> Tensor:
    """Return how far each variable is before each other one in the order, `[B, d, d]`."""
    place = orders(support).argsort(dim=1).to(support.x.dtype)
    return place[:, None] - place[:, :, None]


def extension_order(edges: np.ndarray, rng: np.random.Generator) -> list[int]:
    """Return an order, causes first, of an acyclic graph that extends a CPDAG. Ties are broken at random.

    `edges [d, d]` bool: i -> j where only `[i, j]` is true, i - j where both are.

    The order is built from its end. A variable may be last if it has no children and each undirected neighbour is
    adjacent to all its other neighbours. If no variable qualifies, the CPDAG has no extension. Then any variable
    without children is taken, else any variable.

    Example:
        >>> extension_order(np.array([[0, 1], [0, 0]], dtype=bool), np.random.default_rng(0))
        [0, 1]

    Source: Dor, Tarsi 1992.
    """
    remaining, last_first = list(range(len(edges))), []
    while remaining:
        part = edges[np.ix_(remaining, remaining)]
        around, open_ends = part | part.T, part & part.T
        sinks = ~(part & ~part.T).any(axis=1)
        fits = np.array([_keeps_colliders(i, around, open_ends) for i in range(len(remaining))]) & sinks
        pool = next(
            candidates for candidates in (fits, sinks, np.full(len(remaining), True)) if candidates.any()
        )
        last_first.append(remaining.pop(int(rng.choice(np.flatnonzero(pool)))))
    return last_first[::-1]


def _keeps_colliders(i: int, around: np.ndarray, open_ends: np.ndarray) -> bool:
    """Return whether each undirected neighbour of i is adjacent to all its other neighbours. Then i may be last."""
    itself = np.eye(len(around), dtype=bool)
    return all(bool((around[j] | ~around[i] | itself[j]).all()) for j in np.flatnonzero(open_ends[i]))


def _order_tasks(support: Batch, order: Callable[[np.ndarray], list[int]]) -> Tensor:
    """Return the order of each task's present rows, `[B, d]`."""
    tasks = zip(support.x, support.mask, strict=True)
    return torch.tensor([order(x[mask].double().numpy()) for x, mask in tasks])
