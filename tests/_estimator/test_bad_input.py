"""Wrong tables, labels, weights and groups: errors before training, and warnings."""

from datetime import time

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.utils.fixes import parse_version
from small_model import Fuse, N, TrainingBegan, X, Y, refuses, small, warnings_in

from sk_pwiser.datasets import ParquetImpressions
from sk_pwiser.losses import LOSSES
from sk_pwiser.metrics import (
    ctcvr_log_loss_scorer,
    ctr_auc_scorer,
    cvr_auc_scorer,
    mean_auc_scorer,
)


def test_the_fuse_raises_in_training(earlier):
    for method in ("fit", "partial_fit"):
        with pytest.raises(TrainingBegan):
            getattr(earlier.set_params(callbacks=[Fuse()]), method)(X, Y)


BOTH = pytest.mark.parametrize("method", ["fit", "partial_fit"])


@BOTH
def test_labels_in_dicts(earlier, method):
    for labels, what in (
        (Y.to_dict("records"), "a list of dicts"),
        (Y.to_dict(), "a d"),
    ):
        refuses(earlier, TypeError, f"Y is {what}", Y=labels, method=method)


def test_the_first_infinite_value_is_named_in_any_part_of_a_table(tmp_path):
    """The row counts from the first row of the table, or of the part of a file."""
    long = X.loc[np.arange(40_000) % N].reset_index(drop=True)
    model = small().fit(X, Y)
    for column, kind in ((NUMERIC, float), (CATEGORY, object)):
        wrong = long.astype({column: kind})
        wrong.loc[[39_000, 39_500], column] = [-np.inf, np.inf]
        with pytest.raises(ValueError, match=f"'{column}': row 39000 contains -inf"):
            model.predict_proba(wrong)
    log = X.assign(**Y, **{NUMERIC: np.where(np.arange(N) == 250, np.inf, 0)})
    log.to_parquet(tmp_path / "log.parquet", row_group_size=100)
    dataset = ParquetImpressions(tmp_path, [NUMERIC], list(Y))
    with pytest.raises(
        ValueError, match=rf"log.parquet.*'{NUMERIC}': row 250 contains"
    ):
        small().fit(dataset)


def test_wrong_labels_of_one_task(earlier):
    refuses(earlier, ValueError, r"binary .* \[0, 1, 2\]", Y=Y.sum(axis=1))
    refuses(earlier, ValueError, "both classes .* only one class: 0", Y=np.zeros(N))
    refuses(earlier, ValueError, "Unknown label type: continuous", Y=Y["click"] / 2)
    infinite = Y["click"].astype(object).replace(1, np.inf)
    refuses(earlier, ValueError, "infinity .* in column 'click'", Y=infinite)
    message = "all text or all numbers; column 0 of Y contains 'a' and 1"
    refuses(earlier, ValueError, message, Y=np.array(["a", *[1] * (N - 1)], object))
    refuses(earlier, TypeError, "Sparse data was passed for Y", Y=sp.csr_array(Y))


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        (
            ["a", "b"],
            ValueError,
            r"Y has 3 columns, but task_names is \['a', 'b'",
        ),
        (
            ["a", "a", "b"],
            ValueError,
            "task_names must be distinct; 'a' occurs 2 times",
        ),
        ([0, 1, 2], TypeError, r"task_names must be strings; got \[0, 1, 2\]"),
        ("abc", ValueError, "'task_names' parameter .* must be an array-like"),
        (["a", "mean", "b"], ValueError, "not have the name 'mean': .*valid_auc_mean"),
        (["a", "b", "a_best"], ValueError, "not have the name 'a_best'.* task_names"),
        (["ctr", "atc", "cvr"], ValueError, "not have the name 'cvr': .*'conversion'"),
        (
            ["conversion", "click", "paid"],
            ValueError,
            r"must be in the order .*, \['click', 'conversion', 'paid'\]; got",
        ),
    ],
)
def test_wrong_task_names(earlier, names, error, message):
    earlier.set_params(task_names=names)
    refuses(earlier, error, message, Y=Y.assign(paid=Y["conversion"]))


