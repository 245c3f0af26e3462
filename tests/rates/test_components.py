"""Every network, loss, weighting and calibrator at advertising rates.

A form is an entry of one of the lists below. It is trained on the same rows as the
plain form: cross-entropy, a shared bottom and equal weights.
"""

import importlib.util
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.calibration import FunnelCalibrator
from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.losses import LOSSES
from sk_pwiser.networks import NETWORKS, Labels
from sk_pwiser.networks._layers import Gates
from sk_pwiser.transfer import fine_tune
from sk_pwiser.weighting import WEIGHTINGS

# Number of training rows, click rate, and conversion rate among the clicks.
RATES = {"2 %, 0.1 %": (50_000, 0.02, 0.05), "10 %, 1 %": (20_000, 0.1, 0.1)}
N_TEST = 20_000


class Log(NamedTuple):
    """Training rows, and other rows with their true probabilities, `(n, 2)`."""

    X: pd.DataFrame
    Y: pd.DataFrame
    X_test: pd.DataFrame
    Y_test: pd.DataFrame
    truth: np.ndarray


def make_log(n, ctr, cvr):
    sizes = {"n_numeric": 4, "n_categorical": 2, "n_categories": 20}
    data = make_ctr_cvr(n + N_TEST, ctr=ctr, cvr=cvr, random_state=0, **sizes)
    truth = np.column_stack([data.ctr, data.ctr * data.cvr])
    halves = data.data[:n], data.target[:n], data.data[n:], data.target[n:]
    return Log(*halves, truth[n:])


def make_model(**params):
    """Return a small estimator with batches of 512 rows and cross-entropy."""
    defaults = {
        "network_params": {"bottom_units": (32,), "tower_units": (8,)},
        "loss": "bce",
        "batch_size": 512,
        "max_epochs": 4,
        "lr": 0.005,
        "early_stopping": False,
        "target_encoding": False,
        "numeric_encoding": "standard",
        "embedding_dim": 4,
        "random_state": 0,
    }
    return MultiTaskCTRCVRClassifier(**{**defaults, **params})


def expected_auc(score, probability):
    """Return the AUC of a score, averaged over the labels that may be drawn."""
    order = np.argsort(score)
    ones, zeros = probability[order], 1 - probability[order]
    return ones @ (zeros.cumsum() - zeros / 2) / (ones.sum() * zeros.sum())


class Fits:
    """Fits of a log, each made once."""

    def __init__(self, log):
        self.log, self._models = log, {}

    def model(self, **params):
        key = repr(sorted(params.items()))
        if key not in self._models:
            model = make_model(**params).fit(self.log.X, self.log.Y)
            self._models[key] = model
        return self._models[key]

    def aucs(self, model):
        """Return the expected AUC of each task in the rows that were not trained on."""
        p = model.predict_proba(self.log.X_test)
        pairs = zip(p.T, self.log.truth.T, strict=True)
        return np.array([expected_auc(*pair) for pair in pairs])


@pytest.fixture(
    scope="module",
    params=[pytest.param("2 %, 0.1 %", marks=pytest.mark.slow), "10 %, 1 %"],
)
def fits(request):
    """The fits of a log, which all tests share."""
    return Fits(make_log(*RATES[request.param]))


TASKS = ["click", "conversion"]
EXPERTS = {"expert_units": (32,), "tower_units": (8,)}
BOTTOM = {"bottom_units": (32,), "tower_units": (8,)}
TOWERS = {"tower_units": (32, 8)}
SIZES = {
    **dict.fromkeys(["aitm", "dcmt", "ddpo", "escm2", "esmm"], TOWERS),
    **dict.fromkeys(["ctcl", "shared_bottom", "single_task"], BOTTOM),
}


def network(name, **params):
    sizes = SIZES.get(name, EXPERTS)
    return {"network": name, "network_params": {**sizes, **params}}


# Parameters of the estimator.
FORMS = {
    **{f"network {name}": network(name) for name in sorted(NETWORKS)},
    "network escm2 dr": network("escm2", variant="dr"),
    "network mmoe conditional": network("mmoe", task_space="conditional"),
    **{f"loss {name}": {"loss": name} for name in sorted(LOSSES)},
    **{f"weighting {name}": {"weighting": name} for name in sorted(WEIGHTINGS)},
    "sibling tasks": {"task_parents": None, "loss": "pwiser"},
}
FORMS["weighting fixed"]["weighting_params"] = {"weights": [1.0, 5.0]}
if importlib.util.find_spec("torchjd") is None:
    del FORMS["weighting torchjd"]
# Forms that predict another number of events than there are, with the reason.
NOT_CALIBRATED = {
    "loss combined_pair": "its pairs outweigh the cross-entropy of rare tasks",
    "loss focal": "it predicts rare events several times too often",
    "weighting nash": "a batch with a conversion reduces its own weight",
    "weighting torchjd": "weights are computed from the batch that they weight",
}
FAST = {"loss pwiser", "network escm2", "weighting ema"}
# How far the AUC of each task may lie below that of the plain form.
TOLERANCES = {
    "loss focal": (0.02, 0.03),
    # It shares nothing between the tasks, and conversions are few.
    "network single_task": (0.01, 0.06),
}
CALIBRATORS = {
    method: lambda model, method=method: FunnelCalibrator(model, method=method)
    for method in ("isotonic", "sigmoid")
}


