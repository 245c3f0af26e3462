"""Callbacks that are set by `set_callbacks`, as scikit-learn defines them since 1.9."""

import pickle

import numpy as np
import pytest
from impressions_in_files import TARGETS, write
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from skorch.callbacks import Callback
from small_model import X, Y, small

from sk_pwiser.calibration import FunnelCalibrator
from sk_pwiser.datasets import ParquetImpressions
from sk_pwiser.transfer import fit_like

sklearn_callback = pytest.importorskip("sklearn.callback", exc_type=ImportError)


class Recorder:
    """Notes the tasks that begin and end, and may raise, or ask to stop, at an end."""

    def __init__(self, fails_in=None, stop_after=None):
        self.fails_in, self.stop_after = fails_in, stop_after
        self.events, self.fitted = [], []

    def note(self, hook, context=None):
        name = hook if context is None else f"{hook} {context.task_name}"
        self.events.append(name)
        if name == self.fails_in:
            raise RuntimeError("out of paper")

    def setup(self, estimator, context):
        self.note("setup")

    def teardown(self, estimator, context):
        self.note("teardown")

    def on_fit_task_begin(self, estimator, context, *, X=None, y=None):
        self.note("begin", context)
        self.rows = X, y

    def on_fit_task_end(
        self, estimator, context, *, metadata=None, fitted_estimator=None
    ):
        self.note("end", context)
        self.metadata = metadata
        self.fitted.append(fitted_estimator)
        return context.task_name == "epoch" and context.task_id == self.stop_after


class Propagated(Recorder):
    max_propagation_depth = None


def test_a_fit_is_a_task_whose_epochs_are_subtasks():
    recorder = Recorder()
    model = small().set_callbacks(recorder).fit(X, Y, sample_weight=np.ones(len(X)))
    epoch = ["begin epoch", "end epoch"]
    expected = ["setup", "begin fit", *epoch, *epoch, "end fit", "teardown"]
    assert recorder.events == expected
    assert recorder.rows == (X, Y)
    assert_array_equal(recorder.metadata["sample_weight"], np.ones(len(X)))
    # Training is the same, and nothing of it remains in the estimator.
    assert_array_equal(model.predict_proba(X), small().fit(X, Y).predict_proba(X))
    assert model.net_.callbacks_ == [("epoch_timer", model.net_.callbacks_[0][1])]


def test_the_estimator_of_an_epoch_is_that_of_a_fit_which_ends_there():
    recorder = Recorder()
    params = {"early_stopping": "auc", "validation_fraction": 0.3, "max_epochs": 4}
    model = small(**params).set_callbacks(recorder).fit(X, Y)
    *epochs, whole = recorder.fitted
    for n_epochs, fitted in enumerate(epochs, 1):
        shorter = small(**params | {"max_epochs": n_epochs}).fit(X, Y)
        assert fitted.n_iter_ == fitted.best_epoch_ == n_epochs
        if shorter.best_epoch_ == n_epochs:
            assert_array_equal(fitted.predict_proba(X), shorter.predict_proba(X))
    assert_array_equal(whole.predict_proba(X), model.predict_proba(X))
    assert whole.stop_reason_ == model.stop_reason_


def test_a_callback_may_end_training():
    recorder = Recorder(stop_after=2)
    model = small(max_epochs=9).set_callbacks(recorder).fit(X, Y)
    assert model.n_iter_ == 3
    assert model.stop_reason_.startswith("Stopped at epoch 3;")
    assert_array_equal(
        model.predict_proba(X), small(max_epochs=3).fit(X, Y).predict_proba(X)
    )


def test_a_search_shows_the_epochs_of_its_fits():
    outer, inner = Propagated(), Recorder()
    pipeline = make_pipeline(small().set_callbacks(inner))
    grid = {"multitaskctrcvrclassifier__lr": [0.01, 0.1]}
    search = GridSearchCV(pipeline, grid, cv=2).set_callbacks(outer).fit(X, Y)
    for recorder in (outer, inner):
        # Two candidates on two splits, and the last fit, of two epochs each.
        assert recorder.events.count("end epoch") == 10
    assert (outer.events.count("setup"), inner.events.count("setup")) == (1, 5)
    model = search.best_estimator_[-1]
    assert not hasattr(model, "_parent_callback_ctx")
    assert model.net_.callbacks_ == [("epoch_timer", model.net_.callbacks_[0][1])]


