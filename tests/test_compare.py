"""Comparisons: what is trained, tuned and judged, resuming, refusals, tables, files, the command, a user's family."""

import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

import gradatim.comparison.plots
from gradatim import Comparison, TaskFamily, TrainConfig, cli, compare
from gradatim.batch import Batch, Task
from gradatim.comparison import panel, runs
from gradatim.comparison.runs import sample_tasks
from gradatim.families import ImageClassification, LinearClassification, LinearRegression
from gradatim.likelihood import SquaredError
from gradatim.methods import MAML, Adam, Parametric, Ridge, build
from gradatim.metrics import accuracy, curve, mean_interval, squared_error
from gradatim.training.schemes import Greedy, Unrolled

ROOT = Path(__file__).parents[1]
FAMILY = LinearRegression(2, support_rows=12, query_rows=8)
SHORT = TrainConfig(iterations=2, tasks=2)
SMALL = {"steps": (1, 3), "tasks": 6, "seeds": 2, "train": SHORT, "progress": False}


def means(result, name, metric="squared error"):
    return [record["mean"] for record in result.pooled(metric)[name]]


def test_the_name_is_the_functions_although_its_package_was_imported_first():
    assert callable(gradatim.compare) and gradatim.compare is compare


def test_unlearnt_methods_are_tuned_on_training_tasks_and_judged_on_others():
    result = compare(["ridge"], FAMILY, **SMALL)
    judged = replace(FAMILY, support_rows=12)
    tuning = sample_tasks(judged, 6, seed=2)
    errors = {
        s: curve(build("ridge", FAMILY, strength=s), tuning, 4, [3], {"e": squared_error})["e"].mean()
        for s in Ridge.grid["strength"]
    }
    best = min(errors, key=errors.get)
    task = sample_tasks(judged, 6, seed=1)
    values = curve(build("ridge", FAMILY, strength=best), task, 4, [1, 3], {"e": squared_error})["e"]
    first = result.records[0]
    assert (first["setting"], first["learnt"], first["seed"], first["rows"]) == (
        {"strength": best},
        False,
        None,
        4,
    )
    assert means(result, "ridge") == pytest.approx(values.mean(1))
    assert (first["mean"], first["low"], first["high"]) == mean_interval(values[:1])


def test_options_that_are_set_are_not_tuned():
    chosen = {"slow": Adam(rate=0.001), "tuned": "adam"}
    records = {record["method"]: record for record in compare(chosen, FAMILY, **SMALL).records}
    assert records["slow"]["setting"] is None and list(records["tuned"]["setting"]) == ["rate"]
    assert records["slow"]["mean"] > records["tuned"]["mean"]


def test_learnt_methods_are_trained_with_each_seed_and_pooled():
    result = compare({"mine": Parametric(width=8, layers=1, heads=2)}, FAMILY, **SMALL)
    records = [
        r
        for r in result.records
        if r["method"] == "mine" and (r["step"], r["metric"]) == (3, "squared error")
    ]
    assert [record["seed"] for record in records] == ["all", 0, 1]
    assert records[0]["mean"] == pytest.approx((records[1]["mean"] + records[2]["mean"]) / 2)
    assert records[1]["mean"] != records[2]["mean"] and records[0]["seconds"] > 0
    assert records[0]["learnt"] and records[0]["parameters"] == sum(
        p.numel() for p in Parametric(width=8, layers=1, heads=2).build(FAMILY).parameters()
    )


def test_the_oracle_is_shown_and_no_method_beats_it_by_far():
    result = compare(["ridge"], FAMILY, **SMALL)
    assert result.methods == ["ridge", "oracle"]
    assert means(result, "oracle", "excess risk")[1] < 1.5 * means(result, "ridge", "excess risk")[1]


def test_training_takes_the_scheme_that_a_method_needs(monkeypatch):
    recipes = {}

    def train(self, wanted):
        recipes.update(wanted)
        raise KeyboardInterrupt

    monkeypatch.setattr(runs.Study, "train", train)
    with pytest.raises(KeyboardInterrupt):
        compare(["maml", "parametric-both", "parametric-one-step"], FAMILY, **SMALL)
    schemes = {name: (type(r.scheme), r.scheme.horizon, r.scheme.batch_size) for name, r in recipes.items()}
    assert schemes["maml-0"] == (Unrolled, 3, 4) and schemes["parametric-both-1"] == (Greedy, 3, 4)
    assert schemes["parametric-one-step-0"] == (Greedy, 1, 4)
    assert recipes["parametric-one-step-0"].train.tasks == 3 * SHORT.tasks
    assert recipes["maml-1"].train.seed == 1


