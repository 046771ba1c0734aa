"""Counts in the source: names that say nothing, docstrings that give shapes, type tests, lines.

Source: Python's ast; the words that count as vague are this project's own.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The checkout."""

PACKAGE = ROOT / "src" / "gradatim"
"""The library."""

VAGUE = frozenset(
    re.findall(
        r"\w+",
        "found said told own made asked there kept drawn gone wanted came given known taken begun done held shown "
        "waiting left moved placed one other whole rest most least few some here each alike theirs ours",
    )
)
"""Names of variables and arguments that do not say what they hold."""

SHAPE = re.compile(r"`?\[\s*[A-Za-z*][\w *+/.]*(,\s*[\w *+/.\-]+)*\]|\bshape\b")
"""A shape in a docstring, such as `[B, N, D]`."""


def trees(folder: Path = PACKAGE) -> Iterator[ast.Module]:
    """Yield the syntax tree of every Python file below a folder, in the order of their names.

    Example:
        >>> len(list(trees(PACKAGE / "nn"))) > 3
        True
    """
    for path in sorted(folder.rglob("*.py")):
        yield ast.parse(path.read_text(encoding="utf-8"))


def bindings(tree: ast.Module) -> list[str]:
    """Return the names that a module binds as variables or arguments, with repeats.

    Example:
        >>> import ast
        >>> bindings(ast.parse("def f(x): y = x"))
        ['y', 'x']
    """
    return [
        node.arg if isinstance(node, ast.arg) else node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.arg) or (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
    ]


def vague_names(folder: Path = PACKAGE) -> float:
    """Return the percentage of variables and arguments whose name is vague."""
    names = [name for tree in trees(folder) for name in bindings(tree)]
    return 100 * sum(name in VAGUE for name in names) / max(len(names), 1)


def public_functions(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    """Yield the public functions of a module and the public methods of its public classes."""
    classes = [n for n in tree.body if isinstance(n, ast.ClassDef) and not n.name.startswith("_")]
    for holder in (tree, *classes):
        for node in holder.body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                yield node


def takes_arrays(function: ast.FunctionDef) -> bool:
    """Return whether the annotations of a function name a tensor or an array.

    Example:
        >>> import ast
        >>> takes_arrays(ast.parse("def f(x: Tensor): ...").body[0])
        True
    """
    signature = ast.unparse(function.args)
    signature += ast.unparse(function.returns) if function.returns else ""
    return bool(re.search(r"Tensor|ndarray", signature))


def shapes(folder: Path = PACKAGE) -> float:
    """Return the share of public functions of tensors or arrays whose docstring gives shapes."""
    documented = [
        bool(SHAPE.search(ast.get_docstring(function) or ""))
        for tree in trees(folder)
        for function in public_functions(tree)
        if takes_arrays(function)
    ]
    return sum(documented) / max(len(documented), 1)


def private_paths(folder: Path = PACKAGE / "estimators") -> list[str]:
    """Return the classes of refiners and predictors that code tests for, one for each test.

    A test is `isinstance`, `issubclass`, a class pattern of `match`, or a comparison with `type(...)`.

    Example:
        >>> from gradatim.names import hint
        >>> private_paths(PACKAGE / "nn")
        []
    """
    concrete = {
        node.name
        for room in ("refiners", "predictors")
        for tree in trees(PACKAGE / room)
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    }
    return [name for tree in trees(folder) for name in tested_classes(tree) if name in concrete]


def tested_classes(tree: ast.AST) -> list[str]:
    """Return the names of classes that code tests for.

    Example:
        >>> import ast
        >>> tested_classes(ast.parse("isinstance(x, A | b.C)"))
        ['A', 'C']
    """
    tested = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("isinstance", "issubclass"):
            tested += _names(node.args[1])
        elif isinstance(node, ast.MatchClass):
            tested += _names(node.cls)
        elif isinstance(node, ast.Compare) and ast.unparse(node.left).startswith("type("):
            tested += [name for side in node.comparators for name in _names(side)]
    return tested


def _names(node: ast.expr) -> list[str]:
    """Return the last part of every name in an expression."""
    if isinstance(node, ast.Attribute):
        return [node.attr]
    if isinstance(node, ast.Name):
        return [node.id]
    return [
        name for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr) for name in _names(child)
    ]


def lines(*paths: Path) -> int:
    """Return the lines of files, and of all Python files below folders.

    Example:
        >>> lines(PACKAGE / "nn") > lines(PACKAGE / "nn" / "__init__.py")
        True
    """
    files = [file for path in paths for file in (path.rglob("*.py") if path.is_dir() else [path])]
    return sum(file.read_text(encoding="utf-8").count("\n") for file in files)
