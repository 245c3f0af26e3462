"""After the last step: divergence, and rises of the funnel."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit, xlogy
from small_model import X, Y, small

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._rows._encoded_rows import Impressions
from sk_pwiser._training._divergence import excess_loss
from sk_pwiser._training._rises import find_rises
from sk_pwiser.datasets import ParquetImpressions, make_ctr_cvr
from sk_pwiser.networks import NetworkOutput


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("rate", [0.3, 0.001])
def test_the_loss_is_compared_with_that_of_constant_probabilities(weighted, rate):
    rng = np.random.default_rng(0)
    y = (rng.random((2_000, 2)) < rate).astype(float)
    weights = rng.uniform(0.5, 2, len(y)) if weighted else np.ones(len(y))
    total = weights.sum()
    p = (weights @ y + 3) / (total + 6)
    constant = -(weights @ (xlogy(y, p) + xlogy(1 - y, 1 - p))).sum() / (total + 1)
    found = excess_loss(
        torch.full(y.shape, -1e5 * rate),
        torch.tensor(y),
        torch.tensor(weights) if weighted else None,
        p.tolist(),
    )
    assert re.fullmatch(
        rf"\d.*, where constant probabilities have {constant:.3g}", found
    )
    good = torch.tensor(y * 4 - 2)
    assert excess_loss(good, torch.tensor(y), None, p.tolist()) is None
    equal = torch.tensor(np.broadcast_to(np.log(p / (1 - p)), y.shape).copy())
    assert excess_loss(equal, torch.tensor(y), None, p.tolist()) is None


def test_rows_without_events_are_no_divergence():
    # Those of a new market, which had 4 % of clicks before.
    none, logits = torch.zeros(500, 2), torch.full((500, 2), -3.2)
    rates = [0.04, 0.04]
    assert excess_loss(logits, none, None, rates) is None
    assert excess_loss(-logits, none, None, rates) is not None
    # Training may have begun with weights of other rates than those of the rows.
    logits, rates = logits + 1.2, [1e-3, 1e-3]
    assert excess_loss(logits, none, None, rates) is not None
    assert excess_loss(logits, none, None, rates, [0.1, 0.1]) is None
    assert excess_loss(logits, none + 1, None, rates, [1.0, 1.0]) is None


@pytest.mark.filterwarnings("error:Training diverged")
def test_the_order_of_rows_and_their_selection_are_no_divergence():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4_000, 1))
    y = np.sort((rng.random(len(x)) < 0.15).astype(int))
    model = small(max_epochs=2, early_stopping=False).fit(x, y)
    assert model.best_epoch_ == model.n_iter_ == 2
    # Late conversions of a log with 2 % of them.
    y = (rng.random(len(x)) < 0.02).astype(int)
    model = small().partial_fit(x, y)
    model.partial_fit(x[y == 1], y[y == 1])
    # A log that kept few of the rows without a click.
    y = (rng.random(len(x)) < 0.8).astype(int)
    sampled = small(max_epochs=2, early_stopping=False, negative_sampling_rate=1e-4)
    assert sampled.fit(x, y).best_epoch_ == 2


def test_large_weights_of_a_term_are_no_divergence():
    # The pairwise term is a thousand times the cross-entropy from the beginning,
    # though batches of a few rows without a conversion have no pairs.
    model = small(pwiser_weight=1e4, lr=1e-4, batch_size=3, max_epochs=1, loss="pwiser")
    assert model.fit(X[:60], Y[:60]).history_[0, "train_loss"] > 100


@pytest.mark.slow
def test_labels_that_change_are_no_divergence():
    x, y = X[:100], Y.iloc[:100, :1]
    model = small(lr=0.05, weight_decay=0.0, batch_size=20)
    for _ in range(60):
        model.partial_fit(x, y)
    assert model.history_[-1, "train_loss"] < 0.1
    model.partial_fit(x, 1 - y)
    assert model.history_[-1, "train_loss"] > 1.0


DATA = make_ctr_cvr(4_000, ctr=0.2, cvr=0.7, random_state=0)
REPEATS = np.random.default_rng(0).random(len(DATA.data)) < 0.97
THREE = DATA.target.assign(repeat=DATA.target["conversion"] * REPEATS)


def fit(labels, **params):
    params = {"max_epochs": 6, "early_stopping": False, "random_state": 0, **params}
    return MultiTaskCTRCVRClassifier(**params).fit(DATA.data, labels)


def test_a_later_task_that_is_likelier_is_named_with_the_share():
    message = r"'repeat' is predicted as more probable than 'conversion' in (\d+)% of a"
    with pytest.warns(UserWarning, match=message) as caught:
        model = fit(THREE, loss="bce", weight_decay=0)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    p = model.predict_proba(DATA.data)
    share = int(str(caught[0].message).split(" in ")[1].split("%")[0]) / 100
    assert share == pytest.approx((p[:, 2] > p[:, 1]).mean(), abs=0.08)


@pytest.mark.parametrize(
    "params", [{"network_params": {"task_space": "conditional"}}, {"network": "esmm"}]
)
def test_these_prevent_it(params):
    model = fit(THREE, **params)  # without a warning, which would be an error
    assert (np.diff(model.predict_proba(DATA.data)) <= 1e-6).all()


@pytest.mark.parametrize("loss", ["bce", "pwiser"])
def test_no_warning_for_two_ordinary_tasks(loss):
    fit(DATA.target, loss=loss)


class Net:
    task_names = ("click", "conversion")
    module_ = SimpleNamespace(spec=SimpleNamespace(event_parents=(-1, 0)))

    def __init__(self):
        self.sizes = []

    def _set_training(self, training):
        assert not training

    def get_iterator(self, rows):
        self.sizes.append(len(rows))
        return [({"rows": rows}, None)]

    def infer(self, inputs):
        return NetworkOutput(torch.zeros(len(inputs["rows"]), 2))


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


def log_of_ids(n=3_000, n_ids=600):
    """Return ids, some also as lists, and labels whose rates differ by id."""
    rng = np.random.default_rng(0)
    ids, rates = rng.integers(0, n_ids, n), expit(rng.normal(0, 1.5, n_ids))
    click = rng.random(n) < rates[ids]
    conversion = click & (rng.random(n) < 0.4)
    X = pd.DataFrame({"id": ids}).astype("category")
    # Rows with equal inputs share a block, and could not tell each other's labels.
    X["noise"] = rng.normal(size=n)
    X["last"] = [[f"v{v % 7}"] * (v % 3) for v in ids]
    return X, pd.DataFrame({"click": click, "conversion": conversion}).astype(float)


@pytest.mark.parametrize("kind", ["table", "lists", "files", "missing labels"])
def test_labels_that_many_epochs_memorize_are_named(kind, tmp_path):
    given, labels = log_of_ids()
    if kind == "missing labels":
        labels.loc[::3, "conversion"] = np.nan
    params = {"missing_labels": "ignore", "batch_size": 100, "loss": "bce"}
    if kind == "lists":
        params["encoding_params"] = {"list_target_encoding": ["last"]}
    else:
        given = given[["id", "noise"]]
    arguments = given, labels
    if kind == "files":
        given.astype({"id": int}).join(labels).to_parquet(tmp_path / "rows.parquet")
        rows = ParquetImpressions(tmp_path, ["id", "noise"], [*labels])
        arguments = (rows,)
        params["categorical_features"] = ["id"]

    def fit(**further):
        return small(early_stopping=False, **params).set_params(**further)

    with pytest.warns(UserWarning, match="^25 epochs without early.* memorized labels"):
        fit(max_epochs=25).fit(*arguments)
    # Warnings are errors.
    fit(max_epochs=4).fit(*arguments)
    fit(max_epochs=25, early_stopping=True).fit(*arguments)
    if kind == "table":
        fit(max_epochs=25, target_encoding=False).fit(*arguments)