def test_pools_are_kept_apart():
    family = ImageClassification("digits", 8, 3, support_rows=12, query_rows=6)
    result = compare(["ridge"], family, **SMALL)
    task = sample_tasks(replace(family.on("test"), support_rows=12), 6, seed=1)
    setting = result.records[0]["setting"]
    outputs = build("ridge", family, **setting)
    wrong = curve(outputs, task, 4, [1, 3], {"e": lambda o, t: 1 - accuracy(o, t)})["e"]
    assert means(result, "ridge", "error") == pytest.approx(wrong.mean(1))


def test_a_trained_learner_takes_part_as_it_is():
    torch.manual_seed(0)
    learner = build("parametric-both", FAMILY, width=8, layers=1, heads=2)
    result = compare({"mine": learner, "ridge": "ridge"}, FAMILY, **SMALL)
    values = curve(learner, sample_tasks(FAMILY, 6, seed=1), 4, [1, 3], {"e": squared_error})["e"]
    assert means(result, "mine") == pytest.approx(values.mean(1))
    record = result.records[0]
    assert record["seed"] is None and record["learnt"] and record["seconds"] == 0
    with pytest.raises(ValueError, match="a learner has no name of its own: give a dictionary"):
        compare([learner], FAMILY, **SMALL)


def test_the_same_call_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    methods = ["parametric-plain", "adam"]
    fresh = compare(methods, FAMILY, **SMALL)
    evaluate = panel.evaluate

    def killed(study, key, *rest):
        if key.endswith("-1"):
            raise KeyboardInterrupt
        return evaluate(study, key, *rest)

    monkeypatch.setattr(panel, "evaluate", killed)
    with pytest.raises(KeyboardInterrupt):
        compare(methods, FAMILY, out=tmp_path, **SMALL)
    monkeypatch.setattr(panel, "evaluate", evaluate)
    monkeypatch.setattr(runs, "train", lambda *_: pytest.fail("it was trained before"))
    resumed = compare(methods, FAMILY, out=tmp_path, **SMALL)
    plain = [[{k: v for k, v in r.items() if k != "seconds"} for r in x.records] for x in (fresh, resumed)]
    assert plain[0] == plain[1]


def test_other_tasks_in_the_same_folder_are_another_comparison(tmp_path):
    results = [compare(["ridge"], replace(FAMILY, noise_std=s), out=tmp_path, **SMALL) for s in (0.1, 1.0)]
    assert means(results[0], "ridge") != means(results[1], "ridge")
    assert len(list(tmp_path.iterdir())) == 2


def test_records_of_code_that_has_changed_since_are_not_reused(tmp_path, monkeypatch):
    def compared(**metrics):
        return compare(["ridge"], FAMILY, out=tmp_path, metrics=metrics or None, **SMALL)

    first = compared(error=squared_error)
    second = compared(error=lambda outputs, task: 100 * squared_error(outputs, task))
    assert means(second, "ridge", "error") == pytest.approx([100 * e for e in means(first, "ridge", "error")])

    before, oracle = compared(), LinearRegression.oracle
    with monkeypatch.context() as patch:
        patch.setattr(LinearRegression, "oracle", lambda *arguments: oracle(*arguments) + 5)
        assert means(compared(), "oracle")[-1] > means(before, "oracle")[-1] + 1
    assert means(compared(), "oracle") == means(before, "oracle")


def test_processes_of_their_own_give_the_same_numbers(tmp_path):
    small = SMALL | {"seeds": 1, "train": replace(SHORT, threads=1)}
    alone, apart = (compare(["maml"], FAMILY, workers=n, **small) for n in (1, 2))
    assert means(alone, "maml") == pytest.approx(means(apart, "maml"), rel=1e-5)


def local_family():
    """Return a family that no other process can import."""

    @dataclass(frozen=True, kw_only=True)
    class Slopes(TaskFamily):
        x_dim = 1
        likelihood = SquaredError(1)

        def sample(self, n_tasks, generator):
            x = torch.randn(n_tasks, self.support_rows + self.query_rows, 1, generator=generator)
            rows = Batch(x, x * torch.randn(n_tasks, 1, 1, generator=generator))
            return Task(rows.slice(0, self.support_rows), rows.slice(self.support_rows, rows.n_rows))

    return Slopes(support_rows=12, query_rows=8)


