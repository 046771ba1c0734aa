"""Tables of names: task families, schemes and methods, by name, by alias, or by import path `module:Class`.

Source: the object references of Python's entry points, `importable.module:object.attr` (Python Packaging Authority).
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar, cast

import gradatim.families as families

from .family import TaskFamily
from .names import hint
from .training.evolution import Evolution
from .training.prefixes import Prefixes
from .training.repeated import Repeated
from .training.schemes import Greedy, Scheme, Unrolled

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """A table of names and what they stand for; `module:Class` stands for a class that is in no table.

    Names and aliases are looked up in any case, with or without hyphens.

    Args:
        what: the word for an entry in error messages.
        base: the class that entries derive from.
        entries: the entries by name.
        aliases: other spellings, each with its name.

    Raises:
        ValueError: two entries of one name.

    Example:
        >>> from gradatim.registry import FAMILIES
        >>> FAMILIES["linear-regression"].__name__
        'LinearRegression'
        >>> FAMILIES["gradatim.families:LinearRegression"] is FAMILIES["LinearRegression"]
        True
    """

    def __init__(
        self, what: str, base: type, entries: Mapping[str, T], aliases: Mapping[str, str] | None = None
    ) -> None:
        self.what, self.base = what, base
        self._entries: dict[str, T] = {}
        self._names: dict[str, str] = {}
        for name, entry in entries.items():
            self.add(name, entry)
        for alias, name in (aliases or {}).items():
            self._reserve(alias, name)

    def add(self, name: str, entry: T) -> None:
        """Add an entry under a new name.

        Raises:
            ValueError: the name is that of another entry.
        """
        self._reserve(name, name)
        self._entries[name] = entry

    def __getitem__(self, name: str) -> T:
        """Return the entry of a name, an alias or an import path.

        Raises:
            ValueError: an unknown name (the nearest is suggested), or a path that leads to no such class.
        """
        if isinstance(name, str) and ":" in name:
            return self._entry(import_class(name, self.what, self.base))
        if not isinstance(name, str) or _plain(name) not in self._names:
            defined = hint(str(name), self._entries)
            raise ValueError(
                f"no {self.what} is called {name!r}: {defined} (or give an import path module:Class)"
            )
        return self._entries[self._names[_plain(name)]]

    def __contains__(self, name: object) -> bool:
        """Return whether a name or an alias is in the table."""
        return isinstance(name, str) and _plain(name) in self._names

    def __iter__(self) -> Iterator[str]:
        """Return the names, without aliases."""
        return iter(self._entries)

    def __len__(self) -> int:
        """Return the number of names."""
        return len(self._entries)

    def aliases(self, name: str) -> list[str]:
        """Return the other spellings of a name."""
        plain = _plain(name)
        return [alias for alias, target in self._names.items() if _plain(target) == plain and alias != plain]

    def name_of(self, value: Any) -> str:
        """Return the name of a value or class, or its import path where it is in no table.

        Raises:
            ValueError: a class that no other program can import.

        Example:
            >>> from gradatim.families import LinearRegression
            >>> from gradatim.registry import FAMILIES
            >>> FAMILIES.name_of(LinearRegression(dim=3))
            'LinearRegression'
        """
        kind = value if isinstance(value, type) else type(value)
        named = (name for name, entry in self._entries.items() if entry is kind)
        return next(named, None) or import_path(kind, self.what)

    def _reserve(self, alias: str, name: str) -> None:
        owner = self._names.setdefault(_plain(alias), name)
        if owner != name or alias in self._entries:
            raise ValueError(f"two of the {self.what} table are called {alias!r}: give one another name")

    def _entry(self, kind: type) -> T:
        """Return the entry that a class of an import path stands for: itself."""
        return cast("T", kind)


def import_class(path: str, what: str, base: type) -> type:
    """Return the class at an import path `module:Class`. The script that is run is not imported a second time.

    Args:
        path: the import path.
        what: the word for the class in error messages.
        base: the class that it must derive from.

    Raises:
        ValueError: a path of another form, a module that is missing or fails, no such class, or a class of another
            kind.

    Example:
        >>> from gradatim import TaskFamily
        >>> from gradatim.registry import import_class
        >>> import_class("gradatim.families:Sinusoids", "family", TaskFamily).__name__
        'Sinusoids'
    """
    module_name, _, inner = path.partition(":")
    if not re.fullmatch(r"\w+(\.\w+)*:\w+(\.\w+)*", path):
        raise ValueError(f"an import path has the form module:Class, such as mymodule:MyClass; got {path!r}")
    module = _module(module_name, path, what)
    target: Any = module
    for part in inner.split("."):
        if not hasattr(target, part):
            classes = [name for name, value in vars(module).items() if _is_kind(value, base)]
            defined = hint(part, classes, "it defines") if classes else f"it defines no {what}"
            raise ValueError(f"module {module_name!r} has no {inner!r}: {defined}")
        target = getattr(target, part)
    if not _is_kind(target, base):
        derived = isinstance(target, type) and issubclass(target, base)
        lacking = (
            f", which does not define {', '.join(sorted(target.__abstractmethods__))}" if derived else ""
        )
        raise ValueError(
            f"{path} must be a {what}, a concrete subclass of {base.__name__}; got {target!r}{lacking}"
        )
    return target


def import_path(kind: type, what: str = "class") -> str:
    """Return where a class can be imported from, `module:Class`. A script that is run counts under its own name.

    Raises:
        ValueError: a class that is defined inside a function, or in no file.

    Example:
        >>> from gradatim.registry import import_path
        >>> from gradatim.training.schemes import Greedy
        >>> import_path(Greedy)
        'gradatim.training.schemes:Greedy'
    """
    if "<locals>" in kind.__qualname__:
        raise ValueError(
            f"the {what} {kind.__name__} is defined inside a function, where nothing can import it: move the class to "
            "the top of its file"
        )
    module = kind.__module__
    if module == "__main__":
        module = _script_name()
        if module is None:
            raise ValueError(
                f"the {what} {kind.__name__} is defined in no file, so nothing can import it: put the class into a "
                "file and import it from there"
            )
    if not re.fullmatch(r"\w+(\.\w+)*", module):
        raise ValueError(
            f"the {what} {kind.__name__} is defined in {module}.py, a name that Python cannot import: rename the file, "
            "such as with _ in place of -"
        )
    return f"{module}:{kind.__qualname__}"


def _plain(name: str) -> str:
    return re.sub(r"[-_ ]", "", name).lower()


def _is_kind(value: Any, base: type) -> bool:
    return isinstance(value, type) and issubclass(value, base) and not inspect.isabstract(value)


def _script_name() -> str | None:
    """Return the module name under which the script that is run can be imported."""
    main = sys.modules.get("__main__")
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if spec is not None:
        return spec.name
    return None if file is None else Path(file).stem


def _module(name: str, path: str, what: str) -> ModuleType:
    if name == _script_name():
        return sys.modules["__main__"]
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise ValueError(f"module {name!r} of {what} {path!r} cannot be imported: {error}") from error
        raise ValueError(
            f"no module is called {name!r}, so there is no {what} {path!r}: run this in the folder of its file, or "
            "put that folder on PYTHONPATH"
        ) from error
    except Exception as error:
        raise ValueError(
            f"module {name!r} of {what} {path!r} cannot be imported: {type(error).__name__}: {error}"
        ) from error


FAMILIES: Registry[type[TaskFamily]] = Registry(
    "family",
    TaskFamily,
    {name: getattr(families, name) for name in families.__all__},
)
SCHEMES: Registry[type[Scheme]] = Registry(
    "scheme",
    Scheme,
    {
        "Evolution": Evolution,
        "Greedy": Greedy,
        "Prefixes": Prefixes,
        "Repeated": Repeated,
        "Unrolled": Unrolled,
    },
)
