"""A bank of predictors that remember differently long, weighed by what they predicted lately.

Source: Herbster, Warmuth 1998 (fixed share); Page 1954, eq. 2 (CUSUM); Haykin 2002, section 9.3 (discounted sums).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from copy import copy as shallow_copy
from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from ..nn.carry import Change, carry_matrix
from ..nn.fixed_features import FixedFeatures
from ..nn.landmarks import choose_landmarks
from .context import RATES, Context
from .copies import BLOCK, FOREVER, Copy, Ridge, is_embedding, spread
from .grown import Grown
from .weights import Shares

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

NEAR, PRODUCTS, STEPS = 48, 48, 40
"""Features of a copy beside x and 1, at most: a copy that forgets has few rows to fit them by."""

ROOM = 150
"""Inputs up to which running means of columns are features, too."""

ALARM, SLACK = 12.0, 0.5
"""Nats by which copies of few rows must have beaten those of all since the last change, after a block's `SLACK`."""

KEPT, EVERY = 8, 512
"""Heads of the past that are kept, and rows after which one is."""

YOUNG = 256
"""Rows before no change is found: the map is not settled."""

COUNTS = (FOREVER, 0.99, 0.95, 0.8)
"""The factors of the running counts of classes, or means."""


class Factors(NamedTuple):
    """The factors of the copies of a bank by name: of ridge heads, softmax heads, and heads on context as well."""

    ridge: dict[str, float]
    softmax: dict[str, float]
    context: dict[str, float]
    counts: tuple[float, ...]


ADAPTIVE = Factors(
    {"since": FOREVER, "640": 0.95, "160": 0.8},
    {"all": FOREVER, "since": FOREVER, "3200": 0.99, "640": 0.95, "160": 0.8},
    {"3200": 0.99, "640": 0.95},
    COUNTS,
)
"""Of memory="adaptive": a copy is called by the rows that it rests on, those since the last change, or all."""


def factors_of(memory: str | int) -> Factors:
    """Return the factors of a memory: "adaptive", or a number of rows, of which all copies rest on as many.

    Example:
        >>> from gradatim.memory.bank import factors_of
        >>> factors_of(320).ridge
        {'window': 0.9}
    """
    if memory == "adaptive":
        return ADAPTIVE
    window = {"window": max(0.0, 1 - BLOCK / float(memory))}
    return Factors(window, window, window, (window["window"],))


class Forecast(NamedTuple):
    """What is known of rows before their targets are: their features, and the predictions of all variants.

    Fields: `phi [n, D]` and `context [n, D']` (or None), float32; `variants [n, V, ...]`.
    """

    phi: np.ndarray
    context: np.ndarray | None
    variants: np.ndarray


