"""What is known of one table: how its columns become numbers, and what its rows have said so far.

Source: Dawid 1984 (every row is scored before it is learnt).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from ..batch import Batch
from ..nn.mixture import Tails
from ..predictors import Committee, CrossEntropy, SquaredError, widths
from ..preprocessing import Encoder
from ..refiners import Experts
from ..refiners.experts import GROWTH
from ..regimes import committee
from ..training.states import fingerprint

if TYPE_CHECKING:
    from torch import Tensor

    from ..learner import Learner
    from ..preprocessing import Columns
    from ..refiner import State
    from .rows import Rows

WARM = 256
"""Rows that are kept as they came; then the map from columns to numbers is fixed, and they are let go."""

LATE = 512
"""Rows that wait at most before they are taken in together."""

SPREAD = 0.4
"""Of the log of the distance at which later members' nearness fades; the first has 1."""

NUMBERS = 30_000
"""Rows times classes that are answered at a time, at most: each is a number for every way of answering."""

PIECE = 2048
"""Rows that are read at a time."""

ASKED = 8192
"""Rows that are answered at a time, at most."""


class Encoded(NamedTuple):
    """Rows of one task as tensors: `x [1, n, d]`, `y [1, n, 1]`, `weight [1, n]`."""

    x: Tensor
    y: Tensor
    weight: Tensor


