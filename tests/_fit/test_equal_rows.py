"""Equal rows stay together: tables of counts, copies; groups that are large or return.

Each log has known rates; the models are judged on the rates of new rows.
"""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.metrics import roc_auc_score

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import ParquetImpressions

TASKS = ["click", "conversion"]


def log_of_items(n_rows, seed, n_segments=5, log_odds=-1.5):
    """Return impressions of 400 items, whose click rates differ."""
    effects = np.random.default_rng(3)
    item_effects = 0.8 * effects.normal(size=400)
    segment_effects = 0.4 * effects.normal(size=n_segments)
    rng = np.random.default_rng(seed)
    item = rng.integers(0, 400, n_rows)
    segment = rng.integers(0, n_segments, n_rows)
    log_odds = log_odds + item_effects[item] + segment_effects[segment]
    click = rng.random(n_rows) < 1 / (1 + np.exp(-log_odds))
    conversion = click & (rng.random(n_rows) < 0.3)
    return pd.DataFrame(
        {
            "item": [f"i{number}" for number in item],
            "segment": [f"s{number}" for number in segment],
            "click": click.astype(int),
            "conversion": conversion.astype(int),
        }
    )


def counted(log):
    """Return a row per cell and outcome, in random order, with its number of rows."""
    counts = log.groupby(list(log)).size().rename("count").reset_index()
    return counts.sample(frac=1.0, random_state=0)


def scores(model, later, features):
    """Return the AUC of the clicks, and predicted over observed clicks."""
    p = model.predict_proba(later[features])[:, 0]
    return roc_auc_score(later["click"], p), p.mean() / later["click"].mean()


@pytest.mark.slow
@pytest.mark.parametrize("in_files", [False, True])
def test_counts_as_weights_are_as_good_as_the_rows_that_they_count(in_files, tmp_path):
    log, later = log_of_items(20_000, seed=0), log_of_items(20_000, seed=1)
    features = ["item", "segment"]
    arguments = {"Y": None, **in_form(counted(log), in_files, tmp_path)}
    model = MultiTaskCTRCVRClassifier(random_state=0)
    auc, ratio = scores(model.fit(log[features], log[TASKS]), later, features)
    auc_of_counts, ratio_of_counts = scores(model.fit(**arguments), later, features)
    assert auc_of_counts == pytest.approx(auc, abs=0.015)
    assert ratio == pytest.approx(1, abs=0.15)
    assert ratio_of_counts == pytest.approx(1, abs=0.15)


def in_form(counts, in_files, folder):
    """Return arguments of `fit`: counts as a table, or as a dataset of files."""
    features = ["item", "segment"]
    if not in_files:
        weights = counts["count"]
        return {"X": counts[features], "Y": counts[TASKS], "sample_weight": weights}
    counts.to_parquet(folder / "rows.parquet", row_group_size=1_500)
    return {"X": ParquetImpressions(folder, features, TASKS, sample_weight="count")}


def decays(model):
    """Return the weight decays of all groups of parameters."""
    return [group["weight_decay"] for group in model.net_.optimizer_.param_groups]


@pytest.mark.parametrize("in_files", [False, True])
def test_counts_weigh_as_the_rows_that_they_count(in_files, tmp_path):
    # Rates deviate by chance, and weight decay is weak, as with so many rows.
    log = log_of_items(20_000, seed=0)
    counts = counted(log)
    model = MultiTaskCTRCVRClassifier(
        early_stopping=False, max_epochs=1, random_state=0
    )
    arguments = in_form(counts, in_files, tmp_path)
    of_counts = clone(model).fit(**{"Y": None, **arguments})
    of_rows = model.fit(log[["item", "segment"]], log[TASKS])
    statistics = of_counts._result.schema.statistics
    expected = of_rows._result.schema.statistics
    assert_allclose(statistics.strengths_, expected.strengths_, rtol=1e-5)
    # Values have codes in the order of their names, in files as well.
    assert_allclose(statistics.counts_[0], expected.counts_[0], rtol=1e-5)
    assert_allclose(decays(of_counts), decays(of_rows))
    criterion = of_counts.net_.criterion_
    expected = of_rows.net_.criterion_
    assert_allclose(criterion.n_rows, 20_000)
    assert_allclose(criterion.n_events, expected.n_events, rtol=1e-5)
    assert_allclose(criterion.rates_so_far(), expected.rates_so_far(), rtol=1e-4)


def test_updates_by_counts_weigh_as_the_rows_that_they_count():
    first, later = log_of_items(9_000, seed=0), log_of_items(3_000, seed=1)
    of_counts = MultiTaskCTRCVRClassifier(random_state=0)
    of_rows = clone(of_counts)
    for log in (first, later):
        counts = counted(log)
        X, Y = counts[["item", "segment"]], counts[TASKS]
        of_counts.partial_fit(X, Y, sample_weight=counts["count"])
        of_rows.partial_fit(log[["item", "segment"]], log[TASKS])
    # Single rows are counts of 1.
    single = log_of_items(200, seed=2)
    of_counts.partial_fit(single[["item", "segment"]], single[TASKS])
    of_rows.partial_fit(single[["item", "segment"]], single[TASKS])
    statistics = of_counts._result.schema.statistics
    expected = of_rows._result.schema.statistics
    assert_allclose(statistics.strengths_, expected.strengths_, rtol=1e-5)
    assert_allclose(statistics.counts_[0], expected.counts_[0], rtol=1e-5)
    assert_allclose(decays(of_counts), decays(of_rows), rtol=1e-5)
    criterion = of_counts.net_.criterion_
    assert_allclose(criterion.n_rows, 12_200)
    assert_allclose(criterion.n_events, of_rows.net_.criterion_.n_events, rtol=1e-5)


