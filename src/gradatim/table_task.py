"""A table as a task: the map of its columns, a learner, and the learner's state.

Source: Dawid 1984 (prequential evaluation: every row is scored before it is learnt).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .batch import Batch
from .committees import Answers, Members, check_size, fitting
from .files.checkpoint import select_prefix
from .memory import Following, begin, unpack
from .memory.waiting import begin_units, learn_in_units, learn_pending, pack_units, unpack_units
from .nn.fixed_features import Draws
from .nn.landmarks import POOL, row_hashes
from .nn.mixture import Mixture
from .preprocessing import Encoder, Number
from .preprocessing.maps import from_json, to_json
from .preprocessing.number import YOUNG
from .preprocessing.rows import Rows
from .table_features import draw_members
from .table_spread import Spread
from .training.states import fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from .learner import Learner
    from .memory.units import Units
    from .preprocessing import Columns

WARM = 256
"""Rows that are held as they came; then the map from columns to numbers is fixed, and they are dropped."""

NUMBERS = 30_000
"""Rows times classes that are predicted at a time, at most: each is a number for every expert."""

ENCODED = 2048
"""Rows that are encoded at a time."""

NOBODY = Members([], [])

STANDARD = Number(0.0, 1.0, 0.0, 0.0, False, ())
"""The map of a y that is not standardised."""


@dataclass
class TableTask(Spread):
    """A task, one table: the map of its columns, and for each member a learner and its state.

    Fields: `outputs`: how many classes, or None for a regression; `seeds`: one for each member's features. `template`:
    the user's learner, in place of the shipped one; `device`; `memory`: "all", "adaptive" or a number of rows.
    `encoder`, the map, None while rows are held; `target`, the map of a regression's y. `warm`: the first rows, until
    the map is fixed; `rows`: the sum of the weights learnt; `count`: how many rows. `warned`: columns that a warning
    has named; `members`: learners, states and answers; `early`: while rows are held, a task fitted to them.
    `has_row_landmarks`: whether landmarks are rows as they came, as in files of version 0.1.
    """

    outputs: int | None
    seeds: tuple[int, ...]
    template: Learner | None = None
    device: str = "cpu"
    memory: str | int = "all"
    encoder: Encoder | None = None
    target: Number = STANDARD
    warm: Rows | None = None
    rows: float = 0.0
    count: int = 0
    warned: frozenset[str] = frozenset()
    members: Members = NOBODY
    early: TableTask | None = None
    has_row_landmarks: bool = False
    units: Units | None = None

    def fit(self, rows: Rows, batch_size: int, passes: int = 1) -> None:
        """Learn a whole table from nothing, with the map from all rows.

        Raises:
            ValueError: the user's learner is of another size or counts every row once.
        """
        x = self.prepare(rows, n_drawn=len(rows))
        self.rows, self.count = float(rows.weight.sum()), len(rows)
        batch = self._batch(x, rows)
        self.members = self.members.fit(batch, batch_size, passes)

    def prepare(self, rows: Rows, n_drawn: int = POOL) -> np.ndarray:
        """Fix the map by rows, make the learners, and return rows `[n, d]` to draw features for, at most `n_drawn`.

        Raises:
            ValueError: a table that would take too much memory, or a user's learner of another size.
        """
        self.warm = self.early = None
        self.encoder = Encoder.fit(rows.columns, rows.weight)
        if self.outputs is None:
            self.target = Number.fit(rows.y, rows.weight, codes=False)
        check_size(self.encoder.width, self.outputs, len(self.seeds))
        if n_drawn < len(rows):
            hashes = row_hashes(rows.columns.digests(), self.seeds[0])  # different rows, in any order of all
            rows = rows.take(np.unique(hashes, return_index=True)[1][:n_drawn])
        x = self.encode(rows.columns)
        self.members = self._built([] if self.template else self._draw(x))
        self._remember(x, rows)
        return x

    def _remember(self, x: np.ndarray, rows: Rows) -> None:
        """Begin the memory that follows, with features for rows encoded as x `[n, d]`; one of all rows needs none."""
        self.units = begin_units(self, rows)
        if self.memory != "all":
            assert self.encoder is not None
            bank = begin(self.memory, self.encoder, x, self.outputs, self.seeds[0])
            self.members = Following.of(self.members, bank)

    def partial_fit(self, rows: Rows, batch_size: int, x: np.ndarray | None = None) -> None:
        """Learn rows, each scored before it is learnt; the first `WARM` decide the map.

        As long as rows are held, the task is what `fit` makes of them. `x [n, d]`: the rows as `encode` returned them.

        Raises:
            ValueError: as `fit`.
        """
        if self.encoder is None and len(rows):
            room = WARM - (0 if self.warm is None else len(self.warm))
            first, rows = rows.take(slice(room)), rows.take(slice(room, None))
            self.warm = first.concat() if self.warm is None else self.warm.concat(first)
            self.rows, self.count = self.rows + float(first.weight.sum()), len(self.warm)
            if len(self.warm) >= WARM:
                self.fit(self.warm, batch_size)
            elif self.template is not None:
                trial = copy.copy(self)
                # a learner of another size is refused at once, and weights that it cannot use
                trial._batch(trial.prepare(self.warm), self.warm)
        if len(rows):
            self.awaken(rows.columns)  # rows that came in the call that fixed the map, too
        size = max(1, ENCODED // batch_size) * batch_size if x is None else max(1, len(rows))
        for piece in rows.split(size) if len(rows) else ():
            (self.learn if self.units is None else partial(learn_in_units, self))(piece, batch_size, x)

    def learn(self, rows: Rows, batch_size: int, x: np.ndarray | None = None) -> None:
        """Learn rows, encoded as x `[n, d]`; the map is extended where a column begins to vary or a word is new."""
        while len(rows):
            assert self.encoder is not None
            n, now, then = self.encoder.extend(rows.columns, growing=self.template is None)
            y = rows.y if self.outputs is None and self.template is None else rows.y[:0]
            m, y_now, y_then = (
                self.target.advance(y, at_once=True) if len(y) else (n, self.target, self.target)
            )
            if m != n:
                n = min(m, n)
                _, now, then = self.encoder.extend(rows.columns.take(slice(n)), growing=self.template is None)
                _, y_now, y_then = self.target.advance(y[:n], at_once=True)
            x = x if now is self.encoder else None
            self._change(now, y_now)
            piece = rows.take(slice(n)) if n < len(rows) else rows
            batch = self._batch(self.encode(piece.columns) if x is None else x[:n], piece)
            self.members = self.members.learn(batch, batch_size, self.rows)
            self.rows, self.count = self.rows + float(piece.weight.sum()), self.count + n
            self._change(then, y_then)
            rows, x = rows.take(slice(n, None)), None

    def awaken(self, columns: Columns) -> None:
        """Go on under a map in which columns that were empty are of words, where such rows bring words first."""
        if self.encoder is not None and self.template is None and columns.matrix is None:
            self._change(self.encoder.awakened(columns), self.target)

    def _change(self, encoder: Encoder, target: Number) -> None:
        """Go on under an extended map, with all that was learnt carried over exactly."""
        assert self.encoder is not None
        if encoder is self.encoder and target is self.target:
            return
        change, old = self.encoder.change_to(encoder), self.target
        self.encoder, self.target = encoder, target
        if self.template is not None:
            return
        if not change.nothing:
            draws = [draw.widened(change.place, change.width) for draw in self.members.draws]
            self.members = self.members.carry(draws, change, self.outputs, same_draws=True)
        scale, shift = old.scale / target.scale, (old.centre - target.centre) / target.scale
        # of a constant every standardised y is 0, whatever its scale
        if (scale, shift) != (1.0, 0.0) and (old.low < old.high or shift):
            self.members = self.members.rescale(scale, shift)

    def remap(self, rows: Rows, batch_size: int) -> None:
        """Take the map from further rows, and learn them; what was learnt is carried over.

        x, 1 and products of two inputs are carried exactly; nearness, steps and ramps are drawn anew.
        """
        if self.encoder is None or self.template is not None:
            self.partial_fit(rows, batch_size)
            return
        learn_pending(self)
        encoder = self.encoder.joined(Encoder.fit(rows.columns, rows.weight))
        check_size(encoder.width, self.outputs, len(self.seeds))
        change, old = self.encoder.change_to(encoder), self.target
        self.encoder, self.has_row_landmarks, draws = encoder, False, []
        x = encoder.encode(rows.columns)
        for new, past in zip(self._draw(x), self.members.draws, strict=True):
            pairs = change.place[past.pairs]
            draws.append(new._replace(pairs=pairs[:, (pairs >= 0).all(0)]))
        self.members = self.members.carry(draws, change, self.outputs, same_draws=False)
        self._remember(x, rows)
        if self.outputs is None:
            target = Number.fit(rows.y, rows.weight, codes=False)
            self._change(encoder, old if target.stage == YOUNG else target)
        self.warned = frozenset()
        self.partial_fit(rows, batch_size)

    def reweigh(self, rows: Rows, total: float) -> None:
        """Weigh the experts by rows among those learnt, each scored as if left out; they stand for `total` rows."""
        learn_pending(self)
        batch = self._batch(self.encode(rows.columns), rows)
        self.members = self.members.reweigh(batch, total / float(rows.weight.sum()))

    def encode(self, columns: Columns) -> np.ndarray:
        """Return rows as numbers, `[n, d]`."""
        assert self.encoder is not None
        return self.encoder.encode(columns)

    def current(self, batch_size: int) -> TableTask:
        """Return the task to predict with: this one, or while rows are held one fitted to them.

        It is fitted anew when the rows held have grown by an eighth, or a class is new.
        """
        if self.encoder is None:
            assert self.warm is not None
            grain = max(1, 2 ** (len(self.warm).bit_length() - 4))
            n = len(self.warm) // grain * grain
            if self.outputs is not None:
                n = max(n, int(np.unique(self.warm.y, return_index=True)[1].max()) + 1)
            if self.early is None or (self.early.count, self.early.outputs) != (n, self.outputs):
                self.early = copy.copy(self)
                self.early.fit(self.warm.take(slice(n)), batch_size)
            return self.early.current(batch_size)
        self.members = self.members.answering()
        return self

    @property
    def answers(self) -> Answers:
        """Return what predictions are made with, once `current` has solved it."""
        return self.members.at_hand()

    def predict(self, x: np.ndarray, read: Callable[[TableTask, Tensor], Tensor]) -> np.ndarray:
        """Return what `read` returns of this task and of encoded rows `[n, d]`, some at a time: `[n, ...]`."""
        size = max(64, NUMBERS // (self.outputs or 1))
        with torch.inference_mode():
            parts = [read(self, part[None].to(self.device)) for part in torch.from_numpy(x).split(size)]
        return torch.cat(parts).cpu().numpy()

    def outputs_at(self, x: Tensor) -> Tensor:
        """Return probabilities `[n, C]`, or a regression's means `[n]`, at x `[1, n, d]`."""
        outputs = self.answers.outputs_at(x, self.outputs is not None)
        return outputs if self.outputs is not None else self.target.centre + self.target.scale * outputs[:, 0]

    def distribution(self, x: Tensor) -> Mixture:
        """Return the predictive distribution of a regression's y `[1, n]` at x of shape `[1, n, d]`.

        Raises:
            ValueError: the learner answers a mean only.
        """
        mixture, (centre, scale) = self.answers.distribution(x), (self.target.centre, self.target.scale)
        return mixture._replace(means=centre + scale * mixture.means, noise=scale**2 * mixture.noise)

    def widen(self, place: np.ndarray, outputs: int) -> None:
        """Make room for new classes: class c becomes class `place[c]`, `place [C]`, of `outputs`.

        Raises:
            ValueError: the user's learner answers fewer classes, or so many would take too much memory.
        """
        self.outputs, self.early = outputs, None
        if self.warm is not None:
            self.warm = replace(self.warm, y=place[self.warm.y.astype(int)].astype(float))
        if self.units is not None:
            self.units = self.units.widened(place)
        if self.encoder is not None:
            check_size(self.encoder.width, outputs, len(self.seeds))
            wider = self._built([] if self.template else self.members.draws)
            self.members = self.members.widen(wider, place)

    def merge(self, task: TableTask) -> None:
        """Learn what another task has learnt under the same map.

        Raises:
            ValueError: a map that is not fixed yet, other maps, scales or features.
        """
        task = copy.copy(task)
        for part in (self, task):
            learn_pending(part)
        if self.encoder is None or task.encoder is None:
            raise ValueError(
                f"merging needs two fixed maps, each fixed after {WARM} rows: learn more rows first"
            )
        encoder, target = self.encoder.merge(task.encoder), self.target.merge(task.target)
        for part in (self, task):
            if target is not None:
                part._change(encoder, target)
        first, second = ((t.target, t.seeds, [*map(fingerprint, t.members.learners)]) for t in (self, task))
        if first != second:
            raise ValueError("merging needs one scale of y and the same features: begin both with fork()")
        self.members = self.members.merge(task.members)
        self.rows, self.count = self.rows + task.rows, self.count + task.count

    def reset(self) -> None:
        """Forget all rows, and keep the map, for good: tasks of other maps do not merge."""
        self.rows, self.count, self.warned = 0.0, 0, frozenset()
        self.members, self.units = self.members.empty(), None

    def pack(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return what is learnt, tensors of any shape and plain JSON; nothing is rounded."""
        learn_pending(self)
        self.members, tensors = self.members.pack(with_draws=self.template is None)
        tensors |= pack_units(self.units)
        encoder, warm = self.encoder, None
        if self.warm is not None:
            encoder = Encoder.fit(self.warm.columns, self.warm.weight)
            parts, warm = self.warm.pack()
            tensors |= {f"warm.{name}": part for name, part in parts.items()}
        assert encoder is not None
        return tensors, {
            "map": encoder.to_json(),
            "target": to_json(self.target),
            "warm": warm,
            "seeds": list(self.seeds),
            "learners": [] if self.template is None else [*map(fingerprint, self.members.learners)],
            "rows": self.rows,
            "count": self.count,
            **({"landmarks": "rows"} if self.has_row_landmarks else {}),
        }

    def unpack(self, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
        """Put what `pack` returned, tensors of any shape and plain JSON, into a task that is new.

        Raises:
            ValueError: it contradicts itself, or was packed with another learner.
        """
        self.seeds, self.target = tuple(header["seeds"]), from_json(Number, header["target"], "target")
        self.rows, self.count = header["rows"], header["count"]
        self.has_row_landmarks = header.get("landmarks") == "rows"
        if header["warm"] is not None:
            self.warm = Rows.unpack(select_prefix(tensors, "warm"), header["warm"])
            return
        self.encoder = Encoder.from_json(header["map"])
        learners = self._given() if self.template else []
        if header["learners"] != [*map(fingerprint, learners)]:
            raise ValueError("it was written with another learner: give that one as model")
        check_size(self.encoder.width, self.outputs, len(self.seeds))
        # version 0.1 drew anew at each load
        for member in range(len(self.seeds)) if "0.landmarks" in tensors and "0.reach" not in tensors else ():
            rows = tensors[f"{member}.landmarks"].double().numpy()
            draws = self._draw(rows, landmarks=rows)[member].packed()._asdict()
            tensors |= {f"{member}.{name}": part for name, part in draws.items()}
        self.members = Members.unpack(tensors, len(self.seeds), self.outputs, self.device, learners)
        if self.memory != "all":
            self.units, parts = unpack_units(self.encoder, select_prefix(tensors, "memory"))
            bank = unpack(self.memory, self.outputs, parts)
            self.members = Following.of(self.members, bank)

    def _draw(self, x: np.ndarray, landmarks: np.ndarray | None = None) -> list[Draws]:
        """Return the features of every member, drawn for encoded rows `[n, d]`, or with given landmarks `[K, d]`."""
        assert self.encoder is not None
        return draw_members(self.encoder, x, self.seeds, landmarks)

    def _built(self, draws: list[Draws]) -> Members:
        """Return members that have learnt no row: committees on features as drawn, or a copy of the user's learner."""
        if self.template is not None:
            return Members.of_learners(self._given())
        return Members.of_draws(draws, self.outputs, self.device)

    def _given(self) -> list[Learner]:
        """Return a copy of the user's learner.

        Raises:
            ValueError: it is of another size, or implicit.
        """
        assert self.encoder is not None and self.template is not None
        return [fitting(self.template, self.encoder.width, self.outputs).to(self.device)]

    def _batch(self, x: np.ndarray, rows: Rows) -> Batch:
        """Return rows encoded as x `[n, d]` as a batch of one task; the numbers of a regression standardised."""
        y = (
            (rows.y - self.target.centre) / self.target.scale
            if self.outputs is None
            else rows.y.astype(np.int64)
        )
        parts = (x, y[:, None], rows.weight)
        inputs, target, weight = (torch.from_numpy(part)[None].to(self.device) for part in parts)
        # finite by the checks of the estimator and of the map, and without rows of weight 0
        batch = Batch._trusted(inputs, target, weight, bool((rows.weight != 1).any()))
        for learner in self.members.learners if batch.is_weighted else ():
            learner.check(batch)
        return batch
