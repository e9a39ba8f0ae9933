"""Build the documentation site: ``sphinx-build -W -b html docs build/docs``."""

import sys
from pathlib import Path

import ebsc_core

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "ebsc"
author = "the ebsc developers"
version = release = ebsc_core.__version__
project_copyright = author

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "ebsc_reference"]
exclude_patterns = ["_ext"]
html_theme = "furo"
html_title = f"ebsc {version}"
html_show_copyright = False

myst_enable_extensions = ["colon_fence", "deflist"]
# Each heading down to this level is a target, as in page.md#the-heading.
myst_heading_anchors = 4
# Several classes have an attribute `shape`, which docstrings name in prose.
suppress_warnings = ["ref.python"]

autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_class_signature = "mixed"
napoleon_google_docstring = False
