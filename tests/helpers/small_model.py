"""A small estimator with its data, and a check that it raises before training."""

import warnings

import pytest
from skorch.callbacks import Callback

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import make_ctr_cvr

N = 300
DATA = make_ctr_cvr(N, ctr=0.4, cvr=0.4, random_state=0)
X, Y = DATA.data, DATA.target


class TrainingBegan(Exception):
    pass


class Fuse(Callback):
    """Raises as soon as training begins."""

    def on_train_begin(self, net, **kwargs):
        raise TrainingBegan

    on_epoch_begin = on_train_begin


def warnings_in(function, *args, **kwargs):
    """Return the messages of warnings, which must refer to the line of the call."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        function(*args, **kwargs)
    assert {(w.category, w.filename) for w in caught} <= {(UserWarning, __file__)}
    return [str(w.message) for w in caught]


def small(**params):
    """Return an estimator that trains within a moment, on the device of the tests."""
    defaults = {
        "network_params": {"bottom_units": (8,), "tower_units": (4,)},
        "lr": 3e-3,
        "lr_schedule": None,  # two fits then equal one longer fit
        "batch_size": 100,
        "max_epochs": 2,
        "early_stopping": False,  # "auto" trains few steps on few rows
        "random_state": 0,
    }
    return MultiTaskCTRCVRClassifier(**{**defaults, **params})


def refuses(model, error, message, X=X, Y=Y, method="fit", **kwargs):
    """Check that a method raises this error with this message before training."""
    model.set_params(callbacks=[Fuse()])
    with pytest.raises(error, match=message):
        getattr(model, method)(X, Y, **kwargs)
