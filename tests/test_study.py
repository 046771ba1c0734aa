"""Studies: records that know what they depend on, runs of learners built otherwise, one-step twins, tuning, panels."""

import hashlib
import json
import subprocess
import sys
import time
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from rich.console import Console
from studies import __main__ as command
from studies.every_row.claims import claims, rises
from studies.tables.checks import COMMANDS
from studies.tables.peers import fingerprint

from gradatim.comparison.experiment import Experiment
from gradatim.comparison.panel import evaluate
from gradatim.comparison.runs import (
    Study,
    TrainedRun,
    grid_search,
    one_step_recipe,
    prepare_folder,
    sample_tasks,
)
from gradatim.families import EmbeddingClassification, LinearClassification, LinearRegression
from gradatim.files.checkpoint import read, write
from gradatim.methods import METHODS, Parametric, build, variant
from gradatim.metrics import curve, error_rate, squared_error
from gradatim.recipes import Recipe, recipe
from gradatim.refiners import Bagged
from gradatim.testing import randomised
from gradatim.training.schemes import Greedy
from gradatim.training.snapshot import describe_learner
from gradatim.training.train import TrainConfig

TINY = Recipe(
    Parametric(width=16, layers=1),
    LinearClassification(3, 3, support_rows=12, query_rows=5),
    Greedy(batch_size=4, horizon=2),
    TrainConfig(iterations=1, tasks=2, lr=1e-3),
)


def test_a_record_is_kept_until_what_it_depends_on_changes(tmp_path):
    study = Study(tmp_path, 1, Console(quiet=True))
    first = study.cached("k", {"rows": 1}, lambda: {"v": np.asarray(1)})
    again = study.cached("k", {"rows": 1}, lambda: {"v": np.asarray(2)})
    other = study.cached("k", {"rows": 2}, lambda: {"v": np.asarray(3)})
    assert [int(values["v"]) for values in (first, again, other)] == [1, 1, 3]
    assert "commit" in first


def test_records_of_tables_depend_on_the_source_of_the_estimators():
    """The patterns were looked for among the studies, so that every version had the same fingerprint."""
    nothing = hashlib.sha256(b"").hexdigest()[:12]
    assert not fingerprint().endswith(nothing) and fingerprint() != fingerprint(*COMMANDS)


def test_a_study_may_be_moved_with_the_files_it_made(tmp_path):
    """Embeddings that a study makes lie in its folder, and recipes name them."""
    first, later = (
        Study(tmp_path / name, 1, Console(quiet=True), isolated=False) for name in ("größe", "later")
    )
    rng = np.random.default_rng(0)

    def asked(study):
        family = EmbeddingClassification(
            str(study.folder / "made.npz"), ways=2, support_rows=12, query_rows=5
        )
        return replace(TINY, family=family)

    first.folder.mkdir()
    np.savez(first.folder / "made.npz", embeddings=rng.normal(size=(400, 4)), labels=np.arange(400) % 20)
    first.train({"a": asked(first)})
    first.cached("k", asked(first).to_json(), lambda: {"v": np.asarray(1)})
    first.folder.rename(later.folder)
    found = later.cached("k", asked(later).to_json(), lambda: {"v": np.asarray(2)})
    assert int(found["v"]) == 1 and later._cost("a", asked(later)) is not None


def test_a_one_step_twin_makes_as_many_refinements_with_the_same_settings():
    long = recipe("digits")
    short = one_step_recipe(long, "parametric-one-step")
    assert short.scheme.horizon == 1
    assert short.train.tasks == long.train.tasks * long.scheme.horizon
    assert replace(short.train, tasks=long.train.tasks) == long.train
    assert short.name == "parametric-one-step" and asdict(short.method) == asdict(long.method)


def test_the_run_of_another_recipe_is_removed_and_an_own_one_kept(tmp_path):
    prepare_folder(tmp_path, recipe("digits"))
    (tmp_path / "mark").touch()
    prepare_folder(tmp_path, recipe("digits"))
    assert (tmp_path / "mark").exists()
    prepare_folder(tmp_path, recipe("linear"))
    assert not (tmp_path / "mark").exists()


def test_a_run_is_gone_on_with_on_another_number_of_threads_and_begun_anew_where_what_it_is_cannot_be_read(
    tmp_path,
):
    for threads in (1, 2):
        asked = prepare_folder(tmp_path, replace(TINY, train=replace(TINY.train, threads=threads)))
        (tmp_path / "mark").touch(exist_ok=threads == 2)
    assert json.loads(asked.read_text())["train"]["threads"] == 2
    for torn in (asked.read_text()[:50], "[]"):
        (tmp_path / "mark").touch()
        asked.write_text(torn)
        prepare_folder(tmp_path, TINY)
        assert not (tmp_path / "mark").exists() and asked.exists()


