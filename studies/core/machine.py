"""How fast meta-training uses the machine, and whether a killed run comes back bit for bit.

Source: Chowdhery et al. 2022, appendix B (model FLOPs utilisation: useful operations over the possible ones).
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from gradatim.comparison.runs import Study, claim, start_process
from gradatim.families import LinearRegression
from gradatim.files.checkpoint import latest, read
from gradatim.methods import Parametric
from gradatim.recipes import Recipe
from gradatim.refiners import TransformerConfig
from gradatim.regimes import parametric
from gradatim.signal import BOTH
from gradatim.training.schemes import Greedy
from gradatim.training.train import TrainConfig, streams, train

if TYPE_CHECKING:
    from pathlib import Path


def throughput(study: Study, smoke: bool) -> dict[str, Any]:
    """Return `core.throughput`: useful FLOP/s of greedy meta-training over those of a 2048-cube float32 matmul.

    64 tasks, 3 mini-batches of 64 rows, width 128, 4 layers, all steps counted, through `train` as users call it:
    sampling, clipping, AdamW, averaging and logging included. Both are timed in turns in one run; medians.
    """
    rounds, iterations = (1, 3) if smoke else (5, 6)
    values = study.cached("throughput", [rounds, iterations], lambda: _throughput(rounds, iterations))
    ratios = values["flops"] / values["seconds"] / (2 * 2048**3 / values["matmul_seconds"])
    low, high = (float(ratios.min()), float(ratios.max()))
    result = claim("core.throughput", float(np.median(ratios)), low, high, 0.45, ">=")
    result["range"] = "least and most of the rounds"
    extra = {"tasks_per_second": float(64 / np.median(values["seconds"])), "threads": int(values["threads"])}
    return {
        **result,
        **extra,
        "matmul_gflops": float(2 * 2048**3 / np.median(values["matmul_seconds"]) / 1e9),
    }


def _throughput(rounds: int, iterations: int) -> dict[str, np.ndarray]:
    family = LinearRegression(8, 0.5, support_rows=192)
    scheme = Greedy(batch_size=64, horizon=3)
    learner = parametric(family, BOTH, TransformerConfig(width=128, layers=4))
    tasks, episode = streams(0, 0)
    with _Count() as count:
        scheme.loss(learner, family.sample(64, tasks), episode).backward()
    matmul, seconds = [], []
    for seed in range(rounds):
        matmul.append(_matmul_seconds())
        config = TrainConfig(iterations=iterations, tasks=64, seed=seed, log_every=1)
        done = train(learner, family, scheme, config, progress=False)
        seconds.append(float(np.median([64 / record["tasks_per_second"] for record in done.log[1:]])))
    return {
        "flops": np.asarray(count.flops),
        "seconds": np.asarray(seconds),
        "matmul_seconds": np.asarray(matmul),
        "threads": np.asarray(torch.get_num_threads()),
    }


class _Count(TorchDispatchMode):
    """Counts the floating-point operations of matrix products and attention, as torch's own counter does.

    That one follows modules through the backward pass, which the inner gradient of a signal breaks, and does not know
    the CPU's attention kernel.
    """

    flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        kernel = func.overloadpacket
        if kernel in flop_registry:
            self.flops += flop_registry[kernel](*args, **(kwargs or {}), out_val=out)
        elif kernel is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu:
            self.flops += sdpa_flop_count(*(part.shape for part in args[:3]))
        elif kernel is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward:
            self.flops += sdpa_backward_flop_count(*(part.shape for part in args[:4]))
        return out


def _matmul_seconds() -> float:
    """Return the median seconds of a 2048-cube float32 matrix product."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    times = []
    for _ in range(9):
        began = time.perf_counter()
        torch.mm(a, b)
        times.append(time.perf_counter() - began)
    return float(np.median(times[2:]))


def kill_resume(study: Study, smoke: bool) -> dict[str, Any]:
    """Return `core.kill_resume`: runs killed at a random moment whose weights end bitwise the same."""
    times = 1 if smoke else 5
    values = study.cached(
        "kill-resume", times, lambda: {"equal": np.asarray(_kill_resume(study.folder / "kill", times))}
    )
    equal = int(values["equal"].sum())
    return claim("core.kill_resume", equal, equal, equal, times, ">=")


def _kill_resume(home: Path, times: int) -> list[bool]:
    recipe = Recipe(
        Parametric(width=32, layers=2),
        LinearRegression(4, 0.5, support_rows=32),
        Greedy(batch_size=16, horizon=2),
        TrainConfig(iterations=600, tasks=16, checkpoint_every=7),
    )
    shutil.rmtree(home, ignore_errors=True)
    stream = random.Random(0)
    began = time.perf_counter()
    start_process(recipe, home / "undisturbed", 1).communicate()
    whole = time.perf_counter() - began
    wanted = _weights(home / "undisturbed")
    equal: list[bool] = []
    while len(equal) < times:
        folder = home / f"killed-{len(equal)}"
        shutil.rmtree(folder, ignore_errors=True)
        process = start_process(recipe, folder, 1)
        time.sleep(whole * stream.random())
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        if (folder / "learner.safetensors").exists() or latest(folder) is None:
            continue  # not in the middle of training: another moment
        start_process(recipe, folder, 1).communicate()
        found = _weights(folder)
        equal.append(found.keys() == wanted.keys() and all(torch.equal(found[n], wanted[n]) for n in wanted))
    return equal


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return read(folder / "learner.safetensors", "checkpoint")[0]
