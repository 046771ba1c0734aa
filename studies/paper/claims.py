"""The claims of `make study NAME=paper`, from its records and from reference computations.

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
"""For each regime the names of our best learner after ten steps and of the best one trained for one step."""


def cells_missing(filled: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the claim that no cell of the list is empty."""
    count = sum(record is None for record in filled.values())
    return claim("paper.cells_missing", count, count, count, 0, "<=")


def families_improved(
    results: Mapping[str, Mapping[str, Values]], best: Mapping[str, Best], metrics: Mapping[str, str]
) -> dict[str, Any]:
    """Return the claim on the number of families where ten steps beat a one-step learner, outside the interval."""
    beside = {}
    for name, by_regime in best.items():
        refined, single = by_regime["any"]
        values = _errors(results[name], refined, single, metrics[name])
        beside[f"{name}: {refined} after 10 steps less {single} after 1, over the latter"] = _gap(*values)
    count = sum(high < 0 for _, _, high in beside.values())
    entry = claim("paper.families_improved", count, count, count, 8, ">=")
    return entry | {"beside": beside}


def generation(results: Mapping[str, Values], best: Best) -> dict[str, Any]:
    """Return the claim on the number of regimes that generate better mixtures after ten steps, outside the interval."""
    beside = {
        f"{regime}: {refined} after 10 steps less {single} after 1, over the latter": _gap(
            *_errors(results, refined, single, "energy distance")
        )
        for regime, (refined, single) in best.items()
        if regime != "any"
    }
    count = sum(high < 0 for _, _, high in beside.values())
    return claim("paper.generation", count, count, count, 2, ">=") | {"beside": beside}


def causal_order(results: Mapping[str, Values], refined: str) -> list[dict[str, Any]]:
    """Return the claim on reversed edges over those of the better classical baseline.

    The list is empty without causal-learn.

    `results`: values by learner and peer. `refined`: the learner that is compared.
    """
    shares = {name: results[name]["reversed edges"][:, -1] for name in (refined, *PEERS) if name in results}
    rivals = [name for name in CLASSICAL if name in shares]
    if not rivals:
        return []
    rival = min(rivals, key=lambda name: float(shares[name].mean()))
    ratio = bootstrap(lambda a, b: float(a.mean() / b.mean()), shares[refined], shares[rival])
    beside = {
        f"reversed edges, {name}": [float(v) for v in mean_interval(values)]
        for name, values in shares.items()
    }
    return [claim("paper.causal.over_best_baseline", *ratio, 0.8, "<=") | {"beside": beside}]


def references(smoke: bool) -> list[dict[str, Any]]:
    """Return the claims on MAML's meta-gradient and on the mean direction of evolution strategies."""
    family = LinearRegression(4, 0.5, support_rows=15, query_rows=8)
    task = family.sample(3, torch.Generator().manual_seed(0)).to(torch.float64)
    errors = [
        meta_gradient_error(build(name, family, rate=0.1).double(), task, batch_size=5, horizon=3)
        for name in ("maml", "meta-sgd")
    ]
    parity = claim("paper.maml_parity", max(errors), min(errors), max(errors), 1e-10, "<=")
    longer = LinearRegression(4, 0.5, support_rows=20, query_rows=8)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        learner = build("parametric-both", longer, width=8, layers=1).double()
    task = longer.sample(2, torch.Generator().manual_seed(1)).to(torch.float64)
    draws = 8 if smoke else 400
    scheme = Evolution(batch_size=5, horizon=4, pairs=4 if smoke else 16, sigma=1e-4)
    ratios = cosine_ratios(scheme, learner, task, torch.Generator().manual_seed(2), draws)
    mean, half = float(ratios.mean()), 1.96 * float(ratios.std()) / draws**0.5
    apart = abs(mean - 1)
    cosine = claim("paper.es_cosine", apart, max(0.0, apart - half), apart + half, 0.1, "<=")
    return [parity | {"range": "MAML and Meta-SGD"}, cosine]


def _errors(
    results: Mapping[str, Values], refined: str, single: str, metric: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return the errors `[S, T]` of one learner after the last step, and of the other after the first step."""
    return results[refined][metric][:, -1], results[single][metric][:, 0]


def _gap(refined: np.ndarray, single: np.ndarray) -> list[float]:
    """Return the difference of means over the second mean, with its interval, paired by task."""
    gap = bootstrap(lambda a, b: float((a.mean() - b.mean()) / abs(b.mean())), refined, single)
    return [round(value, 4) for value in gap]
