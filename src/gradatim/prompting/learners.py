"""Reprogramming of a frozen learner: what its support is for a task unlike those that it was trained on.

Source: Mittal et al. 2025 (learners that read a support); Wang et al. 2018 (rows learnt through a model).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..batch import Batch
from .modules import ModuleAdapter, as_rows

if TYPE_CHECKING:
    from ..learner import Learner
    from .cells import Reprogramming


class LearnerAdapter:
    """A frozen learner of classes, which answers queries from a support.

    `fixed` gives it the rows of the task. `additive` and `parametric` change x of support and query alike, and learn
    that from rows that are left out of the support. `concatenative` gives it learnt rows alone, with the classes in
    turn.

    Args:
        learner: its predictor's outputs are logits of classes.
        how: the cell; `tokens`: learnt rows; `batch_size`: rows of a mini-batch, of the support as well.
        width: of x in the task.
        seed: of where learnt rows and a low-rank map start.

    Raises:
        ValueError: x that is wider than the learner's, except for a parametric operator.
    """

    kind, centred = "learner", False

    def __init__(self, learner: Learner, how: Reprogramming, width: int, x_dim: int, seed: int = 0) -> None:
        self.model, self.how, self.x_shape, self.x_dim = learner, how, (width,), x_dim
        if width > x_dim and how.operator != "parametric":
            raise ValueError(
                f"x has {width} columns, and the learner reads {x_dim}: choose a parametric operator, or fewer columns"
            )
        self._example = next(learner.parameters(), torch.zeros(()))
        self.kept: dict[str, Tensor] = {}
        self.delta: dict[str, Tensor] = {}
        generator = torch.Generator().manual_seed(seed)
        if how.operator == "additive":
            self.delta["shift"] = torch.zeros(x_dim)
        elif how.operator == "parametric":
            self.delta["shift"] = torch.zeros(x_dim)
            if how.rank:
                self.delta["down"] = torch.randn(how.rank, width, generator=generator) / width**0.5
                self.delta["up"] = torch.zeros(x_dim, how.rank)
            else:
                self.delta["map"] = torch.eye(x_dim, width)
        elif how.configuration == "learnable":
            self.delta["rows"] = torch.randn(how.tokens, x_dim, generator=generator)
        self.delta = {name: part.to(self._example).requires_grad_() for name, part in self.delta.items()}
        self.n_outputs = self.n_features = self._count()

    @torch.no_grad()
    def _count(self) -> int:
        x = torch.zeros(1, 2, self.x_dim).to(self._example)
        outputs = self._answer(Batch(x, torch.zeros(1, 2, 1, dtype=torch.int64, device=x.device)), x)
        return outputs.shape[1]

    def _answer(self, support: Batch, x: Tensor) -> Tensor:
        """Return logits `[n, S]` at queries `[1, n, D]`."""
        y = torch.zeros(1, x.shape[1], 1, dtype=torch.int64, device=x.device)
        state = self.model.init(1, Batch(x, y), differentiable=True)
        for batch in support.split(max(self.how.batch_size, 1)):
            self.model.check(batch)
            state = self.model.step(state, batch, differentiable=True)
        return self.model.predict(x, state)[0]

    def show(self, rows: Tensor, y: Tensor, n_classes: int) -> None:
        """Keep the support: the rows `[N, D]` and classes `[N]` of the task, or the classes of learnt rows."""
        if "rows" in self.delta:
            turn = torch.arange(self.how.tokens, device=self._example.device)
            self.kept["y"] = turn % n_classes
        else:
            self.kept |= {"x": rows.detach(), "y": y.to(rows.device)}

    def encode(self, X: object) -> Tensor:
        """Return rows of any container as a tensor of the learner's type, `[N, D]`."""
        return as_rows(X).to(self._example)

    check, take = ModuleAdapter.check, ModuleAdapter.take  # type: ignore[assignment]

    def outputs(self, rows: Tensor, without: Tensor | None = None) -> Tensor:
        """Return logits of the learner's classes `[n, S]`; the support leaves out the rows at `without`."""
        x = self._changed(rows)[None]
        if "rows" in self.delta:
            return self._answer(Batch(self.delta["rows"][None], self.kept["y"][None, :, None]), x)
        keep = torch.ones(len(self.kept["x"]), dtype=torch.bool, device=x.device)
        if without is not None:
            keep[without] = False
        support = Batch(self._changed(self.kept["x"][keep])[None], self.kept["y"][keep][None, :, None])
        return self._answer(support, x)

    features = outputs

    def plain(self, rows: Tensor) -> Tensor:
        """Return x itself `[n, D]`, for a linear probe."""
        return rows

    def _changed(self, rows: Tensor) -> Tensor:
        """Return x `[n, D]` as the learner reads it; missing columns are zero."""
        if self.how.operator == "parametric":
            if "map" in self.delta:
                return rows @ self.delta["map"].mT + self.delta["shift"]
            return rows @ self.delta["down"].mT @ self.delta["up"].mT + self.delta["shift"]
        x = torch.nn.functional.pad(rows, (0, self.x_dim - rows.shape[1]))
        return x + self.delta["shift"] if "shift" in self.delta else x
