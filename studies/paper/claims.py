"""The figures of `make study NAME=paper`, from its records and from references that are computed beside it.

Source: Mittal et al. 2025, findings 1 and 4; Finn et al. 2017 (MAML); Vicol et al. 2021 (evolution strategies).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gradatim.comparison.runs import claim
from gradatim.families import LinearRegression
from gradatim.methods import build
from gradatim.metrics import bootstrap, mean_interval
from gradatim.testing.references import meta_gradient_error
from gradatim.training.evolution import Evolution, cosine_ratios

from .causal_peers import CLASSICAL, PEERS

if TYPE_CHECKING:
    from gradatim.comparison.experiment import Values

Best = Mapping[str, tuple[str, str]]
"""For each regime our best learner after ten steps, and the best trained for one, by name."""


def missing(kept: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the claim that no cell of the list is empty."""
    count = sum(record is None for record in kept.values())
    return claim("paper.cells_missing", count, count, count, 0, "<=")


def families_improved(
    found: Mapping[str, Mapping[str, Values]], best: Mapping[str, Best], metrics: Mapping[str, str]
) -> dict[str, Any]:
    """Return the claim on how many families ten steps beat a learner trained for one, outside the interval."""
    beside = {}
    for name, by_regime in best.items():
        ours, single = by_regime["any"]
        values = _errors(found[name], ours, single, metrics[name])
        beside[f"{name}: {ours} after 10 steps less {single} after 1, over the latter"] = _gap(*values)
    count = sum(high < 0 for _, _, high in beside.values())
    made = claim("paper.families_improved", count, count, count, 8, ">=")
    return made | {"beside": beside}


def generation(found: Mapping[str, Values], best: Best) -> dict[str, Any]:
    """Return the claim on how many regimes generate better mixtures after ten steps, outside the interval."""
    beside = {
        f"{regime}: {ours} after 10 steps less {single} after 1, over the latter": _gap(
            *_errors(found, ours, single, "energy distance")
        )
        for regime, (ours, single) in best.items()
        if regime != "any"
    }
    count = sum(high < 0 for _, _, high in beside.values())
    return claim("paper.generation", count, count, count, 2, ">=") | {"beside": beside}


def order(found: Mapping[str, Values], ours: str) -> list[dict[str, Any]]:
    """Return the claim on reversed edges beside the better classical baseline; none without causal-learn.

    `found`: values by learner and peer; `ours`: the learner that is held to it.
    """
    shares = {name: found[name]["reversed edges"][:, -1] for name in (ours, *PEERS) if name in found}
    rivals = [name for name in CLASSICAL if name in shares]
    if not rivals:
        return []
    rival = min(rivals, key=lambda name: float(shares[name].mean()))
    ratio = bootstrap(lambda a, b: float(a.mean() / b.mean()), shares[ours], shares[rival])
    beside = {
        f"reversed edges, {name}": [float(v) for v in mean_interval(values)]
        for name, values in shares.items()
    }
    return [claim("paper.causal.over_best_baseline", *ratio, 0.8, "<=") | {"beside": beside}]


def references(smoke: bool) -> list[dict[str, Any]]:
    """Return the claims on MAML's meta-gradient and on the direction of evolution strategies."""
    family = LinearRegression(4, 0.5, support_rows=15, query_rows=8)
    task = family.sample(3, torch.Generator().manual_seed(0)).to(torch.float64)
    errors = [
        meta_gradient_error(build(name, family, rate=0.1).double(), task, batch_size=5, horizon=3)
        for name in ("maml", "meta-sgd")
    ]
    parity = claim("paper.maml_parity", max(errors), min(errors), max(errors), 1e-10, "<=")
    few = LinearRegression(4, 0.5, support_rows=20, query_rows=8)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        learner = build("parametric-both", few, width=8, layers=1).double()
    task = few.sample(2, torch.Generator().manual_seed(1)).to(torch.float64)
    draws = 8 if smoke else 400
    scheme = Evolution(batch_size=5, horizon=4, pairs=4 if smoke else 16, sigma=1e-4)
    ratios = cosine_ratios(scheme, learner, task, torch.Generator().manual_seed(2), draws)
    mean, half = float(ratios.mean()), 1.96 * float(ratios.std()) / draws**0.5
    apart = abs(mean - 1)
    cosine = claim("paper.es_cosine", apart, max(0.0, apart - half), apart + half, 0.1, "<=")
    return [parity | {"range": "MAML and Meta-SGD"}, cosine]


def _errors(
    found: Mapping[str, Values], ours: str, single: str, metric: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return errors `[S, T]` after the last step of one learner and after the first of the other."""
    return found[ours][metric][:, -1], found[single][metric][:, 0]


def _gap(ours: np.ndarray, single: np.ndarray) -> list[float]:
    """Return the difference of means over the second's size, with its interval, paired by task."""
    gap = bootstrap(lambda a, b: float((a.mean() - b.mean()) / abs(b.mean())), ours, single)
    return [round(value, 4) for value in gap]
