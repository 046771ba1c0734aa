"""Hidden sequences seen through noise: the posterior over a sequence z given rows (x, y), which sums enumerate.

Source: Rabiner 1989 (hidden Markov models); Hu et al. 2024 (arXiv 2310.04363), the posterior over z given (x, y).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from ..batch import Batch, Task
from ..family import TaskFamily
from ..likelihood import CrossEntropy
from .sampling import check_amount, check_count, check_rows, check_sample, support_mask

if TYPE_CHECKING:
    from torch import Tensor

TINY = 1e-30
"""The probability of what cannot be, so that no log of it is infinite."""


@dataclass(frozen=True)
class LatentSequences(TaskFamily):
    """Sequences of symbols that follow a chain, seen one symbol at a time through noise; sought is the posterior.

        z_1 ~ U,   z_i = z_i-1 with probability stay, else ~ U,   y = z_i with probability clear, else ~ U

    A support row names a place i, drawn at random, and says y. Query row i names the place i and the symbol before it
    in z, and its answer is z_i. So the query's outputs are `q(z_i | z_1:i-1, rows)`, its summed loss is
    `-log q(z | rows)`, and a learner that has learnt the family samples z symbol by symbol.

        p(z_i | z_1:i-1, rows) ~ p(z_i | z_i-1) p(rows at i and after | z_i)

    The logits are a part for the symbol before plus a part for the place: a linear predictor holds the posterior.

    Shapes: x `[B, N, length + symbols + 1]`, one-hot of the place and of the symbol before (zero in the support; the
    last column says that there is none before the first); y `[B, N, 1]` int64; `truth`: the log-posterior given all
    rows at the query `[B, length, symbols]`; `target`: z `[B, length]` int64. `query_rows` is always `length`.

    Fields: `length`: symbols of z; `symbols`: how many there are; `stay`: how often a symbol follows itself; `clear`:
    how often a row says what is there.

    Raises:
        ValueError: length below 1, symbols below 2, stay or clear outside 0 .. 1, impossible rows.

    Example:
        >>> import torch
        >>> from gradatim.families import LatentSequences
        >>> family = LatentSequences(support_rows=12)
        >>> task = family.sample(3, torch.Generator().manual_seed(0))
        >>> family.oracle(task).shape, task.target.shape
        (torch.Size([3, 6, 4]), torch.Size([3, 6]))

    Source: this project's own, after Hu et al. 2024.
    """

    support_rows: int = 32
    query_rows: int = 6
    length: int = 6
    symbols: int = 4
    stay: float = 0.6
    clear: float = 0.4

    intercept = False

    def __post_init__(self) -> None:
        check_count("length", self.length, minimum=1)
        check_count("symbols", self.symbols, minimum=2)
        object.__setattr__(self, "query_rows", self.length)
        check_rows(self)
        for name in ("stay", "clear"):
            check_amount(name, getattr(self, name), above=0, inclusive=True)
            if getattr(self, name) > 1:
                raise ValueError(f"{name} is a probability, at most 1; got {getattr(self, name)}")

    @property
    def x_dim(self) -> int:
        """Return the places, the symbols and the beginning together."""
        return self.length + self.symbols + 1

    @property
    def likelihood(self) -> CrossEntropy:
        """Return that y is one of `symbols`."""
        return CrossEntropy(self.symbols)

    def sample(self, n_tasks: int, generator: torch.Generator) -> Task:
        """Return n_tasks tasks drawn with `generator`, a CPU generator; x `[B, N, x_dim]`, y `[B, N, 1]`.

        Raises:
            ValueError: n_tasks below 1, or no CPU generator.
        """
        check_sample(n_tasks, generator)
        z = self._kept(self.stay, torch.zeros(n_tasks, self.length, dtype=torch.int64), generator, chain=True)
        place = torch.randint(self.length, (n_tasks, self.support_rows), generator=generator)
        y = self._kept(self.clear, z.gather(1, place), generator)
        support = Batch(
            self._x(place, torch.full_like(place, -1)), y[..., None], support_mask(self, n_tasks, generator)
        )
        before = F.pad(z[:, :-1], (1, 0), value=self.symbols)
        query = Batch(self._x(torch.arange(self.length).expand(n_tasks, -1), before), z[..., None])
        return Task(support, query, target=z, truth=self._posterior(support, query))

    def oracle(self, task: Task, rows: int | None = None) -> Tensor:
        """Return the log-posterior of each symbol `[B, length, symbols]`, given the first `rows` of the support.

        Raises:
            ValueError: negative rows.
        """
        if rows is not None:
            check_count("rows", rows, minimum=0)
        return self._posterior(task.support if rows is None else task.support.slice(0, rows), task.query)

    def _kept(self, chance: float, z: Tensor, generator: torch.Generator, chain: bool = False) -> Tensor:
        """Return symbols `[B, N]`, each kept with some chance and else drawn anew; in a chain each keeps the last."""
        keep = torch.rand(z.shape, generator=generator) < chance
        new = torch.randint(self.symbols, z.shape, generator=generator)
        if not chain:
            return torch.where(keep, z, new)
        symbols = [new[:, 0]]
        for place in range(1, self.length):
            symbols.append(torch.where(keep[:, place], symbols[-1], new[:, place]))
        return torch.stack(symbols, dim=1)

    def _x(self, place: Tensor, before: Tensor) -> Tensor:
        """Return rows `[B, N, x_dim]` of places and of the symbols before; -1 where none is named."""
        last = F.one_hot(before + 1, self.symbols + 2)[..., 1:]
        return torch.cat([F.one_hot(place, self.length), last], dim=-1).float()

    def _posterior(self, support: Batch, query: Batch) -> Tensor:
        """Return log p(z_i | z_1:i-1, rows) at the query: messages from the last place to the first."""
        symbols, uniform = self.symbols, 1 / self.symbols
        table = self.stay * torch.eye(symbols, dtype=torch.float64) + (1 - self.stay) * uniform
        said = F.one_hot(support.y[..., 0], symbols).double()
        chance = (self.clear * said + (1 - self.clear) * uniform).clamp(min=TINY).log()
        places = support.x[..., : self.length].double() * support.weight[..., None].double()
        seen = torch.einsum("bnl,bna->bla", places, chance.to(places))
        table, message = table.clamp(min=TINY).log().to(seen), torch.zeros_like(seen)
        for place in range(self.length - 2, -1, -1):
            later = seen[:, place + 1] + message[:, place + 1]
            message[:, place] = (table + later[:, None]).logsumexp(-1)
        before = query.x[..., self.length : -1].double()
        prior = torch.einsum("bna,ac->bnc", before, table)
        at = query.x[..., : self.length].double() @ (seen + message)
        return (prior + at).log_softmax(-1).to(query.x)
