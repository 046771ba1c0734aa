"""A bank that predicts a number.

Source: Herbster, Warmuth 1998 (fixed share); Wolpert 1992 (stacking); Student 1908.
"""

from __future__ import annotations

import numpy as np
import torch

from ..nn.mixture import TAILS, Mixture, log_density
from ..nn.widths import Widths
from .bank import KEPT, Bank, Forecast
from .copies import BLOCK, STRENGTHS, Copy, Ridge
from .weights import SMOOTH, STACKED, Noise, Shares, Stack

NEGLIGIBLE = 2e-3
"""A weight of a law below it is taken as none."""

FARTHEST = 1e6
"""Deviations of y beyond which a number counts as if it stood there: sums are float32."""

UNIT = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
"""Mean and deviation of the number."""

WIDTHS_FADE = 0.98
"""The factor by which what is known of widths counts less a block later."""

CONSTANT = 0.3
"""The input of a stack that is constant."""


class NumberBank(Bank):
    """A bank whose answers are mixtures of Student laws of a number that has about mean 0 and variance 1.

    Families: the committee; running means; ridge copies under several strengths, also on context, which know the
    targets of the rows before; heads that were good once; boosted trees.
    """

    def begin(self, width: int, wide: int) -> None:
        """Make ridge copies on context, of D' features, and what weighs means."""
        contexts = self.factors.context if self.around is not None else {}
        linear = 0 if self.around is None else self.around.blocks[0]
        self.contexts = {name: Ridge.empty(wide, 1, f, linear) for name, f in contexts.items()}
        families, variants = len(self.names), int(self.shares.sizes.sum())
        self.noise = {"variants": Noise.of(variants), "families": Noise.of(families)}
        self.stack = Stack.of(families)
        self.laws = Noise.of(1 + len(STACKED))
        self.last = Shares.even([len(SMOOTH) * (1 + len(STACKED)) * len(TAILS)])
        self.widths = Widths.empty(1, torch.zeros((), dtype=torch.float64)).turned(UNIT).joined[0].numpy()

    @property
    def width_of_counts(self) -> int:
        """Return 1."""
        return 1

    @property
    def classes(self) -> None:
        """Return None."""

    def families(self) -> dict[str, int]:
        """Return how many variants each family has."""
        ways, factors, adaptive = 2 * len(STRENGTHS), self.factors, self.memory == "adaptive"
        return {
            **({"committee": 1} if adaptive else {}),
            "counts": len(factors.counts),
            **{f"ridge {name}": ways for name in factors.ridge},
            **({"past": KEPT} if adaptive else {}),
            **({f"context {name}": ways for name in factors.context} if self.around is not None else {}),
            **({"trees": 1} if adaptive else {}),
        }

    def copies(self) -> dict[str, Copy]:
        """Return all copies by the name of their family."""
        parts = {"ridge": self.ridges, "context": self.contexts}
        return {f"{kind} {name}": copy for kind, group in parts.items() for name, copy in group.items()}

    def restarts(self) -> list[tuple[str, str]]:
        """Return the families that begin anew at a change, and their kind."""
        return [("ridge since", "ridge")]

    def forecast(self, x: np.ndarray, committee: np.ndarray) -> Forecast:
        """Return the predictions for encoded rows `[n, d]`, of which a committee predicts `[n]`."""
        phi, around, adaptive = self.phi(x), self.phi_around(x), self.memory == "adaptive"
        means = self.counts[:, 0] / (self.counted + 0.5)
        parts = [
            *([committee[:, None].clip(-FARTHEST, FARTHEST)] if adaptive else []),
            np.broadcast_to(means, (len(x), len(means))),
            phi @ np.concatenate([copy.heads for copy in self.ridges.values()], axis=1),
            *([phi @ self.past[:, :, 0].T] if adaptive else []),
            *([around @ copy.heads for copy in self.contexts.values()] if around is not None else []),
            *([self.grown.means(x, float(means[0]))[:, None]] if adaptive else []),
        ]
        return Forecast(phi, around, np.concatenate(parts, axis=1, dtype=np.float64))

    def answer(self, forecast: Forecast) -> Mixture:
        """Return the predictive distributions, means `[1, n, E]`."""
        means = self._stacked(forecast)[1].repeat(len(SMOOTH), axis=1)
        noise = self.laws.squares.T.ravel()
        weight = np.where(self.last.within < NEGLIGIBLE, 0.0, self.last.within)
        weight = (weight / weight.sum()).reshape(1, len(noise), len(TAILS))
        mixture = Mixture(*(torch.from_numpy(part) for part in (means[None], noise[None], weight)))
        return mixture._replace(stretch=self._widths.stretch(mixture.mean))

    def weigh(self, forecast: Forecast, y: np.ndarray, weight: np.ndarray) -> None:
        """Weigh all by rows of targets `[n]` and weights `[n]`."""
        inputs, means = self._stacked(forecast)
        families = self.shares.mixed(forecast.variants)
        errors = {"variants": forecast.variants - y[:, None], "families": families - y[:, None]}
        log_likelihood = {name: weight @ self.noise[name].log_likelihoods(errors[name]) for name in errors}
        self.shares.weigh(log_likelihood["variants"], log_likelihood["families"])
        self.log_likelihood = self.log_likelihood + log_likelihood["families"]
        law = self.answer(forecast)
        density = log_density(
            torch.from_numpy(y[:, None]), law.means[0][..., None], law.noise[0][:, None]
        ).numpy()
        rows = (torch.from_numpy(part[None]) for part in (y, weight))
        self.widths = self._widths.with_rows(law[:3], *rows).joined[0].numpy()
        self.last.weigh(np.tensordot(weight, density, (0, 0)).ravel(), np.zeros(1))
        self.stack.learn(inputs, y - means[:, 0], weight / max(float(self.laws.squares[1].min()), 1e-6))
        for name, error in errors.items():
            self.noise[name].learn(error, weight)
        self.laws.learn(means - y[:, None], weight)

    def add(self, forecast: Forecast, codes: np.ndarray, weight: np.ndarray) -> None:
        """Add rows of targets `[n, 1]` and weights `[n]` to the copies."""
        for phi, copies in ((forecast.phi, self.ridges), (forecast.context, self.contexts)):
            if phi is not None and copies:
                weighted = phi.T * weight
                gram, cross, rows = weighted @ phi, weighted @ codes, float(weight.sum())
                for copy in copies.values():
                    copy.add(gram, cross, rows)

    def _turn(self) -> None:
        """End a block."""
        rows = self.laws.rows
        super()._turn()
        self.stack.turn(rows)
        for noise in (*self.noise.values(), self.laws):
            noise.turn()
        self.last.turn(rows, 32)
        faded = torch.tensor([WIDTHS_FADE ** (rows / BLOCK)])
        self.widths = self._widths.turned(UNIT).shared(faded).joined[0].numpy()

    @property
    def _widths(self) -> Widths:
        """Return how wide the distributions are, by what is predicted."""
        return Widths.split(torch.from_numpy(self.widths)[None])

    def _stacked(self, forecast: Forecast) -> tuple[np.ndarray, np.ndarray]:
        """Return the inputs of stacks `[n, F + 1]`, and the means of all families and of stacks `[n, 1 + R]`."""
        families = self.shares.mixed(forecast.variants)
        mean = families @ self.shares.family
        inputs = np.concatenate([families - mean[:, None], np.full((len(mean), 1), CONSTANT)], axis=1)
        return inputs, np.concatenate([mean[:, None], mean[:, None] + self.stack.answer(inputs)], axis=1)
