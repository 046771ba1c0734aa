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

import torch

from ..files.checkpoint import latest, read, read_header, save_checkpoint, step_files, write
from ..probing.plots import loss_curve
from .config import FREE, TrainConfig, ema_decay, learning_rate, streams
from .engine import Engine
from .episode import Episode
from .log import Log, Watch
from .snapshot import describe, describe_learner, difference, pack, unpack

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from ..family import TaskFamily
    from ..learner import Learner
    from .schemes import Scheme

__all__ = ["TrainConfig", "Trained", "train"]


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
        ValueError: the learner has nothing to meta-train; `out` holds a run and `resume` is not asked for; the stored
            run differs from this one, naming the field; a loss or gradient that is not finite, naming the iteration; a
            file that cannot be written.

    Example:
        >>> trained = train(learner, LinearRegression(8), Greedy(), TrainConfig(iterations=100), out="runs/linear")
        >>> trained.log[-1]["loss"]

    Source: Mittal et al. 2025, eq. 6.
    """
    scheme.check(learner)
    first, threads = next(learner.parameters(), None), torch.get_num_threads()
    if first is None:
        raise ValueError("this learner has no parameters to meta-train: use it as it is, or choose another")
    home = first.device
    try:
        run = _Run(learner, family, scheme, config, None if out is None else Path(out), header or {})
        run.begin(run.find(resume), progress)
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
        self.learner, self.family, self.scheme, self.config, self.out = learner, family, scheme, config, out
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

    def find(self, resume: bool) -> Path | None:
        """Return the checkpoint to go on from; refuse a folder that holds another run, or one nobody asked to resume.

        Every process looks before it meets the others, so before any of them writes, and all come to one answer.
        """
        out = self.out
        if out is None:
            if resume:
                raise ValueError("a run is resumed in its folder; got none: give out, the folder it wrote to")
            return None
        present = list(step_files(out).values())
        if not resume:
            log = out / "log.jsonl"
            if present or (log.exists() and log.stat().st_size):
                raise ValueError(
                    f"{out} already holds a run: resume it with --resume, or choose another folder"
                )
            return None
        found = latest(out)
        if found is None:
            self.notices.append(
                f"{out} holds no checkpoint to resume from: training starts from the beginning"
            )
            return None
        if found != present[-1]:
            self.notices.append(f"{present[-1].name} is damaged: training goes on from {found.name}")
        header = read_header(found, kind="checkpoint")
        stored = {name: _fixed(header.get(name)) for name in self.description}
        other = difference(stored, {name: _fixed(value) for name, value in self.description.items()})
        if other is not None:
            raise ValueError(
                f"{found} is of another run: {other}; resume with what it began with, or choose another folder"
            )
        return found

    def begin(self, found: Path | None, progress: bool) -> None:
        """Meet the other processes, go on from a checkpoint if there is one, and open the log."""
        self.engine = Engine(self.config.devices, self.config.precision, self.config.accelerator)
        self.engine.launch()
        if self.config.threads is not None:
            torch.set_num_threads(max(1, self.config.threads // self.engine.world_size))
        self.optimizer = torch.optim.AdamW(
            self.learner.parameters(),
            self.config.lr,
            self.config.betas,
            weight_decay=self.config.weight_decay,
            fused=True,
        )
        episode = Episode(self.learner.train(), self.scheme)
        self.forward, self.stepper = self.engine.setup(episode, self.optimizer)
        self.parameters: list[Tensor] = list(self.learner.parameters())
        self.average = [parameter.detach().clone() for parameter in self.parameters]
        if found is not None:
            self._restore(found)
        first = self.engine.is_first
        home = self.out if first else None
        self.log = self.engine.together(lambda: Log(home, self.done, self.config.tensorboard))
        self.watch = Watch(progress and first, self.config.iterations, self.done)
        for notice in self.notices:
            self.watch.print(notice)
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
                    self.engine.together(lambda record=record: self._tell(record, on_log))
                if last or self.done % config.checkpoint_every == 0:
                    self.engine.together(self._save)

    def finish(self) -> Trained:
        """Load the averaged weights and write what the run made."""
        with torch.no_grad():
            for parameter, mean in zip(self.parameters, self.average, strict=True):
                parameter.copy_(mean)
        self.learner.eval().zero_grad(set_to_none=True)
        seconds, peak = self._seconds(), max(self.peak, self.engine.peak_memory())
        about = {"iteration": self.done, "seconds": seconds, "peak_memory": peak}
        written = self.engine.together(lambda: self._write(about))
        return Trained(
            self.learner, self.done, seconds, peak, self.log.records, tuple(written), tuple(self.notices)
        )

    def _write(self, about: dict[str, Any]) -> list[Path]:
        """Write the learner and draw its loss, in the first process; return the files."""
        if self.out is None or not self.engine.is_first:
            return []
        tensors = {f"weights.{name}": value for name, value in self.learner.state_dict().items()}
        written = [write(self.out / "learner.safetensors", tensors, {**self.header, **about})]
        written.append(self.out / "log.jsonl")
        notice = loss_curve(self.out / "log.jsonl", self.out / "loss.png")
        if notice is None:
            written.append(self.out / "loss.png")
        else:
            self.notices.append(notice)
        return written

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
        loss = self.forward(task, episode)
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

    def _tell(self, record: dict[str, Any], on_log: Callable[[dict[str, Any]], None] | None) -> None:
        """Log a record and show it."""
        self.log.add(record)
        self.watch.show(record)
        if on_log is not None and self.engine.is_first:
            on_log(record)

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
        save_checkpoint(
            self.out, self.done, pack(self.learner, self.average, self.optimizer), {**self.header, **about}
        )

    def _restore(self, path: Path) -> None:
        """Take over what a checkpoint of this run holds."""
        tensors, header = read(path, kind="checkpoint")
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
