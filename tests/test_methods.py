"""Methods, their names and their options; families and methods of a user's own file."""

import os
import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch

from gradatim.families import LinearClassification, LinearRegression, Sinusoids
from gradatim.family import TaskFamily
from gradatim.methods import MAML, METHODS, Adam, Implicit, Parametric, build, method, name_of, variant
from gradatim.recipes import Recipe, from_json, method_from_json, method_to_json
from gradatim.registry import FAMILIES, Registry, import_class
from gradatim.testing import check_family
from gradatim.testing.options import ignored_options
from gradatim.training.schemes import Greedy, Unrolled

FAMILY = LinearRegression(3, support_rows=20, query_rows=5)


def test_every_option_of_every_method_has_an_effect():
    assert ignored_options() == []


def test_an_ignored_option_is_seen(monkeypatch):
    monkeypatch.setattr(Adam, "build", lambda self, family: build("sgd", family))
    assert ignored_options({"adam": None}) == ["adam.rate"] or ignored_options({"adam": None}) == [
        "adam.hidden",
        "adam.rate",
    ]


@pytest.mark.parametrize("name", METHODS)
def test_a_method_survives_json_and_knows_its_name(name):
    made = method(name)
    assert name_of(made) == name
    assert method_from_json(method_to_json(made)) == made == method_from_json(name)
    assert set(method_to_json(made)) - {"name"} == set(METHODS[name].options)


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("CNP", "conditional-neural-process"),
        ("anp", "attentive-neural-process"),
        ("pfn", "implicit-one-step"),
        ("MAML", "maml"),
        ("r2d2", "closed-form"),
        ("R2-D2", "closed-form"),
        ("fomaml", "first-order-maml"),
        ("meta_sgd", "meta-sgd"),
        ("L-BFGS", "lbfgs"),
        ("gradatim.methods:MAML", "maml"),
    ],
)
def test_aliases_in_any_case(alias, name):
    assert name_of(method(alias)) == name


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("maml", {"width": 8}, "maml has no option 'width'; it has hidden, rate, learnt_rate"),
        ("conditional-neural-process", {"heads": 2}, "no option 'heads'; it has width, tokens, token_width"),
        ("parametric-gradients", {"signal": "both"}, "parametric-gradients has no option 'signal'"),
        ("adam", {"rate": "fast"}, "adam.rate must be a number; got 'fast'"),
        ("bayesian", {"activation": "gelu"}, "bayesian.activation must be 'relu' or 'tanh'; got 'gelu'"),
        ("adm", {}, r"no method is called 'adm': did you mean 'adam'\?"),
        ("nowhere:Mine", {}, "no module is called 'nowhere'"),
        ("gradatim.methods:Mine", {}, "module 'gradatim.methods' has no 'Mine'"),
        ("gradatim.batch:Batch", {}, "gradatim.batch:Batch must be a method"),
        ("gradatim.methods:Method", {}, "must be a method, a concrete subclass of Method"),
        ("gradatim.methods:Method", {}, "which does not define build"),
        ("a b:c", {}, "an import path has the form module:Class"),
    ],
)
def test_unknown_names_and_options_are_refused(name, options, said):
    with pytest.raises(ValueError, match=said):
        method(name, **options)


@pytest.mark.parametrize("family", [LinearRegression, "LinearRegression"])
def test_a_family_is_a_value(family):
    with pytest.raises(ValueError, match=r"a family is a value of a TaskFamily; got .*: make one"):
        build("maml", family)


def test_a_value_is_a_method_too():
    made = Parametric(signal="gradients", width=16)
    assert made == method("parametric-gradients", width=16) == method(made)
    with pytest.raises(ValueError, match="options go with a name"):
        method(made, width=8)
    with pytest.raises(ValueError, match="a method is a name, an import path or a Method; got 3"):
        method(3)
    assert variant(made, "learned-optimizer", rate=0.3).width == 16


def test_an_implicit_state_has_no_learnt_gain():
    gain = type(Implicit().gain)(learnt=True)
    with pytest.raises(ValueError, match="no gain is learnt"):
        Implicit(gain=gain).build(FAMILY)


def test_two_of_one_name_are_refused():
    table = Registry("family", TaskFamily, dict(FAMILIES))
    with pytest.raises(ValueError, match="two of the family table are called 'linear-regression'"):
        table.add("linear-regression", LinearRegression)


