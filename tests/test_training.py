import errno
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

import tiny_run
from gradatim.files.checkpoint import latest, load_weights, read, read_header, step_files
from gradatim.methods import build
from gradatim.training.config import TrainConfig, ema_decay, learning_rate, streams
from gradatim.training.engine import Engine, check_processes
from gradatim.training.log import Log, Watch, read_log
from gradatim.training.schemes import Greedy, Scheme
from gradatim.training.train import train
from tiny_run import CONFIG, FAMILY, SCHEME, make_learner, run

SHORT = replace(CONFIG, iterations=14, checkpoint_every=4)


def weights(folder):
    return (folder / "learner.safetensors").read_bytes()[8:], read(folder / "learner.safetensors")[0]


def assert_same_weights(one, other):
    (_, a), (_, b) = weights(one), weights(other)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def timeless(log):
    return [{k: v for k, v in record.items() if k not in ("seconds", "tasks_per_second")} for record in log]


class Stop(Exception):
    pass


@dataclass(frozen=True)
class Breaking(Greedy):
    """Greedy until the calls are used up; then the loss is not a number, or the run is stopped."""

    def loss(self, learner, task, generator):
        CALLS["left"] -= 1
        if CALLS["left"] < 0:
            if CALLS["how"] == "stop":
                raise Stop
            return super().loss(learner, task, generator) * float(CALLS["how"])
        return super().loss(learner, task, generator)


CALLS = {"left": 0, "how": "stop"}


def breaking(calls, how="stop"):
    CALLS.update(left=calls, how=how)
    return Breaking(batch_size=SCHEME.batch_size, horizon=SCHEME.horizon, random_horizon=True)


# --- what a run computes


def plain_loop(config: TrainConfig, scheme: Scheme):
    """Train as `train` says it does, written out: no fusing, no engine, the formulas by hand."""
    learner = make_learner().double()
    parameters = list(learner.parameters())
    optimizer = torch.optim.AdamW(
        parameters, lr=1.0, betas=config.betas, weight_decay=config.weight_decay, foreach=False, fused=False
    )
    average = [p.detach().clone() for p in parameters]
    losses, norms = [], []
    for i in range(config.iterations):
        draw, episode = streams(config.seed, i)
        loss = scheme.loss(learner, FAMILY.sample(config.tasks, draw).to(torch.float64), episode)
        gradient = torch.autograd.grad(loss, parameters)
        norm = torch.cat([g.flatten() for g in gradient]).norm()
        for p, g in zip(parameters, gradient, strict=True):
            p.grad = g if config.clip is None or norm <= config.clip else g * (config.clip / norm)
        warm = min(1.0, (i + 1) / config.warmup)
        share = max(0.0, (i - config.warmup) / (config.iterations - config.warmup))
        cosine = 0.5 * (config.lr - config.final_lr) * (1 + math.cos(math.pi * share)) + config.final_lr
        optimizer.param_groups[0]["lr"] = warm * cosine
        optimizer.step()
        decay = min(config.ema, (1 + i) / (10 + i))
        average = [decay * a + (1 - decay) * p.detach() for a, p in zip(average, parameters, strict=True)]
        losses.append(loss.item())
        norms.append(norm.item())
    return average, losses, norms


@pytest.mark.parametrize("clip", [0.05, None])
def test_train_equals_a_plain_loop(clip):
    config = replace(
        CONFIG, iterations=20, lr=0.01, final_lr=1e-3, weight_decay=0.1, clip=clip, ema=0.5, log_every=1
    )
    average, losses, norms = plain_loop(config, SCHEME)
    trained = train(make_learner().double(), FAMILY, SCHEME, config, progress=False)
    for mine, wanted in zip(trained.learner.parameters(), average, strict=True):
        # torch clips by norm + 1e-6, at norm 1 a relative 1e-6; the biases of keys have no gradient but rounding, which
        # Adam enlarges up to lr * 1e-16 / 1e-8 a step
        torch.testing.assert_close(mine, wanted, rtol=1e-4 if clip else 1e-8, atol=1e-7 if clip else 1e-8)
    assert [r["loss"] for r in trained.log] == pytest.approx(losses, rel=1e-5 if clip else 1e-10)
    assert [r["grad_norm"] for r in trained.log] == pytest.approx(norms, rel=1e-3 if clip else 1e-9)
    assert min(norms) > 0.05, "the clip must bite for this test to mean something"
    assert not trained.learner.training


