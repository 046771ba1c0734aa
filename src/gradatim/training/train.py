"""Meta-training: one episode per iteration, AdamW on a cosine schedule, averaged weights, and exact resuming.

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

from ..files.checkpoint import latest, read, read_header, save_checkpoint, step_files, tidy, write
from ..files.contract import blamed
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

__all__ = ["TrainConfig", "TrainingResult", "train"]


@dataclass(frozen=True)
class TrainingResult:
    """The result of a run of meta-training.

    Fields:
        `learner`: the learner with its averaged weights, in eval mode.
        `iterations`: the number of iterations.
        `seconds`: the training time, earlier parts of a resumed run included.
        `peak_memory`: peak memory in bytes, of the process (on CUDA: of the device).
        `log`: the records of `log.jsonl`.
        `files`: the files that were written.
        `notices`: sentences for the user.

    Example:
        >>> from gradatim.training.train import TrainingResult
        >>> result = TrainingResult(None, iterations=100, seconds=2.0, peak_memory=10**9, log=[{"loss": 0.1}])
        >>> result.log[-1]["loss"], result.files
        (0.1, ())
    """

    learner: Learner
    iterations: int
    seconds: float
    peak_memory: int
    log: list[dict[str, Any]]
    files: tuple[Path, ...] = ()
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
) -> TrainingResult:
    """Meta-train a learner, in place, and return it with its averaged weights.

        phi <- AdamW(phi, clip(d scheme.loss(learner, tasks_i) / d phi))
        average <- average + (1 - decay_i) (phi - average)

    The tasks of iteration i are a pure function of (seed, i, process). With `resume`, a killed run therefore continues
    bit for bit from its last checkpoint. This holds on the same machine with the same number of threads, if nothing
    draws from torch's global generator. Pass the same learner as at the start of the run.

    Args:
        learner, family, scheme, config: the learner, the tasks, the loss of an episode, and the settings of the run.
        out: the folder for `log.jsonl`, the last two `step-*.safetensors`, `learner.safetensors` and `loss.png`.
        header: JSON from which the caller can rebuild the learner, stored under "recipe".
        resume: continue the run in `out`.
        progress: show a progress bar.
        on_log: called with each logged record.

    Raises:
        ValueError: nothing to meta-train; `out` holds a run and `resume` is false; the stored run differs from this
        one, naming the field; a loss or gradient that is not finite, naming the iteration; a file that cannot be
        written.

    Example:
        >>> from gradatim import Greedy, LinearRegression, TrainConfig, build, train
        >>> learner, family = build("parametric-gradients", LinearRegression(3)), LinearRegression(3)
        >>> config = TrainConfig(iterations=2, tasks=4, warmup=1, log_every=1)
        >>> result = train(learner, family, Greedy(batch_size=8, horizon=2), config, progress=False)
        >>> len(result.log)
        2

    Source: Mittal et al. 2025, eq. 6.
    """
    scheme.check(learner)
    parameter, n_threads = next(learner.parameters(), None), torch.get_num_threads()
    if parameter is None:
        raise ValueError(
            "this learner has no parameters to meta-train: use it as it is, or choose another method"
        )
    device = parameter.device
    try:
        run = _Run(learner, family, scheme, config, None if out is None else Path(out), header or {})
        run.start(run.find_checkpoint(resume), progress)
        run.run_iterations(on_log)
        return run.finish()
    finally:
        learner.to(device)
        torch.set_num_threads(n_threads)


class _Run:
    """One run of `train`: its settings, progress and files."""

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
        self.iteration, self.seconds_before, self.peak = 0, 0.0, 0
        self.window = {"loss": 0.0, "grad_norm": 0.0, "count": 0, "since": 0.0}
        self.pending: list[Tensor] = []
        self.notices: list[str] = []

    def find_checkpoint(self, resume: bool) -> Path | None:
        """Return the checkpoint to resume from, and refuse a folder with another run, or with one that `resume` does
        not ask for.

        Every process looks before it meets the others, so before any of them writes. So all find the same checkpoint.
        """
        out = self.out
        if out is None:
            if resume:
                raise ValueError("resume needs the folder of the run; got none: set out to that folder")
            return None
        checkpoints = list(step_files(out).values())
        if not resume:
            log = out / "log.jsonl"
            if checkpoints or (log.exists() and log.stat().st_size):
                raise ValueError(
                    f"{out} already holds a run: resume it (resume=True, on the command line --resume), "
                    "or choose another folder"
                )
            return None
        checkpoint = latest(out)
        if checkpoint is None:
            self.notices.append(
                f"{out} holds no checkpoint to resume from: training starts from the beginning"
            )
            return None
        if checkpoint != checkpoints[-1]:
            self.notices.append(f"{checkpoints[-1].name} is damaged: training goes on from {checkpoint.name}")
        header = read_header(checkpoint, kind="checkpoint")
        stored = {name: _without_free_fields(header.get(name)) for name in self.description}
        mismatch = difference(
            stored, {name: _without_free_fields(value) for name, value in self.description.items()}
        )
        if mismatch is not None:
            raise ValueError(
                f"{checkpoint} belongs to another run: {mismatch}; resume with the settings of that run, or "
                "choose another folder"
            )
        return checkpoint

    def start(self, checkpoint: Path | None, progress: bool) -> None:
        """Meet the other processes, restore the checkpoint if there is one, and open the log."""
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
        if checkpoint is not None:
            self._restore(checkpoint)
        is_first = self.engine.is_first
        folder = self.out if is_first else None
        self.log = self.engine.run_on_all(lambda: Log(folder, self.iteration, self.config.tensorboard))
        self.watch = Watch(progress and is_first, self.config.iterations, self.iteration)
        for notice in self.notices:
            self.watch.print(notice)
        self.engine.barrier()
        self.start_time = perf_counter()

    def run_iterations(self, on_log: Callable[[dict[str, Any]], None] | None) -> None:
        """Train to the last iteration; log and save at the intervals of the config."""
        config = self.config
        with closing(self.log), self.watch:
            while self.iteration < config.iterations:
                self._step()
                is_last = self.iteration == config.iterations
                if is_last or self.iteration % config.log_every == 0:
                    record = self._record()
                    self.engine.run_on_all(lambda record=record: self._publish(record, on_log))
                if is_last or self.iteration % config.checkpoint_every == 0:
                    self.engine.run_on_all(self._save)

    def finish(self) -> TrainingResult:
        """Load the averaged weights, write the files of the run and return the result."""
        with torch.no_grad():
            for parameter, mean in zip(self.parameters, self.average, strict=True):
                parameter.copy_(mean)
        self.learner.eval().zero_grad(set_to_none=True)
        seconds, peak = self._seconds(), max(self.peak, self.engine.peak_memory())
        facts = {"iteration": self.iteration, "seconds": seconds, "peak_memory": peak}
        files = self.engine.run_on_all(lambda: self._write(facts))
        return TrainingResult(
            self.learner, self.iteration, seconds, peak, self.log.records, tuple(files), tuple(self.notices)
        )

    def _write(self, facts: dict[str, Any]) -> list[Path]:
        """Write the learner and the plot of its loss in the first process; return the files."""
        if self.out is None or not self.engine.is_first:
            return []
        tensors = {f"weights.{name}": value for name, value in self.learner.state_dict().items()}
        files = [write(self.out / "learner.safetensors", tensors, {**self.header, **facts})]
        tidy(self.out, self.iteration)  # a run that was killed at its last checkpoint has saved none since
        files.append(self.out / "log.jsonl")
        notice = loss_curve(self.out / "log.jsonl", self.out / "loss.png")
        if notice is None:
            files.append(self.out / "loss.png")
        else:
            self.notices.append(notice)
        return files

    def _step(self) -> None:
        """Take one optimizer step on new tasks."""
        config, engine = self.config, self.engine
        task_generator, episode_generator = streams(config.seed, self.iteration, engine.rank)
        task = self.family.sample(config.tasks // engine.world_size, task_generator)
        parameter = self.parameters[0]
        if task.query.x.dtype != parameter.dtype:
            task = task.to(parameter.dtype)
        if task.query.x.device != parameter.device:
            task = task.to(parameter.device)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.forward(task, episode_generator)
        engine.backward(loss)
        norm = engine.clip(self.learner, self.optimizer, config.clip)
        self.pending += [loss.detach(), norm]
        self.iteration += 1
        if parameter.device.type == "cpu":
            self._collect_losses()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config, self.iteration - 1)
        self.stepper.step()
        torch._foreach_lerp_(self.average, self.parameters, 1 - ema_decay(config, self.iteration - 1))
        self.watch.advance()

    def _collect_losses(self) -> None:
        """Add the pending losses and gradient norms to the window. Only here the program waits for the device."""
        values = [float(value) for value in self.pending]
        self.pending.clear()
        for k, (loss, norm) in enumerate(zip(values[::2], values[1::2], strict=True)):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                iteration = self.iteration - len(values) // 2 + k + 1
                checkpoint = None if self.out is None else latest(self.out)
                raise ValueError(
                    f"iteration {iteration}: the loss is {loss}, the gradient norm {norm}; training stopped"
                    + ("" if checkpoint is None else f", the last good checkpoint is {checkpoint}")
                    + ": lower lr or clip, or train in another precision"
                )
            self.window["loss"] += loss
            self.window["grad_norm"] += norm
            self.window["count"] += 1

    def _record(self) -> dict[str, Any]:
        """Return the means since the last record and start a new window."""
        self._collect_losses()
        window, count, seconds = self.window, self.window["count"], self._seconds()
        means = torch.tensor([window["loss"], window["grad_norm"]], dtype=torch.float64) / count
        loss, norm = self.engine.mean(means).tolist()
        self.window = {"loss": 0.0, "grad_norm": 0.0, "count": 0, "since": seconds}
        return {
            "iteration": self.iteration,
            "loss": loss,
            "lr": learning_rate(self.config, self.iteration - 1),
            "grad_norm": norm,
            "tasks_per_second": count * self.config.tasks / max(seconds - window["since"], 1e-9),
            "seconds": seconds,
        }

    def _publish(self, record: dict[str, Any], on_log: Callable[[dict[str, Any]], None] | None) -> None:
        """Log a record and show it."""
        self.log.add(record)
        self.watch.show(record)
        if on_log is not None and self.engine.is_first:
            on_log(record)

    def _save(self) -> None:
        """Write a checkpoint."""
        self._collect_losses()
        if self.out is None or not self.engine.is_first:
            return
        facts = {
            "iteration": self.iteration,
            "seconds": self._seconds(),
            "peak_memory": max(self.peak, self.engine.peak_memory()),
            "window": self.window,
        }
        save_checkpoint(
            self.out,
            self.iteration,
            pack(self.learner, self.average, self.optimizer),
            {**self.header, **facts},
        )

    def _restore(self, path: Path) -> None:
        """Restore the run from a checkpoint."""
        tensors, header = read(path, kind="checkpoint")
        with blamed(path):
            unpack(tensors, self.learner, self.average, self.optimizer)
            self.iteration, self.seconds_before = header["iteration"], header["seconds"]
            self.peak, self.window = header["peak_memory"], dict(header["window"])
            if self.window.keys() != {"loss", "grad_norm", "count", "since"}:
                raise ValueError("header.window must have loss, grad_norm, count and since")

    def _seconds(self) -> float:
        """Return the seconds of training so far, earlier parts of a resumed run included."""
        return self.seconds_before + perf_counter() - self.start_time


def _without_free_fields(value: Any) -> Any:
    """Return a description without the fields of `TrainConfig` that a resumed run may change."""
    return (
        {name: entry for name, entry in value.items() if name not in FREE}
        if isinstance(value, dict)
        else value
    )
