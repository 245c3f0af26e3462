"""Columns of exposure: how a row was shown, read by terms beside the network."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from impressions_in_files import in_a_file
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array
from small_model import small

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._fit import _learn_columns
from sk_pwiser._training._schema import unfitted_statistics
from sk_pwiser.calibration import FunnelCalibrator
from sk_pwiser.export import Scorer, to_onnx
from sk_pwiser.inspection import explain_rows, task_importances
from sk_pwiser.metrics import mean_auc_scorer
from sk_pwiser.networks import NETWORKS
from sk_pwiser.transfer import fine_tune, merge_estimators
from sk_pwiser.weighting import WEIGHTINGS

N = 1_200
RNG = np.random.default_rng(0)
POSITION = RNG.integers(1, 7, N)
DEVICE = RNG.choice(["desktop", "mobile"], N, p=[0.7, 0.3])
INPUTS = pd.DataFrame(
    {"item": RNG.integers(0, 20, N).astype(str), "x": RNG.normal(size=N)}
)
X = INPUTS.assign(position=POSITION, device=DEVICE)
P_CLICK = 1 / (1 + np.exp(-(1 + INPUTS["x"] - 0.6 * POSITION)))
CLICK = RNG.random(N) < P_CLICK
Y = pd.DataFrame({"click": CLICK, "conversion": CLICK & (RNG.random(N) < 0.4)})
Y = Y.astype(int)
COLUMNS = ["position", "device"]


def shown(**params):
    return small(
        **{"exposure_features": COLUMNS, "max_epochs": 3, "lr": 0.05, **params}
    )


@pytest.fixture(scope="module")
def model():
    return shown().fit(X, Y)


def terms_of(model):
    return model.net_.module_.exposure_terms


def test_predictions_are_at_the_reference_and_need_no_exposure(model):
    expected = model.predict_proba(X)
    assert_array_equal(model.predict_proba(INPUTS), expected)
    elsewhere = X.assign(position=99, device="watch")
    assert_array_equal(model.predict_proba(elsewhere), expected)
    assert_array_equal(model.predict_proba(X.drop(columns="device")), expected)
    assert_array_equal(model.predict_proba(pl.from_pandas(INPUTS)), expected)
    at_reference = X.assign(position=1, device="desktop")
    as_shown = model.as_shown().predict_proba(at_reference)
    assert_allclose(as_shown, expected, rtol=1e-5)


def test_the_terms_are_added_to_the_click_alone(model):
    as_shown = model.as_shown()
    difference = as_shown.predict_logits(X) - model.predict_logits(X)
    codes = model._result.schema.encoder.exposure_codes(X)
    terms = terms_of(model)(torch.from_numpy(codes)).detach().numpy()
    assert_allclose(difference[:, 0], terms[:, 0], atol=1e-5)
    assert np.abs(terms[:, 0]).max() > 0.1
    assert_array_equal(terms[:, 1], 0)
    assert_allclose(as_shown.predict_cvr(X), model.predict_cvr(X), rtol=1e-4)


def test_positions_further_down_have_lower_terms(model):
    logits = [
        model.as_shown().predict_logits(X[:1].assign(position=position))[0, 0]
        for position in range(1, 7)
    ]
    assert np.corrcoef(logits, range(6))[0, 1] < -0.9
    far = model.as_shown().predict_logits(X[:1].assign(position=1_000))[0, 0]
    assert far == logits[-1]  # the nearest position


def test_the_probabilities_as_shown_agree_with_the_log(model):
    ratio = model.as_shown().predict_proba(X).mean(axis=0) / Y.mean().to_numpy()
    assert_allclose(ratio, 1, atol=0.15)
    assert model.predict_proba(X)[:, 0].mean() > 1.3 * Y["click"].mean()


def test_what_is_compared_with_labels_is_as_shown(model):
    as_shown = model.as_shown()
    assert model.score(X, Y) == mean_auc_scorer(model, X, Y) == as_shown.score(X, Y)
    assert model.score(X, Y) > model.score(INPUTS, Y) + 0.02
    view = model.task("click")
    assert view.score(X, Y["click"]) > view.score(INPUTS, Y["click"])
    with pytest.raises(ValueError, match=r"X lacks the columns \['position', 'device'"):
        as_shown.predict_proba(INPUTS)


def test_the_validation_figures_are_as_shown():
    model = shown(early_stopping=True).fit(
        X[:900], Y[:900], X_val=X[900:], Y_val=Y[900:]
    )
    best = model.history_[model.best_epoch_ - 1]
    p = model.as_shown().predict_proba(X[900:])[:, 0].astype(float)
    y = Y["click"][900:].to_numpy()
    loss = -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))
    assert_allclose(best["valid_log_loss_click"], loss, rtol=1e-3)
    with pytest.raises(ValueError, match="X lacks the columns"):
        shown().fit(X, Y, X_val=INPUTS, Y_val=Y)


def test_references_are_given_by_a_mapping(model):
    other = shown(exposure_features={"position": 3, "device": "mobile"}).fit(X, Y)
    kinds = {name: other.column_encodings_[name] for name in COLUMNS}
    assert {kind["kind"] for kind in kinds.values()} == {"exposure"}
    assert kinds["position"]["encoding"].endswith("reference 3")
    shape = other._result.schema.encoder.exposure_columns_[1].exposure_shape
    assert kinds["device"]["values"]["mobile"] == shape.reference
    at_reference = X.assign(position=3, device="mobile")
    assert_allclose(
        other.as_shown().predict_proba(at_reference),
        other.predict_proba(X),
        rtol=1e-5,
    )
    assert model.column_encodings_["device"]["encoding"].endswith("'desktop'")


def test_terms_never_rise_if_asked():
    rising = X.assign(position=7 - POSITION)
    logits = {}
    for monotone in (False, True, ["position"]):
        params = {"exposure_monotone": monotone}
        model = shown(encoding_params=params).fit(rising, Y)
        rows = pd.concat([rising[:1].assign(position=k) for k in range(1, 7)])
        logits[str(monotone)] = model.as_shown().predict_logits(rows)[:, 0]
    assert (np.diff(logits["False"]) > 0).any()
    assert (np.diff(logits["True"]) <= 1e-6).all()
    assert_array_equal(logits["True"], logits["['position']"])


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("space", ["entire", "conditional"])
def test_every_network_has_the_terms(network, space):
    params = {"task_space": space}
    model = shown(network=network, network_params=params, max_epochs=1).fit(X, Y)
    assert terms_of(model).columns[0][3:].abs().min() > 0
    as_shown = model.as_shown()
    change = as_shown.predict_logits(X)[:, 0] - model.predict_logits(X)[:, 0]
    codes = torch.from_numpy(model._result.schema.encoder.exposure_codes(X))
    assert_allclose(change, terms_of(model)(codes)[:, 0].detach(), atol=1e-4)
    assert_allclose(as_shown.predict_cvr(X), model.predict_cvr(X), rtol=1e-3)


@pytest.mark.parametrize("weighting", [w for w in WEIGHTINGS if w != "torchjd"])
def test_every_weighting_trains_the_terms(weighting):
    params = {"weights": [1.0, 2.0]} if weighting == "fixed" else None
    model = shown(weighting=weighting, weighting_params=params, max_epochs=1)
    assert terms_of(model.fit(X, Y)).columns[0][3:].abs().min() > 0


def test_tasks_are_chosen():
    model = shown(encoding_params={"exposure_tasks": ["click", "conversion"]})
    model.fit(X, Y)
    assert terms_of(model).tasks == (0, 1)
    cvr = model.as_shown().predict_cvr(X)
    assert np.abs(cvr - model.predict_cvr(X)).max() > 0.01
    siblings = shown(task_parents=None).fit(X, Y)
    assert terms_of(siblings).tasks == (0, 1)


def test_files_updates_and_further_fits_read_the_exposure(tmp_path, model):
    files = in_a_file(X, Y, tmp_path)
    of_files = shown().fit(files)
    assert terms_of(of_files).columns[0].shape == terms_of(model).columns[0].shape
    assert_allclose(of_files.predict_proba(files), of_files.predict_proba(X), rtol=1e-5)
    assert of_files.as_shown().predict_proba(X)[:, 0].std() > 0.1
    updated = shown(max_epochs=1)
    for rows in np.split(np.arange(N), 3):
        updated.partial_fit(X.iloc[rows], Y.iloc[rows])
    assert terms_of(updated).columns[0][3:].abs().min() > 0
    ratio = updated.as_shown().predict_proba(X).mean(axis=0) / Y.mean().to_numpy()
    assert_allclose(ratio, 1, atol=0.3)
    warm = shown(warm_start=True).fit(X, Y).fit(X, Y)
    assert len(warm.history_) == 6
    with pytest.raises(ValueError, match="cannot continue with exposure_features"):
        warm.set_params(exposure_features=["position"]).fit(X, Y)


def test_models_are_saved_with_their_terms(tmp_path, model):
    model.save(tmp_path / "model")
    loaded = MultiTaskCTRCVRClassifier.load(tmp_path / "model")
    for copy in (loaded, pickle.loads(pickle.dumps(model))):
        assert_array_equal(copy.predict_proba(INPUTS), model.predict_proba(X))
        assert_array_equal(
            copy.as_shown().predict_proba(X), model.as_shown().predict_proba(X)
        )


def test_surfaces_are_at_the_reference(model):
    scorer = Scorer(model, runtime="torch")
    rows = INPUTS[:5].to_dict("records")
    assert_allclose(scorer(rows), model.predict_proba(X[:5]), rtol=1e-5)
    explanation = explain_rows(model, X[:3], background=X[10:40])
    assert not {"position", "device"} & set(explanation.to_frame().columns)
    importances = task_importances(model, X, Y, n_repeats=1, random_state=0)
    assert set(importances.column_names) == {"item", "x"}


def test_a_calibrator_learns_as_shown_and_predicts_at_the_reference(model):
    calibrator = FunnelCalibrator(model, cv=None, method="sigmoid").fit(X, Y)
    shown_rate = calibrator.as_shown().predict_proba(X).mean(axis=0)
    assert_allclose(shown_rate, Y.mean(), rtol=0.02)
    assert_array_equal(calibrator.predict_proba(X), calibrator.predict_proba(INPUTS))
    assert calibrator.predict_proba(X)[:, 0].mean() > 1.2 * shown_rate[0]


def test_arrays_keep_the_columns():
    array = np.column_stack([INPUTS["x"], POSITION])
    model = small(exposure_features=[1]).fit(array, Y)
    moved = array.copy()
    moved[:, 1] = 4
    assert_array_equal(model.predict_proba(moved), model.predict_proba(array))
    with pytest.raises(ValueError, match="1 features"):
        model.predict_proba(array[:, :1])


def test_rare_and_missing_values():
    position = pd.Series(POSITION, dtype=float)
    position[:2] = [1_000, 2_000]
    position[50:150] = np.nan
    table = X.assign(position=position)
    model = shown().fit(table, Y)
    values = model.column_encodings_["position"]["values"]
    assert list(values) == [1, 2, 3, 4, 5, 6]  # the rare ones share the last
    rows = pd.concat([table[:1].assign(position=p) for p in (6, 1_500, np.nan, 1)])
    last, rare, missing, first = model.as_shown().predict_logits(rows)[:, 0]
    assert last == rare
    assert missing not in (first, last)
    # What a fit has not seen is at the reference.
    other = shown().fit(X, Y).as_shown()
    rows = pd.concat([X[:1].assign(device=d) for d in ("desktop", "watch", None)])
    assert len(set(other.predict_logits(rows)[:, 0])) == 1


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"exposure_features": ["place"]}, "'place', which is not a column of X"),
        ({"exposure_features": list(X)}, "X must have a column besides"),
        ({"exposure_features": [True, False, True, True]}, "no mask"),
        ({"exposure_features": ["position", 2]}, "contains 'position' twice"),
        ({"exposure_features": {"position": "top"}}, "must be a number"),
        ({"exposure_features": {"device": "watch"}}, "must be a value of the column"),
        (
            {"encoding_params": {"exposure_monotone": ["device"]}},
            "'device', which is not a column of exposure_features with numbers",
        ),
        ({"encoding_params": {"exposure_monotone": "yes"}}, "bool or a list"),
        ({"encoding_params": {"exposure_tasks": ["buy"]}}, "exposure_tasks"),
        ({"encoding_params": {"exposure_tasks": []}}, "exposure_tasks must be None"),
        (
            {
                "exposure_features": None,
                "encoding_params": {"exposure_tasks": ["click"]},
            },
            "exposure_tasks in encoding_params needs exposure_features",
        ),
        (
            {"network_params": {"domain_features": ["device"]}},
            "which is in exposure_features and no input",
        ),
        ({"target_encoding": ["device"]}, "target_encoding contains 'device'"),
        ({"encoding_params": {"min_frequency": {"device": 3}}}, "min_frequency"),
    ],
)
def test_wrong_parameters_are_named(params, message):
    with pytest.raises((TypeError, ValueError), match=message):
        shown(**params).fit(X, Y)


def test_sparse_tables_and_totals_per_impression_are_refused():
    sparse = csr_array(np.column_stack([INPUTS["x"], POSITION]))
    with pytest.raises(ValueError, match="exposure_features must be empty if X is"):
        small(exposure_features=[1]).fit(sparse, Y)
    amounts = Y.assign(spend=10.0 * Y["conversion"])
    tasks = {"spend": "conversion"}
    with pytest.raises(ValueError, match="value_loss='tweedie' learns means per"):
        shown(value_tasks=tasks, value_loss="tweedie").fit(X, amounts)
    valued = shown(value_tasks=tasks).fit(X, amounts)
    given_event = valued.predict_value(X, given_event=True)
    assert_array_equal(
        valued.as_shown().predict_value(X, given_event=True), given_event
    )
    expected = given_event * valued.as_shown().predict_proba(X)[:, 1]
    assert_allclose(valued.as_shown().predict_value(X), expected, rtol=1e-4)


def test_further_trainings_read_the_exposure(model):
    tuned = [
        fine_tune(model, X.iloc[rows], Y.iloc[rows], max_epochs=1)
        for rows in np.split(np.arange(N), 2)
    ]
    merged = merge_estimators(model, tuned, X, objective=None)
    with pytest.raises(ValueError, match="at the reference of exposure_features"):
        merge_estimators(model, tuned, X, Y)
    for estimator in (*tuned, merged):
        assert_array_equal(estimator.predict_proba(INPUTS), estimator.predict_proba(X))
        change = terms_of(estimator).columns[0] - terms_of(model).columns[0]
        assert change.abs().max() > 1e-3
    with pytest.raises(ValueError, match="X lacks the columns"):
        fine_tune(model, INPUTS, Y, max_epochs=1)


def test_a_fit_is_resumed_with_its_terms(tmp_path):
    params = {"checkpoint_dir": tmp_path, "lr_schedule": None}
    shown(max_epochs=2, **params).fit(X, Y)
    resumed = shown(max_epochs=4, warm_start=True, **params).fit(X, Y)
    whole = shown(max_epochs=4, lr_schedule=None).fit(X, Y)
    assert_array_equal(
        resumed.as_shown().predict_proba(X), whole.as_shown().predict_proba(X)
    )


def test_the_level_of_the_last_rows_is_as_shown():
    # Later rows are shown further down: their level is lower, the item's is not.
    order = np.argsort(POSITION + RNG.normal(scale=3, size=N))
    table = X.iloc[order].assign(day=np.arange(N) // 12)
    model = shown(
        early_stopping=True,
        max_epochs=20,
        encoding_params={"time_column": "day"},
    ).fit(table, Y.iloc[order])
    last = slice(-N // 10, None)
    shown_rate = model.as_shown().predict_proba(table[last])[:, 0].mean()
    assert_allclose(shown_rate, Y.iloc[order][last]["click"].mean(), atol=0.05)


@pytest.mark.slow
def test_graphs_have_no_input_for_the_exposure(model, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    to_onnx(model, tmp_path / "model.onnx", inputs="raw")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert [each.name for each in session.get_inputs()] == ["item", "x"]
    feed = {"item": X[["item"]].to_numpy(dtype=object), "x": X[["x"]].to_numpy()}
    (graph_output,) = session.run(["probabilities"], feed)
    assert_allclose(graph_output, model.predict_proba(X), rtol=1e-5)


def test_terms_are_right_where_a_network_does_not_learn_the_items():
    """An old ranking by quality, and a network too small to learn the quality."""
    generator = np.random.default_rng(1)
    n_items = 40
    quality = generator.normal(scale=1.5, size=n_items)
    item = generator.integers(0, n_items, (1_200, 5))
    score = quality[item] + generator.normal(size=item.shape)
    position = (-score).argsort(axis=1).argsort(axis=1) + 1
    log_odds = -1 + quality[item] - 0.5 * (position - 1)
    click = generator.random(item.shape) < 1 / (1 + np.exp(-log_odds))
    table = pd.DataFrame({"item": item.ravel().astype(str), "p": position.ravel()})
    model = MultiTaskCTRCVRClassifier(
        exposure_features=["p"],
        target_encoding=False,
        optimizer_params={"embedding_weight_decay": 0.02},
        random_state=0,
    )
    model.fit(table, click.ravel().astype(int))
    rows = pd.concat([table[:1].assign(p=k) for k in range(1, 6)])
    terms = model.as_shown().predict_logits(rows)
    assert_allclose(np.diff(terms), -0.5, atol=0.25)
    # The rates of positions, without the items, fall much faster.
    rates = np.array([click[position == k].mean() for k in range(1, 6)])
    naive = np.log(rates / (1 - rates))
    assert naive[4] - naive[0] < terms[4] - terms[0] - 1


def test_new_ids_that_have_a_vector_but_no_embedding():
    """An update has rows of values that are still too rare for an embedding."""
    rng = np.random.default_rng(1)
    ids = [str(value) for value in range(40)]
    vectors = pd.DataFrame(rng.normal(size=(40, 3)), index=ids)
    params = {
        "vectors": {"item": vectors},
        "grow_vocabulary": True,
        "min_frequency": {"item": 3},
    }
    model = shown(encoding_params=params).fit(X, Y)
    update = X[:60].assign(item=[*["0"] * 50, *ids[30:]])
    model.partial_fit(update, Y[:60])
    assert np.isfinite(model.predict_proba(update)).all()
    terms = model.as_shown().predict_proba(update)
    assert np.isfinite(terms).all()


def misled_log(seed):
    """Return rows and labels of a ranking of its own taste.

    The ranking shows the items at the top that it likes, whatever they are worth.
    """
    rng = np.random.default_rng(seed)
    n_items = 120
    worth = rng.normal(size=n_items)
    taste = rng.permutation(n_items)
    item = rng.integers(0, n_items, 6_000)
    position = 1 + taste[item] // 20 + rng.integers(0, 3, len(item))
    p = 1 / (1 + np.exp(1 - worth[item])) / position
    table = pd.DataFrame({"item": item.astype(str), "position": position})
    table["x"] = rng.normal(size=len(item))
    clicked = (rng.random(len(item)) < p).astype(int)
    converted = clicked * (rng.random(len(item)) < 0.5)
    return table, np.column_stack([clicked, converted])


def test_statistics_count_how_the_rows_of_a_value_were_shown():
    table, labels = misled_log(0)
    model = small(exposure_features=["position"], max_epochs=1).fit(table, labels)
    statistics = model._result.schema.statistics
    scores = statistics.exposure_scores
    codes = model._result.schema.encoder.exposure_codes(table)[:, 0]
    # The score of a position: its rate, shrunk as by ten events, over that of all rows.
    rate = (labels[:, 0].sum() + 0.5) / (len(labels) + 1)
    for code in np.unique(codes):
        clicks = labels[codes == code, 0]
        expected = np.log((clicks.sum() + 10) / (rate * len(clicks) + 10))
        assert_allclose(scores[code], expected)
    # The last label of the statistics of an item is the sum of the scores of its rows.
    categories = model._result.schema.encoder.code_columns_[0].codes_
    for value in ("0", "7", "60"):
        rows = table["item"] == value
        n, total = statistics.counts_[0][:, -1, categories[value]]
        assert n == rows.sum()
        assert_allclose(total, scores[codes[rows]].sum())
    names = model.encode(table[:2]).numeric_names
    assert names[-3:] == ["item_conversion_rate", "item_exposure", "item_frequency"]
    off = small(exposure_features=["position"], target_encoding=False, max_epochs=1)
    assert off.fit(table, labels)._result.schema.statistics is None


def test_updates_keep_the_scores_of_positions():
    table, labels = misled_log(1)
    first = small(exposure_features=["position"], max_epochs=1)
    first.partial_fit(table[:3_000], labels[:3_000])
    scores = first._result.schema.statistics.exposure_scores.copy()
    first.partial_fit(table[3_000:], labels[3_000:])
    statistics = first._result.schema.statistics
    assert_array_equal(statistics.exposure_scores, scores)
    codes = first._result.schema.encoder.exposure_codes(table)[:, 0]
    assert_allclose(statistics.totals_[1, -1], scores[codes].sum())
    warm = small(exposure_features=["position"], max_epochs=1, warm_start=True)
    warm.fit(table[:3_000], labels[:3_000]).fit(table, labels)
    assert_array_equal(warm._result.schema.statistics.exposure_scores, scores)


def test_statistics_of_exposure_beside_those_of_amounts_and_in_files(tmp_path):
    table, labels = misled_log(2)
    Y_values = pd.DataFrame(labels, columns=["click", "conversion"])
    Y_values["spend"] = np.where(labels[:, 1], 2.0 + table["x"] ** 2, np.nan)
    model = small(
        exposure_features=["position"], value_tasks={"spend": "conversion"}
    ).fit(table, Y_values)
    statistics = model._result.schema.statistics
    assert statistics.n_values == 2
    names = model.encode(table[:2]).numeric_names
    assert names[-3:] == ["item_spend_mean", "item_exposure", "item_frequency"]
    model.save(tmp_path / "model")
    loaded = MultiTaskCTRCVRClassifier.load(tmp_path / "model")
    assert_array_equal(loaded.predict_value(table), model.predict_value(table))
    rows = table.drop(columns="position")[:20]
    scorer = Scorer(model, runtime="torch")
    expected = model.predict_proba(rows)
    assert_allclose(scorer(rows.to_dict("records")), expected, rtol=1e-5)
    for estimator in (model, loaded):
        estimator.partial_fit(table[:500], Y_values[:500])
    assert_array_equal(loaded.predict_proba(rows), model.predict_proba(rows))


def test_files_learn_the_scores_of_the_table(tmp_path):
    table, labels = misled_log(3)
    Y_table = pd.DataFrame(labels, columns=["click", "conversion"])
    params = {"exposure_features": ["position"], "max_epochs": 1}
    of_files = small(**params).fit(in_a_file(table, Y_table, tmp_path))
    of_table = small(**params).fit(table, Y_table)
    scores = of_files._result.schema.statistics.exposure_scores
    assert_allclose(scores, of_table._result.schema.statistics.exposure_scores)
    assert scores.min() < -0.5


def test_models_without_these_statistics_continue():
    # As files of earlier versions have them.
    table, labels = misled_log(4)
    plain = small(exposure_features=["position"], max_epochs=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_learn_columns, "unfitted_statistics", _without_exposure)
        plain.partial_fit(table[:3_000], labels[:3_000])
    assert plain._result.schema.statistics.n_values == 0
    plain.partial_fit(table[3_000:], labels[3_000:])
    assert plain._result.schema.statistics.n_tasks_ == 2
    plain.set_params(warm_start=True).fit(table, labels)
    assert plain._result.schema.statistics.n_tasks_ == 2


def _without_exposure(*args, **kwargs):
    statistics = unfitted_statistics(*args, **kwargs)
    for name in ("n_values", "reads_exposure"):
        vars(statistics).pop(name, None)
    statistics.n_tasks_ -= 1
    return statistics
