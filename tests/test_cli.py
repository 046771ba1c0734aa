"""The command line: exit codes and one-line refusals, runs their record reproduces, numbers the library confirms."""

import json
import subprocess
import sys
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

import gradatim
from gradatim import cli
from gradatim.commands import options, train
from gradatim.families import LinearRegression
from gradatim.files.checkpoint import load_weights, read, write
from gradatim.methods import METHODS, build, method, name_of
from gradatim.metrics import curve, error_rate, excess_risk, squared_error
from gradatim.recipes import RECIPES, from_json, rebuild, recipe
from gradatim.refiners import Gain
from gradatim.registry import FAMILIES
from gradatim.training.log import Log
from gradatim.training.states import save_state

TINY = "--method.width 8 --method.layers 1 --train.tasks 2 --train.log_every 1 --train.checkpoint_every 2 --quiet"
LINEAR = f"{TINY} --family.dim 3 --scheme.batch_size 4 --scheme.horizon 2 --train.iterations 6".split()
DIGITS = f"{TINY} --family.dim 4 --scheme.batch_size 20 --scheme.horizon 2 --train.iterations 2".split()


def call(capsys, *arguments) -> tuple[int, str, str]:
    """Run main in this process; return its exit code and what it said."""
    capsys.readouterr()
    code = cli.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def refusal(capsys, *arguments) -> str:
    """Run main, which must refuse: exit code 2, nothing on stdout, one line on stderr; return the line."""
    code, out, err = call(capsys, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("gradatim: ") and "Traceback" not in err
    return err


def same_tensors(one: Path, other: Path) -> bool:
    """Return whether two files hold the same tensors, bit for bit."""
    a, b = read(one)[0], read(other)[0]
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def recipe_of(*arguments: str):
    parser = cli.COMMANDS["train"].parser("train", list(arguments))
    return train.recipe_from_options(options.parse(parser, list(arguments)))


@pytest.fixture(scope="module")
def linear(tmp_path_factory) -> Path:
    """A tiny trained run of linear regression."""
    out = tmp_path_factory.mktemp("runs") / "linear"
    assert cli.main(["train", "linear", *LINEAR, "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    """A tiny trained run of image classification."""
    out = tmp_path_factory.mktemp("runs") / "digits"
    assert cli.main(["train", "digits", *DIGITS, "--out", str(out)]) == 0
    return out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("trian digits", "did you mean train?"),
        ("--versoin", "did you mean --version?"),
        ("train", "required: recipe"),
        ("train digist", "'digits'"),
        ("train nowhere/run.json", "cannot be read"),
        ("train linear --train.iters 3", "did you mean --train.iterations?"),
        ("train linear --train.iterations=x", "--train.iterations wants a whole number, such as 1000; got x"),
        ("train linear --train.clip x", "--train.clip wants float or null; got x"),
        ("train linear --method.curvature 3", "wants an object with fields of Gain or null; got 3"),
        ("train linear --train.lr 0", "lr must be above 0; got 0"),
        ("train linear --method parametric-bth", "'parametric-both'"),
        ("train linear --scheme.name Unroled", "'Unrolled'"),
        ("train linear --family.name LinearClasification", "'LinearClassification'"),
        ("train linear --method sgd", "nothing to meta-train"),
        ("train linear --method implicit-one-step", "--scheme.horizon 1"),
        ("train linear digits", "digits"),
        ("eval", "required: checkpoint"),
        ("predict rows.csv --state task.safetensors", "required: --out"),
        ("eval nowhere", "cannot be read"),
        ("eval . --step 3", "did you mean --steps?"),
        (
            "eval . --split tset",
            "--split must be one of train, validation, test; got 'tset': did you mean test?",
        ),
        ("eval . --seed -1", "--seed must be at least 0; got -1"),
        ("eval . --tasks 0", "--tasks must be at least 1; got 0"),
        ("info nowhere", "cannot be read"),
    ],
)
def test_a_wrong_call_ends_in_one_line(capsys, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert said in refusal(capsys, *arguments.split())
    assert list(tmp_path.iterdir()) == []


def test_an_impossible_batch_size_is_refused(capsys, linear):
    assert "--batch-size must be at least 1; got 0" in refusal(capsys, "eval", linear, "--batch-size", "0")


def test_an_impossible_recipe_writes_nothing(capsys, tmp_path):
    out = tmp_path / "run"
    line = refusal(capsys, "train", "linear", *LINEAR, "--method.heads", "3", "--out", out)
    assert "heads" in line and not out.exists()


def test_a_file_that_is_no_recipe_is_refused(capsys, tmp_path):
    file = tmp_path / "mine.json"
    for text, said in (("{", "in JSON"), ("[]", "no recipe"), ('{"method": "adam"}', "no recipe")):
        file.write_text(text)
        assert said in refusal(capsys, "train", file)
    value = recipe("linear").to_json()
    value["train"]["lrr"] = 3
    file.write_text(json.dumps(value))
    assert "'lr'" in refusal(capsys, "train", file)


@pytest.mark.parametrize(
    ("part", "field", "came", "said"),
    [
        ("train", "lr", "fast", "train.lr must be a number; got 'fast'"),
        ("scheme", "batch_size", 2.5, "scheme.batch_size must be a whole number; got 2.5"),
        ("method", "gain", 1.0, "method.gain must be an object, the fields of Gain; got 1.0"),
    ],
)
def test_values_of_another_type_in_a_recipe_are_refused(capsys, tmp_path, part, field, came, said):
    file, value = tmp_path / "mine.json", recipe("linear").to_json()
    value[part][field] = came
    file.write_text(json.dumps(value))
    assert said in refusal(capsys, "train", file, "--out", tmp_path / "run")
    file.write_text(json.dumps(recipe("linear").to_json() | {"family": 3}))
    assert "family must be an object" in refusal(capsys, "train", file, "--family.name", "LinearRegression")
    assert not (tmp_path / "run").exists()


def test_a_folder_below_a_file_ends_in_one_line(capsys, tmp_path, linear):
    file = tmp_path / "file"
    file.write_text("mine")
    calls = (
        ["demo", "--smoke"],
        ["train", "linear", *LINEAR],
        ["eval", linear, "--steps", "1", "--tasks", "2"],
    )
    for arguments in calls:
        code, _, err = call(capsys, *arguments, "--out", file / "below")
        assert (code, err.count("\n")) == (2, 1), err
        assert err.startswith("gradatim: ") and "ot a directory" in err and str(file) in err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device", "here"), OSError("odd")])
def test_an_error_of_the_system_ends_in_one_line(capsys, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setitem(cli.COMMANDS, "list", replace(cli.COMMANDS["list"], run=fail))
    wanted = "here: No space left on device" if error.filename else "odd"
    assert refusal(capsys, "list") == f"gradatim: {wanted}\n"
    with pytest.raises(OSError):
        cli.main(["list", "--debug"])


def test_processes_that_would_all_write_one_folder_are_refused(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    line = refusal(capsys, "train", "linear", *LINEAR, "--out", tmp_path / "run")
    assert "--devices 2" in line and not (tmp_path / "run").exists()


def test_a_broken_checkpoint_is_refused(capsys, tmp_path, linear):
    whole = (linear / "learner.safetensors").read_bytes()
    broken = tmp_path / "broken.safetensors"
    for content, said in (
        (whole[:-1], "truncated"),
        (whole[:100], "truncated"),
        (whole[:4], "truncated"),
        (b"", "truncated"),
        (b"PK\x03\x04 a foreign file", "not a file of gradatim"),
        (whole.replace(b'gradatim_format\\": 2', b'gradatim_format\\": 7'), "version 7"),
    ):
        broken.write_bytes(content)
        for command in ("eval", "info"):
            assert said in refusal(capsys, command, broken)
    write(broken, {"weights.a": torch.ones(1)}, {"kind": "checkpoint"})
    assert "no recipe" in refusal(capsys, "eval", broken)
    assert call(capsys, "info", broken)[0] == 0
    assert "no checkpoint" in refusal(capsys, "eval", tmp_path)


def test_a_state_is_no_learner(capsys, tmp_path):
    learner = build("ridge", LinearRegression(6))
    path = save_state(tmp_path / "state.safetensors", learner.refiner.init(3), learner)
    assert "expected a checkpoint" in refusal(capsys, "eval", path)
    code, out, _ = call(capsys, "info", path)
    assert code == 0 and "state, format version 2" in out and "[3, 6, 6]" in out


def test_a_folder_with_a_run_is_left_alone(capsys, linear):
    before = {file.name: file.read_bytes() for file in linear.iterdir()}
    assert "--resume" in refusal(capsys, "train", "linear", *LINEAR, "--out", linear)
    line = refusal(capsys, "train", "linear", *LINEAR, "--train.lr", "1", "--out", linear, "--resume")
    assert "config.lr" in line
    assert {file.name: file.read_bytes() for file in linear.iterdir()} == before


def test_debug_keeps_the_traceback(monkeypatch):
    with pytest.raises(ValueError, match="nowhere"):
        cli.main(["info", "nowhere", "--debug"])
    monkeypatch.setenv("GRADATIM_DEBUG", "1")
    with pytest.raises(ValueError, match="nowhere"):
        cli.main(["info", "nowhere"])


def test_python_m_gradatim(tmp_path):
    """The module runs; its exit code is main's; help is quick, for torch is not imported."""
    call = [sys.executable, "-m", "gradatim", "tarin"]
    done = subprocess.run(call, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "gradatim: no command is called 'tarin': did you mean train?\n"
    code = "import sys; from gradatim.cli import main; main(['--help']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and all(name in done.stdout for name in cli.COMMANDS)


@pytest.mark.parametrize("name", RECIPES)
def test_without_options_a_recipe_is_itself(name):
    assert recipe_of(name) == recipe(name)


def test_options_change_what_they_name(tmp_path):
    words = (
        "--train.iterations 7 --train.clip None --train.betas [0.5,0.9] --method.gain.power=0.5 --devices 2"
    )
    base = recipe("digits")
    got = recipe_of("--quiet", *words.split(), "digits", "--family.dim", "16", "--method", "explicit-both")
    gain = replace(base.method.gain, power=0.5)
    asked = replace(base.train, iterations=7, clip=None, betas=(0.5, 0.9), devices=2)
    family = replace(base.family, dim=16)
    assert got == replace(base, method=method("explicit-both", gain=gain), family=family, train=asked)
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(got.to_json()))
    assert recipe_of(str(file)) == got


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("linear --method.curvature.power 0.5", Gain(0.5, 1.0)),
        ("linear --method.curvature.power=0.5 --method.curvature.value 0.3", Gain(0.5, 0.3)),
        ("mnist --method.curvature.value 0.3", Gain(1.0, 0.3)),
        ('linear --method.curvature {"power":0.5}', Gain(0.5, 1.0)),
        ("mnist --method.curvature None", None),
    ],
)
def test_a_field_that_may_be_none_has_options_of_its_own(words, wanted):
    assert recipe_of(*words.split()).method.curvature == wanted


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--method.curvature.powr 0.5", "did you mean --method.curvature.power?"),
        ("--method.curvature.power x", "--method.curvature.power wants float; got x: see gradatim train"),
        ("--method.curvature.power 2", r"power in \[0, 1\] and prior >= 0; got value 1.0, power 2"),
    ],
)
def test_a_wrong_value_of_such_an_option_is_named(words, said):
    with pytest.raises(ValueError, match=said) as error:
        recipe_of("linear", *words.split())
    assert "\n" not in str(error.value)


