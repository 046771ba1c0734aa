"""Pages that are written at build time: one for each module, one for each tutorial, and the list for language models.

`conf.py` calls this file when a build begins. What it writes is not committed.
"""

import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

from sphinx.pycode import ModuleAnalyzer

import public

ROOT = Path(__file__).parents[1]

# The groups of the API page, and the first parts of the names of the modules in each.
GROUPS: dict[str, tuple[str, ...]] = {
    "Core words": (
        "", "batch", "family", "likelihood", "predictor", "signal", "refiner", "learner", "tree",
    ),
    "Estimators for tables": ("estimators", "preprocessing"),
    "Methods and recipes": ("methods", "regimes", "registry", "recipes", "config"),
    "Refiners": ("refiners",),
    "Predictors": ("predictors",),
    "Task families": ("families",),
    "Training": ("training", "regularizers"),
    "Frozen models": ("language", "prompting"),
    "Measuring and comparing": ("metrics", "comparison", "stopping", "probing", "testing", "generation", "distances"),
    "Building blocks of networks": ("nn",),
    "Files and the command line": ("files", "commands", "cli", "__main__", "distributed", "provenance"),
}  # fmt: skip
OTHERS = "Helpers"

_BODY = {
    "class": ".. autoclass:: {name}\n   :members:\n   :show-inheritance:\n",
    "function": ".. autofunction:: {name}\n",
    "data": ".. py:data:: {name}\n",
    "documented data": ".. autodata:: {name}\n   :no-value:\n",
}


def write(path: Path, text: str) -> None:
    """Write a page unless it already holds this text, so that Sphinx reads only pages that changed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def summary(text: str | None, escape: bool = True) -> str:
    """Return the first sentence of a docstring in one line; with `escape`, for a cell of a Markdown table."""
    paragraph = " ".join((text or "").strip().split("\n\n")[0].split())
    sentence = re.split(r"(?<=[.])\s", paragraph)[0]
    if not escape:
        return sentence
    parts = re.split(r"(`[^`]+`)", sentence)
    parts[::2] = [re.sub(r"([<>*_\[\]$])", r"\\\1", part) for part in parts[::2]]
    return "".join(parts).replace("|", r"\|")


def short(module: str) -> str:
    """Return a module's name without that of the package, to fit into narrow tables."""
    return module.partition(".")[2] or module


def group_of(module: str) -> str:
    """Return the group of the API page that a module belongs to."""
    part = module.partition(".")[2].split(".")[0]
    return next((group for group, parts in GROUPS.items() if part in parts), OTHERS)


def write_api(package: ModuleType, folder: Path) -> list[str]:
    """Write a page for each public module, and an index of them by group; return the modules' names."""
    modules = {module.__name__: module for module in public.modules(package)}
    groups: dict[str, list[str]] = {group: [] for group in [*GROUPS, OTHERS]}
    for name in modules:
        groups[group_of(name)].append(name)
    for parts in groups.values():
        parts.sort(key=lambda name: (_rank(name), name))
    lines = [
        "# API",
        "",
        "A page for each module of `gradatim`. Shapes are in brackets: `B` counts tasks, `N` rows.",
        "",
    ]
    for group, names in groups.items():
        if names:
            lines += [f"## {group}", "", "| module | what it holds |", "|---|---|"]
            lines += [f"| [{short(name)}]({name}.md) | {summary(modules[name].__doc__)} |" for name in names]
            toctree = ["```{toctree}", ":hidden:", "", *(f"{short(name)} <{name}>" for name in names), "```"]
            lines += ["", *toctree, ""]
    write(folder / "index.md", "\n".join(lines))
    for name, module in modules.items():
        write(folder / f"{name}.md", _module_page(module, list(modules)))
    for page in folder.glob("gradatim*.md"):
        if page.stem not in modules:
            page.unlink()
    return list(modules)


def _rank(name: str) -> int:
    """Return the place of a module's first part within its group, so that core words come in reading order."""
    part = name.partition(".")[2].split(".")[0]
    parts = GROUPS.get(group_of(name), ())
    return parts.index(part) if part in parts else 0


def _module_page(module: ModuleType, modules: list[str]) -> str:
    """Return the page of a module: its docstring, its public names, and the modules inside it."""
    name = module.__name__
    documented = ModuleAnalyzer.for_module(name).find_attr_docs()
    members = [member for member in public.names(module) if member.kind in _BODY]
    kinds = ["documented data" if ("", member.path) in documented else member.kind for member in members]
    body = "\n".join(_BODY[kind].format(name=m.path) for kind, m in zip(kinds, members, strict=True))
    text = f"# {name}\n\n```{{eval-rst}}\n.. automodule:: {name}\n   :no-members:\n```\n\n"
    text += "".join(_tables(module, modules))
    if body:
        text += f"```{{eval-rst}}\n.. currentmodule:: {name}\n\n{body}\n```\n"
    return text


