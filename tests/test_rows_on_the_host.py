"""Rows that do not fit on the accelerator stay on the host, with the same results."""

import numpy as np
import pytest
from checkpointed import interrupt, resume
from numpy.testing import assert_array_equal
from scipy import sparse
from simulated_device import free_memory
from small_model import X, Y, small

from sk_pwiser._rows._batches import BatchIterator
from sk_pwiser.datasets import ParquetImpressions
from sk_pwiser.inspection import task_importances
from sk_pwiser.metrics import mean_auc_scorer
from sk_pwiser.transfer import distill, fine_tune, fit_like, merge_estimators

pytestmark = pytest.mark.usefixtures("simulated")

# Three epochs of two batches, and two batches of validation rows.
N = len(X)
GROUPS = np.arange(N) // 4
WEIGHTS = 1.0 + np.arange(N) % 3
STOPPED = {"early_stopping": True, "validation_fraction": 0.4, "max_epochs": 3}
VALID = {"X_val": X[:120], "Y_val": Y[:120]}


@pytest.fixture
def where(monkeypatch):
    """The kinds of devices that batches were drawn on."""
    found = set()
    batches = BatchIterator._batches

    def noted(self, data):
        found.add(data.device.type)
        return batches(self, data)

    monkeypatch.setattr(BatchIterator, "_batches", noted)
    return found


def figures(model):
    """Return the history without times, and whether early stopping chose an epoch."""
    columns = [name for name in model.history_[-1] if name not in ("dur", "batches")]
    return {name: model.history_[:, name] for name in columns}


def fitted(model, X, *args, **kwargs):
    model.fit(X, *args, **kwargs)
    return figures(model), model.predict_proba(X)


def assert_equal_on_the_host(call, where):
    """Check that a call returns the same with rows on the device and on the host."""
    expected = call()
    assert "sim" in where
    where.clear()
    with free_memory(0):
        found = call()
    assert where == {"cpu"}
    _assert_equal(found, expected)


def _assert_equal(found, expected):
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        found, expected = found.values(), expected.values()
    elif not isinstance(expected, tuple):
        assert_array_equal(found, expected)
        return
    for one, other in zip(found, expected, strict=True):
        _assert_equal(one, other)


LACKING = Y.astype(float)
LACKING.loc[np.arange(N) % 5 == 3, "conversion"] = np.nan
LISTS = X.assign(tags=[["a", "b", "c"][: i % 4] for i in range(N)])
HASHED = sparse.random(N, 30, 0.2, "csr", random_state=0)


# By what the case adds to other ones: parameters, and arguments of `fit`.
FITS = {
    "loss": ({"early_stopping": "loss"}, {}),
    "auc": ({"early_stopping": "auc"}, {"sample_weight": WEIGHTS}),
    "log_loss": ({"early_stopping": "log_loss_conversion"}, {"sample_weight": WEIGHTS}),
    "grouped_auc": ({"early_stopping": "grouped_auc"}, {"groups": GROUPS}),
    "scorer": ({"early_stopping": mean_auc_scorer}, {"sample_weight": WEIGHTS}),
    "eval_set": ({"early_stopping": False}, {"eval_set": [(X[:120], Y[:120])]}),
    "X_val": ({}, VALID),
    "groups": (
        {"loss": "jrc"},
        {"groups": GROUPS, **VALID, "groups_val": GROUPS[:120]},
    ),
    "sampled log": ({"negative_sampling_rate": 0.5}, {}),
    "stratified": ({"stratified_batches": True}, {}),
    "large tables": ({"optimizer_params": {"lazy_embeddings": True}}, {}),
    "time": ({"encoding_params": {"time_column": "numeric_0"}}, {}),
    "graph": ({"compile": "graph"}, {}),
}


@pytest.mark.parametrize(("params", "fit_params"), FITS.values(), ids=FITS)
def test_fits_with_validation_rows(params, fit_params, where):
    def call():
        return fitted(small(**{**STOPPED, **params}), X, Y, **fit_params)

    assert_equal_on_the_host(call, where)