def test_another_kind_keeps_common_fields():
    words = (
        "--scheme.name Unrolled --scheme.truncation 3 --family.name LinearClassification --family.classes 5"
    )
    base, got = recipe("linear"), recipe_of("linear", *words.split())
    assert (type(got.scheme).__name__, got.scheme.truncation) == ("Unrolled", 3)
    assert got.scheme.batch_size == base.scheme.batch_size
    assert (got.family.classes, got.family.dim) == (5, base.family.dim)


def test_help_shows_every_field_with_its_default(capsys):
    code, out, _ = call(capsys, "train", "digits", "--help")
    said, base = " ".join(out.split()), recipe("digits")

    def walk(prefix, value):
        fixed = METHODS[name_of(value)].fixed if prefix == "method" else ()
        for field in fields(value):
            if field.name in fixed or not field.metadata.get("option", True):
                continue
            inner = getattr(value, field.name)
            if is_dataclass(inner):
                walk(f"{prefix}.{field.name}", inner)
                continue
            entries = [text.split(" --")[0] for text in said.split(f"--{prefix}.{field.name} ")[1:]]
            default = f"default: {'null' if inner is None else inner})"
            assert any(default in entry for entry in entries), field.name

    for part in train.PARTS:
        walk(part, getattr(base, part))
    assert code == 0 and "largest gradient norm" in said