def test_a_module_that_fails_is_refused(tmp_path, monkeypatch):
    (tmp_path / "broken_module.py").write_text("raise RuntimeError('no data')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="cannot be imported: RuntimeError: no data"):
        import_class("broken_module:Mine", "family", TaskFamily)


def test_a_class_inside_a_function_is_refused():
    @dataclass(frozen=True, kw_only=True)
    class Inner(LinearRegression):
        pass

    run = Recipe("maml", Inner(dim=3), Unrolled(5, 2))
    with pytest.raises(ValueError, match="Inner is defined inside a function"):
        run.to_json()


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam", "newton", "lbfgs"])
@pytest.mark.parametrize("family", [FAMILY, LinearClassification(3, 3, support_rows=20, query_rows=5)])
def test_unlearnt_methods_fit_networks(name, family):
    learner = build(name, family, hidden=(5,))
    assert learner.predictor.layout.shapes[0][0] == 5
    assert torch.equal(learner.refiner.start, build(name, family, hidden=(5,)).refiner.start)
    task = family.sample(4, torch.Generator().manual_seed(0))
    before = learner.loss(task.query, learner.refiner.init(4)).mean()
    state = learner.adapt(task.support, 5)
    assert learner.loss(task.query, state).mean() < before


def test_sinusoids_keep_the_laws():
    check_family(Sinusoids(support_rows=10, query_rows=5, noise_std=0.1))
    task = Sinusoids().sample(50, torch.Generator().manual_seed(0))
    assert torch.equal(task.query.y, task.truth) and 4 < float(task.query.y.abs().max()) <= 5


def test_maml_learns_the_sinusoids_of_its_paper():
    family, scheme = Sinusoids(support_rows=10, query_rows=20), Unrolled(batch_size=10, horizon=1)
    torch.manual_seed(0)
    learner = MAML(hidden=(40, 40)).build(family)
    optimizer, generator = torch.optim.AdamW(learner.parameters(), 5e-3), torch.Generator().manual_seed(1)
    task = Sinusoids(support_rows=10, query_rows=50).sample(100, torch.Generator().manual_seed(2))
    start = learner.loss(task.query, learner.adapt(task.support, 10)).mean().item()
    for _ in range(300):
        loss = scheme.loss(learner, family.sample(25, generator), generator)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        optimizer.step()
    trained = learner.loss(task.query, learner.adapt(task.support, 10)).mean().item()
    assert start > 3 and trained < 2


OWN = """
from dataclasses import dataclass

import torch

from gradatim import Batch, Recipe, Task, TaskFamily, TrainConfig, train
from gradatim.likelihood import SquaredError
from gradatim.training.schemes import Greedy


@dataclass(frozen=True, kw_only=True)
class Slopes(TaskFamily):
    x_dim = 1
    likelihood = SquaredError(1)

    def sample(self, n_tasks, generator):
        x = torch.randn(n_tasks, self.support_rows + self.query_rows, 1, generator=generator)
        rows = Batch(x, x * torch.randn(n_tasks, 1, 1, generator=generator))
        return Task(rows.slice(0, self.support_rows), rows.slice(self.support_rows, rows.n_rows))


if __name__ == "__main__":
    run = Recipe("parametric-both", Slopes(), Greedy(batch_size=4, horizon=2), TrainConfig(iterations=3))
    train(run.learner(), run.family, run.scheme, run.train, "run", {"recipe": run.to_json()}, progress=False)
"""


def test_a_family_of_a_users_file(tmp_path):
    """It trains in a script, and the command line shows, evaluates and trains it, in the folder of the file."""
    folder, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    folder.mkdir(), elsewhere.mkdir()
    (folder / "slopes.py").write_text(OWN.lstrip())
    assert len(OWN.strip().splitlines()) <= 25

    def call(*words, cwd=folder, **env):
        done = subprocess.run(
            [sys.executable, *words], cwd=cwd, capture_output=True, text=True, env={**os.environ, **env}
        )
        return done.returncode, done.stdout + done.stderr

    assert call("slopes.py")[0] == 0
    cli = ("-c", "import sys; from gradatim.cli import main; sys.path.remove(''); sys.exit(main())")
    code, out = call(*cli, "info", "run")
    assert code == 0 and "slopes:Slopes" in out
    code, out = call(*cli, "eval", "run", "--steps", "1,2", "--tasks", "3")
    assert code == 0 and "parametric-both on 3 test tasks of Slopes" in out
    options = ("--train.iterations", "1", "--family.support_rows", "200", "--out", "again", "--quiet")
    code, out = call(
        *cli,
        "train",
        "linear",
        "--method",
        "MAML",
        "--family",
        "slopes:Slopes",
        "--scheme",
        "Unrolled",
        *options,
    )
    assert code == 0 and "maml on Slopes" in out
    code, out = call(*cli, "info", str(folder / "run"), cwd=elsewhere)
    assert code == 0 and "slopes:Slopes" in out
    code, out = call(*cli, "eval", str(folder / "run"), cwd=elsewhere)
    assert code == 2 and "no module is called 'slopes'" in out and "PYTHONPATH" in out
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    code, out = call(*cli, "eval", str(folder / "run"), "--tasks", "2", cwd=elsewhere, PYTHONPATH=path)
    assert code == 0 and "test tasks of Slopes" in out


def test_recipes_take_names_and_values():
    named, made = (Recipe(m, FAMILY, Greedy(5, 2)) for m in ("MAML", MAML()))
    assert named == made and from_json(named.to_json()) == named and named.name == "maml"
    assert from_json({**named.to_json(), "method": "maml"}) == named