def assert_counts(predicted, observed, n_errors=2.5):
    """Check sums of probabilities by the standard errors of the observed counts."""
    distance = (predicted - np.asarray(observed)) / np.sqrt(observed)
    assert_allclose(distance, 0, atol=n_errors)


def outputs(model, X):
    """Return what the network returns for rows, in evaluation mode."""
    found = []
    net = model.net_.module_
    handle = net.register_forward_hook(lambda *args: found.append(args[-1]))
    try:
        model.predict_proba(X)
    finally:
        handle.remove()
    return found


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(value, marks=() if value in FAST else pytest.mark.slow)
        for value in sorted(FORMS.keys() - NOT_CALIBRATED)
    ],
)
def test_predicts_as_many_events_as_there_are(fits, form):
    p = fits.model(**FORMS[form]).predict_proba(fits.log.X)
    assert_counts(p.sum(axis=0), fits.log.Y.sum())


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(value, marks=() if value in FAST else pytest.mark.slow)
        for value in sorted(FORMS)
    ],
)
def test_auc_is_no_worse_than_that_of_the_plain_form(fits, form):
    found = fits.aucs(fits.model(**FORMS[form]))
    plain = fits.aucs(fits.model())
    assert (plain > 0.7).all()
    assert (found > plain - np.array(TOLERANCES.get(form, (0.01, 0.025)))).all()


@pytest.mark.filterwarnings("ignore:Too few events for method='isotonic'")
@pytest.mark.parametrize("method", CALIBRATORS)
def test_calibrated_probabilities_add_up_to_the_events(fits, method):
    calibrator = CALIBRATORS[method](fits.model())
    calibrator.fit(fits.log.X_test, fits.log.Y_test)
    p = calibrator.predict_proba(fits.log.X_test)
    assert_counts(p.sum(axis=0), fits.log.Y_test.sum())
    assert (fits.aucs(calibrator) > fits.aucs(fits.model()) - 0.01).all()


def test_transferred_models_predict_as_many_events_as_there_are(fits):
    half = len(fits.log.X) // 2
    X, Y = fits.log.X[half:], fits.log.Y[half:]
    model = fine_tune(fits.model(), X, Y)
    assert_counts(model.predict_proba(X).sum(axis=0), Y.sum())
    assert (fits.aucs(model) > fits.aucs(fits.model()) - [0.01, 0.025]).all()


GATED = ["mmoe", "omoe", "ple", "stem", "metaheac"]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(value, marks=() if value in ["ple"] else pytest.mark.slow)
        for value in GATED
    ],
)
def test_gates_use_all_experts(fits, name, monkeypatch):
    found, compute = [], Gates.logits

    def record(gates, inputs):
        logits = compute(gates, inputs)
        found.append(logits.softmax(dim=2).mean(dim=0))
        return logits

    model = fits.model(**network(name))
    monkeypatch.setattr(Gates, "logits", record)
    model.predict_proba(fits.log.X_test)
    assert found
    for shares in found:
        assert shares.min() > 0.1 / shares.shape[1]


def weights_of(model):
    return np.array([model.history_[-1, f"train_weight_{task}"] for task in TASKS])


def test_weights_of_dwa_are_moderate(fits):
    ratio = np.divide(*weights_of(fits.model(weighting="dwa")))
    assert 1 / 1.5 < ratio < 1.5


def test_the_weights_of_ema_are_the_inverse_losses(fits):
    rates = fits.log.Y.mean().to_numpy()
    entropies = -rates * np.log(rates) - (1 - rates) * np.log1p(-rates)
    scaled = weights_of(fits.model(weighting="ema")) * entropies
    assert (scaled > 0.9).all()
    # The mean of an inverse is above the inverse of the mean.
    assert (scaled < 2).all()


@pytest.mark.parametrize("name", ["escm2", "ddpo", "dcmt"])
def test_propensity_weights_add_up_to_the_rows(fits, name):
    model = fits.model(**network(name))
    module = model.net_.module_
    parts = [
        torch.stack(
            module._propensities(Labels(None, None, None, logits=output.logits))
        )
        for output in outputs(model, fits.log.X)
    ]
    propensities = torch.cat(parts, dim=1)[:, :, 0].cpu().numpy()
    click = fits.log.Y["click"].to_numpy()
    known = np.stack([click, 1 - click])
    smallest = propensities.min(axis=1, keepdims=True)
    assert ((propensities <= smallest * 1.001).mean(axis=1) < 0.1).all()
    ratios = (known / propensities).mean(axis=1)
    assert_allclose(ratios, 1, atol=4 / np.sqrt(click.sum()))


@pytest.mark.slow
def test_decay_does_not_outweigh_a_rare_task_that_shares_nothing():
    # With the full weight decay, the second task has the same prediction for all rows.
    rng, n = np.random.default_rng(0), 60_000
    X = rng.normal(size=(2 * n, 4)).astype(np.float32)
    rate = 0.004 * np.exp(0.3 * X[:, 0] - 0.045)
    rare = rng.random(2 * n) < rate
    often = (rng.random(2 * n) < 0.4) | rare
    Y = np.column_stack([often, rare]).astype(np.int64)
    sizes = {"bottom_units": (32, 16), "tower_units": (16,)}
    model = make_model(network="single_task", network_params=sizes)
    logits = model.fit(X[:n], Y[:n]).predict_logits(X[n:])[:, 1]
    assert logits.std() > 0.05
    assert expected_auc(logits, rate[n:]) > 0.53
