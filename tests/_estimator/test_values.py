"""Values: amounts of money under an event, in every way to train and to predict."""

import pickle
from copy import deepcopy

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from small_model import small

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.calibration import FunnelCalibrator
from sk_pwiser.datasets import ParquetImpressions, make_ctr_cvr
from sk_pwiser.metrics import mean_auc_scorer
from sk_pwiser.networks import NETWORKS, MultiTaskNetwork, NetworkOutput
from sk_pwiser.weighting import WEIGHTINGS

N = 600
LOG = make_ctr_cvr(N, ctr=0.5, cvr=0.5, random_state=0)
RNG = np.random.default_rng(0)
X = LOG.data
EVENTS = LOG.target
SPEND = np.where(EVENTS["conversion"] == 1, RNG.gamma(2, 20, N), 0)
Y = EVENTS.assign(spend=SPEND, watch=RNG.gamma(2, 3, N))
VALUE_TASKS = {"spend": "conversion", "watch": None}


def valued(**params):
    return small(**{"value_tasks": VALUE_TASKS, **params})


@pytest.fixture(scope="module")
def model():
    return valued().fit(X, Y)


def total_given_events(model, X=X, Y=Y):
    """Return predicted over observed totals in the rows with each event."""
    predicted = model.predict_value(X, given_event=True)
    bought = Y["conversion"] == 1
    return (
        predicted[bought, 0].sum() / Y["spend"][bought].sum(),
        predicted[:, 1].sum() / Y["watch"].sum(),
    )


def test_the_value_of_an_impression_is_a_probability_times_a_mean(model):
    values = model.predict_value(X)
    given_event = model.predict_value(X, given_event=True)
    assert values.shape == (N, 2)
    p = model.predict_proba(X)[:, 1]
    assert_allclose(values[:, 0], given_event[:, 0] * p, rtol=1e-5)
    assert_array_equal(values[:, 1], given_event[:, 1])  # of every impression
    assert model.value_names_ == ["spend", "watch"]
    assert model.n_tasks_ == 2
    one = small(value_tasks={"spend": "conversion"}).fit(X, Y.drop(columns="watch"))
    assert one.predict_value(X).shape == (N,)


@pytest.mark.parametrize("loss", ["gamma", "lognormal"])
def test_totals_agree_with_those_of_the_rows(loss):
    model = valued(value_loss=loss, max_epochs=1).fit(X, Y)
    assert_allclose(total_given_events(model), 1, rtol=1e-4)


def test_tweedie_predicts_means_per_impression():
    model = valued(value_loss="tweedie").fit(X, Y)
    values = model.predict_value(X)
    assert_allclose(values.sum(axis=0), Y[["spend", "watch"]].sum(), rtol=1e-4)
    p = model.predict_proba(X)[:, 1]
    given_event = model.predict_value(X, given_event=True)
    assert_allclose(given_event[:, 0], values[:, 0] / p, rtol=1e-5)


