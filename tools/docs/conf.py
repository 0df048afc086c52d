"""Settings of the documentation site; `make docs` writes its pages and calls Sphinx with this."""
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # for mathml

project = "privnb"
author = "privnb contributors"
copyright = "2026 onwards, privnb contributors"
version_file = HERE.parent.parent / "privnb" / "__init__.py"
release = version = re.search(r'"(.+)"', version_file.read_text(encoding="utf-8"))[1]

extensions = ["myst_nb", "sphinx.ext.linkcode", "mathml"]
root_doc = "index"
language = "en_GB"
nitpicky = True
smartquotes = False  # quotes in tables and docstrings are code
toc_object_entries_show_parents = "hide"
python_maximum_signature_line_length = 88
add_module_names = False

# notebooks: as they are stored, never run
nb_execution_mode = "off"
nb_merge_streams = True
nb_ipywidgets_js = {}
myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 4
myst_links_external_new_tab = False

# formulas: see mathml.py
html_math_renderer = "mathml"

html_theme = "furo"
html_title = f"privnb {release}"
html_static_path = ["static"]
html_css_files = ["privnb.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_search_summary = False  # a page that was opened as a file may not read others
html_theme_options = {"navigation_with_keys": True, "top_of_page_buttons": []}
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"


PLACES = {}  # (module, name) -> place of its source


def linkcode_resolve(domain, info):
    "Where the link beside a name leads."
    return PLACES.get((info["module"], info["fullname"]))


def setup(app):
    "Read the comments that reference.py leaves."
    for path in Path(app.srcdir).glob("api/*.rst"):
        text = path.read_text(encoding="utf-8")
        for module, name, place in re.findall(r"^ *\.\. source (\S+) (\S+) (\S+)$", text, re.M):
            PLACES[module, name] = place
