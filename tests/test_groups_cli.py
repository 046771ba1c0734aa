"""Groups on the command line: learnt, merged, forgotten, described and drawn."""

import numpy as np
import pytest
from tests.grouped_tables import table

from gradatim import GroupedClassifier, GroupedRegressor


@pytest.fixture(scope="module")
def model():
    return GroupedRegressor().fit(*table())


@pytest.fixture(scope="module")
def classifier():
    X, y, group = table(seed=1)
    return GroupedClassifier().fit(X, np.where(y > 0, "yes", "no"), group)


def test_files_on_the_command_line(tmp_path, monkeypatch, capsys):
    from gradatim.cli import main

    monkeypatch.chdir(tmp_path)
    X, y, group = table(n_groups=12)
    lines = [f"{x[0]:.4f},{t:.4f},shop {g}" for x, t, g in zip(X, y, group, strict=True)]
    (tmp_path / "sales.csv").write_text("\n".join(["size,y,store", *lines, "1.0,2.0,"]) + "\n")
    (tmp_path / "more.csv").write_text("size,y,store\n1.0,9.0,new\n0.0,8.0,new\n")
    fit = ["fit", "sales.csv", "--target", "y", "--group", "store", "--state", "s.safetensors", "--quiet"]
    assert main(fit) == 0
    assert "1 row without 'store' skipped" in capsys.readouterr().out
    assert main(["update", "more.csv", "--state", "s.safetensors", "--quiet"]) == 0
    assert "182 rows of 13 groups" in capsys.readouterr().out
    predict = ["predict", "more.csv", "--state", "s.safetensors", "--out", "p.csv", "--quantiles", "0.1,0.9"]
    assert main([*predict, "--quiet"]) == 0
    written = (tmp_path / "p.csv").read_text().splitlines()
    assert written[0] == "store,prediction,quantile_0.1,quantile_0.9"
    model = GroupedRegressor.load("s.safetensors")
    np.testing.assert_allclose(float(written[1].split(",")[1]), model.predict([{"size": 1.0}], ["new"])[0])
    assert main(["info", "s.safetensors"]) == 0
    assert "none as they came" in capsys.readouterr().out
    assert main(["info", "--check", "s.safetensors"]) == 0
    capsys.readouterr()
    assert main([*fit[:-1], "--force", "--classes", "a,b"]) == 2
    assert "--group does not go with --classes" in capsys.readouterr().err
    assert main([*fit[:5], "stor", *fit[6:], "--force"]) == 2
    assert "no column is called that" in capsys.readouterr().err


