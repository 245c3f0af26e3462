"""Parameters that the estimator refuses, and training that diverges.

Every refusal comes before training and leaves an earlier fit as it was, to the bit.
"""

import copy
import re

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from skorch.callbacks import Callback

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.losses import LOSSES
from sk_pwiser.networks import NETWORKS
from sk_pwiser.weighting import WEIGHTINGS

N = 300
DATA = make_ctr_cvr(N, ctr=0.4, cvr=0.4, random_state=0)
X, Y = DATA.data, DATA.target


class TrainingBegan(Exception):
    pass


class Fuse(Callback):
    """Blows as soon as training begins."""

    def on_train_begin(self, net, **kwargs):
        raise TrainingBegan

    on_epoch_begin = on_train_begin


def small(**params):
    defaults = {
        "network_params": {"bottom_units": (8,), "tower_units": (4,)},
        "batch_size": 100,
        "max_epochs": 2,
        "random_state": 0,
    }
    return MultiTaskCTRCVRClassifier(**{**defaults, **params})


@pytest.fixture(scope="module")
def trained():
    model = small().fit(X, Y)
    return model, model.predict_proba(X)


@pytest.fixture
def fitted(trained):
    """An earlier fit, which must come out of the test as it went in."""
    earlier, predictions = trained
    model = copy.deepcopy(earlier)
    before = {name: value for name, value in vars(model).items() if name[-1] == "_"}
    yield model
    after = {name: value for name, value in vars(model).items() if name[-1] == "_"}
    assert after.keys() == before.keys()
    assert all(after[name] is before[name] for name in before)
    assert_array_equal(model.predict_proba(X), predictions)
    assert len(model.history_) == model.n_iter_ == 2


def refuses(model, error, message):
    """Check that fit refuses its parameters before training, and says why."""
    with pytest.raises(error, match=message):
        model.set_params(callbacks=[Fuse()]).fit(X, Y)


@pytest.mark.parametrize(
    ("parameter", "registry"),
    [("network", NETWORKS), ("loss", LOSSES), ("weighting", WEIGHTINGS)],
)
def test_unknown_names_are_answered_by_the_known_ones(fitted, parameter, registry):
    for unknown in ("shared_botom", 5, None):
        fitted.set_params(**{parameter: unknown})
        message = f"'{parameter}' parameter .* Got {unknown!r}"
        refuses(fitted, ValueError, message)
        for name in registry:
            refuses(fitted, ValueError, f"'{parameter}' parameter .*'{name}'")


@pytest.mark.parametrize(
    ("parameter", "name", "known"),
    [
        ("network", "shared_bottom", "bottom_units"),
        ("loss", "pwiser", "margins"),
        ("weighting", "fixed", "weights"),
    ],
)
def test_unknown_keys_are_answered_by_the_known_ones(fitted, parameter, name, known):
    fitted.set_params(**{parameter: name, f"{parameter}_params": {"n_expert": 3}})
    message = rf"{parameter}_params holds 'n_expert', .* it takes \[.*'{known}'"
    refuses(fitted, ValueError, message)
    for wrong in ([("dropout", 0.1)], "dropout", 0.1):
        fitted.set_params(**{f"{parameter}_params": wrong})
        message = f"'{parameter}_params' parameter .* instance of 'dict' or None. Got"
        refuses(fitted, ValueError, f"{message} {re.escape(repr(wrong))}")


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        (
            {"network_params": {"bottom_units": (0,)}},
            ValueError,
            r"bottom_units.*\(0,\)",
        ),
        ({"network_params": {"bottom_units": 8}}, TypeError, "bottom_units.* got 8"),
        ({"network_params": {"dropout": 2}}, ValueError, "dropout.* got 2"),
        ({"network_params": {1: 2}}, ValueError, "network_params holds 1,"),
        (
            {"loss_params": {"surrogate": "cubic"}},
            ValueError,
            "surrogate.* got 'cubic'",
        ),
        ({"loss_params": {"margins": (1.0,)}}, ValueError, r"margins.* got \(1.0,\)"),
        ({"loss_params": {"tasks": ["buy"]}}, ValueError, "tasks.* got 'buy'"),
        (
            {"weighting": "fixed", "weighting_params": {"weights": [1, -1]}},
            ValueError,
            r"weights.* got \[1, -1\]",
        ),
        (
            {"weighting": "fixed", "weighting_params": {"weights": [1]}},
            ValueError,
            r"weights.* 2 here; got \[1\]",
        ),
        (
            {"categorical_features": ["nope"]},
            ValueError,
            "categorical_features.*'nope'",
        ),
        ({"categorical_features": [99]}, ValueError, "categorical_features holds 99"),
        (
            {"categorical_features": [True]},
            ValueError,
            "one entry a column, 12; it has 1",
        ),
    ],
)
def test_wrong_values_inside_parameters(fitted, params, error, message):
    refuses(fitted.set_params(**params), error, message)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("pwiser_weight", -0.1),
        ("pwiser_weight", np.nan),
        ("pwiser_weight", np.inf),
        ("pwiser_weight", "0.1"),
        ("batch_size", 0),
        ("batch_size", 64.0),
        ("embedding_dim", 0),
        ("unseen_rate", 1.0),
        ("optimizer", "lion"),
        ("lr", 0.0),
        ("lr", np.nan),
        ("weight_decay", -1e-3),
        ("max_epochs", 0),
        ("early_stopping", "accuracy"),
        ("early_stopping", None),
        ("validation_fraction", 0.0),
        ("validation_fraction", 1.0),
        ("n_iter_no_change", 0),
        ("device", 0),
        ("precision", "float16"),
        ("callbacks", "EarlyStopping"),
        ("warm_start", "yes"),
        ("verbose", -1),
        ("random_state", "seed"),
        ("categorical_features", "by_name"),
    ],
)
def test_wrong_parameters(fitted, parameter, value):
    fitted.set_params(callbacks=[Fuse()]).set_params(**{parameter: value})
    message = f"'{parameter}' parameter .* Got {re.escape(repr(value))} instead"
    with pytest.raises(ValueError, match=message):
        fitted.fit(X, Y)