def test_schedules():
    config = TrainConfig(iterations=12, warmup=4, lr=1.0, final_lr=0.1, ema=0.9)
    rates = [learning_rate(config, i) for i in range(12)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[8] == pytest.approx(0.55)
    assert learning_rate(config, 12) == pytest.approx(0.1)
    assert all(a >= b for a, b in pairwise(rates[4:]))
    assert [ema_decay(config, i) for i in (0, 8, 79, 81, 500)] == [0.1, 0.5, 80 / 89, 0.9, 0.9]


def test_streams_are_a_function_of_their_arguments():
    draws = {
        key: tuple(torch.rand(2, generator=g).tolist() for g in streams(*key))
        for key in [(0, 0), (0, 1), (1, 0), (0, 0, 1), (2**40, 0)]
    }
    assert draws[0, 0] == tuple(torch.rand(2, generator=g).tolist() for g in streams(0, 0, 0))
    tasks = [str(value[0]) for value in draws.values()]
    assert len(set(tasks)) == 5
    assert draws[0, 0][0] != draws[0, 0][1]
    assert draws[0, 0][1] == draws[0, 0, 1][1] != draws[0, 1][1], "the episode is one for all processes"


def test_log_is_means_and_training_learns(tmp_path):
    every = train(make_learner(), FAMILY, SCHEME, replace(SHORT, log_every=1), progress=False)
    seen = []
    trained = run(tmp_path, SHORT, on_log=seen.append, header={"recipe": "tiny"})
    assert [r["iteration"] for r in trained.log] == [7, 14]
    losses = [r["loss"] for r in every.log]
    assert [r["loss"] for r in trained.log] == pytest.approx([sum(losses[:7]) / 7, sum(losses[7:]) / 7])
    assert seen == trained.log == read_log(tmp_path / "log.jsonl")
    assert {f.name for f in trained.files} == {"learner.safetensors", "log.jsonl", "loss.png"}
    assert all(file.stat().st_size for file in trained.files)
    header = read_header(tmp_path / "learner.safetensors", "checkpoint")
    assert header["recipe"] == {"recipe": "tiny"}
    assert header["config"]["iterations"] == header["iteration"] == 14
    assert header["family"]["type"] == "LinearRegression"
    assert trained.seconds > 0 and trained.peak_memory > 50e6
    long = train(make_learner(), FAMILY, SCHEME, replace(CONFIG, iterations=150, lr=0.01), progress=False)
    assert long.log[-1]["loss"] < 0.8 * long.log[0]["loss"]


# --- runs that are stopped


@pytest.mark.parametrize("calls", [2, 4, 9, 13])
def test_a_stopped_run_resumes_bit_for_bit(tmp_path, calls):
    whole = run(tmp_path / "whole", SHORT)
    with pytest.raises(Stop):
        run(tmp_path / "cut", SHORT, breaking(calls))
    resumed = run(tmp_path / "cut", SHORT, breaking(99), resume=True)
    assert_same_weights(tmp_path / "whole", tmp_path / "cut")
    assert timeless(resumed.log) == timeless(whole.log)
    assert ("starts from the beginning" in " ".join(resumed.notices)) == (calls < SHORT.checkpoint_every)
    # a kill between the last checkpoint and the removal of the last but two
    last = latest(tmp_path / "cut")
    (tmp_path / "cut" / "step-00000001.safetensors").write_bytes(last.read_bytes())
    again = run(tmp_path / "cut", SHORT, breaking(0), resume=True)
    assert again.iterations == 14
    assert len(step_files(tmp_path / "cut")) == 2
    assert again.seconds > read_header(latest(tmp_path / "cut"))["seconds"] > 0
    assert_same_weights(tmp_path / "whole", tmp_path / "cut")


def kill_at_random(out: Path, moment: random.Random) -> None:
    """Start or resume a run in another process and kill it a moment after it wrote something new."""
    before = latest(out)
    child = subprocess.Popen([sys.executable, tiny_run.__file__, str(out), "--resume"])
    deadline = time.monotonic() + 120
    while latest(out) == before and child.poll() is None:
        assert time.monotonic() < deadline, "the run writes nothing"
        time.sleep(0.002)
    time.sleep(moment.uniform(0, 0.1))
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL, "the run ended before it was killed: give it more iterations"


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_killed_run_resumes_bit_for_bit(tmp_path):
    moment = random.Random()  # any moment must do
    run(tmp_path / "whole")
    out = tmp_path / "killed"
    reached = []
    for _ in range(2):
        kill_at_random(out, moment)
        reached.append(read_header(latest(out))["iteration"])
    assert 0 < reached[0] < reached[1] < CONFIG.iterations
    resumed = run(out, resume=True)
    assert_same_weights(tmp_path / "whole", out)
    assert [r["iteration"] for r in resumed.log] == [7, 14, 21, 28, 35, 42, 49, 56, 60]
    assert not list(out.glob(".*.tmp"))


def test_a_damaged_checkpoint_is_passed_over(tmp_path):
    run(tmp_path / "whole", SHORT)
    with pytest.raises(Stop):
        run(tmp_path / "cut", SHORT, breaking(9))
    newest = latest(tmp_path / "cut")
    newest.write_bytes(newest.read_bytes()[:-9])
    resumed = run(tmp_path / "cut", SHORT, breaking(99), resume=True)
    assert resumed.notices == (
        "step-00000008.safetensors is damaged: training goes on from step-00000004.safetensors",
    )
    assert_same_weights(tmp_path / "whole", tmp_path / "cut")


# --- what is refused


def test_another_run_is_not_resumed(tmp_path):
    run(tmp_path, SHORT)
    with pytest.raises(
        ValueError,
        match=r"already holds a run: resume it \(resume=True, on the command line --resume\), or choose another",
    ):
        run(tmp_path, SHORT)
    wrong = {
        "config.lr is 0.001 there and 0.002 here": (make_learner(), FAMILY, SCHEME, replace(SHORT, lr=0.002)),
        "config.iterations is 14": (make_learner(), FAMILY, SCHEME, replace(SHORT, iterations=28)),
        "family.noise_std is 0.5 there and 0.25": (
            make_learner(),
            replace(FAMILY, noise_std=0.25),
            SCHEME,
            SHORT,
        ),
        "scheme.horizon is 3 there and 2": (make_learner(), FAMILY, replace(SCHEME, horizon=2), SHORT),
        "learner.refiner.config.width is 8 there and 4": (make_learner(width=4), FAMILY, SCHEME, SHORT),
    }
    for sentence, (learner, *rest) in wrong.items():
        with pytest.raises(
            ValueError, match=sentence.replace(".", r"\.") + ".*; resume with the settings of that run"
        ):
            train(learner, *rest, out=tmp_path, resume=True, progress=False)
    run(tmp_path, replace(SHORT, log_every=3, checkpoint_every=5, threads=None), resume=True)
    with pytest.raises(ValueError, match="resume needs the folder"):
        train(make_learner(), FAMILY, SCHEME, SHORT, resume=True)


@pytest.mark.parametrize("how", ["nan", "inf"])
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, how):
    with pytest.raises(
        ValueError,
        match=rf"iteration 11: the loss is {how}.* last good checkpoint is .*step-00000008.*: lower lr",
    ):
        run(tmp_path, SHORT, breaking(10, how))
    tensors, header = read(latest(tmp_path))
    assert header["iteration"] == 8
    assert all(value.isfinite().all() for value in tensors.values())