def test_an_interrupt_lets_no_run_begin_that_waits(tmp_path, monkeypatch):
    begun = []

    def run(self, name, recipe, threads):
        begun.append(name)
        time.sleep(0.2)

    def interrupted(jobs):
        raise KeyboardInterrupt

    monkeypatch.setattr(Study, "_run", run)
    monkeypatch.setattr("gradatim.comparison.runs.as_completed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Study(tmp_path, 1, Console(quiet=True)).train(dict.fromkeys("abcd", TINY))
    assert begun in ([], ["a"])


def older(header):
    """Return the header as a version would have written it whose learners had no curvature."""
    learner = header["learner"]
    refiner = learner["refiner"] | {"config": dict(learner["refiner"]["config"])}
    del refiner["config"]["curvature"]
    return header | {"learner": learner | {"refiner": refiner}}


def saved(home, made=TINY, change=lambda header: header):
    """Write what meta-training a recipe ends with: the learner's first weights."""
    learner = made.learner()
    tensors = {f"weights.{name}": value for name, value in learner.state_dict().items()}
    header = {"kind": "checkpoint", "recipe": {"recipe": made.to_json()}, "seconds": 1.0, "peak_memory": 1}
    return write(
        home / "learner.safetensors", tensors, change(header | {"learner": describe_learner(learner)})
    )


def kept(home, made=TINY, change=lambda cost: cost):
    """Write what is kept of a finished run of a recipe."""
    about = {"recipe": made.to_json(), "learner": describe_learner(made.learner())}
    home.mkdir(parents=True, exist_ok=True)
    cost = change(about | {"seconds": 1.0, "peak_memory": 1, "threads": 1})
    (home / "cost.json").write_text(json.dumps(cost))


def test_finished_work_is_taken_and_that_of_a_learner_built_otherwise_is_not(tmp_path):
    study, home = Study(tmp_path, 1, Console(quiet=True)), tmp_path / "runs" / "a"
    kept(home)
    assert study._cost("a", TINY) == {"seconds": 1.0, "peak_memory": 1, "threads": 1}
    hidden = replace(TINY, method=replace(TINY.method, hidden=(4,)))  # comes back from a file as a tuple
    kept(tmp_path / "runs" / "b", hidden)
    assert study._cost("b", hidden) is not None and study._cost("b", TINY) is None
    for change in (
        older,
        lambda cost: {key: value for key, value in cost.items() if key != "learner"},
        lambda cost: {key: value for key, value in cost.items() if key != "seconds"},
        lambda cost: cost | {"recipe": TINY.to_json() | {"bygone": 1}},
        lambda cost: cost | {"recipe": []},
    ):
        kept(home, change=change)
        assert study._cost("a", TINY) is None
    kept(home, change=lambda cost: cost | {"recipe": without(cost["recipe"], "clip")})
    assert study._cost("a", TINY) is not None, "a field that was not there yet has its default"


def without(recipe, name):
    """Return a recipe's JSON as it was before a field of its training came."""
    return recipe | {"train": {key: value for key, value in recipe["train"].items() if key != name}}


@pytest.mark.parametrize("file", ["learner.safetensors", "step-00000001.safetensors"])
def test_the_run_of_a_learner_built_otherwise_is_removed(tmp_path, file):
    for change, kept in ((lambda header: header, True), (older, False)):
        prepare_folder(tmp_path, TINY)
        saved(tmp_path, change=change).rename(tmp_path / file)
        prepare_folder(tmp_path, TINY)
        assert (tmp_path / file).exists() == kept
        assert (tmp_path / "recipe.json").exists()


def test_weights_left_out_are_made_again_when_they_are_asked_for(tmp_path):
    """What is kept of a finished run is what it cost; a record of its learner needs no more than that."""
    path = tmp_path / "runs" / "a" / "learner.safetensors"
    first = Study(tmp_path, 1, Console(quiet=True)).train({"a": TINY})["a"]
    weights = {name: value.clone() for name, value in first.learner.state_dict().items()}
    for file in path.parent.iterdir():
        if file.name != "cost.json":
            file.unlink()
    again = Study(tmp_path, 1, Console(quiet=True)).train({"a": TINY})["a"]
    assert not path.exists(), "nobody asked for weights"
    assert (again.seconds, again.peak_memory, again.threads) == (
        first.seconds,
        first.peak_memory,
        first.threads,
    )
    assert again.description == first.description
    assert (path.parent / "cost.json").exists()
    for name, value in again.learner.state_dict().items():
        assert torch.equal(value, weights[name])
    other = replace(TINY, train=replace(TINY.train, seed=1))
    Study(tmp_path, 1, Console(quiet=True)).train({"a": other})
    assert path.exists(), "what another recipe cost says nothing of this one"
    with pytest.raises(ValueError, match="is the run of another recipe by now"):
        again.load()


def test_damaged_weights_are_made_again(tmp_path):
    path = tmp_path / "runs" / "a" / "learner.safetensors"
    first = Study(tmp_path, 1, Console(quiet=True), isolated=False).train({"a": TINY})["a"]
    path.write_bytes(path.read_bytes()[:-1])
    again = Study(tmp_path, 1, Console(quiet=True), isolated=False).train({"a": TINY})["a"]
    for name, value in again.learner.state_dict().items():
        assert torch.equal(value, first.learner.state_dict()[name])


def test_a_run_that_fails_is_named(tmp_path):
    broken = replace(TINY, train=replace(TINY.train, iterations=3, warmup=0, lr=1e30))
    with pytest.raises(
        ValueError, match=r"meta-training broken failed: ValueError: iteration \d: the loss is"
    ):
        Study(tmp_path, 1, Console(quiet=True)).train({"broken": broken})


def test_a_run_of_a_learner_built_otherwise_is_trained_anew(tmp_path):
    """It was taken as done, and its weights did not fit."""
    study, home = Study(tmp_path, 1, Console(quiet=True)), tmp_path / "runs" / "a"
    before = replace(TINY, method=replace(TINY.method, width=8))
    path = saved(home, before, lambda header: header | {"recipe": {"recipe": TINY.to_json()}})
    kept(home, change=lambda cost: cost | {"learner": describe_learner(before.learner())})
    trained = study.train({"a": TINY})["a"]
    weights, header = read(path)
    assert header["learner"] == describe_learner(trained.learner) and header["iteration"] == 1
    for name, value in trained.learner.state_dict().items():
        assert torch.equal(value, weights[f"weights.{name}"])


def test_tuning_takes_the_best_of_the_grid():
    family = LinearRegression(3, 0.5, support_rows=40)
    task = sample_tasks(family, 16, seed=2)
    grid = METHODS["sgd"].grid
    setting = grid_search(lambda rate: build("sgd", family, rate=rate), grid, task, 8, 5, squared_error)
    scores = {
        rate: curve(build("sgd", family, rate=rate), task, 8, [5], {"e": squared_error})["e"].mean()
        for rate in grid["rate"]
    }
    assert setting["rate"] == min(scores, key=lambda rate: np.nan_to_num(scores[rate], nan=np.inf))


def test_evaluation_tasks_are_a_function_of_their_seed():
    family = LinearRegression(3, 0.5)
    one, same, other = (sample_tasks(family, 2, seed=s).support.x for s in (1, 1, 2))
    assert (one == same).all()
    assert not (one == other).all()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a peak can't be forgotten")
def test_peak_memory_counts_what_is_held_and_can_start_anew():
    """In a process of its own: one that has trained keeps freed memory, and allocates from that."""
    program = """
import numpy as np
from gradatim.provenance import reset_peak_memory, peak_memory
reset_peak_memory()
before = peak_memory()
np.ones(2**25)  # 256 MiB
held = peak_memory() - before
reset_peak_memory()
print(held / 2**20, (peak_memory() - before) / 2**20)
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    held, after = map(float, said.split())
    assert 250 < held < 300 and after < 50


# --- panels


def panel(made, **changes):
    """Return a part of a panel with one recipe, called own."""
    part = Experiment(
        "part", TINY.family, {"own": made}, {}, {"error": error_rate, "loss": loss}, 4, (1, 2, 3), 18
    )
    return replace(part, **changes)


def loss(outputs, task):
    """Return the mean cross-entropy of each task."""
    return torch.nn.functional.cross_entropy(outputs.mT, task.query.y[..., 0], reduction="none").mean(1)


def untrained(made):
    torch.manual_seed(0)
    learner = randomised(made.learner()).float().eval()
    return TrainedRun(made, 0.0, 0, 1, lambda: learner)


@pytest.mark.parametrize("method", ["parametric-one-step", "implicit-one-step"])
def test_a_whole_recipe_takes_one_step_over_all_rows_so_far(tmp_path, method):
    made = replace(TINY, method=variant(TINY.method, method), scheme=Greedy(batch_size=12, horizon=1))
    run, part = untrained(made), panel(made, full_batch={"own": 2})
    task = sample_tasks(TINY.family, 18, seed=1)
    found = evaluate(Study(tmp_path, 1, Console(quiet=True)), "own", "own", run, part, task)
    assert found["steps"].tolist() == [1, 2], "not beyond the step said"
    for place, step in enumerate((1, 2)):
        rows = task.support.slice(0, step * part.batch_size)
        with torch.no_grad():
            start = run.learner.refiner.init(18, task.query)
            outputs = run.learner.predict(task.query.x, run.learner.step(start, rows))
        np.testing.assert_array_equal(found["error"][place], error_rate(outputs, task).numpy())
        np.testing.assert_allclose(found["loss"][place], loss(outputs, task).numpy(), rtol=1e-5)
    iterated = evaluate(
        Study(tmp_path, 1, Console(quiet=True)), "own", "own", run, replace(part, full_batch={}), task
    )
    assert iterated["steps"].tolist() == [1, 2, 3], "another record than the one of whole steps"
    np.testing.assert_array_equal(iterated["loss"][0], found["loss"][0])
    assert (abs(iterated["loss"][1] - found["loss"][1]) > 1e-4).any()


def test_an_implicit_refiner_is_not_bagged():
    learner = build("implicit-logits", TINY.family, width=16, layers=1)
    with pytest.raises(ValueError, match="bagging averages latents; an implicit state is a prediction"):
        Bagged(learner.refiner)


def test_claims_read_the_step_they_name_and_the_worse_of_two():
    """Excess risks `[seeds, steps, tasks]` made by hand: the learner's over the oracle's, at step 1, 10, ..., 1000."""
    steps = {name: (10, 160, 1000) for name in ("isotropic", "correlated")}
    steps |= {"linear100": (160,), "classification": (10, 160)}

    def risks(*by_step):
        return {"excess risk": np.tile(np.array(by_step, float)[None, :, None], (1, 1, 6))}

    found = {
        part: {
            "oracle": risks(1, 1, 1),
            f"{part}-ours": risks(3, *last),
            f"{part}-bayesian": risks(3, 2, worst),
        }
        for part, last, worst in (("isotropic", (2, 1.5), 1.5), ("correlated", (4, 3), 1.25))
    }
    found["linear100"] = {"oracle": risks(2), "linear100-bayesian": risks(3)}
    found["classification"] = {
        "classification-bayesian": {"excess loss": np.array([[[0.2] * 6, [0.05] * 6]])}
    }
    made = claims(found, steps, {"isotropic": "isotropic-ours", "correlated": "correlated-ours"})
    values = {claim["id"].removeprefix("gain."): claim["value"] for claim in made}
    assert values == {
        "transformer.ratio10": 3.0,
        "transformer.ratio160": 2.0,
        "transformer.ratio1000": 1.5,
        "transformer.correlated160": 4.0,
        "default.ratio1000": 1.5,
        "linear100.ratio160": 1.5,
        "classification.excess160": 0.25,
    }


def test_rises_are_counted_from_the_size_of_what_rises():
    assert rises(np.array([4.0, 2.0, 2.01, 2.1, 1.0])) == 1 / 4
    assert rises(np.array([-1.0, -1.005, -0.9])) == 1 / 2


def test_the_command_hands_on_its_options_and_shows_the_claims(capsys, tmp_path, monkeypatch):
    got = []

    def run(name, out, smoke, seeds, workers, console, table):
        got.append((name, out, smoke, seeds, workers, table))
        claim = {
            "id": "x.y",
            "value": 2.5,
            "low": 2,
            "high": 3,
            "bar": 2.2,
            "direction": "<=",
            "holds": False,
        }
        (out / "core.json").write_text(json.dumps({"claims": [claim]}))
        return [out / "core.json"]

    monkeypatch.setattr(command, "run", run)
    code = command.main(["core", "--smoke", "--workers", "3", "--out", str(tmp_path)])
    out = capsys.readouterr().out
    command.main(["core", "--workers", "1", "--seeds", "5", "--out", str(tmp_path)])
    command.main(["paper", "--workers", "1", "--table", "2", "--out", str(tmp_path)])
    assert (
        command.main(["core", "--seeds", "0"]) == 2
        and "--seeds must be at least 1" in capsys.readouterr().err
    )
    assert got == [
        ("core", tmp_path, True, 1, 3, None),
        ("core", tmp_path, False, 5, 1, None),
        ("paper", tmp_path, False, 3, 1, 2),
    ]
    assert code == 0 and f"wrote {tmp_path / 'core.json'}" in out
    (line,) = (line for line in out.splitlines() if "x.y" in line)
    assert line.split() == ["x.y", "2.5", "[2,", "3]", "<=", "2.2", "fails"]
