"""Errors name the parameter of PWiseR, the rule and the value found."""

import numpy as np
import pytest
import torch

from sk_pwiser.losses import BCE, CombinedPair, MultiTaskLoss, PWiseR

NAMES = ["click", "conversion"]


class WithParameters(MultiTaskLoss):
    """A loss with a required parameter."""

    def __init__(self, task_names, *, strength):
        super().__init__(task_names)
        self.strength = strength


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"surrogate": "exponential"}, "surrogate .*'hinge'.* got 'exponential'"),
        ({"score": "rank"}, "score must be .* got 'rank'"),
        ({"margins": (1.0,)}, r"margins .* 2 here; got \(1.0,\)"),
        ({"tasks": ["buy"]}, r"tasks .*\['click', 'conversion'\]; got \['buy'\]"),
        ({"tasks": "buy"}, "tasks .* got 'buy'"),
        ({"tasks": [2]}, r"tasks .* got \[2\]"),
        ({"tasks": -3}, "tasks .* got -3"),
        ({"pairs": "all"}, r"pairs .*\['conversion', 'funnel'\]; got 'all'"),
        ({"pwiser_weight": -1.0}, "pwiser_weight must be finite and >= 0; got -1.0"),
        ({"base": "pwiser"}, "base must be one of .*'jrc'.*; got 'pwiser'"),
        ({"base": PWiseR}, "base must be a loss other than PWiseR; got .*PWiseR'"),
        ({"base": "bcd"}, r"base must be one of .*'bce'.*; got 'bcd'"),
        ({"base_params": {"alpha": 1}}, "base_params .*'alpha'"),
        ({"base_params": {"task_names": NAMES}}, "base_params .*'task_names'"),
        (
            {"base": "jrc", "base_params": {"beta": 1}},
            r"base_params .*'beta'.*\'bce_share",
        ),
        (
            {"base": "jrc", "base_params": {"bce_share": 2}},
            "bce_share must be .*; got 2",
        ),
        ({"base": WithParameters}, "base_params lacks .*'strength'"),
    ],
)
def test_bad_values_are_named(params, message):
    with pytest.raises(ValueError, match=message):
        PWiseR(NAMES, **params)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"score": 1}, "score must be .*; got 1"),
        ({"tasks": 1.5}, "tasks must be .*; got 1.5"),
        ({"tasks": True}, "tasks must be .*; got True"),
        ({"tasks": [None]}, r"tasks must be .*; got \[None\]"),
        ({"tasks": [[1]]}, r"tasks must be .*; got \[\[1\]\]"),
        ({"pwiser_weight": "1"}, "pwiser_weight must be a number; got '1'"),
        ({"base": int}, "base must be a name or .*MultiTaskLoss; got <class 'int'>"),
        ({"base": None}, "base must be a name or .*MultiTaskLoss; got None"),
        ({"base": BCE(NAMES)}, r"base must be a name or .*MultiTaskLoss; got BCE\(\)"),
        ({"base_params": [("alpha", 1)]}, r"base_params must be a dict.*; got \[\("),
    ],
)
def test_bad_types_are_named(params, message):
    with pytest.raises(TypeError, match=message):
        PWiseR(NAMES, **params)


def test_a_class_with_parameters_as_base():
    loss = PWiseR(NAMES, base=WithParameters, base_params={"strength": 3})
    assert (type(loss.base), loss.base.strength) == (WithParameters, 3)
    loss = PWiseR(NAMES, base=CombinedPair, base_params={"bce_share": np.float32(0.5)})
    assert loss.base.bce_share == 0.5


def test_numpy_values_are_taken_like_python_numbers():
    plain = PWiseR(NAMES, pwiser_weight=0.5, margins=[1.0, 2.0], tasks=1)
    numpy = PWiseR(
        NAMES,
        pwiser_weight=np.float64(0.5),
        margins=np.array([1.0, 2.0]),
        tasks=np.int32(1),
    )
    logits, y = (
        torch.randn(9, 2),
        torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]] * 3),
    )
    assert numpy(logits, y).equal(plain(logits, y))
