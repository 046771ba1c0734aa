"""A committee that forgets nothing and a bank that follows, as the members of one table's task.

Source: Herbster, Warmuth 1998 (fixed share).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..committees import Answers, Members
from ..nn.mixture import Mixture
from .classes import ClassBank
from .copies import BLOCK
from .numbers import FARTHEST
from .packing import pack

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from torch import Tensor

    from ..batch import Batch
    from ..nn.carry import Change
    from ..nn.fixed_features import Draws
    from .bank import Bank


@dataclass(frozen=True)
class Recalled(Answers):
    """What a committee and a bank predict with.

    Fields: as `Answers`; `committee`, whose answers these are; `bank`.
    """

    committee: Answers | None = None
    bank: Bank | None = None

    def outputs_at(self, x: Tensor, classes: bool) -> Tensor:
        """Return probabilities `[n, C]`, or means `[n, 1]`, at x `[1, n, d]`."""
        answer = self._answer(x, classes)
        return torch.from_numpy(answer) if classes else answer.mean[0, :, None]

    def distribution(self, x: Tensor) -> Mixture:
        """Return the predictive distribution at x of shape `[1, n, d]`."""
        return self._answer(x, classes=False)

    def _answer(self, x: Tensor, classes: bool) -> Any:
        assert self.bank is not None and self.committee is not None
        committee, rows = self.committee.outputs_at(x, classes).numpy(), x[0].numpy()
        forecast = self.bank.forecast(rows, committee if classes else committee[:, 0])
        if len(rows) <= BLOCK:
            self.bank.last_forecast = (rows.copy(), forecast)
        return self.bank.answer(forecast)


@dataclass(frozen=True)
class Following(Members):
    """Members with a bank, which scores every row before it is learnt, in blocks of rows.

    Fields: as `Members`; `bank`.
    """

    bank: Bank | None = None

    @classmethod
    def of(cls, members: Members, bank: Bank | None) -> Self:
        """Return members with a bank."""
        values = {field.name: getattr(members, field.name) for field in fields(Members)}
        return cls(**values, bank=bank)

    @property
    def known(self) -> Bank:
        """Return the bank."""
        assert self.bank is not None
        return self.bank

    @property
    def classes(self) -> bool:
        """Return whether classes are predicted."""
        return isinstance(self.bank, ClassBank)

    def fit(self, batch: Batch, batch_size: int, passes: int) -> Self:
        """Return the members after all rows of a task `[1, n, ...]`, begun anew; the bank takes them in order."""
        members, bank = super().fit(batch, batch_size, passes), self.known.anew()
        left_out = [learner.refiner.left_out(state, batch)[0] for learner, state in members]  # type: ignore[attr-defined]
        committee, (x, y, weight), start = torch.stack(left_out).mean(0).numpy(), _arrays(batch), 0
        committee = committee if self.classes else committee[:, 0]
        while start < len(x):
            part = slice(start, start + bank.room)
            start = min(len(x), start + bank.room)
            bank.learn(x[part], y[part], weight[part], bank.forecast(x[part], committee[part]))
        return replace(members, bank=bank)

    def learn(self, batch: Batch, batch_size: int, before: float = 0.0) -> Self:
        """Return the members after more rows `[1, n, ...]`; the weights before sum to `before`."""
        members: Members = self
        bank, start = self.known.copied(), 0
        while start < batch.n_rows:
            part = batch.slice(start, min(start + bank.room, batch.n_rows))
            members = members.answering()
            x, y, weight = _arrays(part)
            last_x, forecast = bank.last_forecast
            if last_x is None or not np.array_equal(last_x, x):
                with torch.no_grad():
                    committee = members.answers.outputs_at(part.x, self.classes).numpy()  # type: ignore[union-attr]
                forecast = bank.forecast(x, committee if self.classes else committee[:, 0])
            bank.learn(x, y, weight, forecast)
            members = Members.learn(members, part, batch_size, before)
            before, start = before + float(part.weight.sum()), start + part.n_rows
        return replace(members, bank=bank)  # type: ignore[call-arg, return-value]

    def at_hand(self) -> Answers:
        """Return what predictions are made with, once it has been solved."""
        answers = super().at_hand()
        return Recalled(answers.learners, answers.latents, answers, self.bank)

    def carry(self, draws: Sequence[Draws], change: Change, outputs: int | None, same_draws: bool) -> Self:
        """Return members on other features; the bank keeps its own, and stays where rows are alike."""
        bank = self.known.copied()
        if same_draws:
            bank.carry(change)
        return replace(super().carry(draws, change, outputs, same_draws), bank=bank)

    def rescale(self, scale: float, shift: float) -> Self:
        """Return members of `scale y + shift`; the bank begins anew."""
        return replace(super().rescale(scale, shift), bank=self.known.anew())

    def widen(self, wider: Members, place: np.ndarray) -> Self:
        """Return `wider`, members of more classes, with what these have learnt: class c is `place[c]`, `place [C]`."""
        bank = self.known.copied()
        bank.widen(place, wider.learners[0].predictor.output_dim)
        return type(self).of(super().widen(wider, place), bank)  # type: ignore[arg-type]

    def reweigh(self, batch: Batch, factor: float) -> Self:
        """Return members whose committee is weighed by rows among those learnt `[1, n, ...]`, times a factor."""
        bank = self.known.copied()
        bank.last_forecast = (None, None)
        return replace(super().reweigh(batch, factor), bank=bank)

    def merge(self, members: Self) -> Self:
        """Return the members that have learnt the rows of both."""
        bank = self.known.copied()
        bank.merge(members.known)
        return replace(super().merge(members), bank=bank)

    def empty(self) -> Self:
        """Return the members on the same features, that have learnt no row."""
        return type(self).of(super().empty(), self.known.anew())

    def pack(self, with_draws: bool = True) -> tuple[Self, dict[str, Tensor]]:
        """Return the members, and all that they know as tensors of any shape; nothing is rounded."""
        bank = self.known.copied()
        bank.settle()
        members, tensors = super(Following, replace(self, bank=bank)).pack(with_draws)
        return members, tensors | {f"memory.{name}": part for name, part in pack(bank).items()}


def _arrays(batch: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return x `[n, d]`, y `[n]` and weights `[n]` of rows `[1, n, ...]`; a number's y at most `FARTHEST` from 0."""
    y = batch.y[0, :, 0]
    y = y.clamp(-FARTHEST, FARTHEST) if y.is_floating_point() else y
    return batch.x[0].numpy(), y.numpy(), batch.weight[0].double().numpy()
