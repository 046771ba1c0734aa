"""Celo, a published learned optimizer: for tasks of a family, and for a torch module of one's own.

Source: Moudgil et al. 2025, Celo: Training Versatile Learned Optimizers on a Compute Diet; weights MIT licensed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from ..families.archives import read_npz
from ..learner import Learner
from ..nn.celo import CeloRule, CeloState
from ..refiners import celo
from ..signal import GRADIENTS
from .optimizers import WeightsMethod

if TYPE_CHECKING:
    from torch import Tensor

    from ..family import TaskFamily
    from ..predictors import Network

_MEMORY: Any = "memory"
"""Where an optimizer's state holds Celo's, beside parameters; `state_dict` carries any key."""

PUBLISHED = ("celo", "celo_adam")
"""Names of weights that `$GRADATIM_DATA/weights` may hold."""


def read_celo(weights: str = "celo") -> dict[str, Tensor]:
    """Return Celo's weights by name, of the shapes that `CeloRule` expects.

    Args:
        weights: `celo` or `celo_adam`, files in `$GRADATIM_DATA/weights`, or the path of an npz file.

    Raises:
        ValueError: no such file, or one that is no npz file of arrays.

    Example:
        >>> import numpy as np
        >>> from gradatim.methods.celo import read_celo
        >>> np.savez("mine.npz", **{"rnn_params|step_size|b": np.zeros(1, np.float32)})
        >>> read_celo("mine.npz")
        {'rnn_params|step_size|b': tensor([0.])}
    """
    root = os.environ.get("GRADATIM_DATA")
    path = Path(weights)
    if weights in PUBLISHED:
        if root is None:
            raise ValueError(
                f"the weights {weights!r} are read from $GRADATIM_DATA/weights: set that variable, or give the path of "
                "an npz file"
            )
        path = Path(root) / "weights" / f"{weights}.npz"
    if not path.exists():
        raise ValueError(
            f"weights of Celo are {' or '.join(map(repr, PUBLISHED))} or the path of an npz file; got {weights!r}, and "
            f"there is no file {path}"
        )
    return {name: torch.tensor(array) for name, array in read_npz(path).items()}


@dataclass(frozen=True, kw_only=True)
class Celo(WeightsMethod):
    """Celo, one step a mini-batch, with its published weights: nothing is trained, nothing is tuned.

    It has no short name, because it needs weights: give this class, or `gradatim.methods.celo:Celo`. Steps are in
    units of a tensor's size, so weights start at N(0, 1 / inputs), those of the last layer too; biases at zero.

    Fields:
        `weights`: `celo` or `celo_adam`, read from `$GRADATIM_DATA/weights`, or the path of an npz file.
        `steps`: how many mini-batches a task has. Celo's rates follow the share that is done.

    Raises:
        ValueError: when it is built without the weights.

    Example:
        >>> from gradatim.methods.celo import Celo
        >>> Celo(steps=200, hidden=(32,)).learnt
        False

    Source: Moudgil et al. 2025, algorithm 1.
    """

    summary: ClassVar[str] = "a published learned optimizer (Celo), one step a mini-batch"
    weights: str = "celo"
    steps: int = 100

    def start(self, family: TaskFamily) -> tuple[Network, Tensor]:
        """Return the model f and its first weights `[S]`, the same at every call, no matrix of them zero."""
        predictor, _ = super().start(family)
        generator, parts = torch.Generator().manual_seed(0), []
        for rows, width in predictor.layout.shapes:
            inner = width - predictor.layout.bias
            part = torch.zeros(rows, width)
            part[:, :inner] = torch.randn(rows, inner, generator=generator) / inner**0.5
            parts.append(part.flatten())
        return predictor, torch.cat(parts)

    def build(self, family: TaskFamily) -> Learner:
        """Return the learner for the tasks of a family."""
        predictor, start = self.start(family)
        layout = predictor.layout
        refiner = celo.Celo(start, layout.shapes, layout.bias, read_celo(self.weights), self.steps)
        return Learner(predictor, refiner, GRADIENTS)


class CeloOptimizer(torch.optim.Optimizer):
    """Celo for the parameters of a torch module, in place of `torch.optim.Adam`.

    A step needs the loss: `optimizer.step(loss=loss)`, or a closure that returns it. Parameters without a gradient
    count as having zeros.

    Args:
        params: of the module, float32, all on one device.
        steps: how many steps training will take. Celo's rates follow the share that is done.
        weights: as `read_celo` takes them, or what it returned.

    Raises:
        ValueError: no weights, several groups of parameters; in a step, no loss.

    Example:
        >>> from gradatim.methods.celo import CeloOptimizer
        >>> model = torch.nn.Linear(3, 1)  # doctest: +SKIP
        >>> optimizer = CeloOptimizer(model.parameters(), steps=1000)  # doctest: +SKIP
        >>> loss = model(x).square().mean()  # doctest: +SKIP
        >>> loss.backward(); optimizer.step(loss=loss)  # doctest: +SKIP

    Source: Moudgil et al. 2025, algorithm 1.
    """

    def __init__(
        self, params: Iterable[Tensor], steps: int, weights: str | dict[str, Tensor] = "celo"
    ) -> None:
        super().__init__(params, {})
        found = read_celo(weights) if isinstance(weights, str) else weights
        self.rule = CeloRule(found, [tuple(part.shape) for part in self.tensors], steps)
        self.rule.to(self.tensors[0])
        self._remember(self.rule.init(1))

    @property
    def tensors(self) -> list[Tensor]:
        """Return the parameters that it moves."""
        return self.param_groups[0]["params"]

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Take the one group of parameters.

        Raises:
            ValueError: there is one already.
        """
        if self.param_groups:
            raise ValueError(
                "Celo moves all parameters together, in one group: give another group its own optimizer"
            )
        super().add_param_group(param_group)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy needs: torch's own state, and the rule."""
        return {**super().__getstate__(), "rule": self.rule}

    @torch.no_grad()
    def step(  # type: ignore[override]
        self, closure: Callable[[], Any] | None = None, loss: Tensor | float | None = None
    ) -> Any:
        """Move the parameters by one step. Return what the closure returned, or the loss.

        Raises:
            ValueError: neither a closure nor a loss.
        """
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if loss is None:
            raise ValueError(
                "Celo follows the loss; got none: call step(loss=loss), or give a closure that returns it"
            )
        theta = torch.cat([part.flatten() for part in self.tensors])
        none = (torch.zeros_like(part) if part.grad is None else part.grad for part in self.tensors)
        gradient = torch.cat([part.flatten() for part in none])
        value = torch.as_tensor(loss).detach().to(theta).reshape(1)
        moved, memory = self.rule(self._memory(), theta[None], gradient[None], value)
        for part, new in zip(self.tensors, moved[0].split(self.rule.sizes), strict=True):
            part.copy_(new.view_as(part))
        self._remember(memory)
        return loss

    def _memory(self) -> CeloState:
        return CeloState(**self.state[_MEMORY])

    def _remember(self, memory: CeloState) -> None:
        self.state[_MEMORY] = memory._asdict()
