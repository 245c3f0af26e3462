"""The API reference has an entry for every public name and every public method."""

import importlib
import inspect
import re

import pytest
from docs_scripts import DOCS, load_script
from jinja2 import Environment, FileSystemLoader

from sk_pwiser import metrics

api_reference = load_script("api_reference")
MEMBERS = api_reference.members_by_class()


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
    environment = Environment(loader=FileSystemLoader(DOCS / "_templates/autosummary"))
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


def test_methods_of_private_base_classes_have_entries():
    expected = {"fit", "predict", "predict_proba", "predict_cvr", "score", "save"}
    expected |= {"partial_fit", "load", "task", "set_params", "get_params"}
    entries = set(MEMBERS["sk_pwiser.MultiTaskCTRCVRClassifier"])
    assert expected <= entries
    # scikit-learn documents what it generates.
    assert not any(name.endswith("_request") for name in entries)


def test_a_search_for_a_parameter_finds_the_estimator():
    page = page_of("sk_pwiser.MultiTaskCTRCVRClassifier")
    # The search ranks main entries of the index by the share of them that was typed.
    terms = set(re.findall(r"^   ! single: (.+)$", page, re.MULTILINE))
    assert {"early stopping", "early_stopping", "eval_set", "categorical"} <= terms
    assert "index::" not in page_of("sk_pwiser.losses.PWiseR")


def test_methods_that_depend_on_the_fit_have_entries():
    assert "predict_cvr" in MEMBERS["sk_pwiser.linear_model.CPMultiTaskLogistic"]


def test_every_public_name_has_a_line(tmp_path):
    path = tmp_path / "api_table.rst"
    api_reference.write(path)
    text = path.read_text(encoding="utf-8")
    for name in api_reference.public_modules():
        module = importlib.import_module(name)
        for attribute in module.__all__:
            if callable(getattr(module, attribute)):
                assert re.search(rf"^   {attribute}$", text, re.MULTILINE), attribute


@pytest.mark.parametrize("name", [n for n in metrics.__all__ if n.endswith("_scorer")])
def test_scorers_say_what_they_score(name):
    scorer = getattr(metrics, name)
    assert scorer.__doc__
    assert scorer.__doc__ != type(scorer).__doc__


def test_the_table_of_networks_states_names_and_defaults(tmp_path):
    path = tmp_path / "api_table.rst"
    api_reference.write(path)
    text = path.read_text(encoding="utf-8")
    row = text.split('`network="mmoe"`')[1].split("\n\n")[0]
    assert ":class:`MMoE`" in row
    assert "`n_experts=4`, `expert_units=(128, 64)`" in row
    # The weight of PWiseR is a parameter of the estimator.
    assert "pwiser_weight" not in text.split('`loss="pwiser"`')[1].split("\n\n")[0]
