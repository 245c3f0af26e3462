"""Equality of values that hold arrays or tensors."""

import numpy as np
import pytest
import torch

from sk_pwiser._utils._equality import equal


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