def _tables(module: ModuleType, modules: list[str]) -> Iterator[str]:
    """Yield the tables of a package's page: the names it exports from other modules, and the modules inside it."""
    name = module.__name__
    rows = []
    for exported in getattr(module, "__all__", []):
        value = getattr(module, exported)
        home = getattr(value, "__module__", name)
        if home not in modules or home == name:
            continue
        documented = exported in {member.path for member in public.names(importlib.import_module(home))}
        target = f"[{exported}](#{home}.{exported})" if documented else f"`{exported}`"
        callable_ = inspect.isclass(value) or inspect.isroutine(value)
        text = summary(value.__doc__) if callable_ else f"an instance of `{type(value).__name__}`"
        rows.append(f"| {target} | {text} |")
    if rows:
        yield "\n".join(
            ["## Names to import from here", "", "| name | what it is |", "|---|---|", *rows, "", ""]
        )
    inside = [other for other in modules if other.rpartition(".")[0] == name]
    if inside and name.count("."):
        rows = [
            f"| [{short(other)}]({other}.md) | {summary(importlib.import_module(other).__doc__)} |"
            for other in inside
        ]
        yield "\n".join(["## Modules", "", "| module | what it holds |", "|---|---|", *rows, "", ""])


def write_tutorials(scripts: Path, folder: Path) -> None:
    """Write a page for each tutorial script, and an index of them in the order of their numbers."""
    files = sorted(scripts.glob("*.py"))
    rows = []
    for file in files:
        page = tutorial(file)
        write(folder / f"{file.stem}.md", page)
        title, lead = page.split("\n")[0].removeprefix("# "), page.split("\n")[2]
        rows.append(f"- **[{title}]({file.stem}.md)**: {lead}")
    text = [
        "# Tutorials",
        "",
        "Scripts to read and to run: `python tutorials/01_first_learner.py`.",
        "",
        *rows,
    ]
    toctree = ["```{toctree}", ":hidden:", "", *(file.stem for file in files), "```"]
    write(folder / "index.md", "\n".join([*text, "", *toctree, ""]))
    for page in folder.glob("[0-9]*.md"):
        if page.stem not in {file.stem for file in files}:
            page.unlink()


def tutorial(file: Path) -> str:
    """Return a tutorial as Markdown: its docstring, then blocks of code under the comments that introduce them."""
    source = file.read_text(encoding="utf-8")
    _, docstring, code = source.split('"""', 2)
    lead, _, usage = docstring.partition("\n\n")
    title = file.stem.partition("_")[2].replace("_", " ").capitalize()
    parts = [f"# {title}", " ".join(lead.split())]
    if usage.strip():
        parts.append(f"```sh\n{usage.strip()}\n```")
    parts += [_markdown(block) for block in _blocks(code)]
    return "\n\n".join([*parts, f"The script is `tutorials/{file.name}`."]) + "\n"


def _blocks(code: str) -> Iterator[list[str]]:
    """Yield the parts of a script: each begins at a comment that stands at the left margin after an empty line."""
    lines = code.strip("\n").split("\n")
    block: list[str] = []
    for before, line in zip(["", *lines], lines, strict=False):
        if line.startswith("# ") and not before.strip() and block:
            yield block
            block = []
        block.append(line)
    yield block


def _markdown(block: list[str]) -> str:
    """Return a part of a script as Markdown: the comment in front as text, the rest as code."""
    count = next((i for i, line in enumerate(block) if not line.startswith("#")), len(block))
    text = " ".join(line.removeprefix("#").strip() for line in block[:count])
    code = "\n".join(block[count:]).strip("\n")
    return "\n\n".join(part for part in (text, f"```python\n{code}\n```" if code else "") if part)


def llms_txt(titles: dict[str, str], url: Callable[[str], str]) -> str:
    """Return the list of pages in the form of llmstxt.org: a title, a summary, a line for each page by section."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8").split("\n\n")
    sections: dict[str, list[str]] = {"Docs": [], "Tutorials": [], "Results": [], "API": []}
    folders = {"tutorials": "Tutorials", "api": "API", "results": "Results"}
    for name, title in titles.items():
        line = f"- [{title}]({url(name)})"
        if name.startswith("api/gradatim"):
            line += f": {summary(importlib.import_module(title).__doc__, escape=False)}"
        sections[folders.get(name.split("/")[0], "Docs")].append(line)
    lead = " ".join(readme[1].split())
    text = [f"# gradatim\n\n> {lead}"]
    text += [f"## {section}\n\n" + "\n".join(rows) for section, rows in sections.items() if rows]
    return "\n\n".join(text) + "\n"