@BOTH
@pytest.mark.parametrize(
    ("groups", "error", "message"),
    [
        (pd.Series([[1, 2]] * N), TypeError, r"per row: .*row 0 contains \[1, 2\]"),
        (pl.Series([[1, 2]] * N), TypeError, r"per row: .*row 0 contains \[1, 2\]"),
        ([1, [1, 2]] * (N // 2), TypeError, r"row 1 contains \[1, 2\]"),
        (np.ones(N - 1), ValueError, r"must have shape \(300,\); got \(299,\)"),
        (np.ones((N, 1)), ValueError, r"must have shape \(300,\); got \(300, 1\)"),
        ("abc", ValueError, r"must have shape \(300,\); got \(\)"),
        ([None] * N, ValueError, "must not be missing; 300 are, the first in row 0"),
        (torch.ones(N).bfloat16(), TypeError, r"Pass groups\.detach"),
        ({}, TypeError, "is a dict"),
    ],
)
def test_wrong_groups(earlier, groups, error, message, method):
    refuses(earlier, error, f"groups .*{message}", method=method, groups=groups)


@BOTH
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.bfloat16(), "BFloat16"),
        (lambda t: t.requires_grad_(), "requires grad"),
        (lambda t: t.to_sparse(), "Sparse"),
    ],
)
@pytest.mark.filterwarnings("ignore:X does not have valid feature names:UserWarning")
def test_tensors_that_numpy_cannot_read(earlier, change, message, method):
    table = change(torch.ones((N, len(X.columns))))
    message = rf"X is a tensor .*{message}.* Pass X\.detach\(\)\.cpu\(\)\.float\(\)"
    refuses(earlier, TypeError, message, X=table, method=method)
    with pytest.raises(TypeError, match=message):
        earlier.predict_proba(table)


def test_errors_contain_labels_of_columns_that_are_not_text(earlier):
    table = X.set_axis(pd.MultiIndex.from_product([["log"], X.columns]), axis=1)
    label = ("log", "numeric_0")
    for value, message in ((np.inf, "infinity .* column"), ("2026", "Column")):
        column = table[label].astype(object if value == "2026" else float)
        column[3] = value
        wrong = table.copy()
        wrong[label] = column
        mask = [column == 8 for column in range(table.shape[1])]
        model = earlier.set_params(categorical_features=mask)
        message = rf"{message} 0 \(labelled \('log', 'numeric_0'\)\)"
        with pytest.warns(UserWarning, match="not text: they are read by position"):
            refuses(model, (ValueError, TypeError), message, X=wrong)


@pytest.mark.parametrize("name", [pd.NA, None, np.nan, "", ("a", 1), 3])
def test_names_of_a_series_of_labels(name):
    assert small().fit(X, Y["click"].rename(name)).n_tasks_ == 1


def test_weights_too_small_for_float32_count_as_0():
    heavy = np.r_[1e60, 1e58, np.ones(N - 2)]
    model = small()
    warnings_in(model.fit, X, Y, sample_weight=heavy)
    assert np.isfinite(model.predict_proba(X)).all()


NUMERIC = "numeric_0"
CATEGORY = "category_0"


