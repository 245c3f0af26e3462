"""When training ends: few rows, monitored figures, and what is said about it."""

import pickle
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from impressions_in_files import in_a_file
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score
from small_model import refuses, small

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._training import _validation_figures
from sk_pwiser._training._validation_figures import score_validation
from sk_pwiser.datasets import ParquetImpressions, make_ctr_cvr
from sk_pwiser.metrics import cvr_auc_scorer, grouped_auc, make_task_scorer

DATA = make_ctr_cvr(3_000, ctr=0.3, cvr=0.3, random_state=0)
X, Y = DATA.data[:1_001], DATA.target[:1_001]
X_LATE, Y_LATE = DATA.data[1_001:], DATA.target[1_001:]


def mean_log_loss(labels, p):
    p = p.astype(float)
    return np.mean([log_loss(labels.iloc[:, k], p[:, k]) for k in range(p.shape[1])])


@pytest.mark.parametrize("n", [20, 100, 500, 1_000, 1_001])
@pytest.mark.filterwarnings("ignore:Task 'conversion' is 0")
def test_few_rows_are_predicted_about_as_well_as_by_the_base_rates(n):
    model = MultiTaskCTRCVRClassifier(random_state=0).fit(X[:n], Y[:n])
    rates = np.tile((Y[:n].sum() + 0.5) / (n + 1), (len(X_LATE), 1))
    found = mean_log_loss(Y_LATE, model.predict_proba(X_LATE))
    assert found < mean_log_loss(Y_LATE, rates) + 0.02


@pytest.mark.parametrize(
    ("n", "params", "n_epochs"),
    [
        (1_000, {}, 5),  # 9 steps, two of them per epoch
        (300, {}, 5),
        (300, {"batch_size": 100}, 2),
        (300, {"batch_size": 32}, 1),
        (300, {"max_epochs": 3}, 3),
        (300, {"max_epochs": 15, "early_stopping": False}, 15),
        (3, {}, 4),
    ],
)
@pytest.mark.filterwarnings("ignore:Task .* in every row")
def test_the_number_of_steps_on_few_rows_follows_from_the_rows(n, params, n_epochs):
    params = {"max_epochs": 50, "batch_size": 512, "early_stopping": "auto"} | params
    model = small(warm_start=True, **params).fit(X[:n], Y[:n])
    assert model.n_iter_ == model.best_epoch_ == n_epochs
    assert "valid_loss" not in model.history_[0]
    assert model.fit(X[:n], Y[:n]).n_iter_ == 2 * n_epochs


def test_validation_rows_lift_the_limit():
    params = {"batch_size": 512, "max_epochs": 15, "lr": 1e-4, "weight_decay": 0}
    model = small(early_stopping="auto", **params)
    assert model.fit(X[:300], Y[:300], eval_set=(X_LATE, Y_LATE)).n_iter_ == 15


def test_above_the_limit_the_best_epoch_has_as_many_steps_at_least():
    params = {"lr": 0.2, "batch_size": 512, "max_epochs": 30}
    noise = np.random.default_rng(0).permutation(Y)
    auto = small(early_stopping="auto", **params).fit(X, noise)
    assert auto.best_epoch_ >= 5  # as for 1,000 rows
    assert auto.n_iter_ >= 8 or auto.best_epoch_ == 30
    told = small(early_stopping=True, **params).fit(X, noise)
    assert told.best_epoch_ < 5
    assert told.history_[:, "valid_loss"] == auto.history_[: told.n_iter_, "valid_loss"]
    short = small(early_stopping="auto", **params | {"max_epochs": 3}).fit(X, Y)
    assert short.n_iter_ == short.best_epoch_ == 3


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.filterwarnings("ignore:Task .* in every row")
def test_a_handful_of_rows_of_one_class(label):
    model = MultiTaskCTRCVRClassifier(random_state=0)
    p = model.fit(X[:4], np.full((4, 2), label)).predict_proba(X)
    assert np.isfinite(p).all()
    assert_allclose(p, label, atol=0.2)


@pytest.fixture(scope="module")
def stopped(_estimators_on_device):
    model = small(max_epochs=60, early_stopping=True, lr=0.02, pwiser_weight=1.0)
    return model.fit(X, Y, eval_set=(X_LATE, Y_LATE))


