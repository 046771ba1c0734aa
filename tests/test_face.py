"""`import gradatim`: quick, without side effects, and every public name behind it."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import gradatim
from gradatim.registry import FAMILIES, SCHEMES

ROOT = Path(__file__).parents[1]


def test_the_face_is_lazy_and_whole():
    code = "import sys, gradatim; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    tree = ast.parse(Path(gradatim.__file__).read_text())
    (typed,) = (node for node in tree.body if isinstance(node, ast.If))
    for_types = set()
    for node in typed.body:
        assert isinstance(node, ast.Import | ast.ImportFrom)
        home = node.module if isinstance(node, ast.ImportFrom) else ""
        for_types |= {(home, alias.name.removeprefix("gradatim.")) for alias in node.names}
    assert for_types == {(home, name) for name, home in gradatim._HOME.items()}
    assert {name for _, name in for_types} == set(gradatim.__all__) <= set(dir(gradatim))
    assert all(getattr(gradatim, name) is not None for name in gradatim.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = gradatim.nothing


def test_every_shipped_family_and_scheme_is_a_public_name():
    assert {*FAMILIES, *SCHEMES} <= set(gradatim.__all__)
    assert (
        len(gradatim.__all__) == len(set(gradatim.__all__)) and gradatim.methods.METHODS is gradatim.METHODS
    )


def test_the_version_is_said_once():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project.get("version", gradatim.__version__) == gradatim.__version__
    assert f"version: {gradatim.__version__}\n" in (ROOT / "CITATION.cff").read_text()
