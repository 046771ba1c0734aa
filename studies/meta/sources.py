"""What the numbers of a part depend on: a hash of the code that it reaches through its imports, and of versions.

Docstrings and comments do not count. A part whose code has changed is measured again.

Source: this project's own.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path

import gradatim

ROOTS = {"gradatim": Path(gradatim.__file__).parent, "studies": Path(__file__).parents[1]}
"""Folders of the packages whose code counts."""

PACKAGES = ("torch", "numpy", "scikit-learn")
"""Packages whose versions count."""

ASIDE = (
    "gradatim.comparison",
    "gradatim.files",
    "gradatim.probing",
    "gradatim.provenance",
    "gradatim.registry",
    "studies.meta.sources",
    "studies.tables",
)
"""Packages that store, draw and hand out work. They change no number of a part, and do not count."""


@cache
def fingerprint(*modules: str, alone: bool = False) -> str:
    """Return a hash of the code of some modules and of all that they import, or of theirs `alone`.

    Example:
        >>> fingerprint("gradatim.metrics") == fingerprint("gradatim.metrics") != fingerprint("gradatim.batch")
        True
    """
    text = [f"{name} {version(name)}" for name in PACKAGES]
    text += [f"{module} {code(_file(module))}" for module in sorted(modules if alone else reached(*modules))]
    return hashlib.sha256("\n".join(text).encode()).hexdigest()[:12]


def reached(*modules: str) -> set[str]:
    """Return some modules and all that they import, one another's imports included.

    Example:
        >>> sorted(name for name in reached("gradatim.batch") if "studies" in name)
        []
    """
    found: set[str] = set()
    queue = list(modules)
    while queue:
        module = queue.pop()
        if module not in found:
            found.add(module)
            queue += _imports(module)
    return found


@cache
def code(path: Path) -> str:
    """Return the code of a file without docstrings, comments and the places of its words."""
    tree = _tree(path)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            # a text that stands alone does nothing, wherever it stands
            node.body = [line for line in node.body if not _is_text(line)]
    return ast.dump(tree)


def _is_text(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _file(module: str) -> Path:
    """Return the file of a module of ours; it need not exist."""
    root, *parts = module.split(".")
    path = ROOTS[root].joinpath(*parts)
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _counts(module: str) -> bool:
    aside = any(module == name or module.startswith(f"{name}.") for name in ASIDE)
    return module.partition(".")[0] in ROOTS and not aside and _file(module).exists()


@cache
def _imports(module: str) -> list[str]:
    """Return the modules of ours that a module imports where it runs, those inside of functions included."""
    found = []
    for node in _running(_tree(_file(module))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if _counts(alias.name)]
        elif isinstance(node, ast.ImportFrom) and _counts(base := _base(module, node)):
            found += [_home(base, alias.name) for alias in node.names]
    return found


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a tree but for what only type checkers read."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        yield child
        yield from _running(child)


def _base(module: str, node: ast.ImportFrom) -> str:
    """Return the module that `from ... import` names."""
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    if _file(module).name == "__init__.py":
        parts.append("")
    parts = parts[: -node.level]
    return ".".join([*parts, *([node.module] if node.module else [])])


def _home(base: str, name: str) -> str:
    """Return the module that defines a name: a package passes on names of its modules."""
    if _counts(f"{base}.{name}"):
        return f"{base}.{name}"
    if _file(base).name == "__init__.py":
        for node in ast.walk(_tree(_file(base))):
            if isinstance(node, ast.ImportFrom) and any((a.asname or a.name) == name for a in node.names):
                inner = _base(base, node)
                if _counts(inner) and inner != base:
                    return _home(inner, name)
    return base