def test_the_log_loss_has_neither_pairs_nor_weights_of_tasks(stopped):
    best = stopped.history_[stopped.best_epoch_ - 1]
    p = stopped.predict_proba(X_LATE)
    losses = [best[f"valid_log_loss_{task}"] for task in ("click", "conversion")]
    assert np.mean(losses) == best["valid_log_loss_mean"]
    assert best["valid_log_loss_mean"] == pytest.approx(mean_log_loss(Y_LATE, p))
    assert best["valid_loss"] > sum(losses) + 0.01


@pytest.mark.parametrize("rows_at_a_time", [_validation_figures.LOSS_ROWS, 7])
def test_missing_labels_and_sampled_rows_have_no_part_in_the_log_loss(
    rows_at_a_time, monkeypatch
):
    monkeypatch.setattr(_validation_figures, "LOSS_ROWS", rows_at_a_time)
    labels = Y_LATE.astype(float)
    is_missing = np.arange(len(labels)) % 3 == 0
    labels.loc[is_missing, "conversion"] = np.nan
    model = small(missing_labels="ignore", negative_sampling_rate=0.5)
    model.fit(X, Y, eval_set=(X_LATE, labels))
    p = model.predict_proba(X_LATE).astype(float)
    weights = np.where(Y_LATE["click"] == 0, 2.0, 1.0)
    for k, rows in enumerate([np.ones(len(p), dtype=bool), ~is_missing]):
        task = Y_LATE.columns[k]
        expected = log_loss(Y_LATE[task][rows], p[rows, k], sample_weight=weights[rows])
        found = model.history_[model.best_epoch_ - 1, f"valid_log_loss_{task}"]
        assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("early_stopping", "column", "sign"),
    [
        ("loss", "valid_loss", -1),
        ("log_loss_click", "valid_log_loss_click", -1),
        ("auc", "valid_auc_mean", 1),
        (cvr_auc_scorer, "valid_score", 1),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in (
                ("log_loss", "valid_log_loss_mean", -1),
                ("auc_conversion", "valid_auc_conversion", 1),
            )
        ),
    ],
)
def test_one_figure_decides(early_stopping, column, sign):
    model = small(early_stopping=early_stopping, max_epochs=40, lr=0.02)
    model.fit(X, Y, eval_set=(X_LATE, Y_LATE))
    figures = sign * np.array(model.history_[:, column])
    assert model.best_epoch_ == 1 + np.argmax(figures)
    assert model.n_iter_ == model.best_epoch_ + 3
    assert column in model.stop_reason_ or column == "valid_loss"


def test_a_scorer_sees_the_labels_and_probabilities_of_the_validation_rows():
    scorer = make_task_scorer(average_precision_score, "conversion")
    model = small(early_stopping=scorer, missing_labels="ignore")
    labels = Y_LATE.where(np.arange(len(Y_LATE))[:, np.newaxis] % [1_000, 2] > 0)
    labels["click"] = Y_LATE["click"]
    model.fit(X, Y, eval_set=(X_LATE, labels))
    best = model.history_[model.best_epoch_ - 1, "valid_score"]
    assert best == pytest.approx(scorer(model, X_LATE, labels), abs=1e-6)
    assert_array_equal(
        pickle.loads(pickle.dumps(model)).predict_proba(X), model.predict_proba(X)
    )
    one = small(early_stopping=make_task_scorer(log_loss, 0, greater_is_better=False))
    one.fit(X, np.where(Y["click"], "yes", "no"))
    assert one.history_[0, "valid_score"] == pytest.approx(
        -one.history_[0, f"valid_log_loss_{one.task_names_[0]}"], rel=1e-5
    )


@pytest.mark.filterwarnings("ignore:.* is undefined and set to nan")
def test_the_loss_decides_if_a_scorer_is_undefined():
    scorer = make_task_scorer(roc_auc_score, "conversion")
    params = {"early_stopping": scorer, "max_epochs": 6}
    no_conversion = (X_LATE, Y_LATE.assign(conversion=0))
    with pytest.warns(UserWarning, match="is nan on the validation rows. The valida"):
        model = small(**params).fit(X, Y, eval_set=no_conversion)
    expected = small(**params | {"early_stopping": True})
    expected.fit(X, Y, eval_set=no_conversion)
    assert model.best_epoch_ == expected.best_epoch_
    assert model.stop_reason_ == expected.stop_reason_
    assert_array_equal(model.predict_proba(X), expected.predict_proba(X))


