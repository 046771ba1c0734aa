"""`gradatim info`: what a file holds of single rows, and with --check whether files are whole."""

import pytest
import torch

from gradatim import LinearRegression, RefinedClassifier, build, save_state
from gradatim.cli import main
from gradatim.files.checkpoint import read, write
from mutants import joined, parts_of, signed, unsigned
from test_damaged_files import table
from test_old_files import copied


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    RefinedClassifier().partial_fit(*table(40)).save(folder / "early")
    RefinedClassifier().partial_fit(*table(300)).save(folder / "table")
    family = LinearRegression(3)
    task = family.sample(2, torch.Generator().manual_seed(0))
    for name in ("ridge", "smoother"):
        learner = build(name, family)
        save_state(folder / name, learner.adapt(task.support, 16), learner)
    write(folder / "run", *read(copied("checkpoint", folder)))
    return folder


def call(capsys, *words):
    """Return the code, what was printed, and the one line of a refusal."""
    code = main([str(word) for word in words])
    printed = capsys.readouterr()
    return code, " ".join(printed.out.split()), printed.err


def test_it_says_how_many_rows_are_stored_as_they_came(capsys, home):
    for name, said in (
        (
            "early",
            "stored rows 40, as they came: they are dropped when the map is fixed stored values the lowest",
        ),
        (
            "table",
            "stored rows none as they came: sums over rows stored values the lowest, the highest and some",
        ),
        ("ridge", "stored rows none as they came"),
        ("smoother", "stored rows 1,024"),
    ):
        code, out, _ = call(capsys, "info", home / name)
        assert code == 0 and said in out, out
    assert "words of categories, the classes" in call(capsys, "info", home / "table")[1]


def test_check_says_of_each_file_whether_it_is_whole(capsys, home, tmp_path):
    names = ("early", "table", "ridge", "run")
    code = main(["info", "--check", *(str(home / name) for name in names)])
    lines = capsys.readouterr().out.splitlines()
    assert code == 0 and len(lines) == 4
    for name, line, end in zip(names, lines, ("it loads", "it loads", "load_state", "it loads"), strict=True):
        assert line.startswith(f"whole: {home / name} (") and end in line
    damaged = bytearray((home / "table").read_bytes())
    damaged[-100] ^= 1
    (tmp_path / "damaged").write_bytes(damaged)
    code = main(["info", "--check", str(tmp_path / "damaged"), str(home / "run"), str(tmp_path / "none")])
    lines = capsys.readouterr().out.splitlines()
    assert code == 2 and [line.split(":")[0] for line in lines] == ["not whole", "whole", "not whole"]
    assert f"{tmp_path / 'damaged'} is damaged: its checksum is not that of its contents" in lines[0]


def test_check_runs_no_code_of_a_checkpoint(capsys, home, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("raise SystemExit('this ran')\n")
    monkeypatch.syspath_prepend(tmp_path)
    header, layouts, body = parts_of((home / "run").read_bytes())
    header["recipe"]["recipe"]["family"]["name"] = "mine:Family"
    (tmp_path / "w").write_bytes(joined(header, layouts, body))
    code, out, _ = call(capsys, "info", "--check", tmp_path / "w")
    assert code == 0 and "mine:Family, which it names, was not imported" in out


@pytest.mark.parametrize("name", ["early", "ridge", "run"])
def test_damaged_files_end_in_one_line(capsys, home, tmp_path, name):
    whole, path = (home / name).read_bytes(), tmp_path / "odd"
    for content in (*unsigned(whole, 30, seed=5), *signed(whole, 120, seed=5)):
        path.write_bytes(content)
        for words in (["info"], ["info", "--check"]):
            code, _, err = call(capsys, *words, path)
            assert code in (0, 2)
            assert err == "" or (err.count("\n") == 1 and str(path) in err), err
