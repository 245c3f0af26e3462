"""Checks of parameters, labels given the task before, and optional packages."""

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from sk_pwiser._utils._checks import (
    accept_any_case_of_y,
    check_choice,
    check_integer,
    check_number,
)


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