@pytest.mark.parametrize("task", [0, 1])
def test_a_scorer_sees_the_rates_of_the_sampled_log(task):
    # Its labels are those of a log that holds a fifth of the rows without a click.
    scorer = make_task_scorer(log_loss, task, greater_is_better=False)
    model = small(early_stopping=scorer, negative_sampling_rate=0.2)
    model.fit(X, Y, eval_set=(X_LATE, Y_LATE))
    p = model.predict_proba(X_LATE).astype(float)
    kept = p[:, 0] + 0.2 * (1 - p[:, 0])
    expected = -log_loss(Y_LATE.iloc[:, task], p[:, task] / kept)
    best = model.history_[model.best_epoch_ - 1, "valid_score"]
    assert best == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("offset", [-20.0, 0.0, 20.0])
def test_a_scorer_sees_the_order_of_probabilities_near_0_and_1(offset):
    logits = torch.linspace(-1, 1, 50)[:, np.newaxis] + offset
    labels = (logits > offset).float()
    rows = SimpleNamespace(column={"y": labels, "sample_weight": None}.get)
    scorer = make_task_scorer(roc_auc_score, 0)
    assert score_validation(scorer, rows, logits, {"click": None}) == 1


def test_a_scorer_of_the_cvr_takes_the_tree_of_the_tasks():
    likes = pd.DataFrame({"like": np.arange(len(DATA.target)) % 3 == 0}).astype(int)
    labels = likes.join(DATA.target)
    tree, rows = {"conversion": "click"}, slice(1_001)
    model = small(early_stopping=cvr_auc_scorer, task_parents=tree, max_epochs=2)
    model.fit(X, labels[rows], eval_set=(X_LATE, labels[1_001:]))
    best = model.history_[model.best_epoch_ - 1, "valid_score"]
    expected = cvr_auc_scorer(model, X_LATE, labels[1_001:])
    assert best == pytest.approx(expected, rel=1e-4)  # other batches round otherwise
    siblings = small(early_stopping=cvr_auc_scorer, task_parents=None)
    with pytest.raises(ValueError, match="must presuppose another one"):
        siblings.fit(X, labels[rows])


@pytest.mark.parametrize("figure", ["auc", "auc_conversion"])
def test_the_loss_decides_if_a_task_of_the_auc_lacks_a_label(figure):
    pair = X_LATE, Y_LATE.assign(conversion=0)
    model = small(early_stopping=figure, max_epochs=6, lr=0.03)
    with pytest.warns(UserWarning, match="them for 'conversion'. The validation los"):
        model.fit(X, Y, eval_set=pair)
    assert model.best_epoch_ == 1 + np.argmin(model.history_[:, "valid_loss"])
    small(early_stopping="auc_click", max_epochs=1).fit(X, Y, eval_set=pair)


@pytest.mark.filterwarnings("ignore:None of the")
@pytest.mark.parametrize("label", [0.0, np.nan])
@pytest.mark.parametrize(
    "figure", ["log_loss_conversion", "log_loss", "log_loss_click"]
)
def test_the_log_loss_of_a_task_without_both_labels_does_not_decide(label, figure):
    pair = X_LATE, Y_LATE.astype(float).assign(conversion=label)
    model = small(early_stopping=figure, missing_labels="ignore", max_epochs=4)
    if figure != "log_loss_conversion":  # the mean is that of the other task
        model.fit(X, Y, eval_set=pair)
        return
    with pytest.warns(UserWarning, match="them for 'conversion'. The validation loss"):
        model.fit(X, Y, eval_set=pair)
    expected = small(early_stopping="loss", missing_labels="ignore", max_epochs=4)
    expected.fit(X, Y, eval_set=pair)
    assert model.stop_reason_ == expected.stop_reason_
    assert_array_equal(model.predict_proba(X), expected.predict_proba(X))


def test_a_mean_of_log_losses_needs_one_task_with_both_labels():
    message = "early_stopping='log_loss' needs .* lack them for 'click', 'conversion'"
    with pytest.warns(UserWarning, match=message):
        small(early_stopping="log_loss").fit(X, Y, eval_set=(X_LATE, 0 * Y_LATE))


@pytest.mark.parametrize(
    ("early_stopping", "error", "message"),
    [
        ("auc_buy", ValueError, "one of .*'auc_click', 'auc_conversion'.* 'auc_buy'"),
        (average_precision_score, TypeError, "those of metrics.make_task_scorer"),
    ],
)
def test_unknown_figures_are_refused(earlier, early_stopping, error, message):
    refuses(earlier.set_params(early_stopping=early_stopping), error, message)


USERS = np.random.default_rng(0).integers(0, 60, len(DATA.data)).astype(str)
FIRST, LAST = USERS[: len(X)], USERS[len(X) :]
VALID = {"X_val": X_LATE, "Y_val": Y_LATE, "groups_val": LAST}