def test_every_command_teaches_by_an_example(capsys):
    for name, command in cli.COMMANDS.items():
        code, out, _ = call(capsys, name, "--help")
        assert code == 0 and command.example in " ".join(out.split())
        assert command.example.startswith(f"gradatim {name}")
    assert call(capsys)[1] == call(capsys, "--help")[1]
    assert call(capsys, "--version")[:2] == (0, f"gradatim {gradatim.__version__}\n")


def test_list_names_every_row(capsys):
    code, out, _ = call(capsys, "list")
    first = {line.split()[0] for line in out.splitlines() if line.strip()}
    assert code == 0 and {*METHODS, *FAMILIES, *RECIPES} <= first
    assert max(map(len, out.splitlines())) <= 100


def test_a_run_says_what_it_wrote(capsys, tmp_path):
    out = tmp_path / "run"
    code, said, err = call(capsys, "train", "linear", *LINEAR, "--out", out)
    files = [Path(line.removeprefix("wrote ")) for line in said.splitlines() if line.startswith("wrote ")]
    assert code == 0 and err == ""
    assert {"run.json", "learner.safetensors", "log.jsonl"} <= {file.name for file in files}
    assert all(file.is_file() and file.parent == out for file in files)
    run = json.loads((out / "run.json").read_text())
    assert run["gradatim"] == gradatim.__version__ and run["torch"] == torch.__version__
    assert run["threads"] == torch.get_num_threads() == run["recipe"]["train"]["threads"]
    assert read(out / "learner.safetensors")[1]["recipe"] == run


