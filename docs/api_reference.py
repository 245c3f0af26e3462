"""Write the sections of the API reference.

Each public module has a line in `MODULES` and a section of the page. The section shows
the module's docstring and lists the classes, functions and scorers of its `__all__`.
Members of a registry are listed with their names in the estimator's parameter and with
their own parameters, so a new network needs no line here. `own_members` names what the
page of a class documents, `search_terms` for what a search finds it first.
"""

import importlib
import inspect
import pkgutil
from typing import NamedTuple

from parameter_tables import component_parameters, list_table, write_if_changed

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
    Module("sk_pwiser.history", "Features from the past"),
    Module("sk_pwiser.delayed_feedback", "Delayed conversions"),
    Module("sk_pwiser.calibration", "Calibration"),
    Module("sk_pwiser.transfer", "Transfer between markets"),
    Module("sk_pwiser.export", "Serving"),
    Module("sk_pwiser.distributed", "Several workers"),
    Module("sk_pwiser.linear_model", "Linear models"),
    Module("sk_pwiser.datasets", "Data sets"),
    Module("sk_pwiser.inspection", "Inspection"),
]

# What users call parameters of the estimator that have other names.
SYNONYMS = {
    "categorical",
    "class weight",
    "eval_set",
    "learning rate",
    "n_jobs",
    "validation set",
}


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
    sections = (section(module) for module in MODULES if module.name in found)
    write_if_changed(path, "\n".join(sections))


def section(module):
    """Return the reStructuredText of a section."""
    imported = importlib.import_module(module.name)
    registry = getattr(imported, module.registry, {})
    listed = [cls.__name__ for cls in registry.values()]
    parts = [
        f"{module.title}\n{'-' * len(module.title)}\n",
        f".. automodule:: {module.name}\n   :no-members:\n",
        f".. currentmodule:: {module.name}\n",
    ]
    if registry:
        parts += [registry_table(module, registry)]
        parts += [autosummary(listed, caption=module.title)]
        parts += [".. rubric:: Base classes and functions\n"]
    definitions, objects = [], []
    for name in imported.__all__:
        value = getattr(imported, name)
        is_definition = inspect.isclass(value) or inspect.isfunction(value)
        # Classes, functions and scorers have pages.
        if callable(value) and name not in listed:
            (definitions if is_definition else objects).append(name)
    parts += [autosummary(definitions, "" if registry else module.title)]
    if objects:
        parts += [".. rubric:: Ready-made objects\n", autosummary(objects)]
    return "\n".join(parts)


def members_by_class():
    """Map the names of all public classes to what their pages document."""
    modules = [importlib.import_module(module.name) for module in MODULES]
    return {
        f"{module.__name__}.{name}": own_members(getattr(module, name))
        for module in modules
        for name in module.__all__
        if inspect.isclass(getattr(module, name))
    }


def search_terms():
    """Map the estimator to its parameters and those of its fit, and to their words."""
    estimator = sk_pwiser.MultiTaskCTRCVRClassifier
    functions = estimator.__init__, estimator.fit
    names = {name for f in functions for name in inspect.signature(f).parameters}
    names -= {"self", "X", "Y"}
    words = {name.replace("_", " ") for name in names}
    return {"sk_pwiser.MultiTaskCTRCVRClassifier": sorted(names | words | SYNONYMS)}


def own_members(cls):
    """Return the public methods and properties of a class, in alphabetical order.

    They include those of the package's private mixins and base classes. What comes from
    another package is documented there, and so are the methods that scikit-learn
    generates for metadata routing.
    """
    return sorted(
        {
            member
            for owner in cls.__mro__
            if owner.__module__.split(".")[0] == "sk_pwiser"
            for member, value in vars(owner).items()
            if not member.startswith("_") and is_member(value)
        }
    )


def is_member(value):
    """Return whether an attribute of a class is a method or a property."""
    if isinstance(value, classmethod | staticmethod | property):
        return True
    # `available_if` of scikit-learn wraps a method in a descriptor that keeps its
    # module, and the generated methods have scikit-learn's.
    is_method = inspect.isfunction(value) or hasattr(value, "attribute_name")
    return is_method and value.__module__.split(".")[0] == "sk_pwiser"


def registry_table(module, registry):
    """Return a table of a parameter's names, with their classes and parameters."""
    name, rows = module.parameter, []
    for key, cls in registry.items():
        parameters = component_parameters(cls) or "none"
        rows.append((f'`{name}="{key}"`: :class:`{cls.__name__}`', parameters))
    return list_table((f"`{name}=`", f"`{name}_params`"), rows, (40, 60))


def autosummary(names, caption=""):
    """Return a directive that lists names and generates a page for each.

    The caption stands above the names in the navigation.
    """
    options = [f"   :caption: {caption}"] if caption else []
    rows = [f"   {name}" for name in names]
    head = [".. autosummary::", "   :toctree: generated", *options]
    return "\n".join([*head, "", *rows, ""])