@pytest.mark.slow
def test_the_auc_within_groups_decides(tmp_path):
    """Also of rows without a label, after a warm start, and in files of the model."""
    labels = Y_LATE.astype(float)
    is_known = np.arange(len(labels)) % 3 > 0
    labels.loc[~is_known, "conversion"] = np.nan
    model = small(
        early_stopping="grouped_auc_conversion",
        missing_labels="ignore",
        max_epochs=40,
        lr=0.02,
        warm_start=True,
    )
    n_earlier = 0
    for _ in range(2):
        model.fit(X, Y, **VALID | {"Y_val": labels})
        figures = model.history_[n_earlier:, "valid_grouped_auc_conversion"]
        assert model.best_epoch_ == n_earlier + 1 + np.argmax(figures)
        p = model.predict_proba(X_LATE)[is_known, 1]
        expected = grouped_auc(Y_LATE["conversion"][is_known], p, LAST[is_known])
        assert max(figures) == pytest.approx(expected, abs=1e-6)
        n_earlier = model.n_iter_
    path = tmp_path / "model.safetensors"
    model.save(path)
    loaded = type(model).load(path).fit(X, Y, **VALID)
    assert "valid_grouped_auc_conversion" in loaded.history_[-1]
    row = small(early_stopping="grouped_auc").fit(X, Y, groups=FIRST).history_[0]
    tasks = [row[f"valid_grouped_auc_{task}"] for task in ("click", "conversion")]
    assert row["valid_grouped_auc_mean"] == np.mean(tasks)
    other = small(early_stopping="auc").fit(X, Y, groups=FIRST)
    assert not [key for key in other.history_[0] if "grouped" in key]


@pytest.mark.parametrize("has_set", [False, True])
def test_the_auc_within_groups_of_files(has_set, tmp_path):
    pytest.importorskip("pyarrow")
    tables = {}
    for name, part in (("train", slice(0, 1_001)), ("valid", slice(1_001, None))):
        table = DATA.data[part].join(DATA.target[part]).assign(user=USERS[part])
        table.sort_values("user", kind="stable").to_parquet(
            tmp_path / f"{name}.parquet"
        )
        arguments = tmp_path / f"{name}.parquet", list(X), list(Y)
        tables[name] = ParquetImpressions(*arguments, groups="user")
    valid = {"X_val": tables["valid"]} if has_set else {}
    model = small(early_stopping="grouped_auc").fit(tables["train"], **valid)
    row = model.history_[model.best_epoch_ - 1]
    assert np.isfinite(row["valid_grouped_auc_mean"])
    if has_set:
        expected = grouped_auc(Y_LATE["click"], model.predict_proba(X_LATE)[:, 0], LAST)
        assert row["valid_grouped_auc_click"] == pytest.approx(expected, abs=1e-6)


def test_the_auc_within_groups_needs_groups_with_both_labels(earlier, tmp_path):
    model = earlier.set_params(early_stopping="grouped_auc")
    message = "early_stopping='grouped_auc' needs the group of each validation row"
    refuses(model, ValueError, message)
    refuses(model, ValueError, message, groups=np.arange(300), eval_set=(X, Y))
    refuses(model, ValueError, message, X_val=X, Y_val=Y)
    model = small(early_stopping="grouped_auc", max_epochs=1)
    with pytest.warns(UserWarning, match="group with both labels .* 'click', 'conve"):
        model.fit(X, Y, **VALID | {"groups_val": np.arange(len(LAST))})
    with pytest.raises(ValueError, match=f"{message}.* groups of fit or ParquetImp"):
        model.fit(in_a_file(X, Y, tmp_path))


def test_the_last_line_says_why_training_ended(stopped, capsys, tmp_path):
    best, last = stopped.best_epoch_, stopped.n_iter_
    assert stopped.stop_reason_ == (
        f"Stopped at epoch {last}: the validation loss has not improved for 3 epochs; "
        f"the weights are those of epoch {best}."
    )
    model = small(verbose=1).fit(X, Y)
    *_, line = capsys.readouterr().out.splitlines()
    assert line == model.stop_reason_
    assert line.startswith("Ended at epoch 2, the last one planned; the weights")
    assert pickle.loads(pickle.dumps(model)).stop_reason_ == line
    pytest.importorskip("safetensors")
    model.save(tmp_path / "model.safetensors")
    assert type(model).load(tmp_path / "model.safetensors").stop_reason_ == line
    assert model.partial_fit(X, Y).stop_reason_ is None