@pytest.mark.slow
def test_counts_at_low_rates_are_as_good_as_the_rows_that_they_count():
    log = log_of_items(100_000, seed=0, n_segments=24, log_odds=-4.0)
    later = log_of_items(100_000, seed=1, n_segments=24, log_odds=-4.0)
    features = ["item", "segment"]
    model = MultiTaskCTRCVRClassifier(random_state=0)
    auc, _ = scores(model.fit(log[features], log[TASKS]), later, features)
    model.fit(**in_form(counted(log), in_files=False, folder=None))
    auc_of_counts, ratio = scores(model, later, features)
    assert auc > 0.6
    assert auc_of_counts == pytest.approx(auc, abs=0.015)
    assert ratio == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize(("n_segments", "is_named"), [(2, True), (5, False)])
def test_few_cells_per_value_are_named(n_segments, is_named):
    counts = counted(log_of_items(20_000, seed=0, n_segments=n_segments))
    model = MultiTaskCTRCVRClassifier(max_epochs=1, random_state=0)
    arguments = counts[["item", "segment"]], counts[TASKS]
    if is_named:
        with pytest.warns(UserWarning, match="the 400 values of column 'item'"):
            model.fit(*arguments, sample_weight=counts["count"])
    else:
        model.fit(*arguments, sample_weight=counts["count"])
    # Weights of classes are no counts.
    model.fit(*arguments, sample_weight=np.where(counts["click"] == 1, 1.5, 1.0))


@pytest.mark.filterwarnings("ignore:Task 'conversion' is 0 in every row")
def test_two_counts_per_item_do_not_reverse_the_ranking():
    rates = 0.1 + 0.8 * np.random.default_rng(0).random(600)
    items = pd.DataFrame({"item": [f"i{number}" for number in range(600)]})
    rows = pd.concat(
        [items.assign(click=1, n=rates), items.assign(click=0, n=1 - rates)]
    )
    rows = rows.assign(conversion=0).sample(frac=1.0, random_state=0)
    model = MultiTaskCTRCVRClassifier(random_state=0)
    model.fit(rows[["item"]], rows[TASKS], sample_weight=1_000 * rows["n"])
    p = model.predict_proba(items)[:, 0]
    assert np.corrcoef(p, rates)[0, 1] > 0.7
    assert p.mean() == pytest.approx(rates.mean(), rel=0.1)


def test_rows_sorted_by_a_column_are_found_although_rows_repeat():
    log = log_of_items(20_000, seed=0, n_segments=20)
    log = log.sort_values("item", kind="stable")
    model = MultiTaskCTRCVRClassifier(max_epochs=1, random_state=0)
    with pytest.warns(UserWarning, match="The rows are sorted by column 'item'"):
        model.fit(log[["item", "segment"]], log[TASKS])


def log_of_users(n_rows, seed):
    """Return impressions of users who come back; active ones click less."""
    effects = np.random.default_rng(5)
    activity = 1 / np.arange(1, 1_001)
    activity /= activity.sum()
    user_effects = 0.3 * effects.normal(size=1_000)
    user_effects -= 0.25 * np.log(activity * 1_000)
    rng = np.random.default_rng(seed)
    user = rng.choice(1_000, n_rows, p=activity)
    log_odds = -2 + user_effects[user]
    click = rng.random(n_rows) < 1 / (1 + np.exp(-log_odds))
    conversion = click & (rng.random(n_rows) < 0.3)
    log = pd.DataFrame({"user": [f"u{number}" for number in user]})
    log["time"] = np.arange(n_rows)
    return log.assign(click=click.astype(int), conversion=conversion.astype(int))


@pytest.mark.parametrize("early_stopping", ["auto", "grouped_auc"])
def test_users_who_come_back_do_not_halve_the_predictions_by_time(early_stopping):
    log, later = log_of_users(8_000, seed=0), log_of_users(20_000, seed=1)
    features = ["user", "time"]
    model = MultiTaskCTRCVRClassifier(
        encoding_params={"time_column": "time"},
        early_stopping=early_stopping,
        random_state=0,
    )
    model.fit(log[features], log[TASKS], groups=log["user"])
    assert model._result.n_rows == (7_200, 800)
    _, ratio = scores(model, later, ["user"])
    # The level is that of about 70 clicks of the last rows.
    assert ratio == pytest.approx(1, abs=0.25)


GUESTS = "The group 'guest' has 1500 of 3000 rows, too many to be held out"


@pytest.mark.parametrize("time_column", [None, "time"])
def test_a_group_of_half_of_the_rows_is_not_held_out_as_a_whole(time_column):
    rng = np.random.default_rng(0)
    user = rng.integers(0, 300, 3_000).astype(str).astype(object)
    user[rng.permutation(3_000)[:1_500]] = "guest"
    X = pd.DataFrame({"x": rng.normal(size=3_000), "time": np.arange(3_000)})
    Y = np.stack([rng.random(3_000) < 0.2, np.zeros(3_000, bool)], axis=1)
    Y[:, 1] = Y[:, 0] & (rng.random(3_000) < 0.5)
    for seed in range(5):
        model = MultiTaskCTRCVRClassifier(
            max_epochs=1,
            early_stopping=True,
            encoding_params={"time_column": time_column},
            random_state=seed,
        )
        with pytest.warns(UserWarning, match=GUESTS):
            model.fit(X.iloc[:, : 2 if time_column else 1], Y.astype(int), groups=user)
        assert model._result.n_rows[1] == pytest.approx(300, abs=30)
