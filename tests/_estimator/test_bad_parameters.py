"""Invalid parameters, and training that diverges.

Errors are raised before training, and an earlier fit stays unchanged, to the bit.
"""

import re
from fractions import Fraction

import numpy as np
import pytest
import torch
from small_model import Fuse, N, X, Y, refuses

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.losses import LOSSES
from sk_pwiser.networks import NETWORKS
from sk_pwiser.weighting import WEIGHTINGS


@pytest.mark.parametrize(
    ("parameter", "registry"),
    [("network", NETWORKS), ("loss", LOSSES), ("weighting", WEIGHTINGS)],
)
def test_errors_about_unknown_names_list_the_known_ones(earlier, parameter, registry):
    for unknown in ("shared_botom", 5, None):
        earlier.set_params(**{parameter: unknown})
        refuses(earlier, ValueError, f"'{parameter}' parameter .* Got {unknown!r}")
        for name in registry:
            refuses(earlier, ValueError, f"'{parameter}' parameter .*'{name}'")


MISSPELT = [
    ({"network": "esm"}, "Got 'esm' instead. Did you mean 'esmm'"),
    ({"loss": "pwisr"}, "Did you mean 'pwiser'"),
    ({"weighting": "uncertanty"}, "Did you mean 'uncertainty'"),
    ({"optimizer": "adm"}, "Did you mean 'adam'"),
    ({"network_params": {"towr_units": (2,)}}, "Did you mean 'tower_units'"),
    ({"loss_params": {"margin": 1}}, "Did you mean 'margins'"),
    ({"weighting": "dwa", "weighting_params": {"temprature": 1}}, "'temperature'"),
    ({"encoding_params": {"max_bin": 1}}, "Did you mean 'max_bins'"),
    ({"encoding_params": {"list_pooling": "meen"}}, "list_pooling .*n 'mean'"),
    ({"optimizer_params": {"beta": 1}}, "Did you mean 'betas'"),
    ({"early_stopping": "auc_convresion"}, "Did you mean 'auc_conversion'"),
    ({"task_parents": {"conversoin": "click"}}, "Did you mean 'conversion'"),
    ({"categorical_features": ["numeric0"]}, "Did you mean 'numeric_0'"),
]


@pytest.mark.parametrize(("params", "message"), MISSPELT)
def test_misspelt_names_are_answered_with_the_nearest(earlier, params, message):
    earlier.set_params(**params)
    refuses(earlier, ValueError, message)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("pwiser_wieght", "pwiser_weight"),
        ("netwrk_params__n_experts", "network_params"),
        ("max_epoch", "max_epochs"),
    ],
)
def test_misspelt_parameters_of_a_search(earlier, name, meant):
    message = rf"(?s)Invalid parameter .* Valid parameters .* Did you mean '{meant}'"
    with pytest.raises(ValueError, match=message):
        earlier.set_params(lr=0.5, **{name: 1})
    assert earlier.lr != 0.5
    with pytest.raises(ValueError, match=message):
        earlier.task(0).set_params(**{f"estimator__{name}": 1})
    with pytest.raises(ValueError, match=r"Valid parameters are: \[.*\]\.$"):
        earlier.set_params(xyz=1)


