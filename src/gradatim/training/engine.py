"""Devices, precision and processes: the only file that names Fabric.

Source: Lightning Fabric, `lightning_fabric.Fabric`; DDP after Li et al. 2020.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import logging
import math
import os
import sys
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from ..provenance import peak_memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

_Made = TypeVar("_Made")

PRECISIONS = ("32-true", "64-true", "bf16-mixed")
ACCELERATORS = ("auto", "cpu", "cuda")

_WRAPPED: weakref.WeakSet[Any] = weakref.WeakSet()
"""What Fabric has made of modules, as long as it is used."""


class _Whole(nn.Module):
    """Runs the module in one forward on arguments that Fabric must not take apart: tasks are frozen dataclasses."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        # Never used: DDP looks for unused parameters, and where there is none it warns at length on every start.
        self.spare = nn.Parameter(torch.zeros(()))

    def forward(self, call: Callable[[nn.Module], Tensor]) -> Tensor:
        return call(self.module)


class Engine:
    """Where a run computes: `devices` processes, a precision, an accelerator (auto: CUDA where there is one).

    With several devices on CPU it is DDP over gloo, with processes started from this script or by torchrun; gradients
    are then averaged over processes. What no process uses in an iteration has no gradient, as on one device.

    Raises:
        ValueError: an unknown precision or accelerator, devices below 1, more CUDA devices than there are, or another
            number of devices than of processes that torchrun started.

    Example:
        >>> engine = Engine()
        >>> engine.launch()
        >>> forward, optimizer = engine.setup(learner, torch.optim.AdamW(learner.parameters()))
        >>> engine.backward(forward(task, generator))
    """

    def __init__(self, devices: int = 1, precision: str = "32-true", accelerator: str = "auto") -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}; got {precision!r}")
        if accelerator not in ACCELERATORS:
            raise ValueError(f"accelerator must be one of {', '.join(ACCELERATORS)}; got {accelerator!r}")
        if devices < 1:
            raise ValueError(f"devices must be at least 1; got {devices}")
        check_processes(devices)
        present = torch.cuda.device_count()
        if accelerator == "auto":
            accelerator = "cuda" if present else "cpu"
        if accelerator == "cuda" and devices > present:
            raise ValueError(
                f"{devices} CUDA devices are wanted, {present} are here: lower devices or use cpu"
            )
        fabric = _quiet_fabric()
        strategy = "ddp_find_unused_parameters_true" if devices > 1 else "auto"
        self._fabric = fabric(
            accelerator=accelerator, devices=devices, strategy=strategy, precision=precision
        )
        self.precision = precision

    @property
    def device(self) -> torch.device:
        """Return this process's device."""
        return self._fabric.device

    @property
    def rank(self) -> int:
        """Return this process's number among all, from 0."""
        return self._fabric.global_rank

    @property
    def world_size(self) -> int:
        """Return the number of processes."""
        return self._fabric.world_size

    @property
    def is_first(self) -> bool:
        """Return whether this process is the one that writes and shows."""
        return self.rank == 0

    def launch(self) -> None:
        """Start the other processes, or meet those that torchrun started; with one device, nothing."""
        self._fabric.launch()
        if self.world_size > 1:
            atexit.unregister(_leave)
            atexit.register(_leave)
        if self.device.type == "cpu":
            _keep_freed_memory()

    def setup(
        self, module: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[Callable[..., Tensor], torch.optim.Optimizer]:
        """Return `forward(*args)`, the module's forward in this engine's precision and processes, and the optimizer.

        The module's parameters stay the same objects, moved and cast in place.
        """
        wrapped, fitted = self._fabric.setup(_Whole(module), optimizer)
        _WRAPPED.add(wrapped)

        def forward(*args: Any) -> Tensor:
            return wrapped(lambda inner: inner(*args))

        return forward, fitted

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of the loss, averaged over processes, to the parameters."""
        self._fabric.backward(loss)

    def clip(self, module: nn.Module, optimizer: torch.optim.Optimizer, largest: float | None) -> Tensor:
        """Scale the gradient to an L2 norm of at most `largest` (None: leave it); return the norm it had, `[]`."""
        largest = math.inf if largest is None else largest
        return self._fabric.clip_gradients(module, optimizer, max_norm=largest, error_if_nonfinite=False)

    def mean(self, values: Tensor) -> Tensor:
        """Return values averaged over processes."""
        return values if self.world_size == 1 else self._fabric.all_reduce(values, reduce_op="mean")

    def together(self, work: Callable[[], _Made]) -> _Made:
        """Do work in every process and return what it made in this one; where one fails, none goes on.

        Raises:
            Exception: what the work raised here, or ValueError with the sentence of the first process it failed in.
        """
        if self.world_size == 1:
            return work()
        made: list[_Made] = []
        error, said = None, [""] * self.world_size
        try:
            made.append(work())
        except Exception as caught:
            error = caught
        own = "" if error is None else str(error) or type(error).__name__
        torch.distributed.all_gather_object(said, own)
        if error is not None:
            raise error
        for rank, sentence in enumerate(said):
            if sentence:
                raise ValueError(f"process {rank} stopped: {sentence}")
        return made[0]

    def barrier(self) -> None:
        """Wait for every process."""
        self._fabric.barrier()

    def peak_memory(self) -> int:
        """Return the most memory held so far, bytes: of the CUDA device, else of the whole process (0 if unknown)."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return peak_memory()


def check_processes(devices: int) -> None:
    """Raise ValueError where a launcher such as torchrun started another number of processes than `devices`.

    With one device, each of them would train on all tasks, and all would write the same files.
    """
    world = os.environ.get("WORLD_SIZE", "")
    if world.isdecimal() and int(world) > 1 and int(world) != devices:
        raise ValueError(
            f"this is one of {world} processes that were started together (WORLD_SIZE), but devices is {devices}: "
            f"give --devices {world} (TrainConfig.devices) for one run of them all, or start a single process"
        )


def _keep_freed_memory() -> None:
    """Tell glibc to keep what a step frees for the next one, which asks for the same blocks again.

    By default it hands them back to the system, and a step spends a tenth of its time on page faults.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        trim_threshold, mmap_threshold = -1, -3  # malloc.h
        libc.mallopt(trim_threshold, 2**30)
        libc.mallopt(mmap_threshold, 2**30)


def _leave() -> None:
    """Leave the process group while the interpreter is whole.

    A thread of gloo that frees a tensor during finalization aborts the process, though its work is done (PyTorch's
    pull request 179291). Threads are joined with the group's last reference, which wrapped modules hold: they give up
    what they wrap, even where a script or a traceback still holds them.
    """
    for wrapped in list(_WRAPPED):
        wrapped._forward_module = None
    gc.collect()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _quiet_fabric() -> Any:
    """Return the class Fabric, imported when a run needs it (it takes long), its own logger at warnings."""
    import lightning_fabric

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    return lightning_fabric.Fabric
