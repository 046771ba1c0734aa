"""Two processes: the step of one, the same weights however they are started and stopped, none left waiting.

As a script, `python test_distributed.py OUT`: what two processes do together, written to OUT/RANK.pt by each.
"""

import atexit
import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from studies.images import processes

from gradatim.comparison.runs import Study, start_process
from gradatim.files.checkpoint import read, step_files
from gradatim.training.config import learning_rate, streams
from gradatim.training.engine import Engine
from gradatim.training.schemes import Greedy
from gradatim.training.train import train
from tiny_run import CONFIG, FAMILY, SCHEME, make_learner

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")

SECONDS = 120  # to wait for processes that take 10
PAIR = replace(CONFIG, devices=2, accelerator="cpu", iterations=8, checkpoint_every=3)
UNEVEN = replace(PAIR, iterations=12, lr=0.01, weight_decay=0.1, clip=None, ema=0.0, threads=4)


# --- what both processes do: the script


@dataclass(frozen=True)
class Choosy(Greedy):
    """Greedy, with a parameter that takes part for some draws of tasks only."""

    def loss(self, learner, task, generator):
        THREADS.add(torch.get_num_threads())
        loss = super().loss(learner, task, generator)
        return loss + (learner.refiner.sometimes**2).sum() if chosen(task) else loss


THREADS = set()
KEPT = []  # what a script holds to its end
CHOOSY = Choosy(batch_size=SCHEME.batch_size, horizon=SCHEME.horizon, random_horizon=True)


def chosen(task):
    return bool(task.query.x[0, 0, 0] > 0)


def uneven_learner():
    """Return a learner in float64 with a parameter used at times, and one that never is."""
    learner = make_learner()
    learner.refiner.sometimes = torch.nn.Parameter(torch.ones(2))
    learner.refiner.never = torch.nn.Parameter(torch.ones(2))
    return learner.double()


def said_of(work):
    """Do work that fails, and return the error."""
    try:
        work()
    except (ValueError, ArithmeticError) as error:
        return f"{type(error).__name__}: {error}"
    raise AssertionError("it did not fail")


def full(handle):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def refuse(record):
    raise ArithmeticError(f"iteration {record['iteration']} displeases")


