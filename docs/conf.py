"""Sphinx: `nox -s docs` builds the pages and runs every code cell in them; a warning or a failing cell is an error."""

import re

import xpconv

project = "xpconv"
author = project_copyright = "The xpconv developers"
release = version = xpconv.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "numpydoc"]
exclude_patterns = ["_build"]
default_role = "autolink"  # `conv` in a docstring links to conv, and `dy` is just set off
html_theme = "furo"
html_title = f"xpconv {release}"

nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_render_markdown_format = "myst"  # tables that cells make are tables; CommonMark has none

autodoc_typehints = "none"  # the docstrings say more: dtypes, shapes, which arrays must agree
autodoc_member_order = "bysource"
numpydoc_show_class_members = False  # api.rst names the members


def escape_stars(app, what, name, obj, options, lines):  # noqa: ARG001
    """In docstrings a star before a word is Python's, (batch, channels, *spatial), and begins no emphasis."""
    lines[:] = [re.sub(r"(?<=[ (])\*(?=\w)", r"\*", line) for line in lines]


def setup(app):
    app.connect("autodoc-process-docstring", escape_stars)