def test_a_full_disk_stops_the_run_and_keeps_its_checkpoints(tmp_path, monkeypatch):
    run(tmp_path / "whole", SHORT)
    real, calls = os.fsync, []

    def fsync(handle):
        calls.append(handle)
        if len(calls) > 7:  # the log's two, and two for each of the first two checkpoints, and one more
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(ValueError, match=r"could not be written \(No space left on device"):
        run(tmp_path / "full", SHORT)
    monkeypatch.setattr(os, "fsync", real)
    assert latest(tmp_path / "full") is not None
    assert not list((tmp_path / "full").glob(".*.tmp"))
    run(tmp_path / "full", SHORT, resume=True)
    assert_same_weights(tmp_path / "whole", tmp_path / "full")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("iterations", 0),
        ("iterations", 1e3),
        ("iterations", True),
        ("lr", "x"),
        ("lr", None),
        ("final_lr", "0"),
        ("weight_decay", [0.1]),
        ("clip", "1"),
        ("ema", None),
        ("betas", 0.9),
        ("betas", ("a", "b")),
        ("threads", "2"),
        ("threads", 1.5),
        ("seed", "a"),
        ("precision", 32),
        ("tasks", 0),
        ("lr", 0.0),
        ("lr", math.nan),
        ("warmup", -1),
        ("clip", 0.0),
        ("ema", 1.0),
        ("betas", (0.9, 1.0)),
        ("threads", 0),
        ("log_every", 0),
        ("checkpoint_every", 0),
        ("devices", 0),
        ("precision", "8-true"),
        ("accelerator", "abacus"),
        ("seed", -1),
    ],
)
def test_impossible_settings_are_refused(field, value):
    with pytest.raises(ValueError, match=rf"{field} must be .*; got"):
        TrainConfig(**{field: value})


