"""Fits on Parquet files, compared with fits on the same rows in memory."""

from itertools import cycle

import numpy as np
import pandas as pd
import pytest
import torch
from impressions_in_files import (
    FEATURES,
    TARGETS,
    in_memory,
    make,
    make_log,
    read,
    reader_threads,
    write,
)
from numpy.testing import assert_allclose, assert_array_equal
from pools import Brier
from sklearn.metrics import roc_auc_score
from skorch.callbacks import Callback, EarlyStopping

from sk_pwiser._columns._registry import NUMERIC_ENCODINGS
from sk_pwiser._rows._streamed_rows import StreamedImpressions
from sk_pwiser.calibration import FunnelCalibrator
from sk_pwiser.datasets import ParquetImpressions
from sk_pwiser.model_selection import compare_models

LOG = make_log()
X, Y = in_memory(LOG), LOG[TARGETS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(LOG, tmp_path_factory.mktemp("log"))


@pytest.fixture(scope="module", autouse=True)
def _small_files():
    """Store few rows per file, so that these rows make several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sk_pwiser._rows._stored_rows.FILE_ROWS", 100)
        patch.setattr("sk_pwiser.datasets._parquet.CHUNK_ROWS", 100)
        yield


@pytest.fixture(scope="module")
def fitted(folder, _estimators_on_device, _small_files):
    return make().fit(read(folder, shuffle_rows=300))


def columns_of(model):
    return model._result.schema.encoder.columns_


def assert_same_state(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, np.ndarray):
            assert_array_equal(found[name], value)
        elif hasattr(value, "__dict__"):
            assert_same_state(vars(found[name]), vars(value))
        else:
            assert found[name] == value


CATEGORIES = [
    {"n_hash_buckets": {"category_0": 7}, "max_categories": 20},
    {"min_frequency": 15, "list_pooling": "sum"},
    {"n_hash_buckets": 7},
    {},
]


@pytest.mark.parametrize(
    ("encoding", "params"), zip(NUMERIC_ENCODINGS, cycle(CATEGORIES), strict=False)
)
def test_the_encoding_is_that_of_the_rows_in_memory(folder, encoding, params):
    params = {"encoding_params": params, "numeric_encoding": encoding, "max_epochs": 1}
    model = make(target_encoding=False, **params).fit(read(folder))
    expected = make(target_encoding=False, **params).fit(X, Y)
    for found, column in zip(columns_of(model), columns_of(expected), strict=True):
        assert_same_state(vars(found), vars(column))
    assert_array_equal(model.feature_names_in_, FEATURES)
    assert_array_equal(*(m._result.schema.base_rates for m in (model, expected)))


@pytest.mark.parametrize("task_space", ["entire", "conditional"])
def test_target_statistics_leave_out_the_same_blocks_as_in_memory(folder, task_space):
    params = {"network_params": {"task_space": task_space}}
    model, expected = make(**params).fit(read(folder)), make(**params).fit(X, Y)
    found, wanted = (m._result.schema.statistics for m in (model, expected))
    assert found.columns == wanted.columns == [0, 1]
    for name in ("rates_", "counts_", "strengths_", "means_", "scales_", "tables_"):
        pairs = zip(getattr(found, name), getattr(wanted, name), strict=True)
        for own, other in pairs:
            assert_allclose(own, other, rtol=1e-5, atol=1e-6, err_msg=name)


class Rows(Callback):
    """Keeps the training rows, the validation rows, and what is shown per batch."""

    def __init__(self, show=lambda batch: None):
        self.show = show
        self.shown = []

    def on_train_begin(self, net, X, **kwargs):
        parts = X.train, X.valid
        self.rows = [part and [*part.parts(shuffled=False)] for part in parts]

    def on_batch_begin(self, net, batch, **kwargs):
        self.shown.append(self.show(batch))


def training_rows(model, *args, **kwargs):
    """Return the impressions that a fit trains on, and those that it validates on."""
    kept = Rows()
    model.set_params(callbacks=[kept]).fit(*args, **kwargs)
    cpu = torch.device("cpu")
    return [parts and [part.to(cpu) for part in parts] for parts in kept.rows]


def test_stored_rows_are_those_in_memory(folder):
    """Codes, numbers with target statistics, lists, labels: in the order of files."""
    stored, none = training_rows(make(), read(folder, shuffle_rows=200))
    (whole,), _ = training_rows(make(), X, Y)
    assert none is None
    assert len(stored) > 3
    for name in ("codes", "numeric", "y"):
        found = torch.cat([getattr(part, name) for part in stored])
        assert_allclose(found, getattr(whole, name), rtol=1e-5, atol=1e-5)
    entries = torch.cat([part.bags.indices for part in stored])
    assert_array_equal(entries, whole.bags.indices)
    weights = torch.cat([part.bags.weights for part in stored])
    assert_allclose(weights, whole.bags.weights)


@pytest.fixture
def cut_sessions(tmp_path):
    """Write sessions of 7 rows, which parts of 100 rows and files of 500 cut."""
    log = LOG.assign(session=np.arange(1_200) // 7)
    write(log, tmp_path)
    return read(tmp_path, groups="session"), log["session"]


def test_groups_are_held_out_as_a_whole(cut_sessions):
    params = {"early_stopping": True, "validation_fraction": 0.2, "max_epochs": 1}
    parts = training_rows(make(**params), cut_sessions[0])
    train, valid = (torch.cat([p.groups for p in rows]).unique() for rows in parts)
    assert len(train) + len(valid) == 172
    assert len(valid) == pytest.approx(35, abs=2)
    assert not set(train.tolist()) & set(valid.tolist())


def test_rows_of_a_group_must_be_consecutive(tmp_path):
    """Otherwise, all users would come in the first part, and fall into one block."""
    write(LOG.assign(user=np.arange(1_200) % 50), tmp_path)
    with pytest.raises(ValueError, match="consecutive; those with user=0 are not"):
        make().fit(read(tmp_path, groups="user"))


def test_early_stopping_measures_what_predictions_show(folder, tmp_path):
    late = make_log(400, seed=1)
    write(late, tmp_path, bounds=(0, 400))
    model = make(max_epochs=30, early_stopping="auto", n_iter_no_change=2)
    model.fit(read(folder), eval_set=read(tmp_path))
    best = model.history_[model.best_epoch_ - 1]
    p = model.predict_proba(in_memory(late))
    for k, task in enumerate(TARGETS):
        auc = roc_auc_score(late[task], p[:, k])
        assert_allclose(best[f"valid_auc_{task}"], auc, atol=1e-6)
    other = make(max_epochs=30, early_stopping="auto", n_iter_no_change=2)
    other.fit(read(folder), eval_set=(in_memory(late), late[TARGETS]))
    assert_allclose(other.predict_proba(X), model.predict_proba(X), atol=1e-6)


def test_few_rows_are_trained_for_as_many_steps_as_in_memory(tmp_path):
    rows = read(write(make_log(300), tmp_path, (0, 200, 300)))
    model = make(max_epochs=30, early_stopping="auto").fit(rows)
    assert model.n_iter_ == 2  # 4 steps
    assert "valid_loss" not in model.history_[0]


def test_several_validation_sets_are_tables(folder):
    log = make_log(200, seed=1)
    table = in_memory(log), log[TARGETS]
    [row] = make(max_epochs=1).fit(read(folder), eval_set=[table, table]).history_
    assert row["valid_0_auc_click"] == row["valid_auc_click"]
    with pytest.raises(ValueError, match="Several sets in eval_set must be tables"):
        make().fit(read(folder), eval_set={"a": read(folder), "b": table})


def test_eval_set_with_missing_labels_in_some_files(tmp_path, folder, monkeypatch):
    """Weights exist for some stored files only, and for none of those sampled."""
    monkeypatch.setattr("sk_pwiser._rows._streamed_rows.SAMPLE_FILES", 1)
    late = make_log(400, seed=1)
    # Of 200 rows, whose labels are not missing at random.
    late["conversion"] = late["conversion"].astype(float)
    late.loc[(late.index >= 200) & (late["numeric_0"] > 0), "conversion"] = np.nan
    write(late, tmp_path, bounds=(0, 200, 400))
    model = make(max_epochs=1, early_stopping="auto", missing_labels="ignore")
    model.fit(read(folder), eval_set=read(tmp_path))
    known = late["conversion"].notna()
    assert 50 < (~known).sum() < 150
    p = model.predict_proba(in_memory(late))[known, 1]
    auc = roc_auc_score(late["conversion"][known], p)
    assert_allclose(model.history_[-1, "valid_auc_conversion"], auc, atol=1e-6)
    assert model.history_[-1, "valid_missing_conversion"] == (~known).sum()


def test_the_same_seed_gives_the_same_result_to_the_bit(folder, fitted):
    again = make().fit(read(folder, shuffle_rows=300))
    assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
    other = make(random_state=1).fit(read(folder, shuffle_rows=300))
    assert (other.predict_proba(X) != fitted.predict_proba(X)).any()


def test_rows_are_in_another_order_in_every_epoch(folder):
    rows = Rows(lambda batch: batch[1].sum().item())
    make(callbacks=[rows]).fit(read(folder, shuffle_rows=400))
    # Parts of other files may have one batch more.
    end = np.searchsorted(np.cumsum(rows.shown), Y.to_numpy().sum()) + 1
    first, second = rows.shown[:end], rows.shown[end:]
    assert len(first) > 10
    assert sum(first) == sum(second) == Y.to_numpy().sum()
    assert first != second


def test_groups_stay_together(folder):
    rows = Rows(lambda batch: set(batch[0]["groups"].tolist()))
    log = read(folder, groups="session")
    make(loss="jrc", callbacks=[rows], max_epochs=1).fit(log)
    assert sum(map(len, rows.shown)) == len(set().union(*rows.shown)) == 240


def test_whole_sums_of_weights_are_not_numbers_of_rows(tmp_path):
    # Each value has pairs of rows of weights 0.5 and 1.5, as scaled to a mean of 1.
    log = LOG.iloc[np.repeat(np.arange(0, len(LOG), 2), 2)]
    write(log.assign(weight=np.tile([1.0, 3.0], len(log) // 2)), tmp_path)
    for weight in (None, "weight"):
        model = make(max_epochs=1).fit(read(tmp_path, sample_weight=weight))
        assert model._result.schema.statistics.counts_rows == (weight is None)


def test_missing_labels_and_weights_per_task(tmp_path):
    log = LOG.copy()
    log["conversion"] = log["conversion"].astype(float).mask(LOG["session"] < 100)
    write(log, tmp_path)
    params = {"missing_labels": "ignore"}
    dataset = read(tmp_path, sample_weight=("weight", "session"))
    weights = log[["weight", "session"]].to_numpy()
    stored, _ = training_rows(make(**params), dataset)
    (whole,), _ = training_rows(make(**params), X, log[TARGETS], sample_weight=weights)
    found = torch.cat([part.sample_weight for part in stored])
    assert_allclose(found, whole.sample_weight, rtol=1e-6)
    model = make(**params).fit(dataset)
    assert model.history_[-1, "train_missing_conversion"] == whole.n_missing[1]


def test_labels_are_judged_over_all_files(tmp_path):
    log = LOG.copy()
    log.loc[::12, TARGETS] = [0, 1]
    write(log, tmp_path)
    with pytest.warns(UserWarning, match="100 of 1200 rows break the funnel"):
        make(max_epochs=1).fit(read(tmp_path))


def test_a_single_task(folder):
    model = make().fit(ParquetImpressions(folder, FEATURES, "click"))
    assert model.predict_proba(X).shape == (len(LOG), 2)
    assert_array_equal(model.classes_, [0, 1])


@pytest.mark.parametrize("params", [{}, {"n_hash_buckets": 7}])
def test_integers_of_files_that_became_floats_in_a_table(tmp_path, params):
    log = LOG.assign(category_0=pd.array(2**60 + np.arange(len(LOG)) % 9, "Int64"))
    log.loc[::50, "category_0"] = pd.NA
    chosen = {"categorical_features": ["category_0"], "encoding_params": params}
    model = make(**chosen, max_epochs=1).fit(read(write(log, tmp_path)))
    exact = in_memory(log)
    expected = model.predict_proba(exact)
    with pytest.raises(ValueError, match=r"'category_0' contained integers above 2"):
        model.predict_proba(exact.to_pandas(ignore_metadata=True))
    assert_array_equal(model.predict_proba(exact), expected)


def test_a_warm_start_keeps_the_encoding(folder):
    model = make(warm_start=True).fit(read(folder))
    encoder = model._result.schema.encoder
    model.fit(read(folder))
    assert model._result.schema.encoder is encoder
    assert len(model.history_) == 4


@pytest.mark.filterwarnings(r"ignore:The columns \['numeric_0'\] have the same")
def test_a_warm_start_learns_a_column_that_was_constant(folder, tmp_path):
    constant = LOG.assign(numeric_0=1.0)
    write(constant, tmp_path)
    model = make(warm_start=True).fit(read(tmp_path))
    expected = make(warm_start=True).fit(in_memory(constant), Y)
    model.fit(ParquetImpressions(folder, FEATURES[::-1], TARGETS))
    found, wanted = (each.encode(X).numeric for each in (model, expected.fit(X, Y)))
    assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    assert len(np.unique(found[:, 0])) > 100


def test_a_warm_start_validates_on_the_same_rows(folder, tmp_path):
    model = make(warm_start=True, early_stopping=True, random_state=None)
    first, second = (training_rows(model, read(folder))[1] for _ in range(2))
    assert_array_equal(*(torch.cat([p.numeric for p in v]) for v in (first, second)))
    write(LOG[:-100], tmp_path)
    with pytest.warns(UserWarning, match="not known to be the first of these"):
        model.fit(read(tmp_path))


def test_more_rows_than_the_sample_and_more_values_than_the_bound(folder):
    with pytest.warns(UserWarning, match=r"more than max_values=40 values: 'category"):
        model = make().fit(read(folder, sample_rows=200, max_values=40))
    exact = make().fit(X, Y)
    numeric, category = columns_of(model)[0], columns_of(model)[2]
    assert_allclose(numeric.edges_, columns_of(exact)[0].edges_, atol=0.6)
    assert category.n_codes <= 42
    assert set(LOG["category_0"].value_counts().index[:10]) <= category.codes_.keys()


def test_progress_counts_rows(folder, capsys):
    make(verbose=1).fit(read(folder))
    lines = capsys.readouterr().err.splitlines()
    passes = ["Learning the columns", "Encoding"]
    assert lines == [f"{what}: 1,200 of 1,200 rows" for what in passes]
    make().fit(read(folder))
    assert capsys.readouterr().err == ""


def test_corrupt_parts_are_left_out_with_one_warning(tmp_path):
    write(LOG, tmp_path)
    path = tmp_path / "part-1.parquet"
    data = bytearray(path.read_bytes())
    data[4:3_000] = bytes(2_996)
    path.write_bytes(data)
    with pytest.warns(UserWarning, match="1 files or row groups cannot be") as caught:
        model = make().fit(read(tmp_path, on_corrupt="skip"))
    assert len(caught) == 1
    kept = np.r_[0:500, 650:1_200]
    expected = make().fit(X.take(kept), Y.iloc[kept])
    assert_same_state(vars(columns_of(model)[2]), vars(columns_of(expected)[2]))
    with pytest.warns(
        UserWarning, match="1 files or row groups .* no predictions, the"
    ):
        p = model.predict_proba(read(tmp_path, on_corrupt="skip"))
    assert_allclose(p, model.predict_proba(X.take(kept)), atol=1e-6)


@pytest.mark.parametrize("n_times", [1_200, 2])
def test_blocks_of_time_need_no_order_of_rows(tmp_path, n_times):
    """Two days have several blocks each, so that a block has others to learn from."""
    log = LOG.assign(time=np.arange(1_200) * n_times // 1_200)
    log = log.sample(frac=1, random_state=0)
    write(log, tmp_path)
    params = {"target_encoding_min_values": 20, "time_column": "time"}
    names = [*FEATURES, "time"]
    model = make(encoding_params=params)
    model.fit(ParquetImpressions(tmp_path, names, TARGETS))
    rows = log.sort_index() if n_times == len(log) else log
    expected = make(encoding_params=params).fit(rows[names], rows[TARGETS])
    found, wanted = (m._result.schema.statistics for m in (model, expected))
    assert_allclose(found.means_, wanted.means_, rtol=1e-5, atol=1e-6)


class Stop(Callback):
    def __init__(self, error):
        self.error = error

    def on_batch_end(self, net, **kwargs):
        raise self.error


@pytest.mark.parametrize("error", [None, KeyboardInterrupt(), RuntimeError("stop")])
def test_no_thread_and_no_file_is_left_over(folder, tmp_path, error):
    log = read(folder, cache_dir=tmp_path, shuffle_rows=200)
    if error is None:
        make().fit(log)
    else:
        with pytest.raises(type(error)):
            make(callbacks=[Stop(error)]).fit(log)
    assert reader_threads() == []
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_reading_thread_is_raised(folder, monkeypatch):
    def fail(self, files):
        raise OSError("the disk is gone")

    monkeypatch.setattr(StreamedImpressions, "_read", fail)
    with pytest.raises(OSError, match="the disk is gone"):
        make().fit(read(folder))
    assert reader_threads() == []


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"Y": Y}, ValueError, "Y must be None for a dataset, whose targets names"),
        ({"sample_weight": [1.0]}, ValueError, "sample_weight must be None"),
        ({"groups": [1]}, ValueError, "groups must be None for a dataset"),
        ({"eval_set": (X,)}, TypeError, "eval_set must be a pair"),
    ],
)
def test_arguments_that_a_dataset_has_itself(folder, arguments, error, message):
    with pytest.raises(error, match=message):
        make().fit(read(folder), **arguments)


def test_what_takes_tables_only_says_so(folder, fitted):
    log, calibrator = read(folder), FunnelCalibrator(fitted)
    for call in (fitted.partial_fit, calibrator.fit, compare_models):
        with pytest.raises(TypeError, match="ParquetImpressions is read in parts"):
            call(log, Y)
    calibrator = FunnelCalibrator(fitted, by="category_0").fit(X, Y)
    with pytest.raises(TypeError, match="ParquetImpressions is read in parts"):
        calibrator.predict_proba(log)


@pytest.fixture
def unread(monkeypatch):
    """Fail if a row is read."""

    def read_rows(self, columns):
        raise AssertionError("rows were read")

    monkeypatch.setattr(ParquetImpressions, "iter_tables", read_rows)


ROWS = X.slice(0, 100), Y[:100]
STOPS = [EarlyStopping(monitor="valid_loss")]


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize(
    ("params", "eval_set", "message"),
    [
        ({"early_stopping": "grouped_auc"}, None, "needs the group of each validation"),
        ({"early_stopping": False, "callbacks": STOPS}, None, "are no validation rows"),
        ({"task_names": ["one", "one"]}, None, "task_names must be distinct"),
        ({"task_names": ["one"]}, None, "Y has 2 columns, but task_names is"),
        (
            {"encoding_params": {"time_feature": "no"}},
            None,
            "time_feature must be True or False; got 'no'",
        ),
        ({}, 5, r"eval_set must be a pair \(X, Y\); got int"),
        ({}, (ROWS[0], ROWS[1] + 7), "In eval_set: Labels must be 0 or 1"),
        ({}, (ROWS[0], ROWS[1][TARGETS[::-1]]), "In eval_set: Training uses the tasks"),
        (
            {},
            (ROWS[0].select(FEATURES[1:]), ROWS[1]),
            r"In eval_set: features of training are absent: \['numeric_0'\]",
        ),
        (
            {},
            FEATURES[1:],
            r"In eval_set: features of training are absent: \['numeric_0'\]",
        ),
    ],
)
def test_arguments_are_checked_before_rows_are_read(folder, params, eval_set, message):
    if isinstance(eval_set, list):
        eval_set = ParquetImpressions(folder, eval_set, TARGETS)
    with pytest.raises((ValueError, TypeError), match=message):
        make(**params).fit(read(folder), eval_set=eval_set)


@pytest.fixture(scope="module")
def continued(_estimators_on_device):
    """Return estimators that were fitted in memory, by the form of their rows."""
    click = np.where(Y["click"][:100], "a_click", "b_none")
    params = {"warm_start": True, "max_epochs": 1}
    return {
        "both": make(**params).fit(*ROWS),
        "text": make(**params).fit(ROWS[0], pd.Series(click, name="click")),
    }


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize(
    ("kind", "features", "targets", "message"),
    [
        (
            "text",
            FEATURES,
            ["click"],
            r"Training uses the tasks \['click'\] and the classes \['a_click', "
            r"'b_none'\]; the dataset has \['click'\] and \[0, 1\]",
        ),
        (
            "both",
            FEATURES,
            ["click", "weight"],
            r"the tasks \['click', 'conversion'\] .* has \['click', 'weight'\]",
        ),
        (
            "both",
            FEATURES[1:],
            TARGETS,
            r"features of training are absent: \['numeric_0'\]",
        ),
    ],
)
def test_a_warm_start_needs_the_same_tasks_and_features(
    continued, folder, kind, features, targets, message
):
    model = continued[kind]
    with pytest.raises(ValueError, match=message):
        model.fit(ParquetImpressions(folder, features, targets))
    assert len(model.history_) == 1


def test_monitored_figures_are_checked_again_without_filtered_rows(folder):
    """Of few rows, "auto" holds none out."""
    model = make(early_stopping="auto", callbacks=STOPS)
    with pytest.raises(ValueError, match="there are no validation rows"):
        model.fit(read(folder, filters=[("numeric_0", ">", 1.0)]))


def test_missing_labels_of_an_eval_set_need_a_loss_with_weights_per_task(
    folder, tmp_path
):
    late = make_log(200, seed=1)
    late["conversion"] = late["conversion"].mask(late["click"] == 0)
    write(late, tmp_path, bounds=(0, 200))
    model = make(loss=Brier, missing_labels="ignore")
    for rows in (read(tmp_path), (in_memory(late), late[TARGETS])):
        with pytest.raises(ValueError, match="require a loss with weights per row and"):
            model.fit(read(folder), eval_set=rows)
    assert not hasattr(model, "history_")


@pytest.mark.parametrize("in_files", [True, False])
def test_no_rows_are_held_out_beside_an_eval_set(folder, tmp_path, in_files):
    """Nor does a warning say so, if the eval set has no event."""
    late = make_log(200, seed=1).assign(conversion=0)
    write(late, tmp_path, bounds=(0, 200))
    rows = read(tmp_path) if in_files else (in_memory(late), late[TARGETS])
    params = {"time_column": "numeric_0", "target_encoding_min_values": 20}
    model = make(max_epochs=1, early_stopping=True, encoding_params=params)
    model.fit(read(folder), eval_set=rows)
    assert model._result.n_rows == (len(LOG), 200)
    assert model._result.split_state is None


def test_a_part_without_weight(folder, tmp_path):
    log = LOG.assign(weight=LOG["weight"].where(LOG.index >= 500, 0.0))
    write(log, tmp_path, bounds=(0, 500, 1_200))
    model = make(max_epochs=1).fit(read(tmp_path, sample_weight="weight"))
    assert model._result.n_rows == ((log["weight"] > 0).sum(), 0)


def test_a_refused_dataset_keeps_the_earlier_fit(folder, tmp_path):
    model = make().fit(X, Y)
    before = model.predict_proba(X)
    write(LOG.assign(click=LOG["click"] * 2), tmp_path)
    message = r"In '.*part-0.parquet', rows from 0 on: Labels must be 0 or 1; column"
    with pytest.raises(ValueError, match=message):
        model.fit(read(tmp_path))
    assert_array_equal(model.predict_proba(X), before)
    assert reader_threads() == []
