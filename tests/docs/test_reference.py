"""The API reference and the tables of parameters: complete, with the right texts."""

import importlib
import inspect
import re
from pathlib import Path

import api_reference
import parameter_tables
import pytest
from jinja2 import Environment, FileSystemLoader

from sk_pwiser import MultiTaskCTRCVRClassifier, metrics

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parents[2] / "docs"
TEMPLATES = DOCS / "_templates/autosummary"
MEMBERS = api_reference.members_by_class()
NAMES = list(inspect.signature(MultiTaskCTRCVRClassifier).parameters)


def public_methods(cls):
    """Yield the names that `dir` lists and that code of the package implements."""
    for name in dir(cls):
        value = inspect.getattr_static(cls, name)
        value = value.fget if isinstance(value, property) else value
        function = getattr(value, "__func__", getattr(value, "fn", value))
        module = getattr(function, "__module__", "") or ""
        if not name.startswith("_") and callable(function) and "sk_pwiser" in module:
            yield name


def page_of(name):
    """Return the page of a class as autosummary writes it, before Sphinx reads it."""
    module, _, attribute = name.rpartition(".")
    environment = Environment(loader=FileSystemLoader(TEMPLATES))
    environment.filters["underline"] = str
    return environment.get_template("class.rst").render(
        fullname=name,
        module=module,
        objname=attribute,
        own_members=MEMBERS,
        search_terms=api_reference.search_terms(),
    )


@pytest.mark.parametrize("name", MEMBERS)
def test_the_page_of_a_class_lists_every_public_method(name):
    module, _, attribute = name.rpartition(".")
    cls = getattr(importlib.import_module(module), attribute)
    page = page_of(name)
    pattern = rf"^\.\. auto(?:method|property):: {attribute}\.(\w+)$"
    entries = set(re.findall(pattern, page, re.MULTILINE))
    assert set(public_methods(cls)) <= entries
    assert set(re.findall(rf"~{attribute}\.(\w+)", page)) == entries


def test_methods_that_the_estimator_inherits_have_entries():
    entries = set(MEMBERS["sk_pwiser.MultiTaskCTRCVRClassifier"])
    assert {"predict_proba", "score", "load", "set_params", "get_params"} <= entries
    # scikit-learn documents what it generates.
    assert not any(name.endswith("_request") for name in entries)


def test_a_search_for_a_parameter_finds_the_estimator():
    page = page_of("sk_pwiser.MultiTaskCTRCVRClassifier")
    # The search ranks main entries of the index by the share of them that was typed.
    terms = set(re.findall(r"^   ! single: (.+)$", page, re.MULTILINE))
    assert {"early stopping", "early_stopping", "eval_set", "categorical"} <= terms
    assert "index::" not in page_of("sk_pwiser.losses.PWiseR")


def test_the_page_of_the_estimator_shows_its_signature():
    page = page_of("sk_pwiser.MultiTaskCTRCVRClassifier")
    assert re.search(
        r"^\.\. autoclass:: MultiTaskCTRCVRClassifier$", page, re.MULTILINE
    )


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    path = tmp_path_factory.mktemp("docs") / "api_table.rst"
    api_reference.write(path)
    return path.read_text(encoding="utf-8")


def test_every_public_name_has_a_line(reference):
    for name in api_reference.public_modules():
        module = importlib.import_module(name)
        for attribute in module.__all__:
            if callable(getattr(module, attribute)):
                assert re.search(rf"^   {attribute}$", reference, re.M), attribute


def test_the_table_of_networks_states_names_and_defaults(reference):
    row = reference.split('`network="mmoe"`')[1].split("\n\n")[0]
    assert ":class:`MMoE`" in row
    assert "`n_experts=4`, `expert_units=(128, 64)`" in row
    # The weight of PWiseR is a parameter of the estimator.
    assert "pwiser_weight" not in reference.split('`loss="pwiser"`')[1].split("\n\n")[0]


def test_components_state_what_they_require():
    class Component:
        def __init__(self, spec, *, required, width=3, **rest):
            pass

    text = parameter_tables.component_parameters(Component)
    assert text == "`required`, `width=3`"


@pytest.mark.parametrize("name", [n for n in metrics.__all__ if n.endswith("_scorer")])
def test_scorers_say_what_they_score(name):
    scorer = getattr(metrics, name)
    assert scorer.__doc__
    assert scorer.__doc__ != type(scorer).__doc__


def test_every_parameter_has_one_group():
    grouped = [name for group in parameter_tables.GROUPS.values() for name in group]
    assert sorted(grouped) == sorted(NAMES)
    with pytest.raises(ValueError, match=r"lacks \['new'\]; .* are \['verbose'\]"):
        parameter_tables.check_groups({*NAMES, "new"} - {"verbose"})


def test_the_tables_state_defaults_and_texts():
    text = parameter_tables.estimator_tables()
    for name in NAMES:
        assert f"   * - `{name}=" in text
    assert "   * - `validation_fraction=0.1`\n     - Share of the rows" in text


@pytest.mark.parametrize("name", parameter_tables.ENTRIES)
def test_the_page_of_parameters_describes_every_entry_with_its_default(name):
    page = (DOCS / "user_guide/parameters.rst").read_text(encoding="utf-8")
    described = re.findall(r"^`(\w+=.+)`\n    \S", page, re.MULTILINE)
    defaults = parameter_tables.ENTRIES[name]
    assert defaults
    assert {f"{key}={value!r}" for key, value in defaults.items()} <= {*described}


def test_the_page_of_parameters_describes_entries_once():
    page = (DOCS / "user_guide/parameters.rst").read_text(encoding="utf-8")
    described = re.findall(r"^`(\w+)=.+`\n    \S", page, re.MULTILINE)
    entries = [key for keys in parameter_tables.ENTRIES.values() for key in keys]
    assert sorted(described) == sorted(entries)


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["Share, e.g. of rows, held", "out. No."], "Share, e.g. of rows, held out."),
        (["Weight, >= 0; see :ref:`x`."], "Weight, >= 0."),
        (["Arguments of it, and", "", "- `decay`"], "Arguments of it."),
        (["How it is encoded: " + "very " * 60 + "long."], "How it is encoded."),
    ],
)
def test_first_sentences(lines, sentence):
    assert parameter_tables.first_sentence(lines) == sentence