def test_each_call_is_a_task():
    recorder = Recorder()
    model = small(warm_start=True, max_epochs=1).set_callbacks(recorder)
    for _ in range(2):
        model.fit(X, Y)
        assert recorder.events[1:5] == [
            "begin fit", "begin epoch", "end epoch", "end fit"
        ]  # fmt: skip
        recorder.events.clear()
    assert [fitted.n_iter_ for fitted in recorder.fitted] == [1, 1, 2, 2]
    # An update is one pass, a task without subtasks, whose estimator has its rows.
    model = small().set_callbacks(recorder)
    for _ in range(2):
        recorder.events.clear()
        model.partial_fit(X, Y)
        assert recorder.events == ["setup", "begin fit", "end fit", "teardown"]
    fitted = recorder.fitted[-1]
    assert_array_equal(fitted.predict_proba(X), model.predict_proba(X))


def test_a_fit_with_the_schema_of_another():
    recorder = Recorder()
    fit_like(small().set_callbacks(recorder), small().fit(X, Y), X, Y)
    assert recorder.events.count("end epoch") == 2


def test_files_that_are_read_in_parts(tmp_path):
    recorder = Recorder()
    write(X.assign(**Y), tmp_path, (0, 200, len(X)))
    dataset = ParquetImpressions(tmp_path, features=list(X), targets=TARGETS)
    small().set_callbacks(recorder).fit(dataset)
    assert recorder.rows == (dataset, None)
    assert recorder.events.count("end epoch") == 2
    assert recorder.fitted[0].predict_proba(X).shape == (len(X), 2)


def test_copies_and_files(tmp_path):
    recorder = Recorder()
    model = small().set_callbacks(recorder).fit(X, Y)
    # scikit-learn's clones share callbacks, pickles have their own.
    clone(model).fit(X, Y)
    assert recorder.events.count("end fit") == 2
    loaded = pickle.loads(pickle.dumps(model))
    assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))
    loaded.fit(X, Y)
    assert recorder.events.count("end fit") == 2
    # A file has no callbacks: they are no parameters.
    model.save(tmp_path / "model")
    loaded = type(model).load(tmp_path / "model").fit(X, Y)
    assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))
    assert recorder.events.count("end fit") == 2
    # Without arguments, set_callbacks removes them.
    model.set_callbacks().fit(X, Y)
    assert recorder.events.count("end fit") == 2


class Jam(Callback):
    def on_epoch_end(self, net, **kwargs):
        raise RuntimeError("out of paper")


HOOKS = ["setup", "begin fit", "end fit", "teardown"]


@pytest.mark.parametrize(
    ("method", "hook"),
    [
        *(("fit", hook) for hook in [*HOOKS, "begin epoch", "end epoch"]),
        *(("partial_fit", hook) for hook in HOOKS),
    ],
)
def test_an_error_names_the_callback_and_keeps_the_fit(method, hook):
    model = small()
    getattr(model, method)(X, Y)
    before = model.predict_proba(X)
    failing = Recorder(fails_in=hook)
    model.set_callbacks(Recorder(), failing)
    with pytest.raises(RuntimeError, match="out of paper") as caught:
        getattr(model, method)(X, Y)
    (note,) = caught.value.__notes__
    assert note.startswith("The callback Recorder raised this error in ")
    assert_array_equal(model.predict_proba(X), before)
    assert not hasattr(model, "_callback_fit_ctx")
    assert "teardown" in failing.events
    model.set_callbacks()
    getattr(model, method)(X, Y)


def test_an_error_of_a_callback_of_skorch_is_named_too():
    model = small().fit(X, Y)
    before = model.predict_proba(X)
    with pytest.raises(RuntimeError, match="out of paper") as caught:
        model.set_params(callbacks=[Jam()]).set_callbacks(Recorder()).fit(X, Y)
    (note,) = caught.value.__notes__
    assert note.startswith("The callback Jam raised this error in on_epoch_end.")
    assert_array_equal(model.predict_proba(X), before)


def test_several_errors_at_the_end_are_all_named():
    failing = [Recorder(fails_in="teardown") for _ in range(2)]
    model = small().set_callbacks(*failing)
    with pytest.raises(ExceptionGroup) as caught:
        model.fit(X, Y)
    for error in caught.value.exceptions:
        assert "The callback Recorder raised this error" in error.__notes__[0]
    assert not hasattr(model, "net_")


def test_other_errors_name_no_callback():
    model = small(lr=1e30).set_callbacks(Recorder())
    with pytest.raises(ValueError, match="diverged") as caught:
        model.fit(X, Y)
    assert not hasattr(caught.value, "__notes__")


@pytest.mark.filterwarnings("ignore:In the calibration rows:UserWarning")
def test_views_and_calibrators_fit_clones_with_the_callbacks():
    recorder = Recorder()
    model = small().set_callbacks(recorder)
    model.task("conversion").fit(X, Y)
    assert recorder.events.count("end epoch") == 2
    recorder.events.clear()
    FunnelCalibrator(model, cv=2, method="sigmoid").fit(X, Y)
    assert recorder.events.count("end fit") == 3