def test_amounts_in_another_unit_give_predictions_in_that_unit(model):
    scaled = valued().fit(X, Y.assign(spend=1000 * Y["spend"]))
    ratio = scaled.predict_value(X)[:, 0] / model.predict_value(X)[:, 0]
    assert_allclose(ratio, 1000, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:Task 'conversion' is predicted as more probable")
def test_a_value_is_learnt():
    """Amounts of two groups differ by a factor of ten."""
    group = RNG.integers(0, 2, N)
    amounts = 10.0**group * RNG.lognormal(sigma=0.2, size=N)
    labels = EVENTS.assign(spend=np.where(EVENTS["conversion"] == 1, amounts, 0))
    model = small(
        value_tasks={"spend": "conversion"}, max_epochs=20, lr=0.03, batch_size=50
    )
    model.fit(X.assign(group=group.astype(str)), labels)
    found = model.predict_value(X.assign(group=group.astype(str)), given_event=True)
    ratio = found[group == 1].mean() / found[group == 0].mean()
    assert 6 < ratio < 14


@pytest.mark.parametrize("task_space", ["entire", "conditional"])
@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_has_heads_of_values(network, task_space):
    params = {"task_space": task_space}
    model = valued(network=network, network_params=params, max_epochs=1).fit(X, Y)
    assert_allclose(total_given_events(model), 1, rtol=1e-3)


@pytest.mark.parametrize("weighting", sorted(set(WEIGHTINGS) - {"torchjd"}))
def test_every_weighting_combines_losses_of_values(weighting):
    params = {"weights": [1, 1, 0.5, 0.5]} if weighting == "fixed" else None
    model = valued(weighting=weighting, weighting_params=params, max_epochs=1)
    assert_allclose(total_given_events(model.fit(X, Y)), 1, rtol=1e-3)


class OwnNetwork(MultiTaskNetwork):
    """Knows nothing of values: it has one head per task of the specification."""

    def __init__(self, spec):
        super().__init__(spec)
        self.head = torch.nn.Linear(self.width, self.n_tasks)

    def forward(self, codes, numeric):
        return NetworkOutput(self.head(self.input_layer(codes, numeric)))


def test_networks_of_users_need_no_change():
    model = valued(network=OwnNetwork, network_params=None).fit(X, Y)
    assert_allclose(total_given_events(model), 1, rtol=1e-3)


def test_missing_amounts_count_for_nothing():
    bought = Y["conversion"] == 1
    unknown = Y.assign(spend=Y["spend"].where(~bought | (Y.index % 2 == 0)))
    model = valued().fit(X, unknown)
    known = bought & unknown["spend"].notna()
    predicted = model.predict_value(X, given_event=True)[known, 0]
    assert_allclose(predicted.sum(), unknown["spend"][known].sum(), rtol=1e-4)


def test_weights_count_like_copies_in_totals():
    weight = np.where(EVENTS["click"] == 1, 3.0, 1.0)
    weight[::2] *= 2
    model = valued().fit(X, Y, sample_weight=weight)
    bought = Y["conversion"] == 1
    predicted = (weight * model.predict_value(X, given_event=True)[:, 0])[bought].sum()
    assert_allclose(predicted, (weight * Y["spend"])[bought].sum(), rtol=1e-4)


def test_updates_move_the_level_as_far_as_their_amounts_tell():
    model = valued().fit(X, Y)
    doubled = Y.assign(spend=2 * Y["spend"])
    for _ in range(6):
        model.partial_fit(X, doubled)
    total, _ = total_given_events(model, Y=doubled)
    assert_allclose(total, 1, rtol=0.15)


def test_updates_keep_the_level_of_heavy_tails():
    """Heads of mean logarithms must not unlearn the factor to the mean."""
    amounts = np.random.default_rng(1).lognormal(sigma=1.5, size=N)
    labels = EVENTS.assign(spend=np.where(EVENTS["conversion"] == 1, amounts, 0))
    model = valued(value_tasks={"spend": "conversion"}, lr=0.1, batch_size=50)
    model.fit(X, labels)
    bought = labels["conversion"] == 1
    totals = []
    for _ in range(10):
        model.partial_fit(X, labels)
        totals.append(model.predict_value(X, given_event=True)[bought].sum())
    # Single updates scatter; all were too low by a third.
    assert_allclose(np.mean(totals), labels["spend"].sum(), rtol=0.15)


@pytest.mark.filterwarnings("ignore:Rows with new category values")
@pytest.mark.filterwarnings("ignore:The encoding of the columns")
def test_the_first_amounts_set_the_level():
    """A first update without an amount knows nothing of their size."""
    without = np.flatnonzero(Y["conversion"] == 0)[:100]
    model = valued(value_tasks={"spend": "conversion"})
    labels = Y.drop(columns="watch")
    model.partial_fit(X.iloc[without], labels.iloc[without])
    model.partial_fit(X, labels)
    bought = labels["conversion"] == 1
    predicted = model.predict_value(X, given_event=True)[bought]
    assert_allclose(predicted.sum(), labels["spend"].sum(), rtol=1e-3)


def test_a_warm_start_with_another_loss_is_refused():
    model = valued(warm_start=True, value_loss="gamma").fit(X, Y)
    with pytest.raises(ValueError, match="value_loss='tweedie'"):
        model.set_params(value_loss="tweedie").fit(X, Y)


@pytest.mark.filterwarnings("ignore:Rows with new category values")
def test_updates_alone_learn_a_value():
    model = valued()
    for start in range(0, N, 150):
        model.partial_fit(X[start : start + 150], Y[start : start + 150])
    assert_allclose(total_given_events(model), 1, rtol=0.15)


def test_the_last_rows_in_time_move_the_level():
    time = np.arange(N)
    rising = Y.assign(watch=np.where(time < 0.8 * N, 1.0, 3.0))
    params = {"encoding_params": {"time_column": "time"}, "early_stopping": True}
    model = valued(**params, validation_fraction=0.2)
    with_times = X.assign(time=time)
    model.fit(with_times, rising)
    late = model.predict_value(with_times[-120:])[:, 1].mean()
    # A move to threefold amounts is not chance, but may not last.
    assert 2.3 < late < 3.1


def test_files_hold_values(model, tmp_path):
    model.save(tmp_path / "model.skpw")
    loaded = MultiTaskCTRCVRClassifier.load(tmp_path / "model.skpw")
    expected = model.predict_value(X)
    assert_array_equal(loaded.predict_value(X), expected)
    assert_array_equal(pickle.loads(pickle.dumps(model)).predict_value(X), expected)


def test_a_resumed_fit_is_one_longer_fit(tmp_path):
    valued(checkpoint_dir=tmp_path, max_epochs=2).fit(X, Y)
    resumed = valued(checkpoint_dir=tmp_path, max_epochs=4).fit(X, Y)
    expected = valued(max_epochs=4).fit(X, Y).predict_value(X)
    assert_array_equal(resumed.predict_value(X), expected)


def test_data_sets_in_parts(tmp_path):
    table = pd.concat([X, Y], axis=1)
    table.to_parquet(tmp_path / "log.parquet", row_group_size=200)
    dataset = ParquetImpressions(
        tmp_path / "log.parquet", features=list(X), targets=list(Y)
    )
    by_index = valued(value_tasks={2: 1, -1: None}).fit(dataset)
    model = valued().fit(dataset)
    assert_allclose(by_index.predict_value(X), model.predict_value(X))
    assert_allclose(total_given_events(model), 1, rtol=1e-3)
    assert_allclose(model.predict_value(dataset), model.predict_value(X), rtol=1e-6)


def test_validation_rows_and_a_second_stage():
    model = valued(max_epochs=2).fit(X, Y, eval_set=(X[:100], Y[:100]))
    record = model.history_[-1]
    assert record["valid_loss_spend"] > 0
    twice = valued(refit=True, early_stopping=True).fit(X, Y)
    assert_allclose(total_given_events(twice), 1, rtol=1e-3)


def test_losses_of_events_do_not_contain_those_of_values(model):
    changed = valued(max_epochs=1).fit(X, Y.assign(watch=Y["watch"] ** 2))
    first = valued(max_epochs=1).fit(X, Y)
    # Those of the first batch are equal, before a step.
    shares = first.history_[-1]["train_loss"] / changed.history_[-1]["train_loss"]
    assert_allclose(shares, 1, rtol=0.05)
    assert first.history_[-1]["train_loss_watch"] > 0


def test_scores_and_searches_leave_amounts_out(model):
    assert model.score(X, Y) == model.score(X, EVENTS)
    assert mean_auc_scorer(model, X, Y) == mean_auc_scorer(model, X, EVENTS)
    search = GridSearchCV(
        valued(max_epochs=1), {"pwiser_weight": [0, 0.1]}, scoring=mean_auc_scorer, cv=2
    )
    search.fit(X, Y)
    assert search.best_estimator_.predict_value(X).shape == (N, 2)


def test_labels_as_arrays():
    model = valued(value_tasks={2: 1, -1: None}).fit(X, Y.to_numpy())
    assert model.value_names_ == ["value_2", "value_-1"]
    assert model.score(X, Y.to_numpy()) == model.score(X, EVENTS)
    expected = valued().fit(X, Y).predict_value(X)
    assert_array_equal(model.predict_value(X), expected)


def test_a_calibrator_takes_labels_with_amounts(model):
    calibrator = FunnelCalibrator(model, method="sigmoid").fit(X, Y)
    expected = FunnelCalibrator(model, method="sigmoid").fit(X, EVENTS)
    assert_array_equal(calibrator.predict_proba(X), expected.predict_proba(X))


def test_a_sampled_log_has_values_of_the_full_one():
    kept = (EVENTS["click"] == 1) | (RNG.random(N) < 0.25)
    model = valued(negative_sampling_rate=0.25).fit(X[kept], Y[kept])
    weight = np.where(EVENTS["click"][kept] == 0, 4.0, 1.0)
    predicted = model.predict_value(X[kept])[:, 1]
    total = (weight * predicted).sum() / (weight * Y["watch"][kept]).sum()
    assert_allclose(total, 1, rtol=1e-3)


@pytest.mark.parametrize(
    ("value_tasks", "message"),
    [
        (["spend"], "value_tasks.*dict"),
        ({"spend": 1.5}, "got 1.5 of type float as a task"),
        ({"spend": True}, "got True of type bool as a task"),
        ({None: "conversion"}, "got None of type NoneType as a column"),
        ({"spent": "conversion"}, "'spent', which Y lacks"),
    ],
)
def test_wrong_value_tasks_are_refused(value_tasks, message):
    with pytest.raises((TypeError, ValueError), match=message):
        valued(value_tasks=value_tasks).fit(X, Y)


def test_an_earlier_fit_stays_usable(model):
    before = model.predict_value(X)
    with pytest.raises(ValueError, match="must not be negative"):
        model.partial_fit(X, Y.assign(spend=-1.0))
    changed = deepcopy(model).set_params(value_tasks={"watch": None})
    with pytest.raises(ValueError, match="Training uses the values"):
        changed.partial_fit(X, Y.drop(columns="spend"))
    assert_array_equal(model.predict_value(X), before)


def test_predict_value_needs_values():
    with pytest.raises(ValueError, match="fitted with value_tasks"):
        small().fit(X, EVENTS).predict_value(X)
    with pytest.raises(NotFittedError):
        valued().predict_value(X)