class Bank(ABC):
    """Copies of linear heads that forget at different rates, beside a committee that forgets nothing.

    A family is one copy, or the committee, the running counts of classes, boosted trees, or heads that were good once.
    Fixed share
    weighs the variants of a family, and the families. When copies of few rows go on beating those of all rows since the
    last change, the latter begin anew from the former: that is a change.

    Rows of one call are taken as simultaneous: none of them sees the targets or columns of another.

    Args:
        memory: "adaptive", or a number of rows.
        features: phi, of encoded rows.
        outputs: C, how many classes; 1 for a number.
        numbers: `[m]`, the inputs that are columns of numbers.
        around: phi of rows with their context, or None.

    Attributes:
        total: rows learnt.
        changes: how many rows were learnt at each change.
        at_hand: what was put together of the heads of copies, until they change.
        pending: rows of this block that no copy holds yet.
        last_forecast: rows `[n, d]` that were asked about since rows were learnt, and the forecast of them.
    """

    contexts: Mapping[str, Copy]
    changes: list[int]

    def __init__(
        self,
        memory: str | int,
        features: FixedFeatures,
        outputs: int,
        numbers: np.ndarray,
        around: FixedFeatures | None,
    ) -> None:
        self.memory, self.features, self.outputs, self.around = memory, features, outputs, around
        self.factors = factors_of(memory)
        self.total, self.alarm, self.changes = 0, 0.0, []
        width = sum(features.blocks)
        self.counts = np.zeros((len(self.factors.counts), self.width_of_counts))
        self.counted = np.zeros(len(self.factors.counts))
        self.ridges = {
            name: Ridge.empty(width, outputs, factor, features.blocks[0])
            for name, factor in self.factors.ridge.items()
        }
        self.context, self.grown = Context.empty(numbers, outputs), Grown()
        self.past = np.zeros((KEPT, width, outputs), np.float32)
        self.use, self.kept = np.zeros(KEPT), 0
        sizes = self.families()
        self.names = tuple(sizes)
        self.shares = Shares.even([*sizes.values()])
        self.log_likelihood = np.zeros(len(sizes))
        self.last_forecast: tuple[Any, Any] = (None, None)
        self.at_hand: dict[str, np.ndarray] = {}
        self.pending: tuple[tuple[Forecast, np.ndarray, np.ndarray], ...] = ()
        self.begin(width, 0 if around is None else sum(around.blocks) + self.context.targets.size)

    @abstractmethod
    def begin(self, width: int, wide: int) -> None:
        """Make what a bank of this kind has beside ridge copies: of D features, and D' with their context, or 0."""

    @property
    @abstractmethod
    def width_of_counts(self) -> int:
        """Return how many numbers a running count holds."""

    @property
    @abstractmethod
    def classes(self) -> int | None:
        """Return C, or None of a number."""

    @abstractmethod
    def families(self) -> dict[str, int]:
        """Return how many variants each family has."""

    @abstractmethod
    def forecast(self, x: np.ndarray, committee: np.ndarray) -> Forecast:
        """Return the predictions for encoded rows `[n, d]`, of which a committee predicts `[n, ...]`."""

    @abstractmethod
    def answer(self, forecast: Forecast) -> Any:
        """Return probabilities `[n, C]`, or the distributions (`Mixture`) of a number."""

    @abstractmethod
    def weigh(self, forecast: Forecast, y: np.ndarray, weight: np.ndarray) -> None:
        """Weigh all by rows of targets `[n]` and weights `[n]`."""

    @abstractmethod
    def add(self, forecast: Forecast, codes: np.ndarray, weight: np.ndarray) -> None:
        """Add rows of targets `[n, C]` and weights `[n]`, float32, to the copies."""

    @abstractmethod
    def copies(self) -> dict[str, Copy]:
        """Return all copies by the name of their family."""

    @property
    def room(self) -> int:
        """Return how many rows more this block takes: blocks end after 4, 8, 16, 32 rows, then after every 32."""
        end = next((size for size in (4, 8, 16) if self.total < size), BLOCK * (self.total // BLOCK + 1))
        return end - self.total

    def learn(self, x: np.ndarray, y: np.ndarray, weight: np.ndarray, forecast: Forecast) -> None:
        """Learn encoded rows `[n, d]` of one block, y `[n]`, of weights `[n]`, with the `forecast` of them."""
        codes, ends, self.last_forecast = self.codes(y), len(x) == self.room, (None, None)
        self.weigh(forecast, y, weight)
        self.pending = (*self.pending, (forecast, codes, weight.astype(np.float32)))
        self.counts = self.counts + weight @ codes
        self.counted = self.counted + weight.sum()
        self.context.learn(x, codes)
        if "trees" in self.names:
            self.grown.learn(x, y, weight)
        self.total += len(x)
        if ends:
            self._turn()

    def settle(self) -> None:
        """Add the rows of this block that wait to the copies: together that is faster than one by one."""
        if not self.pending:
            return
        forecasts, codes, weight = zip(*self.pending, strict=True)
        self.pending = ()
        phi, context, variants = zip(*forecasts, strict=True)
        around = None if self.around is None else np.concatenate(context)
        block = Forecast(np.concatenate(phi), around, variants[0])
        self.add(block, np.concatenate(codes), np.concatenate(weight))

    def _turn(self) -> None:
        """End a block."""
        self.settle()
        rows = BLOCK if self.total > BLOCK else max(4, self.total // 2)
        for copy in self.copies().values():
            copy.turn(rows)
        faded = np.array(self.factors.counts) ** (rows / BLOCK)
        self.counts, self.counted = faded[:, None] * self.counts, faded * self.counted
        self._watch()
        if "trees" in self.names:
            self.grown.turn(self.classes)
        self.at_hand = {}
        self.shares.turn(rows, BLOCK)
        self._keep()

    def _watch(self) -> None:
        """Look for a change: copies of few rows go on beating all that rests on more."""
        log_likelihood = dict(zip(self.names, self.log_likelihood, strict=True))
        self.log_likelihood = np.zeros_like(self.log_likelihood)
        pairs = [(since, family) for since, family in self.restarts() if since in log_likelihood]
        if not pairs or self.total <= YOUNG:
            return
        fresh = max(log_likelihood[f"{kind} {rows}"] for _, kind in pairs for rows in ("160", "640"))
        lasting = max(
            log_likelihood[name] for name in ("trees", *(since for since, _ in pairs)) if name in self.names
        )
        self.alarm = max(0.0, self.alarm + fresh - lasting - SLACK)
        if self.alarm > ALARM:
            self.alarm = 0.0
            self.changes = [*self.changes, self.total]
            copies, weight = self.copies(), dict(zip(self.names, self.shares.family, strict=True))
            for since, kind in pairs:
                copies[since].become(copies[max((f"{kind} 160", f"{kind} 640"), key=weight.__getitem__)])
            self.grown.shorten()

    @abstractmethod
    def restarts(self) -> list[tuple[str, str]]:
        """Return the families that begin anew at a change, and their kind."""

    def _keep(self) -> None:
        """Keep a head, once in a while, in place of the one that was of least use."""
        if "past" not in self.names:
            return
        at = self.names.index("past")
        start = int(self.shares.starts[at])
        weight = self.shares.within[start : start + self.shares.sizes[at]].reshape(KEPT, -1).sum(1)
        self.use = 0.995 * self.use + weight * self.shares.family[at]
        if self.total % EVERY:
            return
        slot = self.kept if self.kept < KEPT else int(self.use.argmin())
        head = self.ridges["640"].heads[:, -2 * self.outputs : -self.outputs]
        self.past = np.concatenate([self.past[:slot], head[None], self.past[slot + 1 :]])
        if self.kept == KEPT:
            self.use = np.where(np.arange(KEPT) == slot, np.median(self.use), self.use)
        self.kept = min(KEPT, self.kept + 1)

    def codes(self, y: np.ndarray) -> np.ndarray:
        """Return targets `[n]` as `[n, C]` float32."""
        return y[:, None].astype(np.float32)

    def phi(self, x: np.ndarray) -> np.ndarray:
        """Return the features `[n, D]` float32 of encoded rows."""
        return self.features(torch.from_numpy(x)).numpy().astype(np.float32)

    def phi_around(self, x: np.ndarray) -> np.ndarray | None:
        """Return the features `[n, D']` float32 of encoded rows `[n, d]` with their context."""
        if self.around is None:
            return None
        phi = self.around(torch.from_numpy(self.context.rows(x))).numpy()
        return np.concatenate([phi, self.context.tail(len(x))], axis=1, dtype=np.float32, casting="same_kind")

    @property
    def remembers(self) -> float:
        """Return how many rows the answers rest on: the families' mean, by their weight."""
        rows = {"trees": self.grown.grown_on} | {name: copy.rows for name, copy in self.copies().items()}
        fewest = {name: min(rows.get(name, float(self.total)), float(self.total)) for name in self.names}
        return float(sum(w * fewest[name] for w, name in zip(self.shares.family, self.names, strict=True)))

    def carry(self, change: Change) -> None:
        """Go on with encoded rows whose inputs changed: sums are carried exactly, see `carry_matrix`."""
        self.settle()
        self.last_forecast, self.at_hand = (None, None), {}
        self.features, matrix = _carried(self.features, change)
        self.grown.carry(change)
        for copy in self.plain():
            copy.carry(matrix)
        exact = is_embedding(matrix)
        self.past = np.stack([matrix @ head if exact else 0 * (matrix @ head) for head in self.past])
        if self.around is not None:
            before = self.context.numbers
            self.around, matrix = _carried(self.around, _with_context(change, before))
            self.context.move(*(part.numpy()[before] for part in change[:3]))
            self._carry_around(matrix, np.eye(self.context.targets.size, dtype=np.float32))

    def _carry_around(self, matrix: np.ndarray, targets: np.ndarray) -> None:
        """Go on with features `[D']` of rows and their context, and with means of targets, by a matrix each."""
        (a, b), (c, d) = matrix.shape, targets.shape
        joint = np.zeros((a + c, b + d), np.float32)
        joint[:a, :b], joint[a:, b:] = matrix, targets
        for copy in self.contexts.values():
            copy.carry(joint)

    def widen(self, place: np.ndarray, outputs: int) -> None:
        """Go on with more classes: class c becomes `place[c]`."""
        self.settle()
        eye = spread(np.eye(self.outputs, dtype=np.float32), place, outputs).T
        if self.around is not None:
            self._carry_around(np.eye(sum(self.around.blocks), dtype=np.float32), np.kron(np.eye(2), eye))
        self.context.targets = spread(self.context.targets, place, outputs)
        self.grown.widen(place)
        for copy in self.copies().values():
            copy.widen(place, outputs)
        self.past, self.counts = spread(self.past, place, outputs), spread(self.counts, place, outputs)
        self.outputs, self.last_forecast, self.at_hand = outputs, (None, None), {}

    def merge(self, bank: Self) -> None:
        """Learn what another bank of the same features has learnt, as if at the same time; weights are averaged."""
        share = bank.total / max(1, self.total + bank.total)
        self.settle()
        bank = bank.copied()
        bank.settle()
        others = bank.copies()
        for name, each in self.copies().items():
            each.add(others[name].gram, others[name].cross, others[name].rows)
            each.solve()
        self.counts, self.counted = self.counts + bank.counts, self.counted + bank.counted
        self.at_hand, self.last_forecast = {}, (None, None)
        self.grown = max(self.grown, bank.grown, key=lambda grown: grown.grown_on)
        self.shares = self.shares.averaged(bank.shares, share)
        self.total += bank.total

    def copied(self) -> Self:
        """Return a bank that goes on by itself: what this one knows is never written over."""
        bank = shallow_copy(self)
        for name, part in vars(self).items():
            if isinstance(part, dict):
                setattr(bank, name, {key: shallow_copy(value) for key, value in part.items()})
            elif is_dataclass(part):
                setattr(bank, name, shallow_copy(part))
        return bank

    def anew(self) -> Self:
        """Return a bank of the same features that has seen no row."""
        return type(self)(self.memory, self.features, self.outputs, self.context.numbers, self.around)

    def plain(self) -> list[Copy]:
        """Return the copies on features of rows alone."""
        around = self.contexts.values()
        return [copy for copy in self.copies().values() if not any(copy is part for part in around)]


def _carried(features: FixedFeatures, change: Change) -> tuple[FixedFeatures, np.ndarray]:
    """Return features of rows whose inputs changed, and the matrix `[D', D]` float32 to them."""
    wider = FixedFeatures(features.draws.widened(change.place, change.width)).double()
    return wider, carry_matrix(features, wider, change, same_draws=True).numpy().astype(np.float32)


def _with_context(change: Change, numbers: np.ndarray) -> Change:
    """Return a change of rows as one of rows with their context, of the inputs `numbers [m]`."""
    more = torch.from_numpy(np.tile(numbers, len(RATES)))
    place = torch.cat([change.place, change.width + torch.arange(len(more))])
    scale = torch.cat([change.scale, change.scale[more]])
    shift = torch.cat([change.shift, torch.zeros(len(more), dtype=change.shift.dtype)])
    flag = None if change.flag is None else torch.cat([change.flag, torch.full_like(more, -1)])
    return Change(place, scale, shift, change.width + len(more), flag)


def draw_features(
    x: np.ndarray, steps: list[tuple[int, float]], seed: int, near: int = NEAR, products: int = PRODUCTS
) -> FixedFeatures:
    """Return the features of copies for encoded rows `[n, d]`."""
    landmarks = torch.from_numpy(choose_landmarks(x, near, seed)).double()
    return FixedFeatures.draw(
        landmarks, products, steps[:STEPS], seed=seed, rows=torch.from_numpy(np.ascontiguousarray(x))
    ).double()
