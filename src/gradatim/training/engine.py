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

_Result = TypeVar("_Result")

PRECISIONS = ("32-true", "64-true", "bf16-mixed")
ACCELERATORS = ("auto", "cpu", "cuda")

_WRAPPED: weakref.WeakSet[Any] = weakref.WeakSet()
"""The modules that Fabric has wrapped, as long as they are used."""


class _Closure(nn.Module):
    """Calls the module inside a closure, so that Fabric does not move the arguments: tasks are frozen dataclasses."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        # Never used: DDP looks for unused parameters, and where there is none it warns at length on every start.
        self.spare = nn.Parameter(torch.zeros(()))

    def forward(self, call: Callable[[nn.Module], Tensor]) -> Tensor:
        return call(self.module)


class Engine:
    """The processes, the accelerator and the precision of a run.

    With several devices on CPU a run is DDP over gloo: its processes are started from this script or by torchrun, and
    gradients are averaged over them. A parameter that no process uses in an iteration has no gradient.

    Args:
        devices: the number of processes, each with one device.
        precision: one of `PRECISIONS`.
        accelerator: one of `ACCELERATORS`; auto is CUDA where there is a CUDA device.

    Raises:
        ValueError: an unknown precision or accelerator, devices below 1, too few CUDA devices, or another number of
            devices than of processes that torchrun started.

    Example:
        >>> import torch
        >>> from gradatim.training.engine import Engine
        >>> engine = Engine(accelerator="cpu")
        >>> engine.launch()
        >>> model = torch.nn.Linear(3, 1)
        >>> forward, optimizer = engine.setup(model, torch.optim.SGD(model.parameters(), lr=0.1))
        >>> engine.backward(forward(torch.ones(5, 3)).sum())
        >>> model.weight.grad
        tensor([[5., 5., 5.]])
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
        """Return the number of this process, from 0."""
        return self._fabric.global_rank

    @property
    def world_size(self) -> int:
        """Return the number of processes."""
        return self._fabric.world_size

    @property
    def is_first(self) -> bool:
        """Return whether this process is the first, which writes files and shows progress."""
        return self.rank == 0

    def launch(self) -> None:
        """Start the other processes, or connect to those that torchrun started. With one device, start none."""
        if self.world_size > 1:
            # For processes that are started: threads that spin while they wait would take one another's cores.
            os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        self._fabric.launch()
        if self.world_size > 1:
            atexit.unregister(_leave_group)
            atexit.register(_leave_group)
        if self.device.type == "cpu":
            _keep_freed_memory()

    def setup(
        self, module: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[Callable[..., Tensor], torch.optim.Optimizer]:
        """Return the module's forward and its optimizer in this engine's precision and processes.

        The module's parameters stay the same objects, moved and cast in place.

        Args:
            module: the module; its forward returns a tensor of any shape.
            optimizer: the optimizer of its parameters.

        Returns:
            (`forward(*args)`, optimizer).
        """
        wrapped, fitted = self._fabric.setup(_Closure(module), optimizer)
        _WRAPPED.add(wrapped)

        def forward(*args: Any) -> Tensor:
            return wrapped(lambda inner: inner(*args))

        return forward, fitted

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a loss of shape `[]`, averaged over processes, to the parameters."""
        self._fabric.backward(loss)

    def clip(self, module: nn.Module, optimizer: torch.optim.Optimizer, largest: float | None) -> Tensor:
        """Scale the gradient to an L2 norm of at most `largest`, and return the norm before, of shape `[]`.

        None sets no limit.
        """
        largest = math.inf if largest is None else largest
        return self._fabric.clip_gradients(module, optimizer, max_norm=largest, error_if_nonfinite=False)

    def mean(self, values: Tensor) -> Tensor:
        """Return values of any shape averaged over processes."""
        return values if self.world_size == 1 else self._fabric.all_reduce(values, reduce_op="mean")

    def run_on_all(self, work: Callable[[], _Result]) -> _Result:
        """Run a function in every process and return its result in this one. Where one process fails, all stop.

        Raises:
            Exception: what the function raised in this process.
            ValueError: the function failed in another process only; the message of the first of them is in the error.
        """
        if self.world_size == 1:
            return work()
        results: list[_Result] = []
        error, messages = None, [""] * self.world_size
        try:
            results.append(work())
        except Exception as caught:
            error = caught
        message = "" if error is None else str(error) or type(error).__name__
        torch.distributed.all_gather_object(messages, message)
        if error is not None:
            raise error
        for rank, sentence in enumerate(messages):
            if sentence:
                raise ValueError(f"process {rank} stopped: {sentence}")
        return results[0]

    def barrier(self) -> None:
        """Wait for every process."""
        self._fabric.barrier()

    def peak_memory(self) -> int:
        """Return the peak memory so far in bytes: of the CUDA device, else of the process (0 where it is unknown)."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return peak_memory()


def check_processes(devices: int) -> None:
    """Check that a launcher such as torchrun started as many processes as `devices`, if it started any.

    With one device, each process would train on all tasks, and all would write the same files.

    Raises:
        ValueError: another number of processes.

    Example:
        >>> from gradatim.training.engine import check_processes
        >>> check_processes(1)
    """
    world = os.environ.get("WORLD_SIZE", "")
    if world.isdecimal() and int(world) > 1 and int(world) != devices:
        raise ValueError(
            f"this is one of {world} processes that were started together (WORLD_SIZE), but devices is {devices}: "
            f"give --devices {world} (TrainConfig.devices) for one run of them all, or start a single process"
        )


def _keep_freed_memory() -> None:
    """Tell glibc to keep freed memory, because the next step asks for the same blocks again.

    By default glibc returns them to the system, and a step spends a tenth of its time on page faults.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        trim_threshold, mmap_threshold = -1, -3  # malloc.h
        libc.mallopt(trim_threshold, 2**30)
        libc.mallopt(mmap_threshold, 2**30)


def _leave_group() -> None:
    """Leave the process group before the interpreter is finalized.

    A thread of gloo that frees a tensor during finalization aborts the process, though its work is done (PyTorch's
    pull request 179291). The threads end with the last reference to the group, and wrapped modules hold references.
    So every wrapper releases its module first, even where a script or a traceback still refers to the wrapper.
    """
    for wrapped in list(_WRAPPED):
        wrapped._forward_module = None
    gc.collect()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _quiet_fabric() -> Any:
    """Return the class Fabric with its logger at warnings. It is imported late because the import takes long."""
    import lightning_fabric

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    return lightning_fabric.Fabric