def test_run_json_says_the_threads_of_the_run(capsys, tmp_path):
    threads, out = torch.get_num_threads() + 1, tmp_path / "run"
    words = [*LINEAR, "--train.iterations", "1", "--train.threads", threads]
    assert call(capsys, "train", "linear", *words, "--out", out)[0] == 0
    record = json.loads((out / "run.json").read_text())
    assert record["threads"] == record["recipe"]["train"]["threads"] == threads
    assert read(out / "learner.safetensors")[1]["recipe"] == record


def test_the_same_call_gives_the_same_bits(tmp_path, linear):
    torch.manual_seed(123)
    before = torch.get_rng_state()
    assert cli.main(["train", "linear", *LINEAR, "--out", str(tmp_path / "again")]) == 0
    assert torch.equal(torch.get_rng_state(), before)
    assert same_tensors(tmp_path / "again/learner.safetensors", linear / "learner.safetensors")


def test_the_seed_decides_the_first_weights():
    made = (recipe_of("linear", f"--train.seed={s}").learner() for s in (0, 0, 1))
    first, again, other = (torch.cat([p.flatten() for p in learner.parameters()]) for learner in made)
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_run_json_reproduces_the_run(capsys, tmp_path, linear):
    for number, source in enumerate((linear / "run.json", linear)):
        out = tmp_path / str(number)
        assert call(capsys, "train", source, "--quiet", "--out", out)[0] == 0
        assert same_tensors(out / "learner.safetensors", linear / "learner.safetensors")
        assert json.loads((out / "run.json").read_text()) == json.loads((linear / "run.json").read_text())