@dataclass
class Adapted:
    """A task, one table: the map of its columns, and for each member a learner and its state.

    Fields: `outputs`: how many classes, or None: a regression; `seeds`: one for each member's features; `given`: the
    learner that takes the place of the shipped one; `device`; `encoder`, the map; `centre`, `scale` of a regression's
    y; `warm`: the rows while the map is not yet fixed; `late`: rows that came since, to be taken in soon, and
    their weight, `waiting`; `told`: columns that a warning has named.
    """

    outputs: int | None
    seeds: tuple[int, ...]
    given: Learner | None = None
    device: str = "cpu"
    encoder: Encoder | None = None
    centre: float = 0.0
    scale: float = 1.0
    warm: Rows | None = None
    late: tuple[Encoded, ...] = ()
    waiting: float = 0.0
    told: frozenset[str] = frozenset()
    learners: list[Learner] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    answering: tuple[list[Learner], list[Tensor], Adapted] | None = None

    @property
    def rows(self) -> float:
        """Return the number of rows learnt, weighted."""
        if self.warm is not None:
            return float(self.warm.weight.sum())
        if self.given is not None or not self.states:
            return float("nan")
        self._take_in()
        return float(self.states[0].moments.rows[0])

    def fit(self, rows: Rows, batch_size: int, passes: int = 1) -> None:
        """Learn a whole table anew: the map from all rows, and experts weighed by how well they do on rows left out."""
        self._refuse_weights(rows)
        self._map(rows)
        if self.given is None:
            self.states = [self._fitted(learner, rows) for learner in self.learners]
            return
        self.states = [learner.refiner.init(1) for learner in self.learners]
        for _ in range(passes):
            for piece in rows.pieces(batch_size):
                self.states = self._learnt(self._encoded(piece))

    def _fitted(self, learner: Learner, rows: Rows) -> State:
        """Return the state of a member after all rows, its experts weighed by each row as if it had been left out."""
        f, refiner = _experts(learner)
        state = refiner.init(1)
        with torch.no_grad():
            for piece in rows.pieces(PIECE):
                x, y, weight = self._encoded(piece)
                state = refiner.add(state, f.features(x), y, weight)
            factors = refiner.factors(state)
            state = refiner.solve(state, factors)
            for piece in rows.pieces(PIECE):
                x, y, weight = self._encoded(piece)
                found = refiner.left_out(state, factors, f.features(x), y, weight)
                state = state._replace(log_likelihood=state.log_likelihood + found)
        return state

    def partial_fit(self, rows: Rows, batch_size: int) -> None:
        """Learn rows in mini-batches, each scored before it is learnt; the first `WARM` decide the map.

        As long as rows are kept, what is known is what `fit` would make of them.
        """
        self._refuse_weights(rows)
        self.answering = None
        for piece in rows.pieces(batch_size):
            if self.encoder is not None and self.warm is None:
                self.encoder = self.encoder.extend(piece.columns)
                self._later(piece)
                continue
            self.warm = piece.copy() if self.warm is None else self.warm.and_then(piece)
            if self.given is not None:
                copy.copy(self)._map(self.warm)  # refuses a learner of another size
            if len(self.warm) >= WARM:
                self.fit(self.warm, batch_size)
                self.warm = None

    def outputs_of(self, columns: Columns, batch_size: int, levels: np.ndarray | None = None) -> np.ndarray:
        """Return probabilities `[n, C]`, or of a regression mean and variance `[n, 2]`, or quantiles `[n, Q]`."""
        learners, latents, ready = self._ready(batch_size)
        made = []
        most = max(learner.predictor.output_dim for learner in learners)
        size = max(64, min(ASKED, NUMBERS // most))
        with torch.inference_mode():
            for start in range(0, columns.n_rows, size):
                x = ready.numbers(columns.take(slice(start, start + size)))
                if levels is None:
                    each = [ready._answer(*pair, x) for pair in zip(learners, latents, strict=True)]
                    made.append(_mean(torch.stack(each), self.outputs is None))
                else:
                    made.append(ready._quantiles(learners, latents, x, levels))
        return torch.cat(made).cpu().numpy()

    def numbers(self, columns: Columns) -> Tensor:
        """Return x `[1, n, d]` of rows."""
        assert self.encoder is not None
        return torch.from_numpy(self.encoder.encode(columns))[None].to(self.device)

    def widen(self, place: np.ndarray, outputs: int) -> None:
        """Make room for new classes: what was class c is now class `place[c]` of `outputs`."""
        if self.given is not None:
            raise ValueError(
                f"the learner given as model answers {self.outputs} classes; got rows of {outputs}: give one for more"
            )
        self._take_in()
        self.outputs, self.answering = outputs, None
        if self.warm is not None:
            self.warm = replace(self.warm, y=place[self.warm.y.astype(int)].astype(float))
        if self.encoder is not None:
            kept = [_experts(learner)[0].landmarks for learner in self.learners]
            self.learners = [self.make(seed, rows) for seed, rows in zip(self.seeds, kept, strict=True)]
            index = torch.from_numpy(place.astype(np.int64)).to(self.device)
            self.states = [
                _experts(learner)[1].widened(state, index)
                for learner, state in zip(self.learners, self.states, strict=True)
            ]

    def merge(self, other: Adapted) -> None:
        """Learn what another has learnt under the same map."""
        if self.encoder is None or other.encoder is None or self.warm is not None or other.warm is not None:
            raise ValueError(
                f"merging needs two fixed maps, and a map is fixed after {WARM} rows: learn more rows first, or learn "
                "the few rows of one with the other's partial_fit"
            )
        self._take_in()
        other._take_in()
        self.encoder = self.encoder.merge(other.encoder)
        alike = (self.centre, self.scale, self.seeds) == (other.centre, other.scale, other.seeds)
        if not alike or [*map(fingerprint, self.learners)] != [*map(fingerprint, other.learners)]:
            raise ValueError("merging needs one scale of y and the same features: begin both with fork()")
        self.states = [
            learner.merge([one, two])
            for learner, one, two in zip(self.learners, self.states, other.states, strict=True)
        ]
        self.answering = None

    def settle(self) -> None:
        """Solve for all heads, those too that only score rows to come."""
        self._take_in()
        self.answering = None
        if self.given is None:
            self.states = [
                _experts(learner)[1].solve(state)
                for learner, state in zip(self.learners, self.states, strict=True)
            ]

    def forget(self) -> None:
        """Forget all rows, and keep the map."""
        self.late, self.waiting, self.told = (), 0.0, frozenset()
        self.states, self.answering = [learner.refiner.init(1) for learner in self.learners], None

    def _refuse_weights(self, rows: Rows) -> None:
        """Raise ValueError where a given learner would have to weigh rows."""
        if self.given is not None and (rows.weight != 1).any():
            raise ValueError(
                "the learner given as model counts every row once: sample_weight needs the shipped one"
            )

    def map_so_far(self) -> Encoder:
        """Return the map, or what it would be if it were fixed now."""
        if self.warm is not None:
            return Encoder.fit(self.warm.columns, self.warm.weight)
        assert self.encoder is not None
        return self.encoder

    def _map(self, rows: Rows) -> None:
        """Take the map from rows, and make the learners for it."""
        self.encoder = Encoder.fit(rows.columns, rows.weight)
        if self.outputs is None:
            total = rows.weight.sum()
            self.centre = float((rows.weight * rows.y).sum() / total)
            spread = float(np.sqrt((rows.weight * (rows.y - self.centre) ** 2).sum() / total))
            self.scale = spread if spread > 1e-12 * float(np.abs(rows.y).max()) else 1.0
        kept = [self._landmarks(rows, seed) for seed in self.seeds]
        self.learners = [self.make(seed, rows) for seed, rows in zip(self.seeds, kept, strict=True)]

    def _landmarks(self, rows: Rows, seed: int) -> Tensor:
        """Return some of the rows `[K, d]` as landmarks: each once, those whose hash is least, in whatever order."""
        assert self.encoder is not None
        if self.given is not None:
            return torch.zeros(0, self.encoder.width)
        most = widths(self.encoder.width).landmarks
        kept = np.empty((0, self.encoder.width), dtype=np.float32)
        for piece in rows.pieces(PIECE):
            kept = np.concatenate([kept, self.encoder.encode(piece.columns).astype(np.float32)])
            _, at = np.unique(hashes(kept, seed), return_index=True)
            kept = kept[at[:most]]
        return torch.from_numpy(kept)

    def make(self, seed: int, landmarks: Tensor) -> Learner:
        """Return a member: the given learner, or experts on features of its own."""
        assert self.encoder is not None
        if self.given is not None:
            width, outputs = self.given.predictor.x_dim, self.given.predictor.output_dim
            if width not in (None, self.encoder.width) or outputs != (self.outputs or 1):
                raise ValueError(
                    f"the learner given as model wants {width} inputs and gives {outputs} outputs; this table makes "
                    f"{self.encoder.width} inputs (numbers standardised, flags of missing ones, a code for each "
                    f"category) and wants {self.outputs or 1} outputs: give a learner of that size"
                )
            return copy.deepcopy(self.given).double().to(self.device)
        columns, thresholds = self.encoder.threshold_features(widths(self.encoder.width).steps)
        steps = list(zip(columns.tolist(), thresholds.tolist(), strict=True))
        likelihood = SquaredError(1) if self.outputs is None else CrossEntropy(self.outputs)
        member = self.seeds.index(seed)
        spread = 1.0 if member == 0 else float(np.exp(SPREAD * np.random.default_rng(seed).standard_normal()))
        return committee(likelihood, landmarks.double(), steps, spread, seed).double().to(self.device)

    def _ready(self, batch_size: int) -> tuple[list[Learner], list[Tensor], Adapted]:
        """Return learners and what they answer with, all rows counted; it is kept until more are learnt."""
        if self.answering is None:
            ready = self
            if self.warm is not None:
                ready = copy.copy(self)
                ready.fit(self.warm, batch_size)
            self._take_in()
            with torch.no_grad():
                latents = [
                    learner.refiner.latent(state)
                    for learner, state in zip(ready.learners, ready.states, strict=True)
                ]
            self.answering = ready.learners, latents, ready
        return self.answering

    def _later(self, piece: Rows) -> None:
        """Encode a mini-batch, and take it in with those before it when heads are due, or `LATE` rows wait.

        The heads that score rows change only then, so it makes no difference to wait; moments of many rows are cheaper.
        """
        self.late = (*self.late, self._encoded(piece))
        if self.given is not None:
            return self._take_in()
        self.waiting += float(piece.weight.sum())
        rows = float(self.states[0].moments.rows[0]) + self.waiting
        due = rows > (1 + GROWTH) * float(self.states[0].solved[0])
        if due or sum(part.y.shape[1] for part in self.late) >= LATE:
            self._take_in()
        return None

    def _take_in(self) -> None:
        """Score and learn the rows that wait."""
        if self.late:
            rows = Encoded(*(torch.cat(part, dim=1) for part in zip(*self.late, strict=True)))
            self.states, self.late, self.waiting = self._learnt(rows), (), 0.0

    def _encoded(self, piece: Rows) -> Encoded:
        """Return rows as tensors of one task; the numbers of a regression standardised."""
        y = torch.from_numpy(piece.y)[None, :, None].to(self.device)
        y = (y - self.centre) / self.scale if self.outputs is None else y.long()
        return Encoded(self.numbers(piece.columns), y, torch.from_numpy(piece.weight)[None].to(self.device))

    def _learnt(self, rows: Encoded) -> list[State]:
        """Return every member's state after the rows."""
        with torch.no_grad():
            return [
                _learn(learner, state, *rows)
                for learner, state in zip(self.learners, self.states, strict=True)
            ]

    def _answer(self, learner: Learner, latent: Tensor, x: Tensor) -> Tensor:
        """Return one member's answer at x: probabilities `[n, C]`, or mean and variance `[n, 2]`."""
        f = learner.predictor
        if self.outputs is not None:
            return f(x, latent)[0].softmax(-1)
        mean = f(x, latent)[0, :, :1]
        variance = f.variance(x, latent)[0] if isinstance(f, Committee) else torch.full_like(mean, torch.nan)
        return torch.cat([self.centre + self.scale * mean, self.scale**2 * variance], dim=-1)

    def _quantiles(
        self, learners: list[Learner], latents: list[Tensor], x: Tensor, levels: np.ndarray
    ) -> Tensor:
        """Return the quantiles `[n, Q]` of all members' mixture at x."""
        if self.given is not None:
            raise ValueError("the learner given as model answers a mean only: quantiles need the shipped one")
        each = [
            _experts(learner)[0].tails(x, latent) for learner, latent in zip(learners, latents, strict=True)
        ]
        return self.centre + self.scale * Tails.joined(each).quantiles(torch.from_numpy(levels).to(x))[0]


def _mean(each: Tensor, moments: bool) -> Tensor:
    """Return the mean of members' answers `[M, n, ...]`; their disagreement adds to the variance."""
    mean = each.mean(0)
    if moments:
        mean[:, 1] += each[..., 0].var(0, correction=0)
    return mean


def hashes(rows: np.ndarray, seed: int) -> np.ndarray:
    """Return a number for each row of float32 `[n, d]` that depends on its values and the seed alone, `[n]` uint64."""
    rng = np.random.default_rng(seed)
    odd = rng.integers(0, 2**63, rows.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    bits = (rows + np.float32(0)).view(np.uint32).astype(np.uint64)  # -0 is 0
    mixed = ((bits * odd) ^ (bits * odd >> np.uint64(29))).sum(1, dtype=np.uint64)
    return (mixed ^ (mixed >> np.uint64(31))) * odd[0]


def _experts(learner: Learner) -> tuple[Committee, Experts]:
    """Return the parts of the shipped learner."""
    f, refiner = learner.predictor, learner.refiner
    assert isinstance(f, Committee)
    assert isinstance(refiner, Experts)
    return f, refiner


def _learn(learner: Learner, state: State, x: Tensor, y: Tensor, weight: Tensor) -> State:
    """Return the state with rows scored, then learnt; of a given learner after a step."""
    if not isinstance(learner.refiner, Experts):
        return learner.step(state, Batch(x, y))
    f, refiner = _experts(learner)
    a = f.features(x)
    found = refiner.score(state, a, y, weight)
    return refiner.learn(state._replace(log_likelihood=state.log_likelihood + found), a, y, weight)
