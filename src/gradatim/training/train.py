"""Meta-training: one episode an iteration, AdamW on a cosine schedule, averaged weights, a run that survives a kill.

Source: Mittal et al. 2025, eq. 6; Loshchilov, Hutter 2019 (AdamW); Polyak, Juditsky 1992 (averaged weights).
"""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..probing.plots import loss_curve
from .checkpoint import latest, read, save_run, steps, write
from .engine import ACCELERATORS, PRECISIONS, Engine
from .log import Log, Watch
from .snapshot import describe, describe_learner, difference, pack, unpack

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from ..family import TaskFamily
    from ..learner import Learner
    from .schemes import Scheme

FREE = ("threads", "log_every", "checkpoint_every", "tensorboard")
"""Fields of `TrainConfig` that a resumed run may change: no number that is learnt depends on them."""


@dataclass(frozen=True)
class TrainConfig:
    """How a learner is meta-trained; with the learner, the family and the scheme it determines the result.

    Fields: `iterations`: optimizer steps; `tasks`: in each, over all processes; `lr`, `warmup` (iterations, linear),
    `final_lr` (a cosine from lr to it); `weight_decay`, `betas` of AdamW; `clip`: largest gradient norm (None: any);
    `ema`: decay of the averaged weights; `seed` of tasks and horizons; `threads` for this run (None: as they are);
    `log_every`, `checkpoint_every`: iterations; `devices`, `precision`, `accelerator`: see `Engine`; `tensorboard`.

    Raises:
        ValueError: a number out of its range, naming the field.

    Example:
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
        for name in ("iterations", "tasks", "log_every", "checkpoint_every", "devices"):
            self._need(name, getattr(self, name) >= 1, "at least 1")
        for name in ("warmup", "seed", "final_lr", "weight_decay"):
            self._need(name, 0 <= getattr(self, name) < math.inf, "at least 0")
        self._need("lr", 0 < self.lr < math.inf, "above 0")
        self._need("clip", self.clip is None or self.clip > 0, "above 0, or None")
        self._need("ema", 0 <= self.ema < 1, "at least 0 and below 1")
        self._need(
            "betas", len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas), "two numbers in [0, 1)"
        )
        self._need("threads", self.threads is None or self.threads >= 1, "at least 1, or None")
        self._need("precision", self.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}")
        self._need("accelerator", self.accelerator in ACCELERATORS, f"one of {', '.join(ACCELERATORS)}")
        self._need("tasks", self.tasks % self.devices == 0, f"a multiple of devices, {self.devices}")

    def _need(self, name: str, holds: bool, wanted: str) -> None:
        if not holds:
            raise ValueError(f"{name} must be {wanted}; got {getattr(self, name)!r}")


@dataclass(frozen=True)
class Trained:
    """What a run made.

    Fields: `learner`: with the averaged weights, in eval mode; `iterations`; `seconds` of training, earlier parts of a
    resumed run included; `peak_memory`: bytes, of the process (on CUDA: of the device); `log`: the records of
    `log.jsonl`; `written`: the files; `notices`: sentences for the user.
    """

    learner: Learner
    iterations: int
    seconds: float
    peak_memory: int
    log: list[dict[str, Any]]
    written: tuple[Path, ...] = ()
    notices: tuple[str, ...] = ()


def learning_rate(config: TrainConfig, iteration: int) -> float:
    """Return the rate of iteration i (from 0): `lr (i + 1) / warmup`, then half a cosine from lr to final_lr.

    Source: Loshchilov, Hutter 2017, eq. 5.
    """
    if iteration < config.warmup:
        return config.lr * (iteration + 1) / config.warmup
    share = (iteration - config.warmup) / max(1, config.iterations - config.warmup)
    return config.final_lr + (config.lr - config.final_lr) * (1 + math.cos(math.pi * share)) / 2


def ema_decay(config: TrainConfig, iteration: int) -> float:
    """Return the decay of the averaged weights after iteration i (from 0): `min(ema, (1 + i) / (10 + i))`."""
    return min(config.ema, (1 + iteration) / (10 + iteration))


def streams(seed: int, iteration: int, rank: int = 0) -> tuple[torch.Generator, torch.Generator]:
    """Return the generators of one iteration: of this process's tasks, and of the episode, the same everywhere.

    Both are a pure function of the arguments, so a run has no generator state to store.
    """
    entropy = ([seed, iteration, rank, 0], [seed, iteration, 0, 1])
    seeds = (int(np.random.SeedSequence(e).generate_state(1, np.uint64)[0] >> np.uint64(1)) for e in entropy)
    tasks, episode = (torch.Generator().manual_seed(s) for s in seeds)
    return tasks, episode


def train(
    learner: Learner,
    family: TaskFamily,
    scheme: Scheme,
    config: TrainConfig,
    out: Path | str | None = None,
    header: dict[str, Any] | None = None,
    resume: bool = False,
    progress: bool = True,
    on_log: Callable[[dict[str, Any]], None] | None = None,
) -> Trained:
    """Meta-train a learner, in place, and return it with its averaged weights.

        phi <- AdamW(phi, clip(d scheme.loss(learner, tasks_i) / d phi))
        average <- average + (1 - decay_i) (phi - average)

    The tasks of iteration i are a pure function of (seed, i, process), so with `resume` a run that was killed at any
    moment continues from its last checkpoint bit for bit, on the same machine with the same number of threads; what
    draws from torch's global generator is outside this promise. Hand in the learner that the run began with.
    In `out`: `log.jsonl`, `step-*.safetensors` (the last two), and in the end `learner.safetensors` and `loss.png`.
    `header`: JSON that lets the caller rebuild the learner, stored under "recipe". `on_log` gets each logged record.

    Raises:
        ValueError: `out` holds a run and `resume` is not asked for; the stored run differs from this one, naming the
            field; a loss or gradient that is not finite, naming the iteration; a file that cannot be written.

    Example:
        >>> trained = train(learner, LinearRegression(8), Greedy(), TrainConfig(iterations=100), out="runs/linear")
        >>> trained.log[-1]["loss"]

    Source: Mittal et al. 2025, eq. 6.
    """
    home, threads = next(learner.parameters()).device, torch.get_num_threads()
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    try:
        run = _Run(learner, family, scheme, config, None if out is None else Path(out), header or {})
        run.begin(resume, progress)
        run.iterate(on_log)
        return run.finish()
    finally:
        learner.to(home)
        torch.set_num_threads(threads)


class _Run:
    """One run: what `train` holds between its beginning and its end."""

    def __init__(
        self,
        learner: Learner,
        family: TaskFamily,
        scheme: Scheme,
        config: TrainConfig,
        out: Path | None,
        recipe: dict[str, Any],
    ) -> None:
        scheme.check(learner)
        self.learner, self.family, self.scheme, self.config, self.out = learner, family, scheme, config, out
        self.engine = Engine(config.devices, config.precision, config.accelerator)
        self.engine.launch()
        self.optimizer = torch.optim.AdamW(
            learner.parameters(), config.lr, config.betas, weight_decay=config.weight_decay, fused=True
        )
        self.forward, self.stepper = self.engine.setup(learner.train(), self.optimizer)
        self.parameters = list(learner.parameters())
        self.average = [parameter.detach().clone() for parameter in self.parameters]
        self.description = {
            "config": asdict(config),
            "family": describe(family),
            "scheme": describe(scheme),
            "learner": describe_learner(learner),
        }
        self.header = {"kind": "checkpoint", "recipe": recipe, **self.description}
        self.done, self.before, self.peak = 0, 0.0, 0
        self.window = {"loss": 0.0, "grad_norm": 0.0, "count": 0, "since": 0.0}
        self.pending: list[Tensor] = []
        self.notices: list[str] = []

    def begin(self, resume: bool, progress: bool) -> None:
        """Go on from a checkpoint if there is one, and open the log."""
        found = self._find(resume)
        if found is not None:
            self._restore(found)
        first = self.engine.is_first
        self.log = Log(self.out if first else None, self.done, self.config.tensorboard)
        self.watch = Watch(progress and first, self.config.iterations, self.done)
        for notice in self.notices:
            self.watch.say(notice)
        self.engine.barrier()
        self.began = perf_counter()

    def iterate(self, on_log: Callable[[dict[str, Any]], None] | None) -> None:
        """Train to the last iteration, logging and saving on the way."""
        config = self.config
        with closing(self.log), self.watch:
            while self.done < config.iterations:
                self._step()
                last = self.done == config.iterations
                if last or self.done % config.log_every == 0:
                    record = self._record()
                    self.log.add(record)
                    self.watch.show(record)
                    if on_log is not None and self.engine.is_first:
                        on_log(record)
                if last or self.done % config.checkpoint_every == 0:
                    self._save()

    def finish(self) -> Trained:
        """Load the averaged weights and write what the run made."""
        with torch.no_grad():
            for parameter, mean in zip(self.parameters, self.average, strict=True):
                parameter.copy_(mean)
        self.learner.eval().zero_grad(set_to_none=True)
        seconds, peak, written = self._seconds(), max(self.peak, self.engine.peak_memory()), []
        if self.out is not None and self.engine.is_first:
            tensors = {f"weights.{name}": value for name, value in self.learner.state_dict().items()}
            about = {"iteration": self.done, "seconds": seconds, "peak_memory": peak}
            written = [write(self.out / "learner.safetensors", tensors, {**self.header, **about})]
            written.append(self.out / "log.jsonl")
            notice = loss_curve(self.out / "log.jsonl", self.out / "loss.png")
            if notice is None:
                written.append(self.out / "loss.png")
            else:
                self.notices.append(notice)
        return Trained(
            self.learner, self.done, seconds, peak, self.log.records, tuple(written), tuple(self.notices)
        )

    def _step(self) -> None:
        """Take one optimizer step on fresh tasks."""
        config, engine = self.config, self.engine
        draw, episode = streams(config.seed, self.done, engine.rank)
        task = self.family.sample(config.tasks // engine.world_size, draw)
        like = self.parameters[0]
        if task.query.x.dtype != like.dtype:
            task = task.to(like.dtype)
        if task.query.x.device != like.device:
            task = task.to(like.device)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.forward(self.scheme, task, episode)
        engine.backward(loss)
        norm = engine.clip(self.learner, self.optimizer, config.clip)
        self.pending += [loss.detach(), norm]
        self.done += 1
        if like.device.type == "cpu":
            self._settle()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config, self.done - 1)
        self.stepper.step()
        torch._foreach_lerp_(self.average, self.parameters, 1 - ema_decay(config, self.done - 1))
        self.watch.advance()

    def _settle(self) -> None:
        """Count the pending losses and gradient norms; a device is waited for here only."""
        values = [float(value) for value in self.pending]
        self.pending.clear()
        for k, (loss, norm) in enumerate(zip(values[::2], values[1::2], strict=True)):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                iteration = self.done - len(values) // 2 + k + 1
                kept = None if self.out is None else latest(self.out)
                raise ValueError(
                    f"iteration {iteration}: the loss is {loss}, the gradient's norm {norm}; training stopped"
                    + ("" if kept is None else f", the last good checkpoint, {kept}, is kept")
                    + ": lower lr or clip, or train in another precision"
                )
            self.window["loss"] += loss
            self.window["grad_norm"] += norm
            self.window["count"] += 1

    def _record(self) -> dict[str, Any]:
        """Return the means since the last record and begin a new window."""
        self._settle()
        window, count, seconds = self.window, self.window["count"], self._seconds()
        means = torch.tensor([window["loss"], window["grad_norm"]], dtype=torch.float64) / count
        loss, norm = self.engine.mean(means).tolist()
        self.window = {"loss": 0.0, "grad_norm": 0.0, "count": 0, "since": seconds}
        return {
            "iteration": self.done,
            "loss": loss,
            "lr": learning_rate(self.config, self.done - 1),
            "grad_norm": norm,
            "tasks_per_second": count * self.config.tasks / max(seconds - window["since"], 1e-9),
            "seconds": seconds,
        }

    def _save(self) -> None:
        """Write a checkpoint."""
        self._settle()
        if self.out is None or not self.engine.is_first:
            return
        about = {
            "iteration": self.done,
            "seconds": self._seconds(),
            "peak_memory": max(self.peak, self.engine.peak_memory()),
            "window": self.window,
        }
        save_run(
            self.out, self.done, pack(self.learner, self.average, self.optimizer), {**self.header, **about}
        )

    def _find(self, resume: bool) -> Path | None:
        """Return the checkpoint to go on from; refuse a folder that holds a run nobody asked to resume."""
        out = self.out
        if out is None:
            if resume:
                raise ValueError("a run is resumed in its folder; got none: give out, the folder it wrote to")
            return None
        present = list(steps(out).values())
        if not resume:
            if self.engine.is_first and (present or (out / "log.jsonl").exists()):
                raise ValueError(
                    f"{out} already holds a run: resume it with --resume, or choose another folder"
                )
            return None
        found = latest(out)
        if found is None:
            self.notices.append(
                f"{out} holds no checkpoint to resume from: training starts from the beginning"
            )
        elif found != present[-1]:
            self.notices.append(f"{present[-1].name} is damaged: training goes on from {found.name}")
        return found

    def _restore(self, path: Path) -> None:
        """Take over a checkpoint of the same run."""
        tensors, header = read(path, kind="checkpoint")
        found = difference(
            {name: _fixed(header.get(name)) for name in self.description},
            {name: _fixed(value) for name, value in self.description.items()},
        )
        if found is not None:
            raise ValueError(
                f"{path} is of another run: {found}; resume with what it began with, or choose another out"
            )
        unpack(tensors, self.learner, self.average, self.optimizer)
        self.done, self.before, self.peak = header["iteration"], header["seconds"], header["peak_memory"]
        self.window = header["window"]

    def _seconds(self) -> float:
        """Return the seconds of training so far, earlier parts of a resumed run included."""
        return self.before + perf_counter() - self.began


def _fixed(value: Any) -> Any:
    """Return a description without the fields of `TrainConfig` that a resumed run may change."""
    return (
        {name: inner for name, inner in value.items() if name not in FREE}
        if isinstance(value, dict)
        else value
    )
