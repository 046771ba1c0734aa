"""A bank that predicts classes.

Source: Herbster, Warmuth 1998 (fixed share); Genest, Zidek 1986 (the pool).
"""

from __future__ import annotations

import numpy as np

from .bank import KEPT, Bank, Forecast
from .copies import MOST_LOGIT, STRENGTHS, Copy, Softmax, softmax
from .weights import LEAST, LogPool

SHARPNESS = np.array([2.0, 4.0, 8.0, 16.0], np.float32)
"""Factors that turn one-hot codes fitted by regression into logits."""

FLOOR = 1e-3
"""Share of each variant's probability that is spread evenly over the classes."""


class ClassBank(Bank):
    """A bank whose answers are probabilities of C classes: the families' logs, pooled by learnt weights.

    Families: the committee; running counts; ridge copies under several strengths and sharpnesses; softmax copies;
    softmax copies on context, which know the classes of the rows before; heads that were good once; boosted trees.
    """

    contexts: dict[str, Softmax]

    def begin(self, width: int, wide: int) -> None:
        """Make softmax copies of D features, and of D' with their context."""
        contexts = self.factors.context if wide else {}
        self.softmaxes = {n: Softmax.empty(width, self.outputs, f) for n, f in self.factors.softmax.items()}
        self.contexts = {n: Softmax.empty(wide, self.outputs, f) for n, f in contexts.items()}
        self.pool = LogPool.of_first(1 + len(self.names))

    @property
    def width_of_counts(self) -> int:
        """Return C."""
        return self.outputs

    @property
    def classes(self) -> int:
        """Return C."""
        return self.outputs

    def families(self) -> dict[str, int]:
        """Return how many variants each family has."""
        ways, factors = 2 * len(STRENGTHS) * len(SHARPNESS), self.factors
        adaptive = self.memory == "adaptive"
        return {
            **({"committee": 1} if adaptive else {}),
            "counts": len(factors.counts),
            **{f"ridge {name}": ways for name in factors.ridge},
            **({"past": KEPT * len(SHARPNESS)} if adaptive else {}),
            **{f"softmax {name}": 1 for name in factors.softmax},
            **({f"context {name}": 1 for name in factors.context} if self.around is not None else {}),
            **({"trees": 1} if adaptive else {}),
        }

    def copies(self) -> dict[str, Copy]:
        """Return all copies by the name of their family."""
        parts = {"ridge": self.ridges, "softmax": self.softmaxes, "context": self.contexts}
        return {f"{kind} {name}": copy for kind, group in parts.items() for name, copy in group.items()}

    def restarts(self) -> list[tuple[str, str]]:
        """Return the families that begin anew at a change, and their kind."""
        return [("ridge since", "ridge"), ("softmax since", "softmax")]

    def forecast(self, x: np.ndarray, committee: np.ndarray) -> Forecast:
        """Return the predictions for encoded rows `[n, d]`, of which a committee predicts `[n, C]`."""
        n, classes, phi, around = len(x), self.outputs, self.phi(x), self.phi_around(x)
        rates = (self.counts + 0.5 / classes) / (self.counted + 0.5)[:, None]
        heads = self.heads()
        scores = (phi @ heads["scores"]).reshape(n, -1, classes)
        logits = phi @ heads["logits"]
        if around is not None:
            logits = np.concatenate([logits, around @ heads["around"]], axis=1)
        soft = logits.reshape(n, -1, classes).clip(-MOST_LOGIT, MOST_LOGIT)
        parts = [
            *([committee[:, None]] if self.memory == "adaptive" else []),
            np.broadcast_to(rates, (n, *rates.shape)),
            softmax(scores[:, :, None] * SHARPNESS[:, None]).reshape(n, -1, classes),
            softmax(soft),
            *([self.grown.probabilities(x, rates[0])[:, None]] if self.memory == "adaptive" else []),
        ]
        variants = (1 - FLOOR) * np.concatenate(parts, axis=1) + FLOOR / classes
        return Forecast(phi, around, variants)

    def heads(self) -> dict[str, np.ndarray]:
        """Return the heads of all copies side by side, `[D, H C]`; they change at the end of a block."""
        if not self.at_hand:
            ridges = [copy.heads for copy in self.ridges.values()]
            if "past" in self.names:
                past = np.where(np.arange(KEPT)[:, None, None] < self.kept, self.past, 0.0)
                ridges.append(past.transpose(1, 0, 2).reshape(self.past.shape[1], -1))
            around = [copy.heads for copy in self.contexts.values()]
            self.at_hand = {
                "scores": np.concatenate(ridges, axis=1, dtype=np.float32),
                "logits": np.concatenate([copy.heads for copy in self.softmaxes.values()], axis=1),
                **({"around": np.concatenate(around, axis=1)} if around else {}),
            }
        return self.at_hand

    def answer(self, forecast: Forecast) -> np.ndarray:
        """Return probabilities `[n, C]`."""
        return self.pool.answer(self.pool.inputs(self._mixtures(forecast)))

    def weigh(self, forecast: Forecast, y: np.ndarray, weight: np.ndarray) -> None:
        """Weigh all by rows of classes `[n]` and weights `[n]`."""
        y, rows, mixtures = y.astype(int), np.arange(len(y)), self._mixtures(forecast)
        families = weight @ np.log(mixtures[rows, 1:, y].clip(LEAST))
        self.shares.weigh(weight @ np.log(forecast.variants[rows, :, y]), families)
        self.log_likelihood = self.log_likelihood + families
        self.pool.learn(self.pool.inputs(mixtures), y)

    def add(self, forecast: Forecast, codes: np.ndarray, weight: np.ndarray) -> None:
        """Add rows of classes `[n, C]` one-hot and weights `[n]` to the copies."""
        weighted = forecast.phi.T * weight
        gram, cross, rows = weighted @ forecast.phi, weighted @ codes, float(weight.sum())
        for ridge in self.ridges.values():
            ridge.add(gram, cross, rows)
        for copy in self.softmaxes.values():
            copy.learn(forecast.phi, codes, weight)
        for copy in self.contexts.values():
            assert forecast.context is not None
            copy.learn(forecast.context, codes, weight)

    def codes(self, y: np.ndarray) -> np.ndarray:
        """Return classes `[n]` one-hot, `[n, C]` float32."""
        return np.eye(self.outputs, dtype=np.float32)[y.astype(int)]

    def _mixtures(self, forecast: Forecast) -> np.ndarray:
        """Return the average of all families and theirs, `[n, 1 + F, C]`."""
        families = self.shares.mixed(forecast.variants)
        return np.concatenate([np.tensordot(families, self.shares.family, (1, 0))[:, None], families], axis=1)
