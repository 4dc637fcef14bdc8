"""Settings of Sphinx, which makes the documentation::

sphinx-build -W docs .cache/docs
"""

from __future__ import annotations

import os

from ws4py import __version__

os.environ["WS4PY_ENGINE"] = "pure"  # the reference describes the specification

project = "ws4py"
author = "the ws4py developers"
release = version = __version__

extensions = ["sphinx.ext.autodoc"]
exclude_patterns = ["benchmarks"]

html_theme = "furo"
html_title = "ws4py"
html_copy_source = False

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_class_signature = "separated"
autodoc_default_options = {"members": True, "show-inheritance": True}