@pytest.mark.parametrize(
    ("table", "error", "message"),
    [
        (
            X.assign(**{NUMERIC: np.where(np.arange(N) < 7, 0, -np.inf)}),
            ValueError,
            f"infinity .* column '{NUMERIC}': row 7 contains -inf",
        ),
        (
            X.assign(**{NUMERIC: pd.Series([time(8, 30)] * N, dtype=object)}),
            TypeError,
            f"Column '{NUMERIC}' cannot be read as numbers: it contains dates, such as",
        ),
        (
            X.assign(**{NUMERIC: pd.to_timedelta(np.arange(N), unit="s")}),
            TypeError,
            rf"'{NUMERIC}' cannot be .* timedelta64.* seconds, \.dt\.total_seconds\(\)",
        ),
        (
            X.assign(
                **{NUMERIC: [pd.Timedelta(n, "s").to_pytimedelta() for n in range(N)]}
            ).astype({NUMERIC: object}),
            TypeError,
            rf"'{NUMERIC}' cannot be .* spans of time.* \.dt\.total_seconds\(\)",
        ),
        (
            pd.concat([X, X[[NUMERIC]]], axis=1),
            ValueError,
            f"columns of X must be distinct; '{NUMERIC}' occurs 2 times",
        ),
        (X.to_dict("records"), TypeError, r"X is a list of dicts; pass .*DataFrame"),
        (X.to_dict("list"), TypeError, r"X is a dict; pass pandas\.DataFrame\(X\)"),
        (X.iloc[0].to_dict(), TypeError, r"is a dict; pass pandas\.DataFrame\(\[X\]\)"),
        (np.zeros(N), ValueError, "Expected 2D array, got 1D"),
        (np.zeros((N, 2, 2)), ValueError, "dim 3"),
        (X[:0], ValueError, "X has 0 rows, Y has 300|at least one row"),
        (X[[]], ValueError, "one row and column|X has 0 features"),
        (None, (ValueError, TypeError), "Expected 2D array|Expected sequence or array"),
        (
            X.set_axis([0, *X.columns[1:]], axis=1),
            TypeError,
            "names are only supported",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:X does not have valid feature names:UserWarning")
def test_wrong_tables(earlier, table, error, message):
    for method in ("fit", "partial_fit"):
        refuses(earlier, error, message, X=table, method=method)
    for method in ("predict_proba", "predict", "predict_cvr"):
        with pytest.raises(error, match=message):
            getattr(earlier, method)(table)


@pytest.mark.filterwarnings("ignore:X does not have valid feature names:UserWarning")
def test_sparse_tables_after_a_fit_on_a_dense_one(earlier):
    table = sp.csr_array((N, len(X.columns)))
    message = r"Sparse data was passed for X, .* pass X\.toarray\(\)"
    refuses(earlier, TypeError, message, X=table, method="partial_fit")
    for method in ("predict_proba", "predict", "predict_cvr"):
        with pytest.raises(TypeError, match=message):
            getattr(earlier, method)(table)


@pytest.mark.parametrize(
    "make", [lambda t: t, lambda t: pl.DataFrame(t.to_dict("list"))]
)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns=NUMERIC), f"missing:\n- {NUMERIC}"),
        (lambda t: t.rename(columns={NUMERIC: "n"}), f"- n\n.*missing:\n- {NUMERIC}"),
        (
            lambda t: t.assign(**{CATEGORY: "text"}),
            f"Column '{CATEGORY}' contained numbers in fit; .* 'text'",
        ),
        (lambda t: t.assign(**{NUMERIC: -np.inf}), f"infinity .* column '{NUMERIC}'"),
        (
            lambda t: t.assign(**{NUMERIC: "5"}),
            f"Column '{NUMERIC}' cannot be read as n",
        ),
    ],
)
def test_tables_that_differ_from_those_of_fit(earlier, make, change, message):
    numbers = X.assign(**{c: X[c].astype(int) for c in X.columns if "category" in c})
    changed = make(change(numbers))
    earlier.predict_proba(make(numbers))
    error = (ValueError, TypeError)
    with pytest.raises(error, match=f"(?s){message}"):
        earlier.predict_proba(changed)
    refuses(earlier, error, f"(?s){message}", X=changed, method="partial_fit")
    earlier.set_params(warm_start=True)
    refuses(earlier, error, f"(?s){message}", X=changed)


# A single row has one label per task.
@pytest.mark.filterwarnings("ignore:Task .* in every row:UserWarning")
def test_too_few_rows_for_validation_rows(earlier):
    earlier.set_params(early_stopping=True)
    message = "at least 2 rows to hold some out, got 1"
    refuses(earlier, ValueError, message, X=X[:1], Y=Y[:1])


@pytest.mark.parametrize(
    ("loss", "early_stopping"),
    [*((loss, "loss") for loss in LOSSES), ("pwiser", False), ("pwiser", "auc")],
)
def test_a_task_without_positives_is_predicted_at_its_base_rate(loss, early_stopping):
    model = small(loss=loss, early_stopping=early_stopping)
    message, *further = warnings_in(model.fit, X, Y.assign(conversion=0))
    assert message.startswith("Task 'conversion' is 0 in every row")
    assert ["them for 'conversion'." in m for m in further] == (
        [True] if early_stopping == "auc" else []
    )
    predictions = model.predict_proba(X)
    assert_allclose(predictions[:, 1], 0.0, atol=0.01)
    assert predictions[:, 1].min() > 0
    assert_allclose(predictions[:, 0].mean(), Y["click"].mean(), atol=0.1)
    assert np.isfinite(model.predict_cvr(X)).all()