@pytest.mark.parametrize(
    "early_stopping", ["loss", "auc", "grouped_auc", mean_auc_scorer]
)
def test_missing_labels(early_stopping, where):
    params = {**STOPPED, "early_stopping": early_stopping, "missing_labels": "ignore"}
    assert_equal_on_the_host(
        lambda: fitted(small(**params), X, LACKING, groups=GROUPS), where
    )


@pytest.mark.parametrize("table", [LISTS, HASHED], ids=["lists", "sparse"])
def test_lists_and_sparse_tables(table, where):
    assert_equal_on_the_host(lambda: fitted(small(**STOPPED), table, Y), where)


GROWING = {"encoding_params": {"grow_vocabulary": True}}


@pytest.mark.parametrize("lazy", [False, True])
def test_updates_and_warm_starts(lazy, where):
    def call():
        updated = small(optimizer_params={"lazy_embeddings": lazy}, **GROWING)
        for part in (slice(0, 150), slice(150, N), slice(0, N)):
            updated.partial_fit(X[part], Y[part], sample_weight=WEIGHTS[part])
        warm = small(**STOPPED, **GROWING, warm_start=True)
        first = fitted(warm, X[:200], Y[:200], **VALID)
        return updated.predict_proba(X), first, fitted(warm, X, Y, **VALID)

    assert_equal_on_the_host(call, where)


def test_a_fit_that_resumes(where, tmp_path):
    def call():
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        interrupt(folder, 1, **STOPPED)
        model = resume(folder, **STOPPED)
        return figures(model), model.predict_proba(X)

    assert_equal_on_the_host(call, where)


def test_rows_in_files(where, tmp_path):
    pytest.importorskip("pyarrow")
    LISTS.join(LACKING).assign(session=GROUPS, weight=WEIGHTS).to_parquet(
        tmp_path / "rows.parquet"
    )
    names = {"groups": "session", "sample_weight": "weight"}
    log = ParquetImpressions(tmp_path, [*LISTS], [*Y], shuffle_rows=100, **names)

    def call():
        params = {"early_stopping": "grouped_auc", "missing_labels": "ignore"}
        model = small(**{**STOPPED, **params})
        first = fitted(model, log)
        return first, fitted(model.set_params(warm_start=True), log)

    assert_equal_on_the_host(call, where)


def test_importances(where):
    def call():
        model = small(**STOPPED).fit(X, Y)
        found = task_importances(model, X, Y, n_repeats=2, random_state=0)
        return found.importances_mean

    assert_equal_on_the_host(call, where)


TUNED = {"max_epochs": 2, "early_stopping": "auc"}


@pytest.mark.parametrize(
    "call",
    [
        lambda a, b: distill([a, b], X, student=a),
        lambda a, b: fine_tune(a, X, Y, regularizer="tred", **TUNED),
        lambda a, b: fit_like(small(**STOPPED), a, X, Y),
        lambda a, b: merge_estimators(a, [fine_tune(a, X, Y, extend=False)], X, Y),
    ],
    ids=["distill", "tred", "fit_like", "merge"],
)
def test_transfer(call, where):
    def models():
        a = small(**STOPPED).fit(X[:200], Y[:200])
        b = small(**STOPPED, loss="bce").fit(X[100:], Y[100:])
        return a, b

    assert_equal_on_the_host(lambda: call(*models()).predict_proba(X), where)


def test_a_validation_set_that_fits_beside_training_rows_that_do_not(where):
    expected = fitted(small(**STOPPED), X, Y, **VALID)
    n_bytes = 2 * len(VALID["X_val"]) * X.shape[1] * 8
    where.clear()
    with free_memory(n_bytes):
        _assert_equal(fitted(small(**STOPPED), X, Y, **VALID), expected)
    assert where == {"cpu", "sim"}