@pytest.mark.parametrize(
    ("parameter", "name", "known"),
    [
        ("network", "shared_bottom", "bottom_units"),
        ("loss", "pwiser", "margins"),
        ("weighting", "fixed", "weights"),
    ],
)
def test_errors_about_unknown_keys_list_the_known_ones(earlier, parameter, name, known):
    earlier.set_params(**{parameter: name, f"{parameter}_params": {"n_expert": 3}})
    message = rf"{parameter}_params holds 'n_expert', .* it takes \[.*'{known}'"
    refuses(earlier, ValueError, message)
    for wrong in ([("dropout", 0.1)], "dropout", 0.1):
        earlier.set_params(**{f"{parameter}_params": wrong})
        message = f"'{parameter}_params' parameter .* instance of 'dict' or None. Got"
        refuses(earlier, ValueError, f"{message} {re.escape(repr(wrong))}")


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        (
            {"network_params": {"bottom_units": (0,)}},
            ValueError,
            r"bottom_units\[0\] must be an integer >= 1; got 0",
        ),
        ({"network_params": {"bottom_units": 8}}, TypeError, "bottom_units.* got 8"),
        ({"network_params": {1: 2}}, ValueError, "network_params holds 1,"),
        ({"loss_params": {"tasks": np.array(1.5)}}, TypeError, r"tasks.* array\(1.5\)"),
        (
            {"network_params": {"tower_units": np.array(8)}},
            TypeError,
            r"tower_units must be a sequence of layer widths; got array\(8\)",
        ),
        ({"network_params": {"tower_units": "64"}}, TypeError, "widths; got '64'"),
        ({"task_parents": {"conversion": "view"}}, ValueError, "'view', which is not"),
        (
            {"task_parents": {"click": "conversion"}},
            ValueError,
            "'conversion' as the parent of 'click'",
        ),
        ({"task_parents": {1: 1}}, ValueError, "'conversion' as the parent of 'conv"),
        (
            {"early_stopping": "accuracy"},
            ValueError,
            "early_stopping must be .* 'auc_click', .*; got 'accuracy'",
        ),
    ],
)
def test_wrong_values_inside_parameters(earlier, params, error, message):
    refuses(earlier.set_params(**params), error, message)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        *(("pwiser_weight", -0.1), ("pwiser_weight", np.nan)),
        *(("pwiser_weight", np.inf), ("batch_size", 0), ("batch_size", 64.0)),
        *(("embedding_dim", 0), ("lr", 0.0), ("lr", np.nan), ("lr", Fraction(1, 3))),
        *(("weight_decay", Fraction(1, 3)), ("validation_fraction", Fraction(1, 3))),
        *(("weight_decay", -1e-3), ("max_epochs", 0), ("validation_fraction", 0.0)),
        *(("validation_fraction", 1.0), ("n_iter_no_change", 0)),
        *(("precision", "float16"), ("compile", "fast"), ("task_parents", "tree")),
        *(("missing_labels", "drop"), ("checkpoint_dir", 3), ("checkpoint_dir", True)),
        *(("checkpoint_dir", ["folder"]), ("verbose", -1)),
    ],
)
def test_wrong_parameters(earlier, parameter, value):
    earlier.set_params(callbacks=[Fuse()]).set_params(**{parameter: value})
    message = f"'{parameter}' parameter .* Got {re.escape(repr(value))} instead"
    for train in (earlier.fit, earlier.partial_fit):
        with pytest.raises(ValueError, match=message):
            train(X, Y)


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is present")
@pytest.mark.parametrize("device", ["cuda", "cuda:1", torch.device("cuda")])
def test_cuda_on_a_machine_without_it(earlier, device):
    earlier.set_params(device=device)
    message = f"device='{device}' cannot be used on this machine; .*(CUDA|NVIDIA)"
    refuses(earlier, ValueError, message)
    refuses(earlier.set_params(warm_start=True), ValueError, message)


@pytest.mark.parametrize("params", [{}, {"warm_start": True}, {"early_stopping": True}])
def test_an_earlier_fit_survives_training_that_diverges(earlier, params):
    # The first step leaves weights that overflow in the second.
    earlier.set_params(lr=1e20, **params)
    match = r"diverged in epoch \d: the \w+ loss is (nan|inf)\. Use .* lr; it is 1e\+20"
    with pytest.raises(ValueError, match=match):
        earlier.fit(X, Y)


@pytest.mark.parametrize("optimizer", ["rmsprop", "sgd", "adamw", torch.optim.NAdam])
@pytest.mark.parametrize("name", ["lr", "weight_decay", "embedding_lr"])
@pytest.mark.parametrize("value", [1e300, 10**400])
def test_numbers_above_those_of_float32(earlier, optimizer, name, value):
    params = {name: value}
    if name == "embedding_lr":
        params = {"optimizer_params": params}
    earlier.set_params(optimizer=optimizer, **params)
    message = f"optimizer=.* cannot train with .*{name}=1"
    if name == "embedding_lr" and value == 10**400:
        message = "embedding_lr must be finite"
    refuses(earlier, ValueError, message)