def test_labels_without_ones_or_without_zeros():
    for label in (0, 1):
        model = small(early_stopping="auc")
        *messages, about_auc = warnings_in(model.fit, X, np.full((N, 2), label))
        assert "them for 'click', 'conversion'." in about_auc
        assert [m[: m.index(" in every")] for m in messages] == [
            f"Task 'click' is {label}",
            f"Task 'conversion' is {label}",
        ]
        assert_allclose(model.predict_proba(X), label, atol=0.02)


@pytest.mark.parametrize("loss", LOSSES)
def test_conversions_without_a_click_are_counted_in_one_warning(loss):
    broken = Y.to_numpy().copy()
    unclicked = np.flatnonzero(broken[:, 0] == 0)[:7]
    broken[unclicked, 1] = 1
    model = small(loss=loss)
    [message] = warnings_in(model.fit, X, broken)
    assert message.startswith("7 of 300 rows break the funnel")
    assert model.predict_proba(X).shape == (N, 2)
    # Rows of weight 0 are left out, and therefore not counted.
    weights = np.ones(N)
    weights[unclicked[:5]] = 0
    [message] = warnings_in(small(loss=loss).fit, X, broken, sample_weight=weights)
    assert message.startswith("2 of 295 rows break the funnel")


SCORERS = [ctr_auc_scorer, cvr_auc_scorer, mean_auc_scorer, ctcvr_log_loss_scorer]


def same_errors(model, Y, message, **weights):
    """Check that all of them raise the same error."""
    model.set_params(callbacks=[Fuse()])
    calls = [small(callbacks=[Fuse()]).fit, model.fit, model.partial_fit, model.score]
    calls += [lambda *args, s=s, **kw: s(model, *args, **kw) for s in SCORERS]
    texts = set()
    for call in calls:
        with pytest.raises((ValueError, TypeError), match=message) as caught:
            call(X, Y, **weights)
        texts.add((caught.type, str(caught.value)))
    assert len(texts) == 1