def test_a_family_of_a_notebook_or_a_function_is_compared_in_this_process(tmp_path):
    for _ in range(2):
        result = compare(["maml", "ridge"], local_family(), out=tmp_path, **SMALL)
    assert result.family == "Slopes" and result.methods == ["maml", "ridge"]
    with pytest.raises(ValueError, match=r"defined inside a function.*or workers=1"):
        compare(["maml", "ridge"], local_family(), workers=2, **SMALL)


@dataclass(frozen=True, kw_only=True)
class Recorded(TaskFamily):
    """Tasks of 12 rows, however many are wanted."""

    x_dim = 2
    likelihood = SquaredError(1)

    def sample(self, n_tasks, generator):
        return FAMILY.sample(n_tasks, generator)


REFUSED = [
    ({"methods": []}, "there is nothing to compare: give at least one method"),
    ({"methods": {}}, "there is nothing to compare: give at least one method"),
    ({"methods": "ridge"}, r"methods is a list.*write \['ridge'\]"),
    ({"methods": ["ridge", "adamm"]}, "no method is called 'adamm': did you mean 'adam'"),
    ({"methods": ["ridge", "Ridge"]}, "two methods are called 'ridge': give them names"),
    ({"methods": [MAML(), MAML(rate=0.3)]}, "two methods are called 'maml'"),
    ({"methods": {"oracle": "ridge"}}, "the name 'oracle' is that of the best possible answer"),
    ({"methods": {"a/b": "ridge"}}, "a name is made of letters"),
    ({"methods": [3]}, "a method is a name, an import path or a Method; got 3"),
    ({"methods": ["explicit-order"]}, "an order of the columns, which LinearRegression does not ask for"),
    ({"methods": ["kalman"], "family": LinearClassification(2, 3)}, "this family has classes"),
    ({"methods": ["maml"], "scheme": Greedy(4, horizon=3)}, "maml cannot be trained by Greedy"),
    ({"methods": ["maml"], "scheme": Unrolled(8, horizon=3)}, "need 24 support rows; the family gives 12"),
    ({"family": "LinearRegresion"}, "did you mean 'LinearRegression'"),
    ({"family": LinearRegression}, r"make a value of it, LinearRegression\(...\)"),
    ({"family": None}, "a family is a TaskFamily or the name of one"),
    ({"steps": ()}, "steps must be whole numbers of at least 1"),
    ({"steps": (0, 1)}, "steps must be whole numbers of at least 1"),
    ({"steps": (1, 2.5)}, "steps must be whole numbers of at least 1"),
    ({"seeds": 0}, "seeds must be a whole number of at least 1; got 0"),
    ({"tasks": 0}, "tasks must be a whole number of at least 1; got 0"),
    ({"workers": -1}, "workers must be a whole number of at least 1"),
    ({"batch_size": 0}, "batch_size must be a whole number of at least 1"),
    ({"metrics": {"accuracy": accuracy}}, "must be an error: put error_rate before accuracy"),
    (
        {"family": Recorded(), "steps": (4,), "batch_size": 4},
        "4 mini-batches of 4 rows need 16 support rows; tasks of Recorded have 12",
    ),
]


@pytest.mark.parametrize(("change", "sentence"), REFUSED)
def test_bad_input_is_refused_before_anything_is_trained(change, sentence, monkeypatch):
    monkeypatch.setattr(runs.Study, "train", lambda *_: pytest.fail("it was trained"))
    arguments = {"methods": ["ridge"], "family": FAMILY, **SMALL, **change}
    with pytest.raises(ValueError, match=sentence):
        compare(arguments.pop("methods"), arguments.pop("family"), **arguments)


def made(**means):
    """Return a comparison of two steps by hand; `name=(learnt, mean, mean)`."""
    records = [
        {"method": name, "learnt": learnt, "seed": "all" if learnt else None, "step": step, "rows": step * 4}
        | {"metric": "error", "mean": mean, "low": mean - 0.01, "high": mean + 0.01}
        | {"seconds": 0.0, "parameters": 1, "setting": None}
        for name, (learnt, *values) in means.items()
        for step, mean in zip((1, 5), values, strict=True)
    ]
    return Comparison("Waves", 4, 32, 3, records)


