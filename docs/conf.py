"""Configuration of Sphinx; `tox -e docs` builds the documentation."""

import os
import sys
from importlib.metadata import metadata
from pathlib import Path

import sk_pwiser

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))

import api_reference  # noqa: E402
import architecture  # noqa: E402
import parameter_tables  # noqa: E402
import pictures  # noqa: E402

api_reference.write(DOCS / "api_table.rst")
parameter_tables.write(DOCS / "parameter_table.rst")
architecture.write(DOCS / "folder_table.rst")
pictures.write_folders(DOCS / "folder_picture.rst")
pictures.write_way_of_a_fit(DOCS / "fit_picture.rst")
pictures.write_time_split(DOCS / "time_split_picture.rst")
pictures.write_history(DOCS / "history_picture.rst")
pictures.write_funnel(DOCS / "funnel_picture.rst")
pictures.write_tutorial(DOCS / "tutorial_picture.rst")
pictures.write_reliability(DOCS / "reliability_picture.rst")

# Project

project = "sk_pwiser"
author = "the sk_pwiser developers"
copyright = f"2026, {author}"
version = release = sk_pwiser.__version__

# Addresses of the package as it was built; pyproject.toml has the place to set them.

addresses = dict(
    line.split(", ", 1) for line in metadata("sk_pwiser").get_all("Project-URL") or []
)
source_address = addresses.get("Source", "")
documentation_address = addresses.get("Documentation", "")

# Build

extensions = [
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.extlinks",
    "sphinx.ext.githubpages",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "line_breaks",
    "math_svg",
    "results_directives",
    "sphinx_design",
]
INCLUDED = ["*_picture.rst", "*_table.rst"]
exclude_patterns = ["_build", "_templates", *INCLUDED]
templates_path = ["_templates"]
default_role = "code"
maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"

# API reference: one page per object of api_table.rst, which api.rst includes.

autosummary_generate = ["api_table.rst"]
autosummary_context = {
    "own_members": api_reference.members_by_class(),
    "search_terms": api_reference.search_terms(),
}
autodoc_typehints = "none"  # the types in the docstrings say more
numpydoc_show_class_members = False  # the template of a class page lists them

# References: :doi:`10.1145/3219819.3220007`, :arxiv:`2406.02163`.

extlinks = {
    "arxiv": ("https://arxiv.org/abs/%s", "arXiv:%s"),
    "doi": ("https://doi.org/%s", "doi:%s"),
}

# Gallery: the build runs every examples/**/plot_*.py and fails if one of them fails.

GALLERY_SECTIONS = (
    "quickstart",
    "losses",
    "networks",
    "model_selection",
    "calibration",
    "inspection",
    "labels",
    "inputs",
    "training",
    "serving",
    "cluster",
)
sphinx_gallery_conf = {
    "backreferences_dir": "generated/backreferences",
    "doc_module": ("sk_pwiser",),
    "reference_url": {"sk_pwiser": None},
    "subsection_order": [
        *(f"../examples/{name}" for name in GALLERY_SECTIONS),
        "*",
    ],
    "thumbnail_size": (560, 392),
    "within_subsection_order": "FileNameSortKey",
    "min_reported_time": 60,
    "parallel": min(os.cpu_count() or 1, 8),
    "remove_config_comments": True,
    "show_signature": False,
    "write_computation_times": False,
}

# Notebooks open in one click on Binder, which reads those of the branch with the pages.

if source_address.startswith("https://github.com/"):
    owner, name = source_address.removeprefix("https://github.com/").split("/")
    sphinx_gallery_conf["binder"] = {
        "org": owner,
        "repo": name,
        "branch": "gh-pages",
        "binderhub_url": "https://mybinder.org",
        "dependencies": "../.ci/binder/requirements.txt",
    }

# Copied code holds neither prompts nor output.

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_selector = "div:not(.output) > div.highlight > pre"

# Pages

html_theme = "pydata_sphinx_theme"
html_math_renderer = "svg"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_title = f"sk_pwiser {version}"
html_show_sourcelink = False
html_baseurl = f"{documentation_address}/" if documentation_address else ""
# Pages without others below them have nothing to list beside the text.
html_sidebars = {
    page: [] for page in ("index", "install", "benchmarks", "search", "genindex")
}
html_theme_options = {
    "footer_start": ["copyright"],
    "navigation_with_keys": False,
    "show_prev_next": False,
}
if source_address:
    html_theme_options["icon_links"] = [
        {"name": "Source", "url": source_address, "icon": "fa-solid fa-code-branch"}
    ]
