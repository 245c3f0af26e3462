"""The pictures of a training history and of a search against their figures."""

import copy

import numpy as np
import pytest
from fake_estimators import ReadsFeatures
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import NotFittedError
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer
from small_model import X, Y, small

from sk_pwiser.inspection import TrainingHistoryDisplay, WeightSearchDisplay
from sk_pwiser.metrics import mean_auc_scorer, mean_log_loss_scorer
from sk_pwiser.model_selection import FunnelStratifiedKFold


@pytest.fixture(scope="module")
def trained():
    return small(early_stopping=True, max_epochs=3).fit(X, Y)


def labels_of(lines):
    return [line.get_label() for line in lines]


def test_curves_are_the_columns_of_the_history(trained):
    display = TrainingHistoryDisplay.from_estimator(trained)
    losses, aucs = display.lines_
    assert labels_of(losses) == ["training", "validation", "validation log loss"]
    assert labels_of(aucs) == ["click", "conversion", "mean"]
    columns = ["train_loss", "valid_loss", "valid_log_loss_mean"]
    columns += [f"valid_auc_{name}" for name in ("click", "conversion", "mean")]
    for line, column in zip([*losses, *aucs], columns, strict=True):
        epochs = trained.history_[:, ("epoch", column)]
        assert_array_equal(line.get_xydata(), epochs)
    assert display.best_epoch == trained.best_epoch_


def test_without_validation_rows_there_is_a_loss_only():
    model = small(early_stopping=False).fit(X, Y)
    display = TrainingHistoryDisplay.from_estimator(
        make_pipeline(FunctionTransformer(), model)
    )
    (lines,) = display.lines_
    assert labels_of(lines) == ["training"]


def test_epochs_of_partial_fit_have_no_validation_figures(trained):
    model = copy.deepcopy(trained).partial_fit(X, Y)
    display = TrainingHistoryDisplay.from_estimator(model)
    training, validation, _ = (line.get_ydata() for line in display.lines_[0])
    assert len(training) == len(validation) == len(model.history_)
    assert training[-1] == model.history_[-1, "train_loss"]


def test_errors_of_histories(trained, pyplot):
    with pytest.raises(NotFittedError):
        TrainingHistoryDisplay.from_estimator(small())
    other = LogisticRegression().fit([[0], [1]], [0, 1])
    with pytest.raises(ValueError, match="must have the attribute history_"):
        TrainingHistoryDisplay.from_estimator(other)
    _, ax = pyplot.subplots()
    with pytest.raises(ValueError, match=r"ax must contain 2 axes, .* got 1"):
        TrainingHistoryDisplay.from_estimator(trained, ax=ax)


POWERS = [10.0, 0.0, 0.1, 1.0]


class Noisy(ReadsFeatures):
    """The names and the values of a search, without the cost of training."""

    def __init__(self, pwiser_weight=1.0, other=1.0):
        weight = 0.2 if pwiser_weight is None else pwiser_weight
        super().__init__(weight + 0.1 * other, ["click", "buy"])
        self.pwiser_weight = pwiser_weight
        self.other = other


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    X = rng.random((90, 3))
    Y = (rng.random((90, 2)) < X[:, :2]).astype(int)
    return X, Y


def search_of(rows, grid, refit="loss"):
    scoring = {"buy": mean_auc_scorer, "loss": mean_log_loss_scorer}
    return GridSearchCV(Noisy(), grid, scoring=scoring, refit=refit, cv=3).fit(*rows)


def test_scores_and_standard_errors_are_those_of_the_folds(rows):
    search = search_of(rows, {"pwiser_weight": POWERS})
    display = WeightSearchDisplay.from_search(search)
    results, order = search.cv_results_, np.argsort(POWERS)
    for name, container in zip(["buy", "loss"], display.containers_, strict=True):
        folds = np.array([results[f"split{k}_test_{name}"] for k in range(3)])[:, order]
        points = np.column_stack([np.sort(POWERS), folds.mean(axis=0)])
        assert_allclose(container[0].get_xydata(), points)
        # Nadeau and Bengio (2003): folds of 60 training rows and 30 test rows.
        expected = np.sqrt((1 / 3 + 30 / 60) * folds.var(axis=0, ddof=1))
        assert_allclose(display.standard_errors[name], expected, atol=1e-12)
    assert display.best_value == search.best_params_["pwiser_weight"]


