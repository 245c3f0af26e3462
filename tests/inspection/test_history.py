"""The picture of the training history against the history."""

import pytest
from numpy.testing import assert_array_equal
from refusals import X, Y, small
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sk_pwiser.inspection import TrainingHistoryDisplay


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
    for ax in display.axes_:
        (mark,) = [x for x in ax.get_lines() if x.get_label() == "weights kept"]
        assert set(mark.get_xdata()) == {trained.best_epoch_}


def test_parts_of_the_history(trained, pyplot):
    _, ax = pyplot.subplots()
    display = TrainingHistoryDisplay.from_estimator(trained, kind="auc", ax=ax, lw=4)
    assert list(display.axes_) == [ax]
    assert {line.get_linewidth() for line in display.lines_[0]} == {4}
    (losses,) = display.plot(kind="loss").lines_
    assert labels_of(losses)[0] == "training"


def test_without_validation_rows_there_is_a_loss_only():
    model = small(early_stopping=False).fit(X, Y)
    display = TrainingHistoryDisplay.from_estimator(
        make_pipeline(FunctionTransformer(), model)
    )
    (lines,) = display.lines_
    assert labels_of(lines) == ["training"]
    with pytest.raises(ValueError, match="without validation rows, got 'auc'"):
        display.plot(kind="auc")


def test_epochs_of_partial_fit_have_no_validation_figures(trained):
    import copy

    model = copy.deepcopy(trained).partial_fit(X, Y)
    display = TrainingHistoryDisplay.from_estimator(model)
    training, validation, _ = (line.get_ydata() for line in display.lines_[0])
    assert len(training) == len(validation) == len(model.history_)
    assert training[-1] == model.history_[-1, "train_loss"]


def test_errors(trained, pyplot):
    with pytest.raises(NotFittedError):
        TrainingHistoryDisplay.from_estimator(small())
    other = LogisticRegression().fit([[0], [1]], [0, 1])
    with pytest.raises(ValueError, match="must have the attribute history_"):
        TrainingHistoryDisplay.from_estimator(other)
    with pytest.raises(ValueError, match=r"kind must be one of .* got 'all'"):
        TrainingHistoryDisplay.from_estimator(trained, kind="all")
    _, ax = pyplot.subplots()
    with pytest.raises(ValueError, match=r"ax must contain 2 axes, .* got 1"):
        TrainingHistoryDisplay.from_estimator(trained, ax=ax)