def test_an_interrupted_run_goes_on_bit_for_bit(capsys, tmp_path, monkeypatch, linear):
    out, add = tmp_path / "cut", Log.add

    def interrupted(self, record):
        if record["iteration"] == 5:
            raise KeyboardInterrupt
        add(self, record)

    monkeypatch.setattr(Log, "add", interrupted)
    code, said, err = call(capsys, "train", "linear", *LINEAR, "--out", out)
    assert (code, said, err.count("\n")) == (130, "", 1) and "--resume" in err
    assert not (out / "learner.safetensors").exists()
    monkeypatch.undo()
    record = (out / "run.json").read_bytes()
    assert call(capsys, "train", out, "--quiet", "--resume")[0] == 0
    assert (out / "run.json").read_bytes() == record
    last = "step-00000006.safetensors"
    assert same_tensors(out / last, linear / last)
    assert same_tensors(out / "learner.safetensors", linear / "learner.safetensors")


def rows(text: str) -> list[list[str]]:
    """Return the cells of a table's lines of numbers."""
    cut = (line.replace("[", " ").replace("]", " ").replace(",", " ").split() for line in text.splitlines())
    return [line for line in cut if line and line[0].isdecimal()]


def test_eval_equals_the_library(capsys, tmp_path, digits):
    file, steps = tmp_path / "eval.json", [1, 3]
    words = ["--steps", "3,1", "--tasks", "5", "--batch-size", "20", "--seed", "4"]
    code, out, _ = call(capsys, "eval", digits, *words, "--out", file)
    run = from_json(json.loads((digits / "run.json").read_text())["recipe"])
    learner = run.learner()
    load_weights(learner, digits / "learner.safetensors")
    family = replace(run.family, split="test", support_rows=60)
    task = family.sample(5, torch.Generator().manual_seed(4))
    wanted = curve(learner.eval(), task, 20, steps, {"error": error_rate})["error"]
    result = json.loads(file.read_text())
    assert code == 0 and f"wrote {file}" in out
    assert [r["mean"] for r in result["records"]] == [float(w.mean()) for w in wanted]
    for record, per_task in zip(result["records"], wanted, strict=True):
        assert per_task.min() <= record["low"] <= record["mean"] <= record["high"] <= per_task.max()
        assert record["seed"] == run.train.seed and record["rows"] == 20 * record["steps"]
    for cells, step, per_task in zip(rows(out), steps, wanted, strict=True):
        assert cells[:3] == [str(step), str(20 * step), f"{per_task.mean():.3g}"]
        assert cells[-1] == f"{1 - per_task.mean():.3f}"
    assert from_json(result["recipe"]) == run


def test_eval_of_a_regression_stands_beside_the_oracle(capsys, tmp_path, linear):
    file = tmp_path / "eval.json"
    assert call(capsys, "eval", linear, "--steps", "2,8", "--tasks", "6", "--out", file)[0] == 0
    records = json.loads(file.read_text())["records"]
    found = {(r["method"], r["metric"], r["steps"]): r["mean"] for r in records}
    run = from_json(read(linear / "learner.safetensors")[1]["recipe"]["recipe"])
    family = replace(run.family, support_rows=32)
    task = family.sample(6, torch.Generator().manual_seed(0))
    risk = excess_risk(family.oracle(task, 8), task).numpy()
    np.testing.assert_allclose(found["oracle", "excess risk", 2], risk.mean(), rtol=1e-6)
    assert found["oracle", "excess risk", 8] < found["oracle", "excess risk", 2]
    learner = run.learner()
    load_weights(learner, linear / "learner.safetensors")
    direct = curve(learner.eval(), task, 4, [2, 8], {"squared error": squared_error})["squared error"]
    got = [found[run.name, "squared error", step] for step in (2, 8)]
    np.testing.assert_allclose(got, direct.mean(axis=1), rtol=1e-6)


