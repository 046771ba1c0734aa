"""What pyproject.toml says of versions, extras and the source archive holds."""

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]
MODULES = {"causal-learn": "causallearn"}  # where a package is imported by another name
LARGE = 200_000  # bytes


def floors(requirements):
    """Return the lowest version of each requirement by the package's name."""
    pairs = (re.match(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", requirement) for requirement in requirements)
    return {pair[1]: tuple(map(int, pair[2].split("."))) for pair in pairs if pair}


def test_the_floors_are_those_that_are_tested():
    lines = (ROOT / "constraints-lowest.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line)
    needed = floors([*PROJECT["dependencies"], *EXTRAS["data"]])
    assert needed.keys() <= pins.keys() and "torch" in needed
    for name, floor in needed.items():
        pinned = tuple(map(int, pins[name].split(".")))
        # PyPI has no build of an older torch for CPUs alone.
        assert pinned[: len(floor)] == floor or name == "torch", name


@pytest.mark.parametrize("extra", sorted(set(EXTRAS) - {"all", "dev"}))
def test_an_extra_exists_only_while_code_uses_it(extra):
    files = [*(ROOT / "src").rglob("*.py"), *(ROOT / "studies").rglob("*.py")]
    code = "\n".join(file.read_text(encoding="utf-8") for file in files)
    for name in floors(EXTRAS[extra]):
        assert re.search(rf"(import|from) [\w.]*{MODULES.get(name, name)}\b", code), name
    assert extra in re.search(r"\[(.*)\]", EXTRAS["all"][0])[1].split(",")


def test_large_records_stay_out_of_the_source_archive():
    excluded = PYPROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["exclude"]
    for file in (ROOT / "docs" / "results").iterdir():
        if file.suffix in (".json", ".zip") and file.stat().st_size > LARGE:
            place = f"/{file.relative_to(ROOT).as_posix()}"
            assert any(fnmatch(place, pattern) for pattern in excluded), f"{place}: exclude it"
