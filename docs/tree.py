"""Write docs/tree.md: every file of the package with the first line of its docstring.

`python docs/tree.py` writes it between the page's marks; tests/test_docs.py fails where it is out of date.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "tree.md"
MARKS = ("<!-- tree: python docs/tree.py -->\n```text\n", "```\n<!-- end of tree -->")


def lines(folder: Path, indent: int = 2) -> Iterator[str]:
    """Yield the lines of a folder: its files, then its folders."""
    files = sorted(file for file in folder.glob("*.py") if file.name != "__init__.py")
    for file in files:
        yield _line(file, file.name, indent)
    for inner in sorted(folder.glob("*/__init__.py")):
        yield _line(inner, f"{inner.parent.name}/", indent)
        yield from lines(inner.parent, indent + 2)


def _line(file: Path, name: str, indent: int) -> str:
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return f"{' ' * indent}{name:<{24 - indent}} {docstring.splitlines()[0]}"


def updated(page: str) -> str:
    """Return the page's text with the tree between its marks."""
    before, after = page.split(MARKS[0])
    after = after.split(MARKS[1])[1]
    tree = "\n".join(["src/gradatim/", *lines(ROOT / "src" / "gradatim")])
    return f"{before}{MARKS[0]}{tree}\n{MARKS[1]}{after}"


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
