"""How Sphinx builds these pages."""

from __future__ import annotations

import wippy_queue  # noqa: F401  # fail here, with a traceback, rather than once per documented name

project = "wippy_queue"
author = "The wippy_queue authors"
copyright = "2026, The wippy_queue authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "examples"]
html_theme = "furo"
html_title = "wippy_queue"
nitpicky = False
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
autodoc_typehints = "description"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
