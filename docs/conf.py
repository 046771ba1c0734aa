"""Sphinx configuration: Markdown pages, and pages for modules and tutorials that are written at build time."""

import importlib.metadata
import sys
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.util import logging

import gradatim

sys.path.insert(0, str(Path(__file__).parent))
import generate
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
# Classes of one name in several modules make an annotation ambiguous; the link then leads to the first of them.
suppress_warnings = ["ref.python"]

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True

html_theme = "furo"
html_title = "gradatim"
html_static_path = ["_static"]
html_css_files = ["site.css"]


def setup(app: Sphinx) -> None:
    """Connect the hooks below."""
    app.connect("builder-inited", fail_on_undocumented)
    app.connect("builder-inited", write_pages)
    app.connect("build-finished", write_llms_txt)
    app.connect("autodoc-process-docstring", render_docstring)
    app.connect("autodoc-skip-member", skip_member)


def fail_on_undocumented(app: Sphinx) -> None:
    """Name each public name that has no docstring and fail the build, with or without `-W`."""
    for fault in public.undocumented(gradatim):
        logging.getLogger(__name__).warning(fault)
        app.statuscode = 1


def write_pages(app: Sphinx) -> None:
    """Write the pages of the modules and of the tutorials."""
    docs = Path(app.srcdir)
    generate.write_api(gradatim, docs / "api")
    generate.write_tutorials(docs.parent / "tutorials", docs / "tutorials")


def write_llms_txt(app: Sphinx, exception: Exception | None) -> None:
    """Write `llms.txt`, a list of all pages for language models, into the root of the site."""
    if exception is None and app.builder.format == "html":
        titles = {page: app.env.titles[page].astext() for page in reading_order(app, "index")}
        text = generate.llms_txt(titles, app.builder.get_target_uri)
        generate.write(Path(app.outdir) / "llms.txt", text)


def reading_order(app: Sphinx, page: str) -> list[str]:
    """List a page and the pages below it in the order of the tables of contents."""
    below = app.env.toctree_includes.get(page, [])
    return [page, *(name for child in below for name in reading_order(app, child))]


def render_docstring(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Render a plain-text docstring."""
    lines[:] = plain.to_rst(lines)


def skip_member(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leave out the fields of named tuples: their class's docstring describes them."""
    return True if type(obj).__name__ == "_tuplegetter" else None