def test_eval_of_ragged_tasks_has_the_rows_it_reports(capsys, tmp_path, linear):
    out = tmp_path / "ragged"
    words = [*LINEAR, "--family.min_support_rows", "8", "--train.iterations", "1"]
    assert call(capsys, "train", "linear", *words, "--out", out)[0] == 0
    file = tmp_path / "eval.json"
    assert call(capsys, "eval", out, "--steps", "1,4", "--tasks", "5", "--out", file)[0] == 0
    records = json.loads(file.read_text())["records"]
    run = from_json(read(out / "learner.safetensors")[1]["recipe"]["recipe"])
    family = replace(run.family, support_rows=16, min_support_rows=None)
    task = family.sample(5, torch.Generator().manual_seed(0))
    assert task.support.rows.tolist() == [16] * 5
    risk = excess_risk(family.oracle(task, 16), task).numpy().mean()
    (got,) = [r for r in records if r["method"] == "oracle" and r["steps"] == 4]
    assert got["rows"] == 16
    np.testing.assert_allclose(got["mean"], risk, rtol=1e-6)


def test_eval_judges_in_the_trained_precision(capsys, tmp_path):
    out = tmp_path / "double"
    words = [*LINEAR, "--train.precision", "64-true", "--train.iterations", "1"]
    assert call(capsys, "train", "linear", *words, "--out", out)[0] == 0
    learner, _, _ = rebuild(out / "learner.safetensors")
    tensors, _ = read(out / "learner.safetensors")
    assert {p.dtype for p in learner.parameters()} == {torch.float64}
    assert all(torch.equal(tensors[f"weights.{name}"], p) for name, p in learner.named_parameters())
    assert call(capsys, "eval", out, "--steps", "1", "--tasks", "2")[0] == 0


def test_info_counts(capsys, linear):
    path = linear / "learner.safetensors"
    code, out, _ = call(capsys, "info", path)
    run = from_json(read(path)[1]["recipe"]["recipe"])
    count = sum(p.numel() for p in run.learner().parameters())
    said = dict(line.split(None, 1) for line in out.splitlines() if len(line.split()) > 1)
    assert code == 0 and said["parameters"].startswith(f"{count:,} in ")
    assert said["iterations"].strip() == "6" and said["method"].strip() == run.name
    assert f"{path.stat().st_size / 1000:.1f} kB" in said["size"]


def test_help_texts_come_from_either_form_of_a_docstrings_fields():
    class Base:
        """Words.

        Fields: `low`, `high`: bounds; `size` of a step (None: any).

        More words.
        """

    class Listed(Base):
        """Words.

        Fields:
            `low`: the lower bound. None: any.
            `width`, `depth`: sizes
                of a network.

        `other`: no field.
        """

    assert options.field_texts(Base) == {
        "low": "bounds",
        "high": "bounds",
        "size": "size of a step (None: any)",
    }
    listed = {
        "low": "the lower bound. None: any",
        "width": "sizes of a network",
        "depth": "sizes of a network",
    }
    assert options.field_texts(Listed) == options.field_texts(Base) | listed


@dataclass(frozen=True)
class Last:
    weight: float

    def __call__(self, learner, task, losses):
        return self.weight * losses[-1].mean()


def test_options_leave_the_penalties_of_a_recipe(tmp_path):
    run = recipe("linear")
    run = replace(run, scheme=replace(run.scheme, penalties=(Last(0.1),)))
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(run.to_json()))
    changed = recipe_of(str(path), "--scheme.batch_size", "4")
    assert changed.scheme == replace(run.scheme, batch_size=4)


def test_a_file_of_the_current_folder_stands_in_for_no_module_of_python(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    assert call(capsys, "list")[0] == 0
    assert sys.path[-1] == str(tmp_path) and sys.path.count(str(tmp_path)) == 1


@pytest.mark.parametrize("word", ["?", "1:30", "0x10", "1_0", "1e3", "\uff11", "1.0"])
def test_a_whole_number_is_one_as_it_stands(word, capsys):
    assert cli.main(["fit", "rows.csv", "--target", "y", "--state", "s", f"--batch-size={word}"]) == 2
    assert f"--batch-size wants a whole number, such as 1000; got {word}:" in capsys.readouterr().err
