"""Write the sections of the API reference.

Each public module has a line in `MODULES` and a section of the page. The section shows
the module's docstring and lists the classes and functions of its `__all__`. Members of
a registry are listed with their names in the estimator's parameter, so a new network
needs no line here.
"""

import importlib
import inspect
import pkgutil
from typing import NamedTuple

import sk_pwiser


class Module(NamedTuple):
    """A section of the API reference."""

    name: str
    title: str
    parameter: str = ""
    registry: str = ""


MODULES = [
    Module("sk_pwiser", "Estimator"),
    Module("sk_pwiser.networks", "Networks", "network", "NETWORKS"),
    Module("sk_pwiser.losses", "Losses", "loss", "LOSSES"),
    Module("sk_pwiser.weighting", "Weightings", "weighting", "WEIGHTINGS"),
    Module("sk_pwiser.callbacks", "Callbacks"),
    Module("sk_pwiser.metrics", "Metrics"),
    Module("sk_pwiser.model_selection", "Model selection"),
    Module("sk_pwiser.delayed_feedback", "Delayed conversions"),
    Module("sk_pwiser.calibration", "Calibration"),
    Module("sk_pwiser.transfer", "Transfer between markets"),
    Module("sk_pwiser.export", "Serving"),
    Module("sk_pwiser.linear_model", "Linear models"),
    Module("sk_pwiser.datasets", "Data sets"),
    Module("sk_pwiser.inspection", "Plots"),
]


def public_modules():
    """Return the names of the package and of its public modules."""
    found = pkgutil.iter_modules(sk_pwiser.__path__, "sk_pwiser.")
    names = [info.name for info in found if "._" not in info.name]
    return ["sk_pwiser", *names]


def write(path):
    """Write the sections of all public modules to a file."""
    found = public_modules()
    if unlisted := set(found) - {module.name for module in MODULES}:
        raise ValueError(f"MODULES of api_reference.py has no line for {unlisted}.")
    text = "\n".join(section(module) for module in MODULES if module.name in found)
    # An unchanged file keeps its time, so that Sphinx rebuilds no page for it.
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def section(module):
    """Return the reStructuredText of a section."""
    imported = importlib.import_module(module.name)
    registry = getattr(imported, module.registry, {})
    listed = [cls.__name__ for cls in registry.values()]
    entries = [n for n in imported.__all__ if is_documented(getattr(imported, n))]
    parts = [
        f"{module.title}\n{'-' * len(module.title)}\n",
        f".. automodule:: {module.name}\n   :no-members:\n",
        f".. currentmodule:: {module.name}\n",
    ]
    if registry:
        parts += [registry_table(module, registry), autosummary(listed)]
        parts += [".. rubric:: Base classes and functions\n"]
    parts += [autosummary(name for name in entries if name not in listed)]
    return "\n".join(parts)


def is_documented(value):
    """Return whether a public name gets a page: classes and functions do."""
    return inspect.isclass(value) or inspect.isfunction(value)


def registry_table(module, registry):
    """Return a table of the names that a parameter takes and their classes."""
    rows = [
        f'   * - ``{module.parameter}="{name}"``\n     - :class:`{cls.__name__}`'
        for name, cls in registry.items()
    ]
    return "\n".join([".. list-table::\n", *rows, ""])


def autosummary(names):
    """Return a directive that lists names and generates a page for each."""
    rows = [f"   {name}" for name in names]
    return "\n".join([".. autosummary::\n   :toctree: generated\n", *rows, ""])