def both(out):
    trained = train(uneven_learner(), FAMILY, CHOOSY, UNEVEN, progress=False)
    engine = Engine(2, accelerator="cpu")
    engine.launch()
    weights = torch.nn.Linear(2, 1)
    KEPT.append(engine.setup(weights, torch.optim.SGD(weights.parameters(), lr=0.1)))
    engine.backward(KEPT[0][0](torch.ones(3, 2)).sum())
    said = [
        f"{engine.run_on_all(lambda: engine.rank)}",
        said_of(lambda: engine.run_on_all(lambda: 1 // (1 - engine.rank))),
        said_of(lambda: train(make_learner(), FAMILY, SCHEME, PAIR, progress=False, on_log=refuse)),
    ]
    real = os.fsync
    folders = [out / "log", out / "save", out / "finish"]
    for folder, calls in zip(folders, (0, 2 + 2, 2 + 2 * 3), strict=True):  # two for each file
        left = iter(range(calls))
        os.fsync = lambda handle, left=left: real(handle) if next(left, None) is not None else full(handle)
        said.append(
            said_of(lambda folder=folder: train(make_learner(), FAMILY, SCHEME, PAIR, folder, progress=False))
        )
        os.fsync = real
    found = {"said": said, "threads": sorted(THREADS), "weights": trained.learner.state_dict()}
    torch.save(found, out / f"{engine.rank}.pt")


def note_end(out):
    """Write whether this process is in a group, and the names of its threads, those of libraries included."""
    names = [file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm")]
    found = {"grouped": torch.distributed.is_initialized(), "threads": names}
    (out / f"end-{os.environ['LOCAL_RANK']}.json").write_text(json.dumps(found))


# --- the tests


def ended(process):
    """Wait until a process and those it started have closed their output, and return what they wrote."""
    try:
        return "".join(process.communicate(timeout=SECONDS))
    except subprocess.TimeoutExpired:
        process.kill()
        raise


def begin(*command):
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )


def assert_same_weights(one, other):
    a, b = (read(folder / "learner.safetensors")[0] for folder in (one, other))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A claim, and the folder with the runs it was measured on."""
    study = Study(tmp_path_factory.mktemp("study"), 1, Console(quiet=True))
    return processes.ddp(study, smoke=True), study.folder / "ddp"


def test_two_processes_take_the_step_that_one_takes_on_all_their_tasks(undisturbed):
    claim, home = undisturbed
    assert claim["regimes"].keys() == {"parametric", "explicit", "implicit"}
    assert all(0 < distance <= 1e-5 for distance in claim["regimes"].values())
    assert claim["holds"] and claim["value"] == max(claim["regimes"].values())
    run = processes.recipes(smoke=True)["parametric"]
    half = replace(run, train=replace(run.train, tasks=run.train.tasks // 2, devices=1))
    assert processes._distance(home / "parametric", half) > 0.1, "the first process's tasks alone must not do"


def test_a_run_of_two_processes_that_was_killed_is_resumed_by_torchrun_bit_for_bit(undisturbed, tmp_path):
    run = processes.recipes(smoke=True)["parametric"]
    killed = start_process(run, tmp_path, 2)
    deadline = time.monotonic() + SECONDS
    while max(step_files(tmp_path), default=0) < run.train.iterations // 3 and killed.poll() is None:
        assert time.monotonic() < deadline, "the run writes nothing"
        time.sleep(0.002)
    os.kill(killed.pid, signal.SIGKILL)
    ended(killed)  # and the other process with it
    assert killed.returncode == -signal.SIGKILL and not (tmp_path / "learner.safetensors").exists()
    asked = json.loads((tmp_path / "recipe.json").read_text())
    asked["train"]["devices"] = 1
    (tmp_path / "recipe.json").write_text(json.dumps(asked))
    launcher = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        2,
        "-m",
        "gradatim",
        "train",
    ]
    resumed = begin(
        *launcher, tmp_path / "recipe.json", "--devices", 2, "--out", tmp_path, "--resume", "--quiet"
    )
    said = ended(resumed)
    assert resumed.returncode == 0, said
    assert said.count(f"after {run.train.iterations} iterations") == 1, "one process speaks"
    assert_same_weights(tmp_path, undisturbed[1] / "parametric")


def alone(config, scheme):
    """Return the weights of one process that takes the mean of both processes' losses, and how often both chose."""
    learner = uneven_learner()
    optimizer = torch.optim.AdamW(
        learner.parameters(), betas=config.betas, weight_decay=config.weight_decay, foreach=False, fused=False
    )
    choices = []
    for i in range(config.iterations):
        draws = [streams(config.seed, i, rank) for rank in range(2)]
        tasks = [FAMILY.sample(config.tasks // 2, draw).to(torch.float64) for draw, _ in draws]
        losses = [
            scheme.loss(learner, task, episode) for task, (_, episode) in zip(tasks, draws, strict=True)
        ]
        optimizer.zero_grad()
        (sum(losses) / 2).backward()
        optimizer.param_groups[0]["lr"] = learning_rate(config, i)
        optimizer.step()
        choices.append(sum(map(chosen, tasks)))
    return learner.state_dict(), choices


def test_what_is_unused_has_no_gradient_and_an_error_in_one_process_stops_both(tmp_path):
    process = begin(__file__, tmp_path)
    said = ended(process)
    assert process.returncode == 0 and "unused parameters" not in said, said
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    wanted, choices = alone(UNEVEN, CHOOSY)
    assert {0, 1, 2} == set(choices), "none, one and both processes must use the parameter at times"
    for name, value in wanted.items():
        # the biases of keys have no gradient but rounding, which Adam enlarges up to lr * 1e-16 / 1e-8 a step
        torch.testing.assert_close(first["weights"][name], value, rtol=1e-8, atol=1e-8)
        assert torch.equal(first["weights"][name], second["weights"][name])
    assert (first["weights"]["refiner.never"] == 1).all(), "without a gradient nothing decays"
    assert (first["weights"]["refiner.sometimes"] < 0.99).all()
    assert first["threads"] == second["threads"] == [UNEVEN.threads // 2]
    value, divided, displeased, *full = first["said"]
    assert value == "0" and divided == "ValueError: process 1 stopped: integer division or modulo by zero"
    assert displeased == "ArithmeticError: iteration 7 displeases"
    for sentence, file in zip(full, ("log.jsonl", "step-00000006", "learner"), strict=True):
        assert re.match(rf"ValueError: .*{file}\S* could not be written \(No space left on device", sentence)
    told = [f"ValueError: process 0 stopped: {s.split(': ', 1)[1]}" for s in (displeased, *full)]
    assert second["said"] == ["1", "ZeroDivisionError: integer division or modulo by zero", *told]
    for rank in range(2):  # a thread of gloo that frees a tensor in a dying interpreter aborts the process
        end = json.loads((tmp_path / f"end-{rank}.json").read_text())
        assert not end["grouped"] and not [name for name in end["threads"] if "gloo" in name]


if __name__ == "__main__":
    atexit.register(note_end, Path(sys.argv[1]))  # the first registered is the last called
    both(Path(sys.argv[1]))