def test_the_score_of_a_single_split_has_no_standard_error(rows):
    split = [(np.arange(60), np.arange(60, 90))]
    grid = {"pwiser_weight": POWERS}
    search = GridSearchCV(Noisy(), grid, scoring=mean_auc_scorer, cv=split).fit(*rows)
    display = WeightSearchDisplay.from_search(search)
    assert np.isfinite(display.scores["score"]).all()
    assert np.isnan(display.standard_errors["score"]).all()


def test_other_parameters_have_their_selected_values(rows):
    grid = {"pwiser_weight": POWERS, "other": [3.0, 1.0, 2.0]}
    search = search_of(rows, grid)
    display = WeightSearchDisplay.from_search(search)
    best = search.best_params_["other"]
    for value, score in zip(display.values, display.scores["loss"], strict=True):
        i = search.cv_results_["params"].index({"pwiser_weight": value, "other": best})
        assert score == search.cv_results_["mean_test_loss"][i]
    other = WeightSearchDisplay.from_search(search, param="other")
    assert_array_equal(other.values, [1, 2, 3])


def test_successive_halving_counts_the_last_round(rows):
    params = {"scoring": mean_log_loss_scorer, "min_resources": 40, "factor": 2}
    params |= {"cv": FunnelStratifiedKFold(3, shuffle=False), "random_state": 0}
    grid = {"pwiser_weight": POWERS}
    search = HalvingGridSearchCV(Noisy(), grid, **params).fit(*rows)
    display = WeightSearchDisplay.from_search(search)
    is_last = search.cv_results_["iter"] == search.n_iterations_ - 1
    expected = sorted(search.cv_results_["param_pwiser_weight"][is_last])
    assert 1 < len(expected) < len(POWERS)
    assert_array_equal(display.values, np.array(expected, dtype=float))


def test_a_parameter_inside_a_pipeline_and_the_default_scorer(rows):
    pipeline = Pipeline([("model", Noisy())])
    grid = {"model__pwiser_weight": POWERS}
    search = GridSearchCV(pipeline, grid, scoring=mean_auc_scorer, cv=3).fit(*rows)
    display = WeightSearchDisplay.from_search(search)
    assert list(display.scores) == ["score"]
    assert display.param_name == "pwiser_weight"


def test_the_choice_of_the_estimator_is_left_out(rows):
    search = search_of(rows, {"pwiser_weight": [None, 1.0, 0.1]})
    display = WeightSearchDisplay.from_search(search)
    assert_array_equal(display.values, [0.1, 1.0])
    best = search.best_params_["pwiser_weight"]
    assert display.best_value == best
    alone = search_of(rows, {"pwiser_weight": [None], "other": [1.0, 2.0]})
    with pytest.raises(ValueError, match=r"'pwiser_weight' that are not None are \[\]"):
        WeightSearchDisplay.from_search(alone)


def test_errors_of_searches(rows, pyplot):
    with pytest.raises(NotFittedError):
        WeightSearchDisplay.from_search(GridSearchCV(Noisy(), {}))
    search = search_of(rows, {"pwiser_weight": POWERS, "other": [1.0, 2.0]}, False)
    for message, kwargs in [
        ("search must select a candidate", {}),
        (r"param must be one of .* got 'lr'", {"param": "lr"}),
    ]:
        with pytest.raises(ValueError, match=message):
            WeightSearchDisplay.from_search(search, **kwargs)
    named = search_of(rows, {"other": [1.0, True]}, refit="loss")
    with pytest.raises(ValueError, match=r"numeric.*'other' that .* are .* True"):
        WeightSearchDisplay.from_search(named, param="other")
    grids = [{"other": [9.0]}, {"pwiser_weight": [100.0]}]
    with pytest.raises(ValueError, match="not among the parameters of the best cand"):
        WeightSearchDisplay.from_search(search_of(rows, grids))
    _, ax = pyplot.subplots()
    plain = search_of(rows, {"pwiser_weight": POWERS})
    with pytest.raises(ValueError, match=r"ax must contain 2 axes, .* got 1"):
        WeightSearchDisplay.from_search(plain, ax=ax)