def test_a_table_marks_the_best_and_what_is_not_trained():
    result = made(
        ours=(True, 0.5, 0.2), ridge=(False, 0.4, 0.3), oracle=(False, 0.1, 0.1), sgd=(False, 0.6, math.nan)
    )
    head, rule, *rows = result.table().splitlines()
    assert [text.strip() for text in head.split("|")[1:-1]] == ["error", "1 (4 rows)", "5 (20 rows)"]
    cells = {
        r.split("|")[1].strip(): [c.strip() for c in r.split("|")[2:-1]] for r in rows if r.startswith("|")
    }
    assert cells["ours"] == ["0.5 ± 0.01", "**0.2 ± 0.01**"]
    assert cells["ridge *"] == ["**0.4 ± 0.01**", "0.3 ± 0.01"]
    assert cells["oracle"] == ["0.1 ± 0.01", "0.1 ± 0.01"] and cells["sgd *"] == ["0.6 ± 0.01", "diverged"]
    assert len({len(line) for line in (head, rule, *rows[:4])}) == 1, "columns are aligned"
    assert "32 tasks and 3 seeds" in rows[-1]
    with pytest.raises(ValueError, match="no metric is called 'loss': measured were error"):
        result.table("loss")


def test_a_comparison_is_saved_loaded_drawn_and_made_a_frame(tmp_path):
    result = made(ours=(True, 0.5, 0.2), sgd=(False, 0.6, math.nan))
    path = result.save(tmp_path / "comparison.json")
    assert "NaN" not in path.read_text()
    loaded = Comparison.load(path)
    assert loaded.table() == result.table() and loaded.records[0] == result.records[0]
    frame = result.to_frame()
    assert list(frame["step"]) == [1, 5, 1, 5] and list(frame["mean"])[:2] == [0.5, 0.2]
    assert result.plot(tmp_path / "curve.png") is None and (tmp_path / "curve.png").stat().st_size > 1000
    assert repr(result) == "Comparison(ours, sgd on Waves: 32 tasks, steps 1, 5)"
    path.write_text(json.dumps({"records": 3}))
    for file in (path, tmp_path / "missing.json"):
        with pytest.raises(ValueError, match=r"give a file that Comparison\.save wrote"):
            Comparison.load(file)


def test_a_diverged_method_is_said_to_be():
    result = compare({"wild": Adam(rate=1e30), "ridge": "ridge"}, FAMILY, **SMALL)
    assert np.isnan(means(result, "wild")[1]) and "diverged" in result.table()


def test_the_command_compares_and_writes(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = (
        "compare ridge,maml --family LinearRegression --family.dim 2 --tasks 4 --steps 1,2 --seeds 1 --quiet"
    )
    assert (
        cli.main([*words.split(), "--train.iterations", "2", "--train.tasks", "2", "--plot", "curve.png"])
        == 0
    )
    shown = capsys.readouterr().out
    assert "| squared error" in shown and "| excess risk" in shown and "wrote curve.png" in shown
    result = Comparison.load(tmp_path / "runs" / "compare" / "comparison.json")
    assert result.methods == ["ridge", "maml", "oracle"] and result.steps == [1, 2]
    assert f"{result.table()}\n" in shown


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("ridge --family.dimm 3", "compare has no option --family.dimm: did you mean --family.dim?"),
        ("ridge --family nowhere:Waves", "no module is called 'nowhere'"),
        ("ridge --steps a,b", "--steps wants numbers with commas"),
        ("ridge --scheme Gredy", "did you mean 'Greedy'"),
        ("ridge,nothing", "no method is called 'nothing'"),
        ("ridge --seeds 0", "seeds must be a whole number of at least 1"),
        ("", "methods"),
    ],
)
def test_the_command_refuses_in_one_line(capsys, tmp_path, words, sentence):
    assert cli.main(["compare", *words.split(), "--out", str(tmp_path)] if words else ["compare"]) == 2
    err = capsys.readouterr().err
    assert sentence in err and err.count("\n") == 1


def test_a_users_family(tmp_path):
    """A file of at most 25 lines, in a folder of its own, with nothing but the package on the path."""
    script = shutil.copy(ROOT / "studies" / "house" / "own_family.py", tmp_path)
    assert len(Path(script).read_text().splitlines()) <= 25
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "own_family.py"], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "waves" / "learner.safetensors").exists()
    for text in (
        "own_family:Waves",
        "explicit-both on 64 test tasks of Waves",
        "| explicit-both",
        "| maml",
        "ridge *",
    ):
        assert text in done.stdout
    words = (
        "-m gradatim compare ridge,adam --family own_family:Waves --family.support_rows 40 --tasks 4 --quiet"
    )
    done = subprocess.run(
        [sys.executable, *words.split()], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0 and "4 tasks of Waves, 4 rows a mini-batch" in done.stdout, done.stderr
