"""Docstrings against numpydoc and signatures."""

import ast
import doctest
import importlib
import inspect
import re
import tomllib
from pathlib import Path

import api_reference
import pytest
from numpydoc.docscrape import get_doc_object
from numpydoc.validate import ERROR_MSGS, validate

import sk_pwiser

REPOSITORY = Path(__file__).parents[2]
PACKAGE = Path(sk_pwiser.__file__).parent

# Objects without an example of their own, and the file that shows them: a base class,
# and a script that needs more than a process, which tests/distributed runs.
SHOWN_ELSEWHERE = {
    "sk_pwiser.networks.NetworkSpec": "sk_pwiser/networks/_base.py",
    "sk_pwiser.distributed.fit": "examples/cluster/ray_fit.py",
}


MODULES = [importlib.import_module(name) for name in api_reference.public_modules()]


def public_objects():
    """Map dotted names to the public classes and functions."""
    return {
        f"{module.__name__}.{name}": getattr(module, name)
        for module in MODULES
        for name in module.__all__
        if inspect.isclass(getattr(module, name))
        or inspect.isfunction(getattr(module, name))
    }


def public_members(name, cls):
    """Map dotted names to the public methods and properties of a class.

    Those inherited from other packages are documented there.
    """
    return {
        f"{name}.{attribute}": getattr(cls, attribute)
        for owner in cls.__mro__
        if owner.__module__.split(".")[0] == "sk_pwiser"
        for attribute, value in vars(owner).items()
        if not attribute.startswith("_")
        and isinstance(
            value, classmethod | staticmethod | property | type(public_members)
        )
    }


OBJECTS = public_objects()
MEMBERS = {
    member: value
    for name, cls in OBJECTS.items()
    if inspect.isclass(cls)
    for member, value in public_members(name, cls).items()
}
EVERYTHING = OBJECTS | MEMBERS
CALLABLES = {n: o for n, o in EVERYTHING.items() if not isinstance(o, property)}


with open(REPOSITORY / "pyproject.toml", "rb") as file:
    CHECKS = tomllib.load(file)["tool"]["numpydoc_validation"]["checks"]


def test_the_walk_visits_every_public_file():
    public = {
        path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for path in PACKAGE.rglob("*.py")
    }
    public = {f"sk_pwiser.{name}" for name in public if not name.startswith("_")}
    assert {module.__name__ for module in MODULES} == {"sk_pwiser", *public}
    # Functions, methods, and those of private base classes.
    assert "sk_pwiser.losses.pwiser_loss" in EVERYTHING
    assert "sk_pwiser.weighting.Nash.forward" in EVERYTHING
    assert "sk_pwiser.MultiTaskCTRCVRClassifier.predict_cvr" in EVERYTHING


def signature_of(member):
    return inspect.signature(member.fget if isinstance(member, property) else member)


def is_documented_by_its_base(name):
    """Return whether a method overrides one of a public base class.

    If it has the same parameters, its docstring describes the difference only and does
    not repeat parameters and return values.
    """
    owner, _, attribute = name.rpartition(".")
    bases = inspect.getmro(OBJECTS[owner])[1:] if owner in OBJECTS else ()
    overridden = [vars(b)[attribute] for b in bases if attribute in vars(b)]
    return any(
        value in MEMBERS.values() and signature_of(value) == signature_of(MEMBERS[name])
        for value in overridden
    )


@pytest.mark.parametrize("name", EVERYTHING)
def test_numpydoc_finds_no_fault(name):
    first, *exempt = CHECKS
    assert first == "all"
    assert {*exempt} <= {*ERROR_MSGS}
    if is_documented_by_its_base(name):
        exempt += ["PR01", "RT01"]
    errors = [e for e in validate(name)["errors"] if e[0] not in exempt]
    assert errors == []


@pytest.mark.parametrize("name", OBJECTS)
def test_an_example_can_be_run(name):
    text = inspect.getdoc(OBJECTS[name])
    if name in SHOWN_ELSEWHERE:
        text = (REPOSITORY / SHOWN_ELSEWHERE[name]).read_text(encoding="utf-8")
        assert f"{name.rpartition('.')[2]}(" in text
    else:
        examples = doctest.DocTestParser().get_examples(text)
        assert examples
        assert not any(e.options.get(doctest.SKIP) for e in examples)


def default_faults(signature, documented):
    """List the differences between documented defaults and the signature."""
    faults = []
    for name, parameter in signature.parameters.items():
        text = documented.get(name)
        if text is None:
            continue  # numpydoc's PR01 reports undocumented parameters
        stated = re.search(r"default=(.+)$", text)
        if parameter.default is inspect.Parameter.empty:
            if stated:
                faults.append(f"{name}: {text!r}, but there is no default")
        elif stated is None:
            faults.append(f"{name}: {text!r} states no default")
        elif not is_same_default(stated.group(1), parameter.default):
            faults.append(f"{name}: {text!r}, but it is {parameter.default!r}")
    return faults


def is_same_default(text, value):
    try:
        stated = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text == getattr(value, "__name__", repr(value))
    return stated == value and type(stated) is type(value)


def shape_faults(documented):
    """List the arrays and tensors without a shape."""
    is_array = re.compile(r"^(\w+ )?(array-like|ndarray|Tensor)\b")
    return [
        f"{name}: {text!r} states no shape"
        for name, text in documented.items()
        if is_array.match(text) and "of shape" not in text
    ]


@pytest.mark.parametrize("name", CALLABLES)
def test_documented_defaults_and_shapes(name):
    doc = get_doc_object(CALLABLES[name])
    parameters = {n: p.type for p in doc["Parameters"] for n in p.name.split(", ")}
    returns = {p.name or "returns": p.type for p in doc["Returns"]}
    faults = default_faults(inspect.signature(CALLABLES[name]), parameters)
    assert faults + shape_faults(parameters | returns) == []


def test_the_checks_of_defaults_and_shapes_find_faults():
    def function(a, b=1, c=(0.25, 0.75), d="x", e=None):
        pass

    signature = inspect.signature(function)
    right = {
        "a": "array-like of shape (n_samples,)",
        "b": "int, default=1",
        "c": "tuple of float, default=(0.25, 0.75)",
        "d": '{"x", "y"}, default="x"',
        "e": "Tensor of shape (batch,), default=None",
    }
    assert default_faults(signature, right) + shape_faults(right) == []
    wrong = {
        "a": "float, default=1",
        "b": "int, default=1.0",
        "c": "tuple of float, default=(25.0, 75.0)",
        "d": "str",
        "e": "float Tensor, default=None",
    }
    assert len(default_faults(signature, wrong)) == 4
    assert len(shape_faults(wrong)) == 1
