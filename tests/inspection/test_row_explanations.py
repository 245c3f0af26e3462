"""Contributions of columns are the Shapley values that all sets of columns give."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import logit
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from small_model import small

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.calibration import FunnelCalibrator
from sk_pwiser.history import HistoryFeatures
from sk_pwiser.inspection import RowExplanationDisplay, _shapley, explain_rows
from sk_pwiser.inspection._row_explanations import LARGEST_LOG_CVR

# Eight columns: numbers with missing values, categories with target statistics, a list
# with weights, and a column that is constant.
N = 600
RNG = np.random.default_rng(0)
SHOPS = RNG.choice(list("abcdefghij"), N)
PRICES = np.where(RNG.random(N) < 0.1, np.nan, RNG.gamma(2, 20, N))
TAGS = [RNG.choice(list("pqrstu"), RNG.integers(0, 4)).tolist() for _ in range(N)]
X = pd.DataFrame(
    {
        "shop": SHOPS,
        "price": PRICES,
        "age": RNG.normal(size=N),
        "is_new": RNG.random(N) < 0.3,
        "area": RNG.choice(list("uvw"), N),
        "tags": TAGS,
        "tag_weights": [RNG.random(len(tags)).tolist() for tags in TAGS],
        "hour": RNG.integers(0, 24, N),
        "market": RNG.choice(["north", "south"], N),
    }
)
CLICK = RNG.random(N) < 0.3 + 0.3 * (SHOPS < "d") + 0.2 * (PRICES > 50)
Y = pd.DataFrame({"click": CLICK, "conversion": CLICK & (RNG.random(N) < 0.5)}) * 1
ENCODING = {"list_weights": {"tags": "tag_weights"}, "target_encoding_min_values": 5}
COLUMNS = [name for name in X if name != "tag_weights"]
ROWS, BACKGROUND = X[:3], X[100:106]


@pytest.fixture(scope="module")
def model():
    model = small(
        target_encoding=True,
        encoding_params=ENCODING,
        # A conversion rate of 1 would have no log-odds.
        network_params={"task_space": "conditional"},
        max_epochs=8,
        lr=0.03,
    )
    return model.fit(X, Y)


def log_odds(model, table):
    """Return the log-odds of both tasks and of the CVR, by public predictions."""
    p = model.predict_proba(table).astype(np.float64)
    # The probabilities of a calibrator may be equal, whose CVR has no log-odds.
    log_cvr = np.minimum(np.log(p[:, 1]) - np.log(p[:, 0]), LARGEST_LOG_CVR)
    cvr = np.exp(log_cvr)
    return np.column_stack([logit(p), logit(cvr)])


def brute_force(model, row, background, columns=COLUMNS, outputs=log_odds):
    """Return the mean over all orders of what a column adds when it joins."""
    mean_of = {}

    def mean_log_odds(names):
        key = frozenset(names)
        if key not in mean_of:
            table = background.copy()
            for name in names:
                for column in (name, "tag_weights") if name == "tags" else (name,):
                    values = [row[column].iloc[0]] * len(table)
                    table[column] = pd.Series(values, index=table.index)
                    table[column] = table[column].astype(background[column].dtype)
            mean_of[key] = outputs(model, table).mean(axis=0)
        return mean_of[key]

    found = np.zeros((len(columns), 3))
    orders = list(permutations(range(len(columns))))
    for order in orders:
        names = [columns[place] for place in order]
        for size, place in enumerate(order):
            added = mean_log_odds(names[: size + 1]) - mean_log_odds(names[:size])
            found[place] += added
    return found / len(orders)


def test_contributions_are_those_of_all_orders_of_the_columns(model):
    # Six columns differ; the others of these rows are those of the background.
    columns = ["shop", "price", "is_new", "area", "tags"]
    background = BACKGROUND.assign(age=0.5, hour=3, market="north")
    row = ROWS[1:2].assign(age=0.5, hour=3, market="north")
    found = explain_rows(model, row, background=background)
    expected = brute_force(model, row, background, columns)
    places = [found.column_names.index(name) for name in columns]
    assert found.task_names == ["click", "conversion", "cvr"]
    assert found.column_names == COLUMNS
    assert_allclose(found.contributions[0, places], expected, atol=1e-5)
    others = [place for place in range(len(COLUMNS)) if place not in places]
    assert_array_equal(found.contributions[0, others], 0)
    assert_array_equal(found.errors, 0)
    assert np.abs(expected).max() > 0.05


def test_sampled_contributions_are_close_to_exact_ones(model, monkeypatch):
    exact = explain_rows(model, ROWS, background=BACKGROUND)
    monkeypatch.setattr(_shapley, "MOST_EXACT_COLUMNS", 0)
    found = explain_rows(model, ROWS, background=BACKGROUND, random_state=0)
    assert_allclose(found.contributions, exact.contributions, atol=0.03)
    assert 0 < found.errors.max() < 0.02
    again = explain_rows(model, ROWS[1:2], background=BACKGROUND, random_state=0)
    assert_allclose(again.contributions[0], found.contributions[1], atol=1e-6)


def calibrated(model):
    return FunnelCalibrator(model, by="market").fit(X, Y)


def loaded(model, tmp_path):
    model.save(tmp_path / "model.skpw")
    return MultiTaskCTRCVRClassifier.load(tmp_path / "model.skpw")


@pytest.mark.parametrize("kind", ["plain", "calibrated", "view", "file", "sampled"])
def test_contributions_sum_to_the_difference_to_the_background(
    kind, model, tmp_path, monkeypatch
):
    explained = model
    if kind == "calibrated":
        explained = calibrated(model)
    elif kind == "view":
        explained = model.task("conversion")
    elif kind == "file":
        explained = loaded(model, tmp_path)
    elif kind == "sampled":
        monkeypatch.setattr(_shapley, "MOST_EXACT_COLUMNS", 0)
    found = explain_rows(explained, ROWS, background=BACKGROUND)
    expected, of_background = (
        log_odds(model if kind == "view" else explained, table)
        for table in (ROWS, BACKGROUND)
    )
    if kind == "view":
        expected, of_background = expected[:, [1]], of_background[:, [1]]
    assert_allclose(found.log_odds, expected, atol=1e-5)
    assert_allclose(found.base_values, of_background.mean(axis=0), atol=1e-5)
    sums = found.contributions.sum(axis=1) + found.base_values
    assert_allclose(sums, expected, atol=1e-5)


def test_the_groups_of_a_calibrator_are_a_column():
    without = X.drop(columns="market")
    model = small(encoding_params=ENCODING).fit(without, Y)
    is_left = (X["market"] == "north") | (RNG.random(N) < 0.4)
    calibrator = FunnelCalibrator(model, by="market").fit(X, Y.mul(is_left, axis=0))
    shifts = calibrator.shifts_
    background = BACKGROUND.assign(market="south")
    row = ROWS[:1].assign(market="north")
    found = explain_rows(calibrator, row, background=background, tasks="click")
    assert found.column_names[-1] == "market"
    difference = shifts["north"][0] - shifts["south"][0]
    assert_allclose(found.contributions[0, -1], difference, atol=1e-6)
    assert difference > 0.2


def test_histories_of_a_pipeline_are_columns():
    log = X.assign(user=RNG.choice(30, N), time=pd.date_range("2026", periods=N))
    log = log[["shop", "user", "time", "age"]]
    history = HistoryFeatures(["user"], time="time", label_delay="1h", windows=["7d"])
    pipeline = make_pipeline(history, small())
    pipeline.fit(log[:500], Y[:500])
    found = explain_rows(pipeline, log[-2:], background=log[500:510])
    columns = set(pipeline[:-1].get_feature_names_out())
    assert set(found.column_names) == columns
    sums = found.contributions.sum(axis=1) + found.base_values
    assert_allclose(sums, log_odds(pipeline, log[-2:]), atol=1e-5)


SPEND = np.where(Y["conversion"], np.exp(X["age"]) * (1 + (SHOPS < "d")), 0)
LABELS = Y.assign(spend=SPEND, watch=1 + X["hour"])


@pytest.fixture(scope="module")
def valued(model):
    params = {"value_tasks": {"spend": "conversion", "watch": None}, "max_epochs": 8}
    return clone(model).set_params(**params).fit(X, LABELS)


@pytest.mark.parametrize("kind", ["plain", "tweedie", "calibrated", "calibrated by"])
@pytest.mark.parametrize("given_event", [False, True])
def test_contributions_to_amounts_sum_to_their_logarithms(kind, given_event, valued):
    model = valued
    if kind == "tweedie":
        model = clone(valued).set_params(value_loss="tweedie").fit(X, LABELS)
    elif kind != "plain":
        by = "market" if kind == "calibrated by" else None
        model = FunnelCalibrator(valued, method="sigmoid", by=by).fit(X, LABELS)
    found = explain_rows(
        model,
        ROWS,
        background=BACKGROUND,
        tasks=["spend", "watch"],
        given_event=given_event,
    )
    assert found.task_names == found.value_names == ["spend", "watch"]
    expected, of_background = (
        np.log(model.predict_value(table, given_event=given_event))
        for table in (ROWS, BACKGROUND)
    )
    assert_allclose(found.log_odds, expected, atol=1e-5)
    assert_allclose(found.base_values, of_background.mean(axis=0), atol=1e-5)
    sums = found.contributions.sum(axis=1) + found.base_values
    assert_allclose(sums, expected, atol=1e-5)


def test_contributions_to_amounts_are_those_of_all_orders(valued):
    columns = ["shop", "price", "is_new", "area"]
    same = {"age": 0.5, "hour": 3, "market": "north"}
    background = BACKGROUND.assign(**same, tags=X["tags"], tag_weights=X["tag_weights"])
    row = ROWS[1:2].assign(**same)
    for name in ("tags", "tag_weights"):
        background[name] = pd.Series([row[name].iloc[0]] * 6, index=background.index)

    def log_means(model, table):
        given_event = np.log(model.predict_value(table, given_event=True)[:, 0])
        return np.column_stack([given_event, np.log(model.predict_value(table))])

    expected = brute_force(valued, row, background, columns, outputs=log_means)
    places = [COLUMNS.index(name) for name in columns]
    for given_event, place in {True: 0, False: 1}.items():
        found = explain_rows(
            valued, row, background=background, tasks="spend", given_event=given_event
        )
        contributions = found.contributions[0, places, 0]
        assert_allclose(contributions, expected[:, place], atol=1e-5)
    assert np.abs(expected).max() > 0.05


def test_values_are_explained_after_tasks(valued):
    found = explain_rows(valued, ROWS, background=BACKGROUND)
    assert found.task_names == ["click", "conversion", "cvr", "spend", "watch"]
    assert found.value_names == ["spend", "watch"]
    alone = explain_rows(valued.task("spend"), ROWS, background=BACKGROUND)
    assert alone.task_names == ["spend"]
    assert_allclose(alone.contributions[:, :, 0], found.contributions[:, :, 3])
    factor = np.exp(np.abs(found.contributions[1, :, 3]).max())
    (reason,) = found.reasons(1, "spend", n_reasons=1)
    assert "multiplies the mean amount by" in reason
    multiple = float(reason.rpartition(" ")[2])
    assert max(multiple, 1 / multiple) == pytest.approx(factor, rel=0.01)
    display = RowExplanationDisplay(explanations=alone).plot(row=0)
    assert "logarithm of the mean amount of spend" in display.ax_.get_xlabel()
    with pytest.raises(ValueError, match=r"a value of .*'watch'\]; got 'spent'"):
        explain_rows(valued, ROWS, background=BACKGROUND, tasks="spent")


def table_function(predict, rows, background):
    """Return a function of rows of numbers, as explanations see it."""
    table = np.vstack([rows, background])

    def of_sources(sources):
        return predict(np.take_along_axis(table, sources, axis=0))[:, np.newaxis]

    hashes = table.view(np.uint64)
    return _shapley.ValueFunction(of_sources, hashes, len(rows))


def explained_numbers(predict, rows, background, seed=0):
    function = table_function(predict, rows, background)
    generator = np.random.RandomState(seed)
    return _shapley.shapley_values(function, function.of_rows(), generator)


@pytest.mark.parametrize("n_columns", [5, 20])
def test_equal_columns_have_equal_parts_and_constant_ones_nothing(n_columns):
    rows = RNG.normal(size=(4, n_columns))
    background = RNG.normal(size=(6, n_columns))
    for table in (rows, background):
        table[:, 1] = table[:, 0]
        table[:, 2] = 1
    found = explained_numbers(
        lambda t: t[:, 0] * t[:, 1] + t[:, 2] * t[:, 3], rows, background
    )
    assert_array_equal(found.values[:, 2], 0)
    assert_array_equal(found.errors[:, 2], 0)
    tolerance = 1e-12 if n_columns == 5 else 5 * found.errors.max() + 1e-12
    assert_allclose(found.values[:, 0], found.values[:, 1], atol=tolerance)


def test_errors_are_those_of_repeated_samples():
    rows = RNG.normal(size=(1, 12))
    background = RNG.normal(size=(5, 12))

    def predict(table):
        return table[:, 0] * table[:, 1] * table[:, 2] + table[:, 3:].sum(axis=1) ** 2

    repeats = [explained_numbers(predict, rows, background, seed) for seed in range(60)]
    observed = np.std([repeat.values for repeat in repeats], axis=0)
    claimed = np.sqrt(np.mean([repeat.errors**2 for repeat in repeats], axis=0))
    is_exact = observed < 1e-12  # pairs of columns, as forwards and backwards cancel
    assert_allclose(claimed[~is_exact], observed[~is_exact], rtol=0.4)
    # The exact values are within the spread of the mean over repeats.
    mean = np.mean([repeat.values for repeat in repeats], axis=0)
    function = table_function(predict, rows, background)
    exact = _shapley._exact_values(function).values
    assert (np.abs(mean - exact) < 5 * observed / np.sqrt(60) + 1e-9).all()


def test_the_background_is_drawn_from_the_rows(model):
    found = explain_rows(model, X[:40])
    predictions = log_odds(model, X[:40])
    assert np.abs(found.base_values - predictions.mean(axis=0)).max() < 0.3
    assert len(found) == 40


def test_explanations_as_a_table_and_in_words(model):
    found = explain_rows(model, ROWS, background=BACKGROUND, tasks=["cvr", "click"])
    table = found.to_frame()
    assert len(table) == 3 * 2 * len(COLUMNS)
    sums = table.groupby(["row", "task"])["contribution"].sum().unstack()
    differences = found.log_odds[:, 0] - found.base_values[0]
    assert_allclose(sums["cvr"], differences, atol=1e-6)
    part = table[(table["row"] == 1) & (table["task"] == "click")]
    assert_allclose(part["contribution"], found.contributions[1, :, 1])
    assert part["value"].tolist()[0] == X["shop"].iloc[1]
    column = int(np.abs(found.contributions[1, :, 1]).argmax())
    factor = np.exp(found.contributions[1, column, 1])
    reason, *others = found.reasons(1, "click", n_reasons=2)
    assert reason.startswith(f"{COLUMNS[column]} = ")
    assert reason.endswith(f"multiplies the odds by {factor:.3g}")
    assert len(others) == 1


def test_arrays_have_the_indices_of_columns():
    table = RNG.normal(size=(200, 3))
    labels = Y[:200]
    found = explain_rows(small().fit(table, labels), table[:2], background=table[50:60])
    assert found.column_names == [0, 1, 2]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"estimator": object()}, TypeError, "estimator must be .* got object"),
        ({"tasks": "buy"}, ValueError, "task must be one of .* got 'buy'"),
        ({"tasks": 5}, ValueError, "task must be .* got 5"),
        ({"tasks": [True]}, TypeError, "task must be"),
        ({"X": X[:1]}, ValueError, "background must be given if X has one row"),
        ({"X": X[:0]}, ValueError, "X must have at least one row"),
        ({"background": X[:0]}, ValueError, "background must have rows"),
    ],
)
def test_wrong_arguments_are_refused(change, error, message, model):
    arguments = {"estimator": model, "X": ROWS, **change}
    with pytest.raises(error, match=message):
        explain_rows(**arguments)


def test_reasons_of_a_row_that_is_not_there(model):
    found = explain_rows(model, ROWS, background=BACKGROUND, tasks="click")
    with pytest.raises(ValueError, match="row must be less than 3; got 3"):
        found.reasons(3)
    with pytest.raises(ValueError, match="task must be one of"):
        found.reasons(0, "conversion")


def test_bars_of_one_row_and_a_beeswarm_of_many(model):
    display = RowExplanationDisplay.from_estimator(
        model, ROWS[:1], background=BACKGROUND, n_columns=4
    )
    widths = [bar.get_width() for bar in display.ax_.patches]
    explanations = display.explanations
    expected = sorted(explanations.contributions[0, :, 0], key=abs, reverse=True)[:4]
    assert_allclose(widths, expected)
    assert "conversion" in display.ax_.get_xlabel()

    swarm = RowExplanationDisplay.from_estimator(
        model, X[:30], background=BACKGROUND, task="cvr"
    )
    dots = [part.get_offsets() for part in swarm.ax_.collections]
    assert len(dots) == len(swarm.shown_) == len(COLUMNS)
    for name, places in zip(swarm.shown_, dots, strict=True):
        column = COLUMNS.index(name)
        of_column = swarm.explanations.contributions[:, column, 0]
        assert_allclose(places[:, 0], of_column)
    bars = RowExplanationDisplay(explanations=swarm.explanations).plot(row=2)
    assert len(bars.ax_.patches) == len(COLUMNS)
    with pytest.raises(ValueError, match="row must be less than 30"):
        bars.plot(row=30)