def test_states_in_files_are_merged_and_forget(tmp_path, monkeypatch, capsys):
    from gradatim.cli import main

    monkeypatch.chdir(tmp_path)
    X, y, group = table(n_groups=12)
    lines = [f"{x[0]:.4f},{t:.4f},shop {g}" for x, t, g in zip(X, y, group, strict=True)]
    for name, part in (
        ("base", lines),
        ("north", lines[:60]),
        ("south", lines[40:]),
        ("odd", ["1.0,77,shop 3"]),
    ):
        (tmp_path / f"{name}.csv").write_text("\n".join(["size,y,store", *part]) + "\n")

    def run(line, code=0):
        assert main([*line.split("|"), *(["--quiet"] if line[:4] not in ("merg", "info") else [])]) == code
        out = capsys.readouterr()
        return out.out if code == 0 else out.err

    run("fit|base.csv|--target|y|--group|store|--state|base.st")
    for part in ("north", "south"):
        run(f"fit|{part}.csv|--map|base.st|--state|{part}.st")
    assert "200 rows of 12 groups known" in run("merge|north.st|south.st|--out|both.st")
    frame = [{"size": 1.0}] * 12
    names = [f"shop {g}" for g in range(12)]
    base = GroupedRegressor.load("base.st")
    whole = base.fork()
    for start, stop in ((0, 60), (40, 180)):
        x = [{"size": float(line.split(",")[0])} for line in lines[start:stop]]
        stores = [line.split(",")[2] for line in lines[start:stop]]
        whole.partial_fit(x, [float(line.split(",")[1]) for line in lines[start:stop]], stores)
    both = GroupedRegressor.load("both.st")
    np.testing.assert_allclose(both.predict(frame, names), whole.predict(frame, names), atol=1e-9)
    assert "would count twice" in run("merge|north.st|north.st|--out|x.st", 2)
    assert "rows that are not counted yet" in run("merge|both.st|south.st|--out|x.st", 2)
    run("fit|north.csv|--target|y|--group|store|--state|other.st")
    assert "north.st cannot be merged: merging needs one prior" in run(
        "merge|north.st|other.st|--out|x.st", 2
    )
    assert "leave --weigh out" in run("merge|north.st|south.st|--weigh|north.csv|--out|x.st", 2)
    assert "has decided --target" in run("fit|north.csv|--map|base.st|--target|y|--state|x.st", 2)
    assert not (tmp_path / "x.st").exists()

    assert "60 rows forgotten" in run("forget|north.csv|--state|both.st")
    south = GroupedRegressor.load("south.st")
    both = GroupedRegressor.load("both.st")
    np.testing.assert_allclose(both.predict(frame, names), south.predict(frame, names), atol=1e-8)
    run("forget|--group|shop 3|--state|both.st")
    assert "shop 3" not in GroupedRegressor.load("both.st").groups_
    before = (tmp_path / "both.st").read_bytes()
    assert "knows no such group" in run("forget|--group|shop 3|--state|both.st", 2)
    assert "odd.csv, rows 1 to 1: some of these rows were never" in run("forget|odd.csv|--state|both.st", 2)
    assert "nothing is named" in run("forget|--state|both.st", 2)
    assert (tmp_path / "both.st").read_bytes() == before
    said = run("info|south.st")
    assert "beyond the pooled model" in said and "█" in said
    assert "level" in run("info|--plot|a.png|--column|nothing|south.st", 2)


def test_weights_in_files_are_those_of_rows(tmp_path, monkeypatch, capsys):
    from gradatim.cli import main

    monkeypatch.chdir(tmp_path)
    X, y, group = table(n_groups=12)
    lines = [f"{x[0]:.4f},{t:.4f},{g},{n % 3}" for n, (x, t, g) in enumerate(zip(X, y, group, strict=True))]
    (tmp_path / "sales.csv").write_text("\n".join(["size,y,store,count", *lines]) + "\n")
    fit = ["fit", "sales.csv", "--target", "y", "--group", "store", "--weight", "count", "--quiet"]
    assert main([*fit, "--state", "s.safetensors"]) == 0
    assert "60 rows of weight 0 skipped" in capsys.readouterr().out
    model = GroupedRegressor.load("s.safetensors")
    assert model.feature_names_in_.tolist() == ["size"]
    assert model.state_.rows().sum() == 180
    assert main(["update", "sales.csv", "--state", "s.safetensors", "--quiet"]) == 0
    assert GroupedRegressor.load("s.safetensors").state_.rows().sum() == 360
    capsys.readouterr()
    for name in ("007", "+7", "٧"):  # a group is meant as it is written
        assert main(["forget", "--group", name, "--state", "s.safetensors"]) == 2
        assert "knows no such group" in capsys.readouterr().err
    assert main(["forget", "--group", "7", "--state", "s.safetensors"]) == 0
    assert 7 not in GroupedRegressor.load("s.safetensors").groups_


def test_a_picture_of_effects(model, tmp_path):
    pytest.importorskip("matplotlib")
    assert model.plot_effects(tmp_path / "effects.png") is None
    assert (tmp_path / "effects.png").stat().st_size > 1000
    with pytest.raises(ValueError, match="column must be one of level"):
        model.plot_effects(tmp_path / "effects.png", "nothing")


def test_other_commands_say_that_these_are_groups(model, tmp_path):
    from gradatim import RefinedRegressor

    with pytest.raises(ValueError, match="holds a state of groups, expected a state"):
        RefinedRegressor.load(model.save(tmp_path / "state.safetensors"))
