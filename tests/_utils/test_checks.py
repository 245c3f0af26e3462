"""Checks of parameters, labels given the task before, and optional packages."""

import re
import sys
import tomllib
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._tasks._conditional_labels import conditional_labels
from sk_pwiser._tasks._tree import chain_parents
from sk_pwiser._utils._checks import (
    accept_any_case_of_y,
    check_choice,
    check_integer,
    check_number,
)
from sk_pwiser._utils._equality import equal
from sk_pwiser._utils._extras import REQUIREMENTS, import_extra


@pytest.mark.parametrize("value", [1, 0.5, np.float32(0.5), np.int64(0), np.float64(1)])
def test_numbers_are_returned_as_floats(value):
    number = check_number("rate", value, at_least=0, at_most=1)
    assert type(number) is float
    assert number == value


# torch computes with neither fractions nor decimals.
@pytest.mark.parametrize(
    "value", [True, np.True_, "1", None, [1.0], 1j, Decimal(1), Fraction(1, 2)]
)
def test_values_that_are_not_numbers(value):
    with pytest.raises(TypeError, match="rate must be a number; got "):
        check_number("rate", value)


@pytest.mark.parametrize(
    ("limits", "value", "rule"),
    [
        ({}, np.nan, "finite"),
        ({}, -np.inf, "finite"),
        ({}, 10**400, "finite"),
        ({"at_least": 0}, -(10**400), "finite and >= 0"),
        ({"above": 0}, 0, "finite and > 0"),
        ({"at_least": 0}, -1, "finite and >= 0"),
        ({"below": 1}, 1.0, "finite and < 1"),
        ({"at_most": 0.5}, 0.75, "finite and <= 0.5"),
        ({"at_least": 0, "below": 1}, 1, "finite and >= 0 and < 1"),
    ],
)
def test_numbers_out_of_range(limits, value, rule):
    with pytest.raises(ValueError, match=rf"^rate must be {rule}; got {value}\.$"):
        check_number("rate", value, **limits)


@pytest.mark.parametrize("value", [2, np.int8(2), np.uint64(2)])
def test_integers_are_returned_as_ints(value):
    number = check_integer("units", value, at_least=2)
    assert type(number) is int
    assert number == 2


@pytest.mark.parametrize(
    ("value", "error"),
    [(1, ValueError), (2.0, TypeError), (True, TypeError), ("2", TypeError)],
)
def test_values_that_are_not_such_integers(value, error):
    with pytest.raises(error, match=r"^units must be an integer >= 2; got "):
        check_integer("units", value, at_least=2)


@pytest.mark.parametrize(
    ("value", "error"), [("c", ValueError), (1, TypeError), (["a"], TypeError)]
)
def test_values_that_are_not_choices(value, error):
    assert check_choice("kind", "a", ("a", None)) == "a"
    assert check_choice("kind", None, ("a", None)) is None
    with pytest.raises(error, match=r"^kind must be one of \['a', None\]; got "):
        check_choice("kind", value, ("a", None))
    with pytest.raises(TypeError, match="got None"):
        check_choice("kind", None, ("a",))


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ({"a": [np.arange(3), None]}, {"a": [np.arange(3), None]}, True),
        ({"a": [np.arange(3)]}, {"a": [np.arange(4)]}, False),
        ({"a": 1}, {"b": 1}, False),
        (torch.arange(3), torch.arange(3), True),
        (torch.arange(3), torch.tensor([0, 1, 1]), False),
        (torch.arange(3), np.arange(3), False),
        ((1, "a"), [1, "a"], False),
        (1, 1.0, False),
        ([np.str_("a")], [np.str_("a")], True),
        (np.str_("a"), np.str_("b"), False),
        (np.bytes_(b"a"), np.bytes_(b"a"), True),
        (np.array(1), np.array([1]), False),
        (np.datetime64("2020"), np.datetime64("2020"), True),
    ],
)
def test_containers_of_arrays_are_compared(a, b, expected):
    assert equal(a, b) is expected


def test_labels_are_accepted_as_Y_and_as_y():
    class Model:
        @accept_any_case_of_y
        def fit(self, X, Y, other=None):
            """Fit."""
            return X, Y, other

    for result in (Model().fit(1, y=2), Model().fit(1, Y=2), Model().fit(1, 2)):
        assert result == (1, 2, None)
    assert Model.fit.__doc__ == "Fit."
    with pytest.raises(TypeError, match="multiple values"):
        Model().fit(1, 2, y=3)
    with pytest.raises(
        TypeError, match=r"fit\(\) got an unexpected keyword argument 'y'"
    ):
        Model().fit(1, Y=2, y=3)


def test_probabilities_are_divided_by_those_of_the_task_before():
    y = torch.tensor([[0.5, 0.1, 0.02], [0.2, 0.3, 0.0], [0, 0, 0], [0, 1, 0]])
    expected = [[0.5, 0.2, 0.2], [0.2, 1.0, 0.0], [0, 0, 0], [0, 1, 0]]
    found = conditional_labels(y, chain_parents(y.shape[1]))
    assert_allclose(found, expected, rtol=1e-6)


def test_tasks_of_a_tree_are_divided_by_their_parent():
    y = torch.tensor([[0.5, 0.1, 0.2, 0.1]])
    found = conditional_labels(y, (-1, 0, 0, 2))
    assert_allclose(found, [[0.5, 0.2, 0.4, 0.5]], rtol=1e-6)


PYPROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
OWN = re.compile(r"sk_pwiser\[(.+)\]")


def packages_of(extra):
    """Return the packages of an extra, without versions."""
    found = set()
    for requirement in EXTRAS[extra]:
        own = OWN.fullmatch(requirement)
        if own:
            found |= packages_of(own[1])
        else:
            found.add(re.match(r"[\w-]+(\[.+\])?", requirement)[0])
    return found


@pytest.mark.parametrize("package", REQUIREMENTS)
def test_the_command_installs_what_the_extra_does(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=f"thing needs {package}: ") as caught:
        import_extra(f"{package}.part", "The thing")
    found = re.search(r"pip install (.+) \(extra \[(\w+)\]\)$", str(caught.value))
    named = {name.strip('"') for name in found[1].split()}
    assert any(name.split("[")[0] == package for name in named)
    assert named <= packages_of(found[2])
    # Of the extra "pandas", readers of Parquet files need one package only.
    assert package == "pyarrow" or named == packages_of(found[2])


class Missing:
    """Finder of modules that raises for packages as if they were not installed."""

    packages = frozenset({*REQUIREMENTS, "safetensors", "skops", "polars"})

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name in cls.packages:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_files_need_no_extra(monkeypatch, tmp_path):
    X, y = [[i % 5, i % 7] for i in range(60)], [i % 2 for i in range(60)]
    # At the first step of an optimiser, torch itself looks for optional packages.
    MultiTaskCTRCVRClassifier(max_epochs=1).fit(X, y)
    # None in sys.modules would not do: scikit-learn 1.6 takes it for pandas itself.
    monkeypatch.setattr(sys, "meta_path", [Missing, *sys.meta_path])
    for package in Missing.packages:
        monkeypatch.delitem(sys.modules, package, raising=False)
    model = MultiTaskCTRCVRClassifier(max_epochs=1, checkpoint_dir=tmp_path).fit(X, y)
    model.save(tmp_path / "model.safetensors")
    again = MultiTaskCTRCVRClassifier.load(tmp_path / "model.safetensors")
    assert (again.predict_proba(X) == model.predict_proba(X)).all()
