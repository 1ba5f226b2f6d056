"""How Sphinx builds the documentation: ``sphinx-build -W docs build/docs``."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

project = "emopipe"
author = "The emopipe authors"
release = version = version_of("emopipe")
language = "en"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
myst_enable_extensions = ["colon_fence"]
#: Headings can be linked to as where the repository is shown: `errors.md#no_face`.
myst_heading_anchors = 4
#: The notebook is committed with its outputs; a test executes it.
nb_execution_mode = "off"

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_use_ivar = True
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = "emopipe"
html_static_path = ["static"]
html_css_files = ["wide.css"]
html_copy_source = False
html_show_sourcelink = False
