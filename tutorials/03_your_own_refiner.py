"""Write a method: a refiner in one file, checked by the laws that hold for all methods.

python tutorials/03_your_own_refiner.py     # seconds
"""

from typing import NamedTuple

import torch
from rich.console import Console
from torch import Tensor

from gradatim import Batch, Capabilities, Learner, LinearRegression, Refiner, Signal, StepInput
from gradatim.metrics import curve, excess_risk
from gradatim.regimes import linear
from gradatim.testing import check_refiner


# The state: a tuple of tensors, tasks first. It is a value, never changed in place.
class MeanState(NamedTuple):
    """The sum of x y over the rows seen, `[B, D]`, and their number, `[B]`."""

    total: Tensor
    rows: Tensor


# The refiner: a start, a step, and the weights that the predictor takes.
class MeanOfProducts(Refiner):
    """`theta = 1/n sum_n x_n y_n`: unbiased where x ~ N(0, I). Nothing is meta-trained."""

    capabilities = Capabilities(learnt=False)
    needs_observations = True

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("start", torch.zeros(dim))

    def init(self, n_tasks: int, query: Batch | None = None) -> MeanState:
        """Return the sums of no rows."""
        return MeanState(self.start.expand(n_tasks, -1), self.start.new_zeros(n_tasks))

    def step(self, state: MeanState, step_input: StepInput) -> MeanState:
        """Return the sums after one more mini-batch; absent rows have weight 0."""
        batch = step_input.batch
        products = (batch.x * batch.y * batch.weight[..., None]).sum(dim=1)
        return MeanState(state.total + products, state.rows + step_input.rows)

    def latent(self, state: MeanState) -> Tensor:
        """Return theta `[B, D]`."""
        return state.total / state.rows.clamp(min=1)[:, None]


# With a predictor and a signal it is a learner. The laws: row order, absent rows, separate tasks, saved states.
console = Console()
family = LinearRegression(dim=8, support_rows=160, query_rows=256)
learner = Learner(linear(family), MeanOfProducts(8), Signal(outputs=False))
check_refiner(learner, family)
console.print("all laws hold: masks, row order, tasks apart, saved states")

# How good is it?
task = family.sample(256, torch.Generator().manual_seed(0))
risks = curve(learner, task, 16, (1, 2, 5, 10), {"excess": excess_risk})["excess"].mean(axis=1)
console.print("excess risk after 1, 2, 5, 10 mini-batches:", " ".join(f"{risk:.3f}" for risk in risks))
