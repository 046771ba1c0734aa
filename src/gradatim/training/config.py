"""The settings of meta-training, and what follows from them in each iteration: rate, averaging, random streams.

Source: Loshchilov, Hutter 2017 (the cosine); Polyak, Juditsky 1992 (averaged weights); O'Neill 2014 (seed sequences).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from .engine import ACCELERATORS, PRECISIONS

FREE = ("threads", "log_every", "checkpoint_every", "tensorboard")
"""Fields of `TrainConfig` that a resumed run may change, because they do not change the computation.

Another number of threads adds in another order, though, and so changes the last bits of the weights.
"""


@dataclass(frozen=True)
class TrainConfig:
    """The settings of meta-training. With the learner, the family and the scheme they determine the result.

    Fields:
        `iterations`: the number of optimizer steps.
        `tasks`: tasks of an iteration, over all processes.
        `lr`: the largest learning rate.
        `warmup`: iterations in which the rate rises linearly to lr.
        `final_lr`: the rate at the end of a cosine from lr.
        `weight_decay`: the weight decay of AdamW.
        `betas`: the betas of AdamW.
        `clip`: the largest gradient norm. None: any.
        `ema`: the decay of the averaged weights.
        `seed`: the seed of tasks and horizons.
        `threads`: threads of this run, shared by its processes. None: as they are.
        `log_every`: iterations between records of the log.
        `checkpoint_every`: iterations between checkpoints.
        `devices`: the number of processes, see `Engine`.
        `precision`: the floating-point precision, see `Engine`.
        `accelerator`: auto, cpu or cuda, see `Engine`.
        `tensorboard`: whether to write TensorBoard files.

    Raises:
        ValueError: a number out of its range, naming the field.

    Example:
        >>> from gradatim import TrainConfig
        >>> TrainConfig(iterations=500, tasks=16, lr=3e-4).tasks
        16
    """

    iterations: int = 2000
    tasks: int = 32
    lr: float = 1e-3
    warmup: int = 50
    final_lr: float = 0.0
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float | None = 1.0
    ema: float = 0.99
    seed: int = 0
    threads: int | None = None
    log_every: int = 20
    checkpoint_every: int = 200
    devices: int = 1
    precision: str = "32-true"
    accelerator: str = "auto"
    tensorboard: bool = False

    def __post_init__(self) -> None:
        for name in ("iterations", "tasks", "log_every", "checkpoint_every", "devices", "warmup", "seed"):
            self._need(name, _is_whole(getattr(self, name)), "a whole number")
        for name in ("lr", "final_lr", "weight_decay", "ema"):
            self._need(name, _is_number(getattr(self, name)), "a number")
        for name in ("iterations", "tasks", "log_every", "checkpoint_every", "devices"):
            self._need(name, getattr(self, name) >= 1, "at least 1")
        for name in ("warmup", "seed", "final_lr", "weight_decay"):
            self._need(name, 0 <= getattr(self, name) < math.inf, "at least 0")
        self._need("lr", 0 < self.lr < math.inf, "above 0")
        clip = self.clip
        self._need("clip", clip is None or (_is_number(clip) and clip > 0), "a number above 0, or None")
        self._need("ema", 0 <= self.ema < 1, "at least 0 and below 1")
        pair = (
            isinstance(self.betas, tuple | list) and len(self.betas) == 2 and all(map(_is_number, self.betas))
        )
        self._need("betas", pair and all(0 <= b < 1 for b in self.betas), "two numbers in [0, 1)")
        threads = self.threads
        self._need(
            "threads",
            threads is None or (_is_whole(threads) and threads >= 1),
            "a whole number of at least 1, or None",
        )
        self._need("precision", self.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}")
        self._need("accelerator", self.accelerator in ACCELERATORS, f"one of {', '.join(ACCELERATORS)}")
        self._need("tasks", self.tasks % self.devices == 0, f"a multiple of devices, {self.devices}")

    def _need(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            raise ValueError(f"{name} must be {expected}; got {getattr(self, name)!r}")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def learning_rate(config: TrainConfig, iteration: int) -> float:
    """Return the learning rate of an iteration, counted from 0.

    It is `lr (i + 1) / warmup` during the warm-up, then half a cosine from lr to final_lr.

    Example:
        >>> from gradatim import TrainConfig
        >>> from gradatim.training.config import learning_rate
        >>> config = TrainConfig(iterations=100, lr=0.1, warmup=10)
        >>> learning_rate(config, 0), learning_rate(config, 10)
        (0.01, 0.1)

    Source: Loshchilov, Hutter 2017, eq. 5.
    """
    if iteration < config.warmup:
        return config.lr * (iteration + 1) / config.warmup
    share = (iteration - config.warmup) / max(1, config.iterations - config.warmup)
    return config.final_lr + (config.lr - config.final_lr) * (1 + math.cos(math.pi * share)) / 2


def ema_decay(config: TrainConfig, iteration: int) -> float:
    """Return the decay of the averaged weights after iteration i, counted from 0: `min(ema, (1 + i) / (10 + i))`.

    Example:
        >>> from gradatim import TrainConfig
        >>> from gradatim.training.config import ema_decay
        >>> ema_decay(TrainConfig(ema=0.99), 0), ema_decay(TrainConfig(ema=0.99), 2000)
        (0.1, 0.99)
    """
    return min(config.ema, (1 + iteration) / (10 + iteration))


def streams(seed: int, iteration: int, rank: int = 0) -> tuple[torch.Generator, torch.Generator]:
    """Return two generators for an iteration: one for the tasks of this process, one for the episode.

    The second is the same in all processes. Both follow from the arguments, so a run stores no generator state.

    Example:
        >>> from gradatim.training.config import streams
        >>> first, second = (streams(0, 7, rank) for rank in (0, 1))
        >>> first[0].initial_seed() == second[0].initial_seed(), first[1].initial_seed() == second[1].initial_seed()
        (False, True)

    Source: O'Neill 2014 (seed sequences), by NumPy's SeedSequence.
    """
    entropy = ([seed, iteration, rank, 0], [seed, iteration, 0, 1])
    seeds = (int(np.random.SeedSequence(e).generate_state(1, np.uint64)[0] >> np.uint64(1)) for e in entropy)
    tasks, episode = (torch.Generator().manual_seed(s) for s in seeds)
    return tasks, episode