def test_steps_that_overflow_are_found_before_training(earlier):
    # Embeddings have up to 20 times the decay, which float32 does not represent.
    earlier.set_params(optimizer=torch.optim.SGD, weight_decay=1e38)
    message = r"optimizer=.* cannot train with .*weight_decay=1e\+38.*overflow"
    refuses(earlier, ValueError, message)


@pytest.mark.parametrize("size", [10**12, 2**62, 10**30])
@pytest.mark.parametrize("name", ["embedding_dim", "tower_units"])
def test_networks_that_no_memory_holds(earlier, size, name):
    params = {name: size}
    if name == "tower_units":
        params = {"network_params": {name: (size,)}}
    message = rf"too large with embedding_dim=.*{size}"
    with pytest.raises(ValueError, match=message) as caught:
        earlier.set_params(callbacks=[Fuse()], **params).fit(X, Y)
    assert "\n" not in str(caught.value)


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
def test_classes_of_another_kind(earlier, parameter, base, wrong):
    earlier.set_params(**{parameter: wrong})
    refuses(
        earlier, TypeError, f"{parameter} must be .* subclass of .*{base}; got <class"
    )


def test_a_weighting_without_a_required_argument(earlier):
    for params in (None, {}):
        earlier.set_params(weighting="fixed", weighting_params=params)
        refuses(
            earlier,
            ValueError,
            "weighting_params lacks an argument that 'fixed' requires: .*'weights'",
        )


@pytest.mark.parametrize("device", ["meta", "hpu", "gpu", "", "cuda:", "CPU"])
def test_devices_that_are_not_on_this_machine(earlier, device):
    earlier.set_params(device=device)
    refuses(earlier, ValueError, f"device='{device}' cannot be used on this machine")


@pytest.mark.parametrize("entry", [1, int, "early_stopping", ("name", 1)])
def test_callbacks_of_another_class(earlier, entry):
    earlier.set_params(callbacks=[Fuse(), entry])
    message = f"callbacks must hold callbacks .*; got {re.escape(repr(entry))}"
    with pytest.raises(TypeError, match=message):
        earlier.fit(X, Y)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_last_step_that_diverges_is_found(earlier, method, optimizer):
    # With one batch and one epoch, the only loss is computed before the only step.
    earlier.set_params(lr=1e20, batch_size=N, max_epochs=1, optimizer=optimizer)
    with pytest.raises(ValueError, match=r"diverged .* Use a smaller lr; it is 1e\+20"):
        getattr(earlier, method)(X, Y)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("learning_rate", "__init__.* the argument is lr"),
        ("n_jobs", "__init__.* by `with sk_pwiser.num_threads"),
        ("class_weight", "__init__.* pass sample_weight to fit"),
        ("learn_rate", "__init__.* the argument is lr"),
        ("pwiser_wieght", "__init__.* the argument is pwiser_weight"),
        ("xyz", "__init__.* got an unexpected keyword argument 'xyz'$"),
    ],
)
def test_names_of_other_packages_are_explained(name, hint):
    with pytest.raises(TypeError, match=hint):
        MultiTaskCTRCVRClassifier(**{name: 1})


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("verbose", "set the parameter verbose of the estimator"),
        ("learning_rate", "set the parameter lr of the estimator"),
        ("early_stopping_rounds", "set the parameter n_iter_no_change of the"),
        ("n_jobs", "num_threads"),
        ("weight", "the argument is sample_weight"),
        ("sampel_weight", "the argument is sample_weight"),
        ("batchsize", "set the parameter batch_size of the estimator"),
    ],
)
def test_parameters_in_fit_are_explained(earlier, method, name, hint):
    refuses(earlier, TypeError, hint, method=method, **{name: 1})
