"""Public names are documented and sourced, and no docstring can break the documentation build."""

import importlib
import io
import sys
from pathlib import Path
from types import ModuleType

import docutils.core
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradatim

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))
import plain
import public

UNDOCUMENTED = '''
"""A module."""
from dataclasses import dataclass
from typing import NamedTuple
import functools

LIMIT = 3


@dataclass
class Config:
    width: int


class State(NamedTuple):
    theta: int


class Base:
    """A base. Source: none."""

    def step(self):
        """Step."""

    @property
    def rows(self):
        return 0


class Child(Base):
    """A child.

    Source: ours.
    """

    def step(self):
        return 1

    def read(self):
        return 2

    def _helper(self):
        return 3


@functools.lru_cache
def free(x):
    return x


def told(x):
    """Tell.

    Source: ours.
    """


def _private(x):
    return x
'''


@pytest.fixture
def sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A package with known faults."""
    package = tmp_path / "sample_package"
    package.mkdir()
    (package / "__init__.py").write_text('"""A package."""\nfrom sample_package.things import told\n')
    (package / "things.py").write_text(UNDOCUMENTED)
    (package / "_hidden.py").write_text("def visible(): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("sample_package")
    for name in [name for name in sys.modules if name.split(".")[0] == "sample_package"]:
        del sys.modules[name]


def test_public_names_are_documented():
    assert public.undocumented(gradatim) == []


def test_public_names_have_a_source():
    assert public.unsourced(gradatim) == []


def test_the_walk_lists_what_a_module_defines(sample):
    things = importlib.import_module("sample_package.things")
    assert [module.__name__ for module in public.modules(sample)] == [
        "sample_package",
        "sample_package.things",
    ]
    assert public.names(sample) == []
    kinds = {name.path: name.kind for name in public.names(things)}
    assert kinds == {
        "LIMIT": "data",
        "Config": "class",
        "State": "class",
        "Base": "class",
        "Base.step": "method",
        "Base.rows": "method",
        "Child": "class",
        "Child.step": "method",
        "Child.read": "method",
        "free": "function",
        "told": "function",
    }


def test_the_walk_finds_what_is_missing(sample):
    paths = [fault.split()[0].removeprefix("sample_package.things.") for fault in public.undocumented(sample)]
    assert paths == ["Config", "State", "Base.rows", "Child.read", "free"]
    paths = [fault.split()[0].removeprefix("sample_package.things.") for fault in public.unsourced(sample)]
    assert paths == ["Config", "State", "Base", "free"]


def _render(text: str) -> tuple[str, str]:
    warnings = io.StringIO()
    settings = {"warning_stream": warnings, "report_level": 1, "halt_level": 5}
    tree = docutils.core.publish_doctree(
        "\n".join(plain.to_rst(text.split("\n"))), settings_overrides=settings
    )
    return tree.pformat(), warnings.getvalue()


def test_a_docstring_keeps_its_parts():
    tree, warnings = _render(
        """Refine the state: theta* = (X'X + a_I)^-1 X'y | rows, as in `step`.

    theta_{t+1} = theta_t - a * g_t

- one `item`
  goes on
- another

Raises:
    ValueError: if `rows` is 0,
        or below.
    KeyError: otherwise.

Example:
    >>> step(1)
    2

Source: arXiv 2510.11471, eq. 7;
another, eq. 8."""
    )
    assert warnings == ""
    assert "theta_{t+1} = theta_t - a * g_t" in tree and ">>> step(1)" in tree
    assert tree.count("<list_item") == 4 and tree.count("<literal_block") == 2
    assert tree.count("<strong>") == 3 and "eq. 7; another, eq. 8." in tree
    assert "if " in tree and "\n            or below" not in tree


MARKS = st.text(alphabet="ab1 `*|_:.<>[]{}\\-+=#~'\"^()/σ×@,", max_size=30)
LINES = st.sampled_from(
    ["", "Raises:", "Example:", "Source: `x`_", "- a", "    b: c", "text::", "====", ".. image:: a"]
)


@settings(deadline=None)  # no timing in tests
@given(st.lists(LINES | MARKS, max_size=12))
def test_no_docstring_raises_a_warning(lines):
    assert _render("\n".join(lines))[1] == ""


def test_the_tree_page_is_that_of_the_package():
    from tree import PAGE, updated

    page = PAGE.read_text(encoding="utf-8")
    assert page == updated(page), "out of date: run python docs/tree.py"