FIRST_ROWS = np.arange(N) < 3


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (Y * 2, "Labels must be 0 or 1; column 'click' of Y contains 2 in row"),
        (-Y.to_numpy(), "Labels must be 0 or 1; column 0 of Y contains -1 in row"),
        (
            Y.replace({0: "seen", 1: "sold"}),
            "'click' of Y contains 'sold' in row 0. With several .* Y = .Y == 'sold'",
        ),
        (Y.to_numpy() * np.nan, "Y contains NaN: 300 in column 0"),
        (Y.to_numpy()[:, :, np.newaxis], "dim 3"),
        ((Y * 2).astype(str), "column 'click' of Y contains '2' in row 0"),
        ((Y * 2).astype("category"), "column 'click' of Y contains 2 in row 0"),
        ((Y * 2).astype("Int64"), "column 'click' of Y contains 2 in row 0"),
        (Y.to_numpy().astype("datetime64[D]"), "column 0 of Y contains datetime.date"),
        (np.zeros((N, 0)), r"Y cannot be read as labels: .* 0 feature\(s\)"),
        ([[0], [0, 1]] * (N // 2), "Y cannot be read as labels: .* inhomogeneous"),
        ("click", "Y cannot be read as labels: .* at least 1 dimension"),
        ((Y / 2).astype("category"), "column 'click' of Y contains 0.5 in row 0"),
        (Y.assign(conversion=2), "column 'conversion' of Y contains 2 in row 0"),
        (Y.set_axis(["a", "a"], axis=1), "columns of Y must be distinct; 'a' occurs 2"),
        (
            Y.assign(conversion=np.where(FIRST_ROWS, np.nan, 0)),
            "NaN: 3 in column 'conversion', the first in row 0",
        ),
        (
            Y.assign(click=np.where(FIRST_ROWS, np.inf, 0)),
            "infinity .*: 3 in column 'click', the first in row 0",
        ),
        (Y.to_numpy() * 1j, r"Complex data .*: Y has dtype complex128\.$"),
        (Y.assign(conversion=1j), "Complex data .* in column 'conversion'"),
        (pd.DataFrame([[1, 2j]] * N, columns=Y.columns), "column 'conversion'"),
        pytest.param(
            pl.DataFrame(Y.to_dict("list")).with_columns(
                pl.col("conversion").cast(pl.Int128)
            ),
            "Y cannot be read as labels: .* Found in column 'conversion'",
            marks=pytest.mark.skipif(
                parse_version(pl.__version__) < parse_version("2.1"),
                reason="polars before 2.1 panics instead of raising an error",
            ),
        ),
        (torch.ones((N, 2)).bfloat16(), r"Pass Y\.detach\(\)\.cpu"),
        (torch.ones((N, 2), requires_grad=True), r"Pass Y\.detach\(\)\.cpu"),
        (sp.csr_array(Y), "Sparse data was passed for Y"),
        (Y[:-1], "X has 300 rows, Y has 299"),
        (Y[:0], r"Found array with 0 sample\(s\).* is required\.$"),
        (None, "the target y is None"),
    ],
)
def test_labels(earlier, labels, message):
    same_errors(earlier, labels, message)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.r_[np.ones(N - 1), -2], "one finite number >= 0 .* -2.0 in row 299"),
        (np.r_[np.ones(N - 1), np.nan], "one finite number .* nan in row 299"),
        (np.r_[np.ones(N - 1), np.inf], "one finite number .* inf in row 299"),
        (np.ones(N - 1), r"must have shape \(300,\), or .*; got \(299,\)"),
        (np.ones((N, 1)), r"must have shape .*; got \(300, 1\)"),
        (np.ones((N, 3)), r"or \(300, 2\) for weights per task; got \(300, 3\)"),
        (["1"] * 7 + ["heavy"] * (N - 7), "'heavy'"),
        (pd.date_range("2026-01-01", periods=N), "its dtype is datetime64"),
        (np.full(N, 1j), "has dtype complex128"),
        (pd.Series([1.0] * 5 + [None] * (N - 5), dtype="Float64"), "nan in row 5"),
        (torch.ones(N).bfloat16(), r"Pass sample_weight\.detach"),
        (2.0, "one finite number per row.* got scalar"),
        (
            np.c_[np.ones(N), np.r_[1, -3, np.ones(N - 2)]],
            "it is -3.0 in row 1 for task 'conversion'",
        ),
        (
            np.c_[np.full(N, np.nan), np.ones(N)],
            "one finite number .* nan in row 0 for task 'click'",
        ),
        (
            pd.DataFrame({"click": np.ones(N), "conversion": ["x"] * N}),
            "'x'. Found in column 'conversion'",
        ),
    ],
)
def test_weights(earlier, weights, message):
    same_errors(earlier, Y, f"sample_weight.*{message}", sample_weight=weights)


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize(
    ("labels", "weights", "message"),
    [
        (Y[:0], None, "0 sample"),
        (Y, np.zeros(N), "must not be zero"),
        (
            Y,
            pd.DataFrame({"conversion": np.ones(N), "click": np.ones(N)}),
            "must be in the order of the tasks",
        ),
    ],
)
def test_what_training_alone_refuses(earlier, labels, weights, message, method):
    more = {"Y": labels, "sample_weight": weights, "method": method}
    refuses(earlier, ValueError, message, **more)


@pytest.mark.parametrize("labels", [["no", "yes"], [-1, 1], [False, True], [3.0, 7.0]])
def test_any_two_labels_of_a_single_task_are_scored(labels):
    y = np.array(labels)[Y["click"].to_numpy()]
    model = small().fit(X, y)
    expected = small().fit(X, Y["click"]).score(X, Y["click"])
    assert model.score(X, y) == ctr_auc_scorer(model, X, y) == expected
    assert model.score(X, y[:, np.newaxis]) == expected
    assert model.task(0).score(X, y) == expected
    other = np.where(np.arange(N) == 4, "maybe", y)
    message = r"expected the classes \[.*\], got the labels .* column 0 of Y, in row"
    with pytest.raises(ValueError, match=message):
        model.score(X, other)


def test_a_lazy_table_is_scored():
    table = pl.DataFrame(X.to_dict("list"))
    model = small().fit(table, Y)
    assert model.score(table.lazy(), Y) == model.score(table, Y)


def test_lazy_labels_are_fitted():
    labels = pl.DataFrame(Y.to_dict("list"))
    fitted = [small().fit(X, each) for each in (labels, labels.lazy())]
    assert_array_equal(*(model.predict_proba(X) for model in fitted))
