"""The examples in docstrings, run as tests: each is a session at the prompt whose results must be those it shows.

Source: Python's doctest.
"""

from __future__ import annotations

import doctest
import pkgutil
import sys
import warnings
from contextlib import chdir
from importlib import import_module
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
"""`...` stands for any text, and white space may differ."""


def module_names(package: str = "gradatim") -> list[str]:
    """Return the names of a package's public modules, the package first, without importing them all.

    A module is private where a part of its name begins with an underscore.

    Example:
        >>> "gradatim.batch" in module_names()
        True
    """
    folder = import_module(package).__path__
    names = [module.name for module in pkgutil.walk_packages(folder, f"{package}.")]
    return [package, *(name for name in names if "._" not in name)]


def examples(package: str = "gradatim") -> list[doctest.DocTest]:
    """Return the docstrings of a package that hold examples, module by module; none is run.

    A `DocTest` has a `name` (such as `gradatim.tree.tree_map`), its `examples`, and the `lineno` where they begin.

    Example:
        >>> "gradatim.testing.examples.examples" in {docstring.name for docstring in examples("gradatim.testing")}
        True
    """
    return [docstring for name in module_names(package) for docstring in _docstrings(name)]


def run_examples(module: str, report: Callable[[str], Any] = sys.stdout.write) -> tuple[int, int]:
    """Run the examples of one module; return how many docstrings have some, and in how many of them one fails.

    Each docstring runs for itself, from torch's seed 0, in an empty folder that is removed afterwards.
    Warnings are let pass. What a failure printed goes to `report`.

    Example:
        >>> attempted, failed = run_examples("gradatim.names")
        >>> attempted > 0, failed
        (True, 0)
    """
    docstrings = _docstrings(module)
    failures = [_fails(docstring, report) for docstring in docstrings]
    return len(docstrings), sum(failures)


def _docstrings(module: str) -> list[doctest.DocTest]:
    """Return the docstrings of one module that hold examples, in the order of their names."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    return [docstring for docstring in finder.find(import_module(module), module) if docstring.examples]


def _fails(docstring: doctest.DocTest, report: Callable[[str], Any]) -> bool:
    """Return whether an example of a docstring fails."""
    runner = doctest.DocTestRunner(verbose=False, optionflags=OPTIONS)
    with (
        TemporaryDirectory() as folder,
        chdir(folder),
        warnings.catch_warnings(),
        torch.random.fork_rng(devices=[]),
    ):
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        return runner.run(docstring, out=report).failed > 0
