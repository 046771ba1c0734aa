"""Sphinx configuration: Markdown pages, and an API page written by walking the package."""

import importlib.metadata
import sys
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util import logging

import gradatim

sys.path.insert(0, str(Path(__file__).parent))
import plain
import public

project = "gradatim"
author = "The gradatim authors"
copyright = "2025, the gradatim authors"
release = version = importlib.metadata.version("gradatim")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True

html_theme = "furo"
html_title = "gradatim"

_MODULE = """
## {name}

```{{eval-rst}}
.. automodule:: {name}
   :no-members:

{body}
```
"""
_BODY = {
    "class": ".. autoclass:: {name}\n   :members:\n   :show-inheritance:\n",
    "function": ".. autofunction:: {name}\n",
    "data": ".. py:data:: {name}\n",
    "told": ".. autodata:: {name}\n   :no-value:\n",  # data with a `#:` comment
}


def setup(app: Sphinx) -> None:
    """Connect the hooks below."""
    app.connect("builder-inited", fail_on_undocumented)
    app.connect("source-read", write_api)
    app.connect("source-read", drop_empty_globs)
    app.connect("autodoc-process-docstring", render_docstring)
    app.connect("autodoc-skip-member", skip_member)


def fail_on_undocumented(app: Sphinx) -> None:
    """Name each public name that has no docstring and fail the build, with or without `-W`."""
    for fault in public.undocumented(gradatim):
        logging.getLogger(__name__).warning(fault)
        app.statuscode = 1


def write_api(app: Sphinx, docname: str, source: list[str]) -> None:
    """Append every public name of every public module to the API page."""
    if docname != "api":
        return
    for module in public.modules(gradatim):
        told = ModuleAnalyzer.for_module(module.__name__).find_attr_docs()
        found = [name for name in public.names(module) if name.kind in _BODY]
        kinds = ["told" if ("", name.path) in told else name.kind for name in found]
        body = "\n".join(_BODY[kind].format(name=name) for kind, name in zip(kinds, found, strict=True))
        source[0] += _MODULE.format(name=module.__name__, body=body)


def drop_empty_globs(app: Sphinx, docname: str, source: list[str]) -> None:
    """Drop from the index's tree the patterns that match no page yet: Sphinx warns about them."""
    if docname == "index":
        lines = source[0].split("\n")
        kept = (line for line in lines if not line.endswith("*") or any(Path(app.srcdir).glob(line + ".md")))
        source[0] = "\n".join(kept)


def render_docstring(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Render a plain-text docstring."""
    lines[:] = plain.to_rst(lines)


def skip_member(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leave out the fields of named tuples: their class's docstring describes them."""
    return True if type(obj).__name__ == "_tuplegetter" else None
