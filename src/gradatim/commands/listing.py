"""`gradatim list`: the tables that names are taken from, and the options of a name.

Source: rich (tables).
"""

from __future__ import annotations

from dataclasses import MISSING, asdict, is_dataclass
from typing import TYPE_CHECKING, Any

from ..names import hint
from .options import field_texts, first_line
from .show import print_table

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace
    from rich.console import Console

TRAINED = {(False, False): "no", (True, False): "yes", (True, True): "yes, one step"}


def list_options(parser: ArgumentParser, arguments: list[str]) -> None:
    """Add the options of `list`."""
    parser.add_argument(
        "name",
        type=str | None,
        nargs="?",
        help="a method, task family or scheme, or an import path module:Class: its options are shown",
    )


def show_list(options: Namespace, console: Console) -> None:
    """Print the tables that names are taken from, or the options of a name.

    Raises:
        ValueError: a name that is in no table.
    """
    if options.name is not None:
        show_options(options.name, console)
        return
    from ..methods import METHODS
    from ..recipes import RECIPES
    from ..registry import FAMILIES

    rows = [[name, TRAINED[row.learnt, row.one_step], row.summary] for name, row in METHODS.items()]
    print_table(console, "methods (gradatim list METHOD)", ["method", "meta-trained", "what it is"], rows)
    rows = [[name, first_line(family)] for name, family in FAMILIES.items()]
    print_table(console, "task families (gradatim list FAMILY)", ["family", "what it is"], rows)
    rows = [[name, first_line(make)] for name, make in RECIPES.items()]
    print_table(console, "recipes (gradatim train RECIPE)", ["recipe", "what it is"], rows)


def show_options(name: str, console: Console) -> None:
    """Print what a method, family or scheme is, and its options with their defaults.

    Raises:
        ValueError: a name that is in no table, or an import path that leads to no such class.

    Example:
        >>> from rich.console import Console
        >>> from gradatim.commands.listing import show_options
        >>> show_options("implicit-order-one", Console())
        Traceback (most recent call last):
        ValueError: nothing is called 'implicit-order-one': ...
    """
    from ..config import init_fields
    from ..methods import METHODS
    from ..methods.base import Method
    from ..registry import FAMILIES, SCHEMES, import_class

    tables: dict[str, Any] = {"method": METHODS, "family": FAMILIES, "scheme": SCHEMES}
    what = next((what for what, names in tables.items() if name in names), None)
    if what is None and ":" in name:
        kind = import_class(name, "method, family or scheme", object)
        bases = {what: names.base for what, names in tables.items()}
        what = next((what for what, base in bases.items() if issubclass(kind, base)), None)
        if what is None:
            raise ValueError(f"{name} is neither a method nor a family nor a scheme; got {kind!r}")
    if what is None:
        candidates = [candidate for names in tables.values() for candidate in names]
        raise ValueError(f"nothing is called {name!r}: {hint(name, candidates)}")
    entry = tables[what][name]
    kind = entry if isinstance(entry, type) else entry.kind
    fixed = () if isinstance(entry, type) else entry.fixed
    about = entry.summary if issubclass(kind, Method) and not isinstance(entry, type) else first_line(kind)
    spellings = tables[what].aliases(name)
    console.print(f"{name}: {about}" if about else name, soft_wrap=True, markup=False)
    if spellings:
        console.print(f"also: {', '.join(spellings)}", soft_wrap=True, markup=False)
    texts = field_texts(kind)
    rows = [
        [f"--{what}.{field.name}", format_default(default_of(field)), texts.get(field.name, "")]
        for field in init_fields(kind)
        if field.name not in fixed
    ]
    if rows:
        print_table(console, "", ["option", "default", "what it is"], rows)
    else:
        console.print("it has no options", markup=False)


def default_of(field: Any) -> Any:
    """Return the default of a dataclass's field, or the text "needed" if it has none.

    Example:
        >>> from dataclasses import fields
        >>> from gradatim import Greedy
        >>> from gradatim.commands.listing import default_of
        >>> [default_of(field) for field in fields(Greedy)][:2]
        [16, 10]
    """
    if field.default_factory is not MISSING:
        return field.default_factory()
    return "needed" if field.default is MISSING else field.default


def format_default(value: Any) -> str:
    """Return a default as the command line takes it.

    Example:
        >>> from gradatim.commands.listing import format_default
        >>> format_default((32, 32)), format_default(None), format_default(True)
        ('[32,32]', 'null', 'true')
    """
    if is_dataclass(value) and not isinstance(value, type):
        return ", ".join(f"{key} {format_default(part)}" for key, part in asdict(value).items())
    if isinstance(value, tuple):
        return f"[{','.join(map(format_default, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
