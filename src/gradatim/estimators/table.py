"""A table as a task: the map of its columns, a learner, and the learner's state.

Source: Dawid 1984 (prequential evaluation: every row is scored before it is learnt).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..batch import Batch
from ..files.checkpoint import select_prefix
from ..nn.fixed_features import choose_landmarks, widths
from ..nn.mixture import Mixture
from ..predictors import CrossEntropy, SquaredError
from ..preprocessing import Encoder
from ..preprocessing.rows import Rows
from ..preprocessing.target import STANDARD, Target
from ..regimes import committees
from ..training.states import fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from ..learner import Learner
    from ..preprocessing import Columns
    from ..refiner import State

WARM = 256
"""Rows that are held as they came; then the map from columns to numbers is fixed, and they are dropped."""

NUMBERS = 30_000
"""Rows times classes that are predicted at a time, at most: each is a number for every expert."""

ENCODED = 2048
"""Rows that are encoded at a time."""


@dataclass
class TableTask:
    """A task, one table: the map of its columns, and for each member a learner and its state.

    Fields: `outputs`: how many classes, or None for a regression; `seeds`: one for each member's features; `template`:
    the user's learner, in place of the shipped one; `device`; `encoder`, the map, None while rows are held; `target`,
    of a regression; `warm`: the first rows, until the map is fixed; `rows`: the sum of the weights learnt;
    `warned`: columns that a warning has named; `landmarks [K, d]` of each member of the shipped learner; `learners`;
    `states`; `latents`: what predictions are made with, until more rows are learnt; `early`: the task fitted to the
    rows that are held, likewise.
    """

    outputs: int | None
    seeds: tuple[int, ...]
    template: Learner | None = None
    device: str = "cpu"
    encoder: Encoder | None = None
    target: Target = STANDARD
    warm: Rows | None = None
    rows: float = 0.0
    warned: frozenset[str] = frozenset()
    landmarks: list[np.ndarray] = field(default_factory=list)
    learners: list[Learner] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    latents: list[Tensor] | None = None
    early: TableTask | None = None

    def fit(self, rows: Rows, batch_size: int, passes: int = 1) -> None:
        """Learn a whole table from nothing, with the map from all rows.

        Raises:
            ValueError: the user's learner is of another size or counts every row once.
        """
        batch = self._fit_map(rows)
        self.warm = self.latents = self.early = None
        self.rows = float(rows.weight.sum())
        self.states = [learner.fit(batch, batch_size, passes) for learner in self.learners]

    def partial_fit(self, rows: Rows, batch_size: int, x: np.ndarray | None = None) -> None:
        """Learn rows in mini-batches, each scored before it is learnt; the first `WARM` decide the map.

        As long as rows are held, the task is what `fit` makes of them. `x [n, d]`: the rows as `encode` returned them.

        Raises:
            ValueError: as `fit`.
        """
        self.latents = self.early = None
        while self.encoder is None and len(rows):
            piece, rows = rows.take(slice(batch_size)), rows.take(slice(batch_size, None))
            self.warm = piece.concat() if self.warm is None else self.warm.concat(piece)
            self.rows += float(piece.weight.sum())
            if len(self.warm) >= WARM:
                self.fit(self.warm, batch_size)
            elif self.template is not None:
                copy.copy(self)._fit_map(self.warm)  # refuses a learner of another size at once
        # whole mini-batches at a time, all of the rows where they are encoded already
        size = max(1, ENCODED // batch_size) * batch_size if x is None else len(rows)
        for piece in rows.split(size) if len(rows) else ():
            for batch in self._batches(piece, batch_size, x):
                self.states = [f.learn(state, batch, predict=False)[1] for f, state in self._members]
        self.rows += float(rows.weight.sum())

    def _batches(self, rows: Rows, batch_size: int, x: np.ndarray | None) -> Iterator[Batch]:
        """Yield rows in mini-batches, under a map that is fixed but for levels that are new."""
        assert self.encoder is not None
        if self.encoder.extend(rows.columns) is self.encoder:
            x = self.encode(rows.columns) if x is None else x
            yield from self._batch(x, rows).split(batch_size)
        else:
            for piece in rows.split(batch_size):
                self.encoder = self.encoder.extend(piece.columns)
                yield self._batch(self.encode(piece.columns), piece)

    def encode(self, columns: Columns) -> np.ndarray:
        """Return rows as numbers, `[n, d]`."""
        assert self.encoder is not None
        return self.encoder.encode(columns)

    def current(self, batch_size: int) -> TableTask:
        """Return the task to predict with, all rows learnt: this one, or one fitted to the rows that are held."""
        if self.encoder is None:
            if self.early is None:
                assert self.warm is not None
                task = copy.copy(self)
                task.fit(self.warm, batch_size)
                self.early = task
            return self.early.current(batch_size)
        if self.latents is None:
            with torch.no_grad():
                self.states = [learner.refiner.settle(state) for learner, state in self._members]
                self.latents = [learner.refiner.latent(state) for learner, state in self._members]
        return self

    def predict(self, x: np.ndarray, read: Callable[[TableTask, Tensor], Tensor]) -> np.ndarray:
        """Return what `read` returns of this task and of encoded rows `[n, d]`, some at a time: `[n, ...]`."""
        size = max(64, NUMBERS // (self.outputs or 1))
        with torch.inference_mode():
            parts = [read(self, part[None].to(self.device)) for part in torch.from_numpy(x).split(size)]
        return torch.cat(parts).cpu().numpy()

    def outputs_at(self, x: Tensor) -> Tensor:
        """Return probabilities `[n, C]`, or a regression's means `[n]`, at x `[1, n, d]`."""
        assert self.latents is not None
        pairs = zip(self.learners, self.latents, strict=True)
        outputs = [learner.predictor(x, latent)[0] for learner, latent in pairs]
        if self.outputs is None:
            centre, scale = self.target
            return centre + scale * torch.stack(outputs).mean(0)[:, 0]
        return torch.stack([part.softmax(-1) for part in outputs]).mean(0)

    def distribution(self, x: Tensor) -> Mixture:
        """Return the predictive distribution of a regression's y `[1, n]` at x `[1, n, d]`.

        Raises:
            ValueError: the learner answers a mean only.
        """
        assert self.latents is not None
        pairs = zip(self.learners, self.latents, strict=True)
        centre, scale = self.target
        means, noise, weight = Mixture.joined([f.predictor.distribution(x, latent) for f, latent in pairs])
        return Mixture(centre + scale * means, scale**2 * noise, weight)

    def widen(self, place: np.ndarray, outputs: int) -> None:
        """Make room for new classes: class c becomes class `place[c]`, `place [C]`, of `outputs`.

        Raises:
            ValueError: the user's learner answers fewer classes.
        """
        self.outputs, self.latents, self.early = outputs, None, None
        if self.warm is not None:
            self.warm = replace(self.warm, y=place[self.warm.y.astype(int)].astype(float))
        if self.encoder is not None:
            self.build()
            index = torch.from_numpy(place.astype(np.int64)).to(self.device)
            self.states = [learner.widen(state, index) for learner, state in self._members]

    def merge(self, task: TableTask) -> None:
        """Learn what another task has learnt under the same map.

        Raises:
            ValueError: a map that is not fixed yet, other maps, scales or features.
        """
        if self.encoder is None or task.encoder is None:
            raise ValueError(
                f"merging needs two fixed maps, each fixed after {WARM} rows: learn more rows first"
            )
        self.encoder = self.encoder.merge(task.encoder)
        first, second = ((t.target, t.seeds, [*map(fingerprint, t.learners)]) for t in (self, task))
        if first != second:
            raise ValueError("merging needs one scale of y and the same features: begin both with fork()")
        pairs = zip(self._members, task.states, strict=True)
        self.states = [learner.merge([state, further]) for (learner, state), further in pairs]
        self.rows, self.latents = self.rows + task.rows, None

    def reset(self) -> None:
        """Forget all rows, and keep the map."""
        self.rows, self.warned, self.latents = 0.0, frozenset(), None
        self.states = [learner.init(1) for learner in self.learners]

    def build(self) -> None:
        """Make the members: copies of the user's learner, or experts on features of their own.

        Raises:
            ValueError: the user's learner is of another size, or implicit.
        """
        assert self.encoder is not None
        if self.template is not None:
            learner = copy.deepcopy(self.template).double().to(self.device)
            if learner.refiner.capabilities.per_query:
                raise ValueError(
                    "an implicit learner answers only its own queries: give a parametric or explicit one as model"
                )
            width, outputs = learner.predictor.x_dim, learner.predictor.output_dim
            inputs, classes = self.encoder.width, self.outputs or 1
            if width not in (None, inputs) or outputs != classes:
                raise ValueError(
                    f"the learner given as model wants {width} inputs and gives {outputs} outputs; this table makes "
                    f"{inputs} inputs (categories a code each) and wants {classes} outputs: give one of that size"
                )
            self.learners = [learner]
            return
        columns, thresholds = self.encoder.threshold_features(widths(self.encoder.width).steps)
        steps = list(zip(columns.tolist(), thresholds.tolist(), strict=True))
        likelihood = SquaredError(1) if self.outputs is None else CrossEntropy(self.outputs)
        landmarks = [torch.from_numpy(rows).double() for rows in self.landmarks]
        members = committees(likelihood, landmarks, steps, self.seeds)
        self.learners = [learner.double().to(self.device) for learner in members]

    def pack(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return what is learnt, tensors of any shape and plain JSON; the task goes on as it is unpacked."""
        packed = [learner.refiner.pack(state) for learner, state in self._members]
        self.states, self.latents = [state for state, _ in packed], None
        tensors = {
            f"{member}.{name}": t for member, (_, parts) in enumerate(packed) for name, t in parts.items()
        }
        tensors |= {
            f"{member}.landmarks": torch.from_numpy(rows) for member, rows in enumerate(self.landmarks)
        }
        encoder, warm = self.encoder, None
        if self.warm is not None:
            encoder = Encoder.fit(self.warm.columns, self.warm.weight)
            parts, warm = self.warm.pack()
            tensors |= {f"warm.{name}": part for name, part in parts.items()}
        assert encoder is not None
        return tensors, {
            "map": encoder.to_json(),
            "target": list(self.target),
            "warm": warm,
            "seeds": list(self.seeds),
            "learners": [] if self.template is None else [*map(fingerprint, self.learners)],
            "rows": self.rows,
        }

    def unpack(self, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
        """Put what `pack` returned, tensors of any shape and plain JSON, into a task that is new.

        Raises:
            ValueError: it contradicts itself, or was packed with another learner.
        """
        self.seeds, self.target, self.rows = tuple(header["seeds"]), Target(*header["target"]), header["rows"]
        if header["warm"] is not None:
            self.warm = Rows.unpack(select_prefix(tensors, "warm"), header["warm"])
            return
        self.encoder = Encoder.from_json(header["map"])
        members = [select_prefix(tensors, str(member)) for member in range(len(self.seeds))]
        if self.template is None:
            self.landmarks = [parts.pop("landmarks").numpy() for parts in members]
        self.build()
        if self.template is not None and header["learners"] != [*map(fingerprint, self.learners)]:
            raise ValueError("it was written with another learner: give that one as model")
        self.states = [
            learner.refiner.unpack(parts) for learner, parts in zip(self.learners, members, strict=True)
        ]

    @property
    def _members(self) -> list[tuple[Learner, State]]:
        return list(zip(self.learners, self.states, strict=True))

    def _fit_map(self, rows: Rows) -> Batch:
        """Take the map from rows, make the learners for it, and return the rows as a batch."""
        self.encoder = Encoder.fit(rows.columns, rows.weight)
        if self.outputs is None:
            self.target = Target.fit(rows.y, rows.weight)
        x = self.encode(rows.columns)
        if self.template is None:
            limit = widths(self.encoder.width).landmarks
            self.landmarks = [choose_landmarks(x, limit, seed) for seed in self.seeds]
        self.build()
        return self._batch(x, rows)

    def _batch(self, x: np.ndarray, rows: Rows) -> Batch:
        """Return rows encoded as x `[n, d]` as a batch of one task; the numbers of a regression standardised."""
        centre, scale = self.target
        y = (rows.y - centre) / scale if self.outputs is None else rows.y.astype(np.int64)
        parts = (x, y[:, None], rows.weight)
        inputs, target, weight = (torch.from_numpy(part)[None].to(self.device) for part in parts)
        # finite by the checks of the estimator and of the map, and without rows of weight 0
        batch = Batch._trusted(inputs, target, weight, bool((rows.weight != 1).any()))
        for learner in self.learners if batch.is_weighted else ():
            learner.check(batch)
        return batch
