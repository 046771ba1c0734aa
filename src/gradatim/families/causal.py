"""Structural causal models with random graphs, mechanisms and noise. The answer is a topological order.

Source: Mittal et al. 2025, topological order of a structural causal model; Lorch et al. 2022 (AVICI), section 5.1;
constants are this project's own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ..batch import Batch, Task
from ..family import TaskFamily
from ..likelihood import Order
from ..names import hint
from .sampling import check_amount, check_count, check_rows, check_sample, support_mask

if TYPE_CHECKING:
    from torch import Tensor

GRAPHS = ("erdos-renyi", "scale-free")
MECHANISMS = ("linear", "network")
LAWS = ("gaussian", "laplace", "uniform", "exponential", "student", "bimodal")
"""Laws of the noise that `mixed` draws from, one for each task."""
NOISES = (*LAWS, "gumbel", "mixed")
SCALES = ("standard", "ranks")
EULER, FREEDOM, APART = 0.5772156649, 5, 0.9
"""The mean of a Gumbel law; degrees of freedom of `student`; how far the Gaussians of `bimodal` lie from 0."""


@dataclass(frozen=True)
class StructuralCausalModel(TaskFamily):
    """Samples of `x_j = f_j(x_parents(j)) + s_j e_j` over a random acyclic graph; the task is to find the order.

    Columns are shuffled, and standardised or Gaussianised over the support. So neither the labels nor the variances
    give the order. Linear mechanisms with Gaussian noise are not identifiable then: correlations of columns fit many
    graphs, and what is left to a learner is which of them the prior makes likely.

    - A support row is a sample, x `[B, N, d]`. It has no answer: y `[B, N, d]` is zero.
    - A query row is a variable. `x_i` is the i-th unit vector, and `y_ij = 1` where i causes j directly. So the query's
      y `[B, d, d]` is the graph, and `query_rows` is always d.
    - `target [B, d]` int64 is a topological order, causes first.

    The mechanism `linear` is `f_j = sum_i w_ij x_i`, where `|w_ij| ~ U(.5, 2)` with a random sign. The mechanism
    `network` is `f_j = v_j' tanh(U_j x + b_j)`, where `U, b ~ N(0, 1)` and `v ~ N(0, 4 / hidden)`. In a `scale-free`
    graph each new variable takes `degree / 2` earlier ones as parents, more often those with many neighbours.

    Fields:
        `variables`: the number d of variables.
        `degree`: expected neighbours of a variable. A graph has `d degree / 2` edges on average.
        `graph`: `erdos-renyi` or `scale-free`.
        `mechanism`: `linear` or `network`.
        `noise`: of variance 1: `gaussian`, `laplace`, `uniform`, `exponential` (its mean taken off), `student` (5
            degrees of freedom), `bimodal` (two Gaussians at +-.9) or `gumbel`. With `mixed` each task draws one of
            `LAWS`, which are all but `gumbel`.
        `noise_scale`: the range of the uniform s_j.
        `hidden`: units of each network.
        `columns`: `standard` takes off the mean and divides by the deviation. `ranks` replaces a column's values by
            quantiles of a Gaussian in their order. Then single columns say nothing, also of their noise.

    Raises:
        ValueError: variables below 2, a degree out of 0 .. d - 1 (scale-free: of no even number of at least 2), an
            unknown graph, mechanism, noise or columns, hidden below 1, noise scales not in order above 0, impossible
            rows.

    Example:
        >>> import torch
        >>> from gradatim.families import StructuralCausalModel
        >>> family = StructuralCausalModel(10, degree=2.0, support_rows=200)
        >>> task = family.sample(16, torch.Generator().manual_seed(0))
        >>> task.support.x.shape, task.query.y.shape, task.target.shape
        (torch.Size([16, 200, 10]), torch.Size([16, 10, 10]), torch.Size([16, 10]))

    Source: Lorch et al. 2022, section 5.1; Barabasi, Albert 1999 (scale-free); Reisach et al. 2021 (standardising).
    """

    variables: int = 10
    degree: float = 2.0
    graph: str = "erdos-renyi"
    mechanism: str = "network"
    noise: str = "laplace"
    noise_scale: tuple[float, float] = (0.3, 1.0)
    hidden: int = 10
    columns: str = "standard"

    intercept = False

    def __post_init__(self) -> None:
        check_count("variables", self.variables, minimum=2)
        object.__setattr__(self, "query_rows", self.variables)
        check_rows(self)
        check_count("hidden", self.hidden, minimum=1)
        fields = (("graph", GRAPHS), ("mechanism", MECHANISMS), ("noise", NOISES), ("columns", SCALES))
        for name, options in fields:
            value = getattr(self, name)
            if value not in options:
                raise ValueError(f"no {name} is called {value!r}: {hint(str(value), options)}")
        check_amount("degree", self.degree, above=0, inclusive=True)
        if self.degree > self.variables - 1:
            raise ValueError(
                f"degree must be at most {self.variables - 1}, the other variables; got {self.degree}: lower it"
            )
        if self.graph == "scale-free" and (self.degree < 2 or self.degree % 2):
            raise ValueError(
                "a scale-free graph gives each new variable degree / 2 parents, so degree must be 2, 4, ...; got "
                f"{self.degree}"
            )
        low, high = self.noise_scale
        check_amount("noise_scale[0]", low, above=0)
        check_amount("noise_scale[1]", high, above=low, inclusive=True)

    @property
    def x_dim(self) -> int:
        """Return the number of variables d."""
        return self.variables

    @property
    def likelihood(self) -> Order:
        """Return that the answer is an order of the d variables; y is a row of the graph's adjacency."""
        return Order(self.variables)

    def sample(self, n_tasks: int, generator: torch.Generator) -> Task:
        """Return n_tasks tasks drawn with `generator`, a CPU generator; float32.

        Raises:
            ValueError: n_tasks below 1, or no CPU generator.
        """
        check_sample(n_tasks, generator)
        edges = self.edges(n_tasks, generator)
        x = self.rows(edges, generator)
        # Column j of a task is variable `permutation[j]`; variables are numbered along a topological order.
        permutation = torch.rand(n_tasks, self.variables, generator=generator).argsort(dim=1)
        x = x.gather(2, permutation[:, None].expand_as(x))
        tasks = torch.arange(n_tasks)[:, None, None]
        y = edges[tasks, permutation[:, :, None], permutation[:, None]].to(x.dtype)
        x = gaussian_ranks(x) if self.columns == "ranks" else standardised(x)
        unit = torch.eye(self.variables).expand(n_tasks, -1, -1)
        mask = support_mask(self, n_tasks, generator)
        no_answer = x.new_zeros(n_tasks, self.support_rows, self.variables)
        return Task(Batch(x, no_answer, mask), Batch(unit, y), target=permutation.argsort(dim=1))

    def edges(self, n_tasks: int, generator: torch.Generator) -> Tensor:
        """Return random graphs `[B, d, d]` bool, strictly upper triangular: variables are in topological order."""
        d = self.variables
        if self.graph == "erdos-renyi":
            uniform = torch.rand(n_tasks, d, d, generator=generator)
            return (uniform < self.degree / (d - 1)).triu(diagonal=1)
        edges = torch.zeros(n_tasks, d, d, dtype=torch.bool)
        tasks = torch.arange(n_tasks)[:, None]
        for new in range(1, d):
            neighbours = (edges.sum(dim=1) + edges.sum(dim=2))[:, :new]
            gumbel = -torch.empty(n_tasks, new).exponential_(generator=generator).log()
            # The largest of log-weights plus Gumbel noise are a draw without replacement.
            keys = (neighbours + 1.0).log() + gumbel
            parents = keys.topk(min(int(self.degree) // 2, new), dim=1).indices
            edges[tasks, parents, new] = True
        return edges

    def rows(self, edges: Tensor, generator: torch.Generator) -> Tensor:
        """Return samples `[B, support_rows, d]` of random models over graphs `[B, d, d]`, strictly upper triangular."""
        n_tasks, d = edges.shape[:2]
        low, high = self.noise_scale
        e = noise(self.noise, (n_tasks, self.support_rows, d), generator)
        x = e * (low + (high - low) * torch.rand(n_tasks, 1, d, generator=generator))
        units = 1 if self.mechanism == "linear" else self.hidden
        inner = torch.randn(n_tasks, d, d, units, generator=generator)
        shift = torch.randn(n_tasks, d, 1, units, generator=generator)
        outer = torch.randn(n_tasks, d, units, 1, generator=generator) * (2 / math.sqrt(self.hidden))
        size = 0.5 + 1.5 * torch.rand(n_tasks, d, d, 1, generator=generator)
        if self.mechanism == "linear":
            inner = inner.sign() * size
        # `inner[b, j, i]` belongs to the edge from i to j.
        inner = inner * edges.transpose(1, 2)[..., None]
        for j in range(1, d):
            signal = x[:, :, :j] @ inner[:, j, :j]
            if self.mechanism == "network":
                signal = (signal + shift[:, j]).tanh() @ outer[:, j]
            x[:, :, j] += signal[..., 0]
        return x


def standardised(x: Tensor) -> Tensor:
    """Return columns `[B, N, d]` of mean 0 and variance 1 over the rows."""
    return (x - x.mean(dim=1, keepdim=True)) / x.std(dim=1, keepdim=True, correction=0).clamp(min=1e-6)


def gaussian_ranks(x: Tensor) -> Tensor:
    """Return columns `[B, N, d]` whose values are quantiles of a Gaussian, in the order of theirs.

    Example:
        >>> import torch
        >>> from gradatim.families.causal import gaussian_ranks
        >>> gaussian_ranks(torch.tensor([[[3.0], [1.0], [200.0]]])).flatten()
        tensor([ 0.0000, -0.9674,  0.9674])
    """
    place = x.argsort(dim=1).argsort(dim=1).to(x.dtype)
    return torch.special.ndtri((place + 0.5) / x.shape[1])


def noise(law: str, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Return noise of mean 0 and variance 1 under a law of `NOISES`, of a shape `[B, N, d]`.

    With `mixed` each of the B tasks draws one of `LAWS`.

    Example:
        >>> import torch
        >>> from gradatim.families.causal import noise
        >>> noise("uniform", (1, 1000, 1), torch.Generator().manual_seed(0)).abs().max() < 3**0.5
        tensor(True)
    """
    if law == "mixed":
        drawn = torch.randint(len(LAWS), shape[:1], generator=generator)
        e = torch.empty(shape)
        for at, name in enumerate(LAWS):
            e[drawn == at] = noise(name, (int((drawn == at).sum()), *shape[1:]), generator)
        return e
    if law in ("uniform", "gumbel"):
        chance = torch.rand(shape, generator=generator)
        if law == "uniform":
            return (chance - 0.5) * math.sqrt(12)
        return (-(-chance.clamp(1e-9, 1 - 1e-7).log()).log() - EULER) * math.sqrt(6) / math.pi
    if law == "exponential":
        return torch.empty(shape).exponential_(generator=generator) - 1
    e = torch.randn(shape, generator=generator)
    if law == "laplace":
        return e.sign() * torch.empty_like(e).exponential_(generator=generator) / math.sqrt(2)
    if law == "student":
        squares = torch.randn(*shape, FREEDOM, generator=generator).square().sum(-1)
        return e * (squares / (FREEDOM - 2)).rsqrt()
    if law == "bimodal":
        side = torch.rand(shape, generator=generator) < 0.5
        return torch.where(side, APART, -APART) + math.sqrt(1 - APART**2) * e
    return e


def topological_order(edges: Tensor) -> Tensor:
    """Return a topological order of each graph, causes first. Ties go to the smallest label.

    Args:
        edges: `[B, d, d]`; `edges[b, i, j]` is not zero where i causes j.

    Returns:
        Order `[B, d]` int64.

    Raises:
        ValueError: another shape, no variable, NaN, or a graph with a cycle.

    Example:
        >>> import torch
        >>> from gradatim.families.causal import topological_order
        >>> topological_order(torch.tensor([[[0, 0], [1, 0]]]))
        tensor([[1, 0]])

    Source: Kahn 1962.
    """
    if edges.dim() != 3 or edges.shape[1] != edges.shape[2]:
        raise ValueError(f"edges must have shape [tasks, d, d]; got {tuple(edges.shape)}")
    if not edges.numel():
        raise ValueError(f"edges must be of one task and variable or more; got shape {tuple(edges.shape)}")
    if bool((edges != edges).any()):
        raise ValueError("edges must be numbers; some are NaN")
    edges = edges != 0
    remaining = torch.ones(edges.shape[:2], dtype=torch.bool, device=edges.device)
    order, tasks = [], torch.arange(len(edges), device=edges.device)
    for _ in range(edges.shape[1]):
        free = remaining & ~(edges & remaining[:, :, None]).any(dim=1)
        if not bool(free.any(dim=1).all()):
            task = int((~free.any(dim=1)).nonzero()[0, 0])
            among = remaining[task].nonzero().flatten().tolist()
            raise ValueError(f"a graph with a cycle has no order: task {task}, among variables {among}")
        # argmax of zeros and ones is the first free variable.
        order.append(free.to(torch.int64).argmax(dim=1))
        remaining = remaining.clone()
        remaining[tasks, order[-1]] = False
    return torch.stack(order, dim=1)