@pytest.mark.parametrize("device", ["gpu", "", "cuda:", "CPU"])
def test_nonsense_for_a_device(fitted, device):
    fitted.set_params(device=device)
    refuses(fitted, ValueError, f"device='{device}' is no device of torch")


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is present")
@pytest.mark.parametrize("device", ["cuda", "cuda:1", torch.device("cuda")])
def test_cuda_where_there_is_none(fitted, device):
    fitted.set_params(device=device)
    refuses(fitted, ValueError, f"device='{device}', but torch finds no CUDA here")
    # Warm starts go on elsewhere only where that is present.
    refuses(fitted.set_params(warm_start=True), ValueError, "finds no CUDA")


@pytest.mark.parametrize("params", [{}, {"warm_start": True}, {"early_stopping": True}])
def test_training_that_diverges_keeps_the_earlier_fit(fitted, params):
    # The first step leaves weights that overflow in the second.
    fitted.set_params(lr=1e20, **params)
    match = r"diverged in epoch \d: the \w+ loss is (nan|inf). Lower lr, .* 1e\+20"
    with pytest.raises(ValueError, match=match):
        fitted.fit(X, Y)


def test_partial_fit_that_diverges_keeps_what_was_learnt(fitted):
    with pytest.raises(ValueError, match=r"diverged .* Lower lr, which is 1e\+20"):
        fitted.set_params(lr=1e20).partial_fit(X, Y)


@pytest.mark.parametrize("wrong", [int, dict, torch.nn.Linear])
@pytest.mark.parametrize(
    ("parameter", "base"),
    [
        ("network", "MultiTaskNetwork"),
        ("loss", "MultiTaskLoss"),
        ("weighting", "TaskWeighting"),
        ("optimizer", "Optimizer"),
    ],
)
def test_classes_of_another_kind(fitted, parameter, base, wrong):
    fitted.set_params(**{parameter: wrong})
    refuses(
        fitted, TypeError, f"{parameter} must be .* subclass of {base}.* got <class"
    )


def test_a_weighting_without_what_it_needs(fitted):
    for params in (None, {}):
        fitted.set_params(weighting="fixed", weighting_params=params)
        refuses(
            fitted, ValueError, "weighting_params lacks what 'fixed' needs: .*'weights'"
        )


@pytest.mark.parametrize("device", ["meta", "hpu"])
def test_devices_of_torch_that_this_machine_has_not(fitted, device):
    fitted.set_params(device=device)
    refuses(fitted, ValueError, f"device='{device}' cannot be used on this machine")


@pytest.mark.parametrize("entry", [1, int, "early_stopping", ("name", 1)])
def test_callbacks_that_are_none(fitted, entry):
    fitted.set_params(callbacks=[Fuse(), entry])
    message = f"callbacks must hold callbacks of skorch; got {re.escape(repr(entry))}"
    with pytest.raises(TypeError, match=message):
        fitted.fit(X, Y)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [("batch_size", 0), ("lr", np.nan), ("pwiser_weight", -1.0), ("optimizer", "lion")],
)
def test_wrong_parameters_of_a_later_partial_fit(fitted, parameter, value):
    fitted.set_params(callbacks=[Fuse()]).set_params(**{parameter: value})
    message = f"'{parameter}' parameter .* Got {re.escape(repr(value))} instead"
    with pytest.raises(ValueError, match=message):
        fitted.partial_fit(X, Y)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_last_step_that_diverges_is_seen(fitted, method, optimizer):
    # One batch and one epoch: the only loss is that before the only step.
    fitted.set_params(lr=1e20, batch_size=N, max_epochs=1, optimizer=optimizer)
    with pytest.raises(ValueError, match=r"diverged .* Lower lr, which is 1e\+20"):
        getattr(fitted, method)(X, Y)
