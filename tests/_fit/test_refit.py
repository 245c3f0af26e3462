"""refit=True: a second training on all rows, for the length that was found."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from checkpointed import InterruptsAfter, history, interrupt, resume
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback, EarlyStopping
from small_model import X, Y, refuses, small

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._training._early_stopping import BestEpochStopping, FirstStage
from sk_pwiser.calibration import FunnelCalibrator
from sk_pwiser.callbacks import KeepOnInterrupt
from sk_pwiser.datasets import ParquetImpressions, make_ctr_cvr
from sk_pwiser.inspection import TrainingHistoryDisplay
from sk_pwiser.transfer import distill, fine_tune, fit_like

# Long steps, so that early stopping finds an epoch before the last one.
TWICE = {
    "refit": True,
    "early_stopping": True,
    "max_epochs": 12,
    "n_iter_no_change": 2,
    "lr": 0.03,
    "encoding_params": {"target_encoding_min_values": 5},
}


def stages(model):
    return model.history_[:, "stage"]


def second(model):
    """Return the number of epochs of the second stage."""
    return stages(model).count(2)


def once(model, n_epochs):
    """Return the estimator of a single training on all rows."""
    params = {"refit": False, "early_stopping": False, "max_epochs": n_epochs}
    return clone(model).set_params(**params)


ROWS = np.arange(len(X))
HIDDEN = Y.astype(float).mask(np.outer(ROWS % 5 == 0, [False, True]))
TIMED = X.assign(day=ROWS // 10)
CASES = {
    "plain": ({}, X, Y, {}),
    "weights": ({}, X, Y, {"sample_weight": ROWS % 3}),
    "groups": ({}, X, Y, {"groups": ROWS // 4}),
    "missing labels": ({"missing_labels": "ignore"}, X, HIDDEN, {}),
    "one task": ({}, X, Y["click"], {}),
    "no statistics": ({"target_encoding": False}, X, Y, {}),
    "a decay of a weighting": ({"weighting": "dwa"}, X, Y, {}),
}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(
            value, marks=() if value in {"plain", "groups"} else pytest.mark.slow
        )
        for value in CASES
    ],
)
@pytest.mark.filterwarnings("ignore:Labels of task")
def test_the_second_stage_is_a_fit_on_all_rows_for_as_many_epochs(case):
    params, x, y, given = CASES[case]
    model = small(**TWICE | params).fit(x, y, **given)
    n_first = stages(model).count(1)
    losses = model.history_[:n_first, "valid_loss"]
    assert second(model) == int(np.argmin(losses)) + 1 < n_first
    plain = once(model, second(model)).fit(x, y, **given)
    assert_array_equal(model.predict_proba(x), plain.predict_proba(x))
    assert model.history_[n_first:, "train_loss"] == plain.history_[:, "train_loss"]


def test_files_give_the_fit_of_the_table_to_the_bit(tmp_path):
    pytest.importorskip("pyarrow")
    table = X.astype({name: str for name in X if name.startswith("category")})
    table.join(Y).to_parquet(tmp_path / "rows.parquet")
    dataset = ParquetImpressions(tmp_path, list(X), list(Y))
    in_file = small(**TWICE).fit(dataset)
    in_memory = small(**TWICE).fit(table, Y)
    assert second(in_file) == second(in_memory)
    assert_array_equal(in_file.predict_proba(table), in_memory.predict_proba(table))


def test_files_in_parts(tmp_path):
    pytest.importorskip("pyarrow")
    table = X.astype({name: str for name in X if name.startswith("category")})
    table.join(Y).to_parquet(tmp_path / "rows.parquet", row_group_size=50)
    dataset = ParquetImpressions(tmp_path, list(X), list(Y))
    model = small(**TWICE).fit(dataset)
    plain = once(model, second(model)).fit(dataset)
    assert_array_equal(model.predict_proba(table), plain.predict_proba(table))
    assert model._result.n_rows == (len(X), 0)


def test_the_history_and_its_figures():
    model = small(**TWICE).fit(X, Y)
    n_first = stages(model).count(1)
    assert stages(model) == [1] * n_first + [2] * second(model)
    assert model.history_[:, "epoch"] == list(range(1, model.n_iter_ + 1))
    assert len(model.history_[:, "valid_loss"]) == n_first
    assert model.best_epoch_ == model.n_iter_ == len(model.history_)
    first, last = model.stop_reason_.split(" Then a new network was trained on all ")
    alone = small(**TWICE | {"refit": False}).fit(X, Y)
    assert first == alone.stop_reason_
    assert last.endswith(f"the weights are those of epoch {model.n_iter_}.")
    assert history(model)[:n_first] == [{**row, "stage": 1} for row in history(alone)]


def test_the_rest_of_the_surface(tmp_path):
    pytest.importorskip("matplotlib")
    model = small(**TWICE).fit(X, Y)
    expected = model.predict_proba(X)
    model.save(tmp_path / "model.safetensors")
    loaded = MultiTaskCTRCVRClassifier.load(tmp_path / "model.safetensors")
    for other in (loaded, pickle.loads(pickle.dumps(model)), clone(model).fit(X, Y)):
        assert other.refit is True
        assert stages(other) == stages(model)
        assert_array_equal(other.predict_proba(X), expected)
    assert "on all rows" in model._repr_html_()
    display = TrainingHistoryDisplay.from_estimator(model)
    assert np.isfinite(display.losses["training"]).all()
    assert np.isnan(display.losses["validation"]).sum() == second(model)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:In the calibration rows")
def test_inside_searches_and_calibrators():
    search = GridSearchCV(small(**TWICE), {"refit": [True, False]}, cv=2).fit(X, Y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    model = FunnelCalibrator(small(**TWICE), method="sigmoid", cv=2).fit(X, Y)
    assert second(model.estimator_) > 0
    assert np.isfinite(model.predict_proba(X)).all()


@pytest.mark.filterwarnings("ignore:Rows with new category values")
def test_updates_continue_the_second_stage():
    model = small(**TWICE).fit(X, Y)
    plain = once(model, second(model)).fit(X, Y)
    for each in (model, plain):
        each.partial_fit(X[:100], Y[:100])
    assert_array_equal(model.predict_proba(X), plain.predict_proba(X))
    # An update has no stages, and needs no early stopping.
    small(refit=True).partial_fit(X, Y)


def test_without_held_out_rows_there_is_one_stage():
    model = small(**TWICE | {"early_stopping": "auto"}).fit(X, Y)
    plain = clone(model).set_params(refit=False).fit(X, Y)
    assert set(stages(model)) == {1}
    assert model.stop_reason_ == plain.stop_reason_
    assert_array_equal(model.predict_proba(X), plain.predict_proba(X))


# ------------------------------------------------------------------- the schedule


def make_stopping(**state):
    stopping = BestEpochStopping("valid_loss", 3, 0)
    vars(stopping).update(state)
    return stopping


@pytest.mark.parametrize(
    ("state", "best_epoch", "expected"),
    [
        # Without a schedule, or before its decay.
        ({}, 7, (7, 7, 0)),
        # The rate was held for 10 epochs, the best of which was the 6th; the decay of
        # 4 epochs was best in its 3rd.
        ({"n_held": 10, "n_best_held": 6, "n_decay": 4}, 13, (9, 6, 4)),
        # The decay gained nothing.
        ({"n_held": 10, "n_best_held": 6, "n_decay": 4}, 6, (6, 6, 0)),
        # No epoch could be judged before the decay.
        ({"n_held": 2, "n_best_held": 0, "n_decay": 1}, 3, (3, 2, 1)),
    ],
)
def test_the_epochs_that_led_to_the_best_weights(state, best_epoch, expected):
    stopping = make_stopping(**state)
    found = FirstStage.of(stopping, best_epoch, stop_reason="", level=None)
    assert (found.n_epochs, found.n_held, found.n_decay) == expected


class Rates(Callback):
    """Notes the learning rate of each step, by the epoch in the history."""

    def __init__(self):
        self.rates = {}

    def on_batch_end(self, net, training, **kwargs):
        if training:
            epoch = len(net.history)
            self.rates.setdefault(epoch, []).append(net.history[-1, "lr"])


def test_the_rate_is_held_and_falls_as_in_the_first_stage():
    rates = Rates()
    params = {"lr_schedule": "warmup_stable_decay", "lr": 0.01, "batch_size": 20}
    model = small(**TWICE | params | {"callbacks": [rates], "random_state": 3})
    model.fit(X, Y)
    n_first = stages(model).count(1)
    stage = model.net_.first_stage
    assert stage.n_decay > 0
    assert stage.n_epochs == second(model)
    steps = np.concatenate([rates.rates[n_first + 1 + k] for k in range(second(model))])
    n_steps = len(X) // 20
    assert len(steps) == stage.n_epochs * n_steps
    # By the formula: a tenth of the steps of max_epochs warms up, and the rate falls
    # linearly to 0 over the epochs of the decay.
    middle = np.arange(len(steps)) + 0.5
    warm_up = middle / min(50, 0.1 * 12 * n_steps)
    end = (stage.n_held + stage.n_decay) * n_steps
    falling = (end - middle) / (stage.n_decay * n_steps)
    expected = 0.01 * np.minimum(1.0, np.minimum(warm_up, falling))
    assert_allclose(steps, expected, rtol=1e-6)


# ------------------------------------------------------------------- times


def drifting_log(seed, n=6_000):
    """Return a log whose odds rise, at last by a step, and the number of first rows."""
    data = make_ctr_cvr(n, ctr=0.3, cvr=0.4, n_categories=20, random_state=seed)
    rng = np.random.default_rng(seed)
    day = np.arange(n) * 400 // n / 10
    move = 0.05 * np.minimum(day - 20, 0) + 1.2 * (day > 30)
    true = np.column_stack([data.ctr, data.cvr])
    odds = true / (1 - true) * np.exp(move)[:, None]
    y = (rng.random((n, 2)) < odds / (1 + odds)).cumprod(axis=1)
    y = pd.DataFrame(y, columns=["click", "conversion"])
    return data.data.assign(day=day), y, n * 5 // 6


def ratio(model, x, y):
    return model.predict_proba(x).mean(axis=0) / y.mean().to_numpy()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_the_level_of_later_rows_is_kept(seed):
    x, y, n = drifting_log(seed)
    by_time = {"time_column": "day"}
    params = {"random_state": seed, "encoding_params": by_time, "max_epochs": 15}
    first = MultiTaskCTRCVRClassifier(**params).fit(x[:n], y[:n])
    model = MultiTaskCTRCVRClassifier(refit=True, **params).fit(x[:n], y[:n])
    recipe = MultiTaskCTRCVRClassifier(
        early_stopping=False, **params | {"max_epochs": first.best_epoch_}
    ).fit(x[:n], y[:n])
    later = x[n:], y[n:]
    # The last rows move the network of the second stage by a tenth of their distance
    # from the others, here 0.7 to 1.2 in log-odds, in the direction of the shift.
    change = np.log(ratio(model, *later) / ratio(first, *later))
    assert ((change > -0.1) & (change < 0.25)).all()
    assert_allclose(ratio(model, *later), 1, atol=0.2)
    assert (ratio(recipe, *later) < 0.6).all()


def test_the_level_is_that_of_the_first_stage():
    params = {**TWICE, "encoding_params": {"time_column": "day"}}
    y = Y * (ROWS >= 200)[:, None] + Y * (ROWS % 3 == 0)[:, None]
    y = y.clip(upper=1)
    first = small(**params | {"refit": False}).fit(TIMED, y)
    model = small(**params).fit(TIMED, y)
    offset = first.net_.module_.level_offset
    assert (offset.abs() > 0.05).any()
    assert_array_equal(model.net_.module_.level_offset, offset)
    # Below the offset, the network is that of a training on all rows.
    plain = once(model, second(model)).fit(TIMED, y)
    assert plain.net_.module_.level_offset is None
    odds = [p / (1 - p) for p in (each.predict_proba(X) for each in (model, plain))]
    assert_allclose(odds[0], odds[1] * np.exp(offset.numpy()), rtol=1e-4)


# ------------------------------------------------------------------- resuming

RESUMED = {**TWICE, "max_epochs": 4, "lr_schedule": "warmup_stable_decay"}


def seeded(kind):
    random_state = 0 if kind == "number" else np.random.RandomState(5)
    return {**RESUMED, "random_state": random_state}


@pytest.mark.parametrize(
    "kind", ["number", pytest.param("instance", marks=pytest.mark.slow)]
)
def test_a_fit_resumes_in_either_stage_to_the_bit(tmp_path, kind):
    unbroken = small(**seeded(kind)).fit(X, Y)
    assert second(unbroken) > 1
    n_first = stages(unbroken).count(1)
    expected = unbroken.predict_proba(X)
    places = range(1, unbroken.n_iter_)
    if kind == "number":
        places = [1, n_first, unbroken.n_iter_ - 1]
    for n_epochs in places:
        folder = tmp_path / str(n_epochs)
        interrupt(folder, n_epochs, **seeded(kind))
        resumed = resume(folder, **seeded(kind))
        assert_array_equal(resumed.predict_proba(X), expected)
        assert history(resumed) == history(unbroken)
        assert resumed.stop_reason_ == unbroken.stop_reason_
    # A finished fit is returned as it is.
    assert_array_equal(resume(folder, **seeded(kind)).predict_proba(X), expected)


def test_a_fit_with_times_resumes_with_its_level(tmp_path):
    params = {**RESUMED, "encoding_params": {"time_column": "day"}}
    unbroken = small(**params).fit(TIMED, Y)
    n_first = stages(unbroken).count(1)
    for n_epochs in (n_first - 1, n_first + 1):
        folder = tmp_path / str(n_epochs)
        interrupt(folder, n_epochs, x=TIMED, **params)
        resumed = resume(folder, x=TIMED, **params)
        assert_array_equal(resumed.predict_proba(X), unbroken.predict_proba(X))


def test_an_interruption_between_the_stages(tmp_path):
    unbroken = small(**RESUMED).fit(X, Y)
    n_first = stages(unbroken).count(1)
    interrupt(tmp_path, n_first, "on_epoch_begin", **RESUMED)
    resumed = resume(tmp_path, **RESUMED)
    assert history(resumed) == history(unbroken)
    assert_array_equal(resumed.predict_proba(X), unbroken.predict_proba(X))


# ------------------------------------------------------------------- ends and hooks


def test_ctrl_c_in_the_first_stage_ends_the_fit():
    stop = InterruptsAfter(2, "on_batch_end", KeyboardInterrupt)
    model = small(**TWICE, callbacks=[KeepOnInterrupt(), stop])
    with pytest.warns(UserWarning, match="2 complete epochs are kept"):
        model.fit(X, Y)
    assert stages(model) == [1, 1]


@pytest.mark.parametrize("n_after", [0, 1])
def test_ctrl_c_in_the_second_stage_keeps_the_first_one(n_after):
    first = small(**TWICE | {"refit": False}).fit(X, Y)
    n_epochs = first.n_iter_ + n_after
    stop = InterruptsAfter(n_epochs, "on_batch_end", KeyboardInterrupt)
    model = small(**TWICE, callbacks=[KeepOnInterrupt(), stop])
    with pytest.warns(UserWarning, match="first stage of refit=True is kept"):
        model.fit(X, Y)
    assert_array_equal(model.predict_proba(X), first.predict_proba(X))
    assert len(model.callbacks) == 2
    model.set_params(callbacks=[stop])
    before = model.predict_proba(X)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y)
    assert_array_equal(model.predict_proba(X), before)


class StopsAfter(Callback):
    """Ends training after a number of epochs."""

    def __init__(self, n_epochs):
        self.n_epochs = n_epochs

    def on_epoch_end(self, net, **kwargs):
        if net.n_complete_ == self.n_epochs:
            net.stop_training_ = True


def test_a_callback_that_ends_the_first_stage_ends_the_fit():
    model = small(**TWICE, callbacks=[StopsAfter(2)]).fit(X, Y)
    assert stages(model) == [1, 1]


def test_callbacks_run_in_both_stages():
    rates = Rates()
    model = small(**TWICE, lr_schedule="warmup_stable_decay", callbacks=[rates])
    model.fit(X, Y)
    assert list(rates.rates) == list(range(1, model.n_iter_ + 1))


def test_callbacks_of_scikit_learn_see_one_fit():
    pytest.importorskip("sklearn.callback", exc_type=ImportError)

    class Recorder:
        def __init__(self):
            self.events = []

        def setup(self, estimator, context):
            self.events.append("setup")

        def teardown(self, estimator, context):
            self.events.append("teardown")

        def on_fit_task_begin(self, estimator, context, **kwargs):
            self.events.append(f"begin {context.task_name}")

        def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):
            self.events.append(f"end {context.task_name}")
            self.fitted = fitted_estimator

    recorder = Recorder()
    model = small(**TWICE).set_callbacks(recorder).fit(X, Y)
    epochs = ["begin epoch", "end epoch"] * model.n_iter_
    expected = ["setup", "begin fit", *epochs, "end fit", "teardown"]
    assert recorder.events == expected
    assert_array_equal(recorder.fitted.predict_proba(X), model.predict_proba(X))


def test_warnings_about_the_rows_are_issued_once():
    x = X.assign(constant=1.0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        small(**TWICE).fit(x, Y)
    assert [str(w.message).partition(":")[0] for w in caught if "const" in str(w)]
    assert len(caught) == len({str(w.message) for w in caught})


def test_verbose_says_where_the_second_stage_begins(capsys):
    model = small(**TWICE, verbose=1).fit(X, Y)
    lines = capsys.readouterr().out.splitlines()
    assert f"Training on all rows, for {second(model)} epochs." in lines
    assert sum("train loss" in line for line in lines) == 2


# ------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("params", "given", "message"),
    [
        ({"early_stopping": False}, {}, "early_stopping must not be False"),
        ({}, {"eval_set": (X, Y)}, "with an eval_set, or X_val, it holds out none"),
        ({}, {"X_val": X, "Y_val": Y}, "with an eval_set, or X_val"),
        ({"refit": "yes"}, {}, "'refit' parameter"),
    ],
)
def test_fits_without_rows_to_add_are_refused(params, given, message):
    refuses(small(**TWICE | params), ValueError, message, **given)


def test_an_earlier_fit_is_not_continued_and_stays():
    model = small(**TWICE, warm_start=True).fit(X, Y)
    before = model.predict_proba(X)
    refuses(model, ValueError, "continues no earlier fit. Set warm_start=False")
    assert_array_equal(model.predict_proba(X), before)
    # It is itself continued, with a warning: it has seen the validation rows.
    model.set_params(refit=False, callbacks=None)
    with pytest.warns(UserWarning, match="since it held out no rows"):
        model.fit(X, Y)


def test_callbacks_that_need_validation_rows_are_refused():
    model = small(**TWICE, callbacks=[EarlyStopping()])
    message = "EarlyStopping, whose monitor is 'valid_loss', but the second stage"
    with pytest.raises(ValueError, match=message):
        model.fit(X, Y)


def test_other_trainings_are_refused_by_name():
    source = small(**TWICE).fit(X, Y)
    message = "refit must be False for training"
    with pytest.raises(ValueError, match=message):
        fine_tune(source, X, Y)
    with pytest.raises(ValueError, match=message):
        fit_like(small(**TWICE), source, X, Y)
    with pytest.raises(ValueError, match=message):
        distill([source], X, student=small(**TWICE))
    assert fine_tune(source, X, Y, seen=True, refit=False).n_iter_ > 0
