"""The warning about funnels in which a later task is likelier."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._training._batches import Impressions
from sk_pwiser._training._end_of_training import find_rises
from sk_pwiser.datasets import make_ctr_cvr

DATA = make_ctr_cvr(4_000, ctr=0.2, cvr=0.7, random_state=0)
REPEATS = np.random.default_rng(0).random(len(DATA.data)) < 0.97
THREE = DATA.target.assign(repeat=DATA.target["conversion"] * REPEATS)


def fit(labels, **params):
    params = {"max_epochs": 6, "early_stopping": False, "random_state": 0, **params}
    return MultiTaskCTRCVRClassifier(**params).fit(DATA.data, labels)


def test_a_later_task_that_is_likelier_is_named_with_the_share():
    message = r"'repeat' is predicted as more probable than 'conversion' in (\d+)% of a"
    with pytest.warns(UserWarning, match=message) as caught:
        model = fit(THREE, loss="bce")
    assert len(caught) == 1
    assert caught[0].filename == __file__
    p = model.predict_proba(DATA.data)
    share = int(str(caught[0].message).split(" in ")[1].split("%")[0]) / 100
    assert share == pytest.approx((p[:, 2] > p[:, 1]).mean(), abs=0.08)


@pytest.mark.parametrize(
    "params",
    [
        {"network_params": {"task_space": "conditional"}},
        {"network": "esmm"},
    ],
)
def test_these_prevent_it(params):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = fit(THREE, **params)
    assert (np.diff(model.predict_proba(DATA.data)) <= 1e-6).all()


@pytest.mark.parametrize("loss", ["bce", "pwiser"])
def test_no_warning_for_two_ordinary_tasks(loss):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(DATA.target, loss=loss)


class Net:
    task_names = ("click", "conversion")
    module_ = SimpleNamespace(spec=SimpleNamespace(parents=(-1, 0)))

    def __init__(self):
        self.sizes = []

    def forward(self, rows):
        self.sizes.append(len(rows))
        return torch.zeros(len(rows), 2)


@pytest.mark.parametrize(
    ("n_rows", "n_epochs", "expected"),
    [
        (1_000_000, 5, [2_000]),
        (10_000, 2, [400]),
        (10_000, 100, [2_000]),
        (1_000, 100, [1_000]),
        (1_000, 5, []),
    ],
)
def test_the_sample_is_bounded(n_rows, n_epochs, expected):
    net = Net()
    rows = Impressions(torch.zeros(n_rows, 1), torch.zeros(n_rows, 0))
    assert find_rises(net, rows, n_epochs) is None
    assert net.sizes == expected