def test_tasks_are_shared_evenly():
    with pytest.raises(ValueError, match="tasks must be a multiple of devices, 3; got 32"):
        TrainConfig(devices=3)


def test_what_has_no_parameters_is_not_trained(tmp_path):
    with pytest.raises(ValueError, match="SGD has nothing to meta-train"):
        train(build("sgd", FAMILY, rate=0.1), FAMILY, SCHEME, SHORT, tmp_path, progress=False)
    empty = make_learner()
    for module in empty.modules():
        module._parameters.clear()
    with pytest.raises(ValueError, match="no parameters to meta-train"):
        train(empty, FAMILY, SCHEME, SHORT, tmp_path, progress=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("world", "devices"), [("2", 1), ("4", 2)])
def test_processes_that_would_all_train_alone_are_refused(tmp_path, monkeypatch, world, devices):
    monkeypatch.setenv("WORLD_SIZE", world)
    said = rf"{world} processes .* devices is {devices}.*--devices {world} .*TrainConfig.devices"
    with pytest.raises(ValueError, match=said):
        Engine(devices, accelerator="cpu")
    with pytest.raises(ValueError, match=said):
        run(tmp_path, replace(SHORT, devices=devices))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("world", "devices"), [(None, 1), (None, 2), ("1", 1), ("2", 2), ("", 1)])
def test_processes_that_meet_are_not_refused(monkeypatch, world, devices):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if world is not None:
        monkeypatch.setenv("WORLD_SIZE", world)
    check_processes(devices)


# --- around a run


def test_threads_are_put_back():
    before = torch.get_num_threads()
    seen = []
    config = replace(SHORT, threads=before + 1)
    train(
        make_learner(),
        FAMILY,
        SCHEME,
        config,
        progress=False,
        on_log=lambda _: seen.append(torch.get_num_threads()),
    )
    assert seen == [before + 1] * 2
    assert torch.get_num_threads() == before


def test_double_precision_computes_in_double(tmp_path):
    trained = run(tmp_path, replace(SHORT, precision="64-true"))
    assert {p.dtype for p in trained.learner.parameters()} == {torch.float64}
    assert load_weights(make_learner().double(), tmp_path / "learner.safetensors")["iteration"] == 14


def test_without_matplotlib_a_run_says_which_extra_draws(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    trained = run(tmp_path, SHORT)
    assert trained.notices == ("no picture drawn: it needs matplotlib, pip install gradatim[viz]",)
    assert not (tmp_path / "loss.png").exists()


def test_tensorboard_is_an_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match=r"pip install gradatim\[track\]"):
        run(tmp_path, replace(SHORT, tensorboard=True))


def test_tensorboard_writes_events(tmp_path):
    pytest.importorskip("tensorboard")
    run(tmp_path, replace(SHORT, tensorboard=True))
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_a_log_drops_what_a_killed_run_left(tmp_path):
    lines = [json.dumps({"iteration": i, "loss": 1.0}) + "\n" for i in (5, 10, 15)]
    (tmp_path / "log.jsonl").write_text("".join(lines) + '{"iteration": 20, "lo')
    log = Log(tmp_path, start=10)
    log.add({"iteration": 15, "loss": 0.5})
    assert [(r["iteration"], r["loss"]) for r in read_log(tmp_path / "log.jsonl")] == [
        (5, 1.0),
        (10, 1.0),
        (15, 0.5),
    ]
    assert log.records == read_log(tmp_path / "log.jsonl")


def test_progress_off_a_terminal_is_plain_lines_on_stderr(capfd):
    with Watch(visible=True, total=40) as watch:
        for i in range(40):
            watch.advance()
            watch.show({"iteration": i + 1, "loss": 0.25, "tasks_per_second": 1234.5, "seconds": 3.0})
    out, err = capfd.readouterr()
    assert out == ""
    assert err.splitlines()[-1] == "40/40  loss 0.25  1,234 tasks/s  3 s"
    assert len(err.splitlines()) == 11
    with Watch(visible=False, total=40) as watch:
        watch.print("nothing")
    assert capfd.readouterr().err == ""
