"""Walk a package: its public modules, their public names in source order, and what their docstrings lack.

A name is public when no part of its path starts with an underscore and it is defined (not imported) in its module.
The API page, the documentation build and `tests/test_docs.py` all ask this file.
"""

import ast
import functools
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterable, Iterator
from types import FunctionType, ModuleType
from typing import NamedTuple

_SOURCE = re.compile(r"^\s*Sources?:", re.MULTILINE)


class Name(NamedTuple):
    """A public name: its module, its path inside it (`Batch.rows`), what it is, and its own docstring."""

    module: str
    path: str
    kind: str  # class, function, method or data
    doc: str

    def __str__(self) -> str:
        return f"{self.module}.{self.path}"


def modules(package: ModuleType) -> Iterator[ModuleType]:
    """Yield the package and every public module below it, imported, in alphabetical order."""
    yield package
    found = pkgutil.walk_packages(package.__path__, package.__name__ + ".")
    for name in sorted(info.name for info in found):
        if not any(part.startswith("_") for part in name.split(".")):
            yield importlib.import_module(name)


def names(module: ModuleType) -> list[Name]:
    """List the classes, functions and data that a module defines, each class followed by its methods."""
    tree = ast.parse(inspect.getsource(module))
    found: list[Name] = []
    for name in dict.fromkeys(_defined(tree.body)):
        value = getattr(module, name, None)
        own = getattr(value, "__module__", None) == module.__name__
        if own and inspect.isclass(value):
            found.append(Name(module.__name__, name, "class", _class_doc(value)))
            found += _methods(module.__name__, value)
        elif own and isinstance(inspect.unwrap(value), FunctionType):
            found.append(Name(module.__name__, name, "function", (value.__doc__ or "").strip()))
        else:
            found.append(Name(module.__name__, name, "data", ""))
    return found


def undocumented(package: ModuleType) -> list[str]:
    """Name every public module, class, function and method whose docstring is empty and not inherited."""
    faults = []
    for module in modules(package):
        if not (module.__doc__ or "").strip():
            faults.append(f"{module.__name__} has no docstring")
        faults += [f"{n} has no docstring" for n in names(module) if n.kind != "data" and not n.doc]
    return faults


def unsourced(package: ModuleType) -> list[str]:
    """Name every public class and function that says `Source:` neither itself nor in its module's docstring."""
    return [
        f"{name} has no `Source:` line, nor has its module"
        for module in modules(package)
        if not _SOURCE.search(module.__doc__ or "")
        for name in names(module)
        if name.kind in ("class", "function") and not _SOURCE.search(name.doc)
    ]


def _defined(body: Iterable[ast.stmt]) -> Iterator[str]:
    """Yield the public names that statements define, `if` and `try` at the top level included."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            targets = [node.name]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            targets = [t.id for t in targets if isinstance(t, ast.Name)]
        elif isinstance(node, ast.If | ast.Try):
            targets = list(_defined([*node.body, *node.orelse]))
        else:
            targets = []
        yield from (name for name in targets if not name.startswith("_"))


def _class_doc(cls: type) -> str:
    """Return the docstring written for a class; the signature that `dataclass` and `NamedTuple` put there is none."""
    doc = (cls.__dict__.get("__doc__") or "").strip()
    return "" if doc.startswith(cls.__name__ + "(") and "\n" not in doc else doc


def _methods(module: str, cls: type) -> Iterator[Name]:
    """Yield the public methods and properties of a class; one without a docstring has that of a base of the package."""
    package = module.split(".")[0]
    bases = [base for base in cls.__mro__[1:] if base.__module__.split(".")[0] == package]
    for name, value in vars(cls).items():
        function = _function(value)
        if name.startswith("_") or function is None:
            continue
        inherited = [_function(base.__dict__.get(name)) for base in bases]
        docs = [(f.__doc__ or "").strip() for f in [function, *inherited] if f is not None]
        yield Name(module, f"{cls.__name__}.{name}", "method", next(filter(None, docs), ""))


def _function(value: object) -> FunctionType | None:
    """Return the function behind a method, property, class method or static method; None for anything else."""
    if isinstance(value, property):
        value = value.fget
    elif isinstance(value, functools.cached_property):
        value = value.func
    elif isinstance(value, classmethod | staticmethod):
        value = value.__func__
    value = inspect.unwrap(value)
    return value if isinstance(value, FunctionType) else None
